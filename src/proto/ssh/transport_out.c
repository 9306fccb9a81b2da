/* SPDX-License-Identifier: MIT
 *
 * What goes out: packets are built and encrypted where they leave, in `out`.
 *
 * Happy path: begin/send check the gate and the room, the packet is laid out behind the content of
 * `out`, padded, sealed, counted; a used-up key starts the next exchange.
 * Failing: no room or a key exchange in the way leaves everything as it was; a refusal of the
 * crypto or compression library ends the session.
 */
#include "base/bytes.h"
#include "proto/ssh/transport_private.h"

#include <stdio.h>
#include <stdlib.h>

enum { HEAD = 5 }; /* packet length and padding length */

static size_t overhead(const struct cv_ssh_transport *t)
{
    return CV_SSH_PACKET_OVERHEAD + (t->send.zlib ? CV_SSH_DEFLATE_OVERHEAD : 0U);
}

/* RFC 4253 §6: padding should be random; a pool saves a system call per packet. */
static void pad(struct cv_ssh_transport *t, uint8_t *to, size_t len)
{
    if (t->padding_used + len > sizeof t->padding) {
        cv_random(t->padding, sizeof t->padding);
        t->padding_used = 0;
    }
    memcpy(to, t->padding + t->padding_used, len);
    t->padding_used += len;
}

/* Completes the packet at the end of `out`: all but the last body.len bytes of the payload are in
 * place. */
static struct cv_status finish(struct cv_ssh_transport *t, uint8_t *packet, size_t payload_len,
                               struct cv_slice body)
{
    struct cv_ssh_direction *d = &t->send;
    const struct cv_ssh_cipher_def *def = d->cipher.def;
    size_t padding = cv_ssh_cipher_padding(def, payload_len);
    size_t packet_length = 1 + payload_len + padding;
    cv_put_u32(packet, (uint32_t)packet_length);
    packet[4] = (uint8_t)padding;
    pad(t, packet + HEAD + payload_len, padding);
    struct cv_status status = cv_ssh_cipher_seal(&d->cipher, d->sequence, packet, packet_length,
                                                 HEAD + payload_len - body.len, body);
    if (!cv_is_ok(status)) {
        cv_ssh_transport_close(t, status.id);
        return status;
    }
    size_t total = 4 + packet_length + def->tag_len;
    cv_buf_commit(t->out, total);
    d->sequence++;
    d->packets++;
    d->bytes += total;
    return cv_ok();
}

static struct cv_status send_compressed(struct cv_ssh_transport *t, uint8_t *packet, size_t room,
                                        struct cv_slice header, struct cv_slice body)
{
    size_t len;
    struct cv_status status =
        cv_ssh_zlib_deflate(t->send.zlib, header, body, packet + HEAD, room, &len);
    if (!cv_is_ok(status)) {
        cv_ssh_transport_close(t, CV_INTERNAL);
        return cv_status(CV_INTERNAL);
    }
    return finish(t, packet, len, (struct cv_slice){0});
}

/* `reserve` is what has to stay free behind the packet. */
static struct cv_status send_packet(struct cv_ssh_transport *t, struct cv_slice header,
                                    struct cv_slice body, size_t reserve)
{
    size_t len = header.len + body.len;
    size_t need = len + overhead(t);
    if (len == 0 || header.len > CV_SSH_PAYLOAD_MAX || body.len > CV_SSH_PAYLOAD_MAX - header.len)
        return cv_status(CV_INVALID);
    if (cv_buf_room(t->out) < need + reserve)
        return cv_status(CV_NO_RESOURCES);
    uint8_t *packet = cv_buf_reserve(t->out, need);
    if (!packet)
        return cv_status(CV_NO_MEMORY);
    if (t->send.zlib)
        return send_compressed(t, packet, len + CV_SSH_DEFLATE_OVERHEAD, header, body);
    if (header.len)
        memcpy(packet + HEAD, header.data, header.len);
    return finish(t, packet, len, body);
}

struct cv_status cv_ssh_transport_send_own(struct cv_ssh_transport *t, struct cv_slice payload)
{
    struct cv_status status = send_packet(t, payload, (struct cv_slice){0}, 0);
    if (!cv_is_ok(status))
        cv_ssh_transport_close(t, status.id);
    return status;
}

bool cv_ssh_transport_can_send(const struct cv_ssh_transport *t)
{
    return cv_ssh_transport_is(t, PHASE_OPEN) &&
           (cv_ssh_transport_is_at(t, STAGE_IDLE) || cv_ssh_transport_is_at(t, STAGE_NEWKEYS));
}

size_t cv_ssh_transport_room(const struct cv_ssh_transport *t)
{
    size_t room = cv_buf_room(t->out), kept = CV_SSH_RESERVE + overhead(t);
    if (!cv_ssh_transport_can_send(t) || room <= kept)
        return 0;
    return room - kept < CV_SSH_PAYLOAD_MAX ? room - kept : CV_SSH_PAYLOAD_MAX;
}

struct cv_status cv_ssh_transport_send(struct cv_ssh_transport *t, struct cv_slice header,
                                       struct cv_slice body)
{
    if (!cv_ssh_transport_can_send(t))
        return cv_status(CV_AGAIN);
    struct cv_status status = send_packet(t, header, body, CV_SSH_RESERVE_OWN);
    if (status.id == CV_NO_MEMORY)
        cv_ssh_transport_close(t, CV_NO_MEMORY);
    if (cv_is_ok(status))
        cv_ssh_transport_kex_if_due(t);
    return status;
}

uint8_t *cv_ssh_transport_begin(struct cv_ssh_transport *t, size_t payload_max)
{
    size_t need = payload_max + overhead(t);
    if (!cv_ssh_transport_can_send(t) || payload_max == 0 || payload_max > CV_SSH_PAYLOAD_MAX ||
        cv_buf_room(t->out) < need + CV_SSH_RESERVE_OWN)
        return NULL;
    uint8_t *packet = cv_buf_reserve(t->out, need);
    if (!packet)
        return NULL;
    t->begun_max = payload_max;
    return t->send.zlib ? t->plain : packet + HEAD;
}

struct cv_status cv_ssh_transport_end(struct cv_ssh_transport *t, size_t payload_len)
{
    size_t max = t->begun_max;
    t->begun_max = 0;
    if (payload_len == 0 || payload_len > max)
        return cv_status(CV_INVALID);
    /* Nothing was appended since begin, so this is the same place. */
    uint8_t *packet = cv_buf_reserve(t->out, max + overhead(t));
    if (!packet)
        return cv_status(CV_INVALID);
    struct cv_status status =
        t->send.zlib ? send_compressed(t, packet, payload_len + CV_SSH_DEFLATE_OVERHEAD,
                                       cv_slice(t->plain, payload_len), (struct cv_slice){0})
                     : finish(t, packet, payload_len, (struct cv_slice){0});
    if (cv_is_ok(status))
        cv_ssh_transport_kex_if_due(t);
    return status;
}

void cv_ssh_transport_unimplemented(struct cv_ssh_transport *t)
{
    uint8_t payload[5] = {CV_SSH_MSG_UNIMPLEMENTED};
    if (cv_ssh_transport_is(t, PHASE_CLOSED) || !cv_is_ok(cv_ssh_transport_noise(t)))
        return;
    cv_put_u32(payload + 1, t->packet_sequence);
    /* A key exchange is not in its way (RFC 4253 §7.1), and it is what next() keeps room for. */
    if (cv_ssh_transport_is(t, PHASE_OPEN))
        (void)send_packet(t, cv_slice(payload, sizeof payload), (struct cv_slice){0}, KEX_ROOM);
}

void cv_ssh_transport_close(struct cv_ssh_transport *t, enum cv_status_id id)
{
    if (cv_ssh_transport_is(t, PHASE_CLOSED))
        return;
    t->end = id;
    cv_fsm_set(&t->phase, PHASE_CLOSED);
}

/* Before the peer has identified itself it may not be an SSH program: then nothing is said. */
static void send_disconnect(struct cv_ssh_transport *t, uint32_t reason, const char *text)
{
    uint8_t payload[16 + VERSION_MAX];
    size_t len = strlen(text);
    if (cv_ssh_transport_is(t, PHASE_CLOSED) || cv_ssh_transport_is(t, PHASE_IDENT))
        return;
    struct cv_ssh_writer w = cv_ssh_writer(payload, sizeof payload);
    cv_ssh_write_u8(&w, CV_SSH_MSG_DISCONNECT);
    cv_ssh_write_u32(&w, reason);
    cv_ssh_write_string(&w, cv_slice(text, len < VERSION_MAX ? len : VERSION_MAX));
    cv_ssh_write_str(&w, "");
    (void)send_packet(t, cv_ssh_written(&w), (struct cv_slice){0}, 0);
}

struct cv_status cv_ssh_transport_fail(struct cv_ssh_transport *t, enum cv_status_id id,
                                       const char *format, ...)
{
    if (cv_ssh_transport_is(t, PHASE_CLOSED))
        return cv_status(t->end);
    va_list args;
    va_start(args, format);
    (void)vsnprintf(t->error.detail, sizeof t->error.detail, format, args);
    va_end(args);
    t->error.id = id;
    /* The detail may quote the peer; what it gets back is ours alone. */
    send_disconnect(t, (uint32_t)cv_status_ssh_disconnect(id), cv_status_text(id));
    cv_ssh_transport_close(t, id);
    return cv_status(id);
}

void cv_ssh_transport_disconnect(struct cv_ssh_transport *t, uint32_t reason, const char *text)
{
    send_disconnect(t, reason, text);
    cv_ssh_transport_close(t, CV_EOF);
}

struct cv_status cv_ssh_transport_zlib_send(struct cv_ssh_transport *t)
{
    cv_ssh_zlib_free(&t->send.zlib);
    if (!t->send.has_zlib)
        return cv_ok();
    if (!t->plain)
        t->plain = malloc(CV_SSH_PAYLOAD_MAX);
    if (!t->plain)
        return cv_status(CV_NO_MEMORY);
    return cv_ssh_zlib_new(&t->send.zlib, true);
}

struct cv_status cv_ssh_transport_zlib_recv(struct cv_ssh_transport *t)
{
    cv_ssh_zlib_free(&t->recv.zlib);
    if (!t->recv.has_zlib)
        return cv_ok();
    if (!t->inflated)
        t->inflated = malloc(CV_SSH_PACKET_MAX);
    if (!t->inflated)
        return cv_status(CV_NO_MEMORY);
    return cv_ssh_zlib_new(&t->recv.zlib, false);
}
