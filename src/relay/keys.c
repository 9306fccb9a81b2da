/* SPDX-License-Identifier: MIT */
#include "relay/keys.h"

#include "auth/keysource.h"
#include "config/relay_config.h"
#include "net/fetch.h"
#include "relay/relay.h"
#include "telemetry/log.h"
#include "telemetry/metrics.h"

#include <string.h>

enum { KEYS_TIMEOUT_MS = 5000, KEYS_MAX_BYTES = 256 * 1024 };

static void on_fetched(void *arg, struct cv_status status, const struct cv_error *error,
                       int http_status, struct cv_slice body)
{
    struct cv_relay_worker *worker = arg;
    struct cv_relay *relay = worker->relay;
    uint64_t now_ms = cv_worker_now_ms(worker->worker);
    struct cv_error parse_error = {0};
    worker->key_fetch = NULL;
    if (cv_is_ok(status) && http_status == 200) {
        status = cv_keysource_fetched(relay->keys, body, now_ms, &parse_error);
        error = &parse_error;
    } else {
        cv_keysource_failed(relay->keys, now_ms);
        if (cv_is_ok(status))
            status = cv_status(CV_UNAVAILABLE);
    }
    cv_metrics_add(worker->metrics,
                   CV_CELL(JWKS_REFRESHES, cv_is_ok(status) ? CV_L_JWKS_OK : CV_L_JWKS_FAILED, 0),
                   1);
    if (cv_is_ok(status))
        cv_log(relay->log, CV_LOG_DEBUG, "auth", "keys_fetched", "the issuer's keys are fresh");
    else
        cv_log_limited(relay->log, CV_LOG_WARN, "auth", "keys_failed",
                       "the issuer's keys could not be fetched; known ones stay valid for a while",
                       CV_F_STATUS(status), CV_F_STR("detail", error ? error->detail : NULL),
                       CV_F_INT("httpStatus", http_status));
}

void cv_relay_fetch_keys(struct cv_relay_worker *worker)
{
    struct cv_relay *relay = worker->relay;
    struct cv_fetch_request request = {
        .url = relay->config->auth_jwks_url,
        .timeout_ms = KEYS_TIMEOUT_MS,
        .max_bytes = KEYS_MAX_BYTES,
        /* The configuration takes http:// for loopback only. */
        .allow_http = strncmp(relay->config->auth_jwks_url, "http://", 7) == 0,
    };
    struct cv_error error = {0};
    struct cv_status status = cv_status(CV_AGAIN);
    if (!worker->key_fetch)
        status = cv_fetch_start(worker->worker, &request, on_fetched, worker, &worker->key_fetch,
                                &error);
    if (!cv_is_ok(status)) {
        cv_keysource_failed(relay->keys, cv_worker_now_ms(worker->worker));
        if (!worker->key_fetch)
            cv_metrics_add(worker->metrics, CV_CELL(JWKS_REFRESHES, CV_L_JWKS_FAILED, 0), 1);
    }
}
