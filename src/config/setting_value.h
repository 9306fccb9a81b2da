/* SPDX-License-Identifier: MIT
 *
 * One setting's value: from text into its field, from its field to text, and what may be written.
 * Private to config/. The field is owned by the configuration. Any thread.
 */
#ifndef CV_CONFIG_SETTING_VALUE_H
#define CV_CONFIG_SETTING_VALUE_H

#include "config/settings.h"

#define CV_EXPECTED_MAX 320

bool cv_kind_is_list(enum cv_setting_kind kind);

static inline void *cv_setting_field(const struct cv_setting *setting, void *values)
{
    return (char *)values + setting->offset;
}

static inline const void *cv_setting_field_const(const struct cv_setting *setting,
                                                 const void *values)
{
    return (const char *)values + setting->offset;
}

/* Reads `count` texts (one unless it is a list) and replaces the field. CV_CONFIG: not allowed, the
 * field stays. CV_NO_MEMORY. Empty text unsets a string. Not for records. */
struct cv_status cv_setting_set(const struct cv_setting *setting, void *values,
                                const struct cv_slice *texts, size_t count, bool is_bare_ms);

/* Reads a list with commas, or a single text. */
struct cv_status cv_setting_set_text(const struct cv_setting *setting, void *values,
                                     struct cv_slice text, bool is_bare_ms);

/* Frees what the field owns, records too, and zeroes it. */
void cv_setting_clear(const struct cv_setting *setting, void *values);

/* Whether a string, list or duration without a default has been given. */
bool cv_setting_is_set(const struct cv_setting *setting, const void *values);

/* "a duration such as 30s, 1s to 10m": what may be written, for messages and docs. */
void cv_setting_expected(const struct cv_setting *setting, char out[CV_EXPECTED_MAX]);

/* Appends one item (0 unless it is a list) of the value, as text without quotes. */
struct cv_status cv_setting_print(const struct cv_setting *setting, const void *values, size_t item,
                                  struct cv_buf *out);

#endif
