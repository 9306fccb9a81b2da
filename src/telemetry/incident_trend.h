/* SPDX-License-Identifier: MIT
 *
 * What has been counted in the last five minutes, from totals that are handed in every
 * CV_TREND_STEP_MS or so: the view of one relay on what the alerts of Prometheus see of all. The
 * same definition of an error ratio: what was cancelled or turned away is neither good nor bad.
 * Caller's memory, zeroed is empty. One thread.
 */
#ifndef CV_TELEMETRY_INCIDENT_TREND_H
#define CV_TELEMETRY_INCIDENT_TREND_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

struct cv_metrics_snapshot;

enum {
    CV_TREND_STEP_MS = 5000,
    CV_TREND_WINDOW_MS = 300000,
    CV_TREND_RATE_MS = 10000, /* of attempts to connect */
    CV_TREND_SLOTS = CV_TREND_WINDOW_MS / CV_TREND_STEP_MS + 2,
    CV_TREND_REQUESTS_MIN = 10, /* fewer say nothing */
};

/* Since the start. */
struct cv_trend_totals {
    uint64_t tried, failed; /* requests */
    uint64_t attempts;      /* to open or resume a link */
    uint64_t errors[CV_STATUS_COUNT];
};

/* Adds up what the alerts look at. */
void cv_trend_totals(const struct cv_metrics_snapshot *snapshot, struct cv_trend_totals *totals);

struct cv_trend_slot {
    uint64_t at_ms;
    struct cv_trend_totals totals;
};

struct cv_trend {
    struct cv_trend_slot slots[CV_TREND_SLOTS]; /* a ring */
    size_t count, newest;
};

/* The first one is what everything is counted from. */
void cv_trend_add(struct cv_trend *trend, uint64_t now_ms, const struct cv_trend_totals *totals);

struct cv_trend_view {
    struct cv_trend_totals window; /* of the last five minutes, or since the first was added */
    double failed_ratio;           /* 0 with fewer requests than CV_TREND_REQUESTS_MIN */
    double attempts_per_second;    /* over CV_TREND_RATE_MS, or a little longer */
};
void cv_trend_look(const struct cv_trend *trend, struct cv_trend_view *view);

#endif
