/* SPDX-License-Identifier: MIT
 *
 * What clang's analyzer cannot see from one file: cv_fail gives back the status that it is told.
 * Included before every file by tools/lint and by nothing else.
 */
#ifndef CV_TOOLS_ANALYZER_H
#define CV_TOOLS_ANALYZER_H

#include "base/status.h"

void cv_analyzer_uses(const void *first, ...);

#define cv_fail(error, id, ...) (cv_analyzer_uses(error, __VA_ARGS__), cv_status(id))
#define cv_fail_errno(error, id, ...) (cv_analyzer_uses(error, __VA_ARGS__), cv_status(id))

#endif
