/* SPDX-License-Identifier: MIT
 *
 * Happy path: cv_bridge_direct finds the tunnel → opens an upstream → on_up_open accepts the stream
 * → bytes both ways, each side read only as fast as the other takes them → eof, close. Ways it
 * fails: no such tunnel (refused); the upstream fails before it is open (refused with the reason);
 * either side closes or is lost (the other one is closed).
 */
#include "relay/bridge.h"

#include "base/buf.h"
#include "proto/ssh/ssh.h"
#include "relay/consumer.h"
#include "relay/limits.h"
#include "relay/session_private.h"
#include "telemetry/log.h"

#include <stdio.h>
#include <stdlib.h>

/* What was read from one side and not yet taken by the other is bounded by the window of the stream
 * that it came from. */
enum { BRIDGE_HELD_MAX = 64 * 1024 * 1024 };

struct bridge {
    struct cv_stream *stream;     /* towards the user's client */
    struct cv_upstream *upstream; /* towards the service */
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

static void bridge_free(struct bridge *bridge, struct cv_status why)
{
    if (bridge->stream && !bridge->is_accepted)
        refuse(bridge->stream, why);
    else if (bridge->stream)
        cv_stream_close(bridge->stream);
    if (bridge->upstream)
        cv_upstream_close(bridge->upstream, false);
    cv_buf_done(&bridge->to_stream);
    cv_buf_done(&bridge->to_upstream);
    free(bridge);
}

static void send_to_stream(struct bridge *bridge)
{
    if (!bridge->stream)
        return;
    struct cv_slice rest = cv_buf_slice(&bridge->to_stream);
    size_t sent = rest.len ? cv_stream_write(bridge->stream, rest) : 0;
    cv_buf_consume(&bridge->to_stream, sent);
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
    bridge->stream = stream;
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
    if (!cv_is_ok(cv_tunnel_spec_diagnose(&route.spec))) {
        cv_stream_refuse(stream, CV_SSH_OPEN_RESOURCE_SHORTAGE, "out of memory");
        return;
    }
    open_tcp(session, stream, &route);
    cv_tunnel_spec_unref(&route.spec);
}

void cv_bridge_direct(struct cv_session *session, struct cv_stream *stream, struct cv_slice name,
                      uint32_t port)
{
    struct cv_relay_worker *worker = session->worker;
    struct cv_route route;
    struct cv_status status = cv_status(CV_NO_TUNNEL);
    if (session->is_diagnosing && cv_slice_is(name, CV_DIAGNOSE_NAME)) {
        open_diagnose(session, stream);
        return;
    }
    if (cv_tunnel_name_is_valid(name) && cv_identity_may_use_tunnel(session->identity, name))
        status = cv_registry_find(worker->relay->registry,
                                  (const struct cv_user_key *)session->identity->user_key, NULL,
                                  name, worker->index, cv_worker_now_ms(worker->worker), &route);
    if (!cv_is_ok(status)) {
        cv_stream_refuse(stream, CV_SSH_OPEN_PROHIBITED, "tunnel-unknown: no such tunnel of yours");
        return;
    }
    if (port && route.port != port)
        cv_stream_refuse(stream, CV_SSH_OPEN_PROHIBITED, "tunnel-unknown: not at this port");
    else if (route.spec->kind == CV_TUNNEL_HTTP)
        cv_consumer_accept_stream(worker, stream, session->identity, route.spec->name);
    else
        open_tcp(session, stream, &route);
    cv_route_done(&route);
}
