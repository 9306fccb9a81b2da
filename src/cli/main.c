/* SPDX-License-Identifier: MIT
 *
 * culvert: finds the subcommand and runs it.
 */
#include "base/json.h"
#include "cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

struct entry {
    const struct cv_command *command;
    int (*run)(int argc, const char *const *argv);
};

#define ENTRY(name) {&cv_cli_##name##_command, cv_cli_##name},
static const struct entry entries[] = {CV_CLI_COMMANDS(ENTRY)};
#undef ENTRY

enum { ENTRY_COUNT = sizeof entries / sizeof entries[0] };

static const struct entry *find(const char *name)
{
    for (size_t i = 0; i < ENTRY_COUNT; i++)
        if (strcmp(entries[i].command->name, name) == 0)
            return &entries[i];
    return NULL;
}

static void print_help(FILE *to)
{
    (void)fprintf(
        to,
        "Usage: culvert COMMAND [OPTION]...\n"
        "Reach a service on a machine that accepts no connections, through a relay of yours.\n\n"
        "Commands:\n");
    for (size_t i = 0; i < ENTRY_COUNT; i++)
        (void)fprintf(to, "  %-9s  %s\n", entries[i].command->name, entries[i].command->summary);
    (void)fprintf(to, "\n`culvert COMMAND --help` explains a command, with examples. To see it all "
                      "at work: `culvert demo`.\n");
}

static int complain_unknown(const char *name)
{
    const struct cv_command *commands[ENTRY_COUNT];
    for (size_t i = 0; i < ENTRY_COUNT; i++)
        commands[i] = entries[i].command;
    const char *near = cv_command_suggest(commands, ENTRY_COUNT, name);
    (void)fprintf(stderr, "culvert: there is no command `%s`%s%s%s\nTry `culvert --help`.\n", name,
                  near ? "; did you mean `" : "", near ? near : "", near ? "`?" : "");
    return CV_EXIT_USAGE;
}

/* A caller may have closed 0, 1 or 2. The first sockets would take their places, and the log would
 * be written into one of them. */
static bool fill_standard_descriptors(void)
{
    for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF && open("/dev/null", O_RDWR) != fd)
            return false;
    return true;
}

#if defined(__has_feature)
#define CV_HAS_FEATURE(name) __has_feature(name)
#else
#define CV_HAS_FEATURE(name) 0
#endif

/* Memory holds keys and tokens: no core file, and no other process of this user may attach or read
 * /proc/PID/mem (prctl(2), PR_SET_DUMPABLE; docs/decisions/core-dumps.md). CULVERT_DUMPABLE=1 is
 * for those who debug. The leak sanitizer attaches to its own process, which takes root otherwise.
 */
static void hide_memory(void)
{
#if !defined(__SANITIZE_ADDRESS__) && !CV_HAS_FEATURE(address_sanitizer)
    const char *choice = getenv("CULVERT_DUMPABLE");
    if (!choice || strcmp(choice, "1") != 0)
        (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
#endif
}

int main(int argc, char **argv)
{
    const char *const *words = (const char *const *)argv;
    if (!fill_standard_descriptors())
        return CV_EXIT_FAILED;
    hide_memory();
    cv_json_init();
    /* A file at its size limit (RLIMIT_FSIZE) is a write that fails, like a full disk. */
    (void)signal(SIGXFSZ, SIG_IGN);
    if (argc < 2) {
        print_help(stderr);
        return CV_EXIT_USAGE;
    }
    const char *name = words[1];
    static const char *const ask[] = {"--help"};
    bool is_help = strcmp(name, "help") == 0;
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || (is_help && argc == 2)) {
        print_help(stdout);
        return cv_cli_end_output(CV_EXIT_OK);
    }
    if (is_help) {
        const struct entry *entry = find(words[2]);
        return entry ? entry->run(1, ask) : complain_unknown(words[2]);
    }
    if (strcmp(name, "--version") == 0)
        name = "version";
    const struct entry *entry = find(name);
    return entry ? entry->run(argc - 2, words + 2) : complain_unknown(name);
}
