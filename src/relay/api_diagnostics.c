/* SPDX-License-Identifier: MIT
 *
 * Diagnostics: what a relay is made of and how it is, on one page for who has to find out what is
 * wrong. Each worker is asked in turn; how long the question lay in its mailbox is how far its loop
 * is behind.
 */
#include "base/digest.h"
#include "net/net.h"
#include "relay/api_private.h"
#include "relay/limits.h"
#include "relay/registry.h"
#include "relay/session_private.h"
#include "telemetry/metrics.h"
#include "telemetry/revision.h"
#include "transport/link.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <utlist.h>

enum { LINKS_LISTED = 1000, USERS_LISTED = 10, USERS_SEEN = 1000 };

/* What a user has open. */
struct diagnosed_user {
    char id[64];
    struct cv_user_key key;
    unsigned links, requests, waiting;
};

struct diagnosis {
    struct gather gather; /* first */
    json_t *workers, *links, *errors;
    uint64_t asked_ns; /* the next worker */
    uint64_t replay_bytes, consumer_bytes;
    size_t link_count, user_count;
    bool is_failed;
    struct diagnosed_user users[USERS_SEEN];
};

static struct diagnosis *diagnosis_of(struct gather *gather)
{
    return (struct diagnosis *)gather;
}

/* ---- on each worker ---- */

static struct diagnosed_user *user_of(struct diagnosis *d, const struct cv_session *session)
{
    for (size_t i = 0; i < d->user_count; i++)
        if (memcmp(&d->users[i].key, &session->user_key, sizeof session->user_key) == 0)
            return &d->users[i];
    if (d->user_count == USERS_SEEN)
        return NULL;
    struct diagnosed_user *user = &d->users[d->user_count++];
    user->key = session->user_key;
    memcpy(user->id, session->user_id, sizeof user->id);
    return user;
}

static void add_link(struct diagnosis *d, const struct cv_session *session, uint64_t now_ms)
{
    char id[33];
    uint64_t held = cv_link_replay_held(session->link);
    unsigned waiting = atomic_load_explicit(&session->waiting, memory_order_relaxed);
    struct diagnosed_user *user = user_of(d, session);
    d->replay_bytes += held;
    if (user) {
        user->links++;
        user->requests += cv_session_load(session);
        user->waiting += waiting;
    }
    if (d->link_count++ >= LINKS_LISTED)
        return;
    cv_hex_encode(cv_slice(session->link_id, sizeof session->link_id), id);
    json_t *link = json_pack("{s:s, s:s, s:s, s:I, s:I, s:I, s:i, s:i, s:i}", "id", id, "owner",
                             session->user_id, "state",
                             cv_session_detached_since_ms(session) ? "detached" : "up", "age_ms",
                             (json_int_t)(now_ms - session->since_ms), "rtt_ms",
                             (json_int_t)cv_link_rtt_ms(session->link), "replay_bytes",
                             (json_int_t)held, "streams", (int)cv_link_streams(session->link),
                             "queued", (int)waiting, "worker", (int)session->worker_index);
    d->is_failed |= json_array_append_new(d->links, link) != 0;
}

static void add_errors(struct diagnosis *d, const struct cv_relay_worker *worker)
{
    for (size_t i = 0; i < CV_RELAY_ERRORS_KEPT; i++) {
        const struct cv_relay_error *error = &worker->errors[i];
        if (!error->at_s)
            continue;
        d->is_failed |=
            json_array_append_new(
                d->errors, json_pack("{s:I, s:s, s:s, s:s, s:s, s:i}", "at",
                                     (json_int_t)error->at_s, "code", cv_status_code(error->id),
                                     "category", cv_category_name(cv_status_category(error->id)),
                                     "text", cv_status_text(error->id), "request_id",
                                     error->request, "worker", (int)worker->index)) != 0;
    }
}

static void on_worker(struct gather *gather, struct cv_relay_worker *worker)
{
    struct diagnosis *d = diagnosis_of(gather);
    uint64_t now_ns = cv_worker_now_ns(worker->worker), now_ms = cv_worker_now_ms(worker->worker);
    uint64_t lag_us = now_ns > d->asked_ns ? (now_ns - d->asked_ns) / 1000 : 0;
    const struct cv_session *session;
    const struct cv_consumer *c;
    d->is_failed |=
        json_array_append_new(d->workers,
                              json_pack("{s:i, s:I, s:i, s:i, s:i, s:i}", "index",
                                        (int)worker->index, "lag_us", (json_int_t)lag_us,
                                        "connections", (int)atomic_load(&worker->consumer_count),
                                        "requests", (int)atomic_load(&worker->busy), "links",
                                        (int)atomic_load(&worker->session_count), "streams",
                                        (int)atomic_load(&worker->stream_count))) != 0;
    DL_FOREACH(worker->sessions, session)
    {
        if (session->link)
            add_link(d, session, now_ms);
    }
    DL_FOREACH(worker->consumers, c)
    d->consumer_bytes += c->in.size + c->x.request.size;
    add_errors(d, worker);
    d->asked_ns = cv_worker_now_ns(worker->worker);
}

/* ---- at home ---- */

static int by_requests(const void *a, const void *b)
{
    const struct diagnosed_user *x = a, *y = b;
    unsigned left = x->requests + x->links, right = y->requests + y->links;
    return left < right ? 1 : left > right ? -1 : 0;
}

static json_t *users_json(struct diagnosis *d)
{
    json_t *list = json_array();
    qsort(d->users, d->user_count, sizeof *d->users, by_requests);
    for (size_t i = 0; i < d->user_count && i < USERS_LISTED; i++)
        d->is_failed |=
            json_array_append_new(list, json_pack("{s:s, s:i, s:i, s:i}", "user", d->users[i].id,
                                                  "links", (int)d->users[i].links, "requests",
                                                  (int)d->users[i].requests, "queued",
                                                  (int)d->users[i].waiting)) != 0;
    return list;
}

static json_t *libraries_json(void)
{
    json_t *object = json_object();
    const char *name, *version;
    for (unsigned i = 0; (name = cv_net_library(i, &version)); i++)
        (void)json_object_set_new(object, name, json_string(version));
    (void)json_object_set_new(object, "jansson", json_string(JANSSON_VERSION));
    return object;
}

static json_t *memory_json(const struct diagnosis *d)
{
    struct cv_process_memory memory = cv_process_memory();
    return json_pack("{s:I, s:I, s:I, s:I}", "resident_bytes", (json_int_t)memory.resident_bytes,
                     "virtual_bytes", (json_int_t)memory.virtual_bytes, "replay_bytes",
                     (json_int_t)d->replay_bytes, "consumer_buffer_bytes",
                     (json_int_t)d->consumer_bytes);
}

static json_t *limits_json(const struct cv_relay *relay)
{
    struct cv_queue_counts queue = cv_limits_queue_counts(relay->limits);
    return json_pack(
        "{s:I, s:I, s:I, s:i, s:I, s:I}", "rejected_by_user",
        (json_int_t)cv_limits_rejections(relay->limits, CV_LIMIT_USER), "rejected_by_address",
        (json_int_t)cv_limits_rejections(relay->limits, CV_LIMIT_ADDRESS), "rejected_by_relay",
        (json_int_t)cv_limits_rejections(relay->limits, CV_LIMIT_RELAY), "queued",
        (int)queue.waiting, "queue_full", (json_int_t)queue.dropped, "backpressure",
        (json_int_t)queue.backpressed);
}

static void count_breaker(void *arg, const struct cv_gate_view *gate)
{
    unsigned *counts = arg;
    counts[gate->breaker.state]++;
}

static json_t *breakers_json(struct cv_relay *relay)
{
    unsigned counts[3] = {0};
    cv_registry_each_gate(relay->registry, NULL, count_breaker, counts);
    return json_pack("{s:i, s:i, s:i, s:I, s:I}", "closed", (int)counts[CV_BREAKER_CLOSED], "open",
                     (int)counts[CV_BREAKER_OPEN], "half_open", (int)counts[CV_BREAKER_HALF_OPEN],
                     "opened", (json_int_t)atomic_load(&relay->breaker_openings), "rejected",
                     (json_int_t)atomic_load(&relay->breaker_rejections));
}

static json_t *diagnosis_json(struct diagnosis *d)
{
    struct cv_relay *relay = d->gather.relay;
    struct cv_relay_counts counts = cv_relay_count(relay);
    uint64_t wall_s = cv_worker_wall_seconds(relay->workers[0].worker);
    json_t *users = users_json(d);
    if (d->is_failed || !users) {
        json_decref(users);
        return NULL;
    }
    return json_pack(
        "{s:s, s:s, s:s, s:o, s:i, s:I, s:b, s:i, s:i, s:i, s:i, s:i, s:o, s:O, s:O, s:b, s:o, "
        "s:o, s:o, s:O}",
        "version", CV_VERSION, "revision", cv_revision, "instance", relay->instance, "libraries",
        libraries_json(), "pid", (int)getpid(), "uptime_s",
        (json_int_t)(wall_s > relay->started_s ? wall_s - relay->started_s : 0), "is_draining",
        atomic_load(&relay->is_draining), "connections", (int)counts.consumers, "requests",
        (int)counts.requests, "links", (int)counts.links, "streams", (int)counts.streams, "tunnels",
        (int)cv_registry_tunnels(relay->registry), "memory", memory_json(d), "workers", d->workers,
        "link_list", d->links, "truncated", d->link_count > LINKS_LISTED, "top_users", users,
        "limits", limits_json(relay), "breakers", breakers_json(relay), "last_errors", d->errors);
}

static void on_home(struct gather *gather)
{
    struct cv_consumer *c = gather->consumer;
    if (c)
        api_answer(c, 200, diagnosis_json(diagnosis_of(gather)));
    api_gather_unref(gather);
}

static void on_free(struct gather *gather)
{
    struct diagnosis *d = diagnosis_of(gather);
    json_decref(d->workers);
    json_decref(d->links);
    json_decref(d->errors);
    free(d);
}

void api_diagnostics(struct cv_consumer *c, const json_t *body)
{
    struct diagnosis *d = calloc(1, sizeof *d);
    (void)body;
    if (!d) {
        api_answer(c, 200, NULL);
        return;
    }
    d->workers = json_array();
    d->links = json_array();
    d->errors = json_array();
    d->is_failed = !d->workers || !d->links || !d->errors;
    d->asked_ns = cv_worker_now_ns(c->worker->worker);
    d->gather.on_worker = on_worker;
    d->gather.on_home = on_home;
    d->gather.on_free = on_free;
    api_gather_start(c, &d->gather);
}
