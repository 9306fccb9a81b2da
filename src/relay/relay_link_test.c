/* SPDX-License-Identifier: MIT
 *
 * Several workers and several links: moving, streams on other workers, users' own streams,
 * displacement, second tries, the end of a relay.
 */
#include "relay/relay_bench.h"

#include "net/net.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define AGENT_1 "11111111111111111111111111111111"
#define AGENT_2 "22222222222222222222222222222222"

static const char *const many_links[] = {"limits.max_links_per_user", "100", NULL};

static void expect(struct bench *bench, const char *target, int status, const char *text)
{
    struct answer a;
    client_request(bench, "GET", target, NULL, NULL, &a);
    if (a.status != status || (text && !answer_has(&a, text)))
        fail_msg("%s: %s%.*s", target, a.head, (int)cv_buf_len(&a.body),
                 (const char *)cv_buf_head(&a.body));
    answer_done(&a);
}

static bool is_idle(const struct fake_agent *agent)
{
    return agent->open == 0;
}

static bool has_request(const struct fake_agent *agent)
{
    return agent->requests >= 1;
}

static bool has_notice(const struct fake_agent *agent)
{
    return agent->notice[0] != 0;
}

static bool is_closed(const struct fake_agent *agent)
{
    return agent->is_closed;
}

/* ---- workers ---- */

enum { LINKS = 6 };

/* Agents of six users' names, so that some are on every worker. */
static void start_agents(struct bench *bench, struct fake_agent agents[LINKS])
{
    static const char *const names[LINKS] = {"n0", "n1", "n2", "n3", "n4", "n5"};
    for (size_t i = 0; i < LINKS; i++) {
        agents[i] = (struct fake_agent){.tunnels = {{names[i], NULL, 80}}};
        fake_agent_start(&agents[i], bench);
        assert_int_equal(agents[i].refused_requests, 0);
    }
}

struct hammer {
    struct bench *bench;
    unsigned number;
    pthread_t thread;
    unsigned good;
};

static void send_and_check(struct hammer *h, int fd, unsigned tunnel, unsigned round)
{
    struct answer a;
    char target[64], want[64], fields[64], body[3001];
    bool has_body = round % 3 == 1;
    (void)snprintf(target, sizeof target, "/t/n%u/%s", tunnel, round % 3 == 2 ? "big?100000" : "x");
    (void)snprintf(want, sizeof want, "%s /x ", has_body ? "POST" : "GET");
    (void)snprintf(fields, sizeof fields, "Content-Length: %zu\r\n", sizeof body - 1);
    char *head = client_head(h->bench, has_body ? "POST" : "GET", target, has_body ? fields : NULL);
    memset(body, 'b', sizeof body - 1);
    body[sizeof body - 1] = 0;
    client_send(fd, head);
    if (has_body)
        client_send(fd, body);
    client_read(fd, &a, false, false);
    bool is_good = a.status == 200 && !a.is_cut;
    is_good &= round % 3 == 2 ? cv_buf_len(&a.body) == 100000 : answer_has(&a, want);
    is_good &= !has_body || answer_has(&a, body);
    h->good += is_good;
    answer_done(&a);
    free(head);
}

static void *hammer(void *arg)
{
    struct hammer *h = arg;
    for (unsigned i = 0; i < 10; i++) {
        int fd = client_connect(h->bench);
        for (unsigned j = 0; j < 6; j++)
            send_and_check(h, fd, (h->number + i + j) % LINKS, i + j);
        (void)close(fd);
    }
    return NULL;
}

static void requests_reach_links_on_any_worker(void **state)
{
    (void)state;
    struct bench bench;
    struct fake_agent agents[LINKS];
    struct hammer hammers[4] = {0};
    (void)alarm(120);
    bench_start(&bench, "4", many_links);
    start_agents(&bench, agents);
    for (unsigned i = 0; i < 4; i++) {
        hammers[i] = (struct hammer){.bench = &bench, .number = i};
        assert_int_equal(pthread_create(&hammers[i].thread, NULL, hammer, &hammers[i]), 0);
    }
    for (unsigned i = 0; i < 4; i++) {
        (void)pthread_join(hammers[i].thread, NULL);
        assert_int_equal(hammers[i].good, 60);
    }
    for (size_t i = 0; i < LINKS; i++)
        fake_agent_stop(&agents[i]);
    bench_stop(&bench);
}

/* Large bodies both ways, on a connection that has moved once already. */
static void bulk_through_another_worker(void **state)
{
    (void)state;
    enum { LEN = 2000000 };
    struct bench bench;
    struct fake_agent agents[LINKS];
    char fields[64], target[32];
    char *body = malloc(LEN);
    assert_non_null(body);
    memset(body, 'q', LEN);
    (void)alarm(120);
    bench_start(&bench, "4", many_links);
    start_agents(&bench, agents);
    (void)snprintf(fields, sizeof fields, "Content-Length: %d\r\n", LEN);
    int fd = client_connect(&bench);
    for (unsigned i = 0; i < 2 * LINKS; i++) {
        struct answer a;
        (void)snprintf(target, sizeof target, "/t/n%u/x", i % LINKS);
        char *head = client_head(&bench, "POST", target, fields);
        client_send(fd, head);
        client_send_bytes(fd, body, LEN);
        client_read(fd, &a, false, false);
        assert_int_equal(a.status, 200);
        assert_true(cv_buf_len(&a.body) > LEN);
        answer_done(&a);
        free(head);
    }
    (void)close(fd);
    free(body);
    for (size_t i = 0; i < LINKS; i++)
        fake_agent_stop(&agents[i]);
    bench_stop(&bench);
}

/* Links and consumers that come and go while the relay works, and are cut off by its end. */
static void everything_ends_in_the_middle(void **state)
{
    (void)state;
    struct bench bench;
    struct fake_agent agents[LINKS];
    int fds[4 * LINKS];
    (void)alarm(120);
    bench_start(&bench, "4", many_links);
    start_agents(&bench, agents);
    for (unsigned i = 0; i < 4 * LINKS; i++) {
        char target[32];
        (void)snprintf(target, sizeof target, "/t/n%u/%s", i % LINKS,
                       i % 2 ? "hang" : "big?90000000");
        char *head = client_head(&bench, "GET", target, NULL);
        fds[i] = client_connect(&bench);
        client_send(fds[i], head);
        free(head);
    }
    for (unsigned i = 0; i < LINKS; i++)
        fake_agent_wait(&agents[i], has_request, "a request");
    for (unsigned i = 0; i < 2 * LINKS; i++)
        (void)close(fds[i]);
    for (unsigned i = 0; i < LINKS / 2; i++)
        fake_agent_stop(&agents[i]);
    cv_relay_stop(&bench.relay, 100);
    for (unsigned i = LINKS / 2; i < LINKS; i++) {
        fake_agent_wait(&agents[i], is_closed, "the end of a link");
        fake_agent_stop(&agents[i]);
    }
    for (unsigned i = 2 * LINKS; i < 4 * LINKS; i++)
        (void)close(fds[i]);
    bench_stop(&bench);
}

/* ---- one worker, several links ---- */

struct pair {
    struct bench bench;
    struct fake_agent first, second;
};

static struct pair *start_pair(const char *second_id, const char *workers)
{
    struct pair *p = calloc(1, sizeof *p);
    assert_non_null(p);
    (void)alarm(120);
    bench_start(&p->bench, workers, NULL);
    p->first = (struct fake_agent){.agent_id = AGENT_1,
                                   .tunnels = {{"home", NULL, 80},
                                               {"refuse-tcp", NULL, 4000},
                                               {"tcp", NULL, 2222},
                                               {"own", NULL, 80}}};
    p->second = (struct fake_agent){.agent_id = second_id, .tunnels = {{"home", NULL, 80}}};
    fake_agent_start(&p->first, &p->bench);
    return p;
}

static void stop_pair(struct pair *p)
{
    fake_agent_stop(&p->first);
    if (p->second.worker)
        fake_agent_stop(&p->second);
    bench_stop(&p->bench);
    free(p);
}

static void another_agent_takes_over(void **state)
{
    (void)state;
    static const char *const counts[] = {"1", "4"};
    for (size_t i = 0; i < 2; i++) {
        struct pair *p = start_pair(AGENT_2, counts[i]);
        char *head = client_head(&p->bench, "GET", "/t/home/hang-once", NULL);
        int fd = client_connect(&p->bench);
        struct answer a;
        p->first.hangs = true;
        client_send(fd, head);
        fake_agent_wait(&p->first, has_request, "the request");
        fake_agent_start(&p->second, &p->bench);
        fake_agent_wait(&p->first, has_notice, "the notice");
        assert_string_equal(p->first.notice, "replaced");
        assert_string_equal(p->first.notice_tunnel, "home");
        client_read(fd, &a, false, false); /* what was under way is tried again there */
        assert_int_equal(a.status, 200);
        answer_done(&a);
        expect(&p->bench, "/t/home/hello", 200, "hello");
        assert_int_equal(fake_agent_count(&p->second, &p->second.requests), 2);
        expect(&p->bench, "/t/own/hello", 200, "hello");
        (void)close(fd);
        free(head);
        stop_pair(p);
    }
}

static void a_second_link_of_the_agent_helps(void **state)
{
    (void)state;
    static const char *const counts[] = {"1", "4"};
    for (size_t i = 0; i < 2; i++) {
        struct pair *p = start_pair(AGENT_1, counts[i]);
        struct answer a;
        fake_agent_start(&p->second, &p->bench);
        assert_int_equal(p->second.refused_requests, 0);
        expect(&p->bench, "/t/home/hello", 200, "hello");
        /* A request that hangs at one link is tried again over the other when that link is lost. */
        char *head = client_head(&p->bench, "GET", "/t/home/hang-once", NULL);
        int fd = client_connect(&p->bench);
        p->first.hangs = p->second.hangs = true;
        client_send(fd, head);
        while (!fake_agent_count(&p->first, &p->first.hung) &&
               !fake_agent_count(&p->second, &p->second.hung))
            usleep(10000);
        struct fake_agent *lost = p->first.hung ? &p->first : &p->second;
        struct fake_agent *other = p->first.hung ? &p->second : &p->first;
        other->hangs = false;
        cv_worker_stop(lost->worker);
        client_read(fd, &a, false, false);
        assert_int_equal(a.status, 200);
        answer_done(&a);
        (void)close(fd);
        free(head);
        stop_pair(p);
    }
}

static void a_lost_agent_is_offline(void **state)
{
    (void)state;
    struct pair *p = start_pair(NULL, "1");
    struct answer a;
    int fd = client_connect(&p->bench);
    char *head = client_head(&p->bench, "GET", "/t/home/hang", NULL);
    client_send(fd, head);
    fake_agent_wait(&p->first, has_request, "the request");
    cv_worker_stop(p->first.worker);
    client_read(fd, &a, false, false);
    assert_int_equal(a.status, 502);
    answer_done(&a);
    expect(&p->bench, "/t/home/hello", 503, "offline");
    expect(&p->bench, "/t/never/hello", 404, NULL);
    (void)close(fd);
    free(head);
    stop_pair(p);
}

/* ---- direct streams ---- */

static void direct_expect(struct fake_agent *agent, const char *name, unsigned port,
                          const char *text, bool is_half_closed, const char *needle,
                          const char *refusal)
{
    struct direct d;
    fake_agent_direct(agent, name, port, cv_slice_str(text), is_half_closed, needle, &d);
    if (refusal ? strncmp(d.refusal, refusal, strlen(refusal)) != 0 : d.is_refused)
        fail_msg("%s:%u: %s", name, port, d.refusal);
    if (needle && !refusal &&
        !memmem(cv_buf_head(&d.in), cv_buf_len(&d.in), needle, strlen(needle)))
        fail_msg("%s:%u: %.*s", name, port, (int)cv_buf_len(&d.in),
                 (const char *)cv_buf_head(&d.in));
    cv_buf_done(&d.in);
}

static void streams_of_a_user_reach_its_own_tunnels(void **state)
{
    (void)state;
    static const char *const counts[] = {"1", "4"};
    for (size_t i = 0; i < 2; i++) {
        struct pair *p = start_pair(AGENT_2, counts[i]);
        p->second.tunnels[0] = (struct fake_tunnel){"other", NULL, 80};
        fake_agent_start(&p->second, &p->bench);
        struct fake_agent *me = &p->second;
        direct_expect(me, "tcp", 2222, "ping", false, "ping", NULL);
        direct_expect(me, "tcp", 2222, "half", true, NULL, NULL);
        direct_expect(me, "tcp", 2223, "", false, NULL, "tunnel-unknown");
        direct_expect(me, "nowhere", 80, "", false, NULL, "tunnel-unknown");
        direct_expect(me, "127.0.0.1", 22, "", false, NULL, "tunnel-unknown");
        direct_expect(me, "refuse-tcp", 4000, "", false, NULL, "service-refused");
        /* HTTP: no token, any path, kept alive. */
        direct_expect(me, "home", 80, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n", false, "hello",
                      NULL);
        direct_expect(me, "home", 80,
                      "GET /t/own/x HTTP/1.1\r\nHost: x\r\nAuthorization: mine\r\n\r\n"
                      "GET /second HTTP/1.1\r\nHost: x\r\n\r\n",
                      false, "GET /second HTTP/1.1", NULL);
        direct_expect(me, "home", 80, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n", true, "hello",
                      NULL);
        direct_expect(me, "home", 80,
                      "GET /hello HTTP/1.1\r\nHost: x\r\n\r\nGET /tail HTTP/1.1\r\nHost: x\r\n\r\n",
                      true, "GET /tail HTTP/1.1", NULL);
        direct_expect(me, "home", 80, "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nab",
                      true, "HTTP/1.1 400 ", NULL);
        direct_expect(me, "home", 80, "nonsense\r\n\r\n", false, "HTTP/1.1 400 ", NULL);
        fake_agent_wait(&p->first, is_idle, "the streams to close");
        stop_pair(p);
    }
}

static void bulk_on_direct_streams(void **state)
{
    (void)state;
    enum { LEN = 6000000 };
    struct pair *p = start_pair(AGENT_2, "4");
    p->second.tunnels[0] = (struct fake_tunnel){"other", NULL, 80};
    p->first.accept_delay_ms = 200;
    fake_agent_start(&p->second, &p->bench);
    char *body = malloc(LEN + 200);
    assert_non_null(body);
    struct direct d;
    int head =
        snprintf(body, 200, "POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", LEN);
    memset(body + head, 'z', LEN);
    body[head + LEN - 1] = '!';
    fake_agent_direct(&p->second, "home", 80, cv_slice(body, (size_t)(head + LEN)), false, "z!",
                      &d);
    assert_true(cv_buf_len(&d.in) > LEN);
    cv_buf_done(&d.in);
    fake_agent_direct(&p->second, "tcp", 2222, cv_slice(body, (size_t)(head + LEN)), false, "z!",
                      &d);
    assert_int_equal(cv_buf_len(&d.in), head + LEN);
    cv_buf_done(&d.in);
    free(body);
    stop_pair(p);
}

/* ---- the end ---- */

struct stopper {
    struct bench *bench;
    pthread_t thread;
};

static void *stop_relay(void *arg)
{
    struct stopper *s = arg;
    cv_relay_stop(&s->bench->relay, 10000);
    return NULL;
}

static void a_drain_lets_requests_end(void **state)
{
    (void)state;
    struct pair *p = start_pair(NULL, "4");
    struct answer a;
    struct stopper stopper = {.bench = &p->bench};
    int idle = client_connect(&p->bench), busy = client_connect(&p->bench);
    char *head = client_head(&p->bench, "GET", "/t/home/hello", NULL);
    client_send(idle, head);
    client_read(idle, &a, false, false);
    assert_int_equal(a.status, 200);
    answer_done(&a);
    free(head);
    head = client_head(&p->bench, "POST", "/t/home/echo", "Content-Length: 4\r\n");
    client_send(busy, head);
    client_send(busy, "ab");
    usleep(200000);
    assert_int_equal(pthread_create(&stopper.thread, NULL, stop_relay, &stopper), 0);
    fake_agent_wait(&p->first, has_notice, "the notice");
    assert_string_equal(p->first.notice, "shutdown");
    assert_true(client_is_closed(idle));
    client_send(busy, "cd");
    client_read(busy, &a, false, false);
    assert_int_equal(a.status, 200);
    assert_false(a.is_cut);
    assert_string_equal(answer_field(&a, "Connection"), "close");
    assert_true(answer_has(&a, "abcd"));
    answer_done(&a);
    (void)pthread_join(stopper.thread, NULL);
    fake_agent_wait(&p->first, is_closed, "the end of the link");
    assert_status(p->first.why, CV_OK); /* said goodbye */
    (void)close(idle);
    (void)close(busy);
    free(head);
    stop_pair(p);
}

static void a_drain_has_an_end(void **state)
{
    (void)state;
    struct pair *p = start_pair(NULL, "1");
    struct answer a;
    struct stopper stopper = {.bench = &p->bench};
    int fd = client_connect(&p->bench);
    char *head = client_head(&p->bench, "GET", "/t/home/hang", NULL);
    client_send(fd, head);
    fake_agent_wait(&p->first, has_request, "the request");
    cv_relay_stop(&stopper.bench->relay, 100);
    client_read(fd, &a, false, false);
    assert_int_equal(a.status, 503);
    answer_done(&a);
    assert_true(client_is_closed(fd));
    (void)close(fd);
    free(head);
    stop_pair(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_reach_links_on_any_worker),
        cmocka_unit_test(bulk_through_another_worker),
        cmocka_unit_test(everything_ends_in_the_middle),
        cmocka_unit_test(another_agent_takes_over),
        cmocka_unit_test(a_second_link_of_the_agent_helps),
        cmocka_unit_test(a_lost_agent_is_offline),
        cmocka_unit_test(streams_of_a_user_reach_its_own_tunnels),
        cmocka_unit_test(bulk_on_direct_streams),
        cmocka_unit_test(a_drain_lets_requests_end),
        cmocka_unit_test(a_drain_has_an_end),
    };
    if (!cv_is_ok(cv_net_init()))
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cv_net_done();
    return failed;
}
