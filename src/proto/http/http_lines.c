/* SPDX-License-Identifier: MIT */
#include "proto/http/http_lines.h"

#include "proto/http/http_chars.h"

enum { KEEP_BYTES = 1024 };

void cv_http_lines_init(struct cv_http_lines *lines, const struct cv_http_lines_limits *limits)
{
    *lines = (struct cv_http_lines){.limits = *limits};
    cv_buf_init(&lines->buf, limits->section);
}

void cv_http_lines_done(struct cv_http_lines *lines)
{
    cv_buf_done(&lines->buf);
}

void cv_http_lines_reset(struct cv_http_lines *lines)
{
    cv_buf_consume(&lines->buf, cv_buf_len(&lines->buf));
    cv_buf_shrink(&lines->buf, KEEP_BYTES);
    lines->line_count = 0;
    lines->line_len = 0;
    lines->is_after_cr = false;
    lines->has_blank_start = false;
    lines->has_space = false;
}

static struct cv_status fail(enum cv_status_id id, const char **fault, const char *text)
{
    *fault = text;
    return cv_status(id);
}

/* One byte that is neither the end of a line nor over a limit. */
static struct cv_status check_byte(struct cv_http_lines *lines, uint8_t c, const char **fault)
{
    if (lines->is_after_cr)
        return fail(CV_BAD_REQUEST, fault, "a bare CR in the head (RFC 9112 2.2)");
    if (c == '\n')
        return fail(CV_BAD_REQUEST, fault, "a bare LF in the head (RFC 9112 2.2)");
    if (c != '\r' && !(cv_http_chars[c] & CV_HTTP_VCHAR))
        return fail(CV_BAD_REQUEST, fault, "a control character in the head (RFC 9110 5.5)");
    lines->is_after_cr = c == '\r';
    lines->has_space |= c == ' ';
    lines->line_len++;
    return cv_ok();
}

static struct cv_status check_limits(const struct cv_http_lines *lines, size_t section_len,
                                     const char **fault)
{
    const struct cv_http_lines_limits *limits = &lines->limits;
    if (limits->first_word && lines->line_count == 0 && !lines->has_space &&
        lines->line_len - lines->is_after_cr > limits->first_word)
        return fail(CV_BAD_REQUEST, fault, "the method is too long (RFC 9110 9.1)");
    /* line_len counts the CR once it has come. */
    if (limits->first_line && lines->line_count == 0 &&
        lines->line_len - lines->is_after_cr > limits->first_line)
        return fail(CV_URI_TOO_LONG, fault, "the start line is too long");
    if (section_len > limits->section)
        return fail(CV_HEAD_TOO_LARGE, fault, "the section is too large");
    return cv_ok();
}

/* What a byte completes. */
enum outcome { PLAIN, FIRST_LINE_DONE, BLANK_DROPPED, SECTION_DONE };

static struct cv_status end_line(struct cv_http_lines *lines, enum outcome *outcome,
                                 const char **fault)
{
    const struct cv_http_lines_limits *limits = &lines->limits;
    bool is_empty = lines->line_len == 1; /* the CR alone */
    lines->line_len = 0;
    lines->is_after_cr = false;
    if (is_empty) {
        *outcome = SECTION_DONE;
        if (limits->first_line && lines->line_count == 0) {
            if (!limits->allows_blank || lines->has_blank_start)
                return fail(CV_BAD_REQUEST, fault, "empty lines before the head (RFC 9112 2.2)");
            lines->has_blank_start = true;
            *outcome = BLANK_DROPPED;
        }
    } else if (++lines->line_count > limits->line_count) {
        return fail(CV_HEAD_TOO_LARGE, fault, "too many field lines");
    } else if (lines->line_count == 1) {
        *outcome = FIRST_LINE_DONE;
    }
    return cv_ok();
}

/* How many bytes from `data` on can be taken at once: text, within the limits. The first word is
 * looked at byte by byte. */
static size_t plain_run(const struct cv_http_lines *lines, const uint8_t *data, size_t len,
                        size_t section_len)
{
    const struct cv_http_lines_limits *limits = &lines->limits;
    size_t most = limits->section > section_len ? limits->section - section_len : 0;
    if (lines->is_after_cr || (lines->line_count == 0 && limits->first_word && !lines->has_space))
        return 0;
    if (lines->line_count == 0 && limits->first_line) {
        size_t left =
            limits->first_line > lines->line_len ? limits->first_line - lines->line_len : 0;
        most = left < most ? left : most;
    }
    return cv_http_text_len(data, len < most ? len : most);
}

static bool reserve(struct cv_http_lines *lines, size_t len)
{
    size_t room = cv_buf_room(&lines->buf), most = room < KEEP_BYTES ? room : KEEP_BYTES;
    return cv_buf_reserve(&lines->buf, len < most ? len : most);
}

struct cv_status cv_http_lines_take(struct cv_http_lines *lines, const uint8_t *data, size_t len,
                                    size_t *used, const char **fault)
{
    size_t held = cv_buf_len(&lines->buf), from = 0, i = 0;
    enum outcome outcome = PLAIN;
    /* Most sections come in one piece and then take memory once. */
    if (len && !lines->buf.data && !reserve(lines, len))
        return fail(CV_NO_MEMORY, fault, "out of memory");
    while (i < len && outcome != SECTION_DONE && outcome != FIRST_LINE_DONE) {
        size_t run = plain_run(lines, data + i, len - i, held + (i - from));
        lines->line_len += run;
        i += run;
        if (i == len)
            break;
        uint8_t c = data[i++];
        outcome = PLAIN;
        if (c == '\n' && lines->is_after_cr)
            CV_RETURN_IF_ERROR(end_line(lines, &outcome, fault));
        else
            CV_RETURN_IF_ERROR(check_byte(lines, c, fault));
        CV_RETURN_IF_ERROR(check_limits(lines, held + (i - from), fault));
        if (outcome == BLANK_DROPPED) {
            cv_buf_consume(&lines->buf, held);
            held = 0;
            from = i;
        }
    }
    *used = i;
    if (i > from && !cv_is_ok(cv_buf_append(&lines->buf, data + from, i - from)))
        return fail(CV_NO_MEMORY, fault, "out of memory");
    return outcome == SECTION_DONE ? cv_ok() : cv_status(CV_AGAIN);
}
