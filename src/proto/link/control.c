/* SPDX-License-Identifier: MIT */
#include "proto/link/control.h"

#include "base/json.h"

#include <inttypes.h>
#include <stdio.h>

static const char *const type_names[CV_LINK_CONTROL_COUNT] = {
#define CV_LINK_CONTROL_NAME(name, text) [CV_LINK_##name] = text,
    CV_LINK_CONTROL_TABLE(CV_LINK_CONTROL_NAME)
#undef CV_LINK_CONTROL_NAME
};

/* Offsets and times stay below 2^53, which every JSON reader represents exactly. */
#define JSON_INT_MAX ((json_int_t)1 << 53)

struct cv_slice cv_link_ack_encode(uint64_t received, char space[CV_LINK_ACK_TEXT_MAX])
{
    int len = snprintf(space, CV_LINK_ACK_TEXT_MAX, "{\"type\":\"ack\",\"received\":%" PRIu64 "}",
                       received);
    return cv_slice(space, (size_t)len);
}

static bool add_text(json_t *object, const char *key, const char *value)
{
    return !value[0] || json_object_set_new(object, key, json_string(value)) == 0;
}

struct cv_status cv_link_control_encode(const struct cv_link_control *control, struct cv_buf *out)
{
    char ack[CV_LINK_ACK_TEXT_MAX];
    if (control->type == CV_LINK_ACK)
        return cv_buf_append_slice(out, cv_link_ack_encode(control->received, ack));
    json_t *object = json_object();
    bool is_made =
        object && add_text(object, "type", type_names[control->type]) &&
        add_text(object, "code", control->code) && add_text(object, "tunnel", control->tunnel) &&
        add_text(object, "message", control->message) && add_text(object, "token", control->token);
    if (is_made && control->after_ms)
        is_made = json_object_set_new(object, "after_ms",
                                      json_integer((json_int_t)control->after_ms)) == 0;
    char *text = is_made ? cv_json_text(object) : NULL;
    json_decref(object);
    if (!text)
        return cv_status(CV_NO_MEMORY);
    struct cv_status status = cv_buf_append_str(out, text);
    explicit_bzero(text, strlen(text));
    free(text);
    return status;
}

static bool take_text(const json_t *object, const char *key, char *out, size_t cap)
{
    const json_t *value = json_object_get(object, key);
    out[0] = '\0';
    if (!value)
        return true;
    if (!json_is_string(value))
        return false;
    struct cv_slice text = cv_slice(json_string_value(value), json_string_length(value));
    if (!cv_slice_to_str(text, out, cap))
        return false;
    for (char *at = out; *at; at++)
        if ((unsigned char)*at < 0x20 || *at == 0x7f)
            *at = ' ';
    return true;
}

static bool take_number(const json_t *object, const char *key, bool is_needed, uint64_t *out)
{
    const json_t *value = json_object_get(object, key);
    if (!value)
        return !is_needed;
    json_int_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < 0 || number > JSON_INT_MAX)
        return false;
    *out = (uint64_t)number;
    return true;
}

static struct cv_status decode(const json_t *object, struct cv_link_control *control)
{
    char type[32];
    if (!json_is_object(object) || !take_text(object, "type", type, sizeof type) || !type[0])
        return cv_status(CV_WS_POLICY);
    unsigned n = 0;
    while (n < CV_LINK_CONTROL_COUNT && strcmp(type, type_names[n]) != 0)
        n++;
    if (n == CV_LINK_CONTROL_COUNT)
        return cv_status(CV_AGAIN);
    control->type = (enum cv_link_control_type)n;
    bool is_good = take_number(object, "received", n == CV_LINK_ACK, &control->received) &&
                   take_number(object, "after_ms", false, &control->after_ms) &&
                   take_text(object, "code", control->code, sizeof control->code) &&
                   take_text(object, "tunnel", control->tunnel, sizeof control->tunnel) &&
                   take_text(object, "message", control->message, sizeof control->message) &&
                   take_text(object, "token", control->token, sizeof control->token);
    return cv_status(is_good ? CV_OK : CV_WS_POLICY);
}

struct cv_status cv_link_control_decode(struct cv_slice text, struct cv_link_control *control)
{
    *control = (struct cv_link_control){0};
    if (text.len > CV_LINK_CONTROL_MAX)
        return cv_status(CV_WS_POLICY);
    json_t *object;
    struct cv_status status = cv_json_parse(text, &object);
    if (!cv_is_ok(status))
        return cv_status(status.id == CV_NO_MEMORY ? CV_NO_MEMORY : CV_WS_POLICY);
    status = decode(object, control);
    json_decref(object);
    return status;
}
