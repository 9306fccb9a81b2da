/* SPDX-License-Identifier: MIT
 *
 * Happy path: cv_command_start → on_read … → end of output and on_ended, in any order → finish.
 * Ways it fails: it cannot be run; it ends with another code; time or room is over (kill, and then
 * on_ended); cancelled, or the worker ends.
 */
#include "net/command.h"

#include "base/buf.h"
#include "net/worker_priv.h"

#include <signal.h>
#include <stdlib.h>
#include <uv.h>

struct cv_command {
    struct cv_worker *worker;
    struct cv_worker_item item;
    cv_command_on_done *on_done; /* NULL: cancelled */
    void *arg;
    uv_process_t process;
    uv_pipe_t pipe;
    struct cv_timer timer;
    struct cv_buf output;
    struct cv_status failure;
    struct cv_error error;
    uint64_t timeout_ms;
    int64_t exit_code;
    int signo;
    unsigned handles; /* not closed yet */
    bool is_running;  /* no exit code yet */
    bool is_open;     /* no end of output yet */
};

static void on_handle_closed(uv_handle_t *handle)
{
    struct cv_command *c = handle->data;
    if (--c->handles > 0)
        return;
    cv_buf_wipe(&c->output);
    free(c);
}

/* From here on it is only handles that wait for their last callback. */
static void let_go(struct cv_command *c)
{
    cv_worker_timer_stop(c->worker, &c->timer);
    cv_worker_item_remove(c->worker, &c->item);
    uv_close((uv_handle_t *)&c->pipe, on_handle_closed);
    uv_close((uv_handle_t *)&c->process, on_handle_closed);
}

static void kill_it(struct cv_command *c)
{
    if (c->is_running && c->process.pid > 0)
        (void)kill(-c->process.pid, SIGKILL);
}

static void judge(struct cv_command *c)
{
    if (!cv_is_ok(c->failure))
        return;
    if (c->signo)
        c->failure = cv_fail(&c->error, CV_IO, "the command was ended by signal %d", c->signo);
    else if (c->exit_code)
        c->failure = cv_fail(&c->error, CV_IO, "the command ended with code %d", (int)c->exit_code);
}

static void finish_if_done(struct cv_command *c)
{
    if (c->is_running || c->is_open)
        return;
    judge(c);
    struct cv_command_result result = {
        .status = c->failure, .error = &c->error, .output = cv_buf_slice(&c->output)};
    cv_command_on_done *on_done = c->on_done;
    let_go(c); /* its memory lives on to the end of the turn */
    on_done(c->arg, &result);
}

static void fail(struct cv_command *c, struct cv_status status)
{
    c->failure = status;
    kill_it(c);
    if (c->is_open)
        uv_read_stop((uv_stream_t *)&c->pipe);
    c->is_open = false; /* a grandchild may keep it open */
    finish_if_done(c);
}

static void on_timeout(void *arg)
{
    struct cv_command *c = arg;
    fail(c, cv_fail(&c->error, CV_IO, "the command took longer than %u seconds",
                    (unsigned)(c->timeout_ms / 1000)));
}

static void on_alloc(uv_handle_t *handle, size_t wanted, uv_buf_t *buf)
{
    struct cv_command *c = handle->data;
    (void)wanted;
    *buf = uv_buf_init((char *)cv_worker_read_buffer(c->worker), CV_WORKER_READ_BUFFER_BYTES);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct cv_command *c = stream->data;
    if (n == 0)
        return;
    if (n < 0) {
        uv_read_stop(stream);
        c->is_open = false;
        finish_if_done(c);
        return;
    }
    struct cv_status status = cv_buf_append(&c->output, buf->base, (size_t)n);
    if (!cv_is_ok(status))
        fail(c, cv_fail(&c->error, status.id, "the command prints more than %zu bytes",
                        c->output.cap));
}

static void on_ended(uv_process_t *process, int64_t exit_code, int signo)
{
    struct cv_command *c = process->data;
    c->is_running = false;
    c->exit_code = exit_code;
    c->signo = signo;
    if (c->on_done)
        finish_if_done(c);
}

static void abandon(struct cv_command *c)
{
    kill_it(c);
    c->on_done = NULL;
    let_go(c);
}

static void on_worker_stop(void *arg)
{
    abandon(arg);
}

static int spawn(struct cv_command *c, const char *line)
{
    uv_loop_t *loop = cv_worker_loop(c->worker);
    char *args[] = {(char[]){"sh"}, (char[]){"-c"}, strdup(line), NULL};
    uv_stdio_container_t stdio[3] = {
        {.flags = UV_IGNORE},
        {.flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE, .data.stream = (uv_stream_t *)&c->pipe},
        {.flags = UV_IGNORE},
    };
    uv_process_options_t options = {
        .exit_cb = on_ended,
        .file = "/bin/sh",
        .args = args,
        .stdio_count = 3,
        .stdio = stdio,
        .flags = UV_PROCESS_DETACHED, /* a group of its own */
    };
    int result = args[2] ? uv_spawn(loop, &c->process, &options) : UV_ENOMEM;
    free(args[2]);
    return result;
}

struct cv_status cv_command_start(struct cv_worker *worker, const char *line, size_t max_bytes,
                                  uint64_t timeout_ms, cv_command_on_done *on_done, void *arg,
                                  struct cv_command **out, struct cv_error *error)
{
    struct cv_command *c = calloc(1, sizeof *c);
    *out = NULL;
    if (!c)
        return cv_fail(error, CV_NO_MEMORY, "out of memory");
    c->worker = worker;
    c->on_done = on_done;
    c->arg = arg;
    c->timeout_ms = timeout_ms;
    c->failure = cv_ok();
    cv_buf_init(&c->output, max_bytes);
    cv_timer_init(&c->timer, on_timeout, c);
    if (uv_pipe_init(cv_worker_loop(worker), &c->pipe, 0) != 0) {
        free(c);
        return cv_fail(error, CV_NO_MEMORY, "out of memory");
    }
    c->pipe.data = c->process.data = c;
    c->handles = 2; /* uv_spawn makes the process handle in any case */
    cv_worker_item_add(worker, &c->item, on_worker_stop, c);
    int result = spawn(c, line);
    if (result == 0) {
        c->is_running = c->is_open = true;
        result = uv_read_start((uv_stream_t *)&c->pipe, on_alloc, on_read);
    }
    if (result == 0 && !cv_is_ok(cv_worker_timer_start(worker, &c->timer, timeout_ms)))
        result = UV_ENOMEM;
    if (result != 0) {
        abandon(c);
        return cv_fail(error, CV_IO, "the command cannot be run: %s", uv_strerror(result));
    }
    *out = c;
    return cv_ok();
}

void cv_command_cancel(struct cv_command **command)
{
    if (*command)
        abandon(*command);
    *command = NULL;
}
