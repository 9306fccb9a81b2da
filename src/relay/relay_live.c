/* SPDX-License-Identifier: MIT
 *
 * What changes while a relay runs, on all its workers: tokens that hold no more, settings.
 */
#include "relay/relay_private.h"

#include "auth/keysource.h"
#include "config/relay_config.h"
#include "relay/consumer.h"
#include "relay/limits.h"
#include "relay/revocation.h"
#include "relay/session_private.h"
#include "telemetry/log.h"

#include <utlist.h>

static void on_revoked(void *arg)
{
    struct cv_relay_worker *worker = arg;
    struct cv_session *session, *next;
    atomic_store(&worker->is_revoked_mailed, false);
    DL_FOREACH_SAFE(worker->sessions, session, next)
    cv_session_check_revoked(session);
    cv_consumer_check_revoked_all(worker);
}

void cv_relay_apply_revocations(struct cv_relay *relay)
{
    for (unsigned i = 0; i < relay->worker_count; i++) {
        struct cv_relay_worker *worker = &relay->workers[i];
        if (atomic_exchange(&worker->is_revoked_mailed, true))
            continue;
        cv_mail_init(&worker->revoked_mail, on_revoked, worker);
        if (!cv_worker_post(worker->worker, &worker->revoked_mail))
            atomic_store(&worker->is_revoked_mailed, false);
    }
}

static void config_seen(struct cv_relay *relay)
{
    if (atomic_fetch_sub(&relay->config_unseen, 1) == 1)
        atomic_store(&relay->is_config_changing, false);
}

/* Who waits may go by other limits now. */
static void on_config(void *arg)
{
    struct cv_relay_worker *worker = arg;
    struct cv_session *session;
    config_seen(worker->relay);
    DL_FOREACH(worker->sessions, session)
    cv_pool_on_capacity(&session->pool);
}

bool cv_relay_begin_change(struct cv_relay *relay)
{
    return !atomic_exchange(&relay->is_config_changing, true);
}

void cv_relay_end_change(struct cv_relay *relay)
{
    atomic_store(&relay->is_config_changing, false);
}

struct cv_status cv_relay_change(struct cv_relay *relay, struct cv_relay_config *config)
{
    CV_RETURN_IF_ERROR(cv_limits_change(relay->limits, config));
    /* Every worker has had a turn since patched[1] was replaced. */
    cv_relay_config_free(&relay->patched[1]);
    relay->patched[1] = relay->patched[0];
    relay->patched[0] = config;
    atomic_store(&relay->config_unseen, relay->worker_count);
    atomic_store(&relay->config, config);
    for (unsigned i = 0; i < relay->worker_count; i++) {
        struct cv_relay_worker *worker = &relay->workers[i];
        cv_mail_init(&worker->config_mail, on_config, worker);
        if (!cv_worker_post(worker->worker, &worker->config_mail))
            config_seen(relay);
    }
    return cv_ok();
}

void relay_refresh_revocations(struct cv_relay_worker *worker)
{
    struct cv_relay *relay = worker->relay;
    uint64_t generation = cv_keysource_generation(relay->keys);
    if (generation != worker->keys_generation)
        cv_relay_apply_revocations(relay);
    worker->keys_generation = generation;
    struct cv_error error = {0};
    if (cv_revocations_refresh(relay->revocations, (int64_t)cv_worker_wall_seconds(worker->worker),
                               &error))
        cv_relay_apply_revocations(relay);
    if (error.id != CV_OK)
        cv_log_limited(relay->log, CV_LOG_WARN, "relay", "revocations_unreadable",
                       "the file of revocations cannot be read; those known hold",
                       CV_F_ERROR(&error));
}
