/* SPDX-License-Identifier: MIT
 *
 * Which of several servers a link goes to: the lowest priority number first; among those of the
 * same priority the one with the fewest links, so that links spread; among those at random by
 * weight. Servers that failed lately are taken only when there is no other. Pure: the clock and the
 * random number come from the caller. Owns nothing; one thread.
 */
#ifndef CV_FLOW_FLEET_H
#define CV_FLOW_FLEET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    CV_FLEET_BAD_MS = 30 * 1000, /* so long a server that failed is passed over */
};

struct cv_fleet_server {
    unsigned priority, weight; /* weight > 0 */
    unsigned links;            /* that go there, or are to */
    uint64_t bad_until_ms;     /* 0: nothing is known against it */
    uint64_t rest_until_ms;    /* it asked to be left alone so long */
};

struct cv_fleet {
    struct cv_fleet_server *servers; /* the caller's */
    size_t count;                    /* > 0 */
};

/* The server for the next link; `random` is any 64 bits. With nothing but failed ones, the one
 * whose time is over first. The caller counts it in `links`. */
size_t cv_fleet_choose(const struct cv_fleet *fleet, uint64_t now_ms, uint64_t random);

/* A server where the link that is at `mine` would rather be: of a better priority, or of the same
 * one with at least two links less (one less would be the same after the move). Those that failed
 * are not left out, since trying is the way to learn that they are back, unless they asked to be
 * left alone; but one that did not goes before. False when there is none. */
bool cv_fleet_better(const struct cv_fleet *fleet, size_t mine, uint64_t now_ms, size_t *better);

/* A try there failed, it stops, or asks to be left alone for `retry_after_ms` (0: it does not). */
void cv_fleet_failed(struct cv_fleet *fleet, size_t server, uint64_t now_ms,
                     uint64_t retry_after_ms);

/* A link stands there. */
void cv_fleet_up(struct cv_fleet *fleet, size_t server);

/* Whether there is a server that did not fail lately. */
bool cv_fleet_has_good(const struct cv_fleet *fleet, uint64_t now_ms);

#endif
