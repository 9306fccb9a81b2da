/* SPDX-License-Identifier: MIT */
#include "telemetry/incident_report.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { TIME_MAX = 32, ERRORS_TOLD = 8 };

/* RFC 3339 with milliseconds. */
static const char *time_text(uint64_t unix_ms, char out[TIME_MAX])
{
    time_t seconds = (time_t)(unix_ms / 1000);
    struct tm tm;
    char day[TIME_MAX];
    if (!gmtime_r(&seconds, &tm) || strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &tm) == 0)
        (void)snprintf(day, sizeof day, "1970-01-01T00:00:00");
    (void)snprintf(out, TIME_MAX, "%.19s.%03uZ", day, (unsigned)(unix_ms % 1000));
    return out;
}

/* The name in a breaker's id, which is "user key.name". */
static const char *tunnel_of(const struct cv_incident *incident)
{
    const char *dot = strchr(incident->subject, '.');
    return incident->kind == CV_INCIDENT_BREAKER && dot ? dot + 1 : NULL;
}

/* False: no memory, and *object is gone. */
static bool put(json_t **object, const char *name, json_t *value)
{
    if (*object && json_object_set_new(*object, name, value) == 0)
        return true;
    if (!*object)
        json_decref(value); /* else it is gone already */
    json_decref(*object);
    *object = NULL;
    return false;
}

static void put_text(json_t **object, const char *name, const char *text)
{
    if (*object && text)
        (void)put(object, name, json_string(text));
}

/* Nothing of this instance: all relays mean the same. */
static json_t *labels_of(const struct cv_incident *incident)
{
    const struct cv_incident_kind_info *info = cv_incident_kind_info(incident->kind);
    json_t *labels = json_pack("{s:s, s:s, s:s}", "alertname", info->alertname, "service",
                               "culvert", "severity", info->severity);
    put_text(&labels, "tunnel", tunnel_of(incident));
    put_text(&labels, "breaker", tunnel_of(incident) ? incident->subject : NULL);
    return labels;
}

static const char *link_text(const char *base, const char *name, const char *suffix, char *out,
                             size_t cap)
{
    if (!base)
        return NULL;
    size_t len = strlen(base);
    int written =
        snprintf(out, cap, "%s%s%s%s", base, len && base[len - 1] == '/' ? "" : "/", name, suffix);
    return written > 0 && (size_t)written < cap ? out : NULL;
}

struct links {
    char runbook[2048], dashboard[2048];
    const char *runbook_url, *dashboard_url;
};

static void make_links(const struct cv_incident *incident,
                       const struct cv_incident_context *context, struct links *links)
{
    const struct cv_incident_kind_info *info = cv_incident_kind_info(incident->kind);
    links->runbook_url = link_text(context->runbook_url, info->runbook, ".md", links->runbook,
                                   sizeof links->runbook);
    links->dashboard_url = link_text(context->dashboard_url, info->dashboard, "", links->dashboard,
                                     sizeof links->dashboard);
}

/* ---- the last errors ---- */

struct error_count {
    enum cv_status_id id;
    uint64_t count;
};

static int by_count(const void *left, const void *right)
{
    const struct error_count *a = left, *b = right;
    return a->count < b->count ? 1 : a->count > b->count ? -1 : 0;
}

/* The most frequent of the last five minutes. */
static size_t top_errors(const struct cv_incident_context *context,
                         struct error_count top[CV_STATUS_COUNT])
{
    size_t count = 0;
    for (unsigned id = 0; id < CV_STATUS_COUNT; id++)
        if (context->trend.window.errors[id])
            top[count++] =
                (struct error_count){(enum cv_status_id)id, context->trend.window.errors[id]};
    qsort(top, count, sizeof *top, by_count);
    return count < ERRORS_TOLD ? count : ERRORS_TOLD;
}

static void put_errors_text(json_t **object, const struct cv_incident_context *context)
{
    struct error_count top[CV_STATUS_COUNT];
    char text[1024] = "";
    size_t count = top_errors(context, top), len = 0;
    for (size_t i = 0; i < count && len + 128 < sizeof text; i++)
        len +=
            (size_t)snprintf(text + len, sizeof text - len, "%s%s %.60s: %" PRIu64, i ? ", " : "",
                             cv_status_code(top[i].id), cv_status_text(top[i].id), top[i].count);
    put_text(object, "last_errors", count ? text : "none in the last 5 minutes");
}

static json_t *errors_list(const struct cv_incident_context *context)
{
    struct error_count top[CV_STATUS_COUNT];
    size_t count = top_errors(context, top);
    json_t *list = json_array();
    for (size_t i = 0; list && i < count; i++) {
        json_t *entry =
            json_pack("{s:s, s:s, s:s, s:I}", "code", cv_status_code(top[i].id), "category",
                      cv_category_name(cv_status_category(top[i].id)), "text",
                      cv_status_text(top[i].id), "count", (json_int_t)top[i].count);
        if (json_array_append_new(list, entry) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

/* ---- Alertmanager ---- */

static void put_metrics_text(json_t **object, const struct cv_incident_context *context)
{
    char text[256];
    (void)snprintf(text, sizeof text,
                   "links %u, requests under way %u, last 5 minutes: requests %" PRIu64
                   ", failed %" PRIu64 ", link attempts %" PRIu64,
                   context->links, context->requests, context->trend.window.tried,
                   context->trend.window.failed, context->trend.window.attempts);
    put_text(object, "metrics", text);
}

static void put_tunnels_text(json_t **object, const struct cv_incident_context *context)
{
    char text[CV_INCIDENT_TUNNELS_MAX * (CV_INCIDENT_SUBJECT_MAX + 2) + 1] = "";
    size_t len = 0;
    for (size_t i = 0; i < context->tunnel_count && i < CV_INCIDENT_TUNNELS_MAX; i++)
        len += (size_t)snprintf(text + len, sizeof text - len, "%s%s", i ? ", " : "",
                                context->tunnels[i]);
    if (len)
        put_text(object, "affected_tunnels", text);
}

static json_t *annotations_of(const struct cv_incident *incident,
                              const struct cv_incident_context *context)
{
    struct links links;
    make_links(incident, context, &links);
    json_t *notes = json_pack("{s:s, s:s, s:s, s:s}", "summary", incident->summary, "description",
                              cv_incident_kind_info(incident->kind)->description, "instance",
                              context->instance, "incident", incident->key);
    put_text(&notes, "runbook_url", links.runbook_url);
    put_text(&notes, "dashboard_url", links.dashboard_url);
    put_metrics_text(&notes, context);
    put_errors_text(&notes, context);
    put_tunnels_text(&notes, context);
    return notes;
}

json_t *cv_incident_alert(const struct cv_incident *incident, enum cv_incident_told told,
                          uint64_t end_ms, const struct cv_incident_context *context)
{
    char text[TIME_MAX];
    json_t *alert = json_object();
    if (!put(&alert, "labels", labels_of(incident)) ||
        !put(&alert, "annotations", annotations_of(incident, context)) ||
        !put(&alert, "startsAt", json_string(time_text(incident->starts_ms, text))))
        return NULL;
    /* Without an end it is over once nobody has repeated it for Alertmanager's resolve_timeout. */
    if (told == CV_TOLD_RESOLVED)
        put_text(&alert, "endsAt", time_text(end_ms, text));
    return alert;
}

/* ---- a webhook ---- */

void cv_incident_word(const struct cv_incident *incident, enum cv_incident_told told,
                      char word[CV_INCIDENT_WORD_MAX])
{
    (void)snprintf(word, CV_INCIDENT_WORD_MAX, "%s-%" PRIu64 "-%s", incident->key,
                   incident->starts_ms / 1000, told == CV_TOLD_RESOLVED ? "resolved" : "firing");
}

static json_t *tunnels_list(const struct cv_incident_context *context)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < context->tunnel_count && i < CV_INCIDENT_TUNNELS_MAX; i++) {
        const char *dot = strchr(context->tunnels[i], '.');
        json_t *entry =
            json_pack("{s:s, s:s}", "breaker", context->tunnels[i], "tunnel", dot ? dot + 1 : "");
        if (json_array_append_new(list, entry) != 0) {
            json_decref(list);
            return NULL;
        }
    }
    return list;
}

static json_t *context_object(const struct cv_incident_context *context)
{
    const struct cv_trend_totals *window = &context->trend.window;
    json_t *object = json_pack("{s:I, s:I, s:I, s:I, s:I}", "links", (json_int_t)context->links,
                               "requests_in_flight", (json_int_t)context->requests, "requests_5m",
                               (json_int_t)window->tried, "failed_5m", (json_int_t)window->failed,
                               "link_attempts_5m", (json_int_t)window->attempts);
    if (!put(&object, "last_errors", errors_list(context)) ||
        !put(&object, "affected_tunnels", tunnels_list(context)))
        return NULL;
    return object;
}

char *cv_incident_hook(const struct cv_incident *incident, enum cv_incident_told told,
                       const struct cv_incident_context *context)
{
    char starts[TIME_MAX], ends[TIME_MAX];
    struct links links;
    make_links(incident, context, &links);
    bool is_over = told == CV_TOLD_RESOLVED;
    json_t *body = json_pack("{s:i, s:s, s:s, s:s, s:s, s:s, s:s, s:s?}", "version", 1, "status",
                             is_over ? "resolved" : "firing", "incident", incident->key, "summary",
                             incident->summary, "description",
                             cv_incident_kind_info(incident->kind)->description, "instance",
                             context->instance, "starts_at", time_text(incident->starts_ms, starts),
                             "ends_at", is_over ? time_text(incident->ends_ms, ends) : NULL);
    char *text = NULL;
    if (put(&body, "labels", labels_of(incident)) && put(&body, "context", context_object(context)))
        put_text(&body, "culvert_version", context->version);
    put_text(&body, "runbook_url", links.runbook_url);
    put_text(&body, "dashboard_url", links.dashboard_url);
    if (body)
        text = cv_json_text(body);
    json_decref(body);
    return text;
}
