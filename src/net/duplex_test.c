/* SPDX-License-Identifier: MIT
 *
 * Both ends of a duplex as pipes, sockets, files and /dev/null.
 */
#include "net/duplex.h"

#include "base/test.h"
#include "net/worker.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MEGABYTES = 4, BULK = MEGABYTES * 1024 * 1024 };

struct scene {
    struct cv_worker *worker;
    struct cv_duplex *duplex;
    struct cv_timer timeout;
    size_t got;
    uint64_t sum;
    bool is_echo; /* what is read is written */
    bool has_eof;
    bool frees_on_data;
    unsigned ended;
    struct cv_status status;
};

static struct scene s;

static void on_timeout(void *arg)
{
    (void)arg;
    print_error("nothing happened in time\n");
    abort();
}

static void on_data(void *arg, struct cv_slice data)
{
    (void)arg;
    assert_false(s.has_eof);
    s.got += data.len;
    for (size_t i = 0; i < data.len; i++)
        s.sum = s.sum * 31 + data.data[i];
    if (s.frees_on_data) {
        cv_duplex_free(&s.duplex);
        cv_worker_stop(s.worker);
        return;
    }
    if (s.is_echo) {
        assert_ok(cv_duplex_write(s.duplex, data));
        if (cv_duplex_is_congested(s.duplex))
            cv_duplex_pause(s.duplex);
    }
}

static void on_eof(void *arg)
{
    (void)arg;
    assert_false(s.has_eof);
    s.has_eof = true;
    cv_duplex_finish(s.duplex);
}

static void on_writable(void *arg)
{
    (void)arg;
    cv_duplex_resume(s.duplex);
}

static void on_ended(void *arg, struct cv_status status)
{
    (void)arg;
    s.ended++;
    s.status = status;
    cv_worker_stop(s.worker);
}

static const struct cv_duplex_ops ops = {
    .on_data = on_data, .on_eof = on_eof, .on_writable = on_writable, .on_ended = on_ended};

static int set_up(void **state)
{
    (void)state;
    (void)signal(SIGPIPE, SIG_IGN);
    s = (struct scene){0};
    cv_timer_init(&s.timeout, on_timeout, NULL);
    return cv_is_ok(cv_worker_new(0, &s.worker, NULL)) &&
                   cv_is_ok(cv_worker_timer_start(s.worker, &s.timeout, 20000))
               ? 0
               : -1;
}

static int tear_down(void **state)
{
    (void)state;
    cv_duplex_free(&s.duplex);
    cv_worker_free(&s.worker);
    return 0;
}

static void run(int fd_in, int fd_out)
{
    struct cv_error error = {0};
    assert_ok(cv_duplex_new(s.worker, fd_in, fd_out, &ops, NULL, &s.duplex, &error));
    cv_duplex_resume(s.duplex);
    cv_worker_run(s.worker);
}

/* ---- the other side ---- */

struct peer {
    int fd;
    bool closes_by_shutdown;
    size_t got;
    uint64_t sum;
};

static uint8_t byte_at(size_t i)
{
    return (uint8_t)(i * 7 + (i >> 11));
}

static uint64_t expected_sum(void)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < BULK; i++)
        sum = sum * 31 + byte_at(i);
    return sum;
}

static void *send_bulk(void *arg)
{
    struct peer *peer = arg;
    uint8_t *data = malloc(BULK);
    if (!data)
        abort();
    for (size_t i = 0; i < BULK; i++)
        data[i] = byte_at(i);
    for (size_t at = 0; at < BULK;) {
        ssize_t n = write(peer->fd, data + at, BULK - at);
        if (n <= 0)
            abort();
        at += (size_t)n;
    }
    free(data);
    if (peer->closes_by_shutdown)
        (void)shutdown(peer->fd, SHUT_WR);
    else
        (void)close(peer->fd);
    return NULL;
}

static void *take_bulk(void *arg)
{
    struct peer *peer = arg;
    uint8_t data[5000];
    ssize_t n;
    while (peer->got < BULK && (n = read(peer->fd, data, sizeof data)) > 0) {
        peer->got += (size_t)n;
        for (ssize_t i = 0; i < n; i++)
            peer->sum = peer->sum * 31 + data[i];
    }
    return NULL;
}

static void echo_through(int fd_in, int fd_out, struct peer *sender, struct peer *taker)
{
    pthread_t threads[2];
    s.is_echo = true;
    assert_int_equal(pthread_create(&threads[0], NULL, send_bulk, sender), 0);
    assert_int_equal(pthread_create(&threads[1], NULL, take_bulk, taker), 0);
    run(fd_in, fd_out);
    assert_int_equal(pthread_join(threads[0], NULL), 0);
    assert_int_equal(pthread_join(threads[1], NULL), 0);
    assert_true(s.has_eof);
    assert_int_equal(s.ended, 1);
    assert_status(s.status, CV_OK);
    assert_int_equal(s.got, BULK);
    assert_int_equal(taker->got, BULK);
    assert_true(taker->sum == expected_sum() && s.sum == expected_sum());
}

/* ---- tests ---- */

static void pipes_carry_bulk_both_ways_and_stay_blocking(void **state)
{
    (void)state;
    int in[2], out[2];
    assert_int_equal(pipe(in), 0);
    assert_int_equal(pipe(out), 0);
    struct peer sender = {.fd = in[1]}, taker = {.fd = out[0]};
    echo_through(in[0], out[1], &sender, &taker);
    assert_false(fcntl(in[0], F_GETFL) & O_NONBLOCK);
    assert_false(fcntl(out[1], F_GETFL) & O_NONBLOCK);
    (void)close(in[0]);
    (void)close(out[0]);
    (void)close(out[1]);
}

static void one_socket_serves_for_both(void **state)
{
    (void)state;
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    struct peer sender = {.fd = pair[1], .closes_by_shutdown = true}, taker = {.fd = pair[1]};
    echo_through(pair[0], pair[0], &sender, &taker);
    cv_duplex_free(&s.duplex);
    assert_false(fcntl(pair[0], F_GETFL) & O_NONBLOCK);
    (void)close(pair[0]);
    (void)close(pair[1]);
}

static void files_are_copied(void **state)
{
    (void)state;
    char from[] = "/tmp/culvert-duplex-XXXXXX", to[] = "/tmp/culvert-duplex-XXXXXX";
    int in = mkstemp(from), out = mkstemp(to);
    assert_true(in >= 0 && out >= 0);
    char text[200000];
    memset(text, 'x', sizeof text);
    assert_int_equal(write(in, text, sizeof text), sizeof text);
    assert_int_equal(lseek(in, 100, SEEK_SET), 100);
    s.is_echo = true;
    run(in, out);
    assert_status(s.status, CV_OK);
    assert_int_equal(s.got, sizeof text - 100);
    assert_int_equal(lseek(out, 0, SEEK_END), sizeof text - 100);
    (void)close(in);
    (void)close(out);
    (void)unlink(from);
    (void)unlink(to);
}

static void dev_null_ends_at_once(void **state)
{
    (void)state;
    int fd = open("/dev/null", O_RDWR);
    run(fd, fd);
    assert_true(s.has_eof);
    assert_status(s.status, CV_OK);
    (void)close(fd);
}

static void a_reader_that_is_gone_is_told(void **state)
{
    (void)state;
    int in[2], out[2];
    assert_int_equal(pipe(in), 0);
    assert_int_equal(pipe(out), 0);
    (void)close(out[0]);
    s.is_echo = true;
    assert_int_equal(write(in[1], "x", 1), 1);
    run(in[0], out[1]);
    assert_int_equal(s.ended, 1);
    assert_status(s.status, CV_CONN_RESET);
    (void)close(in[0]);
    (void)close(in[1]);
    (void)close(out[1]);
}

static void it_may_be_freed_from_its_callback(void **state)
{
    (void)state;
    int in[2];
    assert_int_equal(pipe(in), 0);
    s.frees_on_data = true;
    assert_int_equal(write(in[1], "x", 1), 1);
    run(in[0], STDOUT_FILENO);
    assert_int_equal(s.got, 1);
    assert_null(s.duplex);
    (void)close(in[0]);
    (void)close(in[1]);
}

static void a_descriptor_that_is_none_is_refused(void **state)
{
    (void)state;
    struct cv_error error = {0};
    assert_status(cv_duplex_new(s.worker, 9999, 1, &ops, NULL, &s.duplex, &error), CV_IO);
    assert_null(s.duplex);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(pipes_carry_bulk_both_ways_and_stay_blocking),
        TEST(one_socket_serves_for_both),
        TEST(files_are_copied),
        TEST(dev_null_ends_at_once),
        TEST(a_reader_that_is_gone_is_told),
        TEST(it_may_be_freed_from_its_callback),
        TEST(a_descriptor_that_is_none_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
