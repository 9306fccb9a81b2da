/* SPDX-License-Identifier: MIT
 *
 * One key exchange: what both sides offer (SSH_MSG_KEXINIT, RFC 4253 §7.1), what they agree on, and
 * curve25519-sha256 (RFC 8731) with the keys that come of it (RFC 4253 §7.2). Knows no packets and
 * no order of messages; transport_kex.c does.
 * Owns the secrets of the exchange, wiped by done. One thread at a time.
 */
#ifndef CV_SSH_KEX_H
#define CV_SSH_KEX_H

#include "base/buf.h"
#include "base/digest.h"
#include "proto/ssh/cipher.h"

/* A peer's KEXINIT that is longer is refused; those in use have 1 to 3 KiB. */
#define CV_SSH_KEXINIT_MAX 16384

#define CV_SSH_SHARE_LEN 32

struct cv_ssh_kex_offer {
    bool is_client;
    bool is_first; /* only the first offers strict key exchange */
    bool has_guess;
    bool has_compression;
    const char *ciphers;
};

struct cv_ssh_kex_choice {
    const struct cv_ssh_cipher_def *cipher_to_server, *cipher_to_client;
    bool has_zlib_to_server, has_zlib_to_client;
    bool is_peer_strict; /* its KEXINIT has the mark of strict key exchange */
    bool is_guess_right; /* both prefer the same key exchange and host key */
    bool has_peer_guess; /* it has sent its first message already */
};

struct cv_ssh_kex {
    struct cv_buf own_init, peer_init; /* both KEXINIT payloads */
    struct cv_ssh_kex_choice choice;
    EVP_PKEY *pair;
    uint8_t share[CV_SSH_SHARE_LEN];          /* own public value */
    uint8_t secret[4 + 1 + CV_SSH_SHARE_LEN]; /* K as mpint */
    size_t secret_len;
    uint8_t hash[CV_SHA256_LEN]; /* H */
    bool has_sent_share;
};

/* Caller's memory; cannot fail. done takes a zeroed struct. */
void cv_ssh_kex_init(struct cv_ssh_kex *kex);
void cv_ssh_kex_done(struct cv_ssh_kex *kex);

/* Puts an own KEXINIT with a fresh cookie into own_init. CV_NO_MEMORY. */
struct cv_status cv_ssh_kex_offer(struct cv_ssh_kex *kex, const struct cv_ssh_kex_offer *offer);

/* Reads peer_init and fills choice. CV_SSH_PROTOCOL for a malformed one, CV_SSH_KEX_FAILED when
 * there is nothing in common, with the kind of algorithm in *error. */
struct cv_status cv_ssh_kex_negotiate(struct cv_ssh_kex *kex, bool is_client,
                                      struct cv_error *error);

/* Makes pair and share. CV_INTERNAL. */
struct cv_status cv_ssh_kex_make_share(struct cv_ssh_kex *kex);

struct cv_ssh_kex_parties {
    bool is_client;
    struct cv_slice own_version, peer_version; /* identifications without line end */
    struct cv_slice host_blob;
};

/* From the peer's public value to K and H. CV_SSH_KEX_FAILED when the value is not 32 bytes or of
 * low order, so that the secret is zero (RFC 8731 §3). */
struct cv_status cv_ssh_kex_finish(struct cv_ssh_kex *kex, struct cv_slice peer_share,
                                   const struct cv_ssh_kex_parties *parties);

/* HASH(K || H || label || session_id), made longer as RFC 4253 §7.2 says; len is at most 64. */
void cv_ssh_kex_derive(const struct cv_ssh_kex *kex, struct cv_slice label,
                       const uint8_t session_id[CV_SHA256_LEN], uint8_t *out, size_t len);

#endif
