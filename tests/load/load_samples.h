/* SPDX-License-Identifier: MIT
 *
 * Every measured time, kept, so that percentiles are exact.
 */
#ifndef CV_TESTS_LOAD_SAMPLES_H
#define CV_TESTS_LOAD_SAMPLES_H

#include <stddef.h>
#include <stdint.h>

struct load_samples {
    uint32_t *values;
    size_t count, cap;
};

/* Room for `cap` values; those beyond are dropped. Aborts without memory. */
void load_samples_init(struct load_samples *samples, size_t cap);
void load_samples_done(struct load_samples *samples);
void load_samples_add(struct load_samples *samples, uint64_t value);

/* Sorts them and prints {"count":…,"mean":…,"p50":…,"p90":…,"p95":…,"p99":…,"p999":…,"max":…}. */
void load_samples_print(struct load_samples *samples);

#endif
