/* SPDX-License-Identifier: MIT */
#include "base/test.h"
#include "telemetry/sketch.h"
#include "telemetry/window.h"

#include <stdlib.h>
#include <string.h>

static struct cv_sketch *new_sketch(void)
{
    struct cv_sketch *sketch = calloc(1, sizeof *sketch);
    assert_non_null(sketch);
    return sketch;
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Values from 0 to some 2^bits, small ones as likely as large ones. */
static uint64_t draw(uint64_t *seed, unsigned bits)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (*seed >> 20) >> (44 - (*seed >> 8) % (bits + 1));
}

static void quantiles_are_within_the_promised_error(void **state)
{
    enum { COUNT = 20000 };
    static const double asked[] = {0, 0.01, 0.25, 0.5, 0.9, 0.95, 0.99, 0.999, 1};
    uint64_t *values = calloc(COUNT, sizeof *values), seed = 42;
    struct cv_sketch *sketch = new_sketch();
    (void)state;
    assert_non_null(values);
    for (unsigned bits = 4; bits <= 34; bits += 5) {
        cv_sketch_clear(sketch);
        for (size_t i = 0; i < COUNT; i++) {
            values[i] = draw(&seed, bits);
            cv_sketch_add(sketch, values[i]);
        }
        qsort(values, COUNT, sizeof *values, compare);
        for (size_t q = 0; q < sizeof asked / sizeof *asked; q++) {
            double want = (double)values[(size_t)(asked[q] * (COUNT - 1))];
            double got = (double)cv_sketch_quantile(sketch, asked[q]);
            assert_true(got >= want * (1 - CV_SKETCH_ERROR) - 0.001);
            assert_true(got <= want * (1 + CV_SKETCH_ERROR) + 0.001);
        }
    }
    free(values);
    free(sketch);
}

static void each_value_up_to_the_largest_has_a_cell_of_its_size(void **state)
{
    struct cv_sketch *sketch = new_sketch();
    (void)state;
    for (unsigned bit = 0; bit < 64; bit++)
        for (int step = -1; step <= 1; step++) {
            uint64_t value = (1ull << bit) + (uint64_t)step;
            double want = (double)(value < CV_SKETCH_MAX ? value : CV_SKETCH_MAX), got;
            cv_sketch_clear(sketch);
            cv_sketch_add(sketch, value);
            got = (double)cv_sketch_quantile(sketch, 0.5);
            assert_true(got >= want * (1 - CV_SKETCH_ERROR) && got <= want * (1 + CV_SKETCH_ERROR));
            assert_int_equal(cv_sketch_sum(sketch), value);
        }
    free(sketch);
}

static void two_added_are_the_sketch_of_both(void **state)
{
    struct cv_sketch *a = new_sketch(), *b = new_sketch(), *all = new_sketch();
    uint64_t seed = 7;
    (void)state;
    for (size_t i = 0; i < 5000; i++) {
        uint64_t value = draw(&seed, 30);
        cv_sketch_add(i % 3 ? a : b, value);
        cv_sketch_add(all, value);
    }
    cv_sketch_merge(a, b);
    assert_int_equal(cv_sketch_count(a), 5000);
    assert_memory_equal(a, all, sizeof *a);
    free(a);
    free(b);
    free(all);
}

static void nothing_and_odd_quantiles(void **state)
{
    struct cv_sketch *sketch = new_sketch();
    (void)state;
    assert_int_equal(cv_sketch_quantile(sketch, 0.5), 0);
    cv_sketch_add(sketch, 10);
    cv_sketch_add(sketch, 20);
    assert_int_equal(cv_sketch_quantile(sketch, -1), 10);
    assert_int_equal(cv_sketch_quantile(sketch, 7), 20);
    assert_int_equal(cv_sketch_quantile(sketch, __builtin_nan("")), 10);
    free(sketch);
}

static void what_is_written_is_read_again(void **state)
{
    struct cv_sketch *sketch = new_sketch(), *copy = new_sketch();
    struct cv_buf text;
    uint64_t seed = 1;
    (void)state;
    cv_buf_init(&text, CV_SKETCH_TEXT_MAX);
    for (size_t i = 0; i < 300000; i++)
        cv_sketch_add(sketch, draw(&seed, 40));
    assert_ok(cv_sketch_write(sketch, &text));
    assert_ok(cv_sketch_read(copy, cv_buf_slice(&text)));
    assert_memory_equal(sketch, copy, sizeof *copy);
    /* Cut off anywhere it is refused or a shorter one, and never written past its end. */
    for (size_t len = 0; len < cv_buf_len(&text); len++) {
        struct cv_sketch *part = new_sketch();
        uint8_t *exact = malloc(len ? len : 1);
        assert_non_null(exact);
        memcpy(exact, cv_buf_head(&text), len);
        struct cv_status status = cv_sketch_read(part, cv_slice(exact, len));
        if (!cv_is_ok(status))
            assert_int_equal(cv_sketch_count(part), 0);
        free(exact);
        free(part);
        len += len / 16;
    }
    cv_buf_done(&text);
    free(sketch);
    free(copy);
}

static void nonsense_is_refused(void **state)
{
    static const struct {
        const char *bytes;
        size_t len;
    } bad[] = {
        {"", 0},
        {"\x02\x00", 2},                                      /* another version */
        {"\x01", 1},                                          /* no sum */
        {"\x01\x00\x00", 3},                                  /* half a cell */
        {"\x01\x00\x00\x00", 4},                              /* a used cell with nothing in it */
        {"\x01\x00\xff\x7f\x01", 5},                          /* beyond the last cell */
        {"\x01\x00\x00\x80\x80\x80\x80\x10", 8},              /* more than a cell holds */
        {"\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 11}, /* more than 64 bits */
        {"\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12},
    };
    struct cv_sketch *sketch = new_sketch();
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_status(cv_sketch_read(sketch, cv_slice(bad[i].bytes, bad[i].len)), CV_INVALID);
    assert_int_equal(cv_sketch_count(sketch), 0);
    free(sketch);
}

static void a_window_forgets(void **state)
{
    struct cv_window *window = calloc(1, sizeof *window);
    struct cv_window_sum *sum = calloc(1, sizeof *sum);
    uint64_t now_ms = 1000000;
    (void)state;
    assert_non_null(window);
    assert_non_null(sum);
    for (unsigned i = 0; i < 100; i++, now_ms += CV_WINDOW_SLOT_MS / 2) {
        cv_window_count(window, now_ms, CV_WINDOW_REQUESTS);
        if (i % 2)
            cv_window_count(window, now_ms, CV_WINDOW_REQUESTS_OK);
        cv_window_latency(window, now_ms, i);
    }
    now_ms -= CV_WINDOW_SLOT_MS / 2;
    cv_window_merge(sum, window, now_ms);
    assert_in_range(sum->counts[CV_WINDOW_REQUESTS], 2 * CV_WINDOW_SLOTS - 1, 2 * CV_WINDOW_SLOTS);
    assert_int_equal(cv_sketch_count(&sum->latency), sum->counts[CV_WINDOW_REQUESTS]);
    assert_true(cv_sketch_quantile(&sum->latency, 0) >= 78);
    memset(sum, 0, sizeof *sum);
    cv_window_merge(sum, window, now_ms + CV_WINDOW_MS);
    assert_int_equal(sum->counts[CV_WINDOW_REQUESTS], 0);
    assert_true(cv_window_ratio(0, 0) == 1 && cv_window_ratio(1, 4) == 0.25);
    free(window);
    free(sum);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantiles_are_within_the_promised_error),
        cmocka_unit_test(each_value_up_to_the_largest_has_a_cell_of_its_size),
        cmocka_unit_test(two_added_are_the_sketch_of_both),
        cmocka_unit_test(nothing_and_odd_quantiles),
        cmocka_unit_test(what_is_written_is_read_again),
        cmocka_unit_test(nonsense_is_refused),
        cmocka_unit_test(a_window_forgets),
    };
    return cmocka_run_group_tests_name("sketch", tests, NULL, NULL);
}
