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
};

static const struct cv_option options[] = {
    CV_OPT_TEXT(struct values, config_path, "config", 'c', "FILE", "The YAML file."),
    CV_OPT_FLAG(struct values, is_dev, "dev", 0, "Check as for `culvert server --dev`."),
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

/* Rules across settings, such as TLS beside public addresses, belong to the start, where flags may
 * add what is missing; here every setting is checked by itself. */
static struct cv_status load(const struct cv_schema *schema, void *values,
                             const struct values *options_given, struct cv_problems *problems)
{
    struct cv_config_sources sources = {.path = options_given->config_path,
                                        .env = (const char *const *)environ,
                                        .is_dev = options_given->is_dev};
    return cv_settings_load(schema, values, &sources, problems);
}

static int show(const struct cv_schema *schema, const void *values)
{
    struct cv_buf text;
    cv_buf_init(&text, 1024 * 1024);
    struct cv_status status = cv_settings_show(schema, values, true, &text);
    (void)fwrite(cv_buf_head(&text), 1, cv_buf_len(&text), stdout);
    cv_buf_done(&text);
    return cv_is_ok(status) ? CV_EXIT_OK : CV_EXIT_FAILED;
}

int cv_cli_config(int argc, const char *const *argv)
{
    struct values given = {0};
    struct cv_parsed parsed;
    union {
        struct cv_relay_config relay;
        struct cv_agent_config agent;
    } values = {0};
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
    struct cv_problems problems;
    cv_problems_init(&problems);
    struct cv_status status = load(schema, &values, &given, &problems);
    exit_code = cv_is_ok(status) ? CV_EXIT_OK : CV_EXIT_FAILED;
    if (!cv_is_ok(status))
        cv_cli_print_problems(&problems);
    else if (is_check)
        (void)printf("%s: good, %s settings\n",
                     given.config_path ? given.config_path : "environment", schema->name);
    else
        exit_code = show(schema, &values);
    cv_problems_done(&problems);
    cv_settings_done(schema, &values);
    return exit_code;
}
