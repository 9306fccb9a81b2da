/* SPDX-License-Identifier: MIT */
#include "agent/upgrade.h"
#include "base/test.h"
#include "proto/http/http_parser.h"

#include <stdio.h>

static struct cv_upgrade upgrade;
static struct cv_buf request;
static struct cv_error error;
static struct cv_slice early;

static int begin(void **state)
{
    (void)state;
    struct cv_upgrade_request asked = {
        .relay = "relay.example:8443",
        .path = "/tunnel",
        .subprotocol = "culvert.v1",
        .agent_id = "0123456789abcdef0123456789abcdef",
        .token = cv_slice_str("a.b.c"),
    };
    cv_buf_init(&request, 16384);
    error = (struct cv_error){0};
    return cv_is_ok(cv_upgrade_begin(&upgrade, &asked, &request)) ? 0 : -1;
}

static int done(void **state)
{
    (void)state;
    cv_upgrade_done(&upgrade);
    cv_buf_done(&request);
    return 0;
}

/* Feeds an answer whole, then says that the peer has closed if that was not enough. */
static enum cv_status_id answer(const char *text)
{
    struct cv_status status =
        cv_upgrade_feed(&upgrade, (const uint8_t *)text, strlen(text), &early, &error);
    if (status.id == CV_AGAIN)
        status = cv_upgrade_eof(&upgrade, &error);
    return status.id;
}

static const char *good_answer(const char *protocol, const char *behind)
{
    static char text[1024];
    char accept[CV_WS_ACCEPT_SIZE];
    cv_ws_accept_key(cv_slice_str(upgrade.key), accept);
    (void)snprintf(text, sizeof text,
                   "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
                   "Upgrade: websocket\r\nSec-WebSocket-Accept: %s\r\n%s%s\r\n%s",
                   accept, protocol, protocol[0] ? "\r\n" : "", behind);
    return text;
}

static void the_request_is_what_the_relay_expects(void **state)
{
    (void)state;
    char want[1024];
    (void)snprintf(want, sizeof want,
                   "GET /tunnel HTTP/1.1\r\nHost: relay.example:8443\r\nConnection: Upgrade\r\n"
                   "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n"
                   "Sec-WebSocket-Protocol: culvert.v1\r\nUser-Agent: culvert/" CV_VERSION "\r\n"
                   "Culvert-Agent: 0123456789abcdef0123456789abcdef\r\n"
                   "Authorization: Bearer a.b.c\r\n\r\n",
                   upgrade.key);
    assert_true(cv_slice_is(cv_buf_slice(&request), want));
}

static void a_101_is_taken_with_what_is_behind_it(void **state)
{
    (void)state;
    const char *text = good_answer("Sec-WebSocket-Protocol: culvert.v1", "\x82\x03SSH");
    assert_int_equal(answer(text), CV_OK);
    assert_true(cv_slice_is(early, "\x82\x03SSH"));
}

static void a_101_may_come_byte_by_byte(void **state)
{
    (void)state;
    const char *text = good_answer("Sec-WebSocket-Protocol: culvert.v1", "");
    size_t len = strlen(text);
    for (size_t i = 0; i < len; i++) {
        struct cv_status status =
            cv_upgrade_feed(&upgrade, (const uint8_t *)text + i, 1, &early, &error);
        assert_status(status, i + 1 < len ? CV_AGAIN : CV_OK);
    }
    assert_int_equal(early.len, 0);
}

static void a_websocket_that_is_no_relay_is_refused(void **state)
{
    (void)state;
    assert_int_equal(answer(good_answer("", "")), CV_WS_UPGRADE);
    assert_non_null(strstr(error.detail, "culvert"));
}

static void a_wrong_accept_is_refused(void **state)
{
    (void)state;
    assert_int_equal(answer("HTTP/1.1 101 x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                            "Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n"
                            "Sec-WebSocket-Protocol: culvert.v1\r\n\r\n"),
                     CV_WS_UPGRADE);
}

#define PROBLEM "Content-Type: application/problem+json\r\n"

static const struct refusal {
    const char *answer;
    enum cv_status_id id;
    const char *says;
    uint64_t retry_after_ms;
} refusals[] = {
    {"HTTP/1.1 401 x\r\n" PROBLEM "Content-Length: 48\r\n\r\n"
     "{\"code\":\"TUNNEL_003\",\"detail\":\"expired at noon\"}",
     CV_AUTH_EXPIRED, "expired at noon", 0},
    {"HTTP/1.1 401 x\r\n" PROBLEM "Content-Length: 21\r\n\r\n{\"code\":\"TUNNEL_002\"}",
     CV_AUTH_FAILED, "TUNNEL_002", 0},
    {"HTTP/1.1 401 x\r\n" PROBLEM "Content-Length: 58\r\n\r\n"
     "{\"code\":\"TUNNEL_002\",\"title\":\"token for another audience\"}",
     CV_AUTH_WRONG_AUDIENCE, "another audience", 0},
    {"HTTP/1.1 401 x\r\nServer: nginx\r\nContent-Length: 0\r\n\r\n", CV_WS_REFUSED, "from nginx",
     0},
    {"HTTP/1.1 403 x\r\n" PROBLEM "Content-Length: 2\r\n\r\n{}", CV_FORBIDDEN, "403", 0},
    {"HTTP/1.1 403 x\r\nServer: squid/5\r\nContent-Length: 0\r\n\r\n", CV_WS_REFUSED, "squid/5", 0},
    {"HTTP/1.1 404 x\r\nContent-Length: 0\r\n\r\n", CV_WS_REFUSED, "check the URL", 0},
    {"HTTP/1.1 407 x\r\nContent-Length: 0\r\n\r\n", CV_PROXY, "user and password", 0},
    {"HTTP/1.1 426 x\r\nContent-Length: 0\r\n\r\n", CV_WS_VERSION, "update", 0},
    {"HTTP/1.1 429 x\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n", CV_RATE_LIMITED, "429", 7000},
    {"HTTP/1.1 503 x\r\n" PROBLEM "Content-Length: 30\r\n\r\n{\"detail\":\"a\\u001b[2J\\u009bb\"}",
     CV_UNAVAILABLE, "a?[2J??b", 0},
    {"HTTP/1.1 503 x\r\nRetry-After: 99999999\r\nContent-Length: 0\r\n\r\n", CV_UNAVAILABLE, "503",
     0},
    {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", CV_WS_REFUSED, "200", 0},
    {"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>Welcome", CV_WS_REFUSED,
     "captive portal", 0},
    {"HTTP/1.1 502 x\r\nVia: 1.1 box\r\nContent-Length: 0\r\n\r\n", CV_WS_REFUSED, "via 1.1 box",
     0},
    {"HTTP/1.1 200 OK\r\n\r\nuntil the end", CV_WS_REFUSED, "200", 0},
    {"HTTP/1.1 302 x\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n", CV_WS_REFUSED,
     "(302) to /login", 0},
    {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n", CV_UNAVAILABLE,
     "503", 0},
    {"HTTP/1.1 401 x\r\n" PROBLEM "Content-Length: 4\r\n\r\n{\"co", CV_AUTH_FAILED, "401", 0},
    {"HTTP/1.1 401 x\r\n" PROBLEM "Content-Length: 50\r\n\r\n{\"co", CV_AUTH_FAILED, "401", 0},
    {"SSH-2.0-OpenSSH_9.2\r\n\r\n", CV_WS_REFUSED, "no HTTP server", 0},
    {"", CV_CONN_RESET, "without an answer", 0},
    {"HTTP/1.1 40", CV_CONN_RESET, "without an answer", 0},
};

static void refusals_are_explained(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        const struct refusal *r = &refusals[i];
        if (i) {
            (void)done(NULL);
            assert_int_equal(begin(NULL), 0);
        }
        enum cv_status_id id = answer(r->answer);
        if (id != r->id || !strstr(error.detail, r->says))
            print_error("%zu: %s: %s\n", i, cv_status_name(id), error.detail);
        assert_int_equal(id, r->id);
        assert_non_null(strstr(error.detail, r->says));
        assert_int_equal(upgrade.retry_after_ms, r->retry_after_ms);
    }
}

static void a_large_refusal_is_not_kept(void **state)
{
    (void)state;
    static char body[64 * 1024];
    memset(body, 'x', sizeof body - 1);
    const char *head = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 100000000\r\n\r\n";
    assert_status(cv_upgrade_feed(&upgrade, (const uint8_t *)head, strlen(head), &early, &error),
                  CV_AGAIN);
    assert_int_equal(answer(body), CV_WS_REFUSED);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, begin, done)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_request_is_what_the_relay_expects),
        TEST(a_101_is_taken_with_what_is_behind_it),
        TEST(a_101_may_come_byte_by_byte),
        TEST(a_websocket_that_is_no_relay_is_refused),
        TEST(a_wrong_accept_is_refused),
        TEST(refusals_are_explained),
        TEST(a_large_refusal_is_not_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
