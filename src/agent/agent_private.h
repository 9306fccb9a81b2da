/* SPDX-License-Identifier: MIT
 *
 * What agent.c (the agent's life), berth.c (one link and what is published over it), place.c (at
 * which relay) and carry.c (streams to services) share.
 */
#ifndef CV_AGENT_AGENT_PRIVATE_H
#define CV_AGENT_AGENT_PRIVATE_H

#include "agent/agent.h"
#include "agent/publication.h"
#include "agent/uplink.h"
#include "base/slice.h"
#include "flow/fleet.h"
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
    char health[24];  /* … and of the service behind it, last; "": nothing yet */
};

/* What a berth is to another one, which it may replace. */
enum berth_role {
    BERTH_LASTING, /* nothing: it is one of `links` */
    /* The relay of `replaces` does not answer. Takes its place when it publishes the tunnels, gives
     * way when that one is back first. */
    BERTH_SUBSTITUTE,
    /* It is at a relay where that one would rather be. Takes its place when it has stood for
     * reconnect.return_after, ends with its first failure. */
    BERTH_TRIAL,
};

/* One link to a relay, kept up, and what is published over it. */
struct berth {
    struct cv_agent *agent;
    struct cv_uplink *uplink;
    enum berth_role role;
    struct berth *replaces;       /* NULL: it is BERTH_LASTING */
    size_t server;                /* of agent->fleet: where it is, or tries to be */
    bool is_placed;               /* it is counted there */
    bool is_bound;                /* its first try goes there, whatever is best */
    struct berth_tunnel *tunnels; /* agent->tunnel_count of them */
    struct cv_timer retry;        /* refused tunnels are asked for again */
    uint64_t retry_ms;            /* the delay of that, which doubles */
    struct cv_timer successor;    /* another link is opened then */
    struct cv_timer trial;        /* whether it takes the other's place is judged then */
    struct cv_timer leaving;      /* whether it still carries anything is looked at then */
    bool is_retiring;             /* it carries what it has and is not renewed */
    bool is_handed_over;          /* its relay stops; another process serves the same address */
    bool is_over;
    struct berth *prev, *next;
};

struct control; /* people who ask, see control.h */

struct metrics_page; /* for Prometheus, see metrics_page.h */

struct carry; /* one stream and its connection to the service */

struct cv_agent {
    struct cv_worker *worker;
    struct cv_agent_options options;
    const struct cv_agent_ops *ops;
    void *arg;
    const struct cv_agent_config *config;
    struct cv_fleet fleet;
    struct cv_timer look; /* for a better relay */
    uint64_t look_ms;     /* the delay of that, which doubles */
    struct berth *berths; /* utlist DL */
    struct agent_tunnel *tunnels;
    size_t tunnel_count;
    struct carry *carries; /* utlist DL */
    size_t carry_count;
    size_t held;       /* streams of others, see cv_agent_hold */
    uint64_t carried;  /* ever */
    uint64_t since_ms; /* when it was made */
    struct cv_watch *watch;
    struct control *control;           /* or NULL */
    struct metrics_page *metrics_page; /* or NULL */
    struct cv_metrics_block *metrics;  /* NULL: nothing is counted */
    struct cv_timer drain;             /* stopping: progress is told, and at last all is cut */
    uint64_t drain_due_ms;
    struct cv_defer reaping; /* frees berths that are over, never inside their callbacks */
    bool was_of_use;         /* something was published, or (a client) a link stood */
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

/* berth.c */

/* Begins to dial; *berth is then in the agent's list. CV_NO_MEMORY; *berth is NULL then. */
struct cv_status berth_new(struct cv_agent *agent, struct berth **berth);
/* Only when it is over, or at teardown. */
void berth_free(struct berth *berth);
/* Asks the relay to send no new streams here; those that carry something end by themselves. */
void berth_withdraw(struct berth *berth);

/* Takes no new streams, lets those under way end, then closes; on a link that waits for a
 * connection, once that is back. Idempotent. */
void berth_leave(struct berth *berth);
/* All that is to be published is published here. */
bool berth_is_complete(const struct berth *berth);
void berth_stop_timers(struct berth *berth);

/* place.c */

/* CV_NO_MEMORY. */
struct cv_status place_open(struct cv_agent *agent);
void place_close(struct cv_agent *agent);
/* The relay for the next try. */
const struct cv_access *place_choose(struct berth *berth);
/* A try failed. */
enum cv_uplink_next place_failed(struct berth *berth, uint64_t retry_after_ms);
/* The trial's timer. */
void place_judge(void *berth);
/* The link stands. */
void place_up(struct berth *berth);
/* A tunnel is published. */
void place_published(struct berth *berth);
/* The link has been without a connection for so long. */
void place_away(struct berth *berth, uint64_t away_ms);
/* It has one again. */
void place_resumed(struct berth *berth);
/* The link is lost for good. */
void place_down(struct berth *berth);
/* The relay stops. False: no successor is needed. */
bool place_relay_stops(struct berth *berth);
/* A successor of `berth`, whose relay stops. CV_NO_MEMORY. */
struct cv_status place_successor(struct berth *berth);
/* It is not counted any more, and nobody replaces it. */
void place_vacate(struct berth *berth);

/* agent.c */

enum { AGENT_URL_MAX = 400 };

/* Where consumers reach a tunnel over the relay of `berth`; "" for TCP. */
void agent_tunnel_url(const struct berth *berth, const struct cv_publication *publication,
                      char url[AGENT_URL_MAX]);

/* What berths and carries report. */
void agent_on_carry_end(struct cv_agent *agent);
/* A link stands, or has its connection again. */
void agent_on_up(struct berth *berth);
void agent_on_published(struct berth *berth, const struct agent_tunnel *tunnel);
/* The relay refuses a tunnel, or another agent has taken it over: ends the agent when somebody
 * waits for it and nothing is left to hope for. */
void agent_on_trouble(struct cv_agent *agent, const struct cv_error *error);
/* The relay behind `berth` stops: another link takes its place. */
void agent_on_relay_stops(struct berth *berth);
/* The berth is over for good. */
void agent_on_berth_end(struct berth *berth, struct cv_status why, const struct cv_error *error);

#endif
