/* SPDX-License-Identifier: MIT
 *
 * Happy path, new process: begin (sockets from the predecessor) → take, for each listener → settle
 * → offer → ready → pass, until the predecessor has ended (tick). Old process: on_peer (sockets) →
 * on_record "ready" → SIGTERM to itself, which is the drain → on_record "pass".
 * Ways it fails: nobody is there (an ordinary start); the predecessor refuses or ends (the start
 * fails); the successor ends before it is ready, or takes too long (on_gone, on_late: as before).
 */
#include "relay/takeover.h"

#include "base/file.h"
#include "config/relay_config.h"
#include "config/state_dir.h"
#include "net/handover.h"
#include "relay/consumer.h"
#include "relay/relay.h"
#include "telemetry/log.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    SOCKETS_MAX = CV_RELAY_LISTENERS_MAX * CV_RELAY_WORKERS_MAX + 1,
    ANSWER_MS = 10000, /* of the predecessor, which has only to look at its mail */
    READY_MS = 120000, /* of a successor: keys may come from afar */
};

/* A socket that was given to this process. */
struct given {
    int fd;     /* -1: in use */
    int number; /* what the predecessor counts it as; -1: from systemd */
};

struct cv_takeover {
    struct cv_relay *relay;
    struct given *given;
    size_t given_count;
    bool is_any_taken;

    int predecessor; /* -1: none. Stays open until the threads have ended, any of them may pass */
    atomic_bool has_predecessor;

    /* First worker. */
    struct cv_handover *offer;
    struct cv_timer late;
    bool is_handed_over; /* a successor accepts */
};

/* ---- names ---- */

/* run/relay-ADDRESS.sock; false when the address is chosen by the kernel, which nobody can know. */
static bool make_path(const struct cv_relay *relay, const char *state_dir, char *path, size_t cap)
{
    struct cv_listen_spec spec;
    char text[CV_ADDR_TEXT_LEN], name[CV_ADDR_TEXT_LEN + 16];
    if (!relay->config->listen.count ||
        !cv_is_ok(cv_listen_spec_parse(relay->config->listen.items[0], &spec, NULL)) ||
        cv_addr_port(&spec.addr) == 0)
        return false;
    (void)snprintf(name, sizeof name, "run/relay-%s.sock", cv_addr_format(&spec.addr, text));
    return cv_is_ok(cv_state_dir_path(state_dir, "run", path, cap, NULL)) &&
           cv_is_ok(cv_file_make_folder(path, NULL)) &&
           cv_is_ok(cv_state_dir_path(state_dir, name, path, cap, NULL));
}

/* ---- the new process ---- */

static struct cv_status keep_given(struct cv_takeover *takeover, int fd, int number,
                                   struct cv_error *error)
{
    struct given *more = takeover->given_count < SOCKETS_MAX
                             ? realloc(takeover->given, (takeover->given_count + 1) * sizeof *more)
                             : NULL;
    if (!more) {
        (void)close(fd);
        return cv_fail(error, CV_NO_MEMORY, "too many listening sockets were handed over");
    }
    takeover->given = more;
    more[takeover->given_count++] = (struct given){.fd = fd, .number = number};
    return cv_ok();
}

static struct cv_status fetch_sockets(struct cv_takeover *takeover, struct cv_error *error)
{
    struct cv_handover_record record;
    for (int number = 0;;) {
        int fd;
        struct cv_status status = cv_handover_read(takeover->predecessor, ANSWER_MS, &record, &fd);
        if (!cv_is_ok(status))
            return cv_fail(error, CV_IO, "%s",
                           status.id == CV_AGAIN
                               ? "the running relay does not hand its sockets over"
                               : "the running relay refuses: it stops, or hands over already");
        if (strcmp(record.text, "socket") == 0 && fd >= 0) {
            CV_RETURN_IF_ERROR(keep_given(takeover, fd, number++, error));
            continue;
        }
        if (fd >= 0)
            (void)close(fd);
        if (strcmp(record.text, "all") == 0)
            return cv_ok();
    }
}

static struct cv_status take_over(struct cv_takeover *takeover, const char *state_dir,
                                  struct cv_error *error)
{
    struct cv_log *log = takeover->relay->log;
    char path[4096];
    struct cv_status status = cv_status(CV_NOT_FOUND);
    if (make_path(takeover->relay, state_dir, path, sizeof path))
        status = cv_handover_connect(path, &takeover->predecessor, error);
    if (status.id == CV_NOT_FOUND) {
        if (error)
            *error = (struct cv_error){0};
        cv_log(log, CV_LOG_INFO, "relay", "takeover_alone",
               "no relay of this state folder listens there: an ordinary start");
        return cv_ok();
    }
    CV_RETURN_IF_ERROR(status);
    CV_RETURN_IF_ERROR(fetch_sockets(takeover, error));
    atomic_store(&takeover->has_predecessor, true);
    cv_log(log, CV_LOG_INFO, "relay", "takeover_begin", "taking over from the running relay",
           CV_F_UINT("sockets", takeover->given_count));
    return cv_ok();
}

struct cv_status cv_takeover_begin(struct cv_relay *relay, const struct cv_relay_options *options,
                                   struct cv_takeover **out, struct cv_error *error)
{
    struct cv_takeover *takeover = calloc(1, sizeof *takeover);
    struct cv_status status = cv_ok();
    *out = takeover;
    if (!takeover)
        return cv_fail(error, CV_NO_MEMORY, "no memory");
    takeover->relay = relay;
    takeover->predecessor = -1;
    for (unsigned i = 0; i < options->given_fd_count && cv_is_ok(status); i++)
        status = keep_given(takeover, options->given_fd + (int)i, -1, error);
    if (cv_is_ok(status) && options->is_takeover)
        status = take_over(takeover, options->state_dir, error);
    return status;
}

int cv_takeover_take(struct cv_takeover *takeover, const struct cv_listen_spec *spec)
{
    for (size_t i = 0; i < takeover->given_count; i++) {
        int fd = takeover->given[i].fd;
        if (fd < 0 || !cv_listen_spec_fits(spec, fd))
            continue;
        takeover->given[i].fd = -1;
        takeover->is_any_taken = true;
        return fd;
    }
    return -1;
}

struct cv_status cv_takeover_settle(struct cv_takeover *takeover, struct cv_error *error)
{
    if (takeover->given_count && !takeover->is_any_taken)
        return cv_fail(
            error, CV_CONFIG,
            "none of the %zu sockets given to this process is for an address in `listen`",
            takeover->given_count);
    for (size_t i = 0; i < takeover->given_count; i++) {
        char text[32];
        if (takeover->given[i].fd < 0)
            continue;
        cv_log(takeover->relay->log, CV_LOG_WARN, "relay", "socket_unused",
               "a socket was given for an address that is not in `listen`; it is closed",
               CV_F_UINT("number", i));
        (void)close(takeover->given[i].fd);
        takeover->given[i].fd = -1;
        (void)snprintf(text, sizeof text, "returned %d", takeover->given[i].number);
        if (takeover->given[i].number >= 0)
            (void)cv_handover_write(takeover->predecessor, text, -1);
    }
    return cv_ok();
}

struct cv_status cv_takeover_ready(struct cv_relay *relay, struct cv_error *error)
{
    struct cv_takeover *takeover = relay->takeover;
    struct cv_handover_record record = {0};
    int fd = -1;
    if (takeover->predecessor >= 0) {
        struct cv_status status = cv_handover_write(takeover->predecessor, "ready", -1);
        if (cv_is_ok(status))
            status = cv_handover_read(takeover->predecessor, ANSWER_MS, &record, &fd);
        if (fd >= 0)
            (void)close(fd);
        if (!cv_is_ok(status) || strcmp(record.text, "done") != 0)
            return cv_fail(error, CV_IO, "the running relay did not let go");
        cv_log(relay->log, CV_LOG_INFO, "relay", "takeover_done",
               "this relay accepts all connections; the one before ends what it has");
    }
    struct cv_error detail = {0};
    if (takeover->offer && !cv_is_ok(cv_handover_publish(takeover->offer, &detail)))
        cv_log(relay->log, CV_LOG_WARN, "relay", "takeover_off",
               "no other relay can take over from this one", CV_F_ERROR(&detail));
    return cv_ok();
}

bool cv_takeover_has_predecessor(const struct cv_takeover *takeover)
{
    return takeover && atomic_load_explicit(&takeover->has_predecessor, memory_order_relaxed);
}

void cv_takeover_tick(struct cv_takeover *takeover)
{
    if (!cv_takeover_has_predecessor(takeover) || !cv_handover_is_gone(takeover->predecessor))
        return;
    atomic_store(&takeover->has_predecessor, false);
    cv_log(takeover->relay->log, CV_LOG_INFO, "relay", "predecessor_gone",
           "the relay before this one has ended");
}

struct cv_status cv_takeover_pass(struct cv_takeover *takeover, int fd, const struct cv_addr *peer,
                                  bool is_tls)
{
    char address[CV_ADDR_TEXT_LEN], text[CV_HANDOVER_RECORD_BYTES];
    (void)snprintf(text, sizeof text, "pass %s %.60s", is_tls ? "tls" : "plain",
                   cv_addr_format(peer, address));
    return cv_handover_write(takeover->predecessor, text, fd);
}

/* ---- the old process: on its first worker ---- */

static void on_peer(void *arg)
{
    struct cv_takeover *takeover = arg;
    struct cv_relay *relay = takeover->relay;
    /* While it drains, other workers may be closing what is in this list. */
    struct cv_status status =
        cv_status(atomic_load(&relay->is_draining) ? CV_SHUTTING_DOWN : CV_OK);
    for (size_t i = 0; i < relay->socket_count && cv_is_ok(status); i++)
        if (relay->sockets[i].number >= 0)
            status = cv_handover_send(takeover->offer, "socket", relay->sockets[i].fd);
    if (cv_is_ok(status))
        status = cv_handover_send(takeover->offer, "all", -1);
    cv_log(relay->log, CV_LOG_INFO, "relay", "takeover_asked",
           "another process takes over: the listening sockets are handed to it",
           CV_F_STATUS(status));
    if (!cv_is_ok(status))
        cv_handover_drop(takeover->offer);
    else
        (void)cv_worker_timer_start(relay->workers[0].worker, &takeover->late, READY_MS);
}

static void on_gone(void *arg)
{
    struct cv_takeover *takeover = arg;
    struct cv_relay *relay = takeover->relay;
    cv_worker_timer_stop(relay->workers[0].worker, &takeover->late);
    for (size_t i = 0; i < relay->socket_count; i++)
        relay->sockets[i].is_returned = false;
    cv_log(relay->log, takeover->is_handed_over ? CV_LOG_INFO : CV_LOG_WARN, "relay",
           "successor_gone",
           takeover->is_handed_over ? "the relay after this one has ended"
                                    : "the other process did not become ready: nothing changes");
}

static void on_late(void *arg)
{
    struct cv_takeover *takeover = arg;
    cv_handover_drop(takeover->offer);
    on_gone(takeover);
}

/* The signal is what the drain begins with; the thread that waits for it is another one. */
static void let_go(struct cv_takeover *takeover)
{
    takeover->is_handed_over = true;
    atomic_store(&takeover->relay->is_handed_over, true);
    cv_worker_timer_stop(takeover->relay->workers[0].worker, &takeover->late);
    (void)cv_handover_send(takeover->offer, "done", -1);
    cv_log(takeover->relay->log, CV_LOG_INFO, "relay", "takeover_lost",
           "another process accepts connections from now on");
    (void)kill(getpid(), SIGTERM);
}

/* "pass plain 192.0.2.1:4711" */
static void take_request(struct cv_takeover *takeover, struct cv_slice text, int fd)
{
    struct cv_addr peer = {0};
    char host[CV_HOST_LEN];
    uint16_t port = 0;
    bool is_tls = cv_slice_starts_with(text, "tls ");
    size_t skip = is_tls ? 4 : 6;
    struct cv_slice address =
        text.len > skip ? cv_slice(text.data + skip, text.len - skip) : cv_slice(NULL, 0);
    if (cv_is_ok(cv_hostport_parse(address, 0, host, &port, NULL)))
        (void)cv_addr_from_ip(&peer, cv_slice_str(host), port);
    cv_consumer_accept_passed(&takeover->relay->workers[0], fd, &peer, is_tls);
}

static void take_back(struct cv_relay *relay, struct cv_slice number)
{
    uint64_t n;
    if (!cv_slice_to_u64(number, SOCKETS_MAX, &n))
        return;
    for (size_t i = 0; i < relay->socket_count; i++)
        if (relay->sockets[i].number == (int)n)
            relay->sockets[i].is_returned = true;
}

static void on_record(void *arg, const struct cv_handover_record *record, int fd)
{
    struct cv_takeover *takeover = arg;
    struct cv_slice text = cv_slice_str(record->text);
    if (cv_slice_starts_with(text, "pass ") && fd >= 0) {
        take_request(takeover, cv_slice(text.data + 5, text.len - 5), fd);
        return;
    }
    if (fd >= 0)
        (void)close(fd);
    if (cv_slice_is(text, "ready") && !takeover->is_handed_over) {
        let_go(takeover);
    } else if (cv_slice_starts_with(text, "returned ") && !takeover->is_handed_over) {
        take_back(takeover->relay, cv_slice(text.data + 9, text.len - 9));
    } else {
        cv_handover_drop(takeover->offer);
        on_gone(takeover);
    }
}

static const struct cv_handover_ops offer_ops = {
    .on_peer = on_peer, .on_record = on_record, .on_gone = on_gone};

void cv_takeover_offer(struct cv_relay *relay, const char *state_dir)
{
    struct cv_takeover *takeover = relay->takeover;
    struct cv_error error = {0};
    char path[4096];
    cv_timer_init(&takeover->late, on_late, takeover);
    if (!make_path(relay, state_dir, path, sizeof path))
        return;
    if (!cv_is_ok(cv_handover_new(relay->workers[0].worker, path, &offer_ops, takeover,
                                  &takeover->offer, &error)))
        cv_log(relay->log, CV_LOG_WARN, "relay", "takeover_off",
               "no other relay can take over from this one", CV_F_ERROR(&error));
}

void cv_takeover_drain(struct cv_takeover *takeover)
{
    if (!takeover || !takeover->offer)
        return;
    cv_handover_stop(takeover->offer, takeover->is_handed_over);
    if (takeover->is_handed_over)
        return;
    cv_worker_timer_stop(takeover->relay->workers[0].worker, &takeover->late);
    cv_handover_drop(takeover->offer);
}

/* ---- life ---- */

void cv_takeover_free(struct cv_takeover **pointer)
{
    struct cv_takeover *takeover = *pointer;
    if (!takeover)
        return;
    *pointer = NULL;
    for (size_t i = 0; i < takeover->given_count; i++)
        if (takeover->given[i].fd >= 0)
            (void)close(takeover->given[i].fd);
    if (takeover->predecessor >= 0)
        (void)close(takeover->predecessor);
    free(takeover->given);
    free(takeover);
}
