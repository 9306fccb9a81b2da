/* SPDX-License-Identifier: MIT
 *
 * What a session publishes: names described, published, withdrawn, lost to another agent; what the
 * agent is told of them; and the mail of other workers to a session.
 *
 * Happy path: session_describe → session_publish → announce: cv_registry_publish →
 * session_withdraw. Ways it fails: the request is not in order, or not within the token's rights or
 * the limits (refuse); another agent takes the name (on_displaced, by mail from its worker).
 */
#include "base/digest.h"
#include "config/relay_config.h"
#include "proto/http/http_path.h"
#include "relay/canary.h"
#include "relay/limits.h"
#include "relay/measure.h"
#include "relay/session_private.h"
#include "telemetry/audit.h"
#include "telemetry/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/* ---- from other workers ---- */

/* What is to be done to a session on its own worker. */
struct session_mail {
    struct cv_mail mail;
    struct cv_session *session; /* a reference */
    struct cv_status why;
    char tunnel[CV_TUNNEL_NAME_MAX + 1];
};

/* Takes the reference. Without memory, or where the worker has ended, nothing is done. */
static void post(struct cv_session *session, void (*on_mail)(void *arg), struct cv_status why,
                 const char *tunnel)
{
    struct session_mail *mail = calloc(1, sizeof *mail);
    if (mail) {
        *mail = (struct session_mail){.session = session, .why = why};
        (void)cv_slice_to_str(cv_slice_str(tunnel), mail->tunnel, sizeof mail->tunnel);
        cv_mail_init(&mail->mail, on_mail, mail);
        if (cv_worker_post(session->worker->worker, &mail->mail))
            return;
        free(mail);
    }
    cv_session_unref(&session);
}

static void mail_free(struct session_mail *mail)
{
    cv_session_unref(&mail->session);
    free(mail);
}

static void on_close_mail(void *arg)
{
    struct session_mail *mail = arg;
    cv_session_close(mail->session, mail->why, cv_status_text(mail->why.id));
    mail_free(mail);
}

void cv_session_close_later(struct cv_session *session, struct cv_status why)
{
    post(session, on_close_mail, why, "");
}

/* ---- what the agent is told ---- */

void session_notice(struct cv_session *session, const char *code, const char *tunnel,
                    const char *message, uint64_t after_ms)
{
    struct cv_link_control control = {.type = CV_LINK_NOTICE, .after_ms = after_ms};
    (void)cv_slice_to_str(cv_slice_str(code), control.code, sizeof control.code);
    (void)cv_slice_to_str(cv_slice_str(tunnel), control.tunnel, sizeof control.tunnel);
    (void)snprintf(control.message, sizeof control.message, "%s", message);
    if (session->link)
        (void)cv_link_control_send(session->link, &control);
}

void cv_session_announce_shutdown(struct cv_session *session, uint64_t after_ms)
{
    session->shutdown_due_ms = cv_worker_now_ms(session->worker->worker) + after_ms;
    bool is_handed_over = atomic_load(&session->worker->relay->is_handed_over);
    session_notice(session, is_handed_over ? "handover" : "shutdown", "",
                   cv_status_text(CV_SHUTTING_DOWN), after_ms);
}

static bool refuse(struct cv_session *session, struct cv_slice name, const char *why)
{
    char tunnel[CV_TUNNEL_NAME_MAX + 1] = "";
    (void)cv_slice_to_str(name, tunnel, sizeof tunnel);
    cv_log_limited(session->worker->relay->log, CV_LOG_WARN, "session", "publish_refused", why,
                   CV_F_SLICE("tunnel", name), CV_F_STR("userId", session->user_id),
                   CV_F_STR("connectionId", session->id));
    session_notice(session, "refused", tunnel, why, 0);
    return false;
}

/* Trouble of the relay's own is no answer to the question: an agent that is told no gives up, one
 * that loses its link comes back and asks again. */
static bool lack_memory(struct cv_session *session)
{
    cv_session_close(session, cv_status(CV_NO_MEMORY), cv_status_text(CV_NO_MEMORY));
    return false;
}

/* ---- names ---- */

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

/* For logs: whom a name that comes is open to beside its owner. */
static const char *openness(struct cv_session *session, const char *name)
{
    const struct session_tunnel *tunnel = find_tunnel(session, cv_slice_str(name));
    if (!tunnel || !cv_share_is_any(&tunnel->spec->share))
        return NULL;
    return tunnel->spec->share.is_public ? "public" : "users";
}

static void audit_tunnel(struct cv_session *session, const char *event, const char *name,
                         uint32_t port)
{
    char id[33];
    bool is_published = strcmp(event, "tunnel_published") == 0;
    cv_hex_encode(cv_slice(session->link_id, sizeof session->link_id), id);
    const struct cv_log_field fields[] = {
        CV_F_STR("userId", session->identity->subject),
        CV_F_STR("linkId", id),
        CV_F_STR("tunnel", name),
        CV_F_UINT("port", port),
        CV_F_STR("shared", is_published ? openness(session, name) : NULL),
        CV_F_STR("reason", is_published ? NULL : event),
        {.kind = CV_LOG_FIELD_END}};
    cv_audit_put(session->worker->record, is_published ? CV_AUDIT_PUBLISH : CV_AUDIT_WITHDRAW,
                 fields);
}

/* A name that comes or goes is worth a line, until a peer makes nothing but lines of it. */
static void log_tunnel(struct cv_session *session, const char *event, const char *message,
                       const char *name, uint32_t port)
{
    struct cv_log *log = session->worker->relay->log;
    if (session->told < SESSION_TOLD_MAX) {
        session->told++;
        audit_tunnel(session, event, name, port);
        cv_log(log, CV_LOG_INFO, "session", event, message, CV_F_STR("tunnel", name),
               CV_F_UINT("port", port), CV_F_STR("userId", session->user_id),
               CV_F_STR("connectionId", session->id));
        return;
    }
    cv_log_limited(log, CV_LOG_INFO, "session", event, message, CV_F_STR("tunnel", name),
                   CV_F_UINT("port", port), CV_F_STR("userId", session->user_id),
                   CV_F_STR("connectionId", session->id));
}

static struct session_name *find_replaced(struct cv_session *session, const char *name)
{
    struct session_name *entry;
    LL_FOREACH(session->replaced, entry)
    {
        if (strcmp(entry->name, name) == 0)
            return entry;
    }
    return NULL;
}

static void forget_replaced(struct cv_session *session, const char *name)
{
    struct session_name *entry = find_replaced(session, name);
    if (!entry)
        return;
    LL_DELETE(session->replaced, entry);
    free(entry);
}

static void remember_replaced(struct cv_session *session, const char *name)
{
    struct session_name *entry;
    size_t count;
    LL_COUNT(session->replaced, entry, count);
    bool is_new = count < SESSION_TUNNELS_MAX && !find_replaced(session, name);
    entry = is_new ? calloc(1, sizeof *entry) : NULL;
    if (!entry)
        return;
    (void)cv_slice_to_str(cv_slice_str(name), entry->name, sizeof entry->name);
    LL_PREPEND(session->replaced, entry);
}

/* The session has lost a name to another agent. */
static void on_displaced(void *arg)
{
    struct session_mail *mail = arg;
    struct cv_session *session = mail->session;
    struct session_tunnel *tunnel = find_tunnel(session, cv_slice_str(mail->tunnel));
    /* It may have published the name anew before this came. */
    bool is_lost = !cv_registry_has(session->worker->relay->registry, &session->user_key, session,
                                    cv_slice_str(mail->tunnel));
    if (session->link && tunnel && tunnel->is_published && is_lost) {
        log_tunnel(session, "tunnel_replaced", "another agent has taken over the tunnel",
                   mail->tunnel, tunnel->port);
        session_notice(session, "replaced", mail->tunnel, cv_status_text(CV_REPLACED), 0);
        remember_replaced(session, mail->tunnel);
        remove_tunnel(session, tunnel);
        cv_pool_end_tunnel(&session->pool, mail->tunnel, mail->why);
    }
    mail_free(mail);
}

static bool publishes_anything(const struct cv_session *session)
{
    for (size_t i = 0; i < session->tunnel_count; i++)
        if (session->tunnels[i].is_published)
            return true;
    return false;
}

/* Where others find it: only the relay knows how the owner is called. */
static void say_shared(struct cv_session *session, const struct cv_tunnel_spec *spec)
{
    struct cv_buf text;
    if (!cv_share_is_any(&spec->share))
        return;
    cv_buf_init(&text, CV_LINK_TEXT_MAX + 1);
    struct cv_status status = cv_buf_append_str(&text, "/t/");
    if (cv_is_ok(status))
        status = cv_http_write_owner(&text, session->identity->subject);
    if (cv_is_ok(status))
        status = cv_buf_printf(&text, "~%s/", spec->name);
    if (cv_is_ok(status))
        status = cv_buf_append_byte(&text, 0);
    if (cv_is_ok(status)) /* else it is longer than a message may be */
        session_notice(session, "shared", spec->name, (const char *)cv_buf_head(&text), 0);
    cv_buf_done(&text);
}

/* The name was published of late and is not now: its agent has left. */
static bool has_left(const struct cv_session *session, const char *name)
{
    const struct cv_relay_worker *worker = session->worker;
    struct cv_route route;
    struct cv_status status =
        cv_registry_find(worker->relay->registry, &session->user_key, NULL, cv_slice_str(name),
                         worker->index, cv_worker_now_ms(worker->worker), &route);
    if (cv_is_ok(status))
        cv_route_done(&route);
    return status.id == CV_AGENT_OFFLINE;
}

static bool announce(struct cv_session *session, struct session_tunnel *tunnel)
{
    struct cv_relay *relay = session->worker->relay;
    enum { AT_ONCE = 16 };
    struct cv_session *displaced[AT_ONCE];
    size_t count = 0;
    struct cv_status status;
    bool is_return = has_left(session, tunnel->spec->name);
    do {
        status = cv_registry_publish(relay->registry, &session->user_key, session, tunnel->spec,
                                     tunnel->port, displaced, AT_ONCE, &count);
        for (size_t i = 0; i < count; i++)
            post(displaced[i], on_displaced, cv_status(CV_REPLACED), tunnel->spec->name);
    } while (cv_is_ok(status) && count == AT_ONCE);
    if (status.id == CV_NO_MEMORY)
        return lack_memory(session);
    if (!cv_is_ok(status))
        return refuse(session, cv_slice_str(tunnel->spec->name), "too many tunnels");
    tunnel->is_published = true;
    measure_published(session, is_return);
    forget_replaced(session, tunnel->spec->name);
    log_tunnel(session, "tunnel_published", "tunnel published", tunnel->spec->name, tunnel->port);
    say_shared(session, tunnel->spec);
    canary_start(session);
    return true;
}

/* NULL: the description is in order for this link. */
static const char *find_fault(struct cv_session *session, const struct cv_tunnel_spec *spec)
{
    enum cv_sharing permitted = cv_sharing_of(session->worker->relay->config);
    enum cv_sharing needed = cv_share_needs(&spec->share);
    const struct session_tunnel *tunnel = find_tunnel(session, cv_slice_str(spec->name));
    if (!cv_identity_may_use_tunnel(session->identity, cv_slice_str(spec->name)))
        return "the token is not valid for this tunnel";
    if (needed > permitted)
        return needed == CV_SHARING_PUBLIC
                   ? "this relay permits no public tunnels (its setting `sharing`)"
                   : "this relay permits no shared tunnels (its setting `sharing`)";
    if (tunnel && tunnel->is_published && (tunnel->port == 80) != (spec->kind == CV_TUNNEL_HTTP))
        return "a tunnel that is published keeps its kind";
    return NULL;
}

bool session_describe(struct cv_session *session, struct cv_slice json)
{
    struct cv_tunnel_spec *spec;
    struct cv_error error = {0};
    struct cv_status status = cv_tunnel_spec_parse(json, &spec, &error);
    session->is_description_refused = true;
    if (status.id == CV_NO_MEMORY)
        return lack_memory(session);
    if (!cv_is_ok(status))
        return refuse(session, cv_slice(NULL, 0), error.detail);
    const char *fault = find_fault(session, spec);
    if (fault) {
        (void)refuse(session, cv_slice_str(spec->name), fault);
        cv_tunnel_spec_unref(&spec);
        return false;
    }
    struct session_tunnel *tunnel = put_tunnel(session, spec);
    if (!tunnel)
        return refuse(session, cv_slice(NULL, 0), "too many tunnels on this link");
    tunnel->is_described = true;
    session->is_description_refused = false;
    return tunnel->is_published ? announce(session, tunnel) : true;
}

bool session_publish(struct cv_session *session, struct cv_slice name, uint32_t port)
{
    struct cv_relay *relay = session->worker->relay;
    if (cv_slice_is(name, CV_DIAGNOSE_NAME)) {
        session->is_diagnosing = true; /* bridge.c; it is in no registry and counts for nothing */
        return true;
    }
    if (!cv_tunnel_name_is_valid(name))
        return refuse(session, name, "a tunnel's name is a-z, 0-9 and inner -, 1 to 63 characters");
    if (port == 0 || port > 65535)
        return refuse(session, name, "port 0 cannot be published");
    /* An agent asks for both at once; the first answer said why. */
    if (session->is_description_refused)
        return false;
    if (!cv_identity_may_use_tunnel(session->identity, name))
        return refuse(session, name, "the token is not valid for this tunnel");
    if (!publishes_anything(session) &&
        cv_registry_user_sessions(relay->registry, &session->user_key) >=
            cv_limits_tier(relay->limits, session->identity)->links)
        return refuse(session, name, "too many links of this user");
    struct session_tunnel *tunnel = find_tunnel(session, name);
    enum cv_tunnel_kind kind = port == 80 ? CV_TUNNEL_HTTP : CV_TUNNEL_TCP;
    if (!tunnel || !tunnel->is_described) {
        struct cv_tunnel_spec *spec;
        if (!cv_is_ok(cv_tunnel_spec_default(name, kind, &spec)))
            return lack_memory(session);
        tunnel = put_tunnel(session, spec);
        if (!tunnel)
            return refuse(session, name, "too many tunnels on this link");
    } else if (tunnel->spec->kind != kind) {
        return refuse(session, name, "HTTP tunnels are published on port 80, TCP on another");
    }
    tunnel->port = port;
    return announce(session, tunnel);
}

bool session_withdraw(struct cv_session *session, struct cv_slice name)
{
    struct session_tunnel *tunnel = find_tunnel(session, name);
    if (!tunnel || !tunnel->is_published)
        return false;
    char text[CV_TUNNEL_NAME_MAX + 1];
    uint32_t port = tunnel->port;
    (void)cv_slice_to_str(name, text, sizeof text);
    cv_registry_withdraw(session->worker->relay->registry, &session->user_key, session, name,
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
    cv_registry_withdraw(session->worker->relay->registry, &session->user_key, session,
                         cv_slice(NULL, 0), cv_worker_now_ms(session->worker->worker));
}

void session_say_again(struct cv_session *session)
{
    struct session_name *entry;
    uint64_t now_ms = cv_worker_now_ms(session->worker->worker);
    LL_FOREACH(session->replaced, entry)
    session_notice(session, "replaced", entry->name, cv_status_text(CV_REPLACED), 0);
    for (size_t i = 0; i < session->tunnel_count; i++)
        session->tunnels[i].told = CV_TUNNEL_UNKNOWN; /* canary.c says it when it looks next */
    if (session->shutdown_due_ms)
        cv_session_announce_shutdown(
            session, session->shutdown_due_ms > now_ms ? session->shutdown_due_ms - now_ms : 0);
}

void session_take_rights(struct cv_session *session)
{
    for (size_t i = session->tunnel_count; i-- > 0;) {
        struct cv_slice name = cv_slice_str(session->tunnels[i].spec->name);
        if (session->tunnels[i].is_published &&
            !cv_identity_may_use_tunnel(session->identity, name)) {
            session_notice(session, "refused", session->tunnels[i].spec->name,
                           "the token is not valid for this tunnel", 0);
            (void)session_withdraw(session, name);
        }
    }
}

void session_forget_names(struct cv_session *session)
{
    for (size_t i = 0; i < session->tunnel_count; i++)
        cv_tunnel_spec_unref(&session->tunnels[i].spec);
    struct session_name *entry, *next;
    LL_FOREACH_SAFE(session->replaced, entry, next)
    free(entry);
    session->replaced = NULL;
}
