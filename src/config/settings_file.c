/* SPDX-License-Identifier: MIT */
#include "config/settings_file.h"

#include "config/setting_value.h"

#define KEY_MAX 320

struct walk {
    const struct cv_schema *schema;
    void *values;
    const char *name;
    const char *prefix;
    struct cv_problems *problems;
};

void cv_settings_refuse(struct cv_problems *problems, const struct cv_setting *setting,
                        const char *where, unsigned line, const char *key, const char *value)
{
    char expected[CV_EXPECTED_MAX];
    char text[CV_EXPECTED_MAX + 160];
    bool is_secret = setting->flags & CV_SETTING_SECRET;
    cv_setting_expected(setting, expected);
    if (value && !is_secret)
        (void)snprintf(text, sizeof text, "is \"%.80s%s\", but must be %s", value,
                       strlen(value) > 80 ? "…" : "", expected);
    else
        (void)snprintf(text, sizeof text, "must be %s", expected);
    cv_problems_add(problems, where, line, key, is_secret ? "***" : value, text);
}

/* Edits (insert, drop, change, swap of neighbours) from a to b, given up above 3. */
static unsigned edit_distance(const char *a, const char *b)
{
    enum { MAX = 64 };
    unsigned rows[3][MAX + 1];
    size_t a_len = strlen(a), b_len = strlen(b);
    if (a_len > MAX || b_len > MAX)
        return MAX;
    unsigned *before = rows[0], *last = rows[1], *row = rows[2];
    for (size_t j = 0; j <= b_len; j++)
        last[j] = (unsigned)j;
    memcpy(before, last, sizeof rows[0]);
    for (size_t i = 1; i <= a_len; i++) {
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= b_len; j++) {
            unsigned best = last[j - 1] + (a[i - 1] != b[j - 1]);
            best = last[j] + 1 < best ? last[j] + 1 : best;
            best = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                before[j - 2] + 1 < best)
                best = before[j - 2] + 1;
            row[j] = best;
        }
        unsigned *oldest = before;
        before = last;
        last = row;
        row = oldest;
    }
    return last[b_len];
}

const char *cv_settings_nearest(const struct cv_schema *schema, const char *key)
{
    const char *nearest = NULL;
    unsigned best = 4;
    for (size_t i = 0; i < schema->count; i++) {
        unsigned distance = edit_distance(key, schema->settings[i].key);
        if (distance < best) {
            best = distance;
            nearest = schema->settings[i].key;
        }
    }
    return nearest;
}

static void refuse_unknown(const struct walk *w, const struct cv_yaml_node *node, const char *key)
{
    const char *nearest = cv_settings_nearest(w->schema, key);
    char full[KEY_MAX];
    char text[160];
    (void)snprintf(full, sizeof full, "%s%s", w->prefix, key);
    if (nearest)
        (void)snprintf(text, sizeof text, "is no setting; did you mean %s?", nearest);
    else
        (void)snprintf(text, sizeof text, "is no setting");
    cv_problems_add(w->problems, w->name, node->line, full, node->text, text);
}

static bool is_section(const struct cv_schema *schema, const char *path)
{
    size_t len = strlen(path);
    for (size_t i = 0; i < schema->count; i++)
        if (strncmp(schema->settings[i].key, path, len) == 0 && schema->settings[i].key[len] == '.')
            return true;
    return false;
}

static struct cv_status apply_records(const struct walk *w, const struct cv_setting *setting,
                                      const struct cv_yaml_node *node, const char *key)
{
    cv_setting_clear(setting, w->values); /* a key given twice must not leave records of both */
    size_t index = 0;
    for (const struct cv_yaml_node *item = node->first; item; item = item->next, index++) {
        char prefix[KEY_MAX];
        void *record = NULL;
        (void)snprintf(prefix, sizeof prefix, "%s%s[%zu].", w->prefix, key, index);
        if (item->kind != CV_YAML_MAP) {
            cv_settings_refuse(w->problems, setting, w->name, item->line, key, item->text);
            continue;
        }
        struct cv_status status = cv_settings_add_record(setting, w->values, &record);
        if (status.id == CV_NO_RESOURCES) {
            cv_problems_add(w->problems, w->name, item->line, key, "", "has too many entries");
            return cv_ok();
        }
        CV_RETURN_IF_ERROR(status);
        CV_RETURN_IF_ERROR(
            cv_settings_apply_tree(setting->record, record, item, w->name, prefix, w->problems));
        cv_settings_check_record(setting->record, record, w->name, item->line, prefix, w->problems);
    }
    return cv_ok();
}

static struct cv_status apply_list(const struct walk *w, const struct cv_setting *setting,
                                   const struct cv_yaml_node *node, const char *key)
{
    struct cv_slice items[CV_CONFIG_LIST_MAX];
    size_t count = 0;
    for (const struct cv_yaml_node *item = node->first; item; item = item->next) {
        if (count == CV_CONFIG_LIST_MAX || item->kind != CV_YAML_SCALAR) {
            cv_settings_refuse(w->problems, setting, w->name, item->line, key, item->text);
            return cv_ok();
        }
        /* One by one first, so that a problem names its line. */
        struct cv_slice text = cv_slice_str(item->text);
        struct cv_status status = cv_setting_set(setting, w->values, &text, 1, false);
        if (status.id == CV_CONFIG) {
            cv_settings_refuse(w->problems, setting, w->name, item->line, key, item->text);
            continue;
        }
        CV_RETURN_IF_ERROR(status);
        items[count++] = text;
    }
    return cv_setting_set(setting, w->values, items, count, false);
}

static struct cv_status apply_setting(const struct walk *w, size_t index,
                                      const struct cv_yaml_node *node)
{
    const struct cv_setting *setting = &w->schema->settings[index];
    char key[KEY_MAX];
    (void)snprintf(key, sizeof key, "%s%s", w->prefix, setting->key);
    struct cv_origin *origin = cv_settings_origin_at(w->schema, w->values, index);
    if (origin)
        *origin = (struct cv_origin){.kind = CV_ORIGIN_FILE, .line = node->line};
    if (node->kind == CV_YAML_LIST && setting->kind == CV_KIND_RECORDS)
        return apply_records(w, setting, node, setting->key);
    if (node->kind == CV_YAML_LIST && cv_kind_is_list(setting->kind))
        return apply_list(w, setting, node, key);
    if (node->kind != CV_YAML_SCALAR) {
        char expected[CV_EXPECTED_MAX];
        char text[CV_EXPECTED_MAX + 64];
        cv_setting_expected(setting, expected);
        (void)snprintf(text, sizeof text, "is a %s, but must be %s",
                       node->kind == CV_YAML_MAP ? "mapping" : "list", expected);
        cv_problems_add(w->problems, w->name, node->line, key, "", text);
        return cv_ok();
    }
    struct cv_slice text = cv_slice_str(node->text);
    struct cv_status status = cv_setting_set(setting, w->values, &text, 1, false);
    if (status.id != CV_CONFIG)
        return status;
    cv_settings_refuse(w->problems, setting, w->name, node->line, key, node->text);
    return cv_ok();
}

static struct cv_status apply_map(const struct walk *w, const struct cv_yaml_node *map,
                                  const char *section)
{
    for (const struct cv_yaml_node *node = map->first; node; node = node->next) {
        char path[KEY_MAX];
        if (snprintf(path, sizeof path, "%s%s%s", section, section[0] ? "." : "", node->key) >=
            (int)sizeof path) {
            cv_problems_add(w->problems, w->name, node->line, node->key, "", "is no setting");
            continue;
        }
        const struct cv_setting *setting = cv_settings_find(w->schema, path);
        bool is_known_section = !setting && is_section(w->schema, path);
        if (node->kind == CV_YAML_NULL && (setting || is_known_section))
            continue; /* written without a value: as if it were not there */
        if (setting)
            CV_RETURN_IF_ERROR(apply_setting(w, (size_t)(setting - w->schema->settings), node));
        else if (is_known_section && node->kind == CV_YAML_MAP)
            CV_RETURN_IF_ERROR(apply_map(w, node, path));
        else if (is_known_section)
            cv_problems_add(w->problems, w->name, node->line, path, node->text,
                            "must be a mapping with settings in it");
        else
            refuse_unknown(w, node, path);
    }
    return cv_ok();
}

struct cv_status cv_settings_apply_tree(const struct cv_schema *schema, void *values,
                                        const struct cv_yaml_node *root, const char *name,
                                        const char *prefix, struct cv_problems *problems)
{
    struct walk walk = {schema, values, name, prefix, problems};
    return apply_map(&walk, root, "");
}

struct cv_status cv_settings_add_record(const struct cv_setting *setting, void *values,
                                        void **record)
{
    struct cv_records *records = cv_setting_field(setting, values);
    size_t size = setting->record->size;
    if (records->count == CV_CONFIG_LIST_MAX)
        return cv_status(CV_NO_RESOURCES);
    void *items = reallocarray(records->items, records->count + 1, size);
    if (!items)
        return cv_status(CV_NO_MEMORY);
    records->items = items;
    *record = (char *)items + records->count * size;
    memset(*record, 0, size);
    struct cv_status status = cv_settings_default(setting->record, *record);
    if (!cv_is_ok(status)) {
        cv_settings_done(setting->record, *record);
        return status;
    }
    records->count++;
    return status;
}

/* What was refused is not set either, but it is not missing. */
static bool is_told(const struct cv_problems *problems, const char *key)
{
    for (size_t i = 0; i < problems->count; i++)
        if (strcmp(problems->items[i].key, key) == 0)
            return true;
    return false;
}

void cv_settings_check_record(const struct cv_schema *schema, const void *record, const char *where,
                              unsigned line, const char *prefix, struct cv_problems *problems)
{
    for (size_t i = 0; i < schema->count; i++) {
        const struct cv_setting *setting = &schema->settings[i];
        if (!(setting->flags & CV_SETTING_REQUIRED) || cv_setting_is_set(setting, record))
            continue;
        char key[KEY_MAX];
        (void)snprintf(key, sizeof key, "%s%s", prefix, setting->key);
        if (!is_told(problems, key))
            cv_problems_add(problems, where, line, key, "", "is missing");
    }
}
