/* SPDX-License-Identifier: MIT
 *
 * What sim.c (links, dialing, the run) and sim_flow.c (streams) share.
 */
#ifndef CV_TESTS_SIM_PRIVATE_H
#define CV_TESTS_SIM_PRIVATE_H

#include "base/fuzz.h"
#include "flow/ration.h"
#include "sim.h"
#include "transport/link_private.h"

#include <stdio.h>
#include <stdlib.h>

enum { SIM_ANSWER_MAX = 64 };

/* One end of a stream. */
struct sim_flow {
    struct sim *sim;
    struct cv_stream *stream;
    enum sim_side at;
    unsigned number;
    uint64_t sent, received, unconsumed;
    bool is_eof_sent, is_eof, is_over;
    struct cv_timer consume;
};

struct sim_end {
    struct sim *sim;
    enum sim_side at;
    struct cv_link *link; /* NULL once it has ended */
    struct cv_ration *ration;
    bool was_up;
    uint64_t received, acked, counter; /* when last looked at */
};

struct upgrade;

struct sim {
    struct upgrade *upgrades; /* utlist DL: claims on their way */
    const struct sim_schedule *schedule;
    struct cv_worker *worker;
    struct sim_end sides[SIM_SIDES];
    struct sim_flow flows[SIM_STREAMS_MAX][SIM_SIDES];
    unsigned paths, resumes, events;
    uint64_t trouble_ms; /* when something last went wrong */
    struct cv_timer redial, dial_timeout, event;
    struct cv_conn *dialing;        /* the agent's end of a path whose answer has not come */
    uint8_t answer[SIM_ANSWER_MAX]; /* as far as it has come */
    size_t answer_len;
    struct cv_link_claim claim; /* of the try under way */
    struct cv_link_claim seen;  /* the last one that the relay accepted */
    bool has_seen, is_closing;
};

void sim_flows_init(struct sim *sim);
void sim_flows_open(struct sim *sim);
void sim_flow_accept(void *arg, struct cv_stream *stream, enum cv_stream_kind kind,
                     struct cv_slice host, uint32_t port);
bool sim_flows_are_over(const struct sim *sim);
void sim_flows_stop(struct sim *sim);

/* sim_dial.c: the agent dials again, after the time of the schedule. */
/* Frees the claims that are still on their way. */
void sim_dial_done(struct sim *sim);
void sim_redial_later(struct sim *sim);
void sim_dial_init(struct sim *sim);
void sim_dial_stop(struct sim *sim);
/* The next path of the schedule. */
void sim_next_path(struct sim *sim, struct cv_conn *ends[SIM_SIDES]);
/* Says a claim again that was accepted before, as it was or with a bit turned. */
void sim_repeat_claim(struct sim *sim, bool is_changed);

static inline bool sim_is_alive(const struct sim_end *end)
{
    return end->link && !link_is_ending(end->link);
}

#endif
