/* SPDX-License-Identifier: MIT */
#include "cli/cli.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

bool cv_cli_parse(const struct cv_command *command, int argc, const char *const *argv, void *values,
                  struct cv_parsed *parsed, int *exit_code)
{
    struct cv_error error = {0};
    struct cv_status status = cv_command_parse(command, argc, argv, values, parsed, &error);
    if (!cv_is_ok(status)) {
        (void)fprintf(stderr, "culvert %s: %s\nTry `culvert %s --help`.\n", command->name,
                      error.detail, command->name);
        *exit_code = CV_EXIT_USAGE;
        return false;
    }
    if (!parsed->wants_help)
        return true;
    struct cv_buf text;
    cv_buf_init(&text, 65536);
    status = cv_command_help(command, "culvert", &text);
    cv_cli_print(&text, stdout);
    cv_buf_done(&text);
    *exit_code = cv_cli_end_output(cv_is_ok(status) ? CV_EXIT_OK : CV_EXIT_FAILED);
    return false;
}

int cv_cli_exit_code(enum cv_status_id id)
{
    if (id == CV_OK)
        return CV_EXIT_OK;
    if (id == CV_USAGE)
        return CV_EXIT_USAGE;
    switch (cv_status_category(id)) {
    case CV_CATEGORY_AUTHENTICATION:
        return CV_EXIT_AUTH;
    case CV_CATEGORY_NETWORK:
        return CV_EXIT_NETWORK;
    default:
        return CV_EXIT_FAILED;
    }
}

/* What the tables suggest is for callers over HTTP and for files; here it may be neither. */
static const char *suggest(enum cv_status_id id, const struct cv_error *error)
{
    if (id == CV_AUTH_MISSING)
        return "`culvert token --help` tells how to make one, if the relay is yours.";
    if (error && error->sys_errno == EADDRINUSE)
        return "Another program listens there; `ss -ltnp` shows which. Stop it or take another "
               "port.";
    return cv_status_suggestion(id);
}

void cv_cli_complain(enum cv_status_id id, const struct cv_error *error)
{
    const char *detail = error && error->detail[0] ? error->detail : cv_status_text(id);
    const char *code = cv_status_code(id);
    const char *suggestion = suggest(id, error);
    (void)fprintf(stderr, "culvert: %s%s%s%s\n%s%s", detail, code[0] ? " (" : "", code,
                  code[0] ? ")" : "", suggestion, suggestion[0] ? "\n" : "");
}

void cv_cli_print_problems(const struct cv_problems *problems)
{
    struct cv_buf text;
    cv_buf_init(&text, 1024 * 1024);
    struct cv_status status = cv_problems_print(problems, &text);
    cv_cli_print(&text, stderr);
    if (!cv_is_ok(status) || cv_buf_len(&text) == 0)
        cv_cli_complain(CV_NO_MEMORY, NULL);
    cv_buf_done(&text);
}

bool cv_cli_is_usage(const struct cv_problems *problems)
{
    for (size_t i = 0; i < problems->count; i++)
        if (strncmp(problems->items[i].where, "--", 2) == 0)
            return true;
    return false;
}

void cv_cli_print(const struct cv_buf *text, FILE *to)
{
    if (cv_buf_len(text))
        (void)fwrite(cv_buf_head(text), 1, cv_buf_len(text), to);
}

int cv_cli_end_output(int exit_code)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return exit_code;
    struct cv_error error;
    (void)cv_fail_errno(&error, CV_IO, errno, "cannot write to stdout");
    cv_cli_complain(CV_IO, &error);
    return CV_EXIT_FAILED;
}

struct cv_status cv_cli_open_log(struct cv_log *log, const char *level, const char *format,
                                 const struct cv_cli_log_file *where, struct cv_log_file *file,
                                 struct cv_error *error)
{
    if (file)
        file->fd = -1;
    struct cv_log_options options = {.fd = STDERR_FILENO, .version = CV_VERSION};
    if (!cv_log_level_parse(level, &options.level))
        options.level = CV_LOG_INFO;
    if (!cv_log_format_parse(format, &options.format))
        options.format = CV_LOG_FORMAT_AUTO;
    if (where && where->path) {
        CV_RETURN_IF_ERROR(
            cv_log_file_open(file, where->path, where->max_bytes, where->keep, error));
        options.file = file;
    }
    struct cv_status status = cv_log_init(log, &options);
    if (!cv_is_ok(status) && options.file)
        cv_log_file_close(file);
    return status;
}
