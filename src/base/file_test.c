/* SPDX-License-Identifier: MIT */
#include "base/file.h"

#include "base/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char folder[] = "/tmp/cv_file_test_XXXXXX";
static char path[128];

static int make_folder(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return rmdir(folder);
}

static const char *name(const char *last)
{
    (void)snprintf(path, sizeof path, "%s/%s", folder, last);
    return path;
}

static void missing_large_and_odd_files_are_refused(void **state)
{
    (void)state;
    struct cv_error error;
    struct cv_buf buf;
    cv_buf_init(&buf, 4);
    assert_status(cv_file_read(name("a"), CV_FILE_ANY, &buf, &error), CV_NOT_FOUND);
    assert_status(cv_file_read(folder, CV_FILE_ANY, &buf, &error), CV_CONFIG);
    assert_ok(cv_file_replace(name("a"), cv_slice_str("12345"), 0600, &error));
    assert_status(cv_file_read(path, CV_FILE_ANY, &buf, NULL), CV_CONFIG);
    assert_int_equal(cv_buf_len(&buf), 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_status(cv_file_read(path, CV_FILE_ANY, &buf, &error), CV_CONFIG);
    assert_int_equal(unlink(path), 0);
    assert_status(cv_file_replace(name("no/such"), cv_slice_str(""), 0600, &error), CV_IO);
    cv_buf_done(&buf);
}

static void a_secret_that_others_can_read_is_refused(void **state)
{
    (void)state;
    struct cv_buf buf;
    cv_buf_init(&buf, 100);
    assert_ok(cv_file_replace(name("key"), cv_slice_str("secret"), 0640, NULL));
    assert_status(cv_file_read(path, CV_FILE_PRIVATE, &buf, NULL), CV_CONFIG);
    assert_int_equal(chmod(path, 0600), 0);
    assert_ok(cv_file_read(path, CV_FILE_PRIVATE, &buf, NULL));
    assert_true(cv_slice_is(cv_buf_slice(&buf), "secret"));
    assert_int_equal(unlink(path), 0);
    cv_buf_done(&buf);
}

static void of_many_creators_one_wins(void **state)
{
    (void)state;
    enum { COUNT = 8 };
    name("race");
    for (int i = 0; i < COUNT; i++) {
        if (fork() == 0) {
            bool is_created = false;
            char text[2] = {(char)('a' + i), 0};
            bool is_ok =
                cv_is_ok(cv_file_create(path, cv_slice_str(text), 0600, &is_created, NULL));
            _exit(is_ok ? is_created : 99);
        }
    }
    int winners = 0;
    for (int i = 0; i < COUNT; i++) {
        int status;
        assert_true(wait(&status) > 0 && WIFEXITED(status) && WEXITSTATUS(status) <= 1);
        winners += WEXITSTATUS(status);
    }
    assert_int_equal(winners, 1);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(unlink(path), 0);
}

static void folders_are_made_private(void **state)
{
    (void)state;
    struct stat st;
    assert_ok(cv_file_make_folder(name("x/y"), NULL));
    assert_ok(cv_file_make_folder(path, NULL));
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(rmdir(name("x")), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(missing_large_and_odd_files_are_refused),
        cmocka_unit_test(a_secret_that_others_can_read_is_refused),
        cmocka_unit_test(of_many_creators_one_wins),
        cmocka_unit_test(folders_are_made_private),
    };
    return cmocka_run_group_tests_name("file", tests, make_folder, remove_folder);
}
