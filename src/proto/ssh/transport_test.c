/* SPDX-License-Identifier: MIT
 *
 * Two sessions back to back: tampering, deadlines, full buffers, every cipher, keys that change.
 */
#include "proto/ssh/transport_pair.h"

#include "proto/ssh/numbers.h"

static void every_tampered_byte_is_noticed(void **state)
{
    const char *cipher = *state;
    for (size_t at = 0;; at++) {
        struct cv_ssh_pair pair;
        struct cv_ssh_transport_options o = {.ciphers = cipher};
        cv_ssh_pair_start_with(&pair, o, o);
        cv_ssh_pair_establish(&pair);
        assert_ok(cv_ssh_side_send(&pair.client, 40));
        /* Enough behind it for a length that was made longer. */
        for (int i = 0; i < 3; i++)
            assert_ok(cv_ssh_side_send(&pair.client, 30000));
        size_t first = 4 + (*cipher == 'c' ? 56 : 64) + 16;
        if (at == first) {
            cv_ssh_pair_done(&pair);
            break;
        }
        cv_buf_head(&pair.client.out)[at] ^= (uint8_t)(1U << at % 8);
        cv_ssh_pair_run(&pair);
        assert_int_equal(pair.server.received, 0);
        /* A changed length may also wait for bytes that never come. */
        assert_true(pair.server.status.id == CV_SSH_MAC ||
                    pair.server.status.id == CV_SSH_PROTOCOL);
        assert_true(pair.client.disconnect_reason == CV_SSH_DISCONNECT_MAC_ERROR ||
                    pair.client.disconnect_reason == CV_SSH_DISCONNECT_PROTOCOL_ERROR);
        cv_ssh_pair_done(&pair);
    }
}

static void a_refused_host_key_ends_it(void **state)
{
    (void)state;
    struct cv_ssh_pair pair;
    cv_ssh_pair_start(&pair);
    pair.client.refuses_host = true;
    cv_ssh_pair_run(&pair);
    assert_status(pair.client.status, CV_HOST_KEY);
    assert_int_equal(pair.server.disconnect_reason, CV_SSH_DISCONNECT_HOST_KEY_NOT_VERIFIABLE);
    assert_false(pair.server.is_established);
    cv_ssh_pair_done(&pair);
}

static void an_unanswered_host_key_waits_and_times_out(void **state)
{
    (void)state;
    struct cv_ssh_pair pair;
    cv_ssh_pair_start(&pair);
    pair.client.keeps_waiting = true;
    cv_ssh_pair_run(&pair);
    assert_status(pair.client.status, CV_AGAIN);
    assert_false(cv_ssh_transport_wants_input(pair.client.t));
    assert_int_equal(cv_ssh_transport_deadline(pair.client.t), 31000);
    cv_ssh_transport_tick(pair.client.t, 30999);
    cv_ssh_side_drain(&pair.client, 30999);
    assert_status(pair.client.status, CV_AGAIN);
    /* No network for five seconds: the deadline moves. */
    cv_ssh_transport_pause(pair.client.t, 30999);
    assert_int_equal(cv_ssh_transport_deadline(pair.client.t), UINT64_MAX);
    cv_ssh_transport_tick(pair.client.t, 35000);
    cv_ssh_transport_resume(pair.client.t, 35999);
    cv_ssh_transport_tick(pair.client.t, 35999);
    cv_ssh_side_drain(&pair.client, 35999);
    assert_status(pair.client.status, CV_AGAIN);
    cv_ssh_transport_tick(pair.client.t, 36000);
    cv_ssh_side_drain(&pair.client, 36000);
    assert_status(pair.client.status, CV_CONN_TIMEOUT);
    cv_ssh_pair_done(&pair);
}

static void a_full_out_stops_the_input_until_it_is_drained(void **state)
{
    (void)state;
    struct cv_ssh_pair pair;
    cv_ssh_pair_start(&pair);
    cv_ssh_pair_establish(&pair);
    size_t room;
    while ((room = cv_ssh_transport_room(pair.server.t)) > 20)
        assert_ok(cv_ssh_side_send(&pair.server, room - 9));
    /* Bulk stops, small messages still go, down to the last reserve. */
    while (cv_is_ok(cv_ssh_side_send(&pair.server, 20)))
        ;
    assert_true(cv_buf_room(&pair.server.out) >= CV_SSH_RESERVE_OWN);
    assert_ok(cv_ssh_side_send(&pair.client, 100));
    cv_ssh_side_feed(&pair.server, cv_buf_head(&pair.client.out), cv_buf_len(&pair.client.out),
                     1000);
    cv_buf_consume(&pair.client.out, cv_buf_len(&pair.client.out));
    assert_int_equal(pair.server.received, 0);
    assert_false(cv_ssh_transport_wants_input(pair.server.t));
    cv_ssh_pair_run(&pair);
    assert_int_equal(pair.server.received, 1);
    assert_int_equal(pair.client.received, pair.server.sent);
    cv_ssh_pair_done(&pair);
}

static void every_cipher_carries_data(void **state)
{
    (void)state;
    static const char *const ciphers[] = {"aes256-gcm@openssh.com", "aes128-gcm@openssh.com",
                                          "chacha20-poly1305@openssh.com"};
    for (size_t i = 0; i < sizeof ciphers / sizeof *ciphers; i++) {
        for (int variant = 0; variant < 8; variant++) {
            struct cv_ssh_pair pair;
            struct cv_ssh_transport_options client = {
                .ciphers = ciphers[i], .has_compression = variant & 1, .has_guess = variant & 2};
            cv_ssh_pair_start_with(&pair, client,
                                   (struct cv_ssh_transport_options){.has_compression = true});
            pair.step = variant & 4 ? 1 : 0;
            cv_ssh_pair_establish(&pair);
            assert_string_equal(cv_ssh_transport_cipher(pair.server.t), ciphers[i]);
            pair.step = variant & 4 ? 997 : 0;
            cv_ssh_pair_exchange(&pair, 40, 32768);
            uint8_t a[32], b[32], c[32];
            assert_true(cv_ssh_transport_derive(pair.client.t, "x", a));
            cv_ssh_transport_rekey(pair.client.t);
            assert_false(cv_ssh_transport_can_send(pair.client.t));
            cv_ssh_pair_run(&pair);
            cv_ssh_pair_exchange(&pair, 4, 1000);
            assert_int_equal(pair.client.kex_done, 1);
            assert_int_equal(cv_ssh_transport_kex_count(pair.server.t), 2);
            assert_true(cv_ssh_transport_derive(pair.server.t, "x", b));
            assert_true(cv_ssh_transport_derive(pair.server.t, "y", c));
            assert_memory_equal(a, b, sizeof a);
            assert_memory_not_equal(a, c, sizeof a);
            char want[CV_SSH_HOST_KEY_FINGERPRINT_SIZE];
            cv_ssh_host_key_fingerprint(cv_ssh_host_key_blob(pair.key), want);
            assert_string_equal(pair.client.fingerprint, want);
            cv_ssh_pair_done(&pair);
        }
    }
}

static void keys_change_under_load_from_both_sides(void **state)
{
    (void)state;
    for (int variant = 0; variant < 4; variant++) {
        struct cv_ssh_pair pair;
        struct cv_ssh_transport_options often = {.rekey_bytes = 16384,
                                                 .has_compression = variant & 1};
        struct cv_ssh_transport_options seldom = {.has_compression = variant & 1};
        cv_ssh_pair_start_with(&pair, often, variant & 2 ? often : seldom);
        cv_ssh_pair_establish(&pair);
        pair.step = 5000;
        unsigned seed = 1;
        for (int i = 0; i < 4000; i++) {
            seed = seed * 1103515245 + 12345;
            struct cv_ssh_side *side = seed & 0x10000 ? &pair.client : &pair.server;
            size_t len = (seed >> 8) % 4000;
            if (len < cv_ssh_transport_room(side->t))
                assert_ok(cv_ssh_side_send(side, len));
            if (seed & 0x20000)
                (void)cv_ssh_pair_carry(&pair, &pair.client, &pair.server);
            if (seed & 0x40000)
                (void)cv_ssh_pair_carry(&pair, &pair.server, &pair.client);
            assert_status(pair.client.status, CV_AGAIN);
            assert_status(pair.server.status, CV_AGAIN);
        }
        cv_ssh_pair_run(&pair);
        assert_int_equal(pair.client.sent, pair.server.received);
        assert_int_equal(pair.server.sent, pair.client.received);
        assert_true(pair.client.sent > 100);
        assert_in_range(pair.client.kex_done, variant & 1 ? 3 : 20, 1000);
        assert_int_equal(cv_ssh_transport_kex_count(pair.client.t),
                         cv_ssh_transport_kex_count(pair.server.t));
        cv_ssh_pair_done(&pair);
    }
}

static void crossing_key_exchanges_are_one(void **state)
{
    (void)state;
    struct cv_ssh_pair pair;
    cv_ssh_pair_start(&pair);
    cv_ssh_pair_establish(&pair);
    assert_ok(cv_ssh_side_send(&pair.client, 100));
    assert_ok(cv_ssh_side_send(&pair.server, 100));
    cv_ssh_transport_rekey(pair.client.t);
    cv_ssh_transport_rekey(pair.server.t);
    cv_ssh_pair_run(&pair);
    assert_int_equal(cv_ssh_transport_kex_count(pair.client.t), 2);
    assert_int_equal(cv_ssh_transport_kex_count(pair.server.t), 2);
    cv_ssh_pair_exchange(&pair, 4, 1000);
    cv_ssh_pair_done(&pair);
}

static void a_rekey_under_way_is_not_asked_for_again(void **state)
{
    (void)state;
    struct cv_ssh_pair pair;
    cv_ssh_pair_start(&pair);
    cv_ssh_pair_establish(&pair);
    cv_ssh_transport_rekey(pair.client.t);
    cv_ssh_transport_rekey(pair.client.t);
    cv_ssh_pair_run(&pair);
    assert_int_equal(cv_ssh_transport_kex_count(pair.client.t), 2);
    cv_ssh_pair_done(&pair);
}

/* RFC 4253 §11.4: every one is answered, and §7.1 lets the answer out during a key exchange. */
static void unknown_messages_are_answered_during_a_key_exchange(void **state)
{
    (void)state;
    static const uint8_t numbers[] = {192, 127}; /* for the transport, and for the layer above */
    struct cv_ssh_pair pair;
    cv_ssh_pair_start(&pair);
    cv_ssh_pair_establish(&pair);
    assert_ok(cv_ssh_transport_send(pair.server.t, cv_slice(&numbers[0], 1), cv_slice(NULL, 0)));
    assert_ok(cv_ssh_transport_send(pair.server.t, cv_slice(&numbers[1], 1), cv_slice(NULL, 0)));
    cv_ssh_transport_rekey(pair.client.t);
    assert_false(cv_ssh_transport_can_send(pair.client.t));
    size_t before = cv_buf_len(&pair.client.out);
    struct cv_ssh_packet packet;
    struct cv_buf *from = &pair.server.out;
    assert_ok(cv_ssh_transport_feed(pair.client.t, cv_buf_head(from), cv_buf_len(from)));
    assert_ok(cv_ssh_transport_next(pair.client.t, pair.now_ms, &packet));
    assert_int_equal(packet.payload.data[0], 127);
    cv_ssh_transport_unimplemented(pair.client.t);
    assert_status(cv_ssh_transport_next(pair.client.t, pair.now_ms, &packet), CV_AGAIN);
    cv_buf_consume(from, cv_buf_len(from));
    assert_int_equal(cv_buf_len(&pair.client.out), before + 2 * 36UL);
    cv_ssh_pair_run(&pair);
    assert_int_equal(cv_ssh_transport_kex_count(pair.client.t), 2);
    cv_ssh_pair_exchange(&pair, 2, 100);
    cv_ssh_pair_done(&pair);
}

static void keys_change_by_age_and_a_silent_peer_is_dropped(void **state)
{
    (void)state;
    struct cv_ssh_pair pair;
    cv_ssh_pair_start(&pair);
    cv_ssh_pair_establish(&pair);
    pair.now_ms = cv_ssh_transport_deadline(pair.client.t);
    assert_int_equal(pair.now_ms, 1000 + 3600000);
    cv_ssh_transport_tick(pair.client.t, pair.now_ms);
    cv_ssh_pair_run(&pair);
    assert_int_equal(pair.client.kex_done, 1);
    cv_ssh_transport_rekey(pair.client.t);
    cv_ssh_transport_tick(pair.client.t, pair.now_ms);
    assert_int_equal(cv_ssh_transport_deadline(pair.client.t), pair.now_ms + 30000);
    cv_ssh_transport_tick(pair.client.t, pair.now_ms + 30000);
    cv_ssh_side_drain(&pair.client, pair.now_ms + 30000);
    assert_status(pair.client.status, CV_CONN_TIMEOUT);
    cv_ssh_pair_done(&pair);
}

static void key_exchanges_without_data_are_limited(void **state)
{
    (void)state;
    struct cv_ssh_pair pair;
    cv_ssh_pair_start(&pair);
    cv_ssh_pair_establish(&pair);
    int count = 0;
    while (pair.server.status.id == CV_AGAIN && count < 100) {
        cv_ssh_transport_rekey(pair.client.t);
        cv_ssh_pair_run(&pair);
        count++;
    }
    assert_status(pair.server.status, CV_SSH_LIMIT);
    assert_in_range(count, 15, 20);
    cv_ssh_pair_done(&pair);
}

static void a_disconnect_is_told(void **state)
{
    (void)state;
    struct cv_ssh_pair pair;
    cv_ssh_pair_start(&pair);
    cv_ssh_pair_establish(&pair);
    cv_ssh_transport_disconnect(pair.server.t, CV_SSH_DISCONNECT_BY_APPLICATION, "bye");
    cv_ssh_pair_run(&pair);
    assert_int_equal(pair.client.disconnect_reason, CV_SSH_DISCONNECT_BY_APPLICATION);
    assert_status(pair.client.status, CV_EOF);
    assert_status(pair.server.status, CV_EOF);
    assert_status(cv_ssh_side_send(&pair.client, 1), CV_AGAIN);
    cv_ssh_pair_done(&pair);
}

int main(void)
{
    static char gcm[] = "aes256-gcm@openssh.com", chacha[] = "chacha20-poly1305@openssh.com";
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(every_tampered_byte_is_noticed, gcm),
        cmocka_unit_test_prestate(every_tampered_byte_is_noticed, chacha),
        cmocka_unit_test(a_refused_host_key_ends_it),
        cmocka_unit_test(an_unanswered_host_key_waits_and_times_out),
        cmocka_unit_test(a_full_out_stops_the_input_until_it_is_drained),
        cmocka_unit_test(every_cipher_carries_data),
        cmocka_unit_test(keys_change_under_load_from_both_sides),
        cmocka_unit_test(crossing_key_exchanges_are_one),
        cmocka_unit_test(a_rekey_under_way_is_not_asked_for_again),
        cmocka_unit_test(unknown_messages_are_answered_during_a_key_exchange),
        cmocka_unit_test(keys_change_by_age_and_a_silent_peer_is_dropped),
        cmocka_unit_test(key_exchanges_without_data_are_limited),
        cmocka_unit_test(a_disconnect_is_told),
    };
    return cmocka_run_group_tests_name("ssh_transport", tests, NULL, NULL);
}
