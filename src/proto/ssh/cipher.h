/* SPDX-License-Identifier: MIT
 *
 * Packet protection for one direction under one key: the AEAD ciphers of OpenSSH, and the clear
 * form that a connection starts with. OpenSSL contexts are made once per key; a packet only changes
 * the nonce, so sealing and opening take no memory.
 *
 *   packet   uint32 packet_length | byte padding_length | payload | padding | tag
 *   AES-GCM (RFC 5647 as OpenSSH uses it): the length is clear and authenticated, the nonce is four
 *            fixed bytes and a counter of packets.
 *   ChaCha20-Poly1305 (OpenSSH's PROTOCOL.chacha20poly1305): the length is encrypted under a key of
 *            its own, the tag covers the ciphertext, the nonce is the sequence number.
 *
 * Owns its key material, wiped by done. One thread at a time.
 */
#ifndef CV_SSH_CIPHER_H
#define CV_SSH_CIPHER_H

#include "base/slice.h"
#include "base/status.h"

#include <openssl/evp.h>

enum { CV_SSH_CIPHER_KEY_MAX = 64, CV_SSH_CIPHER_IV_MAX = 12, CV_SSH_CIPHER_TAG_LEN = 16 };

enum cv_ssh_cipher_kind { CV_SSH_CIPHER_CLEAR, CV_SSH_CIPHER_GCM, CV_SSH_CIPHER_CHACHA };

struct cv_ssh_cipher_def {
    const char *name;
    enum cv_ssh_cipher_kind kind;
    const EVP_CIPHER *(*evp)(void);
    uint8_t key_len;
    uint8_t iv_len;
    uint8_t tag_len;
    uint8_t block;         /* what the length of a packet is a multiple of (RFC 4253 §6) */
    bool is_length_padded; /* the length field counts for that; not with AEAD */
};

/* All names in order of preference, with commas. */
#define CV_SSH_CIPHERS "aes256-gcm@openssh.com,aes128-gcm@openssh.com,chacha20-poly1305@openssh.com"

/* NULL when there is none of that name. */
const struct cv_ssh_cipher_def *cv_ssh_cipher_find(struct cv_slice name);

struct cv_ssh_cipher {
    const struct cv_ssh_cipher_def *def;
    EVP_CIPHER_CTX *main;
    EVP_CIPHER_CTX *header; /* ChaCha20 only: for the length */
    EVP_MAC_CTX *mac;       /* ChaCha20 only: Poly1305 */
    uint8_t iv[CV_SSH_CIPHER_IV_MAX];
    bool is_sealing;
};

/* The clear form. Cannot fail. */
void cv_ssh_cipher_init_clear(struct cv_ssh_cipher *cipher);

/* For packets that are sealed, or opened. `key` and `iv` have the lengths of `def` and are not
 * kept. CV_INTERNAL or CV_NO_MEMORY; nothing is to be freed then. */
struct cv_status cv_ssh_cipher_init(struct cv_ssh_cipher *cipher,
                                    const struct cv_ssh_cipher_def *def, bool is_sealing,
                                    const uint8_t *key, const uint8_t *iv);

/* Frees and wipes; it is the clear form afterwards. Takes a zeroed struct. */
void cv_ssh_cipher_done(struct cv_ssh_cipher *cipher);

/* How long the padding of a packet with `payload_len` bytes is: 4 or more, so that the whole is a
 * multiple of the block, and 16 bytes at least (RFC 4253 §6). */
size_t cv_ssh_cipher_padding(const struct cv_ssh_cipher_def *def, size_t payload_len);

/* Whether a packet may have this packet_length at all: a block or more, whole blocks, at most
 * `max`. */
bool cv_ssh_cipher_is_length(const struct cv_ssh_cipher_def *def, uint32_t packet_length,
                             uint32_t max);

/* The packet_length of the packet whose first four bytes are `head`, not yet authenticated. */
struct cv_status cv_ssh_cipher_length(struct cv_ssh_cipher *cipher, uint32_t sequence,
                                      const uint8_t head[4], uint32_t *packet_length);

/* Encrypts `packet` in place: four bytes of length, then `packet_length` bytes, then room for the
 * tag, which is written. The plain bytes from `body_at` on are not there but in `body`, which must
 * not overlap; this saves the copy of bulk data. */
struct cv_status cv_ssh_cipher_seal(struct cv_ssh_cipher *cipher, uint32_t sequence,
                                    uint8_t *packet, size_t packet_length, size_t body_at,
                                    struct cv_slice body);

/* Checks the tag and decrypts `packet` in place behind its first four bytes, which stay as they
 * came. CV_SSH_MAC when it was changed on the way; its content is undefined then. */
struct cv_status cv_ssh_cipher_open(struct cv_ssh_cipher *cipher, uint32_t sequence,
                                    uint8_t *packet, size_t packet_length);

#endif
