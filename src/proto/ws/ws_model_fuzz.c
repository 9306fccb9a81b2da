/* SPDX-License-Identifier: MIT
 *
 * The model that the harness holds the engine against: slow, plain, over the whole input at once.
 */
#include "proto/ws/ws_fuzzing.h"

struct model {
    const struct cv_ws_options *options;
    struct cv_slice rest;
    struct cv_buf *said;
    struct cv_buf message;
    unsigned kind; /* opcode of the open message; 0: none */
    uint64_t fragments, declared;
};

struct frame {
    unsigned first, opcode;
    bool is_final, is_masked;
    uint64_t len;
    size_t head; /* bytes before the payload */
    uint8_t mask[4];
};

static bool fails(struct model *model, enum cv_status_id id)
{
    cv_ws_fuzz_note_failure(model->said, id);
    return false;
}

/* The code point at the front of `text` (RFC 3629 §3): its length, 0 when it cannot become one,
 * -1 when it is good so far and ends too early. */
static int code_point(struct cv_slice text)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    uint8_t lead = text.data[0];
    int len = lead < 0x80 ? 1 : lead >> 5 == 6 ? 2 : lead >> 4 == 14 ? 3 : lead >> 3 == 30 ? 4 : 0;
    if (len < 2)
        return len;
    uint32_t low = lead & (0x7FU >> len), high = low;
    for (int i = 1; i < len; i++) {
        bool is_there = (size_t)i < text.len;
        if (is_there && text.data[i] >> 6 != 2)
            return 0;
        low = low << 6 | (is_there ? text.data[i] & 0x3FU : 0);
        high = high << 6 | (is_there ? text.data[i] & 0x3FU : 0x3FU);
    }
    /* `low` to `high` is all that it may still become. */
    if (high < least[len] || low > 0x10FFFF || (low >= 0xD800 && high <= 0xDFFF))
        return 0;
    return (size_t)len > text.len ? -1 : len;
}

/* Whether `text` is UTF-8; with `may_go_on` it may end inside a character. */
static bool is_utf8(struct cv_slice text, bool may_go_on)
{
    while (text.len > 0) {
        int len = code_point(text);
        if (len <= 0)
            return len < 0 && may_go_on;
        text = cv_slice(text.data + len, text.len - (size_t)len);
    }
    return true;
}

/* Reads as much of a header as there is. False when there is no more to do. */
static bool read_frame(struct model *model, struct frame *frame)
{
    struct cv_slice in = model->rest;
    bool is_server = model->options->role == CV_WS_SERVER;
    if (in.len < 2)
        return false;
    *frame = (struct frame){.first = in.data[0],
                            .opcode = in.data[0] % 16,
                            .is_final = in.data[0] >= 128,
                            .is_masked = in.data[1] >= 128,
                            .len = in.data[1] % 128};
    bool is_data = frame->opcode <= 2, is_control = frame->opcode >= 8 && frame->opcode <= 10;
    if (frame->first & 0x70 || (!is_data && !is_control) || frame->is_masked != is_server)
        return fails(model, CV_WS_PROTOCOL);
    if (is_control && (!frame->is_final || frame->len > 125))
        return fails(model, CV_WS_PROTOCOL);
    if (is_data && (frame->opcode == 0) != (model->kind != 0))
        return fails(model, CV_WS_PROTOCOL);
    if ((frame->opcode == 1 && !model->options->accepts_text) ||
        (frame->opcode == 2 && !model->options->accepts_binary))
        return fails(model, CV_WS_UNSUPPORTED);
    size_t extra = frame->len == 126 ? 2 : frame->len == 127 ? 8 : 0;
    if (in.len < 2 + extra)
        return false;
    for (size_t i = 0; i < extra; i++)
        frame->len = (i ? frame->len << 8 : 0) | in.data[2 + i];
    if ((extra == 2 && frame->len < 126) || (extra == 8 && frame->len < 65536) ||
        frame->len >> 63 != 0)
        return fails(model, CV_WS_PROTOCOL);
    frame->head = 2 + extra;
    return true;
}

/* The caps. False when one is broken. */
static bool count(struct model *model, const struct frame *frame)
{
    if (frame->opcode != 0) {
        model->kind = frame->opcode;
        model->fragments = model->declared = 0;
    }
    model->declared += frame->len;
    if (frame->len > model->options->max_frame_bytes)
        return fails(model, CV_WS_TOO_BIG);
    if (++model->fragments > model->options->max_fragments)
        return fails(model, CV_WS_POLICY);
    if (model->options->max_message_bytes && model->declared > model->options->max_message_bytes)
        return fails(model, CV_WS_TOO_BIG);
    return true;
}

static bool take_data(struct model *model, const struct frame *frame, struct cv_slice payload)
{
    bool is_whole = payload.len == frame->len, is_final = is_whole && frame->is_final;
    cv_fuzz_must(cv_is_ok(cv_buf_append_slice(&model->message, payload)));
    struct cv_slice message = cv_buf_slice(&model->message);
    if (model->kind == 1 && !is_utf8(message, !is_final))
        return fails(model, CV_WS_BAD_UTF8);
    if (!is_final)
        return is_whole;
    cv_ws_fuzz_note(model->said, model->kind == 1 ? 'T' : 'B', message);
    cv_buf_consume(&model->message, message.len);
    model->kind = 0;
    return true;
}

static bool take_control(struct model *model, const struct frame *frame, struct cv_slice payload)
{
    if (payload.len < frame->len)
        return false;
    if (frame->opcode != 8) {
        cv_ws_fuzz_note(model->said, frame->opcode == 9 ? 'P' : 'O', payload);
        return true;
    }
    if (payload.len == 0) {
        cv_ws_fuzz_note_close(model->said, 1005, payload);
        return false;
    }
    if (payload.len == 1)
        return fails(model, CV_WS_PROTOCOL);
    unsigned code = payload.data[0] * 256U + payload.data[1];
    struct cv_slice reason = cv_slice(payload.data + 2, payload.len - 2);
    bool is_reserved = code == 1004 || code == 1005 || code == 1006 || code == 1015;
    if (code < 1000 || is_reserved || (code > 1014 && code < 3000) || code > 4999)
        return fails(model, CV_WS_PROTOCOL);
    if (!is_utf8(reason, false))
        return fails(model, CV_WS_BAD_UTF8);
    cv_ws_fuzz_note_close(model->said, (uint16_t)code, reason);
    return false; /* what follows a Close is not looked at */
}

static bool take_frame(struct model *model)
{
    struct frame frame;
    if (!read_frame(model, &frame) || (frame.opcode < 8 && !count(model, &frame)))
        return false;
    struct cv_slice in = model->rest;
    if (frame.is_masked) {
        if (in.len < frame.head + 4)
            return false;
        memcpy(frame.mask, in.data + frame.head, 4);
        frame.head += 4;
    }
    size_t len = in.len - frame.head < frame.len ? in.len - frame.head : (size_t)frame.len;
    struct cv_buf plain;
    cv_buf_init(&plain, in.len);
    for (size_t i = 0; i < len; i++)
        cv_fuzz_must(
            cv_is_ok(cv_buf_append_byte(&plain, in.data[frame.head + i] ^ frame.mask[i % 4])));
    model->rest = cv_slice(in.data + frame.head + len, in.len - frame.head - len);
    bool goes_on = frame.opcode >= 8 ? take_control(model, &frame, cv_buf_slice(&plain))
                                     : take_data(model, &frame, cv_buf_slice(&plain));
    cv_buf_done(&plain);
    return goes_on;
}

void cv_ws_fuzz_model(const struct cv_ws_options *options, struct cv_slice wire,
                      struct cv_buf *said)
{
    struct model model = {.options = options, .rest = wire, .said = said};
    cv_buf_init(&model.message, wire.len);
    while (take_frame(&model))
        ;
    cv_buf_done(&model.message);
}
