/* SPDX-License-Identifier: MIT */
#include "base/test.h"
#include "config/moment.h"

enum { NOW = 1795395661 }; /* 2026-11-23T01:01:01Z */

static const struct {
    const char *text;
    int64_t at_s; /* -1: refused */
} rows[] = {
    {"now", NOW},
    {"-5m", NOW - 300},
    {"now-5m", NOW - 300},
    {"-90s", NOW - 90},
    {"-7d", NOW - 7 * 86400},
    {"-1500ms", NOW - 1},
    {"-0", NOW},
    {"2026-11-23T01:01:01Z", NOW},
    {"2026-11-23t01:01:01z", NOW},
    {"2026-11-23T01:01:01.999Z", NOW},
    {"2026-11-23T02:01:01+01:00", NOW},
    {"2026-11-22T20:31:01-04:30", NOW},
    {"2024-02-29T00:00:00Z", 1709164800},
    {"2016-12-31T23:59:60Z", 1483228799},
    {"1970-01-01T00:00:00Z", 0},
    {"9999-12-31T23:59:59Z", INT64_C(253402300799)},
    {"", -1},
    {"NOW", -1},
    {"now ", -1},
    {"now+5m", -1},
    {"+5m", -1},
    {"5m", -1},
    {"-5", -1},
    {"-", -1},
    {"now-", -1},
    {"--5m", -1},
    {"-99999999999d", -1},
    {"-30000d", -1},
    {"1795395661", -1},
    {"2026-11-23", -1},
    {"2026-11-23T01:01:01", -1},
    {"2026-11-23 01:01:01Z", -1},
    {"2026-11-23T01:01Z", -1},
    {"2026-11-23T24:00:00Z", -1},
    {"2026-11-23T01:60:00Z", -1},
    {"2026-11-23T01:00:61Z", -1},
    {"2026-13-01T00:00:00Z", -1},
    {"2026-00-01T00:00:00Z", -1},
    {"2026-11-31T00:00:00Z", -1},
    {"2026-02-29T00:00:00Z", -1},
    {"2100-02-29T00:00:00Z", -1},
    {"1969-12-31T23:59:59Z", -1},
    {"1970-01-01T00:00:00+00:01", -1},
    {"2026-11-23T01:01:01.Z", -1},
    {"2026-11-23T01:01:01+0100", -1},
    {"2026-11-23T01:01:01+24:00", -1},
    {"2026-11-23T01:01:01ZZ", -1},
    {"2026-11-2xT01:01:01Z", -1},
};

static void moments(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        int64_t at_s = -7;
        bool is_good = cv_moment_parse(cv_slice_str(rows[i].text), NOW, &at_s);
        if (is_good != (rows[i].at_s >= 0) || at_s != (is_good ? rows[i].at_s : -7))
            fail_msg("%s: %d, %lld", rows[i].text, is_good, (long long)at_s);
    }
}

static void what_is_printed_is_read_back(void **state)
{
    static const int64_t moments[] = {0, 1, NOW, 1709164800, INT64_C(253402300799)};
    char text[CV_MOMENT_SIZE];
    (void)state;
    for (size_t i = 0; i < sizeof moments / sizeof moments[0]; i++) {
        int64_t at_s;
        assert_true(cv_moment_parse(cv_slice_str(cv_moment_print(moments[i], text)), 5, &at_s));
        assert_true(at_s == moments[i]);
    }
    assert_string_equal(cv_moment_print(NOW, text), "2026-11-23T01:01:01Z");
    assert_string_equal(cv_moment_print(-5, text), "1970-01-01T00:00:00Z");
    assert_string_equal(cv_moment_print(INT64_MAX, text), "9999-12-31T23:59:59Z");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(moments),
        cmocka_unit_test(what_is_printed_is_read_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
