/* SPDX-License-Identifier: MIT
 *
 * Known answers: the vectors of RFC 7748 (by way of RFC 8731), RFC 8032 (by way of RFC 8709), and
 * what known_answers.py has worked out from RFC 4253, RFC 5647 and OpenSSH's documents.
 */
#include "base/test.h"
#include "proto/ssh/host_key.h"
#include "proto/ssh/kex.h"
#include "proto/ssh/known_answers.h"
#include "proto/ssh/wire.h"

#include <openssl/pem.h>

#define BYTES(array) cv_slice(array, sizeof array)

static void give_private(struct cv_ssh_kex *kex, const uint8_t private_key[32])
{
    size_t len = sizeof kex->share;
    cv_ssh_kex_init(kex);
    kex->pair = EVP_PKEY_new_raw_private_key(EVP_PKEY_X25519, NULL, private_key, 32);
    assert_non_null(kex->pair);
    assert_int_equal(EVP_PKEY_get_raw_public_key(kex->pair, kex->share, &len), 1);
}

static void expect_secret(const uint8_t private_key[32], struct cv_slice peer_share,
                          struct cv_slice mpint)
{
    struct cv_ssh_kex kex;
    const struct cv_ssh_kex_parties parties = {.is_client = true};
    give_private(&kex, private_key);
    assert_ok(cv_ssh_kex_finish(&kex, peer_share, &parties));
    assert_int_equal(kex.secret_len, mpint.len);
    assert_memory_equal(kex.secret, mpint.data, mpint.len);
    cv_ssh_kex_done(&kex);
}

/* RFC 7748 §6.1, with the length that makes K an mpint. */
static void x25519_agrees_as_rfc_7748_prints_it(void **state)
{
    (void)state;
    uint8_t alice[32], bob[32], public_key[32], secret[4 + 32] = {0, 0, 0, 32};
    static const char bob_hex[] =
        "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb";
    static const char alice_public_hex[] =
        "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a";
    static const char bob_public_hex[] =
        "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f";
    static const char secret_hex[] =
        "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742";
    assert_true(cv_hex_decode(cv_slice_str(bob_hex), bob, 32));
    assert_true(cv_hex_decode(cv_slice_str(alice_public_hex), alice, 32));
    assert_true(cv_hex_decode(cv_slice_str(bob_public_hex), public_key, 32));
    assert_true(cv_hex_decode(cv_slice_str(secret_hex), secret + 4, 32));
    struct cv_ssh_kex kex;
    give_private(&kex, bob);
    assert_memory_equal(kex.share, public_key, 32);
    cv_ssh_kex_done(&kex);
    expect_secret(bob, BYTES(alice), BYTES(secret));
}

/* RFC 8731 §3.1: the 32 bytes are a big-endian number; RFC 4251 §5 makes an mpint of it. */
static void secrets_lose_leading_zeros_and_keep_their_sign(void **state)
{
    (void)state;
    assert_int_equal(sizeof secret_high, 4 + 33);
    assert_int_equal(sizeof secret_zero, 4 + 31);
    assert_int_equal(sizeof secret_both, 4 + 32);
    expect_secret(own_private_high, BYTES(other_share), BYTES(secret_high));
    expect_secret(own_private_zero, BYTES(other_share), BYTES(secret_zero));
    expect_secret(own_private_both, BYTES(other_share), BYTES(secret_both));
}

/* RFC 8731 §3: a zero secret and a share of another length end it. */
static void shares_of_low_order_or_other_length_are_refused(void **state)
{
    (void)state;
    static const uint8_t low_order[][32] = {
        {0},
        {1},
        {0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3,
         0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32,
         0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00},
        {0xec, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
         0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
         0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f},
    };
    const struct cv_ssh_kex_parties parties = {.is_client = true};
    struct cv_ssh_kex kex;
    give_private(&kex, client_private);
    for (size_t i = 0; i < sizeof low_order / sizeof *low_order; i++)
        assert_status(cv_ssh_kex_finish(&kex, BYTES(low_order[i]), &parties), CV_SSH_KEX_FAILED);
    for (size_t len = 0; len < 32; len++)
        assert_status(cv_ssh_kex_finish(&kex, cv_slice(server_share, len), &parties),
                      CV_SSH_KEX_FAILED);
    uint8_t longer[33] = {9};
    assert_status(cv_ssh_kex_finish(&kex, BYTES(longer), &parties), CV_SSH_KEX_FAILED);
    cv_ssh_kex_done(&kex);
}

static void run_exchange(struct cv_ssh_kex *kex, bool is_client)
{
    const struct cv_slice client = cv_slice_str("SSH-2.0-client_1");
    const struct cv_slice server = cv_slice_str("SSH-2.0-server_2 words");
    const struct cv_ssh_kex_parties parties = {.is_client = is_client,
                                               .own_version = is_client ? client : server,
                                               .peer_version = is_client ? server : client,
                                               .host_blob = BYTES(host_blob)};
    give_private(kex, is_client ? client_private : server_private);
    assert_memory_equal(kex->share, is_client ? client_share : server_share, 32);
    assert_ok(
        cv_buf_append_slice(is_client ? &kex->own_init : &kex->peer_init, BYTES(client_init)));
    assert_ok(
        cv_buf_append_slice(is_client ? &kex->peer_init : &kex->own_init, BYTES(server_init)));
    assert_ok(
        cv_ssh_kex_finish(kex, is_client ? BYTES(server_share) : BYTES(client_share), &parties));
}

static void the_exchange_hash_is_that_of_rfc_5656(void **state)
{
    (void)state;
    for (int is_client = 0; is_client < 2; is_client++) {
        struct cv_ssh_kex kex;
        run_exchange(&kex, is_client);
        assert_memory_equal(kex.hash, exchange_hash, sizeof exchange_hash);
        cv_ssh_kex_done(&kex);
    }
}

/* RFC 4253 §7.2: six letters, six keys; longer ones by hashing what there is. */
static void keys_are_derived_as_rfc_4253_says(void **state)
{
    (void)state;
    static const struct {
        const char *letter;
        const uint8_t *key;
    } keys[] = {{"A", key_a}, {"B", key_b}, {"C", key_c}, {"D", key_d}, {"E", key_e}, {"F", key_f}};
    static const size_t lens[] = {1, 12, 16, 32, 33, 64};
    struct cv_ssh_kex kex;
    uint8_t out[64];
    run_exchange(&kex, true);
    for (size_t i = 0; i < 6; i++) {
        for (size_t k = 0; k < 6; k++) {
            cv_ssh_kex_derive(&kex, cv_slice_str(keys[i].letter), session_id, out, lens[k]);
            assert_memory_equal(out, keys[i].key, lens[k]);
        }
    }
    cv_ssh_kex_done(&kex);
}

/* Seals and opens packet `count` of the vectors; zero padding makes them repeatable. */
static void expect_packet(struct cv_ssh_cipher *sealing, struct cv_ssh_cipher *opening,
                          uint32_t sequence, size_t count, struct cv_slice want)
{
    uint8_t packet[256] = {0};
    size_t payload_len = 20 * count + 1;
    size_t padding = cv_ssh_cipher_padding(sealing->def, payload_len);
    size_t packet_length = 1 + payload_len + padding;
    assert_int_equal(4 + packet_length + sealing->def->tag_len, want.len);
    packet[3] = (uint8_t)packet_length;
    packet[4] = (uint8_t)padding;
    assert_ok(cv_ssh_cipher_seal(sealing, sequence, packet, packet_length, 5,
                                 cv_slice(payload_bytes, payload_len)));
    assert_memory_equal(packet, want.data, want.len);

    uint32_t len;
    assert_ok(cv_ssh_cipher_length(opening, sequence, packet, &len));
    assert_int_equal(len, packet_length);
    assert_ok(cv_ssh_cipher_open(opening, sequence, packet, len));
    assert_memory_equal(packet + 5, payload_bytes, payload_len);
}

static void expect_packets(const char *name, const uint8_t *key, const uint8_t *iv,
                           const uint32_t sequences[4], const struct cv_slice packets[4])
{
    const struct cv_ssh_cipher_def *def = cv_ssh_cipher_find(cv_slice_str(name));
    struct cv_ssh_cipher sealing, opening;
    assert_non_null(def);
    assert_ok(cv_ssh_cipher_init(&sealing, def, true, key, iv));
    assert_ok(cv_ssh_cipher_init(&opening, def, false, key, iv));
    for (size_t i = 0; i < 4; i++)
        expect_packet(&sealing, &opening, sequences[i], i, packets[i]);
    cv_ssh_cipher_done(&sealing);
    cv_ssh_cipher_done(&opening);
}

/* RFC 5647 §7.1: the fixed field stays, the counter goes up with each packet, over its end too; the
 * sequence number is not part of it. */
static void gcm_packets_are_sealed_as_rfc_5647_says(void **state)
{
    (void)state;
    static const uint32_t sequences[4] = {7, 7, 0, 99};
    const struct cv_slice short_key[4] = {BYTES(gcm128_0), BYTES(gcm128_1), BYTES(gcm128_2),
                                          BYTES(gcm128_3)};
    const struct cv_slice long_key[4] = {BYTES(gcm256_0), BYTES(gcm256_1), BYTES(gcm256_2),
                                         BYTES(gcm256_3)};
    expect_packets("aes128-gcm@openssh.com", gcm128_key, gcm128_iv, sequences, short_key);
    expect_packets("aes256-gcm@openssh.com", gcm256_key, gcm256_iv, sequences, long_key);
}

/* The nonce is the sequence number, whatever the order. */
static void chacha_packets_are_sealed_as_openssh_says(void **state)
{
    (void)state;
    static const uint32_t sequences[4] = {0, 1, 3, UINT32_MAX};
    const struct cv_slice packets[4] = {BYTES(chacha_0), BYTES(chacha_1), BYTES(chacha_2),
                                        BYTES(chacha_3)};
    expect_packets("chacha20-poly1305@openssh.com", chacha_key, NULL, sequences, packets);
}

/* RFC 4253 §6: without a cipher the length field is part of the blocks of eight, there is no tag,
 * and nothing is changed. */
static void clear_packets_are_as_rfc_4253_says(void **state)
{
    (void)state;
    struct cv_ssh_cipher cipher;
    cv_ssh_cipher_init_clear(&cipher);
    for (size_t len = 1; len < 300; len++) {
        size_t padding = cv_ssh_cipher_padding(cipher.def, len);
        assert_in_range(padding, 4, 11);
        assert_int_equal((4 + 1 + len + padding) % 8, 0);
        assert_true(cv_ssh_cipher_is_length(cipher.def, (uint32_t)(1 + len + padding), 35000));
    }
    uint8_t packet[16] = {0, 0, 0, 12, 10, 0}, want[16] = {0, 0, 0, 12, 10, 21};
    assert_ok(cv_ssh_cipher_seal(&cipher, 0, packet, 12, 5, cv_slice("\x15", 1)));
    assert_memory_equal(packet, want, sizeof want);
    assert_false(cv_ssh_cipher_is_length(cipher.def, 4, 35000));
    assert_false(cv_ssh_cipher_is_length(cipher.def, 13, 35000));
    assert_false(cv_ssh_cipher_is_length(cipher.def, 35004, 35000));
}

/* RFC 8032 §7.1, tests 1 to 3, in the wire form of RFC 8709 §4 and §6. */
static const struct {
    const char *seed, *public_key, *message, *signature;
} signatures[] = {
    {"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
     "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a", "",
     "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9"
     "b46bd25bf5f0595bbe24655141438e7a100b"},
    {"4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
     "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c", "72",
     "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f1"
     "1d8c387b2eaeb4302aeeb00d291612bb0c00"},
    {"c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
     "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025", "af82",
     "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984d"
     "c6594a7c15e9716ed28dc027beceea1ec40a"},
};

/* The host key of a seed, by way of the PKCS#8 file that RFC 8410 §7 makes of it. */
static struct cv_ssh_host_key *host_key_of(const char *seed_hex)
{
    uint8_t der[48] = {0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20};
    char base64[4 * ((sizeof der + 2) / 3) + 1], pem[256];
    struct cv_ssh_host_key *key;
    assert_true(cv_hex_decode(cv_slice_str(seed_hex), der + 16, 32));
    (void)cv_base64_encode(BYTES(der), base64);
    (void)snprintf(pem, sizeof pem, "-----BEGIN PRIVATE KEY-----\n%s\n-----END PRIVATE KEY-----\n",
                   base64);
    assert_ok(cv_ssh_host_key_parse(cv_slice_str(pem), &key, NULL));
    return key;
}

static void host_keys_sign_as_rfc_8032_prints_it(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof signatures / sizeof *signatures; i++) {
        struct cv_ssh_host_key *key = host_key_of(signatures[i].seed);
        uint8_t blob[51] = "\0\0\0\x0bssh-ed25519\0\0\0\x20";
        uint8_t want[83] = "\0\0\0\x0bssh-ed25519\0\0\0\x40";
        uint8_t message[2], got[CV_SSH_HOST_KEY_SIGNATURE_LEN];
        size_t len = strlen(signatures[i].message) / 2;
        assert_true(cv_hex_decode(cv_slice_str(signatures[i].public_key), blob + 19, 32));
        assert_true(cv_hex_decode(cv_slice_str(signatures[i].signature), want + 19, 64));
        assert_true(cv_hex_decode(cv_slice_str(signatures[i].message), message, len));
        assert_int_equal(cv_ssh_host_key_blob(key).len, sizeof blob);
        assert_memory_equal(cv_ssh_host_key_blob(key).data, blob, sizeof blob);
        assert_ok(cv_ssh_host_key_sign(key, cv_slice(message, len), got));
        assert_memory_equal(got, want, sizeof want);
        assert_true(cv_ssh_host_key_verify(BYTES(blob), cv_slice(message, len), BYTES(want)));
        cv_ssh_host_key_free(&key);
    }
}

static void fingerprints_are_sha256_in_base64_without_padding(void **state)
{
    (void)state;
    struct cv_ssh_host_key *key = host_key_of(signatures[0].seed);
    char text[CV_SSH_HOST_KEY_FINGERPRINT_SIZE];
    cv_ssh_host_key_fingerprint(cv_ssh_host_key_blob(key), text);
    assert_string_equal(text, FINGERPRINT_1);
    cv_ssh_host_key_free(&key);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(x25519_agrees_as_rfc_7748_prints_it),
        cmocka_unit_test(secrets_lose_leading_zeros_and_keep_their_sign),
        cmocka_unit_test(shares_of_low_order_or_other_length_are_refused),
        cmocka_unit_test(the_exchange_hash_is_that_of_rfc_5656),
        cmocka_unit_test(keys_are_derived_as_rfc_4253_says),
        cmocka_unit_test(gcm_packets_are_sealed_as_rfc_5647_says),
        cmocka_unit_test(chacha_packets_are_sealed_as_openssh_says),
        cmocka_unit_test(clear_packets_are_as_rfc_4253_says),
        cmocka_unit_test(host_keys_sign_as_rfc_8032_prints_it),
        cmocka_unit_test(fingerprints_are_sha256_in_base64_without_padding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
