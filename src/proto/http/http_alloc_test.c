/* SPDX-License-Identifier: MIT
 *
 * Every allocation of parser, writer and rewriting fails once: the answer is CV_NO_MEMORY (or NULL
 * from new), nothing leaks, nothing is half written.
 */
#include "base/alloc_test.h"
#include "base/test.h"

#include "proto/http/http_parser.h"
#include "proto/http/http_path.h"
#include "proto/http/http_rewrite.h"
#include "proto/http/http_writer.h"

static struct cv_status parse_all(void)
{
    static const char bytes[] = "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                                "3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n"
                                "GET /y HTTP/1.1\r\nHost: a\r\n\r\n";
    struct cv_http_event event;
    struct cv_http_parser *parser = cv_http_parser_new(CV_HTTP_REQUESTS, &cv_http_request_limits);
    if (!parser)
        return cv_status(CV_NO_MEMORY);
    struct cv_status status =
        cv_http_parser_feed(parser, (const uint8_t *)bytes, sizeof(bytes) - 1);
    while (cv_is_ok(status))
        status = cv_http_parser_next(parser, &event);
    cv_http_parser_free(&parser);
    return status.id == CV_AGAIN ? cv_ok() : status;
}

static struct cv_status write_all(struct cv_buf *out)
{
    struct cv_http_field fields[] = {{cv_slice_str("X"), cv_slice_str("1")}};
    struct cv_http_head head = {.fields = fields, .field_count = 1};
    CV_RETURN_IF_ERROR(
        cv_http_write_request_line(out, cv_slice_str("GET"), cv_slice_str("/0123456789")));
    CV_RETURN_IF_ERROR(cv_http_write_fields(out, &head, NULL));
    CV_RETURN_IF_ERROR(cv_http_write_chunk(out, cv_slice_str("0123456789")));
    CV_RETURN_IF_ERROR(cv_http_write_last_chunk(out, fields, 1));
    CV_RETURN_IF_ERROR(cv_http_normal_path(cv_slice_str("/a/b"), out));
    CV_RETURN_IF_ERROR(
        cv_http_rewrite_location(out, cv_slice_str("/a"), cv_slice_str("/t/x"), NULL, 0));
    CV_RETURN_IF_ERROR(cv_http_rewrite_set_cookie(out, cv_slice_str("a=b"), cv_slice_str("/t/x")));
    CV_RETURN_IF_ERROR(cv_http_write_forwarded(out, cv_slice_str(""), cv_slice_str("::1"),
                                               cv_slice_str("a"), true));
    CV_RETURN_IF_ERROR(cv_http_write_forwarded_for(out, cv_slice_str(""), cv_slice_str("::1")));
    return cv_http_write_basic(out, cv_slice_str("u"), cv_slice_str("p"));
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    size_t n = 0;
    bool has_failed;
    do {
        cv_test_alloc_fail_at(++n);
        struct cv_status parsed = parse_all();
        struct cv_buf out;
        cv_buf_init(&out, 65536);
        struct cv_status written = write_all(&out);
        has_failed = cv_test_alloc_stop();
        cv_buf_done(&out);
        assert_true(cv_is_ok(parsed) || parsed.id == CV_NO_MEMORY);
        assert_true(cv_is_ok(written) || written.id == CV_NO_MEMORY);
        assert_int_equal(cv_is_ok(parsed) && cv_is_ok(written), !has_failed);
    } while (has_failed);
    assert_true(n > 6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
