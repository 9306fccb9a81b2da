/* SPDX-License-Identifier: MIT
 *
 * The SSH-2 transport layer (RFC 4253) with user authentication by method `none` (RFC 4252 §5.2),
 * client and server, without I/O: bytes and the time go in, messages of the connection protocol
 * come out, and what is to be sent is appended, encrypted, to a buffer of the caller.
 *
 * Algorithms: key exchange curve25519-sha256 (RFC 8731, also under its @libssh.org name) with
 * strict key exchange; host key ssh-ed25519 (RFC 8709); ciphers aes256-gcm@openssh.com,
 * aes128-gcm@openssh.com (RFC 5647 as OpenSSH uses it) and chacha20-poly1305@openssh.com;
 * compression none, and zlib@openssh.com where it was asked for.
 *
 * Owns its keys (wiped), a copy of an incomplete packet, the compression state. Borrows the host
 * key and `out` for life. Limits: packets of CV_SSH_PACKET_MAX bytes, an identification of 255
 * bytes after at most 8 KiB of other lines, a key exchange message of 16 KiB, ignorable messages
 * per second, authentication tries, time to establish. One thread at a time; sessions are
 * independent.
 */
#ifndef CV_SSH_TRANSPORT_H
#define CV_SSH_TRANSPORT_H

#include "base/buf.h"
#include "proto/ssh/host_key.h"

/* The largest packet_length that is taken, and the largest payload that is sent (RFC 4253 §6.1). */
#define CV_SSH_PACKET_MAX 35000
#define CV_SSH_PAYLOAD_MAX 34000

/* What one packet adds to its payload at most: length, padding length, 4..19 of padding, tag. */
#define CV_SSH_PACKET_OVERHEAD 40

/* Room in `out` that is kept back. Own messages (key exchange, disconnect) may use all of it, other
 * control messages all but CV_SSH_RESERVE_OWN, channel data nothing of it. */
#define CV_SSH_RESERVE_OWN 4096
#define CV_SSH_RESERVE 16384

/* The smallest cap of `out` that is taken. */
#define CV_SSH_OUT_MIN 65536

/* The most that may be fed at once. */
#define CV_SSH_FEED_MAX (1U << 20)

enum cv_ssh_role { CV_SSH_CLIENT, CV_SSH_SERVER };

struct cv_ssh_transport_options {
    enum cv_ssh_role role;
    const struct cv_ssh_host_key *host_key; /* server only; borrowed */
    const char *ciphers;     /* names with commas, the preferred first; NULL: all, as above */
    const char *user;        /* client only, sent and without meaning; NULL: "culvert" */
    bool has_compression;    /* offer zlib@openssh.com before none */
    bool has_guess;          /* client only: send the key share with the first KEXINIT, which saves
                                a round trip with a relay of ours (RFC 4253 §7) */
    uint64_t rekey_bytes;    /* in either direction under one key; 0: 1 GiB; at least 4 KiB */
    uint64_t rekey_ms;       /* age of a key; 0: 1 h */
    uint32_t handshake_ms;   /* to establish, and for each later key exchange; 0: 30 s */
    uint32_t auth_tries_max; /* server only; 0: 6 */
};

enum cv_ssh_packet_kind {
    CV_SSH_PACKET_MESSAGE,  /* a connection protocol message (number 80..127); may also come while
                               a key exchange holds back what we send */
    CV_SSH_PACKET_HOST_KEY, /* client: answer with cv_ssh_transport_accept_host_key */
    CV_SSH_PACKET_ESTABLISHED, /* authenticated: the connection protocol may begin */
    CV_SSH_PACKET_KEX_DONE,    /* a later key exchange is over, can_send is true again */
    CV_SSH_PACKET_DISCONNECT,  /* the peer's SSH_MSG_DISCONNECT; CV_EOF follows */
};

/* Every slice is valid until the next call of feed or next. */
struct cv_ssh_packet {
    enum cv_ssh_packet_kind kind;
    struct cv_slice payload; /* MESSAGE: from the message number on, never empty */
    struct cv_slice blob;    /* HOST_KEY: public key in wire form */
    char fingerprint[CV_SSH_HOST_KEY_FINGERPRINT_SIZE]; /* HOST_KEY: "SHA256:…" */
    uint32_t reason;                                    /* DISCONNECT: RFC 4253 §11.1 */
    struct cv_slice text; /* DISCONNECT: the peer's words, any bytes, at most 255 */
};

struct cv_ssh_transport;

/* Starts a session at `now_ms`: the identification (and a KEXINIT) is in *out at once. NULL without
 * memory, when out's cap is under CV_SSH_OUT_MIN, when an option is out of range, names an unknown
 * cipher, or a server has no host key. Strings in *options are not kept. */
struct cv_ssh_transport *cv_ssh_transport_new(const struct cv_ssh_transport_options *options,
                                              struct cv_buf *out, uint64_t now_ms);

/* Wipes and frees; takes NULL and a pointer to NULL, leaves NULL. Sends nothing. */
void cv_ssh_transport_free(struct cv_ssh_transport **transport);

/* Hands in received bytes. They are borrowed, and decrypted in place, until next() has returned
 * CV_AGAIN or an error; call next() until it does, before the memory goes and before the next feed.
 * What next() left then is copied inside. CV_SSH_LIMIT when more is fed than CV_SSH_FEED_MAX at
 * once, or while cv_ssh_transport_wants_input() is false; the session has then failed. */
struct cv_status cv_ssh_transport_feed(struct cv_ssh_transport *transport, uint8_t *data,
                                       size_t len);

/* The next packet.
 *   CV_OK     *packet is filled.
 *   CV_AGAIN  nothing whole is left to read, or the session waits: for the answer to HOST_KEY, or
 *             for `out` to be drained, since a packet is taken only when the answer to it fits.
 *             Call again after either, with or without feeding more.
 *   CV_EOF    the peer has disconnected, or cv_ssh_transport_disconnect was called.
 *   CV_SSH_PROTOCOL, CV_SSH_KEX_FAILED, CV_SSH_MAC, CV_SSH_LIMIT, CV_HOST_KEY, CV_AUTH_FAILED,
 *   CV_CONN_TIMEOUT, CV_NO_MEMORY, CV_INTERNAL
 *             the session is over: SSH_MSG_DISCONNECT with the reason is in `out` if it could be
 *             sent, and every later call returns the same. cv_ssh_transport_error has the detail.
 */
struct cv_status cv_ssh_transport_next(struct cv_ssh_transport *transport, uint64_t now_ms,
                                       struct cv_ssh_packet *packet);

/* False while fed bytes would only be stored: the caller stops reading from the network. */
bool cv_ssh_transport_wants_input(const struct cv_ssh_transport *transport);

/* Answers CV_SSH_PACKET_HOST_KEY. It comes once, in the first key exchange; a later one with
 * another key fails by itself. Refusing ends the session with CV_HOST_KEY at the next call of
 * next(). */
void cv_ssh_transport_accept_host_key(struct cv_ssh_transport *transport, bool is_accepted);

/* False before ESTABLISHED, while a key exchange holds messages back (RFC 4253 §7.1), and after the
 * end. */
bool cv_ssh_transport_can_send(const struct cv_ssh_transport *transport);

/* How large a payload of channel data cv_ssh_transport_send takes now: 0 when can_send is false, at
 * most CV_SSH_PAYLOAD_MAX. */
size_t cv_ssh_transport_room(const struct cv_ssh_transport *transport);

/* Encrypts one message, `header` and `body` behind each other, straight into `out`. `body` may be
 * empty and must not lie in `out`. It may use the room that data leaves free; bulk data asks
 * cv_ssh_transport_room first.
 *   CV_AGAIN         can_send is false: nothing was sent, try again after KEX_DONE.
 *   CV_NO_RESOURCES  no room in `out`: nothing was sent.
 *   CV_INVALID       empty or larger than CV_SSH_PAYLOAD_MAX.
 *   CV_NO_MEMORY, CV_INTERNAL  the session has failed.
 * It may start a key exchange afterwards, so can_send may be false at the next call. */
struct cv_status cv_ssh_transport_send(struct cv_ssh_transport *transport, struct cv_slice header,
                                       struct cv_slice body);

/* The same with the payload built in place: begin returns where to write at most `payload_max`
 * bytes, NULL where send would refuse; end encrypts the first `payload_len` of them. Nothing else
 * may be called in between; not calling end drops the message. */
uint8_t *cv_ssh_transport_begin(struct cv_ssh_transport *transport, size_t payload_max);
struct cv_status cv_ssh_transport_end(struct cv_ssh_transport *transport, size_t payload_len);

/* Answers the MESSAGE that next() returned last with SSH_MSG_UNIMPLEMENTED (RFC 4253 §11.4); for
 * message numbers that the layer above does not know. Counted and limited like SSH_MSG_IGNORE. */
void cv_ssh_transport_unimplemented(struct cv_ssh_transport *transport);

/* Starts a key exchange unless one is under way. Before ESTABLISHED it does nothing. */
void cv_ssh_transport_rekey(struct cv_ssh_transport *transport);

/* Sends SSH_MSG_DISCONNECT (`text` is cut at 255 bytes) and ends the session; next() returns CV_EOF
 * from then on. Does nothing when it is over already. */
void cv_ssh_transport_disconnect(struct cv_ssh_transport *transport, uint32_t reason,
                                 const char *text);

/* When tick is to be called at the latest, in the clock of now_ms; UINT64_MAX for never. */
uint64_t cv_ssh_transport_deadline(const struct cv_ssh_transport *transport);

/* Does what is due: a key exchange by age, or the end when the peer is too slow, which next() then
 * reports as CV_CONN_TIMEOUT. */
void cv_ssh_transport_tick(struct cv_ssh_transport *transport, uint64_t now_ms);

/* Stops the clock of the session while there is no network under it, and lets it go on: deadlines
 * move by the time between, and a later key exchange under way has its whole time again, since some
 * of it passed before the loss was found. Both may be called again without effect. */
void cv_ssh_transport_pause(struct cv_ssh_transport *transport, uint64_t now_ms);
void cv_ssh_transport_resume(struct cv_ssh_transport *transport, uint64_t now_ms);

/* A secret that both sides have and nobody else, 32 bytes, other for each label and each session,
 * and not changed by later key exchanges: HMAC-SHA-256 of `label` under
 * HASH(K || H || "culvert" || session_id) of the first key exchange, which is how RFC 4253 §7.2
 * derives keys, with a label of its own. False before the first key exchange is over. */
bool cv_ssh_transport_derive(const struct cv_ssh_transport *transport, const char *label,
                             uint8_t out[32]);

/* For logs: why the session failed (one sentence, "" if it did not), the peer's identification
 * without line end ("" before it came), the cipher towards the peer ("" before the first keys).
 * Valid until free. */
const char *cv_ssh_transport_error(const struct cv_ssh_transport *transport);
const char *cv_ssh_transport_peer_version(const struct cv_ssh_transport *transport);
const char *cv_ssh_transport_cipher(const struct cv_ssh_transport *transport);

/* Finished key exchanges, the first included. */
uint32_t cv_ssh_transport_kex_count(const struct cv_ssh_transport *transport);

#endif
