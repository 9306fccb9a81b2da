/* SPDX-License-Identifier: MIT
 *
 * Channel messages of the peer (RFC 4254 §5, §6, §7.2), numbers 90 to 100.
 *
 * Happy path: an open that the caller answers, or the answer to ours; data within the window, more
 * window, EOF, CLOSE.
 *
 * Fails: a channel by refusal (type, limit, name, packet size); the session by a message for a
 * channel that is not there, by data beyond the window or the packet size or after EOF, by a window
 * over 2^32-1, by a malformed message. A peer that breaks these rules cannot be kept in step, so
 * none is forgiven.
 */
#include "proto/ssh/session.h"

#define BIT(state) (1U << CV_SSH_CHANNEL_IS_##state)

static struct cv_status malformed(struct cv_ssh *ssh)
{
    return cv_ssh_session_fail(ssh, CV_SSH_PROTOCOL, "malformed channel message");
}

static struct cv_status handle_open(struct cv_ssh *ssh, struct cv_ssh_reader *reader,
                                    struct cv_ssh_event *event, bool *has_event)
{
    struct cv_slice type;
    uint32_t peer_id, window, packet;
    cv_ssh_read_string(reader, &type);
    cv_ssh_read_u32(reader, &peer_id);
    cv_ssh_read_u32(reader, &window);
    cv_ssh_read_u32(reader, &packet);
    if (reader->is_failed)
        return malformed(ssh);

    bool is_direct = cv_slice_is(type, cv_ssh_channel_kinds[CV_SSH_DIRECT_TCPIP]);
    if (!is_direct && !cv_slice_is(type, cv_ssh_channel_kinds[CV_SSH_FORWARDED_TCPIP]))
        return cv_ssh_channel_send_failure(ssh, peer_id, CV_SSH_OPEN_UNKNOWN_TYPE,
                                           "unknown channel type");

    event->open.kind = is_direct ? CV_SSH_DIRECT_TCPIP : CV_SSH_FORWARDED_TCPIP;
    cv_ssh_read_string(reader, &event->open.host);
    cv_ssh_read_u32(reader, &event->open.port);
    cv_ssh_read_string(reader, &event->open.origin_host);
    cv_ssh_read_u32(reader, &event->open.origin_port);
    if (!cv_ssh_reader_is_done(reader))
        return malformed(ssh);
    /* Clients should refuse direct-tcpip, and only they are sent forwarded-tcpip (RFC 4254 §7.2).
     */
    if (is_direct != ssh->is_server)
        return cv_ssh_channel_send_failure(ssh, peer_id, CV_SSH_OPEN_PROHIBITED,
                                           "not in this direction");
    if (!cv_ssh_is_text(event->open.host) || !cv_ssh_is_text(event->open.origin_host) ||
        event->open.port > UINT16_MAX || event->open.origin_port > UINT16_MAX)
        return cv_ssh_channel_send_failure(ssh, peer_id, CV_SSH_OPEN_PROHIBITED,
                                           "bad name or port");
    if (packet < CV_SSH_PEER_PACKET_MIN)
        return cv_ssh_channel_send_failure(ssh, peer_id, CV_SSH_OPEN_CONNECT_FAILED,
                                           "maximum packet size under 1024");
    struct cv_ssh_channel *channel = cv_ssh_channel_make(ssh, CV_SSH_CHANNEL_IS_REQUESTED);
    if (!channel)
        return cv_ssh_channel_send_failure(ssh, peer_id, CV_SSH_OPEN_RESOURCE_SHORTAGE,
                                           "too many channels");
    channel->peer_id = peer_id;
    channel->send_window = window;
    channel->send_packet = packet < CV_SSH_DATA_MAX ? packet : CV_SSH_DATA_MAX;
    event->kind = CV_SSH_CHANNEL_REQUESTED;
    event->channel = channel;
    *has_event = true;
    return cv_ok();
}

static void refused_event(struct cv_ssh_channel *channel, struct cv_ssh_event *event,
                          uint32_t reason, struct cv_slice text)
{
    event->kind = CV_SSH_CHANNEL_REFUSED;
    event->channel = channel;
    event->end.reason = reason;
    event->end.text = text;
}

static struct cv_status handle_confirmation(struct cv_ssh_channel *channel,
                                            struct cv_ssh_reader *reader,
                                            struct cv_ssh_event *event, bool *has_event)
{
    uint32_t packet;
    cv_ssh_read_u32(reader, &channel->peer_id);
    cv_ssh_read_u32(reader, &channel->send_window);
    cv_ssh_read_u32(reader, &packet);
    if (!cv_ssh_reader_is_done(reader))
        return malformed(channel->ssh);
    channel->send_packet = packet < CV_SSH_DATA_MAX ? packet : CV_SSH_DATA_MAX;
    if (cv_ssh_channel_is(channel, CV_SSH_CHANNEL_IS_CANCELLED)) {
        cv_ssh_channel_start_closing(channel);
        return cv_ok();
    }
    cv_ssh_channel_become_open(channel);
    *has_event = true;
    if (packet < CV_SSH_PEER_PACKET_MIN) {
        refused_event(channel, event, CV_SSH_OPEN_CONNECT_FAILED,
                      cv_slice_str("maximum packet size under 1024"));
        channel->is_orphan = true;
        cv_ssh_channel_start_closing(channel);
        return cv_ok();
    }
    event->kind = CV_SSH_CHANNEL_OPENED;
    event->channel = channel;
    return cv_ok();
}

static struct cv_status handle_open_failure(struct cv_ssh_channel *channel,
                                            struct cv_ssh_reader *reader,
                                            struct cv_ssh_event *event, bool *has_event)
{
    uint32_t reason;
    struct cv_slice text, language;
    cv_ssh_read_u32(reader, &reason);
    cv_ssh_read_string(reader, &text);
    cv_ssh_read_string(reader, &language);
    if (!cv_ssh_reader_is_done(reader))
        return malformed(channel->ssh);
    refused_event(channel, event, reason,
                  cv_slice(text.data, text.len < CV_SSH_NAME_MAX ? text.len : CV_SSH_NAME_MAX));
    *has_event = true;
    cv_ssh_channel_retire(channel);
    return cv_ok();
}

static struct cv_status handle_adjust(struct cv_ssh_channel *channel, struct cv_ssh_reader *reader)
{
    uint32_t more;
    cv_ssh_read_u32(reader, &more);
    if (!cv_ssh_reader_is_done(reader))
        return malformed(channel->ssh);
    if (more > UINT32_MAX - channel->send_window) /* RFC 4254 §5.2: never over 2^32-1 */
        return cv_ssh_session_fail(channel->ssh, CV_SSH_PROTOCOL, "window over 2^32-1");
    channel->send_window += more;
    if (channel->wants_window && channel->send_window > 0)
        cv_ssh_channel_wait(channel);
    return cv_ok();
}

static struct cv_status handle_data(struct cv_ssh_channel *channel, bool is_extended,
                                    struct cv_ssh_reader *reader, struct cv_ssh_event *event,
                                    bool *has_event)
{
    struct cv_ssh *ssh = channel->ssh;
    uint32_t type;
    struct cv_slice data;
    if (is_extended)
        cv_ssh_read_u32(reader, &type);
    cv_ssh_read_string(reader, &data);
    if (!cv_ssh_reader_is_done(reader))
        return malformed(ssh);
    if (channel->is_eof_received)
        return cv_ssh_session_fail(ssh, CV_SSH_PROTOCOL, "channel data after end of file");
    if (data.len > channel->recv_window || data.len > ssh->max_packet_bytes)
        return cv_ssh_session_fail(ssh, CV_SSH_PROTOCOL, "channel data beyond the window");
    channel->recv_window -= (uint32_t)data.len;
    /* After our close nothing may be given back, so the window bounds what is still dropped. */
    if (!cv_ssh_channel_is(channel, CV_SSH_CHANNEL_IS_OPEN) || data.len == 0)
        return cv_ok();
    channel->unconsumed += (uint32_t)data.len;
    if (is_extended) {
        /* A TCP stream has no second stream: counted, dropped, given back (RFC 4254 §5.2). */
        cv_ssh_channel_consumed(channel, data.len);
        return cv_ok();
    }
    event->kind = CV_SSH_CHANNEL_DATA;
    event->channel = channel;
    event->data = data;
    *has_event = true;
    return cv_ok();
}

static struct cv_status handle_eof(struct cv_ssh_channel *channel, struct cv_ssh_event *event,
                                   bool *has_event)
{
    bool is_first = !channel->is_eof_received;
    channel->is_eof_received = true;
    if (is_first && cv_ssh_channel_is(channel, CV_SSH_CHANNEL_IS_OPEN)) {
        event->kind = CV_SSH_CHANNEL_EOF;
        event->channel = channel;
        *has_event = true;
    }
    return cv_ok();
}

static struct cv_status handle_close(struct cv_ssh_channel *channel, struct cv_ssh_event *event,
                                     bool *has_event)
{
    /* Each side sends one close; ours answers now if it has not gone out (RFC 4254 §5.3). */
    bool is_ours_sent =
        cv_ssh_channel_is(channel, CV_SSH_CHANNEL_IS_CLOSING) && !channel->is_close_due;
    if (!is_ours_sent) {
        uint8_t space[9];
        CV_RETURN_IF_ERROR(cv_ssh_session_send(
            channel->ssh, cv_ssh_channel_message(space, CV_SSH_MSG_CHANNEL_CLOSE, channel),
            cv_slice(NULL, 0)));
    }
    if (!channel->is_orphan) {
        event->kind = CV_SSH_CHANNEL_CLOSED;
        event->channel = channel;
        *has_event = true;
    }
    cv_ssh_channel_retire(channel);
    return cv_ok();
}

/* Nothing that RFC 4254 §6 asks of a channel means anything on ours. */
static struct cv_status handle_request(struct cv_ssh_channel *channel, struct cv_ssh_reader *reader)
{
    struct cv_slice type;
    bool want_reply;
    cv_ssh_read_string(reader, &type);
    cv_ssh_read_bool(reader, &want_reply);
    if (reader->is_failed)
        return malformed(channel->ssh);
    if (!want_reply || !cv_ssh_channel_is(channel, CV_SSH_CHANNEL_IS_OPEN))
        return cv_ok();
    uint8_t space[9];
    return cv_ssh_session_send(channel->ssh,
                               cv_ssh_channel_message(space, CV_SSH_MSG_CHANNEL_FAILURE, channel),
                               cv_slice(NULL, 0));
}

struct cv_status cv_ssh_channel_handle(struct cv_ssh *ssh, struct cv_slice payload,
                                       struct cv_ssh_event *event, bool *has_event)
{
    struct cv_ssh_reader reader = cv_ssh_reader(payload);
    uint8_t message;
    uint32_t id;
    cv_ssh_read_u8(&reader, &message);
    if (message == CV_SSH_MSG_CHANNEL_OPEN)
        return handle_open(ssh, &reader, event, has_event);

    if (!cv_ssh_read_u32(&reader, &id))
        return malformed(ssh);
    struct cv_ssh_channel *channel = id < ssh->max_channels ? ssh->channels[id] : NULL;
    /* npm's ssh2 still gives window behind its own CLOSE. Nothing depends on it any more, and it is
     * no reason to end everybody else's channels; OpenSSH lets it pass as well. */
    if (!channel && message == CV_SSH_MSG_CHANNEL_WINDOW_ADJUST && id < ssh->used_ids)
        return cv_ok();
    bool is_answer = message == CV_SSH_MSG_CHANNEL_OPEN_CONFIRMATION ||
                     message == CV_SSH_MSG_CHANNEL_OPEN_FAILURE;
    uint32_t may_be = is_answer ? BIT(OPENING) | BIT(CANCELLED) : BIT(OPEN) | BIT(CLOSING);
    if (!channel || !(may_be & 1U << channel->fsm.state))
        return cv_ssh_session_fail(ssh, CV_SSH_PROTOCOL, "message for a channel that is not there");

    switch (message) {
    case CV_SSH_MSG_CHANNEL_OPEN_CONFIRMATION:
        return handle_confirmation(channel, &reader, event, has_event);
    case CV_SSH_MSG_CHANNEL_OPEN_FAILURE:
        return handle_open_failure(channel, &reader, event, has_event);
    case CV_SSH_MSG_CHANNEL_WINDOW_ADJUST:
        return handle_adjust(channel, &reader);
    case CV_SSH_MSG_CHANNEL_DATA:
    case CV_SSH_MSG_CHANNEL_EXTENDED_DATA:
        return handle_data(channel, message == CV_SSH_MSG_CHANNEL_EXTENDED_DATA, &reader, event,
                           has_event);
    case CV_SSH_MSG_CHANNEL_EOF:
        return cv_ssh_reader_is_done(&reader) ? handle_eof(channel, event, has_event)
                                              : malformed(ssh);
    case CV_SSH_MSG_CHANNEL_CLOSE:
        return cv_ssh_reader_is_done(&reader) ? handle_close(channel, event, has_event)
                                              : malformed(ssh);
    case CV_SSH_MSG_CHANNEL_REQUEST:
        return handle_request(channel, &reader);
    default: /* SUCCESS and FAILURE answer channel requests, and we make none */
        return cv_ssh_session_fail(ssh, CV_SSH_PROTOCOL, "reply to a request that was not made");
    }
}
