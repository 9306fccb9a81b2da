/* SPDX-License-Identifier: MIT */
#include "base/bytes.h"
#include "base/digest.h"
#include "base/test.h"
#include "proto/link/resume.h"

#include <string.h>

static const uint8_t secret[CV_LINK_SECRET_LEN] = {1, 2, 3};

static struct cv_link_claim make_claim(uint64_t counter, uint64_t received)
{
    struct cv_link_claim claim = {.counter = counter, .received = received};
    memset(claim.link_id, 0xab, sizeof claim.link_id);
    memset(claim.nonce, 0xcd, sizeof claim.nonce);
    cv_link_claim_prove(&claim, secret, claim.proof);
    return claim;
}

static const struct cv_link_standing standing = {
    .secret = secret, .counter = 4, .acked = 100, .framed = 200};

static void a_good_claim_holds(void **state)
{
    (void)state;
    for (uint64_t received = 100; received <= 200; received += 50) {
        struct cv_link_claim claim = make_claim(5, received);
        assert_ok(cv_link_claim_check(&claim, &standing));
    }
}

static void a_changed_claim_is_no_proof(void **state)
{
    (void)state;
    struct cv_link_claim good = make_claim(5, 150);
    for (size_t i = 0; i < sizeof good * 8; i++) {
        struct cv_link_claim claim = good;
        ((uint8_t *)&claim)[i / 8] ^= (uint8_t)(1 << i % 8);
        if (memcmp(&claim, &good, sizeof claim) != 0 &&
            (claim.counter != good.counter || claim.received != good.received ||
             memcmp(claim.link_id, good.link_id, sizeof claim.link_id) != 0 ||
             memcmp(claim.nonce, good.nonce, sizeof claim.nonce) != 0 ||
             memcmp(claim.proof, good.proof, sizeof claim.proof) != 0))
            assert_status(cv_link_claim_check(&claim, &standing), CV_RESUME_PROOF);
    }
}

static void a_claim_is_good_once(void **state)
{
    (void)state;
    for (uint64_t counter = 1; counter <= 4; counter++) {
        struct cv_link_claim claim = make_claim(counter, 150);
        assert_status(cv_link_claim_check(&claim, &standing), CV_RESUME_CONFLICT);
    }
}

static void offsets_that_are_not_kept_are_refused(void **state)
{
    (void)state;
    static const uint64_t offsets[] = {0, 99, 201, 1ULL << 53};
    for (size_t i = 0; i < 4; i++) {
        struct cv_link_claim claim = make_claim(5, offsets[i]);
        assert_status(cv_link_claim_check(&claim, &standing), CV_RESUME_UNKNOWN);
    }
}

static void nothing_is_resumed_before_the_first_keys(void **state)
{
    (void)state;
    struct cv_link_standing early = standing;
    struct cv_link_claim claim = make_claim(5, 150);
    early.secret = NULL;
    assert_status(cv_link_claim_check(&claim, &early), CV_RESUME_UNKNOWN);
}

/* Byte by byte as docs/PROTOCOL.md lists them. */
static void proofs_cover_what_the_protocol_says(void **state)
{
    (void)state;
    struct cv_link_claim claim = make_claim(5, 150);
    uint8_t bytes[73], want[32], got[32];
    bytes[0] = 'A';
    memset(bytes + 1, 0xab, 16);
    cv_put_u64(bytes + 17, 5);
    memset(bytes + 25, 0xcd, 32);
    cv_put_u64(bytes + 57, 150);
    cv_put_u64(bytes + 65, 777);
    cv_hmac_sha256(cv_slice(secret, sizeof secret), cv_slice(bytes, 65), want);
    assert_memory_equal(claim.proof, want, sizeof want);
    bytes[0] = 'R';
    cv_hmac_sha256(cv_slice(secret, sizeof secret), cv_slice(bytes, 73), want);
    cv_link_answer_prove(&claim, 777, secret, got);
    assert_memory_equal(got, want, sizeof want);
}

static void only_whole_claims_are_read(void **state)
{
    (void)state;
    char id[33], long_hex[65];
    memset(id, 'a', 32);
    memset(long_hex, 'b', 64);
    id[32] = long_hex[64] = 0;
    const struct cv_link_claim_text good = {cv_slice_str(id), cv_slice_str("12"),
                                            cv_slice_str(long_hex), cv_slice_str("0"),
                                            cv_slice_str(long_hex)};
    struct cv_link_claim claim;
    assert_ok(cv_link_claim_parse(&good, &claim));
    assert_int_equal(claim.counter, 12);
    static const char *const bad_numbers[] = {"",
                                              "-1",
                                              "+1",
                                              " 1",
                                              "1 ",
                                              "1x",
                                              "0x1",
                                              "9007199254740993",
                                              "1.0",
                                              "1e3",
                                              "18446744073709551617"};
    for (size_t i = 0; i < sizeof bad_numbers / sizeof bad_numbers[0]; i++) {
        struct cv_link_claim_text text = good;
        text.counter = cv_slice_str(bad_numbers[i]);
        assert_status(cv_link_claim_parse(&text, &claim), CV_INVALID);
        text = good;
        text.received = cv_slice_str(bad_numbers[i]);
        assert_status(cv_link_claim_parse(&text, &claim), CV_INVALID);
    }
    struct cv_link_claim_text text = good;
    text.counter = cv_slice_str("0");
    assert_status(cv_link_claim_parse(&text, &claim), CV_INVALID);
    struct cv_slice *const hexes[] = {&text.link_id, &text.nonce, &text.proof};
    for (size_t i = 0; i < 3; i++) {
        text = good;
        hexes[i]->len--;
        assert_status(cv_link_claim_parse(&text, &claim), CV_INVALID);
        *hexes[i] = cv_slice(NULL, 0);
        assert_status(cv_link_claim_parse(&text, &claim), CV_INVALID);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_claim_holds),
        cmocka_unit_test(a_changed_claim_is_no_proof),
        cmocka_unit_test(a_claim_is_good_once),
        cmocka_unit_test(offsets_that_are_not_kept_are_refused),
        cmocka_unit_test(nothing_is_resumed_before_the_first_keys),
        cmocka_unit_test(proofs_cover_what_the_protocol_says),
        cmocka_unit_test(only_whole_claims_are_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
