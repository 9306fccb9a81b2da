/* SPDX-License-Identifier: MIT
 *
 * A consumer's connection: bytes in, requests one by one.
 *
 * Happy path: on_data → process: parse a head → route_request → exchange … body →
 * consumer_request_done → process goes on with what came meanwhile. Ways it fails: the request is
 * malformed (take_fault); it is too slow (on_timer); the consumer goes away (on_eof, on_closed: the
 * upstream's stream is closed at once); the relay stops (drain, close).
 */
#include "auth/keysource.h"
#include "config/relay_config.h"
#include "net/conn.h"
#include "net/tls.h"
#include "proto/ssh/ssh.h"
#include "relay/consumer_private.h"
#include "relay/session.h"
#include "telemetry/log.h"
#include "transport/link.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

static const char *const state_names[CONSUMER_STATE_COUNT] = {
    "reading", "waiting", "held", "moving", "exchange", "tunnel", "ending"};
#define END "closed, refused, or a fault"
static const struct cv_fsm_step state_steps[] = {
    {CONSUMER_READING, CONSUMER_WAITING, "the token's key has to be fetched"},
    {CONSUMER_READING, CONSUMER_HELD, "the token was refused, which is told later"},
    {CONSUMER_READING, CONSUMER_MOVING, "the tunnel is another worker's"},
    {CONSUMER_READING, CONSUMER_EXCHANGE, "a request for a tunnel"},
    {CONSUMER_READING, CONSUMER_ENDING, END},
    {CONSUMER_WAITING, CONSUMER_READING, "answered without an upstream"},
    {CONSUMER_WAITING, CONSUMER_MOVING, "keys are here; the tunnel is another worker's"},
    {CONSUMER_WAITING, CONSUMER_EXCHANGE, "keys are here"},
    {CONSUMER_WAITING, CONSUMER_ENDING, END},
    {CONSUMER_HELD, CONSUMER_READING, "told"},
    {CONSUMER_HELD, CONSUMER_ENDING, END},
    {CONSUMER_MOVING, CONSUMER_READING, "arrived"},
    {CONSUMER_MOVING, CONSUMER_EXCHANGE, "arrived, with its request"},
    {CONSUMER_MOVING, CONSUMER_ENDING, END},
    {CONSUMER_EXCHANGE, CONSUMER_READING, "request and answer are over"},
    {CONSUMER_EXCHANGE, CONSUMER_TUNNEL, "the service upgraded the connection"},
    {CONSUMER_EXCHANGE, CONSUMER_ENDING, END},
    {CONSUMER_TUNNEL, CONSUMER_ENDING, END},
};
#undef END
const struct cv_fsm_def cv_consumer_states = {.name = "consumer",
                                              .states = state_names,
                                              .count = CONSUMER_STATE_COUNT,
                                              CV_FSM_STEPS(state_steps)};

static void process(void *arg);

uint64_t consumer_now_ms(const struct cv_consumer *c)
{
    return cv_worker_now_ms(c->worker->worker);
}

bool consumer_is_get(const struct cv_consumer *c)
{
    return cv_slice_is(c->head.method, "GET") || c->head.is_head;
}

/* ---- time ---- */

void consumer_set_timer(struct cv_consumer *c, uint64_t ms)
{
    c->client_due_ms = consumer_now_ms(c) + ms;
    consumer_arm(c);
}

/* Deadlines mostly move away: the timer is only ever moved nearer, and looks again when it fires.
 */
void consumer_arm(struct cv_consumer *c)
{
    uint64_t due = c->client_due_ms, now_ms = consumer_now_ms(c);
    if (c->state.state == CONSUMER_EXCHANGE || c->state.state == CONSUMER_TUNNEL) {
        if (c->x.service_due_ms < due)
            due = c->x.service_due_ms;
        if (c->x.total_due_ms < due)
            due = c->x.total_due_ms;
        if (c->x.throttled_until_ms > now_ms && c->x.throttled_until_ms < due)
            due = c->x.throttled_until_ms;
        if (c->x.upload_until_ms && c->x.upload_until_ms < due)
            due = c->x.upload_until_ms;
    } else if (c->state.state == CONSUMER_WAITING && now_ms + 20 < due) {
        due = now_ms + 20;
    } else if (c->state.state == CONSUMER_HELD) {
        due = c->held_due_ms;
    }
    if (due == UINT64_MAX || (cv_timer_is_running(&c->timer) && c->timer.due_ms <= due))
        return;
    (void)cv_worker_timer_start(c->worker->worker, &c->timer, due > now_ms ? due - now_ms : 0);
}

static void give_time(struct cv_consumer *c)
{
    uint64_t idle_ms = c->worker->relay->config->limits_body_idle_timeout_ms;
    c->slow_received = 0;
    c->slow_due_ms = consumer_now_ms(c) + CONSUMER_SLOW_TIMES * idle_ms;
    c->client_due_ms = consumer_now_ms(c) + idle_ms;
}

/* `len` bytes of a body have come. Once it is being answered, how slow is between the two ends. */
static void body_moves(struct cv_consumer *c, size_t len)
{
    c->slow_received += len;
    if (c->slow_received >= CONSUMER_SLOW_BODY_BYTES || c->x.is_head_out) {
        give_time(c);
        return;
    }
    uint64_t due = consumer_now_ms(c) + c->worker->relay->config->limits_body_idle_timeout_ms;
    c->client_due_ms = due < c->slow_due_ms ? due : c->slow_due_ms;
}

/* It does not read, or not enough to be worth what waits for it. */
static bool is_deaf(struct cv_consumer *c)
{
    uint64_t now = cv_port_progress(&c->port);
    bool has_moved = now != c->progress, is_congested = cv_port_is_congested(&c->port);
    c->progress = now;
    if (!is_congested || now - c->slow_progress >= CONSUMER_SLOW_READ_BYTES) {
        c->slow_progress = now;
        c->slow_times = 0;
    }
    if (!is_congested)
        return false;
    /* What a stream's consumer takes is counted by its link's windows. */
    return !has_moved || (cv_port_is_socket(&c->port) && ++c->slow_times > CONSUMER_SLOW_TIMES);
}

/* For what never became a request: what is left of the one before must not be looked at. */
static void answer_no_request(struct cv_consumer *c, enum cv_status_id id, const char *detail)
{
    c->head = (struct cv_http_head){.version_minor = 1};
    route_make_id(c);
    tracing_begin(c);
    problem_answer(c, id, CV_HOP_CONSUMER, detail, false);
}

static void on_client_due(struct cv_consumer *c)
{
    switch (c->state.state) {
    case CONSUMER_READING:
        if (cv_http_parser_is_idle(c->parser))
            consumer_request_done(c, false);
        else
            answer_no_request(c, CV_TIMEOUT_REQUEST, "the head came too slowly");
        break;
    case CONSUMER_EXCHANGE:
        if (c->x.is_response_whole && !c->x.is_end_due) {
            consumer_request_done(c, false); /* the rest of the request came too slowly */
            break;
        }
        if (!c->x.is_request_whole && !c->is_blocked)
            exchange_fail(c, CV_TIMEOUT_REQUEST, CV_HOP_CONSUMER, "the body came too slowly");
        else if (is_deaf(c))
            consumer_abort(c); /* no answer would reach it */
        else
            give_time(c);
        break;
    default:
        c->client_due_ms = UINT64_MAX;
        break;
    }
}

static void on_timer(void *arg)
{
    struct cv_consumer *c = arg;
    uint64_t now_ms = consumer_now_ms(c);
    if (c->state.state == CONSUMER_ENDING || c->state.state == CONSUMER_MOVING)
        return;
    if (c->state.state == CONSUMER_WAITING) {
        if (route_is_due(c)) {
            cv_fsm_set(&c->state, CONSUMER_READING);
            consumer_go_on(c);
        }
    } else if (c->state.state == CONSUMER_HELD) {
        if (now_ms >= c->held_due_ms)
            problem_answer(c, c->held_status.id, CV_HOP_RELAY, NULL,
                           c->head.framing == CV_HTTP_NO_BODY);
    } else if (now_ms >= c->client_due_ms) {
        on_client_due(c);
    } else if (c->state.state == CONSUMER_EXCHANGE || c->state.state == CONSUMER_TUNNEL) {
        exchange_on_timer(c, now_ms);
    }
    if (c->state.state != CONSUMER_ENDING && c->state.state != CONSUMER_MOVING)
        consumer_arm(c);
}

/* ---- life ---- */

void consumer_list(struct cv_consumer *c, struct cv_relay_worker *worker)
{
    c->worker = worker;
    c->is_listed = true;
    DL_APPEND(worker->consumers, c);
    (void)atomic_fetch_add_explicit(&worker->consumer_count, 1, memory_order_relaxed);
}

void consumer_unlist(struct cv_consumer *c)
{
    c->is_listed = false;
    DL_DELETE(c->worker->consumers, c);
    (void)atomic_fetch_sub_explicit(&c->worker->consumer_count, 1, memory_order_relaxed);
}

void consumer_free(struct cv_consumer *c)
{
    exchange_cancel(c);
    cv_worker_timer_stop(c->worker->worker, &c->timer);
    cv_defer_cancel(&c->next_request);
    if (c->is_listed)
        consumer_unlist(c);
    cv_limits_disconnect(c->worker->relay->limits, c->connection, c->is_half_open);
    cv_http_parser_free(&c->parser);
    cv_buf_done(&c->in);
    cv_identity_unref(&c->owner);
    free(c);
}

static void on_reap(void *arg)
{
    consumer_free(arg);
}

/* Freed at the end of the turn: callers up the stack may still look at it. */
void consumer_gone(struct cv_consumer *c)
{
    exchange_cancel(c);
    if (c->state.state != CONSUMER_ENDING)
        cv_fsm_set(&c->state, CONSUMER_ENDING);
    cv_defer_cancel(&c->next_request);
    cv_defer_init(&c->next_request, on_reap, c);
    cv_worker_defer(c->worker->worker, &c->next_request);
}

void consumer_abort(struct cv_consumer *c)
{
    exchange_cancel(c);
    if (c->state.state == CONSUMER_ENDING)
        return;
    cv_fsm_set(&c->state, CONSUMER_ENDING);
    cv_port_abort(&c->port);
}

void consumer_request_done(struct cv_consumer *c, bool is_reusable)
{
    const struct cv_relay_config *config = c->worker->relay->config;
    exchange_cancel(c);
    c->is_blocked = false;
    if (c->state.state == CONSUMER_ENDING)
        return;
    /* A socket's end is taken for the consumer's; a stream can end in one direction alone. */
    if (!is_reusable || c->is_last || (c->is_eof && cv_port_is_socket(&c->port))) {
        cv_fsm_set(&c->state, CONSUMER_ENDING);
        cv_port_close_gently(&c->port, config->limits_body_idle_timeout_ms);
        return;
    }
    c->x = (struct exchange){0};
    c->is_between = true;
    cv_fsm_set(&c->state, CONSUMER_READING);
    consumer_set_timer(c, config->limits_keepalive_timeout_ms);
    if (!c->is_processing)
        cv_worker_defer(c->worker->worker, &c->next_request);
}

/* ---- requests ---- */

static void take_fault(struct cv_consumer *c, struct cv_status status)
{
    const char *fault = cv_http_parser_fault(c->parser);
    c->is_last = true;
    if (c->state.state == CONSUMER_EXCHANGE) {
        exchange_fail(c, status.id == CV_TRUNCATED ? CV_BAD_REQUEST : status.id, CV_HOP_CONSUMER,
                      fault);
        return;
    }
    answer_no_request(c, status.id == CV_TRUNCATED ? CV_BAD_REQUEST : status.id, fault);
}

static void take_event(struct cv_consumer *c, const struct cv_http_event *event,
                       struct cv_http_event *trailers)
{
    const struct cv_relay_config *config = c->worker->relay->config;
    switch (event->type) {
    case CV_HTTP_HEAD:
        c->head = *event->head;
        c->is_between = false;
        c->has_asked = true;
        if (c->is_half_open) {
            c->is_half_open = false;
            cv_limits_opened(c->worker->relay->limits, c->connection);
        }
        give_time(c);
        if (config->limits_body_bytes && c->head.framing == CV_HTTP_LENGTH &&
            c->head.content_length > config->limits_body_bytes)
            problem_answer(c, CV_BODY_TOO_LARGE, CV_HOP_CONSUMER, NULL, false);
        else
            route_request(c);
        break;
    case CV_HTTP_BODY:
        body_moves(c, event->body.len);
        exchange_body(c, event->body);
        break;
    case CV_HTTP_TRAILERS:
        *trailers = *event;
        break;
    case CV_HTTP_END:
        /* In any other state the request was answered without an exchange. */
        if (c->state.state == CONSUMER_EXCHANGE)
            exchange_request_end(c, trailers->trailers, trailers->trailer_count);
        break;
    }
}

/* May the parser be asked for more? Between requests while answers are taken; within one while its
 * body can go on. */
static bool can_parse(struct cv_consumer *c)
{
    if (c->is_blocked)
        return false;
    if (c->state.state == CONSUMER_READING)
        return !cv_port_is_congested(&c->port);
    return c->state.state == CONSUMER_EXCHANGE && !c->x.is_request_whole;
}

static void parse(struct cv_consumer *c)
{
    struct cv_http_event event, trailers = {0};
    while (can_parse(c)) {
        struct cv_status status = cv_http_parser_next(c->parser, &event);
        if (status.id == CV_AGAIN)
            return;
        if (status.id == CV_EOF) {
            if (c->state.state == CONSUMER_READING)
                consumer_request_done(c, false);
            return;
        }
        if (!cv_is_ok(status)) {
            take_fault(c, status);
            return;
        }
        take_event(c, &event, &trailers);
    }
}

void consumer_keep(struct cv_consumer *c, struct cv_slice rest)
{
    if (rest.len && !cv_is_ok(cv_buf_append_slice(&c->in, rest)))
        consumer_abort(c);
}

/* Reads only while what comes can be used or kept. */
static void set_reading(struct cv_consumer *c)
{
    bool is_full = cv_buf_len(&c->in) >= CONSUMER_PIPELINE_MAX / 2;
    if (c->is_blocked || is_full)
        cv_port_pause(&c->port);
    else
        cv_port_resume(&c->port);
}

static void use(struct cv_consumer *c, uint8_t *data, size_t len)
{
    if (c->state.state == CONSUMER_TUNNEL) {
        exchange_tunnel_data(c, cv_slice(data, len));
        return;
    }
    if (!cv_is_ok(cv_http_parser_feed(c->parser, data, len)))
        return;
    parse(c);
}

static void flush(struct cv_consumer *c)
{
    c->is_processing = false;
    if (c->state.state == CONSUMER_EXCHANGE || c->state.state == CONSUMER_TUNNEL)
        exchange_flush(c);
}

static void process(void *arg)
{
    struct cv_consumer *c = arg;
    if (c->is_processing || c->state.state == CONSUMER_ENDING || c->state.state == CONSUMER_MOVING)
        return;
    c->is_processing = true;
    /* The parser is asked first: it may hold an END without further bytes. */
    if (c->state.state != CONSUMER_TUNNEL)
        parse(c);
    while (cv_buf_len(&c->in) && (can_parse(c) || c->state.state == CONSUMER_TUNNEL) &&
           !c->is_blocked) {
        /* Out of `in` while it is used, since what is left is kept there again. */
        struct cv_buf bytes = c->in;
        cv_buf_init(&c->in, bytes.cap);
        use(c, cv_buf_head(&bytes), cv_buf_len(&bytes));
        if (c->state.state != CONSUMER_ENDING)
            consumer_keep(c, cv_http_parser_take_rest(c->parser));
        cv_buf_done(&bytes);
    }
    if (c->is_eof && !cv_buf_len(&c->in) && can_parse(c)) {
        cv_http_parser_eof(c->parser);
        parse(c);
    }
    flush(c);
    if (c->state.state == CONSUMER_ENDING || c->state.state == CONSUMER_MOVING)
        return;
    set_reading(c);
    consumer_arm(c);
}

void consumer_go_on(struct cv_consumer *c)
{
    c->is_processing = true;
    route_go_on(c);
    c->is_processing = false;
    if (c->state.state != CONSUMER_ENDING && c->state.state != CONSUMER_MOVING)
        consumer_process(c);
}

void consumer_process(struct cv_consumer *c)
{
    if (!c->is_processing)
        cv_worker_defer(c->worker->worker, &c->next_request);
}

/* ---- the connection ---- */

static void on_data(void *arg, uint8_t *data, size_t len)
{
    struct cv_consumer *c = arg;
    if (c->state.state == CONSUMER_ENDING)
        return;
    bool is_usable = (can_parse(c) || c->state.state == CONSUMER_TUNNEL) && !c->is_blocked;
    if (c->is_between && c->state.state == CONSUMER_READING) {
        /* The first byte of a request: its head has its own time. */
        c->is_between = false;
        consumer_set_timer(c, c->worker->relay->config->limits_header_timeout_ms);
    }
    if (cv_buf_len(&c->in) || !is_usable) {
        consumer_keep(c, cv_slice(data, len));
        set_reading(c);
        return;
    }
    c->is_processing = true;
    use(c, data, len);
    if (c->state.state != CONSUMER_ENDING)
        consumer_keep(c, cv_http_parser_take_rest(c->parser));
    flush(c);
    if (c->state.state == CONSUMER_ENDING)
        return;
    if (c->state.state == CONSUMER_MOVING)
        return;
    set_reading(c);
    consumer_arm(c);
    if (cv_buf_len(&c->in) && can_parse(c))
        consumer_process(c);
}

static void on_eof(void *arg)
{
    struct cv_consumer *c = arg;
    c->is_eof = true;
    switch (c->state.state) {
    case CONSUMER_READING:
        consumer_process(c);
        break;
    case CONSUMER_TUNNEL:
        exchange_tunnel_eof(c);
        break;
    case CONSUMER_ENDING:
    case CONSUMER_MOVING:
        break;
    default:
        /* It has its answer: what it said before it left is still for the service. While reading
         * rests there may be more of that in the socket; the end comes again behind it. */
        if (c->x.is_response_whole && c->port.is_paused) {
            c->is_eof = false;
            break;
        }
        if (c->x.is_response_whole || !cv_port_is_socket(&c->port)) {
            consumer_process(c);
            break;
        }
        /* Nobody is there to read the answer: the service is told at once. */
        cv_log(c->worker->relay->log, CV_LOG_DEBUG, "http", "consumer_gone",
               "the consumer went away", CV_F_STR("correlationId", c->x.id));
        consumer_request_done(c, false);
        break;
    }
}

static void on_writable(void *arg)
{
    struct cv_consumer *c = arg;
    if (c->state.state == CONSUMER_EXCHANGE || c->state.state == CONSUMER_TUNNEL)
        exchange_on_writable(c);
    else if (c->state.state == CONSUMER_READING)
        consumer_process(c);
}

static void on_closed(void *arg)
{
    struct cv_consumer *c = arg;
    if (c->state.state != CONSUMER_ENDING)
        cv_fsm_set(&c->state, CONSUMER_ENDING);
    consumer_free(c);
}

const struct cv_port_ops consumer_port_ops = {
    .on_data = on_data,
    .on_eof = on_eof,
    .on_writable = on_writable,
    .on_closed = on_closed,
};

struct cv_consumer *consumer_new(struct cv_relay_worker *worker)
{
    const struct cv_relay_config *config = worker->relay->config;
    struct cv_consumer *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->state.def = &cv_consumer_states;
    cv_timer_init(&c->timer, on_timer, c);
    cv_defer_init(&c->next_request, process, c);
    cv_buf_init(&c->in, CONSUMER_IN_MAX);
    struct cv_http_limits limits = cv_http_request_limits;
    limits.start_line = config->limits_line_bytes;
    limits.head = config->limits_head_bytes;
    limits.field_count = config->limits_fields;
    c->parser = cv_http_parser_new(CV_HTTP_REQUESTS, &limits);
    consumer_list(c, worker);
    if (!c->parser) {
        consumer_free(c);
        return NULL;
    }
    return c;
}
