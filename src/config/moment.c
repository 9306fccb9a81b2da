/* SPDX-License-Identifier: MIT */
#include "config/moment.h"

#include "config/value.h"

#include <time.h>

#define MOMENT_MAX INT64_C(253402300799) /* the last second of 9999 */

/* A number of exactly `digits` digits at the front, which it takes away. */
static bool take_number(struct cv_slice *text, size_t digits, int min, int max, int *value)
{
    int number = 0;
    if (text->len < digits)
        return false;
    for (size_t i = 0; i < digits; i++) {
        uint8_t c = text->data[i];
        if (c < '0' || c > '9')
            return false;
        number = number * 10 + (c - '0');
    }
    *text = cv_slice(text->data + digits, text->len - digits);
    *value = number;
    return number >= min && number <= max;
}

static bool take_byte(struct cv_slice *text, const char *choices)
{
    if (text->len == 0 || !memchr(choices, text->data[0], strlen(choices)))
        return false;
    *text = cv_slice(text->data + 1, text->len - 1);
    return true;
}

static int days_in(int year, int month)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return days[month - 1] + (month == 2 && is_leap);
}

/* RFC 3339 §5.6: time-secfrac. */
static bool take_fraction(struct cv_slice *text)
{
    int digit;
    if (!take_byte(text, "."))
        return true;
    if (!take_number(text, 1, 0, 9, &digit))
        return false;
    while (take_byte(text, "0123456789"))
        ;
    return true;
}

/* RFC 3339 §5.6: time-offset, in seconds. */
static bool take_offset(struct cv_slice *text, int *offset_s)
{
    int hours, minutes;
    *offset_s = 0;
    if (take_byte(text, "Zz"))
        return true;
    bool is_west = text->len && text->data[0] == '-';
    if (!take_byte(text, "+-") || !take_number(text, 2, 0, 23, &hours) || !take_byte(text, ":") ||
        !take_number(text, 2, 0, 59, &minutes))
        return false;
    *offset_s = (hours * 3600 + minutes * 60) * (is_west ? -1 : 1);
    return true;
}

static bool parse_rfc3339(struct cv_slice text, int64_t *at_s)
{
    int year, month, day, hour, minute, second, offset_s;
    if (!take_number(&text, 4, 1970, 9999, &year) || !take_byte(&text, "-") ||
        !take_number(&text, 2, 1, 12, &month) || !take_byte(&text, "-") ||
        !take_number(&text, 2, 1, days_in(year, month), &day) || !take_byte(&text, "Tt") ||
        !take_number(&text, 2, 0, 23, &hour) || !take_byte(&text, ":") ||
        !take_number(&text, 2, 0, 59, &minute) || !take_byte(&text, ":") ||
        !take_number(&text, 2, 0, 60, &second) || !take_fraction(&text) ||
        !take_offset(&text, &offset_s) || text.len)
        return false;
    struct tm tm = {.tm_year = year - 1900,
                    .tm_mon = month - 1,
                    .tm_mday = day,
                    .tm_hour = hour,
                    .tm_min = minute,
                    .tm_sec = second == 60 ? 59 : second};
    *at_s = (int64_t)timegm(&tm) - offset_s;
    return true;
}

/* Behind "now" or instead of it. */
static bool parse_relative(struct cv_slice text, int64_t now_s, int64_t *at_s)
{
    uint64_t ms;
    if (!take_byte(&text, "-") || !cv_value_duration(text, false, &ms))
        return false;
    *at_s = now_s - (int64_t)(ms / 1000);
    return true;
}

bool cv_moment_parse(struct cv_slice text, int64_t now_s, int64_t *at_s)
{
    int64_t found_s = now_s;
    struct cv_slice behind = text;
    bool has_now = cv_slice_starts_with(text, "now");
    if (has_now)
        behind = cv_slice(text.data + 3, text.len - 3);
    bool is_relative = behind.len && behind.data[0] == '-';
    if (is_relative ? !parse_relative(behind, now_s, &found_s)
        : has_now   ? behind.len > 0
                    : !parse_rfc3339(text, &found_s))
        return false;
    if (found_s < 0 || found_s > MOMENT_MAX)
        return false;
    *at_s = found_s;
    return true;
}

const char *cv_moment_print(int64_t at_s, char out[CV_MOMENT_SIZE])
{
    time_t seconds = (time_t)(at_s < 0 ? 0 : at_s > MOMENT_MAX ? MOMENT_MAX : at_s);
    struct tm tm;
    if (!gmtime_r(&seconds, &tm) ||
        strftime(out, CV_MOMENT_SIZE, "%Y-%m-%dT%H:%M:%SZ", &tm) != CV_MOMENT_SIZE - 1)
        out[0] = '\0';
    return out;
}
