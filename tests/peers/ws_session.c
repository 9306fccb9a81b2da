/* SPDX-License-Identifier: MIT
 *
 * Happy path: handshake; poll, receive, echo, send; Close answered; the server shuts down first.
 * It fails by: a bad handshake (400, 426), a protocol error (Close with its code), a peer that goes
 * away, a peer that does not answer our Close (cut after CLOSE_MS).
 */
#include "ws_session.h"

#include "proto/ws/ws_handshake.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    READ_BYTES = 65536,
    HEAD_MS = 10000, /* for each part of a handshake */
    CLOSE_MS = 2000,
    FRAGMENTS_MAX = 70000, /* conformance cases have 65,536 */
    FRAME_BYTES = 1 << 20, /* of what is sent */
};

void ws_session_init(struct ws_session *session, int fd, enum cv_ws_role role,
                     const struct ws_session_options *options)
{
    *session = (struct ws_session){.options = *options, .fd = fd, .role = role};
    cv_buf_init(&session->in, READ_BYTES);
    cv_buf_init(&session->out, 4 * options->max_message_bytes + (1 << 20));
    cv_buf_init(&session->message, options->max_message_bytes);
}

void ws_session_done(struct ws_session *session)
{
    cv_ws_free(&session->ws);
    cv_buf_done(&session->in);
    cv_buf_done(&session->out);
    cv_buf_done(&session->message);
    (void)close(session->fd);
}

/* ---- socket ---- */

/* Receives behind what `in` holds. CV_AGAIN: nothing there within timeout_ms (-1: no limit). */
static struct cv_status receive(struct ws_session *session, int timeout_ms)
{
    struct pollfd pollfd = {.fd = session->fd, .events = POLLIN};
    if (poll(&pollfd, 1, timeout_ms) <= 0)
        return cv_status(CV_AGAIN);
    size_t room = cv_buf_room(&session->in);
    uint8_t *to = room ? cv_buf_reserve(&session->in, room) : NULL;
    if (!to)
        return cv_status(CV_NO_MEMORY);
    ssize_t len = recv(session->fd, to, room, MSG_DONTWAIT);
    if (len > 0)
        cv_buf_commit(&session->in, (size_t)len);
    if (len < 0 && (errno == EAGAIN || errno == EINTR))
        return cv_status(CV_AGAIN);
    return cv_status(len > 0 ? CV_OK : CV_EOF);
}

/* Sends what goes without waiting. */
static struct cv_status flush(struct ws_session *session)
{
    while (cv_buf_len(&session->out) > 0) {
        ssize_t len = send(session->fd, cv_buf_head(&session->out), cv_buf_len(&session->out),
                           MSG_DONTWAIT | MSG_NOSIGNAL);
        if (len < 0 && (errno == EAGAIN || errno == EINTR))
            return cv_ok();
        if (len < 0)
            return cv_status(CV_CONN_RESET);
        cv_buf_consume(&session->out, (size_t)len);
    }
    return cv_ok();
}

/* ---- handshake ---- */

/* Reads one head; *head stays valid until the parser is fed or freed. */
static struct cv_status read_head(struct ws_session *session, struct cv_http_parser *parser,
                                  const struct cv_http_head **head)
{
    struct cv_http_event event;
    struct cv_status status;
    while ((status = cv_http_parser_next(parser, &event)).id == CV_AGAIN) {
        cv_buf_consume(&session->in, cv_buf_len(&session->in));
        status = receive(session, HEAD_MS);
        if (!cv_is_ok(status))
            return status.id == CV_AGAIN ? cv_status(CV_TIMEOUT_REQUEST) : status;
        struct cv_slice bytes = cv_buf_slice(&session->in);
        CV_RETURN_IF_ERROR(cv_http_parser_feed(parser, bytes.data, bytes.len));
    }
    CV_RETURN_IF_ERROR(status);
    *head = event.head;
    return cv_status(event.type == CV_HTTP_HEAD ? CV_OK : CV_WS_UPGRADE);
}

/* Leaves in `in` only what stood behind the head. */
static void keep_rest(struct ws_session *session, struct cv_http_parser *parser)
{
    struct cv_http_event event;
    while (cv_is_ok(cv_http_parser_next(parser, &event)))
        ;
    size_t rest = cv_http_parser_take_rest(parser).len;
    cv_buf_consume(&session->in, cv_buf_len(&session->in) - rest);
}

static struct cv_status make_engine(struct ws_session *session,
                                    const struct cv_ws_deflate_params *deflate)
{
    struct cv_ws_options options;
    cv_ws_options_init(&options, session->role);
    options.max_frame_bytes = session->options.max_message_bytes;
    if (deflate->is_enabled) /* what does not compress gets longer by it */
        options.max_frame_bytes = cv_ws_frame_room(session->options.max_message_bytes);
    options.max_message_bytes = session->options.max_message_bytes;
    options.max_inflated_bytes = session->options.max_message_bytes;
    options.max_fragments = FRAGMENTS_MAX;
    options.deflate = *deflate;
    options.deflate_level = 3;
    session->ws = cv_ws_new(&options);
    return cv_status(session->ws ? CV_OK : CV_NO_MEMORY);
}

static void wish_for(const struct ws_session *session, struct cv_ws_deflate_params *wish)
{
    cv_ws_deflate_params_init(wish);
    wish->is_enabled = session->options.has_deflate;
    /* A client that says so can be asked for it; some servers ask only then. */
    wish->client_no_context_takeover = session->role == CV_WS_CLIENT;
}

static struct cv_status answer_request(struct ws_session *session, const struct cv_http_head *head,
                                       struct cv_buf *joined)
{
    struct cv_ws_request request = {
        .method = head->method,
        .http_major = 1,
        .http_minor = (unsigned)head->version_minor,
        .upgrade = cv_http_join(head, "upgrade", joined),
        .connection = cv_http_join(head, "connection", joined),
        .key = cv_http_join(head, "sec-websocket-key", joined),
        .version = cv_http_join(head, "sec-websocket-version", joined),
    };
    CV_RETURN_IF_ERROR(cv_ws_check_request(&request, NULL));
    if (!head->is_upgrade)
        return cv_status(CV_WS_UPGRADE);
    struct cv_ws_deflate_params wish, agreed;
    char extensions[CV_WS_DEFLATE_TEXT_SIZE], accept[CV_WS_ACCEPT_SIZE];
    wish_for(session, &wish);
    CV_RETURN_IF_ERROR(cv_ws_deflate_negotiate(
        cv_http_join(head, "sec-websocket-extensions", joined), &wish, &agreed, extensions));
    CV_RETURN_IF_ERROR(make_engine(session, &agreed));
    cv_ws_accept_key(request.key, accept);
    return cv_buf_printf(&session->out,
                         "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
                         "Connection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n%s%s%s\r\n",
                         accept, extensions[0] ? "Sec-WebSocket-Extensions: " : "", extensions,
                         extensions[0] ? "\r\n" : "");
}

static void refuse(struct ws_session *session, struct cv_status status)
{
    (void)cv_buf_printf(&session->out,
                        "HTTP/1.1 %d %s\r\n%sConnection: close\r\nContent-Length: 0\r\n\r\n",
                        cv_status_http(status.id), cv_http_reason(cv_status_http(status.id)),
                        status.id == CV_WS_VERSION ? "Sec-WebSocket-Version: 13\r\n" : "")
        .id;
    (void)flush(session).id;
    (void)shutdown(session->fd, SHUT_WR);
    do
        cv_buf_consume(&session->in, cv_buf_len(&session->in));
    while (cv_is_ok(receive(session, CLOSE_MS)));
}

struct cv_status ws_session_accept(struct ws_session *session)
{
    struct cv_http_parser *parser = cv_http_parser_new(CV_HTTP_REQUESTS, &cv_http_request_limits);
    if (!parser)
        return cv_status(CV_NO_MEMORY);
    struct cv_buf joined;
    cv_buf_init(&joined, 2 * cv_http_request_limits.head);
    const struct cv_http_head *head;
    struct cv_status status = read_head(session, parser, &head);
    if (cv_is_ok(status))
        status = answer_request(session, head, &joined);
    if (cv_is_ok(status))
        keep_rest(session, parser);
    else if (status.id != CV_EOF)
        refuse(session, status);
    cv_buf_done(&joined);
    cv_http_parser_free(&parser);
    return status;
}

static struct cv_status check_answer(struct ws_session *session, const struct cv_http_head *head,
                                     const char *key, const struct cv_ws_deflate_params *wish,
                                     struct cv_buf *joined)
{
    struct cv_ws_response response = {
        .http_status = (unsigned)head->status,
        .upgrade = cv_http_join(head, "upgrade", joined),
        .connection = cv_http_join(head, "connection", joined),
        .accept = cv_http_join(head, "sec-websocket-accept", joined),
        .protocol = cv_http_join(head, "sec-websocket-protocol", joined),
    };
    CV_RETURN_IF_ERROR(cv_ws_check_response(&response, cv_slice_str(key), cv_slice_str(""), NULL));
    struct cv_ws_deflate_params agreed;
    CV_RETURN_IF_ERROR(cv_ws_deflate_accept(cv_http_join(head, "sec-websocket-extensions", joined),
                                            wish, &agreed));
    return make_engine(session, &agreed);
}

struct cv_status ws_session_connect(struct ws_session *session, const char *authority,
                                    const char *target)
{
    char key[CV_WS_KEY_SIZE], offer[CV_WS_DEFLATE_TEXT_SIZE];
    struct cv_ws_deflate_params wish;
    wish_for(session, &wish);
    cv_ws_make_key(key);
    cv_ws_deflate_offer(&wish, offer);
    CV_RETURN_IF_ERROR(
        cv_buf_printf(&session->out,
                      "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                      "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n%s%s%s\r\n",
                      target, authority, key, offer[0] ? "Sec-WebSocket-Extensions: " : "", offer,
                      offer[0] ? "\r\n" : ""));
    CV_RETURN_IF_ERROR(flush(session));
    struct cv_http_parser *parser = cv_http_parser_new(CV_HTTP_RESPONSES, &cv_http_response_limits);
    if (!parser)
        return cv_status(CV_NO_MEMORY);
    struct cv_buf joined;
    cv_buf_init(&joined, 2 * cv_http_response_limits.head);
    const struct cv_http_head *head;
    struct cv_status status = cv_http_parser_expect(parser, CV_HTTP_EXPECT_UPGRADE);
    if (cv_is_ok(status))
        status = read_head(session, parser, &head);
    if (cv_is_ok(status))
        status = check_answer(session, head, key, &wish, &joined);
    if (cv_is_ok(status))
        keep_rest(session, parser);
    cv_buf_done(&joined);
    cv_http_parser_free(&parser);
    return status;
}

/* ---- messages ---- */

static struct cv_status echo(struct ws_session *session, enum cv_ws_opcode opcode)
{
    struct cv_slice rest = cv_buf_slice(&session->message);
    unsigned flags;
    do {
        size_t len = rest.len < FRAME_BYTES ? rest.len : FRAME_BYTES;
        flags = CV_WS_COMPRESS | (len == rest.len ? CV_WS_FIN : 0);
        CV_RETURN_IF_ERROR(
            cv_ws_send(session->ws, &session->out, opcode, flags, cv_slice(rest.data, len)));
        rest = cv_slice(rest.data + len, rest.len - len);
    } while (!(flags & CV_WS_FIN));
    cv_buf_consume(&session->message, cv_buf_len(&session->message));
    return cv_ok();
}

static struct cv_status handle(struct ws_session *session, const struct cv_ws_event *event)
{
    switch (event->type) {
    case CV_WS_EVENT_DATA:
        if (event->is_first)
            cv_buf_consume(&session->message, cv_buf_len(&session->message));
        CV_RETURN_IF_ERROR(cv_buf_append_slice(&session->message, event->data));
        if (!event->is_final || session->is_collecting)
            return cv_ok();
        return echo(session, event->opcode);
    case CV_WS_EVENT_PING:
        return cv_ws_answer_ping(session->ws, &session->out);
    case CV_WS_EVENT_PONG:
        return cv_ok();
    case CV_WS_EVENT_CLOSE:
        return cv_ws_send_close(session->ws, &session->out, event->code, event->data);
    }
    return cv_status(CV_INTERNAL);
}

/* Handles what was fed, as long as there is room for the answers. */
static void advance(struct ws_session *session)
{
    while (session->is_fed) {
        if (cv_buf_len(&session->out) > 2 * session->options.max_message_bytes)
            return;
        struct cv_ws_event event;
        struct cv_status status = cv_ws_next(session->ws, &event);
        if (cv_is_ok(status)) {
            status = handle(session, &event);
            if (cv_is_ok(status) || status.id == CV_EOF)
                continue;
        } else if (status.id != CV_AGAIN) {
            const char *text = cv_ws_failure_text(session->ws);
            (void)cv_ws_send_close(session->ws, &session->out, cv_ws_failure_code(session->ws),
                                   cv_slice_str(text))
                .id;
        }
        session->is_fed = false;
        cv_buf_consume(&session->in, cv_buf_len(&session->in));
    }
}

static int64_t now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* After the closing handshake or a failure: what is left goes out, the server ends the TCP
 * connection first, and the rest is read, so that the Close we sent is not lost to a reset (RFC
 * 6455 §7.1.1). All of it within CLOSE_MS, whatever the peer does. */
static void linger(struct ws_session *session)
{
    int64_t left, end = now_ms() + CLOSE_MS;
    bool is_shut = session->role == CV_WS_CLIENT;
    while ((left = end - now_ms()) > 0) {
        bool is_flushed = cv_buf_len(&session->out) == 0;
        if (is_flushed && !is_shut) {
            (void)shutdown(session->fd, SHUT_WR);
            is_shut = true;
        }
        struct pollfd pollfd = {.fd = session->fd,
                                .events = is_flushed ? POLLIN : POLLIN | POLLOUT};
        (void)poll(&pollfd, 1, (int)left);
        cv_buf_consume(&session->in, cv_buf_len(&session->in));
        if (receive(session, 0).id == CV_EOF || !cv_is_ok(flush(session)))
            return;
    }
}

void ws_session_run(struct ws_session *session)
{
    bool is_first = cv_buf_len(&session->in) > 0; /* bytes that came with the handshake */
    for (;;) {
        if (!session->is_fed) {
            struct pollfd pollfd = {.fd = session->fd, .events = POLLIN};
            if (cv_buf_len(&session->out) > 0)
                pollfd.events |= POLLOUT;
            struct cv_status status = cv_ok();
            if (!is_first) {
                (void)poll(&pollfd, 1, -1);
                status = receive(session, 0);
            }
            is_first = false;
            if (status.id == CV_EOF)
                return;
            if (cv_is_ok(status)) {
                cv_ws_feed(session->ws, cv_buf_head(&session->in), cv_buf_len(&session->in));
                session->is_fed = true;
            }
        } else if (cv_buf_len(&session->out) > 0) {
            struct pollfd pollfd = {.fd = session->fd, .events = POLLOUT};
            (void)poll(&pollfd, 1, -1);
        }
        advance(session);
        if (!cv_is_ok(flush(session)))
            return;
        if (cv_ws_state(session->ws) == CV_WS_CLOSED) {
            linger(session);
            return;
        }
        if (!cv_is_ok(cv_ws_answer_ping(session->ws, &session->out)))
            return;
    }
}
