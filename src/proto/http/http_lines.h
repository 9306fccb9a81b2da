/* SPDX-License-Identifier: MIT
 *
 * Collects the lines of a head or trailer section until the empty line, refusing at the first byte
 * what no line may hold: a CR without LF, an LF without CR, controls. Private to proto/http.
 * Owns the copy of the section, capped by its limits.
 */
#ifndef CV_PROTO_HTTP_HTTP_LINES_H
#define CV_PROTO_HTTP_HTTP_LINES_H

#include "base/buf.h"

struct cv_http_lines_limits {
    size_t
        first_line; /* bytes without CRLF; 0 for trailers, which have no line before the fields */
    size_t first_word; /* bytes before the first space of the first line; 0: not looked at */
    size_t section;    /* bytes with CRLFs */
    size_t line_count; /* the first one included */
    bool allows_blank; /* one empty line in front is dropped (RFC 9112 2.2, requests) */
};

struct cv_http_lines {
    struct cv_http_lines_limits limits;
    struct cv_buf buf;    /* complete and begun lines, CRLFs included, the empty one too */
    size_t line_count;    /* complete lines that are not empty */
    size_t line_len;      /* bytes of the line begun, its CR included */
    bool is_after_cr;     /* the last byte was a CR */
    bool has_space;       /* a space has come */
    bool has_blank_start; /* one empty line before the first line has been dropped */
};

void cv_http_lines_init(struct cv_http_lines *lines, const struct cv_http_lines_limits *limits);
void cv_http_lines_done(struct cv_http_lines *lines);

/* Ready for the next section; gives memory over 1 KiB back. */
void cv_http_lines_reset(struct cv_http_lines *lines);

/* Takes bytes up to the end of the section; *used counts them.
 * CV_OK: complete, cv_buf_slice(&lines->buf) is the section. CV_AGAIN: more to come; it also
 * returns behind the first line, with bytes left, so that this can be judged early: call again
 * while there are bytes. CV_BAD_REQUEST, CV_URI_TOO_LONG, CV_HEAD_TOO_LARGE,
 * CV_NO_MEMORY: *fault says why. */
struct cv_status cv_http_lines_take(struct cv_http_lines *lines, const uint8_t *data, size_t len,
                                    size_t *used, const char **fault);

#endif
