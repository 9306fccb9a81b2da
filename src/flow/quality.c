/* SPDX-License-Identifier: MIT */
#include "flow/quality.h"

#include <stddef.h>

enum {
    WORSE_AFTER = 2,
    BETTER_AFTER = 3,
    LOOK_MS = 500,
    BYTES_KEPT = 64 * 1024 * 1024, /* beyond that the past counts half */
    BYTES_MIN = 64 * 1024,         /* fewer count as so many */
};

static const struct {
    double latency_ms, loss;
} limits[] = {
    [CV_QUALITY_EXCELLENT] = {50, 1},
    [CV_QUALITY_GOOD] = {100, 3},
    [CV_QUALITY_FAIR] = {200, 5},
};

void cv_quality_init(struct cv_quality *quality)
{
    *quality = (struct cv_quality){0};
}

const char *cv_quality_name(enum cv_quality_grade grade)
{
    static const char *const names[] = {"unknown", "excellent", "good", "fair", "poor"};
    return names[(unsigned)grade < sizeof names / sizeof names[0] ? grade : CV_QUALITY_UNKNOWN];
}

static double lost_beats(const struct cv_quality *q, uint64_t now_ms)
{
    uint64_t count = q->beat_count < CV_QUALITY_BEATS ? q->beat_count : CV_QUALITY_BEATS;
    unsigned missing = 0;
    for (size_t i = 0; i < count; i++)
        missing += q->beats[i].is_missing && now_ms - q->beats[i].at_ms <= CV_QUALITY_AGE_MS;
    return 100.0 * missing / CV_QUALITY_BEATS;
}

double cv_quality_loss(const struct cv_quality *q, uint64_t now_ms)
{
    double beats = lost_beats(q, now_ms);
    double bytes = 100.0 * (double)q->resent / (double)(q->sent > BYTES_MIN ? q->sent : BYTES_MIN);
    if (bytes > 100)
        bytes = 100;
    return beats > bytes ? beats : bytes;
}

/* `share` of the thresholds. */
static enum cv_quality_grade judge(const struct cv_quality *q, uint64_t now_ms, double share)
{
    double loss = cv_quality_loss(q, now_ms);
    enum cv_quality_grade grade = CV_QUALITY_EXCELLENT;
    while (grade < CV_QUALITY_POOR && (q->latency_ms >= limits[grade].latency_ms * share ||
                                       loss >= limits[grade].loss * share))
        grade++;
    return grade;
}

static void grade(struct cv_quality *q, uint64_t now_ms)
{
    enum cv_quality_grade plain = judge(q, now_ms, 1), strict = judge(q, now_ms, 0.9);
    if (!q->has_latency)
        return;
    q->worse = plain > q->grade ? q->worse + 1 : 0;
    q->better = strict < q->grade ? q->better + 1 : 0;
    if (q->grade == CV_QUALITY_UNKNOWN || q->worse >= WORSE_AFTER)
        q->grade = plain;
    else if (q->better >= BETTER_AFTER)
        q->grade = strict;
    else
        return;
    q->worse = q->better = 0;
}

static void note(struct cv_quality *q, uint64_t now_ms, bool is_missing)
{
    size_t at = (size_t)(q->beat_count++ % CV_QUALITY_BEATS);
    q->beats[at].at_ms = now_ms;
    q->beats[at].is_missing = is_missing;
}

void cv_quality_answered(struct cv_quality *q, uint64_t now_ms, uint32_t rtt_ms)
{
    note(q, now_ms, false);
    if (q->has_latency) {
        uint32_t change = rtt_ms > q->last_ms ? rtt_ms - q->last_ms : q->last_ms - rtt_ms;
        q->latency_ms += ((double)rtt_ms - q->latency_ms) / 8; /* RFC 6298 §2 */
        q->jitter_ms += ((double)change - q->jitter_ms) / 16;  /* RFC 3550 §6.4.1 */
    } else {
        q->latency_ms = rtt_ms;
        q->has_latency = true;
    }
    q->last_ms = rtt_ms;
    grade(q, now_ms);
}

void cv_quality_missed(struct cv_quality *q, uint64_t now_ms)
{
    q->missed++;
    note(q, now_ms, true);
    grade(q, now_ms);
}

void cv_quality_resent(struct cv_quality *q, uint64_t sent, uint64_t resent)
{
    q->sent += sent;
    q->resent += resent;
    while (q->sent > BYTES_KEPT) {
        q->sent /= 2;
        q->resent /= 2;
    }
}

void cv_quality_moved(struct cv_quality *q, uint64_t now_ms, uint64_t bytes_in, uint64_t bytes_out)
{
    uint64_t past_ms = now_ms - q->moved_ms;
    if (q->has_moved && past_ms < LOOK_MS)
        return;
    bool is_same = q->has_moved && bytes_in >= q->moved_in && bytes_out >= q->moved_out;
    q->in_per_s = is_same ? (double)(bytes_in - q->moved_in) * 1000 / (double)past_ms : 0;
    q->out_per_s = is_same ? (double)(bytes_out - q->moved_out) * 1000 / (double)past_ms : 0;
    q->has_moved = true;
    q->moved_ms = now_ms;
    q->moved_in = bytes_in;
    q->moved_out = bytes_out;
}
