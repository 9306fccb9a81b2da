/* SPDX-License-Identifier: MIT
 *
 * Who a token says its bearer is: the outcome of verification, and all that the rest of the program
 * sees of a token; or whoever shows none, where that is let in. Immutable, counted by references
 * (atomic), so it may pass between workers. Owns its strings. Limits: subject and issuer 255 bytes,
 * 64 tunnels, groups as a token holds them. Any thread.
 */
#ifndef CV_AUTH_IDENTITY_H
#define CV_AUTH_IDENTITY_H

#include "base/digest.h"
#include "base/slice.h"
#include "base/tunnel_name.h"

#include <stdatomic.h>

#define CV_IDENTITY_MAX_TEXT 255
#define CV_IDENTITY_MAX_TUNNELS 64

#define CV_TIER_MAX 31

/* A tier's name: a-z, 0-9, _ and -, 1 to 31 characters. Which there are, the relay's configuration
 * says. */
bool cv_tier_is_valid(struct cv_slice name);

/* Read-only for everybody but the function that makes it. */
struct cv_identity {
    atomic_uint refs;
    char tier[CV_TIER_MAX + 1]; /* "" when the token names none that is valid */
    bool is_admin;
    bool has_tunnel_list;  /* false: every tunnel of the user; true: only those listed */
    unsigned tunnel_count; /* may be 0 with has_tunnel_list: none at all */
    char (*tunnels)[CV_TUNNEL_NAME_MAX + 1];
    char *groups;      /* names with a NUL behind each; NULL: none */
    size_t groups_len; /* of all of them */
    bool is_anonymous; /* showed no token: the user is the address that asks, and has no rights */
    int64_t issued_s;  /* Unix seconds; 0 when the token does not say */
    int64_t expires_s; /* `exp` as in the token */
    int64_t valid_until_s; /* the first second in which it no longer holds: exp + skew, max age */
    char issuer[CV_IDENTITY_MAX_TEXT + 1];
    char subject[CV_IDENTITY_MAX_TEXT + 1];
    char jti[CV_IDENTITY_MAX_TEXT + 1]; /* "" when absent */
    uint8_t signer[CV_SHA256_LEN];      /* the key that signed the token: cv_jwk_mark */
    uint8_t user_key[CV_SHA256_LEN];    /* SHA-256(issuer ‖ NUL ‖ subject): the user, in maps */
};

/* Whether text may be a subject, issuer or token id: 1 to 255 bytes, no NUL, no control characters
 * (C0, DEL, C1 in UTF-8), so that it can stand in a log line. */
bool cv_identity_text_is_valid(struct cv_slice text);

struct cv_identity *cv_identity_ref(struct cv_identity *identity);
void cv_identity_unref(struct cv_identity **identity); /* takes NULL; nulls */

/* The key of the user whom `issuer` calls `subject`; both at most CV_IDENTITY_MAX_TEXT bytes. Users
 * of two issuers are two, whatever they are called. */
void cv_identity_user_key(const char *issuer, const char *subject, uint8_t key[CV_SHA256_LEN]);

/* Somebody without a token, as told apart by `network` (the address, or a part of it), for limits
 * and pools of connections. Its tier is "anonymous", for relays that have such a one. NULL without
 * memory; one reference, the caller's. */
struct cv_identity *cv_identity_new_anonymous(struct cv_slice network);

/* Whether the token names the group. */
bool cv_identity_is_in_group(const struct cv_identity *identity, const char *group);

/* The same (issuer, subject). */
bool cv_identity_is_same_user(const struct cv_identity *a, const struct cv_identity *b);

/* Whether the token may publish or reach the user's tunnel of this name. */
bool cv_identity_may_use_tunnel(const struct cv_identity *identity, struct cv_slice name);

#endif
