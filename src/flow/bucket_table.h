/* SPDX-License-Identifier: MIT
 *
 * Buckets and counts of many keys (users, addresses) in memory of fixed size. A key has its place
 * in one of a number of sets of eight; where a set is full, the one that has been at rest longest
 * makes room. Who is forgotten begins anew with full buckets: that is the price of the bound, and
 * it is paid in the direction that harms nobody. An entry that counts something that is open now is
 * never forgotten.
 *
 * No locks: entries are claimed with compare-and-swap. Two threads that meet in the same set at the
 * same moment may for once charge a key that has just made room, or begin a key twice; both wear
 * off as the bucket does. Keys are known by 64 bits of theirs, which the caller makes unforgeable
 * (a secret hash). Any thread.
 */
#ifndef CV_FLOW_BUCKET_TABLE_H
#define CV_FLOW_BUCKET_TABLE_H

#include "base/status.h"
#include "flow/bucket.h"

enum { CV_BUCKETS_PER_ENTRY = 4, CV_COUNTS_PER_ENTRY = 2 };

struct cv_bucket_entry {
    atomic_uint_least64_t tag; /* 0: free */
    cv_bucket buckets[CV_BUCKETS_PER_ENTRY];
    atomic_uint counts[CV_COUNTS_PER_ENTRY]; /* what the key has open now */
};

struct cv_bucket_table;

/* For about `entries` keys (8 to 2^24; rounded up to a power of two). The memory is taken from the
 * system as keys come. CV_NO_MEMORY; *table is NULL then. */
struct cv_status cv_bucket_table_new(size_t entries, struct cv_bucket_table **table);
void cv_bucket_table_free(struct cv_bucket_table **table); /* takes NULL; nulls */

/* The entry of `tag`, made with full buckets if there is none. NULL when all eight of its set count
 * something open. The pointer stays good as long as the table; the entry stays this key's for the
 * moment, and as long as one of its counts is not zero. */
struct cv_bucket_entry *cv_bucket_table_get(struct cv_bucket_table *table, uint64_t tag,
                                            uint64_t now_ms);

/* The same without making it: NULL when there is none. */
struct cv_bucket_entry *cv_bucket_table_find(struct cv_bucket_table *table, uint64_t tag);

/* One more of the key's `which` is open; false at `max` of them. Given back with _close. */
bool cv_bucket_entry_open(struct cv_bucket_entry *entry, unsigned which, unsigned max);
void cv_bucket_entry_close(struct cv_bucket_entry *entry, unsigned which);

#endif
