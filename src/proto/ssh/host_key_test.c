/* SPDX-License-Identifier: MIT */
#include "proto/ssh/host_key.h"

#include "base/test.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* Made by ssh-keygen -t ed25519, for this test only. */
static const char openssh_key[] =
    "-----BEGIN OPENSSH PRIVATE KEY-----\n"
    "b3BlbnNzaC1rZXktdjEAAAAABG5vbmUAAAAEbm9uZQAAAAAAAAABAAAAMwAAAAtzc2gtZW\n"
    "QyNTUxOQAAACB9WzBqTd7aR3ED6NK0OFFEwJ91MGfl1UevRSnpmyZVpQAAAIjNpo5SzaaO\n"
    "UgAAAAtzc2gtZWQyNTUxOQAAACB9WzBqTd7aR3ED6NK0OFFEwJ91MGfl1UevRSnpmyZVpQ\n"
    "AAAEC/zIi+ZocwmVD6xzKLXhAXj2KxlKx0j6oq2GdgS/zekH1bMGpN3tpHcQPo0rQ4UUTA\n"
    "n3UwZ+XVR69FKembJlWlAAAABHRlc3QB\n"
    "-----END OPENSSH PRIVATE KEY-----\n";
static const char openssh_fingerprint[] = "SHA256:FRqKnbV3IeDwDoeyN8qUoXJxMOusG5DhrQ0AKkm95jI";

/* RFC 8410 §10.3. */
static const char pkcs8_key[] = "-----BEGIN PRIVATE KEY-----\n"
                                "MC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n"
                                "-----END PRIVATE KEY-----\n";

static void a_key_of_openssh_is_read(void **state)
{
    (void)state;
    struct cv_ssh_host_key *key;
    char fingerprint[CV_SSH_HOST_KEY_FINGERPRINT_SIZE];
    assert_ok(cv_ssh_host_key_parse(cv_slice_str(openssh_key), &key, NULL));
    cv_ssh_host_key_fingerprint(cv_ssh_host_key_blob(key), fingerprint);
    assert_string_equal(fingerprint, openssh_fingerprint);
    cv_ssh_host_key_free(&key);
    assert_null(key);
    assert_ok(cv_ssh_host_key_parse(cv_slice_str(pkcs8_key), &key, NULL));
    cv_ssh_host_key_free(&key);
}

static void a_damaged_key_is_refused(void **state)
{
    (void)state;
    struct cv_ssh_host_key *key;
    struct cv_error error;
    char text[sizeof openssh_key], fingerprint[CV_SSH_HOST_KEY_FINGERPRINT_SIZE];
    for (size_t i = 0; i + 2 < sizeof text; i++) {
        memcpy(text, openssh_key, sizeof text);
        assert_false(cv_is_ok(cv_ssh_host_key_parse(cv_slice(text, i), &key, &error)));
        assert_null(key);
        text[i] ^= 1;
        /* The comment carries nothing of the key: it may differ, the key may not. */
        if (cv_is_ok(cv_ssh_host_key_parse(cv_slice(text, sizeof text - 1), &key, NULL))) {
            cv_ssh_host_key_fingerprint(cv_ssh_host_key_blob(key), fingerprint);
            assert_string_equal(fingerprint, openssh_fingerprint);
        }
        cv_ssh_host_key_free(&key);
    }
    assert_status(cv_ssh_host_key_parse(cv_slice_str(""), &key, &error), CV_CONFIG);
    assert_status(
        cv_ssh_host_key_parse(cv_slice_str("-----BEGIN RSA PRIVATE KEY-----\n"), &key, &error),
        CV_CONFIG);
}

static void a_key_comes_back_from_its_file(void **state)
{
    (void)state;
    char folder[] = "/tmp/cv_host_key_XXXXXX", path[64];
    struct cv_ssh_host_key *made, *read;
    struct stat st;
    assert_non_null(mkdtemp(folder));
    (void)snprintf(path, sizeof path, "%s/key", folder);
    assert_ok(cv_ssh_host_key_load_or_create(path, &made, NULL));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_ok(cv_ssh_host_key_load_or_create(path, &read, NULL));
    assert_true(cv_slice_equal(cv_ssh_host_key_blob(made), cv_ssh_host_key_blob(read)));
    cv_ssh_host_key_free(&read);
    assert_int_equal(chmod(path, 0644), 0);
    assert_status(cv_ssh_host_key_load_or_create(path, &read, NULL), CV_CONFIG);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(folder), 0);
    cv_ssh_host_key_free(&made);
}

static void only_an_exact_signature_verifies(void **state)
{
    (void)state;
    struct cv_ssh_host_key *key;
    uint8_t signature[CV_SSH_HOST_KEY_SIGNATURE_LEN], blob[CV_SSH_HOST_KEY_BLOB_LEN];
    struct cv_slice data = cv_slice_str("what is signed");
    assert_ok(cv_ssh_host_key_generate(&key));
    assert_ok(cv_ssh_host_key_sign(key, data, signature));
    memcpy(blob, cv_ssh_host_key_blob(key).data, sizeof blob);
    cv_ssh_host_key_free(&key);
    struct cv_slice all = cv_slice(signature, sizeof signature);
    assert_true(cv_ssh_host_key_verify(cv_slice(blob, sizeof blob), data, all));
    for (size_t i = 0; i < sizeof signature; i++) {
        signature[i] ^= 1;
        assert_false(cv_ssh_host_key_verify(cv_slice(blob, sizeof blob), data, all));
        assert_false(
            cv_ssh_host_key_verify(cv_slice(blob, sizeof blob), data, cv_slice(signature, i)));
        signature[i] ^= 1;
    }
    for (size_t i = 0; i < sizeof blob; i++) {
        blob[i] ^= 1;
        assert_false(cv_ssh_host_key_verify(cv_slice(blob, sizeof blob), data, all));
        blob[i] ^= 1;
    }
    assert_false(cv_ssh_host_key_verify(cv_slice(blob, sizeof blob), cv_slice_str("other"), all));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_key_of_openssh_is_read),
        cmocka_unit_test(a_damaged_key_is_refused),
        cmocka_unit_test(a_key_comes_back_from_its_file),
        cmocka_unit_test(only_an_exact_signature_verifies),
    };
    return cmocka_run_group_tests_name("ssh_host_key", tests, NULL, NULL);
}
