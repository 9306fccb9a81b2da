/* SPDX-License-Identifier: MIT
 *
 * What session.c (a link's life), session_names.c (what it publishes), session_token.c (whose it
 * is, and for how long) and pool.c (its streams) share. Nobody else includes this.
 */
#ifndef CV_RELAY_SESSION_PRIVATE_H
#define CV_RELAY_SESSION_PRIVATE_H

#include "auth/identity.h"
#include "flow/bucket.h"
#include "net/worker.h"
#include "relay/pool.h"
#include "relay/relay.h"
#include "relay/session.h"
#include "telemetry/trace_context.h"

/* Names a link may have, and the lines about them that go out whatever their number. */
enum { SESSION_TUNNELS_MAX = 64, SESSION_TOLD_MAX = 2 * SESSION_TUNNELS_MAX };

/* A name this session has described or published. */
struct session_tunnel {
    struct cv_tunnel_spec *spec;
    uint32_t port;
    enum cv_tunnel_health told; /* to the agent */
    bool is_published;
    bool is_described; /* by tunnel@culvert; otherwise spec has the defaults */
};

/* A name that another agent has taken over; said again after a resume, which may have lost it. */
struct session_name {
    char name[CV_TUNNEL_NAME_MAX + 1];
    struct session_name *next;
};

struct cv_session {
    atomic_uint refs;
    atomic_uint load;                        /* pipes in use or waiting */
    atomic_uint_least64_t detached_since_ms; /* 0: it has a socket */
    atomic_uint_least64_t detached_total_ms; /* before that */
    atomic_bool is_full;                     /* no stream was free when last asked for */
    atomic_bool is_woken;                    /* wake_mail is on its way */
    struct cv_mail wake_mail;
    atomic_uint waiting;                /* requests in the pool's queue … */
    atomic_uint_least64_t turn_ms;      /* … one of which goes on about so often */
    atomic_int_least64_t token_until_s; /* Unix time; 0: it holds no more */
    struct cv_user_key user_key;
    unsigned worker_index;
    uint8_t agent_id[CV_AGENT_ID_LEN];
    uint8_t link_id[16];
    struct cv_trace_ids trace; /* of the upgrade; sampled: it was recorded */

    /* Below: the session's own worker only. */
    struct cv_relay_worker *worker;
    struct cv_link *link; /* NULL once it has ended */
    struct cv_identity *identity;
    struct session_tunnel tunnels[SESSION_TUNNELS_MAX];
    size_t tunnel_count;
    bool is_description_refused;   /* the last one: no name is published without its rules */
    unsigned told;                 /* lines of tunnels that came and went, up to SESSION_TOLD_MAX */
    cv_bucket resumes;             /* those that are free of other limits */
    struct session_name *replaced; /* utlist LL, at most SESSION_TUNNELS_MAX */
    uint64_t shutdown_due_ms;      /* the relay stops then; 0: it does not */
    struct cv_pool pool;
    struct canary *canary;          /* NULL: none yet */
    bool is_diagnosing;             /* it has asked for CV_DIAGNOSE_NAME */
    bool has_moved;                 /* its agent has another link to somewhere else */
    bool is_withdrawn;              /* for good */
    bool has_published;             /* something, once */
    size_t counted_streams;         /* that it could carry, in the metrics */
    struct cv_bucket_entry *source; /* counts the link; NULL: it is not counted */
    uint64_t since_ms;
    struct cv_timer expiry;    /* what is next in the token's life */
    uint64_t grace_due_ms;     /* the token has ended, the link does then; 0: it holds */
    uint64_t token_offered_ms; /* by the agent, last */
    char user_id[64];          /* for logs: the subject, cut … */
    char id[33];               /* … and the link's id as hex */
    struct cv_session *prev, *next;
};

/* ---- session_token.c ---- */

/* The identity that the link acts for from now on, and its rights; sets the timers of its token. */
void session_take_identity(struct cv_session *session, struct cv_identity *identity);
/* Timer of the token: tells the agent in time, ends new requests, then the link. */
void session_on_expiry(void *arg);
/* The agent hands in a fresh token. */
void session_on_token(struct cv_session *session, const char *token);

/* ---- session_names.c ---- */

/* The agent's requests; false: refused, and the agent was told why. */
bool session_describe(struct cv_session *session, struct cv_slice json);
bool session_publish(struct cv_session *session, struct cv_slice name, uint32_t port);
bool session_withdraw(struct cv_session *session, struct cv_slice name);
/* Tells the agent something; nothing while the link has no socket. `after_ms` as in the control
 * message. */
void session_notice(struct cv_session *session, const char *code, const char *tunnel,
                    const char *message, uint64_t after_ms);
/* Control messages are outside the replay: those that still matter are said again. */
void session_say_again(struct cv_session *session);
/* A token with fewer rights than the one before takes back what it does not cover. */
void session_take_rights(struct cv_session *session);
/* The session ends: frees what it knows of names. */
void session_forget_names(struct cv_session *session);
/* The link is ending: nobody is to be sent here any more. Idempotent. */
void session_withdraw_all(struct cv_session *session);

#endif
