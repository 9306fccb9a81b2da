/* SPDX-License-Identifier: MIT
 *
 * zlib@openssh.com: payloads of one direction as one zlib stream with a partial flush after each
 * packet (RFC 4253 §6.2), started after authentication and anew with every key exchange.
 * Owns the zlib state (about 260 KiB to deflate, 40 KiB to inflate). Output is bounded by the
 * caller's array, so a small packet cannot grow without limit. One thread at a time.
 */
#ifndef CV_SSH_COMPRESS_H
#define CV_SSH_COMPRESS_H

#include "base/slice.h"
#include "base/status.h"

/* What deflating may add to a payload of CV_SSH_PAYLOAD_MAX bytes that cannot be compressed: five
 * bytes per stored block and the flush. */
#define CV_SSH_DEFLATE_OVERHEAD 256

struct cv_ssh_zlib; /* one stream in one direction */

/* CV_NO_MEMORY; *zlib is NULL then. */
struct cv_status cv_ssh_zlib_new(struct cv_ssh_zlib **zlib, bool is_deflate);

/* Takes NULL and a pointer to NULL, leaves NULL. */
void cv_ssh_zlib_free(struct cv_ssh_zlib **zlib);

/* Compresses `header` and `body` behind each other into `out`, flushed. CV_NO_RESOURCES when `out`
 * is too small; the stream is broken then. */
struct cv_status cv_ssh_zlib_deflate(struct cv_ssh_zlib *zlib, struct cv_slice header,
                                     struct cv_slice body, uint8_t *out, size_t size, size_t *len);

/* The opposite. CV_SSH_LIMIT when more than `size` bytes come out, CV_SSH_PROTOCOL when it is not a
 * zlib stream, CV_NO_MEMORY; the stream is broken then. */
struct cv_status cv_ssh_zlib_inflate(struct cv_ssh_zlib *zlib, struct cv_slice data, uint8_t *out,
                                     size_t size, size_t *len);

#endif
