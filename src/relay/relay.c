/* SPDX-License-Identifier: MIT
 *
 * Start-up and shutdown of a relay, top to bottom.
 *
 * Happy path: cv_relay_new: keys, policy, TLS, workers, listeners, threads → cv_relay_serve waits
 * for signals → tell the links → after shutdown.grace drain: stop accepting, let requests end →
 * close what is left → join → free. Ways it fails: anything at start-up undoes what was made
 * (relay_free takes half-built ones). A second signal ends the drain at once.
 */
#include "relay/relay.h"

#include "auth/auth.h"
#include "auth/dev.h"
#include "base/digest.h"
#include "config/relay_config.h"
#include "config/state_dir.h"
#include "net/addr.h"
#include "net/fetch.h"
#include "net/notify.h"
#include "net/tls.h"
#include "net/worker.h"
#include "proto/ssh/host_key.h"
#include "relay/consumer.h"
#include "relay/health.h"
#include "relay/keys.h"
#include "relay/limits.h"
#include "relay/recall.h"
#include "relay/registry.h"
#include "relay/relay_metrics.h"
#include "relay/relay_private.h"
#include "relay/reporter.h"
#include "relay/revocation.h"
#include "relay/session_private.h"
#include "relay/sockets.h"
#include "relay/takeover.h"
#include "relay/tally.h"
#include "relay/tracing.h"
#include "store/history.h"
#include "store/usage.h"
#include "telemetry/audit.h"
#include "telemetry/log.h"

#include <inttypes.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <utlist.h>

enum {
    RELAY_TICK_MS = 1000,
    RELAY_EXPIRE_MS = 60000,
    RELAY_TRIM_MS = 5000,
    RELAY_CROWD = 256,          /* so many connections less than there were */
    RELAY_LAST_WORDS_MS = 1500, /* for answers and goodbyes once the drain is over */
    RELAY_POLL_MS = 20,
    RELAY_NOTICE_MS = 500,
    RELAY_NOTICE_PER_LINK_MS = 5,
    RELAY_PROGRESS_MS = 5000, /* between lines about a drain */
    RELAY_FRESH_MS = 500,     /* who has just connected may ask for so long */
};

/* ---- housekeeping, on the first worker ---- */

/* What a crowd used, the allocator keeps between the little that is still in use: some 50 KB for
 * each half TLS handshake. It goes back to the system once the crowd has gone. */
static void give_memory_back(struct cv_relay_worker *worker, uint64_t now_ms)
{
    unsigned count = cv_relay_connections(worker->relay);
    if (count > worker->crowd)
        worker->crowd = count;
    if (worker->crowd - count < RELAY_CROWD || now_ms < worker->trim_due_ms)
        return;
    worker->crowd = count;
    worker->trim_due_ms = now_ms + RELAY_TRIM_MS;
    (void)malloc_trim(0);
}

static void on_tick(void *arg)
{
    struct cv_relay_worker *worker = arg;
    struct cv_relay *relay = worker->relay;
    if (cv_worker_is_stopping(worker->worker)) /* also of a relay whose start failed half-way */
        return;
    uint64_t now_ms = cv_worker_now_ms(worker->worker);
    if (cv_keysource_is_due(relay->keys, now_ms))
        cv_relay_fetch_keys(worker);
    if (now_ms >= worker->expire_due_ms) {
        worker->expire_due_ms = now_ms + RELAY_EXPIRE_MS;
        cv_registry_expire(relay->registry, now_ms);
    }
    give_memory_back(worker, now_ms);
    relay_refresh_revocations(worker);
    relay_save_recall(relay, false);
    cv_takeover_tick(relay->takeover);
    tally_tick(worker);
    (void)cv_log_flush(relay->log);
    (void)cv_worker_timer_start(worker->worker, &worker->tick, RELAY_TICK_MS);
}

/* ---- start-up ---- */

static struct cv_status open_policy(struct cv_relay *relay, struct cv_error *error)
{
    const struct cv_relay_config *c = relay->config;
    struct cv_auth_policy *policy = calloc(1, sizeof *policy);
    if (!policy)
        return cv_status(CV_NO_MEMORY);
    relay->auth_policy = policy;
    bool is_configured = c->auth_jwks_url || c->auth_jwks_file || c->auth_secret_file;
    if (!is_configured && relay->is_dev) {
        cv_dev_policy_init(policy);
        policy->skew_s = (int64_t)(c->auth_clock_skew_ms / 1000);
        return cv_ok();
    }
    cv_auth_policy_init(policy);
    policy->issuer = c->auth_issuer;
    policy->audiences = (const char *const *)c->auth_audience.items;
    policy->audience_count = c->auth_audience.count;
    policy->skew_s = (int64_t)(c->auth_clock_skew_ms / 1000);
    policy->tier_claim = c->auth_claims_tier;
    policy->permissions_claim = c->auth_claims_permissions;
    policy->tunnels_claim = c->auth_claims_tunnels;
    policy->groups_claim = c->auth_claims_groups;
    policy->algs = 0;
    for (size_t i = 0; i < c->auth_algorithms.count; i++) {
        enum cv_jws_alg alg;
        if (!cv_jws_alg_from_name(cv_slice_str(c->auth_algorithms.items[i]), &alg))
            return cv_fail(error, CV_CONFIG, "auth.algorithms: %s is not known",
                           c->auth_algorithms.items[i]);
        if (alg != CV_JWS_HS256 || c->auth_secret_file)
            policy->algs |= CV_JWS_ALG_BIT(alg);
    }
    return cv_ok();
}

static struct cv_status open_keys(struct cv_relay *relay, const char *state_dir,
                                  struct cv_error *error)
{
    const struct cv_relay_config *c = relay->config;
    if (c->auth_jwks_url) {
        struct cv_keysource_times times;
        cv_keysource_times_init(&times);
        times.refresh_ms = c->auth_jwks_refresh_ms;
        if (times.min_interval_ms > times.refresh_ms)
            times.min_interval_ms = times.refresh_ms;
        times.grace_ms = c->auth_jwks_grace_ms;
        return cv_keysource_new_url(&times, &relay->keys);
    }
    if (c->auth_jwks_file)
        return cv_keysource_new_file(c->auth_jwks_file, &relay->keys, error);
    if (c->auth_secret_file)
        return cv_keysource_new_secret(c->auth_secret_file, &relay->keys, error);
    if (relay->is_dev)
        return cv_dev_keysource_new(state_dir, &relay->keys, error);
    return cv_fail(error, CV_CONFIG, "no source of keys: set auth.jwks_url or auth.jwks_file");
}

static struct cv_status open_host_key(struct cv_relay *relay, const char *state_dir,
                                      struct cv_error *error)
{
    char path[4096];
    if (relay->config->ssh_host_key_file)
        (void)cv_slice_to_str(cv_slice_str(relay->config->ssh_host_key_file), path, sizeof path);
    else
        CV_RETURN_IF_ERROR(cv_state_dir_path(state_dir, "host_key", path, sizeof path, error));
    struct cv_ssh_host_key *key;
    CV_RETURN_IF_ERROR(cv_ssh_host_key_load_or_create(path, &key, error));
    relay->host_key = key;
    char fingerprint[CV_SSH_HOST_KEY_FINGERPRINT_SIZE];
    cv_ssh_host_key_fingerprint(cv_ssh_host_key_blob(key), fingerprint);
    cv_log(relay->log, CV_LOG_INFO, "relay", "host_key", "host key loaded",
           CV_F_STR("fingerprint", fingerprint));
    return cv_ok();
}

static struct cv_status open_lists(struct cv_relay *relay, struct cv_error *error)
{
    const struct cv_relay_config *c = relay->config;
    struct cv_buf names;
    cv_buf_init(&names, 1024);
    struct cv_status status = cv_ok();
    for (size_t i = 0; i < c->ssh_ciphers.count && cv_is_ok(status); i++)
        status = cv_buf_printf(&names, "%s%s", i ? "," : "", c->ssh_ciphers.items[i]);
    if (cv_is_ok(status))
        status = cv_buf_append_byte(&names, 0);
    relay->ciphers = cv_is_ok(status) ? strdup((const char *)cv_buf_head(&names)) : NULL;
    cv_buf_done(&names);
    relay->trusted = calloc(c->trusted_proxy.count + 1, sizeof *relay->trusted);
    if (!relay->ciphers || !relay->trusted)
        return cv_status(CV_NO_MEMORY);
    for (size_t i = 0; i < c->trusted_proxy.count; i++)
        if (!cv_cidr_parse(&relay->trusted[relay->trusted_count++],
                           cv_slice_str(c->trusted_proxy.items[i])))
            return cv_fail(error, CV_CONFIG, "trusted_proxy: %s is not a network",
                           c->trusted_proxy.items[i]);
    return cv_ok();
}

unsigned relay_worker_count(const struct cv_relay_config *config)
{
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    unsigned count = config->workers ? config->workers : cpus > 0 ? (unsigned)cpus : 1;
    return count < CV_RELAY_WORKERS_MAX ? count : CV_RELAY_WORKERS_MAX;
}

static struct cv_status open_workers(struct cv_relay *relay, struct cv_error *error)
{
    unsigned count = relay_worker_count(relay->config);
    relay->workers = calloc(count, sizeof *relay->workers);
    if (!relay->workers)
        return cv_status(CV_NO_MEMORY);
    CV_RETURN_IF_ERROR(cv_relay_metrics_open(relay, count));
    for (unsigned i = 0; i < count; i++) {
        struct cv_relay_worker *worker = &relay->workers[i];
        worker->relay = relay;
        worker->index = i;
        worker->metrics = cv_metrics_block(relay->metrics, i);
        relay->worker_count = i + 1;
        CV_RETURN_IF_ERROR(cv_worker_new(i, &worker->worker, error));
        CV_RETURN_IF_ERROR(cv_token_cache_new(CV_TOKEN_CACHE_DEFAULT_ENTRIES,
                                              relay->config->auth_cache_ttl_ms, &worker->tokens));
        cv_timer_init(&worker->tick, on_tick, worker);
        health_begin(worker);
    }
    return cv_worker_timer_start(relay->workers[0].worker, &relay->workers[0].tick, 1);
}

/* Whoever tries out a relay has no agents that come back to it. */
static uint64_t agent_return_ms(const struct cv_relay *relay)
{
    bool is_set = cv_settings_origin(&cv_relay_schema, relay->config, "timers.agent_return").kind !=
                  CV_ORIGIN_DEFAULT;
    return relay->is_dev && !is_set ? 0 : relay->config->timers_agent_return_ms;
}

static void relay_free(struct cv_relay *relay)
{
    cv_reporter_free(&relay->reporter);
    for (unsigned i = 0; relay->workers && i < relay->worker_count; i++)
        if (relay->workers[i].is_running) {
            cv_worker_stop(relay->workers[i].worker);
            cv_worker_join(relay->workers[i].worker);
        }
    if (relay->recall)
        relay_save_recall(relay, true);
    for (unsigned i = 0; relay->workers && i < relay->worker_count; i++) {
        tally_hand_over(&relay->workers[i]);
        cv_usage_table_free(&relay->workers[i].usage);
    }
    cv_history_free(&relay->history); /* whom it answers are still there, if only to refuse */
    for (unsigned i = 0; relay->workers && i < relay->worker_count; i++) {
        cv_worker_free(&relay->workers[i].worker);
        cv_token_cache_free(&relay->workers[i].tokens);
    }
    cv_takeover_free(&relay->takeover);
    cv_relay_tracing_free(&relay->tracing);
    cv_audit(relay->record, STOPPED);
    cv_audit_free(&relay->audit);
    free(relay->workers);
    free(relay->sockets);
    cv_registry_free(&relay->registry);
    cv_metrics_free(&relay->metrics);
    cv_recall_free(&relay->recall);
    cv_limits_free(&relay->limits);
    cv_ration_unref(&relay->growth);
    cv_revocations_free(&relay->revocations);
    cv_relay_config_free(&relay->patched[0]);
    cv_relay_config_free(&relay->patched[1]);
    cv_keysource_free(&relay->keys);
    cv_tls_server_free(&relay->tls);
    cv_ssh_host_key_free(&relay->host_key);
    free(relay->auth_policy);
    free(relay->ciphers);
    free(relay->trusted);
    free(relay);
}

static struct cv_status open_all(struct cv_relay *relay, const struct cv_relay_options *options,
                                 struct cv_error *error)
{
    const struct cv_relay_config *config = relay->config;
    const char *state_dir = options->state_dir;
    uint8_t instance[8];
    cv_random(instance, sizeof instance);
    cv_hex_encode(cv_slice(instance, sizeof instance), relay->instance);
    cv_log_set_instance(relay->log, relay->instance);
    CV_RETURN_IF_ERROR(cv_registry_new(&relay->registry));
    CV_RETURN_IF_ERROR(cv_limits_new(config, &relay->limits));
    relay->growth = cv_ration_new((size_t)config->limits_growth_bytes, NULL);
    if (!relay->growth)
        return cv_status(CV_NO_MEMORY);
    CV_RETURN_IF_ERROR(open_policy(relay, error));
    CV_RETURN_IF_ERROR(open_keys(relay, state_dir, error));
    CV_RETURN_IF_ERROR(open_host_key(relay, state_dir, error));
    CV_RETURN_IF_ERROR(open_lists(relay, error));
    if (config->tls_cert_file)
        CV_RETURN_IF_ERROR(
            cv_tls_server_new(config->tls_cert_file, config->tls_key_file, &relay->tls, error));
    CV_RETURN_IF_ERROR(relay_open_revocations(relay, state_dir, error));
    CV_RETURN_IF_ERROR(open_workers(relay, error));
    CV_RETURN_IF_ERROR(cv_relay_tracing_new(relay, options->env, &relay->tracing, error));
    relay->agent_return_ms = agent_return_ms(relay);
    relay->started_s = cv_worker_wall_seconds(relay->workers[0].worker);
    relay->agents_due_ms = cv_worker_now_ms(relay->workers[0].worker) + relay->agent_return_ms;
    CV_RETURN_IF_ERROR(relay_open_reporter(relay, state_dir, error));
    CV_RETURN_IF_ERROR(cv_takeover_begin(relay, options, &relay->takeover, error));
    CV_RETURN_IF_ERROR(cv_relay_open_sockets(relay, error));
    CV_RETURN_IF_ERROR(cv_takeover_settle(relay->takeover, error));
    /* Not before it is sure that this relay has its address, whose file it is. */
    CV_RETURN_IF_ERROR(relay_open_audit(relay, state_dir, error));
    relay_open_recall(relay, state_dir);
    if (options->is_replaceable)
        cv_takeover_offer(relay, state_dir);
    CV_RETURN_IF_ERROR(relay_open_history(relay, state_dir, error));
    for (unsigned i = 0; i < relay->worker_count; i++) {
        CV_RETURN_IF_ERROR(cv_worker_start_thread(relay->workers[i].worker));
        relay->workers[i].is_running = true;
    }
    CV_RETURN_IF_ERROR(cv_reporter_start(relay->reporter));
    return cv_takeover_ready(relay, error);
}

struct cv_status cv_relay_new(const struct cv_relay_options *options, struct cv_relay **out,
                              struct cv_error *error)
{
    struct cv_relay *relay = calloc(1, sizeof *relay);
    *out = NULL;
    if (!relay)
        return cv_status(CV_NO_MEMORY);
    relay->config = options->config;
    relay->load_config = options->load_config;
    relay->load_arg = options->load_arg;
    relay->log = options->log;
    relay->is_dev = options->is_dev;
    relay->notify_socket = options->notify_socket;
    struct cv_status status = open_all(relay, options, error);
    if (!cv_is_ok(status)) {
        if (error && error->id == CV_OK)
            (void)cv_fail(error, status.id, "%s", cv_status_text(status.id));
        relay_free(relay);
        return status;
    }
    *out = relay;
    return cv_ok();
}

static unsigned get(const atomic_uint *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

struct cv_relay_counts cv_relay_count(const struct cv_relay *relay)
{
    struct cv_relay_counts counts = {0};
    for (unsigned i = 0; i < relay->worker_count; i++) {
        const struct cv_relay_worker *worker = &relay->workers[i];
        counts.consumers += get(&worker->consumer_count);
        counts.links += get(&worker->session_count);
        counts.moved += get(&worker->moved_count);
        counts.streams += get(&worker->stream_count);
        counts.requests += get(&worker->busy);
    }
    return counts;
}

unsigned cv_relay_port(const struct cv_relay *relay)
{
    return relay->port;
}

/* ---- shutdown ---- */

/* In this time agents are to have another link; they spread over the first half of it. Few agents
 * are quick; a thousand must not jump at once. */
static uint64_t notice_ms(const struct cv_relay *relay, uint64_t drain_ms)
{
    uint64_t ms =
        RELAY_NOTICE_MS + (uint64_t)cv_relay_count(relay).links * RELAY_NOTICE_PER_LINK_MS;
    return ms < drain_ms ? ms : drain_ms;
}

static void on_notice(void *arg)
{
    struct cv_relay_worker *worker = arg;
    struct cv_session *session;
    DL_FOREACH(worker->sessions, session)
    cv_session_announce_shutdown(session, worker->relay->notice_ms);
}

static void on_drain(void *arg)
{
    struct cv_relay_worker *worker = arg;
    cv_relay_close_sockets(worker, false);
    if (atomic_load(&worker->relay->is_handed_over))
        cv_relay_close_sockets(worker, true); /* probes are to ask the successor */
    if (worker->index == 0)
        cv_takeover_drain(worker->relay->takeover);
    cv_consumer_drain_all(worker);
}

static void on_close(void *arg)
{
    struct cv_relay_worker *worker = arg;
    struct cv_session *session;
    cv_fetch_cancel(&worker->key_fetch);
    cv_relay_close_sockets(worker, true);
    cv_consumer_close_all(worker);
    /* A wanted end: SSH disconnect by application, WebSocket 1000. */
    DL_FOREACH(worker->sessions, session)
    cv_session_close(session, cv_ok(), "the relay is shutting down");
}

static void post_all(struct cv_relay *relay, void (*on_mail)(void *arg))
{
    for (unsigned i = 0; i < relay->worker_count; i++) {
        struct cv_relay_worker *worker = &relay->workers[i];
        struct cv_mail *mail = on_mail == on_notice  ? &worker->notice_mail
                               : on_mail == on_drain ? &worker->drain_mail
                                                     : &worker->close_mail;
        cv_mail_init(mail, on_mail, worker);
        (void)cv_worker_post(worker->worker, mail);
    }
}

static uint64_t clock_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Waits for one of `signals`; 0 when none came in time. */
static int wait_signal(const sigset_t *signals, uint64_t ms)
{
    struct timespec time = {.tv_sec = (time_t)(ms / 1000), .tv_nsec = (long)(ms % 1000) * 1000000};
    int signo = sigtimedwait(signals, NULL, &time);
    return signo > 0 ? signo : 0;
}

static bool is_end(int signo)
{
    return signo == SIGTERM || signo == SIGINT;
}

static void tell_progress(const struct cv_relay *relay, const struct cv_relay_counts *left,
                          uint64_t gone_ms)
{
    cv_log(relay->log, CV_LOG_INFO, "relay", "drain_progress", "shutting down: still at work",
           CV_F_UINT("requests", left->requests), CV_F_UINT("links", left->links),
           CV_F_UINT("moved", left->moved), CV_F_UINT("durationMs", gone_ms));
}

/* Who asks /readyz is to notice before a connection is refused. False: cut short. */
static bool give_grace(const struct cv_relay *relay, const sigset_t *signals)
{
    uint64_t begin_ms = clock_ms(), grace_ms = relay->config->shutdown_grace_ms, gone_ms;
    if (grace_ms)
        cv_log(relay->log, CV_LOG_INFO, "relay", "grace_begin",
               "shutting down: connections are still accepted for a while",
               CV_F_UINT("graceMs", grace_ms));
    while ((gone_ms = clock_ms() - begin_ms) < grace_ms)
        if (is_end(wait_signal(signals, grace_ms - gone_ms)))
            return false;
    return true;
}

static void stop(struct cv_relay *relay, uint64_t drain_ms, const sigset_t *signals)
{
    sigset_t none;
    (void)sigemptyset(&none);
    if (!signals)
        signals = &none;
    bool is_handed_over = atomic_load(&relay->is_handed_over), is_cut = false, is_waiting;
    if (!is_handed_over) /* else the service goes on in another process */
        cv_notify(relay->notify_socket, "STOPPING=1");
    relay->notice_ms = notice_ms(relay, drain_ms);
    atomic_store_explicit(&relay->is_draining, true, memory_order_relaxed);
    post_all(relay, on_notice);
    uint64_t notice_begin_ms = clock_ms();
    if (!is_handed_over)
        is_cut = !give_grace(relay, signals);
    uint64_t begin_ms = clock_ms(), told_ms = begin_ms;
    cv_log(relay->log, CV_LOG_INFO, "relay", "drain_begin", "shutting down: letting requests end",
           CV_F_UINT("requests", cv_relay_count(relay).requests), CV_F_UINT("drainMs", drain_ms),
           CV_F_BOOL("isHandedOver", is_handed_over));
    post_all(relay, on_drain);
    do {
        is_cut |= is_end(wait_signal(signals, RELAY_POLL_MS));
        uint64_t now_ms = clock_ms(), gone_ms = now_ms - begin_ms;
        struct cv_relay_counts left = cv_relay_count(relay);
        /* A link whose agent has another one elsewhere holds nobody up, unless it carries
         * something. */
        bool is_noticing = left.links > left.moved && now_ms - notice_begin_ms < relay->notice_ms;
        bool is_fresh = left.consumers && gone_ms < RELAY_FRESH_MS;
        is_waiting = (left.requests || is_noticing || is_fresh) && !is_cut && gone_ms < drain_ms;
        if (is_waiting && now_ms - told_ms >= RELAY_PROGRESS_MS) {
            told_ms = now_ms;
            tell_progress(relay, &left, gone_ms);
        }
    } while (is_waiting);
    cv_log(relay->log, CV_LOG_INFO, "relay", "drain_end", "closing what is left",
           CV_F_UINT("requests", cv_relay_count(relay).requests), CV_F_BOOL("wasCutShort", is_cut),
           CV_F_UINT("durationMs", clock_ms() - begin_ms));
    post_all(relay, on_close);
    uint64_t close_ms = clock_ms();
    do
        is_cut |= is_end(wait_signal(signals, RELAY_POLL_MS));
    while (!is_cut && cv_relay_connections(relay) && clock_ms() - close_ms < RELAY_LAST_WORDS_MS);
    struct cv_log *log = relay->log;
    relay_free(relay);
    cv_log(log, CV_LOG_INFO, "relay", "stopped", "the relay has stopped",
           CV_F_UINT("durationMs", clock_ms() - begin_ms));
}

void cv_relay_stop(struct cv_relay **relay, uint64_t drain_ms)
{
    if (*relay)
        stop(*relay, drain_ms, NULL);
    *relay = NULL;
}

/* ---- signals ---- */

static void signals_of_relay(sigset_t *set)
{
    static const int numbers[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2};
    (void)sigemptyset(set);
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++)
        (void)sigaddset(set, numbers[i]);
}

void cv_relay_block_signals(void)
{
    sigset_t set;
    signals_of_relay(&set);
    (void)pthread_sigmask(SIG_BLOCK, &set, NULL);
}

/* The number tells systemd that this process is the service now, also where it took over. */
void relay_tell_ready(const struct cv_relay *relay)
{
    char text[64];
    (void)snprintf(text, sizeof text, "READY=1\nMAINPID=%ld", (long)getpid());
    cv_notify(relay->notify_socket, text);
}

static void change_level(struct cv_relay *relay, int step)
{
    int level = (int)cv_log_level(relay->log) + step;
    if (level < CV_LOG_ERROR || level >= CV_LOG_LEVEL_COUNT)
        return;
    cv_log_set_level(relay->log, (enum cv_log_level)level);
    cv_audit(relay->record, CONFIG, CV_F_STR("key", "log.level"),
             CV_F_STR("value", cv_log_level_name((enum cv_log_level)level)),
             CV_F_STR("by", step > 0 ? "SIGUSR1" : "SIGUSR2"));
}

void cv_relay_serve(struct cv_relay **out)
{
    struct cv_relay *relay = *out;
    sigset_t set;
    signals_of_relay(&set);
    relay_tell_ready(relay);
    for (int signo = 0; !is_end(signo);) {
        signo = wait_signal(&set, 3600 * 1000);
        if (signo == SIGHUP)
            relay_reload(relay);
        else if (signo == SIGUSR1)
            change_level(relay, 1);
        else if (signo == SIGUSR2)
            change_level(relay, -1);
    }
    *out = NULL;
    stop(relay, relay->config->shutdown_drain_ms, &set);
}
