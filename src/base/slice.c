/* SPDX-License-Identifier: MIT */
#include "base/slice.h"

#include <strings.h>

bool cv_slice_equal_nocase(struct cv_slice a, struct cv_slice b)
{
    if (a.len != b.len)
        return false;
    for (size_t i = 0; i < a.len; i++) {
        uint8_t x = a.data[i], y = b.data[i];
        if (x == y)
            continue;
        if ((x | 0x20) != (y | 0x20) || (x | 0x20) < 'a' || (x | 0x20) > 'z')
            return false;
    }
    return true;
}

bool cv_slice_is_nocase(struct cv_slice a, const char *text)
{
    return cv_slice_equal_nocase(a, cv_slice_str(text));
}

bool cv_slice_starts_with(struct cv_slice a, const char *prefix)
{
    size_t len = strlen(prefix);
    return a.len >= len && memcmp(a.data, prefix, len) == 0;
}

struct cv_slice cv_slice_trim(struct cv_slice a)
{
    while (a.len && (a.data[0] == ' ' || a.data[0] == '\t')) {
        a.data++;
        a.len--;
    }
    while (a.len && (a.data[a.len - 1] == ' ' || a.data[a.len - 1] == '\t'))
        a.len--;
    return a;
}

struct cv_slice cv_slice_split(struct cv_slice *rest, char separator)
{
    struct cv_slice head = *rest;
    const uint8_t *at = head.len ? memchr(head.data, separator, head.len) : NULL;
    if (!at) {
        *rest = (struct cv_slice){0};
        return head;
    }
    head.len = (size_t)(at - head.data);
    rest->data = at + 1;
    rest->len -= head.len + 1;
    return head;
}

bool cv_slice_to_u64(struct cv_slice a, uint64_t max, uint64_t *value)
{
    uint64_t n = 0;
    if (a.len == 0)
        return false;
    for (size_t i = 0; i < a.len; i++) {
        unsigned digit = (unsigned)a.data[i] - '0';
        if (digit > 9 || n > (max - digit) / 10 || digit > max)
            return false;
        n = n * 10 + digit;
    }
    *value = n;
    return true;
}

bool cv_slice_to_str(struct cv_slice a, char *out, size_t cap)
{
    out[0] = '\0';
    if (a.len >= cap || (a.len && memchr(a.data, 0, a.len)))
        return false;
    if (a.len)
        memcpy(out, a.data, a.len);
    out[a.len] = '\0';
    return true;
}

size_t cv_text_fit(const char *text, size_t max)
{
    size_t len = strnlen(text, max + 1);
    if (len <= max)
        return len;
    len = max;
    while (len > 0 && ((uint8_t)text[len] & 0xc0) == 0x80) /* RFC 3629 §3: the next is inside */
        len--;
    return len;
}
