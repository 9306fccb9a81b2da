/* SPDX-License-Identifier: MIT */
#include "config/relay_config.h"

#include "config/schema.h"
#include "config/value.h"

#define CV_SETTING_OWNER struct cv_tier_config
static const struct cv_setting tier_settings[] = {CV_TIER_SETTINGS(CV_SETTING_ROW)};
#undef CV_SETTING_OWNER

const struct cv_schema cv_tier_schema = {
    .name = "tier",
    .settings = tier_settings,
    .count = sizeof tier_settings / sizeof *tier_settings,
    .size = sizeof(struct cv_tier_config),
};

#define CV_SETTING_OWNER struct cv_relay_config
static const struct cv_setting settings[] = {CV_RELAY_SETTINGS(CV_SETTING_ROW)};
#undef CV_SETTING_OWNER

const struct cv_schema cv_relay_schema = {
    .name = "relay",
    .settings = settings,
    .count = sizeof settings / sizeof *settings,
    .size = sizeof(struct cv_relay_config),
    .origins_offset = offsetof(struct cv_relay_config, origins),
};

struct check {
    const struct cv_relay_config *config;
    const struct cv_config_sources *sources;
    struct cv_problems *problems;
};

static void complain(const struct check *c, const char *key, const char *text)
{
    cv_settings_complain(&cv_relay_schema, c->config, c->sources, key, text, c->problems);
}

static bool is_loopback(const char *host)
{
    struct cv_value_net v4, v6;
    (void)cv_value_cidr(cv_slice_str("127.0.0.0/8"), &v4);
    (void)cv_value_cidr(cv_slice_str("::1"), &v6);
    return strcasecmp(host, "localhost") == 0 || cv_value_net_has(&v4, host) ||
           cv_value_net_has(&v6, host);
}

static void check_listen(const struct check *c)
{
    if (c->config->listen.count == 0)
        complain(c, "listen", "needs at least one address");
    for (size_t i = 0; c->sources->is_dev && i < c->config->listen.count; i++) {
        struct cv_hostport hostport;
        if (cv_value_hostport(cv_slice_str(c->config->listen.items[i]), &hostport) &&
            !is_loopback(hostport.host))
            complain(c, "listen", "must be a loopback address with --dev");
    }
}

static void check_tls(const struct check *c)
{
    const struct cv_relay_config *config = c->config;
    if (config->tls_cert_file && !config->tls_key_file)
        complain(c, "tls.key_file", "is missing beside tls.cert_file");
    if (config->tls_key_file && !config->tls_cert_file)
        complain(c, "tls.cert_file", "is missing beside tls.key_file");
    if (!c->sources->is_dev && !config->tls_cert_file && !config->tls_key_file &&
        config->trusted_proxy.count == 0)
        complain(c, "tls.cert_file",
                 "is missing: give certificate and key, or trusted_proxy when a load balancer ends "
                 "TLS, or --dev to try things out");
}

/* Over plain HTTP anybody on the way could hand us keys of their own. */
static bool is_jwks_url_safe(const char *url)
{
    if (strncasecmp(url, "http://", 7) != 0)
        return true;
    char authority[CV_HOST_MAX + 8];
    struct cv_slice rest = cv_slice_str(url + 7);
    struct cv_hostport hostport = {0};
    struct cv_slice host = cv_slice_split(&rest, '/');
    if (!cv_slice_to_str(host, authority, sizeof authority))
        return false;
    if (cv_value_hostport(host, &hostport))
        return is_loopback(hostport.host);
    return is_loopback(authority);
}

static void check_auth(const struct check *c)
{
    const struct cv_relay_config *config = c->config;
    if (config->auth_algorithms.count == 0)
        complain(c, "auth.algorithms", "needs at least one algorithm");
    if (c->sources->is_dev)
        return;
    bool has_keys = config->auth_jwks_url || config->auth_jwks_file || config->auth_secret_file;
    if (!has_keys)
        complain(c, "auth.jwks_url",
                 "is missing: give auth.jwks_url, auth.jwks_file or auth.secret_file, or --dev to "
                 "try things out");
    if (has_keys && !config->auth_issuer)
        complain(c, "auth.issuer", "is missing: the `iss` of the tokens that those keys sign");
    if (has_keys && config->auth_audience.count == 0)
        complain(c, "auth.audience",
                 "is missing: without it tokens for other services of the same issuer would be "
                 "taken");
    if (config->auth_jwks_url && !is_jwks_url_safe(config->auth_jwks_url))
        complain(c, "auth.jwks_url", "must be https:// unless it is on this machine");
}

/* Of names alone; auth/ says the same of the claim. */
static bool is_tier_name(const char *name)
{
    size_t len = strlen(name);
    return len >= 1 && len <= 31 && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789_-") == len;
}

static bool is_tier(const struct cv_relay_config *config, const char *name)
{
    static const char *const known[] = {"free", "premium", "enterprise"};
    const struct cv_tier_config *tiers = config->tiers.items;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(name, known[i]) == 0)
            return true;
    for (size_t i = 0; i < config->tiers.count; i++)
        if (tiers[i].name && strcmp(name, tiers[i].name) == 0)
            return true;
    return false;
}

static void check_tiers(const struct check *c)
{
    const struct cv_tier_config *tiers = c->config->tiers.items;
    for (size_t i = 0; i < c->config->tiers.count; i++) {
        if (!tiers[i].name)
            continue; /* told as missing */
        if (!is_tier_name(tiers[i].name))
            complain(c, "tiers", "a tier's name is a-z, 0-9, _ and -, 1 to 31 characters");
        for (size_t k = 0; k < i; k++)
            if (tiers[k].name && strcmp(tiers[i].name, tiers[k].name) == 0)
                complain(c, "tiers", "has the same name twice");
    }
    if (!c->config->limits_default_tier || !is_tier(c->config, c->config->limits_default_tier))
        complain(c, "limits.default_tier", "is no tier: free, premium, enterprise or one of tiers");
}

static void check_all(const struct check *c)
{
    if (c->config->proxy_protocol && c->config->trusted_proxy.count == 0)
        complain(c, "proxy_protocol", "needs trusted_proxy: from whom its headers are believed");
    check_tiers(c);
    check_listen(c);
    check_tls(c);
    check_auth(c);
    if (c->config->limits_line_bytes > c->config->limits_head_bytes)
        complain(c, "limits.line_bytes", "must not be larger than limits.head_bytes");
    if (c->config->ssh_ciphers.count == 0)
        complain(c, "ssh.ciphers", "needs at least one cipher");
    if (c->config->ssh_kex.count == 0)
        complain(c, "ssh.kex", "needs at least one method");
}

/* PORT and HOST, as container platforms set them, stand for CULVERT_LISTEN. */
static bool listen_from_env(const struct cv_config_sources *sources, char *out, size_t cap,
                            struct cv_problems *problems)
{
    const char *port = cv_settings_getenv(sources->env, "PORT");
    const char *host = cv_settings_getenv(sources->env, "HOST");
    uint64_t number = 0;
    if ((!port && !host) || cv_settings_getenv(sources->env, "CULVERT_LISTEN"))
        return false;
    if (!host)
        host = sources->is_dev ? "127.0.0.1" : "0.0.0.0";
    if (port && !cv_slice_to_u64(cv_slice_str(port), 65535, &number)) {
        cv_problems_add(problems, "PORT", 0, "listen", port, "must be a port, 0 to 65535");
        return false;
    }
    bool is_bare_ipv6 = strchr(host, ':') && host[0] != '[';
    int len = snprintf(out, cap, "CULVERT_LISTEN=%s%s%s:%s", is_bare_ipv6 ? "[" : "", host,
                       is_bare_ipv6 ? "]" : "", port ? port : "8080");
    struct cv_hostport hostport;
    if (len < 0 || (size_t)len >= cap ||
        !cv_value_hostport(cv_slice_str(out + strlen("CULVERT_LISTEN=")), &hostport)) {
        cv_problems_add(problems, "HOST", 0, "listen", host, "must be an address or a host name");
        return false;
    }
    return true;
}

/* METRICS_PORT, as deployments of services set it, stands for CULVERT_METRICS_LISTEN. */
static bool metrics_from_env(const struct cv_config_sources *sources, char *out, size_t cap,
                             struct cv_problems *problems)
{
    const char *port = cv_settings_getenv(sources->env, "METRICS_PORT");
    uint64_t number = 0;
    if (!port || cv_settings_getenv(sources->env, "CULVERT_METRICS_LISTEN"))
        return false;
    if (!cv_slice_to_u64(cv_slice_str(port), 65535, &number)) {
        cv_problems_add(problems, "METRICS_PORT", 0, "metrics.listen", port,
                        "must be a port, 0 to 65535");
        return false;
    }
    (void)snprintf(out, cap, "CULVERT_METRICS_LISTEN=%s:%u",
                   sources->is_dev ? "127.0.0.1" : "0.0.0.0", (unsigned)number);
    return true;
}

/* The environment with up to two variables more, NULL: none; NULL without memory. */
static const char **extend_env(const char *const *env, const char *first, const char *second)
{
    size_t count = 0;
    while (env[count])
        count++;
    const char **longer = calloc(count + 3, sizeof *longer);
    if (!longer)
        return NULL;
    memcpy(longer, env, count * sizeof *longer);
    if (first)
        longer[count++] = first;
    if (second)
        longer[count] = second;
    return longer;
}

struct cv_status cv_relay_config_load(const struct cv_config_sources *sources,
                                      struct cv_relay_config **config, struct cv_problems *problems)
{
    size_t before = problems->count + problems->unlisted;
    char listen[CV_HOST_MAX + 32], metrics[64];
    struct cv_config_sources all = *sources;
    const char **env = NULL;
    *config = NULL;
    bool has_listen = listen_from_env(sources, listen, sizeof listen, problems);
    bool has_metrics = metrics_from_env(sources, metrics, sizeof metrics, problems);
    if (has_listen || has_metrics) {
        env = extend_env(sources->env, has_listen ? listen : NULL, has_metrics ? metrics : NULL);
        if (!env)
            return cv_status(CV_NO_MEMORY);
        all.env = env;
    }
    struct cv_relay_config *loaded = calloc(1, sizeof *loaded);
    struct cv_status status = cv_status(CV_NO_MEMORY);
    if (loaded)
        status = cv_settings_load(&cv_relay_schema, loaded, &all, problems);
    /* What spans settings is looked at even when some are wrong: they hold their defaults then. */
    if (cv_is_ok(status) || status.id == CV_CONFIG)
        check_all(&(struct check){loaded, sources, problems});
    if (cv_is_ok(status) && problems->count + problems->unlisted > before)
        status = cv_status(CV_CONFIG);
    free(env);
    if (!cv_is_ok(status))
        cv_relay_config_free(&loaded);
    *config = loaded;
    return status;
}

struct cv_status cv_relay_config_patch(const struct cv_relay_config *old,
                                       const struct cv_override *overrides, size_t count,
                                       bool is_dev, struct cv_relay_config **config,
                                       struct cv_problems *problems)
{
    size_t before = problems->count + problems->unlisted;
    struct cv_config_sources sources = {
        .overrides = overrides, .override_count = count, .is_dev = is_dev};
    struct cv_relay_config *loaded = calloc(1, sizeof *loaded);
    *config = NULL;
    if (!loaded)
        return cv_status(CV_NO_MEMORY);
    struct cv_status status =
        cv_settings_patch(&cv_relay_schema, old, loaded, overrides, count, problems);
    if (cv_is_ok(status) || status.id == CV_CONFIG)
        check_all(&(struct check){loaded, &sources, problems});
    if (cv_is_ok(status) && problems->count + problems->unlisted > before)
        status = cv_status(CV_CONFIG);
    if (!cv_is_ok(status))
        cv_relay_config_free(&loaded);
    *config = loaded;
    return status;
}

struct cv_status cv_relay_config_merge(const struct cv_relay_config *running,
                                       const struct cv_relay_config *loaded, bool is_dev,
                                       struct cv_relay_config **config, struct cv_problems *left,
                                       struct cv_problems *problems)
{
    size_t before = problems->count + problems->unlisted;
    struct cv_config_sources sources = {.is_dev = is_dev};
    struct cv_relay_config *merged = calloc(1, sizeof *merged);
    *config = NULL;
    if (!merged)
        return cv_status(CV_NO_MEMORY);
    struct cv_status status = cv_settings_merge(&cv_relay_schema, running, loaded, merged, left);
    if (cv_is_ok(status))
        check_all(&(struct check){merged, &sources, problems});
    if (cv_is_ok(status) && problems->count + problems->unlisted > before)
        status = cv_status(CV_CONFIG);
    if (!cv_is_ok(status))
        cv_relay_config_free(&merged);
    *config = merged;
    return status;
}

void cv_relay_config_free(struct cv_relay_config **config)
{
    if (!*config)
        return;
    cv_settings_done(&cv_relay_schema, *config);
    free(*config);
    *config = NULL;
}
