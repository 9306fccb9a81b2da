/* SPDX-License-Identifier: MIT
 *
 * Streams of a link: SSH events to those whom they concern, and their writes into SSH.
 *
 * Happy path: link_feed_ssh → link_pump_ssh → take_event → on_data …; cv_stream_write → SSH
 * encrypts into the replay buffer → link_touch. Ways it fails: the peer refuses or closes a stream;
 * SSH fails (link_fail); the link ends (link_end_streams).
 *
 * A stream's memory dies in cv_stream_close or behind its last callback. Its channel lives on
 * inside SSH, with its arg NULL, until the peer has closed too.
 */
#include "transport/link_private.h"

#include "base/bytes.h"
#include "telemetry/log.h"

#include <stdlib.h>
#include <string.h>

static struct cv_stream *stream_of(const struct cv_ssh_event *event)
{
    return event->channel ? cv_ssh_channel_arg(event->channel) : NULL;
}

static void forget(struct cv_stream *stream)
{
    link_size_stream_done(stream);
    cv_ssh_channel_set_arg(stream->channel, NULL);
    free(stream);
}

static bool ends_with_culvert(struct cv_slice name)
{
    static const char suffix[] = "@culvert";
    size_t len = sizeof suffix - 1;
    return name.len > len && memcmp(name.data + name.len - len, suffix, len) == 0;
}

static void take_request(struct cv_link *link, const struct cv_ssh_event *event)
{
    struct cv_slice payload = event->request.payload;
    bool is_success = false, is_whole = true;
    if (ends_with_culvert(event->request.name)) {
        is_whole = payload.len >= 4 && cv_get_u32(payload.data) == payload.len - 4;
        if (is_whole)
            payload = cv_slice(payload.data + 4, payload.len - 4);
    }
    if (is_whole && link->ops->on_request)
        is_success = link->ops->on_request(link->arg, event->request.name, event->request.host,
                                           event->request.port, payload);
    /* A link that ends over the request leaves it unanswered. */
    if (event->request.want_reply && !link_is_ending(link))
        (void)cv_ssh_global_reply(link->ssh, is_success, cv_slice(NULL, 0));
}

static void take_open(struct cv_link *link, const struct cv_ssh_event *event)
{
    struct cv_stream *stream = calloc(1, sizeof *stream);
    if (!stream || !link->ops->on_stream) {
        free(stream);
        link_count_refused(link, CV_SSH_OPEN_RESOURCE_SHORTAGE);
        cv_ssh_channel_refuse(event->channel, CV_SSH_OPEN_RESOURCE_SHORTAGE, "agent-busy: memory");
        return;
    }
    *stream = (struct cv_stream){.link = link, .channel = event->channel};
    link_size_stream_init(stream);
    cv_ssh_channel_set_arg(event->channel, stream);
    if (link->options.is_culvert)
        (void)cv_slice_to_str(event->open.origin_host, stream->correlation,
                              sizeof stream->correlation);
    link->ops->on_stream(link->arg, stream,
                         event->open.kind == CV_SSH_DIRECT_TCPIP ? CV_STREAM_DIRECT
                                                                 : CV_STREAM_FORWARDED,
                         event->open.host, event->open.port);
}

static void take_end(struct cv_link *link, const struct cv_ssh_event *event)
{
    struct cv_stream *stream = stream_of(event);
    if (event->kind == CV_SSH_CHANNEL_REFUSED)
        link_count_refused(link, event->end.reason);
    if (stream) {
        const struct cv_stream_ops *ops = stream->ops;
        void *arg = stream->arg;
        forget(stream);
        if (ops && event->kind == CV_SSH_CHANNEL_REFUSED && ops->on_refused)
            ops->on_refused(arg, event->end.reason, event->end.text);
        else if (ops && ops->on_closed)
            ops->on_closed(arg, cv_ok());
    }
    if (link->ops->on_capacity)
        link->ops->on_capacity(link->arg);
}

static void take_data(const struct cv_ssh_event *event)
{
    struct cv_stream *stream = stream_of(event);
    if (stream && stream->ops && stream->ops->on_data)
        stream->ops->on_data(stream->arg, event->data);
    else
        cv_ssh_channel_consumed(event->channel, event->data.len);
}

static void take_event(struct cv_link *link, const struct cv_ssh_event *event)
{
    struct cv_stream *stream = stream_of(event);
    const struct cv_stream_ops *ops = stream ? stream->ops : NULL;
    switch (event->kind) {
    case CV_SSH_HOST_KEY:
        cv_ssh_accept_host_key(link->ssh,
                               link->ops->on_host_key &&
                                   link->ops->on_host_key(link->arg, event->host_key.blob,
                                                          event->host_key.fingerprint));
        break;
    case CV_SSH_ESTABLISHED:
        cv_fsm_set(&link->state, LINK_UP);
        link_bind(link);
        link_ask(link);
        if (link->ops->on_up)
            link->ops->on_up(link->arg);
        break;
    case CV_SSH_GLOBAL_REQUEST:
        take_request(link, event);
        break;
    case CV_SSH_GLOBAL_REPLY:
        if (link->ops->on_reply)
            link->ops->on_reply(link->arg, (uintptr_t)event->reply.cookie, event->reply.is_success);
        break;
    case CV_SSH_CHANNEL_REQUESTED:
        take_open(link, event);
        break;
    case CV_SSH_CHANNEL_OPENED:
        if (ops && ops->on_open)
            ops->on_open(stream->arg);
        break;
    case CV_SSH_CHANNEL_DATA:
        take_data(event);
        break;
    case CV_SSH_CHANNEL_EOF:
        if (ops && ops->on_eof)
            ops->on_eof(stream->arg);
        break;
    case CV_SSH_CHANNEL_WRITABLE:
        if (ops && ops->on_writable)
            ops->on_writable(stream->arg);
        break;
    case CV_SSH_CHANNEL_REFUSED:
    case CV_SSH_CHANNEL_CLOSED:
        take_end(link, event);
        break;
    case CV_SSH_DISCONNECTED:
        (void)cv_fail(&link->error, CV_LINK_LOST, "the peer disconnected: %.*s",
                      (int)(event->end.text.len < 200 ? event->end.text.len : 200),
                      event->end.text.len ? (const char *)event->end.text.data : "");
        link_fail(link, cv_status(event->end.reason == 11 ? CV_OK : CV_LINK_LOST), NULL);
        break;
    case CV_SSH_REKEYED:
        cv_log(link->log, CV_LOG_DEBUG, "link", "rekeyed", "new SSH keys are in use");
        break;
    case CV_SSH_KEEPALIVE_ANSWERED:
        break;
    }
}

static void pump(struct cv_link *link)
{
    struct cv_ssh_event event;
    uint64_t now_ms = cv_worker_now_ms(link->worker);
    while (!link_is_ending(link)) {
        struct cv_status status = cv_ssh_next(link->ssh, now_ms, &event);
        if (cv_is_ok(status)) {
            take_event(link, &event);
            continue;
        }
        if (status.id == CV_CONN_TIMEOUT && link->state.state == LINK_UP)
            link_count_dead(link);
        if (status.id != CV_AGAIN)
            link_fail(link, status.id == CV_EOF ? cv_status(CV_LINK_LOST) : status,
                      cv_ssh_error(link->ssh));
        return;
    }
}

static void feed(struct cv_link *link, uint8_t *data, size_t len)
{
    struct cv_status status = cv_ssh_feed(link->ssh, data, len);
    if (!cv_is_ok(status))
        link_fail(link, status, cv_ssh_error(link->ssh));
    pump(link);
}

void link_feed_ssh(struct cv_link *link, uint8_t *data, size_t len)
{
    link_set_room(link);
    if (cv_buf_len(&link->held) == 0 && len <= CV_SSH_FEED_MAX && cv_ssh_wants_input(link->ssh)) {
        feed(link, data, len);
        return;
    }
    link->held.cap = link_size_held(link);
    if (!cv_is_ok(cv_buf_append(&link->held, data, len)))
        link_fail(link, cv_status(CV_WS_POLICY), "the peer sends more than its windows allow");
}

void link_pump_ssh(struct cv_link *link)
{
    pump(link);
    while (!link_is_ending(link) && cv_buf_len(&link->held) && cv_ssh_wants_input(link->ssh)) {
        size_t len = cv_buf_len(&link->held);
        if (len > CV_SSH_FEED_MAX)
            len = CV_SSH_FEED_MAX;
        feed(link, cv_buf_head(&link->held), len);
        cv_buf_consume(&link->held, len);
        link_set_room(link);
    }
    cv_buf_shrink(&link->held, 0);
}

void link_end_streams(struct cv_link *link)
{
    struct cv_ssh_channel *channel = cv_ssh_channel_after(link->ssh, NULL);
    while (channel) {
        struct cv_ssh_channel *next = cv_ssh_channel_after(link->ssh, channel);
        struct cv_stream *stream = cv_ssh_channel_arg(channel);
        if (stream) {
            const struct cv_stream_ops *ops = stream->ops;
            void *arg = stream->arg;
            forget(stream);
            if (ops && ops->on_closed)
                ops->on_closed(arg, cv_status(CV_LINK_LOST));
        }
        channel = next;
    }
}

/* ---- what owners call ---- */

struct cv_status cv_link_request(struct cv_link *link, const char *name, struct cv_slice payload,
                                 uintptr_t cookie)
{
    struct cv_buf string;
    cv_buf_init(&string, CV_SSH_REQUEST_PAYLOAD_MAX);
    uint8_t len[4];
    cv_put_u32(len, (uint32_t)payload.len);
    struct cv_status status = cv_buf_append(&string, len, sizeof len);
    if (cv_is_ok(status))
        status = cv_buf_append_slice(&string, payload);
    if (cv_is_ok(status))
        status = cv_ssh_global_request(link->ssh, name, true, cv_buf_slice(&string),
                                       (void *)cookie); // NOLINT(performance-no-int-to-ptr)
    cv_buf_done(&string);
    link_touch(link);
    return status;
}

struct cv_status cv_link_forward(struct cv_link *link, const char *host, uint32_t port,
                                 bool is_cancel, uintptr_t cookie)
{
    void *arg = (void *)cookie; // NOLINT(performance-no-int-to-ptr)
    link_touch(link);
    return is_cancel ? cv_ssh_forward_cancel(link->ssh, cv_slice_str(host), port, arg)
                     : cv_ssh_forward(link->ssh, cv_slice_str(host), port, arg);
}

struct cv_status cv_stream_open(struct cv_link *link, enum cv_stream_kind kind, const char *host,
                                uint32_t port, const char *correlation,
                                const struct cv_stream_ops *ops, void *arg, struct cv_stream **out)
{
    *out = NULL;
    if (link->state.state != LINK_UP && link->state.state != LINK_DETACHED)
        return cv_status(CV_LINK_LOST);
    if (cv_ssh_channel_count(link->ssh) >= link->options.max_channels)
        return cv_status(CV_CHANNEL_LIMIT);
    struct cv_stream *stream = calloc(1, sizeof *stream);
    if (!stream)
        return cv_status(CV_NO_MEMORY);
    *stream = (struct cv_stream){.link = link, .ops = ops, .arg = arg};
    link_size_stream_init(stream);
    stream->channel = cv_ssh_channel_open(
        link->ssh, kind == CV_STREAM_DIRECT ? CV_SSH_DIRECT_TCPIP : CV_SSH_FORWARDED_TCPIP,
        cv_slice_str(host), port,
        cv_slice_str(correlation && link->options.is_culvert ? correlation : "127.0.0.1"), 0);
    if (!stream->channel) {
        free(stream);
        return cv_status(CV_NO_MEMORY);
    }
    cv_ssh_channel_set_arg(stream->channel, stream);
    link_touch(link);
    *out = stream;
    return cv_ok();
}

const char *cv_stream_correlation(const struct cv_stream *stream)
{
    return stream->correlation;
}

void cv_stream_accept(struct cv_stream *stream, const struct cv_stream_ops *ops, void *arg)
{
    stream->ops = ops;
    stream->arg = arg;
    cv_ssh_channel_confirm(stream->channel);
    link_touch(stream->link);
}

void cv_stream_refuse(struct cv_stream *stream, uint32_t ssh_reason, const char *text)
{
    struct cv_link *link = stream->link;
    struct cv_ssh_channel *channel = stream->channel;
    forget(stream);
    link_count_refused(link, ssh_reason);
    cv_ssh_channel_refuse(channel, (enum cv_ssh_open_failure)ssh_reason, text);
    link_touch(link);
}

void cv_stream_set_ops(struct cv_stream *stream, const struct cv_stream_ops *ops, void *arg)
{
    stream->ops = ops;
    stream->arg = arg;
}

size_t cv_stream_write(struct cv_stream *stream, struct cv_slice data)
{
    if (link_is_ending(stream->link))
        return 0;
    link_set_room(stream->link);
    link_touch(stream->link);
    return cv_ssh_channel_write(stream->channel, data);
}

size_t cv_stream_window_max(const struct cv_stream *stream)
{
    return stream->window.most;
}

void cv_stream_consumed(struct cv_stream *stream, size_t len)
{
    if (!len || link_is_ending(stream->link))
        return;
    cv_ssh_channel_consumed(stream->channel, len);
    link_size_stream_used(stream, len);
    link_touch(stream->link);
}

void cv_stream_eof(struct cv_stream *stream)
{
    if (link_is_ending(stream->link))
        return;
    cv_ssh_channel_eof(stream->channel);
    link_touch(stream->link);
}

void cv_stream_close(struct cv_stream *stream)
{
    struct cv_link *link = stream->link;
    struct cv_ssh_channel *channel = stream->channel;
    forget(stream);
    cv_ssh_channel_close(channel);
    link_touch(link);
}
