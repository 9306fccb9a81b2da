/* SPDX-License-Identifier: MIT
 *
 * A link's relay side: whose it is, what it publishes, its streams and their pool. Lives on the
 * worker that accepted it; other workers hold references and reach it through its mailbox only.
 */
#ifndef CV_RELAY_SESSION_H
#define CV_RELAY_SESSION_H

#include "relay/registry.h"
#include "transport/link.h"

#include <stdatomic.h>

struct cv_bucket_entry;
struct cv_conn;
struct cv_identity;
struct cv_link_claim;
struct cv_relay_worker;
struct cv_trace_ids;

/* Links of a user beside those that publish: forward, stdio, and those not yet that far. */
enum { CV_SESSION_QUIET_LINKS_MAX = 10 };

/* Takes over an upgraded connection (the 101 is in its output) as a link of `identity`. `early` are
 * the bytes behind the upgrade. `source` counts the connection (limits.h) and is the link's from
 * here on, but not on failure; NULL where it is not counted. `agent_id`: 16 bytes from
 * Culvert-Agent, or NULL. `trace`: the span of the upgrade, copied, or NULL. CV_NO_MEMORY leaves
 * `conn` with the caller. */
struct cv_status cv_session_accept(struct cv_relay_worker *worker, struct cv_conn *conn,
                                   struct cv_identity *identity, const uint8_t *agent_id,
                                   const uint8_t link_id[16], bool is_culvert,
                                   struct cv_slice early, struct cv_bucket_entry *source,
                                   const struct cv_trace_ids *trace);

struct cv_session *cv_session_ref(struct cv_session *session);
void cv_session_unref(struct cv_session **session);

/* Any thread: constants of the session. */
unsigned cv_session_worker_index(const struct cv_session *session);
const uint8_t *cv_session_agent_id(const struct cv_session *session); /* 16 bytes */
unsigned cv_session_load(const struct cv_session *session); /* requests in flight, roughly */

/* How many requests wait for a stream, and for about how long one would wait that came now. */
struct cv_session_queue {
    unsigned waiting;
    uint64_t estimated_ms;
};
struct cv_session_queue cv_session_queue(const struct cv_session *session);

const uint8_t *cv_session_link_id(const struct cv_session *session); /* 16 bytes */
/* The span of the upgrade that made the link; NULL where it was not recorded. */
const struct cv_trace_ids *cv_session_trace(const struct cv_session *session);
const char *cv_session_user_id(const struct cv_session *session); /* the subject, cut */
const struct cv_user_key *cv_session_user_key(const struct cv_session *session);
/* False while the link has no socket, waiting to be resumed. */
bool cv_session_is_reachable(const struct cv_session *session);
uint64_t cv_session_detached_since_ms(const struct cv_session *session); /* 0: it has one */
/* How long it has been so, in sum, up to `now_ms`: timers of requests rest for that time. */
uint64_t cv_session_paused_ms(const struct cv_session *session, uint64_t now_ms);

/* Whether the link's token holds at the Unix time `now_s`; without one that does, no request goes
 * over it. Any thread. */
bool cv_session_is_entitled(const struct cv_session *session, int64_t now_s);
/* Own worker only: the link ends, and new requests do at once, if its token is revoked. */
void cv_session_check_revoked(struct cv_session *session);

/* Own worker only. A link that was lost is taken up again: first the claim is checked, which leaves
 * the link as it was unless it holds (CV_RESUME_UNKNOWN, CV_RESUME_CONFLICT, CV_RESUME_PROOF),
 * then, with *received and `proof` written into the 101, the connection is handed over together
 * with the identity of its token. On failure of the latter `conn` stays with the caller. */
bool cv_session_is_restless(const struct cv_session *session); /* it came back too often of late */
struct cv_status cv_session_accept_claim(struct cv_session *session,
                                         const struct cv_link_claim *claim, uint64_t *received,
                                         uint8_t proof[32]);
struct cv_status cv_session_resume(struct cv_session *session, const struct cv_link_claim *claim,
                                   struct cv_conn *conn, struct cv_identity *identity,
                                   struct cv_slice early);

/* Own worker only. */
void cv_session_close(struct cv_session *session, struct cv_status why, const char *message);

/* The same from any thread, later; takes the reference. */
void cv_session_close_later(struct cv_session *session, struct cv_status why);

/* Whether a request found no free stream there a moment ago. Any thread. */
bool cv_session_is_full(const struct cv_session *session);

/* Requests that wait there look again whether they can go, soon. Any thread. */
void cv_session_wake(struct cv_session *session);

/* Tells the agent that this relay stops within `after_ms`. */
void cv_session_announce_shutdown(struct cv_session *session, uint64_t after_ms);

#endif
