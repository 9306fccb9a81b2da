/* SPDX-License-Identifier: MIT */
#include "proto/ssh/cipher.h"

#include "base/bytes.h"
#include "base/digest.h"

#include <openssl/core_names.h>
#include <openssl/crypto.h>

enum {
    PACKET_MIN = 16,
    LENGTH_LEN = 4,
    POLY_KEY_LEN = 32,
    CHACHA_KEY_LEN = 32,
    CHACHA_BLOCK = 64,
    CHACHA_IV = 16,
    COPY_MAX = 1024,
};

static const struct cv_ssh_cipher_def clear_def = {
    .name = "none", .kind = CV_SSH_CIPHER_CLEAR, .block = 8, .is_length_padded = true};

/* With AEAD the length field is outside the padded blocks: RFC 5647 §7.2 for GCM (16 bytes), and
 * 8 bytes for chacha20-poly1305@openssh.com. */
static const struct cv_ssh_cipher_def defs[] = {
    {"aes256-gcm@openssh.com", CV_SSH_CIPHER_GCM, EVP_aes_256_gcm, 32, 12, 16, 16, false},
    {"aes128-gcm@openssh.com", CV_SSH_CIPHER_GCM, EVP_aes_128_gcm, 16, 12, 16, 16, false},
    {"chacha20-poly1305@openssh.com", CV_SSH_CIPHER_CHACHA, EVP_chacha20, 64, 0, 16, 8, false},
};

const struct cv_ssh_cipher_def *cv_ssh_cipher_find(struct cv_slice name)
{
    for (size_t i = 0; i < sizeof defs / sizeof *defs; i++) {
        if (cv_slice_is(name, defs[i].name))
            return &defs[i];
    }
    return NULL;
}

void cv_ssh_cipher_init_clear(struct cv_ssh_cipher *cipher)
{
    *cipher = (struct cv_ssh_cipher){.def = &clear_def};
}

void cv_ssh_cipher_done(struct cv_ssh_cipher *cipher)
{
    EVP_CIPHER_CTX_free(cipher->main);
    EVP_CIPHER_CTX_free(cipher->header);
    EVP_MAC_CTX_free(cipher->mac);
    cv_wipe(cipher->iv, sizeof cipher->iv);
    cv_ssh_cipher_init_clear(cipher);
}

static EVP_MAC_CTX *poly1305_new(void)
{
    EVP_MAC *mac = EVP_MAC_fetch(NULL, "POLY1305", NULL);
    EVP_MAC_CTX *ctx = mac ? EVP_MAC_CTX_new(mac) : NULL;
    EVP_MAC_free(mac);
    return ctx;
}

struct cv_status cv_ssh_cipher_init(struct cv_ssh_cipher *cipher,
                                    const struct cv_ssh_cipher_def *def, bool is_sealing,
                                    const uint8_t *key, const uint8_t *iv)
{
    *cipher = (struct cv_ssh_cipher){.def = def, .is_sealing = is_sealing};
    cipher->main = EVP_CIPHER_CTX_new();
    if (!cipher->main)
        return cv_status(CV_NO_MEMORY);
    bool is_ok = EVP_CipherInit_ex(cipher->main, def->evp(), NULL, key, NULL, is_sealing) == 1;
    if (def->kind == CV_SSH_CIPHER_CHACHA) {
        cipher->header = EVP_CIPHER_CTX_new();
        cipher->mac = poly1305_new();
        is_ok = is_ok && cipher->header && cipher->mac &&
                EVP_CipherInit_ex(cipher->header, def->evp(), NULL, key + CHACHA_KEY_LEN, NULL,
                                  is_sealing) == 1;
    } else {
        memcpy(cipher->iv, iv, def->iv_len);
    }
    if (!is_ok) {
        cv_ssh_cipher_done(cipher);
        return cv_status(CV_INTERNAL);
    }
    return cv_ok();
}

size_t cv_ssh_cipher_padding(const struct cv_ssh_cipher_def *def, size_t payload_len)
{
    size_t len = 1 + payload_len + (def->is_length_padded ? LENGTH_LEN : 0);
    size_t padding = def->block - len % def->block;
    if (padding < 4)
        padding += def->block;
    /* RFC 4253 §6: a packet has 16 bytes at least, its length field among them. */
    return LENGTH_LEN + 1 + payload_len + padding < PACKET_MIN ? padding + def->block : padding;
}

bool cv_ssh_cipher_is_length(const struct cv_ssh_cipher_def *def, uint32_t packet_length,
                             uint32_t max)
{
    if (packet_length > max)
        return false;
    /* 16 bytes or more with the length field (RFC 4253 §6); but OpenSSH sends packets of twelve
     * under chacha20-poly1305. */
    size_t len = packet_length + (def->is_length_padded ? LENGTH_LEN : 0U);
    size_t min = def->is_length_padded ? PACKET_MIN : def->block;
    return len >= min && len % def->block == 0;
}

#ifdef CV_FUZZING

/* A fuzzer cannot guess tags: here every cipher leaves the bytes as they are. */
struct cv_status cv_ssh_cipher_length(struct cv_ssh_cipher *cipher, uint32_t sequence,
                                      const uint8_t head[4], uint32_t *packet_length)
{
    (void)cipher, (void)sequence;
    *packet_length = cv_get_u32(head);
    return cv_ok();
}

struct cv_status cv_ssh_cipher_seal(struct cv_ssh_cipher *cipher, uint32_t sequence,
                                    uint8_t *packet, size_t packet_length, size_t body_at,
                                    struct cv_slice body)
{
    (void)sequence;
    if (body.len)
        memcpy(packet + body_at, body.data, body.len);
    memset(packet + LENGTH_LEN + packet_length, 0, cipher->def->tag_len);
    return cv_ok();
}

struct cv_status cv_ssh_cipher_open(struct cv_ssh_cipher *cipher, uint32_t sequence,
                                    uint8_t *packet, size_t packet_length)
{
    (void)cipher, (void)sequence, (void)packet, (void)packet_length;
    return cv_ok();
}

#else

/* OpenSSL's ChaCha20 takes counter (64 bits, little-endian) and nonce as one; the nonce is the
 * sequence number as uint64. */
static bool chacha_start(EVP_CIPHER_CTX *ctx, uint32_t sequence)
{
    uint8_t iv[CHACHA_IV] = {0};
    cv_put_u64(iv + 8, sequence);
    return EVP_CipherInit_ex(ctx, NULL, NULL, NULL, iv, -1) == 1;
}

static bool run_cipher(EVP_CIPHER_CTX *ctx, uint8_t *out, const uint8_t *in, size_t len)
{
    int out_len;
    return len == 0 || EVP_CipherUpdate(ctx, out, &out_len, in, (int)len) == 1;
}

/* Starts the key stream of a packet and takes the Poly1305 key, its first block; the payload is
 * encrypted from the second block on. */
static bool chacha_main_start(struct cv_ssh_cipher *cipher, uint32_t sequence)
{
    uint8_t block[CHACHA_BLOCK] = {0};
    bool is_ok = chacha_start(cipher->main, sequence) &&
                 run_cipher(cipher->main, block, block, sizeof block) &&
                 EVP_MAC_init(cipher->mac, block, POLY_KEY_LEN, NULL) == 1;
    cv_wipe(block, sizeof block);
    return is_ok;
}

static bool poly1305(EVP_MAC_CTX *mac, const uint8_t *data, size_t len,
                     uint8_t tag[CV_SSH_CIPHER_TAG_LEN])
{
    size_t tag_len;
    return EVP_MAC_update(mac, data, len) == 1 &&
           EVP_MAC_final(mac, tag, &tag_len, CV_SSH_CIPHER_TAG_LEN) == 1;
}

/* RFC 5647 §7.1: the invocation counter, the last eight bytes, goes up by one a packet. */
static bool gcm_start(struct cv_ssh_cipher *cipher, const uint8_t *packet)
{
    int len;
    bool is_ok = EVP_CipherInit_ex(cipher->main, NULL, NULL, NULL, cipher->iv, -1) == 1 &&
                 EVP_CipherUpdate(cipher->main, NULL, &len, packet, LENGTH_LEN) == 1;
    cv_put_u64(cipher->iv + 4, cv_get_u64(cipher->iv + 4) + 1);
    return is_ok;
}

struct cv_status cv_ssh_cipher_length(struct cv_ssh_cipher *cipher, uint32_t sequence,
                                      const uint8_t head[4], uint32_t *packet_length)
{
    uint8_t plain[LENGTH_LEN];
    memcpy(plain, head, sizeof plain);
    if (cipher->def->kind == CV_SSH_CIPHER_CHACHA &&
        !(chacha_start(cipher->header, sequence) &&
          run_cipher(cipher->header, plain, plain, sizeof plain)))
        return cv_status(CV_INTERNAL);
    *packet_length = cv_get_u32(plain);
    return cv_ok();
}

struct cv_status cv_ssh_cipher_seal(struct cv_ssh_cipher *cipher, uint32_t sequence,
                                    uint8_t *packet, size_t packet_length, size_t body_at,
                                    struct cv_slice body)
{
    size_t end = LENGTH_LEN + packet_length;
    /* Each piece costs the library a few hundred instructions, a copy fewer. */
    if (body.len && body.len <= COPY_MAX) {
        memcpy(packet + body_at, body.data, body.len);
        body_at = end;
        body.len = 0;
    }
    size_t tail = body_at + body.len;
    uint8_t *tag = packet + end;
    bool is_ok = true;
    switch (cipher->def->kind) {
    case CV_SSH_CIPHER_CLEAR:
        if (body.len)
            memcpy(packet + body_at, body.data, body.len);
        return cv_ok();
    case CV_SSH_CIPHER_GCM:
        is_ok = gcm_start(cipher, packet);
        break;
    case CV_SSH_CIPHER_CHACHA:
        is_ok = chacha_start(cipher->header, sequence) &&
                run_cipher(cipher->header, packet, packet, LENGTH_LEN) &&
                chacha_main_start(cipher, sequence);
        break;
    }
    is_ok =
        is_ok &&
        run_cipher(cipher->main, packet + LENGTH_LEN, packet + LENGTH_LEN, body_at - LENGTH_LEN) &&
        run_cipher(cipher->main, packet + body_at, body.data, body.len) &&
        run_cipher(cipher->main, packet + tail, packet + tail, end - tail);
    if (cipher->def->kind == CV_SSH_CIPHER_GCM) {
        int len;
        is_ok = is_ok && EVP_CipherFinal_ex(cipher->main, tag, &len) == 1 &&
                EVP_CIPHER_CTX_ctrl(cipher->main, EVP_CTRL_AEAD_GET_TAG, CV_SSH_CIPHER_TAG_LEN,
                                    tag) == 1;
    } else {
        is_ok = is_ok && poly1305(cipher->mac, packet, end, tag);
    }
    return is_ok ? cv_ok() : cv_status(CV_INTERNAL);
}

static struct cv_status gcm_open(struct cv_ssh_cipher *cipher, uint8_t *packet,
                                 size_t packet_length)
{
    uint8_t *data = packet + LENGTH_LEN;
    uint8_t *tag = data + packet_length;
    int len;
    if (!gcm_start(cipher, packet) ||
        EVP_CIPHER_CTX_ctrl(cipher->main, EVP_CTRL_AEAD_SET_TAG, CV_SSH_CIPHER_TAG_LEN, tag) != 1 ||
        !run_cipher(cipher->main, data, data, packet_length))
        return cv_status(CV_INTERNAL);
    return EVP_CipherFinal_ex(cipher->main, tag, &len) == 1 ? cv_ok() : cv_status(CV_SSH_MAC);
}

static struct cv_status chacha_open(struct cv_ssh_cipher *cipher, uint32_t sequence,
                                    uint8_t *packet, size_t packet_length)
{
    uint8_t *data = packet + LENGTH_LEN;
    uint8_t tag[CV_SSH_CIPHER_TAG_LEN];
    if (!chacha_main_start(cipher, sequence) ||
        !poly1305(cipher->mac, packet, LENGTH_LEN + packet_length, tag))
        return cv_status(CV_INTERNAL);
    if (CRYPTO_memcmp(tag, data + packet_length, sizeof tag) != 0)
        return cv_status(CV_SSH_MAC);
    return run_cipher(cipher->main, data, data, packet_length) ? cv_ok() : cv_status(CV_INTERNAL);
}

struct cv_status cv_ssh_cipher_open(struct cv_ssh_cipher *cipher, uint32_t sequence,
                                    uint8_t *packet, size_t packet_length)
{
    switch (cipher->def->kind) {
    case CV_SSH_CIPHER_CLEAR:
        break;
    case CV_SSH_CIPHER_GCM:
        return gcm_open(cipher, packet, packet_length);
    case CV_SSH_CIPHER_CHACHA:
        return chacha_open(cipher, sequence, packet, packet_length);
    }
    return cv_ok();
}

#endif
