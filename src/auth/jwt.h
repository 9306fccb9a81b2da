/* SPDX-License-Identifier: MIT
 *
 * What a relay demands of a JSON Web Token (RFC 7519, RFC 8725) beyond its signature. The policy is
 * the caller's memory and borrows its strings; it does not change while tokens are verified.
 * Limits: those of jws.h; claims depth 16, 64 audiences. Any thread.
 */
#ifndef CV_AUTH_JWT_H
#define CV_AUTH_JWT_H

#include "auth/identity.h"
#include "auth/jwk.h"

#define CV_AUTH_DEFAULT_SKEW_S 30
#define CV_AUTH_MAX_SKEW_S 300

struct cv_auth_policy {
    const char *issuer;           /* compared byte by byte (RFC 7519 §4.1.1) */
    const char *const *audiences; /* one of them must be in `aud` (§4.1.3) */
    size_t audience_count;        /* at least 1 */
    unsigned algs;                /* mask of CV_JWS_ALG_BIT */
    int64_t skew_s;               /* how far clocks may differ */
    int64_t max_age_s;            /* since `iat`, which is then required; 0: no limit */
    /* Names of claims. Taken literally first ("https://example.com/tier"), then, where there is no
     * such member, as a path with dots ("realm_access.roles"). */
    const char *tier_claim; /* a string; default "tier" */
    const char
        *permissions_claim;    /* array of strings, or words in a string; default "permissions" */
    const char *tunnels_claim; /* likewise; default "tunnels" */
    const char *groups_claim;  /* likewise; default "groups" */
    const char *admin_permission; /* default "admin" */
};

/* Everything but issuer and audiences gets its default. */
void cv_auth_policy_init(struct cv_auth_policy *policy);

/* Verifies a token at the Unix time `now_s` and gives an identity with one reference in *out.
 * Required: `iss`, `aud`, `exp`, `sub` (a string of 1 to 255 bytes without control characters).
 * Times are numbers in [0, year 9999]. A token holds from nbf − skew (inclusive) to exp + skew
 * (exclusive); `iat` more than skew ahead counts as not yet valid. A claim that is there but of the
 * wrong type is malformed: rights are never guessed. Groups alone, which many issuers write for
 * others than us, just grant nothing then.
 *
 * CV_AUTH_MALFORMED, _BAD_SIGNATURE, _UNKNOWN_KEY as cv_jws_verify; then in this order
 * CV_AUTH_WRONG_ISSUER, _WRONG_AUDIENCE, _EXPIRED, _NOT_YET_VALID. CV_NO_MEMORY. Details never
 * quote the token. *out is NULL unless CV_OK. */
struct cv_status cv_jwt_verify(const struct cv_auth_policy *policy, const struct cv_jwks *set,
                               struct cv_slice token, int64_t now_s, struct cv_identity **out,
                               struct cv_error *error);

#endif
