/* SPDX-License-Identifier: MIT */
#include "base/test.h"
#include "config/agent_config.h"
#include "config/profiles.h"

#include <stdio.h>
#include <stdlib.h>

static struct cv_agent_config *config;

static int begin(void **state)
{
    (void)state;
    static const char *const env[] = {"CULVERT_WS_PING_INTERVAL=20s", NULL};
    static const struct cv_override flags[] = {{"log.level", "warn", "--log-level"}};
    struct cv_config_sources sources = {.env = env, .overrides = flags, .override_count = 1};
    struct cv_problems problems;
    cv_problems_init(&problems);
    bool is_good = cv_is_ok(cv_agent_config_load(&sources, &config, &problems));
    cv_problems_done(&problems);
    return is_good ? 0 : -1;
}

static int end(void **state)
{
    (void)state;
    cv_agent_config_free(&config);
    return 0;
}

static void changes_are_made_in_place_and_say_when_they_hold(void **state)
{
    (void)state;
    static const struct cv_override changes[] = {{"reconnect.max", "10s", "t"},
                                                 {"ws.pong_timeout", "3s", "t"},
                                                 {"links", "4", "t"},
                                                 {"ws.ping_interval", "5s", "t"},
                                                 {"log.level", "debug", "t"}};
    enum cv_change when[5];
    struct cv_error error = {0};
    const char *server = config->ssh_ciphers.items[0];
    assert_status(cv_agent_config_change(config, changes, 5, when, &error), CV_OK);
    assert_int_equal(when[0], CV_CHANGE_NOW);
    assert_int_equal(when[1], CV_CHANGE_NEXT_LINK);
    assert_int_equal(when[2], CV_CHANGE_RESTART);
    assert_int_equal(when[3], CV_CHANGE_OVERRIDDEN);
    assert_int_equal(when[4], CV_CHANGE_OVERRIDDEN);
    assert_int_equal(config->reconnect_max_ms, 10000);
    assert_int_equal(config->ws_pong_timeout_ms, 3000);
    assert_int_equal(config->links, 1);
    assert_int_equal(config->ws_ping_interval_ms, 20000);
    assert_string_equal(config->log_level, "warn");
    assert_ptr_equal(config->ssh_ciphers.items[0], server);
}

static void all_or_nothing(void **state)
{
    (void)state;
    static const struct {
        const char *key, *value, *says;
    } bad[] = {{"reconnect.max", "1ms", "reconnect.max"},
               {"reconnect.initial", "50s", "reconnect.initial"},
               {"shutdown.drain", "x", "shutdown.drain"},
               {"nothing", "1", "nothing"},
               {"tunnels[0].name", "x", "tunnels"}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct cv_override changes[] = {{"reconnect.max", "40s", "t"},
                                        {bad[i].key, bad[i].value, "t"}};
        enum cv_change when[2];
        struct cv_error error = {0};
        assert_status(cv_agent_config_change(config, changes, 2, when, &error), CV_CONFIG);
        assert_non_null(strstr(error.detail, bad[i].says));
        assert_int_equal(config->reconnect_max_ms, 60000);
    }
}

static void what_changes_in_place_is_no_text_that_others_hold(void **state)
{
    (void)state;
    for (size_t i = 0; i < cv_agent_schema.count; i++) {
        const struct cv_setting *s = &cv_agent_schema.settings[i];
        if (s->flags & CV_SETTING_TOLD)
            assert_true(s->kind <= CV_KIND_SIZE || strcmp(s->key, "log.level") == 0);
    }
}

static void profiles_are_sound(void **state)
{
    (void)state;
    size_t count;
    const struct cv_profile *profiles = cv_profiles(&count);
    assert_int_equal(count, 3);
    assert_null(cv_profile_find("fast"));
    for (size_t i = 0; i < count; i++) {
        assert_ptr_equal(cv_profile_find(profiles[i].name), &profiles[i]);
        for (size_t k = 0; k < CV_PROFILE_SETTINGS; k++) {
            const struct cv_profile_setting *s = &profiles[i].settings[k];
            struct cv_override change = {s->key, s->value, "t"};
            enum cv_change when;
            struct cv_error error = {0};
            assert_status(cv_agent_config_change(config, &change, 1, &when, &error), CV_OK);
            assert_string_equal(s->key, profiles[0].settings[k].key);
        }
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(changes_are_made_in_place_and_say_when_they_hold),
        TEST(all_or_nothing),
        TEST(what_changes_in_place_is_no_text_that_others_hold),
        TEST(profiles_are_sound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
