/* SPDX-License-Identifier: MIT */
#include "auth/jws.h"
#include "auth/jwt.h"
#include "auth/sign.h"
#include "base/test.h"

#define NOW 1700000000
#define GOOD "\"iss\":\"https://issuer.example/\",\"aud\":\"relay\",\"sub\":\"alice\""

static const char *const audiences[] = {"relay", "other-name"};

struct fixture {
    struct cv_signing_key *key;
    struct cv_jwks *set;
    struct cv_auth_policy policy;
};

static int setup(void **state)
{
    static struct fixture f;
    struct cv_slice secret = cv_slice_str("0123456789abcdef0123456789abcdef");
    assert_ok(cv_signing_key_from_secret(secret, &f.key, NULL));
    assert_ok(cv_jwks_from_secret(secret, &f.set, NULL));
    cv_auth_policy_init(&f.policy);
    f.policy.algs = CV_JWS_ALG_BIT(CV_JWS_HS256);
    f.policy.issuer = "https://issuer.example/";
    f.policy.audiences = audiences;
    f.policy.audience_count = 2;
    f.policy.skew_s = 10;
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    cv_signing_key_free(&f->key);
    cv_jwks_unref(&f->set);
    return 0;
}

static enum cv_status_id verdict(struct fixture *f, const char *claims, int64_t now_s,
                                 struct cv_identity **out)
{
    struct cv_buf token;
    struct cv_identity *identity = NULL;
    struct cv_error error = {0};
    cv_buf_init(&token, CV_JWS_MAX_BYTES);
    assert_ok(cv_jws_sign(f->key, cv_slice_str(claims), &token));
    struct cv_status status =
        cv_jwt_verify(&f->policy, f->set, cv_buf_slice(&token), now_s, &identity, &error);
    assert_int_equal(cv_is_ok(status), identity != NULL);
    assert_int_equal(cv_is_ok(status), error.detail[0] == '\0');
    cv_buf_done(&token);
    if (out)
        *out = identity;
    else
        cv_identity_unref(&identity);
    return status.id;
}

static void claim_rules(void **state)
{
#define EXP ",\"exp\":1700000100}"
    static const struct {
        const char *claims;
        enum cv_status_id want;
    } cases[] = {
        {"{" GOOD EXP, CV_OK},
        {"{" GOOD ",\"exp\":1700000100.5}", CV_OK},
        {"{" GOOD ",\"nbf\":0,\"iat\":1699999999,\"jti\":\"x\"" EXP, CV_OK},
        /* exp */
        {"{" GOOD "}", CV_AUTH_MALFORMED},
        {"{" GOOD ",\"exp\":null}", CV_AUTH_MALFORMED},
        {"{" GOOD ",\"exp\":\"1700000100\"}", CV_AUTH_MALFORMED},
        {"{" GOOD ",\"exp\":-1}", CV_AUTH_MALFORMED},
        {"{" GOOD ",\"exp\":-0.5}", CV_AUTH_MALFORMED},
        {"{" GOOD ",\"exp\":1e400}", CV_AUTH_MALFORMED},
        {"{" GOOD ",\"exp\":1e300}", CV_AUTH_MALFORMED},
        {"{" GOOD ",\"exp\":9223372036854775807}", CV_AUTH_MALFORMED},
        {"{" GOOD ",\"exp\":99999999999999999999}", CV_AUTH_MALFORMED},
        {"{" GOOD ",\"exp\":253402300800}", CV_AUTH_MALFORMED},
        {"{" GOOD ",\"exp\":true}", CV_AUTH_MALFORMED},
        {"{" GOOD ",\"exp\":[1700000100]}", CV_AUTH_MALFORMED},
        {"{" GOOD ",\"exp\":1700000100,\"exp\":1700000100}", CV_AUTH_MALFORMED},
        {"{" GOOD ",\"exp\":0}", CV_AUTH_EXPIRED},
        {"{" GOOD ",\"exp\":1600000000}", CV_AUTH_EXPIRED},
        /* nbf, iat */
        {"{" GOOD ",\"nbf\":\"0\"" EXP, CV_AUTH_MALFORMED},
        {"{" GOOD ",\"nbf\":1e99" EXP, CV_AUTH_MALFORMED},
        {"{" GOOD ",\"iat\":\"now\"" EXP, CV_AUTH_MALFORMED},
        {"{" GOOD ",\"iat\":-5" EXP, CV_AUTH_MALFORMED},
        {"{" GOOD ",\"nbf\":1700000050" EXP, CV_AUTH_NOT_YET_VALID},
        {"{" GOOD ",\"iat\":1700000050" EXP, CV_AUTH_NOT_YET_VALID},
        /* iss */
        {"{\"aud\":\"relay\",\"sub\":\"a\"" EXP, CV_AUTH_WRONG_ISSUER},
        {"{\"iss\":\"https://issuer.example\",\"aud\":\"relay\",\"sub\":\"a\"" EXP,
         CV_AUTH_WRONG_ISSUER},
        {"{\"iss\":\"https://Issuer.example/\",\"aud\":\"relay\",\"sub\":\"a\"" EXP,
         CV_AUTH_WRONG_ISSUER},
        {"{\"iss\":\"https://issuer.example//\",\"aud\":\"relay\",\"sub\":\"a\"" EXP,
         CV_AUTH_WRONG_ISSUER},
        {"{\"iss\":\"https://\xd1\x96ssuer.example/\",\"aud\":\"relay\",\"sub\":\"a\"" EXP,
         CV_AUTH_WRONG_ISSUER},
        {"{\"iss\":[\"https://issuer.example/\"],\"aud\":\"relay\",\"sub\":\"a\"" EXP,
         CV_AUTH_MALFORMED},
        {"{\"iss\":\"https://issuer.example/\\u0000\",\"aud\":\"relay\",\"sub\":\"a\"" EXP,
         CV_AUTH_MALFORMED},
        /* aud */
        {"{\"iss\":\"https://issuer.example/\",\"sub\":\"a\"" EXP, CV_AUTH_WRONG_AUDIENCE},
        {"{\"iss\":\"https://issuer.example/\",\"sub\":\"a\",\"aud\":\"Relay\"" EXP,
         CV_AUTH_WRONG_AUDIENCE},
        {"{\"iss\":\"https://issuer.example/\",\"sub\":\"a\",\"aud\":\"\"" EXP,
         CV_AUTH_WRONG_AUDIENCE},
        {"{\"iss\":\"https://issuer.example/\",\"sub\":\"a\",\"aud\":\"relay other\"" EXP,
         CV_AUTH_WRONG_AUDIENCE},
        {"{\"iss\":\"https://issuer.example/\",\"sub\":\"a\",\"aud\":[]" EXP,
         CV_AUTH_WRONG_AUDIENCE},
        {"{\"iss\":\"https://issuer.example/\",\"sub\":\"a\",\"aud\":[\"x\",\"y\"]" EXP,
         CV_AUTH_WRONG_AUDIENCE},
        {"{\"iss\":\"https://issuer.example/\",\"sub\":\"a\",\"aud\":[\"x\",\"relay\"]" EXP, CV_OK},
        {"{\"iss\":\"https://issuer.example/\",\"sub\":\"a\",\"aud\":\"other-name\"" EXP, CV_OK},
        {"{\"iss\":\"https://issuer.example/\",\"sub\":\"a\",\"aud\":[\"relay\",7]" EXP,
         CV_AUTH_MALFORMED},
        {"{\"iss\":\"https://issuer.example/\",\"sub\":\"a\",\"aud\":{\"relay\":1}" EXP,
         CV_AUTH_MALFORMED},
        {"{\"iss\":\"https://issuer.example/\",\"sub\":\"a\",\"aud\":7" EXP, CV_AUTH_MALFORMED},
        /* sub, jti */
        {"{\"iss\":\"https://issuer.example/\",\"aud\":\"relay\"" EXP, CV_AUTH_MALFORMED},
        {"{\"iss\":\"https://issuer.example/\",\"aud\":\"relay\",\"sub\":\"\"" EXP,
         CV_AUTH_MALFORMED},
        {"{\"iss\":\"https://issuer.example/\",\"aud\":\"relay\",\"sub\":7" EXP, CV_AUTH_MALFORMED},
        {"{\"iss\":\"https://issuer.example/\",\"aud\":\"relay\",\"sub\":\"a\\nb\"" EXP,
         CV_AUTH_MALFORMED},
        {"{\"iss\":\"https://issuer.example/\",\"aud\":\"relay\",\"sub\":\"a\\u007f\"" EXP,
         CV_AUTH_MALFORMED},
        {"{\"iss\":\"https://issuer.example/\",\"aud\":\"relay\",\"sub\":\"a\\u0085\"" EXP,
         CV_AUTH_MALFORMED},
        {"{\"iss\":\"https://issuer.example/\",\"aud\":\"relay\",\"sub\":\"a\\u0000b\"" EXP,
         CV_AUTH_MALFORMED},
        {"{\"iss\":\"https://issuer.example/\",\"aud\":\"relay\",\"sub\":\"auth0|\xc3\xbc\"" EXP,
         CV_OK},
        {"{" GOOD ",\"jti\":7" EXP, CV_AUTH_MALFORMED},
        {"{" GOOD ",\"sub\":\"bob\"" EXP, CV_AUTH_MALFORMED},
        /* rights */
        {"{" GOOD ",\"tier\":7" EXP, CV_AUTH_MALFORMED},
        {"{" GOOD ",\"tier\":\"gold\"" EXP, CV_OK},
        {"{" GOOD ",\"tier\":null" EXP, CV_OK},
        {"{" GOOD ",\"permissions\":{\"admin\":true}" EXP, CV_AUTH_MALFORMED},
        {"{" GOOD ",\"permissions\":[7]" EXP, CV_AUTH_MALFORMED},
        {"{" GOOD ",\"tunnels\":7" EXP, CV_AUTH_MALFORMED},
        {"{" GOOD ",\"tunnels\":[\"Home\"]" EXP, CV_AUTH_MALFORMED},
        {"{" GOOD ",\"tunnels\":[\"../x\"]" EXP, CV_AUTH_MALFORMED},
        {"{" GOOD ",\"tunnels\":[\"a\",[]]" EXP, CV_AUTH_MALFORMED},
        /* no object at all */
        {"[]", CV_AUTH_MALFORMED},
        {"", CV_AUTH_MALFORMED},
        {"{" GOOD EXP "{}", CV_AUTH_MALFORMED},
        {"{" GOOD ",\"x\":[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]" EXP, CV_AUTH_MALFORMED},
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        enum cv_status_id got = verdict(f, cases[i].claims, NOW, NULL);
        if (got != cases[i].want)
            fail_msg("%s: %s, not %s", cases[i].claims, cv_status_name(got),
                     cv_status_name(cases[i].want));
    }
}

static void boundaries_are_right_to_the_second(void **state)
{
    struct fixture *f = *state;
    static const char claims[] = "{" GOOD ",\"nbf\":1700000000,\"exp\":1700000100}";
    assert_int_equal(verdict(f, claims, 1700000000 - 11, NULL), CV_AUTH_NOT_YET_VALID);
    assert_int_equal(verdict(f, claims, 1700000000 - 10, NULL), CV_OK);
    assert_int_equal(verdict(f, claims, 1700000100 + 9, NULL), CV_OK);
    assert_int_equal(verdict(f, claims, 1700000100 + 10, NULL), CV_AUTH_EXPIRED);
    f->policy.skew_s = 0;
    assert_int_equal(verdict(f, claims, 1699999999, NULL), CV_AUTH_NOT_YET_VALID);
    assert_int_equal(verdict(f, claims, 1700000000, NULL), CV_OK);
    assert_int_equal(verdict(f, claims, 1700000099, NULL), CV_OK);
    assert_int_equal(verdict(f, claims, 1700000100, NULL), CV_AUTH_EXPIRED);
}

static void max_age_ends_a_token_early_and_needs_iat(void **state)
{
    struct fixture *f = *state;
    static const char claims[] = "{" GOOD ",\"iat\":1700000000,\"exp\":1700086400}";
    struct cv_identity *identity = NULL;
    f->policy.max_age_s = 3600;
    assert_int_equal(verdict(f, "{" GOOD ",\"exp\":1700000100}", NOW, NULL), CV_AUTH_MALFORMED);
    assert_int_equal(verdict(f, claims, NOW + 3609, NULL), CV_OK);
    assert_int_equal(verdict(f, claims, NOW + 3610, NULL), CV_AUTH_EXPIRED);
    assert_int_equal(verdict(f, claims, NOW, &identity), CV_OK);
    assert_int_equal(identity->expires_s, 1700086400);
    assert_int_equal(identity->valid_until_s, NOW + 3610);
    cv_identity_unref(&identity);
}

static void identity_says_what_the_token_says(void **state)
{
    struct fixture *f = *state;
    struct cv_identity *a = NULL;
    struct cv_identity *b = NULL;
    assert_int_equal(verdict(f,
                             "{" GOOD ",\"exp\":1700000100,\"iat\":1699999990,\"jti\":\"id\","
                             "\"tier\":\"premium\",\"permissions\":[\"x\",\"admin\"],"
                             "\"tunnels\":[\"home\",\"lab-2\"]}",
                             NOW, &a),
                     CV_OK);
    assert_string_equal(a->subject, "alice");
    assert_string_equal(a->issuer, "https://issuer.example/");
    assert_string_equal(a->jti, "id");
    assert_string_equal(a->tier, "premium");
    assert_true(a->is_admin);
    assert_int_equal(a->issued_s, 1699999990);
    assert_int_equal(a->expires_s, 1700000100);
    assert_int_equal(a->valid_until_s, 1700000110);
    assert_true(cv_identity_may_use_tunnel(a, cv_slice_str("home")));
    assert_true(cv_identity_may_use_tunnel(a, cv_slice_str("lab-2")));
    assert_false(cv_identity_may_use_tunnel(a, cv_slice_str("lab")));
    assert_false(cv_identity_may_use_tunnel(a, cv_slice_str("")));

    assert_int_equal(verdict(f, "{" GOOD ",\"exp\":1700000100}", NOW, &b), CV_OK);
    assert_string_equal(b->tier, "");
    assert_false(b->is_admin);
    assert_true(cv_identity_may_use_tunnel(b, cv_slice_str("anything")));
    assert_true(cv_identity_is_same_user(a, b));
    cv_identity_unref(&b);

    f->policy.issuer = "https://other.example/";
    assert_int_equal(verdict(f,
                             "{\"iss\":\"https://other.example/\",\"aud\":\"relay\","
                             "\"sub\":\"alice\",\"exp\":1700000100}",
                             NOW, &b),
                     CV_OK);
    assert_false(cv_identity_is_same_user(a, b));
    cv_identity_unref(&a);
    cv_identity_unref(&b);
    cv_identity_unref(&b);
}

static void an_empty_list_of_tunnels_means_none(void **state)
{
    struct fixture *f = *state;
    struct cv_identity *identity = NULL;
    assert_int_equal(verdict(f, "{" GOOD ",\"exp\":1700000100,\"tunnels\":[]}", NOW, &identity),
                     CV_OK);
    assert_false(cv_identity_may_use_tunnel(identity, cv_slice_str("home")));
    cv_identity_unref(&identity);
}

static void claims_have_configurable_names(void **state)
{
    struct fixture *f = *state;
    struct cv_identity *identity = NULL;
    f->policy.tier_claim = "https://example.com/tier";
    f->policy.permissions_claim = "realm_access.roles";
    f->policy.tunnels_claim = "scope";
    f->policy.admin_permission = "relay:admin";
    assert_int_equal(verdict(f,
                             "{" GOOD ",\"exp\":1700000100,\"tier\":\"premium\","
                             "\"https://example.com/tier\":\"enterprise\","
                             "\"realm_access\":{\"roles\":[\"relay:admin\"]},"
                             "\"permissions\":[7],\"scope\":\"home  lab\"}",
                             NOW, &identity),
                     CV_OK);
    assert_string_equal(identity->tier, "enterprise");
    assert_true(identity->is_admin);
    assert_int_equal(identity->tunnel_count, 2);
    assert_true(cv_identity_may_use_tunnel(identity, cv_slice_str("lab")));
    cv_identity_unref(&identity);
    /* A path that leads through something that is no object leads nowhere. */
    assert_int_equal(
        verdict(f, "{" GOOD ",\"exp\":1700000100,\"realm_access\":\"roles\"}", NOW, &identity),
        CV_OK);
    assert_false(identity->is_admin);
    cv_identity_unref(&identity);
}

static void too_many_tunnels_are_refused(void **state)
{
    struct fixture *f = *state;
    char claims[2048];
    for (int count = 64; count <= 65; count++) {
        int len =
            snprintf(claims, sizeof claims, "{" GOOD ",\"exp\":1700000100,\"tunnels\":[\"t0\"");
        for (int i = 1; i < count; i++)
            len += snprintf(claims + len, sizeof claims - (size_t)len, ",\"t%d\"", i);
        snprintf(claims + len, sizeof claims - (size_t)len, "]}");
        assert_int_equal(verdict(f, claims, NOW, NULL), count == 64 ? CV_OK : CV_AUTH_MALFORMED);
    }
}

static void deep_claims_cost_nothing(void **state)
{
    struct fixture *f = *state;
    char claims[6000];
    memset(claims, '[', sizeof claims);
    claims[sizeof claims - 1] = '\0';
    assert_int_equal(verdict(f, claims, NOW, NULL), CV_AUTH_MALFORMED);
}

static void issued_tokens_are_what_verification_wants(void **state)
{
    struct fixture *f = *state;
    static const char *const tunnels[] = {"home", "lab"};
    struct cv_token_request request = {.issuer = "https://issuer.example/",
                                       .audience = "relay",
                                       .subject = "bob \"the\" \\ builder",
                                       .tier = "enterprise",
                                       .is_admin = true,
                                       .tunnels = tunnels,
                                       .tunnel_count = 2,
                                       .now_s = NOW,
                                       .ttl_s = 60};
    struct cv_buf token;
    struct cv_identity *identity = NULL;
    cv_buf_init(&token, CV_JWS_MAX_BYTES);
    assert_ok(cv_token_issue(f->key, &request, &token, NULL));
    assert_ok(cv_jwt_verify(&f->policy, f->set, cv_buf_slice(&token), NOW, &identity, NULL));
    assert_string_equal(identity->subject, request.subject);
    assert_string_equal(identity->tier, "enterprise");
    assert_true(identity->is_admin);
    assert_true(cv_identity_may_use_tunnel(identity, cv_slice_str("lab")));
    assert_false(cv_identity_may_use_tunnel(identity, cv_slice_str("other")));
    assert_int_equal(strlen(identity->jti), 32);
    cv_identity_unref(&identity);
    cv_buf_consume(&token, cv_buf_len(&token));

    struct cv_error error = {0};
    struct cv_token_request bad = request;
    bad.subject = "";
    assert_status(cv_token_issue(f->key, &bad, &token, &error), CV_INVALID);
    bad.subject = "a\xff";
    assert_status(cv_token_issue(f->key, &bad, &token, &error), CV_INVALID);
    bad = request;
    bad.ttl_s = 0;
    assert_status(cv_token_issue(f->key, &bad, &token, &error), CV_INVALID);
    bad.ttl_s = INT64_MAX;
    assert_status(cv_token_issue(f->key, &bad, &token, &error), CV_INVALID);
    static const char *const wrong[] = {"UPPER"};
    bad = request;
    bad.tunnels = wrong;
    bad.tunnel_count = 1;
    assert_status(cv_token_issue(f->key, &bad, &token, &error), CV_INVALID);
    assert_int_equal(cv_buf_len(&token), 0);
    cv_buf_done(&token);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(claim_rules, setup, teardown),
        cmocka_unit_test_setup_teardown(boundaries_are_right_to_the_second, setup, teardown),
        cmocka_unit_test_setup_teardown(max_age_ends_a_token_early_and_needs_iat, setup, teardown),
        cmocka_unit_test_setup_teardown(identity_says_what_the_token_says, setup, teardown),
        cmocka_unit_test_setup_teardown(an_empty_list_of_tunnels_means_none, setup, teardown),
        cmocka_unit_test_setup_teardown(claims_have_configurable_names, setup, teardown),
        cmocka_unit_test_setup_teardown(too_many_tunnels_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(deep_claims_cost_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(issued_tokens_are_what_verification_wants, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
