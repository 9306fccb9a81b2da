/* SPDX-License-Identifier: MIT
 *
 * Happy path: start → launch (connect, poll) → writable without error → everybody else is closed →
 * on_done(fd).
 * Fails: an attempt: launch the next at once; the last attempt: on_done(-1). The limit in time is
 * the owner's.
 */
#include "net/race.h"

#include "net/worker_priv.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <unistd.h>
#include <uv.h>

void cv_race_add(struct cv_race *race, const struct cv_addr *addr)
{
    if (race->count < CV_RACE_ADDRS_MAX)
        race->addrs[race->count++] = *addr;
}

void cv_race_interleave(struct cv_race *race)
{
    struct cv_addr sorted[CV_RACE_ADDRS_MAX];
    bool is_taken[CV_RACE_ADDRS_MAX] = {0};
    int wanted = race->count ? race->addrs[0].any.sa_family : AF_UNSPEC;
    for (size_t n = 0; n < race->count; n++) {
        size_t pick = race->count;
        for (size_t i = 0; i < race->count; i++) {
            if (is_taken[i])
                continue;
            if (pick == race->count || race->addrs[i].any.sa_family == wanted)
                pick = i;
            if (race->addrs[i].any.sa_family == wanted)
                break;
        }
        is_taken[pick] = true;
        sorted[n] = race->addrs[pick];
        wanted = sorted[n].any.sa_family == AF_INET6 ? AF_INET : AF_INET6;
    }
    memcpy(race->addrs, sorted, race->count * sizeof sorted[0]);
}

void cv_race_repeat(struct cv_race *race, unsigned rounds)
{
    size_t count = race->count;
    race->first_count = count;
    for (unsigned round = 1; round < rounds; round++)
        for (size_t i = 0; i < count; i++)
            cv_race_add(race, &race->addrs[i]);
}

static void on_poll_freed(uv_handle_t *handle)
{
    free(handle);
}

static void leave_lane(struct race_lane *lane)
{
    if (!lane->poll)
        return;
    lane->poll->data = NULL;
    uv_poll_stop(lane->poll);
    uv_close((uv_handle_t *)lane->poll, on_poll_freed);
    lane->poll = NULL;
}

void cv_race_stop(struct cv_race *race)
{
    if (!race->worker)
        return;
    cv_worker_timer_stop(race->worker, &race->timer);
    for (size_t i = 0; i < race->next; i++) {
        if (!race->lanes[i].poll)
            continue;
        leave_lane(&race->lanes[i]);
        (void)close(race->lanes[i].fd);
    }
}

/* That a network is not there says less than what happened on one that is. */
static bool is_about_network(int sys_errno)
{
    return sys_errno == 0 || sys_errno == ENETUNREACH || sys_errno == EHOSTUNREACH ||
           sys_errno == EADDRNOTAVAIL || sys_errno == EAFNOSUPPORT;
}

static void note(struct cv_race *race, const struct cv_addr *addr, int sys_errno)
{
    if (!is_about_network(race->sys_errno))
        return;
    race->sys_errno = sys_errno;
    race->failed = *addr;
}

static bool is_running(const struct cv_race *race)
{
    for (size_t i = 0; i < race->next; i++)
        if (race->lanes[i].poll)
            return true;
    return false;
}

static void go_on(struct cv_race *race, bool is_by_time);

static void on_poll(uv_poll_t *handle, int status, int events)
{
    (void)status;
    (void)events;
    struct race_lane *lane = handle->data;
    if (!lane)
        return;
    struct cv_race *race = lane->race;
    int failure = 0;
    socklen_t len = sizeof failure;
    if (getsockopt(lane->fd, SOL_SOCKET, SO_ERROR, &failure, &len) != 0)
        failure = errno;
    leave_lane(lane);
    if (failure == 0) {
        cv_race_stop(race);
        race->on_done(race->arg, lane->fd);
        return;
    }
    (void)close(lane->fd);
    note(race, &race->addrs[lane - race->lanes], failure);
    go_on(race, false);
}

/* 0, or the errno why this address is out. */
static int launch(struct cv_race *race, struct race_lane *lane, const struct cv_addr *addr)
{
    int fd = socket(addr->any.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return errno;
    int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    /* Connected at once is seen as writable, like all others. */
    if (connect(fd, &addr->any, addr->len) != 0 && errno != EINPROGRESS) {
        int failure = errno;
        (void)close(fd);
        return failure;
    }
    uv_poll_t *poll = malloc(sizeof *poll);
    if (!poll || uv_poll_init(cv_worker_loop(race->worker), poll, fd) != 0) {
        free(poll);
        (void)close(fd);
        return ENOMEM;
    }
    *lane = (struct race_lane){.race = race, .poll = poll, .fd = fd};
    poll->data = lane;
    uv_poll_start(poll, UV_WRITABLE, on_poll);
    return 0;
}

/* Addresses come again by time only: who refuses would be asked in a tight loop otherwise. */
static void go_on(struct cv_race *race, bool is_by_time)
{
    size_t end = is_by_time || !race->first_count ? race->count : race->first_count;
    while (race->next < end) {
        size_t i = race->next++;
        int failure = launch(race, &race->lanes[i], &race->addrs[i]);
        if (failure == 0) {
            /* Without a timer the next one waits for this one to fail. */
            if (race->next < race->count)
                (void)!cv_is_ok(
                    cv_worker_timer_start(race->worker, &race->timer, race->stagger_ms));
            return;
        }
        note(race, &race->addrs[i], failure);
    }
    if (!is_running(race)) {
        cv_worker_timer_stop(race->worker, &race->timer);
        race->on_done(race->arg, -1);
    }
}

static void on_stagger(void *arg)
{
    go_on(arg, true);
}

void cv_race_start(struct cv_race *race)
{
    cv_timer_init(&race->timer, on_stagger, race);
    go_on(race, false);
}
