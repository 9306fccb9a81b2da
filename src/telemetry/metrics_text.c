/* SPDX-License-Identifier: MIT
 *
 * The page: Prometheus' text format 0.0.4 (prometheus.io/docs/instrumenting/exposition_formats) and
 * OpenMetrics 1.0.0 (draft-ietf-opsawg-openmetrics-00), which differ in a few places only: the
 * name of a counter's family, units, exemplars, the end. Bounds are written alike in both ("1.0"),
 * so that a series is the same whichever was asked for.
 */
#include "telemetry/metrics_private.h"

#include "base/digest.h"
#include "telemetry/revision.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define TRY CV_RETURN_IF_ERROR

struct page {
    const struct cv_metrics_snapshot *snapshot;
    const struct cv_metrics *metrics;
    bool is_open; /* OpenMetrics */
    struct cv_buf *out;
};

/* ---- pieces ---- */

/* A number as both formats read it; whole ones without exponent. */
static const char *number_text(double number, bool needs_point, char out[32])
{
    if (number > -1e15 && number < 1e15 && number == (double)(int64_t)number)
        (void)snprintf(out, 32, needs_point ? "%.1f" : "%.0f", number);
    else
        (void)snprintf(out, 32, "%.12g", number);
    return out;
}

static const char *kind_name(enum cv_metric_kind kind)
{
    switch (kind) {
    case CV_METRIC_COUNTER:
        return "counter";
    case CV_METRIC_HISTOGRAM:
        return "histogram";
    case CV_METRIC_SUMMARY:
        return "summary";
    default:
        return "gauge";
    }
}

/* In OpenMetrics the family of a counter has no _total, which its samples have. */
static struct cv_slice family_of(const struct page *page, const struct cv_metric *row)
{
    struct cv_slice name = cv_slice_str(row->name);
    if (page->is_open && row->kind == CV_METRIC_COUNTER)
        name.len -= strlen("_total");
    return name;
}

static struct cv_status write_header(const struct page *page, const struct cv_metric *row)
{
    struct cv_slice name = family_of(page, row);
    int len = (int)name.len;
    const char *text = (const char *)name.data;
    TRY(cv_buf_printf(page->out, "# HELP %.*s %s\n# TYPE %.*s %s\n", len, text, row->help, len,
                      text, kind_name(row->kind)));
    if (!page->is_open || row->unit == CV_UNIT_NONE)
        return cv_ok();
    return cv_buf_printf(page->out, "# UNIT %.*s %s\n", len, text,
                         row->unit == CV_UNIT_SECONDS ? "seconds" : "bytes");
}

/* label="value" pairs of a series with commas between them; "" when it has none. */
static void series_text(const struct page *page, const struct cv_metric *row, const size_t index[2],
                        char *out, size_t cap)
{
    size_t len = 0;
    *out = '\0';
    for (unsigned k = 0; k < 2 && len < cap; k++) {
        enum cv_metric_label label = row->labels[k];
        const char *comma = len ? "," : "";
        if (label == CV_LABEL_ERROR) {
            enum cv_status_id id = (enum cv_status_id)page->metrics->error_status[index[k]];
            len += (size_t)snprintf(out + len, cap - len,
                                    "%serror_category=\"%s\",error_code=\"%s\"", comma,
                                    cv_category_name(cv_status_category(id)), cv_status_code(id));
        } else if (label != CV_LABEL_NONE) {
            len += (size_t)snprintf(out + len, cap - len, "%s%s=\"%s\"", comma,
                                    cv_metric_label_name(label),
                                    metrics_value(page->metrics, label, index[k]));
        }
    }
}

/* name suffix {labels more} value, without the end of the line. */
static struct cv_status write_sample(const struct page *page, const struct cv_metric *row,
                                     const char *suffix, const char *labels, const char *more,
                                     double value)
{
    char number[32];
    bool has_labels = labels[0] || more[0];
    return cv_buf_printf(page->out, "%s%s%s%s%s%s%s %s", row->name, suffix, has_labels ? "{" : "",
                         labels, labels[0] && more[0] ? "," : "", more, has_labels ? "}" : "",
                         number_text(value, false, number));
}

static struct cv_status end_line(const struct page *page)
{
    return cv_buf_append_byte(page->out, '\n');
}

static struct cv_status write_exemplar(const struct page *page, uint32_t cell)
{
    struct cv_exemplar exemplar;
    char id[33], number[32];
    if (!page->is_open || !metrics_exemplar(page->metrics, cell, &exemplar))
        return cv_ok();
    cv_hex_encode(cv_slice(exemplar.trace_id, sizeof exemplar.trace_id), id);
    return cv_buf_printf(page->out, " # {trace_id=\"%s\"} %s %" PRIu64 ".%03u", id,
                         number_text(exemplar.value, false, number), exemplar.at_ms / 1000,
                         (unsigned)(exemplar.at_ms % 1000));
}

/* ---- kinds ---- */

static struct cv_status write_histogram(const struct page *page, const struct cv_metric *row,
                                        uint32_t cell, const char *labels)
{
    const struct metric_bounds *set = metrics_bounds(row->buckets);
    const double *cells = &page->snapshot->cells[cell];
    double count = 0;
    for (unsigned i = 0; i <= set->len; i++) {
        char bound[40], number[32];
        count += cells[i];
        (void)snprintf(bound, sizeof bound, "le=\"%s\"",
                       i < set->len ? number_text((double)set->raw[i] * set->scale, true, number)
                                    : "+Inf");
        TRY(write_sample(page, row, "_bucket", labels, bound, count));
        TRY(write_exemplar(page, cell + i));
        TRY(end_line(page));
    }
    TRY(write_sample(page, row, "_sum", labels, "", cells[set->len + 1] * set->scale));
    TRY(end_line(page));
    TRY(write_sample(page, row, "_count", labels, "", count));
    return end_line(page);
}

static struct cv_status write_summary(const struct page *page, const struct cv_metric *row)
{
    const double *cells = &page->snapshot->cells[row->first];
    size_t count = cv_metric_label_count(row->labels[0]);
    for (size_t i = 0; i < count; i++) {
        char label[40];
        (void)snprintf(label, sizeof label, "quantile=\"%s\"",
                       cv_metric_label_value(row->labels[0], i));
        TRY(write_sample(page, row, "", label, "", cells[i]));
        TRY(end_line(page));
    }
    TRY(write_sample(page, row, "_sum", "", "", cells[count]));
    TRY(end_line(page));
    TRY(write_sample(page, row, "_count", "", "", cells[count + 1]));
    return end_line(page);
}

static struct cv_status write_info(const struct page *page, const struct cv_metric *row)
{
    char text[256];
    (void)snprintf(text, sizeof text, "version=\"%s\",revision=\"%s\",tls=\"%s\"", CV_VERSION,
                   cv_revision, page->metrics->tls);
    TRY(write_sample(page, row, "", text, "", 1));
    return end_line(page);
}

static struct cv_status write_series(const struct page *page, const struct cv_metric *row)
{
    size_t width = metrics_label_max(row->labels[1]), index[2];
    for (index[0] = 0; index[0] < metrics_label_max(row->labels[0]); index[0]++) {
        for (index[1] = 0; index[1] < width; index[1]++) {
            char text[160];
            uint32_t cell = row->first + (uint32_t)(index[0] * width + index[1]) * row->span;
            if (!metrics_has_value(page->metrics, row->labels[0], index[0]) ||
                !metrics_has_value(page->metrics, row->labels[1], index[1]))
                continue;
            series_text(page, row, index, text, sizeof text);
            if (row->kind == CV_METRIC_HISTOGRAM) {
                TRY(write_histogram(page, row, cell, text));
                continue;
            }
            TRY(write_sample(page, row, "", text, "", page->snapshot->cells[cell]));
            TRY(end_line(page));
        }
    }
    return cv_ok();
}

struct cv_status cv_metrics_write(const struct cv_metrics_snapshot *snapshot,
                                  enum cv_metrics_format format, struct cv_buf *out)
{
    size_t count;
    const struct cv_metric *rows = cv_metrics_rows(snapshot->metrics->owner, &count);
    struct page page = {.snapshot = snapshot,
                        .metrics = snapshot->metrics,
                        .is_open = format == CV_METRICS_OPENMETRICS,
                        .out = out};
    for (size_t i = 0; i < count; i++) {
        TRY(write_header(&page, &rows[i]));
        if (rows[i].kind == CV_METRIC_SUMMARY)
            TRY(write_summary(&page, &rows[i]));
        else if (rows[i].kind == CV_METRIC_INFO)
            TRY(write_info(&page, &rows[i]));
        else
            TRY(write_series(&page, &rows[i]));
    }
    return page.is_open ? cv_buf_append_str(out, "# EOF\n") : cv_ok();
}

/* ---- which one ---- */

/* A weight of RFC 9110 §12.4.2 in thousandths; what makes no sense counts as 1. */
static unsigned weight_of(struct cv_slice value)
{
    uint64_t number = 0;
    struct cv_slice rest = value, whole = cv_slice_split(&rest, '.');
    if (!cv_slice_is(whole, "0"))
        return 1000;
    unsigned weight = 0, place = 100;
    for (size_t i = 0; i < rest.len && i < 3; i++, place /= 10) {
        if (!cv_slice_to_u64(cv_slice(rest.data + i, 1), 9, &number))
            return 1000;
        weight += (unsigned)number * place;
    }
    return weight;
}

/* How much one element of Accept wants; *is_known: it names a version that is not ours. */
static unsigned wish_of(struct cv_slice parameters, bool *is_other_version)
{
    unsigned weight = 1000;
    *is_other_version = false;
    while (parameters.len) {
        struct cv_slice value = cv_slice_trim(cv_slice_split(&parameters, ';'));
        struct cv_slice name = cv_slice_trim(cv_slice_split(&value, '='));
        value = cv_slice_trim(value);
        if (value.len >= 2 && value.data[0] == '"')
            value = cv_slice(value.data + 1, value.len - 2);
        if (cv_slice_is_nocase(name, "q"))
            weight = weight_of(value);
        else if (cv_slice_is_nocase(name, "version"))
            *is_other_version = !cv_slice_is(value, "1.0.0");
    }
    return weight;
}

enum cv_metrics_format cv_metrics_negotiate(struct cv_slice accept)
{
    unsigned open = 0, text = 0;
    while (accept.len) {
        struct cv_slice rest = cv_slice_split(&accept, ',');
        struct cv_slice type = cv_slice_trim(cv_slice_split(&rest, ';'));
        bool is_other;
        unsigned weight = wish_of(rest, &is_other);
        if (cv_slice_is_nocase(type, "application/openmetrics-text") && !is_other && weight > open)
            open = weight;
        else if ((cv_slice_is_nocase(type, "text/plain") || cv_slice_is_nocase(type, "text/*")) &&
                 weight > text)
            text = weight;
    }
    return open && open >= text ? CV_METRICS_OPENMETRICS : CV_METRICS_TEXT;
}

const char *cv_metrics_content_type(enum cv_metrics_format format)
{
    return format == CV_METRICS_OPENMETRICS
               ? "application/openmetrics-text; version=1.0.0; charset=utf-8"
               : "text/plain; version=0.0.4; charset=utf-8";
}
