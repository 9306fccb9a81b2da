/* SPDX-License-Identifier: MIT */
/* The default hash falls through its cases, which clang's -Wimplicit-fallthrough refuses. */
#define HASH_FUNCTION(key, len, hash) HASH_OAT(key, len, hash)
#include <uthash.h>

#include "relay/registry_private.h"

#include "relay/recall.h"
#include "relay/session.h"

#include <pthread.h>
#include <stdlib.h>

enum {
    REGISTRY_REMEMBER_MS = 24 * 3600 * 1000,
    REGISTRY_NAMES_PER_USER_MAX = 256,
    FULL_COST = 1 << 20,        /* more than any load */
    UNREACHABLE_COST = 1 << 24, /* more than that */
};

struct cv_status cv_registry_new(struct cv_registry **out)
{
    struct cv_registry *registry = calloc(1, sizeof *registry);
    *out = NULL;
    if (!registry)
        return cv_status(CV_NO_MEMORY);
    if (pthread_rwlock_init(&registry->lock, NULL) != 0) {
        free(registry);
        return cv_status(CV_NO_RESOURCES);
    }
    *out = registry;
    return cv_ok();
}

static void entry_free(struct user *user, struct entry *entry)
{
    HASH_DEL(user->entries, entry);
    for (size_t i = 0; i < entry->count; i++)
        cv_session_unref(&entry->publishers[i].session);
    cv_tunnel_spec_unref(&entry->spec);
    cv_gate_unref(&entry->gate);
    free(entry->publishers);
    free(entry);
}

static void user_free(struct cv_registry *registry, struct user *user)
{
    HASH_DEL(registry->users, user);
    cv_ration_unref(&user->ration);
    free(user);
}

void cv_registry_free(struct cv_registry **registry)
{
    if (!*registry)
        return;
    struct link_entry *link, *next_link;
    HASH_ITER(hh, (*registry)->links, link, next_link)
    registry_link_free(*registry, link);
    struct user *user, *next_user;
    HASH_ITER(hh, (*registry)->users, user, next_user)
    {
        struct entry *entry, *next_entry;
        HASH_ITER(hh, user->entries, entry, next_entry)
        entry_free(user, entry);
        user_free(*registry, user);
    }
    (void)pthread_rwlock_destroy(&(*registry)->lock);
    free(*registry);
    *registry = NULL;
}

static void user_free_unused(struct cv_registry *registry, struct user *user)
{
    if (!user->entries && !user->links)
        user_free(registry, user);
}

static struct entry *find_entry(const struct user *user, struct cv_slice name)
{
    struct entry *entry = NULL;
    if (user && name.len && name.len <= CV_TUNNEL_NAME_MAX)
        HASH_FIND(hh, user->entries, name.data, name.len, entry);
    return entry;
}

/* A link whose token has ended comes last, before it one that waits for a new socket. Otherwise the
 * publisher on the caller's own worker wins, since nothing has to move; then the least busy. */
static const struct publisher *choose(const struct entry *entry, unsigned prefer_worker)
{
    const struct publisher *best = &entry->publishers[0];
    unsigned best_cost = UINT32_MAX;
    for (size_t i = 0; i < entry->count; i++) {
        const struct publisher *p = &entry->publishers[i];
        unsigned cost = 2 * cv_session_load(p->session);
        cost += cv_session_worker_index(p->session) != prefer_worker;
        cost += cv_session_is_full(p->session) ? FULL_COST : 0;
        cost += cv_session_is_reachable(p->session) ? 0 : UNREACHABLE_COST;
        cost += cv_session_is_entitled(p->session, 0) ? 0 : 2 * UNREACHABLE_COST;
        if (cost < best_cost) {
            best = p;
            best_cost = cost;
        }
    }
    return best;
}

struct cv_status cv_registry_find(struct cv_registry *registry, const struct cv_user_key *user,
                                  const struct cv_guest *guest, struct cv_slice name,
                                  unsigned prefer_worker, uint64_t now_ms, struct cv_route *route)
{
    *route = (struct cv_route){0};
    enum cv_status_id status = CV_NO_TUNNEL;
    (void)pthread_rwlock_rdlock(&registry->lock);
    const struct entry *entry = find_entry(registry_find_user(registry, user), name);
    if (guest && entry && (!entry->spec || !cv_share_admits(&entry->spec->share, guest)))
        entry = NULL;
    if (entry && entry->count) {
        const struct publisher *publisher = choose(entry, prefer_worker);
        route->spec = cv_tunnel_spec_ref(entry->spec);
        route->session = cv_session_ref(publisher->session);
        route->gate = cv_gate_ref(entry->gate);
        route->port = publisher->port;
        status = CV_OK;
    } else if (entry && now_ms - entry->gone_ms < REGISTRY_REMEMBER_MS) {
        status = CV_AGENT_OFFLINE;
    } else if (!entry && !guest &&
               cv_recall_has(registry->recall, user, name,
                             registry->recall_s + (int64_t)(now_ms / 1000))) {
        status = CV_AGENT_OFFLINE;
    }
    (void)pthread_rwlock_unlock(&registry->lock);
    return cv_status(status);
}

bool cv_registry_any_other(struct cv_registry *registry, const struct cv_user_key *user,
                           struct cv_slice name, const struct cv_session *session,
                           bool (*look)(struct cv_session *other))
{
    bool is_found = false;
    (void)pthread_rwlock_rdlock(&registry->lock);
    const struct entry *entry = find_entry(registry_find_user(registry, user), name);
    for (size_t i = 0; entry && i < entry->count && !is_found; i++)
        is_found = entry->publishers[i].session != session && look(entry->publishers[i].session);
    (void)pthread_rwlock_unlock(&registry->lock);
    return is_found;
}

static bool is_same_agent(const struct cv_session *a, const struct cv_session *b)
{
    return a == b || memcmp(cv_session_agent_id(a), cv_session_agent_id(b), CV_AGENT_ID_LEN) == 0;
}

static void remove_publisher(struct cv_registry *registry, struct entry *entry, size_t at,
                             uint64_t now_ms)
{
    cv_session_unref(&entry->publishers[at].session);
    entry->publishers[at] = entry->publishers[--entry->count];
    if (entry->count == 0) {
        /* Rules are not kept for a day, unless guests are to be told that the agent is away. */
        if (!cv_share_is_any(&entry->spec->share))
            cv_tunnel_spec_unref(&entry->spec);
        entry->gone_ms = now_ms;
        registry->published--;
    }
}

static struct user *obtain_user(struct cv_registry *registry, const struct cv_user_key *key)
{
    struct user *user = registry_find_user(registry, key);
    if (user)
        return user;
    user = calloc(1, sizeof *user);
    if (user) {
        user->key = *key;
        HASH_ADD(hh, registry->users, key, sizeof user->key, user);
    }
    return user;
}

/* Forgets the name that has been gone longest; false when all are published. */
static bool forget_oldest(struct user *user)
{
    struct entry *oldest = NULL;
    for (struct entry *e = user->entries; e; e = e->hh.next)
        if (!e->count && (!oldest || e->gone_ms < oldest->gone_ms))
            oldest = e;
    if (oldest)
        entry_free(user, oldest);
    return oldest != NULL;
}

static struct cv_status obtain_entry(struct cv_registry *registry, struct user *user,
                                     struct cv_slice name, struct entry **out)
{
    *out = find_entry(user, name);
    if (*out)
        return cv_ok();
    if (HASH_COUNT(user->entries) >= REGISTRY_NAMES_PER_USER_MAX && !forget_oldest(user))
        return cv_status(CV_NO_RESOURCES);
    struct entry *entry = calloc(1, sizeof *entry);
    if (entry)
        entry->gate = cv_gate_new();
    if (!entry || !entry->gate) {
        free(entry);
        return cv_status(CV_NO_MEMORY);
    }
    (void)cv_slice_to_str(name, entry->name, sizeof entry->name);
    HASH_ADD_KEYPTR(hh, user->entries, entry->name, name.len, entry);
    (void)atomic_fetch_add_explicit(&registry->additions, 1, memory_order_relaxed);
    *out = entry;
    return cv_ok();
}

static struct cv_status add_publisher(struct cv_registry *registry, struct entry *entry,
                                      struct cv_session *session, uint32_t port)
{
    for (size_t i = 0; i < entry->count; i++)
        if (entry->publishers[i].session == session) {
            entry->publishers[i].port = port;
            return cv_ok();
        }
    struct publisher *grown =
        realloc(entry->publishers, (entry->count + 1) * sizeof *entry->publishers);
    if (!grown)
        return cv_status(CV_NO_MEMORY);
    entry->publishers = grown;
    if (entry->count == 0)
        registry->published++;
    grown[entry->count++] = (struct publisher){cv_session_ref(session), port};
    return cv_ok();
}

struct cv_status cv_registry_publish(struct cv_registry *registry, const struct cv_user_key *key,
                                     struct cv_session *session, struct cv_tunnel_spec *spec,
                                     uint32_t port, struct cv_session **displaced,
                                     size_t displaced_max, size_t *displaced_count)
{
    struct entry *entry = NULL;
    *displaced_count = 0;
    (void)pthread_rwlock_wrlock(&registry->lock);
    struct user *user = obtain_user(registry, key);
    struct cv_status status = user ? obtain_entry(registry, user, cv_slice_str(spec->name), &entry)
                                   : cv_status(CV_NO_MEMORY);
    if (cv_is_ok(status))
        status = add_publisher(registry, entry, session, port);
    if (cv_is_ok(status)) {
        for (size_t i = entry->count; i-- > 0 && *displaced_count < displaced_max;)
            if (!is_same_agent(entry->publishers[i].session, session)) {
                displaced[(*displaced_count)++] = cv_session_ref(entry->publishers[i].session);
                remove_publisher(registry, entry, i, 0);
            }
        cv_tunnel_spec_unref(&entry->spec);
        entry->spec = cv_tunnel_spec_ref(spec);
    }
    if (user)
        user_free_unused(registry, user);
    (void)pthread_rwlock_unlock(&registry->lock);
    return status;
}

bool cv_registry_join(struct cv_registry *registry, const struct cv_user_key *key, size_t max,
                      unsigned class)
{
    (void)pthread_rwlock_wrlock(&registry->lock);
    struct user *user = obtain_user(registry, key);
    bool is_in = user && user->links < max;
    if (is_in && user->links++ == 0) {
        user->class = class;
        registry->users_of[class]++;
    }
    if (!is_in && user)
        user_free_unused(registry, user);
    (void)pthread_rwlock_unlock(&registry->lock);
    return is_in;
}

size_t cv_registry_users(struct cv_registry *registry, unsigned class)
{
    (void)pthread_rwlock_rdlock(&registry->lock);
    size_t count = registry->users_of[class];
    (void)pthread_rwlock_unlock(&registry->lock);
    return count;
}

void cv_registry_leave(struct cv_registry *registry, const struct cv_user_key *key)
{
    (void)pthread_rwlock_wrlock(&registry->lock);
    struct user *user = registry_find_user(registry, key);
    if (user && user->links) {
        if (--user->links == 0)
            registry->users_of[user->class]--;
        user_free_unused(registry, user);
    }
    (void)pthread_rwlock_unlock(&registry->lock);
}

void cv_registry_withdraw(struct cv_registry *registry, const struct cv_user_key *key,
                          struct cv_session *session, struct cv_slice name, uint64_t now_ms)
{
    (void)pthread_rwlock_wrlock(&registry->lock);
    struct user *user = registry_find_user(registry, key);
    struct entry *entry, *next;
    if (user)
        HASH_ITER(hh, user->entries, entry, next)
        {
            if (name.len && !cv_slice_is(name, entry->name))
                continue;
            for (size_t i = entry->count; i-- > 0;)
                if (entry->publishers[i].session == session)
                    remove_publisher(registry, entry, i, now_ms);
        }
    (void)pthread_rwlock_unlock(&registry->lock);
}

const struct cv_session *cv_registry_tunnel_session(const struct cv_registry_tunnel *tunnel,
                                                    size_t index)
{
    return ((const struct publisher *)tunnel->publishers)[index].session;
}

static void each_of(const struct user *user,
                    void (*each)(void *arg, const struct cv_registry_tunnel *tunnel), void *arg)
{
    for (const struct entry *e = user->entries; e; e = e->hh.next) {
        const struct cv_registry_tunnel tunnel = {.spec = e->spec,
                                                  .gate = e->gate,
                                                  .publishers = e->publishers,
                                                  .session_count = e->count};
        if (e->count)
            each(arg, &tunnel);
    }
}

void cv_registry_each(struct cv_registry *registry, const struct cv_user_key *key,
                      void (*each)(void *arg, const struct cv_registry_tunnel *tunnel), void *arg)
{
    (void)pthread_rwlock_rdlock(&registry->lock);
    const struct user *one = key ? registry_find_user(registry, key) : NULL;
    if (one)
        each_of(one, each, arg);
    for (const struct user *user = key ? NULL : registry->users; user; user = user->hh.next)
        each_of(user, each, arg);
    (void)pthread_rwlock_unlock(&registry->lock);
}

bool cv_registry_has(struct cv_registry *registry, const struct cv_user_key *key,
                     const struct cv_session *session, struct cv_slice name)
{
    bool has = false;
    (void)pthread_rwlock_rdlock(&registry->lock);
    const struct entry *entry = find_entry(registry_find_user(registry, key), name);
    for (size_t i = 0; entry && i < entry->count; i++)
        has |= entry->publishers[i].session == session;
    (void)pthread_rwlock_unlock(&registry->lock);
    return has;
}

size_t cv_registry_user_sessions(struct cv_registry *registry, const struct cv_user_key *key)
{
    /* A user has few names and few sessions: counting beats keeping a count right. */
    const struct cv_session *seen[256];
    size_t count = 0;
    (void)pthread_rwlock_rdlock(&registry->lock);
    const struct user *user = registry_find_user(registry, key);
    if (user)
        for (const struct entry *e = user->entries; e; e = e->hh.next)
            for (size_t i = 0; i < e->count && count < 256; i++) {
                size_t j = 0;
                if (!cv_session_is_reachable(e->publishers[i].session))
                    continue;
                while (j < count && seen[j] != e->publishers[i].session)
                    j++;
                if (j == count)
                    seen[count++] = e->publishers[i].session;
            }
    (void)pthread_rwlock_unlock(&registry->lock);
    return count;
}

static void each_gate_of(const struct user *user,
                         void (*each)(void *arg, const struct cv_gate_view *view), void *arg)
{
    for (const struct entry *e = user->entries; e; e = e->hh.next)
        each(arg, &(struct cv_gate_view){&user->key, e->name, cv_breaker_look(&e->gate->breaker)});
}

void cv_registry_each_gate(struct cv_registry *registry, const struct cv_user_key *key,
                           void (*each)(void *arg, const struct cv_gate_view *view), void *arg)
{
    (void)pthread_rwlock_rdlock(&registry->lock);
    const struct user *user = key ? registry_find_user(registry, key) : registry->users;
    for (; user; user = key ? NULL : user->hh.next)
        each_gate_of(user, each, arg);
    (void)pthread_rwlock_unlock(&registry->lock);
}

struct cv_gate *cv_registry_gate(struct cv_registry *registry, const struct cv_user_key *key,
                                 struct cv_slice name)
{
    (void)pthread_rwlock_rdlock(&registry->lock);
    struct entry *entry = find_entry(registry_find_user(registry, key), name);
    struct cv_gate *gate = entry ? cv_gate_ref(entry->gate) : NULL;
    (void)pthread_rwlock_unlock(&registry->lock);
    return gate;
}

bool cv_registry_reset_gate(struct cv_registry *registry, const struct cv_user_key *key,
                            struct cv_slice name)
{
    (void)pthread_rwlock_rdlock(&registry->lock);
    struct entry *entry = find_entry(registry_find_user(registry, key), name);
    if (entry)
        cv_breaker_reset(&entry->gate->breaker);
    (void)pthread_rwlock_unlock(&registry->lock);
    return entry != NULL;
}

void cv_registry_set_recall(struct cv_registry *registry, const struct cv_recall *recall,
                            uint64_t now_ms, int64_t now_s)
{
    registry->recall = recall;
    registry->recall_s = now_s - (int64_t)(now_ms / 1000);
}

void cv_registry_each_name(struct cv_registry *registry,
                           bool (*each)(void *arg, const struct cv_user_key *user,
                                        struct cv_slice name, uint64_t gone_ms),
                           void *arg)
{
    bool goes_on = true;
    (void)pthread_rwlock_rdlock(&registry->lock);
    for (const struct user *user = registry->users; user && goes_on; user = user->hh.next)
        for (const struct entry *e = user->entries; e && goes_on; e = e->hh.next)
            goes_on = each(arg, &user->key, cv_slice_str(e->name), e->count ? 0 : e->gone_ms);
    (void)pthread_rwlock_unlock(&registry->lock);
}

unsigned cv_registry_additions(struct cv_registry *registry)
{
    return atomic_load_explicit(&registry->additions, memory_order_relaxed);
}

size_t cv_registry_tunnels(struct cv_registry *registry)
{
    (void)pthread_rwlock_rdlock(&registry->lock);
    size_t count = registry->published;
    (void)pthread_rwlock_unlock(&registry->lock);
    return count;
}

void cv_registry_expire(struct cv_registry *registry, uint64_t now_ms)
{
    struct user *user, *next_user;
    (void)pthread_rwlock_wrlock(&registry->lock);
    HASH_ITER(hh, registry->users, user, next_user)
    {
        struct entry *entry, *next;
        HASH_ITER(hh, user->entries, entry, next)
        if (!entry->count && now_ms - entry->gone_ms >= REGISTRY_REMEMBER_MS)
            entry_free(user, entry);
        user_free_unused(registry, user);
    }
    (void)pthread_rwlock_unlock(&registry->lock);
}
