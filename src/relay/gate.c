/* SPDX-License-Identifier: MIT */
#include "relay/registry.h"
#include "relay/session.h"

#include <stdlib.h>

struct cv_gate *cv_gate_new(void)
{
    struct cv_gate *gate = calloc(1, sizeof *gate);
    if (!gate)
        return NULL;
    atomic_init(&gate->refs, 1);
    cv_slots_init(&gate->slots);
    return gate;
}

struct cv_gate *cv_gate_ref(struct cv_gate *gate)
{
    (void)atomic_fetch_add_explicit(&gate->refs, 1, memory_order_relaxed);
    return gate;
}

void cv_gate_unref(struct cv_gate **gate)
{
    if (*gate && atomic_fetch_sub_explicit(&(*gate)->refs, 1, memory_order_acq_rel) == 1) {
        cv_slots_done(&(*gate)->slots);
        free(*gate);
    }
    *gate = NULL;
}

void cv_route_done(struct cv_route *route)
{
    cv_tunnel_spec_unref(&route->spec);
    cv_session_unref(&route->session);
    cv_gate_unref(&route->gate);
}
