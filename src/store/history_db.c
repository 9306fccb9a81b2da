/* SPDX-License-Identifier: MIT
 *
 * Happy path: open → write each minute → read → close; history_db_tidy.c keeps it small. Ways it
 * fails: the file is damaged (CV_INVALID, whatever was asked), cannot be used (CV_IO); a
 * transaction that fails is taken back.
 */
#include "store/history_db_private.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    DB_VERSION = 1,
    DB_APPLICATION = 0x43564831, /* "CVH1" */
    DB_BUSY_MS = 2000,
    DB_READ_MS = 2000,
    DB_READ_STEPS = 2000, /* of SQLite's machine, between looks at the clock */
};

/* Where the numbers begin in a row of `get` and of a read. */
enum { COLUMN_AT = 0, COLUMN_COUNTS = 1 };

struct span {
    const char *table;
    unsigned seconds;
};

static const struct span spans[SPANS] = {{"minute", MINUTE_S}, {"hour", HOUR_S}};

#define COLUMN_TYPE(name, column, ...) column " INTEGER NOT NULL, "
#define PLACE(...) "?, "
#define PLACES CV_USAGE_COUNTS(PLACE) "?, ?"

#define TABLE(name)                                                                                \
    "CREATE TABLE " name                                                                           \
    " (user INTEGER NOT NULL, tunnel TEXT NOT NULL, at INTEGER NOT NULL, " CV_USAGE_COUNTS(        \
        COLUMN_TYPE) "latency BLOB NOT NULL, first_byte BLOB NOT NULL, "                           \
                     "PRIMARY KEY (user, tunnel, at)) WITHOUT ROWID;"                              \
                     "CREATE INDEX " name "_at ON " name " (at);"

/* User 0 with tunnel '' is the whole relay. */
static const char schema[] =
    "CREATE TABLE user (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, subject TEXT NOT NULL);"
    "CREATE INDEX user_subject ON user (subject);" TABLE("minute") TABLE("hour");

/* ---- errors ---- */

static struct cv_status fail(const struct cv_history_db *db, int code, const char *what,
                             struct cv_error *error)
{
    int sys_errno = db->sqlite ? sqlite3_system_errno(db->sqlite) : 0;
    int primary = code & 0xff;
    if (primary == SQLITE_CORRUPT || primary == SQLITE_NOTADB)
        return cv_fail(error, CV_INVALID, "%s: %s", what, sqlite3_errstr(code));
    if (primary == SQLITE_INTERRUPT)
        return cv_fail(error, CV_TIMEOUT_TOTAL, "%s took too long", what);
    if (sys_errno && primary != SQLITE_FULL)
        return cv_fail_errno(error, CV_IO, sys_errno, "%s: %s", what, sqlite3_errstr(code));
    return cv_fail(error, CV_IO, "%s: %s", what, sqlite3_errstr(code));
}

struct cv_status history_exec(const struct cv_history_db *db, const char *sql,
                              struct cv_error *error)
{
    int code = sqlite3_exec(db->sqlite, sql, NULL, NULL, NULL);
    return code == SQLITE_OK ? cv_ok() : fail(db, code, "the history", error);
}

struct cv_status history_prepare(const struct cv_history_db *db, const char *sql,
                                 sqlite3_stmt **statement, struct cv_error *error)
{
    int code = sqlite3_prepare_v3(db->sqlite, sql, -1, 0, statement, NULL);
    return code == SQLITE_OK ? cv_ok() : fail(db, code, "the history", error);
}

/* Runs a statement that gives at most one row; *has_row: it stands there until the reset. */
struct cv_status history_step(const struct cv_history_db *db, sqlite3_stmt *statement,
                              bool *has_row, struct cv_error *error)
{
    int code = sqlite3_step(statement);
    *has_row = code == SQLITE_ROW;
    if (code == SQLITE_ROW || code == SQLITE_DONE)
        return cv_ok();
    (void)sqlite3_reset(statement);
    return fail(db, code, "the history", error);
}

/* The first number of a query's first row; `fallback` where it is none. */
struct cv_status history_number(const struct cv_history_db *db, const char *sql, int64_t fallback,
                                int64_t *value, struct cv_error *error)
{
    sqlite3_stmt *statement;
    bool has_row;
    *value = fallback;
    CV_RETURN_IF_ERROR(history_prepare(db, sql, &statement, error));
    struct cv_status status = history_step(db, statement, &has_row, error);
    if (cv_is_ok(status) && has_row && sqlite3_column_type(statement, 0) == SQLITE_INTEGER)
        *value = sqlite3_column_int64(statement, 0);
    (void)sqlite3_finalize(statement);
    return status;
}

/* ---- opening ---- */

/* Ours, with 0600: what SQLite makes beside it gets the same rights. */
static struct cv_status make_file(const char *path, struct cv_error *error)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return cv_fail_errno(error, CV_IO, errno, "cannot open %s", path);
    (void)close(fd);
    return cv_ok();
}

struct cv_status history_begin(const struct cv_history_db *db, struct cv_error *error)
{
    return history_exec(db, "BEGIN IMMEDIATE", error);
}

/* Ends the transaction, the good way if `status` is good. */
struct cv_status history_end(const struct cv_history_db *db, struct cv_status status,
                             struct cv_error *error)
{
    if (cv_is_ok(status))
        status = history_exec(db, "COMMIT", error);
    if (!cv_is_ok(status) && !sqlite3_get_autocommit(db->sqlite))
        (void)sqlite3_exec(db->sqlite, "ROLLBACK", NULL, NULL, NULL);
    return status;
}

/* A new file gets its tables, another one is looked at. */
static struct cv_status check_schema(const struct cv_history_db *db, struct cv_error *error)
{
    int64_t application, version, tables;
    CV_RETURN_IF_ERROR(history_number(db, "PRAGMA application_id", 0, &application, error));
    CV_RETURN_IF_ERROR(history_number(db, "PRAGMA user_version", 0, &version, error));
    CV_RETURN_IF_ERROR(history_number(db, "SELECT count(*) FROM sqlite_schema", 0, &tables, error));
    if (application == DB_APPLICATION && version == DB_VERSION)
        return cv_ok();
    if (application == DB_APPLICATION)
        return cv_fail(error, CV_CONFIG, "%s was made by another version (%lld)", db->path,
                       (long long)version);
    if (tables)
        return cv_fail(error, CV_CONFIG, "%s is another program's database", db->path);
    char pragmas[128];
    (void)snprintf(pragmas, sizeof pragmas, "PRAGMA application_id = %d; PRAGMA user_version = %d",
                   DB_APPLICATION, DB_VERSION);
    CV_RETURN_IF_ERROR(history_exec(db, schema, error));
    return history_exec(db, pragmas, error);
}

static struct cv_status prepare_all(struct cv_history_db *db, struct cv_error *error)
{
    char sql[2048];
    for (unsigned i = 0; i < SPANS; i++) {
        (void)snprintf(sql, sizeof sql,
                       "SELECT at, " COLUMNS " FROM %s WHERE user = ? AND tunnel = ? AND at = ?",
                       spans[i].table);
        CV_RETURN_IF_ERROR(history_prepare(db, sql, &db->get[i], error));
        (void)snprintf(sql, sizeof sql,
                       "INSERT OR REPLACE INTO %s (user, tunnel, at, " COLUMNS
                       ") VALUES (?, ?, ?, " PLACES ")",
                       spans[i].table);
        CV_RETURN_IF_ERROR(history_prepare(db, sql, &db->put[i], error));
    }
    CV_RETURN_IF_ERROR(history_prepare(
        db, "INSERT OR IGNORE INTO user (key, subject) VALUES (?, ?)", &db->add_user, error));
    return history_prepare(db, "SELECT id FROM user WHERE key = ?", &db->find_user, error);
}

static struct cv_status set_up(struct cv_history_db *db, struct cv_error *error)
{
    char sql[512];
    int defensive;
    (void)sqlite3_extended_result_codes(db->sqlite, 1);
    (void)sqlite3_busy_timeout(db->sqlite, DB_BUSY_MS);
    (void)sqlite3_db_config(db->sqlite, SQLITE_DBCONFIG_DEFENSIVE, 1, &defensive);
    (void)snprintf(sql, sizeof sql,
                   "PRAGMA page_size = %d; PRAGMA auto_vacuum = INCREMENTAL;"
                   "PRAGMA trusted_schema = OFF; PRAGMA cell_size_check = ON;"
                   "PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL;"
                   "PRAGMA journal_size_limit = 4194304; PRAGMA cache_size = -2048;"
                   "PRAGMA temp_store = MEMORY; PRAGMA max_page_count = %llu",
                   DB_PAGE_BYTES, (unsigned long long)db->limits.max_bytes / DB_PAGE_BYTES);
    CV_RETURN_IF_ERROR(history_exec(db, sql, error));
    CV_RETURN_IF_ERROR(history_begin(db, error));
    CV_RETURN_IF_ERROR(history_end(db, check_schema(db, error), error));
    return prepare_all(db, error);
}

struct cv_status cv_history_db_open(const char *path, const struct cv_history_limits *limits,
                                    struct cv_history_db **out, struct cv_error *error)
{
    struct stat about;
    *out = NULL;
    CV_RETURN_IF_ERROR(make_file(path, error));
    struct cv_history_db *db = calloc(1, sizeof *db);
    if (!db)
        return cv_fail(error, CV_IO, "no memory for the history");
    db->limits = *limits;
    db->path = strdup(path);
    cv_buf_init(&db->latency, CV_SKETCH_TEXT_MAX);
    cv_buf_init(&db->first_byte, CV_SKETCH_TEXT_MAX);
    struct cv_status status = cv_ok();
    if (!db->path)
        status = cv_fail(error, CV_IO, "no memory for the history");
    int code = cv_is_ok(status)
                   ? sqlite3_open_v2(
                         path, &db->sqlite,
                         SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_NOFOLLOW, NULL)
                   : SQLITE_OK;
    if (code != SQLITE_OK)
        status = fail(db, code, "the history cannot be opened", error);
    if (cv_is_ok(status))
        status = set_up(db, error);
    if (cv_is_ok(status) && stat(path, &about) != 0)
        status = cv_fail_errno(error, CV_IO, errno, "cannot look at %s", path);
    if (!cv_is_ok(status)) {
        cv_history_db_close(&db);
        return status;
    }
    db->device = about.st_dev;
    db->inode = about.st_ino;
    *out = db;
    return cv_ok();
}

void cv_history_db_close(struct cv_history_db **out)
{
    struct cv_history_db *db = *out;
    if (!db)
        return;
    *out = NULL;
    for (unsigned i = 0; i < SPANS; i++) {
        (void)sqlite3_finalize(db->get[i]);
        (void)sqlite3_finalize(db->put[i]);
    }
    (void)sqlite3_finalize(db->add_user);
    (void)sqlite3_finalize(db->find_user);
    (void)sqlite3_close_v2(db->sqlite);
    cv_buf_done(&db->latency);
    cv_buf_done(&db->first_byte);
    free(db->path);
    free(db);
}

struct cv_status cv_history_db_set_aside(const char *path, struct cv_error *error)
{
    static const char *const parts[] = {"-wal", "-shm"};
    char name[4096 + 16];
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        (void)snprintf(name, sizeof name, "%s%s", path, parts[i]);
        (void)unlink(name);
    }
    (void)snprintf(name, sizeof name, "%s.broken", path);
    if (rename(path, name) != 0)
        return cv_fail_errno(error, CV_IO, errno, "cannot rename %s", path);
    return cv_ok();
}

bool cv_history_db_is_there(const struct cv_history_db *db)
{
    struct stat about;
    return stat(db->path, &about) == 0 && about.st_dev == db->device && about.st_ino == db->inode;
}

/* ---- rows ---- */

static struct cv_status invalid(const struct cv_history_db *db, struct cv_error *error)
{
    return cv_fail(error, CV_INVALID, "%s: a row makes no sense", db->path);
}

/* Adds the row at which the statement stands to *usage. */
struct cv_status history_take_row(const struct cv_history_db *db, sqlite3_stmt *row, int first,
                                  struct cv_usage *usage, struct cv_error *error)
{
    for (int i = 0; i < CV_USAGE_COUNT; i++) {
        sqlite3_int64 value = sqlite3_column_int64(row, first + i);
        if (value < 0)
            return invalid(db, error);
        uint64_t *count = &usage->counts[i];
        *count = *count > UINT64_MAX - (uint64_t)value ? UINT64_MAX : *count + (uint64_t)value;
    }
    struct cv_sketch *const sketches[] = {&usage->latency, &usage->first_byte};
    for (int i = 0; i < 2; i++) {
        int column = first + CV_USAGE_COUNT + i;
        const void *data = sqlite3_column_blob(row, column);
        int len = sqlite3_column_bytes(row, column);
        if (!cv_is_ok(cv_sketch_read(sketches[i], cv_slice(data, (size_t)len))))
            return invalid(db, error);
    }
    return cv_ok();
}

static void bind_key(sqlite3_stmt *statement, int64_t user, const char *tunnel, int64_t at_s)
{
    (void)sqlite3_bind_int64(statement, 1, user);
    (void)sqlite3_bind_text(statement, 2, tunnel, -1, SQLITE_TRANSIENT);
    (void)sqlite3_bind_int64(statement, 3, at_s);
}

static bool bind_sketch(sqlite3_stmt *statement, int at, const struct cv_sketch *sketch,
                        struct cv_buf *scratch)
{
    cv_buf_consume(scratch, cv_buf_len(scratch));
    return cv_is_ok(cv_sketch_write(sketch, scratch)) &&
           sqlite3_bind_blob(statement, at, cv_buf_head(scratch), (int)cv_buf_len(scratch),
                             SQLITE_STATIC) == SQLITE_OK;
}

/* Adds `usage` to what stands there. */
struct cv_status history_put_row(struct cv_history_db *db, enum history_span span, int64_t user,
                                 const char *tunnel, int64_t at_s, const struct cv_usage *usage,
                                 struct cv_error *error)
{
    sqlite3_stmt *get = db->get[span], *put = db->put[span];
    bool has_row;
    bind_key(get, user, tunnel, at_s);
    CV_RETURN_IF_ERROR(history_step(db, get, &has_row, error));
    if (has_row) {
        db->row = *usage;
        struct cv_status status = history_take_row(db, get, COLUMN_COUNTS, &db->row, error);
        if (!cv_is_ok(status)) {
            (void)sqlite3_reset(get);
            return status;
        }
        usage = &db->row;
    }
    (void)sqlite3_reset(get);
    bind_key(put, user, tunnel, at_s);
    for (int i = 0; i < CV_USAGE_COUNT; i++) {
        uint64_t value = usage->counts[i];
        (void)sqlite3_bind_int64(put, 4 + i, value > INT64_MAX ? INT64_MAX : (int64_t)value);
    }
    if (!bind_sketch(put, 4 + CV_USAGE_COUNT, &usage->latency, &db->latency) ||
        !bind_sketch(put, 5 + CV_USAGE_COUNT, &usage->first_byte, &db->first_byte))
        return cv_fail(error, CV_IO, "no memory for the history");
    CV_RETURN_IF_ERROR(history_step(db, put, &has_row, error));
    (void)sqlite3_reset(put);
    return cv_ok();
}

static struct cv_status user_id(struct cv_history_db *db, const struct cv_usage_entry *entry,
                                int64_t *id, struct cv_error *error)
{
    bool has_row;
    sqlite3_stmt *add = db->add_user, *find = db->find_user;
    (void)sqlite3_bind_blob(add, 1, entry->key->user, CV_USAGE_USER_LEN, SQLITE_STATIC);
    (void)sqlite3_bind_text(add, 2, entry->subject, -1, SQLITE_STATIC);
    CV_RETURN_IF_ERROR(history_step(db, add, &has_row, error));
    (void)sqlite3_reset(add);
    (void)sqlite3_bind_blob(find, 1, entry->key->user, CV_USAGE_USER_LEN, SQLITE_STATIC);
    CV_RETURN_IF_ERROR(history_step(db, find, &has_row, error));
    *id = has_row ? sqlite3_column_int64(find, 0) : 0;
    (void)sqlite3_reset(find);
    return *id > 0 ? cv_ok() : invalid(db, error);
}

struct writing {
    struct cv_history_db *db;
    int64_t at_s;
    struct cv_status status;
    struct cv_error *error;
};

static bool write_entry(void *arg, const struct cv_usage_entry *entry)
{
    struct writing *w = arg;
    int64_t id;
    w->status = user_id(w->db, entry, &id, w->error);
    if (cv_is_ok(w->status))
        w->status = history_put_row(w->db, MINUTES, id, entry->key->tunnel, w->at_s, entry->usage,
                                    w->error);
    return cv_is_ok(w->status);
}

struct cv_status cv_history_db_write(struct cv_history_db *db, const struct cv_usage_table *table,
                                     struct cv_error *error)
{
    struct writing w = {.db = db,
                        .at_s = cv_usage_table_minute(table) * MINUTE_S,
                        .status = cv_ok(),
                        .error = error};
    struct cv_usage *sum = calloc(1, sizeof *sum);
    if (!sum)
        return cv_fail(error, CV_IO, "no memory for the history");
    cv_usage_table_sum(table, sum);
    struct cv_status status = history_begin(db, error);
    if (cv_is_ok(status)) {
        if (cv_usage_table_each(table, write_entry, &w))
            w.status = history_put_row(db, MINUTES, 0, "", w.at_s, sum, error);
        status = history_end(db, w.status, error);
    }
    free(sum);
    return status;
}

/* ---- reading ---- */

static uint64_t clock_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static int is_over(void *arg)
{
    const struct cv_history_db *db = arg;
    return clock_ms() >= db->read_due_ms;
}

static const char *where_of(const struct cv_history_scope *scope)
{
    bool is_one = scope->tunnel[0] != '\0';
    switch (scope->whose) {
    case CV_HISTORY_USER:
        return is_one ? "user = (SELECT id FROM user WHERE key = ?3) AND tunnel = ?4"
                      : "user = (SELECT id FROM user WHERE key = ?3)";
    case CV_HISTORY_SUBJECT:
        return is_one ? "user IN (SELECT id FROM user WHERE subject = ?5) AND tunnel = ?4"
                      : "user IN (SELECT id FROM user WHERE subject = ?5)";
    case CV_HISTORY_RELAY:
        break;
    }
    return is_one ? "user > 0 AND tunnel = ?4" : "user = 0 AND tunnel = ''";
}

static struct cv_status
read_span(struct cv_history_db *db, unsigned span, const struct cv_history_scope *scope,
          int64_t from_s, int64_t to_s,
          void (*on_row)(void *arg, int64_t at_s, unsigned span_s, const struct cv_usage *usage),
          void *arg, struct cv_error *error)
{
    char sql[2048];
    sqlite3_stmt *rows;
    (void)snprintf(sql, sizeof sql,
                   "SELECT at, " COLUMNS " FROM %s WHERE at >= ?1 AND at < ?2 AND %s",
                   spans[span].table, where_of(scope));
    CV_RETURN_IF_ERROR(history_prepare(db, sql, &rows, error));
    (void)sqlite3_bind_int64(rows, 1, from_s);
    (void)sqlite3_bind_int64(rows, 2, to_s);
    (void)sqlite3_bind_blob(rows, 3, scope->user, sizeof scope->user, SQLITE_STATIC);
    (void)sqlite3_bind_text(rows, 4, scope->tunnel, -1, SQLITE_STATIC);
    (void)sqlite3_bind_text(rows, 5, scope->subject, -1, SQLITE_STATIC);
    struct cv_status status = cv_ok();
    for (bool has_row = true; cv_is_ok(status) && has_row;) {
        status = history_step(db, rows, &has_row, error);
        if (!cv_is_ok(status) || !has_row)
            break;
        db->row = (struct cv_usage){0};
        status = history_take_row(db, rows, COLUMN_COUNTS, &db->row, error);
        if (cv_is_ok(status))
            on_row(arg, sqlite3_column_int64(rows, COLUMN_AT), spans[span].seconds, &db->row);
    }
    (void)sqlite3_finalize(rows);
    return status;
}

struct cv_status cv_history_db_read(struct cv_history_db *db, const struct cv_history_scope *scope,
                                    int64_t from_s, int64_t to_s,
                                    void (*on_row)(void *arg, int64_t at_s, unsigned span_s,
                                                   const struct cv_usage *usage),
                                    void *arg, struct cv_error *error)
{
    struct cv_status status = cv_ok();
    db->read_due_ms = clock_ms() + DB_READ_MS;
    sqlite3_progress_handler(db->sqlite, DB_READ_STEPS, is_over, db);
    for (unsigned i = 0; i < SPANS && cv_is_ok(status); i++)
        status = read_span(db, i, scope, from_s, to_s, on_row, arg, error);
    sqlite3_progress_handler(db->sqlite, 0, NULL, NULL);
    return status;
}
