/* SPDX-License-Identifier: MIT
 *
 * The fuzz harness without libFuzzer, as a test: every row of the test cases, then mutations of
 * them from a fixed seed. Arguments: [rounds [seed]].
 */
#include "proto/http/http_test_cases.h"

#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { INPUT_MAX = 4096 };

static uint64_t next_random(uint64_t *state) /* xorshift64 */
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return *state;
}

static size_t take_case(size_t index, uint8_t *out)
{
    const char *bytes;
    size_t len;
    index %= COUNT(request_cases) + COUNT(response_cases);
    bool is_request = index < COUNT(request_cases);
    if (is_request) {
        bytes = request_cases[index].bytes;
        len = request_cases[index].len ? request_cases[index].len : strlen(bytes);
    } else {
        bytes = response_cases[index - COUNT(request_cases)].bytes;
        len = strlen(bytes);
    }
    out[0] = is_request ? 0 : 1;
    memcpy(out + 1, bytes, len);
    return len + 1;
}

/* Deletes, doubles or overwrites a run, or splices another case in. */
static size_t mutate(uint8_t *data, size_t len, uint64_t *random)
{
    static const char interesting[] = "\r\n \t:;,=\"\\0123456789aAfFxX/?#%*@[].-_+\x7f\x80\xff\x00";
    size_t at = 1 + next_random(random) % len;
    size_t run = 1 + next_random(random) % 8;
    if (at + run > len)
        run = len > at ? len - at : 0;
    switch (next_random(random) % 4) {
    case 0:
        memmove(data + at, data + at + run, len - at - run);
        return len - run;
    case 1:
        if (len + run >= INPUT_MAX)
            return len;
        memmove(data + at + run, data + at, len - at);
        return len + run;
    case 2:
        if (at < len)
            data[at] = (uint8_t)interesting[next_random(random) % (sizeof(interesting) - 1)];
        return len;
    default: {
        uint8_t other[INPUT_MAX];
        size_t other_len = take_case((size_t)next_random(random), other);
        size_t from = next_random(random) % other_len;
        size_t part = 1 + next_random(random) % 64;
        if (part > other_len - from)
            part = other_len - from;
        if (len + part >= INPUT_MAX || at > len)
            return len;
        memmove(data + at + part, data + at, len - at);
        memcpy(data + at, other + from, part);
        return len + part;
    }
    }
}

int main(int argc, char **argv)
{
    uint8_t data[INPUT_MAX];
    uint64_t rounds = argc > 1 ? strtoull(argv[1], NULL, 10) : 20000;
    uint64_t random = argc > 2 ? strtoull(argv[2], NULL, 10) | 1 : 0x9e3779b97f4a7c15;
    for (size_t i = 0; i < COUNT(request_cases) + COUNT(response_cases); i++) {
        size_t len = take_case(i, data);
        (void)LLVMFuzzerTestOneInput(data, len);
    }
    for (uint64_t i = 0; i < rounds; i++) {
        size_t len = take_case((size_t)next_random(&random), data);
        data[0] = (uint8_t)(data[0] | (next_random(&random) & 0xfe));
        for (uint64_t n = next_random(&random) % 6; n > 0; n--)
            len = mutate(data, len, &random);
        (void)LLVMFuzzerTestOneInput(data, len);
    }
    return 0;
}
