/* SPDX-License-Identifier: MIT
 *
 * Public keys as JSON (RFC 7517, RFC 7518 §6) and sets of them: what a token's signature is checked
 * against. A set is immutable once parsed and counted by references, so all workers read one set
 * without a lock. Owns its keys; borrows nothing. Limits: 256 KiB of JSON, depth 8, 64 keys, RSA of
 * 2,048 to 8,192 bits, EC on P-256 and P-384, secrets of 32 to 1,024 bytes. Any thread.
 */
#ifndef CV_AUTH_JWK_H
#define CV_AUTH_JWK_H

#include "base/digest.h"
#include "base/slice.h"
#include "base/status.h"

#define CV_JWKS_MAX_BYTES ((size_t)256 * 1024)
#define CV_JWKS_MAX_KEYS 64
#define CV_JWK_MIN_RSA_BITS 2048
#define CV_JWK_MAX_RSA_BITS 8192
#define CV_JWK_MIN_SECRET_BYTES 32 /* RFC 7518 §3.2: as long as the hash */
#define CV_JWK_MAX_SECRET_BYTES 1024
#define CV_KID_MAX_BYTES 255

/* X(NAME, family, hash, bytes of r and of s) — the algorithms that exist here (RFC 7518 §3.1).
 * `none` is not among them and cannot be configured. */
#define CV_JWS_ALG_TABLE(X)                                                                        \
    X(RS256, RSA_PKCS1, "SHA256", 0)                                                               \
    X(RS384, RSA_PKCS1, "SHA384", 0)                                                               \
    X(RS512, RSA_PKCS1, "SHA512", 0)                                                               \
    X(PS256, RSA_PSS, "SHA256", 0)                                                                 \
    X(ES256, EC_P256, "SHA256", 32)                                                                \
    X(ES384, EC_P384, "SHA384", 48)                                                                \
    X(HS256, HMAC, "SHA256", 0)

enum cv_jws_alg {
#define CV_JWS_ALG_ENUM(name, ...) CV_JWS_##name,
    CV_JWS_ALG_TABLE(CV_JWS_ALG_ENUM)
#undef CV_JWS_ALG_ENUM
        CV_JWS_ALG_COUNT
};

/* A set of algorithms is a bit mask. The default leaves HS256 out: it comes with a secret file. */
#define CV_JWS_ALG_BIT(alg) (1u << (unsigned)(alg))
#define CV_JWS_ALGS_PUBLIC ((CV_JWS_ALG_BIT(CV_JWS_ALG_COUNT) - 1u) & ~CV_JWS_ALG_BIT(CV_JWS_HS256))

/* "RS256"; "?" out of range. */
const char *cv_jws_alg_name(enum cv_jws_alg alg);

/* Exact, case-sensitive (RFC 7515 §4.1.1). False for anything else, `none` in any spelling. */
bool cv_jws_alg_from_name(struct cv_slice name, enum cv_jws_alg *alg);

struct cv_jwk;  /* one key that may verify */
struct cv_jwks; /* a set, counted */

/* Parses a JWK Set (or one bare JWK) and gives a set with one reference in *out. Private members
 * are not read.
 *
 * A key is skipped, with its reason in the set's note, when it cannot verify here: unknown kty or
 * crv, `use` other than sig, `key_ops` without verify, an `alg` that is not ours or not for such a
 * key, RSA too small, too large, with an exponent that is even, 1 or over 64 bits, or made by the
 * ROCA generator (CVE-2017-15361), a point that is not on its curve, a short secret. A `kid` that
 * occurs twice among the keys meant for verification, usable or not, makes all of them unusable,
 * since nothing says which is meant.
 *
 * CV_CONFIG: not JSON, too large, too deep, doubled members, no usable key, or secrets and public
 * keys in one set (an invitation to algorithm confusion). CV_NO_MEMORY. *out is NULL then. */
struct cv_status cv_jwks_parse(struct cv_slice json, struct cv_jwks **out, struct cv_error *error);

/* A set of one HMAC secret without kid (raw bytes, copied). CV_CONFIG when it is too short or long.
 */
struct cv_status cv_jwks_from_secret(struct cv_slice secret, struct cv_jwks **out,
                                     struct cv_error *error);

struct cv_jwks *cv_jwks_ref(struct cv_jwks *set);
void cv_jwks_unref(struct cv_jwks **set); /* takes NULL and half-built; nulls */

/* How many keys can be used. */
size_t cv_jwks_count(const struct cv_jwks *set);

/* Whether it holds HMAC secrets (and then nothing else). */
bool cv_jwks_has_secret(const struct cv_jwks *set);

/* What was skipped first and why, for a log; "" if nothing was. */
const char *cv_jwks_note(const struct cv_jwks *set);

/* Two sets parsed from the same bytes are the same; lets a refresh that changed nothing keep
 * caches. */
bool cv_jwks_same(const struct cv_jwks *a, const struct cv_jwks *b);

/* The key for a token. With a kid: the key that has exactly this kid. Without (kid.data == NULL):
 * the only key of the set. A set whose single key has no kid answers for every kid, for there is
 * nothing to compare. NULL otherwise. Borrowed from the set. */
const struct cv_jwk *cv_jwks_find(const struct cv_jwks *set, struct cv_slice kid);

/* Whether the key may be used with the algorithm: type, curve and its own `alg`. */
bool cv_jwk_fits(const struct cv_jwk *key, enum cv_jws_alg alg);

/* Whether `signature`, in JWS form (RFC 7518 §3), is right for `input`. Lengths are exact: the
 * modulus for RSA, r‖s for ECDSA, the hash for HMAC. False too when the key does not fit. */
bool cv_jwk_verify(const struct cv_jwk *key, enum cv_jws_alg alg, struct cv_slice input,
                   struct cv_slice signature);

/* What a key is known by, whatever its kid: the same for the same key in another set. False without
 * memory. */
bool cv_jwk_mark(const struct cv_jwk *key, uint8_t mark[CV_SHA256_LEN]);

/* Whether the set has a usable key with this mark. */
bool cv_jwks_has_mark(const struct cv_jwks *set, const uint8_t mark[CV_SHA256_LEN]);

#endif
