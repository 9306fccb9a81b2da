/* SPDX-License-Identifier: MIT
 *
 * The circuit breaker of a tunnel: a service that fails request after request is left alone for a
 * while, and whoever asks is told so at once, without a byte sent. It hangs off the tunnel's name,
 * so it is one for all links, workers and consumers, and outlives an agent that comes back.
 *
 * What counts are faults of the service: it refuses, cannot be reached, closes or says nothing in
 * time; by choice also what it answers with 502, 503 and 504. A consumer's own mistakes, its
 * leaving, full queues and lost links never do.
 */
#include "config/relay_config.h"
#include "relay/canary.h"
#include "relay/consumer_private.h"
#include "telemetry/log.h"
#include "telemetry/metrics.h"

#include <string.h>

static struct cv_breaker_rules rules_of(const struct cv_consumer *c)
{
    const struct cv_relay_config *config = c->worker->relay->config;
    return (struct cv_breaker_rules){
        .failures = config->breaker_failures,
        .successes = config->breaker_successes,
        .open_ms = config->breaker_reset_ms,
    };
}

static void count_transition(const struct cv_consumer *c, enum cv_breaker_state to)
{
    cv_metrics_add(c->worker->metrics, CV_CELL(BREAKER_TRANSITIONS, CV_L_BREAKER_TUNNELS, to), 1);
}

bool guard_admit(struct cv_consumer *c)
{
    struct exchange *x = &c->x;
    struct cv_breaker_rules rules = rules_of(c);
    uint64_t wait_ms;
    if (cv_breaker_admit(&x->route.gate->breaker, &rules, consumer_now_ms(c), &x->ticket,
                         &wait_ms)) {
        /* The first probe is what makes it half open. */
        if (x->ticket.is_probe && cv_breaker_look(&x->route.gate->breaker).count == 0)
            count_transition(c, CV_BREAKER_HALF_OPEN);
        return true;
    }
    (void)atomic_fetch_add_explicit(&c->worker->relay->breaker_rejections, 1, memory_order_relaxed);
    cv_metrics_add(c->worker->metrics, CV_CELL(BREAKER_REJECTIONS, CV_L_BREAKER_TUNNELS, 0), 1);
    x->retry_after_s = (unsigned)((wait_ms + 999) / 1000);
    problem_answer(c, CV_BREAKER_IS_OPEN, CV_HOP_RELAY, NULL, c->head.framing == CV_HTTP_NO_BODY);
    return false;
}

static void log_change(const struct cv_consumer *c)
{
    const struct exchange *x = &c->x;
    enum cv_breaker_state state = cv_breaker_look(&x->route.gate->breaker).state;
    bool is_open = state == CV_BREAKER_OPEN;
    count_transition(c, state);
    if (is_open)
        (void)atomic_fetch_add_explicit(&c->worker->relay->breaker_openings, 1,
                                        memory_order_relaxed);
    cv_log_limited(
        c->worker->relay->log, is_open ? CV_LOG_WARN : CV_LOG_INFO, "breaker", "breaker_state",
        is_open ? "the service fails: requests rest for a while" : "the service answers again",
        CV_F_STR("state", cv_breaker_state_name(state)), CV_F_STR("tunnel", x->route.spec->name),
        CV_F_STR("owner", visit_owner(c)), CV_F_STR("userId", x->identity->subject),
        CV_F_STR("correlationId", x->id));
}

void guard_tell(struct cv_consumer *c, enum cv_breaker_outcome outcome)
{
    struct exchange *x = &c->x;
    struct cv_breaker_rules rules = rules_of(c);
    if (x->ticket.is_held &&
        cv_breaker_tell(&x->route.gate->breaker, &rules, &x->ticket, outcome, consumer_now_ms(c)))
        log_change(c);
}

/* A model that is being loaded says nothing for minutes, and nothing is wrong with it. */
static bool is_slow_by_nature(const struct exchange *x)
{
    return strcmp(x->route.spec->preset, "none") != 0;
}

void guard_tell_failure(struct cv_consumer *c, enum cv_status_id id)
{
    bool is_fault = false;
    canary_saw_failure(c, id);
    switch (id) {
    case CV_SERVICE_REFUSED:
    case CV_SERVICE_TIMEOUT:
    case CV_SERVICE_UNREACHABLE:
    case CV_BAD_RESPONSE:
        is_fault = true;
        break;
    case CV_TIMEOUT_FIRST_BYTE:
        /* A limit of the request's own may be as short as it likes. */
        is_fault = c->x.asked_ms == 0 && !is_slow_by_nature(&c->x);
        break;
    default:
        break;
    }
    guard_tell(c, is_fault ? CV_BREAKER_FAILURE : CV_BREAKER_NO_WORD);
}
