/* SPDX-License-Identifier: MIT
 *
 * Changing a configuration file: `culvert config set`, `reset`, `profiles NAME` and `edit`. What is
 * not meant stays as it is, comments too; the new file is checked before it takes the place of the
 * old one; agents that run with it are told. Private to cli/; main thread.
 */
#ifndef CV_CLI_CONFIG_WRITE_H
#define CV_CLI_CONFIG_WRITE_H

#include <stddef.h>

struct cv_config_change {
    const char *key;
    const char *value; /* as in the environment: lists with commas; NULL: back to the default */
};

/* Each says what it did on stdout, what is wrong on stderr, and returns the exit code; a file that
 * is not changed is whole. A file that is not there is an agent's and made, with mode 0600. */
int cv_config_write(const char *path, const struct cv_config_change *changes, size_t count);
/* All settings that have a default get it. */
int cv_config_reset_all(const char *path);
/* The editor of the person, $VISUAL, $EDITOR or vi, on a copy. */
int cv_config_edit(const char *path);

#endif
