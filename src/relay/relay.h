/* SPDX-License-Identifier: MIT
 *
 * The relay: configuration, keys, workers, listeners, start-up and shutdown. All state of the
 * process hangs off struct cv_relay; what belongs to one thread off struct cv_relay_worker.
 */
#ifndef CV_RELAY_RELAY_H
#define CV_RELAY_RELAY_H

#include "base/status.h"
#include "base/timers.h"
#include "net/worker.h"

#include <stdatomic.h>

struct cv_audit;
struct cv_audit_queue;
struct cv_auth_policy;
struct cv_cidr;
struct cv_consumer;
struct cv_fetch;
struct cv_history;
struct cv_keysource;
struct cv_limits;
struct cv_listener;
struct cv_log;
struct cv_metrics;
struct cv_metrics_block;
struct cv_problems;
struct cv_registry;
struct cv_relay_config;
struct cv_relay_tracing;
struct cv_reporter;
struct cv_revocations;
struct cv_session;
struct cv_ssh_host_key;
struct cv_takeover;
struct cv_tls_server;
struct cv_token_cache;
struct cv_usage_table;
struct cv_trace_queue;

enum { CV_RELAY_WORKERS_MAX = 256, CV_RELAY_LISTENERS_MAX = 16, CV_RELAY_RANDOM_BYTES = 1536 };

/* A listening socket on one of the workers. */
struct cv_relay_socket {
    struct cv_listener *listener; /* only its worker's thread changes this one */
    struct cv_relay_worker *worker;
    int fd;           /* the listener's, as long as that lives */
    int number;       /* what a successor counts it as; -1: shares the socket of another worker */
    bool is_private;  /* metrics.listen: stays until the end of the drain */
    bool is_returned; /* first worker: the successor does not listen there */
};

struct cv_relay {
    /* The API or SIGHUP may put another one in its place; the one before lives until the next
     * change has been seen by every worker, so that a pointer holds for the turn in which it was
     * read. */
    _Atomic(const struct cv_relay_config *) config;
    struct cv_relay_config *patched[2]; /* ours: in use, and the one before */
    struct cv_status (*load_config)(void *arg, struct cv_relay_config **config,
                                    struct cv_problems *problems);
    void *load_arg;
    atomic_bool is_config_changing;
    atomic_uint config_unseen; /* workers that have not passed a turn since */
    struct cv_log *log;
    struct cv_audit *audit;           /* NULL: none is kept */
    struct cv_audit_queue *record;    /* of the main thread */
    struct cv_relay_tracing *tracing; /* NULL: no spans are sent */
    struct cv_registry *registry;
    struct cv_limits *limits;
    struct cv_ration *growth;                                   /* of all users */
    struct cv_metrics *metrics;                                 /* NULL: nothing is counted */
    atomic_uint_least64_t breaker_openings, breaker_rejections; /* since the start */
    struct cv_revocations *revocations;
    struct cv_history *history;
    int64_t usage_minute;         /* first worker: when all were asked for their numbers last */
    struct cv_reporter *reporter; /* NULL: nobody is told of incidents */
    struct cv_keysource *keys;
    struct cv_auth_policy *auth_policy;
    struct cv_ssh_host_key *host_key;
    char *ciphers;             /* SSH names with commas, from the configuration */
    struct cv_tls_server *tls; /* NULL: plain */
    struct cv_cidr *trusted;   /* proxies in front */
    size_t trusted_count;
    bool is_dev;
    uint64_t started_s; /* Unix time */
    struct cv_relay_worker *workers;
    unsigned worker_count;
    unsigned port;
    struct cv_relay_socket *sockets; /* does not change while the workers run */
    size_t socket_count;
    struct cv_takeover *takeover;
    const char *notify_socket;
    struct cv_recall *recall;  /* names from before the start; or NULL */
    unsigned recall_additions; /* first worker: of the registry, when they were written last */
    uint64_t recall_saved_ms, recall_due_ms;
    /* How many tunnels are in which state (flow/pulse.h), as of counted_ms. */
    atomic_uint health_counts[5];
    atomic_uint_least64_t counted_ms;
    uint64_t agents_due_ms;     /* until then requests wait for agents that come back */
    uint64_t agent_return_ms;   /* so long bare streams wait for one at any time */
    uint64_t notice_ms;         /* agents are told to be elsewhere within */
    atomic_bool is_draining;    /* answers close their connection; readyz says 503 */
    atomic_bool is_handed_over; /* another process accepts on our sockets */
    char instance[17];          /* random hex, for logs and X-Request-Id */
};

/* The last errors that were told to somebody, for diagnostics. */
enum { CV_RELAY_ERRORS_KEPT = 16, CV_RELAY_REQUEST_ID_LEN = 40 };
struct cv_relay_error {
    enum cv_status_id id;
    uint64_t at_s; /* Unix time; 0: none yet */
    char request[CV_RELAY_REQUEST_ID_LEN];
};

struct cv_relay_worker {
    struct cv_relay *relay;
    struct cv_worker *worker;
    unsigned index;
    struct cv_audit_queue *record; /* this thread's; NULL: no audit log */
    struct cv_relay_error errors[CV_RELAY_ERRORS_KEPT];
    unsigned next_error;
    struct cv_metrics_block *metrics; /* this thread's; NULL: nothing is counted */
    struct cv_trace_queue *spans;     /* this thread's; NULL: none are sent */
    struct cv_token_cache *tokens;
    struct cv_usage_table *usage;  /* what its requests did in this minute; NULL: nothing */
    struct cv_consumer *consumers; /* utlist DL: connections of consumers on this worker */
    atomic_uint consumer_count;
    atomic_uint busy;            /* requests and TCP streams under way */
    struct cv_session *sessions; /* utlist DL: links on this worker */
    atomic_uint session_count;
    atomic_uint moved_count;  /* of them, those whose agents have a link elsewhere by now */
    atomic_uint stream_count; /* of those links: in use or waited for */
    uint64_t next_request;    /* for request ids: instance, worker, number */
    uint64_t failures_second; /* failed authentications in the audit log: of this second … */
    unsigned failures_recorded;
    uint64_t failures_suppressed;          /* … and since the last one that is in it */
    uint8_t random[CV_RELAY_RANDOM_BYTES]; /* for trace ids, which need not be secret: one system
                                              call for many requests */
    size_t random_left;                    /* unused, at the end */
    struct cv_fetch *key_fetch;
    uint64_t keys_generation; /* first worker: of the keys that links were checked against last */
    struct cv_timer tick;     /* first worker: housekeeping */
    struct cv_timer beat;     /* health.c: the loop turns */
    atomic_uint_least64_t beat_ms; /* when it did last */
    uint64_t late_ms;              /* when it was last found to have been away */
    uint64_t expire_due_ms;
    uint64_t trim_due_ms; /* when memory may be given back next */
    unsigned crowd;       /* the most connections since it was */
    struct cv_mail notice_mail, drain_mail, close_mail, revoked_mail, config_mail, usage_mail;
    atomic_bool is_revoked_mailed; /* revoked_mail is on its way … */
    atomic_bool is_usage_mailed;   /* … and usage_mail */
    bool is_running;
};

/* What the workers have between them, at about one moment. */
struct cv_relay_counts {
    unsigned consumers; /* connections */
    unsigned links;
    unsigned moved;    /* of the links, those whose agents have another one elsewhere */
    unsigned streams;  /* of the links: in use or waited for */
    unsigned requests; /* under way */
};

struct cv_relay_options {
    /* Reads the settings again, for SIGHUP: as cv_relay_config_load. NULL: only certificate and key
     * files are read again. */
    struct cv_status (*load_config)(void *arg, struct cv_relay_config **config,
                                    struct cv_problems *problems);
    void *load_arg;
    const struct cv_relay_config *config; /* borrowed for the relay's life, as log */
    struct cv_log *log;
    const char *state_dir; /* for keys that are not configured; copied */
    bool is_dev;           /* development issuer, plain HTTP, loopback only */
    bool is_replaceable;   /* offers its sockets to a successor (takeover.h) */
    bool is_takeover;      /* takes over from the relay that listens there, if there is one */
    int given_fd;          /* the first of given_fd_count listening sockets, for us to own */
    unsigned given_fd_count;
    const char *notify_socket; /* of the service manager (sd_notify(3)), or NULL; borrowed */
    const char *const *env;    /* like environ, for OTEL_*; NULL: none. For the call */
};

/* A relay in this process, for `culvert server`, `culvert demo` and tests: opens keys and
 * listeners, starts the workers in threads of their own, and returns when connections are accepted.
 * Failures (CV_CONFIG, CV_IO, CV_TLS, CV_NO_MEMORY …) leave nothing behind; *error says what.
 * cv_net_init must have been called. */
struct cv_status cv_relay_new(const struct cv_relay_options *options, struct cv_relay **relay,
                              struct cv_error *error);

/* Any thread. */
struct cv_relay_counts cv_relay_count(const struct cv_relay *relay);

/* Ends links and requests whose tokens have been revoked, on all workers, soon. Any worker's
 * thread.
 */
void cv_relay_apply_revocations(struct cv_relay *relay);

/* A change of settings, one at a time: begin, read relay->config (which nobody else changes then),
 * then either change or end. begin is false while another one is under way or not yet through on
 * all workers. change takes `config` in the place of the settings so far; CV_NO_MEMORY, CV_CONFIG:
 * nothing was changed, `config` stays the caller's, and the change is still to be ended. Workers'
 * threads, and the one of cv_relay_serve. */
bool cv_relay_begin_change(struct cv_relay *relay);
void cv_relay_end_change(struct cv_relay *relay);
struct cv_status cv_relay_change(struct cv_relay *relay, struct cv_relay_config *config);

/* The port of the first listener. */
unsigned cv_relay_port(const struct cv_relay *relay);

/* Blocks until SIGTERM or SIGINT, or until a successor accepts connections, then drains: after
 * shutdown.grace no new connections, requests under way end within shutdown.drain, links are closed
 * with an SSH disconnect and WebSocket 1000. A second signal cuts that short. SIGHUP reads
 * settings, certificate and key files again, SIGUSR1 and SIGUSR2 make the log say more and less.
 * Call it on the thread that blocks for the process; the signals are blocked there before
 * cv_relay_new by cv_relay_block_signals. Frees the relay. */
void cv_relay_block_signals(void);
void cv_relay_serve(struct cv_relay **relay);

/* Drains and frees without waiting for a signal; for `culvert demo`. */
void cv_relay_stop(struct cv_relay **relay, uint64_t drain_ms);

#endif
