/* SPDX-License-Identifier: MIT
 *
 * What a fuzz harness includes: libFuzzer's entry points, and what structure-aware mutators share.
 *
 * A harness is x_fuzz.c beside x.c. It is built twice (tests/fuzz/meson.build): with -Dfuzz=true
 * under libFuzzer, and in every other build with fuzz_main.c, which replays the corpus and some
 * mutations of it from a fixed seed. Harnesses keep no state between inputs, and abort when
 * something is wrong.
 */
#ifndef CV_BASE_FUZZ_H
#define CV_BASE_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Runs one input; always 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* By choice of the harness: changes data[0..size) in place, within max_size, and returns the new
 * size. The same arguments give the same result. */
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);

/* For custom mutators to call: the engine's own way of changing bytes. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);

/* An invariant of the harness. */
#define cv_fuzz_must(condition)                                                                    \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            (void)fprintf(stderr, "%s:%d: does not hold: %s\n", __FILE__, __LINE__, #condition);   \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* One change to a JSON text that keeps it JSON most of the time: values replaced by awkward ones or
 * by each other, members doubled or removed, strings changed inside, nesting. Returns the new size,
 * within max_size. `random` as below. In fuzz_json.c. */
size_t cv_fuzz_json(uint8_t *data, size_t size, size_t max_size, uint64_t *random);

/* xorshift64*: good enough to choose with; `state` must not be 0. */
static inline uint64_t cv_fuzz_random(uint64_t *state)
{
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * 0x2545f4914f6cdd1d;
}

/* Bytes of the input in a block of their own, so that the address sanitizer sees one read too
 * many; for the caller to free, never NULL. */
static inline uint8_t *cv_fuzz_copy(const void *data, size_t len)
{
    uint8_t *copy = malloc(len ? len : 1);
    if (!copy)
        abort();
    if (len)
        memcpy(copy, data, len);
    return copy;
}

#endif
