/* SPDX-License-Identifier: MIT */
#include "proto/http/http_chars.h"

#include <endian.h>
#include <string.h>

/* Path and query: RFC 3986 §3.3 and §3.4, plus what browsers leave unescaped ([ ] ^ ` { | }, and
 * '\\' in a query). No control, space, 8-bit byte, '#', '"', '<', '>' anywhere. */
/* clang-format off */
const uint8_t cv_http_chars[256] = {
     0,  0,  0,  0,  0,  0,  0,  0,  0,  2,  0,  0,  0,  0,  0,  0, /* 0x00 */
     0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0, /* 0x10 */
     2, 15,  2,  3, 15, 15, 15, 15, 14, 14, 15, 15, 14, 31, 31, 14, /* 0x20 */
    63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 14, 14,  2, 14,  2, 10, /* 0x30 */
    14, 63, 63, 63, 63, 63, 63, 31, 31, 31, 31, 31, 31, 31, 31, 31, /* 0x40 */
    31, 31, 31, 31, 31, 31, 31, 31, 31, 31, 31, 14, 10, 14, 15, 31, /* 0x50 */
    15, 63, 63, 63, 63, 63, 63, 31, 31, 31, 31, 31, 31, 31, 31, 31, /* 0x60 */
    31, 31, 31, 31, 31, 31, 31, 31, 31, 31, 31, 14, 15, 14, 31,  0, /* 0x70 */
     2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2, /* 0x80 */
     2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2, /* 0x90 */
     2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2, /* 0xA0 */
     2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2, /* 0xB0 */
     2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2, /* 0xC0 */
     2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2, /* 0xD0 */
     2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2, /* 0xE0 */
     2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2,  2, /* 0xF0 */
};
/* clang-format on */

/* The top bits of bytes below SP and of DEL: all that may not stand in a field value, and HTAB,
 * which may. Bits above the lowest one that is set may be wrong (a borrow), that one is not. */
static uint64_t controls(uint64_t word)
{
    const uint64_t ones = UINT64_MAX / 255, tops = ones << 7;
    uint64_t del = word ^ ones * 0x7f;
    return (((word - ones * 0x20) & ~word) | ((del - ones) & ~del)) & tops;
}

static uint64_t load(const uint8_t *data)
{
    uint64_t word;
    memcpy(&word, data, sizeof word);
    return le64toh(word);
}

size_t cv_http_text_len(const uint8_t *data, size_t len)
{
    size_t i = 0;
    while (len - i >= sizeof(uint64_t)) {
        uint64_t found = controls(load(data + i));
        if (!found) {
            i += sizeof found;
            continue;
        }
        i += (size_t)__builtin_ctzll(found) / 8;
        if (data[i] != '\t')
            return i;
        i++;
    }
    /* The last bytes once more, with those before them. */
    if (i && !controls(load(data + len - sizeof(uint64_t))))
        return len;
    while (i < len && cv_http_chars[data[i]] & CV_HTTP_VCHAR)
        i++;
    return i;
}
