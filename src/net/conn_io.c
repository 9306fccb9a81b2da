/* SPDX-License-Identifier: MIT
 *
 * Happy path: poll says readable → conn_read → on_data …; appended output → settle at the end of
 * the turn → conn_write → blocked: wait for writable, settle again.
 *
 * Fails: a read error closes with it; a write error first delivers what the peer had sent before
 * (its reason for hanging up, often), then closes; both through conn_close_with, which settles.
 */
#include "net/conn_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <uv.h>

enum {
    RECORDS_PER_READ = 64,
    READS_PER_TURN = 4,
    /* Of what is only discarded: hundreds that send on behind a refusal do not hold up the rest. */
    LINGERING_READS_PER_TURN = 1,
    OUT_KEEP_BYTES = 4096, /* an idle connection holds no more than this */
};

/* --- callbacks that may end it ---
 *
 * A callback may move the connection to another thread, after which it must not be touched here.
 * The worker remembers which one it is busy with (callbacks never nest), and leaving the worker
 * clears that. */

static struct cv_worker *enter(struct cv_conn *conn)
{
    *cv_worker_busy_with(conn->worker) = conn;
    return conn->worker;
}

static bool is_here(struct cv_worker *worker, const struct cv_conn *conn)
{
    return *cv_worker_busy_with(worker) == conn;
}

static bool leave(struct cv_worker *worker, const struct cv_conn *conn)
{
    bool was_here = is_here(worker, conn);
    *cv_worker_busy_with(worker) = NULL;
    return was_here;
}

/* --- waiting --- */

static int wanted_events(const struct cv_conn *conn)
{
    int events = 0;
    bool may_read = !conn->has_eof && !conn->has_failed;
    switch ((enum conn_state)conn->fsm.state) {
    case CONN_HANDSHAKE:
        return conn->handshake_want == CV_TLS_WANT_WRITE ? UV_WRITABLE : UV_READABLE;
    case CONN_OPEN:
        if (may_read && !conn->is_paused)
            events |= UV_READABLE;
        else if (may_read && !conn->has_hangup)
            events |= UV_DISCONNECT;
        break;
    case CONN_LINGERING:
        if (may_read)
            events |= UV_READABLE;
        break;
    case CONN_DRAINING:
        break;
    case CONN_MOVING:
    case CONN_CLOSING:
        return 0;
    }
    if (conn->is_write_blocked || conn->read_wants_write)
        events |= UV_WRITABLE;
    if (conn->write_wants_read)
        events |= UV_READABLE;
    return events;
}

static void on_poll(uv_poll_t *handle, int status, int events);

static void arm(struct cv_conn *conn)
{
    int events = wanted_events(conn);
    if (events == conn->armed)
        return;
    conn->armed = events;
    if (events)
        uv_poll_start(conn->poll, events, on_poll);
    else
        uv_poll_stop(conn->poll);
}

static void on_poll_freed(uv_handle_t *handle)
{
    free(handle);
}

struct cv_status conn_poll_start(struct cv_conn *conn)
{
    uv_poll_t *poll = malloc(sizeof *poll);
    if (!poll)
        return cv_status(CV_NO_MEMORY);
    if (uv_poll_init(cv_worker_loop(conn->worker), poll, conn->fd) != 0) {
        free(poll);
        return cv_status(CV_NO_RESOURCES);
    }
    poll->data = conn;
    conn->poll = poll;
    conn->armed = 0;
    return cv_ok();
}

void conn_poll_stop(struct cv_conn *conn)
{
    if (!conn->poll)
        return;
    conn->poll->data = NULL;
    uv_poll_stop(conn->poll);
    uv_close((uv_handle_t *)conn->poll, on_poll_freed);
    conn->poll = NULL;
    conn->armed = 0;
}

/* --- reading --- */

/* Fills the buffer as far as the socket gives. *got bytes are there whatever the status is; the
 * status tells what comes behind them. */
static struct cv_status fill(struct cv_conn *conn, uint8_t *buf, size_t *got,
                             struct cv_error *error)
{
    *got = 0;
    if (!conn->tls) {
        ssize_t n;
        do
            n = recv(conn->fd, buf, CV_WORKER_READ_BUFFER_BYTES, 0);
        while (n < 0 && errno == EINTR);
        if (n == 0)
            return cv_status(CV_EOF);
        if (n < 0 && errno == EAGAIN)
            return cv_status(CV_AGAIN);
        if (n < 0)
            return cv_fail_errno(error, cv_status_from_errno(errno), errno, "read");
        *got = (size_t)n;
        return cv_status(*got < CV_WORKER_READ_BUFFER_BYTES ? CV_AGAIN : CV_OK);
    }
    conn->read_wants_write = false;
    /* Records may hold a byte each: filling the buffer with those would hold the loop. */
    for (int i = 0; i < RECORDS_PER_READ && *got < CV_WORKER_READ_BUFFER_BYTES; i++) {
        size_t n = 0;
        enum cv_tls_want want;
        struct cv_status status = cv_tls_read(conn->tls, buf + *got,
                                              CV_WORKER_READ_BUFFER_BYTES - *got, &n, &want, error);
        if (!cv_is_ok(status)) {
            conn->read_wants_write = want == CV_TLS_WANT_WRITE;
            return status;
        }
        *got += n;
    }
    return cv_ok();
}

static bool is_reading(const struct cv_conn *conn)
{
    return (conn_is(conn, CONN_OPEN) && !conn->is_paused && !conn->has_eof) ||
           (conn_is(conn, CONN_LINGERING) && !conn->has_eof);
}

static void take_eof(struct cv_conn *conn)
{
    conn->has_eof = true;
    if (conn->has_failed)
        conn_close_with(conn, conn->why, NULL);
    else if (conn_is(conn, CONN_LINGERING) && conn->is_write_shut)
        conn_close_with(conn, cv_ok(), NULL);
    else if (conn_is(conn, CONN_OPEN) && conn->ops->on_eof)
        conn->ops->on_eof(conn->arg);
}

/* Reads and delivers, a bounded amount. The connection may be gone afterwards: see is_here. */
static void conn_read(struct cv_conn *conn)
{
    struct cv_worker *worker = conn->worker;
    uint8_t *buf = cv_worker_read_buffer(conn->worker);
    int reads = conn_is(conn, CONN_LINGERING) ? LINGERING_READS_PER_TURN : READS_PER_TURN;
    for (int i = 0; i < reads && is_reading(conn); i++) {
        size_t got;
        struct cv_error error = {0};
        struct cv_status status = fill(conn, buf, &got, &error);
        conn->bytes_in += got;
        if (got && conn_is(conn, CONN_OPEN)) {
            conn->ops->on_data(conn->arg, buf, got);
            /* What came behind the bytes is still there for whoever reads next. */
            if (!is_here(worker, conn) || !is_reading(conn))
                return;
        }
        if (status.id == CV_OK)
            continue;
        if (status.id == CV_EOF)
            take_eof(conn);
        else if (status.id != CV_AGAIN)
            conn_close_with(conn, conn->has_failed ? conn->why : status, &error);
        else if (conn->has_failed)
            conn_close_with(conn, conn->why, NULL);
        return;
    }
    /* The socket may be empty already while the TLS layer, or a failed connection, is not. */
    if (is_reading(conn) && (conn->has_failed || (conn->tls && cv_tls_has_pending(conn->tls))))
        cv_worker_defer_next(conn->worker, &conn->again);
}

/* --- writing --- */

static void write_failed(struct cv_conn *conn, struct cv_status why, const struct cv_error *error)
{
    cv_buf_done(&conn->out);
    conn->is_write_blocked = conn->write_wants_read = false;
    if (!conn_is(conn, CONN_OPEN) || conn->has_eof) {
        conn_close_with(conn, why, error);
        return;
    }
    conn->has_failed = true;
    conn->why = why;
    conn->error = *error;
    if (!conn->is_paused) {
        conn_read(conn);
    } else if (!conn->has_hangup) {
        conn->has_hangup = true;
        if (conn->ops->on_hangup)
            conn->ops->on_hangup(conn->arg);
    }
}

static struct cv_status write_some(struct cv_conn *conn, size_t *put, struct cv_error *error)
{
    size_t len = cv_buf_len(&conn->out);
    if (conn->tls) {
        enum cv_tls_want want;
        struct cv_status status =
            cv_tls_write(conn->tls, cv_buf_head(&conn->out), len, put, &want, error);
        conn->is_write_blocked = want == CV_TLS_WANT_WRITE;
        conn->write_wants_read = want == CV_TLS_WANT_READ;
        return status;
    }
    ssize_t n;
    do
        n = send(conn->fd, cv_buf_head(&conn->out), len, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    if (n < 0 && errno != EAGAIN)
        return cv_fail_errno(error, cv_status_from_errno(errno), errno, "write");
    conn->is_write_blocked = n < (ssize_t)len;
    if (n < 0)
        return cv_status(CV_AGAIN);
    *put = (size_t)n;
    return cv_ok();
}

/* FIN, behind close_notify. A close_notify that does not fit into the socket waits; one that fails
 * is no loss, since the bytes before it have been taken by the kernel. */
static void shut_write(struct cv_conn *conn)
{
    if (conn->is_write_shut)
        return;
    if (conn->tls) {
        enum cv_tls_want want;
        if (cv_tls_shutdown(conn->tls, &want).id == CV_AGAIN && want == CV_TLS_WANT_WRITE) {
            conn->is_write_blocked = true;
            return;
        }
    }
    conn->is_write_shut = true;
    (void)shutdown(conn->fd, SHUT_WR);
}

/* All is written: what was waiting for that? */
static void written(struct cv_conn *conn)
{
    if (conn->linger_ms) {
        (void)cv_worker_timer_start(conn->worker, &conn->timer, conn->linger_ms);
        conn->linger_ms = 0;
    }
    cv_buf_shrink(&conn->out, OUT_KEEP_BYTES);
    if (conn->is_shutdown_wanted || !conn_is(conn, CONN_OPEN))
        shut_write(conn);
    if (!conn->is_write_shut)
        return;
    if (conn_is(conn, CONN_DRAINING) || (conn_is(conn, CONN_LINGERING) && conn->has_eof))
        conn_close_with(conn, cv_ok(), NULL);
}

static void conn_write(struct cv_conn *conn)
{
    while (cv_buf_len(&conn->out) && !conn->is_write_blocked && !conn->write_wants_read) {
        struct cv_error error = {0};
        size_t put = 0;
        struct cv_status status = write_some(conn, &put, &error);
        if (status.id == CV_AGAIN)
            break;
        if (!cv_is_ok(status)) {
            write_failed(conn, status, &error);
            return;
        }
        cv_buf_consume(&conn->out, put);
        conn->bytes_out += put;
    }
    if (cv_buf_len(&conn->out) == 0 && !conn->is_write_blocked)
        written(conn);
    if (conn->is_congested && cv_buf_len(&conn->out) <= conn->low) {
        conn->is_congested = false;
        if (conn_is(conn, CONN_OPEN) && conn->ops->on_writable)
            conn->ops->on_writable(conn->arg);
    }
}

/* --- the loop's side --- */

static void handshake(struct cv_conn *conn)
{
    struct cv_error error = {0};
    if (!cv_worker_has_time(conn->worker)) {
        /* Polling tells again, next turn: of a socket that can be written, at once. */
        if (conn->handshake_want == CV_TLS_WANT_NOTHING)
            conn->handshake_want = CV_TLS_WANT_WRITE;
        return;
    }
    uint64_t begin_ns = cv_worker_now_ns(conn->worker);
    struct cv_status status = cv_tls_handshake(conn->tls, &conn->handshake_want, &error);
    cv_worker_spend(conn->worker, cv_worker_now_ns(conn->worker) - begin_ns);
    if (status.id == CV_AGAIN)
        return;
    if (!cv_is_ok(status)) {
        conn_close_with(conn, status, &error);
        return;
    }
    cv_worker_timer_stop(conn->worker, &conn->timer);
    conn->is_handshake_done = true;
    cv_fsm_set(&conn->fsm, CONN_OPEN);
    /* Bytes may have come together with the end of the handshake. */
    cv_worker_defer_next(conn->worker, &conn->again);
    if (conn->ops->on_open)
        conn->ops->on_open(conn->arg);
}

static void hang_up(struct cv_conn *conn)
{
    if (!conn_is(conn, CONN_OPEN) || !conn->is_paused || conn->has_hangup)
        return;
    conn->has_hangup = true;
    if (conn->ops->on_hangup)
        conn->ops->on_hangup(conn->arg);
}

static void on_poll(uv_poll_t *handle, int status, int events)
{
    struct cv_conn *conn = handle->data;
    if (!conn)
        return;
    struct cv_worker *worker = enter(conn);
    if (status < 0) {
        /* The socket has an error, and libuv has stopped polling: reading or writing tells which.
         */
        conn->armed = 0;
        events = UV_READABLE | UV_WRITABLE | UV_DISCONNECT;
    }
    if (events & UV_WRITABLE)
        conn->is_write_blocked = false;
    bool may_read = (events & UV_READABLE) || (conn->read_wants_write && (events & UV_WRITABLE));
    if (events & UV_READABLE)
        conn->write_wants_read = false;
    if (conn_is(conn, CONN_HANDSHAKE)) {
        handshake(conn);
    } else {
        if (events & UV_DISCONNECT)
            hang_up(conn);
        if (is_here(worker, conn) && may_read && is_reading(conn))
            conn_read(conn);
    }
    if (!leave(worker, conn))
        return;
    conn_touch(conn);
}

void conn_on_again(void *arg)
{
    struct cv_conn *conn = arg;
    struct cv_worker *worker = enter(conn);
    if (is_reading(conn))
        conn_read(conn);
    if (!leave(worker, conn))
        return;
    conn_touch(conn);
}

void conn_on_settle(void *arg)
{
    struct cv_conn *conn = arg;
    if (conn_is(conn, CONN_CLOSING)) {
        conn_finish(conn);
        return;
    }
    struct cv_worker *worker = enter(conn);
    if (conn_is(conn, CONN_HANDSHAKE) && conn->handshake_want == CV_TLS_WANT_NOTHING)
        handshake(conn);
    /* A failed connection is read, no longer written. */
    if (is_here(worker, conn) && !conn_is(conn, CONN_HANDSHAKE) && !conn_is(conn, CONN_CLOSING)) {
        if (conn->has_failed)
            cv_buf_done(&conn->out);
        else
            conn_write(conn);
    }
    if (!leave(worker, conn))
        return;
    arm(conn);
}
