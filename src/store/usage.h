/* SPDX-License-Identifier: MIT
 *
 * What was done in a span of time through one tunnel of one user, in numbers that can be added:
 * over workers, minutes, tunnels. And a table of these by user and tunnel, which one thread fills.
 *
 * The table owns its entries, at most `max` of them; what finds no room is still in `rest`, so that
 * the sum over a table is always whole. One thread at a time.
 */
#ifndef CV_STORE_USAGE_H
#define CV_STORE_USAGE_H

#include "base/digest.h"
#include "base/tunnel_name.h"
#include "telemetry/sketch.h"

/* X(NAME, "column", "what it counts"): a column of the database each, in this order. Times are in
 * microseconds. */
/* clang-format off */
#define CV_USAGE_COUNTS(X)                                                                         \
    X(REQUESTS,          "requests",          "requests that ended")                               \
    X(ERRORS,            "errors",            "of them, 5xx, whoever said it, or cut in the answer") \
    X(CANCELLED,         "cancelled",         "of them, given up by the consumer")                 \
    X(STATUS_1XX,        "status_1xx",        "answered 1xx: upgraded")                            \
    X(STATUS_2XX,        "status_2xx",        "answered 2xx")                                      \
    X(STATUS_3XX,        "status_3xx",        "answered 3xx")                                      \
    X(STATUS_4XX,        "status_4xx",        "answered 4xx")                                      \
    X(STATUS_5XX,        "status_5xx",        "answered 5xx")                                      \
    X(BYTES_IN,          "bytes_in",          "of requests' bodies")                               \
    X(BYTES_OUT,         "bytes_out",         "of answers, their heads included")                  \
    X(QUEUE_US,          "queue_us",          "waited for a stream, in sum")                       \
    X(STREAM_US,         "stream_us",         "held a stream, in sum")                             \
    X(PROMPT_TOKENS,     "prompt_tokens",     "read by models, where these say so")                \
    X(COMPLETION_TOKENS, "completion_tokens", "written by models, where these say so")
/* clang-format on */

enum cv_usage_count {
#define CV_USAGE_ENUM(name, ...) CV_USAGE_##name,
    CV_USAGE_COUNTS(CV_USAGE_ENUM)
#undef CV_USAGE_ENUM
        CV_USAGE_COUNT
};

struct cv_usage {
    uint64_t counts[CV_USAGE_COUNT];
    struct cv_sketch latency;    /* whole requests, microseconds */
    struct cv_sketch first_byte; /* to the first byte of the answer's head, where there was one */
};

enum { CV_USAGE_SUBJECT_MAX = 63, CV_USAGE_USER_LEN = CV_SHA256_LEN };

/* Whose, and which; compared as bytes, so what is behind the name's end is zero. */
struct cv_usage_key {
    uint8_t user[CV_USAGE_USER_LEN];
    char tunnel[CV_TUNNEL_NAME_MAX + 1];
};

/* A user's name as it is kept: what fits of it. */
void cv_usage_subject(const char *subject, char out[CV_USAGE_SUBJECT_MAX + 1]);

/* One request that has ended. */
struct cv_usage_request {
    int status;        /* the answer's; 0: none went out */
    bool is_cut;       /* it broke off behind its head */
    bool is_cancelled; /* the consumer left before it was whole */
    bool has_first_byte;
    uint64_t bytes_in, bytes_out;
    uint64_t latency_us, first_byte_us, queue_us, stream_us;
    uint64_t prompt_tokens, completion_tokens;
};

/* Counts it. Constant time, no allocation; counts stay at UINT64_MAX once there. */
void cv_usage_note(struct cv_usage *usage, const struct cv_usage_request *request);
/* Adds what is in `from`. */
void cv_usage_merge(struct cv_usage *into, const struct cv_usage *from);

const char *cv_usage_column(enum cv_usage_count count);

struct cv_usage_table;

/* NULL without memory. `minute` is Unix time / 60, for the caller's use. */
struct cv_usage_table *cv_usage_table_new(int64_t minute, size_t max);
void cv_usage_table_free(struct cv_usage_table **table);

int64_t cv_usage_table_minute(const struct cv_usage_table *table);
size_t cv_usage_table_count(const struct cv_usage_table *table);

void cv_usage_key_init(struct cv_usage_key *key, const uint8_t user[CV_USAGE_USER_LEN],
                       const char *tunnel);

/* Where to count what `key` does: an entry of its own, made if need be, else the rest. `subject` is
 * the user's name for people, cut at CV_USAGE_SUBJECT_MAX bytes. Valid until the table is freed or
 * trimmed. */
struct cv_usage *cv_usage_table_at(struct cv_usage_table *table, const struct cv_usage_key *key,
                                   const char *subject);

/* Adds all entries and the rest of `from`. */
void cv_usage_table_merge(struct cv_usage_table *into, const struct cv_usage_table *from);

/* Takes out what was last asked for before the table's own minute was `minute`, to make room; its
 * numbers go into the rest. */
void cv_usage_table_trim(struct cv_usage_table *table, int64_t minute);
/* What cv_usage_table_at notes as the time at which an entry was asked for. */
void cv_usage_table_set_minute(struct cv_usage_table *table, int64_t minute);

/* The sum of everything in it, added to *usage. */
void cv_usage_table_sum(const struct cv_usage_table *table, struct cv_usage *usage);

struct cv_usage_entry {
    const struct cv_usage_key *key;
    const char *subject;
    const struct cv_usage *usage;
};
/* Every entry, without the rest; ends early when `each` returns false, which it then returns. */
bool cv_usage_table_each(const struct cv_usage_table *table,
                         bool (*each)(void *arg, const struct cv_usage_entry *entry), void *arg);

#endif
