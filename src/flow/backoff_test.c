/* SPDX-License-Identifier: MIT */
#include "base/test.h"
#include "flow/backoff.h"

static void the_first_try_after_a_loss_is_at_once(void **state)
{
    (void)state;
    struct cv_backoff b;
    cv_backoff_init(&b, 250, 60000, 0);
    cv_backoff_up(&b, 10);
    cv_backoff_lost(&b, 100000);
    assert_int_equal(b.failures, 0);
    assert_int_equal(cv_backoff_ceiling(&b, 100000), 100);
    for (uint64_t random = 0; random < 1000; random++)
        assert_true(cv_backoff_delay(&b, 100000, random) <= 100);
}

static void only_failed_tries_raise_the_ceiling_to_the_cap(void **state)
{
    (void)state;
    struct cv_backoff b;
    cv_backoff_init(&b, 250, 60000, 0);
    static const uint64_t fast[] = {250, 500, 500, 500};
    for (size_t i = 0; i < 4; i++) {
        cv_backoff_failed(&b);
        assert_int_equal(cv_backoff_ceiling(&b, 1000), fast[i]);
    }
    assert_int_equal(cv_backoff_ceiling(&b, 59999), 500);
    cv_backoff_failed(&b);
    cv_backoff_failed(&b);
    assert_int_equal(cv_backoff_ceiling(&b, 60000), 4000);
    assert_int_equal(cv_backoff_ceiling(&b, 659999), 4000);
    cv_backoff_failed(&b);
    cv_backoff_failed(&b);
    cv_backoff_failed(&b);
    assert_int_equal(cv_backoff_ceiling(&b, 660000), 60000);
    b.failures = UINT32_MAX;
    assert_int_equal(cv_backoff_ceiling(&b, 660000), 60000);
    cv_backoff_failed(&b);
    assert_int_equal(b.failures, UINT32_MAX);
}

static void settings_bound_the_caps(void **state)
{
    (void)state;
    struct cv_backoff b;
    cv_backoff_init(&b, 5000, 8000, 0);
    cv_backoff_failed(&b);
    assert_int_equal(cv_backoff_ceiling(&b, 0), 5000);
    cv_backoff_failed(&b);
    assert_int_equal(cv_backoff_ceiling(&b, 0), 5000);
    assert_int_equal(cv_backoff_ceiling(&b, 700000), 8000);
    cv_backoff_init(&b, 10, 100, 0);
    b.failures = 40;
    assert_int_equal(cv_backoff_ceiling(&b, 0), 100);
}

static void a_link_that_flaps_counts_as_failing(void **state)
{
    (void)state;
    struct cv_backoff b;
    cv_backoff_init(&b, 250, 60000, 0);
    for (unsigned i = 1; i <= 5; i++) {
        cv_backoff_up(&b, i * 1000);
        cv_backoff_lost(&b, i * 1000 + 10);
        assert_int_equal(b.failures, i);
    }
    cv_backoff_up(&b, 10000);
    cv_backoff_lost(&b, 12000);
    assert_int_equal(b.failures, 0);
}

static void delays_cover_the_whole_range(void **state)
{
    (void)state;
    struct cv_backoff b;
    cv_backoff_init(&b, 250, 60000, 0);
    cv_backoff_failed(&b);
    assert_int_equal(cv_backoff_delay(&b, 0, 0), 0);
    assert_int_equal(cv_backoff_delay(&b, 0, 250), 250);
    assert_int_equal(cv_backoff_delay(&b, 0, 251), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_first_try_after_a_loss_is_at_once),
        cmocka_unit_test(only_failed_tries_raise_the_ceiling_to_the_cap),
        cmocka_unit_test(settings_bound_the_caps),
        cmocka_unit_test(a_link_that_flaps_counts_as_failing),
        cmocka_unit_test(delays_cover_the_whole_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
