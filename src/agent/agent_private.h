/* SPDX-License-Identifier: MIT
 *
 * What agent.c (tunnels, the link's life) and carry.c (streams to services) share.
 */
#ifndef CV_AGENT_AGENT_PRIVATE_H
#define CV_AGENT_AGENT_PRIVATE_H

#include "agent/agent.h"
#include "agent/publication.h"
#include "base/slice.h"
#include "net/worker.h"

enum tunnel_state {
    TUNNEL_IDLE,  /* nothing was asked yet */
    TUNNEL_ASKED, /* waits for the relay's answers */
    TUNNEL_PUBLISHED,
    TUNNEL_REFUSED,  /* asked for again later */
    TUNNEL_REPLACED, /* not asked for any more: another agent has it */
};

struct agent_tunnel {
    struct cv_publication publication;
    enum tunnel_state state;
    char reason[256]; /* what the relay said when it refused */
};

struct carry; /* one stream and its connection to the service */

struct cv_agent {
    struct cv_worker *worker;
    struct cv_agent_options options;
    const struct cv_agent_ops *ops;
    void *arg;
    struct cv_uplink *uplink;
    struct agent_tunnel *tunnels;
    size_t tunnel_count;
    struct carry *carries; /* utlist DL */
    size_t carry_count;
    struct cv_timer drain; /* stopping takes too long */
    struct cv_timer retry; /* refused tunnels are asked for again */
    uint64_t retry_ms;     /* the delay of that, which doubles */
    bool is_stopping;
    bool is_closing; /* the goodbye has been said */
    struct cv_status why;
    struct cv_error error;
};

/* carry.c */
struct cv_stream;
void carry_start(struct cv_agent *agent, const struct cv_publication *publication,
                 struct cv_stream *stream);
/* Cuts all that is under way. */
void carry_end_all(struct cv_agent *agent);

/* agent.c: a stream has ended. */
void agent_on_carry_end(struct cv_agent *agent);

#endif
