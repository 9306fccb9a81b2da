/* SPDX-License-Identifier: MIT
 *
 * Happy path: on_conn_data → take_request → enqueue → forward_http_serve → on_open → push …
 * on_stream_data → finish_answer → the next request on the same connection and stream.
 * Ways it fails: no stream in time, or the queue is full (503); the relay refuses the stream (503);
 * the stream is lost before an answer began (again, or 502) or after (cut); the client goes (the
 * stream closes); what comes cannot be read (bytes are passed on as they are, nothing is queued
 * behind them).
 */
#include "agent/forward_http.h"

#include "agent/agent.h"
#include "agent/forward_private.h"
#include "net/conn.h"
#include "net/worker.h"
#include "proto/http/http_parser.h"
#include "telemetry/log.h"
#include "transport/link.h"

#include <stdio.h>
#include <unistd.h>
#include <utlist.h>

enum {
    KEPT_MAX = 64 * 1024,   /* of a request, for sending it again */
    UNSENT_MAX = 64 * 1024, /* of it that the relay has not taken: then the client is not read */
    ONE_READ = 256 * 1024,
    OUT_LOW = 64 * 1024,
    OUT_HIGH = 256 * 1024,
    CLOSE_MS = 2000,
    FRESH_MS = 1000, /* an idle stream of that age takes a request that must not be sent twice */
};

/* ---- one request after the other ---- */

static uint64_t now_of(const struct http_caller *c)
{
    return cv_worker_now_ms(c->http->worker);
}

void caller_set_state(struct http_caller *c, enum http_state state)
{
    bool was_held = c->state == HTTP_OPENING || c->state == HTTP_UNDER_WAY;
    bool is_held = state == HTTP_OPENING || state == HTTP_UNDER_WAY;
    c->state = state;
    if (is_held && !was_held)
        cv_agent_hold(c->http->options.agent);
    else if (was_held && !is_held)
        cv_agent_release(c->http->options.agent);
}

void caller_drop_stream(struct http_caller *c)
{
    struct cv_stream *stream = c->stream;
    c->stream = NULL;
    c->link = NULL;
    c->owed = 0;
    if (stream)
        cv_stream_close(stream);
}

/* Nothing more is to be had here; what was written goes out. */
void caller_end(struct http_caller *c)
{
    if (c->state == HTTP_ENDING)
        return;
    queue_leave(c);
    caller_drop_stream(c);
    caller_set_state(c, HTTP_ENDING);
    cv_conn_resume(c->conn); /* so that its end is seen */
    cv_conn_close_lingering(c->conn, CLOSE_MS);
}

/* A cut that must not look like an end. */
static void cut(struct http_caller *c)
{
    queue_leave(c);
    caller_drop_stream(c);
    caller_set_state(c, HTTP_ENDING);
    cv_conn_reset(c->conn);
}

/* Hands on as much of the request as the stream takes. */
static void push(struct http_caller *c)
{
    struct cv_slice all = cv_buf_slice(&c->out);
    if (c->state != HTTP_UNDER_WAY || !c->stream)
        return;
    if (c->sent < all.len)
        c->sent += cv_stream_write(c->stream, cv_slice(all.data + c->sent, all.len - c->sent));
    if (all.len > KEPT_MAX)
        c->is_kept = false;
    if (!c->is_kept) {
        cv_buf_consume(&c->out, c->sent);
        c->sent = 0;
    }
    if ((!c->is_whole || c->is_raw) && cv_buf_len(&c->out) - c->sent <= UNSENT_MAX)
        cv_conn_resume(c->conn);
}

static void on_stream_writable(void *arg)
{
    push(arg);
}

/* The stream, which is the relay's HTTP engine, takes this request now. */
void caller_go(struct http_caller *c)
{
    enum cv_http_expect expect = c->is_head      ? CV_HTTP_EXPECT_HEAD
                                 : c->is_upgrade ? CV_HTTP_EXPECT_UPGRADE
                                                 : CV_HTTP_EXPECT_PLAIN;
    caller_set_state(c, HTTP_UNDER_WAY);
    /* A stream that was lost may have left half an answer's head behind. */
    if (!c->is_raw && c->answers && !cv_http_parser_is_idle(c->answers))
        cv_http_parser_free(&c->answers);
    if (!c->is_raw && !c->answers)
        c->answers = cv_http_parser_new(CV_HTTP_RESPONSES, &cv_http_response_limits);
    if (!c->is_raw && (!c->answers || !cv_is_ok(cv_http_parser_expect(c->answers, expect))))
        caller_refuse(c, CV_NO_MEMORY, NULL);
    else
        push(c);
}

static bool may_take_idle_stream(const struct http_caller *c)
{
    return c->stream && !cv_link_is_detached(c->link) &&
           (c->is_idempotent || now_of(c) - c->idle_ms < FRESH_MS);
}

static void start_request(struct http_caller *c)
{
    c->sent = 0;
    c->tries = 0;
    c->is_kept = true;
    c->is_answered = false;
    if (may_take_idle_stream(c)) {
        caller_go(c);
        return;
    }
    caller_drop_stream(c);
    queue_enter(c);
}

static void note_head(struct http_caller *c, const struct cv_http_head *head)
{
    const struct cv_slice *own = cv_http_find(head, "Culvert-Priority");
    const struct cv_slice *standard = own ? NULL : cv_http_find(head, "Priority");
    c->priority = standard ? cv_priority_from_urgency(*standard) : CV_PRIORITY_INTERACTIVE;
    if (own) /* one that makes no sense is the relay's to refuse */
        (void)cv_priority_parse(*own, &c->priority);
    c->is_head = head->is_head;
    c->is_upgrade = head->is_upgrade;
    c->is_last = !head->keep_alive || head->is_upgrade || head->is_connect;
    c->is_idempotent = cv_http_is_idempotent(head->method) || cv_http_find(head, "Idempotency-Key");
}

/* What the relay is to judge: bytes as they are, to the end. */
static void become_raw(struct http_caller *c)
{
    c->is_raw = true;
    c->is_last = true;
    c->is_idempotent = false;
}

/* How many of these bytes belong to the request at hand; the rest is kept for later. */
static size_t read_request(struct http_caller *c, const uint8_t *data, size_t len, bool *has_begun)
{
    struct cv_http_event event;
    struct cv_status status = cv_http_parser_feed(c->requests, data, len);
    while (cv_is_ok(status) && !c->is_whole) {
        status = cv_http_parser_next(c->requests, &event);
        if (!cv_is_ok(status))
            break;
        if (event.type == CV_HTTP_HEAD) {
            note_head(c, event.head);
            *has_begun = true;
        }
        c->is_whole = event.type == CV_HTTP_END;
    }
    if (c->is_whole || status.id == CV_EOF) {
        c->is_whole = true;
        struct cv_slice rest = cv_http_parser_take_rest(c->requests);
        if (!cv_is_ok(cv_buf_append_slice(&c->rest, rest)))
            become_raw(c); /* cannot be: `rest` has room for one read */
        return len - rest.len;
    }
    if (status.id != CV_AGAIN) {
        become_raw(c);
        *has_begun = true;
    }
    return len;
}

static void take_request(struct http_caller *c, const uint8_t *data, size_t len)
{
    bool has_begun = false;
    size_t used = c->is_raw ? len : read_request(c, data, len, &has_begun);
    if (!cv_is_ok(cv_buf_append(&c->out, data, used))) {
        cut(c);
        return;
    }
    if ((c->is_whole && !c->is_raw) || cv_buf_len(&c->out) - c->sent > UNSENT_MAX)
        cv_conn_pause(c->conn);
    if (c->state == HTTP_READING && has_begun)
        start_request(c);
    else
        push(c);
}

/* What came behind the request before. */
static void take_rest(struct http_caller *c)
{
    struct cv_buf rest = c->rest;
    cv_buf_init(&c->rest, 2 * ONE_READ);
    if (cv_buf_len(&rest))
        take_request(c, cv_buf_head(&rest), cv_buf_len(&rest));
    cv_buf_done(&rest);
}

/* ---- the client ---- */

static void on_conn_data(void *arg, uint8_t *data, size_t len)
{
    struct http_caller *c = arg;
    if (c->state == HTTP_ENDING)
        return;
    if (!c->is_whole || c->is_raw) {
        take_request(c, data, len);
        return;
    }
    /* Ahead of its answer: RFC 9112 §9.3.2. */
    cv_conn_pause(c->conn);
    if (!cv_is_ok(cv_buf_append(&c->rest, data, len)))
        cut(c);
}

/* A client's end is taken for its leaving, as at the relay. */
static void on_conn_eof(void *arg)
{
    caller_end(arg);
}

static void on_conn_writable(void *arg)
{
    struct http_caller *c = arg;
    size_t owed = c->owed;
    c->owed = 0;
    if (c->stream)
        cv_stream_consumed(c->stream, owed);
}

static void on_conn_closed(void *arg, struct cv_status why, const struct cv_error *error)
{
    struct http_caller *c = arg;
    struct forward_http *http = c->http;
    (void)why;
    (void)error;
    queue_leave(c);
    caller_drop_stream(c);
    DL_DELETE(http->callers, c);
    http->caller_count--;
    caller_set_state(c, HTTP_ENDING);
    cv_http_parser_free(&c->requests);
    cv_http_parser_free(&c->answers);
    cv_buf_done(&c->out);
    cv_buf_done(&c->rest);
    free(c);
}

static const struct cv_conn_ops conn_ops = {
    .on_data = on_conn_data,
    .on_eof = on_conn_eof,
    .on_hangup = on_conn_eof,
    .on_writable = on_conn_writable,
    .on_closed = on_conn_closed,
};

/* ---- the relay ---- */

static void finish_answer(struct http_caller *c)
{
    if (!c->is_whole || c->is_last || c->http->is_stopping) {
        caller_end(c);
        return;
    }
    cv_buf_done(&c->out);
    cv_buf_init(&c->out, KEPT_MAX + UNSENT_MAX + 2 * ONE_READ);
    c->sent = 0;
    c->is_whole = false;
    c->idle_ms = now_of(c);
    caller_set_state(c, HTTP_READING);
    cv_conn_resume(c->conn);
    take_rest(c);
    if (c->http->queue.count)
        forward_http_serve(c->http);
}

/* Says where in these bytes the answer ends. False: no answer that makes sense. */
static bool read_answer(struct http_caller *c, struct cv_slice data, bool *is_over)
{
    struct cv_http_event event;
    struct cv_status status = cv_http_parser_feed(c->answers, data.data, data.len);
    while (cv_is_ok(status) && !*is_over) {
        status = cv_http_parser_next(c->answers, &event);
        if (!cv_is_ok(status))
            break;
        if (event.type == CV_HTTP_HEAD) {
            c->is_until_close = event.head->framing == CV_HTTP_UNTIL_CLOSE;
            c->is_last |= event.head->status >= 200 && !event.head->keep_alive;
            if (event.head->status == 101)
                c->is_raw = true;
        }
        *is_over = event.type == CV_HTTP_END && !c->is_raw; /* a 101 has an end as well */
    }
    return *is_over || c->is_raw || status.id == CV_AGAIN || status.id == CV_EOF;
}

/* Behind the status line of a final answer, whose first bytes these are. */
static struct cv_status write_first(struct http_caller *c, struct cv_slice data)
{
    const uint8_t *end = memchr(data.data, '\n', data.len);
    bool is_final = data.len > 9 && data.data[9] != '1';
    char line[80];
    size_t len = queue_pressure(c->http, line, sizeof line);
    if (!end || !is_final || !len)
        return cv_conn_write(c->conn, data.data, data.len);
    size_t head = (size_t)(end - data.data) + 1;
    CV_RETURN_IF_ERROR(cv_conn_write(c->conn, data.data, head));
    CV_RETURN_IF_ERROR(cv_conn_write(c->conn, line, len));
    return cv_conn_write(c->conn, data.data + head, data.len - head);
}

static void on_stream_data(void *arg, struct cv_slice data)
{
    struct http_caller *c = arg;
    bool is_over = false, was_raw = c->is_raw, is_first = !c->is_answered;
    if (c->state != HTTP_UNDER_WAY) { /* a byte that nobody asked for */
        caller_drop_stream(c);
        return;
    }
    c->is_answered = true;
    c->is_kept = false;
    if (!c->is_raw && !read_answer(c, data, &is_over)) {
        cut(c);
        return;
    }
    struct cv_status status =
        is_first && !was_raw ? write_first(c, data) : cv_conn_write(c->conn, data.data, data.len);
    if (!cv_is_ok(status)) {
        cut(c);
        return;
    }
    if (cv_conn_is_congested(c->conn))
        c->owed += data.len;
    else
        cv_stream_consumed(c->stream, data.len);
    if (is_over) {
        finish_answer(c);
    } else if (c->is_raw && !was_raw) { /* 101: what follows is no HTTP */
        cv_buf_truncate(&c->out, 0);
        c->sent = 0;
        take_rest(c);
        cv_conn_resume(c->conn);
    }
}

static void on_stream_eof(void *arg)
{
    struct http_caller *c = arg;
    if (c->state == HTTP_UNDER_WAY && (c->is_until_close || (c->is_raw && c->is_answered))) {
        c->is_last = true;
        caller_end(c);
    }
}

/* The request may have been carried out, or not. */
static void ask_again(struct http_caller *c)
{
    bool is_safe = c->is_kept && (c->is_idempotent || c->sent == 0);
    if (is_safe && c->tries++ == 0) {
        c->sent = 0;
        queue_return(c);
        return;
    }
    caller_refuse(c, CV_LINK_LOST,
                  "the link to the relay was lost before an answer came; the request may have been "
                  "carried out");
}

static void on_stream_closed(void *arg, struct cv_status why)
{
    struct http_caller *c = arg;
    (void)why;
    c->stream = NULL;
    c->link = NULL;
    c->owed = 0;
    if (c->state == HTTP_OPENING)
        queue_return(c);
    else if (c->state == HTTP_UNDER_WAY && !c->is_answered)
        ask_again(c);
    else if (c->state == HTTP_UNDER_WAY && c->is_until_close)
        cut(c);
    else if (c->state == HTTP_UNDER_WAY)
        caller_end(c); /* without the last chunk or byte: the client sees that */
}

static void on_open(void *arg)
{
    struct http_caller *c = arg;
    queue_on_open(c);
    caller_go(c);
}

/* RFC 4254 §5.1: 4 is a shortage, which passes. */
static void on_refused(void *arg, uint32_t reason, struct cv_slice text)
{
    struct http_caller *c = arg;
    char detail[200];
    c->stream = NULL;
    c->link = NULL;
    (void)snprintf(detail, sizeof detail, "the relay says: %.*s",
                   (int)(text.len < 150 ? text.len : 150), text.len ? (const char *)text.data : "");
    cv_log_limited(c->http->options.log, CV_LOG_WARN, "forward", "stream_refused",
                   "the relay refuses the stream", CV_F_STR("tunnel", c->http->options.tunnel),
                   CV_F_UINT("sshReason", reason), CV_F_SLICE("detail", text));
    if (reason == 4)
        queue_return(c);
    else
        caller_refuse(c, CV_AGENT_OFFLINE, detail);
}

const struct cv_stream_ops http_stream_ops = {
    .on_open = on_open,
    .on_refused = on_refused,
    .on_data = on_stream_data,
    .on_eof = on_stream_eof,
    .on_writable = on_stream_writable,
    .on_closed = on_stream_closed,
};

/* ---- life ---- */

void forward_http_accept(struct forward_http *http, int fd)
{
    struct cv_error error = {0};
    struct http_caller *c =
        http->caller_count < HTTP_CALLERS_MAX && !http->is_stopping ? calloc(1, sizeof *c) : NULL;
    if (c)
        c->requests = cv_http_parser_new(CV_HTTP_REQUESTS, &cv_http_request_limits);
    if (!c || !c->requests) {
        free(c);
        (void)close(fd);
        return;
    }
    c->http = http;
    cv_buf_init(&c->out, KEPT_MAX + UNSENT_MAX + 2 * ONE_READ);
    cv_buf_init(&c->rest, 2 * ONE_READ);
    caller_init_queue(c);
    if (!cv_is_ok(cv_conn_new(http->worker, fd, NULL, &conn_ops, c, &c->conn, &error))) {
        cv_http_parser_free(&c->requests);
        free(c);
        return;
    }
    cv_conn_set_marks(c->conn, OUT_LOW, OUT_HIGH, OUT_HIGH + http->options.window_bytes + 4096);
    DL_APPEND(http->callers, c);
    http->caller_count++;
}

void forward_http_close(struct forward_http *http)
{
    for (struct http_caller *c = http->callers; c; c = c->next)
        cut(c);
}
