/* SPDX-License-Identifier: MIT
 *
 * What the commands that dial a relay share (agent, http, tcp, forward, stdio): settings, state
 * folder, log, access, one worker on the main thread, signals. Private to cli/; main thread.
 */
#ifndef CV_CLI_CLIENT_H
#define CV_CLI_CLIENT_H

#include "agent/access.h"
#include "cli/cli.h"
#include "net/worker.h"

struct cv_agent_config;

enum { CV_CLIENT_STATE_PATH_MAX = 4096 };

struct cv_client {
    struct cv_agent_config *config;
    struct cv_log log;
    struct cv_log_file log_file;
    struct cv_access *accesses; /* to the relays of the configuration */
    size_t access_count;
    const struct cv_access *access; /* to the preferred one of them */
    struct cv_link_spans *spans;    /* NULL: none are sent */
    char instance[17];              /* random hex, for logs and spans */
    struct cv_worker *worker;
    char state_dir[CV_CLIENT_STATE_PATH_MAX];
    struct cv_timer flush; /* of the log */
    int exit_code;
    /* SIGTERM or SIGINT came, the first or a further one. */
    void (*on_stop)(void *arg);
    void *arg;
};

struct cv_client_options {
    const char *config_path; /* NULL for none */
    bool is_interactive;     /* a missing token is told at once */
    bool is_quiet;           /* only errors are logged, unless the level was set */
};

/* The options that all of them have. */
#define CV_CLIENT_OPTIONS                                                                          \
    CV_OPT_SETTING("server", "server", 's', "URL",                                                 \
                   "The relay: wss://HOST[:PORT], or ws:// on this machine."),                     \
        CV_OPT_SETTING("token_file", "token-file", 0, "FILE",                                      \
                       "File with the token, read again when it changes. CULVERT_TOKEN goes "      \
                       "before it."),                                                              \
        CV_OPT_SETTING("ca_file", "ca-file", 0, "FILE",                                            \
                       "Authorities that the relay's certificate may come from, in PEM."),         \
        CV_OPT_SETTING("log.level", "log-level", 0, "LEVEL",                                       \
                       "error, warn, info, debug or trace."),                                      \
        CV_OPT_SETTING("log.format", "log-format", 0, "FORMAT", "json, text or auto.")

/* Adds the setting of an operand to a parse. False when there are too many. */
bool cv_client_override(struct cv_parsed *parsed, const char *key, const char *value,
                        const char *where);

/* True when the command line sets `key`. */
bool cv_client_has_override(const struct cv_parsed *parsed, const char *key);

/* Opens everything. When that fails it says so on stderr and returns false with *exit_code; nothing
 * is held then. */
bool cv_client_open(struct cv_client *client, const struct cv_client_options *options,
                    const struct cv_parsed *parsed, int *exit_code);

/* Runs until cv_client_end, closes everything, returns the exit code. `on_stop` and `arg` are set.
 */
void cv_client_run(struct cv_client *client);

/* Ends cv_client_run; a failure is logged. */
void cv_client_end(struct cv_client *client, struct cv_status why, const struct cv_error *error);

/* After what lives on the worker was freed. Returns the exit code. */
int cv_client_close(struct cv_client *client);

#endif
