/* SPDX-License-Identifier: MIT */
#include "auth/sign.h"

#include "auth/jws.h"
#include "auth/key.h"
#include "base/digest.h"

#include "base/json.h"

#include <openssl/err.h>
#include <openssl/pem.h>

#define KEY_TEXT_MAX_BYTES 16384
#define TTL_MAX_S ((int64_t)10 * 366 * 86400)

struct cv_signing_key {
    struct cv_key key;
    enum cv_jws_alg alg;
    char kid[CV_KID_MAX_BYTES + 1];
};

void cv_signing_key_free(struct cv_signing_key **key)
{
    struct cv_signing_key *old = *key;
    *key = NULL;
    if (!old)
        return;
    cv_key_done(&old->key);
    free(old);
}

enum cv_jws_alg cv_signing_key_alg(const struct cv_signing_key *key)
{
    return key->alg;
}

const char *cv_signing_key_kid(const struct cv_signing_key *key)
{
    return key->kid;
}

/* RFC 7638 §3: SHA-256 over the required members in lexical order without white space. */
static struct cv_status set_thumbprint(struct cv_signing_key *key)
{
    uint8_t digest[CV_SHA256_LEN];
    json_t *members = cv_key_public_members(&key->key);
    char *text = members ? cv_json_text(members) : NULL;
    json_decref(members);
    if (!text)
        return cv_status(CV_NO_MEMORY);
    cv_sha256(cv_slice_str(text), digest);
    free(text);
    cv_base64url_encode(cv_slice(digest, sizeof digest), key->kid);
    return cv_ok();
}

static enum cv_jws_alg default_alg(const struct cv_key *key)
{
    switch (key->type) {
    case CV_KEY_RSA:
        return CV_JWS_RS256;
    case CV_KEY_P256:
        return CV_JWS_ES256;
    case CV_KEY_P384:
        return CV_JWS_ES384;
    case CV_KEY_SECRET:
        break;
    }
    return CV_JWS_HS256;
}

/* Never ask on the terminal: a key with a password is refused. */
static int no_password(char *buf, int size, int rwflag, void *arg)
{
    (void)buf;
    (void)size;
    (void)rwflag;
    (void)arg;
    return -1;
}

static struct cv_status parse_pem(struct cv_slice text, struct cv_signing_key *key,
                                  struct cv_error *error)
{
    BIO *bio = BIO_new_mem_buf(text.data, (int)text.len);
    EVP_PKEY *pkey = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_password, NULL) : NULL;
    BIO_free(bio);
    ERR_clear_error();
    if (!pkey)
        return cv_fail(error, CV_CONFIG, "no private key in PEM without a password");
    CV_RETURN_IF_ERROR(cv_key_from_pkey(pkey, &key->key, error));
    if (!cv_key_is_consistent(&key->key, true))
        return cv_fail(error, CV_CONFIG, "the halves of the private key do not belong together");
    key->alg = default_alg(&key->key);
    return set_thumbprint(key);
}

/* RFC 7517 §4.2, §4.3: a key that says it is for something else is not for signing. */
static bool may_sign(const json_t *jwk)
{
    struct cv_slice use;
    if (cv_json_has(jwk, "use") && !(cv_json_string(jwk, "use", &use) && cv_slice_is(use, "sig")))
        return false;
    const json_t *ops = json_object_get(jwk, "key_ops");
    for (size_t i = 0; i < json_array_size(ops); i++) {
        const char *op = json_string_value(json_array_get(ops, i));
        if (op && strcmp(op, "sign") == 0)
            return true;
    }
    return !ops;
}

static struct cv_status read_jwk(const json_t *jwk, struct cv_signing_key *key,
                                 struct cv_error *error)
{
    struct cv_slice text;
    if (!may_sign(jwk))
        return cv_fail(error, CV_CONFIG, "use or key_ops of the key do not permit signing");
    if (cv_json_string(jwk, "kty", &text) && cv_slice_is(text, "oct"))
        return cv_fail(error, CV_CONFIG, "a symmetric key; give an RSA or EC key");
    CV_RETURN_IF_ERROR(cv_key_from_jwk(jwk, true, &key->key, error));
    key->alg = default_alg(&key->key);
    if (cv_json_has(jwk, "alg") &&
        (!cv_json_string(jwk, "alg", &text) || !cv_jws_alg_from_name(text, &key->alg) ||
         !cv_key_fits(&key->key, key->alg)))
        return cv_fail(error, CV_CONFIG, "alg of the key is not supported or does not fit it");
    if (!cv_json_has(jwk, "kid"))
        return set_thumbprint(key);
    if (!cv_json_string(jwk, "kid", &text) || text.len == 0 ||
        !cv_slice_to_str(text, key->kid, sizeof key->kid))
        return cv_fail(error, CV_CONFIG, "kid of the key is not a string of 1 to %d bytes",
                       CV_KID_MAX_BYTES);
    return cv_ok();
}

static struct cv_status parse_jwk(struct cv_slice text, struct cv_signing_key *key,
                                  struct cv_error *error)
{
    json_t *jwk = NULL;
    if (!cv_json_object(text, KEY_TEXT_MAX_BYTES, 4, &jwk))
        return cv_fail(error, CV_CONFIG, "the key is not a JSON object");
    struct cv_status status = read_jwk(jwk, key, error);
    json_decref(jwk);
    return status;
}

/* Keeps `key` on success, else frees it. */
static struct cv_status finish(struct cv_status status, struct cv_signing_key *key,
                               struct cv_signing_key **out)
{
    if (cv_is_ok(status))
        *out = key;
    else
        cv_signing_key_free(&key);
    return status;
}

struct cv_status cv_signing_key_parse(struct cv_slice text, struct cv_signing_key **out,
                                      struct cv_error *error)
{
    *out = NULL;
    if (text.len > KEY_TEXT_MAX_BYTES)
        return cv_fail(error, CV_CONFIG, "a key of more than %d bytes", KEY_TEXT_MAX_BYTES);
    while (text.len && strchr(" \t\r\n", text.data[0]) && text.data[0])
        text = cv_slice(text.data + 1, text.len - 1);
    struct cv_signing_key *key = calloc(1, sizeof *key);
    if (!key)
        return cv_status(CV_NO_MEMORY);
    bool is_json = text.len && text.data[0] == '{';
    return finish(is_json ? parse_jwk(text, key, error) : parse_pem(text, key, error), key, out);
}

struct cv_status cv_signing_key_from_secret(struct cv_slice secret, struct cv_signing_key **out,
                                            struct cv_error *error)
{
    *out = NULL;
    struct cv_signing_key *key = calloc(1, sizeof *key);
    if (!key)
        return cv_status(CV_NO_MEMORY);
    key->alg = CV_JWS_HS256;
    return finish(cv_key_from_secret(secret, &key->key, error), key, out);
}

struct cv_status cv_signing_key_generate(struct cv_signing_key **out)
{
    *out = NULL;
    struct cv_signing_key *key = calloc(1, sizeof *key);
    if (!key)
        return cv_status(CV_NO_MEMORY);
    EVP_PKEY *pkey = EVP_EC_gen("P-256");
    if (!pkey)
        return finish(cv_status(CV_INTERNAL), key, out);
    struct cv_status status = cv_key_from_pkey(pkey, &key->key, NULL);
    key->alg = CV_JWS_ES256;
    if (cv_is_ok(status))
        status = set_thumbprint(key);
    return finish(status, key, out);
}

struct cv_status cv_signing_key_to_pem(const struct cv_signing_key *key, struct cv_buf *out)
{
    if (!key->key.pkey)
        return cv_status(CV_INVALID);
    char *text = NULL;
    BIO *bio = BIO_new(BIO_s_secmem());
    struct cv_status status = cv_status(CV_NO_MEMORY);
    if (bio && PEM_write_bio_PKCS8PrivateKey(bio, key->key.pkey, NULL, NULL, 0, NULL, NULL) == 1) {
        long len = BIO_get_mem_data(bio, &text);
        status = cv_buf_append(out, text, (size_t)len);
    }
    BIO_free(bio);
    return status;
}

/* Appends the JSON and ends it; NULL counts as out of memory. */
static struct cv_status append_json(json_t *json, struct cv_buf *out)
{
    char *text = json ? cv_json_text(json) : NULL;
    json_decref(json);
    if (!text)
        return cv_status(CV_NO_MEMORY);
    struct cv_status status = cv_buf_append_str(out, text);
    free(text);
    return status;
}

struct cv_status cv_signing_key_to_jwks(const struct cv_signing_key *key, struct cv_buf *out)
{
    if (!key->key.pkey)
        return cv_status(CV_INVALID);
    json_t *jwk = cv_key_public_members(&key->key);
    if (!jwk || json_object_set_new(jwk, "kid", json_string(key->kid)) != 0 ||
        json_object_set_new(jwk, "alg", json_string(cv_jws_alg_name(key->alg))) != 0 ||
        json_object_set_new(jwk, "use", json_string("sig")) != 0) {
        json_decref(jwk);
        return cv_status(CV_NO_MEMORY);
    }
    return append_json(json_pack("{s:[o]}", "keys", jwk), out);
}

static struct cv_status append_base64url(struct cv_buf *out, struct cv_slice data)
{
    size_t cap = 4 * ((data.len + 2) / 3) + 1;
    uint8_t *to = cv_buf_reserve(out, cap);
    if (!to)
        return cv_status(CV_NO_RESOURCES);
    cv_buf_commit(out, cv_base64url_encode(data, (char *)to));
    return cv_ok();
}

static struct cv_status append_header(const struct cv_signing_key *key, struct cv_buf *out)
{
    struct cv_buf json;
    json_t *header = json_object();
    cv_buf_init(&json, 2048);
    json_object_set_new(header, "alg", json_string(cv_jws_alg_name(key->alg)));
    if (key->kid[0])
        json_object_set_new(header, "kid", json_string(key->kid));
    json_object_set_new(header, "typ", json_string("JWT"));
    struct cv_status status = append_json(header, &json);
    if (cv_is_ok(status))
        status = append_base64url(out, cv_buf_slice(&json));
    cv_buf_done(&json);
    return status;
}

static struct cv_status append_signature(const struct cv_signing_key *key, struct cv_buf *out)
{
    uint8_t signature[CV_KEY_MAX_SIGNATURE];
    size_t len = 0;
    if (!cv_key_sign(&key->key, key->alg, cv_buf_slice(out), signature, &len))
        return cv_status(CV_INTERNAL);
    CV_RETURN_IF_ERROR(cv_buf_append_byte(out, '.'));
    return append_base64url(out, cv_slice(signature, len));
}

struct cv_status cv_jws_sign(const struct cv_signing_key *key, struct cv_slice payload,
                             struct cv_buf *out)
{
    struct cv_buf token;
    cv_buf_init(&token, CV_JWS_MAX_BYTES);
    struct cv_status status = append_header(key, &token);
    if (cv_is_ok(status))
        status = cv_buf_append_byte(&token, '.');
    if (cv_is_ok(status))
        status = append_base64url(&token, payload);
    if (cv_is_ok(status))
        status = append_signature(key, &token);
    if (cv_is_ok(status))
        status = cv_buf_append_slice(out, cv_buf_slice(&token));
    cv_buf_wipe(&token);
    return status;
}

static struct cv_status check_request(const struct cv_token_request *request,
                                      struct cv_error *error)
{
    const char *const texts[][2] = {{"issuer", request->issuer},
                                    {"audience", request->audience},
                                    {"subject", request->subject}};
    for (size_t i = 0; i < 3; i++) {
        if (!cv_identity_text_is_valid(cv_slice_str(texts[i][1])))
            return cv_fail(error, CV_INVALID, "%s: 1 to %d bytes without control characters",
                           texts[i][0], CV_IDENTITY_MAX_TEXT);
    }
    if (request->ttl_s < 1 || request->ttl_s > TTL_MAX_S)
        return cv_fail(error, CV_INVALID, "lifetime: 1 second to 10 years");
    for (size_t i = 0; i < request->group_count; i++)
        if (!cv_identity_text_is_valid(cv_slice_str(request->groups[i])))
            return cv_fail(error, CV_INVALID, "not a group's name");
    if (request->tunnel_count > CV_IDENTITY_MAX_TUNNELS)
        return cv_fail(error, CV_INVALID, "at most %d tunnels", CV_IDENTITY_MAX_TUNNELS);
    for (size_t i = 0; i < request->tunnel_count; i++) {
        if (!cv_tunnel_name_is_valid(cv_slice_str(request->tunnels[i])))
            return cv_fail(error, CV_INVALID, "not a tunnel name: %.80s", request->tunnels[i]);
    }
    return cv_ok();
}

/* NULL without memory. */
static json_t *text_list(const char *const *items, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < count; i++)
        if (json_array_append_new(list, json_string(items[i])) != 0) {
            json_decref(list);
            return NULL;
        }
    return list;
}

/* NULL when memory is short or text is not UTF-8. */
static json_t *make_claims(const struct cv_token_request *request)
{
    uint8_t random[16];
    char jti[2 * sizeof random + 1];
    cv_random(random, sizeof random);
    cv_hex_encode(cv_slice(random, sizeof random), jti);
    json_t *claims =
        json_pack("{s:s, s:s, s:s, s:I, s:I, s:s, s:s}", "iss", request->issuer, "sub",
                  request->subject, "aud", request->audience, "iat", (json_int_t)request->now_s,
                  "exp", (json_int_t)(request->now_s + request->ttl_s), "jti", jti, "tier",
                  request->tier ? request->tier : "free");
    int failed = !claims;
    if (claims && request->is_admin)
        failed |= json_object_set_new(claims, "permissions", json_pack("[s]", "admin"));
    if (claims && request->group_count)
        failed |=
            json_object_set_new(claims, "groups", text_list(request->groups, request->group_count));
    if (claims && request->tunnel_count) {
        failed |= json_object_set_new(claims, "tunnels",
                                      text_list(request->tunnels, request->tunnel_count));
    }
    if (!failed)
        return claims;
    json_decref(claims);
    return NULL;
}

struct cv_status cv_token_issue(const struct cv_signing_key *key,
                                const struct cv_token_request *request, struct cv_buf *out,
                                struct cv_error *error)
{
    CV_RETURN_IF_ERROR(check_request(request, error));
    json_t *claims = make_claims(request);
    if (!claims)
        return cv_fail(error, CV_INVALID, "text that is not UTF-8, or no memory");
    struct cv_buf json;
    cv_buf_init(&json, CV_JWS_MAX_BYTES);
    struct cv_status status = append_json(claims, &json);
    if (cv_is_ok(status))
        status = cv_jws_sign(key, cv_buf_slice(&json), out);
    cv_buf_done(&json);
    return status;
}
