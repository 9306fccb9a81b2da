/* SPDX-License-Identifier: MIT
 *
 * What the parts of the WebSocket harness share: the layout of an input, and what a receiver says
 * in one form, so that two receivers are compared byte for byte.
 *
 * An input is three bytes that choose options, one that chooses where the wire is cut, and the
 * wire: byte 0   CV_WS_FUZZ_… bits byte 1   where to cut byte 2   window bits: low nibble the
 * server's, high nibble the client's (8 + n % 8) rest     frames; with CV_WS_FUZZ_FIELDS the value
 * of a header field
 */
#ifndef CV_PROTO_WS_WS_FUZZING_H
#define CV_PROTO_WS_WS_FUZZING_H

#include "base/buf.h"
#include "base/bytes.h"
#include "base/fuzz.h"
#include "proto/ws/ws.h"

enum { CV_WS_FUZZ_PREFIX = 3 };

enum {
    CV_WS_FUZZ_SERVER = 1,
    CV_WS_FUZZ_DEFLATE = 2,
    CV_WS_FUZZ_SERVER_NO_TAKEOVER = 4,
    CV_WS_FUZZ_CLIENT_NO_TAKEOVER = 8,
    CV_WS_FUZZ_BINARY_ONLY = 16, /* as the relay's link, which takes no text */
    CV_WS_FUZZ_SMALL_CAPS = 32,
    CV_WS_FUZZ_ECHO_PLAIN = 64, /* echo without compression */
    CV_WS_FUZZ_FIELDS = 128,
};

static inline void cv_ws_fuzz_note(struct cv_buf *said, uint8_t kind, struct cv_slice data)
{
    uint8_t head[5] = {kind};
    cv_put_u32(head + 1, (uint32_t)data.len);
    cv_fuzz_must(cv_is_ok(cv_buf_append(said, head, sizeof head)));
    cv_fuzz_must(cv_is_ok(cv_buf_append_slice(said, data)));
}

/* Kinds of notes: T, B a whole message; P, O ping and pong; C Close, code first; F how it failed.
 */
static inline void cv_ws_fuzz_note_close(struct cv_buf *said, uint16_t code, struct cv_slice reason)
{
    uint8_t both[2 + CV_WS_CONTROL_MAX];
    cv_put_u16(both, code);
    if (reason.len)
        memcpy(both + 2, reason.data, reason.len);
    cv_ws_fuzz_note(said, 'C', cv_slice(both, 2 + reason.len));
}

static inline void cv_ws_fuzz_note_failure(struct cv_buf *said, enum cv_status_id id)
{
    uint16_t code = (uint16_t)cv_status_ws_close(id);
    cv_ws_fuzz_note(said, 'F', cv_slice(&code, sizeof code));
}

/* What a receiver with `options`, which have no deflate, must say to `wire`: RFC 6455 read anew,
 * one whole frame at a time, sharing no code with the engine. */
void cv_ws_fuzz_model(const struct cv_ws_options *options, struct cv_slice wire,
                      struct cv_buf *said);

#endif
