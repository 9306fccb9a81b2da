/* SPDX-License-Identifier: MIT
 *
 * Moments as people write them: "now", "-5m" and "now-5m" (that long ago), or RFC 3339 with `Z` or
 * an offset. And as programs do: RFC 3339 in UTC. Strict, without locale. Owns nothing; any thread.
 */
#ifndef CV_CONFIG_MOMENT_H
#define CV_CONFIG_MOMENT_H

#include "base/slice.h"

enum { CV_MOMENT_SIZE = 21 }; /* "2026-11-23T01:00:00Z" and a NUL */

/* Unix seconds between the years 1970 and 9999; a fraction of a second is cut off. Durations are
 * those of cv_value_duration, with a unit. A leap second (":60", RFC 3339 §5.7) counts as the
 * second before it. False leaves *at_s untouched. */
bool cv_moment_parse(struct cv_slice text, int64_t now_s, int64_t *at_s);

/* Out of that range it writes its nearer end. */
const char *cv_moment_print(int64_t at_s, char out[CV_MOMENT_SIZE]);

#endif
