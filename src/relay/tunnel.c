/* SPDX-License-Identifier: MIT */
#include "relay/tunnel.h"

#include "base/buf.h"
#include "base/json.h"
#include "proto/http/http.h"
#include "proto/http/http_path.h"
#include "proto/http/url.h"

#include <stdlib.h>
#include <string.h>

enum { SPEC_JSON_MAX = 16 * 1024, SPEC_MS_MAX = 24 * 3600 * 1000, SPEC_CONCURRENCY_MAX = 10000 };

static struct cv_tunnel_spec *spec_new(void)
{
    struct cv_tunnel_spec *spec = calloc(1, sizeof *spec);
    if (spec) {
        atomic_init(&spec->refs, 1);
        (void)cv_slice_to_str(cv_slice_str("localhost"), spec->host, sizeof spec->host);
        (void)cv_slice_to_str(cv_slice_str("none"), spec->preset, sizeof spec->preset);
        (void)cv_slice_to_str(cv_slice_str("auto"), spec->canary, sizeof spec->canary);
        spec->passes_authorization = true;
    }
    return spec;
}

struct cv_tunnel_spec *cv_tunnel_spec_ref(struct cv_tunnel_spec *spec)
{
    (void)atomic_fetch_add_explicit(&spec->refs, 1, memory_order_relaxed);
    return spec;
}

void cv_tunnel_spec_unref(struct cv_tunnel_spec **spec)
{
    if (*spec && atomic_fetch_sub_explicit(&(*spec)->refs, 1, memory_order_acq_rel) == 1) {
        free((*spec)->rules);
        cv_share_done(&(*spec)->share);
        free(*spec);
    }
    *spec = NULL;
}

struct cv_status cv_tunnel_spec_default(struct cv_slice name, enum cv_tunnel_kind kind,
                                        struct cv_tunnel_spec **spec)
{
    *spec = NULL;
    if (!cv_tunnel_name_is_valid(name))
        return cv_status(CV_INVALID);
    struct cv_tunnel_spec *made = spec_new();
    if (!made)
        return cv_status(CV_NO_MEMORY);
    (void)cv_slice_to_str(name, made->name, sizeof made->name);
    made->kind = kind;
    *spec = made;
    return cv_ok();
}

struct cv_status cv_tunnel_spec_diagnose(struct cv_tunnel_spec **spec)
{
    *spec = spec_new();
    if (!*spec)
        return cv_status(CV_NO_MEMORY);
    (void)cv_slice_to_str(cv_slice_str(CV_DIAGNOSE_NAME), (*spec)->name, sizeof(*spec)->name);
    (*spec)->kind = CV_TUNNEL_TCP;
    return cv_ok();
}

static struct cv_slice text_of(const json_t *value)
{
    return cv_slice(json_string_value(value), json_string_length(value));
}

/* "METHOD PATH", the path from '/', a '*' only at its end. */
static bool parse_rule(struct cv_slice text, struct cv_tunnel_rule *rule)
{
    struct cv_slice path = text, method = cv_slice_split(&path, ' ');
    if (!path.data || path.len == 0 || path.data[0] != '/')
        return false;
    if (!cv_slice_is(method, "*") && !cv_http_is_token(method))
        return false;
    if (path.data[path.len - 1] == '*') {
        rule->is_prefix = true;
        path.len--;
    }
    return !memchr(path.data, '*', path.len) &&
           cv_slice_to_str(method, rule->method, sizeof rule->method) &&
           cv_slice_to_str(path, rule->path, sizeof rule->path);
}

static struct cv_status parse_rules(const json_t *list, struct cv_tunnel_spec *spec,
                                    struct cv_error *error)
{
    size_t count = json_array_size(list);
    if (!json_is_array(list) || count > CV_TUNNEL_RULES_MAX)
        return cv_fail(error, CV_INVALID, "allow is a list of at most %d rules",
                       CV_TUNNEL_RULES_MAX);
    spec->rules = calloc(count ? count : 1, sizeof *spec->rules);
    if (!spec->rules)
        return cv_status(CV_NO_MEMORY);
    for (size_t i = 0; i < count; i++) {
        const json_t *item = json_array_get(list, i);
        if (!json_is_string(item) || !parse_rule(text_of(item), &spec->rules[i]))
            return cv_fail(error, CV_INVALID, "rule %zu of allow is not `METHOD /path`", i + 1);
    }
    spec->rule_count = count;
    return cv_ok();
}

static struct cv_status parse_text(const json_t *object, const char *key, char *out, size_t cap,
                                   struct cv_error *error)
{
    const json_t *value = json_object_get(object, key);
    if (!value)
        return cv_ok();
    if (!json_is_string(value) || !cv_slice_to_str(text_of(value), out, cap))
        return cv_fail(error, CV_INVALID, "%s is not a string of at most %zu bytes", key, cap - 1);
    return cv_ok();
}

/* As a request line may have it (RFC 9112 §3.2.1), without a query's doubtful bytes. */
static bool is_canary(const char *text)
{
    static const char *const words[] = {"auto", "connect", "off"};
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcmp(text, words[i]) == 0)
            return true;
    return text[0] == '/' && strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                          "0123456789-._~!$&'()*+,;=:@%/?") == strlen(text);
}

static struct cv_status parse_number(const json_t *object, const char *key, json_int_t max,
                                     uint32_t *out, bool *is_given, struct cv_error *error)
{
    const json_t *value = json_object_get(object, key);
    if (!value)
        return cv_ok();
    json_int_t number = json_integer_value(value);
    if (!json_is_integer(value) || number < 0 || number > max)
        return cv_fail(error, CV_INVALID, "%s is not a whole number from 0 to %lld", key,
                       (long long)max);
    *out = (uint32_t)number;
    if (is_given)
        *is_given = true;
    return cv_ok();
}

static struct cv_status parse_object(const json_t *object, struct cv_tunnel_spec *spec,
                                     struct cv_error *error)
{
    char kind[8] = "http";
    if (!json_is_object(object))
        return cv_fail(error, CV_INVALID, "the attributes are not a JSON object");
    CV_RETURN_IF_ERROR(parse_text(object, "name", spec->name, sizeof spec->name, error));
    if (!cv_tunnel_name_is_valid(cv_slice_str(spec->name)))
        return cv_fail(error, CV_INVALID, "a tunnel's name is a-z, 0-9 and - , 1 to 63 characters");
    CV_RETURN_IF_ERROR(parse_text(object, "kind", kind, sizeof kind, error));
    if (strcmp(kind, "http") != 0 && strcmp(kind, "tcp") != 0)
        return cv_fail(error, CV_INVALID, "kind is http or tcp");
    spec->kind = kind[0] == 'h' ? CV_TUNNEL_HTTP : CV_TUNNEL_TCP;
    CV_RETURN_IF_ERROR(parse_text(object, "host", spec->host, sizeof spec->host, error));
    struct cv_slice host;
    unsigned port;
    bool has_port;
    if (!cv_url_split_authority(cv_slice_str(spec->host), &host, &port, &has_port))
        return cv_fail(error, CV_INVALID, "host is not a valid Host field");
    CV_RETURN_IF_ERROR(parse_text(object, "preset", spec->preset, sizeof spec->preset, error));
    CV_RETURN_IF_ERROR(parse_text(object, "canary", spec->canary, sizeof spec->canary, error));
    if (!is_canary(spec->canary))
        return cv_fail(error, CV_INVALID, "canary is auto, connect, off or a path");
    CV_RETURN_IF_ERROR(
        parse_number(object, "concurrency", SPEC_CONCURRENCY_MAX, &spec->concurrency, NULL, error));
    CV_RETURN_IF_ERROR(parse_number(object, "first_byte_ms", SPEC_MS_MAX, &spec->first_byte_ms,
                                    &spec->has_timers[0], error));
    CV_RETURN_IF_ERROR(
        parse_number(object, "idle_ms", SPEC_MS_MAX, &spec->idle_ms, &spec->has_timers[1], error));
    CV_RETURN_IF_ERROR(parse_number(object, "total_ms", SPEC_MS_MAX, &spec->total_ms,
                                    &spec->has_timers[2], error));
    const json_t *pass = json_object_get(object, "pass_authorization");
    if (pass && !json_is_boolean(pass))
        return cv_fail(error, CV_INVALID, "pass_authorization is true or false");
    spec->passes_authorization = !json_is_false(pass);
    CV_RETURN_IF_ERROR(cv_share_parse(object, &spec->share, error));
    if (cv_share_is_any(&spec->share) && spec->kind != CV_TUNNEL_HTTP)
        return cv_fail(error, CV_INVALID, "share and public are for HTTP tunnels");
    const json_t *allow = json_object_get(object, "allow");
    return allow ? parse_rules(allow, spec, error) : cv_ok();
}

struct cv_status cv_tunnel_spec_parse(struct cv_slice json, struct cv_tunnel_spec **spec,
                                      struct cv_error *error)
{
    *spec = NULL;
    if (json.len > SPEC_JSON_MAX)
        return cv_fail(error, CV_INVALID, "the attributes are longer than %d bytes", SPEC_JSON_MAX);
    json_t *object;
    struct cv_status status = cv_json_parse(json, &object);
    if (!cv_is_ok(status))
        return cv_fail(error, status.id, "%s",
                       status.id == CV_NO_MEMORY ? cv_status_text(status.id)
                                                 : "the attributes are not JSON");
    struct cv_tunnel_spec *made = spec_new();
    status = made ? parse_object(object, made, error) : cv_status(CV_NO_MEMORY);
    json_decref(object);
    if (!cv_is_ok(status))
        cv_tunnel_spec_unref(&made);
    *spec = made;
    return status;
}

static bool is_same_rule(const struct cv_tunnel_rule *a, const struct cv_tunnel_rule *b)
{
    return strcmp(a->method, b->method) == 0 && strcmp(a->path, b->path) == 0 &&
           a->is_prefix == b->is_prefix;
}

bool cv_tunnel_spec_is_same(const struct cv_tunnel_spec *a, const struct cv_tunnel_spec *b)
{
    if (a == b)
        return true;
    bool is_same = a->kind == b->kind && strcmp(a->host, b->host) == 0 &&
                   strcmp(a->preset, b->preset) == 0 &&
                   a->passes_authorization == b->passes_authorization &&
                   a->rule_count == b->rule_count && cv_share_is_same(&a->share, &b->share);
    for (size_t i = 0; is_same && i < a->rule_count; i++)
        is_same = is_same_rule(&a->rules[i], &b->rules[i]);
    return is_same;
}

static bool rule_matches(const struct cv_tunnel_rule *rule, struct cv_slice method,
                         struct cv_slice path)
{
    if (strcmp(rule->method, "*") != 0 && !cv_slice_is(method, rule->method))
        return false;
    return rule->is_prefix ? cv_slice_starts_with(path, rule->path) : cv_slice_is(path, rule->path);
}

/* "." or "..", in bytes or percent-encoded. */
static bool is_dot_segment(struct cv_slice segment)
{
    size_t dots = 0;
    while (segment.len && dots < 3) {
        size_t len = segment.data[0] == '.' ? 1 : 3;
        if (len == 3 && (segment.len < 3 || memcmp(segment.data, "%2", 2) != 0 ||
                         (segment.data[2] | 0x20) != 'e'))
            return false;
        segment = cv_slice(segment.data + len, segment.len - len);
        dots++;
    }
    return dots == 1 || dots == 2;
}

/* The path goes on as it came, and not every service resolves it as we would. */
static bool has_dot_segments(struct cv_slice path)
{
    while (path.len)
        if (is_dot_segment(cv_slice_split(&path, '/')))
            return true;
    return false;
}

bool cv_tunnel_spec_allows(const struct cv_tunnel_spec *spec, struct cv_slice method,
                           struct cv_slice path)
{
    if (spec->rule_count == 0)
        return true;
    if (has_dot_segments(path))
        return false;
    struct cv_buf normal;
    cv_buf_init(&normal, path.len + 1);
    bool is_allowed = false;
    if (cv_is_ok(cv_http_normal_path(path, &normal)))
        for (size_t i = 0; i < spec->rule_count && !is_allowed; i++)
            is_allowed = rule_matches(&spec->rules[i], method, cv_buf_slice(&normal));
    cv_buf_done(&normal);
    return is_allowed;
}
