/* SPDX-License-Identifier: MIT
 *
 * The agent's numbers, and the small HTTP server on this machine's loopback address that tells them
 * (metrics.listen; there is none unless it is set). `GET /metrics`, one request on a connection,
 * METRICS_PAGE_MAX connections at once, each METRICS_PAGE_MS long at most. What does not name a
 * loopback address as its host is refused: a web page that has its own name resolve to 127.0.0.1
 * (DNS rebinding) reads nothing here. The agent's worker.
 */
#ifndef CV_AGENT_METRICS_PAGE_H
#define CV_AGENT_METRICS_PAGE_H

#include "base/status.h"

struct cv_agent;
struct metrics_page;

/* CV_CONFIG (no loopback address), CV_IO (the port is in use), CV_NO_MEMORY; *page is NULL then. */
struct cv_status metrics_page_new(struct cv_agent *agent, struct metrics_page **page,
                                  struct cv_error *error);
void metrics_page_free(struct metrics_page **page); /* takes NULL; nulls */

/* Where the agent counts; NULL of NULL. */
struct cv_metrics_block *metrics_page_block(struct metrics_page *page);

#endif
