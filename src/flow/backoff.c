/* SPDX-License-Identifier: MIT */
#include "flow/backoff.h"

void cv_backoff_init(struct cv_backoff *backoff, uint64_t initial_ms, uint64_t max_ms,
                     uint64_t now_ms)
{
    *backoff = (struct cv_backoff){.initial_ms = initial_ms, .max_ms = max_ms, .since_ms = now_ms};
}

void cv_backoff_up(struct cv_backoff *backoff, uint64_t now_ms)
{
    backoff->up_ms = now_ms ? now_ms : 1;
}

void cv_backoff_lost(struct cv_backoff *backoff, uint64_t now_ms)
{
    bool was_stable = backoff->up_ms && now_ms - backoff->up_ms >= CV_BACKOFF_STABLE_MS;
    backoff->up_ms = 0;
    if (was_stable) {
        backoff->failures = 0;
        backoff->since_ms = now_ms;
    } else {
        cv_backoff_failed(backoff);
    }
}

void cv_backoff_failed(struct cv_backoff *backoff)
{
    if (backoff->failures < UINT32_MAX)
        backoff->failures++;
}

static uint64_t cap_at(const struct cv_backoff *backoff, uint64_t gone_ms)
{
    uint64_t cap = backoff->max_ms;
    if (gone_ms < CV_BACKOFF_FAST_MS)
        cap = CV_BACKOFF_FAST_CAP_MS;
    else if (gone_ms < (uint64_t)CV_BACKOFF_FAST_MS + CV_BACKOFF_MEDIUM_MS)
        cap = CV_BACKOFF_MEDIUM_CAP_MS;
    if (cap < backoff->initial_ms)
        cap = backoff->initial_ms;
    return cap < backoff->max_ms ? cap : backoff->max_ms;
}

uint64_t cv_backoff_ceiling(const struct cv_backoff *backoff, uint64_t now_ms)
{
    if (backoff->failures == 0)
        return CV_BACKOFF_FIRST_JITTER_MS;
    uint64_t cap = cap_at(backoff, now_ms - backoff->since_ms);
    unsigned doublings = backoff->failures - 1;
    if (doublings >= 63 || backoff->initial_ms > cap >> doublings)
        return cap;
    return backoff->initial_ms << doublings;
}

uint64_t cv_backoff_delay(const struct cv_backoff *backoff, uint64_t now_ms, uint64_t random)
{
    return random % (cv_backoff_ceiling(backoff, now_ms) + 1);
}
