/* SPDX-License-Identifier: MIT */
#include "agent/publication.h"
#include "base/test.h"
#include "config/agent_config.h"

static struct cv_publication publication;

static struct cv_status make(const char *kind, const char *target, const char *preset)
{
    struct cv_tunnel_config config = {
        .name = (char *)(uintptr_t) "home",
        .kind = (char *)(uintptr_t)kind,
        .target = (char *)(uintptr_t)target,
        .preset = (char *)(uintptr_t)preset,
        .timers_first_byte_ms = CV_UNSET,
        .timers_idle_ms = CV_UNSET,
        .timers_total_ms = CV_UNSET,
    };
    return cv_publication_init(&publication, &config, NULL);
}

static bool says(const char *text)
{
    if (!strstr(publication.json, text))
        print_error("%s\n", publication.json);
    return strstr(publication.json, text) != NULL;
}

static void targets_that_cannot_be_read_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "0", "70000", "https://x", "a b", "host"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_status(make("http", bad[i], "none"), CV_CONFIG);
}

static void port_11434_means_ollama(void **state)
{
    (void)state;
    assert_ok(make("http", "11434", "auto"));
    assert_true(says("\"preset\":\"ollama\""));
    assert_true(says("\"POST /api/chat\""));
    assert_true(says("\"* /v1/*\""));
    assert_true(says("\"first_byte_ms\":600000"));
    assert_true(says("\"idle_ms\":300000"));
    assert_true(says("\"host\":\"127.0.0.1:11434\""));
    assert_null(strstr(publication.json, "/api/pull"));
    assert_null(strstr(publication.json, "/api/delete"));
    assert_null(strstr(publication.json, "total_ms"));
    cv_publication_done(&publication);
    assert_ok(make("http", "11434", "none"));
    assert_true(says("\"allow\":[]"));
    cv_publication_done(&publication);
    assert_ok(make("http", "11435", "auto"));
    assert_true(says("\"preset\":\"none\""));
    cv_publication_done(&publication);
    assert_ok(make("tcp", "11434", "auto"));
    assert_true(says("\"preset\":\"none\""));
    cv_publication_done(&publication);
}

static void http_is_published_on_80_and_tcp_never(void **state)
{
    (void)state;
    assert_ok(make("http", "[::1]:9000", "openai"));
    assert_true(publication.is_http);
    assert_int_equal(publication.published, 80);
    assert_string_equal(publication.host, "::1");
    assert_string_equal(publication.target, "[::1]:9000");
    cv_publication_done(&publication);
    assert_ok(make("tcp", "db.local:5432", "none"));
    assert_false(publication.is_http);
    assert_int_equal(publication.published, 5432);
    assert_true(says("\"kind\":\"tcp\""));
    cv_publication_done(&publication);
    assert_ok(make("tcp", "80", "none"));
    assert_int_equal(publication.published, 8080);
    cv_publication_done(&publication);
}

static void own_rules_and_timers_go_before_the_presets(void **state)
{
    (void)state;
    char *rules[] = {(char *)(uintptr_t) "GET /public/*"};
    struct cv_tunnel_config config = {
        .name = (char *)(uintptr_t) "home",
        .kind = (char *)(uintptr_t) "http",
        .target = (char *)(uintptr_t) "11434",
        .preset = (char *)(uintptr_t) "ollama",
        .host = (char *)(uintptr_t) "model.local",
        .allow = {.items = rules, .count = 1},
        .timers_first_byte_ms = 5000,
        .timers_idle_ms = CV_UNSET,
        .timers_total_ms = 7 * CV_DAYS,
        .concurrency = 4,
        .authorization = (char *)(uintptr_t) "pass",
    };
    assert_ok(cv_publication_init(&publication, &config, NULL));
    assert_true(says("\"allow\":[\"GET /public/*\"]"));
    assert_true(says("\"first_byte_ms\":5000"));
    assert_true(says("\"idle_ms\":300000"));
    assert_true(says("\"total_ms\":86400000"));
    assert_true(says("\"host\":\"model.local\""));
    assert_true(says("\"concurrency\":4"));
    assert_true(says("\"pass_authorization\":true"));
    cv_publication_done(&publication);
    cv_publication_done(&publication);
}

static void rules_of_presets_can_be_read(void **state)
{
    (void)state;
    static const char *const names[] = {"ollama", "openai", "none"};
    assert_null(cv_preset_rules("nonsense"));
    for (size_t i = 0; i < 3; i++) {
        const char *const *rules = cv_preset_rules(names[i]);
        assert_non_null(rules);
        for (; *rules; rules++) {
            struct cv_slice method, path;
            assert_true(cv_rule_parse(cv_slice_str(*rules), &method, &path));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(targets_that_cannot_be_read_are_refused),
        cmocka_unit_test(port_11434_means_ollama),
        cmocka_unit_test(http_is_published_on_80_and_tcp_never),
        cmocka_unit_test(own_rules_and_timers_go_before_the_presets),
        cmocka_unit_test(rules_of_presets_can_be_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
