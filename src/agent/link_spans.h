/* SPDX-License-Identifier: MIT
 *
 * The agent's spans (docs/tracing.md): `link.connect` for each try for a link, `link.resume` for
 * each try to take one up again. The relay's span of the upgrade is a child of theirs. None is
 * longer than a try.
 *
 * One for all relays of a process; owns the thread that sends. The agent's thread.
 */
#ifndef CV_AGENT_LINK_SPANS_H
#define CV_AGENT_LINK_SPANS_H

#include "telemetry/tracer.h"

struct cv_agent_config;
struct cv_link_spans;
struct cv_log;
struct cv_worker;

/* Reads tracing.* and OTEL_* of `env` (like environ; NULL: none); `instance` is copied. Where no
 * spans are wanted *out is NULL. CV_CONFIG, CV_NO_MEMORY, CV_NO_RESOURCES. */
struct cv_status cv_link_spans_new(const struct cv_agent_config *config, const char *const *env,
                                   const char *instance, struct cv_log *log,
                                   struct cv_link_spans **out, struct cv_error *error);
/* Sends what is left, for at most a second. Takes NULL. */
void cv_link_spans_free(struct cv_link_spans **spans);

/* A try under way; zero-initialised. */
struct cv_link_span {
    struct cv_trace_record record;
    bool is_on;
};

/* NULL `spans`: nothing happens, here and below. */
void cv_link_span_begin(struct cv_link_span *span, const struct cv_link_spans *spans,
                        enum cv_trace_kind kind, const struct cv_worker *worker);
/* The try has ended so; nothing if none has begun. `relay` is where it went. */
void cv_link_span_end(struct cv_link_span *span, const struct cv_link_spans *spans,
                      const char *relay, uint64_t attempts, enum cv_status_id why,
                      const struct cv_worker *worker);
/* For the upgrade; false: no span is under way. */
bool cv_link_span_traceparent(const struct cv_link_span *span, char out[CV_TRACEPARENT_LEN + 1]);

#endif
