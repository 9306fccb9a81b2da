/* SPDX-License-Identifier: MIT */
#include "proto/ssh/transport_pair.h"

#include "base/bytes.h"

#include <stdlib.h>

static void side_start(struct cv_ssh_side *side, const struct cv_ssh_transport_options *options)
{
    *side = (struct cv_ssh_side){.status = cv_status(CV_AGAIN)};
    cv_buf_init(&side->out, 256 * 1024);
    side->t = cv_ssh_transport_new(options, &side->out, 1000);
    assert_non_null(side->t);
}

void cv_ssh_pair_start_with(struct cv_ssh_pair *pair, struct cv_ssh_transport_options client,
                            struct cv_ssh_transport_options server)
{
    *pair = (struct cv_ssh_pair){.now_ms = 1000};
    assert_ok(cv_ssh_host_key_generate(&pair->key));
    client.role = CV_SSH_CLIENT;
    server.role = CV_SSH_SERVER;
    server.host_key = pair->key;
    side_start(&pair->client, &client);
    side_start(&pair->server, &server);
}

void cv_ssh_pair_start(struct cv_ssh_pair *pair)
{
    cv_ssh_pair_start_with(pair, (struct cv_ssh_transport_options){0},
                           (struct cv_ssh_transport_options){0});
}

void cv_ssh_pair_done(struct cv_ssh_pair *pair)
{
    cv_ssh_transport_free(&pair->client.t);
    cv_ssh_transport_free(&pair->server.t);
    cv_buf_done(&pair->client.out);
    cv_buf_done(&pair->server.out);
    cv_ssh_host_key_free(&pair->key);
}

/* A message of the connection protocol: number 94, its count, and bytes that follow from it. */
struct cv_status cv_ssh_side_send(struct cv_ssh_side *side, size_t len)
{
    uint8_t head[9] = {94}, body[CV_SSH_PAYLOAD_MAX];
    assert_true(len <= sizeof body - 9);
    cv_put_u64(head + 1, side->sent);
    for (size_t i = 0; i < len; i++)
        body[i] = (uint8_t)(side->sent * 7 + i * 13 + (i >> 8));
    struct cv_status status =
        cv_ssh_transport_send(side->t, cv_slice(head, sizeof head), cv_slice(body, len));
    if (cv_is_ok(status))
        side->sent++;
    return status;
}

static void check_message(struct cv_ssh_side *side, struct cv_slice payload)
{
    assert_true(payload.len >= 9 && payload.data[0] == 94);
    assert_int_equal(cv_get_u64(payload.data + 1), side->received);
    for (size_t i = 0; i < payload.len - 9; i++) {
        if (payload.data[9 + i] != (uint8_t)(side->received * 7 + i * 13 + (i >> 8)))
            fail_msg("byte %zu of message %zu is wrong", i, (size_t)side->received);
    }
    side->received++;
    side->received_bytes += payload.len;
}

static void on_packet(struct cv_ssh_side *side, const struct cv_ssh_packet *packet)
{
    switch (packet->kind) {
    case CV_SSH_PACKET_MESSAGE:
        check_message(side, packet->payload);
        break;
    case CV_SSH_PACKET_HOST_KEY:
        memcpy(side->fingerprint, packet->fingerprint, sizeof side->fingerprint);
        if (!side->keeps_waiting)
            cv_ssh_transport_accept_host_key(side->t, !side->refuses_host);
        break;
    case CV_SSH_PACKET_ESTABLISHED:
        assert_false(side->is_established);
        side->is_established = true;
        break;
    case CV_SSH_PACKET_KEX_DONE:
        side->kex_done++;
        assert_true(cv_ssh_transport_can_send(side->t));
        break;
    case CV_SSH_PACKET_DISCONNECT:
        side->disconnect_reason = packet->reason;
        break;
    }
}

void cv_ssh_side_drain(struct cv_ssh_side *side, uint64_t now_ms)
{
    struct cv_ssh_packet packet;
    while (cv_is_ok(side->status = cv_ssh_transport_next(side->t, now_ms, &packet)))
        on_packet(side, &packet);
}

void cv_ssh_side_feed(struct cv_ssh_side *side, const void *data, size_t len, uint64_t now_ms)
{
    uint8_t *copy = malloc(len ? len : 1);
    assert_non_null(copy);
    memcpy(copy, data, len);
    if (cv_is_ok(cv_ssh_transport_feed(side->t, copy, len)))
        cv_ssh_side_drain(side, now_ms);
    free(copy);
}

bool cv_ssh_pair_carry(struct cv_ssh_pair *pair, struct cv_ssh_side *from, struct cv_ssh_side *to)
{
    size_t len = cv_buf_len(&from->out);
    if (pair->step && len > pair->step)
        len = pair->step;
    if (len == 0 || (!cv_ssh_transport_wants_input(to->t) && to->status.id == CV_AGAIN))
        return false;
    cv_ssh_side_feed(to, cv_buf_head(&from->out), len, pair->now_ms);
    cv_buf_consume(&from->out, len);
    return true;
}

void cv_ssh_pair_run(struct cv_ssh_pair *pair)
{
    bool is_moving = true;
    while (is_moving) {
        is_moving = cv_ssh_pair_carry(pair, &pair->client, &pair->server);
        is_moving = cv_ssh_pair_carry(pair, &pair->server, &pair->client) || is_moving;
        cv_ssh_side_drain(&pair->client, pair->now_ms);
        cv_ssh_side_drain(&pair->server, pair->now_ms);
    }
}

void cv_ssh_pair_establish(struct cv_ssh_pair *pair)
{
    cv_ssh_pair_run(pair);
    assert_true(pair->client.is_established);
    assert_true(pair->server.is_established);
}

void cv_ssh_pair_exchange(struct cv_ssh_pair *pair, size_t count, size_t len)
{
    for (size_t i = 0; i < count; i++) {
        (void)cv_ssh_side_send(&pair->client, (len * (i + 1) * 31) % (len + 1));
        (void)cv_ssh_side_send(&pair->server, (len * (i + 2) * 17) % (len + 1));
        cv_ssh_pair_run(pair);
    }
    assert_int_equal(pair->client.sent, pair->server.received);
    assert_int_equal(pair->server.sent, pair->client.received);
}
