/* SPDX-License-Identifier: MIT */
#include "auth/jws.h"

#include "auth/json.h"
#include "base/digest.h"

#define HEADER_MAX_BYTES 2048
#define HEADER_MAX_DEPTH 4
#define SIGNATURE_MAX_BYTES (CV_JWK_MAX_RSA_BITS / 8)

struct header {
    enum cv_jws_alg alg;
    bool is_known_alg;
    size_t kid_len; /* 0: no kid */
    char kid[CV_KID_MAX_BYTES + 1];
};

/* Compares media types as RFC 7515 §4.1.9 says: "application/" may be left out, case is ignored. */
static bool is_token_type(struct cv_slice typ)
{
    static const char prefix[] = "application/";
    if (typ.len > sizeof prefix - 1 &&
        cv_slice_is_nocase(cv_slice(typ.data, sizeof prefix - 1), prefix))
        typ = cv_slice(typ.data + sizeof prefix - 1, typ.len - (sizeof prefix - 1));
    return cv_slice_is_nocase(typ, "JWT") || cv_slice_is_nocase(typ, "at+jwt");
}

static struct cv_status read_members(const json_t *json, struct header *out, struct cv_error *error)
{
    struct cv_slice text;
    if (cv_json_has(json, "crit") || cv_json_has(json, "b64"))
        return cv_fail(error, CV_AUTH_MALFORMED, "header has crit or b64");
    if (cv_json_has(json, "typ") && !(cv_json_string(json, "typ", &text) && is_token_type(text)))
        return cv_fail(error, CV_AUTH_MALFORMED, "header's typ is not JWT");
    if (!cv_json_string(json, "alg", &text))
        return cv_fail(error, CV_AUTH_MALFORMED, "header's alg is not a string");
    out->is_known_alg = cv_jws_alg_from_name(text, &out->alg);
    if (!cv_json_has(json, "kid"))
        return cv_ok();
    if (!cv_json_string(json, "kid", &text) || text.len == 0 ||
        !cv_slice_to_str(text, out->kid, sizeof out->kid))
        return cv_fail(error, CV_AUTH_MALFORMED, "header's kid is not a string of 1 to %d bytes",
                       CV_KID_MAX_BYTES);
    out->kid_len = text.len;
    return cv_ok();
}

static struct cv_status read_header(struct cv_slice part, struct header *out,
                                    struct cv_error *error)
{
    uint8_t raw[HEADER_MAX_BYTES + 2];
    size_t len = 0;
    json_t *json = NULL;
    if (part.len > HEADER_MAX_BYTES / 3 * 4 || !cv_base64url_decode(part, raw, &len))
        return cv_fail(error, CV_AUTH_MALFORMED, "header too large or not base64url");
    if (!cv_json_object(cv_slice(raw, len), HEADER_MAX_BYTES, HEADER_MAX_DEPTH, &json))
        return cv_fail(error, CV_AUTH_MALFORMED, "header is not a plain JSON object");
    *out = (struct header){0};
    struct cv_status status = read_members(json, out, error);
    json_decref(json);
    return status;
}

/* header.payload.signature, no more and no fewer dots. */
static bool split_token(struct cv_slice token, struct cv_slice parts[3])
{
    struct cv_slice rest = token;
    for (unsigned i = 0; i < 3; i++)
        parts[i] = cv_slice_split(&rest, '.');
    return parts[1].data && parts[2].data && !rest.data;
}

static struct cv_status check_signature(const struct header *header, const struct cv_jwks *set,
                                        unsigned algs, struct cv_slice input,
                                        struct cv_slice signature, const struct cv_jwk **signer,
                                        struct cv_error *error)
{
    if (!header->is_known_alg || !(algs & CV_JWS_ALG_BIT(header->alg)))
        return cv_fail(error, CV_AUTH_BAD_SIGNATURE, "algorithm not allowed");
    struct cv_slice kid = cv_slice(header->kid_len ? header->kid : NULL, header->kid_len);
    const struct cv_jwk *key = cv_jwks_find(set, kid);
    if (!key)
        return cv_fail(error, CV_AUTH_UNKNOWN_KEY,
                       kid.data ? "no key with the token's kid"
                                : "no kid in the token and more than one key");
    if (!cv_jwk_fits(key, header->alg))
        return cv_fail(error, CV_AUTH_BAD_SIGNATURE, "the key is not for %s",
                       cv_jws_alg_name(header->alg));
    if (!cv_jwk_verify(key, header->alg, input, signature))
        return cv_fail(error, CV_AUTH_BAD_SIGNATURE, "wrong %s signature",
                       cv_jws_alg_name(header->alg));
    if (signer)
        *signer = key;
    return cv_ok();
}

struct cv_status cv_jws_verify(struct cv_slice token, const struct cv_jwks *set, unsigned algs,
                               struct cv_buf *payload, struct cv_error *error)
{
    return cv_jws_verify_by(token, set, algs, payload, NULL, error);
}

struct cv_status cv_jws_verify_by(struct cv_slice token, const struct cv_jwks *set, unsigned algs,
                                  struct cv_buf *payload, const struct cv_jwk **signer,
                                  struct cv_error *error)
{
    struct cv_slice parts[3];
    struct header header;
    uint8_t signature[SIGNATURE_MAX_BYTES + 2];
    uint8_t body[3 * (CV_JWS_MAX_BYTES / 4) + 2];
    size_t signature_len = 0;
    size_t body_len = 0;
    if (token.len > CV_JWS_MAX_BYTES)
        return cv_fail(error, CV_AUTH_MALFORMED, "longer than %d bytes", CV_JWS_MAX_BYTES);
    if (!split_token(token, parts))
        return cv_fail(error, CV_AUTH_MALFORMED, "not three parts between two dots");
    if (parts[2].len > SIGNATURE_MAX_BYTES / 3 * 4 + 2 || parts[2].len == 0 ||
        !cv_base64url_decode(parts[2], signature, &signature_len))
        return cv_fail(error, CV_AUTH_MALFORMED, "signature missing, too long or not base64url");
    if (!cv_base64url_decode(parts[1], body, &body_len))
        return cv_fail(error, CV_AUTH_MALFORMED, "payload is not base64url");
    CV_RETURN_IF_ERROR(read_header(parts[0], &header, error));

    struct cv_slice input = cv_slice(token.data, parts[0].len + 1 + parts[1].len);
    CV_RETURN_IF_ERROR(check_signature(&header, set, algs, input,
                                       cv_slice(signature, signature_len), signer, error));
    return cv_buf_append(payload, body, body_len);
}
