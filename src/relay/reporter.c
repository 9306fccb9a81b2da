/* SPDX-License-Identifier: MIT
 *
 * Happy path: on_tick → look (breakers, trend) → cv_incidents_turn → save → tell each receiver what
 * is due → on_told. Ways it fails: a receiver that does not take it is asked again later and later;
 * a file that cannot be written is warned about and tried again; with metrics off only breakers are
 * seen. A relay that drains, or that was taken over from, sees and tells nothing more: whoever goes
 * on has the file.
 */
#include "relay/reporter.h"

#include "base/buf.h"
#include "base/digest.h"
#include "base/file.h"
#include "config/relay_config.h"
#include "net/fetch.h"
#include "relay/registry.h"
#include "relay/relay.h"
#include "telemetry/incident_report.h"
#include "telemetry/log.h"
#include "telemetry/metrics.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TICK_MS = 1000,
    TIMEOUT_MS = 10000,
    ANSWER_MAX = 64 * 1024,
    RETRY_FIRST_MS = 1000,
    RETRY_MAX_MS = 60000,
    SAVE_RETRY_MS = 10000,
    END_SLACK_MS = 3000, /* rounds, whole seconds of clocks, the way there */
};

_Static_assert(2 * CV_USER_KEY_LEN + 1 + CV_TUNNEL_NAME_MAX <= CV_INCIDENT_SUBJECT_MAX,
               "a breaker's id is what an incident is about");

/* One who is told, and what is on its way there. */
struct sink {
    enum cv_incident_sink id;
    struct cv_reporter *reporter;
    const char *url; /* NULL: nobody */
    struct cv_fetch *fetch;
    uint64_t due_ms;    /* not before */
    uint64_t repeat_ms; /* Alertmanager: what still is so is to be told again then */
    unsigned failures;  /* in a row */
    size_t word_count;
    struct {
        char key[CV_INCIDENT_KEY_LEN + 1];
        enum cv_incident_told told;
    } words[CV_INCIDENTS_MAX];
};

struct cv_reporter {
    struct cv_relay *relay;
    const struct cv_relay_config *config; /* as at the start */
    struct cv_worker *worker;
    bool is_running;
    char path[4096];
    bool is_loaded;
    bool is_unsaved;
    uint64_t save_due_ms;
    struct cv_timer tick;
    struct cv_incidents incidents;
    struct cv_incident_clock at; /* of this round */
    uint64_t openings;           /* of breakers, when they were looked at last */
    uint64_t trend_due_ms;
    struct cv_trend trend;
    struct cv_incident_context context;
    char tunnels[CV_INCIDENT_TUNNELS_MAX][CV_INCIDENT_SUBJECT_MAX + 1];
    char alerts_url[2048];
    struct sink sinks[CV_INCIDENT_SINK_COUNT];
};

/* ---- the file ---- */

static void load(struct cv_reporter *r)
{
    struct cv_buf text;
    struct cv_error error = {0};
    cv_buf_init(&text, CV_INCIDENT_FILE_MAX);
    struct cv_status status = cv_file_read(r->path, CV_FILE_ANY, &text, &error);
    if (cv_is_ok(status))
        status = cv_incidents_load(&r->incidents, cv_buf_slice(&text), &r->at);
    if (!cv_is_ok(status) && status.id != CV_NOT_FOUND)
        cv_log(r->relay->log, CV_LOG_WARN, "incidents", "incidents_unreadable",
               "the file of incidents cannot be used; it begins anew", CV_F_STATUS(status),
               CV_F_STR("detail", error.detail), CV_F_STR("path", r->path));
    cv_buf_done(&text);
    r->is_loaded = true;
}

static void save(struct cv_reporter *r)
{
    struct cv_error error = {0};
    if (!r->is_unsaved || r->at.now_ms < r->save_due_ms)
        return;
    char *text = cv_incidents_save(&r->incidents);
    struct cv_status status =
        text ? cv_file_replace(r->path, cv_slice_str(text), 0600, &error) : cv_status(CV_NO_MEMORY);
    free(text);
    r->is_unsaved = !cv_is_ok(status);
    r->save_due_ms = r->is_unsaved ? r->at.now_ms + SAVE_RETRY_MS : 0;
    if (r->is_unsaved)
        cv_log_limited(r->relay->log, CV_LOG_WARN, "incidents", "incidents_unsaved",
                       "incidents cannot be written down; a restart would forget them",
                       CV_F_STATUS(status), CV_F_STR("detail", error.detail));
}

/* ---- looking ---- */

static void see_breaker(void *arg, const struct cv_gate_view *gate)
{
    struct cv_reporter *r = arg;
    char id[CV_INCIDENT_SUBJECT_MAX + 1], user[2 * CV_USER_KEY_LEN + 1];
    char summary[CV_INCIDENT_SUMMARY_MAX + 1];
    if (gate->breaker.state == CV_BREAKER_CLOSED)
        return;
    cv_hex_encode(cv_slice(gate->user->bytes, CV_USER_KEY_LEN), user);
    (void)snprintf(id, sizeof id, "%s.%s", user, gate->tunnel);
    (void)snprintf(summary, sizeof summary, "The service of tunnel %s fails and is left alone",
                   gate->tunnel);
    cv_incidents_see(&r->incidents, CV_INCIDENT_BREAKER, id, summary, &r->at);
    if (r->context.tunnel_count < CV_INCIDENT_TUNNELS_MAX)
        memcpy(r->tunnels[r->context.tunnel_count++], id, sizeof id);
}

/* All names of all users are walked only while there is something to find. */
static void look_at_breakers(struct cv_reporter *r)
{
    uint64_t openings = atomic_load_explicit(&r->relay->breaker_openings, memory_order_relaxed);
    r->context.tunnel_count = 0;
    if (openings == r->openings && !cv_incidents_has(&r->incidents, CV_INCIDENT_BREAKER))
        return;
    r->openings = openings;
    cv_registry_each_gate(r->relay->registry, NULL, see_breaker, r);
}

static void look_at_trend(struct cv_reporter *r)
{
    if (r->relay->metrics && r->at.now_ms >= r->trend_due_ms) {
        struct cv_trend_totals totals;
        struct cv_metrics_snapshot *snapshot = cv_metrics_snapshot(r->relay->metrics, r->at.now_ms);
        if (snapshot) {
            cv_trend_totals(snapshot, &totals);
            cv_trend_add(&r->trend, r->at.now_ms, &totals);
        }
        free(snapshot);
        r->trend_due_ms = r->at.now_ms + CV_TREND_STEP_MS;
    }
    cv_trend_look(&r->trend, &r->context.trend);
    const struct cv_trend_view *view = &r->context.trend;
    char summary[CV_INCIDENT_SUMMARY_MAX + 1];
    if (view->failed_ratio * 100 > (double)r->config->incidents_error_percent) {
        (void)snprintf(summary, sizeof summary,
                       "%.1f %% of %" PRIu64 " requests failed in the last 5 minutes",
                       view->failed_ratio * 100, view->window.tried);
        cv_incidents_see(&r->incidents, CV_INCIDENT_ERRORS, "", summary, &r->at);
    }
    if (view->attempts_per_second > (double)r->config->incidents_storm_per_second) {
        (void)snprintf(summary, sizeof summary, "%.0f attempts a second to open or resume a link",
                       view->attempts_per_second);
        cv_incidents_see(&r->incidents, CV_INCIDENT_STORM, "", summary, &r->at);
    }
}

/* ---- telling ---- */

static struct cv_incident *find(struct cv_reporter *r, const char *key)
{
    for (size_t i = 0; i < CV_INCIDENTS_MAX; i++)
        if (r->incidents.all[i].is_used && strcmp(r->incidents.all[i].key, key) == 0)
            return &r->incidents.all[i];
    return NULL;
}

static const char *sink_name(const struct sink *sink)
{
    return sink->id == CV_INCIDENT_WEBHOOK ? "webhook" : "alertmanager";
}

static void note_told(struct sink *sink, bool was_taken)
{
    struct cv_reporter *r = sink->reporter;
    for (size_t i = 0; i < sink->word_count; i++) {
        struct cv_incident *incident = find(r, sink->words[i].key);
        if (!incident || incident->told[sink->id] == sink->words[i].told)
            continue;
        incident->told[sink->id] = sink->words[i].told;
        r->is_unsaved = true;
        cv_log(r->relay->log, was_taken ? CV_LOG_INFO : CV_LOG_WARN, "incidents",
               was_taken ? "incident_told" : "incident_refused",
               was_taken ? "an incident was told" : "an incident was refused and is not told again",
               CV_F_STR("receiver", sink_name(sink)), CV_F_STR("incident", incident->key),
               CV_F_STR("status", sink->words[i].told == CV_TOLD_RESOLVED ? "resolved" : "firing"),
               CV_F_STR("alert", cv_incident_kind_info(incident->kind)->alertname),
               CV_F_STR("summary", incident->summary));
    }
}

/* Whether asking again with the same is of no use (RFC 9110 §15.5). */
static bool is_final(int http_status)
{
    static const int passing[] = {401, 403, 404, 408, 425, 429};
    if (http_status < 400 || http_status > 499)
        return false;
    for (size_t i = 0; i < sizeof passing / sizeof *passing; i++)
        if (passing[i] == http_status)
            return false;
    return true;
}

static void on_answer(void *arg, struct cv_status status, const struct cv_error *error,
                      int http_status, struct cv_slice body)
{
    struct sink *sink = arg;
    struct cv_reporter *r = sink->reporter;
    (void)body;
    sink->fetch = NULL;
    if (cv_worker_is_stopping(r->worker))
        return;
    uint64_t now_ms = cv_worker_now_ms(r->worker);
    bool was_taken = cv_is_ok(status) && http_status >= 200 && http_status <= 299;
    if (was_taken || is_final(http_status)) {
        sink->failures = 0;
        sink->repeat_ms = now_ms + r->config->incidents_repeat_ms;
        note_told(sink, was_taken);
        return;
    }
    unsigned doublings = sink->failures < 6 ? sink->failures : 6;
    uint64_t wait_ms = (uint64_t)RETRY_FIRST_MS << doublings;
    sink->failures++;
    sink->due_ms = now_ms + (wait_ms < RETRY_MAX_MS ? wait_ms : RETRY_MAX_MS);
    cv_log_limited(r->relay->log, CV_LOG_WARN, "incidents", "incident_untold",
                   "an incident could not be told; it is tried again",
                   CV_F_STR("receiver", sink_name(sink)), CV_F_UINT("attempt", sink->failures),
                   CV_F_STATUS(cv_is_ok(status) ? cv_status(CV_UNAVAILABLE) : status),
                   CV_F_STR("detail", error ? error->detail : NULL),
                   CV_F_INT("httpStatus", http_status));
}

/* `headers` and `text` are copied. */
static void post(struct sink *sink, const char *const *headers, const char *text)
{
    struct cv_reporter *r = sink->reporter;
    struct cv_fetch_request request = {
        .url = sink->url,
        .method = "POST",
        .headers = headers,
        .body = cv_slice_str(text),
        .timeout_ms = TIMEOUT_MS,
        .max_bytes = ANSWER_MAX,
        .allow_http = true, /* an operator's own network, by an operator's own choice */
    };
    struct cv_error error = {0};
    struct cv_status status =
        cv_fetch_start(r->worker, &request, on_answer, sink, &sink->fetch, &error);
    if (!cv_is_ok(status)) {
        sink->due_ms = r->at.now_ms + RETRY_MAX_MS;
        cv_log_limited(r->relay->log, CV_LOG_WARN, "incidents", "incident_untold",
                       "an incident could not be told; it is tried again",
                       CV_F_STR("receiver", sink_name(sink)), CV_F_ERROR(&error));
    }
}

static void add_word(struct sink *sink, const struct cv_incident *incident,
                     enum cv_incident_told told)
{
    memcpy(sink->words[sink->word_count].key, incident->key, sizeof incident->key);
    sink->words[sink->word_count++].told = told;
}

/* All that fires, again and again, and what is over, until it was taken: one request. */
static void tell_alertmanager(struct cv_reporter *r, struct sink *sink)
{
    static const char *const headers[] = {"Content-Type: application/json", NULL};
    bool is_due = false, has_repeat = r->at.now_ms >= sink->repeat_ms;
    /* Any other relay that still sees it has repeated it by then. */
    uint64_t end_ms = r->at.wall_ms + r->config->incidents_repeat_ms * 4 / 3 + END_SLACK_MS;
    json_t *alerts = json_array();
    sink->word_count = 0;
    for (size_t i = 0; alerts && i < CV_INCIDENTS_MAX; i++) {
        const struct cv_incident *incident = &r->incidents.all[i];
        enum cv_incident_told due = cv_incident_due(incident, sink->id);
        bool is_firing = cv_incident_is_firing(incident);
        if (due == CV_TOLD_NOTHING && !is_firing)
            continue;
        is_due |= due != CV_TOLD_NOTHING || has_repeat;
        add_word(sink, incident, is_firing ? CV_TOLD_FIRING : due);
        json_t *alert =
            cv_incident_alert(incident, is_firing ? CV_TOLD_FIRING : due, end_ms, &r->context);
        if (json_array_append_new(alerts, alert) != 0) {
            json_decref(alerts);
            alerts = NULL;
        }
    }
    char *text = is_due && alerts ? cv_json_text(alerts) : NULL;
    if (text)
        post(sink, headers, text);
    free(text);
    json_decref(alerts);
}

/* One word after the other, what began first at first. */
static void tell_webhook(struct cv_reporter *r, struct sink *sink)
{
    const struct cv_incident *next = NULL;
    for (size_t i = 0; i < CV_INCIDENTS_MAX; i++) {
        const struct cv_incident *incident = &r->incidents.all[i];
        if (cv_incident_due(incident, sink->id) != CV_TOLD_NOTHING &&
            (!next || incident->starts_ms < next->starts_ms))
            next = incident;
    }
    if (!next)
        return;
    enum cv_incident_told told = cv_incident_due(next, sink->id);
    char word[CV_INCIDENT_WORD_MAX], header[CV_INCIDENT_WORD_MAX + 32];
    cv_incident_word(next, told, word);
    (void)snprintf(header, sizeof header, "Idempotency-Key: \"%s\"", word);
    const char *const headers[] = {"Content-Type: application/json", header, NULL};
    char *text = cv_incident_hook(next, told, &r->context);
    sink->word_count = 0;
    add_word(sink, next, told);
    if (text)
        post(sink, headers, text);
    free(text);
}

/* ---- rounds ---- */

static void on_tick(void *arg)
{
    struct cv_reporter *r = arg;
    struct cv_relay *relay = r->relay;
    if (cv_worker_is_stopping(r->worker) || atomic_load(&relay->is_draining))
        return;
    r->at = (struct cv_incident_clock){cv_worker_now_ms(r->worker),
                                       cv_worker_wall_seconds(r->worker) * 1000};
    if (!r->is_loaded)
        load(r);
    struct cv_relay_counts counts = cv_relay_count(relay);
    r->context.links = counts.links;
    r->context.requests = counts.requests;
    look_at_breakers(r);
    look_at_trend(r);
    r->is_unsaved |= cv_incidents_turn(&r->incidents, &r->at);
    for (unsigned i = 0; i < CV_INCIDENT_SINK_COUNT; i++) {
        struct sink *sink = &r->sinks[i];
        if (!sink->url || sink->fetch || r->at.now_ms < sink->due_ms)
            continue;
        if (sink->id == CV_INCIDENT_WEBHOOK)
            tell_webhook(r, sink);
        else
            tell_alertmanager(r, sink);
    }
    save(r);
    (void)cv_worker_timer_start(r->worker, &r->tick, TICK_MS);
}

/* ---- life ---- */

struct cv_status cv_reporter_new(struct cv_relay *relay, const char *path, struct cv_reporter **out,
                                 struct cv_error *error)
{
    const struct cv_relay_config *config = relay->config;
    const char *base = config->incidents_alertmanager_url;
    *out = NULL;
    if (!base && !config->incidents_webhook_url)
        return cv_ok();
    struct cv_reporter *r = calloc(1, sizeof *r);
    if (!r)
        return cv_status(CV_NO_MEMORY);
    r->relay = relay;
    r->config = config;
    r->context = (struct cv_incident_context){.instance = relay->instance,
                                              .version = CV_VERSION,
                                              .runbook_url = config->incidents_runbook_url,
                                              .dashboard_url = config->incidents_dashboard_url,
                                              .tunnels = r->tunnels};
    size_t len = base ? strlen(base) : 0;
    int written = snprintf(r->alerts_url, sizeof r->alerts_url, "%s%sapi/v2/alerts",
                           base ? base : "", len && base[len - 1] == '/' ? "" : "/");
    r->sinks[CV_INCIDENT_ALERTMANAGER].url = base ? r->alerts_url : NULL;
    r->sinks[CV_INCIDENT_WEBHOOK].url = config->incidents_webhook_url;
    unsigned sinks = 0;
    for (unsigned i = 0; i < CV_INCIDENT_SINK_COUNT; i++) {
        r->sinks[i].id = (enum cv_incident_sink)i;
        r->sinks[i].reporter = r;
        sinks |= r->sinks[i].url ? 1U << i : 0;
    }
    cv_incidents_init(&r->incidents, config->incidents_debounce_ms, config->incidents_calm_ms,
                      sinks);
    cv_timer_init(&r->tick, on_tick, r);
    struct cv_status status = cv_worker_new(relay->worker_count, &r->worker, error);
    if (cv_is_ok(status) && ((size_t)written >= sizeof r->alerts_url ||
                             !cv_slice_to_str(cv_slice_str(path), r->path, sizeof r->path)))
        status = cv_fail(error, CV_CONFIG, "incidents.alertmanager_url: it is too long");
    if (cv_is_ok(status))
        status = cv_worker_timer_start(r->worker, &r->tick, 1);
    if (cv_is_ok(status))
        *out = r;
    else
        cv_reporter_free(&r);
    return status;
}

struct cv_status cv_reporter_start(struct cv_reporter *reporter)
{
    if (!reporter)
        return cv_ok();
    CV_RETURN_IF_ERROR(cv_worker_start_thread(reporter->worker));
    reporter->is_running = true;
    return cv_ok();
}

void cv_reporter_free(struct cv_reporter **reporter)
{
    struct cv_reporter *r = *reporter;
    if (!r)
        return;
    if (r->is_running) {
        cv_worker_stop(r->worker);
        cv_worker_join(r->worker);
    }
    cv_worker_free(&r->worker);
    free(r);
    *reporter = NULL;
}
