/* SPDX-License-Identifier: MIT
 *
 * How fast packets are sealed and opened: transport_bench [payload bytes]. Each line is one cipher,
 * both directions of work in one thread, so a program that only sends or only receives does it in
 * about half the time.
 */
#include "proto/ssh/transport.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct side {
    struct cv_buf out;
    struct cv_ssh_transport *t;
    uint64_t received;
};

static double now_s(void)
{
    struct timespec ts;
    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void carry(struct side *from, struct side *to)
{
    struct cv_ssh_packet packet;
    struct cv_status status =
        cv_ssh_transport_feed(to->t, cv_buf_head(&from->out), cv_buf_len(&from->out));
    while (cv_is_ok(status = cv_ssh_transport_next(to->t, 0, &packet))) {
        if (packet.kind == CV_SSH_PACKET_HOST_KEY)
            cv_ssh_transport_accept_host_key(to->t, true);
        to->received += packet.payload.len;
    }
    if (status.id != CV_AGAIN) {
        (void)printf("%s\n", cv_ssh_transport_error(to->t));
        exit(1);
    }
    cv_buf_consume(&from->out, cv_buf_len(&from->out));
}

static void bench(const char *cipher, const struct cv_ssh_host_key *key, size_t len)
{
    struct side client = {0}, server = {0};
    struct cv_ssh_transport_options o = {
        .role = CV_SSH_CLIENT, .ciphers = cipher, .rekey_bytes = 1ULL << 40};
    cv_buf_init(&client.out, 1 << 18);
    cv_buf_init(&server.out, 1 << 18);
    client.t = cv_ssh_transport_new(&o, &client.out, 0);
    o.role = CV_SSH_SERVER;
    o.host_key = key;
    server.t = cv_ssh_transport_new(&o, &server.out, 0);
    for (int i = 0; i < 4; i++) {
        carry(&client, &server);
        carry(&server, &client);
    }
    static const uint8_t head[9] = {94};
    uint8_t *body = calloc(1, len);
    double seal_s = 0, open_s = 0;
    uint64_t packets = 0;
    while (seal_s + open_s < 1.0) {
        double start = now_s();
        for (int i = 0; i < 4; i++, packets++) {
            if (!cv_is_ok(cv_ssh_transport_send(client.t, cv_slice(head, sizeof head),
                                                cv_slice(body, len))))
                exit(1);
        }
        double middle = now_s();
        carry(&client, &server);
        open_s += now_s() - middle;
        seal_s += middle - start;
    }
    double bytes = (double)(packets * len);
    (void)printf("%-32s %6zu bytes: seal %5.2f GB/s %6.0f ns, open %5.2f GB/s %6.0f ns\n", cipher,
                 len, bytes / seal_s / 1e9, seal_s / (double)packets * 1e9, bytes / open_s / 1e9,
                 open_s / (double)packets * 1e9);
    free(body);
    cv_ssh_transport_free(&client.t);
    cv_ssh_transport_free(&server.t);
    cv_buf_done(&client.out);
    cv_buf_done(&server.out);
}

int main(int argc, char **argv)
{
    uint64_t len = 32768;
    struct cv_ssh_host_key *key;
    if (argc > 1 && (!cv_slice_to_u64(cv_slice_str(argv[1]), 33000, &len) || len == 0))
        return 2;
    if (!cv_is_ok(cv_ssh_host_key_generate(&key)))
        return 1;
    bench("aes256-gcm@openssh.com", key, len);
    bench("aes128-gcm@openssh.com", key, len);
    bench("chacha20-poly1305@openssh.com", key, len);
    cv_ssh_host_key_free(&key);
    return 0;
}
