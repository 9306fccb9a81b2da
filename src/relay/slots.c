/* SPDX-License-Identifier: MIT */
#include "relay/slots.h"

#include "relay/session.h"

#include <stddef.h>

void cv_slots_init(struct cv_slots *slots)
{
    *slots = (struct cv_slots){0};
    (void)pthread_mutex_init(&slots->lock, NULL); /* has no way to fail on Linux */
}

void cv_slots_done(struct cv_slots *slots)
{
    (void)pthread_mutex_destroy(&slots->lock);
}

/* Under the lock, since the one that is woken may leave any moment. */
static void wake_first(struct cv_slots *slots, uint64_t now_ms, uint64_t ageing_ms)
{
    struct cv_queue_entry *first = cv_queue_first(&slots->waiting, now_ms, ageing_ms);
    if (!first)
        return;
    struct cv_slot_turn *turn =
        (struct cv_slot_turn *)(void *)((char *)first - offsetof(struct cv_slot_turn, entry));
    cv_session_wake(turn->session);
}

bool cv_slots_take(struct cv_slots *slots, unsigned max, struct cv_slot_turn *turn,
                   enum cv_priority priority, uint64_t now_ms, uint64_t ageing_ms)
{
    (void)pthread_mutex_lock(&slots->lock);
    const struct cv_queue_entry *first = cv_queue_first(&slots->waiting, now_ms, ageing_ms);
    bool is_next = !first || (turn && turn->is_waiting && first == &turn->entry);
    bool may_go = is_next && slots->in_use < max;
    if (may_go) {
        slots->in_use++;
        if (turn && turn->is_waiting) {
            cv_queue_remove(&slots->waiting, &turn->entry);
            turn->is_waiting = false;
        }
        if (slots->in_use < max)
            wake_first(slots, now_ms, ageing_ms);
    } else if (turn && !turn->is_waiting) {
        cv_queue_put(&slots->waiting, &turn->entry, priority, now_ms);
        turn->is_waiting = true;
    }
    /* With time another may have become the first than the one that was woken. */
    if (!may_go && slots->in_use < max)
        wake_first(slots, now_ms, ageing_ms);
    (void)pthread_mutex_unlock(&slots->lock);
    return may_go;
}

void cv_slots_give(struct cv_slots *slots, uint64_t now_ms, uint64_t ageing_ms)
{
    (void)pthread_mutex_lock(&slots->lock);
    slots->in_use--;
    wake_first(slots, now_ms, ageing_ms);
    (void)pthread_mutex_unlock(&slots->lock);
}

void cv_slots_leave(struct cv_slots *slots, struct cv_slot_turn *turn, uint64_t now_ms,
                    uint64_t ageing_ms)
{
    if (!turn->is_waiting)
        return;
    (void)pthread_mutex_lock(&slots->lock);
    bool was_first = cv_queue_first(&slots->waiting, now_ms, ageing_ms) == &turn->entry;
    cv_queue_remove(&slots->waiting, &turn->entry);
    turn->is_waiting = false;
    if (was_first)
        wake_first(slots, now_ms, ageing_ms);
    (void)pthread_mutex_unlock(&slots->lock);
}
