/* SPDX-License-Identifier: MIT
 *
 * Tells when the network of this machine changes (addresses, links, routes: rtnetlink(7)) and when
 * its clock jumps, as it does after a sleep (timerfd_create(2), TFD_TIMER_CANCEL_ON_SET). Changes
 * come in bursts: they are told together, a moment after the first.
 *
 * Costs nothing while nothing happens. Where the system has no such sockets, nothing is told. Its
 * worker's thread.
 */
#ifndef CV_NET_WATCH_H
#define CV_NET_WATCH_H

#include "base/status.h"

#include <stdbool.h>

struct cv_addr;
struct cv_watch;
struct cv_worker;

enum cv_watch_change { CV_WATCH_NETWORK, CV_WATCH_CLOCK };

typedef void cv_watch_on_change(void *arg, enum cv_watch_change change);

/* CV_NO_MEMORY; *watch is NULL then. Ends with its worker, or with cv_watch_free. */
struct cv_status cv_watch_new(struct cv_worker *worker, cv_watch_on_change *on_change, void *arg,
                              struct cv_watch **watch);

/* Not from inside on_change. NULL is fine; *watch is NULL afterwards. */
void cv_watch_free(struct cv_watch **watch);

/* Whether this machine has the address at this moment. True when that cannot be told. */
bool cv_watch_has_address(const struct cv_addr *addr);

#endif
