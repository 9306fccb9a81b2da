/* SPDX-License-Identifier: MIT */
#include "net/net_test.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

/* --- timers --- */

struct tick {
    struct cv_timer timer;
    struct cv_worker *worker;
    int *order;
    int *count;
    int id;
    bool is_last;
};

static void on_tick(void *arg)
{
    struct tick *tick = arg;
    tick->order[(*tick->count)++] = tick->id;
    if (tick->is_last)
        cv_worker_stop(tick->worker);
}

static void timers_fire_in_order_and_stopped_ones_do_not(void **state)
{
    (void)state;
    struct bench bench;
    bench_init(&bench, NULL);
    int order[8] = {0}, count = 0;
    struct tick ticks[4];
    const uint64_t delays[4] = {30, 10, 20, 40};
    for (int i = 0; i < 4; i++) {
        ticks[i] = (struct tick){
            .worker = bench.worker, .order = order, .count = &count, .id = i, .is_last = i == 3};
        cv_timer_init(&ticks[i].timer, on_tick, &ticks[i]);
        assert_ok(cv_worker_timer_start(bench.worker, &ticks[i].timer, delays[i]));
    }
    cv_worker_timer_stop(bench.worker, &ticks[2].timer);
    uint64_t before = cv_worker_now_ms(bench.worker);
    uint64_t before_ns = cv_worker_now_ns(bench.worker);
    struct cv_worker *worker = bench.worker;
    assert_true(cv_worker_wall_seconds(worker) > 1600000000);
    cv_worker_run(worker);
    assert_true(cv_worker_now_ns(worker) - before_ns >= 38 * 1000000ull);
    assert_true(cv_worker_now_ms(worker) >= before + 40);
    cv_worker_free(&bench.worker);
    assert_int_equal(count, 3);
    assert_int_equal(order[0], 1);
    assert_int_equal(order[1], 0);
    assert_int_equal(order[2], 3);
}

static void on_zero(void *arg)
{
    struct tick *tick = arg;
    if (++*tick->count == 50)
        cv_worker_stop(tick->worker);
    else
        assert_ok(cv_worker_timer_start(tick->worker, &tick->timer, 0));
}

static void a_timer_of_zero_restarted_from_itself_does_not_hang_the_loop(void **state)
{
    (void)state;
    struct bench bench;
    bench_init(&bench, NULL);
    int count = 0;
    struct tick tick = {.worker = bench.worker, .count = &count};
    cv_timer_init(&tick.timer, on_zero, &tick);
    assert_ok(cv_worker_timer_start(bench.worker, &tick.timer, 0));
    bench_run(&bench);
    assert_int_equal(count, 50);
}

/* --- mail --- */

enum { SENDERS = 4, MAILS = 5000 };

struct letter {
    struct cv_mail mail;
    struct inbox *inbox;
    int sender, number;
};

struct inbox {
    struct cv_worker *worker;
    int next[SENDERS];
    int total, misordered;
    struct letter letters[SENDERS][MAILS];
};

static void on_letter(void *arg)
{
    struct letter *letter = arg;
    struct inbox *inbox = letter->inbox;
    if (inbox->next[letter->sender] != letter->number)
        inbox->misordered++;
    inbox->next[letter->sender] = letter->number + 1;
    if (++inbox->total == SENDERS * MAILS)
        cv_worker_stop(inbox->worker);
}

struct sender {
    struct inbox *inbox;
    int number;
    pthread_t thread;
};

static void *send_letters(void *arg)
{
    struct sender *sender = arg;
    for (int i = 0; i < MAILS; i++) {
        struct letter *letter = &sender->inbox->letters[sender->number][i];
        letter->inbox = sender->inbox;
        letter->sender = sender->number;
        letter->number = i;
        cv_mail_init(&letter->mail, on_letter, letter);
        assert_true(cv_worker_post(sender->inbox->worker, &letter->mail));
    }
    return NULL;
}

static void mail_from_many_threads_arrives_once_and_in_order(void **state)
{
    (void)state;
    struct inbox *inbox = calloc(1, sizeof *inbox);
    assert_ok(cv_worker_new(0, &inbox->worker, NULL));
    assert_ok(cv_worker_start_thread(inbox->worker));
    struct sender senders[SENDERS];
    for (int i = 0; i < SENDERS; i++) {
        senders[i] = (struct sender){.inbox = inbox, .number = i};
        assert_int_equal(pthread_create(&senders[i].thread, NULL, send_letters, &senders[i]), 0);
    }
    for (int i = 0; i < SENDERS; i++)
        pthread_join(senders[i].thread, NULL);
    cv_worker_join(inbox->worker);
    assert_int_equal(inbox->total, SENDERS * MAILS);
    assert_int_equal(inbox->misordered, 0);
    struct cv_mail late;
    cv_mail_init(&late, on_letter, NULL);
    assert_false(cv_worker_post(inbox->worker, &late));
    cv_worker_free(&inbox->worker);
    free(inbox);
}

static void count_mail(void *arg)
{
    ++*(int *)arg;
}

static void mail_waiting_at_stop_is_still_delivered(void **state)
{
    (void)state;
    struct cv_worker *worker;
    assert_ok(cv_worker_new(0, &worker, NULL));
    int count = 0;
    struct cv_mail mails[3];
    for (int i = 0; i < 3; i++) {
        cv_mail_init(&mails[i], count_mail, &count);
        assert_true(cv_worker_post(worker, &mails[i]));
    }
    cv_worker_free(&worker); /* it never ran */
    assert_int_equal(count, 3);
}

struct owner {
    struct cv_worker *worker;
    bool was_stopping;
};

static void look_at_worker(void *arg)
{
    struct owner *owner = arg;
    owner->was_stopping = owner->worker && cv_worker_is_stopping(owner->worker);
}

/* As in a relay whose start fails half-way, such as on a port in use. */
static void what_runs_while_a_worker_is_freed_still_has_it(void **state)
{
    (void)state;
    struct owner owner = {0};
    struct cv_mail mail;
    assert_ok(cv_worker_new(0, &owner.worker, NULL));
    cv_mail_init(&mail, look_at_worker, &owner);
    assert_true(cv_worker_post(owner.worker, &mail));
    cv_worker_free(&owner.worker);
    assert_true(owner.was_stopping);
    assert_null(owner.worker);
}

/* --- deferred work --- */

struct later {
    struct cv_defer a, b, next;
    struct cv_worker *worker;
    char trace[64];
};

static void note(struct later *later, char c)
{
    size_t len = strlen(later->trace);
    if (len < sizeof later->trace - 1)
        later->trace[len] = c;
}

static void run_a(void *arg)
{
    struct later *later = arg;
    note(later, 'a');
    cv_worker_defer_next(later->worker, &later->next);
    cv_worker_defer(later->worker, &later->b);
    cv_worker_defer(later->worker, &later->b);
}

static void run_b(void *arg)
{
    note(arg, 'b');
}

static void run_next(void *arg)
{
    struct later *later = arg;
    note(later, 'n');
    cv_worker_stop(later->worker);
}

static void run_never(void *arg)
{
    (void)arg;
    fail();
}

static void deferred_work_runs_once_and_next_turn_after_it(void **state)
{
    (void)state;
    struct bench bench;
    bench_init(&bench, NULL);
    struct later later = {.worker = bench.worker};
    struct cv_defer never;
    cv_defer_init(&later.a, run_a, &later);
    cv_defer_init(&later.b, run_b, &later);
    cv_defer_init(&later.next, run_next, &later);
    cv_defer_init(&never, run_never, NULL);
    cv_worker_defer(bench.worker, &later.a);
    cv_worker_defer(bench.worker, &never);
    cv_defer_cancel(&never);
    cv_defer_cancel(&never);
    bench_run(&bench);
    assert_string_equal(later.trace, "abn");
}

static void run_forever(void *arg)
{
    struct later *later = arg;
    cv_worker_defer(later->worker, &later->a);
}

static void stop_now(void *arg)
{
    struct later *later = arg;
    cv_defer_cancel(&later->a);
    cv_worker_stop(later->worker);
}

static void a_loop_of_deferrals_does_not_starve_timers(void **state)
{
    (void)state;
    struct bench bench;
    bench_init(&bench, NULL);
    struct later later = {.worker = bench.worker};
    struct cv_timer timer;
    cv_defer_init(&later.a, run_forever, &later);
    cv_timer_init(&timer, stop_now, &later);
    cv_worker_defer(bench.worker, &later.a);
    assert_ok(cv_worker_timer_start(bench.worker, &timer, 20));
    bench_run(&bench);
}

/* --- signals and threads --- */

static void on_signal(void *arg, int signo)
{
    assert_int_equal(signo, SIGUSR1);
    cv_worker_stop(arg);
}

static void raise_it(void *arg)
{
    (void)arg;
    raise(SIGUSR1);
}

static void a_signal_is_seen_in_the_loop(void **state)
{
    (void)state;
    struct bench bench;
    bench_init(&bench, NULL);
    struct cv_defer defer;
    cv_defer_init(&defer, raise_it, NULL);
    assert_ok(cv_worker_on_signal(bench.worker, SIGUSR1, on_signal, bench.worker));
    cv_worker_defer(bench.worker, &defer);
    bench_run(&bench);
}

static void many_workers_start_and_stop(void **state)
{
    (void)state;
    struct cv_worker *workers[8];
    for (unsigned i = 0; i < 8; i++) {
        assert_ok(cv_worker_new(i, &workers[i], NULL));
        cv_worker_set_data(workers[i], &workers[i]);
        assert_ok(cv_worker_start_thread(workers[i]));
    }
    for (unsigned i = 0; i < 8; i++) {
        assert_int_equal(cv_worker_index(workers[i]), i);
        assert_ptr_equal(cv_worker_data(workers[i]), &workers[i]);
        cv_worker_stop(workers[i]);
        cv_worker_stop(workers[i]);
        cv_worker_join(workers[i]);
        cv_worker_stop(workers[i]);
        cv_worker_free(&workers[i]);
        assert_null(workers[i]);
    }
    cv_worker_free(&workers[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(timers_fire_in_order_and_stopped_ones_do_not),
        cmocka_unit_test(a_timer_of_zero_restarted_from_itself_does_not_hang_the_loop),
        cmocka_unit_test(mail_from_many_threads_arrives_once_and_in_order),
        cmocka_unit_test(mail_waiting_at_stop_is_still_delivered),
        cmocka_unit_test(what_runs_while_a_worker_is_freed_still_has_it),
        cmocka_unit_test(deferred_work_runs_once_and_next_turn_after_it),
        cmocka_unit_test(a_loop_of_deferrals_does_not_starve_timers),
        cmocka_unit_test(a_signal_is_seen_in_the_loop),
        cmocka_unit_test(many_workers_start_and_stop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
