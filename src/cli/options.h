/* SPDX-License-Identifier: MIT
 *
 * Command lines as tables: a command is a name, what it does, its options, its examples; parsing,
 * --help and the text of mistakes come from that. GNU conventions: options and operands may mix,
 * `--` ends options, `--name value`, `--name=value`, `-n value`, `-nvalue`, `-abc`.
 * There is no way to hand over a secret: other users can read command lines (see
 * cv_command_check).
 * Owns nothing but the lists of a parse; strings point into argv. One thread.
 */
#ifndef CV_CLI_OPTIONS_H
#define CV_CLI_OPTIONS_H

#include "base/buf.h"
#include "base/status.h"
#include "config/settings.h"

#define CV_OPTION_LIST_MAX 64 /* values of one option, overrides, operands */

enum cv_option_kind {
    CV_OPTION_FLAG,    /* bool: set true */
    CV_OPTION_TEXT,    /* const char *: the last one given */
    CV_OPTION_LIST,    /* struct cv_option_list: every one given */
    CV_OPTION_SETTING, /* an override of the setting `setting`, value as in the environment */
    CV_OPTION_HELP,    /* --help */
};

struct cv_option_list {
    const char *items[CV_OPTION_LIST_MAX];
    size_t count;
};

struct cv_option {
    const char *name; /* long name without the dashes */
    char letter;      /* short name, 0 for none */
    enum cv_option_kind kind;
    const char *argument; /* "HOST:PORT", as help shows it; NULL for flags */
    const char *help;     /* a sentence */
    size_t offset;        /* of the field in the command's values */
    const char *setting;  /* key, for CV_OPTION_SETTING */
};

#define CV_OPT_FLAG(type, field, name, letter, help)                                               \
    {                                                                                              \
        (name), (letter), CV_OPTION_FLAG, NULL, (help), offsetof(type, field), NULL                \
    }
#define CV_OPT_TEXT(type, field, name, letter, argument, help)                                     \
    {                                                                                              \
        (name), (letter), CV_OPTION_TEXT, (argument), (help), offsetof(type, field), NULL          \
    }
#define CV_OPT_LIST(type, field, name, letter, argument, help)                                     \
    {                                                                                              \
        (name), (letter), CV_OPTION_LIST, (argument), (help), offsetof(type, field), NULL          \
    }
#define CV_OPT_SETTING(key, name, letter, argument, help)                                          \
    {                                                                                              \
        (name), (letter), CV_OPTION_SETTING, (argument), (help), 0, (key)                          \
    }
#define CV_OPT_HELP                                                                                \
    {                                                                                              \
        "help", 'h', CV_OPTION_HELP, NULL, "Show this text.", 0, NULL                              \
    }

struct cv_command {
    const char *name;     /* "http" */
    const char *operands; /* "PORT|HOST:PORT|URL"; "" for none */
    unsigned operand_min;
    unsigned operand_max;
    const char *summary;     /* one line, for the list of commands */
    const char *description; /* what it does, a few lines ending in \n */
    const char *examples;    /* lines ending in \n, each begins with two spaces; NULL for none */
    const struct cv_option *options;
    size_t option_count;
};

/* What a command line says besides the values it filled. */
struct cv_parsed {
    struct cv_override overrides[CV_OPTION_LIST_MAX];
    size_t override_count;
    char wheres[CV_OPTION_LIST_MAX][40]; /* what overrides[].where points to: "--workers" */
    const char *operands[CV_OPTION_LIST_MAX];
    size_t operand_count;
    bool wants_help;
};

/* Reads argv[0..argc) (without the program's and the command's name) into `values`, a struct of the
 * caller's that is already set to its defaults, and `parsed`. CV_USAGE with a sentence in *error
 * that names what is wrong and the nearest option there is; it never repeats a value. After
 * --help nothing else is checked. */
struct cv_status cv_command_parse(const struct cv_command *command, int argc,
                                  const char *const *argv, void *values, struct cv_parsed *parsed,
                                  struct cv_error *error);

/* Appends the text of --help. CV_NO_RESOURCES when `out` is full. */
struct cv_status cv_command_help(const struct cv_command *command, const char *program,
                                 struct cv_buf *out);

/* The command of a name among `count`, NULL when there is none. */
const struct cv_command *cv_command_find(const struct cv_command *const *commands, size_t count,
                                         const char *name);
/* The name that was probably meant, NULL when nothing is near. */
const char *cv_command_suggest(const struct cv_command *const *commands, size_t count,
                               const char *name);

/* Whether a table is sound: unique names and letters, help and argument where they belong, no
 * option that takes a secret, settings exist in one of the `schema_count` schemas. For tests.
 * CV_INVALID with the reason. */
struct cv_status cv_command_check(const struct cv_command *command,
                                  const struct cv_schema *const *schemas, size_t schema_count,
                                  struct cv_error *error);

#endif
