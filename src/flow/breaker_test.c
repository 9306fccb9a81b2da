/* SPDX-License-Identifier: MIT */
#include "base/test.h"
#include "flow/breaker.h"

#include <pthread.h>

static const struct cv_breaker_rules rules = {.failures = 5, .successes = 2, .open_ms = 60000};

static struct cv_breaker_ticket admit(cv_breaker *breaker, uint64_t now_ms)
{
    struct cv_breaker_ticket ticket;
    uint64_t wait_ms;
    assert_true(cv_breaker_admit(breaker, &rules, now_ms, &ticket, &wait_ms));
    assert_true(ticket.is_held);
    return ticket;
}

static uint64_t refuse(cv_breaker *breaker, uint64_t now_ms)
{
    struct cv_breaker_ticket ticket;
    uint64_t wait_ms = 0;
    assert_false(cv_breaker_admit(breaker, &rules, now_ms, &ticket, &wait_ms));
    assert_false(ticket.is_held);
    assert_true(wait_ms >= 1);
    return wait_ms;
}

static bool run(cv_breaker *breaker, enum cv_breaker_outcome outcome, uint64_t now_ms)
{
    struct cv_breaker_ticket ticket = admit(breaker, now_ms);
    return cv_breaker_tell(breaker, &rules, &ticket, outcome, now_ms);
}

static void fail_times(cv_breaker *breaker, unsigned times, uint64_t now_ms)
{
    for (unsigned i = 0; i < times; i++)
        (void)run(breaker, CV_BREAKER_FAILURE, now_ms);
}

static enum cv_breaker_state state_of(const cv_breaker *breaker)
{
    return cv_breaker_look(breaker).state;
}

static void failures_in_a_row_open_it(void **state)
{
    (void)state;
    cv_breaker breaker = 0;
    fail_times(&breaker, 4, 1000);
    assert_int_equal(cv_breaker_look(&breaker).count, 4);
    assert_true(run(&breaker, CV_BREAKER_FAILURE, 1000));
    assert_int_equal(state_of(&breaker), CV_BREAKER_OPEN);
    assert_int_equal(refuse(&breaker, 1000), 60000);
    assert_int_equal(refuse(&breaker, 60999), 1);
}

static void one_success_between_them_does_not(void **state)
{
    (void)state;
    cv_breaker breaker = 0;
    for (unsigned i = 0; i < 10; i++) {
        fail_times(&breaker, 4, 0);
        assert_false(run(&breaker, CV_BREAKER_SUCCESS, 0));
    }
    fail_times(&breaker, 4, 0);
    (void)run(&breaker, CV_BREAKER_NO_WORD, 0);
    assert_int_equal(state_of(&breaker), CV_BREAKER_CLOSED);
    fail_times(&breaker, 1, 0); /* no word is no success either */
    assert_int_equal(state_of(&breaker), CV_BREAKER_OPEN);
}

static void one_probe_at_a_time_and_two_that_go_well_close_it(void **state)
{
    (void)state;
    cv_breaker breaker = 0;
    fail_times(&breaker, 5, 1000);
    struct cv_breaker_ticket probe = admit(&breaker, 61000);
    assert_true(probe.is_probe);
    assert_int_equal(state_of(&breaker), CV_BREAKER_HALF_OPEN);
    (void)refuse(&breaker, 61000);
    assert_false(cv_breaker_tell(&breaker, &rules, &probe, CV_BREAKER_SUCCESS, 62000));
    probe = admit(&breaker, 62000);
    (void)refuse(&breaker, 62000);
    assert_true(cv_breaker_tell(&breaker, &rules, &probe, CV_BREAKER_SUCCESS, 62500));
    assert_int_equal(state_of(&breaker), CV_BREAKER_CLOSED);
    fail_times(&breaker, 4, 63000);
    assert_int_equal(state_of(&breaker), CV_BREAKER_CLOSED);
}

static void a_probe_that_fails_opens_it_anew(void **state)
{
    (void)state;
    cv_breaker breaker = 0;
    fail_times(&breaker, 5, 0);
    assert_false(run(&breaker, CV_BREAKER_SUCCESS, 60000));
    assert_true(run(&breaker, CV_BREAKER_FAILURE, 61000));
    assert_int_equal(refuse(&breaker, 61000), 60000);
    assert_true(admit(&breaker, 121000).is_probe);
}

static void a_probe_without_word_makes_room_for_the_next(void **state)
{
    (void)state;
    cv_breaker breaker = 0;
    fail_times(&breaker, 5, 0);
    for (unsigned i = 0; i < 20; i++)
        assert_false(run(&breaker, CV_BREAKER_NO_WORD, 60000));
    struct cv_breaker_ticket lost = admit(&breaker, 60000);
    (void)refuse(&breaker, 119999);
    struct cv_breaker_ticket next = admit(&breaker, 120000); /* it is not waited for */
    assert_false(cv_breaker_tell(&breaker, &rules, &lost, CV_BREAKER_FAILURE, 120001));
    assert_int_equal(state_of(&breaker), CV_BREAKER_HALF_OPEN);
    assert_false(cv_breaker_tell(&breaker, &rules, &next, CV_BREAKER_SUCCESS, 120002));
    assert_true(run(&breaker, CV_BREAKER_SUCCESS, 120003));
}

static void what_began_before_does_not_count(void **state)
{
    (void)state;
    cv_breaker breaker = 0;
    struct cv_breaker_ticket slow[3];
    for (unsigned i = 0; i < 3; i++)
        slow[i] = admit(&breaker, 0);
    fail_times(&breaker, 5, 10);
    assert_false(cv_breaker_tell(&breaker, &rules, &slow[0], CV_BREAKER_SUCCESS, 20));
    assert_int_equal(state_of(&breaker), CV_BREAKER_OPEN);
    struct cv_breaker_ticket probe = admit(&breaker, 60010);
    assert_false(cv_breaker_tell(&breaker, &rules, &slow[1], CV_BREAKER_FAILURE, 60020));
    assert_int_equal(state_of(&breaker), CV_BREAKER_HALF_OPEN);
    (void)cv_breaker_tell(&breaker, &rules, &probe, CV_BREAKER_SUCCESS, 60030);
    assert_true(run(&breaker, CV_BREAKER_SUCCESS, 60040));
    assert_false(cv_breaker_tell(&breaker, &rules, &slow[2], CV_BREAKER_FAILURE, 60050));
    assert_int_equal(cv_breaker_look(&breaker).count, 0);
}

static void a_ticket_tells_once(void **state)
{
    (void)state;
    cv_breaker breaker = 0;
    struct cv_breaker_ticket ticket = admit(&breaker, 0);
    for (unsigned i = 0; i < 20; i++)
        (void)cv_breaker_tell(&breaker, &rules, &ticket, CV_BREAKER_FAILURE, 0);
    assert_int_equal(cv_breaker_look(&breaker).count, 1);
}

static void an_operator_closes_it(void **state)
{
    (void)state;
    cv_breaker breaker = 0;
    fail_times(&breaker, 5, 0);
    cv_breaker_reset(&breaker);
    assert_int_equal(state_of(&breaker), CV_BREAKER_CLOSED);
    assert_false(admit(&breaker, 0).is_probe);
}

static void without_rules_nothing_is_counted(void **state)
{
    (void)state;
    cv_breaker breaker = 0;
    const struct cv_breaker_rules off = {0};
    struct cv_breaker_ticket ticket;
    uint64_t wait_ms;
    for (unsigned i = 0; i < 100; i++) {
        assert_true(cv_breaker_admit(&breaker, &off, 0, &ticket, &wait_ms));
        assert_false(cv_breaker_tell(&breaker, &off, &ticket, CV_BREAKER_FAILURE, 0));
    }
    assert_int_equal(breaker, 0);
}

/* Random traffic, checked against what the words above say. */
static void it_behaves_like_its_model(void **state)
{
    (void)state;
    uint64_t seed = 3, now_ms = 1, opened_ms = 0;
    cv_breaker breaker = 0;
    unsigned failures = 0, good = 0;
    enum cv_breaker_state model = CV_BREAKER_CLOSED;
    for (unsigned i = 0; i < 100000; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        now_ms += (seed >> 33) % 4000;
        enum cv_breaker_outcome outcome = (enum cv_breaker_outcome)((seed >> 50) % 3);
        struct cv_breaker_ticket ticket;
        uint64_t wait_ms;
        bool is_in = cv_breaker_admit(&breaker, &rules, now_ms, &ticket, &wait_ms);
        bool is_due = model != CV_BREAKER_OPEN || now_ms - opened_ms >= rules.open_ms;
        assert_true(is_in == is_due);
        if (!is_in)
            continue;
        if (model == CV_BREAKER_OPEN) {
            model = CV_BREAKER_HALF_OPEN;
            good = 0;
        }
        (void)cv_breaker_tell(&breaker, &rules, &ticket, outcome, now_ms);
        if (outcome == CV_BREAKER_FAILURE) {
            if (model == CV_BREAKER_HALF_OPEN || ++failures == rules.failures) {
                model = CV_BREAKER_OPEN;
                opened_ms = now_ms;
                failures = 0;
            }
        } else if (outcome == CV_BREAKER_SUCCESS) {
            failures = 0;
            if (model == CV_BREAKER_HALF_OPEN && ++good == rules.successes)
                model = CV_BREAKER_CLOSED;
        }
        assert_int_equal(state_of(&breaker), model);
    }
}

struct race {
    cv_breaker breaker;
    atomic_uint probes_out, most;
};

static void *probe_much(void *arg)
{
    struct race *race = arg;
    for (uint64_t i = 0; i < 20000; i++) {
        struct cv_breaker_ticket ticket;
        uint64_t wait_ms;
        if (!cv_breaker_admit(&race->breaker, &rules, 60000, &ticket, &wait_ms))
            continue;
        unsigned out = atomic_fetch_add(&race->probes_out, 1) + 1;
        if (out > race->most)
            race->most = out;
        (void)atomic_fetch_sub(&race->probes_out, 1);
        (void)cv_breaker_tell(&race->breaker, &rules, &ticket, CV_BREAKER_NO_WORD, 60000);
    }
    return NULL;
}

static void threads_let_one_probe_through(void **state)
{
    (void)state;
    struct race race = {0};
    fail_times(&race.breaker, 5, 0);
    pthread_t threads[4];
    for (unsigned i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, probe_much, &race), 0);
    for (unsigned i = 0; i < 4; i++)
        (void)pthread_join(threads[i], NULL);
    assert_int_equal(race.most, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(failures_in_a_row_open_it),
        cmocka_unit_test(one_success_between_them_does_not),
        cmocka_unit_test(one_probe_at_a_time_and_two_that_go_well_close_it),
        cmocka_unit_test(a_probe_that_fails_opens_it_anew),
        cmocka_unit_test(a_probe_without_word_makes_room_for_the_next),
        cmocka_unit_test(what_began_before_does_not_count),
        cmocka_unit_test(a_ticket_tells_once),
        cmocka_unit_test(an_operator_closes_it),
        cmocka_unit_test(without_rules_nothing_is_counted),
        cmocka_unit_test(it_behaves_like_its_model),
        cmocka_unit_test(threads_let_one_probe_through),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
