/* SPDX-License-Identifier: MIT
 *
 * Settings of an agent that fit a kind of network, by name. Constants; any thread.
 */
#ifndef CV_CONFIG_PROFILES_H
#define CV_CONFIG_PROFILES_H

#include <stddef.h>

enum { CV_PROFILE_SETTINGS = 14 };

struct cv_profile_setting {
    const char *key, *value; /* as in a file */
};

struct cv_profile {
    const char *name;
    const char *summary; /* a sentence */
    struct cv_profile_setting settings[CV_PROFILE_SETTINGS];
};

const struct cv_profile *cv_profiles(size_t *count);

/* NULL for no such name. */
const struct cv_profile *cv_profile_find(const char *name);

#endif
