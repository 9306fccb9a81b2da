/* SPDX-License-Identifier: MIT
 *
 * Who publishes what: user → tunnel → sessions (links). The only thing that workers share on the
 * way of a request: read under a read lock once per request, changed rarely.
 *
 * A user is named by its key, a hash over issuer and subject. Several sessions of one agent share a
 * name; a session of another agent takes it over, and the older ones are told.
 */
#ifndef CV_RELAY_REGISTRY_H
#define CV_RELAY_REGISTRY_H

#include "flow/breaker.h"
#include "flow/pulse.h"
#include "flow/ration.h"
#include "relay/slots.h"
#include "relay/tunnel.h"

struct cv_recall; /* relay/recall.h */
struct cv_registry;
struct cv_session; /* a link's relay side; reference counted, lives on its worker */

enum { CV_USER_KEY_LEN = 32, CV_AGENT_ID_LEN = 16, CV_SESSION_LINK_ID_LEN = 16 };

struct cv_user_key {
    uint8_t bytes[CV_USER_KEY_LEN];
};

struct cv_status cv_registry_new(struct cv_registry **registry);
void cv_registry_free(struct cv_registry **registry);

/* What hangs off a user's name for a tunnel whoever publishes it: one for all links, workers and
 * consumers. Any thread. */
struct cv_gate {
    atomic_uint refs;
    cv_breaker breaker;
    struct cv_pulse pulse;
    struct cv_slots slots; /* of a tunnel with a limit on concurrency */
    atomic_uint waiting;   /* requests, on whatever link */
};

/* With one reference, or NULL without memory; unref takes NULL and nulls. Any thread. */
struct cv_gate *cv_gate_new(void);
struct cv_gate *cv_gate_ref(struct cv_gate *gate);
void cv_gate_unref(struct cv_gate **gate);

/* What a lookup gives: references that the caller gives back with cv_route_done. */
struct cv_route {
    struct cv_tunnel_spec *spec;
    struct cv_session *session;
    struct cv_gate *gate;
    uint32_t port; /* as the publisher asked for it */
};

/* Finds a session that publishes `name` for `user`: on worker `prefer_worker` if there is one, else
 * the least busy. `guest` is who asks, NULL: the user itself. CV_NO_TUNNEL, also where the guest is
 * not let in; CV_AGENT_OFFLINE when the name was published in the last 24 hours. */
struct cv_status cv_registry_find(struct cv_registry *registry, const struct cv_user_key *user,
                                  const struct cv_guest *guest, struct cv_slice name,
                                  unsigned prefer_worker, uint64_t now_ms, struct cv_route *route);
void cv_route_done(struct cv_route *route);

/* Calls `look` for the other links than `session` that publish the name, until it says true;
 * whether it did. Under the registry's lock: it must call nothing here. */
bool cv_registry_any_other(struct cv_registry *registry, const struct cv_user_key *user,
                           struct cv_slice name, const struct cv_session *session,
                           bool (*look)(struct cv_session *other));

/* `session` publishes spec->name. Sessions of another agent that published it lose it: they are in
 * displaced[], each with a reference for the caller, at most `displaced_max`. Publishing again
 * replaces the spec. */
struct cv_status cv_registry_publish(struct cv_registry *registry, const struct cv_user_key *user,
                                     struct cv_session *session, struct cv_tunnel_spec *spec,
                                     uint32_t port, struct cv_session **displaced,
                                     size_t displaced_max, size_t *displaced_count);

/* A link of this user begins; false: it has `max` already, or there is no memory. Paired with
 * cv_registry_leave. `class`, below CV_REGISTRY_CLASSES, is what the user is counted as by
 * cv_registry_users while it has links. */
enum { CV_REGISTRY_CLASSES = 16 };
bool cv_registry_join(struct cv_registry *registry, const struct cv_user_key *user, size_t max,
                      unsigned class);
/* Users of this class that have links. */
size_t cv_registry_users(struct cv_registry *registry, unsigned class);
void cv_registry_leave(struct cv_registry *registry, const struct cv_user_key *user);

/* Takes one name (or, with empty name, all) of a session back. */
void cv_registry_withdraw(struct cv_registry *registry, const struct cv_user_key *user,
                          struct cv_session *session, struct cv_slice name, uint64_t now_ms);

/* What the links of `user` may grow by: a reference to the one ration of all of them, which is made
 * of `max` bytes out of `above` when the user has none. NULL without memory. */
struct cv_ration *cv_registry_ration(struct cv_registry *registry, const struct cv_user_key *user,
                                     size_t max, struct cv_ration *above);

/* Makes a link findable by its id, and not any more. CV_NO_MEMORY. */
struct cv_status cv_registry_add_link(struct cv_registry *registry, struct cv_session *session);
void cv_registry_remove_link(struct cv_registry *registry, const struct cv_session *session);

/* The session of `user` (NULL: of anybody) with this link id (16 bytes), with a reference for the
 * caller; NULL when there is none, or it is another user's. */
struct cv_session *cv_registry_find_link(struct cv_registry *registry,
                                         const struct cv_user_key *user, const uint8_t *link_id);

/* Whether there is a link with this id, whosever it is: known to its agent and to nobody else. */
bool cv_registry_has_link(struct cv_registry *registry, const uint8_t *link_id);

/* The session of `user` that has waited longest for its agent to come back, with a reference for
 * the caller; NULL when none waits. */
struct cv_session *cv_registry_longest_detached(struct cv_registry *registry,
                                                const struct cv_user_key *user);

/* Whether `session` publishes `name` at this moment. */
bool cv_registry_has(struct cv_registry *registry, const struct cv_user_key *user,
                     const struct cv_session *session, struct cv_slice name);

/* Number of sessions that publish something for this user and have a connection at this moment. */
size_t cv_registry_user_sessions(struct cv_registry *registry, const struct cv_user_key *user);

/* The breakers of this user's names, NULL: of all users; `each` is called under the registry's lock
 * and must call nothing here. For the management API. */
struct cv_gate_view {
    const struct cv_user_key *user;
    const char *tunnel;
    struct cv_breaker_view breaker;
};
void cv_registry_each_gate(struct cv_registry *registry, const struct cv_user_key *user,
                           void (*each)(void *arg, const struct cv_gate_view *view), void *arg);
/* The gate of a name, with a reference for the caller; NULL: there is none. */
struct cv_gate *cv_registry_gate(struct cv_registry *registry, const struct cv_user_key *user,
                                 struct cv_slice name);

/* Closes the breaker of a name; false: there is no such name. */
bool cv_registry_reset_gate(struct cv_registry *registry, const struct cv_user_key *user,
                            struct cv_slice name);

/* A published name, for the management API. Borrowed for the call. */
struct cv_registry_tunnel {
    const struct cv_tunnel_spec *spec;
    const struct cv_gate *gate;
    const void *publishers;
    size_t session_count; /* at least 1 */
};
const struct cv_session *cv_registry_tunnel_session(const struct cv_registry_tunnel *tunnel,
                                                    size_t index);

/* Calls `each` for every name that `user` (NULL: anybody) publishes. It must not use the registry,
 * and not take long: nobody else publishes meanwhile. */
void cv_registry_each(struct cv_registry *registry, const struct cv_user_key *user,
                      void (*each)(void *arg, const struct cv_registry_tunnel *tunnel), void *arg);

/* Names that were published before this process began count as those that were here; `recall` is
 * borrowed. `now_ms` is the registry's clock at the Unix time `now_s`. Before any other thread. */
void cv_registry_set_recall(struct cv_registry *registry, const struct cv_recall *recall,
                            uint64_t now_ms, int64_t now_s);

/* Calls `each` for every name, published (gone_ms 0) or remembered, until it returns false; under
 * the registry's lock: it must not use the registry. */
void cv_registry_each_name(struct cv_registry *registry,
                           bool (*each)(void *arg, const struct cv_user_key *user,
                                        struct cv_slice name, uint64_t gone_ms),
                           void *arg);
/* Grows with each name that was not there. */
unsigned cv_registry_additions(struct cv_registry *registry);

/* Number of published names, over all users. */
size_t cv_registry_tunnels(struct cv_registry *registry);

/* Forgets names that have been gone for 24 hours. */
void cv_registry_expire(struct cv_registry *registry, uint64_t now_ms);

#endif
