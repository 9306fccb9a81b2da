/* SPDX-License-Identifier: MIT
 *
 * What a request is for and who asks: route → token → tunnel → rules. Then the connection moves to
 * the tunnel's worker, or the exchange begins here.
 */
#include "auth/auth.h"
#include "base/digest.h"
#include "base/digits.h"
#include "config/relay_config.h"
#include "net/conn.h"
#include "proto/http/http_parser.h"
#include "proto/http/http_path.h"
#include "proto/http/http_rewrite.h"
#include "proto/http/http_writer.h"
#include "proto/ws/ws_deflate.h"
#include "proto/ws/ws_handshake.h"
#include "relay/consumer_private.h"
#include "relay/keys.h"
#include "relay/measure.h"
#include "relay/relay_metrics.h"
#include "relay/revocation.h"
#include "relay/session.h"
#include "telemetry/audit.h"
#include "telemetry/log.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define TRY CV_RETURN_IF_ERROR

void route_make_id(struct cv_consumer *c)
{
    char *at = c->x.id;
    size_t len = strlen(c->worker->relay->instance);
    memcpy(at, c->worker->relay->instance, len);
    at += len;
    *at++ = '-';
    at += cv_digits_hex(at, c->worker->index);
    *at++ = '-';
    at += cv_digits_hex(at, ++c->worker->next_request);
    *at = '\0';
}

/* ---- links ---- */

/* RFC 6455 §4.2.1; extensions are none of ours here, but must follow their grammar (§9.1). */
static struct cv_status check_upgrade(struct cv_consumer *c, struct cv_buf *joined,
                                      struct cv_error *error)
{
    struct cv_ws_request request = {
        .method = c->head.method,
        .http_major = 1,
        .http_minor = (unsigned)c->head.version_minor,
        .upgrade = cv_http_join(&c->head, "Upgrade", joined),
        .connection = cv_http_join(&c->head, "Connection", joined),
        .key = cv_http_join(&c->head, "Sec-WebSocket-Key", joined),
        .version = cv_http_join(&c->head, "Sec-WebSocket-Version", joined),
    };
    if (cv_slice_is(c->head.method, "GET") && !request.upgrade.len)
        return cv_fail(error, CV_WS_VERSION, "this is the address of WebSocket upgrades");
    if (cv_http_count(&c->head, "Sec-WebSocket-Key") > 1)
        return cv_fail(error, CV_WS_UPGRADE, "more than one Sec-WebSocket-Key");
    if (cv_http_count(&c->head, "Sec-WebSocket-Version") > 1)
        return cv_fail(error, CV_WS_UPGRADE, "more than one Sec-WebSocket-Version");
    /* What follows the head are frames: a body would be taken for some. */
    if (c->head.framing == CV_HTTP_CHUNKED ||
        (c->head.framing == CV_HTTP_LENGTH && c->head.content_length))
        return cv_fail(error, CV_WS_UPGRADE, "an upgrade has no body");
    CV_RETURN_IF_ERROR(cv_ws_check_request(&request, error));
    static const struct cv_ws_deflate_params none;
    struct cv_ws_deflate_params agreed;
    char text[CV_WS_DEFLATE_TEXT_SIZE];
    if (!cv_is_ok(cv_ws_deflate_negotiate(
            cv_http_join(&c->head, "Sec-WebSocket-Extensions", joined), &none, &agreed, text)))
        return cv_fail(error, CV_WS_UPGRADE, "Sec-WebSocket-Extensions is malformed");
    return cv_ok();
}

static struct cv_status write_101(struct cv_consumer *c, struct cv_slice protocol,
                                  const uint8_t link_id[16], const char *extra, struct cv_buf *out)
{
    char accept[CV_WS_ACCEPT_SIZE], id[33], date[CV_HTTP_DATE_LEN + 1];
    cv_ws_accept_key(cv_http_value(&c->head, "Sec-WebSocket-Key"), accept);
    cv_hex_encode(cv_slice(link_id, 16), id);
    TRY(cv_http_write_status_line(out, 101, cv_slice_str("Switching Protocols")));
    TRY(cv_http_write_field_str(out, "Connection", "Upgrade"));
    TRY(cv_http_write_field_str(out, "Upgrade", "websocket"));
    TRY(cv_http_write_field_str(out, "Sec-WebSocket-Accept", accept));
    TRY(cv_http_write_field(out, cv_slice_str("Sec-WebSocket-Protocol"), protocol));
    /* May be there (RFC 9110 §6.6.1): `culvert diagnose` compares clocks. */
    if (cv_http_date(cv_worker_wall_seconds(c->worker->worker), date))
        TRY(cv_http_write_field_str(out, "Date", date));
    if (cv_slice_is(protocol, "culvert.v1"))
        TRY(cv_http_write_field_str(out, "Culvert-Link", id));
    if (extra)
        TRY(cv_buf_append_str(out, extra));
    TRY(cv_http_write_field_str(out, "X-Request-Id", c->x.id));
    TRY(tracing_write_answer(c, out));
    return cv_http_write_head_end(out);
}

void route_write_101(struct cv_consumer *c, struct cv_slice protocol, const uint8_t link_id[16],
                     const char *extra)
{
    struct cv_buf *out = cv_port_out(&c->port);
    size_t before = cv_buf_len(out);
    c->x.status = 101;
    /* Nothing rather than a 101 with a field missing: the frames behind it are then no answer. */
    if (!cv_is_ok(write_101(c, protocol, link_id, extra, out)))
        cv_buf_truncate(out, before);
    cv_port_flush(&c->port);
}

/* At the limit the link that has waited longest for its agent to come back makes room: that agent
 * has most likely come back already, as this new link. */
static bool join(struct cv_relay *relay, const struct cv_identity *identity)
{
    const struct cv_user_key *user = (const struct cv_user_key *)identity->user_key;
    unsigned links = cv_limits_tier(relay->limits, identity)->links;
    unsigned tier = cv_relay_metrics_tier(relay, identity);
    size_t max = (size_t)links + CV_SESSION_QUIET_LINKS_MAX;
    if (cv_registry_join(relay->registry, user, max, tier))
        return true;
    struct cv_session *oldest = cv_registry_longest_detached(relay->registry, user);
    if (!oldest)
        return false;
    cv_session_close_later(oldest, cv_status(CV_RATE_LIMITED));
    return cv_registry_join(relay->registry, user, max + 1, tier);
}

static void accept_link(struct cv_consumer *c, struct cv_slice protocol)
{
    uint8_t link_id[16], agent_id[CV_AGENT_ID_LEN];
    struct cv_slice agent = cv_http_value(&c->head, "Culvert-Agent");
    bool has_agent = agent.len != 0;
    if (has_agent && !cv_hex_decode(agent, agent_id, sizeof agent_id)) {
        problem_answer(c, CV_WS_UPGRADE, CV_HOP_CONSUMER, "Culvert-Agent is not 32 hex digits",
                       false);
        return;
    }
    struct cv_relay *relay = c->worker->relay;
    const struct cv_user_key *user = (const struct cv_user_key *)c->x.identity->user_key;
    if (!join(relay, c->x.identity)) {
        problem_answer(c, CV_RATE_LIMITED, CV_HOP_RELAY, "too many links of this user", false);
        return;
    }
    cv_random(link_id, sizeof link_id);
    route_write_101(c, protocol, link_id, NULL);
    const struct cv_trace_ids *trace = tracing_link(c, NULL);
    struct cv_slice early = cv_http_parser_take_rest(c->parser);
    struct cv_conn *conn = cv_port_take_conn(&c->port);
    struct cv_status status =
        cv_session_accept(c->worker, conn, c->x.identity, has_agent ? agent_id : NULL, link_id,
                          cv_slice_is(protocol, "culvert.v1"), early, c->connection, trace);
    if (!cv_is_ok(status)) {
        cv_log_limited(relay->log, CV_LOG_ERROR, "http", "link_failed", "a link could not be made",
                       CV_F_STATUS(status));
        cv_registry_leave(relay->registry, user);
        cv_conn_close(conn, status);
        measure_link(c->worker, status.id);
    } else {
        measure_link(c->worker, CV_OK);
        c->connection = NULL; /* the link's from now on */
    }
    consumer_gone(c);
}

static void upgrade_link(struct cv_consumer *c, struct cv_buf *joined)
{
    static const char *const supported[] = {"culvert.v1", "ssh"};
    struct cv_error error = {0};
    struct cv_slice protocol;
    c->x.measured.is_link = c->head.is_upgrade;
    struct cv_status status = check_upgrade(c, joined, &error);
    if (cv_is_ok(status) && cv_http_value(&c->head, "Origin").len && !head_origin_is_allowed(c))
        status = cv_status(CV_ORIGIN);
    if (!cv_is_ok(status)) {
        problem_answer(c, status.id, CV_HOP_CONSUMER, error.detail, false);
        return;
    }
    if (!cv_port_is_socket(&c->port)) {
        problem_answer(c, CV_NOT_FOUND, CV_HOP_RELAY, NULL, false);
        return;
    }
    /* An agent that comes back proves it below; what is not proven counts where it is refused. */
    if ((!resume_is_of_a_link(c) && !source_admit(c, CV_LIMIT_UPGRADES)) || !route_authenticate(c))
        return;
    route_audit_auth_ok(c, "link");
    status = cv_ws_choose_protocol(cv_http_join(&c->head, "Sec-WebSocket-Protocol", joined),
                                   supported, 2, &protocol);
    if (!cv_is_ok(status) || !protocol.len) {
        if (!source_admit(c, CV_LIMIT_UPGRADES))
            return;
        /* A list that can be read and names none of ours is a wish that is not granted. */
        bool is_readable =
            cv_is_ok(status) && cv_http_value(&c->head, "Sec-WebSocket-Protocol").len;
        problem_answer(c, is_readable ? CV_FORBIDDEN : CV_WS_UPGRADE, CV_HOP_CONSUMER,
                       "the subprotocol must be culvert.v1 or ssh", false);
        return;
    }
    if (cv_http_value(&c->head, "Culvert-Resume").len) {
        resume_serve(c);
        return;
    }
    if (atomic_load_explicit(&c->worker->relay->is_draining, memory_order_relaxed)) {
        problem_answer(c, CV_SHUTTING_DOWN, CV_HOP_RELAY, NULL, false);
        return;
    }
    if (source_admit_user(c, CV_LIMIT_UPGRADES))
        accept_link(c, protocol);
}

static void serve_upgrade(struct cv_consumer *c)
{
    struct cv_buf joined;
    cv_buf_init(&joined, 2 * cv_http_request_limits.head);
    tracing_record(c, c->worker->relay->config->ws_path);
    upgrade_link(c, &joined);
    cv_buf_done(&joined);
}

/* ---- tunnels ---- */

/* <tunnel>.<public_host>; hosts are compared without case (RFC 9110 §4.2.3). */
static bool host_names_tunnel(struct cv_consumer *c, struct cv_slice *name)
{
    const char *public_host = c->worker->relay->config->public_host;
    size_t len = public_host ? strlen(public_host) : 0;
    struct cv_slice host = c->head.host;
    if (!len || host.len <= len + 1 || host.data[host.len - len - 1] != '.')
        return false;
    if (!cv_slice_is_nocase(cv_slice(host.data + host.len - len, len), public_host))
        return false;
    size_t label_len = host.len - len - 1;
    if (!cv_slice_to_str(cv_slice(host.data, label_len), c->tunnel, sizeof c->tunnel))
        return false;
    for (char *at = c->tunnel; *at; at++)
        if (*at >= 'A' && *at <= 'Z')
            *at = (char)(*at + ('a' - 'A'));
    *name = cv_slice_str(c->tunnel);
    return true;
}

/* Which tunnel, if any; its prefix is empty where the path does not name it. */
static bool find_tunnel(struct cv_consumer *c, struct cv_http_tunnel_path *at)
{
    *at = (struct cv_http_tunnel_path){0};
    if (c->owner) {
        at->name = cv_slice_str(c->tunnel);
        return true;
    }
    return host_names_tunnel(c, &at->name) || cv_http_split_tunnel_path(c->head.path, at);
}

/* Lines, with a NUL behind them. */
static struct cv_status write_preflight(const struct cv_consumer *c, struct cv_buf *out)
{
    struct cv_slice headers = cv_http_value(&c->head, "Access-Control-Request-Headers");
    CV_RETURN_IF_ERROR(cv_http_write_field_str(out, "Access-Control-Allow-Methods",
                                               "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
    if (headers.len)
        CV_RETURN_IF_ERROR(
            cv_http_write_field(out, cv_slice_str("Access-Control-Allow-Headers"), headers));
    CV_RETURN_IF_ERROR(cv_http_write_field_str(out, "Access-Control-Max-Age", "600"));
    return cv_buf_append_byte(out, 0);
}

/* CORS preflight (WHATWG Fetch §3.2.2): before the token, alike for every name. */
static bool serve_preflight(struct cv_consumer *c)
{
    if (!cv_slice_is(c->head.method, "OPTIONS") || !cv_http_value(&c->head, "Origin").len ||
        !cv_http_value(&c->head, "Access-Control-Request-Method").len ||
        c->worker->relay->config->cors_origins.count == 0)
        return false;
    if (!head_origin_is_allowed(c)) {
        problem_answer(c, CV_ORIGIN, CV_HOP_RELAY, NULL, c->head.framing == CV_HTTP_NO_BODY);
        return true;
    }
    struct cv_buf extra;
    cv_buf_init(&extra, 20000);
    struct cv_status status = write_preflight(c, &extra);
    if (cv_is_ok(status))
        problem_simple(c, 204, NULL, NULL, (const char *)cv_buf_head(&extra));
    else
        problem_answer(c, status.id, CV_HOP_RELAY, NULL, c->head.framing == CV_HTTP_NO_BODY);
    cv_buf_done(&extra);
    return true;
}

/* "/t/home" is a folder: pages in it need the slash for their relative links. */
static bool serve_slash(struct cv_consumer *c, const struct cv_http_tunnel_path *at)
{
    if (!at->prefix.len || !consumer_is_get(c) || at->rest.len)
        return false;
    char line[CV_TUNNEL_NAME_MAX + 3 * CV_IDENTITY_MAX_TEXT + 32];
    (void)snprintf(line, sizeof line, "Location: %.*s/\r\n", (int)at->prefix.len,
                   (const char *)at->prefix.data);
    problem_simple(c, 308, NULL, NULL, line);
    return true;
}

/* RFC 9110 §7.6.2: an OPTIONS that may go no further is ours to answer. */
static bool serve_last_hop(struct cv_consumer *c)
{
    uint64_t hops;
    if (!cv_slice_is(c->head.method, "OPTIONS") ||
        !cv_slice_to_u64(cv_http_value(&c->head, "Max-Forwards"), UINT32_MAX, &hops) || hops > 0)
        return false;
    problem_simple(c, 204, NULL, NULL, PROBLEM_ALLOW);
    return true;
}

static bool check_rules(struct cv_consumer *c, const struct cv_http_tunnel_path *at)
{
    struct cv_slice path = c->head.path;
    if (at->prefix.len)
        path = at->rest.len ? at->rest : cv_slice_str("/");
    if (c->x.route.spec->kind != CV_TUNNEL_HTTP) {
        problem_answer(c, CV_NO_TUNNEL, CV_HOP_RELAY, "this tunnel carries TCP, not HTTP", false);
        return false;
    }
    if (!cv_tunnel_spec_allows(c->x.route.spec, c->head.method, path)) {
        problem_answer(c, CV_NOT_ALLOWED, CV_HOP_RELAY, NULL, c->head.framing == CV_HTTP_NO_BODY);
        return false;
    }
    return true;
}

/* The relay has just been started: whose tunnel this is may be on the way. */
static bool wait_for_agent(struct cv_consumer *c)
{
    struct cv_relay *relay = c->worker->relay;
    bool is_stopping = atomic_load_explicit(&relay->is_draining, memory_order_relaxed);
    if (consumer_now_ms(c) >= relay->agents_due_ms || c->is_passed || is_stopping)
        return false;
    c->agent_due_ms = relay->agents_due_ms;
    cv_log(relay->log, CV_LOG_DEBUG, "http", "agent_awaited",
           "the relay is new, the tunnel may be back in a moment",
           CV_F_STR("correlationId", c->x.id));
    cv_fsm_set(&c->state, CONSUMER_WAITING);
    consumer_arm(c);
    return true;
}

static bool is_agent_back(struct cv_consumer *c)
{
    struct cv_http_tunnel_path at;
    struct cv_route route;
    if (!find_tunnel(c, &at) || !cv_is_ok(visit_find(c, &at, &route)))
        return false;
    cv_route_done(&route);
    return true;
}

bool route_is_due(struct cv_consumer *c)
{
    const struct cv_relay *relay = c->worker->relay;
    if (!c->agent_due_ms)
        return cv_keysource_attempts(relay->keys) != c->keys_attempts ||
               consumer_now_ms(c) >= c->keys_due_ms;
    return consumer_now_ms(c) >= c->agent_due_ms || is_agent_back(c) ||
           atomic_load_explicit(&relay->is_draining, memory_order_relaxed);
}

static void serve_tunnel(struct cv_consumer *c, const struct cv_http_tunnel_path *at)
{
    bool has_body = c->head.framing != CV_HTTP_NO_BODY;
    tracing_record(c, at->prefix.len ? "/t/{tunnel}/{path}" : "/{path}");
    if (serve_preflight(c))
        return;
    /* CORS does not guard WebSockets: any page may open one (RFC 6455 §10.2). */
    if (c->head.is_upgrade && cv_http_value(&c->head, "Origin").len && !head_origin_is_own(c) &&
        !head_origin_is_allowed(c)) {
        problem_answer(c, CV_ORIGIN, CV_HOP_CONSUMER, NULL, false);
        return;
    }
    bool is_known = c->agent_due_ms; /* who waited for the agent has been let in */
    if (!is_known && (!source_admit(c, CV_LIMIT_REQUESTS) || !visit_enter(c, at) ||
                      !source_admit_user(c, CV_LIMIT_REQUESTS)))
        return;
    if (!visit_is_within_token(c, at)) {
        problem_answer(c, CV_FORBIDDEN, CV_HOP_RELAY, "the token is not valid for this tunnel",
                       !has_body);
        return;
    }
    struct cv_status status = visit_find(c, at, &c->x.route);
    if (!cv_is_ok(status)) {
        if (pass_to_predecessor(c) || wait_for_agent(c))
            return;
        /* Whether the agent would have come is not known where the relay stops first. */
        bool is_cut = c->agent_due_ms && consumer_now_ms(c) < c->agent_due_ms;
        if (status.id == CV_NO_TUNNEL && c->x.identity->is_anonymous && !is_cut)
            visit_want_token(c);
        else
            problem_answer(c, is_cut ? CV_SHUTTING_DOWN : status.id, CV_HOP_RELAY, NULL, !has_body);
        return;
    }
    if (!cv_session_is_entitled(c->x.route.session,
                                (int64_t)cv_worker_wall_seconds(c->worker->worker))) {
        problem_answer(c, CV_AGENT_OFFLINE, CV_HOP_RELAY, "the token of its agent has expired",
                       !has_body);
        return;
    }
    pass_take(c);
    c->x.has_prefix = at->prefix.len > 0;
    if (serve_slash(c, at) || !check_rules(c, at) || serve_last_hop(c) || !wish_read(c))
        return;
    if (cv_session_worker_index(c->x.route.session) != c->worker->index &&
        consumer_move(c, cv_session_worker_index(c->x.route.session), false))
        return;
    exchange_begin(c);
}

/* ---- all ---- */

static void serve_api(struct cv_consumer *c)
{
    tracing_record(c, api_route(c));
    if (!route_authenticate(c))
        return;
    route_audit_auth_ok(c, "api");
    api_serve(c);
}

static void serve_nothing(struct cv_consumer *c)
{
    tracing_record(c, "");
    problem_answer(c, CV_NOT_FOUND, CV_HOP_RELAY, NULL, c->head.framing == CV_HTTP_NO_BODY);
}

void route_request(struct cv_consumer *c)
{
    route_make_id(c);
    c->x.started_ms = consumer_now_ms(c);
    c->x.started_ns = cv_worker_now_ns(c->worker->worker);
    c->keys_due_ms = 0;
    c->agent_due_ms = 0;
    c->x.is_charged = c->is_charged;
    c->is_charged = false;
    source_find(c);
    tracing_begin(c);
    route_go_on(c);
}

void route_go_on(struct cv_consumer *c)
{
    struct cv_relay *relay = c->worker->relay;
    struct cv_http_tunnel_path at;
    if (c->state.state == CONSUMER_MOVING) {
        if (c->x.is_resume)
            resume_go_on(c);
        else
            exchange_begin(c);
        return;
    }
    /* TRACE would show the consumer what the relay adds for the service (RFC 9110 §9.3.8). */
    if (c->head.is_connect || cv_slice_is(c->head.method, "TRACE")) {
        problem_answer(c, CV_METHOD_NOT_ALLOWED, CV_HOP_RELAY, NULL, false);
        return;
    }
    bool is_tunnel = !c->is_private && find_tunnel(c, &at);
    c->x.measured.is_tunnel = is_tunnel;
    if (!is_tunnel && (pages_health(c) || pages_metrics(c)))
        return;
    if (c->is_private) {
        problem_answer(c, CV_NOT_FOUND, CV_HOP_RELAY, NULL, c->head.framing == CV_HTTP_NO_BODY);
        return;
    }
    /* Without TLS only a load balancer that ended it may speak to us. */
    if (!relay->tls && !relay->is_dev && !c->is_peer_trusted && !c->is_announced && !c->owner) {
        problem_answer(c, CV_FORBIDDEN, CV_HOP_RELAY, "TLS is needed here", false);
        return;
    }
    if (is_tunnel)
        serve_tunnel(c, &at);
    else if (c->head.form == CV_HTTP_ASTERISK_FORM) /* RFC 9110 §9.3.7: about the relay itself */
        problem_simple(c, 204, NULL, NULL, PROBLEM_ALLOW);
    else if (cv_slice_is(c->head.path, relay->config->ws_path))
        serve_upgrade(c);
    else if (api_find(c))
        serve_api(c);
    else
        serve_nothing(c);
}
