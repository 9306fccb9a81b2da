/* SPDX-License-Identifier: MIT
 *
 * A link's life on the relay.
 *
 * Happy path: cv_session_accept → on_link_up → on_link_request (describe, publish) → streams
 * through the pool → on_link_closed: withdraw, end the pool, give up the references. Ways it fails:
 * the token expires (on_expiry); another agent takes a name (on_displaced); too many links; the
 *   carrier ends for any reason of transport/link.
 */
#include "relay/session.h"

#include "config/relay_config.h"
#include "net/conn.h"
#include "proto/link/resume.h"
#include "proto/ssh/ssh.h"
#include "relay/bridge.h"
#include "relay/session_private.h"
#include "telemetry/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

static void forget_replaced(struct cv_session *session, struct session_name *name)
{
    LL_DELETE(session->replaced, name);
    free(name);
}

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
    for (size_t i = 0; i < s->tunnel_count; i++)
        cv_tunnel_spec_unref(&s->tunnels[i].spec);
    while (s->replaced)
        forget_replaced(s, s->replaced);
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

const struct cv_user_key *cv_session_user_key(const struct cv_session *session)
{
    return &session->user_key;
}

bool cv_session_is_reachable(const struct cv_session *session)
{
    return atomic_load_explicit(&session->detached_since_ms, memory_order_relaxed) == 0;
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

void cv_session_close(struct cv_session *session, struct cv_status why, const char *message)
{
    if (session->link)
        cv_link_close(session->link, why, message);
}

struct close_mail {
    struct cv_mail mail;
    struct cv_session *session;
    struct cv_status why;
};

static void on_close_mail(void *arg)
{
    struct close_mail *mail = arg;
    cv_session_close(mail->session, mail->why, cv_status_text(mail->why.id));
    cv_session_unref(&mail->session);
    free(mail);
}

void cv_session_close_later(struct cv_session *session, struct cv_status why)
{
    struct close_mail *mail = calloc(1, sizeof *mail);
    if (mail) {
        *mail = (struct close_mail){.session = session, .why = why};
        cv_mail_init(&mail->mail, on_close_mail, mail);
        if (cv_worker_post(session->worker->worker, &mail->mail))
            return;
        free(mail);
    }
    cv_session_unref(&session);
}

/* ---- what is published ---- */

static const struct cv_user_key *user_key(const struct cv_session *session)
{
    return &session->user_key;
}

static void notice(struct cv_session *session, const char *code, const char *tunnel,
                   const char *message)
{
    struct cv_link_control control = {.type = CV_LINK_NOTICE};
    (void)cv_slice_to_str(cv_slice_str(code), control.code, sizeof control.code);
    (void)cv_slice_to_str(cv_slice_str(tunnel), control.tunnel, sizeof control.tunnel);
    (void)snprintf(control.message, sizeof control.message, "%s", message);
    if (session->link)
        (void)cv_link_control_send(session->link, &control);
}

void cv_session_announce_shutdown(struct cv_session *session, uint64_t after_ms)
{
    struct cv_link_control control = {.type = CV_LINK_NOTICE, .after_ms = after_ms};
    session->shutdown_due_ms = cv_worker_now_ms(session->worker->worker) + after_ms;
    (void)cv_slice_to_str(cv_slice_str("shutdown"), control.code, sizeof control.code);
    (void)cv_slice_to_str(cv_slice_str(cv_status_text(CV_SHUTTING_DOWN)), control.message,
                          sizeof control.message);
    if (session->link)
        (void)cv_link_control_send(session->link, &control);
}

static bool refuse(struct cv_session *session, struct cv_slice name, const char *why)
{
    char tunnel[CV_TUNNEL_NAME_MAX + 1] = "";
    (void)cv_slice_to_str(name, tunnel, sizeof tunnel);
    cv_log_limited(session->worker->relay->log, CV_LOG_WARN, "session", "publish_refused", why,
                   CV_F_SLICE("tunnel", name), CV_F_STR("userId", session->user_id));
    notice(session, "refused", tunnel, why);
    return false;
}

static struct session_tunnel *find_tunnel(struct cv_session *session, struct cv_slice name)
{
    for (size_t i = 0; i < session->tunnel_count; i++)
        if (cv_slice_is(name, session->tunnels[i].spec->name))
            return &session->tunnels[i];
    return NULL;
}

static void remove_tunnel(struct cv_session *session, struct session_tunnel *tunnel)
{
    cv_tunnel_spec_unref(&tunnel->spec);
    *tunnel = session->tunnels[--session->tunnel_count];
}

/* Takes the reference. NULL when there are too many. */
static struct session_tunnel *put_tunnel(struct cv_session *session, struct cv_tunnel_spec *spec)
{
    struct session_tunnel *tunnel = find_tunnel(session, cv_slice_str(spec->name));
    if (!tunnel) {
        if (session->tunnel_count == SESSION_TUNNELS_MAX) {
            cv_tunnel_spec_unref(&spec);
            return NULL;
        }
        tunnel = &session->tunnels[session->tunnel_count++];
        *tunnel = (struct session_tunnel){0};
    }
    cv_tunnel_spec_unref(&tunnel->spec);
    tunnel->spec = spec;
    return tunnel;
}

/* A name that comes or goes is worth a line, until a peer makes nothing but lines of it. */
static void log_tunnel(struct cv_session *session, const char *event, const char *message,
                       const char *name, uint32_t port)
{
    struct cv_log *log = session->worker->relay->log;
    if (session->told < SESSION_TOLD_MAX) {
        session->told++;
        cv_log(log, CV_LOG_INFO, "session", event, message, CV_F_STR("tunnel", name),
               CV_F_UINT("port", port), CV_F_STR("userId", session->user_id));
        return;
    }
    cv_log_limited(log, CV_LOG_INFO, "session", event, message, CV_F_STR("tunnel", name),
                   CV_F_UINT("port", port), CV_F_STR("userId", session->user_id));
}

static void remember_replaced(struct cv_session *session, const char *name)
{
    struct session_name *entry;
    size_t count;
    LL_COUNT(session->replaced, entry, count);
    entry = count < SESSION_TUNNELS_MAX ? calloc(1, sizeof *entry) : NULL;
    if (!entry)
        return;
    (void)cv_slice_to_str(cv_slice_str(name), entry->name, sizeof entry->name);
    LL_PREPEND(session->replaced, entry);
}

/* Tells a session on whatever worker that it has lost a name. */
struct displaced_mail {
    struct cv_mail mail;
    struct cv_session *session;
    char name[CV_TUNNEL_NAME_MAX + 1];
};

static void on_displaced(void *arg)
{
    struct displaced_mail *mail = arg;
    struct cv_session *session = mail->session;
    struct session_tunnel *tunnel = find_tunnel(session, cv_slice_str(mail->name));
    /* It may have published the name anew before this came. */
    bool is_lost = !cv_registry_has(session->worker->relay->registry, user_key(session), session,
                                    cv_slice_str(mail->name));
    if (session->link && tunnel && tunnel->is_published && is_lost) {
        log_tunnel(session, "tunnel_replaced", "another agent has taken over the tunnel",
                   mail->name, tunnel->port);
        notice(session, "replaced", mail->name, cv_status_text(CV_REPLACED));
        remember_replaced(session, mail->name);
        remove_tunnel(session, tunnel);
        cv_pool_end_tunnel(&session->pool, mail->name, cv_status(CV_REPLACED));
    }
    cv_session_unref(&session);
    free(mail);
}

static void tell_displaced(struct cv_session *session, const char *name)
{
    struct displaced_mail *mail = calloc(1, sizeof *mail);
    if (mail) {
        mail->session = session;
        (void)cv_slice_to_str(cv_slice_str(name), mail->name, sizeof mail->name);
        cv_mail_init(&mail->mail, on_displaced, mail);
        if (cv_worker_post(session->worker->worker, &mail->mail))
            return;
        free(mail);
    }
    cv_session_unref(&session);
}

static bool publishes_anything(const struct cv_session *session)
{
    for (size_t i = 0; i < session->tunnel_count; i++)
        if (session->tunnels[i].is_published)
            return true;
    return false;
}

static bool announce(struct cv_session *session, struct session_tunnel *tunnel)
{
    struct cv_relay *relay = session->worker->relay;
    enum { AT_ONCE = 16 };
    struct cv_session *displaced[AT_ONCE];
    size_t count = 0;
    struct cv_status status;
    do {
        status = cv_registry_publish(relay->registry, user_key(session), session, tunnel->spec,
                                     tunnel->port, displaced, AT_ONCE, &count);
        for (size_t i = 0; i < count; i++)
            tell_displaced(displaced[i], tunnel->spec->name);
    } while (cv_is_ok(status) && count == AT_ONCE);
    if (!cv_is_ok(status))
        return refuse(session, cv_slice_str(tunnel->spec->name), "too many tunnels");
    tunnel->is_published = true;
    struct session_name *entry, *next;
    LL_FOREACH_SAFE(session->replaced, entry, next)
    {
        if (strcmp(entry->name, tunnel->spec->name) == 0)
            forget_replaced(session, entry);
    }
    log_tunnel(session, "tunnel_published", "tunnel published", tunnel->spec->name, tunnel->port);
    return true;
}

static bool describe(struct cv_session *session, struct cv_slice json)
{
    struct cv_tunnel_spec *spec;
    struct cv_error error = {0};
    struct cv_status status = cv_tunnel_spec_parse(json, &spec, &error);
    if (!cv_is_ok(status))
        return refuse(session, cv_slice(NULL, 0), error.detail);
    if (!cv_identity_may_use_tunnel(session->identity, cv_slice_str(spec->name))) {
        bool is_known =
            refuse(session, cv_slice_str(spec->name), "the token is not valid for this tunnel");
        cv_tunnel_spec_unref(&spec);
        return is_known;
    }
    struct session_tunnel *tunnel = find_tunnel(session, cv_slice_str(spec->name));
    if (tunnel && tunnel->is_published && (tunnel->port == 80) != (spec->kind == CV_TUNNEL_HTTP)) {
        bool is_fitting =
            refuse(session, cv_slice_str(spec->name), "a tunnel that is published keeps its kind");
        cv_tunnel_spec_unref(&spec);
        return is_fitting;
    }
    tunnel = put_tunnel(session, spec);
    if (!tunnel)
        return refuse(session, cv_slice(NULL, 0), "too many tunnels on this link");
    tunnel->is_described = true;
    return tunnel->is_published ? announce(session, tunnel) : true;
}

static bool publish(struct cv_session *session, struct cv_slice name, uint32_t port)
{
    struct cv_relay *relay = session->worker->relay;
    if (!cv_tunnel_name_is_valid(name))
        return refuse(session, name, "a tunnel's name is a-z, 0-9 and inner -, 1 to 63 characters");
    if (port == 0 || port > 65535)
        return refuse(session, name, "port 0 cannot be published");
    if (!cv_identity_may_use_tunnel(session->identity, name))
        return refuse(session, name, "the token is not valid for this tunnel");
    if (!publishes_anything(session) &&
        cv_registry_user_sessions(relay->registry, user_key(session)) >=
            relay->config->limits_max_links_per_user)
        return refuse(session, name, "too many links of this user");
    struct session_tunnel *tunnel = find_tunnel(session, name);
    enum cv_tunnel_kind kind = port == 80 ? CV_TUNNEL_HTTP : CV_TUNNEL_TCP;
    if (!tunnel || !tunnel->is_described) {
        struct cv_tunnel_spec *spec;
        if (!cv_is_ok(cv_tunnel_spec_default(name, kind, &spec)))
            return false;
        tunnel = put_tunnel(session, spec);
        if (!tunnel)
            return refuse(session, name, "too many tunnels on this link");
    } else if (tunnel->spec->kind != kind) {
        return refuse(session, name, "HTTP tunnels are published on port 80, TCP on another");
    }
    tunnel->port = port;
    return announce(session, tunnel);
}

static bool withdraw(struct cv_session *session, struct cv_slice name)
{
    struct session_tunnel *tunnel = find_tunnel(session, name);
    if (!tunnel || !tunnel->is_published)
        return false;
    char text[CV_TUNNEL_NAME_MAX + 1];
    uint32_t port = tunnel->port;
    (void)cv_slice_to_str(name, text, sizeof text);
    cv_registry_withdraw(session->worker->relay->registry, user_key(session), session, name,
                         cv_worker_now_ms(session->worker->worker));
    remove_tunnel(session, tunnel);
    cv_pool_withdraw_tunnel(&session->pool, text);
    log_tunnel(session, "tunnel_withdrawn", "tunnel withdrawn", text, port);
    return true;
}

void session_withdraw_all(struct cv_session *session)
{
    if (session->is_withdrawn)
        return;
    session->is_withdrawn = true;
    cv_registry_withdraw(session->worker->relay->registry, user_key(session), session,
                         cv_slice(NULL, 0), cv_worker_now_ms(session->worker->worker));
}

/* ---- link events ---- */

static void on_link_up(void *arg)
{
    struct cv_session *session = arg;
    cv_log(session->worker->relay->log, CV_LOG_INFO, "session", "link_up", "link established",
           CV_F_STR("userId", session->user_id),
           CV_F_UINT("setupMs", cv_worker_now_ms(session->worker->worker) - session->since_ms));
}

static bool on_link_request(void *arg, struct cv_slice name, struct cv_slice host, uint32_t port,
                            struct cv_slice payload)
{
    struct cv_session *session = arg;
    if (cv_slice_is(name, "tunnel@culvert"))
        return describe(session, payload);
    if (cv_slice_is(name, "tcpip-forward"))
        return publish(session, host, port);
    if (cv_slice_is(name, "cancel-tcpip-forward"))
        return withdraw(session, host);
    return false;
}

static void on_link_stream(void *arg, struct cv_stream *stream, enum cv_stream_kind kind,
                           struct cv_slice host, uint32_t port)
{
    struct cv_session *session = arg;
    if (kind != CV_STREAM_DIRECT) {
        cv_stream_refuse(stream, CV_SSH_OPEN_PROHIBITED, "not here");
        return;
    }
    cv_bridge_direct(session, stream, host, port);
}

static void on_link_control(void *arg, const struct cv_link_control *control)
{
    struct cv_session *session = arg;
    if (control->type == CV_LINK_EVENT && strcmp(control->code, "moved") == 0 &&
        !session->has_moved) {
        session->has_moved = true;
        (void)atomic_fetch_add_explicit(&session->worker->moved_count, 1, memory_order_relaxed);
    }
    cv_log_limited(session->worker->relay->log, CV_LOG_INFO, "session", "link_control",
                   "the agent says", CV_F_UINT("type", control->type),
                   CV_F_STR("code", control->code), CV_F_STR("text", control->message),
                   CV_F_STR("userId", session->user_id));
}

/* ---- without a socket for a while ---- */

static void on_expiry(void *arg)
{
    struct cv_session *session = arg;
    cv_session_close(session, cv_status(CV_AUTH_EXPIRED), "the token has expired");
}

static void arm_expiry(struct cv_session *session)
{
    int64_t left_s =
        session->identity->valid_until_s - (int64_t)cv_worker_wall_seconds(session->worker->worker);
    uint64_t left_ms = left_s > 0 ? (uint64_t)left_s * 1000 : 1;
    (void)cv_worker_timer_start(session->worker->worker, &session->expiry, left_ms);
}

static void on_link_detached(void *arg, struct cv_status why, const struct cv_error *error)
{
    struct cv_session *session = arg;
    struct cv_relay *relay = session->worker->relay;
    atomic_store_explicit(&session->detached_since_ms, cv_worker_now_ms(session->worker->worker),
                          memory_order_release);
    cv_log(relay->log, CV_LOG_INFO, "session", "link_detached",
           "the link's connection is lost, waiting for the agent to come back",
           CV_F_STR("userId", session->user_id), CV_F_STR("reason", cv_status_name(why.id)),
           CV_F_STR("detail", error->detail), CV_F_UINT("streams", cv_link_streams(session->link)),
           CV_F_UINT("windowMs", relay->config->link_resume_window_ms));
}

struct cv_status cv_session_accept_claim(struct cv_session *session,
                                         const struct cv_link_claim *claim, uint64_t *received,
                                         uint8_t proof[32])
{
    if (!session->link)
        return cv_status(CV_RESUME_UNKNOWN);
    return cv_link_accept_claim(session->link, claim, received, proof);
}

/* A token with fewer rights than the one before takes back what it does not cover. */
static void take_identity(struct cv_session *session, struct cv_identity *identity)
{
    cv_identity_unref(&session->identity);
    session->identity = cv_identity_ref(identity);
    for (size_t i = session->tunnel_count; i-- > 0;) {
        struct cv_slice name = cv_slice_str(session->tunnels[i].spec->name);
        if (session->tunnels[i].is_published && !cv_identity_may_use_tunnel(identity, name)) {
            notice(session, "refused", session->tunnels[i].spec->name,
                   "the token is not valid for this tunnel");
            (void)withdraw(session, name);
        }
    }
    arm_expiry(session);
}

/* Control messages are outside the replay: those that still matter are said again. */
static void say_again(struct cv_session *session)
{
    struct session_name *entry;
    uint64_t now_ms = cv_worker_now_ms(session->worker->worker);
    LL_FOREACH(session->replaced, entry)
    notice(session, "replaced", entry->name, cv_status_text(CV_REPLACED));
    if (session->shutdown_due_ms)
        cv_session_announce_shutdown(
            session, session->shutdown_due_ms > now_ms ? session->shutdown_due_ms - now_ms : 0);
}

struct cv_status cv_session_resume(struct cv_session *session, const struct cv_link_claim *claim,
                                   struct cv_conn *conn, struct cv_identity *identity,
                                   struct cv_slice early)
{
    uint64_t now_ms = cv_worker_now_ms(session->worker->worker);
    CV_RETURN_IF_ERROR(cv_link_attach(session->link, conn, claim->received, early));
    uint64_t since = atomic_load_explicit(&session->detached_since_ms, memory_order_relaxed);
    uint64_t paused_ms = since ? now_ms - since : 0;
    (void)atomic_fetch_add_explicit(&session->detached_total_ms, paused_ms, memory_order_relaxed);
    atomic_store_explicit(&session->detached_since_ms, 0, memory_order_release);
    cv_log(session->worker->relay->log, CV_LOG_INFO, "session", "link_resumed",
           "the agent is back on its link", CV_F_STR("userId", session->user_id),
           CV_F_UINT("detachedMs", paused_ms), CV_F_UINT("streams", cv_link_streams(session->link)),
           CV_F_UINT("counter", claim->counter));
    take_identity(session, identity);
    say_again(session);
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
           CV_F_STR("userId", session->user_id), CV_F_STR("reason", cv_status_name(why.id)),
           CV_F_STR("detail", error ? error->detail : ""),
           CV_F_UINT("bytesIn", cv_link_bytes_in(session->link)),
           CV_F_UINT("bytesOut", cv_link_bytes_out(session->link)),
           CV_F_UINT("durationMs", now_ms - session->since_ms));
    session->link = NULL;
    cv_worker_timer_stop(worker->worker, &session->expiry);
    cv_registry_remove_link(relay->registry, session);
    session_withdraw_all(session);
    cv_pool_end(&session->pool);
    DL_DELETE(worker->sessions, session);
    (void)atomic_fetch_sub_explicit(&worker->session_count, 1, memory_order_relaxed);
    if (session->has_moved)
        (void)atomic_fetch_sub_explicit(&worker->moved_count, 1, memory_order_relaxed);
    cv_registry_leave(relay->registry, user_key(session));
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

static size_t replay_share(const struct cv_relay_config *c)
{
    uint64_t share =
        c->limits_user_replay_bytes / (c->limits_max_links_per_user + CV_SESSION_QUIET_LINKS_MAX);
    if (share < REPLAY_MIN)
        share = REPLAY_MIN;
    return (size_t)(share < c->link_replay_bytes ? share : c->link_replay_bytes);
}

static struct cv_link_options link_options(const struct cv_relay *relay, bool is_culvert,
                                           const uint8_t link_id[16])
{
    const struct cv_relay_config *c = relay->config;
    struct cv_link_options options = {
        .role = CV_LINK_RELAY,
        .is_culvert = is_culvert,
        .host_key = relay->host_key,
        .ciphers = relay->ciphers,
        .max_channels = c->ssh_max_channels,
        .window_bytes = (uint32_t)c->ssh_window_bytes,
        .has_compression = c->ssh_compression,
        .rekey_bytes = c->ssh_rekey_bytes,
        .rekey_ms = (uint32_t)c->ssh_rekey_interval_ms,
        .handshake_ms = (uint32_t)c->ssh_handshake_timeout_ms,
        .keepalive_ms =
            c->ssh_keepalive_interval_ms ? (uint32_t)c->ssh_keepalive_interval_ms : UINT32_MAX,
        .ping_interval_ms = (uint32_t)c->ws_ping_interval_ms,
        .pong_timeout_ms = (uint32_t)c->ws_pong_timeout_ms,
        .replay_bytes = replay_share(c),
        .max_frame_bytes = c->ws_max_frame_bytes,
        .resume_ms = c->link_resume_window_ms,
    };
    memcpy(options.id, link_id, sizeof options.id);
    return options;
}

struct cv_status cv_session_accept(struct cv_relay_worker *worker, struct cv_conn *conn,
                                   struct cv_identity *identity, const uint8_t *agent_id,
                                   const uint8_t link_id[16], bool is_culvert,
                                   struct cv_slice early)
{
    struct cv_session *session = calloc(1, sizeof *session);
    if (!session)
        return cv_status(CV_NO_MEMORY);
    atomic_init(&session->refs, 1);
    session->worker = worker;
    session->worker_index = worker->index;
    session->identity = cv_identity_ref(identity);
    session->since_ms = cv_worker_now_ms(worker->worker);
    memcpy(session->link_id, link_id, sizeof session->link_id);
    memcpy(&session->user_key, identity->user_key, sizeof session->user_key);
    /* Without an agent id a link is an agent of its own. */
    memcpy(session->agent_id, agent_id ? agent_id : link_id, sizeof session->agent_id);
    (void)snprintf(session->user_id, sizeof session->user_id, "%.63s", identity->subject);
    cv_pool_init(&session->pool, session);
    cv_timer_init(&session->expiry, on_expiry, session);
    struct cv_link_options options = link_options(worker->relay, is_culvert, link_id);
    struct cv_status status = cv_registry_add_link(worker->relay->registry, session);
    if (cv_is_ok(status))
        status = cv_link_new(worker->worker, conn, &options, early, &link_ops, session,
                             worker->relay->log, &session->link);
    if (!cv_is_ok(status)) {
        cv_registry_remove_link(worker->relay->registry, session);
        cv_session_unref(&session);
        return status;
    }
    DL_APPEND(worker->sessions, session);
    (void)atomic_fetch_add_explicit(&worker->session_count, 1, memory_order_relaxed);
    arm_expiry(session);
    return cv_ok();
}
