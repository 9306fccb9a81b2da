/* SPDX-License-Identifier: MIT
 *
 * Consumers at a steady rate, and readers of streams; every answer is timed.
 *
 *   load_consumers requests PORT PATH TOKENS_FILE CONNECTIONS PER_SECOND SECONDS
 *   load_consumers streams  PORT PATH TOKENS_FILE CONNECTIONS SECONDS
 *
 * Connection n has the token of line n of TOKENS_FILE, from the first again after the last; "-"
 * sends none. `requests`: a GET is due every 1/PER_SECOND s, on the connections in turn. Its time
 * counts from when it was due, so that what waits behind a slow answer is not left out. `streams`:
 * each reads the events of load_service, and the time of one is from its writing to its reading;
 * the first second does not count.
 *
 * Prints one JSON object: answers, faults (connections that ended, answers that are not 200), times
 * in microseconds.
 */
#include "load_samples.h"
#include "load_socket.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HEAD_MAX = 16384, EVENTS = 256, DUE_MAX = 64, SETTLE_NS = 1000000000 };

struct consumer {
    int fd;
    char *request;
    size_t request_len;
    /* The answer so far: its head, then how much of the body is to come. */
    char head[HEAD_MAX];
    size_t head_len;
    uint64_t body_left;
    bool is_in_body;
    /* Requests that are due: the first is under way. */
    uint64_t due_ns[DUE_MAX];
    unsigned due_first, due_count;
};

struct load {
    int epoll;
    uint16_t port;
    struct consumer *all;
    size_t count;
    uint64_t rate, seconds, answers, faults, begun_ns;
    struct load_samples times_us;
};

/* ---- a consumer ---- */

static void reconnect(struct load *load, struct consumer *c)
{
    if (c->fd >= 0)
        (void)close(c->fd);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    c->fd = load_connect(load->port);
    c->head_len = c->body_left = 0;
    c->is_in_body = false;
    if (epoll_ctl(load->epoll, EPOLL_CTL_ADD, c->fd, &event))
        load_die("epoll");
}

static void send_request(struct consumer *c)
{
    (void)!send(c->fd, c->request, c->request_len, MSG_NOSIGNAL);
}

static void fault(struct load *load, struct consumer *c, const char *what)
{
    if (load->faults++ < 5)
        (void)fprintf(stderr, "load_consumers: %s: %.200s\n", what, c->head);
    c->due_count = 0;
    reconnect(load, c);
}

/* ---- requests ---- */

static void answered(struct load *load, struct consumer *c)
{
    load->answers++;
    load_samples_add(&load->times_us, (load_now_ns() - c->due_ns[c->due_first]) / 1000);
    c->due_first = (c->due_first + 1) % DUE_MAX;
    c->head_len = 0;
    c->is_in_body = false;
    if (--c->due_count)
        send_request(c);
}

static bool take_head(struct load *load, struct consumer *c, size_t *used)
{
    c->head[c->head_len] = 0;
    const char *end = strstr(c->head, "\r\n\r\n");
    if (!end)
        return false;
    const char *length = strcasestr(c->head, "\r\nContent-Length:");
    if (strncmp(c->head, "HTTP/1.1 200 ", 13) != 0 || !length || length > end) {
        fault(load, c, "no answer with a length");
        *used = 0;
        return false;
    }
    *used = (size_t)(end + 4 - c->head);
    c->body_left = strtoull(length + 17, NULL, 10);
    c->is_in_body = true;
    return true;
}

static void on_answer(struct load *load, struct consumer *c)
{
    static char body[1 << 18];
    if (!c->is_in_body) {
        ssize_t got = recv(c->fd, c->head + c->head_len, HEAD_MAX - 1 - c->head_len, MSG_DONTWAIT);
        if (got <= 0) {
            if (got == 0 || errno != EAGAIN)
                fault(load, c, "the connection ended");
            return;
        }
        size_t used;
        c->head_len += (size_t)got;
        if (!take_head(load, c, &used))
            return;
        size_t extra = c->head_len - used;
        c->body_left -= extra < c->body_left ? extra : c->body_left;
    } else {
        size_t want = c->body_left < sizeof body ? (size_t)c->body_left : sizeof body;
        ssize_t got = recv(c->fd, body, want, MSG_DONTWAIT);
        if (got <= 0) {
            if (got == 0 || errno != EAGAIN)
                fault(load, c, "the connection ended in a body");
            return;
        }
        c->body_left -= (size_t)got;
    }
    if (c->body_left == 0)
        answered(load, c);
}

static void send_due(struct load *load, uint64_t now_ns, uint64_t *sent)
{
    uint64_t due = (now_ns - load->begun_ns) * load->rate / 1000000000u + 1;
    for (; *sent < due && *sent < load->rate * load->seconds; (*sent)++) {
        struct consumer *c = &load->all[*sent % load->count];
        if (c->due_count == DUE_MAX) {
            load->faults++; /* so far behind that it is no steady rate any more */
            continue;
        }
        c->due_ns[(c->due_first + c->due_count) % DUE_MAX] =
            load->begun_ns + *sent * 1000000000u / load->rate;
        if (c->due_count++ == 0)
            send_request(c);
    }
}

/* ---- streams ---- */

static void on_events(struct load *load, struct consumer *c)
{
    ssize_t got = recv(c->fd, c->head + c->head_len, HEAD_MAX - 1 - c->head_len, MSG_DONTWAIT);
    uint64_t now_ns = load_now_ns();
    if (got <= 0) {
        if (got == 0 || errno != EAGAIN)
            fault(load, c, "the stream ended");
        return;
    }
    c->head_len += (size_t)got;
    c->head[c->head_len] = 0;
    if (!c->is_in_body && strncmp(c->head, "HTTP/1.1 200 ", 13) != 0) {
        fault(load, c, "no stream");
        return;
    }
    c->is_in_body = true;
    char *at = c->head, *end;
    while ((at = strstr(at, "{\"t\":")) && (end = strchr(at, '}'))) {
        load->answers++;
        if (now_ns - load->begun_ns > SETTLE_NS)
            load_samples_add(&load->times_us, (now_ns - strtoull(at + 5, NULL, 10)) / 1000);
        at = end;
    }
    /* What may be the beginning of an event stays. */
    char *last = strrchr(c->head, '{');
    size_t keep = last && !strchr(last, '}') ? c->head_len - (size_t)(last - c->head) : 0;
    memmove(c->head, c->head + c->head_len - keep, keep);
    c->head_len = keep;
}

/* ---- all ---- */

static void prepare(struct load *load, const char *path, const char *tokens_path)
{
    FILE *tokens = strcmp(tokens_path, "-") == 0 ? NULL : fopen(tokens_path, "re");
    char token[8192] = "", *text;
    if (!tokens && tokens_path[0] != '-')
        load_die(tokens_path);
    load->all = calloc(load->count, sizeof *load->all);
    load->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!load->all)
        load_die("memory");
    for (size_t i = 0; i < load->count; i++) {
        struct consumer *c = &load->all[i];
        while (tokens && !fgets(token, sizeof token, tokens))
            rewind(tokens);
        token[strcspn(token, "\n")] = 0;
        int len = asprintf(&text, "GET %s HTTP/1.1\r\nHost: load.test\r\n%s%s%s\r\n", path,
                           token[0] ? "Authorization: Bearer " : "", token, token[0] ? "\r\n" : "");
        if (len < 0)
            load_die("memory");
        c->request = text;
        c->request_len = (size_t)len;
        c->fd = -1;
        reconnect(load, c);
    }
    if (tokens)
        (void)fclose(tokens);
}

static void run(struct load *load)
{
    struct epoll_event events[EVENTS];
    uint64_t sent = 0, now_ns = load->begun_ns = load_now_ns();
    uint64_t until_ns = now_ns + load->seconds * 1000000000u;
    uint64_t drained_ns = until_ns + (load->rate ? 5000000000u : 0);
    for (size_t i = 0; i < load->count && !load->rate; i++)
        send_request(&load->all[i]);
    while (now_ns < drained_ns) {
        /* The timer of epoll_wait is too coarse for what is due every millisecond or less. */
        struct timespec wait = {.tv_nsec = load->rate ? 200000 : 10000000};
        int count = epoll_pwait2(load->epoll, events, EVENTS, &wait, NULL);
        for (int i = 0; i < count; i++)
            (load->rate ? on_answer : on_events)(load, events[i].data.ptr);
        now_ns = load_now_ns();
        if (load->rate)
            send_due(load, now_ns, &sent);
        if (load->rate && load->answers + load->faults >= load->rate * load->seconds)
            break;
    }
    for (size_t i = 0; i < load->count; i++)
        load->faults += load->all[i].due_count;
}

int main(int argc, char **argv)
{
    static struct load load;
    bool is_steady = argc == 8 && strcmp(argv[1], "requests") == 0;
    if (!is_steady && (argc != 7 || strcmp(argv[1], "streams") != 0)) {
        (void)fprintf(stderr, "usage: see the first lines of load_consumers.c\n");
        return 2;
    }
    load.port = (uint16_t)strtoul(argv[2], NULL, 10);
    load.count = strtoul(argv[5], NULL, 10);
    load.rate = is_steady ? strtoul(argv[6], NULL, 10) : 0;
    load.seconds = strtoul(argv[argc - 1], NULL, 10);
    load_samples_init(&load.times_us, 4u << 20);
    prepare(&load, argv[3], argv[4]);
    run(&load);
    (void)printf("{\"answers\":%llu,\"faults\":%llu,\"us\":", (unsigned long long)load.answers,
                 (unsigned long long)load.faults);
    load_samples_print(&load.times_us);
    (void)printf("}\n");
    return 0;
}
