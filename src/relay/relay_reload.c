/* SPDX-License-Identifier: MIT
 *
 * SIGHUP: settings, certificate and keys are read again.
 *
 * Happy path: load → begin the change → merge with what runs → change → say what is different →
 * certificate → keys. Ways it fails: the settings cannot be read, or make no sense, by themselves
 * or beside those that take a restart: then nothing is changed, the certificate and keys neither;
 * the certificate, or the keys: each stays as it was, by itself.
 */
#include "relay/relay_private.h"

#include "auth/keysource.h"
#include "base/json.h"
#include "config/relay_config.h"
#include "net/notify.h"
#include "net/tls.h"
#include "telemetry/audit.h"
#include "telemetry/log.h"

#include <inttypes.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { WAIT_STEP_MS = 10, WAIT_STEPS = 200, TEXT_MAX = 1024 * 1024 };

/* Another change ends as soon as every worker has had a turn. */
static bool begin_change(struct cv_relay *relay)
{
    const struct timespec step = {.tv_nsec = WAIT_STEP_MS * 1000000L};
    sigset_t none;
    (void)sigemptyset(&none);
    for (unsigned i = 0; i < WAIT_STEPS; i++) {
        if (cv_relay_begin_change(relay))
            return true;
        (void)sigtimedwait(&none, NULL, &step);
    }
    return false;
}

static void log_problems(const struct cv_relay *relay, const struct cv_problems *problems)
{
    for (size_t i = 0; i < problems->count; i++) {
        const struct cv_problem *p = &problems->items[i];
        cv_log(relay->log, CV_LOG_WARN, "relay", "reload_problem", p->text,
               CV_F_STR("file", p->where), CV_F_UINT("line", p->line), CV_F_STR("key", p->key));
    }
}

/* {"ws.ping_interval": "30s", …} with secrets masked; NULL without memory. */
static json_t *values_of(const struct cv_relay_config *config)
{
    struct cv_buf text;
    json_t *values = NULL;
    cv_buf_init(&text, TEXT_MAX);
    if (cv_is_ok(cv_settings_show_json(&cv_relay_schema, config, &text)))
        (void)cv_json_parse(cv_buf_slice(&text), &values);
    cv_buf_done(&text);
    return values;
}

/* {"key": value} of what is different; NULL without memory. */
static json_t *differences(const struct cv_relay_config *old, const struct cv_relay_config *new)
{
    json_t *values = values_of(new), *changed = json_object();
    for (size_t i = 0; changed && i < cv_relay_schema.count; i++) {
        const char *key = cv_relay_schema.settings[i].key;
        if (cv_settings_is_same(&cv_relay_schema, old, new, i))
            continue;
        if (json_object_set(changed, key, json_object_get(values, key)) != 0) {
            json_decref(changed);
            changed = NULL;
        }
    }
    json_decref(values);
    return changed;
}

static void tell_changes(struct cv_relay *relay, const json_t *changed)
{
    enum cv_log_level level;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)changed, key, value)
    {
        char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
        cv_audit(relay->record, CONFIG, CV_F_STR("key", key), CV_F_STR("value", text),
                 CV_F_STR("by", "SIGHUP"));
        cv_log(relay->log, CV_LOG_INFO, "relay", "config_changed", "a setting was changed",
               CV_F_STR("key", key), CV_F_STR("value", text));
        free(text);
        /* One that SIGUSR1 has raised stays so, unless the file says something new. */
        if (strcmp(key, "log.level") == 0 && cv_log_level_parse(json_string_value(value), &level))
            cv_log_set_level(relay->log, level);
    }
}

static struct cv_status change(struct cv_relay *relay, const struct cv_relay_config *loaded,
                               struct cv_problems *left, struct cv_problems *problems)
{
    struct cv_relay_config *merged = NULL;
    json_t *changed = NULL;
    if (!begin_change(relay))
        return cv_status(CV_UNAVAILABLE);
    struct cv_status status =
        cv_relay_config_merge(relay->config, loaded, relay->is_dev, &merged, left, problems);
    if (cv_is_ok(status) && !(changed = differences(relay->config, merged)))
        status = cv_status(CV_NO_MEMORY);
    bool is_different = json_object_size(changed) > 0;
    if (cv_is_ok(status) && is_different)
        status = cv_relay_change(relay, merged);
    if (cv_is_ok(status) && is_different) {
        tell_changes(relay, changed); /* `merged` may be replaced any moment */
    } else {
        cv_relay_config_free(&merged);
        cv_relay_end_change(relay);
    }
    json_decref(changed);
    return status;
}

/* False: nothing is to be changed. */
static bool reload_settings(struct cv_relay *relay)
{
    struct cv_problems problems, left;
    struct cv_relay_config *loaded = NULL;
    if (!relay->load_config)
        return true;
    cv_problems_init(&problems);
    cv_problems_init(&left);
    struct cv_status status = relay->load_config(relay->load_arg, &loaded, &problems);
    if (cv_is_ok(status))
        status = change(relay, loaded, &left, &problems);
    log_problems(relay, &problems);
    cv_log(relay->log, cv_is_ok(status) ? CV_LOG_INFO : CV_LOG_WARN, "relay", "reload_settings",
           cv_is_ok(status) ? "settings read again" : "nothing is changed, settings stay in use",
           CV_F_STATUS(status), CV_F_UINT("problems", problems.count));
    for (size_t i = 0; cv_is_ok(status) && i < left.count; i++)
        cv_log(relay->log, CV_LOG_WARN, "relay", "reload_left", left.items[i].text,
               CV_F_STR("key", left.items[i].key));
    cv_problems_done(&problems);
    cv_problems_done(&left);
    cv_relay_config_free(&loaded);
    return cv_is_ok(status);
}

static void tell(struct cv_relay *relay, const char *event, struct cv_status status,
                 const char *good, const char *bad, const struct cv_error *error)
{
    cv_log(relay->log, cv_is_ok(status) ? CV_LOG_INFO : CV_LOG_WARN, "relay", event,
           cv_is_ok(status) ? good : bad, CV_F_STATUS(status), CV_F_STR("detail", error->detail));
}

static void reload_files(struct cv_relay *relay)
{
    struct cv_error error = {0};
    struct cv_status status = relay->tls ? cv_tls_server_reload(relay->tls, &error) : cv_ok();
    tell(relay, "reload_tls", status, "certificate read again", "the old certificate stays in use",
         &error);
    error = (struct cv_error){0};
    status = cv_keysource_reload(relay->keys, &error);
    tell(relay, "reload_keys", status, "token keys read again", "the old token keys stay in use",
         &error);
}

void relay_reload(struct cv_relay *relay)
{
    cv_log_reopen(relay->log);
    char text[80];
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    (void)snprintf(text, sizeof text, "RELOADING=1\nMONOTONIC_USEC=%" PRIu64,
                   (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000);
    cv_notify(relay->notify_socket, text);
    cv_audit(relay->record, ADMIN, CV_F_STR("action", "reload"), CV_F_STR("by", "SIGHUP"));
    if (reload_settings(relay))
        reload_files(relay);
    relay_tell_ready(relay);
}
