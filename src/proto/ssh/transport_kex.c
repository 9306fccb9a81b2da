/* SPDX-License-Identifier: MIT
 *
 * The order of a key exchange (RFC 4253 §7, §9), first and later ones, from either side.
 *
 * Happy path: KEXINIT both ways in any order; the client sends its share (ECDH_INIT), the server
 * answers with share, host key and signature (ECDH_REPLY); each sends NEWKEYS and seals with the
 * new key from then on, and opens with it once the other's NEWKEYS has come. Failing: a repeated
 * KEXINIT, nothing in common, a bad share or signature, another host key than before, anything else
 * in between. Each ends the session.
 */
#include "proto/ssh/transport_private.h"

#include <stdlib.h>

static struct cv_slice own_version(const struct cv_ssh_transport *t)
{
    return cv_slice_str(t->own_version);
}

static struct cv_slice peer_version(const struct cv_ssh_transport *t)
{
    return cv_slice(t->peer_version, t->peer_version_len);
}

bool cv_ssh_transport_is_peer_in_kex(const struct cv_ssh_transport *t)
{
    return cv_ssh_transport_is_at(t, STAGE_SHARES) || cv_ssh_transport_is_at(t, STAGE_HOST_KEY) ||
           cv_ssh_transport_is_at(t, STAGE_NEWKEYS);
}

static struct cv_status send_share(struct cv_ssh_transport *t)
{
    uint8_t payload[1 + 4 + CV_SSH_SHARE_LEN];
    struct cv_status status = cv_ssh_kex_make_share(t->kex);
    if (!cv_is_ok(status))
        return cv_ssh_transport_fail(t, status.id, "cannot make a key share");
    struct cv_ssh_writer w = cv_ssh_writer(payload, sizeof payload);
    cv_ssh_write_u8(&w, CV_SSH_MSG_KEX_ECDH_INIT);
    cv_ssh_write_string(&w, cv_slice(t->kex->share, sizeof t->kex->share));
    t->kex->has_sent_share = true;
    return cv_ssh_transport_send_own(t, cv_ssh_written(&w));
}

struct cv_status cv_ssh_transport_kex_start(struct cv_ssh_transport *t)
{
    bool is_first = !t->has_session;
    struct cv_ssh_kex_offer offer = {.is_client = t->is_client,
                                     .is_first = is_first,
                                     .has_guess = is_first && t->has_guess,
                                     .has_compression = t->has_compression,
                                     .ciphers = t->ciphers};
    t->kex = malloc(sizeof *t->kex);
    if (!t->kex)
        return cv_ssh_transport_fail(t, CV_NO_MEMORY, "no memory for a key exchange");
    cv_ssh_kex_init(t->kex);
    struct cv_status status = cv_ssh_kex_offer(t->kex, &offer);
    if (!cv_is_ok(status))
        return cv_ssh_transport_fail(t, status.id, "no memory for a key exchange");
    t->wants_rekey = false;
    t->kex_due_ms = 0;
    cv_fsm_set(&t->stage, STAGE_INIT);
    CV_RETURN_IF_ERROR(cv_ssh_transport_send_own(t, cv_buf_slice(&t->kex->own_init)));
    return offer.has_guess ? send_share(t) : cv_ok();
}

void cv_ssh_transport_kex_if_due(struct cv_ssh_transport *t)
{
    const uint64_t packets_max = 1ULL << 31; /* before the sequence number wraps, RFC 4344 §3.1 */
    if (!cv_ssh_transport_is(t, PHASE_OPEN) || !cv_ssh_transport_is_at(t, STAGE_IDLE) ||
        cv_buf_room(t->out) < KEX_ROOM)
        return;
    if (t->wants_rekey || t->send.bytes >= t->rekey_bytes || t->recv.bytes >= t->rekey_bytes ||
        t->send.packets >= packets_max || t->recv.packets >= packets_max)
        (void)cv_ssh_transport_kex_start(t);
}

/* A key exchange costs us a signature or a verification. Those that data was moved for are paid
 * for; of others a few are free. */
static struct cv_status limit_idle_kex(struct cv_ssh_transport *t)
{
    uint64_t seconds = (t->now_ms - t->idle_kex_ms) / 1000;
    t->idle_kex -= seconds < t->idle_kex ? (uint32_t)seconds : t->idle_kex;
    t->idle_kex_ms += seconds * 1000;
    /* OpenSSH under a small RekeyLimit starts over before each packet that would exceed it, with
     * nothing but a window adjust in between; the data that follows pays for those too. */
    uint64_t paid = (t->send.bytes + t->recv.bytes) / IDLE_KEX_BYTES;
    t->idle_kex -= paid < t->idle_kex ? (uint32_t)paid : t->idle_kex;
    if (paid > 0)
        return cv_ok();
    if (++t->idle_kex > IDLE_KEX_BURST)
        return cv_ssh_transport_fail(t, CV_SSH_LIMIT, "too many key exchanges without data");
    return cv_ok();
}

static struct cv_status on_kexinit(struct cv_ssh_transport *t, struct cv_slice payload)
{
    if (cv_ssh_transport_is_peer_in_kex(t))
        return cv_ssh_transport_fail(t, CV_SSH_PROTOCOL, "KEXINIT during a key exchange");
    if (cv_ssh_transport_is_at(t, STAGE_IDLE)) {
        CV_RETURN_IF_ERROR(limit_idle_kex(t));
        CV_RETURN_IF_ERROR(cv_ssh_transport_kex_start(t));
    }
    struct cv_ssh_kex *kex = t->kex;
    struct cv_error error = {0};
    if (payload.len > CV_SSH_KEXINIT_MAX)
        return cv_ssh_transport_fail(t, CV_SSH_LIMIT, "KEXINIT of %zu bytes", payload.len);
    struct cv_status status = cv_buf_append_slice(&kex->peer_init, payload);
    if (!cv_is_ok(status))
        return cv_ssh_transport_fail(t, status.id, "no memory for a key exchange");
    status = cv_ssh_kex_negotiate(kex, t->is_client, &error);
    if (!cv_is_ok(status))
        return cv_ssh_transport_fail(t, status.id, "%s", error.detail);
    if (!t->has_session) {
        t->is_strict = kex->choice.is_peer_strict;
        /* Strict key exchange: nothing at all may have come before, or a man in the middle has put
         * it there to shift the sequence numbers (CVE-2023-48795). */
        if (t->is_strict && t->packet_sequence != 0)
            return cv_ssh_transport_fail(t, CV_SSH_PROTOCOL, "KEXINIT was not the first packet");
    }
    t->skips_next = kex->choice.has_peer_guess && !kex->choice.is_guess_right;
    cv_fsm_set(&t->stage, STAGE_SHARES);
    if (t->is_client && !(kex->has_sent_share && kex->choice.is_guess_right))
        return send_share(t);
    return cv_ok();
}

/* RFC 4253 §7.2: 'A' and 'B' name the IVs, 'C' and 'D' the keys, to server and to client. */
static struct cv_status make_cipher(const struct cv_ssh_transport *t, bool is_to_server,
                                    bool is_sealing, struct cv_ssh_cipher *cipher)
{
    uint8_t key[CV_SSH_CIPHER_KEY_MAX], iv[CV_SSH_CIPHER_IV_MAX];
    const struct cv_ssh_kex_choice *choice = &t->kex->choice;
    const struct cv_ssh_cipher_def *def =
        is_to_server ? choice->cipher_to_server : choice->cipher_to_client;
    cv_ssh_kex_derive(t->kex, cv_slice_str(is_to_server ? "A" : "B"), t->session_id, iv, sizeof iv);
    cv_ssh_kex_derive(t->kex, cv_slice_str(is_to_server ? "C" : "D"), t->session_id, key,
                      sizeof key);
    struct cv_status status = cv_ssh_cipher_init(cipher, def, is_sealing, key, iv);
    cv_wipe(key, sizeof key);
    cv_wipe(iv, sizeof iv);
    return status;
}

static struct cv_status switch_sending(struct cv_ssh_transport *t)
{
    struct cv_ssh_cipher sealing;
    struct cv_status status = make_cipher(t, t->is_client, true, &sealing);
    if (!cv_is_ok(status))
        return status;
    cv_ssh_cipher_done(&t->send.cipher);
    t->send.cipher = sealing;
    t->send.bytes = 0;
    t->send.packets = 0;
    if (t->is_strict)
        t->send.sequence = 0;
    t->send.has_zlib =
        t->is_client ? t->kex->choice.has_zlib_to_server : t->kex->choice.has_zlib_to_client;
    return cv_ssh_transport_is(t, PHASE_OPEN) ? cv_ssh_transport_zlib_send(t) : cv_ok();
}

/* K and H are there and, at the client, the host is who it should be. */
static struct cv_status keys_ready(struct cv_ssh_transport *t)
{
    static const uint8_t newkeys[] = {CV_SSH_MSG_NEWKEYS};
    struct cv_ssh_kex *kex = t->kex;
    bool is_first = !t->has_session;
    if (is_first) {
        memcpy(t->session_id, kex->hash, sizeof t->session_id);
        cv_ssh_kex_derive(kex, cv_slice_str("culvert"), t->session_id, t->exporter,
                          sizeof t->exporter);
        t->has_session = true;
    }
    CV_RETURN_IF_ERROR(cv_ssh_transport_send_own(t, cv_slice(newkeys, sizeof newkeys)));
    struct cv_status status = make_cipher(t, !t->is_client, false, &t->recv_next);
    if (cv_is_ok(status))
        status = switch_sending(t);
    if (!cv_is_ok(status))
        return cv_ssh_transport_fail(t, status.id, "cannot set up the new keys");
    cv_fsm_set(&t->stage, STAGE_NEWKEYS);
    t->is_kex_done = cv_ssh_transport_is(t, PHASE_OPEN);
    return is_first && t->is_client ? cv_ssh_transport_auth_start(t) : cv_ok();
}

static struct cv_status finish(struct cv_ssh_transport *t, struct cv_slice peer_share,
                               struct cv_slice host_blob)
{
    struct cv_ssh_kex_parties parties = {.is_client = t->is_client,
                                         .own_version = own_version(t),
                                         .peer_version = peer_version(t),
                                         .host_blob = host_blob};
    struct cv_status status = cv_ssh_kex_finish(t->kex, peer_share, &parties);
    return cv_is_ok(status) ? status
                            : cv_ssh_transport_fail(t, status.id, "the peer's key share is bad");
}

/* Server: the client's share. */
static struct cv_status on_init(struct cv_ssh_transport *t, struct cv_ssh_reader *r)
{
    struct cv_slice share, blob = cv_ssh_host_key_blob(t->host_key);
    uint8_t signature[CV_SSH_HOST_KEY_SIGNATURE_LEN], payload[256];
    if (!cv_ssh_read_string(r, &share) || !cv_ssh_reader_is_done(r))
        return cv_ssh_transport_fail(t, CV_SSH_PROTOCOL, "malformed key share");
    struct cv_status status = cv_ssh_kex_make_share(t->kex);
    if (!cv_is_ok(status))
        return cv_ssh_transport_fail(t, status.id, "cannot make a key share");
    CV_RETURN_IF_ERROR(finish(t, share, blob));
    status =
        cv_ssh_host_key_sign(t->host_key, cv_slice(t->kex->hash, sizeof t->kex->hash), signature);
    if (!cv_is_ok(status))
        return cv_ssh_transport_fail(t, status.id, "cannot sign");
    struct cv_ssh_writer w = cv_ssh_writer(payload, sizeof payload);
    cv_ssh_write_u8(&w, CV_SSH_MSG_KEX_ECDH_REPLY);
    cv_ssh_write_string(&w, blob);
    cv_ssh_write_string(&w, cv_slice(t->kex->share, sizeof t->kex->share));
    cv_ssh_write_string(&w, cv_slice(signature, sizeof signature));
    CV_RETURN_IF_ERROR(cv_ssh_transport_send_own(t, cv_ssh_written(&w)));
    return keys_ready(t);
}

/* Client: the server's share, key and signature. */
static struct cv_status on_reply(struct cv_ssh_transport *t, struct cv_ssh_reader *r,
                                 struct cv_ssh_packet *packet, bool *has_packet)
{
    struct cv_slice blob, share, signature;
    if (!cv_ssh_read_string(r, &blob) || !cv_ssh_read_string(r, &share) ||
        !cv_ssh_read_string(r, &signature) || !cv_ssh_reader_is_done(r))
        return cv_ssh_transport_fail(t, CV_SSH_PROTOCOL, "malformed key exchange reply");
    CV_RETURN_IF_ERROR(finish(t, share, blob));
    if (blob.len != sizeof t->host_blob ||
        !cv_ssh_host_key_verify(blob, cv_slice(t->kex->hash, sizeof t->kex->hash), signature))
        return cv_ssh_transport_fail(t, CV_SSH_KEX_FAILED, "the host's signature is wrong");
    if (t->has_session) {
        if (!cv_slice_equal(blob, cv_slice(t->host_blob, sizeof t->host_blob)))
            return cv_ssh_transport_fail(t, CV_HOST_KEY, "another host key in the same session");
        return keys_ready(t);
    }
    memcpy(t->host_blob, blob.data, sizeof t->host_blob);
    *packet = (struct cv_ssh_packet){.kind = CV_SSH_PACKET_HOST_KEY,
                                     .blob = cv_slice(t->host_blob, sizeof t->host_blob)};
    cv_ssh_host_key_fingerprint(packet->blob, packet->fingerprint);
    *has_packet = true;
    cv_fsm_set(&t->stage, STAGE_HOST_KEY);
    return cv_ok();
}

void cv_ssh_transport_accept_host_key(struct cv_ssh_transport *t, bool is_accepted)
{
    if (cv_ssh_transport_is(t, PHASE_CLOSED) || !cv_ssh_transport_is_at(t, STAGE_HOST_KEY))
        return;
    if (is_accepted)
        (void)keys_ready(t);
    else
        (void)cv_ssh_transport_fail(t, CV_HOST_KEY, "the host key was not accepted");
}

static struct cv_status on_newkeys(struct cv_ssh_transport *t)
{
    cv_ssh_cipher_done(&t->recv.cipher);
    t->recv.cipher = t->recv_next;
    cv_ssh_cipher_init_clear(&t->recv_next);
    t->recv.bytes = 0;
    t->recv.packets = 0;
    if (t->is_strict)
        t->recv.sequence = 0;
    t->recv.has_zlib =
        t->is_client ? t->kex->choice.has_zlib_to_client : t->kex->choice.has_zlib_to_server;
    cv_ssh_kex_done(t->kex);
    free(t->kex);
    t->kex = NULL;
    t->kex_count++;
    t->kex_due_ms = UINT64_MAX;
    t->rekey_due_ms = t->now_ms + t->rekey_ms;
    cv_fsm_set(&t->stage, STAGE_IDLE);
    if (cv_ssh_transport_is(t, PHASE_KEX))
        cv_fsm_set(&t->phase, PHASE_AUTH);
    struct cv_status status =
        cv_ssh_transport_is(t, PHASE_OPEN) ? cv_ssh_transport_zlib_recv(t) : cv_ok();
    return cv_is_ok(status) ? status : cv_ssh_transport_fail(t, status.id, "no compression");
}

struct cv_status cv_ssh_transport_kex_message(struct cv_ssh_transport *t, struct cv_slice payload,
                                              struct cv_ssh_packet *packet, bool *has_packet)
{
    struct cv_ssh_reader r = cv_ssh_reader(payload);
    uint8_t number;
    (void)cv_ssh_read_u8(&r, &number);
    if (number == CV_SSH_MSG_KEXINIT)
        return on_kexinit(t, payload);
    if (number == CV_SSH_MSG_NEWKEYS) {
        if (!cv_ssh_transport_is_at(t, STAGE_NEWKEYS) || payload.len != 1)
            return cv_ssh_transport_fail(t, CV_SSH_PROTOCOL, "NEWKEYS out of order");
        return on_newkeys(t);
    }
    if (number >= CV_SSH_MSG_KEX_ECDH_INIT && cv_ssh_transport_is_at(t, STAGE_SHARES)) {
        if (t->skips_next) {
            t->skips_next = false;
            return cv_ok();
        }
        if (number == CV_SSH_MSG_KEX_ECDH_INIT && !t->is_client)
            return on_init(t, &r);
        if (number == CV_SSH_MSG_KEX_ECDH_REPLY && t->is_client)
            return on_reply(t, &r, packet, has_packet);
    }
    return cv_ssh_transport_fail(t, CV_SSH_PROTOCOL, "message %u out of order", number);
}
