/* SPDX-License-Identifier: MIT
 *
 * What goes wrong: malformed requests, services that fail, limits, slow and vanishing consumers.
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

static struct world *start(const char *const *settings, uint32_t accept_delay_ms)
{
    struct world *w = calloc(1, sizeof *w);
    assert_non_null(w);
    (void)alarm(120);
    bench_start(&w->bench, "1", settings);
    w->agent = (struct fake_agent){.accept_delay_ms = accept_delay_ms,
                                   .tunnels = {{"home", NULL, 80},
                                               {"refuse", NULL, 80},
                                               {"timeout", NULL, 80},
                                               {"silent", NULL, 80},
                                               {"deaf", NULL, 80},
                                               {"one", "{\"name\":\"one\",\"concurrency\":1}", 80},
                                               {"tcp", NULL, 2222}}};
    fake_agent_start(&w->agent, &w->bench);
    assert_int_equal(w->agent.refused_requests, 0);
    return w;
}

static void stop(struct world *w)
{
    fake_agent_stop(&w->agent);
    bench_stop(&w->bench);
    free(w);
}

static int setup(void **state)
{
    *state = start(NULL, 0);
    return 0;
}

static int teardown(void **state)
{
    stop(*state);
    return 0;
}

static int send_request(const struct world *w, const char *method, const char *target,
                        const char *fields)
{
    int fd = client_connect(&w->bench);
    char *head = client_head(&w->bench, method, target, fields);
    client_send(fd, head);
    free(head);
    return fd;
}

static int read_status(int fd)
{
    struct answer a;
    client_read(fd, &a, false, false);
    int status = a.status;
    answer_done(&a);
    return status;
}

static int status_of(const struct world *w, const char *method, const char *target)
{
    int fd = send_request(w, method, target, NULL);
    int status = read_status(fd);
    (void)close(fd);
    return status;
}

static bool is_idle(const struct fake_agent *agent)
{
    return agent->open == 0;
}

static bool has_one_request(const struct fake_agent *agent)
{
    return agent->requests >= 1;
}

static bool has_stream(const struct fake_agent *agent)
{
    return agent->opened >= 1;
}

/* ---- malformed requests ---- */

static void ambiguous_framing_gets_400_and_nothing_more(void **state)
{
    struct world *w = *state;
    static const char *const fields[] = {
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 5, 5x\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding : chunked\r\n",
        "X: a\r\n folded: b\r\n",
        "X: a\nY: b\r\n",
        "Host: second\r\n",
        "X\1: y\r\n",
    };
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        int fd = send_request(w, "POST", "/t/home/echo", fields[i]);
        (void)send(fd, "0\r\n\r\nGET /t/home/smuggled HTTP/1.1\r\nHost: x\r\n\r\n", 47,
                   MSG_NOSIGNAL);
        int status = read_status(fd);
        if (status != 400 && status != 501)
            fail_msg("%s: %d", fields[i], status);
        assert_true(client_is_closed(fd));
        (void)close(fd);
    }
    assert_int_equal(fake_agent_count(&w->agent, &w->agent.opened), 0);
}

static void a_bad_body_ends_the_request(void **state)
{
    struct world *w = *state;
    static const char *const bodies[] = {"x\r\n", "5\r\nhellothere\r\n", "ffffffffffffffffff\r\n",
                                         "5 \r\nhello\r\n0\r\n\r\n\r\r", "-1\r\n"};
    for (size_t i = 0; i < 3; i++) {
        int fd = send_request(w, "POST", "/t/home/hang", "Transfer-Encoding: chunked\r\n");
        client_send(fd, "3\r\nabc\r\n");
        client_send(fd, bodies[i]);
        (void)send(fd, "GET /t/home/smuggled HTTP/1.1\r\nHost: x\r\n\r\n", 42, MSG_NOSIGNAL);
        assert_int_equal(read_status(fd), 400);
        assert_true(client_is_closed(fd));
        (void)close(fd);
    }
    fake_agent_wait(&w->agent, is_idle, "the streams to close");
    char *seen = fake_agent_seen(&w->agent);
    assert_null(strstr(seen, "smuggled"));
    assert_null(strstr(seen, "\r\n0\r\n")); /* no request looked whole */
    free(seen);
}

static void limits_of_a_request(void **state)
{
    (void)state;
    static const char *const settings[] = {
        "limits.body_bytes", "10", "limits.head_bytes", "2KiB", "limits.line_bytes", "1KiB", NULL};
    struct world *w = start(settings, 0);
    char target[1500] = "/t/home/";
    memset(target + 8, 'a', sizeof target - 9);
    target[sizeof target - 1] = 0;
    assert_int_equal(status_of(w, "GET", target), 414);
    int fd = send_request(w, "POST", "/t/home/echo", "Content-Length: 11\r\n");
    assert_int_equal(read_status(fd), 413);
    (void)close(fd);
    fd = send_request(w, "POST", "/t/home/echo", "Transfer-Encoding: chunked\r\n");
    client_send(fd, "6\r\nabcdef\r\n6\r\nabcdef\r\n0\r\n\r\n");
    assert_int_equal(read_status(fd), 413);
    (void)close(fd);
    char field[2200] = "X: ";
    memset(field + 3, 'a', sizeof field - 6);
    memcpy(field + sizeof field - 3, "\r\n", 3);
    fd = send_request(w, "GET", "/t/home/hello", field);
    assert_int_equal(read_status(fd), 431);
    (void)close(fd);
    assert_int_equal(status_of(w, "GET", "/t/home/hello"), 200);
    stop(w);
}

static void a_slow_second_head_gets_408(void **state)
{
    (void)state;
    static const char *const settings[] = {"limits.header_timeout", "1s", "cors.origins", "*",
                                           NULL};
    struct world *w = start(settings, 0);
    struct answer a;
    int fd = send_request(w, "GET", "/t/home/hello", "Origin: https://a.example\r\n");
    assert_int_equal(read_status(fd), 200);
    char half[6000] = "GET /t/home/hello HTTP/1.1\r\nX: ";
    memset(half + strlen(half), 'h', sizeof half - 1 - strlen(half));
    client_send(fd, half);
    client_read(fd, &a, false, false);
    assert_int_equal(a.status, 408);
    assert_string_equal(answer_field(&a, "Access-Control-Allow-Origin"), "");
    assert_true(answer_field(&a, "X-Request-Id")[0] != 0);
    answer_done(&a);
    (void)close(fd);
    stop(w);
}

/* ---- services that fail ---- */

static void services_that_cannot_be_reached(void **state)
{
    struct world *w = *state;
    assert_int_equal(status_of(w, "GET", "/t/refuse/"), 502);
    assert_int_equal(status_of(w, "GET", "/t/timeout/"), 504);
    assert_int_equal(status_of(w, "POST", "/t/refuse/"), 502);
    int fd = send_request(w, "GET", "/t/refuse/", NULL); /* the connection lives on */
    assert_int_equal(read_status(fd), 502);
    char *head = client_head(&w->bench, "GET", "/t/home/hello", NULL);
    client_send(fd, head);
    assert_int_equal(read_status(fd), 200);
    free(head);
    (void)close(fd);
}

static void services_that_answer_badly(void **state)
{
    struct world *w = *state;
    static const char *const paths[] = {"/t/home/close", "/t/home/eof", "/t/home/bad",
                                        "/t/home/bad-framing", "/t/home/only-hints"};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++) {
        int status = status_of(w, "POST", paths[i]);
        if (status != 502)
            fail_msg("POST %s: %d", paths[i], status);
    }
    assert_int_equal(status_of(w, "GET", "/t/home/close"), 502);
    fake_agent_wait(&w->agent, is_idle, "the streams to close");
}

/* Bytes behind an answer must not become the answer of whoever comes next. */
static void bytes_behind_an_answer_poison_the_stream(void **state)
{
    struct world *w = *state;
    int fd = client_connect(&w->bench);
    char *extra = client_head(&w->bench, "GET", "/t/home/extra", NULL);
    char *hello = client_head(&w->bench, "GET", "/t/home/hello", NULL);
    for (int i = 0; i < 5; i++) {
        struct answer a;
        client_send(fd, extra);
        client_read(fd, &a, false, false);
        assert_true(cv_slice_is(cv_buf_slice(&a.body), "ok"));
        answer_done(&a);
        client_send(fd, hello);
        client_read(fd, &a, false, false);
        assert_true(cv_slice_is(cv_buf_slice(&a.body), "hello"));
        answer_done(&a);
    }
    assert_int_equal(fake_agent_count(&w->agent, &w->agent.opened), 6);
    (void)close(fd);
    free(extra);
    free(hello);
}

static void cut_answers_look_cut(void **state)
{
    struct world *w = *state;
    static const struct {
        const char *path, *mark;
    } cases[] = {{"/t/home/cut-length", NULL},
                 {"/t/home/cut-chunked", NULL},
                 {"/t/home/cut-sse", "data: one\n\nevent: error\ndata: {\"error\":{"},
                 {"/t/home/cut-ndjson", "{\"a\":1}\n{\"error\":{"}};
    for (size_t i = 0; i < 4; i++) {
        struct answer a;
        int fd = send_request(w, "GET", cases[i].path, NULL);
        client_read(fd, &a, false, false);
        assert_int_equal(a.status, 200);
        assert_true(a.is_cut);
        if (cases[i].mark && !answer_has(&a, cases[i].mark))
            fail_msg("%s: %.*s", cases[i].path, (int)cv_buf_len(&a.body),
                     (const char *)cv_buf_head(&a.body));
        answer_done(&a);
        (void)close(fd);
    }
}

static void timers_of_an_answer(void **state)
{
    (void)state;
    static const char *const settings[] = {"timers.first_byte", "300ms", "timers.idle", "300ms",
                                           NULL};
    struct world *w = start(settings, 0);
    struct answer a;
    assert_int_equal(status_of(w, "GET", "/t/home/hang"), 504);
    assert_int_equal(status_of(w, "GET", "/t/silent/"), 504);
    client_request(&w->bench, "GET", "/t/home/hang-body", NULL, NULL, &a);
    assert_int_equal(a.status, 200);
    assert_true(a.is_cut);
    answer_done(&a);
    stop(w);
}

/* An early answer: the rest of the body is not read, the connection ends in order. */
static void an_answer_before_the_body_is_passed_on(void **state)
{
    struct world *w = *state;
    struct answer a;
    int fd = send_request(w, "POST", "/t/home/early", "Content-Length: 100000\r\n");
    client_send(fd, "only some");
    client_read(fd, &a, false, false);
    assert_int_equal(a.status, 413);
    assert_string_equal(answer_field(&a, "Connection"), "close");
    assert_true(answer_has(&a, "no\n"));
    answer_done(&a);
    (void)shutdown(fd, SHUT_WR);
    assert_true(client_is_closed(fd));
    (void)close(fd);
    fake_agent_wait(&w->agent, is_idle, "the stream to close");
}

/* ---- consumers ---- */

static void a_consumer_that_goes_away_closes_its_stream(void **state)
{
    struct world *w = *state;
    int fd = send_request(w, "GET", "/t/home/hang", NULL);
    fake_agent_wait(&w->agent, has_one_request, "the request");
    (void)close(fd);
    fake_agent_wait(&w->agent, is_idle, "the stream to close");

    fd = send_request(w, "GET", "/t/home/big?900000000", NULL);
    char some[1000];
    client_read_bytes(fd, some, sizeof some);
    (void)close(fd);
    fake_agent_wait(&w->agent, is_idle, "the second stream to close");

    fd = send_request(w, "GET", "/t/silent/", NULL);
    usleep(100000);
    (void)close(fd);
}

static uint64_t sent_by(struct world *w)
{
    (void)pthread_mutex_lock(&w->agent.lock);
    uint64_t sent = w->agent.sent;
    (void)pthread_mutex_unlock(&w->agent.lock);
    return sent;
}

static uint64_t settled(struct world *w)
{
    uint64_t before, now = 0;
    do {
        before = now;
        usleep(300000);
        now = sent_by(w);
    } while (now != before || now == 0);
    return now;
}

static void a_slow_consumer_holds_its_service_back(void **state)
{
    struct world *w = *state;
    int small = 65536;
    int fd = client_connect(&w->bench);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    char *head = client_head(&w->bench, "GET", "/t/home/big?200000000", NULL);
    client_send(fd, head);
    uint64_t sent = settled(w);
    /* Window, what the link and the sockets hold. */
    assert_true(sent < 16u << 20);
    /* Others go on. */
    assert_int_equal(status_of(w, "GET", "/t/home/hello"), 200);
    /* And it goes on itself once it reads. */
    char block[65536];
    uint64_t got = 0;
    while (got < 60000000) {
        ssize_t n = recv(fd, block, sizeof block, 0);
        assert_true(n > 0);
        got += (uint64_t)n;
    }
    (void)close(fd);
    free(head);
}

/* What is whole in the relay must reach a consumer that takes its time, also on its last request.
 */
static void a_slow_consumer_gets_all_of_its_last_answer(void **state)
{
    (void)state;
    static const char *const settings[] = {"limits.body_idle_timeout", "4s", NULL};
    struct world *w = start(settings, 0);
    int small = 65536;
    int fd = client_connect(&w->bench);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    char *head = client_head(&w->bench, "GET", "/t/home/big?6000000", "Connection: close\r\n");
    client_send(fd, head);
    free(head);
    char block[65536];
    uint64_t got = 0;
    for (ssize_t n = 1; n > 0; got += n > 0 ? (uint64_t)n : 0) {
        if (got < 1000000)
            usleep(200000);
        else if (got < 1200000)
            usleep(1000000);
        n = recv(fd, block, sizeof block, 0);
    }
    assert_true(got > 6000000);
    (void)close(fd);
    /* Nothing at all for that long ends it. */
    fd = client_connect(&w->bench);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    head = client_head(&w->bench, "GET", "/t/home/big?60000000", NULL);
    client_send(fd, head);
    free(head);
    fake_agent_wait(&w->agent, has_stream, "the stream");
    fake_agent_wait(&w->agent, is_idle, "the stream to close");
    (void)close(fd);
    stop(w);
}

/* Answers to pipelined requests must not pile up either. */
static void a_consumer_that_only_asks_is_held_back(void **state)
{
    struct world *w = *state;
    struct answer a;
    int fd = client_connect(&w->bench), small = 65536;
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    char *head = client_head(&w->bench, "GET", "/t/home/big?1500000", NULL);
    for (int i = 0; i < 40; i++)
        client_send(fd, head);
    assert_true(settled(w) < 16u << 20);
    for (int i = 0; i < 40; i++) {
        client_read(fd, &a, false, false);
        assert_int_equal(a.status, 200);
        assert_int_equal(cv_buf_len(&a.body), 1500000);
        answer_done(&a);
    }
    (void)close(fd);
    free(head);
}

static void send_large(struct world *w, const char *target, size_t len)
{
    char fields[64];
    char *body = malloc(len);
    assert_non_null(body);
    memset(body, 'b', len);
    (void)snprintf(fields, sizeof fields, "Content-Length: %zu\r\n", len);
    int fd = send_request(w, "POST", target, fields);
    struct answer a;
    client_send_bytes(fd, body, len);
    client_read(fd, &a, false, false);
    if (a.status != 200)
        fail_msg("%s%.*s", a.head, (int)cv_buf_len(&a.body), (const char *)cv_buf_head(&a.body));
    assert_true(cv_buf_len(&a.body) > len);
    answer_done(&a);
    (void)close(fd);
    free(body);
}

/* While the stream opens, a body has to wait in the consumer's socket. */
static void a_large_body_waits_for_its_stream(void **state)
{
    (void)state;
    struct world *w = start(NULL, 500);
    send_large(w, "/t/home/echo", 3000000);
    stop(w);
}

static void a_service_that_does_not_read_holds_its_consumer_back(void **state)
{
    struct world *w = *state;
    struct timeval limit = {.tv_usec = 500000};
    int fd = send_request(w, "POST", "/t/deaf/deaf", "Content-Length: 200000000\r\n");
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    char block[65536];
    size_t sent = 0;
    memset(block, 'x', sizeof block);
    for (ssize_t n = 1; n > 0; sent += n > 0 ? (size_t)n : 0)
        n = send(fd, block, sizeof block, MSG_NOSIGNAL);
    assert_true(sent > 100000 && sent < 32u << 20);
    /* A FIN would wait behind what is not read; a reset does not. */
    struct linger now = {.l_onoff = 1};
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    (void)close(fd);
    fake_agent_wait(&w->agent, is_idle, "the stream to close");
}

/* ---- channels ---- */

static void requests_queue_for_a_channel(void **state)
{
    (void)state;
    static const char *const settings[] = {"ssh.max_channels", "1", "queue.size", "10", NULL};
    struct world *w = start(settings, 0);
    int fds[12];
    fds[0] = send_request(w, "GET", "/t/home/hang", NULL);
    fake_agent_wait(&w->agent, has_one_request, "the first request");
    for (int i = 1; i < 11; i++)
        fds[i] = send_request(w, "GET", "/t/home/hello", NULL);
    usleep(200000);
    assert_int_equal(status_of(w, "GET", "/t/home/hello"), 503); /* the queue is full */
    (void)close(fds[0]);
    for (int i = 1; i < 11; i++) {
        assert_int_equal(read_status(fds[i]), 200);
        (void)close(fds[i]);
    }
    assert_int_equal(fake_agent_count(&w->agent, &w->agent.most_open), 1);
    /* The idle stream of one tunnel makes room for another. */
    assert_int_equal(status_of(w, "GET", "/t/one/hello"), 200);
    assert_int_equal(status_of(w, "GET", "/t/refuse/hello"), 502);
    assert_int_equal(status_of(w, "GET", "/t/home/hello"), 200);
    stop(w);
}

static void concurrency_holds_only_its_own_tunnel(void **state)
{
    struct world *w = *state;
    int first = send_request(w, "GET", "/t/one/hang", NULL);
    fake_agent_wait(&w->agent, has_one_request, "the first request");
    int second = send_request(w, "GET", "/t/one/hello", NULL);
    usleep(200000);
    /* Another tunnel's request passes the one that waits. */
    assert_int_equal(status_of(w, "GET", "/t/home/hello"), 200);
    assert_int_equal(fake_agent_count(&w->agent, &w->agent.requests), 2);
    (void)close(first);
    assert_int_equal(read_status(second), 200);
    (void)close(second);
}

/* With an idle stream of the tunnel at hand the limit holds all the same. */
static void concurrency_counts_reused_streams(void **state)
{
    struct world *w = *state;
    assert_int_equal(status_of(w, "GET", "/t/one/hello"), 200);
    usleep(1200000); /* too old for a request that cannot be repeated */
    int first = send_request(w, "POST", "/t/one/hang", NULL);
    usleep(300000);
    int second = send_request(w, "GET", "/t/one/hello", NULL);
    usleep(300000);
    assert_int_equal(fake_agent_count(&w->agent, &w->agent.requests), 2);
    (void)close(first);
    assert_int_equal(read_status(second), 200);
    (void)close(second);
}

static void stale_streams_are_not_noticed(void **state)
{
    struct world *w = *state;
    /* The service closes behind its answer, without having said so. */
    for (int i = 0; i < 5; i++) {
        assert_int_equal(status_of(w, "GET", "/t/home/hello"), 200);
        assert_int_equal(status_of(w, "GET", "/t/home/close"), 502);
    }
    assert_true(has_stream(&w->agent));
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(ambiguous_framing_gets_400_and_nothing_more),
        T(a_bad_body_ends_the_request),
        cmocka_unit_test(limits_of_a_request),
        cmocka_unit_test(a_slow_second_head_gets_408),
        T(services_that_cannot_be_reached),
        T(services_that_answer_badly),
        T(bytes_behind_an_answer_poison_the_stream),
        T(cut_answers_look_cut),
        cmocka_unit_test(timers_of_an_answer),
        T(an_answer_before_the_body_is_passed_on),
        T(a_consumer_that_goes_away_closes_its_stream),
        T(a_slow_consumer_holds_its_service_back),
        cmocka_unit_test(a_slow_consumer_gets_all_of_its_last_answer),
        T(a_consumer_that_only_asks_is_held_back),
        cmocka_unit_test(a_large_body_waits_for_its_stream),
        T(a_service_that_does_not_read_holds_its_consumer_back),
        cmocka_unit_test(requests_queue_for_a_channel),
        T(concurrency_holds_only_its_own_tunnel),
        T(concurrency_counts_reused_streams),
        T(stale_streams_are_not_noticed),
    };
    if (!cv_is_ok(cv_net_init()))
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cv_net_done();
    return failed;
}
