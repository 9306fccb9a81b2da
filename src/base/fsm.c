/* SPDX-License-Identifier: MIT */
#include "base/fsm.h"

#include <stdio.h>
#include <stdlib.h>

static bool has_step(const struct cv_fsm_def *def, unsigned from, unsigned to)
{
    for (unsigned i = 0; i < def->step_count; i++)
        if (def->steps[i].from == from && def->steps[i].to == to)
            return true;
    return false;
}

void cv_fsm_set(struct cv_fsm *fsm, unsigned state)
{
    const struct cv_fsm_def *def = fsm->def;
    unsigned old = fsm->state;
    if (old == state)
        return;
    if (!has_step(def, old, state)) {
        (void)fprintf(stderr, "culvert: bug: %s went from %s to %s\n", def->name, def->states[old],
                      state < def->count ? def->states[state] : "?");
        abort();
    }
    fsm->state = state;
    if (fsm->on_change)
        fsm->on_change(fsm->arg, def->name, def->states[old], def->states[state]);
}
