/* SPDX-License-Identifier: MIT */
#include "base/test.h"
#include "telemetry/log.h"
#include "telemetry/log_line.h"
#include "telemetry/redact.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <sys/socket.h>
#include <unistd.h>

#define JWT "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl"

/* A log into a pipe, on a clock that stands until it is set. */
struct bench {
    struct cv_log log;
    int reader;
    int writer;
    uint64_t now_ms;
    char text[256 * 1024];
};

static uint64_t bench_clock(void *arg)
{
    return ((struct bench *)arg)->now_ms;
}

static int setup_with(void **state, enum cv_log_format format)
{
    struct bench *b = calloc(1, sizeof *b);
    int ends[2];
    assert_non_null(b);
    assert_int_equal(pipe(ends), 0);
    b->reader = ends[0];
    b->writer = ends[1];
    assert_int_equal(fcntl(b->reader, F_SETFL, O_NONBLOCK), 0);
    b->now_ms = 1790000000123;
    struct cv_log_options options = {.fd = b->writer,
                                     .level = CV_LOG_INFO,
                                     .format = format,
                                     .version = "1.2.3",
                                     .instance = "re\"lay\n-1",
                                     .realtime_ms = bench_clock,
                                     .monotonic_ms = bench_clock,
                                     .clock_arg = b};
    assert_ok(cv_log_init(&b->log, &options));
    *state = b;
    return 0;
}

static int setup(void **state)
{
    return setup_with(state, CV_LOG_FORMAT_AUTO);
}

static int setup_text(void **state)
{
    return setup_with(state, CV_LOG_FORMAT_TEXT);
}

static int teardown(void **state)
{
    struct bench *b = *state;
    cv_log_done(&b->log);
    close(b->reader);
    close(b->writer);
    free(b);
    return 0;
}

static const char *drain(struct bench *b)
{
    size_t len = 0;
    ssize_t n;
    while ((n = read(b->reader, b->text + len, sizeof b->text - 1 - len)) > 0)
        len += (size_t)n;
    b->text[len] = '\0';
    return b->text;
}

static json_t *one_line(struct bench *b)
{
    const char *text = drain(b);
    char *newline = strchr(text, '\n');
    assert_non_null(newline);
    assert_int_equal(newline[1], '\0');
    json_error_t error;
    json_t *json = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    if (!json)
        print_error("%s\n%s\n", error.text, text);
    assert_non_null(json);
    return json;
}

#define assert_json(json, key, want)                                                               \
    assert_string_equal(json_string_value(json_object_get(json, key)), want)

static void json_line_has_the_agreed_keys(void **state)
{
    struct bench *b = *state;
    cv_log(&b->log, CV_LOG_WARN, "link", "link_down", "the link is down",
           CV_F_STR("userId", "alice"), CV_F_SLICE("connectionId", cv_slice("abcdef", 3)),
           CV_F_INT("attempt", -3), CV_F_UINT("bytes", UINT64_MAX >> 1),
           CV_F_BOOL("is_final", true), CV_F_STR("absent", NULL),
           CV_F_STATUS(cv_status(CV_AUTH_EXPIRED)));
    json_t *json = one_line(b);
    assert_json(json, "timestamp", "2026-09-21T14:13:20.123Z");
    assert_json(json, "level", "warn");
    assert_json(json, "message", "the link is down");
    assert_json(json, "component", "link");
    assert_json(json, "event", "link_down");
    assert_json(json, "userId", "alice");
    assert_json(json, "connectionId", "abc");
    assert_json(json, "service", "culvert");
    assert_json(json, "version", "1.2.3");
    assert_json(json, "instance", "relay-1");
    assert_int_equal(json_integer_value(json_object_get(json, "attempt")), -3);
    assert_true(json_integer_value(json_object_get(json, "bytes")) == INT64_MAX);
    assert_true(json_is_true(json_object_get(json, "is_final")));
    assert_null(json_object_get(json, "absent"));
    json_t *error = json_object_get(json, "error");
    assert_json(error, "message", "token expired");
    assert_json(error, "code", "TUNNEL_003");
    assert_json(error, "reason", "AUTH_EXPIRED");
    json_decref(json);
    assert_int_equal(cv_log_count(&b->log, CV_LOG_WARN), 1);
}

static void line_without_fields_is_json(void **state)
{
    struct bench *b = *state;
    cv_log(&b->log, CV_LOG_INFO, "cli", "start", "up");
    json_decref(one_line(b));
}

static void error_field_carries_detail_and_errno(void **state)
{
    struct bench *b = *state;
    struct cv_error error = {0};
    (void)cv_fail_errno(&error, CV_CONN_REFUSED, ECONNREFUSED, "connect to %s", "[::1]:1");
    cv_log(&b->log, CV_LOG_ERROR, "dial", "failed", "no connection", CV_F_ERROR(&error));
    json_t *json = one_line(b);
    json_t *object = json_object_get(json, "error");
    assert_json(object, "message", "connect to [::1]:1: Connection refused");
    assert_json(object, "errno", "ECONNREFUSED");
    json_decref(json);
    cv_log(&b->log, CV_LOG_ERROR, "dial", "done", "fine", CV_F_ERROR((struct cv_error *)NULL),
           CV_F_STATUS(cv_ok()));
    json = one_line(b);
    assert_null(json_object_get(json, "error"));
    json_decref(json);
}

static void every_byte_stays_one_json_line(void **state)
{
    struct bench *b = *state;
    char all[256];
    for (int i = 0; i < 256; i++)
        all[i] = (char)i;
    for (size_t from = 0; from < sizeof all; from += 16) {
        cv_log(&b->log, CV_LOG_INFO, "http", "odd", "odd",
               CV_F_SLICE("path", cv_slice(all + from, 16)));
        json_decref(one_line(b));
    }
    cv_log(&b->log, CV_LOG_INFO, "http", "odd", "odd", CV_F_STR("a", "\xc3\xa9 \xed\xa0\x80 \xf5"),
           CV_F_STR("b", "\x1b[2J\r\n\"\\\x7f\xc2\x85\xe2\x80\xae"));
    const char *text = drain(b);
    assert_null(strpbrk(text, "\x1b\r\x7f"));
    assert_non_null(strstr(text, "\xc3\xa9 \\ufffd\\ufffd\\ufffd \\ufffd"));
    assert_non_null(strstr(text, "\\u001b[2J\\u000d\\n\\\"\\\\\\u007f\\u0085\\u202e"));
}

static void long_values_are_cut_and_stay_json(void **state)
{
    struct bench *b = *state;
    char big[5000];
    memset(big, '"', sizeof big - 1);
    big[sizeof big - 1] = '\0';
    cv_log(&b->log, CV_LOG_INFO, "http", "big", "big", CV_F_STR("a", big), CV_F_STR("b", big),
           CV_F_STR("c", big), CV_F_INT("after", 1));
    json_t *json = one_line(b);
    assert_true(json_is_true(json_object_get(json, "truncated")));
    assert_json(json, "instance", "relay-1");
    json_decref(json);
    /* A cut in the middle of a character leaves none of it. */
    memset(big, 'x', 1023);
    memcpy(big + 1022, "\xe2\x82\xac", 4);
    cv_log(&b->log, CV_LOG_INFO, "http", "big", "big", CV_F_STR("a", big));
    json = one_line(b);
    assert_int_equal(json_string_length(json_object_get(json, "a")), 1022);
    json_decref(json);
}

static unsigned evaluated(unsigned *count)
{
    return ++*count;
}

static void a_level_that_is_off_evaluates_nothing(void **state)
{
    struct bench *b = *state;
    unsigned count = 0;
    cv_log(&b->log, CV_LOG_DEBUG, "x", "y", "z", CV_F_UINT("n", evaluated(&count)));
    cv_log((struct cv_log *)NULL, CV_LOG_ERROR, "x", "y", "z", CV_F_UINT("n", evaluated(&count)));
    assert_int_equal(count, 0);
    assert_string_equal(drain(b), "");
    cv_log_set_level(&b->log, CV_LOG_TRACE);
    assert_int_equal(cv_log_level(&b->log), CV_LOG_TRACE);
    cv_log(&b->log, CV_LOG_TRACE, "x", "y", "z", CV_F_UINT("n", evaluated(&count)));
    assert_int_equal(count, 1);
    json_decref(one_line(b));
}

static void secrets_never_come_out(void **state)
{
    struct bench *b = *state;
    cv_log(&b->log, CV_LOG_INFO, "auth", "try", "got Bearer " JWT " here",
           CV_F_STR("Authorization", "Digest hunter2"), CV_F_STR("token", "hunter2"),
           CV_F_STR("protocol", "bearer." JWT), CV_F_STR("url", "http://me:hunter2@proxy:3128/x"),
           CV_F_STR("header", "basic aHVudGVyMjpodW50ZXIy"));
    const char *text = drain(b);
    assert_null(strstr(text, "eyJ"));
    assert_null(strstr(text, "hunter2"));
    assert_null(strstr(text, "aHVudGVy"));
    assert_non_null(strstr(text, "got Bearer [hidden] here"));
    assert_non_null(strstr(text, "http://[hidden]@proxy:3128/x"));
}

static void redaction_leaves_plain_text(void **state)
{
    (void)state;
    static const char *const plain[] = {"the bearer token is missing",
                                        "basic auth",
                                        "eyJ",
                                        "eyJabc",
                                        "http://host/a@b",
                                        "a://b",
                                        "",
                                        "Bearer",
                                        "Bearer "};
    char out[128];
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
        cv_redact(cv_slice_str(plain[i]), out, sizeof out);
        assert_string_equal(out, plain[i]);
    }
    assert_int_equal(cv_redact(cv_slice_str("0123456789"), out, 5), 4);
    assert_string_equal(out, "0123");
}

static void strangers_cannot_flood(void **state)
{
    struct bench *b = *state;
    for (int i = 0; i < 1000; i++)
        cv_log_limited(&b->log, CV_LOG_WARN, "auth", "refused", "refused", CV_F_INT("i", i));
    cv_log_limited(&b->log, CV_LOG_WARN, "auth", "other", "has a bucket of its own");
    assert_int_equal(cv_log_suppressed(&b->log), 1000 - CV_LOG_LIMIT_BURST);
    assert_int_equal(cv_log_count(&b->log, CV_LOG_WARN), CV_LOG_LIMIT_BURST + 1);
    (void)drain(b);
    b->now_ms += 1000;
    cv_log_limited(&b->log, CV_LOG_WARN, "auth", "refused", "refused");
    json_t *json = one_line(b);
    assert_int_equal(json_integer_value(json_object_get(json, "suppressed")), 990);
    json_decref(json);
    b->now_ms += 999;
    cv_log_limited(&b->log, CV_LOG_WARN, "auth", "refused", "refused");
    assert_string_equal(drain(b), "");
    b->now_ms += 1;
    cv_log_limited(&b->log, CV_LOG_WARN, "auth", "refused", "refused");
    json = one_line(b);
    assert_int_equal(json_integer_value(json_object_get(json, "suppressed")), 1);
    json_decref(json);
}

static void count_up(void *arg)
{
    ++*(unsigned *)arg;
}

static void a_blocked_pipe_stops_nobody_and_loss_is_told(void **state)
{
    struct bench *b = *state;
    unsigned behind = 0;
    cv_log_on_behind(&b->log, count_up, &behind);
    cv_log(&b->log, CV_LOG_INFO, "x", "first", "first");
    assert_int_equal(behind, 0);
    char filler[900];
    memset(filler, 'x', sizeof filler - 1);
    filler[sizeof filler - 1] = '\0';
    for (int i = 0; i < 400; i++) /* far beyond pipe and backlog */
        cv_log(&b->log, CV_LOG_INFO, "x", "fill", "fill", CV_F_STR("filler", filler));
    assert_true(cv_log_dropped(&b->log) > 0);
    assert_true(behind > 0);
    assert_false(cv_log_flush(&b->log));
    /* The descriptor that others share still blocks. */
    assert_int_equal(fcntl(b->writer, F_GETFL) & O_NONBLOCK, 0);
    size_t lines = 0;
    bool is_told = false;
    for (int round = 0; round < 3; round++) {
        char *text = b->text;
        (void)drain(b);
        for (char *newline; (newline = strchr(text, '\n')); text = newline + 1) {
            json_error_t error;
            json_t *json = json_loadb(text, (size_t)(newline - text), 0, &error);
            assert_non_null(json);
            is_told = is_told ||
                      strcmp(json_string_value(json_object_get(json, "event")), "log_dropped") == 0;
            json_decref(json);
            lines++;
        }
        assert_int_equal(*text, '\0');
        (void)cv_log_flush(&b->log);
    }
    assert_true(is_told);
    assert_true(cv_log_flush(&b->log));
    assert_int_equal(lines, 401 - cv_log_dropped(&b->log) + 1);
}

static void a_reader_that_is_gone_is_counted(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    struct cv_log log;
    struct cv_log_options options = {.fd = ends[0], .level = CV_LOG_INFO};
    assert_ok(cv_log_init(&log, &options));
    close(ends[1]);
    cv_log(&log, CV_LOG_INFO, "x", "y", "z");
    assert_int_equal(cv_log_dropped(&log), 1);
    cv_log_done(&log);
    close(ends[0]);
}

static void text_is_readable_and_safe(void **state)
{
    struct bench *b = *state;
    cv_log(&b->log, CV_LOG_ERROR, "dial", "failed", "cannot connect", CV_F_STR("to", "a b"),
           CV_F_INT("attempt", 2), CV_F_STATUS(cv_status(CV_CONN_REFUSED)),
           CV_F_STR("evil", "\x1b]0;x\x07\xc2\x9b"));
    assert_string_equal(drain(b), "14:13:20.123Z error cannot connect: connection refused "
                                  "(TUNNEL_001) component=dial to=\"a b\" attempt=2 "
                                  "evil=\"\\u001b]0;x\\u0007\\u009b\"\n");
}

static void colour_frames_the_level(void **state)
{
    (void)state;
    static const struct cv_log_field none[] = {{.kind = CV_LOG_FIELD_END}};
    const struct cv_log_record record = {.level = CV_LOG_ERROR,
                                         .component = "x",
                                         .event = "y",
                                         .message = "z",
                                         .fields = none,
                                         .version = "",
                                         .instance = ""};
    struct cv_log_line line;
    cv_log_line_text(&line, &record, true);
    line.text[line.len] = '\0';
    assert_string_equal(line.text,
                        "00:00:00.000Z \033[31merror\033[0m z\033[2m component=x\033[0m\n");
}

static void *shout(void *arg)
{
    struct bench *b = arg;
    for (int i = 0; i < 100; i++)
        cv_log(&b->log, CV_LOG_INFO, "x", "thread", "from a thread", CV_F_INT("i", i));
    return NULL;
}

static void threads_do_not_tear_lines(void **state)
{
    struct bench *b = *state;
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, shout, b), 0);
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_join(threads[i], NULL), 0);
    char *all = strdup(drain(b));
    (void)cv_log_flush(&b->log);
    size_t lines = 0;
    for (int half = 0; half < 2; half++) {
        char *text = half ? b->text : all;
        if (half)
            (void)drain(b);
        for (char *newline; (newline = strchr(text, '\n')); text = newline + 1, lines++) {
            json_t *json = json_loadb(text, (size_t)(newline - text), 0, NULL);
            assert_non_null(json);
            json_decref(json);
        }
    }
    free(all);
    assert_int_equal(lines, 400);
    assert_int_equal(cv_log_count(&b->log, CV_LOG_INFO), 400);
}

static void names_are_read_back(void **state)
{
    (void)state;
    for (int i = 0; i < CV_LOG_LEVEL_COUNT; i++) {
        enum cv_log_level level = CV_LOG_ERROR;
        assert_true(cv_log_level_parse(cv_log_level_name((enum cv_log_level)i), &level));
        assert_int_equal(level, i);
    }
    enum cv_log_level level = CV_LOG_DEBUG;
    assert_false(cv_log_level_parse("loud", &level));
    assert_false(cv_log_level_parse(NULL, &level));
    assert_int_equal(level, CV_LOG_DEBUG);
    enum cv_log_format format;
    assert_true(cv_log_format_parse("JSON", &format));
    assert_int_equal(format, CV_LOG_FORMAT_JSON);
    assert_false(cv_log_format_parse("xml", &format));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(json_line_has_the_agreed_keys, setup, teardown),
        cmocka_unit_test_setup_teardown(line_without_fields_is_json, setup, teardown),
        cmocka_unit_test_setup_teardown(error_field_carries_detail_and_errno, setup, teardown),
        cmocka_unit_test_setup_teardown(every_byte_stays_one_json_line, setup, teardown),
        cmocka_unit_test_setup_teardown(long_values_are_cut_and_stay_json, setup, teardown),
        cmocka_unit_test_setup_teardown(a_level_that_is_off_evaluates_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(secrets_never_come_out, setup, teardown),
        cmocka_unit_test(redaction_leaves_plain_text),
        cmocka_unit_test_setup_teardown(strangers_cannot_flood, setup, teardown),
        cmocka_unit_test_setup_teardown(a_blocked_pipe_stops_nobody_and_loss_is_told, setup,
                                        teardown),
        cmocka_unit_test(a_reader_that_is_gone_is_counted),
        cmocka_unit_test_setup_teardown(text_is_readable_and_safe, setup_text, teardown),
        cmocka_unit_test(colour_frames_the_level),
        cmocka_unit_test_setup_teardown(threads_do_not_tear_lines, setup, teardown),
        cmocka_unit_test(names_are_read_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
