/* SPDX-License-Identifier: MIT
 *
 * Names outlive the process, for a day, and are not to be read in the file.
 */
#include "base/buf.h"
#include "base/digest.h"
#include "base/file.h"
#include "base/test.h"
#include "relay/recall.h"
#include "relay/session_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NOW_S = 1000000, NOW_MS = 5000000 };

struct bench {
    char folder[64], path[80];
    struct cv_user_key alice, bob;
    struct cv_registry *registry;
    struct cv_session *session;
};

static int setup(void **state)
{
    struct bench *b = calloc(1, sizeof *b);
    assert_non_null(b);
    (void)snprintf(b->folder, sizeof b->folder, "/tmp/culvert-recall-XXXXXX");
    assert_non_null(mkdtemp(b->folder));
    (void)snprintf(b->path, sizeof b->path, "%s/names", b->folder);
    memset(b->alice.bytes, 1, sizeof b->alice.bytes);
    memset(b->bob.bytes, 2, sizeof b->bob.bytes);
    assert_ok(cv_registry_new(&b->registry));
    b->session = calloc(1, sizeof *b->session);
    assert_non_null(b->session);
    atomic_init(&b->session->refs, 1);
    *state = b;
    return 0;
}

static int teardown(void **state)
{
    struct bench *b = *state;
    cv_registry_free(&b->registry);
    cv_session_unref(&b->session);
    (void)unlink(b->path);
    assert_int_equal(rmdir(b->folder), 0);
    free(b);
    return 0;
}

static void publish(struct bench *b, const struct cv_user_key *user, const char *name)
{
    struct cv_tunnel_spec *spec;
    size_t displaced;
    assert_ok(cv_tunnel_spec_default(cv_slice_str(name), CV_TUNNEL_HTTP, &spec));
    assert_ok(cv_registry_publish(b->registry, user, b->session, spec, 80, NULL, 0, &displaced));
    cv_tunnel_spec_unref(&spec);
}

static struct cv_recall *load(struct bench *b, int64_t now_s)
{
    struct cv_recall *recall;
    assert_ok(cv_recall_new(b->path, now_s, &recall, NULL));
    return recall;
}

static void save(struct bench *b, const struct cv_recall *recall, int64_t now_s)
{
    assert_ok(cv_recall_save(recall, b->registry, NOW_MS, now_s, NULL));
}

static void names_are_known_to_the_next_process_for_a_day(void **state)
{
    struct bench *b = *state;
    struct cv_recall *first = load(b, NOW_S);
    assert_false(cv_recall_has(first, &b->alice, cv_slice_str("home"), NOW_S));
    publish(b, &b->alice, "home");
    save(b, first, NOW_S);
    cv_recall_free(&first);
    struct cv_recall *next = load(b, NOW_S + 10);
    assert_true(cv_recall_has(next, &b->alice, cv_slice_str("home"), NOW_S + 10));
    assert_false(cv_recall_has(next, &b->bob, cv_slice_str("home"), NOW_S + 10));
    assert_false(cv_recall_has(next, &b->alice, cv_slice_str("hom"), NOW_S + 10));
    assert_true(cv_recall_has(next, &b->alice, cv_slice_str("home"), NOW_S + CV_RECALL_S - 1));
    assert_false(cv_recall_has(next, &b->alice, cv_slice_str("home"), NOW_S + CV_RECALL_S));
    cv_recall_free(&next);
    next = load(b, NOW_S + CV_RECALL_S);
    assert_false(cv_recall_has(next, &b->alice, cv_slice_str("home"), NOW_S));
    cv_recall_free(&next);
}

static void what_a_process_did_not_see_itself_is_kept(void **state)
{
    struct bench *b = *state;
    struct cv_recall *first = load(b, NOW_S);
    publish(b, &b->alice, "home");
    cv_registry_withdraw(b->registry, &b->alice, b->session, cv_slice_str(""), NOW_MS - 60000);
    save(b, first, NOW_S);
    cv_recall_free(&first);
    cv_registry_free(&b->registry);
    assert_ok(cv_registry_new(&b->registry));
    struct cv_recall *second = load(b, NOW_S);
    publish(b, &b->bob, "other");
    save(b, second, NOW_S);
    cv_recall_free(&second);
    struct cv_recall *third = load(b, NOW_S);
    assert_true(cv_recall_has(third, &b->alice, cv_slice_str("home"), NOW_S));
    assert_true(cv_recall_has(third, &b->bob, cv_slice_str("other"), NOW_S));
    /* It was gone for a minute when it was written down. */
    assert_false(cv_recall_has(third, &b->alice, cv_slice_str("home"), NOW_S + CV_RECALL_S - 60));
    cv_recall_free(&third);
}

static void the_file_holds_no_names(void **state)
{
    struct bench *b = *state;
    struct cv_recall *recall = load(b, NOW_S);
    struct cv_buf text;
    publish(b, &b->alice, "secret-project");
    save(b, recall, NOW_S);
    cv_buf_init(&text, 4096);
    assert_ok(cv_file_read(b->path, CV_FILE_PRIVATE, &text, NULL));
    assert_null(memmem(cv_buf_head(&text), cv_buf_len(&text), "secret", 6));
    cv_buf_done(&text);
    cv_recall_free(&recall);
}

static void a_broken_file_is_passed_over(void **state)
{
    struct bench *b = *state;
    static const char text[] = "\n\nxyz\n0123456789abcdef0123456789abcdef\n"
                               "0123456789abcdef0123456789abcdef -1\n"
                               "0123456789abcdef0123456789abcdef 99999999999999999999999\n"
                               "0123456789abcdef0123456789abcdef 1000000";
    assert_ok(cv_file_replace(b->path, cv_slice_str(text), 0600, NULL));
    struct cv_recall *recall = load(b, NOW_S);
    assert_false(cv_recall_has(recall, &b->alice, cv_slice_str("home"), NOW_S));
    publish(b, &b->alice, "home");
    save(b, recall, NOW_S);
    cv_recall_free(&recall);
    recall = load(b, NOW_S);
    assert_true(cv_recall_has(recall, &b->alice, cv_slice_str("home"), NOW_S));
    cv_recall_free(&recall);
}

static void the_registry_says_that_the_agent_is_away(void **state)
{
    struct bench *b = *state;
    struct cv_route route;
    struct cv_slice home = cv_slice_str("home");
    struct cv_recall *recall = load(b, NOW_S);
    publish(b, &b->alice, "home");
    save(b, recall, NOW_S);
    cv_recall_free(&recall);
    cv_registry_free(&b->registry);
    assert_ok(cv_registry_new(&b->registry));
    assert_status(cv_registry_find(b->registry, &b->alice, NULL, home, 0, NOW_MS, &route),
                  CV_NO_TUNNEL);
    recall = load(b, NOW_S);
    cv_registry_set_recall(b->registry, recall, NOW_MS, NOW_S);
    assert_status(cv_registry_find(b->registry, &b->alice, NULL, home, 0, NOW_MS, &route),
                  CV_AGENT_OFFLINE);
    assert_status(cv_registry_find(b->registry, &b->bob, NULL, home, 0, NOW_MS, &route),
                  CV_NO_TUNNEL);
    /* Whom it may have been shared with is not kept: nobody else hears of it. */
    const struct cv_guest guest = {0};
    assert_status(cv_registry_find(b->registry, &b->alice, &guest, home, 0, NOW_MS, &route),
                  CV_NO_TUNNEL);
    uint64_t later_ms = NOW_MS + (uint64_t)CV_RECALL_S * 1000;
    assert_status(cv_registry_find(b->registry, &b->alice, NULL, home, 0, later_ms, &route),
                  CV_NO_TUNNEL);
    cv_registry_free(&b->registry);
    cv_recall_free(&recall);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(names_are_known_to_the_next_process_for_a_day, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(what_a_process_did_not_see_itself_is_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(the_file_holds_no_names, setup, teardown),
        cmocka_unit_test_setup_teardown(a_broken_file_is_passed_over, setup, teardown),
        cmocka_unit_test_setup_teardown(the_registry_says_that_the_agent_is_away, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
