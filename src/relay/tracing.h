/* SPDX-License-Identifier: MIT
 *
 * The relay's spans: who sends them, from start-up to the end (docs/tracing.md). What is recorded
 * of a request is in consumer_private.h.
 */
#ifndef CV_RELAY_TRACING_H
#define CV_RELAY_TRACING_H

#include "base/status.h"

struct cv_relay;
struct cv_relay_tracing;
struct cv_trace_ids;
struct cv_tracer;

/* Reads the settings tracing.* and OTEL_* of `env` (like environ; NULL: none). Where no spans are
 * wanted *out is NULL. `instance` is borrowed. CV_CONFIG, CV_NO_MEMORY, CV_NO_RESOURCES. */
struct cv_status cv_relay_tracing_new(struct cv_relay *relay, const char *const *env,
                                      struct cv_relay_tracing **out, struct cv_error *error);

/* Sends what is left, for at most a second. No worker may run any more. Takes NULL. */
void cv_relay_tracing_free(struct cv_relay_tracing **tracing);

/* For its counters; NULL where nothing is traced. Any thread. */
struct cv_tracer *cv_relay_tracer(const struct cv_relay_tracing *tracing);

#endif
