/* SPDX-License-Identifier: MIT */
#include "config/value.h"

#include "base/test.h"
#include "base/tunnel_name.h"
#include "config/agent_config.h"

static void durations_and_sizes(void **state)
{
    (void)state;
    static const char *const bad[] = {"",
                                      "s",
                                      "1.5s",
                                      "1 s",
                                      "-1s",
                                      "+1s",
                                      "1S",
                                      "1sec",
                                      "30",
                                      "1h30m",
                                      "99999999999999999999s",
                                      "999999999999999999d",
                                      "0x10s"};
    uint64_t n = 7;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(cv_value_duration(cv_slice_str(bad[i]), false, &n));
    assert_false(cv_value_duration(cv_slice_str("18446744073709551615"), true, &n));
    assert_int_equal(n, 7);
    static const char *const same[] = {"0", "1ms", "1500ms", "90s", "61m", "5h", "7d"};
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        char text[24];
        assert_true(cv_value_duration(cv_slice_str(same[i]), false, &n));
        cv_value_duration_print(n, text);
        assert_string_equal(text, same[i]);
    }
    assert_true(cv_value_duration(cv_slice_str("250"), true, &n));
    assert_int_equal(n, 250);
    assert_true(cv_value_size(cv_slice_str("4K"), &n));
    assert_int_equal(n, 4096);
    assert_false(cv_value_size(cv_slice_str("1KB"), &n));
    assert_false(cv_value_size(cv_slice_str("99999999TiB"), &n));
    static const char *const sizes[] = {"0", "1", "1023", "1KiB", "1MiB", "3GiB", "2TiB"};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        char text[24];
        assert_true(cv_value_size(cv_slice_str(sizes[i]), &n));
        cv_value_size_print(n, text);
        assert_string_equal(text, sizes[i]);
    }
}

static void addresses_and_networks(void **state)
{
    (void)state;
    struct cv_hostport hp;
    static const char *const good[] = {
        "127.0.0.1:1",       "[::1]:65535", "a.b-c:80", ":0", "my_box:80", "relay.example.org.:443",
        "[::ffff:1.2.3.4]:1"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        assert_true(cv_value_hostport(cv_slice_str(good[i]), &hp));
    static const char *const bad[] = {
        "",      "a",      "a:",      "a:65536",     "a:-1",  "::1:80",
        "[::1]", "[a]:1",  "1.2.3:1", "256.1.1.1:1", "a b:1", "-a:1",
        "a-:1",  "a..b:1", ".a:1",    "[1.2.3.4]:1", "a:1x",  "a/b:1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(cv_value_hostport(cv_slice_str(bad[i]), &hp));
    struct cv_value_net net;
    assert_true(cv_value_cidr(cv_slice_str("10.0.0.0/8"), &net));
    assert_true(cv_value_net_has(&net, "10.255.1.2"));
    assert_true(cv_value_net_has(&net, "::ffff:10.1.1.1"));
    assert_false(cv_value_net_has(&net, "11.0.0.0"));
    assert_false(cv_value_net_has(&net, "::1"));
    assert_false(cv_value_net_has(&net, "10.1"));
    assert_true(cv_value_cidr(cv_slice_str("0.0.0.0/0"), &net));
    assert_true(cv_value_net_has(&net, "200.1.1.1"));
    assert_true(cv_value_cidr(cv_slice_str("fd00::/9"), &net));
    assert_true(cv_value_net_has(&net, "fd7f::1"));
    assert_false(cv_value_net_has(&net, "fd80::1"));
    static const char *const no_net[] = {"10.0.0.1/8", "10.0.0.0/33", "::/129", "10.0.0.0/",
                                         "a/8",        "10.0.0.0/-1", "",       "fd80::/8"};
    for (size_t i = 0; i < sizeof no_net / sizeof *no_net; i++)
        assert_false(cv_value_cidr(cv_slice_str(no_net[i]), &net));
}

static void urls_origins_names(void **state)
{
    (void)state;
    assert_true(cv_value_is_url(cv_slice_str("wss://a.b/c?d=e"), "wss|ws", false));
    assert_true(cv_value_is_url(cv_slice_str("WS://[::1]:80"), "wss|ws", false));
    assert_true(cv_value_is_url(cv_slice_str("http://u:p@h:1"), "http", true));
    static const char *const bad[] = {"http://a",  "wss://",    "wss:///x",     "wss://a b",
                                      "wss://a#x", "wss://u@a", "wss://a:0",    "wss://a:x",
                                      "ws",        "://a",      "wss://a\r\nx", "wss://\xc3\xa9"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(cv_value_is_url(cv_slice_str(bad[i]), "wss|ws", false));
    assert_true(cv_value_is_origin(cv_slice_str("*")));
    assert_true(cv_value_is_origin(cv_slice_str("https://a.b:8443")));
    assert_false(cv_value_is_origin(cv_slice_str("https://a.b/")));
    assert_false(cv_value_is_origin(cv_slice_str("null")));
    assert_false(cv_value_is_origin(cv_slice_str("HTTPS://a")));
    assert_true(cv_tunnel_name_is_valid(cv_slice_str("a-1")));
    static const char *const names[] = {
        "",
        "-a",
        "a-",
        "A",
        "a_b",
        "a.b",
        "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        assert_false(cv_tunnel_name_is_valid(cv_slice_str(names[i])));
}

static void targets_and_rules(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        const char *host;
        unsigned port;
    } good[] = {{"11434", "127.0.0.1", 11434}, {":80", "127.0.0.1", 80},
                {"box:1", "box", 1},           {"[::1]:8080", "::1", 8080},
                {"http://box", "box", 80},     {"http://127.0.0.1:1234/", "127.0.0.1", 1234},
                {"HTTP://[::1]", "::1", 80}};
    struct cv_hostport hp;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        assert_true(cv_target_parse(cv_slice_str(good[i].text), &hp));
        assert_string_equal(hp.host, good[i].host);
        assert_int_equal(hp.port, good[i].port);
    }
    static const char *const bad[] = {"",        "0",        "70000",      "box",   "https://box",
                                      "http://", "http:///", "http://:80", "box:0", "http://box/x",
                                      "a b:1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(cv_target_parse(cv_slice_str(bad[i]), &hp));
    struct cv_slice method, path;
    assert_true(cv_rule_parse(cv_slice_str("POST /api/*"), &method, &path));
    assert_true(cv_slice_is(method, "POST") && cv_slice_is(path, "/api/*"));
    assert_true(cv_rule_parse(cv_slice_str("* /"), &method, &path));
    static const char *const rules[] = {"",         "GET",      "GET ",  " /",
                                        "GET  /",   "GET api",  "G@T /", "GET /a*b",
                                        "GET /a b", "GET /a?b", "G* /"};
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        assert_false(cv_rule_parse(cv_slice_str(rules[i]), &method, &path));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(durations_and_sizes),
        cmocka_unit_test(addresses_and_networks),
        cmocka_unit_test(urls_origins_names),
        cmocka_unit_test(targets_and_rules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
