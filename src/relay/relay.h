/* SPDX-License-Identifier: MIT
 *
 * The relay: configuration, keys, workers, listeners, start-up and shutdown. All state of the
 * process hangs off struct cv_relay; what belongs to one thread off struct cv_relay_worker.
 */
#ifndef CV_RELAY_RELAY_H
#define CV_RELAY_RELAY_H

#include "base/status.h"
#include "base/timers.h"

#include <stdatomic.h>

struct cv_auth_policy;
struct cv_consumer;
struct cv_keysource;
struct cv_listener;
struct cv_log;
struct cv_registry;
struct cv_relay_config;
struct cv_session;
struct cv_ssh_host_key;
struct cv_tls_server;
struct cv_token_cache;
struct cv_worker;

enum { CV_RELAY_WORKERS_MAX = 256 };

struct cv_relay {
    const struct cv_relay_config *config;
    struct cv_log *log;
    struct cv_registry *registry;
    struct cv_keysource *keys;
    const struct cv_auth_policy *auth_policy;
    const struct cv_ssh_host_key *host_key;
    struct cv_tls_server *tls; /* NULL: plain */
    struct cv_relay_worker *workers;
    unsigned worker_count;
    atomic_bool is_draining; /* no new requests on kept connections; readyz says 503 */
    char instance[17];       /* random hex, for logs and X-Request-Id */
};

struct cv_relay_worker {
    struct cv_relay *relay;
    struct cv_worker *worker;
    unsigned index;
    struct cv_token_cache *tokens;
    struct cv_consumer *consumers; /* utlist DL: connections of consumers on this worker */
    size_t consumer_count;
    struct cv_session *sessions; /* utlist DL: links on this worker */
    size_t session_count;
    uint64_t next_request; /* for request ids: instance, worker, number */
    void *listeners;       /* owned by relay.c */
};

/* Starts listening and runs until a signal (or cv_relay_stop) ends it; blocks. `config` and `log`
 * are borrowed. *error says what went wrong at start-up. */
struct cv_status cv_relay_run(const struct cv_relay_config *config, struct cv_log *log,
                              struct cv_error *error);

/* For programs that run a relay inside (culvert demo, tests): new starts the workers in threads and
 * returns when the relay accepts connections; port is what it listens on. stop drains as SIGTERM
 * does and waits. */
struct cv_status cv_relay_new(const struct cv_relay_config *config, struct cv_log *log,
                              struct cv_relay **relay, struct cv_error *error);
unsigned cv_relay_port(const struct cv_relay *relay);
void cv_relay_stop_and_free(struct cv_relay **relay);

#endif
