/* SPDX-License-Identifier: MIT
 *
 * Receiving. A frame goes HEAD → DATA (→ INFLATE …, → TAIL) → HEAD, or HEAD → CONTROL → HEAD. Each
 * step either makes an event, moves to another stage, or wants more input. Everything a header can
 * be wrong in is refused before one byte of its payload is awaited.
 */
#include "proto/ws/ws_internal.h"

#include "base/bytes.h"

#include <assert.h>

/* A step of the reader: CV_OK with *is_ready when it made an event, without when it only moved on.
 */
typedef struct cv_status step_fn(struct cv_ws *ws, struct cv_ws_event *event, bool *is_ready);

void cv_ws_feed(struct cv_ws *ws, uint8_t *data, size_t len)
{
    assert(ws->in_len == 0);
    ws->in = data;
    ws->in_len = len;
    ws->feeds++;
}

static void begin_head(struct cv_ws *ws)
{
    ws->stage = CV_WS_READ_HEAD;
    ws->head_len = 0;
    ws->is_length_known = false;
}

/* ---- header ---- */

static bool is_control(enum cv_ws_opcode opcode)
{
    return (opcode & 0x8) != 0;
}

/* The first two bytes (§5.2): all that can be wrong before the length is known. */
static struct cv_status check_head_start(struct cv_ws *ws)
{
    uint8_t first = ws->head[0], second = ws->head[1];
    enum cv_ws_opcode opcode = first & CV_WS_BITS_OPCODE;
    uint8_t short_len = second & CV_WS_BITS_LENGTH;
    bool is_masked = (second & CV_WS_BIT_MASK) != 0;

    if (first & CV_WS_BITS_RSV23)
        return cv_ws_fail(ws, CV_WS_PROTOCOL, "reserved bits are set");
    if (opcode > CV_WS_PONG || (opcode > CV_WS_BINARY && opcode < CV_WS_CLOSE))
        return cv_ws_fail(ws, CV_WS_PROTOCOL, "reserved opcode");
    /* RSV1 marks the first frame of a compressed message, nothing else (RFC 7692 §6). */
    if ((first & CV_WS_BIT_RSV1) &&
        (!ws->options.deflate.is_enabled || is_control(opcode) || opcode == CV_WS_CONTINUATION))
        return cv_ws_fail(ws, CV_WS_PROTOCOL, "RSV1 is set where nothing is compressed");
    if (is_masked != (ws->options.role == CV_WS_SERVER))
        return cv_ws_fail(ws, CV_WS_PROTOCOL,
                          is_masked ? "masked frame from a server"
                                    : "unmasked frame from a client");
    if (is_control(opcode)) {
        if (!(first & CV_WS_BIT_FIN))
            return cv_ws_fail(ws, CV_WS_PROTOCOL, "fragmented control frame");
        if (short_len > CV_WS_CONTROL_MAX)
            return cv_ws_fail(ws, CV_WS_PROTOCOL, "control frame over 125 bytes");
    } else {
        bool is_open = ws->message.opcode != CV_WS_CONTINUATION;
        if (opcode == CV_WS_CONTINUATION && !is_open)
            return cv_ws_fail(ws, CV_WS_PROTOCOL, "continuation without a message");
        if (opcode != CV_WS_CONTINUATION && is_open)
            return cv_ws_fail(ws, CV_WS_PROTOCOL, "new message inside another");
        if (opcode == CV_WS_TEXT && !ws->options.accepts_text)
            return cv_ws_fail(ws, CV_WS_UNSUPPORTED, "text is not accepted here");
        if (opcode == CV_WS_BINARY && !ws->options.accepts_binary)
            return cv_ws_fail(ws, CV_WS_UNSUPPORTED, "binary is not accepted here");
    }

    ws->frame.opcode = opcode;
    ws->frame.is_final = (first & CV_WS_BIT_FIN) != 0;
    ws->head_size = 2;
    if (short_len == CV_WS_LENGTH_16)
        ws->head_size += 2;
    else if (short_len == CV_WS_LENGTH_64)
        ws->head_size += 8;
    return cv_ok();
}

static struct cv_status read_length(struct cv_ws *ws)
{
    uint8_t short_len = ws->head[1] & CV_WS_BITS_LENGTH;
    uint64_t len = short_len, least = 0;
    if (short_len == CV_WS_LENGTH_16) {
        len = cv_get_u16(ws->head + 2);
        least = CV_WS_LENGTH_16;
    } else if (short_len == CV_WS_LENGTH_64) {
        len = cv_get_u64(ws->head + 2);
        least = UINT16_MAX + 1;
    }
    if (len < least)
        return cv_ws_fail(ws, CV_WS_PROTOCOL, "length is not in its shortest form");
    if (len >> 63)
        return cv_ws_fail(ws, CV_WS_PROTOCOL, "length over 2^63-1");
    ws->frame.len = len;
    ws->frame.done = 0;
    return cv_ok();
}

/* Opens or continues the message that a data frame belongs to; both lengths are below 2^63, so the
 * sums do not wrap. */
static struct cv_status count_data_frame(struct cv_ws *ws)
{
    const struct cv_ws_options *options = &ws->options;
    if (ws->frame.len > options->max_frame_bytes)
        return cv_ws_fail(ws, CV_WS_TOO_BIG, "frame over the limit");
    if (ws->frame.opcode != CV_WS_CONTINUATION) {
        memset(&ws->message, 0, sizeof ws->message);
        ws->message.opcode = ws->frame.opcode;
        ws->message.is_compressed = (ws->head[0] & CV_WS_BIT_RSV1) != 0;
    }
    if (++ws->message.fragments > options->max_fragments)
        return cv_ws_fail(ws, CV_WS_POLICY, "message in too many fragments");
    /* What does not compress gets longer by it; how long it becomes when inflated is seen then. */
    uint64_t max = options->max_message_bytes;
    uint64_t slack = ws->message.is_compressed ? max / 8 + 64 : 0;
    ws->message.wire_bytes += ws->frame.len;
    if (max && ws->message.wire_bytes > max && ws->message.wire_bytes - max > slack)
        return cv_ws_fail(ws, CV_WS_TOO_BIG, "message over the limit");
    return cv_ok();
}

/* Copies header bytes until there are `size` of them. False when the input ends before. */
static bool gather_head(struct cv_ws *ws, size_t size)
{
    size_t take = size - ws->head_len;
    if (take > ws->in_len)
        take = ws->in_len;
    if (take)
        memcpy(ws->head + ws->head_len, ws->in, take);
    ws->head_len += take;
    ws->in += take;
    ws->in_len -= take;
    return ws->head_len == size;
}

/* In three parts, each checked as soon as it is there: what comes behind a bad one is not awaited.
 */
static struct cv_status read_head(struct cv_ws *ws, struct cv_ws_event *event, bool *is_ready)
{
    (void)event;
    (void)is_ready;
    if (ws->head_len < 2) {
        if (!gather_head(ws, 2))
            return cv_status(CV_AGAIN);
        CV_RETURN_IF_ERROR(check_head_start(ws));
    }
    if (!ws->is_length_known) {
        if (!gather_head(ws, ws->head_size))
            return cv_status(CV_AGAIN);
        CV_RETURN_IF_ERROR(read_length(ws));
        if (!is_control(ws->frame.opcode))
            CV_RETURN_IF_ERROR(count_data_frame(ws));
        ws->is_length_known = true;
    }
    if (ws->options.role == CV_WS_SERVER) {
        if (!gather_head(ws, ws->head_size + CV_WS_MASK_LEN))
            return cv_status(CV_AGAIN);
        memcpy(ws->frame.mask, ws->head + ws->head_size, CV_WS_MASK_LEN);
    }
    ws->counters.received[ws->frame.opcode]++;
    ws->stage = is_control(ws->frame.opcode) ? CV_WS_READ_CONTROL : CV_WS_READ_DATA;
    return cv_ok();
}

/* ---- data ---- */

/* Takes what is there of the frame's payload out of the input, unmasked. */
static struct cv_slice take_payload(struct cv_ws *ws, size_t max)
{
    uint64_t left = ws->frame.len - ws->frame.done;
    size_t take = ws->in_len < max ? ws->in_len : max;
    if (take > left)
        take = (size_t)left;
    uint8_t *data = ws->in;
    if (ws->options.role == CV_WS_SERVER)
        cv_ws_mask(data, data, take, ws->frame.mask, ws->frame.done);
    ws->in += take;
    ws->in_len -= take;
    ws->frame.done += take;
    return cv_slice(data, take);
}

/* Makes a DATA event of payload as the application sees it, unless there is nothing to tell. */
static struct cv_status deliver(struct cv_ws *ws, struct cv_slice data, bool is_final,
                                struct cv_ws_event *event, bool *is_ready)
{
    ws->message.bytes += data.len;
    if (ws->message.is_compressed) {
        if (ws->message.bytes > ws->options.max_inflated_bytes ||
            (ws->options.max_message_bytes && ws->message.bytes > ws->options.max_message_bytes))
            return cv_ws_fail(ws, CV_WS_TOO_BIG, "message inflates over the limit");
    }
    if (ws->message.opcode == CV_WS_TEXT) {
        if (!cv_ws_utf8_feed(&ws->message.utf8, data) ||
            (is_final && !cv_ws_utf8_is_complete(&ws->message.utf8)))
            return cv_ws_fail(ws, CV_WS_BAD_UTF8, "text is not UTF-8");
    }
    if (data.len == 0 && !is_final)
        return cv_ok();
    *event = (struct cv_ws_event){
        .type = CV_WS_EVENT_DATA,
        .opcode = ws->message.opcode,
        .data = data,
        .is_first = !ws->message.is_announced,
        .is_final = is_final,
    };
    ws->message.is_announced = true;
    if (is_final)
        ws->message.opcode = CV_WS_CONTINUATION;
    *is_ready = true;
    return cv_ok();
}

static struct cv_status fail_inflate(struct cv_ws *ws, struct cv_status status)
{
    return cv_ws_fail(ws, status.id,
                      status.id == CV_WS_PROTOCOL ? "compressed data is damaged"
                                                  : "no memory to inflate");
}

/* The payload of this frame is all delivered, and the message goes on: or its compressed end. */
static struct cv_status end_frame(struct cv_ws *ws)
{
    if (!ws->frame.is_final || !ws->message.is_compressed) {
        begin_head(ws);
        return cv_ok();
    }
    struct cv_status status = cv_ws_inflater_end(&ws->inflater);
    if (!cv_is_ok(status))
        return fail_inflate(ws, status);
    ws->stage = CV_WS_READ_TAIL;
    return cv_ok();
}

static struct cv_status read_data(struct cv_ws *ws, struct cv_ws_event *event, bool *is_ready)
{
    bool has_all = ws->frame.done == ws->frame.len;
    if (!has_all && ws->in_len == 0)
        return cv_status(CV_AGAIN);
    if (ws->message.is_compressed) {
        if (has_all)
            return end_frame(ws);
        /* zlib counts in unsigned int. */
        struct cv_slice data = take_payload(ws, UINT32_MAX);
        struct cv_status status = cv_ws_inflater_feed(&ws->inflater, data);
        if (!cv_is_ok(status))
            return fail_inflate(ws, status);
        ws->stage = CV_WS_READ_INFLATE;
        return cv_ok();
    }
    struct cv_slice data = take_payload(ws, SIZE_MAX);
    has_all = ws->frame.done == ws->frame.len;
    bool is_final = has_all && ws->frame.is_final;
    if (has_all)
        begin_head(ws);
    return deliver(ws, data, is_final, event, is_ready);
}

static struct cv_status read_inflate(struct cv_ws *ws, struct cv_ws_event *event, bool *is_ready)
{
    struct cv_slice piece;
    bool is_drained;
    struct cv_status status = cv_ws_inflater_next(&ws->inflater, &piece, &is_drained);
    if (!cv_is_ok(status))
        return fail_inflate(ws, status);
    if (is_drained)
        ws->stage = CV_WS_READ_DATA;
    return deliver(ws, piece, false, event, is_ready);
}

static struct cv_status read_tail(struct cv_ws *ws, struct cv_ws_event *event, bool *is_ready)
{
    struct cv_slice piece;
    bool is_drained;
    struct cv_status status = cv_ws_inflater_next(&ws->inflater, &piece, &is_drained);
    if (!cv_is_ok(status))
        return fail_inflate(ws, status);
    if (is_drained)
        begin_head(ws);
    return deliver(ws, piece, is_drained, event, is_ready);
}

/* ---- control ---- */

static struct cv_status read_ping(struct cv_ws *ws, struct cv_slice data)
{
    /* Pings that come while an earlier one waits count only if the caller could have flushed in
     * between; otherwise a burst in one read would look like a peer that does not read. */
    if (!ws->ping.is_waiting) {
        ws->ping.is_waiting = true;
        ws->ping.since_feed = ws->feeds;
        ws->ping.ignored = 0;
    } else if (ws->ping.since_feed != ws->feeds &&
               ++ws->ping.ignored > ws->options.max_unanswered_pings) {
        return cv_ws_fail(ws, CV_WS_POLICY, "too many pings without reading the answers");
    }
    ws->ping.len = (uint8_t)data.len;
    memcpy(ws->ping.data, data.data, data.len);
    return cv_ok();
}

static struct cv_status read_close(struct cv_ws *ws, struct cv_slice data,
                                   struct cv_ws_event *event)
{
    event->code = CV_WS_NO_CODE;
    event->data = cv_slice(data.data, 0);
    if (data.len == 1)
        return cv_ws_fail(ws, CV_WS_PROTOCOL, "Close with half a code");
    if (data.len >= 2) {
        event->code = cv_get_u16(data.data);
        event->data = cv_slice(data.data + 2, data.len - 2);
        if (!cv_ws_close_code_is_valid(event->code))
            return cv_ws_fail(ws, CV_WS_PROTOCOL, "Close with an invalid code");
        struct cv_ws_utf8 utf8 = {0};
        if (!cv_ws_utf8_feed(&utf8, event->data) || !cv_ws_utf8_is_complete(&utf8))
            return cv_ws_fail(ws, CV_WS_BAD_UTF8, "Close reason is not UTF-8");
    }
    ws->close_received = event->code;
    cv_fsm_set(&ws->fsm, ws->is_close_sent ? CV_WS_CLOSED : CV_WS_CLOSE_RECEIVED);
    return cv_ok();
}

static struct cv_status read_control(struct cv_ws *ws, struct cv_ws_event *event, bool *is_ready)
{
    size_t at = (size_t)ws->frame.done;
    struct cv_slice part = take_payload(ws, CV_WS_CONTROL_MAX);
    if (part.len)
        memcpy(ws->control + at, part.data, part.len);
    if (ws->frame.done < ws->frame.len)
        return cv_status(CV_AGAIN);
    begin_head(ws);

    struct cv_slice data = cv_slice(ws->control, (size_t)ws->frame.len);
    *event = (struct cv_ws_event){.opcode = ws->frame.opcode, .data = data, .code = CV_WS_NO_CODE};
    switch (ws->frame.opcode) {
    case CV_WS_PING:
        event->type = CV_WS_EVENT_PING;
        CV_RETURN_IF_ERROR(read_ping(ws, data));
        break;
    case CV_WS_PONG:
        event->type = CV_WS_EVENT_PONG;
        break;
    default:
        event->type = CV_WS_EVENT_CLOSE;
        CV_RETURN_IF_ERROR(read_close(ws, data, event));
        break;
    }
    *is_ready = true;
    return cv_ok();
}

struct cv_status cv_ws_next(struct cv_ws *ws, struct cv_ws_event *event)
{
    static step_fn *const steps[] = {
        [CV_WS_READ_HEAD] = read_head,       [CV_WS_READ_DATA] = read_data,
        [CV_WS_READ_INFLATE] = read_inflate, [CV_WS_READ_TAIL] = read_tail,
        [CV_WS_READ_CONTROL] = read_control,
    };
    if (!cv_is_ok(ws->failure)) {
        ws->in_len = 0;
        return ws->failure;
    }
    enum cv_ws_state state = cv_ws_state(ws);
    if (state == CV_WS_CLOSE_RECEIVED || state == CV_WS_CLOSED)
        ws->in_len = 0; /* data behind a Close is ignored (§5.5.1) */
    struct cv_status status;
    bool is_ready = false;
    do
        status = steps[ws->stage](ws, event, &is_ready);
    while (cv_is_ok(status) && !is_ready);
    if (status.id == CV_AGAIN)
        cv_ws_inflater_rest(&ws->inflater);
    return status;
}
