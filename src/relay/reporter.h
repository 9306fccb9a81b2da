/* SPDX-License-Identifier: MIT
 *
 * Tells operators of incidents (telemetry/incident.h): open breakers, failing requests, storms of
 * connections; to Alertmanager and to a webhook, by choice (incidents.*).
 *
 * Lives on a thread of its own with a loop of its own: what it looks at are counters and the
 * registry's breakers, what it does (a file in the state folder, HTTP) may take as long as it
 * likes, and no request waits for any of it. Borrows the relay, which must not free what it looks
 * at before cv_reporter_free.
 */
#ifndef CV_RELAY_REPORTER_H
#define CV_RELAY_REPORTER_H

#include "base/status.h"

struct cv_relay;
struct cv_reporter;

/* Nothing (*out is NULL) unless the settings name somebody to tell. `path` is where open and untold
 * incidents are kept over a restart; copied. CV_NO_MEMORY, CV_NO_RESOURCES, CV_CONFIG. */
struct cv_status cv_reporter_new(struct cv_relay *relay, const char *path, struct cv_reporter **out,
                                 struct cv_error *error);

/* Starts its thread: the relay is whole by then. NULL is fine. CV_NO_RESOURCES. */
struct cv_status cv_reporter_start(struct cv_reporter *reporter);

/* Ends the thread. What could not be told is in the file. NULL is fine; nulls. */
void cv_reporter_free(struct cv_reporter **reporter);

#endif
