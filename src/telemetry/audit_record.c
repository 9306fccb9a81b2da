/* SPDX-License-Identifier: MIT */
#include "telemetry/audit_record.h"

#include "base/digits.h"
#include "telemetry/log_line.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define TRY CV_RETURN_IF_ERROR

#define HASH_KEY ",\"hash\":\""
#define PREV_KEY ",\"prev\":\""

enum {
    HEX_LEN = 2 * CV_SHA256_LEN,
    /* `,"hash":"<hex>"}` and `,"prev":"<hex>"`, which every line ends with */
    HASH_PART = sizeof HASH_KEY - 1 + HEX_LEN + 2,
    PREV_PART = sizeof PREV_KEY - 1 + HEX_LEN + 1,
    NUMBER_MAX = 20,
};

static const struct {
    const char *name;
    enum cv_audit_class class_id;
} events[CV_AUDIT_EVENT_COUNT] = {
#define ROW(name, text, class_id) {text, CV_AUDIT_##class_id},
    CV_AUDIT_EVENTS(ROW)
#undef ROW
};

const char *cv_audit_event_name(enum cv_audit_event event)
{
    return events[event].name;
}

enum cv_audit_class cv_audit_event_class(enum cv_audit_event event)
{
    return events[event].class_id;
}

bool cv_audit_class_parse(const char *name, enum cv_audit_class *class_id)
{
    static const char *const names[CV_AUDIT_CLASS_COUNT] = {
        [CV_AUDIT_LINK] = "link",    [CV_AUDIT_AUTH] = "auth",    [CV_AUDIT_FORWARDS] = "forward",
        [CV_AUDIT_LIMITS] = "limit", [CV_AUDIT_ADMINS] = "admin",
    };
    for (int i = CV_AUDIT_LINK; i < CV_AUDIT_CLASS_COUNT; i++)
        if (strcmp(name, names[i]) == 0) {
            *class_id = (enum cv_audit_class)i;
            return true;
        }
    return false;
}

/* ---- writing ---- */

static struct cv_status write_body(const struct cv_audit_chain *chain, enum cv_audit_event event,
                                   uint64_t realtime_ms, const char *instance,
                                   const struct cv_log_field *fields, struct cv_buf *out)
{
    struct cv_log_line members;
    char seq[CV_DIGITS_MAX], time[CV_LOG_TIME_SIZE], prev[HEX_LEN + 1];
    size_t seq_len = cv_digits_decimal(seq, chain->seq + 1);
    cv_log_time(realtime_ms, time);
    cv_log_line_members(&members, fields);
    cv_hex_encode(cv_slice(chain->hash, CV_SHA256_LEN), prev);
    TRY(cv_buf_append_str(out, "{\"seq\":"));
    TRY(cv_buf_append(out, seq, seq_len));
    TRY(cv_buf_append_str(out, ",\"time\":\""));
    TRY(cv_buf_append_str(out, time));
    TRY(cv_buf_append_str(out, "\",\"event\":\""));
    TRY(cv_buf_append_str(out, cv_audit_event_name(event)));
    TRY(cv_buf_append_str(out, "\",\"instance\":\""));
    TRY(cv_buf_append_str(out, instance));
    TRY(cv_buf_append_str(out, "\""));
    TRY(cv_buf_append(out, members.text, members.len));
    TRY(cv_buf_append_str(out, PREV_KEY));
    TRY(cv_buf_append(out, prev, HEX_LEN));
    return cv_buf_append_str(out, "\"");
}

struct cv_status cv_audit_record_write(struct cv_audit_chain *chain, struct cv_hasher *hasher,
                                       enum cv_audit_event event, uint64_t realtime_ms,
                                       const char *instance, const struct cv_log_field *fields,
                                       struct cv_buf *out)
{
    size_t before = cv_buf_len(out);
    uint8_t hash[CV_SHA256_LEN];
    char hex[HEX_LEN + 1], end[HASH_PART + 1];
    struct cv_status status = write_body(chain, event, realtime_ms, instance, fields, out);
    if (cv_is_ok(status)) {
        cv_hasher_sha256(hasher, cv_slice(cv_buf_head(out) + before, cv_buf_len(out) - before),
                         hash);
        cv_hex_encode(cv_slice(hash, sizeof hash), hex);
        memcpy(end, HASH_KEY, sizeof HASH_KEY - 1);
        memcpy(end + sizeof HASH_KEY - 1, hex, HEX_LEN);
        memcpy(end + HASH_PART - 2, "\"}\n", 3);
        status = cv_buf_append(out, end, sizeof end);
    }
    if (!cv_is_ok(status)) {
        cv_buf_truncate(out, before);
        return status;
    }
    chain->seq++;
    memcpy(chain->hash, hash, sizeof hash);
    return status;
}

/* ---- reading ---- */

static bool take(struct cv_slice *rest, const char *text)
{
    if (!cv_slice_starts_with(*rest, text))
        return false;
    size_t len = strlen(text);
    *rest = cv_slice(rest->data + len, rest->len - len);
    return true;
}

static bool take_number(struct cv_slice *rest, uint64_t *value)
{
    size_t len = 0;
    while (len < rest->len && len < NUMBER_MAX && rest->data[len] >= '0' && rest->data[len] <= '9')
        len++;
    if (!cv_slice_to_u64(cv_slice(rest->data, len), UINT64_MAX, value))
        return false;
    *rest = cv_slice(rest->data + len, rest->len - len);
    return true;
}

/* Up to the closing quote; none of the values read here has an escape in it. */
static bool take_string(struct cv_slice *rest, struct cv_slice *value)
{
    const uint8_t *quote = rest->len ? memchr(rest->data, '"', rest->len) : NULL;
    if (!quote)
        return false;
    *value = cv_slice(rest->data, (size_t)(quote - rest->data));
    *rest = cv_slice(quote + 1, rest->len - value->len - 1);
    return true;
}

static bool read_hash(struct cv_slice part, const char *key, uint8_t out[CV_SHA256_LEN])
{
    return take(&part, key) && part.len >= HEX_LEN &&
           cv_hex_decode(cv_slice(part.data, HEX_LEN), out, CV_SHA256_LEN);
}

bool cv_audit_record_read(struct cv_slice line, struct cv_audit_record *record)
{
    *record = (struct cv_audit_record){0};
    if (line.len < HASH_PART + PREV_PART || line.len > CV_AUDIT_LINE_MAX ||
        memcmp(line.data + line.len - 2, "\"}", 2) != 0)
        return false;
    struct cv_slice rest = line, body = cv_slice(line.data, line.len - HASH_PART);
    struct cv_slice hash = cv_slice(body.data + body.len, HASH_PART);
    struct cv_slice prev = cv_slice(hash.data - PREV_PART, PREV_PART);
    uint8_t sum[CV_SHA256_LEN];
    char hex[HEX_LEN + 1];
    if (!take(&rest, "{\"seq\":") || !take_number(&rest, &record->seq) || record->seq == 0 ||
        !take(&rest, ",\"time\":\"") || !take_string(&rest, &record->time) ||
        !take(&rest, ",\"event\":\"") || !take_string(&rest, &record->event) ||
        !read_hash(prev, PREV_KEY, record->prev) || !read_hash(hash, HASH_KEY, record->hash))
        return false;
    cv_sha256(body, sum);
    cv_hex_encode(cv_slice(sum, sizeof sum), hex);
    /* The text, not the bytes it stands for: an A in the place of an a is an alteration too. */
    record->is_sound = memcmp(hex, hash.data + sizeof HASH_KEY - 1, HEX_LEN) == 0;
    return true;
}

bool cv_audit_record_number(struct cv_slice line, const char *name, uint64_t *value)
{
    char key[48];
    int len = snprintf(key, sizeof key, ",\"%s\":", name);
    if (len < 0 || (size_t)len >= sizeof key)
        return false;
    const uint8_t *at = line.len ? memmem(line.data, line.len, key, (size_t)len) : NULL;
    if (!at)
        return false;
    at += len;
    struct cv_slice rest = cv_slice(at, line.len - (size_t)(at - line.data));
    return take_number(&rest, value);
}
