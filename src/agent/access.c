/* SPDX-License-Identifier: MIT */
#include "agent/access.h"

#include "agent/known_hosts.h"
#include "base/digest.h"
#include "base/file.h"
#include "config/agent_config.h"
#include "config/state_dir.h"
#include "flow/ration.h"
#include "net/addr.h"
#include "net/tls.h"
#include "proto/http/http.h"
#include "proto/http/url.h"
#include "telemetry/log.h"
#include "transport/link.h"
#include "transport/link_settings.h"

#include <stdio.h>

enum { STATE_PATH_MAX = 4096 };

struct cv_access_token_state {
    struct cv_buf printed; /* by token_command */
    uint8_t dialed[CV_SHA256_LEN];
};

static struct cv_status read_url(struct cv_access *access, const struct cv_server_config *server,
                                 struct cv_error *error)
{
    struct cv_url url;
    const char *text = server->url;
    if (!text || !text[0])
        return cv_fail(error, CV_USAGE, "which relay? Give --server URL");
    struct cv_error reason = {0};
    if (!cv_is_ok(cv_url_parse(cv_slice_str(text), false, &url, &reason)))
        return cv_fail(error, CV_USAGE, "server: %.200s", reason.detail);
    if (!cv_slice_to_str(url.host, access->host, sizeof access->host) || url.port == 0)
        return cv_fail(error, CV_USAGE, "server: the host is too long, or the port is 0");
    access->port = (uint16_t)url.port;
    if (url.path.len <= 1)
        url.path = cv_slice_str("/tunnel");
    if (!cv_slice_to_str(url.path, access->path, sizeof access->path) || url.query.len)
        return cv_fail(error, CV_USAGE, "server: a short path and no query, please");
    if (!url.is_tls && !cv_host_is_loopback(access->host))
        return cv_fail(error, CV_USAGE,
                       "a token would travel readable to %.200s: use wss:// (plain ws:// is for "
                       "this machine only)",
                       access->host);
    bool is_default_port = access->port == (url.is_tls ? 443 : 80);
    (void)snprintf(access->relay, sizeof access->relay, url.is_ipv6 ? "[%s]:%u" : "%s:%u",
                   access->host, url.port);
    (void)snprintf(access->http_base, sizeof access->http_base, "%s://%.*s",
                   url.is_tls ? "https" : "http",
                   (int)(is_default_port ? strrchr(access->relay, ':') - access->relay
                                         : (ptrdiff_t)strlen(access->relay)),
                   access->relay);
    if (url.is_tls)
        return cv_tls_client_new(server->ca_file, &access->tls, error);
    return cv_ok();
}

static struct cv_status join(const struct cv_strings *list, char **out)
{
    struct cv_buf text;
    cv_buf_init(&text, 4096);
    struct cv_status status = cv_ok();
    for (size_t i = 0; cv_is_ok(status) && i < list->count; i++)
        status = cv_buf_printf(&text, "%s%s", i ? "," : "", list->items[i]);
    if (cv_is_ok(status))
        status = cv_buf_append_byte(&text, 0);
    if (cv_is_ok(status)) {
        *out = strdup((const char *)cv_buf_head(&text));
        status = cv_status(*out ? CV_OK : CV_NO_MEMORY);
    }
    cv_buf_done(&text);
    return status;
}

static struct cv_status set_known_hosts(struct cv_access *access, const char *state_dir,
                                        struct cv_error *error)
{
    char path[STATE_PATH_MAX];
    const char *chosen = access->config->known_hosts_file;
    if (!chosen) {
        CV_RETURN_IF_ERROR(cv_state_dir_path(state_dir, "known_hosts", path, sizeof path, error));
        chosen = path;
    }
    access->known_hosts = strdup(chosen);
    return cv_status(access->known_hosts ? CV_OK : CV_NO_MEMORY);
}

struct cv_status cv_access_init(struct cv_access *access, const struct cv_agent_config *config,
                                size_t server, const char *state_dir, const char *token_env,
                                struct cv_log *log, struct cv_error *error)
{
    struct cv_server_config relay = cv_agent_config_server(config, server);
    *access = (struct cv_access){.config = config,
                                 .log = log,
                                 .token_env = token_env,
                                 .fingerprint = relay.host_key_fingerprint,
                                 .priority = relay.priority,
                                 .weight = relay.weight};
    uint8_t id[16];
    cv_random(id, sizeof id);
    cv_hex_encode(cv_slice(id, sizeof id), access->agent_id);
    access->token_state = calloc(1, sizeof *access->token_state);
    if (!access->token_state)
        return cv_status(CV_NO_MEMORY);
    cv_buf_init(&access->token_state->printed, CV_ACCESS_TOKEN_MAX);
    struct cv_status status = read_url(access, &relay, error);
    if (cv_is_ok(status))
        status = join(&config->ssh_ciphers, &access->ciphers);
    if (cv_is_ok(status))
        status = set_known_hosts(access, state_dir, error);
    if (cv_is_ok(status)) {
        access->growth = cv_ration_new((size_t)config->link_growth_bytes, NULL);
        status = cv_status(access->growth ? CV_OK : CV_NO_MEMORY);
    }
    if (!cv_is_ok(status))
        cv_access_done(access);
    return status;
}

void cv_access_done(struct cv_access *access)
{
    cv_tls_client_free(&access->tls);
    if (access->token_state)
        cv_buf_wipe(&access->token_state->printed);
    free(access->token_state);
    free(access->ciphers);
    cv_ration_unref(&access->growth);
    free(access->known_hosts);
    access->token_state = NULL;
    access->ciphers = NULL;
    access->known_hosts = NULL;
}

void cv_access_free_all(struct cv_access **accesses, size_t count)
{
    for (size_t i = 0; *accesses && i < count; i++)
        cv_access_done(&(*accesses)[i]);
    free(*accesses);
    *accesses = NULL;
}

struct cv_status cv_access_new_all(const struct cv_agent_config *config, const char *state_dir,
                                   const char *token_env, struct cv_log *log,
                                   struct cv_access **accesses, size_t *count,
                                   struct cv_error *error)
{
    *count = cv_agent_config_server_count(config);
    *accesses = calloc(*count, sizeof **accesses);
    if (!*accesses)
        return cv_status(CV_NO_MEMORY);
    for (size_t i = 0; i < *count; i++) {
        struct cv_access *access = &(*accesses)[i];
        struct cv_status status =
            cv_access_init(access, config, i, state_dir, token_env, log, error);
        if (!cv_is_ok(status)) {
            cv_access_free_all(accesses, i);
            return status;
        }
        /* Two names of one relay must not look like two agents that fight for a tunnel. */
        memcpy(access->agent_id, (*accesses)[0].agent_id, sizeof access->agent_id);
    }
    return cv_ok();
}

const struct cv_access *cv_access_preferred(const struct cv_access *accesses, size_t count)
{
    size_t best = 0;
    for (size_t i = 1; i < count; i++)
        if (accesses[i].priority < accesses[best].priority)
            best = i;
    return &accesses[best];
}

/* Files end in a newline, and so do variables that were filled from one. */
static struct cv_slice strip(struct cv_slice text)
{
    while (text.len && strchr(" \t\r\n", text.data[text.len - 1]))
        text.len--;
    while (text.len && strchr(" \t\r\n", text.data[0]))
        text = cv_slice(text.data + 1, text.len - 1);
    return text;
}

static bool is_token(struct cv_slice text)
{
    return cv_http_is_field_value(text) && !memchr(text.data, ' ', text.len) &&
           !memchr(text.data, '\t', text.len);
}

static struct cv_status check_token(struct cv_slice text, struct cv_error *error)
{
    if (text.len == 0)
        return cv_fail(error, CV_AUTH_MISSING,
                       "no token: set CULVERT_TOKEN, or give --token-file FILE");
    if (text.len > CV_ACCESS_TOKEN_MAX || !is_token(text))
        return cv_fail(error, CV_AUTH_MALFORMED,
                       "the token has characters that no token has, "
                       "or is too long; copy it again");
    return cv_ok();
}

static bool uses_env(const struct cv_access *access)
{
    return strip(cv_slice_str(access->token_env)).len > 0;
}

const char *cv_access_token_file(const struct cv_access *access)
{
    return uses_env(access) ? NULL : access->config->token_file;
}

bool cv_access_uses_command(const struct cv_access *access)
{
    return !uses_env(access) && !access->config->token_file && access->config->token_command;
}

struct cv_slice cv_access_kept_token(const struct cv_access *access)
{
    return cv_buf_slice(&access->token_state->printed);
}

void cv_access_forget_token(const struct cv_access *access)
{
    cv_buf_wipe(&access->token_state->printed);
}

struct cv_status cv_access_keep_token(const struct cv_access *access, struct cv_slice printed,
                                      struct cv_error *error)
{
    struct cv_slice text = strip(printed);
    cv_access_forget_token(access);
    if (text.len == 0)
        return cv_fail(error, CV_AUTH_MISSING, "token_command has printed nothing");
    CV_RETURN_IF_ERROR(check_token(text, error));
    return cv_buf_append_slice(&access->token_state->printed, text);
}

void cv_access_note_dialed(const struct cv_access *access, struct cv_slice token)
{
    cv_sha256(token, access->token_state->dialed);
}

void cv_access_dialed_hash(const struct cv_access *access, uint8_t out[CV_SHA256_LEN])
{
    memcpy(out, access->token_state->dialed, CV_SHA256_LEN);
}

struct cv_status cv_access_token(const struct cv_access *access, struct cv_buf *out,
                                 struct cv_error *error)
{
    struct cv_buf file;
    cv_buf_init(&file, CV_ACCESS_TOKEN_MAX + 64);
    struct cv_slice text = strip(cv_slice_str(access->token_env));
    const char *path = cv_access_token_file(access);
    struct cv_status status = cv_ok();
    if (path) {
        status = cv_file_read(path, CV_FILE_ANY, &file, error);
        if (status.id == CV_NOT_FOUND)
            status = cv_fail(error, CV_AUTH_MISSING, "there is no token file %.180s", path);
        text = strip(cv_buf_slice(&file));
    } else if (cv_access_uses_command(access)) {
        text = cv_access_kept_token(access);
        if (!text.len)
            status = cv_status(CV_AGAIN);
    }
    if (cv_is_ok(status))
        status = check_token(text, error);
    if (cv_is_ok(status))
        status = cv_buf_append_slice(out, text);
    cv_buf_wipe(&file);
    return status;
}

struct cv_status cv_access_check_host_key(const struct cv_access *access, struct cv_slice blob,
                                          const char *fingerprint, struct cv_error *error)
{
    const char *pinned = access->fingerprint;
    if (pinned && pinned[0]) {
        if (strcmp(pinned, fingerprint) == 0)
            return cv_ok();
        return cv_fail(error, CV_HOST_KEY,
                       "%.80s has the host key %s, but host_key_fingerprint says %s; if the "
                       "operator confirms the new one, change the setting",
                       access->relay, fingerprint, pinned);
    }
    bool is_new = false;
    CV_RETURN_IF_ERROR(
        cv_known_hosts_check(access->known_hosts, access->relay, blob, &is_new, error));
    if (is_new)
        cv_log(access->log, CV_LOG_INFO, "agent", "host_key_pinned",
               "first time at this relay, its host key is remembered",
               CV_F_STR("relay", access->relay), CV_F_STR("fingerprint", fingerprint),
               CV_F_STR("file", access->known_hosts));
    return cv_ok();
}

void cv_access_link_options(const struct cv_access *access, struct cv_link_options *options)
{
    const struct cv_agent_config *c = access->config;
    *options = (struct cv_link_options){
        .role = CV_LINK_AGENT,
        .is_culvert = true,
        .ciphers = access->ciphers,
        .replay_bytes = (size_t)c->link_replay_bytes,
        .ration = access->growth,
        CV_LINK_SETTINGS(c),
    };
}
