/* SPDX-License-Identifier: MIT
 *
 * A listening TCP socket on a worker. With several workers each has its own on the same port
 * (SO_REUSEPORT) and the kernel spreads connections over them.
 * Owns the socket. Accepts at most 64 connections per turn; out of file descriptors it rests 100 ms
 * instead of spinning. Its worker's thread.
 */
#ifndef CV_NET_LISTENER_H
#define CV_NET_LISTENER_H

#include "net/addr.h"
#include "net/worker.h"

struct cv_listener;

struct cv_listen_spec {
    struct cv_addr addr;
    bool is_dual_stack; /* :: that takes IPv4 as well */
    bool is_shared;     /* others of this process, or of one that is taken over, listen there too */
};

struct cv_listener_ops {
    /* The callee owns `fd`, which is non-blocking and close-on-exec. */
    void (*on_accept)(void *arg, int fd, const struct cv_addr *peer);
    /* Accepting failed and rests for a while (out of descriptors or memory). May be NULL. */
    void (*on_error)(void *arg, struct cv_status status, const struct cv_error *error);
};

/* "1.2.3.4:80", "[::1]:80", "localhost:80" (127.0.0.1), ":80" and "*:80" (both families). Port 0
 * lets the kernel choose. CV_CONFIG with detail. */
struct cv_status cv_listen_spec_parse(const char *text, struct cv_listen_spec *spec,
                                      struct cv_error *error);

/* Binds and listens at once, accepts once the worker runs. A port on which anybody listens is in
 * use, unless the spec is shared: else a second relay would silently get every other connection. A
 * dual-stack address falls back to 0.0.0.0 on a machine without IPv6. CV_IO (port in use, no
 * permission; detail says which), CV_NETWORK_UNREACHABLE (no such address here), CV_NO_MEMORY,
 * CV_NO_RESOURCES. */
struct cv_status cv_listener_new(struct cv_worker *worker, const struct cv_listen_spec *spec,
                                 int backlog, const struct cv_listener_ops *ops, void *arg,
                                 struct cv_listener **out, struct cv_error *error);

/* The same around a socket that listens already: one that another process has handed over, or that
 * systemd has opened. Takes `fd`, also on failure. CV_CONFIG when it is no listening TCP socket;
 * CV_NO_MEMORY, CV_NO_RESOURCES. When the worker ends first, its queue is left alone. */
struct cv_status cv_listener_adopt(struct cv_worker *worker, int fd,
                                   const struct cv_listener_ops *ops, void *arg,
                                   struct cv_listener **out, struct cv_error *error);

/* Whether the listening TCP socket `fd` is bound to what `spec` asks for. Port 0 fits nothing. */
bool cv_listen_spec_fits(const struct cv_listen_spec *spec, int fd);

/* Accepted sockets have the options of the listening one (tcp(7)), which spares a system call for
 * each connection and option: TCP_NODELAY always, and with this keep-alive probes (RFC 9293
 * §3.8.4). Best effort. */
void cv_listener_set_keepalive(struct cv_listener *listener, unsigned idle_s, unsigned interval_s,
                               unsigned probes);

/* The socket, borrowed: to be handed to another process. */
int cv_listener_fd(const struct cv_listener *listener);

/* What it is really bound to: port 0 has become the chosen one, and it is shared. Give it to the
 * other workers' cv_listener_new, so that all listen on one port. */
const struct cv_listen_spec *cv_listener_spec(const struct cv_listener *listener);

/* Accepts what waits in the queue (on_accept is called from in here), since closing would reset it;
 * then closes. No callback afterwards. NULL is fine; *listener is NULL afterwards. When the worker
 * ends first it does the same, and the pointer must not be used again. */
void cv_listener_close(struct cv_listener **listener);

/* Closes and leaves what waits in the queue to the process that has the same socket. */
void cv_listener_leave(struct cv_listener **listener);

#endif
