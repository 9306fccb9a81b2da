/* SPDX-License-Identifier: MIT
 *
 * `culvert demo [--once]`: relay, agent and a small streaming model in one process, and one chat
 * through all of them. Private to cli/; main thread.
 */
#ifndef CV_CLI_DEMO_H
#define CV_CLI_DEMO_H

#include "cli/options.h"

extern const struct cv_command cv_cli_demo_command;

/* argv without the program's and the command's name. Returns the exit code: 0 done, 1 when a part
 * of the demonstration failed (one sentence on stderr says which), 2 for wrong usage. */
int cv_cli_demo(int argc, const char *const *argv);

#endif
