/* SPDX-License-Identifier: MIT
 *
 * What has happened in the last CV_WINDOW_MS: a sketch of latencies and a few counts, for numbers
 * that people look at without a query language (p95 now, success rate now). Kept in slots of
 * CV_WINDOW_SLOT_MS; the oldest is emptied for what is new.
 *
 * Caller's memory, zeroed is empty. One thread writes; a reader on another thread may miss or see
 * half of the slot that is just being emptied.
 */
#ifndef CV_TELEMETRY_WINDOW_H
#define CV_TELEMETRY_WINDOW_H

#include "telemetry/sketch.h"

enum {
    CV_WINDOW_SLOTS = 10,
    CV_WINDOW_SLOT_MS = 30000,
    CV_WINDOW_MS = CV_WINDOW_SLOTS * CV_WINDOW_SLOT_MS,
};

enum cv_window_count {
    CV_WINDOW_REQUESTS_OK,
    CV_WINDOW_REQUESTS,
    CV_WINDOW_CONNECTIONS_OK,
    CV_WINDOW_CONNECTIONS,
    CV_WINDOW_COUNTS
};

struct cv_window_slot {
    _Atomic uint64_t number; /* of the slot since the clock began, from 1; 0: in no use */
    _Atomic uint32_t counts[CV_WINDOW_COUNTS];
    struct cv_sketch latency; /* microseconds */
};

struct cv_window {
    struct cv_window_slot slots[CV_WINDOW_SLOTS];
};

/* `now_ms` is monotonic. */
void cv_window_count(struct cv_window *window, uint64_t now_ms, enum cv_window_count what);
void cv_window_latency(struct cv_window *window, uint64_t now_ms, uint64_t latency_us);

/* Several windows, such as those of all workers, as one; zeroed at first. */
struct cv_window_sum {
    uint64_t counts[CV_WINDOW_COUNTS];
    struct cv_sketch latency;
};
void cv_window_merge(struct cv_window_sum *sum, const struct cv_window *window, uint64_t now_ms);

/* Of `all`, the part that is `good`; 1 when there was nothing. */
double cv_window_ratio(uint64_t good, uint64_t all);

#endif
