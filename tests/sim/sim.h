/* SPDX-License-Identifier: MIT
 *
 * One conversation between two links (src/transport, unchanged) over paths that die, in virtual
 * time; see sim_net.h. The relay opens streams, both sides send on each of them, the agent dials
 * again whenever it has lost its socket, and somebody repeats claims that he has seen.
 *
 * sim_run checks as it goes, and aborts with a message when something does not hold: every byte of
 * every stream arrives once and in order; what is kept for replay stays within its cap; counters
 * only grow; who waits for an acknowledgement asks for a sign of life after 5 s; each side has no
 * more than the other has sent; an old or changed claim is refused and changes nothing; the
 * conversation ends within SIM_PATIENCE_MS of the last trouble; a link that nobody takes up again
 * ends on both sides.
 */
#ifndef CV_TESTS_SIM_H
#define CV_TESTS_SIM_H

#include "sim_net.h"

struct cv_ssh_host_key;

enum {
    SIM_CUTS_MAX = 8,
    SIM_EVENTS_MAX = 8,
    SIM_STREAMS_MAX = 3,
    SIM_PATIENCE_MS = 180000,
};

enum sim_event_kind {
    SIM_EVENT_AGENT_DETACHES, /* as when its address is gone */
    SIM_EVENT_RELAY_DETACHES,
    SIM_EVENT_AGENT_PROBES,
    SIM_EVENT_RELAY_PROBES,
    SIM_EVENT_OLD_CLAIM,
    SIM_EVENT_CHANGED_CLAIM,
    SIM_EVENT_COUNT
};

struct sim_event {
    enum sim_event_kind kind;
    uint32_t after_ms; /* the one before */
};

struct sim_schedule {
    struct sim_path_options paths[SIM_CUTS_MAX]; /* in the order of dialing; later ones are the last
                                                    without a cut */
    unsigned path_count;
    struct sim_event events[SIM_EVENTS_MAX];
    unsigned event_count;
    unsigned streams;
    uint32_t bytes[SIM_SIDES]; /* per stream, from that side */
    uint32_t consume_ms;       /* what came on a stream is passed on so much later */
    uint32_t redial_ms, dial_timeout_ms;
    uint32_t replay_bytes, window_bytes;
    uint32_t replay_max_bytes, window_max_bytes; /* as far as they may grow … */
    uint32_t growth_bytes;                       /* … each side's together */
    uint32_t rekey_bytes;
    bool never_redials;
    enum sim_side closer; /* who says goodbye */
};

struct sim_result {
    bool was_carried; /* every byte; false: the link had to end before */
    bool was_up[SIM_SIDES];
    unsigned resumes, cuts;
    uint64_t bytes[SIM_SIDES]; /* of the longest way that came from there */
    uint64_t spent_ms;         /* virtual */
};

/* A schedule from any bytes; what is missing counts as zeros. */
void sim_schedule_read(const uint8_t *data, size_t len, struct sim_schedule *schedule);

/* `key` is the relay's. */
struct sim_result sim_run(const struct sim_schedule *schedule, const struct cv_ssh_host_key *key);

#endif
