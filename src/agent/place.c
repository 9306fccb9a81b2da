/* SPDX-License-Identifier: MIT
 *
 * At which of several relays a berth is, and when another one takes its place. The policy is
 * flow/fleet.h; what is here moves links, and never cuts a stream for it.
 *
 * Happy path: place_choose → place_up. The relay is lost: place_away → a substitute →
 * place_published → the old berth leaves. A better relay is back: on_look → a trial → place_up →
 * on_trial_over → the old berth leaves. Ways it fails: a try fails (place_failed: the next relay at
 * once, if there is a good one); what was lost comes back first (place_resumed: the substitute
 * leaves); a trial fails (it leaves, and there is another one later).
 */
#include "agent/access.h"
#include "agent/agent_private.h"
#include "base/digest.h"
#include "config/agent_config.h"
#include "telemetry/log.h"

#include <stdlib.h>
#include <utlist.h>

enum {
    AWAY_MS = 5000, /* so long a link waits for its relay before there is one to another relay */
    /* A relay that restarts is back in a second, and consumers wait there (timers.agent_return);
     * one that stays away must not be dialled all the time. */
    LOOK_FIRST_MS = 1000,
    LOOK_MAX_MS = 10000,
    ANSWERS_MS = 1000, /* a trial's time is over, and the relay has not answered all yet */
};

static uint64_t now_of(const struct cv_agent *agent)
{
    return cv_worker_now_ms(agent->worker);
}

static const char *relay_of(const struct berth *berth)
{
    return berth->agent->options.accesses[berth->server].relay;
}

static bool is_ending(const struct cv_agent *agent)
{
    return agent->is_stopping || agent->is_closing;
}

static struct berth *find_replacement(const struct berth *berth)
{
    for (struct berth *b = berth->agent->berths; b; b = b->next)
        if (b->replaces == berth)
            return b;
    return NULL;
}

/* ---- counting ---- */

static void uncount(struct berth *berth)
{
    if (berth->is_placed)
        berth->agent->fleet.servers[berth->server].links--;
    berth->is_placed = false;
}

static void place_at(struct berth *berth, size_t server)
{
    uncount(berth);
    berth->server = server;
    berth->is_placed = true;
    berth->agent->fleet.servers[server].links++;
}

/* It stands for itself from now on. */
static void make_lasting(struct berth *berth)
{
    berth->role = BERTH_LASTING;
    berth->replaces = NULL;
    cv_worker_timer_stop(berth->agent->worker, &berth->trial);
}

void place_vacate(struct berth *berth)
{
    struct berth *replacement = find_replacement(berth);
    if (replacement)
        make_lasting(replacement);
    make_lasting(berth);
    uncount(berth);
}

/* ---- one for the other ---- */

static void take_over(struct berth *berth)
{
    struct cv_agent *agent = berth->agent;
    struct berth *old = berth->replaces;
    make_lasting(berth);
    agent->look_ms = LOOK_FIRST_MS;
    cv_log(agent->options.log, CV_LOG_INFO, "agent", "relay_changed",
           "the link to another relay has taken over; what the old one carries may end",
           CV_F_STR("relay", relay_of(berth)), CV_F_STR("from", relay_of(old)));
    berth_leave(old);
}

static void take_over_if_complete(struct berth *berth)
{
    if (berth->role == BERTH_SUBSTITUTE && berth_is_complete(berth))
        take_over(berth);
}

static struct cv_status add(struct cv_agent *agent, enum berth_role role, struct berth *replaces,
                            struct berth **out)
{
    CV_RETURN_IF_ERROR(berth_new(agent, out));
    (*out)->role = role;
    (*out)->replaces = replaces;
    return cv_ok();
}

/* Where `berth` goes at first, whatever is best. */
static void bind_to(struct berth *berth, size_t server)
{
    place_at(berth, server);
    berth->is_bound = true;
}

/* ---- looking for a better relay ---- */

static void arm_look(struct cv_agent *agent)
{
    uint64_t random;
    if (agent->fleet.count < 2 || is_ending(agent))
        return;
    /* Not all agents of a relay that was restarted at once. */
    cv_random(&random, sizeof random);
    uint64_t half_ms = agent->look_ms / 2;
    (void)cv_worker_timer_start(agent->worker, &agent->look, half_ms + random % (half_ms + 1));
}

static void look_soon(struct cv_agent *agent)
{
    agent->look_ms = LOOK_FIRST_MS;
    cv_worker_timer_stop(agent->worker, &agent->look);
    arm_look(agent);
}

static bool is_movable(const struct berth *berth)
{
    return berth->role == BERTH_LASTING && !berth->is_retiring && !berth->is_over &&
           cv_uplink_is_connected(berth->uplink);
}

static void on_look(void *arg)
{
    struct cv_agent *agent = arg;
    struct berth *found = NULL, *trial;
    size_t better = 0;
    if (is_ending(agent))
        return;
    for (struct berth *b = agent->berths; b; b = b->next) {
        if (b->role != BERTH_LASTING)
            break; /* one at a time, and none while a relay is away */
        if (!found && is_movable(b) &&
            cv_fleet_better(&agent->fleet, b->server, now_of(agent), &better))
            found = b;
        if (!b->next && found && cv_is_ok(add(agent, BERTH_TRIAL, found, &trial))) {
            bind_to(trial, better);
            cv_log(agent->options.log, CV_LOG_DEBUG, "agent", "relay_trial",
                   "looking whether a better relay is back", CV_F_STR("relay", relay_of(trial)));
            break; /* the new one is in the list */
        }
    }
    arm_look(agent);
    agent->look_ms = agent->look_ms * 2 < LOOK_MAX_MS ? agent->look_ms * 2 : LOOK_MAX_MS;
}

static void end_trial(struct berth *berth, uint64_t retry_after_ms)
{
    cv_fleet_failed(&berth->agent->fleet, berth->server, now_of(berth->agent), retry_after_ms);
    cv_log(berth->agent->options.log, CV_LOG_DEBUG, "agent", "relay_trial_failed",
           "a better relay is not back yet", CV_F_STR("relay", relay_of(berth)));
    berth_leave(berth);
}

/* It has stood for long enough. */
static void judge_trial(struct berth *berth)
{
    struct cv_agent *agent = berth->agent;
    bool is_refused = false;
    for (size_t i = 0; i < agent->tunnel_count; i++)
        is_refused |= berth->tunnels[i].state == TUNNEL_REFUSED;
    if (!cv_uplink_is_connected(berth->uplink) || is_refused)
        end_trial(berth, 0);
    else if (berth_is_complete(berth))
        take_over(berth);
    else if (!cv_is_ok(cv_worker_timer_start(agent->worker, &berth->trial, ANSWERS_MS)))
        end_trial(berth, 0);
}

void place_judge(void *arg)
{
    struct berth *berth = arg;
    if (berth->role == BERTH_TRIAL && !is_ending(berth->agent))
        judge_trial(berth);
}

/* ---- what berths report ---- */

const struct cv_access *place_choose(struct berth *berth)
{
    struct cv_agent *agent = berth->agent;
    if (!berth->is_bound) {
        uint64_t random;
        cv_random(&random, sizeof random);
        uncount(berth);
        place_at(berth, cv_fleet_choose(&agent->fleet, now_of(agent), random));
    }
    berth->is_bound = false;
    return &agent->options.accesses[berth->server];
}

enum cv_uplink_next place_failed(struct berth *berth, uint64_t retry_after_ms)
{
    struct cv_agent *agent = berth->agent;
    if (berth->role == BERTH_TRIAL) {
        end_trial(berth, retry_after_ms);
        return CV_UPLINK_GIVE_UP;
    }
    cv_fleet_failed(&agent->fleet, berth->server, now_of(agent), retry_after_ms);
    return cv_fleet_has_good(&agent->fleet, now_of(agent)) ? CV_UPLINK_ELSEWHERE : CV_UPLINK_AGAIN;
}

void place_up(struct berth *berth)
{
    struct cv_agent *agent = berth->agent;
    cv_fleet_up(&agent->fleet, berth->server);
    if (berth->role == BERTH_TRIAL &&
        !cv_is_ok(cv_worker_timer_start(agent->worker, &berth->trial,
                                        agent->config->reconnect_return_after_ms)))
        end_trial(berth, 0);
    if (!is_ending(agent))
        take_over_if_complete(berth); /* it is, where nothing is to be published */
    if (!cv_timer_is_running(&agent->look))
        look_soon(agent);
}

void place_published(struct berth *berth)
{
    if (!is_ending(berth->agent))
        take_over_if_complete(berth);
}

void place_away(struct berth *berth, uint64_t away_ms)
{
    struct cv_agent *agent = berth->agent;
    struct berth *replacement = find_replacement(berth);
    if (berth->is_retiring || is_ending(agent))
        return;
    if (berth->role == BERTH_TRIAL) {
        end_trial(berth, 0);
        return;
    }
    if (away_ms < AWAY_MS)
        return;
    cv_fleet_failed(&agent->fleet, berth->server, now_of(agent), 0);
    if (replacement) {
        replacement->role = BERTH_SUBSTITUTE; /* a trial need not stand for long any more */
        take_over_if_complete(replacement);
        return;
    }
    /* Also when the others failed a moment ago: one may be back. */
    if (berth->role != BERTH_LASTING || agent->fleet.count < 2)
        return;
    if (!cv_is_ok(add(agent, BERTH_SUBSTITUTE, berth, &replacement)))
        return; /* it is tried again with the next report */
    cv_log(agent->options.log, CV_LOG_WARN, "agent", "relay_away",
           "the relay does not answer, another one is asked", CV_F_STR("relay", relay_of(berth)),
           CV_F_UINT("awayMs", away_ms));
}

void place_resumed(struct berth *berth)
{
    struct berth *replacement = find_replacement(berth);
    cv_fleet_up(&berth->agent->fleet, berth->server);
    if (replacement && replacement->role == BERTH_SUBSTITUTE)
        berth_leave(replacement);
}

void place_down(struct berth *berth)
{
    struct berth *replacement = find_replacement(berth);
    if (berth->role == BERTH_TRIAL) {
        end_trial(berth, 0);
    } else if (replacement) {
        make_lasting(replacement);
        berth_leave(berth);
    }
}

bool place_relay_stops(struct berth *berth)
{
    struct cv_agent *agent = berth->agent;
    struct berth *replacement = find_replacement(berth);
    if (!berth->is_handed_over)
        cv_fleet_failed(&agent->fleet, berth->server, now_of(agent), 0);
    look_soon(agent);
    if (berth->role == BERTH_TRIAL) {
        berth_leave(berth);
        return false;
    }
    uncount(berth);
    if (replacement)
        make_lasting(replacement);
    return !replacement;
}

struct cv_status place_successor(struct berth *berth)
{
    struct berth *next, *replaces = berth->replaces;
    make_lasting(berth);
    CV_RETURN_IF_ERROR(
        add(berth->agent, replaces ? BERTH_SUBSTITUTE : BERTH_LASTING, replaces, &next));
    if (berth->is_handed_over)
        bind_to(next, berth->server);
    return cv_ok();
}

/* ---- life ---- */

struct cv_status place_open(struct cv_agent *agent)
{
    size_t count = agent->options.access_count;
    agent->fleet.servers = calloc(count, sizeof *agent->fleet.servers);
    if (!agent->fleet.servers)
        return cv_status(CV_NO_MEMORY);
    agent->fleet.count = count;
    for (size_t i = 0; i < count; i++)
        agent->fleet.servers[i] =
            (struct cv_fleet_server){.priority = agent->options.accesses[i].priority,
                                     .weight = agent->options.accesses[i].weight};
    agent->look_ms = LOOK_FIRST_MS;
    cv_timer_init(&agent->look, on_look, agent);
    return cv_ok();
}

void place_close(struct cv_agent *agent)
{
    cv_worker_timer_stop(agent->worker, &agent->look);
    free(agent->fleet.servers);
    agent->fleet = (struct cv_fleet){0};
}
