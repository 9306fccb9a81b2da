/* SPDX-License-Identifier: MIT
 *
 * Two ends of a link's byte count with a socket between them that breaks whenever the input says
 * so, and acknowledgements of any value from a peer that lies. Checked against a model: the bytes
 * that arrive are the bytes that were written, each once, whatever was lost; what is kept stays
 * within its cap; a lie changes nothing.
 *
 * The input is a list of steps: a byte that says what happens, a byte that says how much.
 */
#include "base/fuzz.h"
#include "proto/link/seq.h"

enum { CAP = 1024, WIRE_MAX = 2 * CAP };

struct world {
    struct cv_link_seq from, to;
    uint64_t now_ms;
    uint64_t written;   /* by the sender, in all */
    uint64_t arrived;   /* at the receiver, in all */
    uint64_t wire_from; /* offset of the first byte on the wire */
    size_t wire_len;    /* and how many there are */
    uint64_t acks[16];  /* on the way back */
    size_t ack_count;
};

/* Every offset has its own byte, so that a byte out of place is seen. */
static uint8_t byte_at(uint64_t offset)
{
    return (uint8_t)(offset * 2654435761U >> 13);
}

static void write_some(struct world *w, size_t want)
{
    size_t room = cv_buf_room(&w->from.replay);
    size_t len = want < room ? want : room;
    for (size_t i = 0; i < len; i++) {
        uint8_t byte = byte_at(w->written++);
        cv_fuzz_must(cv_is_ok(cv_buf_append(&w->from.replay, &byte, 1)));
    }
}

static void frame_some(struct world *w, size_t want)
{
    struct cv_slice ready = cv_link_seq_unframed(&w->from);
    size_t len = want < ready.len ? want : ready.len;
    if (w->wire_len + len > WIRE_MAX)
        return;
    for (size_t i = 0; i < len; i++)
        cv_fuzz_must(ready.data[i] == byte_at(w->from.framed + i));
    if (w->wire_len == 0)
        w->wire_from = w->from.framed;
    cv_fuzz_must(w->wire_from + w->wire_len == w->from.framed);
    cv_link_seq_framed(&w->from, len, w->now_ms);
    w->wire_len += len;
}

static void deliver_some(struct world *w, size_t want)
{
    size_t len = want < w->wire_len ? want : w->wire_len;
    cv_fuzz_must(len == 0 || w->wire_from == w->arrived);
    cv_link_seq_received(&w->to, len, w->now_ms);
    w->arrived += len;
    w->wire_from += len;
    w->wire_len -= len;
    cv_fuzz_must(w->to.received == w->arrived);
    if (cv_link_seq_ack_is_due(&w->to, w->now_ms) && w->ack_count < 16)
        w->acks[w->ack_count++] = cv_link_seq_take_ack(&w->to);
}

static void return_acks(struct world *w)
{
    for (size_t i = 0; i < w->ack_count; i++)
        cv_fuzz_must(cv_is_ok(cv_link_seq_acked(&w->from, w->acks[i], w->now_ms)));
    w->ack_count = 0;
}

/* The socket breaks; what was on it is lost; the receiver says what it has. */
static void resume(struct world *w)
{
    w->wire_len = 0;
    w->ack_count = 0;
    cv_fuzz_must(cv_is_ok(cv_link_seq_rewind(&w->from, w->arrived, w->now_ms)));
    cv_fuzz_must(w->from.acked == w->arrived && w->from.framed == w->arrived);
}

/* An offset that was never framed, in an acknowledgement or a resume, is refused. */
static void lie(struct world *w, uint8_t much)
{
    struct cv_link_seq before = w->from;
    uint64_t offset = w->from.framed + 1 + much;
    if (much == 255)
        offset = UINT64_MAX;
    cv_fuzz_must(cv_link_seq_acked(&w->from, offset, w->now_ms).id == CV_WS_POLICY);
    cv_fuzz_must(cv_link_seq_rewind(&w->from, offset, w->now_ms).id == CV_WS_POLICY);
    if (w->from.acked)
        cv_fuzz_must(cv_link_seq_rewind(&w->from, w->from.acked - 1, w->now_ms).id == CV_WS_POLICY);
    cv_fuzz_must(memcmp(&before, &w->from, sizeof before) == 0);
}

static void step(struct world *w, uint8_t what, uint8_t much)
{
    size_t amount = (size_t)much * (what & 16 ? 8 : 1);
    switch (what % 8) {
    case 0:
    case 1:
        write_some(w, amount);
        break;
    case 2:
    case 3:
        frame_some(w, amount);
        break;
    case 4:
        deliver_some(w, amount);
        break;
    case 5:
        return_acks(w);
        break;
    case 6:
        w->now_ms += amount;
        break;
    default:
        if (what & 32)
            resume(w);
        else
            lie(w, much);
    }
    cv_fuzz_must(cv_buf_len(&w->from.replay) <= CAP);
    cv_fuzz_must(w->from.acked <= w->arrived && w->arrived <= w->from.framed);
    cv_fuzz_must(w->from.framed <= w->written);
    cv_fuzz_must(w->from.acked + cv_buf_len(&w->from.replay) == w->written);
    cv_fuzz_must(w->from.rtt_ms <= 600000);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct world w = {.now_ms = 1000};
    cv_link_seq_init(&w.from, true, CAP);
    cv_link_seq_init(&w.to, true, CAP);
    for (size_t i = 0; i + 1 < size; i += 2)
        step(&w, data[i], data[i + 1]);
    /* Whatever happened, a resume brings everything over. */
    resume(&w);
    frame_some(&w, CAP);
    deliver_some(&w, CAP);
    cv_fuzz_must(w.arrived == w.written);
    cv_link_seq_done(&w.from);
    cv_link_seq_done(&w.to);
    return 0;
}
