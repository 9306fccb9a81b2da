/* SPDX-License-Identifier: MIT
 *
 * Heads written anew: the request as the service gets it, the answer as the consumer gets it. What
 * the other side sent is never forwarded as raw bytes.
 */
#include "config/relay_config.h"
#include "proto/http/http_path.h"
#include "proto/http/http_rewrite.h"
#include "proto/http/http_writer.h"
#include "relay/consumer_private.h"

#include <stdio.h>
#include <string.h>

#define TRY CV_RETURN_IF_ERROR

/* ---- CORS (WHATWG Fetch §3.2) ---- */

bool head_origin_is_allowed(const struct cv_consumer *c)
{
    const struct cv_slice *origin = cv_http_find(&c->head, "Origin");
    const struct cv_strings *allowed = &c->worker->relay->config->cors_origins;
    for (size_t i = 0; origin && i < allowed->count; i++)
        if (strcmp(allowed->items[i], "*") == 0 || cv_slice_is(*origin, allowed->items[i]))
            return true;
    return false;
}

bool head_origin_is_own(const struct cv_consumer *c)
{
    const struct cv_slice *origin = cv_http_find(&c->head, "Origin");
    const struct cv_slice *host = cv_http_find(&c->head, "Host");
    struct cv_slice rest = origin ? *origin : cv_slice(NULL, 0);
    struct cv_slice scheme = cv_slice_split(&rest, ':');
    bool is_http = cv_slice_is_nocase(scheme, "http") || cv_slice_is_nocase(scheme, "https");
    return is_http && host && cv_slice_starts_with(rest, "//") &&
           cv_slice_equal_nocase(cv_slice(rest.data + 2, rest.len - 2), *host);
}

struct cv_status head_write_cors(const struct cv_consumer *c, struct cv_buf *out)
{
    if (c->worker->relay->config->cors_origins.count == 0)
        return cv_ok();
    TRY(cv_http_write_field_str(out, "Vary", "Origin"));
    if (!head_origin_is_allowed(c))
        return cv_ok();
    TRY(cv_http_write_field(out, cv_slice_str("Access-Control-Allow-Origin"),
                            *cv_http_find(&c->head, "Origin")));
    return cv_http_write_field_str(
        out, "Access-Control-Expose-Headers",
        "X-Request-Id, Retry-After, Location, RateLimit, RateLimit-Policy, "
        "X-RateLimit-Limit, X-RateLimit-Remaining, X-RateLimit-Reset, "
        "Culvert-Backpressure, traceresponse, Server-Timing");
}

struct cv_status head_write_pressure(const struct cv_consumer *c, struct cv_buf *out)
{
    struct cv_limits *limits = c->worker->relay->limits;
    if (!c->x.identity)
        return cv_ok();
    struct cv_queue_fill fill = cv_limits_queue_fill(limits, c->x.identity);
    if (!cv_queue_is_pressing(fill))
        return cv_ok();
    cv_limits_count_backpressure(limits);
    return cv_buf_printf(out, "Culvert-Backpressure: queued=%u, size=%u\r\n", fill.queued,
                         fill.size);
}

/* ---- request ---- */

/* The relay's own token never goes further; forwarding fields are written by the relay alone. */
static const char *const drop_always[] = {
    "Culvert-*",  "Forwarded", "X-Forwarded-*",          "X-Real-Ip", "X-Request-Id", "traceparent",
    "tracestate", "Origin",    "Sec-WebSocket-Protocol", "Via",       "Max-Forwards",
};
/* With these some frameworks take another method or path than those that the rules were asked for.
 */
static const char *const drop_with_rules[] = {"X-HTTP-Method*", "X-Method-Override",
                                              "X-Original-Url", "X-Rewrite-Url"};

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))
enum { DROP_MAX = COUNT(drop_always) + COUNT(drop_with_rules) + 2 };

static void list_dropped(const struct cv_consumer *c, bool is_passing_authorization,
                         const char *drop[DROP_MAX])
{
    size_t count = COUNT(drop_always);
    memcpy(drop, drop_always, sizeof drop_always);
    if (c->x.route.spec->rule_count) {
        memcpy(drop + count, drop_with_rules, sizeof drop_with_rules);
        count += COUNT(drop_with_rules);
    }
    if (!is_passing_authorization)
        drop[count++] = "Authorization";
    drop[count] = NULL;
}

/* A subprotocol `bearer.<JWT>` was the token, and goes no further. */
static struct cv_status write_protocols(const struct cv_consumer *c, struct cv_buf *out)
{
    struct cv_buf list;
    cv_buf_init(&list, 16384);
    struct cv_status status = cv_ok();
    for (size_t i = 0; i < c->head.field_count && cv_is_ok(status); i++) {
        if (!cv_slice_is_nocase(c->head.fields[i].name, "Sec-WebSocket-Protocol"))
            continue;
        struct cv_slice rest = c->head.fields[i].value, item;
        while (cv_is_ok(status) && cv_http_list_next(&rest, &item))
            if (!cv_slice_starts_with(item, "bearer."))
                status = cv_buf_printf(&list, "%s%.*s", cv_buf_len(&list) ? ", " : "",
                                       (int)item.len, (const char *)item.data);
    }
    if (cv_is_ok(status) && cv_buf_len(&list))
        status =
            cv_http_write_field(out, cv_slice_str("Sec-WebSocket-Protocol"), cv_buf_slice(&list));
    cv_buf_done(&list);
    return status;
}

bool head_protocol_was_offered(const struct cv_consumer *c, const struct cv_http_head *head)
{
    const struct cv_slice *chosen = cv_http_find(head, "Sec-WebSocket-Protocol");
    if (!chosen || !chosen->len)
        return true;
    if (cv_http_count(head, "Sec-WebSocket-Protocol") > 1 ||
        cv_slice_starts_with(*chosen, "bearer."))
        return false;
    for (size_t i = 0; i < c->head.field_count; i++) {
        if (!cv_slice_is_nocase(c->head.fields[i].name, "Sec-WebSocket-Protocol"))
            continue;
        struct cv_slice rest = c->head.fields[i].value, item;
        while (cv_http_list_next(&rest, &item))
            if (cv_slice_equal(item, *chosen))
                return true;
    }
    return false;
}

/* A page whose only subprotocol was its token gets it back, for the service has seen none to
 * choose: browsers take a 101 that grants nothing of what they offered for a failure (WHATWG
 * WebSockets §2.2, "establish a WebSocket connection"). What was offered besides is for the service
 * to choose from. */
static struct cv_status write_protocol_answer(const struct cv_consumer *c,
                                              const struct cv_http_head *head, struct cv_buf *out)
{
    struct cv_slice token = {0};
    if (cv_http_find(head, "Sec-WebSocket-Protocol"))
        return cv_ok();
    for (size_t i = 0; i < c->head.field_count; i++) {
        if (!cv_slice_is_nocase(c->head.fields[i].name, "Sec-WebSocket-Protocol"))
            continue;
        struct cv_slice rest = c->head.fields[i].value, item;
        while (cv_http_list_next(&rest, &item)) {
            if (!cv_slice_starts_with(item, "bearer."))
                return cv_ok();
            token = item;
        }
    }
    if (!token.len)
        return cv_ok();
    return cv_http_write_field(out, cv_slice_str("Sec-WebSocket-Protocol"), token);
}

/* Services such as Ollama refuse foreign origins: they get their own. */
static struct cv_status write_origin(const struct cv_consumer *c, struct cv_buf *out)
{
    const struct cv_slice *origin = cv_http_find(&c->head, "Origin");
    const struct cv_tunnel_spec *spec = c->x.route.spec;
    if (!origin)
        return cv_ok();
    if (strcmp(spec->preset, "none") == 0)
        return cv_http_write_field(out, cv_slice_str("Origin"), *origin);
    char own[CV_TUNNEL_HOST_MAX + 8];
    (void)snprintf(own, sizeof own, "http://%s", spec->host);
    return cv_http_write_field_str(out, "Origin", own);
}

static struct cv_status write_target(struct cv_consumer *c, struct cv_buf *out)
{
    struct cv_slice path = c->head.path;
    struct cv_http_tunnel_path at;
    if (c->x.has_prefix && cv_http_split_tunnel_path(c->head.path, &at))
        path = at.rest;
    /* As it came, in one piece: all but a path that is left out. */
    if (path.len && !c->head.has_query)
        return cv_http_write_request_line(out, c->head.method, path);
    if (path.len && c->head.query.data == path.data + path.len + 1)
        return cv_http_write_request_line(out, c->head.method,
                                          cv_slice(path.data, path.len + 1 + c->head.query.len));
    struct cv_buf target;
    cv_buf_init(&target, 2 * c->head.target.len + 2);
    struct cv_status status =
        path.len ? cv_buf_append_slice(&target, path) : cv_buf_append_str(&target, "/");
    if (cv_is_ok(status) && c->head.has_query)
        status = cv_buf_append_str(&target, "?");
    if (cv_is_ok(status) && c->head.has_query)
        status = cv_buf_append_slice(&target, c->head.query);
    if (cv_is_ok(status))
        status = cv_http_write_request_line(out, c->head.method, cv_buf_slice(&target));
    cv_buf_done(&target);
    return status;
}

/* Authorization is the service's own when the relay's token came elsewhere; a token that the relay
 * took from Authorization goes no further, whatever the tunnel wants. */
static bool is_passing_authorization(const struct cv_consumer *c)
{
    const struct cv_slice *token = cv_http_find(&c->head, "Culvert-Authorization");
    const struct cv_slice *other = cv_http_find(&c->head, "Authorization");
    if (!c->x.route.spec->passes_authorization)
        return false;
    if (!token)
        return c->owner != NULL || c->x.identity->is_anonymous;
    return other && !cv_slice_equal_nocase(*token, *other);
}

struct cv_status head_write_request(struct cv_consumer *c, struct cv_buf *out)
{
    const char *drop[DROP_MAX];
    list_dropped(c, is_passing_authorization(c), drop);
    TRY(write_target(c, out));
    TRY(cv_http_write_field_str(out, "Host", c->x.route.spec->host));
    TRY(cv_http_write_fields(out, &c->head, drop));
    TRY(write_origin(c, out));
    TRY(head_write_hops(c, out));
    TRY(cv_http_write_field_str(out, "X-Request-Id", c->x.id));
    if (c->x.is_upgrade) {
        TRY(write_protocols(c, out));
        TRY(cv_http_write_field_str(out, "Connection", "Upgrade"));
        TRY(cv_http_write_field_str(out, "Upgrade", "websocket"));
    }
    /* A body that is announced with length 0 stays announced: some services want it for POST. */
    TRY(cv_http_write_framing(out,
                              c->head.has_content_length ? CV_HTTP_LENGTH : c->x.request_framing,
                              c->head.content_length));
    return cv_http_write_head_end(out);
}

/* ---- answer ---- */

static const char *const drop_response[] = {
    "Access-Control-*", "Culvert-*",    "Set-Cookie", "Location",
    "Content-Location", "X-Request-Id", "Date",       NULL};

/* Where the relay says of which trace its answer is a part, the service does not. */
static const char *const drop_response_traced[] = {
    "Access-Control-*", "Culvert-*", "Set-Cookie",    "Location", "Content-Location",
    "X-Request-Id",     "Date",      "traceresponse", NULL};

static struct cv_status write_rewritten(struct cv_consumer *c, const struct cv_http_field *field,
                                        struct cv_slice prefix, struct cv_buf *out)
{
    struct cv_buf text;
    struct cv_slice hosts[] = {cv_slice_str(c->x.route.spec->host), cv_slice_str("localhost")};
    cv_buf_init(&text, 64 * 1024);
    struct cv_status status = cv_slice_is_nocase(field->name, "Set-Cookie")
                                  ? cv_http_rewrite_set_cookie(&text, field->value, prefix)
                                  : cv_http_rewrite_location(&text, field->value, prefix, hosts, 2);
    if (cv_is_ok(status))
        status = cv_http_write_field(out, field->name, cv_buf_slice(&text));
    else if (status.id == CV_INVALID)
        status = cv_ok(); /* left out: it could not keep its meaning under a path */
    cv_buf_done(&text);
    return status;
}

static struct cv_status write_pathful(struct cv_consumer *c, const struct cv_http_head *head,
                                      struct cv_buf *out)
{
    struct cv_http_tunnel_path at = {0};
    bool has_prefix = c->x.has_prefix && cv_http_split_tunnel_path(c->head.path, &at);
    for (size_t i = 0; i < head->field_count; i++) {
        const struct cv_http_field *f = &head->fields[i];
        if (!cv_slice_is_nocase(f->name, "Set-Cookie") &&
            !cv_slice_is_nocase(f->name, "Location") &&
            !cv_slice_is_nocase(f->name, "Content-Location"))
            continue;
        if (has_prefix)
            TRY(write_rewritten(c, f, at.prefix, out));
        else
            TRY(cv_http_write_field(out, f->name, f->value));
    }
    return cv_ok();
}

static struct cv_status write_interim(const struct cv_http_head *head, struct cv_buf *out)
{
    TRY(cv_http_write_status_line(out, head->status, head->reason));
    TRY(cv_http_write_fields(out, head, drop_response));
    return cv_http_write_head_end(out);
}

static bool is_private(const struct cv_http_head *head)
{
    for (size_t i = 0; i < head->field_count; i++) {
        struct cv_slice rest = head->fields[i].value, item;
        if (!cv_slice_is_nocase(head->fields[i].name, "Cache-Control"))
            continue;
        while (cv_http_list_next(&rest, &item))
            if (cv_slice_is_nocase(item, "private") || cv_slice_is_nocase(item, "no-store"))
                return true;
    }
    return false;
}

/* A URL of ours means another service for another user, which the service does not know when it
 * says `public`: no cache may give one user's answer to the next (RFC 9111 §3.5, §4.1). Where the
 * way here names no user, on a stream of the user's own, what the service says stands. */
static struct cv_status write_cache_rules(const struct cv_consumer *c,
                                          const struct cv_http_head *head, struct cv_buf *out)
{
    if (c->owner)
        return cv_ok();
    if (!is_private(head))
        TRY(cv_http_write_field_str(out, "Cache-Control", "private"));
    return cv_http_write_field_str(out, "Vary", "Authorization, Culvert-Authorization");
}

static struct cv_status write_response(struct cv_consumer *c, const struct cv_http_head *head,
                                       struct cv_buf *out)
{
    TRY(cv_http_write_status_line(out, head->status, head->reason));
    TRY(cv_http_write_fields(out, head,
                             tracing_is_answered(c) ? drop_response_traced : drop_response));
    TRY(write_pathful(c, head, out));
    const struct cv_slice *date = cv_http_find(head, "Date");
    char now[CV_HTTP_DATE_LEN + 1];
    if (date)
        TRY(cv_http_write_field(out, cv_slice_str("Date"), *date));
    else if (cv_http_date(cv_worker_wall_seconds(c->worker->worker), now))
        TRY(cv_http_write_field_str(out, "Date", now));
    TRY(head_write_cors(c, out));
    /* The service may have limits of its own: the standard field is a list that both stand in, the
     * established ones can say only one thing. */
    TRY(cv_quota_write(&c->x.quota, !cv_http_find(head, "X-RateLimit-Limit"),
                       cv_worker_wall_seconds(c->worker->worker), out));
    TRY(head_write_pressure(c, out));
    TRY(cv_http_write_field_str(out, "X-Request-Id", c->x.id));
    TRY(tracing_write_answer(c, out));
    if (head->status != 101)
        TRY(write_cache_rules(c, head, out));
    if (head->status == 101) {
        TRY(cv_http_write_field_str(out, "Connection", "Upgrade"));
        TRY(cv_http_write_field_str(out, "Upgrade", "websocket"));
        TRY(write_protocol_answer(c, head, out));
    } else if (c->is_last) {
        TRY(cv_http_write_field_str(out, "Connection", "close"));
    } else if (c->head.version_minor == 0) {
        TRY(cv_http_write_field_str(out, "Connection", "keep-alive"));
    }
    /* An answer to HEAD and a 304 may say how long the body would be. */
    if (c->x.response_framing == CV_HTTP_NO_BODY && head->has_content_length)
        TRY(cv_http_write_framing(out, CV_HTTP_LENGTH, head->content_length));
    else
        TRY(cv_http_write_framing(out, c->x.response_framing, head->content_length));
    return cv_http_write_head_end(out);
}

struct cv_status head_write_interim(const struct cv_http_head *head, struct cv_buf *out)
{
    size_t before = cv_buf_len(out);
    struct cv_status status = write_interim(head, out);
    if (!cv_is_ok(status))
        cv_buf_truncate(out, before);
    return status;
}

struct cv_status head_write_response(struct cv_consumer *c, const struct cv_http_head *head,
                                     struct cv_buf *out)
{
    size_t before = cv_buf_len(out);
    struct cv_status status = write_response(c, head, out);
    if (!cv_is_ok(status))
        cv_buf_truncate(out, before);
    return status;
}
