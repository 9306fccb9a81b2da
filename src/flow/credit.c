/* SPDX-License-Identifier: MIT */
#include "flow/credit.h"

enum {
    GROW_ROUND_TRIPS = 2,
    SHRINK_ROUND_TRIPS = 8,
    SHRINK_MS = 1000, /* and never sooner: most streams pause for longer than a short path takes */
};

void cv_credit_init(struct cv_credit *window, size_t least, size_t most)
{
    *window =
        (struct cv_credit){.bytes = least, .least = least, .most = most > least ? most : least};
}

void cv_credit_set(struct cv_credit *window, size_t bytes)
{
    window->bytes = bytes < window->least  ? window->least
                    : bytes > window->most ? window->most
                                           : bytes;
    window->since_ms = 0;
}

static void begin(struct cv_credit *window, uint64_t now_ms)
{
    window->used = 0;
    window->since_ms = now_ms ? now_ms : 1;
}

static size_t twice(const struct cv_credit *window)
{
    return window->bytes < window->most / 2 ? window->bytes * 2 : window->most;
}

static size_t half(const struct cv_credit *window)
{
    return window->bytes / 2 > window->least ? window->bytes / 2 : window->least;
}

size_t cv_credit_use(struct cv_credit *window, size_t len, uint64_t now_ms, uint32_t rtt_ms)
{
    /* How long the first bytes took is not known. */
    if (!window->since_ms) {
        begin(window, now_ms);
        return window->bytes;
    }
    uint64_t spent_ms = now_ms - window->since_ms;
    window->used += len;
    if (window->used >= window->bytes - window->bytes / 4) {
        begin(window, now_ms);
        return spent_ms < (uint64_t)GROW_ROUND_TRIPS * rtt_ms ? twice(window) : window->bytes;
    }
    if (spent_ms < SHRINK_MS || spent_ms < (uint64_t)SHRINK_ROUND_TRIPS * rtt_ms)
        return window->bytes;
    begin(window, now_ms);
    return half(window);
}
