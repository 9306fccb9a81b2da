/* SPDX-License-Identifier: MIT */
#include "net/dial.h"
#include "net/net.h"
#include "net/net_test.h"
#include "net/race.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <unistd.h>

static struct certs certs;

/* A port of 127.0.0.1 that answers no SYN: its queue is full. */
struct black_hole {
    int fds[8];
    uint16_t port;
};

static void black_hole_open(struct black_hole *hole)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    hole->fds[0] = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(hole->fds[0], (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(hole->fds[0], 0), 0);
    assert_int_equal(getsockname(hole->fds[0], (struct sockaddr *)&at, &len), 0);
    hole->port = ntohs(at.sin_port);
    for (int i = 1; i < 8; i++) {
        hole->fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        (void)!connect(hole->fds[i], (struct sockaddr *)&at, sizeof at);
    }
    usleep(20000); /* the queue fills in the kernel, unseen from here */
}

static void black_hole_close(struct black_hole *hole)
{
    for (int i = 0; i < 8; i++)
        close(hole->fds[i]);
}

/* A port that refuses. */
static uint16_t closed_port(void)
{
    int fds[2];
    struct sockaddr_in at;
    socklen_t len = sizeof at;
    tcp_pair(fds);
    assert_int_equal(getpeername(fds[0], (struct sockaddr *)&at, &len), 0);
    close(fds[0]);
    close(fds[1]);
    return ntohs(at.sin_port);
}

/* --- dialling --- */

struct call {
    struct bench bench;
    struct end accepted, dialled;
    struct cv_dial *dial;
    struct cv_status status;
    enum cv_dial_stage stage;
    char detail[256];
    unsigned dones;
    struct cv_tls_server *server;
    struct cv_tls_client *client;
    const char *proxy_answer;
    char request[1024];
    size_t request_len;
    bool is_tunnel;
    void (*on_proxy_event)(struct end *end, const char *what);
    struct cv_defer turn;
};

static void on_done(void *arg, const struct cv_dial_result *result)
{
    struct call *call = arg;
    call->dones++;
    call->dial = NULL;
    call->status = result->status;
    call->stage = result->stage;
    (void)snprintf(call->detail, sizeof call->detail, "%s", result->error->detail);
    if (result->conn) {
        int is_on = 0;
        socklen_t len = sizeof is_on;
        (void)getsockopt(cv_conn_fd(result->conn), IPPROTO_TCP, TCP_NODELAY, &is_on, &len);
        assert_true(is_on);
        call->dialled.conn = result->conn;
        call->dialled.bench = &call->bench;
        cv_conn_set_ops(result->conn, &end_ops, &call->dialled);
    }
    cv_worker_stop(call->bench.worker);
}

static void accept_plain(struct bench *bench, int fd)
{
    struct call *call = bench->data;
    end_open(&call->accepted, bench, fd, NULL);
}

static void accept_tls(struct bench *bench, int fd)
{
    struct call *call = bench->data;
    struct cv_tls_session *session;
    assert_ok(cv_tls_server_session(call->server, fd, &session, NULL));
    end_open(&call->accepted, bench, fd, session);
}

static void call_init(struct call *call, void (*accept_fn)(struct bench *bench, int fd))
{
    *call = (struct call){0};
    bench_init(&call->bench, accept_fn);
    call->bench.data = call;
    assert_ok(cv_tls_server_new(certs.cert, certs.key, &call->server, NULL));
    assert_ok(cv_tls_client_new(certs.ca, &call->client, NULL));
}

static void call_run(struct call *call, const struct cv_dial_options *options)
{
    assert_ok(cv_dial_start(call->bench.worker, options, on_done, call, &call->dial, NULL));
    assert_int_equal(call->dones, 0);
    bench_run(&call->bench);
    cv_tls_server_free(&call->server);
    cv_tls_client_free(&call->client);
    assert_int_equal(call->dones, 1);
    if (cv_is_ok(call->status))
        assert_int_equal(call->dialled.closes, 1);
}

static void a_literal_and_localhost_are_reached(void **state)
{
    (void)state;
    const char *const hosts[] = {"127.0.0.1", "localhost"};
    for (int i = 0; i < 2; i++) {
        struct call call;
        call_init(&call, accept_plain);
        call_run(&call,
                 &(struct cv_dial_options){.host = hosts[i], .port = bench_port(&call.bench)});
        assert_ok(call.status);
    }
}

static void tls_is_part_of_dialling(void **state)
{
    (void)state;
    struct call call;
    call_init(&call, accept_tls);
    call_run(&call, &(struct cv_dial_options){
                        .host = "localhost", .port = bench_port(&call.bench), .tls = call.client});
    assert_ok(call.status);

    /* Nobody speaks TLS there. */
    call_init(&call, accept_plain);
    call_run(&call, &(struct cv_dial_options){.host = "127.0.0.1",
                                              .port = bench_port(&call.bench),
                                              .tls = call.client,
                                              .timeout_ms = 50});
    assert_status(call.status, CV_CONN_TIMEOUT);
    assert_int_equal(call.stage, CV_DIAL_TLS);
    assert_string_equal(cv_dial_stage_name(call.stage), "tls");
}

static void each_stage_tells_its_failure(void **state)
{
    (void)state;
    struct call call;
    call_init(&call, NULL);
    call_run(&call, &(struct cv_dial_options){.host = "127.0.0.1", .port = closed_port()});
    assert_status(call.status, CV_CONN_REFUSED);
    assert_int_equal(call.stage, CV_DIAL_TCP);
    assert_non_null(strstr(call.detail, "tcp: connect to 127.0.0.1:"));

    call_init(&call, NULL);
    call_run(&call, &(struct cv_dial_options){.host = "bad..name", .port = 1});
    assert_status(call.status, CV_RESOLVE);
    assert_int_equal(call.stage, CV_DIAL_DNS);

    struct black_hole hole;
    black_hole_open(&hole);
    call_init(&call, NULL);
    call_run(&call,
             &(struct cv_dial_options){.host = "127.0.0.1", .port = hole.port, .timeout_ms = 50});
    assert_status(call.status, CV_CONN_TIMEOUT);
    assert_int_equal(call.stage, CV_DIAL_TCP);
    black_hole_close(&hole);

    call_init(&call, NULL);
    struct cv_dial *dial;
    const struct cv_dial_options none = {.host = "", .port = 1};
    assert_status(cv_dial_start(call.bench.worker, &none, on_done, &call, &dial, NULL), CV_INVALID);
    call_run(&call, &(struct cv_dial_options){.host = "::1", .port = closed_port()});
    assert_true(call.status.id == CV_CONN_REFUSED || call.status.id == CV_NETWORK_UNREACHABLE);
}

static void cancel_it(void *arg)
{
    struct call *call = arg;
    cv_dial_cancel(&call->dial);
    assert_null(call->dial);
    cv_worker_stop(call->bench.worker);
}

static void a_cancelled_dial_is_silent(void **state)
{
    (void)state;
    struct black_hole hole;
    black_hole_open(&hole);
    for (int i = 0; i < 2; i++) {
        struct call call;
        call_init(&call, NULL);
        struct cv_dial_options options = {.host = i ? "127.0.0.1" : "name-in-resolution.invalid",
                                          .port = hole.port};
        assert_ok(cv_dial_start(call.bench.worker, &options, on_done, &call, &call.dial, NULL));
        struct cv_timer timer;
        cv_timer_init(&timer, cancel_it, &call);
        assert_ok(cv_worker_timer_start(call.bench.worker, &timer, 1));
        bench_run(&call.bench);
        assert_int_equal(call.dones, 0);
        cv_tls_server_free(&call.server);
        cv_tls_client_free(&call.client);
    }
    black_hole_close(&hole);
}

static void a_dial_ends_with_its_worker(void **state)
{
    (void)state;
    struct black_hole hole;
    black_hole_open(&hole);
    struct call call;
    call_init(&call, NULL);
    cv_worker_stop(call.bench.worker);
    call_run(&call, &(struct cv_dial_options){.host = "127.0.0.1", .port = hole.port});
    assert_status(call.status, CV_SHUTTING_DOWN);
    black_hole_close(&hole);
}

/* --- racing --- */

struct racing {
    struct bench bench;
    struct cv_race race;
    int fd;
    unsigned dones;
};

static void on_raced(void *arg, int fd)
{
    struct racing *racing = arg;
    racing->fd = fd;
    racing->dones++;
    cv_worker_stop(racing->bench.worker);
}

static void accept_and_close(struct bench *bench, int fd)
{
    (void)bench;
    close(fd);
}

static void add(struct cv_race *race, const char *ip, uint16_t port)
{
    struct cv_addr addr;
    assert_true(cv_addr_from_ip(&addr, cv_slice_str(ip), port));
    cv_race_add(race, &addr);
}

static void racing_init(struct racing *racing)
{
    *racing = (struct racing){.fd = -2};
    bench_init(&racing->bench, accept_and_close);
    racing->race.worker = racing->bench.worker;
    racing->race.on_done = on_raced;
    racing->race.arg = racing;
}

static void a_dead_first_address_costs_one_stagger(void **state)
{
    (void)state;
    struct black_hole hole;
    black_hole_open(&hole);
    struct racing racing;
    racing_init(&racing);
    racing.race.stagger_ms = 40;
    add(&racing.race, "127.0.0.1", hole.port);
    add(&racing.race, "127.0.0.1", bench_port(&racing.bench));
    add(&racing.race, "127.0.0.1", hole.port);
    uint64_t start = cv_worker_now_ns(racing.bench.worker);
    cv_race_start(&racing.race);
    struct cv_worker *worker = racing.bench.worker;
    cv_worker_run(worker);
    uint64_t ms = (cv_worker_now_ns(worker) - start) / 1000000;
    cv_worker_free(&racing.bench.worker);
    assert_int_equal(racing.dones, 1);
    assert_true(racing.fd >= 0);
    assert_true(ms >= 38 && ms < 1000);
    close(racing.fd);
    black_hole_close(&hole);
}

static void a_refused_first_address_costs_nothing(void **state)
{
    (void)state;
    struct racing racing;
    racing_init(&racing);
    racing.race.stagger_ms = 15 * 1000;
    add(&racing.race, "127.0.0.1", closed_port());
    add(&racing.race, "127.0.0.1", bench_port(&racing.bench));
    cv_race_start(&racing.race);
    bench_run(&racing.bench);
    assert_true(racing.fd >= 0);
    close(racing.fd);
}

static void when_all_fail_the_most_telling_error_is_kept(void **state)
{
    (void)state;
    struct racing racing;
    racing_init(&racing);
    racing.race.stagger_ms = 10;
    uint16_t port = closed_port();
    for (int i = 0; i < 20; i++)
        add(&racing.race, "127.0.0.1", port);
    assert_int_equal(racing.race.count, CV_RACE_ADDRS_MAX);
    cv_race_start(&racing.race);
    bench_run(&racing.bench);
    assert_int_equal(racing.dones, 1);
    assert_int_equal(racing.fd, -1);
    assert_int_equal(racing.race.sys_errno, ECONNREFUSED);
}

static void families_alternate(void **state)
{
    (void)state;
    struct cv_race race = {0};
    add(&race, "2001:db8::1", 1);
    add(&race, "2001:db8::2", 1);
    add(&race, "2001:db8::3", 1);
    add(&race, "192.0.2.1", 1);
    add(&race, "192.0.2.2", 1);
    cv_race_interleave(&race);
    const char *const want[] = {"2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2",
                                "2001:db8::3"};
    for (size_t i = 0; i < 5; i++) {
        char text[CV_ADDR_TEXT_LEN];
        assert_string_equal(cv_addr_format_ip(&race.addrs[i], text), want[i]);
    }
    race = (struct cv_race){0};
    cv_race_interleave(&race);
    assert_int_equal(race.count, 0);
}

/* --- proxies --- */

static void proxy_event(struct end *end, const char *what)
{
    struct call *call = end->data;
    if (strcmp(what, "data") != 0 || call->is_tunnel || !strstr(end->text, "\r\n\r\n"))
        return;
    call->is_tunnel = true;
    call->request_len = (size_t)end->received;
    (void)snprintf(call->request, sizeof call->request, "%s", end->text);
    assert_ok(cv_conn_write(end->conn, call->proxy_answer, strlen(call->proxy_answer)));
    if (strstr(call->proxy_answer, " 200 ") == NULL)
        cv_conn_close_after_flush(end->conn, 1000);
}

static void accept_proxy(struct bench *bench, int fd)
{
    struct call *call = bench->data;
    call->accepted.data = call;
    call->accepted.on_event = call->on_proxy_event ? call->on_proxy_event : proxy_event;
    end_open(&call->accepted, bench, fd, NULL);
}

static void call_proxy(struct call *call, const char *answer)
{
    call_init(call, accept_proxy);
    call->proxy_answer = answer;
    struct cv_proxy proxy = {.host = "localhost", .userinfo = "user:p@ss"};
    proxy.port = bench_port(&call->bench);
    call_run(call, &(struct cv_dial_options){
                       .host = "2001:db8::1", .port = 8443, .proxy = &proxy, .timeout_ms = 5000});
}

static void a_proxy_is_asked_to_connect(void **state)
{
    (void)state;
    struct call call;
    call_proxy(&call, "HTTP/1.1 200 Connection established\r\nX: y\r\n\r\n");
    assert_ok(call.status);
    assert_string_equal(call.request, "CONNECT [2001:db8::1]:8443 HTTP/1.1\r\n"
                                      "Host: [2001:db8::1]:8443\r\n"
                                      "User-Agent: culvert/" CV_VERSION "\r\n"
                                      "Proxy-Authorization: Basic dXNlcjpwQHNz\r\n\r\n");
}

static void a_proxy_that_refuses_is_quoted(void **state)
{
    (void)state;
    const char *const answers[][2] = {
        {"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "proxy: 407 Proxy Auth"},
        {"HTTP/1.0 403\r\n\r\n", "proxy: 403"},
        {"HTTP/1.1 100 Continue\r\n\r\n", "proxy: 100"},
        {"SSH-2.0-x\r\n\r\n", "did not answer in HTTP"},
        {"HTTP/1.1 20\r\n\r\n", "did not answer in HTTP"},
        {"HTTP/2 200 OK\r\n\r\n", "did not answer in HTTP"},
        {"HTTP/1.1 200 OK\r\n\r\nextra", "behind its answer"},
        {"HTTP/1.1 302 Found\r\nA: b\r\n", "closed the connection"},
    };
    for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
        struct call call;
        call_proxy(&call, answers[i][0]);
        assert_status(call.status, CV_PROXY);
        assert_int_equal(call.stage, CV_DIAL_PROXY);
        assert_non_null(strstr(call.detail, answers[i][1]));
        assert_null(strstr(call.detail, "p@ss"));
    }
    static char flood[9000];
    memset(flood, 'x', sizeof flood - 1);
    struct call call;
    call_proxy(&call, flood);
    assert_status(call.status, CV_PROXY);
    assert_non_null(strstr(call.detail, "too long"));

    call_init(&call, NULL);
    struct cv_proxy proxy = {.host = "127.0.0.1", .port = closed_port()};
    call_run(&call, &(struct cv_dial_options){.host = "example.com", .port = 443, .proxy = &proxy});
    assert_status(call.status, CV_PROXY);
    assert_int_equal(call.stage, CV_DIAL_PROXY);
}

/* The proxy's end turns to TLS itself, once its answer is out: as good as a server behind it. */
static void turn_to_tls(void *arg)
{
    struct call *call = arg;
    if (cv_buf_len(cv_conn_out(call->accepted.conn))) {
        cv_worker_defer_next(call->bench.worker, &call->turn);
        return;
    }
    struct cv_tls_session *session;
    int fd = cv_conn_fd(call->accepted.conn);
    assert_ok(cv_tls_server_session(call->server, fd, &session, NULL));
    assert_ok(cv_conn_start_tls(call->accepted.conn, session));
    cv_conn_resume(call->accepted.conn);
}

static void tls_proxy_event(struct end *end, const char *what)
{
    struct call *call = end->data;
    if (call->is_tunnel || strcmp(what, "data") != 0)
        return;
    proxy_event(end, what);
    cv_conn_pause(end->conn);
    struct cv_tls_session *session = NULL;
    assert_status(cv_conn_start_tls(end->conn, session), CV_INVALID); /* bytes are unsent */
    cv_defer_init(&call->turn, turn_to_tls, call);
    cv_worker_defer_next(call->bench.worker, &call->turn);
}

static void tls_runs_through_the_proxy(void **state)
{
    (void)state;
    const char *const hosts[] = {"localhost", "example.com"};
    for (int i = 0; i < 2; i++) {
        struct call call;
        call_init(&call, accept_proxy);
        call.on_proxy_event = tls_proxy_event;
        call.proxy_answer = "HTTP/1.1 200 OK\r\n\r\n";
        struct cv_proxy proxy = {.host = "127.0.0.1"};
        proxy.port = bench_port(&call.bench);
        call_run(&call, &(struct cv_dial_options){
                            .host = hosts[i], .port = 8443, .tls = call.client, .proxy = &proxy});
        assert_status(call.status, i ? CV_TLS_CERTIFICATE : CV_OK);
        assert_true(i == 0 || call.stage == CV_DIAL_TLS);
    }
}

int main(void)
{
    if (!cv_is_ok(cv_net_init()))
        return 1;
    certs_make(&certs, "localhost");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_literal_and_localhost_are_reached),
        cmocka_unit_test(tls_is_part_of_dialling),
        cmocka_unit_test(each_stage_tells_its_failure),
        cmocka_unit_test(a_cancelled_dial_is_silent),
        cmocka_unit_test(a_dial_ends_with_its_worker),
        cmocka_unit_test(a_dead_first_address_costs_one_stagger),
        cmocka_unit_test(a_refused_first_address_costs_nothing),
        cmocka_unit_test(when_all_fail_the_most_telling_error_is_kept),
        cmocka_unit_test(families_alternate),
        cmocka_unit_test(a_proxy_is_asked_to_connect),
        cmocka_unit_test(a_proxy_that_refuses_is_quoted),
        cmocka_unit_test(tls_runs_through_the_proxy),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    certs_done(&certs);
    cv_net_done();
    return failed;
}
