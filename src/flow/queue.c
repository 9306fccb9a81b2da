/* SPDX-License-Identifier: MIT */
#include "flow/queue.h"

void cv_queue_put(struct cv_queue *queue, struct cv_queue_entry *entry, enum cv_priority priority,
                  uint64_t now_ms)
{
    *entry = (struct cv_queue_entry){
        .prev = queue->last[priority], .priority = priority, .since_ms = now_ms};
    if (entry->prev)
        entry->prev->next = entry;
    else
        queue->first[priority] = entry;
    queue->last[priority] = entry;
    queue->count++;
}

void cv_queue_remove(struct cv_queue *queue, struct cv_queue_entry *entry)
{
    if (entry->prev)
        entry->prev->next = entry->next;
    else
        queue->first[entry->priority] = entry->next;
    if (entry->next)
        entry->next->prev = entry->prev;
    else
        queue->last[entry->priority] = entry->prev;
    entry->prev = entry->next = NULL;
    queue->count--;
}

void cv_queue_begin(const struct cv_queue *queue, uint64_t now_ms, uint64_t ageing_ms,
                    struct cv_queue_walk *walk)
{
    *walk = (struct cv_queue_walk){.now_ms = now_ms, .ageing_ms = ageing_ms};
    memcpy(walk->at, queue->first, sizeof walk->at);
}

/* The priority that it counts as by now. */
static uint64_t level_of(const struct cv_queue_walk *walk, const struct cv_queue_entry *entry)
{
    uint64_t waited_ms = walk->now_ms > entry->since_ms ? walk->now_ms - entry->since_ms : 0;
    uint64_t lifted = walk->ageing_ms ? waited_ms / walk->ageing_ms : 0;
    return lifted < entry->priority ? entry->priority - lifted : 0;
}

/* Within a priority they are in the order of their age, so the next one is one of the heads. */
struct cv_queue_entry *cv_queue_next(struct cv_queue_walk *walk)
{
    struct cv_queue_entry *best = NULL;
    for (unsigned i = 0; i < CV_PRIORITY_COUNT; i++) {
        struct cv_queue_entry *entry = walk->at[i];
        if (!entry)
            continue;
        if (!best || level_of(walk, entry) < level_of(walk, best) ||
            (level_of(walk, entry) == level_of(walk, best) && entry->since_ms < best->since_ms))
            best = entry;
    }
    if (best)
        walk->at[best->priority] = best->next;
    return best;
}

struct cv_queue_entry *cv_queue_first(const struct cv_queue *queue, uint64_t now_ms,
                                      uint64_t ageing_ms)
{
    struct cv_queue_walk walk;
    cv_queue_begin(queue, now_ms, ageing_ms, &walk);
    return cv_queue_next(&walk);
}

size_t cv_queue_position(const struct cv_queue *queue, const struct cv_queue_entry *wanted,
                         uint64_t now_ms, uint64_t ageing_ms)
{
    struct cv_queue_walk walk;
    size_t position = 0;
    cv_queue_begin(queue, now_ms, ageing_ms, &walk);
    for (struct cv_queue_entry *entry; (entry = cv_queue_next(&walk));) {
        position++;
        if (entry == wanted)
            return position;
    }
    return 0;
}

static const char *const names[] = {
#define PRIORITY_NAME(name, text) text,
    CV_PRIORITY_TABLE(PRIORITY_NAME)
#undef PRIORITY_NAME
};

const char *cv_priority_name(enum cv_priority priority)
{
    return (unsigned)priority < CV_PRIORITY_COUNT ? names[priority] : "?";
}

bool cv_priority_parse(struct cv_slice text, enum cv_priority *priority)
{
    for (unsigned i = 0; i < CV_PRIORITY_COUNT; i++) {
        if (cv_slice_is_nocase(text, names[i])) {
            *priority = (enum cv_priority)i;
            return true;
        }
    }
    return false;
}

enum cv_priority cv_priority_from_urgency(struct cv_slice field)
{
    uint64_t urgency = 3;
    while (field.len) {
        struct cv_slice member = cv_slice_trim(cv_slice_split(&field, ','));
        struct cv_slice value = cv_slice_trim(cv_slice_split(&member, ';')); /* its parameters */
        struct cv_slice name = cv_slice_split(&value, '=');
        uint64_t number;
        if (cv_slice_is(name, "u") && value.len == 1 && cv_slice_to_u64(value, 7, &number))
            urgency = number; /* of several the last counts (RFC 8941 §3.2) */
    }
    return urgency <= 3   ? CV_PRIORITY_INTERACTIVE
           : urgency <= 5 ? CV_PRIORITY_BATCH
                          : CV_PRIORITY_BACKGROUND;
}
