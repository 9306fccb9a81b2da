/* SPDX-License-Identifier: MIT
 *
 * `culvert forward`: a local port that leads to one of the user's tunnels.
 */
#include "agent/forward.h"
#include "cli/client.h"

#include <stdio.h>
#include <string.h>

struct values {
    const char *config_path;
};

static const struct cv_option options[] = {
    CV_OPT_TEXT(struct values, config_path, "config", 'c', "FILE",
                "Read settings, such as `servers`, from a YAML file. Its tunnels do not count."),
    CV_CLIENT_OPTIONS,
    CV_OPT_HELP,
};

const struct cv_command cv_cli_forward_command = {
    .name = "forward",
    .operands = "[HOST:]PORT NAME",
    .operand_min = 2,
    .operand_max = 2,
    .summary = "Open a local port that leads to one of your tunnels",
    .description =
        "Listens on a port of this machine until Ctrl-C; connections go to the tunnel NAME, which\n"
        "an agent with a token of the same user publishes. HTTP tunnels keep their rules, and "
        "their\n"
        "requests wait in a queue while the link is down or full (settings forward.*).\n",
    .examples = "  culvert forward 5432 db --server wss://relay.example.org\n"
                "  culvert forward 127.0.0.1:9000 home --server wss://relay.example.org\n",
    .options = options,
    .option_count = sizeof options / sizeof options[0],
};

struct running {
    struct cv_client client;
    struct cv_forward *forward;
    const char *tunnel;
};

static void on_ready(void *arg, const char *address)
{
    struct running *running = arg;
    (void)printf("%s leads to %s\n", address, running->tunnel);
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
    cv_forward_stop(running->forward);
}

static int run(struct running *running, const char *listen)
{
    static const struct cv_forward_ops ops = {.on_ready = on_ready, .on_ended = on_ended};
    struct cv_forward_options forward = {.accesses = running->client.accesses,
                                         .access_count = running->client.access_count,
                                         .state_dir = running->client.state_dir,
                                         .log = &running->client.log,
                                         .listen = listen,
                                         .tunnel = running->tunnel};
    struct cv_error error = {0};
    running->client.on_stop = on_stop;
    running->client.arg = running;
    struct cv_status status =
        cv_forward_new(running->client.worker, &forward, &ops, running, &running->forward, &error);
    if (cv_is_ok(status)) {
        cv_client_run(&running->client);
    } else {
        cv_cli_complain(status.id, &error);
        running->client.exit_code = cv_cli_exit_code(status.id);
    }
    cv_forward_free(&running->forward);
    return cv_client_close(&running->client);
}

int cv_cli_forward(int argc, const char *const *argv)
{
    struct values values = {0};
    struct cv_parsed parsed;
    struct running running = {0};
    char listen[300];
    int exit_code;
    if (!cv_cli_parse(&cv_cli_forward_command, argc, argv, &values, &parsed, &exit_code))
        return exit_code;
    /* A bare port means this machine only. */
    bool has_host = strchr(parsed.operands[0], ':') != NULL;
    (void)snprintf(listen, sizeof listen, "%s%s", has_host ? "" : "127.0.0.1:", parsed.operands[0]);
    running.tunnel = parsed.operands[1];
    struct cv_client_options client = {.config_path = values.config_path, .is_interactive = true};
    if (!cv_client_open(&running.client, &client, &parsed, &exit_code))
        return exit_code;
    return run(&running, listen);
}
