/* SPDX-License-Identifier: MIT
 *
 * What requests to tunnels did, counted on each worker and handed to the history (store/history.h)
 * when a minute has ended or somebody asks. It counts for the tunnel and its owner, whoever asked.
 */
#ifndef CV_RELAY_TALLY_H
#define CV_RELAY_TALLY_H

struct cv_consumer;
struct cv_relay_worker;

/* The current request ends; it has found a tunnel (x.route). Once for each. */
void tally_note(const struct cv_consumer *c);

/* Gives the history what this worker has counted. Its own thread, or when that has ended. */
void tally_hand_over(struct cv_relay_worker *worker);

/* Each second on the first worker: asks all to hand over what belongs to a minute that has ended.
 */
void tally_tick(struct cv_relay_worker *worker);

#endif
