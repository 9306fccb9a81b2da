/* SPDX-License-Identifier: MIT
 *
 * The floor of a download: two processes that do only what no tunnel can leave out, with blocking
 * calls, for one consumer after the other. What culvert reaches of it is what its protocols and its
 * loop cost.
 *
 *   floor_bulk LISTEN_PORT SERVICE_PORT
 *
 * relay: takes a request, sends it on; receives, unmasks, opens, sends to the consumer.
 * agent: connects to the service for each request; reads 32 KiB, seals, masks, sends.
 * The service ends an answer by closing, so the request must say `Connection: close`.
 */
#include "floor.h"

#include <openssl/rand.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

static void relay(int link, int listener, struct floor_in *in, struct floor_crypt *out)
{
    static uint8_t request[FLOOR_PACKET_MAX];
    for (;;) {
        int consumer = floor_accept(listener);
        ssize_t got = recv(consumer, request + FLOOR_HEAD, FLOOR_BODY_MAX, 0);
        if (got <= 0) {
            (void)close(consumer); /* somebody asked whether the port is open */
            continue;
        }
        floor_write(link, request, floor_seal(out, request, (size_t)got, 0));
        for (size_t len = 1; len;) {
            for (uint8_t *body; len && (body = floor_next(in, &len));)
                floor_write(consumer, body, len);
            if (len && floor_fill(in, link) <= 0)
                return;
        }
        (void)close(consumer);
    }
}

static void agent(int link, uint16_t service_port, struct floor_in *in, struct floor_crypt *out)
{
    static uint8_t packet[FLOOR_PACKET_MAX];
    while (floor_fill(in, link) > 0) {
        size_t len;
        uint8_t *request = floor_next(in, &len);
        if (!request)
            continue;
        int service = floor_connect(service_port);
        floor_write(service, request, len);
        ssize_t got;
        do {
            got = recv(service, packet + FLOOR_HEAD, FLOOR_BODY_MAX, 0);
            size_t body = got > 0 ? (size_t)got : 0;
            floor_write(link, packet, floor_seal(out, packet, body, 0x5ec4e70a));
        } while (got > 0);
        (void)close(service);
    }
}

int main(int argc, char **argv)
{
    static struct floor_in in;
    struct floor_crypt out;
    uint8_t keys[2][FLOOR_KEY];
    uint16_t link_port = 0;
    if (argc != 3) {
        (void)fprintf(stderr, "usage: floor_bulk LISTEN_PORT SERVICE_PORT\n");
        return 2;
    }
    uint16_t port = (uint16_t)strtoul(argv[1], NULL, 10);
    uint16_t service_port = (uint16_t)strtoul(argv[2], NULL, 10);
    int listener = floor_listen(&port), links = floor_listen(&link_port);
    if (RAND_bytes(keys[0], sizeof keys) != 1)
        floor_die("random");
    pid_t child = fork();
    if (child < 0)
        floor_die("fork");
    int is_agent = child == 0;
    floor_crypt_init(&in.crypt, keys[is_agent], 0);
    floor_crypt_init(&out, keys[!is_agent], 1);
    if (is_agent) {
        (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
        (void)close(listener);
        agent(floor_connect(link_port), service_port, &in, &out);
    } else {
        relay(floor_accept(links), listener, &in, &out);
    }
    return 0;
}
