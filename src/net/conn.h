/* SPDX-License-Identifier: MIT
 *
 * A non-blocking stream socket, with or without TLS. Bytes to send are appended to its output
 * buffer and written once, at the end of the loop turn. Bytes that came are handed to on_data,
 * which takes all of them; to take no more, pause. It can move to another worker with its TLS state
 * and its unsent bytes.
 *
 *      handshake ──▶ open ──┬──▶ draining ───┐        draining: cv_conn_close_after_flush
 *          │          │     └──▶ lingering ──┤        lingering: cv_conn_close_lingering
 *          │          ▼                      ▼
 *          │        moving               closing ──▶ on_closed, memory freed
 *          └─────────────────────────────────▲
 *
 * Owns the socket, the TLS session and the buffer; borrows ops. Limits: the output buffer has a cap
 * (1 MiB unless set), at most 256 KiB are read per turn, then others come first. Its worker's
 * thread; while moving, whoever holds it.
 */
#ifndef CV_NET_CONN_H
#define CV_NET_CONN_H

#include "base/buf.h"
#include "base/status.h"
#include "net/addr.h"
#include "net/tls.h"
#include "net/worker.h"

struct cv_fsm_def;

/* The lifecycle as a table, for docs/STATES.md. */
extern const struct cv_fsm_def cv_conn_states;

struct cv_conn;

/* Any may be NULL except on_data and on_closed. All come from the loop, never from inside a
 * cv_conn_ call. Every one may call any cv_conn_ function on this or another connection. */
struct cv_conn_ops {
    /* TLS handshake complete (not called without TLS). */
    void (*on_open)(void *arg);
    /* `data` may be changed; it is valid for the call and all of it counts as taken. */
    void (*on_data)(void *arg, uint8_t *data, size_t len);
    /* The peer will send nothing more (FIN, or close_notify): once. Writing is still possible. */
    void (*on_eof)(void *arg);
    /* The output fell to the low mark after it had been over the high one. */
    void (*on_writable)(void *arg);
    /* The peer went away or half-closed while reading is paused: once. There may still be bytes to
     * read; resume to learn more, or close. */
    void (*on_hangup)(void *arg);
    /* The last call, exactly once; the connection is freed when it returns. CV_OK: closed as asked,
     * everything was sent. `error` has detail where there is one, otherwise its detail is "". */
    void (*on_closed)(void *arg, struct cv_status why, const struct cv_error *error);
};

/* Takes the connected, non-blocking socket `fd` and the session (NULL: no TLS), both also when it
 * fails: they are closed then. Reading starts with the next turn. TCP_NODELAY is on already, as on
 * all sockets that listeners and dials of net/ give. With TLS the handshake runs first; bytes
 * appended before wait for it. CV_NO_MEMORY, CV_NO_RESOURCES. */
struct cv_status cv_conn_new(struct cv_worker *worker, int fd, struct cv_tls_session *tls,
                             const struct cv_conn_ops *ops, void *arg, struct cv_conn **out,
                             struct cv_error *error);

/* Closes (CV_CONN_TIMEOUT) unless the handshake is done in time. Right after cv_conn_new. */
void cv_conn_set_handshake_timeout(struct cv_conn *conn, uint64_t timeout_ms);

/* Puts TLS on an open plain connection with nothing unsent (behind a CONNECT proxy). Takes the
 * session. CV_INVALID in another state; the session is freed then. */
struct cv_status cv_conn_start_tls(struct cv_conn *conn, struct cv_tls_session *tls);

void cv_conn_set_ops(struct cv_conn *conn, const struct cv_conn_ops *ops, void *arg);

/* Nobody is told anything any more: the connection goes on as it was told to, or until it is
 * closed, and frees itself. For owners that end before their connection. */
void cv_conn_disown(struct cv_conn *conn);

/* --- writing --- */

/* The output buffer: append to it (cv_buf_…), then cv_conn_flush. Never consume from it. */
struct cv_buf *cv_conn_out(struct cv_conn *conn);

/* Has the output written at the end of this turn. Cheap; call it after every append. */
void cv_conn_flush(struct cv_conn *conn);

/* Append and flush. CV_NO_RESOURCES when it does not fit under the cap, CV_NO_MEMORY: nothing was
 * appended. Bytes for a connection that is closing are dropped (CV_OK). */
struct cv_status cv_conn_write(struct cv_conn *conn, const void *data, size_t len);

/* True from when the output is over the high mark until it has fallen to the low one, of which
 * on_writable tells. */
bool cv_conn_is_congested(struct cv_conn *conn);

/* Bytes that fit under the cap. */
size_t cv_conn_room(const struct cv_conn *conn);

/* Bytes; low < high <= cap. 64 KiB, 256 KiB and 1 MiB at first. */
void cv_conn_set_marks(struct cv_conn *conn, size_t low, size_t high, size_t cap);

/* After the output is written: close_notify with TLS, then FIN. Later appends are dropped. Reading
 * goes on. */
void cv_conn_shutdown_write(struct cv_conn *conn);

/* --- reading --- */

/* No on_data until resumed; on_hangup tells when the peer goes away meanwhile. Idempotent. */
void cv_conn_pause(struct cv_conn *conn);
void cv_conn_resume(struct cv_conn *conn);
bool cv_conn_is_paused(const struct cv_conn *conn);

/* --- ending --- */

/* Asynchronous and idempotent, the first reason counts. Unsent bytes are dropped; on_closed comes
 * at the end of the turn and is the only callback from here on. */
void cv_conn_close(struct cv_conn *conn, struct cv_status why);

/* Writes what is there, then closes. Nothing more is read; what the peer still sends makes the
 * kernel reset the connection, so use the lingering form where the peer may be sending. on_closed
 * with CV_OK, or CV_CONN_TIMEOUT after `timeout_ms`. In the handshake both forms close at once,
 * with CV_CANCELLED. */
void cv_conn_close_after_flush(struct cv_conn *conn, uint64_t timeout_ms);

/* Writes what is there, sends FIN, reads and discards until the peer closes too or `timeout_ms` are
 * over, then closes: the peer gets the answer before any reset (RFC 9112 §9.6). on_closed with
 * CV_OK when everything was sent. */
void cv_conn_close_lingering(struct cv_conn *conn, uint64_t timeout_ms);

/* As lingering, for a peer that may be slow: while there are unsent bytes, the time is `stall_ms`
 * in which the peer takes nothing at all, and ten times that in which it takes less than 16 KiB;
 * then `linger_ms` for its end. */
void cv_conn_close_patiently(struct cv_conn *conn, uint64_t stall_ms, uint64_t linger_ms);

/* As cv_conn_close, and the peer is told by a reset (RFC 9293 §3.5.3) instead of an orderly end:
 * for a message whose end is the connection's end and that was cut. */
void cv_conn_reset(struct cv_conn *conn);

/* --- moving to another worker --- */

/* Takes the connection off its worker, also from inside on_data; there is no callback until it is
 * attached, and from here on this thread must not touch it once it has been posted away. CV_INVALID
 * unless it is open (or in its handshake) and not closing: it stays where it is. A handshake
 * timeout does not move along: set it again. */
struct cv_status cv_conn_detach(struct cv_conn *conn);

/* On the new worker's thread. Bytes that TLS has already decrypted come as on_data before the
 * socket is looked at, unsent ones are written. CV_NO_MEMORY, CV_NO_RESOURCES, CV_SHUTTING_DOWN: it
 * stays detached; discard it. */
struct cv_status cv_conn_attach(struct cv_conn *conn, struct cv_worker *worker,
                                const struct cv_conn_ops *ops, void *arg);

/* Closes and frees a detached connection, without any callback. */
void cv_conn_discard(struct cv_conn *conn);

/* --- facts and options --- */

/* The socket, borrowed: for cv_tls_client_session before cv_conn_start_tls. */
int cv_conn_fd(const struct cv_conn *conn);
struct cv_worker *cv_conn_worker(const struct cv_conn *conn); /* NULL while moving */
/* Asked of the system the first time: length 0 when the connection had ended before that. */
const struct cv_addr *cv_conn_peer_addr(struct cv_conn *conn);
const struct cv_addr *cv_conn_local_addr(struct cv_conn *conn);
bool cv_conn_is_tls(const struct cv_conn *conn);
bool cv_conn_is_closing(const struct cv_conn *conn);    /* draining, lingering or closing */
uint64_t cv_conn_bytes_in(const struct cv_conn *conn);  /* without TLS's own */
uint64_t cv_conn_bytes_out(const struct cv_conn *conn); /* given to the kernel */
/* Changes whenever the peer has acknowledged something: tells a slow one from one that stands. */
uint64_t cv_conn_progress(const struct cv_conn *conn);
/* The kernel's smoothed round-trip time in microseconds, 0 when unknown. */
uint32_t cv_conn_rtt_us(const struct cv_conn *conn);

/* Socket options, best effort: what the kernel does not know is ignored. */
void cv_conn_set_notsent_lowat(struct cv_conn *conn, uint32_t bytes); /* usual: 128 KiB */
void cv_conn_set_user_timeout(struct cv_conn *conn, uint32_t timeout_ms);

#endif
