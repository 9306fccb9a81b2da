/* SPDX-License-Identifier: MIT
 *
 * Happy path: cv_pool_open takes an idle pipe, or opens a stream → on_stream_open → data →
 * cv_pipe_close(reusable) → a waiting request takes it, or it lies idle. Ways it fails: the agent
 * refuses (on_stream_refused, the word in the text says why); it closes the stream; the link ends
 * (cv_pool_end); the tunnel is taken over (cv_pool_end_tunnel); the queue is full.
 */
#include "relay/pool.h"

#include "config/relay_config.h"
#include "relay/limits.h"
#include "relay/measure.h"
#include "relay/session_private.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

enum { POOL_IDLE_MS = 60000 };

enum pipe_state { PIPE_WAITING, PIPE_OPENING, PIPE_OPEN, PIPE_IDLE };

struct cv_pipe {
    struct cv_upstream upstream; /* first: a pipe is an upstream of this worker */
    struct cv_pool *pool;
    struct cv_tunnel_spec *spec;
    struct cv_stream *stream;
    const struct cv_upstream_ops *ops;
    void *arg;
    uint32_t port;
    char correlation[CV_STREAM_CORRELATION_MAX + 1]; /* of the request it was opened for */
    uint32_t max_idle_ms; /* waiting: how old an idle stream it may take over */
    enum cv_priority priority;
    struct cv_user_key consumer;
    struct cv_queue_entry turn;     /* waiting */
    struct cv_bucket_entry *queuer; /* counts it for its user while it waits; NULL: not counted */
    uint64_t open_ms;               /* since when it has carried a request */
    enum pipe_state state;
    bool is_reused;
    bool is_queued; /* waiting, and counted so */
    bool is_last;   /* its tunnel was withdrawn: not used for another request */
    bool is_canary;
    uint64_t idle_since_ms;
    struct cv_pipe *prev, *next;
};

static const struct cv_stream_ops stream_ops;

static struct cv_worker *worker_of(const struct cv_pool *pool)
{
    return pool->session->worker->worker;
}

/* ---- who waits ---- */

static struct cv_pipe *pipe_of(struct cv_queue_entry *turn)
{
    return turn ? (struct cv_pipe *)(void *)((char *)turn - offsetof(struct cv_pipe, turn)) : NULL;
}

static void walk_waiting(const struct cv_pool *pool, struct cv_queue_walk *walk)
{
    cv_queue_begin(&pool->waiting, cv_worker_now_ms(worker_of(pool)),
                   pool->session->worker->relay->config->queue_ageing_ms, walk);
}

static struct cv_pipe *next_waiting(struct cv_queue_walk *walk)
{
    return pipe_of(cv_queue_next(walk));
}

/* The first that waits for the tunnel `name`; NULL is any. */
static struct cv_pipe *first_waiting(const struct cv_pool *pool, const char *name)
{
    struct cv_queue_walk walk;
    struct cv_pipe *pipe;
    walk_waiting(pool, &walk);
    while ((pipe = next_waiting(&walk)) && name && strcmp(pipe->spec->name, name) != 0)
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
static void tell_waiting(const struct cv_pool *pool)
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
    walk_waiting(pool, &walk);
    for (const struct cv_pipe *pipe; (pipe = next_waiting(&walk));) {
        position++;
        each(arg, &(struct cv_pool_waiting){.tunnel = pipe->spec->name,
                                            .correlation = pipe->correlation,
                                            .priority = pipe->priority,
                                            .position = position,
                                            .waited_ms = now_ms - pipe->turn.since_ms,
                                            .estimated_ms = position * each_ms});
    }
}

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
        cv_queue_remove(&pipe->pool->waiting, &pipe->turn);
        cv_limits_queue_leave(limits_of(pipe->pool), pipe->queuer);
        pipe->queuer = NULL;
        tell_waiting(pipe->pool);
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
        cv_queue_put(&pipe->pool->waiting, &pipe->turn, pipe->priority, now_ms);
        tell_waiting(pipe->pool);
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

static void pipe_free(struct cv_pipe *pipe)
{
    if (pipe->state == PIPE_OPEN && !pipe->is_canary)
        note_held(pipe);
    leave_list(pipe);
    if (pipe->state != PIPE_IDLE && !pipe->is_canary)
        count_load(pipe->pool, -1);
    if (pipe->stream)
        cv_stream_close(pipe->stream);
    cv_tunnel_spec_unref(&pipe->spec);
    free(pipe);
}

/* The last callback of a pipe in use. */
static void pipe_end(struct cv_pipe *pipe, struct cv_status why)
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

/* The first word of the refusal says what happened (docs/PROTOCOL.md). */
static enum cv_status_id refusal(uint32_t reason, struct cv_slice text)
{
    struct cv_slice rest = text, word = cv_slice_split(&rest, ':');
    if (cv_slice_is(word, "service-refused"))
        return CV_SERVICE_REFUSED;
    if (cv_slice_is(word, "service-timeout"))
        return CV_SERVICE_TIMEOUT;
    if (cv_slice_is(word, "service-unreachable"))
        return CV_SERVICE_UNREACHABLE;
    if (cv_slice_is(word, "agent-busy"))
        return CV_CHANNEL_LIMIT;
    if (cv_slice_is(word, "agent-stopping"))
        return CV_AGENT_OFFLINE;
    /* Foreign clients: OpenSSH answers with 2 and its own words. */
    return reason == 4 ? CV_CHANNEL_LIMIT : CV_SERVICE_REFUSED;
}

static void on_stream_refused(void *arg, uint32_t reason, struct cv_slice text)
{
    struct cv_pipe *pipe = arg;
    pipe->stream = NULL;
    pipe_end(pipe, cv_status(refusal(reason, text)));
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

static size_t in_use(const struct cv_pool *pool, const char *name)
{
    size_t count = 0;
    for (const struct cv_pipe *p = pool->active; p; p = p->next)
        count += !p->is_canary && strcmp(p->spec->name, name) == 0;
    return count;
}

static bool is_held_by_concurrency(const struct cv_pool *pool, const struct cv_tunnel_spec *spec)
{
    return spec->concurrency && in_use(pool, spec->name) >= spec->concurrency;
}

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
    bool is_held = !pipe->is_canary && is_held_by_concurrency(pool, pipe->spec);
    if (cv_link_is_detached(pool->session->link) || is_held)
        return cv_status(CV_AGAIN);
    struct cv_status status =
        cv_stream_open(pool->session->link, CV_STREAM_FORWARDED, pipe->spec->name, pipe->port,
                       pipe->correlation, &stream_ops, pipe, &pipe->stream);
    return status.id == CV_CHANNEL_LIMIT ? cv_status(CV_AGAIN) : status;
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
    walk_waiting(pool, &walk);
    for (struct cv_pipe *pipe; (pipe = next_waiting(&walk));) {
        if (is_held_by_concurrency(pool, pipe->spec))
            continue; /* others may pass */
        struct cv_pipe *idle =
            find_idle(pool, pipe->spec->name, &pipe->consumer, pipe->max_idle_ms);
        struct cv_status status = idle ? cv_ok() : try_open(pipe);
        if (status.id == CV_AGAIN) {
            evict_idle(pool);
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
    while (pool->session->link && !cv_link_is_detached(pool->session->link) &&
           pool->waiting.count && serve_one(pool))
        ;
}

void cv_pool_on_capacity(struct cv_pool *pool)
{
    if (pool->waiting.count)
        cv_worker_defer(worker_of(pool), &pool->serve);
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
    for (struct cv_pipe *pipe; (pipe = first_waiting(pool, NULL));)
        pipe_end(pipe, cv_status(CV_LINK_LOST));
    while (pool->active)
        pipe_end(pool->active, cv_status(CV_LINK_LOST));
}

void cv_pool_end_tunnel(struct cv_pool *pool, const char *name, struct cv_status why)
{
    struct cv_pipe **lists[] = {&pool->idle, &pool->active};
    for (struct cv_pipe *pipe; (pipe = first_waiting(pool, name));)
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
    while ((pipe = first_waiting(pool, name)))
        pipe_end(pipe, cv_status(CV_AGENT_OFFLINE));
}

/* ---- what requests call ---- */

/* cv_limits_user_tag of whom it is for. */
static uint64_t user_tag(const struct cv_pipe *pipe)
{
    uint64_t tag;
    memcpy(&tag, pipe->consumer.bytes, sizeof tag);
    return tag;
}

struct cv_status cv_pool_open(struct cv_pool *pool, struct cv_tunnel_spec *spec, uint32_t port,
                              const struct cv_upstream_wish *wish,
                              const struct cv_upstream_ops *ops, void *arg, struct cv_pipe **out)
{
    struct cv_session *session = pool->session;
    *out = NULL;
    if (!session->link)
        return cv_status(CV_LINK_LOST);
    bool is_held = cv_link_is_detached(session->link) || is_held_by_concurrency(pool, spec);
    struct cv_pipe *pipe =
        is_held ? NULL : find_idle(pool, spec->name, &wish->consumer, wish->max_idle_ms);
    if (pipe) {
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
    if (!pipe)
        return cv_status(CV_NO_MEMORY);
    *pipe = (struct cv_pipe){.upstream = {.is_local = true},
                             .pool = pool,
                             .spec = cv_tunnel_spec_ref(spec),
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
    struct cv_status status = pool->waiting.count ? cv_status(CV_AGAIN) : try_open(pipe);
    if (cv_is_ok(status)) {
        enter(pipe, PIPE_OPENING);
        *out = pipe;
        return status;
    }
    uint64_t now_ms = cv_worker_now_ms(worker_of(pool));
    if (status.id == CV_AGAIN &&
        (pipe->is_canary || !cv_limits_queue_enter(limits_of(pool), user_tag(pipe),
                                                   pool->waiting.count, now_ms, &pipe->queuer)))
        status = cv_status(CV_QUEUE_FULL);
    enter(pipe, PIPE_WAITING);
    if (status.id != CV_AGAIN) {
        pipe_free(pipe);
        return status;
    }
    pipe->is_queued = true;
    measure_queued(pool->session, pipe->priority);
    cv_pool_on_capacity(pool); /* who waits in front may be held by another tunnel's limit */
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
    pipe->ops = NULL;
    pipe->is_reused = true;
    pipe->idle_since_ms = cv_worker_now_ms(worker_of(pool));
    count_load(pool, -1);
    enter(pipe, PIPE_IDLE);
    cv_pool_on_capacity(pool);
    if (!cv_timer_is_running(&pool->idle_timer))
        (void)cv_worker_timer_start(worker_of(pool), &pool->idle_timer, POOL_IDLE_MS);
}
