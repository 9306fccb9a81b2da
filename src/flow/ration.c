/* SPDX-License-Identifier: MIT */
#include "flow/ration.h"

#include <assert.h>
#include <stdatomic.h>
#include <stdlib.h>

struct cv_ration {
    atomic_uint refs;
    atomic_size_t taken;
    size_t max;
    struct cv_ration *above; /* a reference; NULL: there is none */
};

struct cv_ration *cv_ration_new(size_t max, struct cv_ration *above)
{
    struct cv_ration *ration = calloc(1, sizeof *ration);
    if (!ration)
        return NULL;
    atomic_init(&ration->refs, 1);
    atomic_init(&ration->taken, 0);
    ration->max = max;
    ration->above = cv_ration_ref(above);
    return ration;
}

struct cv_ration *cv_ration_ref(struct cv_ration *ration)
{
    if (ration)
        (void)atomic_fetch_add_explicit(&ration->refs, 1, memory_order_relaxed);
    return ration;
}

void cv_ration_unref(struct cv_ration **at)
{
    struct cv_ration *ration = *at;
    *at = NULL;
    while (ration && atomic_fetch_sub_explicit(&ration->refs, 1, memory_order_acq_rel) == 1) {
        struct cv_ration *above = ration->above;
        free(ration);
        ration = above;
    }
}

static bool take_here(struct cv_ration *ration, size_t len)
{
    size_t taken = atomic_load_explicit(&ration->taken, memory_order_relaxed);
    do {
        if (len > ration->max - taken)
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&ration->taken, &taken, taken + len,
                                                    memory_order_relaxed, memory_order_relaxed));
    return true;
}

static void give_here(struct cv_ration *ration, size_t len)
{
    size_t before = atomic_fetch_sub_explicit(&ration->taken, len, memory_order_relaxed);
    assert(before >= len);
    (void)before;
}

bool cv_ration_take(struct cv_ration *ration, size_t len)
{
    if (!ration)
        return len == 0;
    for (struct cv_ration *r = ration; r; r = r->above) {
        if (take_here(r, len))
            continue;
        for (struct cv_ration *undo = ration; undo != r; undo = undo->above)
            give_here(undo, len);
        return false;
    }
    return true;
}

void cv_ration_give(struct cv_ration *ration, size_t len)
{
    for (; ration && len; ration = ration->above)
        give_here(ration, len);
}

size_t cv_ration_taken(const struct cv_ration *ration)
{
    return ration ? atomic_load_explicit(&ration->taken, memory_order_relaxed) : 0;
}
