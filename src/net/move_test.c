/* SPDX-License-Identifier: MIT
 *
 * A connection that moves between workers in the middle of its bytes.
 */
#include "net/net.h"
#include "net/net_test.h"

#define MIB ((uint64_t)1024 * 1024)

enum { CONNECTIONS = 8 };

static struct certs certs;

struct move {
    struct bench *bench;
    struct cv_worker *other;
    struct end client, server;
    struct cv_mail mail;
    bool has_moved;
    unsigned *finished;
};

static void client_event(struct end *end, const char *what)
{
    struct move *move = end->data;
    if (strcmp(what, "open") == 0 || strcmp(what, "writable") == 0)
        send_pattern(end);
    if (strcmp(what, "closed") == 0 && ++*move->finished == CONNECTIONS)
        cv_worker_stop(move->bench->worker);
}

static void answer_when_whole(struct move *move)
{
    struct end *end = &move->server;
    if (end->received != move->client.to_send)
        return;
    assert_ok(cv_conn_write(end->conn, "\3\4", 2));
    cv_conn_close_after_flush(end->conn, 1000);
}

static void moved(void *arg)
{
    struct move *move = arg;
    struct cv_conn *conn = move->server.conn;
    assert_ok(cv_conn_attach(conn, move->other, &end_ops, &move->server));
    assert_ptr_equal(cv_conn_worker(conn), move->other);
    answer_when_whole(move);
}

static void server_event(struct end *end, const char *what)
{
    struct move *move = end->data;
    if (strcmp(what, "data") != 0)
        return;
    if (!move->has_moved && end->received > 1) {
        move->has_moved = true;
        assert_ok(cv_conn_write(end->conn, "\0\1\2", 3)); /* goes along, unsent */
        assert_ok(cv_conn_detach(end->conn));
        assert_status(cv_conn_detach(end->conn), CV_INVALID);
        cv_mail_init(&move->mail, moved, move);
        assert_true(cv_worker_post(move->other, &move->mail));
        return;
    }
    answer_when_whole(move);
}

static void close_client_on_eof(struct end *end, const char *what)
{
    if (strcmp(what, "eof") == 0)
        cv_conn_close(end->conn, cv_ok());
    client_event(end, what);
}

static void run_moves(bool has_tls, uint64_t bytes)
{
    struct bench bench;
    bench_init(&bench, NULL);
    struct cv_worker *other;
    assert_ok(cv_worker_new(1, &other, NULL));
    assert_ok(cv_worker_start_thread(other));
    struct cv_tls_server *server = NULL;
    struct cv_tls_client *client = NULL;
    if (has_tls) {
        assert_ok(cv_tls_server_new(certs.cert, certs.key, &server, NULL));
        assert_ok(cv_tls_client_new(certs.ca, &client, NULL));
    }
    unsigned finished = 0;
    struct move *moves = calloc(CONNECTIONS, sizeof *moves);
    for (int i = 0; i < CONNECTIONS; i++) {
        struct move *move = &moves[i];
        *move = (struct move){.bench = &bench, .other = other, .finished = &finished};
        move->client.data = move->server.data = move;
        move->client.on_event = close_client_on_eof;
        move->server.on_event = server_event;
        move->client.to_send = bytes;
        int fds[2];
        struct cv_tls_session *a = NULL, *b = NULL;
        tcp_pair(fds);
        if (has_tls) {
            assert_ok(cv_tls_client_session(client, "127.0.0.1", fds[0], &a, NULL));
            assert_ok(cv_tls_server_session(server, fds[1], &b, NULL));
        }
        end_open(&move->client, &bench, fds[0], a);
        end_open(&move->server, &bench, fds[1], b);
        if (!has_tls)
            send_pattern(&move->client);
    }
    bench_run(&bench);
    cv_worker_stop(other);
    cv_worker_join(other);
    cv_worker_free(&other);
    for (int i = 0; i < CONNECTIONS; i++) {
        assert_true(moves[i].has_moved);
        assert_int_equal(moves[i].server.received, bytes);
        assert_int_equal(moves[i].server.bad, 0);
        assert_int_equal(moves[i].server.closes, 1);
        assert_status(moves[i].server.why, CV_OK);
        assert_int_equal(moves[i].client.received, 5);
        assert_int_equal(moves[i].client.bad, 0);
        assert_int_equal(moves[i].client.eofs, 1);
    }
    free(moves);
    cv_tls_server_free(&server);
    cv_tls_client_free(&client);
}

static void a_plain_connection_moves_with_its_bytes(void **state)
{
    (void)state;
    run_moves(false, 5 * MIB);
    run_moves(false, 1000);
}

static void a_tls_connection_moves_with_its_bytes(void **state)
{
    (void)state;
    run_moves(true, 5 * MIB);
    run_moves(true, 40000);
    run_moves(true, 1000);
}

static void a_detached_connection_can_be_discarded(void **state)
{
    (void)state;
    struct bench bench;
    bench_init(&bench, NULL);
    int fds[2];
    tcp_pair(fds);
    struct end a = {0}, b = {0};
    end_open(&a, &bench, fds[0], NULL);
    end_open(&b, &bench, fds[1], NULL);
    assert_ok(cv_conn_write(a.conn, "lost", 4));
    assert_ok(cv_conn_detach(a.conn));
    assert_null(cv_conn_worker(a.conn));
    cv_conn_discard(a.conn);
    cv_worker_stop(bench.worker);
    bench_run(&bench);
    assert_int_equal(a.closes, 0);
    assert_int_equal(b.closes, 1);
}

int main(void)
{
    if (!cv_is_ok(cv_net_init()))
        return 1;
    certs_make(&certs, "localhost");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plain_connection_moves_with_its_bytes),
        cmocka_unit_test(a_tls_connection_moves_with_its_bytes),
        cmocka_unit_test(a_detached_connection_can_be_discarded),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    certs_done(&certs);
    cv_net_done();
    return failed;
}
