/* SPDX-License-Identifier: MIT
 *
 * A borrowed run of bytes. Never owns; valid as long as what it points into. Any thread.
 */
#ifndef CV_BASE_SLICE_H
#define CV_BASE_SLICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct cv_slice {
    const uint8_t *data;
    size_t len;
};

static inline struct cv_slice cv_slice(const void *data, size_t len)
{
    return (struct cv_slice){(const uint8_t *)data, len};
}

/* Of a NUL-terminated string, without the NUL; NULL gives the empty slice. */
static inline struct cv_slice cv_slice_str(const char *text)
{
    return (struct cv_slice){(const uint8_t *)text, text ? strlen(text) : 0};
}

static inline bool cv_slice_equal(struct cv_slice a, struct cv_slice b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

static inline bool cv_slice_is(struct cv_slice a, const char *text)
{
    return cv_slice_equal(a, cv_slice_str(text));
}

/* ASCII case-insensitive equality, as HTTP field names and tokens are compared (RFC 9110 §5.1). */
bool cv_slice_equal_nocase(struct cv_slice a, struct cv_slice b);
bool cv_slice_is_nocase(struct cv_slice a, const char *text);
bool cv_slice_starts_with(struct cv_slice a, const char *prefix);

/* Without leading and trailing spaces and tabs (RFC 9110 OWS). */
struct cv_slice cv_slice_trim(struct cv_slice a);

/* Cuts *rest at the first `separator`: returns what is before it and leaves what is behind it;
 * without a separator returns everything and leaves *rest empty with data == NULL. */
struct cv_slice cv_slice_split(struct cv_slice *rest, char separator);

/* Whole slice as a decimal number without sign, at most `max`. False for empty, other characters,
 * or a larger number; *value is then untouched. */
bool cv_slice_to_u64(struct cv_slice a, uint64_t max, uint64_t *value);

/* Copies into a NUL-terminated string of `cap` bytes. False (and "" written) when it does not fit
 * or the slice holds a NUL. cap must be at least 1. */
bool cv_slice_to_str(struct cv_slice a, char *out, size_t cap);

/* How much of a text fits into `max` bytes without cutting a character of UTF-8 in two. */
size_t cv_text_fit(const char *text, size_t max);

#endif
