/* SPDX-License-Identifier: MIT */
#include "telemetry/log.h"

#include "telemetry/log_file.h"
#include "telemetry/log_line.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const level_names[CV_LOG_LEVEL_COUNT] = {"error", "warn", "info", "debug",
                                                            "trace"};

static uint64_t read_clock(clockid_t clock)
{
    struct timespec now = {0};
    (void)clock_gettime(clock, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static uint64_t system_realtime(void *arg)
{
    (void)arg;
    return read_clock(CLOCK_REALTIME);
}

static uint64_t system_monotonic(void *arg)
{
    (void)arg;
    return read_clock(CLOCK_MONOTONIC);
}

/* Identity goes into every line unescaped, so nothing gets in that would want escaping. */
static void copy_plain(char *to, size_t cap, const char *from)
{
    size_t len = 0;
    for (; from && *from && len < cap - 1; from++)
        if (*from > ' ' && *from < 0x7f && *from != '"' && *from != '\\')
            to[len++] = *from;
    to[len] = '\0';
}

/* O_NONBLOCK belongs to the open file description, which the shell and our siblings share: setting
 * it on the descriptor we were given would make their writes fail. A pipe or terminal can be opened
 * once more; where it cannot (another user's), poll(2) before each write comes close. */
static void adopt_fd(struct cv_log *log, int fd, bool is_terminal)
{
    struct stat st;
    log->fd = fd;
    if (fstat(fd, &st) != 0)
        return;
    if (S_ISSOCK(st.st_mode)) {
        log->is_socket = true;
    } else if (S_ISFIFO(st.st_mode) || is_terminal) {
        char path[32];
        (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        int own = open(path, O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        log->is_fd_ours = own >= 0;
        log->is_polled = own < 0;
        if (own >= 0)
            log->fd = own;
    }
}

struct cv_status cv_log_init(struct cv_log *log, const struct cv_log_options *options)
{
    *log = (struct cv_log){0};
    atomic_init(&log->level, (int)options->level);
    log->realtime_ms = options->realtime_ms ? options->realtime_ms : system_realtime;
    log->monotonic_ms = options->monotonic_ms ? options->monotonic_ms : system_monotonic;
    log->clock_arg = options->clock_arg;
    copy_plain(log->version, sizeof log->version, options->version);
    copy_plain(log->instance, sizeof log->instance, options->instance);
    if (pthread_mutex_init(&log->lock, NULL) != 0)
        return cv_status(CV_NO_RESOURCES);
    cv_buf_init(&log->backlog, CV_LOG_BACKLOG_MAX);
    log->file = options->file;
    bool is_terminal = !log->file && isatty(options->fd) == 1;
    log->is_text = options->format == CV_LOG_FORMAT_TEXT ||
                   (options->format == CV_LOG_FORMAT_AUTO && is_terminal);
    const char *no_color = getenv("NO_COLOR");
    const char *term = getenv("TERM");
    log->has_colour =
        is_terminal && !(no_color && no_color[0]) && !(term && strcmp(term, "dumb") == 0);
    if (!log->file)
        adopt_fd(log, options->fd, is_terminal);
    return cv_ok();
}

void cv_log_done(struct cv_log *log)
{
    (void)cv_log_flush(log);
    cv_buf_done(&log->backlog);
    if (log->is_fd_ours)
        (void)close(log->fd);
    log->is_fd_ours = false;
    log->fd = -1;
    (void)pthread_mutex_destroy(&log->lock);
}

void cv_log_reopen(struct cv_log *log)
{
    if (log && log->file)
        cv_log_file_look(log->file);
}

void cv_log_set_instance(struct cv_log *log, const char *instance)
{
    if (log)
        copy_plain(log->instance, sizeof log->instance, instance);
}

void cv_log_set_level(struct cv_log *log, enum cv_log_level level)
{
    atomic_store_explicit(&log->level, (int)level, memory_order_relaxed);
}

const char *cv_log_level_name(enum cv_log_level level)
{
    return (unsigned)level < CV_LOG_LEVEL_COUNT ? level_names[level] : "info";
}

bool cv_log_level_parse(const char *text, enum cv_log_level *level)
{
    for (unsigned i = 0; i < CV_LOG_LEVEL_COUNT; i++) {
        if (text && strcasecmp(text, level_names[i]) == 0) {
            *level = (enum cv_log_level)i;
            return true;
        }
    }
    return false;
}

bool cv_log_format_parse(const char *text, enum cv_log_format *format)
{
    static const char *const names[] = {"auto", "json", "text"};
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        if (text && strcasecmp(text, names[i]) == 0) {
            *format = (enum cv_log_format)i;
            return true;
        }
    }
    return false;
}

/* How much went out: 0 when the reader is slow, -1 when the bytes can never be written. */
static ssize_t write_some(struct cv_log *log, const char *text, size_t len)
{
    for (;;) {
        if (log->is_polled) {
            struct pollfd poll_fd = {.fd = log->fd, .events = POLLOUT};
            if (poll(&poll_fd, 1, 0) != 1)
                return 0;
        }
        ssize_t n = log->file
                        ? cv_log_file_write(log->file, text, len, log->monotonic_ms(log->clock_arg))
                    : log->is_socket ? send(log->fd, text, len, MSG_DONTWAIT | MSG_NOSIGNAL)
                                     : write(log->fd, text, len);
        if (n >= 0)
            return n;
        if (errno == EINTR)
            continue;
        return errno == EAGAIN || errno == ENOBUFS ? 0 : -1;
    }
}

static void drop(struct cv_log *log, uint64_t lines)
{
    log->dropped_unsaid += lines;
    atomic_fetch_add_explicit(&log->dropped, lines, memory_order_relaxed);
}

static void keep(struct cv_log *log, const char *text, size_t len)
{
    if (!cv_is_ok(cv_buf_append(&log->backlog, text, len)))
        drop(log, 1);
}

/* At most a line's length at a time and whole lines where there are any, so that a pipe takes them
 * undivided even when other processes write to it too. */
static size_t next_portion(struct cv_slice waiting)
{
    size_t len = waiting.len < CV_LOG_LINE_MAX ? waiting.len : CV_LOG_LINE_MAX;
    const uint8_t *newline = memrchr(waiting.data, '\n', len);
    return newline ? (size_t)(newline - waiting.data) + 1 : len;
}

static bool flush_backlog(struct cv_log *log)
{
    while (cv_buf_len(&log->backlog) > 0) {
        struct cv_slice waiting = cv_buf_slice(&log->backlog);
        ssize_t n = write_some(log, (const char *)waiting.data, next_portion(waiting));
        if (n == 0)
            return false;
        if (n < 0) {
            drop(log, 1);
            cv_buf_consume(&log->backlog, waiting.len);
            return false;
        }
        cv_buf_consume(&log->backlog, (size_t)n);
    }
    cv_buf_shrink(&log->backlog, 0);
    return true;
}

static void write_line(struct cv_log *log, const struct cv_log_line *line)
{
    ssize_t n = write_some(log, line->text, line->len);
    if (n < 0)
        drop(log, 1);
    else if ((size_t)n < line->len)
        keep(log, line->text + n, line->len - (size_t)n);
}

static void make_line(struct cv_log *log, const struct cv_log_record *record,
                      struct cv_log_line *line)
{
    if (log->is_text)
        cv_log_line_text(line, record, log->has_colour);
    else
        cv_log_line_json(line, record);
}

static void tell_dropped(struct cv_log *log)
{
    struct cv_log_line line;
    const struct cv_log_field fields[] = {CV_F_UINT("count", log->dropped_unsaid),
                                          {.kind = CV_LOG_FIELD_END}};
    const struct cv_log_record record = {
        .realtime_ms = log->realtime_ms(log->clock_arg),
        .level = CV_LOG_WARN,
        .component = "telemetry",
        .event = "log_dropped",
        .message = "log lines were lost, since the reader was too slow",
        .fields = fields,
        .version = log->version,
        .instance = log->instance,
    };
    make_line(log, &record, &line);
    log->dropped_unsaid = 0;
    write_line(log, &line);
}

static struct cv_log_limit *find_limit(struct cv_log *log, const char *component, const char *event)
{
    for (size_t i = 0; i < CV_LOG_LIMIT_EVENTS; i++) {
        struct cv_log_limit *limit = &log->limits[i];
        if (!limit->event) {
            *limit = (struct cv_log_limit){.component = component, .event = event};
            return limit;
        }
        if (strcmp(limit->event, event) == 0 && strcmp(limit->component, component) == 0)
            return limit;
    }
    return &log->limit_rest;
}

/* Takes a token of the event's bucket; *suppressed is what was held back before this line. */
static bool admit(struct cv_log *log, const char *component, const char *event,
                  uint64_t *suppressed)
{
    uint64_t now_ms = log->monotonic_ms(log->clock_arg);
    (void)pthread_mutex_lock(&log->lock);
    struct cv_log_limit *limit = find_limit(log, component, event);
    uint64_t earned = (now_ms - limit->filled_ms) * CV_LOG_LIMIT_PER_SECOND / 1000;
    if (limit->filled_ms == 0 || earned >= CV_LOG_LIMIT_BURST - limit->tokens) {
        limit->tokens = CV_LOG_LIMIT_BURST;
        limit->filled_ms = now_ms;
    } else {
        limit->tokens += (unsigned)earned;
        limit->filled_ms += earned * 1000 / CV_LOG_LIMIT_PER_SECOND;
    }
    bool is_admitted = limit->tokens > 0;
    if (is_admitted) {
        limit->tokens--;
        *suppressed = limit->suppressed;
        limit->suppressed = 0;
    } else {
        limit->suppressed++;
        atomic_fetch_add_explicit(&log->suppressed, 1, memory_order_relaxed);
    }
    (void)pthread_mutex_unlock(&log->lock);
    return is_admitted;
}

void cv_log_write(struct cv_log *log, enum cv_log_level level, bool is_limited,
                  const char *component, const char *event, const char *message,
                  const struct cv_log_field *fields)
{
    int saved_errno = errno;
    uint64_t suppressed = 0;
    if (is_limited && !admit(log, component, event, &suppressed))
        return;
    struct cv_log_line line;
    const struct cv_log_record record = {
        .realtime_ms = log->realtime_ms(log->clock_arg),
        .level = level,
        .component = component,
        .event = event,
        .message = message,
        .fields = fields,
        .suppressed = suppressed,
        .version = log->version,
        .instance = log->instance,
    };
    make_line(log, &record, &line);
    atomic_fetch_add_explicit(&log->counted[level], 1, memory_order_relaxed);
    (void)pthread_mutex_lock(&log->lock);
    bool is_clear = flush_backlog(log);
    if (is_clear && log->dropped_unsaid)
        tell_dropped(log);
    if (cv_buf_len(&log->backlog) == 0)
        write_line(log, &line);
    else
        keep(log, line.text, line.len);
    bool is_behind = cv_buf_len(&log->backlog) > 0;
    (void)pthread_mutex_unlock(&log->lock);
    if (is_behind && log->on_behind)
        log->on_behind(log->behind_arg);
    errno = saved_errno;
}

bool cv_log_flush(struct cv_log *log)
{
    (void)pthread_mutex_lock(&log->lock);
    bool is_clear = flush_backlog(log);
    if (is_clear && log->dropped_unsaid)
        tell_dropped(log);
    is_clear = cv_buf_len(&log->backlog) == 0;
    (void)pthread_mutex_unlock(&log->lock);
    return is_clear;
}

void cv_log_on_behind(struct cv_log *log, void (*on_behind)(void *arg), void *arg)
{
    log->on_behind = on_behind;
    log->behind_arg = arg;
}

uint64_t cv_log_count(const struct cv_log *log, enum cv_log_level level)
{
    return atomic_load_explicit(&log->counted[level], memory_order_relaxed);
}

uint64_t cv_log_dropped(const struct cv_log *log)
{
    return atomic_load_explicit(&log->dropped, memory_order_relaxed);
}

uint64_t cv_log_suppressed(const struct cv_log *log)
{
    return atomic_load_explicit(&log->suppressed, memory_order_relaxed);
}
