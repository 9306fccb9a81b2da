/* SPDX-License-Identifier: MIT */
#include "net/fetch.h"
#include "net/net.h"
#include "net/net_test.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <unistd.h>

static struct certs certs;

/* --- fetch, against a server of our own --- */

struct visit {
    struct bench bench;
    struct end accepted[4];
    unsigned accepted_count;
    struct cv_tls_server *server; /* NULL: plain */
    const char *answer;           /* NULL: silence */
    struct cv_fetch *fetch;
    struct cv_status status;
    int http_status;
    char body[256];
    char detail[256];
    unsigned dones;
};

static void server_event(struct end *end, const char *what)
{
    struct visit *visit = end->data;
    if (strcmp(what, "eof") == 0)
        cv_conn_close(end->conn, cv_ok());
    if (strcmp(what, "data") != 0 || !visit->answer || !strstr(end->text, "\r\n\r\n"))
        return;
    assert_ok(cv_conn_write(end->conn, visit->answer, strlen(visit->answer)));
    cv_conn_close_lingering(end->conn, 1000);
}

static void accept_visit(struct bench *bench, int fd)
{
    struct visit *visit = bench->data;
    assert_true(visit->accepted_count < 4);
    struct end *end = &visit->accepted[visit->accepted_count++];
    end->data = visit;
    end->on_event = server_event;
    struct cv_tls_session *session = NULL;
    if (visit->server)
        assert_ok(cv_tls_server_session(visit->server, fd, &session, NULL));
    end_open(end, bench, fd, session);
}

static void on_done(void *arg, struct cv_status status, const struct cv_error *error,
                    int http_status, struct cv_slice body)
{
    struct visit *visit = arg;
    visit->dones++;
    visit->status = status;
    visit->http_status = http_status;
    (void)snprintf(visit->detail, sizeof visit->detail, "%s", error->detail);
    (void)cv_slice_to_str(body, visit->body, sizeof visit->body);
    cv_worker_stop(visit->bench.worker);
}

static void visit_init(struct visit *visit, bool has_tls, const char *answer)
{
    *visit = (struct visit){.answer = answer};
    bench_init(&visit->bench, accept_visit);
    visit->bench.data = visit;
    if (has_tls)
        assert_ok(cv_tls_server_new(certs.cert, certs.key, &visit->server, NULL));
}

static void visit_run(struct visit *visit, const char *scheme, const char *host,
                      struct cv_fetch_request request)
{
    char url[128];
    (void)snprintf(url, sizeof url, "%s://%s:%u/keys?x=1", scheme, host, bench_port(&visit->bench));
    request.url = url;
    assert_ok(cv_fetch_start(visit->bench.worker, &request, on_done, visit, &visit->fetch, NULL));
    memset(url, 'x', sizeof url); /* it has a copy */
    assert_int_equal(visit->dones, 0);
    bench_run(&visit->bench);
    cv_tls_server_free(&visit->server);
    assert_int_equal(visit->dones, 1);
}

static const char ok_answer[] = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

static void a_page_is_fetched(void **state)
{
    (void)state;
    struct visit visit;
    visit_init(&visit, false, ok_answer);
    visit_run(&visit, "http", "127.0.0.1", (struct cv_fetch_request){.allow_http = true});
    assert_ok(visit.status);
    assert_int_equal(visit.http_status, 200);
    assert_string_equal(visit.body, "hello");
    assert_non_null(strstr(visit.accepted[0].text, "GET /keys?x=1 HTTP/1.1\r\n"));

    visit_init(&visit, true, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    visit_run(&visit, "https", "localhost", (struct cv_fetch_request){.ca_file = certs.ca});
    assert_ok(visit.status);
    assert_int_equal(visit.http_status, 404);
}

static void a_body_is_posted_with_headers(void **state)
{
    (void)state;
    struct visit visit;
    visit_init(&visit, false, ok_answer);
    const char *const headers[] = {"X-Test: yes", "Content-Type: application/json", NULL};
    visit_run(&visit, "http", "127.0.0.1",
              (struct cv_fetch_request){
                  .allow_http = true, .headers = headers, .body = cv_slice_str("{\"a\":1}")});
    assert_ok(visit.status);
    const char *text = visit.accepted[0].text;
    assert_non_null(strstr(text, "POST /keys"));
    assert_non_null(strstr(text, "X-Test: yes\r\n"));
    assert_null(strstr(text, "Expect"));
    assert_non_null(strstr(text, "{\"a\":1}"));
}

static void failures_have_their_status(void **state)
{
    (void)state;
    struct visit visit;
    visit_init(&visit, true, ok_answer);
    visit_run(&visit, "https", "localhost", (struct cv_fetch_request){0});
    assert_status(visit.status, CV_TLS_CERTIFICATE);
    assert_int_equal(visit.http_status, 0);
    assert_true(strlen(visit.detail) > 0);

    visit_init(&visit, false, ok_answer);
    visit_run(&visit, "http", "127.0.0.1",
              (struct cv_fetch_request){.allow_http = true, .max_bytes = 4});
    assert_status(visit.status, CV_BODY_TOO_LARGE);

    visit_init(&visit, false, NULL);
    visit_run(&visit, "http", "127.0.0.1",
              (struct cv_fetch_request){.allow_http = true, .timeout_ms = 50});
    assert_status(visit.status, CV_CONN_TIMEOUT);

    visit_init(&visit, false, "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort");
    visit_run(&visit, "http", "127.0.0.1", (struct cv_fetch_request){.allow_http = true});
    assert_status(visit.status, CV_CONN_RESET);

    visit_init(&visit, false, "nonsense\r\n\r\n");
    visit_run(&visit, "http", "127.0.0.1", (struct cv_fetch_request){.allow_http = true});
    assert_status(visit.status, CV_BAD_RESPONSE);

    visit_init(&visit, false,
               "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\n"
               "Content-Length: 0\r\n\r\n");
    visit_run(&visit, "http", "127.0.0.1", (struct cv_fetch_request){.allow_http = true});
    assert_ok(visit.status);
    assert_int_equal(visit.http_status, 302); /* not followed */

    visit_init(&visit, false, NULL);
    cv_worker_stop(visit.bench.worker);
    visit_run(&visit, "http", "127.0.0.1", (struct cv_fetch_request){.allow_http = true});
    assert_status(visit.status, CV_SHUTTING_DOWN);
}

static void plain_http_and_other_schemes_are_refused(void **state)
{
    (void)state;
    struct bench bench;
    bench_init(&bench, NULL);
    const char *const urls[] = {"http://127.0.0.1/", "file:///etc/passwd", "example.com", "",
                                "x y"};
    for (size_t i = 0; i < sizeof urls / sizeof urls[0]; i++) {
        struct cv_fetch *fetch;
        struct cv_fetch_request request = {.url = urls[i], .allow_http = i == 1};
        assert_status(cv_fetch_start(bench.worker, &request, on_done, NULL, &fetch, NULL),
                      CV_INVALID);
        assert_null(fetch);
    }
    cv_worker_stop(bench.worker);
    bench_run(&bench);
}

static void cancel_it(void *arg)
{
    struct visit *visit = arg;
    cv_fetch_cancel(&visit->fetch);
    cv_fetch_cancel(&visit->fetch);
    cv_worker_stop(visit->bench.worker);
}

static void a_cancelled_fetch_is_silent(void **state)
{
    (void)state;
    struct visit visit;
    visit_init(&visit, false, NULL);
    char url[64];
    (void)snprintf(url, sizeof url, "http://127.0.0.1:%u/", bench_port(&visit.bench));
    struct cv_fetch_request request = {.url = url, .allow_http = true};
    assert_ok(cv_fetch_start(visit.bench.worker, &request, on_done, &visit, &visit.fetch, NULL));
    struct cv_timer timer;
    cv_timer_init(&timer, cancel_it, &visit);
    assert_ok(cv_worker_timer_start(visit.bench.worker, &timer, 30));
    bench_run(&visit.bench);
    assert_int_equal(visit.dones, 0);
}

/* --- listeners --- */

struct crowd {
    struct bench bench;
    unsigned accepted, errors;
    int extra[3];
    struct rlimit before;
};

static void accept_one_of_crowd(void *arg, int fd, const struct cv_addr *peer)
{
    struct crowd *crowd = arg;
    (void)peer;
    crowd->accepted++;
    /* What the listening socket has been told is true of this one. */
    static const struct {
        int level, option, value;
    } inherited[] = {{IPPROTO_TCP, TCP_NODELAY, 1},
                     {SOL_SOCKET, SO_KEEPALIVE, 1},
                     {IPPROTO_TCP, TCP_KEEPIDLE, 31},
                     {IPPROTO_TCP, TCP_KEEPINTVL, 7},
                     {IPPROTO_TCP, TCP_KEEPCNT, 3}};
    for (size_t i = 0; i < sizeof inherited / sizeof inherited[0]; i++) {
        int value = 0;
        socklen_t len = sizeof value;
        assert_int_equal(getsockopt(fd, inherited[i].level, inherited[i].option, &value, &len), 0);
        assert_int_equal(value, inherited[i].value);
    }
    close(fd);
    if (crowd->accepted == 3)
        cv_worker_stop(crowd->bench.worker);
}

static void crowd_error(void *arg, struct cv_status status, const struct cv_error *error)
{
    struct crowd *crowd = arg;
    assert_status(status, CV_NO_RESOURCES);
    assert_int_equal(error->sys_errno, EMFILE);
    crowd->errors++;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &crowd->before), 0);
}

static const struct cv_listener_ops crowd_ops = {.on_accept = accept_one_of_crowd,
                                                 .on_error = crowd_error};

static void all_workers_share_a_chosen_port(void **state)
{
    (void)state;
    struct crowd crowd = {0};
    bench_init(&crowd.bench, NULL);
    struct cv_listen_spec spec;
    struct cv_listener *listeners[3];
    assert_ok(cv_listen_spec_parse("127.0.0.1:0", &spec, NULL));
    for (int i = 0; i < 3; i++) {
        assert_ok(cv_listener_new(crowd.bench.worker, &spec, 16, &crowd_ops, &crowd, &listeners[i],
                                  NULL));
        cv_listener_set_keepalive(listeners[i], 31, 7, 3);
        spec = *cv_listener_spec(listeners[i]);
        assert_true(cv_addr_port(&spec.addr) > 0);
    }
    for (int i = 0; i < 3; i++)
        crowd.extra[i] = connect_to(cv_addr_port(&spec.addr));
    /* Closing takes what waits in the queues first. */
    for (int i = 0; i < 3; i++)
        cv_listener_close(&listeners[i]);
    cv_listener_close(&listeners[0]);
    assert_int_equal(crowd.accepted, 3);
    bench_run(&crowd.bench);
    for (int i = 0; i < 3; i++)
        close(crowd.extra[i]);
}

static void without_descriptors_a_listener_rests_and_goes_on(void **state)
{
    (void)state;
    struct crowd crowd = {0};
    bench_init(&crowd.bench, NULL);
    struct cv_listen_spec spec;
    struct cv_listener *listener;
    assert_ok(cv_listen_spec_parse("127.0.0.1:0", &spec, NULL));
    assert_ok(cv_listener_new(crowd.bench.worker, &spec, 16, &crowd_ops, &crowd, &listener, NULL));
    cv_listener_set_keepalive(listener, 31, 7, 3);
    for (int i = 0; i < 3; i++)
        crowd.extra[i] = connect_to(cv_addr_port(&cv_listener_spec(listener)->addr));
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &crowd.before), 0);
    struct rlimit tight = crowd.before;
    int lowest = dup(0); /* the lowest free descriptor: none above it may be opened */
    close(lowest);
    tight.rlim_cur = (rlim_t)lowest;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
    bench_run(&crowd.bench);
    assert_int_equal(crowd.errors, 1);
    assert_int_equal(crowd.accepted, 3);
    for (int i = 0; i < 3; i++)
        close(crowd.extra[i]);
}

static void a_taken_port_is_told(void **state)
{
    (void)state;
    struct bench bench;
    bench_init(&bench, NULL);
    int fds[2];
    tcp_pair(fds);
    struct sockaddr_in at;
    socklen_t len = sizeof at;
    assert_int_equal(getsockname(fds[0], (struct sockaddr *)&at, &len), 0);
    struct cv_listen_spec spec = {0};
    struct cv_listener *listener;
    struct cv_error error;
    assert_true(cv_addr_from_sockaddr(&spec.addr, (struct sockaddr *)&at, len));
    assert_status(cv_listener_new(bench.worker, &spec, 16, &crowd_ops, NULL, &listener, &error),
                  CV_IO);
    assert_int_equal(error.sys_errno, EADDRINUSE);
    assert_null(listener);
    /* Both families in one; falls back where there is no IPv6. */
    assert_ok(cv_listen_spec_parse(":0", &spec, NULL));
    assert_ok(cv_listener_new(bench.worker, &spec, 16, &crowd_ops, NULL, &listener, &error));
    /* A listener of ours is no exception, unless it shares. */
    struct cv_listener *second;
    spec = *cv_listener_spec(listener);
    spec.is_shared = false;
    assert_status(cv_listener_new(bench.worker, &spec, 16, &crowd_ops, NULL, &second, &error),
                  CV_IO);
    assert_int_equal(error.sys_errno, EADDRINUSE);
    spec.is_shared = true;
    assert_ok(cv_listener_new(bench.worker, &spec, 16, &crowd_ops, NULL, &second, &error));
    cv_worker_stop(bench.worker);
    bench_run(&bench);
    close(fds[0]);
    close(fds[1]);
}

int main(void)
{
    if (!cv_is_ok(cv_net_init()))
        return 1;
    certs_make(&certs, "localhost");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_page_is_fetched),
        cmocka_unit_test(a_body_is_posted_with_headers),
        cmocka_unit_test(failures_have_their_status),
        cmocka_unit_test(plain_http_and_other_schemes_are_refused),
        cmocka_unit_test(a_cancelled_fetch_is_silent),
        cmocka_unit_test(all_workers_share_a_chosen_port),
        cmocka_unit_test(without_descriptors_a_listener_rests_and_goes_on),
        cmocka_unit_test(a_taken_port_is_told),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    certs_done(&certs);
    cv_net_done();
    return failed;
}
