/* SPDX-License-Identifier: MIT
 *
 * Descriptions of tunnels: what is refused, then what is taken, then what rules let through.
 */
#include "auth/identity.h"
#include "base/test.h"
#include "relay/tunnel.h"

#include <stdio.h>
#include <stdlib.h>

#define COUNT(a) (sizeof(a) / sizeof(a)[0])

static void descriptions_that_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "home",
        "null",
        "[]",
        "{",
        "{\"name\": \"home\"} x",
        "{}",
        "{\"name\": 1}",
        "{\"name\": \"\"}",
        "{\"name\": \"Home\"}",
        "{\"name\": \"-home\"}",
        "{\"name\": \"home-\"}",
        "{\"name\": \"a.b\"}",
        "{\"name\": \"a/b\"}",
        "{\"name\": \"ho\\u0000me\"}",
        "{\"name\": \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\"}",
        "{\"name\": \"home\", \"name\": \"away\"}",
        "{\"name\": \"home\", \"kind\": \"ftp\"}",
        "{\"name\": \"home\", \"kind\": \"hurl\"}",
        "{\"name\": \"home\", \"kind\": 1}",
        "{\"name\": \"home\", \"host\": \"\"}",
        "{\"name\": \"home\", \"host\": \"a b\"}",
        "{\"name\": \"home\", \"host\": \"a\\r\\nX: y\"}",
        "{\"name\": \"home\", \"host\": \"a:99999\"}",
        "{\"name\": \"home\", \"host\": \"a/b\"}",
        "{\"name\": \"home\", \"host\": \"user@a\"}",
        "{\"name\": \"home\", \"preset\": \"a-preset-without-end\"}",
        "{\"name\": \"home\", \"concurrency\": -1}",
        "{\"name\": \"home\", \"concurrency\": 1.5}",
        "{\"name\": \"home\", \"concurrency\": \"1\"}",
        "{\"name\": \"home\", \"concurrency\": 10001}",
        "{\"name\": \"home\", \"first_byte_ms\": 99999999999}",
        "{\"name\": \"home\", \"idle_ms\": true}",
        "{\"name\": \"home\", \"pass_authorization\": 1}",
        "{\"name\": \"home\", \"allow\": \"GET /\"}",
        "{\"name\": \"home\", \"allow\": {\"0\": \"GET /\"}}",
        "{\"name\": \"home\", \"allow\": [1]}",
        "{\"name\": \"home\", \"canary\": false}",
        "{\"name\": \"home\", \"canary\": \"\"}",
        "{\"name\": \"home\", \"canary\": \"on\"}",
        "{\"name\": \"home\", \"canary\": \"health\"}",
        "{\"name\": \"home\", \"canary\": \"/a b\"}",
        "{\"name\": \"home\", \"canary\": \"/a\\r\\nX: y\"}",
        "{\"name\": \"home\", \"canary\": \"/a#b\"}",
        "{\"name\": \"home\", \"public\": 1}",
        "{\"name\": \"home\", \"share\": \"bob\"}",
        "{\"name\": \"home\", \"share\": {\"0\": \"bob\"}}",
        "{\"name\": \"home\", \"share\": [1]}",
        "{\"name\": \"home\", \"share\": [\"\"]}",
        "{\"name\": \"home\", \"share\": [\"group:\"]}",
        "{\"name\": \"home\", \"share\": [\"sub:\"]}",
        "{\"name\": \"home\", \"share\": [\"a\\u0000b\"]}",
        "{\"name\": \"home\", \"share\": [\"a\\nb\"]}",
        "{\"name\": \"home\", \"kind\": \"tcp\", \"share\": [\"bob\"]}",
        "{\"name\": \"home\", \"kind\": \"tcp\", \"public\": true}",
        "{\"name\": \"home\", \"allow\": [\"\"]}",
        "{\"name\": \"home\", \"allow\": [\"GET\"]}",
        "{\"name\": \"home\", \"allow\": [\"/path\"]}",
        "{\"name\": \"home\", \"allow\": [\"GET path\"]}",
        "{\"name\": \"home\", \"allow\": [\"GET /a*b\"]}",
        "{\"name\": \"home\", \"allow\": [\"G T /\"]}",
        "{\"name\": \"home\", \"allow\": [\"G,T /\"]}",
        "{\"name\": \"home\", \"allow\": [\"GET /a\\u0000\"]}",
    };
    for (size_t i = 0; i < COUNT(bad); i++) {
        struct cv_tunnel_spec *spec = (struct cv_tunnel_spec *)1;
        struct cv_error error = {0};
        struct cv_status status = cv_tunnel_spec_parse(cv_slice_str(bad[i]), &spec, &error);
        if (status.id != CV_INVALID || spec)
            fail_msg("%s was taken", bad[i]);
        assert_true(error.detail[0] != 0);
    }
}

static void a_description_has_a_size_limit(void **state)
{
    (void)state;
    enum { LEN = 17000 };
    char *text = malloc(LEN);
    assert_non_null(text);
    memset(text, ' ', LEN);
    memcpy(text, "{\"name\":\"home\"}", 15);
    struct cv_tunnel_spec *spec;
    struct cv_error error;
    assert_status(cv_tunnel_spec_parse(cv_slice(text, LEN), &spec, &error), CV_INVALID);
    assert_ok(cv_tunnel_spec_parse(cv_slice(text, 16000), &spec, &error));
    cv_tunnel_spec_unref(&spec);
    free(text);
}

static struct cv_tunnel_spec *parse(const char *json)
{
    struct cv_tunnel_spec *spec;
    struct cv_error error = {0};
    if (!cv_is_ok(cv_tunnel_spec_parse(cv_slice_str(json), &spec, &error)))
        fail_msg("%s: %s", json, error.detail);
    return spec;
}

static void rules_have_a_count_limit(void **state)
{
    (void)state;
    for (int count = CV_TUNNEL_RULES_MAX; count <= CV_TUNNEL_RULES_MAX + 1; count++) {
        char text[2048] = "{\"name\":\"home\",\"allow\":[\"GET /\"";
        size_t len = strlen(text);
        for (int i = 1; i < count; i++)
            len += (size_t)snprintf(text + len, sizeof text - len, ",\"GET /%d\"", i);
        (void)snprintf(text + len, sizeof text - len, "]}");
        struct cv_tunnel_spec *spec;
        struct cv_error error;
        assert_status(cv_tunnel_spec_parse(cv_slice_str(text), &spec, &error),
                      count > CV_TUNNEL_RULES_MAX ? CV_INVALID : CV_OK);
        cv_tunnel_spec_unref(&spec);
    }
}

static void members_and_their_defaults(void **state)
{
    (void)state;
    struct cv_tunnel_spec *spec = parse("{\"name\": \"home\", \"unknown\": [1]}");
    assert_string_equal(spec->name, "home");
    assert_int_equal(spec->kind, CV_TUNNEL_HTTP);
    assert_string_equal(spec->host, "localhost");
    assert_string_equal(spec->preset, "none");
    assert_int_equal(spec->rule_count, 0);
    assert_false(spec->has_timers[0] || spec->has_timers[1] || spec->has_timers[2]);
    assert_true(spec->passes_authorization);
    cv_tunnel_spec_unref(&spec);
    assert_null(spec);

    spec = parse("{\"name\":\"db\",\"kind\":\"tcp\",\"host\":\"[::1]:5432\",\"preset\":\"ollama\","
                 "\"concurrency\":3,\"first_byte_ms\":0,\"idle_ms\":5,\"total_ms\":86400000,"
                 "\"pass_authorization\":false,\"allow\":[]}");
    assert_int_equal(spec->kind, CV_TUNNEL_TCP);
    assert_string_equal(spec->host, "[::1]:5432");
    assert_string_equal(spec->preset, "ollama");
    assert_int_equal(spec->concurrency, 3);
    assert_true(spec->has_timers[0] && spec->has_timers[1] && spec->has_timers[2]);
    assert_int_equal(spec->first_byte_ms, 0);
    assert_int_equal(spec->idle_ms, 5);
    assert_int_equal(spec->total_ms, 86400000);
    assert_false(spec->passes_authorization);
    struct cv_tunnel_spec *other = cv_tunnel_spec_ref(spec);
    cv_tunnel_spec_unref(&spec);
    assert_string_equal(other->name, "db");
    cv_tunnel_spec_unref(&other);
}

static void defaults_of_a_foreign_publisher(void **state)
{
    (void)state;
    struct cv_tunnel_spec *spec;
    assert_status(cv_tunnel_spec_default(cv_slice_str("No"), CV_TUNNEL_HTTP, &spec), CV_INVALID);
    assert_null(spec);
    assert_ok(cv_tunnel_spec_default(cv_slice_str("home"), CV_TUNNEL_TCP, &spec));
    assert_int_equal(spec->kind, CV_TUNNEL_TCP);
    assert_string_equal(spec->host, "localhost");
    cv_tunnel_spec_unref(&spec);
}

static void what_makes_specs_the_same(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "{\"name\":\"home\",\"allow\":[\"GET /a\"]}",
        "{\"name\":\"home\",\"allow\":[\"GET /a*\"]}",
        "{\"name\":\"home\",\"allow\":[\"* /a\"]}",
        "{\"name\":\"home\"}",
        "{\"name\":\"home\",\"kind\":\"tcp\"}",
        "{\"name\":\"home\",\"host\":\"h\"}",
        "{\"name\":\"home\",\"preset\":\"p\"}",
        "{\"name\":\"home\",\"pass_authorization\":false}",
    };
    for (size_t i = 0; i < COUNT(texts); i++)
        for (size_t j = 0; j < COUNT(texts); j++) {
            struct cv_tunnel_spec *a = parse(texts[i]), *b = parse(texts[j]);
            assert_int_equal(cv_tunnel_spec_is_same(a, b), i == j);
            cv_tunnel_spec_unref(&a);
            cv_tunnel_spec_unref(&b);
        }
}

static bool allows(const struct cv_tunnel_spec *spec, const char *method, const char *path)
{
    return cv_tunnel_spec_allows(spec, cv_slice_str(method), cv_slice_str(path));
}

static void rules_let_through_what_they_say(void **state)
{
    (void)state;
    struct cv_tunnel_spec *spec = parse("{\"name\":\"home\",\"allow\":[\"POST /api/chat\","
                                        "\"GET /api/tags\",\"* /v1/*\"]}");
    assert_true(allows(spec, "POST", "/api/chat"));
    assert_true(allows(spec, "GET", "/api/tags"));
    assert_true(allows(spec, "DELETE", "/v1/"));
    assert_true(allows(spec, "GET", "/v1/models/x"));
    assert_true(allows(spec, "GET", "/api/%74ags"));
    assert_true(allows(spec, "GET", "//api/tags"));
    assert_false(allows(spec, "GET", "/api/chat"));
    assert_false(allows(spec, "post", "/api/chat"));
    assert_false(allows(spec, "POST", "/api/chat/"));
    assert_false(allows(spec, "POST", "/api/chatter"));
    assert_false(allows(spec, "POST", "/API/chat"));
    assert_false(allows(spec, "GET", "/v1"));
    assert_false(allows(spec, "GET", "/"));
    assert_false(allows(spec, "HEAD", "/api/tags"));
    cv_tunnel_spec_unref(&spec);
}

/* Every one of them begins with an allowed prefix for somebody who compares bytes. */
static void tricks_do_not_pass_a_prefix_rule(void **state)
{
    (void)state;
    struct cv_tunnel_spec *spec = parse("{\"name\":\"home\",\"allow\":[\"GET /v1/*\"]}");
    static const char *const tricks[] = {
        "/v1/../admin",
        "/v1/%2e%2e/admin",
        "/v1/.%2e/admin",
        "/v1/..%2fadmin",
        "/v1/%2e%2e%2fa",
        "/v1/..\\admin",
        "/v1/..%5cadmin",
        "/v1/%252e%252e/admin",
        "/v1/..;/admin",
        "/v1/x%00",
        "/v1/x%0d%0aX",
        "/v1/%zz",
        "/v1/%2",
        "/v1/x/../../admin",
        "/v1/./../admin",
        "/v1/../../v1/x",
        "/v1/%c0%ae%2e/../../admin",
        "/V1/x",
        "",
        "v1/x",
        "*",
        "/v1%2fx",
        /* These resolve to what is allowed, but a service that does not resolve sees the rest. */
        "/admin/../v1/x",
        "/admin/%2e%2E/v1/x",
        "/v1/./x",
        "/v1/x/..",
    };
    for (size_t i = 0; i < COUNT(tricks); i++)
        if (allows(spec, "GET", tricks[i]))
            fail_msg("%s was let through", tricks[i]);
    assert_true(allows(spec, "GET", "/v1/x"));
    cv_tunnel_spec_unref(&spec);
}

static bool admits(const struct cv_tunnel_spec *spec, const char *subject, const char *group,
                   enum cv_sharing sharing)
{
    struct cv_identity who = {.is_anonymous = subject == NULL};
    char groups[32] = "";
    (void)cv_slice_to_str(cv_slice_str(subject ? subject : ""), who.subject, sizeof who.subject);
    if (group) {
        (void)snprintf(groups, sizeof groups, "other%c%s", 0, group);
        who.groups = groups;
        who.groups_len = sizeof "other" + strlen(group) + 1;
    }
    return cv_share_admits(&spec->share, &(struct cv_guest){&who, sharing});
}

static void guests_whom_a_description_lets_in(void **state)
{
    (void)state;
    struct cv_tunnel_spec *spec = parse("{\"name\":\"home\",\"share\":[\"bob\",\"group:lab\","
                                        "\"sub:group:x\",\"sub:sub:y\"]}");
    assert_int_equal(cv_share_needs(&spec->share), CV_SHARING_USERS);
    assert_true(admits(spec, "bob", NULL, CV_SHARING_USERS));
    assert_false(admits(spec, "bob", NULL, CV_SHARING_NONE));
    assert_true(admits(spec, "eve", "lab", CV_SHARING_PUBLIC));
    assert_true(admits(spec, "group:x", NULL, CV_SHARING_USERS));
    assert_true(admits(spec, "sub:y", NULL, CV_SHARING_USERS));
    static const char *const strangers[] = {"eve", "bo", "bobb", "x", "lab", "group:lab", "y"};
    for (size_t i = 0; i < sizeof strangers / sizeof strangers[0]; i++)
        assert_false(admits(spec, strangers[i], "bob", CV_SHARING_PUBLIC));
    assert_false(admits(spec, NULL, NULL, CV_SHARING_PUBLIC));
    json_t *list = cv_share_list(&spec->share);
    json_t *want = json_pack("[s, s, s, s]", "bob", "group:lab", "sub:group:x", "sub:sub:y");
    assert_true(json_equal(list, want));
    json_decref(list);
    json_decref(want);
    struct cv_tunnel_spec *own = parse("{\"name\":\"home\",\"share\":[]}");
    assert_false(cv_share_is_any(&own->share));
    assert_false(admits(own, "bob", "lab", CV_SHARING_PUBLIC));
    assert_false(cv_tunnel_spec_is_same(own, spec));
    cv_tunnel_spec_unref(&own);
    own = parse("{\"name\":\"home\",\"public\":true}");
    assert_int_equal(cv_share_needs(&own->share), CV_SHARING_PUBLIC);
    assert_true(admits(own, NULL, NULL, CV_SHARING_PUBLIC));
    assert_false(admits(own, "bob", NULL, CV_SHARING_USERS));
    cv_tunnel_spec_unref(&own);
    cv_tunnel_spec_unref(&spec);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(descriptions_that_are_refused),
        cmocka_unit_test(guests_whom_a_description_lets_in),
        cmocka_unit_test(a_description_has_a_size_limit),
        cmocka_unit_test(rules_have_a_count_limit),
        cmocka_unit_test(members_and_their_defaults),
        cmocka_unit_test(defaults_of_a_foreign_publisher),
        cmocka_unit_test(what_makes_specs_the_same),
        cmocka_unit_test(rules_let_through_what_they_say),
        cmocka_unit_test(tricks_do_not_pass_a_prefix_rule),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
