/* SPDX-License-Identifier: MIT */
#include "base/test.h"
#include "proto/link/control.h"
#include "proto/link/seq.h"

static void ack_of_what_was_never_sent_is_refused(void **state)
{
    (void)state;
    struct cv_link_seq seq;
    cv_link_seq_init(&seq, true, 100);
    assert_ok(cv_buf_append(&seq.replay, "0123456789", 10));
    cv_link_seq_framed(&seq, 4, 0);
    assert_status(cv_link_seq_acked(&seq, 5, 0), CV_WS_POLICY);
    assert_ok(cv_link_seq_acked(&seq, 3, 7));
    assert_ok(cv_link_seq_acked(&seq, 2, 8)); /* behind the last one: ignored */
    assert_int_equal(seq.acked, 3);
    assert_true(cv_slice_is(cv_link_seq_unframed(&seq), "456789"));
    assert_true(cv_slice_is(cv_buf_slice(&seq.replay), "3456789"));
    cv_link_seq_done(&seq);
}

static void rewind_replays_from_the_peers_offset(void **state)
{
    (void)state;
    struct cv_link_seq seq;
    cv_link_seq_init(&seq, true, 100);
    assert_ok(cv_buf_append(&seq.replay, "0123456789", 10));
    cv_link_seq_framed(&seq, 8, 0);
    assert_ok(cv_link_seq_acked(&seq, 2, 0));
    assert_status(cv_link_seq_rewind(&seq, 1, 0), CV_WS_POLICY);
    assert_status(cv_link_seq_rewind(&seq, 9, 0), CV_WS_POLICY);
    assert_ok(cv_link_seq_rewind(&seq, 5, 0));
    assert_true(cv_slice_is(cv_link_seq_unframed(&seq), "56789"));
    cv_link_seq_done(&seq);
}

static void full_replay_is_backpressure(void **state)
{
    (void)state;
    struct cv_link_seq seq;
    cv_link_seq_init(&seq, true, 8);
    assert_ok(cv_buf_append(&seq.replay, "01234567", 8));
    cv_link_seq_framed(&seq, 8, 0);
    assert_int_equal(cv_buf_room(&seq.replay), 0);
    assert_ok(cv_link_seq_acked(&seq, 6, 0));
    assert_int_equal(cv_buf_room(&seq.replay), 6);
    cv_link_seq_done(&seq);
}

static void acks_are_due_by_bytes_and_by_time(void **state)
{
    (void)state;
    struct cv_link_seq seq;
    cv_link_seq_init(&seq, true, 8);
    assert_false(cv_link_seq_ack_is_due(&seq, UINT64_MAX - 1));
    cv_link_seq_received(&seq, 1, 1000);
    assert_false(cv_link_seq_ack_is_due(&seq, 1000 + CV_LINK_ACK_MS - 1));
    assert_true(cv_link_seq_ack_is_due(&seq, 1000 + CV_LINK_ACK_MS));
    cv_link_seq_received(&seq, CV_LINK_ACK_SOON_BYTES - 2, 1001);
    assert_false(cv_link_seq_ack_is_due(&seq, 1000 + CV_LINK_ACK_MS - 1));
    cv_link_seq_received(&seq, 1, 1002);
    assert_false(cv_link_seq_ack_is_due(&seq, 1000 + CV_LINK_ACK_SOON_MS - 1));
    assert_true(cv_link_seq_ack_is_due(&seq, 1000 + CV_LINK_ACK_SOON_MS));
    cv_link_seq_received(&seq, CV_LINK_ACK_BYTES - CV_LINK_ACK_SOON_BYTES, 1002);
    assert_true(cv_link_seq_ack_is_due(&seq, 1001));
    assert_int_equal(cv_link_seq_take_ack(&seq), CV_LINK_ACK_BYTES);
    assert_false(cv_link_seq_ack_is_due(&seq, 99999));
    cv_link_seq_done(&seq);
}

static void foreign_links_keep_nothing(void **state)
{
    (void)state;
    struct cv_link_seq seq;
    cv_link_seq_init(&seq, false, 8);
    assert_ok(cv_buf_append(&seq.replay, "01234567", 8));
    cv_link_seq_framed(&seq, 8, 0);
    assert_int_equal(cv_buf_room(&seq.replay), 8);
    cv_link_seq_received(&seq, 1 << 20, 0);
    assert_false(cv_link_seq_ack_is_due(&seq, 99999));
    assert_status(cv_link_seq_acked(&seq, 8, 0), CV_WS_POLICY);
    cv_link_seq_done(&seq);
}

static void rtt_is_measured_by_acks(void **state)
{
    (void)state;
    struct cv_link_seq seq;
    cv_link_seq_init(&seq, true, 100);
    assert_ok(cv_buf_append(&seq.replay, "0123456789", 10));
    cv_link_seq_framed(&seq, 5, 100);
    cv_link_seq_framed(&seq, 5, 110);
    assert_ok(cv_link_seq_acked(&seq, 4, 120));
    assert_int_equal(seq.rtt_ms, 0);
    assert_ok(cv_link_seq_acked(&seq, 5, 140));
    assert_int_equal(seq.rtt_ms, 40);
    cv_link_seq_done(&seq);
}

/* Else every outage would make the next one harder to find. */
static void an_outage_is_no_round_trip(void **state)
{
    (void)state;
    struct cv_link_seq seq;
    cv_link_seq_init(&seq, true, 65536);
    assert_ok(cv_buf_append(&seq.replay, "0123456789", 10));
    cv_link_seq_framed(&seq, 10, 1000);
    assert_ok(cv_link_seq_rewind(&seq, 10, 41000));
    assert_int_equal(seq.acked, 10);
    assert_int_equal(seq.rtt_ms, 0);
    assert_ok(cv_buf_append(&seq.replay, "0123456789", 10));
    cv_link_seq_framed(&seq, 10, 41000);
    assert_ok(cv_link_seq_acked(&seq, 20, 41030));
    assert_int_equal(seq.rtt_ms, 30);
    cv_link_seq_done(&seq);
}

static void control_messages_survive_a_round_trip(void **state)
{
    (void)state;
    struct cv_buf out;
    cv_buf_init(&out, 65536);
    struct cv_link_control sent = {.type = CV_LINK_NOTICE, .after_ms = 1500}, got;
    (void)cv_slice_to_str(cv_slice_str("replaced"), sent.code, sizeof sent.code);
    (void)cv_slice_to_str(cv_slice_str("home"), sent.tunnel, sizeof sent.tunnel);
    (void)cv_slice_to_str(cv_slice_str("taken \"over\"\n"), sent.message, sizeof sent.message);
    assert_ok(cv_link_control_encode(&sent, &out));
    assert_ok(cv_link_control_decode(cv_buf_slice(&out), &got));
    assert_int_equal(got.type, CV_LINK_NOTICE);
    assert_int_equal(got.after_ms, 1500);
    assert_string_equal(got.code, "replaced");
    assert_string_equal(got.message, "taken \"over\" ");
    cv_buf_consume(&out, cv_buf_len(&out));
    char ack[CV_LINK_ACK_TEXT_MAX];
    assert_ok(cv_link_control_decode(cv_link_ack_encode(1ULL << 52, ack), &got));
    assert_true(got.received == 1ULL << 52);
    cv_buf_done(&out);
}

static void bad_control_messages_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "[]",
        "{}",
        "{\"type\":1}",
        "{\"type\":\"ack\"}",
        "{\"type\":\"ack\",\"received\":-1}",
        "{\"type\":\"ack\",\"received\":1.5}",
        "{\"type\":\"ack\",\"received\":\"1\"}",
        "{\"type\":\"ack\",\"received\":9007199254740993}",
        "{\"type\":\"ack\",\"type\":\"bye\",\"received\":1}",
        "{\"type\":\"notice\",\"code\":5}",
        "{\"type\":\"notice\",\"code\":\"a\\u0000b\"}",
        "{\"type\":\"ack\",\"received\":1} x",
    };
    struct cv_link_control got;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_status(cv_link_control_decode(cv_slice_str(bad[i]), &got), CV_WS_POLICY);
    assert_status(cv_link_control_decode(cv_slice_str("{\"type\":\"later\"}"), &got), CV_AGAIN);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ack_of_what_was_never_sent_is_refused),
        cmocka_unit_test(rewind_replays_from_the_peers_offset),
        cmocka_unit_test(full_replay_is_backpressure),
        cmocka_unit_test(acks_are_due_by_bytes_and_by_time),
        cmocka_unit_test(foreign_links_keep_nothing),
        cmocka_unit_test(rtt_is_measured_by_acks),
        cmocka_unit_test(an_outage_is_no_round_trip),
        cmocka_unit_test(control_messages_survive_a_round_trip),
        cmocka_unit_test(bad_control_messages_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
