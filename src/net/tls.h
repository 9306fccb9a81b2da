/* SPDX-License-Identifier: MIT
 *
 * TLS 1.3 (RFC 8446), nothing older, on both sides; the only place that knows OpenSSL's TLS.
 * Certificates are always verified. A session is one connection's TLS state on a non-blocking
 * socket that somebody else owns and polls.
 *
 * A server or client object is shared by all workers (any thread); a session belongs to one thread
 * at a time.
 */
#ifndef CV_NET_TLS_H
#define CV_NET_TLS_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cv_tls_server;
struct cv_tls_client;
struct cv_tls_session;

/* Certificate chain and key from PEM files; ALPN "http/1.1" (RFC 7301; a client that offers only
 * others is refused), session tickets, no early data. CV_TLS with detail: a file that cannot be
 * read, a key that is not the certificate's, a key file that others may read or a group change, or
 * that belongs to neither this user nor root. */
struct cv_status cv_tls_server_new(const char *cert_file, const char *key_file,
                                   struct cv_tls_server **out, struct cv_error *error);

/* Reads both files again; connections from now on use them, those that exist keep what they have.
 * On failure (as cv_tls_server_new) the old ones stay in use. Any thread. */
struct cv_status cv_tls_server_reload(struct cv_tls_server *server, struct cv_error *error);

/* When the certificate in use expires, Unix seconds. */
uint64_t cv_tls_server_expires_at(struct cv_tls_server *server);

/* No new sessions from here on; existing ones live on. Takes NULL, nulls. */
void cv_tls_server_free(struct cv_tls_server **server);

/* Trusts the authorities in `ca_file` (PEM), or the system's when it is NULL. CV_TLS. */
struct cv_status cv_tls_client_new(const char *ca_file, struct cv_tls_client **out,
                                   struct cv_error *error);
void cv_tls_client_free(struct cv_tls_client **client);

/* Sessions; fd is borrowed and must outlive the session. `host` is the name or IP literal that the
 * certificate must be for (RFC 9525) and, when a name, goes out as SNI (RFC 6066 §3). */
struct cv_status cv_tls_server_session(struct cv_tls_server *server, int fd,
                                       struct cv_tls_session **out, struct cv_error *error);
struct cv_status cv_tls_client_session(struct cv_tls_client *client, const char *host, int fd,
                                       struct cv_tls_session **out, struct cv_error *error);
void cv_tls_session_free(struct cv_tls_session **session);

enum { CV_TLS_NAME_MAX = 160 };

/* What a person wants to know of a connection, or of why there is none. */
struct cv_tls_facts {
    bool has_certificate;
    char subject[CV_TLS_NAME_MAX]; /* of the peer's certificate: RFC 4514 text, cut */
    char issuer[CV_TLS_NAME_MAX];
    char names[CV_TLS_NAME_MAX];   /* whom it is for: "relay.example.org, 192.0.2.1", cut */
    int64_t not_before, not_after; /* Unix seconds; 0: cannot be read */
    const char *version, *cipher;  /* "TLSv1.3", static; NULL before the handshake is done */
};

/* Fills `facts` while the handshake goes on: the certificate when it is looked at, whether it is
 * trusted or not, the rest at the end. Before the first cv_tls_handshake of a client's session;
 * `facts` is borrowed for the session's life. */
void cv_tls_session_observe(struct cv_tls_session *session, struct cv_tls_facts *facts);

/* What the socket must become before the same call is made again. */
enum cv_tls_want { CV_TLS_WANT_NOTHING, CV_TLS_WANT_READ, CV_TLS_WANT_WRITE };

/* CV_OK: done. CV_AGAIN: *want says what for. CV_TLS_CERTIFICATE, CV_TLS, CV_CONN_RESET: over. */
struct cv_status cv_tls_handshake(struct cv_tls_session *session, enum cv_tls_want *want,
                                  struct cv_error *error);

/* CV_OK: *got bytes (at least 1). CV_AGAIN as above. CV_EOF: close_notify came, all was read.
 * CV_CONN_RESET: the stream was cut without close_notify, or reset. CV_TLS: broken, or a peer that
 * asks for new keys (RFC 8446 §4.6.3) over and over without sending data. */
struct cv_status cv_tls_read(struct cv_tls_session *session, void *data, size_t len, size_t *got,
                             enum cv_tls_want *want, struct cv_error *error);

/* CV_OK: *put bytes (at least 1, at most one record). After CV_AGAIN call again with at least the
 * same bytes; they may have moved. */
struct cv_status cv_tls_write(struct cv_tls_session *session, const void *data, size_t len,
                              size_t *put, enum cv_tls_want *want, struct cv_error *error);

/* Sends close_notify. CV_OK, CV_AGAIN, or a failure (the caller goes on closing). */
struct cv_status cv_tls_shutdown(struct cv_tls_session *session, enum cv_tls_want *want);

/* True when bytes were taken from the socket that cv_tls_read has not given out: polling the socket
 * would not tell of them. */
bool cv_tls_has_pending(const struct cv_tls_session *session);

#endif
