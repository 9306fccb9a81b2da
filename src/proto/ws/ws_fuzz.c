/* SPDX-License-Identifier: MIT
 *
 * libFuzzer harness for both roles; ws_fuzzing.h has the layout of an input, ws_mutator_fuzz.c the
 * mutator. What it holds the engine to:
 *  - what is received does not depend on where the bytes were cut: whole, byte by byte, in steps,
 *    and, for short inputs, in two at every place;
 *  - without compression it is what the model (ws_model_fuzz.c) says;
 *  - each message and ping is answered, and an engine of the other role understands all of it;
 *  - a failure is told with its code;
 *  - with nobody reading, pongs and memory stay below their caps.
 */
#include "proto/ws/ws_fuzzing.h"
#include "proto/ws/ws_handshake.h"
#include "proto/ws/ws_internal.h"

enum { SAID_MAX = 64 << 20, OUT_MAX = 1 << 20, INFLATED_MAX = 1 << 16, TRY_EACH_CUT = 40 };

static uint8_t window_bits(unsigned nibble)
{
    return (uint8_t)(8 + nibble % 8);
}

static void read_options(const uint8_t prefix[CV_WS_FUZZ_PREFIX], struct cv_ws_options *options)
{
    unsigned bits = prefix[0];
    cv_ws_options_init(options, bits & CV_WS_FUZZ_SERVER ? CV_WS_SERVER : CV_WS_CLIENT);
    options->max_fragments = 64;
    options->max_pending_pongs = 2;
    options->max_unanswered_pings = 4;
    options->accepts_text = !(bits & CV_WS_FUZZ_BINARY_ONLY);
    options->max_inflated_bytes = INFLATED_MAX;
    options->deflate_level = 1 + prefix[2] % 9;
    if (bits & CV_WS_FUZZ_SMALL_CAPS) {
        options->max_frame_bytes = 500;
        options->max_message_bytes = 1000;
        options->max_fragments = 4;
    }
    if (bits & CV_WS_FUZZ_DEFLATE) {
        cv_ws_deflate_params_init(&options->deflate);
        options->deflate.server_no_context_takeover = bits & CV_WS_FUZZ_SERVER_NO_TAKEOVER;
        options->deflate.client_no_context_takeover = bits & CV_WS_FUZZ_CLIENT_NO_TAKEOVER;
        options->deflate.server_max_window_bits = window_bits(prefix[2] & 15);
        options->deflate.client_max_window_bits = window_bits(prefix[2] >> 4);
        /* A peer that looks back further than it agreed to (RFC 7692 §7.1.2) is refused by zlib or
         * not, as what it looks back to was inflated by the same call or an earlier one. */
        if (bits & CV_WS_FUZZ_SERVER)
            options->deflate.client_max_window_bits = 15;
        else
            options->deflate.server_max_window_bits = 15;
    }
}

/* One side of a conversation. */
struct side {
    struct cv_ws *ws;
    struct cv_buf said, message, out;
    bool is_inside, compresses, echoes;
};

static void side_init(struct side *side, const struct cv_ws_options *options)
{
    *side = (struct side){.ws = cv_ws_new(options)};
    cv_fuzz_must(side->ws != NULL);
    cv_buf_init(&side->said, SAID_MAX);
    cv_buf_init(&side->message, SAID_MAX);
    cv_buf_init(&side->out, OUT_MAX);
}

static void side_done(struct side *side)
{
    cv_ws_free(&side->ws);
    cv_buf_done(&side->said);
    cv_buf_done(&side->message);
    cv_buf_done(&side->out);
}

static void take_data(struct side *side, const struct cv_ws_event *event)
{
    cv_fuzz_must(event->is_first == !side->is_inside);
    cv_fuzz_must(event->opcode == CV_WS_TEXT || event->opcode == CV_WS_BINARY);
    side->is_inside = !event->is_final;
    cv_fuzz_must(cv_is_ok(cv_buf_append_slice(&side->message, event->data)));
    uint64_t cap = side->ws->options.max_message_bytes;
    cv_fuzz_must(!cap || cv_buf_len(&side->message) <= cap);
    if (side->echoes) {
        unsigned flags =
            (side->compresses ? CV_WS_COMPRESS : 0) | (event->is_final ? CV_WS_FIN : 0);
        cv_fuzz_must(cv_is_ok(cv_ws_send(side->ws, &side->out, event->opcode, flags, event->data)));
    }
    if (!event->is_final)
        return;
    cv_ws_fuzz_note(&side->said, event->opcode == CV_WS_TEXT ? 'T' : 'B',
                    cv_buf_slice(&side->message));
    cv_buf_consume(&side->message, cv_buf_len(&side->message));
}

static void take_event(struct side *side, const struct cv_ws_event *event)
{
    switch (event->type) {
    case CV_WS_EVENT_DATA:
        take_data(side, event);
        return;
    case CV_WS_EVENT_PING:
        cv_ws_fuzz_note(&side->said, 'P', event->data);
        cv_fuzz_must(cv_is_ok(cv_ws_answer_ping(side->ws, &side->out)));
        return;
    case CV_WS_EVENT_PONG:
        cv_ws_fuzz_note(&side->said, 'O', event->data);
        return;
    case CV_WS_EVENT_CLOSE:
        cv_ws_fuzz_note_close(&side->said, event->code, event->data);
        if (side->echoes)
            cv_fuzz_must(
                cv_is_ok(cv_ws_send_close(side->ws, &side->out, event->code, event->data)));
        return;
    }
}

/* Damage in compressed data and what was inflated before it may break two rules in one message;
 * which is seen first depends on how much is inflated at a time. */
static bool failure_may_vary(const struct cv_ws *ws)
{
    return ws->message.opcode != CV_WS_CONTINUATION && ws->message.is_compressed;
}

static void fail(struct side *side, struct cv_status status)
{
    enum cv_ws_state state = cv_ws_state(side->ws);
    cv_fuzz_must(status.id == CV_WS_PROTOCOL || status.id == CV_WS_TOO_BIG ||
                 status.id == CV_WS_UNSUPPORTED || status.id == CV_WS_POLICY ||
                 status.id == CV_WS_BAD_UTF8);
    cv_fuzz_must(state == CV_WS_FAILED || state == CV_WS_CLOSED);
    cv_ws_fuzz_note_failure(&side->said, failure_may_vary(side->ws) ? CV_WS_PROTOCOL : status.id);
    uint16_t code = cv_ws_failure_code(side->ws);
    cv_fuzz_must(cv_ws_close_code_is_valid(code));
    if (side->echoes)
        cv_fuzz_must(cv_is_ok(cv_ws_send_close(side->ws, &side->out, code,
                                               cv_slice_str(cv_ws_failure_text(side->ws)))));
}

/* Gives a side bytes in a block of their own. False when it failed. */
static bool feed(struct side *side, struct cv_slice wire, struct side *reader)
{
    if (wire.len == 0)
        return true;
    uint8_t *copy = cv_fuzz_copy(wire.data, wire.len);
    cv_ws_feed(side->ws, copy, wire.len);
    struct cv_ws_event event;
    struct cv_status status;
    do {
        status = cv_ws_next(side->ws, &event);
        if (cv_is_ok(status))
            take_event(side, &event);
        else if (status.id != CV_AGAIN)
            fail(side, status);
        if (reader && cv_buf_len(&side->out) > 0) {
            cv_fuzz_must(feed(reader, cv_buf_slice(&side->out), NULL));
            cv_buf_consume(&side->out, cv_buf_len(&side->out));
        }
    } while (cv_is_ok(status));
    free(copy);
    return status.id == CV_AGAIN;
}

/* Takes one note off the front. */
static bool take_note(struct cv_slice *notes, uint8_t *kind, struct cv_slice *data)
{
    if (notes->len == 0)
        return false;
    *kind = notes->data[0];
    *data = cv_slice(notes->data + 5, cv_get_u32(notes->data + 1));
    *notes = cv_slice(data->data + data->len, notes->len - 5 - data->len);
    return true;
}

/* The other side heard each message, a pong for each ping, and how it ended. */
static void check_echo(const struct side *side, const struct side *reader)
{
    struct cv_slice mine = cv_buf_slice(&side->said), heard = cv_buf_slice(&reader->said);
    uint8_t kind, heard_kind;
    struct cv_slice data, heard_data;
    while (take_note(&mine, &kind, &data)) {
        if (kind == 'O')
            continue;
        cv_fuzz_must(take_note(&heard, &heard_kind, &heard_data));
        if (kind == 'F') {
            cv_fuzz_must(heard_kind == 'C' &&
                         cv_get_u16(heard_data.data) == cv_ws_failure_code(side->ws));
            continue;
        }
        cv_fuzz_must(heard_kind == (kind == 'P' ? 'O' : kind));
        cv_fuzz_must(cv_slice_equal(data, heard_data));
    }
    cv_fuzz_must(heard.len == 0);
}

/* How a wire is cut: the first piece, then pieces of `step`. */
struct cuts {
    size_t first, step;
};

static void converse(const struct cv_ws_options *options, bool compresses, struct cv_slice wire,
                     struct cuts cuts, struct cv_buf *said)
{
    struct side side, reader;
    struct cv_ws_options other;
    cv_ws_options_init(&other, options->role == CV_WS_SERVER ? CV_WS_CLIENT : CV_WS_SERVER);
    other.max_frame_bytes = other.max_inflated_bytes = UINT64_MAX;
    other.max_fragments = UINT32_MAX;
    other.deflate = options->deflate;
    side_init(&side, options);
    side_init(&reader, &other);
    side.echoes = true;
    side.compresses = compresses;

    size_t at = 0;
    for (size_t step = cuts.first; at < wire.len; step = cuts.step) {
        size_t len = wire.len - at < step ? wire.len - at : step;
        if (!feed(&side, cv_slice(wire.data + at, len), &reader))
            break;
        at += len;
    }
    check_echo(&side, &reader);
    *said = side.said;
    cv_buf_init(&side.said, 0);
    side_done(&side);
    side_done(&reader);
}

static void check_same(struct cv_buf *said, const struct cv_buf *want)
{
    cv_fuzz_must(cv_slice_equal(cv_buf_slice(said), cv_buf_slice(want)));
    cv_buf_done(said);
}

/* Nobody reads what the engine writes. */
static void check_unread(const struct cv_ws_options *options, struct cv_slice wire, size_t step)
{
    struct side side;
    side_init(&side, options);
    for (size_t at = 0; at < wire.len; at += step) {
        size_t len = wire.len - at < step ? wire.len - at : step;
        if (!feed(&side, cv_slice(wire.data + at, len), NULL))
            break;
    }
    cv_fuzz_must(cv_ws_counters(side.ws)->sent[CV_WS_PONG] <= options->max_pending_pongs);
    side_done(&side);
}

static void fuzz_frames(const uint8_t prefix[CV_WS_FUZZ_PREFIX], struct cv_slice wire)
{
    struct cv_ws_options options;
    read_options(prefix, &options);
    bool compresses = !(prefix[0] & CV_WS_FUZZ_ECHO_PLAIN);
    size_t step = 2 + prefix[1];
    struct cv_buf want, said;
    converse(&options, compresses, wire, (struct cuts){wire.len, 1}, &want);
    converse(&options, compresses, wire, (struct cuts){1, 1}, &said);
    check_same(&said, &want);
    converse(&options, compresses, wire, (struct cuts){1 + prefix[1] % 7, step}, &said);
    check_same(&said, &want);
    check_unread(&options, wire, step);
    if (!options.deflate.is_enabled) {
        for (size_t cut = 1; cut < wire.len && wire.len <= TRY_EACH_CUT; cut++) {
            converse(&options, false, wire, (struct cuts){cut, wire.len}, &said);
            check_same(&said, &want);
        }
        cv_buf_init(&said, SAID_MAX);
        cv_ws_fuzz_model(&options, wire, &said);
        check_same(&said, &want);
    }
    cv_buf_done(&want);
}

/* Whatever offer a server accepts, its answer is one that a client without wishes accepts too, and
 * both agree on the same. */
static void fuzz_deflate(const uint8_t prefix[CV_WS_FUZZ_PREFIX], struct cv_slice field)
{
    struct cv_ws_deflate_params wish, any, agreed, mirrored;
    char text[CV_WS_DEFLATE_TEXT_SIZE];
    cv_ws_deflate_params_init(&any);
    cv_ws_deflate_params_init(&wish);
    wish.server_max_window_bits = window_bits(prefix[2] & 15);
    wish.client_max_window_bits = window_bits(prefix[2] >> 4);
    wish.server_no_context_takeover = prefix[0] & CV_WS_FUZZ_SERVER_NO_TAKEOVER;
    struct cv_status status = cv_ws_deflate_negotiate(field, &wish, &agreed, text);
    cv_fuzz_must(agreed.is_enabled == (text[0] != '\0'));
    cv_fuzz_must(cv_is_ok(status) || !agreed.is_enabled);
    if (agreed.is_enabled) {
        cv_fuzz_must(cv_is_ok(cv_ws_deflate_accept(cv_slice_str(text), &any, &mirrored)));
        cv_fuzz_must(agreed.server_max_window_bits == mirrored.server_max_window_bits &&
                     agreed.client_max_window_bits == mirrored.client_max_window_bits &&
                     agreed.server_no_context_takeover == mirrored.server_no_context_takeover &&
                     agreed.client_no_context_takeover == mirrored.client_no_context_takeover);
        cv_fuzz_must(agreed.server_max_window_bits <= wish.server_max_window_bits &&
                     agreed.server_max_window_bits >= 8 && agreed.client_max_window_bits >= 8);
    }
    if (cv_is_ok(cv_ws_deflate_accept(field, &wish, &agreed)) && agreed.is_enabled)
        cv_fuzz_must(agreed.server_max_window_bits <= wish.server_max_window_bits &&
                     agreed.client_max_window_bits <= wish.client_max_window_bits);
}

static void fuzz_fields(const uint8_t prefix[CV_WS_FUZZ_PREFIX], struct cv_slice field)
{
    fuzz_deflate(prefix, field);
    static const char *const known[] = {"ssh", "culvert.v1"};
    struct cv_slice chosen;
    struct cv_status status = cv_ws_choose_protocol(field, known, 2, &chosen);
    if (cv_is_ok(status) && chosen.len > 0)
        cv_fuzz_must(chosen.data >= field.data &&
                     chosen.data + chosen.len <= field.data + field.len);
    (void)cv_ws_is_upgrade(field);
    struct cv_ws_request request = {
        cv_slice_str("GET"), 1, 1, cv_slice_str("websocket"), cv_slice_str("upgrade"), field,
        cv_slice_str("13")};
    (void)cv_ws_check_request(&request, NULL).id;
    request.connection = field;
    request.key = cv_slice_str("dGhlIHNhbXBsZSBub25jZQ==");
    status = cv_ws_check_request(&request, NULL);
    cv_fuzz_must(cv_is_ok(status) == cv_ws_list_has(field, "upgrade"));
    struct cv_ws_response response = {101, cv_slice_str("websocket"), cv_slice_str("upgrade"),
                                      cv_slice_str("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), field};
    (void)cv_ws_check_response(&response, request.key, field, NULL).id;
    response.accept = field;
    status = cv_ws_check_response(&response, request.key, field, NULL);
    cv_fuzz_must(!cv_is_ok(status) ||
                 cv_slice_is(cv_slice_trim(field), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < CV_WS_FUZZ_PREFIX)
        return 0;
    /* A copy of its own, so that reading before the wire is seen. */
    struct cv_slice wire = cv_slice(data + CV_WS_FUZZ_PREFIX, size - CV_WS_FUZZ_PREFIX);
    uint8_t *copy = cv_fuzz_copy(wire.data, wire.len);
    if (data[0] & CV_WS_FUZZ_FIELDS)
        fuzz_fields(data, cv_slice(copy, wire.len));
    else
        fuzz_frames(data, cv_slice(copy, wire.len));
    free(copy);
    return 0;
}
