/* SPDX-License-Identifier: MIT */
#include "config/agent_config.h"
#include "config/setting_value.h"

#include <stdlib.h>
#include <string.h>

static enum cv_change judge(const struct cv_agent_config *config, const struct cv_setting *setting)
{
    enum cv_origin_kind origin = cv_settings_origin(&cv_agent_schema, config, setting->key).kind;
    if (origin == CV_ORIGIN_ENV || origin == CV_ORIGIN_FLAG)
        return CV_CHANGE_OVERRIDDEN;
    if (!(setting->flags & CV_SETTING_TOLD))
        return CV_CHANGE_RESTART;
    return setting->flags & CV_SETTING_NEXT ? CV_CHANGE_NEXT_LINK : CV_CHANGE_NOW;
}

static size_t width(enum cv_setting_kind kind)
{
    switch (kind) {
    case CV_KIND_BOOL:
        return sizeof(bool);
    case CV_KIND_INT:
        return sizeof(uint32_t);
    case CV_KIND_DURATION:
    case CV_KIND_SIZE:
        return sizeof(uint64_t);
    default:
        return sizeof(char *);
    }
}

/* Swapped, so that a string is freed with the other one. */
static void swap(const struct cv_setting *setting, struct cv_agent_config *a,
                 struct cv_agent_config *b)
{
    char kept[sizeof(uint64_t)];
    size_t len = width(setting->kind);
    memcpy(kept, cv_setting_field(setting, a), len);
    memcpy(cv_setting_field(setting, a), cv_setting_field(setting, b), len);
    memcpy(cv_setting_field(setting, b), kept, len);
}

static struct cv_status patch(const struct cv_agent_config *config, struct cv_agent_config *changed,
                              const struct cv_override *changes, size_t count,
                              struct cv_error *error)
{
    struct cv_problems problems;
    cv_problems_init(&problems);
    struct cv_status status =
        cv_settings_patch(&cv_agent_schema, config, changed, changes, count, &problems);
    if (problems.count)
        status = cv_fail(error, CV_CONFIG, "%.60s %.180s", problems.items[0].key,
                         problems.items[0].text);
    else if (cv_is_ok(status) && changed->reconnect_initial_ms > changed->reconnect_max_ms)
        status = cv_fail(error, CV_CONFIG,
                         "reconnect.initial must not be longer than "
                         "reconnect.max");
    cv_problems_done(&problems);
    return status;
}

struct cv_status cv_agent_config_change(struct cv_agent_config *config,
                                        const struct cv_override *changes, size_t count,
                                        enum cv_change *when, struct cv_error *error)
{
    struct cv_agent_config *changed = calloc(1, sizeof *changed);
    if (!changed)
        return cv_fail(error, CV_NO_MEMORY, "out of memory");
    struct cv_status status = patch(config, changed, changes, count, error);
    for (size_t i = 0; cv_is_ok(status) && i < count; i++) {
        const struct cv_setting *setting = cv_settings_find(&cv_agent_schema, changes[i].key);
        if (!setting)
            status = cv_fail(error, CV_CONFIG, "%.100s is no setting of its own", changes[i].key);
        else
            when[i] = judge(config, setting);
    }
    for (size_t i = 0; cv_is_ok(status) && i < count; i++)
        if (when[i] == CV_CHANGE_NOW || when[i] == CV_CHANGE_NEXT_LINK)
            swap(cv_settings_find(&cv_agent_schema, changes[i].key), config, changed);
    cv_settings_done(&cv_agent_schema, changed);
    free(changed);
    return status;
}
