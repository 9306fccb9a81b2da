/* SPDX-License-Identifier: MIT */
#include "proto/http/http_writer.h"
#include "relay/consumer_private.h"
#include "telemetry/log.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* {"type", "title", "status", "detail", "code", "category", "suggestion", "request_id", "hop"}.
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
    char *text = object ? json_dumps(object, JSON_COMPACT | JSON_PRESERVE_ORDER) : NULL;
    json_decref(object);
    return text;
}

static void write_common(struct cv_consumer *c, struct cv_buf *out, bool is_reusable)
{
    char date[CV_HTTP_DATE_LEN + 1];
    if (cv_http_date(cv_worker_wall_seconds(c->worker->worker), date))
        (void)cv_http_write_field_str(out, "Date", date);
    if (c->x.id[0])
        (void)cv_http_write_field_str(out, "X-Request-Id", c->x.id);
    if (!is_reusable)
        (void)cv_http_write_field_str(out, "Connection", "close");
    else if (c->head.version_minor == 0)
        (void)cv_http_write_field_str(out, "Connection", "keep-alive");
}

static const char *extra_for(enum cv_status_id id, char line[128])
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
        return "Retry-After: 1\r\n";
    case 405:
        return "Allow: GET, HEAD, OPTIONS\r\n";
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
    cv_log_limited(log, level, "http", "request_refused", cv_status_text(id),
                   CV_F_STR("correlationId", c->x.id), CV_F_STATUS(cv_status(id)),
                   CV_F_STR("hop", cv_hop_name(hop)), CV_F_STR("detail", detail),
                   CV_F_STR("client", cv_addr_format_ip(&c->peer, peer)),
                   CV_F_STR("userId", c->x.identity ? c->x.identity->subject : NULL));
}

void problem_answer(struct cv_consumer *c, enum cv_status_id id, enum cv_hop hop,
                    const char *detail, bool is_reusable)
{
    struct cv_buf *out = cv_port_out(&c->port);
    char line[128];
    int status = cv_status_http(id);
    log_answer(c, id, hop, detail);
    c->x.status = status;
    is_reusable = is_reusable && c->head.keep_alive && !c->is_last &&
                  !atomic_load_explicit(&c->worker->relay->is_draining, memory_order_relaxed);
    char *body = problem_json(c, id, hop, detail);
    size_t len = body ? strlen(body) : 0;
    (void)cv_http_write_status_line(out, status, cv_slice_str(cv_http_reason(status)));
    (void)cv_http_write_field_str(out, "Content-Type", "application/problem+json");
    (void)cv_buf_append_str(out, extra_for(id, line));
    head_write_cors(c, out);
    write_common(c, out, is_reusable);
    (void)cv_http_write_framing(out, CV_HTTP_LENGTH, len);
    (void)cv_http_write_head_end(out);
    if (len && !c->head.is_head)
        (void)cv_buf_append(out, body, len);
    free(body);
    cv_port_flush(&c->port);
    consumer_request_done(c, is_reusable);
}

void problem_simple(struct cv_consumer *c, int status, const char *type, const char *body,
                    const char *extra)
{
    struct cv_buf *out = cv_port_out(&c->port);
    bool is_reusable = c->head.keep_alive && !c->is_last && c->head.framing == CV_HTTP_NO_BODY &&
                       !atomic_load_explicit(&c->worker->relay->is_draining, memory_order_relaxed);
    c->x.status = status;
    (void)cv_http_write_status_line(out, status, cv_slice_str(cv_http_reason(status)));
    if (type)
        (void)cv_http_write_field_str(out, "Content-Type", type);
    if (extra)
        (void)cv_buf_append_str(out, extra);
    head_write_cors(c, out);
    write_common(c, out, is_reusable);
    if (status != 204)
        (void)cv_http_write_framing(out, CV_HTTP_LENGTH, body ? strlen(body) : 0);
    (void)cv_http_write_head_end(out);
    if (body && !c->head.is_head)
        (void)cv_buf_append_str(out, body);
    cv_port_flush(&c->port);
    consumer_request_done(c, is_reusable);
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
