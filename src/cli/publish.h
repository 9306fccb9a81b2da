/* SPDX-License-Identifier: MIT
 *
 * Runs an agent until it ends: what `agent`, `http` and `tcp` have in common. Private to cli/.
 */
#ifndef CV_CLI_PUBLISH_H
#define CV_CLI_PUBLISH_H

#include "cli/client.h"

struct cv_target_command {
    const struct cv_command *command;
    const char *kind; /* "http" or "tcp" */
};

/* Opens the client with these options and runs the agent; returns the exit code. Interactive ones
 * print where each tunnel is on stdout. */
int cv_cli_run_agent(const struct cv_client_options *options, const struct cv_parsed *parsed);

/* A whole `culvert http` or `culvert tcp`. */
int cv_cli_publish_target(const struct cv_target_command *target, int argc,
                          const char *const *argv);

#endif
