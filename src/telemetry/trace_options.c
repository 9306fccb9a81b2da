/* SPDX-License-Identifier: MIT */
#include "telemetry/trace_options.h"

#include "base/digest.h"
#include "telemetry/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TIMEOUT_MS = 10 * 1000,
    TIMEOUT_MAX_MS = 60 * 1000,
    INTERVAL_MS = 1000, /* the SDKs wait for 5 s; who looks at a trace does not want to */
    INTERVAL_MAX_MS = 60 * 1000,
    PAIR_MAX = 4096,
};

struct reading {
    struct cv_trace_options *options;
    const char *const *env;
    struct cv_log *log;
    bool is_out_of_memory;
};

/* NULL when it is not there or empty, which is the same to OpenTelemetry. */
static const char *get(const struct reading *r, const char *name)
{
    size_t len = strlen(name);
    for (size_t i = 0; r->env && r->env[i]; i++)
        if (strncmp(r->env[i], name, len) == 0 && r->env[i][len] == '=')
            return r->env[i][len + 1] ? r->env[i] + len + 1 : NULL;
    return NULL;
}

static void complain(const struct reading *r, const char *name)
{
    cv_log(r->log, CV_LOG_WARN, "tracing", "environment_ignored",
           "a variable of OpenTelemetry makes no sense here and is ignored",
           CV_F_STR("variable", name));
}

static char *keep(struct reading *r, const char *text)
{
    char *copy = strdup(text);
    if (!copy)
        r->is_out_of_memory = true;
    return copy;
}

/* ---- lists of key=value ---- */

/* %41 → A, in place (W3C Baggage §3.3.1.3). False: it is malformed, or makes a control. */
static bool percent_decode(char *text)
{
    char *out = text;
    for (; *text; text++) {
        uint8_t byte = (uint8_t)*text;
        if (byte == '%') {
            if (!text[1] ||
                !cv_hex_decode(cv_slice(text + 1, text[1] && text[2] ? 2 : 1), &byte, 1))
                return false;
            text += 2;
        }
        if (byte < ' ' || byte == 0x7f)
            return false;
        *out++ = (char)byte;
    }
    *out = '\0';
    return true;
}

/* Calls `take` for each pair of "a=1,b=2"; a list with a pair that makes no sense is as a whole
 * ignored. */
static void read_pairs(struct reading *r, const char *name,
                       void (*take)(struct reading *r, const char *key, const char *value))
{
    const char *text = get(r, name);
    for (int is_real = 0; text && is_real < 2; is_real++) {
        struct cv_slice rest = cv_slice_str(text);
        while (rest.data) {
            char key[PAIR_MAX], value[PAIR_MAX];
            struct cv_slice pair = cv_slice_trim(cv_slice_split(&rest, ','));
            if (!pair.len)
                continue;
            struct cv_slice right = pair, left = cv_slice_trim(cv_slice_split(&right, '='));
            right = cv_slice_trim(right);
            if (!left.len || !right.data || !cv_slice_to_str(left, key, sizeof key) ||
                !cv_slice_to_str(right, value, sizeof value) || !percent_decode(key) ||
                !percent_decode(value)) {
                complain(r, name);
                return;
            }
            if (is_real)
                take(r, key, value);
        }
    }
}

/* ---- resource ---- */

static char *remember(struct reading *r, const char *text)
{
    struct cv_trace_options *o = r->options;
    if (o->text_count == sizeof o->texts / sizeof *o->texts)
        return NULL;
    char *copy = keep(r, text);
    if (copy)
        o->texts[o->text_count++] = copy;
    return copy;
}

/* A key that is there already gets the new value. */
static void set_attribute(struct reading *r, const char *key, const char *value)
{
    struct cv_otlp_resource *resource = &r->options->resource;
    size_t i = 0;
    while (i < resource->count && strcmp(resource->attributes[i].key, key) != 0)
        i++;
    if (!value || i == CV_OTLP_ATTRIBUTES_MAX)
        return;
    const char *name = i < resource->count ? resource->attributes[i].key : remember(r, key);
    const char *text = remember(r, value);
    if (!name || !text)
        return;
    resource->attributes[i] = (struct cv_otlp_attribute){name, text};
    if (i == resource->count)
        resource->count++;
}

static void read_resource(struct reading *r, const char *instance)
{
    set_attribute(r, "service.name", "culvert");
    set_attribute(r, "service.version", CV_VERSION);
    set_attribute(r, "service.instance.id", instance);
    set_attribute(r, "telemetry.sdk.name", "culvert");
    set_attribute(r, "telemetry.sdk.language", "c");
    set_attribute(r, "telemetry.sdk.version", CV_VERSION);
    read_pairs(r, "OTEL_RESOURCE_ATTRIBUTES", set_attribute);
    set_attribute(r, "service.name", get(r, "OTEL_SERVICE_NAME"));
}

/* ---- where to ---- */

static void add_header(struct reading *r, const char *key, const char *value)
{
    struct cv_trace_options *o = r->options;
    char line[2 * PAIR_MAX + 4];
    size_t count = 0;
    while (o->headers[count])
        count++;
    if (count == CV_TRACE_HEADERS_MAX || strpbrk(key, ": \t"))
        return;
    (void)snprintf(line, sizeof line, "%s: %s", key, value);
    o->headers[count] = keep(r, line);
}

/* Milliseconds. */
static uint64_t read_ms(const struct reading *r, const char *name, uint64_t otherwise, uint64_t max)
{
    uint64_t ms;
    const char *text = get(r, name);
    if (!text)
        return otherwise;
    if (!cv_slice_to_u64(cv_slice_str(text), UINT32_MAX, &ms) || ms == 0) {
        complain(r, name);
        return otherwise;
    }
    return ms < max ? ms : max;
}

/* The signal's own variable is taken as it is, the base for all signals gets the signal's path, and
 * our setting gets it where it has none. */
enum path_rule { PATH_AS_IS, PATH_APPENDED, PATH_IF_MISSING };

static struct cv_status set_url(struct reading *r, const char *given, enum path_rule rule,
                                struct cv_error *error)
{
    char url[CV_TRACE_URL_MAX];
    bool is_http = strncasecmp(given, "http://", 7) == 0;
    if (!is_http && strncasecmp(given, "https://", 8) != 0)
        return cv_fail(error, CV_CONFIG, "tracing: the endpoint must be http:// or https://");
    size_t len = strlen(given);
    const char *path = strchr(given + (is_http ? 7 : 8), '/');
    bool is_bare = !path || path[1] == '\0';
    bool is_appended = rule == PATH_APPENDED || (rule == PATH_IF_MISSING && is_bare);
    while (is_appended && given[len - 1] == '/')
        len--;
    int n = snprintf(url, sizeof url, "%.*s%s", (int)len, given, is_appended ? "/v1/traces" : "");
    if (n < 0 || (size_t)n >= sizeof url)
        return cv_fail(error, CV_CONFIG, "tracing: the endpoint is too long");
    r->options->url = keep(r, url);
    r->options->allow_http = is_http;
    return cv_ok();
}

static struct cv_status read_endpoint(struct reading *r, const struct cv_trace_settings *settings,
                                      struct cv_error *error)
{
    const char *traces = get(r, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
    const char *base = get(r, "OTEL_EXPORTER_OTLP_ENDPOINT");
    if (settings->endpoint)
        return set_url(r, settings->endpoint, PATH_IF_MISSING, error);
    if (traces)
        return set_url(r, traces, PATH_AS_IS, error);
    return set_url(r, base ? base : "http://localhost:4318", PATH_APPENDED, error);
}

static bool read_protocol(struct reading *r, const char *own)
{
    const char *name = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL";
    const char *text = own ? own : get(r, name);
    if (!text) {
        name = "OTEL_EXPORTER_OTLP_PROTOCOL";
        text = get(r, name);
    }
    if (text && strcmp(text, "http/protobuf") == 0)
        return false;
    if (text && strcmp(text, "http/json") != 0)
        complain(r, name);
    return true;
}

static void read_sampler(struct reading *r, const struct cv_trace_settings *settings)
{
    struct cv_sampler *sampler = &r->options->sampler;
    const char *name = settings->sampler ? settings->sampler : get(r, "OTEL_TRACES_SAMPLER");
    const char *arg = settings->sampler ? settings->sampler_arg : get(r, "OTEL_TRACES_SAMPLER_ARG");
    *sampler = (struct cv_sampler){.root = CV_SAMPLER_ALWAYS_ON, .is_parent_based = true};
    if (!name)
        return;
    /* A ratio that makes no sense is as if it were not there; a name falls back as a whole. */
    if (!cv_sampler_parse(name, arg, sampler) && !cv_sampler_parse(name, NULL, sampler))
        complain(r, "OTEL_TRACES_SAMPLER");
    else if (arg && !cv_sampler_parse(name, arg, sampler))
        complain(r, "OTEL_TRACES_SAMPLER_ARG");
}

static bool is_true(const char *text)
{
    return text && strcasecmp(text, "true") == 0;
}

static bool is_wanted(const struct reading *r, const struct cv_trace_settings *settings)
{
    const char *exporter = get(r, "OTEL_TRACES_EXPORTER");
    if (is_true(get(r, "OTEL_SDK_DISABLED")))
        return false;
    if (settings->is_set)
        return settings->is_enabled;
    if (exporter && strcmp(exporter, "none") == 0)
        return false;
    return settings->endpoint || get(r, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") ||
           get(r, "OTEL_EXPORTER_OTLP_ENDPOINT");
}

struct cv_status cv_trace_options_init(struct cv_trace_options *options,
                                       const struct cv_trace_settings *settings, struct cv_log *log,
                                       struct cv_error *error)
{
    *options = (struct cv_trace_options){0};
    struct reading r = {.options = options, .env = settings->env, .log = log};
    if (!is_wanted(&r, settings))
        return cv_ok();
    options->is_json = read_protocol(&r, settings->protocol);
    CV_RETURN_IF_ERROR(read_endpoint(&r, settings, error));
    read_sampler(&r, settings);
    read_resource(&r, settings->instance);
    add_header(&r, "Content-Type",
               options->is_json ? "application/json" : "application/x-protobuf");
    bool has_own = get(&r, "OTEL_EXPORTER_OTLP_TRACES_HEADERS");
    read_pairs(&r, has_own ? "OTEL_EXPORTER_OTLP_TRACES_HEADERS" : "OTEL_EXPORTER_OTLP_HEADERS",
               add_header);
    const char *ca_file = get(&r, "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE");
    if (!ca_file)
        ca_file = get(&r, "OTEL_EXPORTER_OTLP_CERTIFICATE");
    options->ca_file = ca_file ? keep(&r, ca_file) : NULL;
    const char *timeout = get(&r, "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT")
                              ? "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT"
                              : "OTEL_EXPORTER_OTLP_TIMEOUT";
    options->timeout_ms = read_ms(&r, timeout, TIMEOUT_MS, TIMEOUT_MAX_MS);
    options->interval_ms = read_ms(&r, "OTEL_BSP_SCHEDULE_DELAY", INTERVAL_MS, INTERVAL_MAX_MS);
    options->is_enabled = true;
    return cv_status(r.is_out_of_memory ? CV_NO_MEMORY : CV_OK);
}

void cv_trace_options_done(struct cv_trace_options *options)
{
    free(options->url);
    free(options->ca_file);
    for (size_t i = 0; i < sizeof options->headers / sizeof *options->headers; i++) {
        if (options->headers[i])
            cv_wipe(options->headers[i], strlen(options->headers[i]));
        free(options->headers[i]);
    }
    for (size_t i = 0; i < options->text_count; i++)
        free(options->texts[i]);
    *options = (struct cv_trace_options){0};
}
