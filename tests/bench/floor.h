/* SPDX-License-Identifier: MIT
 *
 * What the two floor programs share: packets on a socket, as cheap as they can be while each is
 * sealed with AES-256-GCM and, towards the relay, masked as RFC 6455 section 5.3 wants.
 *
 *   u32 length of the body | u32 mask, 0 for none | body, sealed | tag, 16 bytes
 *
 * They are a yardstick and trust each other: no handshake, one key made before the fork, and any
 * fault ends the process.
 */
#ifndef CV_TESTS_BENCH_FLOOR_H
#define CV_TESTS_BENCH_FLOOR_H

#include <openssl/evp.h>
#include <stdint.h>
#include <stdnoreturn.h>
#include <sys/types.h>

enum {
    FLOOR_KEY = 32,
    FLOOR_HEAD = 8,
    FLOOR_TAG = 16,
    FLOOR_BODY_MAX = 32768,
    FLOOR_PACKET_MAX = FLOOR_HEAD + FLOOR_BODY_MAX + FLOOR_TAG,
    FLOOR_BUFFER = 8 * FLOOR_PACKET_MAX,
};

/* One end of one direction. */
struct floor_crypt {
    EVP_CIPHER_CTX *ctx;
    uint64_t counter;
};

/* What was read from the other side and not yet taken. */
struct floor_in {
    struct floor_crypt crypt;
    size_t head, tail;
    uint8_t data[FLOOR_BUFFER];
};

noreturn void floor_die(const char *what);

void floor_crypt_init(struct floor_crypt *crypt, const uint8_t *key, int is_sealing);

/* Seals the `len` bytes at packet + FLOOR_HEAD where they lie and writes head and tag around them;
 * `mask` 0 leaves them unmasked. Returns the length of the packet. */
size_t floor_seal(struct floor_crypt *crypt, uint8_t *packet, size_t len, uint32_t mask);

/* One read of what is there; 0 at the end of the stream, -1 when nothing is there. */
ssize_t floor_fill(struct floor_in *in, int fd);
/* The next whole packet, opened in place, and its length; NULL without one. Valid until the next
 * call of floor_fill. An empty packet is not NULL. */
uint8_t *floor_next(struct floor_in *in, size_t *len);

/* All of it, waiting for room in the socket. */
void floor_write(int fd, const uint8_t *data, size_t len);

/* Sockets on 127.0.0.1, without Nagle's delay. `port` 0 takes any; floor_listen leaves it there. */
int floor_listen(uint16_t *port);
int floor_accept(int listener);
int floor_connect(uint16_t port);

#endif
