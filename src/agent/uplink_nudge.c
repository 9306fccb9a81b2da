/* SPDX-License-Identifier: MIT
 *
 * What moves an uplink from outside: the network changes, the clock jumps, a person wants it to
 * reconnect, its owner needs it no longer; and what a person gets to know of it.
 */
#include "agent/access.h"
#include "agent/uplink_private.h"
#include "config/agent_config.h"
#include "net/watch.h"
#include "telemetry/log.h"

enum {
    HURRY_AFTER_MS = 200, /* a try that is older does not survive a change of the network */
    HURRY_EVERY_MS = 1000,
    LOOK_BEAT_MS = 2000,     /* who looks gets signs of life that are not older, from the next on */
    REFUSED_REST_MS = 10000, /* an uplink that rests wakes no sooner where it was told to wait */
};

/* The address that the socket is bound to has gone: no answer will ever come. */
static bool has_lost_its_address(const struct cv_uplink *u)
{
    const struct cv_addr *local = cv_link_local_addr(u->link);
    return local && !cv_watch_has_address(local);
}

static bool is_try_stale(const struct cv_uplink *u)
{
    return cv_worker_now_ms(u->worker) - u->began_ms >= HURRY_AFTER_MS;
}

/* A new round of tries. */
static void wake(struct cv_uplink *u, uint64_t delay_ms)
{
    u->backoff.failures = 0;
    u->backoff.since_ms = cv_worker_now_ms(u->worker);
    uplink_try_soon(u, delay_ms);
}

static uint64_t rest_ms(const struct cv_uplink *u)
{
    if (!u->must_wait)
        return 1;
    return u->retry_after_ms > REFUSED_REST_MS ? u->retry_after_ms : REFUSED_REST_MS;
}

void cv_uplink_on_surroundings(struct cv_uplink *u, enum cv_watch_change change)
{
    uint64_t now_ms = cv_worker_now_ms(u->worker);
    if (is_state(u, UP)) {
        if (change == CV_WATCH_NETWORK && has_lost_its_address(u) && cv_link_detach(u->link)) {
            struct cv_error error = {0};
            struct cv_status why = cv_fail(&error, CV_NETWORK_UNREACHABLE,
                                           "this machine's address of the connection has gone");
            uplink_on_detached(u, why, &error);
        } else {
            cv_link_probe(u->link);
        }
        return;
    }
    if (is_state(u, RESTING)) {
        wake(u, rest_ms(u));
        return;
    }
    if (u->must_wait || now_ms - u->hurried_ms < HURRY_EVERY_MS)
        return;
    u->hurried_ms = now_ms;
    if (is_state(u, DETACHED) || is_state(u, WAITING) ||
        ((is_state(u, RESUMING) || is_state(u, DIALING)) && is_try_stale(u)))
        uplink_try_soon(u, 1);
}

/* Streams do not notice where the link can be taken up again. */
static void renew(struct cv_uplink *u)
{
    struct cv_error error = {0};
    struct cv_status why = cv_fail(&error, CV_CANCELLED, "a new connection was asked for");
    if (cv_link_detach(u->link))
        uplink_on_detached(u, why, &error);
    else
        cv_link_close(u->link, cv_status(CV_LINK_LOST), error.detail);
}

bool cv_uplink_reconnect(struct cv_uplink *u)
{
    if (u->is_winding_up || is_state(u, CLOSING) || is_state(u, ENDED))
        return false;
    cv_log(u->options.log, CV_LOG_INFO, "agent", "reconnect_asked",
           "somebody asks for a new connection", CV_F_STR("relay", u->options.access->relay),
           CV_F_STR("state", cv_fsm_name(&u->fsm)));
    if (is_state(u, UP))
        renew(u);
    else if (is_state(u, RESTING))
        wake(u, 1);
    else if (is_state(u, DETACHED) || is_state(u, WAITING) ||
             ((is_state(u, RESUMING) || is_state(u, DIALING)) && is_try_stale(u)))
        uplink_try_soon(u, 1);
    return true;
}

/* Before what was sent again is forgotten with the link, and whenever there is something to say. */
static void judge_bytes(struct cv_uplink *u)
{
    uint64_t out = cv_link_bytes_out(u->link), replayed = cv_link_replayed_bytes(u->link);
    bool is_same = out >= u->judged_out && replayed >= u->judged_replayed;
    cv_quality_resent(&u->quality, out - (is_same ? u->judged_out : 0),
                      replayed - (is_same ? u->judged_replayed : 0));
    u->judged_out = out;
    u->judged_replayed = replayed;
}

void uplink_on_pong(void *arg, uint32_t rtt_ms)
{
    struct cv_uplink *u = arg;
    if (u->link)
        judge_bytes(u);
    cv_quality_answered(&u->quality, cv_worker_now_ms(u->worker), rtt_ms);
    u->beat_ms = cv_worker_now_ms(u->worker);
}

void cv_uplink_on_settings(struct cv_uplink *u)
{
    const struct cv_agent_config *config = u->options.access->config;
    u->backoff.initial_ms = config->reconnect_initial_ms;
    u->backoff.max_ms = config->reconnect_max_ms;
}

void cv_uplink_look(struct cv_uplink *u)
{
    uint64_t now_ms = cv_worker_now_ms(u->worker);
    if (!u->link)
        return;
    cv_quality_moved(&u->quality, now_ms, cv_link_bytes_in(u->link), cv_link_bytes_out(u->link));
    if (is_state(u, UP) && now_ms - u->beat_ms >= LOOK_BEAT_MS)
        cv_link_probe(u->link);
}

void cv_uplink_describe(const struct cv_uplink *u, struct cv_uplink_facts *facts)
{
    uint64_t now_ms = cv_worker_now_ms(u->worker);
    bool is_away = is_state(u, DETACHED) || is_state(u, RESUMING);
    bool is_waiting = is_state(u, DETACHED) || is_state(u, WAITING) || is_state(u, IDLE);
    *facts = (struct cv_uplink_facts){
        .relay = u->options.access->relay,
        .state = cv_fsm_name(&u->fsm),
        .state_ms = now_ms - u->state_ms,
        .attempts = u->attempts,
        .failures = is_away ? u->resumption.failures : u->backoff.failures,
        .resumes = u->resumes,
        .replayed_bytes = u->replayed_bytes,
        .is_retiring = u->is_retiring,
        .quality = &u->quality,
        .loss = cv_quality_loss(&u->quality, now_ms),
        .trouble = u->trouble.id == CV_OK ? NULL : &u->trouble,
    };
    if (is_waiting && cv_timer_is_running(&u->timer)) {
        facts->has_next_try = true;
        facts->next_try_ms = u->timer.due_ms > now_ms ? u->timer.due_ms - now_ms : 0;
    }
    if (!u->link)
        return;
    facts->streams = cv_link_streams(u->link);
    facts->rtt_ms = cv_link_rtt_ms(u->link);
    facts->bytes_in = cv_link_bytes_in(u->link);
    facts->bytes_out = cv_link_bytes_out(u->link);
    facts->replayed_bytes += cv_link_replayed_bytes(u->link);
}

/* ---- its owner ---- */

void cv_uplink_retire(struct cv_uplink *u)
{
    u->is_retiring = true;
    if (!cv_uplink_link(u))
        cv_uplink_close(u, "this link is not needed any more");
}

void cv_uplink_wind_up(struct cv_uplink *u)
{
    u->is_winding_up = true;
    cv_uplink_retire(u);
    if (is_state(u, DETACHED))
        uplink_try_soon(u, 1);
}

const struct cv_access *cv_uplink_access(const struct cv_uplink *u)
{
    return u->options.access;
}

bool cv_uplink_is_connected(const struct cv_uplink *u)
{
    return is_state(u, UP);
}

struct cv_link *cv_uplink_link(const struct cv_uplink *u)
{
    return is_state(u, UP) || is_state(u, DETACHED) || is_state(u, RESUMING) ? u->link : NULL;
}
