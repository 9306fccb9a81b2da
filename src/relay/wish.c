/* SPDX-License-Identifier: MIT
 *
 * What a request asks of the relay about itself: how urgent it is, for how long it would wait. None
 * of it reaches the service.
 */
#include "config/relay_config.h"
#include "config/value.h"
#include "relay/consumer_private.h"

/* Culvert-Priority, else the standard field, which an unknowing client may send. */
static bool read_priority(struct cv_consumer *c)
{
    const struct cv_slice *own = cv_http_find(&c->head, "Culvert-Priority");
    const struct cv_slice *standard = own ? NULL : cv_http_find(&c->head, "Priority");
    c->x.priority = standard ? cv_priority_from_urgency(*standard) : CV_PRIORITY_INTERACTIVE;
    return !own || (cv_http_count(&c->head, "Culvert-Priority") == 1 &&
                    cv_priority_parse(*own, &c->x.priority));
}

/* Culvert-Timeout: a duration with its unit, or milliseconds. */
static bool read_timeout(struct cv_consumer *c)
{
    const struct cv_slice *value = cv_http_find(&c->head, "Culvert-Timeout");
    uint64_t max_ms = c->worker->relay->config->timers_asked_max_ms;
    c->x.asked_ms = 0;
    if (!value)
        return true;
    if (cv_http_count(&c->head, "Culvert-Timeout") > 1 ||
        !cv_value_duration(*value, true, &c->x.asked_ms) || c->x.asked_ms == 0)
        return false;
    if (c->x.asked_ms > max_ms)
        c->x.asked_ms = max_ms;
    return true;
}

bool wish_read(struct cv_consumer *c)
{
    const char *fault = NULL;
    if (!read_priority(c))
        fault = "Culvert-Priority is interactive, batch or background";
    else if (!read_timeout(c))
        fault = "Culvert-Timeout is one duration, such as 30s, or a number of milliseconds";
    if (fault)
        problem_answer(c, CV_BAD_REQUEST, CV_HOP_CONSUMER, fault,
                       c->head.framing == CV_HTTP_NO_BODY);
    return !fault;
}
