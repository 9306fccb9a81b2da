/* SPDX-License-Identifier: MIT
 *
 * Numbers as text, for what is written once a request and more often: a hundredth of what printf
 * takes. Nothing is terminated. Any thread.
 */
#ifndef CV_BASE_DIGITS_H
#define CV_BASE_DIGITS_H

#include <stddef.h>
#include <stdint.h>

enum { CV_DIGITS_MAX = 20 }; /* of any uint64_t, in either base */

/* Writes `value` at `out`, which has room for CV_DIGITS_MAX; returns how many characters it took.
 */
static inline size_t cv_digits_decimal(char *out, uint64_t value)
{
    char reversed[CV_DIGITS_MAX];
    size_t len = 0;
    do
        reversed[len++] = (char)('0' + value % 10);
    while (value /= 10);
    for (size_t i = 0; i < len; i++)
        out[i] = reversed[len - 1 - i];
    return len;
}

/* Lower case, without leading zeros. */
static inline size_t cv_digits_hex(char *out, uint64_t value)
{
    size_t len = 1;
    while (len < 16 && value >> (4 * len))
        len++;
    for (size_t i = 0; i < len; i++)
        out[i] = "0123456789abcdef"[value >> (4 * (len - 1 - i)) & 15];
    return len;
}

#endif
