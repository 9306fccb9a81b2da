/* SPDX-License-Identifier: MIT */
#include "proto/ws/ws_frame.h"

#include "base/bytes.h"

#include <string.h>

size_t cv_ws_head_size(uint64_t len, bool is_masked)
{
    size_t size = len < CV_WS_LENGTH_16 ? 2 : len <= UINT16_MAX ? 4 : 10;
    return is_masked ? size + CV_WS_MASK_LEN : size;
}

size_t cv_ws_head_write(uint8_t *to, uint8_t first, uint64_t len, const uint8_t *mask)
{
    uint8_t mask_bit = mask ? CV_WS_BIT_MASK : 0;
    size_t at = 2;
    to[0] = first;
    if (len < CV_WS_LENGTH_16) {
        to[1] = (uint8_t)(mask_bit | len);
    } else if (len <= UINT16_MAX) {
        to[1] = mask_bit | CV_WS_LENGTH_16;
        cv_put_u16(to + 2, (uint16_t)len);
        at = 4;
    } else {
        to[1] = mask_bit | CV_WS_LENGTH_64;
        cv_put_u64(to + 2, len);
        at = 10;
    }
    if (mask) {
        memcpy(to + at, mask, CV_WS_MASK_LEN);
        at += CV_WS_MASK_LEN;
    }
    return at;
}

void cv_ws_mask(uint8_t *to, const uint8_t *from, size_t len, const uint8_t mask[CV_WS_MASK_LEN],
                uint64_t offset)
{
    /* The key, turned so that its first byte belongs to from[0], and repeated to a word. */
    uint8_t key[8];
    for (size_t i = 0; i < sizeof key; i++)
        key[i] = mask[(offset + i) % CV_WS_MASK_LEN];
    uint64_t word;
    memcpy(&word, key, sizeof word);

    /* Four words a turn: compilers make vector instructions of it, and unaligned access is right
     * through memcpy. */
    size_t i = 0;
    for (; len - i >= 32; i += 32) {
        uint64_t part[4];
        memcpy(part, from + i, sizeof part);
        part[0] ^= word;
        part[1] ^= word;
        part[2] ^= word;
        part[3] ^= word;
        memcpy(to + i, part, sizeof part);
    }
    for (; i < len; i++)
        to[i] = from[i] ^ key[i % CV_WS_MASK_LEN];
}
