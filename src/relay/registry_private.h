/* SPDX-License-Identifier: MIT
 *
 * What registry.c (names and users) and registry_links.c (their links) share. Nobody else includes
 * this, and behind <uthash.h>.
 */
#ifndef CV_RELAY_REGISTRY_PRIVATE_H
#define CV_RELAY_REGISTRY_PRIVATE_H

#include "relay/registry.h"

#include <pthread.h>

/* One session that publishes a name. */
struct publisher {
    struct cv_session *session; /* a reference */
    uint32_t port;
};

/* A name of a user. Without publishers it is only remembered, with its spec where that is shared.
 */
struct entry {
    char name[CV_TUNNEL_NAME_MAX + 1];
    struct cv_tunnel_spec *spec;
    struct cv_gate *gate; /* a reference */
    struct publisher *publishers;
    size_t count;
    uint64_t gone_ms; /* since when there is no publisher */
    UT_hash_handle hh;
};

struct user {
    struct cv_user_key key;
    struct entry *entries;
    size_t links;                    /* whether or not they publish something */
    unsigned class;                  /* with links: what it is counted as */
    struct link_entry *link_entries; /* utlist DL: those that can be resumed */
    struct cv_ration *ration;        /* NULL: no link has asked for it */
    UT_hash_handle hh;
};

/* A link that may be resumed. */
struct link_entry {
    uint8_t id[CV_SESSION_LINK_ID_LEN];
    struct cv_session *session; /* a reference */
    struct link_entry *prev, *next;
    UT_hash_handle hh;
};

struct cv_registry {
    pthread_rwlock_t lock;
    struct user *users;
    struct link_entry *links;
    size_t published; /* names with a publisher */
    atomic_uint additions;
    const struct cv_recall *recall;
    int64_t recall_s;                     /* Unix time when the clock stood at 0 */
    size_t users_of[CV_REGISTRY_CLASSES]; /* with links */
};

/* All with the registry's lock held. */

/* NULL: nobody of this key has a link or a name. */
struct user *registry_find_user(const struct cv_registry *registry, const struct cv_user_key *key);
/* Takes the link out of its user and the registry, and drops its session. */
void registry_link_free(struct cv_registry *registry, struct link_entry *link);

#endif
