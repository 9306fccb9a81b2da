/* SPDX-License-Identifier: MIT
 *
 * When an uplink's spans begin and end: its states say it all.
 */
#include "agent/access.h"
#include "agent/uplink_private.h"

static void end(struct cv_uplink *u, enum cv_status_id why)
{
    const struct cv_access *access = u->options.access;
    cv_link_span_end(&u->span, access->spans, access->relay, u->attempts, why, u->worker);
}

void uplink_trace(struct cv_uplink *u)
{
    const struct cv_link_spans *spans = u->options.access->spans;
    enum cv_status_id why = is_state(u, CLOSING) ? u->error.id : u->trouble.id;
    switch ((enum state)u->fsm.state) {
    case DIALING:
        cv_link_span_begin(&u->span, spans, CV_TRACE_CONNECT, u->worker);
        break;
    case RESUMING:
        cv_link_span_begin(&u->span, spans, CV_TRACE_RESUME, u->worker);
        break;
    case UP:
        end(u, CV_OK);
        break;
    case DETACHED:
    case WAITING:
    case RESTING:
    case CLOSING:
        end(u, why == CV_OK ? CV_CANCELLED : why);
        break;
    default:
        break;
    }
}
