/* SPDX-License-Identifier: MIT
 *
 * The inside of a transport session, shared by transport*.c and auth.c and nobody else.
 *
 * Phases:   IDENT ──▶ KEX ──▶ AUTH ──▶ OPEN        each ──▶ CLOSED
 * Stages of a key exchange, the first and later ones:
 *
 *   IDLE ──own KEXINIT sent──▶ INIT ──peer's KEXINIT──▶ SHARES ──K and H known──▶ NEWKEYS ──▶ IDLE
 *                                                          └──client, first──▶ HOST_KEY ──┘
 *
 * A peer's KEXINIT in IDLE is answered with an own one at once. From INIT until own NEWKEYS is sent
 * only messages of the key exchange go out (RFC 4253 §7.1); from SHARES until the peer's NEWKEYS
 * only such may come in, and in a later exchange those of the connection protocol.
 */
#ifndef CV_SSH_TRANSPORT_PRIVATE_H
#define CV_SSH_TRANSPORT_PRIVATE_H

#include "base/digest.h"
#include "base/fsm.h"
#include "proto/ssh/cipher.h"
#include "proto/ssh/compress.h"
#include "proto/ssh/kex.h"
#include "proto/ssh/numbers.h"
#include "proto/ssh/transport.h"
#include "proto/ssh/wire.h"

#include <stdarg.h>

enum cv_ssh_phase { PHASE_IDENT, PHASE_KEX, PHASE_AUTH, PHASE_OPEN, PHASE_CLOSED };
enum cv_ssh_stage { STAGE_IDLE, STAGE_INIT, STAGE_SHARES, STAGE_HOST_KEY, STAGE_NEWKEYS };

enum {
    VERSION_MAX = 255,       /* with line end, RFC 4253 §4.2 */
    LINES_BEFORE_MAX = 8192, /* what a server may say before its identification */
    KEX_ROOM = 2048,         /* own KEXINIT, or reply and NEWKEYS, or a disconnect, fit in */
    REPLY_ROOM = 2048,       /* what the layer above may answer to one packet */
    NOISE_BEFORE_OPEN_MAX = 32,
    NOISE_PER_SECOND_MAX = 1000,
    IDLE_KEX_BURST = 16, /* key exchanges without data between them; one more each second */
    IDLE_KEX_BYTES = 4096,
    PADDING_POOL = 256,
    PACKET_ALL = 4 + CV_SSH_PACKET_MAX + CV_SSH_CIPHER_TAG_LEN, /* with length field and tag */
};

/* One direction of the connection. */
struct cv_ssh_direction {
    struct cv_ssh_cipher cipher;
    struct cv_ssh_zlib *zlib; /* NULL while payloads are not compressed */
    bool has_zlib;            /* negotiated; starts with authentication */
    uint32_t sequence;        /* of the next packet, RFC 4253 §6.4 */
    uint64_t bytes;           /* under the present key */
    uint64_t packets;
};

struct cv_ssh_transport {
    bool is_client;
    bool has_compression;
    bool has_guess;
    const struct cv_ssh_host_key *host_key;
    struct cv_buf *out;
    char ciphers[128];
    char user[64];
    uint64_t rekey_bytes, rekey_ms;
    uint32_t handshake_ms;
    uint32_t auth_tries_max;

    struct cv_fsm phase;
    struct cv_fsm stage;
    enum cv_status_id end; /* why CLOSED; CV_EOF after a disconnect in order */
    struct cv_error error;

    uint64_t now_ms;
    uint64_t handshake_due_ms;
    uint64_t kex_due_ms;   /* of a later exchange; 0: to be set when the time is known */
    uint64_t rekey_due_ms; /* by age of the keys */
    uint64_t paused_ms;
    bool is_paused;

    /* Input: `in` holds what was left over from earlier, `fed` is borrowed. */
    struct cv_buf in;
    uint8_t *fed;
    size_t fed_len;
    size_t taken_len;       /* of the packet that was returned last, dropped by the next call */
    uint32_t packet_length; /* of the packet that is coming in, 0 while not known */
    uint32_t packet_sequence;
    uint8_t *inflated; /* CV_SSH_PACKET_MAX bytes while compression is on */
    bool was_in_used;

    struct cv_ssh_direction send, recv;
    uint8_t *plain; /* where begin builds payloads that are compressed */
    size_t begun_max;
    uint8_t padding[PADDING_POOL];
    size_t padding_used;

    struct cv_ssh_kex *kex; /* while stage is not IDLE */
    struct cv_ssh_cipher recv_next;
    bool is_strict;  /* agreed in the first exchange, for good */
    bool skips_next; /* the peer's first message was a wrong guess */
    bool wants_rekey;
    bool is_kex_done; /* to be told */
    bool has_session; /* the first exchange gave session_id and exporter */
    uint32_t kex_count;
    uint32_t idle_kex;
    uint64_t idle_kex_ms;
    uint8_t session_id[CV_SHA256_LEN];
    uint8_t exporter[CV_SHA256_LEN];
    uint8_t host_blob[CV_SSH_HOST_KEY_BLOB_LEN];

    char own_version[64];
    char peer_version[VERSION_MAX + 1];
    size_t peer_version_len;
    size_t lines_before;

    bool has_service;
    uint32_t auth_tries;
    uint32_t noise;
    uint64_t noise_ms;
};

static inline bool cv_ssh_transport_is(const struct cv_ssh_transport *t, enum cv_ssh_phase phase)
{
    return t->phase.state == phase;
}

static inline bool cv_ssh_transport_is_at(const struct cv_ssh_transport *t, enum cv_ssh_stage stage)
{
    return t->stage.state == stage;
}

/* transport_out.c */

/* Ends the session: sends SSH_MSG_DISCONNECT with the reason that belongs to `id`, keeps the detail
 * and returns the status; later calls keep the first one. */
__attribute__((format(printf, 3, 4))) struct cv_status
cv_ssh_transport_fail(struct cv_ssh_transport *t, enum cv_status_id id, const char *format, ...);

/* Ends it without a word. */
void cv_ssh_transport_close(struct cv_ssh_transport *t, enum cv_status_id id);

/* Sends a message of this layer, which may use all of `out`. Failing ends the session. */
struct cv_status cv_ssh_transport_send_own(struct cv_ssh_transport *t, struct cv_slice payload);

/* Starts the compression that was negotiated, or starts it anew under a new key. */
struct cv_status cv_ssh_transport_zlib_send(struct cv_ssh_transport *t);
struct cv_status cv_ssh_transport_zlib_recv(struct cv_ssh_transport *t);

/* transport_ident.c: takes one byte of the identification exchange; CV_OK when the line was the
 * peer's identification, CV_AGAIN for more. */
struct cv_status cv_ssh_transport_ident(struct cv_ssh_transport *t, uint8_t byte);

/* transport_kex.c */

/* Starts an exchange of our own. Needs KEX_ROOM in `out` and stage IDLE. */
struct cv_status cv_ssh_transport_kex_start(struct cv_ssh_transport *t);

/* Starts one when keys are used up and nothing is in the way. Failing ends the session, which the
 * next call of next() reports. */
void cv_ssh_transport_kex_if_due(struct cv_ssh_transport *t);

/* A message 20..49. Fills *packet and *has_packet when the caller is to be asked for the host key.
 */
struct cv_status cv_ssh_transport_kex_message(struct cv_ssh_transport *t, struct cv_slice payload,
                                              struct cv_ssh_packet *packet, bool *has_packet);

/* Whether the peer may send nothing but messages of the key exchange now. */
bool cv_ssh_transport_is_peer_in_kex(const struct cv_ssh_transport *t);

/* auth.c: a message 5..6 or 50..79; *is_established when it completes the authentication. */
struct cv_status cv_ssh_transport_auth_message(struct cv_ssh_transport *t, struct cv_slice payload,
                                               bool *is_established);

/* Client: asks for the service and for authentication, without waiting in between. */
struct cv_status cv_ssh_transport_auth_start(struct cv_ssh_transport *t);

/* transport.c: counts a message that carries nothing; fails above the limits. */
struct cv_status cv_ssh_transport_noise(struct cv_ssh_transport *t);

#endif
