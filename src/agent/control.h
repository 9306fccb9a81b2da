/* SPDX-License-Identifier: MIT
 *
 * What the agent says to the people on its machine (`culvert status`, `culvert reconnect`): JSON
 * lines over run/<pid>.sock in the state folder, see docs/PROTOCOL.md, "The control socket".
 * Private to agent/. Owns the socket; borrows the agent. Its worker's thread.
 */
#ifndef CV_AGENT_CONTROL_H
#define CV_AGENT_CONTROL_H

#include "base/status.h"

#include <jansson.h>

struct cv_agent;
struct control;

/* Begins to listen. CV_IO, CV_CONFIG, CV_NO_MEMORY, CV_NO_RESOURCES; *control is NULL then, and an
 * agent is of use without it. */
struct cv_status control_new(struct cv_agent *agent, const char *state_dir,
                             struct control **control, struct cv_error *error);

/* live.c: answers {"command":"set"} (docs/PROTOCOL.md). NULL without memory. */
json_t *control_set(struct cv_agent *agent, const json_t *question);

/* Takes NULL, nulls. */
void control_free(struct control **control);

#endif
