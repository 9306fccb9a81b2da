/* SPDX-License-Identifier: MIT
 *
 * The session: its options, its input, its clock. See transport_private.h for its states.
 *
 * Happy path: fed bytes are decrypted where they lie, one packet per turn of next(); messages of
 * the lower protocols are dealt with here, those of the connection protocol are handed up. Failing:
 * any fault on the wire ends the session through cv_ssh_transport_fail. A full `out` only stops the
 * input.
 */
#include "proto/ssh/transport_private.h"

#include <stdio.h>
#include <stdlib.h>

static const char *const phase_names[] = {"ident", "kex", "auth", "open", "closed"};
#define END "disconnected, rules broken, or time over"
static const struct cv_fsm_step phase_steps[] = {
    {PHASE_IDENT, PHASE_KEX, "the peer's identification"},
    {PHASE_IDENT, PHASE_CLOSED, END},
    {PHASE_KEX, PHASE_AUTH, "the first keys"},
    {PHASE_KEX, PHASE_CLOSED, END},
    {PHASE_AUTH, PHASE_OPEN, "user authentication done"},
    {PHASE_AUTH, PHASE_CLOSED, END},
    {PHASE_OPEN, PHASE_CLOSED, END},
};
#undef END
const struct cv_fsm_def cv_ssh_phases = {
    .name = "ssh transport", .states = phase_names, .count = 5, CV_FSM_STEPS(phase_steps)};

static const char *const stage_names[] = {"idle", "init", "shares", "host key", "newkeys"};
static const struct cv_fsm_step stage_steps[] = {
    {STAGE_IDLE, STAGE_INIT, "KEXINIT sent or received"},
    {STAGE_INIT, STAGE_SHARES, "both KEXINIT are there"},
    {STAGE_SHARES, STAGE_HOST_KEY, "client: the server's share, and its host key to judge"},
    {STAGE_SHARES, STAGE_NEWKEYS, "server: the client's share"},
    {STAGE_HOST_KEY, STAGE_NEWKEYS, "the host key is the right one"},
    {STAGE_NEWKEYS, STAGE_IDLE, "NEWKEYS both ways"},
};
const struct cv_fsm_def cv_ssh_stages = {
    .name = "ssh key exchange", .states = stage_names, .count = 5, CV_FSM_STEPS(stage_steps)};

static uint64_t or_default(uint64_t value, uint64_t otherwise)
{
    return value ? value : otherwise;
}

static bool take_options(struct cv_ssh_transport *t, const struct cv_ssh_transport_options *o)
{
    enum { REKEY_BYTES_MIN = 4096, HOUR_MS = 3600000, HANDSHAKE_MS = 30000, AUTH_TRIES = 6 };
    struct cv_slice ciphers = cv_slice_str(o->ciphers ? o->ciphers : CV_SSH_CIPHERS), name;
    if (!cv_slice_to_str(ciphers, t->ciphers, sizeof t->ciphers) || ciphers.len == 0 ||
        !cv_slice_to_str(cv_slice_str(o->user ? o->user : "culvert"), t->user, sizeof t->user))
        return false;
    while (cv_ssh_name_list_next(&ciphers, &name)) {
        if (!cv_ssh_cipher_find(name))
            return false;
    }
    t->is_client = o->role == CV_SSH_CLIENT;
    t->host_key = o->host_key;
    t->has_compression = o->has_compression;
    t->has_guess = o->has_guess && t->is_client;
    t->rekey_bytes = or_default(o->rekey_bytes, 1ULL << 30);
    t->rekey_ms = or_default(o->rekey_ms, HOUR_MS);
    t->handshake_ms = (uint32_t)or_default(o->handshake_ms, HANDSHAKE_MS);
    t->auth_tries_max = (uint32_t)or_default(o->auth_tries_max, AUTH_TRIES);
    return t->rekey_bytes >= REKEY_BYTES_MIN && (t->is_client || t->host_key);
}

static bool start(struct cv_ssh_transport *t)
{
    (void)snprintf(t->own_version, sizeof t->own_version, "SSH-2.0-culvert_%s", CV_VERSION);
    return cv_is_ok(cv_buf_printf(t->out, "%s\r\n", t->own_version)) &&
           cv_is_ok(cv_ssh_transport_kex_start(t));
}

struct cv_ssh_transport *cv_ssh_transport_new(const struct cv_ssh_transport_options *options,
                                              struct cv_buf *out, uint64_t now_ms)
{
    if (out->cap < CV_SSH_OUT_MIN)
        return NULL;
    struct cv_ssh_transport *t = calloc(1, sizeof *t);
    if (!t)
        return NULL;
    t->out = out;
    t->now_ms = now_ms;
    t->idle_kex_ms = now_ms;
    t->noise_ms = now_ms;
    t->phase = (struct cv_fsm){.def = &cv_ssh_phases, .state = PHASE_IDENT};
    t->stage = (struct cv_fsm){.def = &cv_ssh_stages, .state = STAGE_IDLE};
    t->padding_used = sizeof t->padding;
    cv_buf_init(&t->in, CV_SSH_FEED_MAX + PACKET_ALL);
    cv_ssh_cipher_init_clear(&t->send.cipher);
    cv_ssh_cipher_init_clear(&t->recv.cipher);
    cv_ssh_cipher_init_clear(&t->recv_next);
    if (!take_options(t, options) || !start(t)) {
        cv_ssh_transport_free(&t);
        return NULL;
    }
    t->handshake_due_ms = now_ms + t->handshake_ms;
    t->kex_due_ms = UINT64_MAX;
    return t;
}

void cv_ssh_transport_free(struct cv_ssh_transport **transport)
{
    if (!transport || !*transport)
        return;
    struct cv_ssh_transport *t = *transport;
    if (t->kex)
        cv_ssh_kex_done(t->kex);
    free(t->kex);
    cv_ssh_cipher_done(&t->send.cipher);
    cv_ssh_cipher_done(&t->recv.cipher);
    cv_ssh_cipher_done(&t->recv_next);
    cv_ssh_zlib_free(&t->send.zlib);
    cv_ssh_zlib_free(&t->recv.zlib);
    cv_buf_wipe(&t->in);
    if (t->inflated)
        cv_wipe(t->inflated, CV_SSH_PACKET_MAX);
    if (t->plain)
        cv_wipe(t->plain, CV_SSH_PAYLOAD_MAX);
    free(t->inflated);
    free(t->plain);
    cv_wipe(t, sizeof *t);
    free(t);
    *transport = NULL;
}

/* ---- input ---- */

/* The answer to any packet has to fit before one is taken. */
static bool is_blocked(const struct cv_ssh_transport *t)
{
    return cv_ssh_transport_is_at(t, STAGE_HOST_KEY) ||
           cv_buf_room(t->out) < CV_SSH_RESERVE_OWN + REPLY_ROOM;
}

bool cv_ssh_transport_wants_input(const struct cv_ssh_transport *t)
{
    return !cv_ssh_transport_is(t, PHASE_CLOSED) && !is_blocked(t) &&
           cv_buf_len(&t->in) <= PACKET_ALL;
}

struct cv_status cv_ssh_transport_feed(struct cv_ssh_transport *t, uint8_t *data, size_t len)
{
    if (cv_ssh_transport_is(t, PHASE_CLOSED))
        return cv_status(t->end);
    if (len > CV_SSH_FEED_MAX || t->fed_len || len > cv_buf_room(&t->in))
        return cv_ssh_transport_fail(t, CV_SSH_LIMIT, "more input than can be held");
    t->fed = data;
    t->fed_len = len;
    return cv_ok();
}

/* Drops `len` bytes from the front of the input; peek has shown that they are there. */
static void take(struct cv_ssh_transport *t, size_t len)
{
    if (cv_buf_len(&t->in)) {
        cv_buf_consume(&t->in, len);
    } else if (len > 0) { /* fed may be NULL otherwise */
        t->fed += len;
        t->fed_len -= len;
    }
}

/* The first `len` bytes of the input in one piece: in what was fed if nothing is left over from
 * earlier, else completed behind that. CV_AGAIN when they are not all there. */
static struct cv_status peek(struct cv_ssh_transport *t, size_t len, uint8_t **data)
{
    size_t held = cv_buf_len(&t->in);
    *data = NULL;
    if (held == 0) {
        *data = t->fed;
        return t->fed_len >= len ? cv_ok() : cv_status(CV_AGAIN);
    }
    t->was_in_used = true;
    if (held < len && t->fed_len > 0) {
        size_t missing = len - held;
        if (missing > t->fed_len)
            missing = t->fed_len;
        CV_RETURN_IF_ERROR(cv_buf_append(&t->in, t->fed, missing));
        t->fed += missing;
        t->fed_len -= missing;
    }
    *data = cv_buf_head(&t->in);
    return cv_buf_len(&t->in) >= len ? cv_ok() : cv_status(CV_AGAIN);
}

/* Before CV_AGAIN: what is borrowed is given back, its rest is kept here. */
static struct cv_status keep_rest(struct cv_ssh_transport *t)
{
    struct cv_status status = cv_buf_append(&t->in, t->fed, t->fed_len);
    t->fed = NULL;
    t->fed_len = 0;
    if (!cv_is_ok(status))
        return cv_ssh_transport_fail(t, status.id, "no memory for input");
    /* An idle session holds no buffer. */
    if (!t->was_in_used)
        cv_buf_shrink(&t->in, 0);
    t->was_in_used = false;
    return cv_status(CV_AGAIN);
}

static struct cv_status ident(struct cv_ssh_transport *t)
{
    for (;;) {
        uint8_t *byte;
        CV_RETURN_IF_ERROR(peek(t, 1, &byte));
        struct cv_status status = cv_ssh_transport_ident(t, *byte);
        take(t, 1);
        if (cv_is_ok(status))
            cv_fsm_set(&t->phase, PHASE_KEX);
        if (status.id != CV_AGAIN)
            return status;
    }
}

/* One whole packet, opened; *payload lies in the input or in t->inflated. */
static struct cv_status read_packet(struct cv_ssh_transport *t, struct cv_slice *payload)
{
    struct cv_ssh_direction *d = &t->recv;
    const struct cv_ssh_cipher_def *def = d->cipher.def;
    uint8_t *packet;
    if (t->packet_length == 0) {
        CV_RETURN_IF_ERROR(peek(t, 4, &packet));
        uint32_t len;
        CV_RETURN_IF_ERROR(cv_ssh_cipher_length(&d->cipher, d->sequence, packet, &len));
        /* Not authenticated yet: a wrong length looks like tampering and is (RFC 4253 §6.1). */
        if (!cv_ssh_cipher_is_length(def, len, CV_SSH_PACKET_MAX))
            return cv_ssh_transport_fail(t, CV_SSH_PROTOCOL, "bad packet length");
        t->packet_length = len;
    }
    size_t len = t->packet_length, total = 4 + len + def->tag_len;
    CV_RETURN_IF_ERROR(peek(t, total, &packet));
    struct cv_status status = cv_ssh_cipher_open(&d->cipher, d->sequence, packet, len);
    if (!cv_is_ok(status))
        return cv_ssh_transport_fail(t, status.id, "a packet failed its integrity check");
    size_t padding = packet[4];
    if (padding < 4 || padding + 2 > len)
        return cv_ssh_transport_fail(t, CV_SSH_PROTOCOL, "bad padding");
    *payload = cv_slice(packet + 5, len - 1 - padding);
    t->packet_length = 0;
    t->taken_len = total;
    t->packet_sequence = d->sequence++;
    d->packets++;
    d->bytes += total;
    if (!d->zlib)
        return cv_ok();
    size_t inflated_len;
    status = cv_ssh_zlib_inflate(d->zlib, *payload, t->inflated, CV_SSH_PACKET_MAX, &inflated_len);
    if (!cv_is_ok(status) || inflated_len == 0)
        return cv_ssh_transport_fail(t, cv_is_ok(status) ? CV_SSH_PROTOCOL : status.id,
                                     "a packet cannot be decompressed");
    *payload = cv_slice(t->inflated, inflated_len);
    return cv_ok();
}

/* A message with content pays for one without: asyncssh sends SSH_MSG_IGNORE before each. */
struct cv_status cv_ssh_transport_noise(struct cv_ssh_transport *t)
{
    bool is_open = cv_ssh_transport_is(t, PHASE_OPEN);
    if (is_open && t->now_ms - t->noise_ms >= 1000) {
        t->noise_ms = t->now_ms;
        t->noise = 0;
    }
    if (++t->noise > (is_open ? NOISE_PER_SECOND_MAX : NOISE_BEFORE_OPEN_MAX))
        return cv_ssh_transport_fail(t, CV_SSH_LIMIT, "too many messages without content");
    return cv_ok();
}

static struct cv_status on_disconnect(struct cv_ssh_transport *t, struct cv_slice payload,
                                      struct cv_ssh_packet *packet)
{
    struct cv_ssh_reader r = cv_ssh_reader(payload);
    uint8_t number;
    *packet = (struct cv_ssh_packet){.kind = CV_SSH_PACKET_DISCONNECT};
    (void)cv_ssh_read_u8(&r, &number);
    (void)cv_ssh_read_u32(&r, &packet->reason);
    (void)cv_ssh_read_string(&r, &packet->text);
    if (packet->text.len > VERSION_MAX)
        packet->text.len = VERSION_MAX;
    cv_ssh_transport_close(t, CV_EOF);
    return cv_ok();
}

/* Messages 1..4 and 7, which may come at almost any time. */
static struct cv_status control_message(struct cv_ssh_transport *t, struct cv_slice payload,
                                        struct cv_ssh_packet *packet, bool *has_packet)
{
    uint8_t number = payload.data[0];
    if (number == CV_SSH_MSG_DISCONNECT) {
        *has_packet = true;
        return on_disconnect(t, payload, packet);
    }
    bool is_first_kex = cv_ssh_transport_is(t, PHASE_KEX);
    bool is_in_kex = cv_ssh_transport_is_peer_in_kex(t);
    if ((is_first_kex && is_in_kex && t->is_strict) ||
        (number == CV_SSH_MSG_EXT_INFO && (is_first_kex || is_in_kex)))
        return cv_ssh_transport_fail(t, CV_SSH_PROTOCOL, "message %u in a key exchange", number);
    return cv_ssh_transport_noise(t);
}

static bool is_auth_number(uint8_t number)
{
    return number == CV_SSH_MSG_SERVICE_REQUEST || number == CV_SSH_MSG_SERVICE_ACCEPT ||
           (number >= CV_SSH_MSG_USERAUTH_REQUEST && number <= CV_SSH_MSG_USERAUTH_LAST);
}

static struct cv_status unknown_message(struct cv_ssh_transport *t)
{
    uint8_t reply[5];
    struct cv_ssh_writer w = cv_ssh_writer(reply, sizeof reply);
    CV_RETURN_IF_ERROR(cv_ssh_transport_noise(t));
    cv_ssh_write_u8(&w, CV_SSH_MSG_UNIMPLEMENTED);
    cv_ssh_write_u32(&w, t->packet_sequence);
    /* Also between own KEXINIT and NEWKEYS, where §7.1 forbids other messages but not this one. */
    return cv_ssh_transport_send_own(t, cv_ssh_written(&w));
}

static struct cv_status dispatch(struct cv_ssh_transport *t, struct cv_slice payload,
                                 struct cv_ssh_packet *packet, bool *has_packet)
{
    uint8_t number = payload.data[0];
    if ((number >= CV_SSH_MSG_DISCONNECT && number <= CV_SSH_MSG_DEBUG) ||
        number == CV_SSH_MSG_EXT_INFO)
        return control_message(t, payload, packet, has_packet);
    if (number >= CV_SSH_MSG_KEXINIT && number <= CV_SSH_MSG_KEX_LAST)
        return cv_ssh_transport_kex_message(t, payload, packet, has_packet);
    bool is_connection =
        number >= CV_SSH_MSG_CONNECTION_FIRST && number <= CV_SSH_MSG_CONNECTION_LAST;
    if (is_connection && cv_ssh_transport_is(t, PHASE_OPEN)) {
        /* Also between the peer's KEXINIT and its NEWKEYS, where it should send none (§7.1):
         * asyncssh does not hold them back, OpenSSH takes them, and they are authenticated under
         * the old key. */
        t->noise -= t->noise ? 1 : 0;
        *packet = (struct cv_ssh_packet){.kind = CV_SSH_PACKET_MESSAGE, .payload = payload};
        *has_packet = true;
        return cv_ok();
    }
    if (cv_ssh_transport_is(t, PHASE_KEX) || cv_ssh_transport_is_peer_in_kex(t))
        return cv_ssh_transport_fail(t, CV_SSH_PROTOCOL, "message %u in a key exchange", number);
    if (is_auth_number(number)) {
        struct cv_status status = cv_ssh_transport_auth_message(t, payload, has_packet);
        if (cv_is_ok(status) && *has_packet)
            *packet = (struct cv_ssh_packet){.kind = CV_SSH_PACKET_ESTABLISHED};
        return status;
    }
    if (is_connection)
        return cv_ssh_transport_fail(t, CV_SSH_PROTOCOL, "message %u before authentication",
                                     number);
    return unknown_message(t);
}

struct cv_status cv_ssh_transport_next(struct cv_ssh_transport *t, uint64_t now_ms,
                                       struct cv_ssh_packet *packet)
{
    t->now_ms = now_ms;
    take(t, t->taken_len);
    t->taken_len = 0;
    for (;;) {
        bool has_packet = false;
        struct cv_slice payload = {0};
        if (t->is_kex_done && !cv_ssh_transport_is(t, PHASE_CLOSED)) {
            t->is_kex_done = false;
            *packet = (struct cv_ssh_packet){.kind = CV_SSH_PACKET_KEX_DONE};
            return cv_ok();
        }
        cv_ssh_transport_kex_if_due(t);
        if (cv_ssh_transport_is(t, PHASE_CLOSED))
            return cv_status(t->end);
        if (is_blocked(t))
            return keep_rest(t);
        struct cv_status status =
            cv_ssh_transport_is(t, PHASE_IDENT) ? ident(t) : read_packet(t, &payload);
        if (status.id == CV_AGAIN)
            return keep_rest(t);
        if (cv_is_ok(status) && t->taken_len) {
            status = dispatch(t, payload, packet, &has_packet);
            if (!has_packet) {
                take(t, t->taken_len);
                t->taken_len = 0;
            }
        }
        if (!cv_is_ok(status) && !cv_ssh_transport_is(t, PHASE_CLOSED))
            return cv_ssh_transport_fail(t, status.id, "%s", cv_status_text(status.id));
        if (!cv_is_ok(status))
            return cv_status(t->end);
        if (has_packet)
            return cv_ok();
    }
}

/* ---- time ---- */

void cv_ssh_transport_rekey(struct cv_ssh_transport *t)
{
    if (!cv_ssh_transport_is(t, PHASE_OPEN) || !cv_ssh_transport_is_at(t, STAGE_IDLE))
        return;
    t->wants_rekey = true;
    cv_ssh_transport_kex_if_due(t);
}

uint64_t cv_ssh_transport_deadline(const struct cv_ssh_transport *t)
{
    if (t->is_paused || cv_ssh_transport_is(t, PHASE_CLOSED))
        return UINT64_MAX;
    if (!cv_ssh_transport_is(t, PHASE_OPEN))
        return t->handshake_due_ms;
    return cv_ssh_transport_is_at(t, STAGE_IDLE) ? t->rekey_due_ms : t->kex_due_ms;
}

void cv_ssh_transport_tick(struct cv_ssh_transport *t, uint64_t now_ms)
{
    enum { AGAIN_MS = 1000 };
    t->now_ms = now_ms;
    if (t->is_paused || cv_ssh_transport_is(t, PHASE_CLOSED))
        return;
    if (!cv_ssh_transport_is(t, PHASE_OPEN)) {
        if (now_ms >= t->handshake_due_ms)
            (void)cv_ssh_transport_fail(t, CV_CONN_TIMEOUT, "no SSH session after %u ms",
                                        t->handshake_ms);
        return;
    }
    if (cv_ssh_transport_is_at(t, STAGE_IDLE)) {
        if (now_ms >= t->rekey_due_ms) {
            /* `out` may be too full just now. */
            t->rekey_due_ms = now_ms + AGAIN_MS;
            cv_ssh_transport_rekey(t);
        }
    }
    if (cv_ssh_transport_is_at(t, STAGE_IDLE))
        return;
    if (t->kex_due_ms == 0)
        t->kex_due_ms = now_ms + t->handshake_ms;
    else if (now_ms >= t->kex_due_ms)
        (void)cv_ssh_transport_fail(t, CV_CONN_TIMEOUT, "the key exchange took over %u ms",
                                    t->handshake_ms);
}

void cv_ssh_transport_pause(struct cv_ssh_transport *t, uint64_t now_ms)
{
    if (t->is_paused)
        return;
    t->is_paused = true;
    t->paused_ms = now_ms;
}

void cv_ssh_transport_resume(struct cv_ssh_transport *t, uint64_t now_ms)
{
    if (!t->is_paused)
        return;
    uint64_t *const dues[] = {&t->handshake_due_ms, &t->rekey_due_ms};
    for (size_t i = 0; i < sizeof dues / sizeof *dues; i++) {
        if (*dues[i] != 0 && *dues[i] != UINT64_MAX)
            *dues[i] += now_ms - t->paused_ms;
    }
    /* Its whole time again: some of it passed before the loss was found. */
    if (t->kex_due_ms != 0 && t->kex_due_ms != UINT64_MAX)
        t->kex_due_ms = now_ms + t->handshake_ms;
    t->is_paused = false;
}

/* ---- what there is to know ---- */

bool cv_ssh_transport_derive(const struct cv_ssh_transport *t, const char *label, uint8_t out[32])
{
    if (!t->has_session)
        return false;
    cv_hmac_sha256(cv_slice(t->exporter, sizeof t->exporter), cv_slice_str(label), out);
    return true;
}

const char *cv_ssh_transport_error(const struct cv_ssh_transport *t)
{
    return t->error.detail;
}

const char *cv_ssh_transport_peer_version(const struct cv_ssh_transport *t)
{
    return cv_ssh_transport_is(t, PHASE_IDENT) ? "" : t->peer_version;
}

const char *cv_ssh_transport_cipher(const struct cv_ssh_transport *t)
{
    return t->send.cipher.def->kind == CV_SSH_CIPHER_CLEAR ? "" : t->send.cipher.def->name;
}

uint32_t cv_ssh_transport_kex_count(const struct cv_ssh_transport *t)
{
    return t->kex_count;
}
