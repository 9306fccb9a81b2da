/* SPDX-License-Identifier: MIT
 *
 * The engine's state, shared by ws.c (life, closing), ws_read.c (receiving) and ws_write.c
 * (sending). Internal to proto/ws.
 */
#ifndef CV_PROTO_WS_WS_INTERNAL_H
#define CV_PROTO_WS_WS_INTERNAL_H

#include "base/fsm.h"
#include "proto/ws/ws.h"
#include "proto/ws/ws_codec.h"
#include "proto/ws/ws_frame.h"
#include "proto/ws/ws_utf8.h"

enum cv_ws_stage {
    CV_WS_READ_HEAD,
    CV_WS_READ_DATA,    /* payload of a data frame */
    CV_WS_READ_INFLATE, /* what a piece of it inflates to */
    CV_WS_READ_TAIL,    /* what the end of the message inflates to */
    CV_WS_READ_CONTROL, /* payload of a control frame, gathered */
};

enum { CV_WS_MASK_POOL = 64 * CV_WS_MASK_LEN };

struct cv_ws {
    struct cv_ws_options options;
    struct cv_fsm fsm; /* enum cv_ws_state */
    struct cv_ws_counters counters;

    struct cv_status failure; /* CV_OK while there is none */
    const char *failure_text;

    /* Receiving. */
    uint8_t *in; /* borrowed */
    size_t in_len;
    uint64_t feeds; /* how often something was fed */
    enum cv_ws_stage stage;
    uint8_t head[CV_WS_HEAD_MAX];
    size_t head_len;      /* gathered */
    size_t head_size;     /* of the header without its mask, once two bytes are there */
    bool is_length_known; /* and good */
    struct {
        enum cv_ws_opcode opcode;
        bool is_final;
        uint8_t mask[CV_WS_MASK_LEN]; /* zeros in a client */
        uint64_t len, done;           /* payload declared; read */
    } frame;
    struct {
        enum cv_ws_opcode opcode; /* CV_WS_CONTINUATION: no message is open */
        bool is_compressed;
        bool is_announced; /* an event told its beginning */
        uint32_t fragments;
        uint64_t wire_bytes, bytes; /* as sent; as delivered */
        struct cv_ws_utf8 utf8;
    } message;
    uint8_t control[CV_WS_CONTROL_MAX]; /* payload of the current control frame */
    struct cv_ws_inflater inflater;

    /* The newest ping without answer. */
    struct {
        bool is_waiting;
        uint8_t len;
        uint8_t data[CV_WS_CONTROL_MAX];
        uint64_t since_feed; /* value of `feeds` when the first one had to wait */
        uint32_t ignored;    /* pings in later feeds */
    } ping;

    /* Sending. */
    uint64_t appended;          /* bytes ever appended to the caller's buffer */
    uint64_t last_pong_at;      /* `appended` behind the newest pong */
    uint32_t pongs_pending;     /* not known to have left the buffer */
    enum cv_ws_opcode sending;  /* kind of the message being sent; CV_WS_CONTINUATION: none */
    bool is_sending_compressed; /* … and its compression */
    bool is_close_sent;
    uint16_t close_received;      /* its code; read in CLOSE_RECEIVED */
    size_t begun_head, begun_len; /* by cv_ws_send_begin */
    struct cv_ws_deflater deflater;
    uint8_t masks[CV_WS_MASK_POOL]; /* random bytes, used from `masks_used` on */
    size_t masks_used;
};

/* Records that the peer broke a rule; the first one counts. Returns the status. */
struct cv_status cv_ws_fail(struct cv_ws *ws, enum cv_status_id id, const char *text);

#endif
