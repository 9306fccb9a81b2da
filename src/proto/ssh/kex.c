/* SPDX-License-Identifier: MIT */
#include "proto/ssh/kex.h"

#include "proto/ssh/numbers.h"
#include "proto/ssh/wire.h"

#include <assert.h>

enum { COOKIE_LEN = 16, LIST_COUNT = 10, OWN_INIT_MAX = 1024 };

/* The ten name-lists of KEXINIT in their order. */
enum kex_list {
    LIST_KEX,
    LIST_HOST_KEY,
    LIST_CIPHER_TO_SERVER,
    LIST_CIPHER_TO_CLIENT,
    LIST_MAC_TO_SERVER,
    LIST_MAC_TO_CLIENT,
    LIST_COMPRESSION_TO_SERVER,
    LIST_COMPRESSION_TO_CLIENT,
    LIST_LANGUAGE_TO_SERVER,
    LIST_LANGUAGE_TO_CLIENT,
};

#define KEX_NAMES "curve25519-sha256,curve25519-sha256@libssh.org"
#define STRICT_CLIENT "kex-strict-c-v00@openssh.com"
#define STRICT_SERVER "kex-strict-s-v00@openssh.com"
#define ZLIB "zlib@openssh.com"

/* Every cipher here authenticates by itself, so no MAC is ever chosen or used; there are peers that
 * refuse an empty list all the same. */
#define MAC_NAMES "hmac-sha2-256-etm@openssh.com,hmac-sha2-256"

void cv_ssh_kex_init(struct cv_ssh_kex *kex)
{
    *kex = (struct cv_ssh_kex){0};
    cv_buf_init(&kex->own_init, CV_SSH_KEXINIT_MAX);
    cv_buf_init(&kex->peer_init, CV_SSH_KEXINIT_MAX);
}

void cv_ssh_kex_done(struct cv_ssh_kex *kex)
{
    cv_buf_done(&kex->own_init);
    cv_buf_done(&kex->peer_init);
    EVP_PKEY_free(kex->pair);
    cv_wipe(kex, sizeof *kex);
}

struct cv_status cv_ssh_kex_offer(struct cv_ssh_kex *kex, const struct cv_ssh_kex_offer *offer)
{
    uint8_t data[OWN_INIT_MAX], cookie[COOKIE_LEN];
    const char *names = !offer->is_first   ? KEX_NAMES
                        : offer->is_client ? KEX_NAMES "," STRICT_CLIENT
                                           : KEX_NAMES "," STRICT_SERVER;
    const char *compression = offer->has_compression ? ZLIB ",none" : "none";
    cv_random(cookie, sizeof cookie);
    struct cv_ssh_writer w = cv_ssh_writer(data, sizeof data);
    cv_ssh_write_u8(&w, CV_SSH_MSG_KEXINIT);
    cv_ssh_write_bytes(&w, cv_slice(cookie, sizeof cookie));
    cv_ssh_write_str(&w, names);
    cv_ssh_write_str(&w, "ssh-ed25519");
    cv_ssh_write_str(&w, offer->ciphers);
    cv_ssh_write_str(&w, offer->ciphers);
    cv_ssh_write_str(&w, MAC_NAMES);
    cv_ssh_write_str(&w, MAC_NAMES);
    cv_ssh_write_str(&w, compression);
    cv_ssh_write_str(&w, compression);
    cv_ssh_write_str(&w, "");
    cv_ssh_write_str(&w, "");
    cv_ssh_write_bool(&w, offer->has_guess);
    cv_ssh_write_u32(&w, 0);
    return cv_buf_append_slice(&kex->own_init, cv_ssh_written(&w));
}

static bool read_kexinit(struct cv_slice payload, struct cv_slice lists[LIST_COUNT],
                         bool *has_guess)
{
    struct cv_ssh_reader r = cv_ssh_reader(payload);
    struct cv_slice head;
    uint32_t reserved;
    (void)cv_ssh_read_bytes(&r, 1 + COOKIE_LEN, &head);
    for (int i = 0; i < LIST_COUNT; i++)
        (void)cv_ssh_read_name_list(&r, &lists[i]);
    (void)cv_ssh_read_bool(&r, has_guess);
    (void)cv_ssh_read_u32(&r, &reserved);
    return cv_ssh_reader_is_done(&r);
}

/* RFC 4253 §7.1: the first name of the client's list that the server has too. The own list is
 * short, so this is linear in what the peer sent, whichever side it is. */
static bool choose(struct cv_slice client, struct cv_slice server, bool is_client,
                   struct cv_slice *chosen)
{
    struct cv_slice own = is_client ? client : server;
    struct cv_slice name;
    if (!is_client) {
        while (cv_ssh_name_list_next(&client, &name)) {
            if (cv_ssh_name_list_has(own, name)) {
                *chosen = name;
                return true;
            }
        }
        return false;
    }
    while (cv_ssh_name_list_next(&own, &name)) {
        if (cv_ssh_name_list_has(server, name)) {
            *chosen = name;
            return true;
        }
    }
    return false;
}

static struct cv_slice first_name(struct cv_slice list)
{
    return cv_slice_split(&list, ',');
}

struct cv_status cv_ssh_kex_negotiate(struct cv_ssh_kex *kex, bool is_client,
                                      struct cv_error *error)
{
    struct cv_slice own[LIST_COUNT], peer[LIST_COUNT], chosen[LIST_COUNT] = {0};
    struct cv_ssh_kex_choice *choice = &kex->choice;
    bool has_own_guess;
    *choice = (struct cv_ssh_kex_choice){0};
    if (!read_kexinit(cv_buf_slice(&kex->own_init), own, &has_own_guess))
        return cv_fail(error, CV_INTERNAL, "the own KEXINIT is malformed");
    if (!read_kexinit(cv_buf_slice(&kex->peer_init), peer, &choice->has_peer_guess))
        return cv_fail(error, CV_SSH_PROTOCOL, "malformed KEXINIT");
    /* The mark of strict key exchange is in the list and no algorithm. */
    own[LIST_KEX] = cv_slice_str(KEX_NAMES);
    static const struct {
        enum kex_list list;
        const char *kind;
    } wanted[] = {{LIST_KEX, "key exchange"},
                  {LIST_HOST_KEY, "host key"},
                  {LIST_CIPHER_TO_SERVER, "cipher"},
                  {LIST_CIPHER_TO_CLIENT, "cipher"},
                  {LIST_COMPRESSION_TO_SERVER, "compression"},
                  {LIST_COMPRESSION_TO_CLIENT, "compression"}};
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        enum kex_list at = wanted[i].list;
        if (!choose(is_client ? own[at] : peer[at], is_client ? peer[at] : own[at], is_client,
                    &chosen[at]))
            return cv_fail(error, CV_SSH_KEX_FAILED, "no %s in common; the peer offers %.*s",
                           wanted[i].kind, (int)(peer[at].len < 160 ? peer[at].len : 160),
                           (const char *)peer[at].data);
    }
    choice->cipher_to_server = cv_ssh_cipher_find(chosen[LIST_CIPHER_TO_SERVER]);
    choice->cipher_to_client = cv_ssh_cipher_find(chosen[LIST_CIPHER_TO_CLIENT]);
    choice->has_zlib_to_server = cv_slice_is(chosen[LIST_COMPRESSION_TO_SERVER], ZLIB);
    choice->has_zlib_to_client = cv_slice_is(chosen[LIST_COMPRESSION_TO_CLIENT], ZLIB);
    choice->is_peer_strict = cv_ssh_name_list_has(
        peer[LIST_KEX], cv_slice_str(is_client ? STRICT_SERVER : STRICT_CLIENT));
    choice->is_guess_right =
        cv_slice_equal(first_name(own[LIST_KEX]), first_name(peer[LIST_KEX])) &&
        cv_slice_equal(first_name(own[LIST_HOST_KEY]), first_name(peer[LIST_HOST_KEY]));
    return cv_ok();
}

struct cv_status cv_ssh_kex_make_share(struct cv_ssh_kex *kex)
{
    size_t len = sizeof kex->share;
    if (kex->pair)
        return cv_ok();
    kex->pair = EVP_PKEY_Q_keygen(NULL, NULL, "X25519");
    if (!kex->pair || EVP_PKEY_get_raw_public_key(kex->pair, kex->share, &len) != 1 ||
        len != sizeof kex->share)
        return cv_status(CV_INTERNAL);
    return cv_ok();
}

/* X25519 of the own pair and the peer's value into kex->secret. */
static bool agree(struct cv_ssh_kex *kex, struct cv_slice peer_share)
{
    static const uint8_t zero[CV_SSH_SHARE_LEN];
    uint8_t shared[CV_SSH_SHARE_LEN];
    size_t len = sizeof shared;
    EVP_PKEY *peer =
        EVP_PKEY_new_raw_public_key(EVP_PKEY_X25519, NULL, peer_share.data, peer_share.len);
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(kex->pair, NULL);
    bool is_ok = peer && ctx && EVP_PKEY_derive_init(ctx) == 1 &&
                 EVP_PKEY_derive_set_peer(ctx, peer) == 1 &&
                 EVP_PKEY_derive(ctx, shared, &len) == 1 && len == sizeof shared &&
                 !cv_equal_ct(cv_slice(shared, len), cv_slice(zero, sizeof zero));
    EVP_PKEY_CTX_free(ctx);
    EVP_PKEY_free(peer);
    if (is_ok) {
        /* RFC 8731 §3.1: the 32 bytes as they are, read as a big-endian number. */
        struct cv_ssh_writer w = cv_ssh_writer(kex->secret, sizeof kex->secret);
        cv_ssh_write_mpint(&w, cv_slice(shared, sizeof shared));
        kex->secret_len = w.len;
    }
    cv_wipe(shared, sizeof shared);
    return is_ok;
}

static bool hash_string(EVP_MD_CTX *ctx, struct cv_slice value)
{
    uint8_t len[4];
    struct cv_ssh_writer w = cv_ssh_writer(len, sizeof len);
    cv_ssh_write_u32(&w, (uint32_t)value.len);
    return EVP_DigestUpdate(ctx, len, sizeof len) == 1 &&
           EVP_DigestUpdate(ctx, value.data, value.len) == 1;
}

struct cv_status cv_ssh_kex_finish(struct cv_ssh_kex *kex, struct cv_slice peer_share,
                                   const struct cv_ssh_kex_parties *parties)
{
    bool is_client = parties->is_client;
    struct cv_slice own_init = cv_buf_slice(&kex->own_init);
    struct cv_slice peer_init = cv_buf_slice(&kex->peer_init);
    struct cv_slice own_share = cv_slice(kex->share, sizeof kex->share);
    if (peer_share.len != CV_SSH_SHARE_LEN || !kex->pair || !agree(kex, peer_share))
        return cv_status(CV_SSH_KEX_FAILED);
    /* H = hash(V_C || V_S || I_C || I_S || K_S || Q_C || Q_S || K), RFC 5656 §4. */
    const struct cv_slice parts[] = {
        is_client ? parties->own_version : parties->peer_version,
        is_client ? parties->peer_version : parties->own_version,
        is_client ? own_init : peer_init,
        is_client ? peer_init : own_init,
        parties->host_blob,
        is_client ? own_share : peer_share,
        is_client ? peer_share : own_share,
    };
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool is_ok = ctx && EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) == 1;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        is_ok = is_ok && hash_string(ctx, parts[i]);
    is_ok = is_ok && EVP_DigestUpdate(ctx, kex->secret, kex->secret_len) == 1 &&
            EVP_DigestFinal_ex(ctx, kex->hash, NULL) == 1;
    EVP_MD_CTX_free(ctx);
    return is_ok ? cv_ok() : cv_status(CV_INTERNAL);
}

void cv_ssh_kex_derive(const struct cv_ssh_kex *kex, struct cv_slice label,
                       const uint8_t session_id[CV_SHA256_LEN], uint8_t *out, size_t len)
{
    uint8_t data[sizeof kex->secret + 2 * CV_SHA256_LEN + 32];
    uint8_t keys[2 * CV_SHA256_LEN];
    assert(len <= sizeof keys && label.len <= 32);
    struct cv_ssh_writer w = cv_ssh_writer(data, sizeof data);
    cv_ssh_write_bytes(&w, cv_slice(kex->secret, kex->secret_len));
    cv_ssh_write_bytes(&w, cv_slice(kex->hash, sizeof kex->hash));
    size_t common = w.len;
    cv_ssh_write_bytes(&w, label);
    cv_ssh_write_bytes(&w, cv_slice(session_id, CV_SHA256_LEN));
    cv_sha256(cv_ssh_written(&w), keys);
    /* K2 = HASH(K || H || K1) */
    w.len = common;
    cv_ssh_write_bytes(&w, cv_slice(keys, CV_SHA256_LEN));
    cv_sha256(cv_ssh_written(&w), keys + CV_SHA256_LEN);
    memcpy(out, keys, len);
    cv_wipe(data, sizeof data);
    cv_wipe(keys, sizeof keys);
}
