/* SPDX-License-Identifier: MIT */
#include "config/agent_config.h"

#include "config/schema.h"
#include "config/value.h"

#include <stdarg.h>

enum { SHARE_MAX = 64 }; /* as many as a relay takes */

#define CV_SETTING_OWNER struct cv_tunnel_config
static const struct cv_setting tunnel_settings[] = {CV_TUNNEL_SETTINGS(CV_SETTING_ROW)};
#undef CV_SETTING_OWNER

const struct cv_schema cv_tunnel_schema = {
    .name = "tunnel",
    .settings = tunnel_settings,
    .count = sizeof tunnel_settings / sizeof *tunnel_settings,
    .size = sizeof(struct cv_tunnel_config),
};

#define CV_SETTING_OWNER struct cv_server_config
static const struct cv_setting server_settings[] = {CV_SERVER_SETTINGS(CV_SETTING_ROW)};
#undef CV_SETTING_OWNER

const struct cv_schema cv_server_schema = {
    .name = "server",
    .settings = server_settings,
    .count = sizeof server_settings / sizeof *server_settings,
    .size = sizeof(struct cv_server_config),
};

#define CV_SETTING_OWNER struct cv_agent_config
static const struct cv_setting settings[] = {CV_AGENT_SETTINGS(CV_SETTING_ROW)};
#undef CV_SETTING_OWNER

const struct cv_schema cv_agent_schema = {
    .name = "agent",
    .settings = settings,
    .count = sizeof settings / sizeof *settings,
    .size = sizeof(struct cv_agent_config),
    .origins_offset = offsetof(struct cv_agent_config, origins),
};

static const struct cv_server_config *listed(const struct cv_agent_config *config, size_t index)
{
    return (const struct cv_server_config *)config->servers.items + index;
}

size_t cv_agent_config_server_count(const struct cv_agent_config *config)
{
    return config->server || config->servers.count == 0 ? 1 : config->servers.count;
}

struct cv_server_config cv_agent_config_server(const struct cv_agent_config *config, size_t index)
{
    struct cv_server_config server = {.url = config->server, .weight = 1};
    if (!config->server && index < config->servers.count)
        server = *listed(config, index);
    if (!server.ca_file)
        server.ca_file = config->ca_file;
    if (!server.host_key_fingerprint)
        server.host_key_fingerprint = config->host_key_fingerprint;
    return server;
}

bool cv_target_parse(struct cv_slice text, struct cv_hostport *out)
{
    char full[CV_HOST_MAX + 32];
    struct cv_hostport target;
    bool is_url = text.len > 7 && cv_slice_is_nocase(cv_slice(text.data, 7), "http://");
    if (is_url) {
        text = cv_slice(text.data + 7, text.len - 7);
        if (text.len > 0 && text.data[text.len - 1] == '/')
            text.len--;
    }
    if (text.len == 0 || text.len > CV_HOST_MAX + 8)
        return false;
    uint64_t port = 0;
    bool is_bare_port = !is_url && cv_slice_to_u64(text, 65535, &port);
    bool has_port = cv_value_hostport(text, &target);
    if (is_bare_port || (has_port && target.host[0] == '\0' && !is_url))
        (void)snprintf(full, sizeof full, "127.0.0.1:%u",
                       is_bare_port ? (unsigned)port : (unsigned)target.port);
    else
        (void)snprintf(full, sizeof full, "%.*s%s", (int)text.len, (const char *)text.data,
                       has_port || !is_url ? "" : ":80");
    if (!cv_value_hostport(cv_slice_str(full), &target) || target.port == 0 || !target.host[0])
        return false;
    *out = target;
    return true;
}

bool cv_rule_parse(struct cv_slice text, struct cv_slice *method, struct cv_slice *path)
{
    struct cv_slice rest = text;
    struct cv_slice word = cv_slice_split(&rest, ' ');
    bool is_any = cv_slice_is(word, "*");
    if (word.len == 0 || rest.len == 0 || rest.data[0] != '/')
        return false;
    for (size_t i = 0; i < word.len && !is_any; i++) {
        uint8_t c = word.data[i]; /* RFC 9110 §5.6.2 */
        if (c <= ' ' || c >= 0x7f || strchr("\"(),/:;<=>?@[\\]{}*", c))
            return false;
    }
    for (size_t i = 0; i < rest.len; i++) {
        uint8_t c = rest.data[i];
        if (c <= ' ' || c == 0x7f || c == '?' || c == '#' || (c == '*' && i + 1 < rest.len))
            return false;
    }
    *method = word;
    *path = rest;
    return true;
}

struct check {
    const struct cv_agent_config *config;
    const struct cv_config_sources *sources;
    struct cv_problems *problems;
};

__attribute__((format(printf, 3, 4))) static void complain(const struct check *c, const char *key,
                                                           const char *format, ...)
{
    char text[256];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    cv_settings_complain(&cv_agent_schema, c->config, c->sources, key, text, c->problems);
}

/* OpenSSH's form: base64 of 32 bytes without its padding. */
static bool is_fingerprint(const char *text)
{
    static const char prefix[] = "SHA256:";
    if (strncmp(text, prefix, sizeof prefix - 1) != 0)
        return false;
    text += sizeof prefix - 1;
    size_t len = strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");
    return len == 43 && text[len] == '\0';
}

/* It goes into a request head as it is. */
static bool is_host_field(const char *text)
{
    struct cv_hostport hostport;
    return cv_value_is_hostname(cv_slice_str(text)) ||
           (cv_value_hostport(cv_slice_str(text), &hostport) && hostport.host[0]);
}

static void check_tunnel(const struct check *c, size_t index)
{
    const struct cv_tunnel_config *tunnel = cv_agent_config_tunnel(c->config, index);
    struct cv_hostport target;
    if (tunnel->target && !cv_target_parse(cv_slice_str(tunnel->target), &target))
        complain(c, "tunnels",
                 "[%zu].target is \"%.80s\", but must be a port, HOST:PORT or http://HOST[:PORT]",
                 index, tunnel->target);
    if (tunnel->host && !is_host_field(tunnel->host))
        complain(c, "tunnels", "[%zu].host is \"%.80s\", but must be HOST or HOST:PORT", index,
                 tunnel->host);
    for (size_t i = 0; i < tunnel->allow.count; i++) {
        struct cv_slice method, path;
        if (!cv_rule_parse(cv_slice_str(tunnel->allow.items[i]), &method, &path))
            complain(c, "tunnels", "[%zu].allow has \"%.80s\", but a rule must be METHOD /path",
                     index, tunnel->allow.items[i]);
    }
    if (tunnel->kind && strcmp(tunnel->kind, "http") != 0 &&
        (tunnel->share.count || tunnel->is_public))
        complain(c, "tunnels", "[%zu] is %s, but share and public are for http", index,
                 tunnel->kind);
    if (tunnel->share.count > SHARE_MAX)
        complain(c, "tunnels", "[%zu].share has more than %d entries", index, SHARE_MAX);
    for (size_t i = 0; i < index && tunnel->name; i++) {
        const char *other = cv_agent_config_tunnel(c->config, i)->name;
        if (other && strcmp(other, tunnel->name) == 0)
            complain(c, "tunnels", "[%zu].name is \"%s\", which [%zu] already has", index,
                     tunnel->name, i);
    }
}

static void check_servers(const struct check *c)
{
    size_t count = c->config->servers.count;
    if (count && c->config->server &&
        cv_settings_origin(&cv_agent_schema, c->config, "server").kind == CV_ORIGIN_FILE)
        complain(c, "servers", "stands beside server; a file has one of the two");
    for (size_t i = 0; i < count; i++) {
        const struct cv_server_config *server = listed(c->config, i);
        if (server->host_key_fingerprint && !is_fingerprint(server->host_key_fingerprint))
            complain(c, "servers",
                     "[%zu].host_key_fingerprint must be SHA256: and 43 characters, as "
                     "`ssh-keygen -l` prints it",
                     i);
        for (size_t j = 0; j < i && server->url; j++)
            if (listed(c->config, j)->url && strcmp(listed(c->config, j)->url, server->url) == 0)
                complain(c, "servers", "[%zu].url is the same as that of [%zu]", i, j);
    }
}

static void check_all(const struct check *c)
{
    check_servers(c);
    for (size_t i = 0; i < c->config->tunnels.count; i++)
        check_tunnel(c, i);
    if (c->config->reconnect_initial_ms > c->config->reconnect_max_ms)
        complain(c, "reconnect.initial", "must not be longer than reconnect.max");
    if (c->config->host_key_fingerprint && !is_fingerprint(c->config->host_key_fingerprint))
        complain(c, "host_key_fingerprint",
                 "must be SHA256: and 43 characters, as `ssh-keygen -l` prints it");
    if (c->config->ssh_ciphers.count == 0)
        complain(c, "ssh.ciphers", "needs at least one cipher");
    if (c->config->ssh_kex.count == 0)
        complain(c, "ssh.kex", "needs at least one method");
}

struct cv_status cv_agent_config_load(const struct cv_config_sources *sources,
                                      struct cv_agent_config **config, struct cv_problems *problems)
{
    size_t before = problems->count + problems->unlisted;
    struct cv_agent_config *loaded = calloc(1, sizeof *loaded);
    *config = NULL;
    if (!loaded)
        return cv_status(CV_NO_MEMORY);
    struct cv_status status = cv_settings_load(&cv_agent_schema, loaded, sources, problems);
    /* What spans settings is looked at even when some are wrong: they hold their defaults then. */
    if (cv_is_ok(status) || status.id == CV_CONFIG)
        check_all(&(struct check){loaded, sources, problems});
    if (cv_is_ok(status) && problems->count + problems->unlisted > before)
        status = cv_status(CV_CONFIG);
    if (!cv_is_ok(status))
        cv_agent_config_free(&loaded);
    *config = loaded;
    return status;
}

void cv_agent_config_free(struct cv_agent_config **config)
{
    if (!*config)
        return;
    cv_settings_done(&cv_agent_schema, *config);
    free(*config);
    *config = NULL;
}
