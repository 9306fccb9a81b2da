/* SPDX-License-Identifier: MIT
 *
 * `culvert stdio`, the ProxyCommand of SSH clients: the bytes of standard input and output in the
 * binary frames of a WebSocket with the subprotocol `ssh`. No SSH of its own, so no secret that a
 * resume could be proven with (docs/PROTOCOL.md): a lost connection ends it, and the client dials
 * again. Of several relays it takes the first that answers.
 * Owns the connection and its frames; borrows accesses. Buffers: 1 MiB each way, beyond
 * that the other side is not read. Its worker's thread.
 */
#ifndef CV_AGENT_STDIO_LINK_H
#define CV_AGENT_STDIO_LINK_H

#include "base/status.h"

#include <stddef.h>

struct cv_access;
struct cv_stdio;
struct cv_worker;

/* The last callback: CV_OK when one of the two ends has ended in good order. */
typedef void cv_stdio_on_ended(void *arg, struct cv_status why, const struct cv_error *error);

struct cv_stdio_options {
    const struct cv_access *accesses; /* one for each relay */
    size_t access_count;              /* > 0 */
    int fd_in, fd_out;                /* stay the caller's */
};

/* Dials; reads `fd_in` once a relay has answered. As cv_dialer_start, or CV_NO_MEMORY. */
struct cv_status cv_stdio_new(struct cv_worker *worker, const struct cv_stdio_options *options,
                              cv_stdio_on_ended *on_ended, void *arg, struct cv_stdio **stdio,
                              struct cv_error *error);

/* Closes with 1000; on_ended follows, 2 s later at most. */
void cv_stdio_stop(struct cv_stdio *stdio);

/* After on_ended or after the worker has ended. Takes NULL, nulls. */
void cv_stdio_free(struct cv_stdio **stdio);

#endif
