/* SPDX-License-Identifier: MIT */
#include "base/timers.h"

#include <stdlib.h>

enum { TIMERS_FIRST_SIZE = 64 };

void cv_timers_init(struct cv_timers *timers)
{
    *timers = (struct cv_timers){0};
}

void cv_timers_done(struct cv_timers *timers)
{
    for (size_t i = 0; i < timers->count; i++)
        timers->heap[i]->index = 0;
    free(timers->heap);
    *timers = (struct cv_timers){0};
}

static void put(struct cv_timers *timers, size_t at, struct cv_timer *timer)
{
    timers->heap[at] = timer;
    timer->index = at + 1;
}

static void sift_up(struct cv_timers *timers, size_t at)
{
    struct cv_timer *timer = timers->heap[at];
    while (at > 0) {
        size_t parent = (at - 1) / 2;
        if (timers->heap[parent]->due_ms <= timer->due_ms)
            break;
        put(timers, at, timers->heap[parent]);
        at = parent;
    }
    put(timers, at, timer);
}

static void sift_down(struct cv_timers *timers, size_t at)
{
    struct cv_timer *timer = timers->heap[at];
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= timers->count)
            break;
        if (child + 1 < timers->count &&
            timers->heap[child + 1]->due_ms < timers->heap[child]->due_ms)
            child++;
        if (timer->due_ms <= timers->heap[child]->due_ms)
            break;
        put(timers, at, timers->heap[child]);
        at = child;
    }
    put(timers, at, timer);
}

struct cv_status cv_timers_start(struct cv_timers *timers, struct cv_timer *timer, uint64_t due_ms)
{
    if (timer->index) {
        uint64_t old = timer->due_ms;
        timer->due_ms = due_ms;
        if (due_ms < old)
            sift_up(timers, timer->index - 1);
        else if (due_ms > old)
            sift_down(timers, timer->index - 1);
        return cv_ok();
    }
    if (timers->count == timers->size) {
        size_t size = timers->size ? timers->size * 2 : TIMERS_FIRST_SIZE;
        struct cv_timer **heap = realloc(timers->heap, size * sizeof(struct cv_timer *));
        if (!heap)
            return cv_status(CV_NO_MEMORY);
        timers->heap = heap;
        timers->size = size;
    }
    timer->due_ms = due_ms;
    timers->count++;
    put(timers, timers->count - 1, timer);
    sift_up(timers, timers->count - 1);
    return cv_ok();
}

void cv_timers_stop(struct cv_timers *timers, struct cv_timer *timer)
{
    if (!timer->index)
        return;
    size_t at = timer->index - 1;
    timer->index = 0;
    timers->count--;
    if (at == timers->count)
        return;
    struct cv_timer *last = timers->heap[timers->count];
    put(timers, at, last);
    sift_up(timers, at);
    sift_down(timers, last->index - 1);
}

void cv_timers_run(struct cv_timers *timers, uint64_t now_ms)
{
    while (timers->count && timers->heap[0]->due_ms <= now_ms) {
        struct cv_timer *timer = timers->heap[0];
        cv_timers_stop(timers, timer);
        timer->on_due(timer->arg);
    }
}

uint64_t cv_timers_next(const struct cv_timers *timers)
{
    return timers->count ? timers->heap[0]->due_ms : UINT64_MAX;
}
