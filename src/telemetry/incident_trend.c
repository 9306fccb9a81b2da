/* SPDX-License-Identifier: MIT */
#include "telemetry/incident_trend.h"

#include "telemetry/metrics.h"

static uint64_t cell(const struct cv_metrics_snapshot *snapshot, uint32_t number)
{
    double value = snapshot->cells[number];
    return value > 0 ? (uint64_t)value : 0;
}

void cv_trend_totals(const struct cv_metrics_snapshot *snapshot, struct cv_trend_totals *totals)
{
    *totals = (struct cv_trend_totals){0};
    for (unsigned tier = 0; tier < CV_L_TIER_COUNT; tier++) {
        uint64_t failed = cell(snapshot, CV_CELL(REQUESTS, CV_L_STATUS_ERROR, tier)) +
                          cell(snapshot, CV_CELL(REQUESTS, CV_L_STATUS_TIMEOUT, tier));
        totals->failed += failed;
        totals->tried += failed + cell(snapshot, CV_CELL(REQUESTS, CV_L_STATUS_SUCCESS, tier));
    }
    for (unsigned result = 0; result < CV_L_RESULT_COUNT; result++)
        totals->attempts += cell(snapshot, CV_CELL(CONNECTIONS, result, 0));
    enum cv_status_id id;
    for (unsigned pair = 0; (id = cv_metrics_error_status(snapshot->metrics, pair)) != CV_OK;
         pair++)
        totals->errors[id] = cell(snapshot, CV_CELL(ERRORS, pair, 0));
}

void cv_trend_add(struct cv_trend *trend, uint64_t now_ms, const struct cv_trend_totals *totals)
{
    trend->newest = trend->count ? (trend->newest + 1) % CV_TREND_SLOTS : 0;
    trend->slots[trend->newest] = (struct cv_trend_slot){.at_ms = now_ms, .totals = *totals};
    if (trend->count < CV_TREND_SLOTS)
        trend->count++;
}

/* The youngest that is at least so old, else the oldest. */
static const struct cv_trend_slot *slot_before(const struct cv_trend *trend, uint64_t age_ms)
{
    const struct cv_trend_slot *newest = &trend->slots[trend->newest], *found = newest;
    for (size_t i = 1; i < trend->count; i++) {
        found = &trend->slots[(trend->newest + CV_TREND_SLOTS - i) % CV_TREND_SLOTS];
        if (newest->at_ms - found->at_ms >= age_ms)
            break;
    }
    return found;
}

/* Counters that are read while they are written may seem to go back. */
static uint64_t rise(uint64_t from, uint64_t to)
{
    return to > from ? to - from : 0;
}

void cv_trend_look(const struct cv_trend *trend, struct cv_trend_view *view)
{
    *view = (struct cv_trend_view){0};
    if (trend->count < 2)
        return;
    const struct cv_trend_slot *newest = &trend->slots[trend->newest];
    const struct cv_trend_slot *old = slot_before(trend, CV_TREND_WINDOW_MS);
    view->window.tried = rise(old->totals.tried, newest->totals.tried);
    view->window.failed = rise(old->totals.failed, newest->totals.failed);
    view->window.attempts = rise(old->totals.attempts, newest->totals.attempts);
    for (unsigned id = 0; id < CV_STATUS_COUNT; id++)
        view->window.errors[id] = rise(old->totals.errors[id], newest->totals.errors[id]);
    if (view->window.tried >= CV_TREND_REQUESTS_MIN)
        view->failed_ratio = (double)view->window.failed / (double)view->window.tried;
    old = slot_before(trend, CV_TREND_RATE_MS);
    uint64_t time_ms = newest->at_ms - old->at_ms;
    /* A burst in the first moments is not yet a rate. */
    if (time_ms >= CV_TREND_RATE_MS)
        view->attempts_per_second =
            (double)rise(old->totals.attempts, newest->totals.attempts) * 1000 / (double)time_ms;
}
