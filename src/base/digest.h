/* SPDX-License-Identifier: MIT
 *
 * Hashes, random bytes, text codings of bytes, constant-time comparison. Everything
 * cryptographic is OpenSSL's; this header keeps its types out of ours. Any thread.
 */
#ifndef CV_BASE_DIGEST_H
#define CV_BASE_DIGEST_H

#include "base/slice.h"
#include "base/status.h"

#define CV_SHA1_LEN 20
#define CV_SHA256_LEN 32

/* One-shot hashes; abort the process only if the crypto library cannot work at all. */
void cv_sha1(struct cv_slice data, uint8_t out[CV_SHA1_LEN]);
void cv_sha256(struct cv_slice data, uint8_t out[CV_SHA256_LEN]);
void cv_hmac_sha256(struct cv_slice key, struct cv_slice data, uint8_t out[CV_SHA256_LEN]);

/* For one SHA-256 after the other on one thread: the library looks the algorithm up and takes
 * memory once instead of each time. NULL without memory. */
struct cv_hasher;
struct cv_hasher *cv_hasher_new(void);
void cv_hasher_free(struct cv_hasher **hasher);
void cv_hasher_sha256(struct cv_hasher *hasher, struct cv_slice data, uint8_t out[CV_SHA256_LEN]);

/* Fills `out` with bytes from the kernel's generator; ends the process when there are none, since
 * nothing here is safe without them. */
void cv_random(void *out, size_t len);

/* Compares without telling by time where the difference is; lengths are not secret. */
bool cv_equal_ct(struct cv_slice a, struct cv_slice b);

/* Overwrites; not optimised away. */
void cv_wipe(void *data, size_t len);

/* Lower-case hex with NUL; `out` has 2 * len + 1 bytes. */
void cv_hex_encode(struct cv_slice data, char *out);
/* False unless `text` is exactly 2 * len hex digits (either case). */
bool cv_hex_decode(struct cv_slice text, uint8_t *out, size_t len);

/* RFC 4648 §4 with padding; `out` has 4 * ((len + 2) / 3) + 1 bytes. Returns the length. */
size_t cv_base64_encode(struct cv_slice data, char *out);
/* RFC 4648 §5 without padding; `out` has 4 * ((len + 2) / 3) + 1 bytes. Returns the length. */
size_t cv_base64url_encode(struct cv_slice data, char *out);

/* Strict decoding: only the alphabet, no white space, zero trailing bits, padding exactly as the
 * coding wants it. `out` has room for 3 * (text.len / 4) + 2 bytes. False otherwise. */
bool cv_base64_decode(struct cv_slice text, uint8_t *out, size_t *out_len);
bool cv_base64url_decode(struct cv_slice text, uint8_t *out, size_t *out_len);

#endif
