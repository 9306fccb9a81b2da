/* SPDX-License-Identifier: MIT
 *
 * Thousands of agents in one process: the production agent (src/agent) once for each user, all on
 * one worker, with nothing shared but the configuration and the TLS settings. Each publishes the
 * tunnels of the configuration.
 *
 *   load_agents AGENT_YAML LINKS PER_SECOND TOKENS_FILE [FIRST]
 *
 * The state folder of the configuration is the relay's, whose development key signs the users'
 * tokens; they are written to TOKENS_FILE, one a line, for consumers. PER_SECOND agents are started
 * a second, 0 starts all in one turn. Users are user0, user1, …, from FIRST.
 *
 * On standard output, one JSON object a line: when all are up, how long that took and how long each
 * needed (TCP, TLS, upgrade, SSH, registration); then for every SIGUSR1 how things stand. Tunnels
 * that were published more than once say that a link was lost and not resumed. SIGTERM ends it.
 */
#include "agent/access.h"
#include "agent/agent.h"
#include "auth/dev.h"
#include "config/agent_config.h"
#include "load_samples.h"
#include "net/net.h"
#include "net/worker.h"
#include "telemetry/log.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

enum { PACE_MS = 10, TOKEN_TTL_S = 86400 };

struct crowd;

struct one {
    struct crowd *crowd;
    struct cv_access access;
    struct cv_buf token;
    struct cv_agent *agent;
    uint64_t started_ns;
    unsigned published;
};

struct crowd {
    struct cv_worker *worker;
    struct cv_agent_config *config;
    struct cv_access *accesses;
    struct cv_log log;
    struct one *all;
    size_t count, started, up, ended, again;
    uint64_t begun_ns;
    size_t per_second;
    struct cv_timer pace;
    struct load_samples set_up_us;
};

static void die(const char *what, const struct cv_error *error)
{
    (void)fprintf(stderr, "load_agents: %s: %s\n", what, error ? error->detail : "");
    _exit(1);
}

static void report(struct crowd *crowd, const char *event)
{
    double seconds = (double)(cv_worker_now_ns(crowd->worker) - crowd->begun_ns) / 1e9;
    (void)printf("{\"event\":\"%s\",\"links\":%zu,\"up\":%zu,\"ended\":%zu,\"again\":%zu,"
                 "\"seconds\":%.3f,\"set_up_us\":",
                 event, crowd->count, crowd->up, crowd->ended, crowd->again, seconds);
    load_samples_print(&crowd->set_up_us);
    (void)printf("}\n");
    (void)fflush(stdout);
}

/* ---- one agent ---- */

static void on_published(void *arg, const char *tunnel, const char *url, const char *target)
{
    struct one *one = arg;
    struct crowd *crowd = one->crowd;
    (void)tunnel;
    (void)url;
    (void)target;
    if (one->published++) {
        crowd->again++;
        return;
    }
    load_samples_add(&crowd->set_up_us, (cv_worker_now_ns(crowd->worker) - one->started_ns) / 1000);
    if (++crowd->up == crowd->count)
        report(crowd, "all_up");
}

static void on_ended(void *arg, struct cv_status why, const struct cv_error *error)
{
    struct one *one = arg;
    struct crowd *crowd = one->crowd;
    if (!cv_is_ok(why))
        (void)fprintf(stderr, "load_agents: an agent has ended: %s\n",
                      error ? error->detail : cv_status_text(why.id));
    if (++crowd->ended == crowd->count)
        cv_worker_stop(crowd->worker);
}

static const struct cv_agent_ops agent_ops = {.on_published = on_published, .on_ended = on_ended};

static void start_one(struct crowd *crowd, struct one *one)
{
    struct cv_error error = {0};
    struct cv_agent_options options = {
        .accesses = &one->access, .access_count = 1, .log = &crowd->log};
    one->started_ns = cv_worker_now_ns(crowd->worker);
    if (!cv_is_ok(cv_agent_new(crowd->worker, &options, &agent_ops, one, &one->agent, &error)))
        die("agent", &error);
}

static void on_pace(void *arg)
{
    struct crowd *crowd = arg;
    uint64_t passed_ms = (cv_worker_now_ns(crowd->worker) - crowd->begun_ns) / 1000000;
    size_t due =
        crowd->per_second ? (size_t)(passed_ms * crowd->per_second / 1000) + 1 : crowd->count;
    while (crowd->started < crowd->count && crowd->started < due)
        start_one(crowd, &crowd->all[crowd->started++]);
    if (crowd->started < crowd->count)
        (void)cv_worker_timer_start(crowd->worker, &crowd->pace, PACE_MS);
}

/* ---- all of them ---- */

/* An access of its own, with its user's token and an agent id; the rest is the first one's. */
static void prepare(struct crowd *crowd, struct one *one, const struct cv_signing_key *key,
                    size_t number, FILE *tokens)
{
    char subject[32];
    struct cv_error error = {0};
    (void)snprintf(subject, sizeof subject, "user%zu", number);
    struct cv_token_request request = {.issuer = CV_DEV_ISSUER,
                                       .audience = CV_DEV_AUDIENCE,
                                       .subject = subject,
                                       .now_s = (int64_t)time(NULL),
                                       .ttl_s = TOKEN_TTL_S};
    cv_buf_init(&one->token, CV_ACCESS_TOKEN_MAX);
    if (!cv_is_ok(cv_token_issue(key, &request, &one->token, &error)))
        die("token", &error);
    (void)fprintf(tokens, "%.*s\n", (int)cv_buf_len(&one->token),
                  (const char *)cv_buf_head(&one->token));
    if (!cv_is_ok(cv_buf_append_byte(&one->token, 0)))
        die("token", NULL);
    one->crowd = crowd;
    one->access = crowd->accesses[0];
    one->access.token_env = (const char *)cv_buf_head(&one->token);
    (void)snprintf(one->access.agent_id, sizeof one->access.agent_id, "%032zx", number + 1);
}

static void prepare_all(struct crowd *crowd, const char *tokens_path, size_t first)
{
    const char *state_dir = crowd->config->state_dir;
    struct cv_signing_key *key;
    struct cv_error error = {0};
    FILE *tokens = fopen(tokens_path, "we");
    crowd->all = calloc(crowd->count, sizeof *crowd->all);
    if (!tokens || !crowd->all)
        die(tokens_path, NULL);
    if (!cv_is_ok(cv_dev_key_load(state_dir, &key, &error)))
        die(state_dir, &error);
    for (size_t i = 0; i < crowd->count; i++)
        prepare(crowd, &crowd->all[i], key, first + i, tokens);
    cv_signing_key_free(&key);
    (void)fclose(tokens);
}

static void on_signal(void *arg, int signo)
{
    struct crowd *crowd = arg;
    if (signo == SIGUSR1) {
        report(crowd, "now");
        return;
    }
    crowd->count = crowd->started;
    for (size_t i = 0; i < crowd->started; i++)
        cv_agent_stop(crowd->all[i].agent);
    if (!crowd->started)
        cv_worker_stop(crowd->worker);
}

static void run(struct crowd *crowd)
{
    cv_timer_init(&crowd->pace, on_pace, crowd);
    if (!cv_is_ok(cv_worker_on_signal(crowd->worker, SIGTERM, on_signal, crowd)) ||
        !cv_is_ok(cv_worker_on_signal(crowd->worker, SIGUSR1, on_signal, crowd)) ||
        !cv_is_ok(cv_worker_timer_start(crowd->worker, &crowd->pace, 1)))
        die("worker", NULL);
    crowd->begun_ns = cv_worker_now_ns(crowd->worker);
    cv_worker_run(crowd->worker);
    for (size_t i = 0; i < crowd->started; i++)
        cv_agent_free(&crowd->all[i].agent);
}

static void load_config(struct crowd *crowd, const char *path)
{
    struct cv_problems problems;
    struct cv_error error = {0};
    struct cv_config_sources sources = {.path = path};
    size_t count;
    cv_problems_init(&problems);
    if (!cv_is_ok(cv_agent_config_load(&sources, &crowd->config, &problems)))
        die(path, NULL);
    cv_problems_done(&problems);
    if (!cv_is_ok(cv_access_new_all(crowd->config, crowd->config->state_dir, NULL, &crowd->log,
                                    &crowd->accesses, &count, &error)))
        die("access", &error);
}

/* A socket, and two descriptors of cv_watch, for each agent. */
static void allow_descriptors(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &files);
    }
}

int main(int argc, char **argv)
{
    static struct crowd crowd;
    struct cv_error error = {0};
    if (argc < 5) {
        (void)fprintf(stderr,
                      "usage: load_agents AGENT_YAML LINKS PER_SECOND TOKENS_FILE [FIRST]\n");
        return 2;
    }
    allow_descriptors();
    crowd.count = strtoul(argv[2], NULL, 10);
    crowd.per_second = strtoul(argv[3], NULL, 10);
    load_samples_init(&crowd.set_up_us, crowd.count);
    struct cv_log_options log = {.fd = 2, .level = CV_LOG_ERROR, .format = CV_LOG_FORMAT_JSON};
    if (!cv_is_ok(cv_log_init(&crowd.log, &log)) || !cv_is_ok(cv_net_init()) ||
        !cv_is_ok(cv_worker_new(0, &crowd.worker, &error)))
        die("start", &error);
    load_config(&crowd, argv[1]);
    prepare_all(&crowd, argv[4], argc > 5 ? strtoul(argv[5], NULL, 10) : 0);
    run(&crowd);
    report(&crowd, "ended");
    cv_worker_free(&crowd.worker);
    cv_access_free_all(&crowd.accesses, 1);
    cv_net_done();
    cv_log_done(&crowd.log);
    cv_agent_config_free(&crowd.config);
    for (size_t i = 0; i < crowd.count; i++)
        cv_buf_wipe(&crowd.all[i].token);
    free(crowd.all);
    load_samples_done(&crowd.set_up_us);
    return 0;
}
