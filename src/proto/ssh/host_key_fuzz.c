/* SPDX-License-Identifier: MIT
 *
 * Files that are to be host keys, and keys and signatures of a peer. The first byte chooses: a file
 * as it is; the binary inside an OpenSSH key file, put into its armour here so that mutations get
 * past the base64; a public key with a signature. A key that is accepted is written and read back
 * as the same, and signs what it verifies.
 */
#include "base/digest.h"
#include "base/fuzz.h"
#include "proto/ssh/host_key.h"

static void check_key(const struct cv_ssh_host_key *key)
{
    struct cv_ssh_host_key *again = NULL;
    uint8_t signature[CV_SSH_HOST_KEY_SIGNATURE_LEN];
    struct cv_buf text;
    cv_buf_init(&text, 16384);
    cv_fuzz_must(cv_is_ok(cv_ssh_host_key_format(key, &text)));
    cv_fuzz_must(cv_is_ok(cv_ssh_host_key_parse(cv_buf_slice(&text), &again, NULL)));
    cv_fuzz_must(cv_slice_equal(cv_ssh_host_key_blob(key), cv_ssh_host_key_blob(again)));
    cv_fuzz_must(cv_is_ok(cv_ssh_host_key_sign(key, cv_slice_str("x"), signature)));
    cv_fuzz_must(cv_ssh_host_key_verify(cv_ssh_host_key_blob(again), cv_slice_str("x"),
                                        cv_slice(signature, sizeof signature)));
    cv_buf_wipe(&text);
    cv_ssh_host_key_free(&again);
}

static void fuzz_file(struct cv_slice text)
{
    struct cv_ssh_host_key *key = NULL;
    struct cv_error error = {0};
    struct cv_status status = cv_ssh_host_key_parse(text, &key, &error);
    cv_fuzz_must(cv_is_ok(status) == (key != NULL));
    if (key)
        check_key(key);
    cv_ssh_host_key_free(&key);
}

static void fuzz_binary(struct cv_slice binary)
{
    struct cv_buf text;
    char *base64 = malloc(4 * ((binary.len + 2) / 3) + 1);
    if (!base64)
        return;
    (void)cv_base64_encode(binary, base64);
    cv_buf_init(&text, 1 << 20);
    (void)cv_buf_printf(&text,
                        "-----BEGIN OPENSSH PRIVATE KEY-----\n%s\n"
                        "-----END OPENSSH PRIVATE KEY-----\n",
                        base64);
    fuzz_file(cv_buf_slice(&text));
    cv_buf_done(&text);
    free(base64);
}

static void fuzz_signature(struct cv_slice text)
{
    size_t half = text.len < CV_SSH_HOST_KEY_BLOB_LEN ? text.len : CV_SSH_HOST_KEY_BLOB_LEN;
    char fingerprint[CV_SSH_HOST_KEY_FINGERPRINT_SIZE];
    struct cv_slice blob = cv_slice(text.data, half);
    cv_ssh_host_key_fingerprint(blob, fingerprint);
    (void)cv_ssh_host_key_verify(blob, cv_slice_str("x"),
                                 cv_slice(text.data + half, text.len - half));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    struct cv_slice text = cv_slice(data + 1, size - 1);
    switch (data[0] % 3) {
    case 0:
        fuzz_file(text);
        break;
    case 1:
        fuzz_binary(text);
        break;
    default:
        fuzz_signature(text);
    }
    return 0;
}
