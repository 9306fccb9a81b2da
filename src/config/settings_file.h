/* SPDX-License-Identifier: MIT
 *
 * A YAML tree into settings. Private to config/.
 */
#ifndef CV_CONFIG_SETTINGS_FILE_H
#define CV_CONFIG_SETTINGS_FILE_H

#include "config/yaml_tree.h"

/* Adds the problem that `value` (NULL: none; masked if secret) is not what the setting wants. */
void cv_settings_refuse(struct cv_problems *problems, const struct cv_setting *setting,
                        const char *where, unsigned line, const char *key, const char *value);

/* Fills `values` from the map `root`. `prefix` stands before keys in problems ("tunnels[0].").
 * Wrong entries go to `problems` and are skipped. Only CV_NO_MEMORY is returned besides ok. */
struct cv_status cv_settings_apply_tree(const struct cv_schema *schema, void *values,
                                        const struct cv_yaml_node *root, const char *name,
                                        const char *prefix, struct cv_problems *problems);

/* Adds a record with its defaults to a list of records and gives it in *record. CV_NO_RESOURCES
 * beyond CV_CONFIG_LIST_MAX, CV_NO_MEMORY. */
struct cv_status cv_settings_add_record(const struct cv_setting *setting, void *values,
                                        void **record);

/* Adds a problem for each required setting that a record lacks. */
void cv_settings_check_record(const struct cv_schema *schema, const void *record, const char *where,
                              unsigned line, const char *prefix, struct cv_problems *problems);

/* The origin of the setting at `index` in the schema; NULL for records. */
struct cv_origin *cv_settings_origin_at(const struct cv_schema *schema, void *values, size_t index);

/* Sets what an override says; what is wrong with it goes to `problems`. CV_NO_MEMORY. */
struct cv_status cv_settings_apply_override(const struct cv_schema *schema, void *values,
                                            const struct cv_override *override,
                                            struct cv_problems *problems);

/* Sets all defaults. CV_NO_MEMORY, CV_INTERNAL when the table itself is wrong. */
struct cv_status cv_settings_default(const struct cv_schema *schema, void *values);

#endif
