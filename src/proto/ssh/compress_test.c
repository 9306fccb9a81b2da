/* SPDX-License-Identifier: MIT */
#include "proto/ssh/compress.h"

#include "base/test.h"

#include <stdlib.h>

enum { PAYLOAD = 34000 };

static void a_small_packet_cannot_grow_without_limit(void **state)
{
    (void)state;
    struct cv_ssh_zlib *deflate, *inflate;
    static uint8_t plain[PAYLOAD], packed[PAYLOAD], again[PAYLOAD];
    size_t len, out_len;
    assert_ok(cv_ssh_zlib_new(&deflate, true));
    assert_ok(cv_ssh_zlib_new(&inflate, false));
    assert_ok(cv_ssh_zlib_deflate(deflate, cv_slice(plain, 1), cv_slice(plain, PAYLOAD - 1), packed,
                                  sizeof packed, &len));
    assert_true(len < 200);
    assert_status(cv_ssh_zlib_inflate(inflate, cv_slice(packed, len), again, PAYLOAD - 1, &out_len),
                  CV_SSH_LIMIT);
    cv_ssh_zlib_free(&deflate);
    cv_ssh_zlib_free(&inflate);
    assert_null(inflate);
}

static void what_is_not_a_stream_is_refused(void **state)
{
    (void)state;
    struct cv_ssh_zlib *inflate;
    uint8_t out[100];
    size_t len;
    assert_ok(cv_ssh_zlib_new(&inflate, false));
    assert_status(cv_ssh_zlib_inflate(inflate, cv_slice_str("hello"), out, sizeof out, &len),
                  CV_SSH_PROTOCOL);
    cv_ssh_zlib_free(&inflate);
}

/* Bytes that cannot be compressed fit in what the packet code sets aside for them. */
static void payloads_come_back_and_never_grow_too_much(void **state)
{
    (void)state;
    struct cv_ssh_zlib *deflate, *inflate;
    static uint8_t plain[PAYLOAD], packed[PAYLOAD + CV_SSH_DEFLATE_OVERHEAD], again[PAYLOAD + 1];
    uint32_t seed = 7;
    assert_ok(cv_ssh_zlib_new(&deflate, true));
    assert_ok(cv_ssh_zlib_new(&inflate, false));
    for (int i = 0; i < 50; i++) {
        size_t size = i == 0 ? PAYLOAD : 1 + (seed >> 8) % PAYLOAD, len, out_len;
        for (size_t k = 0; k < size; k++) {
            seed = seed * 1664525 + 1013904223;
            plain[k] = i % 3 == 2 ? (uint8_t)(k >> 4) : (uint8_t)(seed >> 24);
        }
        size_t head = size < 9 ? size : 9;
        assert_ok(cv_ssh_zlib_deflate(deflate, cv_slice(plain, head),
                                      cv_slice(plain + head, size - head), packed,
                                      size + CV_SSH_DEFLATE_OVERHEAD, &len));
        assert_ok(
            cv_ssh_zlib_inflate(inflate, cv_slice(packed, len), again, sizeof again, &out_len));
        assert_int_equal(out_len, size);
        assert_memory_equal(again, plain, size);
    }
    cv_ssh_zlib_free(&deflate);
    cv_ssh_zlib_free(&inflate);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_small_packet_cannot_grow_without_limit),
        cmocka_unit_test(what_is_not_a_stream_is_refused),
        cmocka_unit_test(payloads_come_back_and_never_grow_too_much),
    };
    return cmocka_run_group_tests_name("ssh_compress", tests, NULL, NULL);
}
