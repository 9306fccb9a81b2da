/* SPDX-License-Identifier: MIT
 *
 * The local port of an HTTP tunnel: reads where requests begin and end, and changes no byte of
 * them. A request that finds no stream, since the link is down or full, waits in a queue: three
 * priorities (Culvert-Priority, else RFC 9218), within one the oldest first. Full, the one that
 * matters least is told at once (503 TUNNEL_006); from 80 % on answers carry Culvert-Backpressure.
 * One that was sent is sent again only when that is safe: nothing of it was answered, its method is
 * idempotent or it has an Idempotency-Key, and it is still held (64 KiB).
 *
 * A malformed request goes to the relay as it came, which answers it. Private to agent/forward*.
 * Owns the connections; borrows agent and log. Its worker's thread.
 */
#ifndef CV_AGENT_FORWARD_HTTP_H
#define CV_AGENT_FORWARD_HTTP_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

struct cv_agent;
struct cv_log;
struct cv_worker;
struct forward_http;

enum { FORWARD_HTTP_PORT = 80 }; /* of every HTTP tunnel, and of no other */

struct forward_http_options {
    struct cv_agent *agent;
    struct cv_log *log;
    const char *tunnel;  /* borrowed */
    size_t queue_size;   /* requests that wait */
    uint64_t wait_ms;    /* for so long */
    size_t window_bytes; /* of a stream */
};

/* CV_NO_MEMORY. */
struct cv_status forward_http_new(struct cv_worker *worker,
                                  const struct forward_http_options *options,
                                  struct forward_http **http);

/* Takes a connection that was accepted. Closes it when there are too many or no memory. */
void forward_http_accept(struct forward_http *http, int fd);

/* There is a link, or one that was full may have room. */
void forward_http_serve(struct forward_http *http);

/* Those that wait are told (503), idle connections close; the agent waits for the others. */
void forward_http_stop(struct forward_http *http);

/* Cuts all. */
void forward_http_close(struct forward_http *http);

/* Connections with a request that is under way, and those that wait in the queue. */
void forward_http_count(const struct forward_http *http, size_t *busy, size_t *queued);

/* After the worker has ended. Takes NULL, nulls. */
void forward_http_free(struct forward_http **http);

#endif
