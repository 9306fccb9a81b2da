/* SPDX-License-Identifier: MIT */
#include "telemetry/log_line.h"

#include "base/digest.h"
#include "base/digits.h"
#include "telemetry/redact.h"

#include <inttypes.h>
#include <stdarg.h>

/* What every line ends with must always fit: "truncated", service, version, instance. */
#define TAIL_MAX 256

/* Redacting takes quadratic time on bytes made to hurt it. */
#define VALUE_LOOK_MAX (2 * CV_LOG_VALUE_MAX)

struct out {
    struct cv_log_line *line;
    size_t cap;
    bool is_full; /* since the last mark something did not fit */
    bool is_cut;  /* something was left out of this line */
};

static void put(struct out *out, const char *bytes, size_t len)
{
    if (out->is_full || len > out->cap - out->line->len) {
        out->is_full = true;
        return;
    }
    memcpy(out->line->text + out->line->len, bytes, len);
    out->line->len += len;
}

static void put_str(struct out *out, const char *text)
{
    put(out, text, strlen(text));
}

__attribute__((format(printf, 2, 3))) static void put_format(struct out *out, const char *format,
                                                             ...)
{
    char text[64];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (len > 0 && (size_t)len < sizeof text)
        put(out, text, (size_t)len);
}

/* Takes back what was written since `mark` when not all of it fitted. */
static void settle(struct out *out, size_t mark)
{
    if (!out->is_full)
        return;
    out->line->len = mark;
    out->is_full = false;
    out->is_cut = true;
}

/* Length of the UTF-8 sequence at `at` (RFC 3629 §4), its code point in *point; 0 when it is none.
 */
static size_t utf8(struct cv_slice text, size_t at, uint32_t *point)
{
    const uint8_t *s = text.data + at;
    size_t left = text.len - at;
    if (s[0] < 0x80) {
        *point = s[0];
        return 1;
    }
    size_t len = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (s[0] < 0xc2 || s[0] > 0xf4 || left < len)
        return 0;
    uint32_t value = s[0] & (0x7fu >> len);
    for (size_t i = 1; i < len; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        value = value << 6 | (s[i] & 0x3fu);
    }
    if (value < least[len] || value > 0x10ffff || (value >= 0xd800 && value <= 0xdfff))
        return 0;
    *point = value;
    return len;
}

/* Controls, and what reorders or breaks lines when shown: C1, U+2028/9, bidirectional overrides. */
static bool is_unsafe(uint32_t point)
{
    return point < 0x20 || (point >= 0x7f && point <= 0x9f) || point == 0x2028 || point == 0x2029 ||
           (point >= 0x202a && point <= 0x202e) || (point >= 0x2066 && point <= 0x2069);
}

/* Most of any text stands for itself. */
static size_t plain_run(struct cv_slice text, size_t from)
{
    size_t i = from;
    while (i < text.len && text.data[i] >= ' ' && text.data[i] < 0x7f && text.data[i] != '"' &&
           text.data[i] != '\\')
        i++;
    return i - from;
}

static void put_escaped(struct out *out, struct cv_slice text)
{
    for (size_t i = 0; i < text.len;) {
        size_t run = plain_run(text, i);
        if (run) {
            put(out, (const char *)text.data + i, run);
            i += run;
            continue;
        }
        uint32_t point = 0xfffd;
        size_t len = utf8(text, i, &point);
        if (len == 0 || point == 0) { /* many readers of JSON take no NUL, not even escaped */
            put_str(out, "\\ufffd");
            i++;
            continue;
        }
        if (point == '"' || point == '\\')
            put_format(out, "\\%c", (char)point);
        else if (point == '\n')
            put_str(out, "\\n");
        else if (is_unsafe(point))
            put_format(out, "\\u%04" PRIx32, point);
        else
            put(out, (const char *)text.data + i, len);
        i += len;
    }
}

/* Redacts, cuts at CV_LOG_VALUE_MAX on a character's edge, escapes. */
static void put_value(struct out *out, struct cv_slice text)
{
    char clean[CV_LOG_VALUE_MAX + 1];
    if (text.len > VALUE_LOOK_MAX)
        text.len = VALUE_LOOK_MAX;
    struct cv_slice shown = cv_slice(clean, cv_redact(text, clean, sizeof clean));
    if (shown.len == CV_LOG_VALUE_MAX) {
        out->is_cut = true;
        while (shown.len > CV_LOG_VALUE_MAX - 4 && (clean[shown.len - 1] & 0xc0) == 0x80)
            shown.len--;
        shown.len--;
    }
    put_escaped(out, shown);
}

static void json_key(struct out *out, const char *key)
{
    put_str(out, ",\"");
    put_str(out, key);
    put_str(out, "\":");
}

static void put_uint(struct out *out, uint64_t value)
{
    char digits[CV_DIGITS_MAX];
    size_t len = cv_digits_decimal(digits, value);
    put(out, digits, len);
}

static void json_string(struct out *out, const char *key, struct cv_slice value)
{
    size_t mark = out->line->len;
    json_key(out, key);
    put_str(out, "\"");
    if (cv_redact_is_secret_name(cv_slice_str(key)))
        put_str(out, CV_REDACTED);
    else
        put_value(out, value);
    put_str(out, "\"");
    settle(out, mark);
}

static void json_error(struct out *out, enum cv_status_id id, const struct cv_error *error)
{
    if (id == CV_OK)
        return;
    size_t mark = out->line->len;
    const char *code = cv_status_code(id);
    put_str(out, ",\"error\":{\"message\":\"");
    put_value(out, cv_slice_str(error && error->detail[0] ? error->detail : cv_status_text(id)));
    put_format(out, "\",\"code\":\"%s\",\"reason\":\"%s\"", code[0] ? code : cv_status_name(id),
               cv_status_name(id));
    if (error && error->sys_errno) {
        const char *name = strerrorname_np(error->sys_errno);
        put_format(out, ",\"errno\":\"%s\"", name ? name : "unknown");
    }
    put_str(out, "}");
    settle(out, mark);
}

static void json_trace(struct out *out, const struct cv_trace_ids *trace)
{
    char hex[2 * CV_TRACE_ID_LEN + 1];
    size_t mark = out->line->len;
    if (!trace)
        return;
    cv_hex_encode(cv_slice(trace->trace_id, CV_TRACE_ID_LEN), hex);
    put_str(out, ",\"trace_id\":\"");
    put_str(out, hex);
    cv_hex_encode(cv_slice(trace->span_id, CV_SPAN_ID_LEN), hex);
    put_str(out, "\",\"span_id\":\"");
    put_str(out, hex);
    put_str(out, "\"");
    settle(out, mark);
}

static void text_trace(struct out *out, const struct cv_trace_ids *trace)
{
    char hex[2 * CV_TRACE_ID_LEN + 1];
    if (!trace)
        return;
    cv_hex_encode(cv_slice(trace->trace_id, CV_TRACE_ID_LEN), hex);
    put_format(out, " trace_id=%s", hex);
    cv_hex_encode(cv_slice(trace->span_id, CV_SPAN_ID_LEN), hex);
    put_format(out, " span_id=%s", hex);
}

static void json_field(struct out *out, const struct cv_log_field *field)
{
    size_t mark = out->line->len;
    switch (field->kind) {
    case CV_LOG_FIELD_STR:
        if (field->value.str)
            json_string(out, field->key, cv_slice_str(field->value.str));
        return;
    case CV_LOG_FIELD_SLICE:
        json_string(out, field->key, field->value.slice);
        return;
    case CV_LOG_FIELD_INT:
        json_key(out, field->key);
        if (field->value.sint < 0)
            put_str(out, "-");
        put_uint(out, field->value.sint < 0 ? 0 - (uint64_t)field->value.sint
                                            : (uint64_t)field->value.sint);
        break;
    case CV_LOG_FIELD_UINT:
        json_key(out, field->key);
        put_uint(out, field->value.uint);
        break;
    case CV_LOG_FIELD_BOOL:
        json_key(out, field->key);
        put_str(out, field->value.flag ? "true" : "false");
        break;
    case CV_LOG_FIELD_STATUS:
        json_error(out, field->value.status, NULL);
        return;
    case CV_LOG_FIELD_ERROR:
        if (field->value.error)
            json_error(out, field->value.error->id, field->value.error);
        return;
    case CV_LOG_FIELD_TRACE:
        json_trace(out, field->value.trace);
        return;
    case CV_LOG_FIELD_END:
        return;
    }
    settle(out, mark);
}

static void put_two(char *out, int value)
{
    out[0] = (char)('0' + value / 10 % 10);
    out[1] = (char)('0' + value % 10);
}

void cv_log_time(uint64_t realtime_ms, char out[CV_LOG_TIME_SIZE])
{
    time_t seconds = (time_t)(realtime_ms / 1000);
    unsigned ms = (unsigned)(realtime_ms % 1000);
    struct tm tm;
    memcpy(out, "0000-00-00T00:00:00.000Z", sizeof "0000-00-00T00:00:00.000Z");
    if (!gmtime_r(&seconds, &tm) || tm.tm_year > 9999 - 1900)
        return;
    put_two(out, (tm.tm_year + 1900) / 100);
    put_two(out + 2, tm.tm_year + 1900);
    put_two(out + 5, tm.tm_mon + 1);
    put_two(out + 8, tm.tm_mday);
    put_two(out + 11, tm.tm_hour);
    put_two(out + 14, tm.tm_min);
    put_two(out + 17, tm.tm_sec);
    out[20] = (char)('0' + ms / 100);
    put_two(out + 21, (int)(ms % 100));
}

/* People at a terminal know the date. */
static void put_time(struct out *out, uint64_t realtime_ms, bool has_date)
{
    char text[CV_LOG_TIME_SIZE];
    cv_log_time(realtime_ms, text);
    const char *clock = strchr(text, 'T');
    put_str(out, has_date || !clock ? text : clock + 1);
}

void cv_log_line_members(struct cv_log_line *line, const struct cv_log_field *fields)
{
    line->len = 0;
    struct out out = {.line = line, .cap = sizeof line->text - TAIL_MAX};
    for (const struct cv_log_field *f = fields; f->kind != CV_LOG_FIELD_END; f++)
        json_field(&out, f);
    out.cap = sizeof line->text;
    if (out.is_cut)
        put_str(&out, ",\"truncated\":true");
}

void cv_log_line_json(struct cv_log_line *line, const struct cv_log_record *record)
{
    line->len = 0;
    struct out out = {.line = line, .cap = sizeof line->text - TAIL_MAX};
    put_str(&out, "{\"timestamp\":\"");
    put_time(&out, record->realtime_ms, true);
    put_format(&out, "\",\"level\":\"%s\"", cv_log_level_name(record->level));
    json_string(&out, "message", cv_slice_str(record->message));
    json_string(&out, "component", cv_slice_str(record->component));
    json_string(&out, "event", cv_slice_str(record->event));
    for (const struct cv_log_field *f = record->fields; f->kind != CV_LOG_FIELD_END; f++)
        json_field(&out, f);
    out.cap = sizeof line->text;
    if (record->suppressed)
        put_format(&out, ",\"suppressed\":%" PRIu64, record->suppressed);
    if (out.is_cut)
        put_str(&out, ",\"truncated\":true");
    put_str(&out, ",\"service\":\"culvert\"");
    if (record->version[0])
        put_format(&out, ",\"version\":\"%s\"", record->version);
    if (record->instance[0]) {
        put_str(&out, ",\"instance\":\"");
        put_str(&out, record->instance);
        put_str(&out, "\"");
    }
    put_str(&out, "}\n");
}

static bool needs_quotes(struct cv_slice text)
{
    for (size_t i = 0; i < text.len; i++)
        if (text.data[i] <= ' ' || text.data[i] == '"' || text.data[i] == '=')
            return true;
    return text.len == 0;
}

static void text_string(struct out *out, const char *key, struct cv_slice value)
{
    size_t mark = out->line->len;
    bool is_secret = cv_redact_is_secret_name(cv_slice_str(key));
    struct cv_slice shown = is_secret ? cv_slice_str(CV_REDACTED) : value;
    const char *quote = needs_quotes(shown) ? "\"" : "";
    put_format(out, " %s=%s", key, quote);
    put_value(out, shown);
    put_str(out, quote);
    settle(out, mark);
}

static void text_error(struct out *out, enum cv_status_id id, const struct cv_error *error)
{
    if (id == CV_OK)
        return;
    size_t mark = out->line->len;
    put_str(out, ": ");
    put_value(out, cv_slice_str(error && error->detail[0] ? error->detail : cv_status_text(id)));
    if (cv_status_code(id)[0])
        put_format(out, " (%s)", cv_status_code(id));
    settle(out, mark);
}

static void text_field(struct out *out, const struct cv_log_field *field)
{
    size_t mark = out->line->len;
    switch (field->kind) {
    case CV_LOG_FIELD_STR:
        if (field->value.str)
            text_string(out, field->key, cv_slice_str(field->value.str));
        return;
    case CV_LOG_FIELD_SLICE:
        text_string(out, field->key, field->value.slice);
        return;
    case CV_LOG_FIELD_INT:
        put_format(out, " %s=%" PRId64, field->key, field->value.sint);
        break;
    case CV_LOG_FIELD_UINT:
        put_format(out, " %s=%" PRIu64, field->key, field->value.uint);
        break;
    case CV_LOG_FIELD_BOOL:
        put_format(out, " %s=%s", field->key, field->value.flag ? "true" : "false");
        break;
    case CV_LOG_FIELD_TRACE:
        text_trace(out, field->value.trace);
        break;
    case CV_LOG_FIELD_STATUS: /* stand behind the message */
    case CV_LOG_FIELD_ERROR:
    case CV_LOG_FIELD_END:
        return;
    }
    settle(out, mark);
}

void cv_log_line_text(struct cv_log_line *line, const struct cv_log_record *record, bool has_colour)
{
    static const char *const colours[] = {"\033[31m", "\033[33m", "\033[32m", "\033[2m", "\033[2m"};
    line->len = 0;
    struct out out = {.line = line, .cap = sizeof line->text - TAIL_MAX};
    put_time(&out, record->realtime_ms, false);
    put_format(&out, " %s%-5s%s ", has_colour ? colours[record->level] : "",
               cv_log_level_name(record->level), has_colour ? "\033[0m" : "");
    size_t mark = out.line->len;
    put_value(&out, cv_slice_str(record->message));
    settle(&out, mark);
    for (const struct cv_log_field *f = record->fields; f->kind != CV_LOG_FIELD_END; f++) {
        if (f->kind == CV_LOG_FIELD_STATUS)
            text_error(&out, f->value.status, NULL);
        else if (f->kind == CV_LOG_FIELD_ERROR && f->value.error)
            text_error(&out, f->value.error->id, f->value.error);
    }
    if (has_colour)
        put_str(&out, "\033[2m");
    text_string(&out, "component", cv_slice_str(record->component));
    for (const struct cv_log_field *f = record->fields; f->kind != CV_LOG_FIELD_END; f++)
        text_field(&out, f);
    out.cap = sizeof line->text;
    if (record->suppressed)
        put_format(&out, " suppressed=%" PRIu64, record->suppressed);
    if (out.is_cut)
        put_str(&out, " …");
    put_str(&out, has_colour ? "\033[0m\n" : "\n");
}
