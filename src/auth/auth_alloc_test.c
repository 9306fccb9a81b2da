/* SPDX-License-Identifier: MIT
 *
 * Every allocation from a set of keys to an accepted token fails once, jansson's among them: no
 * identity without a whole check, no leak. Those of OpenSSL go on.
 */
#include "auth/auth.h"
#include "auth/sign.h"
#include "base/alloc_test.h"
#include "base/json.h"
#include "base/test.h"

#define NOW_S 1700000000

struct material {
    struct cv_buf jwks, token;
};

static void make(struct material *m)
{
    struct cv_signing_key *key;
    static const char *const tunnels[] = {"home", "away"};
    struct cv_token_request request = {.issuer = "issuer",
                                       .audience = "relay",
                                       .subject = "alice",
                                       .tunnels = tunnels,
                                       .tunnel_count = 2,
                                       .now_s = NOW_S,
                                       .ttl_s = 100};
    cv_buf_init(&m->jwks, 8192);
    cv_buf_init(&m->token, 8192);
    assert_ok(cv_signing_key_generate(&key));
    assert_ok(cv_signing_key_to_jwks(key, &m->jwks));
    assert_ok(cv_token_issue(key, &request, &m->token, NULL));
    cv_signing_key_free(&key);
}

/* Whether the token was accepted; twice, the second time from the cache. */
static bool check(const struct material *m)
{
    static const char *const audiences[] = {"relay"};
    struct cv_auth_policy policy;
    struct cv_keysource *source = NULL;
    struct cv_token_cache *cache = NULL;
    struct cv_identity *first = NULL, *second = NULL;
    cv_auth_policy_init(&policy);
    policy.issuer = "issuer";
    policy.audiences = audiences;
    policy.audience_count = 1;
    struct cv_status status = cv_keysource_new_url(NULL, &source);
    if (cv_is_ok(status))
        status = cv_token_cache_new(16, 60000, &cache);
    if (cv_is_ok(status) && cv_keysource_is_due(source, 0))
        status = cv_keysource_fetched(source, cv_buf_slice(&m->jwks), 0, NULL);
    if (cv_is_ok(status))
        status =
            cv_auth_check(&policy, source, cache, cv_buf_slice(&m->token), NOW_S, 0, &first, NULL);
    assert_int_equal(cv_is_ok(status), first != NULL);
    if (cv_is_ok(status))
        status =
            cv_auth_check(&policy, source, cache, cv_buf_slice(&m->token), NOW_S, 1, &second, NULL);
    if (second)
        assert_string_equal(second->subject, "alice");
    cv_identity_unref(&first);
    cv_identity_unref(&second);
    cv_token_cache_free(&cache);
    cv_keysource_free(&source);
    return cv_is_ok(status);
}

static void every_allocation_may_fail(void **state)
{
    struct material *m = *state;
    size_t n = 0;
    bool has_failed;
    do {
        cv_test_alloc_fail_at(++n);
        bool is_accepted = check(m);
        has_failed = cv_test_alloc_stop();
        assert_true(is_accepted || has_failed);
        assert_true(check(m)); /* what failed before leaves nothing behind */
    } while (has_failed);
    assert_true(n > 20);
}

int main(void)
{
    static struct material m;
    const struct CMUnitTest tests[] = {cmocka_unit_test_prestate(every_allocation_may_fail, &m)};
    cv_json_init_with(cv_test_malloc, cv_test_free);
    make(&m);
    int failed = cmocka_run_group_tests_name("auth_alloc", tests, NULL, NULL);
    cv_buf_done(&m.jwks);
    cv_buf_wipe(&m.token);
    return failed;
}
