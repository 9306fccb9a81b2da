/* SPDX-License-Identifier: MIT
 *
 * Any bytes as a settings file, for relay and agent: no crash, no leak, and what loads without a
 * problem is shown as YAML that loads again without one. Behind the first NUL, environment: strings
 * NAME=value, or -key=value for a flag, each ended by a NUL. And each of those values as a
 * duration, a size, an address: what is read is printed and read back as the same.
 */
#include "base/fuzz.h"
#include "config/agent_config.h"
#include "config/relay_config.h"
#include "config/value.h"

enum { STRINGS_MAX = 32 };

static void try_schema(const struct cv_schema *schema, struct cv_slice text)
{
    struct cv_problems problems;
    struct cv_buf shown;
    void *values = calloc(1, schema->size);
    if (!values)
        return;
    cv_problems_init(&problems);
    cv_buf_init(&shown, 16 * CV_CONFIG_FILE_MAX);
    struct cv_status status = cv_settings_load_text(schema, values, text, "fuzz", &problems);
    cv_fuzz_must((status.id == CV_OK) == (problems.count == 0));
    cv_fuzz_must(cv_is_ok(cv_problems_print(&problems, &shown)));
    cv_buf_consume(&shown, cv_buf_len(&shown));
    if (cv_is_ok(status)) {
        cv_fuzz_must(cv_is_ok(cv_settings_show_json(schema, values, &shown)));
        cv_buf_consume(&shown, cv_buf_len(&shown));
    }
    if (cv_is_ok(status) && cv_is_ok(cv_settings_show(schema, values, true, &shown))) {
        const struct cv_setting *proxy = cv_settings_find(schema, "proxy");
        bool is_masked = proxy && *(char **)((char *)values + proxy->offset);
        cv_settings_done(schema, values);
        status = cv_settings_load_text(schema, values, cv_buf_slice(&shown), "again", &problems);
        cv_fuzz_must(cv_is_ok(status) || is_masked || cv_buf_len(&shown) >= CV_CONFIG_FILE_MAX);
    }
    cv_settings_done(schema, values);
    cv_problems_done(&problems);
    cv_buf_done(&shown);
    free(values);
}

static void try_value(struct cv_slice text)
{
    uint64_t number, again;
    char printed[24];
    struct cv_hostport hostport;
    struct cv_value_net net;
    for (int is_bare_ms = 0; is_bare_ms < 2; is_bare_ms++) {
        if (!cv_value_duration(text, is_bare_ms, &number))
            continue;
        cv_value_duration_print(number, printed);
        cv_fuzz_must(cv_value_duration(cv_slice_str(printed), false, &again) && again == number);
    }
    if (cv_value_size(text, &number)) {
        cv_value_size_print(number, printed);
        cv_fuzz_must(cv_value_size(cv_slice_str(printed), &again) && again == number);
    }
    if (cv_value_hostport(text, &hostport))
        cv_fuzz_must(!strpbrk(hostport.host, "/@ ,[]"));
    if (cv_value_cidr(text, &net))
        cv_fuzz_must(net.bits <= (net.is_ipv6 ? 128 : 32));
    (void)cv_value_is_hostname(text);
    (void)cv_value_is_url(text, "http|https", true);
    (void)cv_value_is_origin(text);
    if (cv_target_parse(text, &hostport))
        cv_fuzz_must(hostport.port > 0);
    struct cv_slice method, path;
    if (cv_rule_parse(text, &method, &path))
        cv_fuzz_must(method.len > 0 && path.len > 0 && path.data[0] == '/');
}

static void try_environment(const char *const *env, const struct cv_override *overrides,
                            size_t override_count)
{
    struct cv_config_sources sources = {
        .env = env, .overrides = overrides, .override_count = override_count};
    struct cv_problems problems;
    struct cv_relay_config *relay = NULL;
    struct cv_agent_config *agent = NULL;
    for (int is_dev = 0; is_dev < 2; is_dev++) {
        sources.is_dev = is_dev;
        cv_problems_init(&problems);
        struct cv_status status = cv_relay_config_load(&sources, &relay, &problems);
        cv_fuzz_must(cv_is_ok(status) == (relay != NULL));
        cv_fuzz_must(cv_is_ok(status) == (problems.count == 0));
        cv_relay_config_free(&relay);
        cv_problems_done(&problems);
    }
    cv_problems_init(&problems);
    struct cv_status status = cv_agent_config_load(&sources, &agent, &problems);
    cv_fuzz_must(cv_is_ok(status) == (agent != NULL));
    cv_agent_config_free(&agent);
    cv_problems_done(&problems);
}

static void fuzz_strings(char *text, size_t len)
{
    const char *env[STRINGS_MAX + 1] = {NULL};
    struct cv_override overrides[STRINGS_MAX];
    size_t env_count = 0, override_count = 0;
    for (char *at = text, *end = text + len; at < end; at += strlen(at) + 1) {
        char *value = strchr(at, '=');
        if (value)
            try_value(cv_slice_str(value + 1));
        if (at[0] == '-' && value && override_count < STRINGS_MAX) {
            *value = '\0';
            overrides[override_count++] = (struct cv_override){at + 1, value + 1, "--flag"};
            at = value + 1;
        } else if (env_count < STRINGS_MAX) {
            env[env_count++] = at;
        }
    }
    try_environment(env, overrides, override_count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *nul = size ? memchr(data, 0, size) : NULL;
    size_t len = nul ? (size_t)(nul - data) : size;
    try_schema(&cv_relay_schema, cv_slice(data, len));
    try_schema(&cv_agent_schema, cv_slice(data, len));
    if (nul) {
        size_t rest = size - len - 1;
        char *text = malloc(rest + 1);
        cv_fuzz_must(text);
        memcpy(text, nul + 1, rest);
        text[rest] = '\0';
        fuzz_strings(text, rest);
        free(text);
    }
    return 0;
}
