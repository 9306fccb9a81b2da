/* SPDX-License-Identifier: MIT */
#include "proto/ws/ws_utf8.h"

/* Reads the first byte of a character; the second is restricted after E0, ED, F0 and F4 (the table
 * of RFC 3629 §4). */
static bool begin_character(struct cv_ws_utf8 *utf8, uint8_t byte)
{
    utf8->low = 0x80;
    utf8->high = 0xBF;
    if (byte >= 0xC2 && byte <= 0xDF) {
        utf8->missing = 1;
    } else if (byte >= 0xE0 && byte <= 0xEF) {
        utf8->missing = 2;
        if (byte == 0xE0)
            utf8->low = 0xA0;
        else if (byte == 0xED)
            utf8->high = 0x9F;
    } else if (byte >= 0xF0 && byte <= 0xF4) {
        utf8->missing = 3;
        if (byte == 0xF0)
            utf8->low = 0x90;
        else if (byte == 0xF4)
            utf8->high = 0x8F;
    } else {
        return byte < 0x80;
    }
    return true;
}

bool cv_ws_utf8_feed(struct cv_ws_utf8 *utf8, struct cv_slice piece)
{
    const uint64_t high_bits = 0x8080808080808080U;
    size_t i = 0;
    while (i < piece.len) {
        if (utf8->missing == 0) {
            for (; piece.len - i >= 8; i += 8) {
                uint64_t word;
                memcpy(&word, piece.data + i, sizeof word);
                if (word & high_bits)
                    break;
            }
            if (i < piece.len && !begin_character(utf8, piece.data[i++]))
                return false;
            continue;
        }
        uint8_t byte = piece.data[i++];
        if (byte < utf8->low || byte > utf8->high)
            return false;
        utf8->missing--;
        utf8->low = 0x80;
        utf8->high = 0xBF;
    }
    return true;
}

struct cv_slice cv_ws_utf8_cut(struct cv_slice text, size_t max_len)
{
    if (text.len <= max_len)
        return text;
    size_t len = max_len;
    while (len > 0 && (text.data[len] & 0xC0) == 0x80)
        len--;
    return cv_slice(text.data, len);
}
