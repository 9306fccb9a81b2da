/* SPDX-License-Identifier: MIT */
#include "store/usage.h"

#include <stdlib.h>
/* The default hash falls through its cases, which clang's -Wimplicit-fallthrough refuses. It is
 * only used where no hash is given. */
#define HASH_FUNCTION(key, len, hash) HASH_OAT(key, len, hash)
#include <uthash.h>

struct entry {
    struct cv_usage_key key;
    char subject[CV_USAGE_SUBJECT_MAX + 1];
    int64_t minute; /* when it was asked for last */
    struct cv_usage usage;
    UT_hash_handle hh;
};

struct cv_usage_table {
    int64_t minute;
    size_t max;
    struct entry *entries;
    struct cv_usage rest;
};

/* ---- numbers ---- */

static void add(struct cv_usage *usage, enum cv_usage_count count, uint64_t value)
{
    uint64_t *at = &usage->counts[count];
    *at = *at + value < *at ? UINT64_MAX : *at + value;
}

void cv_usage_note(struct cv_usage *usage, const struct cv_usage_request *request)
{
    unsigned class_of = (unsigned)request->status / 100;
    add(usage, CV_USAGE_REQUESTS, 1);
    if (request->is_cancelled)
        add(usage, CV_USAGE_CANCELLED, 1);
    else if (class_of == 5 || request->is_cut)
        add(usage, CV_USAGE_ERRORS, 1);
    if (class_of >= 1 && class_of <= 5)
        add(usage, (enum cv_usage_count)(CV_USAGE_STATUS_1XX + class_of - 1), 1);
    add(usage, CV_USAGE_BYTES_IN, request->bytes_in);
    add(usage, CV_USAGE_BYTES_OUT, request->bytes_out);
    add(usage, CV_USAGE_QUEUE_US, request->queue_us);
    add(usage, CV_USAGE_STREAM_US, request->stream_us);
    add(usage, CV_USAGE_PROMPT_TOKENS, request->prompt_tokens);
    add(usage, CV_USAGE_COMPLETION_TOKENS, request->completion_tokens);
    cv_sketch_add(&usage->latency, request->latency_us);
    if (request->has_first_byte)
        cv_sketch_add(&usage->first_byte, request->first_byte_us);
}

void cv_usage_merge(struct cv_usage *into, const struct cv_usage *from)
{
    for (unsigned i = 0; i < CV_USAGE_COUNT; i++)
        add(into, (enum cv_usage_count)i, from->counts[i]);
    cv_sketch_merge(&into->latency, &from->latency);
    cv_sketch_merge(&into->first_byte, &from->first_byte);
}

const char *cv_usage_column(enum cv_usage_count count)
{
    static const char *const columns[] = {
#define COLUMN(name, column, ...) column,
        CV_USAGE_COUNTS(COLUMN)
#undef COLUMN
    };
    return columns[count];
}

/* ---- the table ---- */

struct cv_usage_table *cv_usage_table_new(int64_t minute, size_t max)
{
    struct cv_usage_table *table = calloc(1, sizeof *table);
    if (table) {
        table->minute = minute;
        table->max = max;
    }
    return table;
}

void cv_usage_table_free(struct cv_usage_table **table)
{
    struct entry *entry, *next;
    if (!*table)
        return;
    HASH_ITER(hh, (*table)->entries, entry, next)
    {
        HASH_DEL((*table)->entries, entry);
        free(entry);
    }
    free(*table);
    *table = NULL;
}

int64_t cv_usage_table_minute(const struct cv_usage_table *table)
{
    return table->minute;
}

void cv_usage_table_set_minute(struct cv_usage_table *table, int64_t minute)
{
    table->minute = minute;
}

size_t cv_usage_table_count(const struct cv_usage_table *table)
{
    return HASH_COUNT(table->entries);
}

void cv_usage_key_init(struct cv_usage_key *key, const uint8_t user[CV_USAGE_USER_LEN],
                       const char *tunnel)
{
    *key = (struct cv_usage_key){0};
    memcpy(key->user, user, sizeof key->user);
    size_t len = strnlen(tunnel, CV_TUNNEL_NAME_MAX);
    memcpy(key->tunnel, tunnel, len);
}

void cv_usage_subject(const char *subject, char out[CV_USAGE_SUBJECT_MAX + 1])
{
    size_t len = cv_text_fit(subject, CV_USAGE_SUBJECT_MAX);
    memcpy(out, subject, len);
    out[len] = '\0';
}

/* A user is a hash already, of which any part will do; its few tunnels are told apart by FNV-1a.
 * This is on the way of every request: the whole key would take some hundred instructions more. */
static unsigned hash_of(const struct cv_usage_key *key)
{
    uint32_t hash;
    memcpy(&hash, key->user, sizeof hash);
    for (const char *at = key->tunnel; *at; at++)
        hash = (hash ^ (uint8_t)*at) * UINT32_C(16777619);
    return hash;
}

struct cv_usage *cv_usage_table_at(struct cv_usage_table *table, const struct cv_usage_key *key,
                                   const char *subject)
{
    struct entry *entry;
    unsigned hash = hash_of(key);
    HASH_FIND_BYHASHVALUE(hh, table->entries, key, sizeof *key, hash, entry);
    if (!entry) {
        entry = HASH_COUNT(table->entries) < table->max ? calloc(1, sizeof *entry) : NULL;
        if (!entry)
            return &table->rest;
        entry->key = *key;
        cv_usage_subject(subject, entry->subject);
        HASH_ADD_BYHASHVALUE(hh, table->entries, key, sizeof entry->key, hash, entry);
    }
    entry->minute = table->minute;
    return &entry->usage;
}

void cv_usage_table_merge(struct cv_usage_table *into, const struct cv_usage_table *from)
{
    for (const struct entry *e = from->entries; e; e = e->hh.next)
        cv_usage_merge(cv_usage_table_at(into, &e->key, e->subject), &e->usage);
    cv_usage_merge(&into->rest, &from->rest);
}

void cv_usage_table_trim(struct cv_usage_table *table, int64_t minute)
{
    struct entry *entry, *next;
    HASH_ITER(hh, table->entries, entry, next)
    {
        if (entry->minute >= minute)
            continue;
        cv_usage_merge(&table->rest, &entry->usage);
        HASH_DEL(table->entries, entry);
        free(entry);
    }
}

void cv_usage_table_sum(const struct cv_usage_table *table, struct cv_usage *usage)
{
    for (const struct entry *e = table->entries; e; e = e->hh.next)
        cv_usage_merge(usage, &e->usage);
    cv_usage_merge(usage, &table->rest);
}

bool cv_usage_table_each(const struct cv_usage_table *table,
                         bool (*each)(void *arg, const struct cv_usage_entry *entry), void *arg)
{
    for (const struct entry *e = table->entries; e; e = e->hh.next)
        if (!each(arg, &(struct cv_usage_entry){&e->key, e->subject, &e->usage}))
            return false;
    return true;
}
