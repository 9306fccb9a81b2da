/* SPDX-License-Identifier: MIT
 *
 * Happy path: cv_chat_start → on_dialled → on_data → take_body → take_line → on_text … "done" →
 * finish → on_closed → on_done.
 * Ways it fails: dialling; the connection breaks; the answer is no 200, no HTTP, no JSON, or ends
 * before "done". All but the first end in finish, too.
 */
#include "cli/chat.h"

#include "base/buf.h"
#include "net/conn.h"
#include "net/dial.h"
#include "proto/http/http_parser.h"
#include "proto/http/http_writer.h"

#include <jansson.h>
#include <stdlib.h>

enum {
    REQUEST_MAX_BYTES = 32 * 1024,
    FIELD_MAX_BYTES = 8 * 1024 + 64, /* a token and "Bearer " */
    LINE_MAX_BYTES = 64 * 1024,
    DIAL_TIMEOUT_MS = 5000,
};

struct cv_chat {
    struct cv_chat_ops ops;
    void *arg;
    struct cv_dial *dial;
    struct cv_conn *conn;
    struct cv_http_parser *parser;
    struct cv_buf request;
    struct cv_buf line; /* of the answer, not complete yet; the whole body unless it is a 200 */
    int http_status;    /* 0 until the head has come */
    bool is_done;       /* the model said so */
    bool is_finished;   /* status and error say how it ended */
    bool is_cancelled;
    struct cv_status status;
    struct cv_error error;
};

static void chat_free(struct cv_chat *chat)
{
    cv_dial_cancel(&chat->dial);
    cv_http_parser_free(&chat->parser);
    cv_buf_wipe(&chat->request);
    cv_buf_done(&chat->line);
    free(chat);
}

/* The first ending counts. */
static void finish(struct cv_chat *chat, struct cv_status status)
{
    if (!chat->is_finished) {
        chat->is_finished = true;
        chat->status = status;
        if (!chat->error.detail[0])
            (void)cv_fail(&chat->error, status.id, "%s", cv_status_text(status.id)).id;
    }
    cv_conn_close(chat->conn, cv_ok());
}

/* ---- the answer ---- */

static struct cv_status take_line(struct cv_chat *chat, struct cv_slice line)
{
    if (cv_slice_trim(line).len == 0)
        return cv_ok();
    json_t *object = json_loadb((const char *)line.data, line.len, 0, NULL);
    const char *fault = json_string_value(json_object_get(object, "error"));
    const json_t *message = json_object_get(object, "message");
    const json_t *text = json_object_get(message, "content");
    struct cv_status status = cv_ok();
    if (!json_is_object(object))
        status = cv_fail(&chat->error, CV_BAD_RESPONSE, "the model's answer is not JSON");
    else if (json_object_get(object, "error"))
        status = cv_fail(&chat->error, CV_BAD_RESPONSE, "the answer broke off: %.200s",
                         fault ? fault : "an error without a text");
    else if (json_string_length(text))
        chat->ops.on_text(chat->arg, cv_slice(json_string_value(text), json_string_length(text)));
    if (json_is_true(json_object_get(object, "done")))
        chat->is_done = true;
    json_decref(object);
    return status;
}

static struct cv_status take_body(struct cv_chat *chat, struct cv_slice body)
{
    if (cv_buf_room(&chat->line) < body.len)
        return cv_fail(&chat->error, CV_BAD_RESPONSE, "the answer has a line that is too long");
    CV_RETURN_IF_ERROR(cv_buf_append_slice(&chat->line, body));
    while (chat->http_status == 200 && !chat->is_finished && !chat->is_cancelled) {
        struct cv_slice rest = cv_buf_slice(&chat->line);
        const uint8_t *end = rest.len ? memchr(rest.data, '\n', rest.len) : NULL;
        if (!end)
            break;
        size_t len = (size_t)(end - rest.data);
        CV_RETURN_IF_ERROR(take_line(chat, cv_slice(rest.data, len)));
        cv_buf_consume(&chat->line, len + 1);
    }
    return cv_ok();
}

/* An answer other than 200: problem details (RFC 9457) of the relay, or an error of the model. */
static struct cv_status explain(struct cv_chat *chat)
{
    struct cv_slice body = cv_buf_slice(&chat->line);
    json_t *object = body.len ? json_loadb((const char *)body.data, body.len, 0, NULL) : NULL;
    const char *text = json_string_value(json_object_get(object, "detail"));
    if (!text)
        text = json_string_value(json_object_get(object, "title"));
    if (!text)
        text = json_string_value(json_object_get(object, "error"));
    const char *code = json_string_value(json_object_get(object, "code"));
    struct cv_status status =
        cv_fail(&chat->error, CV_BAD_RESPONSE, "the answer was %d %s%s%.160s%s%.30s",
                chat->http_status, cv_http_reason(chat->http_status), text ? ": " : "",
                text ? text : "", code ? ", " : "", code ? code : "");
    json_decref(object);
    return status;
}

static struct cv_status take_event(struct cv_chat *chat, const struct cv_http_event *event)
{
    switch (event->type) {
    case CV_HTTP_HEAD:
        if (event->head->status >= 200)
            chat->http_status = event->head->status;
        return cv_ok();
    case CV_HTTP_BODY:
        return take_body(chat, event->body);
    case CV_HTTP_TRAILERS:
        return cv_ok();
    case CV_HTTP_END:
        if (chat->http_status != 200)
            return explain(chat);
        if (!chat->is_done)
            return cv_fail(&chat->error, CV_TRUNCATED, "the answer ended in the middle");
        finish(chat, cv_ok());
        return cv_ok();
    }
    return cv_status(CV_INTERNAL);
}

static void take_events(struct cv_chat *chat)
{
    struct cv_http_event event;
    struct cv_status status = cv_ok();
    while (cv_is_ok(status) && !chat->is_finished && !chat->is_cancelled) {
        status = cv_http_parser_next(chat->parser, &event);
        if (cv_is_ok(status))
            status = take_event(chat, &event);
    }
    if (status.id == CV_EOF)
        status = cv_status(CV_TRUNCATED);
    if (!cv_is_ok(status) && status.id != CV_AGAIN)
        finish(chat, status);
}

static void on_data(void *arg, uint8_t *data, size_t len)
{
    struct cv_chat *chat = arg;
    struct cv_status status = cv_http_parser_feed(chat->parser, data, len);
    if (cv_is_ok(status))
        take_events(chat);
    else
        finish(chat, status);
}

static void on_eof(void *arg)
{
    struct cv_chat *chat = arg;
    cv_http_parser_eof(chat->parser);
    take_events(chat);
}

static void on_closed(void *arg, struct cv_status why, const struct cv_error *error)
{
    struct cv_chat *chat = arg;
    struct cv_chat_ops ops = chat->ops;
    void *ops_arg = chat->arg;
    bool is_cancelled = chat->is_cancelled;
    struct cv_status status = chat->is_finished ? chat->status : why;
    struct cv_error copy = chat->is_finished ? chat->error : *error;
    chat_free(chat);
    if (!is_cancelled)
        ops.on_done(ops_arg, status, &copy);
}

static const struct cv_conn_ops conn_ops = {
    .on_data = on_data, .on_eof = on_eof, .on_closed = on_closed};

/* ---- the request ---- */

static struct cv_status write_request(struct cv_chat *chat, const struct cv_chat_request *request)
{
    char text[FIELD_MAX_BYTES];
    struct cv_buf *out = &chat->request;
    json_t *object = json_pack("{s:s,s:[{s:s,s:s}],s:{s:i},s:b}", "model", request->model,
                               "messages", "role", "user", "content", request->prompt, "options",
                               "num_predict", (int)request->max_tokens, "stream", true);
    char *body = object ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    if (!body)
        return cv_status(CV_INVALID);
    size_t body_len = strlen(body);
    struct cv_status status =
        cv_http_write_request_line(out, cv_slice_str("POST"), cv_slice_str(request->path));
    (void)snprintf(text, sizeof text, strchr(request->host, ':') ? "[%s]:%u" : "%s:%u",
                   request->host, request->port);
    if (cv_is_ok(status))
        status = cv_http_write_field_str(out, "Host", text);
    (void)snprintf(text, sizeof text, "Bearer %s", request->token);
    if (cv_is_ok(status))
        status = cv_http_write_field_str(out, "Authorization", text);
    explicit_bzero(text, sizeof text);
    if (cv_is_ok(status))
        status = cv_http_write_field_str(out, "Content-Type", "application/json");
    if (cv_is_ok(status))
        status = cv_http_write_field_str(out, "Connection", "close");
    if (cv_is_ok(status))
        status = cv_http_write_framing(out, CV_HTTP_LENGTH, body_len);
    if (cv_is_ok(status))
        status = cv_http_write_head_end(out);
    if (cv_is_ok(status))
        status = cv_buf_append(out, body, body_len);
    free(body);
    return status;
}

static void on_dialled(void *arg, const struct cv_dial_result *result)
{
    struct cv_chat *chat = arg;
    chat->dial = NULL;
    if (!cv_is_ok(result->status)) {
        struct cv_chat_ops ops = chat->ops;
        void *ops_arg = chat->arg;
        chat_free(chat);
        ops.on_done(ops_arg, result->status, result->error);
        return;
    }
    chat->conn = result->conn;
    cv_conn_set_ops(chat->conn, &conn_ops, chat);
    struct cv_slice request = cv_buf_slice(&chat->request);
    struct cv_status status = cv_conn_write(chat->conn, request.data, request.len);
    cv_buf_wipe(&chat->request);
    if (!cv_is_ok(status))
        finish(chat, status);
}

struct cv_status cv_chat_start(struct cv_worker *worker, const struct cv_chat_request *request,
                               const struct cv_chat_ops *ops, void *arg, struct cv_chat **out,
                               struct cv_error *error)
{
    *out = NULL;
    struct cv_chat *chat = calloc(1, sizeof *chat);
    if (!chat)
        return cv_status(CV_NO_MEMORY);
    chat->ops = *ops;
    chat->arg = arg;
    cv_buf_init(&chat->request, REQUEST_MAX_BYTES);
    cv_buf_init(&chat->line, LINE_MAX_BYTES);
    chat->parser = cv_http_parser_new(CV_HTTP_RESPONSES, &cv_http_response_limits);
    struct cv_status status = chat->parser
                                  ? cv_http_parser_expect(chat->parser, CV_HTTP_EXPECT_PLAIN)
                                  : cv_status(CV_NO_MEMORY);
    if (cv_is_ok(status))
        status = write_request(chat, request);
    struct cv_dial_options dial = {
        .host = request->host, .port = request->port, .timeout_ms = DIAL_TIMEOUT_MS};
    if (cv_is_ok(status))
        status = cv_dial_start(worker, &dial, on_dialled, chat, &chat->dial, error);
    if (cv_is_ok(status))
        *out = chat;
    else
        chat_free(chat);
    return status;
}

void cv_chat_cancel(struct cv_chat **out)
{
    struct cv_chat *chat = *out;
    *out = NULL;
    if (!chat)
        return;
    if (!chat->conn) {
        chat_free(chat);
        return;
    }
    chat->is_cancelled = true;
    cv_conn_close(chat->conn, cv_status(CV_CANCELLED));
}
