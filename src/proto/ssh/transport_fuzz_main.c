/* SPDX-License-Identifier: MIT
 *
 * Runs the fuzz target without libFuzzer: over the files named, or over inputs made from a fixed
 * seed, so that every build tries some thousand of them.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static uint32_t next_random(uint32_t *seed)
{
    *seed = *seed * 1664525 + 1013904223;
    return *seed >> 8;
}

static const char ident[] = "SSH-2.0-x\r\n";

/* A plausible beginning, then message numbers that mean something, then noise. */
static size_t make_input(uint8_t *data, size_t size, uint32_t *seed)
{
    static const uint8_t numbers[] = {1, 2, 3, 4, 5, 6, 7, 20, 21, 30, 31, 50, 51, 52, 53, 80, 94};
    size_t len = 0, want = next_random(seed) % size;
    data[len++] = (uint8_t)next_random(seed);
    if (!(data[0] & 2) && next_random(seed) % 4) {
        for (size_t i = 0; i + 1 < sizeof ident; i++)
            data[len++] = (uint8_t)ident[i];
    }
    while (len + 64 < want) {
        size_t n = 1 + next_random(seed) % 40;
        data[len++] = 0;
        data[len++] = (uint8_t)n;
        data[len++] = numbers[next_random(seed) % sizeof numbers];
        for (size_t i = 1; i < n; i++)
            data[len++] = next_random(seed) % 3 ? 0 : (uint8_t)next_random(seed);
    }
    return len;
}

int main(int argc, char **argv)
{
    enum { SIZE = 4096, COUNT = 3000 };
    static uint8_t data[1 << 20];
    uint32_t seed = 1;
    for (int i = 1; i < argc; i++) {
        FILE *file = fopen(argv[i], "rb");
        if (!file)
            return 1;
        size_t len = fread(data, 1, sizeof data, file);
        (void)fclose(file);
        (void)LLVMFuzzerTestOneInput(data, len);
    }
    for (int i = 0; argc == 1 && i < COUNT; i++) {
        size_t len = make_input(data, SIZE, &seed);
        (void)LLVMFuzzerTestOneInput(data, len);
    }
    return 0;
}
