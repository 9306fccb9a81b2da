/* SPDX-License-Identifier: MIT */
#include "base/test.h"
#include "config/state_dir.h"

#include <sys/stat.h>
#include <unistd.h>

static void state_dir_is_made_for_its_owner_alone(void **state)
{
    (void)state;
    char folder[] = "/tmp/culvert-state-XXXXXX", want[128], got[128], small[8];
    struct stat st;
    struct cv_error error = {0};
    assert_non_null(mkdtemp(folder));
    (void)snprintf(want, sizeof want, "%s/a/b", folder);
    assert_ok(cv_state_dir_open(want, got, sizeof got, &error));
    assert_string_equal(got, want);
    assert_int_equal(stat(want, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_ok(cv_state_dir_open(want, got, sizeof got, &error));
    assert_status(cv_state_dir_open(want, small, sizeof small, &error), CV_CONFIG);
    assert_int_equal(chmod(want, 0770), 0);
    assert_status(cv_state_dir_open(want, got, sizeof got, &error), CV_IO);
    assert_non_null(strstr(error.detail, "others may write"));
    assert_int_equal(rmdir(want), 0);
    (void)snprintf(want, sizeof want, "%s/a", folder);
    assert_int_equal(rmdir(want), 0);
    assert_status(cv_state_dir_open("/dev/null/x", got, sizeof got, &error), CV_IO);

    assert_int_equal(setenv("XDG_STATE_HOME", folder, 1), 0);
    assert_ok(cv_state_dir_open(NULL, got, sizeof got, &error));
    (void)snprintf(want, sizeof want, "%s/culvert", folder);
    assert_string_equal(got, want);
    assert_int_equal(rmdir(want), 0);
    assert_int_equal(setenv("XDG_STATE_HOME", "relative", 1), 0);
    assert_int_equal(setenv("HOME", "", 1), 0);
    assert_status(cv_state_dir_open("", got, sizeof got, &error), CV_CONFIG);
    assert_ok(cv_state_dir_path("/a", "b", got, sizeof got, &error));
    assert_string_equal(got, "/a/b");
    assert_int_equal(rmdir(folder), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(state_dir_is_made_for_its_owner_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
