/* SPDX-License-Identifier: MIT */
#include "base/file.h"
#include "base/test.h"
#include "telemetry/audit.h"
#include "telemetry/audit_file.h"
#include "telemetry/audit_verify.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *doc_path;

struct bench {
    char folder[64], path[80];
};

static int setup(void **state)
{
    struct bench *b = calloc(1, sizeof *b);
    assert_non_null(b);
    (void)snprintf(b->folder, sizeof b->folder, "/tmp/culvert-audit-XXXXXX");
    assert_non_null(mkdtemp(b->folder));
    (void)snprintf(b->path, sizeof b->path, "%s/log", b->folder);
    *state = b;
    return 0;
}

static int teardown(void **state)
{
    struct bench *b = *state;
    char path[128];
    (void)unlink(b->path);
    for (int i = 1; i < 100; i++) {
        (void)snprintf(path, sizeof path, "%s.%d", b->path, i);
        (void)unlink(path);
    }
    assert_int_equal(rmdir(b->folder), 0);
    free(b);
    return 0;
}

static struct cv_audit *open_log(const struct bench *b, unsigned queues, uint64_t max_bytes)
{
    struct cv_audit *audit;
    struct cv_audit_options options = {.path = b->path,
                                       .instance = "test",
                                       .max_bytes = max_bytes,
                                       .sync = CV_AUDIT_SYNC_NEVER,
                                       .classes = ~0U,
                                       .queues = queues};
    assert_ok(cv_audit_new(&options, &audit, NULL));
    return audit;
}

static struct cv_audit_verdict verify(const struct bench *b)
{
    struct cv_audit_verdict verdict = {0};
    assert_ok(cv_audit_verify(b->path, &verdict, NULL));
    return verdict;
}

static void put_some(struct cv_audit_queue *queue, unsigned count)
{
    for (unsigned i = 0; i < count; i++)
        cv_audit(queue, FORWARD, CV_F_STR("userId", "al\"ice\n"), CV_F_STR("absent", NULL),
                 CV_F_INT("number", -3), CV_F_UINT("i", i), CV_F_BOOL("flag", true));
}

/* A log of three records; its bytes are the caller's to free. */
static void write_three(const struct bench *b, struct cv_buf *text)
{
    struct cv_audit *audit = open_log(b, 1, 0);
    put_some(cv_audit_queue(audit, 0), 3);
    cv_audit_free(&audit);
    cv_buf_init(text, 1 << 20);
    assert_ok(cv_file_read(b->path, CV_FILE_PRIVATE, text, NULL));
}

static void records_are_written_as_they_were_put(void **state)
{
    struct bench *b = *state;
    struct cv_buf text;
    write_three(b, &text);
    assert_ok(cv_buf_append_byte(&text, 0));
    assert_non_null(
        strstr((char *)cv_buf_head(&text),
               "\"event\":\"forward\",\"instance\":\"test\",\"userId\":\"al\\\"ice\\n\","
               "\"number\":-3,\"i\":2,\"flag\":true,\"prev\":\""));
    cv_buf_done(&text);
    assert_int_equal(verify(b).records, 3);
}

static void nothing_is_put_without_a_log(void **state)
{
    (void)state;
    assert_null(cv_audit_queue(NULL, 3));
    put_some(NULL, 1);
    assert_int_equal(cv_audit_count(NULL).written, 0);
}

/* Without the sync of cv_file_replace: there are a thousand. */
static void write_file(const struct bench *b, struct cv_slice content)
{
    FILE *file = fopen(b->path, "w");
    assert_non_null(file);
    assert_int_equal(fwrite(content.data, 1, content.len, file), content.len);
    assert_int_equal(fclose(file), 0);
}

/* kill -9 and power cuts: whatever is left of the last writes, the chain goes on behind it. */
static void a_log_cut_at_any_byte_goes_on(void **state)
{
    struct bench *b = *state;
    struct cv_buf text;
    write_three(b, &text);
    for (size_t len = 0; len < cv_buf_len(&text); len++) {
        struct cv_slice left = cv_slice(cv_buf_head(&text), len);
        if (len > 0 && len < 9) /* too little to know it for ours */
            continue;
        write_file(b, left);
        struct cv_audit *audit = open_log(b, 1, 0);
        put_some(cv_audit_queue(audit, 0), 2);
        cv_audit_free(&audit);
        struct cv_audit_verdict verdict = verify(b);
        assert_int_equal(verdict.fault, CV_AUDIT_SOUND);
        assert_int_equal(verdict.first_seq, 1);
        assert_int_equal(verdict.records, verdict.chain.seq);
        assert_false(verdict.is_end_cut);
    }
    cv_buf_done(&text);
}

static void a_record_cut_twice_in_a_row_is_told_of_twice(void **state)
{
    struct bench *b = *state;
    for (int i = 0; i < 3; i++) {
        struct cv_audit *audit = open_log(b, 1, 0);
        put_some(cv_audit_queue(audit, 0), 2);
        cv_audit_free(&audit);
        struct stat st;
        assert_int_equal(stat(b->path, &st), 0);
        assert_int_equal(truncate(b->path, st.st_size - 20), 0);
    }
    struct cv_audit *audit = open_log(b, 1, 0);
    cv_audit_free(&audit);
    struct cv_audit_verdict verdict = verify(b);
    assert_int_equal(verdict.fault, CV_AUDIT_SOUND);
    assert_int_equal(verdict.cut, 3);
}

static void what_is_no_log_is_refused(void **state)
{
    struct bench *b = *state;
    struct cv_audit *audit;
    struct cv_audit_options options = {.path = b->path, .instance = "", .queues = 1};
    assert_ok(cv_file_replace(b->path, cv_slice_str("something else\n"), 0600, NULL));
    assert_status(cv_audit_new(&options, &audit, NULL), CV_CONFIG);
    options.path = b->folder;
    assert_status(cv_audit_new(&options, &audit, NULL), CV_IO);
    options.path = "/nowhere/at/all";
    assert_status(cv_audit_new(&options, &audit, NULL), CV_IO);
}

enum { PRODUCERS = 4, EACH = 20000 };

static void *produce(void *arg)
{
    put_some(arg, EACH);
    return NULL;
}

static void what_many_threads_put_is_there_or_counted(void **state)
{
    struct bench *b = *state;
    struct cv_audit *audit = open_log(b, PRODUCERS, 0);
    pthread_t threads[PRODUCERS];
    for (unsigned i = 0; i < PRODUCERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, produce, cv_audit_queue(audit, i)), 0);
    for (unsigned i = 0; i < PRODUCERS; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    uint64_t lost = cv_audit_count(audit).lost;
    cv_audit_free(&audit);
    struct cv_audit_verdict verdict = verify(b);
    assert_int_equal(verdict.fault, CV_AUDIT_SOUND);
    /* Beside them one record for each time that some were lost. */
    assert_in_range(verdict.records + lost, PRODUCERS * EACH, PRODUCERS * EACH + lost);
}

static void two_logs_on_one_file_make_one_chain(void **state)
{
    struct bench *b = *state;
    struct cv_audit *one = open_log(b, 1, 4096), *two = open_log(b, 1, 4096);
    for (int i = 0; i < 50; i++) {
        put_some(cv_audit_queue(one, 0), 1);
        put_some(cv_audit_queue(two, 0), 1);
        (void)usleep(1000);
    }
    cv_audit_free(&one);
    cv_audit_free(&two);
    struct cv_audit_verdict verdict = {0};
    for (int i = 1; i < 100; i++) {
        char path[128];
        (void)snprintf(path, sizeof path, "%s.%d", b->path, i);
        if (cv_audit_verify(path, &verdict, NULL).id == CV_NOT_FOUND)
            break;
    }
    assert_true(verdict.records > 0);
    (void)cv_audit_verify(b->path, &verdict, NULL);
    assert_int_equal(verdict.fault, CV_AUDIT_SOUND);
    assert_int_equal(verdict.records, 100);
}

static void every_event_is_in_the_documentation(void **state)
{
    (void)state;
    struct cv_buf text;
    cv_buf_init(&text, 1 << 20);
    assert_ok(cv_file_read(doc_path, CV_FILE_ANY, &text, NULL));
    assert_ok(cv_buf_append_byte(&text, 0));
    for (int i = 0; i < CV_AUDIT_EVENT_COUNT; i++) {
        char cell[64];
        (void)snprintf(cell, sizeof cell, "\n| `%s` |",
                       cv_audit_event_name((enum cv_audit_event)i));
        if (!strstr((char *)cv_buf_head(&text), cell))
            fail_msg("docs/audit.md has no %s", cell);
    }
    cv_buf_done(&text);
}

int main(int argc, char **argv)
{
    assert_int_equal(argc, 2);
    doc_path = argv[1];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(records_are_written_as_they_were_put, setup, teardown),
        cmocka_unit_test_setup_teardown(a_log_cut_at_any_byte_goes_on, setup, teardown),
        cmocka_unit_test_setup_teardown(a_record_cut_twice_in_a_row_is_told_of_twice, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(what_is_no_log_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(what_many_threads_put_is_there_or_counted, setup, teardown),
        cmocka_unit_test_setup_teardown(two_logs_on_one_file_make_one_chain, setup, teardown),
        cmocka_unit_test(nothing_is_put_without_a_log),
        cmocka_unit_test(every_event_is_in_the_documentation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
