/* SPDX-License-Identifier: MIT */
#include "agent/known_hosts.h"
#include "base/test.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[64];
static char path[96];

static int make_folder(void **state)
{
    (void)state;
    (void)snprintf(folder, sizeof folder, "/tmp/culvert-known-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    (void)snprintf(path, sizeof path, "%s/known_hosts", folder);
    return 0;
}

static int remove_folder(void **state)
{
    (void)state;
    (void)unlink(path);
    return rmdir(folder);
}

static void write_file(const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static const char *read_file(void)
{
    static char text[4096];
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    text[fread(text, 1, sizeof text - 1, file)] = '\0';
    (void)fclose(file);
    return text;
}

static enum cv_status_id check(const char *relay, const char *key, bool *is_new,
                               struct cv_error *error)
{
    return cv_known_hosts_check(path, relay, cv_slice_str(key), is_new, error).id;
}

static void a_new_relay_is_remembered_privately(void **state)
{
    (void)state;
    struct cv_error error = {0};
    struct stat st;
    bool is_new;
    assert_int_equal(check("relay:443", "key one", &is_new, &error), CV_OK);
    assert_true(is_new);
    assert_int_equal(error.id, CV_OK); /* no error that somebody could take for a reason later */
    assert_string_equal(read_file(), "relay:443 ssh-ed25519 a2V5IG9uZQ==\n");
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(check("relay:443", "key one", &is_new, &error), CV_OK);
    assert_false(is_new);
    assert_int_equal(check("[::1]:8080", "key two", &is_new, &error), CV_OK);
    assert_true(is_new);
    assert_string_equal(read_file(), "relay:443 ssh-ed25519 a2V5IG9uZQ==\n"
                                     "[::1]:8080 ssh-ed25519 a2V5IHR3bw==\n");
}

static void a_changed_key_is_refused_with_file_and_line(void **state)
{
    (void)state;
    struct cv_error error = {0};
    bool is_new;
    write_file("# ours\nother:443 ssh-ed25519 a2V5IHR3bw==\nrelay:443 ssh-ed25519 a2V5IG9uZQ==\n");
    assert_int_equal(check("relay:443", "key two", &is_new, &error), CV_HOST_KEY);
    assert_false(is_new);
    assert_non_null(strstr(error.detail, "line 3"));
    assert_non_null(strstr(error.detail, path));
    assert_int_equal(check("other:443", "key two", &is_new, &error), CV_OK);
}

static void other_ports_and_prefixes_are_other_relays(void **state)
{
    (void)state;
    struct cv_error error = {0};
    bool is_new;
    write_file("relay:443 ssh-ed25519 a2V5IG9uZQ==\n");
    assert_int_equal(check("relay:44", "key two", &is_new, &error), CV_OK);
    assert_true(is_new);
    assert_int_equal(check("relay:4430", "key two", &is_new, &error), CV_OK);
    assert_true(is_new);
}

static void a_second_line_allows_a_second_key(void **state)
{
    (void)state;
    struct cv_error error = {0};
    bool is_new;
    write_file("relay:443 ssh-ed25519 a2V5IG9uZQ==\nrelay:443 ssh-ed25519 a2V5IHR3bw==");
    assert_int_equal(check("relay:443", "key two", &is_new, &error), CV_OK);
    assert_false(is_new);
    /* No newline at the end: the next line must not grow out of this one. */
    assert_int_equal(check("third:1", "key one", &is_new, &error), CV_OK);
    assert_non_null(strstr(read_file(), "a2V5IHR3bw==\nthird:1 ssh-ed25519 a2V5IG9uZQ==\n"));
}

static void odd_lines_are_left_alone(void **state)
{
    (void)state;
    struct cv_error error = {0};
    bool is_new;
    write_file("\n\nrelay:443\nrelay:443 \nrelay:443 ssh-rsa AAAA\n \t\n");
    assert_int_equal(check("relay:443", "key one", &is_new, &error), CV_OK);
    assert_true(is_new);
}

static void what_cannot_be_read_or_written_is_told(void **state)
{
    (void)state;
    struct cv_error error = {0};
    bool is_new;
    struct cv_status status =
        cv_known_hosts_check(folder, "relay:443", cv_slice_str("key"), &is_new, &error);
    assert_false(cv_is_ok(status));
    assert_true(error.detail[0]);
    char nowhere[160];
    (void)snprintf(nowhere, sizeof nowhere, "%s/none/known_hosts", folder);
    assert_status(cv_known_hosts_check(nowhere, "relay:443", cv_slice_str("key"), &is_new, &error),
                  CV_IO);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_new_relay_is_remembered_privately),
        TEST(a_changed_key_is_refused_with_file_and_line),
        TEST(other_ports_and_prefixes_are_other_relays),
        TEST(a_second_line_allows_a_second_key),
        TEST(odd_lines_are_left_alone),
        TEST(what_cannot_be_read_or_written_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
