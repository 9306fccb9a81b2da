/* SPDX-License-Identifier: MIT
 *
 * Requests that a relay which has taken over passes to the one before it, because what they ask for
 * (a tunnel whose agent has not moved yet, a link to resume) is still there. The TLS of a
 * connection cannot leave the process, so its bytes go through a pair of sockets.
 *
 * Happy path: pass_to_predecessor → one end goes to the predecessor, the request's bytes into the
 * other → "+": it is served there → bytes both ways, each side read only as fast as the other
 * takes them → either side ends. Ways it fails: the predecessor ends the pair without a "+" (it is
 * not there either, or has just drained: the request is looked at again here, where it may have
 * arrived by now); the consumer goes away.
 */
#include "config/relay_config.h"
#include "net/conn.h"
#include "net/handover.h"
#include "relay/consumer_private.h"
#include "relay/takeover.h"
#include "telemetry/log.h"

#include <stdlib.h>
#include <unistd.h>

enum {
    PASS_TOOK = '+',
    PASS_LINGER_MS = 2000,
    /* What is read of the connection in one turn may come on top of what waits already. */
    PASS_HELD_MAX = 4 * CONSUMER_IN_MAX,
};

struct pass {
    struct cv_relay_worker *worker;
    struct cv_conn *outer, *inner; /* to the consumer, to the predecessor; NULL: closed */
    struct cv_addr peer;
    struct cv_buf request; /* as long as it is not taken */
    bool is_taken;
};

void pass_take(struct cv_consumer *c)
{
    if (!c->is_passed || c->is_taken)
        return;
    c->is_taken = true;
    if (cv_is_ok(cv_buf_append_byte(cv_port_out(&c->port), PASS_TOOK)))
        cv_port_flush(&c->port);
}

/* ---- end ---- */

static void forget_if_over(struct pass *pass)
{
    if (pass->inner || pass->outer)
        return;
    (void)atomic_fetch_sub_explicit(&pass->worker->busy, 1, memory_order_relaxed);
    cv_buf_done(&pass->request);
    free(pass);
}

/* It is not served there. */
static void give_back(struct pass *pass)
{
    struct cv_conn *outer = pass->outer;
    pass->outer = NULL;
    if (outer && cv_worker_is_stopping(pass->worker->worker)) {
        cv_conn_disown(outer);
        cv_conn_close(outer, cv_status(CV_SHUTTING_DOWN));
    } else if (outer) {
        cv_consumer_accept_back(pass->worker, outer, &pass->peer, cv_buf_slice(&pass->request));
    }
    if (pass->inner)
        cv_conn_close(pass->inner, cv_ok());
}

static void end_outer(struct pass *pass, struct cv_status why)
{
    if (!pass->outer)
        return;
    if (cv_is_ok(why))
        cv_conn_close_patiently(
            pass->outer, pass->worker->relay->config->limits_body_idle_timeout_ms, PASS_LINGER_MS);
    else
        cv_conn_reset(pass->outer);
}

/* ---- the predecessor's side ---- */

static void forward(struct cv_conn *from, struct cv_conn *to, const uint8_t *data, size_t len)
{
    if (!to)
        return;
    struct cv_status status = cv_conn_write(to, data, len);
    if (!cv_is_ok(status))
        cv_conn_reset(to);
    else if (cv_conn_is_congested(to))
        cv_conn_pause(from);
}

static void on_inner_data(void *arg, uint8_t *data, size_t len)
{
    struct pass *pass = arg;
    if (!pass->is_taken && data[0] == PASS_TOOK) {
        pass->is_taken = true;
        cv_buf_done(&pass->request);
        if (pass->outer)
            cv_conn_resume(pass->outer);
        data++;
        len--;
    }
    if (len && pass->is_taken)
        forward(pass->inner, pass->outer, data, len);
}

static void on_inner_eof(void *arg)
{
    struct pass *pass = arg;
    if (!pass->is_taken) {
        give_back(pass);
        return;
    }
    end_outer(pass, cv_ok());
    cv_conn_close(pass->inner, cv_ok());
}

static void on_inner_writable(void *arg)
{
    struct pass *pass = arg;
    if (pass->outer && pass->is_taken)
        cv_conn_resume(pass->outer);
}

static void on_inner_closed(void *arg, struct cv_status why, const struct cv_error *error)
{
    struct pass *pass = arg;
    (void)error;
    pass->inner = NULL;
    if (!pass->is_taken)
        give_back(pass);
    else
        end_outer(pass, why);
    forget_if_over(pass);
}

/* ---- the consumer's side ---- */

static void on_outer_data(void *arg, uint8_t *data, size_t len)
{
    struct pass *pass = arg;
    if (pass->is_taken)
        forward(pass->outer, pass->inner, data, len);
    else if (!cv_is_ok(cv_buf_append(&pass->request, data, len)) ||
             !cv_is_ok(cv_conn_write(pass->inner, data, len)))
        cv_conn_reset(pass->outer);
}

static void on_outer_eof(void *arg)
{
    struct pass *pass = arg;
    if (pass->inner)
        cv_conn_shutdown_write(pass->inner);
}

/* It goes away while it is not read from. */
static void on_outer_hangup(void *arg)
{
    struct pass *pass = arg;
    if (!pass->is_taken)
        cv_conn_close(pass->outer, cv_ok());
}

static void on_outer_writable(void *arg)
{
    struct pass *pass = arg;
    if (pass->inner)
        cv_conn_resume(pass->inner);
}

static void on_outer_closed(void *arg, struct cv_status why, const struct cv_error *error)
{
    struct pass *pass = arg;
    (void)why;
    (void)error;
    pass->outer = NULL;
    if (pass->inner)
        cv_conn_close(pass->inner, cv_ok());
    forget_if_over(pass);
}

static const struct cv_conn_ops inner_ops = {
    .on_data = on_inner_data,
    .on_eof = on_inner_eof,
    .on_writable = on_inner_writable,
    .on_closed = on_inner_closed,
};
static const struct cv_conn_ops outer_ops = {
    .on_data = on_outer_data,
    .on_eof = on_outer_eof,
    .on_hangup = on_outer_hangup,
    .on_writable = on_outer_writable,
    .on_closed = on_outer_closed,
};

/* ---- begin ---- */

/* The request from its first byte, with all that has come behind its head. */
static struct cv_status write_request(const struct cv_consumer *c, struct cv_buf *out)
{
    CV_RETURN_IF_ERROR(cv_buf_append_slice(out, cv_http_parser_head_bytes(c->parser)));
    CV_RETURN_IF_ERROR(cv_buf_append_slice(out, cv_http_parser_rest(c->parser)));
    return cv_buf_append_slice(out, cv_buf_slice(&c->in));
}

/* A pair of sockets, one of which the predecessor has by now. */
static struct cv_status open_inner(struct pass *pass, const struct cv_consumer *c)
{
    struct cv_error error;
    int fds[2];
    CV_RETURN_IF_ERROR(cv_handover_pair(fds));
    struct cv_status status =
        cv_takeover_pass(c->worker->relay->takeover, fds[1], &c->peer, cv_port_is_tls(&c->port));
    (void)close(fds[1]);
    if (!cv_is_ok(status)) {
        (void)close(fds[0]);
        return status;
    }
    CV_RETURN_IF_ERROR(
        cv_conn_new(c->worker->worker, fds[0], NULL, &inner_ops, pass, &pass->inner, &error));
    struct cv_slice request = cv_buf_slice(&pass->request);
    cv_conn_set_marks(pass->inner, 64 * 1024, 256 * 1024, PASS_HELD_MAX);
    status = cv_conn_write(pass->inner, request.data, request.len);
    if (cv_is_ok(status))
        return status;
    cv_conn_disown(pass->inner);
    cv_conn_close(pass->inner, status);
    return status;
}

bool pass_to_predecessor(struct cv_consumer *c)
{
    if (c->is_passed || c->is_unpassable || c->is_eof || !cv_port_is_socket(&c->port) ||
        !cv_takeover_has_predecessor(c->worker->relay->takeover))
        return false;
    struct pass *pass = calloc(1, sizeof *pass);
    if (!pass)
        return false;
    *pass = (struct pass){.worker = c->worker, .peer = c->peer};
    cv_buf_init(&pass->request, PASS_HELD_MAX);
    struct cv_status status = write_request(c, &pass->request);
    if (cv_is_ok(status))
        status = open_inner(pass, c);
    if (!cv_is_ok(status)) {
        cv_buf_done(&pass->request);
        free(pass);
        return false;
    }
    cv_log(c->worker->relay->log, CV_LOG_DEBUG, "http", "passed_on",
           "the relay before this one is asked", CV_F_STR("correlationId", c->x.id));
    (void)cv_http_parser_take_rest(c->parser);
    (void)atomic_fetch_add_explicit(&c->worker->busy, 1, memory_order_relaxed);
    pass->outer = cv_port_take_conn(&c->port);
    cv_conn_set_ops(pass->outer, &outer_ops, pass);
    cv_conn_pause(pass->outer);
    tracing_forget(c);
    consumer_gone(c);
    return true;
}
