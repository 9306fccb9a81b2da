/* SPDX-License-Identifier: MIT */
#include "auth/cache.h"

#include "base/bytes.h"
#include "base/digest.h"

/* Without memory a put keeps nothing instead of ending the process. */
#define HASH_NONFATAL_OOM 1
/* The keys are SHA-256 already; their first bytes are as good as any hash of them. */
#define HASH_FUNCTION(key, len, hash) ((hash) = (unsigned)cv_get_u32((const uint8_t *)(key)))
#include <uthash.h>

/* Order in uthash is order of insertion, so the head is the least recently used as long as a hit is
 * taken out and put in again. */
struct entry {
    uint8_t key[CV_SHA256_LEN];
    struct cv_identity *identity;
    uint64_t generation;
    uint64_t made_ms;
    UT_hash_handle hh;
};

struct cv_token_cache {
    struct entry *entries;
    size_t max_entries;
    uint64_t ttl_ms;
    struct cv_hasher *hasher;
};

static void drop(struct cv_token_cache *cache, struct entry *entry)
{
    HASH_DEL(cache->entries, entry);
    cv_identity_unref(&entry->identity);
    free(entry);
}

/* False: there was no memory for the table and the entry is gone. */
static bool add(struct cv_token_cache *cache, struct entry *entry)
{
    entry->hh.tbl = NULL;
    HASH_ADD(hh, cache->entries, key, sizeof entry->key, entry);
    if (entry->hh.tbl)
        return true;
    cv_identity_unref(&entry->identity);
    free(entry);
    return false;
}

struct cv_status cv_token_cache_new(size_t max_entries, uint64_t ttl_ms,
                                    struct cv_token_cache **out)
{
    *out = calloc(1, sizeof **out);
    if (!*out)
        return cv_status(CV_NO_MEMORY);
    (*out)->hasher = cv_hasher_new();
    if (!(*out)->hasher) {
        cv_token_cache_free(out);
        return cv_status(CV_NO_MEMORY);
    }
    (*out)->max_entries = ttl_ms ? max_entries : 0;
    (*out)->ttl_ms = ttl_ms;
    return cv_ok();
}

void cv_token_cache_free(struct cv_token_cache **cache)
{
    struct cv_token_cache *old = *cache;
    *cache = NULL;
    if (!old)
        return;
    while (old->entries)
        drop(old, old->entries);
    cv_hasher_free(&old->hasher);
    free(old);
}

struct cv_identity *cv_token_cache_find(struct cv_token_cache *cache, struct cv_slice token,
                                        uint64_t generation, int64_t now_s, uint64_t now_ms)
{
    uint8_t key[CV_SHA256_LEN];
    struct entry *entry = NULL;
    if (!cache->entries)
        return NULL;
    cv_hasher_sha256(cache->hasher, token, key);
    HASH_FIND(hh, cache->entries, key, sizeof key, entry);
    if (!entry)
        return NULL;
    if (entry->generation != generation || now_s >= entry->identity->valid_until_s ||
        now_ms - entry->made_ms >= cache->ttl_ms) {
        drop(cache, entry);
        return NULL;
    }
    struct cv_identity *identity = cv_identity_ref(entry->identity);
    if (entry->hh.next) { /* not the most recently used one already */
        HASH_DEL(cache->entries, entry);
        (void)add(cache, entry);
    }
    return identity;
}

void cv_token_cache_put(struct cv_token_cache *cache, struct cv_slice token,
                        struct cv_identity *identity, uint64_t generation, uint64_t now_ms)
{
    struct entry *old = NULL;
    if (cache->max_entries == 0)
        return;
    struct entry *entry = calloc(1, sizeof *entry);
    if (!entry)
        return;
    cv_hasher_sha256(cache->hasher, token, entry->key);
    HASH_FIND(hh, cache->entries, entry->key, sizeof entry->key, old);
    if (old)
        drop(cache, old);
    while (HASH_COUNT(cache->entries) >= cache->max_entries)
        drop(cache, cache->entries);
    entry->identity = cv_identity_ref(identity);
    entry->generation = generation;
    entry->made_ms = now_ms;
    (void)add(cache, entry);
}

size_t cv_token_cache_count(const struct cv_token_cache *cache)
{
    return HASH_COUNT(cache->entries);
}
