/* SPDX-License-Identifier: MIT */
#include "auth/keysource.h"

#include "base/file.h"

#include <pthread.h>
#include <stdatomic.h>

#define FETCH_LOST_MS 120000u /* whoever took the fetch is gone */
#define EMPTY_RETRY_MS 2000u

enum kind { KIND_STATIC, KIND_FILE, KIND_SECRET, KIND_URL };

struct cv_keysource {
    enum kind kind;
    char *path; /* of files */
    struct cv_keysource_times times;
    atomic_uint_fast64_t generation;
    atomic_uint_fast64_t attempts;

    pthread_mutex_t lock; /* what follows */
    struct cv_jwks *set;  /* NULL: none */
    bool has_started;     /* a fetch has been given out at least once */
    bool is_fetching;
    bool is_stale;
    uint64_t started_ms; /* the last fetch that was given out */
    uint64_t stale_ms;   /* since when is_stale */
};

void cv_keysource_times_init(struct cv_keysource_times *times)
{
    *times = (struct cv_keysource_times){
        .refresh_ms = 600000, .min_interval_ms = 30000, .grace_ms = 86400000};
}

const char *cv_keysource_state_name(enum cv_keysource_state state)
{
    static const char *const names[] = {"empty", "fresh", "stale"};
    return (unsigned)state < 3 ? names[state] : "?";
}

static struct cv_status new_source(enum kind kind, const char *path, struct cv_keysource **out)
{
    struct cv_keysource *source = calloc(1, sizeof *source);
    *out = NULL;
    if (!source)
        return cv_status(CV_NO_MEMORY);
    source->kind = kind;
    cv_keysource_times_init(&source->times);
    atomic_init(&source->generation, 1);
    atomic_init(&source->attempts, 0);
    if (pthread_mutex_init(&source->lock, NULL) != 0) {
        free(source);
        return cv_status(CV_NO_MEMORY);
    }
    if (path && !(source->path = strdup(path))) {
        cv_keysource_free(&source);
        return cv_status(CV_NO_MEMORY);
    }
    *out = source;
    return cv_ok();
}

void cv_keysource_free(struct cv_keysource **source)
{
    struct cv_keysource *old = *source;
    *source = NULL;
    if (!old)
        return;
    cv_jwks_unref(&old->set);
    pthread_mutex_destroy(&old->lock);
    free(old->path);
    free(old);
}

/* Puts `set` (may be NULL; the reference passes over) in place. Under the lock. */
static void replace_set(struct cv_keysource *source, struct cv_jwks *set)
{
    bool is_same = set && source->set && cv_jwks_same(set, source->set);
    cv_jwks_unref(&source->set);
    source->set = set;
    if (!is_same)
        atomic_fetch_add(&source->generation, 1);
}

static void note_failure(struct cv_keysource *source, uint64_t now_ms)
{
    source->is_fetching = false;
    atomic_fetch_add(&source->attempts, 1);
    if (source->set && !source->is_stale) {
        source->is_stale = true;
        source->stale_ms = now_ms;
    }
}

/* What time alone changes: a fetch that never came back, a grace that is over. Under the lock. */
static void pass_time(struct cv_keysource *source, uint64_t now_ms)
{
    if (source->kind != KIND_URL)
        return;
    if (source->is_fetching && now_ms - source->started_ms >= FETCH_LOST_MS)
        note_failure(source, now_ms);
    if (source->is_stale && now_ms - source->stale_ms >= source->times.grace_ms) {
        source->is_stale = false;
        replace_set(source, NULL);
    }
}

static uint64_t min_interval(const struct cv_keysource *source)
{
    uint64_t interval = source->times.min_interval_ms;
    return !source->set && interval > EMPTY_RETRY_MS ? EMPTY_RETRY_MS : interval;
}

/* Under the lock. */
static uint64_t next_due(const struct cv_keysource *source)
{
    if (source->kind != KIND_URL)
        return UINT64_MAX;
    if (!source->has_started)
        return 0;
    if (source->is_fetching)
        return source->started_ms + FETCH_LOST_MS;
    uint64_t interval = min_interval(source);
    bool is_fresh = source->set && !source->is_stale;
    if (is_fresh && source->times.refresh_ms > interval)
        interval = source->times.refresh_ms;
    uint64_t due = source->started_ms + interval;
    if (source->is_stale && source->stale_ms + source->times.grace_ms < due)
        due = source->stale_ms + source->times.grace_ms;
    return due;
}

/* Gives the fetch to the caller if it is free and `wait_ms` have passed since the last. */
static bool claim(struct cv_keysource *source, uint64_t now_ms, uint64_t wait_ms)
{
    if (source->kind != KIND_URL || source->is_fetching ||
        (source->has_started && now_ms - source->started_ms < wait_ms))
        return false;
    source->has_started = true;
    source->is_fetching = true;
    source->started_ms = now_ms;
    return true;
}

static struct cv_status load_file(const struct cv_keysource *source, struct cv_jwks **set,
                                  struct cv_error *error)
{
    struct cv_buf content;
    bool is_secret = source->kind == KIND_SECRET;
    *set = NULL;
    cv_buf_init(&content, is_secret ? CV_JWK_MAX_SECRET_BYTES + 2 : CV_JWKS_MAX_BYTES);
    struct cv_status status =
        cv_file_read(source->path, is_secret ? CV_FILE_PRIVATE : CV_FILE_ANY, &content, error);
    struct cv_slice text = cv_buf_slice(&content);
    if (cv_is_ok(status) && is_secret) {
        if (text.len && text.data[text.len - 1] == '\n')
            text.len--;
        if (text.len && text.data[text.len - 1] == '\r')
            text.len--;
        status = cv_jwks_from_secret(text, set, error);
    } else if (cv_is_ok(status)) {
        status = cv_jwks_parse(text, set, error);
    }
    cv_buf_wipe(&content);
    return status;
}

struct cv_status cv_keysource_reload(struct cv_keysource *source, struct cv_error *error)
{
    struct cv_jwks *set = NULL;
    if (!source->path)
        return cv_ok();
    CV_RETURN_IF_ERROR(load_file(source, &set, error));
    pthread_mutex_lock(&source->lock);
    replace_set(source, set);
    pthread_mutex_unlock(&source->lock);
    return cv_ok();
}

struct cv_status cv_keysource_new_static(struct cv_jwks *set, struct cv_keysource **out)
{
    CV_RETURN_IF_ERROR(new_source(KIND_STATIC, NULL, out));
    (*out)->set = cv_jwks_ref(set);
    return cv_ok();
}

static struct cv_status new_with_file(enum kind kind, const char *path, struct cv_keysource **out,
                                      struct cv_error *error)
{
    CV_RETURN_IF_ERROR(new_source(kind, path, out));
    struct cv_status status = cv_keysource_reload(*out, error);
    if (!cv_is_ok(status))
        cv_keysource_free(out);
    return status;
}

struct cv_status cv_keysource_new_file(const char *path, struct cv_keysource **out,
                                       struct cv_error *error)
{
    return new_with_file(KIND_FILE, path, out, error);
}

struct cv_status cv_keysource_new_secret(const char *path, struct cv_keysource **out,
                                         struct cv_error *error)
{
    return new_with_file(KIND_SECRET, path, out, error);
}

struct cv_status cv_keysource_new_url(const struct cv_keysource_times *times,
                                      struct cv_keysource **out)
{
    CV_RETURN_IF_ERROR(new_source(KIND_URL, NULL, out));
    if (times)
        (*out)->times = *times;
    return cv_ok();
}

struct cv_jwks *cv_keysource_keys(struct cv_keysource *source, uint64_t now_ms,
                                  uint64_t *generation)
{
    pthread_mutex_lock(&source->lock);
    pass_time(source, now_ms);
    struct cv_jwks *set = source->set ? cv_jwks_ref(source->set) : NULL;
    if (generation)
        *generation = atomic_load(&source->generation);
    pthread_mutex_unlock(&source->lock);
    return set;
}

uint64_t cv_keysource_generation(const struct cv_keysource *source)
{
    return atomic_load(&source->generation);
}

uint64_t cv_keysource_attempts(const struct cv_keysource *source)
{
    return atomic_load(&source->attempts);
}

bool cv_keysource_is_due(struct cv_keysource *source, uint64_t now_ms)
{
    pthread_mutex_lock(&source->lock);
    pass_time(source, now_ms);
    uint64_t wait_ms = min_interval(source);
    bool is_due = now_ms >= next_due(source) && claim(source, now_ms, wait_ms);
    pthread_mutex_unlock(&source->lock);
    return is_due;
}

uint64_t cv_keysource_next_due(struct cv_keysource *source)
{
    pthread_mutex_lock(&source->lock);
    uint64_t due = next_due(source);
    pthread_mutex_unlock(&source->lock);
    return due;
}

enum cv_keysource_advice cv_keysource_unknown_key(struct cv_keysource *source, uint64_t now_ms)
{
    enum cv_keysource_advice advice = CV_KEYSOURCE_REFUSE;
    pthread_mutex_lock(&source->lock);
    pass_time(source, now_ms);
    if (source->is_fetching)
        advice = CV_KEYSOURCE_WAIT;
    else if (claim(source, now_ms, min_interval(source)))
        advice = CV_KEYSOURCE_FETCH;
    pthread_mutex_unlock(&source->lock);
    return advice;
}

struct cv_status cv_keysource_fetched(struct cv_keysource *source, struct cv_slice body,
                                      uint64_t now_ms, struct cv_error *error)
{
    struct cv_jwks *set = NULL;
    struct cv_status status = cv_jwks_parse(body, &set, error);
    if (cv_is_ok(status) && cv_jwks_has_secret(set)) {
        cv_jwks_unref(&set);
        status = cv_fail(error, CV_CONFIG, "the key set from the URL holds secrets");
    }
    pthread_mutex_lock(&source->lock);
    if (cv_is_ok(status)) {
        source->is_fetching = false;
        source->is_stale = false;
        atomic_fetch_add(&source->attempts, 1);
        replace_set(source, set);
    } else {
        note_failure(source, now_ms);
    }
    pthread_mutex_unlock(&source->lock);
    return status;
}

void cv_keysource_failed(struct cv_keysource *source, uint64_t now_ms)
{
    pthread_mutex_lock(&source->lock);
    note_failure(source, now_ms);
    pthread_mutex_unlock(&source->lock);
}

enum cv_keysource_state cv_keysource_state(struct cv_keysource *source, uint64_t now_ms)
{
    pthread_mutex_lock(&source->lock);
    pass_time(source, now_ms);
    enum cv_keysource_state state = !source->set       ? CV_KEYSOURCE_EMPTY
                                    : source->is_stale ? CV_KEYSOURCE_STALE
                                                       : CV_KEYSOURCE_FRESH;
    pthread_mutex_unlock(&source->lock);
    return state;
}

bool cv_keysource_has_lost(struct cv_keysource *source, uint64_t now_ms,
                           const uint8_t signer[CV_SHA256_LEN])
{
    struct cv_jwks *set = cv_keysource_keys(source, now_ms, NULL);
    bool has_lost = set && !cv_jwks_has_mark(set, signer);
    cv_jwks_unref(&set);
    return has_lost;
}
