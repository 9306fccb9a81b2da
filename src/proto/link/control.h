/* SPDX-License-Identifier: MIT
 *
 * The control messages of a link: small JSON objects in WebSocket text frames (docs/PROTOCOL.md).
 * They are outside the byte count, idempotent, and at most CV_LINK_CONTROL_MAX bytes. Encode and
 * decode live here. Owns nothing; any thread.
 */
#ifndef CV_PROTO_LINK_CONTROL_H
#define CV_PROTO_LINK_CONTROL_H

#include "base/buf.h"

enum { CV_LINK_CONTROL_MAX = 16 * 1024, CV_LINK_TEXT_MAX = 255 };

/* X(NAME, wire name) */
#define CV_LINK_CONTROL_TABLE(X)                                                                   \
    X(ACK, "ack")       /* received: offset */                                                     \
    X(NOTICE, "notice") /* code, tunnel, message, after_ms: something the person should know */    \
    X(TOKEN, "token")   /* token: a fresh JWT, agent to relay */                                   \
    X(EVENT, "event")   /* code, message: something that happened, for the peer's log */           \
    X(BYE, "bye")       /* code, message: the sender will close the link on purpose */

enum cv_link_control_type {
#define CV_LINK_CONTROL_ENUM(name, text) CV_LINK_##name,
    CV_LINK_CONTROL_TABLE(CV_LINK_CONTROL_ENUM)
#undef CV_LINK_CONTROL_ENUM
        CV_LINK_CONTROL_COUNT
};

struct cv_link_control {
    enum cv_link_control_type type;
    uint64_t received;                  /* ack */
    uint64_t after_ms;                  /* notice: act no later than this; 0: now */
    char code[64];                      /* notice, event, bye: a fixed word such as "replaced" */
    char tunnel[64];                    /* notice: the tunnel it is about, or "" */
    char message[CV_LINK_TEXT_MAX + 1]; /* for a person; control characters are removed */
    char token[8193];                   /* token */
};

/* Appends the JSON text to `out`. CV_NO_RESOURCES or CV_NO_MEMORY leave `out` as it was. */
struct cv_status cv_link_control_encode(const struct cv_link_control *control, struct cv_buf *out);

/* The text of an ack, into `space`, which the slice points to. */
enum { CV_LINK_ACK_TEXT_MAX = 64 };
struct cv_slice cv_link_ack_encode(uint64_t received, char space[CV_LINK_ACK_TEXT_MAX]);

/* CV_WS_POLICY for what is not an object, too long, of an unknown shape or with a value out of
 * range, CV_NO_MEMORY. CV_AGAIN for a type that is not known: to be ignored, so that later versions
 * may add some.
 */
struct cv_status cv_link_control_decode(struct cv_slice text, struct cv_link_control *control);

#endif
