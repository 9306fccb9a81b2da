/* SPDX-License-Identifier: MIT
 *
 * Keeps the token of a link fresh: hands in a new one over the link when the token file changes,
 * and when the relay says that the one it has will expire (docs/PROTOCOL.md, `token`). A field of
 * its uplink; borrows access, log and link. Its worker's thread.
 */
#ifndef CV_AGENT_RENEWAL_H
#define CV_AGENT_RENEWAL_H

#include "base/digest.h"
#include "base/timers.h"

#include <sys/types.h>
#include <time.h>

struct cv_access;
struct cv_command;
struct cv_link;
struct cv_link_control;
struct cv_log;
struct cv_worker;

struct cv_renewal {
    struct cv_worker *worker;
    const struct cv_access *access;
    struct cv_log *log;
    struct cv_link *link; /* NULL: none to renew */
    struct cv_timer timer;
    struct cv_command *command;  /* token_command, while it runs */
    uint8_t held[CV_SHA256_LEN]; /* of the token that the relay has, or was offered */
    bool is_wanted;              /* the relay has asked, and no good one has come */
    bool is_told;                /* that there is no way to get another one */
    unsigned refusals;           /* in a row */
    struct timespec file_time;
    ino_t file_number;
};

/* Caller's memory; for an uplink. */
void cv_renewal_init(struct cv_renewal *renewal, struct cv_worker *worker,
                     const struct cv_access *access, struct cv_log *log);

/* `link` is up, with the token it was dialled with. */
void cv_renewal_start(struct cv_renewal *renewal, struct cv_link *link);
/* The link has ended. Idempotent. */
void cv_renewal_stop(struct cv_renewal *renewal);

/* A notice of the relay; other than those about tokens are ignored. */
void cv_renewal_on_notice(struct cv_renewal *renewal, const struct cv_link_control *control);

#endif
