/* SPDX-License-Identifier: MIT
 *
 * The file of the history: an SQLite database with a row for each minute, user and tunnel that saw
 * a request, and for the whole relay; older ones are added up to rows of an hour. The one place
 * that knows SQLite.
 *
 * Bounded: minutes and hours are kept for as long as the limits say; above `max_rows`, or three
 * quarters of `max_bytes`, the oldest minutes become hours early, and then the oldest hours go. The
 * file itself never grows beyond `max_bytes`; beside it the write-ahead log has 4 MiB or, while it
 * grows, what one batch takes.
 *
 * WAL mode and synchronous=NORMAL (https://www.sqlite.org/wal.html): what was committed survives
 * kill -9; a power cut may take back the last commits but leaves a sound file. Two processes may
 * have the file open, as they do while one relay takes over from another: what both count for one
 * minute is added up.
 *
 * Blocking: for the history's own thread. Time comes from outside. Owns the connection.
 */
#ifndef CV_STORE_HISTORY_DB_H
#define CV_STORE_HISTORY_DB_H

#include "base/status.h"
#include "store/usage.h"

struct cv_history_db;

struct cv_history_limits {
    uint64_t minutes_for_s; /* how long rows of a minute are kept, at least an hour */
    uint64_t hours_for_s;   /* … and of an hour */
    uint64_t max_rows;
    uint64_t max_bytes;
};

/* Opens the file, or makes it (0600).
 *   CV_INVALID  what is there is damaged, or no database: set it aside.
 *   CV_CONFIG   it is somebody else's database, or of a newer version of this program: leave it.
 *   CV_IO       the rest: no folder, no right, no space, no memory. */
struct cv_status cv_history_db_open(const char *path, const struct cv_history_limits *limits,
                                    struct cv_history_db **out, struct cv_error *error);
void cv_history_db_close(struct cv_history_db **db);

/* Renames a damaged file to PATH.broken, in the place of one that is called so already; what
 * belongs to it goes. CV_IO. */
struct cv_status cv_history_db_set_aside(const char *path, struct cv_error *error);

/* Whether the file is still the one at its path: a file that was removed takes writes for ever. */
bool cv_history_db_is_there(const struct cv_history_db *db);

/* Adds all of a minute's table: a row for each entry, and one for their sum and the rest. All or
 * nothing. CV_INVALID when the file is damaged; CV_IO otherwise (full, read-only, locked): it may
 * be tried again. */
struct cv_status cv_history_db_write(struct cv_history_db *db, const struct cv_usage_table *table,
                                     struct cv_error *error);

/* Does one piece of what is due at the Unix time `now_s`: adds up an hour of minutes, or takes out
 * what is too old or too much. *is_more: call again soon. As cv_history_db_write. */
struct cv_status cv_history_db_tidy(struct cv_history_db *db, int64_t now_s, bool *is_more,
                                    struct cv_error *error);

/* Whose rows. */
struct cv_history_scope {
    enum { CV_HISTORY_RELAY, CV_HISTORY_USER, CV_HISTORY_SUBJECT } whose;
    uint8_t user[CV_USAGE_USER_LEN];        /* CV_HISTORY_USER */
    char subject[CV_USAGE_SUBJECT_MAX + 1]; /* CV_HISTORY_SUBJECT: every issuer's */
    char tunnel[CV_TUNNEL_NAME_MAX + 1];    /* "": all of the user's */
};

/* Calls `on_row` for each row that begins in [from_s, to_s); `span_s` is what it covers, 60 or
 * 3600. CV_TIMEOUT_TOTAL when reading took longer than 2 s; CV_INVALID, CV_IO. */
struct cv_status cv_history_db_read(struct cv_history_db *db, const struct cv_history_scope *scope,
                                    int64_t from_s, int64_t to_s,
                                    void (*on_row)(void *arg, int64_t at_s, unsigned span_s,
                                                   const struct cv_usage *usage),
                                    void *arg, struct cv_error *error);

/* For tests and diagnostics. */
struct cv_history_size {
    uint64_t minutes, hours; /* rows */
    uint64_t bytes;          /* in use */
};
struct cv_history_size cv_history_db_size(const struct cv_history_db *db);

#endif
