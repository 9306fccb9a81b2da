/* SPDX-License-Identifier: MIT
 *
 * Happy path: new → run (uv_run) → stop sets a flag and wakes → uv_run returns → tear_down → free.
 * Fails: no loop (new), no thread (start_thread). Everything after that cannot fail.
 */
#include "net/worker.h"

#include "net/worker_priv.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>
#include <uv.h>

enum {
    SIGNALS_MAX = 8,
    /* Rounds of deferred work in one turn before sockets get their chance again. */
    DEFER_ROUNDS_MAX = 32,
    SPENDABLE_NS = 4000000,
};

struct worker_signal {
    uv_signal_t handle;
    void (*on_signal)(void *arg, int signo);
    void *arg;
};

struct cv_worker {
    unsigned index;
    uv_loop_t loop;
    uv_async_t wake;
    uv_prepare_t prepare;
    uv_idle_t idle;
    uv_timer_t timer;
    bool has_loop; /* the handles above are initialised and not closed */
    pthread_t thread;
    bool has_thread;
    atomic_bool is_stop_requested;
    atomic_bool is_stopping;

    pthread_mutex_t mail_lock; /* guards the next three */
    struct cv_mail *mail_first, **mail_last;
    bool is_mail_closed;

    struct cv_timers timers;
    uint64_t armed_ms;        /* what `timer` is set to; UINT64_MAX when stopped */
    struct cv_defer deferred; /* list heads */
    struct cv_defer next_turn;
    uint64_t spent_ns; /* of SPENDABLE_NS, in this turn */
    struct cv_worker_item items;
    struct worker_signal signals[SIGNALS_MAX];
    unsigned signal_count;
    struct cv_fetcher *fetcher;
    uint8_t *read_buffer;
    void *busy_with;
    void *data;
};

/* --- deferred work --- */

static void list_init(struct cv_defer *head)
{
    head->prev = head->next = head;
}

static bool list_is_empty(const struct cv_defer *head)
{
    return head->next == head;
}

static void list_append(struct cv_defer *head, struct cv_defer *defer)
{
    if (cv_defer_is_waiting(defer))
        return;
    defer->prev = head->prev;
    defer->next = head;
    head->prev->next = defer;
    head->prev = defer;
}

void cv_defer_cancel(struct cv_defer *defer)
{
    if (!cv_defer_is_waiting(defer))
        return;
    defer->prev->next = defer->next;
    defer->next->prev = defer->prev;
    defer->prev = defer->next = NULL;
}

/* Runs what the list holds now; what is added meanwhile waits for the next round. */
static void list_run(struct cv_defer *head)
{
    if (list_is_empty(head))
        return;
    struct cv_defer batch = {.prev = head->prev, .next = head->next};
    batch.prev->next = &batch;
    batch.next->prev = &batch;
    list_init(head);
    while (!list_is_empty(&batch)) {
        struct cv_defer *defer = batch.next;
        cv_defer_cancel(defer);
        defer->on_run(defer->arg);
    }
}

void cv_worker_defer(struct cv_worker *worker, struct cv_defer *defer)
{
    list_append(&worker->deferred, defer);
}

static void on_idle(uv_idle_t *handle)
{
    struct cv_worker *worker = handle->data;
    list_run(&worker->next_turn);
    if (list_is_empty(&worker->next_turn))
        uv_idle_stop(handle);
}

void cv_worker_defer_next(struct cv_worker *worker, struct cv_defer *defer)
{
    list_append(&worker->next_turn, defer);
    /* An active idle handle keeps the loop from waiting. */
    if (worker->has_loop)
        uv_idle_start(&worker->idle, on_idle);
}

/* --- time --- */

uint64_t cv_worker_now_ms(const struct cv_worker *worker)
{
    return uv_now(&worker->loop);
}

uint64_t cv_worker_now_ns(const struct cv_worker *worker)
{
    (void)worker;
    return uv_hrtime();
}

uint64_t cv_worker_wall_seconds(const struct cv_worker *worker)
{
    (void)worker;
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now) != 0 || now.tv_sec < 0)
        return 0;
    return (uint64_t)now.tv_sec;
}

bool cv_worker_has_time(const struct cv_worker *worker)
{
    return worker->spent_ns < SPENDABLE_NS;
}

void cv_worker_spend(struct cv_worker *worker, uint64_t spent_ns)
{
    worker->spent_ns += spent_ns;
}

struct cv_status cv_worker_timer_start(struct cv_worker *worker, struct cv_timer *timer,
                                       uint64_t delay_ms)
{
    uint64_t now = uv_now(&worker->loop);
    uint64_t delay = delay_ms ? delay_ms : 1;
    uint64_t due = delay < UINT64_MAX - 1 - now ? now + delay : UINT64_MAX - 1;
    return cv_timers_start(&worker->timers, timer, due);
}

void cv_worker_timer_stop(struct cv_worker *worker, struct cv_timer *timer)
{
    cv_timers_stop(&worker->timers, timer);
}

static void on_timer(uv_timer_t *handle)
{
    struct cv_worker *worker = handle->data;
    worker->armed_ms = UINT64_MAX;
    cv_timers_run(&worker->timers, uv_now(&worker->loop));
}

/* Once a turn, right before the loop works out how long to wait. */
static void arm_timer(struct cv_worker *worker)
{
    uint64_t next = cv_timers_next(&worker->timers);
    if (next == worker->armed_ms)
        return;
    worker->armed_ms = next;
    if (next == UINT64_MAX) {
        uv_timer_stop(&worker->timer);
        return;
    }
    uint64_t now = uv_now(&worker->loop);
    uv_timer_start(&worker->timer, on_timer, next > now ? next - now : 0, 0);
}

static void on_prepare(uv_prepare_t *handle)
{
    struct cv_worker *worker = handle->data;
    worker->spent_ns = 0;
    for (int round = 0; round < DEFER_ROUNDS_MAX && !list_is_empty(&worker->deferred); round++)
        list_run(&worker->deferred);
    if (!list_is_empty(&worker->deferred))
        uv_idle_start(&worker->idle, on_idle);
    arm_timer(worker);
}

/* --- mailbox --- */

bool cv_worker_post(struct cv_worker *worker, struct cv_mail *mail)
{
    mail->next = NULL;
    pthread_mutex_lock(&worker->mail_lock);
    bool is_open = !worker->is_mail_closed;
    if (is_open) {
        bool was_empty = worker->mail_first == NULL;
        *worker->mail_last = mail;
        worker->mail_last = &mail->next;
        /* Under the lock, since the handle is closed after the mailbox is. */
        if (was_empty)
            uv_async_send(&worker->wake);
    }
    pthread_mutex_unlock(&worker->mail_lock);
    return is_open;
}

static void deliver(struct cv_worker *worker, bool is_last)
{
    pthread_mutex_lock(&worker->mail_lock);
    struct cv_mail *mail = worker->mail_first;
    worker->mail_first = NULL;
    worker->mail_last = &worker->mail_first;
    if (is_last)
        worker->is_mail_closed = true;
    pthread_mutex_unlock(&worker->mail_lock);
    while (mail) {
        struct cv_mail *next = mail->next;
        mail->next = NULL;
        mail->on_mail(mail->arg);
        mail = next;
    }
}

static void on_wake(uv_async_t *handle)
{
    struct cv_worker *worker = handle->data;
    deliver(worker, false);
    if (atomic_load(&worker->is_stop_requested))
        uv_stop(&worker->loop);
}

/* --- signals --- */

static void on_uv_signal(uv_signal_t *handle, int signo)
{
    struct worker_signal *entry = handle->data;
    entry->on_signal(entry->arg, signo);
}

struct cv_status cv_worker_on_signal(struct cv_worker *worker, int signo,
                                     void (*on_signal)(void *arg, int signo), void *arg)
{
    if (worker->signal_count == SIGNALS_MAX)
        return cv_status(CV_NO_RESOURCES);
    struct worker_signal *entry = &worker->signals[worker->signal_count];
    if (uv_signal_init(&worker->loop, &entry->handle) != 0)
        return cv_status(CV_NO_RESOURCES);
    worker->signal_count++; /* closed with the worker, whether it starts or not */
    entry->on_signal = on_signal;
    entry->arg = arg;
    entry->handle.data = entry;
    if (uv_signal_start(&entry->handle, on_uv_signal, signo) != 0)
        return cv_status(CV_NO_RESOURCES);
    uv_unref((uv_handle_t *)&entry->handle);
    return cv_ok();
}

/* --- items --- */

void cv_worker_item_add(struct cv_worker *worker, struct cv_worker_item *item,
                        void (*on_stop)(void *arg), void *arg)
{
    *item = (struct cv_worker_item){.on_stop = on_stop, .arg = arg};
    item->prev = worker->items.prev;
    item->next = &worker->items;
    item->prev->next = item;
    worker->items.prev = item;
}

void cv_worker_item_remove(struct cv_worker *worker, struct cv_worker_item *item)
{
    if (!item->next)
        return;
    item->prev->next = item->next;
    item->next->prev = item->prev;
    item->prev = item->next = NULL;
    /* tear_down waits in uv_run for the last item. */
    if (atomic_load(&worker->is_stopping))
        uv_stop(&worker->loop);
}

static struct cv_worker_item *first_untold(struct cv_worker *worker)
{
    for (struct cv_worker_item *item = worker->items.next; item != &worker->items;
         item = item->next)
        if (!item->is_told)
            return item;
    return NULL;
}

static void close_items(struct cv_worker *worker)
{
    while (worker->items.next != &worker->items) {
        struct cv_worker_item *item = first_untold(worker);
        if (item) {
            item->is_told = true;
            item->on_stop(item->arg);
        } else {
            uv_run(&worker->loop, UV_RUN_ONCE);
        }
    }
    /* The last callbacks may have deferred something; the first run may only take back uv_stop. */
    uv_run(&worker->loop, UV_RUN_NOWAIT);
    uv_run(&worker->loop, UV_RUN_NOWAIT);
}

/* --- life --- */

static struct cv_status open_loop(struct cv_worker *worker, struct cv_error *error)
{
    if (uv_loop_init(&worker->loop) != 0)
        return cv_fail(error, CV_NO_RESOURCES, "no event loop");
    /* The others only set fields; the async handle takes an event descriptor. */
    if (uv_async_init(&worker->loop, &worker->wake, on_wake) != 0) {
        uv_loop_close(&worker->loop);
        return cv_fail(error, CV_NO_RESOURCES, "no event descriptor");
    }
    uv_prepare_init(&worker->loop, &worker->prepare);
    uv_idle_init(&worker->loop, &worker->idle);
    uv_timer_init(&worker->loop, &worker->timer);
    worker->wake.data = worker->prepare.data = worker->idle.data = worker->timer.data = worker;
    uv_prepare_start(&worker->prepare, on_prepare);
    worker->has_loop = true;
    return cv_ok();
}

struct cv_status cv_worker_new(unsigned index, struct cv_worker **out, struct cv_error *error)
{
    *out = NULL;
    struct cv_worker *worker = calloc(1, sizeof *worker);
    uint8_t *read_buffer = malloc(CV_WORKER_READ_BUFFER_BYTES);
    if (!worker || !read_buffer) {
        free(worker);
        free(read_buffer);
        return cv_fail(error, CV_NO_MEMORY, "no memory for a worker");
    }
    worker->index = index;
    worker->read_buffer = read_buffer;
    worker->mail_last = &worker->mail_first;
    worker->armed_ms = UINT64_MAX;
    worker->items.prev = worker->items.next = &worker->items;
    list_init(&worker->deferred);
    list_init(&worker->next_turn);
    cv_timers_init(&worker->timers);
    struct cv_status status = open_loop(worker, error);
    if (!cv_is_ok(status)) {
        free(read_buffer);
        free(worker);
        return status;
    }
    pthread_mutex_init(&worker->mail_lock, NULL);
    *out = worker;
    return cv_ok();
}

static void tear_down(struct cv_worker *worker)
{
    atomic_store(&worker->is_stopping, true);
    close_items(worker);
    deliver(worker, true);
    close_items(worker);
    cv_fetcher_close(&worker->fetcher);

    uv_close((uv_handle_t *)&worker->wake, NULL);
    uv_close((uv_handle_t *)&worker->prepare, NULL);
    uv_close((uv_handle_t *)&worker->idle, NULL);
    uv_close((uv_handle_t *)&worker->timer, NULL);
    for (unsigned i = 0; i < worker->signal_count; i++)
        uv_close((uv_handle_t *)&worker->signals[i].handle, NULL);
    worker->has_loop = false;
    while (uv_run(&worker->loop, UV_RUN_DEFAULT) != 0)
        continue;
    int closed = uv_loop_close(&worker->loop);
    assert(closed == 0);
    (void)closed;
    cv_timers_done(&worker->timers);
}

void cv_worker_run(struct cv_worker *worker)
{
    while (!atomic_load(&worker->is_stop_requested))
        uv_run(&worker->loop, UV_RUN_DEFAULT);
    tear_down(worker);
}

static void *thread_main(void *arg)
{
    struct cv_worker *worker = arg;
    char name[16];
    (void)snprintf(name, sizeof name, "worker-%u", worker->index % 10000);
    (void)pthread_setname_np(pthread_self(), name);
    cv_worker_run(worker);
    return NULL;
}

struct cv_status cv_worker_start_thread(struct cv_worker *worker)
{
    if (pthread_create(&worker->thread, NULL, thread_main, worker) != 0)
        return cv_status(CV_NO_RESOURCES);
    worker->has_thread = true;
    return cv_ok();
}

void cv_worker_join(struct cv_worker *worker)
{
    if (!worker->has_thread)
        return;
    pthread_join(worker->thread, NULL);
    worker->has_thread = false;
}

void cv_worker_stop(struct cv_worker *worker)
{
    atomic_store(&worker->is_stop_requested, true);
    pthread_mutex_lock(&worker->mail_lock);
    if (!worker->is_mail_closed)
        uv_async_send(&worker->wake);
    pthread_mutex_unlock(&worker->mail_lock);
}

bool cv_worker_is_stopping(const struct cv_worker *worker)
{
    return atomic_load(&worker->is_stopping);
}

void cv_worker_free(struct cv_worker **pointer)
{
    struct cv_worker *worker = *pointer;
    if (!worker)
        return;
    assert(!worker->has_thread);
    if (worker->has_loop)
        tear_down(worker); /* runs callbacks, which may look at *pointer */
    *pointer = NULL;
    pthread_mutex_destroy(&worker->mail_lock);
    free(worker->read_buffer);
    free(worker);
}

/* --- access --- */

unsigned cv_worker_index(const struct cv_worker *worker)
{
    return worker->index;
}

void cv_worker_set_data(struct cv_worker *worker, void *data)
{
    worker->data = data;
}

void *cv_worker_data(const struct cv_worker *worker)
{
    return worker->data;
}

struct uv_loop_s *cv_worker_loop(struct cv_worker *worker)
{
    return &worker->loop;
}

uint8_t *cv_worker_read_buffer(struct cv_worker *worker)
{
    return worker->read_buffer;
}

void **cv_worker_busy_with(struct cv_worker *worker)
{
    return &worker->busy_with;
}

struct cv_fetcher **cv_worker_fetcher(struct cv_worker *worker)
{
    return &worker->fetcher;
}
