/* SPDX-License-Identifier: MIT
 *
 * A consumer's connection on its way to another worker.
 *
 * Happy path: consumer_move detaches it → on_departure posts it → on_arrival attaches it and goes
 * on with the request. Ways it fails: one of the workers stops (the connection is discarded).
 */
#include "config/relay_config.h"
#include "net/conn.h"
#include "relay/consumer_private.h"

static void on_arrival(void *arg)
{
    struct cv_consumer *c = arg;
    consumer_list(c, c->destination);
    if (!cv_is_ok(cv_port_attach(&c->port, c->worker->worker))) {
        cv_conn_discard(cv_port_take_conn(&c->port));
        consumer_free(c); /* a worker that stops runs nothing at the end of a turn any more */
        return;
    }
    consumer_set_timer(c, c->worker->relay->config->limits_body_idle_timeout_ms);
    consumer_go_on(c);
}

/* At the end of the turn, when nobody up the stack looks at the connection any more. */
static void on_departure(void *arg)
{
    struct cv_consumer *c = arg;
    cv_mail_init(&c->mail, on_arrival, c);
    if (cv_worker_post(c->destination->worker, &c->mail))
        return;
    cv_conn_discard(cv_port_take_conn(&c->port));
    consumer_free(c);
}

bool consumer_move(struct cv_consumer *c, unsigned index, bool is_for_good)
{
    bool may_move = is_for_good || (!c->has_moved && !c->is_peer_trusted);
    if (!may_move || !cv_port_is_socket(&c->port))
        return false;
    consumer_keep(c, cv_http_parser_take_rest(c->parser));
    if (c->state.state == CONSUMER_ENDING)
        return true; /* without memory it goes nowhere */
    if (!cv_is_ok(cv_port_detach(&c->port)))
        return false;
    c->has_moved = true;
    cv_fsm_set(&c->state, CONSUMER_MOVING);
    cv_worker_timer_stop(c->worker->worker, &c->timer);
    cv_defer_cancel(&c->next_request);
    consumer_unlist(c);
    c->destination = &c->worker->relay->workers[index];
    cv_defer_init(&c->departure, on_departure, c);
    cv_worker_defer(c->worker->worker, &c->departure);
    return true;
}
