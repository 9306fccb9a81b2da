/* SPDX-License-Identifier: MIT
 *
 * Sends a tracer's records to an OTLP collector over HTTP, in a thread of its own: whatever the
 * collector does, nothing else waits for it. One request at a time, with the spans of at most
 * CV_SPAN_SENDER_BATCH records. It is sent again when the collector says 429, 502, 503 or 504,
 * after its Retry-After, or when nobody listens there; at most CV_SPAN_SENDER_TRIES times.
 * Meanwhile the rings fill, and what does not fit is dropped. All that is dropped is counted by
 * reason.
 *
 * Owns its thread, and a batch of at most CV_SPAN_SENDER_BYTES; borrows options, tracer and log.
 */
#ifndef CV_NET_SPAN_SENDER_H
#define CV_NET_SPAN_SENDER_H

#include "telemetry/trace_options.h"
#include "telemetry/tracer.h"

#define CV_SPAN_SENDER_BATCH 256
#define CV_SPAN_SENDER_BYTES ((size_t)4 * 1024 * 1024)
#define CV_SPAN_SENDER_TRIES 5

struct cv_log;
struct cv_span_sender;

/* Starts the thread. CV_NO_MEMORY, CV_NO_RESOURCES; *out is NULL then. cv_net_init was called. */
struct cv_status cv_span_sender_new(const struct cv_trace_options *options,
                                    struct cv_tracer *tracer, struct cv_log *log,
                                    struct cv_span_sender **out, struct cv_error *error);

/* Something waits; for cv_tracer_new, `sender` a struct cv_span_sender ** that may point to NULL
 * still. Any thread, never waits. */
void cv_span_sender_wake(void *sender);

/* Sends what is left, for at most `limit_ms`, and ends the thread. Nobody may record any more.
 * Takes NULL. */
void cv_span_sender_free(struct cv_span_sender **sender, uint64_t limit_ms);

#endif
