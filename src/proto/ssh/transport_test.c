/* SPDX-License-Identifier: MIT
 *
 * Two sessions back to back: what the protocol carries, and what it refuses.
 */
#include "proto/ssh/transport.h"

#include "base/bytes.h"
#include "base/test.h"
#include "proto/ssh/numbers.h"
#include "proto/ssh/wire.h"

#include <stdlib.h>

struct side {
    struct cv_buf out;
    struct cv_ssh_transport *t;
    struct cv_status status; /* of the last next() */
    bool is_established;
    bool keeps_waiting; /* leave HOST_KEY unanswered */
    bool refuses_host;
    uint64_t sent, received; /* messages, each with its number in it */
    uint64_t received_bytes;
    uint32_t kex_done;
    uint32_t disconnect_reason;
    char fingerprint[CV_SSH_HOST_KEY_FINGERPRINT_SIZE];
};

struct pair {
    struct cv_ssh_host_key *key;
    struct side client, server;
    size_t step; /* bytes fed at once, 0: all */
    uint64_t now_ms;
};

static void side_start(struct side *side, const struct cv_ssh_transport_options *options)
{
    *side = (struct side){.status = cv_status(CV_AGAIN)};
    cv_buf_init(&side->out, 256 * 1024);
    side->t = cv_ssh_transport_new(options, &side->out, 1000);
    assert_non_null(side->t);
}

static void pair_start_with(struct pair *pair, struct cv_ssh_transport_options client,
                            struct cv_ssh_transport_options server)
{
    *pair = (struct pair){.now_ms = 1000};
    assert_ok(cv_ssh_host_key_generate(&pair->key));
    client.role = CV_SSH_CLIENT;
    server.role = CV_SSH_SERVER;
    server.host_key = pair->key;
    side_start(&pair->client, &client);
    side_start(&pair->server, &server);
}

static void pair_start(struct pair *pair)
{
    pair_start_with(pair, (struct cv_ssh_transport_options){0},
                    (struct cv_ssh_transport_options){0});
}

static void pair_done(struct pair *pair)
{
    cv_ssh_transport_free(&pair->client.t);
    cv_ssh_transport_free(&pair->server.t);
    cv_buf_done(&pair->client.out);
    cv_buf_done(&pair->server.out);
    cv_ssh_host_key_free(&pair->key);
}

/* A message of the connection protocol: number 94, its count, and bytes that follow from it. */
static struct cv_status send_message(struct side *side, size_t len)
{
    uint8_t head[9] = {94}, body[CV_SSH_PAYLOAD_MAX];
    assert_true(len <= sizeof body - 9);
    cv_put_u64(head + 1, side->sent);
    for (size_t i = 0; i < len; i++)
        body[i] = (uint8_t)(side->sent * 7 + i * 13 + (i >> 8));
    struct cv_status status =
        cv_ssh_transport_send(side->t, cv_slice(head, sizeof head), cv_slice(body, len));
    if (cv_is_ok(status))
        side->sent++;
    return status;
}

static void check_message(struct side *side, struct cv_slice payload)
{
    assert_true(payload.len >= 9 && payload.data[0] == 94);
    assert_int_equal(cv_get_u64(payload.data + 1), side->received);
    for (size_t i = 0; i < payload.len - 9; i++) {
        if (payload.data[9 + i] != (uint8_t)(side->received * 7 + i * 13 + (i >> 8)))
            fail_msg("byte %zu of message %zu is wrong", i, (size_t)side->received);
    }
    side->received++;
    side->received_bytes += payload.len;
}

static void on_packet(struct side *side, const struct cv_ssh_packet *packet)
{
    switch (packet->kind) {
    case CV_SSH_PACKET_MESSAGE:
        check_message(side, packet->payload);
        break;
    case CV_SSH_PACKET_HOST_KEY:
        memcpy(side->fingerprint, packet->fingerprint, sizeof side->fingerprint);
        if (!side->keeps_waiting)
            cv_ssh_transport_accept_host_key(side->t, !side->refuses_host);
        break;
    case CV_SSH_PACKET_ESTABLISHED:
        assert_false(side->is_established);
        side->is_established = true;
        break;
    case CV_SSH_PACKET_KEX_DONE:
        side->kex_done++;
        assert_true(cv_ssh_transport_can_send(side->t));
        break;
    case CV_SSH_PACKET_DISCONNECT:
        side->disconnect_reason = packet->reason;
        break;
    }
}

static void drain(struct side *side, uint64_t now_ms)
{
    struct cv_ssh_packet packet;
    while (cv_is_ok(side->status = cv_ssh_transport_next(side->t, now_ms, &packet)))
        on_packet(side, &packet);
}

/* Hands `len` bytes to one side in a block of memory of their own, so that a sanitizer sees every
 * byte read too many. */
static void feed(struct side *side, const void *data, size_t len, uint64_t now_ms)
{
    uint8_t *copy = malloc(len ? len : 1);
    assert_non_null(copy);
    memcpy(copy, data, len);
    if (cv_is_ok(cv_ssh_transport_feed(side->t, copy, len)))
        drain(side, now_ms);
    free(copy);
}

static bool carry(struct pair *pair, struct side *from, struct side *to)
{
    size_t len = cv_buf_len(&from->out);
    if (pair->step && len > pair->step)
        len = pair->step;
    if (len == 0 || (!cv_ssh_transport_wants_input(to->t) && to->status.id == CV_AGAIN))
        return false;
    feed(to, cv_buf_head(&from->out), len, pair->now_ms);
    cv_buf_consume(&from->out, len);
    return true;
}

/* Until neither side has anything to say. */
static void run(struct pair *pair)
{
    bool is_moving = true;
    while (is_moving) {
        is_moving = carry(pair, &pair->client, &pair->server);
        is_moving = carry(pair, &pair->server, &pair->client) || is_moving;
        drain(&pair->client, pair->now_ms);
        drain(&pair->server, pair->now_ms);
    }
}

static void establish(struct pair *pair)
{
    run(pair);
    assert_true(pair->client.is_established);
    assert_true(pair->server.is_established);
}

static void exchange(struct pair *pair, size_t count, size_t len)
{
    for (size_t i = 0; i < count; i++) {
        (void)send_message(&pair->client, (len * (i + 1) * 31) % (len + 1));
        (void)send_message(&pair->server, (len * (i + 2) * 17) % (len + 1));
        run(pair);
    }
    assert_int_equal(pair->client.sent, pair->server.received);
    assert_int_equal(pair->server.sent, pair->client.received);
}

/* ---- what is refused ---- */

static void options_out_of_range_are_refused(void **state)
{
    (void)state;
    struct cv_buf small, out;
    struct cv_ssh_host_key *key;
    assert_ok(cv_ssh_host_key_generate(&key));
    cv_buf_init(&small, CV_SSH_OUT_MIN - 1);
    cv_buf_init(&out, CV_SSH_OUT_MIN);
    struct cv_ssh_transport_options o = {.role = CV_SSH_SERVER, .host_key = key};
    assert_null(cv_ssh_transport_new(&o, &small, 0));
    o.ciphers = "aes256-cbc";
    assert_null(cv_ssh_transport_new(&o, &out, 0));
    o.ciphers = "";
    assert_null(cv_ssh_transport_new(&o, &out, 0));
    o = (struct cv_ssh_transport_options){.role = CV_SSH_SERVER};
    assert_null(cv_ssh_transport_new(&o, &out, 0));
    o = (struct cv_ssh_transport_options){.role = CV_SSH_CLIENT, .rekey_bytes = 1};
    assert_null(cv_ssh_transport_new(&o, &out, 0));
    cv_buf_done(&out);
    cv_ssh_host_key_free(&key);
}

static void bad_identifications_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool is_to_client;
        enum cv_status_id want;
    } cases[] = {{"GET / HTTP/1.1\r\n", false, CV_SSH_PROTOCOL},
                 {"G", false, CV_SSH_PROTOCOL},
                 {"\n", false, CV_SSH_PROTOCOL},
                 {"SSH-1.5-x\r\n", false, CV_SSH_PROTOCOL},
                 {"SSH-1.99-x\r\n", false, CV_SSH_PROTOCOL},
                 {"SSH-2.0-\r\n", false, CV_SSH_PROTOCOL},
                 {"welcome\r\nSSH-2.0-x\r\n", false, CV_SSH_PROTOCOL},
                 {"SSH-1.5-x\r\n", true, CV_SSH_PROTOCOL},
                 {"SSH-2.0-x\r\n", false, CV_AGAIN},
                 {"SSH-2.0-x\n", false, CV_AGAIN},
                 {"welcome\r\n\r\nSSH-2.0-x y z\r\n", true, CV_AGAIN},
                 {"SSH-1.99-x\r\n", true, CV_AGAIN}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct pair pair;
        pair_start(&pair);
        struct side *to = cases[i].is_to_client ? &pair.client : &pair.server;
        feed(to, cases[i].text, strlen(cases[i].text), 1000);
        assert_status(to->status, cases[i].want);
        pair_done(&pair);
    }
}

static void long_identifications_are_refused(void **state)
{
    (void)state;
    struct pair pair;
    char line[10000];
    memset(line, 'x', sizeof line);
    memcpy(line, "SSH-2.0-", 8);
    pair_start(&pair);
    feed(&pair.server, line, sizeof line, 1000);
    assert_status(pair.server.status, CV_SSH_LIMIT);
    feed(&pair.client, line + 8, sizeof line - 8, 1000);
    assert_status(pair.client.status, CV_SSH_LIMIT);
    pair_done(&pair);
    /* 255 bytes with the line end are allowed. */
    pair_start(&pair);
    line[253] = '\r';
    line[254] = '\n';
    feed(&pair.server, line, 255, 1000);
    assert_status(pair.server.status, CV_AGAIN);
    assert_int_equal(strlen(cv_ssh_transport_peer_version(pair.server.t)), 253);
    pair_done(&pair);
}

static void nothing_in_common_is_refused(void **state)
{
    (void)state;
    struct pair pair;
    pair_start_with(&pair, (struct cv_ssh_transport_options){.ciphers = "aes128-gcm@openssh.com"},
                    (struct cv_ssh_transport_options){.ciphers = "chacha20-poly1305@openssh.com"});
    run(&pair);
    assert_status(pair.client.status, CV_SSH_KEX_FAILED);
    assert_status(pair.server.status, CV_SSH_KEX_FAILED);
    assert_non_null(strstr(cv_ssh_transport_error(pair.server.t), "cipher"));
    pair_done(&pair);
}

/* Plain packets, as somebody without keys can make them. */
static size_t plain_packet(uint8_t *out, struct cv_slice payload)
{
    size_t padding = 8 - (5 + payload.len) % 8;
    if (padding < 4)
        padding += 8;
    cv_put_u32(out, (uint32_t)(1 + payload.len + padding));
    out[4] = (uint8_t)padding;
    if (payload.len)
        memcpy(out + 5, payload.data, payload.len);
    memset(out + 5 + payload.len, 0, padding);
    return 5 + payload.len + padding;
}

static size_t kexinit(uint8_t *out, const char *kex, const char *host_key, bool has_guess)
{
    uint8_t payload[1024];
    static const uint8_t cookie[16];
    struct cv_ssh_writer w = cv_ssh_writer(payload, sizeof payload);
    cv_ssh_write_u8(&w, CV_SSH_MSG_KEXINIT);
    cv_ssh_write_bytes(&w, cv_slice(cookie, sizeof cookie));
    cv_ssh_write_str(&w, kex);
    cv_ssh_write_str(&w, host_key);
    cv_ssh_write_str(&w, "aes256-gcm@openssh.com");
    cv_ssh_write_str(&w, "aes256-gcm@openssh.com");
    cv_ssh_write_str(&w, "");
    cv_ssh_write_str(&w, "");
    cv_ssh_write_str(&w, "none");
    cv_ssh_write_str(&w, "none");
    cv_ssh_write_str(&w, "");
    cv_ssh_write_str(&w, "");
    cv_ssh_write_bool(&w, has_guess);
    cv_ssh_write_u32(&w, 0);
    assert_false(w.is_failed);
    return plain_packet(out, cv_ssh_written(&w));
}

struct script {
    uint8_t data[8192];
    size_t len;
};

static void script_start(struct script *script)
{
    static const char version[] = "SSH-2.0-x\r\n";
    memcpy(script->data, version, sizeof version - 1);
    script->len = sizeof version - 1;
}

static void script_message(struct script *script, const void *payload, size_t len)
{
    script->len += plain_packet(script->data + script->len, cv_slice(payload, len));
}

static void script_kexinit(struct script *script, const char *kex, const char *host_key,
                           bool has_guess)
{
    script->len += kexinit(script->data + script->len, kex, host_key, has_guess);
}

static void script_share(struct script *script, uint8_t fill, size_t len)
{
    uint8_t payload[64];
    uint8_t share[40];
    memset(share, fill, sizeof share);
    struct cv_ssh_writer w = cv_ssh_writer(payload, sizeof payload);
    cv_ssh_write_u8(&w, CV_SSH_MSG_KEX_ECDH_INIT);
    cv_ssh_write_string(&w, cv_slice(share, len));
    script_message(script, payload, w.len);
}

/* Says it to a server and gives the status and, where there is one, the reason it answers. */
static enum cv_status_id script_run(const struct script *script)
{
    struct pair pair;
    pair_start(&pair);
    feed(&pair.server, script->data, script->len, 1000);
    enum cv_status_id id = pair.server.status.id;
    pair_done(&pair);
    return id;
}

#define CURVE "curve25519-sha256"
#define STRICT CURVE ",kex-strict-c-v00@openssh.com"

static void a_first_key_exchange_takes_only_its_messages(void **state)
{
    (void)state;
    static const uint8_t ignore[] = {CV_SSH_MSG_IGNORE, 0, 0, 0, 0};
    static const uint8_t service[] = {CV_SSH_MSG_SERVICE_REQUEST, 0, 0, 0, 0};
    static const uint8_t channel[] = {90, 0, 0, 0, 0};
    static const uint8_t newkeys[] = {CV_SSH_MSG_NEWKEYS};
    static const uint8_t reply[] = {CV_SSH_MSG_KEX_ECDH_REPLY};
    struct script s;
    /* Nothing wrong. */
    script_start(&s), script_kexinit(&s, STRICT, "ssh-ed25519", false);
    assert_int_equal(script_run(&s), CV_AGAIN);
    script_share(&s, 9, 32);
    assert_int_equal(script_run(&s), CV_AGAIN);
    /* IGNORE before or in a strict exchange is refused, and only in a strict one. */
    script_start(&s), script_message(&s, ignore, sizeof ignore);
    script_kexinit(&s, STRICT, "ssh-ed25519", false);
    assert_int_equal(script_run(&s), CV_SSH_PROTOCOL);
    script_start(&s), script_kexinit(&s, STRICT, "ssh-ed25519", false);
    script_message(&s, ignore, sizeof ignore);
    assert_int_equal(script_run(&s), CV_SSH_PROTOCOL);
    script_start(&s), script_message(&s, ignore, sizeof ignore);
    script_kexinit(&s, CURVE, "ssh-ed25519", false), script_message(&s, ignore, sizeof ignore);
    assert_int_equal(script_run(&s), CV_AGAIN);
    /* Twice. */
    script_start(&s), script_kexinit(&s, CURVE, "ssh-ed25519", false);
    script_kexinit(&s, CURVE, "ssh-ed25519", false);
    assert_int_equal(script_run(&s), CV_SSH_PROTOCOL);
    /* Out of order. */
    const struct {
        const uint8_t *data;
        size_t len;
    } wrong[] = {{service, sizeof service},
                 {channel, sizeof channel},
                 {newkeys, sizeof newkeys},
                 {reply, sizeof reply}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        script_start(&s), script_message(&s, wrong[i].data, wrong[i].len);
        assert_int_equal(script_run(&s), CV_SSH_PROTOCOL);
        script_start(&s), script_kexinit(&s, CURVE, "ssh-ed25519", false);
        script_message(&s, wrong[i].data, wrong[i].len);
        assert_int_equal(script_run(&s), CV_SSH_PROTOCOL);
    }
    script_start(&s), script_share(&s, 9, 32);
    assert_int_equal(script_run(&s), CV_SSH_PROTOCOL);
}

static void bad_shares_and_offers_are_refused(void **state)
{
    (void)state;
    struct script s;
    /* Low order: all zero, and the point 1. */
    script_start(&s), script_kexinit(&s, STRICT, "ssh-ed25519", false), script_share(&s, 0, 32);
    assert_int_equal(script_run(&s), CV_SSH_KEX_FAILED);
    script_start(&s), script_kexinit(&s, STRICT, "ssh-ed25519", false), script_share(&s, 9, 31);
    assert_int_equal(script_run(&s), CV_SSH_KEX_FAILED);
    script_start(&s), script_kexinit(&s, STRICT, "ssh-ed25519", false), script_share(&s, 9, 33);
    assert_int_equal(script_run(&s), CV_SSH_KEX_FAILED);
    script_start(&s), script_kexinit(&s, "diffie-hellman-group1-sha1", "ssh-ed25519", false);
    assert_int_equal(script_run(&s), CV_SSH_KEX_FAILED);
    script_start(&s), script_kexinit(&s, CURVE, "ssh-rsa", false);
    assert_int_equal(script_run(&s), CV_SSH_KEX_FAILED);
    script_start(&s), script_kexinit(&s, "kex-strict-s-v00@openssh.com", "ssh-ed25519", false);
    assert_int_equal(script_run(&s), CV_SSH_KEX_FAILED);
    script_start(&s), script_kexinit(&s, "", "ssh-ed25519", false);
    assert_int_equal(script_run(&s), CV_SSH_KEX_FAILED);
    /* Malformed at every length. */
    script_start(&s);
    size_t start = s.len;
    script_kexinit(&s, CURVE, "ssh-ed25519", false);
    uint8_t payload[1024];
    size_t len = cv_get_u32(s.data + start) - 1 - s.data[start + 4];
    memcpy(payload, s.data + start + 5, len);
    for (size_t cut = 1; cut < len; cut++) {
        script_start(&s), script_message(&s, payload, cut);
        assert_int_equal(script_run(&s), CV_SSH_PROTOCOL);
    }
}

static void a_wrong_guess_is_skipped_and_a_right_one_taken(void **state)
{
    (void)state;
    static const uint8_t other[] = {CV_SSH_MSG_KEX_ECDH_INIT, 1, 2, 3};
    struct script s;
    /* Prefers what we do not have first: its guess is dropped, the right share follows. */
    script_start(&s),
        script_kexinit(&s, "sntrup761x25519-sha512@openssh.com," STRICT, "ssh-ed25519", true);
    script_message(&s, other, sizeof other), script_share(&s, 9, 32);
    assert_int_equal(script_run(&s), CV_AGAIN);
    script_start(&s), script_kexinit(&s, STRICT, "ecdsa-sha2-nistp256,ssh-ed25519", true);
    script_message(&s, other, sizeof other), script_share(&s, 9, 32);
    assert_int_equal(script_run(&s), CV_AGAIN);
    /* A right guess is the message itself: the next one is out of order. */
    script_start(&s), script_kexinit(&s, STRICT, "ssh-ed25519", true), script_share(&s, 9, 32);
    assert_int_equal(script_run(&s), CV_AGAIN);
    script_share(&s, 9, 32);
    /* The second one is read as sealed bytes by now. */
    assert_true(script_run(&s) == CV_SSH_PROTOCOL || script_run(&s) == CV_SSH_MAC);
    script_start(&s), script_kexinit(&s, STRICT, "ssh-ed25519", true);
    script_message(&s, other, sizeof other);
    assert_int_equal(script_run(&s), CV_SSH_PROTOCOL);
}

static void bad_clear_packets_are_refused(void **state)
{
    (void)state;
    static const uint32_t lengths[] = {0, 1, 4, 8, 11, 13, 35001, 0x7fffffff, 0xffffffff};
    struct script s;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        script_start(&s);
        cv_put_u32(s.data + s.len, lengths[i]);
        s.len += 4;
        assert_int_equal(script_run(&s), CV_SSH_PROTOCOL);
    }
    static const uint8_t paddings[] = {0, 3, 11, 12, 255};
    for (size_t i = 0; i < sizeof paddings / sizeof *paddings; i++) {
        script_start(&s);
        memset(s.data + s.len, 0, 16);
        cv_put_u32(s.data + s.len, 12);
        s.data[s.len + 4] = paddings[i];
        s.data[s.len + 5] = CV_SSH_MSG_IGNORE;
        s.len += 16;
        assert_int_equal(script_run(&s), CV_SSH_PROTOCOL);
    }
}

static void floods_without_content_are_stopped(void **state)
{
    (void)state;
    static const uint8_t ignore[] = {CV_SSH_MSG_IGNORE, 0, 0, 0, 0};
    struct pair pair;
    struct script s;
    script_start(&s);
    for (int i = 0; i < 33; i++)
        script_message(&s, ignore, sizeof ignore);
    assert_int_equal(script_run(&s), CV_SSH_LIMIT);
    pair_start(&pair);
    establish(&pair);
    for (int i = 0; i < 2000; i++)
        cv_ssh_transport_unimplemented(pair.client.t);
    run(&pair);
    assert_status(pair.client.status, CV_SSH_LIMIT);
    assert_true(pair.server.status.id == CV_SSH_LIMIT || pair.server.status.id == CV_EOF);
    pair_done(&pair);
}

static void every_tampered_byte_is_noticed(void **state)
{
    const char *cipher = *state;
    for (size_t at = 0;; at++) {
        struct pair pair;
        struct cv_ssh_transport_options o = {.ciphers = cipher};
        pair_start_with(&pair, o, o);
        establish(&pair);
        assert_ok(send_message(&pair.client, 40));
        /* Enough behind it for a length that was made longer. */
        for (int i = 0; i < 3; i++)
            assert_ok(send_message(&pair.client, 30000));
        size_t first = 4 + (*cipher == 'c' ? 56 : 64) + 16;
        if (at == first) {
            pair_done(&pair);
            break;
        }
        cv_buf_head(&pair.client.out)[at] ^= (uint8_t)(1U << at % 8);
        run(&pair);
        assert_int_equal(pair.server.received, 0);
        /* A changed length may also wait for bytes that never come. */
        assert_true(pair.server.status.id == CV_SSH_MAC ||
                    pair.server.status.id == CV_SSH_PROTOCOL);
        assert_true(pair.client.disconnect_reason == CV_SSH_DISCONNECT_MAC_ERROR ||
                    pair.client.disconnect_reason == CV_SSH_DISCONNECT_PROTOCOL_ERROR);
        pair_done(&pair);
    }
}

static void a_refused_host_key_ends_it(void **state)
{
    (void)state;
    struct pair pair;
    pair_start(&pair);
    pair.client.refuses_host = true;
    run(&pair);
    assert_status(pair.client.status, CV_HOST_KEY);
    assert_int_equal(pair.server.disconnect_reason, CV_SSH_DISCONNECT_HOST_KEY_NOT_VERIFIABLE);
    assert_false(pair.server.is_established);
    pair_done(&pair);
}

static void an_unanswered_host_key_waits_and_times_out(void **state)
{
    (void)state;
    struct pair pair;
    pair_start(&pair);
    pair.client.keeps_waiting = true;
    run(&pair);
    assert_status(pair.client.status, CV_AGAIN);
    assert_false(cv_ssh_transport_wants_input(pair.client.t));
    assert_int_equal(cv_ssh_transport_deadline(pair.client.t), 31000);
    cv_ssh_transport_tick(pair.client.t, 30999);
    drain(&pair.client, 30999);
    assert_status(pair.client.status, CV_AGAIN);
    /* No network for five seconds: the deadline moves. */
    cv_ssh_transport_pause(pair.client.t, 30999);
    assert_int_equal(cv_ssh_transport_deadline(pair.client.t), UINT64_MAX);
    cv_ssh_transport_tick(pair.client.t, 35000);
    cv_ssh_transport_resume(pair.client.t, 35999);
    cv_ssh_transport_tick(pair.client.t, 35999);
    drain(&pair.client, 35999);
    assert_status(pair.client.status, CV_AGAIN);
    cv_ssh_transport_tick(pair.client.t, 36000);
    drain(&pair.client, 36000);
    assert_status(pair.client.status, CV_CONN_TIMEOUT);
    pair_done(&pair);
}

static void a_full_out_stops_the_input_until_it_is_drained(void **state)
{
    (void)state;
    struct pair pair;
    pair_start(&pair);
    establish(&pair);
    size_t room;
    while ((room = cv_ssh_transport_room(pair.server.t)) > 20)
        assert_ok(send_message(&pair.server, room - 9));
    /* Bulk stops, small messages still go, down to the last reserve. */
    while (cv_is_ok(send_message(&pair.server, 20)))
        ;
    assert_true(cv_buf_room(&pair.server.out) >= CV_SSH_RESERVE_OWN);
    assert_ok(send_message(&pair.client, 100));
    feed(&pair.server, cv_buf_head(&pair.client.out), cv_buf_len(&pair.client.out), 1000);
    cv_buf_consume(&pair.client.out, cv_buf_len(&pair.client.out));
    assert_int_equal(pair.server.received, 0);
    assert_false(cv_ssh_transport_wants_input(pair.server.t));
    run(&pair);
    assert_int_equal(pair.server.received, 1);
    assert_int_equal(pair.client.received, pair.server.sent);
    pair_done(&pair);
}

/* ---- what is carried ---- */

static void every_cipher_carries_data(void **state)
{
    (void)state;
    static const char *const ciphers[] = {"aes256-gcm@openssh.com", "aes128-gcm@openssh.com",
                                          "chacha20-poly1305@openssh.com"};
    for (size_t i = 0; i < sizeof ciphers / sizeof *ciphers; i++) {
        for (int variant = 0; variant < 8; variant++) {
            struct pair pair;
            struct cv_ssh_transport_options client = {
                .ciphers = ciphers[i], .has_compression = variant & 1, .has_guess = variant & 2};
            pair_start_with(&pair, client,
                            (struct cv_ssh_transport_options){.has_compression = true});
            pair.step = variant & 4 ? 1 : 0;
            establish(&pair);
            assert_string_equal(cv_ssh_transport_cipher(pair.server.t), ciphers[i]);
            pair.step = variant & 4 ? 997 : 0;
            exchange(&pair, 40, 32768);
            uint8_t a[32], b[32], c[32];
            assert_true(cv_ssh_transport_derive(pair.client.t, "x", a));
            cv_ssh_transport_rekey(pair.client.t);
            assert_false(cv_ssh_transport_can_send(pair.client.t));
            run(&pair);
            exchange(&pair, 4, 1000);
            assert_int_equal(pair.client.kex_done, 1);
            assert_int_equal(cv_ssh_transport_kex_count(pair.server.t), 2);
            assert_true(cv_ssh_transport_derive(pair.server.t, "x", b));
            assert_true(cv_ssh_transport_derive(pair.server.t, "y", c));
            assert_memory_equal(a, b, sizeof a);
            assert_memory_not_equal(a, c, sizeof a);
            char want[CV_SSH_HOST_KEY_FINGERPRINT_SIZE];
            cv_ssh_host_key_fingerprint(cv_ssh_host_key_blob(pair.key), want);
            assert_string_equal(pair.client.fingerprint, want);
            pair_done(&pair);
        }
    }
}

static void keys_change_under_load_from_both_sides(void **state)
{
    (void)state;
    for (int variant = 0; variant < 4; variant++) {
        struct pair pair;
        struct cv_ssh_transport_options often = {.rekey_bytes = 16384,
                                                 .has_compression = variant & 1};
        struct cv_ssh_transport_options seldom = {.has_compression = variant & 1};
        pair_start_with(&pair, often, variant & 2 ? often : seldom);
        establish(&pair);
        pair.step = 5000;
        unsigned seed = 1;
        for (int i = 0; i < 4000; i++) {
            seed = seed * 1103515245 + 12345;
            struct side *side = seed & 0x10000 ? &pair.client : &pair.server;
            size_t len = (seed >> 8) % 4000;
            if (len < cv_ssh_transport_room(side->t))
                assert_ok(send_message(side, len));
            if (seed & 0x20000)
                (void)carry(&pair, &pair.client, &pair.server);
            if (seed & 0x40000)
                (void)carry(&pair, &pair.server, &pair.client);
            assert_status(pair.client.status, CV_AGAIN);
            assert_status(pair.server.status, CV_AGAIN);
        }
        run(&pair);
        assert_int_equal(pair.client.sent, pair.server.received);
        assert_int_equal(pair.server.sent, pair.client.received);
        assert_true(pair.client.sent > 100);
        assert_in_range(pair.client.kex_done, variant & 1 ? 3 : 20, 1000);
        assert_int_equal(cv_ssh_transport_kex_count(pair.client.t),
                         cv_ssh_transport_kex_count(pair.server.t));
        pair_done(&pair);
    }
}

static void crossing_key_exchanges_are_one(void **state)
{
    (void)state;
    struct pair pair;
    pair_start(&pair);
    establish(&pair);
    assert_ok(send_message(&pair.client, 100));
    assert_ok(send_message(&pair.server, 100));
    cv_ssh_transport_rekey(pair.client.t);
    cv_ssh_transport_rekey(pair.server.t);
    run(&pair);
    assert_int_equal(cv_ssh_transport_kex_count(pair.client.t), 2);
    assert_int_equal(cv_ssh_transport_kex_count(pair.server.t), 2);
    exchange(&pair, 4, 1000);
    pair_done(&pair);
}

static void keys_change_by_age_and_a_silent_peer_is_dropped(void **state)
{
    (void)state;
    struct pair pair;
    pair_start(&pair);
    establish(&pair);
    pair.now_ms = cv_ssh_transport_deadline(pair.client.t);
    assert_int_equal(pair.now_ms, 1000 + 3600000);
    cv_ssh_transport_tick(pair.client.t, pair.now_ms);
    run(&pair);
    assert_int_equal(pair.client.kex_done, 1);
    cv_ssh_transport_rekey(pair.client.t);
    cv_ssh_transport_tick(pair.client.t, pair.now_ms);
    assert_int_equal(cv_ssh_transport_deadline(pair.client.t), pair.now_ms + 30000);
    cv_ssh_transport_tick(pair.client.t, pair.now_ms + 30000);
    drain(&pair.client, pair.now_ms + 30000);
    assert_status(pair.client.status, CV_CONN_TIMEOUT);
    pair_done(&pair);
}

static void key_exchanges_without_data_are_limited(void **state)
{
    (void)state;
    struct pair pair;
    pair_start(&pair);
    establish(&pair);
    int count = 0;
    while (pair.server.status.id == CV_AGAIN && count < 100) {
        cv_ssh_transport_rekey(pair.client.t);
        run(&pair);
        count++;
    }
    assert_status(pair.server.status, CV_SSH_LIMIT);
    assert_in_range(count, 15, 20);
    pair_done(&pair);
}

static void a_disconnect_is_told(void **state)
{
    (void)state;
    struct pair pair;
    pair_start(&pair);
    establish(&pair);
    cv_ssh_transport_disconnect(pair.server.t, CV_SSH_DISCONNECT_BY_APPLICATION, "bye");
    run(&pair);
    assert_int_equal(pair.client.disconnect_reason, CV_SSH_DISCONNECT_BY_APPLICATION);
    assert_status(pair.client.status, CV_EOF);
    assert_status(pair.server.status, CV_EOF);
    assert_status(send_message(&pair.client, 1), CV_AGAIN);
    pair_done(&pair);
}

int main(void)
{
    static char gcm[] = "aes256-gcm@openssh.com", chacha[] = "chacha20-poly1305@openssh.com";
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_out_of_range_are_refused),
        cmocka_unit_test(bad_identifications_are_refused),
        cmocka_unit_test(long_identifications_are_refused),
        cmocka_unit_test(nothing_in_common_is_refused),
        cmocka_unit_test(a_first_key_exchange_takes_only_its_messages),
        cmocka_unit_test(bad_shares_and_offers_are_refused),
        cmocka_unit_test(a_wrong_guess_is_skipped_and_a_right_one_taken),
        cmocka_unit_test(bad_clear_packets_are_refused),
        cmocka_unit_test(floods_without_content_are_stopped),
        cmocka_unit_test_prestate(every_tampered_byte_is_noticed, gcm),
        cmocka_unit_test_prestate(every_tampered_byte_is_noticed, chacha),
        cmocka_unit_test(a_refused_host_key_ends_it),
        cmocka_unit_test(an_unanswered_host_key_waits_and_times_out),
        cmocka_unit_test(a_full_out_stops_the_input_until_it_is_drained),
        cmocka_unit_test(every_cipher_carries_data),
        cmocka_unit_test(keys_change_under_load_from_both_sides),
        cmocka_unit_test(crossing_key_exchanges_are_one),
        cmocka_unit_test(keys_change_by_age_and_a_silent_peer_is_dropped),
        cmocka_unit_test(key_exchanges_without_data_are_limited),
        cmocka_unit_test(a_disconnect_is_told),
    };
    return cmocka_run_group_tests_name("ssh_transport", tests, NULL, NULL);
}
