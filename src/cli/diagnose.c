/* SPDX-License-Identifier: MIT
 *
 * `culvert diagnose`: the way to a relay and through it, stage by stage, for people or as JSON.
 */
#include "agent/diagnose.h"
#include "base/json.h"
#include "cli/agents.h"
#include "cli/client.h"
#include "config/agent_config.h"

#include <stdio.h>

struct values {
    const char *config_path;
    bool is_json;
};

static const struct cv_option options[] = {
    CV_OPT_TEXT(struct values, config_path, "config", 'c', "FILE",
                "Read settings from a YAML file; its tunnels' targets are looked at."),
    CV_CLIENT_OPTIONS,
    CV_OPT_FLAG(struct values, is_json, "json", 0, "Print JSON, docs/diagnose.md has its fields."),
    CV_OPT_HELP,
};

const struct cv_command cv_cli_diagnose_command = {
    .name = "diagnose",
    .operands = "[PORT|HOST:PORT|URL]...",
    .operand_min = 0,
    .operand_max = CV_DIAGNOSE_TARGETS_MAX,
    .summary = "Find out why a relay cannot be reached",
    .description =
        "Tries each stage of the way by itself and says what it found and what to do: name, TCP "
        "to\n"
        "each address, proxy, TLS and its certificate, WebSocket upgrade, token, SSH and host "
        "key,\n"
        "then bytes through the relay and back: 1 MiB with its hash, latency, throughput. The "
        "first\n"
        "stage that fails explains the rest. Local services are tried if they are named. Nothing "
        "is\n"
        "published. Exit code 0 when all is well, else by the first failure: 3 authentication,\n"
        "4 network, 1 anything else.\n",
    .examples = "  culvert diagnose --server wss://relay.example.org\n"
                "  culvert diagnose 11434 --server wss://relay.example.org --json\n",
    .options = options,
    .option_count = sizeof options / sizeof options[0],
};

struct running {
    struct cv_client client;
    struct cv_diagnose *diagnose;
    bool is_json;
    json_t *tests;
    unsigned passed, failed, skipped;
    uint64_t duration_us;
    char first[16]; /* that failed */
    bool is_interrupted;
};

/* ---- findings ---- */

static void print_finding(const struct cv_diagnose_finding *f)
{
    static const char *const words[] = {"ok", "FAILED", "-"};
    char duration[24] = "";
    if (f->verdict != CV_DIAGNOSE_SKIPPED)
        (void)snprintf(duration, sizeof duration, "%.1f ms", (double)f->duration_us / 1000);
    (void)printf("%-6s  %-10s %11s  ", words[f->verdict], f->name, duration);
    cv_agents_print_text(f->finding, stdout);
    if (f->verdict == CV_DIAGNOSE_FAILED && cv_status_code(f->why.id)[0])
        (void)printf(" (%s)", cv_status_code(f->why.id));
    (void)printf("\n");
    if (f->suggestion[0])
        (void)printf("%32s%s\n", "", f->suggestion);
    (void)fflush(stdout);
}

static json_t *text_or_null(const char *text)
{
    return text && text[0] ? json_string(text) : json_null();
}

static json_t *value_of(const struct cv_diagnose_finding *f)
{
    bool has_failed = f->verdict == CV_DIAGNOSE_FAILED;
    bool is_skipped = f->verdict == CV_DIAGNOSE_SKIPPED;
    json_t *details = json_copy((json_t *)(uintptr_t)f->details); /* takes no const */
    if (!details || json_object_set_new(details, "finding", json_string(f->finding)) != 0) {
        json_decref(details);
        return NULL;
    }
    return json_pack("{s:s, s:b, s:b, s:f, s:o, s:o, s:o, s:o, s:o}", "name", f->name, "passed",
                     f->verdict == CV_DIAGNOSE_PASSED, "skipped", is_skipped, "duration_ms",
                     (double)f->duration_us / 1000, "error",
                     has_failed || is_skipped ? json_string(f->finding) : json_null(), "code",
                     text_or_null(has_failed ? cv_status_code(f->why.id) : NULL), "category",
                     has_failed ? json_string(cv_category_name(cv_status_category(f->why.id)))
                                : json_null(),
                     "suggestion", text_or_null(f->suggestion), "details", details);
}

static void on_finding(void *arg, const struct cv_diagnose_finding *f)
{
    struct running *r = arg;
    r->passed += f->verdict == CV_DIAGNOSE_PASSED;
    r->skipped += f->verdict == CV_DIAGNOSE_SKIPPED;
    r->failed += f->verdict == CV_DIAGNOSE_FAILED;
    r->duration_us += f->duration_us;
    if (f->verdict == CV_DIAGNOSE_FAILED && !r->first[0]) {
        (void)snprintf(r->first, sizeof r->first, "%s", f->name);
        r->client.exit_code = cv_cli_exit_code(f->why.id);
    }
    if (r->is_json)
        (void)json_array_append_new(r->tests, value_of(f));
    else
        print_finding(f);
}

static void on_ended(void *arg)
{
    struct running *r = arg;
    cv_worker_stop(r->client.worker);
}

static void on_stop(void *arg)
{
    struct running *r = arg;
    r->is_interrupted = true;
    cv_diagnose_stop(r->diagnose);
}

/* ---- the end ---- */

static void print_summary(const struct running *r)
{
    if (r->is_interrupted)
        (void)printf("\nStopped before the end.\n");
    else if (r->failed)
        (void)printf("\n%s failed first.\n", r->first);
    else
        (void)printf("\nAll is well.\n");
}

static bool print_json(struct running *r)
{
    unsigned total = r->passed + r->failed + r->skipped;
    json_t *value = json_pack(
        "{s:O, s:{s:i, s:i, s:i, s:i, s:b, s:f, s:o, s:i}}", "tests", r->tests, "summary", "total",
        (int)total, "passed", (int)r->passed, "failed", (int)r->failed, "skipped", (int)r->skipped,
        "ok", !r->failed && !r->is_interrupted, "duration_ms", (double)r->duration_us / 1000,
        "first_failure", text_or_null(r->first), "exit_code", r->client.exit_code);
    char *text = value && json_array_size(r->tests) == total ? cv_json_text(value) : NULL;
    if (text)
        (void)printf("%s\n", text);
    bool is_printed = text != NULL;
    free(text);
    json_decref(value);
    return is_printed;
}

/* What to look at besides the relay: what the command line names, else the tunnels of the file. */
static size_t find_targets(const struct running *r, const struct cv_parsed *parsed,
                           const char *targets[CV_DIAGNOSE_TARGETS_MAX])
{
    const struct cv_agent_config *config = r->client.config;
    size_t count = parsed->operand_count;
    if (count > CV_DIAGNOSE_TARGETS_MAX)
        count = CV_DIAGNOSE_TARGETS_MAX;
    memcpy(targets, parsed->operands, count * sizeof *targets);
    if (count)
        return count;
    while (count < CV_DIAGNOSE_TARGETS_MAX && count < config->tunnels.count) {
        targets[count] = cv_agent_config_tunnel(config, count)->target;
        count++;
    }
    return count;
}

static void run(struct running *r, const struct cv_parsed *parsed)
{
    static const struct cv_diagnose_ops ops = {.on_finding = on_finding, .on_ended = on_ended};
    const char *targets[CV_DIAGNOSE_TARGETS_MAX];
    struct cv_error error = {0};
    struct cv_diagnose_options diagnose = {.access = r->client.access,
                                           .log = &r->client.log,
                                           .targets = targets,
                                           .target_count = find_targets(r, parsed, targets)};
    r->client.on_stop = on_stop;
    r->client.arg = r;
    struct cv_status status =
        cv_diagnose_new(r->client.worker, &diagnose, &ops, r, &r->diagnose, &error);
    if (!cv_is_ok(status)) {
        cv_cli_complain(status.id, &error);
        r->client.exit_code = cv_cli_exit_code(status.id);
        return;
    }
    cv_client_run(&r->client);
    if (r->is_interrupted && !r->failed)
        r->client.exit_code = CV_EXIT_FAILED;
    if (!r->is_json)
        print_summary(r);
    else if (!print_json(r))
        r->client.exit_code = CV_EXIT_FAILED;
}

int cv_cli_diagnose(int argc, const char *const *argv)
{
    struct values values = {0};
    struct cv_parsed parsed;
    struct running running = {0};
    int exit_code;
    if (!cv_cli_parse(&cv_cli_diagnose_command, argc, argv, &values, &parsed, &exit_code))
        return exit_code;
    /* Without a token the way up to it can be looked at all the same. */
    struct cv_client_options client = {.config_path = values.config_path, .is_quiet = true};
    if (!cv_client_open(&running.client, &client, &parsed, &exit_code))
        return exit_code;
    running.is_json = values.is_json;
    running.tests = json_array();
    run(&running, &parsed);
    cv_diagnose_free(&running.diagnose);
    json_decref(running.tests);
    return cv_cli_end_output(cv_client_close(&running.client));
}
