/* SPDX-License-Identifier: MIT
 *
 * W3C Trace Context: of which trace something is a part, read from and written to the fields
 * traceparent and tracestate (https://www.w3.org/TR/trace-context-2/), and whether it is sampled.
 * Pure: random bytes come in from outside. Owns nothing; any thread.
 */
#ifndef CV_TELEMETRY_TRACE_CONTEXT_H
#define CV_TELEMETRY_TRACE_CONTEXT_H

#include "base/buf.h"
#include "base/slice.h"
#include "base/status.h"

#define CV_TRACE_ID_LEN 16
#define CV_SPAN_ID_LEN 8
#define CV_TRACEPARENT_LEN 55

/* What of a tracestate goes on (§3.3.1.5: at least so much). */
#define CV_TRACESTATE_MAX 512
#define CV_TRACESTATE_MEMBERS_MAX 32

enum {
    CV_TRACE_SAMPLED = 1, /* whoever sent it may have recorded it */
    CV_TRACE_RANDOM = 2,  /* the trace id is random in its last seven bytes */
};

/* A span's name in the world. */
struct cv_trace_ids {
    uint8_t trace_id[CV_TRACE_ID_LEN];
    uint8_t span_id[CV_SPAN_ID_LEN];
    uint8_t flags;
};

/* Reads a traceparent strictly (§3.2): lower-case hex, no id that is all zero; of a version to come
 * the part that is known (§3.2.4), of version ff nothing. False: it is none, *ids is untouched. */
bool cv_traceparent_parse(struct cv_slice text, struct cv_trace_ids *ids);

/* Version 00, with a NUL; flags that are not known are left out. */
void cv_traceparent_write(const struct cv_trace_ids *ids, char out[CV_TRACEPARENT_LEN + 1]);

/* Appends what goes on of a tracestate (all its lines, joined with commas): members as they came,
 * at most CV_TRACESTATE_MEMBERS_MAX of them and CV_TRACESTATE_MAX bytes; members over 128 bytes go
 * first, then the last ones (§3.3.1.5). Nothing when it breaks the grammar. CV_NO_MEMORY,
 * CV_NO_RESOURCES; a part may stand in `out` then. */
struct cv_status cv_tracestate_write(struct cv_slice joined, struct cv_buf *out);

/* What OTEL_TRACES_SAMPLER names. */
enum cv_sampler_root { CV_SAMPLER_ALWAYS_ON, CV_SAMPLER_ALWAYS_OFF, CV_SAMPLER_RATIO };

struct cv_sampler {
    enum cv_sampler_root root;
    bool is_parent_based; /* what the sender has decided holds; `root` is for those without one */
    uint64_t bound;       /* of CV_SAMPLER_RATIO: below it the trace is sampled, of 2^63 */
};

/* "always_on", "always_off", "traceidratio", "parentbased_always_on", "parentbased_always_off",
 * "parentbased_traceidratio"; `arg` is the ratio, 0 to 1, NULL or "" for 1. False: it is none of
 * these, or the ratio makes no sense; *sampler is untouched. */
bool cv_sampler_parse(const char *name, const char *arg, struct cv_sampler *sampler);

/* `parent` is NULL where nobody has sent one. */
bool cv_sampler_decide(const struct cv_sampler *sampler, const struct cv_trace_ids *parent,
                       const uint8_t trace_id[CV_TRACE_ID_LEN]);

#endif
