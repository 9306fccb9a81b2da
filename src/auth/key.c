/* SPDX-License-Identifier: MIT */
#include "auth/key.h"

#include "base/digest.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/param_build.h>
#include <openssl/rsa.h>

#define RSA_MAX_BYTES (CV_JWK_MAX_RSA_BITS / 8)
#define EC_MAX_BYTES 48
/* A decoded member with the slack of the decoder, and a leading zero that some libraries add. */
#define MEMBER_MAX_BYTES (RSA_MAX_BYTES + 8)

static unsigned curve_bytes(enum cv_key_type type)
{
    return type == CV_KEY_P256 ? 32 : 48;
}

void cv_key_done(struct cv_key *key)
{
    EVP_PKEY_free(key->pkey);
    if (key->secret) {
        cv_wipe(key->secret, key->secret_len);
        free(key->secret);
    }
    *key = (struct cv_key){.type = key->type};
}

struct cv_status cv_key_from_secret(struct cv_slice secret, struct cv_key *key,
                                    struct cv_error *error)
{
    *key = (struct cv_key){.type = CV_KEY_SECRET};
    if (secret.len < CV_JWK_MIN_SECRET_BYTES || secret.len > CV_JWK_MAX_SECRET_BYTES)
        return cv_fail(error, CV_CONFIG, "an HMAC secret has %d to %d bytes, this one %zu",
                       CV_JWK_MIN_SECRET_BYTES, CV_JWK_MAX_SECRET_BYTES, secret.len);
    key->secret = malloc(secret.len);
    if (!key->secret)
        return cv_status(CV_NO_MEMORY);
    memcpy(key->secret, secret.data, secret.len);
    key->secret_len = secret.len;
    return cv_ok();
}

/* Keys of the generator of CVE-2017-15361 ("ROCA", Nemec et al., CCS 2017, §5.1): modulo each small
 * prime their modulus lies in the subgroup that 65537 generates. A good key passes for one by a
 * chance under 2^-27. */
static bool is_roca(const BIGNUM *n)
{
    static const uint8_t primes[] = {
        3,  5,  7,  11, 13, 17,  19,  23,  29,  31,  37,  41,  43,  47,  53,  59,  61,  67,  71,
        73, 79, 83, 89, 97, 101, 103, 107, 109, 113, 127, 131, 137, 139, 149, 151, 157, 163, 167};
    for (size_t i = 0; i < sizeof primes; i++) {
        unsigned prime = primes[i];
        unsigned residue = (unsigned)BN_mod_word(n, prime);
        unsigned power = 1;
        bool found = false;
        do {
            found = found || power == residue;
            power = power * 65537u % prime;
        } while (power != 1);
        if (!found)
            return false;
    }
    return true;
}

static struct cv_status check_rsa(const EVP_PKEY *pkey, struct cv_error *error)
{
    BIGNUM *n = NULL;
    BIGNUM *e = NULL;
    struct cv_status status = cv_status(CV_NO_MEMORY);
    if (!EVP_PKEY_get_bn_param(pkey, OSSL_PKEY_PARAM_RSA_N, &n) ||
        !EVP_PKEY_get_bn_param(pkey, OSSL_PKEY_PARAM_RSA_E, &e))
        goto done;
    int bits = BN_num_bits(n);
    if (bits < CV_JWK_MIN_RSA_BITS || bits > CV_JWK_MAX_RSA_BITS)
        status = cv_fail(error, CV_CONFIG, "an RSA key has %d to %d bits here, this one %d",
                         CV_JWK_MIN_RSA_BITS, CV_JWK_MAX_RSA_BITS, bits);
    else if (!BN_is_odd(n) || !BN_is_odd(e) || BN_is_one(e) || BN_num_bits(e) > 64)
        status = cv_fail(error, CV_CONFIG, "RSA modulus or exponent out of range");
    else if (is_roca(n))
        status = cv_fail(error, CV_CONFIG, "RSA key of the broken generator (CVE-2017-15361)");
    else
        status = cv_ok();
done:
    BN_free(n);
    BN_free(e);
    return status;
}

struct cv_status cv_key_from_pkey(EVP_PKEY *pkey, struct cv_key *key, struct cv_error *error)
{
    *key = (struct cv_key){.pkey = pkey};
    struct cv_status status = cv_ok();
    char group[32] = "";
    size_t group_len = 0;
    if (EVP_PKEY_is_a(pkey, "RSA")) {
        key->type = CV_KEY_RSA;
        status = check_rsa(pkey, error);
    } else if (EVP_PKEY_is_a(pkey, "EC") &&
               EVP_PKEY_get_group_name(pkey, group, sizeof group, &group_len)) {
        bool is_p256 = strcmp(group, "prime256v1") == 0 || strcmp(group, "P-256") == 0;
        bool is_p384 = strcmp(group, "secp384r1") == 0 || strcmp(group, "P-384") == 0;
        key->type = is_p256 ? CV_KEY_P256 : CV_KEY_P384;
        if (!is_p256 && !is_p384)
            status = cv_fail(error, CV_CONFIG, "curve %s is not supported", group);
    } else {
        status = cv_fail(error, CV_CONFIG, "neither an RSA nor an EC key");
    }
    if (!cv_is_ok(status))
        cv_key_done(key);
    return status;
}

/* Adds a base64url member as a big number. The number must outlive the build; it is given to
 * numbers[*count]. */
static bool add_number(OSSL_PARAM_BLD *build, const json_t *jwk, const char *member,
                       const char *param, BIGNUM **numbers, size_t *count)
{
    uint8_t raw[MEMBER_MAX_BYTES];
    size_t len = 0;
    if (!cv_json_base64url(jwk, member, raw, sizeof raw, &len))
        return false;
    BIGNUM *number = BN_bin2bn(raw, (int)len, NULL);
    cv_wipe(raw, sizeof raw);
    if (!number)
        return false;
    numbers[(*count)++] = number;
    return OSSL_PARAM_BLD_push_BN(build, param, number) == 1;
}

static EVP_PKEY *pkey_from_build(const char *type, OSSL_PARAM_BLD *build, int selection)
{
    EVP_PKEY *pkey = NULL;
    OSSL_PARAM *params = OSSL_PARAM_BLD_to_param(build);
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_name(NULL, type, NULL);
    if (!params || !ctx || EVP_PKEY_fromdata_init(ctx) != 1 ||
        EVP_PKEY_fromdata(ctx, &pkey, selection, params) != 1)
        pkey = NULL;
    EVP_PKEY_CTX_free(ctx);
    OSSL_PARAM_free(params);
    return pkey;
}

static EVP_PKEY *rsa_from_jwk(const json_t *jwk, bool want_private)
{
    static const char *const members[][2] = {
        {"n", OSSL_PKEY_PARAM_RSA_N},          {"e", OSSL_PKEY_PARAM_RSA_E},
        {"d", OSSL_PKEY_PARAM_RSA_D},          {"p", OSSL_PKEY_PARAM_RSA_FACTOR1},
        {"q", OSSL_PKEY_PARAM_RSA_FACTOR2},    {"dp", OSSL_PKEY_PARAM_RSA_EXPONENT1},
        {"dq", OSSL_PKEY_PARAM_RSA_EXPONENT2}, {"qi", OSSL_PKEY_PARAM_RSA_COEFFICIENT1},
    };
    size_t wanted = want_private ? 8 : 2;
    BIGNUM *numbers[8];
    size_t count = 0;
    EVP_PKEY *pkey = NULL;
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    if (!build)
        return NULL;
    bool is_built = true;
    for (size_t i = 0; is_built && i < wanted; i++)
        is_built = add_number(build, jwk, members[i][0], members[i][1], numbers, &count);
    if (is_built)
        pkey = pkey_from_build("RSA", build, want_private ? EVP_PKEY_KEYPAIR : EVP_PKEY_PUBLIC_KEY);
    OSSL_PARAM_BLD_free(build);
    for (size_t i = 0; i < count; i++)
        BN_clear_free(numbers[i]);
    return pkey;
}

static EVP_PKEY *ec_from_jwk(const json_t *jwk, enum cv_key_type type, bool want_private)
{
    /* SEC 1 §2.3.3, uncompressed: 04 ‖ x ‖ y. Lengths are exact (RFC 7518 §6.2.1.2). */
    uint8_t point[1 + 2 * (EC_MAX_BYTES + CV_BASE64_SLACK)];
    unsigned bytes = curve_bytes(type);
    size_t x_len = 0;
    size_t y_len = 0;
    point[0] = POINT_CONVERSION_UNCOMPRESSED;
    if (!cv_json_base64url(jwk, "x", point + 1, bytes + CV_BASE64_SLACK, &x_len) ||
        x_len != bytes ||
        !cv_json_base64url(jwk, "y", point + 1 + bytes, bytes + CV_BASE64_SLACK, &y_len) ||
        y_len != bytes)
        return NULL;

    EVP_PKEY *pkey = NULL;
    BIGNUM *numbers[1];
    size_t count = 0;
    OSSL_PARAM_BLD *build = OSSL_PARAM_BLD_new();
    if (build &&
        OSSL_PARAM_BLD_push_utf8_string(build, OSSL_PKEY_PARAM_GROUP_NAME,
                                        type == CV_KEY_P256 ? "prime256v1" : "secp384r1", 0) &&
        OSSL_PARAM_BLD_push_octet_string(build, OSSL_PKEY_PARAM_PUB_KEY, point, 1 + 2 * bytes) &&
        (!want_private || add_number(build, jwk, "d", OSSL_PKEY_PARAM_PRIV_KEY, numbers, &count)))
        pkey = pkey_from_build("EC", build, want_private ? EVP_PKEY_KEYPAIR : EVP_PKEY_PUBLIC_KEY);
    OSSL_PARAM_BLD_free(build);
    for (size_t i = 0; i < count; i++)
        BN_clear_free(numbers[i]);
    return pkey;
}

bool cv_key_is_consistent(const struct cv_key *key, bool want_private)
{
    /* OpenSSL's public check of RSA keys tests the modulus for primality, which costs too much for
     * a stranger's key. */
    if (key->type == CV_KEY_RSA && !want_private)
        return true;
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key->pkey, NULL);
    bool is_good = ctx && (want_private ? EVP_PKEY_pairwise_check(ctx) == 1
                                        : EVP_PKEY_public_check_quick(ctx) == 1);
    EVP_PKEY_CTX_free(ctx);
    ERR_clear_error();
    return is_good;
}

static struct cv_status secret_from_jwk(const json_t *jwk, struct cv_key *key,
                                        struct cv_error *error)
{
    uint8_t raw[CV_JWK_MAX_SECRET_BYTES + CV_BASE64_SLACK];
    size_t len = 0;
    if (!cv_json_base64url(jwk, "k", raw, sizeof raw, &len))
        return cv_fail(error, CV_CONFIG, "no usable member k in a symmetric key");
    struct cv_status status = cv_key_from_secret(cv_slice(raw, len), key, error);
    cv_wipe(raw, sizeof raw);
    return status;
}

struct cv_status cv_key_from_jwk(const json_t *jwk, bool want_private, struct cv_key *key,
                                 struct cv_error *error)
{
    struct cv_slice kty;
    struct cv_slice crv;
    EVP_PKEY *pkey = NULL;
    *key = (struct cv_key){0};
    if (!cv_json_string(jwk, "kty", &kty))
        return cv_fail(error, CV_CONFIG, "a key without kty");
    if (cv_slice_is(kty, "oct"))
        return secret_from_jwk(jwk, key, error);
    if (cv_slice_is(kty, "RSA")) {
        pkey = rsa_from_jwk(jwk, want_private);
    } else if (cv_slice_is(kty, "EC")) {
        cv_json_string(jwk, "crv", &crv);
        if (cv_slice_is(crv, "P-256"))
            pkey = ec_from_jwk(jwk, CV_KEY_P256, want_private);
        else if (cv_slice_is(crv, "P-384"))
            pkey = ec_from_jwk(jwk, CV_KEY_P384, want_private);
        else
            return cv_fail(error, CV_CONFIG, "a curve other than P-256 and P-384");
    } else {
        return cv_fail(error, CV_CONFIG, "a kty other than RSA, EC and oct");
    }
    struct cv_status status = cv_status(CV_CONFIG);
    if (pkey)
        status = cv_key_from_pkey(pkey, key, error);
    if (!pkey || (cv_is_ok(status) && !cv_key_is_consistent(key, want_private))) {
        cv_key_done(key);
        status = cv_fail(error, CV_CONFIG, "key members missing, malformed or inconsistent");
    }
    ERR_clear_error();
    return status;
}

struct alg_row {
    bool is_pss;
    bool is_rsa;
    enum cv_key_type type;
    const char *hash;
    unsigned half; /* bytes of r and of s */
};

#define FAMILY_RSA_PKCS1 false, true, CV_KEY_RSA
#define FAMILY_RSA_PSS true, true, CV_KEY_RSA
#define FAMILY_EC_P256 false, false, CV_KEY_P256
#define FAMILY_EC_P384 false, false, CV_KEY_P384
#define FAMILY_HMAC false, false, CV_KEY_SECRET

static const struct alg_row *row_of(enum cv_jws_alg alg)
{
    static const struct alg_row rows[] = {
#define ALG_ROW(name, family, hash, half) {FAMILY_##family, hash, half},
        CV_JWS_ALG_TABLE(ALG_ROW)
#undef ALG_ROW
    };
    return (unsigned)alg < CV_JWS_ALG_COUNT ? &rows[alg] : NULL;
}

bool cv_key_fits(const struct cv_key *key, enum cv_jws_alg alg)
{
    const struct alg_row *row = row_of(alg);
    return row && row->type == key->type && (key->pkey || key->secret);
}

/* RFC 7518 §3.5: the salt is as long as the hash, MGF1 with the same hash. */
static bool set_padding(EVP_PKEY_CTX *ctx, const struct alg_row *row)
{
    if (!row->is_rsa)
        return true;
    if (!row->is_pss)
        return EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PADDING) > 0;
    return EVP_PKEY_CTX_set_rsa_padding(ctx, RSA_PKCS1_PSS_PADDING) > 0 &&
           EVP_PKEY_CTX_set_rsa_pss_saltlen(ctx, RSA_PSS_SALTLEN_DIGEST) > 0;
}

/* r‖s of exactly 2 * half bytes to DER, which EVP wants. Zero is refused here rather than left to
 * the library: that is the forgery of CVE-2022-21449. Returns the length, 0 on failure. */
static size_t ecdsa_to_der(struct cv_slice signature, unsigned half, uint8_t **der)
{
    BIGNUM *r = BN_bin2bn(signature.data, (int)half, NULL);
    BIGNUM *s = BN_bin2bn(signature.data + half, (int)half, NULL);
    ECDSA_SIG *pair = ECDSA_SIG_new();
    int len = 0;
    *der = NULL;
    if (!r || !s || !pair || BN_is_zero(r) || BN_is_zero(s) || ECDSA_SIG_set0(pair, r, s) != 1) {
        BN_free(r);
        BN_free(s);
    } else {
        len = i2d_ECDSA_SIG(pair, der);
    }
    ECDSA_SIG_free(pair);
    return len > 0 ? (size_t)len : 0;
}

bool cv_key_verify(const struct cv_key *key, enum cv_jws_alg alg, struct cv_slice input,
                   struct cv_slice signature)
{
    const struct alg_row *row = row_of(alg);
    if (!cv_key_fits(key, alg))
        return false;
    if (key->type == CV_KEY_SECRET) {
        uint8_t mac[CV_SHA256_LEN];
        cv_hmac_sha256(cv_slice(key->secret, key->secret_len), input, mac);
        return cv_equal_ct(cv_slice(mac, sizeof mac), signature);
    }

    uint8_t *der = NULL;
    size_t want_len = row->half ? 2 * (size_t)row->half : (size_t)EVP_PKEY_get_size(key->pkey);
    if (signature.len != want_len)
        return false;
    if (row->half) {
        signature.len = ecdsa_to_der(signature, row->half, &der);
        signature.data = der;
        if (signature.len == 0)
            return false;
    }
    EVP_PKEY_CTX *pkey_ctx = NULL;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool is_right =
        ctx &&
        EVP_DigestVerifyInit_ex(ctx, &pkey_ctx, row->hash, NULL, NULL, key->pkey, NULL) == 1 &&
        set_padding(pkey_ctx, row) &&
        EVP_DigestVerify(ctx, signature.data, signature.len, input.data, input.len) == 1;
    EVP_MD_CTX_free(ctx);
    OPENSSL_free(der);
    ERR_clear_error();
    return is_right;
}

static bool der_to_ecdsa(const uint8_t *der, size_t der_len, unsigned half, uint8_t *out)
{
    ECDSA_SIG *pair = d2i_ECDSA_SIG(NULL, &der, (long)der_len);
    bool is_done = pair && BN_bn2binpad(ECDSA_SIG_get0_r(pair), out, (int)half) == (int)half &&
                   BN_bn2binpad(ECDSA_SIG_get0_s(pair), out + half, (int)half) == (int)half;
    ECDSA_SIG_free(pair);
    return is_done;
}

bool cv_key_sign(const struct cv_key *key, enum cv_jws_alg alg, struct cv_slice input, uint8_t *out,
                 size_t *out_len)
{
    const struct alg_row *row = row_of(alg);
    if (!cv_key_fits(key, alg))
        return false;
    if (key->type == CV_KEY_SECRET) {
        cv_hmac_sha256(cv_slice(key->secret, key->secret_len), input, out);
        *out_len = CV_SHA256_LEN;
        return true;
    }
    uint8_t raw[CV_KEY_MAX_SIGNATURE];
    size_t len = sizeof raw;
    EVP_PKEY_CTX *pkey_ctx = NULL;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool is_signed =
        ctx && EVP_DigestSignInit_ex(ctx, &pkey_ctx, row->hash, NULL, NULL, key->pkey, NULL) == 1 &&
        set_padding(pkey_ctx, row) && EVP_DigestSign(ctx, raw, &len, input.data, input.len) == 1;
    EVP_MD_CTX_free(ctx);
    ERR_clear_error();
    if (!is_signed)
        return false;
    if (row->half) {
        *out_len = 2 * (size_t)row->half;
        return der_to_ecdsa(raw, len, row->half, out);
    }
    memcpy(out, raw, len);
    *out_len = len;
    return true;
}

static bool set_number(json_t *members, const char *name, const EVP_PKEY *pkey, const char *param,
                       int pad_bytes)
{
    uint8_t raw[RSA_MAX_BYTES];
    char text[4 * ((RSA_MAX_BYTES + 2) / 3) + 1];
    BIGNUM *number = NULL;
    if (!EVP_PKEY_get_bn_param(pkey, param, &number))
        return false;
    int len = pad_bytes ? pad_bytes : BN_num_bytes(number);
    bool is_set = len <= (int)sizeof raw && BN_bn2binpad(number, raw, len) == len;
    BN_free(number);
    if (!is_set)
        return false;
    cv_base64url_encode(cv_slice(raw, (size_t)len), text);
    return json_object_set_new(members, name, json_string(text)) == 0;
}

json_t *cv_key_public_members(const struct cv_key *key)
{
    if (!key->pkey)
        return NULL;
    json_t *members = json_object();
    bool is_set;
    if (key->type == CV_KEY_RSA) {
        is_set = set_number(members, "e", key->pkey, OSSL_PKEY_PARAM_RSA_E, 0) &&
                 json_object_set_new(members, "kty", json_string("RSA")) == 0 &&
                 set_number(members, "n", key->pkey, OSSL_PKEY_PARAM_RSA_N, 0);
    } else {
        int bytes = (int)curve_bytes(key->type);
        const char *crv = key->type == CV_KEY_P256 ? "P-256" : "P-384";
        is_set = json_object_set_new(members, "crv", json_string(crv)) == 0 &&
                 json_object_set_new(members, "kty", json_string("EC")) == 0 &&
                 set_number(members, "x", key->pkey, OSSL_PKEY_PARAM_EC_PUB_X, bytes) &&
                 set_number(members, "y", key->pkey, OSSL_PKEY_PARAM_EC_PUB_Y, bytes);
    }
    if (is_set)
        return members;
    json_decref(members);
    return NULL;
}
