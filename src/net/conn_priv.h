/* SPDX-License-Identifier: MIT
 *
 * A connection from the inside, shared by conn.c (its life) and conn_io.c (its bytes).
 */
#ifndef CV_NET_CONN_PRIV_H
#define CV_NET_CONN_PRIV_H

#include "base/fsm.h"
#include "net/conn.h"
#include "net/worker_priv.h"

/* A peer that is waited for patiently takes this much in so many times the time it may stand. */
enum { CONN_SLOW_BYTES = 16 * 1024, CONN_SLOW_TIMES = 10 };

enum conn_state {
    CONN_HANDSHAKE,
    CONN_OPEN,
    CONN_DRAINING,
    CONN_LINGERING,
    CONN_MOVING,
    CONN_CLOSING,
};

struct cv_conn {
    struct cv_worker *worker; /* NULL while moving */
    struct uv_poll_s *poll;   /* allocated apart, since it outlives its use of the socket */
    int armed;                /* events that `poll` waits for now */
    int fd;
    struct cv_tls_session *tls;
    enum cv_tls_want handshake_want;
    struct cv_fsm fsm;

    const struct cv_conn_ops *ops;
    void *arg;

    struct cv_buf out;
    size_t low, high;
    bool is_congested;       /* over the high mark, not yet down to the low one */
    bool is_write_blocked;   /* the socket takes no more: wait for UV_WRITABLE */
    bool write_wants_read;   /* TLS has to read before it can write */
    bool read_wants_write;   /* and the other way round */
    bool is_shutdown_wanted; /* FIN once the output is written */
    bool is_write_shut;      /* FIN was sent */
    bool is_handshake_done;
    bool is_paused;
    bool has_eof;    /* the peer's FIN or close_notify was delivered */
    bool has_hangup; /* told by on_hangup */
    bool has_failed; /* writing failed: what is left to read comes, then the end */

    struct cv_defer settle; /* end of turn: write, arm, or finish */
    struct cv_defer again;  /* next turn: read on without polling */
    struct cv_timer timer;  /* handshake, draining or lingering takes too long */
    struct cv_worker_item item;

    struct cv_status why;
    struct cv_error error;
    struct cv_addr peer, local;
    uint64_t bytes_in, bytes_out;
    uint64_t stall_ms, linger_ms; /* lingering patiently; 0: not, or everything is sent */
    uint64_t progress;            /* when the timer was started last */
    uint64_t slow_progress;       /* when the peer last had taken CONN_SLOW_BYTES */
    unsigned slow_times;          /* the timer was started since then */
};

/* conn_io.c */
void conn_on_settle(void *arg);
void conn_on_again(void *arg);
struct cv_status conn_poll_start(struct cv_conn *conn); /* makes the uv_poll handle */
void conn_poll_stop(struct cv_conn *conn);              /* gives it up */

/* conn.c */
void conn_finish(struct cv_conn *conn);
void conn_close_with(struct cv_conn *conn, struct cv_status why, const struct cv_error *error);

static inline bool conn_is(const struct cv_conn *conn, enum conn_state state)
{
    return conn->fsm.state == (unsigned)state;
}

/* Has the end of the turn look at the connection. */
static inline void conn_touch(struct cv_conn *conn)
{
    if (conn->worker)
        cv_worker_defer(conn->worker, &conn->settle);
}

#endif
