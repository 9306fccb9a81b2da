/* SPDX-License-Identifier: MIT
 *
 * Character classes of RFC 9110 and RFC 3986 as one table; private to proto/http.
 */
#ifndef CV_PROTO_HTTP_HTTP_CHARS_H
#define CV_PROTO_HTTP_HTTP_CHARS_H

#include <stddef.h>
#include <stdint.h>

enum {
    CV_HTTP_TCHAR = 1,  /* RFC 9110 §5.6.2 */
    CV_HTTP_VCHAR = 2,  /* may stand in a field value: HTAB, SP, visible, obs-text (§5.5) */
    CV_HTTP_PATHC = 4,  /* may stand in a request path, see http_head.c */
    CV_HTTP_QUERYC = 8, /* may stand in a query */
    CV_HTTP_HOSTC = 16, /* letters, digits, "-._~" */
    CV_HTTP_HEXDIG = 32,
};

extern const uint8_t cv_http_chars[256];

/* How many of the first bytes are CV_HTTP_VCHAR: most of what a head is, so it looks at eight at a
 * time. */
size_t cv_http_text_len(const uint8_t *data, size_t len);

/* 0–15, for a character that is CV_HTTP_HEXDIG. */
static inline unsigned cv_http_hex_value(uint8_t c)
{
    return c <= '9' ? (unsigned)(c - '0') : (unsigned)((c | 0x20) - 'a' + 10);
}

#endif
