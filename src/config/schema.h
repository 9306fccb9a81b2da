/* SPDX-License-Identifier: MIT
 *
 * What the tables of relay_config and agent_config are turned into rows with, and what their checks
 * across settings need. Private to config/.
 */
#ifndef CV_CONFIG_SCHEMA_H
#define CV_CONFIG_SCHEMA_H

#include "config/settings.h"

#include <stddef.h>

/* The struct that a table describes is CV_SETTING_OWNER where the rows are made. Behind `check`
 * stand one or two designated initialisers, CV_RANGE and its like; they have commas, so this must
 * be the table's X itself. */
#define CV_SETTING_ROW(field_, key_, kind_, default_, check, env_, flags_, help_, example_)        \
    {.key = (key_),                                                                                \
     .kind = CV_KIND_##kind_,                                                                      \
     .offset = offsetof(CV_SETTING_OWNER, field_),                                                 \
     .default_text = (default_),                                                                   \
     check,                                                                                        \
     .env = (env_),                                                                                \
     .flags = (flags_),                                                                            \
     .help = (help_),                                                                              \
     .example = (example_)},

/* Value of a variable in an environment like environ; NULL when it is not there or empty. */
const char *cv_settings_getenv(const char *const *env, const char *name);

/* Adds a problem of a setting, with the place its value came from. */
void cv_settings_complain(const struct cv_schema *schema, const void *values,
                          const struct cv_config_sources *sources, const char *key,
                          const char *text, struct cv_problems *problems);

#endif
