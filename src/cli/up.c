/* SPDX-License-Identifier: MIT
 *
 * `culvert up`: the model servers of this machine, found and published in one command.
 *
 * Happy path: find (a worker of its own) → say_found → publish: the agent → on_published, for each
 * → say_how_to_use → on_look, every second → a signal → cv_agent_stop → on_ended.
 * Ways it fails: no model server is found; the agent cannot be made, or gives up.
 */
#include "agent/agent.h"
#include "cli/client.h"
#include "cli/models.h"
#include "cli/view.h"
#include "config/agent_config.h"
#include "net/net.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

enum { LOOK_MS = 1000, PICTURE_MAX = 64 * 1024, KEY_MAX = 32, URL_MAX = 400 };

struct values {
    const char *name;
    bool is_dry;
};

static const struct cv_option options[] = {
    CV_CLIENT_OPTIONS,
    CV_OPT_TEXT(struct values, name, "name", 'n', "NAME",
                "The tunnel's name, when there is one server; without it the kind of the server."),
    CV_OPT_FLAG(struct values, is_dry, "dry-run", 0, "Say what is found, publish nothing."),
    CV_OPT_HELP,
};

const struct cv_command cv_cli_up_command = {
    .name = "up",
    .operands = "[PORT]...",
    .operand_min = 0,
    .operand_max = CV_MODELS_MAX,
    .summary = "Find local model servers and publish them",
    .description =
        "Asks this machine's ports who is there: Ollama, LM Studio, llama.cpp, vLLM, SGLang,\n"
        "LocalAI, KoboldCpp and whatever else speaks OpenAI's API, on their usual ports or on "
        "those\n"
        "that are given. Publishes each through the relay until Ctrl-C, says how to use it, and "
        "shows\n"
        "how the link is. CULVERT_SERVER and CULVERT_TOKEN stand in for the flags.\n",
    .examples = "  culvert up --server wss://relay.example.org\n"
                "  culvert up 8081 --name home --server wss://relay.example.org\n"
                "  culvert up --dry-run\n",
    .options = options,
    .option_count = sizeof options / sizeof options[0],
};

/* A model server and its tunnel. */
struct service {
    struct cv_model_found found;
    char name[64];
    char target[16];
    char keys[3][KEY_MAX]; /* of its settings */
    char url[URL_MAX];     /* "" until it is published */
};

struct up {
    struct values values;
    uint16_t ports[CV_MODELS_MAX];
    size_t port_count;
    struct service services[CV_MODELS_MAX];
    size_t count;
    size_t strangers;
    struct cv_worker *finder;
    struct cv_models *models;
    struct cv_client client;
    struct cv_agent *agent;
    struct cv_timer timer;
    struct cv_view view;
    bool has_said;
    bool is_interrupted;
};

/* ---- finding ---- */

static void on_found(void *arg, const struct cv_models_result *result)
{
    struct up *up = arg;
    for (size_t i = 0; i < result->count; i++)
        up->services[up->count++].found = result->found[i];
    up->strangers = result->strangers;
    cv_worker_stop(up->finder);
}

static void on_signal(void *arg, int signo)
{
    struct up *up = arg;
    (void)signo;
    up->is_interrupted = true;
    cv_worker_stop(up->finder);
}

static struct cv_status find(struct up *up, struct cv_error *error)
{
    CV_RETURN_IF_ERROR(cv_net_init());
    struct cv_status status = cv_worker_new(0, &up->finder, error);
    if (cv_is_ok(status))
        status = cv_worker_on_signal(up->finder, SIGINT, on_signal, up);
    if (cv_is_ok(status))
        status = cv_worker_on_signal(up->finder, SIGTERM, on_signal, up);
    if (cv_is_ok(status))
        status = cv_models_start(up->finder, up->ports, up->port_count, on_found, up, &up->models);
    if (cv_is_ok(status))
        cv_worker_run(up->finder);
    cv_models_free(&up->models);
    cv_worker_free(&up->finder);
    cv_net_done();
    return status;
}

/* Two of a kind are told apart by their ports. */
static void name_services(struct up *up)
{
    for (size_t i = 0; i < up->count; i++) {
        struct service *s = &up->services[i];
        bool is_taken = false;
        for (size_t k = 0; k < i; k++)
            is_taken |= strcmp(up->services[k].name, s->found.kind) == 0;
        if (is_taken)
            (void)snprintf(s->name, sizeof s->name, "%s-%u", s->found.kind, s->found.port);
        else
            (void)snprintf(s->name, sizeof s->name, "%s",
                           up->values.name && up->count == 1 ? up->values.name : s->found.kind);
        (void)snprintf(s->target, sizeof s->target, "127.0.0.1:%u", s->found.port);
    }
}

static void say_found(const struct up *up)
{
    for (size_t i = 0; i < up->count; i++) {
        const struct cv_model_found *f = &up->services[i].found;
        (void)printf("found %s on port %u, %u model%s%s%s\n", f->title, f->port, f->models,
                     f->models == 1 ? "" : "s", f->model[0] ? ", such as " : "", f->model);
    }
    (void)fflush(stdout);
}

static int complain_none(const struct up *up)
{
    (void)fprintf(stderr, "culvert up: no model server answers on port");
    for (size_t i = 0; i < up->port_count; i++)
        (void)fprintf(stderr, "%s %u", i ? "," : up->port_count > 1 ? "s" : "", up->ports[i]);
    (void)fprintf(stderr,
                  " of this machine%s\nStart one (`ollama serve`), name its port (`culvert up "
                  "8081`), or publish any service\nwith `culvert http PORT`.\n",
                  up->strangers ? "; something else speaks HTTP there" : "");
    return CV_EXIT_FAILED;
}

/* ---- how to use it ---- */

/* What a shell puts in for the token, without showing it. */
static void token_words(const struct up *up, char out[300])
{
    const char *file = cv_access_token_file(up->client.access);
    if (file && !strpbrk(file, "'\"`$\\\n"))
        (void)snprintf(out, 300, "$(cat '%.250s')", file);
    else
        (void)snprintf(out, 300, "$CULVERT_TOKEN");
}

static void say_how_to_use(const struct up *up)
{
    char token[300];
    token_words(up, token);
    for (size_t i = 0; i < up->count; i++) {
        const struct service *s = &up->services[i];
        bool is_ollama = strcmp(s->found.preset, "ollama") == 0;
        const char *model = s->found.model[0] ? s->found.model : "MODEL";
        (void)printf("\n%s is open\n"
                     "  URL              %s\n"
                     "  OpenAI base URL  %sv1\n"
                     "  try it           curl -N -H \"Authorization: Bearer %s\" "
                     "-H 'Content-Type: application/json' %s%s -d "
                     "'{\"model\":\"%s\",\"stream\":true,\"messages\":[{\"role\":\"user\","
                     "\"content\":\"Hello!\"}]}'\n",
                     s->name, s->url, s->url, token, s->url,
                     is_ollama ? "api/chat" : "v1/chat/completions", model);
    }
    (void)printf("\nOpen until Ctrl-C.\n\n");
    (void)fflush(stdout);
}

/* ---- publishing ---- */

static void on_look(void *arg)
{
    struct up *up = arg;
    json_t *status = cv_agent_status(up->agent);
    struct cv_buf text;
    cv_buf_init(&text, PICTURE_MAX);
    if (status && up->view.is_terminal && cv_is_ok(cv_view_agent(status, &text)))
        cv_view_show(&up->view, &text);
    else if (status && !up->view.is_terminal)
        cv_view_tell(&up->view, status);
    cv_buf_done(&text);
    json_decref(status);
    (void)cv_worker_timer_start(up->client.worker, &up->timer, LOOK_MS);
}

/* Also after the link was lost and is back: there is one explanation only. */
static void on_published(void *arg, const char *tunnel, const char *url, const char *target)
{
    struct up *up = arg;
    bool is_whole = true;
    (void)target;
    for (size_t i = 0; i < up->count; i++) {
        struct service *s = &up->services[i];
        if (strcmp(s->name, tunnel) == 0)
            (void)snprintf(s->url, sizeof s->url, "%s", url);
        is_whole &= s->url[0] != '\0';
    }
    if (up->has_said || !is_whole)
        return;
    up->has_said = true;
    cv_view_leave(&up->view);
    say_how_to_use(up);
    on_look(up);
}

static void on_ended(void *arg, struct cv_status why, const struct cv_error *error)
{
    struct up *up = arg;
    cv_worker_timer_stop(up->client.worker, &up->timer);
    cv_client_end(&up->client, why, error);
}

static void on_stop(void *arg)
{
    struct up *up = arg;
    cv_agent_stop(up->agent);
}

static bool add_settings(struct up *up, struct cv_parsed *parsed)
{
    static const char *const members[] = {"name", "target", "preset"};
    bool fits = true;
    for (size_t i = 0; i < up->count; i++) {
        struct service *s = &up->services[i];
        const char *const texts[] = {s->name, s->target, s->found.preset};
        for (size_t k = 0; k < 3; k++) {
            (void)snprintf(s->keys[k], KEY_MAX, "tunnels[%zu].%s", i, members[k]);
            fits &= cv_client_override(parsed, s->keys[k], texts[k], "--name");
        }
    }
    return fits;
}

static void run(struct up *up)
{
    struct cv_agent_ops ops = {.on_published = on_published, .on_ended = on_ended};
    struct cv_agent_options agent = {.accesses = up->client.accesses,
                                     .access_count = up->client.access_count,
                                     .log = &up->client.log,
                                     .state_dir = up->client.state_dir,
                                     .is_interactive = true};
    struct cv_error error = {0};
    up->client.on_stop = on_stop;
    up->client.arg = up;
    cv_timer_init(&up->timer, on_look, up);
    struct cv_status status = cv_agent_new(up->client.worker, &agent, &ops, up, &up->agent, &error);
    if (cv_is_ok(status))
        status = cv_worker_timer_start(up->client.worker, &up->timer, LOOK_MS);
    if (cv_is_ok(status)) {
        cv_client_run(&up->client);
    } else {
        cv_cli_complain(status.id, &error);
        up->client.exit_code = cv_cli_exit_code(status.id);
    }
    cv_agent_free(&up->agent);
}

static int publish(struct up *up, struct cv_parsed *parsed)
{
    int exit_code;
    struct cv_client_options client = {.is_interactive = true, .is_quiet = true};
    if (!add_settings(up, parsed)) {
        cv_cli_complain(CV_USAGE, NULL);
        return CV_EXIT_USAGE;
    }
    if (!cv_client_open(&up->client, &client, parsed, &exit_code))
        return exit_code;
    run(up);
    return cv_client_close(&up->client);
}

/* ---- the command line ---- */

static bool read_ports(struct up *up, const struct cv_parsed *parsed)
{
    const uint16_t *usual = cv_models_ports(&up->port_count);
    memcpy(up->ports, usual, up->port_count * sizeof *usual);
    if (parsed->operand_count)
        up->port_count = parsed->operand_count;
    for (size_t i = 0; i < parsed->operand_count; i++) {
        uint64_t port;
        if (!cv_slice_to_u64(cv_slice_str(parsed->operands[i]), 65535, &port) || port == 0) {
            (void)fprintf(stderr, "culvert up: a port is a number from 1 to 65535\n");
            return false;
        }
        up->ports[i] = (uint16_t)port;
    }
    return true;
}

static int go(struct up *up, struct cv_parsed *parsed)
{
    struct cv_error error = {0};
    struct cv_status status = find(up, &error);
    if (!cv_is_ok(status)) {
        cv_cli_complain(status.id, &error);
        return cv_cli_exit_code(status.id);
    }
    if (up->is_interrupted)
        return CV_EXIT_OK;
    if (up->count == 0)
        return complain_none(up);
    if (up->values.name && up->count > 1) {
        say_found(up);
        (void)fprintf(stderr, "culvert up: --name is for one server; name the port of the one\n");
        return CV_EXIT_USAGE;
    }
    name_services(up);
    say_found(up);
    return cv_cli_end_output(up->values.is_dry ? CV_EXIT_OK : publish(up, parsed));
}

int cv_cli_up(int argc, const char *const *argv)
{
    struct up *up = calloc(1, sizeof *up);
    struct cv_parsed parsed;
    int exit_code = CV_EXIT_FAILED;
    if (!up) {
        cv_cli_complain(CV_NO_MEMORY, NULL);
        return CV_EXIT_FAILED;
    }
    cv_view_init(&up->view);
    if (cv_cli_parse(&cv_cli_up_command, argc, argv, &up->values, &parsed, &exit_code))
        exit_code = read_ports(up, &parsed) ? go(up, &parsed) : CV_EXIT_USAGE;
    free(up);
    return exit_code;
}
