/* SPDX-License-Identifier: MIT
 *
 * A local port that leads to one of the user's own tunnels: every connection becomes a stream
 * (direct-tcpip) through the relay, over links that are kept as an agent keeps its own: to one of
 * several relays, to the next process when one takes over.
 * Owns listener, links and connections; borrows accesses and log. Limits: 128 connections at once;
 * while there is no link, or it is full, they wait, 30 s at most. Its worker's thread.
 */
#ifndef CV_AGENT_FORWARD_H
#define CV_AGENT_FORWARD_H

#include "base/status.h"

struct cv_access;
struct cv_forward;
struct cv_log;
struct cv_worker;

struct cv_forward_ops {
    /* It listens, and the link is up for the first time. May be NULL. */
    void (*on_ready)(void *arg, const char *address);
    /* The last callback: stopped as asked (CV_OK), or it makes no sense to go on. */
    void (*on_ended)(void *arg, struct cv_status why, const struct cv_error *error);
};

struct cv_forward_options {
    const struct cv_access *accesses; /* one for each relay */
    size_t access_count;              /* > 0 */
    struct cv_log *log;
    const char *state_dir; /* where run/<pid>.sock is to be; NULL: people cannot ask it */
    const char *listen;    /* "127.0.0.1:9000" */
    const char *tunnel;    /* its name; copied */
};

/* Listens at once. CV_USAGE (address or name), CV_IO (the port is taken), CV_NO_MEMORY; nothing is
 * held then. */
struct cv_status cv_forward_new(struct cv_worker *worker, const struct cv_forward_options *options,
                                const struct cv_forward_ops *ops, void *arg,
                                struct cv_forward **forward, struct cv_error *error);

/* Listens no more, lets connections end within shutdown.drain, closes the link; on_ended follows. A
 * second call does not wait any longer. */
void cv_forward_stop(struct cv_forward *forward);

/* After on_ended, or after the worker has ended. Takes NULL, nulls. */
void cv_forward_free(struct cv_forward **forward);

#endif
