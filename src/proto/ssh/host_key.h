/* SPDX-License-Identifier: MIT
 *
 * ssh-ed25519 host keys (RFC 8709): make, store, name, sign with, verify. OpenSSL does the
 * arithmetic. A key owns its secret and wipes it; it never changes after it was made, so workers
 * share one without a lock.
 */
#ifndef CV_SSH_HOST_KEY_H
#define CV_SSH_HOST_KEY_H

#include "base/buf.h"
#include "base/slice.h"
#include "base/status.h"

#define CV_SSH_HOST_KEY_BLOB_LEN 51         /* string "ssh-ed25519", string of 32 bytes */
#define CV_SSH_HOST_KEY_SIGNATURE_LEN 83    /* string "ssh-ed25519", string of 64 bytes */
#define CV_SSH_HOST_KEY_FINGERPRINT_SIZE 51 /* "SHA256:" + 43 characters + NUL */

struct cv_ssh_host_key;

/* A fresh key. CV_NO_MEMORY or CV_INTERNAL (the crypto library refuses); *key is NULL then. */
struct cv_status cv_ssh_host_key_generate(struct cv_ssh_host_key **key);

/* Reads a private key: an unencrypted OpenSSH key file ("BEGIN OPENSSH PRIVATE KEY") or PKCS#8 PEM,
 * ed25519 in both. CV_CONFIG with the reason in *error (may be NULL). */
struct cv_status cv_ssh_host_key_parse(struct cv_slice text, struct cv_ssh_host_key **key,
                                       struct cv_error *error);

/* Appends the private key to `out` in OpenSSH's format. The caller wipes `out` (cv_buf_wipe). */
struct cv_status cv_ssh_host_key_format(const struct cv_ssh_host_key *key, struct cv_buf *out);

/* Loads the key at `path`; if there is no file, makes one with mode 0600. Many processes may do
 * this at once: all end up with the same key. CV_CONFIG when the file can be read by others than
 * its owner or is no key, CV_IO when it cannot be read or made. */
struct cv_status cv_ssh_host_key_load_or_create(const char *path, struct cv_ssh_host_key **key,
                                                struct cv_error *error);

/* Wipes and frees; takes NULL and a pointer to NULL, leaves NULL. */
void cv_ssh_host_key_free(struct cv_ssh_host_key **key);

/* The public key as it goes over the wire, CV_SSH_HOST_KEY_BLOB_LEN bytes; lives as long as the
 * key. */
struct cv_slice cv_ssh_host_key_blob(const struct cv_ssh_host_key *key);

/* "SHA256:<base64 without padding>" of a public key blob, as ssh-keygen -l prints it. */
void cv_ssh_host_key_fingerprint(struct cv_slice blob, char out[CV_SSH_HOST_KEY_FINGERPRINT_SIZE]);

/* The signature over `data` in wire form (RFC 8709 §6). CV_INTERNAL on failure. */
struct cv_status cv_ssh_host_key_sign(const struct cv_ssh_host_key *key, struct cv_slice data,
                                      uint8_t out[CV_SSH_HOST_KEY_SIGNATURE_LEN]);

/* Whether `signature` (wire form) over `data` was made by the key whose blob is `blob`. False for
 * anything that is not exactly an ssh-ed25519 key and signature. */
bool cv_ssh_host_key_verify(struct cv_slice blob, struct cv_slice data, struct cv_slice signature);

#endif
