/* SPDX-License-Identifier: MIT
 *
 * The development issuer (`--dev`): a key in the state folder that relay and `culvert token --dev`
 * of the same user share. Many processes may start at once: the key is written under a name of its
 * own and linked into place, so the first one wins and all read the same. Mode 0600, folder 0700.
 * Blocking file I/O; used at start-up and by the command line only. Owns nothing.
 */
#ifndef CV_AUTH_DEV_H
#define CV_AUTH_DEV_H

#include "auth/jwt.h"
#include "auth/keysource.h"
#include "auth/sign.h"

#define CV_DEV_ISSUER "culvert-dev"
#define CV_DEV_AUDIENCE "culvert"
#define CV_DEV_KEY_FILE "dev-key.pem"

/* Loads <state_dir>/dev-key.pem, making folder and key where they are missing. CV_IO; CV_CONFIG
 * when the file is readable for others or no key. *out is NULL then. */
struct cv_status cv_dev_key_load(const char *state_dir, struct cv_signing_key **out,
                                 struct cv_error *error);

/* A key source with the public half, and the policy that goes with it (static strings only). */
struct cv_status cv_dev_keysource_new(const char *state_dir, struct cv_keysource **out,
                                      struct cv_error *error);
void cv_dev_policy_init(struct cv_auth_policy *policy);

/* Appends a token of the development issuer. `request`'s issuer and audience are filled in here. */
struct cv_status cv_dev_token(const char *state_dir, struct cv_token_request request,
                              struct cv_buf *out, struct cv_error *error);

#endif
