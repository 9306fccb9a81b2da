/* SPDX-License-Identifier: MIT */
#include "config/settings.h"

#include "config/schema.h"
#include "config/setting_value.h"
#include "config/settings_file.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#define READ_MAX 65536

const struct cv_setting *cv_settings_find(const struct cv_schema *schema, const char *key)
{
    for (size_t i = 0; i < schema->count; i++)
        if (strcmp(schema->settings[i].key, key) == 0)
            return &schema->settings[i];
    return NULL;
}

struct cv_origin *cv_settings_origin_at(const struct cv_schema *schema, void *values, size_t index)
{
    if (schema->origins_offset == 0)
        return NULL;
    return (struct cv_origin *)((char *)values + schema->origins_offset) + index;
}

struct cv_origin cv_settings_origin(const struct cv_schema *schema, const void *values,
                                    const char *key)
{
    const struct cv_setting *setting = cv_settings_find(schema, key);
    if (!setting || schema->origins_offset == 0)
        return (struct cv_origin){.kind = CV_ORIGIN_DEFAULT};
    return ((const struct cv_origin *)((const char *)values +
                                       schema->origins_offset))[setting - schema->settings];
}

void cv_settings_env_name(const struct cv_setting *setting, char out[96])
{
    (void)snprintf(out, 96, "CULVERT_%s", setting->key);
    for (char *c = out; *c; c++)
        *c = (char)(*c == '.' ? '_' : toupper((unsigned char)*c));
}

void cv_settings_complain(const struct cv_schema *schema, const void *values,
                          const struct cv_config_sources *sources, const char *key,
                          const char *text, struct cv_problems *problems)
{
    const struct cv_setting *setting = cv_settings_find(schema, key);
    struct cv_origin origin = cv_settings_origin(schema, values, key);
    char env_name[96];
    const char *where = "configuration";
    if (origin.kind == CV_ORIGIN_FILE && sources->path) {
        where = sources->path;
    } else if (origin.kind == CV_ORIGIN_ENV && setting) {
        cv_settings_env_name(setting, env_name);
        where = origin.is_established && setting->env ? setting->env : env_name;
    } else if (origin.kind == CV_ORIGIN_FLAG) {
        where = "command line";
        for (size_t i = 0; i < sources->override_count; i++)
            if (strcmp(sources->overrides[i].key, key) == 0)
                where = sources->overrides[i].where;
    }
    cv_problems_add(problems, where, origin.line, key, "", text);
}

struct cv_status cv_settings_default(const struct cv_schema *schema, void *values)
{
    for (size_t i = 0; i < schema->count; i++) {
        const struct cv_setting *setting = &schema->settings[i];
        if (setting->kind == CV_KIND_RECORDS)
            continue;
        struct cv_slice text = cv_slice_str(setting->default_text);
        struct cv_status status = cv_setting_set_text(setting, values, text, false);
        if (status.id == CV_CONFIG)
            return cv_status(CV_INTERNAL);
        CV_RETURN_IF_ERROR(status);
    }
    return cv_ok();
}

void cv_settings_done(const struct cv_schema *schema, void *values)
{
    for (size_t i = 0; i < schema->count; i++)
        cv_setting_clear(&schema->settings[i], values);
    memset(values, 0, schema->size);
}

/* People go through a file from the top; keys given twice were found before the rest. */
static void sort_by_line(struct cv_problems *problems, size_t from)
{
    for (size_t i = from + 1; i < problems->count; i++) {
        struct cv_problem moving = problems->items[i];
        size_t to = i;
        for (; to > from && problems->items[to - 1].line > moving.line; to--)
            problems->items[to] = problems->items[to - 1];
        problems->items[to] = moving;
    }
}

static struct cv_status apply_text(const struct cv_schema *schema, void *values,
                                   struct cv_slice text, const char *name,
                                   struct cv_problems *problems)
{
    struct cv_yaml_node *root = NULL;
    unsigned line = 0;
    char why[160];
    size_t before = problems->count;
    if (text.len > CV_CONFIG_FILE_MAX) {
        cv_problems_add(problems, name, 0, "", "", "the file is larger than 1 MiB");
        return cv_ok();
    }
    struct cv_status status =
        cv_yaml_tree_parse(text, name, problems, &root, &line, why, sizeof why);
    if (status.id == CV_CONFIG) {
        cv_problems_add(problems, name, line, "", "", why);
        return cv_ok();
    }
    CV_RETURN_IF_ERROR(status);
    status = cv_settings_apply_tree(schema, values, root, name, "", problems);
    sort_by_line(problems, before);
    cv_yaml_tree_free(&root);
    return status;
}

/* At most one byte over the cap, whatever the file claims to be or becomes meanwhile. */
static struct cv_status read_file(int fd, struct cv_buf *out)
{
    for (;;) {
        size_t room = cv_buf_room(out) < READ_MAX ? cv_buf_room(out) : READ_MAX;
        if (room == 0)
            return cv_ok();
        uint8_t *to = cv_buf_reserve(out, room);
        if (!to)
            return cv_status(CV_NO_MEMORY);
        ssize_t n = read(fd, to, room);
        if (n == 0)
            return cv_ok();
        if (n < 0 && errno != EINTR)
            return cv_status(CV_IO);
        if (n > 0)
            cv_buf_commit(out, (size_t)n);
    }
}

static struct cv_status apply_file(const struct cv_schema *schema, void *values, const char *path,
                                   struct cv_problems *problems)
{
    struct cv_buf text;
    struct stat st;
    cv_buf_init(&text, CV_CONFIG_FILE_MAX + 1);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct cv_status status = cv_status(CV_IO);
    if (fd >= 0 && fstat(fd, &st) == 0) {
        errno = EISDIR;
        if (!S_ISDIR(st.st_mode))
            status = read_file(fd, &text);
    }
    if (status.id == CV_IO) {
        char why[160];
        (void)snprintf(why, sizeof why, "cannot be read: %s", strerrordesc_np(errno));
        cv_problems_add(problems, path, 0, "", "", why);
    }
    if (fd >= 0)
        (void)close(fd);
    if (cv_is_ok(status))
        status = apply_text(schema, values, cv_buf_slice(&text), path, problems);
    cv_buf_wipe(&text); /* a proxy's password may be in it */
    return status;
}

const char *cv_settings_getenv(const char *const *env, const char *name)
{
    size_t len = strlen(name);
    for (; env && *env; env++)
        if (strncmp(*env, name, len) == 0 && (*env)[len] == '=' && (*env)[len + 1])
            return *env + len + 1;
    return NULL;
}

static struct cv_status apply_env(const struct cv_schema *schema, void *values,
                                  const char *const *env, struct cv_problems *problems)
{
    for (size_t i = 0; i < schema->count; i++) {
        const struct cv_setting *setting = &schema->settings[i];
        char own_name[96];
        cv_settings_env_name(setting, own_name);
        const char *name = own_name;
        const char *value = cv_settings_getenv(env, own_name);
        if (!value && setting->env) {
            name = setting->env;
            value = cv_settings_getenv(env, name);
        }
        if (!value || setting->kind == CV_KIND_RECORDS)
            continue;
        struct cv_status status = cv_setting_set_text(setting, values, cv_slice_str(value), true);
        if (status.id == CV_CONFIG) {
            cv_settings_refuse(problems, setting, name, 0, setting->key, value);
            continue;
        }
        CV_RETURN_IF_ERROR(status);
        struct cv_origin *origin = cv_settings_origin_at(schema, values, i);
        if (origin)
            *origin =
                (struct cv_origin){.kind = CV_ORIGIN_ENV, .is_established = name == setting->env};
    }
    return cv_ok();
}

/* Finds what "list[3].key" means: the record, made if it is one behind the last. NULL in *record
 * and ok when there is no such thing. */
static struct cv_status find_record(const struct cv_schema *schema, void *values, const char *key,
                                    const struct cv_setting **setting, void **record)
{
    const char *bracket = strchr(key, '[');
    const char *dot = bracket ? strstr(bracket, "].") : NULL;
    uint64_t index = 0;
    char list[64];
    *record = NULL;
    if (!dot || !cv_slice_to_str(cv_slice(key, (size_t)(bracket - key)), list, sizeof list) ||
        !cv_slice_to_u64(cv_slice(bracket + 1, (size_t)(dot - bracket - 1)), CV_CONFIG_LIST_MAX - 1,
                         &index))
        return cv_ok();
    const struct cv_setting *records = cv_settings_find(schema, list);
    if (!records || records->kind != CV_KIND_RECORDS)
        return cv_ok();
    *setting = cv_settings_find(records->record, dot + 2);
    struct cv_records *array = cv_setting_field(records, values);
    if (!*setting || index > array->count)
        return cv_ok();
    if (index == array->count)
        return cv_settings_add_record(records, values, record);
    *record = (char *)array->items + index * records->record->size;
    return cv_ok();
}

struct cv_status cv_settings_apply_override(const struct cv_schema *schema, void *values,
                                            const struct cv_override *override,
                                            struct cv_problems *problems)
{
    const struct cv_setting *setting = cv_settings_find(schema, override->key);
    struct cv_origin *origin =
        setting ? cv_settings_origin_at(schema, values, (size_t)(setting - schema->settings))
                : NULL;
    void *target = values;
    if (!setting)
        CV_RETURN_IF_ERROR(find_record(schema, values, override->key, &setting, &target));
    if (!setting || !target) {
        cv_problems_add(problems, override->where, 0, override->key, "", "is no setting");
        return cv_ok();
    }
    struct cv_status status = cv_ok();
    if (setting->kind == CV_KIND_RECORDS && override->value[0] == '\0')
        cv_setting_clear(setting, target);
    else
        status = cv_setting_set_text(setting, target, cv_slice_str(override->value), false);
    if (status.id == CV_CONFIG) {
        cv_settings_refuse(problems, setting, override->where, 0, override->key, override->value);
        return cv_ok();
    }
    if (cv_is_ok(status) && origin)
        *origin = (struct cv_origin){.kind = CV_ORIGIN_FLAG};
    return status;
}

/* Records from a file were checked there, with their lines; those that flags made are checked here.
 */
static void check_records(const struct cv_schema *schema, const void *values,
                          struct cv_problems *problems)
{
    for (size_t i = 0; i < schema->count; i++) {
        const struct cv_setting *setting = &schema->settings[i];
        if (setting->kind != CV_KIND_RECORDS ||
            cv_settings_origin(schema, values, setting->key).kind == CV_ORIGIN_FILE)
            continue;
        const struct cv_records *records = cv_setting_field_const(setting, values);
        for (size_t k = 0; k < records->count; k++) {
            char prefix[96];
            (void)snprintf(prefix, sizeof prefix, "%s[%zu].", setting->key, k);
            cv_settings_check_record(setting->record,
                                     (const char *)records->items + k * setting->record->size,
                                     "command line", 0, prefix, problems);
        }
    }
}

struct cv_status cv_settings_load(const struct cv_schema *schema, void *values,
                                  const struct cv_config_sources *sources,
                                  struct cv_problems *problems)
{
    size_t before = problems->count + problems->unlisted;
    CV_RETURN_IF_ERROR(cv_settings_default(schema, values));
    struct cv_status file = cv_ok();
    if (sources->path)
        file = apply_file(schema, values, sources->path, problems);
    if (file.id != CV_IO)
        CV_RETURN_IF_ERROR(file);
    CV_RETURN_IF_ERROR(apply_env(schema, values, sources->env, problems));
    for (size_t i = 0; i < sources->override_count; i++)
        CV_RETURN_IF_ERROR(
            cv_settings_apply_override(schema, values, &sources->overrides[i], problems));
    check_records(schema, values, problems);
    CV_RETURN_IF_ERROR(file);
    return cv_status(problems->count + problems->unlisted > before ? CV_CONFIG : CV_OK);
}

struct cv_status cv_settings_load_text(const struct cv_schema *schema, void *values,
                                       struct cv_slice text, const char *name,
                                       struct cv_problems *problems)
{
    size_t before = problems->count + problems->unlisted;
    CV_RETURN_IF_ERROR(cv_settings_default(schema, values));
    CV_RETURN_IF_ERROR(apply_text(schema, values, text, name, problems));
    return cv_status(problems->count + problems->unlisted > before ? CV_CONFIG : CV_OK);
}
