/* SPDX-License-Identifier: MIT
 *
 * What relay.c (start-up and shutdown), relay_files.c (what it writes down), relay_live.c (what
 * changes while it runs) and relay_reload.c (SIGHUP) share. Nobody else includes this.
 */
#ifndef CV_RELAY_RELAY_PRIVATE_H
#define CV_RELAY_RELAY_PRIVATE_H

#include "relay/relay.h"

/* How many workers the settings ask for. */
unsigned relay_worker_count(const struct cv_relay_config *config);

/* ---- relay.c ---- */

/* For the service manager: this process serves. */
void relay_tell_ready(const struct cv_relay *relay);

/* ---- relay_reload.c ---- */

/* SIGHUP. On the thread of cv_relay_serve. */
void relay_reload(struct cv_relay *relay);

/* ---- relay_files.c ---- */

/* The audit log, unless it is switched off, and the list of revocations. As cv_audit_new and
 * cv_revocations_new. */
struct cv_status relay_open_audit(struct cv_relay *relay, const char *state_dir,
                                  struct cv_error *error);
struct cv_status relay_open_revocations(struct cv_relay *relay, const char *state_dir,
                                        struct cv_error *error);

/* The history; a file that cannot be opened is no failure. As cv_history_new. */
struct cv_status relay_open_history(struct cv_relay *relay, const char *state_dir,
                                    struct cv_error *error);

/* The names that consumers may ask for after a restart. Failure is only logged: they hear 404 for a
 * moment then. */
void relay_open_recall(struct cv_relay *relay, const char *state_dir);
/* First worker, now and then, or at the end: writes them down when there are others. */
void relay_save_recall(struct cv_relay *relay, bool is_end);

/* Who tells operators of incidents, where somebody is to be told. As cv_reporter_new. */
struct cv_status relay_open_reporter(struct cv_relay *relay, const char *state_dir,
                                     struct cv_error *error);

/* ---- relay_live.c ---- */

/* Looks for what another relay has revoked, such as one that takes over from this one, and for keys
 * that are not there any more. */
void relay_refresh_revocations(struct cv_relay_worker *worker);

#endif
