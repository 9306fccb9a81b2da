/* SPDX-License-Identifier: MIT
 *
 * What a request talks to: one byte pipe to the local service. Two kinds behind one face: a stream
 * of a link on this worker, and a stream on another worker, reached through mailboxes with bounded
 * credit.
 *
 * Used on the worker that opened it only. Callbacks never run inside a call from above. A pooled
 * stream is used again when there is one of the same user, tunnel and session; the least recently
 * used idle stream makes room for a new one; over the channel limit opens wait in the order of
 * flow/queue.h, at most `queue.size` of a user, and as many on a link.
 */
#ifndef CV_RELAY_UPSTREAM_H
#define CV_RELAY_UPSTREAM_H

#include "flow/queue.h"
#include "relay/registry.h"

struct cv_relay_worker;
struct cv_upstream;

struct cv_upstream_ops {
    /* Open. `is_reused`: it carried an exchange before, so its service may have closed it just now.
     */
    void (*on_open)(void *arg, bool is_reused);
    /* It could not be opened; not one byte reached the service. CV_SERVICE_REFUSED,
     * CV_SERVICE_TIMEOUT, CV_SERVICE_UNREACHABLE, CV_QUEUE_FULL, CV_LINK_LOST, CV_NO_TUNNEL,
     * CV_NO_MEMORY; CV_AGAIN where that was wished for. Dead afterwards. */
    void (*on_failed)(void *arg, struct cv_status why);
    void (*on_data)(void *arg, struct cv_slice data); /* take all; report with consumed */
    void (*on_eof)(void *arg);                        /* the service sends no more */
    void (*on_writable)(void *arg);                   /* after a short write */
    /* Closed by the agent (CV_EOF) or lost with the link (CV_LINK_LOST). Dead afterwards. */
    void (*on_closed)(void *arg, struct cv_status why);
};

/* What is asked for, beside where to; borrowed for the call. */
struct cv_upstream_wish {
    uint32_t max_idle_ms;    /* a pooled stream is taken when it was idle for less; 0: never one */
    const char *correlation; /* the request's id, told to the agent with a new stream; or NULL */
    enum cv_priority priority; /* where it has to wait */
    /* Who asks: in whose queue it counts then, and whose pooled streams it may take. */
    struct cv_user_key consumer;
    bool is_movable; /* while it waits it may fail with CV_AGAIN: another link has room */
    /* A canary (canary.h), on the link's own worker: counts as nobody's request, for no limit of
     * the tunnel, and never waits: CV_QUEUE_FULL where there is no free stream. */
    bool is_canary;
};

/* Opens a pipe to the tunnel of `route` (borrowed for the call). On CV_OK *upstream is the
 * caller's until a last callback or cv_upstream_close. CV_NO_MEMORY; CV_QUEUE_FULL at once. */
struct cv_status cv_upstream_open(struct cv_relay_worker *worker, const struct cv_route *route,
                                  const struct cv_upstream_wish *wish,
                                  const struct cv_upstream_ops *ops, void *arg,
                                  struct cv_upstream **upstream);

/* True when open returned a pipe that can be written at once; on_open does not come then. */
bool cv_upstream_is_open(const struct cv_upstream *upstream);
bool cv_upstream_is_reused(const struct cv_upstream *upstream);
/* True while it waits for a free stream (not yet asked of the agent). */
bool cv_upstream_is_queued(const struct cv_upstream *upstream);

/* Where it waits, 1 being the next to go; 0: it does not, or that is known to another worker. */
size_t cv_upstream_position(const struct cv_upstream *upstream);

/* Takes what fits; returns how much. Less than all: on_writable follows. */
size_t cv_upstream_write(struct cv_upstream *upstream, struct cv_slice data);
/* `len` bytes of on_data have left towards the consumer. */
void cv_upstream_consumed(struct cv_upstream *upstream, size_t len);
/* No more will be written. */
void cv_upstream_eof(struct cv_upstream *upstream);

/* Ends it: with `is_reusable` (the exchange ended cleanly at a message boundary in both directions)
 * it goes into the pool, else its stream is closed, which closes the service's connection. No
 * callback comes after this call; the pointer is dead. */
void cv_upstream_close(struct cv_upstream *upstream, bool is_reusable);

/* What an agent means that refuses a stream: the first word of its text says (docs/PROTOCOL.md). */
enum cv_status_id cv_upstream_refusal(uint32_t ssh_reason, struct cv_slice text);

#endif
