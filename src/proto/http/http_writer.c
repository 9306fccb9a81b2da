/* SPDX-License-Identifier: MIT */
#include "proto/http/http_writer.h"

#include <time.h>

#include "base/digits.h"
#include "proto/http/http_chars.h"

/* Appends all parts or nothing. */
static struct cv_status put(struct cv_buf *out, const struct cv_slice *parts, size_t count)
{
    size_t len = 0;
    for (size_t i = 0; i < count; i++)
        len += parts[i].len;
    if (len > cv_buf_room(out))
        return cv_status(CV_NO_RESOURCES);
    uint8_t *to = cv_buf_reserve(out, len);
    if (!to)
        return cv_status(CV_NO_MEMORY);
    for (size_t i = 0; i < count; i++) {
        if (parts[i].len)
            memcpy(to, parts[i].data, parts[i].len);
        to += parts[i].len;
    }
    cv_buf_commit(out, len);
    return cv_ok();
}

#define PUT(out, ...)                                                                              \
    put(out, (const struct cv_slice[]){__VA_ARGS__},                                               \
        sizeof((const struct cv_slice[]){__VA_ARGS__}) / sizeof(struct cv_slice))
#define STR(text) cv_slice(text, sizeof(text) - 1)

/* The superset of all forms: the parser has told them apart, here only the line must hold. */
static bool is_target(struct cv_slice target)
{
    for (size_t i = 0; i < target.len; i++)
        if (!(cv_http_chars[target.data[i]] & CV_HTTP_QUERYC))
            return false;
    return target.len > 0;
}

struct cv_status cv_http_write_request_line(struct cv_buf *out, struct cv_slice method,
                                            struct cv_slice target)
{
    if (!cv_http_is_token(method) || method.len > CV_HTTP_METHOD_MAX || !is_target(target))
        return cv_status(CV_INVALID);
    return PUT(out, method, STR(" "), target, STR(" HTTP/1.1\r\n"));
}

struct cv_status cv_http_write_status_line(struct cv_buf *out, int status, struct cv_slice reason)
{
    if (status < 100 || status > 999 || !cv_http_is_field_value(reason))
        return cv_status(CV_INVALID);
    char digits[3] = {(char)('0' + status / 100), (char)('0' + status / 10 % 10),
                      (char)('0' + status % 10)};
    return PUT(out, STR("HTTP/1.1 "), cv_slice(digits, 3), STR(" "), reason, STR("\r\n"));
}

struct cv_status cv_http_write_field(struct cv_buf *out, struct cv_slice name,
                                     struct cv_slice value)
{
    value = cv_slice_trim(value);
    if (!cv_http_is_token(name) || !cv_http_is_field_value(value))
        return cv_status(CV_INVALID);
    return PUT(out, name, STR(": "), value, STR("\r\n"));
}

struct cv_status cv_http_write_field_str(struct cv_buf *out, const char *name, const char *value)
{
    return cv_http_write_field(out, cv_slice_str(name), cv_slice_str(value));
}

static const char *const written_by_caller[] = {"host", "content-length", "expect", NULL};

struct cv_status cv_http_write_fields(struct cv_buf *out, const struct cv_http_head *head,
                                      const char *const *drop)
{
    size_t before = cv_buf_len(out);
    const struct cv_http_head *taking = cv_http_takes_away(head) ? head : NULL;
    for (size_t i = 0; i < head->field_count; i++) {
        struct cv_slice name = head->fields[i].name;
        if (cv_http_name_is_in(name, written_by_caller) || cv_http_is_hop_by_hop(taking, name) ||
            (drop && cv_http_name_is_in(name, drop)))
            continue;
        struct cv_status status =
            cv_http_write_field(out, head->fields[i].name, head->fields[i].value);
        if (!cv_is_ok(status)) {
            cv_buf_truncate(out, before);
            return status;
        }
    }
    return cv_ok();
}

struct cv_status cv_http_write_framing(struct cv_buf *out, enum cv_http_framing framing,
                                       uint64_t content_length)
{
    char number[CV_DIGITS_MAX];
    switch (framing) {
    case CV_HTTP_LENGTH:
        return PUT(out, STR("Content-Length: "),
                   cv_slice(number, cv_digits_decimal(number, content_length)), STR("\r\n"));
    case CV_HTTP_CHUNKED:
        return PUT(out, STR("Transfer-Encoding: chunked\r\n"));
    case CV_HTTP_NO_BODY:
    case CV_HTTP_UNTIL_CLOSE:
        break;
    }
    return cv_ok();
}

struct cv_status cv_http_write_head_end(struct cv_buf *out)
{
    return PUT(out, STR("\r\n"));
}

size_t cv_http_chunk_line(uint64_t len, char line[CV_HTTP_CHUNK_LINE_MAX])
{
    size_t n = cv_digits_hex(line, len);
    line[n++] = '\r';
    line[n++] = '\n';
    return n;
}

struct cv_status cv_http_write_chunk(struct cv_buf *out, struct cv_slice data)
{
    char line[CV_HTTP_CHUNK_LINE_MAX];
    if (data.len == 0)
        return cv_ok();
    size_t len = cv_http_chunk_line(data.len, line);
    return PUT(out, cv_slice(line, len), data, STR("\r\n"));
}

struct cv_status cv_http_write_last_chunk(struct cv_buf *out, const struct cv_http_field *trailers,
                                          size_t count)
{
    size_t before = cv_buf_len(out);
    struct cv_status status = PUT(out, STR("0\r\n"));
    for (size_t i = 0; i < count && cv_is_ok(status); i++)
        if (cv_http_is_trailer_allowed(trailers[i].name))
            status = cv_http_write_field(out, trailers[i].name, trailers[i].value);
    if (cv_is_ok(status))
        status = PUT(out, STR("\r\n"));
    if (!cv_is_ok(status))
        cv_buf_truncate(out, before);
    return status;
}

bool cv_http_date(uint64_t unix_s, char out[CV_HTTP_DATE_LEN + 1])
{
    static const char days[][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static const char months[][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    struct tm tm;
    time_t seconds = (time_t)unix_s;
    if (unix_s > 253402300799 || !gmtime_r(&seconds, &tm)) /* the last second of 9999 */
        return false;
    int n = snprintf(out, CV_HTTP_DATE_LEN + 1, "%s, %02d %s %04d %02d:%02d:%02d GMT",
                     days[tm.tm_wday % 7], tm.tm_mday, months[tm.tm_mon % 12], tm.tm_year + 1900,
                     tm.tm_hour, tm.tm_min, tm.tm_sec);
    return n == CV_HTTP_DATE_LEN;
}
