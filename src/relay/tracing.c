/* SPDX-License-Identifier: MIT
 *
 * Of which trace a request is a part, and what is recorded of it.
 *
 * Happy path: tracing_begin (its head is here) → tracing_record (what it is for; sampled ones get a
 * record) → tracing_forward → tracing_opened → tracing_first_byte → tracing_end: into the worker's
 * ring, from which the sender (net/span_sender.h) takes it. Ways it fails: no memory for a record,
 * or no room in the ring: the request has no spans, nothing else changes.
 *
 * Where no spans are sent the relay only passes on what came, or begins a trace for the service.
 */
#include "relay/tracing.h"

#include "base/digest.h"
#include "config/relay_config.h"
#include "net/span_sender.h"
#include "proto/http/http_rewrite.h"
#include "proto/http/http_writer.h"
#include "relay/consumer_private.h"
#include "relay/session.h"
#include "telemetry/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define TRY CV_RETURN_IF_ERROR

enum { LAST_SPANS_MS = 1000 };

struct cv_relay_tracing {
    struct cv_trace_options options;
    struct cv_tracer *tracer;
    struct cv_span_sender *sender;
};

/* ---- life ---- */

static bool is_given(const struct cv_relay_config *config, const char *key)
{
    return cv_settings_origin(&cv_relay_schema, config, key).kind != CV_ORIGIN_DEFAULT;
}

static struct cv_status open_all(struct cv_relay *relay, struct cv_relay_tracing *tracing,
                                 struct cv_error *error)
{
    unsigned queues = relay->worker_count;
    CV_RETURN_IF_ERROR(cv_tracer_new(&tracing->options.sampler, queues, cv_span_sender_wake,
                                     &tracing->sender, &tracing->tracer));
    CV_RETURN_IF_ERROR(cv_span_sender_new(&tracing->options, tracing->tracer, relay->log,
                                          &tracing->sender, error));
    for (unsigned i = 0; i < queues; i++)
        relay->workers[i].spans = cv_tracer_queue(tracing->tracer, i);
    return cv_ok();
}

struct cv_status cv_relay_tracing_new(struct cv_relay *relay, const char *const *env,
                                      struct cv_relay_tracing **out, struct cv_error *error)
{
    const struct cv_relay_config *c = relay->config;
    const struct cv_trace_settings settings = {
        .is_set = is_given(c, "tracing.enabled"),
        .is_enabled = c->tracing_enabled,
        .endpoint = c->tracing_endpoint,
        .protocol = c->tracing_protocol,
        .sampler = c->tracing_sampler,
        .sampler_arg = c->tracing_sampler_arg,
        .instance = relay->instance,
        .env = env,
    };
    *out = NULL;
    struct cv_relay_tracing *tracing = calloc(1, sizeof *tracing);
    if (!tracing)
        return cv_status(CV_NO_MEMORY);
    struct cv_status status =
        cv_trace_options_init(&tracing->options, &settings, relay->log, error);
    bool is_wanted = tracing->options.is_enabled;
    if (cv_is_ok(status) && is_wanted)
        status = open_all(relay, tracing, error);
    if (cv_is_ok(status) && is_wanted) {
        *out = tracing;
        cv_log(relay->log, CV_LOG_INFO, "tracing", "tracing_on", "spans are sent to a collector",
               CV_F_STR("url", tracing->options.url),
               CV_F_STR("protocol", tracing->options.is_json ? "http/json" : "http/protobuf"));
    } else {
        cv_relay_tracing_free(&tracing);
    }
    return status;
}

void cv_relay_tracing_free(struct cv_relay_tracing **out)
{
    struct cv_relay_tracing *tracing = *out;
    *out = NULL;
    if (!tracing)
        return;
    cv_span_sender_free(&tracing->sender, LAST_SPANS_MS);
    cv_tracer_free(&tracing->tracer);
    cv_trace_options_done(&tracing->options);
    free(tracing);
}

struct cv_tracer *cv_relay_tracer(const struct cv_relay_tracing *tracing)
{
    return tracing ? tracing->tracer : NULL;
}

/* ---- the context ---- */

static void take_random(struct cv_relay_worker *worker, uint8_t *out, size_t len)
{
    if (worker->random_left < len) {
        cv_random(worker->random, sizeof worker->random);
        worker->random_left = sizeof worker->random;
    }
    worker->random_left -= len;
    memcpy(out, worker->random + worker->random_left, len);
}

/* More than one traceparent is none (Trace Context §4.2). */
static bool read_parent(const struct cv_consumer *c, struct cv_trace_ids *ids)
{
    const struct cv_slice *given = cv_http_find(&c->head, "traceparent");
    return given && cv_http_count(&c->head, "traceparent") == 1 &&
           cv_traceparent_parse(cv_slice_trim(*given), ids);
}

void tracing_begin(struct cv_consumer *c)
{
    struct exchange *x = &c->x;
    struct cv_relay_tracing *tracing = c->worker->relay->tracing;
    x->has_trace_parent = read_parent(c, &x->trace);
    if (!x->has_trace_parent) {
        take_random(c->worker, x->trace.trace_id, CV_TRACE_ID_LEN);
        take_random(c->worker, x->trace.span_id, CV_SPAN_ID_LEN);
        x->trace.flags = CV_TRACE_RANDOM;
    }
    if (!tracing)
        return;
    const struct cv_trace_ids *parent = x->has_trace_parent ? &x->trace : NULL;
    bool is_sampled =
        cv_sampler_decide(cv_tracer_sampler(tracing->tracer), parent, x->trace.trace_id);
    if (x->has_trace_parent) {
        memcpy(x->trace_parent_id, x->trace.span_id, CV_SPAN_ID_LEN);
        take_random(c->worker, x->trace.span_id, CV_SPAN_ID_LEN);
    }
    x->trace.flags &= (uint8_t)~CV_TRACE_SAMPLED;
    x->trace.flags |= is_sampled ? CV_TRACE_SAMPLED : 0;
}

/* ---- recording ---- */

static uint64_t wall_ns(void)
{
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

static uint64_t now_ns(const struct cv_consumer *c)
{
    return cv_worker_now_ns(c->worker->worker);
}

/* As much of it as there is room for. */
static void copy_text(char *out, size_t cap, struct cv_slice text)
{
    if (text.len > cap - 1)
        text.len = cap - 1;
    if (!cv_slice_to_str(text, out, cap))
        out[0] = '\0';
}

#define COPY(field, slice) copy_text((field), sizeof(field), (slice))

/* "/api/tunnel/links/" and a star is ".../{id}". */
static void copy_route(struct cv_trace_record *r, const char *route)
{
    size_t len = strlen(route);
    bool is_pattern = len && route[len - 1] == '*';
    (void)snprintf(r->route, sizeof r->route, "%.*s%s", (int)(is_pattern ? len - 1 : len), route,
                   is_pattern ? "{id}" : "");
}

void tracing_record(struct cv_consumer *c, const char *route)
{
    struct exchange *x = &c->x;
    if (!c->worker->spans || !(x->trace.flags & CV_TRACE_SAMPLED) || x->span)
        return;
    struct cv_trace_record *r = calloc(1, sizeof *r);
    if (!r)
        return;
    x->span = r;
    r->kind = CV_TRACE_REQUEST;
    r->ids = x->trace;
    r->has_parent = x->has_trace_parent;
    memcpy(r->parent_id, x->trace_parent_id, CV_SPAN_ID_LEN);
    r->begin_ns = x->started_ns;
    r->wall_ns = wall_ns() - (now_ns(c) - r->begin_ns);
    r->is_tls = cv_port_is_tls(&c->port);
    COPY(r->method, cv_slice_str(exchange_method_name(c->head.method)));
    COPY(r->path, c->head.path);
    COPY(r->request_id, cv_slice_str(x->id));
    char client[CV_ADDR_TEXT_LEN];
    if (c->client.len)
        COPY(r->client, cv_slice_str(cv_addr_format_ip(&c->client, client)));
    copy_route(r, route);
}

const struct cv_trace_ids *tracing_link(struct cv_consumer *c, const struct cv_session *session)
{
    struct cv_trace_record *r = c->x.span;
    const struct cv_trace_ids *first = session ? cv_session_trace(session) : NULL;
    if (!r)
        return NULL;
    r->kind = CV_TRACE_LINK;
    r->has_link = first != NULL;
    if (first)
        r->link = *first;
    return &r->ids;
}

void tracing_forward(struct cv_consumer *c)
{
    struct cv_trace_record *r = c->x.span;
    const struct cv_trace_ids *link = cv_session_trace(c->x.route.session);
    if (!r)
        return;
    r->forward_ns = now_ns(c);
    take_random(c->worker, r->forward_id, CV_SPAN_ID_LEN);
    take_random(c->worker, r->connect_id, CV_SPAN_ID_LEN);
    take_random(c->worker, r->stream_id, CV_SPAN_ID_LEN);
    r->has_link = link != NULL;
    if (link)
        r->link = *link;
}

void tracing_opened(struct cv_consumer *c, bool is_reused)
{
    struct cv_trace_record *r = c->x.span;
    if (!r)
        return;
    r->open_ns = c->x.opened_ns;
    r->is_reused = is_reused;
}

void tracing_first_byte(struct cv_consumer *c)
{
    if (c->x.span)
        c->x.span->first_ns = c->x.first_byte_ns;
}

void tracing_end(struct cv_consumer *c)
{
    struct exchange *x = &c->x;
    struct cv_trace_record *r = x->span;
    if (!r)
        return;
    x->span = NULL;
    r->end_ns = now_ns(c);
    r->status = x->status;
    r->error = x->error;
    r->tries = x->tries;
    r->bytes_in = x->body_received;
    r->bytes_out = x->answered;
    /* An answer of the relay's own is never begun without being whole. */
    r->is_whole = x->is_response_whole || (x->status && !x->is_head_out) || x->status == 101;
    if (x->route.spec)
        COPY(r->tunnel, cv_slice_str(x->route.spec->name));
    if (x->identity)
        COPY(r->user, cv_slice_str(x->identity->subject));
    cv_trace_put(c->worker->spans, r);
    free(r);
}

void tracing_forget(struct cv_consumer *c)
{
    free(c->x.span);
    c->x.span = NULL;
}

const uint8_t *tracing_kept(const struct cv_consumer *c)
{
    bool is_kept = c->worker->spans && c->x.trace.flags & CV_TRACE_SAMPLED;
    return is_kept ? c->x.trace.trace_id : NULL;
}

/* ---- fields ---- */

static struct cv_status write_state(const struct cv_consumer *c, struct cv_buf *out)
{
    struct cv_buf joined, state;
    if (!cv_http_find(&c->head, "tracestate"))
        return cv_ok();
    cv_buf_init(&joined, 2 * c->worker->relay->config->limits_head_bytes);
    cv_buf_init(&state, CV_TRACESTATE_MAX);
    struct cv_status status =
        cv_tracestate_write(cv_http_join(&c->head, "tracestate", &joined), &state);
    if (cv_is_ok(status) && cv_buf_len(&state))
        status = cv_http_write_field(out, cv_slice_str("tracestate"), cv_buf_slice(&state));
    cv_buf_done(&state);
    cv_buf_done(&joined);
    return status;
}

struct cv_status tracing_write_request(const struct cv_consumer *c, struct cv_buf *out)
{
    char text[CV_TRACEPARENT_LEN + 1];
    struct cv_trace_ids ids = c->x.trace;
    if (c->x.span)
        memcpy(ids.span_id, c->x.span->stream_id, CV_SPAN_ID_LEN);
    cv_traceparent_write(&ids, text);
    TRY(cv_http_write_field_str(out, "traceparent", text));
    return c->x.has_trace_parent ? write_state(c, out) : cv_ok();
}

bool tracing_is_answered(const struct cv_consumer *c)
{
    const struct cv_relay *relay = c->worker->relay;
    return relay->tracing && strcmp(relay->config->tracing_answer, "none") != 0;
}

/* traceresponse: Trace Context Level 2, §3.4; server-timing: W3C Server Timing, with the entry that
 * browsers' instrumentation looks for. */
struct cv_status tracing_write_answer(const struct cv_consumer *c, struct cv_buf *out)
{
    char text[CV_TRACEPARENT_LEN + 1];
    if (!tracing_is_answered(c))
        return cv_ok();
    cv_traceparent_write(&c->x.trace, text);
    if (strcmp(c->worker->relay->config->tracing_answer, "traceresponse") == 0)
        return cv_http_write_field_str(out, "traceresponse", text);
    return cv_buf_printf(out, "Server-Timing: traceparent;desc=\"%s\"\r\n", text);
}
