/* SPDX-License-Identifier: MIT */
#include "cli/cli.h"

#include <stdio.h>

struct values {
    bool is_json;
};

static const struct cv_option options[] = {
    CV_OPT_FLAG(struct values, is_json, "json", 0, "Print JSON."),
    CV_OPT_HELP,
};

const struct cv_command cv_cli_version_command = {
    .name = "version",
    .operands = "",
    .summary = "Say which version this is",
    .description = "Prints the version.\n",
    .examples = "  culvert version --json\n",
    .options = options,
    .option_count = sizeof options / sizeof options[0],
};

int cv_cli_version(int argc, const char *const *argv)
{
    struct values values = {0};
    struct cv_parsed parsed;
    int exit_code;
    if (!cv_cli_parse(&cv_cli_version_command, argc, argv, &values, &parsed, &exit_code))
        return exit_code;
    if (values.is_json)
        (void)printf("{\"name\":\"culvert\",\"version\":\"%s\"}\n", CV_VERSION);
    else
        (void)printf("culvert %s\n", CV_VERSION);
    return cv_cli_end_output(CV_EXIT_OK);
}
