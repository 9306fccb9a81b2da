/* SPDX-License-Identifier: MIT */
#include "proto/ws/ws_codec.h"

#include <stdlib.h>

enum { TAIL_LEN = 4, MIN_WINDOW_BITS = 9, MEM_LEVEL = 8 };

/* What a sync flush ends with: an empty stored block, without its three header bits. */
static const uint8_t tail[TAIL_LEN] = {0x00, 0x00, 0xFF, 0xFF};

void cv_ws_deflater_init(struct cv_ws_deflater *deflater, uint8_t window_bits, bool has_takeover,
                         int level)
{
    *deflater = (struct cv_ws_deflater){
        .window_bits = window_bits, .has_takeover = has_takeover, .level = level};
}

void cv_ws_deflater_done(struct cv_ws_deflater *deflater)
{
    /* Z_DATA_ERROR only says that a message was cut short. */
    if (deflater->is_made)
        (void)deflateEnd(&deflater->stream);
    deflater->is_made = false;
}

size_t cv_ws_deflate_bound(size_t len)
{
    /* zlib's own bound for any window (deflate.c, deflateBound): all literals in fixed blocks; and
     * a flush. */
    return len + (len >> 3) + (len >> 6) + 64;
}

struct cv_status cv_ws_deflater_prepare(struct cv_ws_deflater *deflater)
{
    if (deflater->is_made)
        return cv_ok();
    /* zlib does not compress raw data for a window of 256 bytes. With matches at distance one only
     * (Z_RLE), whatever its own window is, the result fits any window. */
    int strategy = deflater->window_bits < MIN_WINDOW_BITS ? Z_RLE : Z_DEFAULT_STRATEGY;
    int bits = deflater->window_bits < MIN_WINDOW_BITS ? MIN_WINDOW_BITS : deflater->window_bits;
    deflater->stream = (z_stream){0};
    if (deflateInit2(&deflater->stream, deflater->level, Z_DEFLATED, -bits, MEM_LEVEL, strategy) !=
        Z_OK)
        return cv_status(CV_NO_MEMORY);
    deflater->is_made = true;
    return cv_ok();
}

struct cv_status cv_ws_deflater_run(struct cv_ws_deflater *deflater, struct cv_slice payload,
                                    bool is_final, uint8_t *to, size_t *len)
{
    z_stream *stream = &deflater->stream;
    size_t room = cv_ws_deflate_bound(payload.len);
    if (!deflater->is_made || room > UINT32_MAX)
        return cv_status(CV_INTERNAL);
    stream->next_in = payload.data;
    stream->avail_in = (uInt)payload.len;
    stream->next_out = to;
    stream->avail_out = (uInt)room;
    int result = deflate(stream, Z_SYNC_FLUSH);
    /* Z_BUF_ERROR: nothing came in since the last flush, so nothing comes out. */
    if ((result != Z_OK && result != Z_BUF_ERROR) || stream->avail_in > 0 || stream->avail_out == 0)
        return cv_status(CV_INTERNAL);
    *len = room - stream->avail_out;
    if (!is_final)
        return cv_ok();
    if (*len > TAIL_LEN)
        *len -= TAIL_LEN;
    else
        to[(*len)++] = 0x00; /* with the tail an empty stored block: no data (§7.2.3.6) */
    if (!deflater->has_takeover)
        cv_ws_deflater_done(deflater);
    return cv_ok();
}

void cv_ws_inflater_init(struct cv_ws_inflater *inflater, uint8_t window_bits, bool has_takeover)
{
    *inflater = (struct cv_ws_inflater){
        .window_bits = window_bits, .has_takeover = has_takeover, .is_clean = true};
}

void cv_ws_inflater_done(struct cv_ws_inflater *inflater)
{
    if (inflater->is_made)
        (void)inflateEnd(&inflater->stream);
    inflater->is_made = false;
    free(inflater->piece);
    inflater->piece = NULL;
}

static struct cv_status make_inflater(struct cv_ws_inflater *inflater)
{
    if (!inflater->piece)
        inflater->piece = malloc(CV_WS_INFLATE_PIECE);
    if (!inflater->piece)
        return cv_status(CV_NO_MEMORY);
    if (inflater->is_made)
        return cv_ok();
    /* A peer on an old zlib says 8 and uses 9; a larger window inflates a smaller one's data. */
    int bits = inflater->window_bits < MIN_WINDOW_BITS ? MIN_WINDOW_BITS : inflater->window_bits;
    inflater->stream = (z_stream){0};
    if (inflateInit2(&inflater->stream, -bits) != Z_OK)
        return cv_status(CV_NO_MEMORY);
    inflater->is_made = true;
    return cv_ok();
}

struct cv_status cv_ws_inflater_feed(struct cv_ws_inflater *inflater, struct cv_slice data)
{
    CV_RETURN_IF_ERROR(make_inflater(inflater));
    inflater->stream.next_in = data.data;
    inflater->stream.avail_in = (uInt)data.len;
    return cv_ok();
}

struct cv_status cv_ws_inflater_end(struct cv_ws_inflater *inflater)
{
    inflater->is_ending = true;
    return cv_ws_inflater_feed(inflater, cv_slice(tail, inflater->is_clean ? 0 : TAIL_LEN));
}

/* The message is over: it must stand between two blocks, at a whole byte (zlib.h, inflate:
 * data_type has 128 for the former and counts unused bits in its low ones). */
static struct cv_status end_message(struct cv_ws_inflater *inflater)
{
    bool is_between_blocks =
        (inflater->stream.data_type & 128) != 0 && (inflater->stream.data_type & 7) == 0;
    if (!is_between_blocks && !inflater->is_clean)
        return cv_status(CV_WS_PROTOCOL);
    inflater->is_ending = false;
    inflater->is_clean = true;
    if (!inflater->has_takeover) {
        /* The caller still reads the last piece: that buffer stays. */
        (void)inflateEnd(&inflater->stream);
        inflater->is_made = false;
    }
    return cv_ok();
}

struct cv_status cv_ws_inflater_next(struct cv_ws_inflater *inflater, struct cv_slice *piece,
                                     bool *is_drained)
{
    z_stream *stream = &inflater->stream;
    stream->next_out = inflater->piece;
    stream->avail_out = CV_WS_INFLATE_PIECE;
    for (;;) {
        uInt had = stream->avail_in;
        int result = inflate(stream, Z_SYNC_FLUSH);
        if (had > stream->avail_in)
            inflater->is_clean = false;
        if (result == Z_STREAM_END) {
            /* A final block: more blocks may follow, and with takeover they may look back over it,
             * so the window stays (§7.2.3.4 and §7.2.3.5). */
            if (inflateResetKeep(stream) != Z_OK)
                return cv_status(CV_INTERNAL);
            inflater->is_clean = true;
            if (stream->avail_in > 0)
                continue;
        } else if (result == Z_MEM_ERROR) {
            return cv_status(CV_NO_MEMORY);
        } else if (result != Z_OK && result != Z_BUF_ERROR) {
            return cv_status(CV_WS_PROTOCOL);
        }
        break;
    }
    *piece = cv_slice(inflater->piece, CV_WS_INFLATE_PIECE - stream->avail_out);
    *is_drained = stream->avail_out > 0;
    return *is_drained && inflater->is_ending ? end_message(inflater) : cv_ok();
}

void cv_ws_inflater_rest(struct cv_ws_inflater *inflater)
{
    if (inflater->is_made)
        return;
    free(inflater->piece);
    inflater->piece = NULL;
}
