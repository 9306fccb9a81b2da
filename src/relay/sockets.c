/* SPDX-License-Identifier: MIT
 *
 * Happy path: cv_relay_open_sockets: for each address the sockets that were handed over, else one
 * for each worker → on_accept: a consumer → cv_relay_close_sockets. Ways it fails: an address that
 * is malformed or in use (the start fails); too many connections (each one more is closed).
 */
#include "relay/sockets.h"

#include "config/relay_config.h"
#include "net/addr.h"
#include "net/listener.h"
#include "relay/consumer.h"
#include "relay/relay.h"
#include "relay/takeover.h"
#include "telemetry/log.h"

#include <stdlib.h>
#include <unistd.h>

enum {
    RELAY_BACKLOG = 1024,
    /* A peer that vanished is noticed where no timer runs: behind an upgrade. */
    RELAY_KEEPALIVE_S = 60,
    RELAY_PROBE_S = 15,
    RELAY_PROBES = 4,
};

unsigned cv_relay_connections(const struct cv_relay *relay)
{
    struct cv_relay_counts counts = cv_relay_count(relay);
    return counts.consumers + counts.links;
}

static void on_accept(void *arg, int fd, const struct cv_addr *peer)
{
    struct cv_relay_worker *worker = arg;
    struct cv_relay *relay = worker->relay;
    if (cv_relay_connections(relay) >= relay->config->limits_max_connections) {
        cv_log_limited(relay->log, CV_LOG_WARN, "relay", "connections_full",
                       "limits.max_connections is reached, a connection was closed");
        (void)close(fd);
        return;
    }
    cv_consumer_accept(worker, fd, peer, false);
}

static void on_accept_error(void *arg, struct cv_status status, const struct cv_error *error)
{
    struct cv_relay_worker *worker = arg;
    cv_log_limited(worker->relay->log, CV_LOG_WARN, "relay", "accept_failed",
                   "connections cannot be accepted for a moment", CV_F_STATUS(status),
                   CV_F_STR("detail", error ? error->detail : NULL));
}

/* Probes must get through when consumers fill all places. */
static void on_accept_private(void *arg, int fd, const struct cv_addr *peer)
{
    cv_consumer_accept(arg, fd, peer, true);
}

static const struct cv_listener_ops listener_ops = {.on_accept = on_accept,
                                                    .on_error = on_accept_error};
static const struct cv_listener_ops private_ops = {.on_accept = on_accept_private,
                                                   .on_error = on_accept_error};

static struct cv_relay_socket *add_socket(struct cv_relay *relay, struct cv_relay_worker *worker)
{
    struct cv_relay_socket *more =
        realloc(relay->sockets, (relay->socket_count + 1) * sizeof *relay->sockets);
    if (!more)
        return NULL;
    relay->sockets = more;
    more[relay->socket_count] = (struct cv_relay_socket){.worker = worker, .number = -1};
    return &more[relay->socket_count++];
}

/* Takes `fd`, also on failure; -1: a new socket is bound to `spec`. */
static struct cv_status open_socket(struct cv_relay *relay, struct cv_relay_worker *worker,
                                    const struct cv_listen_spec *spec, int fd, bool is_private,
                                    struct cv_error *error)
{
    const struct cv_listener_ops *ops = is_private ? &private_ops : &listener_ops;
    struct cv_relay_socket *entry = add_socket(relay, worker);
    if (!entry) {
        if (fd >= 0)
            (void)close(fd);
        return cv_fail(error, CV_NO_MEMORY, "no memory for a listener");
    }
    entry->is_private = is_private;
    CV_RETURN_IF_ERROR(
        fd >= 0 ? cv_listener_adopt(worker->worker, fd, ops, worker, &entry->listener, error)
                : cv_listener_new(worker->worker, spec, RELAY_BACKLOG, ops, worker,
                                  &entry->listener, error));
    cv_listener_set_keepalive(entry->listener, RELAY_KEEPALIVE_S, RELAY_PROBE_S, RELAY_PROBES);
    entry->fd = cv_listener_fd(entry->listener);
    return cv_ok();
}

/* Sockets that were handed over go round the workers. Of more workers than sockets some share one:
 * another socket in the group would get connections that a successor with fewer workers cannot be
 * trusted to look for. */
static struct cv_status adopt_sockets(struct cv_relay *relay, const struct cv_listen_spec *spec,
                                      unsigned worker_count, bool is_private,
                                      struct cv_error *error)
{
    size_t first = relay->socket_count, count = 0;
    for (int fd; (fd = cv_takeover_take(relay->takeover, spec)) >= 0; count++)
        CV_RETURN_IF_ERROR(
            open_socket(relay, &relay->workers[count % worker_count], spec, fd, is_private, error));
    for (size_t w = count; count && w < worker_count; w++) {
        int copy = dup(relay->sockets[first + w % count].fd);
        if (copy < 0)
            return cv_fail(error, CV_NO_RESOURCES, "no descriptor for a listener");
        CV_RETURN_IF_ERROR(open_socket(relay, &relay->workers[w], spec, copy, is_private, error));
    }
    for (size_t i = first; i < first + count; i++)
        relay->sockets[i].number = 0; /* numbered below */
    return cv_ok();
}

static struct cv_status open_address(struct cv_relay *relay, struct cv_listen_spec *spec,
                                     unsigned worker_count, bool is_private, struct cv_error *error)
{
    size_t first = relay->socket_count;
    CV_RETURN_IF_ERROR(adopt_sockets(relay, spec, worker_count, is_private, error));
    for (unsigned w = 0; relay->socket_count < first + worker_count; w++) {
        CV_RETURN_IF_ERROR(open_socket(relay, &relay->workers[w], spec, -1, is_private, error));
        relay->sockets[relay->socket_count - 1].number = 0;
        /* Port 0 is chosen once. */
        *spec = *cv_listener_spec(relay->sockets[relay->socket_count - 1].listener);
    }
    *spec = *cv_listener_spec(relay->sockets[first].listener);
    return cv_ok();
}

static struct cv_status open_private_listener(struct cv_relay *relay, struct cv_error *error)
{
    struct cv_listen_spec spec;
    if (!relay->config->metrics_listen)
        return cv_ok();
    CV_RETURN_IF_ERROR(cv_listen_spec_parse(relay->config->metrics_listen, &spec, error));
    return open_address(relay, &spec, 1, true, error);
}

struct cv_status cv_relay_open_sockets(struct cv_relay *relay, struct cv_error *error)
{
    const struct cv_strings *addresses = &relay->config->listen;
    if (addresses->count > CV_RELAY_LISTENERS_MAX)
        return cv_fail(error, CV_CONFIG, "listen: at most %d addresses", CV_RELAY_LISTENERS_MAX);
    for (size_t i = 0; i < addresses->count; i++) {
        struct cv_listen_spec spec;
        CV_RETURN_IF_ERROR(cv_listen_spec_parse(addresses->items[i], &spec, error));
        if (relay->is_dev && !cv_addr_is_loopback(&spec.addr))
            return cv_fail(error, CV_CONFIG, "--dev listens on loopback only, not on %s",
                           addresses->items[i]);
        CV_RETURN_IF_ERROR(open_address(relay, &spec, relay->worker_count, false, error));
        char text[CV_ADDR_TEXT_LEN];
        cv_log(relay->log, CV_LOG_INFO, "relay", "listening", "accepting connections",
               CV_F_STR("address", cv_addr_format(&spec.addr, text)),
               CV_F_STR("scheme", relay->tls ? "https" : "http"),
               CV_F_UINT("workers", relay->worker_count));
        if (i == 0)
            relay->port = cv_addr_port(&spec.addr);
    }
    CV_RETURN_IF_ERROR(open_private_listener(relay, error));
    for (size_t i = 0, number = 0; i < relay->socket_count; i++)
        if (relay->sockets[i].number >= 0)
            relay->sockets[i].number = (int)number++;
    return cv_ok();
}

/* What a successor listens on as well is left to it, with all that waits in the queue. */
void cv_relay_close_sockets(struct cv_relay_worker *worker, bool is_private)
{
    struct cv_relay *relay = worker->relay;
    bool is_handed_over = atomic_load(&relay->is_handed_over);
    if (cv_worker_is_stopping(worker->worker))
        return; /* a drain that was told too late: the worker closes, or has closed, them itself */
    for (size_t i = 0; i < relay->socket_count; i++) {
        struct cv_relay_socket *socket = &relay->sockets[i];
        if (socket->worker != worker || socket->is_private != is_private)
            continue;
        if (is_handed_over && !socket->is_returned)
            cv_listener_leave(&socket->listener);
        else
            cv_listener_close(&socket->listener);
    }
}
