/* SPDX-License-Identifier: MIT
 *
 * A small HTTP/1.1 service on our own engine, so that outside suites can put it behind a tunnel and
 * see what reaches it:
 *
 *     http_echo --listen HOST:PORT [--record FILE]
 *
 * GET, HEAD, POST, PUT and PATCH are answered with 200 and the request's own content: with
 * Content-Length, or, with trailers or more than HOLD_BYTES in chunks, in chunks and with the
 * trailers. So is OPTIONS, without content with 204 and Allow. DELETE and TRACE are known but not
 * allowed here (405), other methods unknown (501, RFC 9110 §9.1). X-Echo-Method and X-Echo-Target
 * tell the request line. With the query "head" the body is instead the head as received, one field
 * a line. --record appends every byte that arrives, of all connections, to FILE: an empty file
 * proves that nothing came through. Port 0 takes a free
 * one; "listening on HOST:PORT" is the first line on stdout.
 *
 * One thread, poll(). Each connection: bytes in → parser → out buffer → bytes out. The parser is
 * only asked for the next event while the out buffer has room, and the socket only read once all
 * bytes are used, so that a client that does not read stops itself. An answer waits for the end of
 * its request, up to HOLD_BYTES, so that a body that turns out malformed is answered with 400 and
 * nothing else. A connection that ends is closed for writing first, and read until the client has
 * closed too: unread bytes would make a reset of it, and lose the answer.
 */
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "proto/http/http_parser.h"
#include "proto/http/http_writer.h"
#include "proto/http/url.h"

enum {
    CONNS_MAX = 1000,
    IN_BYTES = 65536,
    OUT_BYTES = 512 * 1024,
    ROOM_BYTES = 160 * 1024, /* the most that one event can make us write */
    HOLD_BYTES = 64 * 1024,
    LINGER_MS = 2000,
};

struct conn {
    int fd;
    struct cv_http_parser *parser;
    struct cv_buf out;
    bool is_eof;           /* the client has closed its side */
    size_t held;           /* bytes at the end of `out` that wait for the end of their request */
    uint64_t gone_ms;      /* closed for writing: until when we read on; 0 before */
    struct cv_buf content; /* of a chunked request, while it may still be sent in one piece */
    bool is_ending;        /* close once everything is written */
    bool is_open;          /* the answer's framing waits for `content` */
    bool is_chunked;       /* the answer */
    bool is_silent;        /* the answer has no body of the request's */
    bool keeps_alive;      /* of the request being answered */
    uint8_t in[IN_BYTES];
};

static void conn_free(struct conn **conn)
{
    (void)close((*conn)->fd);
    cv_http_parser_free(&(*conn)->parser);
    cv_buf_done(&(*conn)->out);
    cv_buf_done(&(*conn)->content);
    free(*conn);
    *conn = NULL;
}

static struct conn *conn_new(int fd)
{
    struct conn *conn = calloc(1, sizeof(*conn));
    if (conn)
        conn->parser = cv_http_parser_new(CV_HTTP_REQUESTS, &cv_http_request_limits);
    if (!conn || !conn->parser) {
        (void)close(fd);
        free(conn);
        return NULL;
    }
    conn->fd = fd;
    cv_buf_init(&conn->out, OUT_BYTES);
    cv_buf_init(&conn->content, HOLD_BYTES);
    return conn;
}

static uint64_t now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static struct cv_status write_date(struct cv_buf *out)
{
    char date[CV_HTTP_DATE_LEN + 1];
    if (!cv_http_date((uint64_t)time(NULL), date))
        return cv_ok();
    return cv_http_write_field_str(out, "Date", date);
}

/* The head as text: what the query "head" asks for. */
static struct cv_status write_received(struct cv_buf *out, const struct cv_http_head *head)
{
    CV_RETURN_IF_ERROR(cv_buf_printf(out, "%.*s %.*s HTTP/1.%d\n", (int)head->method.len,
                                     (const char *)head->method.data, (int)head->target.len,
                                     (const char *)head->target.data, head->version_minor));
    for (size_t i = 0; i < head->field_count; i++) {
        CV_RETURN_IF_ERROR(cv_buf_append_slice(out, head->fields[i].name));
        CV_RETURN_IF_ERROR(cv_buf_append_str(out, ": "));
        CV_RETURN_IF_ERROR(cv_buf_append_slice(out, head->fields[i].value));
        CV_RETURN_IF_ERROR(cv_buf_append_str(out, "\n"));
    }
    return cv_ok();
}

/* RFC 9110 §9.1: a method that is unknown is 501, one that is not for this resource 405. */
static int status_of(const struct cv_http_head *head)
{
    static const char *const echoed[] = {"GET", "HEAD", "POST", "PUT", "PATCH"};
    for (size_t i = 0; i < sizeof(echoed) / sizeof(echoed[0]); i++)
        if (cv_slice_is(head->method, echoed[i]))
            return 200;
    if (cv_slice_is(head->method, "OPTIONS"))
        return head->framing == CV_HTTP_CHUNKED || head->content_length ? 200 : 204;
    return cv_slice_is(head->method, "DELETE") || cv_slice_is(head->method, "TRACE") ? 405 : 501;
}

static struct cv_status write_fields(struct cv_buf *out, const struct cv_http_head *head,
                                     int status, bool wants_head)
{
    CV_RETURN_IF_ERROR(
        cv_http_write_status_line(out, status, cv_slice_str(cv_http_reason(status))));
    CV_RETURN_IF_ERROR(write_date(out));
    if (status == 405 || cv_slice_is(head->method, "OPTIONS"))
        CV_RETURN_IF_ERROR(
            cv_http_write_field_str(out, "Allow", "GET, HEAD, POST, PUT, PATCH, OPTIONS"));
    const struct cv_slice *type = cv_http_find(head, "content-type");
    CV_RETURN_IF_ERROR(cv_http_write_field(
        out, cv_slice_str("Content-Type"),
        type && !wants_head
            ? *type
            : cv_slice_str(wants_head ? "text/plain" : "application/octet-stream")));
    CV_RETURN_IF_ERROR(cv_http_write_field(out, cv_slice_str("X-Echo-Method"), head->method));
    return cv_http_write_field(out, cv_slice_str("X-Echo-Target"), head->target);
}

/* The rest of the head. The length is that of all content. */
static struct cv_status end_head(struct conn *conn, enum cv_http_framing framing, uint64_t length)
{
    conn->is_open = false;
    conn->is_chunked = framing == CV_HTTP_CHUNKED;
    CV_RETURN_IF_ERROR(cv_http_write_framing(&conn->out, framing, length));
    return cv_http_write_head_end(&conn->out);
}

static struct cv_status answer_head(struct conn *conn, const struct cv_http_head *head)
{
    struct cv_buf *out = &conn->out;
    bool wants_head = head->has_query && cv_slice_is(head->query, "head");
    int status = status_of(head);
    conn->keeps_alive = head->keep_alive && !head->is_upgrade && !head->is_connect;
    conn->is_silent = head->is_head || wants_head || status != 200;
    if (head->is_connect)
        return cv_status(CV_NOT_IMPLEMENTED);
    /* Who has begun to send content does not wait (RFC 9110 §10.1.1). */
    if (head->expects_continue && !cv_http_parser_rest(conn->parser).len) {
        CV_RETURN_IF_ERROR(cv_http_write_status_line(out, 100, cv_slice_str("Continue")));
        CV_RETURN_IF_ERROR(cv_http_write_head_end(out));
    }
    size_t before = cv_buf_len(out);
    CV_RETURN_IF_ERROR(write_fields(out, head, status, wants_head));
    if (!conn->keeps_alive)
        CV_RETURN_IF_ERROR(cv_http_write_field_str(out, "Connection", "close"));
    conn->is_open = !wants_head && status == 200 && head->framing == CV_HTTP_CHUNKED;
    if (wants_head && status == 200) {
        struct cv_buf received;
        cv_buf_init(&received, IN_BYTES);
        struct cv_status written = write_received(&received, head);
        if (cv_is_ok(written))
            written = end_head(conn, CV_HTTP_LENGTH, cv_buf_len(&received));
        if (cv_is_ok(written) && !head->is_head)
            written = cv_buf_append_slice(out, cv_buf_slice(&received));
        cv_buf_done(&received);
        CV_RETURN_IF_ERROR(written);
    } else if (!conn->is_open) {
        CV_RETURN_IF_ERROR(end_head(conn, status == 204 ? CV_HTTP_NO_BODY : CV_HTTP_LENGTH,
                                    status == 200 ? head->content_length : 0));
    }
    conn->held = cv_buf_len(out) - before;
    return cv_ok();
}

/* What was collected so far as a chunk; more of them follow. */
static struct cv_status begin_chunks(struct conn *conn)
{
    CV_RETURN_IF_ERROR(end_head(conn, CV_HTTP_CHUNKED, 0));
    if (!conn->is_silent && cv_buf_len(&conn->content))
        CV_RETURN_IF_ERROR(cv_http_write_chunk(&conn->out, cv_buf_slice(&conn->content)));
    cv_buf_truncate(&conn->content, 0);
    return cv_ok();
}

static struct cv_status answer_trailers(struct conn *conn, const struct cv_http_event *event)
{
    if (conn->is_open)
        CV_RETURN_IF_ERROR(begin_chunks(conn));
    if (conn->is_chunked && !conn->is_silent)
        CV_RETURN_IF_ERROR(
            cv_http_write_last_chunk(&conn->out, event->trailers, event->trailer_count));
    conn->is_chunked = false;
    return cv_ok();
}

static struct cv_status answer_end(struct conn *conn)
{
    if (conn->is_open) {
        CV_RETURN_IF_ERROR(end_head(conn, CV_HTTP_LENGTH, cv_buf_len(&conn->content)));
        if (!conn->is_silent)
            CV_RETURN_IF_ERROR(cv_buf_append_slice(&conn->out, cv_buf_slice(&conn->content)));
        cv_buf_truncate(&conn->content, 0);
    }
    if (conn->is_chunked && !conn->is_silent)
        CV_RETURN_IF_ERROR(cv_http_write_last_chunk(&conn->out, NULL, 0));
    conn->is_chunked = false;
    conn->is_ending |= !conn->keeps_alive;
    return cv_ok();
}

static struct cv_status answer_body(struct conn *conn, struct cv_slice body)
{
    if (conn->is_open && body.len <= cv_buf_room(&conn->content))
        return cv_buf_append_slice(&conn->content, body);
    if (conn->is_open)
        CV_RETURN_IF_ERROR(begin_chunks(conn));
    if (conn->is_silent)
        return cv_ok();
    return conn->is_chunked ? cv_http_write_chunk(&conn->out, body)
                            : cv_buf_append_slice(&conn->out, body);
}

static struct cv_status answer_event(struct conn *conn, const struct cv_http_event *event)
{
    switch (event->type) {
    case CV_HTTP_HEAD:
        return answer_head(conn, event->head);
    case CV_HTTP_BODY:
        return answer_body(conn, event->body);
    case CV_HTTP_TRAILERS:
        return answer_trailers(conn, event);
    case CV_HTTP_END:
        return answer_end(conn);
    }
    return cv_ok();
}

/* Takes events while there is room for what they make us write. */
static struct cv_status answer(struct conn *conn)
{
    struct cv_http_event event;
    while (!conn->is_ending && cv_buf_room(&conn->out) >= ROOM_BYTES) {
        CV_RETURN_IF_ERROR(cv_http_parser_next(conn->parser, &event));
        size_t before = cv_buf_len(&conn->out);
        bool is_held = conn->held && event.type != CV_HTTP_HEAD;
        CV_RETURN_IF_ERROR(answer_event(conn, &event));
        conn->held += is_held ? cv_buf_len(&conn->out) - before : 0;
        if (event.type == CV_HTTP_END || conn->held > HOLD_BYTES)
            conn->held = 0;
    }
    return cv_status(CV_AGAIN);
}

/* A request that no proxy of ours may have let through. */
static void refuse(struct conn *conn, struct cv_status status)
{
    int code = cv_status_http(status.id);
    (void)fprintf(stderr, "http_echo: %s: %s\n", cv_status_name(status.id),
                  cv_http_parser_fault(conn->parser));
    conn->is_ending = true;
    conn->out.end -= conn->held;
    conn->held = 0;
    /* Without room the client does not read either: closing says enough. */
    if (cv_is_ok(cv_http_write_status_line(&conn->out, code, cv_slice_str(cv_http_reason(code)))) &&
        cv_is_ok(write_date(&conn->out)) &&
        cv_is_ok(cv_http_write_field_str(&conn->out, "Connection", "close")) &&
        cv_is_ok(cv_http_write_framing(&conn->out, CV_HTTP_LENGTH, 0)))
        (void)cv_http_write_head_end(&conn->out).id;
}

/* False when the connection is to be freed. */
static bool conn_read(struct conn *conn, FILE *record)
{
    ssize_t n = recv(conn->fd, conn->in, sizeof(conn->in), 0);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    if (n == 0) {
        conn->is_eof = true;
        cv_http_parser_eof(conn->parser);
        return true;
    }
    if (record && (fwrite(conn->in, 1, (size_t)n, record) != (size_t)n || fflush(record) != 0))
        return false;
    return cv_is_ok(cv_http_parser_feed(conn->parser, conn->in, (size_t)n));
}

static size_t sendable(const struct conn *conn)
{
    return cv_buf_len(&conn->out) - conn->held;
}

static bool conn_write(struct conn *conn)
{
    while (sendable(conn)) {
        ssize_t n = send(conn->fd, cv_buf_head(&conn->out), sendable(conn), MSG_NOSIGNAL);
        if (n < 0)
            return errno == EAGAIN || errno == EINTR;
        cv_buf_consume(&conn->out, (size_t)n);
    }
    return true;
}

static bool wants_input(const struct conn *conn)
{
    if (conn->gone_ms)
        return true;
    return !conn->is_eof && !conn->is_ending && cv_http_parser_rest(conn->parser).len == 0 &&
           cv_buf_room(&conn->out) >= ROOM_BYTES;
}

/* Everything is written. False when nothing more can come. */
static bool linger(struct conn *conn)
{
    conn->gone_ms = now_ms() + LINGER_MS;
    return !conn->is_eof && shutdown(conn->fd, SHUT_WR) == 0;
}

static bool conn_discard(struct conn *conn)
{
    ssize_t n = recv(conn->fd, conn->in, sizeof(conn->in), 0);
    return n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR));
}

/* One round of a connection after poll. False when it is to be freed. */
static bool conn_serve(struct conn *conn, short events, FILE *record)
{
    if (events & (POLLERR | POLLNVAL))
        return false;
    if (conn->gone_ms)
        return now_ms() < conn->gone_ms && (!(events & (POLLIN | POLLHUP)) || conn_discard(conn));
    if (events & (POLLIN | POLLHUP) && wants_input(conn) && !conn_read(conn, record))
        return false;
    size_t room;
    do { /* what was written makes room for more answers */
        struct cv_status status = answer(conn);
        if (status.id == CV_EOF)
            conn->is_ending = true;
        else if (status.id != CV_AGAIN && !conn->is_ending)
            refuse(conn, status);
        if (!conn_write(conn))
            return false;
        room = cv_buf_room(&conn->out);
    } while (!conn->is_ending && room >= ROOM_BYTES && cv_http_parser_rest(conn->parser).len);
    return !(conn->is_ending && cv_buf_len(&conn->out) == 0) || linger(conn);
}

static int listen_on(struct cv_slice host, unsigned port)
{
    char name[CV_HTTP_HOST_MAX + 1], service[8];
    struct addrinfo *list, hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE};
    if (host.data[0] == '[')
        host = cv_slice(host.data + 1, host.len - 2);
    (void)snprintf(service, sizeof(service), "%u", port);
    if (!cv_slice_to_str(host, name, sizeof(name)) ||
        getaddrinfo(name, service, &hints, &list) != 0)
        return -1;
    int on = 1;
    int fd = socket(list->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0 ||
                    bind(fd, list->ai_addr, list->ai_addrlen) < 0 || listen(fd, 1024) < 0)) {
        (void)close(fd);
        fd = -1;
    }
    freeaddrinfo(list);
    return fd;
}

static void say_where(int fd)
{
    struct sockaddr_storage address;
    socklen_t len = sizeof(address);
    char host[64], port[8];
    if (getsockname(fd, (struct sockaddr *)&address, &len) == 0 &&
        getnameinfo((struct sockaddr *)&address, len, host, sizeof(host), port, sizeof(port),
                    NI_NUMERICHOST | NI_NUMERICSERV) == 0)
        (void)printf(strchr(host, ':') ? "listening on [%s]:%s\n" : "listening on %s:%s\n", host,
                     port);
    (void)fflush(stdout);
}

static int serve(int listener, FILE *record)
{
    static struct pollfd polls[CONNS_MAX + 1];
    static struct conn *conns[CONNS_MAX];
    size_t count = 0;
    bool is_lingering = false;
    for (;;) {
        polls[0] = (struct pollfd){.fd = count < CONNS_MAX ? listener : -1, .events = POLLIN};
        for (size_t i = 0; i < count; i++)
            polls[i + 1] = (struct pollfd){.fd = conns[i]->fd,
                                           .events = (short)((wants_input(conns[i]) ? POLLIN : 0) |
                                                             (sendable(conns[i]) ? POLLOUT : 0))};
        if (poll(polls, count + 1, is_lingering ? LINGER_MS / 4 : -1) < 0 && errno != EINTR)
            return 1;
        is_lingering = false;
        for (size_t i = count; i > 0; i--) {
            bool is_due = polls[i].revents || conns[i - 1]->gone_ms;
            if (is_due && !conn_serve(conns[i - 1], polls[i].revents, record)) {
                conn_free(&conns[i - 1]);
                conns[i - 1] = conns[--count];
            } else {
                is_lingering |= conns[i - 1]->gone_ms != 0;
            }
        }
        if (polls[0].revents) {
            int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
            if (fd >= 0 && (conns[count] = conn_new(fd)))
                count++;
        }
    }
}

int main(int argc, char **argv)
{
    const char *listen_at = NULL, *record_to = NULL;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--listen") == 0)
            listen_at = argv[i + 1];
        else if (strcmp(argv[i], "--record") == 0)
            record_to = argv[i + 1];
    }
    struct cv_slice host;
    unsigned port;
    bool has_port;
    if (!listen_at || !cv_url_split_authority(cv_slice_str(listen_at), &host, &port, &has_port) ||
        !has_port) {
        (void)fprintf(stderr, "usage: http_echo --listen HOST:PORT [--record FILE]\n");
        return 2;
    }
    FILE *record = record_to ? fopen(record_to, "ab") : NULL;
    int listener = listen_on(host, port);
    if (listener < 0 || (record_to && !record)) {
        perror("http_echo");
        return 1;
    }
    say_where(listener);
    return serve(listener, record);
}
