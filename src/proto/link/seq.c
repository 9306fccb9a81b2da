/* SPDX-License-Identifier: MIT */
#include "proto/link/seq.h"

void cv_link_seq_init(struct cv_link_seq *seq, bool is_resumable, size_t cap_bytes)
{
    *seq = (struct cv_link_seq){.is_resumable = is_resumable, .ack_due_ms = UINT64_MAX};
    cv_buf_init(&seq->replay, cap_bytes);
}

void cv_link_seq_done(struct cv_link_seq *seq)
{
    cv_buf_done(&seq->replay);
}

struct cv_slice cv_link_seq_unframed(const struct cv_link_seq *seq)
{
    size_t skip = (size_t)(seq->framed - seq->acked);
    struct cv_slice all = cv_buf_slice(&seq->replay);
    return all.len > skip ? cv_slice(all.data + skip, all.len - skip) : cv_slice(NULL, 0);
}

void cv_link_seq_framed(struct cv_link_seq *seq, size_t len, uint64_t now_ms)
{
    if (!seq->is_resumable) {
        seq->framed += len;
        seq->acked = seq->framed;
        cv_buf_consume(&seq->replay, len);
        return;
    }
    if (seq->framed == seq->acked)
        seq->last_ack_ms = now_ms;
    seq->framed += len;
    if (!seq->rtt_offset && len) {
        seq->rtt_offset = seq->framed;
        seq->rtt_start_ms = now_ms;
        seq->rtt_start_acked = seq->acked;
    }
}

void cv_link_seq_received(struct cv_link_seq *seq, size_t len, uint64_t now_ms)
{
    seq->received += len;
    if (!seq->is_resumable || !len)
        return;
    if (seq->ack_due_ms == UINT64_MAX) {
        seq->ack_since_ms = now_ms;
        seq->ack_due_ms = now_ms + CV_LINK_ACK_MS;
    }
    if (seq->received - seq->ack_sent >= CV_LINK_ACK_SOON_BYTES)
        seq->ack_due_ms = seq->ack_since_ms + CV_LINK_ACK_SOON_MS;
}

bool cv_link_seq_ack_is_due(const struct cv_link_seq *seq, uint64_t now_ms)
{
    return seq->is_resumable &&
           (seq->received - seq->ack_sent >= CV_LINK_ACK_BYTES || now_ms >= seq->ack_due_ms);
}

uint64_t cv_link_seq_take_ack(struct cv_link_seq *seq)
{
    seq->ack_sent = seq->received;
    seq->ack_due_ms = UINT64_MAX;
    return seq->received;
}

static void sample_rtt(struct cv_link_seq *seq, uint64_t now_ms)
{
    uint64_t sample = now_ms - seq->rtt_start_ms;
    uint32_t rtt_ms = sample > 600000 ? 600000 : (uint32_t)sample;
    /* RFC 6298 §2: smoothing by an eighth. */
    seq->rtt_ms = seq->rtt_ms ? (seq->rtt_ms * 7 + rtt_ms + 4) / 8 : rtt_ms + !rtt_ms;
    seq->sample_bytes = (size_t)(seq->rtt_offset - seq->rtt_start_acked);
    seq->sample_ms = rtt_ms + !rtt_ms;
    seq->rtt_offset = 0;
}

bool cv_link_seq_take_sample(struct cv_link_seq *seq, size_t *bytes, uint32_t *ms)
{
    *bytes = seq->sample_bytes;
    *ms = seq->sample_ms;
    seq->sample_ms = 0;
    return *ms != 0;
}

struct cv_status cv_link_seq_acked(struct cv_link_seq *seq, uint64_t offset, uint64_t now_ms)
{
    if (!seq->is_resumable || offset > seq->framed)
        return cv_status(CV_WS_POLICY);
    if (offset <= seq->acked)
        return cv_ok();
    cv_buf_consume(&seq->replay, (size_t)(offset - seq->acked));
    seq->acked = offset;
    seq->last_ack_ms = now_ms;
    if (seq->rtt_offset && offset >= seq->rtt_offset)
        sample_rtt(seq, now_ms);
    return cv_ok();
}

struct cv_status cv_link_seq_rewind(struct cv_link_seq *seq, uint64_t offset, uint64_t now_ms)
{
    if (offset < seq->acked || offset > seq->framed)
        return cv_status(CV_WS_POLICY);
    seq->rtt_offset = 0; /* what was away is no round trip */
    CV_RETURN_IF_ERROR(cv_link_seq_acked(seq, offset, now_ms));
    seq->framed = seq->acked;
    seq->last_ack_ms = now_ms;
    return cv_ok();
}
