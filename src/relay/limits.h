/* SPDX-License-Identifier: MIT
 *
 * Who may do how much: by user (what the tier of the token grants), by address (of IPv6, by /64)
 * and for the whole relay; requests, upgrades and failed authentications are counted apart,
 * connections and half-open ones are counted as they stand. What is over is refused at once (429,
 * TUNNEL_005) or, for failed authentications, answered later.
 *
 * All of it is in tables of fixed size without locks (flow/bucket_table.h): nothing here waits, and
 * no number of users or addresses makes it grow. Who is forgotten for lack of room begins anew.
 * Owned by the relay; any thread. Borrows the configuration. What that says can be changed while
 * the relay runs: buckets go on with the new rates as they stand.
 */
#ifndef CV_RELAY_LIMITS_H
#define CV_RELAY_LIMITS_H

#include "base/buf.h"
#include "base/status.h"
#include "flow/bucket_table.h"

struct cv_addr;
struct cv_identity;
struct cv_limits;
struct cv_relay_config;

/* A user in a queue, and in logs of numbers: 64 bits of its key. */
uint64_t cv_limits_user_tag(const struct cv_identity *identity);

/* Where somebody asks from; of an address that has nothing open only good for the moment. NULL: not
 * counted. */
typedef struct cv_bucket_entry cv_source;

enum cv_limit_scope {
    CV_LIMIT_NONE,
    CV_LIMIT_USER,
    CV_LIMIT_ADDRESS,
    CV_LIMIT_RELAY,
    CV_LIMIT_SCOPE_COUNT
};

/* What is counted apart, of a user and of an address. */
enum cv_limit_kind { CV_LIMIT_REQUESTS, CV_LIMIT_UPGRADES };

/* What a tier grants; one of a fixed set. */
struct cv_tier_limits {
    const char *name;
    struct cv_bucket_rate requests;
    struct cv_bucket_rate bandwidth; /* bytes */
    unsigned links;
    size_t number; /* cv_limits_tier_number */
};

/* The outcome of a take, for the fields that tell it. */
struct cv_quota {
    enum cv_limit_scope scope; /* CV_LIMIT_NONE: there is no limit to tell about */
    struct cv_bucket_rate rate;
    struct cv_bucket_state state;
};

/* CV_NO_MEMORY; *limits is NULL then. */
struct cv_status cv_limits_new(const struct cv_relay_config *config, struct cv_limits **limits);
void cv_limits_free(struct cv_limits **limits); /* takes NULL; nulls */

/* Goes by `config` from now on, which must live as long as the one before had to: until the next
 * change but one. Between two changes every thread that looks at limits must have ended its turn.
 * CV_NO_MEMORY, CV_CONFIG (no default tier): nothing has changed. */
struct cv_status cv_limits_change(struct cv_limits *limits, const struct cv_relay_config *config);

/* What the tier of this token grants; the default tier's where the token's is not known. Good for
 * the turn. */
const struct cv_tier_limits *cv_limits_tier(const struct cv_limits *limits,
                                            const struct cv_identity *identity);

/* The tiers of the start, by number, for the labels of metrics, and which one is a token's: these
 * stay while the relay runs. A tier that came later counts as the default one of the start. Names
 * are those of the first configuration, which the relay's life is not longer than. */
size_t cv_limits_tier_count(const struct cv_limits *limits);
const char *cv_limits_tier_name(const struct cv_limits *limits, size_t number);
size_t cv_limits_tier_number(const struct cv_limits *limits, const struct cv_identity *identity);

/* One more request or upgrade of this user, from this source, on this relay; false: it is over.
 * *quota says how it stands. */
bool cv_limits_take_user(struct cv_limits *limits, const struct cv_identity *identity,
                         enum cv_limit_kind kind, uint64_t now_ms, struct cv_quota *quota);
bool cv_limits_take_source(struct cv_limits *limits, cv_source *source, enum cv_limit_kind kind,
                           uint64_t now_ms, struct cv_quota *quota);
bool cv_limits_take_relay(struct cv_limits *limits, uint64_t now_ms, struct cv_quota *quota);

/* How a user's requests stand, without taking one: for the management API. */
struct cv_quota cv_limits_look_user(struct cv_limits *limits, const struct cv_identity *identity,
                                    uint64_t now_ms);

/* A request of this user begins to wait, with `waiting` others on its link; false: `queue.size` of
 * the user, or of the link, wait already (it is counted as dropped). *entry (which may be NULL) is
 * to be given to cv_limits_queue_leave once it does not wait any more. */
bool cv_limits_queue_enter(struct cv_limits *limits, uint64_t user, size_t waiting, uint64_t now_ms,
                           struct cv_bucket_entry **entry);
void cv_limits_queue_leave(struct cv_limits *limits, struct cv_bucket_entry *entry);

/* How many requests of this user wait, of how many that may. Over all users it is 0 mostly, which
 * costs one look. */
struct cv_queue_fill {
    unsigned queued, size;
};
struct cv_queue_fill cv_limits_queue_fill(struct cv_limits *limits,
                                          const struct cv_identity *identity);
/* From four fifths on: its user should send less. */
bool cv_queue_is_pressing(struct cv_queue_fill fill);

/* Since the start. */
struct cv_queue_counts {
    unsigned waiting;     /* now */
    uint64_t dropped;     /* for lack of room */
    uint64_t backpressed; /* answers that said so */
};
struct cv_queue_counts cv_limits_queue_counts(const struct cv_limits *limits);
void cv_limits_count_backpressure(struct cv_limits *limits);

/* `bytes` have gone to a consumer of this user; returns for how many milliseconds no more should
 * follow, 0 where the tier has no bandwidth limit or is within it. */
uint64_t cv_limits_charge_bytes(struct cv_limits *limits, const struct cv_identity *identity,
                                uint64_t bytes, uint64_t now_ms);

/* The source of an address, for requests that a proxy passes on; NULL when nothing is counted by
 * address. */
cv_source *cv_limits_source(struct cv_limits *limits, const struct cv_addr *addr, uint64_t now_ms);

/* A connection from there begins: it counts as one, and as half open until cv_limits_opened. False:
 * there are too many already. *source is NULL where connections are not counted; else it is to be
 * given to cv_limits_disconnect when the connection ends. */
bool cv_limits_connect(struct cv_limits *limits, const struct cv_addr *addr, uint64_t now_ms,
                       cv_source **source);
/* The connection has brought a request: it is half open no more. Once for each. */
void cv_limits_opened(struct cv_limits *limits, cv_source *source);
/* `is_half_open`: cv_limits_opened was not called. NULL is fine. */
void cv_limits_disconnect(struct cv_limits *limits, cv_source *source, bool is_half_open);

/* A token from there was not valid. Returns for how long the answer should wait: 0 for the first
 * few of a minute, then doubling up to limits.auth_penalty; it decays as fast as failures are
 * granted.
 */
uint64_t cv_limits_auth_failed(struct cv_limits *limits, cv_source *source, uint64_t now_ms);

/* What has been refused since the start, by scope. */
uint64_t cv_limits_rejections(const struct cv_limits *limits, enum cv_limit_scope scope);

/* Seconds for Retry-After, at least 1. */
unsigned cv_quota_retry_s(const struct cv_quota *quota);

/* Appends RateLimit and RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers-10 §3, §4; -11
 * of May 2026 has the same two), and,
 * `has_established` too, X-RateLimit-Limit, -Remaining and -Reset (Unix seconds), as lines with
 * CRLF; nothing where there is no limit. CV_NO_MEMORY, CV_NO_RESOURCES. */
struct cv_status cv_quota_write(const struct cv_quota *quota, bool has_established,
                                uint64_t wall_seconds, struct cv_buf *out);

#endif
