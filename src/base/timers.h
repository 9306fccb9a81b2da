/* SPDX-License-Identifier: MIT
 *
 * Deadlines, ordered in a heap. A timer is a field of its owner: no memory of its own per timer, no
 * close callback, stopping is immediate. The worker drives the heap with one loop timer; a
 * simulation drives it by hand.
 * Borrows the timers; the owner stops its timer before it dies. One thread.
 */
#ifndef CV_BASE_TIMERS_H
#define CV_BASE_TIMERS_H

#include "base/status.h"

#include <stdint.h>

struct cv_timer {
    uint64_t due_ms;
    size_t index; /* place in the heap + 1; 0 when stopped */
    void (*on_due)(void *arg);
    void *arg;
};

struct cv_timers {
    struct cv_timer **heap;
    size_t count;
    size_t size;
};

void cv_timers_init(struct cv_timers *timers);
void cv_timers_done(struct cv_timers *timers);

static inline void cv_timer_init(struct cv_timer *timer, void (*on_due)(void *arg), void *arg)
{
    *timer = (struct cv_timer){.on_due = on_due, .arg = arg};
}

static inline bool cv_timer_is_running(const struct cv_timer *timer)
{
    return timer->index != 0;
}

/* Starts or moves a timer to `due_ms` on the clock of the caller. CV_NO_MEMORY leaves it as it was
 * (only starting a stopped one can fail). */
struct cv_status cv_timers_start(struct cv_timers *timers, struct cv_timer *timer, uint64_t due_ms);
void cv_timers_stop(struct cv_timers *timers, struct cv_timer *timer);

/* Calls on_due of every timer due at `now_ms`, each stopped first. Callbacks may start and stop any
 * timer. */
void cv_timers_run(struct cv_timers *timers, uint64_t now_ms);

/* When the next one is due; UINT64_MAX when there is none. */
uint64_t cv_timers_next(const struct cv_timers *timers);

#endif
