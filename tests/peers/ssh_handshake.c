/* SPDX-License-Identifier: MIT
 *
 * The SSH transport layer over a plain blocking socket, for foreign peers to talk to: it shakes
 * hands, answers global requests with failure, and changes keys as often as it is told.
 *   ssh_handshake server PORT [option…]    takes one connection on 127.0.0.1
 *   ssh_handshake client PORT [option…]
 * Options: ciphers=NAMES zlib=1 guess=1 rekey=N (start a key exchange after every N messages, and
 * as a client send so many keep-alives) seconds=N (time to live, 10).
 * Prints one line per event; ends with 0 when it was established and the peer ended in order.
 */
#include "base/bytes.h"
#include "proto/ssh/transport.h"
#include "proto/ssh/wire.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct peer {
    struct cv_ssh_transport_options options;
    struct cv_buf out;
    struct cv_ssh_transport *transport;
    unsigned rekey_every, messages, seconds;
    bool is_established;
};

static uint64_t now_ms(void)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static int connect_or_accept(bool is_client, uint16_t port)
{
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0), yes = 1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    if (is_client)
        return connect(fd, (struct sockaddr *)&address, sizeof address) == 0 ? fd : -1;
    if (bind(fd, (struct sockaddr *)&address, sizeof address) != 0 || listen(fd, 1) != 0)
        return -1;
    (void)puts("listening");
    int accepted = accept(fd, NULL, NULL);
    (void)close(fd);
    return accepted;
}

static void keepalive(struct peer *peer)
{
    uint8_t data[64];
    struct cv_ssh_writer w = cv_ssh_writer(data, sizeof data);
    cv_ssh_write_u8(&w, 80);
    cv_ssh_write_str(&w, "keepalive@openssh.com");
    cv_ssh_write_bool(&w, true);
    if (!cv_is_ok(cv_ssh_transport_send(peer->transport, cv_ssh_written(&w), (struct cv_slice){0})))
        (void)puts("not sent");
}

/* The minimum of RFC 4254: every global request and channel is refused. */
static void on_message(struct peer *peer, struct cv_slice payload)
{
    struct cv_ssh_reader r = cv_ssh_reader(payload);
    struct cv_slice name;
    uint8_t number, reply[32];
    uint32_t channel;
    bool wants_reply;
    struct cv_ssh_writer w = cv_ssh_writer(reply, sizeof reply);
    (void)cv_ssh_read_u8(&r, &number);
    (void)printf("message %u\n", number);
    peer->messages++;
    if (number == 80 && cv_ssh_read_string(&r, &name) && cv_ssh_read_bool(&r, &wants_reply) &&
        wants_reply) {
        cv_ssh_write_u8(&w, 82);
    } else if (number == 90 && cv_ssh_read_string(&r, &name) && cv_ssh_read_u32(&r, &channel)) {
        cv_ssh_write_u8(&w, 92);
        cv_ssh_write_u32(&w, channel);
        cv_ssh_write_u32(&w, 1);
        cv_ssh_write_u32(&w, 0);
        cv_ssh_write_u32(&w, 0);
    } else if (peer->options.role == CV_SSH_CLIENT && peer->messages < peer->rekey_every) {
        keepalive(peer);
        return;
    }
    if (w.len &&
        !cv_is_ok(cv_ssh_transport_send(peer->transport, cv_ssh_written(&w), (struct cv_slice){0})))
        (void)puts("not sent");
    if (peer->rekey_every && peer->messages % peer->rekey_every == 0)
        cv_ssh_transport_rekey(peer->transport);
}

static void on_packet(struct peer *peer, const struct cv_ssh_packet *packet)
{
    switch (packet->kind) {
    case CV_SSH_PACKET_MESSAGE:
        on_message(peer, packet->payload);
        break;
    case CV_SSH_PACKET_HOST_KEY:
        (void)printf("host key %s\n", packet->fingerprint);
        cv_ssh_transport_accept_host_key(peer->transport, true);
        break;
    case CV_SSH_PACKET_ESTABLISHED:
        (void)printf("established %s %s\n", cv_ssh_transport_peer_version(peer->transport),
                     cv_ssh_transport_cipher(peer->transport));
        peer->is_established = true;
        if (peer->options.role == CV_SSH_CLIENT)
            keepalive(peer);
        break;
    case CV_SSH_PACKET_KEX_DONE:
        (void)printf("kex %u\n", cv_ssh_transport_kex_count(peer->transport));
        if (peer->options.role == CV_SSH_CLIENT && peer->rekey_every)
            cv_ssh_transport_disconnect(peer->transport, 11, "done");
        break;
    case CV_SSH_PACKET_DISCONNECT:
        (void)printf("disconnect %u %.*s\n", packet->reason, (int)packet->text.len,
                     (const char *)packet->text.data);
        break;
    }
}

/* Sends all there is; false when the peer is gone. */
static bool flush(struct peer *peer, int fd)
{
    while (cv_buf_len(&peer->out)) {
        ssize_t n = send(fd, cv_buf_head(&peer->out), cv_buf_len(&peer->out), MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        cv_buf_consume(&peer->out, (size_t)n);
    }
    return true;
}

static struct cv_status talk(struct peer *peer, int fd)
{
    static uint8_t data[65536];
    uint64_t end_ms = now_ms() + peer->seconds * 1000;
    struct cv_status status = cv_status(CV_AGAIN);
    while (status.id == CV_AGAIN) {
        struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
        struct cv_ssh_packet packet;
        (void)flush(peer, fd);
        if (now_ms() > end_ms)
            return cv_status(CV_CONN_TIMEOUT);
        if (poll(&poll_fd, 1, 100) > 0) {
            ssize_t n = read(fd, data, sizeof data);
            if (n <= 0)
                return cv_status(CV_EOF);
            (void)cv_ssh_transport_feed(peer->transport, data, (size_t)n);
        }
        cv_ssh_transport_tick(peer->transport, now_ms());
        while (cv_is_ok(status = cv_ssh_transport_next(peer->transport, now_ms(), &packet)))
            on_packet(peer, &packet);
    }
    (void)flush(peer, fd);
    return status;
}

static bool option(struct peer *peer, const char *text)
{
    struct cv_slice value = cv_slice_str(text);
    struct cv_slice name = cv_slice_split(&value, '=');
    uint64_t number = 0;
    if (cv_slice_is(name, "ciphers")) {
        peer->options.ciphers = (const char *)value.data;
        return true;
    }
    if (!cv_slice_to_u64(value, 1000000, &number))
        return false;
    if (cv_slice_is(name, "zlib"))
        peer->options.has_compression = number != 0;
    else if (cv_slice_is(name, "guess"))
        peer->options.has_guess = number != 0;
    else if (cv_slice_is(name, "rekey"))
        peer->rekey_every = (unsigned)number;
    else if (cv_slice_is(name, "seconds"))
        peer->seconds = (unsigned)number;
    else
        return false;
    return true;
}

int main(int argc, char **argv)
{
    struct peer peer = {.seconds = 10};
    struct cv_ssh_host_key *key = NULL;
    uint64_t port;
    (void)setvbuf(stdout, NULL, _IOLBF, 0);
    if (argc < 3 || !cv_slice_to_u64(cv_slice_str(argv[2]), 65535, &port))
        return 2;
    peer.options.role = strcmp(argv[1], "client") == 0 ? CV_SSH_CLIENT : CV_SSH_SERVER;
    for (int i = 3; i < argc; i++) {
        if (!option(&peer, argv[i]))
            return 2;
    }
    if (!cv_is_ok(cv_ssh_host_key_generate(&key)))
        return 1;
    peer.options.host_key = key;
    int fd = connect_or_accept(peer.options.role == CV_SSH_CLIENT, (uint16_t)port);
    if (fd < 0)
        return 1;
    cv_buf_init(&peer.out, 1 << 20);
    peer.transport = cv_ssh_transport_new(&peer.options, &peer.out, now_ms());
    struct cv_status status = peer.transport ? talk(&peer, fd) : cv_status(CV_INVALID);
    (void)printf("end %s %s\n", cv_status_name(status.id),
                 peer.transport ? cv_ssh_transport_error(peer.transport) : "");
    cv_ssh_transport_free(&peer.transport);
    cv_ssh_host_key_free(&key);
    cv_buf_done(&peer.out);
    (void)close(fd);
    return peer.is_established && status.id == CV_EOF ? 0 : 1;
}
