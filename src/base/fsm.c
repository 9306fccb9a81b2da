/* SPDX-License-Identifier: MIT */
#include "base/fsm.h"

#include <stdio.h>
#include <stdlib.h>

void cv_fsm_set(struct cv_fsm *fsm, unsigned state)
{
    const struct cv_fsm_def *def = fsm->def;
    unsigned old = fsm->state;
    if (old == state)
        return;
    if (state >= def->count || !(def->may_follow[old] & 1U << state)) {
        (void)fprintf(stderr, "culvert: bug: %s went from %s to %s\n", def->name, def->states[old],
                      state < def->count ? def->states[state] : "?");
        abort();
    }
    fsm->state = state;
    if (fsm->on_change)
        fsm->on_change(fsm->arg, def->name, def->states[old], def->states[state]);
}
