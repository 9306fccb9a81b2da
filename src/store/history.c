/* SPDX-License-Identifier: MIT
 *
 * Happy path: give → inbox → run: book → file; ask → run → mail. Ways it fails: the inbox is full
 * (the worker keeps its table), too many ask (they are told), the disk (history_book.c).
 */
#include "store/history.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>
#include <utlist.h>

enum { INBOX_MAX = 1024, QUESTIONS_MAX = 64, LOOK_MS = 1000 };

struct cv_history {
    struct cv_history_book *book; /* the thread's */
    pthread_t thread;
    atomic_int state;

    pthread_mutex_t lock; /* held for moments only, never over a call of the book */
    pthread_cond_t wake;
    struct cv_usage_table *inbox[INBOX_MAX];
    size_t inbox_count;
    struct cv_history_question *questions;
    size_t question_count;
    bool is_stopping;
};

static int64_t unix_seconds(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec;
}

/* ---- the thread ---- */

static void answer(struct cv_history *history, struct cv_history_question *question)
{
    question->status =
        question->kind == CV_HISTORY_SERIES
            ? cv_history_book_series(history->book, &question->series, &question->error)
            : cv_history_book_sums(history->book, &question->sums, unix_seconds());
    void *arg = question->mail.arg;
    void (*on_lost)(void *) = question->on_lost;
    if (!cv_worker_post(question->worker, &question->mail))
        on_lost(arg);
}

/* Until there is something to do, `LOOK_MS` at most. True: the end has come. Call with the lock. */
static bool wait(struct cv_history *history, bool is_more)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += LOOK_MS / 1000;
    while (!is_more && !history->inbox_count && !history->questions && !history->is_stopping)
        if (pthread_cond_timedwait(&history->wake, &history->lock, &until) != 0)
            break;
    return history->is_stopping;
}

static void *run(void *arg)
{
    struct cv_history *history = arg;
    struct cv_usage_table *tables[INBOX_MAX];
    bool is_last = false, is_more = false;
    while (!is_last) {
        (void)pthread_mutex_lock(&history->lock);
        is_last = wait(history, is_more);
        size_t count = history->inbox_count;
        for (size_t i = 0; i < count; i++)
            tables[i] = history->inbox[i];
        history->inbox_count = 0;
        struct cv_history_question *questions = history->questions;
        history->questions = NULL;
        history->question_count = 0;
        (void)pthread_mutex_unlock(&history->lock);
        for (size_t i = 0; i < count; i++)
            cv_history_book_add(history->book, tables[i], unix_seconds());
        is_more = cv_history_book_work(history->book, unix_seconds(), is_last);
        atomic_store(&history->state, (int)cv_history_book_state(history->book));
        while (questions) {
            struct cv_history_question *question = questions;
            LL_DELETE(questions, question);
            answer(history, question);
        }
    }
    return NULL;
}

/* ---- any thread ---- */

bool cv_history_give(struct cv_history *history, struct cv_usage_table *table)
{
    if (!history) {
        cv_usage_table_free(&table);
        return true;
    }
    (void)pthread_mutex_lock(&history->lock);
    bool is_taken = history->inbox_count < INBOX_MAX;
    if (is_taken)
        history->inbox[history->inbox_count++] = table;
    (void)pthread_cond_signal(&history->wake);
    (void)pthread_mutex_unlock(&history->lock);
    return is_taken;
}

bool cv_history_ask(struct cv_history *history, struct cv_history_question *question)
{
    (void)pthread_mutex_lock(&history->lock);
    bool is_taken = history->question_count < QUESTIONS_MAX && !history->is_stopping;
    if (is_taken) {
        LL_APPEND(history->questions, question);
        history->question_count++;
    }
    (void)pthread_cond_signal(&history->wake);
    (void)pthread_mutex_unlock(&history->lock);
    return is_taken;
}

enum cv_history_state cv_history_state(const struct cv_history *history)
{
    return history ? (enum cv_history_state)atomic_load(&history->state) : CV_HISTORY_OFF;
}

/* ---- life ---- */

static struct cv_status init_wake(struct cv_history *history)
{
    pthread_condattr_t attributes;
    if (pthread_condattr_init(&attributes) != 0)
        return cv_status(CV_NO_RESOURCES);
    bool is_made = pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC) == 0 &&
                   pthread_cond_init(&history->wake, &attributes) == 0;
    (void)pthread_condattr_destroy(&attributes);
    return cv_status(is_made ? CV_OK : CV_NO_RESOURCES);
}

struct cv_status cv_history_new(const struct cv_history_options *options, struct cv_history **out)
{
    struct cv_history *history = calloc(1, sizeof *history);
    *out = NULL;
    if (!history)
        return cv_status(CV_NO_MEMORY);
    struct cv_status status = cv_history_book_new(options, &history->book);
    if (cv_is_ok(status))
        status = init_wake(history);
    if (!cv_is_ok(status)) {
        cv_history_book_free(&history->book);
        free(history);
        return status;
    }
    (void)pthread_mutex_init(&history->lock, NULL);
    (void)cv_history_book_work(history->book, unix_seconds(), false);
    atomic_init(&history->state, (int)cv_history_book_state(history->book));
    if (pthread_create(&history->thread, NULL, run, history) != 0) {
        (void)pthread_cond_destroy(&history->wake);
        (void)pthread_mutex_destroy(&history->lock);
        cv_history_book_free(&history->book);
        free(history);
        return cv_status(CV_NO_RESOURCES);
    }
    *out = history;
    return cv_ok();
}

void cv_history_free(struct cv_history **out)
{
    struct cv_history *history = *out;
    if (!history)
        return;
    *out = NULL;
    (void)pthread_mutex_lock(&history->lock);
    history->is_stopping = true;
    (void)pthread_cond_signal(&history->wake);
    (void)pthread_mutex_unlock(&history->lock);
    (void)pthread_join(history->thread, NULL);
    cv_history_book_free(&history->book);
    (void)pthread_cond_destroy(&history->wake);
    (void)pthread_mutex_destroy(&history->lock);
    free(history);
}
