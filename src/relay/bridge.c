/* SPDX-License-Identifier: MIT
 *
 * Happy path: cv_bridge_direct finds the tunnel → opens an upstream → on_up_open accepts the stream
 * → bytes both ways, each side read only as fast as the other takes them → eof, close. Ways it
 * fails: no such tunnel (refused, or it waits when its agent may be on the way back); the upstream
 * fails before it is open (refused with the reason); either side closes or is lost (the other one
 * is closed).
 */
#include "relay/bridge.h"

#include "base/buf.h"
#include "config/relay_config.h"
#include "proto/ssh/ssh.h"
#include "relay/consumer.h"
#include "relay/limits.h"
#include "relay/session_private.h"
#include "relay/takeover.h"
#include "telemetry/audit.h"
#include "telemetry/log.h"
#include "telemetry/metrics.h"

#include <stdio.h>
#include <stdlib.h>

/* What was read from one side and not yet taken by the other is bounded by the window of the stream
 * that it came from. */
enum {
    BRIDGE_HELD_MAX = 64 * 1024 * 1024,
    BRIDGE_LOOK_MS = 50, /* for an agent that is awaited */
};

struct bridge {
    struct cv_relay_worker *worker;
    struct cv_identity *identity; /* who has asked; a reference */
    char tunnel[CV_TUNNEL_NAME_MAX + 1];
    uint64_t since_ms, bytes_in, bytes_out; /* to and from the service */
    struct cv_stream *stream;               /* towards the user's client */
    struct cv_upstream *upstream;           /* towards the service */
    struct cv_buf to_stream, to_upstream;
    bool is_accepted, is_stream_eof, is_upstream_eof;
};

/* The first word is for programs (docs/PROTOCOL.md). */
static void refuse(struct cv_stream *stream, struct cv_status why)
{
    char text[160];
    const char *word = "service-unreachable";
    if (why.id == CV_SERVICE_REFUSED)
        word = "service-refused";
    else if (why.id == CV_SERVICE_TIMEOUT)
        word = "service-timeout";
    else if (why.id == CV_NO_TUNNEL)
        word = "tunnel-unknown";
    else if (why.id == CV_CHANNEL_LIMIT || why.id == CV_QUEUE_FULL)
        word = "agent-busy";
    (void)snprintf(text, sizeof text, "%s: %s", word, cv_status_text(why.id));
    cv_stream_refuse(stream, CV_SSH_OPEN_CONNECT_FAILED, text);
}

static void audit_open(const struct bridge *bridge)
{
    cv_audit(bridge->worker->record, STREAM_OPEN, CV_F_STR("userId", bridge->identity->subject),
             CV_F_STR("tunnel", bridge->tunnel));
}

static void audit_close(const struct bridge *bridge, struct cv_status why)
{
    cv_audit(bridge->worker->record, STREAM_CLOSE, CV_F_STR("userId", bridge->identity->subject),
             CV_F_STR("tunnel", bridge->tunnel), CV_F_STR("reason", cv_status_name(why.id)),
             CV_F_UINT("bytesIn", bridge->bytes_in), CV_F_UINT("bytesOut", bridge->bytes_out),
             CV_F_UINT("durationMs", cv_worker_now_ms(bridge->worker->worker) - bridge->since_ms));
}

static void bridge_free(struct bridge *bridge, struct cv_status why)
{
    if (bridge->is_accepted)
        audit_close(bridge, why);
    cv_identity_unref(&bridge->identity);
    if (bridge->stream && !bridge->is_accepted)
        refuse(bridge->stream, why);
    else if (bridge->stream)
        cv_stream_close(bridge->stream);
    if (bridge->upstream)
        cv_upstream_close(bridge->upstream, false);
    cv_buf_done(&bridge->to_stream);
    cv_buf_done(&bridge->to_upstream);
    (void)atomic_fetch_sub_explicit(&bridge->worker->busy, 1, memory_order_relaxed);
    free(bridge);
}

static void send_to_stream(struct bridge *bridge)
{
    if (!bridge->stream)
        return;
    struct cv_slice rest = cv_buf_slice(&bridge->to_stream);
    size_t sent = rest.len ? cv_stream_write(bridge->stream, rest) : 0;
    cv_buf_consume(&bridge->to_stream, sent);
    cv_metrics_add(bridge->worker->metrics, CV_CELL(BYTES, CV_L_FLOW_TO_CONSUMER, 0), sent);
    if (bridge->upstream)
        cv_upstream_consumed(bridge->upstream, sent);
    if (cv_buf_len(&bridge->to_stream))
        return;
    if (!bridge->upstream)
        bridge_free(bridge, cv_ok());
    else if (bridge->is_upstream_eof)
        cv_stream_eof(bridge->stream);
}

static void send_to_upstream(struct bridge *bridge)
{
    if (!bridge->upstream)
        return;
    struct cv_slice rest = cv_buf_slice(&bridge->to_upstream);
    size_t sent = rest.len ? cv_upstream_write(bridge->upstream, rest) : 0;
    cv_buf_consume(&bridge->to_upstream, sent);
    cv_metrics_add(bridge->worker->metrics, CV_CELL(BYTES, CV_L_FLOW_TO_SERVICE, 0), sent);
    bridge->bytes_in += sent;
    if (bridge->stream)
        cv_stream_consumed(bridge->stream, sent);
    if (cv_buf_len(&bridge->to_upstream))
        return;
    if (!bridge->stream)
        bridge_free(bridge, cv_ok());
    else if (bridge->is_stream_eof)
        cv_upstream_eof(bridge->upstream);
}

static void on_stream_data(void *arg, struct cv_slice data)
{
    struct bridge *bridge = arg;
    if (!cv_is_ok(cv_buf_append_slice(&bridge->to_upstream, data)))
        bridge_free(bridge, cv_status(CV_NO_MEMORY));
    else
        send_to_upstream(bridge);
}

static void on_stream_eof(void *arg)
{
    struct bridge *bridge = arg;
    bridge->is_stream_eof = true;
    send_to_upstream(bridge);
}

static void on_stream_writable(void *arg)
{
    send_to_stream(arg);
}

static void on_stream_closed(void *arg, struct cv_status why)
{
    struct bridge *bridge = arg;
    bridge->stream = NULL;
    if (cv_is_ok(why) && bridge->upstream && cv_buf_len(&bridge->to_upstream))
        return; /* what is held still goes out */
    bridge_free(bridge, why);
}

static const struct cv_stream_ops stream_ops = {
    .on_data = on_stream_data,
    .on_eof = on_stream_eof,
    .on_writable = on_stream_writable,
    .on_closed = on_stream_closed,
};

static void on_up_open(void *arg, bool is_reused)
{
    struct bridge *bridge = arg;
    (void)is_reused;
    bridge->is_accepted = true;
    audit_open(bridge);
    cv_stream_accept(bridge->stream, &stream_ops, bridge);
}

static void on_up_failed(void *arg, struct cv_status why)
{
    struct bridge *bridge = arg;
    bridge->upstream = NULL;
    bridge_free(bridge, why);
}

static void on_up_data(void *arg, struct cv_slice data)
{
    struct bridge *bridge = arg;
    bridge->bytes_out += data.len;
    if (!cv_is_ok(cv_buf_append_slice(&bridge->to_stream, data)))
        bridge_free(bridge, cv_status(CV_NO_MEMORY));
    else
        send_to_stream(bridge);
}

static void on_up_eof(void *arg)
{
    struct bridge *bridge = arg;
    bridge->is_upstream_eof = true;
    send_to_stream(bridge);
}

static void on_up_writable(void *arg)
{
    send_to_upstream(arg);
}

static void on_up_closed(void *arg, struct cv_status why)
{
    struct bridge *bridge = arg;
    bridge->upstream = NULL;
    if (why.id == CV_EOF && bridge->stream && cv_buf_len(&bridge->to_stream))
        return; /* what is held still goes out */
    bridge_free(bridge, why);
}

static const struct cv_upstream_ops up_ops = {
    .on_open = on_up_open,
    .on_failed = on_up_failed,
    .on_data = on_up_data,
    .on_eof = on_up_eof,
    .on_writable = on_up_writable,
    .on_closed = on_up_closed,
};

/* While the upstream opens the stream is not accepted, so that only its end can be reported. */
static void open_tcp(struct cv_session *session, struct cv_stream *stream,
                     const struct cv_route *route)
{
    struct bridge *bridge = calloc(1, sizeof *bridge);
    if (!bridge) {
        cv_stream_refuse(stream, CV_SSH_OPEN_RESOURCE_SHORTAGE, "out of memory");
        return;
    }
    bridge->worker = session->worker;
    bridge->identity = cv_identity_ref(session->identity);
    bridge->since_ms = cv_worker_now_ms(session->worker->worker);
    (void)cv_slice_to_str(cv_slice_str(route->spec->name), bridge->tunnel, sizeof bridge->tunnel);
    bridge->stream = stream;
    (void)atomic_fetch_add_explicit(&bridge->worker->busy, 1, memory_order_relaxed);
    cv_buf_init(&bridge->to_stream, BRIDGE_HELD_MAX);
    cv_buf_init(&bridge->to_upstream, BRIDGE_HELD_MAX);
    cv_stream_set_ops(stream, &stream_ops, bridge);
    const struct cv_upstream_wish wish = {.consumer = session->user_key};
    struct cv_status status =
        cv_upstream_open(session->worker, route, &wish, &up_ops, bridge, &bridge->upstream);
    if (!cv_is_ok(status))
        bridge_free(bridge, status);
}

/* Around through the session's own pool, as to a service of its agent. */
static void open_diagnose(struct cv_session *session, struct cv_stream *stream)
{
    struct cv_route route = {.session = session, .port = CV_DIAGNOSE_PORT};
    route.gate = cv_gate_new(); /* of its own: it is in no registry */
    if (route.gate && cv_is_ok(cv_tunnel_spec_diagnose(&route.spec)))
        open_tcp(session, stream, &route);
    else
        cv_stream_refuse(stream, CV_SSH_OPEN_RESOURCE_SHORTAGE, "out of memory");
    cv_tunnel_spec_unref(&route.spec);
    cv_gate_unref(&route.gate);
}

/* ---- a tunnel whose agent may be on the way back ---- */

struct waiting {
    struct cv_session *session; /* outlives its stream */
    struct cv_stream *stream;
    struct cv_timer look;
    uint64_t until_ms;
    uint32_t port;
    char name[CV_TUNNEL_NAME_MAX + 1];
};

static struct cv_status find(const struct cv_session *session, struct cv_slice name,
                             struct cv_route *route)
{
    const struct cv_relay_worker *worker = session->worker;
    return cv_registry_find(worker->relay->registry,
                            (const struct cv_user_key *)session->identity->user_key, NULL, name,
                            worker->index, cv_worker_now_ms(worker->worker), route);
}

static void refuse_unknown(struct cv_stream *stream)
{
    cv_stream_refuse(stream, CV_SSH_OPEN_PROHIBITED, "tunnel-unknown: no such tunnel of yours");
}

static void serve(struct cv_session *session, struct cv_stream *stream, uint32_t port,
                  const struct cv_route *route)
{
    if (port && route->port != port)
        cv_stream_refuse(stream, CV_SSH_OPEN_PROHIBITED, "tunnel-unknown: not at this port");
    else if (route->spec->kind == CV_TUNNEL_HTTP)
        cv_consumer_accept_stream(session->worker, stream, session->identity, route->spec->name);
    else
        open_tcp(session, stream, route);
}

static bool is_draining(const struct cv_session *session)
{
    return atomic_load_explicit(&session->worker->relay->is_draining, memory_order_relaxed);
}

/* Until when a stream waits for the tunnel's agent; in the past: not at all. Soon after the start,
 * as requests do. Afterwards requests are told to come back later; who has a bare connection hears
 * nothing but its end, so it waits for an agent that was there today. */
static uint64_t patience_ms(const struct cv_session *session, struct cv_status why)
{
    struct cv_relay *relay = session->worker->relay;
    uint64_t now_ms = cv_worker_now_ms(session->worker->worker), until_ms = relay->agents_due_ms;
    if (is_draining(session))
        return 0;
    if (cv_takeover_has_predecessor(relay->takeover))
        until_ms = now_ms + relay->config->timers_agent_return_ms;
    else if (why.id == CV_AGENT_OFFLINE && now_ms + relay->agent_return_ms > until_ms)
        until_ms = now_ms + relay->agent_return_ms;
    return until_ms;
}

static void waiting_free(struct waiting *waiting)
{
    cv_worker_timer_stop(waiting->session->worker->worker, &waiting->look);
    free(waiting);
}

static void on_waiting_closed(void *arg, struct cv_status why)
{
    (void)why;
    waiting_free(arg);
}

static const struct cv_stream_ops waiting_ops = {.on_closed = on_waiting_closed};

static void on_look(void *arg)
{
    struct waiting *waiting = arg;
    struct cv_session *session = waiting->session;
    struct cv_worker *worker = session->worker->worker;
    struct cv_route route;
    struct cv_status status = find(session, cv_slice_str(waiting->name), &route);
    bool is_over = cv_worker_now_ms(worker) >= waiting->until_ms || is_draining(session);
    if (!cv_is_ok(status) && !is_over &&
        cv_is_ok(cv_worker_timer_start(worker, &waiting->look, BRIDGE_LOOK_MS)))
        return;
    if (cv_is_ok(status)) {
        serve(session, waiting->stream, waiting->port, &route);
        cv_route_done(&route);
    } else {
        refuse_unknown(waiting->stream);
    }
    waiting_free(waiting);
}

/* At most as many as the link has channels. False: the stream is still the caller's. */
static bool wait_for_agent(struct cv_session *session, struct cv_stream *stream,
                           struct cv_slice name, uint32_t port, uint64_t until_ms)
{
    struct cv_worker *worker = session->worker->worker;
    struct waiting *waiting = calloc(1, sizeof *waiting);
    if (!waiting)
        return false;
    *waiting =
        (struct waiting){.session = session, .stream = stream, .until_ms = until_ms, .port = port};
    cv_timer_init(&waiting->look, on_look, waiting);
    if (!cv_slice_to_str(name, waiting->name, sizeof waiting->name) ||
        !cv_is_ok(cv_worker_timer_start(worker, &waiting->look, BRIDGE_LOOK_MS))) {
        free(waiting);
        return false;
    }
    cv_stream_set_ops(stream, &waiting_ops, waiting);
    cv_log(session->worker->relay->log, CV_LOG_DEBUG, "link", "agent_awaited",
           "a stream waits for the tunnel, which may be back in a moment",
           CV_F_STR("tunnel", waiting->name));
    return true;
}

void cv_bridge_direct(struct cv_session *session, struct cv_stream *stream, struct cv_slice name,
                      uint32_t port)
{
    struct cv_route route;
    if (session->is_diagnosing && cv_slice_is(name, CV_DIAGNOSE_NAME)) {
        open_diagnose(session, stream);
        return;
    }
    if (!cv_tunnel_name_is_valid(name) || !cv_identity_may_use_tunnel(session->identity, name)) {
        refuse_unknown(stream);
        return;
    }
    struct cv_status status = find(session, name, &route);
    if (cv_is_ok(status)) {
        serve(session, stream, port, &route);
        cv_route_done(&route);
        return;
    }
    uint64_t until_ms = patience_ms(session, status);
    if (until_ms <= cv_worker_now_ms(session->worker->worker) ||
        !wait_for_agent(session, stream, name, port, until_ms))
        refuse_unknown(stream);
}
