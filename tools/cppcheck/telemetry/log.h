/* SPDX-License-Identifier: MIT
 *
 * Stands in for src/telemetry/log.h when cppcheck reads the tree: it does not know __VA_OPT__.
 */
#ifndef CV_TELEMETRY_LOG_H
#define CV_TELEMETRY_LOG_H

#include "base/slice.h"
#include "base/status.h"

struct cv_log;

#define cv_log(log, level, ...) cv_log_uses(log, __VA_ARGS__)
#define cv_log_limited(log, level, ...) cv_log_uses(log, __VA_ARGS__)
#define CV_F_STR(k, v) v
#define CV_F_SLICE(k, v) v
#define CV_F_INT(k, v) v
#define CV_F_UINT(k, v) v
#define CV_F_BOOL(k, v) v
#define CV_F_STATUS(v) v
#define CV_F_ERROR(v) v
#define CV_F_TRACE(v) v

void cv_log_uses(struct cv_log *log, ...);

#endif
