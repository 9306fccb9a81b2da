/* SPDX-License-Identifier: MIT
 *
 * What the subcommands share: their list, exit codes, and the steps that each begins with. A
 * subcommand is a table (struct cv_command) and a function that returns the exit code; one file
 * each. Main thread.
 */
#ifndef CV_CLI_CLI_H
#define CV_CLI_CLI_H

#include "base/buf.h"
#include "cli/options.h"
#include "telemetry/log.h"
#include "telemetry/log_file.h"

#include <stdio.h>

enum cv_exit {
    CV_EXIT_OK = 0,
    CV_EXIT_FAILED = 1,
    CV_EXIT_USAGE = 2,
    CV_EXIT_AUTH = 3,
    CV_EXIT_NETWORK = 4,
};

/* X(name): cv_cli_<name>_command and cv_cli_<name>, in the order of `culvert --help`. */
/* clang-format off */
#define CV_CLI_COMMANDS(X) \
    X(server) X(up) X(agent) X(http) X(tcp) X(forward) X(stdio) X(diagnose) X(status) X(top) X(reconnect) X(token) X(audit) \
    X(demo) X(config) X(version)
/* clang-format on */

#define CV_CLI_DECLARE(name)                                                                       \
    extern const struct cv_command cv_cli_##name##_command;                                        \
    int cv_cli_##name(int argc, const char *const *argv);
CV_CLI_COMMANDS(CV_CLI_DECLARE)
#undef CV_CLI_DECLARE

/* Parses; when the command is not to run (help was asked for, or the usage is wrong) says so on
 * stdout or stderr and returns false with *exit_code. `values` and `parsed` as in cv_command_parse.
 */
bool cv_cli_parse(const struct cv_command *command, int argc, const char *const *argv, void *values,
                  struct cv_parsed *parsed, int *exit_code);

/* The exit code for a failure: by its category. */
int cv_cli_exit_code(enum cv_status_id id);

/* "culvert: <detail, else the status's text>. <suggestion>" on stderr. */
void cv_cli_complain(enum cv_status_id id, const struct cv_error *error);

/* Prints the problems of a configuration on stderr, a line each; that there was no memory where
 * they could not be noted. */
void cv_cli_print_problems(const struct cv_problems *problems);

/* True when a problem is about a flag of this command line, so that the usage was wrong. */
bool cv_cli_is_usage(const struct cv_problems *problems);

/* Writes all of `text`; whether that went well is seen by cv_cli_end_output. */
void cv_cli_print(const struct cv_buf *text, FILE *to);

/* The end of a command whose result is what it printed on stdout: `exit_code`, or CV_EXIT_FAILED
 * with a complaint on stderr when not all of it could be written (a full disk, a closed pipe). */
int cv_cli_end_output(int exit_code);

/* What log.file and its like say. */
struct cv_cli_log_file {
    const char *path; /* NULL: stderr */
    uint64_t max_bytes;
    unsigned keep;
};

/* A log from the settings log.level and log.format, on stderr, or in `options->path`; `options`
 * may be NULL, `file` is the caller's room for as long as the log lives, closed by
 * cv_log_file_close. CV_CONFIG, CV_IO, CV_NO_RESOURCES. */
struct cv_status cv_cli_open_log(struct cv_log *log, const char *level, const char *format,
                                 const struct cv_cli_log_file *options, struct cv_log_file *file,
                                 struct cv_error *error);

#endif
