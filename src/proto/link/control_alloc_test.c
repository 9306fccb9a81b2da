/* SPDX-License-Identifier: MIT
 *
 * Every allocation of encoding and decoding control messages fails once, jansson's among them: a
 * status, `out` as it was, no leak.
 */
#include "base/alloc_test.h"
#include "base/json.h"
#include "base/test.h"
#include "proto/link/control.h"

static const struct cv_link_control messages[] = {
    {.type = CV_LINK_ACK, .received = 123456789},
    {.type = CV_LINK_NOTICE, .code = "replaced", .tunnel = "home", .message = "by another \"one\""},
    {.type = CV_LINK_TOKEN, .token = "a.b.c"},
    {.type = CV_LINK_BYE, .code = "shutdown", .message = "later"},
};

static void every_allocation_may_fail(void **state)
{
    (void)state;
    static struct cv_link_control got;
    for (size_t i = 0; i < sizeof messages / sizeof messages[0]; i++) {
        struct cv_status encoded, decoded;
        struct cv_buf out;
        size_t n = 0;
        bool has_failed;
        do {
            cv_buf_init(&out, 65536);
            cv_test_alloc_fail_at(++n);
            encoded = cv_link_control_encode(&messages[i], &out);
            decoded =
                cv_is_ok(encoded) ? cv_link_control_decode(cv_buf_slice(&out), &got) : cv_ok();
            has_failed = cv_test_alloc_stop();
            if (!cv_is_ok(encoded))
                assert_int_equal(cv_buf_len(&out), 0);
            /* Jansson goes on without characters that it has no memory for: never is a text read or
             * written that is not the one meant. */
            if (cv_is_ok(encoded) && cv_is_ok(decoded))
                assert_memory_equal(&got, &messages[i], sizeof got);
            assert_true(has_failed || (cv_is_ok(encoded) && cv_is_ok(decoded)));
            assert_true(cv_is_ok(encoded) || encoded.id == CV_NO_MEMORY);
            assert_true(cv_is_ok(decoded) || decoded.id == CV_NO_MEMORY);
            cv_buf_done(&out);
        } while (has_failed);
        assert_true(n > 2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_allocation_may_fail)};
    cv_json_init_with(cv_test_malloc, cv_test_free);
    return cmocka_run_group_tests_name("link_alloc", tests, NULL, NULL);
}
