/* SPDX-License-Identifier: MIT
 *
 * Where keys come from and how long they are trusted: a JWKS file, a file with an HMAC secret, a
 * set handed in, or a URL. This module does no network I/O: for a URL it says when somebody should
 * fetch and takes the answer. Shared by all workers; a mutex inside is taken once per token that is
 * not in a cache. Owns the current set; what it gives out is counted. Any thread.
 *
 *   URL source:   EMPTY ──fetched──▶ FRESH ──refresh failed──▶ STALE ──grace over──▶ EMPTY
 *                                      ▲───────fetched──────────┘
 */
#ifndef CV_AUTH_KEYSOURCE_H
#define CV_AUTH_KEYSOURCE_H

#include "auth/jwk.h"

struct cv_keysource;

/* Milliseconds. */
struct cv_keysource_times {
    uint64_t refresh_ms;      /* between refreshes that succeed; default 10 min */
    uint64_t min_interval_ms; /* least time between two fetches, whatever the reason; default 30 s.
                                 Without any set it is 2 s at most, so that start-up heals fast */
    uint64_t grace_ms;        /* how long the last good set holds after the first refresh that
                                 failed; default 24 h */
};

void cv_keysource_times_init(struct cv_keysource_times *times); /* the defaults */

enum cv_keysource_state {
    CV_KEYSOURCE_EMPTY, /* no keys: every token is refused */
    CV_KEYSOURCE_FRESH,
    CV_KEYSOURCE_STALE, /* the last refresh failed; the last good set still holds */
};

const char *cv_keysource_state_name(enum cv_keysource_state state); /* "fresh" */

/* What to do about a token whose key is unknown. */
enum cv_keysource_advice {
    CV_KEYSOURCE_FETCH, /* the caller has been given the fetch: do it, then cv_keysource_fetched */
    CV_KEYSOURCE_WAIT,  /* somebody else fetches: look again when cv_keysource_attempts has grown */
    CV_KEYSOURCE_REFUSE, /* fetched too recently, or nothing to fetch: refuse the token */
};

/* A set handed in; takes a reference of its own. */
struct cv_status cv_keysource_new_static(struct cv_jwks *set, struct cv_keysource **out);

/* A JWKS file. CV_NOT_FOUND, CV_IO, CV_CONFIG, CV_NO_MEMORY; *out is NULL then. */
struct cv_status cv_keysource_new_file(const char *path, struct cv_keysource **out,
                                       struct cv_error *error);

/* A file with an HMAC secret: 32 to 1,024 bytes, one trailing newline is not part of it, private to
 * this user or root (cv_file_read). Errors as above. */
struct cv_status cv_keysource_new_secret(const char *path, struct cv_keysource **out,
                                         struct cv_error *error);

/* A URL that others fetch. Starts EMPTY and due at once. `times` may be NULL. A set with HMAC
 * secrets is not taken from a URL. */
struct cv_status cv_keysource_new_url(const struct cv_keysource_times *times,
                                      struct cv_keysource **out);

void cv_keysource_free(struct cv_keysource **source); /* takes NULL; nobody may use it any more */

/* Reads the file again (SIGHUP). On failure the old set stays. CV_OK and nothing done for the kinds
 * without a file. */
struct cv_status cv_keysource_reload(struct cv_keysource *source, struct cv_error *error);

/* The current set with a reference, or NULL when there is none or its grace is over. `generation`
 * (may be NULL) gets the number that changes with the set. */
struct cv_jwks *cv_keysource_keys(struct cv_keysource *source, uint64_t now_ms,
                                  uint64_t *generation);

/* Grows when the set changes; caches compare it. Takes no lock. It also grows when grace runs out,
 * which is noticed by cv_keysource_is_due. */
uint64_t cv_keysource_generation(const struct cv_keysource *source);

/* URL only. True gives the caller the one fetch: it must end in cv_keysource_fetched or _failed
 * within two minutes, else it counts as failed and another may start.
 * Ask on a timer; cv_keysource_next_due says when. UINT64_MAX: never. */
bool cv_keysource_is_due(struct cv_keysource *source, uint64_t now_ms);
uint64_t cv_keysource_next_due(struct cv_keysource *source);

/* After CV_AUTH_UNKNOWN_KEY. Never two fetches within min_interval_ms, so a storm of invented key
 * ids costs one. */
enum cv_keysource_advice cv_keysource_unknown_key(struct cv_keysource *source, uint64_t now_ms);

/* The body of a 200 answer. CV_CONFIG when it is no usable set: counts as a failed refresh, the
 * last good set stays. */
struct cv_status cv_keysource_fetched(struct cv_keysource *source, struct cv_slice body,
                                      uint64_t now_ms, struct cv_error *error);

/* The fetch failed (connection, status, size, time). */
void cv_keysource_failed(struct cv_keysource *source, uint64_t now_ms);

/* How many fetches have ended, either way. Takes no lock. */
uint64_t cv_keysource_attempts(const struct cv_keysource *source);

/* For health. */
enum cv_keysource_state cv_keysource_state(struct cv_keysource *source, uint64_t now_ms);

/* Whether there are keys, and the one that signed a token (identity->signer) is not one of them any
 * more. While there are none at all, since they cannot be fetched, none counts as lost. */
bool cv_keysource_has_lost(struct cv_keysource *source, uint64_t now_ms,
                           const uint8_t signer[CV_SHA256_LEN]);

#endif
