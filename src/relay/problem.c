/* SPDX-License-Identifier: MIT */
#include "base/digest.h"
#include "base/json.h"
#include "proto/http/http_writer.h"
#include "relay/consumer_private.h"
#include "relay/measure.h"
#include "telemetry/audit.h"
#include "telemetry/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TRY CV_RETURN_IF_ERROR

/* Where it waited, or would have had to. */
static bool add_place(const struct cv_consumer *c, json_t *object)
{
    return c->x.queue_position == 0 ||
           (json_object_set_new(object, "queue_position",
                                json_integer((json_int_t)c->x.queue_position)) == 0 &&
            json_object_set_new(object, "estimated_wait_ms",
                                json_integer((json_int_t)c->x.queue_wait_ms)) == 0);
}

/* Where somebody may look the trace up. */
static bool add_trace(const struct cv_consumer *c, json_t *object)
{
    char trace_id[2 * CV_TRACE_ID_LEN + 1], span_id[2 * CV_SPAN_ID_LEN + 1];
    if (!c->worker->relay->tracing)
        return true;
    cv_hex_encode(cv_slice(c->x.trace.trace_id, CV_TRACE_ID_LEN), trace_id);
    cv_hex_encode(cv_slice(c->x.trace.span_id, CV_SPAN_ID_LEN), span_id);
    return json_object_set_new(object, "trace_id", json_string(trace_id)) == 0 &&
           json_object_set_new(object, "span_id", json_string(span_id)) == 0;
}

/* {"type", "title", "status", "detail", "code", "category", "suggestion", "request_id", "hop"},
 * "queue_position", "estimated_wait_ms" where it waited, "trace_id", "span_id" where it is traced.
 * NULL without memory. */
static char *problem_json(const struct cv_consumer *c, enum cv_status_id id, enum cv_hop hop,
                          const char *detail)
{
    char type[96];
    (void)snprintf(type, sizeof type, "urn:culvert:error:%s", cv_status_code(id));
    json_t *object = json_pack(
        "{s:s, s:s, s:i, s:s, s:s, s:s, s:s, s:s, s:s}", "type", type, "title", cv_status_text(id),
        "status", cv_status_http(id), "detail", detail && detail[0] ? detail : cv_status_text(id),
        "code", cv_status_code(id), "category", cv_category_name(cv_status_category(id)),
        "suggestion", cv_status_suggestion(id), "request_id", c->x.id, "hop", cv_hop_name(hop));
    char *text =
        object && add_place(c, object) && add_trace(c, object) ? cv_json_text(object) : NULL;
    json_decref(object);
    return text;
}

/* An answer of the relay's own: `type`, `extra` (whole lines) and `body` may be NULL. */
struct own_answer {
    int status;
    const char *type, *extra, *body;
    bool is_problem;
    bool is_reusable;
};

/* What browsers are to keep to: the relay's own answers are what their type says, and where this
 * port speaks TLS, nobody who has been here should ask without it and show a token (RFC 6797 §7.1).
 * Answers of services are theirs. */
static struct cv_status write_browser_rules(const struct cv_consumer *c, struct cv_buf *out)
{
    TRY(cv_http_write_field_str(out, "X-Content-Type-Options", "nosniff"));
    if (!cv_port_is_tls(&c->port))
        return cv_ok();
    return cv_http_write_field_str(out, "Strict-Transport-Security", "max-age=31536000");
}

static struct cv_status write_own(struct cv_consumer *c, const struct own_answer *answer,
                                  struct cv_buf *out)
{
    char date[CV_HTTP_DATE_LEN + 1];
    size_t len = answer->body ? strlen(answer->body) : 0;
    TRY(cv_http_write_status_line(out, answer->status,
                                  cv_slice_str(cv_http_reason(answer->status))));
    if (answer->type)
        TRY(cv_http_write_field_str(out, "Content-Type", answer->type));
    if (answer->extra)
        TRY(cv_buf_append_str(out, answer->extra));
    /* Some of these statuses may be stored for as long as a cache likes (RFC 9110 §15.1), and what
     * is wrong for one user is right for the next. */
    if (answer->is_problem)
        TRY(cv_http_write_field_str(out, "Cache-Control", "no-store"));
    TRY(head_write_cors(c, out));
    TRY(write_browser_rules(c, out));
    if (cv_http_date(cv_worker_wall_seconds(c->worker->worker), date))
        TRY(cv_http_write_field_str(out, "Date", date));
    TRY(cv_quota_write(&c->x.quota, true, cv_worker_wall_seconds(c->worker->worker), out));
    TRY(head_write_pressure(c, out));
    if (c->x.id[0])
        TRY(cv_http_write_field_str(out, "X-Request-Id", c->x.id));
    TRY(tracing_write_answer(c, out));
    if (!answer->is_reusable)
        TRY(cv_http_write_field_str(out, "Connection", "close"));
    else if (c->head.version_minor == 0)
        TRY(cv_http_write_field_str(out, "Connection", "keep-alive"));
    if (answer->status != 204)
        TRY(cv_http_write_framing(out, CV_HTTP_LENGTH, len));
    TRY(cv_http_write_head_end(out));
    return c->head.is_head ? cv_ok() : cv_buf_append(out, answer->body, len);
}

/* The whole answer, or, without memory, none and the end of the connection. */
static void send_own(struct cv_consumer *c, const struct own_answer *answer)
{
    struct cv_buf *out = cv_port_out(&c->port);
    size_t before = cv_buf_len(out);
    c->x.status = answer->status;
    if (!cv_is_ok(write_own(c, answer, out))) {
        cv_buf_truncate(out, before);
        consumer_abort(c);
        return;
    }
    cv_port_flush(&c->port);
    consumer_request_done(c, answer->is_reusable);
}

static bool may_be_reused(const struct cv_consumer *c)
{
    return c->head.keep_alive && !c->is_last &&
           !atomic_load_explicit(&c->worker->relay->is_draining, memory_order_relaxed);
}

static const char *extra_for(const struct cv_consumer *c, enum cv_status_id id, char line[128])
{
    switch (cv_status_http(id)) {
    case 401:
        (void)snprintf(line, 128, "WWW-Authenticate: Bearer realm=\"culvert\"%s\r\n",
                       id == CV_AUTH_MISSING ? "" : ", error=\"invalid_token\"");
        return line;
    case 426:
        return "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
    case 429:
    case 503:
        (void)snprintf(line, 128, "Retry-After: %u\r\n",
                       c->x.retry_after_s ? c->x.retry_after_s : 1);
        return line;
    case 405:
        /* RFC 9110 §15.5.6. CONNECT and TRACE are refused everywhere, the rest on pages alone. */
        if (c->x.api) {
            api_allow(c, line, 128);
            return line;
        }
        return c->head.is_connect || cv_slice_is(c->head.method, "TRACE") ? PROBLEM_ALLOW
                                                                          : "Allow: GET, HEAD\r\n";
    default:
        return "";
    }
}

static void log_answer(const struct cv_consumer *c, enum cv_status_id id, enum cv_hop hop,
                       const char *detail)
{
    struct cv_log *log = c->worker->relay->log;
    if (cv_status_http(id) == 401)
        return; /* told as auth_failed, with the reason */
    enum cv_log_level level = cv_status_http(id) >= 500 ? CV_LOG_WARN : CV_LOG_INFO;
    char peer[CV_ADDR_TEXT_LEN];
    cv_log_limited(
        log, level, "http", "request_refused", cv_status_text(id),
        CV_F_STR("correlationId", c->x.id), CV_F_TRACE(&c->x.trace), CV_F_STATUS(cv_status(id)),
        CV_F_STR("hop", cv_hop_name(hop)), CV_F_STR("detail", detail),
        CV_F_STR("client", cv_addr_format_ip(&c->client, peer)), CV_F_STR("owner", visit_owner(c)),
        CV_F_STR("userId", c->x.identity ? c->x.identity->subject : NULL),
        CV_F_STR("tunnel", c->x.route.spec ? c->x.route.spec->name : NULL),
        CV_F_STR("method", c->x.method),
        CV_F_UINT("durationMs", c->x.started_ms ? consumer_now_ms(c) - c->x.started_ms : 0));
}

/* What has come of the request's body is judged before the request is answered without it: a
 * malformed one is 400 (RFC 9112 §7.1), whatever else there is to say. The parser then holds the
 * fault. The connection ends with such an answer, so nothing is lost by reading on here. */
static struct cv_status judge_body(struct cv_consumer *c)
{
    struct cv_http_event event;
    struct cv_status status = cv_ok();
    if (c->head.framing != CV_HTTP_CHUNKED || c->x.is_request_whole ||
        c->state.state == CONSUMER_MOVING)
        return status;
    do {
        status = cv_http_parser_next(c->parser, &event);
    } while (cv_is_ok(status) && event.type != CV_HTTP_END);
    bool is_fault = status.id != CV_AGAIN && status.id != CV_EOF && status.id != CV_TRUNCATED;
    return is_fault ? status : cv_ok();
}

/* What was forwarded is recorded with its end, who could not say who he is as auth_failed. */
static void audit_refused(const struct cv_consumer *c, enum cv_status_id id)
{
    char peer[CV_ADDR_TEXT_LEN];
    bool is_limit = id == CV_RATE_LIMITED || id == CV_QUEUE_FULL || id == CV_CHANNEL_LIMIT;
    const struct cv_log_field fields[] = {
        CV_F_STR("userId", c->x.identity ? c->x.identity->subject : NULL),
        CV_F_STR("owner", visit_owner(c)),
        CV_F_STR("client", cv_addr_format_ip(&c->client, peer)),
        CV_F_STR("requestId", c->x.id),
        CV_F_STR("reason", cv_status_name(id)),
        CV_F_INT("status", cv_status_http(id)),
        {.kind = CV_LOG_FIELD_END}};
    if (is_limit)
        cv_audit_put(c->worker->record, CV_AUDIT_LIMIT, fields);
    else if (c->x.identity && !c->x.is_counted)
        cv_audit_put(c->worker->record, CV_AUDIT_REFUSED, fields);
}

void problem_answer(struct cv_consumer *c, enum cv_status_id id, enum cv_hop hop,
                    const char *detail, bool is_reusable)
{
    char line[128];
    if (c->is_passed && !c->is_taken) { /* who passed it on knows what to answer */
        consumer_abort(c);
        return;
    }
    struct cv_status body_status = judge_body(c);
    if (!cv_is_ok(body_status)) {
        id = body_status.id;
        hop = CV_HOP_CONSUMER;
        detail = cv_http_parser_fault(c->parser);
        is_reusable = false;
    }
    c->x.error = id;
    log_answer(c, id, hop, detail);
    audit_refused(c, id);
    measure_error(c, id);
    char *body = problem_json(c, id, hop, detail);
    struct own_answer answer = {
        .status = cv_status_http(id),
        .type = "application/problem+json",
        .extra = extra_for(c, id, line),
        .body = body,
        .is_problem = true,
        .is_reusable = is_reusable && may_be_reused(c),
    };
    send_own(c, &answer);
    free(body);
}

void problem_simple(struct cv_consumer *c, int status, const char *type, const char *body,
                    const char *extra)
{
    struct cv_status body_status = judge_body(c);
    if (!cv_is_ok(body_status)) {
        problem_answer(c, body_status.id, CV_HOP_CONSUMER, NULL, false);
        return;
    }
    struct own_answer answer = {
        .status = status,
        .type = type,
        .extra = extra,
        .body = body,
        .is_reusable =
            (c->head.framing == CV_HTTP_NO_BODY || c->x.is_request_whole) && may_be_reused(c),
    };
    send_own(c, &answer);
}

void problem_mark(struct cv_consumer *c, enum cv_status_id id, enum cv_hop hop)
{
    char *json = c->x.mark == MARK_NONE ? NULL : problem_json(c, id, hop, NULL);
    if (!json)
        return;
    struct cv_buf text;
    cv_buf_init(&text, 8192);
    if (c->x.is_line_open)
        (void)cv_buf_append_str(&text, "\n");
    if (c->x.mark == MARK_SSE)
        (void)cv_buf_printf(&text, "\nevent: error\ndata: {\"error\":%s}\n\n", json);
    else
        (void)cv_buf_printf(&text, "{\"error\":%s}\n", json);
    struct cv_buf *out = cv_port_out(&c->port);
    if (c->x.response_framing == CV_HTTP_CHUNKED)
        (void)cv_http_write_chunk(out, cv_buf_slice(&text));
    else if (c->x.response_framing == CV_HTTP_UNTIL_CLOSE)
        (void)cv_buf_append_slice(out, cv_buf_slice(&text));
    cv_buf_done(&text);
    free(json);
}
