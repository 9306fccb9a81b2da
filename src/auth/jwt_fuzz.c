/* SPDX-License-Identifier: MIT
 *
 * libFuzzer harness for everything in this folder that reads bytes of strangers. The first byte
 * picks the door: a token against fixed keys, claims behind a signature made here (so that the
 * fuzzer gets past it), a key set, a private key.
 */
#include "auth/auth.h"
#include "auth/jws.h"
#include "auth/sign.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char secret[] = "0123456789abcdef0123456789abcdef";
static const char public_keys[] = "{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"kid\":\"e\","
                                  "\"x\":\"04N0xi21hshyvBp7I167sbE_bXqyqkAPfefdklMO7wY\","
                                  "\"y\":\"UI8exy-C06a7DUnjIdENkxeFtHM4-l_41LqEw9nVgmw\"}]}";

static void fuzz_token(struct cv_slice input, const struct cv_jwks *set)
{
    static const char *const audiences[] = {"relay"};
    struct cv_auth_policy policy;
    struct cv_identity *identity = NULL;
    cv_auth_policy_init(&policy);
    policy.algs |= CV_JWS_ALG_BIT(CV_JWS_HS256);
    policy.issuer = "issuer";
    policy.audiences = audiences;
    policy.audience_count = 1;
    policy.tier_claim = "a.b.tier";
    (void)cv_jwt_verify(&policy, set, input, 1700000000, &identity, NULL);
    if (identity)
        (void)cv_identity_may_use_tunnel(identity, input);
    cv_identity_unref(&identity);
}

static void fuzz_claims(struct cv_slice input)
{
    struct cv_signing_key *key = NULL;
    struct cv_jwks *set = NULL;
    struct cv_buf token;
    cv_buf_init(&token, CV_JWS_MAX_BYTES);
    if (cv_is_ok(cv_signing_key_from_secret(cv_slice_str(secret), &key, NULL)) &&
        cv_is_ok(cv_jwks_from_secret(cv_slice_str(secret), &set, NULL)) &&
        cv_is_ok(cv_jws_sign(key, input, &token)))
        fuzz_token(cv_buf_slice(&token), set);
    cv_buf_done(&token);
    cv_jwks_unref(&set);
    cv_signing_key_free(&key);
}

static void fuzz_signing_key(struct cv_slice input)
{
    struct cv_signing_key *key = NULL;
    struct cv_buf out;
    cv_buf_init(&out, CV_JWS_MAX_BYTES);
    if (cv_is_ok(cv_signing_key_parse(input, &key, NULL))) {
        (void)cv_signing_key_to_jwks(key, &out);
        (void)cv_jws_sign(key, cv_slice_str("{}"), &out);
    }
    cv_buf_done(&out);
    cv_signing_key_free(&key);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cv_jwks *set = NULL;
    struct cv_slice token;
    if (size == 0)
        return 0;
    struct cv_slice input = cv_slice(data + 1, size - 1);
    switch (data[0] % 5) {
    case 0:
        if (cv_is_ok(cv_jwks_parse(cv_slice_str(public_keys), &set, NULL)))
            fuzz_token(input, set);
        break;
    case 1:
        fuzz_claims(input);
        break;
    case 2:
        if (cv_is_ok(cv_jwks_parse(input, &set, NULL)))
            (void)cv_jwks_find(set, input);
        break;
    case 3:
        fuzz_signing_key(input);
        break;
    default:
        (void)cv_auth_bearer(input, &token);
        break;
    }
    cv_jwks_unref(&set);
    return 0;
}
