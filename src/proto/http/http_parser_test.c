/* SPDX-License-Identifier: MIT
 *
 * One named case per rule. Every case is fed whole, byte by byte, and split at every offset, and
 * must come out the same each time.
 */
#include "base/buf.h"
#include "base/test.h"

#include "proto/http/http_test_cases.h"
#include "proto/http/http_test_view.h"

static void check_request(const struct request_case *c, size_t first, size_t step)
{
    struct view view;
    size_t len = c->len ? c->len : strlen(c->bytes);
    view_run(&view, CV_HTTP_REQUESTS, NULL, (const uint8_t *)c->bytes, len, first, step, false,
             VIEW_ALL);
    if (view.status.id != c->want || (c->view && strcmp(view.text, c->view) != 0))
        fail_msg("%s (first %zu, step %zu): %s \"%s\", wanted %s \"%s\"; %s", c->name, first, step,
                 cv_status_name(view.status.id), view.text, cv_status_name(c->want),
                 c->view ? c->view : "", view.fault);
    if (c->want != CV_AGAIN && c->want != CV_EOF && !view.fault[0])
        fail_msg("%s: the fault has no text", c->name);
}

static void requests_by_rule(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(request_cases); i++) {
        const struct request_case *c = &request_cases[i];
        size_t len = c->len ? c->len : strlen(c->bytes);
        check_request(c, 0, len);
        check_request(c, 0, 1);
        for (size_t split = 1; split < len; split++)
            check_request(c, split, len);
    }
}

static void responses_by_rule(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(response_cases); i++) {
        const struct response_case *c = &response_cases[i];
        size_t len = strlen(c->bytes);
        for (size_t split = 0; split <= len; split++) {
            struct view view;
            view_run(&view, CV_HTTP_RESPONSES, c->expect, (const uint8_t *)c->bytes, len, split,
                     split == 0 ? 1 : len, c->closes, VIEW_ALL);
            if (view.status.id != c->want || (c->view && strcmp(view.text, c->view) != 0))
                fail_msg("%s (split %zu): %s \"%s\", wanted %s; %s", c->name, split,
                         cv_status_name(view.status.id), view.text, cv_status_name(c->want),
                         view.fault);
        }
    }
}

/* Feeds `len` bytes of `fill` between head and tail and returns how it ends. */
static enum cv_status_id feed_filled(enum cv_http_role role, const char *head, char fill,
                                     size_t len, const char *tail)
{
    struct view view;
    struct cv_buf bytes;
    cv_buf_init(&bytes, SIZE_MAX);
    assert_ok(cv_buf_append_str(&bytes, head));
    uint8_t *filled = cv_buf_reserve(&bytes, len);
    assert_non_null(filled);
    memset(filled, fill, len);
    cv_buf_commit(&bytes, len);
    assert_ok(cv_buf_append_str(&bytes, tail));
    view_run(&view, role, "p", cv_buf_head(&bytes), cv_buf_len(&bytes), 0, 4096, false, VIEW_ALL);
    cv_buf_done(&bytes);
    return view.status.id;
}

static void limits_hold_to_the_byte(void **state)
{
    (void)state;
    size_t line = cv_http_request_limits.start_line;
    size_t fixed = strlen("GET / HTTP/1.1");
    const char *rest = " HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_int_equal(feed_filled(CV_HTTP_REQUESTS, "GET /", 'a', line - fixed, rest), CV_AGAIN);
    assert_int_equal(feed_filled(CV_HTTP_REQUESTS, "GET /", 'a', line - fixed + 1, rest),
                     CV_URI_TOO_LONG);
    assert_int_equal(feed_filled(CV_HTTP_REQUESTS, "GET /", 'a', 65536, rest), CV_URI_TOO_LONG);

    size_t head = cv_http_request_limits.head;
    fixed = strlen(GET "X: \r\n\r\n");
    assert_int_equal(feed_filled(CV_HTTP_REQUESTS, GET "X: ", 'a', head - fixed, "\r\n\r\n"),
                     CV_AGAIN);
    assert_int_equal(feed_filled(CV_HTTP_REQUESTS, GET "X: ", 'a', head - fixed + 1, "\r\n\r\n"),
                     CV_HEAD_TOO_LARGE);
    assert_int_equal(feed_filled(CV_HTTP_REQUESTS, GET "X: ", 'a', 1 << 20, "\r\n\r\n"),
                     CV_HEAD_TOO_LARGE);
    assert_int_equal(feed_filled(CV_HTTP_RESPONSES, OK200 "X: ", 'a', 1 << 20, "\r\n\r\n"),
                     CV_BAD_RESPONSE);
    assert_int_equal(feed_filled(CV_HTTP_REQUESTS, CHUNKED "1;", 'a', 1023, "\r\nx"), CV_AGAIN);
    assert_int_equal(feed_filled(CV_HTTP_REQUESTS, CHUNKED "1;", 'a', 65536, "\r\nx"),
                     CV_BAD_REQUEST);
    assert_int_equal(feed_filled(CV_HTTP_REQUESTS, CHUNKED "0\r\nX: ", 'a', 65536, "\r\n\r\n"),
                     CV_HEAD_TOO_LARGE);
    assert_int_equal(feed_filled(CV_HTTP_REQUESTS, "", '\n', 1000, ""), CV_BAD_REQUEST);
}

static void repeat(char *out, size_t cap, const char *head, const char *text, size_t times,
                   const char *tail)
{
    size_t len = (size_t)snprintf(out, cap, "%s", head);
    for (size_t i = 0; i < times; i++)
        len += (size_t)snprintf(out + len, cap - len, "%s", text);
    (void)snprintf(out + len, cap - len, "%s", tail);
}

static void counts_are_capped(void **state)
{
    (void)state;
    static char text[70000];
    struct view view;
    repeat(text, sizeof(text), GET, "X: 1\r\n", 99, "\r\n");
    view_run(&view, CV_HTTP_REQUESTS, NULL, (uint8_t *)text, strlen(text), 0, 100000, false,
             VIEW_ALL);
    assert_status(view.status, CV_AGAIN);
    repeat(text, sizeof(text), GET, "X: 1\r\n", 100, "\r\n");
    view_run(&view, CV_HTTP_REQUESTS, NULL, (uint8_t *)text, strlen(text), 0, 100000, false,
             VIEW_ALL);
    assert_status(view.status, CV_HEAD_TOO_LARGE);
    repeat(text, sizeof(text), GET, "X: 1\r\n", 10000, "\r\n");
    view_run(&view, CV_HTTP_REQUESTS, NULL, (uint8_t *)text, strlen(text), 0, 100000, false,
             VIEW_ALL);
    assert_status(view.status, CV_HEAD_TOO_LARGE);
    repeat(text, sizeof(text), "", "HTTP/1.1 102 \r\n\r\n", 10, OK200 "Content-Length: 0\r\n\r\n");
    view_run(&view, CV_HTTP_RESPONSES, "p", (uint8_t *)text, strlen(text), 0, 100000, false,
             VIEW_ALL);
    assert_status(view.status, CV_AGAIN);
    repeat(text, sizeof(text), "", "HTTP/1.1 102 \r\n\r\n", 11, OK200 "Content-Length: 0\r\n\r\n");
    view_run(&view, CV_HTTP_RESPONSES, "p", (uint8_t *)text, strlen(text), 0, 100000, false,
             VIEW_ALL);
    assert_status(view.status, CV_BAD_RESPONSE);
}

static void bytes_behind_an_upgrade_are_handed_out(void **state)
{
    (void)state;
    const char *bytes = GET "Connection: upgrade\r\nUpgrade: websocket\r\n\r\nxyz";
    struct cv_http_event event;
    struct cv_http_parser *parser = cv_http_parser_new(CV_HTTP_REQUESTS, &cv_http_request_limits);
    assert_true(cv_http_parser_is_idle(parser));
    assert_ok(cv_http_parser_feed(parser, (const uint8_t *)bytes, strlen(bytes)));
    assert_ok(cv_http_parser_next(parser, &event));
    assert_false(cv_http_parser_is_idle(parser));
    assert_true(event.head->is_upgrade);
    assert_ok(cv_http_parser_next(parser, &event));
    assert_int_equal(event.type, CV_HTTP_END);
    assert_status(cv_http_parser_next(parser, &event), CV_EOF);
    assert_true(cv_slice_is(cv_http_parser_rest(parser), "xyz"));
    assert_true(cv_slice_is(cv_http_parser_take_rest(parser), "xyz"));
    assert_int_equal(cv_http_parser_rest(parser).len, 0);
    cv_http_parser_free(&parser);
    assert_null(parser);
    cv_http_parser_free(&parser);
}

static void unread_body_comes_again(void **state)
{
    (void)state;
    static const char *const messages[] = {
        POST "Content-Length: 5\r\n\r\nabcde",
        CHUNKED "5\r\nabcde\r\n0\r\n\r\n",
    };
    for (size_t i = 0; i < 2; i++) {
        struct cv_http_event event;
        struct cv_http_parser *parser =
            cv_http_parser_new(CV_HTTP_REQUESTS, &cv_http_request_limits);
        assert_ok(cv_http_parser_feed(parser, (const uint8_t *)messages[i], strlen(messages[i])));
        assert_status(cv_http_parser_feed(parser, (const uint8_t *)"x", 1), CV_INVALID);
        assert_ok(cv_http_parser_next(parser, &event));
        assert_ok(cv_http_parser_next(parser, &event));
        assert_true(cv_slice_is(event.body, "abcde"));
        cv_http_parser_unread(parser, 3);
        assert_ok(cv_http_parser_next(parser, &event));
        assert_true(cv_slice_is(event.body, "cde"));
        assert_ok(cv_http_parser_next(parser, &event));
        assert_int_equal(event.type, CV_HTTP_END);
        assert_status(cv_http_parser_next(parser, &event), CV_AGAIN);
        cv_http_parser_free(&parser);
    }
}

static void a_fault_is_final(void **state)
{
    (void)state;
    struct cv_http_event event;
    struct cv_http_parser *parser = cv_http_parser_new(CV_HTTP_REQUESTS, &cv_http_request_limits);
    assert_ok(cv_http_parser_feed(parser, (const uint8_t *)"GET /\r\n" GET "\r\n", 30));
    assert_status(cv_http_parser_next(parser, &event), CV_BAD_REQUEST);
    assert_status(cv_http_parser_next(parser, &event), CV_BAD_REQUEST);
    cv_http_parser_eof(parser);
    assert_status(cv_http_parser_next(parser, &event), CV_BAD_REQUEST);
    cv_http_parser_free(&parser);
}

static void expectations_are_one_at_a_time(void **state)
{
    (void)state;
    struct cv_http_parser *parser = cv_http_parser_new(CV_HTTP_RESPONSES, &cv_http_response_limits);
    assert_ok(cv_http_parser_expect(parser, CV_HTTP_EXPECT_PLAIN));
    assert_status(cv_http_parser_expect(parser, CV_HTTP_EXPECT_PLAIN), CV_INVALID);
    cv_http_parser_free(&parser);
    parser = cv_http_parser_new(CV_HTTP_REQUESTS, &cv_http_request_limits);
    assert_status(cv_http_parser_expect(parser, CV_HTTP_EXPECT_PLAIN), CV_INVALID);
    cv_http_parser_free(&parser);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_by_rule),
        cmocka_unit_test(responses_by_rule),
        cmocka_unit_test(limits_hold_to_the_byte),
        cmocka_unit_test(counts_are_capped),
        cmocka_unit_test(bytes_behind_an_upgrade_are_handed_out),
        cmocka_unit_test(unread_body_comes_again),
        cmocka_unit_test(a_fault_is_final),
        cmocka_unit_test(expectations_are_one_at_a_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
