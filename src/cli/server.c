/* SPDX-License-Identifier: MIT
 *
 * `culvert server`: settings, state folder, log, relay, signals.
 */
#include "cli/cli.h"
#include "config/relay_config.h"
#include "config/state_dir.h"
#include "net/net.h"
#include "relay/relay.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

/* What a relay has open besides its connections: listeners, loops, log, files of a reload. */
enum { OTHER_DESCRIPTORS = 256 };

/* Sockets from systemd. */
enum { GIVEN_FIRST = 3, GIVEN_MAX = 4096 };

struct values {
    const char *config_path;
    bool is_dev, is_takeover;
};

static const struct cv_option options[] = {
    CV_OPT_TEXT(struct values, config_path, "config", 'c', "FILE",
                "Read settings from a YAML file."),
    CV_OPT_SETTING("listen", "listen", 0, "HOST:PORT",
                   "Accept agents and consumers here; several with commas."),
    CV_OPT_FLAG(struct values, is_dev, "dev", 0,
                "For trying out: loopback only, no TLS, tokens of a key made in the state folder."),
    CV_OPT_FLAG(struct values, is_takeover, "takeover", 0,
                "Take over from the relay of this state folder that listens there now."),
    CV_OPT_SETTING("workers", "workers", 0, "N", "Threads; one per CPU without it."),
    CV_OPT_SETTING("metrics.listen", "metrics-listen", 0, "HOST:PORT",
                   "A listener of its own for liveness pages, without token and TLS."),
    CV_OPT_SETTING("log.level", "log-level", 0, "LEVEL", "error, warn, info, debug or trace."),
    CV_OPT_SETTING("log.format", "log-format", 0, "FORMAT", "json, text or auto."),
    CV_OPT_HELP,
};

const struct cv_command cv_cli_server_command = {
    .name = "server",
    .operands = "",
    .summary = "Run the relay, the public side",
    .description =
        "Runs the relay: agents dial in at /tunnel, consumers reach their tunnels at /t/NAME/.\n"
        "Without --dev it needs TLS (or trusted_proxy, when a load balancer ends TLS) and a "
        "source\n"
        "of token keys; docs/configuration.md has every setting. SIGTERM lets requests end "
        "first.\n"
        "With --takeover a running relay hands its listening sockets to this one, drains and "
        "ends;\n"
        "no request is lost. Sockets that systemd has opened (LISTEN_FDS) are used as well.\n",
    .examples = "  culvert server --dev --listen 127.0.0.1:8080\n"
                "  culvert server -c /etc/culvert/relay.yaml\n"
                "  culvert server -c /etc/culvert/relay.yaml --takeover\n",
    .options = options,
    .option_count = sizeof options / sizeof options[0],
};

static void say_failed(struct cv_log *log, struct cv_status status, const struct cv_error *error)
{
    static const char message[] = "the relay cannot start";
    bool is_in_use = error->sys_errno == EADDRINUSE;
    if (error->detail[0])
        cv_log(log, CV_LOG_ERROR, "relay", "start_failed", message, CV_F_ERROR(error),
               CV_F_STR("suggestion",
                        is_in_use ? "stop what listens there, choose another address, or, if it is "
                                    "a relay, add --takeover: it hands over to this one"
                                  : NULL));
    else
        cv_log(log, CV_LOG_ERROR, "relay", "start_failed", message, CV_F_STATUS(status));
}

/* The usual soft limit of 1,024 is there for select(2), which nothing here uses. Where the hard one
 * is too low as well, connections will be refused by accept before limits.max_connections is. */
static void raise_descriptors(const struct cv_relay_config *config, struct cv_log *log)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0)
        return;
    struct rlimit raised = {.rlim_cur = limit.rlim_max, .rlim_max = limit.rlim_max};
    if (setrlimit(RLIMIT_NOFILE, &raised) == 0)
        limit = raised;
    uint64_t wanted = config->limits_max_connections + OTHER_DESCRIPTORS;
    if (limit.rlim_cur < wanted)
        cv_log(log, CV_LOG_WARN, "relay", "descriptors_low",
               "fewer descriptors may be open than limits.max_connections needs: raise ulimit -n",
               CV_F_UINT("allowed", limit.rlim_cur), CV_F_UINT("needed", wanted));
}

/* How many sockets systemd has opened for this process, beginning with descriptor 3
 * (sd_listen_fds(3)); it says whom they are for, since variables are inherited. */
static unsigned given_sockets(void)
{
    const char *pid_text = getenv("LISTEN_PID"), *count_text = getenv("LISTEN_FDS");
    uint64_t pid, count;
    if (!pid_text || !count_text || !cv_slice_to_u64(cv_slice_str(pid_text), INT32_MAX, &pid) ||
        (pid_t)pid != getpid() || !cv_slice_to_u64(cv_slice_str(count_text), GIVEN_MAX, &count))
        return 0;
    return (unsigned)count;
}

static struct cv_status load_config(void *arg, struct cv_relay_config **config,
                                    struct cv_problems *problems)
{
    return cv_relay_config_load(arg, config, problems);
}

static int serve(const struct cv_relay_config *config, struct cv_config_sources *sources,
                 const struct values *values, const char *state_dir)
{
    struct cv_log log;
    struct cv_error error = {0};
    struct cv_log_file file;
    const struct cv_cli_log_file where = {config->log_file, config->log_max_bytes,
                                          config->log_keep};
    struct cv_status status =
        cv_cli_open_log(&log, config->log_level, config->log_format, &where, &file, &error);
    if (!cv_is_ok(status)) {
        cv_cli_complain(status.id, &error);
        return CV_EXIT_FAILED;
    }
    raise_descriptors(config, &log);
    cv_relay_block_signals();
    struct cv_relay *relay = NULL;
    struct cv_relay_options relay_options = {
        .load_config = load_config,
        .load_arg = sources,
        .config = config,
        .log = &log,
        .state_dir = state_dir,
        .is_dev = values->is_dev,
        .is_replaceable = true,
        .is_takeover = values->is_takeover,
        .given_fd = GIVEN_FIRST,
        .given_fd_count = given_sockets(),
        .notify_socket = getenv("NOTIFY_SOCKET"),
        .env = (const char *const *)environ,
    };
    status = cv_net_init();
    if (cv_is_ok(status))
        status = cv_relay_new(&relay_options, &relay, &error);
    if (cv_is_ok(status))
        cv_relay_serve(&relay);
    else
        say_failed(&log, status, &error);
    if (!cv_is_ok(status) && config->log_file) /* whoever has started it looks here */
        cv_cli_complain(status.id, &error);
    cv_net_done();
    cv_log_done(&log);
    cv_log_file_close(&file);
    return cv_is_ok(status) ? CV_EXIT_OK : CV_EXIT_FAILED;
}

int cv_cli_server(int argc, const char *const *argv)
{
    struct values values = {0};
    struct cv_parsed parsed;
    int exit_code;
    if (!cv_cli_parse(&cv_cli_server_command, argc, argv, &values, &parsed, &exit_code))
        return exit_code;
    struct cv_relay_config *config;
    struct cv_problems problems;
    struct cv_config_sources sources = {.path = values.config_path,
                                        .env = (const char *const *)environ,
                                        .overrides = parsed.overrides,
                                        .override_count = parsed.override_count,
                                        .is_dev = values.is_dev};
    cv_problems_init(&problems);
    struct cv_status status = cv_relay_config_load(&sources, &config, &problems);
    if (!cv_is_ok(status)) {
        cv_cli_print_problems(&problems);
        exit_code = cv_cli_is_usage(&problems) ? CV_EXIT_USAGE : CV_EXIT_FAILED;
        cv_problems_done(&problems);
        return exit_code;
    }
    cv_problems_done(&problems);
    char state_dir[4096];
    struct cv_error error = {0};
    status = cv_state_dir_open(config->state_dir, state_dir, sizeof state_dir, &error);
    if (cv_is_ok(status)) {
        exit_code = serve(config, &sources, &values, state_dir);
    } else {
        cv_cli_complain(status.id, &error);
        exit_code = CV_EXIT_FAILED;
    }
    cv_relay_config_free(&config);
    return exit_code;
}
