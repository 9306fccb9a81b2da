/* SPDX-License-Identifier: MIT
 *
 * What uplink.c (tries, the link, its loss and end) and uplink_nudge.c (network, clock, people)
 * share. Nobody else includes this.
 */
#ifndef CV_AGENT_UPLINK_PRIVATE_H
#define CV_AGENT_UPLINK_PRIVATE_H

#include "agent/link_spans.h"
#include "agent/renewal.h"
#include "agent/uplink.h"
#include "base/fsm.h"
#include "flow/backoff.h"
#include "flow/quality.h"
#include "net/addr.h"
#include "net/worker.h"
#include "proto/link/resume.h"
#include "transport/link.h"

enum state {
    IDLE,
    DIALING,
    HANDSHAKE,
    UP,
    DETACHED, /* the link waits for a new connection: until the next try … */
    RESUMING, /* … and while that is under way */
    WAITING,
    RESTING, /* tries are used up: nothing happens by itself */
    CLOSING,
    ENDED,
    STATE_COUNT
};

struct cv_dialer;

struct cv_uplink {
    struct cv_worker *worker;
    struct cv_uplink_options options;
    const struct cv_uplink_ops *ops;
    void *arg;
    struct cv_fsm fsm;
    uint64_t state_ms; /* when it was entered */
    struct cv_dialer *dialer;
    struct cv_link *link;
    struct cv_backoff backoff;
    struct cv_timer timer;
    struct cv_renewal renewal; /* of the link's token */
    struct cv_defer ending;    /* on_ended, never from inside a call */
    uint64_t attempts;         /* since the start */
    uint64_t retry_after_ms;
    uint64_t began_ms;            /* the try under way */
    struct cv_link_claim claim;   /* of the try under way to take the link up again */
    struct cv_backoff resumption; /* since the link lost its connection */
    uint64_t lost_ms;
    uint64_t resumes;          /* that worked, since the start */
    uint64_t replayed_bytes;   /* on links that have ended */
    enum cv_status_id told;    /* the reason that was logged last for a try that failed */
    struct cv_error trouble;   /* why there is no connection; CV_OK while there is one */
    struct cv_link_span span;  /* of the try under way */
    struct cv_addr relay_addr; /* where the relay was reached last; len 0: never */
    struct cv_quality quality;
    uint64_t beat_ms;         /* when a ping was answered last */
    uint64_t judged_out;      /* bytes that the link had sent … */
    uint64_t judged_replayed; /* … and sent again, when that was told to `quality` */
    uint64_t hurried_ms;
    bool must_wait; /* the delay was asked for, or is a refused token's */
    bool was_up;
    bool is_retiring;     /* its end is not followed by another try */
    bool is_winding_up;   /* the first try to resume that fails is the last one */
    struct cv_status why; /* of the end */
    struct cv_error error;
    struct cv_error host_key; /* why on_host_key said no */
};

static inline bool is_state(const struct cv_uplink *u, enum state state)
{
    return u->fsm.state == (unsigned)state;
}

/* The link has lost its connection: on_detached of its cv_link_ops. */
void uplink_on_detached(void *arg, struct cv_status why, const struct cv_error *error);

/* A ping was answered: on_pong of its cv_link_ops. */
void uplink_on_pong(void *arg, uint32_t rtt_ms);

/* Its state has changed: spans begin and end with that. */
void uplink_trace(struct cv_uplink *u);

/* Gives up the try under way, if there is one, and begins the next in `delay_ms`: to take the link
 * up again where there is one, else for a fresh one. In any state but idle, handshake, up and those
 * of the end. */
void uplink_try_soon(struct cv_uplink *u, uint64_t delay_ms);

/* uplink_count.c: what has happened, for the metrics. */
void uplink_count_up(struct cv_uplink *u); /* before was_up is set */
void uplink_count_resumed(struct cv_uplink *u);
void uplink_count_failed(struct cv_uplink *u, struct cv_status why);
void uplink_count_down(struct cv_uplink *u, struct cv_status why);

#endif
