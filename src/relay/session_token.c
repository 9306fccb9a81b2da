/* SPDX-License-Identifier: MIT
 *
 * The life of a link's token.
 *
 * Happy path: session_take_identity → a quarter of its life before the end: notice
 * `token_expiring`, and again whenever half of what was left has gone → the agent's `token` →
 * session_on_token → session_take_identity. Ways it fails: no fresh one comes: at the end no new
 * request goes over the link, those under way have auth.expiry_grace, then it closes with 4401; a
 * fresh one in that time makes it whole again. It is revoked: the link closes at once with 4402.
 * The fresh one is bad: it is refused with a notice, and the old one holds for as long as it did.
 */
#include "auth/auth.h"
#include "config/relay_config.h"
#include "relay/keys.h"
#include "relay/measure.h"
#include "relay/revocation.h"
#include "relay/session_private.h"
#include "telemetry/audit.h"
#include "telemetry/log.h"

#include <string.h>

enum {
    TELL_MAX_MS = 300 * 1000, /* so long before the end at most */
    TELL_MIN_MS = 500,        /* less than this before the end is no use any more */
    LOOK_MS = 100,            /* in the grace: whether anything is still under way */
    OFFER_MS = 200,           /* between tokens that are looked at: a signature takes a while */
};

static uint64_t now_ms(const struct cv_session *session)
{
    return cv_worker_now_ms(session->worker->worker);
}

static int64_t now_s(const struct cv_session *session)
{
    return (int64_t)cv_worker_wall_seconds(session->worker->worker);
}

bool cv_session_is_entitled(const struct cv_session *session, int64_t at_s)
{
    return at_s < atomic_load_explicit(&session->token_until_s, memory_order_relaxed);
}

static uint64_t left_ms(const struct cv_session *session)
{
    int64_t left_s = session->identity->valid_until_s - now_s(session);
    return left_s > 0 ? (uint64_t)left_s * 1000 : 0;
}

static void arm(struct cv_session *session, uint64_t ms)
{
    (void)cv_worker_timer_start(session->worker->worker, &session->expiry, ms ? ms : 1);
}

static void audit(const struct cv_session *session, enum cv_audit_event event, const char *reason)
{
    char id[33];
    cv_hex_encode(cv_slice(session->link_id, sizeof session->link_id), id);
    const struct cv_log_field fields[] = {
        CV_F_STR("userId", session->identity->subject),
        CV_F_STR("linkId", id),
        CV_F_STR("jti", session->identity->jti[0] ? session->identity->jti : NULL),
        CV_F_STR("reason", reason),
        {.kind = CV_LOG_FIELD_END}};
    cv_audit_put(session->worker->record, event, fields);
}

void session_take_identity(struct cv_session *session, struct cv_identity *identity)
{
    identity = cv_identity_ref(identity); /* it may be the one that is given back */
    cv_identity_unref(&session->identity);
    session->identity = identity;
    session->grace_due_ms = 0;
    atomic_store_explicit(&session->token_until_s, identity->valid_until_s, memory_order_relaxed);
    session_take_rights(session);
    uint64_t left = left_ms(session), tell = left / 4;
    arm(session, left - (tell < TELL_MAX_MS ? tell : TELL_MAX_MS));
}

/* ---- the end ---- */

static void begin_grace(struct cv_session *session, const char *reason, const char *message)
{
    const struct cv_relay *relay = session->worker->relay;
    uint64_t grace_ms = relay->config->auth_expiry_grace_ms;
    session->grace_due_ms = now_ms(session) + (grace_ms ? grace_ms : 1);
    atomic_store_explicit(&session->token_until_s, 0, memory_order_relaxed);
    cv_log(relay->log, CV_LOG_INFO, "session", "token_ended",
           "the link's token holds no more; requests under way may end",
           CV_F_STR("userId", session->user_id), CV_F_STR("connectionId", session->id),
           CV_F_STR("reason", reason), CV_F_UINT("graceMs", grace_ms),
           CV_F_UINT("requests", cv_session_load(session)));
    audit(session, CV_AUDIT_TOKEN_ENDED, reason);
    session_notice(session, "token_expired", "", message, grace_ms);
}

static void on_grace(struct cv_session *session)
{
    uint64_t now = now_ms(session);
    if (now >= session->grace_due_ms || cv_session_load(session) == 0)
        cv_session_close(session, cv_status(CV_AUTH_EXPIRED), "the token has expired");
    else
        arm(session, LOOK_MS);
}

void session_on_expiry(void *arg)
{
    struct cv_session *session = arg;
    uint64_t left = left_ms(session);
    if (session->grace_due_ms) {
        on_grace(session);
    } else if (left) {
        session_notice(session, "token_expiring", "", "hand in a fresh token", left);
        arm(session, left / 2 > TELL_MIN_MS ? left / 2 : left);
    } else {
        begin_grace(session, "expired", cv_status_text(CV_AUTH_EXPIRED));
        on_grace(session);
    }
}

/* Whoever took the key away does not vouch for what it has signed; the agent may have a token of
 * another key, as it does when keys are rotated. */
static void check_key(struct cv_session *session)
{
    if (session->grace_due_ms || !cv_keysource_has_lost(session->worker->relay->keys,
                                                        now_ms(session), session->identity->signer))
        return;
    begin_grace(session, "key_removed", "the key that signed the token is not trusted any more");
    on_grace(session);
}

void cv_session_check_revoked(struct cv_session *session)
{
    struct cv_relay *relay = session->worker->relay;
    if (!session->link)
        return;
    if (!cv_revocations_cover(relay->revocations, session->identity)) {
        check_key(session);
        return;
    }
    atomic_store_explicit(&session->token_until_s, 0, memory_order_relaxed);
    cv_log(relay->log, CV_LOG_WARN, "session", "token_revoked", "the link's token was revoked",
           CV_F_STR("userId", session->user_id));
    audit(session, CV_AUDIT_TOKEN_ENDED, "revoked");
    cv_session_close(session, cv_status(CV_AUTH_REVOKED), cv_status_text(CV_AUTH_REVOKED));
}

/* ---- a fresh one ---- */

static struct cv_status check_token(struct cv_session *session, const char *token,
                                    struct cv_identity **identity, struct cv_error *error)
{
    struct cv_relay_worker *worker = session->worker;
    struct cv_relay *relay = worker->relay;
    CV_RETURN_IF_ERROR(cv_auth_check(relay->auth_policy, relay->keys, worker->tokens,
                                     cv_slice_str(token), now_s(session), now_ms(session), identity,
                                     error));
    struct cv_status status = cv_ok();
    if (!cv_identity_is_same_user(*identity, session->identity))
        status = cv_fail(error, CV_FORBIDDEN, "the token is another user's");
    else if (cv_revocations_cover(relay->revocations, *identity))
        status = cv_status(CV_AUTH_REVOKED);
    if (!cv_is_ok(status))
        cv_identity_unref(identity);
    return status;
}

static void refuse_token(struct cv_session *session, struct cv_status why, const char *detail)
{
    struct cv_relay_worker *worker = session->worker;
    if (why.id == CV_AUTH_UNKNOWN_KEY &&
        cv_keysource_unknown_key(worker->relay->keys, now_ms(session)) == CV_KEYSOURCE_FETCH)
        cv_relay_fetch_keys(worker); /* the agent tries once more */
    cv_log_limited(worker->relay->log, CV_LOG_WARN, "session", "token_refused",
                   "the fresh token of an agent is not taken", CV_F_STR("userId", session->user_id),
                   CV_F_STR("connectionId", session->id), CV_F_STR("detail", detail),
                   CV_F_STATUS(why));
    cv_audit(worker->record, AUTH_FAILED, CV_F_STR("reason", cv_auth_result_name(why.id)),
             CV_F_STR("userId", session->user_id));
    session_notice(session, "token_refused", "", cv_status_text(why.id), 0);
}

void session_on_token(struct cv_session *session, const char *token)
{
    struct cv_identity *identity = NULL;
    struct cv_error error = {0};
    uint64_t now = now_ms(session);
    if (!session->link)
        return;
    if (session->token_offered_ms && now - session->token_offered_ms < OFFER_MS) {
        session_notice(session, "token_refused", "", "too many tokens at once", 0);
        return;
    }
    session->token_offered_ms = now;
    struct cv_status status = check_token(session, token, &identity, &error);
    measure_auth(session->worker, status);
    if (!cv_is_ok(status)) {
        refuse_token(session, status, error.detail);
        return;
    }
    session_take_identity(session, identity);
    cv_identity_unref(&identity);
    cv_log(session->worker->relay->log, CV_LOG_INFO, "session", "token_renewed",
           "the agent has handed in a fresh token", CV_F_STR("userId", session->user_id),
           CV_F_STR("connectionId", session->id), CV_F_UINT("leftMs", left_ms(session)));
    audit(session, CV_AUDIT_TOKEN_RENEWED, NULL);
    session_notice(session, "token_accepted", "", "the fresh token holds", left_ms(session));
    cv_pool_on_capacity(&session->pool);
}
