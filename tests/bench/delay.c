/* SPDX-License-Identifier: MIT
 *
 * A path with a delay and a rate, between two programs of this machine: what a long line does to
 * whoever waits for answers. Each direction of each connection has a line of its own.
 *
 *   delay LISTEN_PORT TARGET_PORT ONE_WAY_MS MIB_PER_SECOND      (0: no limit)
 *
 * Bytes leave ONE_WAY_MS after they came and no faster than the rate. What is on the line is
 * bounded by what fits on it and a queue of the same length, as on a real one; without a rate by 64
 * MiB.
 */
#include "../load/load_socket.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CHUNK = 65536, EVENTS = 64, LINE_MAX_BYTES = 64 << 20 };

struct chunk {
    struct chunk *next;
    uint64_t due_ns;
    size_t len, sent; /* len 0: the end of the stream */
    uint8_t data[CHUNK];
};

/* From one socket to the other. */
struct line {
    struct end *from, *to;
    struct chunk *first, *last;
    size_t bytes;
    uint64_t free_ns; /* when the line has put out what it was given */
    bool is_full, is_blocked, is_over;
};

struct end {
    int fd;
    struct line out; /* what this end has sent */
    struct end *peer;
    uint32_t events;
    struct end *next;
};

struct path {
    int epoll, listener;
    uint16_t target;
    uint64_t delay_ns, bytes_per_s;
    size_t line_max;
    struct end *ends;
};

static void set_events(struct path *path, struct end *end)
{
    struct epoll_event event = {.events = 0, .data.ptr = end};
    if (!end->out.is_full && !end->out.is_over)
        event.events |= EPOLLIN;
    if (end->peer->out.is_blocked)
        event.events |= EPOLLOUT;
    if (event.events != end->events && epoll_ctl(path->epoll, EPOLL_CTL_MOD, end->fd, &event))
        load_die("epoll");
    end->events = event.events;
}

static void take(struct path *path, struct end *end, uint64_t now_ns)
{
    struct line *line = &end->out;
    struct chunk *chunk = malloc(sizeof *chunk);
    if (!chunk)
        load_die("memory");
    ssize_t got = recv(end->fd, chunk->data, CHUNK, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN) {
        free(chunk);
        return;
    }
    size_t len = got > 0 ? (size_t)got : 0;
    if (line->free_ns < now_ns)
        line->free_ns = now_ns;
    if (path->bytes_per_s)
        line->free_ns += len * 1000000000u / path->bytes_per_s;
    chunk->next = NULL;
    chunk->len = len;
    chunk->sent = 0;
    chunk->due_ns = line->free_ns + path->delay_ns;
    if (line->last)
        line->last->next = chunk;
    else
        line->first = chunk;
    line->last = chunk;
    line->bytes += len;
    line->is_over = len == 0;
    line->is_full = line->bytes >= path->line_max;
    set_events(path, end);
}

/* Sends what is due; when the next is, or UINT64_MAX. */
static uint64_t give(struct path *path, struct line *line, uint64_t now_ns)
{
    line->is_blocked = false;
    while (line->first && line->first->due_ns <= now_ns && !line->is_blocked) {
        struct chunk *chunk = line->first;
        if (!chunk->len)
            (void)shutdown(line->to->fd, SHUT_WR);
        ssize_t sent = send(line->to->fd, chunk->data + chunk->sent, chunk->len - chunk->sent,
                            MSG_DONTWAIT | MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            line->is_blocked = true;
            break;
        }
        chunk->sent = sent < 0 ? chunk->len : chunk->sent + (size_t)sent;
        if (chunk->sent < chunk->len)
            continue;
        line->bytes -= chunk->len;
        line->first = chunk->next;
        if (!line->first)
            line->last = NULL;
        free(chunk);
    }
    line->is_full = line->bytes >= path->line_max;
    set_events(path, line->from);
    set_events(path, line->to);
    return line->first && !line->is_blocked ? line->first->due_ns : UINT64_MAX;
}

static struct end *add(struct path *path, int fd)
{
    struct end *end = calloc(1, sizeof *end);
    struct epoll_event event = {.data.ptr = end};
    if (!end || epoll_ctl(path->epoll, EPOLL_CTL_ADD, fd, &event))
        load_die("connection");
    end->fd = fd;
    end->next = path->ends;
    path->ends = end;
    return end;
}

static void join(struct path *path)
{
    struct end *a = add(path, load_accept(path->listener));
    struct end *b = add(path, load_connect(path->target));
    a->peer = b;
    b->peer = a;
    a->out.from = b->out.to = a;
    a->out.to = b->out.from = b;
    set_events(path, a);
    set_events(path, b);
}

/* Frees pairs of which both directions have ended. */
static void reap(struct path *path)
{
    for (struct end **at = &path->ends; *at;) {
        struct end *end = *at, *peer = end->peer;
        bool is_over = end->out.is_over && !end->out.first && peer->out.is_over && !peer->out.first;
        if (!is_over) {
            at = &end->next;
            continue;
        }
        /* The two lie next to each other, the later one first. */
        (void)close(end->fd);
        (void)close(peer->fd);
        *at = peer->next;
        free(peer);
        free(end);
    }
}

static void run(struct path *path)
{
    struct epoll_event events[EVENTS];
    uint64_t next_ns = UINT64_MAX;
    for (;;) {
        uint64_t now_ns = load_now_ns();
        uint64_t wait_ns = next_ns <= now_ns ? 0 : next_ns - now_ns;
        if (wait_ns > 1000000000u)
            wait_ns = 1000000000u;
        struct timespec wait = {.tv_sec = (time_t)(wait_ns / 1000000000u),
                                .tv_nsec = (long)(wait_ns % 1000000000u)};
        int count = epoll_pwait2(path->epoll, events, EVENTS, &wait, NULL);
        now_ns = load_now_ns();
        for (int i = 0; i < count; i++) {
            struct end *end = events[i].data.ptr;
            if (!end)
                join(path);
            else if (!end->out.is_over && !end->out.is_full &&
                     events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                take(path, end, now_ns);
        }
        next_ns = UINT64_MAX;
        for (struct end *end = path->ends; end; end = end->next) {
            uint64_t due_ns = give(path, &end->out, now_ns);
            if (due_ns < next_ns)
                next_ns = due_ns;
        }
        reap(path);
    }
}

int main(int argc, char **argv)
{
    static struct path path;
    if (argc != 5) {
        (void)fprintf(stderr, "usage: delay LISTEN_PORT TARGET_PORT ONE_WAY_MS MIB_PER_SECOND\n");
        return 2;
    }
    path.target = (uint16_t)strtoul(argv[2], NULL, 10);
    path.delay_ns = strtoul(argv[3], NULL, 10) * 1000000u;
    path.bytes_per_s = strtoul(argv[4], NULL, 10) << 20;
    uint64_t held = 2 * path.bytes_per_s / 1000 * (path.delay_ns / 1000000);
    path.line_max = !path.bytes_per_s || held > LINE_MAX_BYTES ? LINE_MAX_BYTES
                    : held < 2 * CHUNK                         ? 2 * CHUNK
                                                               : (size_t)held;
    path.epoll = epoll_create1(EPOLL_CLOEXEC);
    path.listener = load_listen((uint16_t)strtoul(argv[1], NULL, 10));
    struct epoll_event event = {.events = EPOLLIN};
    if (epoll_ctl(path.epoll, EPOLL_CTL_ADD, path.listener, &event))
        load_die("listener");
    run(&path);
}
