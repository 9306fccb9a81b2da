/* SPDX-License-Identifier: MIT
 *
 * What somebody without keys may say, and what is refused of it: identifications, offers, shares,
 * guesses, orders, packets, floods.
 */
#include "proto/ssh/transport_pair.h"

#include "base/bytes.h"
#include "proto/ssh/numbers.h"
#include "proto/ssh/wire.h"

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
        struct cv_ssh_pair pair;
        cv_ssh_pair_start(&pair);
        struct cv_ssh_side *to = cases[i].is_to_client ? &pair.client : &pair.server;
        cv_ssh_side_feed(to, cases[i].text, strlen(cases[i].text), 1000);
        assert_status(to->status, cases[i].want);
        cv_ssh_pair_done(&pair);
    }
}

static void long_identifications_are_refused(void **state)
{
    (void)state;
    struct cv_ssh_pair pair;
    char line[10000];
    memset(line, 'x', sizeof line);
    memcpy(line, "SSH-2.0-", 8);
    cv_ssh_pair_start(&pair);
    cv_ssh_side_feed(&pair.server, line, sizeof line, 1000);
    assert_status(pair.server.status, CV_SSH_LIMIT);
    cv_ssh_side_feed(&pair.client, line + 8, sizeof line - 8, 1000);
    assert_status(pair.client.status, CV_SSH_LIMIT);
    cv_ssh_pair_done(&pair);
    /* 255 bytes with the line end are allowed. */
    cv_ssh_pair_start(&pair);
    line[253] = '\r';
    line[254] = '\n';
    cv_ssh_side_feed(&pair.server, line, 255, 1000);
    assert_status(pair.server.status, CV_AGAIN);
    assert_int_equal(strlen(cv_ssh_transport_peer_version(pair.server.t)), 253);
    cv_ssh_pair_done(&pair);
}

static void nothing_in_common_is_refused(void **state)
{
    (void)state;
    struct cv_ssh_pair pair;
    cv_ssh_pair_start_with(
        &pair, (struct cv_ssh_transport_options){.ciphers = "aes128-gcm@openssh.com"},
        (struct cv_ssh_transport_options){.ciphers = "chacha20-poly1305@openssh.com"});
    cv_ssh_pair_run(&pair);
    assert_status(pair.client.status, CV_SSH_KEX_FAILED);
    assert_status(pair.server.status, CV_SSH_KEX_FAILED);
    assert_non_null(strstr(cv_ssh_transport_error(pair.server.t), "cipher"));
    cv_ssh_pair_done(&pair);
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
    struct cv_ssh_pair pair;
    cv_ssh_pair_start(&pair);
    cv_ssh_side_feed(&pair.server, script->data, script->len, 1000);
    enum cv_status_id id = pair.server.status.id;
    cv_ssh_pair_done(&pair);
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
    struct cv_ssh_pair pair;
    struct script s;
    script_start(&s);
    for (int i = 0; i < 33; i++)
        script_message(&s, ignore, sizeof ignore);
    assert_int_equal(script_run(&s), CV_SSH_LIMIT);
    cv_ssh_pair_start(&pair);
    cv_ssh_pair_establish(&pair);
    for (int i = 0; i < 2000; i++)
        cv_ssh_transport_unimplemented(pair.client.t);
    cv_ssh_pair_run(&pair);
    assert_status(pair.client.status, CV_SSH_LIMIT);
    assert_true(pair.server.status.id == CV_SSH_LIMIT || pair.server.status.id == CV_EOF);
    cv_ssh_pair_done(&pair);
}

int main(void)
{
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
    };
    return cmocka_run_group_tests_name("ssh_transport_strangers", tests, NULL, NULL);
}
