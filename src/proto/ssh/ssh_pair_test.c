/* SPDX-License-Identifier: MIT
 *
 * Two sessions back to back over the real transport layer, under a random schedule with a fixed
 * seed: channels opened from both sides, written, read, half-closed and closed in any order, bytes
 * delivered in pieces of any size, keys exchanged all the while. Every byte must arrive, in order,
 * within the limits.
 */
#include "base/test.h"
#include "proto/ssh/ssh.h"

#include <stdio.h>

enum {
    stream_count = 120,
    stream_max = 300000,
    channel_max = 10,
    window = 65536,
    window_most = 4 * window
};

struct stream;

/* One end of a stream: what it has written, and what it has read. */
struct end {
    struct stream *stream;
    struct cv_ssh_channel *channel; /* NULL before and after */
    size_t to_write, written, read, unconsumed;
    bool can_write, is_eof_sent, has_eof, is_closed, was_there;
};

struct stream {
    uint32_t number;
    bool is_cut; /* one side closes it in the middle */
    struct end ends[2];
};

struct side {
    struct cv_ssh *ssh;
    struct cv_buf out;
    uint32_t asked, answered;
};

struct world {
    struct side sides[2];
    struct stream streams[stream_count];
    uint32_t opened, done, refused;
    uint64_t now_ms;
    uint64_t random;
};

static uint32_t draw(struct world *world, uint32_t below)
{
    world->random ^= world->random << 13;
    world->random ^= world->random >> 7;
    world->random ^= world->random << 17;
    return (uint32_t)(world->random >> 20) % below;
}

/* What stream `number` carries from `side` at offset `at`. */
static uint8_t byte_at(uint32_t number, unsigned side, size_t at)
{
    uint64_t mixed = (number * 2U + side + 1U) * 0x9e3779b97f4a7c15U + at * 0xc2b2ae3d27d4eb4fU;
    return (uint8_t)(mixed >> 41);
}

static void attach(struct world *world, unsigned side, uint32_t number,
                   struct cv_ssh_channel *channel)
{
    assert_true(number < stream_count);
    struct end *end = &world->streams[number].ends[side];
    assert_false(end->was_there);
    end->channel = channel;
    end->was_there = true;
    cv_ssh_channel_set_arg(channel, end);
}

static void gone(struct world *world, struct end *end)
{
    end->channel = NULL;
    end->is_closed = true;
    if (end->stream->ends[0].is_closed && end->stream->ends[1].is_closed)
        world->done++;
}

static void handle(struct world *world, unsigned side, const struct cv_ssh_event *event)
{
    struct cv_ssh *ssh = world->sides[side].ssh;
    struct end *end = event->channel ? cv_ssh_channel_arg(event->channel) : NULL;
    switch (event->kind) {
    case CV_SSH_HOST_KEY:
        cv_ssh_accept_host_key(ssh, true);
        break;
    case CV_SSH_GLOBAL_REQUEST:
        assert_true(cv_slice_is(event->request.name, "ping@culvert"));
        assert_ok(cv_ssh_global_reply(ssh, true, event->request.payload));
        break;
    case CV_SSH_GLOBAL_REPLY:
        assert_true(event->reply.is_success);
        assert_int_equal(event->reply.payload.len, sizeof(uint32_t));
        assert_memory_equal(event->reply.payload.data, &world->sides[side].answered,
                            sizeof(uint32_t));
        world->sides[side].answered++;
        break;
    case CV_SSH_CHANNEL_REQUESTED:
        attach(world, side, event->open.port, event->channel);
        cv_ssh_channel_confirm(event->channel);
        world->streams[event->open.port].ends[side].can_write = true;
        break;
    case CV_SSH_CHANNEL_OPENED:
    case CV_SSH_CHANNEL_WRITABLE:
        end->can_write = true;
        break;
    case CV_SSH_CHANNEL_REFUSED:
        /* The limit counts both directions, and a place is free on one side before the other. */
        assert_int_equal(event->end.reason, CV_SSH_OPEN_RESOURCE_SHORTAGE);
        world->refused++;
        end->stream->ends[0].is_closed = end->stream->ends[1].is_closed = true;
        end->channel = NULL;
        world->done++;
        break;
    case CV_SSH_CHANNEL_DATA:
        for (size_t i = 0; i < event->data.len; i++)
            if (event->data.data[i] != byte_at(end->stream->number, !side, end->read + i))
                fail_msg("stream %u differs at %zu", end->stream->number, end->read + i);
        end->read += event->data.len;
        end->unconsumed += event->data.len;
        assert_true(end->unconsumed <= window_most);
        assert_int_equal(cv_ssh_channel_unconsumed(event->channel), end->unconsumed);
        break;
    case CV_SSH_CHANNEL_EOF:
        assert_false(end->has_eof);
        assert_int_equal(end->read, end->stream->ends[!side].to_write);
        end->has_eof = true;
        break;
    case CV_SSH_CHANNEL_CLOSED:
        if (!end->stream->is_cut)
            assert_int_equal(end->read, end->stream->ends[!side].to_write);
        gone(world, end);
        break;
    case CV_SSH_DISCONNECTED:
        fail_msg("disconnected");
        break;
    case CV_SSH_ESTABLISHED:
    case CV_SSH_REKEYED:
    case CV_SSH_KEEPALIVE_ANSWERED:
        break;
    }
}

static void run(struct world *world, unsigned side)
{
    struct cv_ssh_event event;
    struct cv_status status;
    while (cv_is_ok(status = cv_ssh_next(world->sides[side].ssh, world->now_ms, &event)))
        handle(world, side, &event);
    if (status.id != CV_AGAIN)
        fail_msg("side %u: %s: %s", side, cv_status_name(status.id),
                 cv_ssh_error(world->sides[side].ssh));
}

/* Carries some bytes from one side to the other, in memory of exactly their size. */
static void deliver(struct world *world, unsigned from, size_t most)
{
    struct cv_buf *out = &world->sides[from].out;
    size_t len = cv_buf_len(out) < most ? cv_buf_len(out) : most;
    struct side *to = &world->sides[!from];
    if (len > 0 && cv_ssh_wants_input(to->ssh)) {
        uint8_t *copy = malloc(len);
        assert_non_null(copy);
        memcpy(copy, cv_buf_head(out), len);
        cv_buf_consume(out, len);
        assert_ok(cv_ssh_feed(to->ssh, copy, len));
        run(world, !from);
        free(copy);
    }
    run(world, from);
}

static void write_some(struct world *world, unsigned side, struct end *end)
{
    uint8_t bytes[20000];
    if (!end->can_write || end->is_eof_sent)
        return;
    size_t len = 1 + draw(world, sizeof bytes);
    len = len < end->to_write - end->written ? len : end->to_write - end->written;
    for (size_t i = 0; i < len; i++)
        bytes[i] = byte_at(end->stream->number, side, end->written + i);
    size_t taken = cv_ssh_channel_write(end->channel, cv_slice(bytes, len));
    end->written += taken;
    end->can_write = taken == len;
    if (end->written == end->to_write) {
        cv_ssh_channel_eof(end->channel);
        end->is_eof_sent = true;
    }
}

static void open_one(struct world *world)
{
    unsigned side = draw(world, 2);
    if (world->opened == stream_count || !cv_ssh_is_established(world->sides[0].ssh) ||
        !cv_ssh_is_established(world->sides[1].ssh))
        return;
    struct cv_ssh_channel *channel = cv_ssh_channel_open(
        world->sides[side].ssh, side ? CV_SSH_DIRECT_TCPIP : CV_SSH_FORWARDED_TCPIP,
        cv_slice_str("home"), world->opened, cv_slice_str("::1"), 1);
    if (channel)
        attach(world, side, world->opened++, channel);
}

static void act(struct world *world)
{
    unsigned side = draw(world, 2);
    struct end *end = &world->streams[draw(world, stream_count)].ends[side];
    if (draw(world, 20) == 0)
        open_one(world);
    if (draw(world, 200) == 0 && cv_is_ok(cv_ssh_global_request(
                                     world->sides[side].ssh, "ping@culvert", true,
                                     cv_slice(&world->sides[side].asked, sizeof(uint32_t)), NULL)))
        world->sides[side].asked++;
    if (draw(world, 1000) == 0)
        cv_ssh_rekey(world->sides[side].ssh);
    if (!end->channel)
        return;
    write_some(world, side, end);
    if (draw(world, 2)) {
        size_t len = end->unconsumed < 30000 ? end->unconsumed : draw(world, 30000);
        cv_ssh_channel_consumed(end->channel, len);
        end->unconsumed -= len;
        if (draw(world, 10) == 0)
            cv_ssh_channel_set_window(end->channel, 8192 + draw(world, window_most - 8191));
    }
    bool is_done = end->is_eof_sent && end->has_eof;
    if (is_done || (end->stream->is_cut && end->written > 10000 && draw(world, 10) == 0))
        cv_ssh_channel_close(end->channel);
}

static void start(struct world *world, const char *ciphers, bool has_compression,
                  struct cv_ssh_host_key *key)
{
    memset(world, 0, sizeof *world);
    world->random = 0x2545f4914f6cdd1dU;
    world->now_ms = 1;
    for (uint32_t i = 0; i < stream_count; i++) {
        struct stream *stream = &world->streams[i];
        stream->number = i;
        stream->is_cut = i % 7 == 0;
        for (unsigned side = 0; side < 2; side++) {
            stream->ends[side].stream = stream;
            stream->ends[side].to_write = draw(world, i % 3 ? stream_max : 2000);
        }
    }
    for (unsigned side = 0; side < 2; side++) {
        struct cv_ssh_options options = {
            .transport = {.role = side ? CV_SSH_CLIENT : CV_SSH_SERVER,
                          .host_key = side ? NULL : key,
                          .ciphers = ciphers,
                          .has_compression = has_compression,
                          .rekey_bytes = 16384},
            .max_channels = channel_max,
            .window_bytes = window,
            .keepalive_ms = UINT32_MAX,
        };
        cv_buf_init(&world->sides[side].out, 128U << 10);
        assert_ok(
            cv_ssh_new(&options, &world->sides[side].out, world->now_ms, &world->sides[side].ssh));
    }
}

static void random_schedule(const char *ciphers, bool has_compression)
{
    static struct world world;
    struct cv_ssh_host_key *key;
    assert_ok(cv_ssh_host_key_generate(&key));
    start(&world, ciphers, has_compression, key);
    uint32_t round = 0;
    for (; world.done < stream_count && round < 4000000; round++) {
        if (draw(&world, 3))
            act(&world);
        else
            deliver(&world, draw(&world, 2), 1 + draw(&world, draw(&world, 4) ? 40000 : 100));
        if (round % 1000 == 0)
            world.now_ms += 1000;
    }
    assert_int_equal(world.done, stream_count);
    for (unsigned side = 0; side < 2; side++)
        assert_int_equal(cv_ssh_channel_count(world.sides[side].ssh), 0);
    for (unsigned i = 0; i < 20; i++)
        deliver(&world, i % 2, SIZE_MAX);
    for (unsigned side = 0; side < 2; side++)
        assert_int_equal(world.sides[side].asked, world.sides[side].answered);
    uint32_t kex_count = cv_ssh_transport_kex_count(cv_ssh_transport_of(world.sides[0].ssh));
    print_message("%u rounds, %u key exchanges, %u refused, %u requests\n", round, kex_count,
                  world.refused, world.sides[0].asked + world.sides[1].asked);
    assert_true(kex_count > (has_compression ? 20 : 200));
    uint8_t mine[32], theirs[32];
    assert_true(cv_ssh_derive(world.sides[0].ssh, "test", mine));
    assert_true(cv_ssh_derive(world.sides[1].ssh, "test", theirs));
    assert_memory_equal(mine, theirs, sizeof mine);
    for (unsigned side = 0; side < 2; side++) {
        cv_ssh_free(&world.sides[side].ssh);
        cv_buf_done(&world.sides[side].out);
    }
    cv_ssh_host_key_free(&key);
}

static void every_byte_arrives_in_order(void **state)
{
    (void)state;
    random_schedule(NULL, false);
}

static void every_byte_arrives_in_order_compressed(void **state)
{
    (void)state;
    random_schedule("chacha20-poly1305@openssh.com", true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_byte_arrives_in_order),
        cmocka_unit_test(every_byte_arrives_in_order_compressed),
    };
    return cmocka_run_group_tests_name("ssh_pair", tests, NULL, NULL);
}
