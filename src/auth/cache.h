/* SPDX-License-Identifier: MIT
 *
 * Tokens that were found good a moment ago, so that most requests cost a hash and a lookup instead
 * of a signature. Keyed by SHA-256 of the token; the token itself is not kept. Bounded, least
 * recently used goes first. Refusals are not kept: a token that is not yet valid becomes valid, and
 * junk must not push good entries out. Owns its entries, holds a reference on their identities. One
 * per worker, that worker's thread only.
 */
#ifndef CV_AUTH_CACHE_H
#define CV_AUTH_CACHE_H

#include "auth/identity.h"
#include "base/status.h"

#define CV_TOKEN_CACHE_DEFAULT_ENTRIES 4096
#define CV_TOKEN_CACHE_DEFAULT_TTL_MS 300000

struct cv_token_cache;

/* `ttl_ms` is the longest a verdict is trusted (AUTH_TOKEN_CACHE_TTL); 0 makes a cache that keeps
 * nothing. CV_NO_MEMORY; *out is NULL then. */
struct cv_status cv_token_cache_new(size_t max_entries, uint64_t ttl_ms,
                                    struct cv_token_cache **out);
void cv_token_cache_free(struct cv_token_cache **cache);

/* A new reference (unref it) or NULL. An entry counts only while `now_s` (Unix seconds) is before
 * its valid_until_s, it is younger than the TTL by `now_ms` (monotonic) and it was made under the
 * same `generation` of keys; otherwise it is dropped. */
struct cv_identity *cv_token_cache_find(struct cv_token_cache *cache, struct cv_slice token,
                                        uint64_t generation, int64_t now_s, uint64_t now_ms);

/* Takes a reference of its own. Without memory it keeps nothing, which costs time, not correctness.
 */
void cv_token_cache_put(struct cv_token_cache *cache, struct cv_slice token,
                        struct cv_identity *identity, uint64_t generation, uint64_t now_ms);

size_t cv_token_cache_count(const struct cv_token_cache *cache);

#endif
