/* SPDX-License-Identifier: MIT
 *
 * Two links, back to back over a socket pair, on one worker.
 */
#include "base/test.h"
#include "net/conn.h"
#include "net/net.h"
#include "net/worker.h"
#include "proto/ssh/host_key.h"
#include "transport/link.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { STREAMS = 4, CHUNK = 30000 };

struct side {
    struct fixture *fixture;
    struct cv_link *link;
    bool is_up, is_closed;
    struct cv_status why;
    int requests, replies_good, replies_bad, notices;
};

struct pipe_end {
    struct fixture *fixture;
    struct cv_stream *stream;
    uint64_t to_send, sent, received;
    bool is_echo, is_slow, is_open, is_eof, is_closed, is_refused;
    uint8_t held[4 << 20];
    size_t held_len;
};

struct fixture {
    struct cv_worker *worker;
    struct cv_ssh_host_key *key;
    struct side agent, relay;
    struct pipe_end *ends[2 * STREAMS];
    size_t end_count;
    struct cv_timer timeout;
    bool is_timed_out;
    bool (*is_done)(struct fixture *f);
    struct cv_timer poll;
    void (*on_relay_up)(struct fixture *f);
    bool refuses;
    uint32_t max_channels;
    uint64_t rekey_bytes;
    const char *refusal;
};

static uint8_t byte_at(uint64_t offset)
{
    return (uint8_t)(offset * 2654435761u >> 13);
}

/* ---- streams ---- */

static void send_more(struct pipe_end *end)
{
    uint8_t bytes[CHUNK];
    while (end->sent < end->to_send) {
        size_t len = end->to_send - end->sent < CHUNK ? (size_t)(end->to_send - end->sent) : CHUNK;
        for (size_t i = 0; i < len; i++)
            bytes[i] = byte_at(end->sent + i);
        size_t taken = cv_stream_write(end->stream, cv_slice(bytes, len));
        end->sent += taken;
        if (taken < len)
            return;
    }
    if (end->to_send && !end->is_echo)
        cv_stream_eof(end->stream);
}

static void echo(struct pipe_end *end)
{
    size_t taken = cv_stream_write(end->stream, cv_slice(end->held, end->held_len));
    memmove(end->held, end->held + taken, end->held_len - taken);
    end->held_len -= taken;
    cv_stream_consumed(end->stream, taken);
    if (end->is_eof && !end->held_len)
        cv_stream_eof(end->stream);
}

static void on_open(void *arg)
{
    struct pipe_end *end = arg;
    end->is_open = true;
    send_more(end);
}

static void on_refused(void *arg, uint32_t reason, struct cv_slice text)
{
    struct pipe_end *end = arg;
    assert_int_equal(reason, 2);
    assert_true(cv_slice_is(text, end->fixture->refusal));
    end->is_refused = true;
}

static void on_data(void *arg, struct cv_slice data)
{
    struct pipe_end *end = arg;
    if (end->is_echo) {
        assert_true(end->held_len + data.len <= sizeof end->held);
        memcpy(end->held + end->held_len, data.data, data.len);
        end->held_len += data.len;
        echo(end);
        return;
    }
    for (size_t i = 0; i < data.len; i++)
        assert_int_equal(data.data[i], byte_at(end->received + i));
    end->received += data.len;
    if (!end->is_slow)
        cv_stream_consumed(end->stream, data.len);
}

static void on_eof(void *arg)
{
    struct pipe_end *end = arg;
    end->is_eof = true;
    if (end->is_echo)
        echo(end);
}

static void on_writable(void *arg)
{
    struct pipe_end *end = arg;
    if (end->is_echo)
        echo(end);
    else
        send_more(end);
}

static void on_closed(void *arg, struct cv_status why)
{
    struct pipe_end *end = arg;
    (void)why;
    end->is_closed = true;
}

static const struct cv_stream_ops ops = {on_open, on_refused,  on_data,
                                         on_eof,  on_writable, on_closed};

static struct pipe_end *new_end(struct fixture *f)
{
    struct pipe_end *end = calloc(1, sizeof *end);
    assert_non_null(end);
    end->fixture = f;
    f->ends[f->end_count++] = end;
    return end;
}

/* ---- links ---- */

static void on_up(void *arg)
{
    struct side *side = arg;
    side->is_up = true;
    if (side == &side->fixture->relay && side->fixture->on_relay_up)
        side->fixture->on_relay_up(side->fixture);
    if (side == &side->fixture->agent) {
        assert_ok(cv_link_request(side->link, "tunnel@culvert", cv_slice_str("{}"), 7));
        assert_ok(cv_link_forward(side->link, "home", 80, false, 8));
    }
}

static bool on_host_key(void *arg, struct cv_slice blob, const char *fingerprint)
{
    struct side *side = arg;
    assert_true(cv_slice_equal(blob, cv_ssh_host_key_blob(side->fixture->key)));
    assert_true(strncmp(fingerprint, "SHA256:", 7) == 0);
    return true;
}

static bool on_request(void *arg, struct cv_slice name, struct cv_slice host, uint32_t port,
                       struct cv_slice payload)
{
    struct side *side = arg;
    side->requests++;
    if (cv_slice_is(name, "tunnel@culvert")) {
        assert_true(cv_slice_is(payload, "{}"));
        return true;
    }
    assert_true(cv_slice_is(host, "home"));
    assert_int_equal(port, 80);
    return false;
}

static void on_reply(void *arg, uintptr_t cookie, bool is_success)
{
    struct side *side = arg;
    assert_int_equal(cookie, is_success ? 7 : 8);
    side->replies_good += is_success;
    side->replies_bad += !is_success;
}

static void on_stream(void *arg, struct cv_stream *stream, enum cv_stream_kind kind,
                      struct cv_slice host, uint32_t port)
{
    struct side *side = arg;
    assert_int_equal(kind, CV_STREAM_FORWARDED);
    assert_true(cv_slice_is(host, "home"));
    assert_int_equal(port, 80);
    if (side->fixture->refuses) {
        cv_stream_refuse(stream, 2, side->fixture->refusal);
        return;
    }
    struct pipe_end *end = new_end(side->fixture);
    end->is_echo = true;
    end->stream = stream;
    cv_stream_accept(stream, &ops, end);
}

static void on_control(void *arg, const struct cv_link_control *control)
{
    struct side *side = arg;
    side->notices += control->type == CV_LINK_NOTICE && strcmp(control->code, "hello") == 0;
}

static void on_link_closed(void *arg, struct cv_status why, const struct cv_error *error)
{
    struct side *side = arg;
    (void)error;
    side->is_closed = true;
    side->why = why;
}

static const struct cv_link_ops link_ops = {
    .on_up = on_up,
    .on_host_key = on_host_key,
    .on_request = on_request,
    .on_reply = on_reply,
    .on_stream = on_stream,
    .on_control = on_control,
    .on_closed = on_link_closed,
};

static void on_no_data(void *arg, uint8_t *data, size_t len)
{
    (void)arg;
    (void)data;
    (void)len;
    fail();
}

static void on_no_closed(void *arg, struct cv_status why, const struct cv_error *error)
{
    (void)arg;
    (void)why;
    (void)error;
}

static const struct cv_conn_ops no_ops = {.on_data = on_no_data, .on_closed = on_no_closed};

static void make_side(struct fixture *f, struct side *side, int fd, enum cv_link_role role)
{
    struct cv_conn *conn;
    side->fixture = f;
    assert_ok(cv_conn_new(f->worker, fd, NULL, &no_ops, NULL, &conn, NULL));
    struct cv_link_options options = {
        .role = role,
        .is_culvert = true,
        .host_key = role == CV_LINK_RELAY ? f->key : NULL,
        .max_channels = f->max_channels ? f->max_channels : 10,
        .window_bytes = 1 << 20,
        .rekey_bytes = f->rekey_bytes ? f->rekey_bytes : 1 << 30,
        .rekey_ms = 3600000,
        .handshake_ms = 10000,
        .keepalive_ms = 60000,
        .ping_interval_ms = 30000,
        .pong_timeout_ms = 15000,
        .replay_bytes = 4 << 20,
        .max_frame_bytes = 1 << 20,
    };
    assert_ok(cv_link_new(f->worker, conn, &options, cv_slice(NULL, 0), &link_ops, side, NULL,
                          &side->link));
}

static void on_timeout(void *arg)
{
    struct fixture *f = arg;
    f->is_timed_out = true;
    cv_worker_stop(f->worker);
}

static void on_poll(void *arg)
{
    struct fixture *f = arg;
    if (f->relay.is_up && f->is_done(f))
        cv_worker_stop(f->worker);
    else
        assert_ok(cv_worker_timer_start(f->worker, &f->poll, 2));
}

static void run(struct fixture *f, bool (*is_done)(struct fixture *f))
{
    int fds[2];
    assert_ok(cv_worker_new(0, &f->worker, NULL));
    assert_ok(cv_ssh_host_key_generate(&f->key));
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
    make_side(f, &f->agent, fds[0], CV_LINK_AGENT);
    make_side(f, &f->relay, fds[1], CV_LINK_RELAY);
    f->is_done = is_done;
    cv_timer_init(&f->timeout, on_timeout, f);
    cv_timer_init(&f->poll, on_poll, f);
    assert_ok(cv_worker_timer_start(f->worker, &f->timeout, 20000));
    assert_ok(cv_worker_timer_start(f->worker, &f->poll, 1));
    cv_worker_run(f->worker);
    assert_false(f->is_timed_out);
}

static void done(struct fixture *f)
{
    cv_worker_free(&f->worker);
    assert_true(f->agent.is_closed);
    assert_true(f->relay.is_closed);
    cv_ssh_host_key_free(&f->key);
    for (size_t i = 0; i < f->end_count; i++)
        free(f->ends[i]);
}

static void open_streams(struct fixture *f, size_t count, uint64_t bytes)
{
    for (size_t i = 0; i < count; i++) {
        struct pipe_end *end = new_end(f);
        end->to_send = bytes;
        assert_ok(cv_stream_open(f->relay.link, CV_STREAM_FORWARDED, "home", 80, NULL, &ops, end,
                                 &end->stream));
    }
}

/* ---- tests ---- */

static bool is_registered(struct fixture *f)
{
    return f->agent.replies_good == 1 && f->agent.replies_bad == 1 && f->relay.requests == 2;
}

static void requests_are_answered_in_order(void **state)
{
    (void)state;
    struct fixture f = {0};
    run(&f, is_registered);
    done(&f);
}

static void open_bulk(struct fixture *f)
{
    open_streams(f, STREAMS, 5000000);
}

static bool is_echoed(struct fixture *f)
{
    size_t whole = 0;
    for (size_t i = 0; i < f->end_count; i++)
        whole += !f->ends[i]->is_echo && f->ends[i]->received == f->ends[i]->to_send &&
                 f->ends[i]->is_eof;
    return whole == STREAMS;
}

static void streams_carry_every_byte_both_ways(void **state)
{
    (void)state;
    struct fixture f = {.on_relay_up = open_bulk};
    run(&f, is_echoed);
    done(&f);
}

static void streams_survive_rekeying(void **state)
{
    (void)state;
    struct fixture f = {.on_relay_up = open_bulk, .rekey_bytes = 64 * 1024};
    run(&f, is_echoed);
    done(&f);
}

static void open_slow(struct fixture *f)
{
    open_streams(f, 2, 3000000);
    f->ends[0]->is_slow = true;
}

static bool is_neighbour_done(struct fixture *f)
{
    return f->ends[1]->received == f->ends[1]->to_send;
}

static void a_reader_that_stops_does_not_hold_its_neighbour(void **state)
{
    (void)state;
    struct fixture f = {.on_relay_up = open_slow};
    run(&f, is_neighbour_done);
    assert_true(f.ends[0]->received <= 1 << 20);
    done(&f);
}

static void open_one(struct fixture *f)
{
    open_streams(f, 1, 10);
}

static bool is_refused(struct fixture *f)
{
    return f->ends[0]->is_refused;
}

static void a_refusal_carries_its_reason(void **state)
{
    (void)state;
    struct fixture f = {
        .on_relay_up = open_one, .refuses = true, .refusal = "service-refused: nobody there"};
    run(&f, is_refused);
    done(&f);
}

static void open_too_many(struct fixture *f)
{
    struct cv_stream *stream;
    open_streams(f, 2, 10);
    assert_status(
        cv_stream_open(f->relay.link, CV_STREAM_FORWARDED, "home", 80, NULL, &ops, NULL, &stream),
        CV_CHANNEL_LIMIT);
}

static bool is_open(struct fixture *f)
{
    return f->ends[0]->is_open && f->ends[1]->is_open;
}

static void streams_beyond_the_limit_are_refused_at_once(void **state)
{
    (void)state;
    struct fixture f = {.on_relay_up = open_too_many, .max_channels = 2};
    run(&f, is_open);
    done(&f);
}

static void say_and_close(struct fixture *f)
{
    struct cv_link_control control = {.type = CV_LINK_NOTICE};
    (void)cv_slice_to_str(cv_slice_str("hello"), control.code, sizeof control.code);
    assert_ok(cv_link_control_send(f->relay.link, &control));
    open_streams(f, 1, 10);
    cv_link_close(f->relay.link, cv_ok(), "done");
}

static bool is_all_closed(struct fixture *f)
{
    return f->agent.is_closed && f->relay.is_closed;
}

static void closing_tells_the_peer_and_ends_streams(void **state)
{
    (void)state;
    struct fixture f = {.on_relay_up = say_and_close};
    run(&f, is_all_closed);
    assert_int_equal(f.agent.notices, 1);
    assert_true(f.ends[0]->is_closed);
    assert_status(f.agent.why, CV_OK);
    done(&f);
}

static int setup(void **state)
{
    (void)state;
    return cv_is_ok(cv_net_init()) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    cv_net_done();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_are_answered_in_order),
        cmocka_unit_test(streams_carry_every_byte_both_ways),
        cmocka_unit_test(streams_survive_rekeying),
        cmocka_unit_test(a_reader_that_stops_does_not_hold_its_neighbour),
        cmocka_unit_test(a_refusal_carries_its_reason),
        cmocka_unit_test(streams_beyond_the_limit_are_refused_at_once),
        cmocka_unit_test(closing_tells_the_peer_and_ends_streams),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
