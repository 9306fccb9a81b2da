/* SPDX-License-Identifier: MIT
 *
 * How many requests a tunnel's service gets at once, over all links of the tunnel and on all
 * workers; and who is next where there are more: by priority, then by age (flow/queue.h), wherever
 * they wait.
 *
 * Happy path: cv_slots_take lets a request go, or notes its turn → cv_slots_give wakes the link
 * where the next one waits, which takes then. A request that could not use its turn at the moment,
 * because its link has no stream free, leaves, and the next one is woken.
 *
 * One lock, taken only for tunnels that have such a limit, held for a few instructions. Any thread.
 */
#ifndef CV_RELAY_SLOTS_H
#define CV_RELAY_SLOTS_H

#include "flow/queue.h"

#include <pthread.h>

struct cv_session;

struct cv_slots {
    pthread_mutex_t lock;
    unsigned in_use;
    struct cv_queue waiting;
};

/* Of a request that waits; a field of it, zero-initialised. */
struct cv_slot_turn {
    struct cv_queue_entry entry;
    struct cv_session *session; /* where it waits; outlives the turn */
    bool is_waiting;
};

void cv_slots_init(struct cv_slots *slots);
void cv_slots_done(struct cv_slots *slots);

/* May one more go, of at most `max`? True: it is to be given back with cv_slots_give. False: it is
 * somebody else's turn, or there is none free; `turn` is then noted with `priority`, if it was not
 * (NULL: nobody is noted). Nobody goes past those that wait. */
bool cv_slots_take(struct cv_slots *slots, unsigned max, struct cv_slot_turn *turn,
                   enum cv_priority priority, uint64_t now_ms, uint64_t ageing_ms);
void cv_slots_give(struct cv_slots *slots, uint64_t now_ms, uint64_t ageing_ms);

/* Does not wait any more; nothing where it does not. */
void cv_slots_leave(struct cv_slots *slots, struct cv_slot_turn *turn, uint64_t now_ms,
                    uint64_t ageing_ms);

#endif
