/* SPDX-License-Identifier: MIT
 *
 * A transport layer without cryptography, behind the same header, so that tests and the fuzzer
 * reach the connection protocol directly and decide when a key exchange is under way. A packet is a
 * uint32 length and the payload, both ways. Numbers below 80 steer the stub: 1 established, 2 a key
 * exchange begins, 3 it is over, 4 the peer disconnects (uint32 reason) and 4 is also what our own
 * disconnect appends.
 */
#include "proto/ssh/transport.h"

#include "base/bytes.h"

enum {
    stub_established = 1,
    stub_kex_begin = 2,
    stub_kex_done = 3,
    stub_disconnect = 4,
    stub_unimplemented = 5,
};

struct cv_ssh_transport {
    struct cv_buf *out;
    struct cv_buf in;
    size_t used; /* bytes of `in` that the latest packet holds */
    bool is_established, is_in_kex;
    struct cv_status status;
};

struct cv_ssh_transport *cv_ssh_transport_new(const struct cv_ssh_transport_options *options,
                                              struct cv_buf *out, uint64_t now_ms)
{
    (void)options;
    (void)now_ms;
    struct cv_ssh_transport *transport = (struct cv_ssh_transport *)calloc(1, sizeof *transport);
    if (!transport)
        return NULL;
    transport->out = out;
    cv_buf_init(&transport->in, 4U << 20);
    return transport;
}

void cv_ssh_transport_free(struct cv_ssh_transport **transport)
{
    if (!*transport)
        return;
    cv_buf_done(&(*transport)->in);
    free(*transport);
    *transport = NULL;
}

struct cv_status cv_ssh_transport_feed(struct cv_ssh_transport *transport, uint8_t *data,
                                       size_t len)
{
    return cv_buf_append(&transport->in, data, len);
}

struct cv_status cv_ssh_transport_next(struct cv_ssh_transport *transport, uint64_t now_ms,
                                       struct cv_ssh_packet *packet)
{
    (void)now_ms;
    cv_buf_consume(&transport->in, transport->used);
    transport->used = 0;
    while (cv_is_ok(transport->status)) {
        struct cv_slice in = cv_buf_slice(&transport->in);
        if (in.len < 4 || cv_buf_room(transport->out) < CV_SSH_RESERVE_OWN + 2048)
            return cv_status(CV_AGAIN);
        size_t len = cv_get_u32(in.data);
        if (len == 0 || len > CV_SSH_PAYLOAD_MAX) {
            transport->status = cv_status(CV_SSH_PROTOCOL);
            break;
        }
        if (in.len - 4 < len)
            return cv_status(CV_AGAIN);
        transport->used = 4 + len;
        packet->payload = cv_slice(in.data + 4, len);
        switch (in.data[4]) {
        case stub_established:
            packet->kind = CV_SSH_PACKET_ESTABLISHED;
            transport->is_established = true;
            return cv_ok();
        case stub_kex_begin:
            transport->is_in_kex = true;
            cv_buf_consume(&transport->in, transport->used);
            transport->used = 0;
            continue;
        case stub_kex_done:
            transport->is_in_kex = false;
            packet->kind = CV_SSH_PACKET_KEX_DONE;
            return cv_ok();
        case stub_disconnect:
            packet->kind = CV_SSH_PACKET_DISCONNECT;
            packet->reason = len >= 5 ? cv_get_u32(in.data + 5) : 0;
            packet->text = cv_slice(NULL, 0);
            return cv_ok();
        default:
            packet->kind = CV_SSH_PACKET_MESSAGE;
            return cv_ok();
        }
    }
    return transport->status;
}

bool cv_ssh_transport_wants_input(const struct cv_ssh_transport *transport)
{
    return cv_buf_len(&transport->in) < 1U << 20;
}

void cv_ssh_transport_accept_host_key(struct cv_ssh_transport *transport, bool is_accepted)
{
    (void)transport;
    (void)is_accepted;
}

bool cv_ssh_transport_can_send(const struct cv_ssh_transport *transport)
{
    return transport->is_established && !transport->is_in_kex && cv_is_ok(transport->status);
}

size_t cv_ssh_transport_room(const struct cv_ssh_transport *transport)
{
    size_t room = cv_buf_room(transport->out);
    if (!cv_ssh_transport_can_send(transport) || room < CV_SSH_RESERVE + 4)
        return 0;
    room -= CV_SSH_RESERVE + 4;
    return room < CV_SSH_PAYLOAD_MAX ? room : CV_SSH_PAYLOAD_MAX;
}

static struct cv_status append(struct cv_ssh_transport *transport, struct cv_slice header,
                               struct cv_slice body)
{
    uint8_t *to = cv_buf_reserve(transport->out, 4 + header.len + body.len);
    if (!to)
        return cv_status(CV_NO_RESOURCES);
    cv_put_u32(to, (uint32_t)(header.len + body.len));
    memcpy(to + 4, header.data, header.len);
    if (body.len > 0)
        memcpy(to + 4 + header.len, body.data, body.len);
    cv_buf_commit(transport->out, 4 + header.len + body.len);
    return cv_ok();
}

struct cv_status cv_ssh_transport_send(struct cv_ssh_transport *transport, struct cv_slice header,
                                       struct cv_slice body)
{
    if (!cv_ssh_transport_can_send(transport))
        return cv_status(CV_AGAIN);
    if (cv_buf_room(transport->out) < CV_SSH_RESERVE_OWN + 4 + header.len + body.len)
        return cv_status(CV_NO_RESOURCES);
    return append(transport, header, body);
}

void cv_ssh_transport_unimplemented(struct cv_ssh_transport *transport)
{
    static const uint8_t message[] = {stub_unimplemented};
    (void)append(transport, cv_slice(message, sizeof message), cv_slice(NULL, 0));
}

void cv_ssh_transport_rekey(struct cv_ssh_transport *transport)
{
    transport->is_in_kex = transport->is_established;
}

void cv_ssh_transport_disconnect(struct cv_ssh_transport *transport, uint32_t reason,
                                 const char *text)
{
    uint8_t message[5] = {stub_disconnect};
    if (!cv_is_ok(transport->status))
        return;
    cv_put_u32(message + 1, reason);
    (void)append(transport, cv_slice(message, sizeof message), cv_slice_str(text));
    transport->status = cv_status(CV_EOF);
}

uint64_t cv_ssh_transport_deadline(const struct cv_ssh_transport *transport)
{
    (void)transport;
    return UINT64_MAX;
}

void cv_ssh_transport_tick(struct cv_ssh_transport *transport, uint64_t now_ms)
{
    (void)transport;
    (void)now_ms;
}

void cv_ssh_transport_pause(struct cv_ssh_transport *transport, uint64_t now_ms)
{
    (void)transport;
    (void)now_ms;
}

void cv_ssh_transport_resume(struct cv_ssh_transport *transport, uint64_t now_ms)
{
    (void)transport;
    (void)now_ms;
}

bool cv_ssh_transport_derive(const struct cv_ssh_transport *transport, const char *label,
                             uint8_t out[32])
{
    (void)label;
    memset(out, 0, 32);
    return transport->is_established;
}

const char *cv_ssh_transport_error(const struct cv_ssh_transport *transport)
{
    (void)transport;
    return "";
}
