/* SPDX-License-Identifier: MIT
 *
 * How much of a link may be under way, so that it does not wait in front of a slow path. Whatever
 * stands between two ends (socket buffers, proxies, queues of routers) takes what it is given; on a
 * path of 1 Mbit/s that is half a minute of bytes, and a small answer comes behind them all. An
 * acknowledgement tells how long the bytes in front of it took: when that is longer than the
 * shortest round trip and PACE_SLACK_MS, less is put on the way, in proportion; when the limit held
 * bytes back and the time was shorter, up to twice as much.
 *
 * A queue that is somebody else's does not get shorter by this. Where the limit has come down to
 * its least and acknowledgements are late all the same, what they take counts as the round trip, so
 * that the link is not starved beside others, or by a path that has become longer.
 *
 * Pure; time in milliseconds from the caller. Owns nothing; one thread.
 */
#ifndef CV_FLOW_PACE_H
#define CV_FLOW_PACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    CV_PACE_START = 80 * 1024,       /* may be under way at first, as TCP begins with little */
    CV_PACE_LEAST = 32 * 1024,       /* always */
    CV_PACE_MOST = 64 * 1024 * 1024, /* ever */
    CV_PACE_SLACK_MS = 500,          /* an acknowledgement may be held back for some of it */
    CV_PACE_START_RATE = 320,        /* bytes a millisecond, until it is known */
};

struct cv_pace {
    size_t limit;       /* bytes that may be under way */
    uint32_t rtt_ms;    /* the shortest that was seen; 0: none yet */
    uint64_t rtt_at_ms; /* when that was */
    size_t rate;        /* bytes a millisecond: as fast as it was, or where the path was full, is */
    unsigned late;      /* acknowledgements in a row that were late with the least under way */
};

void cv_pace_init(struct cv_pace *pace);

/* A round trip without anything in front: of a ping. One that is five minutes old gives way to a
 * longer one. */
void cv_pace_saw_rtt(struct cv_pace *pace, uint32_t rtt_ms, uint64_t now_ms);

/* `len` bytes were acknowledged `spent_ms` after the last of them was put on the way; `was_held`:
 * the limit has held others back meanwhile. */
void cv_pace_saw_ack(struct cv_pace *pace, size_t len, uint32_t spent_ms, bool was_held,
                     uint64_t now_ms);

/* What the path takes in `ms`, at most `most`. */
size_t cv_pace_worth(const struct cv_pace *pace, uint32_t ms, size_t most);

#endif
