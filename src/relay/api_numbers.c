/* SPDX-License-Identifier: MIT */
#include "relay/api_numbers.h"

#include <stdio.h>

enum form {
    FORM_COUNT,    /* counts[a], and counts[b] unless it is the same */
    FORM_RATE,     /* of requests that were not cancelled, those without an error */
    FORM_MEAN,     /* of a sketch */
    FORM_QUANTILE, /* of a sketch */
    FORM_EACH,     /* counts[a], microseconds, for each request */
    FORM_PARALLEL, /* counts[a], microseconds, for each of the span: how many at once on average */
};

enum sketch { LATENCY, FIRST_BYTE };

struct api_metric {
    const char *name, *unit;
    enum form form;
    enum cv_usage_count a, b;
    enum sketch sketch;
    double q;
};

#define COUNT_OF(a_) .form = FORM_COUNT, .a = CV_USAGE_##a_, .b = CV_USAGE_##a_
#define SUM_OF(a_, b_) .form = FORM_COUNT, .a = CV_USAGE_##a_, .b = CV_USAGE_##b_
#define MEAN_OF(sketch_) .form = FORM_MEAN, .sketch = (sketch_)
#define QUANTILE_OF(sketch_, q_) .form = FORM_QUANTILE, .sketch = (sketch_), .q = (q_)

static const struct api_metric metrics[] = {
    {"requests", "requests", COUNT_OF(REQUESTS)},
    {"errors", "requests", COUNT_OF(ERRORS)},
    {"cancelled", "requests", COUNT_OF(CANCELLED)},
    {"success_rate", "ratio", .form = FORM_RATE},
    {"latency_mean", "ms", MEAN_OF(LATENCY)},
    {"latency_p50", "ms", QUANTILE_OF(LATENCY, 0.5)},
    {"latency_p95", "ms", QUANTILE_OF(LATENCY, 0.95)},
    {"latency_p99", "ms", QUANTILE_OF(LATENCY, 0.99)},
    {"first_byte_mean", "ms", MEAN_OF(FIRST_BYTE)},
    {"first_byte_p50", "ms", QUANTILE_OF(FIRST_BYTE, 0.5)},
    {"first_byte_p95", "ms", QUANTILE_OF(FIRST_BYTE, 0.95)},
    {"first_byte_p99", "ms", QUANTILE_OF(FIRST_BYTE, 0.99)},
    {"bytes", "bytes", SUM_OF(BYTES_IN, BYTES_OUT)},
    {"bytes_in", "bytes", COUNT_OF(BYTES_IN)},
    {"bytes_out", "bytes", COUNT_OF(BYTES_OUT)},
    {"queue", "ms", .form = FORM_EACH, .a = CV_USAGE_QUEUE_US},
    {"streams", "streams", .form = FORM_PARALLEL, .a = CV_USAGE_STREAM_US},
    {"tokens", "tokens", SUM_OF(PROMPT_TOKENS, COMPLETION_TOKENS)},
    {"prompt_tokens", "tokens", COUNT_OF(PROMPT_TOKENS)},
    {"completion_tokens", "tokens", COUNT_OF(COMPLETION_TOKENS)},
};

enum { METRIC_COUNT = sizeof metrics / sizeof metrics[0] };

const struct api_metric *api_metric_find(struct cv_slice name)
{
    for (size_t i = 0; i < METRIC_COUNT; i++)
        if (cv_slice_is(name, metrics[i].name))
            return &metrics[i];
    return NULL;
}

const char *api_metric_name(const struct api_metric *metric)
{
    return metric->name;
}

const char *api_metric_unit(const struct api_metric *metric)
{
    return metric->unit;
}

void api_metric_names(char *out, size_t cap)
{
    size_t len = 0;
    for (size_t i = 0; i < METRIC_COUNT && len < cap; i++)
        len += (size_t)snprintf(out + len, cap - len, "%s%s", i == 0 ? "" : ", ", metrics[i].name);
}

/* ---- values ---- */

static json_t *integer(uint64_t value)
{
    return json_integer(value > INT64_MAX ? INT64_MAX : (json_int_t)value);
}

/* Nobody wants more digits than a microsecond has. */
static json_t *milliseconds(double us)
{
    return json_real((double)(int64_t)(us + 0.5) / 1000);
}

static const struct cv_sketch *sketch_of(const struct cv_usage *usage, enum sketch sketch)
{
    return sketch == LATENCY ? &usage->latency : &usage->first_byte;
}

static json_t *mean(const struct cv_sketch *sketch)
{
    uint64_t count = cv_sketch_count(sketch);
    return count ? milliseconds((double)cv_sketch_sum(sketch) / (double)count) : json_null();
}

static json_t *quantile(const struct cv_sketch *sketch, double q)
{
    return cv_sketch_count(sketch) ? milliseconds((double)cv_sketch_quantile(sketch, q))
                                   : json_null();
}

static json_t *success_rate(const struct cv_usage *usage)
{
    uint64_t judged = usage->counts[CV_USAGE_REQUESTS] - usage->counts[CV_USAGE_CANCELLED];
    uint64_t good = judged - usage->counts[CV_USAGE_ERRORS];
    if (judged == 0)
        return json_null();
    return json_real((double)(int64_t)((double)good / (double)judged * 1e6 + 0.5) / 1e6);
}

static json_t *each(const struct cv_usage *usage, enum cv_usage_count count)
{
    uint64_t requests = usage->counts[CV_USAGE_REQUESTS];
    return requests ? milliseconds((double)usage->counts[count] / (double)requests) : json_null();
}

json_t *api_metric_value(const struct api_metric *metric, const struct cv_usage *usage,
                         unsigned span_s)
{
    if (!usage)
        return metric->form == FORM_COUNT      ? json_integer(0)
               : metric->form == FORM_PARALLEL ? json_real(0)
                                               : json_null();
    switch (metric->form) {
    case FORM_COUNT:
        return integer(usage->counts[metric->a] +
                       (metric->b != metric->a ? usage->counts[metric->b] : 0));
    case FORM_RATE:
        return success_rate(usage);
    case FORM_MEAN:
        return mean(sketch_of(usage, metric->sketch));
    case FORM_QUANTILE:
        return quantile(sketch_of(usage, metric->sketch), metric->q);
    case FORM_EACH:
        return each(usage, metric->a);
    case FORM_PARALLEL:
        return json_real((double)(int64_t)((double)usage->counts[metric->a] / span_s / 1e3 + 0.5) /
                         1e3);
    }
    return json_null();
}

/* ---- all of it ---- */

static json_t *sketch_json(const struct cv_sketch *sketch)
{
    return json_pack("{s:o, s:o, s:o, s:o}", "mean", mean(sketch), "p50", quantile(sketch, 0.5),
                     "p95", quantile(sketch, 0.95), "p99", quantile(sketch, 0.99));
}

static bool add(json_t *object, const char *name, json_t *value)
{
    return json_object_set_new(object, name, value) == 0;
}

json_t *api_usage_json(const struct cv_usage *usage)
{
    json_t *object = json_object();
    bool is_whole = object != NULL;
    for (int i = 0; i < CV_USAGE_COUNT && is_whole; i++)
        if (i != CV_USAGE_QUEUE_US && i != CV_USAGE_STREAM_US)
            is_whole =
                add(object, cv_usage_column((enum cv_usage_count)i), integer(usage->counts[i]));
    is_whole = is_whole && add(object, "success_rate", success_rate(usage)) &&
               add(object, "latency_ms", sketch_json(&usage->latency)) &&
               add(object, "first_byte_ms", sketch_json(&usage->first_byte)) &&
               add(object, "queue_ms", integer(usage->counts[CV_USAGE_QUEUE_US] / 1000)) &&
               add(object, "stream_ms", integer(usage->counts[CV_USAGE_STREAM_US] / 1000));
    if (!is_whole) {
        json_decref(object);
        return NULL;
    }
    return object;
}
