/* SPDX-License-Identifier: MIT
 *
 * Happy path: on_conn_data → cv_stream_write; on_stream_data → cv_conn_out, consumed at once. One
 * side slow: `held` and a paused connection, or `owed` and a window that stays shut. Ends: EOF each
 * way, then both are closed.
 * Ways it fails: the connection breaks (what was read is still delivered, then the stream closes);
 * the stream closes or its link is lost (the connection closes); memory.
 */
#include "agent/splice.h"

#include "net/conn.h"
#include "transport/link.h"

enum {
    HELD_MAX = 256 * 1024,
    OUT_LOW = 64 * 1024,
    OUT_HIGH = 256 * 1024,
    FLUSH_MS = 10000, /* for the last bytes to a slow service */
};

struct cv_splice {
    struct cv_conn *conn;     /* NULL once it is gone */
    struct cv_stream *stream; /* NULL once it is gone */
    struct cv_buf held;       /* read from the connection, not yet taken by the stream */
    size_t owed;              /* taken from the stream, not yet reported as consumed */
    bool has_conn_eof;
    bool is_eof_sent; /* to the stream */
    bool has_stream_eof;
    bool is_cancel; /* a stream that closes without EOF wants nothing any more: a request that was
                       given up. Otherwise what it sent before still goes out */
    struct cv_splice_end end;
    cv_splice_on_end *on_end;
    void *arg;
};

static void set_why(struct cv_splice *s, struct cv_status why)
{
    if (cv_is_ok(s->end.why))
        s->end.why = why;
}

static void end_if_over(struct cv_splice *s)
{
    if (s->conn || s->stream)
        return;
    cv_splice_on_end *on_end = s->on_end;
    void *arg = s->arg;
    struct cv_splice_end end = s->end;
    cv_buf_done(&s->held);
    free(s);
    on_end(arg, &end);
}

/* The stream is of no use any more. */
static void drop_stream(struct cv_splice *s)
{
    struct cv_stream *stream = s->stream;
    s->stream = NULL;
    if (stream)
        cv_stream_close(stream);
}

/* Both directions have ended, and everything has been handed on. */
static void close_if_done(struct cv_splice *s)
{
    if (!s->is_eof_sent || !s->has_stream_eof)
        return;
    drop_stream(s);
    if (s->conn)
        cv_conn_close_after_flush(s->conn, FLUSH_MS);
}

static void fail(struct cv_splice *s, struct cv_status why)
{
    set_why(s, why);
    drop_stream(s);
    if (s->conn)
        cv_conn_close(s->conn, why);
    else
        end_if_over(s);
}

/* ---- connection → stream ---- */

/* After all that was read has been taken. */
static void pass_on_end(struct cv_splice *s)
{
    if (!s->stream || cv_buf_len(&s->held))
        return;
    if (!s->conn) {
        drop_stream(s);
        end_if_over(s);
        return;
    }
    if (s->has_conn_eof && !s->is_eof_sent) {
        s->is_eof_sent = true;
        cv_stream_eof(s->stream);
        close_if_done(s);
    }
}

static void on_conn_data(void *arg, uint8_t *data, size_t len)
{
    struct cv_splice *s = arg;
    size_t taken = 0;
    if (!s->stream)
        return;
    s->end.bytes_in += len;
    if (cv_buf_len(&s->held) == 0)
        taken = cv_stream_write(s->stream, cv_slice(data, len));
    if (taken == len)
        return;
    cv_conn_pause(s->conn);
    if (!cv_is_ok(cv_buf_append(&s->held, data + taken, len - taken)))
        fail(s, cv_status(CV_NO_RESOURCES));
}

static void on_conn_eof(void *arg)
{
    struct cv_splice *s = arg;
    s->has_conn_eof = true;
    pass_on_end(s);
}

static void on_stream_writable(void *arg)
{
    struct cv_splice *s = arg;
    if (cv_buf_len(&s->held)) {
        cv_buf_consume(&s->held, cv_stream_write(s->stream, cv_buf_slice(&s->held)));
        if (cv_buf_len(&s->held))
            return;
        cv_buf_shrink(&s->held, 0);
    }
    if (s->conn)
        cv_conn_resume(s->conn);
    pass_on_end(s);
}

/* ---- stream → connection ---- */

static void on_stream_data(void *arg, struct cv_slice data)
{
    struct cv_splice *s = arg;
    s->end.bytes_out += data.len;
    if (!s->conn) {
        cv_stream_consumed(s->stream, data.len);
        return;
    }
    struct cv_status status = cv_conn_write(s->conn, data.data, data.len);
    if (!cv_is_ok(status)) {
        fail(s, status);
        return;
    }
    if (cv_conn_is_congested(s->conn))
        s->owed += data.len;
    else
        cv_stream_consumed(s->stream, data.len);
}

static void on_conn_writable(void *arg)
{
    struct cv_splice *s = arg;
    size_t owed = s->owed;
    s->owed = 0;
    if (s->stream)
        cv_stream_consumed(s->stream, owed);
}

static void on_stream_eof(void *arg)
{
    struct cv_splice *s = arg;
    s->has_stream_eof = true;
    if (s->conn)
        cv_conn_shutdown_write(s->conn);
    close_if_done(s);
}

/* ---- ends ---- */

static void on_stream_closed(void *arg, struct cv_status why)
{
    struct cv_splice *s = arg;
    bool was_in_order = cv_is_ok(why) && s->has_stream_eof;
    s->stream = NULL;
    set_why(s, was_in_order ? cv_ok() : cv_is_ok(why) ? cv_status(CV_CANCELLED) : why);
    if (!s->conn)
        end_if_over(s);
    else if (!cv_is_ok(why))
        cv_conn_reset(s->conn); /* cut in the middle must not look like an end */
    else if (was_in_order || !s->is_cancel)
        cv_conn_close_after_flush(s->conn, FLUSH_MS);
    else
        cv_conn_close(s->conn, cv_status(CV_CANCELLED));
}

/* With bytes still held the stream goes on until they have gone (pass_on_end). */
static void on_conn_closed(void *arg, struct cv_status why, const struct cv_error *error)
{
    struct cv_splice *s = arg;
    (void)error;
    s->conn = NULL;
    set_why(s, why);
    if (s->stream)
        pass_on_end(s);
    else
        end_if_over(s);
}

static const struct cv_conn_ops conn_ops = {
    .on_data = on_conn_data,
    .on_eof = on_conn_eof,
    .on_writable = on_conn_writable,
    .on_closed = on_conn_closed,
};

static const struct cv_stream_ops stream_ops = {
    .on_data = on_stream_data,
    .on_eof = on_stream_eof,
    .on_writable = on_stream_writable,
    .on_closed = on_stream_closed,
};

/* ---- life ---- */

struct cv_status cv_splice_new(struct cv_conn *conn, struct cv_stream *stream, bool is_accepting,
                               cv_splice_on_end *on_end, void *arg, struct cv_splice **out)
{
    struct cv_splice *s = calloc(1, sizeof *s);
    *out = NULL;
    if (!s)
        return cv_status(CV_NO_MEMORY);
    *s = (struct cv_splice){
        .conn = conn, .stream = stream, .is_cancel = is_accepting, .on_end = on_end, .arg = arg};
    cv_buf_init(&s->held, HELD_MAX);
    cv_conn_set_marks(conn, OUT_LOW, OUT_HIGH, OUT_HIGH + cv_stream_window_max(stream));
    cv_conn_set_ops(conn, &conn_ops, s);
    if (is_accepting)
        cv_stream_accept(stream, &stream_ops, s);
    else
        cv_stream_set_ops(stream, &stream_ops, s);
    cv_conn_resume(conn);
    *out = s;
    return cv_ok();
}

void cv_splice_close(struct cv_splice *s)
{
    fail(s, cv_status(CV_CANCELLED));
}
