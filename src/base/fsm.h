/* SPDX-License-Identifier: MIT
 *
 * A lifecycle as a table: which state may follow which, and on what event. One setter checks, tells
 * a hook (log, counter) and stores. Events change state, actions never do. docs/STATES.md is made
 * from the tables.
 * The machine is the caller's; the definition is static. One thread at a time.
 */
#ifndef CV_BASE_FSM_H
#define CV_BASE_FSM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct cv_fsm_step {
    uint8_t from, to;
    const char *event; /* what has happened, for people */
};

struct cv_fsm_def {
    const char *name;          /* "link" */
    const char *const *states; /* names, by state number; the first is where it begins */
    unsigned count;
    const struct cv_fsm_step *steps; /* each pair of states once */
    unsigned step_count;
};

/* The last two members, of an array. */
#define CV_FSM_STEPS(array) .steps = (array), .step_count = sizeof(array) / sizeof(array)[0]

struct cv_fsm {
    const struct cv_fsm_def *def;
    unsigned state;
    void (*on_change)(void *arg, const char *machine, const char *from,
                      const char *to); /* or NULL */
    void *arg;
};

/* A transition outside the table is our own bug: it aborts. Setting the same state again does
 * nothing. */
void cv_fsm_set(struct cv_fsm *fsm, unsigned state);

static inline const char *cv_fsm_name(const struct cv_fsm *fsm)
{
    return fsm->def->states[fsm->state];
}

#endif
