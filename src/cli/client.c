/* SPDX-License-Identifier: MIT */
#include "cli/client.h"

#include "agent/link_spans.h"
#include "base/digest.h"
#include "config/agent_config.h"
#include "config/state_dir.h"
#include "net/net.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LOG_FLUSH_MS = 1000 };

bool cv_client_override(struct cv_parsed *parsed, const char *key, const char *value,
                        const char *where)
{
    if (parsed->override_count == CV_OPTION_LIST_MAX)
        return false;
    parsed->overrides[parsed->override_count++] =
        (struct cv_override){.key = key, .value = value, .where = where};
    return true;
}

bool cv_client_has_override(const struct cv_parsed *parsed, const char *key)
{
    for (size_t i = 0; i < parsed->override_count; i++)
        if (strcmp(parsed->overrides[i].key, key) == 0)
            return true;
    return false;
}

static bool load(struct cv_client *client, const struct cv_client_options *options,
                 const struct cv_parsed *parsed, int *exit_code)
{
    struct cv_problems problems;
    struct cv_config_sources sources = {.path = options->config_path,
                                        .env = (const char *const *)environ,
                                        .overrides = parsed->overrides,
                                        .override_count = parsed->override_count};
    cv_problems_init(&problems);
    struct cv_status status = cv_agent_config_load(&sources, &client->config, &problems);
    if (!cv_is_ok(status)) {
        cv_cli_print_problems(&problems);
        *exit_code = cv_cli_is_usage(&problems) ? CV_EXIT_USAGE : CV_EXIT_FAILED;
    }
    cv_problems_done(&problems);
    return cv_is_ok(status);
}

static struct cv_status check_token(const struct cv_access *access, struct cv_error *error)
{
    struct cv_buf token;
    cv_buf_init(&token, CV_ACCESS_TOKEN_MAX);
    struct cv_status status = cv_access_token(access, &token, error);
    cv_buf_wipe(&token);
    return status.id == CV_AGAIN ? cv_ok() : status; /* token_command is run with the first dial */
}

/* An agent at rest does not wake up for a log that is written out. */
static void on_log_behind(void *arg)
{
    struct cv_client *client = arg;
    if (!cv_timer_is_running(&client->flush))
        (void)cv_worker_timer_start(client->worker, &client->flush, LOG_FLUSH_MS);
}

static void on_flush(void *arg)
{
    struct cv_client *client = arg;
    if (!cv_log_flush(&client->log))
        on_log_behind(client);
}

static void on_signal(void *arg, int signo)
{
    struct cv_client *client = arg;
    int level = (int)cv_log_level(&client->log);
    if (signo == SIGHUP) {
        cv_log_reopen(&client->log);
        return;
    }
    if (signo == SIGUSR1 || signo == SIGUSR2) {
        level += signo == SIGUSR1 ? 1 : -1;
        if (level >= CV_LOG_ERROR && level < CV_LOG_LEVEL_COUNT)
            cv_log_set_level(&client->log, (enum cv_log_level)level);
        return;
    }
    client->on_stop(client->arg);
}

static struct cv_status watch(struct cv_client *client)
{
    static const int signals[] = {SIGTERM, SIGINT, SIGUSR1, SIGUSR2};
    for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++)
        CV_RETURN_IF_ERROR(cv_worker_on_signal(client->worker, signals[i], on_signal, client));
    /* Where a terminal goes away, who writes to it ends, as ever. */
    if (client->config->log_file)
        CV_RETURN_IF_ERROR(cv_worker_on_signal(client->worker, SIGHUP, on_signal, client));
    cv_timer_init(&client->flush, on_flush, client);
    cv_log_on_behind(&client->log, on_log_behind, client);
    return cv_ok();
}

static struct cv_status open_spans(struct cv_client *client, struct cv_error *error)
{
    CV_RETURN_IF_ERROR(cv_link_spans_new(client->config, (const char *const *)environ,
                                         client->instance, &client->log, &client->spans, error));
    for (size_t i = 0; i < client->access_count; i++)
        client->accesses[i].spans = client->spans;
    return cv_ok();
}

static struct cv_status open_all(struct cv_client *client, const struct cv_client_options *options,
                                 struct cv_error *error)
{
    struct cv_agent_config *config = client->config;
    CV_RETURN_IF_ERROR(
        cv_state_dir_open(config->state_dir, client->state_dir, sizeof client->state_dir, error));
    CV_RETURN_IF_ERROR(cv_access_new_all(config, client->state_dir, getenv("CULVERT_TOKEN"),
                                         &client->log, &client->accesses, &client->access_count,
                                         error));
    client->access = cv_access_preferred(client->accesses, client->access_count);
    struct cv_status status =
        options->is_interactive ? check_token(client->access, error) : cv_ok();
    if (cv_is_ok(status))
        status = open_spans(client, error);
    if (cv_is_ok(status))
        status = cv_worker_new(0, &client->worker, error);
    if (cv_is_ok(status))
        status = watch(client);
    if (!cv_is_ok(status)) {
        cv_log_on_behind(&client->log, NULL, NULL);
        cv_worker_free(&client->worker);
        cv_link_spans_free(&client->spans);
        cv_access_free_all(&client->accesses, client->access_count);
    }
    return status;
}

bool cv_client_open(struct cv_client *client, const struct cv_client_options *options,
                    const struct cv_parsed *parsed, int *exit_code)
{
    struct cv_error error = {0};
    uint8_t instance[8];
    *client = (struct cv_client){0};
    cv_random(instance, sizeof instance);
    cv_hex_encode(cv_slice(instance, sizeof instance), client->instance);
    if (!load(client, options, parsed, exit_code))
        return false;
    struct cv_agent_config *config = client->config;
    bool is_default =
        cv_settings_origin(&cv_agent_schema, config, "log.level").kind == CV_ORIGIN_DEFAULT;
    const struct cv_cli_log_file file = {config->log_file, config->log_max_bytes, config->log_keep};
    struct cv_status status =
        cv_cli_open_log(&client->log, options->is_quiet && is_default ? "error" : config->log_level,
                        config->log_format, &file, &client->log_file, &error);
    if (cv_is_ok(status)) {
        cv_log_set_instance(&client->log, client->instance);
        status = cv_net_init();
        if (cv_is_ok(status)) {
            status = open_all(client, options, &error);
            if (cv_is_ok(status))
                return true;
            cv_net_done();
        }
        cv_log_done(&client->log);
        cv_log_file_close(&client->log_file);
    }
    cv_cli_complain(status.id, &error);
    *exit_code = cv_cli_exit_code(status.id);
    cv_agent_config_free(&client->config);
    return false;
}

void cv_client_run(struct cv_client *client)
{
    cv_worker_run(client->worker);
}

void cv_client_end(struct cv_client *client, struct cv_status why, const struct cv_error *error)
{
    client->exit_code = cv_cli_exit_code(why.id);
    if (cv_is_ok(why))
        cv_log(&client->log, CV_LOG_INFO, "agent", "stopped", "stopped");
    else
        cv_log(&client->log, CV_LOG_ERROR, "agent", "gave_up",
               error && error->detail[0] ? "giving up" : cv_status_text(why.id), CV_F_ERROR(error),
               CV_F_STR("suggestion", cv_status_suggestion(why.id)));
    cv_worker_stop(client->worker);
}

int cv_client_close(struct cv_client *client)
{
    cv_log_on_behind(&client->log, NULL, NULL);
    cv_worker_free(&client->worker);
    cv_link_spans_free(&client->spans);
    cv_access_free_all(&client->accesses, client->access_count);
    cv_net_done();
    cv_log_done(&client->log);
    cv_log_file_close(&client->log_file);
    cv_agent_config_free(&client->config);
    return client->exit_code;
}
