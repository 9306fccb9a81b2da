/* SPDX-License-Identifier: MIT
 *
 * Headers of the PROXY protocol, whole, cut at every byte, and broken.
 */
#include "base/test.h"
#include "net/announce.h"

#include <string.h>

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"

struct row {
    const char *bytes;
    size_t len;
    enum cv_status_id status;
    const char *client; /* "-": names none */
};

#define ROW(text, status, client)                                                                  \
    {                                                                                              \
        text, sizeof(text) - 1, status, client                                                     \
    }

static const struct row rows[] = {
    ROW("PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n", CV_OK, "192.0.2.1:56324"),
    ROW("PROXY TCP6 2001:db8::1 2001:db8::2 1 65535\r\n", CV_OK, "[2001:db8::1]:1"),
    ROW("PROXY TCP6 ::ffff:192.0.2.1 ::1 1 2\r\n", CV_OK, "192.0.2.1:1"),
    ROW("PROXY UNKNOWN\r\n", CV_OK, "-"),
    ROW("PROXY UNKNOWN ffff::1 whatever\r\n", CV_OK, "-"),
    ROW(SIGNATURE "\x21\x11\0\x0c\xc0\0\2\1\xc6\x33\x64\1\xdc\4\1\xbb", CV_OK, "192.0.2.1:56324"),
    ROW(SIGNATURE "\x21\x11\0\x0f\xc0\0\2\1\xc6\x33\x64\1\xdc\4\1\xbb\4\0\0", CV_OK,
        "192.0.2.1:56324"),
    ROW(SIGNATURE "\x21\x21\0\x24\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\1"
                  "\x20\1\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\2\0\7\0\x50",
        CV_OK, "[2001:db8::1]:7"),
    ROW(SIGNATURE "\x20\0\0\0", CV_OK, "-"),
    ROW(SIGNATURE "\x21\0\0\0", CV_OK, "-"),
    ROW("GET / HTTP/1.1\r\n", CV_INVALID, "-"),
    ROW("\x16\3\1\2\0\1", CV_INVALID, "-"),
    ROW("PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\n", CV_INVALID, "-"),
    ROW("PROXY TCP4 192.0.2.1 198.51.100.1 56324\r\n", CV_INVALID, "-"),
    ROW("PROXY TCP4 192.0.2.1 198.51.100.1 56324 443 1\r\n", CV_INVALID, "-"),
    ROW("PROXY TCP4 ::1 ::1 1 1\r\n", CV_INVALID, "-"),
    ROW("PROXY TCP4 192.0.2.1 198.51.100.1 65536 443\r\n", CV_INVALID, "-"),
    ROW("PROXY UDP4 192.0.2.1 198.51.100.1 1 443\r\n", CV_INVALID, "-"),
    ROW("PROXY \r\n", CV_INVALID, "-"),
    ROW(SIGNATURE "\x11\x11\0\0", CV_INVALID, "-"),
    ROW(SIGNATURE "\x22\x11\0\0", CV_INVALID, "-"),
    ROW(SIGNATURE "\x21\x11\0\0", CV_INVALID, "-"),
    ROW(SIGNATURE "\x21\x11\xff\xff", CV_INVALID, "-"),
};

static void headers_are_read_and_never_beyond_their_end(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        struct cv_addr client;
        char text[CV_ADDR_TEXT_LEN];
        uint8_t bytes[256];
        size_t len;
        memcpy(bytes, rows[i].bytes, rows[i].len);
        memset(bytes + rows[i].len, 'x', 20); /* what follows is not the header's */
        assert_int_equal(cv_announce_parse(cv_slice(bytes, rows[i].len + 20), &client, &len).id,
                         rows[i].status);
        if (rows[i].status != CV_OK)
            continue;
        assert_int_equal(len, rows[i].len);
        assert_string_equal(cv_addr_format(&client, text), rows[i].client);
        for (size_t cut = 0; cut < rows[i].len; cut++) {
            assert_int_equal(cv_announce_parse(cv_slice(bytes, cut), &client, &len).id, CV_AGAIN);
            assert_in_range(len, cut + 1, rows[i].len);
        }
    }
}

static void a_line_without_end_is_none(void **state)
{
    (void)state;
    char line[200] = "PROXY UNKNOWN ";
    struct cv_addr client;
    size_t len;
    memset(line + 14, 'x', sizeof line - 14);
    assert_int_equal(cv_announce_parse(cv_slice(line, 106), &client, &len).id, CV_AGAIN);
    assert_int_equal(cv_announce_parse(cv_slice(line, 107), &client, &len).id, CV_INVALID);
    assert_int_equal(cv_announce_parse(cv_slice(line, sizeof line), &client, &len).id, CV_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(headers_are_read_and_never_beyond_their_end),
        cmocka_unit_test(a_line_without_end_is_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
