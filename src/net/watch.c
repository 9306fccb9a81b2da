/* SPDX-License-Identifier: MIT
 *
 * Happy path: cv_watch_new → on_netlink or on_clock → the gathering timer → on_change.
 * Ways it fails: a socket cannot be had (sandboxes): that half stays silent; messages are lost
 * (ENOBUFS): that too is a change.
 */
#include "net/watch.h"

#include "net/addr.h"
#include "net/worker_priv.h"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>
#include <uv.h>

enum { GATHER_MS = 50, CLOCK_FAR_S = 3600 * 24 * 365 };

/* A descriptor and its handle, which outlives the watch by a turn. */
struct ear {
    uv_poll_t *poll;
    int fd;
};

struct cv_watch {
    struct cv_worker *worker;
    cv_watch_on_change *on_change;
    void *arg;
    struct ear netlink, clock;
    struct cv_timer gather;
    struct cv_worker_item item;
    bool has_network, has_clock;
};

static void on_gathered(void *arg)
{
    struct cv_watch *watch = arg;
    bool has_network = watch->has_network, has_clock = watch->has_clock;
    watch->has_network = watch->has_clock = false;
    if (has_clock)
        watch->on_change(watch->arg, CV_WATCH_CLOCK);
    if (has_network)
        watch->on_change(watch->arg, CV_WATCH_NETWORK);
}

static void gather(struct cv_watch *watch)
{
    if (!cv_timer_is_running(&watch->gather))
        (void)cv_worker_timer_start(watch->worker, &watch->gather, GATHER_MS);
}

/* The messages are not looked at: whoever is told looks at what holds then. */
static void on_netlink(uv_poll_t *handle, int status, int events)
{
    struct cv_watch *watch = handle->data;
    char bytes[8192];
    (void)status;
    (void)events;
    if (!watch)
        return;
    ssize_t got;
    while ((got = recv(watch->netlink.fd, bytes, sizeof bytes, MSG_DONTWAIT)) > 0 ||
           (got < 0 && (errno == ENOBUFS || errno == EINTR)))
        watch->has_network = true;
    if (watch->has_network)
        gather(watch);
}

/* Far in the future: it only ever ends because the clock was set. */
static bool arm_clock(int fd)
{
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0)
        return false;
    const struct itimerspec when = {.it_value = {.tv_sec = now.tv_sec + CLOCK_FAR_S}};
    return timerfd_settime(fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &when, NULL) == 0 ||
           errno == ECANCELED;
}

static void on_clock(uv_poll_t *handle, int status, int events)
{
    struct cv_watch *watch = handle->data;
    uint64_t expirations;
    (void)status;
    (void)events;
    if (!watch)
        return;
    ssize_t got = read(watch->clock.fd, &expirations, sizeof expirations);
    if (got < 0 && errno != ECANCELED)
        return;
    watch->has_clock = true;
    (void)arm_clock(watch->clock.fd);
    gather(watch);
}

static int open_netlink(void)
{
    const struct sockaddr_nl name = {
        .nl_family = AF_NETLINK,
        .nl_groups = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_IPV4_ROUTE |
                     RTMGRP_IPV6_ROUTE,
    };
    int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
    if (fd >= 0 && bind(fd, (const struct sockaddr *)&name, sizeof name) != 0) {
        (void)close(fd);
        fd = -1;
    }
    return fd;
}

static int open_clock(void)
{
    int fd = timerfd_create(CLOCK_REALTIME, TFD_CLOEXEC | TFD_NONBLOCK);
    if (fd >= 0 && !arm_clock(fd)) {
        (void)close(fd);
        fd = -1;
    }
    return fd;
}

static void listen_to(struct cv_watch *watch, struct ear *ear, int fd, uv_poll_cb on_poll)
{
    uv_poll_t *poll = fd >= 0 ? malloc(sizeof *poll) : NULL;
    *ear = (struct ear){.fd = -1};
    if (!poll || uv_poll_init(cv_worker_loop(watch->worker), poll, fd) != 0) {
        free(poll);
        if (fd >= 0)
            (void)close(fd);
        return;
    }
    poll->data = watch;
    uv_poll_start(poll, UV_READABLE, on_poll);
    *ear = (struct ear){.poll = poll, .fd = fd};
}

static void on_poll_freed(uv_handle_t *handle)
{
    free(handle);
}

static void leave(struct ear *ear)
{
    if (!ear->poll)
        return;
    ear->poll->data = NULL;
    uv_poll_stop(ear->poll);
    uv_close((uv_handle_t *)ear->poll, on_poll_freed);
    (void)close(ear->fd);
    *ear = (struct ear){.fd = -1};
}

static void on_worker_stop(void *arg)
{
    struct cv_watch *watch = arg;
    cv_worker_timer_stop(watch->worker, &watch->gather);
    leave(&watch->netlink);
    leave(&watch->clock);
    if (watch->worker)
        cv_worker_item_remove(watch->worker, &watch->item);
    watch->worker = NULL;
}

struct cv_status cv_watch_new(struct cv_worker *worker, cv_watch_on_change *on_change, void *arg,
                              struct cv_watch **out)
{
    struct cv_watch *watch = calloc(1, sizeof *watch);
    *out = watch;
    if (!watch)
        return cv_status(CV_NO_MEMORY);
    *watch = (struct cv_watch){.worker = worker, .on_change = on_change, .arg = arg};
    cv_timer_init(&watch->gather, on_gathered, watch);
    cv_worker_item_add(worker, &watch->item, on_worker_stop, watch);
    listen_to(watch, &watch->netlink, open_netlink(), on_netlink);
    listen_to(watch, &watch->clock, open_clock(), on_clock);
    return cv_ok();
}

void cv_watch_free(struct cv_watch **pointer)
{
    struct cv_watch *watch = *pointer;
    *pointer = NULL;
    if (!watch)
        return;
    if (watch->worker)
        on_worker_stop(watch);
    free(watch);
}

bool cv_watch_has_address(const struct cv_addr *addr)
{
    struct cv_addr any_port = *addr;
    int family = addr->any.sa_family;
    if (family == AF_INET)
        any_port.v4.sin_port = 0;
    else if (family == AF_INET6)
        any_port.v6.sin6_port = 0;
    else
        return true;
    int fd = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return true;
    bool is_gone = bind(fd, &any_port.any, any_port.len) != 0 && errno == EADDRNOTAVAIL;
    (void)close(fd);
    return !is_gone;
}
