/* SPDX-License-Identifier: MIT */
#include "base/test.h"
#include "telemetry/metrics.h"

#include <stdlib.h>
#include <string.h>

static const char *const tiers[] = {"free", "premium"};

static struct cv_metrics *new_metrics(size_t tier_count, size_t max_series)
{
    static const char *const many[20] = {"t0", "t1", "t2", "t3", "t4", "t5", "t6",
                                         "t7", "t8", "t9", "ta", "tb", "tc", "td",
                                         "te", "tf", "tg", "th", "ti", "tj"};
    struct cv_metrics *metrics;
    assert_ok(cv_metrics_new(&(struct cv_metrics_options){.owner = CV_METRICS_OF_RELAY,
                                                          .blocks = 2,
                                                          .tiers = tier_count == 2 ? tiers : many,
                                                          .tier_count = tier_count,
                                                          .max_series = max_series,
                                                          .tls = "false"},
                             &metrics));
    return metrics;
}

static char *page_of(const struct cv_metrics *metrics, enum cv_metrics_format format)
{
    struct cv_metrics_snapshot *snapshot = cv_metrics_snapshot(metrics, 1);
    struct cv_buf page;
    assert_non_null(snapshot);
    cv_buf_init(&page, CV_METRICS_PAGE_MAX);
    assert_ok(cv_metrics_write(snapshot, format, &page));
    assert_ok(cv_buf_append_byte(&page, 0));
    free(snapshot);
    char *text = strdup((const char *)cv_buf_head(&page));
    cv_buf_done(&page);
    assert_non_null(text);
    return text;
}

static void assert_line(const char *page, const char *line)
{
    char with_ends[512];
    (void)snprintf(with_ends, sizeof with_ends, "\n%s\n", line);
    if (!strstr(page, with_ends))
        fail_msg("not on the page: %s", line);
}

static void all_threads_count_in_one_sum(void **state)
{
    struct cv_metrics *metrics = new_metrics(2, 0);
    struct cv_metrics_block *a = cv_metrics_block(metrics, 0), *b = cv_metrics_block(metrics, 1);
    (void)state;
    assert_null(cv_metrics_block(metrics, 2));
    cv_metrics_add(a, CV_CELL(REQUESTS, CV_L_STATUS_TIMEOUT, cv_metrics_tier(metrics, 1)), 2);
    cv_metrics_add(b, CV_CELL(REQUESTS, CV_L_STATUS_TIMEOUT, cv_metrics_tier(metrics, 1)), 3);
    /* What began on one thread may end on another. */
    cv_metrics_add(a, CV_CELL(CHANNELS, 0, 0), 5);
    cv_metrics_sub(b, CV_CELL(CHANNELS, 0, 0), 1);
    cv_metrics_error(a, CV_RATE_LIMITED);
    cv_metrics_error(a, CV_OK);
    cv_metrics_error(NULL, CV_RATE_LIMITED);
    cv_metrics_add(NULL, CV_CELL(CHANNELS, 0, 0), 1);
    char *page = page_of(metrics, CV_METRICS_TEXT);
    assert_line(page, "tunnel_requests_total{status=\"timeout\",tier=\"premium\"} 5");
    assert_line(page, "tunnel_requests_total{status=\"timeout\",tier=\"free\"} 0");
    assert_line(page, "tunnel_requests_total{status=\"timeout\",tier=\"none\"} 0");
    assert_line(page, "tunnel_ssh_channels_active 4");
    assert_line(page, "tunnel_errors_total{error_category=\"server\",error_code=\"TUNNEL_005\"} 1");
    assert_line(page,
                "tunnel_errors_total{error_category=\"network\",error_code=\"TUNNEL_001\"} 0");
    assert_null(strstr(page, "tier=\"other\""));
    assert_null(strstr(page, "# EOF"));
    free(page);
    cv_metrics_free(&metrics);
    assert_null(metrics);
}

static void histograms_are_cumulative(void **state)
{
    struct cv_metrics *metrics = new_metrics(2, 0);
    struct cv_metrics_block *block = cv_metrics_block(metrics, 0);
    (void)state;
    CV_OBSERVE(block, PING_RTT, 0, 0, 1 * CV_MS); /* a bound belongs to its bucket */
    CV_OBSERVE(block, PING_RTT, 0, 0, 1 * CV_MS + 1);
    CV_OBSERVE(block, PING_RTT, 0, 0, 20 * CV_S);
    char *page = page_of(metrics, CV_METRICS_TEXT);
    assert_line(page, "tunnel_websocket_ping_rtt_seconds_bucket{le=\"0.001\"} 1");
    assert_line(page, "tunnel_websocket_ping_rtt_seconds_bucket{le=\"0.005\"} 2");
    assert_line(page, "tunnel_websocket_ping_rtt_seconds_bucket{le=\"10.0\"} 2");
    assert_line(page, "tunnel_websocket_ping_rtt_seconds_bucket{le=\"+Inf\"} 3");
    assert_line(page, "tunnel_websocket_ping_rtt_seconds_sum 20.002000001");
    assert_line(page, "tunnel_websocket_ping_rtt_seconds_count 3");
    free(page);
    struct cv_metrics_snapshot *snapshot = cv_metrics_snapshot(metrics, 1);
    assert_non_null(snapshot);
    assert_true(CV_SNAPSHOT_TOTAL(snapshot, PING_RTT).count == 3);
    free(snapshot);
    cv_metrics_free(&metrics);
}

static void openmetrics_has_units_exemplars_and_an_end(void **state)
{
    struct cv_metrics *metrics = new_metrics(2, 0);
    struct cv_metrics_block *block = cv_metrics_block(metrics, 0);
    unsigned tier = cv_metrics_tier(metrics, 0);
    uint8_t id[16] = {0xab, 0xcd, [15] = 1};
    (void)state;
    cv_metrics_observe_request(block, tier, 7 * CV_MS, id, 1790000000123);
    cv_metrics_observe_request(block, tier, 7 * CV_MS, NULL, 1790000000999);
    char *page = page_of(metrics, CV_METRICS_OPENMETRICS);
    assert_line(page, "tunnel_request_duration_seconds_bucket{tier=\"free\",le=\"0.01\"} 2 # "
                      "{trace_id=\"abcd0000000000000000000000000001\"} 0.007 1790000000.123");
    assert_line(page, "# TYPE tunnel_requests counter");
    assert_line(page, "# UNIT tunnel_request_duration_seconds seconds");
    assert_string_equal(page + strlen(page) - 7, "\n# EOF\n");
    free(page);
    page = page_of(metrics, CV_METRICS_TEXT);
    assert_null(strstr(page, "trace_id"));
    assert_line(page, "# TYPE tunnel_requests_total counter");
    free(page);
    cv_metrics_free(&metrics);
}

static size_t lines_with(const char *page, const char *text)
{
    size_t count = 0;
    for (const char *at = page; (at = strstr(at, text)); at += strlen(text))
        count++;
    return count;
}

static void tiers_are_limited_and_refusals_counted(void **state)
{
    struct cv_metrics *metrics = new_metrics(20, 0);
    (void)state;
    assert_int_equal(cv_metrics_tier(metrics, 13), 14);
    assert_int_equal(cv_metrics_tier(metrics, 14), 15);
    assert_int_equal(cv_metrics_tier(metrics, 19), 15);
    char *page = page_of(metrics, CV_METRICS_TEXT);
    assert_line(page, "tunnel_metrics_series_refused_total 6");
    assert_line(page, "tunnel_active_users{tier=\"other\"} 0");
    assert_line(page, "tunnel_active_users{tier=\"td\"} 0");
    assert_null(strstr(page, "\"te\""));
    free(page);
    cv_metrics_free(&metrics);

    metrics = new_metrics(20, 900);
    page = page_of(metrics, CV_METRICS_TEXT);
    size_t series =
        lines_with(page, "\n") - lines_with(page, "# HELP") - lines_with(page, "# TYPE");
    assert_in_range(series, 1, 900);
    char line[64];
    (void)snprintf(line, sizeof line, "tunnel_metrics_series %zu", series);
    assert_line(page, line);
    assert_line(page, "tunnel_active_users{tier=\"other\"} 0");
    free(page);
    cv_metrics_free(&metrics);
}

static void the_clients_wish_is_read(void **state)
{
    static const struct {
        const char *accept;
        enum cv_metrics_format want;
    } cases[] = {
        {"", CV_METRICS_TEXT},
        {"*/*", CV_METRICS_TEXT},
        {"text/html,*/*;q=0.8", CV_METRICS_TEXT},
        {"application/openmetrics-text", CV_METRICS_OPENMETRICS},
        {"Application/OpenMetrics-Text; Version=\"1.0.0\"", CV_METRICS_OPENMETRICS},
        {"application/openmetrics-text; version=2.0.0", CV_METRICS_TEXT},
        {"application/openmetrics-text;q=0", CV_METRICS_TEXT},
        {"application/openmetrics-text;q=0.2,text/plain;q=0.7", CV_METRICS_TEXT},
        {"text/plain;q=0.3 , application/openmetrics-text ; q=0.30", CV_METRICS_OPENMETRICS},
        /* Prometheus 2.42 */
        {"application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;"
         "q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
         CV_METRICS_OPENMETRICS},
        {";;;,,,=;q=;q=0.x", CV_METRICS_TEXT},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(cv_metrics_negotiate(cv_slice_str(cases[i].accept)), cases[i].want);
}

static void the_list_is_sound(void **state)
{
    (void)state;
    for (int owner = CV_METRICS_OF_RELAY; owner <= CV_METRICS_OF_AGENT; owner++) {
        size_t count;
        const struct cv_metric *rows = cv_metrics_rows((enum cv_metrics_owner)owner, &count);
        for (size_t i = 0; i < count; i++) {
            size_t len = strlen(rows[i].name), help = strlen(rows[i].help);
            bool is_total = len > 6 && strcmp(rows[i].name + len - 6, "_total") == 0;
            assert_int_equal(is_total, rows[i].kind == CV_METRIC_COUNTER);
            assert_true(help > 1 && rows[i].help[help - 1] == '.');
            if (rows[i].unit == CV_UNIT_SECONDS && !is_total)
                assert_string_equal(rows[i].name + len - 8, "_seconds");
            for (size_t k = 0; k < i; k++)
                assert_string_not_equal(rows[i].name, rows[k].name);
        }
    }
}

static void the_process_knows_itself(void **state)
{
    struct cv_metrics *metrics = new_metrics(2, 0);
    struct cv_metrics_snapshot *snapshot = cv_metrics_snapshot(metrics, 1);
    (void)state;
    assert_non_null(snapshot);
    cv_snapshot_process(snapshot);
    assert_true(snapshot->cells[CV_AT_PROCESS_RESIDENT] > 100000);
    assert_true(snapshot->cells[CV_AT_PROCESS_VIRTUAL] > snapshot->cells[CV_AT_PROCESS_RESIDENT]);
    assert_true(snapshot->cells[CV_AT_PROCESS_OPEN_FDS] >= 3);
    assert_true(snapshot->cells[CV_AT_PROCESS_MAX_FDS] >= 3);
    assert_true(snapshot->cells[CV_AT_PROCESS_CPU] > 0);
    free(snapshot);
    cv_metrics_free(&metrics);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_threads_count_in_one_sum),
        cmocka_unit_test(histograms_are_cumulative),
        cmocka_unit_test(openmetrics_has_units_exemplars_and_an_end),
        cmocka_unit_test(tiers_are_limited_and_refusals_counted),
        cmocka_unit_test(the_clients_wish_is_read),
        cmocka_unit_test(the_list_is_sound),
        cmocka_unit_test(the_process_knows_itself),
    };
    return cmocka_run_group_tests_name("metrics", tests, NULL, NULL);
}
