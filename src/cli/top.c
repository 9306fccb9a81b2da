/* SPDX-License-Identifier: MIT
 *
 * `culvert top`: the agents that run here, live.
 */
#include "cli/agents.h"
#include "cli/cli.h"
#include "cli/view.h"
#include "net/net.h"
#include "net/worker.h"

#include <signal.h>
#include <stdlib.h>

enum { LOOK_MS = 1000, PICTURE_MAX = 256 * 1024, COUNT_MAX = 1000000 };

struct values {
    const char *server;
    const char *count;
    bool is_json;
};

static const struct cv_option options[] = {
    CV_OPT_TEXT(struct values, server, "server", 's', "URL",
                "Only agents with a link to this relay."),
    CV_OPT_TEXT(struct values, count, "count", 0, "N",
                "End after N looks; 1 when the output is no terminal."),
    CV_OPT_FLAG(struct values, is_json, "json", 0,
                "A line of JSON for each look, docs/PROTOCOL.md has its fields."),
    CV_OPT_HELP,
};

const struct cv_command cv_cli_top_command = {
    .name = "top",
    .operands = "",
    .summary = "Watch the agents that run here",
    .description =
        "Asks every agent that shares the state folder (CULVERT_STATE_DIR) once a second how its\n"
        "links and tunnels are, and shows it until Ctrl-C. `culvert status` asks once.\n",
    .examples = "  culvert top\n"
                "  culvert top --json --count 10\n",
    .options = options,
    .option_count = sizeof options / sizeof options[0],
};

struct top {
    struct values values;
    struct cv_worker *worker;
    struct cv_timer timer;
    struct cv_view view;
    uint64_t left; /* looks; 0: without end */
    int exit_code;
};

static void show(struct top *top, const struct cv_agents *agents, const char *complaint)
{
    struct cv_buf text;
    cv_buf_init(&text, PICTURE_MAX);
    struct cv_status status = complaint ? cv_buf_printf(&text, "%s\n", complaint) : cv_ok();
    for (size_t i = 0; cv_is_ok(status) && i < agents->count; i++) {
        const struct cv_found_agent *agent = &agents->items[i];
        status = agent->status
                     ? cv_view_agent(agent->status, &text)
                     : cv_buf_printf(&text, "agent %ld  %s\n", agent->pid, agent->error.detail);
    }
    /* A picture that does not fit is shown as far as it goes. */
    if (top->view.is_terminal)
        cv_view_show(&top->view, &text);
    else
        cv_cli_print(&text, stdout);
    cv_buf_done(&text);
}

static void show_json(const struct cv_agents *agents)
{
    json_t *list = json_array();
    for (size_t i = 0; i < agents->count; i++)
        if (agents->items[i].status)
            (void)json_array_append(list, agents->items[i].status);
    json_t *value = json_pack("{s:o}", "agents", list);
    char *text = value ? cv_json_text(value) : NULL;
    if (text)
        (void)printf("%s\n", text);
    free(text);
    json_decref(value);
}

static void look(void *arg)
{
    struct top *top = arg;
    struct cv_agents agents = {0};
    struct cv_error error = {0};
    struct cv_status status = cv_agents_find(top->values.server, &agents, &error);
    top->exit_code = cv_is_ok(status) ? CV_EXIT_OK : cv_cli_exit_code(status.id);
    bool is_empty = status.id == CV_NOT_FOUND;
    if (!cv_is_ok(status) && !is_empty) {
        cv_cli_complain(status.id, &error);
        cv_worker_stop(top->worker);
        return;
    }
    if (is_empty)
        top->exit_code = CV_EXIT_FAILED;
    if (top->values.is_json)
        show_json(&agents);
    else
        show(top, &agents, is_empty ? error.detail : NULL);
    cv_agents_free(&agents);
    if (fflush(stdout) != 0 || (top->left && --top->left == 0) ||
        !cv_is_ok(cv_worker_timer_start(top->worker, &top->timer, LOOK_MS)))
        cv_worker_stop(top->worker);
}

static void on_signal(void *arg, int signo)
{
    struct top *top = arg;
    (void)signo;
    cv_worker_stop(top->worker);
}

static struct cv_status run(struct top *top, struct cv_error *error)
{
    CV_RETURN_IF_ERROR(cv_net_init());
    struct cv_status status = cv_worker_new(0, &top->worker, error);
    if (cv_is_ok(status))
        status = cv_worker_on_signal(top->worker, SIGINT, on_signal, top);
    if (cv_is_ok(status))
        status = cv_worker_on_signal(top->worker, SIGTERM, on_signal, top);
    cv_timer_init(&top->timer, look, top);
    if (cv_is_ok(status))
        status = cv_worker_timer_start(top->worker, &top->timer, 0);
    if (cv_is_ok(status))
        cv_worker_run(top->worker);
    cv_worker_free(&top->worker);
    cv_net_done();
    return status;
}

int cv_cli_top(int argc, const char *const *argv)
{
    struct top top = {0};
    struct cv_parsed parsed;
    struct cv_error error = {0};
    int exit_code;
    if (!cv_cli_parse(&cv_cli_top_command, argc, argv, &top.values, &parsed, &exit_code))
        return exit_code;
    if (top.values.count &&
        (!cv_slice_to_u64(cv_slice_str(top.values.count), COUNT_MAX, &top.left) || !top.left)) {
        (void)fprintf(stderr, "culvert top: --count is a number from 1 to %d\n", COUNT_MAX);
        return CV_EXIT_USAGE;
    }
    cv_view_init(&top.view);
    if (!top.values.count && !top.view.is_terminal && !top.values.is_json)
        top.left = 1;
    struct cv_status status = run(&top, &error);
    if (!cv_is_ok(status)) {
        cv_cli_complain(status.id, &error);
        return cv_cli_exit_code(status.id);
    }
    return cv_cli_end_output(top.exit_code);
}
