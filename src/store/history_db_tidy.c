/* SPDX-License-Identifier: MIT
 *
 * Keeps the file of the history within its limits, a piece at a time: minutes that are old enough
 * become hours, hours that are old enough go, and of what is too much the oldest.
 */
#include "store/history_db_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DB_VACUUM_PAGES = 1024 };

/* Rows of the hour that begins at `hour_s`, added up by user and tunnel. */
static struct cv_status add_up(struct cv_history_db *db, int64_t hour_s, struct cv_usage *sum,
                               struct cv_error *error)
{
    sqlite3_stmt *rows;
    int64_t user = -1;
    char tunnel[CV_TUNNEL_NAME_MAX + 1] = "";
    struct cv_status status = cv_ok();
    CV_RETURN_IF_ERROR(
        history_prepare(db,
                        "SELECT user, tunnel, " COLUMNS
                        " FROM minute WHERE at >= ? AND at < ? ORDER BY user, tunnel",
                        &rows, error));
    (void)sqlite3_bind_int64(rows, 1, hour_s);
    (void)sqlite3_bind_int64(rows, 2, hour_s + HOUR_S);
    for (bool has_row = true; cv_is_ok(status) && has_row;) {
        status = history_step(db, rows, &has_row, error);
        const char *name = has_row ? (const char *)sqlite3_column_text(rows, 1) : "";
        bool is_other =
            !has_row || !name || sqlite3_column_int64(rows, 0) != user || strcmp(name, tunnel) != 0;
        if (cv_is_ok(status) && is_other && user >= 0)
            status = history_put_row(db, HOURS, user, tunnel, hour_s, sum, error);
        if (!cv_is_ok(status) || !has_row)
            break;
        if (is_other) {
            *sum = (struct cv_usage){0};
            user = sqlite3_column_int64(rows, 0);
            (void)snprintf(tunnel, sizeof tunnel, "%s", name ? name : "");
        }
        status = history_take_row(db, rows, 2, sum, error);
    }
    (void)sqlite3_finalize(rows);
    return status;
}

static struct cv_status remove_rows(struct cv_history_db *db, const char *sql, int64_t from_s,
                                    int64_t to_s, struct cv_error *error)
{
    sqlite3_stmt *statement;
    bool has_row;
    CV_RETURN_IF_ERROR(history_prepare(db, sql, &statement, error));
    (void)sqlite3_bind_int64(statement, 1, from_s);
    (void)sqlite3_bind_int64(statement, 2, to_s);
    struct cv_status status = history_step(db, statement, &has_row, error);
    (void)sqlite3_finalize(statement);
    db->has_removed = true;
    return status;
}

static struct cv_status roll_up(struct cv_history_db *db, int64_t hour_s, struct cv_error *error)
{
    struct cv_usage *sum = calloc(1, sizeof *sum);
    if (!sum)
        return cv_fail(error, CV_IO, "no memory for the history");
    struct cv_status status = history_begin(db, error);
    if (cv_is_ok(status)) {
        status = add_up(db, hour_s, sum, error);
        if (cv_is_ok(status))
            status = remove_rows(db, "DELETE FROM minute WHERE at >= ? AND at < ?", hour_s,
                                 hour_s + HOUR_S, error);
        status = history_end(db, status, error);
    }
    free(sum);
    return status;
}

static int64_t floor_hour(int64_t at_s)
{
    return at_s - at_s % HOUR_S;
}

static struct cv_status measure(const struct cv_history_db *db, struct cv_history_size *size,
                                struct cv_error *error)
{
    int64_t minutes, hours, pages, unused;
    CV_RETURN_IF_ERROR(history_number(db, "SELECT count(*) FROM minute", 0, &minutes, error));
    CV_RETURN_IF_ERROR(history_number(db, "SELECT count(*) FROM hour", 0, &hours, error));
    CV_RETURN_IF_ERROR(history_number(db, "PRAGMA page_count", 0, &pages, error));
    CV_RETURN_IF_ERROR(history_number(db, "PRAGMA freelist_count", 0, &unused, error));
    *size = (struct cv_history_size){.minutes = (uint64_t)minutes,
                                     .hours = (uint64_t)hours,
                                     .bytes = (uint64_t)(pages - unused) * DB_PAGE_BYTES};
    return cv_ok();
}

struct cv_history_size cv_history_db_size(const struct cv_history_db *db)
{
    struct cv_history_size size = {0};
    (void)measure(db, &size, NULL).id;
    return size;
}

static struct cv_status remove_unused_users(struct cv_history_db *db, struct cv_error *error)
{
    char sql[64];
    db->has_removed = false;
    CV_RETURN_IF_ERROR(
        history_exec(db,
                     "DELETE FROM user WHERE"
                     " NOT EXISTS (SELECT 1 FROM minute WHERE minute.user = user.id) AND"
                     " NOT EXISTS (SELECT 1 FROM hour WHERE hour.user = user.id)",
                     error));
    (void)snprintf(sql, sizeof sql, "PRAGMA incremental_vacuum(%d)", DB_VACUUM_PAGES);
    return history_exec(db, sql, error);
}

/* The oldest of what is too much; nothing is left to take when both are empty. */
static struct cv_status shrink(struct cv_history_db *db, int64_t now_s, int64_t minute_s,
                               int64_t hour_s, struct cv_error *error)
{
    if (minute_s >= 0 && floor_hour(minute_s) < floor_hour(now_s))
        return roll_up(db, floor_hour(minute_s), error);
    if (hour_s >= 0)
        return remove_rows(db, "DELETE FROM hour WHERE at >= ? AND at <= ?", 0, hour_s, error);
    return remove_rows(db, "DELETE FROM minute WHERE at >= ? AND at <= ?", 0, minute_s, error);
}

struct cv_status cv_history_db_tidy(struct cv_history_db *db, int64_t now_s, bool *is_more,
                                    struct cv_error *error)
{
    int64_t minute_s, hour_s;
    struct cv_history_size size;
    *is_more = true;
    CV_RETURN_IF_ERROR(history_number(db, "SELECT min(at) FROM minute", -1, &minute_s, error));
    CV_RETURN_IF_ERROR(history_number(db, "SELECT min(at) FROM hour", -1, &hour_s, error));
    int64_t minutes_from_s = floor_hour(now_s - (int64_t)db->limits.minutes_for_s);
    if (minute_s >= 0 && minute_s < minutes_from_s)
        return roll_up(db, floor_hour(minute_s), error);
    int64_t hours_from_s = now_s - (int64_t)db->limits.hours_for_s;
    if (hour_s >= 0 && hour_s < hours_from_s)
        return remove_rows(db, "DELETE FROM hour WHERE at >= ? AND at < ?", 0, hours_from_s, error);
    CV_RETURN_IF_ERROR(measure(db, &size, error));
    bool is_large = size.minutes + size.hours > db->limits.max_rows ||
                    size.bytes > db->limits.max_bytes / 4 * 3;
    if (is_large && (minute_s >= 0 || hour_s >= 0))
        return shrink(db, now_s, minute_s, hour_s, error);
    *is_more = false;
    return db->has_removed ? remove_unused_users(db, error) : cv_ok();
}
