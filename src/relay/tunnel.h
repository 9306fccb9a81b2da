/* SPDX-License-Identifier: MIT
 *
 * What a published tunnel is: name, kind, the Host to write, rules, timers. Made from the JSON of
 * `tunnel@culvert` (docs/PROTOCOL.md) or from defaults for foreign publishers; immutable
 * afterwards and shared by reference count between workers.
 */
#ifndef CV_RELAY_TUNNEL_H
#define CV_RELAY_TUNNEL_H

#include "base/slice.h"
#include "base/status.h"
#include "base/tunnel_name.h"
#include "relay/share.h"

#include <stdatomic.h>

enum { CV_TUNNEL_RULES_MAX = 64, CV_TUNNEL_HOST_MAX = 255 };

enum cv_tunnel_kind { CV_TUNNEL_HTTP, CV_TUNNEL_TCP };

struct cv_tunnel_rule {
    char method[33]; /* "*": any */
    char path[256];  /* without the trailing "*" */
    bool is_prefix;  /* the rule ended in "*" */
};

struct cv_tunnel_spec {
    atomic_uint refs;
    char name[CV_TUNNEL_NAME_MAX + 1];
    enum cv_tunnel_kind kind;
    char host[CV_TUNNEL_HOST_MAX + 1]; /* the Host field for the service */
    char preset[16];                   /* "ollama", "openai", "none" */
    char canary[256];                  /* "auto", "connect", "off", or a path */
    struct cv_tunnel_rule *rules;
    size_t rule_count;      /* 0: everything is allowed */
    uint32_t concurrency;   /* requests at once; 0: as many as there are streams */
    uint32_t first_byte_ms; /* 0: the relay's default … */
    uint32_t idle_ms;
    uint32_t total_ms;
    bool has_timers[3];        /* first_byte, idle, total were given (0 then means off) */
    bool passes_authorization; /* beside Culvert-Authorization */
    struct cv_share share;     /* who may ask beside the owner */
};

/* Parses the JSON object; *spec has one reference, to be given back with unref. CV_INVALID with a
 * reason for a person in *error; *spec is NULL then. */
struct cv_status cv_tunnel_spec_parse(struct cv_slice json, struct cv_tunnel_spec **spec,
                                      struct cv_error *error);

/* The defaults of a foreign publisher: Host `localhost`, no rules. */
struct cv_status cv_tunnel_spec_default(struct cv_slice name, enum cv_tunnel_kind kind,
                                        struct cv_tunnel_spec **spec);

/* What CV_DIAGNOSE_NAME is. CV_NO_MEMORY. */
struct cv_status cv_tunnel_spec_diagnose(struct cv_tunnel_spec **spec);

struct cv_tunnel_spec *cv_tunnel_spec_ref(struct cv_tunnel_spec *spec);
void cv_tunnel_spec_unref(struct cv_tunnel_spec **spec);

/* Whether two specs of a name mean the same to a request: kind, Host, rules, what is passed on, who
 * may ask. */
bool cv_tunnel_spec_is_same(const struct cv_tunnel_spec *a, const struct cv_tunnel_spec *b);

/* Whether the rules let `method` on `path` (raw, without the query) through. The path is compared
 * after percent-decoding of unreserved characters; a path with dot segments, encoded slashes, NUL
 * or backslashes never matches a rule, so that what the service would read differently is refused.
 */
bool cv_tunnel_spec_allows(const struct cv_tunnel_spec *spec, struct cv_slice method,
                           struct cv_slice path);

#endif
