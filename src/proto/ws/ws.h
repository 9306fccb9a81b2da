/* SPDX-License-Identifier: MIT
 *
 * WebSocket framing after the upgrade, client and server (RFC 6455), with permessage-deflate (RFC
 * 7692). No I/O: bytes in, events out; frames are appended to a buffer of the caller's.
 *
 *     cv_ws_feed(ws, data, len);
 *     while (cv_is_ok(status = cv_ws_next(ws, &event)))
 *         … handle event; on PING and whenever `out` was flushed: cv_ws_answer_ping(ws, out) …
 *     if (status.id != CV_AGAIN)
 *         … cv_ws_send_close(ws, out, cv_ws_failure_code(ws), …), flush, close the connection …
 *
 * Owns its zlib contexts; borrows what is fed until cv_ws_next says CV_AGAIN, and changes it in
 * place (unmasking). Payload is streamed: a message costs no memory however long it is, and a
 * length that a peer declares costs none either. Caps: see struct cv_ws_options. Nothing is
 * allocated per frame. One thread at a time; engines share nothing.
 */
#ifndef CV_PROTO_WS_WS_H
#define CV_PROTO_WS_WS_H

#include "base/buf.h"
#include "base/slice.h"
#include "base/status.h"
#include "proto/ws/ws_deflate.h"

struct cv_fsm_def;

/* The lifecycle as a table, for docs/STATES.md. */
extern const struct cv_fsm_def cv_ws_states;

enum cv_ws_role { CV_WS_CLIENT, CV_WS_SERVER };

/* RFC 6455 §5.2 */
enum cv_ws_opcode {
    CV_WS_CONTINUATION = 0x0,
    CV_WS_TEXT = 0x1,
    CV_WS_BINARY = 0x2,
    CV_WS_CLOSE = 0x8,
    CV_WS_PING = 0x9,
    CV_WS_PONG = 0xA,
};

enum {
    CV_WS_HEAD_MAX = 14,     /* longest frame header: 2 + 8 (length) + 4 (mask) */
    CV_WS_CONTROL_MAX = 125, /* longest control payload (RFC 6455 §5.5) */
    CV_WS_REASON_MAX = 123,  /* longest close reason */
    CV_WS_NO_CODE = 1005,    /* "no status received" (RFC 6455 §7.4.1), never on the wire */
};

/* OPEN          data flows both ways
 * CLOSE_SENT    we sent Close; what the peer still sends is delivered until its Close
 * CLOSE_RECEIVED the peer sent Close; answer with cv_ws_send_close, its further bytes are dropped
 * FAILED        the peer broke a rule; cv_ws_send_close tells it why, then cut the connection
 * CLOSED        nothing more either way: the server closes the TCP connection (RFC 6455 §7.1.1) */
enum cv_ws_state {
    CV_WS_OPEN,
    CV_WS_CLOSE_SENT,
    CV_WS_CLOSE_RECEIVED,
    CV_WS_FAILED,
    CV_WS_CLOSED,
    CV_WS_STATE_COUNT
};

struct cv_ws_options {
    enum cv_ws_role role;
    uint64_t max_frame_bytes;   /* payload of one frame on the wire; more is CV_WS_TOO_BIG */
    uint64_t max_message_bytes; /* of one message as delivered; 0: no limit */
    uint32_t max_fragments;     /* frames of one message; more is CV_WS_POLICY */
    uint32_t max_pending_pongs; /* pongs that wait in `out`; pings beyond collapse to the newest */
    uint32_t max_unanswered_pings;       /* pings while those wait unread; more is CV_WS_POLICY */
    bool accepts_text;                   /* otherwise a text message is CV_WS_UNSUPPORTED */
    bool accepts_binary;                 /* otherwise a binary message is CV_WS_UNSUPPORTED */
    struct cv_ws_deflate_params deflate; /* as negotiated; zeroed: no extension */
    uint64_t max_inflated_bytes;         /* of one compressed message; more is CV_WS_TOO_BIG */
    int deflate_level;                   /* 1 fast … 9 small */
};

/* The defaults: frames to 1 MiB, messages without limit, 4,096 fragments, 64 pongs, 1,024
 * unanswered pings, text and binary accepted, no deflate, 16 MiB inflated, level 6. */
void cv_ws_options_init(struct cv_ws_options *options, enum cv_ws_role role);

struct cv_ws;

/* NULL without memory or when deflate window bits are outside 8–15. The options are copied. zlib's
 * contexts (up to 300 KiB) are made with the first compressed message each way. */
struct cv_ws *cv_ws_new(const struct cv_ws_options *options);
void cv_ws_free(struct cv_ws **ws);

/* ---- receiving ---- */

enum cv_ws_event_type { CV_WS_EVENT_DATA, CV_WS_EVENT_PING, CV_WS_EVENT_PONG, CV_WS_EVENT_CLOSE };

struct cv_ws_event {
    enum cv_ws_event_type type;
    enum cv_ws_opcode opcode; /* DATA: CV_WS_TEXT or CV_WS_BINARY */
    struct cv_slice data;     /* DATA: a piece; PING, PONG: application data; CLOSE: reason */
    bool is_first;            /* DATA: begins a message */
    bool is_final;            /* DATA: ends it; the piece may be empty */
    uint16_t code;            /* CLOSE: as received, CV_WS_NO_CODE when the frame was empty */
};

/* Hands over bytes from the peer. Borrowed and modified until cv_ws_next returns CV_AGAIN or a
 * failure; feeding earlier is a mistake of the caller (asserted). */
void cv_ws_feed(struct cv_ws *ws, uint8_t *data, size_t len);

/* The next event. CV_OK: *event is filled, its slices hold until the next call on `ws`. CV_AGAIN:
 * all input is consumed. Anything else: the peer broke a rule (or memory ran out, CV_NO_MEMORY);
 * the remaining input is dropped and every later call returns the same status. After the peer's
 * Close, input is dropped and the answer is CV_AGAIN.
 *
 * DATA comes in pieces as it arrives, whatever the frames. Text is checked as UTF-8 across pieces
 * and fails at the first byte that cannot be right (RFC 6455 §8.1), so a piece may end inside a
 * character, and a message that began may fail.
 *
 * CV_WS_PROTOCOL: RSV bits, reserved opcodes, masking of the wrong side, lengths not minimal or
 * over 2^63-1, control frames fragmented or over 125 bytes, continuation out of place, bad Close
 * payload, undecodable compressed data (RFC 6455 §5.2–5.5, 7.4; RFC 7692 §6, §7.2.2).
 * CV_WS_TOO_BIG, CV_WS_UNSUPPORTED, CV_WS_POLICY: see the options. CV_WS_BAD_UTF8: text or Close
 * reason. */
struct cv_status cv_ws_next(struct cv_ws *ws, struct cv_ws_event *event);

enum cv_ws_state cv_ws_state(const struct cv_ws *ws);

/* After a failure: the close code for it, and one sentence for the log and the Close reason (a
 * static string). CV_WS_NO_CODE and "" before. */
uint16_t cv_ws_failure_code(const struct cv_ws *ws);
const char *cv_ws_failure_text(const struct cv_ws *ws);

/* Whether `code` may stand in a Close frame: 1000–1003, 1007–1014, 3000–4999 (RFC 6455 §7.4 and the
 * IANA registry). */
bool cv_ws_close_code_is_valid(unsigned code);

/* Frames so far by opcode, as counters for metrics. */
struct cv_ws_counters {
    uint64_t received[16];
    uint64_t sent[16];
};
const struct cv_ws_counters *cv_ws_counters(const struct cv_ws *ws);

/* ---- sending ----
 * Each call appends one whole frame to `out`, with the shortest length encoding and, as a client,
 * masked while it is copied. Use one `out` per engine and let only the engine append to it. Common
 * failures, after which nothing was appended and the engine is as before: CV_NO_RESOURCES when
 * `out` has no room (flush and try again), CV_NO_MEMORY, CV_INVALID for arguments out of order,
 * CV_EOF when Close was sent or received (or the peer failed) and so no such frame may follow. */

enum {
    CV_WS_FIN = 1,      /* this frame ends the message */
    CV_WS_COMPRESS = 2, /* deflate the message; read on its first frame, ignored without deflate */
};

/* One frame of a message of kind `opcode` (TEXT or BINARY, the same for all its frames:
 * CONTINUATION is written by the engine from the second on). Text must be UTF-8; it is not checked.
 * Compressed frames want room for cv_ws_frame_room(payload.len). CV_INTERNAL: the compressor
 * failed, the engine can send no more messages compressed: close the connection. */
struct cv_status cv_ws_send(struct cv_ws *ws, struct cv_buf *out, enum cv_ws_opcode opcode,
                            unsigned flags, struct cv_slice payload);

/* The same in two steps for who writes payload straight into the frame: begin gives `max_len` bytes
 * in `out` (up to max_len + CV_WS_HEAD_MAX of its room), end makes a frame of the first `len`.
 * Nothing else may touch `out` or send in between; without an end, begin had no effect. Never
 * compressed; CV_INVALID inside a compressed message. */
struct cv_status cv_ws_send_begin(struct cv_ws *ws, struct cv_buf *out, size_t max_len,
                                  uint8_t **payload);
struct cv_status cv_ws_send_end(struct cv_ws *ws, struct cv_buf *out, enum cv_ws_opcode opcode,
                                unsigned flags, size_t len);

/* Room in `out` that is surely enough for one frame of `len` bytes, compressed or not. */
size_t cv_ws_frame_room(size_t len);

/* Control frames; `payload` at most CV_WS_CONTROL_MAX bytes. They may stand between the frames of a
 * message (RFC 6455 §5.4). */
struct cv_status cv_ws_send_ping(struct cv_ws *ws, struct cv_buf *out, struct cv_slice payload);
struct cv_status cv_ws_send_pong(struct cv_ws *ws, struct cv_buf *out, struct cv_slice payload);

/* Answers the newest ping not yet answered, if there is one and fewer than max_pending_pongs pongs
 * of this engine still wait in `out`; otherwise keeps it for a later call (older ones are
 * forgotten, RFC 6455 §5.5.3). Call it at each PING event and after flushing `out`. A peer that
 * goes on pinging without reading is failed by cv_ws_next (CV_WS_POLICY): only pings that come in a
 * later feed than the one left unanswered count, so that a burst which the caller had no chance to
 * answer does not. CV_OK also when nothing was to be done; CV_NO_RESOURCES is not an error here and
 * never returned. */
struct cv_status cv_ws_answer_ping(struct cv_ws *ws, struct cv_buf *out);

/* Close with `code` and a UTF-8 `reason`, cut at CV_WS_REASON_MAX bytes (at a character).
 * CV_WS_NO_CODE sends an empty Close (the reason is left out). The answer to a Close has the code
 * of that one, whatever `code` is, and is empty when that was (RFC 6455 §5.5.1). CV_INVALID for a
 * code that may not be sent, CV_EOF when a Close went out already. Moves OPEN to CLOSE_SENT,
 * CLOSE_RECEIVED and FAILED to CLOSED. */
struct cv_status cv_ws_send_close(struct cv_ws *ws, struct cv_buf *out, uint16_t code,
                                  struct cv_slice reason);

#endif
