/* SPDX-License-Identifier: MIT
 *
 * Tokens that hold no more although they have not expired: one by its `jti`, or all of a subject
 * that were issued before a moment. Kept in a file of the state folder; another relay that uses the
 * same file (one that takes over from this one) sees a change within a second.
 *
 * One for the relay, shared by its workers: looked at once per request, where a single atomic load
 * says that there is none; changed rarely. At most CV_REVOCATIONS_MAX entries. Owns its entries and
 * its path. Any thread. Adding and removing take effect at once, in memory; saving waits for the
 * disk, and nobody who looks waits for that.
 */
#ifndef CV_RELAY_REVOCATION_H
#define CV_RELAY_REVOCATION_H

#include "auth/identity.h"
#include "base/status.h"

#include <jansson.h>

enum { CV_REVOCATIONS_MAX = 10000, CV_REVOCATION_ID_LEN = 16 };

struct cv_revocations;

/* Reads the file if there is one. CV_CONFIG when it cannot be understood: revoked tokens must not
 * hold again because of that. CV_IO, CV_NO_MEMORY, CV_NO_RESOURCES. */
struct cv_status cv_revocations_new(const char *path, int64_t now_s, struct cv_revocations **out,
                                    struct cv_error *error);
void cv_revocations_free(struct cv_revocations **revocations);

/* Whether a token with this identity is revoked. A subject's tokens that do not say when they were
 * issued count as issued before any moment. */
bool cv_revocations_cover(struct cv_revocations *revocations, const struct cv_identity *identity);

struct cv_revocation_request {
    const char *jti; /* one of both … */
    const char *subject;
    int64_t issued_before_s; /* with a subject: tokens whose iat is less; Unix seconds */
    int64_t expires_s;  /* the entry is dropped then: its tokens have expired anyhow; 0: never */
    const char *by;     /* who asks */
    const char *reason; /* or NULL */
};

/* Adds one and gives its id; it holds when this returns CV_OK, and after a restart once it is
 * saved. The same jti, or a subject with an earlier moment, is replaced. CV_NO_RESOURCES at the
 * cap, CV_NO_MEMORY: nothing has changed then. */
struct cv_status cv_revocations_add(struct cv_revocations *revocations,
                                    const struct cv_revocation_request *request, int64_t now_s,
                                    char id[CV_REVOCATION_ID_LEN + 1], struct cv_error *error);

/* Takes one back. CV_NOT_FOUND. */
struct cv_status cv_revocations_remove(struct cv_revocations *revocations, const char *id);

/* Writes what there is to the file, beside what another process has put there meanwhile. CV_IO,
 * CV_NO_MEMORY: what was added goes on to hold in this process, and is written with the next. */
struct cv_status cv_revocations_save(struct cv_revocations *revocations, struct cv_error *error);

/* An array of all, the oldest first; NULL without memory. The caller's. */
json_t *cv_revocations_list(struct cv_revocations *revocations);
size_t cv_revocations_count(struct cv_revocations *revocations);

/* Drops what has expired, and reads the file again when somebody else has changed it. True: there
 * may be new entries. What cannot be read leaves the entries as they were, *error says why. */
bool cv_revocations_refresh(struct cv_revocations *revocations, int64_t now_s,
                            struct cv_error *error);

#endif
