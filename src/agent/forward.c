/* SPDX-License-Identifier: MIT
 *
 * Happy path: on_accept (paused) → open_stream → on_open → cv_splice_new … on_splice_end.
 * Ways it fails: no link, or no stream to be had (the caller waits, then is cut); the link is lost
 * before the stream is open (another one, as long as the caller would wait); the relay refuses the
 * stream (cut, the reason is logged); the caller goes while it waits. The links, their loss and
 * the relays they go to are agent.c's.
 */
#include "agent/forward.h"

#include "agent/access.h"
#include "agent/agent.h"
#include "agent/forward_http.h"
#include "agent/splice.h"
#include "base/tunnel_name.h"
#include "config/agent_config.h"
#include "net/conn.h"
#include "net/listener.h"
#include "net/worker.h"
#include "telemetry/log.h"
#include "transport/link.h"
#include "transport/link_settings.h"

#include <stdio.h>
#include <unistd.h>
#include <utlist.h>

enum {
    CALLERS_MAX = 128,
    RETRY_MS = 50,     /* while all streams are in use */
    OPENING_MS = 1000, /* a stream that the relay confirms later than this is given up at the end */
    BACKLOG = 128,
    ANY_PORT = 0, /* the tunnel's own, whichever it is */
};

/* A local connection. Waiting: conn. Opening: conn and stream. Then the splice has both. */
struct caller {
    struct cv_forward *forward;
    struct cv_conn *conn;
    struct cv_stream *stream;
    struct cv_link *link; /* of the stream while that is opening */
    struct cv_splice *splice;
    bool is_held; /* it has, or had, a stream: the agent waits for it */
    uint64_t since_ms;
    struct caller *prev, *next;
};

/* What the tunnel carries, as far as it is known. */
enum kind { KIND_UNKNOWN, KIND_HTTP, KIND_TCP };

struct cv_forward {
    struct cv_worker *worker;
    struct cv_forward_options options;
    char tunnel[CV_TUNNEL_NAME_MAX + 1];
    char address[CV_ADDR_TEXT_LEN];
    const struct cv_forward_ops *ops;
    void *arg;
    struct cv_listener *listener;
    struct cv_agent *agent;
    enum kind kind;
    struct cv_stream *probe;   /* asks the relay which */
    struct forward_http *http; /* its connections, where it carries HTTP */
    struct caller *callers;    /* utlist DL: all others */
    size_t caller_count;
    struct cv_timer retry;   /* callers that wait */
    struct cv_timer opening; /* stopping, and the relay does not say whether a stream is open */
    bool was_ready;
    bool is_stopping;
};

/* ---- one connection ---- */

static void caller_free(struct caller *caller)
{
    struct cv_forward *forward = caller->forward;
    bool is_held = caller->is_held;
    DL_DELETE(forward->callers, caller);
    forward->caller_count--;
    free(caller);
    if (is_held)
        cv_agent_release(forward->agent);
}

static void on_splice_end(void *arg, const struct cv_splice_end *end)
{
    struct caller *caller = arg;
    cv_log(caller->forward->options.log, CV_LOG_DEBUG, "forward", "stream_ended", "stream ended",
           CV_F_UINT("bytesIn", end->bytes_in), CV_F_UINT("bytesOut", end->bytes_out),
           CV_F_STR("reason", cv_status_name(end->why.id)));
    caller_free(caller);
}

/* Gives up both sides; on_conn_closed frees. */
static void cut(struct caller *caller)
{
    struct cv_stream *stream = caller->stream;
    caller->stream = NULL;
    if (stream)
        cv_stream_close(stream);
    cv_conn_reset(caller->conn);
}

static void on_conn_data(void *arg, uint8_t *data, size_t len)
{
    (void)arg;
    (void)data;
    (void)len;
}

static void on_conn_closed(void *arg, struct cv_status why, const struct cv_error *error)
{
    struct caller *caller = arg;
    (void)why;
    (void)error;
    if (caller->stream)
        cv_stream_close(caller->stream);
    caller_free(caller);
}

/* A hang-up is not looked at: a client may half-close before its stream is open, and a dead one is
 * found out when the splice writes to it. */
static const struct cv_conn_ops waiting_ops = {.on_data = on_conn_data,
                                               .on_closed = on_conn_closed};

static void on_open(void *arg)
{
    struct caller *caller = arg;
    if (!cv_is_ok(cv_splice_new(caller->conn, caller->stream, false, on_splice_end, caller,
                                &caller->splice)))
        cut(caller);
    else
        caller->stream = NULL;
}

static void on_refused(void *arg, uint32_t reason, struct cv_slice text)
{
    struct caller *caller = arg;
    caller->stream = NULL;
    cv_log_limited(caller->forward->options.log, CV_LOG_WARN, "forward", "stream_refused",
                   "the relay refuses the stream", CV_F_STR("tunnel", caller->forward->tunnel),
                   CV_F_UINT("sshReason", reason), CV_F_SLICE("detail", text));
    cut(caller);
}

static void on_stream_closed(void *arg, struct cv_status why)
{
    struct caller *caller = arg;
    struct cv_forward *forward = caller->forward;
    (void)why;
    caller->stream = NULL;
    caller->link = NULL;
    if (forward->is_stopping)
        cut(caller);
    else if (!cv_timer_is_running(&forward->retry)) /* nothing was sent: over another link */
        (void)cv_worker_timer_start(forward->worker, &forward->retry, RETRY_MS);
}

static const struct cv_stream_ops opening_ops = {
    .on_open = on_open, .on_refused = on_refused, .on_closed = on_stream_closed};

/* False when it has to wait. */
static bool open_stream(struct caller *caller)
{
    struct cv_forward *forward = caller->forward;
    struct cv_link *link = cv_agent_link(forward->agent);
    if (!link || !cv_is_ok(cv_stream_open(link, CV_STREAM_DIRECT, forward->tunnel, ANY_PORT, NULL,
                                          &opening_ops, caller, &caller->stream)))
        return false;
    caller->link = link;
    if (!caller->is_held)
        cv_agent_hold(forward->agent);
    caller->is_held = true;
    return true;
}

/* Its link has lost its connection before the relay could confirm the stream, and there is another
 * one: nothing was sent yet. */
static void give_up_stuck(struct caller *caller)
{
    struct cv_stream *stream = caller->stream;
    if (!stream || !cv_link_is_detached(caller->link) || !cv_agent_link(caller->forward->agent))
        return;
    caller->stream = NULL;
    caller->link = NULL;
    cv_stream_close(stream);
}

static bool is_waiting(const struct caller *caller)
{
    return !caller->stream && !caller->splice && !cv_conn_is_closing(caller->conn);
}

static void serve_waiting(struct cv_forward *forward)
{
    struct caller *caller, *next;
    uint64_t now_ms = cv_worker_now_ms(forward->worker);
    uint64_t wait_ms = forward->options.accesses->config->forward_wait_ms;
    bool has_waiting = false;
    DL_FOREACH_SAFE(forward->callers, caller, next)
    {
        give_up_stuck(caller);
        if (!is_waiting(caller) || open_stream(caller))
            continue;
        if (now_ms - caller->since_ms >= wait_ms || forward->is_stopping)
            cut(caller);
        else
            has_waiting = true;
    }
    if (has_waiting)
        (void)cv_worker_timer_start(forward->worker, &forward->retry, RETRY_MS);
}

static void on_retry(void *arg)
{
    serve_waiting(arg);
}

static void on_opening_over(void *arg)
{
    struct cv_forward *forward = arg;
    struct caller *caller, *next;
    DL_FOREACH_SAFE(forward->callers, caller, next)
    {
        if (caller->stream)
            cut(caller);
    }
}

static void close_all(struct cv_forward *forward)
{
    struct caller *caller, *next;
    DL_FOREACH_SAFE(forward->callers, caller, next)
    {
        if (caller->splice)
            cv_splice_close(caller->splice);
        else
            cut(caller);
    }
}

/* ---- which kind of tunnel ---- */

/* Every HTTP tunnel is at port 80, and no other. */
static void on_probe_open(void *arg)
{
    struct cv_forward *forward = arg;
    struct cv_stream *probe = forward->probe;
    forward->probe = NULL;
    forward->kind = KIND_HTTP;
    cv_stream_close(probe);
    cv_log(forward->options.log, CV_LOG_DEBUG, "forward", "kind_known", "the tunnel carries HTTP");
}

static void on_probe_refused(void *arg, uint32_t reason, struct cv_slice text)
{
    struct cv_forward *forward = arg;
    (void)reason;
    forward->probe = NULL;
    if (cv_slice_is(text, "tunnel-unknown: not at this port"))
        forward->kind = KIND_TCP;
}

static void on_probe_closed(void *arg, struct cv_status why)
{
    struct cv_forward *forward = arg;
    (void)why;
    forward->probe = NULL;
}

static const struct cv_stream_ops probe_ops = {
    .on_open = on_probe_open, .on_refused = on_probe_refused, .on_closed = on_probe_closed};

/* Until it is known, connections are carried as they come, without a queue. */
static void ask_kind(struct cv_forward *forward)
{
    struct cv_link *link = cv_agent_link(forward->agent);
    if (forward->kind == KIND_UNKNOWN && !forward->probe && link && !forward->is_stopping)
        (void)cv_stream_open(link, CV_STREAM_DIRECT, forward->tunnel, FORWARD_HTTP_PORT, NULL,
                             &probe_ops, forward, &forward->probe);
}

/* ---- the port ---- */

static void on_accept(void *arg, int fd, const struct cv_addr *peer)
{
    struct cv_forward *forward = arg;
    struct cv_error error = {0};
    (void)peer;
    if (forward->kind == KIND_HTTP) {
        forward_http_accept(forward->http, fd);
        return;
    }
    ask_kind(forward);
    struct caller *caller = forward->caller_count < CALLERS_MAX && !forward->is_stopping
                                ? calloc(1, sizeof *caller)
                                : NULL;
    if (!caller) {
        (void)close(fd);
        return;
    }
    caller->forward = forward;
    caller->since_ms = cv_worker_now_ms(forward->worker);
    if (!cv_is_ok(
            cv_conn_new(forward->worker, fd, NULL, &waiting_ops, caller, &caller->conn, &error))) {
        free(caller);
        return;
    }
    cv_conn_pause(caller->conn);
    DL_APPEND(forward->callers, caller);
    forward->caller_count++;
    if (!open_stream(caller) && !cv_timer_is_running(&forward->retry))
        (void)cv_worker_timer_start(forward->worker, &forward->retry, RETRY_MS);
}

static void on_accept_error(void *arg, struct cv_status status, const struct cv_error *error)
{
    struct cv_forward *forward = arg;
    (void)status;
    cv_log_limited(forward->options.log, CV_LOG_WARN, "forward", "accept_failed",
                   "connections cannot be accepted for a moment", CV_F_ERROR(error));
}

static const struct cv_listener_ops listener_ops = {.on_accept = on_accept,
                                                    .on_error = on_accept_error};

/* ---- the links ---- */

static void on_up(void *arg)
{
    struct cv_forward *forward = arg;
    if (!forward->was_ready) {
        forward->was_ready = true;
        cv_log(forward->options.log, CV_LOG_INFO, "forward", "forward_listening",
               "the local port leads to the tunnel", CV_F_STR("address", forward->address),
               CV_F_STR("tunnel", forward->tunnel));
        if (forward->ops->on_ready)
            forward->ops->on_ready(forward->arg, forward->address);
    }
    ask_kind(forward);
    serve_waiting(forward);
    forward_http_serve(forward->http);
}

static void on_describe(void *arg, struct cv_agent_port *port)
{
    struct cv_forward *forward = arg;
    static const char *const kinds[] = {"unknown", "http", "tcp"};
    *port = (struct cv_agent_port){
        .address = forward->address, .tunnel = forward->tunnel, .kind = kinds[forward->kind]};
    forward_http_count(forward->http, &port->connections, &port->waiting);
    for (const struct caller *c = forward->callers; c; c = c->next) {
        port->waiting += is_waiting(c);
        port->connections += !is_waiting(c);
    }
}

static void on_agent_ended(void *arg, struct cv_status why, const struct cv_error *error)
{
    struct cv_forward *forward = arg;
    cv_listener_close(&forward->listener);
    cv_worker_timer_stop(forward->worker, &forward->retry);
    cv_worker_timer_stop(forward->worker, &forward->opening);
    close_all(forward);
    forward_http_close(forward->http);
    forward->ops->on_ended(forward->arg, why, error);
}

static const struct cv_agent_ops agent_ops = {
    .on_up = on_up, .on_describe = on_describe, .on_ended = on_agent_ended};

/* ---- life ---- */

static struct cv_status start(struct cv_forward *forward, struct cv_error *error)
{
    struct cv_listen_spec spec;
    const char *tunnel = forward->options.tunnel;
    if (!cv_tunnel_name_is_valid(cv_slice_str(tunnel)) ||
        !cv_slice_to_str(cv_slice_str(tunnel), forward->tunnel, sizeof forward->tunnel))
        return cv_fail(error, CV_USAGE, "a tunnel's name is a-z, 0-9 and inner -");
    if (!cv_is_ok(cv_listen_spec_parse(forward->options.listen, &spec, error)))
        return cv_fail(error, CV_USAGE, "%.200s is no address to listen on",
                       forward->options.listen);
    CV_RETURN_IF_ERROR(cv_listener_new(forward->worker, &spec, BACKLOG, &listener_ops, forward,
                                       &forward->listener, error));
    (void)cv_addr_format(&cv_listener_spec(forward->listener)->addr, forward->address);
    if (!cv_addr_is_loopback(&spec.addr))
        cv_log(forward->options.log, CV_LOG_WARN, "forward", "open_to_the_network",
               "whoever reaches this port reaches the tunnel, without a token",
               CV_F_STR("address", forward->address));
    struct cv_agent_options agent = {.accesses = forward->options.accesses,
                                     .access_count = forward->options.access_count,
                                     .log = forward->options.log,
                                     .state_dir = forward->options.state_dir,
                                     .is_interactive = true,
                                     .is_client = true};
    CV_RETURN_IF_ERROR(
        cv_agent_new(forward->worker, &agent, &agent_ops, forward, &forward->agent, error));
    const struct cv_agent_config *config = forward->options.accesses->config;
    if (strcmp(config->forward_kind, "auto") != 0)
        forward->kind = strcmp(config->forward_kind, "http") == 0 ? KIND_HTTP : KIND_TCP;
    struct forward_http_options http = {.agent = forward->agent,
                                        .log = forward->options.log,
                                        .tunnel = forward->tunnel,
                                        .queue_size = config->forward_queue_size,
                                        .wait_ms = config->forward_wait_ms,
                                        .window_bytes = CV_LINK_WINDOW_MAX(config)};
    return forward_http_new(forward->worker, &http, &forward->http);
}

struct cv_status cv_forward_new(struct cv_worker *worker, const struct cv_forward_options *options,
                                const struct cv_forward_ops *ops, void *arg,
                                struct cv_forward **out, struct cv_error *error)
{
    struct cv_forward *forward = calloc(1, sizeof *forward);
    *out = NULL;
    if (!forward)
        return cv_status(CV_NO_MEMORY);
    *forward = (struct cv_forward){.worker = worker, .options = *options, .ops = ops, .arg = arg};
    cv_timer_init(&forward->retry, on_retry, forward);
    cv_timer_init(&forward->opening, on_opening_over, forward);
    struct cv_status status = start(forward, error);
    if (!cv_is_ok(status)) {
        cv_listener_close(&forward->listener);
        cv_forward_free(&forward);
    }
    *out = forward;
    return status;
}

void cv_forward_stop(struct cv_forward *forward)
{
    forward->is_stopping = true;
    cv_listener_close(&forward->listener);
    if (forward->probe)
        cv_stream_close(forward->probe);
    forward->probe = NULL;
    forward_http_stop(forward->http);
    serve_waiting(forward); /* those that get no stream now are cut */
    (void)cv_worker_timer_start(forward->worker, &forward->opening, OPENING_MS);
    cv_agent_stop(forward->agent);
}

void cv_forward_free(struct cv_forward **out)
{
    struct cv_forward *forward = *out;
    *out = NULL;
    if (!forward)
        return;
    forward_http_free(&forward->http);
    cv_agent_free(&forward->agent);
    cv_worker_timer_stop(forward->worker, &forward->retry);
    cv_worker_timer_stop(forward->worker, &forward->opening);
    free(forward);
}
