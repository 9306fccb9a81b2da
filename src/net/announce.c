/* SPDX-License-Identifier: MIT
 *
 * Happy path: cv_announce_wait → on_readable: the header is whole, it is taken out → on_done with
 * the socket. Ways it fails: it is no header, or too long; the peer is too slow, or gone; the
 * worker ends.
 */
#include "net/announce.h"

#include "net/worker_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

enum { V1_MAX = 107, V2_HEAD = 16, MAGIC_LEN = 12 };

static const char magic[MAGIC_LEN + 1] = "\r\n\r\n\0\r\nQUIT\n";

struct announce {
    struct cv_worker *worker;
    uv_poll_t *poll; /* outlives it by a turn */
    int fd;
    cv_announce_on_done *on_done;
    void *arg;
    struct cv_timer deadline;
    struct cv_worker_item item;
};

/* ---- the header ---- */

/* "PROXY TCP4 192.0.2.1 198.51.100.1 56324 443\r\n" (§2.1) */
static struct cv_status parse_v1(struct cv_slice bytes, struct cv_addr *client, size_t *len)
{
    size_t max = bytes.len < V1_MAX ? bytes.len : V1_MAX;
    const uint8_t *end = memchr(bytes.data, '\n', max);
    if (!end) {
        *len = bytes.len + 1;
        return cv_status(bytes.len < V1_MAX ? CV_AGAIN : CV_INVALID);
    }
    *len = (size_t)(end - bytes.data) + 1;
    if (*len < 2 || end[-1] != '\r')
        return cv_status(CV_INVALID);
    struct cv_slice rest = cv_slice(bytes.data, *len - 2), words[6];
    size_t count = 0;
    while (rest.data && count < 6)
        words[count++] = cv_slice_split(&rest, ' ');
    if (count < 2 || !cv_slice_is(words[0], "PROXY"))
        return cv_status(CV_INVALID);
    if (cv_slice_is(words[1], "UNKNOWN"))
        return cv_ok();
    uint64_t port;
    int family = cv_slice_is(words[1], "TCP4")   ? AF_INET
                 : cv_slice_is(words[1], "TCP6") ? AF_INET6
                                                 : AF_UNSPEC;
    bool is_good = count == 6 && !rest.data && family != AF_UNSPEC &&
                   cv_slice_to_u64(words[4], 65535, &port) &&
                   cv_addr_from_ip(client, words[2], (uint16_t)port) &&
                   /* An IPv4 address mapped into IPv6 has become plain. */
                   (client->any.sa_family == family || family == AF_INET6);
    return cv_status(is_good ? CV_OK : CV_INVALID);
}

/* magic | 0x2 and command | family and protocol | length | addresses | what else (§2.2) */
static struct cv_status parse_v2(struct cv_slice bytes, struct cv_addr *client, size_t *len)
{
    *len = V2_HEAD;
    if (bytes.len < V2_HEAD)
        return cv_status(CV_AGAIN);
    const uint8_t *b = bytes.data;
    size_t rest_len = (size_t)b[14] << 8 | b[15];
    *len = V2_HEAD + rest_len;
    if (b[12] >> 4 != 2 || *len > CV_ANNOUNCE_MAX)
        return cv_status(CV_INVALID);
    if (bytes.len < *len)
        return cv_status(CV_AGAIN);
    if ((b[12] & 15) == 0) /* LOCAL: a health check of the balancer's own */
        return cv_ok();
    if ((b[12] & 15) != 1)
        return cv_status(CV_INVALID);
    if (b[13] == 0x11 && rest_len >= 12) {
        struct sockaddr_in v4 = {.sin_family = AF_INET};
        memcpy(&v4.sin_addr, b + V2_HEAD, 4);
        memcpy(&v4.sin_port, b + V2_HEAD + 8, 2);
        (void)cv_addr_from_sockaddr(client, (const struct sockaddr *)&v4, sizeof v4);
        return cv_ok();
    }
    if (b[13] == 0x21 && rest_len >= 36) {
        struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
        memcpy(&v6.sin6_addr, b + V2_HEAD, 16);
        memcpy(&v6.sin6_port, b + V2_HEAD + 32, 2);
        (void)cv_addr_from_sockaddr(client, (const struct sockaddr *)&v6, sizeof v6);
        return cv_ok();
    }
    /* Of other families the address is not told, as for LOCAL; one that is cut is none. */
    return cv_status(b[13] == 0x11 || b[13] == 0x21 ? CV_INVALID : CV_OK);
}

struct cv_status cv_announce_parse(struct cv_slice bytes, struct cv_addr *client, size_t *len)
{
    size_t seen = bytes.len < MAGIC_LEN ? bytes.len : MAGIC_LEN;
    *client = (struct cv_addr){0};
    *len = bytes.len + 1;
    if (bytes.len == 0)
        return cv_status(CV_AGAIN);
    if (memcmp(bytes.data, magic, seen) == 0)
        return seen < MAGIC_LEN ? cv_status(CV_AGAIN) : parse_v2(bytes, client, len);
    seen = bytes.len < 6 ? bytes.len : 6;
    if (memcmp(bytes.data, "PROXY ", seen) != 0)
        return cv_status(CV_INVALID);
    return parse_v1(bytes, client, len);
}

/* ---- the socket ---- */

static void on_poll_freed(uv_handle_t *handle)
{
    free(handle);
}

static void announce_free(struct announce *a)
{
    a->poll->data = NULL;
    (void)uv_poll_stop(a->poll);
    uv_close((uv_handle_t *)a->poll, on_poll_freed);
    cv_worker_timer_stop(a->worker, &a->deadline);
    cv_worker_item_remove(a->worker, &a->item);
    free(a);
}

static void finish(struct announce *a, const struct cv_addr *client, struct cv_status status)
{
    cv_announce_on_done *on_done = a->on_done;
    void *arg = a->arg;
    int fd = a->fd;
    announce_free(a);
    if (!cv_is_ok(status)) {
        (void)close(fd);
        fd = -1;
    }
    on_done(arg, fd, client, status);
}

static void on_deadline(void *arg)
{
    static const struct cv_addr none;
    finish(arg, &none, cv_status(CV_CONN_TIMEOUT));
}

static void on_stop(void *arg)
{
    struct announce *a = arg;
    (void)close(a->fd);
    announce_free(a);
}

/* What was looked at is in the buffer: it comes at once and whole. */
static bool take_out(int fd, size_t len)
{
    uint8_t bytes[CV_ANNOUNCE_MAX];
    return recv(fd, bytes, len, MSG_DONTWAIT) == (ssize_t)len;
}

static struct cv_addr peer_of(int fd)
{
    struct cv_addr peer = {0};
    struct sockaddr_storage name;
    socklen_t len = sizeof name;
    if (getpeername(fd, (struct sockaddr *)&name, &len) == 0)
        (void)cv_addr_from_sockaddr(&peer, (const struct sockaddr *)&name, len);
    return peer;
}

static void on_readable(uv_poll_t *handle, int poll_status, int events)
{
    struct announce *a = handle->data;
    uint8_t bytes[CV_ANNOUNCE_MAX];
    struct cv_addr client = {0};
    size_t len = 0;
    (void)poll_status;
    if (!a)
        return;
    ssize_t got = recv(a->fd, bytes, sizeof bytes, MSG_PEEK | MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    struct cv_status status = cv_status(got == 0 ? CV_EOF : CV_CONN_RESET);
    if (got > 0)
        status = cv_announce_parse(cv_slice(bytes, (size_t)got), &client, &len);
    if (status.id == CV_AGAIN && (events & UV_DISCONNECT))
        status = cv_status(CV_EOF); /* no more comes */
    if (status.id == CV_AGAIN) {
        /* Not woken again by what is there: only by as much as is needed, or the end. */
        int low = (int)len;
        (void)setsockopt(a->fd, SOL_SOCKET, SO_RCVLOWAT, &low, sizeof low);
        return;
    }
    int low = 1;
    (void)setsockopt(a->fd, SOL_SOCKET, SO_RCVLOWAT, &low, sizeof low);
    if (cv_is_ok(status) && !take_out(a->fd, len))
        status = cv_status(CV_CONN_RESET);
    if (cv_is_ok(status) && client.len == 0)
        client = peer_of(a->fd);
    finish(a, &client, status);
}

struct cv_status cv_announce_wait(struct cv_worker *worker, int fd, uint64_t timeout_ms,
                                  cv_announce_on_done *on_done, void *arg)
{
    struct announce *a = calloc(1, sizeof *a);
    uv_poll_t *poll = a ? calloc(1, sizeof *poll) : NULL;
    if (!poll || uv_poll_init(cv_worker_loop(worker), poll, fd) != 0) {
        bool is_memory = !poll;
        free(poll);
        free(a);
        (void)close(fd);
        return cv_status(is_memory ? CV_NO_MEMORY : CV_NO_RESOURCES);
    }
    *a =
        (struct announce){.worker = worker, .poll = poll, .fd = fd, .on_done = on_done, .arg = arg};
    poll->data = a;
    cv_timer_init(&a->deadline, on_deadline, a);
    cv_worker_item_add(worker, &a->item, on_stop, a);
    if (uv_poll_start(poll, UV_READABLE | UV_DISCONNECT, on_readable) != 0 ||
        !cv_is_ok(cv_worker_timer_start(worker, &a->deadline, timeout_ms))) {
        on_stop(a);
        return cv_status(CV_NO_RESOURCES);
    }
    return cv_ok();
}
