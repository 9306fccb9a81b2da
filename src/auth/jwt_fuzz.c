/* SPDX-License-Identifier: MIT
 *
 * Tokens of strangers. The first byte chooses:
 *   0  a token as it is, against fixed keys
 *   1  header JSON, a newline, claims JSON: encoded and signed here with HS256, so that mutations
 *      get past the signature
 *   2  the same with ES256
 *   3  the same, with the signature of other bytes
 *   4  the value of an Authorization field
 * What is accepted is checked anew by the plain rules of RFC 7515 and 7519.
 */
#include "auth/auth.h"
#include "auth/jws.h"
#include "auth/key.h"
#include "base/fuzz.h"

#define ISSUER "issuer"
#define AUDIENCE "relay"
#define NOW_S 1700000000

enum { SIGNED_HS256 = 1, SIGNED_ES256, SIGNED_WRONG, MODES = 5 };

static const char secret[] = "0123456789abcdef0123456789abcdef";
#define PUBLIC_MEMBERS                                                                             \
    "\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"e\","                                              \
    "\"x\":\"WYTSZ2BCrvZtKMAnsiWc2QT9WFfJ8JrZ7CRMVqnqtjs\","                                       \
    "\"y\":\"yempBCg05nVRQI2N9rcALVy9kulICcz4_mVso15aVVA\""
static const char public_keys[] = "{\"keys\":[{" PUBLIC_MEMBERS "}]}";
static const char private_key[] =
    "{" PUBLIC_MEMBERS ",\"d\":\"Y3VsdmVydCBmdXp6IGtleSwgb2Ygbm8gd29ydGguLiE\"}";

static void check_claims(struct cv_slice payload, const struct cv_identity *identity)
{
    json_t *claims = json_loadb((const char *)payload.data, payload.len, 0, NULL);
    const char *issuer = json_string_value(json_object_get(claims, "iss"));
    const char *subject = json_string_value(json_object_get(claims, "sub"));
    const json_t *aud = json_object_get(claims, "aud");
    cv_fuzz_must(issuer && strcmp(issuer, ISSUER) == 0 && strcmp(identity->issuer, ISSUER) == 0);
    cv_fuzz_must(subject && strcmp(identity->subject, subject) == 0 && subject[0]);
    bool is_ours = json_is_string(aud) && strcmp(json_string_value(aud), AUDIENCE) == 0;
    for (size_t i = 0; i < json_array_size(aud); i++) {
        const char *text = json_string_value(json_array_get(aud, i));
        is_ours |= text && strcmp(text, AUDIENCE) == 0;
    }
    cv_fuzz_must(is_ours);
    double exp = json_number_value(json_object_get(claims, "exp"));
    double nbf = json_number_value(json_object_get(claims, "nbf"));
    cv_fuzz_must(exp + CV_AUTH_DEFAULT_SKEW_S > NOW_S && nbf <= NOW_S + CV_AUTH_DEFAULT_SKEW_S);
    cv_fuzz_must(identity->tunnel_count <= CV_IDENTITY_MAX_TUNNELS);
    if (identity->is_admin) {
        char *text = json_dumps(json_object_get(claims, "permissions"), JSON_ENCODE_ANY);
        cv_fuzz_must(text && strstr(text, "admin"));
        free(text);
    }
    json_decref(claims);
}

/* An accepted token has the one algorithm and, without kid or with any, the one key's signature. */
static void check_token(struct cv_slice token, const struct cv_key *key, enum cv_jws_alg alg,
                        const struct cv_identity *identity)
{
    struct cv_slice rest = token, header = cv_slice_split(&rest, '.'),
                    payload = cv_slice_split(&rest, '.');
    uint8_t *raw = malloc(token.len + 4);
    size_t len = 0;
    cv_fuzz_must(raw && cv_base64url_decode(header, raw, &len));
    json_t *json = json_loadb((const char *)raw, len, 0, NULL);
    const char *name = json_string_value(json_object_get(json, "alg"));
    cv_fuzz_must(name && strcmp(name, cv_jws_alg_name(alg)) == 0);
    cv_fuzz_must(!json_object_get(json, "crit") && !json_object_get(json, "b64"));
    json_decref(json);
    cv_fuzz_must(cv_base64url_decode(rest, raw, &len));
    cv_fuzz_must(cv_key_verify(key, alg, cv_slice(token.data, header.len + 1 + payload.len),
                               cv_slice(raw, len)));
    cv_fuzz_must(cv_base64url_decode(payload, raw, &len));
    check_claims(cv_slice(raw, len), identity);
    free(raw);
}

static void fuzz_token(struct cv_slice token, const struct cv_jwks *set, const struct cv_key *key,
                       enum cv_jws_alg alg, bool may_pass)
{
    static const char *const audiences[] = {AUDIENCE};
    struct cv_auth_policy policy;
    struct cv_identity *identity = NULL;
    struct cv_error error = {0};
    cv_auth_policy_init(&policy);
    policy.algs = CV_JWS_ALG_BIT(alg);
    policy.issuer = ISSUER;
    policy.audiences = audiences;
    policy.audience_count = 1;
    policy.tier_claim = "a.b.tier";
    uint8_t *copy = cv_fuzz_copy(token.data, token.len);
    token.data = copy;
    struct cv_status status = cv_jwt_verify(&policy, set, token, NOW_S, &identity, &error);
    cv_fuzz_must(cv_is_ok(status) == (identity != NULL) && (may_pass || !identity));
    if (identity) {
        cv_fuzz_must(token.len <= CV_JWS_MAX_BYTES);
        check_token(token, key, alg, identity);
        (void)cv_identity_may_use_tunnel(identity, cv_slice_str("home"));
    }
    cv_identity_unref(&identity);
    free(copy);
}

static struct cv_key make_key(bool is_hmac)
{
    struct cv_key key = {0};
    if (is_hmac) {
        cv_fuzz_must(cv_is_ok(cv_key_from_secret(cv_slice_str(secret), &key, NULL)));
    } else {
        json_t *jwk = json_loads(private_key, 0, NULL);
        cv_fuzz_must(cv_is_ok(cv_key_from_jwk(jwk, true, &key, NULL)));
        json_decref(jwk);
    }
    return key;
}

static void append_base64url(struct cv_buf *out, struct cv_slice part)
{
    char *text = malloc(4 * ((part.len + 2) / 3) + 1);
    cv_fuzz_must(text);
    (void)cv_base64url_encode(part, text);
    cv_fuzz_must(cv_is_ok(cv_buf_append_str(out, text)));
    free(text);
}

static void fuzz_signed(unsigned mode, struct cv_slice input, const struct cv_jwks *set,
                        const struct cv_key *key, enum cv_jws_alg alg)
{
    struct cv_slice claims = input, header = cv_slice_split(&claims, '\n');
    uint8_t signature[CV_KEY_MAX_SIGNATURE];
    size_t len = 0;
    struct cv_buf token;
    cv_buf_init(&token, 1 << 21);
    append_base64url(&token, header);
    cv_fuzz_must(cv_is_ok(cv_buf_append_str(&token, ".")));
    append_base64url(&token, claims);
    struct cv_slice signed_bytes = cv_buf_slice(&token);
    if (mode == SIGNED_WRONG)
        signed_bytes.len--;
    cv_fuzz_must(cv_key_sign(key, alg, signed_bytes, signature, &len));
    cv_fuzz_must(cv_is_ok(cv_buf_append_str(&token, ".")));
    append_base64url(&token, cv_slice(signature, len));
    fuzz_token(cv_buf_slice(&token), set, key, alg, mode != SIGNED_WRONG);
    cv_buf_done(&token);
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    uint64_t random = seed * 2ULL + 1;
    const uint8_t *newline = size > 1 ? memchr(data + 1, '\n', size - 1) : NULL;
    unsigned mode = size ? data[0] % MODES : 0;
    if (!newline || mode < SIGNED_HS256 || mode > SIGNED_WRONG || size > 4096 ||
        cv_fuzz_random(&random) % 8 == 0)
        return LLVMFuzzerMutate(data, size, max_size);
    size_t head = (size_t)(newline - data), tail = size - head - 1;
    if (cv_fuzz_random(&random) % 4)
        return head + 1 + cv_fuzz_json(data + head + 1, tail, max_size - head - 1, &random);
    uint8_t claims[4096];
    memcpy(claims, data + head + 1, tail);
    if (max_size < tail + 2)
        return size;
    head = 1 + cv_fuzz_json(data + 1, head - 1, max_size - tail - 2, &random);
    data[head] = '\n';
    memcpy(data + head + 1, claims, tail);
    return head + 1 + tail;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cv_jwks *set = NULL;
    struct cv_slice token;
    if (size == 0)
        return 0;
    struct cv_slice input = cv_slice(data + 1, size - 1);
    unsigned mode = data[0] % MODES;
    if (mode > SIGNED_WRONG) {
        if (cv_is_ok(cv_auth_bearer(input, &token)))
            cv_fuzz_must(token.len > 0 && token.data >= input.data &&
                         token.data + token.len <= input.data + input.len);
        return 0;
    }
    bool is_hmac = mode == SIGNED_HS256 || (mode != SIGNED_ES256 && data[0] & 128);
    enum cv_jws_alg alg = is_hmac ? CV_JWS_HS256 : CV_JWS_ES256;
    struct cv_key key = make_key(is_hmac);
    cv_fuzz_must(cv_is_ok(is_hmac ? cv_jwks_from_secret(cv_slice_str(secret), &set, NULL)
                                  : cv_jwks_parse(cv_slice_str(public_keys), &set, NULL)));
    if (mode < SIGNED_HS256)
        fuzz_token(input, set, &key, alg, true);
    else
        fuzz_signed(mode, input, set, &key, alg);
    cv_jwks_unref(&set);
    cv_key_done(&key);
    return 0;
}
