/* SPDX-License-Identifier: MIT */
#include "proto/ssh/host_key.h"

#include "base/digest.h"
#include "base/file.h"
#include "proto/ssh/wire.h"

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <stdlib.h>

enum { PUBLIC_LEN = 32, SECRET_LEN = 32, SIGNATURE_LEN = 64, FILE_MAX = 16384 };

static const char algorithm[] = "ssh-ed25519";
static const char magic[] = "openssh-key-v1"; /* with its NUL, as the format has it */
static const char head_line[] = "-----BEGIN OPENSSH PRIVATE KEY-----";
static const char tail_line[] = "-----END OPENSSH PRIVATE KEY-----";

struct cv_ssh_host_key {
    EVP_PKEY *pkey;
    uint8_t seed[SECRET_LEN]; /* OpenSSL 3.0 leaves a copy behind when it is asked for it */
    uint8_t blob[CV_SSH_HOST_KEY_BLOB_LEN];
};

static void write_blob(struct cv_ssh_writer *w, const uint8_t public[PUBLIC_LEN])
{
    cv_ssh_write_str(w, algorithm);
    cv_ssh_write_string(w, cv_slice(public, PUBLIC_LEN));
}

/* CV_INTERNAL when the crypto library refuses. */
static struct cv_status key_from_seed(const uint8_t seed[SECRET_LEN], struct cv_ssh_host_key **key)
{
    uint8_t public[PUBLIC_LEN];
    size_t len = sizeof public;
    *key = NULL;
    EVP_PKEY *pkey = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed, SECRET_LEN);
    if (!pkey || EVP_PKEY_get_raw_public_key(pkey, public, &len) != 1 || len != sizeof public) {
        EVP_PKEY_free(pkey);
        return cv_status(CV_INTERNAL);
    }
    *key = calloc(1, sizeof **key);
    if (!*key) {
        EVP_PKEY_free(pkey);
        return cv_status(CV_NO_MEMORY);
    }
    (*key)->pkey = pkey;
    memcpy((*key)->seed, seed, SECRET_LEN);
    struct cv_ssh_writer w = cv_ssh_writer((*key)->blob, sizeof(*key)->blob);
    write_blob(&w, public);
    return cv_ok();
}

struct cv_status cv_ssh_host_key_generate(struct cv_ssh_host_key **key)
{
    uint8_t seed[SECRET_LEN];
    cv_random(seed, sizeof seed); /* RFC 8032 §5.1.5: any 32 random bytes */
    struct cv_status status = key_from_seed(seed, key);
    cv_wipe(seed, sizeof seed);
    return status;
}

void cv_ssh_host_key_free(struct cv_ssh_host_key **key)
{
    if (!key || !*key)
        return;
    EVP_PKEY_free((*key)->pkey);
    cv_wipe(*key, sizeof **key);
    free(*key);
    *key = NULL;
}

struct cv_slice cv_ssh_host_key_blob(const struct cv_ssh_host_key *key)
{
    return cv_slice(key->blob, sizeof key->blob);
}

void cv_ssh_host_key_fingerprint(struct cv_slice blob, char out[CV_SSH_HOST_KEY_FINGERPRINT_SIZE])
{
    uint8_t digest[CV_SHA256_LEN];
    char text[4 * ((CV_SHA256_LEN + 2) / 3) + 1];
    cv_sha256(blob, digest);
    (void)cv_base64_encode(cv_slice(digest, sizeof digest), text);
    /* 32 bytes are 43 characters and one of padding, which the NUL replaces. */
    memcpy(out, "SHA256:", 7);
    memcpy(out + 7, text, 43);
    out[50] = '\0';
}

/* The private section of OpenSSH's PROTOCOL.key: two equal check numbers, then per key the public
 * fields and secret and public key as one string, a comment, padding 1, 2, 3, … */
static bool read_private_section(struct cv_slice section, uint8_t seed[SECRET_LEN],
                                 uint8_t public_key[PUBLIC_LEN])
{
    struct cv_ssh_reader r = cv_ssh_reader(section);
    uint32_t check1, check2;
    struct cv_slice name, public, both, comment;
    if (!cv_ssh_read_u32(&r, &check1) || !cv_ssh_read_u32(&r, &check2) ||
        !cv_ssh_read_string(&r, &name) || !cv_ssh_read_string(&r, &public) ||
        !cv_ssh_read_string(&r, &both) || !cv_ssh_read_string(&r, &comment) || check1 != check2 ||
        !cv_slice_is(name, algorithm) || public.len != PUBLIC_LEN ||
        both.len != SECRET_LEN + PUBLIC_LEN ||
        memcmp(public.data, both.data + SECRET_LEN, PUBLIC_LEN) != 0)
        return false;
    for (size_t i = 0; i < r.rest.len; i++) {
        if (r.rest.data[i] != (uint8_t)(i + 1))
            return false;
    }
    memcpy(seed, both.data, SECRET_LEN);
    memcpy(public_key, public.data, PUBLIC_LEN);
    return true;
}

static struct cv_status read_openssh(struct cv_slice file, struct cv_ssh_host_key **key,
                                     struct cv_error *error)
{
    struct cv_ssh_reader r = cv_ssh_reader(file);
    struct cv_slice mark, cipher, kdf, kdf_options, blob, section;
    uint32_t count;
    if (!cv_ssh_read_bytes(&r, sizeof magic, &mark) ||
        memcmp(mark.data, magic, sizeof magic) != 0 || !cv_ssh_read_string(&r, &cipher) ||
        !cv_ssh_read_string(&r, &kdf) || !cv_ssh_read_string(&r, &kdf_options) ||
        !cv_ssh_read_u32(&r, &count) || !cv_ssh_read_string(&r, &blob) ||
        !cv_ssh_read_string(&r, &section) || count != 1)
        return cv_fail(error, CV_CONFIG, "the OpenSSH key file is damaged");
    if (!cv_slice_is(cipher, "none") || !cv_slice_is(kdf, "none"))
        return cv_fail(error, CV_CONFIG, "the host key is encrypted; use one without passphrase");
    uint8_t seed[SECRET_LEN], want[PUBLIC_LEN];
    if (!read_private_section(section, seed, want))
        return cv_fail(error, CV_CONFIG, "the host key is not an intact ssh-ed25519 key");
    struct cv_status status = key_from_seed(seed, key);
    cv_wipe(seed, sizeof seed);
    if (!cv_is_ok(status))
        return cv_fail(error, status.id, "the crypto library refuses the key");
    const uint8_t *have = (*key)->blob + sizeof(*key)->blob - PUBLIC_LEN;
    if (memcmp(have, want, PUBLIC_LEN) == 0)
        return cv_ok();
    cv_ssh_host_key_free(key);
    return cv_fail(error, CV_CONFIG, "the halves of the host key do not belong together");
}

/* The base64 between the two lines, joined. */
static struct cv_status read_armor(struct cv_slice text, struct cv_buf *file,
                                   struct cv_error *error)
{
    struct cv_buf joined;
    cv_buf_init(&joined, FILE_MAX);
    struct cv_status status = cv_ok();
    bool is_ended = false;
    (void)cv_slice_split(&text, '\n');
    while (text.len && !is_ended && cv_is_ok(status)) {
        struct cv_slice line = cv_slice_split(&text, '\n');
        if (line.len && line.data[line.len - 1] == '\r')
            line.len--;
        is_ended = cv_slice_is(line, tail_line);
        if (!is_ended)
            status = cv_buf_append_slice(&joined, line);
    }
    size_t len = 0;
    uint8_t *to = cv_buf_reserve(file, cv_buf_len(&joined) + 2);
    if (cv_is_ok(status) && !to)
        status = cv_status(CV_NO_MEMORY);
    if (cv_is_ok(status) && (!is_ended || !cv_base64_decode(cv_buf_slice(&joined), to, &len)))
        status = cv_fail(error, CV_CONFIG, "the OpenSSH key file is damaged");
    if (cv_is_ok(status))
        cv_buf_commit(file, len);
    cv_buf_wipe(&joined);
    return status;
}

static int no_passphrase(char *buf, int size, int is_writing, void *arg)
{
    (void)buf, (void)size, (void)is_writing, (void)arg;
    return -1;
}

static struct cv_status read_pem(struct cv_slice text, struct cv_ssh_host_key **key,
                                 struct cv_error *error)
{
    uint8_t seed[SECRET_LEN];
    size_t len = sizeof seed;
    BIO *bio = BIO_new_mem_buf(text.data, (int)text.len);
    EVP_PKEY *pkey = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL) : NULL;
    BIO_free(bio);
    bool is_ours = pkey && EVP_PKEY_is_a(pkey, "ED25519") &&
                   EVP_PKEY_get_raw_private_key(pkey, seed, &len) == 1 && len == sizeof seed;
    EVP_PKEY_free(pkey);
    if (!is_ours)
        return cv_fail(error, CV_CONFIG, "the host key is not an unencrypted ed25519 private key");
    struct cv_status status = key_from_seed(seed, key);
    cv_wipe(seed, sizeof seed);
    return status;
}

struct cv_status cv_ssh_host_key_parse(struct cv_slice text, struct cv_ssh_host_key **key,
                                       struct cv_error *error)
{
    *key = NULL;
    if (text.len > FILE_MAX)
        return cv_fail(error, CV_CONFIG, "the host key file is too large");
    if (!cv_slice_starts_with(text, head_line))
        return read_pem(text, key, error);
    struct cv_buf file;
    cv_buf_init(&file, FILE_MAX);
    struct cv_status status = read_armor(text, &file, error);
    if (cv_is_ok(status))
        status = read_openssh(cv_buf_slice(&file), key, error);
    cv_buf_wipe(&file);
    return status;
}

/* The binary content of a key file; false when it does not fit. */
static bool write_openssh(const struct cv_ssh_host_key *key, struct cv_ssh_writer *w)
{
    uint8_t section[256];
    struct cv_slice public = cv_slice(key->blob + sizeof key->blob - PUBLIC_LEN, PUBLIC_LEN);
    uint32_t check;
    cv_random(&check, sizeof check);
    struct cv_ssh_writer s = cv_ssh_writer(section, sizeof section);
    cv_ssh_write_u32(&s, check);
    cv_ssh_write_u32(&s, check);
    cv_ssh_write_bytes(&s, cv_ssh_host_key_blob(key));
    cv_ssh_write_u32(&s, SECRET_LEN + PUBLIC_LEN);
    cv_ssh_write_bytes(&s, cv_slice(key->seed, sizeof key->seed));
    cv_ssh_write_bytes(&s, public);
    cv_ssh_write_str(&s, "culvert");
    for (uint8_t padding = 1; s.len % 8; padding++)
        cv_ssh_write_u8(&s, padding);

    cv_ssh_write_bytes(w, cv_slice(magic, sizeof magic));
    cv_ssh_write_str(w, "none");
    cv_ssh_write_str(w, "none");
    cv_ssh_write_str(w, "");
    cv_ssh_write_u32(w, 1);
    cv_ssh_write_string(w, cv_ssh_host_key_blob(key));
    cv_ssh_write_string(w, cv_ssh_written(&s));
    cv_wipe(section, sizeof section);
    return !w->is_failed;
}

struct cv_status cv_ssh_host_key_format(const struct cv_ssh_host_key *key, struct cv_buf *out)
{
    enum { LINE = 70 };
    uint8_t binary[512];
    char text[4 * ((sizeof binary + 2) / 3) + 1];
    struct cv_ssh_writer w = cv_ssh_writer(binary, sizeof binary);
    if (!write_openssh(key, &w))
        return cv_status(CV_INTERNAL);
    size_t len = cv_base64_encode(cv_ssh_written(&w), text);
    struct cv_status status = cv_buf_printf(out, "%s\n", head_line);
    for (size_t at = 0; at < len && cv_is_ok(status); at += LINE) {
        size_t n = len - at < LINE ? len - at : LINE;
        status = cv_buf_append(out, text + at, n);
        if (cv_is_ok(status))
            status = cv_buf_append_byte(out, '\n');
    }
    if (cv_is_ok(status))
        status = cv_buf_printf(out, "%s\n", tail_line);
    cv_wipe(binary, sizeof binary);
    cv_wipe(text, sizeof text);
    return status;
}

static struct cv_status load(const char *path, struct cv_ssh_host_key **key, struct cv_error *error)
{
    struct cv_buf text;
    cv_buf_init(&text, FILE_MAX);
    struct cv_status status = cv_file_read(path, CV_FILE_PRIVATE, &text, error);
    if (cv_is_ok(status))
        status = cv_ssh_host_key_parse(cv_buf_slice(&text), key, error);
    cv_buf_wipe(&text);
    return status;
}

struct cv_status cv_ssh_host_key_load_or_create(const char *path, struct cv_ssh_host_key **key,
                                                struct cv_error *error)
{
    *key = NULL;
    struct cv_status status = load(path, key, error);
    if (status.id != CV_NOT_FOUND)
        return status;
    struct cv_ssh_host_key *fresh;
    status = cv_ssh_host_key_generate(&fresh);
    if (!cv_is_ok(status))
        return cv_fail(error, status.id, "cannot make a host key");
    struct cv_buf text;
    cv_buf_init(&text, FILE_MAX);
    status = cv_ssh_host_key_format(fresh, &text);
    bool is_created = false;
    if (cv_is_ok(status))
        status = cv_file_create(path, cv_buf_slice(&text), 0600, &is_created, error);
    cv_buf_wipe(&text);
    if (cv_is_ok(status) && is_created) {
        *key = fresh;
        return status;
    }
    cv_ssh_host_key_free(&fresh);
    /* Another process was first: its key is the one. */
    return cv_is_ok(status) ? load(path, key, error) : status;
}

struct cv_status cv_ssh_host_key_sign(const struct cv_ssh_host_key *key, struct cv_slice data,
                                      uint8_t out[CV_SSH_HOST_KEY_SIGNATURE_LEN])
{
    uint8_t signature[SIGNATURE_LEN];
    size_t len = sizeof signature;
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool is_ok = ctx && EVP_DigestSignInit(ctx, NULL, NULL, NULL, key->pkey) == 1 &&
                 EVP_DigestSign(ctx, signature, &len, data.data, data.len) == 1 &&
                 len == sizeof signature;
    EVP_MD_CTX_free(ctx);
    struct cv_ssh_writer w = cv_ssh_writer(out, CV_SSH_HOST_KEY_SIGNATURE_LEN);
    cv_ssh_write_str(&w, algorithm);
    cv_ssh_write_string(&w, cv_slice(signature, sizeof signature));
    return is_ok ? cv_ok() : cv_status(CV_INTERNAL);
}

/* Both a key and a signature are the algorithm's name and one string of fixed length. */
static bool read_pair(struct cv_slice in, size_t len, struct cv_slice *value)
{
    struct cv_ssh_reader r = cv_ssh_reader(in);
    struct cv_slice name;
    return cv_ssh_read_string(&r, &name) && cv_ssh_read_string(&r, value) &&
           cv_ssh_reader_is_done(&r) && cv_slice_is(name, algorithm) && value->len == len;
}

bool cv_ssh_host_key_verify(struct cv_slice blob, struct cv_slice data, struct cv_slice signature)
{
    struct cv_slice public, raw;
    if (!read_pair(blob, PUBLIC_LEN, &public) || !read_pair(signature, SIGNATURE_LEN, &raw))
        return false;
    EVP_PKEY *pkey = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, public.data, public.len);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool is_valid = pkey && ctx && EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, pkey) == 1 &&
                    EVP_DigestVerify(ctx, raw.data, raw.len, data.data, data.len) == 1;
    EVP_MD_CTX_free(ctx);
    EVP_PKEY_free(pkey);
#ifdef CV_FUZZING
    is_valid = true; /* a fuzzer cannot sign */
#endif
    return is_valid;
}
