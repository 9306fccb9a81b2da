/* SPDX-License-Identifier: MIT
 *
 * The order of those that wait: three priorities, within one the oldest first. Who has waited for
 * long counts as one priority higher for each span of ageing, so that background work is late and
 * never starved: whatever comes, it is older than that.
 *
 * Entries are fields of what waits; the queue borrows them. How many there may be is the caller's
 * to hold. Time comes from the caller. Owns nothing; one thread.
 */
#ifndef CV_FLOW_QUEUE_H
#define CV_FLOW_QUEUE_H

#include "base/slice.h"

/* X(NAME, "name") */
#define CV_PRIORITY_TABLE(X)                                                                       \
    X(INTERACTIVE, "interactive")                                                                  \
    X(BATCH, "batch")                                                                              \
    X(BACKGROUND, "background")

enum cv_priority {
#define CV_PRIORITY_ENUM(name, text) CV_PRIORITY_##name,
    CV_PRIORITY_TABLE(CV_PRIORITY_ENUM)
#undef CV_PRIORITY_ENUM
        CV_PRIORITY_COUNT
};

struct cv_queue_entry {
    struct cv_queue_entry *prev, *next;
    enum cv_priority priority;
    uint64_t since_ms;
};

/* Zero-initialised: nobody waits. */
struct cv_queue {
    struct cv_queue_entry *first[CV_PRIORITY_COUNT], *last[CV_PRIORITY_COUNT];
    size_t count;
};

/* Behind all of its priority. */
void cv_queue_put(struct cv_queue *queue, struct cv_queue_entry *entry, enum cv_priority priority,
                  uint64_t now_ms);
/* Takes out an entry that is in it. */
void cv_queue_remove(struct cv_queue *queue, struct cv_queue_entry *entry);

/* In the order in which they are to go. The entry that was given last may be removed meanwhile, no
 * other one. `ageing_ms` 0: none. */
struct cv_queue_walk {
    struct cv_queue_entry *at[CV_PRIORITY_COUNT];
    uint64_t now_ms, ageing_ms;
};
void cv_queue_begin(const struct cv_queue *queue, uint64_t now_ms, uint64_t ageing_ms,
                    struct cv_queue_walk *walk);
struct cv_queue_entry *cv_queue_next(struct cv_queue_walk *walk); /* NULL: that was all */

/* Who goes first; NULL when nobody waits. */
struct cv_queue_entry *cv_queue_first(const struct cv_queue *queue, uint64_t now_ms,
                                      uint64_t ageing_ms);
/* 1 for who goes first; 0 for an entry that is not in it. */
size_t cv_queue_position(const struct cv_queue *queue, const struct cv_queue_entry *entry,
                         uint64_t now_ms, uint64_t ageing_ms);

const char *cv_priority_name(enum cv_priority priority);
/* "interactive", "batch", "background", in any case; false for anything else. */
bool cv_priority_parse(struct cv_slice text, enum cv_priority *priority);
/* The field Priority (RFC 9218 §4): of its members only `u` counts, 0 to 3 (its default) being
 * interactive, 4 and 5 batch, 6 and 7 background. What cannot be read counts as not being there
 * (§4, as RFC 8941 §4.2 has it): interactive. */
enum cv_priority cv_priority_from_urgency(struct cv_slice field);

#endif
