/* SPDX-License-Identifier: MIT
 *
 * The floor of small requests: two processes that do only what no tunnel can leave out. epoll, one
 * link for all consumers, a kept connection to the service for each, one sealed packet for a
 * request and one for its answer, all of a turn's packets in one write. No HTTP is parsed, no token
 * checked, nothing is timed or counted: what one read brings is taken for one message.
 *
 *   floor_requests LISTEN_PORT SERVICE_PORT
 */
#include "floor.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/rand.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

enum { FDS_MAX = 4096, EVENTS = 256, ID = 4, OUT_MAX = 1 << 20 };

/* A packet's body is u32 id, bytes. The id is the descriptor of the consumer in the relay; the
 * agent keeps a connection to the service for each and never closes it. */
struct side {
    int epoll, link, listener;
    uint16_t service_port; /* 0 in the relay */
    uint32_t mask;
    struct floor_in in;
    struct floor_crypt crypt;
    size_t out_len;
    uint32_t ids[FDS_MAX]; /* service's descriptor → id */
    int services[FDS_MAX]; /* id → service's descriptor, 0 for none */
    uint8_t out[OUT_MAX];
};

static void watch(struct side *side, int fd)
{
    struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
    if (fd >= FDS_MAX || epoll_ctl(side->epoll, EPOLL_CTL_ADD, fd, &event))
        floor_die("watch");
}

static void flush(struct side *side)
{
    floor_write(side->link, side->out, side->out_len);
    side->out_len = 0;
}

/* A message from a consumer, or from the service: into the turn's write. */
static void from_outside(struct side *side, int fd)
{
    if (OUT_MAX - side->out_len < FLOOR_PACKET_MAX)
        flush(side);
    uint8_t *packet = side->out + side->out_len, *body = packet + FLOOR_HEAD;
    uint32_t id = side->service_port ? side->ids[fd] : (uint32_t)fd;
    ssize_t got = recv(fd, body + ID, FLOOR_BODY_MAX - ID, MSG_DONTWAIT);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        (void)close(fd);
        if (side->service_port)
            side->services[id] = 0;
        return;
    }
    memcpy(body, &id, ID);
    side->out_len += floor_seal(&side->crypt, packet, ID + (size_t)got, side->mask);
}

static void from_link(struct side *side)
{
    if (floor_fill(&side->in, side->link) == 0)
        _exit(0);
    size_t len;
    for (uint8_t *body; (body = floor_next(&side->in, &len));) {
        uint32_t id;
        memcpy(&id, body, ID);
        int fd = (int)id;
        if (side->service_port && !side->services[id]) {
            fd = side->services[id] = floor_connect(side->service_port);
            side->ids[fd] = id;
            watch(side, fd);
        } else if (side->service_port) {
            fd = side->services[id];
        }
        floor_write(fd, body + ID, len - ID);
    }
}

static void run(struct side *side)
{
    struct epoll_event events[EVENTS];
    for (;;) {
        int count = epoll_wait(side->epoll, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            int fd = events[i].data.fd;
            if (fd == side->link)
                from_link(side);
            else if (fd == side->listener)
                watch(side, floor_accept(fd));
            else
                from_outside(side, fd);
        }
        if (side->out_len)
            flush(side);
    }
}

int main(int argc, char **argv)
{
    static struct side side;
    uint8_t keys[2][FLOOR_KEY];
    uint16_t link_port = 0;
    if (argc != 3) {
        (void)fprintf(stderr, "usage: floor_requests LISTEN_PORT SERVICE_PORT\n");
        return 2;
    }
    uint16_t port = (uint16_t)strtoul(argv[1], NULL, 10);
    side.listener = floor_listen(&port);
    int links = floor_listen(&link_port);
    if (RAND_bytes(keys[0], sizeof keys) != 1)
        floor_die("random");
    pid_t child = fork();
    if (child < 0)
        floor_die("fork");
    int is_agent = child == 0;
    floor_crypt_init(&side.in.crypt, keys[is_agent], 0);
    floor_crypt_init(&side.crypt, keys[!is_agent], 1);
    side.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (is_agent) {
        (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
        (void)close(side.listener);
        side.listener = -1;
        side.service_port = (uint16_t)strtoul(argv[2], NULL, 10);
        side.mask = 0x5ec4e70a;
        side.link = floor_connect(link_port);
    } else {
        side.link = floor_accept(links);
        watch(&side, side.listener);
    }
    if (fcntl(side.link, F_SETFL, O_NONBLOCK))
        floor_die("link");
    watch(&side, side.link);
    run(&side);
}
