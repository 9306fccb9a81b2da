/* SPDX-License-Identifier: MIT */
#include "telemetry/tracer.h"

#include <stdlib.h>
#include <string.h>

/* `tail` is moved by its thread alone, `head` by the sending thread alone. */
struct cv_trace_queue {
    struct cv_tracer *tracer;
    struct cv_trace_record *records; /* CV_TRACE_QUEUE_RECORDS */
    _Alignas(64) atomic_size_t tail;
    _Alignas(64) atomic_size_t head;
};

struct cv_tracer {
    struct cv_sampler sampler;
    struct cv_trace_queue *queues;
    unsigned queue_count;
    unsigned next_queue; /* sending thread: whose turn it is */
    void (*on_waiting)(void *arg);
    void *arg;
    atomic_bool is_told; /* that something waits */
    atomic_uint_fast64_t sent;
    atomic_uint_fast64_t dropped[CV_TRACE_DROP_COUNT];
};

const char *cv_trace_drop_name(enum cv_trace_drop reason)
{
    static const char *const names[CV_TRACE_DROP_COUNT] = {"queue_full", "unreachable", "rejected",
                                                           "shutdown", "no_memory"};
    return (unsigned)reason < CV_TRACE_DROP_COUNT ? names[reason] : "";
}

unsigned cv_trace_record_spans(const struct cv_trace_record *record)
{
    if (record->kind != CV_TRACE_REQUEST || !record->forward_ns)
        return 1;
    return record->open_ns ? 4 : 3;
}

void cv_trace_put(struct cv_trace_queue *queue, const struct cv_trace_record *record)
{
    struct cv_tracer *tracer = queue->tracer;
    size_t tail = atomic_load_explicit(&queue->tail, memory_order_relaxed);
    size_t used = tail - atomic_load_explicit(&queue->head, memory_order_acquire);
    if (used == CV_TRACE_QUEUE_RECORDS) {
        cv_tracer_count_dropped(tracer, CV_TRACE_DROP_QUEUE_FULL, cv_trace_record_spans(record));
        return;
    }
    queue->records[tail % CV_TRACE_QUEUE_RECORDS] = *record;
    atomic_store_explicit(&queue->tail, tail + 1, memory_order_release);
    if (used + 1 >= CV_TRACE_QUEUE_RECORDS / 2 && tracer->on_waiting &&
        !atomic_exchange_explicit(&tracer->is_told, true, memory_order_relaxed))
        tracer->on_waiting(tracer->arg);
}

static size_t take_from(struct cv_trace_queue *queue, struct cv_trace_record *records, size_t max)
{
    size_t head = atomic_load_explicit(&queue->head, memory_order_relaxed);
    size_t count = atomic_load_explicit(&queue->tail, memory_order_acquire) - head;
    if (count > max)
        count = max;
    for (size_t i = 0; i < count; i++)
        records[i] = queue->records[(head + i) % CV_TRACE_QUEUE_RECORDS];
    atomic_store_explicit(&queue->head, head + count, memory_order_release);
    return count;
}

size_t cv_tracer_take(struct cv_tracer *tracer, struct cv_trace_record *records, size_t max)
{
    size_t count = 0;
    atomic_store_explicit(&tracer->is_told, false, memory_order_relaxed);
    for (unsigned i = 0; i < tracer->queue_count && count < max; i++) {
        struct cv_trace_queue *queue = &tracer->queues[tracer->next_queue++ % tracer->queue_count];
        count += take_from(queue, records + count, max - count);
    }
    return count;
}

struct cv_status cv_tracer_new(const struct cv_sampler *sampler, unsigned queues,
                               void (*on_waiting)(void *arg), void *arg, struct cv_tracer **out)
{
    struct cv_tracer *tracer = calloc(1, sizeof *tracer);
    *out = NULL;
    if (!tracer)
        return cv_status(CV_NO_MEMORY);
    tracer->sampler = *sampler;
    tracer->on_waiting = on_waiting;
    tracer->arg = arg;
    tracer->queues =
        aligned_alloc(_Alignof(struct cv_trace_queue), queues * sizeof *tracer->queues);
    bool is_whole = tracer->queues != NULL;
    for (unsigned i = 0; is_whole && i < queues; i++) {
        struct cv_trace_queue *queue = &tracer->queues[i];
        memset(queue, 0, sizeof *queue);
        queue->tracer = tracer;
        queue->records = calloc(CV_TRACE_QUEUE_RECORDS, sizeof *queue->records);
        tracer->queue_count = i + 1;
        is_whole = queue->records != NULL;
    }
    if (!is_whole)
        cv_tracer_free(&tracer);
    *out = tracer;
    return cv_status(is_whole ? CV_OK : CV_NO_MEMORY);
}

void cv_tracer_free(struct cv_tracer **out)
{
    struct cv_tracer *tracer = *out;
    *out = NULL;
    if (!tracer)
        return;
    for (unsigned i = 0; tracer->queues && i < tracer->queue_count; i++)
        free(tracer->queues[i].records);
    free(tracer->queues);
    free(tracer);
}

const struct cv_sampler *cv_tracer_sampler(const struct cv_tracer *tracer)
{
    return &tracer->sampler;
}

struct cv_trace_queue *cv_tracer_queue(struct cv_tracer *tracer, unsigned index)
{
    return tracer ? &tracer->queues[index] : NULL;
}

void cv_tracer_count_sent(struct cv_tracer *tracer, uint64_t spans)
{
    atomic_fetch_add_explicit(&tracer->sent, spans, memory_order_relaxed);
}

void cv_tracer_count_dropped(struct cv_tracer *tracer, enum cv_trace_drop reason, uint64_t spans)
{
    atomic_fetch_add_explicit(&tracer->dropped[reason], spans, memory_order_relaxed);
}

uint64_t cv_tracer_sent(const struct cv_tracer *tracer)
{
    return tracer ? atomic_load_explicit(&tracer->sent, memory_order_relaxed) : 0;
}

uint64_t cv_tracer_dropped(const struct cv_tracer *tracer, enum cv_trace_drop reason)
{
    return tracer ? atomic_load_explicit(&tracer->dropped[reason], memory_order_relaxed) : 0;
}
