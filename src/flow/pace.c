/* SPDX-License-Identifier: MIT */
#include "flow/pace.h"

enum {
    RTT_AGE_MS = 5 * 60 * 1000,
    LATE_MAX = 4, /* one may have met a hiccup of the machine's */
};

void cv_pace_init(struct cv_pace *pace)
{
    *pace = (struct cv_pace){.limit = CV_PACE_START, .rate = CV_PACE_START_RATE};
}

static void lower_rtt(struct cv_pace *pace, uint32_t rtt_ms, uint64_t now_ms)
{
    rtt_ms += !rtt_ms;
    if (pace->rtt_ms && rtt_ms > pace->rtt_ms)
        return;
    pace->rtt_ms = rtt_ms;
    pace->rtt_at_ms = now_ms;
}

void cv_pace_saw_rtt(struct cv_pace *pace, uint32_t rtt_ms, uint64_t now_ms)
{
    if (now_ms - pace->rtt_at_ms >= RTT_AGE_MS)
        pace->rtt_ms = 0;
    lower_rtt(pace, rtt_ms, now_ms);
}

static size_t within(size_t limit)
{
    return limit < CV_PACE_LEAST ? CV_PACE_LEAST : limit > CV_PACE_MOST ? CV_PACE_MOST : limit;
}

static void note_rate(struct cv_pace *pace, size_t len, uint32_t spent_ms, bool is_path_full)
{
    size_t rate = len / spent_ms;
    if (rate > pace->rate)
        pace->rate = rate;
    else if (is_path_full)
        pace->rate = (pace->rate + rate) / 2;
}

void cv_pace_saw_ack(struct cv_pace *pace, size_t len, uint32_t spent_ms, bool was_held,
                     uint64_t now_ms)
{
    spent_ms += !spent_ms;
    lower_rtt(pace, spent_ms, now_ms);
    uint32_t target_ms = pace->rtt_ms + CV_PACE_SLACK_MS;
    bool is_late = spent_ms > target_ms;
    note_rate(pace, len, spent_ms, is_late || was_held);
    if (is_late && pace->limit <= CV_PACE_LEAST) {
        if (++pace->late < LATE_MAX)
            return;
        pace->late = 0;
        pace->rtt_ms = spent_ms;
        pace->rtt_at_ms = now_ms;
        return;
    }
    pace->late = 0;
    if (is_late) {
        size_t fit = len * target_ms / spent_ms;
        pace->limit = within(fit > pace->limit / 2 ? fit : pace->limit / 2);
        return;
    }
    if (!was_held)
        return;
    size_t fit = pace->limit * target_ms / spent_ms;
    pace->limit = within(fit < 2 * pace->limit ? fit : 2 * pace->limit);
}

size_t cv_pace_worth(const struct cv_pace *pace, uint32_t ms, size_t most)
{
    return pace->rate < most / ms ? pace->rate * ms : most;
}
