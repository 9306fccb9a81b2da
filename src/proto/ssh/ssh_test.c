/* SPDX-License-Identifier: MIT
 *
 * The rules of the connection protocol, message by message, against the transport stub: the test is
 * the peer and may say anything.
 */
#include "base/bytes.h"
#include "base/test.h"
#include "proto/ssh/session.h"

enum { established = 1, kex_begin = 2, kex_done = 3, disconnect = 4, unimplemented = 5 };

#define OUT_CAP (256U << 10)

/* One session and what stands around it. */
struct bench {
    struct cv_buf out;
    struct cv_ssh *ssh;
    struct cv_ssh_event event;
    uint64_t now_ms;
    uint8_t space[CV_SSH_PAYLOAD_MAX + 64];
    struct cv_ssh_writer message; /* being written, into space */
};

static void say(struct bench *bench)
{
    assert_false(bench->message.is_failed);
    uint8_t len[4];
    cv_put_u32(len, (uint32_t)bench->message.len);
    assert_ok(cv_ssh_feed(bench->ssh, len, 4));
    assert_ok(cv_ssh_feed(bench->ssh, bench->space, bench->message.len));
}

static struct cv_ssh_writer *begin(struct bench *bench, uint8_t number)
{
    bench->message = cv_ssh_writer(bench->space, sizeof bench->space);
    cv_ssh_write_u8(&bench->message, number);
    return &bench->message;
}

static void say_number(struct bench *bench, uint8_t number)
{
    begin(bench, number);
    say(bench);
}

/* A message that is a number and the channel. */
static void say_channel(struct bench *bench, uint8_t number, uint32_t id)
{
    cv_ssh_write_u32(begin(bench, number), id);
    say(bench);
}

static void say_data(struct bench *bench, uint32_t id, size_t len)
{
    static const uint8_t zeros[CV_SSH_DATA_MAX + 1];
    struct cv_ssh_writer *writer = begin(bench, CV_SSH_MSG_CHANNEL_DATA);
    cv_ssh_write_u32(writer, id);
    cv_ssh_write_string(writer, cv_slice(zeros, len));
    say(bench);
}

static void say_adjust(struct bench *bench, uint32_t id, uint32_t more)
{
    struct cv_ssh_writer *writer = begin(bench, CV_SSH_MSG_CHANNEL_WINDOW_ADJUST);
    cv_ssh_write_u32(writer, id);
    cv_ssh_write_u32(writer, more);
    say(bench);
}

static void say_open(struct bench *bench, const char *type, uint32_t peer_id, uint32_t window,
                     uint32_t packet, struct cv_slice host, uint32_t port)
{
    struct cv_ssh_writer *writer = begin(bench, CV_SSH_MSG_CHANNEL_OPEN);
    cv_ssh_write_str(writer, type);
    cv_ssh_write_u32(writer, peer_id);
    cv_ssh_write_u32(writer, window);
    cv_ssh_write_u32(writer, packet);
    cv_ssh_write_string(writer, host);
    cv_ssh_write_u32(writer, port);
    cv_ssh_write_str(writer, "127.0.0.1");
    cv_ssh_write_u32(writer, 4711);
    say(bench);
}

static void say_confirm(struct bench *bench, uint32_t id, uint32_t peer_id, uint32_t window,
                        uint32_t packet)
{
    struct cv_ssh_writer *writer = begin(bench, CV_SSH_MSG_CHANNEL_OPEN_CONFIRMATION);
    cv_ssh_write_u32(writer, id);
    cv_ssh_write_u32(writer, peer_id);
    cv_ssh_write_u32(writer, window);
    cv_ssh_write_u32(writer, packet);
    say(bench);
}

static void say_request(struct bench *bench, const char *name, bool want_reply)
{
    struct cv_ssh_writer *writer = begin(bench, CV_SSH_MSG_GLOBAL_REQUEST);
    cv_ssh_write_str(writer, name);
    cv_ssh_write_bool(writer, want_reply);
    say(bench);
}

static void say_forward(struct bench *bench, struct cv_slice host, uint32_t port)
{
    struct cv_ssh_writer *writer = begin(bench, CV_SSH_MSG_GLOBAL_REQUEST);
    cv_ssh_write_str(writer, "tcpip-forward");
    cv_ssh_write_bool(writer, true);
    cv_ssh_write_string(writer, host);
    cv_ssh_write_u32(writer, port);
    say(bench);
}

static struct cv_status next(struct bench *bench)
{
    return cv_ssh_next(bench->ssh, bench->now_ms, &bench->event);
}

static void expect_event(struct bench *bench, enum cv_ssh_event_kind kind)
{
    assert_ok(next(bench));
    assert_int_equal(bench->event.kind, kind);
}

static void expect_quiet(struct bench *bench)
{
    assert_status(next(bench), CV_AGAIN);
}

/* The session fails with `id`, for good, and says so to the peer. */
static void expect_failure(struct bench *bench, enum cv_status_id id);

/* Takes the next message out of `out`; the reader stands behind its number. */
static struct cv_ssh_reader sent(struct bench *bench, uint8_t number)
{
    assert_true(cv_buf_len(&bench->out) >= 5);
    size_t len = cv_get_u32(cv_buf_head(&bench->out));
    struct cv_ssh_reader reader = cv_ssh_reader(cv_slice(cv_buf_head(&bench->out) + 4, len));
    uint8_t got;
    cv_ssh_read_u8(&reader, &got);
    assert_int_equal(got, number);
    cv_buf_consume(&bench->out, 4 + len);
    return reader;
}

static void expect_sent_nothing(struct bench *bench)
{
    assert_int_equal(cv_buf_len(&bench->out), 0);
}

static uint32_t sent_u32(struct cv_ssh_reader *reader)
{
    uint32_t value;
    assert_true(cv_ssh_read_u32(reader, &value));
    return value;
}

/* The next message is `number` for the peer's channel `id`. */
static struct cv_ssh_reader expect_sent(struct bench *bench, uint8_t number, uint32_t id)
{
    struct cv_ssh_reader reader = sent(bench, number);
    assert_int_equal(sent_u32(&reader), id);
    return reader;
}

static void expect_refused(struct bench *bench, uint32_t peer_id, uint32_t reason)
{
    expect_quiet(bench);
    struct cv_ssh_reader reader = expect_sent(bench, CV_SSH_MSG_CHANNEL_OPEN_FAILURE, peer_id);
    assert_int_equal(sent_u32(&reader), reason);
    expect_sent_nothing(bench);
}

static void expect_failure(struct bench *bench, enum cv_status_id id)
{
    assert_status(next(bench), id);
    assert_status(next(bench), id);
    assert_false(cv_ssh_wants_input(bench->ssh));
    assert_string_not_equal(cv_ssh_error(bench->ssh), "");
    struct cv_ssh_reader reader = sent(bench, disconnect);
    assert_int_equal(sent_u32(&reader), (uint32_t)cv_status_ssh_disconnect(id));
    expect_sent_nothing(bench);
}

static void start(struct bench *bench, enum cv_ssh_role role, const struct cv_ssh_options *options)
{
    struct cv_ssh_options mine = options ? *options : (struct cv_ssh_options){0};
    mine.transport.role = role;
    bench->now_ms = 1000;
    cv_buf_init(&bench->out, OUT_CAP);
    assert_ok(cv_ssh_new(&mine, &bench->out, bench->now_ms, &bench->ssh));
    say_number(bench, established);
    expect_event(bench, CV_SSH_ESTABLISHED);
    expect_quiet(bench);
    expect_sent_nothing(bench);
}

static void stop(struct bench *bench)
{
    cv_ssh_free(&bench->ssh);
    cv_buf_done(&bench->out);
}

/* A channel that the peer (number 70 there) has opened and we have confirmed. */
static struct cv_ssh_channel *accepted(struct bench *bench, uint32_t peer_id, uint32_t window,
                                       uint32_t packet)
{
    say_open(bench, "direct-tcpip", peer_id, window, packet, cv_slice_str("home"), 80);
    expect_event(bench, CV_SSH_CHANNEL_REQUESTED);
    struct cv_ssh_channel *channel = bench->event.channel;
    cv_ssh_channel_confirm(channel);
    (void)expect_sent(bench, CV_SSH_MSG_CHANNEL_OPEN_CONFIRMATION, peer_id);
    return channel;
}

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

/* ---- global requests ---- */

static void answers_keep_the_order_of_the_requests(void **state)
{
    (void)state;
    static struct bench bench;
    start(&bench, CV_SSH_SERVER, NULL);
    say_request(&bench, "no-more-sessions@openssh.com", false);
    say_request(&bench, "keepalive@openssh.com", true);
    expect_quiet(&bench);
    (void)sent(&bench, CV_SSH_MSG_REQUEST_FAILURE);
    expect_sent_nothing(&bench);

    say_forward(&bench, cv_slice_str("home"), 80);
    expect_event(&bench, CV_SSH_GLOBAL_REQUEST);
    assert_true(cv_slice_is(bench.event.request.host, "home"));
    assert_int_equal(bench.event.request.port, 80);
    assert_true(bench.event.request.want_reply);
    say_request(&bench, "keepalive@openssh.com", true);
    say_request(&bench, "hostkeys-prove-00@openssh.com", true);
    say_request(&bench, "tunnel@culvert", true);
    expect_event(&bench, CV_SSH_GLOBAL_REQUEST);
    assert_true(cv_slice_is(bench.event.request.name, "tunnel@culvert"));
    say_request(&bench, "what", true);
    expect_quiet(&bench);
    expect_sent_nothing(&bench);

    assert_ok(cv_ssh_global_reply(bench.ssh, true, cv_slice_str("")));
    (void)sent(&bench, CV_SSH_MSG_REQUEST_SUCCESS);
    (void)sent(&bench, CV_SSH_MSG_REQUEST_FAILURE);
    (void)sent(&bench, CV_SSH_MSG_REQUEST_FAILURE);
    expect_sent_nothing(&bench);
    assert_ok(cv_ssh_global_reply(bench.ssh, true, cv_slice_str("yes")));
    struct cv_ssh_reader reader = sent(&bench, CV_SSH_MSG_REQUEST_SUCCESS);
    assert_true(cv_slice_is(reader.rest, "yes"));
    (void)sent(&bench, CV_SSH_MSG_REQUEST_FAILURE);
    expect_sent_nothing(&bench);
    assert_status(cv_ssh_global_reply(bench.ssh, true, cv_slice_str("")), CV_INVALID);
    stop(&bench);
}

static void replies_come_back_with_their_cookies(void **state)
{
    (void)state;
    static struct bench bench;
    int first, second;
    start(&bench, CV_SSH_CLIENT, NULL);
    assert_ok(cv_ssh_forward(bench.ssh, cv_slice_str("home"), 80, &first));
    assert_ok(
        cv_ssh_global_request(bench.ssh, "tunnel@culvert", true, cv_slice_str("{}"), &second));
    assert_ok(cv_ssh_global_request(bench.ssh, "bye@culvert", false, cv_slice_str(""), NULL));
    struct cv_ssh_reader reader = sent(&bench, CV_SSH_MSG_GLOBAL_REQUEST);
    struct cv_slice text;
    bool want_reply;
    assert_true(cv_ssh_read_string(&reader, &text) && cv_slice_is(text, "tcpip-forward"));
    assert_true(cv_ssh_read_bool(&reader, &want_reply) && want_reply);
    assert_true(cv_ssh_read_string(&reader, &text) && cv_slice_is(text, "home"));
    assert_int_equal(sent_u32(&reader), 80);
    assert_true(cv_ssh_reader_is_done(&reader));
    (void)sent(&bench, CV_SSH_MSG_GLOBAL_REQUEST);
    (void)sent(&bench, CV_SSH_MSG_GLOBAL_REQUEST);
    say_number(&bench, CV_SSH_MSG_REQUEST_FAILURE);
    expect_event(&bench, CV_SSH_GLOBAL_REPLY);
    assert_ptr_equal(bench.event.reply.cookie, &first);
    assert_false(bench.event.reply.is_success);
    cv_ssh_write_bytes(begin(&bench, CV_SSH_MSG_REQUEST_SUCCESS), cv_slice_str("ok"));
    say(&bench);
    expect_event(&bench, CV_SSH_GLOBAL_REPLY);
    assert_ptr_equal(bench.event.reply.cookie, &second);
    assert_true(bench.event.reply.is_success);
    assert_true(cv_slice_is(bench.event.reply.payload, "ok"));
    for (int i = 0; i < CV_SSH_REQUESTS_MAX; i++)
        assert_ok(cv_ssh_forward_cancel(bench.ssh, cv_slice_str("home"), 80, &first));
    assert_status(cv_ssh_forward_cancel(bench.ssh, cv_slice_str("home"), 80, &first),
                  CV_NO_RESOURCES);
    stop(&bench);
}

static void forwarding_is_asked_of_servers_only(void **state)
{
    (void)state;
    static struct bench bench;
    start(&bench, CV_SSH_CLIENT, NULL);
    say_forward(&bench, cv_slice_str("home"), 80);
    expect_quiet(&bench);
    (void)sent(&bench, CV_SSH_MSG_REQUEST_FAILURE);
    say_request(&bench, "hostkeys-00@openssh.com", false);
    expect_event(&bench, CV_SSH_GLOBAL_REQUEST);
    assert_false(bench.event.request.want_reply);
    stop(&bench);
    start(&bench, CV_SSH_SERVER, NULL);
    assert_status(cv_ssh_forward(bench.ssh, cv_slice_str("home"), 80, NULL), CV_INVALID);
    stop(&bench);
}

/* ---- channels ---- */

static void an_open_channel_carries_bytes_both_ways(void **state)
{
    (void)state;
    static struct bench bench;
    start(&bench, CV_SSH_SERVER, NULL);
    struct cv_ssh_channel *channel =
        cv_ssh_channel_open(bench.ssh, CV_SSH_FORWARDED_TCPIP, cv_slice_str("home"), 80,
                            cv_slice_str("10.0.0.1"), 1234);
    struct cv_ssh_reader reader = sent(&bench, CV_SSH_MSG_CHANNEL_OPEN);
    struct cv_slice text;
    assert_true(cv_ssh_read_string(&reader, &text) && cv_slice_is(text, "forwarded-tcpip"));
    assert_int_equal(sent_u32(&reader), cv_ssh_channel_id(channel));
    assert_int_equal(sent_u32(&reader), 2 << 20);
    assert_int_equal(sent_u32(&reader), 32768);
    assert_int_equal(cv_ssh_channel_write(channel, cv_slice_str("early")), 0);
    say_confirm(&bench, cv_ssh_channel_id(channel), 70, UINT32_MAX, UINT32_MAX);
    expect_event(&bench, CV_SSH_CHANNEL_OPENED);
    assert_ptr_equal(bench.event.channel, channel);
    assert_int_equal(cv_ssh_channel_write(channel, cv_slice_str("hello")), 5);
    reader = expect_sent(&bench, CV_SSH_MSG_CHANNEL_DATA, 70);
    assert_true(cv_ssh_read_string(&reader, &text) && cv_slice_is(text, "hello"));
    say_data(&bench, cv_ssh_channel_id(channel), 100);
    expect_event(&bench, CV_SSH_CHANNEL_DATA);
    assert_int_equal(bench.event.data.len, 100);
    assert_int_equal(cv_ssh_channel_unconsumed(channel), 100);
    cv_ssh_channel_eof(channel);
    cv_ssh_channel_eof(channel);
    (void)expect_sent(&bench, CV_SSH_MSG_CHANNEL_EOF, 70);
    expect_sent_nothing(&bench);
    assert_int_equal(cv_ssh_channel_write(channel, cv_slice_str("late")), 0);
    cv_ssh_channel_consumed(channel, 100);
    cv_ssh_channel_close(channel);
    cv_ssh_channel_close(channel);
    (void)expect_sent(&bench, CV_SSH_MSG_CHANNEL_CLOSE, 70);
    say_data(&bench, cv_ssh_channel_id(channel), 10);
    say_channel(&bench, CV_SSH_MSG_CHANNEL_EOF, cv_ssh_channel_id(channel));
    expect_quiet(&bench);
    say_channel(&bench, CV_SSH_MSG_CHANNEL_CLOSE, cv_ssh_channel_id(channel));
    expect_event(&bench, CV_SSH_CHANNEL_CLOSED);
    expect_quiet(&bench);
    expect_sent_nothing(&bench);
    stop(&bench);
}

static void writes_keep_to_window_packet_and_room(void **state)
{
    (void)state;
    static uint8_t data[1 << 20];
    static struct bench bench;
    start(&bench, CV_SSH_SERVER, NULL);
    struct cv_ssh_channel *channel = accepted(&bench, 70, 10000, 4096);
    assert_int_equal(cv_ssh_channel_writable(channel), 10000);
    assert_int_equal(cv_ssh_channel_write(channel, cv_slice(data, sizeof data)), 10000);
    static const uint32_t lens[] = {4096, 4096, 1808};
    for (size_t i = 0; i < 3; i++) {
        struct cv_ssh_reader reader = expect_sent(&bench, CV_SSH_MSG_CHANNEL_DATA, 70);
        assert_int_equal(sent_u32(&reader), lens[i]);
    }
    expect_quiet(&bench);
    /* Window again, but room for less. */
    say_adjust(&bench, cv_ssh_channel_id(channel), 1U << 30);
    expect_event(&bench, CV_SSH_CHANNEL_WRITABLE);
    size_t writable = cv_ssh_channel_writable(channel);
    size_t taken = cv_ssh_channel_write(channel, cv_slice(data, sizeof data));
    assert_in_range(taken, OUT_CAP - CV_SSH_RESERVE - 5000, OUT_CAP - CV_SSH_RESERVE);
    assert_in_range(writable, taken - 5000, taken);
    assert_int_equal(cv_ssh_channel_write(channel, cv_slice(data, sizeof data)), 0);
    expect_quiet(&bench);
    assert_true(cv_ssh_wants_input(bench.ssh));
    cv_buf_consume(&bench.out, cv_buf_len(&bench.out));
    expect_event(&bench, CV_SSH_CHANNEL_WRITABLE);
    expect_quiet(&bench);
    stop(&bench);
}

static void channels_get_their_turn_to_write(void **state)
{
    (void)state;
    static uint8_t data[1 << 20];
    static struct bench bench;
    start(&bench, CV_SSH_SERVER, NULL);
    struct cv_ssh_channel *channels[3];
    for (unsigned i = 0; i < 3; i++)
        channels[i] = accepted(&bench, 70 + i, 1U << 30, 32768);
    for (unsigned i = 0; i < 3; i++)
        (void)cv_ssh_channel_write(channels[i], cv_slice(data, sizeof data));
    for (unsigned turn = 0; turn < 30; turn++) {
        expect_quiet(&bench);
        cv_buf_consume(&bench.out, cv_buf_len(&bench.out));
        expect_event(&bench, CV_SSH_CHANNEL_WRITABLE);
        assert_ptr_equal(bench.event.channel, channels[turn % 3]);
        assert_true(cv_ssh_channel_write(bench.event.channel, cv_slice(data, sizeof data)) > 0);
    }
    stop(&bench);
}

static void the_window_is_given_back_in_halves(void **state)
{
    (void)state;
    static struct bench bench;
    struct cv_ssh_options options = {.window_bytes = 65536};
    start(&bench, CV_SSH_SERVER, &options);
    struct cv_ssh_channel *channel = accepted(&bench, 70, 1000, 32768);
    for (int i = 0; i < 100; i++) {
        say_data(&bench, cv_ssh_channel_id(channel), 16384);
        expect_event(&bench, CV_SSH_CHANNEL_DATA);
        cv_ssh_channel_consumed(channel, 16384);
        if (i % 2 == 0) {
            expect_sent_nothing(&bench);
            continue;
        }
        struct cv_ssh_reader reader = expect_sent(&bench, CV_SSH_MSG_CHANNEL_WINDOW_ADJUST, 70);
        assert_int_equal(sent_u32(&reader), 32768);
    }
    stop(&bench);
}

static void extended_data_is_dropped_and_given_back(void **state)
{
    (void)state;
    static uint8_t data[16384];
    static struct bench bench;
    struct cv_ssh_options options = {.window_bytes = 65536};
    start(&bench, CV_SSH_SERVER, &options);
    struct cv_ssh_channel *channel = accepted(&bench, 70, 1000, 32768);
    for (int i = 0; i < 100; i++) {
        struct cv_ssh_writer *writer = begin(&bench, CV_SSH_MSG_CHANNEL_EXTENDED_DATA);
        cv_ssh_write_u32(writer, cv_ssh_channel_id(channel));
        cv_ssh_write_u32(writer, 1);
        cv_ssh_write_string(writer, cv_slice(data, sizeof data));
        say(&bench);
        expect_quiet(&bench);
        if (i % 2 == 1)
            (void)expect_sent(&bench, CV_SSH_MSG_CHANNEL_WINDOW_ADJUST, 70);
        expect_sent_nothing(&bench);
    }
    assert_int_equal(cv_ssh_channel_unconsumed(channel), 0);
    stop(&bench);
}

static void a_cancelled_open_is_closed_when_it_is_confirmed(void **state)
{
    (void)state;
    static struct bench bench;
    start(&bench, CV_SSH_CLIENT, NULL);
    struct cv_ssh_channel *channels[2];
    for (int i = 0; i < 2; i++) {
        channels[i] = cv_ssh_channel_open(bench.ssh, CV_SSH_DIRECT_TCPIP, cv_slice_str("home"), 80,
                                          cv_slice_str(""), 0);
        (void)sent(&bench, CV_SSH_MSG_CHANNEL_OPEN);
        cv_ssh_channel_close(channels[i]);
    }
    expect_sent_nothing(&bench);
    say_confirm(&bench, cv_ssh_channel_id(channels[0]), 70, 1000, 32768);
    expect_quiet(&bench);
    (void)expect_sent(&bench, CV_SSH_MSG_CHANNEL_CLOSE, 70);
    say_channel(&bench, CV_SSH_MSG_CHANNEL_CLOSE, cv_ssh_channel_id(channels[0]));
    expect_event(&bench, CV_SSH_CHANNEL_CLOSED);
    struct cv_ssh_writer *writer = begin(&bench, CV_SSH_MSG_CHANNEL_OPEN_FAILURE);
    cv_ssh_write_u32(writer, cv_ssh_channel_id(channels[1]));
    cv_ssh_write_u32(writer, 2);
    cv_ssh_write_str(writer, "no");
    cv_ssh_write_str(writer, "");
    say(&bench);
    expect_event(&bench, CV_SSH_CHANNEL_REFUSED);
    assert_ptr_equal(bench.event.channel, channels[1]);
    assert_int_equal(bench.event.end.reason, 2);
    assert_true(cv_slice_is(bench.event.end.text, "no"));
    assert_int_equal(cv_ssh_channel_count(bench.ssh), 0);
    stop(&bench);
}

static void an_answer_may_come_later_or_be_no(void **state)
{
    (void)state;
    static struct bench bench;
    start(&bench, CV_SSH_SERVER, NULL);
    say_open(&bench, "direct-tcpip", 70, 1000, 32768, cv_slice_str("a"), 80);
    expect_event(&bench, CV_SSH_CHANNEL_REQUESTED);
    struct cv_ssh_channel *first = bench.event.channel;
    say_open(&bench, "direct-tcpip", 71, 1000, 32768, cv_slice_str("b"), 80);
    expect_event(&bench, CV_SSH_CHANNEL_REQUESTED);
    struct cv_ssh_channel *second = bench.event.channel;
    expect_quiet(&bench);
    expect_sent_nothing(&bench);
    cv_ssh_channel_confirm(second);
    cv_ssh_channel_confirm(second);
    cv_ssh_channel_refuse(second, CV_SSH_OPEN_PROHIBITED, "too late");
    (void)expect_sent(&bench, CV_SSH_MSG_CHANNEL_OPEN_CONFIRMATION, 71);
    expect_sent_nothing(&bench);
    cv_ssh_channel_refuse(first, CV_SSH_OPEN_CONNECT_FAILED, "nobody there");
    expect_refused(&bench, 70, CV_SSH_OPEN_CONNECT_FAILED);
    assert_int_equal(cv_ssh_channel_count(bench.ssh), 1);
    stop(&bench);
}

/* ---- key exchange, time, end ---- */

static void nothing_goes_out_during_a_key_exchange_and_all_of_it_afterwards(void **state)
{
    (void)state;
    static struct bench bench;
    struct cv_ssh_options options = {.window_bytes = 4096};
    start(&bench, CV_SSH_SERVER, &options);
    struct cv_ssh_channel *channel = accepted(&bench, 70, 100000, 32768);
    struct cv_ssh_channel *other = accepted(&bench, 71, 100000, 32768);
    say_open(&bench, "direct-tcpip", 72, 1000, 32768, cv_slice_str("a"), 80);
    expect_event(&bench, CV_SSH_CHANNEL_REQUESTED);
    struct cv_ssh_channel *waiting = bench.event.channel;
    say_number(&bench, kex_begin);
    /* Its data may still be on the way (RFC 4253 §7.1). */
    say_data(&bench, cv_ssh_channel_id(channel), 4096);
    expect_event(&bench, CV_SSH_CHANNEL_DATA);
    cv_ssh_channel_consumed(channel, 2048);
    cv_ssh_channel_consumed(channel, 2048);
    assert_int_equal(cv_ssh_channel_write(channel, cv_slice_str("data")), 0);
    assert_int_equal(cv_ssh_channel_writable(channel), 0);
    cv_ssh_channel_eof(other);
    cv_ssh_channel_close(other);
    cv_ssh_channel_confirm(waiting);
    say_request(&bench, "keepalive@openssh.com", true);
    say_open(&bench, "session", 73, 1, 1, cv_slice_str(""), 0);
    expect_quiet(&bench);
    expect_sent_nothing(&bench);
    say_number(&bench, kex_done);
    expect_event(&bench, CV_SSH_REKEYED);
    expect_event(&bench, CV_SSH_CHANNEL_WRITABLE);
    assert_ptr_equal(bench.event.channel, channel);
    assert_int_equal(cv_ssh_channel_write(channel, cv_slice_str("data")), 4);
    expect_quiet(&bench);
    (void)expect_sent(&bench, CV_SSH_MSG_CHANNEL_OPEN_CONFIRMATION, 72);
    (void)sent(&bench, CV_SSH_MSG_REQUEST_FAILURE);
    (void)expect_sent(&bench, CV_SSH_MSG_CHANNEL_OPEN_FAILURE, 73);
    struct cv_ssh_reader reader = expect_sent(&bench, CV_SSH_MSG_CHANNEL_WINDOW_ADJUST, 70);
    assert_int_equal(sent_u32(&reader), 4096);
    (void)expect_sent(&bench, CV_SSH_MSG_CHANNEL_EOF, 71);
    (void)expect_sent(&bench, CV_SSH_MSG_CHANNEL_CLOSE, 71);
    (void)expect_sent(&bench, CV_SSH_MSG_CHANNEL_DATA, 70);
    expect_sent_nothing(&bench);
    stop(&bench);
}

static void a_peer_that_closes_during_a_key_exchange_is_answered_afterwards(void **state)
{
    (void)state;
    static struct bench bench;
    start(&bench, CV_SSH_SERVER, NULL);
    struct cv_ssh_channel *channel = accepted(&bench, 70, 100000, 32768);
    struct cv_ssh_channel *other = accepted(&bench, 71, 100000, 32768);
    say_number(&bench, kex_begin);
    expect_quiet(&bench);
    cv_ssh_channel_close(other);
    say_channel(&bench, CV_SSH_MSG_CHANNEL_CLOSE, cv_ssh_channel_id(channel));
    say_channel(&bench, CV_SSH_MSG_CHANNEL_CLOSE, cv_ssh_channel_id(other));
    expect_event(&bench, CV_SSH_CHANNEL_CLOSED);
    expect_event(&bench, CV_SSH_CHANNEL_CLOSED);
    expect_quiet(&bench);
    expect_sent_nothing(&bench);
    say_number(&bench, kex_done);
    expect_event(&bench, CV_SSH_REKEYED);
    expect_quiet(&bench);
    (void)expect_sent(&bench, CV_SSH_MSG_CHANNEL_CLOSE, 70);
    (void)expect_sent(&bench, CV_SSH_MSG_CHANNEL_CLOSE, 71);
    expect_sent_nothing(&bench);
    stop(&bench);
}

static void a_silent_peer_is_probed_and_given_up(void **state)
{
    (void)state;
    static struct bench bench;
    start(&bench, CV_SSH_SERVER, NULL);
    assert_int_equal(cv_ssh_deadline(bench.ssh), 61000);
    for (int i = 1; i <= 3; i++) {
        bench.now_ms = cv_ssh_deadline(bench.ssh);
        assert_int_equal(bench.now_ms, 1000 + i * 60000);
        cv_ssh_tick(bench.ssh, bench.now_ms - 1);
        expect_sent_nothing(&bench);
        cv_ssh_tick(bench.ssh, bench.now_ms);
        (void)sent(&bench, CV_SSH_MSG_GLOBAL_REQUEST);
        expect_quiet(&bench);
    }
    /* Time without a network does not count. */
    cv_ssh_pause(bench.ssh, bench.now_ms);
    cv_ssh_tick(bench.ssh, bench.now_ms + 100000);
    cv_ssh_resume(bench.ssh, bench.now_ms + 100000);
    bench.now_ms += 100000;
    expect_quiet(&bench);
    assert_int_equal(cv_ssh_deadline(bench.ssh), bench.now_ms + 60000);
    bench.now_ms += 60000;
    cv_ssh_tick(bench.ssh, bench.now_ms);
    expect_failure(&bench, CV_CONN_TIMEOUT);
    assert_true(cv_ssh_deadline(bench.ssh) == UINT64_MAX);
    stop(&bench);
}

static void an_answered_probe_tells_the_round_trip_time(void **state)
{
    (void)state;
    static struct bench bench;
    start(&bench, CV_SSH_CLIENT, NULL);
    for (int i = 0; i < 20; i++) {
        bench.now_ms = cv_ssh_deadline(bench.ssh);
        cv_ssh_tick(bench.ssh, bench.now_ms);
        struct cv_ssh_reader reader = sent(&bench, CV_SSH_MSG_GLOBAL_REQUEST);
        struct cv_slice name;
        assert_true(cv_ssh_read_string(&reader, &name));
        assert_true(cv_slice_is(name, "keepalive@openssh.com"));
        bench.now_ms += 42;
        say_number(&bench, CV_SSH_MSG_REQUEST_FAILURE);
        expect_event(&bench, CV_SSH_KEEPALIVE_ANSWERED);
        assert_int_equal(bench.event.rtt_ms, 42);
    }
    stop(&bench);
}

static void either_side_may_disconnect(void **state)
{
    (void)state;
    static struct bench bench;
    start(&bench, CV_SSH_SERVER, NULL);
    struct cv_ssh_channel *channel = accepted(&bench, 70, 100000, 32768);
    cv_ssh_disconnect(bench.ssh, 11, "bye");
    cv_ssh_disconnect(bench.ssh, 11, "bye");
    struct cv_ssh_reader reader = sent(&bench, disconnect);
    assert_int_equal(sent_u32(&reader), 11);
    expect_sent_nothing(&bench);
    assert_status(next(&bench), CV_EOF);
    assert_int_equal(cv_ssh_channel_write(channel, cv_slice_str("x")), 0);
    cv_ssh_channel_eof(channel);
    cv_ssh_channel_close(channel);
    assert_null(cv_ssh_channel_open(bench.ssh, CV_SSH_FORWARDED_TCPIP, cv_slice_str("home"), 80,
                                    cv_slice_str(""), 0));
    expect_sent_nothing(&bench);
    stop(&bench);

    start(&bench, CV_SSH_CLIENT, NULL);
    cv_ssh_write_u32(begin(&bench, disconnect), 12);
    say(&bench);
    expect_event(&bench, CV_SSH_DISCONNECTED);
    assert_int_equal(bench.event.end.reason, 12);
    assert_status(next(&bench), CV_EOF);
    stop(&bench);
}

static void options_out_of_range_are_refused(void **state)
{
    (void)state;
    struct cv_buf out;
    struct cv_ssh *ssh;
    cv_buf_init(&out, OUT_CAP);
    struct cv_ssh_options options[] = {
        {.max_channels = 65537},    {.window_bytes = 1023},      {.window_bytes = UINT32_MAX},
        {.max_packet_bytes = 1023}, {.max_packet_bytes = 32769},
    };
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        assert_status(cv_ssh_new(&options[i], &out, 0, &ssh), CV_INVALID);
        assert_null(ssh);
    }
    cv_ssh_free(&ssh);
    assert_true(sizeof(struct cv_ssh_channel) <= 200);
    cv_buf_done(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(data_beyond_the_window_ends_the_session),
        cmocka_unit_test(data_beyond_the_packet_size_ends_the_session),
        cmocka_unit_test(data_after_eof_ends_the_session),
        cmocka_unit_test(data_after_close_ends_the_session),
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
        cmocka_unit_test(answers_keep_the_order_of_the_requests),
        cmocka_unit_test(replies_come_back_with_their_cookies),
        cmocka_unit_test(forwarding_is_asked_of_servers_only),
        cmocka_unit_test(an_open_channel_carries_bytes_both_ways),
        cmocka_unit_test(writes_keep_to_window_packet_and_room),
        cmocka_unit_test(channels_get_their_turn_to_write),
        cmocka_unit_test(the_window_is_given_back_in_halves),
        cmocka_unit_test(extended_data_is_dropped_and_given_back),
        cmocka_unit_test(a_cancelled_open_is_closed_when_it_is_confirmed),
        cmocka_unit_test(an_answer_may_come_later_or_be_no),
        cmocka_unit_test(nothing_goes_out_during_a_key_exchange_and_all_of_it_afterwards),
        cmocka_unit_test(a_peer_that_closes_during_a_key_exchange_is_answered_afterwards),
        cmocka_unit_test(a_silent_peer_is_probed_and_given_up),
        cmocka_unit_test(an_answered_probe_tells_the_round_trip_time),
        cmocka_unit_test(either_side_may_disconnect),
        cmocka_unit_test(options_out_of_range_are_refused),
    };
    return cmocka_run_group_tests_name("ssh", tests, NULL, NULL);
}
