/* SPDX-License-Identifier: MIT
 *
 * How good a connection is, from its signs of life: latency and jitter of heartbeats, those that
 * went missing, bytes that had to be sent again. One word for people, which does not flicker:
 * it gets worse when two heartbeats in a row say so, better when three in a row are better by a
 * tenth of the threshold. Pure: the clock comes from the caller. Owns nothing; one thread.
 */
#ifndef CV_FLOW_QUALITY_H
#define CV_FLOW_QUALITY_H

#include <stdbool.h>
#include <stdint.h>

/*            latency   loss
 * excellent  < 50 ms   < 1 %
 * good       < 100 ms  < 3 %
 * fair       < 200 ms  < 5 %
 * poor       anything else */
enum cv_quality_grade {
    CV_QUALITY_UNKNOWN, /* no heartbeat was answered yet */
    CV_QUALITY_EXCELLENT,
    CV_QUALITY_GOOD,
    CV_QUALITY_FAIR,
    CV_QUALITY_POOR,
};

enum {
    /* The loss is judged by the last heartbeats that are not older than this. Fewer count as so
     * many: one that is missing of three is no third. */
    CV_QUALITY_BEATS = 64,
    CV_QUALITY_AGE_MS = 10 * 60 * 1000,
};

struct cv_quality {
    struct {
        uint64_t at_ms;
        bool is_missing;
    } beats[CV_QUALITY_BEATS]; /* a ring */
    uint64_t beat_count;       /* ever */
    uint64_t missed;           /* ever */
    double latency_ms, jitter_ms;
    uint32_t last_ms;
    bool has_latency;
    uint64_t sent, resent; /* bytes, of late: both are halved now and then */
    enum cv_quality_grade grade;
    unsigned worse, better;                 /* heartbeats in a row that say so */
    uint64_t moved_ms, moved_in, moved_out; /* the last look at the counters */
    double in_per_s, out_per_s;
    bool has_moved;
};

void cv_quality_init(struct cv_quality *quality);

/* A heartbeat was answered after `rtt_ms`. */
void cv_quality_answered(struct cv_quality *quality, uint64_t now_ms, uint32_t rtt_ms);

/* A heartbeat was not answered, or the connection broke. */
void cv_quality_missed(struct cv_quality *quality, uint64_t now_ms);

/* Of `sent` bytes more, `resent` were sent for the second time. */
void cv_quality_resent(struct cv_quality *quality, uint64_t sent, uint64_t resent);

/* The counters of bytes as they are now; they may begin anew. Rates are over the time between two
 * calls, of which those within 500 ms are left out. */
void cv_quality_moved(struct cv_quality *quality, uint64_t now_ms, uint64_t bytes_in,
                      uint64_t bytes_out);

/* Lost in percent: heartbeats or bytes, whichever is more. */
double cv_quality_loss(const struct cv_quality *quality, uint64_t now_ms);

const char *cv_quality_name(enum cv_quality_grade grade); /* "excellent"; "unknown" */

#endif
