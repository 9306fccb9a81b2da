/* SPDX-License-Identifier: MIT
 *
 * A lifecycle as a table: which state may follow which. One setter checks, tells a hook (log,
 * counter) and stores. Events change state, actions never do.
 * The machine is the caller's; the definition is static. One thread at a time.
 */
#ifndef CV_BASE_FSM_H
#define CV_BASE_FSM_H

#include <stdbool.h>
#include <stdint.h>

struct cv_fsm_def {
    const char *name;           /* "link" */
    const char *const *states;  /* names, by state number; at most 32 */
    const uint32_t *may_follow; /* by state number: bit n set when state n may come next */
    unsigned count;
};

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
