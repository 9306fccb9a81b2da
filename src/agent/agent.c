/* SPDX-License-Identifier: MIT
 *
 * Happy path: cv_agent_new → on_up → ask for each tunnel → on_reply → published → on_stream →
 * carry_start (carry.c) … cv_agent_stop → the last stream ends → goodbye → on_ended.
 * Ways it fails: the link is lost (all tunnels are asked for again when it is back); a tunnel is
 * refused (again later) or taken over by another agent (not again); the drain time is over.
 */
#include "agent/access.h"
#include "agent/agent_private.h"
#include "agent/uplink.h"
#include "config/agent_config.h"
#include "telemetry/log.h"
#include "transport/link.h"

#include <stdio.h>

enum {
    RETRY_FIRST_MS = 5000, /* a refused tunnel: its old link may still be counted */
    RETRY_MAX_MS = 60000,
    OPEN_PROHIBITED = 1, /* RFC 4254 §5.1 */
    OPEN_CONNECT_FAILED = 2,
};

/* A request's cookie: the tunnel's number, and which of its two requests it is. */
enum { ASKED_DESCRIPTION, ASKED_FORWARDING, QUESTIONS };

/* ---- ending ---- */

static void end(struct cv_agent *agent, struct cv_status why, const struct cv_error *error)
{
    if (agent->is_closing)
        return;
    agent->is_closing = true;
    agent->why = why;
    agent->error = error ? *error : (struct cv_error){.id = why.id};
    carry_end_all(agent);
    cv_worker_timer_stop(agent->worker, &agent->drain);
    cv_worker_timer_stop(agent->worker, &agent->retry);
    cv_log(agent->options.log, CV_LOG_INFO, "agent", "shutdown_goodbye",
           "closing the link to the relay");
    cv_uplink_close(agent->uplink, "the agent stops");
}

void agent_on_carry_end(struct cv_agent *agent)
{
    if (agent->is_stopping && agent->carry_count == 0 && !agent->is_closing)
        end(agent, cv_ok(), NULL);
}

static void on_drain_over(void *arg)
{
    struct cv_agent *agent = arg;
    cv_log(agent->options.log, CV_LOG_WARN, "agent", "shutdown_cut",
           "the time for streams to end is over, they are cut",
           CV_F_UINT("streams", agent->carry_count));
    end(agent, cv_ok(), NULL);
}

/* The relay lets streams without a request go, and sends no new ones; those that carry something
 * end by themselves. */
static void withdraw_all(struct cv_agent *agent)
{
    struct cv_link *link = cv_uplink_link(agent->uplink);
    for (size_t i = 0; link && i < agent->tunnel_count; i++) {
        const struct cv_publication *p = &agent->tunnels[i].publication;
        if (agent->tunnels[i].state == TUNNEL_PUBLISHED)
            (void)cv_link_forward(link, p->name, p->published, true, UINTPTR_MAX);
    }
}

void cv_agent_stop(struct cv_agent *agent)
{
    if (agent->is_closing)
        return;
    if (agent->is_stopping) {
        on_drain_over(agent);
        return;
    }
    agent->is_stopping = true;
    cv_log(agent->options.log, CV_LOG_INFO, "agent", "shutdown_started",
           "stopping: no new streams, those under way may end",
           CV_F_UINT("streams", agent->carry_count));
    withdraw_all(agent);
    uint64_t drain_ms = agent->options.access->config->shutdown_drain_ms;
    if (agent->carry_count == 0 || drain_ms == 0 ||
        !cv_is_ok(cv_worker_timer_start(agent->worker, &agent->drain, drain_ms)))
        end(agent, cv_ok(), NULL);
}

/* ---- publishing ---- */

static void ask(struct cv_agent *agent, size_t index)
{
    struct cv_link *link = cv_uplink_link(agent->uplink);
    struct agent_tunnel *tunnel = &agent->tunnels[index];
    const struct cv_publication *p = &tunnel->publication;
    if (!link || tunnel->state == TUNNEL_REPLACED)
        return;
    uintptr_t cookie = index * QUESTIONS;
    tunnel->reason[0] = '\0';
    struct cv_status status =
        cv_link_request(link, "tunnel@culvert", cv_slice_str(p->json), cookie + ASKED_DESCRIPTION);
    if (cv_is_ok(status))
        status = cv_link_forward(link, p->name, p->published, false, cookie + ASKED_FORWARDING);
    tunnel->state = cv_is_ok(status) ? TUNNEL_ASKED : TUNNEL_IDLE;
    if (!cv_is_ok(status))
        cv_link_close(link, status, "a tunnel could not be asked for");
}

/* More questions at once than SSH keeps are asked one by one, as answers come. */
static void ask_next(struct cv_agent *agent)
{
    for (size_t i = 0; i < agent->tunnel_count; i++)
        if (agent->tunnels[i].state == TUNNEL_ASKED)
            return;
    for (size_t i = 0; i < agent->tunnel_count; i++) {
        if (agent->tunnels[i].state == TUNNEL_IDLE) {
            ask(agent, i);
            return;
        }
    }
}

static void on_up(void *arg, struct cv_link *link)
{
    struct cv_agent *agent = arg;
    (void)link;
    agent->retry_ms = RETRY_FIRST_MS;
    ask_next(agent);
}

static void on_down(void *arg)
{
    struct cv_agent *agent = arg;
    cv_worker_timer_stop(agent->worker, &agent->retry);
    for (size_t i = 0; i < agent->tunnel_count; i++)
        if (agent->tunnels[i].state != TUNNEL_REPLACED)
            agent->tunnels[i].state = TUNNEL_IDLE;
}

static void on_retry(void *arg)
{
    struct cv_agent *agent = arg;
    for (size_t i = 0; i < agent->tunnel_count; i++)
        if (agent->tunnels[i].state == TUNNEL_REFUSED)
            agent->tunnels[i].state = TUNNEL_IDLE;
    ask_next(agent);
}

static void on_published(struct cv_agent *agent, struct agent_tunnel *tunnel)
{
    const struct cv_publication *p = &tunnel->publication;
    char url[400] = "";
    if (p->is_http)
        (void)snprintf(url, sizeof url, "%s/t/%s/", agent->options.access->http_base, p->name);
    tunnel->state = TUNNEL_PUBLISHED;
    cv_log(agent->options.log, CV_LOG_INFO, "agent", "tunnel_published", "the tunnel is open",
           CV_F_STR("tunnel", p->name), CV_F_STR("kind", p->is_http ? "http" : "tcp"),
           CV_F_STR("target", p->target), CV_F_STR("url", url[0] ? url : NULL));
    if (agent->ops->on_published)
        agent->ops->on_published(agent->arg, p->name, url, p->target);
}

static bool has_hope(const struct cv_agent *agent)
{
    for (size_t i = 0; i < agent->tunnel_count; i++)
        if (agent->tunnels[i].state != TUNNEL_REPLACED && agent->tunnels[i].state != TUNNEL_REFUSED)
            return true;
    return false;
}

static void on_refused(struct cv_agent *agent, struct agent_tunnel *tunnel)
{
    struct cv_error error = {0};
    const char *reason = tunnel->reason[0] ? tunnel->reason : "the relay gives no reason";
    (void)cv_fail(&error, CV_FORBIDDEN, "tunnel %s: %s", tunnel->publication.name, reason);
    tunnel->state = TUNNEL_REFUSED;
    cv_log(agent->options.log, CV_LOG_WARN, "agent", "tunnel_refused",
           "the relay does not publish the tunnel", CV_F_STR("tunnel", tunnel->publication.name),
           CV_F_ERROR(&error));
    if (agent->options.is_interactive && !has_hope(agent)) {
        error.id = CV_FORBIDDEN;
        end(agent, cv_status(CV_FORBIDDEN), &error);
        return;
    }
    if (!cv_timer_is_running(&agent->retry)) {
        (void)cv_worker_timer_start(agent->worker, &agent->retry, agent->retry_ms);
        agent->retry_ms = agent->retry_ms * 2 < RETRY_MAX_MS ? agent->retry_ms * 2 : RETRY_MAX_MS;
    }
}

static void on_reply(void *arg, uintptr_t cookie, bool is_success)
{
    struct cv_agent *agent = arg;
    size_t index = cookie / QUESTIONS;
    if (index >= agent->tunnel_count || agent->is_closing)
        return;
    struct agent_tunnel *tunnel = &agent->tunnels[index];
    bool is_description = cookie % QUESTIONS == ASKED_DESCRIPTION;
    if (tunnel->state != TUNNEL_ASKED)
        return;
    if (!is_success && is_description) {
        /* Its rules did not arrive: it must not be open without them. */
        struct cv_link *link = cv_uplink_link(agent->uplink);
        tunnel->state = TUNNEL_IDLE;
        if (link)
            (void)cv_link_forward(link, tunnel->publication.name, tunnel->publication.published,
                                  true, UINTPTR_MAX);
    }
    if (!is_success)
        on_refused(agent, tunnel);
    else if (!is_description)
        on_published(agent, tunnel);
    if (!agent->is_closing)
        ask_next(agent);
}

static struct agent_tunnel *find_tunnel(struct cv_agent *agent, struct cv_slice name)
{
    for (size_t i = 0; i < agent->tunnel_count; i++)
        if (cv_slice_is(name, agent->tunnels[i].publication.name))
            return &agent->tunnels[i];
    return NULL;
}

static void on_replaced(struct cv_agent *agent, struct agent_tunnel *tunnel)
{
    struct cv_error error = {0};
    (void)cv_fail(&error, CV_REPLACED,
                  "tunnel %s was replaced: another agent publishes it now. Stop one of the two, or "
                  "give one another --name",
                  tunnel->publication.name);
    tunnel->state = TUNNEL_REPLACED;
    cv_log(agent->options.log, CV_LOG_WARN, "agent", "tunnel_replaced",
           "another agent has taken over the tunnel", CV_F_STR("tunnel", tunnel->publication.name),
           CV_F_ERROR(&error));
    if (agent->options.is_interactive && !has_hope(agent))
        end(agent, cv_status(CV_REPLACED), &error);
}

static void on_control(void *arg, const struct cv_link_control *control)
{
    struct cv_agent *agent = arg;
    struct agent_tunnel *tunnel = find_tunnel(agent, cv_slice_str(control->tunnel));
    if (agent->is_closing)
        return;
    cv_log(agent->options.log, CV_LOG_DEBUG, "agent", "relay_says", "a message of the relay",
           CV_F_STR("code", control->code), CV_F_STR("tunnel", control->tunnel),
           CV_F_STR("text", control->message));
    if (control->type != CV_LINK_NOTICE)
        return;
    if (strcmp(control->code, "shutdown") == 0)
        cv_log(agent->options.log, CV_LOG_INFO, "agent", "relay_stops",
               "the relay is about to stop; the agent will connect again",
               CV_F_UINT("afterMs", control->after_ms));
    else if (tunnel && strcmp(control->code, "replaced") == 0 && tunnel->state != TUNNEL_REPLACED)
        on_replaced(agent, tunnel);
    else if (tunnel && strcmp(control->code, "refused") == 0)
        (void)snprintf(tunnel->reason, sizeof tunnel->reason, "%s", control->message);
}

/* ---- streams ---- */

static void on_stream(void *arg, struct cv_stream *stream, struct cv_slice host, uint32_t port)
{
    struct cv_agent *agent = arg;
    struct agent_tunnel *tunnel = find_tunnel(agent, host);
    if (agent->is_stopping || agent->is_closing)
        cv_stream_refuse(stream, OPEN_CONNECT_FAILED, "agent-stopping: try another agent");
    else if (!tunnel || tunnel->publication.published != port ||
             (tunnel->state != TUNNEL_PUBLISHED && tunnel->state != TUNNEL_ASKED))
        cv_stream_refuse(stream, OPEN_PROHIBITED, "tunnel-unknown: not published by this agent");
    else
        carry_start(agent, &tunnel->publication, stream);
}

/* ---- life ---- */

static void on_uplink_ended(void *arg, struct cv_status why, const struct cv_error *error)
{
    struct cv_agent *agent = arg;
    if (!agent->is_closing) {
        agent->is_closing = true;
        agent->why = why;
        agent->error = *error;
        carry_end_all(agent);
    }
    agent->ops->on_ended(agent->arg, agent->why, &agent->error);
}

static const struct cv_uplink_ops uplink_ops = {
    .on_up = on_up,
    .on_down = on_down,
    .on_reply = on_reply,
    .on_control = on_control,
    .on_stream = on_stream,
    .on_ended = on_uplink_ended,
};

static struct cv_status read_tunnels(struct cv_agent *agent, struct cv_error *error)
{
    const struct cv_agent_config *config = agent->options.access->config;
    if (config->tunnels.count == 0)
        return cv_fail(error, CV_USAGE,
                       "nothing to publish: there is no tunnel in the "
                       "configuration");
    agent->tunnels = calloc(config->tunnels.count, sizeof *agent->tunnels);
    if (!agent->tunnels)
        return cv_status(CV_NO_MEMORY);
    for (size_t i = 0; i < config->tunnels.count; i++) {
        CV_RETURN_IF_ERROR(cv_publication_init(&agent->tunnels[i].publication,
                                               cv_agent_config_tunnel(config, i), error));
        agent->tunnel_count++;
    }
    return cv_ok();
}

struct cv_status cv_agent_new(struct cv_worker *worker, const struct cv_agent_options *options,
                              const struct cv_agent_ops *ops, void *arg, struct cv_agent **out,
                              struct cv_error *error)
{
    struct cv_agent *agent = calloc(1, sizeof *agent);
    *out = NULL;
    if (!agent)
        return cv_status(CV_NO_MEMORY);
    *agent = (struct cv_agent){.worker = worker, .options = *options, .ops = ops, .arg = arg};
    cv_timer_init(&agent->drain, on_drain_over, agent);
    cv_timer_init(&agent->retry, on_retry, agent);
    struct cv_uplink_options uplink = {
        .access = options->access, .log = options->log, .is_interactive = options->is_interactive};
    struct cv_status status = read_tunnels(agent, error);
    if (cv_is_ok(status))
        status = cv_uplink_new(worker, &uplink, &uplink_ops, agent, &agent->uplink);
    if (!cv_is_ok(status))
        cv_agent_free(&agent);
    *out = agent;
    return status;
}

void cv_agent_free(struct cv_agent **out)
{
    struct cv_agent *agent = *out;
    *out = NULL;
    if (!agent)
        return;
    cv_uplink_free(&agent->uplink);
    cv_worker_timer_stop(agent->worker, &agent->drain);
    cv_worker_timer_stop(agent->worker, &agent->retry);
    for (size_t i = 0; i < agent->tunnel_count; i++)
        cv_publication_done(&agent->tunnels[i].publication);
    free(agent->tunnels);
    free(agent);
}
