/* SPDX-License-Identifier: MIT
 *
 * Every allocation of ours fails once, in turn: loading ends with CV_NO_MEMORY or a problem that
 * says less, never with a crash; leaks show under ASan.
 */
#include "base/alloc_test.h"
#include "base/test.h"
#include "config/agent_config.h"

static const char good[] = "server: wss://a\n"
                           "tunnels:\n"
                           "  - {name: a, target: 80, allow: [GET /, POST /x]}\n"
                           "  - {name: b, target: 'h:1'}\n"
                           "ssh: {ciphers: [aes256-gcm@openssh.com], max_channels: 3}\n";
static const char bad[] = "server: nowhere\nworkers: 3\nssh: {max_channels: 0, max_channels: 1}\n";

/* Loads `text` with allocation `n` failing; whether it got that far. */
static bool load(const char *text, size_t n, struct cv_status *status, size_t *complaints)
{
    struct cv_problems problems;
    struct cv_agent_config config = {0};
    cv_problems_init(&problems);
    cv_test_alloc_fail_at(n);
    *status = cv_settings_load_text(&cv_agent_schema, &config, cv_slice_str(text), "x", &problems);
    bool has_failed = cv_test_alloc_stop();
    *complaints = problems.count + problems.unlisted;
    cv_settings_done(&cv_agent_schema, &config);
    cv_problems_done(&problems);
    return has_failed;
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    struct cv_status status;
    size_t complaints;
    size_t n = 1;
    for (; load(good, n, &status, &complaints); n++) {
        assert_status(status, CV_NO_MEMORY);
        assert_int_equal(complaints, 0);
    }
    assert_ok(status);
    assert_true(n > 50);
    for (n = 1; load(bad, n, &status, &complaints); n++)
        assert_true(status.id == CV_NO_MEMORY || (status.id == CV_CONFIG && complaints == 4));
    assert_status(status, CV_CONFIG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_allocation_may_fail)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
