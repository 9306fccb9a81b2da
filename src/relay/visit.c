/* SPDX-License-Identifier: MIT
 *
 * Whose tunnel a request is for: one of who asks, or one that somebody else shares
 * (`/t/<owner>~<tunnel>/`). Who is not let in there gets the answer of a tunnel that does not
 * exist: all that is refused looks like CV_NO_TUNNEL from here on.
 *
 * A request without a token may be for a public tunnel. It goes on as somebody anonymous, one user
 * for each address (of IPv6, each /64), until it turns out that there is no such tunnel; then it is
 * told that a token is missing, whatever is there.
 */
#include "auth/jwt.h"
#include "config/relay_config.h"
#include "proto/http/http_path.h"
#include "relay/consumer_private.h"
#include "relay/revocation.h"
#include "relay/session.h"

#include <string.h>

static bool is_own(const struct cv_consumer *c, const struct cv_user_key *owner)
{
    return memcmp(owner, c->x.identity->user_key, sizeof *owner) == 0;
}

/* The owner that the path names is a subject of the relay's issuer, which is that of who asks.
 * False: it cannot be anybody's. */
static bool find_owner(const struct cv_consumer *c, const struct cv_http_tunnel_path *at,
                       struct cv_user_key *owner)
{
    char subject[CV_IDENTITY_MAX_TEXT + 1];
    if (!at->owner.len) {
        memcpy(owner, c->x.identity->user_key, sizeof *owner);
        return true;
    }
    if (!cv_http_decode_owner(at->owner, subject, sizeof subject) ||
        !cv_identity_text_is_valid(cv_slice_str(subject)))
        return false;
    cv_identity_user_key(c->worker->relay->auth_policy->issuer, subject, owner->bytes);
    return true;
}

static struct cv_status look(const struct cv_consumer *c, const struct cv_user_key *owner,
                             struct cv_slice name, struct cv_route *route)
{
    const struct cv_relay *relay = c->worker->relay;
    const struct cv_guest guest = {c->x.identity, cv_sharing_of(relay->config)};
    return cv_registry_find(relay->registry, owner, is_own(c, owner) ? NULL : &guest, name,
                            c->worker->index, consumer_now_ms(c), route);
}

bool visit_enter(struct cv_consumer *c, const struct cv_http_tunnel_path *at)
{
    uint8_t network[16];
    const struct cv_relay *relay = c->worker->relay;
    bool may_be_anonymous =
        at->owner.len && route_has_no_token(c) && cv_sharing_of(relay->config) == CV_SHARING_PUBLIC;
    if (!may_be_anonymous)
        return route_authenticate(c);
    c->x.identity =
        cv_identity_new_anonymous(cv_slice(network, cv_addr_network(&c->client, network)));
    if (!c->x.identity)
        problem_answer(c, CV_NO_MEMORY, CV_HOP_RELAY, NULL, false);
    return c->x.identity != NULL;
}

bool visit_is_within_token(const struct cv_consumer *c, const struct cv_http_tunnel_path *at)
{
    const struct cv_identity *identity = c->x.identity;
    struct cv_user_key owner;
    if (!identity->has_tunnel_list)
        return true;
    return find_owner(c, at, &owner) && is_own(c, &owner) &&
           cv_identity_may_use_tunnel(identity, at->name);
}

struct cv_status visit_find(const struct cv_consumer *c, const struct cv_http_tunnel_path *at,
                            struct cv_route *route)
{
    struct cv_user_key owner;
    *route = (struct cv_route){0};
    if (!find_owner(c, at, &owner))
        return cv_status(CV_NO_TUNNEL);
    return look(c, &owner, at->name, route);
}

struct cv_status visit_find_again(const struct cv_consumer *c, struct cv_route *route)
{
    return look(c, cv_session_user_key(c->x.route.session), cv_slice_str(c->x.route.spec->name),
                route);
}

void visit_want_token(struct cv_consumer *c)
{
    cv_identity_unref(&c->x.identity);
    c->x.quota = (struct cv_quota){0};
    (void)route_authenticate(c); /* answers, since there is none */
}

const char *visit_owner(const struct cv_consumer *c)
{
    const struct cv_session *session = c->x.route.session;
    return session && c->x.identity && !is_own(c, cv_session_user_key(session))
               ? cv_session_user_id(session)
               : NULL;
}
