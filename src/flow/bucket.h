/* SPDX-License-Identifier: MIT
 *
 * Token buckets, each one word: the time at which it will be full again (the "theoretical arrival
 * time" of the generic cell rate algorithm, ITU-T I.371 annex A). A take moves that time on by what
 * was taken; it is refused where the time would lie further ahead than the bucket is deep. Nothing
 * refills in the background, and a word is taken from with compare-and-swap, so that any number of
 * threads share a bucket without a lock.
 *
 * Time is monotonic, in milliseconds, and comes from the caller; threads whose clocks differ by a
 * loop turn do no harm. A bucket of zero is full. Owns nothing; any thread.
 */
#ifndef CV_FLOW_BUCKET_H
#define CV_FLOW_BUCKET_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Tokens flow in at `per_minute`, at most `burst` are kept. A rate of zero has no limit. */
struct cv_bucket_rate {
    uint64_t per_minute;
    uint64_t burst;
};

typedef atomic_uint_least64_t cv_bucket;

struct cv_bucket_state {
    uint64_t remaining; /* whole tokens that could be taken now */
    uint64_t full_ms;   /* until it is full again */
    uint64_t wait_ms;   /* until what was refused can be taken; 0 when it was not */
};

/* Highest rate and burst; more is taken for it, so that no product overflows. */
#define CV_BUCKET_MAX ((uint64_t)1 << 40)

/* Takes `count` tokens; false, and nothing taken, when there are not so many. More than `burst` are
 * never there. *state (may be NULL) says how it stands afterwards. */
bool cv_bucket_take(cv_bucket *bucket, struct cv_bucket_rate rate, uint64_t count, uint64_t now_ms,
                    struct cv_bucket_state *state);

/* Takes `count` whether or not they are there, into debt as far as `debt_max` tokens; returns how
 * many tokens it is in debt afterwards, rounded up, 0 when in none. */
uint64_t cv_bucket_force(cv_bucket *bucket, struct cv_bucket_rate rate, uint64_t count,
                         uint64_t debt_max, uint64_t now_ms);

/* How it stands. */
struct cv_bucket_state cv_bucket_look(const cv_bucket *bucket, struct cv_bucket_rate rate,
                                      uint64_t now_ms);

/* How long until it is out of debt, in milliseconds; 0 when in none. */
uint64_t cv_bucket_debt_ms(const cv_bucket *bucket, struct cv_bucket_rate rate, uint64_t now_ms);

#endif
