/* SPDX-License-Identifier: MIT
 *
 * Known answers: the examples of RFC 7515 appendix A, the thumbprint of RFC 7638 §3.1 by way of a
 * key whose parts RFC 7517 appendix A also shows.
 */
#include "auth/json.h"
#include "auth/jws.h"
#include "auth/key.h"
#include "base/digest.h"
#include "base/test.h"

#define PAYLOAD                                                                                    \
    "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cn"   \
    "VlfQ"
#define PAYLOAD_TEXT                                                                               \
    "{\"iss\":\"joe\",\r\n \"exp\":1300819380,\r\n \"http://example.com/is_root\":true}"

#define SECRET                                                                                     \
    "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"
#define RSA_N                                                                                      \
    "ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0B"   \
    "m4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5"   \
    "z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7"   \
    "aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ"
#define RSA_SIGNATURE                                                                              \
    "cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2F"   \
    "p5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQB"   \
    "MHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeY"   \
    "I2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"

static const struct example {
    const char *section;
    const char *key;
    const char *token;
    enum cv_status_id verdict;
} examples[] = {
    {"A.1", "{\"kty\":\"oct\",\"k\":\"" SECRET "\"}",
     "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9." PAYLOAD
     ".dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
     CV_OK},
    {"A.2", "{\"kty\":\"RSA\",\"e\":\"AQAB\",\"n\":\"" RSA_N "\"}",
     "eyJhbGciOiJSUzI1NiJ9." PAYLOAD "." RSA_SIGNATURE, CV_OK},
    {"A.3",
     "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\","
     "\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\"}",
     "eyJhbGciOiJFUzI1NiJ9." PAYLOAD
     ".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q",
     CV_OK},
    /* ES512 is not among ours: whatever the key, its tokens are refused by name. */
    {"A.4",
     "{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU\","
     "\"y\":\"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0\"}",
     "eyJhbGciOiJFUzUxMiJ9.UGF5bG9hZA.AdwMgeerwtHoh-l192l60hp9wAHZFVJbLfD_UxMi70cwnZOYaRI1bKPWR"
     "Oc-mZZqwqT2SI-KGDKB34XO0aw_7XdtAG8GaSwFKdCAPZgoXD2YBJZCPEX3xKpRwcdOO8KpEHwJjyqOgzDO7iKvU8v"
     "cnwNrmxYbSW9ERBXukOXolLzeO_Jn",
     CV_AUTH_BAD_SIGNATURE},
    /* alg none: a well-formed token of the RFC, and never a valid one. */
    {"A.5", "{\"kty\":\"oct\",\"k\":\"" SECRET "\"}", "eyJhbGciOiJub25lIn0." PAYLOAD ".",
     CV_AUTH_MALFORMED},
};

static struct cv_status verify(const struct example *e, struct cv_slice token,
                               struct cv_buf *payload)
{
    struct cv_jwks *set = NULL;
    assert_ok(cv_jwks_parse(cv_slice_str(e->key), &set, NULL));
    unsigned algs = CV_JWS_ALGS_PUBLIC | CV_JWS_ALG_BIT(CV_JWS_HS256);
    struct cv_status status = cv_jws_verify(token, set, algs, payload, NULL);
    cv_jwks_unref(&set);
    return status;
}

static void rfc_7515_examples_come_out_as_printed(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof examples / sizeof examples[0]; i++) {
        struct cv_buf payload;
        cv_buf_init(&payload, CV_JWS_MAX_BYTES);
        struct cv_status status = verify(&examples[i], cv_slice_str(examples[i].token), &payload);
        if (status.id != examples[i].verdict)
            print_error("%s\n", examples[i].section);
        assert_status(status, examples[i].verdict);
        if (cv_is_ok(status))
            assert_true(cv_slice_is(cv_buf_slice(&payload), PAYLOAD_TEXT));
        cv_buf_done(&payload);
    }
}

/* Each bit of each signature counts. The last character of base64url may have unused bits: they
 * make the text malformed instead. */
static void no_changed_bit_of_a_signature_passes(void **state)
{
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        const struct example *e = &examples[i];
        struct cv_buf payload;
        char token[1024];
        cv_buf_init(&payload, CV_JWS_MAX_BYTES);
        assert_true(cv_slice_to_str(cv_slice_str(e->token), token, sizeof token));
        for (char *at = strrchr(token, '.') + 1; *at; at++) {
            char was = *at;
            *at = was == 'A' ? 'B' : 'A';
            assert_false(cv_is_ok(verify(e, cv_slice_str(token), &payload)));
            *at = was;
        }
        assert_ok(verify(e, cv_slice_str(token), &payload));
        cv_buf_done(&payload);
    }
}

static void the_thumbprint_is_that_of_rfc_7638(void **state)
{
    (void)state;
    static const char jwk[] =
        "{\"kty\":\"RSA\",\"n\":"
        "\"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK"
        "7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h"
        "4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qN"
        "Lyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqD"
        "Kgw\",\"e\":\"AQAB\",\"alg\":\"RS256\",\"kid\":\"2011-04-29\"}";
    struct cv_key key;
    json_t *json = json_loads(jwk, 0, NULL);
    assert_ok(cv_key_from_jwk(json, false, &key, NULL));
    json_t *members = cv_key_public_members(&key);
    char *text = json_dumps(members, JSON_COMPACT);
    uint8_t digest[CV_SHA256_LEN];
    char thumbprint[4 * ((CV_SHA256_LEN + 2) / 3) + 1];
    cv_sha256(cv_slice_str(text), digest);
    cv_base64url_encode(cv_slice(digest, sizeof digest), thumbprint);
    assert_string_equal(thumbprint, "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    free(text);
    json_decref(members);
    json_decref(json);
    cv_key_done(&key);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rfc_7515_examples_come_out_as_printed),
        cmocka_unit_test(no_changed_bit_of_a_signature_passes),
        cmocka_unit_test(the_thumbprint_is_that_of_rfc_7638),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
