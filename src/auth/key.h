/* SPDX-License-Identifier: MIT
 *
 * Key material out of a JWK's members (RFC 7518 §6) and the arithmetic of RFC 7518 §3 on it.
 * Internal to auth/: the one place, with sign.c, where OpenSSL's key types are seen. Any thread.
 */
#ifndef CV_AUTH_KEY_H
#define CV_AUTH_KEY_H

#include "auth/json.h"
#include "auth/jwk.h"

#include <openssl/evp.h>

enum cv_key_type { CV_KEY_RSA, CV_KEY_P256, CV_KEY_P384, CV_KEY_SECRET };

struct cv_key {
    enum cv_key_type type;
    EVP_PKEY *pkey;    /* NULL for a secret */
    uint8_t *secret;   /* owned, wiped at the end */
    size_t secret_len; /* bytes */
};

/* Material from the JWK. `want_private`: the private members are required and read, else they are
 * not looked at. CV_CONFIG, CV_NO_MEMORY; *key is empty then. */
struct cv_status cv_key_from_jwk(const json_t *jwk, bool want_private, struct cv_key *key,
                                 struct cv_error *error);

/* Takes over `pkey` (freed on failure too) after the checks of jwk.h. CV_CONFIG. */
struct cv_status cv_key_from_pkey(EVP_PKEY *pkey, struct cv_key *key, struct cv_error *error);

/* Whether an RSA or EC key is on its curve and, with `want_private`, its two halves belong
 * together: what a damaged file would otherwise show only as tokens that nobody accepts. */
bool cv_key_is_consistent(const struct cv_key *key, bool want_private);

/* Copies. CV_CONFIG for a bad length, CV_NO_MEMORY. */
struct cv_status cv_key_from_secret(struct cv_slice secret, struct cv_key *key,
                                    struct cv_error *error);

void cv_key_done(struct cv_key *key);

/* Whether type and curve are what the algorithm wants. */
bool cv_key_fits(const struct cv_key *key, enum cv_jws_alg alg);

bool cv_key_verify(const struct cv_key *key, enum cv_jws_alg alg, struct cv_slice input,
                   struct cv_slice signature);

/* The signature in JWS form. `out` has CV_KEY_MAX_SIGNATURE bytes. False on failure. */
#define CV_KEY_MAX_SIGNATURE (CV_JWK_MAX_RSA_BITS / 8)
bool cv_key_sign(const struct cv_key *key, enum cv_jws_alg alg, struct cv_slice input, uint8_t *out,
                 size_t *out_len);

/* The public members as JSON in the order of RFC 7638 §3.2, the input of a thumbprint. NULL on
 * failure or for a secret; json_decref it. */
json_t *cv_key_public_members(const struct cv_key *key);

#endif
