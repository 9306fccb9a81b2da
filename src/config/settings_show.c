/* SPDX-License-Identifier: MIT */
#include "config/setting_value.h"

/* Text that YAML would read as something else, or not at all, goes into double quotes. */
static bool is_plain_yaml(struct cv_slice text)
{
    static const char *const words[] = {"", "~", "null", "true", "false", "yes", "no", "on", "off"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (cv_slice_is_nocase(text, words[i]))
            return false;
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.data[i];
        bool is_word = (c >= '0' && c <= '9') || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') ||
                       c == '/' || c == '_' || c == '.' ||
                       (i > 0 && (c == '-' || c == '@' || c == '+' || c == '='));
        bool is_inner_colon = c == ':' && i > 0 && i + 1 < text.len;
        if (!is_word && !is_inner_colon)
            return false;
    }
    return true;
}

static struct cv_status show_item(const struct cv_setting *setting, const void *values, size_t item,
                                  struct cv_buf *out)
{
    struct cv_buf text;
    cv_buf_init(&text, CV_CONFIG_VALUE_MAX + 32);
    struct cv_status status = cv_setting_print(setting, values, item, &text);
    struct cv_slice slice = cv_buf_slice(&text);
    bool is_text = setting->kind >= CV_KIND_STRING;
    if (cv_is_ok(status) && (!is_text || is_plain_yaml(slice))) {
        status = cv_buf_append_slice(out, slice);
    } else if (cv_is_ok(status)) {
        status = cv_buf_append_byte(out, '"');
        for (size_t i = 0; i < slice.len && cv_is_ok(status); i++) {
            if (slice.data[i] == '"' || slice.data[i] == '\\')
                status = cv_buf_append_byte(out, '\\');
            if (cv_is_ok(status))
                status = cv_buf_append_byte(out, slice.data[i]);
        }
        if (cv_is_ok(status))
            status = cv_buf_append_byte(out, '"');
    }
    cv_buf_done(&text);
    return status;
}

static struct cv_status show_value(const struct cv_setting *setting, const void *values,
                                   struct cv_buf *out)
{
    if (!cv_kind_is_list(setting->kind))
        return cv_setting_is_set(setting, values) ? show_item(setting, values, 0, out) : cv_ok();
    size_t count = ((const struct cv_strings *)cv_setting_field_const(setting, values))->count;
    CV_RETURN_IF_ERROR(cv_buf_append_str(out, "["));
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            CV_RETURN_IF_ERROR(cv_buf_append_str(out, ", "));
        CV_RETURN_IF_ERROR(show_item(setting, values, i, out));
    }
    return cv_buf_append_str(out, "]");
}

struct cv_status cv_settings_show_value(const struct cv_setting *setting, const void *values,
                                        struct cv_buf *out)
{
    struct cv_setting plain = *setting;
    plain.flags &= ~CV_SETTING_SECRET;
    return show_value(&plain, values, out);
}

static struct cv_status show_origin(const struct cv_setting *setting, struct cv_origin origin,
                                    struct cv_buf *out)
{
    char name[96];
    switch (origin.kind) {
    case CV_ORIGIN_DEFAULT:
        return cv_buf_append_str(out, " # default");
    case CV_ORIGIN_FILE:
        return cv_buf_printf(out, " # line %u", origin.line);
    case CV_ORIGIN_ENV:
        cv_settings_env_name(setting, name);
        return cv_buf_printf(out, " # %s",
                             origin.is_established && setting->env ? setting->env : name);
    case CV_ORIGIN_API:
        return cv_buf_append_str(out, " # from the API");
    case CV_ORIGIN_FLAG:
        return cv_buf_append_str(out, " # command line");
    }
    return cv_ok();
}

/* Opens the sections in which `key` lies beyond those it shares with the key before. Returns its
 * last part and its depth; false when `out` is full. */
static bool open_sections(const char *before, const char *key, const char *margin,
                          struct cv_buf *out, const char **name, int *depth)
{
    bool is_same = true;
    *name = key;
    *depth = 0;
    for (const char *dot; (dot = strchr(*name, '.')); *name = dot + 1, ++*depth) {
        size_t len = (size_t)(dot - key) + 1;
        is_same = is_same && strncmp(before, key, len) == 0;
        if (!is_same && !cv_is_ok(cv_buf_printf(out, "%s%*s%.*s:\n", margin, 2 * *depth, "",
                                                (int)(dot - *name), *name)))
            return false;
    }
    return true;
}

static struct cv_status show_records(const struct cv_setting *setting, const void *values,
                                     struct cv_buf *out);

static struct cv_status show_all(const struct cv_schema *schema, const void *values,
                                 const char *margin, bool has_origins, struct cv_buf *out)
{
    const char *before = "";
    for (size_t i = 0; i < schema->count; i++) {
        const struct cv_setting *setting = &schema->settings[i];
        const char *name = setting->key;
        int depth = 0;
        if (!open_sections(before, setting->key, margin, out, &name, &depth))
            return cv_status(CV_NO_RESOURCES);
        before = setting->key;
        CV_RETURN_IF_ERROR(cv_buf_printf(out, "%s%*s%s:", margin, 2 * depth, "", name));
        if (setting->kind == CV_KIND_RECORDS) {
            CV_RETURN_IF_ERROR(show_records(setting, values, out));
            continue;
        }
        CV_RETURN_IF_ERROR(cv_buf_append_str(out, " "));
        CV_RETURN_IF_ERROR(show_value(setting, values, out));
        if (has_origins)
            CV_RETURN_IF_ERROR(
                show_origin(setting, cv_settings_origin(schema, values, setting->key), out));
        CV_RETURN_IF_ERROR(cv_buf_append_str(out, "\n"));
    }
    return cv_ok();
}

static struct cv_status show_records(const struct cv_setting *setting, const void *values,
                                     struct cv_buf *out)
{
    const struct cv_records *records = cv_setting_field_const(setting, values);
    CV_RETURN_IF_ERROR(cv_buf_append_str(out, records->count ? "\n" : " []\n"));
    for (size_t i = 0; i < records->count; i++) {
        CV_RETURN_IF_ERROR(cv_buf_append_str(out, "  -\n"));
        CV_RETURN_IF_ERROR(show_all(setting->record,
                                    (const char *)records->items + i * setting->record->size,
                                    "    ", false, out));
    }
    return cv_ok();
}

struct cv_status cv_settings_show(const struct cv_schema *schema, const void *values,
                                  bool has_origins, struct cv_buf *out)
{
    return show_all(schema, values, "", has_origins, out);
}

/* RFC 8259 §7. */
static struct cv_status json_text(struct cv_slice text, struct cv_buf *out)
{
    CV_RETURN_IF_ERROR(cv_buf_append_byte(out, '"'));
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.data[i];
        if (c < 0x20)
            CV_RETURN_IF_ERROR(cv_buf_printf(out, "\\u%04x", c));
        else if (c == '"' || c == '\\')
            CV_RETURN_IF_ERROR(cv_buf_printf(out, "\\%c", c));
        else
            CV_RETURN_IF_ERROR(cv_buf_append_byte(out, c));
    }
    return cv_buf_append_byte(out, '"');
}

static struct cv_status json_item(const struct cv_setting *setting, const void *values, size_t item,
                                  struct cv_buf *out)
{
    struct cv_buf text;
    cv_buf_init(&text, CV_CONFIG_VALUE_MAX + 32);
    struct cv_status status = cv_setting_print(setting, values, item, &text);
    bool is_bare = setting->kind == CV_KIND_BOOL || setting->kind == CV_KIND_INT;
    if (cv_is_ok(status))
        status = is_bare ? cv_buf_append_slice(out, cv_buf_slice(&text))
                         : json_text(cv_buf_slice(&text), out);
    cv_buf_done(&text);
    return status;
}

static struct cv_status json_value(const struct cv_setting *setting, const void *values,
                                   struct cv_buf *out)
{
    const void *field = cv_setting_field_const(setting, values);
    bool is_records = setting->kind == CV_KIND_RECORDS;
    if (!is_records && !cv_kind_is_list(setting->kind))
        return cv_setting_is_set(setting, values) ? json_item(setting, values, 0, out)
                                                  : cv_buf_append_str(out, "null");
    size_t count = is_records ? ((const struct cv_records *)field)->count
                              : ((const struct cv_strings *)field)->count;
    CV_RETURN_IF_ERROR(cv_buf_append_str(out, "["));
    for (size_t i = 0; i < count; i++) {
        if (i > 0)
            CV_RETURN_IF_ERROR(cv_buf_append_str(out, ", "));
        CV_RETURN_IF_ERROR(
            is_records
                ? cv_settings_show_json(setting->record,
                                        (const char *)((const struct cv_records *)field)->items +
                                            i * setting->record->size,
                                        out)
                : json_item(setting, values, i, out));
    }
    return cv_buf_append_str(out, "]");
}

struct cv_status cv_settings_show_json(const struct cv_schema *schema, const void *values,
                                       struct cv_buf *out)
{
    for (size_t i = 0; i < schema->count; i++) {
        const struct cv_setting *setting = &schema->settings[i];
        CV_RETURN_IF_ERROR(cv_buf_printf(out, "%s\n  \"%s\": ", i ? "," : "{", setting->key));
        CV_RETURN_IF_ERROR(json_value(setting, values, out));
    }
    return cv_buf_append_str(out, "\n}");
}

static const char *what_a_change_takes(const struct cv_setting *setting)
{
    if (setting->flags & CV_SETTING_RUNTIME)
        return "a SIGHUP, or the management API";
    if (setting->flags & CV_SETTING_LIVE)
        return "a SIGHUP";
    if (setting->flags & CV_SETTING_TOLD)
        return setting->flags & CV_SETTING_NEXT
                   ? "`culvert config set`, for the next link of agents that run"
                   : "`culvert config set`, for agents that run too";
    return setting->flags & CV_SETTING_REREAD ? "a SIGHUP for what is in the file, a restart for "
                                                "another file"
                                              : "a restart";
}

static struct cv_status doc_row(const struct cv_setting *setting, bool has_env, struct cv_buf *out)
{
    char expected[CV_EXPECTED_MAX];
    char env[96];
    cv_setting_expected(setting, expected);
    cv_settings_env_name(setting, env);
    CV_RETURN_IF_ERROR(cv_buf_printf(out, "### `%s`\n\n%s\n\n", setting->key, setting->help));
    CV_RETURN_IF_ERROR(cv_buf_printf(out, "- Value: %s\n", expected));
    if (setting->flags & CV_SETTING_REQUIRED)
        CV_RETURN_IF_ERROR(cv_buf_append_str(out, "- Must be given\n"));
    else if (setting->default_text[0])
        CV_RETURN_IF_ERROR(cv_buf_printf(out, "- Default: `%s`\n", setting->default_text));
    else
        CV_RETURN_IF_ERROR(cv_buf_append_str(out, "- Default: not set\n"));
    if (setting->example[0])
        CV_RETURN_IF_ERROR(cv_buf_printf(out, "- Example: `%s`\n", setting->example));
    if (has_env && setting->kind != CV_KIND_RECORDS)
        CV_RETURN_IF_ERROR(
            cv_buf_printf(out, "- Environment: `%s`%s%s%s\n", env, setting->env ? ", `" : "",
                          setting->env ? setting->env : "", setting->env ? "`" : ""));
    if (has_env)
        CV_RETURN_IF_ERROR(
            cv_buf_printf(out, "- A change takes %s\n", what_a_change_takes(setting)));
    if (setting->flags & CV_SETTING_SECRET)
        CV_RETURN_IF_ERROR(cv_buf_append_str(out, "- Secret: shown as `***`\n"));
    return cv_buf_append_str(out, "\n");
}

struct cv_status cv_settings_doc(const struct cv_schema *schema, struct cv_buf *out)
{
    for (size_t i = 0; i < schema->count; i++) {
        const struct cv_setting *setting = &schema->settings[i];
        CV_RETURN_IF_ERROR(doc_row(setting, schema->origins_offset != 0, out));
        if (setting->kind != CV_KIND_RECORDS)
            continue;
        CV_RETURN_IF_ERROR(cv_buf_printf(out, "Each entry of `%s` has these:\n\n", setting->key));
        for (size_t k = 0; k < setting->record->count; k++) {
            struct cv_setting row = setting->record->settings[k];
            char key[128];
            (void)snprintf(key, sizeof key, "%s[].%s", setting->key, row.key);
            row.key = key;
            CV_RETURN_IF_ERROR(doc_row(&row, false, out));
        }
    }
    return cv_ok();
}
