/* SPDX-License-Identifier: MIT
 *
 * Memory beyond what everybody has anyway: so much for one, out of so much for all. What is taken
 * from a ration is taken from the one above it as well, or not at all.
 *
 * Counted references; whoever holds one may take and give from any thread, without a lock. A ration
 * holds a reference to the one above.
 */
#ifndef CV_FLOW_RATION_H
#define CV_FLOW_RATION_H

#include <stdbool.h>
#include <stddef.h>

struct cv_ration;

/* Of at most `max` bytes; `above` may be NULL. NULL without memory. The reference is the caller's.
 */
struct cv_ration *cv_ration_new(size_t max, struct cv_ration *above);
struct cv_ration *cv_ration_ref(struct cv_ration *ration); /* takes NULL */
void cv_ration_unref(struct cv_ration **ration);           /* nulls, takes NULL */

/* False, and nothing taken, when there is not so much left here or above; NULL has nothing. */
bool cv_ration_take(struct cv_ration *ration, size_t len);
/* Gives back what was taken. */
void cv_ration_give(struct cv_ration *ration, size_t len);
size_t cv_ration_taken(const struct cv_ration *ration);

#endif
