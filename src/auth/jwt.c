/* SPDX-License-Identifier: MIT */
#include "auth/jwt.h"

#include "auth/json.h"
#include "auth/jws.h"

#define CLAIMS_MAX_DEPTH 16
#define CLAIMS_MAX_LIST 64
#define TIME_MAX_S 253402300799 /* 9999-12-31T23:59:59Z, far from any overflow */

void cv_auth_policy_init(struct cv_auth_policy *policy)
{
    *policy = (struct cv_auth_policy){
        .algs = CV_JWS_ALGS_PUBLIC,
        .skew_s = CV_AUTH_DEFAULT_SKEW_S,
        .tier_claim = "tier",
        .permissions_claim = "permissions",
        .tunnels_claim = "tunnels",
        .groups_claim = "groups",
        .admin_permission = "admin",
    };
}

static bool copy_text(struct cv_slice text, char out[CV_IDENTITY_MAX_TEXT + 1])
{
    return cv_identity_text_is_valid(text) && cv_slice_to_str(text, out, CV_IDENTITY_MAX_TEXT + 1);
}

/* NumericDate (RFC 7519 §2): may have a fraction, which is cut off. */
static bool read_time(const json_t *value, int64_t *out)
{
    if (json_is_integer(value)) {
        *out = json_integer_value(value);
        return *out >= 0 && *out <= TIME_MAX_S;
    }
    double seconds = json_is_real(value) ? json_real_value(value) : -1.0;
    if (!(seconds >= 0.0 && seconds <= (double)TIME_MAX_S))
        return false;
    *out = (int64_t)seconds;
    return true;
}

/* RFC 7519 §4.1.3: one string or an array of strings. Gives whether one is ours in *is_ours. */
static bool read_audience(const struct cv_auth_policy *policy, const json_t *value, bool *is_ours)
{
    size_t count = json_is_array(value) ? json_array_size(value) : 1;
    *is_ours = false;
    if (count > CLAIMS_MAX_LIST)
        return false;
    for (size_t i = 0; i < count; i++) {
        const json_t *one = json_is_array(value) ? json_array_get(value, i) : value;
        if (!json_is_string(one))
            return false;
        for (size_t k = 0; k < policy->audience_count; k++)
            *is_ours = *is_ours || strcmp(json_string_value(one), policy->audiences[k]) == 0;
    }
    return true;
}

static struct cv_status check_parties(const struct cv_auth_policy *policy, const json_t *claims,
                                      struct cv_error *error)
{
    struct cv_slice issuer = {0};
    const json_t *aud = json_object_get(claims, "aud");
    bool is_ours = false;
    if (cv_json_has(claims, "iss") && !cv_json_string(claims, "iss", &issuer))
        return cv_fail(error, CV_AUTH_MALFORMED, "iss is not a string");
    if (!cv_json_has(claims, "iss"))
        return cv_fail(error, CV_AUTH_WRONG_ISSUER, "no iss");
    if (!cv_slice_is(issuer, policy->issuer))
        return cv_fail(error, CV_AUTH_WRONG_ISSUER, "iss is not %.150s", policy->issuer);
    if (aud && !read_audience(policy, aud, &is_ours))
        return cv_fail(error, CV_AUTH_MALFORMED, "aud is neither a string nor a list of at most %d",
                       CLAIMS_MAX_LIST);
    if (!is_ours)
        return cv_fail(error, CV_AUTH_WRONG_AUDIENCE, aud ? "aud is not this relay" : "no aud");
    return cv_ok();
}

static struct cv_status check_times(const struct cv_auth_policy *policy, const json_t *claims,
                                    int64_t now_s, struct cv_identity *out, struct cv_error *error)
{
    int64_t exp = 0;
    int64_t nbf = 0;
    int64_t iat = 0;
    bool has_iat = cv_json_has(claims, "iat");
    if (!read_time(json_object_get(claims, "exp"), &exp))
        return cv_fail(error, CV_AUTH_MALFORMED, "exp is missing or no sane number");
    if (cv_json_has(claims, "nbf") && !read_time(json_object_get(claims, "nbf"), &nbf))
        return cv_fail(error, CV_AUTH_MALFORMED, "nbf is no sane number");
    if (has_iat && !read_time(json_object_get(claims, "iat"), &iat))
        return cv_fail(error, CV_AUTH_MALFORMED, "iat is no sane number");
    if (policy->max_age_s > 0 && !has_iat)
        return cv_fail(error, CV_AUTH_MALFORMED, "no iat, which max_age needs");

    int64_t until = exp;
    if (policy->max_age_s > 0 && policy->max_age_s < exp - iat)
        until = iat + policy->max_age_s;
    out->issued_s = iat;
    out->expires_s = exp;
    out->valid_until_s = until + policy->skew_s;
    if (now_s >= out->valid_until_s)
        return cv_fail(error, CV_AUTH_EXPIRED, "expired %lld s ago", (long long)(now_s - until));
    int64_t from = nbf > iat ? nbf : iat;
    if (now_s < from - policy->skew_s)
        return cv_fail(error, CV_AUTH_NOT_YET_VALID, "valid in %lld s", (long long)(from - now_s));
    return cv_ok();
}

/* The literal member first: names like "https://example.com/tier" have dots of their own. NULL when
 * absent; JSON null counts as absent. */
static const json_t *find_claim(const json_t *claims, const char *name)
{
    const json_t *value = json_object_get(claims, name);
    if (!value && strchr(name, '.')) {
        struct cv_slice rest = cv_slice_str(name);
        value = claims;
        while (value && rest.data) {
            struct cv_slice part = cv_slice_split(&rest, '.');
            char key[CV_IDENTITY_MAX_TEXT + 1];
            value = cv_slice_to_str(part, key, sizeof key) ? json_object_get(value, key) : NULL;
        }
    }
    return json_is_null(value) ? NULL : value;
}

/* A list claim: array of strings, or words with single spaces as in `scope` (RFC 8693 §4.2). */
struct list {
    const json_t *array;
    size_t index;
    struct cv_slice words;
};

static bool list_begin(const json_t *value, struct list *list)
{
    *list = (struct list){0};
    if (json_is_array(value)) {
        list->array = value;
        for (size_t i = 0; i < json_array_size(value); i++) {
            if (!json_is_string(json_array_get(value, i)))
                return false;
        }
        return true;
    }
    list->words = cv_slice(json_string_value(value), json_string_length(value));
    return json_is_string(value);
}

static bool list_next(struct list *list, struct cv_slice *item)
{
    if (list->array) {
        const json_t *value = json_array_get(list->array, list->index++);
        *item = cv_slice(json_string_value(value), json_string_length(value));
        return value != NULL;
    }
    do {
        *item = cv_slice_split(&list->words, ' ');
    } while (item->len == 0 && list->words.data);
    return item->len > 0;
}

static struct cv_status read_tunnels(const json_t *value, struct cv_identity *out,
                                     struct cv_error *error)
{
    struct list list;
    struct cv_slice name;
    out->has_tunnel_list = true;
    if (!list_begin(value, &list))
        return cv_fail(error, CV_AUTH_MALFORMED, "the tunnels claim is not a list of strings");
    out->tunnels = calloc(CV_IDENTITY_MAX_TUNNELS, sizeof *out->tunnels);
    if (!out->tunnels)
        return cv_status(CV_NO_MEMORY);
    while (list_next(&list, &name)) {
        if (out->tunnel_count == CV_IDENTITY_MAX_TUNNELS || !cv_tunnel_name_is_valid(name))
            return cv_fail(error, CV_AUTH_MALFORMED,
                           "the tunnels claim has a bad name or more than %d",
                           CV_IDENTITY_MAX_TUNNELS);
        memcpy(out->tunnels[out->tunnel_count++], name.data, name.len);
    }
    return cv_ok();
}

/* Names with a NUL or control characters are nobody's groups. */
static struct cv_status read_groups(const json_t *value, struct cv_identity *out)
{
    struct list list;
    struct cv_slice name;
    size_t len = 0;
    if (!list_begin(value, &list))
        return cv_ok();
    while (list_next(&list, &name))
        len += name.len + 1;
    if (!len)
        return cv_ok();
    out->groups = calloc(1, len);
    if (!out->groups)
        return cv_status(CV_NO_MEMORY);
    (void)list_begin(value, &list);
    while (list_next(&list, &name)) {
        if (!cv_identity_text_is_valid(name))
            continue;
        memcpy(out->groups + out->groups_len, name.data, name.len);
        out->groups_len += name.len + 1;
    }
    return cv_ok();
}

static struct cv_status read_rights(const struct cv_auth_policy *policy, const json_t *claims,
                                    struct cv_identity *out, struct cv_error *error)
{
    const json_t *tier = find_claim(claims, policy->tier_claim);
    const json_t *permissions = find_claim(claims, policy->permissions_claim);
    const json_t *tunnels = find_claim(claims, policy->tunnels_claim);
    const json_t *groups = find_claim(claims, policy->groups_claim);
    struct list list;
    struct cv_slice item;
    if (tier && !json_is_string(tier))
        return cv_fail(error, CV_AUTH_MALFORMED, "the tier claim is not a string");
    struct cv_slice name = cv_slice(json_string_value(tier), json_string_length(tier));
    if (tier && cv_tier_is_valid(name))
        (void)cv_slice_to_str(name, out->tier, sizeof out->tier);
    if (permissions) {
        if (!list_begin(permissions, &list))
            return cv_fail(error, CV_AUTH_MALFORMED, "the permissions claim is not a list");
        while (list_next(&list, &item))
            out->is_admin = out->is_admin || cv_slice_is(item, policy->admin_permission);
    }
    if (groups)
        CV_RETURN_IF_ERROR(read_groups(groups, out));
    return tunnels ? read_tunnels(tunnels, out, error) : cv_ok();
}

static struct cv_status read_subject(const json_t *claims, struct cv_identity *out,
                                     struct cv_error *error)
{
    struct cv_slice subject;
    struct cv_slice jti;
    if (!cv_json_string(claims, "sub", &subject) || !copy_text(subject, out->subject))
        return cv_fail(error, CV_AUTH_MALFORMED,
                       "sub is not a string of 1 to %d bytes without control characters",
                       CV_IDENTITY_MAX_TEXT);
    if (cv_json_has(claims, "jti") &&
        !(cv_json_string(claims, "jti", &jti) && copy_text(jti, out->jti)))
        return cv_fail(error, CV_AUTH_MALFORMED, "jti is not a string of 1 to %d bytes",
                       CV_IDENTITY_MAX_TEXT);
    return cv_ok();
}

static void set_user(const struct cv_auth_policy *policy, struct cv_identity *out)
{
    memcpy(out->issuer, policy->issuer, strlen(policy->issuer) + 1);
    cv_identity_user_key(out->issuer, out->subject, out->user_key);
}

static struct cv_status read_claims(const struct cv_auth_policy *policy, struct cv_slice payload,
                                    int64_t now_s, struct cv_identity *out, struct cv_error *error)
{
    json_t *claims = NULL;
    if (!cv_json_object(payload, CV_JWS_MAX_BYTES, CLAIMS_MAX_DEPTH, &claims))
        return cv_fail(error, CV_AUTH_MALFORMED, "claims are not a plain JSON object");
    struct cv_status status = check_parties(policy, claims, error);
    if (cv_is_ok(status))
        status = check_times(policy, claims, now_s, out, error);
    if (cv_is_ok(status))
        status = read_subject(claims, out, error);
    if (cv_is_ok(status))
        status = read_rights(policy, claims, out, error);
    if (cv_is_ok(status))
        set_user(policy, out);
    json_decref(claims);
    return status;
}

struct cv_status cv_jwt_verify(const struct cv_auth_policy *policy, const struct cv_jwks *set,
                               struct cv_slice token, int64_t now_s, struct cv_identity **out,
                               struct cv_error *error)
{
    struct cv_buf payload;
    *out = NULL;
    if (!policy->issuer)
        return cv_fail(error, CV_CONFIG, "no issuer to compare with");
    if (strlen(policy->issuer) > CV_IDENTITY_MAX_TEXT)
        return cv_fail(error, CV_CONFIG, "issuer longer than %d bytes", CV_IDENTITY_MAX_TEXT);
    cv_buf_init(&payload, CV_JWS_MAX_BYTES);
    const struct cv_jwk *signer = NULL;
    struct cv_status status = cv_jws_verify_by(token, set, policy->algs, &payload, &signer, error);
    if (!cv_is_ok(status)) {
        cv_buf_done(&payload);
        return status;
    }
    struct cv_identity *identity = calloc(1, sizeof *identity);
    if (!identity) {
        cv_buf_done(&payload);
        return cv_status(CV_NO_MEMORY);
    }
    atomic_init(&identity->refs, 1);
    status = read_claims(policy, cv_buf_slice(&payload), now_s, identity, error);
    if (cv_is_ok(status) && !cv_jwk_mark(signer, identity->signer))
        status = cv_status(CV_NO_MEMORY);
    cv_buf_done(&payload);
    if (cv_is_ok(status))
        *out = identity;
    else
        cv_identity_unref(&identity);
    return status;
}
