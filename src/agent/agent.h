/* SPDX-License-Identifier: MIT
 *
 * The agent: publishes the tunnels of its configuration over links to one relay or to
 * several, and carries their streams to the local services. It never parses HTTP; rules, timers and
 * Host are the relay's to enforce. One that publishes nothing keeps the links for somebody who
 * opens streams over them (agent/forward.h). Owns the links and all streams of the relay; borrows
 * accesses and log. Its worker's thread.
 */
#ifndef CV_AGENT_AGENT_H
#define CV_AGENT_AGENT_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

struct cv_access;
struct cv_agent;
struct cv_agent_config;
struct json_t;
struct cv_log;
struct cv_worker;

struct cv_link;

/* A local port that leads to a tunnel, for `culvert status`. */
struct cv_agent_port {
    const char *address, *tunnel; /* valid until the next callback */
    const char *kind;             /* "http", "tcp", "unknown" */
    size_t connections;           /* with a stream */
    size_t waiting;               /* for one */
};

struct cv_agent_ops {
    /* A tunnel is published; consumers find it at `url` (empty for TCP tunnels). May be NULL. */
    void (*on_published)(void *arg, const char *tunnel, const char *url, const char *target);
    /* A link stands, or has its connection again: cv_agent_link has one. May be NULL. */
    void (*on_up)(void *arg);
    /* What the links are for, when nothing is published. May be NULL. */
    void (*on_describe)(void *arg, struct cv_agent_port *port);
    /* The agent has stopped, as asked (CV_OK) or because it makes no sense to go on. The last
     * callback. */
    void (*on_ended)(void *arg, struct cv_status why, const struct cv_error *error);
};

struct cv_agent_options {
    const struct cv_access *accesses; /* one for each relay; their configuration has the tunnels */
    size_t access_count;              /* > 0 */
    struct cv_log *log;
    const char *state_dir; /* where run/<pid>.sock is to be; NULL: people cannot ask it */
    bool is_interactive;   /* ends on what a person has to mend, see cv_uplink_options, and when its
                              last tunnel is taken over or refused */
    struct cv_agent_config *config; /* that of `accesses`, where it may be changed; or NULL */
    const char *config_path;        /* its file, absolute; or NULL */
    bool is_client;                 /* it publishes nothing, whatever the configuration says */
};

/* CV_CONFIG (no tunnel, a target that cannot be read), CV_NO_MEMORY; nothing is held then. */
struct cv_status cv_agent_new(struct cv_worker *worker, const struct cv_agent_options *options,
                              const struct cv_agent_ops *ops, void *arg, struct cv_agent **agent,
                              struct cv_error *error);

/* How it is, as `{"command":"status"}` is answered (docs/PROTOCOL.md); the caller's. It asks the
 * relay for a sign of life, so that the next answer is fresh. NULL without memory. */
struct json_t *cv_agent_status(struct cv_agent *agent);

/* Takes no new streams, lets those under way end within shutdown.drain, closes the link; on_ended
 * follows. A second call does not wait any longer. */
void cv_agent_stop(struct cv_agent *agent);

/* The link for a new stream: it is connected, its relay does not stop, and it carries the least.
 * NULL: there is none at the moment, on_up follows. For the turn of the loop. */
struct cv_link *cv_agent_link(const struct cv_agent *agent);

/* A stream of the caller's own begins: cv_agent_stop waits for it as for those of the relay, until
 * the matching cv_agent_release. That may call on_ended. */
void cv_agent_hold(struct cv_agent *agent);
void cv_agent_release(struct cv_agent *agent);

/* After on_ended, or after the worker has ended. Takes NULL, nulls. */
void cv_agent_free(struct cv_agent **agent);

#endif
