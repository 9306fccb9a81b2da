/* SPDX-License-Identifier: MIT */
#include "relay/health.h"

#include "auth/keysource.h"
#include "config/relay_config.h"
#include "relay/canary.h"
#include "relay/registry.h"
#include "relay/relay.h"
#include "store/history.h"

enum {
    BEAT_MS = 1000,
    AWAY_MS = 3000,  /* a beat that late: the whole process was stopped, or starved */
    COUNT_MS = 2000, /* how old the counts of tunnels may be */
};

_Static_assert(sizeof((struct cv_relay *)0)->health_counts / sizeof(atomic_uint) ==
                   CV_TUNNEL_HEALTH_COUNT,
               "a count for each state");

/* ---- loops ---- */

static void on_beat(void *arg)
{
    struct cv_relay_worker *worker = arg;
    uint64_t now_ms = cv_worker_now_ms(worker->worker);
    uint64_t before_ms = atomic_load_explicit(&worker->beat_ms, memory_order_relaxed);
    if (now_ms - before_ms >= AWAY_MS)
        worker->late_ms = now_ms;
    atomic_store_explicit(&worker->beat_ms, now_ms, memory_order_relaxed);
    if (!cv_worker_is_stopping(worker->worker))
        (void)cv_worker_timer_start(worker->worker, &worker->beat, BEAT_MS);
}

void health_begin(struct cv_relay_worker *worker)
{
    cv_timer_init(&worker->beat, on_beat, worker);
    atomic_store(&worker->beat_ms, cv_worker_now_ms(worker->worker));
    (void)cv_worker_timer_start(worker->worker, &worker->beat, BEAT_MS);
}

unsigned health_stalled(const struct cv_relay_worker *worker)
{
    const struct cv_relay *relay = worker->relay;
    uint64_t now_ms = cv_worker_now_ms(worker->worker);
    unsigned count = 0;
    if (worker->late_ms && now_ms - worker->late_ms < AWAY_MS)
        return 0;
    for (unsigned i = 0; i < relay->worker_count; i++) {
        uint64_t beat_ms = atomic_load_explicit(&relay->workers[i].beat_ms, memory_order_relaxed);
        count += now_ms > beat_ms && now_ms - beat_ms >= relay->config->health_stall_ms;
    }
    return count;
}

/* ---- the rest ---- */

static bool is_draining(const struct cv_relay *relay)
{
    return atomic_load_explicit(&relay->is_draining, memory_order_relaxed);
}

static enum cv_keysource_state keys_of(const struct cv_relay_worker *worker)
{
    return cv_keysource_state(worker->relay->keys, cv_worker_now_ms(worker->worker));
}

bool health_is_ready(const struct cv_relay_worker *worker)
{
    return !is_draining(worker->relay) && keys_of(worker) != CV_KEYSOURCE_EMPTY;
}

struct counting {
    const struct cv_relay *relay;
    uint64_t now_ms;
    unsigned counts[CV_TUNNEL_HEALTH_COUNT];
};

static void count(void *arg, const struct cv_registry_tunnel *tunnel)
{
    struct counting *counting = arg;
    struct cv_pulse_view seen;
    counting->counts[canary_judge(counting->relay, tunnel, counting->now_ms, &seen)]++;
}

/* Whoever finds the counts old counts anew, once for all. */
static void count_tunnels(struct cv_relay *relay, uint64_t now_ms)
{
    struct counting counting = {.relay = relay, .now_ms = now_ms};
    uint64_t before_ms = atomic_load(&relay->counted_ms);
    if ((before_ms && now_ms - before_ms < COUNT_MS) ||
        !atomic_compare_exchange_strong(&relay->counted_ms, &before_ms, now_ms))
        return;
    cv_registry_each(relay->registry, NULL, count, &counting);
    for (unsigned i = 0; i < CV_TUNNEL_HEALTH_COUNT; i++)
        atomic_store_explicit(&relay->health_counts[i], counting.counts[i], memory_order_relaxed);
}

static json_t *services_json(struct cv_relay *relay, uint64_t now_ms)
{
    json_t *object = json_object();
    count_tunnels(relay, now_ms);
    for (unsigned i = 0; object && i < CV_TUNNEL_HEALTH_COUNT; i++) {
        unsigned number = atomic_load_explicit(&relay->health_counts[i], memory_order_relaxed);
        if (json_object_set_new(object, cv_tunnel_health_name((enum cv_tunnel_health)i),
                                json_integer(number)) != 0) {
            json_decref(object);
            return NULL;
        }
    }
    return object;
}

static const char *history_name(const struct cv_relay *relay)
{
    switch (cv_history_state(relay->history)) {
    case CV_HISTORY_OK:
        return "ok";
    case CV_HISTORY_FAILING:
        return "failing";
    case CV_HISTORY_OFF:
        break;
    }
    return "off";
}

json_t *health_json(struct cv_relay_worker *worker)
{
    struct cv_relay *relay = worker->relay;
    enum cv_keysource_state keys = keys_of(worker);
    unsigned stalled = health_stalled(worker);
    const char *status = is_draining(relay)           ? "draining"
                         : keys == CV_KEYSOURCE_EMPTY ? "no keys"
                         : stalled                    ? "stalled"
                                                      : "ok";
    json_t *services = services_json(relay, cv_worker_now_ms(worker->worker));
    if (!services)
        return NULL;
    return json_pack(
        "{s:s, s:s, s:s, s:s, s:I, s:{s:{s:s, s:i, s:i}, s:{s:s}, s:{s:s}, s:{s:s}, s:o}}",
        "status", status, "version", CV_VERSION, "instance", relay->instance, "keys",
        cv_keysource_state_name(keys), "tunnels", (json_int_t)cv_registry_tunnels(relay->registry),
        "parts", "workers", "status", stalled ? "stalled" : "ok", "count", (int)relay->worker_count,
        "stalled", (int)stalled, "accepting", "status", is_draining(relay) ? "draining" : "ok",
        "keys", "status", cv_keysource_state_name(keys), "history", "status", history_name(relay),
        "services", services);
}
