/* SPDX-License-Identifier: MIT
 *
 * Settings that change while the program runs: a copy with some of them set anew (the management
 * API), or with those taken over from a file that was read again.
 */
#include "config/schema.h"
#include "config/setting_value.h"
#include "config/settings.h"
#include "config/settings_file.h"

#include <stdlib.h>
#include <string.h>

static struct cv_status copy_strings(const struct cv_strings *from, struct cv_strings *to)
{
    *to = (struct cv_strings){0};
    if (!from->count)
        return cv_ok();
    to->items = calloc(from->count, sizeof *to->items);
    for (; to->items && to->count < from->count; to->count++) {
        to->items[to->count] = strdup(from->items[to->count]);
        if (!to->items[to->count])
            break;
    }
    return cv_status(to->count == from->count ? CV_OK : CV_NO_MEMORY);
}

static struct cv_status copy_values(const struct cv_schema *schema, const void *from, void *to);

static struct cv_status copy_records(const struct cv_setting *setting,
                                     const struct cv_records *from, struct cv_records *to)
{
    size_t size = setting->record->size;
    *to = (struct cv_records){0};
    if (!from->count)
        return cv_ok();
    to->items = calloc(from->count, size);
    if (!to->items)
        return cv_status(CV_NO_MEMORY);
    for (; to->count < from->count;) {
        size_t i = to->count++; /* also one that is half copied is given back */
        CV_RETURN_IF_ERROR(copy_values(setting->record, (const char *)from->items + i * size,
                                       (char *)to->items + i * size));
    }
    return cv_ok();
}

static struct cv_status copy_value(const struct cv_setting *setting, const void *from, void *to)
{
    const void *source = cv_setting_field_const(setting, from);
    void *target = cv_setting_field(setting, to);
    if (setting->kind == CV_KIND_RECORDS)
        return copy_records(setting, source, target);
    if (cv_kind_is_list(setting->kind))
        return copy_strings(source, target);
    switch (setting->kind) {
    case CV_KIND_BOOL:
        *(bool *)target = *(const bool *)source;
        return cv_ok();
    case CV_KIND_INT:
        *(uint32_t *)target = *(const uint32_t *)source;
        return cv_ok();
    case CV_KIND_DURATION:
    case CV_KIND_SIZE:
        *(uint64_t *)target = *(const uint64_t *)source;
        return cv_ok();
    default:
        break;
    }
    char *text = *(char *const *)source;
    *(char **)target = text ? strdup(text) : NULL;
    return cv_status(text && !*(char **)target ? CV_NO_MEMORY : CV_OK);
}

static struct cv_status copy_values(const struct cv_schema *schema, const void *from, void *to)
{
    for (size_t i = 0; i < schema->count; i++)
        CV_RETURN_IF_ERROR(copy_value(&schema->settings[i], from, to));
    return cv_ok();
}

struct cv_status cv_settings_patch(const struct cv_schema *schema, const void *from, void *to,
                                   const struct cv_override *overrides, size_t count,
                                   struct cv_problems *problems)
{
    size_t before = problems->count + problems->unlisted;
    CV_RETURN_IF_ERROR(copy_values(schema, from, to));
    memcpy((char *)to + schema->origins_offset, (const char *)from + schema->origins_offset,
           schema->count * sizeof(struct cv_origin));
    for (size_t i = 0; i < count; i++) {
        CV_RETURN_IF_ERROR(cv_settings_apply_override(schema, to, &overrides[i], problems));
        const struct cv_setting *setting = cv_settings_find(schema, overrides[i].key);
        if (setting)
            *cv_settings_origin_at(schema, to, (size_t)(setting - schema->settings)) =
                (struct cv_origin){.kind = CV_ORIGIN_API};
    }
    return cv_status(problems->count + problems->unlisted > before ? CV_CONFIG : CV_OK);
}

static bool is_same_text(const char *a, const char *b)
{
    return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool is_same_list(const struct cv_strings *a, const struct cv_strings *b)
{
    bool is_same = a->count == b->count;
    for (size_t i = 0; is_same && i < a->count; i++)
        is_same = is_same_text(a->items[i], b->items[i]);
    return is_same;
}

static bool is_same_records(const struct cv_schema *schema, const struct cv_records *a,
                            const struct cv_records *b)
{
    bool is_same = a->count == b->count;
    for (size_t i = 0; is_same && i < a->count; i++)
        for (size_t k = 0; is_same && k < schema->count; k++)
            is_same = cv_settings_is_same(schema, (const char *)a->items + i * schema->size,
                                          (const char *)b->items + i * schema->size, k);
    return is_same;
}

bool cv_settings_is_same(const struct cv_schema *schema, const void *one, const void *other,
                         size_t index)
{
    const struct cv_setting *setting = &schema->settings[index];
    const void *a = cv_setting_field_const(setting, one);
    const void *b = cv_setting_field_const(setting, other);
    if (setting->kind == CV_KIND_RECORDS)
        return is_same_records(setting->record, a, b);
    if (cv_kind_is_list(setting->kind))
        return is_same_list(a, b);
    switch (setting->kind) {
    case CV_KIND_BOOL:
        return *(const bool *)a == *(const bool *)b;
    case CV_KIND_INT:
        return *(const uint32_t *)a == *(const uint32_t *)b;
    case CV_KIND_DURATION:
    case CV_KIND_SIZE:
        return *(const uint64_t *)a == *(const uint64_t *)b;
    default:
        return is_same_text(*(char *const *)a, *(char *const *)b);
    }
}

struct cv_status cv_settings_merge(const struct cv_schema *schema, const void *running,
                                   const void *loaded, void *to, struct cv_problems *left)
{
    const struct cv_origin *origins =
        (const struct cv_origin *)((const char *)running + schema->origins_offset);
    const struct cv_origin *loaded_origins =
        (const struct cv_origin *)((const char *)loaded + schema->origins_offset);
    for (size_t i = 0; i < schema->count; i++) {
        const struct cv_setting *setting = &schema->settings[i];
        bool is_live = setting->flags & (CV_SETTING_LIVE | CV_SETTING_RUNTIME);
        bool is_kept = !is_live || origins[i].kind == CV_ORIGIN_API;
        CV_RETURN_IF_ERROR(copy_value(setting, is_kept ? running : loaded, to));
        *cv_settings_origin_at(schema, to, i) = is_kept ? origins[i] : loaded_origins[i];
        if (is_kept && !cv_settings_is_same(schema, running, loaded, i))
            cv_problems_add(left, "", 0, setting->key, "",
                            is_live ? "stays as the management API has set it" : "takes a restart");
    }
    return cv_ok();
}
