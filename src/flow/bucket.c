/* SPDX-License-Identifier: MIT */
#include "flow/bucket.h"

#include <stddef.h>

/* A minute in nanoseconds times CV_BUCKET_MAX is more than 64 bits. */
__extension__ typedef unsigned __int128 wide;

/* Times in buckets are nanoseconds: a rate of a million a minute has an interval of 60 µs. */
enum { NS_PER_MS = 1000000 };
#define NS_PER_MINUTE ((uint64_t)60 * 1000 * NS_PER_MS)

/* Nanoseconds that `count` tokens take to flow in. */
static uint64_t span_ns(struct cv_bucket_rate rate, uint64_t count)
{
    if (count > CV_BUCKET_MAX)
        count = CV_BUCKET_MAX;
    wide ns = (wide)NS_PER_MINUTE * count / rate.per_minute;
    const uint64_t max = (uint64_t)1 << 62;
    return ns < max ? (uint64_t)ns : max;
}

static struct cv_bucket_rate bounded(struct cv_bucket_rate rate)
{
    if (rate.per_minute > CV_BUCKET_MAX)
        rate.per_minute = CV_BUCKET_MAX;
    if (rate.burst > CV_BUCKET_MAX)
        rate.burst = CV_BUCKET_MAX;
    if (rate.burst == 0)
        rate.burst = 1;
    return rate;
}

static uint64_t round_up_ms(uint64_t ns)
{
    return ns / NS_PER_MS + (ns % NS_PER_MS != 0);
}

/* Of a bucket that is full again `ahead_ns` from now. */
static struct cv_bucket_state state_of(struct cv_bucket_rate rate, uint64_t ahead_ns,
                                       uint64_t depth_ns)
{
    uint64_t room_ns = ahead_ns < depth_ns ? depth_ns - ahead_ns : 0;
    uint64_t remaining = (uint64_t)((wide)room_ns * rate.per_minute / NS_PER_MINUTE);
    if (span_ns(rate, remaining + 1) <= room_ns) /* spans are rounded down */
        remaining++;
    return (struct cv_bucket_state){
        .remaining = remaining < rate.burst ? remaining : rate.burst,
        .full_ms = round_up_ms(ahead_ns),
    };
}

bool cv_bucket_take(cv_bucket *bucket, struct cv_bucket_rate rate, uint64_t count, uint64_t now_ms,
                    struct cv_bucket_state *state)
{
    if (rate.per_minute == 0) {
        if (state)
            *state = (struct cv_bucket_state){.remaining = UINT64_MAX};
        return true;
    }
    rate = bounded(rate);
    uint64_t now_ns = now_ms * NS_PER_MS;
    uint64_t cost_ns = span_ns(rate, count), depth_ns = span_ns(rate, rate.burst);
    uint64_t full_ns = atomic_load_explicit(bucket, memory_order_relaxed);
    uint64_t ahead_ns, after_ns;
    bool is_taken;
    do {
        ahead_ns = full_ns > now_ns ? full_ns - now_ns : 0;
        after_ns = ahead_ns + cost_ns;
        is_taken = after_ns <= depth_ns;
        if (!is_taken)
            break;
    } while (!atomic_compare_exchange_weak_explicit(bucket, &full_ns, now_ns + after_ns,
                                                    memory_order_relaxed, memory_order_relaxed));
    if (state) {
        *state = state_of(rate, is_taken ? after_ns : ahead_ns, depth_ns);
        if (!is_taken)
            state->wait_ms = round_up_ms(after_ns - depth_ns);
    }
    return is_taken;
}

uint64_t cv_bucket_force(cv_bucket *bucket, struct cv_bucket_rate rate, uint64_t count,
                         uint64_t debt_max, uint64_t now_ms)
{
    if (rate.per_minute == 0)
        return 0;
    rate = bounded(rate);
    uint64_t now_ns = now_ms * NS_PER_MS;
    uint64_t cost_ns = span_ns(rate, count), depth_ns = span_ns(rate, rate.burst);
    uint64_t deepest_ns = depth_ns + span_ns(rate, debt_max);
    uint64_t full_ns = atomic_load_explicit(bucket, memory_order_relaxed);
    uint64_t after_ns;
    do {
        after_ns = (full_ns > now_ns ? full_ns - now_ns : 0) + cost_ns;
        if (after_ns > deepest_ns)
            after_ns = deepest_ns;
    } while (!atomic_compare_exchange_weak_explicit(bucket, &full_ns, now_ns + after_ns,
                                                    memory_order_relaxed, memory_order_relaxed));
    if (after_ns <= depth_ns)
        return 0;
    wide debt = (wide)(after_ns - depth_ns) * rate.per_minute;
    return (uint64_t)((debt + NS_PER_MINUTE - 1) / NS_PER_MINUTE);
}

struct cv_bucket_state cv_bucket_look(const cv_bucket *bucket, struct cv_bucket_rate rate,
                                      uint64_t now_ms)
{
    if (rate.per_minute == 0)
        return (struct cv_bucket_state){.remaining = UINT64_MAX};
    rate = bounded(rate);
    uint64_t now_ns = now_ms * NS_PER_MS;
    uint64_t full_ns = atomic_load_explicit(bucket, memory_order_relaxed);
    return state_of(rate, full_ns > now_ns ? full_ns - now_ns : 0, span_ns(rate, rate.burst));
}

uint64_t cv_bucket_debt_ms(const cv_bucket *bucket, struct cv_bucket_rate rate, uint64_t now_ms)
{
    if (rate.per_minute == 0)
        return 0;
    rate = bounded(rate);
    uint64_t now_ns = now_ms * NS_PER_MS, depth_ns = span_ns(rate, rate.burst);
    uint64_t full_ns = atomic_load_explicit(bucket, memory_order_relaxed);
    uint64_t ahead_ns = full_ns > now_ns ? full_ns - now_ns : 0;
    return ahead_ns > depth_ns ? round_up_ms(ahead_ns - depth_ns) : 0;
}
