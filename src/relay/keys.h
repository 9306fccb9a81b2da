/* SPDX-License-Identifier: MIT
 *
 * Fetching the issuer's keys (auth.jwks_url) when they are due or a token names an unknown one. The
 * key source decides when; this module only does it. Any worker may fetch; one at a time, which the
 * key source sees to.
 */
#ifndef CV_RELAY_KEYS_H
#define CV_RELAY_KEYS_H

struct cv_relay_worker;

/* The key source has given the caller the fetch (cv_keysource_is_due, CV_KEYSOURCE_FETCH): does it
 * and reports the outcome to the source. */
void cv_relay_fetch_keys(struct cv_relay_worker *worker);

#endif
