/* SPDX-License-Identifier: MIT
 *
 * `culvert agent`: the tunnels of a configuration file, as a service.
 */
#include "cli/publish.h"

struct values {
    const char *config_path;
};

static const struct cv_option options[] = {
    CV_OPT_TEXT(struct values, config_path, "config", 'c', "FILE",
                "Read settings and tunnels from a YAML file."),
    CV_CLIENT_OPTIONS,
    CV_OPT_HELP,
};

const struct cv_command cv_cli_agent_command = {
    .name = "agent",
    .operands = "",
    .summary = "Publish the tunnels of a configuration file",
    .description =
        "Dials the relay and publishes all tunnels of its configuration, for as long as it runs;\n"
        "comes back by itself whatever happens to the network. docs/configuration.md has every\n"
        "setting. SIGTERM lets requests end first.\n",
    .examples = "  culvert agent -c /etc/culvert/agent.yaml\n"
                "  culvert config check -c /etc/culvert/agent.yaml\n",
    .options = options,
    .option_count = sizeof options / sizeof options[0],
};

int cv_cli_agent(int argc, const char *const *argv)
{
    struct values values = {0};
    struct cv_parsed parsed;
    int exit_code;
    if (!cv_cli_parse(&cv_cli_agent_command, argc, argv, &values, &parsed, &exit_code))
        return exit_code;
    struct cv_client_options client = {.config_path = values.config_path};
    return cv_cli_run_agent(&client, &parsed);
}
