/* SPDX-License-Identifier: MIT
 *
 * libFuzzer: a whole session after authentication, in both roles: the connection protocol on the
 * real transport layer, key exchanges included. The input (ssh_fuzz.h) is what the peer says and
 * what the owner does.
 *
 * First byte: bit 0 the role that is attacked, bit 1 strict key exchange, bit 2 a large `out`, bits
 * 3..4 how the owner answers.
 *
 * Checked, beside the limits in fuzz_check: no channel gets an event after its last one, data comes
 * only while it is open, and what we send to the peer keeps to the windows and packet sizes that it
 * gave, with one EOF, one CLOSE and nothing behind them.
 */
#include "proto/ssh/ssh_fuzz.h"

enum {
    IS_SERVER = 1,
    IS_STRICT = 2,
    IS_ROOMY = 4,
    CHANNELS = 4,
    WINDOW = 8192,
    PACKET = 4096,
    ALIVE_MAX = 64,
    HEARD_MAX = 64,
};

/* What the owner knows of a channel. */
struct owned {
    struct cv_ssh_channel *channel;
    bool is_open, has_eof, is_closed_by_us;
    size_t unconsumed;
};

/* What the peer knows of one, by its own number. */
struct heard {
    uint32_t peer_id;
    uint32_t packet; /* the most in one */
    uint64_t window; /* what it has given */
    uint64_t sent;
    bool is_used, is_answered, has_eof, has_close;
};

struct world {
    struct cv_ssh *ssh;
    struct cv_buf out;
    struct fuzz_listener listener;
    struct owned owned[ALIVE_MAX];
    struct heard heard[HEARD_MAX];
    bool is_blind; /* the peer uses a number twice: what is meant cannot be told any more */
    uint64_t now_ms;
    uint8_t mode;
    unsigned events;
};

/* ---- the peer: what it gives and what it gets ---- */

static struct heard *find_heard(struct world *w, uint32_t peer_id)
{
    for (size_t i = 0; i < HEARD_MAX; i++)
        if (w->heard[i].is_used && w->heard[i].peer_id == peer_id)
            return &w->heard[i];
    return NULL;
}

static void note_number(struct world *w, uint32_t peer_id, uint32_t window, uint32_t packet)
{
    size_t i = 0;
    while (i < HEARD_MAX && w->heard[i].is_used)
        i++;
    if (find_heard(w, peer_id) || i == HEARD_MAX)
        w->is_blind = true;
    else
        w->heard[i] =
            (struct heard){.is_used = true, .peer_id = peer_id, .window = window, .packet = packet};
}

/* Before it is said: what does this message give us? */
static void note_said(struct world *w, struct cv_slice payload)
{
    struct cv_ssh_reader r = cv_ssh_reader(payload);
    struct cv_slice type;
    uint8_t number;
    uint32_t ours, peer_id, window, packet;
    (void)cv_ssh_read_u8(&r, &number);
    if (number == CV_SSH_MSG_CHANNEL_OPEN && cv_ssh_read_string(&r, &type) &&
        cv_ssh_read_u32(&r, &peer_id) && cv_ssh_read_u32(&r, &window) &&
        cv_ssh_read_u32(&r, &packet)) {
        note_number(w, peer_id, window, packet);
    } else if (number == CV_SSH_MSG_CHANNEL_OPEN_CONFIRMATION && cv_ssh_read_u32(&r, &ours) &&
               cv_ssh_read_u32(&r, &peer_id) && cv_ssh_read_u32(&r, &window) &&
               cv_ssh_read_u32(&r, &packet) && cv_ssh_reader_is_done(&r)) {
        note_number(w, peer_id, window, packet);
        struct heard *heard = find_heard(w, peer_id);
        if (heard)
            heard->is_answered = true;
    } else if (number == CV_SSH_MSG_CHANNEL_WINDOW_ADJUST && cv_ssh_read_u32(&r, &ours) &&
               cv_ssh_read_u32(&r, &window) && cv_ssh_reader_is_done(&r) &&
               ours < w->ssh->max_channels && w->ssh->channels[ours]) {
        struct heard *heard = find_heard(w, w->ssh->channels[ours]->peer_id);
        if (heard)
            heard->window += window;
    }
}

static void hear_data(struct heard *heard, struct cv_ssh_reader *r)
{
    struct cv_slice data;
    cv_fuzz_must(cv_ssh_read_string(r, &data) && cv_ssh_reader_is_done(r) && data.len > 0);
    heard->sent += data.len;
    cv_fuzz_must(data.len <= heard->packet && heard->sent <= heard->window);
    cv_fuzz_must(!heard->has_eof && !heard->has_close);
}

/* RFC 4254 §5.3: what may follow what on a channel. */
static void hear_channel(struct world *w, uint8_t number, struct cv_ssh_reader *r)
{
    uint32_t peer_id;
    cv_fuzz_must(cv_ssh_read_u32(r, &peer_id));
    struct heard *heard = find_heard(w, peer_id);
    if (w->is_blind)
        return;
    cv_fuzz_must(heard && !heard->has_close);
    bool is_answer =
        number == CV_SSH_MSG_CHANNEL_OPEN_CONFIRMATION || number == CV_SSH_MSG_CHANNEL_OPEN_FAILURE;
    cv_fuzz_must(is_answer != heard->is_answered);
    switch (number) {
    case CV_SSH_MSG_CHANNEL_OPEN_CONFIRMATION:
        heard->is_answered = true;
        break;
    case CV_SSH_MSG_CHANNEL_OPEN_FAILURE:
        heard->is_used = false;
        break;
    case CV_SSH_MSG_CHANNEL_DATA:
        hear_data(heard, r);
        break;
    case CV_SSH_MSG_CHANNEL_EOF:
        cv_fuzz_must(!heard->has_eof);
        heard->has_eof = true;
        break;
    case CV_SSH_MSG_CHANNEL_CLOSE:
        heard->has_close = true;
        break;
    case CV_SSH_MSG_CHANNEL_WINDOW_ADJUST:
    case CV_SSH_MSG_CHANNEL_FAILURE:
        break;
    default:
        cv_fuzz_must(false);
    }
}

static void listen(struct world *w)
{
    struct cv_slice payload;
    while (fuzz_hear(&w->listener, &w->out, &payload)) {
        struct cv_ssh_reader r = cv_ssh_reader(payload);
        uint8_t number;
        (void)cv_ssh_read_u8(&r, &number);
        if (number > CV_SSH_MSG_CHANNEL_OPEN)
            hear_channel(w, number, &r);
    }
}

/* ---- the owner ---- */

static struct owned *find_owned(struct world *w, const struct cv_ssh_channel *channel)
{
    for (size_t i = 0; i < ALIVE_MAX; i++)
        if (w->owned[i].channel == channel)
            return &w->owned[i];
    return NULL;
}

static void own(struct world *w, struct cv_ssh_channel *channel)
{
    struct owned *place = find_owned(w, NULL);
    cv_fuzz_must(channel && place && !find_owned(w, channel));
    *place = (struct owned){.channel = channel};
}

static void disown(struct owned *owned)
{
    *owned = (struct owned){0};
}

static void answer_request(struct world *w, struct owned *owned, uint8_t choice)
{
    if (choice == 0) {
        cv_ssh_channel_refuse(owned->channel, CV_SSH_OPEN_PROHIBITED, "no");
        disown(owned);
    } else if (choice == 1) {
        return; /* an act may answer later */
    } else {
        cv_ssh_channel_confirm(owned->channel);
        owned->is_open = true;
        if (choice == 3)
            cv_ssh_channel_close(owned->channel);
        owned->is_closed_by_us = choice == 3;
    }
    (void)w;
}

static void on_channel_event(struct world *w, const struct cv_ssh_event *event, uint8_t choice)
{
    if (event->kind == CV_SSH_CHANNEL_REQUESTED) {
        own(w, event->channel);
        answer_request(w, find_owned(w, event->channel), choice);
        return;
    }
    struct owned *owned = find_owned(w, event->channel);
    cv_fuzz_must(owned); /* nothing after the last event */
    switch (event->kind) {
    case CV_SSH_CHANNEL_OPENED:
        cv_fuzz_must(!owned->is_open && !owned->is_closed_by_us);
        owned->is_open = true;
        break;
    case CV_SSH_CHANNEL_REFUSED:
        cv_fuzz_must(!owned->is_open);
        disown(owned);
        break;
    case CV_SSH_CHANNEL_CLOSED:
        disown(owned);
        break;
    case CV_SSH_CHANNEL_EOF:
        cv_fuzz_must(owned->is_open && !owned->has_eof && !owned->is_closed_by_us);
        owned->has_eof = true;
        break;
    case CV_SSH_CHANNEL_WRITABLE:
        cv_fuzz_must(owned->is_open && !owned->is_closed_by_us);
        break;
    case CV_SSH_CHANNEL_DATA:
        cv_fuzz_must(owned->is_open && !owned->has_eof && !owned->is_closed_by_us);
        cv_fuzz_must(event->data.len > 0 && event->data.len <= PACKET);
        owned->unconsumed += event->data.len;
        cv_fuzz_must(owned->unconsumed <= WINDOW);
        cv_fuzz_must(owned->unconsumed == cv_ssh_channel_unconsumed(event->channel));
        if (choice > 1) {
            cv_ssh_channel_consumed(event->channel, event->data.len);
            owned->unconsumed -= event->data.len;
        }
        break;
    default:
        cv_fuzz_must(false);
    }
}

static void on_event(struct world *w, const struct cv_ssh_event *event)
{
    uint8_t choice = (uint8_t)((w->mode >> 3 & 3) + w->events++) % 4;
    if (event->channel) {
        on_channel_event(w, event, choice);
        return;
    }
    switch (event->kind) {
    case CV_SSH_GLOBAL_REQUEST:
        if (event->request.want_reply && choice != 1)
            (void)cv_ssh_global_reply(w->ssh, choice > 1, event->request.payload);
        break;
    case CV_SSH_GLOBAL_REPLY:
        cv_fuzz_must(event->reply.cookie == w);
        break;
    case CV_SSH_REKEYED:
    case CV_SSH_KEEPALIVE_ANSWERED:
    case CV_SSH_DISCONNECTED:
        break;
    default: /* HOST_KEY and ESTABLISHED come once, and have been */
        cv_fuzz_must(false);
    }
}

static void drain(struct world *w)
{
    struct cv_ssh_event event;
    struct cv_status status;
    bool was_over = !cv_is_ok(w->ssh->status);
    while (cv_is_ok(status = cv_ssh_next(w->ssh, w->now_ms, &event))) {
        cv_fuzz_must(!was_over);
        on_event(w, &event);
        fuzz_check(w->ssh);
    }
    fuzz_check(w->ssh);
    if (status.id != CV_AGAIN)
        cv_fuzz_must(!cv_ssh_wants_input(w->ssh) && cv_ssh_deadline(w->ssh) == UINT64_MAX);
}

static struct owned *pick(struct world *w, uint8_t which)
{
    unsigned left = which % CHANNELS;
    for (size_t i = 0; i < ALIVE_MAX; i++)
        if (w->owned[i].channel && left-- == 0)
            return &w->owned[i];
    return NULL;
}

static void act_on_channel(struct owned *owned, uint8_t what, uint16_t more)
{
    static const uint8_t bytes[65536];
    size_t taken;
    switch (what % 6) {
    case 0:
        taken = cv_ssh_channel_write(owned->channel, cv_slice(bytes, more));
        cv_fuzz_must(taken <= more && (taken == 0 || owned->is_open));
        break;
    case 1:
        taken = more < owned->unconsumed ? more : owned->unconsumed;
        cv_ssh_channel_consumed(owned->channel, taken);
        owned->unconsumed -= taken;
        break;
    case 2:
        cv_ssh_channel_eof(owned->channel);
        break;
    case 3:
        if (cv_ssh_channel_is(owned->channel, CV_SSH_CHANNEL_IS_REQUESTED)) {
            cv_ssh_channel_close(owned->channel);
            disown(owned);
        } else {
            cv_ssh_channel_close(owned->channel);
            owned->is_closed_by_us = true;
        }
        break;
    case 4:
        if (cv_ssh_channel_is(owned->channel, CV_SSH_CHANNEL_IS_REQUESTED)) {
            cv_ssh_channel_confirm(owned->channel);
            owned->is_open = true;
        }
        break;
    default:
        (void)cv_ssh_channel_writable(owned->channel);
    }
}

static void act(struct world *w, const struct fuzz_record *record)
{
    static const uint8_t bytes[65536];
    uint8_t b[4] = {0};
    memcpy(b, record->body, record->len < 4 ? record->len : 4);
    uint16_t more = cv_get_u16(b + 2);
    struct owned *owned = pick(w, b[1]);
    struct cv_ssh_channel *made;
    switch (b[0] % 10) {
    case 0:
        listen(w);
        break;
    case 1:
        made = cv_ssh_channel_open(
            w->ssh, w->mode & IS_SERVER ? CV_SSH_FORWARDED_TCPIP : CV_SSH_DIRECT_TCPIP,
            cv_slice_str("home"), 80, cv_slice_str("::1"), 1);
        if (made)
            own(w, made);
        break;
    case 2:
        (void)cv_ssh_global_request(w->ssh, "x@culvert", b[1] & 1,
                                    cv_slice(bytes, more % CV_SSH_REQUEST_PAYLOAD_MAX), w);
        break;
    case 3:
        (void)cv_ssh_global_reply(w->ssh, b[1] & 1,
                                  cv_slice(bytes, more % CV_SSH_REQUEST_PAYLOAD_MAX));
        break;
    case 4:
        cv_ssh_rekey(w->ssh);
        break;
    case 5:
        w->now_ms += more;
        cv_ssh_tick(w->ssh, w->now_ms);
        break;
    case 6:
        if (b[1] & 1)
            cv_ssh_pause(w->ssh, w->now_ms);
        else
            cv_ssh_resume(w->ssh, w->now_ms);
        break;
    case 7:
        if (more == 0x1234)
            cv_ssh_disconnect(w->ssh, 11, "bye");
        break;
    default:
        if (owned)
            act_on_channel(owned, b[0] / 10, more);
    }
    fuzz_check(w->ssh);
    drain(w);
}

static void feed(struct world *w, const uint8_t *data, size_t len, size_t step)
{
    while (len > 0) {
        size_t n = step && step < len ? step : len;
        if (!cv_ssh_wants_input(w->ssh)) {
            listen(w);
            drain(w);
        }
        if (!cv_ssh_wants_input(w->ssh))
            return;
        uint8_t *copy = cv_fuzz_copy(data, n);
        if (cv_is_ok(cv_ssh_feed(w->ssh, copy, n)))
            drain(w);
        free(copy);
        data += n;
        len -= n;
    }
}

static void say(struct world *w, const struct fuzz_record *record, size_t step)
{
    uint8_t packet[FUZZ_BODY_MAX + CV_SSH_PACKET_OVERHEAD];
    size_t len = record->len < FUZZ_BODY_MAX ? record->len : FUZZ_BODY_MAX;
    /* Whatever it waits for comes first, so that what is noted now holds when it is read. */
    listen(w);
    drain(w);
    if (len == 0 || !cv_ssh_wants_input(w->ssh))
        return;
    note_said(w, cv_slice(record->body, len));
    feed(w, packet, fuzz_frame(w->ssh->transport, packet, record->body, len), step);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct cv_ssh_host_key *key;
    if (len < FUZZ_HEAD || (!key && !cv_is_ok(cv_ssh_host_key_generate(&key))))
        return 0;
    struct world w = {.mode = data[0], .now_ms = 1, .listener = {.is_ciphered = true}};
    struct cv_ssh_options options = {
        .max_channels = CHANNELS,
        .window_bytes = WINDOW,
        .max_packet_bytes = PACKET,
        .transport = {.role = w.mode & IS_SERVER ? CV_SSH_SERVER : CV_SSH_CLIENT,
                      .host_key = key,
                      .ciphers = FUZZ_CIPHER,
                      .rekey_bytes = 65536}};
    cv_buf_init(&w.out, w.mode & IS_ROOMY ? 4 * CV_SSH_OUT_MIN : CV_SSH_OUT_MIN);
    cv_fuzz_must(cv_is_ok(cv_ssh_new(&options, &w.out, w.now_ms, &w.ssh)));
    fuzz_establish(w.ssh, w.mode & IS_STRICT, cv_ssh_host_key_blob(key));
    struct cv_slice input = cv_slice(data + FUZZ_HEAD, len - FUZZ_HEAD);
    struct fuzz_record record;
    while (fuzz_next(&input, &record)) {
        if (record.kind == FUZZ_PACKET)
            say(&w, &record, data[1]);
        else if (record.kind == FUZZ_RAW)
            feed(&w, record.body, record.len, data[1]);
        else if (record.kind == FUZZ_ACT)
            act(&w, &record);
    }
    listen(&w);
    cv_ssh_free(&w.ssh);
    cv_buf_done(&w.out);
    return 0;
}
