/* SPDX-License-Identifier: MIT
 *
 * Requests and answers through a whole relay: who may ask, framing both ways, connections kept.
 */
#include "relay/relay_bench.h"

#include "net/net.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct world {
    struct bench bench;
    struct fake_agent agent;
};

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    (void)alarm(120);
    bench_start(&w->bench, "1", NULL);
    w->agent = (struct fake_agent){
        .tunnels = {{"home", NULL, 80},
                    {"ruled",
                     "{\"name\":\"ruled\",\"host\":\"svc:81\",\"allow\":[\"GET /hello\",\"* "
                     "/v1/*\"]}",
                     80},
                    {"refuse", NULL, 80},
                    {"timeout", NULL, 80},
                    {"tcp", NULL, 2222}}};
    fake_agent_start(&w->agent, &w->bench);
    assert_int_equal(w->agent.refused_requests, 0);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    fake_agent_stop(&w->agent);
    bench_stop(&w->bench);
    free(w);
    return 0;
}

static void expect(struct world *w, const char *method, const char *target, const char *fields,
                   const char *body, int status, const char *text)
{
    struct answer a;
    client_request(&w->bench, method, target, fields, body, &a);
    if (a.status != status || a.is_cut || (text && !answer_has(&a, text)))
        fail_msg("%s %s: want %d %s, got %s%.*s", method, target, status, text ? text : "", a.head,
                 (int)cv_buf_len(&a.body), (const char *)cv_buf_head(&a.body));
    answer_done(&a);
}

/* ---- who may ask ---- */

static void a_request_without_token_gets_401(void **state)
{
    struct world *w = *state;
    static const char *const heads[] = {
        "",
        "Authorization: Bearer nonsense\r\n",
        "Authorization: Basic YTpi\r\n",
        "Authorization: Bearer\r\n",
    };
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++) {
        int fd = client_connect(&w->bench);
        struct answer a;
        client_send(fd, "GET /t/home/hello HTTP/1.1\r\nHost: x\r\n");
        client_send(fd, heads[i]);
        client_send(fd, "\r\n");
        client_read(fd, &a, false, false);
        assert_int_equal(a.status, 401);
        assert_true(strncmp(answer_field(&a, "WWW-Authenticate"), "Bearer ", 7) == 0);
        assert_string_equal(answer_field(&a, "Content-Type"), "application/problem+json");
        assert_true(strlen(answer_field(&a, "X-Request-Id")) > 0);
        answer_done(&a);
        (void)close(fd);
    }
    assert_int_equal(fake_agent_count(&w->agent, &w->agent.opened), 0);
}

static void unknown_things_get_404(void **state)
{
    struct world *w = *state;
    expect(w, "GET", "/t/away/hello", NULL, NULL, 404, "urn:culvert:error:");
    expect(w, "GET", "/nowhere", NULL, NULL, 404, NULL);
    expect(w, "GET", "/t/Home/hello", NULL, NULL, 404, NULL);
    expect(w, "GET", "/t/h%6fme/hello", NULL, NULL, 404, NULL);
    expect(w, "GET", "/t/tcp/hello", NULL, NULL, 404, "TCP");
}

static void another_user_does_not_reach_the_tunnel(void **state)
{
    struct world *w = *state;
    struct cv_buf mine = w->bench.token;
    cv_buf_init(&w->bench.token, 8192);
    bench_token(&w->bench, "bob", &w->bench.token);
    expect(w, "GET", "/t/home/hello", NULL, NULL, 404, NULL);
    cv_buf_wipe(&w->bench.token);
    w->bench.token = mine;
    expect(w, "GET", "/t/home/hello", NULL, NULL, 200, "hello");
}

static void rules_are_enforced(void **state)
{
    struct world *w = *state;
    expect(w, "GET", "/t/ruled/hello", NULL, NULL, 200, "hello");
    expect(w, "GET", "/t/ruled/v1/x?y=/../z", NULL, NULL, 200, "GET /v1/x?y=/../z HTTP/1.1");
    expect(w, "POST", "/t/ruled/hello", "Content-Length: 0\r\n", NULL, 403, NULL);
    expect(w, "GET", "/t/ruled/v1/../hello2", NULL, NULL, 403, NULL);
    expect(w, "GET", "/t/ruled/v1/%2e%2e/admin", NULL, NULL, 403, NULL);
    expect(w, "GET", "/t/ruled/v1/..%2fadmin", NULL, NULL, 403, NULL);
    char *seen = fake_agent_seen(&w->agent);
    assert_null(strstr(seen, "admin"));
    free(seen);
}

/* ---- requests ---- */

static void the_service_gets_a_clean_head(void **state)
{
    struct world *w = *state;
    struct answer a;
    client_request(&w->bench, "GET", "/t/ruled/v1/a%20b?q=1",
                   "Cookie: a=b\r\nConnection: x-hop\r\nX-Hop: 1\r\nX-Forwarded-For: 6.6.6.6\r\n"
                   "X-Real-IP: 6.6.6.6\r\nCulvert-Secret: 1\r\nTE: trailers\r\nKeep-Alive: 5\r\n"
                   "Proxy-Connection: close\r\n",
                   NULL, &a);
    assert_int_equal(a.status, 200);
    assert_true(answer_has(&a, "GET /v1/a%20b?q=1 HTTP/1.1\r\nHost: svc:81\r\n"));
    assert_true(answer_has(&a, "Cookie: a=b\r\n"));
    assert_true(answer_has(&a, "X-Forwarded-For: 127.0.0.1\r\n"));
    assert_true(answer_has(&a, "X-Forwarded-Host: relay.test\r\n"));
    assert_true(answer_has(&a, "traceparent: 00-"));
    static const char *const gone[] = {
        "Bearer", "6.6.6.6",          "Culvert",           "X-Hop", "x-hop", "Keep-Alive",
        "TE:",    "Proxy-Connection", "relay.test\r\nAuth"};
    for (size_t i = 0; i < sizeof gone / sizeof gone[0]; i++)
        if (answer_has(&a, gone[i]))
            fail_msg("%s went through", gone[i]);
    answer_done(&a);
}

static void bodies_go_through_in_both_framings(void **state)
{
    struct world *w = *state;
    expect(w, "POST", "/t/home/echo", "Content-Length: 5\r\n", "12345", 200,
           "Content-Length: 5\r\n\r\n12345");
    expect(w, "POST", "/t/home/echo", "Content-Length: 0\r\n", NULL, 200, "Content-Length: 0\r\n");
    expect(w, "PUT", "/t/home/echo", "Transfer-Encoding: chunked\r\n",
           "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", 200, "Transfer-Encoding: chunked\r\n");
    expect(w, "PUT", "/t/home/echo", "Transfer-Encoding: chunked\r\n",
           "3\r\nabc\r\n0\r\nX-Sum: 3\r\n\r\n", 200, "abc");
    struct answer a;
    client_request(&w->bench, "GET", "/t/home/chunked", NULL, NULL, &a);
    assert_string_equal(answer_field(&a, "Transfer-Encoding"), "chunked");
    assert_true(answer_has(&a, "hello, world"));
    answer_done(&a);
}

static void a_large_body_is_carried_whole(void **state)
{
    struct world *w = *state;
    enum { LEN = 3000000 };
    char *body = malloc(LEN), fields[64];
    assert_non_null(body);
    for (size_t i = 0; i < LEN; i++)
        body[i] = (char)('a' + i * 2654435761u % 26);
    (void)snprintf(fields, sizeof fields, "Content-Length: %d\r\n", LEN);
    char *head = client_head(&w->bench, "POST", "/t/home/echo", fields);
    int fd = client_connect(&w->bench);
    struct answer a;
    client_send(fd, head);
    client_send_bytes(fd, body, LEN);
    client_read(fd, &a, false, false);
    assert_int_equal(a.status, 200);
    assert_true(cv_buf_len(&a.body) > LEN);
    assert_memory_equal(cv_buf_head(&a.body) + cv_buf_len(&a.body) - LEN, body, LEN);
    answer_done(&a);
    (void)close(fd);
    free(head);
    free(body);
}

static void answers_without_body(void **state)
{
    struct world *w = *state;
    struct answer a;
    int fd = client_connect(&w->bench);
    char *get204 = client_head(&w->bench, "GET", "/t/home/204", NULL);
    char *get304 = client_head(&w->bench, "GET", "/t/home/304", NULL);
    char *head = client_head(&w->bench, "HEAD", "/t/home/hello", NULL);
    char *head404 = client_head(&w->bench, "HEAD", "/t/none/hello", NULL);
    client_send(fd, get204);
    client_read(fd, &a, false, false);
    assert_int_equal(a.status, 204);
    assert_string_equal(answer_field(&a, "Content-Length"), "");
    assert_string_equal(answer_field(&a, "Transfer-Encoding"), "");
    client_send(fd, get304);
    client_read(fd, &a, false, false);
    assert_int_equal(a.status, 304);
    assert_string_equal(answer_field(&a, "ETag"), "\"x\"");
    client_send(fd, head);
    client_read(fd, &a, true, false);
    assert_int_equal(a.status, 200);
    assert_string_equal(answer_field(&a, "Content-Length"), "5");
    client_send(fd, head404);
    client_read(fd, &a, true, false);
    assert_int_equal(a.status, 404);
    client_send(fd, get204); /* the same connection all along */
    client_read(fd, &a, false, false);
    assert_int_equal(a.status, 204);
    (void)close(fd);
    free(get204);
    free(get304);
    free(head);
    free(head404);
}

static void a_connection_carries_many_requests(void **state)
{
    struct world *w = *state;
    int fd = client_connect(&w->bench);
    char *head = client_head(&w->bench, "GET", "/t/home/hello", NULL);
    for (int i = 0; i < 20; i++) {
        struct answer a;
        client_send(fd, head);
        client_read(fd, &a, false, false);
        assert_int_equal(a.status, 200);
        assert_true(answer_has(&a, "hello"));
        answer_done(&a);
    }
    assert_int_equal(fake_agent_count(&w->agent, &w->agent.opened), 1); /* and the stream too */
    (void)close(fd);
    free(head);
}

static void pipelined_requests_are_answered_in_order(void **state)
{
    struct world *w = *state;
    int fd = client_connect(&w->bench);
    struct cv_buf all;
    cv_buf_init(&all, 1 << 20);
    for (int i = 0; i < 30; i++) {
        char target[32];
        (void)snprintf(target, sizeof target, "/t/%s/n%d", i % 5 == 4 ? "none" : "home", i);
        char *head = client_head(&w->bench, "POST", target, "Content-Length: 3\r\n");
        if (i % 5 == 4) { /* an error answer in between keeps the connection without a body */
            free(head);
            head = client_head(&w->bench, "GET", target, NULL);
        }
        assert_ok(cv_buf_append_str(&all, head));
        if (i % 5 != 4)
            assert_ok(cv_buf_append_str(&all, "abc"));
        free(head);
    }
    client_send_bytes(fd, cv_buf_head(&all), cv_buf_len(&all));
    for (int i = 0; i < 30; i++) {
        struct answer a;
        char want[32];
        (void)snprintf(want, sizeof want, "POST /n%d ", i);
        client_read(fd, &a, false, false);
        assert_int_equal(a.status, i % 5 == 4 ? 404 : 200);
        assert_true(i % 5 == 4 || answer_has(&a, want));
        answer_done(&a);
    }
    cv_buf_done(&all);
    (void)close(fd);
}

/* A stream that is used again and again must give its window back each time. */
static void a_pooled_stream_does_not_run_dry(void **state)
{
    struct world *w = *state;
    int fd = client_connect(&w->bench);
    char *head = client_head(&w->bench, "GET", "/t/home/big?30000", NULL);
    for (int i = 0; i < 200; i++) {
        struct answer a;
        client_send(fd, head);
        client_read(fd, &a, false, false);
        assert_int_equal(cv_buf_len(&a.body), 30000);
        answer_done(&a);
    }
    assert_int_equal(fake_agent_count(&w->agent, &w->agent.opened), 1);
    (void)close(fd);
    free(head);
}

static void interim_answers(void **state)
{
    struct world *w = *state;
    struct answer a;
    int fd = client_connect(&w->bench);
    char *head = client_head(&w->bench, "GET", "/t/home/hints", NULL);
    client_send(fd, head);
    client_read(fd, &a, false, true);
    assert_int_equal(a.status, 103);
    assert_string_equal(answer_field(&a, "Link"), "</x>");
    client_read(fd, &a, false, true);
    assert_int_equal(a.status, 200);
    answer_done(&a);
    (void)close(fd);
    free(head);
    expect(w, "GET", "/t/home/only-hints", NULL, NULL, 502, NULL);
}

static void expect_100_is_answered_once_there_is_a_stream(void **state)
{
    struct world *w = *state;
    struct answer a;
    int fd = client_connect(&w->bench);
    char *head = client_head(&w->bench, "POST", "/t/home/echo",
                             "Content-Length: 4\r\nExpect: 100-continue\r\n");
    client_send(fd, head);
    client_read(fd, &a, false, true);
    assert_int_equal(a.status, 100);
    client_send(fd, "body");
    client_read(fd, &a, false, true);
    assert_int_equal(a.status, 200);
    assert_true(answer_has(&a, "body"));
    assert_false(answer_has(&a, "Expect"));
    answer_done(&a);
    (void)close(fd);
    free(head);

    fd = client_connect(&w->bench);
    head = client_head(&w->bench, "POST", "/t/refuse/echo",
                       "Content-Length: 4\r\nExpect: 100-continue\r\n");
    client_send(fd, head);
    client_read(fd, &a, false, true);
    assert_int_equal(a.status, 502);
    answer_done(&a);
    (void)close(fd);
    free(head);
}

static void http_1_0(void **state)
{
    struct world *w = *state;
    static const char *const paths[] = {"/hello", "/chunked", "/until-close", "/hints"};
    static const char *const want[] = {"hello", "hello, world", "to the end", "ok"};
    for (size_t i = 0; i < 4; i++) {
        struct answer a;
        char text[4096];
        int fd = client_connect(&w->bench);
        (void)snprintf(text, sizeof text,
                       "GET /t/home%s HTTP/1.0\r\nAuthorization: Bearer %s\r\n\r\n", paths[i],
                       (const char *)cv_buf_head(&w->bench.token));
        client_send(fd, text);
        client_read(fd, &a, false, true);
        assert_int_equal(a.status, 200);
        assert_string_equal(answer_field(&a, "Transfer-Encoding"), "");
        assert_true(answer_has(&a, want[i]));
        assert_true(client_is_closed(fd));
        answer_done(&a);
        (void)close(fd);
    }
}

static void answers_until_close_become_chunked(void **state)
{
    struct world *w = *state;
    static const char *const paths[] = {"/t/home/until-close", "/t/home/until-eof"};
    int fd = client_connect(&w->bench);
    for (size_t i = 0; i < 2; i++) {
        struct answer a;
        char *head = client_head(&w->bench, "GET", paths[i], NULL);
        client_send(fd, head);
        client_read(fd, &a, false, false);
        assert_int_equal(a.status, 200);
        assert_false(a.is_cut);
        assert_string_equal(answer_field(&a, "Transfer-Encoding"), "chunked");
        assert_true(answer_has(&a, "to the end"));
        answer_done(&a);
        free(head);
    }
    (void)close(fd);
}

static void an_upgrade_carries_bytes_both_ways(void **state)
{
    struct world *w = *state;
    struct answer a;
    char bytes[8] = "";
    int fd = client_connect(&w->bench);
    char *head = client_head(&w->bench, "GET", "/t/home/ws",
                             "Connection: Upgrade\r\nUpgrade: websocket\r\n"
                             "Sec-WebSocket-Version: 13\r\n"
                             "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n");
    client_send(fd, head);
    client_send(fd, "early"); /* before the 101 */
    client_read(fd, &a, false, false);
    assert_int_equal(a.status, 101);
    assert_string_equal(answer_field(&a, "Sec-WebSocket-Accept"), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    client_read_bytes(fd, bytes, 7);
    assert_memory_equal(bytes, "hiearly", 7);
    for (int i = 0; i < 10; i++) {
        client_send(fd, "ping");
        client_read_bytes(fd, bytes, 4);
        assert_memory_equal(bytes, "ping", 4);
    }
    (void)shutdown(fd, SHUT_WR);
    assert_true(client_is_closed(fd));
    (void)close(fd);
    free(head);
    /* A service that does not upgrade answers as ever. */
    expect(w, "GET", "/t/home/hello", "Connection: Upgrade\r\nUpgrade: websocket\r\n", NULL, 200,
           "hello");
}

static void a_slash_is_added_to_a_bare_tunnel(void **state)
{
    struct world *w = *state;
    struct answer a;
    client_request(&w->bench, "GET", "/t/home", NULL, NULL, &a);
    assert_int_equal(a.status, 308);
    assert_string_equal(answer_field(&a, "Location"), "/t/home/");
    answer_done(&a);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(a_request_without_token_gets_401),
        T(unknown_things_get_404),
        T(another_user_does_not_reach_the_tunnel),
        T(rules_are_enforced),
        T(the_service_gets_a_clean_head),
        T(bodies_go_through_in_both_framings),
        T(a_large_body_is_carried_whole),
        T(answers_without_body),
        T(a_connection_carries_many_requests),
        T(pipelined_requests_are_answered_in_order),
        T(a_pooled_stream_does_not_run_dry),
        T(interim_answers),
        T(expect_100_is_answered_once_there_is_a_stream),
        T(http_1_0),
        T(answers_until_close_become_chunked),
        T(an_upgrade_carries_bytes_both_ways),
        T(a_slash_is_added_to_a_bare_tunnel),
    };
    if (!cv_is_ok(cv_net_init()))
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cv_net_done();
    return failed;
}
