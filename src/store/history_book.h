/* SPDX-License-Identifier: MIT
 *
 * What the history knows: the file (history_db.h), the minutes that are not in it yet, and, for as
 * long as the process runs, the sum for each user and tunnel. The file may fail in any way and come
 * back: minutes wait in memory meanwhile, and one line of the log says so.
 *
 * Limits: `max_series` entries in a minute and in the sums, four times as many in all minutes that
 * are held; then the oldest minutes are lost, and the log says so. An entry has some 8.5 KiB.
 *
 * Blocking, no thread of its own: history.c gives it one. Time comes from outside, in Unix seconds.
 */
#ifndef CV_STORE_HISTORY_BOOK_H
#define CV_STORE_HISTORY_BOOK_H

#include "store/history_db.h"

struct cv_history_book;
struct cv_log;

enum {
    CV_HISTORY_POINTS_MAX = 3000, /* in one answer */
    CV_HISTORY_RECENT_S = 300,    /* what "recent" numbers are of */
};

struct cv_history_options {
    const char *path; /* copied; NULL: no file, only what is recent and the sums */
    struct cv_history_limits limits;
    size_t max_series;
    struct cv_log *log; /* borrowed; may be NULL */
};

/* CV_NO_MEMORY. Nothing is opened yet. */
struct cv_status cv_history_book_new(const struct cv_history_options *options,
                                     struct cv_history_book **out);
/* Closes the file; what is not in it is lost. Takes NULL. */
void cv_history_book_free(struct cv_history_book **book);

/* Takes the table. */
void cv_history_book_add(struct cv_history_book *book, struct cv_usage_table *table, int64_t now_s);

/* Writes minutes that have ended (with `is_last` all there are) and does some of what is due in the
 * file. True: there is more to do at once. Call it at least every few seconds. */
bool cv_history_book_work(struct cv_history_book *book, int64_t now_s, bool is_last);

enum cv_history_state { CV_HISTORY_OFF, CV_HISTORY_OK, CV_HISTORY_FAILING };
enum cv_history_state cv_history_book_state(const struct cv_history_book *book);

/* The numbers of a scope in equal steps. */
struct cv_history_series {
    struct cv_history_scope scope;
    int64_t from_s, to_s;     /* multiples of step_s */
    unsigned step_s;          /* a multiple of 60; at most CV_HISTORY_POINTS_MAX of them */
    struct cv_usage **points; /* (to_s - from_s) / step_s of them, NULL where there was nothing */
    size_t count;
    int64_t hours_until_s; /* before this they come from rows of an hour; 0: none does */
};

/* Fills points, to be given back with cv_history_series_done also after failure. CV_NO_MEMORY;
 * CV_IO while the file cannot be read, CV_TIMEOUT_TOTAL; what is in memory is there in any case. */
struct cv_status cv_history_book_series(struct cv_history_book *book,
                                        struct cv_history_series *series, struct cv_error *error);
void cv_history_series_done(struct cv_history_series *series);

/* By user and tunnel: since the start, and in the last CV_HISTORY_RECENT_S (the minute under way
 * and the four before, which are four to five minutes). */
struct cv_history_sums {
    struct cv_history_scope scope;
    struct cv_usage_table *total, *recent;
};

/* As cv_history_book_series; both tables are the caller's, or NULL without memory. */
struct cv_status cv_history_book_sums(struct cv_history_book *book, struct cv_history_sums *sums,
                                      int64_t now_s);

#endif
