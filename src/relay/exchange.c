/* SPDX-License-Identifier: MIT
 *
 * One request and its answer, through an upstream.
 *
 * Happy path: exchange_begin writes the canonical head into x.request and opens an upstream →
 * on_up_open sends → exchange_body adds → on_up_data hands the answer to answer.c →
 * exchange_finish: the stream goes back to the pool, the connection to its next request. Ways it
 * fails: no stream (on_up_failed); the stream ends before a byte of the answer (retry, or 502); the
 * answer is not HTTP, or breaks off (exchange_fail); timers; the consumer goes away
 * (exchange_cancel); the request's body is malformed (consumer.c calls exchange_fail).
 */
#include "config/relay_config.h"
#include "proto/http/http_writer.h"
#include "relay/consumer_private.h"
#include "relay/measure.h"
#include "relay/session.h"
#include "relay/tally.h"
#include "telemetry/audit.h"
#include "telemetry/log.h"

#include <string.h>

enum { REQUEST_ADDED = 384 }; /* what the relay adds to most heads, and more */

static const struct cv_upstream_ops up_ops;
static void on_up_closed(void *arg, struct cv_status why);

/* ---- ends ---- */

static void audit_forward(const struct cv_consumer *c)
{
    const struct exchange *x = &c->x;
    struct cv_audit_queue *record = c->worker->record;
    char peer[CV_ADDR_TEXT_LEN];
    if (!cv_audit_is_on(record, CV_AUDIT_FORWARD))
        return;
    const struct cv_log_field fields[] = {
        CV_F_STR("userId", x->identity->subject),
        CV_F_STR("client", cv_addr_format_ip(&c->client, peer)),
        CV_F_STR("requestId", x->id),
        CV_F_STR("owner", visit_owner(c)),
        CV_F_STR("tunnel", x->route.spec->name),
        CV_F_STR("method", x->method),
        CV_F_INT("status", x->status),
        CV_F_BOOL("whole", x->is_response_whole || c->state.state == CONSUMER_TUNNEL),
        CV_F_UINT("bytesIn", x->body_received),
        CV_F_UINT("bytesOut", x->answered),
        CV_F_UINT("durationMs", consumer_now_ms(c) - x->started_ms),
        {.kind = CV_LOG_FIELD_END}};
    cv_audit_put(record, CV_AUDIT_FORWARD, fields);
}

static void release(struct cv_consumer *c, bool is_reusable)
{
    struct exchange *x = &c->x;
    tracing_end(c);
    if (x->route.spec) {
        guard_tell(c, CV_BREAKER_NO_WORD); /* unless that was known before */
        tally_note(c);
    }
    if (x->upstream) {
        struct cv_upstream *upstream = x->upstream;
        x->upstream = NULL;
        /* A stream that is used again needs its whole window. */
        if (is_reusable)
            cv_upstream_consumed(upstream, x->unconsumed);
        cv_upstream_close(upstream, is_reusable);
    }
    if (x->is_counted) {
        (void)atomic_fetch_sub_explicit(&c->worker->busy, 1, memory_order_relaxed);
        audit_forward(c);
        measure_end(c);
    }
    x->is_counted = false;
    api_forget(c);
    cv_http_parser_free(&x->response);
    cv_buf_done(&x->request);
    cv_route_done(&x->route);
    cv_identity_unref(&x->identity);
}

void exchange_cancel(struct cv_consumer *c)
{
    release(c, false);
}

void exchange_fail(struct cv_consumer *c, enum cv_status_id id, enum cv_hop hop, const char *detail)
{
    struct exchange *x = &c->x;
    if (x->is_response_whole) {
        consumer_request_done(c, false); /* the consumer has its answer: only the body was left */
        return;
    }
    if (!x->is_head_out) {
        guard_tell_failure(c, id);
        bool is_whole =
            x->is_request_whole || (c->head.framing == CV_HTTP_NO_BODY && !c->head.is_upgrade);
        if (x->upstream) {
            cv_upstream_close(x->upstream, false);
            x->upstream = NULL;
        }
        problem_answer(c, id, hop, detail, is_whole);
        return;
    }
    measure_error(c, id);
    x->error = id;
    cv_log_limited(c->worker->relay->log, CV_LOG_WARN, "http", "answer_cut", cv_status_text(id),
                   CV_F_STR("correlationId", x->id), CV_F_TRACE(&x->trace),
                   CV_F_STR("userId", x->identity->subject), CV_F_STATUS(cv_status(id)),
                   CV_F_STR("tunnel", x->route.spec ? x->route.spec->name : NULL),
                   CV_F_STR("hop", cv_hop_name(hop)), CV_F_STR("detail", detail));
    /* An answer that is not whole must not look so: no last chunk, and where nothing but the end of
     * the connection would tell, a reset. */
    problem_mark(c, id, hop);
    x->is_cut = true;
    bool is_end_visible = x->response_framing != CV_HTTP_UNTIL_CLOSE;
    cv_port_flush(&c->port);
    if (is_end_visible || c->state.state == CONSUMER_TUNNEL)
        consumer_request_done(c, false);
    else
        consumer_abort(c);
}

/* A stream holds at most its window for a consumer who does not read: it is not given to the next
 * request before that has left, or one user's unread answers had no bound. */
void exchange_end(struct cv_consumer *c)
{
    c->x.is_end_due = cv_port_is_congested(&c->port);
    if (!c->x.is_end_due)
        exchange_finish(c);
}

void exchange_finish(struct cv_consumer *c)
{
    struct exchange *x = &c->x;
    bool is_clean = x->is_request_whole && x->request_sent == cv_buf_len(&x->request);
    cv_log(c->worker->relay->log, CV_LOG_DEBUG, "http", "request", "request served",
           CV_F_STR("correlationId", x->id), CV_F_TRACE(&x->trace), CV_F_INT("status", x->status),
           CV_F_STR("tunnel", x->route.spec->name), CV_F_STR("owner", visit_owner(c)),
           CV_F_STR("userId", x->identity->subject),
           CV_F_UINT("durationMs", consumer_now_ms(c) - x->started_ms));
    release(c, is_clean && x->is_service_reusable);
    consumer_request_done(c, x->is_request_whole);
}

/* ---- towards the service ---- */

static void send_request(struct cv_consumer *c)
{
    struct exchange *x = &c->x;
    struct cv_slice all = cv_buf_slice(&x->request);
    /* What came in one piece goes out in one piece, once all of it is judged: of a request that is
     * malformed further on not a byte reaches the service. exchange_flush comes behind it. */
    if (c->is_processing && all.len - x->request_sent < CONSUMER_BODY_MAX / 2)
        return;
    bool is_open = x->upstream && cv_upstream_is_open(x->upstream);
    size_t sent = 0;
    if (is_open && all.len > x->request_sent)
        sent = cv_upstream_write(x->upstream,
                                 cv_slice(all.data + x->request_sent, all.len - x->request_sent));
    x->request_sent += sent;
    measure_sent(c, sent);
    /* The service owes an answer for what it has: a long request on a slow path is no silence. */
    if (sent && !x->is_head_out)
        exchange_set_service_timer(c);
    if (!x->is_replayable) {
        cv_buf_consume(&x->request, x->request_sent);
        x->request_sent = 0;
    }
    bool is_full = cv_buf_len(&x->request) - x->request_sent >= CONSUMER_BODY_MAX / 2 ||
                   consumer_now_ms(c) < x->upload_until_ms;
    if (c->is_blocked && !is_full) {
        c->is_blocked = false;
        consumer_process(c);
    } else {
        c->is_blocked = is_full;
    }
}

void exchange_go_on_upload(struct cv_consumer *c)
{
    c->x.upload_until_ms = 0;
    send_request(c);
}

/* Past CONSUMER_REPLAY_MAX a request cannot be repeated any more. */
static void check_replay(struct exchange *x)
{
    if (x->is_replayable && cv_buf_len(&x->request) > CONSUMER_REPLAY_MAX) {
        x->is_replayable = false;
        cv_buf_consume(&x->request, x->request_sent);
        x->request_sent = 0;
    }
}

void exchange_body(struct cv_consumer *c, struct cv_slice data)
{
    struct exchange *x = &c->x;
    if (x->is_api) {
        api_body(c, data);
        return;
    }
    uint64_t max = c->worker->relay->config->limits_body_bytes;
    x->body_received += data.len;
    exchange_charge_upload(c, data.len);
    if (max && x->body_received > max) {
        exchange_fail(c, CV_BODY_TOO_LARGE, CV_HOP_CONSUMER, NULL);
        return;
    }
    struct cv_status status = x->request_framing == CV_HTTP_CHUNKED
                                  ? cv_http_write_chunk(&x->request, data)
                                  : cv_buf_append_slice(&x->request, data);
    if (!cv_is_ok(status)) {
        exchange_fail(c, status.id, CV_HOP_RELAY, "the request could not be buffered");
        return;
    }
    check_replay(x);
    send_request(c);
}

void exchange_request_end(struct cv_consumer *c, const struct cv_http_field *trailers, size_t count)
{
    struct exchange *x = &c->x;
    if (x->is_api) {
        api_end(c);
        return;
    }
    x->is_request_whole = true;
    if (x->request_framing == CV_HTTP_CHUNKED &&
        !cv_is_ok(cv_http_write_last_chunk(&x->request, trailers, count))) {
        exchange_fail(c, CV_NO_MEMORY, CV_HOP_RELAY, NULL);
        return;
    }
    exchange_flush(c);
}

void exchange_flush(struct cv_consumer *c)
{
    struct exchange *x = &c->x;
    if (x->is_api)
        return;
    send_request(c);
    if (x->is_request_whole && x->is_response_whole && cv_buf_len(&x->request) == x->request_sent)
        exchange_end(c);
}

/* ---- from the service ---- */

void exchange_on_writable(struct cv_consumer *c)
{
    c->client_due_ms =
        c->state.state == CONSUMER_TUNNEL
            ? UINT64_MAX
            : consumer_now_ms(c) + c->worker->relay->config->limits_body_idle_timeout_ms;
    exchange_give_back(c);
    if (c->x.is_end_due && !cv_port_is_congested(&c->port))
        exchange_finish(c);
}

static void tunnel_out(struct cv_consumer *c, struct cv_slice data)
{
    if (!data.len)
        return;
    if (!cv_is_ok(cv_buf_append_slice(cv_port_out(&c->port), data)))
        exchange_fail(c, CV_NO_RESOURCES, CV_HOP_RELAY, NULL);
    else
        cv_port_flush(&c->port);
}

static void on_up_data(void *arg, struct cv_slice data)
{
    struct cv_consumer *c = arg;
    struct exchange *x = &c->x;
    measure_answer(c, data.len);
    x->unconsumed += data.len; /* before the bytes may end the exchange */
    x->answered += data.len;
    if (c->state.state == CONSUMER_TUNNEL) {
        tunnel_out(c, data);
        exchange_give_back(c);
        return;
    }
    if (x->is_response_whole) {
        exchange_fail(c, CV_BAD_RESPONSE, CV_HOP_SERVICE, NULL);
        return;
    }
    if (!x->is_response_begun)
        exchange_note_first_byte(c);
    x->is_response_begun = true;
    if (x->is_replayable) {
        x->is_replayable = false;
        cv_buf_consume(&x->request, x->request_sent);
        x->request_sent = 0;
    }
    exchange_set_service_timer(c);
    if (!x->response || !cv_is_ok(cv_http_parser_feed(x->response, data.data, data.len))) {
        exchange_fail(c, CV_BAD_RESPONSE, CV_HOP_SERVICE, "bytes behind the answer");
        return;
    }
    answer_parse(c);
    if (c->state.state == CONSUMER_TUNNEL && x->response) {
        tunnel_out(c, cv_http_parser_take_rest(x->response));
        cv_http_parser_free(&x->response);
        consumer_process(c);
    }
    exchange_give_back(c);
    consumer_arm(c);
}

static void on_up_eof(void *arg)
{
    struct cv_consumer *c = arg;
    if (c->state.state == CONSUMER_TUNNEL) {
        release(c, false);
        consumer_request_done(c, false);
        return;
    }
    c->x.is_service_reusable = false;
    if (!c->x.is_response_begun) {
        /* It will not answer any more. Foreign agents do not close until we do. */
        cv_upstream_close(c->x.upstream, false);
        on_up_closed(c, cv_status(CV_EOF));
        return;
    }
    cv_http_parser_eof(c->x.response);
    answer_parse(c);
}

static void on_up_writable(void *arg)
{
    struct cv_consumer *c = arg;
    struct exchange *x = &c->x;
    send_request(c);
    if (cv_buf_len(&x->request) > x->request_sent || !x->is_request_whole)
        return;
    if (c->state.state == CONSUMER_TUNNEL && c->is_eof)
        exchange_tunnel_eof(c);
    else if (x->is_response_whole)
        exchange_end(c);
}

/* ---- opening ---- */

static struct cv_status new_response(struct exchange *x)
{
    cv_http_parser_free(&x->response);
    x->response = cv_http_parser_new(CV_HTTP_RESPONSES, &cv_http_response_limits);
    if (!x->response)
        return cv_status(CV_NO_MEMORY);
    return cv_http_parser_expect(x->response, x->is_head_request ? CV_HTTP_EXPECT_HEAD
                                              : x->is_upgrade    ? CV_HTTP_EXPECT_UPGRADE
                                                                 : CV_HTTP_EXPECT_PLAIN);
}

static enum cv_hop hop_of(enum cv_status_id id)
{
    switch (id) {
    case CV_SERVICE_REFUSED:
    case CV_SERVICE_TIMEOUT:
    case CV_SERVICE_UNREACHABLE:
    case CV_BAD_RESPONSE:
    case CV_TRUNCATED:
        return CV_HOP_SERVICE;
    case CV_CHANNEL_LIMIT:
    case CV_LINK_LOST:
        return CV_HOP_LINK;
    default:
        return CV_HOP_RELAY;
    }
}

static void open_upstream(struct cv_consumer *c)
{
    struct exchange *x = &c->x;
    /* The first try may take any idle stream if the request can be repeated. */
    uint32_t max_idle_ms =
        x->tries == 0 ? (x->is_idempotent ? UINT32_MAX : CONSUMER_RETRY_IDLE_MS) : 0;
    if (x->is_upgrade)
        max_idle_ms = 0;
    x->request_sent = 0;
    struct cv_upstream_wish wish = {.max_idle_ms = max_idle_ms,
                                    .correlation = x->id,
                                    .priority = x->priority,
                                    .is_movable = true};
    memcpy(&wish.consumer, x->identity->user_key, sizeof wish.consumer);
    struct cv_status status =
        cv_upstream_open(c->worker, &x->route, &wish, &up_ops, c, &x->upstream);
    if (!cv_is_ok(status)) {
        if (status.id == CV_QUEUE_FULL)
            exchange_note_place(c);
        exchange_fail(c, status.id == CV_LINK_LOST ? CV_AGENT_OFFLINE : status.id,
                      hop_of(status.id), NULL);
        return;
    }
    if (cv_upstream_is_open(x->upstream))
        up_ops.on_open(c, cv_upstream_is_reused(x->upstream));
}

static void on_up_open(void *arg, bool is_reused)
{
    struct cv_consumer *c = arg;
    c->x.opened_ns = cv_worker_now_ns(c->worker->worker);
    tracing_opened(c, is_reused);
    /* Who has begun to send content does not wait (RFC 9110 §10.1.1). */
    bool is_coming = c->x.body_received || cv_buf_len(&c->in) || cv_http_parser_rest(c->parser).len;
    if (c->x.is_continue_due && !is_coming) {
        /* Nobody has to wait for it: all of it, or nothing. */
        (void)cv_buf_append_str(cv_port_out(&c->port), "HTTP/1.1 100 Continue\r\n\r\n");
        cv_port_flush(&c->port);
    }
    c->x.is_continue_due = false;
    send_request(c);
}

/* The tunnel may be reachable over another link by now; as long as it is still the one that the
 * request was checked against and written for. */
static bool reroute(struct cv_consumer *c)
{
    struct exchange *x = &c->x;
    struct cv_route route;
    struct cv_status status = visit_find_again(c, &route);
    if (!cv_is_ok(status))
        return false;
    if (!cv_tunnel_spec_is_same(route.spec, x->route.spec)) {
        cv_route_done(&route);
        return false;
    }
    cv_route_done(&x->route);
    x->route = route;
    exchange_enter_session(c);
    return true;
}

/* A request of which not a byte of the answer has come is tried once more, when repeating it does
 * no harm and it is still held whole. */
static bool try_again(struct cv_consumer *c, bool is_harmless)
{
    struct exchange *x = &c->x;
    if (x->tries > 0 || !is_harmless || x->is_response_begun || !x->is_replayable)
        return false;
    exchange_leave_session(c);
    if (!reroute(c))
        return false;
    x->tries++;
    if (!cv_is_ok(new_response(x)))
        return false;
    open_upstream(c);
    return true;
}

static void on_up_failed(void *arg, struct cv_status why)
{
    struct cv_consumer *c = arg;
    c->x.upstream = NULL;
    if (why.id == CV_QUEUE_FULL) /* on another worker */
        exchange_note_place(c);
    /* It has waited, and not where there is room now. */
    if (why.id == CV_AGAIN && reroute(c)) {
        open_upstream(c);
        return;
    }
    if (why.id == CV_AGAIN)
        why = cv_status(CV_AGENT_OFFLINE);
    /* Nothing of it was sent: it goes to whoever has the tunnel by now. */
    bool has_moved = why.id == CV_LINK_LOST || why.id == CV_AGENT_OFFLINE || why.id == CV_REPLACED;
    if (has_moved && try_again(c, true))
        return;
    exchange_fail(c, why.id == CV_LINK_LOST ? CV_AGENT_OFFLINE : why.id, hop_of(why.id), NULL);
}

static void on_up_closed(void *arg, struct cv_status why)
{
    struct cv_consumer *c = arg;
    struct exchange *x = &c->x;
    x->upstream = NULL;
    if (c->state.state == CONSUMER_TUNNEL) {
        release(c, false);
        consumer_request_done(c, false);
        return;
    }
    if (x->is_response_whole) {
        exchange_finish(c); /* it has heard enough of the request */
        return;
    }
    if (x->is_response_begun && why.id == CV_EOF) {
        /* An orderly end says EOF first (on_up_eof): this answer was cut, whatever its framing. */
        exchange_fail(c, x->is_head_out ? CV_TRUNCATED : CV_BAD_RESPONSE, CV_HOP_SERVICE,
                      "the service closed in the middle");
        return;
    }
    if (try_again(c, x->is_idempotent))
        return;
    if (x->is_head_out)
        exchange_fail(c, why.id == CV_EOF ? CV_TRUNCATED : why.id,
                      why.id == CV_EOF ? CV_HOP_SERVICE : hop_of(why.id), NULL);
    else if (why.id == CV_EOF)
        exchange_fail(c, CV_BAD_RESPONSE, CV_HOP_SERVICE, "the service closed without an answer");
    else
        exchange_fail(c, why.id, hop_of(why.id), NULL);
}

static const struct cv_upstream_ops up_ops = {
    .on_open = on_up_open,
    .on_failed = on_up_failed,
    .on_data = on_up_data,
    .on_eof = on_up_eof,
    .on_writable = on_up_writable,
    .on_closed = on_up_closed,
};

/* The head is gone when the exchange ends, and what a consumer makes up is not worth keeping. */
const char *exchange_method_name(struct cv_slice method)
{
    static const char *const known[] = {"GET", "POST", "PUT", "HEAD", "DELETE", "OPTIONS", "PATCH"};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (cv_slice_is(method, known[i]))
            return known[i];
    return "other";
}

void exchange_begin(struct cv_consumer *c)
{
    struct exchange *x = &c->x;
    if (!guard_admit(c))
        return;
    cv_fsm_set(&c->state, CONSUMER_EXCHANGE);
    x->is_counted = true;
    tracing_forward(c);
    (void)atomic_fetch_add_explicit(&c->worker->busy, 1, memory_order_relaxed);
    measure_begin(c);
    x->request_framing = c->head.framing;
    x->is_head_request = c->head.is_head;
    x->method = exchange_method_name(c->head.method);
    x->is_upgrade = c->head.is_upgrade;
    x->is_replayable = true;
    x->is_idempotent =
        cv_http_is_idempotent(c->head.method) || cv_http_find(&c->head, "Idempotency-Key");
    x->is_continue_due = c->head.expects_continue && c->head.version_minor == 1;
    cv_buf_init(&x->request, CONSUMER_BODY_MAX + CONSUMER_REPLAY_MAX + c->in.cap);
    /* Once for all of the head; the buffer grows as always when that was not enough. */
    (void)cv_buf_reserve(&x->request, cv_http_parser_head_bytes(c->parser).len + REQUEST_ADDED);
    struct cv_status status = new_response(x);
    if (cv_is_ok(status))
        status = head_write_request(c, &x->request);
    if (!cv_is_ok(status)) {
        exchange_fail(c, status.id == CV_INVALID ? CV_BAD_REQUEST : status.id, CV_HOP_RELAY,
                      "the head cannot be forwarded");
        return;
    }
    x->has_bandwidth =
        cv_limits_tier(c->worker->relay->limits, x->identity)->bandwidth.per_minute > 0;
    exchange_set_timers(c);
    open_upstream(c);
    consumer_arm(c);
    measure_opened(c);
}

void exchange_tunnel_data(struct cv_consumer *c, struct cv_slice data)
{
    struct exchange *x = &c->x;
    exchange_charge_upload(c, data.len);
    if (!cv_is_ok(cv_buf_append_slice(&x->request, data)))
        exchange_fail(c, CV_NO_MEMORY, CV_HOP_RELAY, NULL);
    else
        send_request(c);
}

void exchange_tunnel_eof(struct cv_consumer *c)
{
    struct exchange *x = &c->x;
    if (x->upstream && cv_buf_len(&x->request) > x->request_sent) {
        x->is_request_whole = true; /* what it said last still goes out; on_up_writable ends it */
        return;
    }
    release(c, false);
    consumer_request_done(c, false);
}
