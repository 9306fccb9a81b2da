/* SPDX-License-Identifier: MIT
 *
 * Happy path: cv_stdio_new → on_dialed → bytes both ways → stdin ends → Close 1000 → the relay's
 * Close → what is left goes to stdout → on_ended.
 * Ways it fails: no relay can be reached, or one refuses; the connection is lost; stdout is closed;
 * the relay breaks RFC 6455.
 */
#include "agent/stdio_link.h"

#include "agent/access.h"
#include "agent/dialer.h"
#include "base/digest.h"
#include "config/agent_config.h"
#include "flow/fleet.h"
#include "net/conn.h"
#include "net/duplex.h"
#include "net/worker.h"
#include "proto/ws/ws.h"

enum {
    FRAME_BYTES = 65535,
    OUT_LOW = 64 * 1024,
    OUT_HIGH = 256 * 1024,
    OUT_CAP = 1024 * 1024,
    CLOSE_MS = 2000,
};

struct cv_stdio {
    struct cv_worker *worker;
    const struct cv_access *accesses;
    const struct cv_access *access; /* of the try under way, or of the connection */
    struct cv_fleet fleet;          /* which one of them is next */
    size_t server;                  /* where `access` is in it */
    int fd_in, fd_out;
    cv_stdio_on_ended *on_ended;
    void *arg;
    struct cv_dialer *dialer;
    struct cv_conn *conn;     /* NULL before and after */
    struct cv_duplex *duplex; /* the same */
    struct cv_ws *ws;
    struct cv_timer closing;
    struct cv_timer ping;
    uint64_t heard_ms;
    bool is_ending; /* what comes now does not count any more */
    struct cv_status why;
    struct cv_error error;
};

/* ---- ending ---- */

static void tell(struct cv_stdio *s)
{
    cv_worker_timer_stop(s->worker, &s->closing);
    cv_worker_timer_stop(s->worker, &s->ping);
    cv_duplex_free(&s->duplex);
    s->on_ended(s->arg, s->why, &s->error);
}

/* The connection is of no use any more; stdout gets what came. */
static void end(struct cv_stdio *s, struct cv_status why, const struct cv_error *error)
{
    if (s->is_ending)
        return;
    s->is_ending = true;
    s->why = why;
    s->error = error ? *error : (struct cv_error){.id = why.id};
    if (s->conn)
        cv_conn_close_lingering(s->conn, CLOSE_MS);
    if (s->duplex)
        cv_duplex_finish(s->duplex);
    else
        tell(s);
}

static void send_close(struct cv_stdio *s, uint16_t code)
{
    if (!s->conn || cv_ws_state(s->ws) == CV_WS_CLOSED)
        return;
    (void)cv_ws_send_close(s->ws, cv_conn_out(s->conn), code, cv_slice(NULL, 0));
    cv_conn_flush(s->conn);
}

static void on_close_overdue(void *arg)
{
    end(arg, cv_ok(), NULL);
}

void cv_stdio_stop(struct cv_stdio *s)
{
    if (s->is_ending)
        return;
    if (!s->conn) {
        cv_dialer_cancel(&s->dialer);
        end(s, cv_ok(), NULL);
        return;
    }
    if (s->duplex)
        cv_duplex_pause(s->duplex);
    send_close(s, 1000);
    if (!cv_timer_is_running(&s->closing))
        (void)cv_worker_timer_start(s->worker, &s->closing, CLOSE_MS);
}

/* ---- standard input and output ---- */

static void on_in_data(void *arg, struct cv_slice data)
{
    struct cv_stdio *s = arg;
    struct cv_buf *out = s->conn ? cv_conn_out(s->conn) : NULL;
    while (out && data.len) {
        size_t len = data.len < FRAME_BYTES ? data.len : FRAME_BYTES;
        struct cv_status status =
            cv_ws_send(s->ws, out, CV_WS_BINARY, CV_WS_FIN, cv_slice(data.data, len));
        if (status.id == CV_EOF)
            return; /* closing already */
        if (!cv_is_ok(status)) {
            end(s, status, NULL);
            return;
        }
        data = cv_slice(data.data + len, data.len - len);
    }
    if (!out)
        return;
    cv_conn_flush(s->conn);
    if (cv_conn_is_congested(s->conn))
        cv_duplex_pause(s->duplex);
}

static void on_in_eof(void *arg)
{
    cv_stdio_stop(arg);
}

static void on_out_writable(void *arg)
{
    struct cv_stdio *s = arg;
    if (s->conn && !s->is_ending)
        cv_conn_resume(s->conn);
}

static void on_duplex_ended(void *arg, struct cv_status status)
{
    struct cv_stdio *s = arg;
    if (s->is_ending) {
        tell(s);
        return;
    }
    /* Nobody reads what we write: the client is gone, which is how it ends. */
    send_close(s, 1000);
    (void)status;
    cv_duplex_free(&s->duplex);
    end(s, cv_ok(), NULL);
}

static const struct cv_duplex_ops duplex_ops = {
    .on_data = on_in_data,
    .on_eof = on_in_eof,
    .on_writable = on_out_writable,
    .on_ended = on_duplex_ended,
};

/* ---- the WebSocket ---- */

static void take_event(struct cv_stdio *s, const struct cv_ws_event *event)
{
    switch (event->type) {
    case CV_WS_EVENT_DATA:
        if (!s->duplex || event->data.len == 0)
            break;
        if (!cv_is_ok(cv_duplex_write(s->duplex, event->data)))
            end(s, cv_status(CV_NO_MEMORY), NULL);
        else if (cv_duplex_is_congested(s->duplex))
            cv_conn_pause(s->conn);
        break;
    case CV_WS_EVENT_PING:
        (void)cv_ws_answer_ping(s->ws, cv_conn_out(s->conn));
        cv_conn_flush(s->conn);
        break;
    case CV_WS_EVENT_PONG:
        break;
    case CV_WS_EVENT_CLOSE: {
        struct cv_error error = {0};
        bool is_good = event->code == 1000 || event->code == 1001 || event->code == CV_WS_NO_CODE;
        send_close(s, 1000);
        (void)cv_fail(&error, CV_LINK_LOST, "the relay closed with code %u: %.*s", event->code,
                      (int)event->data.len, event->data.len ? (const char *)event->data.data : "");
        if (event->code == 4401)
            end(s, cv_status(CV_AUTH_EXPIRED), &error);
        else
            end(s, is_good ? cv_ok() : cv_status(CV_LINK_LOST), is_good ? NULL : &error);
        break;
    }
    }
}

static void on_conn_data(void *arg, uint8_t *data, size_t len)
{
    struct cv_stdio *s = arg;
    struct cv_ws_event event;
    struct cv_status status = cv_ok();
    if (s->is_ending)
        return;
    s->heard_ms = cv_worker_now_ms(s->worker);
    cv_ws_feed(s->ws, data, len);
    while (!s->is_ending) {
        status = cv_ws_next(s->ws, &event);
        if (!cv_is_ok(status))
            break;
        take_event(s, &event);
    }
    if (s->is_ending || status.id == CV_AGAIN)
        return;
    struct cv_error error = {0};
    (void)cv_fail(&error, status.id, "the relay broke the protocol: %s", cv_ws_failure_text(s->ws));
    send_close(s, cv_ws_failure_code(s->ws));
    end(s, status, &error);
}

static void on_conn_eof(void *arg)
{
    struct cv_error error = {0};
    (void)cv_fail(&error, CV_CONN_RESET, "the relay closed the connection");
    end(arg, cv_status(CV_CONN_RESET), &error);
}

static void on_conn_writable(void *arg)
{
    struct cv_stdio *s = arg;
    (void)cv_ws_answer_ping(s->ws, cv_conn_out(s->conn));
    if (s->duplex && !s->is_ending && !cv_timer_is_running(&s->closing))
        cv_duplex_resume(s->duplex);
}

static void on_conn_closed(void *arg, struct cv_status why, const struct cv_error *error)
{
    struct cv_stdio *s = arg;
    s->conn = NULL;
    end(s, cv_is_ok(why) ? cv_status(CV_CONN_RESET) : why, error);
}

static const struct cv_conn_ops conn_ops = {
    .on_data = on_conn_data,
    .on_eof = on_conn_eof,
    .on_writable = on_conn_writable,
    .on_closed = on_conn_closed,
};

/* A connection that has died without a word is found by its silence. */
static void on_ping(void *arg)
{
    struct cv_stdio *s = arg;
    const struct cv_agent_config *config = s->access->config;
    uint64_t silence_ms = cv_worker_now_ms(s->worker) - s->heard_ms;
    if (s->is_ending || !s->conn)
        return;
    /* A paused connection hears nothing because we do not listen. */
    if (!cv_conn_is_paused(s->conn) &&
        silence_ms >= config->ws_ping_interval_ms + config->ws_pong_timeout_ms) {
        struct cv_error error = {0};
        (void)cv_fail(&error, CV_CONN_TIMEOUT, "no sign of life from the relay");
        cv_conn_close(s->conn, cv_status(CV_CONN_TIMEOUT));
        end(s, cv_status(CV_CONN_TIMEOUT), &error);
        return;
    }
    if (silence_ms >= config->ws_ping_interval_ms &&
        cv_is_ok(cv_ws_send_ping(s->ws, cv_conn_out(s->conn), cv_slice(NULL, 0))))
        cv_conn_flush(s->conn);
    (void)cv_worker_timer_start(s->worker, &s->ping, config->ws_pong_timeout_ms);
}

/* ---- life ---- */

static struct cv_status open_all(struct cv_stdio *s, struct cv_error *error)
{
    struct cv_ws_options options;
    cv_ws_options_init(&options, CV_WS_CLIENT);
    options.max_frame_bytes = s->access->config->ws_max_frame_bytes;
    options.accepts_text = false;
    s->ws = cv_ws_new(&options);
    if (!s->ws)
        return cv_status(CV_NO_MEMORY);
    CV_RETURN_IF_ERROR(
        cv_duplex_new(s->worker, s->fd_in, s->fd_out, &duplex_ops, s, &s->duplex, error));
    s->heard_ms = cv_worker_now_ms(s->worker);
    return cv_worker_timer_start(s->worker, &s->ping, s->access->config->ws_pong_timeout_ms);
}

static struct cv_status dial(struct cv_stdio *s, struct cv_error *error);

/* A relay that cannot be reached or stops; no token or host key is asked elsewhere. */
static bool is_elsewhere_better(const struct cv_stdio *s, enum cv_status_id id)
{
    enum cv_category category = cv_status_category(id);
    return category != CV_CATEGORY_AUTHENTICATION && category != CV_CATEGORY_CONFIGURATION &&
           cv_fleet_has_good(&s->fleet, cv_worker_now_ms(s->worker));
}

static void on_dialed(void *arg, const struct cv_dialer_result *result)
{
    struct cv_stdio *s = arg;
    struct cv_error error = {0};
    s->dialer = NULL;
    if (!cv_is_ok(result->status)) {
        cv_fleet_failed(&s->fleet, s->server, cv_worker_now_ms(s->worker), result->retry_after_ms);
        if (!is_elsewhere_better(s, result->status.id) || !cv_is_ok(dial(s, &error)))
            end(s, result->status, result->error);
        return;
    }
    struct cv_status status = open_all(s, &error);
    if (!cv_is_ok(status)) {
        cv_dialer_discard(result->conn);
        cv_duplex_free(&s->duplex);
        end(s, status, &error);
        return;
    }
    s->conn = result->conn;
    cv_conn_set_marks(s->conn, OUT_LOW, OUT_HIGH, OUT_CAP);
    cv_conn_set_ops(s->conn, &conn_ops, s);
    cv_duplex_resume(s->duplex);
    /* It is ours to change: the engine unmasks in place, though a server's frames have no mask. */
    if (result->early.len)
        on_conn_data(s, (uint8_t *)(uintptr_t)result->early.data, result->early.len);
}

static struct cv_status dial(struct cv_stdio *s, struct cv_error *error)
{
    struct cv_dialer_request request = {.subprotocol = "ssh"};
    uint64_t random;
    cv_random(&random, sizeof random);
    s->server = cv_fleet_choose(&s->fleet, cv_worker_now_ms(s->worker), random);
    s->access = &s->accesses[s->server];
    return cv_dialer_start(s->worker, s->access, &request, on_dialed, s, &s->dialer, error);
}

struct cv_status cv_stdio_new(struct cv_worker *worker, const struct cv_stdio_options *options,
                              cv_stdio_on_ended *on_ended, void *arg, struct cv_stdio **out,
                              struct cv_error *error)
{
    struct cv_stdio *s = calloc(1, sizeof *s);
    struct cv_fleet_server *servers = calloc(options->access_count, sizeof *servers);
    *out = NULL;
    if (!s || !servers) {
        free(s);
        free(servers);
        return cv_fail(error, CV_NO_MEMORY, "out of memory");
    }
    *s = (struct cv_stdio){.worker = worker,
                           .accesses = options->accesses,
                           .fleet = {.servers = servers, .count = options->access_count},
                           .fd_in = options->fd_in,
                           .fd_out = options->fd_out,
                           .on_ended = on_ended,
                           .arg = arg};
    for (size_t i = 0; i < options->access_count; i++)
        servers[i] = (struct cv_fleet_server){.priority = options->accesses[i].priority,
                                              .weight = options->accesses[i].weight};
    cv_timer_init(&s->closing, on_close_overdue, s);
    cv_timer_init(&s->ping, on_ping, s);
    struct cv_status status = dial(s, error);
    if (!cv_is_ok(status))
        cv_stdio_free(&s);
    *out = s;
    return status;
}

void cv_stdio_free(struct cv_stdio **out)
{
    struct cv_stdio *s = *out;
    *out = NULL;
    if (!s)
        return;
    cv_worker_timer_stop(s->worker, &s->closing);
    cv_worker_timer_stop(s->worker, &s->ping);
    cv_dialer_cancel(&s->dialer);
    cv_duplex_free(&s->duplex);
    cv_ws_free(&s->ws);
    free(s->fleet.servers);
    free(s);
}
