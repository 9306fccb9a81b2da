/* SPDX-License-Identifier: MIT
 *
 * A small SSH server and client around our engine and plain sockets, so that other programs can be
 * put against it: no relay, no WebSocket, one session a process.
 *
 *   ssh_peer server --listen 127.0.0.1:PORT
 *       Takes everybody. tcpip-forward of any name opens a local port, printed as
 *       "forward NAME PORT LOCALPORT", whose connections become channels. direct-tcpip to the host
 *       `echo` is echoed, to others refused.
 *   ssh_peer client --connect HOST:PORT --forward NAME:PORT     channels that come are echoed
 *   ssh_peer client --connect HOST:PORT --open HOST:PORT --bytes N
 *       Opens a channel to an echo service, sends N bytes, and compares what comes back.
 *   with --rekey-bytes N, --ciphers LIST, --compress
 *
 * It prints "established", "rekeyed" after every further key exchange, and at the end "end kex=N
 * cipher=NAME peer=VERSION".
 */
#include "proto/ssh/ssh.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

enum { stream_max = 100, listener_max = 16, read_size = 65536, queue_cap = 4 << 20 };

struct stream {
    struct cv_ssh_channel *channel;
    int fd; /* -1: echo */
    struct cv_buf to_channel, to_fd;
    bool is_fd_eof;    /* no more comes for the channel */
    bool is_shut;      /* the channel sends no more */
    bool is_generator; /* --open: sends and checks by itself */
};

struct listener {
    int fd;
    uint32_t port; /* as the client has asked for it */
    char name[CV_SSH_NAME_MAX + 1];
};

struct peer {
    struct cv_ssh *ssh;
    struct cv_buf out;
    int fd;
    bool is_over;
    struct stream streams[stream_max];
    struct listener listeners[listener_max];
    unsigned listener_count;
    const char *forward, *open;
    uint64_t bytes, sent, checked;
    int exit_code;
};

static uint64_t now_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static uint8_t byte_at(uint64_t at)
{
    return (uint8_t)((at * 0x9e3779b97f4a7c15U) >> 56);
}

__attribute__((noreturn)) static void fail(const char *what)
{
    (void)fprintf(stderr, "ssh_peer: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void set_nonblocking(int fd)
{
    int one = 1;
    (void)fcntl(fd, F_SETFL, O_NONBLOCK);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

/* "host:port" as two strings; host may be empty. */
static void cut_address(const char *text, char host[CV_SSH_NAME_MAX + 1], uint32_t *port)
{
    const char *colon = strrchr(text, ':');
    uint64_t number = 0;
    if (!colon ||
        !cv_slice_to_str(cv_slice(text, (size_t)(colon - text)), host, CV_SSH_NAME_MAX + 1) ||
        !cv_slice_to_u64(cv_slice_str(colon + 1), UINT16_MAX, &number)) {
        (void)fprintf(stderr, "ssh_peer: %s is not HOST:PORT\n", text);
        exit(2);
    }
    *port = (uint32_t)number;
}

static int open_socket(const char *text, bool is_listener)
{
    char host[CV_SSH_NAME_MAX + 1], service[8];
    uint32_t port;
    cut_address(text, host, &port);
    (void)snprintf(service, sizeof service, "%u", port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    if (getaddrinfo(host, service, &hints, &found) != 0)
        fail("getaddrinfo");
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    if (fd < 0)
        fail("socket");
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (is_listener ? bind(fd, found->ai_addr, found->ai_addrlen) || listen(fd, 100)
                    : connect(fd, found->ai_addr, found->ai_addrlen))
        fail(is_listener ? "bind" : "connect");
    freeaddrinfo(found);
    return fd;
}

static uint32_t local_port(int fd)
{
    struct sockaddr_in address = {0};
    socklen_t len = sizeof address;
    (void)getsockname(fd, (struct sockaddr *)&address, &len);
    return ntohs(address.sin_port);
}

/* ---- streams ---- */

static struct stream *stream_new(struct peer *peer, struct cv_ssh_channel *channel, int fd)
{
    for (size_t i = 0; i < stream_max; i++) {
        struct stream *stream = &peer->streams[i];
        if (stream->channel)
            continue;
        *stream = (struct stream){.channel = channel, .fd = fd};
        cv_buf_init(&stream->to_channel, queue_cap);
        cv_buf_init(&stream->to_fd, queue_cap);
        cv_ssh_channel_set_arg(channel, stream);
        return stream;
    }
    return NULL;
}

static void stream_done(struct stream *stream)
{
    if (!stream)
        return;
    if (stream->fd >= 0)
        (void)close(stream->fd);
    cv_buf_done(&stream->to_channel);
    cv_buf_done(&stream->to_fd);
    stream->channel = NULL;
}

static void generate(struct peer *peer, struct stream *stream)
{
    uint8_t bytes[32768];
    while (peer->sent < peer->bytes) {
        size_t len = cv_ssh_channel_writable(stream->channel);
        len = len < sizeof bytes ? len : sizeof bytes;
        len = len < peer->bytes - peer->sent ? len : (size_t)(peer->bytes - peer->sent);
        for (size_t i = 0; i < len; i++)
            bytes[i] = byte_at(peer->sent + i);
        /* At least one is tried, so that a short write asks for the event. */
        if (len == 0) {
            bytes[0] = byte_at(peer->sent);
            len = 1;
        }
        size_t taken = cv_ssh_channel_write(stream->channel, cv_slice(bytes, len));
        peer->sent += taken;
        if (taken < len)
            return;
    }
    cv_ssh_channel_eof(stream->channel);
}

/* Moves what waits as far as it goes. */
static void stream_pump(struct peer *peer, struct stream *stream)
{
    if (stream->is_generator) {
        generate(peer, stream);
        return;
    }
    size_t taken = cv_ssh_channel_write(stream->channel, cv_buf_slice(&stream->to_channel));
    cv_buf_consume(&stream->to_channel, taken);
    if (stream->fd < 0) {
        cv_ssh_channel_consumed(stream->channel, taken);
        stream->is_fd_eof = stream->is_shut;
    } else {
        ssize_t written = 0;
        if (cv_buf_len(&stream->to_fd) > 0)
            written = send(stream->fd, cv_buf_head(&stream->to_fd), cv_buf_len(&stream->to_fd),
                           MSG_NOSIGNAL);
        if (written < 0 && errno != EAGAIN) {
            cv_ssh_channel_close(stream->channel);
            return;
        }
        if (written > 0) {
            cv_buf_consume(&stream->to_fd, (size_t)written);
            cv_ssh_channel_consumed(stream->channel, (size_t)written);
        }
        if (stream->is_shut && cv_buf_len(&stream->to_fd) == 0)
            (void)shutdown(stream->fd, SHUT_WR);
    }
    if (!stream->is_fd_eof || cv_buf_len(&stream->to_channel) > 0)
        return;
    cv_ssh_channel_eof(stream->channel);
    if (stream->is_shut && cv_buf_len(&stream->to_fd) == 0)
        cv_ssh_channel_close(stream->channel);
}

static void stream_data(struct peer *peer, struct stream *stream, struct cv_slice data)
{
    if (!stream->is_generator) {
        if (!cv_is_ok(
                cv_buf_append_slice(stream->fd < 0 ? &stream->to_channel : &stream->to_fd, data)))
            fail("buffer");
        return;
    }
    for (size_t i = 0; i < data.len; i++)
        if (data.data[i] != byte_at(peer->checked + i)) {
            (void)printf("differs at %ju\n", (uintmax_t)(peer->checked + i));
            exit(1);
        }
    peer->checked += data.len;
    cv_ssh_channel_consumed(stream->channel, data.len);
}

static void stream_read(struct peer *peer, struct stream *stream)
{
    static uint8_t bytes[read_size];
    ssize_t len = recv(stream->fd, bytes, sizeof bytes, 0);
    if (len < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (len <= 0)
        stream->is_fd_eof = true;
    else if (!cv_is_ok(cv_buf_append(&stream->to_channel, bytes, (size_t)len)))
        fail("buffer");
    stream_pump(peer, stream);
}

/* ---- events ---- */

static void handle_forward(struct peer *peer, const struct cv_ssh_event *event)
{
    bool is_ok = false;
    if (cv_slice_is(event->request.name, "tcpip-forward") && peer->listener_count < listener_max) {
        struct listener *listener = &peer->listeners[peer->listener_count++];
        listener->fd = open_socket("127.0.0.1:0", true);
        set_nonblocking(listener->fd);
        listener->port = event->request.port;
        is_ok = cv_slice_to_str(event->request.host, listener->name, sizeof listener->name);
        (void)printf("forward %s %u %u\n", listener->name, listener->port,
                     local_port(listener->fd));
    }
    if (event->request.want_reply &&
        !cv_is_ok(cv_ssh_global_reply(peer->ssh, is_ok, cv_slice(NULL, 0))))
        peer->is_over = true;
}

static void start_work(struct peer *peer)
{
    char host[CV_SSH_NAME_MAX + 1];
    uint32_t port;
    (void)printf("established\n");
    if (peer->forward) {
        cut_address(peer->forward, host, &port);
        if (!cv_is_ok(cv_ssh_forward(peer->ssh, cv_slice_str(host), port, NULL)))
            peer->is_over = true;
    }
    if (peer->open) {
        cut_address(peer->open, host, &port);
        struct cv_ssh_channel *channel = cv_ssh_channel_open(
            peer->ssh, CV_SSH_DIRECT_TCPIP, cv_slice_str(host), port, cv_slice_str("127.0.0.1"), 1);
        struct stream *stream = channel ? stream_new(peer, channel, -1) : NULL;
        if (stream)
            stream->is_generator = true;
    }
}

static void handle_requested(struct peer *peer, const struct cv_ssh_event *event)
{
    bool is_echo =
        event->open.kind == CV_SSH_FORWARDED_TCPIP || cv_slice_is(event->open.host, "echo");
    if (!is_echo)
        cv_ssh_channel_refuse(event->channel, CV_SSH_OPEN_PROHIBITED, "only echo here");
    else if (!stream_new(peer, event->channel, -1))
        cv_ssh_channel_refuse(event->channel, CV_SSH_OPEN_RESOURCE_SHORTAGE, "too many");
    else
        cv_ssh_channel_confirm(event->channel);
}

static void handle_end(struct peer *peer, struct stream *stream)
{
    if (stream && stream->is_generator) {
        bool is_whole = peer->checked == peer->bytes;
        (void)printf("%s %ju bytes\n", is_whole ? "ok" : "cut", (uintmax_t)peer->checked);
        peer->exit_code = is_whole ? 0 : 1;
        cv_ssh_disconnect(peer->ssh, 11, "done");
    }
    stream_done(stream);
}

static void handle(struct peer *peer, const struct cv_ssh_event *event)
{
    struct stream *stream =
        event->channel ? (struct stream *)cv_ssh_channel_arg(event->channel) : NULL;
    switch (event->kind) {
    case CV_SSH_HOST_KEY:
        (void)printf("host key %s\n", event->host_key.fingerprint);
        cv_ssh_accept_host_key(peer->ssh, true);
        break;
    case CV_SSH_ESTABLISHED:
        start_work(peer);
        break;
    case CV_SSH_GLOBAL_REQUEST:
        handle_forward(peer, event);
        break;
    case CV_SSH_GLOBAL_REPLY:
        (void)printf("forward %s\n", event->reply.is_success ? "accepted" : "refused");
        break;
    case CV_SSH_CHANNEL_REQUESTED:
        handle_requested(peer, event);
        break;
    case CV_SSH_CHANNEL_DATA:
        stream_data(peer, stream, event->data);
        stream_pump(peer, stream);
        break;
    case CV_SSH_CHANNEL_EOF:
        stream->is_shut = true;
        if (stream->is_generator)
            cv_ssh_channel_close(stream->channel);
        else
            stream_pump(peer, stream);
        break;
    case CV_SSH_CHANNEL_OPENED:
    case CV_SSH_CHANNEL_WRITABLE:
        stream_pump(peer, stream);
        break;
    case CV_SSH_CHANNEL_REFUSED:
        (void)printf("refused %u\n", event->end.reason);
        handle_end(peer, stream);
        break;
    case CV_SSH_CHANNEL_CLOSED:
        handle_end(peer, stream);
        break;
    case CV_SSH_DISCONNECTED:
        (void)printf("disconnected %u\n", event->end.reason);
        break;
    case CV_SSH_REKEYED:
        (void)printf("rekeyed\n");
        break;
    case CV_SSH_KEEPALIVE_ANSWERED:
        break;
    }
}

static void run_session(struct peer *peer)
{
    struct cv_ssh_event event;
    struct cv_status status;
    while (cv_is_ok(status = cv_ssh_next(peer->ssh, now_ms(), &event)))
        handle(peer, &event);
    if (status.id == CV_AGAIN)
        return;
    peer->is_over = true;
    if (status.id != CV_EOF)
        (void)printf("failed %s: %s\n", cv_status_name(status.id), cv_ssh_error(peer->ssh));
}

/* ---- the loop ---- */

static void send_out(struct peer *peer)
{
    while (cv_buf_len(&peer->out) > 0) {
        ssize_t len = send(peer->fd, cv_buf_head(&peer->out), cv_buf_len(&peer->out), MSG_NOSIGNAL);
        if (len < 0 && errno == EAGAIN)
            return;
        if (len <= 0) {
            peer->is_over = true;
            return;
        }
        cv_buf_consume(&peer->out, (size_t)len);
        run_session(peer);
    }
}

static void receive(struct peer *peer)
{
    static uint8_t bytes[read_size];
    ssize_t len = recv(peer->fd, bytes, sizeof bytes, 0);
    if (len < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (len <= 0 || !cv_is_ok(cv_ssh_feed(peer->ssh, bytes, (size_t)len)))
        peer->is_over = true;
    else
        run_session(peer);
}

static void take_connection(struct peer *peer, const struct listener *listener)
{
    int fd = accept4(listener->fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    set_nonblocking(fd);
    struct cv_ssh_channel *channel =
        cv_ssh_channel_open(peer->ssh, CV_SSH_FORWARDED_TCPIP, cv_slice_str(listener->name),
                            listener->port, cv_slice_str("127.0.0.1"), 1);
    if (!channel || !stream_new(peer, channel, fd))
        (void)close(fd);
}

static void turn(struct peer *peer)
{
    struct pollfd fds[1 + listener_max + stream_max];
    struct stream *streams[stream_max];
    nfds_t count = 0, stream_count = 0;
    bool wants_input = cv_ssh_wants_input(peer->ssh);
    fds[count++] = (struct pollfd){
        peer->fd, (short)((wants_input ? POLLIN : 0) | (cv_buf_len(&peer->out) > 0 ? POLLOUT : 0)),
        0};
    for (unsigned i = 0; i < peer->listener_count; i++)
        fds[count++] = (struct pollfd){peer->listeners[i].fd, POLLIN, 0};
    for (size_t i = 0; i < stream_max; i++) {
        struct stream *stream = &peer->streams[i];
        if (!stream->channel || stream->fd < 0)
            continue;
        bool wants_read = !stream->is_fd_eof && cv_buf_len(&stream->to_channel) == 0;
        bool wants_write = cv_buf_len(&stream->to_fd) > 0;
        if (!wants_read && !wants_write)
            continue;
        streams[stream_count++] = stream;
        fds[count++] = (struct pollfd){
            stream->fd, (short)((wants_read ? POLLIN : 0) | (wants_write ? POLLOUT : 0)), 0};
    }
    uint64_t deadline = cv_ssh_deadline(peer->ssh), now = now_ms();
    uint64_t wait = deadline > now ? deadline - now : 0;
    if (poll(fds, count, wait < 1000 ? (int)wait : 1000) < 0 && errno != EINTR)
        fail("poll");
    if (now_ms() >= deadline) {
        cv_ssh_tick(peer->ssh, now_ms());
        run_session(peer);
    }
    for (unsigned i = 0; i < peer->listener_count; i++)
        if (fds[1 + i].revents)
            take_connection(peer, &peer->listeners[i]);
    for (nfds_t i = 0; i < stream_count; i++) {
        const struct pollfd *fd = &fds[count - stream_count + i];
        if (fd->revents & (POLLIN | POLLHUP | POLLERR) && streams[i]->channel)
            stream_read(peer, streams[i]);
        else if (fd->revents && streams[i]->channel)
            stream_pump(peer, streams[i]);
    }
    if (wants_input && fds[0].revents & (POLLIN | POLLHUP | POLLERR))
        receive(peer);
    send_out(peer);
}

static int run_peer(struct peer *peer, const struct cv_ssh_options *options)
{
    set_nonblocking(peer->fd);
    cv_buf_init(&peer->out, 1U << 20);
    if (!cv_is_ok(cv_ssh_new(options, &peer->out, now_ms(), &peer->ssh))) {
        (void)fprintf(stderr, "ssh_peer: bad options\n");
        return 2;
    }
    while (!peer->is_over)
        turn(peer);
    send_out(peer);
    const struct cv_ssh_transport *transport = cv_ssh_transport_of(peer->ssh);
    (void)printf("end kex=%u cipher=%s peer=%s\n", cv_ssh_transport_kex_count(transport),
                 cv_ssh_transport_cipher(transport), cv_ssh_transport_peer_version(transport));
    for (size_t i = 0; i < stream_max; i++)
        if (peer->streams[i].channel)
            stream_done(&peer->streams[i]);
    for (unsigned i = 0; i < peer->listener_count; i++)
        (void)close(peer->listeners[i].fd);
    cv_ssh_free(&peer->ssh);
    cv_buf_done(&peer->out);
    (void)close(peer->fd);
    return peer->exit_code;
}

static int serve(const char *address, struct cv_ssh_options *options)
{
    struct cv_ssh_host_key *key;
    if (!cv_is_ok(cv_ssh_host_key_generate(&key)))
        fail("host key");
    options->transport.role = CV_SSH_SERVER;
    options->transport.host_key = key;
    int listener = open_socket(address, true);
    (void)signal(SIGCHLD, SIG_IGN);
    (void)printf("listening %u\n", local_port(listener));
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            fail("accept");
        if (fork() == 0) {
            static struct peer peer;
            peer.fd = fd;
            (void)close(listener);
            int exit_code = run_peer(&peer, options);
            cv_ssh_host_key_free(&key);
            return exit_code;
        }
        (void)close(fd);
    }
}

int main(int argc, char **argv)
{
    static struct peer peer;
    struct cv_ssh_options options = {.max_channels = stream_max};
    const char *listen_at = NULL, *connect_to = NULL;
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    for (int i = 2; i < argc; i++) {
        const char *name = argv[i], *value = i + 1 < argc ? argv[i + 1] : "";
        bool is_flag = strcmp(name, "--compress") == 0;
        if (is_flag)
            options.transport.has_compression = true;
        else if (strcmp(name, "--listen") == 0)
            listen_at = value;
        else if (strcmp(name, "--connect") == 0)
            connect_to = value;
        else if (strcmp(name, "--forward") == 0)
            peer.forward = value;
        else if (strcmp(name, "--open") == 0)
            peer.open = value;
        else if (strcmp(name, "--ciphers") == 0)
            options.transport.ciphers = value;
        else if (strcmp(name, "--bytes") == 0)
            (void)cv_slice_to_u64(cv_slice_str(value), UINT64_MAX, &peer.bytes);
        else if (strcmp(name, "--rekey-bytes") == 0)
            (void)cv_slice_to_u64(cv_slice_str(value), UINT64_MAX, &options.transport.rekey_bytes);
        else
            listen_at = connect_to = NULL;
        i += !is_flag;
    }
    if (argc > 1 && strcmp(argv[1], "server") == 0 && listen_at)
        return serve(listen_at, &options);
    if (argc > 1 && strcmp(argv[1], "client") == 0 && connect_to) {
        options.transport.role = CV_SSH_CLIENT;
        peer.fd = open_socket(connect_to, false);
        peer.exit_code = peer.open ? 1 : 0;
        return run_peer(&peer, &options);
    }
    (void)fprintf(stderr, "usage: see the head of ssh_peer.c\n");
    return 2;
}
