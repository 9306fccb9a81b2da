/* SPDX-License-Identifier: MIT */
#include "auth/json.h"

#include "base/digest.h"
#include "base/json.h"

/* Depth of nesting without parsing: only brackets outside strings count. Junk may come out with any
 * number; jansson then refuses it for being junk. */
static bool is_shallow(struct cv_slice text, unsigned max_depth)
{
    unsigned depth = 0;
    bool in_string = false;
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.data[i];
        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            if (++depth > max_depth)
                return false;
        } else if ((c == '}' || c == ']') && depth > 0) {
            depth--;
        }
    }
    return true;
}

bool cv_json_object(struct cv_slice text, size_t max_bytes, unsigned max_depth, json_t **out)
{
    *out = NULL;
    if (text.len == 0 || text.len > max_bytes || memchr(text.data, 0, text.len) != NULL ||
        !is_shallow(text, max_depth))
        return false;
    json_t *value;
    if (!cv_is_ok(cv_json_parse(text, &value)) || !json_is_object(value)) {
        json_decref(value);
        return false;
    }
    *out = value;
    return true;
}

bool cv_json_has(const json_t *object, const char *name)
{
    return json_object_get(object, name) != NULL;
}

bool cv_json_string(const json_t *object, const char *name, struct cv_slice *value)
{
    const json_t *member = json_object_get(object, name);
    *value = cv_slice(NULL, 0);
    if (!json_is_string(member))
        return false;
    *value = cv_slice(json_string_value(member), json_string_length(member));
    return true;
}

bool cv_json_base64url(const json_t *object, const char *name, uint8_t *out, size_t cap,
                       size_t *len)
{
    struct cv_slice text;
    *len = 0;
    if (!cv_json_string(object, name, &text) || text.len == 0)
        return false;
    if (3 * (text.len / 4) + CV_BASE64_SLACK > cap)
        return false;
    return cv_base64url_decode(text, out, len) && *len > 0;
}
