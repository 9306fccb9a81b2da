/* SPDX-License-Identifier: MIT
 *
 * How long to wait before trying again: the first try after a loss is at once (with a little
 * jitter, so that a thousand agents do not come in the same millisecond), then exponential with
 * full jitter (every delay between 0 and the ceiling is equally likely), under a cap that rises
 * with the time that has gone by since the loss. Pure: the clock and the random number come from
 * the caller. Owns nothing; one thread.
 */
#ifndef CV_FLOW_BACKOFF_H
#define CV_FLOW_BACKOFF_H

#include <stdbool.h>
#include <stdint.h>

enum {
    CV_BACKOFF_FIRST_JITTER_MS = 100,
    CV_BACKOFF_FAST_MS = 60 * 1000,        /* so long the cap is CV_BACKOFF_FAST_CAP_MS … */
    CV_BACKOFF_FAST_CAP_MS = 500,          /* … since the other side may still hold the link */
    CV_BACKOFF_MEDIUM_MS = 10 * 60 * 1000, /* and so much longer CV_BACKOFF_MEDIUM_CAP_MS */
    CV_BACKOFF_MEDIUM_CAP_MS = 4000,
    CV_BACKOFF_STABLE_MS = 2000, /* a link that was up for less counts as a failed try */
};

struct cv_backoff {
    uint64_t initial_ms; /* ceiling after the first failed try; it doubles with each */
    uint64_t max_ms;     /* ceiling in the long run */
    uint64_t since_ms;   /* when it was lost, or first tried */
    uint64_t up_ms;      /* when it came up last; 0: it is not up */
    unsigned failures;   /* tries in a row that failed */
};

/* 0 < initial_ms <= max_ms. */
void cv_backoff_init(struct cv_backoff *backoff, uint64_t initial_ms, uint64_t max_ms,
                     uint64_t now_ms);

/* A try has succeeded. */
void cv_backoff_up(struct cv_backoff *backoff, uint64_t now_ms);

/* What was up is lost. */
void cv_backoff_lost(struct cv_backoff *backoff, uint64_t now_ms);

/* A try has failed. */
void cv_backoff_failed(struct cv_backoff *backoff);

/* The longest that the next delay may be. */
uint64_t cv_backoff_ceiling(const struct cv_backoff *backoff, uint64_t now_ms);

/* The delay before the next try; `random` is any 64 bits. */
uint64_t cv_backoff_delay(const struct cv_backoff *backoff, uint64_t now_ms, uint64_t random);

#endif
