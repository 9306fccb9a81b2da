/* SPDX-License-Identifier: MIT */
#include "agent/publication.h"

#include "base/json.h"
#include "config/agent_config.h"
#include "config/value.h"

#include <stdio.h>

enum {
    OLLAMA_PORT = 11434,
    /* A model may think for minutes before its first word, and pause long between two. */
    MODEL_FIRST_BYTE_MS = 600 * 1000,
    MODEL_IDLE_MS = 300 * 1000,
    TIMER_MAX_MS = 24 * 3600 * 1000, /* more is not taken by a relay */
};

/* What Ollama offers to those who use a model; everything else (pull, push, create, copy, delete,
 * blobs) changes the machine. */
static const char *const ollama_rules[] = {
    "GET /",
    "HEAD /",
    "GET /api/tags",
    "HEAD /api/tags",
    "POST /api/chat",
    "POST /api/generate",
    "POST /api/embed",
    "POST /api/embeddings",
    "POST /api/show",
    "GET /api/ps",
    "GET /api/version",
    "* /v1/*",
    NULL,
};
static const char *const openai_rules[] = {"* /v1/*", "GET /", "GET /health", NULL};
static const char *const no_rules[] = {NULL};

static const struct preset {
    const char *name;
    const char *const *rules;
    uint64_t first_byte_ms, idle_ms;
} presets[] = {
    {"none", no_rules, CV_UNSET, CV_UNSET},
    {"ollama", ollama_rules, MODEL_FIRST_BYTE_MS, MODEL_IDLE_MS},
    {"openai", openai_rules, MODEL_FIRST_BYTE_MS, MODEL_IDLE_MS},
};

static const struct preset *find_preset(const char *name)
{
    for (size_t i = 0; i < sizeof presets / sizeof presets[0]; i++)
        if (strcmp(presets[i].name, name) == 0)
            return &presets[i];
    return NULL;
}

const char *const *cv_preset_rules(const char *name)
{
    const struct preset *preset = find_preset(name);
    return preset ? preset->rules : NULL;
}

static const struct preset *choose_preset(const struct cv_tunnel_config *config, uint16_t port)
{
    const char *name = config->preset ? config->preset : "auto";
    if (strcmp(name, "auto") == 0)
        name = port == OLLAMA_PORT && strcmp(config->kind, "http") == 0 ? "ollama" : "none";
    const struct preset *preset = find_preset(name);
    return preset ? preset : &presets[0];
}

static json_t *make_rules(const struct cv_tunnel_config *config, const struct preset *preset)
{
    json_t *rules = json_array();
    int failed = rules ? 0 : -1;
    for (size_t i = 0; !failed && i < config->allow.count; i++)
        failed = json_array_append_new(rules, json_string(config->allow.items[i]));
    for (size_t i = 0; !failed && !config->allow.count && preset->rules[i]; i++)
        failed = json_array_append_new(rules, json_string(preset->rules[i]));
    if (!failed)
        return rules;
    json_decref(rules);
    return NULL;
}

static int set_share(json_t *object, const struct cv_tunnel_config *config)
{
    if (config->is_public && json_object_set_new(object, "public", json_true()) != 0)
        return -1;
    if (!config->share.count)
        return 0;
    json_t *list = json_array();
    int failed = list ? 0 : -1;
    for (size_t i = 0; !failed && i < config->share.count; i++)
        failed = json_array_append_new(list, json_string(config->share.items[i]));
    if (!failed)
        return json_object_set_new(object, "share", list);
    json_decref(list);
    return failed;
}

static int set_timer(json_t *object, const char *key, uint64_t own_ms, uint64_t preset_ms)
{
    uint64_t ms = own_ms != CV_UNSET ? own_ms : preset_ms;
    if (ms != CV_UNSET && ms > TIMER_MAX_MS)
        ms = TIMER_MAX_MS;
    return ms == CV_UNSET ? 0 : json_object_set_new(object, key, json_integer((json_int_t)ms));
}

static char *make_json(const struct cv_publication *p, const struct cv_tunnel_config *config,
                       const struct preset *preset)
{
    const char *host = config->host && config->host[0] ? config->host : p->target;
    bool passes = config->authorization && strcmp(config->authorization, "pass") == 0;
    json_t *object = json_pack("{s:s, s:s, s:s, s:s, s:s, s:o*, s:I, s:b}", "name", p->name,
                               "canary", config->canary ? config->canary : "auto", "kind",
                               p->is_http ? "http" : "tcp", "host", host, "preset", preset->name,
                               "allow", make_rules(config, preset), "concurrency",
                               (json_int_t)config->concurrency, "pass_authorization", (int)passes);
    char *text = NULL;
    /* Without its rules a tunnel would allow everything: better none at all. */
    if (object && json_object_get(object, "allow") &&
        set_timer(object, "first_byte_ms", config->timers_first_byte_ms, preset->first_byte_ms) ==
            0 &&
        set_timer(object, "idle_ms", config->timers_idle_ms, preset->idle_ms) == 0 &&
        set_timer(object, "total_ms", config->timers_total_ms, CV_UNSET) == 0 &&
        set_share(object, config) == 0)
        text = cv_json_text(object);
    json_decref(object);
    return text;
}

struct cv_status cv_publication_init(struct cv_publication *p,
                                     const struct cv_tunnel_config *config, struct cv_error *error)
{
    struct cv_hostport target;
    *p = (struct cv_publication){.is_http = !config->kind || strcmp(config->kind, "http") == 0};
    if (!cv_target_parse(cv_slice_str(config->target), &target))
        return cv_fail(error, CV_CONFIG,
                       "the target must be PORT, HOST:PORT or http://HOST[:PORT]");
    (void)snprintf(p->name, sizeof p->name, "%s", config->name);
    (void)snprintf(p->host, sizeof p->host, "%s", target.host);
    p->port = target.port;
    (void)snprintf(p->target, sizeof p->target, target.is_ipv6 ? "[%s]:%u" : "%s:%u", target.host,
                   (unsigned)target.port);
    /* 80 means HTTP on the wire, so a TCP tunnel to a port 80 takes the other one. */
    p->published = p->is_http ? 80 : target.port == 80 ? 8080 : target.port;
    p->json = make_json(p, config, choose_preset(config, target.port));
    return p->json ? cv_ok() : cv_status(CV_NO_MEMORY);
}

void cv_publication_done(struct cv_publication *p)
{
    free(p->json);
    p->json = NULL;
}
