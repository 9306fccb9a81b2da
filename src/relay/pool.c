/* SPDX-License-Identifier: MIT
 *
 * Happy path: cv_pool_open takes an idle pipe, or opens a stream → on_stream_open → data →
 * cv_pipe_close(reusable) → a waiting request takes it, or it lies idle. An agent that has as many
 * streams as it takes refuses one more: its request waits for the end of another. Ways it fails:
 * the agent refuses (on_stream_refused, the word in the text says why); it closes the stream; the
 * link ends (cv_pool_end); the tunnel is taken over (cv_pool_end_tunnel); the queue is full.
 */
#include "relay/pool.h"

#include "config/relay_config.h"
#include "relay/limits.h"
#include "relay/measure.h"
#include "relay/pool_private.h"

#include <stdlib.h>
#include <string.h>
#include <utlist.h>

enum {
    POOL_IDLE_MS = 60000,
    POOL_LEARNT_MS = 60000, /* then the agent is asked for more again */
};

static const struct cv_stream_ops stream_ops;

/* ---- pipes ---- */

static struct cv_pipe **list_of(struct cv_pipe *pipe)
{
    return pipe->state == PIPE_IDLE ? &pipe->pool->idle : &pipe->pool->active;
}

/* A pipe is in use or waits (`by` 1), or no longer (-1). */
static void count_load(struct cv_pool *pool, int by)
{
    (void)atomic_fetch_add_explicit(&pool->session->load, (unsigned)by, memory_order_relaxed);
    (void)atomic_fetch_add_explicit(&pool->session->worker->stream_count, (unsigned)by,
                                    memory_order_relaxed);
}

static struct cv_limits *limits_of(const struct cv_pool *pool)
{
    return pool->session->worker->relay->limits;
}

static void leave_list(struct cv_pipe *pipe)
{
    if (pipe->state == PIPE_WAITING) {
        if (pipe->is_queued)
            measure_queue_left(pipe->pool->session, pipe->priority, pipe->turn.since_ms);
        pipe_pass_turn(pipe);
        (void)atomic_fetch_sub_explicit(&pipe->gate->waiting, 1, memory_order_relaxed);
        cv_queue_remove(&pipe->pool->waiting, &pipe->turn);
        cv_limits_queue_leave(limits_of(pipe->pool), pipe->queuer);
        pipe->queuer = NULL;
        pool_tell_waiting(pipe->pool);
        return;
    }
    struct cv_pipe **list = list_of(pipe);
    measure_stream(pipe->pool->session, pipe->state == PIPE_IDLE, -1);
    DL_DELETE(*list, pipe);
}

static void enter(struct cv_pipe *pipe, enum pipe_state state)
{
    pipe->state = state;
    uint64_t now_ms = cv_worker_now_ms(worker_of(pipe->pool));
    if (state == PIPE_WAITING) {
        (void)atomic_fetch_add_explicit(&pipe->gate->waiting, 1, memory_order_relaxed);
        cv_queue_put(&pipe->pool->waiting, &pipe->turn, pipe->priority, now_ms);
        pool_tell_waiting(pipe->pool);
        return;
    }
    struct cv_pipe **list = list_of(pipe);
    measure_stream(pipe->pool->session, state == PIPE_IDLE, 1);
    if (state == PIPE_IDLE) {
        DL_PREPEND(*list, pipe);
    } else {
        DL_APPEND(*list, pipe);
        pipe->open_ms = now_ms;
    }
}

/* A request has given its stream back: the average of the last dozen or so. */
static void note_held(struct cv_pipe *pipe)
{
    struct cv_pool *pool = pipe->pool;
    uint64_t ms = cv_worker_now_ms(worker_of(pool)) - pipe->open_ms;
    pool->held_ms = pool->held_ms ? (pool->held_ms * 7 + ms) / 8 : ms;
}

void pipe_free(struct cv_pipe *pipe)
{
    if (pipe->state == PIPE_OPEN && !pipe->is_canary)
        note_held(pipe);
    leave_list(pipe);
    pipe_give_slot(pipe);
    if (pipe->state != PIPE_IDLE && !pipe->is_canary)
        count_load(pipe->pool, -1);
    if (pipe->stream)
        cv_stream_close(pipe->stream);
    if (pipe->state == PIPE_OPEN || pipe->state == PIPE_OPENING)
        pool_offer_room(pipe);
    cv_tunnel_spec_unref(&pipe->spec);
    cv_gate_unref(&pipe->gate);
    free(pipe);
}

/* The last callback of a pipe in use. */
void pipe_end(struct cv_pipe *pipe, struct cv_status why)
{
    const struct cv_upstream_ops *ops = pipe->ops;
    void *arg = pipe->arg;
    bool was_open = pipe->state == PIPE_OPEN;
    pipe_free(pipe);
    if (!ops)
        return;
    if (was_open)
        ops->on_closed(arg, why);
    else
        ops->on_failed(arg, why);
}

/* ---- streams ---- */

static void on_stream_open(void *arg)
{
    struct cv_pipe *pipe = arg;
    pipe->state = PIPE_OPEN; /* the same list */
    pipe->ops->on_open(pipe->arg, false);
}

/* The agent takes fewer streams than we would open: those that it has are its limit for a while.
 * False: it has none, so that waiting for one to end were waiting for nothing. */
static bool learn_limit(struct cv_pool *pool)
{
    size_t streams = cv_link_streams(pool->session->link);
    if (streams == 0)
        return false;
    pool->learnt = streams;
    pool->learnt_ms = cv_worker_now_ms(worker_of(pool));
    return true;
}

static bool is_held_by_agent(const struct cv_pool *pool)
{
    return pool->learnt && cv_link_streams(pool->session->link) >= pool->learnt &&
           cv_worker_now_ms(worker_of(pool)) - pool->learnt_ms < POOL_LEARNT_MS;
}

/* cv_limits_user_tag of whom it is for. */
static uint64_t user_tag(const struct cv_pipe *pipe)
{
    uint64_t tag;
    memcpy(&tag, pipe->consumer.bytes, sizeof tag);
    return tag;
}

/* Its turn comes with serve_one. CV_QUEUE_FULL: there is no place, and it only looks as if it
 * waited, for pipe_free. */
static struct cv_status wait_in_queue(struct cv_pipe *pipe)
{
    struct cv_pool *pool = pipe->pool;
    pipe_give_slot(pipe);
    pipe->is_queued = !pipe->is_canary &&
                      cv_limits_queue_enter(limits_of(pool), user_tag(pipe), pool->waiting.count,
                                            cv_worker_now_ms(worker_of(pool)), &pipe->queuer);
    enter(pipe, PIPE_WAITING);
    if (!pipe->is_queued)
        return cv_status(CV_QUEUE_FULL);
    measure_queued(pool->session, pipe->priority);
    return cv_ok();
}

static void on_stream_refused(void *arg, uint32_t reason, struct cv_slice text)
{
    struct cv_pipe *pipe = arg;
    struct cv_status why = cv_status(cv_upstream_refusal(reason, text));
    pipe->stream = NULL;
    /* What our agent lacks besides streams (descriptors, memory) may be there the next moment. */
    bool is_count = why.id == CV_CHANNEL_LIMIT && !cv_slice_starts_with(text, "agent-busy");
    if (is_count && !pipe->is_canary && learn_limit(pipe->pool)) {
        leave_list(pipe);
        why = wait_in_queue(pipe);
        if (cv_is_ok(why))
            return; /* the end of any stream calls cv_pool_on_capacity */
    }
    pipe_end(pipe, why);
}

static void on_stream_data(void *arg, struct cv_slice data)
{
    struct cv_pipe *pipe = arg;
    if (pipe->state == PIPE_OPEN)
        pipe->ops->on_data(pipe->arg, data);
    else
        pipe_free(pipe); /* a service that speaks unasked is not used again */
}

static void on_stream_eof(void *arg)
{
    struct cv_pipe *pipe = arg;
    if (pipe->state == PIPE_OPEN)
        pipe->ops->on_eof(pipe->arg);
    else
        pipe_free(pipe);
}

static void on_stream_writable(void *arg)
{
    struct cv_pipe *pipe = arg;
    if (pipe->state == PIPE_OPEN)
        pipe->ops->on_writable(pipe->arg);
}

static void on_stream_closed(void *arg, struct cv_status why)
{
    struct cv_pipe *pipe = arg;
    pipe->stream = NULL;
    /* Before anybody is told, so that a second try finds another link. */
    if (why.id == CV_LINK_LOST)
        session_withdraw_all(pipe->pool->session);
    if (pipe->state == PIPE_IDLE)
        pipe_free(pipe);
    else
        pipe_end(pipe, cv_is_ok(why) ? cv_status(CV_EOF) : why);
}

static const struct cv_stream_ops stream_ops = {
    .on_open = on_stream_open,
    .on_refused = on_stream_refused,
    .on_data = on_stream_data,
    .on_eof = on_stream_eof,
    .on_writable = on_stream_writable,
    .on_closed = on_stream_closed,
};

/* ---- who gets a stream ---- */

/* An idle stream to the tunnel, idle for less than `max_idle_ms`; 0: none. What a connection to
 * the service knows of one consumer is not for the next: it is always the same one's. */
static struct cv_pipe *find_idle(struct cv_pool *pool, const char *name,
                                 const struct cv_user_key *consumer, uint32_t max_idle_ms)
{
    uint64_t now_ms = cv_worker_now_ms(worker_of(pool));
    for (struct cv_pipe *p = pool->idle; p && now_ms - p->idle_since_ms < max_idle_ms; p = p->next)
        if (strcmp(p->spec->name, name) == 0 &&
            memcmp(&p->consumer, consumer, sizeof *consumer) == 0)
            return p;
    return NULL;
}

/* The least recently used idle stream makes room; its place is free once the agent has closed
 * it too. */
static void evict_idle(struct cv_pool *pool)
{
    if (pool->idle)
        pipe_free(pool->idle->prev); /* utlist: the head's prev is the tail */
}

/* CV_AGAIN: it has to wait. While the link has no socket nothing is sent, so that a request that
 * waits can still go another way. */
static struct cv_status try_open(struct cv_pipe *pipe)
{
    struct cv_pool *pool = pipe->pool;
    if (cv_link_is_detached(pool->session->link))
        return cv_status(CV_AGAIN);
    struct cv_status status = cv_status(CV_CHANNEL_LIMIT);
    if (!is_held_by_agent(pool))
        status = cv_stream_open(pool->session->link, CV_STREAM_FORWARDED, pipe->spec->name,
                                pipe->port, pipe->correlation, &stream_ops, pipe, &pipe->stream);
    if (status.id != CV_CHANNEL_LIMIT)
        return status;
    atomic_store_explicit(&pool->session->is_full, true, memory_order_relaxed);
    return cv_status(CV_AGAIN);
}

/* Hands an idle stream to a pipe that has none. */
static void take_over(struct cv_pipe *pipe, struct cv_pipe *idle)
{
    pipe->stream = idle->stream;
    pipe->is_reused = true;
    idle->stream = NULL;
    pipe_free(idle);
    cv_stream_set_ops(pipe->stream, &stream_ops, pipe);
}

/* Starts one request that waits and can go; false when there is none. */
static bool serve_one(struct cv_pool *pool)
{
    struct cv_queue_walk walk;
    pool_walk_waiting(pool, &walk);
    for (struct cv_pipe *pipe; (pipe = pool_next_waiting(&walk));) {
        if (!pipe_take_slot(pipe))
            continue; /* others may pass */
        struct cv_pipe *idle =
            find_idle(pool, pipe->spec->name, &pipe->consumer, pipe->max_idle_ms);
        struct cv_status status = idle ? cv_ok() : try_open(pipe);
        if (status.id == CV_AGAIN) {
            pipe_give_slot(pipe);
            evict_idle(pool);
            pool_pass_turns(pool);
            (void)pool_move_one(pool);
            return false;
        }
        if (!cv_is_ok(status)) {
            pipe_end(pipe, status);
            return true;
        }
        leave_list(pipe);
        if (!idle) {
            enter(pipe, PIPE_OPENING);
            return true;
        }
        take_over(pipe, idle);
        enter(pipe, PIPE_OPEN);
        pipe->ops->on_open(pipe->arg, true);
        return true;
    }
    return false;
}

static void on_serve(void *arg)
{
    struct cv_pool *pool = arg;
    if (!pool->session->link)
        return;
    if (cv_link_is_detached(pool->session->link)) {
        pool_pass_turns(pool);
        while (pool_move_one(pool))
            ;
        return;
    }
    while (pool->waiting.count && serve_one(pool))
        ;
}

void cv_pool_look(struct cv_pool *pool)
{
    if (pool->waiting.count)
        cv_worker_defer(worker_of(pool), &pool->serve);
}

void cv_pool_on_capacity(struct cv_pool *pool)
{
    atomic_store_explicit(&pool->session->is_full, false, memory_order_relaxed);
    cv_pool_look(pool);
}

static void on_idle_timer(void *arg)
{
    struct cv_pool *pool = arg;
    uint64_t now_ms = cv_worker_now_ms(worker_of(pool));
    while (pool->idle && now_ms - pool->idle->prev->idle_since_ms >= POOL_IDLE_MS)
        evict_idle(pool);
    if (pool->idle)
        (void)cv_worker_timer_start(worker_of(pool), &pool->idle_timer, POOL_IDLE_MS / 4);
}

void cv_pool_init(struct cv_pool *pool, struct cv_session *session)
{
    *pool = (struct cv_pool){.session = session};
    cv_timer_init(&pool->idle_timer, on_idle_timer, pool);
    cv_defer_init(&pool->serve, on_serve, pool);
}

void cv_pool_end(struct cv_pool *pool)
{
    cv_worker_timer_stop(worker_of(pool), &pool->idle_timer);
    cv_defer_cancel(&pool->serve);
    while (pool->idle)
        pipe_free(pool->idle);
    for (struct cv_pipe *pipe; (pipe = pool_first_waiting(pool, NULL));)
        pipe_end(pipe, cv_status(CV_LINK_LOST));
    while (pool->active)
        pipe_end(pool->active, cv_status(CV_LINK_LOST));
}

void cv_pool_end_tunnel(struct cv_pool *pool, const char *name, struct cv_status why)
{
    struct cv_pipe **lists[] = {&pool->idle, &pool->active};
    for (struct cv_pipe *pipe; (pipe = pool_first_waiting(pool, name));)
        pipe_end(pipe, why);
    for (size_t i = 0; i < 2; i++) {
        struct cv_pipe *pipe = *lists[i];
        while (pipe) {
            if (strcmp(pipe->spec->name, name) != 0) {
                pipe = pipe->next;
                continue;
            }
            if (pipe->state == PIPE_IDLE)
                pipe_free(pipe);
            else
                pipe_end(pipe, why);
            pipe = *lists[i]; /* a callback may have changed the list */
        }
    }
}

void cv_pool_withdraw_tunnel(struct cv_pool *pool, const char *name)
{
    struct cv_pipe *pipe, *next;
    DL_FOREACH_SAFE(pool->idle, pipe, next)
    {
        if (strcmp(pipe->spec->name, name) == 0)
            pipe_free(pipe);
    }
    DL_FOREACH(pool->active, pipe)
    {
        if (strcmp(pipe->spec->name, name) == 0)
            pipe->is_last = true;
    }
    while ((pipe = pool_first_waiting(pool, name)))
        pipe_end(pipe, cv_status(CV_AGENT_OFFLINE));
}

/* ---- what requests call ---- */

struct cv_status cv_pool_open(struct cv_pool *pool, struct cv_tunnel_spec *spec,
                              struct cv_gate *gate, uint32_t port,
                              const struct cv_upstream_wish *wish,
                              const struct cv_upstream_ops *ops, void *arg, struct cv_pipe **out)
{
    struct cv_session *session = pool->session;
    *out = NULL;
    if (!session->link)
        return cv_status(CV_LINK_LOST);
    bool needs_slot = spec->concurrency && !wish->is_canary;
    bool may_go =
        !cv_link_is_detached(session->link) && (!needs_slot || pool_take_slot(pool, spec, gate));
    struct cv_pipe *pipe =
        may_go ? find_idle(pool, spec->name, &wish->consumer, wish->max_idle_ms) : NULL;
    if (pipe) {
        pipe->has_slot = needs_slot;
        leave_list(pipe);
        cv_tunnel_spec_unref(&pipe->spec);
        pipe->spec = cv_tunnel_spec_ref(spec);
        pipe->ops = ops;
        pipe->arg = arg;
        count_load(pool, 1);
        enter(pipe, PIPE_OPEN);
        *out = pipe;
        return cv_ok();
    }
    pipe = calloc(1, sizeof *pipe);
    if (!pipe) {
        if (may_go && needs_slot)
            pool_give_slot(pool, gate);
        return cv_status(CV_NO_MEMORY);
    }
    *pipe = (struct cv_pipe){.upstream = {.is_local = true},
                             .pool = pool,
                             .spec = cv_tunnel_spec_ref(spec),
                             .gate = cv_gate_ref(gate),
                             .slot = {.session = session},
                             .has_slot = may_go && needs_slot,
                             .is_movable = wish->is_movable,
                             .ops = ops,
                             .arg = arg,
                             .port = port,
                             .max_idle_ms = wish->max_idle_ms,
                             .priority = wish->priority,
                             .consumer = wish->consumer,
                             .is_canary = wish->is_canary};
    if (wish->correlation)
        (void)cv_slice_to_str(cv_slice_str(wish->correlation), pipe->correlation,
                              sizeof pipe->correlation);
    if (!pipe->is_canary)
        count_load(pool, 1);
    /* Who came first goes first. */
    bool is_behind = pool->waiting.count || !may_go;
    struct cv_status status = is_behind ? cv_status(CV_AGAIN) : try_open(pipe);
    if (cv_is_ok(status)) {
        enter(pipe, PIPE_OPENING);
        *out = pipe;
        return status;
    }
    if (status.id == CV_AGAIN)
        status = wait_in_queue(pipe);
    else
        enter(pipe, PIPE_WAITING);
    if (!cv_is_ok(status)) {
        pipe_free(pipe);
        return status;
    }
    cv_pool_look(pool); /* who waits in front may be held by another tunnel's limit */
    *out = pipe;
    return cv_ok();
}

bool cv_pipe_is_open(const struct cv_pipe *pipe)
{
    return pipe->state == PIPE_OPEN;
}

bool cv_pipe_is_reused(const struct cv_pipe *pipe)
{
    return pipe->is_reused;
}

bool cv_pipe_is_waiting(const struct cv_pipe *pipe)
{
    return pipe->state == PIPE_WAITING;
}

size_t cv_pipe_position(const struct cv_pipe *pipe)
{
    const struct cv_pool *pool = pipe->pool;
    return cv_queue_position(&pool->waiting, &pipe->turn, cv_worker_now_ms(worker_of(pool)),
                             pool->session->worker->relay->config->queue_ageing_ms);
}

size_t cv_pipe_write(struct cv_pipe *pipe, struct cv_slice data)
{
    return pipe->state == PIPE_OPEN ? cv_stream_write(pipe->stream, data) : 0;
}

void cv_pipe_consumed(struct cv_pipe *pipe, size_t len)
{
    if (pipe->stream)
        cv_stream_consumed(pipe->stream, len);
}

void cv_pipe_eof(struct cv_pipe *pipe)
{
    if (pipe->state == PIPE_OPEN)
        cv_stream_eof(pipe->stream);
}

void cv_pipe_close(struct cv_pipe *pipe, bool is_reusable)
{
    struct cv_pool *pool = pipe->pool;
    if (pipe->state != PIPE_OPEN || !is_reusable || pipe->is_last) {
        pipe_free(pipe);
        cv_pool_on_capacity(pool); /* under a concurrency limit the next one may go already */
        return;
    }
    note_held(pipe);
    leave_list(pipe);
    pipe_give_slot(pipe);
    pipe->ops = NULL;
    pipe->is_reused = true;
    pipe->idle_since_ms = cv_worker_now_ms(worker_of(pool));
    count_load(pool, -1);
    enter(pipe, PIPE_IDLE);
    pool_offer_room(pipe);
    cv_pool_on_capacity(pool);
    if (!cv_timer_is_running(&pool->idle_timer))
        (void)cv_worker_timer_start(worker_of(pool), &pool->idle_timer, POOL_IDLE_MS);
}
