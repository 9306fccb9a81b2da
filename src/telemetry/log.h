/* SPDX-License-Identifier: MIT
 *
 * Structured log: one JSON object a line for machines, readable text for a terminal.
 * Handed around as `struct cv_log *`, never global; a NULL log is silent. A line that is below the
 * level costs one relaxed load and evaluates none of its fields.
 *
 * A log must never stop the data path: it is written without blocking. Pipes and terminals are
 * opened anew through /proc/self/fd, so that O_NONBLOCK stays ours and does not leak to the other
 * processes that share the file description; sockets use MSG_DONTWAIT. What does not fit waits in
 * a backlog of CV_LOG_BACKLOG_MAX bytes, what does not fit there is dropped and counted, and the
 * loss is told in a line of its own once the reader is back. Lines are at most CV_LOG_LINE_MAX
 * bytes, which a pipe takes whole or not at all (pipe(7)).
 *
 * Secrets: values of fields named like credentials are hidden, and anything that looks like a
 * bearer token or a JWT is taken out of every string (redact.h). Bodies are never to be logged.
 *
 * Owns copies of its identity strings and, where it opened one, its descriptor; borrows the
 * descriptor it was given. Any thread; lines come out whole. The process must ignore SIGPIPE.
 */
#ifndef CV_TELEMETRY_LOG_H
#define CV_TELEMETRY_LOG_H

#include "base/buf.h"
#include "base/slice.h"
#include "base/status.h"
#include "telemetry/trace_context.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

#define CV_LOG_LINE_MAX 4096
#define CV_LOG_BACKLOG_MAX (64 * 1024)

/* Per event of cv_log_limited: so many at once, then so many a second. */
#define CV_LOG_LIMIT_BURST 10
#define CV_LOG_LIMIT_PER_SECOND 1
#define CV_LOG_LIMIT_EVENTS 64

enum cv_log_level {
    CV_LOG_ERROR,
    CV_LOG_WARN,
    CV_LOG_INFO,
    CV_LOG_DEBUG,
    CV_LOG_TRACE,
    CV_LOG_LEVEL_COUNT
};

enum cv_log_format {
    CV_LOG_FORMAT_AUTO, /* text on a terminal, JSON otherwise */
    CV_LOG_FORMAT_JSON,
    CV_LOG_FORMAT_TEXT,
};

enum cv_log_field_kind {
    CV_LOG_FIELD_END,
    CV_LOG_FIELD_STR,
    CV_LOG_FIELD_SLICE,
    CV_LOG_FIELD_INT,
    CV_LOG_FIELD_UINT,
    CV_LOG_FIELD_BOOL,
    CV_LOG_FIELD_STATUS,
    CV_LOG_FIELD_ERROR,
    CV_LOG_FIELD_TRACE,
};

/* One typed field. Made by the CV_F_ macros; borrows what it points to for the call. */
struct cv_log_field {
    enum cv_log_field_kind kind;
    const char *key;
    union {
        const char *str;
        struct cv_slice slice;
        int64_t sint;
        uint64_t uint;
        bool flag;
        enum cv_status_id status;
        const struct cv_error *error;
        const struct cv_trace_ids *trace;
    } value;
};

/* A NULL string is left out. Keys are literals: camelCase as metrics.md has them (userId). */
#define CV_F_STR(k, v)                                                                             \
    {                                                                                              \
        .kind = CV_LOG_FIELD_STR, .key = (k), .value.str = (v)                                     \
    }
#define CV_F_SLICE(k, v)                                                                           \
    {                                                                                              \
        .kind = CV_LOG_FIELD_SLICE, .key = (k), .value.slice = (v)                                 \
    }
#define CV_F_INT(k, v)                                                                             \
    {                                                                                              \
        .kind = CV_LOG_FIELD_INT, .key = (k), .value.sint = (int64_t)(v)                           \
    }
#define CV_F_UINT(k, v)                                                                            \
    {                                                                                              \
        .kind = CV_LOG_FIELD_UINT, .key = (k), .value.uint = (uint64_t)(v)                         \
    }
#define CV_F_BOOL(k, v)                                                                            \
    {                                                                                              \
        .kind = CV_LOG_FIELD_BOOL, .key = (k), .value.flag = (v)                                   \
    }
/* "error": {"message", "code", "reason"} from the status table; left out when the status is ok. */
#define CV_F_STATUS(v)                                                                             \
    {                                                                                              \
        .kind = CV_LOG_FIELD_STATUS, .key = "error", .value.status = (v).id                        \
    }
/* The same from a `const struct cv_error *`, with its detail and errno; NULL is left out. */
#define CV_F_ERROR(v)                                                                              \
    {                                                                                              \
        .kind = CV_LOG_FIELD_ERROR, .key = "error", .value.error = (v)                             \
    }
/* "trace_id" and "span_id" from a `const struct cv_trace_ids *`; NULL is left out. */
#define CV_F_TRACE(v)                                                                              \
    {                                                                                              \
        .kind = CV_LOG_FIELD_TRACE, .key = "trace_id", .value.trace = (v)                          \
    }

struct cv_log_file;

struct cv_log_options {
    int fd;                   /* usually 2; borrowed, must stay open as long as the log lives */
    struct cv_log_file *file; /* written instead, if not NULL; borrowed, open, JSON unless text */
    enum cv_log_level level;
    enum cv_log_format format;
    const char *version;  /* copied; may be NULL */
    const char *instance; /* copied; may be NULL */
    /* The clocks, for tests; NULL takes CLOCK_REALTIME and CLOCK_MONOTONIC. Milliseconds. */
    uint64_t (*realtime_ms)(void *arg);
    uint64_t (*monotonic_ms)(void *arg);
    void *clock_arg;
};

/* Token bucket of one (component, event) pair. */
struct cv_log_limit {
    const char *component;
    const char *event;
    uint64_t filled_ms; /* when the bucket was last looked at */
    unsigned tokens;
    uint64_t suppressed; /* since the last line that went out */
};

/* Members are private to log.c. */
struct cv_log {
    atomic_int level;
    int fd;
    struct cv_log_file *file;
    bool is_fd_ours;
    bool is_socket;
    bool is_polled; /* ask poll(2) first, since the descriptor blocks */
    bool is_text;
    bool has_colour;
    char version[32];
    char instance[64];
    uint64_t (*realtime_ms)(void *arg);
    uint64_t (*monotonic_ms)(void *arg);
    void *clock_arg;
    void (*on_behind)(void *arg);
    void *behind_arg;
    pthread_mutex_t lock; /* backlog, dropped_unsaid, limits, the order of lines */
    struct cv_buf backlog;
    uint64_t dropped_unsaid; /* dropped since the last line that said so */
    struct cv_log_limit limits[CV_LOG_LIMIT_EVENTS];
    struct cv_log_limit limit_rest; /* shared by events beyond the table */
    atomic_uint_fast64_t counted[CV_LOG_LEVEL_COUNT];
    atomic_uint_fast64_t dropped;
    atomic_uint_fast64_t suppressed;
};

/* Caller's memory. Text output has colour only on a terminal, when NO_COLOR is unset or empty and
 * TERM is not "dumb". CV_NO_RESOURCES when the lock cannot be made; nothing is held then. */
struct cv_status cv_log_init(struct cv_log *log, const struct cv_log_options *options);

/* Tries once more to write the backlog, then frees. No other thread may use the log any more. */
void cv_log_done(struct cv_log *log);

/* Which process this is, in every line from here on. Before other threads use the log. */
void cv_log_set_instance(struct cv_log *log, const char *instance);

/* A log in a file looks for that anew: somebody may have renamed it. Any thread; NULL is fine. */
void cv_log_reopen(struct cv_log *log);

/* Levels change at run time, from any thread or signal handler; seen by others soon after. */
void cv_log_set_level(struct cv_log *log, enum cv_log_level level);
static inline enum cv_log_level cv_log_level(const struct cv_log *log)
{
    return (enum cv_log_level)atomic_load_explicit(&log->level, memory_order_relaxed);
}

static inline bool cv_log_is_on(const struct cv_log *log, enum cv_log_level level)
{
    return log && (int)level <= atomic_load_explicit(&log->level, memory_order_relaxed);
}

/* "error" … "trace" and back; the parser takes any case and returns false for other words, *level
 * is then untouched. */
const char *cv_log_level_name(enum cv_log_level level);
bool cv_log_level_parse(const char *text, enum cv_log_level *level);
/* "auto", "json", "text"; false for other words. */
bool cv_log_format_parse(const char *text, enum cv_log_format *format);

/* cv_log(log, CV_LOG_INFO, "link", "link_up", "link is up", CV_F_STR("userId", user), …);
 * component and event are literals in snake_case, message is a literal sentence for people, the
 * fields hold what varies. cv_log_limited is for what strangers can trigger at will: per
 * (component, event) CV_LOG_LIMIT_BURST lines, then CV_LOG_LIMIT_PER_SECOND; the next line let
 * through carries "suppressed": how many were not. */
#define cv_log(log, level, component, event, message, ...)                                         \
    CV_LOG_EMIT_(log, level, false, component, event, message __VA_OPT__(, ) __VA_ARGS__)
#define cv_log_limited(log, level, component, event, message, ...)                                 \
    CV_LOG_EMIT_(log, level, true, component, event, message __VA_OPT__(, ) __VA_ARGS__)

#define CV_LOG_EMIT_(log, level, is_limited, component, event, message, ...)                       \
    do {                                                                                           \
        struct cv_log *cv_log_ = (log);                                                            \
        if (cv_log_is_on(cv_log_, (level)))                                                        \
            cv_log_write(cv_log_, (level), (is_limited), (component), (event), (message),          \
                         (const struct cv_log_field[]){                                            \
                             __VA_ARGS__ __VA_OPT__(, ){.kind = CV_LOG_FIELD_END}});               \
    } while (0)

/* What the macros call; `fields` ends with CV_LOG_FIELD_END. Values beyond the line's length are
 * cut and the line says "truncated": true; it stays valid JSON. Never blocks, never fails. */
void cv_log_write(struct cv_log *log, enum cv_log_level level, bool is_limited,
                  const char *component, const char *event, const char *message,
                  const struct cv_log_field *fields);

/* Tries to write what waits in the backlog. For a timer of about a second on one worker. False: the
 * reader is still too slow, something waits on. */
bool cv_log_flush(struct cv_log *log);

/* For a process whose lines all come from one thread and that does not want to wake up for nothing:
 * `on_behind` is called, on that thread and behind each line that was not written at once; start a
 * timer for cv_log_flush then. It must not log. NULL ends it. */
void cv_log_on_behind(struct cv_log *log, void (*on_behind)(void *arg), void *arg);

/* For tunnel_log_messages_total and the like. */
uint64_t cv_log_count(const struct cv_log *log, enum cv_log_level level); /* lines made */
uint64_t cv_log_dropped(const struct cv_log *log);    /* lost, reader too slow */
uint64_t cv_log_suppressed(const struct cv_log *log); /* held back by a limit */

#endif
