/* SPDX-License-Identifier: MIT
 *
 * Every allocation of ours in a whole session fails once: new() gives NULL or the session ends with
 * CV_NO_MEMORY, and nothing leaks or is read twice. Those of OpenSSL go on.
 */
#include "proto/ssh/transport.h"

#include "base/alloc_test.h"
#include "base/test.h"

#include <stdlib.h>

struct side {
    struct cv_buf out;
    struct cv_ssh_transport *t;
    enum cv_status_id end;
    unsigned received;
};

static void carry(struct side *from, struct side *to, size_t step)
{
    while (cv_buf_len(&from->out)) {
        struct cv_ssh_packet packet;
        size_t len = cv_buf_len(&from->out) < step ? cv_buf_len(&from->out) : step;
        struct cv_status status = cv_ssh_transport_feed(to->t, cv_buf_head(&from->out), len);
        while (cv_is_ok(status) && cv_is_ok(status = cv_ssh_transport_next(to->t, 0, &packet))) {
            if (packet.kind == CV_SSH_PACKET_HOST_KEY)
                cv_ssh_transport_accept_host_key(to->t, true);
            to->received += packet.kind == CV_SSH_PACKET_MESSAGE;
        }
        to->end = status.id;
        cv_buf_consume(&from->out, len);
    }
}

/* A session with compression, data both ways and a key exchange in it. True when all arrived. */
static bool whole_session(const struct cv_ssh_host_key *key, struct side *client,
                          struct side *server)
{
    struct cv_ssh_transport_options options = {.has_compression = true, .host_key = key};
    uint8_t body[20000] = {94};
    cv_buf_init(&client->out, CV_SSH_OUT_MIN);
    cv_buf_init(&server->out, CV_SSH_OUT_MIN);
    client->t = cv_ssh_transport_new(&options, &client->out, 0);
    options.role = CV_SSH_SERVER;
    server->t = cv_ssh_transport_new(&options, &server->out, 0);
    if (!client->t || !server->t)
        return false;
    for (int turn = 0; turn < 12; turn++) {
        carry(client, server, 100);
        carry(server, client, 100);
        if (turn == 6)
            cv_ssh_transport_rekey(client->t);
        (void)cv_ssh_transport_send(client->t, cv_slice(body, 1), cv_slice(body, sizeof body));
        (void)cv_ssh_transport_send(server->t, cv_slice(body, 1), cv_slice(body, sizeof body));
    }
    return client->received > 6 && server->received > 6 && client->end == CV_AGAIN &&
           server->end == CV_AGAIN;
}

static void every_failed_allocation_ends_in_order(void **state)
{
    (void)state;
    struct cv_ssh_host_key *key;
    assert_ok(cv_ssh_host_key_generate(&key));
    bool is_whole = false;
    size_t at = 0;
    while (!is_whole) {
        struct side client = {0}, server = {0};
        cv_test_alloc_fail_at(++at);
        is_whole = whole_session(key, &client, &server);
        bool has_failed = cv_test_alloc_stop();
        if (has_failed && client.t && server.t && !is_whole) {
            bool is_told = client.end == CV_NO_MEMORY || server.end == CV_NO_MEMORY ||
                           client.end == CV_EOF || server.end == CV_EOF;
            if (!is_told)
                fail_msg("allocation %zu: %s, %s", at, cv_status_name(client.end),
                         cv_status_name(server.end));
        }
        if (has_failed)
            is_whole = false;
        cv_ssh_transport_free(&client.t);
        cv_ssh_transport_free(&server.t);
        cv_buf_done(&client.out);
        cv_buf_done(&server.out);
        assert_true(at < 1000);
    }
    assert_true(at > 15);
    cv_ssh_host_key_free(&key);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_failed_allocation_ends_in_order)};
    return cmocka_run_group_tests_name("ssh_transport_alloc", tests, NULL, NULL);
}
