/* SPDX-License-Identifier: MIT
 *
 * Runs a command of the operator's (a line for /bin/sh) and takes what it prints, without waiting
 * for it. It has no input, its stderr goes nowhere, and it gets a process group of its own, which
 * is killed when it takes too long or prints too much. Owns the process and the pipe. Its worker's
 * thread; the worker's end kills it.
 */
#ifndef CV_NET_COMMAND_H
#define CV_NET_COMMAND_H

#include "base/slice.h"
#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

struct cv_command;
struct cv_worker;

struct cv_command_result {
    /* CV_OK: it has ended with 0. CV_IO: it could not be run, ended otherwise, or took too long;
     * CV_NO_RESOURCES: it printed more than was allowed; CV_NO_MEMORY. */
    struct cv_status status;
    const struct cv_error *error; /* never NULL */
    struct cv_slice output;       /* valid for the call, wiped after it */
};

typedef void cv_command_on_done(void *arg, const struct cv_command_result *result);

/* `on_done` is called once, from the loop; the command is gone when it is entered. CV_IO,
 * CV_NO_MEMORY: nothing was started, and it is not called. */
struct cv_status cv_command_start(struct cv_worker *worker, const char *line, size_t max_bytes,
                                  uint64_t timeout_ms, cv_command_on_done *on_done, void *arg,
                                  struct cv_command **command, struct cv_error *error);

/* Kills it; on_done is not called. NULL is fine; *command is NULL afterwards. */
void cv_command_cancel(struct cv_command **command);

#endif
