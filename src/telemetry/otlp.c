/* SPDX-License-Identifier: MIT */
#include "telemetry/otlp.h"

#include "base/json.h"
#include "telemetry/otlp_writer.h"
#include "telemetry/redact.h"

#include <stdio.h>
#include <string.h>

/* SpanKind and StatusCode of opentelemetry/proto/trace/v1/trace.proto. */
enum { KIND_INTERNAL = 1, KIND_SERVER = 2, KIND_CLIENT = 3 };
enum { STATUS_ERROR = 2 };

/* SpanFlags: the trace flags, and whether the parent is another process's. */
enum { FLAG_HAS_IS_REMOTE = 0x100, FLAG_IS_REMOTE = 0x200 };

/* A span as it is written. */
struct span {
    const char *name;
    unsigned kind;
    const uint8_t *id, *parent_id; /* NULL: none */
    uint64_t begin_ns, end_ns;     /* as in the record */
    bool is_first;                 /* of its record: its parent is another process's */
    bool is_error;
};

/* ---- attributes ---- */

static void attribute(struct cv_otlp_writer *w, const char *key, struct cv_slice value)
{
    size_t pair = cv_otlp_open(w, 9, NULL);
    cv_otlp_text(w, 1, "key", cv_slice_str(key));
    size_t any = cv_otlp_open(w, 2, "value");
    cv_otlp_text(w, 1, "stringValue", value);
    cv_otlp_close(w, any);
    cv_otlp_close(w, pair);
}

/* Nothing where there is no text. What it may hold of credentials stays here. */
static void text_attribute(struct cv_otlp_writer *w, const char *key, const char *text)
{
    char clean[512];
    if (text[0])
        attribute(w, key, cv_slice(clean, cv_redact(cv_slice_str(text), clean, sizeof clean)));
}

static void number_attribute(struct cv_otlp_writer *w, const char *key, uint64_t value)
{
    size_t pair = cv_otlp_open(w, 9, NULL);
    cv_otlp_text(w, 1, "key", cv_slice_str(key));
    size_t any = cv_otlp_open(w, 2, "value");
    cv_otlp_int64(w, 3, "intValue", value > INT64_MAX ? INT64_MAX : (int64_t)value);
    cv_otlp_close(w, any);
    cv_otlp_close(w, pair);
}

static void flag_attribute(struct cv_otlp_writer *w, const char *key, bool value)
{
    size_t pair = cv_otlp_open(w, 9, NULL);
    cv_otlp_text(w, 1, "key", cv_slice_str(key));
    size_t any = cv_otlp_open(w, 2, "value");
    cv_otlp_bool(w, 2, "boolValue", value);
    cv_otlp_close(w, any);
    cv_otlp_close(w, pair);
}

/* error.type of the HTTP conventions: our code, or the status that the service has sent. */
static void error_attribute(struct cv_otlp_writer *w, const struct cv_trace_record *r)
{
    char number[16];
    const char *code = cv_status_code(r->error);
    if (r->error != CV_OK) {
        text_attribute(w, "error.type", code[0] ? code : cv_status_name(r->error));
    } else if (r->status >= 500) {
        (void)snprintf(number, sizeof number, "%d", r->status);
        text_attribute(w, "error.type", number);
    } else if (r->kind == CV_TRACE_REQUEST && !r->is_whole) {
        text_attribute(w, "error.type", "cancelled"); /* the consumer went away */
    }
}

static void http_attributes(struct cv_otlp_writer *w, const struct cv_trace_record *r)
{
    bool is_other = strcmp(r->method, "other") == 0; /* not kept: strangers make names up */
    text_attribute(w, "http.request.method", is_other ? "_OTHER" : r->method);
    text_attribute(w, "http.route", r->route);
    text_attribute(w, "url.path", r->path);
    text_attribute(w, "url.scheme", r->is_tls ? "https" : "http");
    text_attribute(w, "client.address", r->client);
    if (r->status)
        number_attribute(w, "http.response.status_code", (uint64_t)r->status);
    text_attribute(w, "enduser.id", r->user);
    text_attribute(w, "culvert.request_id", r->request_id);
}

static void first_attributes(struct cv_otlp_writer *w, const struct cv_trace_record *r)
{
    if (r->kind == CV_TRACE_REQUEST || r->kind == CV_TRACE_LINK) {
        http_attributes(w, r);
    } else {
        text_attribute(w, "server.address", r->client);
        number_attribute(w, "culvert.attempts", r->tries);
    }
    text_attribute(w, "culvert.tunnel", r->tunnel);
    error_attribute(w, r);
}

static void forward_attributes(struct cv_otlp_writer *w, const struct cv_trace_record *r)
{
    text_attribute(w, "culvert.tunnel", r->tunnel);
    number_attribute(w, "culvert.retries", r->tries);
    number_attribute(w, "http.request.body.size", r->bytes_in);
    if (r->error != CV_OK)
        error_attribute(w, r);
}

static void connection_attributes(struct cv_otlp_writer *w, const struct cv_trace_record *r)
{
    if (r->open_ns)
        flag_attribute(w, "culvert.stream.reused", r->is_reused);
    else
        error_attribute(w, r);
}

static void stream_attributes(struct cv_otlp_writer *w, const struct cv_trace_record *r)
{
    number_attribute(w, "culvert.bytes_received", r->bytes_out);
    if (r->error != CV_OK)
        error_attribute(w, r);
}

/* ---- spans ---- */

static uint64_t wall_ns(const struct cv_trace_record *r, uint64_t ns)
{
    return r->wall_ns + (ns > r->begin_ns ? ns - r->begin_ns : 0);
}

static void begin_span(struct cv_otlp_writer *w, const struct cv_trace_record *r,
                       const struct span *span)
{
    cv_otlp_id(w, 1, "traceId", cv_slice(r->ids.trace_id, CV_TRACE_ID_LEN));
    cv_otlp_id(w, 2, "spanId", cv_slice(span->id, CV_SPAN_ID_LEN));
    if (span->parent_id)
        cv_otlp_id(w, 4, "parentSpanId", cv_slice(span->parent_id, CV_SPAN_ID_LEN));
    cv_otlp_text(w, 5, "name", cv_slice_str(span->name));
    cv_otlp_enum(w, 6, "kind", span->kind);
    cv_otlp_fixed64(w, 7, "startTimeUnixNano", wall_ns(r, span->begin_ns));
    cv_otlp_fixed64(w, 8, "endTimeUnixNano", wall_ns(r, span->end_ns));
    cv_otlp_open_list(w, "attributes");
}

static void first_byte_event(struct cv_otlp_writer *w, const struct cv_trace_record *r)
{
    cv_otlp_open_list(w, "events");
    size_t event = cv_otlp_open(w, 11, NULL);
    cv_otlp_fixed64(w, 1, "timeUnixNano", wall_ns(r, r->first_ns));
    cv_otlp_text(w, 2, "name", cv_slice_str("first_byte"));
    cv_otlp_close(w, event);
    cv_otlp_close_list(w);
}

static void write_link(struct cv_otlp_writer *w, const struct cv_trace_record *r)
{
    cv_otlp_open_list(w, "links");
    size_t link = cv_otlp_open(w, 13, NULL);
    cv_otlp_id(w, 1, "traceId", cv_slice(r->link.trace_id, CV_TRACE_ID_LEN));
    cv_otlp_id(w, 2, "spanId", cv_slice(r->link.span_id, CV_SPAN_ID_LEN));
    cv_otlp_fixed32(w, 6, "flags", r->link.flags);
    cv_otlp_close(w, link);
    cv_otlp_close_list(w);
}

static void end_span(struct cv_otlp_writer *w, const struct cv_trace_record *r,
                     const struct span *span)
{
    if (span->is_error) {
        size_t status = cv_otlp_open(w, 15, "status");
        cv_otlp_enum(w, 3, "code", STATUS_ERROR);
        cv_otlp_close(w, status);
    }
    bool is_remote = span->is_first && r->has_parent;
    cv_otlp_fixed32(w, 16, "flags",
                    r->ids.flags | FLAG_HAS_IS_REMOTE | (is_remote ? FLAG_IS_REMOTE : 0u));
}

static void write_span(struct cv_otlp_writer *w, const struct cv_trace_record *r,
                       const struct span *span,
                       void (*attributes)(struct cv_otlp_writer *, const struct cv_trace_record *),
                       bool is_stream)
{
    size_t mark = cv_otlp_open(w, 2, NULL);
    begin_span(w, r, span);
    attributes(w, r);
    cv_otlp_close_list(w);
    if (is_stream && r->first_ns)
        first_byte_event(w, r);
    if (r->has_link && (is_stream || r->kind != CV_TRACE_REQUEST))
        write_link(w, r);
    end_span(w, r, span);
    cv_otlp_close(w, mark);
}

/* "GET /t/{tunnel}/{path}": methods and routes are few, whatever consumers ask for. */
static void name_of(const struct cv_trace_record *r, char out[128])
{
    bool is_other = strcmp(r->method, "other") == 0;
    switch (r->kind) {
    case CV_TRACE_REQUEST:
    case CV_TRACE_LINK:
        (void)snprintf(out, 128, "%s%s%s", is_other ? "HTTP" : r->method, r->route[0] ? " " : "",
                       r->route);
        return;
    case CV_TRACE_CONNECT:
        (void)snprintf(out, 128, "link.connect");
        return;
    case CV_TRACE_RESUME:
        (void)snprintf(out, 128, "link.resume");
        return;
    }
}

/* 4xx is the consumer's doing: no error of this server's (HTTP conventions, "Status"). */
static bool is_error(const struct cv_trace_record *r)
{
    bool is_server = r->kind == CV_TRACE_REQUEST || r->kind == CV_TRACE_LINK;
    bool is_theirs = r->status >= 400 && r->status < 500;
    return r->status >= 500 || (r->error != CV_OK && !(is_server && is_theirs));
}

static void write_record(struct cv_otlp_writer *w, const struct cv_trace_record *r)
{
    char name[128];
    name_of(r, name);
    bool is_server = r->kind == CV_TRACE_REQUEST || r->kind == CV_TRACE_LINK;
    bool has_failed = r->error != CV_OK && is_error(r);
    const struct span first = {
        .name = name,
        .kind = is_server ? KIND_SERVER : KIND_CLIENT,
        .id = r->ids.span_id,
        .parent_id = r->has_parent ? r->parent_id : NULL,
        .begin_ns = r->begin_ns,
        .end_ns = r->end_ns,
        .is_first = true,
        .is_error = is_error(r),
    };
    write_span(w, r, &first, first_attributes, false);
    if (cv_trace_record_spans(r) == 1)
        return;
    const struct span forward = {
        .name = "tunnel.forward_request",
        .kind = KIND_INTERNAL,
        .id = r->forward_id,
        .parent_id = r->ids.span_id,
        .begin_ns = r->forward_ns,
        .end_ns = r->end_ns,
        .is_error = has_failed,
    };
    write_span(w, r, &forward, forward_attributes, false);
    const struct span connection = {
        .name = "tunnel.get_connection",
        .kind = KIND_INTERNAL,
        .id = r->connect_id,
        .parent_id = r->forward_id,
        .begin_ns = r->forward_ns,
        .end_ns = r->open_ns ? r->open_ns : r->end_ns,
        .is_error = has_failed && !r->open_ns,
    };
    write_span(w, r, &connection, connection_attributes, false);
    if (!r->open_ns)
        return;
    const struct span stream = {
        .name = "tunnel.ssh_forward",
        .kind = KIND_CLIENT,
        .id = r->stream_id,
        .parent_id = r->forward_id,
        .begin_ns = r->open_ns,
        .end_ns = r->end_ns,
        .is_error = has_failed,
    };
    write_span(w, r, &stream, stream_attributes, true);
}

static void write_resource(struct cv_otlp_writer *w, const struct cv_otlp_resource *resource)
{
    size_t mark = cv_otlp_open(w, 1, "resource");
    cv_otlp_open_list(w, "attributes");
    for (size_t i = 0; i < resource->count; i++) {
        size_t pair = cv_otlp_open(w, 1, NULL);
        cv_otlp_text(w, 1, "key", cv_slice_str(resource->attributes[i].key));
        size_t any = cv_otlp_open(w, 2, "value");
        cv_otlp_text(w, 1, "stringValue", cv_slice_str(resource->attributes[i].value));
        cv_otlp_close(w, any);
        cv_otlp_close(w, pair);
    }
    cv_otlp_close_list(w);
    cv_otlp_close(w, mark);
}

struct cv_status cv_otlp_encode(const struct cv_otlp_resource *resource,
                                const struct cv_trace_record *records, size_t count, bool is_json,
                                struct cv_buf *out)
{
    struct cv_otlp_writer w;
    cv_otlp_begin(&w, is_json, out);
    cv_otlp_open_list(&w, "resourceSpans");
    size_t group = cv_otlp_open(&w, 1, NULL);
    write_resource(&w, resource);
    cv_otlp_open_list(&w, "scopeSpans");
    size_t scope_spans = cv_otlp_open(&w, 2, NULL);
    size_t scope = cv_otlp_open(&w, 1, "scope");
    cv_otlp_text(&w, 1, "name", cv_slice_str("culvert"));
    cv_otlp_text(&w, 2, "version", cv_slice_str(CV_VERSION));
    cv_otlp_close(&w, scope);
    cv_otlp_open_list(&w, "spans");
    for (size_t i = 0; i < count; i++)
        write_record(&w, &records[i]);
    cv_otlp_close_list(&w);
    cv_otlp_close(&w, scope_spans);
    cv_otlp_close_list(&w);
    cv_otlp_close(&w, group);
    cv_otlp_close_list(&w);
    return cv_otlp_end(&w);
}

/* ---- what the collector says ---- */

/* The next field of a protobuf message. False at its end, or where it makes no sense. */
static bool next_field(struct cv_slice *rest, uint64_t *number, uint64_t *value,
                       struct cv_slice *bytes)
{
    uint64_t parts[2] = {0}; /* tag, then value or length */
    for (int i = 0; i < 2; i++) {
        unsigned shift = 0;
        uint8_t byte;
        do {
            if (rest->len == 0 || shift > 63)
                return false;
            byte = rest->data[0];
            *rest = cv_slice(rest->data + 1, rest->len - 1);
            parts[i] |= (uint64_t)(byte & 0x7f) << shift;
            shift += 7;
        } while (byte & 0x80);
    }
    *number = parts[0] >> 3;
    *value = parts[1];
    *bytes = cv_slice(NULL, 0);
    if ((parts[0] & 7) == 0)
        return true;
    if ((parts[0] & 7) != 2 || parts[1] > rest->len)
        return false;
    *bytes = cv_slice(rest->data, parts[1]);
    *rest = cv_slice(rest->data + parts[1], rest->len - parts[1]);
    return true;
}

/* ExportTraceServiceResponse.partial_success = 1, of which rejected_spans = 1. */
static uint64_t rejected_protobuf(struct cv_slice answer)
{
    uint64_t number, value;
    struct cv_slice inner, bytes;
    while (next_field(&answer, &number, &value, &inner)) {
        if (number != 1)
            continue;
        while (next_field(&inner, &number, &value, &bytes))
            if (number == 1)
                return value;
    }
    return 0;
}

static uint64_t rejected_json(struct cv_slice answer)
{
    json_t *root;
    uint64_t count = 0;
    if (!cv_is_ok(cv_json_parse(answer, &root)))
        return 0;
    const json_t *partial = json_object_get(root, "partialSuccess");
    const json_t *rejected = json_object_get(partial, "rejectedSpans");
    if (json_is_string(rejected))
        (void)cv_slice_to_u64(cv_slice_str(json_string_value(rejected)), INT64_MAX, &count);
    else if (json_integer_value(rejected) > 0)
        count = (uint64_t)json_integer_value(rejected);
    json_decref(root);
    return count;
}

uint64_t cv_otlp_rejected(struct cv_slice answer, bool is_json)
{
    return is_json ? rejected_json(answer) : rejected_protobuf(answer);
}
