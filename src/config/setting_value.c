/* SPDX-License-Identifier: MIT */
#include "config/setting_value.h"

#include "base/tunnel_name.h"

#include "config/value.h"

#include <inttypes.h>

bool cv_kind_is_list(enum cv_setting_kind kind)
{
    return kind == CV_KIND_LIST || kind == CV_KIND_LIST_HOSTPORT || kind == CV_KIND_LIST_CIDR ||
           kind == CV_KIND_LIST_ORIGIN;
}

/* The choice that `text` means, as the table spells it; data NULL when it is none. */
static struct cv_slice find_choice(const char *choices, struct cv_slice text)
{
    struct cv_slice list = cv_slice_str(choices);
    while (list.data) {
        struct cv_slice choice = cv_slice_split(&list, '|');
        if (cv_slice_equal_nocase(choice, text))
            return choice;
    }
    return cv_slice(NULL, 0);
}

static bool is_printable(struct cv_slice text)
{
    for (size_t i = 0; i < text.len; i++)
        if (text.data[i] < ' ' || text.data[i] == 0x7f)
            return false;
    return text.len <= CV_CONFIG_VALUE_MAX;
}

/* Whether `text`, not empty, may stand in a setting of strings; *text becomes what is kept. */
static bool check_string(const struct cv_setting *setting, struct cv_slice *text)
{
    struct cv_hostport hostport;
    struct cv_value_net cidr;
    if (!is_printable(*text))
        return false;
    switch (setting->kind) {
    case CV_KIND_ENUM:
        *text = find_choice(setting->choices, *text);
        return text->data != NULL;
    case CV_KIND_LIST:
        if (!setting->choices)
            return true;
        *text = find_choice(setting->choices, *text);
        return text->data != NULL;
    case CV_KIND_URLPATH:
        return text->data[0] == '/' && !memchr(text->data, ' ', text->len) &&
               !memchr(text->data, '?', text->len) && !memchr(text->data, '#', text->len);
    case CV_KIND_HOSTNAME:
        return cv_value_is_hostname(*text);
    case CV_KIND_HOSTPORT:
    case CV_KIND_LIST_HOSTPORT:
        return cv_value_hostport(*text, &hostport);
    case CV_KIND_LIST_CIDR:
        return cv_value_cidr(*text, &cidr);
    case CV_KIND_LIST_ORIGIN:
        return cv_value_is_origin(*text);
    case CV_KIND_URL:
        return cv_value_is_url(*text, setting->choices, setting->flags & CV_SETTING_SECRET);
    case CV_KIND_TUNNEL_NAME:
        return cv_tunnel_name_is_valid(*text);
    default:
        return true;
    }
}

static struct cv_status set_number(const struct cv_setting *setting, void *values,
                                   struct cv_slice text, bool is_bare_ms)
{
    void *field = cv_setting_field(setting, values);
    uint64_t number = 0;
    bool is_read;
    if (setting->kind == CV_KIND_DURATION && text.len == 0 && !setting->default_text[0]) {
        *(uint64_t *)field = CV_UNSET;
        return cv_ok();
    }
    if (setting->kind == CV_KIND_DURATION)
        is_read = cv_value_duration(text, is_bare_ms, &number);
    else if (setting->kind == CV_KIND_SIZE)
        is_read = cv_value_size(text, &number);
    else
        is_read = cv_slice_to_u64(text, UINT32_MAX, &number);
    if (!is_read || number < setting->min || number > setting->max)
        return cv_status(CV_CONFIG);
    if (setting->kind == CV_KIND_INT)
        *(uint32_t *)field = (uint32_t)number;
    else
        *(uint64_t *)field = number;
    return cv_ok();
}

static struct cv_status set_string(const struct cv_setting *setting, void *values,
                                   struct cv_slice text)
{
    char *copy = NULL;
    if (text.len == 0 && setting->default_text[0] && setting->kind != CV_KIND_STRING)
        return cv_status(CV_CONFIG);
    if (text.len > 0) {
        if (!check_string(setting, &text))
            return cv_status(CV_CONFIG);
        copy = strndup((const char *)text.data, text.len);
        if (!copy)
            return cv_status(CV_NO_MEMORY);
    }
    cv_setting_clear(setting, values);
    *(char **)cv_setting_field(setting, values) = copy;
    return cv_ok();
}

static void free_strings(struct cv_strings *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->items[i]);
    free(list->items);
    *list = (struct cv_strings){0};
}

static struct cv_status set_list(const struct cv_setting *setting, void *values,
                                 const struct cv_slice *texts, size_t count)
{
    struct cv_strings list = {0};
    if (count > CV_CONFIG_LIST_MAX)
        return cv_status(CV_CONFIG);
    if (count > 0) {
        list.items = calloc(count, sizeof *list.items);
        if (!list.items)
            return cv_status(CV_NO_MEMORY);
    }
    for (size_t i = 0; i < count; i++) {
        struct cv_slice text = texts[i];
        if (text.len == 0 || !check_string(setting, &text)) {
            free_strings(&list);
            return cv_status(CV_CONFIG);
        }
        list.items[i] = strndup((const char *)text.data, text.len);
        if (!list.items[i]) {
            free_strings(&list);
            return cv_status(CV_NO_MEMORY);
        }
        list.count++;
    }
    cv_setting_clear(setting, values);
    *(struct cv_strings *)cv_setting_field(setting, values) = list;
    return cv_ok();
}

struct cv_status cv_setting_set(const struct cv_setting *setting, void *values,
                                const struct cv_slice *texts, size_t count, bool is_bare_ms)
{
    if (setting->kind == CV_KIND_RECORDS)
        return cv_status(CV_CONFIG);
    if (cv_kind_is_list(setting->kind))
        return set_list(setting, values, texts, count);
    if (count != 1)
        return cv_status(CV_CONFIG);
    switch (setting->kind) {
    case CV_KIND_BOOL:
        return cv_value_bool(texts[0], cv_setting_field(setting, values)) ? cv_ok()
                                                                          : cv_status(CV_CONFIG);
    case CV_KIND_INT:
    case CV_KIND_DURATION:
    case CV_KIND_SIZE:
        return set_number(setting, values, texts[0], is_bare_ms);
    default:
        return set_string(setting, values, texts[0]);
    }
}

struct cv_status cv_setting_set_text(const struct cv_setting *setting, void *values,
                                     struct cv_slice text, bool is_bare_ms)
{
    if (!cv_kind_is_list(setting->kind))
        return cv_setting_set(setting, values, &text, 1, is_bare_ms);
    struct cv_slice items[CV_CONFIG_LIST_MAX];
    size_t count = 0;
    while (text.data) {
        struct cv_slice item = cv_slice_trim(cv_slice_split(&text, ','));
        if (item.len == 0)
            continue;
        if (count == CV_CONFIG_LIST_MAX)
            return cv_status(CV_CONFIG);
        items[count++] = item;
    }
    return cv_setting_set(setting, values, items, count, is_bare_ms);
}

void cv_setting_clear(const struct cv_setting *setting, void *values)
{
    void *field = cv_setting_field(setting, values);
    switch (setting->kind) {
    case CV_KIND_BOOL:
    case CV_KIND_INT:
    case CV_KIND_DURATION:
    case CV_KIND_SIZE:
        return;
    case CV_KIND_RECORDS: {
        struct cv_records *records = field;
        for (size_t i = 0; i < records->count; i++)
            cv_settings_done(setting->record, (char *)records->items + i * setting->record->size);
        free(records->items);
        *records = (struct cv_records){0};
        return;
    }
    case CV_KIND_LIST:
    case CV_KIND_LIST_HOSTPORT:
    case CV_KIND_LIST_CIDR:
    case CV_KIND_LIST_ORIGIN:
        free_strings(field);
        return;
    default:
        free(*(char **)field);
        *(char **)field = NULL;
        return;
    }
}

bool cv_setting_is_set(const struct cv_setting *setting, const void *values)
{
    const void *field = cv_setting_field_const(setting, values);
    switch (setting->kind) {
    case CV_KIND_BOOL:
    case CV_KIND_INT:
    case CV_KIND_SIZE:
        return true;
    case CV_KIND_DURATION:
        return *(const uint64_t *)field != CV_UNSET;
    case CV_KIND_RECORDS:
        return ((const struct cv_records *)field)->count > 0;
    default:
        if (cv_kind_is_list(setting->kind))
            return ((const struct cv_strings *)field)->count > 0;
        return *(char *const *)field != NULL;
    }
}

/* "a, b, c" of "a|b|c" behind `lead`, `prefix` and `suffix` around each. */
static void list_choices(const char *choices, const char *lead, const char *suffix, char *out)
{
    size_t len = (size_t)snprintf(out, CV_EXPECTED_MAX, "%s", lead);
    struct cv_slice list = cv_slice_str(choices);
    const char *comma = "";
    while (list.data && len < CV_EXPECTED_MAX) {
        struct cv_slice choice = cv_slice_split(&list, '|');
        int n = snprintf(out + len, CV_EXPECTED_MAX - len, "%s%.*s%s", comma, (int)choice.len,
                         (const char *)choice.data, suffix);
        len += (size_t)n;
        comma = ", ";
    }
}

void cv_setting_expected(const struct cv_setting *setting, char out[CV_EXPECTED_MAX])
{
    static const char *const texts[] = {
        [CV_KIND_BOOL] = "true or false",
        [CV_KIND_STRING] = "text of at most 4096 bytes",
        [CV_KIND_PATH] = "a path",
        [CV_KIND_URLPATH] = "a path that begins with /, without ? and #",
        [CV_KIND_HOSTNAME] = "a host name",
        [CV_KIND_HOSTPORT] = "an address such as 127.0.0.1:8080 or [::1]:8080",
        [CV_KIND_TUNNEL_NAME] = "1 to 63 small letters, digits and inner hyphens",
        [CV_KIND_LIST] = "a list of at most 256 texts",
        [CV_KIND_LIST_HOSTPORT] = "a list of addresses such as 127.0.0.1:8080 or [::1]:8080",
        [CV_KIND_LIST_CIDR] = "a list of networks such as 10.0.0.0/8 or ::1",
        [CV_KIND_LIST_ORIGIN] = "a list of origins such as https://app.example.org, or *",
        [CV_KIND_RECORDS] = "a list of mappings",
    };
    char low[24], high[24];
    switch (setting->kind) {
    case CV_KIND_INT:
        (void)snprintf(out, CV_EXPECTED_MAX, "a whole number, %" PRIu64 " to %" PRIu64,
                       setting->min, setting->max);
        return;
    case CV_KIND_DURATION:
        cv_value_duration_print(setting->min, low);
        cv_value_duration_print(setting->max, high);
        (void)snprintf(out, CV_EXPECTED_MAX, "a duration with its unit (ms, s, m, h, d), %s to %s",
                       low, high);
        return;
    case CV_KIND_SIZE:
        cv_value_size_print(setting->min, low);
        cv_value_size_print(setting->max, high);
        (void)snprintf(out, CV_EXPECTED_MAX, "a size in bytes, KiB, MiB, GiB or TiB, %s to %s", low,
                       high);
        return;
    case CV_KIND_ENUM:
        list_choices(setting->choices, "one of ", "", out);
        return;
    case CV_KIND_URL:
        list_choices(setting->choices, "a URL that begins with ", "://", out);
        return;
    case CV_KIND_LIST:
        if (setting->choices) {
            list_choices(setting->choices, "a list out of ", "", out);
            return;
        }
        break;
    default:
        break;
    }
    (void)snprintf(out, CV_EXPECTED_MAX, "%s", texts[setting->kind]);
}

struct cv_status cv_setting_print(const struct cv_setting *setting, const void *values, size_t item,
                                  struct cv_buf *out)
{
    const void *field = cv_setting_field_const(setting, values);
    char text[24];
    switch (setting->kind) {
    case CV_KIND_BOOL:
        return cv_buf_append_str(out, *(const bool *)field ? "true" : "false");
    case CV_KIND_INT:
        return cv_buf_printf(out, "%" PRIu32, *(const uint32_t *)field);
    case CV_KIND_DURATION:
        cv_value_duration_print(*(const uint64_t *)field, text);
        return cv_buf_append_str(out, text);
    case CV_KIND_SIZE:
        cv_value_size_print(*(const uint64_t *)field, text);
        return cv_buf_append_str(out, text);
    case CV_KIND_RECORDS:
        return cv_ok();
    default:
        break;
    }
    if (setting->flags & CV_SETTING_SECRET)
        return cv_buf_append_str(out, "***");
    if (cv_kind_is_list(setting->kind))
        return cv_buf_append_str(out, ((const struct cv_strings *)field)->items[item]);
    return cv_buf_append_str(out, *(char *const *)field);
}
