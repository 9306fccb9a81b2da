/* SPDX-License-Identifier: MIT */
#include "auth/auth.h"

#include "auth/jws.h"

/* b64token of RFC 6750 §2.1; a table, since every request has hundreds of them. */
/* clang-format off */
static const bool is_token_char[256] = {
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, /* 0x00 */
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, /* 0x10 */
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 1, 1, /* 0x20 */
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, /* 0x30 */
    0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, /* 0x40 */
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 1, /* 0x50 */
    0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, /* 0x60 */
    1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 1, 0, /* 0x70 */
};
/* clang-format on */

struct cv_status cv_auth_bearer(struct cv_slice value, struct cv_slice *token)
{
    static const char scheme[] = "Bearer";
    const size_t scheme_len = sizeof scheme - 1;
    *token = (struct cv_slice){0};
    value = cv_slice_trim(value);
    if (value.len < scheme_len || !cv_slice_is_nocase(cv_slice(value.data, scheme_len), scheme))
        return cv_status(CV_AUTH_MISSING);
    struct cv_slice rest = cv_slice(value.data + scheme_len, value.len - scheme_len);
    if (rest.len == 0)
        return cv_status(CV_AUTH_MALFORMED);
    if (rest.data[0] != ' ')
        return cv_status(CV_AUTH_MISSING);
    while (rest.len && rest.data[0] == ' ')
        rest = cv_slice(rest.data + 1, rest.len - 1);
    if (rest.len == 0 || rest.len > CV_JWS_MAX_BYTES)
        return cv_status(CV_AUTH_MALFORMED);
    for (size_t i = 0; i < rest.len; i++) {
        if (!is_token_char[rest.data[i]])
            return cv_status(CV_AUTH_MALFORMED);
    }
    *token = rest;
    return cv_ok();
}

struct cv_status cv_auth_check(const struct cv_auth_policy *policy, struct cv_keysource *source,
                               struct cv_token_cache *cache, struct cv_slice token, int64_t now_s,
                               uint64_t now_ms, struct cv_identity **out, struct cv_error *error)
{
    *out = NULL;
    if (token.len == 0)
        return cv_fail(error, CV_AUTH_MISSING, "no token");
    /* Before the cache, which would hash all of it. */
    if (token.len > CV_JWS_MAX_BYTES)
        return cv_fail(error, CV_AUTH_MALFORMED, "longer than %d bytes", CV_JWS_MAX_BYTES);
    uint64_t generation = cv_keysource_generation(source);
    if (cache)
        *out = cv_token_cache_find(cache, token, generation, now_s, now_ms);
    if (*out)
        return cv_ok();

    struct cv_jwks *set = cv_keysource_keys(source, now_ms, &generation);
    if (!set)
        return cv_fail(error, CV_UNAVAILABLE, "no keys to check tokens with");
    struct cv_status status = cv_jwt_verify(policy, set, token, now_s, out, error);
    cv_jwks_unref(&set);
    if (cv_is_ok(status) && cache)
        cv_token_cache_put(cache, token, *out, generation, now_ms);
    return status;
}

const char *cv_auth_result_name(enum cv_status_id id)
{
    static const struct {
        enum cv_status_id id;
        const char *name;
    } names[] = {
        {CV_OK, "ok"},
        {CV_AUTH_EXPIRED, "expired"},
        {CV_AUTH_REVOKED, "revoked"},
        {CV_AUTH_NOT_YET_VALID, "not_yet_valid"},
        {CV_AUTH_BAD_SIGNATURE, "bad_signature"},
        {CV_AUTH_WRONG_AUDIENCE, "wrong_audience"},
        {CV_AUTH_WRONG_ISSUER, "wrong_issuer"},
        {CV_AUTH_UNKNOWN_KEY, "unknown_key"},
        {CV_AUTH_MALFORMED, "malformed"},
        {CV_AUTH_MISSING, "missing"},
    };
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        if (names[i].id == id)
            return names[i].name;
    }
    return "unavailable";
}
