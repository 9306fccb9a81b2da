/* SPDX-License-Identifier: MIT */
#include "flow/bucket_table.h"

#include <stdlib.h>

enum { WAYS = 8, ENTRIES_MAX = 1 << 24 };

struct cv_bucket_table {
    struct cv_bucket_entry *entries;
    size_t set_count; /* a power of two */
};

struct cv_status cv_bucket_table_new(size_t entries, struct cv_bucket_table **out)
{
    struct cv_bucket_table *table = calloc(1, sizeof *table);
    *out = NULL;
    if (!table)
        return cv_status(CV_NO_MEMORY);
    if (entries > ENTRIES_MAX)
        entries = ENTRIES_MAX;
    table->set_count = 1;
    while (table->set_count * WAYS < entries)
        table->set_count *= 2;
    table->entries = calloc(table->set_count * WAYS, sizeof *table->entries);
    if (!table->entries) {
        free(table);
        return cv_status(CV_NO_MEMORY);
    }
    *out = table;
    return cv_ok();
}

void cv_bucket_table_free(struct cv_bucket_table **table)
{
    if (*table)
        free((*table)->entries);
    free(*table);
    *table = NULL;
}

static struct cv_bucket_entry *set_of(const struct cv_bucket_table *table, uint64_t tag)
{
    return table->entries + (tag & (table->set_count - 1)) * WAYS;
}

static uint64_t known_as(uint64_t tag)
{
    return tag ? tag : 1; /* 0 is a free entry */
}

static bool is_in_use(struct cv_bucket_entry *entry)
{
    for (unsigned i = 0; i < CV_COUNTS_PER_ENTRY; i++)
        if (atomic_load_explicit(&entry->counts[i], memory_order_relaxed))
            return true;
    return false;
}

/* When the last of its buckets is full again: the earlier, the longer it has been at rest. */
static uint64_t rest_ns(const struct cv_bucket_entry *entry)
{
    uint64_t latest = 0;
    for (unsigned i = 0; i < CV_BUCKETS_PER_ENTRY; i++) {
        uint64_t full = atomic_load_explicit(&entry->buckets[i], memory_order_relaxed);
        if (full > latest)
            latest = full;
    }
    return latest;
}

struct cv_bucket_entry *cv_bucket_table_find(struct cv_bucket_table *table, uint64_t tag)
{
    struct cv_bucket_entry *set = set_of(table, tag);
    tag = known_as(tag);
    for (unsigned i = 0; i < WAYS; i++)
        if (atomic_load_explicit(&set[i].tag, memory_order_acquire) == tag)
            return &set[i];
    return NULL;
}

static struct cv_bucket_entry *choose_victim(struct cv_bucket_entry *set)
{
    struct cv_bucket_entry *victim = NULL;
    uint64_t oldest = UINT64_MAX;
    for (unsigned i = 0; i < WAYS; i++) {
        struct cv_bucket_entry *entry = &set[i];
        if (atomic_load_explicit(&entry->tag, memory_order_relaxed) == 0)
            return entry;
        uint64_t rest = rest_ns(entry);
        if (!is_in_use(entry) && rest < oldest) {
            oldest = rest;
            victim = entry;
        }
    }
    return victim;
}

struct cv_bucket_entry *cv_bucket_table_get(struct cv_bucket_table *table, uint64_t tag,
                                            uint64_t now_ms)
{
    struct cv_bucket_entry *entry = cv_bucket_table_find(table, tag);
    /* Who loses a race for a place looks again; after as many tries as there are places it does
     * without. */
    for (unsigned tries = 0; !entry && tries < WAYS; tries++) {
        struct cv_bucket_entry *victim = choose_victim(set_of(table, tag));
        if (!victim)
            return NULL;
        uint64_t before = atomic_load_explicit(&victim->tag, memory_order_relaxed);
        if (atomic_compare_exchange_strong_explicit(&victim->tag, &before, known_as(tag),
                                                    memory_order_acq_rel, memory_order_relaxed)) {
            /* Full, and the most recent of its set. */
            for (unsigned i = 0; i < CV_BUCKETS_PER_ENTRY; i++)
                atomic_store_explicit(&victim->buckets[i], now_ms * 1000000, memory_order_relaxed);
            return victim;
        }
        entry = cv_bucket_table_find(table, tag);
    }
    return entry;
}

bool cv_bucket_entry_open(struct cv_bucket_entry *entry, unsigned which, unsigned max)
{
    unsigned count = atomic_load_explicit(&entry->counts[which], memory_order_relaxed);
    do {
        if (count >= max)
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&entry->counts[which], &count, count + 1,
                                                    memory_order_relaxed, memory_order_relaxed));
    return true;
}

void cv_bucket_entry_close(struct cv_bucket_entry *entry, unsigned which)
{
    (void)atomic_fetch_sub_explicit(&entry->counts[which], 1, memory_order_relaxed);
}
