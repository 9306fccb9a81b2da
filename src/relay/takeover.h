/* SPDX-License-Identifier: MIT
 *
 * One relay takes over from another one on the same port: the policy above net/handover.
 *
 *   successor                              predecessor
 *   connect to run/relay-ADDRESS.sock ───▶
 *                    ◀── "socket", each with a listening socket; then "all"
 *   opens everything, accepts
 *   "returned N" ───▶                      for those whose address it does not listen on
 *   "ready" ───▶                           stops accepting, closes no queue; drains as with SIGTERM
 *                    ◀── "done"
 *   "pass ADDRESS tls|plain", with one end of a pair of sockets ───▶  serves the request on it
 *
 * Until "ready" the successor may end at any time and the predecessor goes on as if nothing had
 * been. Afterwards the connection between the two stays until the predecessor has drained.
 *
 * Owns the connection to the predecessor, the offer to a successor, and sockets that were given to
 * the process and are not in use yet.
 */
#ifndef CV_RELAY_TAKEOVER_H
#define CV_RELAY_TAKEOVER_H

#include "base/status.h"
#include "net/listener.h"

struct cv_addr;
struct cv_relay;
struct cv_relay_options;
struct cv_takeover;

/* Gets the sockets that somebody has for this process: with options->is_takeover the relay that
 * listens on the first of the configured addresses, else systemd (options->given_fd). With nobody
 * to take over from it is an ordinary start. CV_IO, CV_NO_MEMORY: the other relay is as
 * it was, and *out is for cv_takeover_free all the same. */
struct cv_status cv_takeover_begin(struct cv_relay *relay, const struct cv_relay_options *options,
                                   struct cv_takeover **out, struct cv_error *error);

/* Takes one of these sockets that fits `spec`; -1 when there is none (left). */
int cv_takeover_take(struct cv_takeover *takeover, const struct cv_listen_spec *spec);

/* All listeners are open: sends back, or closes, what none of them took. CV_CONFIG when sockets
 * were given and none was of use. */
struct cv_status cv_takeover_settle(struct cv_takeover *takeover, struct cv_error *error);

/* Makes the offer to a successor; before the threads start. Failure is only logged: this relay
 * cannot be taken over then. */
void cv_takeover_offer(struct cv_relay *relay, const char *state_dir);

/* This relay accepts connections: the predecessor is told, and the offer can be found. CV_IO when
 * the predecessor has refused or gone. */
struct cv_status cv_takeover_ready(struct cv_relay *relay, struct cv_error *error);

/* First worker: notices that the predecessor has ended. */
void cv_takeover_tick(struct cv_takeover *takeover);

/* First worker: this relay drains; nobody may take over any more, or somebody has. */
void cv_takeover_drain(struct cv_takeover *takeover);

/* Whether a predecessor is there to pass requests to. Any thread. */
bool cv_takeover_has_predecessor(const struct cv_takeover *takeover);

/* Passes one end of a pair of sockets to the predecessor, for a request of `peer`; `fd` is
 * borrowed. Any thread. CV_EOF, CV_AGAIN, CV_IO. */
struct cv_status cv_takeover_pass(struct cv_takeover *takeover, int fd, const struct cv_addr *peer,
                                  bool is_tls);

/* After the threads have ended. NULL is fine. */
void cv_takeover_free(struct cv_takeover **takeover);

#endif
