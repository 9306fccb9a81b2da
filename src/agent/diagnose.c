/* SPDX-License-Identifier: MIT
 *
 * Happy path: cv_diagnose_new → begin_stage → diagnose_<stage> → diagnose_pass → on_next →
 * begin_stage … → the last stage → end → the link's goodbye → on_ended.
 * Ways it fails: a stage fails, or takes too long (those behind it are skipped); it is stopped.
 */
#include "agent/diagnose_private.h"

#include "agent/access.h"
#include "agent/dialer.h"
#include "base/digest.h"
#include "config/agent_config.h"
#include "transport/link_settings.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static const struct stage {
    const char *name;
    void (*begin)(struct cv_diagnose *d);
    bool is_apart; /* tried and told whatever became of the others */
    bool needs_link;
} stages[DIAGNOSE_STAGES] = {
    [DIAGNOSE_DNS] = {"dns", diagnose_dns, false, false},
    [DIAGNOSE_TCP] = {"tcp", diagnose_tcp, false, false},
    [DIAGNOSE_PROXY] = {"proxy", diagnose_proxy, false, false},
    [DIAGNOSE_TLS] = {"tls", diagnose_tls, false, false},
    [DIAGNOSE_UPGRADE] = {"upgrade", diagnose_upgrade, false, false},
    [DIAGNOSE_TOKEN] = {"token", diagnose_token, false, false},
    [DIAGNOSE_SSH] = {"ssh", diagnose_ssh, false, true},
    [DIAGNOSE_TUNNEL] = {"tunnel", diagnose_tunnel, false, true},
    [DIAGNOSE_SERVICE] = {"service", diagnose_service, true, false},
    [DIAGNOSE_DATA] = {"data", diagnose_data, false, true},
    [DIAGNOSE_LATENCY] = {"latency", diagnose_latency, false, true},
    [DIAGNOSE_THROUGHPUT] = {"throughput", diagnose_throughput, false, true},
};

/* ---- values ---- */

uint64_t diagnose_us_since(const struct cv_diagnose *d, uint64_t began_ns)
{
    return (cv_worker_now_ns(d->worker) - began_ns) / 1000;
}

void diagnose_note(struct cv_diagnose *d, const char *name, json_t *value)
{
    if (value)
        (void)json_object_set_new(d->details, name, value);
}

json_t *diagnose_text(const char *text)
{
    json_t *value = json_string(text);
    return value ? value : json_string("(not readable)");
}

json_t *diagnose_moment(int64_t unix_s)
{
    time_t at = (time_t)unix_s;
    struct tm tm;
    char text[40];
    if (unix_s == 0 || !gmtime_r(&at, &tm) ||
        strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &tm) == 0)
        return json_null();
    return json_string(text);
}

/* ---- ending ---- */

static void end(struct cv_diagnose *d)
{
    if (d->has_ended)
        return;
    diagnose_path_done(d);
    cv_worker_timer_stop(d->worker, &d->timer);
    cv_defer_cancel(&d->next);
    cv_dialer_cancel(&d->dialer);
    d->is_stopping = true;
    if (d->link) {
        cv_link_close(d->link, cv_ok(), "diagnosed");
        return; /* diagnose_on_link_lost goes on */
    }
    d->has_ended = true;
    d->ops->on_ended(d->arg);
}

/* ---- one stage after the other ---- */

static void tell(struct cv_diagnose *d, enum cv_diagnose_verdict verdict, struct cv_status why,
                 const char *finding, const char *suggestion)
{
    struct cv_diagnose_finding found = {.name = stages[d->stage].name,
                                        .verdict = verdict,
                                        .duration_us = diagnose_us_since(d, d->began_ns),
                                        .why = why,
                                        .finding = finding,
                                        .suggestion = suggestion,
                                        .details = d->details};
    if (verdict == CV_DIAGNOSE_SKIPPED)
        found.duration_us = 0;
    else if (d->stage == DIAGNOSE_SSH && d->link_up_ns)
        found.duration_us = (d->link_up_ns - d->link_began_ns) / 1000;
    d->is_stage_over = true;
    cv_worker_timer_stop(d->worker, &d->timer);
    d->ops->on_finding(d->arg, &found);
    json_decref(d->details);
    d->details = NULL;
    cv_worker_defer(d->worker, &d->next);
}

void diagnose_pass(struct cv_diagnose *d, const char *format, ...)
{
    struct cv_error text = {0};
    char finding[256];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(finding, sizeof finding, format, args);
    va_end(args);
    (void)cv_fail(&text, CV_OK, "%s", finding); /* takes out what would steer a terminal */
    tell(d, CV_DIAGNOSE_PASSED, cv_ok(), text.detail, "");
}

void diagnose_skip(struct cv_diagnose *d, const char *format, ...)
{
    char finding[256];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(finding, sizeof finding, format, args);
    va_end(args);
    tell(d, CV_DIAGNOSE_SKIPPED, cv_ok(), finding, "");
}

void diagnose_fail(struct cv_diagnose *d, struct cv_status why, const struct cv_error *error,
                   const char *suggestion)
{
    const char *finding = error && error->detail[0] ? error->detail : cv_status_text(why.id);
    size_t len = strlen(stages[d->stage].name);
    /* Where it failed is said already. */
    if (strncmp(finding, stages[d->stage].name, len) == 0 && strncmp(finding + len, ": ", 2) == 0)
        finding += len + 2;
    if (!d->failed && !stages[d->stage].is_apart)
        d->failed = stages[d->stage].name;
    tell(d, CV_DIAGNOSE_FAILED, why, finding,
         suggestion ? suggestion : cv_status_suggestion(why.id));
}

static void on_timeout(void *arg)
{
    struct cv_diagnose *d = arg;
    struct cv_error error = {0};
    enum cv_status_id id = CV_CONN_TIMEOUT;
    const char *finding = "it was not done in time: the relay or the network is stuck";
    const char *suggestion = NULL;
    cv_resolve_cancel(&d->resolve);
    if (d->stage == DIAGNOSE_DNS) {
        id = CV_RESOLVE;
        finding = "no name server has answered in time";
    } else if (d->stage == DIAGNOSE_TUNNEL) {
        finding = "the relay has not led back in time";
        suggestion = "ssh.max_channels must be 2 or more on both sides; else look at the relay's "
                     "log.";
    }
    diagnose_fail(d, cv_fail(&error, id, "%s", finding), &error, suggestion);
}

void diagnose_limit(struct cv_diagnose *d, uint64_t limit_ms)
{
    (void)cv_worker_timer_start(d->worker, &d->timer, limit_ms);
}

static void begin_stage(struct cv_diagnose *d)
{
    const struct stage *stage = &stages[d->stage];
    d->is_stage_over = false;
    d->began_ns = cv_worker_now_ns(d->worker);
    d->details = json_object();
    if (!d->details) {
        end(d);
        return;
    }
    if (d->failed && !stage->is_apart)
        diagnose_skip(d, "not tried, since %s failed", d->failed);
    else if (stage->needs_link && !d->link)
        diagnose_fail(d, d->link_why, &d->link_error, NULL);
    else
        stage->begin(d);
}

static void on_next(void *arg)
{
    struct cv_diagnose *d = arg;
    if (d->is_stopping)
        return;
    if (++d->stage == DIAGNOSE_STAGES)
        end(d);
    else
        begin_stage(d);
}

void diagnose_on_link_lost(struct cv_diagnose *d)
{
    if (d->is_stopping)
        end(d);
    else if (!d->is_stage_over && stages[d->stage].needs_link)
        diagnose_fail(d, d->link_why, &d->link_error, NULL);
}

static void on_first(void *arg)
{
    struct cv_diagnose *d = arg;
    cv_defer_init(&d->next, on_next, d);
    begin_stage(d);
}

/* ---- life ---- */

static struct cv_status read_options(struct cv_diagnose *d, struct cv_error *error)
{
    const struct cv_access *access = d->options.access;
    struct cv_proxy_settings settings = {.url = access->config->proxy};
    if (d->options.target_count > CV_DIAGNOSE_TARGETS_MAX)
        return cv_fail(error, CV_USAGE, "more than %d targets", CV_DIAGNOSE_TARGETS_MAX);
    for (size_t i = 0; i < d->options.target_count; i++)
        if (!cv_target_parse(cv_slice_str(d->options.targets[i]), &d->targets[i]))
            return cv_fail(error, CV_USAGE,
                           "a target must be a port (1 to 65535), HOST:PORT or http://HOST[:PORT]");
    return cv_proxy_choose(&settings, access->tls != NULL, access->host, access->port, &d->proxy,
                           error);
}

struct cv_status cv_diagnose_new(struct cv_worker *worker,
                                 const struct cv_diagnose_options *options,
                                 const struct cv_diagnose_ops *ops, void *arg,
                                 struct cv_diagnose **out, struct cv_error *error)
{
    struct cv_diagnose *d = calloc(1, sizeof *d);
    *out = NULL;
    if (!d)
        return cv_fail(error, CV_NO_MEMORY, "out of memory");
    *d = (struct cv_diagnose){.worker = worker, .options = *options, .ops = ops, .arg = arg};
    d->sent = malloc(DIAGNOSE_DATA_BYTES);
    d->received = malloc(DIAGNOSE_DATA_BYTES);
    cv_buf_init(&d->echo, CV_LINK_WINDOW_MAX(options->access->config) + 64 * 1024);
    cv_timer_init(&d->timer, on_timeout, d);
    cv_defer_init(&d->next, on_first, d);
    struct cv_status status = d->sent && d->received
                                  ? read_options(d, error)
                                  : cv_fail(error, CV_NO_MEMORY, "out of memory");
    if (!cv_is_ok(status)) {
        cv_diagnose_free(&d);
        return status;
    }
    cv_worker_defer(worker, &d->next);
    *out = d;
    return status;
}

void cv_diagnose_stop(struct cv_diagnose *d)
{
    end(d);
}

void cv_diagnose_free(struct cv_diagnose **pointer)
{
    struct cv_diagnose *d = *pointer;
    *pointer = NULL;
    if (!d)
        return;
    diagnose_path_done(d);
    cv_worker_timer_stop(d->worker, &d->timer);
    cv_defer_cancel(&d->next);
    cv_dialer_cancel(&d->dialer);
    json_decref(d->details);
    cv_buf_done(&d->echo);
    cv_wipe(&d->proxy, sizeof d->proxy);
    free(d->sent);
    free(d->received);
    free(d);
}
