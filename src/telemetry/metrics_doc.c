/* SPDX-License-Identifier: MIT
 *
 * Prints docs/metrics.md from the list that the programs count by; with a file's name as argument
 * checks that the file says the same, and fails if not. Run by the build's tests.
 */
#include "base/print_doc.h"
#include "telemetry/metrics.h"

#define TRY CV_RETURN_IF_ERROR

static const char intro[] =
    "# Metrics\n"
    "\n"
    "<!-- Made from src/telemetry/metrics_list.h by the program metrics_doc; change it there. -->\n"
    "\n"
    "The relay answers on `GET /metrics` of `metrics.listen` (without a token; there is no such\n"
    "listener unless it is set) and on `GET /api/tunnel/metrics` (a token with the admin\n"
    "permission). The agent answers on `GET /metrics` of its own `metrics.listen`. Both give\n"
    "Prometheus' text format 0.0.4, and OpenMetrics 1.0.0, which has exemplars (`trace_id` on\n"
    "`tunnel_request_duration_seconds`), to who accepts it. `metrics.enabled: false` counts\n"
    "nothing.\n"
    "\n"
    "No label ever holds what a consumer, a service or a token says: no user, address, path, "
    "link,\n"
    "model or text. Each label has the values that stand here, and all series are there from the\n"
    "start, at 0. `tier` is `none` (it is not known who asks), a tier of the configuration, or\n"
    "`other`: beyond 14 tiers, or beyond `metrics.max_series` series, tiers are counted together.\n"
    "`error_category` and `error_code` are the pairs of docs/errors. Numbers of one user are in "
    "the\n"
    "management API.\n"
    "\n"
    "Names in milliseconds (`*_ms`) and ratios are for who has no query language at hand; a graph\n"
    "should be made from the histograms: a quantile of `rate(…_bucket[5m])`, a ratio of two sums\n"
    "of rates.\n"
    "\n"
    "With `METRICS_PORT` in the environment the relay listens on that port of all addresses.\n"
    "Numbers of Redis come with Redis; there are none yet.\n"
    "\n";

static const char *kind_of(enum cv_metric_kind kind)
{
    static const char *const names[] = {"counter", "gauge", "histogram", "summary", "gauge"};
    return names[kind];
}

static struct cv_status write_labels(const struct cv_metric *row, struct cv_buf *out)
{
    bool has_one = false;
    if (row->kind == CV_METRIC_INFO)
        return cv_buf_append_str(out, "version, revision, tls");
    for (unsigned k = 0; k < 2; k++) {
        enum cv_metric_label label = row->labels[k];
        if (label == CV_LABEL_NONE)
            continue;
        TRY(cv_buf_printf(out, "%s%s%s", has_one ? "; " : "", cv_metric_label_name(label),
                          label == CV_LABEL_ERROR ? ", error_code" : ""));
        for (size_t i = 0; i < cv_metric_label_count(label); i++)
            TRY(cv_buf_printf(out, "%s`%s`", i ? ", " : ": ", cv_metric_label_value(label, i)));
        has_one = true;
    }
    return has_one ? cv_ok() : cv_buf_append_str(out, "–");
}

static struct cv_status write_row(const struct cv_metric *row, struct cv_buf *out)
{
    TRY(cv_buf_printf(out, "| `%s` | %s | ", row->name, kind_of(row->kind)));
    TRY(write_labels(row, out));
    return cv_buf_printf(out, " | %s |\n", row->help);
}

static bool is_shared(const struct cv_metric *row)
{
    return (int)row->first < (int)CV_METRICS_SHARED_CELLS;
}

static struct cv_status write_table(enum cv_metrics_owner owner, bool of_shared, const char *title,
                                    struct cv_buf *out)
{
    size_t count;
    const struct cv_metric *rows = cv_metrics_rows(owner, &count);
    TRY(cv_buf_printf(out, "## %s\n\n| name | type | labels | what it says |\n|---|---|---|---|\n",
                      title));
    for (size_t i = 0; i < count; i++)
        if (is_shared(&rows[i]) == of_shared)
            TRY(write_row(&rows[i], out));
    return cv_buf_append_str(out, "\n");
}

static struct cv_status write_buckets(struct cv_buf *out)
{
    size_t count;
    const struct cv_metric *rows = cv_metrics_rows(CV_METRICS_OF_RELAY, &count);
    TRY(cv_buf_append_str(out,
                          "## Buckets\n\nUpper bounds of the histograms; `+Inf` comes last.\n\n"
                          "| name | bounds |\n|---|---|\n"));
    for (size_t i = 0; i < count; i++) {
        if (rows[i].kind != CV_METRIC_HISTOGRAM)
            continue;
        TRY(cv_buf_printf(out, "| `%s` |", rows[i].name));
        for (size_t b = 0; b < cv_metric_bound_count(rows[i].buckets); b++)
            TRY(cv_buf_printf(out, "%s %.6g", b ? "," : "", cv_metric_bound(rows[i].buckets, b)));
        TRY(cv_buf_append_str(out, " |\n"));
    }
    return cv_ok();
}

static struct cv_status write_all(struct cv_buf *out)
{
    TRY(cv_buf_append_str(out, intro));
    TRY(write_table(CV_METRICS_OF_RELAY, true, "Relay and agent", out));
    TRY(write_table(CV_METRICS_OF_RELAY, false, "Relay alone", out));
    TRY(write_table(CV_METRICS_OF_AGENT, false, "Agent alone", out));
    return write_buckets(out);
}

int main(int argc, char **argv)
{
    return cv_doc_main(argc, argv, "metrics_doc", write_all);
}
