/* SPDX-License-Identifier: MIT
 *
 * The history with a thread of its own (history_book.h says what it holds). Workers count in tables
 * of theirs, and hand one over when its minute has ended or somebody asks; nothing of this is on
 * the way of a request, and whatever becomes of the disk, nobody waits for it but who asks for the
 * past.
 *
 * Survives kill -9: what was handed over and whose minute has ended is in the file about two
 * seconds later. What is lost is the minute under way, and, while the file cannot be written, what
 * waits in memory.
 *
 * Owns its thread and the book; borrows the log. Any thread, as said.
 */
#ifndef CV_STORE_HISTORY_H
#define CV_STORE_HISTORY_H

#include "net/worker.h"
#include "store/history_book.h"

struct cv_history;

/* Opens the file, which may fail without being a failure here, and starts the thread; block the
 * signals that others wait for before. CV_NO_MEMORY or CV_NO_RESOURCES; *out is NULL then. */
struct cv_status cv_history_new(const struct cv_history_options *options, struct cv_history **out);

/* Writes what was handed over, the minute under way included, and ends the thread. Questions not
 * yet answered are, where their workers still take mail. Takes NULL. */
void cv_history_free(struct cv_history **history);

/* Takes the table, unless too many wait (false): go on counting in it. NULL history: takes it. Any
 * thread. */
bool cv_history_give(struct cv_history *history, struct cv_usage_table *table);

/* A question, in memory of the asker's that stays until it comes back: as mail to `worker`, whose
 * on_mail is set by the asker beforehand, or, if that takes none any more, by on_lost in the
 * history's thread. */
struct cv_history_question {
    enum { CV_HISTORY_SERIES, CV_HISTORY_SUMS } kind;
    struct cv_history_series series;
    struct cv_history_sums sums;
    struct cv_status status; /* the answer's */
    struct cv_error error;
    struct cv_worker *worker;
    struct cv_mail mail;
    void (*on_lost)(void *arg); /* with mail.arg */
    struct cv_history_question *next;
};

/* False: too many wait already; the question stays the asker's. Any thread. */
bool cv_history_ask(struct cv_history *history, struct cv_history_question *question);

/* Any thread. NULL is off. */
enum cv_history_state cv_history_state(const struct cv_history *history);

#endif
