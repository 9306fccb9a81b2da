/* SPDX-License-Identifier: MIT
 *
 * Happy path: cv_dialer_start (→ token_command → on_command) → on_dialed → request written →
 * on_data: 101 → finish. Ways it fails: the dial (name, TCP, proxy, TLS); a refusal; the connection
 * ends; time is over; cancelled.
 */
#include "agent/dialer.h"

#include "agent/access.h"
#include "agent/link_spans.h"
#include "agent/upgrade.h"
#include "base/digest.h"
#include "config/agent_config.h"
#include "net/command.h"
#include "net/conn.h"
#include "net/dial.h"
#include "net/worker.h"

struct cv_dialer {
    struct cv_worker *worker;
    const struct cv_access *access;
    const char *subprotocol;
    struct cv_link_claim claim;
    bool has_claim;
    char traceparent[CV_TRACEPARENT_LEN + 1]; /* "": none */
    uint64_t timeout_ms;
    struct cv_addr hint;
    bool has_hint;
    unsigned rounds;
    cv_dialer_on_done *on_done;
    void *arg;
    struct cv_command *command; /* token_command, while it runs */
    struct cv_dial *dial;
    struct cv_conn *conn;
    struct cv_upgrade upgrade;
    bool has_upgrade;
    struct cv_proxy proxy;
    struct cv_timer timer; /* the upgrade takes too long */
    uint64_t deadline_ms;
    struct cv_buf token;
};

void cv_dialer_discard(struct cv_conn *conn)
{
    cv_conn_disown(conn);
    cv_conn_close(conn, cv_status(CV_CANCELLED));
}

static void dialer_free(struct cv_dialer *dialer)
{
    cv_worker_timer_stop(dialer->worker, &dialer->timer);
    cv_dial_cancel(&dialer->dial);
    cv_command_cancel(&dialer->command);
    if (dialer->has_upgrade)
        cv_upgrade_done(&dialer->upgrade);
    if (dialer->conn)
        cv_dialer_discard(dialer->conn);
    cv_buf_wipe(&dialer->token);
    cv_wipe(&dialer->proxy, sizeof dialer->proxy);
    free(dialer);
}

static void finish(struct cv_dialer *dialer, struct cv_status status, const struct cv_error *error,
                   struct cv_slice early)
{
    struct cv_error none = {.id = status.id};
    struct cv_dialer_result result = {
        .status = status,
        .error = error ? error : &none,
        .early = early,
        .retry_after_ms = dialer->has_upgrade ? dialer->upgrade.retry_after_ms : 0,
        .http_status = dialer->has_upgrade ? dialer->upgrade.http_status : 0,
        .date_s = dialer->has_upgrade ? dialer->upgrade.date_s : 0,
    };
    cv_dialer_on_done *on_done = dialer->on_done;
    void *arg = dialer->arg;
    if (!result.error->detail[0])
        (void)cv_fail(&none, status.id, "%s", cv_status_text(status.id));
    struct cv_upgrade_answer answer = dialer->upgrade.answer;
    if (cv_is_ok(status)) {
        result.conn = dialer->conn;
        result.answer = &answer;
        dialer->conn = NULL;
    } else if (cv_status_category(status.id) == CV_CATEGORY_AUTHENTICATION) {
        cv_access_forget_token(dialer->access);
    }
    /* `early` points into bytes that the connection handed out for this turn. */
    dialer_free(dialer);
    on_done(arg, &result);
}

/* ---- the upgrade ---- */

static void on_data(void *arg, uint8_t *data, size_t len)
{
    struct cv_dialer *dialer = arg;
    struct cv_error error = {0};
    struct cv_slice early;
    struct cv_status status = cv_upgrade_feed(&dialer->upgrade, data, len, &early, &error);
    if (status.id != CV_AGAIN)
        finish(dialer, status, &error, early);
}

static void on_eof(void *arg)
{
    struct cv_dialer *dialer = arg;
    struct cv_error error = {0};
    struct cv_status status = cv_upgrade_eof(&dialer->upgrade, &error);
    finish(dialer, status, &error, cv_slice(NULL, 0));
}

static void on_closed(void *arg, struct cv_status why, const struct cv_error *error)
{
    struct cv_dialer *dialer = arg;
    dialer->conn = NULL;
    finish(dialer, cv_is_ok(why) ? cv_status(CV_CONN_RESET) : why, error, cv_slice(NULL, 0));
}

static const struct cv_conn_ops conn_ops = {
    .on_data = on_data, .on_eof = on_eof, .on_closed = on_closed};

static void on_timeout(void *arg)
{
    struct cv_error error = {0};
    struct cv_status status =
        cv_fail(&error, CV_CONN_TIMEOUT, "connected, but the relay did not answer the upgrade");
    finish(arg, status, &error, cv_slice(NULL, 0));
}

static struct cv_status send_request(struct cv_dialer *dialer)
{
    struct cv_upgrade_request request = {
        .relay = dialer->access->relay,
        .path = dialer->access->path,
        .subprotocol = dialer->subprotocol,
        .agent_id = dialer->access->agent_id,
        .token = cv_buf_slice(&dialer->token),
        .claim = dialer->has_claim ? &dialer->claim : NULL,
        .traceparent = dialer->traceparent[0] ? dialer->traceparent : NULL,
    };
    dialer->has_upgrade = true;
    CV_RETURN_IF_ERROR(cv_upgrade_begin(&dialer->upgrade, &request, cv_conn_out(dialer->conn)));
    cv_conn_flush(dialer->conn);
    uint64_t now_ms = cv_worker_now_ms(dialer->worker);
    return cv_worker_timer_start(dialer->worker, &dialer->timer,
                                 dialer->deadline_ms > now_ms ? dialer->deadline_ms - now_ms : 1);
}

static void on_dialed(void *arg, const struct cv_dial_result *result)
{
    struct cv_dialer *dialer = arg;
    dialer->dial = NULL;
    if (!cv_is_ok(result->status)) {
        finish(dialer, result->status, result->error, cv_slice(NULL, 0));
        return;
    }
    dialer->conn = result->conn;
    cv_conn_set_ops(dialer->conn, &conn_ops, dialer);
    struct cv_status status = send_request(dialer);
    if (!cv_is_ok(status))
        finish(dialer, status, NULL, cv_slice(NULL, 0));
}

/* ---- life ---- */

static struct cv_status dial(struct cv_dialer *dialer, struct cv_error *error)
{
    const struct cv_access *access = dialer->access;
    cv_access_note_dialed(access, cv_buf_slice(&dialer->token));
    struct cv_proxy_settings settings = {.url = access->config->proxy};
    CV_RETURN_IF_ERROR(cv_proxy_choose(&settings, access->tls != NULL, access->host, access->port,
                                       &dialer->proxy, error));
    uint64_t timeout_ms =
        dialer->timeout_ms ? dialer->timeout_ms : access->config->connect_relay_timeout_ms;
    dialer->deadline_ms = cv_worker_now_ms(dialer->worker) + timeout_ms;
    struct cv_dial_options options = {
        .host = access->host,
        .port = access->port,
        .tls = access->tls,
        .proxy = &dialer->proxy,
        .timeout_ms = timeout_ms,
        .rounds = dialer->rounds,
        .hint = dialer->has_hint ? &dialer->hint : NULL,
    };
    return cv_dial_start(dialer->worker, &options, on_dialed, dialer, &dialer->dial, error);
}

static void on_command(void *arg, const struct cv_command_result *result)
{
    struct cv_dialer *dialer = arg;
    struct cv_error error = {0};
    struct cv_status status = cv_ok();
    dialer->command = NULL;
    if (!cv_is_ok(result->status))
        status = cv_fail(&error, CV_AUTH_MISSING, "token_command: %.200s", result->error->detail);
    if (cv_is_ok(status))
        status = cv_access_keep_token(dialer->access, result->output, &error);
    if (cv_is_ok(status))
        status = cv_access_token(dialer->access, &dialer->token, &error);
    if (cv_is_ok(status))
        status = dial(dialer, &error);
    if (!cv_is_ok(status))
        finish(dialer, status, &error, cv_slice(NULL, 0));
}

static struct cv_status prepare(struct cv_dialer *dialer, struct cv_error *error)
{
    const struct cv_access *access = dialer->access;
    struct cv_status status = cv_access_token(access, &dialer->token, error);
    if (status.id == CV_AGAIN)
        return cv_command_start(dialer->worker, access->config->token_command,
                                CV_ACCESS_TOKEN_MAX + 64, CV_ACCESS_COMMAND_MS, on_command, dialer,
                                &dialer->command, error);
    return cv_is_ok(status) ? dial(dialer, error) : status;
}

struct cv_status cv_dialer_start(struct cv_worker *worker, const struct cv_access *access,
                                 const struct cv_dialer_request *request,
                                 cv_dialer_on_done *on_done, void *arg, struct cv_dialer **out,
                                 struct cv_error *error)
{
    struct cv_dialer *dialer = calloc(1, sizeof *dialer);
    *out = NULL;
    if (!dialer)
        return cv_fail(error, CV_NO_MEMORY, "out of memory");
    *dialer = (struct cv_dialer){.worker = worker,
                                 .access = access,
                                 .subprotocol = request->subprotocol,
                                 .has_claim = request->claim != NULL,
                                 .timeout_ms = request->timeout_ms,
                                 .rounds = request->rounds,
                                 .on_done = on_done,
                                 .arg = arg};
    if (request->claim)
        dialer->claim = *request->claim;
    if (request->span)
        (void)cv_link_span_traceparent(request->span, dialer->traceparent);
    dialer->has_hint = request->hint != NULL;
    if (request->hint)
        dialer->hint = *request->hint;
    cv_timer_init(&dialer->timer, on_timeout, dialer);
    cv_buf_init(&dialer->token, CV_ACCESS_TOKEN_MAX);
    struct cv_status status = prepare(dialer, error);
    if (!cv_is_ok(status)) {
        dialer_free(dialer);
        return status;
    }
    *out = dialer;
    return cv_ok();
}

void cv_dialer_cancel(struct cv_dialer **dialer)
{
    if (*dialer)
        dialer_free(*dialer);
    *dialer = NULL;
}
