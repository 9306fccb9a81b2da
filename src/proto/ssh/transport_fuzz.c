/* SPDX-License-Identifier: MIT
 *
 * libFuzzer: what a stranger may send to the transport layer. Built with CV_FUZZING, under which
 * ciphers leave bytes as they are and tags are not looked at.
 *
 * First byte: bit 0 the role that is attacked; bit 1 whether the session is established first; bit
 * 2 compression; bit 3 rekey at once; bits 4..7 how many bytes are fed at a time. The rest goes in
 * as it is, or, with the session established, as records of two bytes of length and a payload, each
 * framed as a packet.
 */
#include "base/bytes.h"
#include "proto/ssh/transport.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum { IS_CLIENT = 1, IS_ESTABLISHED = 2, HAS_ZLIB = 4, HAS_REKEY = 8, PAYLOAD_MAX = 2048 };

struct side {
    struct cv_buf out;
    struct cv_ssh_transport *t;
    uint64_t now_ms;
};

static void side_init(struct side *side, enum cv_ssh_role role, const struct cv_ssh_host_key *key,
                      bool has_zlib)
{
    struct cv_ssh_transport_options options = {.role = role,
                                               .host_key = key,
                                               .has_compression = has_zlib,
                                               .ciphers = "aes128-gcm@openssh.com",
                                               .rekey_bytes = 65536};
    *side = (struct side){.now_ms = 1};
    cv_buf_init(&side->out, CV_SSH_OUT_MIN);
    side->t = cv_ssh_transport_new(&options, &side->out, side->now_ms);
    if (!side->t)
        abort();
}

static void side_done(struct side *side)
{
    cv_ssh_transport_free(&side->t);
    cv_buf_done(&side->out);
}

/* In a block of its own, so that a byte read too many is seen. Answers like a careless owner. */
static void feed(struct side *side, const uint8_t *data, size_t len)
{
    struct cv_ssh_packet packet;
    uint8_t *copy = malloc(len ? len : 1);
    if (!copy)
        abort();
    if (len)
        memcpy(copy, data, len);
    if (cv_is_ok(cv_ssh_transport_feed(side->t, copy, len))) {
        while (cv_is_ok(cv_ssh_transport_next(side->t, side->now_ms, &packet))) {
            if (packet.kind == CV_SSH_PACKET_HOST_KEY)
                cv_ssh_transport_accept_host_key(side->t, true);
            if (packet.kind == CV_SSH_PACKET_MESSAGE && packet.payload.len > 1)
                (void)cv_ssh_transport_send(side->t, cv_slice("\x5e", 1), packet.payload);
            if (packet.kind == CV_SSH_PACKET_MESSAGE)
                cv_ssh_transport_unimplemented(side->t);
        }
    }
    free(copy);
    cv_ssh_transport_tick(side->t, ++side->now_ms);
    if (cv_buf_len(&side->out) > side->out.cap)
        abort();
}

static void carry(struct side *from, struct side *to)
{
    feed(to, cv_buf_head(&from->out), cv_buf_len(&from->out));
    cv_buf_consume(&from->out, cv_buf_len(&from->out));
}

static void establish(struct side *client, struct side *server)
{
    for (int i = 0; i < 4; i++) {
        carry(client, server);
        carry(server, client);
    }
    if (!cv_ssh_transport_can_send(client->t) || !cv_ssh_transport_can_send(server->t))
        abort();
}

/* With the length and the padding of AES-GCM and any tag. */
static size_t frame(uint8_t *out, const uint8_t *payload, size_t len)
{
    size_t padding = 16 - (1 + len) % 16;
    if (padding < 4)
        padding += 16;
    cv_put_u32(out, (uint32_t)(1 + len + padding));
    out[4] = (uint8_t)padding;
    memcpy(out + 5, payload, len);
    memset(out + 5 + len, 0, padding + 16);
    return 5 + len + padding + 16;
}

static void attack_raw(struct side *side, const uint8_t *data, size_t len, size_t step)
{
    while (len) {
        size_t n = step && step < len ? step : len;
        feed(side, data, n);
        data += n;
        len -= n;
        cv_buf_consume(&side->out, cv_buf_len(&side->out));
    }
}

static void attack_records(struct side *side, const uint8_t *data, size_t len, size_t step)
{
    uint8_t packet[PAYLOAD_MAX + 64];
    while (len > 2) {
        size_t n = cv_get_u16(data) % PAYLOAD_MAX;
        data += 2;
        len -= 2;
        if (n > len)
            n = len;
        size_t total = frame(packet, data, n);
        attack_raw(side, packet, total, step);
        data += n;
        len -= n;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct cv_ssh_host_key *key;
    struct side client, server;
    if (len == 0)
        return 0;
    uint8_t mode = *data++;
    len--;
    if (!cv_is_ok(cv_ssh_host_key_generate(&key)))
        abort();
    side_init(&client, CV_SSH_CLIENT, key, mode & HAS_ZLIB);
    side_init(&server, CV_SSH_SERVER, key, mode & HAS_ZLIB);
    struct side *side = mode & IS_CLIENT ? &client : &server;
    if (mode & IS_ESTABLISHED) {
        establish(&client, &server);
        if (mode & HAS_REKEY)
            cv_ssh_transport_rekey(side->t);
        attack_records(side, data, len, mode >> 4);
    } else {
        attack_raw(side, data, len, mode >> 4);
    }
    side_done(&client);
    side_done(&server);
    cv_ssh_host_key_free(&key);
    return 0;
}
