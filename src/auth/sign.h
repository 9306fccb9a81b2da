/* SPDX-License-Identifier: MIT
 *
 * Private keys and the signing of tokens: for `culvert token` and the development issuer. A key is
 * immutable once made, owned by who made it, wiped when freed. One thread at a time while signing.
 */
#ifndef CV_AUTH_SIGN_H
#define CV_AUTH_SIGN_H

#include "auth/identity.h"
#include "auth/jwk.h"
#include "base/buf.h"

struct cv_signing_key;

/* From text: PEM (PKCS#8 or SEC 1 or PKCS#1, not encrypted) or a private JWK; RSA and EC only. The
 * algorithm is the JWK's `alg`, else RS256, ES256, ES384 as the key is. CV_CONFIG; *out is NULL. */
struct cv_status cv_signing_key_parse(struct cv_slice text, struct cv_signing_key **out,
                                      struct cv_error *error);

/* HS256 with a secret (copied), 32 to 1,024 bytes. CV_CONFIG. */
struct cv_status cv_signing_key_from_secret(struct cv_slice secret, struct cv_signing_key **out,
                                            struct cv_error *error);

/* A fresh ES256 key. CV_INTERNAL, CV_NO_MEMORY. */
struct cv_status cv_signing_key_generate(struct cv_signing_key **out);

void cv_signing_key_free(struct cv_signing_key **key);

enum cv_jws_alg cv_signing_key_alg(const struct cv_signing_key *key);

/* The JWK's kid, else the RFC 7638 thumbprint; "" for a secret. */
const char *cv_signing_key_kid(const struct cv_signing_key *key);

/* Appends PKCS#8 PEM (a secret: wipe the buffer). CV_INVALID for an HS256 key. */
struct cv_status cv_signing_key_to_pem(const struct cv_signing_key *key, struct cv_buf *out);

/* Appends the public half as a JWK Set, what auth.jwks_file wants. CV_INVALID for an HS256 key. */
struct cv_status cv_signing_key_to_jwks(const struct cv_signing_key *key, struct cv_buf *out);

/* Appends a compact JWS over `payload` with header alg, kid, typ JWT. The token is a secret:
 * callers wipe the buffer. CV_NO_RESOURCES over the buffer's cap or CV_JWS_MAX_BYTES; nothing
 * appended. */
struct cv_status cv_jws_sign(const struct cv_signing_key *key, struct cv_slice payload,
                             struct cv_buf *out);

/* What a token is to say. Borrows its strings. */
struct cv_token_request {
    const char *issuer;
    const char *audience;
    const char *subject;
    const char *tier; /* NULL: "free" */
    bool is_admin;
    const char *const *tunnels; /* names; none: every tunnel of the user */
    size_t tunnel_count;
    const char *const *groups;
    size_t group_count;
    int64_t now_s;
    int64_t ttl_s; /* 1 s to 10 years */
};

/* Appends a token with the default claim names of jwt.h, iat, exp and a random jti. CV_INVALID,
 * with detail, when the request would make a token that cv_jwt_verify refuses. */
struct cv_status cv_token_issue(const struct cv_signing_key *key,
                                const struct cv_token_request *request, struct cv_buf *out,
                                struct cv_error *error);

#endif
