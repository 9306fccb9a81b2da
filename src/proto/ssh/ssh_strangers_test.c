/* SPDX-License-Identifier: MIT
 *
 * What peers may not do: refusals, violations, floods.
 */
#include "proto/ssh/ssh_test.h"

/* ---- refusals and violations ---- */

static void data_beyond_the_window_ends_the_session(void **state)
{
    (void)state;
    static struct bench bench;
    struct cv_ssh_options options = {.window_bytes = 4096};
    start(&bench, CV_SSH_SERVER, &options);
    uint32_t id = cv_ssh_channel_id(accepted(&bench, 70, 1000, 32768));
    say_data(&bench, id, 4096);
    expect_event(&bench, CV_SSH_CHANNEL_DATA);
    say_data(&bench, id, 1);
    expect_failure(&bench, CV_SSH_PROTOCOL);
    stop(&bench);
}

static void data_beyond_the_packet_size_ends_the_session(void **state)
{
    (void)state;
    static struct bench bench;
    start(&bench, CV_SSH_SERVER, NULL);
    uint32_t id = cv_ssh_channel_id(accepted(&bench, 70, 1000, 32768));
    say_data(&bench, id, CV_SSH_DATA_MAX);
    expect_event(&bench, CV_SSH_CHANNEL_DATA);
    say_data(&bench, id, CV_SSH_DATA_MAX + 1);
    expect_failure(&bench, CV_SSH_PROTOCOL);
    stop(&bench);
}

static void data_after_eof_ends_the_session(void **state)
{
    (void)state;
    static struct bench bench;
    start(&bench, CV_SSH_SERVER, NULL);
    uint32_t id = cv_ssh_channel_id(accepted(&bench, 70, 1000, 32768));
    say_channel(&bench, CV_SSH_MSG_CHANNEL_EOF, id);
    expect_event(&bench, CV_SSH_CHANNEL_EOF);
    say_channel(&bench, CV_SSH_MSG_CHANNEL_EOF, id);
    expect_quiet(&bench);
    say_data(&bench, id, 1);
    expect_failure(&bench, CV_SSH_PROTOCOL);
    stop(&bench);
}

static void data_after_close_ends_the_session(void **state)
{
    (void)state;
    static struct bench bench;
    start(&bench, CV_SSH_SERVER, NULL);
    uint32_t id = cv_ssh_channel_id(accepted(&bench, 70, 1000, 32768));
    say_channel(&bench, CV_SSH_MSG_CHANNEL_CLOSE, id);
    expect_event(&bench, CV_SSH_CHANNEL_CLOSED);
    (void)expect_sent(&bench, CV_SSH_MSG_CHANNEL_CLOSE, 70);
    assert_int_equal(cv_ssh_channel_count(bench.ssh), 0);
    say_data(&bench, id, 1);
    expect_failure(&bench, CV_SSH_PROTOCOL);
    stop(&bench);
}

static void window_for_a_channel_that_was_closed_is_ignored(void **state)
{
    (void)state;
    static struct bench bench;
    start(&bench, CV_SSH_SERVER, NULL);
    uint32_t id = cv_ssh_channel_id(accepted(&bench, 70, 1000, 32768));
    say_channel(&bench, CV_SSH_MSG_CHANNEL_CLOSE, id);
    expect_event(&bench, CV_SSH_CHANNEL_CLOSED);
    (void)expect_sent(&bench, CV_SSH_MSG_CHANNEL_CLOSE, 70);
    say_adjust(&bench, id, 1);
    say_adjust(&bench, id, UINT32_MAX);
    expect_quiet(&bench);
    say_adjust(&bench, id + 1, 1);
    expect_failure(&bench, CV_SSH_PROTOCOL);
    stop(&bench);
}

static void messages_for_channels_that_are_not_there_end_the_session(void **state)
{
    (void)state;
    static const uint8_t numbers[] = {91, 92, 93, 94, 95, 96, 97, 98, 99, 100};
    static const uint32_t ids[] = {0, 9, 10, 4711, UINT32_MAX};
    static struct bench bench;
    for (size_t n = 0; n < sizeof numbers; n++)
        for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++) {
            start(&bench, CV_SSH_SERVER, NULL);
            say_channel(&bench, numbers[n], ids[i]);
            expect_failure(&bench, CV_SSH_PROTOCOL);
            stop(&bench);
        }
}

static void a_channel_that_waits_for_an_answer_takes_no_messages(void **state)
{
    (void)state;
    static struct bench bench;
    start(&bench, CV_SSH_SERVER, NULL);
    say_open(&bench, "direct-tcpip", 70, 1000, 32768, cv_slice_str("home"), 80);
    expect_event(&bench, CV_SSH_CHANNEL_REQUESTED);
    say_data(&bench, cv_ssh_channel_id(bench.event.channel), 1);
    expect_failure(&bench, CV_SSH_PROTOCOL);
    stop(&bench);

    start(&bench, CV_SSH_SERVER, NULL);
    struct cv_ssh_channel *channel = cv_ssh_channel_open(
        bench.ssh, CV_SSH_FORWARDED_TCPIP, cv_slice_str("home"), 80, cv_slice_str("127.0.0.1"), 1);
    (void)sent(&bench, CV_SSH_MSG_CHANNEL_OPEN);
    say_adjust(&bench, cv_ssh_channel_id(channel), 1);
    expect_failure(&bench, CV_SSH_PROTOCOL);
    stop(&bench);
}

static void a_window_over_32_bits_ends_the_session(void **state)
{
    (void)state;
    static struct bench bench;
    start(&bench, CV_SSH_SERVER, NULL);
    uint32_t id = cv_ssh_channel_id(accepted(&bench, 70, UINT32_MAX - 1, 32768));
    say_adjust(&bench, id, 1);
    expect_quiet(&bench);
    say_adjust(&bench, id, 1);
    expect_failure(&bench, CV_SSH_PROTOCOL);
    stop(&bench);
}

static void small_packet_sizes_are_refused(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {0, 1, 9, 10, 11, 1023};
    static struct bench bench;
    start(&bench, CV_SSH_SERVER, NULL);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        say_open(&bench, "direct-tcpip", 70, 1000, sizes[i], cv_slice_str("home"), 80);
        expect_refused(&bench, 70, CV_SSH_OPEN_CONNECT_FAILED);
    }
    assert_int_equal(cv_ssh_channel_count(bench.ssh), 0);
    stop(&bench);
}

static void a_confirmation_with_a_small_packet_size_closes_the_channel(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {0, 1, 9, 10, 11, 1023};
    static struct bench bench;
    start(&bench, CV_SSH_CLIENT, NULL);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct cv_ssh_channel *channel = cv_ssh_channel_open(
            bench.ssh, CV_SSH_DIRECT_TCPIP, cv_slice_str("home"), 80, cv_slice_str(""), 0);
        uint32_t id = cv_ssh_channel_id(channel);
        (void)sent(&bench, CV_SSH_MSG_CHANNEL_OPEN);
        say_confirm(&bench, id, 70, 1000, sizes[i]);
        expect_event(&bench, CV_SSH_CHANNEL_REFUSED);
        assert_int_equal(bench.event.end.reason, CV_SSH_OPEN_CONNECT_FAILED);
        assert_int_equal(cv_ssh_channel_write(channel, cv_slice_str("x")), 0);
        (void)expect_sent(&bench, CV_SSH_MSG_CHANNEL_CLOSE, 70);
        assert_null(cv_ssh_channel_after(bench.ssh, NULL));
        say_data(&bench, id, 10);
        say_channel(&bench, CV_SSH_MSG_CHANNEL_EOF, id);
        say_channel(&bench, CV_SSH_MSG_CHANNEL_CLOSE, id);
        expect_quiet(&bench);
        expect_sent_nothing(&bench);
        assert_int_equal(cv_ssh_channel_count(bench.ssh), 0);
    }
    stop(&bench);
}

static void other_channel_types_are_refused(void **state)
{
    (void)state;
    static const char *const types[] = {
        "session",         "x11", "auth-agent@openssh.com", "direct-streamlocal@openssh.com",
        "tun@openssh.com", ""};
    static struct bench bench;
    start(&bench, CV_SSH_SERVER, NULL);
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        say_open(&bench, types[i], 70, 1000, 32768, cv_slice_str("home"), 80);
        expect_refused(&bench, 70, CV_SSH_OPEN_UNKNOWN_TYPE);
    }
    say_open(&bench, "forwarded-tcpip", 70, 1000, 32768, cv_slice_str("home"), 80);
    expect_refused(&bench, 70, CV_SSH_OPEN_PROHIBITED);
    stop(&bench);

    start(&bench, CV_SSH_CLIENT, NULL);
    say_open(&bench, "direct-tcpip", 70, 1000, 32768, cv_slice_str("home"), 80);
    expect_refused(&bench, 70, CV_SSH_OPEN_PROHIBITED);
    assert_null(cv_ssh_channel_open(bench.ssh, CV_SSH_FORWARDED_TCPIP, cv_slice_str("home"), 80,
                                    cv_slice_str(""), 0));
    stop(&bench);
}

static void bad_names_are_refused(void **state)
{
    (void)state;
    static uint8_t name[300];
    static struct bench bench;
    memset(name, 'a', sizeof name);
    start(&bench, CV_SSH_SERVER, NULL);
    say_open(&bench, "direct-tcpip", 70, 1000, 32768, cv_slice(name, 256), 80);
    expect_refused(&bench, 70, CV_SSH_OPEN_PROHIBITED);
    say_open(&bench, "direct-tcpip", 70, 1000, 32768, cv_slice("home\0x", 6), 80);
    expect_refused(&bench, 70, CV_SSH_OPEN_PROHIBITED);
    say_open(&bench, "direct-tcpip", 70, 1000, 32768, cv_slice_str("home"), 65536);
    expect_refused(&bench, 70, CV_SSH_OPEN_PROHIBITED);
    say_forward(&bench, cv_slice(name, 256), 80);
    say_forward(&bench, cv_slice("home\0x", 6), 80);
    say_forward(&bench, cv_slice_str("home"), 65536);
    expect_quiet(&bench);
    for (int i = 0; i < 3; i++)
        (void)sent(&bench, CV_SSH_MSG_REQUEST_FAILURE);
    expect_sent_nothing(&bench);
    say_open(&bench, "direct-tcpip", 70, 1000, 32768, cv_slice(name, 255), 65535);
    expect_event(&bench, CV_SSH_CHANNEL_REQUESTED);
    assert_int_equal(bench.event.open.host.len, 255);
    stop(&bench);
}

static void channels_beyond_the_limit_are_refused(void **state)
{
    (void)state;
    static struct bench bench;
    struct cv_ssh_options options = {.max_channels = 3};
    start(&bench, CV_SSH_SERVER, &options);
    (void)accepted(&bench, 70, 1000, 32768);
    (void)accepted(&bench, 71, 1000, 32768);
    assert_non_null(cv_ssh_channel_open(bench.ssh, CV_SSH_FORWARDED_TCPIP, cv_slice_str("home"), 80,
                                        cv_slice_str(""), 0));
    (void)sent(&bench, CV_SSH_MSG_CHANNEL_OPEN);
    assert_null(cv_ssh_channel_open(bench.ssh, CV_SSH_FORWARDED_TCPIP, cv_slice_str("home"), 80,
                                    cv_slice_str(""), 0));
    for (int i = 0; i < 100; i++) {
        say_open(&bench, "direct-tcpip", 72, 1000, 32768, cv_slice_str("home"), 80);
        expect_refused(&bench, 72, CV_SSH_OPEN_RESOURCE_SHORTAGE);
    }
    /* A place is free when both have closed, not before. */
    struct cv_ssh_channel *first = cv_ssh_channel_after(bench.ssh, NULL);
    cv_ssh_channel_close(first);
    (void)expect_sent(&bench, CV_SSH_MSG_CHANNEL_CLOSE, 70);
    say_open(&bench, "direct-tcpip", 72, 1000, 32768, cv_slice_str("home"), 80);
    expect_refused(&bench, 72, CV_SSH_OPEN_RESOURCE_SHORTAGE);
    say_channel(&bench, CV_SSH_MSG_CHANNEL_CLOSE, cv_ssh_channel_id(first));
    expect_event(&bench, CV_SSH_CHANNEL_CLOSED);
    (void)accepted(&bench, 72, 1000, 32768);
    stop(&bench);
}

static void channel_requests_fail(void **state)
{
    (void)state;
    static const char *const types[] = {
        "shell", "exec", "subsystem", "pty-req", "env", "keepalive@openssh.com", ""};
    static struct bench bench;
    start(&bench, CV_SSH_SERVER, NULL);
    uint32_t id = cv_ssh_channel_id(accepted(&bench, 70, 1000, 32768));
    for (size_t i = 0; i < 2 * sizeof types / sizeof types[0]; i++) {
        struct cv_ssh_writer *writer = begin(&bench, CV_SSH_MSG_CHANNEL_REQUEST);
        cv_ssh_write_u32(writer, id);
        cv_ssh_write_str(writer, types[i / 2]);
        cv_ssh_write_bool(writer, i % 2);
        say(&bench);
        expect_quiet(&bench);
        if (i % 2)
            (void)expect_sent(&bench, CV_SSH_MSG_CHANNEL_FAILURE, 70);
        expect_sent_nothing(&bench);
    }
    stop(&bench);
}

static void replies_to_nothing_end_the_session(void **state)
{
    (void)state;
    static struct bench bench;
    for (uint8_t number = 81; number <= 82; number++) {
        start(&bench, CV_SSH_CLIENT, NULL);
        say_number(&bench, number);
        expect_failure(&bench, CV_SSH_PROTOCOL);
        stop(&bench);
    }
}

static void unknown_messages_are_answered_unimplemented(void **state)
{
    (void)state;
    static const uint8_t numbers[] = {83, 89, 101, 127, 200};
    static struct bench bench;
    start(&bench, CV_SSH_SERVER, NULL);
    for (size_t i = 0; i < sizeof numbers; i++) {
        say_number(&bench, numbers[i]);
        expect_quiet(&bench);
        (void)sent(&bench, unimplemented);
    }
    stop(&bench);
}

/* Every message cut at every byte, and with one byte too many, ends the session and nothing else.
 */
static void malformed_messages_end_the_session(void **state)
{
    (void)state;
    static struct bench bench;
    for (unsigned kind = 0; kind < 8; kind++) {
        for (size_t cut = 1;; cut++) {
            start(&bench, CV_SSH_SERVER, NULL);
            uint32_t id = cv_ssh_channel_id(accepted(&bench, 70, 1000, 32768));
            struct cv_ssh_channel *ours = cv_ssh_channel_open(
                bench.ssh, CV_SSH_FORWARDED_TCPIP, cv_slice_str("home"), 80, cv_slice_str(""), 0);
            (void)sent(&bench, CV_SSH_MSG_CHANNEL_OPEN);
            static const uint8_t numbers[] = {90, 91, 92, 93, 94, 95, 97, 80};
            struct cv_ssh_writer *writer = begin(&bench, numbers[kind]);
            switch (numbers[kind]) {
            case 90:
                cv_ssh_write_str(writer, "direct-tcpip");
                for (int i = 0; i < 3; i++)
                    cv_ssh_write_u32(writer, 4096);
                cv_ssh_write_str(writer, "home");
                cv_ssh_write_u32(writer, 80);
                cv_ssh_write_str(writer, "::1");
                cv_ssh_write_u32(writer, 80);
                break;
            case 91:
                cv_ssh_write_u32(writer, cv_ssh_channel_id(ours));
                for (int i = 0; i < 3; i++)
                    cv_ssh_write_u32(writer, 4096);
                break;
            case 92:
                cv_ssh_write_u32(writer, cv_ssh_channel_id(ours));
                cv_ssh_write_u32(writer, 1);
                cv_ssh_write_str(writer, "no");
                cv_ssh_write_str(writer, "");
                break;
            case 80:
                cv_ssh_write_str(writer, "tcpip-forward");
                cv_ssh_write_bool(writer, true);
                cv_ssh_write_str(writer, "home");
                cv_ssh_write_u32(writer, 80);
                break;
            default:
                cv_ssh_write_u32(writer, id);
                if (numbers[kind] == 93 || numbers[kind] == 95)
                    cv_ssh_write_u32(writer, 1);
                if (numbers[kind] == 94 || numbers[kind] == 95)
                    cv_ssh_write_str(writer, "data");
            }
            size_t whole = writer->len;
            if (cut == whole) {
                stop(&bench);
                continue;
            }
            if (cut > whole)
                cv_ssh_write_u8(writer, 0);
            else
                writer->len = cut;
            say(&bench);
            expect_failure(&bench, CV_SSH_PROTOCOL);
            stop(&bench);
            if (cut > whole)
                break;
        }
    }
}

/* ---- floods ---- */

static void a_flood_during_a_key_exchange_ends_the_session(void **state)
{
    (void)state;
    static struct bench bench;
    start(&bench, CV_SSH_SERVER, NULL);
    say_number(&bench, kex_begin);
    expect_quiet(&bench);
    struct cv_status status = cv_ok();
    int count = 0;
    for (; count < 50000 && status.id != CV_SSH_LIMIT; count++) {
        say_open(&bench, "session", 1, 1, 1, cv_slice_str(""), 0);
        status = next(&bench);
    }
    assert_status(status, CV_SSH_LIMIT);
    assert_in_range(count, 300, CV_SSH_HELD_MAX / 32);
    assert_true(cv_buf_len(&bench.ssh->held) <= CV_SSH_HELD_MAX);
    stop(&bench);
}

static void a_flood_from_a_peer_that_does_not_read_waits(void **state)
{
    (void)state;
    static struct bench bench;
    start(&bench, CV_SSH_SERVER, NULL);
    int refused = 0;
    for (int count = 0; count < 50000; count++) {
        if (!cv_ssh_wants_input(bench.ssh))
            break;
        say_open(&bench, "session", 1, 1, 1, cv_slice_str(""), 0);
        expect_quiet(&bench);
    }
    assert_false(cv_ssh_wants_input(bench.ssh));
    assert_true(cv_buf_len(&bench.out) <= OUT_CAP - CV_SSH_RESERVE_OWN);
    assert_int_equal(cv_buf_len(&bench.ssh->held), 0);
    /* Once it reads, all the rest is answered. */
    for (int round = 0; round < 100; round++) {
        while (cv_buf_len(&bench.out) > 0) {
            (void)sent(&bench, CV_SSH_MSG_CHANNEL_OPEN_FAILURE);
            refused++;
        }
        expect_quiet(&bench);
    }
    assert_true(refused > 10000);
    assert_true(cv_ssh_wants_input(bench.ssh));
    stop(&bench);
}

static void a_flood_of_global_requests_is_bounded(void **state)
{
    (void)state;
    static struct bench bench;
    start(&bench, CV_SSH_SERVER, NULL);
    /* The caller answers none: the first of them are remembered, the others refused behind them. */
    struct cv_status status = cv_ok();
    int given = 0;
    for (int count = 0; count < 10000; count++) {
        say_forward(&bench, cv_slice_str("home"), 80);
        status = next(&bench);
        given += cv_is_ok(status);
        if (!cv_is_ok(status) && status.id != CV_AGAIN)
            break;
        expect_sent_nothing(&bench);
    }
    assert_int_equal(given, CV_SSH_OWED_MAX);
    assert_status(status, CV_SSH_LIMIT);
    stop(&bench);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(data_beyond_the_window_ends_the_session),
        cmocka_unit_test(data_beyond_the_packet_size_ends_the_session),
        cmocka_unit_test(data_after_eof_ends_the_session),
        cmocka_unit_test(data_after_close_ends_the_session),
        cmocka_unit_test(window_for_a_channel_that_was_closed_is_ignored),
        cmocka_unit_test(messages_for_channels_that_are_not_there_end_the_session),
        cmocka_unit_test(a_channel_that_waits_for_an_answer_takes_no_messages),
        cmocka_unit_test(a_window_over_32_bits_ends_the_session),
        cmocka_unit_test(small_packet_sizes_are_refused),
        cmocka_unit_test(a_confirmation_with_a_small_packet_size_closes_the_channel),
        cmocka_unit_test(other_channel_types_are_refused),
        cmocka_unit_test(bad_names_are_refused),
        cmocka_unit_test(channels_beyond_the_limit_are_refused),
        cmocka_unit_test(channel_requests_fail),
        cmocka_unit_test(replies_to_nothing_end_the_session),
        cmocka_unit_test(unknown_messages_are_answered_unimplemented),
        cmocka_unit_test(malformed_messages_end_the_session),
        cmocka_unit_test(a_flood_during_a_key_exchange_ends_the_session),
        cmocka_unit_test(a_flood_from_a_peer_that_does_not_read_waits),
        cmocka_unit_test(a_flood_of_global_requests_is_bounded),
    };
    return cmocka_run_group_tests_name("ssh_strangers", tests, NULL, NULL);
}
