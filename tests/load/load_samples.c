/* SPDX-License-Identifier: MIT */
#include "load_samples.h"

#include <stdio.h>
#include <stdlib.h>

void load_samples_init(struct load_samples *samples, size_t cap)
{
    *samples =
        (struct load_samples){.values = calloc(cap + 1, sizeof *samples->values), .cap = cap};
    if (!samples->values)
        abort();
}

void load_samples_done(struct load_samples *samples)
{
    free(samples->values);
    *samples = (struct load_samples){0};
}

void load_samples_add(struct load_samples *samples, uint64_t value)
{
    if (samples->count < samples->cap)
        samples->values[samples->count++] = value < UINT32_MAX ? (uint32_t)value : UINT32_MAX;
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

void load_samples_print(struct load_samples *samples)
{
    static const struct {
        const char *name;
        double part;
    } ranks[] = {{"p50", .5}, {"p90", .9}, {"p95", .95}, {"p99", .99}, {"p999", .999}};
    double sum = 0;
    qsort(samples->values, samples->count, sizeof *samples->values, by_value);
    for (size_t i = 0; i < samples->count; i++)
        sum += samples->values[i];
    size_t last = samples->count ? samples->count - 1 : 0;
    (void)printf("{\"count\":%zu,\"mean\":%.1f", samples->count,
                 samples->count ? sum / (double)samples->count : 0);
    for (size_t i = 0; i < sizeof ranks / sizeof ranks[0]; i++)
        (void)printf(",\"%s\":%u", ranks[i].name,
                     samples->values[(size_t)((double)last * ranks[i].part + .5)]);
    (void)printf(",\"max\":%u}", samples->values[last]);
}
