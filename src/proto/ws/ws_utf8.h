/* SPDX-License-Identifier: MIT
 *
 * UTF-8 (RFC 3629) checked as it arrives, in pieces of any size: says no at the first byte that can
 * not continue a valid text. No overlong forms, no surrogates, nothing above U+10FFFF. Pure.
 */
#ifndef CV_PROTO_WS_WS_UTF8_H
#define CV_PROTO_WS_WS_UTF8_H

#include "base/slice.h"

/* Zeroed: between characters. */
struct cv_ws_utf8 {
    uint8_t missing;   /* continuation bytes still to come */
    uint8_t low, high; /* bounds of the next one */
};

/* Checks the next piece. False at a byte that is wrong; *utf8 is useless then. */
bool cv_ws_utf8_feed(struct cv_ws_utf8 *utf8, struct cv_slice piece);

static inline bool cv_ws_utf8_is_complete(const struct cv_ws_utf8 *utf8)
{
    return utf8->missing == 0;
}

/* The longest prefix of `text`, at most `max_len` bytes, that does not end inside a character. */
struct cv_slice cv_ws_utf8_cut(struct cv_slice text, size_t max_len);

#endif
