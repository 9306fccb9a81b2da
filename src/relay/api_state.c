/* SPDX-License-Identifier: MIT
 *
 * What is there at this moment: tunnels with their links, and the queue. A user sees what is its
 * own, a token with the admin permission what is everybody's.
 *
 * Queues live on the workers of their links: a gather (api_gather.c) goes from worker to worker.
 */
#include "base/digest.h"
#include "relay/api_private.h"
#include "relay/canary.h"
#include "relay/limits.h"
#include "relay/pool.h"
#include "relay/session_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utlist.h>

/* What a reply holds at most: beyond it says "truncated". */
enum { LISTED_MAX = 10000 };

/* Whose things the token may see; NULL: everybody's. */
static const struct cv_user_key *scope_of(const struct cv_consumer *c)
{
    const struct cv_identity *identity = c->x.identity;
    return identity->is_admin ? NULL : (const struct cv_user_key *)identity->user_key;
}

static const char *id_text(const struct cv_session *session, char out[33])
{
    cv_hex_encode(cv_slice(cv_session_link_id(session), CV_SESSION_LINK_ID_LEN), out);
    return out;
}

/* ---- lists ---- */

struct listing {
    const struct cv_relay *relay;
    json_t *list;
    uint64_t now_ms;
    size_t count;
    bool is_failed;
};

static void answer_listing(struct cv_consumer *c, const char *name, struct listing *listing)
{
    if (!listing->list || listing->is_failed) {
        json_decref(listing->list);
        api_answer(c, 200, NULL);
        return;
    }
    api_answer(
        c, 200,
        json_pack("{s:o, s:b}", name, listing->list, "truncated", listing->count > LISTED_MAX));
}

/* ---- tunnels ---- */

static json_t *link_json(const struct cv_session *session, uint64_t now_ms)
{
    char id[33];
    uint64_t since_ms = cv_session_detached_since_ms(session);
    json_t *link =
        json_pack("{s:s, s:s, s:i}", "id", id_text(session, id), "state",
                  since_ms ? "detached" : "up", "requests", (int)cv_session_load(session));
    if (link && since_ms &&
        json_object_set_new(link, "detached_ms", json_integer((json_int_t)(now_ms - since_ms))) !=
            0) {
        json_decref(link);
        return NULL;
    }
    return link;
}

/* What was seen last of the service: null where nothing ever was. */
static json_t *seen_json(const struct cv_pulse_view *seen)
{
    if (seen->verdict == CV_PULSE_NONE)
        return json_null();
    return json_pack("{s:I, s:s, s:i, s:o}", "age_ms", (json_int_t)seen->age_ms, "by",
                     seen->is_canary ? "canary" : "request", "latency_ms", (int)seen->latency_ms,
                     "code",
                     seen->status ? json_string(cv_status_code(seen->status)) : json_null());
}

static void add_tunnel(void *arg, const struct cv_registry_tunnel *tunnel)
{
    struct listing *listing = arg;
    if (listing->is_failed || listing->count++ >= LISTED_MAX)
        return;
    bool is_http = tunnel->spec->kind == CV_TUNNEL_HTTP;
    json_t *links = json_array();
    for (size_t i = 0; links && i < tunnel->session_count; i++)
        if (json_array_append_new(
                links, link_json(cv_registry_tunnel_session(tunnel, i), listing->now_ms))) {
            json_decref(links);
            links = NULL;
        }
    struct cv_pulse_view seen;
    enum cv_tunnel_health health = canary_judge(listing->relay, tunnel, listing->now_ms, &seen);
    json_t *object = links
                         ? json_pack("{s:s, s:s, s:o, s:s, s:s, s:i, s:s, s:o, s:b, s:o}", "name",
                                     tunnel->spec->name, "state", cv_tunnel_health_name(health),
                                     "seen", seen_json(&seen), "owner",
                                     cv_session_user_id(cv_registry_tunnel_session(tunnel, 0)),
                                     "kind", is_http ? "http" : "tcp", "concurrency",
                                     (int)tunnel->spec->concurrency, "preset", tunnel->spec->preset,
                                     "links", links, "public", (int)tunnel->spec->share.is_public,
                                     "share", cv_share_list(&tunnel->spec->share))
                         : NULL;
    listing->is_failed = json_array_append_new(listing->list, object) != 0;
}

void api_tunnels(struct cv_consumer *c, const json_t *body)
{
    struct listing listing = {
        .relay = c->worker->relay, .list = json_array(), .now_ms = consumer_now_ms(c)};
    (void)body;
    if (listing.list)
        cv_registry_each(c->worker->relay->registry, scope_of(c), add_tunnel, &listing);
    answer_listing(c, "tunnels", &listing);
}

/* ---- links ---- */

void api_link_close(struct cv_consumer *c, const json_t *body)
{
    uint8_t id[CV_SESSION_LINK_ID_LEN];
    struct cv_session *session = NULL;
    (void)body;
    if (cv_hex_decode(cv_slice_str(c->x.api_arg), id, sizeof id))
        session = cv_registry_find_link(c->worker->relay->registry, scope_of(c), id);
    if (!session) {
        problem_answer(c, CV_NOT_FOUND, CV_HOP_RELAY, "no link has this id", true);
        return;
    }
    api_audit(c, "close_link", c->x.api_arg);
    cv_session_close_later(session, cv_status(CV_LINK_CLOSED));
    problem_simple(c, 202, NULL, NULL, NULL);
}

/* ---- breakers ---- */

static void add_breaker(void *arg, const struct cv_gate_view *gate)
{
    struct listing *listing = arg;
    char user[2 * CV_USER_KEY_LEN + 1], id[sizeof user + CV_TUNNEL_NAME_MAX + 1];
    const struct cv_breaker_view *breaker = &gate->breaker;
    if (listing->is_failed || listing->count++ >= LISTED_MAX)
        return;
    cv_hex_encode(cv_slice(gate->user->bytes, CV_USER_KEY_LEN), user);
    (void)snprintf(id, sizeof id, "%s.%s", user, gate->tunnel);
    uint64_t since_ms = breaker->since_ms && listing->now_ms > breaker->since_ms
                            ? listing->now_ms - breaker->since_ms
                            : 0;
    json_t *object = json_pack("{s:s, s:s, s:s, s:i, s:I}", "id", id, "tunnel", gate->tunnel,
                               "state", cv_breaker_state_name(breaker->state), "count",
                               (int)breaker->count, "since_ms", (json_int_t)since_ms);
    listing->is_failed = json_array_append_new(listing->list, object) != 0;
}

void api_breakers(struct cv_consumer *c, const json_t *body)
{
    struct listing listing = {.list = json_array(), .now_ms = consumer_now_ms(c)};
    (void)body;
    if (listing.list)
        cv_registry_each_gate(c->worker->relay->registry, scope_of(c), add_breaker, &listing);
    answer_listing(c, "breakers", &listing);
}

void api_breaker_reset(struct cv_consumer *c, const json_t *body)
{
    struct cv_user_key user = {0};
    struct cv_slice name = cv_slice_str(c->x.api_arg), hex = cv_slice_split(&name, '.');
    const struct cv_user_key *scope = scope_of(c);
    (void)body;
    if (!cv_hex_decode(hex, user.bytes, sizeof user.bytes) ||
        (scope && memcmp(scope, &user, sizeof user) != 0) ||
        !cv_registry_reset_gate(c->worker->relay->registry, &user, name)) {
        problem_answer(c, CV_NOT_FOUND, CV_HOP_RELAY, "no breaker has this id", true);
        return;
    }
    api_audit(c, "reset_breaker", c->x.api_arg);
    problem_simple(c, 204, NULL, NULL, NULL);
}

/* ---- the queue ---- */

struct queue_gather {
    struct gather gather; /* first */
    bool is_admin;
    struct cv_user_key user;
    size_t count;
    bool is_failed;
    json_t *list;
    const struct cv_session *session; /* whose pool is looked at */
};

static struct queue_gather *queue_of(struct gather *gather)
{
    return (struct queue_gather *)gather;
}

static void add_waiting(void *arg, const struct cv_pool_waiting *waiting)
{
    struct queue_gather *queue = arg;
    char id[33];
    if (queue->is_failed || queue->count++ >= LISTED_MAX)
        return;
    json_t *object = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:I}", "tunnel", waiting->tunnel, "owner",
        cv_session_user_id(queue->session), "link", id_text(queue->session, id), "request_id",
        waiting->correlation ? waiting->correlation : "", "priority",
        cv_priority_name(waiting->priority), "position", (json_int_t)waiting->position, "waited_ms",
        (json_int_t)waiting->waited_ms, "estimated_ms", (json_int_t)waiting->estimated_ms);
    queue->is_failed = json_array_append_new(queue->list, object) != 0;
}

static void queue_on_worker(struct gather *gather, struct cv_relay_worker *worker)
{
    struct queue_gather *queue = queue_of(gather);
    DL_FOREACH(worker->sessions, queue->session)
    {
        if (queue->is_admin ||
            memcmp(&queue->session->user_key, &queue->user, sizeof queue->user) == 0)
            cv_pool_each_waiting(&queue->session->pool, add_waiting, queue);
    }
}

static void queue_on_home(struct gather *gather)
{
    struct queue_gather *queue = queue_of(gather);
    struct cv_consumer *c = gather->consumer;
    json_t *list = queue->is_failed ? NULL : queue->list;
    json_t *answer = NULL;
    if (c && list) {
        struct cv_queue_fill fill = cv_limits_queue_fill(gather->relay->limits, c->x.identity);
        answer = json_pack("{s:O, s:i, s:i, s:b}", "waiting", list, "queued", (int)fill.queued,
                           "size", (int)fill.size, "truncated", queue->count > LISTED_MAX);
    }
    if (c)
        api_answer(c, 200, answer);
    api_gather_unref(gather);
}

static void queue_on_free(struct gather *gather)
{
    json_decref(queue_of(gather)->list);
    free(gather);
}

void api_queue(struct cv_consumer *c, const json_t *body)
{
    struct queue_gather *queue = calloc(1, sizeof *queue);
    (void)body;
    if (!queue) {
        api_answer(c, 200, NULL);
        return;
    }
    queue->is_admin = c->x.identity->is_admin;
    memcpy(&queue->user, c->x.identity->user_key, sizeof queue->user);
    queue->list = json_array();
    queue->is_failed = queue->list == NULL;
    queue->gather.on_worker = queue_on_worker;
    queue->gather.on_home = queue_on_home;
    queue->gather.on_free = queue_on_free;
    api_gather_start(c, &queue->gather);
}
