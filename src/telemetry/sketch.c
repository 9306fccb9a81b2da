/* SPDX-License-Identifier: MIT */
#include "telemetry/sketch.h"

#include <string.h>

enum { SKETCH_VERSION = 1 };

/* One writer: no read-modify-write is needed, which would lock the bus for each value. */
static void put32(_Atomic uint32_t *cell, uint32_t value)
{
    atomic_store_explicit(cell, value, memory_order_relaxed);
}

static uint32_t get32(const _Atomic uint32_t *cell)
{
    return atomic_load_explicit(cell, memory_order_relaxed);
}

static void put64(_Atomic uint64_t *number, uint64_t value)
{
    atomic_store_explicit(number, value, memory_order_relaxed);
}

static uint64_t get64(const _Atomic uint64_t *number)
{
    return atomic_load_explicit(number, memory_order_relaxed);
}

/* Adds without going round. */
static uint32_t sum32(uint32_t a, uint64_t b)
{
    return b > UINT32_MAX - a ? UINT32_MAX : a + (uint32_t)b;
}

static unsigned cell_of(uint64_t value)
{
    if (value > CV_SKETCH_MAX)
        value = CV_SKETCH_MAX;
    if (value < CV_SKETCH_PARTS)
        return (unsigned)value;
    unsigned shift = 63 - (unsigned)__builtin_clzll(value) - CV_SKETCH_PART_BITS;
    return (shift + 1) * CV_SKETCH_PARTS + (unsigned)(value >> shift) - CV_SKETCH_PARTS;
}

/* The middle of a cell. */
static uint64_t value_of(unsigned cell)
{
    if (cell < CV_SKETCH_PARTS)
        return cell;
    unsigned shift = cell / CV_SKETCH_PARTS - 1;
    uint64_t low = (uint64_t)(cell % CV_SKETCH_PARTS + CV_SKETCH_PARTS) << shift;
    return low + ((1ull << shift) >> 1);
}

void cv_sketch_add(struct cv_sketch *sketch, uint64_t value)
{
    _Atomic uint32_t *cell = &sketch->cells[cell_of(value)];
    put32(cell, sum32(get32(cell), 1));
    put64(&sketch->count, get64(&sketch->count) + 1);
    put64(&sketch->sum, get64(&sketch->sum) + value);
}

void cv_sketch_merge(struct cv_sketch *into, const struct cv_sketch *from)
{
    uint64_t count = 0;
    for (unsigned i = 0; i < CV_SKETCH_CELLS; i++) {
        uint32_t more = get32(&from->cells[i]);
        if (more)
            put32(&into->cells[i], sum32(get32(&into->cells[i]), more));
        count += more;
    }
    /* Not from->count, which may be a moment older or newer than the cells. */
    put64(&into->count, get64(&into->count) + count);
    put64(&into->sum, get64(&into->sum) + get64(&from->sum));
}

void cv_sketch_clear(struct cv_sketch *sketch)
{
    for (unsigned i = 0; i < CV_SKETCH_CELLS; i++)
        put32(&sketch->cells[i], 0);
    put64(&sketch->count, 0);
    put64(&sketch->sum, 0);
}

uint64_t cv_sketch_count(const struct cv_sketch *sketch)
{
    return get64(&sketch->count);
}

uint64_t cv_sketch_sum(const struct cv_sketch *sketch)
{
    return get64(&sketch->sum);
}

uint64_t cv_sketch_quantile(const struct cv_sketch *sketch, double q)
{
    uint64_t total = 0, seen = 0;
    for (unsigned i = 0; i < CV_SKETCH_CELLS; i++)
        total += get32(&sketch->cells[i]);
    if (!total)
        return 0;
    q = q > 0 ? (q < 1 ? q : 1) : 0; /* also for what is no number */
    uint64_t rank = (uint64_t)(q * (double)(total - 1));
    unsigned last = 0;
    for (unsigned i = 0; i < CV_SKETCH_CELLS; i++) {
        uint32_t here = get32(&sketch->cells[i]);
        if (here)
            last = i;
        seen += here;
        if (seen > rank)
            return value_of(i);
    }
    return value_of(last);
}

/* ---- for databases ---- */

static struct cv_status write_number(struct cv_buf *out, uint64_t number)
{
    do {
        uint8_t byte = number & 0x7f;
        number >>= 7;
        CV_RETURN_IF_ERROR(cv_buf_append_byte(out, (uint8_t)(byte | (number ? 0x80 : 0))));
    } while (number);
    return cv_ok();
}

static struct cv_status write_all(const struct cv_sketch *sketch, struct cv_buf *out)
{
    uint64_t skipped = 0;
    CV_RETURN_IF_ERROR(cv_buf_append_byte(out, SKETCH_VERSION));
    CV_RETURN_IF_ERROR(write_number(out, get64(&sketch->sum)));
    for (unsigned i = 0; i < CV_SKETCH_CELLS; i++) {
        uint32_t here = get32(&sketch->cells[i]);
        if (!here) {
            skipped++;
            continue;
        }
        CV_RETURN_IF_ERROR(write_number(out, skipped));
        CV_RETURN_IF_ERROR(write_number(out, here));
        skipped = 0;
    }
    return cv_ok();
}

struct cv_status cv_sketch_write(const struct cv_sketch *sketch, struct cv_buf *out)
{
    size_t before = cv_buf_len(out);
    struct cv_status status = write_all(sketch, out);
    if (!cv_is_ok(status))
        cv_buf_truncate(out, before);
    return status;
}

/* False: it is cut off, or larger than 64 bits. */
static bool read_number(struct cv_slice *data, uint64_t *number)
{
    *number = 0;
    for (unsigned shift = 0; shift < 64 && data->len; shift += 7) {
        uint8_t byte = data->data[0];
        *data = cv_slice(data->data + 1, data->len - 1);
        if (shift == 63 && byte > 1)
            return false;
        *number |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80))
            return true;
    }
    return false;
}

struct cv_status cv_sketch_read(struct cv_sketch *sketch, struct cv_slice data)
{
    uint32_t cells[CV_SKETCH_CELLS] = {0};
    uint64_t sum, skipped, here, next = 0, count = 0;
    if (!data.len || data.data[0] != SKETCH_VERSION)
        return cv_status(CV_INVALID);
    data = cv_slice(data.data + 1, data.len - 1);
    if (!read_number(&data, &sum))
        return cv_status(CV_INVALID);
    while (data.len) {
        if (!read_number(&data, &skipped) || !read_number(&data, &here) || !here ||
            here > UINT32_MAX || skipped >= CV_SKETCH_CELLS - next)
            return cv_status(CV_INVALID);
        next += skipped;
        cells[next++] = (uint32_t)here;
        count += here;
    }
    for (unsigned i = 0; i < CV_SKETCH_CELLS; i++)
        if (cells[i])
            put32(&sketch->cells[i], sum32(get32(&sketch->cells[i]), cells[i]));
    put64(&sketch->count, get64(&sketch->count) + count);
    put64(&sketch->sum, get64(&sketch->sum) + sum);
    return cv_ok();
}
