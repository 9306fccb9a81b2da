/* SPDX-License-Identifier: MIT
 *
 * The links of users in the registry: found by their ids to be resumed, and what they may grow by.
 */
/* The default hash falls through its cases, which clang's -Wimplicit-fallthrough refuses. */
#define HASH_FUNCTION(key, len, hash) HASH_OAT(key, len, hash)
#include <uthash.h>

#include "relay/registry_private.h"
#include "relay/session.h"

#include <stdlib.h>
#include <utlist.h>

struct user *registry_find_user(const struct cv_registry *registry, const struct cv_user_key *key)
{
    struct user *user;
    HASH_FIND(hh, registry->users, key, sizeof *key, user);
    return user;
}

void registry_link_free(struct cv_registry *registry, struct link_entry *link)
{
    struct user *user = registry_find_user(registry, cv_session_user_key(link->session));
    if (user)
        DL_DELETE(user->link_entries, link);
    HASH_DEL(registry->links, link);
    cv_session_unref(&link->session);
    free(link);
}

struct cv_ration *cv_registry_ration(struct cv_registry *registry, const struct cv_user_key *key,
                                     size_t max, struct cv_ration *above)
{
    (void)pthread_rwlock_wrlock(&registry->lock);
    struct user *user = registry_find_user(registry, key);
    if (user && !user->ration)
        user->ration = cv_ration_new(max, above);
    struct cv_ration *ration = cv_ration_ref(user ? user->ration : NULL);
    (void)pthread_rwlock_unlock(&registry->lock);
    return ration;
}

struct cv_status cv_registry_add_link(struct cv_registry *registry, struct cv_session *session)
{
    struct link_entry *link = calloc(1, sizeof *link);
    if (!link)
        return cv_status(CV_NO_MEMORY);
    memcpy(link->id, cv_session_link_id(session), sizeof link->id);
    link->session = cv_session_ref(session);
    (void)pthread_rwlock_wrlock(&registry->lock);
    struct user *user = registry_find_user(registry, cv_session_user_key(session));
    if (user)
        DL_APPEND(user->link_entries, link);
    HASH_ADD(hh, registry->links, id, sizeof link->id, link);
    (void)pthread_rwlock_unlock(&registry->lock);
    return cv_ok();
}

static struct link_entry *find_link(const struct cv_registry *registry, const uint8_t *id)
{
    struct link_entry *link;
    HASH_FIND(hh, registry->links, id, CV_SESSION_LINK_ID_LEN, link);
    return link;
}

bool cv_registry_has_link(struct cv_registry *registry, const uint8_t *link_id)
{
    (void)pthread_rwlock_rdlock(&registry->lock);
    bool has = find_link(registry, link_id) != NULL;
    (void)pthread_rwlock_unlock(&registry->lock);
    return has;
}

void cv_registry_remove_link(struct cv_registry *registry, const struct cv_session *session)
{
    (void)pthread_rwlock_wrlock(&registry->lock);
    struct link_entry *link = find_link(registry, cv_session_link_id(session));
    if (link && link->session == session)
        registry_link_free(registry, link);
    (void)pthread_rwlock_unlock(&registry->lock);
}

struct cv_session *cv_registry_find_link(struct cv_registry *registry,
                                         const struct cv_user_key *user, const uint8_t *link_id)
{
    struct cv_session *session = NULL;
    (void)pthread_rwlock_rdlock(&registry->lock);
    struct link_entry *link = find_link(registry, link_id);
    if (link && (!user || memcmp(cv_session_user_key(link->session), user, sizeof *user) == 0))
        session = cv_session_ref(link->session);
    (void)pthread_rwlock_unlock(&registry->lock);
    return session;
}

struct cv_session *cv_registry_longest_detached(struct cv_registry *registry,
                                                const struct cv_user_key *key)
{
    struct cv_session *found = NULL;
    uint64_t since_ms = UINT64_MAX;
    (void)pthread_rwlock_rdlock(&registry->lock);
    const struct user *user = registry_find_user(registry, key);
    for (struct link_entry *l = user ? user->link_entries : NULL; l; l = l->next) {
        uint64_t since = cv_session_detached_since_ms(l->session);
        if (since && since < since_ms) {
            since_ms = since;
            found = l->session;
        }
    }
    if (found)
        (void)cv_session_ref(found);
    (void)pthread_rwlock_unlock(&registry->lock);
    return found;
}
