/* SPDX-License-Identifier: MIT */
#include "base/test.h"
#include "flow/credit.h"

enum { LEAST = 1000, MOST = 16000, RTT = 50 };

/* Uses `len` bytes every `each_ms` for `ms`, growing and shrinking as it is told. */
static void use_for(struct cv_credit *window, uint64_t *now_ms, uint64_t ms, uint64_t each_ms,
                    size_t len)
{
    for (uint64_t end_ms = *now_ms + ms; *now_ms < end_ms; *now_ms += each_ms) {
        size_t want = cv_credit_use(window, len, *now_ms, RTT);
        if (want != window->bytes)
            cv_credit_set(window, want);
    }
}

/* 40 bytes a millisecond over 50 ms are 2,000 under way. */
static void it_grows_to_between_two_and_four_times_what_is_under_way(void **state)
{
    (void)state;
    struct cv_credit window;
    uint64_t now_ms = 7000;
    cv_credit_init(&window, LEAST, MOST);
    use_for(&window, &now_ms, 2000, 1, 40);
    assert_in_range(window.bytes, 4000, 8000);
}

static void it_does_not_grow_past_its_most_nor_without_a_round_trip(void **state)
{
    (void)state;
    struct cv_credit window;
    uint64_t now_ms = 1;
    cv_credit_init(&window, LEAST, MOST);
    use_for(&window, &now_ms, 2000, 1, 4000);
    assert_int_equal(window.bytes, MOST);
    cv_credit_init(&window, LEAST, MOST);
    for (; now_ms < 9000; now_ms++)
        assert_int_equal(cv_credit_use(&window, 4000, now_ms, 0), LEAST);
    cv_credit_init(&window, LEAST, LEAST / 2);
    for (; now_ms < 12000; now_ms++)
        assert_int_equal(cv_credit_use(&window, 4000, now_ms, RTT), LEAST);
}

static void a_slow_reader_keeps_a_small_one(void **state)
{
    (void)state;
    struct cv_credit window;
    uint64_t now_ms = 1;
    cv_credit_init(&window, LEAST, MOST);
    use_for(&window, &now_ms, 60000, 1, 6);
    assert_int_equal(window.bytes, LEAST);
    /* However it takes it: a whole window at once, now and then. */
    cv_credit_init(&window, LEAST, MOST);
    use_for(&window, &now_ms, 60000, 110, LEAST);
    assert_int_equal(window.bytes, LEAST);
}

static void it_falls_back_when_less_is_used(void **state)
{
    (void)state;
    struct cv_credit window;
    uint64_t now_ms = 1;
    cv_credit_init(&window, LEAST, MOST);
    use_for(&window, &now_ms, 2000, 1, 4000);
    assert_int_equal(window.bytes, MOST);
    use_for(&window, &now_ms, 2000, 1, 9);
    assert_in_range(window.bytes, MOST / 4, MOST / 2);
    use_for(&window, &now_ms, 20000, 1, 1);
    assert_int_equal(window.bytes, LEAST);
}

static void a_pause_counts_against_it_once(void **state)
{
    (void)state;
    struct cv_credit window;
    uint64_t now_ms = 1;
    cv_credit_init(&window, LEAST, MOST);
    use_for(&window, &now_ms, 2000, 1, 4000);
    now_ms += 3600000;
    assert_int_equal(cv_credit_use(&window, 1, now_ms, RTT), MOST / 2);
    cv_credit_set(&window, MOST / 2);
    use_for(&window, &now_ms, 2000, 1, 4000);
    assert_int_equal(window.bytes, MOST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_grows_to_between_two_and_four_times_what_is_under_way),
        cmocka_unit_test(it_does_not_grow_past_its_most_nor_without_a_round_trip),
        cmocka_unit_test(a_slow_reader_keeps_a_small_one),
        cmocka_unit_test(it_falls_back_when_less_is_used),
        cmocka_unit_test(a_pause_counts_against_it_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
