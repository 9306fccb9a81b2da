/* SPDX-License-Identifier: MIT
 *
 * `culvert demo`: relay, agent and model in one process. The relay has threads of its own; all the
 * rest lives on one worker in the main thread.
 *
 * Happy path: prepare (state folder, relay, token) → on_probed: is there an Ollama? else a model of
 * our own → start_agent → on_published → start_chat → on_text … → on_chat_done: how to go on by
 * hand → a signal, or --once → stop → on_agent_ended → the worker ends → release.
 * Ways it fails: any step (give_up names it), or the time is over; all end in stop.
 */
#include "agent/access.h"
#include "agent/agent.h"
#include "auth/dev.h"
#include "base/digest.h"
#include "cli/chat.h"
#include "cli/cli.h"
#include "cli/model_server.h"
#include "cli/scratch.h"
#include "config/agent_config.h"
#include "config/relay_config.h"
#include "config/state_dir.h"
#include "net/fetch.h"
#include "net/net.h"
#include "relay/relay.h"

#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DEMO_USER "demo"
#define DEMO_TUNNEL "demo"
#define DEMO_PROMPT "In one sentence: why would anybody dig a tunnel?"
#define OLLAMA "127.0.0.1:11434"

enum {
    PROBE_TIMEOUT_MS = 1000,
    ONCE_TIMEOUT_MS = 25 * 1000,  /* and a few seconds to stop: 30 s at most */
    CHAT_TIMEOUT_MS = 180 * 1000, /* a large model may have to be loaded first */
    TOKEN_INTERVAL_MS = 30,
    MAX_TOKENS = 120,
    TOKEN_TTL_S = 24 * 3600,
};

struct values {
    bool is_once;
    const char *log_level;
};

struct demo {
    struct values values;
    struct cv_log log;
    char state_dir[1024];
    bool is_scratch; /* the state folder is ours to remove */
    struct cv_relay_config *relay_config;
    struct cv_relay *relay;
    char token[CV_ACCESS_TOKEN_MAX];
    char base[64]; /* "http://127.0.0.1:PORT" */
    struct cv_worker *worker;
    struct cv_timer deadline;
    struct cv_fetch *probe;
    struct cv_model_server *model;
    char target[32]; /* of the model */
    char model_name[128];
    struct cv_agent_config *agent_config;
    struct cv_access access;
    bool has_access;
    struct cv_agent *agent;
    struct cv_chat *chat;
    const char *step; /* what is being done, for people */
    bool is_stopping;
    bool has_said; /* an answer has begun on stdout, its line is open */
    int exit_code;
};

static const struct cv_option options[] = {
    CV_OPT_FLAG(struct values, is_once, "once", 0, "End after the chat instead of at Ctrl-C."),
    CV_OPT_TEXT(struct values, log_level, "log-level", 0, "LEVEL",
                "error, warn, info, debug or trace; warn without it."),
    CV_OPT_HELP,
};

const struct cv_command cv_cli_demo_command = {
    .name = "demo",
    .operands = "",
    .summary = "See it all at work, in one process",
    .description =
        "Starts a relay, an agent and a small streaming model, or uses the Ollama on port 11434\n"
        "where one runs; sends a chat through the tunnel and prints the answer as it arrives, "
        "then\n"
        "what to type to try it by hand. Only this machine can reach it. Nothing is left behind,\n"
        "unless CULVERT_STATE_DIR names a folder for its keys.\n",
    .examples = "  culvert demo\n"
                "  culvert demo --once\n",
    .options = options,
    .option_count = sizeof options / sizeof options[0],
};

/* ---- ending ---- */

static void stop(struct demo *demo)
{
    if (demo->is_stopping) { /* a second signal */
        cv_worker_stop(demo->worker);
        return;
    }
    demo->is_stopping = true;
    cv_worker_timer_stop(demo->worker, &demo->deadline);
    cv_fetch_cancel(&demo->probe);
    cv_chat_cancel(&demo->chat);
    if (demo->agent)
        cv_agent_stop(demo->agent);
    else
        cv_worker_stop(demo->worker);
}

/* Says in one sentence what failed. */
static void give_up(struct demo *demo, struct cv_status why, const struct cv_error *error)
{
    const char *detail = error && error->detail[0] ? error->detail : cv_status_text(why.id);
    if (demo->has_said)
        (void)fputc('\n', stdout);
    (void)fflush(stdout);
    (void)fprintf(stderr, "culvert demo: %s failed: %s.\n", demo->step, detail);
    demo->exit_code = CV_EXIT_FAILED;
    if (demo->worker)
        stop(demo);
}

static void on_deadline(void *arg)
{
    struct demo *demo = arg;
    struct cv_error error = {.id = CV_CONN_TIMEOUT, .detail = "it took too long"};
    give_up(demo, cv_status(CV_CONN_TIMEOUT), &error);
}

static void on_signal(void *arg, int signo)
{
    struct demo *demo = arg;
    (void)signo;
    if (!demo->is_stopping)
        (void)printf("\nStopping.\n");
    (void)fflush(stdout);
    stop(demo);
}

/* ---- what people read ---- */

static void say_start(const struct demo *demo)
{
    (void)printf("A relay, an agent and a model, all in this process:\n\n"
                 "  model   %s on %s%s\n"
                 "  agent   publishes it as \"" DEMO_TUNNEL "\" and dials the relay\n"
                 "  relay   %s\n\n"
                 "You:    " DEMO_PROMPT "\nModel:  ",
                 demo->model_name, demo->target, demo->model ? ", a small one of our own" : "",
                 demo->base);
    (void)fflush(stdout);
}

static void say_how_to_go_on(const struct demo *demo)
{
    (void)printf(
        "\n\nThe same by hand, from another terminal while this runs:\n\n"
        "  export TOKEN=%s\n"
        "  curl -N -H \"Authorization: Bearer $TOKEN\" %s/t/" DEMO_TUNNEL "/api/chat -d "
        "'{\"model\":\"%s\",\"messages\":[{\"role\":\"user\",\"content\":\"Hello!\"}]}'\n\n"
        "Programs that speak OpenAI's API take this address, and the token as their key:\n\n"
        "  export OPENAI_BASE_URL=%s/t/" DEMO_TUNNEL "/v1\n"
        "  export OPENAI_API_KEY=$TOKEN\n\n",
        demo->token, demo->base, demo->model_name, demo->base);
    if (demo->values.is_once)
        (void)printf(
            "With --once all of it ends now; `culvert demo` stays and makes a tunnel and a "
            "token to use.\n");
    else
        (void)printf("The token holds for 24 hours, the tunnel until you press Ctrl-C.\n");
    (void)fflush(stdout);
}

/* ---- the chat ---- */

/* A model's words may hold anything; a terminal must not be steered by them. */
static void on_text(void *arg, struct cv_slice text)
{
    struct demo *demo = arg;
    demo->has_said = true;
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.data[i];
        bool is_c1 = c == 0xc2 && i + 1 < text.len && text.data[i + 1] < 0xa0;
        if (is_c1)
            i++;
        else if ((c >= ' ' && c != 0x7f) || c == '\n' || c == '\t')
            (void)fputc(c, stdout);
    }
    (void)fflush(stdout);
}

static void on_chat_done(void *arg, struct cv_status status, const struct cv_error *error)
{
    struct demo *demo = arg;
    demo->chat = NULL;
    if (demo->is_stopping)
        return;
    if (!cv_is_ok(status)) {
        give_up(demo, status, error);
        return;
    }
    cv_worker_timer_stop(demo->worker, &demo->deadline);
    demo->step = "keeping the tunnel open";
    demo->has_said = false;
    say_how_to_go_on(demo);
    if (demo->values.is_once)
        stop(demo);
}

static const struct cv_chat_ops chat_ops = {.on_text = on_text, .on_done = on_chat_done};

/* ---- the agent ---- */

/* Also after the link was lost and is back: there is one chat only. */
static void on_published(void *arg, const char *tunnel, const char *url, const char *target)
{
    struct demo *demo = arg;
    (void)tunnel;
    (void)url;
    (void)target;
    if (demo->is_stopping || demo->has_said || strcmp(demo->step, "publishing the tunnel") != 0)
        return;
    demo->step = "the chat through the tunnel";
    say_start(demo);
    demo->has_said = true;
    struct cv_error error = {0};
    struct cv_chat_request request = {
        .host = "127.0.0.1",
        .port = (uint16_t)cv_relay_port(demo->relay),
        .path = "/t/" DEMO_TUNNEL "/api/chat",
        .token = demo->token,
        .model = demo->model_name,
        .prompt = DEMO_PROMPT,
        .max_tokens = MAX_TOKENS,
    };
    struct cv_status status =
        cv_chat_start(demo->worker, &request, &chat_ops, demo, &demo->chat, &error);
    if (!cv_is_ok(status))
        give_up(demo, status, &error);
}

static void on_agent_ended(void *arg, struct cv_status why, const struct cv_error *error)
{
    struct demo *demo = arg;
    if (!demo->is_stopping)
        give_up(demo, why, error);
    cv_worker_stop(demo->worker);
}

static const struct cv_agent_ops agent_ops = {.on_published = on_published,
                                              .on_ended = on_agent_ended};

static struct cv_status start_agent(struct demo *demo, struct cv_error *error)
{
    char server[64];
    (void)snprintf(server, sizeof server, "ws://127.0.0.1:%u", cv_relay_port(demo->relay));
    const struct cv_override overrides[] = {
        {"server", server, "demo"},
        {"tunnels[0].name", DEMO_TUNNEL, "demo"},
        {"tunnels[0].target", demo->target, "demo"},
        {"tunnels[0].preset", "ollama", "demo"},
        {"shutdown.drain", "0", "demo"},
    };
    struct cv_config_sources sources = {.overrides = overrides,
                                        .override_count = sizeof overrides / sizeof overrides[0]};
    struct cv_problems problems;
    demo->step = "publishing the tunnel";
    cv_problems_init(&problems);
    struct cv_status status = cv_agent_config_load(&sources, &demo->agent_config, &problems);
    if (problems.count)
        (void)cv_fail(error, status.id, "%s", problems.items[0].text).id;
    cv_problems_done(&problems);
    CV_RETURN_IF_ERROR(status);
    CV_RETURN_IF_ERROR(cv_access_init(&demo->access, demo->agent_config, 0, demo->state_dir,
                                      demo->token, &demo->log, error));
    demo->has_access = true;
    struct cv_agent_options agent = {
        .accesses = &demo->access, .access_count = 1, .log = &demo->log, .is_interactive = true};
    return cv_agent_new(demo->worker, &agent, &agent_ops, demo, &demo->agent, error);
}

/* ---- the model ---- */

/* A name that can stand in a shell's quotes and in JSON as it is. */
static bool is_plain_name(const char *name)
{
    return name && *name &&
           !name[strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                              "0123456789._:/-")];
}

/* The first model of Ollama's list that can chat; models for embeddings cannot. */
static bool choose_model(struct demo *demo, struct cv_slice list)
{
    json_t *object = json_loadb((const char *)list.data, list.len, 0, NULL);
    bool is_found = false;
    size_t i;
    json_t *entry;
    json_array_foreach(json_object_get(object, "models"), i, entry)
    {
        const char *name = json_string_value(json_object_get(entry, "name"));
        if (is_found || !is_plain_name(name) || strlen(name) >= sizeof demo->model_name ||
            strstr(name, "embed"))
            continue;
        (void)snprintf(demo->model_name, sizeof demo->model_name, "%s", name);
        is_found = true;
    }
    json_decref(object);
    return is_found;
}

static struct cv_status start_model(struct demo *demo, struct cv_error *error)
{
    struct cv_model_server_options model = {.listen = "127.0.0.1:0",
                                            .token_interval_ms = TOKEN_INTERVAL_MS};
    demo->step = "starting the model";
    CV_RETURN_IF_ERROR(cv_model_server_new(demo->worker, &model, &demo->model, error));
    (void)snprintf(demo->target, sizeof demo->target, "127.0.0.1:%u",
                   cv_model_server_port(demo->model));
    (void)snprintf(demo->model_name, sizeof demo->model_name, "%s", CV_MODEL_NAME);
    return cv_ok();
}

static void on_probed(void *arg, struct cv_status status, const struct cv_error *why,
                      int http_status, struct cv_slice body)
{
    struct demo *demo = arg;
    struct cv_error error = {0};
    (void)why;
    demo->probe = NULL;
    if (demo->is_stopping || cv_worker_is_stopping(demo->worker))
        return;
    if (cv_is_ok(status) && http_status == 200 && choose_model(demo, body))
        (void)snprintf(demo->target, sizeof demo->target, "%s", OLLAMA);
    else
        status = start_model(demo, &error);
    if (demo->target[0])
        status = start_agent(demo, &error);
    if (!cv_is_ok(status))
        give_up(demo, status, &error);
}

/* ---- start-up, before the loop ---- */

static struct cv_status open_state(struct demo *demo, struct cv_error *error)
{
    const char *configured = getenv("CULVERT_STATE_DIR");
    demo->step = "making the state folder";
    if (configured && *configured)
        return cv_state_dir_open(configured, demo->state_dir, sizeof demo->state_dir, error);
    CV_RETURN_IF_ERROR(
        cv_scratch_make("culvert-demo", demo->state_dir, sizeof demo->state_dir, error));
    demo->is_scratch = true;
    return cv_ok();
}

/* Settings of the environment are for real relays and agents; the demo takes none of them. */
static struct cv_status start_relay(struct demo *demo, struct cv_error *error)
{
    const struct cv_override overrides[] = {
        {"listen", "127.0.0.1:0", "demo"},
        {"workers", "2", "demo"},
        {"timers.first_byte", "10m", "demo"},
    };
    struct cv_config_sources sources = {.overrides = overrides,
                                        .override_count = sizeof overrides / sizeof overrides[0],
                                        .is_dev = true};
    struct cv_problems problems;
    demo->step = "starting the relay";
    cv_problems_init(&problems);
    struct cv_status status = cv_relay_config_load(&sources, &demo->relay_config, &problems);
    if (problems.count)
        (void)cv_fail(error, status.id, "%s", problems.items[0].text).id;
    cv_problems_done(&problems);
    CV_RETURN_IF_ERROR(status);
    struct cv_relay_options relay = {.config = demo->relay_config,
                                     .log = &demo->log,
                                     .state_dir = demo->state_dir,
                                     .is_dev = true};
    CV_RETURN_IF_ERROR(cv_relay_new(&relay, &demo->relay, error));
    (void)snprintf(demo->base, sizeof demo->base, "http://127.0.0.1:%u",
                   cv_relay_port(demo->relay));
    return cv_ok();
}

static struct cv_status make_token(struct demo *demo, struct cv_error *error)
{
    struct cv_token_request request = {
        .subject = DEMO_USER, .now_s = (int64_t)time(NULL), .ttl_s = TOKEN_TTL_S};
    struct cv_buf text;
    demo->step = "signing a token";
    cv_buf_init(&text, sizeof demo->token - 1);
    struct cv_status status = cv_dev_token(demo->state_dir, request, &text, error);
    if (cv_is_ok(status) && !cv_slice_to_str(cv_buf_slice(&text), demo->token, sizeof demo->token))
        status = cv_status(CV_INTERNAL);
    cv_buf_wipe(&text);
    return status;
}

static struct cv_status prepare(struct demo *demo, struct cv_error *error)
{
    CV_RETURN_IF_ERROR(open_state(demo, error));
    CV_RETURN_IF_ERROR(start_relay(demo, error));
    CV_RETURN_IF_ERROR(make_token(demo, error));
    demo->step = "starting up";
    CV_RETURN_IF_ERROR(cv_worker_new(0, &demo->worker, error));
    CV_RETURN_IF_ERROR(cv_worker_on_signal(demo->worker, SIGINT, on_signal, demo));
    CV_RETURN_IF_ERROR(cv_worker_on_signal(demo->worker, SIGTERM, on_signal, demo));
    cv_timer_init(&demo->deadline, on_deadline, demo);
    CV_RETURN_IF_ERROR(cv_worker_timer_start(
        demo->worker, &demo->deadline, demo->values.is_once ? ONCE_TIMEOUT_MS : CHAT_TIMEOUT_MS));
    struct cv_fetch_request probe = {
        .url = "http://" OLLAMA "/api/tags", .timeout_ms = PROBE_TIMEOUT_MS, .allow_http = true};
    demo->step = "looking for an Ollama";
    return cv_fetch_start(demo->worker, &probe, on_probed, demo, &demo->probe, error);
}

static void release(struct demo *demo)
{
    cv_agent_free(&demo->agent);
    cv_worker_free(&demo->worker);
    cv_model_server_free(&demo->model);
    if (demo->has_access)
        cv_access_done(&demo->access);
    cv_agent_config_free(&demo->agent_config);
    if (demo->relay)
        cv_relay_stop(&demo->relay, 0);
    cv_relay_config_free(&demo->relay_config);
    cv_wipe(demo->token, sizeof demo->token);
    if (demo->is_scratch)
        cv_scratch_remove(demo->state_dir);
}

static int run(struct demo *demo)
{
    struct cv_error error = {0};
    demo->step = "setting up the network";
    struct cv_status status = cv_net_init();
    if (!cv_is_ok(status)) {
        give_up(demo, status, &error);
        return demo->exit_code;
    }
    status = prepare(demo, &error);
    if (cv_is_ok(status))
        cv_worker_run(demo->worker);
    else
        give_up(demo, status, &error);
    release(demo);
    cv_net_done();
    return demo->exit_code;
}

int cv_cli_demo(int argc, const char *const *argv)
{
    struct demo demo = {.values = {.log_level = "warn"}};
    struct cv_parsed parsed;
    int exit_code;
    if (!cv_cli_parse(&cv_cli_demo_command, argc, argv, &demo.values, &parsed, &exit_code))
        return exit_code;
    struct cv_status status =
        cv_cli_open_log(&demo.log, demo.values.log_level, "auto", NULL, NULL, NULL);
    if (!cv_is_ok(status)) {
        cv_cli_complain(status.id, NULL);
        return CV_EXIT_FAILED;
    }
    exit_code = run(&demo);
    cv_log_done(&demo.log);
    return exit_code;
}
