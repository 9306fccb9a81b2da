/* SPDX-License-Identifier: MIT
 *
 * Tokens of RFC 9110 §5.6.2, which the WebSocket header fields are made of. Internal to proto/ws.
 */
#ifndef CV_PROTO_WS_WS_TOKEN_H
#define CV_PROTO_WS_WS_TOKEN_H

#include "base/slice.h"

static inline bool cv_ws_is_tchar(uint8_t c)
{
    if ((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'))
        return true;
    return c != 0 && strchr("!#$%&'*+-.^_`|~", c) != NULL;
}

/* Skips spaces and tabs at the front. */
static inline void cv_ws_skip_space(struct cv_slice *rest)
{
    while (rest->len && (rest->data[0] == ' ' || rest->data[0] == '\t'))
        *rest = cv_slice(rest->data + 1, rest->len - 1);
}

/* Takes the longest token off the front; empty when there is none. */
static inline struct cv_slice cv_ws_take_token(struct cv_slice *rest)
{
    size_t len = 0;
    while (len < rest->len && cv_ws_is_tchar(rest->data[len]))
        len++;
    struct cv_slice token = cv_slice(rest->data, len);
    *rest = cv_slice(rest->data + len, rest->len - len);
    return token;
}

/* Takes one byte off the front if it is `c`. */
static inline bool cv_ws_take_char(struct cv_slice *rest, char c)
{
    if (rest->len == 0 || rest->data[0] != (uint8_t)c)
        return false;
    *rest = cv_slice(rest->data + 1, rest->len - 1);
    return true;
}

#endif
