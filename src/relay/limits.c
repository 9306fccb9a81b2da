/* SPDX-License-Identifier: MIT */
#include "relay/limits.h"

#include "auth/identity.h"
#include "base/digest.h"
#include "config/relay_config.h"
#include "net/addr.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    USERS = 65536,
    SOURCES = 65536,
    PENALTY_FIRST_MS = 100,
    PENALTY_DEBT_MAX = 30, /* failures that are remembered beyond those granted */
    SECRET_LEN = 16,
};

/* The words of an entry: for users, and for sources. */
enum { USER_REQUESTS, USER_UPGRADES, USER_BYTES };
enum { SOURCE_REQUESTS, SOURCE_UPGRADES, SOURCE_FAILURES };
enum { SOURCE_CONNECTIONS, SOURCE_HALF_OPEN };
enum { USER_QUEUED };

/* What the configuration says. */
struct rules {
    struct cv_tier_limits *tiers;
    size_t tier_count;
    const struct cv_tier_limits *default_tier;
    struct cv_bucket_rate relay_rate, source_requests, source_upgrades, source_failures;
    uint64_t penalty_max_ms;
    unsigned max_connections, max_half_open, max_half_open_in_sum;
    unsigned queue_size;
    bool is_by_source;
};

struct cv_limits {
    /* Good for the turn in which it was read. */
    _Atomic(const struct rules *) rules;
    struct rules *kept[2];    /* in use, and the one before */
    const char **first_tiers; /* names at the start; the strings are that configuration's */
    size_t first_count, first_default;
    uint8_t secret[SECRET_LEN]; /* nobody chooses addresses that share a place */
    struct cv_bucket_table *users, *sources;
    cv_bucket relay_bucket;
    atomic_uint queued; /* of all users */
    atomic_uint_least64_t dropped, backpressed;
    atomic_uint half_open;
    atomic_uint_least64_t rejections[CV_LIMIT_SCOPE_COUNT];
};

static const struct rules *rules_of(const struct cv_limits *limits)
{
    return atomic_load_explicit(&limits->rules, memory_order_acquire);
}

/* ---- tiers ---- */

static struct cv_bucket_rate rate_of(uint64_t per_minute, uint64_t burst)
{
    return (struct cv_bucket_rate){per_minute, burst ? burst : per_minute};
}

/* Later ones stand in for earlier ones of the same name. */
static void put_tier(struct rules *rules, const struct cv_tier_limits *tier)
{
    for (size_t i = 0; i < rules->tier_count; i++)
        if (strcmp(rules->tiers[i].name, tier->name) == 0) {
            rules->tiers[i] = *tier;
            return;
        }
    rules->tiers[rules->tier_count++] = *tier;
}

static struct cv_status make_tiers(struct rules *rules, const struct cv_relay_config *config)
{
    const struct {
        const char *name;
        uint32_t rpm, links;
    } known[] = {
        {"free", config->limits_free_rpm, config->limits_free_links},
        {"premium", config->limits_premium_rpm, config->limits_premium_links},
        {"enterprise", config->limits_enterprise_rpm, config->limits_enterprise_links},
    };
    enum { KNOWN = sizeof known / sizeof known[0] };
    rules->tiers = calloc(KNOWN + config->tiers.count, sizeof *rules->tiers);
    if (!rules->tiers)
        return cv_status(CV_NO_MEMORY);
    for (size_t i = 0; i < KNOWN; i++)
        put_tier(rules, &(struct cv_tier_limits){.name = known[i].name,
                                                 .requests = rate_of(known[i].rpm, 0),
                                                 .links = known[i].links});
    const struct cv_tier_config *more = config->tiers.items;
    for (size_t i = 0; i < config->tiers.count; i++)
        put_tier(rules,
                 &(struct cv_tier_limits){.name = more[i].name,
                                          .requests = rate_of(more[i].rpm, more[i].burst),
                                          /* A second's worth at once. */
                                          .bandwidth = {more[i].bandwidth * 60, more[i].bandwidth},
                                          .links = more[i].links});
    for (size_t i = 0; i < rules->tier_count; i++) {
        if (config->limits_max_links_per_user)
            rules->tiers[i].links = config->limits_max_links_per_user;
        if (strcmp(rules->tiers[i].name, config->limits_default_tier) == 0)
            rules->default_tier = &rules->tiers[i];
    }
    return rules->default_tier ? cv_ok() : cv_status(CV_CONFIG);
}

const struct cv_tier_limits *cv_limits_tier(const struct cv_limits *limits,
                                            const struct cv_identity *identity)
{
    const struct rules *rules = rules_of(limits);
    for (size_t i = 0; identity->tier[0] && i < rules->tier_count; i++)
        if (strcmp(rules->tiers[i].name, identity->tier) == 0)
            return &rules->tiers[i];
    return rules->default_tier;
}

size_t cv_limits_tier_count(const struct cv_limits *limits)
{
    return limits->first_count;
}

const char *cv_limits_tier_name(const struct cv_limits *limits, size_t number)
{
    return limits->first_tiers[number];
}

size_t cv_limits_tier_number(const struct cv_limits *limits, const struct cv_identity *identity)
{
    return cv_limits_tier(limits, identity)->number;
}

/* The tiers of the start have the numbers; those that a reload adds, that of its default. */
static struct cv_status number_tiers(struct cv_limits *limits, struct rules *rules)
{
    if (!limits->first_tiers) {
        limits->first_tiers = calloc(rules->tier_count, sizeof *limits->first_tiers);
        if (!limits->first_tiers)
            return cv_status(CV_NO_MEMORY);
        for (; limits->first_count < rules->tier_count; limits->first_count++)
            limits->first_tiers[limits->first_count] = rules->tiers[limits->first_count].name;
        limits->first_default = (size_t)(rules->default_tier - rules->tiers);
    }
    for (size_t i = 0; i < rules->tier_count; i++) {
        rules->tiers[i].number = limits->first_default;
        for (size_t k = 0; k < limits->first_count; k++)
            if (strcmp(rules->tiers[i].name, limits->first_tiers[k]) == 0)
                rules->tiers[i].number = k;
    }
    return cv_ok();
}

/* ---- life ---- */

static unsigned count_max(uint32_t configured)
{
    return configured ? configured : UINT32_MAX;
}

static void rules_free(struct rules **rules)
{
    if (*rules)
        free((*rules)->tiers);
    free(*rules);
    *rules = NULL;
}

static struct cv_status rules_new(const struct cv_relay_config *config, struct rules **out)
{
    struct rules *rules = calloc(1, sizeof *rules);
    *out = NULL;
    if (!rules)
        return cv_status(CV_NO_MEMORY);
    rules->relay_rate = rate_of(config->limits_rpm, config->limits_burst);
    rules->is_by_source = config->limits_ip_rpm > 0;
    rules->source_requests = rate_of(config->limits_ip_rpm, 0);
    rules->source_upgrades = rate_of(config->limits_ip_upgrades, 0);
    rules->source_failures = rate_of(config->limits_ip_auth_failures, 0);
    rules->penalty_max_ms = config->limits_auth_penalty_ms;
    rules->max_connections = count_max(config->limits_ip_connections);
    rules->max_half_open = count_max(config->limits_ip_half_open);
    rules->max_half_open_in_sum = config->limits_half_open;
    rules->queue_size = config->queue_size;
    struct cv_status status = make_tiers(rules, config);
    if (!cv_is_ok(status))
        rules_free(&rules);
    *out = rules;
    return status;
}

struct cv_status cv_limits_new(const struct cv_relay_config *config, struct cv_limits **out)
{
    struct cv_limits *limits = calloc(1, sizeof *limits);
    *out = NULL;
    if (!limits)
        return cv_status(CV_NO_MEMORY);
    cv_random(limits->secret, sizeof limits->secret);
    struct cv_status status = cv_limits_change(limits, config);
    if (cv_is_ok(status))
        status = cv_bucket_table_new(USERS, &limits->users);
    if (cv_is_ok(status))
        status = cv_bucket_table_new(SOURCES, &limits->sources);
    if (!cv_is_ok(status))
        cv_limits_free(&limits);
    *out = limits;
    return status;
}

struct cv_status cv_limits_change(struct cv_limits *limits, const struct cv_relay_config *config)
{
    struct rules *rules;
    CV_RETURN_IF_ERROR(rules_new(config, &rules));
    struct cv_status status = number_tiers(limits, rules);
    if (!cv_is_ok(status)) {
        rules_free(&rules);
        return status;
    }
    rules_free(&limits->kept[1]);
    limits->kept[1] = limits->kept[0];
    limits->kept[0] = rules;
    atomic_store_explicit(&limits->rules, rules, memory_order_release);
    return cv_ok();
}

void cv_limits_free(struct cv_limits **limits)
{
    if (*limits) {
        cv_bucket_table_free(&(*limits)->users);
        cv_bucket_table_free(&(*limits)->sources);
        rules_free(&(*limits)->kept[0]);
        rules_free(&(*limits)->kept[1]);
        free((*limits)->first_tiers);
        free(*limits);
    }
    *limits = NULL;
}

/* ---- rates ---- */

static bool take(struct cv_limits *limits, enum cv_limit_scope scope, cv_bucket *bucket,
                 struct cv_bucket_rate rate, uint64_t now_ms, struct cv_quota *quota)
{
    if (!bucket || rate.per_minute == 0)
        return true;
    *quota = (struct cv_quota){.scope = scope, .rate = rate};
    if (cv_bucket_take(bucket, rate, 1, now_ms, &quota->state))
        return true;
    (void)atomic_fetch_add_explicit(&limits->rejections[scope], 1, memory_order_relaxed);
    return false;
}

/* The key is a hash that only the issuer of tokens has a say in. */
uint64_t cv_limits_user_tag(const struct cv_identity *identity)
{
    uint64_t tag;
    memcpy(&tag, identity->user_key, sizeof tag);
    return tag;
}

bool cv_limits_take_user(struct cv_limits *limits, const struct cv_identity *identity,
                         enum cv_limit_kind kind, uint64_t now_ms, struct cv_quota *quota)
{
    struct cv_bucket_rate rate = cv_limits_tier(limits, identity)->requests;
    *quota = (struct cv_quota){0};
    if (rate.per_minute == 0)
        return true;
    struct cv_bucket_entry *user =
        cv_bucket_table_get(limits->users, cv_limits_user_tag(identity), now_ms);
    unsigned which = kind == CV_LIMIT_REQUESTS ? USER_REQUESTS : USER_UPGRADES;
    return take(limits, CV_LIMIT_USER, user ? &user->buckets[which] : NULL, rate, now_ms, quota);
}

struct cv_quota cv_limits_look_user(struct cv_limits *limits, const struct cv_identity *identity,
                                    uint64_t now_ms)
{
    static const cv_bucket full;
    struct cv_quota quota = {.rate = cv_limits_tier(limits, identity)->requests};
    if (quota.rate.per_minute == 0)
        return quota;
    const struct cv_bucket_entry *user =
        cv_bucket_table_find(limits->users, cv_limits_user_tag(identity));
    quota.scope = CV_LIMIT_USER;
    quota.state = cv_bucket_look(user ? &user->buckets[USER_REQUESTS] : &full, quota.rate, now_ms);
    return quota;
}

bool cv_limits_take_source(struct cv_limits *limits, cv_source *source, enum cv_limit_kind kind,
                           uint64_t now_ms, struct cv_quota *quota)
{
    bool is_request = kind == CV_LIMIT_REQUESTS;
    *quota = (struct cv_quota){0};
    if (!source)
        return true;
    return take(limits, CV_LIMIT_ADDRESS,
                &source->buckets[is_request ? SOURCE_REQUESTS : SOURCE_UPGRADES],
                is_request ? rules_of(limits)->source_requests : rules_of(limits)->source_upgrades,
                now_ms, quota);
}

bool cv_limits_take_relay(struct cv_limits *limits, uint64_t now_ms, struct cv_quota *quota)
{
    *quota = (struct cv_quota){0};
    return take(limits, CV_LIMIT_RELAY, &limits->relay_bucket, rules_of(limits)->relay_rate, now_ms,
                quota);
}

uint64_t cv_limits_charge_bytes(struct cv_limits *limits, const struct cv_identity *identity,
                                uint64_t bytes, uint64_t now_ms)
{
    struct cv_bucket_rate rate = cv_limits_tier(limits, identity)->bandwidth;
    if (rate.per_minute == 0)
        return 0;
    struct cv_bucket_entry *user =
        cv_bucket_table_get(limits->users, cv_limits_user_tag(identity), now_ms);
    if (!user)
        return 0;
    /* What has gone has gone; a minute's debt is the most that one user waits off. */
    (void)cv_bucket_force(&user->buckets[USER_BYTES], rate, bytes, rate.per_minute, now_ms);
    return cv_bucket_debt_ms(&user->buckets[USER_BYTES], rate, now_ms);
}

/* ---- queues ---- */

bool cv_limits_queue_enter(struct cv_limits *limits, uint64_t user, size_t waiting, uint64_t now_ms,
                           struct cv_bucket_entry **out)
{
    struct cv_bucket_entry *entry = cv_bucket_table_get(limits->users, user, now_ms);
    bool is_in = waiting < rules_of(limits)->queue_size &&
                 (!entry || cv_bucket_entry_open(entry, USER_QUEUED, rules_of(limits)->queue_size));
    *out = is_in ? entry : NULL;
    if (!is_in)
        (void)atomic_fetch_add_explicit(&limits->dropped, 1, memory_order_relaxed);
    else if (entry)
        (void)atomic_fetch_add_explicit(&limits->queued, 1, memory_order_relaxed);
    return is_in;
}

void cv_limits_queue_leave(struct cv_limits *limits, struct cv_bucket_entry *entry)
{
    if (!entry)
        return;
    cv_bucket_entry_close(entry, USER_QUEUED);
    (void)atomic_fetch_sub_explicit(&limits->queued, 1, memory_order_relaxed);
}

struct cv_queue_fill cv_limits_queue_fill(struct cv_limits *limits,
                                          const struct cv_identity *identity)
{
    struct cv_queue_fill fill = {.size = rules_of(limits)->queue_size};
    if (atomic_load_explicit(&limits->queued, memory_order_relaxed) == 0)
        return fill;
    struct cv_bucket_entry *user =
        cv_bucket_table_find(limits->users, cv_limits_user_tag(identity));
    if (user)
        fill.queued = atomic_load_explicit(&user->counts[USER_QUEUED], memory_order_relaxed);
    return fill;
}

bool cv_queue_is_pressing(struct cv_queue_fill fill)
{
    return (uint64_t)fill.queued * 5 >= (uint64_t)fill.size * 4;
}

struct cv_queue_counts cv_limits_queue_counts(const struct cv_limits *limits)
{
    return (struct cv_queue_counts){
        .waiting = atomic_load_explicit(&limits->queued, memory_order_relaxed),
        .dropped = atomic_load_explicit(&limits->dropped, memory_order_relaxed),
        .backpressed = atomic_load_explicit(&limits->backpressed, memory_order_relaxed)};
}

void cv_limits_count_backpressure(struct cv_limits *limits)
{
    (void)atomic_fetch_add_explicit(&limits->backpressed, 1, memory_order_relaxed);
}

/* ---- sources ---- */

/* IPv6 by its first 64 bits: the rest is the user's own to choose (RFC 4291 §2.5.1). */
cv_source *cv_limits_source(struct cv_limits *limits, const struct cv_addr *addr, uint64_t now_ms)
{
    uint8_t text[SECRET_LEN + 9], digest[CV_SHA256_LEN];
    size_t len = SECRET_LEN;
    uint64_t tag;
    if (!rules_of(limits)->is_by_source || addr->len == 0)
        return NULL;
    memcpy(text, limits->secret, SECRET_LEN);
    len += cv_addr_network(addr, text + len);
    cv_sha256(cv_slice(text, len), digest);
    memcpy(&tag, digest, sizeof tag);
    return cv_bucket_table_get(limits->sources, tag, now_ms);
}

static bool open_half(struct cv_limits *limits)
{
    unsigned count = atomic_load_explicit(&limits->half_open, memory_order_relaxed);
    do {
        if (count >= rules_of(limits)->max_half_open_in_sum)
            return false;
    } while (!atomic_compare_exchange_weak_explicit(&limits->half_open, &count, count + 1,
                                                    memory_order_relaxed, memory_order_relaxed));
    return true;
}

bool cv_limits_connect(struct cv_limits *limits, const struct cv_addr *addr, uint64_t now_ms,
                       cv_source **out)
{
    cv_source *source = cv_limits_source(limits, addr, now_ms);
    *out = NULL;
    if (!source)
        return true;
    if (cv_bucket_entry_open(source, SOURCE_CONNECTIONS, rules_of(limits)->max_connections)) {
        if (cv_bucket_entry_open(source, SOURCE_HALF_OPEN, rules_of(limits)->max_half_open)) {
            if (open_half(limits)) {
                *out = source;
                return true;
            }
            cv_bucket_entry_close(source, SOURCE_HALF_OPEN);
        }
        cv_bucket_entry_close(source, SOURCE_CONNECTIONS);
    }
    (void)atomic_fetch_add_explicit(&limits->rejections[CV_LIMIT_ADDRESS], 1, memory_order_relaxed);
    return false;
}

void cv_limits_opened(struct cv_limits *limits, cv_source *source)
{
    if (!source)
        return;
    cv_bucket_entry_close(source, SOURCE_HALF_OPEN);
    (void)atomic_fetch_sub_explicit(&limits->half_open, 1, memory_order_relaxed);
}

void cv_limits_disconnect(struct cv_limits *limits, cv_source *source, bool is_half_open)
{
    if (!source)
        return;
    if (is_half_open)
        cv_limits_opened(limits, source);
    cv_bucket_entry_close(source, SOURCE_CONNECTIONS);
}

uint64_t cv_limits_auth_failed(struct cv_limits *limits, cv_source *source, uint64_t now_ms)
{
    if (!source || rules_of(limits)->source_failures.per_minute == 0)
        return 0;
    uint64_t debt = cv_bucket_force(&source->buckets[SOURCE_FAILURES],
                                    rules_of(limits)->source_failures, 1, PENALTY_DEBT_MAX, now_ms);
    if (debt == 0)
        return 0;
    uint64_t ms = (uint64_t)PENALTY_FIRST_MS << (debt - 1); /* debt <= PENALTY_DEBT_MAX */
    return ms < rules_of(limits)->penalty_max_ms ? ms : rules_of(limits)->penalty_max_ms;
}

uint64_t cv_limits_rejections(const struct cv_limits *limits, enum cv_limit_scope scope)
{
    return atomic_load_explicit(&limits->rejections[scope], memory_order_relaxed);
}

/* ---- what is told ---- */

static uint64_t seconds(uint64_t ms)
{
    return ms / 1000 + (ms % 1000 != 0);
}

unsigned cv_quota_retry_s(const struct cv_quota *quota)
{
    uint64_t s = seconds(quota->state.wait_ms);
    return s > 1 ? (unsigned)(s < 86400 ? s : 86400) : 1;
}

struct cv_status cv_quota_write(const struct cv_quota *quota, bool has_established,
                                uint64_t wall_seconds, struct cv_buf *out)
{
    static const char *const names[] = {"", "user", "address", "relay"};
    if (quota->scope == CV_LIMIT_NONE)
        return cv_ok();
    const char *name = names[quota->scope];
    uint64_t limit = quota->rate.burst, remaining = quota->state.remaining;
    /* In this time a whole burst flows in. */
    uint64_t window_s = (limit * 60 + quota->rate.per_minute - 1) / quota->rate.per_minute;
    uint64_t reset_s = seconds(quota->state.full_ms);
    CV_RETURN_IF_ERROR(cv_buf_printf(out,
                                     "RateLimit-Policy: \"%s\";q=%" PRIu64 ";w=%" PRIu64
                                     "\r\nRateLimit: \"%s\";r=%" PRIu64 ";t=%" PRIu64 "\r\n",
                                     name, limit, window_s, name, remaining, reset_s));
    if (!has_established)
        return cv_ok();
    return cv_buf_printf(out,
                         "X-RateLimit-Limit: %" PRIu64 "\r\nX-RateLimit-Remaining: %" PRIu64
                         "\r\nX-RateLimit-Reset: %" PRIu64 "\r\n",
                         limit, remaining, wall_seconds + reset_s);
}
