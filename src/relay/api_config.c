/* SPDX-License-Identifier: MIT
 *
 * The relay's settings: shown, and those that can be changed while it runs.
 *
 * A PATCH is all or nothing: members that are no settings, that a restart is needed for, or whose
 * values are wrong by themselves or together are all named, and then nothing changes.
 */
#include "base/json.h"
#include "config/relay_config.h"
#include "relay/api_private.h"
#include "telemetry/audit.h"
#include "telemetry/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CONFIG_TEXT_MAX = 1024 * 1024 };

/* ---- showing ---- */

static const char *origin_name(enum cv_origin_kind kind)
{
    static const char *const names[] = {[CV_ORIGIN_DEFAULT] = "default",
                                        [CV_ORIGIN_FILE] = "file",
                                        [CV_ORIGIN_ENV] = "environment",
                                        [CV_ORIGIN_FLAG] = "flag",
                                        [CV_ORIGIN_API] = "api"};
    return names[kind];
}

/* {"ws.ping_interval": "30s", …}; NULL without memory. */
static json_t *values_json(const struct cv_relay_config *config)
{
    struct cv_buf text;
    json_t *values = NULL;
    cv_buf_init(&text, CONFIG_TEXT_MAX);
    if (cv_is_ok(cv_settings_show_json(&cv_relay_schema, config, &text)))
        (void)cv_json_parse(cv_buf_slice(&text), &values);
    cv_buf_done(&text);
    return values;
}

static json_t *setting_json(const struct cv_relay_config *config, const struct cv_setting *setting,
                            json_t *value)
{
    enum cv_origin_kind origin = cv_settings_origin(&cv_relay_schema, config, setting->key).kind;
    bool is_live = setting->flags & CV_SETTING_RUNTIME;
    return json_pack("{s:O, s:s, s:s}", "value", value, "origin", origin_name(origin), "change",
                     is_live                                                  ? "now"
                     : setting->flags & (CV_SETTING_LIVE | CV_SETTING_REREAD) ? "reload"
                                                                              : "restart");
}

void api_config_get(struct cv_consumer *c, const json_t *body)
{
    const struct cv_relay_config *config = c->worker->relay->config;
    json_t *values = values_json(config), *settings = json_object();
    bool is_whole = values && settings;
    (void)body;
    for (size_t i = 0; is_whole && i < cv_relay_schema.count; i++) {
        const struct cv_setting *setting = &cv_relay_schema.settings[i];
        json_t *value = json_object_get(values, setting->key);
        is_whole = value && json_object_set_new(settings, setting->key,
                                                setting_json(config, setting, value)) == 0;
    }
    json_decref(values);
    if (!is_whole) {
        json_decref(settings);
        settings = NULL;
    }
    api_answer(c, 200, settings ? json_pack("{s:o}", "settings", settings) : NULL);
}

/* ---- changing ---- */

/* What a PATCH says, as flags would. */
struct changes {
    struct cv_override *items;
    struct cv_buf *texts; /* one for each value */
    size_t count;
    struct cv_problems problems;
};

static void changes_done(struct changes *changes)
{
    for (size_t i = 0; i < changes->count; i++)
        cv_buf_done(&changes->texts[i]);
    free(changes->items);
    free(changes->texts);
    cv_problems_done(&changes->problems);
}

/* A value as one would write it in a flag. False: of a shape that no setting has. */
static bool put_value(const json_t *value, const struct cv_setting *setting, struct cv_buf *out)
{
    if (!value)
        return false;
    switch (json_typeof(value)) {
    case JSON_NULL:
        return cv_is_ok(cv_buf_append_str(out, setting->default_text));
    case JSON_TRUE:
        return cv_is_ok(cv_buf_append_str(out, "true"));
    case JSON_FALSE:
        return cv_is_ok(cv_buf_append_str(out, "false"));
    case JSON_INTEGER:
        return cv_is_ok(cv_buf_printf(out, "%lld", (long long)json_integer_value(value)));
    case JSON_STRING:
        return strlen(json_string_value(value)) == json_string_length(value) &&
               cv_is_ok(cv_buf_append_str(out, json_string_value(value)));
    default:
        return false;
    }
}

static bool put_list(const json_t *list, const struct cv_setting *setting, struct cv_buf *out)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *item = json_array_get(list, i);
        const char *text = json_string_value(item);
        if (json_is_null(item) || (text && strchr(text, ',')) ||
            (i && !cv_is_ok(cv_buf_append_byte(out, ','))) || !put_value(item, setting, out))
            return false;
    }
    return true;
}

static void read_change(struct changes *changes, const char *key, const json_t *value)
{
    const struct cv_setting *setting = cv_settings_find(&cv_relay_schema, key);
    struct cv_problems *problems = &changes->problems;
    if (!setting) {
        cv_problems_add(problems, "PATCH", 0, key, "", "is no setting");
        return;
    }
    if (!(setting->flags & CV_SETTING_RUNTIME)) {
        cv_problems_add(problems, "PATCH", 0, key, "",
                        setting->flags & CV_SETTING_LIVE ? "is changed in the file, then SIGHUP"
                        : setting->flags & CV_SETTING_REREAD
                            ? "is read again on SIGHUP; where it points to takes a restart"
                            : "takes a restart");
        return;
    }
    struct cv_buf *text = &changes->texts[changes->count];
    cv_buf_init(text, CV_CONFIG_VALUE_MAX * 4);
    bool is_good =
        json_is_array(value) ? put_list(value, setting, text) : put_value(value, setting, text);
    is_good = is_good && cv_is_ok(cv_buf_append_byte(text, 0));
    changes->items[changes->count++] = (struct cv_override){
        .key = setting->key,
        .value = is_good ? (const char *)cv_buf_head(text) : "",
        .where = "PATCH",
    };
    if (!is_good)
        cv_problems_add(problems, "PATCH", 0, key, "", "is of a type that no setting has");
}

static struct cv_status read_changes(const json_t *body, struct changes *changes)
{
    const char *key;
    json_t *value;
    size_t count = json_object_size(body);
    *changes = (struct changes){.items = calloc(count + 1, sizeof *changes->items),
                                .texts = calloc(count + 1, sizeof *changes->texts)};
    cv_problems_init(&changes->problems);
    if (!changes->items || !changes->texts)
        return cv_status(CV_NO_MEMORY);
    json_object_foreach((json_t *)(uintptr_t)body, key, value)
    {
        read_change(changes, key, value);
    }
    return cv_status(changes->problems.count ? CV_CONFIG : CV_OK);
}

static void answer_problems(struct cv_consumer *c, const struct cv_problems *problems)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < problems->count; i++) {
        const struct cv_problem *p = &problems->items[i];
        if (json_array_append_new(list, json_pack("{s:s, s:s, s:s}", "key", p->key, "value",
                                                  p->value, "text", p->text)) != 0) {
            json_decref(list);
            list = NULL;
        }
    }
    json_t *object =
        list ? json_pack("{s:s, s:s, s:i, s:s, s:s, s:s, s:o}", "type",
                         "urn:culvert:error:TUNNEL_016", "title", cv_status_text(CV_UNPROCESSABLE),
                         "status", 422, "detail", "nothing was changed", "code",
                         cv_status_code(CV_UNPROCESSABLE), "request_id", c->x.id, "problems", list)
             : NULL;
    char *text = object ? cv_json_text(object) : NULL;
    json_decref(object);
    if (text)
        problem_simple(c, 422, "application/problem+json", text, NULL);
    else
        problem_answer(c, CV_NO_MEMORY, CV_HOP_RELAY, NULL, false);
    free(text);
}

/* After the change: whoever does not look at the configuration each time is told. */
static void apply(struct cv_consumer *c, const struct changes *changes)
{
    struct cv_relay *relay = c->worker->relay;
    const struct cv_relay_config *config = relay->config;
    enum cv_log_level level;
    for (size_t i = 0; i < changes->count; i++) {
        const struct cv_override *change = &changes->items[i];
        cv_audit(c->worker->record, CONFIG, CV_F_STR("key", change->key),
                 CV_F_STR("value", change->value), CV_F_STR("by", c->x.identity->subject),
                 CV_F_STR("requestId", c->x.id));
        cv_log(relay->log, CV_LOG_INFO, "relay", "config_changed", "a setting was changed",
               CV_F_STR("key", change->key), CV_F_STR("value", change->value),
               CV_F_STR("userId", c->x.identity->subject));
        if (strcmp(change->key, "log.level") == 0 && cv_log_level_parse(config->log_level, &level))
            cv_log_set_level(relay->log, level);
    }
}

static json_t *changed_json(const struct changes *changes)
{
    json_t *list = json_array();
    for (size_t i = 0; list && i < changes->count; i++)
        if (json_array_append_new(list, json_string(changes->items[i].key)) != 0) {
            json_decref(list);
            return NULL;
        }
    return list ? json_pack("{s:o, s:b}", "changed", list, "persistent", 0) : NULL;
}

/* All of it, or nothing. */
static struct cv_status change(struct cv_relay *relay, struct changes *changes)
{
    struct cv_relay_config *config = NULL;
    if (!cv_relay_begin_change(relay))
        return cv_status(CV_UNAVAILABLE);
    struct cv_status status = cv_relay_config_patch(relay->config, changes->items, changes->count,
                                                    relay->is_dev, &config, &changes->problems);
    if (cv_is_ok(status))
        status = cv_relay_change(relay, config);
    if (!cv_is_ok(status)) {
        cv_relay_config_free(&config);
        cv_relay_end_change(relay);
    }
    return status;
}

void api_config_patch(struct cv_consumer *c, const json_t *body)
{
    struct cv_relay *relay = c->worker->relay;
    struct changes changes;
    struct cv_status status = read_changes(body, &changes);
    if (cv_is_ok(status))
        status = change(relay, &changes);
    if (cv_is_ok(status)) {
        apply(c, &changes);
        api_answer(c, 200, changed_json(&changes));
    } else if (status.id == CV_CONFIG) {
        answer_problems(c, &changes.problems);
    } else {
        problem_answer(c, status.id, CV_HOP_RELAY,
                       status.id == CV_UNAVAILABLE ? "another change is under way" : NULL, true);
    }
    changes_done(&changes);
}
