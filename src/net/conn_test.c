/* SPDX-License-Identifier: MIT */
#include "net/net.h"
#include "net/net_test.h"

#include <sys/socket.h>
#include <unistd.h>

#define MIB ((uint64_t)1024 * 1024)

static struct certs certs;

/* Two ends on one worker; `a` is the client. */
struct pair {
    struct bench bench;
    struct end a, b;
    struct cv_tls_server *server;
    struct cv_tls_client *client;
    struct cv_timer timer;
    unsigned closed;
};

static void pair_init(struct pair *pair, bool has_tls)
{
    *pair = (struct pair){0};
    bench_init(&pair->bench, NULL);
    int fds[2];
    tcp_pair(fds);
    struct cv_tls_session *a = NULL, *b = NULL;
    if (has_tls) {
        assert_ok(cv_tls_server_new(certs.cert, certs.key, &pair->server, NULL));
        assert_ok(cv_tls_client_new(certs.ca, &pair->client, NULL));
        assert_ok(cv_tls_client_session(pair->client, "localhost", fds[0], &a, NULL));
        assert_ok(cv_tls_server_session(pair->server, fds[1], &b, NULL));
    }
    pair->a.data = pair->b.data = pair;
    end_open(&pair->a, &pair->bench, fds[0], a);
    end_open(&pair->b, &pair->bench, fds[1], b);
}

static void pair_run(struct pair *pair)
{
    bench_run(&pair->bench);
    cv_tls_server_free(&pair->server);
    cv_tls_client_free(&pair->client);
    assert_int_equal(pair->a.closes, 1);
    assert_int_equal(pair->b.closes, 1);
    assert_int_equal(pair->a.bad, 0);
    assert_int_equal(pair->b.bad, 0);
}

static void stop(struct end *end)
{
    cv_worker_stop(end->bench->worker);
}

static void stop_when_both_closed(struct end *end, const char *what)
{
    struct pair *pair = end->data;
    if (strcmp(what, "closed") == 0 && ++pair->closed == 2)
        stop(end);
}

static bool is(const char *what, const char *name)
{
    return strcmp(what, name) == 0;
}

/* --- bulk --- */

static void bulk_sender(struct end *end, const char *what)
{
    if (is(what, "writable") || is(what, "open"))
        send_pattern(end);
    if (end->conn && end->sent == end->to_send && !is(what, "closed"))
        cv_conn_shutdown_write(end->conn);
    stop_when_both_closed(end, what);
}

static void bulk_receiver(struct end *end, const char *what)
{
    if (is(what, "eof")) {
        cv_conn_close_after_flush(end->conn, 1000);
        cv_conn_close(((struct pair *)end->data)->a.conn, cv_ok());
    }
    stop_when_both_closed(end, what);
}

static void run_bulk(bool has_tls, uint64_t bytes)
{
    struct pair pair;
    pair_init(&pair, has_tls);
    pair.a.on_event = bulk_sender;
    pair.b.on_event = bulk_receiver;
    pair.a.to_send = bytes;
    if (!has_tls)
        bulk_sender(&pair.a, "open");
    pair_run(&pair);
    assert_int_equal(pair.b.received, bytes);
    assert_int_equal(pair.b.eofs, 1);
    assert_status(pair.b.why, CV_OK);
    assert_true(pair.a.writables > 0);
    if (has_tls)
        assert_int_equal(pair.a.opens + pair.b.opens, 2);
}

static void hundred_mebibytes_arrive_whole(void **state)
{
    (void)state;
    run_bulk(false, 100 * MIB);
}

static void hundred_mebibytes_arrive_whole_over_tls(void **state)
{
    (void)state;
    run_bulk(true, 100 * MIB);
}

/* --- echo, with half-close --- */

static void echo(struct end *end, const char *what)
{
    if (is(what, "data"))
        assert_ok(cv_conn_write(end->conn, end->text, (size_t)end->received));
    if (is(what, "eof"))
        cv_conn_close_after_flush(end->conn, 1000);
    stop_when_both_closed(end, what);
}

static void echo_client(struct end *end, const char *what)
{
    if (is(what, "open")) {
        assert_ok(cv_conn_write(end->conn, "\0\1\2\3", 4));
        cv_conn_shutdown_write(end->conn);
        assert_ok(cv_conn_write(end->conn, "dropped", 7));
    }
    if (is(what, "eof"))
        cv_conn_close(end->conn, cv_ok());
    stop_when_both_closed(end, what);
}

static void run_echo(bool has_tls)
{
    struct pair pair;
    pair_init(&pair, has_tls);
    pair.a.on_event = echo_client;
    pair.b.on_event = echo;
    if (!has_tls)
        echo_client(&pair.a, "open");
    pair_run(&pair);
    assert_int_equal(pair.a.received, 4);
    assert_int_equal(pair.b.received, 4);
    assert_int_equal(pair.a.eofs, 1);
    assert_int_equal(pair.b.eofs, 1);
    assert_status(pair.a.why, CV_OK);
    assert_status(pair.b.why, CV_OK);
}

static void a_half_closed_peer_still_gets_the_answer(void **state)
{
    (void)state;
    run_echo(false);
    run_echo(true);
}

/* --- backpressure --- */

static void on_waited(void *arg)
{
    struct pair *pair = arg;
    /* Kernel buffers are full by now: what is left waits in the capped buffer. */
    assert_true(cv_conn_is_congested(pair->a.conn));
    assert_true(cv_conn_room(pair->a.conn) < 1024 * 1024);
    assert_true(pair->a.sent < pair->a.to_send);
    assert_int_equal(pair->b.received, 0);
    cv_conn_resume(pair->b.conn);
}

static void a_paused_reader_stops_the_sender(void **state)
{
    (void)state;
    for (int has_tls = 0; has_tls < 2; has_tls++) {
        struct pair pair;
        pair_init(&pair, has_tls);
        pair.a.on_event = bulk_sender;
        pair.b.on_event = bulk_receiver;
        pair.a.to_send = 64 * MIB;
        cv_conn_pause(pair.b.conn);
        assert_true(cv_conn_is_paused(pair.b.conn));
        if (!has_tls)
            bulk_sender(&pair.a, "open");
        cv_timer_init(&pair.timer, on_waited, &pair);
        assert_ok(cv_worker_timer_start(pair.bench.worker, &pair.timer, 300));
        pair_run(&pair);
        assert_int_equal(pair.b.received, 64 * MIB);
    }
}

static void over_the_cap_nothing_is_appended(void **state)
{
    (void)state;
    struct pair pair;
    pair_init(&pair, false);
    static const uint8_t bytes[3000];
    cv_conn_set_marks(pair.a.conn, 1000, 2000, 4000);
    assert_ok(cv_conn_write(pair.a.conn, bytes, 3000));
    assert_true(cv_conn_is_congested(pair.a.conn));
    assert_int_equal(cv_conn_room(pair.a.conn), 1000);
    assert_status(cv_conn_write(pair.a.conn, bytes, 1001), CV_NO_RESOURCES);
    assert_int_equal(cv_buf_len(cv_conn_out(pair.a.conn)), 3000);
    cv_worker_stop(pair.bench.worker);
    bench_run(&pair.bench);
    /* The worker's end closes what is left. */
    assert_status(pair.a.why, CV_SHUTTING_DOWN);
    assert_status(pair.b.why, CV_SHUTTING_DOWN);
}

/* --- endings --- */

static void close_on_data(struct end *end, const char *what)
{
    if (is(what, "data")) {
        cv_conn_close(end->conn, cv_status(CV_BAD_REQUEST));
        cv_conn_close(end->conn, cv_status(CV_INTERNAL));
        cv_conn_close_after_flush(end->conn, 1);
        cv_conn_close_lingering(end->conn, 1);
        assert_ok(cv_conn_write(end->conn, "x", 1));
        assert_true(cv_conn_is_closing(end->conn));
        assert_status(cv_conn_detach(end->conn), CV_INVALID);
    }
    stop_when_both_closed(end, what);
}

static void close_on_eof(struct end *end, const char *what)
{
    if (is(what, "eof"))
        cv_conn_close(end->conn, cv_status(CV_EOF));
    stop_when_both_closed(end, what);
}

static void closing_in_a_callback_keeps_the_first_reason(void **state)
{
    (void)state;
    struct pair pair;
    pair_init(&pair, false);
    pair.a.on_event = close_on_eof;
    pair.b.on_event = close_on_data;
    pair.a.to_send = 1000;
    send_pattern(&pair.a);
    pair_run(&pair);
    assert_status(pair.b.why, CV_BAD_REQUEST);
}

/* b answers and lingers while a is still sending; a must see the whole answer. */
static void answer_and_linger(struct end *end, const char *what)
{
    if (is(what, "data") && !cv_conn_is_closing(end->conn)) {
        assert_ok(cv_conn_write(end->conn, "\0\1\2\3\4", 5));
        cv_conn_close_lingering(end->conn, 5000);
        end->sent = end->received;
    }
    stop_when_both_closed(end, what);
}

static void send_on_and_read_answer(struct end *end, const char *what)
{
    if (is(what, "writable"))
        send_pattern(end);
    if (is(what, "eof"))
        cv_conn_close(end->conn, cv_ok());
    stop_when_both_closed(end, what);
}

static void a_lingering_close_delivers_the_answer(void **state)
{
    (void)state;
    struct pair pair;
    pair_init(&pair, false);
    pair.a.on_event = send_on_and_read_answer;
    pair.b.on_event = answer_and_linger;
    pair.a.to_send = 8 * MIB;
    send_pattern(&pair.a);
    pair_run(&pair);
    assert_int_equal(pair.a.received, 5);
    assert_int_equal(pair.a.eofs, 1);
    assert_status(pair.a.why, CV_OK);
    assert_int_equal(pair.b.sent, pair.b.received); /* no on_data once it lingers */
}

static void never_close(struct end *end, const char *what)
{
    if (is(what, "closed"))
        stop(end);
}

static void lingering_and_draining_end_in_time(void **state)
{
    (void)state;
    struct pair pair;
    pair_init(&pair, false);
    pair.b.on_event = never_close;
    cv_conn_close_lingering(pair.b.conn, 30);
    pair_run(&pair);
    assert_status(pair.b.why, CV_OK);

    pair_init(&pair, false);
    pair.a.on_event = never_close;
    cv_conn_pause(pair.b.conn);
    cv_conn_set_marks(pair.a.conn, 1, (size_t)16 * MIB - 1, (size_t)16 * MIB);
    pair.a.to_send = 15 * MIB;
    send_pattern(&pair.a);
    cv_conn_close_after_flush(pair.a.conn, 50);
    pair_run(&pair);
    assert_status(pair.a.why, CV_CONN_TIMEOUT);
}

/* --- loss --- */

static void reset(int fd)
{
    const struct linger now = {.l_onoff = 1};
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now), 0);
    close(fd);
}

static void a_reset_is_told_as_one(void **state)
{
    (void)state;
    struct bench bench;
    bench_init(&bench, NULL);
    int fds[2];
    tcp_pair(fds);
    struct end end = {.on_event = never_close};
    end_open(&end, &bench, fds[0], NULL);
    assert_int_equal(write(fds[1], "\0\1", 2), 2);
    reset(fds[1]);
    bench_run(&bench);
    assert_int_equal(end.eofs, 0);
    assert_status(end.why, CV_CONN_RESET);
    assert_true(strlen(end.detail) > 0);
}

static void resetting_shows_at_the_peer(void **state)
{
    (void)state;
    struct pair pair;
    pair_init(&pair, false);
    pair.a.on_event = pair.b.on_event = stop_when_both_closed;
    cv_conn_reset(pair.a.conn);
    cv_conn_reset(pair.a.conn);
    pair_run(&pair);
    assert_status(pair.a.why, CV_CONN_RESET);
    assert_status(pair.b.why, CV_CONN_RESET);
    assert_int_equal(pair.b.eofs, 0);
}

static void close_on_hangup(struct end *end, const char *what)
{
    if (is(what, "hangup"))
        cv_conn_close(end->conn, cv_status(CV_CANCELLED));
    if (is(what, "closed"))
        stop(end);
}

static void a_peer_that_goes_away_is_noticed_while_paused(void **state)
{
    (void)state;
    for (int is_reset = 0; is_reset < 2; is_reset++) {
        struct bench bench;
        bench_init(&bench, NULL);
        int fds[2];
        tcp_pair(fds);
        struct end end = {.on_event = close_on_hangup};
        end_open(&end, &bench, fds[0], NULL);
        cv_conn_pause(end.conn);
        assert_int_equal(write(fds[1], "unread", 6), 6);
        if (is_reset)
            reset(fds[1]);
        else
            close(fds[1]);
        bench_run(&bench);
        assert_int_equal(end.hangups, 1);
        assert_int_equal(end.received, 0);
        assert_status(end.why, CV_CANCELLED);
    }
}

/* The peer sends its reason, then resets: a sender that finds out by writing still sees it. */
static void an_answer_before_a_reset_is_delivered(void **state)
{
    (void)state;
    struct bench bench;
    bench_init(&bench, NULL);
    int fds[2];
    tcp_pair(fds);
    struct end end = {.on_event = never_close};
    end_open(&end, &bench, fds[0], NULL);
    cv_conn_pause(end.conn);
    assert_int_equal(write(fds[1], "\0\1\2", 3), 3);
    reset(fds[1]);
    end.to_send = 100000;
    send_pattern(&end);
    cv_conn_resume(end.conn);
    bench_run(&bench);
    assert_int_equal(end.received, 3);
    assert_int_equal(end.closes, 1);
    assert_status(end.why, CV_CONN_RESET);
}

static void shut_socket_on_open(struct end *end, const char *what)
{
    struct pair *pair = end->data;
    if (is(what, "data"))
        (void)shutdown(cv_conn_fd(pair->a.conn), SHUT_WR); /* FIN without close_notify */
    if (is(what, "closed"))
        stop(end);
}

static void hello_on_open(struct end *end, const char *what)
{
    if (is(what, "open"))
        assert_ok(cv_conn_write(end->conn, "\0", 1));
}

static void tls_cut_without_close_notify_is_no_end(void **state)
{
    (void)state;
    struct pair pair;
    pair_init(&pair, true);
    pair.a.on_event = hello_on_open;
    pair.b.on_event = shut_socket_on_open;
    pair_run(&pair);
    assert_int_equal(pair.b.eofs, 0);
    assert_status(pair.b.why, CV_CONN_RESET);
}

static void a_silent_handshake_times_out(void **state)
{
    (void)state;
    struct bench bench;
    bench_init(&bench, NULL);
    struct cv_tls_server *server;
    struct cv_tls_session *session;
    assert_ok(cv_tls_server_new(certs.cert, certs.key, &server, NULL));
    int fds[2];
    tcp_pair(fds);
    assert_ok(cv_tls_server_session(server, fds[0], &session, NULL));
    struct end end = {.on_event = never_close};
    end_open(&end, &bench, fds[0], session);
    cv_conn_set_handshake_timeout(end.conn, 30);
    bench_run(&bench);
    assert_status(end.why, CV_CONN_TIMEOUT);
    close(fds[1]);
    cv_tls_server_free(&server);
}

static void facts_are_told(void **state)
{
    (void)state;
    struct pair pair;
    pair_init(&pair, false);
    struct cv_conn *conn = pair.a.conn;
    assert_true(cv_addr_is_loopback(cv_conn_peer_addr(conn)));
    assert_int_equal(cv_addr_port(cv_conn_peer_addr(conn)),
                     cv_addr_port(cv_conn_local_addr(pair.b.conn)));
    assert_false(cv_conn_is_tls(conn));
    assert_ptr_equal(cv_conn_worker(conn), pair.bench.worker);
    cv_conn_set_notsent_lowat(conn, 128 * 1024);
    cv_conn_set_user_timeout(conn, 10000);
    assert_true(cv_conn_rtt_us(conn) > 0);
    cv_worker_stop(pair.bench.worker);
    pair_run(&pair);
}

int main(void)
{
    if (!cv_is_ok(cv_net_init()))
        return 1;
    certs_make(&certs, "localhost");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hundred_mebibytes_arrive_whole),
        cmocka_unit_test(hundred_mebibytes_arrive_whole_over_tls),
        cmocka_unit_test(a_half_closed_peer_still_gets_the_answer),
        cmocka_unit_test(a_paused_reader_stops_the_sender),
        cmocka_unit_test(over_the_cap_nothing_is_appended),
        cmocka_unit_test(closing_in_a_callback_keeps_the_first_reason),
        cmocka_unit_test(a_lingering_close_delivers_the_answer),
        cmocka_unit_test(lingering_and_draining_end_in_time),
        cmocka_unit_test(a_reset_is_told_as_one),
        cmocka_unit_test(resetting_shows_at_the_peer),
        cmocka_unit_test(a_peer_that_goes_away_is_noticed_while_paused),
        cmocka_unit_test(an_answer_before_a_reset_is_delivered),
        cmocka_unit_test(tls_cut_without_close_notify_is_no_end),
        cmocka_unit_test(a_silent_handshake_times_out),
        cmocka_unit_test(facts_are_told),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    certs_done(&certs);
    cv_net_done();
    return failed;
}
