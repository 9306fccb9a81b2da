/* SPDX-License-Identifier: MIT
 *
 * `culvert stdio`, the ProxyCommand of SSH clients: the bytes of standard input and output in the
 * binary frames of a WebSocket with the subprotocol `ssh`. No SSH of its own, no resuming.
 * Owns the connection and its frames; borrows access and log. Buffers: 1 MiB each way, beyond
 * that the other side is not read. Its worker's thread.
 */
#ifndef CV_AGENT_STDIO_LINK_H
#define CV_AGENT_STDIO_LINK_H

#include "base/status.h"

struct cv_access;
struct cv_log;
struct cv_stdio;
struct cv_worker;

/* The last callback: CV_OK when one of the two ends has ended in good order. */
typedef void cv_stdio_on_ended(void *arg, struct cv_status why, const struct cv_error *error);

/* Dials; reads `fd_in` once the relay has answered. As cv_dialer_start, or CV_NO_MEMORY. */
struct cv_status cv_stdio_new(struct cv_worker *worker, const struct cv_access *access, int fd_in,
                              int fd_out, cv_stdio_on_ended *on_ended, void *arg,
                              struct cv_stdio **stdio, struct cv_error *error);

/* Closes with 1000; on_ended follows, 2 s later at most. */
void cv_stdio_stop(struct cv_stdio *stdio);

/* After on_ended or after the worker has ended. Takes NULL, nulls. */
void cv_stdio_free(struct cv_stdio **stdio);

#endif
