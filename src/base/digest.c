/* SPDX-License-Identifier: MIT */
#include "base/digest.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

static void must(int ok)
{
    if (!ok) {
        (void)fputs("culvert: the crypto library does not work\n", stderr);
        abort();
    }
}

void cv_sha1(struct cv_slice data, uint8_t out[CV_SHA1_LEN])
{
    must(EVP_Digest(data.data, data.len, out, NULL, EVP_sha1(), NULL));
}

void cv_sha256(struct cv_slice data, uint8_t out[CV_SHA256_LEN])
{
    must(EVP_Digest(data.data, data.len, out, NULL, EVP_sha256(), NULL));
}

void cv_hmac_sha256(struct cv_slice key, struct cv_slice data, uint8_t out[CV_SHA256_LEN])
{
    unsigned len = CV_SHA256_LEN;
    static const uint8_t none = 0;
    must(HMAC(EVP_sha256(), key.data ? key.data : &none, (int)key.len, data.data, data.len, out,
              &len) != NULL);
}

struct cv_hasher {
    EVP_MD *sha256;
    EVP_MD_CTX *ctx;
};

struct cv_hasher *cv_hasher_new(void)
{
    struct cv_hasher *hasher = calloc(1, sizeof *hasher);
    if (!hasher)
        return NULL;
    hasher->sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
    hasher->ctx = EVP_MD_CTX_new();
    if (!hasher->sha256 || !hasher->ctx || !EVP_DigestInit_ex2(hasher->ctx, hasher->sha256, NULL))
        cv_hasher_free(&hasher);
    return hasher;
}

void cv_hasher_free(struct cv_hasher **hasher)
{
    if (!*hasher)
        return;
    EVP_MD_CTX_free((*hasher)->ctx);
    EVP_MD_free((*hasher)->sha256);
    free(*hasher);
    *hasher = NULL;
}

void cv_hasher_sha256(struct cv_hasher *hasher, struct cv_slice data, uint8_t out[CV_SHA256_LEN])
{
    must(EVP_DigestInit_ex2(hasher->ctx, hasher->sha256, NULL) &&
         EVP_DigestUpdate(hasher->ctx, data.data, data.len) &&
         EVP_DigestFinal_ex(hasher->ctx, out, NULL));
}

void cv_random(void *out, size_t len)
{
    uint8_t *at = out;
    while (len) {
        ssize_t n = getrandom(at, len, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            (void)fputs("culvert: the system has no random numbers\n", stderr);
            abort();
        }
        at += n;
        len -= (size_t)n;
    }
}

bool cv_equal_ct(struct cv_slice a, struct cv_slice b)
{
    return a.len == b.len && (a.len == 0 || CRYPTO_memcmp(a.data, b.data, a.len) == 0);
}

void cv_wipe(void *data, size_t len)
{
    if (data && len)
        OPENSSL_cleanse(data, len);
}

void cv_hex_encode(struct cv_slice data, char *out)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < data.len; i++) {
        *out++ = digits[data.data[i] >> 4];
        *out++ = digits[data.data[i] & 15];
    }
    *out = '\0';
}

static int hex_value(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c |= 0x20;
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool cv_hex_decode(struct cv_slice text, uint8_t *out, size_t len)
{
    if (text.len != 2 * len)
        return false;
    for (size_t i = 0; i < len; i++) {
        int high = hex_value(text.data[2 * i]), low = hex_value(text.data[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        out[i] = (uint8_t)(high << 4 | low);
    }
    return true;
}

static const char base64_std[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char base64_url[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static size_t encode64(struct cv_slice data, const char *alphabet, bool pad, char *out)
{
    char *to = out;
    size_t i = 0;
    for (; i + 2 < data.len; i += 3) {
        uint32_t v =
            (uint32_t)data.data[i] << 16 | (uint32_t)data.data[i + 1] << 8 | data.data[i + 2];
        *to++ = alphabet[v >> 18];
        *to++ = alphabet[v >> 12 & 63];
        *to++ = alphabet[v >> 6 & 63];
        *to++ = alphabet[v & 63];
    }
    size_t left = data.len - i;
    if (left) {
        uint32_t v = (uint32_t)data.data[i] << 16;
        if (left == 2)
            v |= (uint32_t)data.data[i + 1] << 8;
        *to++ = alphabet[v >> 18];
        *to++ = alphabet[v >> 12 & 63];
        if (left == 2)
            *to++ = alphabet[v >> 6 & 63];
        for (size_t p = left; pad && p < 3; p++)
            *to++ = '=';
    }
    *to = '\0';
    return (size_t)(to - out);
}

size_t cv_base64_encode(struct cv_slice data, char *out)
{
    return encode64(data, base64_std, true, out);
}

size_t cv_base64url_encode(struct cv_slice data, char *out)
{
    return encode64(data, base64_url, false, out);
}

static int value64(uint8_t c, char c62, char c63)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (c == (uint8_t)c62)
        return 62;
    return c == (uint8_t)c63 ? 63 : -1;
}

static bool decode64(struct cv_slice text, char c62, char c63, uint8_t *out, size_t *out_len)
{
    uint8_t *to = out;
    uint32_t bits = 0;
    unsigned have = 0;
    if (text.len % 4 == 1)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        int v = value64(text.data[i], c62, c63);
        if (v < 0)
            return false;
        bits = bits << 6 | (uint32_t)v;
        have += 6;
        if (have >= 8) {
            have -= 8;
            *to++ = (uint8_t)(bits >> have);
            bits &= (1U << have) - 1;
        }
    }
    if (bits)
        return false;
    *out_len = (size_t)(to - out);
    return true;
}

bool cv_base64_decode(struct cv_slice text, uint8_t *out, size_t *out_len)
{
    if (text.len % 4)
        return false;
    for (int i = 0; i < 2 && text.len && text.data[text.len - 1] == '='; i++)
        text.len--;
    return decode64(text, '+', '/', out, out_len);
}

bool cv_base64url_decode(struct cv_slice text, uint8_t *out, size_t *out_len)
{
    return decode64(text, '-', '_', out, out_len);
}
