/* SPDX-License-Identifier: MIT
 *
 * A service that streams: every GET is answered with server-sent events, so many a second, each
 * with the time at which it was written.
 *
 *   load_service PORT EVENTS_PER_SECOND
 *
 *   data: {"t":<CLOCK_MONOTONIC in ns>}
 *
 * Streams have phases of their own. It ends with SIGTERM.
 */
#include "load_socket.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { FDS_MAX = 16384, EVENTS = 256, PHASES = 20 };

/* Whoever streams, by descriptor; a timer turns through the phases. */
struct service {
    int epoll, listener, timer;
    bool is_streaming[FDS_MAX];
    int phase;
};

static void forget(struct service *service, int fd)
{
    service->is_streaming[fd] = false;
    (void)close(fd);
}

static void on_request(struct service *service, int fd)
{
    static const char head[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                               "Cache-Control: no-store\r\nTransfer-Encoding: chunked\r\n\r\n";
    char request[16384];
    ssize_t got = recv(fd, request, sizeof request, MSG_DONTWAIT);
    if (got == 0 || (got < 0 && errno != EAGAIN)) {
        forget(service, fd);
        return;
    }
    if (got > 0 && !service->is_streaming[fd]) {
        service->is_streaming[fd] = true;
        (void)!write(fd, head, sizeof head - 1);
    }
}

static void on_tick(struct service *service)
{
    uint64_t ticks;
    if (read(service->timer, &ticks, sizeof ticks) != sizeof ticks)
        return;
    for (; ticks; ticks--, service->phase = (service->phase + 1) % PHASES) {
        for (int fd = service->phase; fd < FDS_MAX; fd += PHASES) {
            if (!service->is_streaming[fd])
                continue;
            char event[64], chunk[96];
            int len = snprintf(event, sizeof event, "data: {\"t\":%llu}\n\n",
                               (unsigned long long)load_now_ns());
            len = snprintf(chunk, sizeof chunk, "%x\r\n%s\r\n", (unsigned)len, event);
            /* A reader that is behind by a whole socket buffer is not measured any more. */
            if (send(fd, chunk, (size_t)len, MSG_DONTWAIT | MSG_NOSIGNAL) != len)
                forget(service, fd);
        }
    }
}

int main(int argc, char **argv)
{
    static struct service service;
    struct epoll_event events[EVENTS];
    long rate = argc == 3 ? strtol(argv[2], NULL, 10) : 0;
    if (rate < 1 || rate > 1000) {
        (void)fprintf(stderr, "usage: load_service PORT EVENTS_PER_SECOND\n");
        return 2;
    }
    long tick_ns = 1000000000L / rate / PHASES;
    struct itimerspec each = {.it_interval.tv_nsec = tick_ns, .it_value.tv_nsec = tick_ns};
    service.listener = load_listen((uint16_t)strtoul(argv[1], NULL, 10));
    service.epoll = epoll_create1(EPOLL_CLOEXEC);
    service.timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (timerfd_settime(service.timer, 0, &each, NULL))
        load_die("timer");
    load_watch(service.epoll, service.listener, EPOLLIN);
    load_watch(service.epoll, service.timer, EPOLLIN);
    for (;;) {
        int count = epoll_wait(service.epoll, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == service.timer) {
                on_tick(&service);
            } else if (fd == service.listener) {
                int consumer = load_accept(fd);
                if (consumer >= FDS_MAX)
                    load_die("too many streams");
                load_watch(service.epoll, consumer, EPOLLIN);
            } else {
                on_request(&service, fd);
            }
        }
    }
}
