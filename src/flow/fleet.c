/* SPDX-License-Identifier: MIT */
#include "flow/fleet.h"

static bool is_bad(const struct cv_fleet_server *server, uint64_t now_ms)
{
    return server->bad_until_ms > now_ms;
}

/* Whether `a` goes before `b`, weights aside. */
static bool is_before(const struct cv_fleet_server *a, const struct cv_fleet_server *b,
                      uint64_t now_ms)
{
    bool is_bad_a = is_bad(a, now_ms), is_bad_b = is_bad(b, now_ms);
    if (is_bad_a != is_bad_b)
        return is_bad_b;
    if (is_bad_a && a->bad_until_ms != b->bad_until_ms)
        return a->bad_until_ms < b->bad_until_ms;
    if (a->priority != b->priority)
        return a->priority < b->priority;
    return a->links < b->links;
}

static bool is_equal(const struct cv_fleet_server *a, const struct cv_fleet_server *b,
                     uint64_t now_ms)
{
    return !is_before(a, b, now_ms) && !is_before(b, a, now_ms);
}

size_t cv_fleet_choose(const struct cv_fleet *fleet, uint64_t now_ms, uint64_t random)
{
    const struct cv_fleet_server *best = &fleet->servers[0], *s = best;
    for (size_t i = 1; i < fleet->count; i++)
        if (is_before(&fleet->servers[i], best, now_ms))
            best = &fleet->servers[i];
    uint64_t total = best->weight;
    for (size_t i = 0; i < fleet->count; i++)
        if (&fleet->servers[i] != best && is_equal(&fleet->servers[i], best, now_ms))
            total += fleet->servers[i].weight;
    uint64_t at = random % total;
    for (;; s++) {
        if (!is_equal(s, best, now_ms))
            continue;
        if (at < s->weight)
            return (size_t)(s - fleet->servers);
        at -= s->weight;
    }
}

bool cv_fleet_better(const struct cv_fleet *fleet, size_t mine, uint64_t now_ms, size_t *better)
{
    const struct cv_fleet_server *me = &fleet->servers[mine], *best = NULL;
    for (size_t i = 0; i < fleet->count; i++) {
        const struct cv_fleet_server *s = &fleet->servers[i];
        bool is_better =
            s->priority < me->priority || (s->priority == me->priority && s->links + 1 < me->links);
        if (is_better && s->rest_until_ms <= now_ms && (!best || is_before(s, best, now_ms)))
            best = s;
    }
    if (best)
        *better = (size_t)(best - fleet->servers);
    return best;
}

void cv_fleet_failed(struct cv_fleet *fleet, size_t server, uint64_t now_ms,
                     uint64_t retry_after_ms)
{
    uint64_t ms = retry_after_ms > CV_FLEET_BAD_MS ? retry_after_ms : CV_FLEET_BAD_MS;
    fleet->servers[server].bad_until_ms = now_ms + ms;
    if (retry_after_ms)
        fleet->servers[server].rest_until_ms = now_ms + retry_after_ms;
}

void cv_fleet_up(struct cv_fleet *fleet, size_t server)
{
    fleet->servers[server].bad_until_ms = 0;
    fleet->servers[server].rest_until_ms = 0;
}

bool cv_fleet_has_good(const struct cv_fleet *fleet, uint64_t now_ms)
{
    for (size_t i = 0; i < fleet->count; i++)
        if (!is_bad(&fleet->servers[i], now_ms))
            return true;
    return false;
}
