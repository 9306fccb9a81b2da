/* SPDX-License-Identifier: MIT
 *
 * What was seen last of a service: does it answer, slowly, not at all; when, and by whom it was
 * seen: a request on its way, or a canary that was sent to look. One for a tunnel's name, whoever
 * publishes it.
 *
 * Pure: the clock is passed in. One word and a number beside it, so that any thread may tell and
 * look without a lock; where two tell at once, one of them is the last. Owns nothing.
 */
#ifndef CV_FLOW_PULSE_H
#define CV_FLOW_PULSE_H

#include "base/status.h"

#include <stdatomic.h>
#include <stdint.h>

/* Zeroed: nothing was ever seen. */
struct cv_pulse {
    atomic_uint_least64_t word;
    atomic_uint latency_ms;
};

enum cv_pulse_verdict {
    CV_PULSE_NONE,
    CV_PULSE_ANSWERS,
    CV_PULSE_SLOW, /* it takes the connection, and answers late, not yet, or that it is not ready */
    CV_PULSE_DOWN, /* it cannot be reached, or what it says is no answer */
};

struct cv_pulse_view {
    enum cv_pulse_verdict verdict;
    enum cv_status_id status; /* why it is slow or down; CV_OK: it said so itself, or answers */
    bool is_canary;
    uint64_t age_ms;
    uint32_t latency_ms; /* to its answer, where it gave one */
};

/* Tells what was seen at `now_ms`. What is said again within a second by requests is not written
 * again, so that workers do not fight for the word. */
void cv_pulse_tell(struct cv_pulse *pulse, const struct cv_pulse_view *seen, uint64_t now_ms);

struct cv_pulse_view cv_pulse_look(const struct cv_pulse *pulse, uint64_t now_ms);

/* What may be said of a tunnel. */
enum cv_tunnel_health {
    CV_TUNNEL_UNKNOWN, /* nobody has seen its service for a while */
    CV_TUNNEL_ACTIVE,
    CV_TUNNEL_SLOW,
    CV_TUNNEL_SERVICE_DOWN,
    CV_TUNNEL_AGENT_OFFLINE,
    CV_TUNNEL_HEALTH_COUNT
};

/* `is_reachable`: a link of its agent has a socket. What is older than `fresh_ms` says nothing. */
enum cv_tunnel_health cv_tunnel_health(const struct cv_pulse_view *seen, bool is_reachable,
                                       uint64_t fresh_ms);
const char *cv_tunnel_health_name(enum cv_tunnel_health health); /* "service_down" */

#endif
