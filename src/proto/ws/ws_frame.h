/* SPDX-License-Identifier: MIT
 *
 * The bytes of a frame (RFC 6455 §5.2): header layout and masking. Pure functions. Any thread.
 *
 *      0               1               2 …
 *     +-+-+-+-+-------+-+-------------+-------------------+------------------+---------
 *     |F|R|R|R| opcode|M| length (7)  | length, 0, 2 or 8 | mask key, 0 or 4 | payload
 *     |I|S|S|S|  (4)  |A| 126: 2 more |                   |                  |
 *     |N|V|V|V|       |S| 127: 8 more |                   |                  |
 *     +-+1+2+3+-------+K+-------------+-------------------+------------------+---------
 */
#ifndef CV_PROTO_WS_WS_FRAME_H
#define CV_PROTO_WS_WS_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    CV_WS_BIT_FIN = 0x80,
    CV_WS_BIT_RSV1 = 0x40,
    CV_WS_BITS_RSV23 = 0x30,
    CV_WS_BITS_OPCODE = 0x0F,
    CV_WS_BIT_MASK = 0x80, /* of the second byte */
    CV_WS_BITS_LENGTH = 0x7F,
    CV_WS_LENGTH_16 = 126, /* the length is in the next 2 bytes */
    CV_WS_LENGTH_64 = 127, /* … 8 bytes */
    CV_WS_MASK_LEN = 4,
};

/* Bytes of the header for `len` bytes of payload: 2 to 14. */
size_t cv_ws_head_size(uint64_t len, bool is_masked);

/* Writes a header, with the shortest length encoding; `first` is FIN, RSV and opcode. `mask` is
 * NULL for none. Returns its size. */
size_t cv_ws_head_write(uint8_t *to, uint8_t first, uint64_t len, const uint8_t *mask);

/* to[i] = from[i] ^ mask[(offset + i) % 4] (§5.3), masking and unmasking alike. `to` may be `from`,
 * but must not overlap it otherwise. `offset` is the place of the first byte in the payload. */
void cv_ws_mask(uint8_t *to, const uint8_t *from, size_t len, const uint8_t mask[CV_WS_MASK_LEN],
                uint64_t offset);

#endif
