/* SPDX-License-Identifier: MIT
 *
 * Channels (RFC 4254 §5, §7.2): opening, windows both ways, end of file, close. What the caller
 * does and what goes out is here; what comes in is in channel_in.c.
 *
 * Happy path: CHANNEL_OPEN and its confirmation; data, each side within the window that the other
 * has given, more of it by WINDOW_ADJUST; EOF of each side; CLOSE of each side.
 *
 * Fails: an open by refusal, see there; anything here by the end of the session, which cv_ssh_next
 * tells.
 */
#include "proto/ssh/session.h"

#include "base/bytes.h"

#include <assert.h>
#include <utlist.h>

static const char *const state_names[CV_SSH_CHANNEL_STATE_COUNT] = {
    "requested", "opening", "cancelled", "open", "closing", "closed",
};

#define STEP(from, to, event)                                                                      \
    {                                                                                              \
        CV_SSH_CHANNEL_IS_##from, CV_SSH_CHANNEL_IS_##to, (event)                                  \
    }
static const struct cv_fsm_step steps[] = {
    STEP(REQUESTED, OPEN, "we accept it"),
    STEP(REQUESTED, CLOSED, "we refuse it"),
    STEP(OPENING, OPEN, "the peer confirms it"),
    STEP(OPENING, CANCELLED, "closed before the peer answered"),
    STEP(OPENING, CLOSED, "the peer refuses it"),
    STEP(CANCELLED, CLOSING, "the peer confirms it all the same"),
    STEP(CANCELLED, CLOSED, "the peer refuses it"),
    STEP(OPEN, CLOSING, "our CLOSE is sent or due"),
    STEP(OPEN, CLOSED, "the session ended"),
    STEP(CLOSING, CLOSED, "CLOSE both ways"),
};
#undef STEP

const struct cv_fsm_def cv_ssh_channel_states = {
    .name = "ssh channel",
    .states = state_names,
    .count = CV_SSH_CHANNEL_STATE_COUNT,
    CV_FSM_STEPS(steps),
};

const char *const cv_ssh_channel_kinds[2] = {
    [CV_SSH_FORWARDED_TCPIP] = "forwarded-tcpip",
    [CV_SSH_DIRECT_TCPIP] = "direct-tcpip",
};

/* ---- places ---- */

struct cv_ssh_channel *cv_ssh_channel_make(struct cv_ssh *ssh, enum cv_ssh_channel_state state)
{
    if (ssh->channel_count >= ssh->max_channels)
        return NULL;
    struct cv_ssh_channel *channel = (struct cv_ssh_channel *)calloc(1, sizeof *channel);
    if (!channel)
        return NULL;
    uint32_t id = ssh->next_id;
    while (ssh->channels[id])
        id = (id + 1) % ssh->max_channels;
    /* The next one gets another number, so that logs do not show the same one at once again. */
    ssh->next_id = (id + 1) % ssh->max_channels;
    ssh->used_ids = id < ssh->used_ids ? ssh->used_ids : id + 1;
    ssh->channels[id] = channel;
    ssh->channel_count++;
    channel->ssh = ssh;
    channel->id = id;
    channel->fsm = (struct cv_fsm){.def = &cv_ssh_channel_states, .state = state};
    channel->window = channel->recv_window = ssh->window_bytes;
    return channel;
}

static void stop_waiting(struct cv_ssh_channel *channel)
{
    channel->wants_window = false;
    if (!channel->is_waiting)
        return;
    channel->is_waiting = false;
    DL_DELETE2(channel->ssh->waiting, channel, waiting_prev, waiting_next);
}

void cv_ssh_channel_wait(struct cv_ssh_channel *channel)
{
    channel->wants_window = false;
    if (channel->is_waiting)
        return;
    channel->is_waiting = true;
    DL_APPEND2(channel->ssh->waiting, channel, waiting_prev, waiting_next);
}

static void set_due(struct cv_ssh_channel *channel, bool *flag)
{
    *flag = true;
    if (channel->is_due)
        return;
    channel->is_due = true;
    DL_APPEND2(channel->ssh->due, channel, due_prev, due_next);
}

static void clear_due(struct cv_ssh_channel *channel)
{
    channel->is_adjust_due = channel->is_eof_due = channel->is_close_due = false;
    if (!channel->is_due)
        return;
    channel->is_due = false;
    DL_DELETE2(channel->ssh->due, channel, due_prev, due_next);
}

/* Gives its place up; the memory lives on until the next cv_ssh_next, for the event that tells. */
void cv_ssh_channel_retire(struct cv_ssh_channel *channel)
{
    struct cv_ssh *ssh = channel->ssh;
    cv_fsm_set(&channel->fsm, CV_SSH_CHANNEL_IS_CLOSED);
    stop_waiting(channel);
    clear_due(channel);
    ssh->channels[channel->id] = NULL;
    ssh->channel_count--;
    channel->dead_next = ssh->dead;
    ssh->dead = channel;
}

void cv_ssh_channels_reap(struct cv_ssh *ssh)
{
    while (ssh->dead) {
        struct cv_ssh_channel *channel = ssh->dead;
        ssh->dead = channel->dead_next;
        free(channel);
    }
}

void cv_ssh_channels_free(struct cv_ssh *ssh)
{
    cv_ssh_channels_reap(ssh);
    for (uint32_t id = 0; ssh->channels && id < ssh->max_channels; id++)
        free(ssh->channels[id]);
    free(ssh->channels);
    ssh->channels = NULL;
}

/* ---- what goes out ---- */

/* A message that is a number and the recipient, and perhaps one number more. */
struct cv_slice cv_ssh_channel_message(uint8_t space[9], uint8_t message,
                                       const struct cv_ssh_channel *channel)
{
    space[0] = message;
    cv_put_u32(space + 1, channel->peer_id);
    return cv_slice(space, 5);
}

static bool try_short(struct cv_ssh_channel *channel, uint8_t message)
{
    uint8_t space[9];
    return cv_ssh_session_try_send(channel->ssh, cv_ssh_channel_message(space, message, channel),
                                   cv_slice(NULL, 0));
}

static bool try_adjust(struct cv_ssh_channel *channel)
{
    uint8_t space[9];
    (void)cv_ssh_channel_message(space, CV_SSH_MSG_CHANNEL_WINDOW_ADJUST, channel);
    cv_put_u32(space + 5, channel->give_back);
    if (!cv_ssh_session_try_send(channel->ssh, cv_slice(space, 9), cv_slice(NULL, 0)))
        return false;
    channel->recv_window += channel->give_back;
    channel->give_back = 0;
    return true;
}

/* What is due, in this order, as far as it goes; true when nothing is left. */
static bool flush(struct cv_ssh_channel *channel)
{
    if (channel->is_adjust_due && !channel->is_close_due && !try_adjust(channel))
        return false;
    channel->is_adjust_due = false;
    if (channel->is_eof_due && !try_short(channel, CV_SSH_MSG_CHANNEL_EOF))
        return false;
    channel->is_eof_due = false;
    if (channel->is_close_due && !try_short(channel, CV_SSH_MSG_CHANNEL_CLOSE))
        return false;
    channel->is_close_due = false;
    return true;
}

static void flush_or_wait(struct cv_ssh_channel *channel)
{
    if (flush(channel))
        clear_due(channel);
}

void cv_ssh_channels_flush(struct cv_ssh *ssh)
{
    while (ssh->due && flush(ssh->due))
        clear_due(ssh->due);
}

void cv_ssh_channel_become_open(struct cv_ssh_channel *channel)
{
    cv_fsm_set(&channel->fsm, CV_SSH_CHANNEL_IS_OPEN);
    if (channel->is_eof_sent) {
        set_due(channel, &channel->is_eof_due);
        flush_or_wait(channel);
    }
}

void cv_ssh_channel_start_closing(struct cv_ssh_channel *channel)
{
    cv_fsm_set(&channel->fsm, CV_SSH_CHANNEL_IS_CLOSING);
    stop_waiting(channel);
    set_due(channel, &channel->is_close_due);
    flush_or_wait(channel);
}

struct cv_status cv_ssh_channel_send_failure(struct cv_ssh *ssh, uint32_t peer_id, uint32_t reason,
                                             const char *text)
{
    uint8_t space[CV_SSH_MESSAGE_MAX];
    struct cv_ssh_writer writer = cv_ssh_writer(space, sizeof space);
    cv_ssh_write_u8(&writer, CV_SSH_MSG_CHANNEL_OPEN_FAILURE);
    cv_ssh_write_u32(&writer, peer_id);
    cv_ssh_write_u32(&writer, reason);
    cv_ssh_write_string(&writer, cv_slice(text, strnlen(text, CV_SSH_NAME_MAX)));
    cv_ssh_write_str(&writer, "en"); /* language tag (RFC 4254 §5.1) */
    return cv_ssh_session_send(ssh, cv_ssh_written(&writer), cv_slice(NULL, 0));
}

bool cv_ssh_channels_pop_writable(struct cv_ssh *ssh, struct cv_ssh_event *event)
{
    while (ssh->waiting && cv_ssh_session_can_send(ssh) &&
           cv_ssh_transport_room(ssh->transport) >= CV_SSH_ROOM_MIN) {
        struct cv_ssh_channel *channel = ssh->waiting;
        stop_waiting(channel);
        if (channel->send_window == 0) {
            channel->wants_window = true;
            continue;
        }
        event->kind = CV_SSH_CHANNEL_WRITABLE;
        event->channel = channel;
        return true;
    }
    return false;
}

/* ---- the caller's side ---- */

struct cv_ssh_channel *cv_ssh_channel_open(struct cv_ssh *ssh, enum cv_ssh_channel_kind kind,
                                           struct cv_slice host, uint32_t port,
                                           struct cv_slice origin_host, uint32_t origin_port)
{
    bool is_ours = (kind == CV_SSH_FORWARDED_TCPIP) == ssh->is_server;
    if (!cv_is_ok(ssh->status) || !ssh->is_established || !is_ours || !cv_ssh_is_text(host) ||
        !cv_ssh_is_text(origin_host) || port > UINT16_MAX || origin_port > UINT16_MAX)
        return NULL;
    struct cv_ssh_channel *channel = cv_ssh_channel_make(ssh, CV_SSH_CHANNEL_IS_OPENING);
    if (!channel)
        return NULL;
    uint8_t space[CV_SSH_MESSAGE_MAX];
    struct cv_ssh_writer writer = cv_ssh_writer(space, sizeof space);
    cv_ssh_write_u8(&writer, CV_SSH_MSG_CHANNEL_OPEN);
    cv_ssh_write_str(&writer, cv_ssh_channel_kinds[kind]);
    cv_ssh_write_u32(&writer, channel->id);
    cv_ssh_write_u32(&writer, channel->recv_window);
    cv_ssh_write_u32(&writer, ssh->max_packet_bytes);
    cv_ssh_write_string(&writer, host);
    cv_ssh_write_u32(&writer, port);
    cv_ssh_write_string(&writer, origin_host);
    cv_ssh_write_u32(&writer, origin_port);
    if (!cv_is_ok(cv_ssh_session_send(ssh, cv_ssh_written(&writer), cv_slice(NULL, 0)))) {
        cv_ssh_channel_retire(channel);
        return NULL;
    }
    return channel;
}

void cv_ssh_channel_confirm(struct cv_ssh_channel *channel)
{
    if (!cv_ssh_channel_is(channel, CV_SSH_CHANNEL_IS_REQUESTED))
        return;
    uint8_t space[CV_SSH_MESSAGE_MAX];
    struct cv_ssh_writer writer = cv_ssh_writer(space, sizeof space);
    cv_ssh_write_u8(&writer, CV_SSH_MSG_CHANNEL_OPEN_CONFIRMATION);
    cv_ssh_write_u32(&writer, channel->peer_id);
    cv_ssh_write_u32(&writer, channel->id);
    cv_ssh_write_u32(&writer, channel->recv_window);
    cv_ssh_write_u32(&writer, channel->ssh->max_packet_bytes);
    if (cv_is_ok(cv_ssh_session_send(channel->ssh, cv_ssh_written(&writer), cv_slice(NULL, 0))))
        cv_ssh_channel_become_open(channel);
}

void cv_ssh_channel_refuse(struct cv_ssh_channel *channel, enum cv_ssh_open_failure reason,
                           const char *text)
{
    if (!cv_ssh_channel_is(channel, CV_SSH_CHANNEL_IS_REQUESTED))
        return;
    /* A failure to send has ended the session, which its next call tells. */
    (void)cv_ssh_channel_send_failure(channel->ssh, channel->peer_id, reason, text);
    cv_ssh_channel_retire(channel);
}

/* How much of `len` the next packet may carry. */
static size_t packet_len(const struct cv_ssh_channel *channel, size_t len)
{
    enum { header_len = 9 };
    if (!cv_ssh_channel_is(channel, CV_SSH_CHANNEL_IS_OPEN) || channel->is_eof_sent ||
        !cv_ssh_session_can_send(channel->ssh))
        return 0;
    size_t most =
        channel->send_window < channel->send_packet ? channel->send_window : channel->send_packet;
    most = len < most ? len : most;
    size_t room = cv_ssh_transport_room(channel->ssh->transport);
    room = room > header_len ? room - header_len : 0;
    if (most <= room)
        return most;
    /* Crumbs would cost a packet each: wait until there is room for more. */
    return room >= CV_SSH_ROOM_MIN - header_len ? room : 0;
}

size_t cv_ssh_channel_write(struct cv_ssh_channel *channel, struct cv_slice data)
{
    size_t taken = 0;
    while (taken < data.len) {
        size_t len = packet_len(channel, data.len - taken);
        if (len == 0)
            break;
        uint8_t header[9];
        (void)cv_ssh_channel_message(header, CV_SSH_MSG_CHANNEL_DATA, channel);
        cv_put_u32(header + 5, (uint32_t)len);
        if (!cv_ssh_session_try_send(channel->ssh, cv_slice(header, sizeof header),
                                     cv_slice(data.data + taken, len)))
            break;
        channel->send_window -= (uint32_t)len;
        taken += len;
    }
    if (taken < data.len && cv_ssh_channel_is(channel, CV_SSH_CHANNEL_IS_OPEN) &&
        !channel->is_eof_sent) {
        if (channel->send_window == 0)
            channel->wants_window = true;
        else
            cv_ssh_channel_wait(channel);
    }
    return taken;
}

size_t cv_ssh_channel_writable(const struct cv_ssh_channel *channel)
{
    size_t first = packet_len(channel, SIZE_MAX);
    size_t room = cv_buf_room(channel->ssh->out);
    size_t each = channel->send_packet + CV_SSH_PACKET_OVERHEAD + 9;
    if (first < channel->send_packet || room < CV_SSH_RESERVE + each)
        return first;
    size_t most = (room - CV_SSH_RESERVE) / each * channel->send_packet;
    return most < channel->send_window ? most : channel->send_window;
}

/* What lies under the threshold does not go round: with half a window as threshold a path that is
 * long enough for the window to matter carries half of what it could. A packet more or less a
 * window's eighth costs nothing. */
static uint32_t give_back_from(const struct cv_ssh_channel *channel)
{
    enum { LEAST = 32768 };
    uint32_t window = channel->window;
    uint32_t eighth = window / 8 > LEAST ? window / 8 : LEAST;
    return eighth < window / 2 ? eighth : window / 2;
}

/* A window that was made smaller gets there by not giving back what it has too much. */
static void keep_back(struct cv_ssh_channel *channel)
{
    size_t credit = cv_ssh_channel_credit(channel);
    size_t excess = credit > channel->window ? credit - channel->window : 0;
    channel->give_back -= excess < channel->give_back ? (uint32_t)excess : channel->give_back;
}

void cv_ssh_channel_set_window(struct cv_ssh_channel *channel, size_t bytes)
{
    assert(bytes && bytes <= CV_SSH_WINDOW_MAX);
    if (!cv_ssh_channel_is(channel, CV_SSH_CHANNEL_IS_OPEN) || channel->is_eof_received)
        return;
    size_t credit = cv_ssh_channel_credit(channel);
    channel->window = (uint32_t)bytes;
    keep_back(channel);
    if (bytes <= credit)
        return;
    channel->give_back += (uint32_t)(bytes - credit);
    set_due(channel, &channel->is_adjust_due);
    flush_or_wait(channel);
}

size_t cv_ssh_channel_credit(const struct cv_ssh_channel *channel)
{
    return (size_t)channel->recv_window + channel->unconsumed + channel->give_back;
}

size_t cv_ssh_credit(const struct cv_ssh *ssh)
{
    size_t credit = 0;
    for (uint32_t id = 0; id < ssh->used_ids; id++)
        credit += ssh->channels[id] ? ssh->channels[id]->recv_window : 0;
    return credit;
}

void cv_ssh_channel_consumed(struct cv_ssh_channel *channel, size_t len)
{
    assert(len <= channel->unconsumed);
    channel->unconsumed -= (uint32_t)len;
    channel->give_back += (uint32_t)len;
    keep_back(channel);
    if (!cv_ssh_channel_is(channel, CV_SSH_CHANNEL_IS_OPEN) || channel->is_eof_received ||
        channel->give_back < give_back_from(channel))
        return;
    set_due(channel, &channel->is_adjust_due);
    flush_or_wait(channel);
}

size_t cv_ssh_channel_unconsumed(const struct cv_ssh_channel *channel)
{
    return channel->unconsumed;
}

void cv_ssh_channel_eof(struct cv_ssh_channel *channel)
{
    if (channel->is_eof_sent)
        return;
    channel->is_eof_sent = true;
    stop_waiting(channel);
    /* Before it is open, become_open sends it. */
    if (cv_ssh_channel_is(channel, CV_SSH_CHANNEL_IS_OPEN)) {
        set_due(channel, &channel->is_eof_due);
        flush_or_wait(channel);
    }
}

void cv_ssh_channel_close(struct cv_ssh_channel *channel)
{
    switch ((enum cv_ssh_channel_state)channel->fsm.state) {
    case CV_SSH_CHANNEL_IS_REQUESTED:
        cv_ssh_channel_refuse(channel, CV_SSH_OPEN_CONNECT_FAILED, "closed");
        break;
    case CV_SSH_CHANNEL_IS_OPENING:
        cv_fsm_set(&channel->fsm, CV_SSH_CHANNEL_IS_CANCELLED);
        break;
    case CV_SSH_CHANNEL_IS_OPEN:
        cv_ssh_channel_start_closing(channel);
        break;
    case CV_SSH_CHANNEL_IS_CANCELLED:
    case CV_SSH_CHANNEL_IS_CLOSING:
    case CV_SSH_CHANNEL_IS_CLOSED:
    case CV_SSH_CHANNEL_STATE_COUNT:
        break;
    }
}

uint32_t cv_ssh_channel_count(const struct cv_ssh *ssh)
{
    return ssh->channel_count;
}

struct cv_ssh_channel *cv_ssh_channel_after(struct cv_ssh *ssh,
                                            const struct cv_ssh_channel *channel)
{
    for (uint32_t id = channel ? channel->id + 1 : 0; id < ssh->max_channels; id++)
        if (ssh->channels[id] && !ssh->channels[id]->is_orphan)
            return ssh->channels[id];
    return NULL;
}

void cv_ssh_channel_set_arg(struct cv_ssh_channel *channel, void *arg)
{
    channel->arg = arg;
}

void *cv_ssh_channel_arg(const struct cv_ssh_channel *channel)
{
    return channel->arg;
}

uint32_t cv_ssh_channel_id(const struct cv_ssh_channel *channel)
{
    return channel->id;
}

struct cv_ssh *cv_ssh_channel_session(const struct cv_ssh_channel *channel)
{
    return channel->ssh;
}
