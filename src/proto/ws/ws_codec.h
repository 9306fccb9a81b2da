/* SPDX-License-Identifier: MIT
 *
 * The compression of permessage-deflate (RFC 7692 §7.2), piece by piece, over zlib's raw deflate.
 * A deflater or inflater makes its zlib context with the first message and, without context
 * takeover, gives it back at the end of each: an idle connection then holds none (a context is
 * about 256 KiB for sending, 48 KiB for receiving with full windows).
 * Internal to proto/ws. Owns the contexts; borrows the input. One thread at a time.
 */
#ifndef CV_PROTO_WS_WS_CODEC_H
#define CV_PROTO_WS_WS_CODEC_H

#include "base/slice.h"
#include "base/status.h"

#define ZLIB_CONST
#include <zlib.h>

struct cv_ws_deflater {
    z_stream stream;
    bool is_made;
    bool has_takeover;
    uint8_t window_bits; /* 8–15 */
    int level;
};

void cv_ws_deflater_init(struct cv_ws_deflater *deflater, uint8_t window_bits, bool has_takeover,
                         int level);
void cv_ws_deflater_done(struct cv_ws_deflater *deflater);

/* The most bytes that `len` bytes can become. */
size_t cv_ws_deflate_bound(size_t len);

/* Makes sure of memory for the next run. CV_NO_MEMORY: nothing has changed. */
struct cv_status cv_ws_deflater_prepare(struct cv_ws_deflater *deflater);

/* Compresses one frame's payload, flushed, so that the peer can inflate all of it; `is_final` ends
 * the message (00 00 FF FF cut off, §7.2.1). After prepare; `to` has cv_ws_deflate_bound bytes.
 * CV_INTERNAL: zlib failed; the context is of no more use. */
struct cv_status cv_ws_deflater_run(struct cv_ws_deflater *deflater, struct cv_slice payload,
                                    bool is_final, uint8_t *to, size_t *len);

enum { CV_WS_INFLATE_PIECE = 16384 };

struct cv_ws_inflater {
    z_stream stream;
    bool is_made;
    bool has_takeover;
    bool is_clean;  /* nothing was read since the message began, or since a final block ended */
    bool is_ending; /* the tail was fed */
    uint8_t window_bits;
    uint8_t *piece; /* CV_WS_INFLATE_PIECE bytes */
};

void cv_ws_inflater_init(struct cv_ws_inflater *inflater, uint8_t window_bits, bool has_takeover);
void cv_ws_inflater_done(struct cv_ws_inflater *inflater);

/* Hands over compressed bytes, borrowed until cv_ws_inflater_next says that it is drained. */
struct cv_status cv_ws_inflater_feed(struct cv_ws_inflater *inflater, struct cv_slice data);

/* Hands over the end of the message: the 00 00 FF FF that the sender cut off (§7.2.2), unless the
 * message ended in a final block, or had no byte at all, which some peers send for an empty one. */
struct cv_status cv_ws_inflater_end(struct cv_ws_inflater *inflater);

/* The next inflated bytes, at most CV_WS_INFLATE_PIECE, valid until the next call. *is_drained: all
 * that was fed is inflated; after an end it also means that the message is complete, and that
 * the context was reset or released as agreed. CV_WS_PROTOCOL: not deflate data, or it ends inside
 * a block. */
struct cv_status cv_ws_inflater_next(struct cv_ws_inflater *inflater, struct cv_slice *piece,
                                     bool *is_drained);

/* Frees the piece of a context that was released; the last piece is gone then. */
void cv_ws_inflater_rest(struct cv_ws_inflater *inflater);

#endif
