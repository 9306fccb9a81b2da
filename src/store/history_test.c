/* SPDX-License-Identifier: MIT
 *
 * The book in virtual time, with a file that fails; and the thread, with the real clock.
 */
#include "base/test.h"
#include "store/history.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { START_S = 480000 * 3600, SERIES = 8 };

struct bench {
    char folder[64], path[80];
    struct cv_history_book *book;
};

static struct cv_history_options options_of(const char *path)
{
    return (struct cv_history_options){.path = path,
                                       .limits = {.minutes_for_s = 7 * 86400,
                                                  .hours_for_s = 90 * 86400,
                                                  .max_rows = 100000,
                                                  .max_bytes = 16 << 20},
                                       .max_series = SERIES};
}

static void reopen(struct bench *b)
{
    struct cv_history_options options = options_of(b->path);
    cv_history_book_free(&b->book);
    assert_ok(cv_history_book_new(&options, &b->book));
}

static int setup(void **state)
{
    struct bench *b = calloc(1, sizeof *b);
    assert_non_null(b);
    (void)snprintf(b->folder, sizeof b->folder, "/tmp/culvert-history-XXXXXX");
    assert_non_null(mkdtemp(b->folder));
    (void)snprintf(b->path, sizeof b->path, "%s/history.db", b->folder);
    reopen(b);
    *state = b;
    return 0;
}

static void remove_file(const struct bench *b)
{
    static const char *const ends[] = {"", "-wal", "-shm", ".broken"};
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        char name[120];
        (void)snprintf(name, sizeof name, "%s%s", b->path, ends[i]);
        (void)unlink(name);
    }
}

static int teardown(void **state)
{
    struct bench *b = *state;
    cv_history_book_free(&b->book);
    remove_file(b);
    assert_int_equal(rmdir(b->folder), 0);
    free(b);
    return 0;
}

static struct cv_usage_table *table_of(int64_t at_s, uint8_t user, unsigned requests)
{
    struct cv_usage_table *table = cv_usage_table_new(at_s / 60, SERIES);
    uint8_t bytes[CV_USAGE_USER_LEN] = {user};
    struct cv_usage_key key;
    assert_non_null(table);
    cv_usage_key_init(&key, bytes, "home");
    for (unsigned i = 0; i < requests; i++)
        cv_usage_note(cv_usage_table_at(table, &key, "alice"),
                      &(struct cv_usage_request){.status = 200, .latency_us = 1000});
    return table;
}

static void add(struct bench *b, int64_t at_s, unsigned requests)
{
    cv_history_book_add(b->book, table_of(at_s, 1, requests), at_s);
}

static void work(struct bench *b, int64_t now_s)
{
    for (int i = 0; cv_history_book_work(b->book, now_s, false); i++)
        assert_true(i < 1000);
}

/* Requests in each of `count` minutes from START_S on, of user 1. */
static struct cv_status series(struct bench *b, size_t count, uint64_t *out)
{
    struct cv_history_series series = {.scope = {.whose = CV_HISTORY_USER, .user = {1}},
                                       .from_s = START_S,
                                       .to_s = START_S + (int64_t)count * 60,
                                       .step_s = 60};
    struct cv_status status = cv_history_book_series(b->book, &series, NULL);
    assert_int_equal(series.count, count);
    for (size_t i = 0; i < count; i++)
        out[i] = series.points[i] ? series.points[i]->counts[CV_USAGE_REQUESTS] : 0;
    cv_history_series_done(&series);
    return status;
}

#define assert_series(b, ...)                                                                      \
    do {                                                                                           \
        const uint64_t want_[] = {__VA_ARGS__};                                                    \
        uint64_t got_[sizeof want_ / sizeof want_[0]];                                             \
        assert_ok(series(b, sizeof want_ / sizeof want_[0], got_));                                \
        for (size_t i_ = 0; i_ < sizeof want_ / sizeof want_[0]; i_++)                             \
            assert_int_equal(got_[i_], want_[i_]);                                                 \
    } while (0)

/* ---- the way it should be ---- */

static void a_minute_is_seen_at_once_and_written_when_it_has_ended(void **state)
{
    struct bench *b = *state;
    add(b, START_S + 5, 2);
    add(b, START_S + 30, 3);
    work(b, START_S + 59);
    assert_series(b, 5, 0);
    work(b, START_S + 62);
    assert_series(b, 5, 0);
    add(b, START_S + 59, 1); /* late */
    add(b, START_S + 60, 7);
    assert_series(b, 6, 7);
    work(b, START_S + 200);
    assert_series(b, 6, 7);
    reopen(b);
    work(b, START_S + 200);
    assert_series(b, 6, 7);
}

static void the_end_writes_the_minute_under_way(void **state)
{
    struct bench *b = *state;
    add(b, START_S, 4);
    assert_false(cv_history_book_work(b->book, START_S + 1, true));
    reopen(b);
    work(b, START_S + 2);
    assert_series(b, 4);
}

static void sums_are_since_the_start_and_of_late(void **state)
{
    struct bench *b = *state;
    struct cv_history_sums sums = {.scope = {.whose = CV_HISTORY_USER, .user = {1}}};
    for (int minute = 0; minute < 10; minute++) {
        add(b, START_S + minute * 60, 1);
        work(b, START_S + minute * 60 + 5);
    }
    cv_history_book_add(b->book, table_of(START_S + 540, 2, 100), START_S + 540);
    assert_ok(cv_history_book_sums(b->book, &sums, START_S + 9 * 60 + 30));
    struct cv_usage_key key;
    cv_usage_key_init(&key, (uint8_t[CV_USAGE_USER_LEN]){1}, "home");
    assert_int_equal(cv_usage_table_count(sums.total), 1);
    assert_int_equal(cv_usage_table_at(sums.total, &key, "")->counts[CV_USAGE_REQUESTS], 10);
    assert_int_equal(cv_usage_table_at(sums.recent, &key, "")->counts[CV_USAGE_REQUESTS], 5);
    cv_usage_table_free(&sums.total);
    cv_usage_table_free(&sums.recent);
}

static void without_a_file_there_are_the_last_minutes(void **state)
{
    struct bench *b = *state;
    struct cv_history_options options = options_of(NULL);
    cv_history_book_free(&b->book);
    assert_ok(cv_history_book_new(&options, &b->book));
    add(b, START_S, 2);
    work(b, START_S + 100);
    assert_series(b, 2, 0);
    assert_int_equal(cv_history_book_state(b->book), CV_HISTORY_OFF);
    work(b, START_S + 1000);
    assert_series(b, 0, 0);
    assert_int_equal(access(b->path, F_OK), -1);
}

/* ---- the ways it fails ---- */

static void a_folder_that_is_gone_and_comes_back(void **state)
{
    struct bench *b = *state;
    uint64_t unused[1];
    char away[80];
    add(b, START_S, 1);
    work(b, START_S + 62);
    (void)snprintf(away, sizeof away, "%s-away", b->folder);
    assert_int_equal(rename(b->folder, away), 0);
    add(b, START_S + 60, 2);
    work(b, START_S + 125);
    assert_int_equal(cv_history_book_state(b->book), CV_HISTORY_FAILING);
    assert_status(series(b, 1, unused), CV_IO);
    assert_int_equal(rename(away, b->folder), 0);
    work(b, START_S + 126); /* not tried again yet */
    assert_int_equal(cv_history_book_state(b->book), CV_HISTORY_FAILING);
    work(b, START_S + 131);
    assert_int_equal(cv_history_book_state(b->book), CV_HISTORY_OK);
    assert_series(b, 1, 2);
}

static void a_damaged_file_is_replaced_and_nothing_in_memory_lost(void **state)
{
    struct bench *b = *state;
    char broken[120];
    add(b, START_S, 1);
    work(b, START_S + 62);
    cv_history_book_free(&b->book);
    FILE *file = fopen(b->path, "w");
    assert_non_null(file);
    for (int i = 0; i < 5000; i++)
        assert_int_equal(fputc('x', file), 'x');
    assert_int_equal(fclose(file), 0);
    reopen(b);
    add(b, START_S + 60, 2);
    work(b, START_S + 125);
    assert_int_equal(cv_history_book_state(b->book), CV_HISTORY_OK);
    assert_series(b, 0, 2);
    (void)snprintf(broken, sizeof broken, "%s.broken", b->path);
    assert_int_equal(access(broken, F_OK), 0);
}

static void a_removed_file_is_made_anew(void **state)
{
    struct bench *b = *state;
    add(b, START_S, 1);
    work(b, START_S + 62);
    remove_file(b);
    add(b, START_S + 60, 2);
    work(b, START_S + 125);
    assert_series(b, 0, 2);
    assert_int_equal(access(b->path, F_OK), 0);
}

static void what_waits_is_bounded(void **state)
{
    struct bench *b = *state;
    struct cv_history_series series = {.scope = {.whose = CV_HISTORY_RELAY},
                                       .from_s = START_S,
                                       .to_s = START_S + 200 * 60,
                                       .step_s = 60};
    assert_int_equal(rmdir(b->folder), 0);
    for (int minute = 0; minute < 200; minute++) {
        add(b, START_S + minute * 60, 1);
        work(b, START_S + minute * 60 + 5);
    }
    assert_status(cv_history_book_series(b->book, &series, NULL), CV_IO);
    for (int minute = 0; minute < 200; minute++)
        assert_int_equal(series.points[minute] != NULL, minute >= 200 - 4 * SERIES);
    cv_history_series_done(&series);
    assert_int_equal(mkdir(b->folder, 0700), 0);
    work(b, START_S + 200 * 60 + 10);
    assert_ok(cv_history_book_series(b->book, &series, NULL));
    assert_non_null(series.points[199]);
    cv_history_series_done(&series);
}

static void a_clock_that_is_set_back_stops_nothing(void **state)
{
    struct bench *b = *state;
    assert_int_equal(rmdir(b->folder), 0);
    work(b, START_S + 1000000);
    assert_int_equal(cv_history_book_state(b->book), CV_HISTORY_FAILING);
    assert_int_equal(mkdir(b->folder, 0700), 0);
    add(b, START_S, 1);
    work(b, START_S + 62);
    assert_int_equal(cv_history_book_state(b->book), CV_HISTORY_OK);
    assert_series(b, 1);
}

/* ---- the thread ---- */

static void on_answer(void *arg)
{
    cv_worker_stop(arg);
}

static void the_thread_answers_by_mail(void **state)
{
    struct bench *b = *state;
    struct cv_history_options options = options_of(b->path);
    struct cv_history *history;
    struct cv_worker *worker;
    assert_ok(cv_worker_new(0, &worker, NULL));
    assert_ok(cv_history_new(&options, &history));
    for (int i = 0; i < 50; i++)
        assert_true(cv_history_give(history, table_of(START_S, 1, 2)));
    struct cv_history_question question = {
        .kind = CV_HISTORY_SERIES,
        .series = {.scope = {.whose = CV_HISTORY_RELAY},
                   .from_s = START_S,
                   .to_s = START_S + 60,
                   .step_s = 60},
        .worker = worker,
    };
    cv_mail_init(&question.mail, on_answer, worker);
    assert_true(cv_history_ask(history, &question));
    cv_worker_run(worker);
    assert_ok(question.status);
    assert_int_equal(question.series.points[0]->counts[CV_USAGE_REQUESTS], 100);
    cv_history_series_done(&question.series);
    assert_int_equal(cv_history_state(history), CV_HISTORY_OK);
    cv_history_free(&history);
    cv_worker_free(&worker);
}

static void on_lost(void *arg)
{
    *(bool *)arg = true;
}

static void who_asked_and_went_is_not_written_to(void **state)
{
    struct bench *b = *state;
    struct cv_history_options options = options_of(b->path);
    struct cv_history *history;
    struct cv_worker *worker;
    bool is_lost = false;
    assert_ok(cv_worker_new(0, &worker, NULL));
    cv_worker_stop(worker);
    cv_worker_run(worker);
    assert_ok(cv_history_new(&options, &history));
    struct cv_history_question question = {
        .kind = CV_HISTORY_SUMS, .worker = worker, .on_lost = on_lost};
    cv_mail_init(&question.mail, on_answer, &is_lost);
    assert_true(cv_history_ask(history, &question));
    cv_history_free(&history);
    assert_true(is_lost);
    cv_usage_table_free(&question.sums.total);
    cv_usage_table_free(&question.sums.recent);
    cv_worker_free(&worker);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_minute_is_seen_at_once_and_written_when_it_has_ended,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(the_end_writes_the_minute_under_way, setup, teardown),
        cmocka_unit_test_setup_teardown(sums_are_since_the_start_and_of_late, setup, teardown),
        cmocka_unit_test_setup_teardown(without_a_file_there_are_the_last_minutes, setup, teardown),
        cmocka_unit_test_setup_teardown(a_folder_that_is_gone_and_comes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(a_damaged_file_is_replaced_and_nothing_in_memory_lost,
                                        setup, teardown),
        cmocka_unit_test_setup_teardown(a_removed_file_is_made_anew, setup, teardown),
        cmocka_unit_test_setup_teardown(what_waits_is_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(a_clock_that_is_set_back_stops_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(the_thread_answers_by_mail, setup, teardown),
        cmocka_unit_test_setup_teardown(who_asked_and_went_is_not_written_to, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
