/* SPDX-License-Identifier: MIT
 *
 * The one list of all metrics: names, help, units, labels with every value they can have, buckets.
 * Where a number is kept, how it is written out and docs/metrics.md follow from it. A label's
 * values are closed: nothing that a consumer, an agent or a token says is ever one of them. Tiers
 * are the operator's, from the configuration.
 *
 * The relay has CV_METRICS_SHARED and CV_METRICS_RELAY, the agent CV_METRICS_SHARED and
 * CV_METRICS_AGENT; what is shared has the same place in both, so that the code of links need not
 * know whose they are.
 */
#ifndef CV_TELEMETRY_METRICS_LIST_H
#define CV_TELEMETRY_METRICS_LIST_H

#include "base/status.h"
#include "flow/queue.h"

/* Tiers that have numbers of their own; with "none" (it is not known who asks) and "other" (more
 * tiers than that). */
enum { CV_METRIC_TIERS_MAX = 14 };

/* ---- labels: V(LABEL, VALUE, "value") ---- */

/* clang-format off */
#define CV_VALUES_RESULT(V)                                                                        \
    V(RESULT, OK, "ok")                                                                            \
    V(RESULT, UNAUTHORIZED, "unauthorized")                                                        \
    V(RESULT, LIMITED, "limited")                                                                  \
    V(RESULT, BAD_REQUEST, "bad_request")                                                          \
    V(RESULT, RESUME_REFUSED, "resume_refused")                                                    \
    V(RESULT, NETWORK, "network")                                                                  \
    V(RESULT, ERROR, "error")
#define CV_VALUES_REASON(V)                                                                        \
    V(REASON, CLOSED, "closed")                                                                    \
    V(REASON, NETWORK, "network")                                                                  \
    V(REASON, TIMEOUT, "timeout")                                                                  \
    V(REASON, PROTOCOL, "protocol")                                                                \
    V(REASON, TOKEN, "token")                                                                      \
    V(REASON, REPLACED, "replaced")                                                                \
    V(REASON, OPERATOR, "operator")                                                                \
    V(REASON, SHUTDOWN, "shutdown")                                                                \
    V(REASON, LIMIT, "limit")                                                                      \
    V(REASON, ERROR, "error")
#define CV_VALUES_KIND(V) V(KIND, RESUMED, "resumed") V(KIND, FRESH, "fresh")
#define CV_VALUES_DIRECTION(V) V(DIRECTION, SENT, "sent") V(DIRECTION, RECEIVED, "received")
/* Of replayed bytes: each side knows what it sends again. */
#define CV_VALUES_REPLAY(V) V(REPLAY, SENT, "sent")
#define CV_VALUES_FLOW(V) V(FLOW, TO_SERVICE, "to_service") V(FLOW, TO_CONSUMER, "to_consumer")
#define CV_VALUES_QUALITY(V)                                                                       \
    V(QUALITY, EXCELLENT, "excellent")                                                             \
    V(QUALITY, GOOD, "good")                                                                       \
    V(QUALITY, FAIR, "fair")                                                                       \
    V(QUALITY, POOR, "poor")                                                                       \
    V(QUALITY, UNKNOWN, "unknown")                                                                 \
    V(QUALITY, DETACHED, "detached")
#define CV_VALUES_STATUS(V)                                                                        \
    V(STATUS, SUCCESS, "success")                                                                  \
    V(STATUS, ERROR, "error")                                                                      \
    V(STATUS, TIMEOUT, "timeout")                                                                  \
    V(STATUS, CANCELLED, "cancelled")                                                              \
    V(STATUS, REJECTED, "rejected")
#define CV_VALUES_POOL(V) V(POOL, STREAMS, "streams")
#define CV_VALUES_POOL_STATE(V) V(POOL_STATE, ACTIVE, "active") V(POOL_STATE, IDLE, "idle")
#define CV_VALUES_BREAKER(V) V(BREAKER, TUNNELS, "tunnels")
#define CV_VALUES_BREAKER_STATE(V)                                                                 \
    V(BREAKER_STATE, CLOSED, "closed")                                                             \
    V(BREAKER_STATE, OPEN, "open")                                                                 \
    V(BREAKER_STATE, HALF_OPEN, "half_open")
#define CV_VALUES_TO(V) V(TO, CLOSED, "closed") V(TO, OPEN, "open") V(TO, HALF_OPEN, "half_open")
#define CV_VALUES_SCOPE(V) V(SCOPE, GLOBAL, "global") V(SCOPE, USER, "user") V(SCOPE, IP, "ip")
#define CV_VALUES_AUTH(V)                                                                          \
    V(AUTH, OK, "ok")                                                                              \
    V(AUTH, EXPIRED, "expired")                                                                    \
    V(AUTH, NOT_YET_VALID, "not_yet_valid")                                                        \
    V(AUTH, BAD_SIGNATURE, "bad_signature")                                                        \
    V(AUTH, WRONG_AUDIENCE, "wrong_audience")                                                      \
    V(AUTH, WRONG_ISSUER, "wrong_issuer")                                                          \
    V(AUTH, UNKNOWN_KEY, "unknown_key")                                                            \
    V(AUTH, MALFORMED, "malformed")                                                                \
    V(AUTH, MISSING, "missing")                                                                    \
    V(AUTH, REVOKED, "revoked")                                                                    \
    V(AUTH, OTHER, "other")
#define CV_VALUES_JWKS(V) V(JWKS, OK, "ok") V(JWKS, FAILED, "failed")
#define CV_VALUES_OPCODE(V)                                                                        \
    V(OPCODE, CONTINUATION, "continuation")                                                        \
    V(OPCODE, TEXT, "text")                                                                        \
    V(OPCODE, BINARY, "binary")                                                                    \
    V(OPCODE, CLOSE, "close")                                                                      \
    V(OPCODE, PING, "ping")                                                                        \
    V(OPCODE, PONG, "pong")
#define CV_VALUES_OPEN(V) /* RFC 4254 §5.1 */                                                      \
    V(OPEN, PROHIBITED, "prohibited")                                                              \
    V(OPEN, CONNECT_FAILED, "connect_failed")                                                      \
    V(OPEN, UNKNOWN_TYPE, "unknown_type")                                                          \
    V(OPEN, RESOURCE_SHORTAGE, "resource_shortage")                                                \
    V(OPEN, OTHER, "other")
#define CV_VALUES_LEVEL(V)                                                                         \
    V(LEVEL, ERROR, "error")                                                                       \
    V(LEVEL, WARN, "warn")                                                                         \
    V(LEVEL, INFO, "info")                                                                         \
    V(LEVEL, DEBUG, "debug")                                                                       \
    V(LEVEL, TRACE, "trace")
#define CV_VALUES_DROP(V)                                                                          \
    V(DROP, QUEUE_FULL, "queue_full")                                                              \
    V(DROP, UNREACHABLE, "unreachable")                                                            \
    V(DROP, REJECTED, "rejected")                                                                  \
    V(DROP, SHUTDOWN, "shutdown")                                                                  \
    V(DROP, NO_MEMORY, "no_memory")
#define CV_VALUES_API(V) V(API, OPENAI, "openai") V(API, OLLAMA, "ollama")
#define CV_VALUES_TOKENS(V) V(TOKENS, PROMPT, "prompt") V(TOKENS, COMPLETION, "completion")
#define CV_VALUES_SERVICE(V)                                                                       \
    V(SERVICE, OK, "ok")                                                                           \
    V(SERVICE, REFUSED, "refused")                                                                 \
    V(SERVICE, TIMEOUT, "timeout")                                                                 \
    V(SERVICE, UNREACHABLE, "unreachable")
#define CV_VALUES_QUANTILE(V) V(QUANTILE, P50, "0.5") V(QUANTILE, P95, "0.95") V(QUANTILE, P99, "0.99")

/* L(LABEL, "label"), those whose values stand above. */
#define CV_METRIC_LABELS(L)                                                                        \
    L(RESULT, "result")                                                                            \
    L(REASON, "reason")                                                                            \
    L(KIND, "kind")                                                                                \
    L(DIRECTION, "direction")                                                                      \
    L(REPLAY, "direction")                                                                         \
    L(FLOW, "direction")                                                                           \
    L(QUALITY, "quality")                                                                          \
    L(STATUS, "status")                                                                            \
    L(POOL, "pool")                                                                                \
    L(POOL_STATE, "state")                                                                         \
    L(BREAKER, "breaker")                                                                          \
    L(BREAKER_STATE, "state")                                                                      \
    L(TO, "to")                                                                                    \
    L(SCOPE, "scope")                                                                              \
    L(AUTH, "result")                                                                              \
    L(JWKS, "result")                                                                              \
    L(OPCODE, "opcode")                                                                            \
    L(OPEN, "reason")                                                                              \
    L(LEVEL, "level")                                                                              \
    L(DROP, "reason")                                                                              \
    L(API, "api")                                                                                  \
    L(TOKENS, "kind")                                                                              \
    L(SERVICE, "result")                                                                           \
    L(QUANTILE, "quantile")

/* ---- buckets: B(SET, unit of what is counted, upper bounds in that unit …) ---- */

#define CV_US 1000ull
#define CV_MS (1000 * CV_US)
#define CV_S (1000 * CV_MS)

/* Scales make the unit of the page from that of the counting: seconds from nanoseconds. */
#define CV_METRIC_BUCKETS(B)                                                                       \
    B(REQUEST, 1e-9, 5 * CV_MS, 10 * CV_MS, 25 * CV_MS, 50 * CV_MS, 100 * CV_MS, 250 * CV_MS,      \
      500 * CV_MS, 1 * CV_S, 2500 * CV_MS, 5 * CV_S, 10 * CV_S, 30 * CV_S, 60 * CV_S, 120 * CV_S,  \
      300 * CV_S)                                                                                  \
    B(WAIT, 1e-9, 1 * CV_MS, 5 * CV_MS, 25 * CV_MS, 100 * CV_MS, 500 * CV_MS, 1 * CV_S, 5 * CV_S,  \
      15 * CV_S, 60 * CV_S, 300 * CV_S)                                                            \
    B(OVERHEAD, 1e-9, 25 * CV_US, 50 * CV_US, 100 * CV_US, 250 * CV_US, 500 * CV_US, 1 * CV_MS,    \
      2500 * CV_US, 5 * CV_MS, 10 * CV_MS, 25 * CV_MS, 50 * CV_MS, 100 * CV_MS, 500 * CV_MS,       \
      1 * CV_S)                                                                                    \
    B(RTT, 1e-9, 1 * CV_MS, 5 * CV_MS, 10 * CV_MS, 25 * CV_MS, 50 * CV_MS, 100 * CV_MS,            \
      250 * CV_MS, 500 * CV_MS, 1 * CV_S, 2500 * CV_MS, 5 * CV_S, 10 * CV_S)                       \
    B(LIFE, 1e-9, 1 * CV_S, 10 * CV_S, 60 * CV_S, 300 * CV_S, 900 * CV_S, 3600 * CV_S,             \
      4 * 3600 * CV_S, 8 * 3600 * CV_S, 12 * 3600 * CV_S, 24 * 3600 * CV_S)                        \
    B(SPEED, 1, 1, 2, 5, 10, 20, 30, 50, 75, 100, 150, 250, 500, 1000)                             \
    B(TOKENS, 1, 16, 64, 256, 1024, 4096, 16384, 65536, 262144)

/* ---- the metrics: X(ID, KIND, "name", LABEL, LABEL, UNIT, BUCKETS, "help") ---- */

#define CV_METRICS_SHARED(X)                                                                       \
    X(BUILD_INFO, INFO, "tunnel_build_info", NONE, NONE, NONE, NONE,                               \
      "Always 1; the labels say which program this is.")                                           \
    X(ACTIVE_CONNECTIONS, GAUGE, "tunnel_active_connections", NONE, NONE, NONE, NONE,              \
      "Links that are there, also those that wait for their agent to come back.")                  \
    X(CONNECTIONS, COUNTER, "tunnel_connections_total", RESULT, NONE, NONE, NONE,                  \
      "Attempts to open or resume a link, by what came of them.")                                  \
    X(DISCONNECTIONS, COUNTER, "tunnel_disconnections_total", REASON, NONE, NONE, NONE,            \
      "Links that have ended for good, by why.")                                                   \
    X(RECONNECTIONS, COUNTER, "tunnel_reconnections_total", KIND, NONE, NONE, NONE,                \
      "Agents that came back: on the link they had (resumed), or on a new one (fresh).")           \
    X(REPLAYED_BYTES, COUNTER, "tunnel_replayed_bytes_total", REPLAY, NONE, BYTES, NONE,           \
      "Bytes of links that this side sent again when a link was resumed.")                         \
    X(SETUP_DURATION, HISTOGRAM, "tunnel_connection_setup_duration_seconds", NONE, NONE, SECONDS,  \
      RTT, "From the upgrade of a link to its first registered tunnel.")                           \
    X(CONNECTION_DURATION, HISTOGRAM, "tunnel_connection_duration_seconds", NONE, NONE, SECONDS,   \
      LIFE, "How long links lived, those that have ended.")                                        \
    X(QUALITY, GAUGE, "tunnel_connection_quality", QUALITY, NONE, NONE, NONE,                      \
      "Links by quality: of the round trip of their last ping, or detached.")                      \
    X(ERRORS, COUNTER, "tunnel_errors_total", ERROR, NONE, NONE, NONE,                             \
      "Errors that were told to somebody or ended a link, by category and code.")                  \
    X(BYTES, COUNTER, "tunnel_bytes_transferred_total", FLOW, NONE, NONE, NONE,                    \
      "Bytes carried between consumers and services, without framing and encryption.")             \
    X(FRAMES, COUNTER, "tunnel_websocket_frames_total", DIRECTION, OPCODE, NONE, NONE,             \
      "WebSocket frames of links.")                                                                \
    X(PING_RTT, HISTOGRAM, "tunnel_websocket_ping_rtt_seconds", NONE, NONE, SECONDS, RTT,          \
      "Round trips of WebSocket pings on links.")                                                  \
    X(CHANNELS, GAUGE, "tunnel_ssh_channels_active", NONE, NONE, NONE, NONE,                       \
      "SSH channels open or opening.")                                                             \
    X(CHANNEL_FAILURES, COUNTER, "tunnel_ssh_channel_open_failures_total", OPEN, NONE, NONE, NONE, \
      "SSH channels that were asked for and not opened, by why.")                                  \
    X(KEEPALIVE_FAILURES, COUNTER, "tunnel_ssh_keepalive_failures_total", NONE, NONE, NONE, NONE,  \
      "Links whose socket was given up since nothing came back any more.")                         \
    X(LOG_MESSAGES, COUNTER, "tunnel_log_messages_total", LEVEL, NONE, NONE, NONE,                 \
      "Lines of the log.")                                                                         \
    X(SERIES, GAUGE, "tunnel_metrics_series", NONE, NONE, NONE, NONE,                              \
      "Series on this page.")                                                                      \
    X(SERIES_REFUSED, COUNTER, "tunnel_metrics_series_refused_total", NONE, NONE, NONE, NONE,      \
      "Tiers without numbers of their own, for the limit of series; they count as other.")         \
    X(PROCESS_CPU, COUNTER, "process_cpu_seconds_total", NONE, NONE, SECONDS, NONE,                \
      "Total user and system CPU time spent in seconds.")                                          \
    X(PROCESS_RESIDENT, GAUGE, "process_resident_memory_bytes", NONE, NONE, BYTES, NONE,           \
      "Resident memory size in bytes.")                                                            \
    X(PROCESS_VIRTUAL, GAUGE, "process_virtual_memory_bytes", NONE, NONE, BYTES, NONE,             \
      "Virtual memory size in bytes.")                                                             \
    X(PROCESS_OPEN_FDS, GAUGE, "process_open_fds", NONE, NONE, NONE, NONE,                         \
      "Number of open file descriptors.")                                                          \
    X(PROCESS_MAX_FDS, GAUGE, "process_max_fds", NONE, NONE, NONE, NONE,                           \
      "Maximum number of open file descriptors.")                                                  \
    X(PROCESS_START, GAUGE, "process_start_time_seconds", NONE, NONE, SECONDS, NONE,               \
      "Start time of the process since unix epoch in seconds.")

#define CV_METRICS_RELAY(X)                                                                        \
    X(ACTIVE_USERS, GAUGE, "tunnel_active_users", TIER, NONE, NONE, NONE,                          \
      "Users with at least one link.")                                                             \
    X(REQUESTS, COUNTER, "tunnel_requests_total", STATUS, TIER, NONE, NONE,                        \
      "Requests for tunnels that have ended, by how. What the service answers is a success.")      \
    X(REQUESTS_SUCCESS, COUNTER, "tunnel_requests_success_total", TIER, NONE, NONE, NONE,          \
      "Requests that ended with a whole answer of the service.")                                   \
    X(REQUESTS_FAILED, COUNTER, "tunnel_requests_failed_total", TIER, NONE, NONE, NONE,            \
      "Requests that ended otherwise.")                                                            \
    X(IN_FLIGHT, GAUGE, "tunnel_requests_in_flight", TIER, NONE, NONE, NONE,                       \
      "Requests for tunnels under way.")                                                           \
    X(QUEUED, GAUGE, "tunnel_queued_requests", PRIORITY, NONE, NONE, NONE,                         \
      "Requests that wait for a stream.")                                                          \
    X(QUEUE_DURATION, HISTOGRAM, "tunnel_request_queue_duration_seconds", PRIORITY, NONE, SECONDS, \
      WAIT, "How long requests waited for a stream, those that had to.")                           \
    X(REQUEST_DURATION, HISTOGRAM, "tunnel_request_duration_seconds", TIER, NONE, SECONDS,         \
      REQUEST, "From a request's head to the end of its answer.")                                  \
    X(FIRST_BYTE, HISTOGRAM, "tunnel_request_first_byte_duration_seconds", TIER, NONE, SECONDS,    \
      REQUEST, "From a request's head to the first byte of the service's answer.")                 \
    X(OVERHEAD, HISTOGRAM, "tunnel_request_overhead_seconds", NONE, NONE, SECONDS, OVERHEAD,       \
      "The relay's own share: from a request's head to its first byte on the link, and from the "  \
      "first byte of the answer on the link to the consumer's socket.")                            \
    X(SLOW_REQUESTS, COUNTER, "tunnel_slow_requests_total", NONE, NONE, NONE, NONE,                \
      "Requests whose first byte took longer than 5 s.")                                           \
    X(LATENCY_MS, SUMMARY, "tunnel_request_latency_ms", QUANTILE, NONE, NONE, NONE,                \
      "Duration of requests in milliseconds; quantiles of the last 5 minutes.")                    \
    X(LATENCY_AVG_MS, GAUGE, "tunnel_request_latency_avg_ms", NONE, NONE, NONE, NONE,              \
      "Mean duration of the requests of the last 5 minutes in milliseconds.")                      \
    X(LATENCY_P95_MS, GAUGE, "tunnel_request_latency_p95_ms", NONE, NONE, NONE, NONE,              \
      "95th percentile of the same.")                                                              \
    X(LATENCY_P99_MS, GAUGE, "tunnel_request_latency_p99_ms", NONE, NONE, NONE, NONE,              \
      "99th percentile of the same.")                                                              \
    X(REQUEST_RATE, GAUGE, "tunnel_request_success_rate", NONE, NONE, NONE, NONE,                  \
      "Successful part of the requests of the last 5 minutes; 1 when there were none.")            \
    X(CONNECTION_RATE, GAUGE, "tunnel_connection_success_rate", NONE, NONE, NONE, NONE,            \
      "Successful part of the link attempts of the last 5 minutes; 1 when there were none.")       \
    X(POOL_USAGE, GAUGE, "tunnel_connection_pool_usage", POOL, NONE, NONE, NONE,                   \
      "Streams in use, as part of those that the links could carry.")                              \
    X(POOL_CONNECTIONS, GAUGE, "tunnel_connection_pool_connections", POOL, POOL_STATE, NONE, NONE, \
      "Streams of links: in use, or kept for the next request.")                                   \
    X(POOL_CAPACITY, GAUGE, "tunnel_connection_pool_capacity", POOL, NONE, NONE, NONE,             \
      "Streams that the links could carry.")                                                       \
    X(BREAKER_WORST, GAUGE, "tunnel_circuit_breaker_state", BREAKER, NONE, NONE, NONE,             \
      "The worst of the breakers: 0 closed, 2 half open, 1 open.")                                 \
    X(BREAKERS, GAUGE, "tunnel_circuit_breakers", BREAKER, BREAKER_STATE, NONE, NONE,              \
      "Breakers of tunnels that have something to tell, by state.")                                \
    X(BREAKER_TRANSITIONS, COUNTER, "tunnel_circuit_breaker_transitions_total", BREAKER,           \
      TO, NONE, NONE, "Changes of breakers, by what they changed to.")                  \
    X(BREAKER_REJECTIONS, COUNTER, "tunnel_circuit_breaker_rejections_total", BREAKER, NONE, NONE, \
      NONE, "Requests that an open breaker turned away.")                                          \
    X(RATE_LIMITED, COUNTER, "tunnel_rate_limit_rejections_total", SCOPE, TIER, NONE, NONE,        \
      "Requests, upgrades and connections over a limit.")                                          \
    X(AUTH_ATTEMPTS, COUNTER, "tunnel_auth_attempts_total", AUTH, NONE, NONE, NONE,                \
      "Tokens that were looked at, by what came of it.")                                           \
    X(JWKS_REFRESHES, COUNTER, "tunnel_auth_jwks_refreshes_total", JWKS, NONE, NONE, NONE,         \
      "Fetches of the issuer's keys.")                                                             \
    X(SPANS_DROPPED, COUNTER, "tunnel_otlp_spans_dropped_total", DROP, NONE, NONE, NONE,           \
      "Spans that did not reach the collector.")                                                   \
    X(MODEL_FIRST_TOKEN, HISTOGRAM, "tunnel_model_first_token_seconds", API, NONE, SECONDS,        \
      REQUEST, "From a request's head to the first event of a model's stream.")                    \
    X(MODEL_SPEED, HISTOGRAM, "tunnel_model_tokens_per_second", API, NONE, NONE, SPEED,            \
      "Completion tokens a second, of each stream that said how many there were.")                 \
    X(MODEL_PROMPT, HISTOGRAM, "tunnel_model_prompt_tokens", API, NONE, NONE, TOKENS,              \
      "Prompt tokens of a request, where the stream says it.")                                     \
    X(MODEL_COMPLETION, HISTOGRAM, "tunnel_model_completion_tokens", API, NONE, NONE, TOKENS,      \
      "Completion tokens of a request, where the stream says it.")                                 \
    X(MODEL_TOKENS, COUNTER, "tunnel_model_tokens_total", API, TOKENS, NONE, NONE,                 \
      "Tokens, where streams say how many.")

#define CV_METRICS_AGENT(X)                                                                        \
    X(SERVICE_CONNECTIONS, COUNTER, "tunnel_agent_service_connections_total", SERVICE, NONE, NONE, \
      NONE, "Connections to the local service, by what came of them.")                             \
    X(SERVICE_DURATION, HISTOGRAM, "tunnel_agent_service_connect_seconds", NONE, NONE, SECONDS,    \
      OVERHEAD, "How long connecting to the local service took, where it succeeded.")              \
    X(PUBLISHED, GAUGE, "tunnel_agent_published_tunnels", NONE, NONE, NONE, NONE,                  \
      "Tunnels that the relay has accepted from this agent.")
/* clang-format on */

/* ---- what follows from it ---- */

/* CV_L_STATUS_SUCCESS …, CV_L_STATUS_COUNT */
#define CV_METRIC_VALUE_ENUM(label, value, text) CV_L_##label##_##value,
#define CV_METRIC_LABEL_ENUM(label, text)                                                          \
    enum { CV_VALUES_##label(CV_METRIC_VALUE_ENUM) CV_L_##label##_COUNT };
CV_METRIC_LABELS(CV_METRIC_LABEL_ENUM)
#undef CV_METRIC_LABEL_ENUM
#undef CV_METRIC_VALUE_ENUM

enum {
    CV_L_NONE_COUNT = 1,
    CV_L_TIER_NONE = 0,
    CV_L_TIER_COUNT = CV_METRIC_TIERS_MAX + 2,
    CV_L_PRIORITY_COUNT = CV_PRIORITY_COUNT,
    CV_L_ERROR_COUNT = CV_STATUS_COUNT, /* pairs of category and code: fewer than that */
};

enum cv_metric_label {
#define CV_METRIC_LABEL_ID(label, text) CV_LABEL_##label,
    CV_METRIC_LABELS(CV_METRIC_LABEL_ID)
#undef CV_METRIC_LABEL_ID
        CV_LABEL_TIER,
    CV_LABEL_PRIORITY,
    CV_LABEL_ERROR, /* writes two: error_category and error_code */
    CV_LABEL_NONE,
    CV_LABEL_COUNT = CV_LABEL_NONE
};

enum cv_metric_buckets {
#define CV_METRIC_BUCKETS_ID(set, scale, ...) CV_BUCKETS_##set,
    CV_METRIC_BUCKETS(CV_METRIC_BUCKETS_ID)
#undef CV_METRIC_BUCKETS_ID
        CV_BUCKETS_COUNT,
    CV_BUCKETS_NONE = CV_BUCKETS_COUNT
};

/* How many bounds each set has. */
enum {
#define CV_METRIC_BUCKETS_LEN(set, scale, ...)                                                     \
    CV_BUCKETS_LEN_##set = sizeof((unsigned long long[]){__VA_ARGS__}) / sizeof(unsigned long long),
    CV_METRIC_BUCKETS(CV_METRIC_BUCKETS_LEN)
#undef CV_METRIC_BUCKETS_LEN
        CV_BUCKETS_LEN_NONE = 0
};

/* Cells of one series: a histogram has its buckets, the one above them, and the sum; a summary's
 * sum and count stand behind its quantiles. */
#define CV_METRIC_SPAN_COUNTER(buckets) 1
#define CV_METRIC_SPAN_GAUGE(buckets) 1
#define CV_METRIC_SPAN_INFO(buckets) 1
#define CV_METRIC_SPAN_SUMMARY(buckets) 2
#define CV_METRIC_SPAN_HISTOGRAM(buckets) (CV_BUCKETS_LEN_##buckets + 2)

enum {
#define CV_METRIC_SHAPE(id, kind, name, l1, l2, unit, buckets, help)                               \
    CV_SPAN_##id = CV_METRIC_SPAN_##kind(buckets), CV_WIDTH_##id = CV_L_##l2##_COUNT,              \
    CV_BUCKETS_OF_##id = CV_BUCKETS_##buckets,
    CV_METRICS_SHARED(CV_METRIC_SHAPE) CV_METRICS_RELAY(CV_METRIC_SHAPE)
        CV_METRICS_AGENT(CV_METRIC_SHAPE)
#undef CV_METRIC_SHAPE
};

/* The first cell of each. */
#define CV_METRIC_PLACE(id, kind, name, l1, l2, unit, buckets, help)                               \
    CV_AT_##id,                                                                                    \
        CV_LAST_##id = CV_AT_##id + CV_L_##l1##_COUNT * CV_L_##l2##_COUNT * CV_SPAN_##id - 1,
enum { CV_METRICS_SHARED(CV_METRIC_PLACE) CV_METRICS_SHARED_CELLS };
enum {
    CV_METRICS_RELAY_FIRST = CV_METRICS_SHARED_CELLS - 1,
    CV_METRICS_RELAY(CV_METRIC_PLACE) CV_METRICS_RELAY_CELLS
};
enum {
    CV_METRICS_AGENT_FIRST = CV_METRICS_SHARED_CELLS - 1,
    CV_METRICS_AGENT(CV_METRIC_PLACE) CV_METRICS_AGENT_CELLS
};
#undef CV_METRIC_PLACE

/* The cell of a series: CV_CELL(REQUESTS, CV_L_STATUS_SUCCESS, tier). */
#define CV_CELL(id, first, second)                                                                 \
    ((uint32_t)CV_AT_##id + ((uint32_t)(first)*CV_WIDTH_##id + (uint32_t)(second)) * CV_SPAN_##id)

#endif
