/* SPDX-License-Identifier: MIT
 *
 * Global requests, both ways (RFC 4254 §4 and §7.1). Replies carry no number: they are matched by
 * their order alone, so a request that is refused here still waits for the caller's answers to
 * those before it.
 */
#include "proto/ssh/session.h"

static const char *const keepalive_name = "keepalive@openssh.com";

static struct cv_status send_failure(struct cv_ssh *ssh)
{
    static const uint8_t message[] = {CV_SSH_MSG_REQUEST_FAILURE};
    return cv_ssh_session_send(ssh, cv_slice(message, sizeof message), cv_slice(NULL, 0));
}

/* Refuses now, or behind the answers that the caller owes. */
static struct cv_status refuse(struct cv_ssh *ssh)
{
    if (ssh->owed_count == 0)
        return send_failure(ssh);
    if (ssh->owed_refusals == CV_SSH_OWED_REFUSALS_MAX)
        return cv_ssh_session_fail(ssh, CV_SSH_LIMIT, "too many global requests");
    ssh->owed[(ssh->owed_first + ssh->owed_count - 1) % CV_SSH_OWED_MAX]++;
    ssh->owed_refusals++;
    return cv_ok();
}

static bool ends_with(struct cv_slice name, const char *suffix)
{
    size_t len = strlen(suffix);
    return name.len > len && memcmp(name.data + name.len - len, suffix, len) == 0;
}

static struct cv_status handle_request(struct cv_ssh *ssh, struct cv_ssh_reader *reader,
                                       struct cv_ssh_event *event, bool *has_event)
{
    struct cv_slice name, host = {0};
    bool want_reply;
    uint32_t port = 0;
    cv_ssh_read_string(reader, &name);
    cv_ssh_read_bool(reader, &want_reply);
    if (reader->is_failed)
        return cv_ssh_session_fail(ssh, CV_SSH_PROTOCOL, "malformed global request");

    struct cv_slice payload = reader->rest;
    bool is_for_caller = false;
    if (cv_slice_is(name, "tcpip-forward") || cv_slice_is(name, "cancel-tcpip-forward")) {
        cv_ssh_read_string(reader, &host);
        cv_ssh_read_u32(reader, &port);
        if (!cv_ssh_reader_is_done(reader))
            return cv_ssh_session_fail(ssh, CV_SSH_PROTOCOL, "malformed forwarding request");
        is_for_caller = ssh->is_server && cv_ssh_is_text(host) && port <= UINT16_MAX;
    } else if (cv_slice_is(name, "hostkeys-00@openssh.com")) {
        is_for_caller = !ssh->is_server;
    } else {
        is_for_caller = cv_ssh_is_text(name) && ends_with(name, "@culvert");
    }
    if (is_for_caller && want_reply && ssh->owed_count == CV_SSH_OWED_MAX)
        is_for_caller = false;
    /* keepalive@openssh.com ends here as well: any answer is a sign of life, and OpenSSH's own is a
     * failure too. */
    if (!is_for_caller)
        return want_reply ? refuse(ssh) : cv_ok();

    if (want_reply) {
        ssh->owed[(ssh->owed_first + ssh->owed_count) % CV_SSH_OWED_MAX] = 0;
        ssh->owed_count++;
    }
    event->kind = CV_SSH_GLOBAL_REQUEST;
    event->request.name = name;
    event->request.want_reply = want_reply;
    event->request.payload = payload;
    event->request.host = host;
    event->request.port = port;
    *has_event = true;
    return cv_ok();
}

static struct cv_status handle_reply(struct cv_ssh *ssh, bool is_success, struct cv_slice payload,
                                     struct cv_ssh_event *event, bool *has_event)
{
    if (ssh->asked_count == 0)
        return cv_ssh_session_fail(ssh, CV_SSH_PROTOCOL, "reply to a request that was not made");
    const struct cv_ssh_asked *asked = &ssh->asked[ssh->asked_first];
    ssh->asked_first = (ssh->asked_first + 1) % CV_SSH_REQUESTS_MAX;
    ssh->asked_count--;
    if (asked->is_keepalive) {
        uint64_t rtt_ms = ssh->now_ms - asked->sent_ms;
        event->kind = CV_SSH_KEEPALIVE_ANSWERED;
        event->rtt_ms = rtt_ms < UINT32_MAX ? (uint32_t)rtt_ms : UINT32_MAX;
    } else {
        event->kind = CV_SSH_GLOBAL_REPLY;
        event->reply.cookie = asked->cookie;
        event->reply.is_success = is_success;
        event->reply.payload = payload;
    }
    *has_event = true;
    return cv_ok();
}

struct cv_status cv_ssh_global_handle(struct cv_ssh *ssh, struct cv_slice payload,
                                      struct cv_ssh_event *event, bool *has_event)
{
    struct cv_ssh_reader reader = cv_ssh_reader(payload);
    uint8_t message;
    cv_ssh_read_u8(&reader, &message);
    if (message == CV_SSH_MSG_GLOBAL_REQUEST)
        return handle_request(ssh, &reader, event, has_event);
    return handle_reply(ssh, message == CV_SSH_MSG_REQUEST_SUCCESS, reader.rest, event, has_event);
}

static struct cv_status ask(struct cv_ssh *ssh, const char *name, bool want_reply,
                            struct cv_slice payload, const struct cv_ssh_asked *asked)
{
    if (!cv_is_ok(ssh->status))
        return ssh->status;
    if (!ssh->is_established || strlen(name) > CV_SSH_NAME_MAX ||
        payload.len > CV_SSH_REQUEST_PAYLOAD_MAX)
        return cv_status(CV_INVALID);
    if (want_reply && ssh->asked_count == CV_SSH_REQUESTS_MAX)
        return cv_status(CV_NO_RESOURCES);
    uint8_t space[CV_SSH_MESSAGE_MAX];
    struct cv_ssh_writer writer = cv_ssh_writer(space, sizeof space);
    cv_ssh_write_u8(&writer, CV_SSH_MSG_GLOBAL_REQUEST);
    cv_ssh_write_str(&writer, name);
    cv_ssh_write_bool(&writer, want_reply);
    /* Our own requests must not fill what is kept for answers to the peer. */
    if (cv_buf_len(&ssh->held) + writer.len + payload.len > CV_SSH_HELD_MAX / 2)
        return cv_status(CV_NO_RESOURCES);
    CV_RETURN_IF_ERROR(cv_ssh_session_send(ssh, cv_ssh_written(&writer), payload));
    if (want_reply) {
        ssh->asked[(ssh->asked_first + ssh->asked_count) % CV_SSH_REQUESTS_MAX] = *asked;
        ssh->asked_count++;
    }
    return cv_ok();
}

struct cv_status cv_ssh_global_request(struct cv_ssh *ssh, const char *name, bool want_reply,
                                       struct cv_slice payload, void *cookie)
{
    struct cv_ssh_asked asked = {.cookie = cookie, .sent_ms = ssh->now_ms};
    return ask(ssh, name, want_reply, payload, &asked);
}

struct cv_status cv_ssh_global_keepalive(struct cv_ssh *ssh)
{
    struct cv_ssh_asked asked = {.is_keepalive = true, .sent_ms = ssh->now_ms};
    return ask(ssh, keepalive_name, true, cv_slice(NULL, 0), &asked);
}

struct cv_status cv_ssh_global_reply(struct cv_ssh *ssh, bool is_success, struct cv_slice payload)
{
    if (!cv_is_ok(ssh->status))
        return ssh->status;
    if (ssh->owed_count == 0 || payload.len > CV_SSH_REQUEST_PAYLOAD_MAX)
        return cv_status(CV_INVALID);
    unsigned refusals = ssh->owed[ssh->owed_first];
    ssh->owed_first = (ssh->owed_first + 1) % CV_SSH_OWED_MAX;
    ssh->owed_count--;
    ssh->owed_refusals -= refusals;
    if (is_success) {
        static const uint8_t message[] = {CV_SSH_MSG_REQUEST_SUCCESS};
        CV_RETURN_IF_ERROR(cv_ssh_session_send(ssh, cv_slice(message, sizeof message), payload));
    } else {
        CV_RETURN_IF_ERROR(send_failure(ssh));
    }
    while (refusals-- > 0)
        CV_RETURN_IF_ERROR(send_failure(ssh));
    return cv_ok();
}

static struct cv_status forward(struct cv_ssh *ssh, const char *name, struct cv_slice host,
                                uint32_t port, void *cookie)
{
    if (ssh->is_server || !cv_ssh_is_text(host) || port > UINT16_MAX)
        return cv_status(CV_INVALID);
    uint8_t space[CV_SSH_NAME_MAX + 8];
    struct cv_ssh_writer writer = cv_ssh_writer(space, sizeof space);
    cv_ssh_write_string(&writer, host);
    cv_ssh_write_u32(&writer, port);
    return cv_ssh_global_request(ssh, name, true, cv_ssh_written(&writer), cookie);
}

struct cv_status cv_ssh_forward(struct cv_ssh *ssh, struct cv_slice host, uint32_t port,
                                void *cookie)
{
    return forward(ssh, "tcpip-forward", host, port, cookie);
}

struct cv_status cv_ssh_forward_cancel(struct cv_ssh *ssh, struct cv_slice host, uint32_t port,
                                       void *cookie)
{
    return forward(ssh, "cancel-tcpip-forward", host, port, cookie);
}
