/* SPDX-License-Identifier: MIT
 *
 * Requests that wait for a stream: their order, their turn where a tunnel limits how many its
 * service gets at once (relay/slots.h), and other links of the tunnel that have room.
 *
 * Happy path: cv_pool_open finds none free → the request waits, noted with its tunnel's slots →
 * serve_one (pool.c) when a stream or a slot is free. Or another link has room → pool_move_one ends
 * it with CV_AGAIN → the request asks there. A link that frees a stream while others of the tunnel
 * have requests waiting wakes those (pool_offer_room). Ways it fails: the link cannot open any
 * stream: the turns of those that wait here go to others (pool_pass_turns).
 */
#include "config/relay_config.h"
#include "relay/pool_private.h"

#include <stddef.h>
#include <string.h>

/* ---- who waits ---- */

static struct cv_pipe *pipe_of(struct cv_queue_entry *turn)
{
    return turn ? (struct cv_pipe *)(void *)((char *)turn - offsetof(struct cv_pipe, turn)) : NULL;
}

void pool_walk_waiting(const struct cv_pool *pool, struct cv_queue_walk *walk)
{
    cv_queue_begin(&pool->waiting, cv_worker_now_ms(worker_of(pool)),
                   pool->session->worker->relay->config->queue_ageing_ms, walk);
}

struct cv_pipe *pool_next_waiting(struct cv_queue_walk *walk)
{
    return pipe_of(cv_queue_next(walk));
}

/* The first that waits for the tunnel `name`; NULL is any. */
struct cv_pipe *pool_first_waiting(const struct cv_pool *pool, const char *name)
{
    struct cv_queue_walk walk;
    struct cv_pipe *pipe;
    pool_walk_waiting(pool, &walk);
    while ((pipe = pool_next_waiting(&walk)) && name && strcmp(pipe->spec->name, name) != 0)
        ;
    return pipe;
}

/* How often, about, one that waits gets its turn: as many at once as there are streams in use. */
static uint64_t turn_ms(const struct cv_pool *pool)
{
    size_t active = 0;
    for (const struct cv_pipe *p = pool->active; p; p = p->next)
        active++;
    return pool->held_ms / (active ? active : 1);
}

/* For other threads, which estimate by it. */
void pool_tell_waiting(const struct cv_pool *pool)
{
    atomic_store_explicit(&pool->session->waiting, (unsigned)pool->waiting.count,
                          memory_order_relaxed);
    atomic_store_explicit(&pool->session->turn_ms, turn_ms(pool), memory_order_relaxed);
}

void cv_pool_each_waiting(const struct cv_pool *pool,
                          void (*each)(void *arg, const struct cv_pool_waiting *waiting), void *arg)
{
    uint64_t now_ms = cv_worker_now_ms(worker_of(pool)), each_ms = turn_ms(pool);
    struct cv_queue_walk walk;
    size_t position = 0;
    pool_walk_waiting(pool, &walk);
    for (const struct cv_pipe *pipe; (pipe = pool_next_waiting(&walk));) {
        position++;
        each(arg, &(struct cv_pool_waiting){.tunnel = pipe->spec->name,
                                            .correlation = pipe->correlation,
                                            .priority = pipe->priority,
                                            .position = position,
                                            .waited_ms = now_ms - pipe->turn.since_ms,
                                            .estimated_ms = position * each_ms});
    }
}

/* ---- whose turn it is ---- */

static uint64_t now_of(const struct cv_pool *pool)
{
    return cv_worker_now_ms(worker_of(pool));
}

static uint64_t ageing_of(const struct cv_pool *pool)
{
    return pool->session->worker->relay->config->queue_ageing_ms;
}

bool pool_take_slot(struct cv_pool *pool, const struct cv_tunnel_spec *spec, struct cv_gate *gate)
{
    return !spec->concurrency ||
           cv_slots_take(&gate->slots, spec->concurrency, NULL, CV_PRIORITY_INTERACTIVE,
                         now_of(pool), ageing_of(pool));
}

bool pipe_take_slot(struct cv_pipe *pipe)
{
    const struct cv_pool *pool = pipe->pool;
    if (!pipe->has_slot && pipe->spec->concurrency)
        pipe->has_slot = cv_slots_take(&pipe->gate->slots, pipe->spec->concurrency, &pipe->slot,
                                       pipe->priority, now_of(pool), ageing_of(pool));
    return pipe->has_slot || !pipe->spec->concurrency;
}

void pool_give_slot(struct cv_pool *pool, struct cv_gate *gate)
{
    cv_slots_give(&gate->slots, now_of(pool), ageing_of(pool));
}

void pipe_give_slot(struct cv_pipe *pipe)
{
    if (pipe->has_slot)
        pool_give_slot(pipe->pool, pipe->gate);
    pipe->has_slot = false;
}

void pipe_pass_turn(struct cv_pipe *pipe)
{
    cv_slots_leave(&pipe->gate->slots, &pipe->slot, now_of(pipe->pool), ageing_of(pipe->pool));
}

void pool_pass_turns(struct cv_pool *pool)
{
    struct cv_queue_walk walk;
    pool_walk_waiting(pool, &walk);
    for (struct cv_pipe *pipe; (pipe = pool_next_waiting(&walk));)
        pipe_pass_turn(pipe);
}

/* ---- other links ---- */

/* As far as can be told from here. */
static bool has_room(struct cv_session *other)
{
    return cv_session_is_reachable(other) && !cv_session_is_full(other) &&
           cv_session_queue(other).waiting == 0 && cv_session_is_entitled(other, 0);
}

static bool wake_if_waiting(struct cv_session *other)
{
    if (cv_session_queue(other).waiting)
        cv_session_wake(other);
    return false; /* all of them */
}

static bool any_other(const struct cv_pipe *pipe, bool (*look)(struct cv_session *other))
{
    const struct cv_session *session = pipe->pool->session;
    return cv_registry_any_other(session->worker->relay->registry, &session->user_key,
                                 cv_slice_str(pipe->spec->name), session, look);
}

bool pool_move_one(struct cv_pool *pool)
{
    struct cv_pipe *pipe = pool_first_waiting(pool, NULL);
    if (!pipe || !pipe->is_movable || !any_other(pipe, has_room))
        return false;
    pipe_end(pipe, cv_status(CV_AGAIN));
    return true;
}

void pool_offer_room(struct cv_pipe *pipe)
{
    if (pipe->pool->waiting.count == 0 &&
        atomic_load_explicit(&pipe->gate->waiting, memory_order_relaxed))
        (void)any_other(pipe, wake_if_waiting);
}
