/* SPDX-License-Identifier: MIT
 *
 * A stream of a link tied to a TCP connection: what comes from one goes to the other, both ways,
 * until both ends have ended or one has broken.
 *
 * Owns both. Holds at most one read of the connection that the stream did not take, and in the
 * connection's output at most a window of the stream: a slow side stops the other one. An end of
 * one direction is passed on as such; when a side is gone altogether, the other is closed as soon
 * as it has what was read before. The worker's thread.
 */
#ifndef CV_AGENT_SPLICE_H
#define CV_AGENT_SPLICE_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

struct cv_conn;
struct cv_splice;
struct cv_stream;
struct cv_stream_ops;

struct cv_splice_end {
    struct cv_status why; /* CV_OK: in good order; otherwise what broke */
    uint64_t bytes_in;    /* from the connection to the stream */
    uint64_t bytes_out;
};

/* Called once, when both sides are gone; the splice is dead afterwards. */
typedef void cv_splice_on_end(void *arg, const struct cv_splice_end *end);

/* Ties `conn` (open; reading may be paused) to `stream`, which is accepted by this call when
 * `is_accepting`, or is one of ours that was just confirmed. CV_NO_MEMORY: both stay with the
 * caller. */
struct cv_status cv_splice_new(struct cv_conn *conn, struct cv_stream *stream, bool is_accepting,
                               cv_splice_on_end *on_end, void *arg, struct cv_splice **splice);

/* Breaks both sides; on_end follows, perhaps from inside this call. */
void cv_splice_close(struct cv_splice *splice);

#endif
