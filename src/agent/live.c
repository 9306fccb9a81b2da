/* SPDX-License-Identifier: MIT
 *
 * `{"command":"set"}` of the control socket: settings of an agent that runs. What they change is
 * read where it is used, so that all there is to do is to tell those who keep copies.
 */
#include "agent/access.h"
#include "agent/agent_private.h"
#include "agent/control.h"
#include "config/agent_config.h"
#include "telemetry/log.h"

enum { CHANGES_MAX = 64 };

static const char *const words[] = {[CV_CHANGE_NOW] = "now",
                                    [CV_CHANGE_NEXT_LINK] = "next_link",
                                    [CV_CHANGE_RESTART] = "restart",
                                    [CV_CHANGE_OVERRIDDEN] = "overridden"};

static json_t *failure(const char *message)
{
    json_t *text = json_string(message);
    return json_pack("{s:{s:o}}", "error", "message", text ? text : json_string("not readable"));
}

static void apply(struct cv_agent *agent)
{
    enum cv_log_level level;
    if (cv_log_level_parse(agent->config->log_level, &level))
        cv_log_set_level(agent->options.log, level);
    for (struct berth *b = agent->berths; b; b = b->next)
        if (!b->is_over)
            cv_uplink_on_settings(b->uplink);
}

json_t *control_set(struct cv_agent *agent, const json_t *question)
{
    struct cv_override changes[CHANGES_MAX];
    enum cv_change when[CHANGES_MAX];
    size_t count = 0;
    const char *key;
    json_t *value;
    struct cv_error error = {0};
    json_t *settings = json_object_get(question, "settings");
    if (!json_is_object(settings) || json_object_size(settings) > CHANGES_MAX)
        return failure("`settings` is an object of keys and values as text, 64 at most");
    if (!agent->options.config)
        return failure("this agent's settings are those of its command line");
    json_object_foreach(settings, key, value)
    {
        if (!json_is_string(value))
            return failure("a value is text, as in a file");
        changes[count++] =
            (struct cv_override){.key = key, .value = json_string_value(value), .where = "set"};
    }
    if (!cv_is_ok(cv_agent_config_change(agent->options.config, changes, count, when, &error)))
        return failure(error.detail);
    json_t *outcome = json_object();
    for (size_t i = 0; i < count; i++) {
        (void)json_object_set_new(outcome, changes[i].key, json_string(words[when[i]]));
        cv_log(agent->options.log, CV_LOG_INFO, "agent", "setting_changed", "a setting was changed",
               CV_F_STR("setting", changes[i].key), CV_F_STR("takes", words[when[i]]));
    }
    apply(agent);
    return json_pack("{s:o}", "settings", outcome);
}
