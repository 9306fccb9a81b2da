/* SPDX-License-Identifier: MIT
 *
 * What metrics.c (counting) and metrics_text.c (the page) share. Nobody else includes this.
 */
#ifndef CV_TELEMETRY_METRICS_PRIVATE_H
#define CV_TELEMETRY_METRICS_PRIVATE_H

#include "telemetry/metrics.h"

#include <stdbool.h>

/* The bounds of a histogram: `raw` in the unit of the counting, × scale in that of the page. */
struct metric_bounds {
    double scale;
    const uint64_t *raw;
    unsigned len;
};

struct cv_metrics {
    enum cv_metrics_owner owner;
    const char *tiers[CV_METRIC_TIERS_MAX];
    unsigned tier_count; /* that have numbers of their own */
    bool has_other;      /* and some have not */
    unsigned refused;
    const char *tls;
    uint64_t start_s;
    uint8_t error_pairs[CV_STATUS_COUNT];  /* status → pair; UINT8_MAX: none */
    uint8_t error_status[CV_STATUS_COUNT]; /* pair → a status of it */
    unsigned error_count;
    unsigned block_count;
    struct cv_metrics_block *blocks;
    struct cv_exemplar_slot *exemplars; /* CV_EXEMPLAR_SLOTS for each block of a relay */
};

const struct metric_bounds *metrics_bounds(enum cv_metric_buckets buckets);

/* Whether the index of a label is one that is there, and its value. */
bool metrics_has_value(const struct cv_metrics *metrics, enum cv_metric_label label, size_t index);
const char *metrics_value(const struct cv_metrics *metrics, enum cv_metric_label label,
                          size_t index);
size_t metrics_label_max(enum cv_metric_label label);

/* How many series the page has. */
size_t metrics_series(const struct cv_metrics *metrics);

/* The newest exemplar of a cell, among all blocks. False: there is none. */
bool metrics_exemplar(const struct cv_metrics *metrics, uint32_t cell, struct cv_exemplar *out);

#endif
