/* SPDX-License-Identifier: MIT
 *
 * A tunnel as the agent publishes it: where its service is, and the JSON of `tunnel@culvert`
 * (docs/PROTOCOL.md) with what its preset adds. Pure; each one owns its JSON.
 */
#ifndef CV_AGENT_PUBLICATION_H
#define CV_AGENT_PUBLICATION_H

#include "base/status.h"
#include "base/tunnel_name.h"

#include <stdint.h>

struct cv_tunnel_config;

struct cv_publication {
    char name[CV_TUNNEL_NAME_MAX + 1];
    bool is_http;
    char host[256]; /* of the service, without brackets */
    uint16_t port;
    char target[272];   /* "127.0.0.1:11434", for people */
    uint32_t published; /* the port of tcpip-forward: 80 for HTTP, another for TCP */
    char *json;
};

/* CV_CONFIG when the target cannot be read, CV_NO_MEMORY. Nothing is held then. */
struct cv_status cv_publication_init(struct cv_publication *publication,
                                     const struct cv_tunnel_config *config, struct cv_error *error);
void cv_publication_done(struct cv_publication *publication);

/* The rules of a preset ("ollama", "openai", "none"), ended by NULL; an empty list allows
 * everything. NULL for an unknown name. */
const char *const *cv_preset_rules(const char *preset);

#endif
