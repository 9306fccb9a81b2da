/* SPDX-License-Identifier: MIT
 *
 *            hex            ';'            token        '='             token or quoted
 *   SIZE_0 ──────▶ SIZE ──────────▶ NAME_0 ──────▶ NAME ─────▶ VALUE_0 ─────▶ VALUE / QUOTED ⇄
 * ESCAPE │ SP (responses)                │ ';' ─▶ NAME_0             │ ';' ─▶ NAME_0 ▼ │ CR │ CR
 *                  PAD ── CR ──────▶ LINE_LF ◀──────┴───────────────────────────┘
 *                                      │ size > 0: DATA ─ CR ─▶ DATA_LF ─▶ SIZE_0
 *                                      └ size = 0: the last chunk's line is complete
 */
#include "proto/http/http_chunk.h"

#include "proto/http/http_chars.h"

enum {
    SIZE_0,
    SIZE,
    PAD,
    NAME_0,
    NAME,
    VALUE_0,
    VALUE,
    QUOTED,
    ESCAPE,
    QUOTED_END,
    LINE_LF,
    DATA, /* and the CR behind it once nothing is left */
    DATA_LF,
};

enum { SIZE_DIGITS_MAX = 16 };

void cv_http_chunk_init(struct cv_http_chunk *chunk, size_t extension_max, bool is_padding_allowed)
{
    *chunk = (struct cv_http_chunk){
        .state = SIZE_0, .extension_max = extension_max, .is_padding_allowed = is_padding_allowed};
}

static bool is_token_char(uint8_t c)
{
    return (cv_http_chars[c] & CV_HTTP_TCHAR) != 0;
}

static bool take_digit(struct cv_http_chunk *chunk, uint8_t c)
{
    if (chunk->digits == SIZE_DIGITS_MAX || chunk->left > INT64_MAX >> 4)
        return false;
    chunk->left = chunk->left << 4 | cv_http_hex_value(c);
    chunk->digits++;
    chunk->state = SIZE;
    return true;
}

/* What may stand behind a size, an extension's name or its value. */
static bool take_end(struct cv_http_chunk *chunk, uint8_t c)
{
    if (c == ';')
        chunk->state = NAME_0;
    else if (c == '\r')
        chunk->state = LINE_LF;
    else
        return false;
    return true;
}

/* One byte of the size line. False: malformed. */
static bool take_line_byte(struct cv_http_chunk *chunk, uint8_t c)
{
    switch (chunk->state) {
    case SIZE_0:
        return (cv_http_chars[c] & CV_HTTP_HEXDIG) && take_digit(chunk, c);
    case SIZE:
        if (cv_http_chars[c] & CV_HTTP_HEXDIG)
            return take_digit(chunk, c);
        if (c != ' ' && c != '\t')
            return take_end(chunk, c);
        chunk->state = PAD;
        return chunk->is_padding_allowed;
    case PAD:
        return c == ' ' || c == '\t' || take_end(chunk, c);
    case NAME_0:
        chunk->state = NAME;
        return is_token_char(c);
    case NAME:
        if (c == '=')
            chunk->state = VALUE_0;
        return c == '=' || is_token_char(c) || take_end(chunk, c);
    case VALUE_0:
        chunk->state = c == '"' ? QUOTED : VALUE;
        return c == '"' || is_token_char(c);
    case VALUE:
        return is_token_char(c) || take_end(chunk, c);
    case QUOTED:
        if (c == '"')
            chunk->state = QUOTED_END;
        else if (c == '\\')
            chunk->state = ESCAPE;
        return (cv_http_chars[c] & CV_HTTP_VCHAR) != 0;
    case ESCAPE:
        chunk->state = QUOTED;
        return (cv_http_chars[c] & CV_HTTP_VCHAR) != 0;
    case QUOTED_END:
        return take_end(chunk, c);
    case LINE_LF:
        chunk->state = DATA;
        return c == '\n';
    default:
        return false;
    }
}

static struct cv_status bad(const char **fault, const char *text)
{
    *fault = text;
    return cv_status(CV_BAD_REQUEST);
}

struct cv_status cv_http_chunk_take(struct cv_http_chunk *chunk, const uint8_t *data, size_t len,
                                    size_t *used, struct cv_slice *body, const char **fault)
{
    size_t i = 0;
    *body = (struct cv_slice){0};
    *used = 0;
    while (i < len) {
        if (chunk->state == DATA && chunk->left) {
            size_t run = len - i < chunk->left ? len - i : (size_t)chunk->left;
            *body = cv_slice(data + i, run);
            chunk->left -= run;
            *used = i + run;
            return cv_ok();
        }
        uint8_t c = data[i++];
        if (chunk->state == DATA) { /* and none left */
            if (c != '\r')
                return bad(fault, "no CRLF behind the chunk's data (RFC 9112 7.1)");
            chunk->state = DATA_LF;
        } else if (chunk->state == DATA_LF) {
            if (c != '\n')
                return bad(fault, "no CRLF behind the chunk's data (RFC 9112 7.1)");
            cv_http_chunk_init(chunk, chunk->extension_max, chunk->is_padding_allowed);
        } else {
            if (!take_line_byte(chunk, c))
                return bad(fault, "the chunk's size line is malformed (RFC 9112 7.1)");
            if (chunk->state > SIZE && chunk->state < LINE_LF &&
                ++chunk->extension_len > chunk->extension_max)
                return bad(fault, "the chunk's extension is too long (RFC 9112 7.1.1)");
            if (chunk->state == DATA && chunk->left == 0) { /* the last chunk's line is complete */
                *used = i;
                return cv_ok();
            }
        }
    }
    *used = i;
    return cv_status(CV_AGAIN);
}
