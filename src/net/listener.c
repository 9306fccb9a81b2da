/* SPDX-License-Identifier: MIT
 *
 * Happy path: new (socket, bind, listen) or adopt (somebody else did) → poll says readable →
 * accept4 until empty or 64 → on_accept → close drains the queue.
 *
 * Fails: any of the three calls (new); accept for want of descriptors or memory: rest, then go on.
 * An accept that fails for its one connection (ECONNABORTED and the like) is skipped; one failure
 * after the other (a firewall's EPERM, say) is no longer about one connection.
 */
#include "net/listener.h"

#include "net/worker_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <unistd.h>
#include <uv.h>

enum { ACCEPTS_PER_TURN = 64, DRAIN_MAX = 4096, REST_MS = 100 };

struct cv_listener {
    struct cv_worker *worker;
    uv_poll_t *poll; /* allocated apart: it outlives the listener by a turn */
    int fd;
    struct cv_listen_spec spec;
    const struct cv_listener_ops *ops;
    void *arg;
    struct cv_timer rest;
    struct cv_worker_item item;
    bool is_adopted;
    bool *gone; /* on the stack of on_poll; set when on_accept closed the listener */
};

struct cv_status cv_listen_spec_parse(const char *text, struct cv_listen_spec *spec,
                                      struct cv_error *error)
{
    struct cv_slice whole = cv_slice_str(text);
    const uint8_t *colon = memrchr(whole.data, ':', whole.len);
    uint64_t port;
    if (!colon ||
        !cv_slice_to_u64(cv_slice(colon + 1, whole.len - (size_t)(colon + 1 - whole.data)), 65535,
                         &port))
        return cv_fail(error, CV_CONFIG, "listen address without port: %.100s", text);
    struct cv_slice host = cv_slice(whole.data, (size_t)(colon - whole.data));
    *spec = (struct cv_listen_spec){0};
    if (host.len == 0 || cv_slice_is(host, "*")) {
        spec->is_dual_stack = true;
        (void)cv_addr_from_ip(&spec->addr, cv_slice_str("::"), (uint16_t)port);
        return cv_ok();
    }
    if (cv_slice_is_nocase(host, "localhost"))
        host = cv_slice_str("127.0.0.1");
    bool is_bracketed = host.len > 2 && host.data[0] == '[' && host.data[host.len - 1] == ']';
    if (is_bracketed)
        host = cv_slice(host.data + 1, host.len - 2);
    bool is_v6 = memchr(host.data, ':', host.len) != NULL;
    if (is_v6 != is_bracketed || !cv_addr_from_ip(&spec->addr, host, (uint16_t)port))
        return cv_fail(error, CV_CONFIG, "not an IP address to listen on: %.100s", text);
    return cv_ok();
}

/* SO_REUSEPORT lets any process of this user listen beside us. Without it bind fails where somebody
 * listens already (socket(7)); what is left of old connections does not matter (SO_REUSEADDR). */
static bool is_taken(const struct cv_listen_spec *spec, int v6_only)
{
    int fd = socket(spec->addr.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int on = 1;
    if (fd < 0)
        return false;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (spec->addr.any.sa_family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6_only, sizeof v6_only);
    bool is_used = bind(fd, &spec->addr.any, spec->addr.len) != 0 && errno == EADDRINUSE;
    (void)close(fd);
    return is_used;
}

static struct cv_status open_socket(struct cv_listen_spec *spec, int backlog, int *out,
                                    struct cv_error *error)
{
    char name[CV_ADDR_TEXT_LEN];
    int family = spec->addr.any.sa_family;
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 && errno == EAFNOSUPPORT && spec->is_dual_stack) {
        uint16_t port = cv_addr_port(&spec->addr);
        (void)cv_addr_from_ip(&spec->addr, cv_slice_str("0.0.0.0"), port);
        spec->is_dual_stack = false;
        return open_socket(spec, backlog, out, error);
    }
    if (fd < 0)
        return cv_fail_errno(error, cv_status_from_errno(errno), errno, "listening socket");
    int on = 1;
    int v6_only = spec->is_dual_stack ? 0 : 1;
    if (!spec->is_shared && cv_addr_port(&spec->addr) != 0 && is_taken(spec, v6_only)) {
        (void)close(fd);
        return cv_fail_errno(error, cv_status_from_errno(EADDRINUSE), EADDRINUSE, "listen on %s",
                             cv_addr_format(&spec->addr, name));
    }
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on);
    if (family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6_only, sizeof v6_only);
    socklen_t len = sizeof spec->addr.storage;
    if (bind(fd, &spec->addr.any, spec->addr.len) != 0 || listen(fd, backlog) != 0 ||
        getsockname(fd, &spec->addr.any, &len) != 0) {
        int saved = errno;
        (void)close(fd);
        return cv_fail_errno(error, cv_status_from_errno(saved), saved, "listen on %s",
                             cv_addr_format(&spec->addr, name));
    }
    spec->is_shared = true;
    *out = fd;
    return cv_ok();
}

static void on_poll(uv_poll_t *handle, int status, int events);

static void on_rested(void *arg)
{
    struct cv_listener *listener = arg;
    uv_poll_start(listener->poll, UV_READABLE, on_poll);
}

static void rest(struct cv_listener *listener, int sys_errno)
{
    uv_poll_stop(listener->poll);
    if (!cv_is_ok(cv_worker_timer_start(listener->worker, &listener->rest, REST_MS)))
        uv_poll_start(listener->poll, UV_READABLE, on_poll);
    struct cv_error error;
    struct cv_status status =
        cv_fail_errno(&error, cv_status_from_errno(sys_errno), sys_errno, "accept");
    if (listener->ops->on_error)
        listener->ops->on_error(listener->arg, status, &error);
}

/* 1: accepted, 0: queue empty, -1: errno says what is wrong with the process or its system. */
static int accept_one(int listen_fd, int *fd, struct cv_addr *peer)
{
    for (int tries = 0; tries < ACCEPTS_PER_TURN; tries++) {
        struct sockaddr_storage name;
        socklen_t len = sizeof name;
        *fd = accept4(listen_fd, (struct sockaddr *)&name, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (*fd >= 0) {
            (void)cv_addr_from_sockaddr(peer, (struct sockaddr *)&name, len);
            return 1;
        }
        if (errno == EAGAIN)
            return 0;
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM ||
            errno == EBADF || errno == EINVAL)
            break;
        /* The rest is about that connection (accept(2), "Error handling"): next. */
    }
    return -1;
}

static void on_poll(uv_poll_t *handle, int status, int events)
{
    (void)status;
    (void)events;
    struct cv_listener *listener = handle->data;
    if (!listener)
        return;
    bool is_gone = false;
    listener->gone = &is_gone;
    for (int i = 0; i < ACCEPTS_PER_TURN && !is_gone; i++) {
        struct cv_addr peer;
        int fd;
        int result = accept_one(listener->fd, &fd, &peer);
        if (result < 0)
            rest(listener, errno);
        if (result <= 0)
            break;
        listener->ops->on_accept(listener->arg, fd, &peer);
    }
    if (!is_gone)
        listener->gone = NULL;
}

static void on_poll_freed(uv_handle_t *handle)
{
    free(handle);
}

static void close_now(struct cv_listener **pointer, bool is_left);

/* A start that fails half-way must not empty the queue of the process whose socket this is. */
static void on_worker_stop(void *arg)
{
    struct cv_listener *listener = arg;
    close_now(&listener, listener->is_adopted);
}

/* Takes `fd`, also on failure. */
static struct cv_status start(struct cv_worker *worker, int fd, const struct cv_listen_spec *spec,
                              const struct cv_listener_ops *ops, void *arg,
                              struct cv_listener **out, struct cv_error *error)
{
    struct cv_listener *listener = calloc(1, sizeof *listener);
    uv_poll_t *poll = calloc(1, sizeof *poll);
    struct cv_status status = cv_ok();
    if (!listener || !poll)
        status = cv_fail(error, CV_NO_MEMORY, "no memory for a listener");
    else if (uv_poll_init(cv_worker_loop(worker), poll, fd) != 0)
        status = cv_fail(error, CV_NO_RESOURCES, "listener cannot be polled");
    if (!cv_is_ok(status)) {
        (void)close(fd);
        free(listener);
        free(poll);
        return status;
    }
    *listener = (struct cv_listener){
        .worker = worker, .poll = poll, .fd = fd, .spec = *spec, .ops = ops, .arg = arg};
    poll->data = listener;
    int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    cv_timer_init(&listener->rest, on_rested, listener);
    cv_worker_item_add(worker, &listener->item, on_worker_stop, listener);
    uv_poll_start(poll, UV_READABLE, on_poll);
    *out = listener;
    return cv_ok();
}

struct cv_status cv_listener_new(struct cv_worker *worker, const struct cv_listen_spec *spec,
                                 int backlog, const struct cv_listener_ops *ops, void *arg,
                                 struct cv_listener **out, struct cv_error *error)
{
    struct cv_listen_spec bound = *spec;
    int fd = -1;
    *out = NULL;
    CV_RETURN_IF_ERROR(open_socket(&bound, backlog, &fd, error));
    return start(worker, fd, &bound, ops, arg, out, error);
}

/* False when it is no listening TCP socket. */
static bool read_spec(int fd, struct cv_listen_spec *spec)
{
    struct sockaddr_storage name = {0};
    int type = 0, is_listening = 0, v6_only = 1;
    socklen_t len = sizeof type;
    *spec = (struct cv_listen_spec){.is_shared = true};
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) != 0 || type != SOCK_STREAM)
        return false;
    len = sizeof is_listening;
    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &is_listening, &len) != 0 || !is_listening)
        return false;
    len = sizeof name;
    if (getsockname(fd, (struct sockaddr *)&name, &len) != 0)
        return false;
    len = sizeof v6_only;
    if (name.ss_family == AF_INET6 &&
        getsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6_only, &len) == 0)
        spec->is_dual_stack = !v6_only;
    return cv_addr_from_sockaddr(&spec->addr, (struct sockaddr *)&name, sizeof name);
}

bool cv_listen_spec_fits(const struct cv_listen_spec *spec, int fd)
{
    struct cv_listen_spec bound;
    if (!read_spec(fd, &bound) || cv_addr_port(&bound.addr) != cv_addr_port(&spec->addr))
        return false;
    if (cv_addr_equal_ip(&bound.addr, &spec->addr))
        return true;
    /* ":80" on a machine without IPv6. */
    return spec->is_dual_stack && bound.addr.any.sa_family == AF_INET &&
           cv_addr_is_any(&bound.addr);
}

struct cv_status cv_listener_adopt(struct cv_worker *worker, int fd,
                                   const struct cv_listener_ops *ops, void *arg,
                                   struct cv_listener **out, struct cv_error *error)
{
    struct cv_listen_spec bound;
    *out = NULL;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || !read_spec(fd, &bound) || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0 ||
        fcntl(fd, F_SETFD, FD_CLOEXEC) != 0) {
        (void)close(fd);
        return cv_fail(error, CV_CONFIG, "a socket that was handed over does not listen for TCP");
    }
    CV_RETURN_IF_ERROR(start(worker, fd, &bound, ops, arg, out, error));
    (*out)->is_adopted = true;
    return cv_ok();
}

void cv_listener_set_keepalive(struct cv_listener *listener, unsigned idle_s, unsigned interval_s,
                               unsigned probes)
{
    int fd = listener->fd, on = 1;
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
}

int cv_listener_fd(const struct cv_listener *listener)
{
    return listener->fd;
}

const struct cv_listen_spec *cv_listener_spec(const struct cv_listener *listener)
{
    return &listener->spec;
}

static void close_now(struct cv_listener **pointer, bool is_left)
{
    struct cv_listener *listener = *pointer;
    if (!listener)
        return;
    *pointer = NULL;
    if (listener->gone)
        *listener->gone = true;
    listener->poll->data = NULL;
    uv_poll_stop(listener->poll);
    uv_close((uv_handle_t *)listener->poll, on_poll_freed);
    cv_worker_timer_stop(listener->worker, &listener->rest);
    struct cv_addr peer;
    int fd;
    for (int i = 0; !is_left && i < DRAIN_MAX && accept_one(listener->fd, &fd, &peer) > 0; i++)
        listener->ops->on_accept(listener->arg, fd, &peer);
    (void)close(listener->fd);
    cv_worker_item_remove(listener->worker, &listener->item);
    free(listener);
}

void cv_listener_close(struct cv_listener **listener)
{
    close_now(listener, false);
}

void cv_listener_leave(struct cv_listener **listener)
{
    close_now(listener, true);
}
