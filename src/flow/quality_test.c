/* SPDX-License-Identifier: MIT */
#include "base/test.h"
#include "flow/quality.h"

static struct cv_quality q;
static uint64_t now_ms;

static int begin(void **state)
{
    (void)state;
    cv_quality_init(&q);
    now_ms = 1000;
    return 0;
}

static void answer(unsigned count, uint32_t rtt_ms)
{
    while (count-- > 0)
        cv_quality_answered(&q, now_ms += 1000, rtt_ms);
}

static void nothing_is_said_before_the_first_answer(void **state)
{
    (void)state;
    assert_int_equal(q.grade, CV_QUALITY_UNKNOWN);
    cv_quality_missed(&q, now_ms);
    cv_quality_missed(&q, now_ms);
    assert_int_equal(q.grade, CV_QUALITY_UNKNOWN);
    assert_string_equal(cv_quality_name(q.grade), "unknown");
    assert_string_equal(cv_quality_name((enum cv_quality_grade)77), "unknown");
}

static void the_first_answer_gives_the_grade_of_its_latency(void **state)
{
    (void)state;
    static const struct {
        uint32_t rtt_ms;
        enum cv_quality_grade grade;
    } rows[] = {{0, CV_QUALITY_EXCELLENT}, {49, CV_QUALITY_EXCELLENT}, {50, CV_QUALITY_GOOD},
                {99, CV_QUALITY_GOOD},     {100, CV_QUALITY_FAIR},     {199, CV_QUALITY_FAIR},
                {200, CV_QUALITY_POOR},    {600000, CV_QUALITY_POOR}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        (void)begin(NULL);
        answer(1, rows[i].rtt_ms);
        assert_int_equal(q.grade, rows[i].grade);
    }
}

static void loss_lowers_the_grade_at_one_three_and_five_percent(void **state)
{
    (void)state;
    static const enum cv_quality_grade grades[] = {
        CV_QUALITY_EXCELLENT, CV_QUALITY_GOOD, CV_QUALITY_FAIR, CV_QUALITY_FAIR, CV_QUALITY_POOR};
    for (unsigned missing = 0; missing < 5; missing++) { /* 0, 1.6, 3.1, 4.7, 6.3 % */
        (void)begin(NULL);
        answer(1, 10);
        for (unsigned i = 0; i < missing; i++)
            cv_quality_missed(&q, now_ms += 10);
        answer(2, 10);
        assert_int_equal(q.grade, grades[missing]);
    }
}

static void what_was_missed_is_forgotten_after_ten_minutes(void **state)
{
    (void)state;
    answer(1, 10);
    for (unsigned i = 0; i < 8; i++)
        cv_quality_missed(&q, now_ms += 10);
    assert_true(cv_quality_loss(&q, now_ms) > 12);
    assert_int_equal(q.grade, CV_QUALITY_POOR);
    now_ms += CV_QUALITY_AGE_MS + 1;
    assert_true(cv_quality_loss(&q, now_ms) == 0);
    answer(3, 10);
    assert_int_equal(q.grade, CV_QUALITY_EXCELLENT);
    assert_int_equal(q.missed, 8);
}

static void one_slow_answer_does_not_change_the_word(void **state)
{
    (void)state;
    answer(20, 30);
    answer(1, 300); /* smoothed: 64 ms */
    assert_int_equal(q.grade, CV_QUALITY_EXCELLENT);
    answer(1, 300);
    assert_int_equal(q.grade, CV_QUALITY_GOOD);
}

static void a_latency_at_the_threshold_does_not_flicker(void **state)
{
    (void)state;
    unsigned changes = 0;
    answer(30, 52);
    enum cv_quality_grade last = q.grade;
    for (unsigned i = 0; i < 500; i++) {
        answer(3, i % 2 ? 52 : 47);
        changes += q.grade != last;
        last = q.grade;
    }
    assert_int_equal(changes, 0);
    answer(40, 40);
    assert_int_equal(q.grade, CV_QUALITY_EXCELLENT);
}

static void jitter_is_the_mean_change(void **state)
{
    (void)state;
    answer(100, 20);
    assert_true(q.jitter_ms == 0);
    for (unsigned i = 0; i < 200; i++)
        answer(1, i % 2 ? 20 : 30);
    assert_true(q.jitter_ms > 9.9 && q.jitter_ms < 10.1);
    assert_true(q.latency_ms > 24 && q.latency_ms < 26);
}

static void bytes_sent_again_are_loss(void **state)
{
    (void)state;
    answer(1, 10);
    cv_quality_resent(&q, 10 << 20, 0);
    assert_true(cv_quality_loss(&q, now_ms) == 0);
    cv_quality_resent(&q, 0, 1 << 20);
    assert_true(cv_quality_loss(&q, now_ms) == 10);
    cv_quality_resent(&q, UINT64_C(1) << 40, 0);
    assert_true(cv_quality_loss(&q, now_ms) < 0.1);
    (void)begin(NULL);
    cv_quality_resent(&q, 0, UINT64_C(1) << 40);
    assert_true(cv_quality_loss(&q, now_ms) == 100);
}

static void rates_are_between_two_looks(void **state)
{
    (void)state;
    cv_quality_moved(&q, 1000, 5000, 1000);
    assert_true(q.in_per_s == 0);
    cv_quality_moved(&q, 1400, 9000, 1000); /* too soon */
    cv_quality_moved(&q, 3000, 9000, 1200);
    assert_true(q.in_per_s == 2000 && q.out_per_s == 100);
    cv_quality_moved(&q, 4000, 10, 10); /* another link */
    assert_true(q.in_per_s == 0 && q.out_per_s == 0);
    cv_quality_moved(&q, 5000, 20, 10);
    assert_true(q.in_per_s == 10);
}

#define TEST(name) cmocka_unit_test_setup(name, begin)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(nothing_is_said_before_the_first_answer),
        TEST(the_first_answer_gives_the_grade_of_its_latency),
        TEST(loss_lowers_the_grade_at_one_three_and_five_percent),
        TEST(what_was_missed_is_forgotten_after_ten_minutes),
        TEST(one_slow_answer_does_not_change_the_word),
        TEST(a_latency_at_the_threshold_does_not_flicker),
        TEST(jitter_is_the_mean_change),
        TEST(bytes_sent_again_are_loss),
        TEST(rates_are_between_two_looks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
