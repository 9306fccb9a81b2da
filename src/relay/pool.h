/* SPDX-License-Identifier: MIT
 *
 * The pipes of one session: those in use, those idle and kept for the next request, and the
 * requests that wait for one. Everything here is on the session's worker.
 *
 * Borrows the session. A pipe belongs to its user between cv_pool_open and cv_pipe_close or its
 * last callback. Limits: `queue.size` waiting here, and of one user on all links; idle pipes are
 * closed after 60 s.
 */
#ifndef CV_RELAY_POOL_H
#define CV_RELAY_POOL_H

#include "base/timers.h"
#include "net/worker.h"
#include "relay/upstream.h"

struct cv_link;
struct cv_pipe;
struct cv_session;

/* What every upstream begins with; says which kind it is. */
struct cv_upstream {
    bool is_local;
};

struct cv_pool {
    struct cv_session *session;
    struct cv_pipe *idle; /* the most recently used first */
    struct cv_pipe *active;
    struct cv_queue waiting;
    uint64_t held_ms;   /* for how long a request holds its stream, on average of late */
    size_t learnt;      /* streams that the agent takes at once, as far as it has said; 0: … */
    uint64_t learnt_ms; /* … and when */
    struct cv_timer idle_timer;
    struct cv_defer serve;
};

void cv_pool_init(struct cv_pool *pool, struct cv_session *session);

/* The link has ended: everybody is told, nothing is left. */
void cv_pool_end(struct cv_pool *pool);

/* As cv_upstream_open, on this worker. */
struct cv_status cv_pool_open(struct cv_pool *pool, struct cv_tunnel_spec *spec,
                              struct cv_gate *gate, uint32_t port,
                              const struct cv_upstream_wish *wish,
                              const struct cv_upstream_ops *ops, void *arg, struct cv_pipe **pipe);

/* A channel has become free: who waits may go on. */
void cv_pool_on_capacity(struct cv_pool *pool);

/* Something has changed elsewhere: who waits may go on, here or over another link. */
void cv_pool_look(struct cv_pool *pool);

/* Ends every pipe to the tunnel `name`, idle or in use, with `why`. */
void cv_pool_end_tunnel(struct cv_pool *pool, const char *name, struct cv_status why);

/* The tunnel `name` is withdrawn: idle pipes end, those that wait fail with CV_AGENT_OFFLINE, those
 * in use finish what they carry (RFC 4254 §7.1: a cancelled forwarding leaves its channels alone).
 */
void cv_pool_withdraw_tunnel(struct cv_pool *pool, const char *name);

/* One that waits, for the management API. Borrowed for the call. */
struct cv_pool_waiting {
    const char *tunnel, *correlation;
    enum cv_priority priority;
    size_t position; /* from 1 */
    uint64_t waited_ms, estimated_ms;
};

/* Calls `each` for all that wait here, who goes first first. It must not open or close any. */
void cv_pool_each_waiting(const struct cv_pool *pool,
                          void (*each)(void *arg, const struct cv_pool_waiting *waiting),
                          void *arg);

/* As the functions of cv_upstream. */
bool cv_pipe_is_open(const struct cv_pipe *pipe);
bool cv_pipe_is_reused(const struct cv_pipe *pipe);
bool cv_pipe_is_waiting(const struct cv_pipe *pipe);
size_t cv_pipe_position(const struct cv_pipe *pipe);
size_t cv_pipe_write(struct cv_pipe *pipe, struct cv_slice data);
void cv_pipe_consumed(struct cv_pipe *pipe, size_t len);
void cv_pipe_eof(struct cv_pipe *pipe);
void cv_pipe_close(struct cv_pipe *pipe, bool is_reusable);

#endif
