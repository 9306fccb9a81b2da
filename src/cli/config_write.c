/* SPDX-License-Identifier: MIT
 *
 * Happy path: open_file → each change in the text (config/yaml_edit.h) → check: what was meant and
 * nothing else, and every rule that holds at the start → save → tell those who run with it.
 * Ways it fails: a key or value that cannot be; a text that cannot be changed by a program; the
 * file breaks a rule that it did not break before; it cannot be written. The file is as it was.
 */
#include "cli/config_write.h"

#include "base/file.h"
#include "cli/agents.h"
#include "cli/cli.h"
#include "config/agent_config.h"
#include "config/config_kind.h"
#include "config/relay_config.h"
#include "config/yaml_edit.h"

#include <errno.h>
#include <limits.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FILE_MODE = 0600 };

/* Of either program. */
union values {
    struct cv_relay_config relay;
    struct cv_agent_config agent;
};

struct file {
    const char *name;    /* as it was given */
    char path[PATH_MAX]; /* where it really is */
    mode_t mode;
    const struct cv_schema *schema;
    struct cv_buf text, fresh; /* before and after */
    union values old, now;
};

/* ---- what is there ---- */

static void close_file(struct file *file)
{
    if (file->schema) {
        cv_settings_done(file->schema, &file->old);
        cv_settings_done(file->schema, &file->now);
    }
    cv_buf_wipe(&file->text);
    cv_buf_wipe(&file->fresh);
    free(file);
}

static struct cv_status find_file(struct file *file, struct cv_error *error)
{
    struct stat st;
    if (!realpath(file->name, file->path)) {
        if (errno != ENOENT)
            return cv_fail_errno(error, CV_IO, errno, "%.180s", file->name);
        if (!cv_slice_to_str(cv_slice_str(file->name), file->path, sizeof file->path))
            return cv_fail(error, CV_IO, "the path is too long");
        file->mode = FILE_MODE;
        return cv_ok();
    }
    if (stat(file->path, &st) != 0)
        return cv_fail_errno(error, CV_IO, errno, "%.180s", file->name);
    file->mode = st.st_mode & 07777;
    return cv_file_read(file->path, CV_FILE_ANY, &file->text, error);
}

static struct cv_status load_text(const struct file *file, const struct cv_buf *text,
                                  union values *values)
{
    struct cv_problems problems;
    cv_problems_init(&problems);
    struct cv_status status =
        cv_settings_load_text(file->schema, values, cv_buf_slice(text), file->name, &problems);
    if (!cv_is_ok(status))
        cv_cli_print_problems(&problems);
    cv_problems_done(&problems);
    return status;
}

/* NULL: it said why. */
static struct file *open_file(const char *path)
{
    struct cv_error error = {0};
    struct file *file = calloc(1, sizeof *file);
    if (!file) {
        cv_cli_complain(CV_NO_MEMORY, NULL);
        return NULL;
    }
    file->name = path;
    cv_buf_init(&file->text, CV_CONFIG_FILE_MAX);
    cv_buf_init(&file->fresh, CV_CONFIG_FILE_MAX);
    struct cv_status status = find_file(file, &error);
    if (!cv_is_ok(status)) {
        cv_cli_complain(status.id, &error);
        close_file(file);
        return NULL;
    }
    file->schema = cv_buf_len(&file->text) ? cv_config_kind(file->path) : &cv_agent_schema;
    if (!cv_is_ok(load_text(file, &file->text, &file->old))) {
        close_file(file);
        return NULL;
    }
    return file;
}

/* ---- every rule that holds at the start ---- */

static size_t count_faults(const struct file *file, const char *path, bool is_telling)
{
    struct cv_relay_config *relay = NULL;
    struct cv_agent_config *agent = NULL;
    struct cv_config_sources sources = {.path = path, .env = (const char *const *)environ};
    struct cv_problems problems;
    cv_problems_init(&problems);
    struct cv_status status = file->schema == &cv_agent_schema
                                  ? cv_agent_config_load(&sources, &agent, &problems)
                                  : cv_relay_config_load(&sources, &relay, &problems);
    size_t count = problems.count + problems.unlisted + (!cv_is_ok(status) && !problems.count);
    for (size_t i = 0; is_telling && i < problems.count; i++)
        (void)fprintf(stderr, "culvert: %s %s\n", problems.items[i].key, problems.items[i].text);
    cv_problems_done(&problems);
    cv_agent_config_free(&agent);
    cv_relay_config_free(&relay);
    return count;
}

/* A file that was not good before may stay so: it is being written. */
static bool keeps_rules(const struct file *file, const char *path)
{
    size_t before = cv_buf_len(&file->text) ? count_faults(file, file->path, false) : 0;
    return count_faults(file, path, false) <= before || count_faults(file, path, true) == 0;
}

/* ---- writing ---- */

/* Checked under another name, then put in the place of the old one at once. */
static struct cv_status save(const struct file *file, struct cv_error *error)
{
    char path[PATH_MAX];
    if ((size_t)snprintf(path, sizeof path, "%s.%ld.new", file->path, (long)getpid()) >=
        sizeof path)
        return cv_fail(error, CV_IO, "the path is too long");
    struct cv_slice text = cv_buf_slice(&file->fresh);
    CV_RETURN_IF_ERROR(cv_file_replace(path, text, FILE_MODE, error));
    bool is_good = keeps_rules(file, path);
    (void)unlink(path);
    if (!is_good)
        return cv_fail(error, CV_CONFIG, "%.180s is not changed", file->name);
    return cv_file_replace(file->path, text, file->mode, error);
}

/* ---- those who run with it ---- */

static bool is_changed(const struct file *file, size_t index)
{
    return !cv_settings_is_same(file->schema, &file->old, &file->now, index);
}

/* {"command":"set"} with what can be changed in an agent that runs; NULL when that is nothing. */
static char *question_for(const struct file *file)
{
    json_t *settings = json_object();
    for (size_t i = 0; i < file->schema->count; i++) {
        const struct cv_setting *setting = &file->schema->settings[i];
        struct cv_buf value;
        if (!(setting->flags & CV_SETTING_TOLD) || !is_changed(file, i))
            continue;
        cv_buf_init(&value, CV_CONFIG_VALUE_MAX);
        if (cv_is_ok(cv_settings_show_value(setting, &file->now, &value)))
            (void)json_object_set_new(
                settings, setting->key,
                json_stringn((const char *)cv_buf_head(&value), cv_buf_len(&value)));
        cv_buf_done(&value);
    }
    bool is_empty = json_object_size(settings) == 0;
    json_t *question = json_pack("{s:s, s:o}", "command", "set", "settings", settings);
    char *text = is_empty || !question ? NULL : cv_json_text(question);
    json_decref(question);
    return text;
}

static void say_outcome(const struct cv_found_agent *agent, const json_t *outcome)
{
    const char *key;
    json_t *value;
    json_object_foreach(json_object_get(outcome, "settings"), key, value)
    {
        const char *word = json_string_value(value);
        bool is_now = word && strcmp(word, "now") == 0;
        bool is_next = word && strcmp(word, "next_link") == 0;
        bool is_over = word && strcmp(word, "overridden") == 0;
        (void)printf("agent %ld  %s: %s\n", agent->pid, key,
                     is_now    ? "in force"
                     : is_next ? "in force for the next link"
                     : is_over ? "stays, a flag or the environment sets it"
                               : "takes a restart");
    }
}

static void tell(const struct file *file, const struct cv_found_agent *agent, const char *question)
{
    struct cv_error error = {0};
    json_t *answer = NULL;
    const char *config = json_string_value(json_object_get(agent->status, "config"));
    if (!config || strcmp(config, file->path) != 0)
        return;
    if (question && cv_is_ok(cv_agents_ask(agent, question, &answer, &error)))
        say_outcome(agent, answer);
    else if (question)
        (void)printf("agent %ld  takes a restart: %s\n", agent->pid, error.detail);
    json_decref(answer);
    for (size_t i = 0; i < file->schema->count; i++)
        if (is_changed(file, i) && !(file->schema->settings[i].flags & CV_SETTING_TOLD))
            (void)printf("agent %ld  %s: takes a restart\n", agent->pid,
                         file->schema->settings[i].key);
}

static void tell_agents(const struct file *file)
{
    struct cv_agents agents;
    struct cv_error error = {0};
    if (file->schema != &cv_agent_schema || !cv_is_ok(cv_agents_find(NULL, &agents, &error)))
        return;
    char *question = question_for(file);
    for (size_t i = 0; i < agents.count; i++)
        tell(file, &agents.items[i], question);
    free(question);
    cv_agents_free(&agents);
}

/* ---- what is said ---- */

static void print_value(const struct cv_setting *setting, const union values *values)
{
    struct cv_buf text;
    cv_buf_init(&text, CV_CONFIG_VALUE_MAX * 4);
    if (setting->flags & CV_SETTING_SECRET)
        (void)printf("***");
    else if (cv_is_ok(cv_settings_show_value(setting, values, &text)) && cv_buf_len(&text))
        cv_cli_print(&text, stdout);
    else
        (void)printf("not set");
    cv_buf_done(&text);
}

static void say_changes(const struct file *file)
{
    unsigned count = 0;
    for (size_t i = 0; i < file->schema->count; i++) {
        const struct cv_setting *setting = &file->schema->settings[i];
        if (!is_changed(file, i))
            continue;
        count++;
        (void)printf("%s: %s", file->name, setting->key);
        if (setting->kind != CV_KIND_RECORDS) {
            (void)printf(" = ");
            print_value(setting, &file->now);
            (void)printf(" (was ");
            print_value(setting, &file->old);
            (void)printf(")");
        }
        (void)printf("\n");
    }
    if (!count)
        (void)printf("%s: nothing changes\n", file->name);
    else if (file->schema == &cv_relay_schema)
        (void)printf("A relay that runs takes up what can be changed with SIGHUP, the rest with a "
                     "restart.\n");
}

static int finish(struct file *file)
{
    struct cv_error error = {0};
    struct cv_status status = save(file, &error);
    if (cv_is_ok(status)) {
        say_changes(file);
        tell_agents(file);
    } else {
        cv_cli_complain(status.id, &error);
    }
    close_file(file);
    return cv_cli_end_output(cv_is_ok(status) ? CV_EXIT_OK : cv_cli_exit_code(status.id));
}

/* ---- changes ---- */

/* The settings as they shall be; says on stderr what is wrong. */
static bool make_wanted(const struct file *file, const struct cv_config_change *change,
                        union values *wanted)
{
    struct cv_problems problems;
    const struct cv_setting *setting = cv_settings_find(file->schema, change->key);
    if (!setting) {
        const char *near = cv_settings_nearest(file->schema, change->key);
        (void)fprintf(stderr, "culvert: %s is no setting of the %s%s%s%s\n", change->key,
                      file->schema->name, near ? "; did you mean " : "", near ? near : "",
                      near ? "?" : "");
        return false;
    }
    if (setting->kind == CV_KIND_RECORDS) {
        (void)fprintf(stderr, "culvert: %s is a list of records; `culvert config edit -c %s`\n",
                      change->key, file->name);
        return false;
    }
    struct cv_override override = {.key = change->key,
                                   .value = change->value ? change->value : setting->default_text,
                                   .where = "config"};
    cv_problems_init(&problems);
    struct cv_status status =
        cv_settings_patch(file->schema, &file->now, wanted, &override, 1, &problems);
    for (size_t i = 0; i < problems.count; i++)
        (void)fprintf(stderr, "culvert: %s %s\n", problems.items[i].key, problems.items[i].text);
    cv_problems_done(&problems);
    return cv_is_ok(status);
}

static bool is_same(const struct file *file, const union values *one, const union values *other)
{
    for (size_t i = 0; i < file->schema->count; i++)
        if (!cv_settings_is_same(file->schema, one, other, i))
            return false;
    return true;
}

static struct cv_status edit_text(const struct file *file, const struct cv_config_change *change,
                                  const union values *wanted, struct cv_buf *out,
                                  struct cv_error *error)
{
    struct cv_slice text = cv_buf_slice(&file->fresh);
    if (!change->value)
        return cv_yaml_edit_remove(text, change->key, out, error);
    struct cv_buf value;
    cv_buf_init(&value, CV_CONFIG_VALUE_MAX * 4);
    struct cv_status status =
        cv_settings_show_value(cv_settings_find(file->schema, change->key), wanted, &value);
    if (cv_is_ok(status) && cv_buf_len(&value) == 0)
        status = cv_yaml_edit_remove(text, change->key, out, error);
    else if (cv_is_ok(status))
        status = cv_yaml_edit_set(text, change->key, cv_buf_slice(&value), out, error);
    cv_buf_wipe(&value);
    return status;
}

static void replace_values(const struct file *file, union values *values, union values *with)
{
    cv_settings_done(file->schema, values);
    *values = *with;
    *with = (union values){0};
}

/* What was written says what is wanted, and nothing else has changed. */
static bool take(struct file *file, const struct cv_config_change *change, struct cv_buf *text,
                 const union values *wanted, struct cv_error *error)
{
    union values *written = calloc(1, sizeof *written);
    if (!written)
        return false;
    bool is_good = cv_is_ok(edit_text(file, change, wanted, text, error)) &&
                   cv_is_ok(load_text(file, text, written)) && is_same(file, wanted, written);
    if (is_good)
        replace_values(file, &file->now, written);
    cv_settings_done(file->schema, written);
    free(written);
    return is_good;
}

/* One change: `fresh` and `now` become what they are afterwards. */
static bool apply(struct file *file, const struct cv_config_change *change)
{
    union values *wanted = calloc(1, sizeof *wanted);
    struct cv_error error = {0};
    struct cv_buf text;
    cv_buf_init(&text, CV_CONFIG_FILE_MAX);
    bool is_meant = wanted && make_wanted(file, change, wanted);
    bool is_done = is_meant && take(file, change, &text, wanted, &error);
    if (is_meant && !is_done)
        (void)fprintf(stderr,
                      "culvert: %s cannot be changed by a program in this file%s%s; `culvert "
                      "config edit -c %s`\n",
                      change->key, error.detail[0] ? ": " : "", error.detail, file->name);
    if (is_done) {
        cv_buf_wipe(&file->fresh);
        file->fresh = text;
    } else {
        cv_buf_wipe(&text);
    }
    if (wanted)
        cv_settings_done(file->schema, wanted);
    free(wanted);
    return is_done;
}

static bool begin(struct file *file)
{
    return cv_is_ok(cv_buf_append_slice(&file->fresh, cv_buf_slice(&file->text))) &&
           cv_is_ok(load_text(file, &file->fresh, &file->now));
}

int cv_config_write(const char *path, const struct cv_config_change *changes, size_t count)
{
    struct file *file = open_file(path);
    bool is_good = file && begin(file);
    for (size_t i = 0; is_good && i < count; i++)
        is_good = apply(file, &changes[i]);
    if (is_good)
        return finish(file);
    if (file)
        close_file(file);
    return CV_EXIT_FAILED;
}

int cv_config_reset_all(const char *path)
{
    struct file *file = open_file(path);
    bool is_good = file && begin(file);
    for (size_t i = 0; is_good && i < file->schema->count; i++) {
        const struct cv_setting *setting = &file->schema->settings[i];
        bool is_there =
            cv_settings_origin(file->schema, &file->now, setting->key).kind == CV_ORIGIN_FILE;
        if (is_there && setting->default_text[0] && setting->kind != CV_KIND_RECORDS)
            is_good = apply(file, &(struct cv_config_change){.key = setting->key});
    }
    if (is_good)
        return finish(file);
    if (file)
        close_file(file);
    return CV_EXIT_FAILED;
}

/* ---- an editor ---- */

/* The person's choice may have arguments: `code --wait`. */
static struct cv_status run_editor(const char *path, struct cv_error *error)
{
    char name[] = "sh", option[] = "-c", script[] = "exec ${VISUAL:-${EDITOR:-vi}} \"$1\"";
    char *const argv[] = {name, option, script, name, (char *)(uintptr_t)path, NULL};
    pid_t pid;
    int state = 0;
    int failure = posix_spawn(&pid, "/bin/sh", NULL, NULL, argv, environ);
    if (failure)
        return cv_fail_errno(error, CV_IO, failure, "the editor cannot be started");
    while (waitpid(pid, &state, 0) < 0)
        if (errno != EINTR)
            return cv_fail_errno(error, CV_IO, errno, "the editor is lost");
    if (!WIFEXITED(state) || WEXITSTATUS(state) != 0)
        return cv_fail(error, CV_IO, "the editor has failed");
    return cv_ok();
}

static struct cv_status edit_copy(struct file *file, const char *path, struct cv_error *error)
{
    CV_RETURN_IF_ERROR(cv_file_replace(path, cv_buf_slice(&file->text), FILE_MODE, error));
    CV_RETURN_IF_ERROR(run_editor(path, error));
    CV_RETURN_IF_ERROR(cv_file_read(path, CV_FILE_ANY, &file->fresh, error));
    if (cv_is_ok(load_text(file, &file->fresh, &file->now)) && keeps_rules(file, path))
        return cv_ok();
    return cv_fail(error, CV_CONFIG, "%.100s is not changed; what you wrote is in %.120s",
                   file->name, path);
}

int cv_config_edit(const char *path)
{
    char copy[PATH_MAX];
    struct cv_error error = {0};
    struct file *file = open_file(path);
    if (!file)
        return CV_EXIT_FAILED;
    struct cv_status status = (size_t)snprintf(copy, sizeof copy, "%s.%ld.edit.yaml", file->path,
                                               (long)getpid()) < sizeof copy
                                  ? edit_copy(file, copy, &error)
                                  : cv_fail(&error, CV_IO, "the path is too long");
    if (status.id != CV_CONFIG)
        (void)unlink(copy);
    if (cv_is_ok(status))
        return finish(file);
    cv_cli_complain(status.id, &error);
    close_file(file);
    return cv_cli_exit_code(status.id);
}
