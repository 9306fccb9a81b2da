/* SPDX-License-Identifier: MIT
 *
 * One thread with one event loop: timers, a mailbox for other threads, and work put off to the end
 * of a turn. Everything else in net/ hangs off a worker and lives on its thread.
 *
 * A turn of the loop: due timers → `cv_worker_defer_next` items of the turn before → deferred items
 * (connections write what was appended, closed ones are reaped) → wait → sockets and mail.
 *
 * Owns its loop, its read buffer and the objects of net/ made on it; borrows timers, mails and
 * defers (they are fields of their owners). Thread: the worker's own, except where a comment says
 * "any thread"; before cv_worker_run everything may be called from the thread that made it.
 */
#ifndef CV_NET_WORKER_H
#define CV_NET_WORKER_H

#include "base/status.h"
#include "base/timers.h"

#include <stdint.h>

#define CV_WORKER_READ_BUFFER_BYTES ((size_t)64 * 1024)

struct cv_worker;

/* A message to a worker: a field of what is sent. Free again (and its memory with it) once
 * on_mail has been entered. */
struct cv_mail {
    struct cv_mail *next;
    void (*on_mail)(void *arg);
    void *arg;
};

/* Work put off. Zero-initialised or cv_defer_init; never copied while waiting. */
struct cv_defer {
    struct cv_defer *prev, *next; /* both NULL when not waiting */
    void (*on_run)(void *arg);
    void *arg;
};

static inline void cv_mail_init(struct cv_mail *mail, void (*on_mail)(void *arg), void *arg)
{
    *mail = (struct cv_mail){.on_mail = on_mail, .arg = arg};
}

static inline void cv_defer_init(struct cv_defer *defer, void (*on_run)(void *arg), void *arg)
{
    *defer = (struct cv_defer){.on_run = on_run, .arg = arg};
}

/* --- life --- */

/* `index` is the worker's number, from 0. CV_NO_MEMORY, or CV_NO_RESOURCES when the system gives no
 * loop; *out is NULL then. */
struct cv_status cv_worker_new(unsigned index, struct cv_worker **out, struct cv_error *error);

/* Runs the loop in the calling thread until cv_worker_stop. On the way out, in this order: every
 * connection, listener, dial and fetch left is closed (each calls its last callback, with
 * CV_SHUTTING_DOWN), the mailbox is closed, what was in it is delivered, the loop ends. A name
 * being resolved by the system is waited for. Once only. */
void cv_worker_run(struct cv_worker *worker);

/* Same in a thread of its own. CV_NO_RESOURCES when there is none. Pair with cv_worker_join. */
struct cv_status cv_worker_start_thread(struct cv_worker *worker);
void cv_worker_join(struct cv_worker *worker);

/* Makes cv_worker_run end. Any thread, also a mail or timer of the worker itself; idempotent. It
 * does not wait for requests in flight: drain them before. */
void cv_worker_stop(struct cv_worker *worker);

/* True once cv_worker_run is on its way out: do not start anything new. */
bool cv_worker_is_stopping(const struct cv_worker *worker);

/* After cv_worker_run has returned or the thread was joined, or when it never ran (then it tears
 * down as cv_worker_run would). NULL is fine; *worker is NULL afterwards. */
void cv_worker_free(struct cv_worker **worker);

unsigned cv_worker_index(const struct cv_worker *worker);

/* One pointer for the owner; NULL at first. */
void cv_worker_set_data(struct cv_worker *worker, void *data);
void *cv_worker_data(const struct cv_worker *worker);

/* --- time --- */

uint64_t cv_worker_now_ms(const struct cv_worker *worker); /* monotonic, the same all turn long */
uint64_t
cv_worker_now_ns(const struct cv_worker *worker); /* monotonic, read afresh: for measuring */
uint64_t cv_worker_wall_seconds(const struct cv_worker *worker); /* Unix time */

/* Starts or moves a timer; fires once, no earlier than `delay_ms` from now; 0 counts as 1.
 * CV_NO_MEMORY only when it was stopped; it is left as it was. Timers need no stopping at teardown,
 * they just never fire. */
struct cv_status cv_worker_timer_start(struct cv_worker *worker, struct cv_timer *timer,
                                       uint64_t delay_ms);
void cv_worker_timer_stop(struct cv_worker *worker, struct cv_timer *timer);

/* --- messages and put-off work --- */

/* Delivers `mail` on the worker's thread. Any thread. In order per sender; never allocates; one
 * wake-up per batch. A mail waits in one mailbox at most. False when the worker's mailbox is
 * closed: the mail stays the caller's. What is in the mailbox when it closes is still delivered, so
 * that every mail that was taken is delivered exactly once; look at cv_worker_is_stopping. */
bool cv_worker_post(struct cv_worker *worker, struct cv_mail *mail);

/* Runs once at the end of this turn, before the loop waits. Already waiting: nothing happens. Taken
 * in order. What is deferred while deferred work runs still runs in this turn, up to a bound that
 * keeps a loop of deferrals from starving sockets. */
void cv_worker_defer(struct cv_worker *worker, struct cv_defer *defer);

/* Runs once in the next turn, ahead of its deferred work and without waiting for anything: to go on
 * with long work after others have had their go. */
void cv_worker_defer_next(struct cv_worker *worker, struct cv_defer *defer);

/* Takes it back, from wherever it waits; fine when it does not wait. */
void cv_defer_cancel(struct cv_defer *defer);

static inline bool cv_defer_is_waiting(const struct cv_defer *defer)
{
    return defer->next != NULL;
}

/* Calls on_signal in the loop when the process gets `signo`, until the worker ends. Main worker
 * only; at most 8. CV_NO_RESOURCES. */
struct cv_status cv_worker_on_signal(struct cv_worker *worker, int signo,
                                     void (*on_signal)(void *arg, int signo), void *arg);

#endif
