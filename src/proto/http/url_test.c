/* SPDX-License-Identifier: MIT
 *
 * URLs, paths and rewritten values: pure functions, tested as tables.
 */
#include "base/test.h"

#include "proto/http/http_path.h"
#include "proto/http/http_rewrite.h"
#include "proto/http/url.h"

#define S(text) cv_slice(text, sizeof(text) - 1)
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static void urls_are_parsed(void **state)
{
    (void)state;
    static const struct {
        const char *url, *scheme, *host, *path, *query;
        unsigned port;
        bool is_tls;
    } cases[] = {
        {"ws://127.0.0.1:8080", "ws", "127.0.0.1", "", "", 8080, false},
        {"WSS://relay.example.com/tunnel?x=1", "wss", "relay.example.com", "/tunnel", "x=1", 443,
         true},
        {"http://[::1]:11434/", "http", "::1", "/", "", 11434, false},
        {"https://a?b", "https", "a", "", "b", 443, true},
        {"http://localhost", "http", "localhost", "", "", 80, false},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct cv_url url;
        assert_ok(cv_url_parse(cv_slice_str(cases[i].url), false, &url, NULL));
        assert_string_equal(cv_url_scheme_name(url.scheme), cases[i].scheme);
        assert_true(cv_slice_is(url.host, cases[i].host));
        assert_int_equal(url.port, cases[i].port);
        assert_true(cv_slice_is(url.path, cases[i].path));
        assert_true(cv_slice_is(url.query, cases[i].query));
        assert_int_equal(url.is_tls, cases[i].is_tls);
        assert_int_equal(url.is_ipv6, cases[i].host[0] == ':');
    }
}

static void bad_urls_are_refused_with_a_reason(void **state)
{
    (void)state;
    static const char *const cases[] = {
        "",
        "a",
        "ftp://a",
        "http:/a",
        "http://",
        "http:///x",
        "http://a:",
        "http://a:0x",
        "http://a b",
        "http://a\n",
        "http://a#b",
        "http://[::1",
        "http://a:1:2",
        "http://u:secret@a",
        "http://a:65536",
        "http://a,b",
        "http://\xc3\xa4",
        "http://[v6]",
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct cv_url url;
        struct cv_error error = {0};
        if (cv_url_parse(cv_slice_str(cases[i]), false, &url, &error).id != CV_INVALID)
            fail_msg("accepted: %s", cases[i]);
        assert_true(error.detail[0]);
        assert_null(strstr(error.detail, "secret"));
    }
    struct cv_url url;
    assert_ok(cv_url_parse(S("http://u:p%40@proxy:3128"), true, &url, NULL));
    assert_true(cv_slice_is(url.userinfo, "u:p%40"));
    assert_true(cv_slice_is(url.host, "proxy"));
    uint8_t plain[8];
    size_t len;
    assert_true(cv_url_decode(S("p%40%2f"), plain, &len) && len == 3 &&
                memcmp(plain, "p@/", 3) == 0);
    assert_false(cv_url_decode(S("%4"), plain, &len));
    assert_false(cv_url_decode(S("%4g"), plain, &len));
}

static void tunnel_paths_are_split(void **state)
{
    (void)state;
    static const struct {
        const char *path, *name, *rest; /* name NULL: not one */
    } cases[] = {
        {"/t/home/api/chat", "home", "/api/chat"},
        {"/t/home", "home", ""},
        {"/t/home/", "home", "/"},
        {"/t/a/%2e%2e/x", "a", "/%2e%2e/x"},
        {"/t/", NULL, NULL},
        {"/t", NULL, NULL},
        {"/t//x", NULL, NULL},
        {"/t/Home/x", NULL, NULL},
        {"/t/h%6fme/x", NULL, NULL},
        {"/t/-a/x", NULL, NULL},
        {"/t/../x", NULL, NULL},
        {"/T/home/x", NULL, NULL},
        {"//t/home", NULL, NULL},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct cv_http_tunnel_path at;
        bool is_one = cv_http_split_tunnel_path(cv_slice_str(cases[i].path), &at);
        if (is_one != (cases[i].name != NULL) ||
            (is_one && (!cv_slice_is(at.name, cases[i].name) || at.owner.len ||
                        !cv_slice_is(at.rest, cases[i].rest))))
            fail_msg("%s", cases[i].path);
    }
}

static void owners_in_paths_are_split_off(void **state)
{
    (void)state;
    static const struct {
        const char *path, *owner, *name, *prefix; /* owner NULL: not one */
    } cases[] = {
        {"/t/alice~home/api", "alice", "home", "/t/alice~home"},
        {"/t/alice~home", "alice", "home", "/t/alice~home"},
        {"/t/auth0%7C12~home/", "auth0|12", "home", "/t/auth0%7C12~home"},
        {"/t/auth0%7c12~home/", "auth0|12", "home", "/t/auth0%7c12~home"},
        {"/t/a%2Fb~home/x/y", "a/b", "home", "/t/a%2Fb~home"},
        {"/t/a~b~home/", "a~b", "home", "/t/a~b~home"},
        {"/t/a%7Eb~home/", "a~b", "home", "/t/a%7Eb~home"},
        {"/t/al@ex.org~home/", "al@ex.org", "home", "/t/al@ex.org~home"},
        {"/t/%25~home/", "%", "home", "/t/%25~home"},
        {"/t/~home/", NULL, NULL, NULL},
        {"/t/alice~/", NULL, NULL, NULL},
        {"/t/alice~Home/", NULL, NULL, NULL},
        {"/t/alice~h%6fme/", NULL, NULL, NULL},
        {"/t/alice%7Ehome/", NULL, NULL, NULL},
        {"/t/a;Domain=x~home/", NULL, NULL, NULL},
        {"/t/a|b~home/", NULL, NULL, NULL},
        {"/t/a%zz~home/", NULL, NULL, NULL},
        {"/t/a%2~home/", NULL, NULL, NULL},
        {"/t/a\"b~home/", NULL, NULL, NULL},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct cv_http_tunnel_path at;
        char owner[16];
        bool is_one = cv_http_split_tunnel_path(cv_slice_str(cases[i].path), &at);
        if (is_one != (cases[i].owner != NULL) ||
            (is_one &&
             (!cv_http_decode_owner(at.owner, owner, sizeof owner) ||
              strcmp(owner, cases[i].owner) != 0 || !cv_slice_is(at.name, cases[i].name) ||
              !cv_slice_is(at.prefix, cases[i].prefix))))
            fail_msg("%s", cases[i].path);
    }
}

static void owners_are_written_so_that_they_are_read_again(void **state)
{
    (void)state;
    static const char *const subjects[] = {"alice",     "auth0|12", "a~b", "a/b",    "%2F",
                                           "al@ex.org", "\xc3\xa4", "a b", "group:x"};
    for (size_t i = 0; i < COUNT(subjects); i++) {
        struct cv_buf path;
        struct cv_http_tunnel_path at;
        char owner[32];
        cv_buf_init(&path, 256);
        assert_true(cv_is_ok(cv_buf_append_str(&path, "/t/")) &&
                    cv_is_ok(cv_http_write_owner(&path, subjects[i])) &&
                    cv_is_ok(cv_buf_append_str(&path, "~home/")));
        assert_true(cv_http_split_tunnel_path(cv_buf_slice(&path), &at));
        assert_true(cv_http_decode_owner(at.owner, owner, sizeof owner));
        assert_string_equal(owner, subjects[i]);
        cv_buf_done(&path);
    }
    char small[4];
    assert_true(cv_http_decode_owner(S("abc"), small, sizeof small));
    assert_false(cv_http_decode_owner(S("abcd"), small, sizeof small));
    assert_false(cv_http_decode_owner(S("a%00b"), small, sizeof small));
}

static void paths_have_one_reading_or_none(void **state)
{
    (void)state;
    static const struct {
        const char *path, *want; /* NULL: refused */
    } cases[] = {
        {"/", "/"},
        {"/api/pull", "/api/pull"},
        {"/api/p%75ll", "/api/pull"},
        {"/api//pull", "/api/pull"},
        {"/api/./pull/", "/api/pull/"},
        {"/api/tags/../pull", "/api/pull"},
        {"/api/tags/%2e%2E/pull", "/api/pull"},
        {"/a/..", "/"},
        {"/a/.", "/a/"},
        {"/...", "/..."},
        {"/a;b=c/d", "/a;b=c/d"},
        {"/\xc3\xa4", "/\xc3\xa4"},
        {"", NULL},
        {"a", NULL},
        {"*", NULL},
        {"/..", NULL},
        {"/a/../..", NULL},
        {"/a%2fb", NULL},
        {"/a%5cb", NULL},
        {"/a\\b", NULL},
        {"/%252e", NULL},
        {"/%00", NULL},
        {"/%0a", NULL},
        {"/%7f", NULL},
        {"/%", NULL},
        {"/%2", NULL},
        {"/%zz", NULL},
        {"/x/..;/y", NULL},
        {"/x/%2e;a/y", NULL},
    };
    for (size_t i = 0; i < COUNT(cases); i++) {
        struct cv_buf out;
        cv_buf_init(&out, 256);
        assert_ok(cv_buf_append_str(&out, ">"));
        struct cv_status status = cv_http_normal_path(cv_slice_str(cases[i].path), &out);
        cv_buf_consume(&out, 1);
        if (status.id != (cases[i].want ? CV_OK : CV_INVALID) ||
            !cv_slice_is(cv_buf_slice(&out), cases[i].want ? cases[i].want : ""))
            fail_msg("%s: %.*s", cases[i].path, (int)cv_buf_len(&out), (char *)cv_buf_head(&out));
        cv_buf_done(&out);
    }
}

static void check(struct cv_buf *out, struct cv_status status, const char *want)
{
    if (!want)
        assert_status(status, CV_INVALID);
    else
        assert_ok(status);
    if (!cv_slice_is(cv_buf_slice(out), want ? want : ""))
        fail_msg("\"%.*s\", wanted \"%s\"", (int)cv_buf_len(out), (char *)cv_buf_head(out), want);
    cv_buf_consume(out, cv_buf_len(out));
}

static void locations_are_rewritten(void **state)
{
    (void)state;
    static const struct {
        const char *value, *want;
    } cases[] = {
        {"/x?y", "/t/home/x?y"},
        {"x", "x"},
        {"?q", "?q"},
        {"//other/x", "//other/x"},
        {"//localhost/x", "/t/home/x"},
        {"http://LOCALHOST/x", "/t/home/x"},
        {"http://127.0.0.1:11434/x#f", "/t/home/x#f"},
        {"http://localhost", "/t/home/"},
        {"http://localhost?a", "/t/home/?a"},
        {"https://example.com/x", "https://example.com/x"},
        {"http://localhost.evil/x", "http://localhost.evil/x"},
        {"http://localhost@evil/x", "http://localhost@evil/x"},
        {"", ""},
        {"/a\nb", NULL},
    };
    const struct cv_slice hosts[] = {S("127.0.0.1:11434"), S("localhost")};
    struct cv_buf out;
    cv_buf_init(&out, 256);
    for (size_t i = 0; i < COUNT(cases); i++)
        check(&out,
              cv_http_rewrite_location(&out, cv_slice_str(cases[i].value), S("/t/home"), hosts, 2),
              cases[i].want);
    cv_buf_done(&out);
}

static void cookies_stay_in_their_tunnel(void **state)
{
    (void)state;
    static const struct {
        const char *value, *want;
    } cases[] = {
        {"a=b", "a=b; Path=/t/home/"},
        {"a=b; Path=/; HttpOnly", "a=b; HttpOnly; Path=/t/home/"},
        {"a=b;path=/x;Secure", "a=b; Secure; Path=/t/home/x"},
        {"a=b; Path=x", "a=b; Path=/t/home/"},
        {"a=b; Path=/x; Path=", "a=b; Path=/t/home/"},
        {"a=b; Domain=evil; Max-Age=1", "a=b; Max-Age=1; Path=/t/home/"},
        {"__Secure-a=b; Secure", "__Secure-a=b; Secure; Path=/t/home/"},
        {"__Host-a=b; Secure; Path=/", NULL},
        {"", NULL},
        {"a=b\r\nX: y", NULL},
    };
    struct cv_buf out;
    cv_buf_init(&out, 256);
    for (size_t i = 0; i < COUNT(cases); i++)
        check(&out, cv_http_rewrite_set_cookie(&out, cv_slice_str(cases[i].value), S("/t/home")),
              cases[i].want);
    cv_buf_done(&out);
}

static void forwarding_values(void **state)
{
    (void)state;
    struct cv_buf out;
    cv_buf_init(&out, 256);
    check(&out, cv_http_write_forwarded(&out, S(""), S("192.0.2.1"), S("a.example"), true),
          "for=192.0.2.1;host=a.example;proto=https");
    check(&out, cv_http_write_forwarded(&out, S("for=1"), S("2001:db8::1"), S("[::1]:80"), false),
          "for=1, for=\"[2001:db8::1]\";host=\"[::1]:80\";proto=http");
    check(&out, cv_http_write_forwarded(&out, S(""), S("a"), S("x\"y"), false), NULL);
    check(&out, cv_http_write_forwarded(&out, S("a\r\nb"), S("a"), S("x"), false), NULL);
    check(&out, cv_http_write_forwarded_for(&out, S("1.2.3.4"), S("::1")), "1.2.3.4, ::1");
    check(&out, cv_http_write_forwarded_for(&out, S(""), S("::1")), "::1");
    check(&out, cv_http_write_basic(&out, S("Aladdin"), S("open sesame")),
          "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
    check(&out, cv_http_write_basic(&out, S("a:b"), S("c")), NULL);
    cv_buf_done(&out);
    struct cv_slice value;
    assert_true(cv_http_credentials(S("bearer  abc"), "Bearer", &value) &&
                cv_slice_is(value, "abc"));
    assert_false(cv_http_credentials(S("Bearer"), "Bearer", &value));
    assert_false(cv_http_credentials(S("Bearer "), "Bearer", &value));
    assert_false(cv_http_credentials(S("Bearer a b"), "Bearer", &value));
    assert_false(cv_http_credentials(S("Basic a"), "Bearer", &value));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(urls_are_parsed),
        cmocka_unit_test(bad_urls_are_refused_with_a_reason),
        cmocka_unit_test(tunnel_paths_are_split),
        cmocka_unit_test(owners_in_paths_are_split_off),
        cmocka_unit_test(owners_are_written_so_that_they_are_read_again),
        cmocka_unit_test(paths_have_one_reading_or_none),
        cmocka_unit_test(locations_are_rewritten),
        cmocka_unit_test(cookies_stay_in_their_tunnel),
        cmocka_unit_test(forwarding_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
