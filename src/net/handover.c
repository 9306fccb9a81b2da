/* SPDX-License-Identifier: MIT
 *
 * Happy path: new (bind beside the path) → publish (rename) → a peer of our user connects → on_peer
 * → records both ways → stop, close. Ways it fails: a peer of another user, or a second one
 * (closed at once); what is no record, or more than one descriptor with it (the peer is dropped).
 */
#include "net/handover.h"

#include "net/unix_name.h"
#include "net/worker_priv.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

enum { RECORDS_PER_TURN = 64, BACKLOG = 8 };

struct cv_handover {
    struct cv_worker *worker;
    uv_poll_t *listen_poll, *peer_poll; /* allocated apart: they outlive this by a turn */
    int listen_fd, peer_fd;             /* -1: none */
    struct cv_unix_name name;
    char hidden_name[NAME_MAX + 1]; /* in the same folder */
    bool is_published, is_nameless;
    const struct cv_handover_ops *ops;
    void *arg;
    struct cv_worker_item item;
    bool *gone; /* on the stack of on_peer_poll; set when a callback closed the handover */
};

/* ---- records ---- */

struct cv_status cv_handover_write(int fd, const char *text, int passed)
{
    struct cv_handover_record record = {0};
    union {
        struct cmsghdr head;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec part = {.iov_base = &record, .iov_len = sizeof record};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    (void)snprintf(record.text, sizeof record.text, "%s", text);
    if (passed >= 0) {
        message.msg_control = &control;
        message.msg_controllen = sizeof control.bytes;
        control.head = (struct cmsghdr){
            .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
        memcpy(CMSG_DATA(&control.head), &passed, sizeof passed);
    }
    /* So few bytes are one buffer of the kernel's, which takes them whole or not at all. */
    ssize_t len = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (len == (ssize_t)sizeof record)
        return cv_ok();
    if (len < 0 && (errno == EPIPE || errno == ECONNRESET))
        return cv_status(CV_EOF);
    return cv_status(len < 0 && (errno == EAGAIN || errno == ETOOMANYREFS) ? CV_AGAIN : CV_IO);
}

static int take_descriptor(struct msghdr *message)
{
    int fd = -1;
    for (struct cmsghdr *head = CMSG_FIRSTHDR(message); head; head = CMSG_NXTHDR(message, head))
        if (head->cmsg_level == SOL_SOCKET && head->cmsg_type == SCM_RIGHTS && fd < 0)
            memcpy(&fd, CMSG_DATA(head), sizeof fd);
    return fd;
}

static struct cv_status receive(int fd, struct cv_handover_record *record, int *passed)
{
    union {
        struct cmsghdr head;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    struct iovec part = {.iov_base = record, .iov_len = sizeof *record};
    struct msghdr message = {.msg_iov = &part,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             /* CMSG_SPACE has room for a second one, which nobody would close. */
                             .msg_controllen = CMSG_LEN(sizeof(int))};
    *passed = -1;
    ssize_t len = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (len < 0 && errno == EAGAIN)
        return cv_status(CV_AGAIN);
    if (len == 0 || (len < 0 && errno == ECONNRESET))
        return cv_status(CV_EOF);
    if (len > 0)
        *passed = take_descriptor(&message);
    if (len == (ssize_t)sizeof *record && !(message.msg_flags & MSG_CTRUNC)) {
        record->text[sizeof record->text - 1] = '\0';
        return cv_ok();
    }
    if (*passed >= 0)
        (void)close(*passed);
    *passed = -1;
    return cv_status(CV_IO);
}

struct cv_status cv_handover_read(int fd, unsigned timeout_ms, struct cv_handover_record *record,
                                  int *passed)
{
    struct pollfd wait = {.fd = fd, .events = POLLIN};
    *passed = -1;
    if (poll(&wait, 1, (int)timeout_ms) <= 0)
        return cv_status(CV_AGAIN);
    return receive(fd, record, passed);
}

bool cv_handover_is_gone(int fd)
{
    struct pollfd now = {.fd = fd};
    return poll(&now, 1, 0) > 0 && (now.revents & (POLLHUP | POLLERR | POLLNVAL));
}

struct cv_status cv_handover_pair(int fds[2])
{
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) != 0)
        return cv_status(CV_NO_RESOURCES);
    return cv_ok();
}

/* ---- the connecting end ---- */

struct cv_status cv_handover_connect(const char *path, int *out, struct cv_error *error)
{
    return cv_unix_connect(path, out, error);
}

/* ---- the offering end ---- */

static void on_poll_freed(uv_handle_t *handle)
{
    free(handle);
}

static void end_poll(uv_poll_t **poll)
{
    if (!*poll)
        return;
    (*poll)->data = NULL;
    uv_poll_stop(*poll);
    uv_close((uv_handle_t *)*poll, on_poll_freed);
    *poll = NULL;
}

static uv_poll_t *start_poll(struct cv_handover *handover, int fd, uv_poll_cb on_poll)
{
    uv_poll_t *poll = calloc(1, sizeof *poll);
    if (!poll || uv_poll_init(cv_worker_loop(handover->worker), poll, fd) != 0) {
        free(poll);
        return NULL;
    }
    poll->data = handover;
    uv_poll_start(poll, UV_READABLE, on_poll);
    return poll;
}

void cv_handover_drop(struct cv_handover *handover)
{
    end_poll(&handover->peer_poll);
    if (handover->peer_fd >= 0)
        (void)close(handover->peer_fd);
    handover->peer_fd = -1;
}

static void on_peer_poll(uv_poll_t *poll, int result, int events)
{
    (void)result;
    (void)events;
    struct cv_handover *handover = poll->data;
    bool is_gone = false;
    if (!handover)
        return;
    handover->gone = &is_gone;
    for (int i = 0; i < RECORDS_PER_TURN && !is_gone && handover->peer_fd >= 0; i++) {
        struct cv_handover_record record;
        int passed;
        struct cv_status status = receive(handover->peer_fd, &record, &passed);
        if (status.id == CV_AGAIN)
            break;
        if (cv_is_ok(status)) {
            handover->ops->on_record(handover->arg, &record, passed);
            continue;
        }
        cv_handover_drop(handover);
        handover->ops->on_gone(handover->arg);
    }
    if (!is_gone)
        handover->gone = NULL;
}

static bool is_our_user(int fd)
{
    uid_t uid;
    return cv_unix_peer_uid(fd, &uid) && uid == geteuid();
}

static void on_listen_poll(uv_poll_t *poll, int result, int events)
{
    (void)result;
    (void)events;
    struct cv_handover *handover = poll->data;
    int fd = handover ? accept4(handover->listen_fd, NULL, NULL, SOCK_CLOEXEC) : -1;
    if (fd < 0)
        return;
    if (handover->peer_fd < 0 && is_our_user(fd))
        handover->peer_poll = start_poll(handover, fd, on_peer_poll);
    if (handover->peer_fd >= 0 || !handover->peer_poll) {
        (void)close(fd);
        return;
    }
    handover->peer_fd = fd;
    handover->ops->on_peer(handover->arg);
}

static void on_worker_stop(void *arg)
{
    struct cv_handover *handover = arg;
    cv_handover_close(&handover);
}

static struct cv_status listen_beside(struct cv_handover *handover, const char *path,
                                      struct cv_error *error)
{
    CV_RETURN_IF_ERROR(cv_unix_name_open(path, &handover->name, error));
    (void)snprintf(handover->hidden_name, sizeof handover->hidden_name, "%.*s.%ld",
                   CV_UNIX_NAME_LEN_MAX, handover->name.name, (long)getpid());
    CV_RETURN_IF_ERROR(cv_unix_listen(&handover->name, handover->hidden_name, BACKLOG,
                                      &handover->listen_fd, error));
    handover->listen_poll = start_poll(handover, handover->listen_fd, on_listen_poll);
    return handover->listen_poll ? cv_ok() : cv_fail(error, CV_NO_MEMORY, "no memory");
}

struct cv_status cv_handover_new(struct cv_worker *worker, const char *path,
                                 const struct cv_handover_ops *ops, void *arg,
                                 struct cv_handover **out, struct cv_error *error)
{
    struct cv_handover *handover = calloc(1, sizeof *handover);
    *out = NULL;
    if (!handover)
        return cv_fail(error, CV_NO_MEMORY, "no memory");
    *handover = (struct cv_handover){.worker = worker,
                                     .listen_fd = -1,
                                     .peer_fd = -1,
                                     .name = {.dir_fd = -1},
                                     .ops = ops,
                                     .arg = arg};
    cv_worker_item_add(worker, &handover->item, on_worker_stop, handover);
    struct cv_status status = listen_beside(handover, path, error);
    if (cv_is_ok(status))
        *out = handover;
    else
        cv_handover_close(&handover);
    return status;
}

struct cv_status cv_handover_publish(struct cv_handover *handover, struct cv_error *error)
{
    int dir_fd = handover->name.dir_fd;
    if (renameat(dir_fd, handover->hidden_name, dir_fd, handover->name.name) != 0)
        return cv_fail_errno(error, CV_IO, errno, "%s", handover->name.name);
    handover->is_published = true;
    return cv_ok();
}

struct cv_status cv_handover_send(struct cv_handover *handover, const char *text, int fd)
{
    if (handover->peer_fd < 0)
        return cv_status(CV_IO);
    struct cv_status status = cv_handover_write(handover->peer_fd, text, fd);
    return status.id == CV_AGAIN ? cv_status(CV_NO_RESOURCES) : status;
}

void cv_handover_stop(struct cv_handover *handover, bool is_left)
{
    end_poll(&handover->listen_poll);
    if (handover->listen_fd >= 0)
        (void)close(handover->listen_fd);
    handover->listen_fd = -1;
    if (!is_left && !handover->is_nameless && handover->name.dir_fd >= 0)
        (void)unlinkat(handover->name.dir_fd,
                       handover->is_published ? handover->name.name : handover->hidden_name, 0);
    handover->is_nameless = true;
}

void cv_handover_close(struct cv_handover **pointer)
{
    struct cv_handover *handover = *pointer;
    if (!handover)
        return;
    *pointer = NULL;
    if (handover->gone)
        *handover->gone = true;
    cv_handover_drop(handover);
    cv_handover_stop(handover, false);
    cv_unix_name_close(&handover->name);
    cv_worker_item_remove(handover->worker, &handover->item);
    free(handover);
}
