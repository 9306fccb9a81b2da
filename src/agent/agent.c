/* SPDX-License-Identifier: MIT
 *
 * Happy path: cv_agent_new → as many berths (berth.c) as `links` says → published → streams
 * (carry.c) … cv_agent_stop → the last stream ends → goodbye on every link → on_ended.
 * Ways it fails: a berth gives up (the agent ends with its reason, unless it was only retiring);
 * every tunnel is refused or taken over while somebody waits; the drain time is over.
 */
#include "agent/access.h"
#include "agent/agent_private.h"
#include "agent/control.h"
#include "agent/metrics_page.h"
#include "agent/uplink.h"
#include "config/agent_config.h"
#include "telemetry/log.h"
#include "transport/link.h"

#include <stdio.h>
#include <utlist.h>

enum { PROGRESS_MS = 2000 }; /* between two lines about streams that are waited for */

/* ---- ending ---- */

static void finish_if_over(struct cv_agent *agent)
{
    for (const struct berth *b = agent->berths; b; b = b->next)
        if (!b->is_over)
            return;
    if (agent->has_ended || !agent->is_closing)
        return;
    agent->has_ended = true;
    agent->ops->on_ended(agent->arg, agent->why, &agent->error);
}

static size_t stream_count(const struct cv_agent *agent)
{
    return agent->carry_count + agent->held;
}

static void end(struct cv_agent *agent, struct cv_status why, const struct cv_error *error)
{
    if (agent->is_closing)
        return;
    agent->is_closing = true;
    agent->why = why;
    agent->error = error ? *error : (struct cv_error){.id = why.id};
    cv_worker_timer_stop(agent->worker, &agent->drain);
    cv_worker_timer_stop(agent->worker, &agent->look);
    cv_log(agent->options.log, CV_LOG_INFO, "agent", "shutdown_goodbye",
           "closing the link to the relay");
    /* Streams end with their link, so that the relay does not blame the service for it. */
    for (struct berth *b = agent->berths; b; b = b->next) {
        berth_stop_timers(b);
        cv_uplink_close(b->uplink, "the agent stops");
    }
    cv_worker_defer(agent->worker, &agent->reaping); /* all links may be over already */
}

void agent_on_carry_end(struct cv_agent *agent)
{
    if (agent->is_stopping && stream_count(agent) == 0 && !agent->is_closing)
        end(agent, cv_ok(), NULL);
}

void cv_agent_hold(struct cv_agent *agent)
{
    agent->held++;
}

void cv_agent_release(struct cv_agent *agent)
{
    agent->held--;
    agent_on_carry_end(agent);
}

static void cut(struct cv_agent *agent)
{
    cv_log(agent->options.log, CV_LOG_WARN, "agent", "shutdown_cut",
           "the time for streams to end is over, they are cut",
           CV_F_UINT("streams", stream_count(agent)));
    end(agent, cv_ok(), NULL);
}

static void on_drain(void *arg)
{
    struct cv_agent *agent = arg;
    uint64_t now_ms = cv_worker_now_ms(agent->worker), left_ms = agent->drain_due_ms - now_ms;
    if (now_ms < agent->drain_due_ms &&
        cv_is_ok(cv_worker_timer_start(agent->worker, &agent->drain,
                                       left_ms < PROGRESS_MS ? left_ms : PROGRESS_MS)))
        cv_log(agent->options.log, CV_LOG_INFO, "agent", "shutdown_progress",
               "stopping: streams are still under way", CV_F_UINT("streams", stream_count(agent)),
               CV_F_UINT("leftMs", left_ms));
    else
        cut(agent);
}

void cv_agent_stop(struct cv_agent *agent)
{
    if (agent->is_closing)
        return;
    if (agent->is_stopping) {
        cut(agent);
        return;
    }
    uint64_t drain_ms = agent->config->shutdown_drain_ms;
    agent->is_stopping = true;
    agent->drain_due_ms = cv_worker_now_ms(agent->worker) + drain_ms;
    cv_log(agent->options.log, CV_LOG_INFO, "agent", "shutdown_started",
           stream_count(agent) ? "stopping: no new streams, those under way may end; a second "
                                 "signal (Ctrl-C) cuts them"
                               : "stopping",
           CV_F_UINT("streams", stream_count(agent)), CV_F_UINT("drainMs", drain_ms));
    for (struct berth *b = agent->berths; b; b = b->next) {
        berth_withdraw(b);
        cv_uplink_wind_up(b->uplink);
    }
    if (stream_count(agent) == 0 || drain_ms == 0 ||
        !cv_is_ok(cv_worker_timer_start(agent->worker, &agent->drain,
                                        drain_ms < PROGRESS_MS ? drain_ms : PROGRESS_MS)))
        end(agent, cv_ok(), NULL);
}

/* ---- what berths report ---- */

/* Where another process has the address, its consumers ask there: a third relay does not help. */
static bool is_elsewhere(const struct berth *old, const struct berth *other)
{
    return !other->is_retiring && !other->is_over &&
           (!old->is_handed_over || other->server == old->server);
}

static bool has_moved(const struct berth *old)
{
    const struct cv_agent *agent = old->agent;
    bool is_up = false;
    for (const struct berth *b = agent->berths; b && !is_up; b = b->next)
        is_up = is_elsewhere(old, b) && cv_uplink_is_connected(b->uplink);
    if (!is_up)
        return false;
    for (size_t i = 0; i < agent->tunnel_count; i++) {
        bool is_found = agent->tunnels[i].is_replaced;
        for (const struct berth *b = agent->berths; b && !is_found; b = b->next)
            is_found = is_elsewhere(old, b) && b->tunnels[i].state == TUNNEL_PUBLISHED;
        if (!is_found)
            return false;
    }
    return true;
}

/* What a relay that stops carried for us is reachable elsewhere: it need not wait for us. */
static void tell_moved(struct cv_agent *agent)
{
    struct cv_link_control control = {.type = CV_LINK_EVENT};
    (void)cv_slice_to_str(cv_slice_str("moved"), control.code, sizeof control.code);
    for (struct berth *b = agent->berths; b; b = b->next) {
        struct cv_link *link = b->is_retiring && !b->is_over ? cv_uplink_link(b->uplink) : NULL;
        if (link && has_moved(b))
            (void)cv_link_control_send(link, &control);
    }
}

void agent_tunnel_url(const struct berth *berth, const struct cv_publication *publication,
                      char url[AGENT_URL_MAX])
{
    url[0] = '\0';
    if (publication->is_http)
        (void)snprintf(url, AGENT_URL_MAX, "%s/t/%s/", cv_uplink_access(berth->uplink)->http_base,
                       publication->name);
}

void agent_on_published(struct berth *berth, const struct agent_tunnel *tunnel)
{
    struct cv_agent *agent = berth->agent;
    const struct cv_publication *p = &tunnel->publication;
    char url[AGENT_URL_MAX];
    agent_tunnel_url(berth, p, url);
    cv_log(agent->options.log, CV_LOG_INFO, "agent", "tunnel_published", "the tunnel is open",
           CV_F_STR("tunnel", p->name), CV_F_STR("kind", p->is_http ? "http" : "tcp"),
           CV_F_STR("target", p->target), CV_F_STR("url", url[0] ? url : NULL),
           CV_F_STR("relay", cv_uplink_access(berth->uplink)->relay));
    agent->was_of_use = true;
    tell_moved(agent);
    place_published(berth);
    if (agent->ops->on_published)
        agent->ops->on_published(agent->arg, p->name, url, p->target);
}

void agent_on_up(struct berth *berth)
{
    struct cv_agent *agent = berth->agent;
    agent->was_of_use |= agent->options.is_client;
    tell_moved(agent);
    if (agent->ops->on_up && !agent->is_closing)
        agent->ops->on_up(agent->arg);
}

struct cv_link *cv_agent_link(const struct cv_agent *agent)
{
    struct cv_link *best = NULL;
    for (const struct berth *b = agent->berths; b && !agent->is_closing; b = b->next) {
        struct cv_link *link = cv_uplink_link(b->uplink);
        if (!link || b->is_over || b->is_retiring || !cv_uplink_is_connected(b->uplink))
            continue;
        if (!best || cv_link_streams(link) < cv_link_streams(best))
            best = link;
    }
    return best;
}

static bool has_hope(const struct cv_agent *agent)
{
    for (const struct berth *b = agent->berths; b; b = b->next)
        for (size_t i = 0; i < agent->tunnel_count; i++)
            if (!b->is_over && !agent->tunnels[i].is_replaced &&
                b->tunnels[i].state != TUNNEL_REFUSED)
                return true;
    return false;
}

void agent_on_trouble(struct cv_agent *agent, const struct cv_error *error)
{
    if (agent->options.is_interactive && !has_hope(agent))
        end(agent, cv_status(error->id), error);
}

void agent_on_relay_stops(struct berth *berth)
{
    struct cv_agent *agent = berth->agent;
    if (agent->is_stopping || agent->is_closing)
        return;
    struct cv_status status = place_successor(berth);
    if (!cv_is_ok(status))
        cv_log(agent->options.log, CV_LOG_ERROR, "agent", "link_failed",
               "no other link could be made", CV_F_STATUS(status));
}

static void on_reaping(void *arg)
{
    struct cv_agent *agent = arg;
    struct berth *berth, *next;
    DL_FOREACH_SAFE(agent->berths, berth, next)
    {
        if (berth->is_over && !agent->is_closing) {
            DL_DELETE(agent->berths, berth);
            berth_free(berth);
        }
    }
    finish_if_over(agent);
}

void agent_on_berth_end(struct berth *berth, struct cv_status why, const struct cv_error *error)
{
    struct cv_agent *agent = berth->agent;
    bool is_wanted = !berth->is_retiring && berth->role == BERTH_LASTING;
    if (!agent->is_closing && !agent->is_stopping && is_wanted)
        end(agent, why, error);
    else if (!agent->is_closing && cv_timer_is_running(&berth->successor))
        agent_on_relay_stops(berth); /* its relay was faster than it had said */
    place_vacate(berth);
    berth_stop_timers(berth);
    cv_worker_defer(agent->worker, &agent->reaping);
    finish_if_over(agent);
}

/* ---- the network, the clock, people ---- */

static void on_surroundings(void *arg, enum cv_watch_change change)
{
    struct cv_agent *agent = arg;
    cv_log(agent->options.log, CV_LOG_DEBUG, "agent", "surroundings_changed",
           change == CV_WATCH_CLOCK ? "the clock has jumped" : "the network has changed");
    for (struct berth *b = agent->berths; b; b = b->next)
        if (!b->is_over)
            cv_uplink_on_surroundings(b->uplink, change);
}

/* An agent that nobody can ask is one all the same. */
static void open_control(struct cv_agent *agent)
{
    struct cv_error error = {0};
    if (agent->options.state_dir &&
        !cv_is_ok(control_new(agent, agent->options.state_dir, &agent->control, &error)))
        cv_log(agent->options.log, CV_LOG_WARN, "agent", "control_off",
               "`culvert status` will not find this agent", CV_F_ERROR(&error));
}

/* ---- life ---- */

static struct cv_status read_tunnels(struct cv_agent *agent, struct cv_error *error)
{
    const struct cv_agent_config *config = agent->config;
    if (agent->options.is_client)
        return cv_ok();
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
    *agent = (struct cv_agent){.worker = worker,
                               .options = *options,
                               .config = options->accesses->config,
                               .ops = ops,
                               .arg = arg,
                               .since_ms = cv_worker_now_ms(worker)};
    cv_timer_init(&agent->drain, on_drain, agent);
    cv_defer_init(&agent->reaping, on_reaping, agent);
    struct cv_status status = place_open(agent);
    if (cv_is_ok(status) && agent->config->metrics_listen)
        status = metrics_page_new(agent, &agent->metrics_page, error);
    agent->metrics = metrics_page_block(agent->metrics_page);
    if (cv_is_ok(status))
        status = read_tunnels(agent, error);
    if (cv_is_ok(status))
        status = cv_watch_new(worker, on_surroundings, agent, &agent->watch);
    for (uint32_t i = 0; cv_is_ok(status) && i < agent->config->links; i++) {
        struct berth *berth;
        status = berth_new(agent, &berth);
    }
    if (cv_is_ok(status))
        open_control(agent);
    else
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
    struct berth *berth, *next;
    DL_FOREACH_SAFE(agent->berths, berth, next)
    berth_free(berth);
    control_free(&agent->control);
    metrics_page_free(&agent->metrics_page);
    cv_watch_free(&agent->watch);
    cv_worker_timer_stop(agent->worker, &agent->drain);
    place_close(agent);
    cv_defer_cancel(&agent->reaping);
    for (size_t i = 0; i < agent->tunnel_count; i++)
        cv_publication_done(&agent->tunnels[i].publication);
    free(agent->tunnels);
    free(agent);
}
