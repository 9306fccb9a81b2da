/* SPDX-License-Identifier: MIT
 *
 * The byte pipe under a consumer: a socket, or a stream of a link. One face, so that the HTTP
 * engine above does not know which. Bytes to send are appended to one buffer and leave at the end
 * of the loop turn.
 *
 * Owns what it was opened on. Own worker; a socket can be moved.
 */
#ifndef CV_RELAY_PORT_H
#define CV_RELAY_PORT_H

#include "base/buf.h"
#include "net/addr.h"
#include "net/worker.h"

struct cv_conn;
struct cv_stream;
struct cv_tls_server;

/* All come from the loop, never from inside a call. */
struct cv_port_ops {
    void (*on_data)(void *arg, uint8_t *data, size_t len); /* take all of it */
    void (*on_eof)(void *arg);      /* the peer sends no more, or went away */
    void (*on_writable)(void *arg); /* after having been congested */
    void (*on_closed)(void *arg);   /* the last one; exactly once */
};

struct cv_port {
    struct cv_worker *worker;
    struct cv_conn *conn; /* one of the two */
    struct cv_stream *stream;
    const struct cv_port_ops *ops;
    void *arg;
    struct cv_buf out; /* streams only */
    struct cv_defer flush;
    struct cv_timer stall; /* streams: ending, and the peer takes nothing */
    uint64_t stall_ms;
    size_t stalled_at;
    size_t unread;  /* streams: bytes taken while paused, whose window is not given back */
    bool is_secure; /* sockets: TLS ends elsewhere in front of it */
    bool is_paused, is_congested, is_ending, is_closed;
};

/* Takes `fd`, also on failure; `tls` NULL: plain. `out_cap`: the most that may wait to be sent. */
struct cv_status cv_port_open_socket(struct cv_port *port, struct cv_worker *worker, int fd,
                                     struct cv_tls_server *tls, uint64_t handshake_timeout_ms,
                                     size_t out_cap, const struct cv_port_ops *ops, void *arg);
/* Takes a connection that is open already. */
void cv_port_adopt(struct cv_port *port, struct cv_worker *worker, struct cv_conn *conn,
                   size_t out_cap, const struct cv_port_ops *ops, void *arg);
/* Accepts the stream. */
void cv_port_open_stream(struct cv_port *port, struct cv_worker *worker, struct cv_stream *stream,
                         size_t out_cap, const struct cv_port_ops *ops, void *arg);

struct cv_buf *cv_port_out(struct cv_port *port);
void cv_port_flush(struct cv_port *port);
bool cv_port_is_congested(struct cv_port *port);
/* Changes whenever the peer has taken something. */
uint64_t cv_port_progress(const struct cv_port *port);
void cv_port_pause(struct cv_port *port);
void cv_port_resume(struct cv_port *port);
bool cv_port_is_tls(const struct cv_port *port);
bool cv_port_is_socket(const struct cv_port *port);

/* Sends what is there, however long that takes as long as the peer takes some every `stall_ms`;
 * drops what still comes; closes. on_closed follows. */
void cv_port_close_gently(struct cv_port *port, uint64_t stall_ms);
/* Now; what was not sent is dropped and, where the transport can say so, the peer sees that it was
 * cut. on_closed follows. */
void cv_port_abort(struct cv_port *port);

/* Sockets. Off this worker, from inside any callback; then on the other one. CV_INVALID: it stays.
 */
struct cv_status cv_port_detach(struct cv_port *port);
struct cv_status cv_port_attach(struct cv_port *port, struct cv_worker *worker);
/* Gives the connection away for something else; the port is closed without on_closed. */
struct cv_conn *cv_port_take_conn(struct cv_port *port);

#endif
