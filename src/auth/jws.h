/* SPDX-License-Identifier: MIT
 *
 * Verification of a compact JSON Web Signature (RFC 7515 §7.1), stricter than the RFC where it
 * leaves room. Owns nothing, keeps nothing. Limits: 8 KiB a token, 2 KiB of header, depth 4 there.
 * Any thread.
 */
#ifndef CV_AUTH_JWS_H
#define CV_AUTH_JWS_H

#include "auth/jwk.h"
#include "base/buf.h"

#define CV_JWS_MAX_BYTES 8192

/* Verifies `token` and appends its payload to *payload (a cap of CV_JWS_MAX_BYTES suffices). `algs`
 * is a mask of CV_JWS_ALG_BIT. In this order, so that junk costs little: length; exactly two dots;
 * three strict base64url parts (RFC 7515 §2: alphabet, no padding, no white space, unused bits
 * zero); a header that is one JSON object without doubled members; no `crit` (§4.1.11: nothing is
 * understood here) and no `b64` (RFC 7797); `typ`, if there, is JWT or at+jwt (RFC 8725 §3.11);
 * `alg` in `algs`; `kid`, if there, a string of 1 to 255 bytes; a key by cv_jwks_find that fits the
 * algorithm; the signature. `jku`, `x5u`, `jwk`, `x5c` are never looked at: keys come from `set`
 * alone.
 *
 * CV_AUTH_MALFORMED: the form is wrong. CV_AUTH_BAD_SIGNATURE: algorithm not allowed or not the
 * key's, or the signature is wrong. CV_AUTH_UNKNOWN_KEY: no key in the set. CV_NO_MEMORY,
 * CV_NO_RESOURCES (payload's cap). *payload is unchanged unless CV_OK. */
struct cv_status cv_jws_verify(struct cv_slice token, const struct cv_jwks *set, unsigned algs,
                               struct cv_buf *payload, struct cv_error *error);

/* The same, and whose signature it is: *signer (NULL: not told) is borrowed from `set`. */
struct cv_status cv_jws_verify_by(struct cv_slice token, const struct cv_jwks *set, unsigned algs,
                                  struct cv_buf *payload, const struct cv_jwk **signer,
                                  struct cv_error *error);

#endif
