/* SPDX-License-Identifier: MIT
 *
 * A sketch of how values are distributed: any quantile within CV_SKETCH_ERROR of the value that
 * stands there, in fixed memory, and two sketches added give the sketch of both. Averages of
 * quantiles mean nothing; sums of sketches do, over workers, minutes or instances.
 *
 * Cells are log-linear, as in HdrHistogram (hdrhistogram.github.io) and with the promise of
 * DDSketch (Masson, Rim, Lee: "DDSketch", VLDB 2019): below CV_SKETCH_PARTS each value has a cell
 * of its own, above it each power of two is cut into CV_SKETCH_PARTS equal ones. What is larger
 * than CV_SKETCH_MAX counts as that. Values have no unit here; latencies are in microseconds.
 *
 * Caller's memory, zeroed is empty. One thread writes; others may read meanwhile and see a state
 * that is at most a moment apart from one that was.
 */
#ifndef CV_TELEMETRY_SKETCH_H
#define CV_TELEMETRY_SKETCH_H

#include "base/buf.h"

#include <stdatomic.h>
#include <stdint.h>

enum {
    CV_SKETCH_PART_BITS = 5,
    CV_SKETCH_PARTS = 1 << CV_SKETCH_PART_BITS,
    CV_SKETCH_BITS = 36, /* of microseconds: 19 hours */
    CV_SKETCH_CELLS = (CV_SKETCH_BITS - CV_SKETCH_PART_BITS + 1) * CV_SKETCH_PARTS,
};

#define CV_SKETCH_MAX ((1ull << CV_SKETCH_BITS) - 1)
/* Half a cell, of the smallest value in it. */
#define CV_SKETCH_ERROR (0.5 / CV_SKETCH_PARTS)
/* cv_sketch_write never gives more. */
#define CV_SKETCH_TEXT_MAX (2 + CV_SKETCH_CELLS * 7 + 10)

struct cv_sketch {
    _Atomic uint32_t cells[CV_SKETCH_CELLS]; /* stay at UINT32_MAX once there */
    _Atomic uint64_t count;
    _Atomic uint64_t sum; /* exact, of the values as they were given; wraps */
};

/* Constant time, no allocation. */
void cv_sketch_add(struct cv_sketch *sketch, uint64_t value);

/* Adds what is in `from` to `into`. */
void cv_sketch_merge(struct cv_sketch *into, const struct cv_sketch *from);

/* Empties it. */
void cv_sketch_clear(struct cv_sketch *sketch);

uint64_t cv_sketch_count(const struct cv_sketch *sketch);
uint64_t cv_sketch_sum(const struct cv_sketch *sketch);

/* The value below which the part `q` (0 … 1; others count as the nearer end) of all values lies;
 * 0 of an empty sketch. */
uint64_t cv_sketch_quantile(const struct cv_sketch *sketch, double q);

/* Appends the sketch in a form that is short when few cells are used, for a column of a database:
 * version byte, then LEB128 numbers: sum, then for each used cell how many empty ones lie before
 * it, and its count. As cv_buf_append; nothing is appended on failure. */
struct cv_status cv_sketch_write(const struct cv_sketch *sketch, struct cv_buf *out);

/* Adds what cv_sketch_write has written. CV_INVALID for anything else; the sketch is then as it
 * was. */
struct cv_status cv_sketch_read(struct cv_sketch *sketch, struct cv_slice data);

#endif
