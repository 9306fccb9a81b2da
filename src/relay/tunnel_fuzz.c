/* SPDX-License-Identifier: MIT
 *
 * `tunnel@culvert`: JSON of an agent, then, behind a newline and the next newline, a method and a
 * path of a consumer for its rules. What is accepted keeps its bounds and means the same when read
 * again; what the rules let through is never a path that a service could read as another one.
 */
#include "base/buf.h"
#include "base/fuzz.h"
#include "proto/http/http_path.h"
#include "relay/tunnel.h"

static size_t json_len(const uint8_t *data, size_t size)
{
    const uint8_t *end = size ? memchr(data, '\n', size) : NULL;
    return end ? (size_t)(end - data) : size;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed)
{
    uint64_t random = seed * 2ULL + 1;
    size_t head = json_len(data, size), tail = size - head;
    if (tail > 512 || cv_fuzz_random(&random) % 3 == 0)
        return LLVMFuzzerMutate(data, size, max_size);
    uint8_t rest[512];
    memcpy(rest, data + head, tail);
    head = cv_fuzz_json(data, head, max_size - tail, &random);
    memcpy(data + head, rest, tail);
    return head + tail;
}

static bool has_segment(struct cv_slice path, const char *text)
{
    while (path.data)
        if (cv_slice_is(cv_slice_split(&path, '/'), text))
            return true;
    return false;
}

static void check_rules(const struct cv_tunnel_spec *spec, struct cv_slice rest)
{
    struct cv_slice method = cv_slice_split(&rest, '\n');
    if (!rest.data || rest.len == 0 || rest.data[0] != '/')
        return;
    if (!cv_tunnel_spec_allows(spec, method, rest) || spec->rule_count == 0)
        return;
    struct cv_buf normal;
    cv_buf_init(&normal, rest.len + 1);
    cv_fuzz_must(cv_is_ok(cv_http_normal_path(rest, &normal)));
    cv_fuzz_must(!has_segment(rest, "..") && !has_segment(rest, ".") &&
                 !has_segment(cv_buf_slice(&normal), ".."));
    cv_fuzz_must(!memchr(rest.data, '\\', rest.len) && !memchr(rest.data, 0, rest.len));
    bool is_named = false;
    for (size_t i = 0; i < spec->rule_count; i++) {
        const struct cv_tunnel_rule *rule = &spec->rules[i];
        cv_fuzz_must(rule->path[0] == '/' || rule->path[0] == '\0');
        is_named |= strcmp(rule->method, "*") == 0 || cv_slice_is(method, rule->method);
    }
    cv_fuzz_must(is_named);
    cv_buf_done(&normal);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cv_tunnel_spec *spec = NULL, *again = NULL;
    struct cv_error error = {0};
    size_t len = json_len(data, size);
    struct cv_slice json = cv_slice(data, len);
    struct cv_status status = cv_tunnel_spec_parse(json, &spec, &error);
    cv_fuzz_must(cv_is_ok(status) == (spec != NULL));
    cv_fuzz_must(strnlen(error.detail, sizeof error.detail) < sizeof error.detail);
    if (spec) {
        cv_fuzz_must(spec->rule_count <= CV_TUNNEL_RULES_MAX);
        cv_fuzz_must(cv_tunnel_name_is_valid(cv_slice_str(spec->name)));
        cv_fuzz_must(spec->host[0] != '\0' && !strpbrk(spec->host, "\r\n \t/,@"));
        cv_fuzz_must(cv_is_ok(cv_tunnel_spec_parse(json, &again, NULL)));
        cv_fuzz_must(cv_tunnel_spec_is_same(spec, again));
        check_rules(spec, cv_slice(data + len + (len < size), size - len - (len < size)));
    }
    cv_tunnel_spec_unref(&spec);
    cv_tunnel_spec_unref(&again);
    cv_tunnel_spec_unref(&spec);
    return 0;
}
