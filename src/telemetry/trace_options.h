/* SPDX-License-Identifier: MIT
 *
 * Where spans go, and which: the settings `tracing.*` of our configuration over the environment
 * that OpenTelemetry's SDKs share (OTEL_*, https://opentelemetry.io/docs/specs/otel/configuration/
 * sdk-environment-variables/ and /protocol/exporter/). What of OTEL_* makes no sense is told and
 * left aside, as that specification wants it; our own settings were checked when they were loaded.
 *
 * Owns its texts. May be read by any thread once it is made.
 */
#ifndef CV_TELEMETRY_TRACE_OPTIONS_H
#define CV_TELEMETRY_TRACE_OPTIONS_H

#include "telemetry/otlp.h"

struct cv_log;

#define CV_TRACE_HEADERS_MAX 32
#define CV_TRACE_URL_MAX 2048

/* What our configuration says; all borrowed for the call. NULL or false: nothing. */
struct cv_trace_settings {
    bool is_set, is_enabled; /* tracing.enabled was given, and how */
    const char *endpoint;
    const char *protocol; /* "http/json" or "http/protobuf" */
    const char *sampler, *sampler_arg;
    const char *instance;   /* of this process, for service.instance.id */
    const char *const *env; /* like environ */
};

struct cv_trace_options {
    bool is_enabled;
    bool is_json;
    bool allow_http;
    char *url;                               /* of the collector, with its path */
    char *headers[CV_TRACE_HEADERS_MAX + 2]; /* "Name: value", NULL-terminated; secret */
    char *ca_file;                           /* or NULL */
    uint64_t timeout_ms;                     /* of one request */
    uint64_t interval_ms;                    /* between requests */
    struct cv_sampler sampler;
    struct cv_otlp_resource resource;
    char *texts[2 * CV_OTLP_ATTRIBUTES_MAX]; /* of the resource */
    size_t text_count;
};

/* CV_NO_MEMORY, CV_CONFIG when the endpoint is no URL; cv_trace_options_done in every case. */
struct cv_status cv_trace_options_init(struct cv_trace_options *options,
                                       const struct cv_trace_settings *settings, struct cv_log *log,
                                       struct cv_error *error);
/* Takes a zeroed struct. */
void cv_trace_options_done(struct cv_trace_options *options);

#endif
