/* SPDX-License-Identifier: MIT
 *
 * Without random bytes nothing goes on: cv_random ends the process when the kernel gives none, and
 * a session fails when the crypto library cannot make a key share. Short and interrupted answers of
 * the kernel are no failure.
 */
#include "base/digest.h"
#include "proto/ssh/transport_pair.h"

#include <errno.h>
#include <openssl/evp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

static enum { WORKS, IS_SHORT, IS_INTERRUPTED, FAILS, GIVES_NOTHING, HAS_NO_KEYS } mode;
static unsigned calls;

ssize_t __real_getrandom(void *out, size_t len, unsigned flags);
ssize_t __wrap_getrandom(void *out, size_t len, unsigned flags);
EVP_PKEY *__real_EVP_PKEY_Q_keygen(OSSL_LIB_CTX *context, const char *properties, const char *type,
                                   ...);
EVP_PKEY *__wrap_EVP_PKEY_Q_keygen(OSSL_LIB_CTX *context, const char *properties, const char *type,
                                   ...);

ssize_t __wrap_getrandom(void *out, size_t len, unsigned flags)
{
    calls++;
    switch (mode) {
    case WORKS:
    case HAS_NO_KEYS:
        break;
    case IS_SHORT:
        return __real_getrandom(out, len < 3 ? len : 3, flags);
    case IS_INTERRUPTED:
        if (calls % 3) {
            errno = EINTR;
            return -1;
        }
        break;
    case FAILS:
        errno = ENOSYS;
        return -1;
    case GIVES_NOTHING:
        return 0;
    }
    return __real_getrandom(out, len, flags);
}

EVP_PKEY *__wrap_EVP_PKEY_Q_keygen(OSSL_LIB_CTX *context, const char *properties, const char *type,
                                   ...)
{
    return mode == HAS_NO_KEYS ? NULL : __real_EVP_PKEY_Q_keygen(context, properties, type);
}

static void ask_for_bytes(void)
{
    uint8_t bytes[32];
    cv_random(bytes, sizeof bytes);
}

static void start_a_session(void)
{
    struct cv_ssh_transport_options options = {.role = CV_SSH_CLIENT};
    struct cv_buf out;
    cv_buf_init(&out, CV_SSH_OUT_MIN);
    struct cv_ssh_transport *t = cv_ssh_transport_new(&options, &out, 1);
    cv_ssh_transport_free(&t);
    cv_buf_done(&out);
}

/* In a process of its own, which has to end by abort(). */
static void expect_end(void (*act)(void))
{
    (void)fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        struct rlimit none = {0};
        (void)setrlimit(RLIMIT_CORE, &none);
        (void)signal(SIGABRT, SIG_DFL);
        (void)!freopen("/dev/null", "w", stderr);
        act();
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void no_random_bytes_end_the_process(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        mode = i ? GIVES_NOTHING : FAILS;
        expect_end(ask_for_bytes);
        expect_end(start_a_session);
    }
    mode = WORKS;
}

static void bytes_in_pieces_are_all_taken(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        uint8_t bytes[64] = {0}, zeros[8] = {0};
        mode = i ? IS_INTERRUPTED : IS_SHORT;
        cv_random(bytes, sizeof bytes);
        mode = WORKS;
        for (size_t at = 0; at < sizeof bytes; at += sizeof zeros)
            assert_memory_not_equal(bytes + at, zeros, sizeof zeros);
    }
}

static void no_key_share_ends_the_session(void **state)
{
    (void)state;
    struct cv_ssh_pair pair;
    cv_ssh_pair_start(&pair);
    mode = HAS_NO_KEYS;
    cv_ssh_pair_run(&pair);
    mode = WORKS;
    assert_status(pair.client.status, CV_INTERNAL);
    assert_false(pair.client.is_established || pair.server.is_established);
    cv_ssh_pair_done(&pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_random_bytes_end_the_process),
        cmocka_unit_test(bytes_in_pieces_are_all_taken),
        cmocka_unit_test(no_key_share_ends_the_session),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
