/* SPDX-License-Identifier: MIT
 *
 * Every allocation of ours fails once, in turn: loading ends with CV_NO_MEMORY or a problem that
 * says less, never with a crash; leaks show under ASan. The linker puts these wrappers before
 * libc's.
 */
#include "base/test.h"
#include "config/agent_config.h"

static long countdown;

static bool fails(void)
{
    return countdown > 0 && --countdown == 0;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *old, size_t size);
void *__real_reallocarray(void *old, size_t count, size_t size);
char *__real_strdup(const char *text);
char *__real_strndup(const char *text, size_t len);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *old, size_t size);
void *__wrap_reallocarray(void *old, size_t count, size_t size);
char *__wrap_strdup(const char *text);
char *__wrap_strndup(const char *text, size_t len);

void *__wrap_malloc(size_t size)
{
    return fails() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return fails() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *old, size_t size)
{
    return fails() ? NULL : __real_realloc(old, size);
}

void *__wrap_reallocarray(void *old, size_t count, size_t size)
{
    return fails() ? NULL : __real_reallocarray(old, count, size);
}

char *__wrap_strdup(const char *text)
{
    return fails() ? NULL : __real_strdup(text);
}

char *__wrap_strndup(const char *text, size_t len)
{
    return fails() ? NULL : __real_strndup(text, len);
}

static const char good[] = "server: wss://a\n"
                           "tunnels:\n"
                           "  - {name: a, target: 80, allow: [GET /, POST /x]}\n"
                           "  - {name: b, target: 'h:1'}\n"
                           "ssh: {ciphers: [aes256-gcm@openssh.com], max_channels: 3}\n";
static const char bad[] = "server: nowhere\nworkers: 3\nssh: {max_channels: 0, max_channels: 1}\n";

/* Loads `text` with allocation `n` failing; whether it got that far. */
static bool load(const char *text, long n, struct cv_status *status, size_t *complaints)
{
    struct cv_problems problems;
    struct cv_agent_config config = {0};
    cv_problems_init(&problems);
    countdown = n;
    *status = cv_settings_load_text(&cv_agent_schema, &config, cv_slice_str(text), "x", &problems);
    bool has_failed = countdown == 0;
    countdown = 0;
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
    long n = 1;
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
