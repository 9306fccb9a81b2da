/* SPDX-License-Identifier: MIT
 *
 * Who asks, by address: the peer, or, behind a load balancer that is trusted, whom it names; and
 * whether there has been too much of that.
 */
#include "config/relay_config.h"
#include "relay/consumer_private.h"
#include "relay/measure.h"
#include "telemetry/log.h"

#include <stdio.h>
#include <string.h>

enum { HOPS_MAX = 16 }; /* of the list, from its end */

bool source_is_trusted(const struct cv_relay *relay, const struct cv_addr *peer)
{
    for (size_t i = 0; i < relay->trusted_count; i++)
        if (cv_cidr_has(&relay->trusted[i], peer))
            return true;
    return false;
}

/* `for=` of an element of Forwarded (RFC 7239 §4), without its quotes; empty when there is none. */
static struct cv_slice forwarded_for(struct cv_slice element)
{
    while (element.len) {
        struct cv_slice value = cv_slice_trim(cv_slice_split(&element, ';'));
        struct cv_slice name = cv_slice_trim(cv_slice_split(&value, '='));
        if (!cv_slice_is_nocase(name, "for"))
            continue;
        value = cv_slice_trim(value);
        if (value.len >= 2 && value.data[0] == '"' && value.data[value.len - 1] == '"')
            value = cv_slice(value.data + 1, value.len - 2);
        return value;
    }
    return cv_slice(NULL, 0);
}

static bool parse_node(struct cv_slice text, struct cv_addr *addr)
{
    char host[CV_HOST_LEN];
    uint16_t port;
    return text.len && cv_is_ok(cv_hostport_parse(text, 1, host, &port, NULL)) &&
           cv_addr_from_ip(addr, cv_slice_str(host), 0);
}

/* The last elements of a list over all its lines, in order; returns how many. */
static size_t last_elements(const struct cv_http_head *head, const char *name,
                            struct cv_slice last[HOPS_MAX])
{
    size_t count = 0;
    for (size_t i = 0; i < head->field_count; i++) {
        struct cv_slice rest = head->fields[i].value, element;
        if (!cv_slice_is_nocase(head->fields[i].name, name))
            continue;
        while (cv_http_list_next(&rest, &element)) {
            if (count == HOPS_MAX) {
                memmove(last, last + 1, (HOPS_MAX - 1) * sizeof *last);
                count--;
            }
            last[count++] = element;
        }
    }
    return count;
}

/* From the end of the list, as far as those who wrote it are trusted: each names whom it was asked
 * by. What stands in front of that is a stranger's word. */
static void find_client(struct cv_consumer *c)
{
    const struct cv_relay *relay = c->worker->relay;
    const char *header = relay->config->trusted_header;
    bool is_forwarded = strcmp(header, "forwarded") == 0;
    struct cv_slice last[HOPS_MAX];
    c->client = c->peer;
    if (!c->is_peer_trusted || strcmp(header, "none") == 0)
        return;
    for (size_t i = last_elements(&c->head, header, last); i-- > 0;) {
        struct cv_addr named;
        if (!parse_node(is_forwarded ? forwarded_for(last[i]) : last[i], &named))
            return;
        c->client = named;
        if (!source_is_trusted(relay, &named))
            return;
    }
}

void source_find(struct cv_consumer *c)
{
    find_client(c);
    c->x.source = c->connection;
    if (c->is_peer_trusted)
        c->x.source =
            cv_addr_equal_ip(&c->client, &c->peer)
                ? NULL
                : cv_limits_source(c->worker->relay->limits, &c->client, consumer_now_ms(c));
}

static bool refuse(struct cv_consumer *c, const char *detail)
{
    c->x.retry_after_s = cv_quota_retry_s(&c->x.quota);
    measure_limit(c, &c->x.quota);
    problem_answer(c, CV_RATE_LIMITED, CV_HOP_RELAY, detail, c->head.framing == CV_HTTP_NO_BODY);
    return false;
}

bool source_admit(struct cv_consumer *c, enum cv_limit_kind kind)
{
    if (c->x.is_admitted || c->x.is_charged)
        return true;
    c->x.is_admitted = true;
    if (cv_limits_take_source(c->worker->relay->limits, c->x.source, kind, consumer_now_ms(c),
                              &c->x.quota)) {
        c->x.quota = (struct cv_quota){0}; /* what is told is the user's own */
        return true;
    }
    return refuse(c, kind == CV_LIMIT_REQUESTS ? "too many requests from this address"
                                               : "too many upgrades from this address");
}

bool source_admit_user(struct cv_consumer *c, enum cv_limit_kind kind)
{
    struct cv_limits *limits = c->worker->relay->limits;
    uint64_t now_ms = consumer_now_ms(c);
    struct cv_quota quota;
    if (c->x.is_charged)
        return true;
    bool is_in = cv_limits_take_user(limits, c->x.identity, kind, now_ms, &c->x.quota);
    if (c->x.identity->is_anonymous && c->x.quota.scope == CV_LIMIT_USER)
        c->x.quota.scope = CV_LIMIT_ADDRESS; /* whom else it counts for */
    if (!is_in && c->x.identity->is_anonymous)
        return refuse(c, "too many requests without a token from this address");
    if (!is_in)
        return refuse(c, kind == CV_LIMIT_REQUESTS ? "too many requests of this user"
                                                   : "too many upgrades of this user");
    if (kind == CV_LIMIT_REQUESTS && !cv_limits_take_relay(limits, now_ms, &quota)) {
        c->x.quota = quota;
        return refuse(c, "too many requests on this relay");
    }
    return true;
}

bool source_hold_back(struct cv_consumer *c, struct cv_status status)
{
    uint64_t now_ms = consumer_now_ms(c);
    /* A missing token is a question, and keys that are missing are our own fault. */
    if (status.id == CV_AUTH_MISSING || cv_status_http(status.id) != 401)
        return false;
    uint64_t ms = cv_limits_auth_failed(c->worker->relay->limits, c->x.source, now_ms);
    if (ms == 0)
        return false;
    char peer[CV_ADDR_TEXT_LEN];
    cv_log_limited(c->worker->relay->log, CV_LOG_WARN, "auth", "auth_slowed",
                   "too many failed authentications: the answer is held back",
                   CV_F_STR("client", cv_addr_format_ip(&c->client, peer)),
                   CV_F_UINT("delayMs", ms), CV_F_STR("correlationId", c->x.id));
    c->held_status = status;
    c->held_due_ms = now_ms + ms;
    cv_fsm_set(&c->state, CONSUMER_HELD);
    consumer_arm(c);
    return true;
}
