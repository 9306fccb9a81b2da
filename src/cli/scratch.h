/* SPDX-License-Identifier: MIT
 *
 * A state folder for as long as a command runs: private, in $TMPDIR or /tmp, gone afterwards.
 * Owns nothing; main thread.
 */
#ifndef CV_CLI_SCRATCH_H
#define CV_CLI_SCRATCH_H

#include "base/status.h"

/* Makes a folder "<prefix>-XXXXXX" of mode 0700 and writes its path to `out`. CV_IO; CV_CONFIG when
 * the path does not fit. */
struct cv_status cv_scratch_make(const char *prefix, char *out, size_t cap, struct cv_error *error);

/* Removes the folder with the files and empty folders in it, as far as that works. */
void cv_scratch_remove(const char *path);

#endif
