/* SPDX-License-Identifier: MIT */
#include "agent/link_spans.h"

#include "base/digest.h"
#include "config/agent_config.h"
#include "net/span_sender.h"
#include "net/worker.h"

#include <stdlib.h>
#include <time.h>

enum { LAST_SPANS_MS = 1000 };

struct cv_link_spans {
    struct cv_trace_options options;
    struct cv_tracer *tracer;
    struct cv_trace_queue *queue;
    struct cv_span_sender *sender;
};

static struct cv_status open_all(struct cv_link_spans *spans, struct cv_log *log,
                                 struct cv_error *error)
{
    CV_RETURN_IF_ERROR(cv_tracer_new(&spans->options.sampler, 1, cv_span_sender_wake,
                                     &spans->sender, &spans->tracer));
    spans->queue = cv_tracer_queue(spans->tracer, 0);
    return cv_span_sender_new(&spans->options, spans->tracer, log, &spans->sender, error);
}

struct cv_status cv_link_spans_new(const struct cv_agent_config *config, const char *const *env,
                                   const char *instance, struct cv_log *log,
                                   struct cv_link_spans **out, struct cv_error *error)
{
    const struct cv_trace_settings settings = {
        .is_set = cv_settings_origin(&cv_agent_schema, config, "tracing.enabled").kind !=
                  CV_ORIGIN_DEFAULT,
        .is_enabled = config->tracing_enabled,
        .endpoint = config->tracing_endpoint,
        .protocol = config->tracing_protocol,
        .sampler = config->tracing_sampler,
        .sampler_arg = config->tracing_sampler_arg,
        .instance = instance,
        .env = env,
    };
    *out = NULL;
    struct cv_link_spans *spans = calloc(1, sizeof *spans);
    if (!spans)
        return cv_status(CV_NO_MEMORY);
    struct cv_status status = cv_trace_options_init(&spans->options, &settings, log, error);
    bool is_wanted = spans->options.is_enabled;
    if (cv_is_ok(status) && is_wanted)
        status = open_all(spans, log, error);
    if (cv_is_ok(status) && is_wanted)
        *out = spans;
    else
        cv_link_spans_free(&spans);
    return status;
}

void cv_link_spans_free(struct cv_link_spans **out)
{
    struct cv_link_spans *spans = *out;
    *out = NULL;
    if (!spans)
        return;
    cv_span_sender_free(&spans->sender, LAST_SPANS_MS);
    cv_tracer_free(&spans->tracer);
    cv_trace_options_done(&spans->options);
    free(spans);
}

void cv_link_span_begin(struct cv_link_span *span, const struct cv_link_spans *spans,
                        enum cv_trace_kind kind, const struct cv_worker *worker)
{
    struct timespec now = {0};
    span->is_on = false;
    if (!spans)
        return;
    span->record = (struct cv_trace_record){.kind = kind, .is_whole = true};
    struct cv_trace_record *r = &span->record;
    cv_random(r->ids.trace_id, CV_TRACE_ID_LEN);
    cv_random(r->ids.span_id, CV_SPAN_ID_LEN);
    bool is_sampled = cv_sampler_decide(cv_tracer_sampler(spans->tracer), NULL, r->ids.trace_id);
    r->ids.flags = CV_TRACE_RANDOM | (is_sampled ? CV_TRACE_SAMPLED : 0);
    (void)clock_gettime(CLOCK_REALTIME, &now);
    r->wall_ns = (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
    r->begin_ns = cv_worker_now_ns(worker);
    span->is_on = true;
}

void cv_link_span_end(struct cv_link_span *span, const struct cv_link_spans *spans,
                      const char *relay, uint64_t attempts, enum cv_status_id why,
                      const struct cv_worker *worker)
{
    struct cv_trace_record *r = &span->record;
    if (!spans || !span->is_on)
        return;
    span->is_on = false;
    if (!(r->ids.flags & CV_TRACE_SAMPLED))
        return;
    r->end_ns = cv_worker_now_ns(worker);
    r->error = why;
    r->tries = (unsigned)attempts;
    (void)cv_slice_to_str(cv_slice_str(relay), r->client, sizeof r->client);
    cv_trace_put(spans->queue, r);
}

bool cv_link_span_traceparent(const struct cv_link_span *span, char out[CV_TRACEPARENT_LEN + 1])
{
    if (span->is_on)
        cv_traceparent_write(&span->record.ids, out);
    return span->is_on;
}
