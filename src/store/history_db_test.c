/* SPDX-License-Identifier: MIT
 *
 * The file of the history in virtual time: weeks of minutes pass in seconds.
 */
#include "base/test.h"
#include "store/history_db.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HOUR_S = 3600, DAY_S = 24 * HOUR_S, START_S = 480000 * HOUR_S };

struct bench {
    char folder[64], path[80];
    struct cv_history_limits limits;
    struct cv_history_db *db;
};

static void reopen(struct bench *b)
{
    cv_history_db_close(&b->db);
    assert_ok(cv_history_db_open(b->path, &b->limits, &b->db, NULL));
}

static int setup(void **state)
{
    struct bench *b = calloc(1, sizeof *b);
    assert_non_null(b);
    (void)snprintf(b->folder, sizeof b->folder, "/tmp/culvert-history-XXXXXX");
    assert_non_null(mkdtemp(b->folder));
    (void)snprintf(b->path, sizeof b->path, "%s/history.db", b->folder);
    b->limits = (struct cv_history_limits){.minutes_for_s = 7 * DAY_S,
                                           .hours_for_s = 90 * DAY_S,
                                           .max_rows = 1000000,
                                           .max_bytes = 64 << 20};
    reopen(b);
    *state = b;
    return 0;
}

static int teardown(void **state)
{
    static const char *const ends[] = {"", "-wal", "-shm", ".broken"};
    struct bench *b = *state;
    cv_history_db_close(&b->db);
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        char name[120];
        (void)snprintf(name, sizeof name, "%s%s", b->path, ends[i]);
        (void)unlink(name);
    }
    assert_int_equal(rmdir(b->folder), 0);
    free(b);
    return 0;
}

static void count(struct cv_usage_table *table, uint8_t user, const char *tunnel, uint64_t us)
{
    uint8_t bytes[CV_USAGE_USER_LEN] = {user};
    char subject[8];
    struct cv_usage_key key;
    cv_usage_key_init(&key, bytes, tunnel);
    (void)snprintf(subject, sizeof subject, "user%u", user);
    cv_usage_note(
        cv_usage_table_at(table, &key, subject),
        &(struct cv_usage_request){
            .status = 200, .latency_us = us, .has_first_byte = true, .first_byte_us = us});
}

/* One request of user 1 at `at_s`, which took `us`. */
static struct cv_status write_one(struct bench *b, int64_t at_s, uint64_t us,
                                  struct cv_error *error)
{
    struct cv_usage_table *table = cv_usage_table_new(at_s / 60, 100);
    assert_non_null(table);
    count(table, 1, "home", us);
    struct cv_status status = cv_history_db_write(b->db, table, error);
    cv_usage_table_free(&table);
    return status;
}

static void tidy_all(struct bench *b, int64_t now_s)
{
    bool is_more = true;
    for (int i = 0; is_more; i++) {
        assert_true(i < 10000);
        assert_ok(cv_history_db_tidy(b->db, now_s, &is_more, NULL));
    }
}

struct seen {
    struct cv_usage sum;
    unsigned rows, hour_rows;
    int64_t first_s, last_s;
};

static void see(void *arg, int64_t at_s, unsigned span_s, const struct cv_usage *usage)
{
    struct seen *seen = arg;
    cv_usage_merge(&seen->sum, usage);
    seen->hour_rows += span_s == HOUR_S;
    seen->first_s = seen->rows == 0 || at_s < seen->first_s ? at_s : seen->first_s;
    seen->last_s = at_s > seen->last_s ? at_s : seen->last_s;
    seen->rows++;
}

static struct seen *read_all(struct bench *b, const struct cv_history_scope *scope, int64_t from_s,
                             int64_t to_s)
{
    struct seen *seen = calloc(1, sizeof *seen);
    assert_non_null(seen);
    assert_ok(cv_history_db_read(b->db, scope, from_s, to_s, see, seen, NULL));
    return seen;
}

static const struct cv_history_scope everything = {.whose = CV_HISTORY_RELAY};

/* ---- rows ---- */

static void rows_are_of_a_user_a_tunnel_and_the_whole(void **state)
{
    static const struct {
        struct cv_history_scope scope;
        unsigned rows, requests;
    } rows[] = {
        {{.whose = CV_HISTORY_RELAY}, 1, 6},
        {{.whose = CV_HISTORY_RELAY, .tunnel = "home"}, 2, 5},
        {{.whose = CV_HISTORY_USER, .user = {1}}, 2, 3},
        {{.whose = CV_HISTORY_USER, .user = {1}, .tunnel = "lab"}, 1, 1},
        {{.whose = CV_HISTORY_USER, .user = {2}, .tunnel = "lab"}, 0, 0},
        {{.whose = CV_HISTORY_USER, .user = {3}}, 0, 0},
        {{.whose = CV_HISTORY_SUBJECT, .subject = "user2"}, 1, 3},
        {{.whose = CV_HISTORY_SUBJECT, .subject = "user2", .tunnel = "home"}, 1, 3},
        {{.whose = CV_HISTORY_SUBJECT, .subject = "' OR 1=1 --"}, 0, 0},
    };
    struct bench *b = *state;
    struct cv_usage_table *table = cv_usage_table_new(START_S / 60, 100);
    for (int i = 0; i < 2; i++)
        count(table, 1, "home", 1000);
    count(table, 1, "lab", 1000);
    for (int i = 0; i < 3; i++)
        count(table, 2, "home", 1000);
    assert_ok(cv_history_db_write(b->db, table, NULL));
    cv_usage_table_free(&table);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct seen *seen = read_all(b, &rows[i].scope, START_S, START_S + 60);
        assert_int_equal(seen->rows, rows[i].rows);
        assert_int_equal(seen->sum.counts[CV_USAGE_REQUESTS], rows[i].requests);
        free(seen);
        free(read_all(b, &rows[i].scope, START_S + 60, START_S + 120));
    }
}

static void the_same_minute_twice_adds_up(void **state)
{
    struct bench *b = *state;
    assert_ok(write_one(b, START_S, 1000, NULL));
    reopen(b);
    assert_ok(write_one(b, START_S + 59, 5000, NULL));
    struct seen *seen = read_all(b, &everything, START_S, START_S + 60);
    assert_int_equal(seen->rows, 1);
    assert_int_equal(seen->sum.counts[CV_USAGE_REQUESTS], 2);
    assert_int_equal(cv_sketch_count(&seen->sum.latency), 2);
    assert_true(cv_sketch_sum(&seen->sum.latency) == 6000);
    free(seen);
}

static void the_file_is_the_owners_alone(void **state)
{
    struct bench *b = *state;
    struct stat about;
    char wal[100];
    assert_ok(write_one(b, START_S, 1, NULL));
    (void)snprintf(wal, sizeof wal, "%s-wal", b->path);
    assert_int_equal(stat(b->path, &about), 0);
    assert_int_equal(about.st_mode & 0777, 0600);
    assert_int_equal(stat(wal, &about), 0);
    assert_int_equal(about.st_mode & 0777, 0600);
}

static void two_processes_share_it(void **state)
{
    struct bench *b = *state;
    struct bench other = *b;
    other.db = NULL;
    assert_ok(cv_history_db_open(b->path, &b->limits, &other.db, NULL));
    for (int i = 0; i < 20; i++) {
        assert_ok(write_one(b, START_S, 1, NULL));
        assert_ok(write_one(&other, START_S, 1, NULL));
    }
    struct seen *seen = read_all(b, &everything, START_S, START_S + 60);
    assert_int_equal(seen->sum.counts[CV_USAGE_REQUESTS], 40);
    free(seen);
    cv_history_db_close(&other.db);
}

/* ---- time ---- */

static void minutes_become_hours_and_hours_go(void **state)
{
    struct bench *b = *state;
    const int64_t hours = 10 * 24;
    for (int64_t hour = 0; hour < hours; hour++)
        for (int minute = 0; minute < 60; minute += 20)
            assert_ok(write_one(b, START_S + hour * HOUR_S + minute * 60,
                                (uint64_t)(minute + 1) * 1000, NULL));
    int64_t now_s = START_S + hours * HOUR_S + 60;
    tidy_all(b, now_s);
    struct cv_history_size size = cv_history_db_size(b->db);
    /* A row for the user and one for the relay. */
    assert_int_equal(size.minutes, 2 * 7 * 24 * 3);
    assert_int_equal(size.hours, 2 * 3 * 24);
    struct seen *seen = read_all(b, &everything, 0, now_s);
    assert_int_equal(seen->sum.counts[CV_USAGE_REQUESTS], hours * 3);
    assert_int_equal(seen->hour_rows, 3 * 24);
    assert_int_equal(cv_sketch_count(&seen->sum.first_byte), hours * 3);
    free(seen);
    /* A percentile of an hour is that of its requests, not a mean of percentiles. */
    seen = read_all(b, &everything, START_S, START_S + HOUR_S);
    assert_int_equal(seen->rows, 1);
    assert_in_range(cv_sketch_quantile(&seen->sum.latency, 0.5), 21000 * 97 / 100,
                    21000 * 103 / 100);
    assert_in_range(cv_sketch_quantile(&seen->sum.latency, 1), 41000 * 97 / 100, 41000 * 103 / 100);
    free(seen);
    tidy_all(b, now_s); /* nothing more is due */
    assert_int_equal(cv_history_db_size(b->db).hours, 2 * 3 * 24);
    /* 95 days later all but nothing is left, and nobody is known. */
    tidy_all(b, START_S + 120 * DAY_S);
    size = cv_history_db_size(b->db);
    assert_int_equal(size.minutes + size.hours, 0);
}

static void the_minute_at_the_border_is_kept_with_its_hour(void **state)
{
    struct bench *b = *state;
    assert_ok(write_one(b, START_S, 1, NULL));
    tidy_all(b, START_S + 7 * DAY_S + HOUR_S - 1);
    assert_int_equal(cv_history_db_size(b->db).minutes, 2);
    tidy_all(b, START_S + 7 * DAY_S + HOUR_S);
    assert_int_equal(cv_history_db_size(b->db).minutes, 0);
    assert_int_equal(cv_history_db_size(b->db).hours, 2);
}

/* ---- bounds ---- */

static void too_many_rows_lose_the_oldest(void **state)
{
    struct bench *b = *state;
    b->limits.max_rows = 300;
    reopen(b);
    for (int minute = 0; minute < 600; minute++) {
        assert_ok(write_one(b, START_S + minute * 60, 1, NULL));
        tidy_all(b, START_S + minute * 60 + 60);
        struct cv_history_size size = cv_history_db_size(b->db);
        assert_true(size.minutes + size.hours <= 300);
    }
    struct seen *seen = read_all(b, &everything, 0, START_S + DAY_S);
    assert_int_equal(seen->sum.counts[CV_USAGE_REQUESTS], 600); /* hours hold them all */
    free(seen);
    b->limits.max_rows = 10;
    reopen(b);
    tidy_all(b, START_S + 10 * HOUR_S);
    seen = read_all(b, &everything, 0, START_S + DAY_S);
    assert_true(seen->rows >= 4 && seen->first_s > START_S);
    assert_int_equal(seen->last_s, START_S + 9 * HOUR_S);
    free(seen);
}

static void the_file_never_grows_beyond_its_size(void **state)
{
    struct bench *b = *state;
    struct stat about;
    unsigned refused = 0;
    b->limits.max_bytes = 1 << 20;
    reopen(b);
    for (int minute = 0; minute < 60; minute++) {
        struct cv_usage_table *table = cv_usage_table_new(START_S / 60 + minute, 1000);
        for (uint8_t user = 0; user < 250; user++)
            count(table, user, "home", (uint64_t)user * 1000);
        refused += !cv_is_ok(cv_history_db_write(b->db, table, NULL));
        cv_usage_table_free(&table);
        tidy_all(b, START_S + minute * 60 + 59);
        assert_true(cv_history_db_size(b->db).bytes <= 1 << 20);
    }
    assert_true(refused <= 2);
    reopen(b); /* the log goes into the file */
    assert_int_equal(stat(b->path, &about), 0);
    assert_true(about.st_size <= 1 << 20);
    struct seen *seen = read_all(b, &everything, START_S + 59 * 60, START_S + 60 * 60);
    assert_int_equal(seen->sum.counts[CV_USAGE_REQUESTS], 250); /* the newest is there */
    free(seen);
}

/* ---- damage ---- */

static void put_bytes(const struct bench *b, long at, size_t len)
{
    FILE *file = fopen(b->path, "r+");
    assert_non_null(file);
    assert_int_equal(fseek(file, at, SEEK_SET), 0);
    for (size_t i = 0; i < len; i++)
        assert_int_equal(fputc(0xa5, file), 0xa5);
    assert_int_equal(fclose(file), 0);
}

static void a_damaged_file_is_told_and_set_aside(void **state)
{
    struct bench *b = *state;
    struct cv_error error = {0};
    char broken[100];
    assert_ok(write_one(b, START_S, 1, NULL));
    cv_history_db_close(&b->db);
    put_bytes(b, 0, 4096);
    assert_status(cv_history_db_open(b->path, &b->limits, &b->db, &error), CV_INVALID);
    assert_null(b->db);
    assert_ok(cv_history_db_set_aside(b->path, NULL));
    (void)snprintf(broken, sizeof broken, "%s.broken", b->path);
    assert_int_equal(access(broken, F_OK), 0);
    reopen(b);
    assert_ok(write_one(b, START_S, 1, NULL));
}

static void damage_inside_is_told_by_whoever_meets_it(void **state)
{
    struct bench *b = *state;
    struct stat about;
    bool is_more;
    for (int minute = 0; minute < 300; minute++)
        assert_ok(write_one(b, START_S + minute * 60, (uint64_t)minute * 700, NULL));
    cv_history_db_close(&b->db);
    assert_int_equal(stat(b->path, &about), 0);
    put_bytes(b, 4096, (size_t)about.st_size - 4096);
    struct cv_error error = {0};
    struct cv_status status = cv_history_db_open(b->path, &b->limits, &b->db, &error);
    if (cv_is_ok(status))
        status = write_one(b, START_S, 1, &error);
    if (cv_is_ok(status))
        status = cv_history_db_tidy(b->db, START_S + 30 * DAY_S, &is_more, &error);
    assert_status(status, CV_INVALID);
}

static void what_is_not_ours_is_left_alone(void **state)
{
    struct bench *b = *state;
    struct cv_error error = {0};
    assert_ok(write_one(b, START_S, 1, NULL));
    cv_history_db_close(&b->db);
    FILE *file = fopen(b->path, "r+");
    assert_non_null(file);
    assert_int_equal(fseek(file, 60, SEEK_SET), 0); /* user_version, big-endian */
    assert_int_equal(fwrite("\0\0\0\2", 1, 4, file), 4);
    assert_int_equal(fclose(file), 0);
    assert_status(cv_history_db_open(b->path, &b->limits, &b->db, &error), CV_CONFIG);
    assert_non_null(strstr(error.detail, "another version"));
}

static void a_file_that_was_removed_is_noticed(void **state)
{
    struct bench *b = *state;
    assert_true(cv_history_db_is_there(b->db));
    assert_int_equal(unlink(b->path), 0);
    assert_false(cv_history_db_is_there(b->db));
    FILE *file = fopen(b->path, "w");
    assert_non_null(file);
    assert_int_equal(fclose(file), 0);
    assert_false(cv_history_db_is_there(b->db));
}

static void no_folder_and_links_are_refused(void **state)
{
    struct bench *b = *state;
    struct cv_history_db *db;
    struct cv_error error = {0};
    char path[100];
    (void)snprintf(path, sizeof path, "%s/none/history.db", b->folder);
    assert_status(cv_history_db_open(path, &b->limits, &db, &error), CV_IO);
    (void)snprintf(path, sizeof path, "%s/link", b->folder);
    assert_int_equal(symlink(b->path, path), 0);
    assert_status(cv_history_db_open(path, &b->limits, &db, &error), CV_IO);
    assert_int_equal(unlink(path), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(rows_are_of_a_user_a_tunnel_and_the_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(the_same_minute_twice_adds_up, setup, teardown),
        cmocka_unit_test_setup_teardown(the_file_is_the_owners_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(two_processes_share_it, setup, teardown),
        cmocka_unit_test_setup_teardown(minutes_become_hours_and_hours_go, setup, teardown),
        cmocka_unit_test_setup_teardown(the_minute_at_the_border_is_kept_with_its_hour, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(too_many_rows_lose_the_oldest, setup, teardown),
        cmocka_unit_test_setup_teardown(the_file_never_grows_beyond_its_size, setup, teardown),
        cmocka_unit_test_setup_teardown(a_damaged_file_is_told_and_set_aside, setup, teardown),
        cmocka_unit_test_setup_teardown(damage_inside_is_told_by_whoever_meets_it, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_not_ours_is_left_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(a_file_that_was_removed_is_noticed, setup, teardown),
        cmocka_unit_test_setup_teardown(no_folder_and_links_are_refused, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
