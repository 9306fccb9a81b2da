/* SPDX-License-Identifier: MIT
 *
 * The session: ties the transport layer to channels (channel.c) and global requests (global.c),
 * holds messages back while they may not go out, keeps the connection alive.
 */
#include "proto/ssh/session.h"

#include "base/bytes.h"

enum {
    default_max_channels = 10,
    default_window_bytes = 2 << 20,
    default_keepalive_ms = 60000,
    default_keepalive_max = 3,
    most_channels = 65536,
};

static uint32_t or_default(uint32_t value, uint32_t otherwise)
{
    return value ? value : otherwise;
}

struct cv_status cv_ssh_new(const struct cv_ssh_options *options, struct cv_buf *out,
                            uint64_t now_ms, struct cv_ssh **ssh)
{
    *ssh = NULL;
    uint32_t channels = or_default(options->max_channels, default_max_channels);
    uint32_t window = or_default(options->window_bytes, default_window_bytes);
    uint32_t packet = or_default(options->max_packet_bytes, CV_SSH_DATA_MAX);
    if (channels > most_channels || window > CV_SSH_WINDOW_MAX || packet > CV_SSH_DATA_MAX ||
        packet < CV_SSH_PEER_PACKET_MIN || window < CV_SSH_PEER_PACKET_MIN)
        return cv_status(CV_INVALID);

    struct cv_ssh *made = (struct cv_ssh *)calloc(1, sizeof *made);
    if (!made)
        return cv_status(CV_NO_MEMORY);
    made->out = out;
    made->now_ms = now_ms;
    made->is_server = options->transport.role == CV_SSH_SERVER;
    made->max_channels = channels;
    made->window_bytes = window;
    made->max_packet_bytes = packet;
    made->keepalive_ms = or_default(options->keepalive_ms, default_keepalive_ms);
    made->keepalive_max = or_default(options->keepalive_max, default_keepalive_max);
    cv_buf_init(&made->held, CV_SSH_HELD_MAX);
    made->channels = (struct cv_ssh_channel **)calloc(channels, sizeof(struct cv_ssh_channel *));
    if (!made->channels) {
        cv_ssh_free(&made);
        return cv_status(CV_NO_MEMORY);
    }
    made->transport = cv_ssh_transport_new(&options->transport, out, now_ms);
    if (!made->transport) {
        cv_ssh_free(&made);
        return cv_status(CV_INVALID);
    }
    *ssh = made;
    return cv_ok();
}

void cv_ssh_free(struct cv_ssh **ssh)
{
    if (!*ssh)
        return;
    if ((*ssh)->channels)
        cv_ssh_channels_free(*ssh);
    cv_ssh_transport_free(&(*ssh)->transport);
    cv_buf_done(&(*ssh)->held);
    free(*ssh);
    *ssh = NULL;
}

struct cv_status cv_ssh_session_fail(struct cv_ssh *ssh, enum cv_status_id id, const char *text)
{
    if (!cv_is_ok(ssh->status))
        return ssh->status;
    ssh->status = cv_status(id);
    ssh->error = text;
    cv_ssh_transport_disconnect(ssh->transport, (uint32_t)cv_status_ssh_disconnect(id), text);
    return ssh->status;
}

/* ---- what goes out ---- */

bool cv_ssh_session_can_send(const struct cv_ssh *ssh)
{
    return cv_is_ok(ssh->status) && ssh->is_established && cv_buf_len(&ssh->held) == 0 &&
           cv_ssh_transport_can_send(ssh->transport);
}

/* CV_OK: sent. CV_AGAIN: not now. Anything else: the session has failed. */
static struct cv_status send_now(struct cv_ssh *ssh, struct cv_slice header, struct cv_slice body)
{
    struct cv_status status = cv_ssh_transport_send(ssh->transport, header, body);
    if (cv_is_ok(status) || status.id == CV_AGAIN)
        return status;
    if (status.id == CV_NO_RESOURCES)
        return cv_status(CV_AGAIN);
    return cv_ssh_session_fail(ssh, status.id, "cannot send");
}

bool cv_ssh_session_try_send(struct cv_ssh *ssh, struct cv_slice header, struct cv_slice body)
{
    return cv_ssh_session_can_send(ssh) && cv_is_ok(send_now(ssh, header, body));
}

static struct cv_status hold(struct cv_ssh *ssh, struct cv_slice header, struct cv_slice body)
{
    size_t len = header.len + body.len;
    if (cv_buf_room(&ssh->held) < sizeof(uint32_t) + len)
        return cv_ssh_session_fail(ssh, CV_SSH_LIMIT, "too many messages during a key exchange");
    uint8_t *to = cv_buf_reserve(&ssh->held, sizeof(uint32_t) + len);
    if (!to)
        return cv_ssh_session_fail(ssh, CV_NO_MEMORY, "out of memory");
    cv_put_u32(to, (uint32_t)len);
    memcpy(to + sizeof(uint32_t), header.data, header.len);
    if (body.len > 0)
        memcpy(to + sizeof(uint32_t) + header.len, body.data, body.len);
    cv_buf_commit(&ssh->held, sizeof(uint32_t) + len);
    return cv_ok();
}

struct cv_status cv_ssh_session_send(struct cv_ssh *ssh, struct cv_slice header,
                                     struct cv_slice body)
{
    if (!cv_is_ok(ssh->status))
        return ssh->status;
    if (cv_ssh_session_can_send(ssh)) {
        struct cv_status status = send_now(ssh, header, body);
        if (status.id != CV_AGAIN)
            return status;
    }
    return hold(ssh, header, body);
}

/* Sends what was held back and what is due, in this order, as far as it goes. */
static void flush(struct cv_ssh *ssh)
{
    if (!ssh->is_established)
        return;
    bool had_held = cv_buf_len(&ssh->held) > 0;
    while (cv_is_ok(ssh->status) && cv_buf_len(&ssh->held) > 0) {
        const uint8_t *head = cv_buf_head(&ssh->held);
        if (!head)
            break;
        size_t len = cv_get_u32(head);
        if (!cv_is_ok(send_now(ssh, cv_slice(head + sizeof(uint32_t), len), cv_slice(NULL, 0))))
            return;
        cv_buf_consume(&ssh->held, sizeof(uint32_t) + len);
    }
    if (had_held)
        cv_buf_shrink(&ssh->held, 0);
    cv_ssh_channels_flush(ssh);
}

/* ---- what comes in ---- */

struct cv_status cv_ssh_feed(struct cv_ssh *ssh, uint8_t *data, size_t len)
{
    if (!cv_is_ok(ssh->status))
        return ssh->status;
    ssh->has_heard = ssh->has_heard || len > 0;
    struct cv_status status = cv_ssh_transport_feed(ssh->transport, data, len);
    if (!cv_is_ok(status))
        ssh->status = status;
    return status;
}

bool cv_ssh_wants_input(const struct cv_ssh *ssh)
{
    return cv_is_ok(ssh->status) && cv_ssh_transport_wants_input(ssh->transport);
}

static struct cv_status handle_message(struct cv_ssh *ssh, struct cv_slice payload,
                                       struct cv_ssh_event *event, bool *has_event)
{
    uint8_t message = payload.data[0];
    if (!ssh->is_established)
        return cv_ssh_session_fail(ssh, CV_SSH_PROTOCOL, "message before authentication");
    if (message >= CV_SSH_MSG_GLOBAL_REQUEST && message <= CV_SSH_MSG_REQUEST_FAILURE)
        return cv_ssh_global_handle(ssh, payload, event, has_event);
    if (message >= CV_SSH_MSG_CHANNEL_OPEN && message <= CV_SSH_MSG_CHANNEL_FAILURE)
        return cv_ssh_channel_handle(ssh, payload, event, has_event);
    cv_ssh_transport_unimplemented(ssh->transport);
    return cv_ok();
}

static struct cv_status handle_packet(struct cv_ssh *ssh, struct cv_ssh_event *event,
                                      bool *has_event)
{
    const struct cv_ssh_packet *packet = &ssh->packet;
    switch (packet->kind) {
    case CV_SSH_PACKET_MESSAGE:
        return handle_message(ssh, packet->payload, event, has_event);
    case CV_SSH_PACKET_HOST_KEY:
        event->kind = CV_SSH_HOST_KEY;
        event->host_key.blob = packet->blob;
        event->host_key.fingerprint = packet->fingerprint;
        break;
    case CV_SSH_PACKET_ESTABLISHED:
        ssh->is_established = true;
        ssh->keepalive_due_ms = ssh->now_ms + ssh->keepalive_ms;
        event->kind = CV_SSH_ESTABLISHED;
        break;
    case CV_SSH_PACKET_KEX_DONE:
        event->kind = CV_SSH_REKEYED;
        break;
    case CV_SSH_PACKET_DISCONNECT:
        ssh->status = cv_status(CV_EOF);
        event->kind = CV_SSH_DISCONNECTED;
        event->end.reason = packet->reason;
        event->end.text = packet->text;
        break;
    }
    *has_event = true;
    return cv_ok();
}

struct cv_status cv_ssh_next(struct cv_ssh *ssh, uint64_t now_ms, struct cv_ssh_event *event)
{
    cv_ssh_channels_reap(ssh);
    *event = (struct cv_ssh_event){0};
    ssh->now_ms = now_ms;
    if (ssh->has_heard) {
        ssh->has_heard = false;
        ssh->probes = 0;
        ssh->keepalive_due_ms = now_ms + ssh->keepalive_ms;
    }
    for (;;) {
        flush(ssh);
        if (!cv_is_ok(ssh->status))
            return ssh->status;
        if (cv_ssh_channels_pop_writable(ssh, event))
            return cv_ok();
        struct cv_status status = cv_ssh_transport_next(ssh->transport, now_ms, &ssh->packet);
        if (status.id == CV_AGAIN)
            return status;
        if (!cv_is_ok(status)) {
            ssh->status = status;
            return status;
        }
        bool has_event = false;
        CV_RETURN_IF_ERROR(handle_packet(ssh, event, &has_event));
        if (has_event)
            return cv_ok();
    }
}

void cv_ssh_accept_host_key(struct cv_ssh *ssh, bool is_accepted)
{
    cv_ssh_transport_accept_host_key(ssh->transport, is_accepted);
}

/* ---- time and end ---- */

static bool has_keepalive(const struct cv_ssh *ssh)
{
    return cv_is_ok(ssh->status) && ssh->is_established && !ssh->is_paused &&
           ssh->keepalive_ms != UINT32_MAX;
}

uint64_t cv_ssh_deadline(const struct cv_ssh *ssh)
{
    if (!cv_is_ok(ssh->status))
        return UINT64_MAX;
    uint64_t deadline = cv_ssh_transport_deadline(ssh->transport);
    return has_keepalive(ssh) && ssh->keepalive_due_ms < deadline ? ssh->keepalive_due_ms
                                                                  : deadline;
}

void cv_ssh_tick(struct cv_ssh *ssh, uint64_t now_ms)
{
    if (!cv_is_ok(ssh->status))
        return;
    ssh->now_ms = now_ms;
    cv_ssh_transport_tick(ssh->transport, now_ms);
    if (!has_keepalive(ssh) || ssh->has_heard || now_ms < ssh->keepalive_due_ms)
        return;
    if (ssh->probes == ssh->keepalive_max) {
        (void)cv_ssh_session_fail(ssh, CV_CONN_TIMEOUT, "no answer to keepalives");
        return;
    }
    ssh->probes++;
    ssh->keepalive_due_ms = now_ms + ssh->keepalive_ms;
    /* Where none can be sent, enough is out that the peer has not answered. */
    (void)cv_ssh_global_keepalive(ssh);
}

void cv_ssh_pause(struct cv_ssh *ssh, uint64_t now_ms)
{
    if (ssh->is_paused)
        return;
    ssh->is_paused = true;
    ssh->paused_ms = now_ms;
    cv_ssh_transport_pause(ssh->transport, now_ms);
}

void cv_ssh_resume(struct cv_ssh *ssh, uint64_t now_ms)
{
    if (!ssh->is_paused)
        return;
    ssh->is_paused = false;
    ssh->keepalive_due_ms += now_ms - ssh->paused_ms;
    cv_ssh_transport_resume(ssh->transport, now_ms);
}

struct cv_status cv_ssh_probe(struct cv_ssh *ssh, uint64_t now_ms)
{
    ssh->now_ms = now_ms;
    return cv_ssh_global_keepalive(ssh);
}

void cv_ssh_rekey(struct cv_ssh *ssh)
{
    cv_ssh_transport_rekey(ssh->transport);
}

void cv_ssh_disconnect(struct cv_ssh *ssh, uint32_t reason, const char *text)
{
    if (!cv_is_ok(ssh->status))
        return;
    /* What was held back goes first where it may: a refusal says more than the end of the session.
     */
    flush(ssh);
    cv_ssh_transport_disconnect(ssh->transport, reason, text);
    ssh->status = cv_status(CV_EOF);
}

bool cv_ssh_derive(const struct cv_ssh *ssh, const char *label, uint8_t out[32])
{
    return cv_ssh_transport_derive(ssh->transport, label, out);
}

bool cv_ssh_is_established(const struct cv_ssh *ssh)
{
    return ssh->is_established;
}

const char *cv_ssh_error(const struct cv_ssh *ssh)
{
    return ssh->error ? ssh->error : cv_ssh_transport_error(ssh->transport);
}

const struct cv_ssh_transport *cv_ssh_transport_of(const struct cv_ssh *ssh)
{
    return ssh->transport;
}
