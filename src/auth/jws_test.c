/* SPDX-License-Identifier: MIT */
#include "auth/jws.h"
#include "auth/key.h"
#include "auth/sign.h"
#include "base/digest.h"
#include "base/test.h"

#include <openssl/pem.h>
#include <openssl/rsa.h>

static const char secret_text[] = "0123456789abcdef0123456789abcdef";
static const unsigned all_algs = CV_JWS_ALGS_PUBLIC | CV_JWS_ALG_BIT(CV_JWS_HS256);

struct fixture {
    struct cv_jwks *secret_set;
    struct cv_signing_key *ec_key;
    struct cv_jwks *ec_set;
    struct cv_buf token;
    struct cv_buf payload;
};

static struct cv_slice secret(void)
{
    return cv_slice_str(secret_text);
}

static int setup(void **state)
{
    static struct fixture f;
    struct cv_buf jwks;
    f = (struct fixture){0};
    cv_buf_init(&f.token, 1 << 21);
    cv_buf_init(&f.payload, CV_JWS_MAX_BYTES);
    cv_buf_init(&jwks, 4096);
    assert_ok(cv_jwks_from_secret(secret(), &f.secret_set, NULL));
    assert_ok(cv_signing_key_generate(&f.ec_key));
    assert_ok(cv_signing_key_to_jwks(f.ec_key, &jwks));
    assert_ok(cv_jwks_parse(cv_buf_slice(&jwks), &f.ec_set, NULL));
    cv_buf_done(&jwks);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    cv_jwks_unref(&f->secret_set);
    cv_jwks_unref(&f->ec_set);
    cv_signing_key_free(&f->ec_key);
    cv_buf_done(&f->token);
    cv_buf_done(&f->payload);
    return 0;
}

static void append64(struct cv_buf *out, struct cv_slice data)
{
    char *text = malloc(4 * (data.len / 3 + 1) + 1);
    cv_base64url_encode(data, text);
    assert_ok(cv_buf_append_str(out, text));
    free(text);
}

/* A token with any header, rightly signed with HS256. */
static struct cv_slice forge(struct fixture *f, struct cv_slice header, struct cv_slice payload)
{
    uint8_t mac[CV_SHA256_LEN];
    cv_buf_consume(&f->token, cv_buf_len(&f->token));
    append64(&f->token, header);
    assert_ok(cv_buf_append_byte(&f->token, '.'));
    append64(&f->token, payload);
    cv_hmac_sha256(secret(), cv_buf_slice(&f->token), mac);
    assert_ok(cv_buf_append_byte(&f->token, '.'));
    append64(&f->token, cv_slice(mac, sizeof mac));
    return cv_buf_slice(&f->token);
}

static enum cv_status_id verdict(struct fixture *f, const char *header)
{
    struct cv_slice token = forge(f, cv_slice_str(header), cv_slice_str("{}"));
    return cv_jws_verify(token, f->secret_set, all_algs, &f->payload, NULL).id;
}

static void header_rules(void **state)
{
    static const struct {
        const char *header;
        enum cv_status_id want;
    } cases[] = {
        {"{\"alg\":\"HS256\"}", CV_OK},
        {"{\"alg\":\"HS256\",\"typ\":\"JWT\",\"kid\":\"any\"}", CV_OK},
        {"{\"alg\":\"HS256\",\"typ\":\"application/at+jwt\"}", CV_OK},
        {"{\"alg\":\"HS256\",\"jku\":\"http://x/\",\"x5u\":\"y\",\"jwk\":{},\"x5c\":[]}", CV_OK},
        {"{\"alg\":\"none\"}", CV_AUTH_BAD_SIGNATURE},
        {"{\"alg\":\"None\"}", CV_AUTH_BAD_SIGNATURE},
        {"{\"alg\":\"nOnE\"}", CV_AUTH_BAD_SIGNATURE},
        {"{\"alg\":\"\"}", CV_AUTH_BAD_SIGNATURE},
        {"{\"alg\":\"hs256\"}", CV_AUTH_BAD_SIGNATURE},
        {"{\"alg\":\" HS256\"}", CV_AUTH_BAD_SIGNATURE},
        {"{\"alg\":\"HS512\"}", CV_AUTH_BAD_SIGNATURE},
        {"{\"alg\":\"RS256\"}", CV_AUTH_BAD_SIGNATURE},
        {"{\"alg\":\"ES256\"}", CV_AUTH_BAD_SIGNATURE},
        {"{\"alg\":[\"HS256\"]}", CV_AUTH_MALFORMED},
        {"{\"alg\":null}", CV_AUTH_MALFORMED},
        {"{\"alg\":256}", CV_AUTH_MALFORMED},
        {"{}", CV_AUTH_MALFORMED},
        {"[]", CV_AUTH_MALFORMED},
        {"\"HS256\"", CV_AUTH_MALFORMED},
        {"", CV_AUTH_MALFORMED},
        {"{\"alg\":\"HS256\"", CV_AUTH_MALFORMED},
        {"{\"alg\":\"HS256\"}x", CV_AUTH_MALFORMED},
        {"{\"alg\":\"HS256\",\"alg\":\"HS256\"}", CV_AUTH_MALFORMED},
        {"{\"alg\":\"HS256\",\"kid\":\"a\",\"kid\":\"b\"}", CV_AUTH_MALFORMED},
        {"{\"alg\":\"HS256\",\"crit\":[\"exp\"],\"exp\":1}", CV_AUTH_MALFORMED},
        {"{\"alg\":\"HS256\",\"crit\":[]}", CV_AUTH_MALFORMED},
        {"{\"alg\":\"HS256\",\"b64\":false}", CV_AUTH_MALFORMED},
        {"{\"alg\":\"HS256\",\"b64\":true}", CV_AUTH_MALFORMED},
        {"{\"alg\":\"HS256\",\"typ\":\"logout+jwt\"}", CV_AUTH_MALFORMED},
        {"{\"alg\":\"HS256\",\"typ\":7}", CV_AUTH_MALFORMED},
        {"{\"alg\":\"HS256\",\"kid\":7}", CV_AUTH_MALFORMED},
        {"{\"alg\":\"HS256\",\"kid\":\"\"}", CV_AUTH_MALFORMED},
        {"{\"alg\":\"HS256\",\"kid\":\"a\\u0000b\"}", CV_AUTH_MALFORMED},
        {"{\"alg\":\"HS256\",\"x\":[[[[1]]]]}", CV_AUTH_MALFORMED},
        {"{\"alg\":\"HS256\",\"x\":\"\xff\"}", CV_AUTH_MALFORMED},
        {"{\"alg\":\"HS256\",\"x\":1e400}", CV_AUTH_MALFORMED},
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        enum cv_status_id got = verdict(f, cases[i].header);
        if (got != cases[i].want)
            fail_msg("%s: %s", cases[i].header, cv_status_name(got));
    }
}

static void nothing_is_appended_to_the_payload_on_failure(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(verdict(f, "{\"alg\":\"none\"}"), CV_AUTH_BAD_SIGNATURE);
    assert_int_equal(cv_buf_len(&f->payload), 0);
    assert_int_equal(verdict(f, "{\"alg\":\"HS256\"}"), CV_OK);
    assert_true(cv_slice_is(cv_buf_slice(&f->payload), "{}"));
}

static void kids_that_are_attacks_are_just_unknown(void **state)
{
    static const char *const kids[] = {"../../etc/passwd", "' OR '1'='1", "/dev/null", "%00",
                                       "a b"};
    struct fixture *f = *state;
    struct cv_jwks *set = NULL;
    static const char two[] = "{\"keys\":[{\"kty\":\"oct\",\"kid\":\"a\",\"k\":"
                              "\"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZW"
                              "Y\"},{\"kty\":\"oct\",\"kid\":\"b\",\"k\":"
                              "\"MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY\"}]}";
    assert_ok(cv_jwks_parse(cv_slice_str(two), &set, NULL));
    for (size_t i = 0; i < sizeof kids / sizeof kids[0]; i++) {
        char header[128];
        snprintf(header, sizeof header, "{\"alg\":\"HS256\",\"kid\":\"%s\"}", kids[i]);
        struct cv_slice token = forge(f, cv_slice_str(header), cv_slice_str("{}"));
        assert_status(cv_jws_verify(token, set, all_algs, &f->payload, NULL), CV_AUTH_UNKNOWN_KEY);
    }
    /* No kid and two keys: which one is meant is not guessed. */
    struct cv_slice token = forge(f, cv_slice_str("{\"alg\":\"HS256\"}"), cv_slice_str("{}"));
    assert_status(cv_jws_verify(token, set, all_algs, &f->payload, NULL), CV_AUTH_UNKNOWN_KEY);
    token = forge(f, cv_slice_str("{\"alg\":\"HS256\",\"kid\":\"b\"}"), cv_slice_str("{}"));
    assert_ok(cv_jws_verify(token, set, all_algs, &f->payload, NULL));
    cv_jwks_unref(&set);
}

static void a_huge_kid_is_malformed(void **state)
{
    struct fixture *f = *state;
    char header[1024] = "{\"alg\":\"HS256\",\"kid\":\"";
    size_t len = strlen(header);
    memset(header + len, 'k', 256);
    memcpy(header + len + 256, "\"}", 3);
    assert_int_equal(verdict(f, header), CV_AUTH_MALFORMED);
}

static void form_of_the_token_is_strict(void **state)
{
    struct fixture *f = *state;
    struct cv_slice good = forge(f, cv_slice_str("{\"alg\":\"HS256\"}"), cv_slice_str("{\"a\":1}"));
    char text[512];
    size_t len = good.len;
    memcpy(text, good.data, len);

    /* Whatever is put anywhere that is not of the alphabet, or whatever single byte is lost or
     * repeated, ends in a refusal. */
    static const char junk[] = " \t\r\n=+/?#\"\0.\x80";
    for (size_t at = 0; at <= len; at++) {
        for (size_t k = 0; k < sizeof junk - 1; k++) {
            char bad[600];
            memcpy(bad, text, at);
            bad[at] = junk[k];
            memcpy(bad + at + 1, text + at, len - at);
            assert_status(
                cv_jws_verify(cv_slice(bad, len + 1), f->secret_set, all_algs, &f->payload, NULL),
                CV_AUTH_MALFORMED);
        }
    }
    for (size_t at = 0; at < len; at++) {
        char bad[600];
        memcpy(bad, text, at);
        memcpy(bad + at, text + at + 1, len - at - 1);
        assert_false(cv_is_ok(
            cv_jws_verify(cv_slice(bad, len - 1), f->secret_set, all_algs, &f->payload, NULL)));
        assert_false(cv_is_ok(
            cv_jws_verify(cv_slice(text, at), f->secret_set, all_algs, &f->payload, NULL)));
    }
}

static void every_flipped_bit_is_refused(void **state)
{
    struct fixture *f = *state;
    cv_buf_consume(&f->token, cv_buf_len(&f->token));
    assert_ok(cv_jws_sign(f->ec_key, cv_slice_str("{\"sub\":\"a\"}"), &f->token));
    struct cv_slice token = cv_buf_slice(&f->token);
    char text[1024];
    memcpy(text, token.data, token.len);
    assert_ok(cv_jws_verify(token, f->ec_set, all_algs, &f->payload, NULL));
    for (size_t at = 0; at < token.len; at++) {
        for (unsigned bit = 0; bit < 8; bit += 3) {
            text[at] ^= (char)(1u << bit);
            assert_false(cv_is_ok(
                cv_jws_verify(cv_slice(text, token.len), f->ec_set, all_algs, &f->payload, NULL)));
            text[at] ^= (char)(1u << bit);
        }
    }
}

static void the_allow_list_rules(void **state)
{
    struct fixture *f = *state;
    struct cv_slice token = forge(f, cv_slice_str("{\"alg\":\"HS256\"}"), cv_slice_str("{}"));
    assert_status(cv_jws_verify(token, f->secret_set, CV_JWS_ALGS_PUBLIC, &f->payload, NULL),
                  CV_AUTH_BAD_SIGNATURE);
    assert_status(cv_jws_verify(token, f->secret_set, 0, &f->payload, NULL), CV_AUTH_BAD_SIGNATURE);
    assert_false(CV_JWS_ALGS_PUBLIC & CV_JWS_ALG_BIT(CV_JWS_HS256));
    assert_true(CV_JWS_ALGS_PUBLIC & CV_JWS_ALG_BIT(CV_JWS_ES384));
}

static void hs256_over_a_public_key_is_refused(void **state)
{
    struct fixture *f = *state;
    struct cv_slice token = forge(f, cv_slice_str("{\"alg\":\"HS256\"}"), cv_slice_str("{}"));
    assert_status(cv_jws_verify(token, f->ec_set, all_algs, &f->payload, NULL),
                  CV_AUTH_BAD_SIGNATURE);
}

static void lengths_are_capped_before_anything_is_decoded(void **state)
{
    struct fixture *f = *state;
    size_t len = 1 << 20;
    char *big = malloc(len);
    memset(big, 'A', len);
    big[10] = big[20] = '.';
    assert_status(cv_jws_verify(cv_slice(big, len), f->secret_set, all_algs, &f->payload, NULL),
                  CV_AUTH_MALFORMED);
    assert_status(cv_jws_verify(cv_slice(big, CV_JWS_MAX_BYTES + 1), f->secret_set, all_algs,
                                &f->payload, NULL),
                  CV_AUTH_MALFORMED);
    assert_status(cv_jws_verify(cv_slice(big, 0), f->secret_set, all_algs, &f->payload, NULL),
                  CV_AUTH_MALFORMED);
    free(big);

    char payload[6000];
    memset(payload, 'x', sizeof payload);
    struct cv_slice token =
        forge(f, cv_slice_str("{\"alg\":\"HS256\"}"), cv_slice(payload, sizeof payload));
    assert_true(token.len <= CV_JWS_MAX_BYTES);
    assert_ok(cv_jws_verify(token, f->secret_set, all_algs, &f->payload, NULL));
    cv_buf_consume(&f->payload, cv_buf_len(&f->payload));
}

static void set_rules(void **state)
{
    (void)state;
#define K32 "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"
#define EC_XY                                                                                      \
    "\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"04N0xi21hshyvBp7I167sbE_bXqyqkAPfefdklMO7wY\","      \
    "\"y\":\"UI8exy-C06a7DUnjIdENkxeFtHM4-l_41LqEw9nVgmw\""
    static const struct {
        const char *json;
        size_t usable; /* 0: refused */
    } cases[] = {
        {"{\"keys\":[{" EC_XY "}]}", 1},
        {"{" EC_XY "}", 1},
        {"{\"keys\":[{" EC_XY ",\"use\":\"sig\",\"key_ops\":[\"verify\"],\"alg\":\"ES256\"}]}", 1},
        {"{\"keys\":[{\"kty\":\"oct\",\"k\":\"" K32 "\"}]}", 1},
        {"{\"keys\":[{" EC_XY "},{\"kty\":\"OKP\"},7,null]}", 1},
        {"{\"keys\":[{" EC_XY ",\"kid\":\"a\"},{" EC_XY ",\"kid\":\"b\"}]}", 2},
        {"{\"keys\":[{" EC_XY ",\"kid\":\"a\"},{" EC_XY ",\"kid\":\"a\"},{" EC_XY
         ",\"kid\":\"b\"}]}",
         1},
        {"{\"keys\":[{" EC_XY ",\"kid\":\"a\"},{" EC_XY ",\"kid\":\"a\",\"use\":\"enc\"}]}", 1},
        {"{\"keys\":[{" EC_XY ",\"kid\":\"a\"},{" EC_XY ",\"kid\":\"a\"}]}", 0},
        {"{\"keys\":[{" EC_XY ",\"alg\":\"ES384\"}]}", 0},
        {"{\"keys\":[{" EC_XY ",\"alg\":\"RS256\"}]}", 0},
        {"{\"keys\":[{" EC_XY ",\"alg\":\"none\"}]}", 0},
        {"{\"keys\":[{" EC_XY ",\"alg\":7}]}", 0},
        {"{\"keys\":[{" EC_XY ",\"use\":\"enc\"}]}", 0},
        {"{\"keys\":[{" EC_XY ",\"use\":[\"sig\"]}]}", 0},
        {"{\"keys\":[{" EC_XY ",\"key_ops\":[\"sign\"]}]}", 0},
        {"{\"keys\":[{" EC_XY ",\"key_ops\":[]}]}", 0},
        {"{\"keys\":[{" EC_XY ",\"key_ops\":\"verify\"}]}", 0},
        {"{\"keys\":[{" EC_XY ",\"kid\":7}]}", 0},
        {"{\"keys\":[{" EC_XY ",\"kid\":\"\"}]}", 0},
        {"{\"keys\":[{\"kty\":\"oct\",\"k\":\"" K32 "\"},{" EC_XY "}]}", 0},
        {"{\"keys\":[{\"kty\":\"oct\",\"k\":\"c2hvcnQ\"}]}", 0},
        {"{\"keys\":[{\"kty\":\"oct\",\"k\":\"" K32 "=\"}]}", 0},
        {"{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\"}]}", 0},
        {"{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AA\",\"y\":\"AA\"}]}", 0},
        {"{\"keys\":[{\"kty\":\"RSA\",\"n\":\"AQAB\",\"e\":\"AQAB\"}]}", 0},
        {"{\"keys\":[]}", 0},
        {"{\"keys\":{}}", 0},
        {"{\"keys\":\"x\"}", 0},
        {"{}", 0},
        {"[]", 0},
        {"", 0},
        {"<html>", 0},
        {"{\"keys\":[{" EC_XY "}],\"keys\":[]}", 0},
        {"{\"keys\":[{" EC_XY "}]} x", 0},
        {"{\"keys\":[{" EC_XY ",\"x5c\":[[[[[[[[1]]]]]]]]}]}", 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cv_jwks *set = NULL;
        struct cv_error error = {0};
        struct cv_status status = cv_jwks_parse(cv_slice_str(cases[i].json), &set, &error);
        size_t got = set ? cv_jwks_count(set) : 0;
        if (got != cases[i].usable || cv_is_ok(status) != (set != NULL) ||
            (!set && (status.id != CV_CONFIG || !error.detail[0])))
            fail_msg("%s: %zu keys, %s", cases[i].json, got, error.detail);
        cv_jwks_unref(&set);
    }
}

static void sets_have_caps(void **state)
{
    (void)state;
    struct cv_jwks *set = NULL;
    size_t len = 10 << 20;
    char *big = malloc(len);
    memset(big, ' ', len);
    memcpy(big, "{\"keys\":[{" EC_XY "}]}", sizeof "{\"keys\":[{" EC_XY "}]}" - 1);
    assert_status(cv_jwks_parse(cv_slice(big, len), &set, NULL), CV_CONFIG);
    assert_ok(cv_jwks_parse(cv_slice(big, CV_JWKS_MAX_BYTES), &set, NULL));
    assert_true(cv_jwks_same(set, set));
    cv_jwks_unref(&set);
    memset(big, '[', len);
    assert_status(cv_jwks_parse(cv_slice(big, CV_JWKS_MAX_BYTES), &set, NULL), CV_CONFIG);
    free(big);
}

static EVP_PKEY *make_pkey(enum cv_jws_alg alg)
{
    if (alg == CV_JWS_ES256 || alg == CV_JWS_ES384)
        return EVP_EC_gen(alg == CV_JWS_ES256 ? "P-256" : "P-384");
    return EVP_RSA_gen(2048);
}

static char *pem_of(EVP_PKEY *pkey)
{
    char *text = NULL;
    BIO *bio = BIO_new(BIO_s_mem());
    assert_int_equal(PEM_write_bio_PrivateKey(bio, pkey, NULL, NULL, 0, NULL, NULL), 1);
    long len = BIO_get_mem_data(bio, &text);
    char *copy = strndup(text, (size_t)len);
    BIO_free(bio);
    return copy;
}

static void keys_from_pem_sign_what_their_public_half_verifies(void **state)
{
    (void)state;
    static const enum cv_jws_alg algs[] = {CV_JWS_RS256, CV_JWS_ES256, CV_JWS_ES384};
    for (size_t i = 0; i < sizeof algs / sizeof algs[0]; i++) {
        EVP_PKEY *pkey = make_pkey(algs[i]);
        char *pem = pem_of(pkey);
        struct cv_signing_key *key = NULL;
        struct cv_jwks *set = NULL;
        struct cv_buf jwks, token, payload;
        cv_buf_init(&jwks, 8192);
        cv_buf_init(&token, 8192);
        cv_buf_init(&payload, 8192);
        assert_ok(cv_signing_key_parse(cv_slice_str(pem), &key, NULL));
        assert_int_equal(cv_signing_key_alg(key), algs[i]);
        assert_int_equal(strlen(cv_signing_key_kid(key)), 43);
        assert_ok(cv_signing_key_to_jwks(key, &jwks));
        assert_ok(cv_jwks_parse(cv_buf_slice(&jwks), &set, NULL));
        assert_ok(cv_jws_sign(key, cv_slice_str("hello"), &token));
        assert_ok(cv_jws_verify(cv_buf_slice(&token), set, CV_JWS_ALGS_PUBLIC, &payload, NULL));
        assert_true(cv_slice_is(cv_buf_slice(&payload), "hello"));
        assert_status(cv_jws_verify(cv_buf_slice(&token), set,
                                    CV_JWS_ALGS_PUBLIC & ~CV_JWS_ALG_BIT(algs[i]), &payload, NULL),
                      CV_AUTH_BAD_SIGNATURE);
        cv_buf_done(&jwks);
        cv_buf_done(&token);
        cv_buf_done(&payload);
        cv_jwks_unref(&set);
        cv_signing_key_free(&key);
        EVP_PKEY_free(pkey);
        free(pem);
    }
}

/* The salt is as long as the hash (RFC 7518 §3.5); the library would take any length if asked to.
 */
static void pss_with_another_salt_length_is_refused(void **state)
{
    (void)state;
    static const char input[] = "header.payload";
    EVP_PKEY *pkey = EVP_RSA_gen(2048);
    struct cv_key key = {0};
    assert_ok(cv_key_from_pkey(pkey, &key, NULL));
    for (int salt = 0; salt <= 64; salt += 16) {
        uint8_t signature[256];
        size_t len = sizeof signature;
        EVP_PKEY_CTX *ctx = NULL;
        EVP_MD_CTX *md = EVP_MD_CTX_new();
        assert_int_equal(EVP_DigestSignInit_ex(md, &ctx, "SHA256", NULL, NULL, pkey, NULL), 1);
        assert_true(EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PSS_PADDING) > 0);
        assert_true(EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, salt) > 0);
        assert_int_equal(
            EVP_DigestSign(md, signature, &len, (const uint8_t *)input, sizeof input - 1), 1);
        EVP_MD_CTX_free(md);
        struct cv_slice text = cv_slice_str(input);
        assert_int_equal(cv_key_verify(&key, CV_JWS_PS256, text, cv_slice(signature, len)),
                         salt == 32);
        assert_false(cv_key_verify(&key, CV_JWS_RS256, text, cv_slice(signature, len)));
        assert_false(cv_key_verify(&key, CV_JWS_PS256, text, cv_slice(signature, len - 1)));
        assert_false(cv_key_verify(&key, CV_JWS_PS256, text, cv_slice(signature, 0)));
    }
    cv_key_done(&key);
}

static void bad_private_keys_are_refused(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "",
        "x",
        "{}",
        "{\"kty\":\"oct\",\"k\":\"" K32 "\"}",
        "{" EC_XY "}",
        "{" EC_XY ",\"d\":\"AQ\"}",
        "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
    };
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct cv_signing_key *key = NULL;
        struct cv_error error = {0};
        assert_status(cv_signing_key_parse(cv_slice_str(texts[i]), &key, &error), CV_CONFIG);
        assert_null(key);
        assert_true(error.detail[0]);
    }
    EVP_PKEY *small = EVP_RSA_gen(1024);
    char *pem = pem_of(small);
    struct cv_signing_key *key = NULL;
    assert_status(cv_signing_key_parse(cv_slice_str(pem), &key, NULL), CV_CONFIG);
    free(pem);
    EVP_PKEY_free(small);
}

static void a_private_jwk_signs_and_keeps_its_kid(void **state)
{
    (void)state;
    static const char jwk[] = "{" EC_XY ",\"d\":\"yy49oPcINGK2ps0LmtxpB6UTEOiITghHBif6wDqmJ3c\","
                              "\"kid\":\"a \\\"quoted\\\" id\",\"key_ops\":[\"sign\"]}";
    struct cv_signing_key *key = NULL;
    struct cv_jwks *set = NULL;
    struct cv_buf jwks, token, payload;
    cv_buf_init(&jwks, 8192);
    cv_buf_init(&token, 8192);
    cv_buf_init(&payload, 8192);
    assert_ok(cv_signing_key_parse(cv_slice_str(jwk), &key, NULL));
    assert_string_equal(cv_signing_key_kid(key), "a \"quoted\" id");
    assert_ok(cv_signing_key_to_jwks(key, &jwks));
    assert_null(memmem(cv_buf_head(&jwks), cv_buf_len(&jwks), "\"d\"", 3));
    assert_ok(cv_jwks_parse(cv_buf_slice(&jwks), &set, NULL));
    assert_ok(cv_jws_sign(key, cv_slice_str("x"), &token));
    assert_ok(cv_jws_verify(cv_buf_slice(&token), set, CV_JWS_ALGS_PUBLIC, &payload, NULL));
    cv_buf_done(&jwks);
    cv_buf_done(&token);
    cv_buf_done(&payload);
    cv_jwks_unref(&set);
    cv_signing_key_free(&key);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(header_rules, setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_is_appended_to_the_payload_on_failure, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(kids_that_are_attacks_are_just_unknown, setup, teardown),
        cmocka_unit_test_setup_teardown(a_huge_kid_is_malformed, setup, teardown),
        cmocka_unit_test_setup_teardown(form_of_the_token_is_strict, setup, teardown),
        cmocka_unit_test_setup_teardown(every_flipped_bit_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(the_allow_list_rules, setup, teardown),
        cmocka_unit_test_setup_teardown(hs256_over_a_public_key_is_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(lengths_are_capped_before_anything_is_decoded, setup,
                                        teardown),
        cmocka_unit_test(set_rules),
        cmocka_unit_test(sets_have_caps),
        cmocka_unit_test(keys_from_pem_sign_what_their_public_half_verifies),
        cmocka_unit_test(pss_with_another_salt_length_is_refused),
        cmocka_unit_test(bad_private_keys_are_refused),
        cmocka_unit_test(a_private_jwk_signs_and_keeps_its_kid),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
