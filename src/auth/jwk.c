/* SPDX-License-Identifier: MIT */
#include "auth/jwk.h"

#include "auth/key.h"
#include "base/digest.h"
#include "base/json.h"

#include <stdatomic.h>

#define JWKS_MAX_DEPTH 8

struct cv_jwk {
    struct cv_key key;
    bool has_alg;
    bool has_kid;
    bool is_ambiguous; /* another key has the same kid */
    enum cv_jws_alg alg;
    size_t kid_len;
    char kid[CV_KID_MAX_BYTES + 1];
};

struct cv_jwks {
    atomic_uint refs;
    bool has_secret;
    uint8_t digest[CV_SHA256_LEN]; /* of the bytes it was made from */
    char note[256];
    size_t count;
    struct cv_jwk keys[CV_JWKS_MAX_KEYS];
};

static const char *const alg_names[] = {
#define ALG_NAME(name, ...) #name,
    CV_JWS_ALG_TABLE(ALG_NAME)
#undef ALG_NAME
};

const char *cv_jws_alg_name(enum cv_jws_alg alg)
{
    return (unsigned)alg < CV_JWS_ALG_COUNT ? alg_names[alg] : "?";
}

bool cv_jws_alg_from_name(struct cv_slice name, enum cv_jws_alg *alg)
{
    for (unsigned i = 0; i < CV_JWS_ALG_COUNT; i++) {
        if (cv_slice_is(name, alg_names[i])) {
            *alg = (enum cv_jws_alg)i;
            return true;
        }
    }
    return false;
}

struct cv_jwks *cv_jwks_ref(struct cv_jwks *set)
{
    atomic_fetch_add_explicit(&set->refs, 1, memory_order_relaxed);
    return set;
}

void cv_jwks_unref(struct cv_jwks **set)
{
    struct cv_jwks *old = *set;
    *set = NULL;
    if (!old || atomic_fetch_sub_explicit(&old->refs, 1, memory_order_acq_rel) != 1)
        return;
    for (size_t i = 0; i < old->count; i++)
        cv_key_done(&old->keys[i].key);
    free(old);
}

size_t cv_jwks_count(const struct cv_jwks *set)
{
    size_t usable = 0;
    for (size_t i = 0; i < set->count; i++)
        usable += !set->keys[i].is_ambiguous;
    return usable;
}

bool cv_jwks_has_secret(const struct cv_jwks *set)
{
    return set->has_secret;
}

const char *cv_jwks_note(const struct cv_jwks *set)
{
    return set->note;
}

bool cv_jwks_same(const struct cv_jwks *a, const struct cv_jwks *b)
{
    return memcmp(a->digest, b->digest, sizeof a->digest) == 0;
}

static void set_note(struct cv_jwks *set, size_t index, const char *reason)
{
    if (!set->note[0])
        snprintf(set->note, sizeof set->note, "key %zu skipped: %.200s", index, reason);
}

/* RFC 7517 §4.2 and §4.3: what the key may be used for. Both must allow it when both are there. */
static bool may_verify(const json_t *jwk)
{
    struct cv_slice use;
    if (cv_json_has(jwk, "use") && !(cv_json_string(jwk, "use", &use) && cv_slice_is(use, "sig")))
        return false;
    const json_t *ops = json_object_get(jwk, "key_ops");
    if (!ops)
        return true;
    for (size_t i = 0; i < json_array_size(ops); i++) {
        const char *op = json_string_value(json_array_get(ops, i));
        if (op && strcmp(op, "verify") == 0)
            return true;
    }
    return false;
}

static bool read_kid(const json_t *jwk, struct cv_jwk *out)
{
    struct cv_slice kid;
    if (!cv_json_has(jwk, "kid"))
        return true;
    if (!cv_json_string(jwk, "kid", &kid) || kid.len == 0 ||
        !cv_slice_to_str(kid, out->kid, sizeof out->kid))
        return false;
    out->has_kid = true;
    out->kid_len = kid.len;
    return true;
}

static struct cv_status read_key(const json_t *jwk, struct cv_jwk *out, struct cv_error *error)
{
    struct cv_slice alg;
    *out = (struct cv_jwk){0};
    if (!json_is_object(jwk))
        return cv_fail(error, CV_CONFIG, "no JSON object");
    if (!may_verify(jwk))
        return cv_fail(error, CV_CONFIG, "use or key_ops do not permit verification");
    if (!read_kid(jwk, out))
        return cv_fail(error, CV_CONFIG, "kid is not a string of 1 to %d bytes", CV_KID_MAX_BYTES);
    if (cv_json_has(jwk, "alg")) {
        out->has_alg = cv_json_string(jwk, "alg", &alg) && cv_jws_alg_from_name(alg, &out->alg);
        if (!out->has_alg)
            return cv_fail(error, CV_CONFIG, "alg is not supported");
    }
    CV_RETURN_IF_ERROR(cv_key_from_jwk(jwk, false, &out->key, error));
    if (out->has_alg && !cv_key_fits(&out->key, out->alg)) {
        cv_key_done(&out->key);
        return cv_fail(error, CV_CONFIG, "alg does not fit the key");
    }
    return cv_ok();
}

/* Looks at all keys that are meant for verification, also those skipped for another reason: a token
 * must not pass because the key that it really means is broken. */
static void mark_doubled_kids(struct cv_jwks *set, const json_t *keys)
{
    for (size_t i = 0; i < set->count; i++) {
        struct cv_jwk *key = &set->keys[i];
        unsigned same = 0;
        for (size_t k = 0; key->has_kid && k < json_array_size(keys); k++) {
            const json_t *other = json_array_get(keys, k);
            struct cv_slice kid;
            same += may_verify(other) && cv_json_string(other, "kid", &kid) &&
                    cv_slice_equal(kid, cv_slice(key->kid, key->kid_len));
        }
        key->is_ambiguous = same > 1;
        if (key->is_ambiguous)
            set_note(set, i, "its kid occurs twice in the set");
    }
}

/* A set with secrets and public keys is how HS256 gets checked with somebody's public key. Looks at
 * all keys, the skipped ones too. */
static bool is_mixed(const json_t *keys)
{
    size_t secrets = 0;
    for (size_t i = 0; i < json_array_size(keys); i++) {
        struct cv_slice kty;
        secrets += cv_json_string(json_array_get(keys, i), "kty", &kty) && cv_slice_is(kty, "oct");
    }
    return secrets > 0 && secrets < json_array_size(keys);
}

static struct cv_status fill_set(struct cv_jwks *set, const json_t *keys, struct cv_error *error)
{
    size_t total = json_array_size(keys);
    if (total > CV_JWKS_MAX_KEYS)
        return cv_fail(error, CV_CONFIG, "more than %d keys in the set", CV_JWKS_MAX_KEYS);
    if (is_mixed(keys))
        return cv_fail(error, CV_CONFIG, "secrets and public keys in one set");
    for (size_t i = 0; i < total; i++) {
        struct cv_error why = {0};
        struct cv_jwk *key = &set->keys[set->count];
        struct cv_status status = read_key(json_array_get(keys, i), key, &why);
        if (status.id == CV_NO_MEMORY)
            return status;
        if (cv_is_ok(status)) {
            set->has_secret = set->has_secret || key->key.type == CV_KEY_SECRET;
            set->count++;
        } else {
            set_note(set, i, why.detail);
        }
    }
    mark_doubled_kids(set, keys);
    if (cv_jwks_count(set) == 0)
        return cv_fail(error, CV_CONFIG, "no usable key in the set%s%.200s",
                       set->note[0] ? "; " : "", set->note);
    return cv_ok();
}

static struct cv_jwks *new_set(struct cv_slice source)
{
    struct cv_jwks *set = calloc(1, sizeof *set);
    if (!set)
        return NULL;
    atomic_init(&set->refs, 1);
    cv_sha256(source, set->digest);
    return set;
}

struct cv_status cv_jwks_parse(struct cv_slice json, struct cv_jwks **out, struct cv_error *error)
{
    json_t *root = NULL;
    *out = NULL;
    if (!cv_json_object(json, CV_JWKS_MAX_BYTES, JWKS_MAX_DEPTH, &root))
        return cv_fail(error, CV_CONFIG, "not a JSON object of at most %zu bytes and depth %d",
                       CV_JWKS_MAX_BYTES, JWKS_MAX_DEPTH);

    struct cv_status status;
    json_t *keys = json_incref(json_object_get(root, "keys"));
    if (!keys && cv_json_has(root, "kty")) {
        keys = json_array();
        json_array_append(keys, root);
    }
    struct cv_jwks *set = new_set(json);
    if (!set || !keys)
        status =
            set ? cv_fail(error, CV_CONFIG, "no JWK Set: no member keys") : cv_status(CV_NO_MEMORY);
    else
        status = fill_set(set, keys, error);
    json_decref(keys);
    json_decref(root);
    if (cv_is_ok(status))
        *out = set;
    else
        cv_jwks_unref(&set);
    return status;
}

struct cv_status cv_jwks_from_secret(struct cv_slice secret, struct cv_jwks **out,
                                     struct cv_error *error)
{
    *out = NULL;
    struct cv_jwks *set = new_set(secret);
    if (!set)
        return cv_status(CV_NO_MEMORY);
    struct cv_status status = cv_key_from_secret(secret, &set->keys[0].key, error);
    if (!cv_is_ok(status)) {
        cv_jwks_unref(&set);
        return status;
    }
    set->count = 1;
    set->has_secret = true;
    *out = set;
    return cv_ok();
}

const struct cv_jwk *cv_jwks_find(const struct cv_jwks *set, struct cv_slice kid)
{
    if (set->count == 1 && (!kid.data || !set->keys[0].has_kid))
        return &set->keys[0];
    if (!kid.data)
        return NULL;
    for (size_t i = 0; i < set->count; i++) {
        const struct cv_jwk *key = &set->keys[i];
        if (key->has_kid && !key->is_ambiguous &&
            cv_slice_equal(kid, cv_slice(key->kid, key->kid_len)))
            return key;
    }
    return NULL;
}

bool cv_jwk_fits(const struct cv_jwk *key, enum cv_jws_alg alg)
{
    return cv_key_fits(&key->key, alg) && (!key->has_alg || key->alg == alg);
}

bool cv_jwk_verify(const struct cv_jwk *key, enum cv_jws_alg alg, struct cv_slice input,
                   struct cv_slice signature)
{
    return cv_jwk_fits(key, alg) && cv_key_verify(&key->key, alg, input, signature);
}

/* RFC 7638 for public keys; of a secret a hash that tells nothing of it. */
bool cv_jwk_mark(const struct cv_jwk *key, uint8_t mark[CV_SHA256_LEN])
{
    static const char label[] = "culvert signer";
    uint8_t input[sizeof label + CV_SHA256_LEN];
    if (key->key.type == CV_KEY_SECRET) {
        memcpy(input, label, sizeof label);
        cv_sha256(cv_slice(key->key.secret, key->key.secret_len), input + sizeof label);
        cv_sha256(cv_slice(input, sizeof input), mark);
        cv_wipe(input, sizeof input);
        return true;
    }
    json_t *members = cv_key_public_members(&key->key);
    char *text = members ? cv_json_text(members) : NULL;
    json_decref(members);
    if (!text)
        return false;
    cv_sha256(cv_slice_str(text), mark);
    free(text);
    return true;
}

bool cv_jwks_has_mark(const struct cv_jwks *set, const uint8_t mark[CV_SHA256_LEN])
{
    bool has = false;
    for (size_t i = 0; i < set->count && !has; i++) {
        uint8_t other[CV_SHA256_LEN];
        /* Without memory nobody's key counts as gone. */
        has = !set->keys[i].is_ambiguous &&
              (!cv_jwk_mark(&set->keys[i], other) || memcmp(other, mark, sizeof other) == 0);
    }
    return has;
}
