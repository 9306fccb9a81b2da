/* SPDX-License-Identifier: MIT
 *
 * Counting, and the page that Prometheus reads. What is counted stands in metrics_list.h.
 *
 * Each thread counts in a block of its own: plain cells, one writer, no lock and no locked
 * instruction. A scrape adds the blocks up in a snapshot, puts in what is only looked at then
 * (memory, links by state), and writes it out. A block that is NULL counts nothing: that is what
 * metrics.enabled: false does.
 *
 *     cv_metrics_add(block, CV_CELL(REQUESTS, CV_L_STATUS_SUCCESS, tier), 1);
 *     CV_OBSERVE(block, REQUEST_DURATION, tier, 0, duration_ns);
 *
 * Gauges that a thread moves up and down are cells as well: the sum over all threads is right
 * although one of them may be "below zero".
 */
#ifndef CV_TELEMETRY_METRICS_H
#define CV_TELEMETRY_METRICS_H

#include "base/buf.h"
#include "telemetry/metrics_list.h"
#include "telemetry/window.h"

#include <stdatomic.h>
#include <stdint.h>

enum cv_metric_kind {
    CV_METRIC_COUNTER,
    CV_METRIC_GAUGE,
    CV_METRIC_HISTOGRAM,
    CV_METRIC_SUMMARY,
    CV_METRIC_INFO,
};

enum cv_metric_unit { CV_UNIT_NONE, CV_UNIT_SECONDS, CV_UNIT_BYTES };

/* One row of the list. */
struct cv_metric {
    const char *name, *help;
    enum cv_metric_kind kind;
    enum cv_metric_label labels[2];
    enum cv_metric_unit unit;
    enum cv_metric_buckets buckets;
    uint32_t first; /* cell */
    uint32_t span;  /* cells of one series */
};

/* Whose list: a program's. */
enum cv_metrics_owner { CV_METRICS_OF_RELAY, CV_METRICS_OF_AGENT };

/* All rows of a program, in the order of the page. */
const struct cv_metric *cv_metrics_rows(enum cv_metrics_owner owner, size_t *count);
const char *cv_metric_label_name(enum cv_metric_label label);
/* How many values a label can have, and which; of CV_LABEL_TIER and CV_LABEL_ERROR, which depend on
 * the program, none. */
size_t cv_metric_label_count(enum cv_metric_label label);
const char *cv_metric_label_value(enum cv_metric_label label, size_t index);

/* The bounds of a histogram, in the unit of the page. */
size_t cv_metric_bound_count(enum cv_metric_buckets buckets);
double cv_metric_bound(enum cv_metric_buckets buckets, size_t index);

/* What an attempt to make a link that ended so counts as (CV_L_RESULT_…), and the end of a link
 * (CV_L_REASON_…). */
unsigned cv_metrics_result(enum cv_status_id id);
unsigned cv_metrics_reason(enum cv_status_id id);

/* ---- all of a program ---- */

struct cv_metrics;
struct cv_metrics_block;

struct cv_metrics_options {
    enum cv_metrics_owner owner;
    unsigned blocks;          /* threads that count */
    const char *const *tiers; /* the first CV_METRIC_TIERS_MAX of them have numbers of their own */
    size_t tier_count;
    size_t max_series; /* tiers are given up, the last first, until so many do; 0: no limit */
    const char *tls;   /* for tunnel_build_info; borrowed */
    uint64_t start_s;  /* Unix time */
};

/* Borrows the tiers' names. CV_NO_MEMORY; *out is NULL then. */
struct cv_status cv_metrics_new(const struct cv_metrics_options *options, struct cv_metrics **out);
void cv_metrics_free(struct cv_metrics **metrics); /* takes NULL; nulls */

/* The block of one thread; NULL of NULL. */
struct cv_metrics_block *cv_metrics_block(struct cv_metrics *metrics, unsigned index);

/* A status of the pair of category and code with this number, from 0; CV_OK: there are no more. */
enum cv_status_id cv_metrics_error_status(const struct cv_metrics *metrics, unsigned pair);

/* The value of the label for the tier of this number in the options. */
unsigned cv_metrics_tier(const struct cv_metrics *metrics, size_t number);

/* ---- counting, on the block's own thread; NULL blocks count nothing ---- */

/* What a trace is to be found by, beside a measured value. */
struct cv_exemplar {
    uint8_t trace_id[16];
    double value; /* in the unit of the page */
    uint64_t at_ms;
};

/* One of a histogram's buckets may show it. Written by one thread, read by any. */
struct cv_exemplar_slot {
    _Atomic uint32_t turn; /* odd: being written; 0: empty */
    _Atomic uint64_t words[4];
};

enum {
    CV_EXEMPLAR_SLOTS = CV_LAST_REQUEST_DURATION - CV_AT_REQUEST_DURATION + 1,
    CV_METRICS_CELLS_MAX = (int)CV_METRICS_RELAY_CELLS > (int)CV_METRICS_AGENT_CELLS
                               ? (int)CV_METRICS_RELAY_CELLS
                               : (int)CV_METRICS_AGENT_CELLS,
};

/* Members are private to telemetry/metrics*.c and the functions below. */
struct cv_metrics_block {
    const uint8_t *error_pairs; /* by status */
    struct cv_exemplar_slot *exemplars;
    struct cv_window window;
    _Atomic uint64_t cells[CV_METRICS_CELLS_MAX];
};

static inline void cv_metrics_add(struct cv_metrics_block *block, uint32_t cell, uint64_t number)
{
    if (block) {
        _Atomic uint64_t *at = &block->cells[cell];
        atomic_store_explicit(at, atomic_load_explicit(at, memory_order_relaxed) + number,
                              memory_order_relaxed);
    }
}

static inline void cv_metrics_sub(struct cv_metrics_block *block, uint32_t cell, uint64_t number)
{
    cv_metrics_add(block, cell, (uint64_t)0 - number);
}

/* An error that was told to somebody, or ended something. CV_OK and conditions without a code are
 * none. */
static inline void cv_metrics_error(struct cv_metrics_block *block, enum cv_status_id id)
{
    if (block && block->error_pairs[id] != UINT8_MAX)
        cv_metrics_add(block, CV_CELL(ERRORS, block->error_pairs[id], 0), 1);
}

/* `value` in the unit that its buckets are counted in: nanoseconds, tokens. */
void cv_metrics_observe(struct cv_metrics_block *block, uint32_t cell,
                        enum cv_metric_buckets buckets, uint64_t value);
#define CV_OBSERVE(block, id, first, second, value)                                                \
    cv_metrics_observe((block), CV_CELL(id, (first), (second)),                                    \
                       (enum cv_metric_buckets)CV_BUCKETS_OF_##id, (value))

/* A request's duration, with the trace that shows what it was made of; `trace_id` may be NULL, when
 * nobody has kept that trace. `wall_ms` is Unix time. */
void cv_metrics_observe_request(struct cv_metrics_block *block, unsigned tier, uint64_t value_ns,
                                const uint8_t trace_id[16], uint64_t wall_ms);

/* ---- a scrape ---- */

struct cv_metrics_snapshot {
    const struct cv_metrics *metrics;
    struct cv_window_sum window;
    double cells[CV_METRICS_CELLS_MAX];
};

/* What all blocks have counted, at about one moment. Any thread. NULL without memory; free(3) it.
 */
struct cv_metrics_snapshot *cv_metrics_snapshot(const struct cv_metrics *metrics, uint64_t now_ms);

static inline void cv_snapshot_set(struct cv_metrics_snapshot *snapshot, uint32_t cell,
                                   double value)
{
    snapshot->cells[cell] = value;
}

/* How often a histogram's values were counted, all series together; their sum in the unit of the
 * page. */
struct cv_histogram_total {
    double count, sum;
};
struct cv_histogram_total cv_snapshot_total(const struct cv_metrics_snapshot *snapshot,
                                            uint32_t first, uint32_t series,
                                            enum cv_metric_buckets buckets);
#define CV_SNAPSHOT_TOTAL(snapshot, id)                                                            \
    cv_snapshot_total((snapshot), CV_AT_##id, (CV_LAST_##id - CV_AT_##id + 1) / CV_SPAN_##id,      \
                      (enum cv_metric_buckets)CV_BUCKETS_OF_##id)

/* What this process has of memory; 0 where it cannot be read. */
struct cv_process_memory {
    uint64_t virtual_bytes, resident_bytes;
};
struct cv_process_memory cv_process_memory(void);

/* process_*: of this process, from /proc. What cannot be read stays 0. */
void cv_snapshot_process(struct cv_metrics_snapshot *snapshot);

/* ---- the page ---- */

enum cv_metrics_format {
    CV_METRICS_TEXT,        /* Prometheus, text format 0.0.4 */
    CV_METRICS_OPENMETRICS, /* OpenMetrics 1.0.0: the same, with units, exemplars and an end */
};

/* A page is never longer. */
#define CV_METRICS_PAGE_MAX ((size_t)4 * 1024 * 1024)

/* What a client wants: its Accept field (RFC 9110 §12.5.1), empty when it has none. */
enum cv_metrics_format cv_metrics_negotiate(struct cv_slice accept);
const char *cv_metrics_content_type(enum cv_metrics_format format);

/* Appends the page. CV_NO_MEMORY, CV_NO_RESOURCES as cv_buf_append. */
struct cv_status cv_metrics_write(const struct cv_metrics_snapshot *snapshot,
                                  enum cv_metrics_format format, struct cv_buf *out);

#endif
