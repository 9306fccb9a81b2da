/* SPDX-License-Identifier: MIT */
#include "cli/publish.h"

#include "agent/agent.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

struct running {
    struct cv_client client;
    struct cv_agent *agent;
};

static void on_published(void *arg, const char *tunnel, const char *url, const char *target)
{
    (void)arg;
    if (url[0])
        (void)printf("%s is open: %s -> %s\n", tunnel, url, target);
    else
        (void)printf("%s is open: reach %s with `culvert forward PORT %s --server …`\n", tunnel,
                     target, tunnel);
    (void)fflush(stdout);
}

static void on_ended(void *arg, struct cv_status why, const struct cv_error *error)
{
    struct running *running = arg;
    cv_client_end(&running->client, why, error);
}

static void on_stop(void *arg)
{
    struct running *running = arg;
    cv_agent_stop(running->agent);
}

int cv_cli_run_agent(const struct cv_client_options *options, const struct cv_parsed *parsed)
{
    struct running running;
    char config_path[PATH_MAX];
    int exit_code;
    if (!cv_client_open(&running.client, options, parsed, &exit_code))
        return exit_code;
    struct cv_agent_ops ops = {.on_published = options->is_interactive ? on_published : NULL,
                               .on_ended = on_ended};
    struct cv_agent_options agent_options = {.accesses = running.client.accesses,
                                             .access_count = running.client.access_count,
                                             .log = &running.client.log,
                                             .state_dir = running.client.state_dir,
                                             .is_interactive = options->is_interactive};
    if (options->config_path && realpath(options->config_path, config_path)) {
        agent_options.config = running.client.config;
        agent_options.config_path = config_path;
    }
    struct cv_error error = {0};
    running.client.on_stop = on_stop;
    running.client.arg = &running;
    struct cv_status status =
        cv_agent_new(running.client.worker, &agent_options, &ops, &running, &running.agent, &error);
    if (cv_is_ok(status)) {
        cv_client_run(&running.client);
    } else {
        cv_cli_complain(status.id, &error);
        running.client.exit_code = cv_cli_exit_code(status.id);
    }
    cv_agent_free(&running.agent);
    return cv_client_close(&running.client);
}
