/* SPDX-License-Identifier: MIT
 *
 * A consumer's connection: HTTP/1 requests, one after the other, each routed, authenticated and
 * exchanged with a service. The connection is a socket, or a stream that a user opened to one of
 * its HTTP tunnels. Own worker; a socket may move to another worker between two requests.
 */
#ifndef CV_RELAY_CONSUMER_H
#define CV_RELAY_CONSUMER_H

#include "base/slice.h"
#include "base/status.h"

struct cv_addr;
struct cv_conn;
struct cv_fsm_def;
struct cv_identity;
struct cv_relay_worker;
struct cv_stream;

/* The lifecycle as a table, for docs/STATES.md. */
extern const struct cv_fsm_def cv_consumer_states;

/* Takes the accepted socket `fd` (owns it from here on, also on failure). `is_private`: it came to
 * the operator's own listener (metrics.listen), which speaks plain HTTP and serves no tunnels. */
void cv_consumer_accept(struct cv_relay_worker *worker, int fd, const struct cv_addr *peer,
                        bool is_private);

/* Accepts `stream` and serves HTTP on it for `identity`: every request on it goes to the user's
 * tunnel `name` (copied), whatever its path and without a token of its own; rules, limits and
 * timers are the same. */
void cv_consumer_accept_stream(struct cv_relay_worker *worker, struct cv_stream *stream,
                               struct cv_identity *identity, const char *name);

/* Takes the socket `fd` of a relay that has taken over from this one; on it comes the one request
 * that the successor has read from `peer`. Unless what it asks for is here, it ends without a byte;
 * else "+" goes ahead of the answer. */
void cv_consumer_accept_passed(struct cv_relay_worker *worker, int fd, const struct cv_addr *peer,
                               bool is_tls);

/* A connection that was passed to the relay before this one and comes back: takes `conn`, on which
 * `bytes` (copied) were read from `peer`. */
void cv_consumer_accept_back(struct cv_relay_worker *worker, struct cv_conn *conn,
                             const struct cv_addr *peer, struct cv_slice bytes);

/* The relay stops: idle connections close at once, busy ones after their response. */
void cv_consumer_drain_all(struct cv_relay_worker *worker);

/* Requests under way whose token is revoked end, with an error or cut. */
void cv_consumer_check_revoked_all(struct cv_relay_worker *worker);

/* Closes all, whatever they do. */
void cv_consumer_close_all(struct cv_relay_worker *worker);

#endif
