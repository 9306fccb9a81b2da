/* SPDX-License-Identifier: MIT
 *
 * `culvert config check|show`.
 */
#include "cli/cli.h"
#include "config/agent_config.h"
#include "config/config_kind.h"
#include "config/relay_config.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct values {
    const char *config_path;
    bool is_dev;
    bool is_json;
};

static const struct cv_option options[] = {
    CV_OPT_TEXT(struct values, config_path, "config", 'c', "FILE", "The YAML file."),
    CV_OPT_FLAG(struct values, is_dev, "dev", 0, "Check as for `culvert server --dev`."),
    CV_OPT_FLAG(struct values, is_json, "json", 0, "show: print JSON instead of YAML."),
    CV_OPT_HELP,
};

const struct cv_command cv_cli_config_command = {
    .name = "config",
    .operands = "check|show",
    .operand_min = 1,
    .operand_max = 1,
    .summary = "Check or show settings",
    .description =
        "check: reads the file and the environment and names every mistake with file, line, key,\n"
        "value and what is allowed. show: prints all settings as they are in force, and where "
        "each\n"
        "came from; secrets are masked. The file may be a relay's or an agent's.\n",
    .examples = "  culvert config check -c relay.yaml\n"
                "  culvert config show -c agent.yaml\n",
    .options = options,
    .option_count = sizeof options / sizeof options[0],
};

/* Every rule that holds at the start, such as TLS beside public addresses. */
static int check(bool is_agent, const struct cv_config_sources *sources,
                 struct cv_problems *problems)
{
    struct cv_relay_config *relay = NULL;
    struct cv_agent_config *agent = NULL;
    struct cv_status status = is_agent ? cv_agent_config_load(sources, &agent, problems)
                                       : cv_relay_config_load(sources, &relay, problems);
    cv_agent_config_free(&agent);
    cv_relay_config_free(&relay);
    if (!cv_is_ok(status))
        return CV_EXIT_FAILED;
    (void)printf("%s: good, %s settings\n", sources->path ? sources->path : "environment",
                 is_agent ? "agent" : "relay");
    return CV_EXIT_OK;
}

/* What is there so far, whether it is enough for a start or not. */
static int show(const struct cv_schema *schema, const struct cv_config_sources *sources,
                bool is_json, struct cv_problems *problems)
{
    union {
        struct cv_relay_config relay;
        struct cv_agent_config agent;
    } values = {0};
    struct cv_buf text;
    cv_buf_init(&text, 1024 * 1024);
    struct cv_status status = cv_settings_load(schema, &values, sources, problems);
    if (cv_is_ok(status))
        status = is_json ? cv_settings_show_json(schema, &values, &text)
                         : cv_settings_show(schema, &values, true, &text);
    if (cv_is_ok(status) && is_json)
        status = cv_buf_append_byte(&text, '\n');
    cv_settings_done(schema, &values);
    cv_cli_print(&text, stdout);
    cv_buf_done(&text);
    return cv_is_ok(status) ? CV_EXIT_OK : CV_EXIT_FAILED;
}

int cv_cli_config(int argc, const char *const *argv)
{
    struct values given = {0};
    struct cv_parsed parsed;
    int exit_code;
    if (!cv_cli_parse(&cv_cli_config_command, argc, argv, &given, &parsed, &exit_code))
        return exit_code;
    bool is_check = strcmp(parsed.operands[0], "check") == 0;
    if (!is_check && strcmp(parsed.operands[0], "show") != 0) {
        (void)fprintf(stderr, "culvert config: `check` or `show` is needed\n");
        return CV_EXIT_USAGE;
    }
    const struct cv_schema *schema =
        given.config_path ? cv_config_kind(given.config_path) : &cv_relay_schema;
    struct cv_config_sources sources = {
        .path = given.config_path, .env = (const char *const *)environ, .is_dev = given.is_dev};
    struct cv_problems problems;
    cv_problems_init(&problems);
    exit_code = is_check ? check(schema == &cv_agent_schema, &sources, &problems)
                         : show(schema, &sources, given.is_json, &problems);
    if (problems.count || exit_code != CV_EXIT_OK)
        cv_cli_print_problems(&problems);
    cv_problems_done(&problems);
    return cv_cli_end_output(exit_code);
}
