/* SPDX-License-Identifier: MIT */
#include "base/test.h"
#include "flow/fleet.h"

enum { ROUNDS = 1000 };

/* How often each of them is chosen in ROUNDS. */
static void draw(const struct cv_fleet *fleet, uint64_t now_ms, unsigned counts[3])
{
    memset(counts, 0, 3 * sizeof *counts);
    for (uint64_t i = 0; i < ROUNDS; i++)
        counts[cv_fleet_choose(fleet, now_ms, i)]++;
}

static void the_lowest_priority_goes_first_and_weights_hold(void **state)
{
    (void)state;
    struct cv_fleet_server servers[] = {
        {.priority = 1, .weight = 100}, {.weight = 1}, {.weight = 4}};
    struct cv_fleet fleet = {servers, 3};
    unsigned counts[3];
    draw(&fleet, 0, counts);
    assert_int_equal(counts[0], 0);
    assert_int_equal(counts[1], ROUNDS / 5);
    assert_int_equal(counts[2], ROUNDS * 4 / 5);
    for (size_t i = 0; i < 3; i++) /* any 64 bits will do */
        assert_in_range(cv_fleet_choose(&fleet, 0, UINT64_MAX - i), 1, 2);
}

static void links_spread_before_weights_count(void **state)
{
    (void)state;
    struct cv_fleet_server servers[] = {
        {.weight = 1}, {.weight = 100, .links = 1}, {.priority = 1, .weight = 1}};
    struct cv_fleet fleet = {servers, 3};
    unsigned counts[3];
    draw(&fleet, 0, counts);
    assert_int_equal(counts[0], ROUNDS);
}

static void a_failed_one_is_passed_over_for_its_time(void **state)
{
    (void)state;
    struct cv_fleet_server servers[] = {
        {.weight = 1}, {.priority = 1, .weight = 1}, {.priority = 2, .weight = 1}};
    struct cv_fleet fleet = {servers, 3};
    cv_fleet_failed(&fleet, 0, 1000, 0);
    assert_int_equal(cv_fleet_choose(&fleet, 1000, 0), 1);
    assert_int_equal(cv_fleet_choose(&fleet, 1000 + CV_FLEET_BAD_MS - 1, 0), 1);
    assert_int_equal(cv_fleet_choose(&fleet, 1000 + CV_FLEET_BAD_MS, 0), 0);
    cv_fleet_failed(&fleet, 0, 1000, 60000); /* it asked for more */
    assert_int_equal(cv_fleet_choose(&fleet, 60999, 0), 1);
    cv_fleet_up(&fleet, 0);
    assert_int_equal(cv_fleet_choose(&fleet, 1000, 0), 0);
}

static void with_nothing_else_failed_ones_take_turns(void **state)
{
    (void)state;
    struct cv_fleet_server servers[] = {
        {.weight = 1}, {.priority = 1, .weight = 1}, {.priority = 1, .weight = 1, .links = 1}};
    struct cv_fleet fleet = {servers, 3};
    for (size_t i = 0; i < 3; i++) {
        assert_true(cv_fleet_has_good(&fleet, 10 + i));
        cv_fleet_failed(&fleet, i, 10 + i, 0);
    }
    assert_false(cv_fleet_has_good(&fleet, 100));
    for (uint64_t now_ms = 100; now_ms < 106; now_ms++) {
        size_t got = cv_fleet_choose(&fleet, now_ms, now_ms);
        assert_int_equal(got, (now_ms - 100) % 3);
        cv_fleet_failed(&fleet, got, now_ms, 0);
    }
}

static void a_better_place_has_priority_or_fewer_links(void **state)
{
    (void)state;
    struct cv_fleet_server servers[] = {
        {.weight = 1}, {.weight = 1, .links = 1}, {.priority = 1, .weight = 1, .links = 1}};
    struct cv_fleet fleet = {servers, 3};
    size_t better = 9;
    assert_true(cv_fleet_better(&fleet, 2, 0, &better));
    assert_int_equal(better, 0);
    assert_false(cv_fleet_better(&fleet, 0, 0, &better));
    assert_false(cv_fleet_better(&fleet, 1, 0, &better)); /* it would only be the other way round */
    servers[1].links = 2;
    assert_true(cv_fleet_better(&fleet, 1, 0, &better));
    assert_int_equal(better, 0);
    /* Of two, the one that did not fail; a failed one rather than none. */
    servers[1].links = 1;
    cv_fleet_failed(&fleet, 0, 0, 0);
    assert_true(cv_fleet_better(&fleet, 2, 1, &better));
    assert_int_equal(better, 1);
    cv_fleet_failed(&fleet, 1, 1, 0);
    assert_true(cv_fleet_better(&fleet, 2, 2, &better));
    assert_int_equal(better, 0);
}

static void who_asked_to_be_left_alone_is_no_better_place(void **state)
{
    (void)state;
    struct cv_fleet_server servers[] = {{.weight = 1}, {.priority = 1, .weight = 1, .links = 1}};
    struct cv_fleet fleet = {servers, 2};
    size_t better = 9;
    cv_fleet_failed(&fleet, 0, 100, 60000);
    assert_false(cv_fleet_better(&fleet, 1, 60099, &better));
    assert_true(cv_fleet_better(&fleet, 1, 60100, &better));
    assert_int_equal(better, 0);
    cv_fleet_failed(&fleet, 0, 100, 60000);
    cv_fleet_up(&fleet, 0);
    assert_true(cv_fleet_better(&fleet, 1, 101, &better));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_lowest_priority_goes_first_and_weights_hold),
        cmocka_unit_test(links_spread_before_weights_count),
        cmocka_unit_test(a_failed_one_is_passed_over_for_its_time),
        cmocka_unit_test(with_nothing_else_failed_ones_take_turns),
        cmocka_unit_test(a_better_place_has_priority_or_fewer_links),
        cmocka_unit_test(who_asked_to_be_left_alone_is_no_better_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
