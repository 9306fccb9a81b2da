/* SPDX-License-Identifier: MIT
 *
 * How long a request may take: to its first byte, between bytes, altogether; and whose turn it was
 * when that was too long. All of it stands still while the link has no socket.
 */
#include "config/relay_config.h"
#include "relay/consumer_private.h"
#include "relay/measure.h"
#include "relay/session.h"
#include "telemetry/log.h"

/* A person has given up by then; models that are loaded first take longer. */
enum { SLOW_MS = 5000 };

/* How soon a timer that rests is looked at again. */
enum { REST_MS = 250 };

void exchange_set_service_timer(struct cv_consumer *c)
{
    struct exchange *x = &c->x;
    const struct cv_tunnel_spec *spec = x->route.spec;
    const struct cv_relay_config *config = c->worker->relay->config;
    uint64_t ms;
    if (c->state.state == CONSUMER_TUNNEL)
        ms = 0;
    else if (!x->is_head_out)
        ms = x->asked_ms           ? x->asked_ms
             : spec->has_timers[0] ? spec->first_byte_ms
                                   : config->timers_first_byte_ms;
    else
        ms = spec->has_timers[1] ? spec->idle_ms : config->timers_idle_ms;
    x->service_due_ms = ms ? consumer_now_ms(c) + ms : UINT64_MAX;
    x->service_paused_ms = cv_session_paused_ms(x->route.session, consumer_now_ms(c));
}

void exchange_set_timers(struct cv_consumer *c)
{
    struct exchange *x = &c->x;
    uint64_t total_ms = x->asked_ms                    ? x->asked_ms
                        : x->route.spec->has_timers[2] ? x->route.spec->total_ms
                                                       : c->worker->relay->config->timers_total_ms;
    x->total_due_ms = total_ms ? consumer_now_ms(c) + total_ms : UINT64_MAX;
    x->total_paused_ms = cv_session_paused_ms(x->route.session, consumer_now_ms(c));
    exchange_set_service_timer(c);
}

void exchange_note_first_byte(struct cv_consumer *c)
{
    struct exchange *x = &c->x;
    uint64_t took_ms = consumer_now_ms(c) - x->started_ms;
    x->first_byte_ns = cv_worker_now_ns(c->worker->worker);
    measure_first_byte(c);
    tracing_first_byte(c);
    if (took_ms >= SLOW_MS)
        cv_log_limited(c->worker->relay->log, CV_LOG_WARN, "http", "slow_request",
                       "the service took long to begin its answer",
                       CV_F_UINT("firstByteMs", took_ms), CV_F_STR("correlationId", x->id),
                       CV_F_TRACE(&x->trace), CV_F_STR("userId", x->identity->subject),
                       CV_F_STR("tunnel", x->route.spec->name), CV_F_STR("method", x->method));
}

void exchange_leave_session(struct cv_consumer *c)
{
    struct exchange *x = &c->x;
    uint64_t paused_ms = cv_session_paused_ms(x->route.session, consumer_now_ms(c));
    if (x->total_due_ms != UINT64_MAX)
        x->total_due_ms += paused_ms - x->total_paused_ms;
    if (x->service_due_ms != UINT64_MAX)
        x->service_due_ms += paused_ms - x->service_paused_ms;
}

void exchange_enter_session(struct cv_consumer *c)
{
    struct exchange *x = &c->x;
    x->total_paused_ms = x->service_paused_ms =
        cv_session_paused_ms(x->route.session, consumer_now_ms(c));
}

/* For the answer: where it waits, or would have to, before it gives that up. */
void exchange_note_place(struct cv_consumer *c)
{
    struct exchange *x = &c->x;
    struct cv_session_queue queue = cv_session_queue(x->route.session);
    size_t position = x->upstream ? cv_upstream_position(x->upstream) : 0;
    x->queue_position = position ? position : (size_t)queue.waiting + 1;
    x->queue_wait_ms = queue.estimated_ms * x->queue_position / ((uint64_t)queue.waiting + 1);
    uint64_t retry_s = x->queue_wait_ms / 1000 + 1;
    x->retry_after_s = retry_s < 3600 ? (unsigned)retry_s : 3600;
}

/* Timers stand still while the link has no socket: moves `due_ms` by the time that it was so since
 * `seen_ms` of it. True: it is not due any more. */
static bool rest(struct cv_consumer *c, uint64_t now_ms, uint64_t *due_ms, uint64_t *seen_ms)
{
    const struct cv_session *session = c->x.route.session;
    uint64_t paused_ms = cv_session_paused_ms(session, now_ms);
    if (now_ms < *due_ms || *due_ms == UINT64_MAX)
        return false;
    *due_ms += paused_ms - *seen_ms;
    *seen_ms = paused_ms;
    if (*due_ms <= now_ms && !cv_session_is_reachable(session))
        *due_ms = now_ms + REST_MS;
    return *due_ms > now_ms;
}

/* A request that waits in the queue is not the link's yet: it waits no longer than it said. */
static bool is_queued(const struct exchange *x)
{
    return !x->upstream || cv_upstream_is_queued(x->upstream);
}

/* Whose turn it was when the time was up. */
static enum cv_hop hop_waited_for(struct cv_consumer *c)
{
    const struct exchange *x = &c->x;
    if (!x->is_request_whole && x->request_sent == cv_buf_len(&x->request))
        return CV_HOP_CONSUMER;
    if (is_queued(x))
        return CV_HOP_LINK; /* for a free stream of it */
    if (!cv_upstream_is_open(x->upstream))
        return CV_HOP_AGENT; /* it is connecting to the service */
    if (x->is_head_out && cv_port_is_congested(&c->port))
        return CV_HOP_CONSUMER;
    return CV_HOP_SERVICE;
}

void exchange_on_timer(struct cv_consumer *c, uint64_t now_ms)
{
    struct exchange *x = &c->x;
    if (x->upload_until_ms && now_ms >= x->upload_until_ms) {
        exchange_set_service_timer(c); /* it could not answer what it had not got */
        exchange_go_on_upload(c);
        if (!x->upstream)
            return; /* what came then has ended it */
    }
    if (x->throttled_until_ms) {
        /* It is not the service that is slow. */
        exchange_set_service_timer(c);
        if (now_ms >= x->throttled_until_ms) {
            x->throttled_until_ms = 0;
            exchange_give_back(c);
        }
    }
    if (!is_queued(x) && (rest(c, now_ms, &x->total_due_ms, &x->total_paused_ms) ||
                          rest(c, now_ms, &x->service_due_ms, &x->service_paused_ms)))
        return;
    if (now_ms >= x->total_due_ms) {
        exchange_fail(c, CV_TIMEOUT_TOTAL, hop_waited_for(c), NULL);
    } else if (now_ms >= x->service_due_ms) {
        if (!x->is_request_whole && x->request_sent == cv_buf_len(&x->request)) {
            exchange_set_service_timer(
                c); /* it is the consumer who is slow: it has a timer of its own */
        } else if (!x->is_head_out && x->upstream && cv_upstream_is_queued(x->upstream)) {
            bool is_away = !cv_session_is_reachable(x->route.session);
            exchange_note_place(c);
            exchange_fail(c, is_away ? CV_AGENT_OFFLINE : CV_CHANNEL_LIMIT, CV_HOP_LINK, NULL);
        } else if (x->is_head_out && cv_port_is_congested(&c->port)) {
            exchange_set_service_timer(
                c); /* the consumer does not read: client_due_ms sees to that */
        } else {
            exchange_fail(c, x->is_head_out ? CV_TIMEOUT_IDLE : CV_TIMEOUT_FIRST_BYTE,
                          hop_waited_for(c), NULL);
        }
    }
}
