/* SPDX-License-Identifier: MIT */
#include "telemetry/window.h"

static uint64_t number_at(uint64_t now_ms)
{
    return now_ms / CV_WINDOW_SLOT_MS + 1;
}

static struct cv_window_slot *slot_now(struct cv_window *window, uint64_t now_ms)
{
    uint64_t number = number_at(now_ms);
    struct cv_window_slot *slot = &window->slots[number % CV_WINDOW_SLOTS];
    if (atomic_load_explicit(&slot->number, memory_order_relaxed) != number) {
        atomic_store_explicit(&slot->number, 0, memory_order_relaxed);
        for (unsigned i = 0; i < CV_WINDOW_COUNTS; i++)
            atomic_store_explicit(&slot->counts[i], 0, memory_order_release);
        cv_sketch_clear(&slot->latency);
        atomic_store_explicit(&slot->number, number, memory_order_release);
    }
    return slot;
}

void cv_window_count(struct cv_window *window, uint64_t now_ms, enum cv_window_count what)
{
    _Atomic uint32_t *count = &slot_now(window, now_ms)->counts[what];
    uint32_t value = atomic_load_explicit(count, memory_order_relaxed);
    if (value < UINT32_MAX)
        atomic_store_explicit(count, value + 1, memory_order_relaxed);
}

void cv_window_latency(struct cv_window *window, uint64_t now_ms, uint64_t latency_us)
{
    cv_sketch_add(&slot_now(window, now_ms)->latency, latency_us);
}

void cv_window_merge(struct cv_window_sum *sum, const struct cv_window *window, uint64_t now_ms)
{
    uint64_t newest = number_at(now_ms);
    for (unsigned i = 0; i < CV_WINDOW_SLOTS; i++) {
        const struct cv_window_slot *slot = &window->slots[i];
        uint64_t number = atomic_load_explicit(&slot->number, memory_order_acquire);
        /* Another thread's clock may be a little ahead. */
        if (!number || number > newest + 1 || number + CV_WINDOW_SLOTS <= newest)
            continue;
        for (unsigned k = 0; k < CV_WINDOW_COUNTS; k++)
            sum->counts[k] += atomic_load_explicit(&slot->counts[k], memory_order_relaxed);
        cv_sketch_merge(&sum->latency, &slot->latency);
    }
}

double cv_window_ratio(uint64_t good, uint64_t all)
{
    return all ? (double)(good < all ? good : all) / (double)all : 1;
}
