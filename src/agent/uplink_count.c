/* SPDX-License-Identifier: MIT */
#include "agent/uplink_private.h"
#include "telemetry/metrics.h"

static void count_attempt(struct cv_uplink *u, enum cv_status_id id)
{
    cv_metrics_add(u->options.metrics, CV_CELL(CONNECTIONS, cv_metrics_result(id), 0), 1);
}

void uplink_count_up(struct cv_uplink *u)
{
    uint64_t setup_ms = cv_worker_now_ms(u->worker) - u->began_ms;
    count_attempt(u, CV_OK);
    CV_OBSERVE(u->options.metrics, SETUP_DURATION, 0, 0, setup_ms * CV_MS);
    if (u->was_up)
        cv_metrics_add(u->options.metrics, CV_CELL(RECONNECTIONS, CV_L_KIND_FRESH, 0), 1);
}

void uplink_count_resumed(struct cv_uplink *u)
{
    count_attempt(u, CV_OK);
    cv_metrics_add(u->options.metrics, CV_CELL(RECONNECTIONS, CV_L_KIND_RESUMED, 0), 1);
}

void uplink_count_failed(struct cv_uplink *u, struct cv_status why)
{
    count_attempt(u, why.id);
    cv_metrics_error(u->options.metrics, why.id);
}

void uplink_count_down(struct cv_uplink *u, struct cv_status why)
{
    cv_metrics_add(u->options.metrics, CV_CELL(DISCONNECTIONS, cv_metrics_reason(why.id), 0), 1);
    cv_metrics_error(u->options.metrics, why.id);
}
