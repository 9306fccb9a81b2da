/* SPDX-License-Identifier: MIT */
#include "base/test.h"
#include "flow/ration.h"

#include <pthread.h>
#include <stdatomic.h>

static void what_is_taken_is_taken_above_as_well_or_not_at_all(void **state)
{
    (void)state;
    struct cv_ration *all = cv_ration_new(100, NULL);
    struct cv_ration *one = cv_ration_new(80, all), *other = cv_ration_new(80, all);
    assert_true(cv_ration_take(one, 70));
    assert_false(cv_ration_take(one, 11));
    assert_false(cv_ration_take(other, 31));
    assert_int_equal(cv_ration_taken(other), 0);
    assert_int_equal(cv_ration_taken(all), 70);
    assert_true(cv_ration_take(other, 30));
    assert_false(cv_ration_take(one, 1));
    cv_ration_give(one, 70);
    assert_int_equal(cv_ration_taken(all), 30);
    assert_true(cv_ration_take(one, 70));
    assert_false(cv_ration_take(one, SIZE_MAX));
    /* The one above lives as long as one of those below. */
    cv_ration_unref(&all);
    cv_ration_unref(&other);
    cv_ration_give(one, 70);
    cv_ration_unref(&one);
    assert_null(one);
    cv_ration_unref(&one);
}

static void nothing_comes_from_no_ration(void **state)
{
    (void)state;
    assert_false(cv_ration_take(NULL, 1));
    assert_true(cv_ration_take(NULL, 0));
    cv_ration_give(NULL, 0);
    assert_int_equal(cv_ration_taken(NULL), 0);
    struct cv_ration *empty = cv_ration_new(0, NULL);
    assert_false(cv_ration_take(empty, 1));
    cv_ration_unref(&empty);
}

struct crowd {
    struct cv_ration *ration;
    atomic_uint had;
};

static void *take_and_give(void *arg)
{
    struct crowd *crowd = arg;
    for (int i = 0; i < 20000; i++) {
        if (!cv_ration_take(crowd->ration, 3))
            continue;
        (void)atomic_fetch_add(&crowd->had, 1);
        cv_ration_give(crowd->ration, 3);
    }
    return NULL;
}

static void threads_share_one_and_nothing_is_lost(void **state)
{
    (void)state;
    struct cv_ration *all = cv_ration_new(7, NULL);
    struct crowd crowds[2] = {{cv_ration_new(4, all), 0}, {cv_ration_new(6, all), 0}};
    pthread_t threads[4];
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, take_and_give, &crowds[i % 2]), 0);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    assert_int_equal(cv_ration_taken(all), 0);
    for (size_t i = 0; i < 2; i++) {
        assert_true(atomic_load(&crowds[i].had) > 0);
        assert_int_equal(cv_ration_taken(crowds[i].ration), 0);
        cv_ration_unref(&crowds[i].ration);
    }
    cv_ration_unref(&all);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_taken_is_taken_above_as_well_or_not_at_all),
        cmocka_unit_test(nothing_comes_from_no_ration),
        cmocka_unit_test(threads_share_one_and_nothing_is_lost),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
