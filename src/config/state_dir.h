/* SPDX-License-Identifier: MIT
 *
 * Where culvert keeps its state: keys, known hosts, sockets. Many processes share the folder, so
 * nothing here locks; whoever creates a file in it does so exclusively (O_EXCL).
 * Owns nothing; any thread that nobody changes the environment under.
 */
#ifndef CV_CONFIG_STATE_DIR_H
#define CV_CONFIG_STATE_DIR_H

#include "base/status.h"

/* Fills `out` with the folder's absolute path and creates it, parents included, for its owner alone
 * (0700). `configured` is the setting state_dir (which CULVERT_STATE_DIR has filled) and may be
 * NULL or relative; then $XDG_STATE_HOME/culvert, where that is absolute as the XDG Base Directory
 * specification wants it, else ~/.local/state/culvert.
 * CV_CONFIG when no home is known or the path is longer than `cap`; CV_IO when it cannot be made,
 * is not a folder, belongs to another user, or others may write to it. `out` then holds the path as
 * far as it is known. */
struct cv_status cv_state_dir_open(const char *configured, char *out, size_t cap,
                                   struct cv_error *error);

/* Writes `<dir>/<name>` to `out`. CV_CONFIG when it does not fit. */
struct cv_status cv_state_dir_path(const char *dir, const char *name, char *out, size_t cap,
                                   struct cv_error *error);

#endif
