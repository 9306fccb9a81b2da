/* SPDX-License-Identifier: MIT */
#include "telemetry/metrics_private.h"

#include <stdlib.h>
#include <string.h>

_Static_assert(CV_STATUS_COUNT < UINT8_MAX, "a pair of category and code is kept in a byte");
_Static_assert((int)CV_AT_ACTIVE_USERS == (int)CV_METRICS_SHARED_CELLS &&
                   (int)CV_AT_SERVICE_CONNECTIONS == (int)CV_METRICS_SHARED_CELLS,
               "what is shared has the same place in both programs");

/* ---- the list as tables ---- */

#define ROW(id, kind, name, l1, l2, unit, buckets, help)                                           \
    {name,                                                                                         \
     help,                                                                                         \
     CV_METRIC_##kind,                                                                             \
     {CV_LABEL_##l1, CV_LABEL_##l2},                                                               \
     CV_UNIT_##unit,                                                                               \
     (enum cv_metric_buckets)CV_BUCKETS_##buckets,                                                 \
     CV_AT_##id,                                                                                   \
     CV_SPAN_##id},
static const struct cv_metric relay_rows[] = {CV_METRICS_SHARED(ROW) CV_METRICS_RELAY(ROW)};
static const struct cv_metric agent_rows[] = {CV_METRICS_SHARED(ROW) CV_METRICS_AGENT(ROW)};
#undef ROW

const struct cv_metric *cv_metrics_rows(enum cv_metrics_owner owner, size_t *count)
{
    bool is_relay = owner == CV_METRICS_OF_RELAY;
    *count =
        is_relay ? sizeof relay_rows / sizeof *relay_rows : sizeof agent_rows / sizeof *agent_rows;
    return is_relay ? relay_rows : agent_rows;
}

#define VALUE(label, value, text) text,
#define VALUES(label, text) static const char *const values_##label[] = {CV_VALUES_##label(VALUE)};
CV_METRIC_LABELS(VALUES)
#undef VALUES
#undef VALUE

struct label {
    const char *name;
    const char *const *values; /* NULL: they come from somewhere else */
    size_t count;
};

static const struct label labels[] = {
#define LABEL(label, text) {text, values_##label, CV_L_##label##_COUNT},
    CV_METRIC_LABELS(LABEL)
#undef LABEL
        [CV_LABEL_TIER] = {"tier", NULL, CV_L_TIER_COUNT},
    [CV_LABEL_PRIORITY] = {"priority", NULL, CV_L_PRIORITY_COUNT},
    [CV_LABEL_ERROR] = {"error_category", NULL, CV_L_ERROR_COUNT},
    [CV_LABEL_NONE] = {"", NULL, 1},
};

const char *cv_metric_label_name(enum cv_metric_label label)
{
    return labels[label].name;
}

size_t cv_metric_label_count(enum cv_metric_label label)
{
    return label == CV_LABEL_TIER || label == CV_LABEL_ERROR ? 0 : labels[label].count;
}

const char *cv_metric_label_value(enum cv_metric_label label, size_t index)
{
    if (index >= cv_metric_label_count(label))
        return "";
    if (label == CV_LABEL_PRIORITY)
        return cv_priority_name((enum cv_priority)index);
    return labels[label].values ? labels[label].values[index] : "";
}

#define RAW(set, scale, ...) static const uint64_t raw_##set[] = {__VA_ARGS__};
CV_METRIC_BUCKETS(RAW)
#undef RAW

static const struct metric_bounds bounds[] = {
#define BOUNDS(set, scale, ...) {scale, raw_##set, CV_BUCKETS_LEN_##set},
    CV_METRIC_BUCKETS(BOUNDS)
#undef BOUNDS
};

const struct metric_bounds *metrics_bounds(enum cv_metric_buckets buckets)
{
    return &bounds[buckets];
}

size_t cv_metric_bound_count(enum cv_metric_buckets buckets)
{
    return bounds[buckets].len;
}

double cv_metric_bound(enum cv_metric_buckets buckets, size_t index)
{
    return (double)bounds[buckets].raw[index] * bounds[buckets].scale;
}

/* ---- which values there are ---- */

size_t metrics_label_max(enum cv_metric_label label)
{
    return labels[label].count;
}

/* Tiers: 0 none, then those of the configuration, then other. */
bool metrics_has_value(const struct cv_metrics *metrics, enum cv_metric_label label, size_t index)
{
    if (label == CV_LABEL_TIER)
        return index <= metrics->tier_count ||
               (index == metrics->tier_count + 1 && metrics->has_other);
    if (label == CV_LABEL_ERROR)
        return index < metrics->error_count;
    return index < labels[label].count;
}

const char *metrics_value(const struct cv_metrics *metrics, enum cv_metric_label label,
                          size_t index)
{
    if (label != CV_LABEL_TIER)
        return cv_metric_label_value(label, index);
    if (index == CV_L_TIER_NONE)
        return "none";
    return index <= metrics->tier_count ? metrics->tiers[index - 1] : "other";
}

size_t metrics_series(const struct cv_metrics *metrics)
{
    size_t count, series = 0;
    const struct cv_metric *rows = cv_metrics_rows(metrics->owner, &count);
    for (size_t i = 0; i < count; i++) {
        size_t each[2] = {0, 0};
        for (unsigned k = 0; k < 2; k++)
            for (size_t v = 0; v < labels[rows[i].labels[k]].count; v++)
                each[k] += metrics_has_value(metrics, rows[i].labels[k], v);
        /* A histogram's count is one, as its sum; its highest bucket has a cell. A summary has its
         * quantiles, sum and count. */
        size_t lines = rows[i].kind == CV_METRIC_HISTOGRAM ? rows[i].span + 1 : 1;
        series += each[0] * each[1] * lines + (rows[i].kind == CV_METRIC_SUMMARY ? 2 : 0);
    }
    return series;
}

/* ---- what statuses count as ---- */

unsigned cv_metrics_result(enum cv_status_id id)
{
    switch (id) {
    case CV_OK:
        return CV_L_RESULT_OK;
    case CV_RATE_LIMITED:
        return CV_L_RESULT_LIMITED;
    case CV_RESUME_UNKNOWN:
    case CV_RESUME_CONFLICT:
    case CV_RESUME_PROOF:
        return CV_L_RESULT_RESUME_REFUSED;
    default:
        break;
    }
    switch (cv_status_category(id)) {
    case CV_CATEGORY_NETWORK:
        return CV_L_RESULT_NETWORK;
    case CV_CATEGORY_AUTHENTICATION:
        return CV_L_RESULT_UNAUTHORIZED;
    case CV_CATEGORY_PROTOCOL:
        return CV_L_RESULT_BAD_REQUEST;
    default:
        return CV_L_RESULT_ERROR;
    }
}

unsigned cv_metrics_reason(enum cv_status_id id)
{
    switch (id) {
    case CV_OK:
    case CV_EOF:
        return CV_L_REASON_CLOSED;
    case CV_CONN_TIMEOUT:
        return CV_L_REASON_TIMEOUT;
    case CV_REPLACED:
        return CV_L_REASON_REPLACED;
    case CV_LINK_CLOSED:
        return CV_L_REASON_OPERATOR;
    case CV_SHUTTING_DOWN:
        return CV_L_REASON_SHUTDOWN;
    case CV_RATE_LIMITED:
    case CV_CHANNEL_LIMIT:
    case CV_SSH_LIMIT:
    case CV_WS_POLICY:
    case CV_WS_TOO_BIG:
        return CV_L_REASON_LIMIT;
    default:
        break;
    }
    switch (cv_status_category(id)) {
    case CV_CATEGORY_NETWORK:
        return CV_L_REASON_NETWORK;
    case CV_CATEGORY_AUTHENTICATION:
        return CV_L_REASON_TOKEN;
    case CV_CATEGORY_PROTOCOL:
        return CV_L_REASON_PROTOCOL;
    default:
        return CV_L_REASON_ERROR;
    }
}

/* ---- life ---- */

static void find_error_pairs(struct cv_metrics *metrics)
{
    memset(metrics->error_pairs, UINT8_MAX, sizeof metrics->error_pairs);
    for (unsigned id = 0; id < CV_STATUS_COUNT; id++) {
        const char *code = cv_status_code((enum cv_status_id)id);
        if (!code[0])
            continue;
        unsigned pair = 0;
        while (pair < metrics->error_count) {
            enum cv_status_id other = (enum cv_status_id)metrics->error_status[pair];
            if (strcmp(cv_status_code(other), code) == 0 &&
                cv_status_category(other) == cv_status_category((enum cv_status_id)id))
                break;
            pair++;
        }
        if (pair == metrics->error_count)
            metrics->error_status[metrics->error_count++] = (uint8_t)id;
        metrics->error_pairs[id] = (uint8_t)pair;
    }
}

enum cv_status_id cv_metrics_error_status(const struct cv_metrics *metrics, unsigned pair)
{
    return pair < metrics->error_count ? (enum cv_status_id)metrics->error_status[pair] : CV_OK;
}

static void take_tiers(struct cv_metrics *metrics, const struct cv_metrics_options *options)
{
    size_t count = options->tier_count < CV_METRIC_TIERS_MAX ? options->tier_count
                                                             : (size_t)CV_METRIC_TIERS_MAX;
    for (size_t i = 0; i < count; i++)
        metrics->tiers[i] = options->tiers[i];
    metrics->tier_count = (unsigned)count;
    metrics->has_other = options->tier_count > count;
    while (options->max_series && metrics->tier_count &&
           metrics_series(metrics) > options->max_series) {
        metrics->tier_count--;
        metrics->has_other = true;
    }
    metrics->refused = (unsigned)options->tier_count - metrics->tier_count;
}

struct cv_status cv_metrics_new(const struct cv_metrics_options *options, struct cv_metrics **out)
{
    struct cv_metrics *metrics = calloc(1, sizeof *metrics);
    *out = NULL;
    if (!metrics)
        return cv_status(CV_NO_MEMORY);
    bool is_relay = options->owner == CV_METRICS_OF_RELAY;
    size_t slots = is_relay ? (size_t)CV_EXEMPLAR_SLOTS * options->blocks : 0;
    metrics->owner = options->owner;
    metrics->tls = options->tls;
    metrics->start_s = options->start_s;
    find_error_pairs(metrics);
    take_tiers(metrics, options);
    metrics->blocks = calloc(options->blocks, sizeof *metrics->blocks);
    metrics->exemplars = slots ? calloc(slots, sizeof *metrics->exemplars) : NULL;
    if (!metrics->blocks || (slots && !metrics->exemplars)) {
        cv_metrics_free(&metrics);
        return cv_status(CV_NO_MEMORY);
    }
    metrics->block_count = options->blocks;
    for (unsigned i = 0; i < metrics->block_count; i++) {
        metrics->blocks[i].error_pairs = metrics->error_pairs;
        metrics->blocks[i].exemplars =
            is_relay ? &metrics->exemplars[(size_t)i * CV_EXEMPLAR_SLOTS] : NULL;
    }
    *out = metrics;
    return cv_ok();
}

void cv_metrics_free(struct cv_metrics **metrics)
{
    if (!*metrics)
        return;
    free((*metrics)->blocks);
    free((*metrics)->exemplars);
    free(*metrics);
    *metrics = NULL;
}

struct cv_metrics_block *cv_metrics_block(struct cv_metrics *metrics, unsigned index)
{
    return metrics && index < metrics->block_count ? &metrics->blocks[index] : NULL;
}

unsigned cv_metrics_tier(const struct cv_metrics *metrics, size_t number)
{
    return number < metrics->tier_count ? (unsigned)number + 1 : metrics->tier_count + 1;
}

/* ---- counting ---- */

static unsigned bucket_of(const struct metric_bounds *set, uint64_t value)
{
    unsigned i = 0;
    while (i < set->len && value > set->raw[i])
        i++;
    return i;
}

void cv_metrics_observe(struct cv_metrics_block *block, uint32_t cell,
                        enum cv_metric_buckets buckets, uint64_t value)
{
    if (!block)
        return;
    const struct metric_bounds *set = &bounds[buckets];
    cv_metrics_add(block, cell + bucket_of(set, value), 1);
    cv_metrics_add(block, cell + set->len + 1, value);
}

/* A slot is read by other threads while it is written: the turn tells them. Each store behind the
 * odd turn releases it, so that who sees a new word sees that turn as well. */
static void put_exemplar(struct cv_exemplar_slot *slot, const struct cv_exemplar *exemplar)
{
    uint64_t words[4];
    uint32_t turn = atomic_load_explicit(&slot->turn, memory_order_relaxed);
    memcpy(words, exemplar->trace_id, 16);
    memcpy(&words[2], &exemplar->value, 8);
    words[3] = exemplar->at_ms;
    atomic_store_explicit(&slot->turn, turn + 1, memory_order_relaxed);
    for (unsigned i = 0; i < 4; i++)
        atomic_store_explicit(&slot->words[i], words[i], memory_order_release);
    atomic_store_explicit(&slot->turn, turn + 2 ? turn + 2 : 2, memory_order_release);
}

static bool get_exemplar(const struct cv_exemplar_slot *slot, struct cv_exemplar *out)
{
    uint64_t words[4];
    uint32_t turn = atomic_load_explicit(&slot->turn, memory_order_acquire);
    for (unsigned i = 0; i < 4; i++)
        words[i] = atomic_load_explicit(&slot->words[i], memory_order_acquire);
    if (!turn || turn % 2 || atomic_load_explicit(&slot->turn, memory_order_relaxed) != turn)
        return false;
    memcpy(out->trace_id, words, 16);
    memcpy(&out->value, &words[2], 8);
    out->at_ms = words[3];
    return true;
}

void cv_metrics_observe_request(struct cv_metrics_block *block, unsigned tier, uint64_t value_ns,
                                const uint8_t trace_id[16], uint64_t wall_ms)
{
    if (!block)
        return;
    const struct metric_bounds *set = &bounds[CV_BUCKETS_OF_REQUEST_DURATION];
    CV_OBSERVE(block, REQUEST_DURATION, tier, 0, value_ns);
    if (!trace_id || !block->exemplars)
        return;
    struct cv_exemplar exemplar = {.value = (double)value_ns * set->scale, .at_ms = wall_ms};
    memcpy(exemplar.trace_id, trace_id, sizeof exemplar.trace_id);
    put_exemplar(
        &block->exemplars[(size_t)tier * CV_SPAN_REQUEST_DURATION + bucket_of(set, value_ns)],
        &exemplar);
}

bool metrics_exemplar(const struct cv_metrics *metrics, uint32_t cell, struct cv_exemplar *out)
{
    bool is_found = false;
    if (!metrics->exemplars || cell < CV_AT_REQUEST_DURATION || cell > CV_LAST_REQUEST_DURATION)
        return false;
    for (unsigned i = 0; i < metrics->block_count; i++) {
        struct cv_exemplar exemplar;
        if (get_exemplar(&metrics->blocks[i].exemplars[cell - CV_AT_REQUEST_DURATION], &exemplar) &&
            (!is_found || exemplar.at_ms > out->at_ms)) {
            *out = exemplar;
            is_found = true;
        }
    }
    return is_found;
}

/* ---- a scrape ---- */

struct cv_metrics_snapshot *cv_metrics_snapshot(const struct cv_metrics *metrics, uint64_t now_ms)
{
    size_t cells = metrics->owner == CV_METRICS_OF_RELAY ? (size_t)CV_METRICS_RELAY_CELLS
                                                         : (size_t)CV_METRICS_AGENT_CELLS;
    struct cv_metrics_snapshot *snapshot = calloc(1, sizeof *snapshot);
    if (!snapshot)
        return NULL;
    snapshot->metrics = metrics;
    for (size_t c = 0; c < cells; c++) {
        uint64_t sum = 0; /* over all threads: what one took away, another has added */
        for (unsigned i = 0; i < metrics->block_count; i++)
            sum += atomic_load_explicit(&metrics->blocks[i].cells[c], memory_order_relaxed);
        /* Not all at one moment: a gauge may seem to be below zero for that long. */
        snapshot->cells[c] = (int64_t)sum < 0 ? 0 : (double)sum;
    }
    for (unsigned i = 0; i < metrics->block_count; i++)
        cv_window_merge(&snapshot->window, &metrics->blocks[i].window, now_ms);
    cv_snapshot_set(snapshot, CV_CELL(BUILD_INFO, 0, 0), 1);
    cv_snapshot_set(snapshot, CV_CELL(SERIES, 0, 0), (double)metrics_series(metrics));
    cv_snapshot_set(snapshot, CV_CELL(SERIES_REFUSED, 0, 0), metrics->refused);
    cv_snapshot_set(snapshot, CV_CELL(PROCESS_START, 0, 0), (double)metrics->start_s);
    return snapshot;
}

struct cv_histogram_total cv_snapshot_total(const struct cv_metrics_snapshot *snapshot,
                                            uint32_t first, uint32_t series,
                                            enum cv_metric_buckets buckets)
{
    struct cv_histogram_total total = {0};
    const struct metric_bounds *set = &bounds[buckets];
    for (uint32_t s = 0; s < series; s++) {
        const double *cells = &snapshot->cells[first + s * (set->len + 2)];
        for (unsigned i = 0; i <= set->len; i++)
            total.count += cells[i];
        total.sum += cells[set->len + 1] * set->scale;
    }
    return total;
}
