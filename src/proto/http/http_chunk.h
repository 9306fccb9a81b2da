/* SPDX-License-Identifier: MIT
 *
 * Decodes the chunked coding up to the last chunk's line (RFC 9112 §7.1); the trailer section
 * behind it is the parser's. Strict: 1–16 hex digits, extensions only by their grammar and capped,
 * CRLF everywhere. Private to proto/http. Owns nothing, borrows the bytes of one call.
 */
#ifndef CV_PROTO_HTTP_HTTP_CHUNK_H
#define CV_PROTO_HTTP_HTTP_CHUNK_H

#include "base/slice.h"
#include "base/status.h"

struct cv_http_chunk {
    unsigned state;
    unsigned digits;
    uint64_t left; /* of the chunk's data */
    size_t extension_len;
    size_t extension_max;
    bool is_padding_allowed; /* white space behind the size, as some old services write it */
};

void cv_http_chunk_init(struct cv_http_chunk *chunk, size_t extension_max, bool is_padding_allowed);

/* CV_OK: *body is the next run of data, not empty, or empty behind the last chunk's line. CV_AGAIN:
 * all bytes taken. CV_BAD_REQUEST: malformed, *fault says why. *used counts the bytes taken. */
struct cv_status cv_http_chunk_take(struct cv_http_chunk *chunk, const uint8_t *data, size_t len,
                                    size_t *used, struct cv_slice *body, const char **fault);

#endif
