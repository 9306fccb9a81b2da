/* SPDX-License-Identifier: MIT
 *
 * `culvert http` and `culvert tcp`: one tunnel to one target, all from the command line.
 */
#include "cli/publish.h"
#include "config/agent_config.h"
#include "config/value.h"

#include <stddef.h>
#include <stdio.h>

struct values {
    bool is_public;
};

#define NAME_OPTION                                                                                \
    CV_OPT_SETTING("tunnels[0].name", "name", 'n', "NAME",                                         \
                   "The tunnel's name; without it the port's number.")

static const struct cv_option http_options[] = {
    CV_CLIENT_OPTIONS,
    NAME_OPTION,
    CV_OPT_SETTING("tunnels[0].preset", "preset", 'p', "ollama|openai|none",
                   "Headers, timers and rules that fit the service; ollama when the port is "
                   "11434, else none."),
    CV_OPT_SETTING("tunnels[0].share", "share", 0, "SUBJECT,group:NAME,...",
                   "Let other users of the relay in, at /t/OWNER~NAME/, by the subject of their "
                   "token or a group in it."),
    CV_OPT_FLAG(struct values, is_public, "public", 0,
                "Let anybody in there, without a token, where the relay permits that."),
    CV_OPT_HELP,
};

static const struct cv_option tcp_options[] = {CV_CLIENT_OPTIONS, NAME_OPTION, CV_OPT_HELP};

const struct cv_command cv_cli_http_command = {
    .name = "http",
    .operands = "PORT|HOST:PORT|URL",
    .operand_min = 1,
    .operand_max = 1,
    .summary = "Publish a local HTTP service",
    .description =
        "Dials the relay and publishes a local HTTP service there, until Ctrl-C. Consumers reach\n"
        "it at <relay>/t/NAME/ with a token of the same user. The token comes from CULVERT_TOKEN\n"
        "or --token-file.\n",
    .examples = "  culvert http 11434 --server wss://relay.example.org --name home\n"
                "  culvert http 8000 --preset openai --server wss://relay.example.org\n"
                "  culvert http 8000 --share bob,group:lab --server wss://relay.example.org\n",
    .options = http_options,
    .option_count = sizeof http_options / sizeof http_options[0],
};

const struct cv_command cv_cli_tcp_command = {
    .name = "tcp",
    .operands = "PORT|HOST:PORT",
    .operand_min = 1,
    .operand_max = 1,
    .summary = "Publish a local TCP service",
    .description =
        "Dials the relay and publishes a local port there, byte for byte, until Ctrl-C. It is\n"
        "reached with `culvert forward`, or `ssh -L`, by the same user.\n",
    .examples = "  culvert tcp 5432 --server wss://relay.example.org --name db\n",
    .options = tcp_options,
    .option_count = sizeof tcp_options / sizeof tcp_options[0],
};

int cv_cli_publish_target(const struct cv_target_command *target, int argc, const char *const *argv)
{
    struct values values = {0};
    struct cv_parsed parsed;
    struct cv_hostport hostport;
    int exit_code;
    if (!cv_cli_parse(target->command, argc, argv, &values, &parsed, &exit_code))
        return exit_code;
    if (!cv_target_parse(cv_slice_str(parsed.operands[0]), &hostport)) {
        (void)fprintf(stderr,
                      "culvert %s: the target must be a port (1 to 65535), HOST:PORT or "
                      "http://HOST[:PORT]\nTry `culvert %s --help`.\n",
                      target->command->name, target->command->name);
        return CV_EXIT_USAGE;
    }
    char name[8];
    (void)snprintf(name, sizeof name, "%u", (unsigned)hostport.port);
    bool fits = cv_client_override(&parsed, "tunnels[0].target", parsed.operands[0], "TARGET") &&
                cv_client_override(&parsed, "tunnels[0].kind", target->kind, "TARGET");
    if (fits && !cv_client_has_override(&parsed, "tunnels[0].name"))
        fits = cv_client_override(&parsed, "tunnels[0].name", name, "--name");
    if (fits && values.is_public)
        fits = cv_client_override(&parsed, "tunnels[0].public", "true", "--public");
    if (!fits) {
        cv_cli_complain(CV_USAGE, NULL);
        return CV_EXIT_USAGE;
    }
    struct cv_client_options options = {.is_interactive = true};
    return cv_cli_run_agent(&options, &parsed);
}

int cv_cli_http(int argc, const char *const *argv)
{
    struct cv_target_command target = {.command = &cv_cli_http_command, .kind = "http"};
    return cv_cli_publish_target(&target, argc, argv);
}

int cv_cli_tcp(int argc, const char *const *argv)
{
    struct cv_target_command target = {.command = &cv_cli_tcp_command, .kind = "tcp"};
    return cv_cli_publish_target(&target, argc, argv);
}
