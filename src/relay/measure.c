/* SPDX-License-Identifier: MIT */
#include "relay/measure.h"

#include "config/relay_config.h"
#include "relay/consumer_private.h"
#include "relay/relay_metrics.h"
#include "relay/session_private.h"
#include "transport/link.h"

enum { SLOW_MS = 5000 };

_Static_assert((int)CV_MODEL_OPENAI == (int)CV_L_API_OPENAI &&
                   (int)CV_MODEL_OLLAMA == (int)CV_L_API_OLLAMA,
               "the label is the kind of stream");

static struct cv_metrics_block *block_of(const struct cv_consumer *c)
{
    return c->worker->metrics;
}

static uint64_t now_ns(const struct cv_consumer *c)
{
    return cv_worker_now_ns(c->worker->worker);
}

/* ---- requests ---- */

void measure_begin(struct cv_consumer *c)
{
    if (!block_of(c))
        return;
    c->x.measured.tier = (uint8_t)cv_relay_metrics_tier(c->worker->relay, c->x.identity);
    cv_metrics_add(block_of(c), CV_CELL(IN_FLIGHT, c->x.measured.tier, 0), 1);
}

void measure_opened(struct cv_consumer *c)
{
    /* Without an upstream it has failed already, and the exchange may be gone. */
    if (block_of(c) && c->x.upstream)
        CV_OBSERVE(block_of(c), OVERHEAD, 0, 0, now_ns(c) - c->x.started_ns);
}

void measure_sent(struct cv_consumer *c, size_t len)
{
    cv_metrics_add(block_of(c), CV_CELL(BYTES, CV_L_FLOW_TO_SERVICE, 0), len);
}

void measure_answer(struct cv_consumer *c, size_t len)
{
    cv_metrics_add(block_of(c), CV_CELL(BYTES, CV_L_FLOW_TO_CONSUMER, 0), len);
}

void measure_first_byte(struct cv_consumer *c)
{
    uint64_t waited_ns = c->x.first_byte_ns - c->x.started_ns;
    CV_OBSERVE(block_of(c), FIRST_BYTE, c->x.measured.tier, 0, waited_ns);
    if (waited_ns > SLOW_MS * CV_MS)
        cv_metrics_add(block_of(c), CV_CELL(SLOW_REQUESTS, 0, 0), 1);
}

void measure_answered(struct cv_consumer *c)
{
    if (block_of(c) && c->x.first_byte_ns)
        CV_OBSERVE(block_of(c), OVERHEAD, 0, 0, now_ns(c) - c->x.first_byte_ns);
}

void measure_head(struct cv_consumer *c)
{
    bool is_wanted = block_of(c) && c->worker->relay->config->metrics_models;
    cv_model_stream_init(&c->x.model, !is_wanted                 ? CV_MODEL_NO_STREAM
                                      : c->x.mark == MARK_SSE    ? CV_MODEL_SSE
                                      : c->x.mark == MARK_NDJSON ? CV_MODEL_NDJSON
                                                                 : CV_MODEL_NO_STREAM);
}

void measure_body(struct cv_consumer *c, struct cv_slice data)
{
    cv_model_stream_feed(&c->x.model, data, now_ns(c));
}

static void count_model(struct cv_consumer *c)
{
    struct cv_metrics_block *block = block_of(c);
    struct cv_model_numbers n = cv_model_stream_numbers(&c->x.model);
    if (c->x.model.framing == CV_MODEL_NO_STREAM || n.api == CV_MODEL_UNKNOWN)
        return;
    if (n.first_ns)
        CV_OBSERVE(block, MODEL_FIRST_TOKEN, n.api, 0, n.first_ns - c->x.started_ns);
    if (n.tokens_per_second > 0)
        CV_OBSERVE(block, MODEL_SPEED, n.api, 0, (uint64_t)(n.tokens_per_second + 0.5));
    if (n.has_prompt) {
        CV_OBSERVE(block, MODEL_PROMPT, n.api, 0, n.prompt_tokens);
        cv_metrics_add(block, CV_CELL(MODEL_TOKENS, n.api, CV_L_TOKENS_PROMPT), n.prompt_tokens);
    }
    if (n.has_completion) {
        CV_OBSERVE(block, MODEL_COMPLETION, n.api, 0, n.completion_tokens);
        cv_metrics_add(block, CV_CELL(MODEL_TOKENS, n.api, CV_L_TOKENS_COMPLETION),
                       n.completion_tokens);
    }
}

/* What the exchange was: CV_L_STATUS_… */
static unsigned outcome_of(const struct cv_consumer *c)
{
    const struct exchange *x = &c->x;
    if (x->is_response_whole || c->state.state == CONSUMER_TUNNEL)
        return CV_L_STATUS_SUCCESS;
    switch (x->measured.failure) {
    case CV_OK: /* the consumer has left */
    case CV_CANCELLED:
        return CV_L_STATUS_CANCELLED;
    case CV_TIMEOUT_FIRST_BYTE:
    case CV_TIMEOUT_IDLE:
    case CV_TIMEOUT_TOTAL:
    case CV_TIMEOUT_REQUEST:
    case CV_SERVICE_TIMEOUT:
        return CV_L_STATUS_TIMEOUT;
    case CV_RATE_LIMITED:
    case CV_QUEUE_FULL:
    case CV_CHANNEL_LIMIT:
    case CV_BODY_TOO_LARGE:
        return CV_L_STATUS_REJECTED;
    default:
        return CV_L_STATUS_ERROR;
    }
}

static void count_outcome(struct cv_consumer *c, unsigned outcome, unsigned tier)
{
    struct cv_metrics_block *block = block_of(c);
    uint64_t now_ms = consumer_now_ms(c);
    cv_metrics_add(block, CV_CELL(REQUESTS, outcome, tier), 1);
    if (outcome == CV_L_STATUS_CANCELLED) /* nobody's failure */
        return;
    cv_window_count(&block->window, now_ms, CV_WINDOW_REQUESTS);
    if (outcome == CV_L_STATUS_SUCCESS) {
        cv_window_count(&block->window, now_ms, CV_WINDOW_REQUESTS_OK);
        cv_metrics_add(block, CV_CELL(REQUESTS_SUCCESS, tier, 0), 1);
    } else {
        cv_metrics_add(block, CV_CELL(REQUESTS_FAILED, tier, 0), 1);
    }
}

static void keep_error(struct cv_consumer *c, enum cv_status_id id)
{
    struct cv_relay_worker *worker = c->worker;
    struct cv_relay_error *error = &worker->errors[worker->next_error];
    worker->next_error = (worker->next_error + 1) % CV_RELAY_ERRORS_KEPT;
    error->id = id;
    error->at_s = cv_worker_wall_seconds(worker->worker);
    (void)cv_slice_to_str(cv_slice_str(c->x.id), error->request, sizeof error->request);
}

void measure_error(struct cv_consumer *c, enum cv_status_id id)
{
    keep_error(c, id);
    struct exchange *x = &c->x;
    if (!block_of(c))
        return;
    cv_metrics_error(block_of(c), id);
    if (x->measured.failure == CV_OK)
        x->measured.failure = id;
    if (x->measured.is_link)
        measure_link(c->worker, id);
    else if (x->measured.is_tunnel && !x->is_counted)
        count_outcome(c, CV_L_STATUS_REJECTED,
                      cv_relay_metrics_tier(c->worker->relay, x->identity));
}

void measure_end(struct cv_consumer *c)
{
    struct cv_metrics_block *block = block_of(c);
    const struct exchange_measure *measured = &c->x.measured;
    if (!block)
        return;
    cv_metrics_sub(block, CV_CELL(IN_FLIGHT, measured->tier, 0), 1);
    count_outcome(c, outcome_of(c), measured->tier);
    count_model(c);
    if (c->state.state == CONSUMER_TUNNEL) /* a WebSocket's life is no duration of a request */
        return;
    uint64_t ns = now_ns(c) - c->x.started_ns;
    cv_metrics_observe_request(block, measured->tier, ns, tracing_kept(c),
                               1000 * cv_worker_wall_seconds(c->worker->worker));
    cv_window_latency(&block->window, consumer_now_ms(c), ns / 1000);
}

void measure_auth(struct cv_relay_worker *worker, struct cv_status status)
{
    cv_metrics_add(worker->metrics, CV_CELL(AUTH_ATTEMPTS, cv_relay_metrics_auth(status.id), 0), 1);
}

void measure_limit(const struct cv_consumer *c, const struct cv_quota *quota)
{
    unsigned scope = quota->scope == CV_LIMIT_USER      ? CV_L_SCOPE_USER
                     : quota->scope == CV_LIMIT_ADDRESS ? CV_L_SCOPE_IP
                                                        : CV_L_SCOPE_GLOBAL;
    cv_metrics_add(
        block_of(c),
        CV_CELL(RATE_LIMITED, scope, cv_relay_metrics_tier(c->worker->relay, c->x.identity)), 1);
}

void measure_turned_away(struct cv_relay_worker *worker)
{
    cv_metrics_add(worker->metrics, CV_CELL(RATE_LIMITED, CV_L_SCOPE_IP, CV_L_TIER_NONE), 1);
}

/* ---- links ---- */

void measure_link(struct cv_relay_worker *worker, enum cv_status_id id)
{
    struct cv_metrics_block *block = worker->metrics;
    uint64_t now_ms = cv_worker_now_ms(worker->worker);
    if (!block)
        return;
    cv_metrics_add(block, CV_CELL(CONNECTIONS, cv_metrics_result(id), 0), 1);
    cv_window_count(&block->window, now_ms, CV_WINDOW_CONNECTIONS);
    if (id == CV_OK)
        cv_window_count(&block->window, now_ms, CV_WINDOW_CONNECTIONS_OK);
}

void measure_up(struct cv_session *session)
{
    session->counted_streams = cv_link_max_streams(session->link);
    cv_metrics_add(session->worker->metrics, CV_CELL(POOL_CAPACITY, CV_L_POOL_STREAMS, 0),
                   session->counted_streams);
}

void measure_published(struct cv_session *session, bool is_return)
{
    struct cv_relay_worker *worker = session->worker;
    if (session->has_published)
        return;
    session->has_published = true;
    CV_OBSERVE(worker->metrics, SETUP_DURATION, 0, 0,
               (cv_worker_now_ms(worker->worker) - session->since_ms) * CV_MS);
    if (is_return)
        cv_metrics_add(worker->metrics, CV_CELL(RECONNECTIONS, CV_L_KIND_FRESH, 0), 1);
}

void measure_resumed(struct cv_session *session)
{
    measure_link(session->worker, CV_OK);
    cv_metrics_add(session->worker->metrics, CV_CELL(RECONNECTIONS, CV_L_KIND_RESUMED, 0), 1);
}

void measure_down(struct cv_session *session, enum cv_status_id why)
{
    struct cv_relay_worker *worker = session->worker;
    bool is_stopping = atomic_load_explicit(&worker->relay->is_draining, memory_order_relaxed);
    unsigned reason = cv_metrics_reason(why);
    if (reason == CV_L_REASON_CLOSED && is_stopping)
        reason = CV_L_REASON_SHUTDOWN;
    cv_metrics_add(worker->metrics, CV_CELL(DISCONNECTIONS, reason, 0), 1);
    cv_metrics_error(worker->metrics, why);
    CV_OBSERVE(worker->metrics, CONNECTION_DURATION, 0, 0,
               (cv_worker_now_ms(worker->worker) - session->since_ms) * CV_MS);
    cv_metrics_sub(worker->metrics, CV_CELL(POOL_CAPACITY, CV_L_POOL_STREAMS, 0),
                   session->counted_streams);
}

/* ---- streams ---- */

void measure_queued(struct cv_session *session, enum cv_priority priority)
{
    cv_metrics_add(session->worker->metrics, CV_CELL(QUEUED, priority, 0), 1);
}

void measure_queue_left(struct cv_session *session, enum cv_priority priority, uint64_t since_ms)
{
    struct cv_relay_worker *worker = session->worker;
    uint64_t waited_ms = cv_worker_now_ms(worker->worker) - since_ms;
    cv_metrics_sub(worker->metrics, CV_CELL(QUEUED, priority, 0), 1);
    CV_OBSERVE(worker->metrics, QUEUE_DURATION, priority, 0, waited_ms * CV_MS);
}

void measure_stream(struct cv_session *session, bool is_idle, int by)
{
    unsigned state = is_idle ? CV_L_POOL_STATE_IDLE : CV_L_POOL_STATE_ACTIVE;
    cv_metrics_add(session->worker->metrics, CV_CELL(POOL_CONNECTIONS, CV_L_POOL_STREAMS, state),
                   (uint64_t)by);
}
