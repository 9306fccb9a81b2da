/* SPDX-License-Identifier: MIT
 *
 * A whole relay, each of its allocations refused once: one that is started says so and leaves
 * nothing behind; one that serves goes on serving whoever comes next.
 */
#include "relay/relay_bench.h"

#include "base/alloc_test.h"
#include "net/net.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

enum { STARTS_MAX = 5000, REQUEST_ALLOCATIONS = 60 };

static void a_relay_may_fail_to_start(void **state)
{
    struct bench *bench = *state;
    struct cv_relay_options options = {
        .config = bench->config, .log = &bench->log, .state_dir = bench->state_dir, .is_dev = true};
    size_t n = 0;
    bool has_failed;
    do {
        struct cv_relay *relay = NULL;
        struct cv_error error = {0};
        cv_test_alloc_fail_at(++n);
        struct cv_status status = cv_relay_new(&options, &relay, &error);
        has_failed = cv_test_alloc_stop();
        assert_int_equal(cv_is_ok(status), relay != NULL);
        assert_true(cv_is_ok(status) || has_failed);
        cv_relay_stop(&relay, 0);
        assert_true(n < STARTS_MAX);
    } while (has_failed);
    assert_true(n > 20);
}

/* One request on a connection of its own. It may be answered or not: the connection ends. */
static void ask(struct bench *bench)
{
    struct timeval patience = {.tv_sec = 20};
    char text[8192], byte;
    int len = snprintf(text, sizeof text,
                       "GET /t/home/hello HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
                       "Authorization: Bearer %s\r\n\r\n",
                       (const char *)cv_buf_head(&bench->token));
    assert_in_range(len, 100, sizeof text - 1);
    int fd = client_connect(bench);
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    ssize_t got = send(fd, text, (size_t)len, MSG_NOSIGNAL);
    while (got > 0)
        got = recv(fd, &byte, 1, 0);
    assert_true(got == 0 || (errno != EAGAIN && errno != EWOULDBLOCK));
    (void)close(fd);
}

static void a_request_may_fail(void **state)
{
    struct bench *bench = *state;
    for (size_t n = 1; n <= REQUEST_ALLOCATIONS; n++) {
        cv_test_alloc_fail_at(n);
        ask(bench);
        (void)cv_test_alloc_stop();
        struct answer a;
        client_request(bench, "GET", "/livez", NULL, NULL, &a);
        assert_int_equal(a.status, 200);
        answer_done(&a);
    }
}

int main(void)
{
    static struct bench bench;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(a_relay_may_fail_to_start, &bench),
        cmocka_unit_test_prestate(a_request_may_fail, &bench),
    };
    if (!cv_is_ok(cv_net_init()))
        return 1;
    (void)alarm(200);
    bench_start(&bench, "1", NULL);
    int failed = cmocka_run_group_tests_name("relay_alloc", tests, NULL, NULL);
    bench_stop(&bench);
    cv_net_done();
    return failed;
}
