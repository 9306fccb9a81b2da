/* SPDX-License-Identifier: MIT
 *
 * Over a life with many key exchanges: no packet is ever sealed with a nonce that its key has seen,
 * counters go up by one, sequence numbers start over exactly where strict key exchange says so.
 * Looks over the shoulder of cipher.c (link option --wrap).
 */
#include "base/bytes.h"
#include "proto/ssh/transport_pair.h"
#include "proto/ssh/transport_private.h"

enum { SEALED_MAX = 8192 };

struct sealed {
    const void *direction; /* the cipher of one side */
    uint32_t generation;   /* of its key */
    uint8_t nonce[12];
    uint32_t sequence;
};

/* What the wrapped functions see; the test program's own. */
static struct {
    struct sealed packets[SEALED_MAX];
    size_t count;
    uint8_t keys[256][32];
    size_t key_count;
} seen;

struct cv_status __real_cv_ssh_cipher_init(struct cv_ssh_cipher *cipher,
                                           const struct cv_ssh_cipher_def *def, bool is_sealing,
                                           const uint8_t *key, const uint8_t *iv);
struct cv_status __wrap_cv_ssh_cipher_init(struct cv_ssh_cipher *cipher,
                                           const struct cv_ssh_cipher_def *def, bool is_sealing,
                                           const uint8_t *key, const uint8_t *iv);
struct cv_status __real_cv_ssh_cipher_seal(struct cv_ssh_cipher *cipher, uint32_t sequence,
                                           uint8_t *packet, size_t packet_length, size_t body_at,
                                           struct cv_slice body);
struct cv_status __wrap_cv_ssh_cipher_seal(struct cv_ssh_cipher *cipher, uint32_t sequence,
                                           uint8_t *packet, size_t packet_length, size_t body_at,
                                           struct cv_slice body);

struct cv_status __wrap_cv_ssh_cipher_init(struct cv_ssh_cipher *cipher,
                                           const struct cv_ssh_cipher_def *def, bool is_sealing,
                                           const uint8_t *key, const uint8_t *iv)
{
    if (is_sealing) {
        assert_true(seen.key_count < sizeof seen.keys / sizeof *seen.keys);
        memset(seen.keys[seen.key_count], 0, 32);
        memcpy(seen.keys[seen.key_count++], key, def->key_len < 32 ? def->key_len : 32);
    }
    return __real_cv_ssh_cipher_init(cipher, def, is_sealing, key, iv);
}

struct cv_status __wrap_cv_ssh_cipher_seal(struct cv_ssh_cipher *cipher, uint32_t sequence,
                                           uint8_t *packet, size_t packet_length, size_t body_at,
                                           struct cv_slice body)
{
    if (cipher->def->kind != CV_SSH_CIPHER_CLEAR) {
        assert_true(seen.count < SEALED_MAX);
        struct sealed *sealed = &seen.packets[seen.count++];
        *sealed = (struct sealed){.direction = cipher, .sequence = sequence};
        const struct sealed *before = NULL;
        for (size_t i = seen.count - 1; i > 0 && !before; i--)
            before = seen.packets[i - 1].direction == cipher ? &seen.packets[i - 1] : NULL;
        const struct cv_ssh_transport *t =
            (const void *)((const char *)cipher - offsetof(struct cv_ssh_transport, send.cipher));
        /* The key is another one when the first packet under it goes out. */
        sealed->generation = (before ? before->generation : 0) + (t->send.packets == 0);
        if (cipher->def->kind == CV_SSH_CIPHER_GCM)
            memcpy(sealed->nonce, cipher->iv, sizeof sealed->nonce);
        else
            cv_put_u32(sealed->nonce + 8, sequence);
    }
    return __real_cv_ssh_cipher_seal(cipher, sequence, packet, packet_length, body_at, body);
}

/* Each packet against the one before it in its direction. */
static void check_order(bool is_gcm, bool is_strict)
{
    for (size_t i = 0; i < seen.count; i++) {
        const struct sealed *now = &seen.packets[i], *before = NULL;
        for (size_t k = i; k > 0 && !before; k--)
            before = seen.packets[k - 1].direction == now->direction ? &seen.packets[k - 1] : NULL;
        if (!before)
            continue;
        if (now->generation == before->generation) {
            assert_memory_equal(now->nonce, before->nonce, 4);
            assert_int_equal(cv_get_u64(now->nonce + 4), cv_get_u64(before->nonce + 4) + 1);
            assert_int_equal(now->sequence, before->sequence + 1);
        } else if (is_strict) {
            assert_int_equal(now->sequence, 0);
        } else {
            assert_int_equal(now->sequence, before->sequence + 1);
        }
        /* Under another key the IV is another one as well. */
        if (is_gcm && now->generation != before->generation)
            assert_memory_not_equal(now->nonce, before->nonce, 12);
    }
}

static void check_unique(void)
{
    for (size_t i = 0; i < seen.count; i++) {
        for (size_t k = 0; k < i; k++) {
            if (seen.packets[i].direction == seen.packets[k].direction &&
                seen.packets[i].generation == seen.packets[k].generation)
                assert_memory_not_equal(seen.packets[i].nonce, seen.packets[k].nonce, 12);
        }
    }
    for (size_t i = 0; i < seen.key_count; i++) {
        for (size_t k = 0; k < i; k++)
            assert_memory_not_equal(seen.keys[i], seen.keys[k], 32);
    }
}

static void live(const char *cipher, bool is_strict)
{
    struct cv_ssh_transport_options options = {.ciphers = cipher, .rekey_bytes = 20000};
    struct cv_ssh_pair pair;
    seen.count = seen.key_count = 0;
    cv_ssh_pair_start_with(&pair, options, options);
    cv_ssh_pair_establish(&pair);
    assert_true(pair.client.t->is_strict && pair.server.t->is_strict);
    pair.client.t->is_strict = pair.server.t->is_strict = is_strict;
    for (int i = 0; i < 12; i++) {
        cv_ssh_pair_exchange(&pair, 10, 500);
        cv_ssh_transport_rekey(i % 2 ? pair.client.t : pair.server.t);
        cv_ssh_pair_exchange(&pair, 2, 30000);
    }
    uint32_t count = cv_ssh_transport_kex_count(pair.client.t);
    assert_true(count > 20);
    assert_int_equal(seen.key_count, 2 * count); /* one a side and exchange */
    cv_ssh_pair_done(&pair);
    check_order(strstr(cipher, "gcm"), is_strict);
    check_unique();
}

static void gcm_nonces_never_repeat(void **state)
{
    (void)state;
    live("aes256-gcm@openssh.com", true);
    live("aes128-gcm@openssh.com", false);
}

static void chacha_nonces_never_repeat(void **state)
{
    (void)state;
    live("chacha20-poly1305@openssh.com", true);
    live("chacha20-poly1305@openssh.com", false);
}

/* RFC 4344 §3.1: keys are changed long before the sequence number is used up. */
static void keys_change_before_the_sequence_wraps(void **state)
{
    (void)state;
    struct cv_ssh_pair pair;
    cv_ssh_pair_start(&pair);
    cv_ssh_pair_establish(&pair);
    pair.client.t->send.packets = (1ULL << 31) - 1;
    pair.client.t->send.sequence = UINT32_MAX / 2;
    pair.server.t->recv.sequence = UINT32_MAX / 2;
    cv_ssh_pair_exchange(&pair, 3, 10);
    assert_int_equal(cv_ssh_transport_kex_count(pair.client.t), 2);
    assert_true(pair.client.t->send.sequence < 10);
    cv_ssh_pair_done(&pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gcm_nonces_never_repeat),
        cmocka_unit_test(chacha_nonces_never_repeat),
        cmocka_unit_test(keys_change_before_the_sequence_wraps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
