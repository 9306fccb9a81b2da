/* SPDX-License-Identifier: MIT
 *
 * What agent.c (the agent's life), berth.c (one link and what is published over it) and carry.c
 * (streams to services) share.
 */
#ifndef CV_AGENT_AGENT_PRIVATE_H
#define CV_AGENT_AGENT_PRIVATE_H

#include "agent/agent.h"
#include "agent/publication.h"
#include "base/slice.h"
#include "net/worker.h"

struct agent_tunnel {
    struct cv_publication publication;
    bool is_replaced; /* another agent has it: not asked for any more, on no link */
};

enum berth_tunnel_state {
    TUNNEL_IDLE,  /* nothing was asked yet */
    TUNNEL_ASKED, /* waits for the relay's answers */
    TUNNEL_PUBLISHED,
    TUNNEL_REFUSED, /* asked for again later */
};

struct berth_tunnel {
    enum berth_tunnel_state state;
    char reason[256]; /* what the relay said when it refused */
};

/* One link to a relay, kept up, and what is published over it. */
struct berth {
    struct cv_agent *agent;
    struct cv_uplink *uplink;
    struct berth_tunnel *tunnels; /* agent->tunnel_count of them */
    struct cv_timer retry;        /* refused tunnels are asked for again */
    uint64_t retry_ms;            /* the delay of that, which doubles */
    struct cv_timer successor;    /* another link is opened then */
    bool is_retiring;             /* its relay stops: it carries what it has and is not renewed */
    bool is_over;
    struct berth *prev, *next;
};

struct carry; /* one stream and its connection to the service */

struct cv_agent {
    struct cv_worker *worker;
    struct cv_agent_options options;
    const struct cv_agent_ops *ops;
    void *arg;
    struct berth *berths; /* utlist DL */
    struct agent_tunnel *tunnels;
    size_t tunnel_count;
    struct carry *carries; /* utlist DL */
    size_t carry_count;
    struct cv_watch *watch;
    struct cv_timer drain;   /* stopping takes too long */
    struct cv_defer reaping; /* frees berths that are over, never inside their callbacks */
    bool was_published;      /* anything, ever */
    bool is_stopping;
    bool is_closing; /* the goodbye has been said */
    bool has_ended;  /* on_ended was called */
    struct cv_status why;
    struct cv_error error;
};

/* carry.c */
struct cv_stream;
void carry_start(struct cv_agent *agent, const struct cv_publication *publication,
                 struct cv_stream *stream);
/* Cuts all that is under way. */
void carry_end_all(struct cv_agent *agent);

/* berth.c */

/* Begins to dial. CV_NO_MEMORY; *berth is NULL then. */
struct cv_status berth_new(struct cv_agent *agent, struct berth **berth);
/* Only when it is over, or at teardown. */
void berth_free(struct berth *berth);
/* Asks the relay to send no new streams here; those that carry something end by themselves. */
void berth_withdraw(struct berth *berth);

/* agent.c: what berths and carries report. */
void agent_on_carry_end(struct cv_agent *agent);
void agent_on_published(struct cv_agent *agent, const struct agent_tunnel *tunnel);
/* The relay refuses a tunnel, or another agent has taken it over: ends the agent when somebody
 * waits for it and nothing is left to hope for. */
void agent_on_trouble(struct cv_agent *agent, const struct cv_error *error);
/* The relay behind `berth` stops: another link takes its place. */
void agent_on_relay_stops(struct berth *berth);
/* The berth is over for good. */
void agent_on_berth_end(struct berth *berth, struct cv_status why, const struct cv_error *error);

#endif
