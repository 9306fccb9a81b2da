/* SPDX-License-Identifier: MIT */
#include "base/test.h"

#include "proto/http/http_chars.h"
#include "proto/http/http_parser.h"
#include "proto/http/http_writer.h"

#define S(text) cv_slice(text, sizeof(text) - 1)

static void assert_content(struct cv_buf *buf, const char *want)
{
    struct cv_slice held = cv_buf_slice(buf);
    if (!cv_slice_is(held, want))
        fail_msg("\"%.*s\", wanted \"%s\"", (int)held.len, (const char *)held.data, want);
    cv_buf_consume(buf, held.len);
}

static void lines_are_canonical(void **state)
{
    (void)state;
    struct cv_buf out;
    cv_buf_init(&out, 4096);
    assert_ok(cv_http_write_request_line(&out, S("GET"), S("/a?b")));
    assert_ok(cv_http_write_field(&out, S("Host"), S(" localhost ")));
    assert_ok(cv_http_write_framing(&out, CV_HTTP_LENGTH, UINT64_C(18446744073709551615)));
    assert_ok(cv_http_write_framing(&out, CV_HTTP_NO_BODY, 0));
    assert_ok(cv_http_write_framing(&out, CV_HTTP_UNTIL_CLOSE, 0));
    assert_ok(cv_http_write_head_end(&out));
    assert_content(&out, "GET /a?b HTTP/1.1\r\nHost: localhost\r\n"
                         "Content-Length: 18446744073709551615\r\n\r\n");
    assert_ok(cv_http_write_status_line(&out, 404, cv_slice_str(cv_http_reason(404))));
    assert_ok(cv_http_write_status_line(&out, 799, S("")));
    assert_ok(cv_http_write_framing(&out, CV_HTTP_CHUNKED, 0));
    assert_content(&out,
                   "HTTP/1.1 404 Not Found\r\nHTTP/1.1 799 \r\nTransfer-Encoding: chunked\r\n");
    cv_buf_done(&out);
}

static void nothing_can_be_injected(void **state)
{
    (void)state;
    static const char *const values[] = {"a\r\nX: b", "a\nb", "a\rb", "a\x7f", "a\x01", "\n", "\r"};
    struct cv_buf out;
    cv_buf_init(&out, 4096);
    assert_ok(cv_buf_append_str(&out, "before"));
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        struct cv_slice bad = cv_slice_str(values[i]);
        assert_status(cv_http_write_field(&out, S("X"), bad), CV_INVALID);
        assert_status(cv_http_write_field(&out, bad, S("a")), CV_INVALID);
        assert_status(cv_http_write_request_line(&out, bad, S("/")), CV_INVALID);
        assert_status(cv_http_write_request_line(&out, S("GET"), bad), CV_INVALID);
        assert_status(cv_http_write_status_line(&out, 200, bad), CV_INVALID);
        struct cv_http_field trailer = {S("X"), bad};
        assert_status(cv_http_write_last_chunk(&out, &trailer, 1), CV_INVALID);
        struct cv_http_field fields[] = {{S("Ok"), S("1")}, {S("X"), bad}};
        struct cv_http_head head = {.fields = fields, .field_count = 2};
        assert_status(cv_http_write_fields(&out, &head, NULL), CV_INVALID);
    }
    assert_status(cv_http_write_field(&out, S("X"), S("a\0b")), CV_INVALID);
    assert_status(cv_http_write_field(&out, S(""), S("a")), CV_INVALID);
    assert_status(cv_http_write_field(&out, S("X "), S("a")), CV_INVALID);
    assert_status(cv_http_write_field(&out, S("X:"), S("a")), CV_INVALID);
    assert_status(cv_http_write_request_line(&out, S("GET"), S("/a b")), CV_INVALID);
    assert_status(cv_http_write_request_line(&out, S("GET"), S("")), CV_INVALID);
    assert_status(cv_http_write_request_line(&out, S("GET"), S("/#a")), CV_INVALID);
    assert_status(cv_http_write_status_line(&out, 99, S("")), CV_INVALID);
    assert_status(cv_http_write_status_line(&out, 1000, S("")), CV_INVALID);
    assert_content(&out, "before");
    cv_buf_done(&out);
}

static void the_cap_leaves_nothing_half_written(void **state)
{
    (void)state;
    struct cv_http_field fields[] = {{S("A"), S("1")}, {S("B"), S("2")}};
    struct cv_http_head head = {.fields = fields, .field_count = 2};
    for (size_t cap = 0; cap < 12; cap++) {
        struct cv_buf out;
        cv_buf_init(&out, cap);
        assert_status(cv_http_write_fields(&out, &head, NULL), CV_NO_RESOURCES);
        assert_int_equal(cv_buf_len(&out), 0);
        assert_status(cv_http_write_last_chunk(&out, fields, 2), CV_NO_RESOURCES);
        assert_int_equal(cv_buf_len(&out), 0);
        assert_status(cv_http_write_chunk(&out, S("0123456789")), CV_NO_RESOURCES);
        assert_int_equal(cv_buf_len(&out), 0);
        cv_buf_done(&out);
    }
}

/* Parses a request head and writes what of it travels on. */
static void forward(const char *request, const char *const *drop, struct cv_buf *out)
{
    struct cv_http_event event;
    struct cv_http_parser *parser = cv_http_parser_new(CV_HTTP_REQUESTS, &cv_http_request_limits);
    assert_ok(cv_http_parser_feed(parser, (const uint8_t *)request, strlen(request)));
    assert_ok(cv_http_parser_next(parser, &event));
    assert_ok(cv_http_write_fields(out, event.head, drop));
    cv_http_parser_free(&parser);
}

static void hop_by_hop_fields_stay_behind(void **state)
{
    (void)state;
    static const char *const drop[] = {"x-forwarded-*", "authorization", NULL};
    struct cv_buf out;
    cv_buf_init(&out, 4096);
    forward(
        "GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nConnection: keep-alive, x-hop\r\nKeep-Alive: 5\r\n"
        "Proxy-Connection: close\r\nProxy-Authorization: x\r\nTE: trailers\r\nTrailer: x\r\n"
        "Upgrade: h2c\r\nHTTP2-Settings: x\r\nX-Hop: 1\r\nX-Forwarded-For: 1.2.3.4\r\n"
        "X_Forwarded_For: 1.2.3.4\r\nAuthorization: Bearer x\r\nTransfer_Encoding: chunked\r\n"
        "Content_Length: 3\r\nB: 2\r\n\r\n",
        drop, &out);
    assert_content(&out, "A: 1\r\nB: 2\r\n");
    /* What the service decides by cannot be stripped through Connection (RFC 9110 §7.6.1). */
    forward("GET / HTTP/1.1\r\nHost: a\r\nConnection: Authorization, Cookie, Host, Content-Type, "
            "Origin, X-Forwarded-For, X-Tenant\r\nAuthorization: x\r\nCookie: c\r\n"
            "Content-Type: t\r\nOrigin: o\r\nX-Forwarded-For: f\r\nX-Tenant: t\r\n\r\n",
            NULL, &out);
    assert_content(&out, "Authorization: x\r\nCookie: c\r\nContent-Type: t\r\nOrigin: o\r\n"
                         "X-Forwarded-For: f\r\n");
    cv_buf_done(&out);
}

static void chunks(void **state)
{
    (void)state;
    char line[CV_HTTP_CHUNK_LINE_MAX];
    struct cv_buf out;
    cv_buf_init(&out, 4096);
    assert_ok(cv_http_write_chunk(&out, S("0123456789abcdefg")));
    assert_ok(cv_http_write_chunk(&out, S("")));
    struct cv_http_field trailers[] = {{S("X-Sum"), S("1")}, {S("Content-Length"), S("1")}};
    assert_ok(cv_http_write_last_chunk(&out, trailers, 2));
    assert_content(&out, "11\r\n0123456789abcdefg\r\n0\r\nX-Sum: 1\r\n\r\n");
    assert_int_equal(cv_http_chunk_line(UINT64_MAX, line), 18);
    assert_memory_equal(line, "ffffffffffffffff\r\n", 18);
    assert_int_equal(cv_http_chunk_line(16, line), 4);
    assert_memory_equal(line, "10\r\n", 4);
    cv_buf_done(&out);
}

static void dates(void **state)
{
    (void)state;
    char text[CV_HTTP_DATE_LEN + 1];
    assert_true(cv_http_date(784111777, text)); /* the example of RFC 9110 §5.6.7 */
    assert_string_equal(text, "Sun, 06 Nov 1994 08:49:37 GMT");
    assert_true(cv_http_date(0, text));
    assert_string_equal(text, "Thu, 01 Jan 1970 00:00:00 GMT");
    assert_false(cv_http_date(UINT64_MAX, text));
    assert_false(cv_http_date(253402300800, text));
}

static void lists(void **state)
{
    (void)state;
    struct cv_slice rest = S(" , a, \"b,\\\",c\" ,,d;q=1 ,"), element;
    assert_true(cv_http_list_next(&rest, &element) && cv_slice_is(element, "a"));
    assert_true(cv_http_list_next(&rest, &element) && cv_slice_is(element, "\"b,\\\",c\""));
    assert_true(cv_http_list_next(&rest, &element) && cv_slice_is(element, "d;q=1"));
    assert_false(cv_http_list_next(&rest, &element));
    rest = S("\"a\\");
    assert_true(cv_http_list_next(&rest, &element) && cv_slice_is(element, "\"a\\"));
    assert_false(cv_http_list_next(&rest, &element));
}

static void look_up(void **state)
{
    (void)state;
    struct cv_http_field fields[] = {{S("Accept"), S("a, b")}, {S("ACCEPT"), S("c")}};
    struct cv_http_head head = {.fields = fields, .field_count = 2};
    assert_true(cv_slice_is(*cv_http_find(&head, "accept"), "a, b"));
    assert_null(cv_http_find(&head, "accep"));
    assert_int_equal(cv_http_count(&head, "Accept"), 2);
    assert_true(cv_http_list_has(&head, "accept", "C"));
    struct cv_buf joined;
    cv_buf_init(&joined, 64);
    assert_true(cv_slice_is(cv_http_join(&head, "accept", &joined), "a, b, c"));
    assert_true(cv_slice_is(cv_http_join(&head, "ACCEPT", &joined), "a, b, c"));
    assert_int_equal(cv_http_join(&head, "accep", &joined).len, 0);
    cv_buf_done(&joined);
    assert_false(cv_http_list_has(&head, "accept", "d"));
    assert_true(cv_http_is_idempotent(S("PUT")));
    assert_false(cv_http_is_idempotent(S("POST")));
    assert_string_equal(cv_http_reason(299), "");
    assert_true(cv_http_name_is(S("X_Real-IP"), "x-real-ip"));
    assert_true(cv_http_name_is(S("Culvert-Tier"), "culvert-*"));
    assert_false(cv_http_name_is(S("Culvert"), "culvert-*"));
    static const char *const names[] = {"X-Real-Ip", "Culvert-*", NULL};
    assert_true(cv_http_name_is_in(S("x_real_ip"), names));
    assert_true(cv_http_name_is_in(S("CULVERT-x"), names));
    assert_false(cv_http_name_is_in(S("X-Real"), names));
    assert_false(cv_http_name_is_in(S(""), names));
}

/* Eight bytes at a time says what one at a time does, wherever the byte is that ends the run. */
static void text_ends_at_the_first_control(void **state)
{
    (void)state;
    uint8_t text[40];
    for (unsigned c = 0; c < 256; c++) {
        for (size_t len = 0; len <= sizeof text; len++) {
            for (size_t at = 0; at < len; at++) {
                memset(text, at % 3 ? '\t' : 0xff, sizeof text);
                memset(text + at, 'a', sizeof text - at);
                text[at] = (uint8_t)c;
                bool is_text = c == '\t' || (c >= ' ' && c != 0x7f);
                assert_int_equal(cv_http_text_len(text, len), is_text ? len : at);
            }
        }
    }
}

static void connection_takes_away_what_it_names(void **state)
{
    (void)state;
    static const struct {
        const char *value;
        bool takes;
    } cases[] = {
        {"keep-alive", false}, {"close", false},        {"Upgrade, Keep-Alive", false},
        {"", false},           {"close, x-mine", true}, {"host", true},
    };
    struct cv_http_field fields[] = {{S("Connection"), {0}}, {S("X-Mine"), S("1")}};
    struct cv_http_head head = {.fields = fields, .field_count = 2};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        fields[0].value = cv_slice_str(cases[i].value);
        assert_int_equal(cv_http_takes_away(&head), cases[i].takes);
    }
    /* A field that is called like the option. */
    fields[0].value = S("close");
    fields[1].name = S("Close");
    assert_true(cv_http_takes_away(&head));
    assert_true(cv_http_is_hop_by_hop(&head, S("Close")));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(lines_are_canonical),
        cmocka_unit_test(nothing_can_be_injected),
        cmocka_unit_test(the_cap_leaves_nothing_half_written),
        cmocka_unit_test(hop_by_hop_fields_stay_behind),
        cmocka_unit_test(chunks),
        cmocka_unit_test(dates),
        cmocka_unit_test(lists),
        cmocka_unit_test(look_up),
        cmocka_unit_test(text_ends_at_the_first_control),
        cmocka_unit_test(connection_takes_away_what_it_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
