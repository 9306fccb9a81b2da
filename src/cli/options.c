/* SPDX-License-Identifier: MIT */
#include "cli/options.h"

#include <ctype.h>

struct parse {
    const struct cv_command *command;
    void *values;
    struct cv_parsed *parsed;
    struct cv_error *error;
};

/* Names under which a secret would be asked for. Files that hold one are fine. */
static bool is_secret_name(struct cv_slice name)
{
    static const char *const words[] = {"token", "password", "secret", "jwt", "bearer", "api-key"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (cv_slice_is(name, words[i]))
            return true;
    return false;
}

/* How many edits make one word the other (insert, drop, change); words over 32 bytes are far. */
static unsigned distance(struct cv_slice a, struct cv_slice b)
{
    enum { MAX = 32 };
    unsigned row[MAX + 1];
    if (a.len > MAX || b.len > MAX)
        return MAX;
    for (size_t j = 0; j <= b.len; j++)
        row[j] = (unsigned)j;
    for (size_t i = 1; i <= a.len; i++) {
        unsigned diagonal = row[0];
        row[0] = (unsigned)i;
        for (size_t j = 1; j <= b.len; j++) {
            unsigned best = diagonal + (a.data[i - 1] != b.data[j - 1]);
            diagonal = row[j];
            best = row[j] + 1 < best ? row[j] + 1 : best;
            row[j] = row[j - 1] + 1 < best ? row[j - 1] + 1 : best;
        }
    }
    return row[b.len];
}

/* Near enough to be what was meant: begins alike, or one edit in three letters. */
static bool is_near(struct cv_slice given, const char *name, unsigned *best)
{
    struct cv_slice known = cv_slice_str(name);
    unsigned edits = distance(given, known);
    if (given.len >= 3 && given.len < known.len && memcmp(given.data, known.data, given.len) == 0)
        edits = 1;
    if (edits >= *best || edits * 3 > known.len)
        return false;
    *best = edits;
    return true;
}

static struct cv_status unknown_long(struct parse *p, struct cv_slice name)
{
    const char *nearest = NULL;
    unsigned best = UINT32_MAX;
    if (is_secret_name(name))
        return cv_fail(p->error, CV_USAGE,
                       "there is no --%.*s: other users can read command lines. Set CULVERT_TOKEN "
                       "or use --token-file",
                       (int)name.len, (const char *)name.data);
    for (size_t i = 0; i < p->command->option_count; i++)
        if (is_near(name, p->command->options[i].name, &best))
            nearest = p->command->options[i].name;
    /* Up to 40 bytes: it may be a value that was glued to the wrong place. */
    int shown = name.len < 40 ? (int)name.len : 40;
    for (int i = 0; i < shown; i++)
        if (!isalnum(name.data[i]) && name.data[i] != '-')
            shown = i;
    if (nearest)
        return cv_fail(p->error, CV_USAGE, "there is no option --%.*s; did you mean --%s?", shown,
                       (const char *)name.data, nearest);
    return cv_fail(p->error, CV_USAGE, "there is no option --%.*s", shown, (const char *)name.data);
}

static struct cv_status too_many(struct parse *p, const char *what)
{
    return cv_fail(p->error, CV_USAGE, "too many %s, at most %d", what, CV_OPTION_LIST_MAX);
}

/* `value` is NULL for flags. */
static struct cv_status take(struct parse *p, const struct cv_option *option, const char *value)
{
    void *field = (char *)p->values + option->offset;
    struct cv_parsed *parsed = p->parsed;
    switch (option->kind) {
    case CV_OPTION_FLAG:
        *(bool *)field = true;
        return cv_ok();
    case CV_OPTION_TEXT:
        *(const char **)field = value;
        return cv_ok();
    case CV_OPTION_LIST: {
        struct cv_option_list *list = field;
        if (list->count == CV_OPTION_LIST_MAX)
            return too_many(p, option->name);
        list->items[list->count++] = value;
        return cv_ok();
    }
    case CV_OPTION_SETTING: {
        size_t n = parsed->override_count;
        if (n == CV_OPTION_LIST_MAX)
            return too_many(p, "options");
        (void)snprintf(parsed->wheres[n], sizeof parsed->wheres[n], "--%s", option->name);
        parsed->overrides[n] = (struct cv_override){option->setting, value, parsed->wheres[n]};
        parsed->override_count++;
        return cv_ok();
    }
    case CV_OPTION_HELP:
        parsed->wants_help = true;
        return cv_ok();
    }
    return cv_ok();
}

/* --name, --name=value, --name value. Returns how many words it took in *taken. */
static struct cv_status parse_long(struct parse *p, const char *word, const char *next, int *taken)
{
    struct cv_slice value = cv_slice_str(word + 2);
    struct cv_slice name = cv_slice_split(&value, '=');
    const struct cv_option *option = NULL;
    for (size_t i = 0; i < p->command->option_count && !option; i++)
        if (cv_slice_is(name, p->command->options[i].name))
            option = &p->command->options[i];
    *taken = 1;
    if (!option)
        return unknown_long(p, name);
    if (!option->argument) {
        if (value.data)
            return cv_fail(p->error, CV_USAGE, "--%s takes no value", option->name);
        return take(p, option, NULL);
    }
    if (value.data)
        return take(p, option, (const char *)value.data);
    if (!next)
        return cv_fail(p->error, CV_USAGE, "--%s needs a value: --%s %s", option->name,
                       option->name, option->argument);
    *taken = 2;
    return take(p, option, next);
}

/* -a, -abc, -n value, -nvalue. */
static struct cv_status parse_short(struct parse *p, const char *word, const char *next, int *taken)
{
    *taken = 1;
    for (const char *letter = word + 1; *letter; letter++) {
        const struct cv_option *option = NULL;
        for (size_t i = 0; i < p->command->option_count && !option; i++)
            if (p->command->options[i].letter == *letter)
                option = &p->command->options[i];
        if (!option)
            return cv_fail(p->error, CV_USAGE, "there is no option -%c",
                           isprint((unsigned char)*letter) ? *letter : '?');
        if (option->argument && letter[1])
            return take(p, option, letter + 1);
        if (option->argument && !next)
            return cv_fail(p->error, CV_USAGE, "-%c needs a value: -%c %s", *letter, *letter,
                           option->argument);
        if (option->argument)
            *taken = 2;
        CV_RETURN_IF_ERROR(take(p, option, option->argument ? next : NULL));
    }
    return cv_ok();
}

static struct cv_status check_operands(struct parse *p)
{
    const struct cv_command *command = p->command;
    if (p->parsed->operand_count < command->operand_min)
        return cv_fail(p->error, CV_USAGE, "something is missing: culvert %s %s", command->name,
                       command->operands);
    if (p->parsed->operand_count > command->operand_max && command->operand_max == 0)
        return cv_fail(p->error, CV_USAGE, "culvert %s takes options only", command->name);
    if (p->parsed->operand_count > command->operand_max)
        return cv_fail(p->error, CV_USAGE, "there is one word too many: culvert %s %s",
                       command->name, command->operands);
    return cv_ok();
}

struct cv_status cv_command_parse(const struct cv_command *command, int argc,
                                  const char *const *argv, void *values, struct cv_parsed *parsed,
                                  struct cv_error *error)
{
    struct parse p = {command, values, parsed, error};
    bool is_rest = false; /* behind "--" */
    *parsed = (struct cv_parsed){0};
    for (int i = 0; i < argc && !parsed->wants_help;) {
        const char *word = argv[i];
        const char *next = i + 1 < argc ? argv[i + 1] : NULL;
        int taken = 1;
        if (!is_rest && strcmp(word, "--") == 0) {
            is_rest = true;
        } else if (!is_rest && word[0] == '-' && word[1] == '-') {
            CV_RETURN_IF_ERROR(parse_long(&p, word, next, &taken));
        } else if (!is_rest && word[0] == '-' && word[1]) {
            CV_RETURN_IF_ERROR(parse_short(&p, word, next, &taken));
        } else {
            if (parsed->operand_count == CV_OPTION_LIST_MAX)
                return too_many(&p, "words");
            parsed->operands[parsed->operand_count++] = word;
        }
        i += taken;
    }
    return parsed->wants_help ? cv_ok() : check_operands(&p);
}

#define HELP_INDENT 30
#define HELP_WIDTH 100

/* Words of `text` from column HELP_INDENT, `column` being where the line stands. */
static struct cv_status wrap(const char *text, size_t column, struct cv_buf *out)
{
    struct cv_slice rest = cv_slice_str(text);
    if (column + 2 > HELP_INDENT) {
        CV_RETURN_IF_ERROR(cv_buf_append_str(out, "\n"));
        column = 0;
    }
    CV_RETURN_IF_ERROR(cv_buf_printf(out, "%*s", (int)(HELP_INDENT - column), ""));
    column = HELP_INDENT;
    while (rest.data) {
        struct cv_slice word = cv_slice_split(&rest, ' ');
        if (column > HELP_INDENT && column + 1 + word.len > HELP_WIDTH) {
            CV_RETURN_IF_ERROR(cv_buf_printf(out, "\n%*s", HELP_INDENT, ""));
            column = HELP_INDENT;
        } else if (column > HELP_INDENT) {
            CV_RETURN_IF_ERROR(cv_buf_append_str(out, " "));
            column++;
        }
        CV_RETURN_IF_ERROR(cv_buf_append_slice(out, word));
        column += word.len;
    }
    return cv_buf_append_str(out, "\n");
}

static struct cv_status help_option(const struct cv_option *option, struct cv_buf *out)
{
    char left[96];
    char letter[8] = "    ";
    if (option->letter)
        (void)snprintf(letter, sizeof letter, "-%c, ", option->letter);
    int len = snprintf(left, sizeof left, "  %s--%s%s%s", letter, option->name,
                       option->argument ? " " : "", option->argument ? option->argument : "");
    CV_RETURN_IF_ERROR(cv_buf_append_str(out, left));
    return wrap(option->help, (size_t)len < sizeof left ? (size_t)len : sizeof left - 1, out);
}

struct cv_status cv_command_help(const struct cv_command *command, const char *program,
                                 struct cv_buf *out)
{
    CV_RETURN_IF_ERROR(cv_buf_printf(
        out, "Usage: %s %s%s%s%s\n\n%s\n", program, command->name, command->operands[0] ? " " : "",
        command->operands, command->option_count ? " [options]" : "", command->description));
    if (command->option_count)
        CV_RETURN_IF_ERROR(cv_buf_append_str(out, "Options:\n"));
    for (size_t i = 0; i < command->option_count; i++)
        CV_RETURN_IF_ERROR(help_option(&command->options[i], out));
    if (command->examples)
        CV_RETURN_IF_ERROR(cv_buf_printf(out, "\nExamples:\n%s", command->examples));
    return cv_ok();
}

const struct cv_command *cv_command_find(const struct cv_command *const *commands, size_t count,
                                         const char *name)
{
    for (size_t i = 0; i < count; i++)
        if (strcmp(commands[i]->name, name) == 0)
            return commands[i];
    return NULL;
}

const char *cv_command_suggest(const struct cv_command *const *commands, size_t count,
                               const char *name)
{
    const char *nearest = NULL;
    unsigned best = UINT32_MAX;
    for (size_t i = 0; i < count; i++)
        if (is_near(cv_slice_str(name), commands[i]->name, &best))
            nearest = commands[i]->name;
    return nearest;
}

/* "tunnels[0].name" → "name" among the records of "tunnels"; a name without bracket is itself. */
static bool is_setting(const struct cv_schema *schema, const char *key)
{
    const char *bracket = strchr(key, '[');
    const char *dot = bracket ? strstr(bracket, "].") : NULL;
    if (!bracket)
        return cv_settings_find(schema, key) != NULL;
    char list[64];
    if (!dot || !cv_slice_to_str(cv_slice(key, (size_t)(bracket - key)), list, sizeof list))
        return false;
    const struct cv_setting *records = cv_settings_find(schema, list);
    return records && records->record && cv_settings_find(records->record, dot + 2);
}

static struct cv_status check_option(const struct cv_command *command, size_t index,
                                     const struct cv_schema *const *schemas, size_t schema_count,
                                     struct cv_error *error)
{
    const struct cv_option *option = &command->options[index];
    bool wants_argument = option->kind != CV_OPTION_FLAG && option->kind != CV_OPTION_HELP;
    if (!option->help || !option->help[0])
        return cv_fail(error, CV_INVALID, "--%s has no help", option->name);
    if (wants_argument != (option->argument != NULL))
        return cv_fail(error, CV_INVALID, "--%s has a wrong argument", option->name);
    if (is_secret_name(cv_slice_str(option->name)))
        return cv_fail(error, CV_INVALID, "--%s takes a secret", option->name);
    for (size_t k = 0; k < index; k++) {
        const struct cv_option *other = &command->options[k];
        if (strcmp(option->name, other->name) == 0 ||
            (option->letter && option->letter == other->letter))
            return cv_fail(error, CV_INVALID, "--%s is there twice", option->name);
    }
    bool is_known = option->kind != CV_OPTION_SETTING;
    for (size_t k = 0; k < schema_count && !is_known; k++)
        is_known = is_setting(schemas[k], option->setting);
    if (!is_known)
        return cv_fail(error, CV_INVALID, "--%s sets %s, which is no setting", option->name,
                       option->setting);
    return cv_ok();
}

struct cv_status cv_command_check(const struct cv_command *command,
                                  const struct cv_schema *const *schemas, size_t schema_count,
                                  struct cv_error *error)
{
    if (!command->summary[0] || !command->description[0] ||
        command->operand_min > command->operand_max)
        return cv_fail(error, CV_INVALID, "%s lacks a text or confuses its operands",
                       command->name);
    for (size_t i = 0; i < command->option_count; i++)
        CV_RETURN_IF_ERROR(check_option(command, i, schemas, schema_count, error));
    return cv_ok();
}
