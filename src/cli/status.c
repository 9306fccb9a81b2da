/* SPDX-License-Identifier: MIT
 *
 * `culvert status`: how the agents are that run here.
 */
#include "cli/agents.h"
#include "cli/cli.h"

struct values {
    const char *server;
    bool is_json;
};

static const struct cv_option options[] = {
    CV_OPT_TEXT(struct values, server, "server", 's', "URL",
                "Only agents with a link to this relay."),
    CV_OPT_FLAG(struct values, is_json, "json", 0, "Print JSON, docs/PROTOCOL.md has its fields."),
    CV_OPT_HELP,
};

const struct cv_command cv_cli_status_command = {
    .name = "status",
    .operands = "",
    .summary = "Show the agents that run here",
    .description =
        "Asks every agent that shares the state folder (CULVERT_STATE_DIR) how its links and\n"
        "tunnels are. Exit code 0 when all have answered, 1 when none runs or one is silent.\n",
    .examples = "  culvert status\n"
                "  culvert status --server wss://relay.example.org --json\n",
    .options = options,
    .option_count = sizeof options / sizeof options[0],
};

/* ---- for people ---- */

static const char *text_of(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text ? text : "";
}

static unsigned long long number_of(const json_t *object, const char *name)
{
    json_int_t value = json_integer_value(json_object_get(object, name));
    return value > 0 ? (unsigned long long)value : 0;
}

static void print_duration(unsigned long long ms)
{
    unsigned long long s = ms / 1000;
    if (s >= 86400)
        (void)printf("%llu d %llu h", s / 86400, s / 3600 % 24);
    else if (s >= 3600)
        (void)printf("%llu h %llu min", s / 3600, s / 60 % 60);
    else if (s >= 60)
        (void)printf("%llu min %llu s", s / 60, s % 60);
    else
        (void)printf("%llu s", s);
}

static void print_link(const json_t *link)
{
    const json_t *error = json_object_get(link, "error");
    (void)printf("  link    ");
    cv_agents_print_text(text_of(link, "relay"), stdout);
    (void)printf("  ");
    cv_agents_print_text(text_of(link, "state"), stdout);
    (void)printf(" for ");
    print_duration(number_of(link, "state_ms"));
    const json_t *quality = json_object_get(link, "quality");
    if (strcmp(text_of(quality, "grade"), "unknown") != 0 && text_of(quality, "grade")[0]) {
        (void)printf(", ");
        cv_agents_print_text(text_of(quality, "grade"), stdout);
        (void)printf(" (%.0f ms, jitter %.0f ms, loss %.1f %%)",
                     json_number_value(json_object_get(quality, "latency_ms")),
                     json_number_value(json_object_get(quality, "jitter_ms")),
                     json_number_value(json_object_get(quality, "loss_percent")));
    } else if (json_is_integer(json_object_get(link, "rtt_ms"))) {
        (void)printf(", round trip %llu ms", number_of(link, "rtt_ms"));
    }
    if (number_of(link, "streams"))
        (void)printf(", streams %llu", number_of(link, "streams"));
    if (number_of(link, "resumes"))
        (void)printf(", resumed %llu (%llu bytes sent again)", number_of(link, "resumes"),
                     number_of(link, "replayed_bytes"));
    if (number_of(link, "failures"))
        (void)printf(", failed tries %llu", number_of(link, "failures"));
    if (json_is_integer(json_object_get(link, "next_try_ms")))
        (void)printf(", next in %.1f s", (double)number_of(link, "next_try_ms") / 1000);
    if (json_is_true(json_object_get(link, "retiring")))
        (void)printf(", leaving: another link has its place");
    (void)printf("\n");
    if (!json_is_object(error))
        return;
    (void)printf("          ");
    cv_agents_print_text(text_of(error, "message"), stdout);
    if (text_of(error, "code")[0]) {
        (void)printf(" (");
        cv_agents_print_text(text_of(error, "code"), stdout);
        (void)printf(")");
    }
    (void)printf("\n");
}

/* What the relay has found out about the service; that a link is up says nothing about it. */
static void print_health(const char *health)
{
    static const struct {
        const char *health, *text;
    } words[] = {
        {"active", ", the service answers"},
        {"service_slow", ", THE SERVICE IS SLOW OR LOADING"},
        {"service_down", ", THE SERVICE IS DOWN"},
        {"unknown", ", nobody has seen its service yet"},
    };
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcmp(health, words[i].health) == 0)
            (void)printf("%s", words[i].text);
}

static void print_tunnel(const json_t *tunnel)
{
    (void)printf("  tunnel  ");
    cv_agents_print_text(text_of(tunnel, "name"), stdout);
    (void)printf("  ");
    cv_agents_print_text(text_of(tunnel, "state"), stdout);
    print_health(text_of(tunnel, "health"));
    (void)printf("  ");
    if (text_of(tunnel, "url")[0]) {
        cv_agents_print_text(text_of(tunnel, "url"), stdout);
        (void)printf(" -> ");
    }
    cv_agents_print_text(text_of(tunnel, "target"), stdout);
    if (text_of(tunnel, "reason")[0]) {
        (void)printf(": ");
        cv_agents_print_text(text_of(tunnel, "reason"), stdout);
    }
    (void)printf("\n");
}

static void print_forward(const json_t *forward)
{
    (void)printf("  port    ");
    cv_agents_print_text(text_of(forward, "address"), stdout);
    (void)printf(" -> ");
    cv_agents_print_text(text_of(forward, "tunnel"), stdout);
    (void)printf(", connections %llu", number_of(forward, "connections"));
    if (number_of(forward, "waiting"))
        (void)printf(", waiting %llu", number_of(forward, "waiting"));
    (void)printf("\n");
}

static void print_agent(const struct cv_found_agent *agent)
{
    const json_t *links = json_object_get(agent->status, "links");
    const json_t *tunnels = json_object_get(agent->status, "tunnels");
    const json_t *forwards = json_object_get(agent->status, "forwards");
    (void)printf("%s %ld  ", json_array_size(forwards) ? "forward" : "agent", agent->pid);
    if (!agent->status) {
        cv_agents_print_text(agent->error.detail, stdout);
        (void)printf("\n");
        return;
    }
    (void)printf("%s for ",
                 json_is_true(json_object_get(agent->status, "stopping")) ? "stopping" : "runs");
    print_duration(number_of(agent->status, "age_ms"));
    (void)printf("\n");
    for (size_t i = 0; i < json_array_size(links); i++)
        print_link(json_array_get(links, i));
    for (size_t i = 0; i < json_array_size(tunnels); i++)
        print_tunnel(json_array_get(tunnels, i));
    for (size_t i = 0; i < json_array_size(forwards); i++)
        print_forward(json_array_get(forwards, i));
}

/* ---- for programs ---- */

static json_t *value_of(const struct cv_found_agent *agent)
{
    if (agent->status)
        return json_incref(agent->status);
    return json_pack("{s:I, s:{s:s, s:s}}", "pid", (json_int_t)agent->pid, "error", "code",
                     cv_status_code(agent->error.id), "message", agent->error.detail);
}

static struct cv_status print_json(const struct cv_agents *agents)
{
    json_t *list = json_array();
    bool is_whole = list != NULL;
    for (size_t i = 0; i < agents->count; i++)
        is_whole &= json_array_append_new(list, value_of(&agents->items[i])) == 0;
    json_t *value = json_pack("{s:o}", "agents", list);
    char *text = value && is_whole ? cv_json_text(value) : NULL;
    if (text)
        (void)printf("%s\n", text);
    bool is_printed = text != NULL;
    free(text);
    json_decref(value);
    return cv_status(is_printed ? CV_OK : CV_NO_MEMORY);
}

int cv_cli_status(int argc, const char *const *argv)
{
    struct values values = {0};
    struct cv_parsed parsed;
    struct cv_agents agents;
    struct cv_error error = {0};
    int exit_code;
    if (!cv_cli_parse(&cv_cli_status_command, argc, argv, &values, &parsed, &exit_code))
        return exit_code;
    struct cv_status status = cv_agents_find(values.server, &agents, &error);
    if (status.id == CV_NOT_FOUND && values.is_json)
        (void)printf("{\"agents\":[]}\n");
    if (!cv_is_ok(status))
        return cv_cli_end_output(cv_agents_complain(status, &error));
    exit_code = CV_EXIT_OK;
    for (size_t i = 0; i < agents.count; i++) {
        if (!values.is_json)
            print_agent(&agents.items[i]);
        if (!agents.items[i].status)
            exit_code = CV_EXIT_FAILED;
    }
    if (values.is_json && !cv_is_ok(print_json(&agents)))
        exit_code = CV_EXIT_FAILED;
    cv_agents_free(&agents);
    return cv_cli_end_output(exit_code);
}
