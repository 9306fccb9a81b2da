/* SPDX-License-Identifier: MIT
 *
 * What the tests of net/ share: a worker that runs until the test says so or 20 s are over, an end
 * of a connection that records what happens to it, and certificates made on the spot.
 */
#ifndef CV_NET_NET_TEST_H
#define CV_NET_NET_TEST_H

#include "base/test.h"
#include "net/conn.h"
#include "net/listener.h"

#include <string.h>

struct bench {
    struct cv_worker *worker;
    struct cv_timer guard;
    struct cv_listener *listener;
    void (*on_accept)(struct bench *bench, int fd);
    void *data;
    bool is_late;
};

/* A worker, and a listener on 127.0.0.1 that calls on_accept (NULL: none). */
void bench_init(struct bench *bench, void (*on_accept)(struct bench *bench, int fd));
/* Runs the loop until cv_worker_stop; fails when that takes 20 s. Frees the worker. */
void bench_run(struct bench *bench);
uint16_t bench_port(const struct bench *bench);
/* A blocking-connect client socket to the listener, then non-blocking. */
int bench_connect(const struct bench *bench);
int connect_to(uint16_t port);

/* Two connected sockets over loopback TCP, non-blocking. */
void tcp_pair(int fds[2]);

/* One end, with everything that happened to it. */
struct end {
    struct cv_conn *conn;
    struct bench *bench;
    uint64_t received;
    uint8_t last; /* last byte received */
    uint64_t bad; /* bytes out of the pattern i % 251 */
    unsigned opens, eofs, writables, hangups, closes;
    struct cv_status why;
    char detail[256];
    char text[256]; /* first bytes received */
    void (*on_event)(struct end *end, const char *what);
    void *data;
    uint64_t to_send, sent; /* pattern still to send, by send_pattern */
};

extern const struct cv_conn_ops end_ops;
void end_open(struct end *end, struct bench *bench, int fd, struct cv_tls_session *tls);
/* Appends pattern until congested or all is out; call again on "writable". */
void send_pattern(struct end *end);

/* A fresh folder with ca.pem, cert.pem and key.pem (for localhost and 127.0.0.1), other.key. */
struct certs {
    char dir[64];
    char ca[96], cert[96], key[96], other_key[96];
};
void certs_make(struct certs *certs, const char *name);
void certs_done(struct certs *certs);

#endif
