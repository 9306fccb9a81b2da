/* SPDX-License-Identifier: MIT
 *
 * Sending: one call, one whole frame behind what `out` holds.
 */
#include "proto/ws/ws_internal.h"

#include "base/bytes.h"
#include "base/digest.h"

/* Room for `len` bytes, or why there is none. */
static struct cv_status reserve(struct cv_buf *out, size_t len, uint8_t **to)
{
    if (len > cv_buf_room(out))
        return cv_status(CV_NO_RESOURCES);
    *to = cv_buf_reserve(out, len);
    return cv_status(*to ? CV_OK : CV_NO_MEMORY);
}

static void commit(struct cv_ws *ws, struct cv_buf *out, enum cv_ws_opcode opcode, size_t len)
{
    cv_buf_commit(out, len);
    ws->appended += len;
    ws->counters.sent[opcode]++;
}

/* A mask nobody can foresee for each frame of a client (§5.3, §10.3), NULL for a server. */
static const uint8_t *next_mask(struct cv_ws *ws)
{
    if (ws->options.role == CV_WS_SERVER)
        return NULL;
    if (ws->masks_used == sizeof ws->masks) {
        cv_random(ws->masks, sizeof ws->masks);
        ws->masks_used = 0;
    }
    const uint8_t *mask = ws->masks + ws->masks_used;
    ws->masks_used += CV_WS_MASK_LEN;
    return mask;
}

static bool is_client(const struct cv_ws *ws)
{
    return ws->options.role == CV_WS_CLIENT;
}

/* Writes a frame whose payload is elsewhere: header, then the payload masked while it is copied. */
static struct cv_status put_frame(struct cv_ws *ws, struct cv_buf *out, uint8_t first,
                                  struct cv_slice payload)
{
    size_t head = cv_ws_head_size(payload.len, is_client(ws));
    if (payload.len > SIZE_MAX - head)
        return cv_status(CV_NO_RESOURCES);
    uint8_t *to;
    CV_RETURN_IF_ERROR(reserve(out, head + payload.len, &to));
    const uint8_t *mask = next_mask(ws);
    (void)cv_ws_head_write(to, first, payload.len, mask);
    if (mask)
        cv_ws_mask(to + head, payload.data, payload.len, mask, 0);
    else if (payload.len)
        memcpy(to + head, payload.data, payload.len);
    commit(ws, out, first & CV_WS_BITS_OPCODE, head + payload.len);
    return cv_ok();
}

/* Makes a frame of `len` bytes of payload that stand `gap` bytes behind the end of `out`, in room
 * that was reserved: moved down if the header turns out shorter than the gap. */
static void close_frame(struct cv_ws *ws, struct cv_buf *out, uint8_t first, size_t gap, size_t len)
{
    uint8_t *to = cv_buf_head(out) + cv_buf_len(out);
    size_t head = cv_ws_head_size(len, is_client(ws));
    if (head != gap)
        memmove(to + head, to + gap, len);
    const uint8_t *mask = next_mask(ws);
    (void)cv_ws_head_write(to, first, len, mask);
    if (mask)
        cv_ws_mask(to + head, to + head, len, mask, 0);
    commit(ws, out, first & CV_WS_BITS_OPCODE, head + len);
}

/* ---- data ---- */

/* Whether a data frame of this kind may go out now (§5.4: one message at a time). */
static struct cv_status check_data(const struct cv_ws *ws, enum cv_ws_opcode opcode)
{
    if (opcode != CV_WS_TEXT && opcode != CV_WS_BINARY)
        return cv_status(CV_INVALID);
    if (ws->sending != CV_WS_CONTINUATION && ws->sending != opcode)
        return cv_status(CV_INVALID);
    return cv_status(cv_ws_state(ws) == CV_WS_OPEN ? CV_OK : CV_EOF);
}

/* First byte of the next data frame. */
static uint8_t data_head(const struct cv_ws *ws, enum cv_ws_opcode opcode, unsigned flags,
                         bool is_compressed)
{
    uint8_t first = (uint8_t)(flags & CV_WS_FIN ? CV_WS_BIT_FIN : 0);
    if (ws->sending != CV_WS_CONTINUATION)
        return first | CV_WS_CONTINUATION;
    return (uint8_t)(first | opcode | (is_compressed ? CV_WS_BIT_RSV1 : 0));
}

static void note_data_sent(struct cv_ws *ws, enum cv_ws_opcode opcode, unsigned flags,
                           bool is_compressed)
{
    ws->sending = flags & CV_WS_FIN ? CV_WS_CONTINUATION : opcode;
    ws->is_sending_compressed = is_compressed;
}

static struct cv_status put_compressed(struct cv_ws *ws, struct cv_buf *out, uint8_t first,
                                       struct cv_slice payload)
{
    uint8_t *to;
    /* zlib counts in unsigned int, and the bound has to fit as well. */
    if (payload.len > UINT32_MAX / 2)
        return cv_status(CV_NO_RESOURCES);
    CV_RETURN_IF_ERROR(reserve(out, cv_ws_frame_room(payload.len), &to));
    CV_RETURN_IF_ERROR(cv_ws_deflater_prepare(&ws->deflater));
    size_t len;
    CV_RETURN_IF_ERROR(cv_ws_deflater_run(&ws->deflater, payload, (first & CV_WS_BIT_FIN) != 0,
                                          to + CV_WS_HEAD_MAX, &len));
    close_frame(ws, out, first, CV_WS_HEAD_MAX, len);
    return cv_ok();
}

struct cv_status cv_ws_send(struct cv_ws *ws, struct cv_buf *out, enum cv_ws_opcode opcode,
                            unsigned flags, struct cv_slice payload)
{
    CV_RETURN_IF_ERROR(check_data(ws, opcode));
    bool is_compressed = ws->sending != CV_WS_CONTINUATION
                             ? ws->is_sending_compressed
                             : ws->options.deflate.is_enabled && (flags & CV_WS_COMPRESS) != 0;
    uint8_t first = data_head(ws, opcode, flags, is_compressed);
    if (is_compressed)
        CV_RETURN_IF_ERROR(put_compressed(ws, out, first, payload));
    else
        CV_RETURN_IF_ERROR(put_frame(ws, out, first, payload));
    note_data_sent(ws, opcode, flags, is_compressed);
    return cv_ok();
}

size_t cv_ws_frame_room(size_t len)
{
    return CV_WS_HEAD_MAX + cv_ws_deflate_bound(len);
}

struct cv_status cv_ws_send_begin(struct cv_ws *ws, struct cv_buf *out, size_t max_len,
                                  uint8_t **payload)
{
    if (cv_ws_state(ws) != CV_WS_OPEN)
        return cv_status(CV_EOF);
    if (max_len > SIZE_MAX - CV_WS_HEAD_MAX)
        return cv_status(CV_NO_RESOURCES);
    size_t head = cv_ws_head_size(max_len, is_client(ws));
    uint8_t *to;
    CV_RETURN_IF_ERROR(reserve(out, head + max_len, &to));
    ws->begun_head = head;
    ws->begun_len = max_len;
    *payload = to + head;
    return cv_ok();
}

struct cv_status cv_ws_send_end(struct cv_ws *ws, struct cv_buf *out, enum cv_ws_opcode opcode,
                                unsigned flags, size_t len)
{
    CV_RETURN_IF_ERROR(check_data(ws, opcode));
    bool is_inside_compressed = ws->sending != CV_WS_CONTINUATION && ws->is_sending_compressed;
    if (is_inside_compressed || ws->begun_head == 0 || len > ws->begun_len)
        return cv_status(CV_INVALID);
    close_frame(ws, out, data_head(ws, opcode, flags, false), ws->begun_head, len);
    ws->begun_head = 0;
    note_data_sent(ws, opcode, flags, false);
    return cv_ok();
}

/* ---- control ---- */

static struct cv_status put_control(struct cv_ws *ws, struct cv_buf *out, enum cv_ws_opcode opcode,
                                    struct cv_slice payload)
{
    if (payload.len > CV_WS_CONTROL_MAX)
        return cv_status(CV_INVALID);
    return put_frame(ws, out, (uint8_t)(CV_WS_BIT_FIN | opcode), payload);
}

struct cv_status cv_ws_send_ping(struct cv_ws *ws, struct cv_buf *out, struct cv_slice payload)
{
    if (cv_ws_state(ws) != CV_WS_OPEN)
        return cv_status(CV_EOF);
    return put_control(ws, out, CV_WS_PING, payload);
}

struct cv_status cv_ws_send_pong(struct cv_ws *ws, struct cv_buf *out, struct cv_slice payload)
{
    if (cv_ws_state(ws) != CV_WS_OPEN)
        return cv_status(CV_EOF);
    return put_control(ws, out, CV_WS_PONG, payload);
}

struct cv_status cv_ws_answer_ping(struct cv_ws *ws, struct cv_buf *out)
{
    if (!ws->ping.is_waiting || cv_ws_state(ws) != CV_WS_OPEN)
        return cv_ok();
    /* What is not in `out` any more was flushed; when that covers the newest pong, none is left. */
    size_t held = cv_buf_len(out);
    uint64_t flushed = ws->appended > held ? ws->appended - held : 0;
    if (flushed >= ws->last_pong_at)
        ws->pongs_pending = 0;
    if (ws->pongs_pending >= ws->options.max_pending_pongs)
        return cv_ok();
    struct cv_status status = cv_ws_send_pong(ws, out, cv_slice(ws->ping.data, ws->ping.len));
    if (status.id == CV_NO_RESOURCES)
        return cv_ok();
    CV_RETURN_IF_ERROR(status);
    ws->ping.is_waiting = false;
    ws->pongs_pending++;
    ws->last_pong_at = ws->appended;
    return cv_ok();
}

struct cv_status cv_ws_send_close(struct cv_ws *ws, struct cv_buf *out, uint16_t code,
                                  struct cv_slice reason)
{
    if (ws->is_close_sent)
        return cv_status(CV_EOF);
    uint8_t payload[CV_WS_CONTROL_MAX];
    size_t len = 0;
    if (code != CV_WS_NO_CODE && !cv_ws_close_code_is_valid(code))
        return cv_status(CV_INVALID);
    if (cv_ws_state(ws) == CV_WS_CLOSE_RECEIVED)
        code = ws->close_received;
    if (code != CV_WS_NO_CODE) {
        reason = cv_ws_utf8_cut(reason, CV_WS_REASON_MAX);
        cv_put_u16(payload, code);
        if (reason.len)
            memcpy(payload + 2, reason.data, reason.len);
        len = 2 + reason.len;
    }
    CV_RETURN_IF_ERROR(put_control(ws, out, CV_WS_CLOSE, cv_slice(payload, len)));
    ws->is_close_sent = true;
    cv_fsm_set(&ws->fsm, cv_ws_state(ws) == CV_WS_OPEN ? CV_WS_CLOSE_SENT : CV_WS_CLOSED);
    return cv_ok();
}
