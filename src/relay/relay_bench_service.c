/* SPDX-License-Identifier: MIT
 *
 * The scripted service behind a test's agent: what the path says is what it does.
 */
#include "relay/relay_bench.h"

#include "transport/link.h"

#include <stdio.h>
#include <stdlib.h>
#include <utlist.h>

enum { REFUSE_CONNECT = 2 };

/* ---- bytes out ---- */

static void stream_free(struct fake_stream *s)
{
    struct fake_agent *agent = s->agent;
    cv_worker_timer_stop(agent->worker, &s->delay);
    DL_DELETE(agent->streams, s);
    cv_buf_done(&s->in);
    cv_buf_done(&s->out);
    free(s);
    (void)pthread_mutex_lock(&agent->lock);
    agent->open--;
    (void)pthread_cond_broadcast(&agent->changed);
    (void)pthread_mutex_unlock(&agent->lock);
}

static void count_sent(struct fake_agent *agent, size_t sent)
{
    (void)pthread_mutex_lock(&agent->lock);
    agent->sent += sent;
    (void)pthread_mutex_unlock(&agent->lock);
}

/* Frees the stream when it closes it. */
static void push(struct fake_stream *s)
{
    uint8_t block[16384];
    memset(block, 'x', sizeof block);
    struct cv_slice out = cv_buf_slice(&s->out);
    size_t sent = out.len ? cv_stream_write(s->stream, out) : 0;
    cv_buf_consume(&s->out, sent);
    count_sent(s->agent, sent);
    while (!cv_buf_len(&s->out) && s->endless) {
        size_t len = s->endless < sizeof block ? (size_t)s->endless : sizeof block;
        sent = cv_stream_write(s->stream, cv_slice(block, len));
        s->endless -= sent;
        count_sent(s->agent, sent);
        if (sent < len)
            return;
    }
    if (cv_buf_len(&s->out))
        return;
    if (s->is_eof_due && !s->is_eof_sent) {
        s->is_eof_sent = true;
        cv_stream_eof(s->stream);
    }
    if (s->is_close_due) {
        cv_stream_close(s->stream);
        stream_free(s);
    }
}

static void say(struct fake_stream *s, const char *text)
{
    assert_ok(cv_buf_append_str(&s->out, text));
}

/* ---- HTTP ---- */

struct script {
    const char *path;
    const char *answer;
    enum { STAYS, ENDS, CLOSES } then; /* ENDS: EOF only, as a foreign agent does */
};

#define OK "HTTP/1.1 200 OK\r\n"
#define CHUNKED OK "Transfer-Encoding: chunked\r\n"

static const struct script scripts[] = {
    {"/hello", OK "Content-Length: 5\r\nX-Service: yes\r\n\r\nhello", STAYS},
    {"/chunked",
     CHUNKED "Trailer: X-Sum\r\n\r\n5\r\nhello\r\n7\r\n, world\r\n0\r\nX-Sum: 12\r\n\r\n", STAYS},
    {"/204", "HTTP/1.1 204 No Content\r\n\r\n", STAYS},
    {"/304", "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\nContent-Length: 5\r\n\r\n", STAYS},
    {"/hints", "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" OK "Content-Length: 2\r\n\r\nok",
     STAYS},
    {"/only-hints", "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n", CLOSES},
    {"/until-close", "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nto the end", CLOSES},
    {"/until-eof", "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nto the end", ENDS},
    {"/close", "", CLOSES},
    {"/eof", "", ENDS},
    {"/bad", "SSH-2.0-nonsense\r\n\r\n", STAYS},
    {"/bad-framing", OK "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello", STAYS},
    {"/extra", OK "Content-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil",
     STAYS},
    {"/cut-length", OK "Content-Length: 100\r\n\r\nhalf", CLOSES},
    {"/cut-chunked", CHUNKED "\r\n5\r\nhello\r\n5\r\nwo", CLOSES},
    {"/cut-sse", CHUNKED "Content-Type: text/event-stream\r\n\r\n9\r\ndata: one\r\n", CLOSES},
    {"/cut-ndjson", CHUNKED "Content-Type: application/x-ndjson\r\n\r\n8\r\n{\"a\":1}\n\r\n",
     CLOSES},
    {"/hang", "", STAYS},
    {"/hang-body", OK "Content-Length: 100\r\n\r\nhalf", STAYS},
};

/* Where the request in `in` ends; 0: not yet whole. */
static size_t request_len(const struct cv_buf *in)
{
    const char *text = (const char *)cv_buf_head(in);
    size_t len = cv_buf_len(in);
    const char *end = text && len ? memmem(text, len, "\r\n\r\n", 4) : NULL;
    if (!text || !end)
        return 0;
    size_t head = (size_t)(end + 4 - text);
    const char *field = memmem(text, head, "\r\nContent-Length: ", 18);
    if (field) {
        size_t whole = head + (size_t)strtoull(field + 18, NULL, 10);
        return whole <= len ? whole : 0;
    }
    if (!memmem(text, head, "\r\nTransfer-Encoding: chunked\r\n", 30))
        return head;
    const char *last = memmem(text + head - 2, len - head + 2, "\r\n0\r\n", 5);
    const char *stop =
        last ? memmem(last + 3, len - (size_t)(last + 3 - text), "\r\n\r\n", 4) : NULL;
    return stop ? (size_t)(stop + 4 - text) : 0;
}

static bool path_is(const char *text, const char *path)
{
    const char *at = strchr(text, ' ');
    size_t len = strlen(path);
    return at && strncmp(at + 1, path, len) == 0 && (at[1 + len] == ' ' || at[1 + len] == '?');
}

static uint64_t number_in(const char *text)
{
    const char *at = strchr(text, '?');
    return at ? strtoull(at + 1, NULL, 10) : 0;
}

static void answer(struct fake_stream *s, const char *text, size_t len)
{
    for (size_t i = 0; i < sizeof scripts / sizeof scripts[0]; i++) {
        if (!path_is(text, scripts[i].path))
            continue;
        if (strncmp(text, "HEAD ", 5) == 0)
            say(s, OK "Content-Length: 5\r\n\r\n");
        else
            say(s, scripts[i].answer);
        s->is_eof_due = scripts[i].then != STAYS;
        s->is_close_due = scripts[i].then == CLOSES;
        return;
    }
    if (path_is(text, "/hang-once") && s->agent->hangs) {
        (void)pthread_mutex_lock(&s->agent->lock);
        s->agent->hung++;
        (void)pthread_mutex_unlock(&s->agent->lock);
    } else if (path_is(text, "/ws")) {
        say(s, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
               "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\nhi");
        s->is_raw = true;
    } else if (path_is(text, "/big")) {
        s->endless = number_in(text);
        assert_ok(cv_buf_printf(&s->out, OK "Content-Length: %llu\r\n\r\n",
                                (unsigned long long)s->endless));
    } else { /* the request comes back */
        assert_ok(cv_buf_printf(&s->out, OK "Content-Length: %zu\r\n\r\n", len));
        assert_ok(cv_buf_append(&s->out, text, len));
    }
}

static void take_requests(struct fake_stream *s)
{
    size_t len;
    while (!s->is_raw && !s->is_eof_due && (len = request_len(&s->in)) != 0) {
        char *text = malloc(len + 1);
        assert_non_null(text);
        memcpy(text, cv_buf_head(&s->in), len);
        text[len] = 0;
        cv_buf_consume(&s->in, len);
        answer(s, text, len);
        free(text);
        (void)pthread_mutex_lock(&s->agent->lock);
        s->agent->requests++;
        (void)pthread_cond_broadcast(&s->agent->changed);
        (void)pthread_mutex_unlock(&s->agent->lock);
    }
    /* Refused before its body is here. */
    if (!s->is_raw && cv_buf_len(&s->in) > 16 && path_is((char *)cv_buf_head(&s->in), "/early") &&
        !s->is_deaf) {
        s->is_deaf = true;
        say(s, "HTTP/1.1 413 Too Much\r\nContent-Length: 3\r\n\r\nno\n");
    }
    if (s->is_raw && cv_buf_len(&s->in)) {
        assert_ok(cv_buf_append_slice(&s->out, cv_buf_slice(&s->in)));
        cv_buf_consume(&s->in, cv_buf_len(&s->in));
    }
}

/* ---- stream ---- */

static void on_data(void *arg, struct cv_slice data)
{
    struct fake_stream *s = arg;
    (void)pthread_mutex_lock(&s->agent->lock);
    if (cv_buf_room(&s->agent->seen) >= data.len)
        assert_ok(cv_buf_append_slice(&s->agent->seen, data));
    (void)pthread_mutex_unlock(&s->agent->lock);
    if (memmem(data.data, data.len, "/deaf ", 6))
        s->is_deaf = true;
    if (s->is_deaf && strcmp(s->name, "deaf") == 0)
        return; /* reads nothing: its window fills */
    assert_ok(cv_buf_append_slice(&s->in, data));
    cv_stream_consumed(s->stream, data.len);
    take_requests(s);
    push(s);
}

static void on_eof(void *arg)
{
    struct fake_stream *s = arg;
    if (!s->is_raw)
        return;
    s->is_eof_due = s->is_close_due = true;
    push(s);
}

static void on_writable(void *arg)
{
    push(arg);
}

static void on_closed(void *arg, struct cv_status why)
{
    (void)why;
    stream_free(arg);
}

static const struct cv_stream_ops ops = {
    .on_data = on_data, .on_eof = on_eof, .on_writable = on_writable, .on_closed = on_closed};

static void on_delay(void *arg)
{
    struct fake_stream *s = arg;
    cv_stream_accept(s->stream, &ops, s);
}

void service_accept(struct fake_agent *agent, struct cv_stream *stream, struct cv_slice host)
{
    if (cv_slice_starts_with(host, "refuse") || cv_slice_starts_with(host, "timeout")) {
        cv_stream_refuse(stream, REFUSE_CONNECT,
                         cv_slice_starts_with(host, "refuse") ? "service-refused: nobody there"
                                                              : "service-timeout: too late");
        return;
    }
    struct fake_stream *s = calloc(1, sizeof *s);
    assert_non_null(s);
    s->agent = agent;
    s->stream = stream;
    s->is_raw = cv_slice_starts_with(host, "tcp");
    (void)cv_slice_to_str(host, s->name, sizeof s->name);
    cv_buf_init(&s->in, 64u << 20);
    cv_buf_init(&s->out, 64u << 20);
    cv_timer_init(&s->delay, on_delay, s);
    DL_APPEND(agent->streams, s);
    (void)pthread_mutex_lock(&agent->lock);
    agent->opened++;
    if (++agent->open > agent->most_open)
        agent->most_open = agent->open;
    (void)pthread_cond_broadcast(&agent->changed);
    (void)pthread_mutex_unlock(&agent->lock);
    cv_stream_set_ops(stream, &ops, s);
    if (cv_slice_starts_with(host, "silent"))
        return;
    if (agent->accept_delay_ms)
        assert_ok(cv_worker_timer_start(agent->worker, &s->delay, agent->accept_delay_ms));
    else
        cv_stream_accept(stream, &ops, s);
}

void service_end_all(struct fake_agent *agent)
{
    assert_null(agent->streams);
}
