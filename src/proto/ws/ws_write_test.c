/* SPDX-License-Identifier: MIT
 *
 * Sending, closing, and answering pings.
 */
#include "proto/ws/ws_testing.h"

static struct cv_ws *engine(enum cv_ws_role role)
{
    struct cv_ws_options options;
    cv_ws_options_init(&options, role);
    struct cv_ws *ws = cv_ws_new(&options);
    assert_non_null(ws);
    return ws;
}

/* Feeds raw bytes to an engine; events are dropped. Returns how it ended. */
static struct cv_status feed(struct cv_ws *ws, struct cv_slice bytes)
{
    uint8_t *copy = malloc(bytes.len + 1);
    assert_non_null(copy);
    memcpy(copy, bytes.data, bytes.len);
    cv_ws_feed(ws, copy, bytes.len);
    struct cv_ws_event event;
    struct cv_status status;
    while (cv_is_ok(status = cv_ws_next(ws, &event)))
        ;
    free(copy);
    return status;
}

#define WIRE(text) cv_slice(text, sizeof(text) - 1)
#define assert_wire(buf, text) assert_true(cv_slice_equal(cv_buf_slice(buf), WIRE(text)))

static void a_server_writes_what_the_rfc_shows(void **state)
{
    (void)state;
    struct cv_ws *ws = engine(CV_WS_SERVER);
    struct cv_buf out;
    cv_buf_init(&out, 1000);
    assert_ok(cv_ws_send(ws, &out, CV_WS_TEXT, CV_WS_FIN, cv_slice_str("Hello")));
    assert_ok(cv_ws_send(ws, &out, CV_WS_TEXT, 0, cv_slice_str("Hel")));
    assert_ok(cv_ws_send_ping(ws, &out, cv_slice_str("Hello")));
    assert_ok(cv_ws_send(ws, &out, CV_WS_TEXT, CV_WS_FIN, cv_slice_str("lo")));
    assert_ok(cv_ws_send_pong(ws, &out, cv_slice(NULL, 0)));
    assert_ok(cv_ws_send_close(ws, &out, 1000, cv_slice_str("bye")));
    assert_wire(&out, "\x81\x05Hello\x01\x03Hel\x89\x05Hello\x80\x02lo\x8a\x00\x88\x05\x03\xe8"
                      "bye");
    assert_int_equal(cv_ws_counters(ws)->sent[CV_WS_TEXT], 2);
    assert_int_equal(cv_ws_counters(ws)->sent[CV_WS_CONTINUATION], 1);
    cv_buf_done(&out);
    cv_ws_free(&ws);
}

static void what_a_client_writes_a_server_reads(void **state)
{
    (void)state;
    static const size_t sizes[] = {0, 1, 31, 125, 126, 127, 1000, 65535, 65536, 100000};
    static uint8_t payload[100000];
    for (size_t i = 0; i < sizeof payload; i++)
        payload[i] = (uint8_t)('a' + i % 26);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct cv_ws *ws = engine(CV_WS_CLIENT);
        struct cv_buf out;
        cv_buf_init(&out, TEST_CAP);
        assert_ok(cv_ws_send(ws, &out, CV_WS_TEXT, CV_WS_FIN, cv_slice(payload, sizes[i])));
        assert_true(cv_buf_head(&out)[1] & 0x80);
        struct cv_ws_options options;
        cv_ws_options_init(&options, CV_WS_SERVER);
        struct talk talk;
        talk_init(&talk, &options);
        assert_status(talk_feed(&talk, bytes_of(&out), 4096), CV_AGAIN);
        assert_int_equal(cv_buf_len(&talk.said), sizes[i] + strlen("text()"));
        assert_memory_equal(cv_buf_head(&talk.said) + 5, payload, sizes[i]);
        talk_done(&talk);
        cv_buf_done(&out);
        cv_ws_free(&ws);
    }
}

static void masks_differ_from_frame_to_frame(void **state)
{
    (void)state;
    struct cv_ws *ws = engine(CV_WS_CLIENT);
    struct cv_buf out;
    cv_buf_init(&out, TEST_CAP);
    for (int i = 0; i < 1000; i++)
        assert_ok(cv_ws_send(ws, &out, CV_WS_BINARY, CV_WS_FIN, cv_slice_str("x")));
    const uint8_t *wire = cv_buf_head(&out);
    unsigned same = 0;
    for (int i = 1; i < 1000; i++)
        same += memcmp(wire + 2, wire + i * 7 + 2, 4) == 0;
    assert_true(same < 3);
    cv_buf_done(&out);
    cv_ws_free(&ws);
}

static void payload_can_be_written_straight_into_the_frame(void **state)
{
    (void)state;
    for (int role = CV_WS_CLIENT; role <= CV_WS_SERVER; role++) {
        struct cv_ws *ws = engine(role);
        struct cv_buf out;
        cv_buf_init(&out, 70000 + CV_WS_HEAD_MAX);
        uint8_t *payload;
        assert_status(cv_ws_send_end(ws, &out, CV_WS_BINARY, CV_WS_FIN, 0), CV_INVALID);
        assert_ok(cv_ws_send_begin(ws, &out, 70000, &payload));
        memset(payload, 'p', 70000);
        assert_status(cv_ws_send_end(ws, &out, CV_WS_TEXT, 0, 70001), CV_INVALID);
        assert_ok(cv_ws_send_end(ws, &out, CV_WS_TEXT, 0, 3)); /* a shorter header than begun */
        assert_ok(cv_ws_send_begin(ws, &out, 5, &payload));
        memcpy(payload, "-end-", 5);
        assert_ok(cv_ws_send_end(ws, &out, CV_WS_TEXT, CV_WS_FIN, 4));
        assert_int_equal(cv_buf_len(&out), 2 + 3 + 2 + 4 + (role == CV_WS_CLIENT ? 8 : 0));
        struct cv_ws_options options;
        cv_ws_options_init(&options, role == CV_WS_CLIENT ? CV_WS_SERVER : CV_WS_CLIENT);
        assert_talk(&options, bytes_of(&out), "text(ppp-end)");
        cv_buf_done(&out);
        cv_ws_free(&ws);
    }
}

static void a_full_buffer_changes_nothing(void **state)
{
    (void)state;
    struct cv_ws *ws = engine(CV_WS_SERVER);
    struct cv_buf out;
    cv_buf_init(&out, 10);
    uint8_t *payload;
    assert_ok(cv_ws_send(ws, &out, CV_WS_TEXT, 0, cv_slice_str("abcd")));
    assert_status(cv_ws_send(ws, &out, CV_WS_TEXT, CV_WS_FIN, cv_slice_str("efg")),
                  CV_NO_RESOURCES);
    assert_status(cv_ws_send_begin(ws, &out, 3, &payload), CV_NO_RESOURCES);
    assert_status(cv_ws_send_ping(ws, &out, cv_slice_str("xyz")), CV_NO_RESOURCES);
    assert_status(cv_ws_send_close(ws, &out, 1000, cv_slice_str("x")), CV_NO_RESOURCES);
    assert_int_equal(cv_ws_state(ws), CV_WS_OPEN);
    assert_wire(&out, "\x01\x04"
                      "abcd");
    cv_buf_consume(&out, 6);
    assert_ok(cv_ws_send(ws, &out, CV_WS_TEXT, CV_WS_FIN, cv_slice_str("efg")));
    assert_wire(&out, "\x80\x03"
                      "efg");
    cv_buf_done(&out);
    cv_ws_free(&ws);
}

static void arguments_out_of_order_are_refused(void **state)
{
    (void)state;
    struct cv_ws *ws = engine(CV_WS_SERVER);
    struct cv_buf out;
    cv_buf_init(&out, 1000);
    uint8_t long_payload[126] = {0};
    assert_status(cv_ws_send(ws, &out, CV_WS_PING, CV_WS_FIN, cv_slice_str("")), CV_INVALID);
    assert_status(cv_ws_send(ws, &out, CV_WS_CONTINUATION, 0, cv_slice_str("")), CV_INVALID);
    assert_ok(cv_ws_send(ws, &out, CV_WS_TEXT, 0, cv_slice_str("")));
    assert_status(cv_ws_send(ws, &out, CV_WS_BINARY, 0, cv_slice_str("")), CV_INVALID);
    assert_status(cv_ws_send_ping(ws, &out, cv_slice(long_payload, 126)), CV_INVALID);
    assert_status(cv_ws_send_close(ws, &out, 1006, cv_slice_str("")), CV_INVALID);
    assert_status(cv_ws_send_close(ws, &out, 0, cv_slice_str("")), CV_INVALID);
    assert_wire(&out, "\x01\x00");
    cv_buf_done(&out);
    cv_ws_free(&ws);
}

static void nothing_follows_our_close(void **state)
{
    (void)state;
    struct cv_ws *ws = engine(CV_WS_SERVER);
    struct cv_buf out;
    cv_buf_init(&out, 1000);
    uint8_t *payload;
    assert_ok(cv_ws_send_close(ws, &out, CV_WS_NO_CODE, cv_slice_str("ignored")));
    assert_wire(&out, "\x88\x00");
    assert_int_equal(cv_ws_state(ws), CV_WS_CLOSE_SENT);
    assert_status(cv_ws_send(ws, &out, CV_WS_TEXT, 1, cv_slice_str("x")), CV_EOF);
    assert_status(cv_ws_send_begin(ws, &out, 3, &payload), CV_EOF);
    assert_status(cv_ws_send_ping(ws, &out, cv_slice_str("x")), CV_EOF);
    assert_status(cv_ws_send_pong(ws, &out, cv_slice_str("x")), CV_EOF);
    assert_status(cv_ws_send_close(ws, &out, 1000, cv_slice_str("")), CV_EOF);
    /* The peer may still be in the middle of something (§5.5.1), then answers. */
    assert_status(feed(ws, WIRE("\x82\x81\0\0\0\0x")), CV_AGAIN);
    assert_int_equal(cv_ws_counters(ws)->received[CV_WS_BINARY], 1);
    assert_status(feed(ws, WIRE("\x88\x80\0\0\0\0")), CV_AGAIN);
    assert_int_equal(cv_ws_state(ws), CV_WS_CLOSED);
    assert_status(feed(ws, WIRE("garbage")), CV_AGAIN);
    cv_buf_done(&out);
    cv_ws_free(&ws);
}

static void a_close_is_answered_once_and_input_behind_it_dropped(void **state)
{
    (void)state;
    struct cv_ws *ws = engine(CV_WS_CLIENT);
    struct cv_buf out;
    cv_buf_init(&out, 1000);
    assert_status(feed(ws, WIRE("\x88\x02\x03\xe8\xff\xff garbage")), CV_AGAIN);
    assert_int_equal(cv_ws_state(ws), CV_WS_CLOSE_RECEIVED);
    assert_status(cv_ws_send(ws, &out, CV_WS_TEXT, 1, cv_slice_str("x")), CV_EOF);
    assert_ok(cv_ws_send_close(ws, &out, 1000, cv_slice_str("")));
    assert_int_equal(cv_ws_state(ws), CV_WS_CLOSED);
    assert_status(cv_ws_send_close(ws, &out, 1000, cv_slice_str("")), CV_EOF);
    assert_int_equal(cv_buf_len(&out), 8);
    cv_buf_done(&out);
    cv_ws_free(&ws);
}

static void the_answer_to_a_close_has_its_code(void **state)
{
    (void)state;
    struct cv_buf out;
    cv_buf_init(&out, 1000);
    struct cv_ws *ws = engine(CV_WS_SERVER);
    assert_status(feed(ws, WIRE("\x88\x82\0\0\0\0\x0f\x9f")), CV_AGAIN);
    assert_ok(cv_ws_send_close(ws, &out, 1011, cv_slice_str("x")));
    assert_true(cv_slice_equal(bytes_of(&out), cv_slice("\x88\x03\x0f\x9fx", 5)));
    cv_ws_free(&ws);
    cv_buf_consume(&out, cv_buf_len(&out));
    ws = engine(CV_WS_SERVER);
    assert_status(feed(ws, WIRE("\x88\x80\0\0\0\0")), CV_AGAIN);
    assert_ok(cv_ws_send_close(ws, &out, 1000, cv_slice_str("x")));
    assert_true(cv_slice_equal(bytes_of(&out), cv_slice("\x88\0", 2)));
    cv_buf_done(&out);
    cv_ws_free(&ws);
}

static void a_failed_peer_is_told_once(void **state)
{
    (void)state;
    struct cv_ws *ws = engine(CV_WS_CLIENT);
    struct cv_buf out;
    cv_buf_init(&out, 1000);
    assert_status(feed(ws, WIRE("\x83\x00")), CV_WS_PROTOCOL);
    assert_status(cv_ws_send(ws, &out, CV_WS_TEXT, 1, cv_slice_str("x")), CV_EOF);
    assert_ok(
        cv_ws_send_close(ws, &out, cv_ws_failure_code(ws), cv_slice_str(cv_ws_failure_text(ws))));
    assert_int_equal(cv_ws_state(ws), CV_WS_CLOSED);
    assert_status(feed(ws, WIRE("\x81\x00")), CV_WS_PROTOCOL);
    assert_status(cv_ws_send_close(ws, &out, 1000, cv_slice_str("")), CV_EOF);
    cv_buf_done(&out);
    cv_ws_free(&ws);
    /* A fault after our own Close: nothing more to say. */
    ws = engine(CV_WS_CLIENT);
    assert_ok(cv_ws_send_close(ws, &out, 1001, cv_slice_str("")));
    assert_status(feed(ws, WIRE("\x83\x00")), CV_WS_PROTOCOL);
    assert_int_equal(cv_ws_state(ws), CV_WS_CLOSED);
    cv_buf_done(&out);
    cv_ws_free(&ws);
}

static void a_long_reason_is_cut_at_a_character(void **state)
{
    (void)state;
    struct cv_ws *ws = engine(CV_WS_SERVER);
    struct cv_buf out;
    cv_buf_init(&out, 1000);
    char reason[200];
    memset(reason, 'r', sizeof reason);
    memcpy(reason + 121, "\xe2\x82\xac", 3);
    assert_ok(cv_ws_send_close(ws, &out, 1008, cv_slice(reason, sizeof reason)));
    assert_int_equal(cv_buf_head(&out)[1], 2 + 121);
    cv_buf_done(&out);
    cv_ws_free(&ws);
}

/* ---- pings ---- */

static void put_pings(struct cv_buf *wire, int first, int count)
{
    cv_buf_consume(wire, cv_buf_len(wire));
    for (int i = first; i < first + count; i++) {
        char text[16];
        (void)snprintf(text, sizeof text, "%06d", i);
        put_raw_str(wire, CV_WS_CLIENT, 0x89, text);
    }
}

/* One read of the socket: every ping is answered as callers do. */
static struct cv_status turn(struct cv_ws *ws, struct cv_buf *wire, struct cv_buf *out)
{
    cv_ws_feed(ws, cv_buf_head(wire), cv_buf_len(wire));
    struct cv_ws_event event;
    struct cv_status status;
    while (cv_is_ok(status = cv_ws_next(ws, &event)))
        if (event.type == CV_WS_EVENT_PING)
            assert_ok(cv_ws_answer_ping(ws, out));
    return status;
}

static void each_ping_is_answered_while_the_peer_reads(void **state)
{
    (void)state;
    struct cv_ws *ws = engine(CV_WS_SERVER);
    struct cv_buf wire, out;
    cv_buf_init(&wire, TEST_CAP);
    cv_buf_init(&out, TEST_CAP);
    for (int i = 0; i < 100; i++) {
        put_pings(&wire, i * 10, 10);
        assert_status(turn(ws, &wire, &out), CV_AGAIN);
        assert_int_equal(cv_buf_len(&out), 80);
        cv_buf_consume(&out, 80);
        assert_ok(cv_ws_answer_ping(ws, &out));
        assert_int_equal(cv_buf_len(&out), 0);
    }
    cv_buf_done(&wire);
    cv_buf_done(&out);
    cv_ws_free(&ws);
}

static void a_burst_collapses_to_the_newest_and_is_forgiven(void **state)
{
    (void)state;
    struct cv_ws *ws = engine(CV_WS_SERVER);
    struct cv_buf wire, out;
    cv_buf_init(&wire, TEST_CAP);
    cv_buf_init(&out, TEST_CAP);
    put_pings(&wire, 0, 50000);
    assert_status(turn(ws, &wire, &out), CV_AGAIN);
    assert_int_equal(cv_buf_len(&out), 64 * 8); /* max_pending_pongs */
    cv_buf_consume(&out, cv_buf_len(&out));
    assert_ok(cv_ws_answer_ping(ws, &out));
    assert_wire(&out, "\x8a\x06"
                      "049999");
    cv_buf_done(&wire);
    cv_buf_done(&out);
    cv_ws_free(&ws);
}

static void a_flood_that_is_never_read_fails_with_little_memory(void **state)
{
    (void)state;
    struct cv_ws *ws = engine(CV_WS_SERVER);
    struct cv_buf wire, out;
    cv_buf_init(&wire, TEST_CAP);
    cv_buf_init(&out, TEST_CAP);
    int turns = 0;
    do
        put_pings(&wire, 0, 100);
    while (turn(ws, &wire, &out).id == CV_AGAIN && ++turns < 100000);
    assert_true(turns < 20);
    assert_int_equal(cv_ws_failure_code(ws), 1008);
    assert_true(cv_buf_len(&out) <= 64 * 8);
    cv_buf_done(&wire);
    cv_buf_done(&out);
    cv_ws_free(&ws);
}

static void a_slow_transfer_does_not_starve_pongs(void **state)
{
    (void)state;
    /* `out` never runs empty, since data is always put behind the pongs: they still count as
     * flushed once they have left. */
    struct cv_ws *ws = engine(CV_WS_SERVER);
    struct cv_buf wire, out;
    cv_buf_init(&wire, TEST_CAP);
    cv_buf_init(&out, 20000);
    static uint8_t data[4000];
    for (int i = 0; i < 3000; i++) {
        (void)cv_ws_send(ws, &out, CV_WS_BINARY, CV_WS_FIN, cv_slice(data, sizeof data)).id;
        put_pings(&wire, i, 1);
        assert_status(turn(ws, &wire, &out), CV_AGAIN);
        cv_buf_consume(&out, cv_buf_len(&out) > 4000 ? 1000 : 0);
        assert_ok(cv_ws_answer_ping(ws, &out));
    }
    assert_true(cv_ws_counters(ws)->sent[CV_WS_PONG] > 500);
    cv_buf_done(&wire);
    cv_buf_done(&out);
    cv_ws_free(&ws);
}

static void a_ping_waits_for_room(void **state)
{
    (void)state;
    struct cv_ws *ws = engine(CV_WS_SERVER);
    struct cv_buf wire, out;
    cv_buf_init(&wire, TEST_CAP);
    cv_buf_init(&out, 10);
    assert_ok(cv_ws_send(ws, &out, CV_WS_BINARY, CV_WS_FIN, cv_slice_str("12345")));
    put_pings(&wire, 7, 2);
    assert_status(turn(ws, &wire, &out), CV_AGAIN);
    assert_int_equal(cv_buf_len(&out), 7);
    cv_buf_consume(&out, 7);
    assert_ok(cv_ws_answer_ping(ws, &out));
    assert_wire(&out, "\x8a\x06"
                      "000008");
    cv_buf_done(&wire);
    cv_buf_done(&out);
    cv_ws_free(&ws);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arguments_out_of_order_are_refused),
        cmocka_unit_test(a_full_buffer_changes_nothing),
        cmocka_unit_test(nothing_follows_our_close),
        cmocka_unit_test(a_close_is_answered_once_and_input_behind_it_dropped),
        cmocka_unit_test(the_answer_to_a_close_has_its_code),
        cmocka_unit_test(a_failed_peer_is_told_once),
        cmocka_unit_test(a_long_reason_is_cut_at_a_character),
        cmocka_unit_test(a_server_writes_what_the_rfc_shows),
        cmocka_unit_test(what_a_client_writes_a_server_reads),
        cmocka_unit_test(masks_differ_from_frame_to_frame),
        cmocka_unit_test(payload_can_be_written_straight_into_the_frame),
        cmocka_unit_test(each_ping_is_answered_while_the_peer_reads),
        cmocka_unit_test(a_burst_collapses_to_the_newest_and_is_forgiven),
        cmocka_unit_test(a_flood_that_is_never_read_fails_with_little_memory),
        cmocka_unit_test(a_slow_transfer_does_not_starve_pongs),
        cmocka_unit_test(a_ping_waits_for_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
