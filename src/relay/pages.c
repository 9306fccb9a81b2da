/* SPDX-License-Identifier: MIT */
#include "base/json.h"
#include "relay/consumer_private.h"
#include "relay/health.h"
#include "relay/registry.h"
#include "relay/relay_metrics.h"

#include <stdio.h>
#include <stdlib.h>

/* The pages are read only: anything else was answered. */
static bool is_refused(struct cv_consumer *c)
{
    if (consumer_is_get(c))
        return false;
    problem_answer(c, CV_METHOD_NOT_ALLOWED, CV_HOP_RELAY, NULL,
                   c->head.framing == CV_HTTP_NO_BODY);
    return true;
}

bool pages_health(struct cv_consumer *c)
{
    bool is_live = cv_slice_is(c->head.path, "/livez");
    bool is_ready = cv_slice_is(c->head.path, "/readyz");
    bool is_health =
        cv_slice_is(c->head.path, "/health") || cv_slice_is(c->head.path, "/api/tunnel/health");
    if (!is_live && !is_ready && !is_health)
        return false;
    if (is_refused(c))
        return true;
    bool is_turning = health_stalled(c->worker) == 0;
    bool is_good = is_live     ? is_turning
                   : is_health ? is_turning && health_is_ready(c->worker)
                               : health_is_ready(c->worker);
    json_t *object = is_health ? health_json(c->worker) : NULL;
    char *text = object ? cv_json_text(object) : NULL;
    json_decref(object);
    if (is_health && !text)
        problem_answer(c, CV_NO_MEMORY, CV_HOP_RELAY, NULL, false);
    else
        problem_simple(c, is_good ? 200 : 503, is_health ? "application/json" : "text/plain",
                       is_health ? text
                       : is_good ? "ok\n"
                       : is_live ? "a worker does not turn\n"
                                 : "not ready\n",
                       "Cache-Control: no-store\r\n");
    free(text);
    return true;
}

bool pages_metrics(struct cv_consumer *c)
{
    if (!c->is_private || !cv_slice_is(c->head.path, "/metrics"))
        return false;
    if (!is_refused(c))
        relay_metrics_page(c);
    return true;
}
