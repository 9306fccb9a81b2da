/* SPDX-License-Identifier: MIT */
#include "base/test.h"
#include "net/addr.h"
#include "net/listener.h"
#include "net/proxy.h"

#include <stdlib.h>
#include <string.h>

static void addresses_are_written_as_they_are_read(void **state)
{
    (void)state;
    const char *const cases[][2] = {
        {"127.0.0.1", "127.0.0.1:80"},       {"::1", "[::1]:80"},
        {"2001:db8::a", "[2001:db8::a]:80"}, {"::ffff:10.1.2.3", "10.1.2.3:80"},
        {"fe80::1%1", "[fe80::1%1]:80"},     {"fe80::1%lo", "[fe80::1%1]:80"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cv_addr addr;
        char text[CV_ADDR_TEXT_LEN];
        assert_true(cv_addr_from_ip(&addr, cv_slice_str(cases[i][0]), 80));
        assert_string_equal(cv_addr_format(&addr, text), cases[i][1]);
        assert_int_equal(cv_addr_port(&addr), 80);
    }
    const char *const bad[] = {"",      "1.2.3",        "1.2.3.4.5",     "[::1]",
                               "::1%",  "localhost",    "01.2.3.4",      "::1%no-such-interface",
                               "::1%0", "fe80::1%lo:x", "::1%4294967296"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct cv_addr addr;
        assert_false(cv_addr_from_ip(&addr, cv_slice_str(bad[i]), 80));
    }
    struct cv_addr none = {0};
    char text[CV_ADDR_TEXT_LEN];
    assert_string_equal(cv_addr_format(&none, text), "-");
}

static void blocks_hold_their_addresses_only(void **state)
{
    (void)state;
    const struct {
        const char *block, *ip;
        bool is_inside;
    } cases[] = {
        {"10.0.0.0/8", "10.255.1.2", true},
        {"10.0.0.0/8", "11.0.0.1", false},
        {"10.1.2.3", "10.1.2.3", true},
        {"10.1.2.3", "10.1.2.4", false},
        {"0.0.0.0/0", "8.8.8.8", true},
        {"0.0.0.0/0", "::1", false},
        {"192.168.1.64/26", "192.168.1.127", true},
        {"192.168.1.64/26", "192.168.1.128", false},
        {"fd00::/8", "fdff::1", true},
        {"fd00::/8", "fe00::1", false},
        {"127.0.0.0/8", "::ffff:127.0.0.1", true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cv_cidr cidr;
        struct cv_addr addr;
        assert_true(cv_cidr_parse(&cidr, cv_slice_str(cases[i].block)));
        assert_true(cv_addr_from_ip(&addr, cv_slice_str(cases[i].ip), 0));
        assert_int_equal(cv_cidr_has(&cidr, &addr), cases[i].is_inside);
    }
    struct cv_cidr cidr;
    assert_false(cv_cidr_parse(&cidr, cv_slice_str("10.0.0.0/33")));
    assert_false(cv_cidr_parse(&cidr, cv_slice_str("10.0.0.0/")));
    assert_false(cv_cidr_parse(&cidr, cv_slice_str("example.com/8")));
}

static void host_and_port_are_taken_apart(void **state)
{
    (void)state;
    const struct {
        const char *text, *host;
        uint16_t port;
    } good[] = {
        {"example.com:81", "example.com", 81},
        {"example.com", "example.com", 7},
        {"[::1]:82", "::1", 82},
        {"::1", "::1", 7},
        {"[::1]", "::1", 7},
        {"127.0.0.1:65535", "127.0.0.1", 65535},
    };
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        char host[CV_HOST_LEN];
        uint16_t port;
        assert_ok(cv_hostport_parse(cv_slice_str(good[i].text), 7, host, &port, NULL));
        assert_string_equal(host, good[i].host);
        assert_int_equal(port, good[i].port);
    }
    const char *const bad[] = {"",       ":80",  "a:0",     "a:65536",   "a:b",
                               "a:",     "[::1", "[::1]80", "[1.2.3.4]", "a b",
                               "a/b:80", "-a:1", "a:1:2",   "\x7f:1",    "[]:1"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        char host[CV_HOST_LEN];
        uint16_t port;
        assert_status(cv_hostport_parse(cv_slice_str(bad[i]), 7, host, &port, NULL), CV_INVALID);
    }
    char host[CV_HOST_LEN];
    uint16_t port;
    assert_status(cv_hostport_parse(cv_slice_str("a"), 0, host, &port, NULL), CV_INVALID);
}

static void loopback_hosts_are_known(void **state)
{
    (void)state;
    const char *const loopback[] = {"localhost", "LOCALHOST.", "a.localhost", "127.8.9.1", "::1"};
    const char *const other[] = {"localhost.example.com", "mylocalhost", "10.0.0.1", "::2", ""};
    for (size_t i = 0; i < sizeof loopback / sizeof loopback[0]; i++)
        assert_true(cv_host_is_loopback(loopback[i]));
    for (size_t i = 0; i < sizeof other / sizeof other[0]; i++)
        assert_false(cv_host_is_loopback(other[i]));
}

static void listen_addresses_are_read(void **state)
{
    (void)state;
    struct cv_listen_spec spec;
    char text[CV_ADDR_TEXT_LEN];
    assert_ok(cv_listen_spec_parse(":8080", &spec, NULL));
    assert_true(spec.is_dual_stack);
    assert_string_equal(cv_addr_format(&spec.addr, text), "[::]:8080");
    assert_ok(cv_listen_spec_parse("[::]:0", &spec, NULL));
    assert_false(spec.is_dual_stack);
    assert_ok(cv_listen_spec_parse("localhost:1", &spec, NULL));
    assert_string_equal(cv_addr_format(&spec.addr, text), "127.0.0.1:1");
    const char *const bad[] = {"",       "8080",         "a:1",           "1.2.3.4",
                               "::1:80", "[1.2.3.4]:80", "1.2.3.4:65536", "1.2.3.4:"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_status(cv_listen_spec_parse(bad[i], &spec, NULL), CV_CONFIG);
}

/* --- proxies --- */

static const char *env_names[8], *env_values[8];
static size_t env_count;

static const char *fake_env(const char *name)
{
    for (size_t i = 0; i < env_count; i++)
        if (strcmp(env_names[i], name) == 0)
            return env_values[i];
    return NULL;
}

static void set_env(const char *name, const char *value)
{
    env_names[env_count] = name;
    env_values[env_count++] = value;
}

static const char *chosen(bool is_tls, const char *host, uint16_t port)
{
    static char text[300];
    const struct cv_proxy_settings settings = {.get_env = fake_env};
    struct cv_proxy proxy;
    struct cv_status status = cv_proxy_choose(&settings, is_tls, host, port, &proxy, NULL);
    if (!cv_is_ok(status))
        return cv_status_name(status.id);
    (void)snprintf(text, sizeof text, "%s", *proxy.host ? proxy.host : "direct");
    return text;
}

static void the_environment_chooses_the_proxy(void **state)
{
    (void)state;
    env_count = 0;
    assert_string_equal(chosen(true, "example.com", 443), "direct");
    set_env("HTTPS_PROXY", "http://secure:3128");
    set_env("HTTP_PROXY", "http://plain:3128/");
    assert_string_equal(chosen(true, "example.com", 443), "secure");
    assert_string_equal(chosen(false, "example.com", 80), "plain");
    assert_string_equal(chosen(true, "127.0.0.1", 443), "direct");
    assert_string_equal(chosen(true, "localhost", 443), "direct");
    assert_string_equal(chosen(true, "::1", 443), "direct");
    set_env("REQUEST_METHOD", "GET");
    assert_string_equal(chosen(false, "example.com", 80), "direct");
    set_env("all_proxy", "http://all:1");
    assert_string_equal(chosen(false, "example.com", 80), "all");
    set_env("http_proxy", "http://lower:1");
    assert_string_equal(chosen(false, "example.com", 80), "lower");
    set_env("NO_PROXY", "example.org, .internal,10.0.0.0/8");
    assert_string_equal(chosen(false, "example.org", 80), "direct");
    assert_string_equal(chosen(false, "10.3.4.5", 80), "direct");
    assert_string_equal(chosen(false, "example.com", 80), "lower");
    env_count = 0;
    set_env("https_proxy", "socks5://x:1");
    assert_string_equal(chosen(true, "example.com", 443), "CONFIG");
}

static void settings_override_the_environment(void **state)
{
    (void)state;
    env_count = 0;
    set_env("https_proxy", "http://env:1");
    struct cv_proxy proxy;
    struct cv_proxy_settings settings = {.url = "", .get_env = fake_env};
    assert_ok(cv_proxy_choose(&settings, true, "example.com", 443, &proxy, NULL));
    assert_string_equal(proxy.host, "");
    settings.url = "http://us%65r:p%40ss@set:8888";
    assert_ok(cv_proxy_choose(&settings, true, "example.com", 443, &proxy, NULL));
    assert_string_equal(proxy.host, "set");
    assert_int_equal(proxy.port, 8888);
    assert_string_equal(proxy.userinfo, "user:p@ss");
    settings.no_proxy = "*";
    assert_ok(cv_proxy_choose(&settings, true, "example.com", 443, &proxy, NULL));
    assert_string_equal(proxy.host, "");
}

static void malformed_proxies_are_refused_without_their_password(void **state)
{
    (void)state;
    const char *const bad[] = {"ftp://a:1",
                               "https://a:1",
                               "http://",
                               "http://a:1/path",
                               "http://u:secret@:1",
                               "http://u:secret%4@a:1",
                               "http://u:secret%0a@a:1",
                               "http://u:secret@a:99999"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct cv_proxy proxy;
        struct cv_error error;
        assert_status(cv_proxy_parse(bad[i], &proxy, &error), CV_CONFIG);
        assert_null(strstr(error.detail, "secret"));
    }
    struct cv_proxy proxy;
    assert_ok(cv_proxy_parse("[::1]:3128", &proxy, NULL));
    assert_string_equal(proxy.host, "::1");
}

static void no_proxy_matches_names_ports_and_blocks(void **state)
{
    (void)state;
    const struct {
        const char *list, *host;
        uint16_t port;
        bool is_excluded;
    } cases[] = {
        {"*", "a", 1, true},
        {"", "a", 1, false},
        {",, ,", "a", 1, false},
        {"example.com", "example.com", 1, true},
        {"example.com", "EXAMPLE.com.", 1, true},
        {"example.com", "www.example.com", 1, true},
        {"example.com", "notexample.com", 1, false},
        {".example.com", "example.com", 1, false},
        {".example.com", "www.example.com", 1, true},
        {"*.example.com", "www.example.com", 1, true},
        {"example.com:443", "example.com", 443, true},
        {"example.com:443", "example.com", 80, false},
        {"10.0.0.0/8", "10.2.3.4", 1, true},
        {"10.0.0.1:80", "10.0.0.1", 80, true},
        {"10.0.0.1:80", "10.0.0.1", 81, false},
        {"2001:db8::/32", "2001:db8::1", 1, true},
        {"[2001:db8::1]:80", "2001:db8::1", 80, true},
        {"[2001:db8::1]:80", "2001:db8::1", 81, false},
        {"0.1", "10.0.0.1", 1, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(cv_proxy_is_excluded(cases[i].list, cases[i].host, cases[i].port),
                         cases[i].is_excluded);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(addresses_are_written_as_they_are_read),
        cmocka_unit_test(blocks_hold_their_addresses_only),
        cmocka_unit_test(host_and_port_are_taken_apart),
        cmocka_unit_test(loopback_hosts_are_known),
        cmocka_unit_test(listen_addresses_are_read),
        cmocka_unit_test(the_environment_chooses_the_proxy),
        cmocka_unit_test(settings_override_the_environment),
        cmocka_unit_test(malformed_proxies_are_refused_without_their_password),
        cmocka_unit_test(no_proxy_matches_names_ports_and_blocks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
