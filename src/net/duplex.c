/* SPDX-License-Identifier: MIT
 *
 * Happy path: new → resume → on_poll → on_data …; write → flush at the end of the turn → blocked:
 * wait for writable. What cannot be polled (files) is read on by a deferral per turn.
 * Ways it fails: read or write errors (on_ended, once); EPIPE is one of them.
 */
#include "net/duplex.h"

#include "base/buf.h"
#include "net/worker_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

enum { OUT_CAP = 1024 * 1024, OUT_HIGH = 256 * 1024, OUT_LOW = 64 * 1024 };

/* One direction. */
struct end {
    struct cv_duplex *duplex;
    int fd;          /* ours; -1 once closed */
    int old_flags;   /* of a description that others share, to be put back; -1: unchanged */
    uv_poll_t *poll; /* NULL: always ready */
    int armed;
};

struct cv_duplex {
    struct cv_worker *worker;
    const struct cv_duplex_ops *ops;
    void *arg;
    struct end in, out;
    struct cv_buf output;
    struct cv_worker_item item;
    struct cv_defer settle;
    struct cv_defer again; /* the next piece of a file */
    bool is_paused;
    bool has_eof;
    bool is_congested;
    bool is_blocked;
    bool is_finishing;
    bool has_ended;
    bool is_busy; /* callbacks run: memory stays until they have returned */
    bool is_dead; /* freed meanwhile */
};

static void on_poll_freed(uv_handle_t *handle)
{
    free(handle);
}

static void end_close(struct end *end)
{
    if (end->poll) {
        end->poll->data = NULL;
        uv_poll_stop(end->poll);
        uv_close((uv_handle_t *)end->poll, on_poll_freed);
        end->poll = NULL;
    }
    if (end->fd >= 0 && end->old_flags >= 0)
        (void)fcntl(end->fd, F_SETFL, end->old_flags);
    if (end->fd >= 0)
        (void)close(end->fd);
    end->fd = -1;
}

/* A description of its own, so that O_NONBLOCK does not reach those we share ours with. Sockets
 * cannot be opened so, and another user's pipes may not be: those are shared. Files keep their
 * position by sharing, and never block. */
static struct cv_status end_open(struct end *end, int fd, int mode, struct cv_error *error)
{
    char path[32];
    struct stat st;
    if (fstat(fd, &st) != 0)
        return cv_fail_errno(error, CV_IO, errno, "descriptor %d", fd);
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (!S_ISREG(st.st_mode))
        end->fd = open(path, mode | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
    if (end->fd >= 0)
        return cv_ok();
    end->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (end->fd < 0)
        return cv_fail_errno(error, CV_IO, errno, "descriptor %d", fd);
    int flags = fcntl(fd, F_GETFL);
    if (!S_ISREG(st.st_mode) && flags >= 0 && !(flags & O_NONBLOCK) &&
        fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0)
        end->old_flags = flags;
    return cv_ok();
}

static struct cv_status end_watch(struct end *end)
{
    end->poll = malloc(sizeof *end->poll);
    if (!end->poll)
        return cv_status(CV_NO_MEMORY);
    /* EPERM: a file or /dev/null, always ready (epoll_ctl(2)). */
    if (uv_poll_init(cv_worker_loop(end->duplex->worker), end->poll, end->fd) != 0) {
        free(end->poll);
        end->poll = NULL;
    } else {
        end->poll->data = end;
    }
    return cv_ok();
}

static void on_poll(uv_poll_t *handle, int status, int events);

static void end_arm(struct end *end, int events)
{
    if (!end->poll || end->armed == events)
        return;
    end->armed = events;
    if (events)
        uv_poll_start(end->poll, events, on_poll);
    else
        uv_poll_stop(end->poll);
}

/* ---- callbacks, any of which may free it ---- */

static void conclude(struct cv_duplex *duplex, struct cv_status status)
{
    if (duplex->has_ended)
        return;
    duplex->has_ended = true;
    end_arm(&duplex->in, 0);
    end_arm(&duplex->out, 0);
    duplex->ops->on_ended(duplex->arg, status);
}

static void read_some(struct cv_duplex *duplex)
{
    uint8_t *buf = cv_worker_read_buffer(duplex->worker);
    ssize_t n;
    do
        n = read(duplex->in.fd, buf, CV_WORKER_READ_BUFFER_BYTES);
    while (n < 0 && errno == EINTR);
    if (n > 0) {
        duplex->ops->on_data(duplex->arg, cv_slice(buf, (size_t)n));
    } else if (n == 0 || errno == EIO) { /* EIO: the terminal is gone */
        duplex->has_eof = true;
        duplex->ops->on_eof(duplex->arg);
    } else if (errno != EAGAIN) {
        conclude(duplex, cv_status(cv_status_from_errno(errno)));
    }
}

static void write_some(struct cv_duplex *duplex)
{
    duplex->is_blocked = false;
    while (cv_buf_len(&duplex->output)) {
        ssize_t n =
            write(duplex->out.fd, cv_buf_head(&duplex->output), cv_buf_len(&duplex->output));
        if (n >= 0) {
            cv_buf_consume(&duplex->output, (size_t)n);
        } else if (errno == EAGAIN) {
            duplex->is_blocked = true;
            break;
        } else if (errno != EINTR) {
            conclude(duplex,
                     cv_status(errno == EPIPE ? CV_CONN_RESET : cv_status_from_errno(errno)));
            return;
        }
    }
    if (duplex->is_congested && cv_buf_len(&duplex->output) <= OUT_LOW) {
        duplex->is_congested = false;
        duplex->ops->on_writable(duplex->arg);
    }
}

/* ---- turns ---- */

static void duplex_free(struct cv_duplex *duplex)
{
    cv_buf_done(&duplex->output);
    free(duplex);
}

/* After callbacks: false when one of them has freed it. */
static bool leave(struct cv_duplex *duplex)
{
    duplex->is_busy = false;
    if (!duplex->is_dead)
        return true;
    duplex_free(duplex);
    return false;
}

static void settle(struct cv_duplex *duplex)
{
    duplex->is_busy = true;
    if (!duplex->has_ended && !duplex->is_blocked)
        write_some(duplex);
    if (!duplex->has_ended && duplex->is_finishing && cv_buf_len(&duplex->output) == 0)
        conclude(duplex, cv_ok());
    if (!leave(duplex))
        return;
    bool reads = !duplex->has_ended && !duplex->is_paused && !duplex->has_eof;
    end_arm(&duplex->in, reads ? UV_READABLE : 0);
    end_arm(&duplex->out, !duplex->has_ended && duplex->is_blocked ? UV_WRITABLE : 0);
    if (reads && !duplex->in.poll)
        cv_worker_defer_next(duplex->worker, &duplex->again);
}

static void on_settle(void *arg)
{
    settle(arg);
}

static void turn(struct cv_duplex *duplex, int events)
{
    duplex->is_busy = true;
    if (events & UV_WRITABLE)
        duplex->is_blocked = false;
    if ((events & UV_READABLE) && !duplex->is_paused && !duplex->has_eof && !duplex->has_ended)
        read_some(duplex);
    if (!leave(duplex))
        return;
    cv_worker_defer(duplex->worker, &duplex->settle);
}

static void on_poll(uv_poll_t *handle, int status, int events)
{
    struct end *end = handle->data;
    if (!end)
        return;
    /* An error shows up in the call that is made next. */
    turn(end->duplex, status == 0 ? events : end->armed);
}

static void on_again(void *arg)
{
    turn(arg, UV_READABLE);
}

/* ---- life ---- */

static void on_worker_stop(void *arg)
{
    struct cv_duplex *duplex = arg;
    duplex->has_ended = true;
    cv_defer_cancel(&duplex->settle);
    cv_defer_cancel(&duplex->again);
    end_close(&duplex->in);
    end_close(&duplex->out);
    cv_worker_item_remove(duplex->worker, &duplex->item);
}

struct cv_status cv_duplex_new(struct cv_worker *worker, int fd_in, int fd_out,
                               const struct cv_duplex_ops *ops, void *arg, struct cv_duplex **out,
                               struct cv_error *error)
{
    struct cv_duplex *duplex = calloc(1, sizeof *duplex);
    *out = NULL;
    if (!duplex)
        return cv_fail(error, CV_NO_MEMORY, "out of memory");
    *duplex = (struct cv_duplex){.worker = worker, .ops = ops, .arg = arg, .is_paused = true};
    duplex->in = (struct end){.duplex = duplex, .fd = -1, .old_flags = -1};
    duplex->out = duplex->in;
    cv_buf_init(&duplex->output, OUT_CAP);
    cv_defer_init(&duplex->settle, on_settle, duplex);
    cv_defer_init(&duplex->again, on_again, duplex);
    cv_worker_item_add(worker, &duplex->item, on_worker_stop, duplex);
    struct cv_status status = end_open(&duplex->in, fd_in, O_RDONLY, error);
    if (cv_is_ok(status))
        status = end_open(&duplex->out, fd_out, O_WRONLY, error);
    if (cv_is_ok(status))
        status = end_watch(&duplex->in);
    if (cv_is_ok(status))
        status = end_watch(&duplex->out);
    if (!cv_is_ok(status))
        cv_duplex_free(&duplex);
    *out = duplex;
    return status;
}

void cv_duplex_pause(struct cv_duplex *duplex)
{
    duplex->is_paused = true;
    cv_worker_defer(duplex->worker, &duplex->settle);
}

void cv_duplex_resume(struct cv_duplex *duplex)
{
    duplex->is_paused = false;
    cv_worker_defer(duplex->worker, &duplex->settle);
}

struct cv_status cv_duplex_write(struct cv_duplex *duplex, struct cv_slice data)
{
    if (duplex->has_ended || duplex->is_finishing)
        return cv_ok();
    CV_RETURN_IF_ERROR(cv_buf_append_slice(&duplex->output, data));
    if (cv_buf_len(&duplex->output) > OUT_HIGH)
        duplex->is_congested = true;
    cv_worker_defer(duplex->worker, &duplex->settle);
    return cv_ok();
}

bool cv_duplex_is_congested(const struct cv_duplex *duplex)
{
    return duplex->is_congested;
}

void cv_duplex_finish(struct cv_duplex *duplex)
{
    duplex->is_finishing = true;
    cv_worker_defer(duplex->worker, &duplex->settle);
}

void cv_duplex_free(struct cv_duplex **out)
{
    struct cv_duplex *duplex = *out;
    *out = NULL;
    if (!duplex)
        return;
    on_worker_stop(duplex);
    duplex->is_dead = true;
    if (!duplex->is_busy)
        duplex_free(duplex);
}
