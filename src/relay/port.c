/* SPDX-License-Identifier: MIT */
#include "relay/port.h"

#include "net/conn.h"
#include "transport/link.h"

#include <unistd.h>

enum {
    PORT_LOW = 64 * 1024,
    PORT_HIGH = 256 * 1024,
    PORT_LINGER_MS = 2000,
};

/* ---- socket ---- */

static void on_conn_data(void *arg, uint8_t *data, size_t len)
{
    struct cv_port *port = arg;
    port->ops->on_data(port->arg, data, len);
}

static void on_conn_eof(void *arg)
{
    struct cv_port *port = arg;
    port->ops->on_eof(port->arg);
}

static void on_conn_writable(void *arg)
{
    struct cv_port *port = arg;
    port->ops->on_writable(port->arg);
}

static void on_conn_closed(void *arg, struct cv_status why, const struct cv_error *error)
{
    struct cv_port *port = arg;
    (void)why;
    (void)error;
    port->conn = NULL;
    port->is_closed = true;
    port->ops->on_closed(port->arg);
}

static const struct cv_conn_ops conn_ops = {
    .on_data = on_conn_data,
    .on_eof = on_conn_eof,
    .on_hangup = on_conn_eof,
    .on_writable = on_conn_writable,
    .on_closed = on_conn_closed,
};

struct cv_status cv_port_open_socket(struct cv_port *port, struct cv_worker *worker, int fd,
                                     struct cv_tls_server *tls, uint64_t handshake_timeout_ms,
                                     size_t out_cap, const struct cv_port_ops *ops, void *arg)
{
    struct cv_tls_session *session = NULL;
    struct cv_error error;
    *port = (struct cv_port){.worker = worker, .ops = ops, .arg = arg};
    if (tls) {
        struct cv_status status = cv_tls_server_session(tls, fd, &session, &error);
        if (!cv_is_ok(status)) {
            (void)close(fd);
            return status;
        }
    }
    CV_RETURN_IF_ERROR(cv_conn_new(worker, fd, session, &conn_ops, port, &port->conn, &error));
    if (tls)
        cv_conn_set_handshake_timeout(port->conn, handshake_timeout_ms);
    cv_conn_set_marks(port->conn, PORT_LOW, PORT_HIGH, out_cap);
    return cv_ok();
}

void cv_port_adopt(struct cv_port *port, struct cv_worker *worker, struct cv_conn *conn,
                   size_t out_cap, const struct cv_port_ops *ops, void *arg)
{
    *port = (struct cv_port){.worker = worker, .conn = conn, .ops = ops, .arg = arg};
    cv_conn_set_ops(conn, &conn_ops, port);
    cv_conn_set_marks(conn, PORT_LOW, PORT_HIGH, out_cap);
    cv_conn_resume(conn);
}

/* ---- stream ---- */

static void close_stream(struct cv_port *port)
{
    if (port->stream)
        cv_stream_close(port->stream);
    port->stream = NULL;
}

static void end_stream(struct cv_port *port)
{
    if (port->is_closed)
        return;
    port->is_closed = true;
    close_stream(port);
    cv_defer_cancel(&port->flush);
    cv_worker_timer_stop(port->worker, &port->stall);
    cv_buf_done(&port->out);
    port->ops->on_closed(port->arg);
}

static void on_flush(void *arg)
{
    struct cv_port *port = arg;
    struct cv_slice rest = cv_buf_slice(&port->out);
    if (port->stream && rest.len)
        cv_buf_consume(&port->out, cv_stream_write(port->stream, rest));
    size_t left = cv_buf_len(&port->out);
    if (port->is_ending && (left == 0 || !port->stream)) {
        end_stream(port);
        return;
    }
    if (left > PORT_HIGH) {
        port->is_congested = true;
    } else if (port->is_congested && left <= PORT_LOW) {
        port->is_congested = false;
        port->ops->on_writable(port->arg);
    }
}

static void on_stall(void *arg)
{
    struct cv_port *port = arg;
    size_t left = cv_buf_len(&port->out);
    if (left == port->stalled_at ||
        !cv_is_ok(cv_worker_timer_start(port->worker, &port->stall, port->stall_ms))) {
        end_stream(port);
        return;
    }
    port->stalled_at = left;
}

static void on_stream_data(void *arg, struct cv_slice data)
{
    struct cv_port *port = arg;
    if (port->is_ending) {
        cv_stream_consumed(port->stream, data.len);
        return;
    }
    port->unread += data.len;
    /* The engine below hands out what was fed to it, which may be changed. */
    port->ops->on_data(port->arg, (uint8_t *)(uintptr_t)data.data, data.len);
    if (port->stream && !port->is_paused) {
        cv_stream_consumed(port->stream, port->unread);
        port->unread = 0;
    }
}

static void on_stream_eof(void *arg)
{
    struct cv_port *port = arg;
    if (!port->is_ending)
        port->ops->on_eof(port->arg);
}

static void on_stream_closed(void *arg, struct cv_status why)
{
    struct cv_port *port = arg;
    (void)why;
    port->stream = NULL;
    end_stream(port);
}

static const struct cv_stream_ops stream_ops = {
    .on_data = on_stream_data,
    .on_eof = on_stream_eof,
    .on_writable = on_flush,
    .on_closed = on_stream_closed,
};

void cv_port_open_stream(struct cv_port *port, struct cv_worker *worker, struct cv_stream *stream,
                         size_t out_cap, const struct cv_port_ops *ops, void *arg)
{
    *port = (struct cv_port){.worker = worker, .stream = stream, .ops = ops, .arg = arg};
    cv_buf_init(&port->out, out_cap);
    cv_defer_init(&port->flush, on_flush, port);
    cv_timer_init(&port->stall, on_stall, port);
    cv_stream_accept(stream, &stream_ops, port);
}

/* ---- both ---- */

struct cv_buf *cv_port_out(struct cv_port *port)
{
    return port->conn ? cv_conn_out(port->conn) : &port->out;
}

void cv_port_flush(struct cv_port *port)
{
    if (port->conn)
        cv_conn_flush(port->conn);
    else if (!port->is_closed)
        cv_worker_defer(port->worker, &port->flush);
}

bool cv_port_is_congested(struct cv_port *port)
{
    if (port->conn)
        return cv_conn_is_congested(port->conn);
    if (cv_buf_len(&port->out) > PORT_HIGH)
        port->is_congested = true;
    return port->is_congested;
}

void cv_port_pause(struct cv_port *port)
{
    port->is_paused = true;
    if (port->conn)
        cv_conn_pause(port->conn);
}

void cv_port_resume(struct cv_port *port)
{
    port->is_paused = false;
    if (port->conn) {
        cv_conn_resume(port->conn);
    } else if (port->stream && port->unread) {
        cv_stream_consumed(port->stream, port->unread);
        port->unread = 0;
    }
}

bool cv_port_is_tls(const struct cv_port *port)
{
    return port->conn && (port->is_secure || cv_conn_is_tls(port->conn));
}

bool cv_port_is_socket(const struct cv_port *port)
{
    return port->conn != NULL;
}

uint64_t cv_port_progress(const struct cv_port *port)
{
    return port->conn ? cv_conn_progress(port->conn) : cv_buf_len(&port->out);
}

void cv_port_close_gently(struct cv_port *port, uint64_t stall_ms)
{
    port->is_ending = true;
    if (port->conn) {
        cv_conn_close_patiently(port->conn, stall_ms, PORT_LINGER_MS);
        return;
    }
    port->stall_ms = stall_ms;
    port->stalled_at = cv_buf_len(&port->out);
    if (!port->is_closed)
        (void)cv_worker_timer_start(port->worker, &port->stall, stall_ms);
    cv_port_resume(port);
    cv_port_flush(port);
}

void cv_port_abort(struct cv_port *port)
{
    port->is_ending = true;
    if (port->conn) {
        cv_conn_reset(port->conn);
        return;
    }
    close_stream(port);
    cv_port_flush(port);
}

struct cv_status cv_port_detach(struct cv_port *port)
{
    if (!port->conn)
        return cv_status(CV_INVALID);
    return cv_conn_detach(port->conn);
}

struct cv_status cv_port_attach(struct cv_port *port, struct cv_worker *worker)
{
    port->worker = worker;
    return cv_conn_attach(port->conn, worker, &conn_ops, port);
}

struct cv_conn *cv_port_take_conn(struct cv_port *port)
{
    struct cv_conn *conn = port->conn;
    port->conn = NULL;
    port->is_closed = true;
    return conn;
}
