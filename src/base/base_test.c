/* SPDX-License-Identifier: MIT */
#include "base/buf.h"
#include "base/digest.h"
#include "base/digits.h"
#include "base/fsm.h"
#include "base/test.h"
#include "base/timers.h"

#include <errno.h>

static void buf_refuses_more_than_its_cap(void **state)
{
    (void)state;
    struct cv_buf buf;
    cv_buf_init(&buf, 10);
    assert_ok(cv_buf_append(&buf, "0123456789", 10));
    assert_status(cv_buf_append(&buf, "x", 1), CV_NO_RESOURCES);
    assert_null(cv_buf_reserve(&buf, 1));
    cv_buf_consume(&buf, 4);
    assert_ok(cv_buf_append(&buf, "abcd", 4));
    assert_true(cv_slice_is(cv_buf_slice(&buf), "456789abcd"));
    cv_buf_done(&buf);
}

static void buf_keeps_order_over_many_sizes(void **state)
{
    (void)state;
    struct cv_buf buf;
    cv_buf_init(&buf, 1 << 16);
    uint8_t in = 0, out = 0;
    for (int round = 0; round < 2000; round++) {
        size_t add = (size_t)(round * 7919 % 97);
        for (size_t i = 0; i < add; i++)
            assert_ok(cv_buf_append_byte(&buf, in++));
        size_t take = (size_t)(round * 104729 % 101);
        if (take > cv_buf_len(&buf))
            take = cv_buf_len(&buf);
        for (size_t i = 0; i < take; i++)
            assert_int_equal(cv_buf_head(&buf)[i], out++);
        cv_buf_consume(&buf, take);
    }
    cv_buf_done(&buf);
}

static void buf_printf_spans_small_and_large(void **state)
{
    (void)state;
    struct cv_buf buf;
    cv_buf_init(&buf, 4096);
    assert_ok(cv_buf_printf(&buf, "%d-%s", 7, "x"));
    assert_ok(cv_buf_printf(&buf, "%01000d", 1));
    assert_int_equal(cv_buf_len(&buf), 1003);
    assert_status(cv_buf_printf(&buf, "%04000d", 1), CV_NO_RESOURCES);
    assert_int_equal(cv_buf_len(&buf), 1003);
    cv_buf_done(&buf);
}

static void slice_numbers_are_strict(void **state)
{
    (void)state;
    uint64_t n = 99;
    assert_false(cv_slice_to_u64(cv_slice_str(""), 10, &n));
    assert_false(cv_slice_to_u64(cv_slice_str("+1"), 10, &n));
    assert_false(cv_slice_to_u64(cv_slice_str("11"), 10, &n));
    assert_false(cv_slice_to_u64(cv_slice_str("7"), 5, &n));
    assert_false(cv_slice_to_u64(cv_slice_str("18446744073709551616"), UINT64_MAX, &n));
    assert_int_equal(n, 99);
    assert_true(cv_slice_to_u64(cv_slice_str("18446744073709551615"), UINT64_MAX, &n));
    assert_true(n == UINT64_MAX);
    assert_true(cv_slice_to_u64(cv_slice_str("010"), 10, &n));
    assert_int_equal(n, 10);
}

static void slice_compares_ascii_only(void **state)
{
    (void)state;
    assert_true(cv_slice_is_nocase(cv_slice_str("Content-LENGTH"), "content-length"));
    assert_false(cv_slice_is_nocase(cv_slice_str("a["), "a{"));
    assert_false(cv_slice_is_nocase(cv_slice_str("@"), "`"));
    struct cv_slice rest = cv_slice_str("a,,b");
    assert_true(cv_slice_is(cv_slice_split(&rest, ','), "a"));
    assert_true(cv_slice_is(cv_slice_split(&rest, ','), ""));
    assert_true(cv_slice_is(cv_slice_split(&rest, ','), "b"));
    assert_null(rest.data);
}

static void base64_refuses_what_is_not_canonical(void **state)
{
    (void)state;
    uint8_t out[16];
    size_t len;
    static const char *const bad[] = {"A", "AB==", "AA=", "A A=", "AAA=A", "====", "AB", "A_"};
    assert_false(cv_base64url_decode(cv_slice_str(bad[0]), out, &len));
    assert_false(cv_base64_decode(cv_slice_str(bad[1]), out, &len));
    assert_false(cv_base64_decode(cv_slice_str(bad[2]), out, &len));
    assert_false(cv_base64_decode(cv_slice_str(bad[3]), out, &len));
    assert_false(cv_base64_decode(cv_slice_str(bad[5]), out, &len));
    assert_false(cv_base64url_decode(cv_slice_str(bad[6]), out, &len));
    assert_false(cv_base64url_decode(cv_slice_str("QQ=="), out, &len));
    assert_true(cv_base64url_decode(cv_slice_str("-_8"), out, &len));
    assert_int_equal(len, 2);
    assert_true(cv_base64_decode(cv_slice_str("+/8="), out, &len));
    char text[16];
    assert_int_equal(cv_base64_encode(cv_slice("\xfb\xff", 2), text), 4);
    assert_string_equal(text, "+/8=");
    assert_int_equal(cv_base64url_encode(cv_slice("\xfb\xff", 2), text), 3);
    assert_string_equal(text, "-_8");
}

static void digests_match_known_answers(void **state)
{
    (void)state;
    uint8_t out[CV_SHA256_LEN];
    char hex[2 * CV_SHA256_LEN + 1];
    cv_sha1(cv_slice_str("abc"), out);
    cv_hex_encode(cv_slice(out, CV_SHA1_LEN), hex);
    assert_string_equal(hex, "a9993e364706816aba3e25717850c26c9cd0d89d");
    /* RFC 4231 §4.3 */
    cv_hmac_sha256(cv_slice_str("Jefe"), cv_slice_str("what do ya want for nothing?"), out);
    cv_hex_encode(cv_slice(out, CV_SHA256_LEN), hex);
    assert_string_equal(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
    assert_true(cv_equal_ct(cv_slice_str("ab"), cv_slice_str("ab")));
    assert_false(cv_equal_ct(cv_slice_str("ab"), cv_slice_str("ac")));
    uint8_t bytes[2];
    assert_true(cv_hex_decode(cv_slice_str("fF01"), bytes, 2));
    assert_false(cv_hex_decode(cv_slice_str("fg01"), bytes, 2));
    assert_false(cv_hex_decode(cv_slice_str("ff0"), bytes, 2));
}

struct ticking {
    struct cv_timers timers;
    struct cv_timer timer[100];
    uint64_t last_due;
    unsigned fired;
};

static void on_tick(void *arg)
{
    struct ticking *t = arg;
    t->fired++;
}

static void timers_fire_in_order_and_can_be_stopped(void **state)
{
    (void)state;
    struct ticking t = {0};
    cv_timers_init(&t.timers);
    for (size_t i = 0; i < 100; i++) {
        cv_timer_init(&t.timer[i], on_tick, &t);
        assert_ok(cv_timers_start(&t.timers, &t.timer[i], i * 37 % 100));
    }
    for (size_t i = 0; i < 100; i += 2)
        cv_timers_stop(&t.timers, &t.timer[i]);
    unsigned before = 0;
    for (uint64_t now = 0; now < 100; now++) {
        cv_timers_run(&t.timers, now);
        assert_true(t.fired - before <= 1);
        before = t.fired;
        assert_true(cv_timers_next(&t.timers) > now);
    }
    assert_int_equal(t.fired, 50);
    assert_true(cv_timers_next(&t.timers) == UINT64_MAX);
    cv_timers_done(&t.timers);
}

static void status_table_is_complete(void **state)
{
    (void)state;
    for (int id = 0; id < CV_STATUS_COUNT; id++) {
        assert_true(cv_status_text((enum cv_status_id)id)[0]);
        assert_in_range(cv_status_http((enum cv_status_id)id), 200, 599);
        assert_in_range(cv_status_ws_close((enum cv_status_id)id), 1000, 4999);
    }
    assert_string_equal(cv_status_code(CV_AUTH_EXPIRED), "TUNNEL_003");
    struct cv_error error;
    assert_status(
        cv_fail_errno(&error, cv_status_from_errno(ECONNREFUSED), ECONNREFUSED, "dial %s", "x"),
        CV_CONN_REFUSED);
    assert_string_equal(error.detail, "dial x: Connection refused");
}

static void details_hold_nothing_that_moves_a_cursor(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"a\x1b[2Jb\r\n\x7f", "a?[2Jb???"}, /* C0 and DEL */
        {"a\xc2\x9b"
         "2J \xc2\xa0",
         "a??2J \xc2\xa0"}, /* C1; a blank is none */
        {"a\x9b"
         "2J\xff\xc0\x80",
         "a?2J???"}, /* no UTF-8 */
        {"\xe2\x80\x9c\xf0\x9f\x98\x80\xe2", "\xe2\x80\x9c\xf0\x9f\x98\x80?"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cv_error error;
        assert_status(cv_fail(&error, CV_INVALID, "%s", cases[i][0]), CV_INVALID);
        assert_string_equal(error.detail, cases[i][1]);
    }
}

static void digits_read_as_printf_would_write_them(void **state)
{
    (void)state;
    static const uint64_t values[] = {0, 1, 9, 10, 15, 16, 255, 256, 4095, 1000000, UINT64_MAX};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        char want[32], got[CV_DIGITS_MAX + 1];
        (void)snprintf(want, sizeof want, "%llu", (unsigned long long)values[i]);
        got[cv_digits_decimal(got, values[i])] = '\0';
        assert_string_equal(got, want);
        (void)snprintf(want, sizeof want, "%llx", (unsigned long long)values[i]);
        got[cv_digits_hex(got, values[i])] = '\0';
        assert_string_equal(got, want);
    }
}

/* A hasher starts anew each time. */
static void hasher_says_what_the_hash_says(void **state)
{
    (void)state;
    struct cv_hasher *hasher = cv_hasher_new();
    uint8_t want[CV_SHA256_LEN], got[CV_SHA256_LEN];
    static const char *const texts[] = {"", "abc", "abc", "a longer one than the one before"};
    assert_non_null(hasher);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        cv_sha256(cv_slice_str(texts[i]), want);
        cv_hasher_sha256(hasher, cv_slice_str(texts[i]), got);
        assert_memory_equal(got, want, sizeof want);
    }
    cv_hasher_free(&hasher);
    assert_null(hasher);
}

static void texts_are_cut_between_characters(void **state)
{
    static const struct {
        const char *text;
        size_t max, fits;
    } rows[] = {
        {"", 5, 0},
        {"abc", 5, 3},
        {"abc", 3, 3},
        {"abc", 2, 2},
        {"abc", 0, 0},
        {"a\xc3\xa9", 3, 3},
        {"a\xc3\xa9", 2, 1},
        {"\xe2\x82\xac", 2, 0},
        {"\xe2\x82\xac!", 3, 3},
        {"\xf0\x9f\x98\x80", 3, 0},
    };
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        assert_int_equal(cv_text_fit(rows[i].text, rows[i].max), rows[i].fits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(details_hold_nothing_that_moves_a_cursor),
        cmocka_unit_test(buf_refuses_more_than_its_cap),
        cmocka_unit_test(buf_keeps_order_over_many_sizes),
        cmocka_unit_test(buf_printf_spans_small_and_large),
        cmocka_unit_test(slice_numbers_are_strict),
        cmocka_unit_test(slice_compares_ascii_only),
        cmocka_unit_test(base64_refuses_what_is_not_canonical),
        cmocka_unit_test(digests_match_known_answers),
        cmocka_unit_test(digits_read_as_printf_would_write_them),
        cmocka_unit_test(hasher_says_what_the_hash_says),
        cmocka_unit_test(timers_fire_in_order_and_can_be_stopped),
        cmocka_unit_test(status_table_is_complete),
        cmocka_unit_test(texts_are_cut_between_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
