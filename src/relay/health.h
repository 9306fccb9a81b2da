/* SPDX-License-Identifier: MIT
 *
 * Whether this relay is well: its workers' loops turn, it accepts, it has keys; and how the
 * services behind its tunnels are, counted. For /livez, /readyz and /api/tunnel/health, which
 * strangers may ask: nothing here says anything about a user, or costs more the more often it is
 * asked for.
 */
#ifndef CV_RELAY_HEALTH_H
#define CV_RELAY_HEALTH_H

#include "flow/pulse.h"

#include <jansson.h>
#include <stdbool.h>

struct cv_relay;
struct cv_relay_worker;

/* The worker's loop begins to be watched; before it runs, or on its thread. */
void health_begin(struct cv_relay_worker *worker);

/* Workers whose loop has not turned for health.stall. `worker` asks; when it has been away itself,
 * as after SIGCONT, it gives the others a moment. */
unsigned health_stalled(const struct cv_relay_worker *worker);

/* Not draining, and keys are known. */
bool health_is_ready(const struct cv_relay_worker *worker);

/* All of it. NULL without memory. */
json_t *health_json(struct cv_relay_worker *worker);

#endif
