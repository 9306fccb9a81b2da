/* SPDX-License-Identifier: MIT
 *
 * `culvert config`: settings looked at (here) and changed (config_write.c).
 */
#include "cli/cli.h"
#include "cli/config_write.h"
#include "config/agent_config.h"
#include "config/config_kind.h"
#include "config/profiles.h"
#include "config/relay_config.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct values {
    const char *config_path;
    bool is_dev;
    bool is_json;
    bool is_all;
};

static const struct cv_option options[] = {
    CV_OPT_TEXT(struct values, config_path, "config", 'c', "FILE", "The YAML file."),
    CV_OPT_FLAG(struct values, is_dev, "dev", 0, "Check as for `culvert server --dev`."),
    CV_OPT_FLAG(struct values, is_json, "json", 0, "show: print JSON instead of YAML."),
    CV_OPT_FLAG(struct values, is_all, "all", 0, "reset: all settings that have a default."),
    CV_OPT_HELP,
};

const struct cv_command cv_cli_config_command = {
    .name = "config",
    .operands = "check|show|set KEY VALUE|reset KEY|profiles [NAME]|edit",
    .operand_min = 1,
    .operand_max = 3,
    .summary = "Check, show or change settings",
    .description =
        "check: reads the file and the environment and names every mistake with file, line, key,\n"
        "value and what is allowed. show: prints all settings as they are in force, and where "
        "each\n"
        "came from; secrets are masked. The file may be a relay's or an agent's.\n"
        "set, reset: change one key in the file and nothing else of it; comments stay. profiles:\n"
        "lists sets of settings for kinds of networks, or writes one into the file. edit: opens "
        "the\n"
        "file in $VISUAL, $EDITOR or vi. A file is checked before it takes the place of the old "
        "one,\n"
        "and agents that run with it are told; what takes a restart is said.\n",
    .examples = "  culvert config check -c relay.yaml\n"
                "  culvert config show -c agent.yaml\n"
                "  culvert config set reconnect.max 30s -c agent.yaml\n"
                "  culvert config reset reconnect.max -c agent.yaml\n"
                "  culvert config profiles unstable-network -c agent.yaml\n",
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

static int look(bool is_check, const struct values *given)
{
    const struct cv_schema *schema =
        given->config_path ? cv_config_kind(given->config_path) : &cv_relay_schema;
    struct cv_config_sources sources = {
        .path = given->config_path, .env = (const char *const *)environ, .is_dev = given->is_dev};
    struct cv_problems problems;
    cv_problems_init(&problems);
    int exit_code = is_check ? check(schema == &cv_agent_schema, &sources, &problems)
                             : show(schema, &sources, given->is_json, &problems);
    if (problems.count || exit_code != CV_EXIT_OK)
        cv_cli_print_problems(&problems);
    cv_problems_done(&problems);
    return cv_cli_end_output(exit_code);
}

static int list_profiles(void)
{
    size_t count;
    const struct cv_profile *profiles = cv_profiles(&count);
    for (size_t i = 0; i < count; i++) {
        (void)printf("%s%s\n  %s\n", i ? "\n" : "", profiles[i].name, profiles[i].summary);
        for (size_t k = 0; k < CV_PROFILE_SETTINGS; k++)
            (void)printf("    %s: %s\n", profiles[i].settings[k].key,
                         profiles[i].settings[k].value);
    }
    return cv_cli_end_output(CV_EXIT_OK);
}

static int write_profile(const char *path, const char *name)
{
    const struct cv_profile *profile = cv_profile_find(name);
    struct cv_config_change changes[CV_PROFILE_SETTINGS];
    if (!profile) {
        (void)fprintf(stderr,
                      "culvert config: there is no profile `%s`; `culvert config profiles` "
                      "lists them\n",
                      name);
        return CV_EXIT_USAGE;
    }
    for (size_t i = 0; i < CV_PROFILE_SETTINGS; i++)
        changes[i] = (struct cv_config_change){.key = profile->settings[i].key,
                                               .value = profile->settings[i].value};
    return cv_config_write(path, changes, CV_PROFILE_SETTINGS);
}

static int complain_usage(const char *what)
{
    (void)fprintf(stderr, "culvert config: %s\nTry `culvert config --help`.\n", what);
    return CV_EXIT_USAGE;
}

static int change(const struct values *given, const struct cv_parsed *parsed)
{
    const char *verb = parsed->operands[0];
    size_t count = parsed->operand_count;
    struct cv_config_change one = {.key = parsed->operands[1], .value = parsed->operands[2]};
    bool is_set = strcmp(verb, "set") == 0, is_reset = strcmp(verb, "reset") == 0;
    bool is_profiles = strcmp(verb, "profiles") == 0, is_edit = strcmp(verb, "edit") == 0;
    if (!is_set && !is_reset && !is_profiles && !is_edit)
        return complain_usage("`check`, `show`, `set`, `reset`, `profiles` or `edit` is needed");
    if (is_profiles && count == 1)
        return list_profiles();
    if (!given->config_path)
        return complain_usage("-c FILE says which file");
    if ((is_set && count != 3) || (is_reset && count != (given->is_all ? 1 : 2)) ||
        (is_profiles && count != 2) || (is_edit && count != 1))
        return complain_usage(is_set     ? "set takes a key and a value"
                              : is_reset ? "reset takes a key, or --all"
                                         : "too many words");
    if (is_edit)
        return cv_config_edit(given->config_path);
    if (is_profiles)
        return write_profile(given->config_path, parsed->operands[1]);
    if (given->is_all)
        return cv_config_reset_all(given->config_path);
    if (is_reset)
        one.value = NULL;
    return cv_config_write(given->config_path, &one, 1);
}

int cv_cli_config(int argc, const char *const *argv)
{
    struct values given = {0};
    struct cv_parsed parsed;
    int exit_code;
    if (!cv_cli_parse(&cv_cli_config_command, argc, argv, &given, &parsed, &exit_code))
        return exit_code;
    bool is_check = strcmp(parsed.operands[0], "check") == 0;
    bool is_show = strcmp(parsed.operands[0], "show") == 0;
    if (!is_check && !is_show)
        return change(&given, &parsed);
    return parsed.operand_count == 1 ? look(is_check, &given) : complain_usage("too many words");
}
