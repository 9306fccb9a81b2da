/* SPDX-License-Identifier: MIT */
#include "telemetry/otlp_writer.h"

#include "base/digest.h"
#include "base/digits.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Wire types of protobuf. */
enum { VARINT = 0, FIXED64 = 1, LENGTH = 2, FIXED32 = 5 };
enum { VARINT_MAX = 10 };

static void put(struct cv_otlp_writer *w, const void *data, size_t len)
{
    if (!w->has_failed)
        w->has_failed = !cv_is_ok(cv_buf_append(w->out, data, len));
}

static void put_str(struct cv_otlp_writer *w, const char *text)
{
    put(w, text, strlen(text));
}

static size_t encode_varint(uint64_t value, uint8_t out[VARINT_MAX])
{
    size_t len = 0;
    for (; value >= 0x80; value >>= 7)
        out[len++] = (uint8_t)(value | 0x80);
    out[len++] = (uint8_t)value;
    return len;
}

static void put_varint(struct cv_otlp_writer *w, uint64_t value)
{
    uint8_t bytes[VARINT_MAX];
    put(w, bytes, encode_varint(value, bytes));
}

static void put_little(struct cv_otlp_writer *w, uint64_t value, size_t len)
{
    uint8_t bytes[8];
    for (size_t i = 0; i < len; i++)
        bytes[i] = (uint8_t)(value >> (8 * i));
    put(w, bytes, len);
}

/* What stands in front of a value: in JSON a comma unless it is the first, and its key. */
static void begin_value(struct cv_otlp_writer *w, unsigned number, unsigned wire, const char *key)
{
    if (w->has_failed)
        return;
    if (!w->is_json) {
        put_varint(w, (uint64_t)number << 3 | wire);
        return;
    }
    struct cv_slice so_far = cv_buf_slice(w->out);
    uint8_t last = so_far.len ? so_far.data[so_far.len - 1] : '{';
    if (last != '{' && last != '[')
        put_str(w, ",");
    if (key) {
        put_str(w, "\"");
        put_str(w, key);
        put_str(w, "\":");
    }
}

/* ---- structure ---- */

void cv_otlp_begin(struct cv_otlp_writer *w, bool is_json, struct cv_buf *out)
{
    *w = (struct cv_otlp_writer){.out = out, .is_json = is_json};
    if (is_json)
        put_str(w, "{");
}

struct cv_status cv_otlp_end(struct cv_otlp_writer *w)
{
    if (w->is_json)
        put_str(w, "}");
    return cv_status(w->has_failed ? CV_NO_RESOURCES : CV_OK);
}

size_t cv_otlp_open(struct cv_otlp_writer *w, unsigned number, const char *key)
{
    begin_value(w, number, LENGTH, key);
    if (w->is_json)
        put_str(w, "{");
    return cv_buf_len(w->out);
}

/* The length of a protobuf message stands in front of it and is known behind it. */
void cv_otlp_close(struct cv_otlp_writer *w, size_t mark)
{
    if (w->is_json) {
        put_str(w, "}");
        return;
    }
    if (w->has_failed)
        return;
    uint8_t bytes[VARINT_MAX];
    size_t len = cv_buf_len(w->out) - mark, more = encode_varint(len, bytes);
    put(w, bytes, more); /* only for the room */
    if (w->has_failed)
        return;
    uint8_t *at = cv_buf_head(w->out) + mark;
    memmove(at + more, at, len);
    memcpy(at, bytes, more);
}

void cv_otlp_open_list(struct cv_otlp_writer *w, const char *key)
{
    if (!w->is_json)
        return;
    begin_value(w, 0, 0, key);
    put_str(w, "[");
}

void cv_otlp_close_list(struct cv_otlp_writer *w)
{
    if (w->is_json)
        put_str(w, "]");
}

/* ---- text ---- */

/* Length of the UTF-8 sequence at `at` (RFC 3629 §4); 0 when it is none. */
static size_t utf8_len(struct cv_slice text, size_t at)
{
    const uint8_t *s = text.data + at;
    if (s[0] < 0x80)
        return 1;
    size_t len = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (s[0] < 0xc2 || s[0] > 0xf4 || text.len - at < len)
        return 0;
    uint32_t point = s[0] & (0x7fu >> len);
    for (size_t i = 1; i < len; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        point = point << 6 | (s[i] & 0x3fu);
    }
    bool is_bad = point < least[len] || point > 0x10ffff || (point >= 0xd800 && point <= 0xdfff);
    return is_bad ? 0 : len;
}

static void put_text(struct cv_otlp_writer *w, struct cv_slice text)
{
    for (size_t i = 0; i < text.len;) {
        size_t len = utf8_len(text, i);
        uint8_t c = text.data[i];
        if (len == 0) {
            put_str(w, "\xef\xbf\xbd");
            len = 1;
        } else if (w->is_json && (c < ' ' || c == '"' || c == '\\' || c == 0x7f)) {
            char escaped[8];
            int n = snprintf(escaped, sizeof escaped, "\\u%04x", c);
            put(w, escaped, (size_t)n);
        } else {
            put(w, text.data + i, len);
        }
        i += len;
    }
}

void cv_otlp_text(struct cv_otlp_writer *w, unsigned number, const char *key, struct cv_slice text)
{
    begin_value(w, number, LENGTH, key);
    if (w->is_json) {
        put_str(w, "\"");
        put_text(w, text);
        put_str(w, "\"");
        return;
    }
    size_t mark = cv_buf_len(w->out);
    put_text(w, text);
    cv_otlp_close(w, mark);
}

void cv_otlp_id(struct cv_otlp_writer *w, unsigned number, const char *key, struct cv_slice id)
{
    begin_value(w, number, LENGTH, key);
    if (w->is_json) {
        char hex[65];
        if (id.len > 32)
            id.len = 32;
        cv_hex_encode(id, hex);
        put_str(w, "\"");
        put_str(w, hex);
        put_str(w, "\"");
    } else {
        put_varint(w, id.len);
        put(w, id.data, id.len);
    }
}

/* ---- numbers ---- */

static void put_digits(struct cv_otlp_writer *w, uint64_t value, const char *quote)
{
    char digits[CV_DIGITS_MAX];
    put_str(w, quote);
    put(w, digits, cv_digits_decimal(digits, value));
    put_str(w, quote);
}

void cv_otlp_enum(struct cv_otlp_writer *w, unsigned number, const char *key, unsigned value)
{
    begin_value(w, number, VARINT, key);
    if (w->is_json)
        put_digits(w, value, "");
    else
        put_varint(w, value);
}

void cv_otlp_bool(struct cv_otlp_writer *w, unsigned number, const char *key, bool value)
{
    begin_value(w, number, VARINT, key);
    if (w->is_json)
        put_str(w, value ? "true" : "false");
    else
        put_varint(w, value);
}

void cv_otlp_int64(struct cv_otlp_writer *w, unsigned number, const char *key, int64_t value)
{
    begin_value(w, number, VARINT, key);
    if (!w->is_json) {
        put_varint(w, (uint64_t)value);
        return;
    }
    char text[24];
    int n = snprintf(text, sizeof text, "\"%" PRId64 "\"", value);
    put(w, text, (size_t)n);
}

void cv_otlp_fixed64(struct cv_otlp_writer *w, unsigned number, const char *key, uint64_t value)
{
    begin_value(w, number, FIXED64, key);
    if (w->is_json)
        put_digits(w, value, "\"");
    else
        put_little(w, value, 8);
}

void cv_otlp_fixed32(struct cv_otlp_writer *w, unsigned number, const char *key, uint32_t value)
{
    begin_value(w, number, FIXED32, key);
    if (w->is_json)
        put_digits(w, value, "");
    else
        put_little(w, value, 4);
}
