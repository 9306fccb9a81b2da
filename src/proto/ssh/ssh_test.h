/* SPDX-License-Identifier: MIT
 *
 * For tests of the connection protocol on the transport stub: a session, what the peer says to it,
 * and what is expected of it. The test is the peer and may say anything.
 */
#ifndef CV_PROTO_SSH_SSH_TEST_H
#define CV_PROTO_SSH_SSH_TEST_H

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

static inline void say(struct bench *bench)
{
    assert_false(bench->message.is_failed);
    uint8_t len[4];
    cv_put_u32(len, (uint32_t)bench->message.len);
    assert_ok(cv_ssh_feed(bench->ssh, len, 4));
    assert_ok(cv_ssh_feed(bench->ssh, bench->space, bench->message.len));
}

static inline struct cv_ssh_writer *begin(struct bench *bench, uint8_t number)
{
    bench->message = cv_ssh_writer(bench->space, sizeof bench->space);
    cv_ssh_write_u8(&bench->message, number);
    return &bench->message;
}

static inline void say_number(struct bench *bench, uint8_t number)
{
    begin(bench, number);
    say(bench);
}

/* A message that is a number and the channel. */
static inline void say_channel(struct bench *bench, uint8_t number, uint32_t id)
{
    cv_ssh_write_u32(begin(bench, number), id);
    say(bench);
}

static inline void say_data(struct bench *bench, uint32_t id, size_t len)
{
    static const uint8_t zeros[CV_SSH_DATA_MAX + 1];
    struct cv_ssh_writer *writer = begin(bench, CV_SSH_MSG_CHANNEL_DATA);
    cv_ssh_write_u32(writer, id);
    cv_ssh_write_string(writer, cv_slice(zeros, len));
    say(bench);
}

static inline void say_adjust(struct bench *bench, uint32_t id, uint32_t more)
{
    struct cv_ssh_writer *writer = begin(bench, CV_SSH_MSG_CHANNEL_WINDOW_ADJUST);
    cv_ssh_write_u32(writer, id);
    cv_ssh_write_u32(writer, more);
    say(bench);
}

static inline void say_open(struct bench *bench, const char *type, uint32_t peer_id,
                            uint32_t window, uint32_t packet, struct cv_slice host, uint32_t port)
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

static inline void say_confirm(struct bench *bench, uint32_t id, uint32_t peer_id, uint32_t window,
                               uint32_t packet)
{
    struct cv_ssh_writer *writer = begin(bench, CV_SSH_MSG_CHANNEL_OPEN_CONFIRMATION);
    cv_ssh_write_u32(writer, id);
    cv_ssh_write_u32(writer, peer_id);
    cv_ssh_write_u32(writer, window);
    cv_ssh_write_u32(writer, packet);
    say(bench);
}

static inline void say_request(struct bench *bench, const char *name, bool want_reply)
{
    struct cv_ssh_writer *writer = begin(bench, CV_SSH_MSG_GLOBAL_REQUEST);
    cv_ssh_write_str(writer, name);
    cv_ssh_write_bool(writer, want_reply);
    say(bench);
}

static inline void say_forward(struct bench *bench, struct cv_slice host, uint32_t port)
{
    struct cv_ssh_writer *writer = begin(bench, CV_SSH_MSG_GLOBAL_REQUEST);
    cv_ssh_write_str(writer, "tcpip-forward");
    cv_ssh_write_bool(writer, true);
    cv_ssh_write_string(writer, host);
    cv_ssh_write_u32(writer, port);
    say(bench);
}

static inline struct cv_status next(struct bench *bench)
{
    return cv_ssh_next(bench->ssh, bench->now_ms, &bench->event);
}

static inline void expect_event(struct bench *bench, enum cv_ssh_event_kind kind)
{
    assert_ok(next(bench));
    assert_int_equal(bench->event.kind, kind);
}

static inline void expect_quiet(struct bench *bench)
{
    assert_status(next(bench), CV_AGAIN);
}

/* Takes the next message out of `out`; the reader stands behind its number. */
static inline struct cv_ssh_reader sent(struct bench *bench, uint8_t number)
{
    const uint8_t *head = cv_buf_head(&bench->out);
    if (!head || cv_buf_len(&bench->out) < 5) {
        fail_msg("message %u was not sent", number);
        return cv_ssh_reader(cv_slice(NULL, 0));
    }
    size_t len = cv_get_u32(head);
    struct cv_ssh_reader reader = cv_ssh_reader(cv_slice(head + 4, len));
    uint8_t got;
    cv_ssh_read_u8(&reader, &got);
    assert_int_equal(got, number);
    cv_buf_consume(&bench->out, 4 + len);
    return reader;
}

static inline void expect_sent_nothing(struct bench *bench)
{
    assert_int_equal(cv_buf_len(&bench->out), 0);
}

static inline uint32_t sent_u32(struct cv_ssh_reader *reader)
{
    uint32_t value;
    assert_true(cv_ssh_read_u32(reader, &value));
    return value;
}

/* The next message is `number` for the peer's channel `id`. */
static inline struct cv_ssh_reader expect_sent(struct bench *bench, uint8_t number, uint32_t id)
{
    struct cv_ssh_reader reader = sent(bench, number);
    assert_int_equal(sent_u32(&reader), id);
    return reader;
}

static inline void expect_refused(struct bench *bench, uint32_t peer_id, uint32_t reason)
{
    expect_quiet(bench);
    struct cv_ssh_reader reader = expect_sent(bench, CV_SSH_MSG_CHANNEL_OPEN_FAILURE, peer_id);
    assert_int_equal(sent_u32(&reader), reason);
    expect_sent_nothing(bench);
}

/* The session fails with `id`, for good, and says so to the peer. */
static inline void expect_failure(struct bench *bench, enum cv_status_id id)
{
    assert_status(next(bench), id);
    assert_status(next(bench), id);
    assert_false(cv_ssh_wants_input(bench->ssh));
    assert_string_not_equal(cv_ssh_error(bench->ssh), "");
    struct cv_ssh_reader reader = sent(bench, disconnect);
    assert_int_equal(sent_u32(&reader), (uint32_t)cv_status_ssh_disconnect(id));
    expect_sent_nothing(bench);
}

static inline void start(struct bench *bench, enum cv_ssh_role role,
                         const struct cv_ssh_options *options)
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

static inline void stop(struct bench *bench)
{
    cv_ssh_free(&bench->ssh);
    cv_buf_done(&bench->out);
}

/* A channel that the peer (number 70 there) has opened and we have confirmed. */
static inline struct cv_ssh_channel *accepted(struct bench *bench, uint32_t peer_id,
                                              uint32_t window, uint32_t packet)
{
    say_open(bench, "direct-tcpip", peer_id, window, packet, cv_slice_str("home"), 80);
    expect_event(bench, CV_SSH_CHANNEL_REQUESTED);
    struct cv_ssh_channel *channel = bench->event.channel;
    cv_ssh_channel_confirm(channel);
    (void)expect_sent(bench, CV_SSH_MSG_CHANNEL_OPEN_CONFIRMATION, peer_id);
    return channel;
}

#endif
