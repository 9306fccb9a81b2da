/* SPDX-License-Identifier: MIT
 *
 * The question a relay asks on every request: whose token is this? Ties cache, key source and
 * policy together. Owns nothing. The source and the policy are shared by all workers, the cache is
 * the calling worker's.
 */
#ifndef CV_AUTH_AUTH_H
#define CV_AUTH_AUTH_H

#include "auth/cache.h"
#include "auth/jwt.h"
#include "auth/keysource.h"

/* The token out of an `Authorization` value (RFC 6750 §2.1): scheme Bearer in any case, one or more
 * spaces, b64token. CV_AUTH_MISSING when `value` is empty or of another scheme, CV_AUTH_MALFORMED
 * when it is Bearer with nothing or with junk behind it, or too long. *token borrows from `value`.
 */
struct cv_status cv_auth_bearer(struct cv_slice value, struct cv_slice *token);

/* Gives an identity with one reference in *out. `cache` may be NULL. Errors as cv_jwt_verify;
 * besides CV_AUTH_MISSING for an empty token, CV_UNAVAILABLE when there are no keys at all at the
 * moment. On CV_AUTH_UNKNOWN_KEY the caller may ask cv_keysource_unknown_key and try once more. */
struct cv_status cv_auth_check(const struct cv_auth_policy *policy, struct cv_keysource *source,
                               struct cv_token_cache *cache, struct cv_slice token, int64_t now_s,
                               uint64_t now_ms, struct cv_identity **out, struct cv_error *error);

/* The `result` label of tunnel_auth_attempts_total and the reason in the log: "ok", "expired",
 * "revoked", "not_yet_valid", "bad_signature", "wrong_audience", "wrong_issuer", "unknown_key",
 * "malformed", "missing", and "unavailable" for all that is no verdict. */
const char *cv_auth_result_name(enum cv_status_id id);

#endif
