/* SPDX-License-Identifier: MIT
 *
 * Happy path: add → held minutes and sums → work: a minute that has ended goes into the file, is
 * held on for "recent" numbers, then dropped. Ways it fails: the file cannot be opened or written
 * (tried again every RETRY_S, minutes wait); it is damaged (set aside, a new one made); it was
 * removed (made anew); more waits than may be held (the oldest is lost).
 */
#include "store/history_book.h"

#include "telemetry/log.h"

#include <stdlib.h>
#include <utlist.h>

enum {
    RETRY_S = 5,
    LATE_S = 2,          /* workers hand a minute over so long after its end */
    HELD_TIMES = 4,      /* max_series */
    SUMS_QUIET_MIN = 60, /* a sum may go when nothing was added for so many minutes … */
    TIDY_S = 30,         /* between looks whether something is due */
    RECENT_MIN = CV_HISTORY_RECENT_S / 60,
};

/* Numbers of one minute; of a minute there may be several, when some came late. */
struct held {
    struct cv_usage_table *table;
    bool is_written;
    struct held *prev, *next;
};

struct cv_history_book {
    char *path;
    struct cv_history_limits limits;
    size_t max_series;
    struct cv_log *log;
    struct cv_history_db *db;
    struct held *held; /* utlist DL, in the order of coming */
    struct cv_usage_table *sums;
    int64_t retry_s, tidy_s; /* not before */
    uint64_t lost;           /* minutes of the failure that lasts */
    bool is_failing;
};

struct cv_status cv_history_book_new(const struct cv_history_options *options,
                                     struct cv_history_book **out)
{
    struct cv_history_book *book = calloc(1, sizeof *book);
    *out = NULL;
    if (!book)
        return cv_status(CV_NO_MEMORY);
    book->limits = options->limits;
    book->max_series = options->max_series;
    book->log = options->log;
    book->path = options->path ? strdup(options->path) : NULL;
    book->sums = cv_usage_table_new(0, options->max_series);
    if (!book->sums || (options->path && !book->path)) {
        cv_history_book_free(&book);
        return cv_status(CV_NO_MEMORY);
    }
    *out = book;
    return cv_ok();
}

static void drop(struct cv_history_book *book, struct held *held)
{
    DL_DELETE(book->held, held);
    cv_usage_table_free(&held->table);
    free(held);
}

void cv_history_book_free(struct cv_history_book **out)
{
    struct cv_history_book *book = *out;
    if (!book)
        return;
    *out = NULL;
    while (book->held)
        drop(book, book->held);
    cv_usage_table_free(&book->sums);
    cv_history_db_close(&book->db);
    free(book->path);
    free(book);
}

/* ---- what comes ---- */

static size_t held_entries(const struct cv_history_book *book)
{
    size_t count = 0;
    for (const struct held *h = book->held; h; h = h->next)
        count += cv_usage_table_count(h->table);
    return count;
}

/* What is in the file goes first; then, with a word, what is not. */
static void make_room(struct cv_history_book *book)
{
    struct held *held, *next;
    size_t max = HELD_TIMES * book->max_series;
    DL_FOREACH_SAFE(book->held, held, next)
    {
        if (held->is_written && held_entries(book) > max)
            drop(book, held);
    }
    while (book->held && book->held->next && held_entries(book) > max) {
        drop(book, book->held);
        if (book->path && book->lost++ == 0)
            cv_log(book->log, CV_LOG_WARN, "history", "history_lost",
                   "too many minutes wait for the file of the history: the oldest are lost",
                   CV_F_STR("file", book->path));
    }
}

static void add_to_sums(struct cv_history_book *book, const struct cv_usage_table *table)
{
    int64_t minute = cv_usage_table_minute(table);
    cv_usage_table_set_minute(book->sums, minute);
    if (cv_usage_table_count(book->sums) + cv_usage_table_count(table) > book->max_series)
        cv_usage_table_trim(book->sums, minute - SUMS_QUIET_MIN);
    cv_usage_table_merge(book->sums, table);
}

void cv_history_book_add(struct cv_history_book *book, struct cv_usage_table *table, int64_t now_s)
{
    struct held *held;
    int64_t minute = cv_usage_table_minute(table);
    (void)now_s;
    add_to_sums(book, table);
    DL_FOREACH(book->held, held)
    {
        if (!held->is_written && cv_usage_table_minute(held->table) == minute) {
            cv_usage_table_merge(held->table, table);
            cv_usage_table_free(&table);
            make_room(book);
            return;
        }
    }
    held = calloc(1, sizeof *held);
    if (!held) {
        cv_usage_table_free(&table);
        return;
    }
    held->table = table;
    DL_APPEND(book->held, held);
    make_room(book);
}

/* ---- the file ---- */

static void note_failure(struct cv_history_book *book, int64_t now_s, const struct cv_error *error)
{
    cv_history_db_close(&book->db);
    book->retry_s = now_s + RETRY_S;
    book->tidy_s = 0;
    if (!book->is_failing)
        cv_log(book->log, CV_LOG_WARN, "history", "history_unwritable",
               "the history cannot be kept; minutes wait in memory", CV_F_STR("file", book->path),
               CV_F_ERROR(error));
    book->is_failing = true;
}

static void note_success(struct cv_history_book *book)
{
    if (book->is_failing)
        cv_log(book->log, CV_LOG_INFO, "history", "history_writable", "the history is kept again",
               CV_F_STR("file", book->path), CV_F_UINT("lostMinutes", book->lost));
    book->is_failing = false;
    book->lost = 0;
}

static struct cv_status open_file(struct cv_history_book *book, struct cv_error *error)
{
    struct cv_status status = cv_history_db_open(book->path, &book->limits, &book->db, error);
    if (status.id != CV_INVALID)
        return status;
    cv_log(book->log, CV_LOG_WARN, "history", "history_set_aside",
           "the file of the history is damaged: it is kept as FILE.broken, a new one is begun",
           CV_F_STR("file", book->path), CV_F_ERROR(error));
    *error = (struct cv_error){0};
    CV_RETURN_IF_ERROR(cv_history_db_set_aside(book->path, error));
    return cv_history_db_open(book->path, &book->limits, &book->db, error);
}

/* After a failure: what is damaged goes aside at once, the rest is tried again later. */
static void give_up(struct cv_history_book *book, struct cv_status status, int64_t now_s,
                    struct cv_error *error)
{
    if (status.id == CV_INVALID) {
        cv_history_db_close(&book->db);
        book->retry_s = now_s;
        return;
    }
    note_failure(book, now_s, error);
}

/* The file is open and at its place. */
static bool has_file(struct cv_history_book *book, int64_t now_s, bool is_last)
{
    struct cv_error error = {0};
    if (book->db && !cv_history_db_is_there(book->db))
        cv_history_db_close(&book->db);
    if (book->db)
        return true;
    /* A clock that was set back must not make it wait for long. */
    bool is_early = now_s < book->retry_s && book->retry_s - now_s <= RETRY_S;
    if (!book->path || (is_early && !is_last))
        return false;
    struct cv_status status = open_file(book, &error);
    if (!cv_is_ok(status))
        note_failure(book, now_s, &error);
    return cv_is_ok(status);
}

static struct cv_status write_ended(struct cv_history_book *book, int64_t now_s, bool is_last,
                                    struct cv_error *error)
{
    struct held *held;
    DL_FOREACH(book->held, held)
    {
        bool has_ended = (cv_usage_table_minute(held->table) + 1) * 60 + LATE_S <= now_s;
        if (held->is_written || !(has_ended || is_last))
            continue;
        CV_RETURN_IF_ERROR(cv_history_db_write(book->db, held->table, error));
        held->is_written = true;
        note_success(book);
    }
    return cv_ok();
}

static void drop_old(struct cv_history_book *book, int64_t now_s)
{
    struct held *held, *next;
    DL_FOREACH_SAFE(book->held, held, next)
    {
        bool is_recent = cv_usage_table_minute(held->table) >= now_s / 60 - RECENT_MIN;
        if (!is_recent && (held->is_written || !book->path))
            drop(book, held);
    }
}

/* Before anything is written, since that may be for want of room. */
static struct cv_status tidy(struct cv_history_book *book, int64_t now_s, bool *is_more,
                             struct cv_error *error)
{
    *is_more = false;
    if (now_s < book->tidy_s && book->tidy_s - now_s <= TIDY_S)
        return cv_ok();
    CV_RETURN_IF_ERROR(cv_history_db_tidy(book->db, now_s, is_more, error));
    if (!*is_more)
        book->tidy_s = now_s + TIDY_S;
    return cv_ok();
}

bool cv_history_book_work(struct cv_history_book *book, int64_t now_s, bool is_last)
{
    struct cv_error error = {0};
    bool is_more = false;
    if (has_file(book, now_s, is_last)) {
        struct cv_status status = is_last ? cv_ok() : tidy(book, now_s, &is_more, &error);
        if (cv_is_ok(status) && !is_more) {
            status = write_ended(book, now_s, is_last, &error);
            if (cv_is_ok(status))
                note_success(book);
        }
        if (!cv_is_ok(status))
            give_up(book, status, now_s, &error);
        is_more = cv_is_ok(status) ? is_more : status.id == CV_INVALID && !is_last;
    }
    drop_old(book, now_s);
    return is_more;
}

enum cv_history_state cv_history_book_state(const struct cv_history_book *book)
{
    return !book->path ? CV_HISTORY_OFF : book->is_failing ? CV_HISTORY_FAILING : CV_HISTORY_OK;
}

/* ---- answers ---- */

struct filling {
    struct cv_history_series *series;
    int64_t at_s; /* of the table that is looked at */
    bool is_failed;
};

static void fill(struct filling *filling, int64_t at_s, const struct cv_usage *usage)
{
    struct cv_history_series *series = filling->series;
    if (at_s < series->from_s || at_s >= series->to_s)
        return;
    struct cv_usage **point = &series->points[(at_s - series->from_s) / series->step_s];
    if (!*point)
        *point = calloc(1, sizeof **point);
    if (*point)
        cv_usage_merge(*point, usage);
    else
        filling->is_failed = true;
}

static void fill_from_row(void *arg, int64_t at_s, unsigned span_s, const struct cv_usage *usage)
{
    struct filling *filling = arg;
    struct cv_history_series *series = filling->series;
    if (span_s > 60 && at_s + span_s > series->hours_until_s)
        series->hours_until_s = at_s + span_s;
    fill(filling, at_s, usage);
}

static bool is_in(const struct cv_history_scope *scope, const struct cv_usage_entry *entry)
{
    if (scope->tunnel[0] && strcmp(scope->tunnel, entry->key->tunnel) != 0)
        return false;
    return scope->whose == CV_HISTORY_USER
               ? memcmp(scope->user, entry->key->user, sizeof scope->user) == 0
           : scope->whose == CV_HISTORY_SUBJECT ? strcmp(scope->subject, entry->subject) == 0
                                                : true;
}

static bool fill_from_entry(void *arg, const struct cv_usage_entry *entry)
{
    struct filling *filling = arg;
    if (is_in(&filling->series->scope, entry))
        fill(filling, filling->at_s, entry->usage);
    return true;
}

static void fill_from_table(struct filling *filling, const struct cv_usage_table *table)
{
    const struct cv_history_scope *scope = &filling->series->scope;
    filling->at_s = cv_usage_table_minute(table) * 60;
    if (filling->at_s < filling->series->from_s || filling->at_s >= filling->series->to_s)
        return;
    if (scope->whose != CV_HISTORY_RELAY || scope->tunnel[0]) {
        (void)cv_usage_table_each(table, fill_from_entry, filling);
        return;
    }
    struct cv_usage *sum = calloc(1, sizeof *sum);
    if (sum) {
        cv_usage_table_sum(table, sum);
        fill(filling, filling->at_s, sum);
    }
    filling->is_failed |= !sum;
    free(sum);
}

struct cv_status cv_history_book_series(struct cv_history_book *book,
                                        struct cv_history_series *series, struct cv_error *error)
{
    struct filling filling = {.series = series};
    struct cv_status status = cv_ok();
    series->count = (size_t)((series->to_s - series->from_s) / series->step_s);
    series->points = calloc(series->count ? series->count : 1, sizeof(struct cv_usage *));
    series->hours_until_s = 0;
    if (!series->points) {
        series->count = 0;
        return cv_fail(error, CV_NO_MEMORY, "no memory for the answer");
    }
    for (const struct held *h = book->held; h; h = h->next)
        if (!h->is_written || !book->path)
            fill_from_table(&filling, h->table);
    if (book->db)
        status = cv_history_db_read(book->db, &series->scope, series->from_s, series->to_s,
                                    fill_from_row, &filling, error);
    else if (book->path)
        status = cv_fail(error, CV_IO, "the file of the history cannot be read");
    if (status.id == CV_INVALID) { /* the next turn sets it aside */
        cv_history_db_close(&book->db);
        book->retry_s = 0;
        status = cv_status(CV_IO);
    }
    if (cv_is_ok(status) && filling.is_failed)
        status = cv_fail(error, CV_NO_MEMORY, "no memory for the answer");
    return status;
}

void cv_history_series_done(struct cv_history_series *series)
{
    for (size_t i = 0; i < series->count; i++)
        free(series->points[i]);
    free(series->points);
    series->points = NULL;
    series->count = 0;
}

struct choosing {
    const struct cv_history_scope *scope;
    struct cv_usage_table *into;
};

static bool choose(void *arg, const struct cv_usage_entry *entry)
{
    struct choosing *choosing = arg;
    if (is_in(choosing->scope, entry))
        cv_usage_merge(cv_usage_table_at(choosing->into, entry->key, entry->subject), entry->usage);
    return true;
}

struct cv_status cv_history_book_sums(struct cv_history_book *book, struct cv_history_sums *sums,
                                      int64_t now_s)
{
    sums->total = cv_usage_table_new(0, book->max_series);
    sums->recent = cv_usage_table_new(0, book->max_series);
    if (!sums->total || !sums->recent) {
        cv_usage_table_free(&sums->total);
        cv_usage_table_free(&sums->recent);
        return cv_status(CV_NO_MEMORY);
    }
    struct choosing choosing = {.scope = &sums->scope, .into = sums->total};
    (void)cv_usage_table_each(book->sums, choose, &choosing);
    choosing.into = sums->recent;
    for (const struct held *h = book->held; h; h = h->next)
        if (cv_usage_table_minute(h->table) > now_s / 60 - RECENT_MIN)
            (void)cv_usage_table_each(h->table, choose, &choosing);
    return cv_ok();
}
