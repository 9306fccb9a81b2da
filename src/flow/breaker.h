/* SPDX-License-Identifier: MIT
 *
 * A circuit breaker: after so many failures in a row nothing is let through for a while, then one
 * probe at a time, and after so many probes that went well everything again.
 *
 *          failures in a row                  open_ms over: a probe
 *   CLOSED ─────────────────▶ OPEN ─────────────────────────────▶ HALF_OPEN
 *     ▲                        ▲              a probe fails            │
 *     │                        └───────────────────────────────────────┤
 *     └────────────────────────────────────────────────────────────────┘
 *                        so many probes in a row went well
 *
 * All of it is one word, changed with compare-and-swap: any number of threads share one without a
 * lock, and a request through a closed breaker that goes well only reads it. Who is let through
 * gets a ticket and says once how it went; what began before the state last changed does not count
 * any more. Time is monotonic, in milliseconds, and comes from the caller. Zero-initialised:
 * closed. Owns nothing; any thread.
 */
#ifndef CV_FLOW_BREAKER_H
#define CV_FLOW_BREAKER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

typedef atomic_uint_least64_t cv_breaker;

enum cv_breaker_state { CV_BREAKER_CLOSED, CV_BREAKER_OPEN, CV_BREAKER_HALF_OPEN };

#define CV_BREAKER_COUNT_MAX 255

struct cv_breaker_rules {
    unsigned failures;  /* in a row, 1 to CV_BREAKER_COUNT_MAX; 0: there is no breaker */
    unsigned successes; /* of probes in a row, 1 to CV_BREAKER_COUNT_MAX */
    uint64_t open_ms;
};

/* Of one that was let through. Zero-initialised: of none. */
struct cv_breaker_ticket {
    uint32_t generation;
    bool is_probe;
    bool is_held; /* its outcome is still to be told */
};

/* How it went. */
enum cv_breaker_outcome {
    CV_BREAKER_SUCCESS,
    CV_BREAKER_FAILURE,
    CV_BREAKER_NO_WORD, /* it ended before that was known, or for reasons of somebody else */
};

/* May this one through? True: *ticket is to be given to cv_breaker_tell. False: *wait_ms is when to
 * ask again, at least 1. */
bool cv_breaker_admit(cv_breaker *breaker, const struct cv_breaker_rules *rules, uint64_t now_ms,
                      struct cv_breaker_ticket *ticket, uint64_t *wait_ms);

/* Tells how it went, and ends the ticket; a ticket that is not held does nothing. True: the state
 * has changed with it, to the one that cv_breaker_look gives. A probe that has not told within
 * open_ms is not waited for. */
bool cv_breaker_tell(cv_breaker *breaker, const struct cv_breaker_rules *rules,
                     struct cv_breaker_ticket *ticket, enum cv_breaker_outcome outcome,
                     uint64_t now_ms);

/* Closes it, whatever it was: an operator's word. */
void cv_breaker_reset(cv_breaker *breaker);

struct cv_breaker_view {
    enum cv_breaker_state state;
    unsigned count;    /* failures in a row when closed, good probes when half open */
    uint64_t since_ms; /* when it opened, or the probe began; 0 when closed */
};
struct cv_breaker_view cv_breaker_look(const cv_breaker *breaker);

const char *cv_breaker_state_name(enum cv_breaker_state state); /* "half_open" */

#endif
