/* SPDX-License-Identifier: MIT */
#include "base/file.h"
#include "base/json.h"
#include "base/test.h"
#include "relay/revocation.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { NOW = 1000000 };

struct bench {
    char folder[64], path[80];
    struct cv_revocations *revocations;
};

static int setup(void **state)
{
    struct bench *b = calloc(1, sizeof *b);
    assert_non_null(b);
    (void)snprintf(b->folder, sizeof b->folder, "/tmp/culvert-revocation-XXXXXX");
    assert_non_null(mkdtemp(b->folder));
    (void)snprintf(b->path, sizeof b->path, "%s/list", b->folder);
    assert_ok(cv_revocations_new(b->path, NOW, &b->revocations, NULL));
    *state = b;
    return 0;
}

static int teardown(void **state)
{
    struct bench *b = *state;
    cv_revocations_free(&b->revocations);
    (void)unlink(b->path);
    assert_int_equal(rmdir(b->folder), 0);
    free(b);
    return 0;
}

static struct cv_identity who(const char *subject, const char *jti, int64_t issued_s)
{
    struct cv_identity identity = {.issued_s = issued_s};
    (void)snprintf(identity.subject, sizeof identity.subject, "%s", subject);
    (void)snprintf(identity.jti, sizeof identity.jti, "%s", jti);
    return identity;
}

static bool covers(struct cv_revocations *r, const char *subject, const char *jti, int64_t issued_s)
{
    struct cv_identity identity = who(subject, jti, issued_s);
    return cv_revocations_cover(r, &identity);
}

static void add(struct cv_revocations *r, const struct cv_revocation_request *request, char id[17])
{
    char unused[CV_REVOCATION_ID_LEN + 1];
    assert_ok(cv_revocations_add(r, request, NOW, id ? id : unused, NULL));
    assert_ok(cv_revocations_save(r, NULL));
}

static void a_jti_covers_one_token(void **state)
{
    struct bench *b = *state;
    add(b->revocations, &(struct cv_revocation_request){.jti = "one", .by = "root"}, NULL);
    assert_true(covers(b->revocations, "alice", "one", 5));
    assert_false(covers(b->revocations, "alice", "two", 5));
    assert_false(covers(b->revocations, "one", "", 5));
}

static void a_subject_covers_what_was_issued_before(void **state)
{
    struct bench *b = *state;
    struct cv_revocation_request request = {
        .subject = "alice", .issued_before_s = 100, .by = "root"};
    add(b->revocations, &request, NULL);
    assert_true(covers(b->revocations, "alice", "any", 99));
    assert_true(covers(b->revocations, "alice", "", 0)); /* does not say */
    assert_false(covers(b->revocations, "alice", "any", 100));
    assert_false(covers(b->revocations, "alic", "any", 99));
    assert_false(covers(b->revocations, "bob", "alice", 99));
    /* An earlier moment does not make revoked tokens good again. */
    request.issued_before_s = 50;
    add(b->revocations, &request, NULL);
    assert_true(covers(b->revocations, "alice", "any", 99));
    assert_int_equal(cv_revocations_count(b->revocations), 1);
}

static void it_is_kept(void **state)
{
    struct bench *b = *state;
    char id[CV_REVOCATION_ID_LEN + 1];
    add(b->revocations,
        &(struct cv_revocation_request){.jti = "o\"ne", .by = "root", .reason = "lost"}, id);
    cv_revocations_free(&b->revocations);
    assert_ok(cv_revocations_new(b->path, NOW, &b->revocations, NULL));
    assert_true(covers(b->revocations, "alice", "o\"ne", 5));
    json_t *list = cv_revocations_list(b->revocations);
    assert_string_equal(json_string_value(json_object_get(json_array_get(list, 0), "id")), id);
    json_decref(list);
    assert_ok(cv_revocations_remove(b->revocations, id));
    assert_false(covers(b->revocations, "alice", "o\"ne", 5));
    assert_status(cv_revocations_remove(b->revocations, id), CV_NOT_FOUND);
}

static void it_ends_with_its_time(void **state)
{
    struct bench *b = *state;
    add(b->revocations,
        &(struct cv_revocation_request){.jti = "one", .by = "root", .expires_s = NOW + 10}, NULL);
    (void)cv_revocations_refresh(b->revocations, NOW + 9, NULL);
    assert_true(covers(b->revocations, "alice", "one", 5));
    (void)cv_revocations_refresh(b->revocations, NOW + 10, NULL);
    assert_false(covers(b->revocations, "alice", "one", 5));
    cv_revocations_free(&b->revocations);
    assert_ok(cv_revocations_new(b->path, NOW + 10, &b->revocations, NULL));
    assert_int_equal(cv_revocations_count(b->revocations), 0);
}

static void another_process_is_heard(void **state)
{
    struct bench *b = *state;
    struct cv_revocations *other;
    assert_ok(cv_revocations_new(b->path, NOW, &other, NULL));
    add(other, &(struct cv_revocation_request){.jti = "one", .by = "root"}, NULL);
    assert_false(covers(b->revocations, "alice", "one", 5));
    assert_true(cv_revocations_refresh(b->revocations, NOW, NULL));
    assert_true(covers(b->revocations, "alice", "one", 5));
    assert_false(cv_revocations_refresh(b->revocations, NOW, NULL));
    /* And what it has put there stays when we add to it. */
    add(other, &(struct cv_revocation_request){.jti = "two", .by = "root"}, NULL);
    add(b->revocations, &(struct cv_revocation_request){.jti = "three", .by = "root"}, NULL);
    assert_true(covers(b->revocations, "alice", "two", 5));
    cv_revocations_free(&other);
}

static void what_cannot_be_understood_is_no_empty_list(void **state)
{
    struct bench *b = *state;
    static const char *const texts[] = {"",
                                        "{}",
                                        "[",
                                        "[1]",
                                        "[{}]",
                                        "[{\"jti\":3}]",
                                        "[{\"jti\":\"\"}]",
                                        "[{\"sub\":\"a\",\"issued_before\":-1}]"};
    add(b->revocations, &(struct cv_revocation_request){.jti = "one", .by = "root"}, NULL);
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        struct cv_revocations *other;
        assert_ok(cv_file_replace(b->path, cv_slice_str(texts[i]), 0600, NULL));
        assert_status(cv_revocations_new(b->path, NOW, &other, NULL), CV_CONFIG);
        assert_false(cv_revocations_refresh(b->revocations, NOW, NULL));
        assert_true(covers(b->revocations, "alice", "one", 5));
    }
}

static void what_cannot_be_saved_holds_nevertheless(void **state)
{
    struct bench *b = *state;
    char id[CV_REVOCATION_ID_LEN + 1], moved[sizeof b->path + 8];
    struct cv_revocation_request request = {.jti = "one", .by = "root"};
    /* A folder in the place of the file. */
    assert_int_equal(mkdir(b->path, 0700), 0);
    (void)snprintf(moved, sizeof moved, "%s/x", b->path);
    assert_int_equal(mkdir(moved, 0700), 0);
    assert_ok(cv_revocations_add(b->revocations, &request, NOW, id, NULL));
    assert_status(cv_revocations_save(b->revocations, NULL), CV_IO);
    assert_true(covers(b->revocations, "alice", "one", 5));
    (void)cv_revocations_refresh(b->revocations, NOW, NULL);
    assert_true(covers(b->revocations, "alice", "one", 5));
    assert_int_equal(rmdir(moved), 0);
    assert_int_equal(rmdir(b->path), 0);
    /* The next one takes it along. */
    add(b->revocations, &(struct cv_revocation_request){.jti = "two", .by = "root"}, NULL);
    cv_revocations_free(&b->revocations);
    assert_ok(cv_revocations_new(b->path, NOW, &b->revocations, NULL));
    assert_true(covers(b->revocations, "alice", "one", 5));
    assert_true(covers(b->revocations, "alice", "two", 5));
}

static void what_is_not_saved_yet_outlives_a_change_by_others(void **state)
{
    struct bench *b = *state;
    struct cv_revocations *other;
    char id[CV_REVOCATION_ID_LEN + 1];
    assert_ok(cv_revocations_new(b->path, NOW, &other, NULL));
    struct cv_revocation_request request = {.jti = "mine", .by = "root"};
    assert_ok(cv_revocations_add(b->revocations, &request, NOW, id, NULL));
    add(other, &(struct cv_revocation_request){.jti = "theirs", .by = "root"}, NULL);
    assert_true(cv_revocations_refresh(b->revocations, NOW, NULL));
    assert_true(covers(b->revocations, "alice", "mine", 5));
    assert_true(covers(b->revocations, "alice", "theirs", 5));
    assert_ok(cv_revocations_save(b->revocations, NULL));
    assert_true(cv_revocations_refresh(other, NOW, NULL));
    assert_true(covers(other, "alice", "mine", 5));
    cv_revocations_free(&other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_jti_covers_one_token, setup, teardown),
        cmocka_unit_test_setup_teardown(a_subject_covers_what_was_issued_before, setup, teardown),
        cmocka_unit_test_setup_teardown(it_is_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(it_ends_with_its_time, setup, teardown),
        cmocka_unit_test_setup_teardown(another_process_is_heard, setup, teardown),
        cmocka_unit_test_setup_teardown(what_cannot_be_understood_is_no_empty_list, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(what_cannot_be_saved_holds_nevertheless, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_not_saved_yet_outlives_a_change_by_others, setup,
                                        teardown),
    };
    cv_json_init();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
