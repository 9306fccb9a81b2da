/* SPDX-License-Identifier: MIT
 *
 * What `ssh -R` and `ssh -L` do, done with libssh, for tests/interop/test_ssh_matrix.py.
 *
 *   libssh_pump publish COMMAND NAME PORT REKEY_BYTES   NAME:80 leads to 127.0.0.1:PORT
 *   libssh_pump reach COMMAND NAME PORT REKEY_BYTES     127.0.0.1:PORT leads to NAME:80
 *
 * COMMAND is the ProxyCommand. Prints "ready" once it serves, and serves until it is killed.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <libssh/libssh.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PUMP_MAX = 16, BLOCK = 32768, IDLE_MS = 20 };

/* One channel and its socket; `from_channel` is what the socket has not taken yet. */
struct pump {
    ssh_channel channel;
    int fd;
    char from_channel[BLOCK];
    int from_len, from_at;
    bool is_fd_eof, is_channel_eof;
};

static struct pump pumps[PUMP_MAX];

static int die(ssh_session session, const char *what)
{
    fprintf(stderr, "%s: %s\n", what, session ? ssh_get_error(session) : strerror(errno));
    return 1;
}

static ssh_session connect_through(const char *command, uint64_t rekey_bytes)
{
    ssh_session session = ssh_new();
    if (!session)
        return NULL;
    long timeout_s = 20;
    int port = 22;
    ssh_options_set(session, SSH_OPTIONS_HOST, "relay");
    ssh_options_set(session, SSH_OPTIONS_PORT, &port);
    ssh_options_set(session, SSH_OPTIONS_USER, "alice");
    ssh_options_set(session, SSH_OPTIONS_PROXYCOMMAND, command);
    ssh_options_set(session, SSH_OPTIONS_TIMEOUT, &timeout_s);
    ssh_options_set(session, SSH_OPTIONS_REKEY_DATA, &rekey_bytes);
    if (ssh_connect(session) != SSH_OK || ssh_userauth_none(session, NULL) != SSH_AUTH_SUCCESS) {
        (void)die(session, "connect");
        ssh_free(session);
        return NULL;
    }
    return session;
}

static int local_socket(int port, bool is_listener)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), yes = 1;
    if (fd < 0)
        return -1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    int failed = is_listener
                     ? bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 64)
                     : connect(fd, (struct sockaddr *)&address, sizeof address);
    if (failed) {
        (void)close(fd);
        return -1;
    }
    return fd;
}

static bool start(ssh_channel channel, int fd)
{
    for (size_t i = 0; i < PUMP_MAX; i++) {
        if (pumps[i].channel)
            continue;
        pumps[i] = (struct pump){.channel = channel, .fd = fd};
        (void)fcntl(fd, F_SETFL, O_NONBLOCK);
        return true;
    }
    return false;
}

static void end(struct pump *pump)
{
    ssh_channel_close(pump->channel);
    ssh_channel_free(pump->channel);
    (void)close(pump->fd);
    *pump = (struct pump){0};
}

static bool to_socket(struct pump *pump)
{
    bool moved = false;
    if (pump->from_at == pump->from_len && !pump->is_channel_eof) {
        int got = ssh_channel_read_nonblocking(pump->channel, pump->from_channel, BLOCK, 0);
        pump->from_at = 0;
        pump->from_len = got > 0 ? got : 0;
        moved = got > 0;
        if (got == SSH_EOF || (got <= 0 && ssh_channel_is_eof(pump->channel))) {
            pump->is_channel_eof = true;
            (void)shutdown(pump->fd, SHUT_WR);
        }
    }
    while (pump->from_at < pump->from_len) {
        ssize_t sent = send(pump->fd, pump->from_channel + pump->from_at,
                            (size_t)(pump->from_len - pump->from_at), MSG_NOSIGNAL);
        if (sent <= 0)
            return moved;
        pump->from_at += (int)sent;
        moved = true;
    }
    return moved;
}

/* No more than the window takes, so that ssh_channel_write() does not wait in there. */
static bool to_channel(struct pump *pump)
{
    char data[BLOCK];
    uint32_t window = ssh_channel_window_size(pump->channel);
    if (pump->is_fd_eof || window == 0)
        return false;
    ssize_t got = recv(pump->fd, data, window < BLOCK ? window : BLOCK, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (got <= 0) {
        pump->is_fd_eof = true;
        (void)ssh_channel_send_eof(pump->channel);
        return true;
    }
    return ssh_channel_write(pump->channel, data, (uint32_t)got) == got;
}

static bool move_all(void)
{
    bool moved = false;
    for (size_t i = 0; i < PUMP_MAX; i++) {
        struct pump *pump = &pumps[i];
        if (!pump->channel)
            continue;
        moved |= to_socket(pump);
        moved |= to_channel(pump);
        bool is_drained = pump->is_channel_eof && pump->from_at == pump->from_len;
        if (ssh_channel_is_closed(pump->channel) || (pump->is_fd_eof && is_drained))
            end(pump);
    }
    return moved;
}

static void rest(ssh_session session, int listener)
{
    struct pollfd fds[PUMP_MAX + 2];
    nfds_t count = 0;
    fds[count++] = (struct pollfd){ssh_get_fd(session), POLLIN, 0};
    if (listener >= 0)
        fds[count++] = (struct pollfd){listener, POLLIN, 0};
    for (size_t i = 0; i < PUMP_MAX; i++) {
        if (!pumps[i].channel)
            continue;
        short events = pumps[i].from_at < pumps[i].from_len ? POLLOUT : 0;
        if (!pumps[i].is_fd_eof && ssh_channel_window_size(pumps[i].channel) > 0)
            events |= POLLIN;
        fds[count++] = (struct pollfd){pumps[i].fd, events, 0};
    }
    (void)poll(fds, count, IDLE_MS);
}

/* A new channel from the relay, or a new connection from here. */
static int take(ssh_session session, int listener, const char *name, int port)
{
    if (listener < 0) {
        ssh_channel channel = ssh_channel_open_forward_port(session, 0, NULL, NULL, NULL);
        int fd = channel ? local_socket(port, false) : -1;
        if (channel && (fd < 0 || !start(channel, fd)))
            return die(NULL, "service");
        return 0;
    }
    struct pollfd waiting = {listener, POLLIN, 0};
    if (poll(&waiting, 1, 0) <= 0)
        return 0;
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    ssh_channel channel = ssh_channel_new(session);
    if (ssh_channel_open_forward(channel, name, 80, "localhost", 1) != SSH_OK)
        return die(session, "direct-tcpip");
    return start(channel, fd) ? 0 : die(NULL, "accept");
}

static int serve(ssh_session session, bool is_publisher, const char *name, int port)
{
    int listener = -1;
    if (is_publisher) {
        if (ssh_channel_listen_forward(session, name, 80, NULL) != SSH_OK)
            return die(session, "tcpip-forward");
    } else {
        listener = local_socket(port, true);
        if (listener < 0)
            return die(NULL, "listen");
    }
    printf("ready\n");
    fflush(stdout);
    while (ssh_is_connected(session)) {
        if (take(session, listener, name, port) != 0)
            return 1;
        if (!move_all())
            rest(session, listener);
    }
    return die(session, "the end");
}

int main(int argc, char **argv)
{
    if (argc != 6)
        return 2;
    (void)signal(SIGPIPE, SIG_IGN);
    ssh_session session = connect_through(argv[2], strtoull(argv[5], NULL, 10));
    if (!session)
        return 1;
    int result =
        serve(session, strcmp(argv[1], "publish") == 0, argv[3], (int)strtol(argv[4], NULL, 10));
    ssh_free(session);
    return result;
}
