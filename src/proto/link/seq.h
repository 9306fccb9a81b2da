/* SPDX-License-Identifier: MIT
 *
 * The byte count below SSH (docs/PROTOCOL.md, "culvert.v1"): what was sent and is not acknowledged
 * yet, what was received, and when an acknowledgement is due. No I/O; time comes in.
 *
 * The SSH engine writes its packets straight into `replay`. What lies there is, in this order:
 *
 *      acked            framed             end
 *        | on the wire,   | not handed to    |
 *        | not yet acked  | a socket yet     |
 *
 * so a lost socket costs nothing but setting `framed` back to what the peer says it has. The
 * buffer's cap is the backpressure: when it is full, SSH cannot write.
 *
 * Owns the replay buffer. One thread. With `is_resumable` false (subprotocol `ssh`) bytes are
 * dropped as soon as they are framed and nothing is acknowledged.
 */
#ifndef CV_PROTO_LINK_SEQ_H
#define CV_PROTO_LINK_SEQ_H

#include "base/buf.h"

enum {
    CV_LINK_ACK_BYTES = 64 * 1024, /* acknowledge at least every so many received bytes … */
    CV_LINK_ACK_MS = 250,          /* … and this long after the first unacknowledged one, … */
    /* … or so long where so many have come: a slow path that is full is judged by how long
     * acknowledgements take. */
    CV_LINK_ACK_SOON_BYTES = 4 * 1024,
    CV_LINK_ACK_SOON_MS = 50,
};

struct cv_link_seq {
    struct cv_buf replay;
    bool is_resumable;
    uint64_t acked;        /* offset of the first byte in replay */
    uint64_t framed;       /* offset of the first byte not handed to the socket */
    uint64_t received;     /* bytes taken from the peer */
    uint64_t ack_sent;     /* the last offset told to the peer */
    uint64_t ack_due_ms;   /* UINT64_MAX: nothing to acknowledge */
    uint64_t ack_since_ms; /* when the first unacknowledged byte came */
    uint64_t rtt_offset;   /* a sample runs until the peer acknowledges this offset; 0: none runs */
    uint64_t rtt_start_ms;
    uint64_t rtt_start_acked; /* what was acknowledged when it began */
    size_t sample_bytes;      /* the latest sample: what stood before its end … */
    uint32_t sample_ms;   /* … and how long that took, with the peer's delay; 0: was looked at */
    uint64_t last_ack_ms; /* when the peer last acknowledged something new, or framing restarted */
    uint32_t rtt_ms;      /* smoothed round trip time with the peer's delay in it; 0: unknown */
};

/* `cap_bytes`: the most that is kept for replay. */
void cv_link_seq_init(struct cv_link_seq *seq, bool is_resumable, size_t cap_bytes);
void cv_link_seq_done(struct cv_link_seq *seq);

/* Bytes that wait to be framed; the slice is valid until something is appended to replay. */
struct cv_slice cv_link_seq_unframed(const struct cv_link_seq *seq);

/* `len` of them were handed to the socket. */
void cv_link_seq_framed(struct cv_link_seq *seq, size_t len, uint64_t now_ms);

/* `len` bytes arrived from the peer. */
void cv_link_seq_received(struct cv_link_seq *seq, size_t len, uint64_t now_ms);

/* True when an acknowledgement should go out now, by bytes or by time. */
bool cv_link_seq_ack_is_due(const struct cv_link_seq *seq, uint64_t now_ms);

/* The offset to put into it; counts it as sent. */
uint64_t cv_link_seq_take_ack(struct cv_link_seq *seq);

/* The peer has everything up to `offset`. CV_WS_POLICY when it acknowledges what was never framed;
 * an offset that is behind the last one is ignored (acknowledgements are idempotent). */
struct cv_status cv_link_seq_acked(struct cv_link_seq *seq, uint64_t offset, uint64_t now_ms);

/* The latest sample of a round trip, once: how many bytes were acknowledged, and how long after the
 * last of them was framed (at least 1 ms). False: there is none that was not taken. */
bool cv_link_seq_take_sample(struct cv_link_seq *seq, size_t *bytes, uint32_t *ms);

/* After a resume: the peer has `offset` bytes; everything behind it will be framed again.
 * CV_WS_POLICY when the offset lies outside what is kept; nothing is changed then. */
struct cv_status cv_link_seq_rewind(struct cv_link_seq *seq, uint64_t offset, uint64_t now_ms);

/* Bytes framed and not acknowledged. */
static inline uint64_t cv_link_seq_in_flight(const struct cv_link_seq *seq)
{
    return seq->framed - seq->acked;
}

#endif
