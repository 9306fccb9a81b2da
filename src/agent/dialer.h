/* SPDX-License-Identifier: MIT
 *
 * One try to reach the relay: name, proxy, TCP, TLS, WebSocket upgrade. Gives an upgraded
 * connection, or why not in one sentence.
 * Owns everything under way; borrows the access. All within one time limit. Its worker's thread.
 */
#ifndef CV_AGENT_DIALER_H
#define CV_AGENT_DIALER_H

#include "base/slice.h"
#include "base/status.h"

#include <stdint.h>

struct cv_access;
struct cv_addr;
struct cv_conn;
struct cv_dialer;
struct cv_link_claim;
struct cv_link_span;
struct cv_upgrade_answer;
struct cv_worker;

struct cv_dialer_result {
    struct cv_status status;
    const struct cv_error *error; /* never NULL */
    uint64_t retry_after_ms;      /* the server asks not to come back before; 0: it does not */
    struct cv_conn *conn;         /* the callee's: set its ops before returning; or NULL */
    struct cv_slice early;        /* came behind the upgrade; valid for the call */
    const struct cv_upgrade_answer *answer; /* what the relay says about the link; or NULL */
    int http_status; /* what came of the upgrade; 0: no answer, or it was not asked for */
    int64_t date_s;  /* the clock of who answered, Unix seconds; 0: unknown */
};

/* Called once, never from inside cv_dialer_start; the dialer is gone when it is entered. */
typedef void cv_dialer_on_done(void *arg, const struct cv_dialer_result *result);

/* What is asked for; borrowed for the call, but for `subprotocol`, a literal. */
struct cv_dialer_request {
    const char *subprotocol;
    const struct cv_link_claim *claim; /* to an earlier link; NULL: a new one */
    const struct cv_link_span *span;   /* of the try; NULL: none */
    uint64_t timeout_ms;               /* for all of it; 0: connect.relay_timeout */
    /* As in cv_dial_options; NULL and 0 where nothing is known. */
    const struct cv_addr *hint;
    unsigned rounds;
};

/* Failures before anything is under way, on_done is not called then:
 * no token (CV_AUTH_MISSING …, see cv_access_token), a bad proxy setting (CV_CONFIG),
 * CV_NO_MEMORY. */
struct cv_status cv_dialer_start(struct cv_worker *worker, const struct cv_access *access,
                                 const struct cv_dialer_request *request,
                                 cv_dialer_on_done *on_done, void *arg, struct cv_dialer **dialer,
                                 struct cv_error *error);

/* Stops it; on_done is not called. *dialer is NULL afterwards; NULL is fine. */
void cv_dialer_cancel(struct cv_dialer **dialer);

/* Closes a connection that a result handed over and that cannot be used. */
void cv_dialer_discard(struct cv_conn *conn);

#endif
