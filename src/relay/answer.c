/* SPDX-License-Identifier: MIT
 *
 * The service's answer, parsed and written anew for the consumer: head, body in its own framing,
 * end.
 *
 * Happy path: answer_parse → take_head → put_body … → take_end → exchange_finish.
 * Ways it fails: the answer is not HTTP, breaks off, or cannot be forwarded (exchange_fail).
 */
#include "config/relay_config.h"
#include "proto/http/http_writer.h"
#include "relay/canary.h"
#include "relay/consumer_private.h"
#include "relay/measure.h"

static bool is_compressed(const struct cv_http_head *head)
{
    const struct cv_slice *coding = cv_http_find(head, "Content-Encoding");
    return coding && !cv_slice_is_nocase(*coding, "identity");
}

/* What a broken stream of this answer would be told with. */
static int mark_for(const struct cv_http_head *head)
{
    const struct cv_slice *type = cv_http_find(head, "Content-Type");
    if (!type || is_compressed(head))
        return MARK_NONE;
    struct cv_slice rest = *type, name = cv_slice_trim(cv_slice_split(&rest, ';'));
    if (cv_slice_is_nocase(name, "text/event-stream"))
        return MARK_SSE;
    if (cv_slice_is_nocase(name, "application/x-ndjson") ||
        cv_slice_is_nocase(name, "application/ndjson") ||
        cv_slice_is_nocase(name, "application/jsonl"))
        return MARK_NDJSON;
    return MARK_NONE;
}

static void take_interim(struct cv_consumer *c, const struct cv_http_head *head)
{
    /* 100 was ours to say; HTTP/1.0 knows no interim answers (RFC 9110 §15.2). */
    if (head->status == 100 || c->head.version_minor == 0)
        return;
    if (cv_is_ok(head_write_interim(head, cv_port_out(&c->port))))
        cv_port_flush(&c->port);
}

/* False: the exchange has ended. */
static bool take_head(struct cv_consumer *c, const struct cv_http_head *head)
{
    struct exchange *x = &c->x;
    if (head->status < 200 && head->status != 101) {
        take_interim(c, head);
        return true;
    }
    if (head->status == 101 && !head_protocol_was_offered(c, head)) {
        exchange_fail(c, CV_BAD_RESPONSE, CV_HOP_SERVICE,
                      "it chose a subprotocol that was not offered");
        return false;
    }
    x->status = head->status;
    x->is_service_reusable = head->keep_alive;
    x->mark = mark_for(head);
    measure_head(c);
    x->response_framing = head->framing;
    if (head->framing == CV_HTTP_UNTIL_CLOSE || head->framing == CV_HTTP_CHUNKED)
        x->response_framing = c->head.version_minor == 0 ? CV_HTTP_UNTIL_CLOSE : CV_HTTP_CHUNKED;
    /* Behind a request to upgrade the parser looks for no other one, whatever the answer. */
    if (x->response_framing == CV_HTTP_UNTIL_CLOSE || !c->head.keep_alive || !x->is_request_whole ||
        x->is_upgrade || atomic_load_explicit(&c->worker->relay->is_draining, memory_order_relaxed))
        c->is_last = true;
    if (head->status == 101)
        x->response_framing = CV_HTTP_NO_BODY;
    struct cv_status status = head_write_response(c, head, cv_port_out(&c->port));
    if (!cv_is_ok(status)) {
        bool is_ours = status.id == CV_NO_MEMORY || status.id == CV_NO_RESOURCES;
        exchange_fail(c, is_ours ? status.id : CV_BAD_RESPONSE,
                      is_ours ? CV_HOP_RELAY : CV_HOP_SERVICE, "its head cannot be forwarded");
        return false;
    }
    x->is_head_out = true;
    bool is_fault = head->status >= 502 && head->status <= 504 &&
                    c->worker->relay->config->breaker_counts_statuses;
    canary_saw_answer(c);
    guard_tell(c, is_fault ? CV_BREAKER_FAILURE : CV_BREAKER_SUCCESS);
    cv_port_flush(&c->port);
    measure_answered(c);
    if (head->status == 101) {
        cv_fsm_set(&c->state, CONSUMER_TUNNEL);
        c->client_due_ms = UINT64_MAX;
        tracing_end(c); /* not a span of hours */
        x->total_due_ms = UINT64_MAX;
    }
    exchange_set_service_timer(c);
    return true;
}

static bool put_body(struct cv_consumer *c, struct cv_slice data)
{
    struct exchange *x = &c->x;
    struct cv_buf *out = cv_port_out(&c->port);
    struct cv_status status = x->response_framing == CV_HTTP_CHUNKED
                                  ? cv_http_write_chunk(out, data)
                                  : cv_buf_append_slice(out, data);
    if (!cv_is_ok(status)) {
        exchange_fail(c, status.id, CV_HOP_RELAY, "the answer could not be buffered");
        return false;
    }
    x->is_line_open = data.data[data.len - 1] != '\n';
    if (x->model.is_on)
        measure_body(c, data);
    return true;
}

static void take_end(struct cv_consumer *c, const struct cv_http_event *trailers)
{
    struct exchange *x = &c->x;
    struct cv_status status = cv_ok();
    if (x->response_framing == CV_HTTP_CHUNKED)
        status = cv_http_write_last_chunk(cv_port_out(&c->port), trailers->trailers,
                                          trailers->trailer_count);
    if (!cv_is_ok(status)) {
        exchange_fail(c, status.id, CV_HOP_RELAY, "the answer could not be ended");
        return;
    }
    cv_port_flush(&c->port);
    x->is_response_whole = true;
    /* Bytes behind the answer would become the next one's. */
    if (cv_http_parser_rest(x->response).len)
        x->is_service_reusable = false;
    /* A service that answers well before it has the whole request may still be reading it; one that
     * refuses is not. Either way this was the connection's last (RFC 9112 §9.3). */
    bool is_reading = x->status < 300 && x->upstream && x->is_service_reusable;
    x->service_due_ms = x->total_due_ms = UINT64_MAX;
    if (!x->is_request_whole && is_reading)
        return;
    exchange_end(c);
}

void answer_parse(struct cv_consumer *c)
{
    struct exchange *x = &c->x;
    struct cv_http_event event, trailers = {0};
    while (x->response && !x->is_response_whole) {
        struct cv_status status = cv_http_parser_next(x->response, &event);
        if (status.id == CV_AGAIN)
            break;
        if (status.id == CV_EOF) /* behind a 101 */
            break;
        if (!cv_is_ok(status)) {
            exchange_fail(c, x->is_head_out ? CV_TRUNCATED : CV_BAD_RESPONSE, CV_HOP_SERVICE,
                          status.id == CV_TRUNCATED ? "the service closed in the middle"
                                                    : cv_http_parser_fault(x->response));
            return;
        }
        switch (event.type) {
        case CV_HTTP_HEAD:
            if (!take_head(c, event.head))
                return;
            break;
        case CV_HTTP_BODY:
            if (!put_body(c, event.body))
                return;
            cv_port_flush(&c->port);
            break;
        case CV_HTTP_TRAILERS:
            trailers = event;
            break;
        case CV_HTTP_END:
            if (c->state.state == CONSUMER_TUNNEL)
                break;
            take_end(c, &trailers);
            return;
        }
    }
}
