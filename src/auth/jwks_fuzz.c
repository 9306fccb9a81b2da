/* SPDX-License-Identifier: MIT
 *
 * Key sets of an issuer and private keys of an operator. The first byte chooses: a JWKS document; a
 * private key, as PEM or JWK. A set that is accepted has usable keys of one kind, refuses
 * signatures of nonsense, and is the same when it is read again; a private key's public half is a
 * set that verifies what the key signs.
 */
#include "auth/jwk.h"
#include "auth/jws.h"
#include "auth/sign.h"
#include "base/fuzz.h"

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    uint64_t random = seed * 2ULL + 1;
    if (size < 2 || data[1] != '{' || cv_fuzz_random(&random) % 8 == 0)
        return LLVMFuzzerMutate(data, size, max_size);
    return 1 + cv_fuzz_json(data + 1, size - 1, max_size - 1, &random);
}

static void fuzz_set(struct cv_slice input)
{
    static const uint8_t zeros[CV_JWK_MAX_RSA_BITS / 8];
    static const size_t lengths[] = {0, 32, 64, 96, 256, 512, sizeof zeros};
    struct cv_jwks *set = NULL, *again = NULL;
    struct cv_error error = {0};
    struct cv_status status = cv_jwks_parse(input, &set, &error);
    cv_fuzz_must(cv_is_ok(status) == (set != NULL));
    if (!set)
        return;
    cv_fuzz_must(cv_jwks_count(set) > 0 && cv_jwks_count(set) <= CV_JWKS_MAX_KEYS);
    cv_fuzz_must(cv_is_ok(cv_jwks_parse(input, &again, NULL)) && cv_jwks_same(set, again));
    const struct cv_jwk *key = cv_jwks_find(set, cv_slice(NULL, 0));
    cv_fuzz_must(!key || cv_jwks_count(set) == 1);
    if (!key)
        key = cv_jwks_find(set, cv_slice_str("a"));
    for (unsigned alg = 0; key && alg < CV_JWS_ALG_COUNT; alg++) {
        bool fits = cv_jwk_fits(key, (enum cv_jws_alg)alg);
        cv_fuzz_must(!fits || (alg == CV_JWS_HS256) == cv_jwks_has_secret(set));
        for (size_t i = 0; fits && i < sizeof lengths / sizeof lengths[0]; i++)
            cv_fuzz_must(!cv_jwk_verify(key, (enum cv_jws_alg)alg, cv_slice_str("x"),
                                        cv_slice(zeros, lengths[i])));
    }
    cv_jwks_unref(&set);
    cv_jwks_unref(&again);
}

static void fuzz_signing_key(struct cv_slice input)
{
    struct cv_signing_key *key = NULL;
    struct cv_jwks *set = NULL;
    struct cv_buf json, token, payload;
    cv_buf_init(&json, CV_JWKS_MAX_BYTES);
    cv_buf_init(&token, CV_JWS_MAX_BYTES);
    cv_buf_init(&payload, CV_JWS_MAX_BYTES);
    struct cv_status status = cv_signing_key_parse(input, &key, NULL);
    cv_fuzz_must(cv_is_ok(status) == (key != NULL));
    if (key && cv_is_ok(cv_signing_key_to_jwks(key, &json)) &&
        cv_is_ok(cv_jws_sign(key, cv_slice_str("{}"), &token)) &&
        cv_is_ok(cv_jwks_parse(cv_buf_slice(&json), &set, NULL)))
        cv_fuzz_must(
            cv_is_ok(cv_jws_verify(cv_buf_slice(&token), set, CV_JWS_ALGS_PUBLIC, &payload, NULL)));
    cv_buf_done(&json);
    cv_buf_done(&token);
    cv_buf_done(&payload);
    cv_jwks_unref(&set);
    cv_signing_key_free(&key);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    if (data[0] & 1)
        fuzz_signing_key(cv_slice(data + 1, size - 1));
    else
        fuzz_set(cv_slice(data + 1, size - 1));
    return 0;
}
