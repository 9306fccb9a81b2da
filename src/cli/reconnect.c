/* SPDX-License-Identifier: MIT
 *
 * `culvert reconnect`: has the agents that run here make new connections at once.
 */
#include "cli/agents.h"
#include "cli/cli.h"

struct values {
    const char *server;
    bool is_json;
};

static const struct cv_option options[] = {
    CV_OPT_TEXT(struct values, server, "server", 's', "URL", "Only links to this relay."),
    CV_OPT_FLAG(struct values, is_json, "json", 0, "Print JSON."),
    CV_OPT_HELP,
};

const struct cv_command cv_cli_reconnect_command = {
    .name = "reconnect",
    .operands = "",
    .summary = "Have the agents that run here connect anew",
    .description =
        "Tells every agent that shares the state folder (CULVERT_STATE_DIR) to make a new\n"
        "connection now: one that waits or rests tries at once, one that is connected takes its\n"
        "link up again on a new connection, and requests go on. It returns once all are told;\n"
        "`culvert status` shows what came of it. Exit code 0, or 1 when none runs or one is\n"
        "silent.\n",
    .examples = "  culvert reconnect\n"
                "  culvert reconnect --server wss://relay.example.org\n",
    .options = options,
    .option_count = sizeof options / sizeof options[0],
};

/* Adds to `list` what came of it. False: the agent does not answer. */
static bool tell(const struct cv_found_agent *agent, const char *question, bool is_quiet,
                 json_t *list)
{
    struct cv_error error = agent->error;
    json_t *answer = NULL;
    bool is_told = agent->status && cv_is_ok(cv_agents_ask(agent, question, &answer, &error));
    json_int_t links = json_integer_value(json_object_get(answer, "reconnecting"));
    json_decref(answer);
    if (is_told)
        (void)json_array_append_new(
            list, json_pack("{s:I, s:I}", "pid", (json_int_t)agent->pid, "reconnecting", links));
    else
        (void)json_array_append_new(list, json_pack("{s:I, s:{s:s}}", "pid", (json_int_t)agent->pid,
                                                    "error", "message", error.detail));
    if (is_quiet)
        return is_told;
    (void)printf("agent %ld  ", agent->pid);
    if (is_told)
        (void)printf("%lld link%s connect%s anew\n", (long long)links, links == 1 ? "" : "s",
                     links == 1 ? "s" : "");
    else
        cv_agents_print_text(error.detail, stdout);
    if (!is_told)
        (void)printf("\n");
    return is_told;
}

int cv_cli_reconnect(int argc, const char *const *argv)
{
    struct values values = {0};
    struct cv_parsed parsed;
    struct cv_agents agents;
    struct cv_error error = {0};
    int exit_code;
    if (!cv_cli_parse(&cv_cli_reconnect_command, argc, argv, &values, &parsed, &exit_code))
        return exit_code;
    struct cv_status status = cv_agents_find(values.server, &agents, &error);
    if (!cv_is_ok(status))
        return cv_cli_end_output(cv_agents_complain(status, &error));
    json_t *question = json_pack("{s:s, s:s*}", "command", "reconnect", "relay",
                                 agents.relay[0] ? agents.relay : NULL);
    json_t *list = json_array(), *value = json_pack("{s:O}", "agents", list);
    char *words = question ? cv_json_text(question) : NULL;
    exit_code = words && list ? CV_EXIT_OK : CV_EXIT_FAILED;
    for (size_t i = 0; words && list && i < agents.count; i++)
        if (!tell(&agents.items[i], words, values.is_json, list))
            exit_code = CV_EXIT_FAILED;
    char *text = values.is_json && value ? cv_json_text(value) : NULL;
    if (text)
        (void)printf("%s\n", text);
    free(text);
    free(words);
    json_decref(value);
    json_decref(list);
    json_decref(question);
    cv_agents_free(&agents);
    return cv_cli_end_output(exit_code);
}
