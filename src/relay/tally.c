/* SPDX-License-Identifier: MIT
 *
 * Happy path: tally_note → the worker's table → (a new minute, tally_tick or a question)
 * tally_hand_over. Ways it fails: no memory for a table (the request is not counted); the history
 * takes no more (the table goes on).
 */
#include "relay/tally.h"

#include "config/relay_config.h"
#include "relay/consumer_private.h"
#include "relay/session.h"
#include "store/history.h"

static int64_t minute_of(const struct cv_relay_worker *worker)
{
    return (int64_t)(cv_worker_wall_seconds(worker->worker) / 60);
}

static struct cv_usage_table *table_of(struct cv_relay_worker *worker)
{
    int64_t minute = minute_of(worker);
    if (worker->usage && cv_usage_table_minute(worker->usage) != minute)
        tally_hand_over(worker);
    if (!worker->usage)
        worker->usage = cv_usage_table_new(minute, worker->relay->config->history_series);
    return worker->usage;
}

static uint64_t span_us(uint64_t from_ns, uint64_t to_ns)
{
    return from_ns && to_ns > from_ns ? (to_ns - from_ns) / 1000 : 0;
}

void tally_note(const struct cv_consumer *c)
{
    const struct exchange *x = &c->x;
    const struct cv_session *session = x->route.session;
    struct cv_usage_table *table = table_of(c->worker);
    if (!table)
        return;
    uint64_t now_ns = cv_worker_now_ns(c->worker->worker);
    bool is_upgraded = x->status == 101;
    struct cv_model_numbers model = cv_model_stream_numbers(&x->model);
    struct cv_usage_request request = {
        .status = x->status,
        .is_cut = x->is_cut,
        .is_cancelled = !x->is_cut && !is_upgraded &&
                        (x->status == 0 || (x->is_head_out && !x->is_response_whole)),
        .has_first_byte = x->first_byte_ns != 0,
        .bytes_in = x->body_received,
        .bytes_out = x->answered,
        .latency_us = span_us(x->started_ns, now_ns),
        .first_byte_us = span_us(x->started_ns, x->first_byte_ns),
        .queue_us =
            x->is_counted ? span_us(x->started_ns, x->opened_ns ? x->opened_ns : now_ns) : 0,
        .stream_us = span_us(x->opened_ns, now_ns),
        .prompt_tokens = model.prompt_tokens,
        .completion_tokens = model.completion_tokens,
    };
    struct cv_usage_key key;
    cv_usage_key_init(&key, cv_session_user_key(session)->bytes, x->route.spec->name);
    cv_usage_note(cv_usage_table_at(table, &key, cv_session_user_id(session)), &request);
}

void tally_hand_over(struct cv_relay_worker *worker)
{
    if (worker->usage && cv_history_give(worker->relay->history, worker->usage))
        worker->usage = NULL;
}

static void on_minute(void *arg)
{
    struct cv_relay_worker *worker = arg;
    atomic_store(&worker->is_usage_mailed, false);
    if (worker->usage && cv_usage_table_minute(worker->usage) != minute_of(worker))
        tally_hand_over(worker);
}

void tally_tick(struct cv_relay_worker *worker)
{
    struct cv_relay *relay = worker->relay;
    int64_t minute = minute_of(worker);
    if (minute == relay->usage_minute)
        return;
    relay->usage_minute = minute;
    for (unsigned i = 0; i < relay->worker_count; i++) {
        struct cv_relay_worker *other = &relay->workers[i];
        if (atomic_exchange(&other->is_usage_mailed, true))
            continue;
        cv_mail_init(&other->usage_mail, on_minute, other);
        if (!cv_worker_post(other->worker, &other->usage_mail))
            atomic_store(&other->is_usage_mailed, false);
    }
}
