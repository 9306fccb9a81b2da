/* SPDX-License-Identifier: MIT
 *
 * `culvert config check -c FILE` is not told whose file it is: found out from what it sets.
 * Any thread.
 */
#ifndef CV_CONFIG_CONFIG_KIND_H
#define CV_CONFIG_CONFIG_KIND_H

#include "config/settings.h"

/* The relay's or the agent's schema, whichever has fewer complaints about the file; the relay's
 * when both have as many (neither can read it, or it sets only what both know). Environment and
 * rules across settings are not looked at. */
const struct cv_schema *cv_config_kind(const char *path);

#endif
