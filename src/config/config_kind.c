/* SPDX-License-Identifier: MIT */
#include "config/config_kind.h"

#include "config/agent_config.h"

static size_t count_problems(const struct cv_schema *schema, const char *path)
{
    const struct cv_config_sources sources = {.path = path};
    struct cv_problems problems;
    cv_problems_init(&problems);
    void *values = calloc(1, schema->size);
    if (!values)
        return SIZE_MAX;
    struct cv_status status = cv_settings_load(schema, values, &sources, &problems);
    size_t count = cv_is_ok(status) ? 0 : problems.count + problems.unlisted;
    cv_settings_done(schema, values);
    free(values);
    cv_problems_done(&problems);
    return count;
}

const struct cv_schema *cv_config_kind(const char *path)
{
    return count_problems(&cv_agent_schema, path) < count_problems(&cv_relay_schema, path)
               ? &cv_agent_schema
               : &cv_relay_schema;
}
