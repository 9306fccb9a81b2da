/* SPDX-License-Identifier: MIT
 *
 * What diagnose.c (order and findings), diagnose_path.c (up to TLS, and local services),
 * diagnose_login.c (upgrade, token, SSH) and diagnose_flow.c (bytes around through the relay)
 * share. Nobody else includes this.
 */
#ifndef CV_AGENT_DIAGNOSE_PRIVATE_H
#define CV_AGENT_DIAGNOSE_PRIVATE_H

#include "agent/diagnose.h"
#include "base/buf.h"
#include "config/value.h"
#include "net/proxy.h"
#include "net/resolve.h"
#include "net/tls.h"
#include "net/worker.h"
#include "transport/link.h"

enum diagnose_stage {
    DIAGNOSE_DNS,
    DIAGNOSE_TCP,
    DIAGNOSE_PROXY,
    DIAGNOSE_TLS,
    DIAGNOSE_UPGRADE,
    DIAGNOSE_TOKEN,
    DIAGNOSE_SSH,
    DIAGNOSE_TUNNEL,
    DIAGNOSE_SERVICE,
    DIAGNOSE_DATA,
    DIAGNOSE_LATENCY,
    DIAGNOSE_THROUGHPUT,
    DIAGNOSE_STAGES
};

enum {
    DIAGNOSE_DATA_BYTES = 1024 * 1024,
    DIAGNOSE_PINGS = 20,
    DIAGNOSE_LINK_STAGE_MS = 60000, /* for each of the last stages */
    DIAGNOSE_CLOCK_SKEW_S = 30,     /* beyond it tokens are misjudged (CV_AUTH_DEFAULT_SKEW_S) */
};

/* One of several connections of a stage. */
struct diagnose_try {
    struct cv_diagnose *diagnose;
    struct cv_dial *dial; /* NULL: over */
    char name[300];       /* "192.0.2.1:443" */
    uint64_t began_ns;
    uint64_t duration_us;
    struct cv_status status;
    struct cv_error error;
};

struct cv_diagnose {
    struct cv_worker *worker;
    struct cv_diagnose_options options;
    const struct cv_diagnose_ops *ops;
    void *arg;
    struct cv_hostport targets[CV_DIAGNOSE_TARGETS_MAX];

    /* The stage under way. */
    enum diagnose_stage stage;
    bool is_stage_over;
    uint64_t began_ns;
    json_t *details;
    struct cv_defer next; /* the stage behind it, never from inside a callback of this one */
    struct cv_timer timer;
    const char *failed; /* the stage that explains the rest; NULL: none so far */
    bool is_stopping;
    bool has_ended;

    /* The path. */
    struct cv_proxy proxy; /* host "": none */
    struct cv_resolve *resolve;
    struct cv_addr addrs[CV_RESOLVE_MAX];
    size_t addr_count;
    struct diagnose_try tries[CV_RESOLVE_MAX];
    size_t try_count, tries_under_way;
    struct cv_dial *dial;
    struct cv_tls_facts tls;

    /* The login. */
    struct cv_dialer *dialer;
    int64_t skew_s; /* the relay's clock is so far ahead of ours */
    bool has_date;
    struct cv_status refusal; /* of the token */
    struct cv_error refusal_error;
    struct cv_link *link;
    uint64_t link_began_ns, link_up_ns;
    bool is_up;
    char fingerprint[128];
    struct cv_error host_key; /* why it is refused */
    struct cv_status link_why;
    struct cv_error link_error;
    char refused[200]; /* what the relay said of the tunnel */

    /* Bytes around. */
    struct cv_stream *out; /* ours, whose bytes come back */
    struct cv_stream *in;  /* the other end, which sends them back */
    struct cv_buf echo;    /* not sent back yet */
    bool is_in_eof;
    uint8_t *sent, *received; /* DIAGNOSE_DATA_BYTES each */
    size_t sent_len, received_len;
    uint64_t pings_us[DIAGNOSE_PINGS];
    size_t ping_count;
    uint64_t ping_ns;
    uint64_t flow_bytes;
};

/* ---- diagnose.c: the end of a stage, once each ---- */

__attribute__((format(printf, 2, 3))) void diagnose_pass(struct cv_diagnose *d, const char *format,
                                                         ...);
__attribute__((format(printf, 2, 3))) void diagnose_skip(struct cv_diagnose *d, const char *format,
                                                         ...);
/* `suggestion` NULL: the status's own. The stages behind it are not tried, unless it was the one of
 * local services. */
void diagnose_fail(struct cv_diagnose *d, struct cv_status why, const struct cv_error *error,
                   const char *suggestion);
/* Adds a member to the stage's details; takes the value, which may be NULL. */
void diagnose_note(struct cv_diagnose *d, const char *name, json_t *value);
/* What a peer said, as JSON text. */
json_t *diagnose_text(const char *text);
/* Of Unix seconds, RFC 3339; null for 0. */
json_t *diagnose_moment(int64_t unix_s);
/* The stage fails with CV_CONN_TIMEOUT after so long. */
void diagnose_limit(struct cv_diagnose *d, uint64_t limit_ms);
/* All that the link's end means: the stage under way fails where it needs it. */
void diagnose_on_link_lost(struct cv_diagnose *d);
uint64_t diagnose_us_since(const struct cv_diagnose *d, uint64_t began_ns);

/* ---- the stages ---- */

void diagnose_dns(struct cv_diagnose *d);
void diagnose_tcp(struct cv_diagnose *d);
void diagnose_proxy(struct cv_diagnose *d);
void diagnose_tls(struct cv_diagnose *d);
void diagnose_service(struct cv_diagnose *d);
void diagnose_path_done(struct cv_diagnose *d); /* calls everything off */

void diagnose_upgrade(struct cv_diagnose *d);
void diagnose_token(struct cv_diagnose *d);
void diagnose_ssh(struct cv_diagnose *d);

void diagnose_tunnel(struct cv_diagnose *d);
void diagnose_data(struct cv_diagnose *d);
void diagnose_latency(struct cv_diagnose *d);
void diagnose_throughput(struct cv_diagnose *d);
/* Of the link, for diagnose_flow.c. */
void diagnose_on_reply(struct cv_diagnose *d, bool is_success);
void diagnose_on_stream(struct cv_diagnose *d, struct cv_stream *stream, struct cv_slice host);

#endif
