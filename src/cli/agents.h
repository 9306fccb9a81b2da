/* SPDX-License-Identifier: MIT
 *
 * The agents that run on this machine and share this user's state folder: found by their control
 * sockets (run/<pid>.sock), all asked at once, answers awaited for 1 s. What `status` and
 * `reconnect` have in common. Private to cli/; main thread, blocking.
 */
#ifndef CV_CLI_AGENTS_H
#define CV_CLI_AGENTS_H

#include "base/json.h"
#include "base/status.h"

#include <stdio.h>

enum { CV_AGENTS_MAX = 256, CV_AGENTS_RELAY_MAX = 300 };

struct cv_found_agent {
    long pid;
    int fd;                /* -1: it does not answer */
    json_t *status;        /* what it says of itself; NULL: it does not answer, see error */
    struct cv_error error; /* why it does not */
};

struct cv_agents {
    struct cv_found_agent *items; /* by pid */
    size_t count;
    char relay[CV_AGENTS_RELAY_MAX]; /* "host:port" of `server`; "" for all */
};

/* Finds those that have a link to `server` (a URL), all for NULL; who does not answer is among them
 * either way. Sockets of processes that have ended are removed. CV_USAGE: no URL; CV_NOT_FOUND: no
 * such agent; CV_IO, CV_CONFIG (the state folder), CV_NO_MEMORY. Nothing is held then. */
struct cv_status cv_agents_find(const char *server, struct cv_agents *agents,
                                struct cv_error *error);
void cv_agents_free(struct cv_agents *agents);

/* Asks one, `question` a JSON text; the caller gives *answer back with json_decref. An answer that
 * tells of an error is a failure. CV_CONN_TIMEOUT, CV_EOF, CV_IO, CV_INVALID (it said something
 * else), CV_NO_MEMORY. */
struct cv_status cv_agents_ask(const struct cv_found_agent *agent, const char *question,
                               json_t **answer, struct cv_error *error);

/* Says on stderr why none were found; returns the exit code. */
int cv_agents_complain(struct cv_status status, const struct cv_error *error);

/* Writes text that came from elsewhere without what steers a terminal. */
void cv_agents_print_text(const char *text, FILE *to);

#endif
