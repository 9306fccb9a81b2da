/* SPDX-License-Identifier: MIT
 *
 * Happy path: context from files → session per connection → handshake → read and write → shutdown.
 * Fails: files (CV_TLS), peer's certificate (CV_TLS_CERTIFICATE), anything else in the protocol
 * (CV_TLS), the socket (CV_CONN_RESET).
 */
#include "net/tls.h"

#include "net/addr.h"
#include "net/tls_facts.h"

#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* Several records per read system call; freed while a connection is idle. */
enum { READ_AHEAD_BYTES = 64 * 1024, RECORD_BYTES = 16 * 1024 };

/* New keys are due every 2^24 records or so (RFC 8446 §5.5). A peer that asks for them without
 * sending anything else only makes work: more updates than this in so many bytes end it. */
enum { KEY_UPDATES_MAX = 32, KEY_UPDATE_BYTES = 64 * 1024 };

struct cv_tls_server {
    char *cert_file;
    char *key_file;
    pthread_mutex_t lock; /* guards ctx, which a reload replaces */
    SSL_CTX *ctx;
};

struct cv_tls_client {
    SSL_CTX *ctx;
};

struct cv_tls_session {
    SSL *ssl;
    unsigned key_updates; /* that came since read_bytes was 0 */
    size_t read_bytes;
    struct cv_tls_facts *facts; /* somebody's, or NULL */
};

/* --- errors --- */

/* The oldest error in OpenSSL's queue is the cause, later ones its consequences. */
static struct cv_status fail_queue(struct cv_error *error, const char *what)
{
    unsigned long code = ERR_peek_error();
    const char *reason = code ? ERR_reason_error_string(code) : NULL;
    if (code && ERR_SYSTEM_ERROR(code))
        reason = strerrordesc_np(ERR_GET_REASON(code));
    struct cv_status status =
        cv_fail(error, CV_TLS, "%.150s: %.80s", what, reason ? reason : "unknown reason");
    ERR_clear_error();
    return status;
}

static bool is_certificate_alert(int reason)
{
    switch (reason) {
    case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
    case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED:
        return true;
    default:
        return false;
    }
}

/* After an OpenSSL call returned `result` <= 0. `saved_errno` is errno right after it. */
static struct cv_status classify(struct cv_tls_session *session, int result, int saved_errno,
                                 enum cv_tls_want *want, struct cv_error *error)
{
    if (session->key_updates > KEY_UPDATES_MAX) {
        ERR_clear_error();
        return cv_fail(error, CV_TLS, "too many key updates");
    }
    switch (SSL_get_error(session->ssl, result)) {
    case SSL_ERROR_WANT_READ:
        *want = CV_TLS_WANT_READ;
        return cv_status(CV_AGAIN);
    case SSL_ERROR_WANT_WRITE:
        *want = CV_TLS_WANT_WRITE;
        return cv_status(CV_AGAIN);
    case SSL_ERROR_ZERO_RETURN:
        return cv_status(CV_EOF);
    case SSL_ERROR_SYSCALL:
        ERR_clear_error();
        if (saved_errno == 0)
            return cv_fail(error, CV_CONN_RESET, "closed without close_notify");
        return cv_fail_errno(error, cv_status_from_errno(saved_errno), saved_errno, "TLS socket");
    default:
        break;
    }
    unsigned long code = ERR_peek_error();
    int reason = ERR_GET_REASON(code);
    if (ERR_GET_LIB(code) == ERR_LIB_SSL && reason == SSL_R_UNEXPECTED_EOF_WHILE_READING) {
        /* Without close_notify the stream may have been cut by anybody (RFC 8446 §6.1). */
        ERR_clear_error();
        return cv_fail(error, CV_CONN_RESET, "closed without close_notify");
    }
    /* Whatever OpenSSL reports first, say that a signature did not fit. */
    long verify = SSL_get_verify_result(session->ssl);
    if (verify != X509_V_OK) {
        ERR_clear_error();
        return cv_fail(error, CV_TLS_CERTIFICATE, "%s", X509_verify_cert_error_string(verify));
    }
    if (is_certificate_alert(reason)) {
        (void)fail_queue(error, "the peer refused the certificate");
        return cv_status(CV_TLS_CERTIFICATE);
    }
    if (ERR_GET_LIB(code) == ERR_LIB_SSL && reason == SSL_R_WRONG_VERSION_NUMBER) {
        ERR_clear_error();
        return cv_fail(error, CV_TLS, "what answers there does not speak TLS");
    }
    return fail_queue(error, "TLS");
}

/* --- contexts --- */

static SSL_CTX *context_new(const SSL_METHOD *method)
{
    ERR_clear_error();
    SSL_CTX *ctx = SSL_CTX_new(method);
    if (!ctx)
        return NULL;
    if (SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) != 1 ||
        SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) != 1) {
        SSL_CTX_free(ctx);
        return NULL;
    }
    SSL_CTX_set_mode(ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                              SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
    SSL_CTX_set_read_ahead(ctx, 1);
    SSL_CTX_set_default_read_buffer_len(ctx, READ_AHEAD_BYTES);
    return ctx;
}

static const unsigned char alpn_http11[] = "\x08http/1.1";

/* RFC 7301 §3.2: no protocol in common ends the handshake. */
static int select_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len,
                       const unsigned char *in, unsigned in_len, void *arg)
{
    (void)ssl;
    (void)arg;
    unsigned char *chosen = NULL;
    if (SSL_select_next_proto(&chosen, out_len, alpn_http11, sizeof alpn_http11 - 1, in, in_len) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

/* A key with a passphrase is refused instead of asking the terminal. */
static int no_passphrase(char *buf, int size, int rwflag, void *arg)
{
    (void)buf;
    (void)size;
    (void)rwflag;
    (void)arg;
    return -1;
}

/* The key is the server's identity. Others may not read it; a group may (ssl-cert on Debian), as
 * long as it cannot change it. */
static struct cv_status check_key_file(const char *path, struct cv_error *error)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return cv_fail_errno(error, CV_TLS, errno, "key %.160s", path);
    if (st.st_mode & (S_IWGRP | S_IRWXO))
        return cv_fail(error, CV_TLS,
                       "key %.160s can be read or changed by others; run chmod 600 on it", path);
    if (st.st_uid != geteuid() && st.st_uid != 0)
        return cv_fail(error, CV_TLS, "key %.160s belongs to another user", path);
    return cv_ok();
}

static struct cv_status load_server(const char *cert_file, const char *key_file, SSL_CTX **out,
                                    struct cv_error *error)
{
    char what[192];
    CV_RETURN_IF_ERROR(check_key_file(key_file, error));
    SSL_CTX *ctx = context_new(TLS_server_method());
    if (!ctx)
        return fail_queue(error, "TLS cannot be set up");
    SSL_CTX_set_default_passwd_cb(ctx, no_passphrase);
    SSL_CTX_set_alpn_select_cb(ctx, select_alpn, NULL);
    /* Resumption needs a context of its own, or tickets of one server work at another. */
    static const unsigned char session_context[] = "culvert";
    SSL_CTX_set_session_id_context(ctx, session_context, sizeof session_context - 1);
    if (SSL_CTX_use_certificate_chain_file(ctx, cert_file) != 1)
        (void)snprintf(what, sizeof what, "certificate %.160s", cert_file);
    else if (SSL_CTX_use_PrivateKey_file(ctx, key_file, SSL_FILETYPE_PEM) != 1)
        (void)snprintf(what, sizeof what, "key %.160s", key_file);
    else if (SSL_CTX_check_private_key(ctx) != 1)
        (void)snprintf(what, sizeof what, "key %.80s for %.80s", key_file, cert_file);
    else {
        *out = ctx;
        return cv_ok();
    }
    struct cv_status status = fail_queue(error, what);
    SSL_CTX_free(ctx);
    return status;
}

struct cv_status cv_tls_server_new(const char *cert_file, const char *key_file,
                                   struct cv_tls_server **out, struct cv_error *error)
{
    *out = NULL;
    SSL_CTX *ctx;
    CV_RETURN_IF_ERROR(load_server(cert_file, key_file, &ctx, error));
    struct cv_tls_server *server = calloc(1, sizeof *server);
    if (server) {
        server->cert_file = strdup(cert_file);
        server->key_file = strdup(key_file);
    }
    if (!server || !server->cert_file || !server->key_file) {
        SSL_CTX_free(ctx);
        if (server) {
            free(server->cert_file);
            free(server->key_file);
        }
        free(server);
        return cv_fail(error, CV_NO_MEMORY, "no memory for TLS");
    }
    server->ctx = ctx;
    pthread_mutex_init(&server->lock, NULL);
    *out = server;
    return cv_ok();
}

struct cv_status cv_tls_server_reload(struct cv_tls_server *server, struct cv_error *error)
{
    SSL_CTX *fresh;
    CV_RETURN_IF_ERROR(load_server(server->cert_file, server->key_file, &fresh, error));
    pthread_mutex_lock(&server->lock);
    SSL_CTX *old = server->ctx;
    server->ctx = fresh;
    pthread_mutex_unlock(&server->lock);
    SSL_CTX_free(old); /* sessions hold references of their own */
    return cv_ok();
}

uint64_t cv_tls_server_expires_at(struct cv_tls_server *server)
{
    struct tm tm;
    time_t at = 0;
    pthread_mutex_lock(&server->lock);
    const X509 *cert = SSL_CTX_get0_certificate(server->ctx);
    if (cert && ASN1_TIME_to_tm(X509_get0_notAfter(cert), &tm) == 1)
        at = timegm(&tm);
    pthread_mutex_unlock(&server->lock);
    return at > 0 ? (uint64_t)at : 0;
}

void cv_tls_server_free(struct cv_tls_server **pointer)
{
    struct cv_tls_server *server = *pointer;
    if (!server)
        return;
    *pointer = NULL;
    SSL_CTX_free(server->ctx);
    pthread_mutex_destroy(&server->lock);
    free(server->cert_file);
    free(server->key_file);
    free(server);
}

struct cv_status cv_tls_client_new(const char *ca_file, struct cv_tls_client **out,
                                   struct cv_error *error)
{
    *out = NULL;
    SSL_CTX *ctx = context_new(TLS_client_method());
    if (!ctx)
        return fail_queue(error, "TLS cannot be set up");
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER, NULL);
    int loaded =
        ca_file ? SSL_CTX_load_verify_file(ctx, ca_file) : SSL_CTX_set_default_verify_paths(ctx);
    /* SSL_CTX_set_alpn_protos is the one call here that gives 0 for success. */
    if (loaded != 1 || SSL_CTX_set_alpn_protos(ctx, alpn_http11, sizeof alpn_http11 - 1) != 0) {
        char what[192];
        (void)snprintf(what, sizeof what, "certificate authorities in %.140s",
                       ca_file ? ca_file : "the system's store");
        struct cv_status status = fail_queue(error, what);
        SSL_CTX_free(ctx);
        return status;
    }
    struct cv_tls_client *client = calloc(1, sizeof *client);
    if (!client) {
        SSL_CTX_free(ctx);
        return cv_fail(error, CV_NO_MEMORY, "no memory for TLS");
    }
    client->ctx = ctx;
    *out = client;
    return cv_ok();
}

void cv_tls_client_free(struct cv_tls_client **pointer)
{
    struct cv_tls_client *client = *pointer;
    if (!client)
        return;
    *pointer = NULL;
    SSL_CTX_free(client->ctx);
    free(client);
}

/* --- sessions --- */

/* OpenSSL answers KeyUpdates (RFC 8446 §4.6.3) inside one call of SSL_read, as long as they come.
 * With the mark of an end of file set, it takes nothing more from the peer. */
static void on_message(int is_sent, int version, int content_type, const void *data, size_t len,
                       SSL *ssl, void *arg)
{
    (void)version;
    struct cv_tls_session *session = arg;
    const uint8_t *message = data;
    if (is_sent || content_type != SSL3_RT_HANDSHAKE || len == 0 ||
        message[0] != SSL3_MT_KEY_UPDATE)
        return;
    if (++session->key_updates > KEY_UPDATES_MAX)
        SSL_set_shutdown(ssl, SSL_get_shutdown(ssl) | SSL_RECEIVED_SHUTDOWN);
}

static struct cv_status session_new(SSL_CTX *ctx, int fd, struct cv_tls_session **out,
                                    struct cv_error *error)
{
    struct cv_tls_session *session = calloc(1, sizeof *session);
    if (session)
        session->ssl = SSL_new(ctx);
    if (!session || !session->ssl || SSL_set_fd(session->ssl, fd) != 1) {
        cv_tls_session_free(&session);
        ERR_clear_error();
        return cv_fail(error, CV_NO_MEMORY, "no memory for a TLS session");
    }
    SSL_set_msg_callback(session->ssl, on_message);
    SSL_set_msg_callback_arg(session->ssl, session);
    *out = session;
    return cv_ok();
}

struct cv_status cv_tls_server_session(struct cv_tls_server *server, int fd,
                                       struct cv_tls_session **out, struct cv_error *error)
{
    *out = NULL;
    pthread_mutex_lock(&server->lock);
    SSL_CTX *ctx = server->ctx;
    SSL_CTX_up_ref(ctx);
    pthread_mutex_unlock(&server->lock);
    struct cv_status status = session_new(ctx, fd, out, error);
    SSL_CTX_free(ctx);
    if (cv_is_ok(status))
        SSL_set_accept_state((*out)->ssl);
    return status;
}

/* Whom the certificate must name: RFC 9525 §6.3 for names, §6.5 for addresses. */
static bool expect_host(SSL *ssl, const char *host)
{
    struct cv_addr ip;
    if (cv_addr_from_ip(&ip, cv_slice_str(host), 0))
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host) == 1;
    /* A final dot is no part of the name in a certificate or in SNI (RFC 6066 §3). */
    char name[CV_HOST_LEN];
    struct cv_slice slice = cv_slice_str(host);
    if (slice.len && slice.data[slice.len - 1] == '.')
        slice.len--;
    if (slice.len == 0 || !cv_slice_to_str(slice, name, sizeof name))
        return false;
    SSL_set_hostflags(ssl, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS);
    return SSL_set1_host(ssl, name) == 1 && SSL_set_tlsext_host_name(ssl, name) == 1;
}

struct cv_status cv_tls_client_session(struct cv_tls_client *client, const char *host, int fd,
                                       struct cv_tls_session **out, struct cv_error *error)
{
    *out = NULL;
    struct cv_tls_session *session = NULL;
    CV_RETURN_IF_ERROR(session_new(client->ctx, fd, &session, error));
    if (!expect_host(session->ssl, host)) {
        cv_tls_session_free(&session);
        return fail_queue(error, "not a host name that a certificate can have");
    }
    SSL_set_connect_state(session->ssl);
    *out = session;
    return cv_ok();
}

void cv_tls_session_observe(struct cv_tls_session *session, struct cv_tls_facts *facts)
{
    session->facts = facts;
    cv_tls_facts_begin(facts, session->ssl);
}

void cv_tls_session_free(struct cv_tls_session **pointer)
{
    struct cv_tls_session *session = *pointer;
    if (!session)
        return;
    *pointer = NULL;
    SSL_free(session->ssl);
    free(session);
}

struct cv_status cv_tls_handshake(struct cv_tls_session *session, enum cv_tls_want *want,
                                  struct cv_error *error)
{
    *want = CV_TLS_WANT_NOTHING;
    ERR_clear_error();
    errno = 0;
    int result = SSL_do_handshake(session->ssl);
    if (result == 1) {
        if (session->facts)
            cv_tls_facts_end(session->facts, session->ssl);
        return cv_ok();
    }
    struct cv_status status = classify(session, result, errno, want, error);
    if (status.id == CV_EOF)
        return cv_fail(error, CV_CONN_RESET, "closed in the handshake");
    return status;
}

struct cv_status cv_tls_read(struct cv_tls_session *session, void *data, size_t len, size_t *got,
                             enum cv_tls_want *want, struct cv_error *error)
{
    *want = CV_TLS_WANT_NOTHING;
    ERR_clear_error();
    errno = 0;
    int result = SSL_read_ex(session->ssl, data, len, got);
    if (result != 1)
        return classify(session, result, errno, want, error);
    session->read_bytes += *got;
    if (session->read_bytes >= KEY_UPDATE_BYTES && session->key_updates <= KEY_UPDATES_MAX)
        session->read_bytes = session->key_updates = 0;
    return cv_ok();
}

struct cv_status cv_tls_write(struct cv_tls_session *session, const void *data, size_t len,
                              size_t *put, enum cv_tls_want *want, struct cv_error *error)
{
    *want = CV_TLS_WANT_NOTHING;
    ERR_clear_error();
    errno = 0;
    /* At most a record: what a retry must repeat stays small. */
    int result = SSL_write_ex(session->ssl, data, len < RECORD_BYTES ? len : RECORD_BYTES, put);
    return result == 1 ? cv_ok() : classify(session, result, errno, want, error);
}

struct cv_status cv_tls_shutdown(struct cv_tls_session *session, enum cv_tls_want *want)
{
    *want = CV_TLS_WANT_NOTHING;
    ERR_clear_error();
    errno = 0;
    int result = SSL_shutdown(session->ssl);
    return result >= 0 ? cv_ok() : classify(session, result, errno, want, NULL);
}

bool cv_tls_has_pending(const struct cv_tls_session *session)
{
    return SSL_has_pending(session->ssl) == 1;
}
