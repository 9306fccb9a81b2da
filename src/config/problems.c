/* SPDX-License-Identifier: MIT */
#include "config/settings.h"

#include <string.h>

void cv_problems_init(struct cv_problems *problems)
{
    *problems = (struct cv_problems){0};
}

static void free_problem(struct cv_problem *problem)
{
    free(problem->where);
    free(problem->key);
    free(problem->value);
    free(problem->text);
}

void cv_problems_done(struct cv_problems *problems)
{
    for (size_t i = 0; i < problems->count; i++)
        free_problem(&problems->items[i]);
    free(problems->items);
    *problems = (struct cv_problems){0};
}

/* Values come from files and the environment and end on terminals. */
static char *copy_shown(const char *text)
{
    char *copy = strdup(text ? text : "");
    for (char *c = copy; c && *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = '?';
    return copy;
}

void cv_problems_add(struct cv_problems *problems, const char *where, unsigned line,
                     const char *key, const char *value, const char *text)
{
    if (!problems->items)
        problems->items = calloc(CV_CONFIG_PROBLEMS_MAX, sizeof *problems->items);
    if (!problems->items || problems->count == CV_CONFIG_PROBLEMS_MAX) {
        problems->unlisted++;
        return;
    }
    struct cv_problem problem = {
        .where = copy_shown(where),
        .line = line,
        .key = copy_shown(key),
        .value = copy_shown(value),
        .text = copy_shown(text),
    };
    if (!problem.where || !problem.key || !problem.value || !problem.text) {
        free_problem(&problem);
        problems->unlisted++;
        return;
    }
    problems->items[problems->count++] = problem;
}

/* "--token-file" for token_file: naming both says nothing more. */
static bool is_named_by_flag(const struct cv_problem *p)
{
    const char *flag = p->where, *key = p->key;
    if (strncmp(flag, "--", 2) != 0 || p->text[0] == '[')
        return false;
    for (flag += 2; *flag && *key; flag++, key++)
        if (*flag != *key && !(*flag == '-' && (*key == '_' || *key == '.')))
            return false;
    return !*flag && !*key;
}

struct cv_status cv_problems_print(const struct cv_problems *problems, struct cv_buf *out)
{
    for (size_t i = 0; i < problems->count; i++) {
        const struct cv_problem *p = &problems->items[i];
        CV_RETURN_IF_ERROR(cv_buf_append_str(out, p->where));
        if (p->line)
            CV_RETURN_IF_ERROR(cv_buf_printf(out, ":%u", p->line));
        if (is_named_by_flag(p)) {
            CV_RETURN_IF_ERROR(cv_buf_printf(out, " %s\n", p->text));
            continue;
        }
        bool is_apart = p->key[0] && p->text[0] != '['; /* "tunnels" and "[1].target is …" */
        CV_RETURN_IF_ERROR(cv_buf_printf(out, ": %s%s%s\n", p->key, is_apart ? " " : "", p->text));
    }
    if (problems->unlisted)
        CV_RETURN_IF_ERROR(cv_buf_printf(out, "and %zu more\n", problems->unlisted));
    return cv_ok();
}
