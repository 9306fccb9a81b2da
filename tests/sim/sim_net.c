/* SPDX-License-Identifier: MIT */
#include "sim_net.h"

#include <stdlib.h>
#include <string.h>

struct segment {
    struct segment *next;
    uint64_t due_ms;
    size_t len, taken;
    uint8_t data[];
};

/* What goes from one end to the other. */
struct way {
    struct segment *first, **last;
    uint64_t delivered;
    size_t waiting; /* in the sender's kernel and under way */
    uint64_t last_due_ms;
    bool is_dead, has_fin, is_fin_told;
};

struct cv_conn {
    struct sim_path *path;
    enum sim_side side;
    const struct cv_conn_ops *ops; /* NULL: disowned */
    void *arg;
    struct cv_buf out;
    size_t low, high;
    bool is_congested, is_lingering;
    struct cv_defer flush;
    struct cv_timer linger;
};

struct sim_path {
    struct sim_path *next;
    struct cv_worker *worker;
    struct sim_path_options options;
    struct cv_conn *ends[SIM_SIDES];
    struct way ways[SIM_SIDES]; /* by the end that sends */
    uint64_t told_ms[SIM_SIDES];
    bool is_told_by_eof[SIM_SIDES];
    bool is_cut;
};

struct cv_worker {
    uint64_t now_ms;
    struct cv_timers timers;
    struct cv_defer ring;
    struct sim_path *paths;
    unsigned cuts;
    uint64_t bytes[SIM_SIDES];
};

static void *must(void *memory)
{
    if (!memory)
        abort();
    return memory;
}

/* ---- the worker ---- */

uint64_t cv_worker_now_ms(const struct cv_worker *worker)
{
    return worker->now_ms;
}

uint64_t cv_worker_now_ns(const struct cv_worker *worker)
{
    return worker->now_ms * 1000000;
}

struct cv_status cv_worker_timer_start(struct cv_worker *worker, struct cv_timer *timer,
                                       uint64_t delay_ms)
{
    return cv_timers_start(&worker->timers, timer, worker->now_ms + delay_ms + !delay_ms);
}

void cv_worker_timer_stop(struct cv_worker *worker, struct cv_timer *timer)
{
    cv_timers_stop(&worker->timers, timer);
}

void cv_worker_defer(struct cv_worker *worker, struct cv_defer *defer)
{
    if (defer->next)
        return;
    defer->prev = worker->ring.prev;
    defer->next = &worker->ring;
    defer->prev->next = defer;
    worker->ring.prev = defer;
}

void cv_defer_cancel(struct cv_defer *defer)
{
    if (!defer->next)
        return;
    defer->prev->next = defer->next;
    defer->next->prev = defer->prev;
    defer->prev = defer->next = NULL;
}

static void run_deferred(struct cv_worker *worker)
{
    while (worker->ring.next != &worker->ring) {
        struct cv_defer *defer = worker->ring.next;
        cv_defer_cancel(defer);
        defer->on_run(defer->arg);
    }
}

/* ---- connections ---- */

static void conn_free(struct cv_conn *conn)
{
    conn->path->ends[conn->side] = NULL;
    cv_defer_cancel(&conn->flush);
    cv_timers_stop(&conn->path->worker->timers, &conn->linger);
    cv_buf_done(&conn->out);
    free(conn);
}

static void on_linger(void *arg)
{
    conn_free(arg);
}

/* To the kernel, as far as it takes it. */
static void push(struct cv_conn *conn)
{
    struct sim_path *path = conn->path;
    struct way *way = &path->ways[conn->side];
    while (cv_buf_len(&conn->out) && way->waiting < path->options.socket_bytes) {
        struct cv_slice rest = cv_buf_slice(&conn->out);
        size_t room = path->options.socket_bytes - way->waiting;
        size_t len = rest.len < room ? rest.len : room;
        if (len > path->options.segment)
            len = path->options.segment;
        struct segment *segment = must(calloc(1, sizeof *segment + len));
        segment->len = len;
        segment->due_ms = path->worker->now_ms + path->options.delay_ms;
        if (segment->due_ms < way->last_due_ms)
            segment->due_ms = way->last_due_ms;
        way->last_due_ms = segment->due_ms;
        memcpy(segment->data, rest.data, len);
        *way->last = segment;
        way->last = &segment->next;
        way->waiting += len;
        cv_buf_consume(&conn->out, len);
    }
    if (conn->is_lingering && !cv_buf_len(&conn->out))
        way->has_fin = true;
    if (cv_buf_len(&conn->out) > conn->high)
        conn->is_congested = true;
    if (conn->is_congested && cv_buf_len(&conn->out) <= conn->low) {
        conn->is_congested = false;
        if (conn->ops && conn->ops->on_writable)
            conn->ops->on_writable(conn->arg);
    }
}

static void on_flush(void *arg)
{
    push(arg);
}

void cv_conn_flush(struct cv_conn *conn)
{
    cv_worker_defer(conn->path->worker, &conn->flush);
}

struct cv_buf *cv_conn_out(struct cv_conn *conn)
{
    return &conn->out;
}

uint64_t cv_conn_progress(const struct cv_conn *conn)
{
    return conn->path->ways[conn->side].delivered;
}

const struct cv_addr *cv_conn_local_addr(struct cv_conn *conn)
{
    (void)conn;
    return NULL;
}

void cv_conn_set_marks(struct cv_conn *conn, size_t low, size_t high, size_t cap)
{
    conn->low = low;
    conn->high = high;
    conn->out.cap = cap;
}

void cv_conn_set_notsent_lowat(struct cv_conn *conn, uint32_t bytes)
{
    (void)conn;
    (void)bytes;
}

void cv_conn_set_user_timeout(struct cv_conn *conn, uint32_t timeout_ms)
{
    (void)conn;
    (void)timeout_ms;
}

void cv_conn_set_ops(struct cv_conn *conn, const struct cv_conn_ops *ops, void *arg)
{
    conn->ops = ops;
    conn->arg = arg;
}

void cv_conn_disown(struct cv_conn *conn)
{
    conn->ops = NULL;
}

void cv_conn_close_lingering(struct cv_conn *conn, uint64_t timeout_ms)
{
    conn->is_lingering = true;
    (void)cv_worker_timer_start(conn->path->worker, &conn->linger, timeout_ms);
    cv_conn_flush(conn);
}

/* ---- paths ---- */

static struct cv_conn *conn_new(struct sim_path *path, enum sim_side side)
{
    struct cv_conn *conn = must(calloc(1, sizeof *conn));
    conn->path = path;
    conn->side = side;
    cv_buf_init(&conn->out, (size_t)1 << 20);
    cv_conn_set_marks(conn, (size_t)1 << 16, (size_t)1 << 18, (size_t)1 << 20);
    cv_defer_init(&conn->flush, on_flush, conn);
    cv_timer_init(&conn->linger, on_linger, conn);
    return conn;
}

struct sim_path *sim_path_new(struct cv_worker *worker, const struct sim_path_options *options,
                              struct cv_conn *ends[SIM_SIDES])
{
    struct sim_path *path = must(calloc(1, sizeof *path));
    path->worker = worker;
    path->options = *options;
    path->next = worker->paths;
    worker->paths = path;
    for (int side = 0; side < SIM_SIDES; side++) {
        ends[side] = path->ends[side] = conn_new(path, (enum sim_side)side);
        path->ways[side].last = &path->ways[side].first;
        path->told_ms[side] = SIM_NEVER;
    }
    return path;
}

static uint64_t later(uint64_t now_ms, uint64_t delay_ms)
{
    return delay_ms == SIM_NEVER ? SIM_NEVER : now_ms + delay_ms;
}

static void cut(struct sim_path *path)
{
    const struct sim_cut *how = &path->options.cut;
    path->is_cut = true;
    path->worker->cuts++;
    for (int side = 0; side < SIM_SIDES; side++) {
        path->ways[side].is_dead |= !how->is_one_way || side == how->way;
        path->told_ms[side] = later(path->worker->now_ms, how->learns_ms[side]);
        path->is_told_by_eof[side] = how->is_eof[side];
    }
}

static void drop_segment(struct way *way)
{
    struct segment *segment = way->first;
    way->first = segment->next;
    if (!way->first)
        way->last = &way->first;
    free(segment);
}

/* The peer's kernel answers bytes for a socket that is gone with a reset. */
static void bounce(struct sim_path *path, enum sim_side from)
{
    if (path->is_cut || path->told_ms[from] != SIM_NEVER)
        return;
    path->told_ms[from] = path->worker->now_ms + path->options.delay_ms;
    path->is_told_by_eof[from] = false;
}

/* One segment that is due, cut short where the schedule says. */
static void deliver(struct sim_path *path, enum sim_side from)
{
    struct way *way = &path->ways[from];
    struct segment *segment = way->first;
    const struct sim_cut *how = &path->options.cut;
    if (way->is_dead || !segment || segment->due_ms > path->worker->now_ms)
        return;
    size_t len = segment->len;
    bool is_last = !path->is_cut && how->way == from && how->offset < way->delivered + len;
    if (is_last)
        len = (size_t)(how->offset - way->delivered);
    way->delivered += len;
    if (path->worker->bytes[from] < way->delivered)
        path->worker->bytes[from] = way->delivered;
    way->waiting -= len;
    if (is_last)
        cut(path);
    struct cv_conn *to = path->ends[!from];
    if (!to)
        bounce(path, from);
    else if (to->ops && len)
        to->ops->on_data(to->arg, segment->data, len);
    drop_segment(way);
    if (path->ends[from])
        cv_conn_flush(path->ends[from]);
}

static void tell_eof(struct cv_conn *conn)
{
    if (conn->is_lingering)
        conn_free(conn);
    else if (conn->ops && conn->ops->on_eof)
        conn->ops->on_eof(conn->arg);
}

static void tell_reset(struct cv_conn *conn)
{
    const struct cv_conn_ops *ops = conn->ops;
    void *arg = conn->arg;
    if (ops)
        ops->on_closed(arg, cv_status(CV_CONN_RESET), NULL);
    conn_free(conn);
}

static void tell(struct sim_path *path, enum sim_side side)
{
    struct way *from_peer = &path->ways[!side];
    struct cv_conn *conn = path->ends[side];
    if (conn && path->told_ms[side] <= path->worker->now_ms) {
        path->told_ms[side] = SIM_NEVER;
        if (path->is_told_by_eof[side])
            tell_eof(conn);
        else
            tell_reset(conn);
        return;
    }
    if (from_peer->has_fin && !from_peer->first && !from_peer->is_dead && !from_peer->is_fin_told) {
        from_peer->is_fin_told = true;
        if (conn)
            tell_eof(conn);
    }
}

static void path_free(struct sim_path *path)
{
    for (int side = 0; side < SIM_SIDES; side++) {
        if (path->ends[side])
            conn_free(path->ends[side]);
        while (path->ways[side].first)
            drop_segment(&path->ways[side]);
    }
    free(path);
}

static void reap(struct cv_worker *worker)
{
    for (struct sim_path **at = &worker->paths; *at;) {
        struct sim_path *path = *at;
        if (path->ends[SIM_AGENT] || path->ends[SIM_RELAY]) {
            at = &path->next;
            continue;
        }
        *at = path->next;
        path_free(path);
    }
}

/* ---- time ---- */

struct cv_worker *sim_worker_new(void)
{
    struct cv_worker *worker = must(calloc(1, sizeof *worker));
    /* Zero means "none" in some of the transport's fields, as it may: no machine is that young. */
    worker->now_ms = 1000000;
    cv_timers_init(&worker->timers);
    worker->ring.next = worker->ring.prev = &worker->ring;
    return worker;
}

void sim_worker_free(struct cv_worker *worker)
{
    while (worker->paths) {
        struct sim_path *path = worker->paths;
        worker->paths = path->next;
        path_free(path);
    }
    cv_timers_done(&worker->timers);
    free(worker);
}

uint64_t sim_worker_next(const struct cv_worker *worker)
{
    uint64_t next = cv_timers_next(&worker->timers);
    if (worker->ring.next != &worker->ring)
        return worker->now_ms;
    for (const struct sim_path *path = worker->paths; path; path = path->next) {
        for (int side = 0; side < SIM_SIDES; side++) {
            const struct way *way = &path->ways[side];
            if (!way->is_dead && way->first && way->first->due_ms < next)
                next = way->first->due_ms;
            if (!way->is_dead && !way->first && way->has_fin && !way->is_fin_told)
                next = worker->now_ms;
            if (path->ends[side] && path->told_ms[side] < next)
                next = path->told_ms[side];
        }
    }
    return next > worker->now_ms || next == SIM_NEVER ? next : worker->now_ms;
}

void sim_worker_turn(struct cv_worker *worker, uint64_t now_ms)
{
    worker->now_ms = now_ms;
    cv_timers_run(&worker->timers, now_ms);
    run_deferred(worker);
    for (struct sim_path *path = worker->paths; path; path = path->next) {
        for (int side = 0; side < SIM_SIDES; side++) {
            deliver(path, (enum sim_side)side);
            run_deferred(worker);
            tell(path, (enum sim_side)side);
            run_deferred(worker);
        }
    }
    reap(worker);
}

unsigned sim_worker_cuts(const struct cv_worker *worker)
{
    return worker->cuts;
}

uint64_t sim_worker_bytes(const struct cv_worker *worker, enum sim_side from)
{
    return worker->bytes[from];
}
