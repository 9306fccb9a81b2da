/* SPDX-License-Identifier: MIT
 *
 * Happy path: cv_desk_new (bind beside the name, rename) → on_listen_poll → take → on_data → serve:
 * question by question → the peer closes.
 * Ways it fails: a process of another user (closed at once); too many connections (the one silent
 * for longest is closed); a question that is too long, an answer that cannot be given (closed); a
 * peer that says nothing or takes nothing (closed by its timer); no descriptors (the listener rests
 * for a moment).
 */
#include "net/desk.h"

#include "net/conn.h"
#include "net/unix_name.h"
#include "net/worker_priv.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <utlist.h>
#include <uv.h>

enum {
    BACKLOG = 16,
    REST_MS = 100, /* without descriptors */
    OUT_LOW = 16 * 1024,
    OUT_HIGH = 64 * 1024,
    OUT_CAP = CV_DESK_ANSWER_MAX + OUT_HIGH + 1,
};

struct peer {
    struct cv_desk *desk;
    struct cv_conn *conn;
    struct cv_buf in;     /* what was not answered yet */
    struct cv_timer idle; /* no question was answered for so long */
    struct peer *prev, *next;
};

struct cv_desk {
    struct cv_worker *worker; /* NULL once it has ended */
    struct cv_unix_name name;
    uv_poll_t *poll; /* allocated apart: it outlives this by a turn */
    int fd;
    bool is_named;      /* the name is ours */
    struct peer *peers; /* utlist DL, the longest silent first */
    size_t peer_count;
    struct cv_timer rest;
    cv_desk_on_question *on_question;
    void *arg;
    struct cv_worker_item item;
};

/* ---- one peer ---- */

static void peer_free(struct peer *peer)
{
    struct cv_desk *desk = peer->desk;
    DL_DELETE(desk->peers, peer);
    desk->peer_count--;
    cv_worker_timer_stop(desk->worker, &peer->idle);
    cv_buf_done(&peer->in);
    free(peer);
}

static void peer_drop(struct peer *peer)
{
    cv_conn_disown(peer->conn);
    cv_conn_close(peer->conn, cv_status(CV_CANCELLED));
    peer_free(peer);
}

static void on_idle(void *arg)
{
    peer_drop(arg);
}

/* It has asked something: the others have been silent for longer. */
static void freshen(struct peer *peer)
{
    struct cv_desk *desk = peer->desk;
    DL_DELETE(desk->peers, peer);
    DL_APPEND(desk->peers, peer);
    (void)cv_worker_timer_start(desk->worker, &peer->idle, CV_DESK_IDLE_MS);
}

static struct cv_status answer(struct peer *peer, struct cv_slice question)
{
    struct cv_desk *desk = peer->desk;
    struct cv_buf text;
    cv_buf_init(&text, CV_DESK_ANSWER_MAX + 1);
    struct cv_status status = desk->on_question(desk->arg, question, &text);
    if (cv_is_ok(status))
        status = cv_buf_append_byte(&text, '\n');
    if (cv_is_ok(status))
        status = cv_conn_write(peer->conn, cv_buf_head(&text), cv_buf_len(&text));
    cv_buf_done(&text);
    return status;
}

/* False: the peer is gone. */
static bool serve(struct peer *peer)
{
    while (!cv_conn_is_congested(peer->conn)) {
        struct cv_slice in = cv_buf_slice(&peer->in);
        const uint8_t *end = in.len ? memchr(in.data, '\n', in.len) : NULL;
        size_t len = end ? (size_t)(end - in.data) : in.len;
        if (len > CV_DESK_QUESTION_MAX ||
            (end && !cv_is_ok(answer(peer, cv_slice(in.data, len))))) {
            peer_drop(peer);
            return false;
        }
        if (!end)
            break;
        cv_buf_consume(&peer->in, len + 1);
        freshen(peer);
    }
    if (cv_conn_is_congested(peer->conn))
        cv_conn_pause(peer->conn);
    else
        cv_conn_resume(peer->conn);
    return true;
}

static void on_data(void *arg, uint8_t *data, size_t len)
{
    struct peer *peer = arg;
    if (cv_is_ok(cv_buf_append(&peer->in, data, len)))
        (void)serve(peer);
    else
        peer_drop(peer);
}

/* It asks no more, and may wait for an answer. */
static void on_eof(void *arg)
{
    struct peer *peer = arg;
    struct cv_conn *conn = peer->conn;
    cv_conn_disown(conn);
    cv_conn_close_after_flush(conn, CV_DESK_IDLE_MS);
    peer_free(peer);
}

static void on_writable(void *arg)
{
    (void)serve(arg);
}

static void on_hangup(void *arg)
{
    peer_drop(arg);
}

static void on_closed(void *arg, struct cv_status why, const struct cv_error *error)
{
    (void)why;
    (void)error;
    peer_free(arg);
}

static const struct cv_conn_ops conn_ops = {.on_data = on_data,
                                            .on_eof = on_eof,
                                            .on_writable = on_writable,
                                            .on_hangup = on_hangup,
                                            .on_closed = on_closed};

/* ---- accepting ---- */

static void take(struct cv_desk *desk, int fd)
{
    uid_t uid;
    bool is_welcome = cv_unix_peer_uid(fd, &uid) && (uid == geteuid() || uid == 0);
    struct peer *peer = is_welcome ? calloc(1, sizeof *peer) : NULL;
    if (!peer) {
        (void)close(fd);
        return;
    }
    peer->desk = desk;
    if (!cv_is_ok(cv_conn_new(desk->worker, fd, NULL, &conn_ops, peer, &peer->conn, NULL))) {
        free(peer);
        return;
    }
    if (desk->peer_count == CV_DESK_PEERS_MAX)
        peer_drop(desk->peers);
    cv_conn_set_marks(peer->conn, OUT_LOW, OUT_HIGH, OUT_CAP);
    cv_buf_init(&peer->in, CV_WORKER_READ_BUFFER_BYTES + CV_DESK_QUESTION_MAX);
    cv_timer_init(&peer->idle, on_idle, peer);
    DL_APPEND(desk->peers, peer);
    desk->peer_count++;
    freshen(peer);
}

static void on_rested(void *arg);

static void on_listen_poll(uv_poll_t *poll, int result, int events)
{
    struct cv_desk *desk = poll->data;
    (void)result;
    (void)events;
    if (!desk)
        return;
    int fd = accept4(desk->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        take(desk, fd);
    } else if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
        uv_poll_stop(poll);
        (void)cv_worker_timer_start(desk->worker, &desk->rest, REST_MS);
    }
}

static void on_rested(void *arg)
{
    struct cv_desk *desk = arg;
    uv_poll_start(desk->poll, UV_READABLE, on_listen_poll);
}

/* ---- life ---- */

static void on_poll_freed(uv_handle_t *handle)
{
    free(handle);
}

static void leave(void *arg)
{
    struct cv_desk *desk = arg;
    while (desk->peers)
        peer_drop(desk->peers);
    cv_worker_timer_stop(desk->worker, &desk->rest);
    if (desk->poll) {
        desk->poll->data = NULL;
        uv_poll_stop(desk->poll);
        uv_close((uv_handle_t *)desk->poll, on_poll_freed);
    }
    if (desk->fd >= 0)
        (void)close(desk->fd);
    if (desk->is_named)
        (void)unlinkat(desk->name.dir_fd, desk->name.name, 0);
    cv_unix_name_close(&desk->name);
    cv_worker_item_remove(desk->worker, &desk->item);
    desk->worker = NULL;
}

/* Whoever finds the name finds somebody who listens: a socket that nobody listens to is taken for
 * one whose process has ended. */
static struct cv_status listen_at(struct cv_desk *desk, const char *path, struct cv_error *error)
{
    char beside[NAME_MAX + 1];
    int other;
    CV_RETURN_IF_ERROR(cv_unix_name_open(path, &desk->name, error));
    if (cv_is_ok(cv_unix_connect(path, &other, NULL))) {
        (void)close(other);
        return cv_fail(error, CV_IO, "another process answers at %.200s", path);
    }
    (void)snprintf(beside, sizeof beside, "%.*s.new", CV_UNIX_NAME_LEN_MAX, desk->name.name);
    CV_RETURN_IF_ERROR(cv_unix_listen(&desk->name, beside, BACKLOG, &desk->fd, error));
    if (renameat(desk->name.dir_fd, beside, desk->name.dir_fd, desk->name.name) != 0) {
        int saved = errno;
        (void)unlinkat(desk->name.dir_fd, beside, 0);
        return cv_fail_errno(error, CV_IO, saved, "%.200s", path);
    }
    desk->is_named = true;
    desk->poll = calloc(1, sizeof *desk->poll);
    if (!desk->poll || uv_poll_init(cv_worker_loop(desk->worker), desk->poll, desk->fd) != 0) {
        free(desk->poll);
        desk->poll = NULL;
        return cv_fail(error, CV_NO_MEMORY, "no memory for the control socket");
    }
    desk->poll->data = desk;
    uv_poll_start(desk->poll, UV_READABLE, on_listen_poll);
    return cv_ok();
}

struct cv_status cv_desk_new(struct cv_worker *worker, const char *path,
                             cv_desk_on_question *on_question, void *arg, struct cv_desk **out,
                             struct cv_error *error)
{
    struct cv_desk *desk = calloc(1, sizeof *desk);
    *out = NULL;
    if (!desk)
        return cv_fail(error, CV_NO_MEMORY, "no memory for the control socket");
    *desk = (struct cv_desk){
        .worker = worker, .name = {.dir_fd = -1}, .fd = -1, .on_question = on_question, .arg = arg};
    cv_timer_init(&desk->rest, on_rested, desk);
    cv_worker_item_add(worker, &desk->item, leave, desk);
    struct cv_status status = listen_at(desk, path, error);
    if (cv_is_ok(status))
        *out = desk;
    else
        cv_desk_free(&desk);
    return status;
}

void cv_desk_free(struct cv_desk **pointer)
{
    struct cv_desk *desk = *pointer;
    *pointer = NULL;
    if (!desk)
        return;
    if (desk->worker)
        leave(desk);
    free(desk);
}

/* ---- the asking end ---- */

struct cv_status cv_desk_connect(const char *path, int *fd, struct cv_error *error)
{
    return cv_unix_connect(path, fd, error);
}

static uint64_t clock_ms(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static struct cv_status wait_for(int fd, short events, uint64_t until_ms, struct cv_error *error)
{
    for (;;) {
        uint64_t now_ms = clock_ms();
        struct pollfd wait = {.fd = fd, .events = events};
        int ready = now_ms < until_ms ? poll(&wait, 1, (int)(until_ms - now_ms)) : 0;
        if (ready > 0)
            return cv_ok();
        if (ready == 0)
            return cv_fail(error, CV_CONN_TIMEOUT, "it does not answer");
        if (errno != EINTR)
            return cv_fail_errno(error, CV_IO, errno, "poll");
    }
}

static struct cv_status failed(int sys_errno, struct cv_error *error)
{
    if (sys_errno == EPIPE || sys_errno == ECONNRESET)
        return cv_fail(error, CV_EOF, "it has hung up");
    return cv_fail_errno(error, CV_IO, sys_errno, "the control socket");
}

static struct cv_status put(int fd, struct cv_slice text, uint64_t until_ms, struct cv_error *error)
{
    while (text.len) {
        CV_RETURN_IF_ERROR(wait_for(fd, POLLOUT, until_ms, error));
        ssize_t len = send(fd, text.data, text.len, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (len < 0 && errno != EAGAIN && errno != EINTR)
            return failed(errno, error);
        if (len > 0)
            text = cv_slice(text.data + len, text.len - (size_t)len);
    }
    return cv_ok();
}

/* Reads up to a line end, which is not kept. */
static struct cv_status get(int fd, uint64_t until_ms, struct cv_buf *out, struct cv_error *error)
{
    uint8_t part[4096];
    for (;;) {
        CV_RETURN_IF_ERROR(wait_for(fd, POLLIN, until_ms, error));
        ssize_t len = recv(fd, part, sizeof part, MSG_DONTWAIT);
        if (len < 0 && (errno == EAGAIN || errno == EINTR))
            continue;
        if (len <= 0)
            return failed(len == 0 ? ECONNRESET : errno, error);
        bool is_whole = part[len - 1] == '\n';
        CV_RETURN_IF_ERROR(cv_buf_append(out, part, (size_t)len - is_whole));
        if (is_whole)
            return cv_ok();
    }
}

struct cv_status cv_desk_put(int fd, struct cv_slice question, unsigned ms, struct cv_error *error)
{
    uint64_t until_ms = clock_ms() + ms;
    CV_RETURN_IF_ERROR(put(fd, question, until_ms, error));
    return put(fd, cv_slice("\n", 1), until_ms, error);
}

struct cv_status cv_desk_get(int fd, unsigned ms, struct cv_buf *answer_text,
                             struct cv_error *error)
{
    return get(fd, clock_ms() + ms, answer_text, error);
}

struct cv_status cv_desk_ask(int fd, struct cv_slice question, unsigned timeout_ms,
                             struct cv_buf *answer_text, struct cv_error *error)
{
    uint64_t until_ms = clock_ms() + timeout_ms;
    CV_RETURN_IF_ERROR(put(fd, question, until_ms, error));
    CV_RETURN_IF_ERROR(put(fd, cv_slice("\n", 1), until_ms, error));
    return get(fd, until_ms, answer_text, error);
}
