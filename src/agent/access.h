/* SPDX-License-Identifier: MIT
 *
 * What it takes to reach one relay: its address read from the URL, TLS settings, the proxy, the
 * token, who we are, and which host key it must have. Shared by everything in a process that dials
 * that relay.
 * Borrows configuration and log; owns the rest. The thread of the worker that dials.
 */
#ifndef CV_AGENT_ACCESS_H
#define CV_AGENT_ACCESS_H

#include "base/buf.h"
#include "base/slice.h"
#include "base/status.h"

#include <stdint.h>

struct cv_agent_config;
struct cv_link_options;
struct cv_log;
struct cv_link_spans;
struct cv_tls_client;

enum { CV_ACCESS_TOKEN_MAX = 8192, CV_ACCESS_COMMAND_MS = 30000 };

struct cv_access_token_state; /* what changes while the rest stays */

struct cv_access {
    const struct cv_agent_config *config;
    struct cv_log *log;
    struct cv_link_spans *spans; /* NULL: none; set by the owner */
    const char *token_env;       /* CULVERT_TOKEN; NULL without */
    struct cv_access_token_state *token_state;
    struct cv_tls_client *tls; /* NULL: plain, loopback only */
    char *ciphers;             /* comma-separated */
    struct cv_ration *growth;  /* of the links to this relay */
    char *known_hosts;         /* path */
    const char *fingerprint;   /* the host key it must have; NULL or "" for known_hosts */
    unsigned priority;         /* lower is preferred */
    unsigned weight;           /* among those of the same priority; at least 1 */
    char host[256];            /* without brackets */
    uint16_t port;
    char relay[272];     /* "host:port", IPv6 in brackets: Host field and known_hosts */
    char path[512];      /* of the upgrade: "/tunnel" */
    char http_base[288]; /* "https://relay.example", where consumers go */
    char agent_id[33];   /* random hex, new for each process; the same towards all its relays */
};

/* For the relay `server` of the configuration (cv_agent_config_server). `token_env` and the others
 * are borrowed. CV_USAGE: no server, or plain ws:// to another machine,
 * where the token would travel readable; CV_TLS: the CA file; CV_CONFIG, CV_NO_MEMORY. Nothing is
 * held then. */
struct cv_status cv_access_init(struct cv_access *access, const struct cv_agent_config *config,
                                size_t server, const char *state_dir, const char *token_env,
                                struct cv_log *log, struct cv_error *error);
void cv_access_done(struct cv_access *access);

/* The same for each relay of the configuration, in an array that the caller gives to
 * cv_access_free_all. *accesses is NULL on failure. */
struct cv_status cv_access_new_all(const struct cv_agent_config *config, const char *state_dir,
                                   const char *token_env, struct cv_log *log,
                                   struct cv_access **accesses, size_t *count,
                                   struct cv_error *error);
void cv_access_free_all(struct cv_access **accesses, size_t count); /* nulls; takes NULL */

/* The first of those that are preferred to the others. `count` > 0. */
const struct cv_access *cv_access_preferred(const struct cv_access *accesses, size_t count);

/* Appends the token: CULVERT_TOKEN, else what the token file holds now, else what token_command
 * said last; CV_AGAIN when that has to be run first (cv_access_keep_token). CV_AUTH_MISSING with
 * what to do, CV_AUTH_MALFORMED, CV_IO, CV_CONFIG. The caller wipes `out`. */
struct cv_status cv_access_token(const struct cv_access *access, struct cv_buf *out,
                                 struct cv_error *error);

/* Where tokens come from: the file, NULL when it is not used; the command. */
const char *cv_access_token_file(const struct cv_access *access);
bool cv_access_uses_command(const struct cv_access *access);

/* Keeps what token_command has printed. CV_AUTH_MISSING, CV_AUTH_MALFORMED: that is no token, the
 * one before is gone. */
struct cv_status cv_access_keep_token(const struct cv_access *access, struct cv_slice printed,
                                      struct cv_error *error);
struct cv_slice cv_access_kept_token(const struct cv_access *access);
/* The relay has refused it: the command is run again for the next dial. */
void cv_access_forget_token(const struct cv_access *access);

/* SHA-256 of the token that a link was dialled with last. */
void cv_access_note_dialed(const struct cv_access *access, struct cv_slice token);
void cv_access_dialed_hash(const struct cv_access *access, uint8_t out[32]);

/* Whether the relay may have this host key: the fingerprint from the configuration, else
 * known_hosts, where a new one is pinned. CV_HOST_KEY with what to do, or as cv_known_hosts_check.
 */
struct cv_status cv_access_check_host_key(const struct cv_access *access, struct cv_slice blob,
                                          const char *fingerprint, struct cv_error *error);

/* The settings of a link, from the configuration. `ciphers` and `ration` are borrowed from
 * `access`. */
void cv_access_link_options(const struct cv_access *access, struct cv_link_options *options);

#endif
