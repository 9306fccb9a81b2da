/* SPDX-License-Identifier: MIT */
#include "net/net.h"
#include "net/net_test.h"

#include <fcntl.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

static struct certs certs, others;

/* What a client and a server say about one handshake. */
struct meeting {
    struct cv_status client, server;
    char detail[256];
    bool is_open;
};

static void close_on_open(struct end *end, const char *what)
{
    struct end *other = end->data;
    if (strcmp(what, "open") == 0)
        cv_conn_close_after_flush(end->conn, 1000);
    if (strcmp(what, "eof") == 0)
        cv_conn_close(end->conn, cv_ok());
    if (strcmp(what, "closed") == 0 && other->closes)
        cv_worker_stop(end->bench->worker);
}

static struct meeting meet(struct cv_tls_server *server, struct cv_tls_client *client,
                           const char *host)
{
    struct bench bench;
    bench_init(&bench, NULL);
    int fds[2];
    tcp_pair(fds);
    struct cv_tls_session *a, *b;
    assert_ok(cv_tls_client_session(client, host, fds[0], &a, NULL));
    assert_ok(cv_tls_server_session(server, fds[1], &b, NULL));
    struct end ends[2] = {{.on_event = close_on_open}, {.on_event = close_on_open}};
    ends[0].data = &ends[1];
    ends[1].data = &ends[0];
    end_open(&ends[0], &bench, fds[0], a);
    end_open(&ends[1], &bench, fds[1], b);
    bench_run(&bench);
    struct meeting meeting = {
        .client = ends[0].why, .server = ends[1].why, .is_open = ends[0].opens == 1};
    (void)snprintf(meeting.detail, sizeof meeting.detail, "%s", ends[0].detail);
    return meeting;
}

static void the_name_in_the_certificate_counts(void **state)
{
    (void)state;
    struct cv_tls_server *server;
    struct cv_tls_client *client;
    assert_ok(cv_tls_server_new(certs.cert, certs.key, &server, NULL));
    assert_ok(cv_tls_client_new(certs.ca, &client, NULL));
    const char *const good[] = {"localhost", "LOCALHOST", "localhost.", "127.0.0.1"};
    const char *const bad[] = {"example.com", "localhos", "a.localhost", "127.0.0.2", "::1"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        struct meeting meeting = meet(server, client, good[i]);
        assert_status(meeting.client, CV_OK);
        assert_true(meeting.is_open);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct meeting meeting = meet(server, client, bad[i]);
        assert_status(meeting.client, CV_TLS_CERTIFICATE);
        assert_false(meeting.is_open);
        assert_non_null(strstr(meeting.detail, "mismatch"));
    }
    struct cv_tls_session *session;
    assert_status(cv_tls_client_session(client, "", 0, &session, NULL), CV_TLS);
    cv_tls_client_free(&client);
    cv_tls_server_free(&server);
}

static void an_unknown_authority_is_refused(void **state)
{
    (void)state;
    struct cv_tls_server *server;
    struct cv_tls_client *client;
    assert_ok(cv_tls_server_new(certs.cert, certs.key, &server, NULL));
    assert_ok(cv_tls_client_new(others.ca, &client, NULL));
    struct meeting meeting = meet(server, client, "localhost");
    assert_status(meeting.client, CV_TLS_CERTIFICATE);
    assert_false(meeting.is_open);
    cv_tls_client_free(&client);
    assert_ok(cv_tls_client_new(NULL, &client, NULL)); /* the system does not know it either */
    meeting = meet(server, client, "localhost");
    assert_status(meeting.client, CV_TLS_CERTIFICATE);
    cv_tls_client_free(&client);
    cv_tls_server_free(&server);
}

static void files_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    struct cv_tls_server *server;
    struct cv_tls_client *client;
    struct cv_error error;
    assert_status(cv_tls_server_new(certs.cert, certs.other_key, &server, &error), CV_TLS);
    assert_null(server);
    assert_non_null(strstr(error.detail, "mismatch"));
    assert_status(cv_tls_server_new("/nonexistent", certs.key, &server, &error), CV_TLS);
    assert_non_null(strstr(error.detail, "No such file"));
    assert_status(cv_tls_server_new(certs.key, certs.key, &server, &error), CV_TLS);
    assert_status(cv_tls_client_new("/nonexistent", &client, &error), CV_TLS);
    assert_null(client);
    cv_tls_server_free(&server);
    cv_tls_client_free(&client);
}

static void copy_file(const char *from, const char *to)
{
    char bytes[16384];
    FILE *in = fopen(from, "r");
    FILE *out = fopen(to, "w");
    assert_true(in && out);
    assert_int_equal(fchmod(fileno(out), 0600), 0);
    size_t len = fread(bytes, 1, sizeof bytes, in);
    assert_int_equal(fwrite(bytes, 1, len, out), len);
    assert_int_equal(fclose(in), 0);
    assert_int_equal(fclose(out), 0);
}

static void a_key_that_others_may_read_is_refused(void **state)
{
    (void)state;
    static const struct {
        mode_t mode;
        bool is_fine;
    } cases[] = {{0600, true},  {0400, true},  {0640, true},  {0440, true}, {0644, false},
                 {0604, false}, {0601, false}, {0602, false}, {0660, false}};
    struct certs own;
    certs_make(&own, "localhost");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct cv_tls_server *server = NULL;
        struct cv_error error = {0};
        assert_int_equal(chmod(own.key, cases[i].mode), 0);
        struct cv_status status = cv_tls_server_new(own.cert, own.key, &server, &error);
        assert_status(status, cases[i].is_fine ? CV_OK : CV_TLS);
        if (!cases[i].is_fine)
            assert_non_null(strstr(error.detail, "chmod 600"));
        cv_tls_server_free(&server);
    }
    certs_done(&own);
}

static void a_reload_takes_the_new_certificate_or_keeps_the_old(void **state)
{
    (void)state;
    struct certs own;
    certs_make(&own, "localhost");
    struct cv_tls_server *server;
    struct cv_tls_client *old_client, *new_client;
    assert_ok(cv_tls_server_new(own.cert, own.key, &server, NULL));
    assert_true(cv_tls_server_expires_at(server) > 1600000000);
    assert_ok(cv_tls_client_new(own.ca, &old_client, NULL));
    assert_ok(cv_tls_client_new(certs.ca, &new_client, NULL));
    assert_status(meet(server, old_client, "localhost").client, CV_OK);

    copy_file(certs.cert, own.cert); /* its key is still the old one */
    assert_status(cv_tls_server_reload(server, NULL), CV_TLS);
    assert_status(meet(server, old_client, "localhost").client, CV_OK);

    copy_file(certs.key, own.key);
    assert_ok(cv_tls_server_reload(server, NULL));
    assert_status(meet(server, old_client, "localhost").client, CV_TLS_CERTIFICATE);
    assert_status(meet(server, new_client, "localhost").client, CV_OK);
    cv_tls_client_free(&old_client);
    cv_tls_client_free(&new_client);
    cv_tls_server_free(&server);
    certs_done(&own);
}

/* --- peers that want something else, with OpenSSL of their own in a thread --- */

struct stranger {
    int fd;
    int max_version;
    const char *alpn; /* in wire form */
    int key_updates;  /* sent once connected, each with a byte of data where has_data */
    bool has_data;
    int result;
    pthread_t thread;
};

static void *strange_client(void *arg)
{
    struct stranger *stranger = arg;
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_max_proto_version(ctx, stranger->max_version);
    SSL *ssl = SSL_new(ctx);
    SSL_set_fd(ssl, stranger->fd);
    if (stranger->alpn)
        SSL_set_alpn_protos(ssl, (const unsigned char *)stranger->alpn,
                            (unsigned)strlen(stranger->alpn));
    stranger->result = SSL_connect(ssl);
    for (int i = 0; stranger->result == 1 && i < stranger->key_updates; i++) {
        static const uint8_t data[16 * 1024];
        (void)SSL_key_update(ssl, SSL_KEY_UPDATE_NOT_REQUESTED);
        stranger->result =
            stranger->has_data ? SSL_write(ssl, data, sizeof data) > 0 : SSL_do_handshake(ssl);
    }
    if (stranger->key_updates)
        SSL_shutdown(ssl);
    /* In TLS 1.3 a client has connected before the server's objection arrives. */
    char byte;
    if (stranger->result == 1 && SSL_read(ssl, &byte, 1) <= 0 &&
        !(SSL_get_shutdown(ssl) & SSL_RECEIVED_SHUTDOWN))
        stranger->result = -1;
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    return NULL;
}

static void shut_on_open(struct end *end, const char *what)
{
    if (strcmp(what, "open") == 0)
        cv_conn_close_lingering(end->conn, 2000);
    if (strcmp(what, "closed") == 0)
        cv_worker_stop(end->bench->worker);
}

static struct cv_status meet_stranger_with(struct stranger *stranger,
                                           void (*on_event)(struct end *end, const char *what))
{
    struct cv_tls_server *server;
    struct cv_tls_session *session;
    assert_ok(cv_tls_server_new(certs.cert, certs.key, &server, NULL));
    struct bench bench;
    bench_init(&bench, NULL);
    int fds[2];
    tcp_pair(fds);
    assert_int_equal(fcntl(fds[0], F_SETFL, 0), 0); /* blocking again */
    stranger->fd = fds[0];
    assert_ok(cv_tls_server_session(server, fds[1], &session, NULL));
    struct end end = {.on_event = on_event};
    end_open(&end, &bench, fds[1], session);
    assert_int_equal(pthread_create(&stranger->thread, NULL, strange_client, stranger), 0);
    bench_run(&bench);
    pthread_join(stranger->thread, NULL);
    close(fds[0]);
    cv_tls_server_free(&server);
    return end.why;
}

static struct cv_status meet_stranger(struct stranger *stranger)
{
    return meet_stranger_with(stranger, shut_on_open);
}

static void tls_1_2_is_refused(void **state)
{
    (void)state;
    struct stranger stranger = {.max_version = TLS1_2_VERSION};
    assert_status(meet_stranger(&stranger), CV_TLS);
    assert_int_not_equal(stranger.result, 1);
    stranger = (struct stranger){.max_version = TLS1_3_VERSION};
    struct cv_status status = meet_stranger(&stranger);
    assert_true(status.id == CV_OK || status.id == CV_CONN_RESET);
    assert_int_equal(stranger.result, 1);
}

static void alpn_takes_http_1_1_only(void **state)
{
    (void)state;
    struct stranger stranger = {.max_version = TLS1_3_VERSION, .alpn = "\x02h2"};
    assert_status(meet_stranger(&stranger), CV_TLS);
    assert_int_not_equal(stranger.result, 1);
    stranger = (struct stranger){.max_version = TLS1_3_VERSION, .alpn = "\x02h2\x08http/1.1"};
    (void)!cv_is_ok(meet_stranger(&stranger));
    assert_int_equal(stranger.result, 1);
}

static void close_on_closed(struct end *end, const char *what)
{
    if (strcmp(what, "closed") == 0)
        cv_worker_stop(end->bench->worker);
}

static void bytes_that_are_no_tls_end_the_handshake(void **state)
{
    (void)state;
    struct cv_tls_server *server;
    struct cv_tls_session *session;
    assert_ok(cv_tls_server_new(certs.cert, certs.key, &server, NULL));
    struct bench bench;
    bench_init(&bench, NULL);
    int fds[2];
    tcp_pair(fds);
    static const char request[] = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_int_equal(write(fds[0], request, sizeof request - 1), sizeof request - 1);
    assert_ok(cv_tls_server_session(server, fds[1], &session, NULL));
    struct end end = {.on_event = close_on_closed};
    end_open(&end, &bench, fds[1], session);
    bench_run(&bench);
    assert_status(end.why, CV_TLS);
    assert_int_equal(end.opens, 0);
    assert_true(strlen(end.detail) > 0);
    close(fds[0]);
    cv_tls_server_free(&server);
}

static void close_on_eof(struct end *end, const char *what)
{
    if (strcmp(what, "eof") == 0)
        cv_conn_close(end->conn, cv_ok());
    if (strcmp(what, "closed") == 0)
        cv_worker_stop(end->bench->worker);
}

static void new_keys_without_end_are_refused_new_keys_under_load_are_not(void **state)
{
    (void)state;
    struct stranger stranger = {.max_version = TLS1_3_VERSION, .key_updates = 33};
    assert_status(meet_stranger_with(&stranger, close_on_eof), CV_TLS);
    stranger = (struct stranger){.max_version = TLS1_3_VERSION, .key_updates = 32};
    assert_ok(meet_stranger_with(&stranger, close_on_eof));
    stranger =
        (struct stranger){.max_version = TLS1_3_VERSION, .key_updates = 200, .has_data = true};
    assert_ok(meet_stranger_with(&stranger, close_on_eof));
}

int main(void)
{
    if (!cv_is_ok(cv_net_init()))
        return 1;
    certs_make(&certs, "localhost");
    certs_make(&others, "localhost");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_name_in_the_certificate_counts),
        cmocka_unit_test(an_unknown_authority_is_refused),
        cmocka_unit_test(files_that_do_not_fit_are_refused),
        cmocka_unit_test(a_key_that_others_may_read_is_refused),
        cmocka_unit_test(a_reload_takes_the_new_certificate_or_keeps_the_old),
        cmocka_unit_test(tls_1_2_is_refused),
        cmocka_unit_test(alpn_takes_http_1_1_only),
        cmocka_unit_test(bytes_that_are_no_tls_end_the_handshake),
        cmocka_unit_test(new_keys_without_end_are_refused_new_keys_under_load_are_not),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    certs_done(&certs);
    certs_done(&others);
    cv_net_done();
    return failed;
}
