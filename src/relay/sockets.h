/* SPDX-License-Identifier: MIT
 *
 * The relay's listening sockets: relay->sockets, which does not change while the workers run; of an
 * entry, only its worker's thread touches the listener.
 */
#ifndef CV_RELAY_SOCKETS_H
#define CV_RELAY_SOCKETS_H

#include "base/status.h"

#include <stdbool.h>

struct cv_relay;
struct cv_relay_worker;

/* Listens on all that is configured, with the sockets that were handed over where there are some;
 * sets relay->port. Before the threads start, after cv_takeover_begin. CV_CONFIG, CV_IO,
 * CV_NO_MEMORY, CV_NO_RESOURCES…: what was opened is closed with its worker. */
struct cv_status cv_relay_open_sockets(struct cv_relay *relay, struct cv_error *error);

/* Own worker: closes its sockets, those of metrics.listen or all others. What a successor listens
 * on as well is left to it. */
void cv_relay_close_sockets(struct cv_relay_worker *worker, bool is_private);

/* Consumers and links, over all workers. Any thread. */
unsigned cv_relay_connections(const struct cv_relay *relay);

#endif
