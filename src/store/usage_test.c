/* SPDX-License-Identifier: MIT */
#include "base/test.h"
#include "store/usage.h"

#include <stdlib.h>
#include <string.h>

static struct cv_usage_key key_of(uint8_t user, const char *tunnel)
{
    uint8_t bytes[CV_USAGE_USER_LEN] = {user};
    struct cv_usage_key key;
    cv_usage_key_init(&key, bytes, tunnel);
    return key;
}

static void what_a_request_counts_as(void **state)
{
    static const struct {
        int status;
        bool is_cut, is_cancelled;
        enum cv_usage_count class_of;
        unsigned errors, cancelled;
    } rows[] = {
        {200, false, false, CV_USAGE_STATUS_2XX, 0, 0},
        {101, false, false, CV_USAGE_STATUS_1XX, 0, 0},
        {308, false, false, CV_USAGE_STATUS_3XX, 0, 0},
        {404, false, false, CV_USAGE_STATUS_4XX, 0, 0},
        {502, false, false, CV_USAGE_STATUS_5XX, 1, 0},
        {200, true, false, CV_USAGE_STATUS_2XX, 1, 0},
        {200, false, true, CV_USAGE_STATUS_2XX, 0, 1},
        {200, true, true, CV_USAGE_STATUS_2XX, 0, 1},
        {0, false, true, CV_USAGE_COUNT, 0, 1},
        {999, false, false, CV_USAGE_COUNT, 0, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct cv_usage *usage = calloc(1, sizeof *usage);
        assert_non_null(usage);
        cv_usage_note(usage, &(struct cv_usage_request){.status = rows[i].status,
                                                        .is_cut = rows[i].is_cut,
                                                        .is_cancelled = rows[i].is_cancelled,
                                                        .latency_us = 5});
        assert_int_equal(usage->counts[CV_USAGE_REQUESTS], 1);
        assert_int_equal(usage->counts[CV_USAGE_ERRORS], rows[i].errors);
        assert_int_equal(usage->counts[CV_USAGE_CANCELLED], rows[i].cancelled);
        uint64_t classes = 0;
        for (int c = CV_USAGE_STATUS_1XX; c <= CV_USAGE_STATUS_5XX; c++)
            classes += usage->counts[c];
        assert_int_equal(classes, rows[i].class_of != CV_USAGE_COUNT);
        if (rows[i].class_of != CV_USAGE_COUNT)
            assert_int_equal(usage->counts[rows[i].class_of], 1);
        assert_int_equal(cv_sketch_count(&usage->latency), 1);
        assert_int_equal(cv_sketch_count(&usage->first_byte), 0);
        free(usage);
    }
}

static void counts_stay_at_their_end(void **state)
{
    struct cv_usage *usage = calloc(1, sizeof *usage);
    assert_non_null(usage);
    (void)state;
    usage->counts[CV_USAGE_BYTES_IN] = UINT64_MAX - 1;
    cv_usage_note(usage, &(struct cv_usage_request){.bytes_in = 100});
    assert_true(usage->counts[CV_USAGE_BYTES_IN] == UINT64_MAX);
    free(usage);
}

static void note(struct cv_usage_table *table, uint8_t user, const char *tunnel, unsigned times)
{
    struct cv_usage_key key = key_of(user, tunnel);
    for (unsigned i = 0; i < times; i++)
        cv_usage_note(cv_usage_table_at(table, &key, "somebody"),
                      &(struct cv_usage_request){.status = 200});
}

static uint64_t sum_of(const struct cv_usage_table *table)
{
    struct cv_usage *sum = calloc(1, sizeof *sum);
    assert_non_null(sum);
    cv_usage_table_sum(table, sum);
    uint64_t requests = sum->counts[CV_USAGE_REQUESTS];
    free(sum);
    return requests;
}

static bool find(void *arg, const struct cv_usage_entry *entry)
{
    uint64_t *found = arg;
    assert_string_equal(entry->subject, "somebody");
    found[entry->key->user[0]] += entry->usage->counts[CV_USAGE_REQUESTS];
    return true;
}

static void a_full_table_keeps_the_sum_right(void **state)
{
    struct cv_usage_table *table = cv_usage_table_new(7, 2);
    uint64_t found[4] = {0};
    (void)state;
    note(table, 1, "home", 3);
    note(table, 2, "home", 4);
    note(table, 3, "home", 5);
    note(table, 1, "home", 1);
    assert_int_equal(cv_usage_table_minute(table), 7);
    assert_int_equal(cv_usage_table_count(table), 2);
    assert_true(cv_usage_table_each(table, find, found));
    assert_int_equal(found[1], 4);
    assert_int_equal(found[2], 4);
    assert_int_equal(found[3], 0);
    assert_int_equal(sum_of(table), 13);
    cv_usage_table_free(&table);
    assert_null(table);
}

static void tunnels_of_a_user_are_apart_and_tables_add_up(void **state)
{
    struct cv_usage_table *a = cv_usage_table_new(0, 10), *b = cv_usage_table_new(0, 10);
    (void)state;
    note(a, 1, "home", 1);
    note(a, 1, "lab", 2);
    note(b, 1, "home", 4);
    note(b, 2, "home", 8);
    cv_usage_table_merge(a, b);
    assert_int_equal(cv_usage_table_count(a), 3);
    assert_int_equal(sum_of(a), 15);
    struct cv_usage_key key = key_of(1, "home");
    assert_int_equal(cv_usage_table_at(a, &key, "")->counts[CV_USAGE_REQUESTS], 5);
    cv_usage_table_free(&a);
    cv_usage_table_free(&b);
}

static void what_was_quiet_makes_room(void **state)
{
    struct cv_usage_table *table = cv_usage_table_new(0, 10);
    (void)state;
    note(table, 1, "home", 1);
    cv_usage_table_set_minute(table, 50);
    note(table, 2, "home", 2);
    cv_usage_table_trim(table, 1);
    assert_int_equal(cv_usage_table_count(table), 1);
    assert_int_equal(sum_of(table), 3);
    cv_usage_table_free(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_request_counts_as),
        cmocka_unit_test(counts_stay_at_their_end),
        cmocka_unit_test(a_full_table_keeps_the_sum_right),
        cmocka_unit_test(tunnels_of_a_user_are_apart_and_tables_add_up),
        cmocka_unit_test(what_was_quiet_makes_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
