/* SPDX-License-Identifier: MIT */
#include "relay/revocation.h"

#include "base/file.h"
#include "base/json.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#define HASH_NONFATAL_OOM 1
#define HASH_FUNCTION(key, len, hash) HASH_OAT(key, len, hash)
#include <uthash.h>

/* A file with all entries at their longest, and some. */
#define FILE_MAX_BYTES ((size_t)CV_REVOCATIONS_MAX * 1024)

enum { REASON_MAX = 200 };

struct revocation {
    /* "j" and a jti, or "s" and a subject: unique. */
    char key[CV_IDENTITY_MAX_TEXT + 2];
    char id[CV_REVOCATION_ID_LEN + 1];
    char by[CV_IDENTITY_MAX_TEXT + 1];
    char reason[REASON_MAX + 1];
    int64_t issued_before_s, expires_s, created_s;
    uint64_t change; /* that brought it; 0: it is from the file */
    UT_hash_handle hh;
};

struct cv_revocations {
    pthread_rwlock_t lock;
    struct revocation *entries;
    atomic_size_t count;
    uint64_t changes;          /* since the start … */
    uint64_t saved;            /* … of which so many are in the file */
    pthread_mutex_t save_lock; /* one writer of the file at a time; taken before `lock` */
    char *path;
    /* Of the file as it was read or written last: each write makes a new one. */
    struct timespec file_time;
    ino_t file_number;
};

static void make_key(char kind, const char *text, char out[CV_IDENTITY_MAX_TEXT + 2])
{
    out[0] = kind;
    (void)cv_slice_to_str(cv_slice_str(text), out + 1, CV_IDENTITY_MAX_TEXT + 1);
}

static struct revocation *find(const struct cv_revocations *r, char kind, const char *text)
{
    char key[CV_IDENTITY_MAX_TEXT + 2];
    struct revocation *entry = NULL;
    make_key(kind, text, key);
    HASH_FIND_STR(r->entries, key, entry);
    return entry;
}

static void remember_count(struct cv_revocations *r)
{
    atomic_store_explicit(&r->count, HASH_COUNT(r->entries), memory_order_release);
}

static void free_all(struct revocation **entries)
{
    struct revocation *entry, *next;
    HASH_ITER(hh, *entries, entry, next)
    {
        HASH_DEL(*entries, entry);
        free(entry);
    }
}

/* False: no memory, the entry is gone. */
static bool insert(struct revocation **entries, struct revocation *entry)
{
    entry->hh.tbl = NULL;
    HASH_ADD_STR(*entries, key, entry);
    if (entry->hh.tbl)
        return true;
    free(entry);
    return false;
}

/* ---- JSON ---- */

static json_t *entry_json(const struct revocation *entry)
{
    bool is_jti = entry->key[0] == 'j';
    json_t *object =
        json_pack("{s:s, s:s, s:I, s:s}", "id", entry->id, is_jti ? "jti" : "sub", entry->key + 1,
                  "created_at", (json_int_t)entry->created_s, "by", entry->by);
    bool is_whole = object != NULL;
    if (is_whole && !is_jti)
        is_whole =
            json_object_set_new(object, "issued_before", json_integer(entry->issued_before_s)) == 0;
    if (is_whole && entry->expires_s)
        is_whole = json_object_set_new(object, "expires_at", json_integer(entry->expires_s)) == 0;
    if (is_whole && entry->reason[0])
        is_whole = json_object_set_new(object, "reason", json_string(entry->reason)) == 0;
    if (!is_whole) {
        json_decref(object);
        return NULL;
    }
    return object;
}

static json_t *list_json(const struct cv_revocations *r)
{
    json_t *list = json_array();
    for (const struct revocation *e = r->entries; list && e; e = e->hh.next)
        if (json_array_append_new(list, entry_json(e)) != 0) {
            json_decref(list);
            return NULL;
        }
    return list;
}

static bool take_text(const json_t *object, const char *name, char *out, size_t cap)
{
    const json_t *value = json_object_get(object, name);
    return !value || (json_is_string(value) &&
                      strlen(json_string_value(value)) == json_string_length(value) &&
                      cv_slice_to_str(cv_slice_str(json_string_value(value)), out, cap));
}

static bool take_time(const json_t *object, const char *name, int64_t *out)
{
    const json_t *value = json_object_get(object, name);
    if (value)
        *out = json_integer_value(value);
    return !value || (json_is_integer(value) && *out >= 0);
}

static struct revocation *entry_from(const json_t *object)
{
    struct revocation *entry = calloc(1, sizeof *entry);
    bool is_jti = json_object_get(object, "jti") != NULL;
    if (!entry)
        return NULL;
    entry->key[0] = is_jti ? 'j' : 's';
    bool is_good =
        json_is_object(object) &&
        take_text(object, is_jti ? "jti" : "sub", entry->key + 1, sizeof entry->key - 1) &&
        entry->key[1] && take_text(object, "id", entry->id, sizeof entry->id) &&
        take_text(object, "by", entry->by, sizeof entry->by) &&
        take_text(object, "reason", entry->reason, sizeof entry->reason) &&
        take_time(object, "issued_before", &entry->issued_before_s) &&
        take_time(object, "expires_at", &entry->expires_s) &&
        take_time(object, "created_at", &entry->created_s);
    if (is_good)
        return entry;
    free(entry);
    return NULL;
}

/* ---- the file ---- */

static void note_file(struct cv_revocations *r, const struct stat *st)
{
    r->file_time = st->st_mtim;
    r->file_number = st->st_ino;
}

static struct cv_status parse(struct cv_slice text, struct revocation **entries)
{
    json_t *list;
    CV_RETURN_IF_ERROR(cv_json_parse(text, &list));
    struct cv_status status = cv_status(json_is_array(list) ? CV_OK : CV_INVALID);
    if (json_array_size(list) > CV_REVOCATIONS_MAX)
        status = cv_status(CV_INVALID);
    for (size_t i = 0; cv_is_ok(status) && i < json_array_size(list); i++) {
        struct revocation *entry = entry_from(json_array_get(list, i));
        if (!entry || !insert(entries, entry))
            status = cv_status(CV_INVALID);
    }
    json_decref(list);
    if (!cv_is_ok(status))
        free_all(entries);
    return status;
}

/* What is not in the file yet stays. With the lock held for writing. */
static void keep_unsaved(struct cv_revocations *r, struct revocation **entries)
{
    struct revocation *entry, *next, *same;
    HASH_ITER(hh, r->entries, entry, next)
    {
        if (entry->change <= r->saved)
            continue;
        HASH_DEL(r->entries, entry);
        HASH_FIND_STR(*entries, entry->key, same);
        if (same) {
            if (same->issued_before_s > entry->issued_before_s)
                entry->issued_before_s = same->issued_before_s;
            HASH_DEL(*entries, same);
            free(same);
        }
        (void)insert(entries, entry); /* without memory it is lost, as it would be in a restart */
    }
}

/* The file's entries instead of what there is. No file: none. */
static struct cv_status read_file(struct cv_revocations *r, struct cv_error *error)
{
    struct stat st;
    struct cv_buf text;
    struct revocation *entries = NULL;
    if (stat(r->path, &st) != 0)
        st = (struct stat){0};
    cv_buf_init(&text, FILE_MAX_BYTES);
    struct cv_status status = cv_file_read(r->path, CV_FILE_PRIVATE, &text, error);
    bool is_there = status.id != CV_NOT_FOUND;
    if (cv_is_ok(status)) {
        status = parse(cv_buf_slice(&text), &entries);
        if (status.id == CV_INVALID)
            status =
                cv_fail(error, CV_CONFIG,
                        "%.180s cannot be understood; revoked tokens would hold again", r->path);
    }
    cv_buf_done(&text);
    if (is_there && !cv_is_ok(status))
        return status;
    (void)pthread_rwlock_wrlock(&r->lock);
    keep_unsaved(r, &entries);
    struct revocation *old = r->entries;
    r->entries = entries;
    remember_count(r);
    note_file(r, &st);
    (void)pthread_rwlock_unlock(&r->lock);
    free_all(&old);
    return cv_ok();
}

static struct cv_status write_file(struct cv_revocations *r, struct cv_error *error)
{
    (void)pthread_rwlock_rdlock(&r->lock);
    json_t *list = list_json(r);
    uint64_t changes = r->changes;
    (void)pthread_rwlock_unlock(&r->lock);
    char *text = list ? cv_json_text(list) : NULL;
    json_decref(list);
    if (!text)
        return cv_fail(error, CV_NO_MEMORY, "no memory to save the revocations");
    struct cv_status status = cv_file_replace(r->path, cv_slice_str(text), 0600, error);
    free(text);
    struct stat st;
    if (!cv_is_ok(status))
        return status;
    bool is_there = stat(r->path, &st) == 0;
    (void)pthread_rwlock_wrlock(&r->lock);
    r->saved = changes;
    if (is_there)
        note_file(r, &st);
    (void)pthread_rwlock_unlock(&r->lock);
    return status;
}

/* ---- life ---- */

struct cv_status cv_revocations_new(const char *path, int64_t now_s, struct cv_revocations **out,
                                    struct cv_error *error)
{
    struct cv_revocations *r = calloc(1, sizeof *r);
    *out = NULL;
    if (!r)
        return cv_status(CV_NO_MEMORY);
    r->path = strdup(path);
    if (!r->path || pthread_rwlock_init(&r->lock, NULL) != 0) {
        struct cv_status status = cv_status(r->path ? CV_NO_RESOURCES : CV_NO_MEMORY);
        free(r->path);
        free(r);
        return status;
    }
    (void)pthread_mutex_init(&r->save_lock, NULL); /* has no way to fail on Linux */
    struct cv_status status = read_file(r, error);
    if (!cv_is_ok(status)) {
        cv_revocations_free(&r);
        return status;
    }
    *out = r;
    (void)cv_revocations_refresh(r, now_s, NULL);
    return cv_ok();
}

void cv_revocations_free(struct cv_revocations **revocations)
{
    struct cv_revocations *r = *revocations;
    *revocations = NULL;
    if (!r)
        return;
    free_all(&r->entries);
    (void)pthread_rwlock_destroy(&r->lock);
    (void)pthread_mutex_destroy(&r->save_lock);
    free(r->path);
    free(r);
}

/* ---- looking ---- */

bool cv_revocations_cover(struct cv_revocations *r, const struct cv_identity *identity)
{
    if (atomic_load_explicit(&r->count, memory_order_acquire) == 0 || identity->is_anonymous)
        return false;
    (void)pthread_rwlock_rdlock(&r->lock);
    const struct revocation *user = find(r, 's', identity->subject);
    bool is_covered = (identity->jti[0] && find(r, 'j', identity->jti)) ||
                      (user && identity->issued_s < user->issued_before_s);
    (void)pthread_rwlock_unlock(&r->lock);
    return is_covered;
}

size_t cv_revocations_count(struct cv_revocations *r)
{
    return atomic_load_explicit(&r->count, memory_order_acquire);
}

json_t *cv_revocations_list(struct cv_revocations *r)
{
    (void)pthread_rwlock_rdlock(&r->lock);
    json_t *list = list_json(r);
    (void)pthread_rwlock_unlock(&r->lock);
    return list;
}

/* ---- changing ---- */

static struct revocation *make_entry(const struct cv_revocation_request *request, int64_t now_s)
{
    struct revocation *entry = calloc(1, sizeof *entry);
    uint8_t id[CV_REVOCATION_ID_LEN / 2];
    if (!entry)
        return NULL;
    make_key(request->jti ? 'j' : 's', request->jti ? request->jti : request->subject, entry->key);
    cv_random(id, sizeof id);
    cv_hex_encode(cv_slice(id, sizeof id), entry->id);
    (void)cv_slice_to_str(cv_slice_str(request->by), entry->by, sizeof entry->by);
    if (request->reason)
        (void)cv_slice_to_str(cv_slice_str(request->reason), entry->reason, sizeof entry->reason);
    entry->issued_before_s = request->jti ? 0 : request->issued_before_s;
    entry->expires_s = request->expires_s;
    entry->created_s = now_s;
    return entry;
}

/* Puts `entry` in the place of `old` (NULL: beside the others); without memory all is as it was,
 * and the entry is gone. */
static struct cv_status swap(struct cv_revocations *r, struct revocation *old,
                             struct revocation *entry)
{
    if (old)
        HASH_DEL(r->entries, old);
    if (!insert(&r->entries, entry)) {
        if (old)
            (void)insert(&r->entries, old);
        return cv_status(CV_NO_MEMORY);
    }
    entry->change = ++r->changes;
    free(old);
    return cv_ok();
}

struct cv_status cv_revocations_add(struct cv_revocations *r,
                                    const struct cv_revocation_request *request, int64_t now_s,
                                    char id[CV_REVOCATION_ID_LEN + 1], struct cv_error *error)
{
    struct revocation *entry = make_entry(request, now_s);
    if (!entry)
        return cv_status(CV_NO_MEMORY);
    memcpy(id, entry->id, CV_REVOCATION_ID_LEN + 1);
    struct cv_status status;
    (void)pthread_rwlock_wrlock(&r->lock);
    struct revocation *old = find(r, entry->key[0], entry->key + 1);
    if (old && old->issued_before_s > entry->issued_before_s)
        entry->issued_before_s = old->issued_before_s; /* nothing holds again by adding */
    if (!old && HASH_COUNT(r->entries) >= CV_REVOCATIONS_MAX) {
        free(entry);
        status =
            cv_fail(error, CV_NO_RESOURCES, "%d revocations are there already", CV_REVOCATIONS_MAX);
    } else {
        status = swap(r, old, entry);
    }
    remember_count(r);
    (void)pthread_rwlock_unlock(&r->lock);
    return status;
}

struct cv_status cv_revocations_remove(struct cv_revocations *r, const char *id)
{
    struct revocation *entry;
    (void)pthread_rwlock_wrlock(&r->lock);
    for (entry = r->entries; entry && strcmp(entry->id, id) != 0;)
        entry = entry->hh.next;
    if (entry) {
        HASH_DEL(r->entries, entry);
        free(entry);
        r->changes++;
    }
    remember_count(r);
    (void)pthread_rwlock_unlock(&r->lock);
    return cv_status(entry ? CV_OK : CV_NOT_FOUND);
}

/* Somebody else has written the file since. */
static bool is_file_changed(struct cv_revocations *r, struct stat *st)
{
    if (stat(r->path, st) != 0)
        *st = (struct stat){0};
    (void)pthread_rwlock_rdlock(&r->lock);
    bool is_changed = st->st_ino != r->file_number || st->st_mtim.tv_sec != r->file_time.tv_sec ||
                      st->st_mtim.tv_nsec != r->file_time.tv_nsec;
    (void)pthread_rwlock_unlock(&r->lock);
    return is_changed;
}

struct cv_status cv_revocations_save(struct cv_revocations *r, struct cv_error *error)
{
    struct stat st;
    (void)pthread_mutex_lock(&r->save_lock);
    if (is_file_changed(r, &st) && st.st_ino)
        (void)read_file(r, NULL); /* what another process has put there stays */
    struct cv_status status = write_file(r, error);
    (void)pthread_mutex_unlock(&r->save_lock);
    return status;
}

bool cv_revocations_refresh(struct cv_revocations *r, int64_t now_s, struct cv_error *error)
{
    struct stat st;
    bool is_new = false;
    /* Who saves reads it as well: it is not waited for. */
    if (pthread_mutex_trylock(&r->save_lock) == 0) {
        is_new = is_file_changed(r, &st) && st.st_ino && cv_is_ok(read_file(r, error));
        (void)pthread_mutex_unlock(&r->save_lock);
    }
    struct revocation *entry, *next;
    (void)pthread_rwlock_wrlock(&r->lock);
    HASH_ITER(hh, r->entries, entry, next)
    {
        /* The file loses it with the next change. */
        if (entry->expires_s && entry->expires_s <= now_s) {
            HASH_DEL(r->entries, entry);
            free(entry);
        }
    }
    remember_count(r);
    (void)pthread_rwlock_unlock(&r->lock);
    return is_new;
}
