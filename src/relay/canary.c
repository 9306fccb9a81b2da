/* SPDX-License-Identifier: MIT
 *
 * Happy path: on_timer → look_at_next → begin opens a stream → on_open sends → on_data: the head →
 * conclude → the next tunnel that is due, or the next interval. Ways it fails, each of which is a
 * finding: the agent cannot reach the service (on_failed), it closes or says nonsense (DOWN), it
 * says nothing in time or that it is not ready (SLOW). No finding: no free stream, the link is
 * lost.
 */
#include "relay/canary.h"

#include "base/digest.h"
#include "config/relay_config.h"
#include "proto/http/http_parser.h"
#include "relay/consumer_private.h"
#include "relay/session_private.h"
#include "telemetry/log.h"

#include <stdlib.h>
#include <string.h>

enum {
    FIRST_MS = 1000, /* a tunnel that was published is looked at after this and its jitter */
    NEXT_MS = 20,    /* between two tunnels of a link */
    FRESH_TIMES = 3, /* what is older than so many intervals says nothing any more */
    FRESH_MIN_MS = 60000,
    BAD_PART = 3, /* what is not well is looked at so many times as often */
    HEAD_MAX = 1024,
};

struct canary {
    struct cv_session *session;
    struct cv_timer timer; /* the next look, or the end of this one */
    /* A look under way. */
    struct cv_upstream *upstream; /* NULL: none */
    struct cv_http_parser *parser;
    struct cv_tunnel_spec *spec; /* a reference */
    struct cv_gate *gate;        /* a reference */
    uint64_t begun_ms;
    bool is_open;
};

static const struct cv_relay_config *config_of(const struct canary *canary)
{
    return canary->session->worker->relay->config;
}

static struct cv_worker *worker_of(const struct canary *canary)
{
    return canary->session->worker->worker;
}

static uint64_t now_of(const struct canary *canary)
{
    return cv_worker_now_ms(worker_of(canary));
}

/* Three quarters to five quarters of it: those that came together do not stay together. */
static uint64_t jitter(uint64_t ms)
{
    uint16_t random;
    cv_random(&random, sizeof random);
    return ms * 3 / 4 + ms * random / (2 * UINT16_MAX) + 1;
}

static void wait(struct canary *canary, uint64_t ms)
{
    (void)cv_worker_timer_start(worker_of(canary), &canary->timer, ms);
}

static uint64_t fresh_ms(const struct cv_relay *relay)
{
    uint64_t ms = relay->config->canary_interval_ms * FRESH_TIMES;
    return ms > FRESH_MIN_MS ? ms : FRESH_MIN_MS;
}

/* ---- what is told ---- */

static struct session_tunnel *tunnel_of(struct cv_session *session, const char *name)
{
    for (size_t i = 0; i < session->tunnel_count; i++)
        if (strcmp(session->tunnels[i].spec->name, name) == 0)
            return &session->tunnels[i];
    return NULL;
}

static enum cv_tunnel_health health_of(const struct canary *canary, const struct cv_gate *gate,
                                       struct cv_pulse_view *seen)
{
    *seen = cv_pulse_look(&gate->pulse, now_of(canary));
    return cv_tunnel_health(seen, true, fresh_ms(canary->session->worker->relay));
}

/* The agent, and the log, when it is another one than the last time. */
static void tell(const struct canary *canary, struct session_tunnel *tunnel,
                 const struct cv_gate *gate)
{
    struct cv_session *session = canary->session;
    struct cv_pulse_view seen;
    enum cv_tunnel_health health = health_of(canary, gate, &seen);
    if (health == tunnel->told)
        return;
    tunnel->told = health;
    const char *text = health == CV_TUNNEL_ACTIVE    ? "the service behind a tunnel is well"
                       : health == CV_TUNNEL_UNKNOWN ? "nobody knows whether the service is well"
                                                     : "the service behind a tunnel is not well";
    session_notice(session, "service", tunnel->spec->name, cv_tunnel_health_name(health), 0);
    cv_log_limited(session->worker->relay->log, CV_LOG_INFO, "canary", "tunnel_health", text,
                   CV_F_STR("tunnel", tunnel->spec->name),
                   CV_F_STR("state", cv_tunnel_health_name(health)),
                   CV_F_STR("userId", session->user_id), CV_F_UINT("latencyMs", seen.latency_ms),
                   CV_F_STATUS(cv_status(seen.status)));
}

/* ---- a look ---- */

static void let_go(struct canary *canary)
{
    if (canary->upstream)
        cv_upstream_close(canary->upstream, false);
    canary->upstream = NULL;
    canary->is_open = false;
    cv_http_parser_free(&canary->parser);
    cv_tunnel_spec_unref(&canary->spec);
    cv_gate_unref(&canary->gate);
}

/* The look is over, without a finding. */
static void give_up(struct canary *canary)
{
    let_go(canary);
    wait(canary, jitter(config_of(canary)->canary_interval_ms));
}

static void conclude(struct canary *canary, enum cv_pulse_verdict verdict, enum cv_status_id status)
{
    uint64_t now_ms = now_of(canary);
    struct session_tunnel *tunnel = tunnel_of(canary->session, canary->spec->name);
    struct cv_pulse_view seen = {.verdict = verdict,
                                 .status = status,
                                 .is_canary = true,
                                 .latency_ms = (uint32_t)(now_ms - canary->begun_ms)};
    if (verdict == CV_PULSE_ANSWERS && seen.latency_ms >= config_of(canary)->canary_slow_ms)
        seen.verdict = CV_PULSE_SLOW;
    cv_pulse_tell(&canary->gate->pulse, &seen, now_ms);
    if (tunnel)
        tell(canary, tunnel, canary->gate);
    let_go(canary);
    wait(canary, NEXT_MS);
}

static void on_answer(struct canary *canary, const struct cv_http_head *head)
{
    if (head->status == 503 || head->status == 429) /* it is loading, or has too much to do */
        conclude(canary, CV_PULSE_SLOW, CV_OK);
    else if (head->status == 502 || head->status == 504) /* a proxy beside the agent */
        conclude(canary, CV_PULSE_DOWN, CV_SERVICE_UNREACHABLE);
    else
        conclude(canary, CV_PULSE_ANSWERS, CV_OK);
}

static const char *path_of(const struct cv_tunnel_spec *spec)
{
    if (spec->canary[0] == '/')
        return spec->canary;
    return strcmp(spec->preset, "ollama") == 0   ? "/api/tags"
           : strcmp(spec->preset, "openai") == 0 ? "/v1/models"
                                                 : "/";
}

/* Of an unknown service the head is enough. */
static const char *method_of(const struct cv_tunnel_spec *spec)
{
    return strcmp(path_of(spec), "/") == 0 && spec->canary[0] != '/' ? "HEAD" : "GET";
}

/* Rules hold for everybody: what they refuse is not asked, the connection then says enough. */
static bool is_asking(const struct cv_tunnel_spec *spec)
{
    struct cv_slice path = cv_slice_str(path_of(spec));
    const uint8_t *query = path.len ? memchr(path.data, '?', path.len) : NULL;
    if (query)
        path.len = (size_t)(query - path.data);
    return spec->kind == CV_TUNNEL_HTTP && strcmp(spec->canary, "connect") != 0 &&
           cv_tunnel_spec_allows(spec, cv_slice_str(method_of(spec)), path);
}

static void on_open(void *arg, bool is_reused)
{
    struct canary *canary = arg;
    const struct cv_tunnel_spec *spec = canary->spec;
    struct cv_buf head;
    (void)is_reused;
    canary->is_open = true;
    if (!is_asking(spec)) {
        conclude(canary, CV_PULSE_ANSWERS, CV_OK);
        return;
    }
    cv_buf_init(&head, HEAD_MAX);
    struct cv_status status =
        cv_buf_printf(&head,
                      "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: culvert-canary/" CV_VERSION
                      "\r\nAccept: */*\r\nConnection: close\r\n\r\n",
                      method_of(spec), path_of(spec), spec->host);
    size_t sent = cv_is_ok(status) ? cv_upstream_write(canary->upstream, cv_buf_slice(&head)) : 0;
    bool is_sent = sent && sent == cv_buf_len(&head);
    cv_buf_done(&head);
    if (!is_sent)
        give_up(canary);
}

static void on_failed(void *arg, struct cv_status why)
{
    struct canary *canary = arg;
    canary->upstream = NULL;
    if (why.id == CV_SERVICE_REFUSED || why.id == CV_SERVICE_TIMEOUT ||
        why.id == CV_SERVICE_UNREACHABLE)
        conclude(canary, CV_PULSE_DOWN, why.id);
    else
        give_up(canary);
}

static void on_data(void *arg, struct cv_slice data)
{
    struct canary *canary = arg;
    struct cv_http_event event;
    struct cv_status status = cv_http_parser_feed(canary->parser, data.data, data.len);
    cv_upstream_consumed(canary->upstream, data.len);
    while (cv_is_ok(status)) {
        status = cv_http_parser_next(canary->parser, &event);
        if (cv_is_ok(status) && event.type == CV_HTTP_HEAD && event.head->status >= 200) {
            on_answer(canary, event.head);
            return;
        }
    }
    if (status.id != CV_AGAIN)
        conclude(canary, CV_PULSE_DOWN, CV_BAD_RESPONSE);
}

static void on_eof(void *arg)
{
    conclude(arg, CV_PULSE_DOWN, CV_BAD_RESPONSE);
}

static void on_writable(void *arg)
{
    (void)arg;
}

static void on_closed(void *arg, struct cv_status why)
{
    struct canary *canary = arg;
    canary->upstream = NULL;
    if (why.id == CV_EOF)
        conclude(canary, CV_PULSE_DOWN, CV_BAD_RESPONSE);
    else
        give_up(canary);
}

static const struct cv_upstream_ops ops = {
    .on_open = on_open,
    .on_failed = on_failed,
    .on_data = on_data,
    .on_eof = on_eof,
    .on_writable = on_writable,
    .on_closed = on_closed,
};

/* ---- when ---- */

static struct cv_status begin(struct canary *canary, struct session_tunnel *tunnel,
                              struct cv_gate *gate)
{
    const struct cv_route route = {
        .spec = tunnel->spec, .session = canary->session, .gate = gate, .port = tunnel->port};
    const struct cv_upstream_wish wish = {.priority = CV_PRIORITY_BACKGROUND, .is_canary = true};
    canary->parser = cv_http_parser_new(CV_HTTP_RESPONSES, &cv_http_response_limits);
    if (!canary->parser)
        return cv_status(CV_NO_MEMORY);
    bool is_head = strcmp(method_of(tunnel->spec), "HEAD") == 0;
    CV_RETURN_IF_ERROR(cv_http_parser_expect(canary->parser,
                                             is_head ? CV_HTTP_EXPECT_HEAD : CV_HTTP_EXPECT_PLAIN));
    canary->spec = cv_tunnel_spec_ref(tunnel->spec);
    canary->begun_ms = now_of(canary);
    return cv_upstream_open(canary->session->worker, &route, &wish, &ops, canary,
                            &canary->upstream);
}

/* Requests that need a stream find one. */
static bool has_room(const struct canary *canary)
{
    size_t streams = cv_link_streams(canary->session->link);
    return streams == 0 || streams + 2 <= config_of(canary)->ssh_max_channels;
}

static bool is_due(const struct canary *canary, const struct cv_gate *gate)
{
    uint64_t interval_ms = config_of(canary)->canary_interval_ms;
    struct cv_pulse_view seen;
    bool is_good = health_of(canary, gate, &seen) == CV_TUNNEL_ACTIVE;
    return seen.verdict == CV_PULSE_NONE ||
           seen.age_ms >= (is_good ? interval_ms * 3 / 4 : interval_ms / (BAD_PART + 1));
}

/* Begins a look at the first tunnel that is due. False: none is. */
static bool look_at_next(struct canary *canary)
{
    struct cv_session *session = canary->session;
    struct cv_relay *relay = session->worker->relay;
    for (size_t i = 0; i < session->tunnel_count; i++) {
        struct session_tunnel *tunnel = &session->tunnels[i];
        canary->gate = tunnel->is_published ? cv_registry_gate(relay->registry, &session->user_key,
                                                               cv_slice_str(tunnel->spec->name))
                                            : NULL;
        if (!canary->gate)
            continue;
        tell(canary, tunnel, canary->gate);
        bool is_wanted = strcmp(tunnel->spec->canary, "off") != 0;
        if (is_wanted && is_due(canary, canary->gate) && has_room(canary) &&
            cv_is_ok(begin(canary, tunnel, canary->gate))) {
            wait(canary, config_of(canary)->canary_timeout_ms);
            return true;
        }
        let_go(canary);
    }
    return false;
}

static bool is_any_bad(const struct cv_session *session)
{
    for (size_t i = 0; i < session->tunnel_count; i++)
        if (session->tunnels[i].told == CV_TUNNEL_SLOW ||
            session->tunnels[i].told == CV_TUNNEL_SERVICE_DOWN)
            return true;
    return false;
}

static void on_timer(void *arg)
{
    struct canary *canary = arg;
    struct cv_session *session = canary->session;
    uint64_t interval_ms = config_of(canary)->canary_interval_ms;
    bool is_detached = cv_link_is_detached(session->link);
    if (canary->upstream && is_detached) {
        give_up(canary); /* that says nothing about the service */
        return;
    }
    if (canary->upstream) {
        conclude(canary, canary->is_open ? CV_PULSE_SLOW : CV_PULSE_DOWN,
                 canary->is_open ? CV_TIMEOUT_FIRST_BYTE : CV_SERVICE_TIMEOUT);
        return;
    }
    bool is_draining =
        atomic_load_explicit(&session->worker->relay->is_draining, memory_order_relaxed);
    if (!is_detached && !is_draining && look_at_next(canary))
        return;
    wait(canary, jitter(is_any_bad(session) ? interval_ms / BAD_PART : interval_ms));
}

void canary_start(struct cv_session *session)
{
    uint64_t interval_ms = session->worker->relay->config->canary_interval_ms;
    if (!interval_ms || !session->link)
        return;
    if (!session->canary) {
        session->canary = calloc(1, sizeof *session->canary);
        if (!session->canary)
            return;
        session->canary->session = session;
        cv_timer_init(&session->canary->timer, on_timer, session->canary);
    }
    if (!session->canary->upstream)
        wait(session->canary, jitter(interval_ms < FIRST_MS ? interval_ms : FIRST_MS));
}

void canary_stop(struct cv_session *session)
{
    if (!session->canary)
        return;
    let_go(session->canary);
    cv_worker_timer_stop(session->worker->worker, &session->canary->timer);
    free(session->canary);
    session->canary = NULL;
}

/* ---- what others have seen ---- */

static void saw(const struct cv_consumer *c, enum cv_pulse_verdict verdict, enum cv_status_id why)
{
    const struct exchange *x = &c->x;
    uint64_t now_ms = consumer_now_ms(c);
    if (x->route.gate)
        cv_pulse_tell(&x->route.gate->pulse,
                      &(struct cv_pulse_view){.verdict = verdict,
                                              .status = why,
                                              .latency_ms = (uint32_t)(now_ms - x->started_ms)},
                      now_ms);
}

void canary_saw_answer(const struct cv_consumer *c)
{
    saw(c, CV_PULSE_ANSWERS, CV_OK);
}

void canary_saw_failure(const struct cv_consumer *c, enum cv_status_id why)
{
    if (why == CV_SERVICE_REFUSED || why == CV_SERVICE_TIMEOUT || why == CV_SERVICE_UNREACHABLE)
        saw(c, CV_PULSE_DOWN, why);
    else if (why == CV_TIMEOUT_FIRST_BYTE && c->x.asked_ms == 0)
        saw(c, CV_PULSE_SLOW, why);
}

enum cv_tunnel_health canary_judge(const struct cv_relay *relay,
                                   const struct cv_registry_tunnel *tunnel, uint64_t now_ms,
                                   struct cv_pulse_view *seen)
{
    bool is_reachable = false;
    for (size_t i = 0; i < tunnel->session_count && !is_reachable; i++)
        is_reachable = cv_session_is_reachable(cv_registry_tunnel_session(tunnel, i));
    *seen = cv_pulse_look(&tunnel->gate->pulse, now_ms);
    return cv_tunnel_health(seen, is_reachable, fresh_ms(relay));
}
