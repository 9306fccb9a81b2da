/* SPDX-License-Identifier: MIT
 *
 * What pool.c (pipes and their streams) and pool_wait.c (those that wait: their order, whose turn
 * it is over all links, another link that has room) share. Nobody else includes this.
 */
#ifndef CV_RELAY_POOL_PRIVATE_H
#define CV_RELAY_POOL_PRIVATE_H

#include "relay/pool.h"
#include "relay/session_private.h"
#include "transport/link.h"

enum pipe_state { PIPE_WAITING, PIPE_OPENING, PIPE_OPEN, PIPE_IDLE };

struct cv_pipe {
    struct cv_upstream upstream; /* first: a pipe is an upstream of this worker */
    struct cv_pool *pool;
    struct cv_tunnel_spec *spec;
    struct cv_stream *stream;
    const struct cv_upstream_ops *ops;
    void *arg;
    struct cv_gate *gate; /* a reference */
    uint32_t port;
    char correlation[CV_STREAM_CORRELATION_MAX + 1]; /* of the request it was opened for */
    uint32_t max_idle_ms; /* waiting: how old an idle stream it may take over */
    enum cv_priority priority;
    struct cv_user_key consumer;
    struct cv_queue_entry turn;     /* waiting */
    struct cv_slot_turn slot;       /* waiting, where the tunnel's concurrency is limited */
    struct cv_bucket_entry *queuer; /* counts it for its user while it waits; NULL: not counted */
    uint64_t open_ms;               /* since when it has carried a request */
    enum pipe_state state;
    bool is_queued;  /* waiting, and counted so */
    bool has_slot;   /* of that limit */
    bool is_movable; /* while it waits */
    bool is_reused;
    bool is_canary;
    bool is_last; /* its tunnel was withdrawn: not used for another request */
    uint64_t idle_since_ms;
    struct cv_pipe *prev, *next;
};

static inline struct cv_worker *worker_of(const struct cv_pool *pool)
{
    return pool->session->worker->worker;
}

/* ---- pool.c ---- */

void pipe_free(struct cv_pipe *pipe);
/* The last callback of a pipe that is in use or waits. */
void pipe_end(struct cv_pipe *pipe, struct cv_status why);

/* ---- pool_wait.c ---- */

/* In the order in which they are to go. */
void pool_walk_waiting(const struct cv_pool *pool, struct cv_queue_walk *walk);
struct cv_pipe *pool_next_waiting(struct cv_queue_walk *walk);
/* The first that waits for the tunnel `name`; NULL is any. */
struct cv_pipe *pool_first_waiting(const struct cv_pool *pool, const char *name);
/* For other threads, which estimate by it. */
void pool_tell_waiting(const struct cv_pool *pool);

/* One more request at once of the tunnel, where it limits them. False: it has to wait; the turn of
 * a pipe is noted then. */
bool pool_take_slot(struct cv_pool *pool, const struct cv_tunnel_spec *spec, struct cv_gate *gate);
bool pipe_take_slot(struct cv_pipe *pipe);
/* Gives it back; nothing where it has none. */
void pool_give_slot(struct cv_pool *pool, struct cv_gate *gate);
void pipe_give_slot(struct cv_pipe *pipe);
/* Cannot go now whoever's turn it is: that of this one, or of all that wait here, goes to the next
 * elsewhere. They are noted again when they try again. */
void pipe_pass_turn(struct cv_pipe *pipe);
void pool_pass_turns(struct cv_pool *pool);

/* Sends the first that waits to another link that has room. False: there is none. */
bool pool_move_one(struct cv_pool *pool);
/* `pipe` has given its stream back: where others wait for the same tunnel they may have it. */
void pool_offer_room(struct cv_pipe *pipe);

#endif
