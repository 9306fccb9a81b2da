/* SPDX-License-Identifier: MIT */
#include "base/test.h"
#include "flow/pace.h"

/* A path that takes `rate` bytes a millisecond and has a round trip of `rtt_ms`, `queue_ms` of
 * which is others' doing; the sender always has more than may be under way. */
struct path {
    struct cv_pace pace;
    uint64_t now_ms;
    uint32_t rtt_ms, queue_ms;
    size_t rate;
};

static struct path path_of(size_t rate, uint32_t rtt_ms)
{
    struct path path = {.now_ms = 1000, .rtt_ms = rtt_ms, .rate = rate};
    cv_pace_init(&path.pace);
    cv_pace_saw_rtt(&path.pace, rtt_ms, path.now_ms);
    return path;
}

/* So many acknowledgements, each a round trip after the other; how long the last one took. */
static uint32_t run(struct path *path, unsigned count)
{
    uint32_t spent_ms = 0;
    for (unsigned i = 0; i < count; i++) {
        size_t len = path->pace.limit;
        uint32_t drain_ms = (uint32_t)(len / path->rate);
        spent_ms = path->rtt_ms > drain_ms ? path->rtt_ms : drain_ms;
        spent_ms += path->queue_ms;
        path->now_ms += spent_ms;
        cv_pace_saw_ack(&path->pace, len, spent_ms, true, path->now_ms);
    }
    return spent_ms;
}

static void on_a_slow_path_no_more_is_under_way_than_the_slack(void **state)
{
    (void)state;
    struct path path = path_of(125, 20); /* 1 Mbit/s */
    assert_in_range(run(&path, 10), CV_PACE_SLACK_MS / 2, CV_PACE_SLACK_MS + 20);
    assert_in_range(path.pace.limit, CV_PACE_LEAST, 126 * (CV_PACE_SLACK_MS + 20));
    assert_in_range(cv_pace_worth(&path.pace, 100, 1 << 20), 12000, 13000);
    assert_in_range(run(&path, 1000), CV_PACE_SLACK_MS / 2, CV_PACE_SLACK_MS + 20);
}

static void a_long_fast_path_is_filled_at_once(void **state)
{
    (void)state;
    struct path path = path_of(104858, 50); /* 100 MiB/s: 5 MiB are under way */
    run(&path, 8);
    assert_true(path.pace.limit > 10U << 20);
    assert_int_equal(cv_pace_worth(&path.pace, 100, 1 << 18), 1 << 18);
    run(&path, 100);
    assert_true(path.pace.limit > 10U << 20 && path.pace.limit <= CV_PACE_MOST);
}

static void what_was_not_held_back_does_not_raise_the_limit(void **state)
{
    (void)state;
    struct cv_pace pace;
    cv_pace_init(&pace);
    for (int i = 0; i < 100; i++)
        cv_pace_saw_ack(&pace, 5000, 10, false, 1000);
    assert_int_equal(pace.limit, CV_PACE_START);
    assert_int_equal(cv_pace_worth(&pace, 100, 1 << 20), 500 * 100);
}

static void one_late_acknowledgement_costs_half_at_most(void **state)
{
    (void)state;
    struct path path = path_of(104858, 50);
    run(&path, 10);
    size_t before = path.pace.limit;
    cv_pace_saw_ack(&path.pace, 100, 60000, false, path.now_ms);
    assert_int_equal(path.pace.limit, before / 2);
    run(&path, 1);
    assert_true(path.pace.limit >= before / 2);
}

static void beside_somebody_elses_queue_it_is_not_starved(void **state)
{
    (void)state;
    struct path path = path_of(10000, 20);
    run(&path, 10);
    path.queue_ms = 2000;
    run(&path, 60);
    assert_true(path.pace.limit > 16U * CV_PACE_LEAST);
    /* And when that has gone it knows the path again. */
    path.queue_ms = 0;
    run(&path, 60);
    cv_pace_saw_rtt(&path.pace, 20, path.now_ms);
    assert_int_equal(path.pace.rtt_ms, 20);
}

static void a_path_that_became_longer_is_believed_after_a_while(void **state)
{
    (void)state;
    struct cv_pace pace;
    cv_pace_init(&pace);
    cv_pace_saw_rtt(&pace, 20, 1000);
    cv_pace_saw_rtt(&pace, 90, 2000);
    assert_int_equal(pace.rtt_ms, 20);
    cv_pace_saw_rtt(&pace, 90, 1000 + 300000);
    assert_int_equal(pace.rtt_ms, 90);
    cv_pace_saw_rtt(&pace, 0, 400000);
    assert_int_equal(pace.rtt_ms, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(on_a_slow_path_no_more_is_under_way_than_the_slack),
        cmocka_unit_test(a_long_fast_path_is_filled_at_once),
        cmocka_unit_test(what_was_not_held_back_does_not_raise_the_limit),
        cmocka_unit_test(one_late_acknowledgement_costs_half_at_most),
        cmocka_unit_test(beside_somebody_elses_queue_it_is_not_starved),
        cmocka_unit_test(a_path_that_became_longer_is_believed_after_a_while),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
