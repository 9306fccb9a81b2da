/* SPDX-License-Identifier: MIT */
#include "relay/relay_metrics.h"

#include "config/relay_config.h"
#include "relay/api_private.h"
#include "relay/registry.h"
#include "relay/tracing.h"
#include "telemetry/log.h"

#include <stdlib.h>
#include <time.h>

/* ---- start ---- */

struct cv_status cv_relay_metrics_open(struct cv_relay *relay, unsigned worker_count)
{
    const struct cv_relay_config *config = relay->config;
    const char *tiers[CV_METRIC_TIERS_MAX + 1] = {0}; /* one more tells that there are others */
    size_t count = cv_limits_tier_count(relay->limits);
    if (!config->metrics_enabled)
        return cv_ok();
    for (size_t i = 0; i < count && i < sizeof tiers / sizeof *tiers; i++)
        tiers[i] = cv_limits_tier_name(relay->limits, i);
    return cv_metrics_new(&(struct cv_metrics_options){.owner = CV_METRICS_OF_RELAY,
                                                       .blocks = worker_count,
                                                       .tiers = tiers,
                                                       .tier_count = count,
                                                       .max_series = config->metrics_max_series,
                                                       .tls = relay->tls ? "true" : "false",
                                                       .start_s = (uint64_t)time(NULL)},
                          &relay->metrics);
}

unsigned cv_relay_metrics_tier(const struct cv_relay *relay, const struct cv_identity *identity)
{
    if (!relay->metrics || !identity)
        return CV_L_TIER_NONE;
    return cv_metrics_tier(relay->metrics, cv_limits_tier_number(relay->limits, identity));
}

/* ---- labels ---- */

unsigned cv_relay_metrics_auth(enum cv_status_id id)
{
    switch (id) {
    case CV_OK:
        return CV_L_AUTH_OK;
    case CV_AUTH_EXPIRED:
        return CV_L_AUTH_EXPIRED;
    case CV_AUTH_NOT_YET_VALID:
        return CV_L_AUTH_NOT_YET_VALID;
    case CV_AUTH_BAD_SIGNATURE:
        return CV_L_AUTH_BAD_SIGNATURE;
    case CV_AUTH_WRONG_AUDIENCE:
        return CV_L_AUTH_WRONG_AUDIENCE;
    case CV_AUTH_WRONG_ISSUER:
        return CV_L_AUTH_WRONG_ISSUER;
    case CV_AUTH_UNKNOWN_KEY:
        return CV_L_AUTH_UNKNOWN_KEY;
    case CV_AUTH_MALFORMED:
        return CV_L_AUTH_MALFORMED;
    case CV_AUTH_MISSING:
        return CV_L_AUTH_MISSING;
    case CV_AUTH_REVOKED:
        return CV_L_AUTH_REVOKED;
    default:
        return CV_L_AUTH_OTHER;
    }
}

/* ---- a scrape ---- */

static void put_latencies(struct cv_metrics_snapshot *snapshot)
{
    static const double quantiles[] = {0.5, 0.95, 0.99};
    const struct cv_sketch *sketch = &snapshot->window.latency;
    double ms[CV_L_QUANTILE_COUNT];
    uint64_t count = cv_sketch_count(sketch);
    for (unsigned i = 0; i < CV_L_QUANTILE_COUNT; i++) {
        ms[i] = (double)cv_sketch_quantile(sketch, quantiles[i]) / 1000;
        cv_snapshot_set(snapshot, CV_AT_LATENCY_MS + i, ms[i]);
    }
    struct cv_histogram_total total = CV_SNAPSHOT_TOTAL(snapshot, REQUEST_DURATION);
    cv_snapshot_set(snapshot, CV_AT_LATENCY_MS + CV_L_QUANTILE_COUNT, total.sum * 1000);
    cv_snapshot_set(snapshot, CV_AT_LATENCY_MS + CV_L_QUANTILE_COUNT + 1, total.count);
    cv_snapshot_set(snapshot, CV_CELL(LATENCY_AVG_MS, 0, 0),
                    count ? (double)cv_sketch_sum(sketch) / (double)count / 1000 : 0);
    cv_snapshot_set(snapshot, CV_CELL(LATENCY_P95_MS, 0, 0), ms[CV_L_QUANTILE_P95]);
    cv_snapshot_set(snapshot, CV_CELL(LATENCY_P99_MS, 0, 0), ms[CV_L_QUANTILE_P99]);
}

static void put_rates(struct cv_metrics_snapshot *snapshot)
{
    const uint64_t *counts = snapshot->window.counts;
    cv_snapshot_set(snapshot, CV_CELL(REQUEST_RATE, 0, 0),
                    cv_window_ratio(counts[CV_WINDOW_REQUESTS_OK], counts[CV_WINDOW_REQUESTS]));
    cv_snapshot_set(
        snapshot, CV_CELL(CONNECTION_RATE, 0, 0),
        cv_window_ratio(counts[CV_WINDOW_CONNECTIONS_OK], counts[CV_WINDOW_CONNECTIONS]));
}

static void put_logs(struct cv_metrics_snapshot *snapshot, const struct cv_log *log)
{
    for (unsigned i = 0; i < CV_LOG_LEVEL_COUNT; i++)
        cv_snapshot_set(snapshot, CV_CELL(LOG_MESSAGES, i, 0),
                        (double)cv_log_count(log, (enum cv_log_level)i));
}

static void put_users(struct cv_metrics_snapshot *snapshot, const struct cv_relay *relay)
{
    for (unsigned tier = 0; tier < CV_L_TIER_COUNT; tier++)
        cv_snapshot_set(snapshot, CV_CELL(ACTIVE_USERS, tier, 0),
                        (double)cv_registry_users(relay->registry, tier));
}

static void add_breaker(void *arg, const struct cv_gate_view *gate)
{
    struct cv_metrics_snapshot *snapshot = arg;
    snapshot->cells[CV_CELL(BREAKERS, CV_L_BREAKER_TUNNELS, gate->breaker.state)]++;
}

/* The worst is open, then half open: as numbers 1 and 2. */
static void put_breakers(struct cv_metrics_snapshot *snapshot, const struct cv_relay *relay)
{
    const double *of = &snapshot->cells[CV_CELL(BREAKERS, CV_L_BREAKER_TUNNELS, 0)];
    cv_registry_each_gate(relay->registry, NULL, add_breaker, snapshot);
    unsigned worst = of[CV_BREAKER_OPEN] > 0        ? CV_BREAKER_OPEN
                     : of[CV_BREAKER_HALF_OPEN] > 0 ? CV_BREAKER_HALF_OPEN
                                                    : CV_BREAKER_CLOSED;
    cv_snapshot_set(snapshot, CV_CELL(BREAKER_WORST, CV_L_BREAKER_TUNNELS, 0), worst);
}

static void put_pool(struct cv_metrics_snapshot *snapshot)
{
    double active =
        snapshot->cells[CV_CELL(POOL_CONNECTIONS, CV_L_POOL_STREAMS, CV_L_POOL_STATE_ACTIVE)];
    double capacity = snapshot->cells[CV_CELL(POOL_CAPACITY, CV_L_POOL_STREAMS, 0)];
    cv_snapshot_set(snapshot, CV_CELL(POOL_USAGE, CV_L_POOL_STREAMS, 0),
                    capacity > 0 ? active / capacity : 0);
}

_Static_assert((int)CV_L_DROP_COUNT == (int)CV_TRACE_DROP_COUNT &&
                   (int)CV_L_DROP_NO_MEMORY == (int)CV_TRACE_DROP_NO_MEMORY,
               "labels and reasons are the same list");

static void put_spans(struct cv_metrics_snapshot *snapshot, const struct cv_tracer *tracer)
{
    for (unsigned i = 0; i < CV_TRACE_DROP_COUNT; i++)
        cv_snapshot_set(snapshot, CV_CELL(SPANS_DROPPED, i, 0),
                        (double)cv_tracer_dropped(tracer, (enum cv_trace_drop)i));
}

static struct cv_metrics_snapshot *take_snapshot(const struct cv_relay *relay, uint64_t now_ms)
{
    struct cv_metrics_snapshot *snapshot = cv_metrics_snapshot(relay->metrics, now_ms);
    if (!snapshot)
        return NULL;
    cv_snapshot_set(snapshot, CV_CELL(ACTIVE_CONNECTIONS, 0, 0), cv_relay_count(relay).links);
    put_latencies(snapshot);
    put_rates(snapshot);
    put_logs(snapshot, relay->log);
    put_users(snapshot, relay);
    put_breakers(snapshot, relay);
    put_pool(snapshot);
    put_spans(snapshot, cv_relay_tracer(relay->tracing));
    cv_snapshot_process(snapshot);
    return snapshot;
}

/* ---- the page ---- */

void relay_metrics_page(struct cv_consumer *c)
{
    const struct cv_relay *relay = c->worker->relay;
    if (!relay->metrics) {
        problem_answer(c, CV_NOT_FOUND, CV_HOP_RELAY, "metrics.enabled is false",
                       c->head.framing == CV_HTTP_NO_BODY);
        return;
    }
    const struct cv_slice *accept = cv_http_find(&c->head, "Accept");
    enum cv_metrics_format format = cv_metrics_negotiate(accept ? *accept : cv_slice(NULL, 0));
    struct cv_metrics_snapshot *snapshot = take_snapshot(relay, consumer_now_ms(c));
    struct cv_buf page;
    cv_buf_init(&page, CV_METRICS_PAGE_MAX);
    if (snapshot && cv_is_ok(cv_metrics_write(snapshot, format, &page)) &&
        cv_is_ok(cv_buf_append_byte(&page, 0)))
        problem_simple(c, 200, cv_metrics_content_type(format), (const char *)cv_buf_head(&page),
                       "Cache-Control: no-store\r\nVary: Accept\r\n");
    else
        problem_answer(c, CV_NO_MEMORY, CV_HOP_RELAY, NULL, false);
    cv_buf_done(&page);
    free(snapshot);
}

void api_metrics(struct cv_consumer *c, const json_t *body)
{
    (void)body;
    relay_metrics_page(c);
}
