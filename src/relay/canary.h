/* SPDX-License-Identifier: MIT
 *
 * Whether a tunnel's service is up. A link that publishes something looks, every canary.interval
 * and for each of its tunnels that no request has shown for so long, with a small request through
 * the agent: the preset's cheap endpoint, the tunnel's own, or nothing but a connection. It counts
 * for no limit, no breaker and no statistics, and takes no stream that a request might need.
 *
 * What was seen stands in the pulse of the name's gate (flow/pulse.h). The agent is told when it
 * changes, by notice `service`. Everything here runs on the session's worker, but as said.
 */
#ifndef CV_RELAY_CANARY_H
#define CV_RELAY_CANARY_H

#include "flow/pulse.h"

#include <jansson.h>

struct cv_consumer;
struct cv_registry_tunnel;
struct cv_relay;
struct cv_session;

/* The session has published a name; any number of times. Without memory nothing looks. */
void canary_start(struct cv_session *session);
/* The link ends: before its pool does. Idempotent. */
void canary_stop(struct cv_session *session);

/* What the current request has seen of its service: `latency_ms` to its head, or why there is none.
 * The worker of the request. */
void canary_saw_answer(const struct cv_consumer *c);
void canary_saw_failure(const struct cv_consumer *c, enum cv_status_id why);

/* How a published tunnel is, `*seen` with the details. Any thread, inside cv_registry_each. */
enum cv_tunnel_health canary_judge(const struct cv_relay *relay,
                                   const struct cv_registry_tunnel *tunnel, uint64_t now_ms,
                                   struct cv_pulse_view *seen);

#endif
