/* SPDX-License-Identifier: MIT
 *
 * No secret outlives its use: every block that is freed, by us (link option --wrap) or by the
 * crypto library (its memory functions are ours here), is searched for the session's keys, the
 * shared secret, the private halves of key shares, what links derive from, and the host key.
 */
#include "base/bytes.h"
#include "proto/ssh/transport_pair.h"
#include "proto/ssh/transport_private.h"

#include <malloc.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <stdlib.h>

enum { NEEDLES_MAX = 512, NEEDLE_LEN = 12 };

/* The beginning and the end of each secret; what was found of them. */
static struct {
    struct {
        uint8_t bytes[NEEDLE_LEN];
        const char *name;
    } needles[NEEDLES_MAX];
    size_t count;
    size_t found;
    size_t searched;
    bool rests; /* what the test does itself is not looked at */
} hunt;

static void add_needle(const char *name, const uint8_t *secret, size_t len)
{
    assert_true(hunt.count + 2 <= NEEDLES_MAX && len >= NEEDLE_LEN);
    for (size_t i = 0; i < 2; i++) {
        memcpy(hunt.needles[hunt.count].bytes, i ? secret + len - NEEDLE_LEN : secret, NEEDLE_LEN);
        hunt.needles[hunt.count++].name = name;
    }
}

static void search(const void *block)
{
    size_t len = block ? malloc_usable_size((void *)(uintptr_t)block) : 0;
    hunt.searched++;
    for (size_t i = 0; i < hunt.count && !hunt.rests; i++) {
        if (memmem(block, len, hunt.needles[i].bytes, NEEDLE_LEN)) {
            hunt.found++;
            (void)fprintf(stderr, "%s in a block of %zu bytes that is freed\n",
                          hunt.needles[i].name, len);
        }
    }
}

/* ---- allocators ---- */

void __real_free(void *block);
void __wrap_free(void *block);
void *__real_realloc(void *block, size_t size);
void *__wrap_realloc(void *block, size_t size);

void __wrap_free(void *block)
{
    if (block)
        search(block);
    __real_free(block);
}

/* May move, and then frees what was there. */
void *__wrap_realloc(void *block, size_t size)
{
    void *made = malloc(size);
    size_t had = block ? malloc_usable_size(block) : 0;
    if (made && block)
        memcpy(made, block, had < size ? had : size);
    if (made)
        __wrap_free(block);
    return made;
}

static void *crypto_malloc(size_t size, const char *file, int line)
{
    (void)file, (void)line;
    return malloc(size);
}

static void *crypto_realloc(void *block, size_t size, const char *file, int line)
{
    (void)file, (void)line;
    return __wrap_realloc(block, size);
}

static void crypto_free(void *block, const char *file, int line)
{
    (void)file, (void)line;
    __wrap_free(block);
}

/* ---- where the secrets are seen ---- */

void __real_cv_ssh_kex_derive(const struct cv_ssh_kex *kex, struct cv_slice label,
                              const uint8_t session_id[CV_SHA256_LEN], uint8_t *out, size_t len);
void __wrap_cv_ssh_kex_derive(const struct cv_ssh_kex *kex, struct cv_slice label,
                              const uint8_t session_id[CV_SHA256_LEN], uint8_t *out, size_t len);

void __wrap_cv_ssh_kex_derive(const struct cv_ssh_kex *kex, struct cv_slice label,
                              const uint8_t session_id[CV_SHA256_LEN], uint8_t *out, size_t len)
{
    uint8_t private_key[32];
    size_t private_len = sizeof private_key;
    __real_cv_ssh_kex_derive(kex, label, session_id, out, len);
    bool is_key = label.data[0] == 'C' || label.data[0] == 'D';
    if (is_key || cv_slice_is(label, "culvert"))
        add_needle(is_key ? "a key" : "the exporter", out, is_key ? 32 : len);
    add_needle("the shared secret", kex->secret + 4, kex->secret_len - 4);
    hunt.rests = true; /* OpenSSL 3.0 does not clear the copy that it exports by */
    assert_int_equal(EVP_PKEY_get_raw_private_key(kex->pair, private_key, &private_len), 1);
    hunt.rests = false;
    add_needle("a private share", private_key, sizeof private_key);
    cv_wipe(private_key, sizeof private_key);
}

static void note_host_key(const struct cv_ssh_host_key *key)
{
    /* The seed, out of the file that the key is written to. */
    struct cv_buf text;
    uint8_t binary[512];
    char base64[700];
    size_t len = 0, text_len = 0;
    cv_buf_init(&text, 4096);
    assert_ok(cv_ssh_host_key_format(key, &text));
    struct cv_slice rest = cv_buf_slice(&text);
    (void)cv_slice_split(&rest, '\n');
    while (rest.len && rest.data[0] != '-') {
        struct cv_slice line = cv_slice_split(&rest, '\n');
        assert_true(text_len + line.len < sizeof base64);
        memcpy(base64 + text_len, line.data, line.len);
        text_len += line.len;
    }
    assert_true(cv_base64_decode(cv_slice(base64, text_len), binary, &len));
    struct cv_slice blob = cv_ssh_host_key_blob(key);
    const uint8_t *last = NULL, *at = binary;
    while ((at = memmem(at, len - (size_t)(at - binary), blob.data + 19, 32)))
        last = at++;
    assert_non_null(last); /* the public half behind the secret one */
    add_needle("the host key", last - 32, 32);
    cv_buf_wipe(&text);
    cv_wipe(binary, sizeof binary);
    cv_wipe(base64, sizeof base64);
}

static void live(const char *ciphers, bool has_compression)
{
    struct cv_ssh_transport_options options = {
        .ciphers = ciphers, .rekey_bytes = 30000, .has_compression = has_compression};
    struct cv_ssh_pair pair;
    uint8_t derived[32];
    hunt.count = hunt.found = hunt.searched = 0;
    cv_ssh_pair_start_with(&pair, options, options);
    note_host_key(pair.key);
    cv_ssh_pair_establish(&pair);
    assert_true(cv_ssh_transport_derive(pair.client.t, "resume", derived));
    add_needle("a derived secret", derived, sizeof derived);
    cv_ssh_pair_exchange(&pair, 6, 10000);
    cv_ssh_transport_rekey(pair.server.t);
    cv_ssh_pair_exchange(&pair, 2, 100);
    /* One in the middle of an exchange. */
    cv_ssh_transport_rekey(pair.client.t);
    (void)cv_ssh_pair_carry(&pair, &pair.client, &pair.server);
    (void)cv_ssh_pair_carry(&pair, &pair.server, &pair.client);
    cv_ssh_pair_done(&pair);
    assert_true(hunt.searched > 100 && hunt.count > 50);
    assert_int_equal(hunt.found, 0);
}

static void the_search_finds_what_is_there(void **state)
{
    (void)state;
    uint8_t secret[32];
    hunt.count = hunt.found = 0;
    cv_random(secret, sizeof secret);
    add_needle("a secret", secret, sizeof secret);
    uint8_t *block = malloc(100);
    assert_non_null(block);
    memcpy(block + 33, secret, sizeof secret);
    __asm__ volatile("" : : "r"(block) : "memory"); /* or nothing is stored that nobody reads */
    free(block);
    block = OPENSSL_malloc(100);
    assert_non_null(block);
    memset(block, 0, 100);
    memcpy(block, secret + 20, NEEDLE_LEN);
    __asm__ volatile("" : : "r"(block) : "memory");
    OPENSSL_free(block);
    assert_int_equal(hunt.found, 3);
    hunt.count = 0;
}

static void nothing_is_left_of_a_session(void **state)
{
    (void)state;
    live("aes256-gcm@openssh.com", false);
    live("aes128-gcm@openssh.com", true);
    live("chacha20-poly1305@openssh.com", false);
}

/* As when a relay starts for the first time, and the next times. */
static void nothing_is_left_of_a_host_key(void **state)
{
    (void)state;
    struct cv_ssh_host_key *key, *again;
    struct cv_buf text;
    uint8_t signature[CV_SSH_HOST_KEY_SIGNATURE_LEN];
    hunt.count = hunt.found = 0;
    assert_ok(cv_ssh_host_key_generate(&key));
    note_host_key(key);
    cv_buf_init(&text, 4096);
    assert_ok(cv_ssh_host_key_format(key, &text));
    assert_ok(cv_ssh_host_key_parse(cv_buf_slice(&text), &again, NULL));
    assert_ok(cv_ssh_host_key_sign(again, cv_slice_str("data"), signature));
    cv_buf_wipe(&text);
    cv_ssh_host_key_free(&key);
    cv_ssh_host_key_free(&again);
    assert_int_equal(hunt.found, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_search_finds_what_is_there),
        cmocka_unit_test(nothing_is_left_of_a_session),
        cmocka_unit_test(nothing_is_left_of_a_host_key),
    };
    if (CRYPTO_set_mem_functions(crypto_malloc, crypto_realloc, crypto_free) != 1)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
