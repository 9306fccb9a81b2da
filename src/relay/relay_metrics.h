/* SPDX-License-Identifier: MIT
 *
 * The relay's metrics: made at start, counted by each worker in its own block (worker->metrics),
 * written out for /metrics and /api/tunnel/metrics. What is only looked at (users, breakers, the
 * process) is put in at a scrape.
 */
#ifndef CV_RELAY_RELAY_METRICS_H
#define CV_RELAY_RELAY_METRICS_H

#include "base/status.h"
#include "telemetry/metrics.h"

struct cv_consumer;
struct cv_identity;
struct cv_relay;

/* Makes relay->metrics for so many workers, unless metrics.enabled is false. CV_NO_MEMORY. */
struct cv_status cv_relay_metrics_open(struct cv_relay *relay, unsigned worker_count);

/* The value of the label tier for who asks; `identity` may be NULL. Any thread. */
unsigned cv_relay_metrics_tier(const struct cv_relay *relay, const struct cv_identity *identity);

/* Answers the current request with all numbers, in the format that it accepts; 404 when there are
 * none. On the consumer's worker. */
void relay_metrics_page(struct cv_consumer *c);

/* Which label an authentication counts under. */
unsigned cv_relay_metrics_auth(enum cv_status_id id);

#endif
