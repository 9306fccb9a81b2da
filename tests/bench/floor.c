/* SPDX-License-Identifier: MIT */
#include "floor.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void floor_die(const char *what)
{
    perror(what);
    _exit(1);
}

/* ---- packets ---- */

void floor_crypt_init(struct floor_crypt *crypt, const uint8_t *key, int is_sealing)
{
    crypt->counter = 0;
    crypt->ctx = EVP_CIPHER_CTX_new();
    if (!crypt->ctx ||
        EVP_CipherInit_ex(crypt->ctx, EVP_aes_256_gcm(), NULL, key, NULL, is_sealing) != 1)
        floor_die("cipher");
}

static void begin(struct floor_crypt *crypt, const uint8_t *head)
{
    uint8_t nonce[12] = {0};
    int len;
    memcpy(nonce + 4, &crypt->counter, sizeof crypt->counter);
    crypt->counter++;
    if (EVP_CipherInit_ex(crypt->ctx, NULL, NULL, NULL, nonce, -1) != 1 ||
        EVP_CipherUpdate(crypt->ctx, NULL, &len, head, 4) != 1)
        floor_die("nonce");
}

static void mask_bytes(uint8_t *data, size_t len, uint32_t mask)
{
    uint64_t wide = (uint64_t)mask << 32 | mask;
    size_t i = 0;
    for (; i + sizeof wide <= len; i += sizeof wide) {
        uint64_t word;
        memcpy(&word, data + i, sizeof word);
        word ^= wide;
        memcpy(data + i, &word, sizeof word);
    }
    for (; i < len; i++)
        data[i] ^= (uint8_t)(mask >> 8 * (i % 4));
}

size_t floor_seal(struct floor_crypt *crypt, uint8_t *packet, size_t len, uint32_t mask)
{
    uint32_t head[2] = {(uint32_t)len, mask};
    uint8_t *body = packet + FLOOR_HEAD;
    int done;
    memcpy(packet, head, sizeof head);
    begin(crypt, packet);
    if (EVP_CipherUpdate(crypt->ctx, body, &done, body, (int)len) != 1 ||
        EVP_CipherFinal_ex(crypt->ctx, body + len, &done) != 1 ||
        EVP_CIPHER_CTX_ctrl(crypt->ctx, EVP_CTRL_AEAD_GET_TAG, FLOOR_TAG, body + len) != 1)
        floor_die("seal");
    if (mask)
        mask_bytes(body, len + FLOOR_TAG, mask);
    return FLOOR_HEAD + len + FLOOR_TAG;
}

ssize_t floor_fill(struct floor_in *in, int fd)
{
    if (in->head == in->tail)
        in->head = in->tail = 0;
    if (sizeof in->data - in->tail < FLOOR_PACKET_MAX) {
        memmove(in->data, in->data + in->head, in->tail - in->head);
        in->tail -= in->head;
        in->head = 0;
    }
    ssize_t got = recv(fd, in->data + in->tail, sizeof in->data - in->tail, 0);
    if (got > 0)
        in->tail += (size_t)got;
    if (got < 0 && errno != EAGAIN)
        return 0;
    return got;
}

uint8_t *floor_next(struct floor_in *in, size_t *len)
{
    uint8_t *packet = in->data + in->head;
    uint32_t head[2];
    int done;
    if (in->tail - in->head < FLOOR_HEAD)
        return NULL;
    memcpy(head, packet, sizeof head);
    size_t body_len = head[0];
    if (body_len > FLOOR_BODY_MAX)
        floor_die("a packet too long");
    if (in->tail - in->head < FLOOR_HEAD + body_len + FLOOR_TAG)
        return NULL;
    in->head += FLOOR_HEAD + body_len + FLOOR_TAG;
    uint8_t *body = packet + FLOOR_HEAD;
    if (head[1])
        mask_bytes(body, body_len + FLOOR_TAG, head[1]);
    begin(&in->crypt, packet);
    if (EVP_CipherUpdate(in->crypt.ctx, body, &done, body, (int)body_len) != 1 ||
        EVP_CIPHER_CTX_ctrl(in->crypt.ctx, EVP_CTRL_AEAD_SET_TAG, FLOOR_TAG, body + body_len) !=
            1 ||
        EVP_CipherFinal_ex(in->crypt.ctx, body + body_len, &done) != 1)
        floor_die("open");
    *len = body_len;
    return body;
}

void floor_write(int fd, const uint8_t *data, size_t len)
{
    while (len) {
        ssize_t sent = send(fd, data, len, MSG_NOSIGNAL);
        if (sent < 0 && errno == EAGAIN) {
            struct pollfd wait = {.fd = fd, .events = POLLOUT};
            (void)poll(&wait, 1, -1);
            continue;
        }
        if (sent < 0)
            return; /* the reader is told by its own end of the stream */
        data += sent;
        len -= (size_t)sent;
    }
}

/* ---- sockets ---- */

static struct sockaddr_in loopback(uint16_t port)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(port)};
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return addr;
}

int floor_listen(uint16_t *port)
{
    struct sockaddr_in addr = loopback(*port);
    socklen_t len = sizeof addr;
    int yes = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes) ||
        bind(fd, (struct sockaddr *)&addr, sizeof addr) || listen(fd, 1024) ||
        getsockname(fd, (struct sockaddr *)&addr, &len))
        floor_die("listen");
    *port = ntohs(addr.sin_port);
    return fd;
}

static int without_delay(int fd)
{
    int yes = 1;
    if (fd < 0 || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes))
        floor_die("socket");
    return fd;
}

int floor_accept(int listener)
{
    return without_delay(accept(listener, NULL, NULL));
}

int floor_connect(uint16_t port)
{
    struct sockaddr_in addr = loopback(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof addr))
        floor_die("connect");
    return without_delay(fd);
}
