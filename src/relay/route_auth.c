/* SPDX-License-Identifier: MIT
 *
 * Who asks: the token of a request, what the log and the audit log say of it.
 */
#include "auth/auth.h"
#include "config/relay_config.h"
#include "proto/http/http_parser.h"
#include "relay/consumer_private.h"
#include "relay/keys.h"
#include "relay/measure.h"
#include "relay/revocation.h"
#include "telemetry/audit.h"
#include "telemetry/log.h"

enum { KEYS_WAIT_MS = 5000, AUDIT_FAILURES_PER_SECOND = 50 };

/* A browser's WebSocket carries the token as subprotocol `bearer.<JWT>`. */
static struct cv_slice protocol_token(const struct cv_consumer *c)
{
    for (size_t i = 0; c->head.is_upgrade && i < c->head.field_count; i++) {
        if (!cv_slice_is_nocase(c->head.fields[i].name, "Sec-WebSocket-Protocol"))
            continue;
        struct cv_slice rest = c->head.fields[i].value, item;
        while (cv_http_list_next(&rest, &item))
            if (cv_slice_starts_with(item, "bearer."))
                return cv_slice(item.data + 7, item.len - 7);
    }
    return cv_slice(NULL, 0);
}

/* CV_AUTH_MISSING, CV_AUTH_MALFORMED. */
static struct cv_status find_token(const struct cv_consumer *c, struct cv_slice *token)
{
    const char *name =
        cv_http_find(&c->head, "Culvert-Authorization") ? "Culvert-Authorization" : "Authorization";
    const struct cv_slice *value = cv_http_find(&c->head, name);
    if (cv_http_count(&c->head, name) > 1)
        return cv_status(CV_AUTH_MALFORMED);
    if (value)
        return cv_auth_bearer(*value, token);
    *token = protocol_token(c);
    return cv_status(token->len ? CV_OK : CV_AUTH_MISSING);
}

bool route_has_no_token(const struct cv_consumer *c)
{
    struct cv_slice token;
    return !c->owner && find_token(c, &token).id == CV_AUTH_MISSING;
}

/* Whoever has no token can fail as often as the network lets it: the log must not be all that. */
static bool admit_failure(struct cv_relay_worker *worker, uint64_t *suppressed)
{
    uint64_t second = cv_worker_now_ms(worker->worker) / 1000;
    if (second != worker->failures_second) {
        worker->failures_second = second;
        worker->failures_recorded = 0;
    }
    if (worker->failures_recorded >= AUDIT_FAILURES_PER_SECOND) {
        worker->failures_suppressed++;
        return false;
    }
    worker->failures_recorded++;
    *suppressed = worker->failures_suppressed;
    worker->failures_suppressed = 0;
    return true;
}

void route_audit_auth_ok(const struct cv_consumer *c, const char *what)
{
    char peer[CV_ADDR_TEXT_LEN];
    cv_audit(c->worker->record, AUTH_OK, CV_F_STR("userId", c->x.identity->subject),
             CV_F_STR("client", cv_addr_format_ip(&c->client, peer)),
             CV_F_STR("requestId", c->x.id), CV_F_STR("what", what),
             CV_F_STR("jti", c->x.identity->jti[0] ? c->x.identity->jti : NULL));
}

static void audit_auth_failed(const struct cv_consumer *c, struct cv_status status,
                              const char *peer)
{
    struct cv_audit_queue *record = c->worker->record;
    uint64_t suppressed = 0;
    if (cv_audit_is_on(record, CV_AUDIT_AUTH_FAILED) && admit_failure(c->worker, &suppressed))
        cv_audit(record, AUTH_FAILED, CV_F_STR("reason", cv_auth_result_name(status.id)),
                 CV_F_STR("client", peer), CV_F_STR("requestId", c->x.id),
                 CV_F_UINT("notRecorded", suppressed));
}

static void log_auth(const struct cv_consumer *c, struct cv_status status, const char *detail)
{
    struct cv_log *log = c->worker->relay->log;
    char peer[CV_ADDR_TEXT_LEN];
    if (cv_is_ok(status) && !cv_log_is_on(log, CV_LOG_DEBUG))
        return;
    cv_addr_format_ip(&c->client, peer);
    if (!cv_is_ok(status))
        audit_auth_failed(c, status, peer);
    if (cv_is_ok(status))
        cv_log(log, CV_LOG_DEBUG, "auth", "auth_ok", "token accepted",
               CV_F_STR("userId", c->x.identity->subject), CV_F_STR("client", peer),
               CV_F_STR("correlationId", c->x.id));
    else
        cv_log_limited(log, CV_LOG_WARN, "auth", "auth_failed", cv_status_text(status.id),
                       CV_F_STR("reason", cv_auth_result_name(status.id)),
                       CV_F_STR("detail", detail), CV_F_STR("client", peer),
                       CV_F_STR("correlationId", c->x.id), CV_F_STATUS(status));
}

bool route_authenticate(struct cv_consumer *c)
{
    struct cv_relay *relay = c->worker->relay;
    struct cv_slice token;
    struct cv_error error = {0};
    struct cv_status status = c->owner ? cv_ok() : find_token(c, &token);
    if (c->owner)
        c->x.identity = cv_identity_ref(c->owner);
    else if (cv_is_ok(status))
        status = cv_auth_check(relay->auth_policy, relay->keys, c->worker->tokens, token,
                               (int64_t)cv_worker_wall_seconds(c->worker->worker),
                               consumer_now_ms(c), &c->x.identity, &error);
    if (status.id == CV_AUTH_UNKNOWN_KEY && c->keys_due_ms == 0) {
        enum cv_keysource_advice advice = cv_keysource_unknown_key(relay->keys, consumer_now_ms(c));
        if (advice != CV_KEYSOURCE_REFUSE) {
            c->keys_attempts = cv_keysource_attempts(relay->keys);
            c->keys_due_ms = consumer_now_ms(c) + KEYS_WAIT_MS;
            if (advice == CV_KEYSOURCE_FETCH)
                cv_relay_fetch_keys(c->worker);
            cv_fsm_set(&c->state, CONSUMER_WAITING);
            consumer_arm(c);
            return false;
        }
    }
    if (cv_is_ok(status) && cv_revocations_cover(relay->revocations, c->x.identity)) {
        status = cv_status(CV_AUTH_REVOKED);
        cv_identity_unref(&c->x.identity);
    }
    /* Only who asks for a link that is there has not been counted yet. */
    if (!cv_is_ok(status) && !source_admit(c, CV_LIMIT_UPGRADES))
        return false;
    if (!c->owner) {
        log_auth(c, status, error.detail);
        measure_auth(c->worker, status);
    }
    if (cv_is_ok(status))
        return true;
    if (source_hold_back(c, status))
        return false;
    problem_answer(c, status.id, CV_HOP_RELAY, NULL, c->head.framing == CV_HTTP_NO_BODY);
    return false;
}
