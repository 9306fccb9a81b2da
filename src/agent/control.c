/* SPDX-License-Identifier: MIT
 *
 * Happy path: control_new → on_question → cv_agent_status, control_set or do_reconnect → the
 * answer's text. Ways it fails: the socket cannot be made (the agent goes on without); what is
 * asked is no JSON object or no known command (an answer says so); no memory (the connection
 * closes).
 */
#include "agent/control.h"

#include "agent/access.h"
#include "agent/agent_private.h"
#include "agent/uplink.h"
#include "base/file.h"
#include "base/json.h"
#include "config/state_dir.h"
#include "flow/quality.h"
#include "net/desk.h"

#include <limits.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

struct control {
    struct cv_agent *agent;
    struct cv_desk *desk;
};

/* ---- values ---- */

/* RFC 3339 in UTC, of a moment that is so long ago. */
static json_t *moment(const struct cv_agent *agent, uint64_t ago_ms)
{
    time_t at = (time_t)(cv_worker_wall_seconds(agent->worker) - ago_ms / 1000);
    struct tm tm;
    char text[40];
    if (!gmtime_r(&at, &tm) || strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        return json_null();
    return json_string(text);
}

static json_t *number(uint64_t value)
{
    return json_integer(value > INT64_MAX ? INT64_MAX : (json_int_t)value);
}

/* What a peer said may be something that JSON cannot hold. */
static json_t *words(const char *text)
{
    json_t *value = json_string(text);
    return value ? value : json_string("(not readable)");
}

static json_t *trouble(const struct cv_error *error)
{
    if (!error)
        return json_null();
    return json_pack("{s:s, s:s, s:o, s:s}", "code", cv_status_code(error->id), "category",
                     cv_category_name(cv_status_category(error->id)), "message",
                     words(error->detail), "suggestion", cv_status_suggestion(error->id));
}

static json_t *quality_value(const struct cv_uplink_facts *f)
{
    const struct cv_quality *q = f->quality;
    return json_pack("{s:s, s:o, s:f, s:f, s:o, s:f, s:f}", "grade", cv_quality_name(q->grade),
                     "latency_ms", q->has_latency ? json_real(q->latency_ms) : json_null(),
                     "jitter_ms", q->jitter_ms, "loss_percent", f->loss, "missed",
                     number(q->missed), "in_per_second", q->in_per_s, "out_per_second",
                     q->out_per_s);
}

static json_t *link_value(const struct berth *berth)
{
    struct cv_uplink_facts f;
    cv_uplink_look(berth->uplink);
    cv_uplink_describe(berth->uplink, &f);
    return json_pack(
        "{s:s, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:b, s:o}", "relay",
        f.relay, "state", f.state, "since", moment(berth->agent, f.state_ms), "state_ms",
        number(f.state_ms), "rtt_ms", f.rtt_ms ? number(f.rtt_ms) : json_null(), "quality",
        quality_value(&f), "streams", number(f.streams), "bytes_in", number(f.bytes_in),
        "bytes_out", number(f.bytes_out), "resumes", number(f.resumes), "replayed_bytes",
        number(f.replayed_bytes), "attempts", number(f.attempts), "failures", number(f.failures),
        "next_try_ms", f.has_next_try ? number(f.next_try_ms) : json_null(), "retiring",
        f.is_retiring, "error", trouble(f.trouble));
}

/* A tunnel is what its best link makes of it. */
static json_t *tunnel_value(const struct cv_agent *agent, size_t index)
{
    const struct agent_tunnel *tunnel = &agent->tunnels[index];
    const struct cv_publication *p = &tunnel->publication;
    const char *state = tunnel->is_replaced ? "replaced" : "waiting", *reason = NULL;
    const char *health = "unknown"; /* as long as no relay that can be reached has said */
    char url[AGENT_URL_MAX] = "";
    size_t links = 0;
    for (const struct berth *b = agent->berths; b; b = b->next) {
        const struct berth_tunnel *there = &b->tunnels[index];
        if (b->is_over)
            continue;
        if (there->state == TUNNEL_PUBLISHED && links++ == 0)
            agent_tunnel_url(b, p, url);
        if (there->state == TUNNEL_PUBLISHED && there->health[0])
            health = there->health;
        if (there->state == TUNNEL_REFUSED)
            reason = there->reason[0] ? there->reason : "the relay gives no reason";
    }
    if (links)
        state = "published";
    else if (reason && !tunnel->is_replaced)
        state = "refused";
    return json_pack("{s:s, s:s, s:o, s:s, s:s, s:o, s:o, s:o}", "name", p->name, "kind",
                     p->is_http ? "http" : "tcp", "target", words(p->target), "state", state,
                     "health", links ? health : "agent_offline", "links", number(links), "url",
                     url[0] ? json_string(url) : json_null(), "reason",
                     reason && !links ? words(reason) : json_null());
}

static json_t *port_value(const struct cv_agent *agent)
{
    struct cv_agent_port port;
    agent->ops->on_describe(agent->arg, &port);
    return json_pack("{s:s, s:s, s:s, s:o, s:o}", "address", port.address, "tunnel", port.tunnel,
                     "kind", port.kind, "connections", number(port.connections), "waiting",
                     number(port.waiting));
}

json_t *cv_agent_status(struct cv_agent *agent)
{
    uint64_t age_ms = cv_worker_now_ms(agent->worker) - agent->since_ms;
    json_t *links = json_array(), *tunnels = json_array(), *ports = json_array();
    for (const struct berth *b = agent->berths; b; b = b->next)
        if (!b->is_over)
            (void)json_array_append_new(links, link_value(b));
    for (size_t i = 0; i < agent->tunnel_count; i++)
        (void)json_array_append_new(tunnels, tunnel_value(agent, i));
    if (agent->ops->on_describe)
        (void)json_array_append_new(ports, port_value(agent));
    return json_pack("{s:I, s:s, s:s?, s:o, s:o, s:b, s:o, s:o, s:o, s:o, s:o}", "pid",
                     (json_int_t)getpid(), "version", CV_VERSION, "config",
                     agent->options.config_path, "since", moment(agent, age_ms), "age_ms",
                     number(age_ms), "stopping", agent->is_stopping || agent->is_closing, "streams",
                     number(agent->carry_count + agent->held), "carried", number(agent->carried),
                     "links", links, "tunnels", tunnels, "forwards", ports);
}

/* ---- commands ---- */

static json_t *failure(const char *message)
{
    return json_pack("{s:{s:s}}", "error", "message", message);
}

/* {"command":"reconnect"}, with "relay" ("host:port") only the links to that one. */
static json_t *do_reconnect(const struct control *control, const json_t *question)
{
    const json_t *relay = json_object_get(question, "relay");
    size_t links = 0;
    if (relay && !json_is_string(relay))
        return failure("`relay` is host:port");
    for (struct berth *b = control->agent->berths; b; b = b->next) {
        struct cv_uplink_facts facts;
        cv_uplink_describe(b->uplink, &facts);
        if (b->is_over || b->is_retiring ||
            (relay && strcasecmp(json_string_value(relay), facts.relay) != 0))
            continue;
        links += cv_uplink_reconnect(b->uplink);
    }
    return json_pack("{s:o}", "reconnecting", number(links));
}

static json_t *answer_to(const struct control *control, const json_t *question)
{
    const char *command = json_string_value(json_object_get(question, "command"));
    if (command && strcmp(command, "status") == 0)
        return cv_agent_status(control->agent);
    if (command && strcmp(command, "reconnect") == 0)
        return do_reconnect(control, question);
    if (command && strcmp(command, "set") == 0)
        return control_set(control->agent, question);
    return failure("known commands: status, reconnect, set");
}

static struct cv_status on_question(void *arg, struct cv_slice text, struct cv_buf *out)
{
    struct control *control = arg;
    json_t *question;
    struct cv_status status = cv_json_parse(text, &question);
    if (status.id == CV_NO_MEMORY)
        return status;
    json_t *value = cv_is_ok(status) ? answer_to(control, question)
                                     : failure("a question is a JSON object in one line");
    char *answer = value ? cv_json_text(value) : NULL;
    status = answer ? cv_buf_append_str(out, answer) : cv_status(CV_NO_MEMORY);
    json_decref(value);
    json_decref(question);
    free(answer);
    return status;
}

/* ---- life ---- */

struct cv_status control_new(struct cv_agent *agent, const char *state_dir, struct control **out,
                             struct cv_error *error)
{
    char path[PATH_MAX], name[40];
    struct control *control = calloc(1, sizeof *control);
    *out = NULL;
    if (!control)
        return cv_fail(error, CV_NO_MEMORY, "no memory for the control socket");
    *control = (struct control){.agent = agent};
    (void)snprintf(name, sizeof name, "run/%ld.sock", (long)getpid());
    struct cv_status status = cv_state_dir_path(state_dir, "run", path, sizeof path, error);
    if (cv_is_ok(status))
        status = cv_file_make_folder(path, error);
    if (cv_is_ok(status))
        status = cv_state_dir_path(state_dir, name, path, sizeof path, error);
    if (cv_is_ok(status))
        status = cv_desk_new(agent->worker, path, on_question, control, &control->desk, error);
    if (cv_is_ok(status))
        *out = control;
    else
        control_free(&control);
    return status;
}

void control_free(struct control **control)
{
    if (!*control)
        return;
    cv_desk_free(&(*control)->desk);
    free(*control);
    *control = NULL;
}
