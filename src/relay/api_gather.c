/* SPDX-License-Identifier: MIT
 *
 * What is asked of every worker: a gather goes from one to the next by mail, takes what it finds
 * there, and comes back to the worker of the consumer, which may have gone meanwhile.
 */
#include "relay/api_private.h"

static void on_gather(void *arg);

void api_gather_unref(struct gather *gather)
{
    if (atomic_fetch_sub_explicit(&gather->refs, 1, memory_order_acq_rel) == 1)
        gather->on_free(gather);
}

void api_forget(struct cv_consumer *c)
{
    api_revocations_forget(c);
    if (!c->x.gather)
        return;
    c->x.gather->consumer = NULL;
    api_gather_unref(c->x.gather);
    c->x.gather = NULL;
}

/* To the next worker, or home. Nobody is left to be told where even that one has ended. */
static void go_on(struct gather *gather)
{
    struct cv_relay *relay = gather->relay;
    while (gather->next <= relay->worker_count) {
        unsigned index = gather->next < relay->worker_count ? gather->next : gather->home;
        gather->next++;
        cv_mail_init(&gather->mail, on_gather, gather);
        if (cv_worker_post(relay->workers[index].worker, &gather->mail))
            return;
    }
    api_gather_unref(gather);
}

static void on_gather(void *arg)
{
    struct gather *gather = arg;
    struct cv_relay *relay = gather->relay;
    if (gather->next > relay->worker_count) {
        gather->on_home(gather);
        return;
    }
    gather->on_worker(gather, &relay->workers[gather->next - 1]);
    go_on(gather);
}

void api_gather_start(struct cv_consumer *c, struct gather *gather)
{
    atomic_init(&gather->refs, 2);
    gather->relay = c->worker->relay;
    gather->consumer = c;
    gather->home = c->worker->index;
    gather->next = 0;
    c->x.gather = gather;
    go_on(gather);
}
