/* SPDX-License-Identifier: MIT
 *
 * Happy path: new → (handshake) → open → close_… → closing → settle → finish → on_closed, freed.
 * Fails: whatever ends it early goes through conn_close_with; the first reason is kept.
 */
#include "net/conn.h"

#include "net/conn_priv.h"

#include <assert.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    OUT_LOW_BYTES = 64 * 1024,
    OUT_HIGH_BYTES = 256 * 1024,
    OUT_CAP_BYTES = 1024 * 1024,
};

static const char *const state_names[] = {"handshake", "open",   "draining",
                                          "lingering", "moving", "closing"};
static const struct cv_fsm_step steps[] = {
    {CONN_HANDSHAKE, CONN_OPEN, "TLS stands"},
    {CONN_HANDSHAKE, CONN_MOVING, "detached"},
    {CONN_HANDSHAKE, CONN_CLOSING, "handshake failed or timed out, or closed"},
    {CONN_OPEN, CONN_HANDSHAKE, "cv_conn_start_tls"},
    {CONN_OPEN, CONN_DRAINING, "cv_conn_close_after_flush"},
    {CONN_OPEN, CONN_LINGERING, "cv_conn_close_lingering"},
    {CONN_OPEN, CONN_MOVING, "detached"},
    {CONN_OPEN, CONN_CLOSING, "closed, reset, or broken"},
    {CONN_DRAINING, CONN_CLOSING, "all is written, broken, or time over"},
    {CONN_LINGERING, CONN_CLOSING, "the peer closed too, broken, or time over"},
    {CONN_MOVING, CONN_HANDSHAKE, "attached in its handshake"},
    {CONN_MOVING, CONN_OPEN, "attached"},
};
const struct cv_fsm_def cv_conn_states = {
    .name = "connection", .states = state_names, .count = 6, CV_FSM_STEPS(steps)};

/* --- life --- */

static void on_worker_stop(void *arg)
{
    cv_conn_close(arg, cv_status(CV_SHUTTING_DOWN));
}

static void on_timer(void *arg)
{
    struct cv_conn *conn = arg;
    uint64_t progress = cv_conn_progress(conn);
    if (progress - conn->slow_progress >= CONN_SLOW_BYTES) {
        conn->slow_progress = progress;
        conn->slow_times = 0;
    }
    if (conn_is(conn, CONN_LINGERING) && conn->linger_ms && progress != conn->progress &&
        ++conn->slow_times <= CONN_SLOW_TIMES) {
        conn->progress = progress;
        if (cv_is_ok(cv_worker_timer_start(conn->worker, &conn->timer, conn->stall_ms)))
            return;
    }
    bool is_sent = conn_is(conn, CONN_LINGERING) && cv_buf_len(&conn->out) == 0;
    cv_conn_close(conn, cv_status(is_sent ? CV_OK : CV_CONN_TIMEOUT));
}

static void free_memory(struct cv_conn *conn)
{
    cv_tls_session_free(&conn->tls);
    if (conn->fd >= 0)
        (void)close(conn->fd);
    conn->fd = -1;
    cv_buf_done(&conn->out);
}

struct cv_status cv_conn_new(struct cv_worker *worker, int fd, struct cv_tls_session *tls,
                             const struct cv_conn_ops *ops, void *arg, struct cv_conn **out,
                             struct cv_error *error)
{
    *out = NULL;
    struct cv_conn *conn = calloc(1, sizeof *conn);
    if (!conn) {
        cv_tls_session_free(&tls);
        (void)close(fd);
        return cv_fail(error, CV_NO_MEMORY, "no memory for a connection");
    }
    conn->worker = worker;
    conn->fd = fd;
    conn->tls = tls;
    conn->ops = ops;
    conn->arg = arg;
    conn->low = OUT_LOW_BYTES;
    conn->high = OUT_HIGH_BYTES;
    cv_buf_init(&conn->out, OUT_CAP_BYTES);
    conn->fsm = (struct cv_fsm){.def = &cv_conn_states, .state = tls ? CONN_HANDSHAKE : CONN_OPEN};
    cv_defer_init(&conn->settle, conn_on_settle, conn);
    cv_defer_init(&conn->again, conn_on_again, conn);
    cv_timer_init(&conn->timer, on_timer, conn);
    struct cv_status status = conn_poll_start(conn);
    if (!cv_is_ok(status)) {
        free_memory(conn);
        free(conn);
        return cv_fail(error, status.id, "connection cannot be polled");
    }
    cv_worker_item_add(worker, &conn->item, on_worker_stop, conn);
    conn_touch(conn);
    *out = conn;
    return cv_ok();
}

/* Off the worker: no callback of the loop can reach it from here on. */
static void leave_worker(struct cv_conn *conn)
{
    conn_poll_stop(conn);
    cv_defer_cancel(&conn->settle);
    cv_defer_cancel(&conn->again);
    cv_worker_timer_stop(conn->worker, &conn->timer);
    cv_worker_item_remove(conn->worker, &conn->item);
    void **busy_with = cv_worker_busy_with(conn->worker);
    if (*busy_with == conn)
        *busy_with = NULL;
}

void conn_finish(struct cv_conn *conn)
{
    leave_worker(conn);
    free_memory(conn);
    conn->ops->on_closed(conn->arg, conn->why, &conn->error);
    free(conn);
}

void conn_close_with(struct cv_conn *conn, struct cv_status why, const struct cv_error *error)
{
    if (conn_is(conn, CONN_CLOSING) || conn_is(conn, CONN_MOVING))
        return;
    if (!conn->has_failed || why.id != conn->why.id) {
        conn->error = error ? *error : (struct cv_error){.id = why.id};
        conn->why = why;
    }
    cv_fsm_set(&conn->fsm, CONN_CLOSING);
    conn_touch(conn);
}

void cv_conn_close(struct cv_conn *conn, struct cv_status why)
{
    conn_close_with(conn, why, NULL);
}

static void close_in_time(struct cv_conn *conn, enum conn_state state, uint64_t timeout_ms)
{
    if (conn_is(conn, CONN_HANDSHAKE) || conn->has_failed) {
        /* Nothing can be written any more, or yet. */
        conn_close_with(conn, conn->has_failed ? conn->why : cv_status(CV_CANCELLED), NULL);
        return;
    }
    if (!conn_is(conn, CONN_OPEN))
        return;
    struct cv_status status = cv_worker_timer_start(conn->worker, &conn->timer, timeout_ms);
    if (!cv_is_ok(status)) {
        conn_close_with(conn, status, NULL);
        return;
    }
    cv_fsm_set(&conn->fsm, state);
    conn_touch(conn);
    /* Lingering discards what TLS holds already, too. */
    if (state == CONN_LINGERING && conn->tls)
        cv_worker_defer_next(conn->worker, &conn->again);
}

void cv_conn_reset(struct cv_conn *conn)
{
    struct linger now = {.l_onoff = 1, .l_linger = 0};
    if (conn_is(conn, CONN_CLOSING))
        return;
    (void)setsockopt(conn->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    cv_conn_close(conn, cv_status(CV_CONN_RESET));
}

void cv_conn_close_after_flush(struct cv_conn *conn, uint64_t timeout_ms)
{
    close_in_time(conn, CONN_DRAINING, timeout_ms);
}

void cv_conn_close_lingering(struct cv_conn *conn, uint64_t timeout_ms)
{
    close_in_time(conn, CONN_LINGERING, timeout_ms);
}

void cv_conn_close_patiently(struct cv_conn *conn, uint64_t stall_ms, uint64_t linger_ms)
{
    if (conn_is(conn, CONN_OPEN)) {
        conn->stall_ms = stall_ms;
        conn->linger_ms = linger_ms;
        conn->progress = conn->slow_progress = cv_conn_progress(conn);
    }
    close_in_time(conn, CONN_LINGERING, stall_ms);
}

void cv_conn_set_handshake_timeout(struct cv_conn *conn, uint64_t timeout_ms)
{
    if (!conn_is(conn, CONN_HANDSHAKE))
        return;
    struct cv_status status = cv_worker_timer_start(conn->worker, &conn->timer, timeout_ms);
    if (!cv_is_ok(status))
        conn_close_with(conn, status, NULL);
}

struct cv_status cv_conn_start_tls(struct cv_conn *conn, struct cv_tls_session *tls)
{
    if (!conn_is(conn, CONN_OPEN) || conn->tls || cv_buf_len(&conn->out) || conn->has_failed) {
        cv_tls_session_free(&tls);
        return cv_status(CV_INVALID);
    }
    conn->tls = tls;
    conn->handshake_want = CV_TLS_WANT_NOTHING;
    cv_fsm_set(&conn->fsm, CONN_HANDSHAKE);
    conn_touch(conn);
    return cv_ok();
}

void cv_conn_set_ops(struct cv_conn *conn, const struct cv_conn_ops *ops, void *arg)
{
    conn->ops = ops;
    conn->arg = arg;
}

static void ignore_data(void *arg, uint8_t *data, size_t len)
{
    (void)arg;
    (void)data;
    (void)len;
}

static void ignore_closed(void *arg, struct cv_status why, const struct cv_error *error)
{
    (void)arg;
    (void)why;
    (void)error;
}

void cv_conn_disown(struct cv_conn *conn)
{
    static const struct cv_conn_ops nobody = {.on_data = ignore_data, .on_closed = ignore_closed};
    cv_conn_set_ops(conn, &nobody, NULL);
}

/* --- moving --- */

struct cv_status cv_conn_detach(struct cv_conn *conn)
{
    if (!conn->worker || (!conn_is(conn, CONN_OPEN) && !conn_is(conn, CONN_HANDSHAKE)))
        return cv_status(CV_INVALID);
    leave_worker(conn);
    cv_fsm_set(&conn->fsm, CONN_MOVING);
    conn->worker = NULL;
    return cv_ok();
}

struct cv_status cv_conn_attach(struct cv_conn *conn, struct cv_worker *worker,
                                const struct cv_conn_ops *ops, void *arg)
{
    assert(conn_is(conn, CONN_MOVING));
    if (cv_worker_is_stopping(worker))
        return cv_status(CV_SHUTTING_DOWN);
    conn->worker = worker;
    struct cv_status status = conn_poll_start(conn);
    if (!cv_is_ok(status)) {
        conn->worker = NULL;
        return status;
    }
    conn->ops = ops;
    conn->arg = arg;
    /* What blocked on the old loop is tried again here. */
    conn->is_write_blocked = conn->write_wants_read = conn->read_wants_write = false;
    conn->handshake_want = CV_TLS_WANT_NOTHING;
    cv_fsm_set(&conn->fsm, conn->tls && !conn->is_handshake_done ? CONN_HANDSHAKE : CONN_OPEN);
    cv_worker_item_add(worker, &conn->item, on_worker_stop, conn);
    cv_worker_defer_next(worker, &conn->again);
    conn_touch(conn);
    return cv_ok();
}

void cv_conn_discard(struct cv_conn *conn)
{
    assert(conn_is(conn, CONN_MOVING));
    free_memory(conn);
    free(conn);
}

/* --- output --- */

struct cv_buf *cv_conn_out(struct cv_conn *conn)
{
    return &conn->out;
}

void cv_conn_flush(struct cv_conn *conn)
{
    if (conn->is_shutdown_wanted && conn->is_write_shut)
        cv_buf_done(&conn->out);
    if (cv_buf_len(&conn->out) > conn->high)
        conn->is_congested = true;
    conn_touch(conn);
}

struct cv_status cv_conn_write(struct cv_conn *conn, const void *data, size_t len)
{
    if (cv_conn_is_closing(conn) || conn->is_shutdown_wanted || conn->has_failed)
        return cv_ok();
    CV_RETURN_IF_ERROR(cv_buf_append(&conn->out, data, len));
    cv_conn_flush(conn);
    return cv_ok();
}

bool cv_conn_is_congested(struct cv_conn *conn)
{
    if (cv_buf_len(&conn->out) > conn->high && !conn->is_congested) {
        conn->is_congested = true;
        conn_touch(conn);
    }
    return conn->is_congested;
}

size_t cv_conn_room(const struct cv_conn *conn)
{
    return cv_buf_room(&conn->out);
}

void cv_conn_set_marks(struct cv_conn *conn, size_t low, size_t high, size_t cap)
{
    assert(low < high && high <= cap);
    conn->low = low;
    conn->high = high;
    conn->out.cap = cap > cv_buf_len(&conn->out) ? cap : cv_buf_len(&conn->out);
}

void cv_conn_shutdown_write(struct cv_conn *conn)
{
    conn->is_shutdown_wanted = true;
    conn_touch(conn);
}

/* --- input --- */

void cv_conn_pause(struct cv_conn *conn)
{
    if (conn->is_paused)
        return;
    conn->is_paused = true;
    conn_touch(conn);
}

void cv_conn_resume(struct cv_conn *conn)
{
    if (!conn->is_paused)
        return;
    conn->is_paused = false;
    conn_touch(conn);
    /* Bytes inside the TLS layer are not announced by the socket; a failed one is not polled. */
    if (conn->worker && (conn->tls || conn->has_failed))
        cv_worker_defer_next(conn->worker, &conn->again);
}

bool cv_conn_is_paused(const struct cv_conn *conn)
{
    return conn->is_paused;
}

/* --- facts and options --- */

int cv_conn_fd(const struct cv_conn *conn)
{
    return conn->fd;
}

struct cv_worker *cv_conn_worker(const struct cv_conn *conn)
{
    return conn->worker;
}

/* Few ask, and each answer is a system call. */
static const struct cv_addr *address(const struct cv_conn *conn, struct cv_addr *addr,
                                     int (*get_name)(int, struct sockaddr *, socklen_t *))
{
    struct sockaddr_storage name;
    socklen_t len = sizeof name;
    if (addr->len == 0 && get_name(conn->fd, (struct sockaddr *)&name, &len) == 0)
        (void)cv_addr_from_sockaddr(addr, (struct sockaddr *)&name, len);
    return addr;
}

const struct cv_addr *cv_conn_peer_addr(struct cv_conn *conn)
{
    return address(conn, &conn->peer, getpeername);
}

const struct cv_addr *cv_conn_local_addr(struct cv_conn *conn)
{
    return address(conn, &conn->local, getsockname);
}

bool cv_conn_is_tls(const struct cv_conn *conn)
{
    return conn->tls != NULL;
}

bool cv_conn_is_closing(const struct cv_conn *conn)
{
    return conn_is(conn, CONN_DRAINING) || conn_is(conn, CONN_LINGERING) ||
           conn_is(conn, CONN_CLOSING);
}

uint64_t cv_conn_bytes_in(const struct cv_conn *conn)
{
    return conn->bytes_in;
}

uint64_t cv_conn_bytes_out(const struct cv_conn *conn)
{
    return conn->bytes_out;
}

uint64_t cv_conn_progress(const struct cv_conn *conn)
{
    int queued = 0;
    if (ioctl(conn->fd, SIOCOUTQ, &queued) != 0)
        queued = 0;
    return conn->bytes_out - (uint64_t)queued;
}

uint32_t cv_conn_rtt_us(const struct cv_conn *conn)
{
    struct tcp_info info = {0};
    socklen_t len = sizeof info;
    if (getsockopt(conn->fd, IPPROTO_TCP, TCP_INFO, &info, &len) != 0)
        return 0;
    return info.tcpi_rtt;
}

void cv_conn_set_notsent_lowat(struct cv_conn *conn, uint32_t bytes)
{
    (void)setsockopt(conn->fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &bytes, sizeof bytes);
}

void cv_conn_set_user_timeout(struct cv_conn *conn, uint32_t timeout_ms)
{
    (void)setsockopt(conn->fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout_ms, sizeof timeout_ms);
}
