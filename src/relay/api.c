/* SPDX-License-Identifier: MIT
 *
 * The management API: which call a request is, whether its token may, and its body.
 *
 * Happy path: api_find → (authentication, route.c) → api_serve → body: api_body … → api_end → the
 * call. Ways it fails: the method, the right, the body (too large, no JSON, slow).
 */
#include "base/json.h"
#include "relay/api_private.h"
#include "telemetry/audit.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct api_call {
    const char *method;
    const char *path; /* a "*" at its end is one segment */
    void (*run)(struct cv_consumer *c, const json_t *body);
    bool has_body;
    bool is_admin; /* only for tokens with the admin permission */
};

static const struct api_call calls[] = {
    {"GET", "/api/tunnel/tunnels", api_tunnels, false, false},
    {"DELETE", "/api/tunnel/links/*", api_link_close, false, false},
    {"GET", "/api/tunnel/metrics", api_metrics, false, true},
    {"GET", "/api/tunnel/diagnostics", api_diagnostics, false, true},
    {"GET", "/api/tunnel/history", api_history, false, false},
    {"GET", "/api/tunnel/usage", api_usage, false, false},
    {"GET", "/api/tunnel/queue", api_queue, false, false},
    {"GET", "/api/tunnel/breakers", api_breakers, false, false},
    {"DELETE", "/api/tunnel/breakers/*", api_breaker_reset, false, false},
    {"GET", "/api/tunnel/config", api_config_get, false, true},
    {"PATCH", "/api/tunnel/config", api_config_patch, true, true},
    {"GET", "/api/tunnel/revocations", api_revocations_get, false, true},
    {"POST", "/api/tunnel/revocations", api_revocations_post, true, true},
    {"DELETE", "/api/tunnel/revocations/*", api_revocations_delete, false, true},
};

enum { CALL_COUNT = sizeof calls / sizeof calls[0] };

/* ---- which one ---- */

/* `arg` gets what stands in the place of the "*". */
static bool is_path(struct cv_slice path, const char *pattern, char *arg, size_t cap)
{
    size_t len = strlen(pattern);
    *arg = '\0';
    if (pattern[len - 1] != '*')
        return cv_slice_is(path, pattern);
    if (path.len < len || memcmp(path.data, pattern, len - 1) != 0)
        return false;
    struct cv_slice rest = cv_slice(path.data + len - 1, path.len - len + 1);
    return !memchr(rest.data, '/', rest.len) && cv_slice_to_str(rest, arg, cap);
}

bool api_find(struct cv_consumer *c)
{
    struct cv_slice method = c->head.is_head ? cv_slice_str("GET") : c->head.method;
    bool is_known = false;
    for (size_t i = 0; i < CALL_COUNT; i++) {
        if (!is_path(c->head.path, calls[i].path, c->x.api_arg, sizeof c->x.api_arg))
            continue;
        is_known = true;
        c->x.api = &calls[i];
        if (cv_slice_is(method, calls[i].method))
            return true;
    }
    if (is_known)
        c->x.is_wrong_method = true;
    return is_known;
}

const char *api_route(const struct cv_consumer *c)
{
    return c->x.api->path;
}

/* For 405: what the path of the current request takes. */
void api_allow(const struct cv_consumer *c, char *out, size_t cap)
{
    size_t len = (size_t)snprintf(out, cap, "Allow: ");
    const char *path = c->x.api->path;
    bool is_first = true;
    for (size_t i = 0; i < CALL_COUNT; i++)
        if (strcmp(calls[i].path, path) == 0 && len < cap) {
            bool is_get = strcmp(calls[i].method, "GET") == 0;
            len += (size_t)snprintf(out + len, cap - len, "%s%s%s", is_first ? "" : ", ",
                                    calls[i].method, is_get ? ", HEAD" : "");
            is_first = false;
        }
    if (len < cap)
        (void)snprintf(out + len, cap - len, "\r\n");
}

/* ---- answering ---- */

void api_answer(struct cv_consumer *c, int status, json_t *value)
{
    char *text = value ? cv_json_text(value) : NULL;
    json_decref(value);
    if (text)
        problem_simple(c, status, "application/json", text, "Cache-Control: no-store\r\n");
    else
        problem_answer(c, CV_NO_MEMORY, CV_HOP_RELAY, NULL, false);
    free(text);
}

void api_refuse(struct cv_consumer *c, const char *detail)
{
    problem_answer(c, CV_UNPROCESSABLE, CV_HOP_CONSUMER, detail, c->x.is_request_whole);
}

bool api_text(const json_t *body, const char *name, size_t max, const char **out)
{
    const json_t *value = json_object_get(body, name);
    *out = json_string_value(value);
    return !value || (*out && strlen(*out) == json_string_length(value) && strlen(*out) <= max);
}

void api_audit(const struct cv_consumer *c, const char *action, const char *subject)
{
    cv_audit(c->worker->record, ADMIN, CV_F_STR("action", action), CV_F_STR("subject", subject),
             CV_F_STR("by", c->x.identity->subject), CV_F_STR("requestId", c->x.id));
}

/* ---- the body ---- */

static void run(struct cv_consumer *c)
{
    json_t *body = NULL;
    if (c->x.api->has_body) {
        struct cv_status status = cv_json_parse(cv_buf_slice(&c->x.request), &body);
        if (!cv_is_ok(status) || !json_is_object(body)) {
            json_decref(body);
            if (status.id == CV_NO_MEMORY)
                problem_answer(c, CV_NO_MEMORY, CV_HOP_RELAY, NULL, false);
            else
                api_refuse(c, "the body must be one JSON object without doubled members");
            return;
        }
    }
    c->x.api->run(c, body);
    json_decref(body);
}

void api_serve(struct cv_consumer *c)
{
    bool has_body = c->head.framing != CV_HTTP_NO_BODY;
    if (c->x.is_wrong_method) {
        problem_answer(c, CV_METHOD_NOT_ALLOWED, CV_HOP_RELAY, NULL, !has_body);
        return;
    }
    if (c->x.api->is_admin && !c->x.identity->is_admin) {
        problem_answer(c, CV_FORBIDDEN, CV_HOP_RELAY, "this needs the admin permission", !has_body);
        return;
    }
    cv_fsm_set(&c->state, CONSUMER_EXCHANGE);
    c->x.is_api = true;
    c->x.service_due_ms = c->x.total_due_ms = UINT64_MAX;
    cv_buf_init(&c->x.request, API_BODY_MAX);
    if (!has_body) {
        c->x.is_request_whole = true;
        run(c);
    }
    /* RFC 9110 §10.1.1: nobody has to wait for it. */
    else if (c->head.expects_continue && c->head.version_minor == 1) {
        (void)cv_buf_append_str(cv_port_out(&c->port), "HTTP/1.1 100 Continue\r\n\r\n");
        cv_port_flush(&c->port);
    }
}

void api_body(struct cv_consumer *c, struct cv_slice data)
{
    struct cv_status status = cv_buf_append_slice(&c->x.request, data);
    if (!cv_is_ok(status))
        problem_answer(c, status.id == CV_NO_RESOURCES ? CV_BODY_TOO_LARGE : status.id,
                       CV_HOP_CONSUMER, NULL, false);
}

void api_end(struct cv_consumer *c)
{
    c->x.is_request_whole = true;
    run(c);
}
