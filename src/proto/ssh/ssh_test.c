/* SPDX-License-Identifier: MIT
 *
 * The connection protocol as it should go: global requests, channels, key exchanges in between,
 * time, the end.
 */
#include "proto/ssh/ssh_test.h"

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

static void a_window_grows_at_once_and_shrinks_by_not_being_given_back(void **state)
{
    (void)state;
    static struct bench bench;
    struct cv_ssh_options options = {.window_bytes = 65536};
    start(&bench, CV_SSH_SERVER, &options);
    struct cv_ssh_channel *channel = accepted(&bench, 70, 1000, 32768);
    cv_ssh_channel_set_window(channel, 200000);
    struct cv_ssh_reader reader = expect_sent(&bench, CV_SSH_MSG_CHANNEL_WINDOW_ADJUST, 70);
    assert_int_equal(sent_u32(&reader), 200000 - 65536);
    assert_int_equal(cv_ssh_channel_credit(channel), 200000);
    assert_int_equal(cv_ssh_credit(bench.ssh), 200000);
    say_data(&bench, cv_ssh_channel_id(channel), 16384);
    expect_event(&bench, CV_SSH_CHANNEL_DATA);
    assert_int_equal(cv_ssh_channel_credit(channel), 200000);
    assert_int_equal(cv_ssh_credit(bench.ssh), 200000 - 16384);
    cv_ssh_channel_set_window(channel, 65536);
    cv_ssh_channel_consumed(channel, 16384);
    for (size_t left = 200000 - 16384; left >= 65536 + 16384; left -= 16384) {
        assert_int_equal(cv_ssh_channel_credit(channel), left);
        say_data(&bench, cv_ssh_channel_id(channel), 16384);
        expect_event(&bench, CV_SSH_CHANNEL_DATA);
        cv_ssh_channel_consumed(channel, 16384);
    }
    expect_sent_nothing(&bench);
    /* Back at its size, it is given back as ever. */
    for (int i = 0; i < 3; i++) {
        say_data(&bench, cv_ssh_channel_id(channel), 16384);
        expect_event(&bench, CV_SSH_CHANNEL_DATA);
        cv_ssh_channel_consumed(channel, 16384);
    }
    assert_int_equal(cv_ssh_channel_credit(channel), 65536);
    (void)expect_sent(&bench, CV_SSH_MSG_CHANNEL_WINDOW_ADJUST, 70);
    /* None for a peer that has said that it sends no more. */
    say_channel(&bench, CV_SSH_MSG_CHANNEL_EOF, cv_ssh_channel_id(channel));
    expect_event(&bench, CV_SSH_CHANNEL_EOF);
    cv_ssh_channel_set_window(channel, 200000);
    expect_sent_nothing(&bench);
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
        cmocka_unit_test(answers_keep_the_order_of_the_requests),
        cmocka_unit_test(replies_come_back_with_their_cookies),
        cmocka_unit_test(forwarding_is_asked_of_servers_only),
        cmocka_unit_test(an_open_channel_carries_bytes_both_ways),
        cmocka_unit_test(writes_keep_to_window_packet_and_room),
        cmocka_unit_test(channels_get_their_turn_to_write),
        cmocka_unit_test(the_window_is_given_back_in_halves),
        cmocka_unit_test(a_window_grows_at_once_and_shrinks_by_not_being_given_back),
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
