/* SPDX-License-Identifier: MIT
 *
 * Stands in for src/telemetry/audit.h when cppcheck reads the tree: it does not know __VA_OPT__.
 */
#ifndef CV_TELEMETRY_AUDIT_H
#define CV_TELEMETRY_AUDIT_H

#include "telemetry/log.h"

struct cv_audit;
struct cv_audit_queue;

#define cv_audit(queue, name, ...) cv_audit_uses(queue, ##__VA_ARGS__)

void cv_audit_uses(struct cv_audit_queue *queue, ...);

#endif
