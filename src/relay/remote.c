/* SPDX-License-Identifier: MIT
 *
 * Happy path: cv_remote_open posts OPEN → on_back_mail opens a pipe in the session's pool → OPENED
 * comes back → DATA both ways, CREDIT and CONSUMED against them → CLOSE or, from the other side,
 * CLOSED. Ways it fails: the pool refuses (FAILED); the link ends (CLOSED); a worker stops (post is
 * refused: the sender's half ends as if the other had closed); no memory for a message (the same).
 *
 * Each half is freed by its own thread: the front behind its last callback or close, the back when
 * FRONT_GONE has come and its pipe has ended. Messages carry a reference to the pair, so nothing is
 * read that the other thread writes: what a half needs of the other travels in messages.
 */
#include "relay/remote.h"

#include "base/buf.h"
#include "relay/session_private.h"

#include <stdlib.h>
#include <string.h>

enum { REMOTE_CREDIT = 256 * 1024 };

enum message_kind {
    TO_BACK_OPEN,
    TO_BACK_DATA,
    TO_BACK_CONSUMED,
    TO_BACK_EOF,
    TO_BACK_CLOSE,
    TO_FRONT_OPENED,
    TO_FRONT_FAILED,
    TO_FRONT_DATA,
    TO_FRONT_CREDIT,
    TO_FRONT_EOF,
    TO_FRONT_CLOSED,
};

/* The half on the link's worker. */
struct remote_back {
    struct cv_session *session; /* a reference */
    struct cv_tunnel_spec *spec;
    struct cv_gate *gate;
    struct cv_worker *front_worker;
    struct cv_pipe *pipe; /* NULL before OPEN and after the end */
    struct cv_buf unsent; /* taken from the front, at most REMOTE_CREDIT, not yet by the pipe */
    size_t unreturned;    /* sent to the front, which has not yet said that it used them */
    uint32_t port;
    struct cv_upstream_wish wish; /* its correlation is the copy below */
    char correlation[CV_STREAM_CORRELATION_MAX + 1];
    bool is_eof_pending;
    bool has_ended; /* the service sends no more */
};

/* The half on the request's worker, and what both share: the count of references. */
struct cv_remote {
    struct cv_upstream upstream; /* first */
    atomic_uint refs;            /* front, back, each message under way */
    struct cv_worker *back_worker;
    const struct cv_upstream_ops *ops;
    void *arg;
    size_t credit;
    bool is_open, is_reused, is_over, wants_writable;
    struct remote_back back; /* touched on back_worker only, once OPEN is posted */
};

struct message {
    struct cv_mail mail;
    struct cv_remote *remote; /* a reference */
    enum message_kind kind;
    size_t number; /* length, credit, flag */
    struct cv_status status;
    uint8_t data[];
};

static void unref(struct cv_remote *remote)
{
    if (atomic_fetch_sub_explicit(&remote->refs, 1, memory_order_acq_rel) != 1)
        return;
    cv_buf_done(&remote->back.unsent);
    cv_tunnel_spec_unref(&remote->back.spec);
    cv_gate_unref(&remote->back.gate);
    cv_session_unref(&remote->back.session);
    free(remote);
}

static void on_front_mail(void *arg);
static void on_back_mail(void *arg);

/* False when it cannot be delivered. */
static bool post(struct cv_remote *remote, enum message_kind kind, size_t number,
                 struct cv_status status, struct cv_slice data)
{
    struct message *message = malloc(sizeof *message + data.len);
    if (!message)
        return false;
    bool is_to_front = kind >= TO_FRONT_OPENED;
    *message = (struct message){.remote = remote, .kind = kind, .number = number, .status = status};
    cv_mail_init(&message->mail, is_to_front ? on_front_mail : on_back_mail, message);
    if (data.len)
        memcpy(message->data, data.data, data.len);
    (void)atomic_fetch_add_explicit(&remote->refs, 1, memory_order_relaxed);
    if (cv_worker_post(is_to_front ? remote->back.front_worker : remote->back_worker,
                       &message->mail))
        return true;
    free(message);
    /* Not unref: the caller has a reference of its own. */
    (void)atomic_fetch_sub_explicit(&remote->refs, 1, memory_order_relaxed);
    return false;
}

static bool post_plain(struct cv_remote *remote, enum message_kind kind, size_t number)
{
    return post(remote, kind, number, cv_ok(), cv_slice(NULL, 0));
}

/* ---- back ---- */

/* The pipe is gone; what the front still sends is dropped. */
static void back_over(struct cv_remote *remote, enum message_kind kind, struct cv_status why)
{
    remote->back.pipe = NULL;
    (void)post(remote, kind, 0, why, cv_slice(NULL, 0));
    unref(remote);
}

static void back_send(struct cv_remote *remote)
{
    struct remote_back *back = &remote->back;
    struct cv_slice rest = cv_buf_slice(&back->unsent);
    size_t sent = rest.len ? cv_pipe_write(back->pipe, rest) : 0;
    cv_buf_consume(&back->unsent, sent);
    if (sent)
        (void)post_plain(remote, TO_FRONT_CREDIT, sent);
    if (back->is_eof_pending && cv_buf_len(&back->unsent) == 0) {
        back->is_eof_pending = false;
        cv_pipe_eof(back->pipe);
    }
}

static void on_back_open(void *arg, bool is_reused)
{
    (void)post_plain(arg, TO_FRONT_OPENED, is_reused);
    back_send(arg);
}

static void on_back_failed(void *arg, struct cv_status why)
{
    back_over(arg, TO_FRONT_FAILED, why);
}

static void on_back_data(void *arg, struct cv_slice data)
{
    struct cv_remote *remote = arg;
    remote->back.unreturned += data.len;
    if (post(remote, TO_FRONT_DATA, data.len, cv_ok(), data))
        return;
    cv_pipe_close(remote->back.pipe, false);
    back_over(remote, TO_FRONT_CLOSED, cv_status(CV_NO_MEMORY));
}

static void on_back_eof(void *arg)
{
    struct cv_remote *remote = arg;
    remote->back.has_ended = true;
    (void)post_plain(remote, TO_FRONT_EOF, 0);
}

static void on_back_writable(void *arg)
{
    back_send(arg);
}

static void on_back_closed(void *arg, struct cv_status why)
{
    back_over(arg, TO_FRONT_CLOSED, why);
}

static const struct cv_upstream_ops back_ops = {
    .on_open = on_back_open,
    .on_failed = on_back_failed,
    .on_data = on_back_data,
    .on_eof = on_back_eof,
    .on_writable = on_back_writable,
    .on_closed = on_back_closed,
};

static void back_open(struct cv_remote *remote)
{
    struct remote_back *back = &remote->back;
    struct cv_status status = cv_pool_open(&back->session->pool, back->spec, back->gate, back->port,
                                           &back->wish, &back_ops, remote, &back->pipe);
    if (!cv_is_ok(status))
        back_over(remote, TO_FRONT_FAILED, status);
    else if (cv_pipe_is_open(back->pipe))
        on_back_open(remote, cv_pipe_is_reused(back->pipe));
}

/* The front ended the exchange cleanly; but bytes or the end of the stream may have been under way
 * to it, which the next exchange must not inherit. */
static bool is_clean(const struct remote_back *back)
{
    return cv_buf_len(&back->unsent) == 0 && back->unreturned == 0 && !back->has_ended;
}

static void back_take(struct cv_remote *remote, const struct message *message)
{
    struct remote_back *back = &remote->back;
    if (message->kind == TO_BACK_OPEN) {
        back_open(remote);
        return;
    }
    if (!back->pipe)
        return;
    switch (message->kind) {
    case TO_BACK_DATA:
        if (!cv_is_ok(cv_buf_append(&back->unsent, message->data, message->number))) {
            cv_pipe_close(back->pipe, false);
            back_over(remote, TO_FRONT_CLOSED, cv_status(CV_NO_MEMORY));
            return;
        }
        back_send(remote);
        break;
    case TO_BACK_CONSUMED:
        back->unreturned -= message->number;
        cv_pipe_consumed(back->pipe, message->number);
        break;
    case TO_BACK_EOF:
        back->is_eof_pending = true;
        back_send(remote);
        break;
    default: /* TO_BACK_CLOSE */
        cv_pipe_close(back->pipe, message->number && is_clean(back));
        back->pipe = NULL;
        unref(remote);
        break;
    }
}

static void on_back_mail(void *arg)
{
    struct message *message = arg;
    back_take(message->remote, message);
    unref(message->remote);
    free(message);
}

/* ---- front ---- */

static void front_over(struct cv_remote *remote)
{
    remote->is_over = true;
    unref(remote);
}

static void front_take(struct cv_remote *remote, const struct message *message)
{
    const struct cv_upstream_ops *ops = remote->ops;
    if (remote->is_over)
        return;
    switch (message->kind) {
    case TO_FRONT_OPENED:
        remote->is_open = true;
        remote->is_reused = message->number != 0;
        ops->on_open(remote->arg, remote->is_reused);
        break;
    case TO_FRONT_DATA:
        ops->on_data(remote->arg, cv_slice(message->data, message->number));
        break;
    case TO_FRONT_CREDIT:
        remote->credit += message->number;
        if (remote->wants_writable) {
            remote->wants_writable = false;
            ops->on_writable(remote->arg);
        }
        break;
    case TO_FRONT_EOF:
        ops->on_eof(remote->arg);
        break;
    case TO_FRONT_FAILED:
        front_over(remote);
        ops->on_failed(remote->arg, message->status);
        break;
    default: /* TO_FRONT_CLOSED */
        front_over(remote);
        ops->on_closed(remote->arg, message->status);
        break;
    }
}

static void on_front_mail(void *arg)
{
    struct message *message = arg;
    front_take(message->remote, message);
    unref(message->remote);
    free(message);
}

struct cv_status cv_remote_open(struct cv_relay_worker *worker, const struct cv_route *route,
                                const struct cv_upstream_wish *wish,
                                const struct cv_upstream_ops *ops, void *arg,
                                struct cv_remote **out)
{
    struct cv_remote *remote = calloc(1, sizeof *remote);
    *out = NULL;
    if (!remote)
        return cv_status(CV_NO_MEMORY);
    remote->upstream.is_local = false;
    atomic_init(&remote->refs, 2);
    remote->back_worker = worker->relay->workers[route->session->worker_index].worker;
    remote->ops = ops;
    remote->arg = arg;
    remote->credit = REMOTE_CREDIT;
    remote->back = (struct remote_back){.session = cv_session_ref(route->session),
                                        .spec = cv_tunnel_spec_ref(route->spec),
                                        .gate = cv_gate_ref(route->gate),
                                        .front_worker = worker->worker,
                                        .port = route->port,
                                        .wish = *wish};
    if (wish->correlation)
        (void)cv_slice_to_str(cv_slice_str(wish->correlation), remote->back.correlation,
                              sizeof remote->back.correlation);
    remote->back.wish.correlation = remote->back.correlation;
    cv_buf_init(&remote->back.unsent, REMOTE_CREDIT);
    if (!post_plain(remote, TO_BACK_OPEN, 0)) {
        atomic_store_explicit(&remote->refs, 1, memory_order_relaxed); /* there is no back half */
        unref(remote);
        return cv_status(CV_SHUTTING_DOWN);
    }
    *out = remote;
    return cv_ok();
}

bool cv_remote_is_open(const struct cv_remote *remote)
{
    return remote->is_open;
}

bool cv_remote_is_reused(const struct cv_remote *remote)
{
    return remote->is_reused;
}

size_t cv_remote_write(struct cv_remote *remote, struct cv_slice data)
{
    size_t len = data.len < remote->credit ? data.len : remote->credit;
    if (len && !post(remote, TO_BACK_DATA, len, cv_ok(), cv_slice(data.data, len)))
        len = 0;
    remote->credit -= len;
    remote->wants_writable = len < data.len;
    return len;
}

void cv_remote_consumed(struct cv_remote *remote, size_t len)
{
    if (len)
        (void)post_plain(remote, TO_BACK_CONSUMED, len);
}

void cv_remote_eof(struct cv_remote *remote)
{
    (void)post_plain(remote, TO_BACK_EOF, 0);
}

void cv_remote_close(struct cv_remote *remote, bool is_reusable)
{
    (void)post_plain(remote, TO_BACK_CLOSE, is_reusable);
    front_over(remote);
}
