/* SPDX-License-Identifier: MIT
 *
 * How consumers' connections come to be, and how all of them are told that the relay stops.
 */
#include "config/relay_config.h"
#include "net/announce.h"
#include "net/conn.h"
#include "proto/ssh/ssh.h"
#include "relay/consumer_private.h"
#include "relay/measure.h"
#include "relay/revocation.h"
#include "telemetry/log.h"
#include "transport/link.h"
#include "transport/link_settings.h"

#include <unistd.h>
#include <utlist.h>

/* What a stream's window may bring at once. */
static size_t window_of(const struct cv_relay *relay)
{
    const struct cv_relay_config *c = relay->config;
    return CV_LINK_WINDOW_MAX(c);
}

/* The answer buffer must hold it, in chunks of a byte at worst. */
static size_t out_cap(const struct cv_relay *relay)
{
    return window_of(relay) * 2 + CONSUMER_IN_MAX;
}

/* A connection from `peer` whose request is still to come; NULL without memory. */
static struct cv_consumer *new_from(struct cv_relay_worker *worker, const struct cv_addr *peer)
{
    struct cv_consumer *c = consumer_new(worker);
    if (!c)
        return NULL;
    c->peer = c->client = *peer;
    c->is_peer_trusted = source_is_trusted(worker->relay, peer);
    c->is_between = true;
    return c;
}

/* Takes `fd` and, without room, the consumer. */
static bool open_socket(struct cv_consumer *c, int fd, struct cv_tls_server *tls)
{
    const struct cv_relay *relay = c->worker->relay;
    struct cv_status status = cv_port_open_socket(&c->port, c->worker->worker, fd, tls,
                                                  relay->config->limits_handshake_timeout_ms,
                                                  out_cap(relay), &consumer_port_ops, c);
    if (!cv_is_ok(status)) {
        consumer_free(c);
        return false;
    }
    consumer_set_timer(c, relay->config->limits_header_timeout_ms);
    return true;
}

/* Without a word: before the TLS handshake there is none that could be read. */
static void turn_away(struct cv_consumer *c, int fd)
{
    char peer[CV_ADDR_TEXT_LEN];
    cv_log_limited(c->worker->relay->log, CV_LOG_WARN, "relay", "connection_refused",
                   "too many connections from this address, one was closed",
                   CV_F_STR("client", cv_addr_format_ip(&c->peer, peer)));
    consumer_free(c);
    (void)close(fd);
}

static void accept_from(struct cv_relay_worker *worker, int fd, const struct cv_addr *peer,
                        bool is_private, bool is_announced)
{
    struct cv_consumer *c = new_from(worker, peer);
    if (!c) {
        (void)close(fd);
        return;
    }
    c->is_private = is_private;
    c->is_announced = is_announced;
    if (!is_private && !c->is_peer_trusted) {
        c->is_half_open =
            cv_limits_connect(worker->relay->limits, peer, consumer_now_ms(c), &c->connection);
        if (!c->is_half_open) {
            measure_turned_away(worker);
            turn_away(c, fd);
            return;
        }
        c->is_half_open = c->connection != NULL;
    }
    (void)open_socket(c, fd, is_private ? NULL : worker->relay->tls);
}

/* A trusted proxy has said who is behind it, or that it asks itself. */
static void on_announced(void *arg, int fd, const struct cv_addr *client, struct cv_status status)
{
    struct cv_relay_worker *worker = arg;
    if (!cv_is_ok(status))
        cv_log_limited(
            worker->relay->log, CV_LOG_WARN, "relay", "announce_failed",
            "a connection from trusted_proxy began without a PROXY header, it was closed",
            CV_F_STATUS(status));
    else
        accept_from(worker, fd, client, false, true);
}

void cv_consumer_accept(struct cv_relay_worker *worker, int fd, const struct cv_addr *peer,
                        bool is_private)
{
    const struct cv_relay *relay = worker->relay;
    if (is_private || !relay->config->proxy_protocol || !source_is_trusted(relay, peer)) {
        accept_from(worker, fd, peer, is_private, false);
        return;
    }
    struct cv_status status = cv_announce_wait(
        worker->worker, fd, relay->config->limits_header_timeout_ms, on_announced, worker);
    if (!cv_is_ok(status))
        cv_log_limited(relay->log, CV_LOG_WARN, "relay", "announce_failed",
                       "a connection from trusted_proxy could not be taken", CV_F_STATUS(status));
}

void cv_consumer_accept_passed(struct cv_relay_worker *worker, int fd, const struct cv_addr *peer,
                               bool is_tls)
{
    struct cv_consumer *c = new_from(worker, peer);
    if (!c) {
        (void)close(fd);
        return;
    }
    c->is_passed = c->is_last = c->is_charged = true;
    if (open_socket(c, fd, NULL))
        c->port.is_secure = is_tls;
}

void cv_consumer_accept_back(struct cv_relay_worker *worker, struct cv_conn *conn,
                             const struct cv_addr *peer, struct cv_slice bytes)
{
    struct cv_consumer *c = new_from(worker, peer);
    if (!c || !cv_is_ok(cv_buf_append_slice(&c->in, bytes))) {
        if (c)
            consumer_free(c);
        cv_conn_disown(conn);
        cv_conn_close(conn, cv_status(CV_NO_MEMORY));
        return;
    }
    c->is_unpassable = c->is_charged = true;
    cv_port_adopt(&c->port, worker->worker, conn, out_cap(worker->relay), &consumer_port_ops, c);
    consumer_set_timer(c, worker->relay->config->limits_header_timeout_ms);
    consumer_process(c);
}

void cv_consumer_accept_stream(struct cv_relay_worker *worker, struct cv_stream *stream,
                               struct cv_identity *identity, const char *name)
{
    struct cv_consumer *c = consumer_new(worker);
    if (!c) {
        cv_stream_refuse(stream, CV_SSH_OPEN_RESOURCE_SHORTAGE, "out of memory");
        return;
    }
    c->owner = cv_identity_ref(identity);
    c->is_between = true;
    c->in.cap += window_of(worker->relay); /* comes whether or not we are paused */
    (void)cv_slice_to_str(cv_slice_str(name), c->tunnel, sizeof c->tunnel);
    cv_port_open_stream(&c->port, worker->worker, stream, out_cap(worker->relay),
                        &consumer_port_ops, c);
    consumer_set_timer(c, worker->relay->config->limits_keepalive_timeout_ms);
}

void cv_consumer_drain_all(struct cv_relay_worker *worker)
{
    struct cv_consumer *c, *next;
    DL_FOREACH_SAFE(worker->consumers, c, next)
    {
        c->is_last = true;
        /* Who has just connected is about to ask, and would not expect to be turned away. */
        if (c->state.state == CONSUMER_READING && cv_http_parser_is_idle(c->parser) && c->has_asked)
            consumer_request_done(c, false);
    }
}

void cv_consumer_check_revoked_all(struct cv_relay_worker *worker)
{
    struct cv_consumer *c, *next;
    DL_FOREACH_SAFE(worker->consumers, c, next)
    {
        bool is_busy = c->state.state == CONSUMER_EXCHANGE || c->state.state == CONSUMER_TUNNEL;
        if (is_busy && cv_revocations_cover(worker->relay->revocations, c->x.identity))
            exchange_fail(c, CV_AUTH_REVOKED, CV_HOP_RELAY, NULL);
    }
}

void cv_consumer_close_all(struct cv_relay_worker *worker)
{
    struct cv_consumer *c, *next;
    DL_FOREACH_SAFE(worker->consumers, c, next)
    {
        if (c->state.state == CONSUMER_EXCHANGE)
            exchange_fail(c, CV_SHUTTING_DOWN, CV_HOP_RELAY, NULL);
        else if (c->is_passed && !c->is_taken && c->state.state == CONSUMER_READING)
            consumer_abort(c); /* it goes back to who passed it on */
        else if (c->state.state != CONSUMER_ENDING && c->state.state != CONSUMER_MOVING)
            consumer_request_done(c, false);
    }
}
