/* SPDX-License-Identifier: MIT
 *
 * Small files as a whole: settings, keys, saved state. Everything is written to a new file first,
 * so that nobody ever reads half of one, and many processes may share a folder without locks.
 * Blocking: for start-up, reload and rare saving, not for the data path. Owns nothing. Any thread.
 */
#ifndef CV_BASE_FILE_H
#define CV_BASE_FILE_H

#include "base/buf.h"
#include "base/slice.h"
#include "base/status.h"

#include <sys/types.h>

enum cv_file_check {
    CV_FILE_ANY,
    CV_FILE_PRIVATE, /* for secrets: owned by this user or root, no right for group and others */
};

/* Appends the content of a regular file to `out`, whose cap is the limit.
 *   CV_NOT_FOUND   there is no such file.
 *   CV_CONFIG      `check` fails, or it is larger than the room in `out`, or not a regular file.
 *   CV_IO, CV_NO_MEMORY
 * `out` is unchanged then, but for memory that may hold parts of the content: wipe it for secrets.
 */
struct cv_status cv_file_read(const char *path, enum cv_file_check check, struct cv_buf *out,
                              struct cv_error *error);

/* Makes the file unless it is there: the whole content appears at once, under `mode` whatever the
 * umask, and of many processes exactly one gets *is_created. CV_OK in both cases; CV_IO. */
struct cv_status cv_file_create(const char *path, struct cv_slice content, mode_t mode,
                                bool *is_created, struct cv_error *error);

/* Puts the content in the place of whatever is at `path`, at once. CV_IO; the old file stays then.
 */
struct cv_status cv_file_replace(const char *path, struct cv_slice content, mode_t mode,
                                 struct cv_error *error);

/* Makes a folder and those above it that are missing, with mode 0700. CV_IO. */
struct cv_status cv_file_make_folder(const char *path, struct cv_error *error);

#endif
