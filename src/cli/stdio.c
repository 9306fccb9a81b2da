/* SPDX-License-Identifier: MIT
 *
 * `culvert stdio`: ProxyCommand for SSH clients.
 */
#include "agent/stdio_link.h"
#include "cli/client.h"

#include <unistd.h>

struct values {
    const char *config_path;
};

static const struct cv_option options[] = {
    CV_OPT_TEXT(struct values, config_path, "config", 'c', "FILE",
                "Read settings, such as `servers`, from a YAML file. Its tunnels do not count."),
    CV_CLIENT_OPTIONS,
    CV_OPT_HELP,
};

const struct cv_command cv_cli_stdio_command = {
    .name = "stdio",
    .operands = "",
    .summary = "Carry an SSH client's bytes, as its ProxyCommand",
    .description =
        "Connects standard input and output with the relay, so that an ordinary SSH client can\n"
        "publish (-R) and reach (-L) tunnels. The SSH user name does not matter: the token says\n"
        "who you are.\n",
    .examples = "  ssh -o ProxyCommand='culvert stdio --server wss://relay.example.org' \\\n"
                "      -N -R home:80:127.0.0.1:11434 relay\n"
                "  ssh -o ProxyCommand='culvert stdio --server wss://relay.example.org' \\\n"
                "      -N -L 9000:home:80 relay\n",
    .options = options,
    .option_count = sizeof options / sizeof options[0],
};

struct running {
    struct cv_client client;
    struct cv_stdio *stdio;
};

static void on_ended(void *arg, struct cv_status why, const struct cv_error *error)
{
    struct running *running = arg;
    cv_client_end(&running->client, why, error);
}

static void on_stop(void *arg)
{
    struct running *running = arg;
    cv_stdio_stop(running->stdio);
}

int cv_cli_stdio(int argc, const char *const *argv)
{
    struct values values = {0};
    struct cv_parsed parsed;
    struct running running = {0};
    int exit_code;
    if (!cv_cli_parse(&cv_cli_stdio_command, argc, argv, &values, &parsed, &exit_code))
        return exit_code;
    struct cv_client_options client = {
        .config_path = values.config_path, .is_interactive = true, .is_quiet = true};
    if (!cv_client_open(&running.client, &client, &parsed, &exit_code))
        return exit_code;
    running.client.on_stop = on_stop;
    running.client.arg = &running;
    struct cv_error error = {0};
    struct cv_stdio_options stdio = {.accesses = running.client.accesses,
                                     .access_count = running.client.access_count,
                                     .fd_in = STDIN_FILENO,
                                     .fd_out = STDOUT_FILENO};
    struct cv_status status =
        cv_stdio_new(running.client.worker, &stdio, on_ended, &running, &running.stdio, &error);
    if (cv_is_ok(status)) {
        cv_client_run(&running.client);
    } else {
        cv_cli_complain(status.id, &error);
        running.client.exit_code = cv_cli_exit_code(status.id);
    }
    cv_stdio_free(&running.stdio);
    return cv_client_close(&running.client);
}
