/* SPDX-License-Identifier: MIT
 *
 * One link to a relay and what is published over it.
 *
 * Happy path: berth_new → on_up → ask for each tunnel → on_reply → published → on_stream →
 * carry_start (carry.c) … berth_leave → the last stream ends → closed.
 * Ways it fails: the link is lost (all tunnels are asked for again when there is another); a tunnel
 * is refused (again later) or taken over by another agent (not again); the relay stops (another
 * berth takes over, this one ends with what it carries); the uplink gives up.
 */
#include "agent/access.h"
#include "agent/agent_private.h"
#include "agent/uplink.h"
#include "base/digest.h"
#include "config/agent_config.h"
#include "telemetry/log.h"
#include "transport/link.h"

#include <stdio.h>
#include <utlist.h>

enum {
    RETRY_FIRST_MS = 5000, /* a refused tunnel: its old link may still be counted */
    RETRY_MAX_MS = 60000,
    OPEN_PROHIBITED = 1, /* RFC 4254 §5.1 */
    OPEN_CONNECT_FAILED = 2,
    LEAVE_LOOK_MS = 500,
    /* A relay that stops tells thousands of agents at once: they spread over this much of the time
     * that it gives them. */
    SUCCESSOR_MAX_MS = 3000,
};

/* A request's cookie: the tunnel's number, and which of its two requests it is. */
enum { ASKED_DESCRIPTION, ASKED_FORWARDING, QUESTIONS };

/* ---- publishing ---- */

static void ask(struct berth *berth, size_t index)
{
    struct cv_link *link = cv_uplink_link(berth->uplink);
    struct berth_tunnel *tunnel = &berth->tunnels[index];
    const struct agent_tunnel *what = &berth->agent->tunnels[index];
    const struct cv_publication *p = &what->publication;
    if (!link || what->is_replaced)
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
static void ask_next(struct berth *berth)
{
    size_t count = berth->agent->tunnel_count;
    if (berth->is_retiring)
        return;
    for (size_t i = 0; i < count; i++)
        if (berth->tunnels[i].state == TUNNEL_ASKED)
            return;
    for (size_t i = 0; i < count; i++) {
        if (berth->tunnels[i].state == TUNNEL_IDLE && !berth->agent->tunnels[i].is_replaced) {
            ask(berth, i);
            return;
        }
    }
}

static void on_up(void *arg, struct cv_link *link)
{
    struct berth *berth = arg;
    (void)link;
    berth->retry_ms = RETRY_FIRST_MS;
    place_up(berth);
    ask_next(berth);
    agent_on_up(berth);
}

static void on_down(void *arg)
{
    struct berth *berth = arg;
    cv_worker_timer_stop(berth->agent->worker, &berth->retry);
    for (size_t i = 0; i < berth->agent->tunnel_count; i++)
        berth->tunnels[i].state = TUNNEL_IDLE;
    place_down(berth);
}

static const struct cv_access *on_choose(void *arg)
{
    return place_choose(arg);
}

static enum cv_uplink_next on_failed(void *arg, struct cv_status why, uint64_t retry_after_ms)
{
    (void)why;
    return place_failed(arg, retry_after_ms);
}

static void on_away(void *arg, uint64_t away_ms)
{
    place_away(arg, away_ms);
}

static void on_resumed(void *arg)
{
    place_resumed(arg);
    agent_on_up(arg);
}

static void on_retry(void *arg)
{
    struct berth *berth = arg;
    for (size_t i = 0; i < berth->agent->tunnel_count; i++)
        if (berth->tunnels[i].state == TUNNEL_REFUSED)
            berth->tunnels[i].state = TUNNEL_IDLE;
    ask_next(berth);
}

static void on_refused(struct berth *berth, size_t index)
{
    struct cv_agent *agent = berth->agent;
    struct berth_tunnel *tunnel = &berth->tunnels[index];
    const char *name = agent->tunnels[index].publication.name;
    struct cv_error error = {0};
    const char *reason = tunnel->reason[0] ? tunnel->reason : "the relay gives no reason";
    (void)cv_fail(&error, CV_FORBIDDEN, "tunnel %s: %s", name, reason);
    tunnel->state = TUNNEL_REFUSED;
    cv_log(agent->options.log, CV_LOG_WARN, "agent", "tunnel_refused",
           "the relay does not publish the tunnel", CV_F_STR("tunnel", name), CV_F_ERROR(&error));
    agent_on_trouble(agent, &error);
    if (!agent->is_closing && !cv_timer_is_running(&berth->retry)) {
        (void)cv_worker_timer_start(agent->worker, &berth->retry, berth->retry_ms);
        berth->retry_ms = berth->retry_ms * 2 < RETRY_MAX_MS ? berth->retry_ms * 2 : RETRY_MAX_MS;
    }
}

static void on_reply(void *arg, uintptr_t cookie, bool is_success)
{
    struct berth *berth = arg;
    struct cv_agent *agent = berth->agent;
    size_t index = cookie / QUESTIONS;
    if (index >= agent->tunnel_count || agent->is_closing)
        return;
    struct berth_tunnel *tunnel = &berth->tunnels[index];
    const struct cv_publication *p = &agent->tunnels[index].publication;
    bool is_description = cookie % QUESTIONS == ASKED_DESCRIPTION;
    if (tunnel->state != TUNNEL_ASKED)
        return;
    if (!is_success && is_description) {
        /* Its rules did not arrive: it must not be open without them. */
        struct cv_link *link = cv_uplink_link(berth->uplink);
        if (link)
            (void)cv_link_forward(link, p->name, p->published, true, UINTPTR_MAX);
    }
    if (!is_success) {
        on_refused(berth, index);
    } else if (!is_description) {
        tunnel->state = TUNNEL_PUBLISHED;
        agent_on_published(berth, &agent->tunnels[index]);
    }
    if (!agent->is_closing)
        ask_next(berth);
}

void berth_withdraw(struct berth *berth)
{
    struct cv_agent *agent = berth->agent;
    struct cv_link *link = cv_uplink_link(berth->uplink);
    for (size_t i = 0; link && i < agent->tunnel_count; i++) {
        const struct cv_publication *p = &agent->tunnels[i].publication;
        if (berth->tunnels[i].state == TUNNEL_PUBLISHED)
            (void)cv_link_forward(link, p->name, p->published, true, UINTPTR_MAX);
    }
}

bool berth_is_complete(const struct berth *berth)
{
    for (size_t i = 0; i < berth->agent->tunnel_count; i++)
        if (berth->tunnels[i].state != TUNNEL_PUBLISHED && !berth->agent->tunnels[i].is_replaced)
            return false;
    return true;
}

/* ---- leaving ---- */

/* Streams that the relay opened before it heard of it have come by the first look. */
static void on_leaving(void *arg)
{
    struct berth *berth = arg;
    struct cv_link *link = cv_uplink_link(berth->uplink);
    bool is_empty = cv_uplink_is_connected(berth->uplink) && cv_link_streams(link) == 0;
    if (is_empty ||
        !cv_is_ok(cv_worker_timer_start(berth->agent->worker, &berth->leaving, LEAVE_LOOK_MS)))
        cv_uplink_close(berth->uplink, "another link has taken over");
}

void berth_leave(struct berth *berth)
{
    struct cv_agent *agent = berth->agent;
    if (berth->is_over || cv_timer_is_running(&berth->leaving))
        return;
    berth->is_retiring = true;
    place_vacate(berth);
    berth_stop_timers(berth);
    if (!cv_uplink_link(berth->uplink)) {
        cv_uplink_close(berth->uplink, "another link has taken over");
        return;
    }
    berth_withdraw(berth);
    cv_uplink_retire(berth->uplink);
    if (!cv_is_ok(cv_worker_timer_start(agent->worker, &berth->leaving, LEAVE_LOOK_MS)))
        cv_uplink_close(berth->uplink, "another link has taken over");
}

/* ---- what the relay says ---- */

static size_t find_tunnel(const struct cv_agent *agent, struct cv_slice name)
{
    size_t i = 0;
    while (i < agent->tunnel_count && !cv_slice_is(name, agent->tunnels[i].publication.name))
        i++;
    return i;
}

static void on_replaced(struct cv_agent *agent, struct agent_tunnel *tunnel)
{
    struct cv_error error = {0};
    (void)cv_fail(&error, CV_REPLACED,
                  "tunnel %s was replaced: another agent publishes it now. Stop one of the two, or "
                  "give one another --name",
                  tunnel->publication.name);
    tunnel->is_replaced = true;
    cv_log(agent->options.log, CV_LOG_WARN, "agent", "tunnel_replaced",
           "another agent has taken over the tunnel", CV_F_STR("tunnel", tunnel->publication.name),
           CV_F_ERROR(&error));
    agent_on_trouble(agent, &error);
}

static void on_successor(void *arg)
{
    agent_on_relay_stops(arg);
}

static void on_shutdown(struct berth *berth, uint64_t after_ms, bool is_handed_over)
{
    struct cv_agent *agent = berth->agent;
    uint64_t random, most_ms = after_ms / 2 < SUCCESSOR_MAX_MS ? after_ms / 2 : SUCCESSOR_MAX_MS;
    if (berth->is_retiring || agent->is_stopping)
        return;
    berth->is_retiring = true;
    berth->is_handed_over = is_handed_over;
    cv_random(&random, sizeof random);
    uint64_t delay_ms = random % (most_ms + 1);
    cv_log(agent->options.log, CV_LOG_INFO, "agent", "relay_stops",
           "the relay is about to stop; another link takes over", CV_F_UINT("afterMs", after_ms),
           CV_F_UINT("delayMs", delay_ms), CV_F_BOOL("isHandedOver", is_handed_over),
           CV_F_STR("relay", cv_uplink_access(berth->uplink)->relay));
    cv_uplink_retire(berth->uplink);
    if (place_relay_stops(berth))
        (void)cv_worker_timer_start(agent->worker, &berth->successor, delay_ms);
}

/* The relay has looked at the service, through this agent. */
static void on_health(struct berth *berth, size_t index, const char *health)
{
    struct cv_agent *agent = berth->agent;
    const struct cv_publication *p = &agent->tunnels[index].publication;
    bool is_bad = strcmp(health, "service_down") == 0 || strcmp(health, "service_slow") == 0;
    bool is_cut = !cv_slice_to_str(cv_slice_str(health), berth->tunnels[index].health,
                                   sizeof berth->tunnels[index].health);
    if (!is_cut)
        cv_log_limited(
            agent->options.log, is_bad ? CV_LOG_WARN : CV_LOG_INFO, "agent", "service_health",
            is_bad ? "the local service is not well" : "the local service answers",
            CV_F_STR("tunnel", p->name), CV_F_STR("target", p->target), CV_F_STR("state", health));
}

static void on_control(void *arg, const struct cv_link_control *control)
{
    struct berth *berth = arg;
    struct cv_agent *agent = berth->agent;
    size_t index = find_tunnel(agent, cv_slice_str(control->tunnel));
    bool is_ours = index < agent->tunnel_count;
    if (agent->is_closing)
        return;
    cv_log(agent->options.log, CV_LOG_DEBUG, "agent", "relay_says", "a message of the relay",
           CV_F_STR("code", control->code), CV_F_STR("tunnel", control->tunnel),
           CV_F_STR("text", control->message));
    if (control->type != CV_LINK_NOTICE)
        return;
    bool is_handed_over = strcmp(control->code, "handover") == 0;
    if (is_handed_over || strcmp(control->code, "shutdown") == 0) {
        on_shutdown(berth, control->after_ms, is_handed_over);
    } else if (is_ours && strcmp(control->code, "replaced") == 0 &&
               !agent->tunnels[index].is_replaced) {
        on_replaced(agent, &agent->tunnels[index]);
    } else if (is_ours && strcmp(control->code, "shared") == 0) {
        cv_log(agent->options.log, CV_LOG_INFO, "agent", "tunnel_shared",
               "others who are let in reach the tunnel here", CV_F_STR("tunnel", control->tunnel),
               CV_F_STR("path", control->message),
               CV_F_STR("relay", cv_uplink_access(berth->uplink)->relay));
    } else if (is_ours && strcmp(control->code, "service") == 0) {
        on_health(berth, index, control->message);
    } else if (is_ours && strcmp(control->code, "refused") == 0) {
        (void)snprintf(berth->tunnels[index].reason, sizeof berth->tunnels[index].reason, "%s",
                       control->message);
    }
}

/* ---- streams ---- */

static void on_stream(void *arg, struct cv_stream *stream, struct cv_slice host, uint32_t port)
{
    struct berth *berth = arg;
    struct cv_agent *agent = berth->agent;
    size_t index = find_tunnel(agent, host);
    bool is_known = index < agent->tunnel_count &&
                    agent->tunnels[index].publication.published == port &&
                    (berth->tunnels[index].state == TUNNEL_PUBLISHED ||
                     berth->tunnels[index].state == TUNNEL_ASKED);
    if (agent->is_stopping || agent->is_closing)
        cv_stream_refuse(stream, OPEN_CONNECT_FAILED, "agent-stopping: try another agent");
    else if (!is_known)
        cv_stream_refuse(stream, OPEN_PROHIBITED, "tunnel-unknown: not published by this agent");
    else
        carry_start(agent, &agent->tunnels[index].publication, stream);
}

/* ---- life ---- */

static void on_ended(void *arg, struct cv_status why, const struct cv_error *error)
{
    struct berth *berth = arg;
    berth->is_over = true;
    agent_on_berth_end(berth, why, error);
}

static const struct cv_uplink_ops uplink_ops = {
    .on_up = on_up,
    .on_down = on_down,
    .on_reply = on_reply,
    .on_control = on_control,
    .on_choose = on_choose,
    .on_failed = on_failed,
    .on_away = on_away,
    .on_resumed = on_resumed,
    .on_stream = on_stream,
    .on_ended = on_ended,
};

struct cv_status berth_new(struct cv_agent *agent, struct berth **out)
{
    struct cv_uplink_options options = {.access = agent->options.accesses, /* until on_choose */
                                        .log = agent->options.log,
                                        .is_interactive = agent->options.is_interactive,
                                        .metrics = agent->metrics,
                                        .was_up = agent->was_of_use};
    struct berth *berth = calloc(1, sizeof *berth);
    *out = NULL;
    if (!berth)
        return cv_status(CV_NO_MEMORY);
    *berth = (struct berth){.agent = agent,
                            .tunnels = calloc(agent->tunnel_count + 1, sizeof *berth->tunnels)};
    cv_timer_init(&berth->retry, on_retry, berth);
    cv_timer_init(&berth->successor, on_successor, berth);
    cv_timer_init(&berth->trial, place_judge, berth);
    cv_timer_init(&berth->leaving, on_leaving, berth);
    struct cv_status status =
        berth->tunnels ? cv_uplink_new(agent->worker, &options, &uplink_ops, berth, &berth->uplink)
                       : cv_status(CV_NO_MEMORY);
    if (!cv_is_ok(status)) {
        berth_free(berth);
        return status;
    }
    DL_APPEND(agent->berths, berth);
    *out = berth;
    return cv_ok();
}

void berth_stop_timers(struct berth *berth)
{
    struct cv_worker *worker = berth->agent->worker;
    cv_worker_timer_stop(worker, &berth->retry);
    cv_worker_timer_stop(worker, &berth->successor);
    cv_worker_timer_stop(worker, &berth->trial);
    cv_worker_timer_stop(worker, &berth->leaving);
}

void berth_free(struct berth *berth)
{
    cv_uplink_free(&berth->uplink);
    berth_stop_timers(berth);
    free(berth->tunnels);
    free(berth);
}
