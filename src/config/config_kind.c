/* SPDX-License-Identifier: MIT */
#include "config/config_kind.h"

#include "config/agent_config.h"

enum { UNKNOWN_WEIGHT = 2 * CV_CONFIG_PROBLEMS_MAX };

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
    for (size_t i = 0; i < problems.count;
         i++) /* a name of the other kind says more than a value */
        if (strncmp(problems.items[i].text, "is no setting", strlen("is no setting")) == 0)
            count += UNKNOWN_WEIGHT;
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
