/* SPDX-License-Identifier: MIT
 *
 * What history_db.c (opening, writing, reading) and history_db_tidy.c (adding up, removing) share.
 * Nobody else includes this, or sqlite3.h.
 *
 * Failures of all of them: CV_INVALID when the file is damaged, CV_IO otherwise; CV_TIMEOUT_TOTAL
 * where a read has a time limit.
 */
#ifndef CV_STORE_HISTORY_DB_PRIVATE_H
#define CV_STORE_HISTORY_DB_PRIVATE_H

#include "store/history_db.h"

#include <sqlite3.h>
#include <sys/types.h>

enum { DB_PAGE_BYTES = 4096, MINUTE_S = 60, HOUR_S = 3600 };

/* The two tables of rows. */
enum history_span { MINUTES, HOURS, SPANS };

struct cv_history_db {
    sqlite3 *sqlite;
    struct cv_history_limits limits;
    char *path;
    dev_t device;
    ino_t inode;
    sqlite3_stmt *get[SPANS], *put[SPANS], *add_user, *find_user;
    struct cv_buf latency, first_byte; /* scratch: a row's sketches, written */
    struct cv_usage row;               /* scratch */
    bool has_removed;                  /* rows, so that users may have none */
    uint64_t read_due_ms;
};

/* The columns of numbers, as a SELECT names them. */
#define COLUMN(name, column, ...) column ", "
#define COLUMNS CV_USAGE_COUNTS(COLUMN) "latency, first_byte"

/* Runs statements without parameters and results. */
struct cv_status history_exec(const struct cv_history_db *db, const char *sql,
                              struct cv_error *error);
struct cv_status history_prepare(const struct cv_history_db *db, const char *sql,
                                 sqlite3_stmt **statement, struct cv_error *error);
/* To the next row; *has_row: the statement stands there. It is reset on failure. */
struct cv_status history_step(const struct cv_history_db *db, sqlite3_stmt *statement,
                              bool *has_row, struct cv_error *error);
/* The first number of a query's first row; `fallback` where there is none. */
struct cv_status history_number(const struct cv_history_db *db, const char *sql, int64_t fallback,
                                int64_t *value, struct cv_error *error);

/* A transaction; its end is the good one if `status` is good, and gives that or its own failure. */
struct cv_status history_begin(const struct cv_history_db *db, struct cv_error *error);
struct cv_status history_end(const struct cv_history_db *db, struct cv_status status,
                             struct cv_error *error);

/* Adds the numbers of the row at which the statement stands, from column `first` on, to *usage. */
struct cv_status history_take_row(const struct cv_history_db *db, sqlite3_stmt *row, int first,
                                  struct cv_usage *usage, struct cv_error *error);
/* Adds `usage` to the row that is there, or makes it. */
struct cv_status history_put_row(struct cv_history_db *db, enum history_span span, int64_t user,
                                 const char *tunnel, int64_t at_s, const struct cv_usage *usage,
                                 struct cv_error *error);

#endif
