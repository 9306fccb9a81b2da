/* SPDX-License-Identifier: MIT
 *
 * For the fuzzers, which are built with CV_FUZZING: ciphers leave bytes as they are, tags and the
 * host's signature are not looked at. So an input can be a conversation of plain packets.
 *
 * Input: two bytes (options of the harness; how many bytes are fed at a time, 0 for all), then
 * records of a kind, two bytes of length, and a body. mutate_fuzz.c keeps inputs in this shape.
 */
#ifndef CV_PROTO_SSH_FUZZ_H
#define CV_PROTO_SSH_FUZZ_H

#include "base/bytes.h"
#include "base/fuzz.h"
#include "proto/ssh/session.h"
#include "proto/ssh/transport_private.h"

/* The one cipher that is offered, so that harness and session frame alike. */
#define FUZZ_CIPHER "aes128-gcm@openssh.com"

enum { FUZZ_HEAD = 2, FUZZ_RECORD_HEAD = 3, FUZZ_BODY_MAX = 4096 };

enum fuzz_kind {
    FUZZ_PACKET, /* a payload of the peer's, framed by the harness */
    FUZZ_RAW,    /* bytes of the peer's as they are */
    FUZZ_ACT,    /* what the owner does */
    FUZZ_KINDS
};

struct fuzz_record {
    enum fuzz_kind kind;
    const uint8_t *body;
    size_t len;
};

/* Takes the next record off the input; one that is cut short is taken as long as it is. */
static inline bool fuzz_next(struct cv_slice *input, struct fuzz_record *record)
{
    if (input->len < FUZZ_RECORD_HEAD)
        return false;
    size_t len = cv_get_u16(input->data + 1);
    record->kind = (enum fuzz_kind)(input->data[0] % FUZZ_KINDS);
    record->body = input->data + FUZZ_RECORD_HEAD;
    input->data += FUZZ_RECORD_HEAD;
    input->len -= FUZZ_RECORD_HEAD;
    record->len = len < input->len ? len : input->len;
    input->data += record->len;
    input->len -= record->len;
    return true;
}

/* Puts a payload into a packet as the receiver `t` expects it now; returns its length. `out` has
 * room for `len` and CV_SSH_PACKET_OVERHEAD more. */
static inline size_t fuzz_frame(const struct cv_ssh_transport *t, uint8_t *out,
                                const uint8_t *payload, size_t len)
{
    const struct cv_ssh_cipher_def *def = t->recv.cipher.def;
    size_t padding = cv_ssh_cipher_padding(def, len);
    cv_put_u32(out, (uint32_t)(1 + len + padding));
    out[4] = (uint8_t)padding;
    if (len)
        memcpy(out + 5, payload, len);
    memset(out + 5 + len, 0, padding + def->tag_len);
    return 5 + len + padding + def->tag_len;
}

/* Takes a session that was just made to where authentication is over, without the arithmetic: with
 * ciphers that leave bytes as they are nobody can tell. Empties `out`. */
static inline void fuzz_establish(struct cv_ssh *ssh, bool is_strict, struct cv_slice host_blob)
{
    struct cv_ssh_transport *t = ssh->transport;
    cv_ssh_kex_done(t->kex);
    free(t->kex);
    t->kex = NULL;
    t->stage.state = STAGE_IDLE;
    t->phase.state = PHASE_OPEN;
    t->has_session = true;
    t->has_service = true;
    t->is_strict = is_strict;
    t->kex_count = 1;
    t->rekey_due_ms = t->now_ms + t->rekey_ms;
    t->send.cipher.def = t->recv.cipher.def = cv_ssh_cipher_find(cv_slice_str(FUZZ_CIPHER));
    t->send.has_zlib = t->recv.has_zlib = t->has_compression;
    memcpy(t->peer_version, "SSH-2.0-peer", 13);
    t->peer_version_len = 12;
    memcpy(t->host_blob, host_blob.data, sizeof t->host_blob);
    cv_fuzz_must(cv_is_ok(cv_ssh_transport_zlib_send(t)) &&
                 cv_is_ok(cv_ssh_transport_zlib_recv(t)));
    ssh->is_established = true;
    ssh->keepalive_due_ms = ssh->now_ms + ssh->keepalive_ms;
    cv_buf_consume(t->out, cv_buf_len(t->out));
}

/* What the peer of a session sees: holds it to the rules of the transport layer. Starts zeroed
 * before the identification, with is_ciphered for a session that starts established. */
struct fuzz_listener {
    bool has_ident, is_ciphered, is_in_kex, is_over;
    unsigned successes;
};

static inline void fuzz_hear_message(struct fuzz_listener *listener, struct cv_slice payload)
{
    uint8_t number = payload.data[0];
    cv_fuzz_must(!listener->is_over); /* RFC 4253 §11.1 */
    bool is_kex = number >= CV_SSH_MSG_KEXINIT && number <= CV_SSH_MSG_KEX_LAST;
    /* RFC 4253 §7.1 */
    if (listener->is_in_kex)
        cv_fuzz_must(number != CV_SSH_MSG_KEXINIT && (is_kex || number <= CV_SSH_MSG_DEBUG));
    if (!listener->is_ciphered)
        cv_fuzz_must(is_kex || number == CV_SSH_MSG_DISCONNECT);
    if (number == CV_SSH_MSG_KEXINIT)
        listener->is_in_kex = true;
    if (number == CV_SSH_MSG_NEWKEYS) {
        listener->is_in_kex = false;
        listener->is_ciphered = true;
    }
    if (number == CV_SSH_MSG_DISCONNECT)
        listener->is_over = true;
    if (number == CV_SSH_MSG_USERAUTH_SUCCESS)
        cv_fuzz_must(++listener->successes == 1); /* RFC 4252 §5.1 */
}

/* Takes one packet off what was sent; false when there is none. Without compression only. */
static inline bool fuzz_hear(struct fuzz_listener *listener, struct cv_buf *out,
                             struct cv_slice *payload)
{
    const uint8_t *head = cv_buf_head(out);
    size_t have = cv_buf_len(out);
    if (have == 0)
        return false;
    if (!listener->has_ident && !listener->is_ciphered) {
        const uint8_t *end = memchr(head, '\n', have);
        cv_fuzz_must(end && end - head < VERSION_MAX && memcmp(head, "SSH-2.0-", 8) == 0);
        listener->has_ident = true;
        cv_buf_consume(out, (size_t)(end - head) + 1);
        return fuzz_hear(listener, out, payload);
    }
    cv_fuzz_must(have >= 16); /* packets are never sent in parts */
    size_t len = cv_get_u32(head), block = listener->is_ciphered ? 16 : 8;
    size_t padding = head[4], total = 4 + len + (listener->is_ciphered ? 16 : 0);
    cv_fuzz_must(have >= total && len <= CV_SSH_PACKET_MAX && padding >= 4 && padding + 2 <= len);
    cv_fuzz_must((listener->is_ciphered ? len : len + 4) % block == 0);
    *payload = cv_slice(head + 5, len - 1 - padding);
    fuzz_hear_message(listener, *payload);
    /* The bytes stay where they are until something is appended. */
    cv_buf_consume(out, total);
    return true;
}

/* What must hold between any two calls. */
static inline void fuzz_check(const struct cv_ssh *ssh)
{
    uint32_t count = 0;
    for (uint32_t id = 0; id < ssh->max_channels; id++) {
        const struct cv_ssh_channel *channel = ssh->channels[id];
        if (!channel)
            continue;
        count++;
        cv_fuzz_must(channel->id == id && channel->fsm.state != CV_SSH_CHANNEL_IS_CLOSED);
        /* A byte of the window is with the peer, with the owner, or on its way back. */
        uint64_t sum = (uint64_t)channel->recv_window + channel->unconsumed + channel->give_back;
        cv_fuzz_must(sum == cv_ssh_channel_credit(channel));
        if (cv_ssh_channel_is(channel, CV_SSH_CHANNEL_IS_OPEN))
            /* More than its window where that was made smaller. */
            cv_fuzz_must(sum >= channel->window && (sum == channel->window || !channel->give_back));
        cv_fuzz_must(channel->send_packet <= CV_SSH_DATA_MAX);
    }
    cv_fuzz_must(count == ssh->channel_count && count <= ssh->max_channels);
    cv_fuzz_must(cv_buf_len(&ssh->held) <= CV_SSH_HELD_MAX);
    cv_fuzz_must(cv_buf_len(ssh->out) <= ssh->out->cap);
    cv_fuzz_must(ssh->asked_count <= CV_SSH_REQUESTS_MAX && ssh->owed_count <= CV_SSH_OWED_MAX);
    cv_fuzz_must(ssh->owed_refusals <= CV_SSH_OWED_REFUSALS_MAX);
}

#endif
