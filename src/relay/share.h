/* SPDX-License-Identifier: MIT
 *
 * Whom a tunnel's owner lets in beside itself: users by their subject, groups that tokens name, or
 * anybody. Nobody, unless the owner says so; and never more than the relay's `sharing` permits.
 *
 * A subject is one of the owner's own issuer: users are looked for under it, and whom another
 * issuer calls the same is somebody else. Part of a tunnel's description, immutable with it; owns
 * its list. Any thread.
 */
#ifndef CV_RELAY_SHARE_H
#define CV_RELAY_SHARE_H

#include "base/status.h"

#include <jansson.h>

struct cv_identity;
struct cv_relay_config;

enum { CV_SHARE_GUESTS_MAX = 64 };

/* What a relay permits; each includes the one before. */
enum cv_sharing { CV_SHARING_NONE, CV_SHARING_USERS, CV_SHARING_PUBLIC };
enum cv_sharing cv_sharing_of(const struct cv_relay_config *config);

/* Zero-initialised: nobody. */
struct cv_share {
    char *guests; /* "s" and a subject, "g" and a group, a NUL behind each */
    size_t guests_len;
    size_t guest_count;
    bool is_public;
};

/* Somebody who is not the owner, and asks. */
struct cv_guest {
    const struct cv_identity *identity;
    enum cv_sharing sharing; /* of the relay, now */
};

/* From the members `share`, a list of "SUBJECT", "sub:SUBJECT" and "group:NAME", and `public` of
 * `object`, each of which may be absent. CV_INVALID with a reason, CV_NO_MEMORY; *share is for
 * cv_share_done in every case. */
struct cv_status cv_share_parse(const json_t *object, struct cv_share *share,
                                struct cv_error *error);
void cv_share_done(struct cv_share *share);

/* As in the description: a list of texts, NULL without memory. */
json_t *cv_share_list(const struct cv_share *share);

bool cv_share_is_any(const struct cv_share *share); /* somebody is let in */
bool cv_share_is_same(const struct cv_share *a, const struct cv_share *b);

/* How much the relay must permit for it. */
enum cv_sharing cv_share_needs(const struct cv_share *share);

bool cv_share_admits(const struct cv_share *share, const struct cv_guest *guest);

#endif
