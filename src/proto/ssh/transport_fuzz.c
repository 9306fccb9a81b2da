/* SPDX-License-Identifier: MIT
 *
 * libFuzzer: the transport layer under a stranger, before authentication and as far beyond as the
 * stranger gets, in both roles. The input is a conversation (ssh_fuzz.h): what the peer says, in
 * packets or in bytes as they are, and what the owner does in between.
 *
 * First byte: bit 0 the role that is attacked, bit 1 compression is offered, bit 2 a guess is sent,
 * bit 3 the host key is refused, bit 4 the
 * peer has identified itself.
 *
 * Checked: the input is never read behind its end (each piece is a block of its own), `out` stays
 * within its cap, what is sent keeps to RFC 4253 §6 and §7.1, nothing follows a disconnect, no
 * event follows the end, the same session fails alike however often it is asked.
 */
#include "proto/ssh/ssh_fuzz.h"

enum { IS_CLIENT = 1, HAS_ZLIB = 2, HAS_GUESS = 4, REFUSES = 8, HAS_IDENT = 16 };

struct side {
    struct cv_buf out;
    struct cv_ssh_transport *t;
    struct fuzz_listener listener;
    uint64_t now_ms;
    enum cv_status_id end; /* CV_OK while it goes on */
    bool is_established, refuses;
};

static void on_packet(struct side *side, const struct cv_ssh_packet *packet)
{
    switch (packet->kind) {
    case CV_SSH_PACKET_HOST_KEY:
        cv_ssh_transport_accept_host_key(side->t, !side->refuses);
        break;
    case CV_SSH_PACKET_ESTABLISHED:
        cv_fuzz_must(!side->is_established);
        side->is_established = true;
        break;
    case CV_SSH_PACKET_MESSAGE:
        /* Like a careless owner: everything comes back, and is not understood either. */
        cv_fuzz_must(side->is_established && packet->payload.len > 0 &&
                     packet->payload.data[0] >= CV_SSH_MSG_CONNECTION_FIRST);
        if (packet->payload.len > 1)
            (void)cv_ssh_transport_send(side->t, cv_slice("\x5e", 1), packet->payload);
        cv_ssh_transport_unimplemented(side->t);
        break;
    case CV_SSH_PACKET_KEX_DONE:
        cv_fuzz_must(side->is_established);
        break;
    case CV_SSH_PACKET_DISCONNECT:
        cv_fuzz_must(packet->text.len <= VERSION_MAX);
        break;
    }
}

static void drain(struct side *side)
{
    struct cv_ssh_packet packet;
    struct cv_status status;
    while (cv_is_ok(status = cv_ssh_transport_next(side->t, side->now_ms, &packet))) {
        cv_fuzz_must(side->end == CV_OK);
        on_packet(side, &packet);
    }
    if (status.id != CV_AGAIN) {
        cv_fuzz_must(side->end == CV_OK || side->end == status.id);
        side->end = status.id;
        cv_fuzz_must(!cv_ssh_transport_can_send(side->t) && !cv_ssh_transport_wants_input(side->t));
    } else {
        cv_fuzz_must(side->end == CV_OK);
    }
    cv_fuzz_must(cv_buf_len(&side->out) <= side->out.cap);
    cv_fuzz_must(cv_buf_len(&side->t->in) <= CV_SSH_FEED_MAX + PACKET_ALL);
}

/* The peer reads all that was sent. */
static void listen(struct side *side, bool has_zlib)
{
    struct cv_slice payload;
    if (has_zlib)
        cv_buf_consume(&side->out, cv_buf_len(&side->out));
    while (fuzz_hear(&side->listener, &side->out, &payload))
        ;
}

static void feed(struct side *side, const uint8_t *data, size_t len, size_t step)
{
    while (len > 0) {
        size_t n = step && step < len ? step : len;
        if (!cv_ssh_transport_wants_input(side->t))
            listen(side, side->t->has_compression);
        drain(side);
        if (!cv_ssh_transport_wants_input(side->t))
            return;
        uint8_t *copy = cv_fuzz_copy(data, n);
        if (cv_is_ok(cv_ssh_transport_feed(side->t, copy, n)))
            drain(side);
        free(copy);
        data += n;
        len -= n;
    }
}

static void act(struct side *side, const struct fuzz_record *record)
{
    static const uint8_t bytes[34000] = {94};
    uint8_t what = record->len > 0 ? record->body[0] : 0;
    uint8_t more = record->len > 1 ? record->body[1] : 0;
    uint8_t *to;
    switch (what % 8) {
    case 0:
        listen(side, side->t->has_compression);
        break;
    case 1:
        cv_ssh_transport_rekey(side->t);
        break;
    case 2:
        side->now_ms += more * 100U;
        cv_ssh_transport_tick(side->t, side->now_ms);
        break;
    case 3:
        (void)cv_ssh_transport_send(side->t, cv_slice(bytes, 1), cv_slice(bytes, more * 132U));
        break;
    case 4:
        to = cv_ssh_transport_begin(side->t, 1U + more * 100U);
        if (to) {
            memset(to, 94, 1U + more);
            (void)cv_ssh_transport_end(side->t, 1U + more);
        }
        break;
    case 5:
        cv_ssh_transport_pause(side->t, side->now_ms);
        side->now_ms += more;
        break;
    case 6:
        cv_ssh_transport_resume(side->t, side->now_ms);
        break;
    default:
        if (more == 77)
            cv_ssh_transport_disconnect(side->t, 11, "bye");
    }
    drain(side);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct cv_ssh_host_key *key;
    if (len < FUZZ_HEAD || (!key && !cv_is_ok(cv_ssh_host_key_generate(&key))))
        return 0;
    uint8_t mode = data[0], step = data[1];
    struct cv_ssh_transport_options options = {.role =
                                                   mode & IS_CLIENT ? CV_SSH_CLIENT : CV_SSH_SERVER,
                                               .host_key = key,
                                               .ciphers = FUZZ_CIPHER,
                                               .has_compression = mode & HAS_ZLIB,
                                               .has_guess = mode & HAS_GUESS,
                                               .rekey_bytes = 65536};
    struct side side = {.now_ms = 1, .refuses = mode & REFUSES};
    cv_buf_init(&side.out, CV_SSH_OUT_MIN);
    side.t = cv_ssh_transport_new(&options, &side.out, side.now_ms);
    cv_fuzz_must(side.t);
    struct cv_slice input = cv_slice(data + FUZZ_HEAD, len - FUZZ_HEAD);
    struct fuzz_record record;
    if (mode & HAS_IDENT)
        feed(&side, (const uint8_t *)"SSH-2.0-peer\r\n", 14, step);
    while (fuzz_next(&input, &record)) {
        uint8_t packet[FUZZ_BODY_MAX + CV_SSH_PACKET_OVERHEAD];
        if (record.len > FUZZ_BODY_MAX)
            record.len = FUZZ_BODY_MAX;
        if (record.kind == FUZZ_PACKET && record.len > 0)
            feed(&side, packet, fuzz_frame(side.t, packet, record.body, record.len), step);
        else if (record.kind == FUZZ_RAW)
            feed(&side, record.body, record.len, step);
        else if (record.kind == FUZZ_ACT)
            act(&side, &record);
    }
    listen(&side, side.t->has_compression);
    cv_ssh_transport_free(&side.t);
    cv_buf_done(&side.out);
    return 0;
}
