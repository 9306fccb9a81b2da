/* SPDX-License-Identifier: MIT
 *
 * libFuzzer: two sessions of ours back to back under a schedule that the input gives: channels
 * opened, written, half-closed and closed from both sides, bytes carried in pieces of any size,
 * buffers that fill up, keys exchanged, clocks stopped. Ciphers leave bytes as they are.
 *
 * First byte: bit 0 compression, bit 1 strict key exchange, bit 2 a large `out`. Then three bytes
 * an act: what and whose, a stream, how much.
 *
 * Checked: no session fails; every byte that was taken arrives, once and in order, unless its
 * channel was closed; nothing waits for ever; when all streams are closed on both sides, no channel
 * is left.
 */
#include "proto/ssh/ssh_fuzz.h"

enum {
    HAS_ZLIB = 1,
    IS_STRICT = 2,
    IS_ROOMY = 4,
    STREAMS = 24,
    CHANNELS = 6,
    WINDOW = 4096,
    WINDOW_MOST = 4 * WINDOW,
    REKEYS_MAX = 8, /* more without data would be refused */
    ACTS_MAX = 2000,
    ROUNDS_MAX = 4000,
    TIME_MAX_MS = 29000, /* a key exchange that takes 30 s fails, and may */
    KEEPALIVE_MS = 1000,
};

struct end {
    struct cv_ssh_channel *channel;
    size_t written, read, unconsumed;
    bool can_write, is_eof_sent, has_eof, is_cut, is_gone, was_there;
};

struct stream {
    struct end ends[2]; /* at the client, at the server */
};

struct side {
    struct cv_ssh *ssh;
    struct cv_buf out;
    uint32_t asked, answered;
};

struct world {
    struct side sides[2];
    struct stream streams[STREAMS];
    unsigned opened, rekeys;
    uint64_t now_ms;
    bool is_ending;
};

static uint8_t byte_at(size_t stream, size_t side, size_t at)
{
    return (uint8_t)(stream * 31 + side * 101 + at * 7 + (at >> 8) * 3);
}

static size_t number_of(const struct world *w, const struct end *end)
{
    return (size_t)((const struct stream *)(const void *)end - w->streams);
}

static struct end *end_of(struct world *w, size_t side, const struct cv_ssh_channel *channel)
{
    return &w->streams[(uintptr_t)cv_ssh_channel_arg(channel) - 1].ends[side];
}

static void attach(struct world *w, size_t side, size_t number, struct cv_ssh_channel *channel)
{
    struct end *end = &w->streams[number].ends[side];
    cv_fuzz_must(number < STREAMS && !end->was_there);
    end->channel = channel;
    end->was_there = true;
    cv_ssh_channel_set_arg(channel, (void *)(uintptr_t)(number + 1));
}

static void consume(struct end *end, size_t len)
{
    len = len < end->unconsumed ? len : end->unconsumed;
    cv_ssh_channel_consumed(end->channel, len);
    end->unconsumed -= len;
}

static void on_data(size_t number, size_t from, struct end *end, struct cv_slice data, bool takes)
{
    for (size_t i = 0; i < data.len; i++)
        cv_fuzz_must(data.data[i] == byte_at(number, from, end->read + i));
    end->read += data.len;
    end->unconsumed += data.len;
    cv_fuzz_must(end->unconsumed <= WINDOW_MOST && !end->has_eof && !end->is_cut);
    if (takes)
        consume(end, data.len);
}

static void on_end(struct world *w, size_t side, struct end *end)
{
    struct end *other = &w->streams[number_of(w, end - side)].ends[!side];
    /* Whoever did not cut it, nor was cut off, has read all. */
    if (!end->is_cut && !other->is_cut)
        cv_fuzz_must(end->read == other->written);
    end->channel = NULL;
    end->is_gone = true;
}

static void on_event(struct world *w, size_t side, const struct cv_ssh_event *event)
{
    struct cv_ssh *ssh = w->sides[side].ssh;
    struct end *end = NULL;
    if (event->channel && event->kind != CV_SSH_CHANNEL_REQUESTED)
        end = end_of(w, side, event->channel);
    cv_fuzz_must(!end || end->channel == event->channel);
    switch (event->kind) {
    case CV_SSH_CHANNEL_REQUESTED:
        attach(w, side, event->open.port, event->channel);
        cv_ssh_channel_confirm(event->channel);
        w->streams[event->open.port].ends[side].can_write = true;
        break;
    case CV_SSH_CHANNEL_OPENED:
    case CV_SSH_CHANNEL_WRITABLE:
        cv_fuzz_must(!end->is_cut);
        end->can_write = true;
        break;
    case CV_SSH_CHANNEL_REFUSED:
        cv_fuzz_must(end->read == 0 && event->end.reason == CV_SSH_OPEN_RESOURCE_SHORTAGE);
        end->channel = NULL;
        end->is_gone = true;
        break;
    case CV_SSH_CHANNEL_DATA:
        on_data(number_of(w, end - side), !side, end, event->data, w->is_ending);
        break;
    case CV_SSH_CHANNEL_EOF:
        cv_fuzz_must(!end->has_eof && !end->is_cut);
        cv_fuzz_must(end->read == w->streams[number_of(w, end - side)].ends[!side].written);
        end->has_eof = true;
        break;
    case CV_SSH_CHANNEL_CLOSED:
        on_end(w, side, end);
        break;
    case CV_SSH_GLOBAL_REQUEST:
        cv_fuzz_must(cv_is_ok(cv_ssh_global_reply(ssh, true, event->request.payload)));
        break;
    case CV_SSH_GLOBAL_REPLY:
        cv_fuzz_must(event->reply.is_success && event->reply.payload.len == 4 &&
                     cv_get_u32(event->reply.payload.data) == w->sides[side].answered++);
        break;
    case CV_SSH_REKEYED:
    case CV_SSH_KEEPALIVE_ANSWERED:
        break;
    case CV_SSH_HOST_KEY:
    case CV_SSH_ESTABLISHED:
    case CV_SSH_DISCONNECTED:
        cv_fuzz_must(false);
    }
}

static void drain(struct world *w, size_t side)
{
    struct cv_ssh_event event;
    struct cv_status status;
    while (cv_is_ok(status = cv_ssh_next(w->sides[side].ssh, w->now_ms, &event)))
        on_event(w, side, &event);
    cv_fuzz_must(status.id == CV_AGAIN);
    fuzz_check(w->sides[side].ssh);
}

static bool carry(struct world *w, size_t from, size_t most)
{
    struct side *to = &w->sides[!from];
    struct cv_buf *out = &w->sides[from].out;
    size_t len = cv_buf_len(out) < most ? cv_buf_len(out) : most;
    if (len == 0 || !cv_ssh_wants_input(to->ssh))
        return false;
    uint8_t *copy = cv_fuzz_copy(cv_buf_head(out), len);
    cv_buf_consume(out, len);
    cv_fuzz_must(cv_is_ok(cv_ssh_feed(to->ssh, copy, len)));
    drain(w, !from);
    free(copy);
    drain(w, from); /* there is room in its `out` again */
    return true;
}

static void open_one(struct world *w, size_t side)
{
    if (w->opened == STREAMS)
        return;
    struct cv_ssh_channel *channel =
        cv_ssh_channel_open(w->sides[side].ssh, side ? CV_SSH_FORWARDED_TCPIP : CV_SSH_DIRECT_TCPIP,
                            cv_slice_str("home"), w->opened, cv_slice_str("::1"), 1);
    if (channel)
        attach(w, side, w->opened++, channel);
}

static void write_some(size_t number, size_t side, struct end *end, size_t len)
{
    uint8_t bytes[4096];
    len = len < sizeof bytes ? len : sizeof bytes;
    for (size_t i = 0; i < len; i++)
        bytes[i] = byte_at(number, side, end->written + i);
    size_t taken = cv_ssh_channel_write(end->channel, cv_slice(bytes, len));
    cv_fuzz_must(taken <= len && (taken == 0 || !end->is_eof_sent));
    end->written += taken;
    end->can_write = taken == len;
}

static void act_on_stream(struct world *w, size_t side, size_t number, uint8_t what, size_t much)
{
    struct end *end = &w->streams[number].ends[side];
    if (!end->channel)
        return;
    switch (what) {
    case 0:
        if (!end->is_eof_sent && !end->is_cut)
            write_some(number, side, end, much);
        break;
    case 1:
        consume(end, much);
        if (much % 3 == 0)
            cv_ssh_channel_set_window(end->channel, 1 + much % WINDOW_MOST);
        break;
    case 2:
        end->is_eof_sent = true;
        cv_ssh_channel_eof(end->channel);
        break;
    default:
        end->is_cut = true;
        cv_ssh_channel_close(end->channel);
    }
}

static void pass_time(struct world *w, size_t ms)
{
    if (w->now_ms + ms < TIME_MAX_MS)
        w->now_ms += ms;
}

static void act(struct world *w, const uint8_t act[3])
{
    size_t side = act[0] & 1, number = act[1] % STREAMS, much = act[2] * act[2] / 4U + 1U;
    struct side *mine = &w->sides[side];
    uint8_t what = act[0] >> 1 & 15, payload[4];
    switch (what) {
    case 0:
    case 1:
    case 2:
        (void)carry(w, side, much);
        break;
    case 3:
        (void)carry(w, side, SIZE_MAX);
        break;
    case 4:
        open_one(w, side);
        break;
    case 5:
        if (w->rekeys++ < REKEYS_MAX)
            cv_ssh_rekey(mine->ssh);
        break;
    case 6:
        cv_put_u32(payload, mine->asked);
        if (cv_is_ok(
                cv_ssh_global_request(mine->ssh, "x@culvert", true, cv_slice(payload, 4), NULL)))
            mine->asked++;
        break;
    case 7:
        pass_time(w, much);
        cv_ssh_tick(mine->ssh, w->now_ms);
        break;
    case 8:
        cv_ssh_pause(mine->ssh, w->now_ms);
        pass_time(w, much);
        cv_ssh_resume(mine->ssh, w->now_ms);
        break;
    default:
        act_on_stream(w, side, number, what - 9 < 3 ? 0 : what - 11, much);
    }
    drain(w, side);
}

/* Everybody reads all, sends end of file, closes when both have; then nothing may be left. */
static void finish(struct world *w)
{
    w->is_ending = true;
    bool is_moving = true;
    for (unsigned round = 0; is_moving; round++) {
        cv_fuzz_must(round < ROUNDS_MAX);
        is_moving = false;
        for (size_t i = 0; i < (size_t)2 * STREAMS; i++) {
            struct end *end = &w->streams[i / 2].ends[i % 2];
            if (!end->channel)
                continue;
            consume(end, end->unconsumed);
            cv_ssh_channel_eof(end->channel);
            end->is_eof_sent = true;
            if (end->has_eof)
                cv_ssh_channel_close(end->channel);
        }
        for (size_t side = 0; side < 2; side++) {
            drain(w, side);
            is_moving = carry(w, side, SIZE_MAX) || is_moving;
        }
    }
    for (size_t side = 0; side < 2; side++) {
        cv_fuzz_must(cv_ssh_channel_count(w->sides[side].ssh) == 0);
        cv_fuzz_must(w->sides[side].asked == w->sides[side].answered);
    }
}

static void start(struct world *w, uint8_t mode, const struct cv_ssh_host_key *key)
{
    for (size_t side = 0; side < 2; side++) {
        struct cv_ssh_options options = {.max_channels = CHANNELS,
                                         .window_bytes = WINDOW,
                                         .transport = {.role = side ? CV_SSH_SERVER : CV_SSH_CLIENT,
                                                       .host_key = key,
                                                       .ciphers = FUZZ_CIPHER,
                                                       .has_compression = mode & HAS_ZLIB,
                                                       .rekey_bytes = 50000}};
        cv_buf_init(&w->sides[side].out, mode & IS_ROOMY ? 4 * CV_SSH_OUT_MIN : CV_SSH_OUT_MIN);
        cv_fuzz_must(
            cv_is_ok(cv_ssh_new(&options, &w->sides[side].out, w->now_ms, &w->sides[side].ssh)));
        fuzz_establish(w->sides[side].ssh, mode & IS_STRICT, cv_ssh_host_key_blob(key));
    }
    memcpy(w->sides[0].ssh->transport->peer_version, w->sides[1].ssh->transport->own_version, 64);
    memcpy(w->sides[1].ssh->transport->peer_version, w->sides[0].ssh->transport->own_version, 64);
    for (size_t side = 0; side < 2; side++)
        w->sides[side].ssh->transport->peer_version_len =
            strlen(w->sides[side].ssh->transport->peer_version);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct cv_ssh_host_key *key;
    if (len == 0 || (!key && !cv_is_ok(cv_ssh_host_key_generate(&key))))
        return 0;
    struct world w = {.now_ms = 1};
    start(&w, data[0], key);
    size_t acts = (len - 1) / 3;
    for (size_t i = 0; i < acts && i < ACTS_MAX; i++)
        act(&w, data + 1 + i * 3);
    finish(&w);
    for (size_t side = 0; side < 2; side++) {
        cv_ssh_free(&w.sides[side].ssh);
        cv_buf_done(&w.sides[side].out);
    }
    return 0;
}
