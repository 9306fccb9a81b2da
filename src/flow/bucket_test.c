/* SPDX-License-Identifier: MIT */
#include "base/test.h"
#include "flow/bucket.h"
#include "flow/bucket_table.h"

#include <pthread.h>

static const struct cv_bucket_rate sixty = {.per_minute = 60, .burst = 60};

static void a_full_bucket_gives_its_burst_and_then_the_rate(void **state)
{
    (void)state;
    cv_bucket bucket = 0;
    struct cv_bucket_state s;
    for (unsigned i = 0; i < 60; i++) {
        assert_true(cv_bucket_take(&bucket, sixty, 1, 5000, &s));
        assert_int_equal(s.remaining, 59 - i);
        assert_int_equal(s.full_ms, 1000 * (i + 1));
        assert_int_equal(s.wait_ms, 0);
    }
    assert_false(cv_bucket_take(&bucket, sixty, 1, 5000, &s));
    assert_int_equal(s.remaining, 0);
    assert_int_equal(s.wait_ms, 1000);
    assert_false(cv_bucket_take(&bucket, sixty, 1, 5999, &s));
    assert_int_equal(s.wait_ms, 1);
    assert_true(cv_bucket_take(&bucket, sixty, 1, 6000, &s));
    assert_false(cv_bucket_take(&bucket, sixty, 1, 6000, NULL));
}

static void what_is_refused_is_not_taken(void **state)
{
    (void)state;
    cv_bucket bucket = 0;
    struct cv_bucket_state s;
    assert_false(cv_bucket_take(&bucket, sixty, 61, 0, &s));
    assert_int_equal(s.remaining, 60);
    assert_int_equal(s.wait_ms, 1000);
    assert_true(cv_bucket_take(&bucket, sixty, 60, 0, NULL));
    for (unsigned i = 0; i < 1000; i++)
        assert_false(cv_bucket_take(&bucket, sixty, 1, 500, NULL));
    assert_true(cv_bucket_take(&bucket, sixty, 1, 1000, NULL));
}

static void a_rate_of_zero_is_no_limit(void **state)
{
    (void)state;
    cv_bucket bucket = 0;
    struct cv_bucket_state s;
    const struct cv_bucket_rate off = {0};
    assert_true(cv_bucket_take(&bucket, off, UINT64_MAX, 0, &s));
    assert_true(s.remaining == UINT64_MAX);
    assert_int_equal(cv_bucket_force(&bucket, off, 1000, 10, 0), 0);
    assert_int_equal(cv_bucket_debt_ms(&bucket, off, 0), 0);
    assert_int_equal(bucket, 0);
}

static void numbers_at_the_end_of_their_range_do_not_overflow(void **state)
{
    (void)state;
    cv_bucket bucket = 0;
    struct cv_bucket_state s;
    const struct cv_bucket_rate widest = {UINT64_MAX, UINT64_MAX}, slowest = {1, UINT64_MAX};
    for (unsigned i = 0; i < 100; i++)
        assert_true(cv_bucket_take(&bucket, widest, 1000000, 1ull << 40, &s));
    assert_true(s.remaining > CV_BUCKET_MAX / 2 && s.remaining <= CV_BUCKET_MAX);
    bucket = 0;
    (void)cv_bucket_take(&bucket, slowest, UINT64_MAX, 1ull << 40, &s);
    (void)cv_bucket_force(&bucket, slowest, UINT64_MAX, UINT64_MAX, 1ull << 40);
    assert_true(cv_bucket_debt_ms(&bucket, slowest, 0) > 0);
}

static void time_that_steps_back_a_little_takes_nothing_away(void **state)
{
    (void)state;
    cv_bucket bucket = 0;
    assert_true(cv_bucket_take(&bucket, sixty, 60, 10000, NULL));
    assert_false(cv_bucket_take(&bucket, sixty, 1, 9990, NULL));
    assert_true(cv_bucket_take(&bucket, sixty, 1, 11000, NULL));
}

static void debt_grows_to_its_bound_and_decays(void **state)
{
    (void)state;
    cv_bucket bucket = 0;
    const struct cv_bucket_rate ten = {10, 10};
    for (unsigned i = 0; i < 10; i++)
        assert_int_equal(cv_bucket_force(&bucket, ten, 1, 20, 0), 0);
    for (unsigned i = 1; i <= 20; i++)
        assert_int_equal(cv_bucket_force(&bucket, ten, 1, 20, 0), i);
    assert_int_equal(cv_bucket_force(&bucket, ten, 1, 20, 0), 20);
    assert_int_equal(cv_bucket_debt_ms(&bucket, ten, 0), 120000);
    assert_int_equal(cv_bucket_force(&bucket, ten, 1, 20, 60000), 11);
    assert_int_equal(cv_bucket_force(&bucket, ten, 1, 20, 10 * 60000), 0);
}

/* Whatever the times of the asking: in any span no more than the burst and what flowed in. */
static void no_pattern_of_asking_gets_more_than_the_rate(void **state)
{
    (void)state;
    uint64_t seed = 1;
    for (unsigned round = 0; round < 200; round++) {
        struct cv_bucket_rate rate = {1 + round * 37 % 6000, 1 + round * 11 % 300};
        cv_bucket bucket = 0;
        uint64_t now_ms = 1000, taken = 0;
        for (unsigned i = 0; i < 2000; i++) {
            seed = seed * 6364136223846793005u + 1442695040888963407u;
            now_ms += (seed >> 33) % 50;
            uint64_t count = 1 + (seed >> 50) % 3;
            struct cv_bucket_state before = cv_bucket_look(&bucket, rate, now_ms), after;
            bool is_taken = cv_bucket_take(&bucket, rate, count, now_ms, &after);
            assert_true(is_taken == (before.remaining >= count));
            taken += is_taken ? count : 0;
            assert_true(after.wait_ms > 0 || is_taken);
            assert_true(taken <= rate.burst + (now_ms - 1000) * rate.per_minute / 60000 + 1);
        }
    }
}

/* ---- table ---- */

static struct cv_bucket_table *new_table(size_t entries)
{
    struct cv_bucket_table *table;
    assert_true(cv_is_ok(cv_bucket_table_new(entries, &table)));
    return table;
}

static void a_key_finds_its_entry_again(void **state)
{
    (void)state;
    struct cv_bucket_table *table = new_table(64);
    for (uint64_t tag = 0; tag < 32; tag++) {
        struct cv_bucket_entry *entry = cv_bucket_table_get(table, tag << 3 | tag % 8, 1000);
        assert_non_null(entry);
        assert_ptr_equal(cv_bucket_table_get(table, tag << 3 | tag % 8, 2000), entry);
        assert_ptr_equal(cv_bucket_table_find(table, tag << 3 | tag % 8), entry);
    }
    assert_null(cv_bucket_table_find(table, 0xffff0));
    cv_bucket_table_free(&table);
    assert_null(table);
}

static void the_one_at_rest_longest_makes_room_but_none_that_is_open(void **state)
{
    (void)state;
    struct cv_bucket_table *table = new_table(8); /* one set */
    struct cv_bucket_entry *entries[8];
    for (uint64_t i = 0; i < 8; i++)
        entries[i] = cv_bucket_table_get(table, 100 + i, 1000 + i);
    assert_true(cv_bucket_take(&entries[0]->buckets[2], sixty, 5, 1000, NULL));
    assert_true(cv_bucket_entry_open(entries[1], 0, 1));
    assert_false(cv_bucket_entry_open(entries[1], 0, 1));
    struct cv_bucket_entry *more = cv_bucket_table_get(table, 200, 2000);
    assert_ptr_equal(more, entries[2]);
    assert_null(cv_bucket_table_find(table, 102));
    assert_non_null(cv_bucket_table_find(table, 100));
    assert_non_null(cv_bucket_table_find(table, 101));
    assert_int_equal(cv_bucket_look(&more->buckets[0], sixty, 2000).remaining, 60);
    cv_bucket_entry_close(entries[1], 0);
    assert_ptr_equal(cv_bucket_table_get(table, 201, 2000), entries[1]);
    for (unsigned i = 0; i < 8; i++)
        assert_true(cv_bucket_entry_open(entries[i], 1, 5));
    assert_null(cv_bucket_table_get(table, 300, 3000));
    cv_bucket_table_free(&table);
}

enum { THREADS = 4, TAKES = 20000 };

struct race {
    struct cv_bucket_table *table;
    atomic_uint taken;
};

static void *take_many(void *arg)
{
    struct race *race = arg;
    const struct cv_bucket_rate rate = {60, 5000};
    for (unsigned i = 0; i < TAKES; i++) {
        struct cv_bucket_entry *entry = cv_bucket_table_get(race->table, 7, 1000);
        if (cv_bucket_take(&entry->buckets[0], rate, 1, 1000, NULL))
            atomic_fetch_add(&race->taken, 1);
        if (cv_bucket_entry_open(entry, 0, 3))
            cv_bucket_entry_close(entry, 0);
    }
    return NULL;
}

static void threads_share_a_bucket_exactly(void **state)
{
    (void)state;
    struct race race = {.table = new_table(64)};
    (void)cv_bucket_table_get(race.table, 7, 0);
    pthread_t threads[THREADS];
    for (unsigned i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take_many, &race), 0);
    for (unsigned i = 0; i < THREADS; i++)
        (void)pthread_join(threads[i], NULL);
    assert_int_equal(race.taken, 5000);
    assert_int_equal(cv_bucket_table_find(race.table, 7)->counts[0], 0);
    cv_bucket_table_free(&race.table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_bucket_gives_its_burst_and_then_the_rate),
        cmocka_unit_test(what_is_refused_is_not_taken),
        cmocka_unit_test(a_rate_of_zero_is_no_limit),
        cmocka_unit_test(numbers_at_the_end_of_their_range_do_not_overflow),
        cmocka_unit_test(time_that_steps_back_a_little_takes_nothing_away),
        cmocka_unit_test(debt_grows_to_its_bound_and_decays),
        cmocka_unit_test(no_pattern_of_asking_gets_more_than_the_rate),
        cmocka_unit_test(a_key_finds_its_entry_again),
        cmocka_unit_test(the_one_at_rest_longest_makes_room_but_none_that_is_open),
        cmocka_unit_test(threads_share_a_bucket_exactly),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
