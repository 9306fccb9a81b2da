/* SPDX-License-Identifier: MIT
 *
 * Big-endian integers in byte arrays, as every protocol here writes them. The caller has checked
 * the length. Any thread.
 */
#ifndef CV_BASE_BYTES_H
#define CV_BASE_BYTES_H

#include <stdint.h>

static inline void cv_put_u16(uint8_t *to, uint16_t value)
{
    to[0] = (uint8_t)(value >> 8);
    to[1] = (uint8_t)value;
}

static inline void cv_put_u32(uint8_t *to, uint32_t value)
{
    to[0] = (uint8_t)(value >> 24);
    to[1] = (uint8_t)(value >> 16);
    to[2] = (uint8_t)(value >> 8);
    to[3] = (uint8_t)value;
}

static inline void cv_put_u64(uint8_t *to, uint64_t value)
{
    cv_put_u32(to, (uint32_t)(value >> 32));
    cv_put_u32(to + 4, (uint32_t)value);
}

static inline uint16_t cv_get_u16(const uint8_t *from)
{
    return (uint16_t)((unsigned)from[0] << 8 | from[1]);
}

static inline uint32_t cv_get_u32(const uint8_t *from)
{
    return (uint32_t)from[0] << 24 | (uint32_t)from[1] << 16 | (uint32_t)from[2] << 8 | from[3];
}

static inline uint64_t cv_get_u64(const uint8_t *from)
{
    return (uint64_t)cv_get_u32(from) << 32 | cv_get_u32(from + 4);
}

#endif
