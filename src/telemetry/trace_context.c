/* SPDX-License-Identifier: MIT */
#include "telemetry/trace_context.h"

#include "base/digest.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>

/* ---- traceparent ---- */

static bool is_zero(const uint8_t *bytes, size_t len)
{
    uint8_t sum = 0;
    for (size_t i = 0; i < len; i++)
        sum |= bytes[i];
    return sum == 0;
}

static bool is_lower_hex(struct cv_slice text)
{
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.data[i];
        if (!(c >= '0' && c <= '9') && !(c >= 'a' && c <= 'f'))
            return false;
    }
    return true;
}

/* "00-<32 hex>-<16 hex>-<2 hex>" */
bool cv_traceparent_parse(struct cv_slice text, struct cv_trace_ids *ids)
{
    struct cv_trace_ids read;
    uint8_t version;
    if (text.len < CV_TRACEPARENT_LEN || text.data[2] != '-' || text.data[35] != '-' ||
        text.data[52] != '-')
        return false;
    struct cv_slice parts[] = {cv_slice(text.data, 2), cv_slice(text.data + 3, 32),
                               cv_slice(text.data + 36, 16), cv_slice(text.data + 53, 2)};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (!is_lower_hex(parts[i]))
            return false;
    (void)cv_hex_decode(parts[0], &version, 1);
    (void)cv_hex_decode(parts[1], read.trace_id, CV_TRACE_ID_LEN);
    (void)cv_hex_decode(parts[2], read.span_id, CV_SPAN_ID_LEN);
    (void)cv_hex_decode(parts[3], &read.flags, 1);
    bool is_longer = text.len > CV_TRACEPARENT_LEN;
    if (version == 0xff || (version == 0 && is_longer) ||
        (is_longer && text.data[CV_TRACEPARENT_LEN] != '-'))
        return false;
    if (is_zero(read.trace_id, CV_TRACE_ID_LEN) || is_zero(read.span_id, CV_SPAN_ID_LEN))
        return false;
    read.flags &= CV_TRACE_SAMPLED | CV_TRACE_RANDOM;
    *ids = read;
    return true;
}

void cv_traceparent_write(const struct cv_trace_ids *ids, char out[CV_TRACEPARENT_LEN + 1])
{
    char hex[2 * CV_TRACE_ID_LEN + 1];
    uint8_t flags = ids->flags & (CV_TRACE_SAMPLED | CV_TRACE_RANDOM);
    memcpy(out, "00-0123456789abcdef0123456789abcdef-0123456789abcdef-00", CV_TRACEPARENT_LEN + 1);
    cv_hex_encode(cv_slice(ids->trace_id, CV_TRACE_ID_LEN), hex);
    memcpy(out + 3, hex, sizeof hex - 1);
    cv_hex_encode(cv_slice(ids->span_id, CV_SPAN_ID_LEN), hex);
    memcpy(out + 36, hex, (size_t)2 * CV_SPAN_ID_LEN);
    out[CV_TRACEPARENT_LEN - 1] = (char)('0' + flags);
}

/* ---- tracestate ---- */

enum { LONG_MEMBER = 128, KEY_MAX = 256, VALUE_MAX = 256 };

/* key: ( lcalpha / DIGIT ) 0*255 ( lcalpha / DIGIT / "_" / "-"/ "*" / "/" / "@" ) (§3.3.1.3.1) */
static bool is_key(struct cv_slice key)
{
    if (key.len == 0 || key.len > KEY_MAX)
        return false;
    for (size_t i = 0; i < key.len; i++) {
        uint8_t c = key.data[i];
        bool is_plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
        if (!is_plain && (i == 0 || !memchr("_-*/@", c, 5)))
            return false;
    }
    return true;
}

/* value: 0*255(chr) nblk-chr: printable, without comma and equals sign (§3.3.1.3.2) */
static bool is_value(struct cv_slice value)
{
    if (value.len == 0 || value.len > VALUE_MAX)
        return false;
    for (size_t i = 0; i < value.len; i++) {
        uint8_t c = value.data[i];
        if (c < ' ' || c > '~' || c == ',' || c == '=')
            return false;
    }
    return true;
}

/* The members of a list; 0 when one breaks the grammar, or there are too many. */
static size_t read_members(struct cv_slice joined,
                           struct cv_slice members[CV_TRACESTATE_MEMBERS_MAX], size_t *total)
{
    size_t count = 0;
    *total = 0;
    while (joined.data) {
        struct cv_slice member = cv_slice_trim(cv_slice_split(&joined, ','));
        struct cv_slice value = member;
        if (member.len == 0) /* empty ones are allowed (§3.3.1.1) */
            continue;
        struct cv_slice key = cv_slice_split(&value, '=');
        if (count == CV_TRACESTATE_MEMBERS_MAX || !is_key(key) || !is_value(value))
            return 0;
        *total += member.len + (count ? 1 : 0);
        members[count++] = member;
    }
    return count;
}

struct cv_status cv_tracestate_write(struct cv_slice joined, struct cv_buf *out)
{
    struct cv_slice members[CV_TRACESTATE_MEMBERS_MAX];
    size_t total, written = 0;
    size_t count = joined.len ? read_members(joined, members, &total) : 0;
    bool is_tight = count && total > CV_TRACESTATE_MAX;
    for (size_t i = 0; i < count; i++) {
        size_t len = members[i].len + (written ? 1 : 0);
        if (is_tight && members[i].len > LONG_MEMBER)
            continue;
        if (written + len > CV_TRACESTATE_MAX)
            break;
        if (written)
            CV_RETURN_IF_ERROR(cv_buf_append_byte(out, ','));
        CV_RETURN_IF_ERROR(cv_buf_append_slice(out, members[i]));
        written += len;
    }
    return cv_ok();
}

/* ---- sampling ---- */

bool cv_sampler_parse(const char *name, const char *arg, struct cv_sampler *sampler)
{
    static const char parent_based[] = "parentbased_";
    struct cv_sampler read = {0};
    read.is_parent_based = strncmp(name, parent_based, sizeof parent_based - 1) == 0;
    if (read.is_parent_based)
        name += sizeof parent_based - 1;
    if (strcmp(name, "always_on") == 0) {
        read.root = CV_SAMPLER_ALWAYS_ON;
    } else if (strcmp(name, "always_off") == 0) {
        read.root = CV_SAMPLER_ALWAYS_OFF;
    } else if (strcmp(name, "traceidratio") == 0) {
        char *end = NULL;
        errno = 0;
        double ratio = arg && arg[0] ? strtod(arg, &end) : 1.0;
        if ((end && *end) || errno || !isfinite(ratio) || ratio < 0 || ratio > 1)
            return false;
        read.root = CV_SAMPLER_RATIO;
        read.bound = (uint64_t)(ratio * 9223372036854775808.0);
    } else {
        return false;
    }
    *sampler = read;
    return true;
}

/* The last eight bytes, as the SDKs do, so that all parts of a trace decide alike. */
static bool is_below(const uint8_t trace_id[CV_TRACE_ID_LEN], uint64_t bound)
{
    uint64_t value = 0;
    for (size_t i = CV_TRACE_ID_LEN - 8; i < CV_TRACE_ID_LEN; i++)
        value = value << 8 | trace_id[i];
    return value >> 1 < bound;
}

bool cv_sampler_decide(const struct cv_sampler *sampler, const struct cv_trace_ids *parent,
                       const uint8_t trace_id[CV_TRACE_ID_LEN])
{
    if (sampler->is_parent_based && parent)
        return parent->flags & CV_TRACE_SAMPLED;
    switch (sampler->root) {
    case CV_SAMPLER_ALWAYS_ON:
        return true;
    case CV_SAMPLER_ALWAYS_OFF:
        return false;
    case CV_SAMPLER_RATIO:
        return is_below(trace_id, sampler->bound);
    }
    return false;
}
