/* SPDX-License-Identifier: MIT
 *
 * All Wycheproof vectors for JSON Web Signature and JSON Web Key. They are not part of the tree:
 * the folder is CULVERT_VECTORS, else ../shared/vectors beside the source. Without them the test
 * says so and is reported as skipped.
 *
 * A vector marked invalid has to be refused; one marked valid has to be accepted, unless the
 * algorithm of token or key is none of ours (PS384, PS512, ES512, HS384, HS512), which has to be
 * refused. Two kinds of marks contradict the RFC or each other, and are counted apart:
 *   - "invalid" on a token that is byte for byte that of a "valid" vector of the same key (a
 *     generator that lost the padding it meant to add): goes like its twin;
 *   - "valid" on a token with characters outside the alphabet (RFC 7515 §2): refused.
 */
#include "auth/jws.h"
#include "base/digest.h"
#include "base/test.h"

#include <jansson.h>

#define SKIPPED 77

struct tally {
    unsigned accepted;
    unsigned refused;
    unsigned outside;
    unsigned disputed;
    unsigned wrong;
};

static bool is_ours(const char *name)
{
    enum cv_jws_alg alg;
    return cv_jws_alg_from_name(cv_slice_str(name), &alg);
}

static bool has_foreign_alg(const char *token, const json_t *keys)
{
    size_t index;
    json_t *key;
    json_array_foreach(keys, index, key)
    {
        const char *alg = json_string_value(json_object_get(key, "alg"));
        if (alg && !is_ours(alg))
            return true;
    }
    uint8_t raw[4096];
    size_t len = 0;
    struct cv_slice rest = cv_slice_str(token);
    struct cv_slice part = cv_slice_split(&rest, '.');
    if (part.len > sizeof raw || !cv_base64url_decode(part, raw, &len))
        return false;
    json_t *header = json_loadb((const char *)raw, len, 0, NULL);
    const char *alg = json_string_value(json_object_get(header, "alg"));
    bool is_foreign = alg && !is_ours(alg);
    json_decref(header);
    return is_foreign;
}

static bool has_foreign_characters(const char *token)
{
    return token[strspn(token, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                               "0123456789-_.")] != '\0';
}

static bool has_valid_twin(const json_t *tests, const char *token)
{
    size_t index;
    json_t *test;
    json_array_foreach(tests, index, test)
    {
        if (strcmp(json_string_value(json_object_get(test, "result")), "valid") == 0 &&
            strcmp(json_string_value(json_object_get(test, "jws")), token) == 0)
            return true;
    }
    return false;
}

static bool is_accepted(const json_t *keys_json, const char *token)
{
    char *text = json_dumps(keys_json, 0);
    struct cv_jwks *set = NULL;
    struct cv_buf payload;
    cv_buf_init(&payload, CV_JWS_MAX_BYTES);
    unsigned algs = CV_JWS_ALGS_PUBLIC | CV_JWS_ALG_BIT(CV_JWS_HS256);
    bool accepted = cv_is_ok(cv_jwks_parse(cv_slice_str(text), &set, NULL)) &&
                    cv_is_ok(cv_jws_verify(cv_slice_str(token), set, algs, &payload, NULL));
    cv_buf_done(&payload);
    cv_jwks_unref(&set);
    free(text);
    return accepted;
}

static void run_vector(const json_t *group, const json_t *test, struct tally *tally)
{
    const json_t *source = json_object_get(group, "public");
    if (!source)
        source = json_object_get(group, "private");
    json_t *set = json_object_get(source, "keys") ? json_deep_copy(source) : json_object();
    if (!json_object_get(set, "keys"))
        json_object_set_new(set, "keys", json_pack("[o]", json_deep_copy(source)));

    const char *token = json_string_value(json_object_get(test, "jws"));
    bool is_valid = strcmp(json_string_value(json_object_get(test, "result")), "valid") == 0;
    bool want = is_valid;
    unsigned *count = is_valid ? &tally->accepted : &tally->refused;
    if (is_valid && has_foreign_characters(token)) {
        want = false;
        count = &tally->disputed;
    } else if (!is_valid && has_valid_twin(json_object_get(group, "tests"), token)) {
        want = true;
        count = &tally->disputed;
    } else if (is_valid && has_foreign_alg(token, json_object_get(set, "keys"))) {
        want = false;
        count = &tally->outside;
    }
    if (is_accepted(set, token) == want) {
        (*count)++;
    } else {
        tally->wrong++;
        print_error(
            "case %lld (%s) should be %s\n", json_integer_value(json_object_get(test, "tcId")),
            json_string_value(json_object_get(test, "comment")), want ? "accepted" : "refused");
    }
    json_decref(set);
}

static void run_file(const char *name, struct tally *tally, unsigned *total)
{
    char path[4096];
    const char *folder = getenv("CULVERT_VECTORS");
    snprintf(path, sizeof path, "%s/wycheproof/%s", folder ? folder : CV_VECTORS_DIR, name);
    json_t *root = json_load_file(path, 0, NULL);
    assert_non_null(root);
    size_t g;
    size_t t;
    json_t *group;
    json_t *test;
    json_array_foreach(json_object_get(root, "testGroups"), g, group)
    {
        json_array_foreach(json_object_get(group, "tests"), t, test) run_vector(group, test, tally);
    }
    *total = (unsigned)json_integer_value(json_object_get(root, "numberOfTests"));
    json_decref(root);
    print_message("%s: %u valid accepted, %u invalid refused, %u valid outside the allow-list "
                  "refused, %u with a disputed mark, %u wrong, of %u\n",
                  name, tally->accepted, tally->refused, tally->outside, tally->disputed,
                  tally->wrong, *total);
}

static void every_signature_vector_comes_out_right(void **state)
{
    (void)state;
    struct tally tally = {0};
    unsigned total = 0;
    run_file("json_web_signature_test.json", &tally, &total);
    assert_int_equal(tally.wrong, 0);
    assert_int_equal(tally.accepted + tally.refused + tally.outside + tally.disputed, total);
}

static void every_key_vector_comes_out_right(void **state)
{
    (void)state;
    struct tally tally = {0};
    unsigned total = 0;
    run_file("json_web_key_test.json", &tally, &total);
    assert_int_equal(tally.wrong, 0);
    assert_int_equal(tally.accepted + tally.refused + tally.outside + tally.disputed, total);
}

int main(void)
{
    char path[4096];
    const char *folder = getenv("CULVERT_VECTORS");
    snprintf(path, sizeof path, "%s/wycheproof/json_web_signature_test.json",
             folder ? folder : CV_VECTORS_DIR);
    FILE *probe = fopen(path, "re");
    if (!probe) {
        printf("The Wycheproof vectors are not there (%s): none of them was run.\n", path);
        return SKIPPED;
    }
    fclose(probe);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_signature_vector_comes_out_right),
        cmocka_unit_test(every_key_vector_comes_out_right),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
