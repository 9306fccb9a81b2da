/* SPDX-License-Identifier: MIT
 *
 * A link's life on the relay.
 *
 * Happy path: cv_session_accept → on_link_up → on_link_request (session_names.c) → streams through
 * the pool → on_link_closed: withdraw, end the pool, give up the references; on the way maybe
 * on_link_detached → cv_session_accept_claim → cv_session_resume. Ways it fails: the token expires
 * (session_token.c); the carrier ends for any reason of transport/link.
 */
#include "relay/session.h"

#include "config/relay_config.h"
#include "net/conn.h"
#include "proto/link/resume.h"
#include "proto/ssh/ssh.h"
#include "relay/bridge.h"
#include "relay/canary.h"
#include "relay/limits.h"
#include "relay/measure.h"
#include "relay/session_private.h"
#include "telemetry/audit.h"
#include "telemetry/log.h"
#include "transport/link_settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/* ---- references ---- */

struct cv_session *cv_session_ref(struct cv_session *session)
{
    (void)atomic_fetch_add_explicit(&session->refs, 1, memory_order_relaxed);
    return session;
}

void cv_session_unref(struct cv_session **session)
{
    struct cv_session *s = *session;
    *session = NULL;
    if (!s || atomic_fetch_sub_explicit(&s->refs, 1, memory_order_acq_rel) != 1)
        return;
    session_forget_names(s);
    cv_identity_unref(&s->identity);
    free(s);
}

unsigned cv_session_worker_index(const struct cv_session *session)
{
    return session->worker_index;
}

const uint8_t *cv_session_agent_id(const struct cv_session *session)
{
    return session->agent_id;
}

const uint8_t *cv_session_link_id(const struct cv_session *session)
{
    return session->link_id;
}

const struct cv_trace_ids *cv_session_trace(const struct cv_session *session)
{
    return session->trace.flags & CV_TRACE_SAMPLED ? &session->trace : NULL;
}

const char *cv_session_user_id(const struct cv_session *session)
{
    return session->user_id;
}

const struct cv_user_key *cv_session_user_key(const struct cv_session *session)
{
    return &session->user_key;
}

bool cv_session_is_reachable(const struct cv_session *session)
{
    return cv_session_detached_since_ms(session) == 0;
}

uint64_t cv_session_detached_since_ms(const struct cv_session *session)
{
    return atomic_load_explicit(&session->detached_since_ms, memory_order_relaxed);
}

uint64_t cv_session_paused_ms(const struct cv_session *session, uint64_t now_ms)
{
    uint64_t since = atomic_load_explicit(&session->detached_since_ms, memory_order_acquire);
    uint64_t total = atomic_load_explicit(&session->detached_total_ms, memory_order_relaxed);
    return total + (since && now_ms > since ? now_ms - since : 0);
}

unsigned cv_session_load(const struct cv_session *session)
{
    return atomic_load_explicit(&session->load, memory_order_relaxed);
}

bool cv_session_is_full(const struct cv_session *session)
{
    return atomic_load_explicit(&session->is_full, memory_order_relaxed);
}

static void on_wake(void *arg)
{
    struct cv_session *session = arg;
    atomic_store(&session->is_woken, false);
    cv_pool_look(&session->pool);
    cv_session_unref(&session);
}

void cv_session_wake(struct cv_session *session)
{
    if (atomic_exchange(&session->is_woken, true))
        return;
    cv_mail_init(&session->wake_mail, on_wake, cv_session_ref(session));
    if (cv_worker_post(session->worker->worker, &session->wake_mail))
        return;
    atomic_store(&session->is_woken, false);
    struct cv_session *reference = session;
    cv_session_unref(&reference); /* whoever calls has one of its own */
}

struct cv_session_queue cv_session_queue(const struct cv_session *session)
{
    unsigned waiting = atomic_load_explicit(&session->waiting, memory_order_relaxed);
    uint64_t turn_ms = atomic_load_explicit(&session->turn_ms, memory_order_relaxed);
    return (struct cv_session_queue){waiting, (waiting + (uint64_t)1) * turn_ms};
}

void cv_session_close(struct cv_session *session, struct cv_status why, const char *message)
{
    if (session->link)
        cv_link_close(session->link, why, message);
}

/* ---- link events ---- */

static void on_link_up(void *arg)
{
    struct cv_session *session = arg;
    measure_up(session);
    cv_log(session->worker->relay->log, CV_LOG_INFO, "session", "link_up", "link established",
           CV_F_STR("userId", session->user_id), CV_F_STR("connectionId", session->id),
           CV_F_TRACE(cv_session_trace(session)),
           CV_F_UINT("setupMs", cv_worker_now_ms(session->worker->worker) - session->since_ms));
}

static bool on_link_request(void *arg, struct cv_slice name, struct cv_slice host, uint32_t port,
                            struct cv_slice payload)
{
    struct cv_session *session = arg;
    if (cv_slice_is(name, "tunnel@culvert"))
        return session_describe(session, payload);
    if (cv_slice_is(name, "tcpip-forward"))
        return session_publish(session, host, port);
    if (cv_slice_is(name, "cancel-tcpip-forward"))
        return session_withdraw(session, host);
    return false;
}

static void on_link_stream(void *arg, struct cv_stream *stream, enum cv_stream_kind kind,
                           struct cv_slice host, uint32_t port)
{
    struct cv_session *session = arg;
    if (kind != CV_STREAM_DIRECT || session->grace_due_ms) {
        cv_stream_refuse(stream, CV_SSH_OPEN_PROHIBITED, "not here");
        return;
    }
    cv_bridge_direct(session, stream, host, port);
}

static void on_link_control(void *arg, const struct cv_link_control *control)
{
    struct cv_session *session = arg;
    if (control->type == CV_LINK_TOKEN) {
        session_on_token(session, control->token);
        return;
    }
    if (control->type == CV_LINK_EVENT && strcmp(control->code, "moved") == 0 &&
        !session->has_moved) {
        session->has_moved = true;
        (void)atomic_fetch_add_explicit(&session->worker->moved_count, 1, memory_order_relaxed);
    }
    cv_log_limited(session->worker->relay->log, CV_LOG_INFO, "session", "link_control",
                   "the agent says", CV_F_UINT("type", control->type),
                   CV_F_STR("code", control->code), CV_F_STR("text", control->message),
                   CV_F_STR("userId", session->user_id), CV_F_STR("connectionId", session->id));
}

/* ---- without a socket for a while ---- */

static void on_link_detached(void *arg, struct cv_status why, const struct cv_error *error)
{
    struct cv_session *session = arg;
    struct cv_relay *relay = session->worker->relay;
    atomic_store_explicit(&session->detached_since_ms, cv_worker_now_ms(session->worker->worker),
                          memory_order_release);
    cv_log(relay->log, CV_LOG_INFO, "session", "link_detached",
           "the link's connection is lost, waiting for the agent to come back",
           CV_F_STR("userId", session->user_id), CV_F_STR("connectionId", session->id),
           CV_F_STR("reason", cv_status_name(why.id)), CV_F_STR("detail", error->detail),
           CV_F_UINT("streams", cv_link_streams(session->link)),
           CV_F_UINT("windowMs", relay->config->link_resume_window_ms));
    cv_pool_look(&session->pool); /* who waits may go another way */
    if (session->is_diagnosing)   /* nobody comes back for it */
        cv_link_close(session->link, cv_status(CV_LINK_LOST), "the diagnosis is over");
}

/* No network is lost more often; beyond it somebody makes the relay work. */
static const struct cv_bucket_rate free_resumes = {.per_minute = 60, .burst = 60};

bool cv_session_is_restless(const struct cv_session *session)
{
    uint64_t now_ms = cv_worker_now_ms(session->worker->worker);
    return cv_bucket_look(&session->resumes, free_resumes, now_ms).remaining == 0;
}

struct cv_status cv_session_accept_claim(struct cv_session *session,
                                         const struct cv_link_claim *claim, uint64_t *received,
                                         uint8_t proof[32])
{
    if (!session->link)
        return cv_status(CV_RESUME_UNKNOWN);
    CV_RETURN_IF_ERROR(cv_link_accept_claim(session->link, claim, received, proof));
    (void)cv_bucket_take(&session->resumes, free_resumes, 1,
                         cv_worker_now_ms(session->worker->worker), NULL);
    return cv_ok();
}

static void audit_link(struct cv_session *session, enum cv_audit_event event,
                       const struct cv_addr *peer)
{
    char id[33], client[CV_ADDR_TEXT_LEN];
    struct cv_audit_queue *record = session->worker->record;
    if (!cv_audit_is_on(record, event))
        return;
    cv_hex_encode(cv_slice(session->link_id, sizeof session->link_id), id);
    const struct cv_log_field fields[] = {
        CV_F_STR("userId", session->identity->subject),
        CV_F_STR("linkId", id),
        CV_F_STR("client", cv_addr_format_ip(peer, client)),
        CV_F_STR("jti", session->identity->jti[0] ? session->identity->jti : NULL),
        {.kind = CV_LOG_FIELD_END}};
    cv_audit_put(record, event, fields);
}

struct cv_status cv_session_resume(struct cv_session *session, const struct cv_link_claim *claim,
                                   struct cv_conn *conn, struct cv_identity *identity,
                                   struct cv_slice early)
{
    uint64_t now_ms = cv_worker_now_ms(session->worker->worker);
    CV_RETURN_IF_ERROR(cv_link_attach(session->link, conn, claim->received, early));
    uint64_t since = cv_session_detached_since_ms(session);
    uint64_t paused_ms = since ? now_ms - since : 0;
    (void)atomic_fetch_add_explicit(&session->detached_total_ms, paused_ms, memory_order_relaxed);
    atomic_store_explicit(&session->detached_since_ms, 0, memory_order_release);
    cv_log(session->worker->relay->log, CV_LOG_INFO, "session", "link_resumed",
           "the agent is back on its link", CV_F_STR("userId", session->user_id),
           CV_F_STR("connectionId", session->id), CV_F_UINT("detachedMs", paused_ms),
           CV_F_UINT("streams", cv_link_streams(session->link)),
           CV_F_UINT("counter", claim->counter));
    audit_link(session, CV_AUDIT_RESUME, cv_conn_peer_addr(conn));
    measure_resumed(session);
    session_take_identity(session, identity);
    session_say_again(session);
    cv_pool_on_capacity(&session->pool);
    return cv_ok();
}

static void on_link_capacity(void *arg)
{
    struct cv_session *session = arg;
    cv_pool_on_capacity(&session->pool);
}

static void on_link_closed(void *arg, struct cv_status why, const struct cv_error *error)
{
    struct cv_session *session = arg;
    struct cv_relay_worker *worker = session->worker;
    struct cv_relay *relay = worker->relay;
    uint64_t now_ms = cv_worker_now_ms(worker->worker);
    cv_log(relay->log, CV_LOG_INFO, "session", "link_down", "link ended",
           CV_F_STR("userId", session->user_id), CV_F_STR("connectionId", session->id),
           CV_F_STR("reason", cv_status_name(why.id)),
           CV_F_STR("detail", error ? error->detail : ""),
           CV_F_UINT("bytesIn", cv_link_bytes_in(session->link)),
           CV_F_UINT("bytesOut", cv_link_bytes_out(session->link)),
           CV_F_UINT("durationMs", now_ms - session->since_ms));
    char id[33];
    cv_hex_encode(cv_slice(session->link_id, sizeof session->link_id), id);
    cv_audit(worker->record, DISCONNECT, CV_F_STR("userId", session->identity->subject),
             CV_F_STR("linkId", id), CV_F_STR("reason", cv_status_name(why.id)),
             CV_F_UINT("bytesIn", cv_link_bytes_in(session->link)),
             CV_F_UINT("bytesOut", cv_link_bytes_out(session->link)),
             CV_F_UINT("durationMs", now_ms - session->since_ms));
    measure_down(session, why.id);
    session->link = NULL;
    canary_stop(session);
    cv_worker_timer_stop(worker->worker, &session->expiry);
    cv_registry_remove_link(relay->registry, session);
    session_withdraw_all(session);
    cv_pool_end(&session->pool);
    DL_DELETE(worker->sessions, session);
    (void)atomic_fetch_sub_explicit(&worker->session_count, 1, memory_order_relaxed);
    if (session->has_moved)
        (void)atomic_fetch_sub_explicit(&worker->moved_count, 1, memory_order_relaxed);
    cv_limits_disconnect(relay->limits, session->source, false);
    cv_registry_leave(relay->registry, &session->user_key);
    cv_session_unref(&session);
}

static const struct cv_link_ops link_ops = {
    .on_up = on_link_up,
    .on_request = on_link_request,
    .on_stream = on_link_stream,
    .on_control = on_link_control,
    .on_capacity = on_link_capacity,
    .on_detached = on_link_detached,
    .on_closed = on_link_closed,
};

/* ---- life ---- */

/* However many links a user opens, what is kept for them stays below limits.user_replay_bytes; a
 * link that could not hold a few packets would not move. */
enum { REPLAY_MIN = 256 * 1024 };

static size_t replay_share(const struct cv_relay_config *c, unsigned links)
{
    uint64_t share = c->limits_user_replay_bytes / (links + CV_SESSION_QUIET_LINKS_MAX);
    if (share < REPLAY_MIN)
        share = REPLAY_MIN;
    return (size_t)(share < c->link_replay_bytes ? share : c->link_replay_bytes);
}

static struct cv_link_options link_options(const struct cv_relay *relay, unsigned links,
                                           bool is_culvert, const uint8_t link_id[16],
                                           struct cv_metrics_block *metrics)
{
    const struct cv_relay_config *c = relay->config;
    struct cv_link_options options = {
        .role = CV_LINK_RELAY,
        .is_culvert = is_culvert,
        .host_key = relay->host_key,
        .ciphers = relay->ciphers,
        .replay_bytes = replay_share(c, links),
        CV_LINK_SETTINGS(c),
    };
    options.metrics = metrics;
    memcpy(options.id, link_id, sizeof options.id);
    return options;
}

struct cv_status cv_session_accept(struct cv_relay_worker *worker, struct cv_conn *conn,
                                   struct cv_identity *identity, const uint8_t *agent_id,
                                   const uint8_t link_id[16], bool is_culvert,
                                   struct cv_slice early, struct cv_bucket_entry *source,
                                   const struct cv_trace_ids *trace)
{
    struct cv_session *session = calloc(1, sizeof *session);
    if (!session)
        return cv_status(CV_NO_MEMORY);
    atomic_init(&session->refs, 1);
    atomic_init(&session->resumes, 0);
    session->worker = worker;
    session->worker_index = worker->index;
    session->identity = cv_identity_ref(identity);
    session->since_ms = cv_worker_now_ms(worker->worker);
    if (trace)
        session->trace = *trace;
    memcpy(session->link_id, link_id, sizeof session->link_id);
    memcpy(&session->user_key, identity->user_key, sizeof session->user_key);
    /* Without an agent id a link is an agent of its own. */
    memcpy(session->agent_id, agent_id ? agent_id : link_id, sizeof session->agent_id);
    (void)cv_slice_to_str(
        cv_slice(identity->subject, cv_text_fit(identity->subject, sizeof session->user_id - 1)),
        session->user_id, sizeof session->user_id);
    cv_hex_encode(cv_slice(link_id, sizeof session->link_id), session->id);
    cv_pool_init(&session->pool, session);
    cv_timer_init(&session->expiry, session_on_expiry, session);
    struct cv_link_options options =
        link_options(worker->relay, cv_limits_tier(worker->relay->limits, identity)->links,
                     is_culvert, link_id, worker->metrics);
    struct cv_addr peer = *cv_conn_peer_addr(conn);
    options.ration = cv_registry_ration(worker->relay->registry, &session->user_key,
                                        (size_t)worker->relay->config->limits_user_growth_bytes,
                                        worker->relay->growth);
    struct cv_status status = cv_registry_add_link(worker->relay->registry, session);
    if (cv_is_ok(status))
        status = cv_link_new(worker->worker, conn, &options, early, &link_ops, session,
                             worker->relay->log, &session->link);
    cv_ration_unref(&options.ration);
    if (!cv_is_ok(status)) {
        cv_registry_remove_link(worker->relay->registry, session);
        cv_session_unref(&session);
        return status;
    }
    DL_APPEND(worker->sessions, session);
    (void)atomic_fetch_add_explicit(&worker->session_count, 1, memory_order_relaxed);
    audit_link(session, CV_AUDIT_CONNECT, &peer);
    session->source = source;
    session_take_identity(session, identity);
    return cv_ok();
}
