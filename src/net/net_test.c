/* SPDX-License-Identifier: MIT */
#include "net/net_test.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>
#include <unistd.h>

enum { GUARD_MS = 20 * 1000 };

/* --- bench --- */

static void on_guard(void *arg)
{
    struct bench *bench = arg;
    bench->is_late = true;
    cv_worker_stop(bench->worker);
}

static void on_accept(void *arg, int fd, const struct cv_addr *peer)
{
    struct bench *bench = arg;
    assert_true(cv_addr_is_loopback(peer));
    bench->on_accept(bench, fd);
}

static const struct cv_listener_ops listener_ops = {.on_accept = on_accept};

void bench_init(struct bench *bench, void (*accept_fn)(struct bench *bench, int fd))
{
    *bench = (struct bench){.on_accept = accept_fn};
    assert_ok(cv_worker_new(0, &bench->worker, NULL));
    cv_timer_init(&bench->guard, on_guard, bench);
    assert_ok(cv_worker_timer_start(bench->worker, &bench->guard, GUARD_MS));
    if (!accept_fn)
        return;
    struct cv_listen_spec spec;
    assert_ok(cv_listen_spec_parse("127.0.0.1:0", &spec, NULL));
    assert_ok(
        cv_listener_new(bench->worker, &spec, 64, &listener_ops, bench, &bench->listener, NULL));
}

void bench_run(struct bench *bench)
{
    cv_worker_run(bench->worker);
    cv_worker_free(&bench->worker);
    assert_false(bench->is_late);
}

uint16_t bench_port(const struct bench *bench)
{
    return cv_addr_port(&cv_listener_spec(bench->listener)->addr);
}

int connect_to(uint16_t port)
{
    struct sockaddr_in to = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    assert_int_equal(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
    return fd;
}

int bench_connect(const struct bench *bench)
{
    return connect_to(bench_port(bench));
}

void tcp_pair(int fds[2])
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof at;
    int listening = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(listening, (struct sockaddr *)&at, sizeof at), 0);
    assert_int_equal(listen(listening, 1), 0);
    assert_int_equal(getsockname(listening, (struct sockaddr *)&at, &len), 0);
    fds[0] = connect_to(ntohs(at.sin_port));
    fds[1] = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    assert_true(fds[1] >= 0);
    close(listening);
}

/* --- end --- */

static void tell(struct end *end, const char *what)
{
    if (end->on_event)
        end->on_event(end, what);
}

static void end_on_open(void *arg)
{
    struct end *end = arg;
    end->opens++;
    tell(end, "open");
}

static void end_on_data(void *arg, uint8_t *data, size_t len)
{
    struct end *end = arg;
    for (size_t i = 0; i < len; i++)
        if (data[i] != (uint8_t)((end->received + i) % 251))
            end->bad++;
    for (size_t i = 0; i < len && end->received + i < sizeof end->text - 1; i++)
        end->text[end->received + i] = (char)data[i];
    end->received += len;
    end->last = data[len - 1];
    memset(data, 0xee, len); /* we may change it */
    tell(end, "data");
}

static void end_on_eof(void *arg)
{
    struct end *end = arg;
    end->eofs++;
    tell(end, "eof");
}

static void end_on_writable(void *arg)
{
    struct end *end = arg;
    end->writables++;
    tell(end, "writable");
}

static void end_on_hangup(void *arg)
{
    struct end *end = arg;
    end->hangups++;
    tell(end, "hangup");
}

static void end_on_closed(void *arg, struct cv_status why, const struct cv_error *error)
{
    struct end *end = arg;
    end->closes++;
    end->why = why;
    end->conn = NULL;
    (void)snprintf(end->detail, sizeof end->detail, "%s", error->detail);
    tell(end, "closed");
}

const struct cv_conn_ops end_ops = {
    .on_open = end_on_open,
    .on_data = end_on_data,
    .on_eof = end_on_eof,
    .on_writable = end_on_writable,
    .on_hangup = end_on_hangup,
    .on_closed = end_on_closed,
};

void end_open(struct end *end, struct bench *bench, int fd, struct cv_tls_session *tls)
{
    end->bench = bench;
    assert_ok(cv_conn_new(bench->worker, fd, tls, &end_ops, end, &end->conn, NULL));
}

void send_pattern(struct end *end)
{
    uint8_t chunk[16 * 1024];
    while (end->conn && end->sent < end->to_send && !cv_conn_is_congested(end->conn)) {
        size_t len = sizeof chunk;
        if (len > end->to_send - end->sent)
            len = (size_t)(end->to_send - end->sent);
        for (size_t i = 0; i < len; i++)
            chunk[i] = (uint8_t)((end->sent + i) % 251);
        assert_ok(cv_conn_write(end->conn, chunk, len));
        end->sent += len;
    }
}

/* --- certificates --- */

static void add_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *extension = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    assert_non_null(extension);
    X509_add_ext(cert, extension, -1);
    X509_EXTENSION_free(extension);
}

static X509 *make_cert(EVP_PKEY *key, const char *name, X509 *issuer, EVP_PKEY *issuer_key,
                       const char *alt_names, long serial)
{
    X509 *cert = X509_new();
    X509_set_version(cert, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(cert), serial);
    X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
    X509_gmtime_adj(X509_getm_notAfter(cert), 86400);
    X509_set_pubkey(cert, key);
    X509_NAME *subject = X509_get_subject_name(cert);
    X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const unsigned char *)name, -1, -1, 0);
    X509_set_issuer_name(cert, issuer ? X509_get_subject_name(issuer) : subject);
    if (alt_names)
        add_extension(cert, issuer, NID_subject_alt_name, alt_names);
    else
        add_extension(cert, cert, NID_basic_constraints, "critical,CA:TRUE");
    assert_true(X509_sign(cert, issuer_key, EVP_sha256()) > 0);
    return cert;
}

static void write_key(const char *path, EVP_PKEY *key)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(fchmod(fileno(file), 0600), 0);
    assert_int_equal(PEM_write_PrivateKey(file, key, NULL, NULL, 0, NULL, NULL), 1);
    assert_int_equal(fclose(file), 0);
}

static void write_cert(const char *path, X509 *cert)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_int_equal(PEM_write_X509(file, cert), 1);
    assert_int_equal(fclose(file), 0);
}

void certs_make(struct certs *certs, const char *name)
{
    (void)snprintf(certs->dir, sizeof certs->dir, "/tmp/culvert-net-test-XXXXXX");
    assert_non_null(mkdtemp(certs->dir));
    (void)snprintf(certs->ca, sizeof certs->ca, "%s/ca.pem", certs->dir);
    (void)snprintf(certs->cert, sizeof certs->cert, "%s/cert.pem", certs->dir);
    (void)snprintf(certs->key, sizeof certs->key, "%s/key.pem", certs->dir);
    (void)snprintf(certs->other_key, sizeof certs->other_key, "%s/other.pem", certs->dir);
    EVP_PKEY *ca_key = EVP_EC_gen("P-256");
    EVP_PKEY *key = EVP_EC_gen("P-256");
    EVP_PKEY *other = EVP_EC_gen("P-256");
    X509 *ca = make_cert(ca_key, "culvert test CA", NULL, ca_key, NULL, 1);
    char alt_names[128];
    (void)snprintf(alt_names, sizeof alt_names, "DNS:%s,IP:127.0.0.1", name);
    X509 *cert = make_cert(key, name, ca, ca_key, alt_names, 2);
    write_cert(certs->ca, ca);
    write_cert(certs->cert, cert);
    write_key(certs->key, key);
    write_key(certs->other_key, other);
    X509_free(ca);
    X509_free(cert);
    EVP_PKEY_free(ca_key);
    EVP_PKEY_free(key);
    EVP_PKEY_free(other);
}

void certs_done(struct certs *certs)
{
    (void)unlink(certs->ca);
    (void)unlink(certs->cert);
    (void)unlink(certs->key);
    (void)unlink(certs->other_key);
    (void)rmdir(certs->dir);
}
