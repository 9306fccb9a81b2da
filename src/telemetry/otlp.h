/* SPDX-License-Identifier: MIT
 *
 * Records of a tracer as an ExportTraceServiceRequest of OTLP 1, which a collector takes at
 * /v1/traces, and what its answer says. Names of attributes are those of OpenTelemetry's HTTP
 * conventions (1.44), ours begin with "culvert.". docs/tracing.md has the spans.
 *
 * Owns nothing; one thread.
 */
#ifndef CV_TELEMETRY_OTLP_H
#define CV_TELEMETRY_OTLP_H

#include "base/buf.h"
#include "telemetry/tracer.h"

#define CV_OTLP_ATTRIBUTES_MAX 32

/* One attribute of the resource: who sends. */
struct cv_otlp_attribute {
    const char *key, *value;
};

struct cv_otlp_resource {
    struct cv_otlp_attribute attributes[CV_OTLP_ATTRIBUTES_MAX];
    size_t count;
};

/* Appends one request with the spans of `count` records. CV_NO_RESOURCES when the buffer does not
 * take it; its content is of no use then. */
struct cv_status cv_otlp_encode(const struct cv_otlp_resource *resource,
                                const struct cv_trace_record *records, size_t count, bool is_json,
                                struct cv_buf *out);

/* How many spans a collector that answered 200 has refused all the same (partial_success); 0 also
 * when what it says makes no sense. */
uint64_t cv_otlp_rejected(struct cv_slice answer, bool is_json);

#endif
