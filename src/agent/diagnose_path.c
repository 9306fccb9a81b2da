/* SPDX-License-Identifier: MIT
 *
 * From a name to a connection with TLS: dns, tcp (each address by itself), proxy, tls; and the
 * local services, which are looked at in the same way. See diagnose.h.
 */
#include "agent/access.h"
#include "agent/diagnose_private.h"
#include "agent/dialer.h"
#include "config/agent_config.h"
#include "net/dial.h"

#include <stdio.h>
#include <time.h>

/* Where connections go: to the proxy, where there is one. */
static const char *path_host(const struct cv_diagnose *d)
{
    return d->proxy.host[0] ? d->proxy.host : d->options.access->host;
}

static uint16_t path_port(const struct cv_diagnose *d)
{
    return d->proxy.host[0] ? d->proxy.port : d->options.access->port;
}

static uint64_t limit_ms(const struct cv_diagnose *d)
{
    return d->options.access->config->connect_relay_timeout_ms;
}

void diagnose_path_done(struct cv_diagnose *d)
{
    cv_resolve_cancel(&d->resolve);
    for (size_t i = 0; i < d->try_count; i++)
        cv_dial_cancel(&d->tries[i].dial);
    cv_dial_cancel(&d->dial);
}

/* ---- dns ---- */

static void note_addrs(struct cv_diagnose *d)
{
    char text[CV_ADDR_TEXT_LEN];
    json_t *list = json_array();
    for (size_t i = 0; i < d->addr_count; i++)
        (void)json_array_append_new(list, json_string(cv_addr_format_ip(&d->addrs[i], text)));
    diagnose_note(d, "addresses", list);
}

static void on_resolved(void *arg, const struct cv_resolve_result *result)
{
    struct cv_diagnose *d = arg;
    struct cv_error error = {0};
    char text[CV_ADDR_TEXT_LEN];
    d->resolve = NULL;
    if (!cv_is_ok(result->status)) {
        diagnose_fail(d,
                      cv_fail(&error, result->status.id, "%.160s cannot be resolved: %s",
                              path_host(d), result->reason),
                      &error, NULL);
        return;
    }
    memcpy(d->addrs, result->addrs, result->count * sizeof *d->addrs);
    d->addr_count = result->count;
    note_addrs(d);
    diagnose_pass(d, "%.120s is %s%s", path_host(d), cv_addr_format_ip(&d->addrs[0], text),
                  d->addr_count > 1 ? ", and has other addresses" : "");
}

void diagnose_dns(struct cv_diagnose *d)
{
    struct cv_error error = {0};
    const char *host = path_host(d), *reason;
    char text[CV_ADDR_TEXT_LEN];
    diagnose_note(d, "host", json_string(host));
    d->addr_count = cv_resolve_known(host, path_port(d), d->addrs);
    if (d->addr_count) {
        note_addrs(d);
        diagnose_pass(d, "%.120s needs no name server: %s", host,
                      cv_addr_format_ip(&d->addrs[0], text));
        return;
    }
    struct cv_status status =
        cv_resolve_start(d->worker, host, path_port(d), on_resolved, d, &d->resolve, &reason);
    if (cv_is_ok(status))
        diagnose_limit(d, limit_ms(d));
    else
        diagnose_fail(d, cv_fail(&error, status.id, "%.160s: %s", host, reason), &error, NULL);
}

/* ---- several connections at once ---- */

static void tries_over(struct cv_diagnose *d);

static json_t *try_value(const struct diagnose_try *try)
{
    bool is_good = cv_is_ok(try->status);
    return json_pack("{s:s, s:b, s:f, s:o}", "address", try->name, "connected", is_good,
                     "duration_ms", (double)try->duration_us / 1000, "error",
                     is_good ? json_null() : diagnose_text(try->error.detail));
}

static void try_ended(struct diagnose_try *try, struct cv_status status,
                      const struct cv_error *error)
{
    struct cv_diagnose *d = try->diagnose;
    try->status = status;
    try->error = *error;
    try->duration_us = diagnose_us_since(d, try->began_ns);
    if (--d->tries_under_way == 0)
        tries_over(d);
}

static void on_try_dialed(void *arg, const struct cv_dial_result *result)
{
    struct diagnose_try *try = arg;
    try->dial = NULL;
    if (result->conn)
        cv_dialer_discard(result->conn);
    try_ended(try, result->status, result->error);
}

static void try_start(struct cv_diagnose *d, const char *host, uint16_t port, uint64_t timeout_ms)
{
    struct diagnose_try *try = &d->tries[d->try_count++];
    struct cv_error error = {0};
    struct cv_dial_options options = {.host = host, .port = port, .timeout_ms = timeout_ms};
    *try = (struct diagnose_try){.diagnose = d, .began_ns = cv_worker_now_ns(d->worker)};
    (void)snprintf(try->name, sizeof try->name, strchr(host, ':') ? "[%s]:%u" : "%s:%u", host,
                   port);
    struct cv_status status =
        cv_dial_start(d->worker, &options, on_try_dialed, try, &try->dial, &error);
    if (!cv_is_ok(status))
        try_ended(try, status, &error);
}

static void tries_begin(struct cv_diagnose *d)
{
    d->try_count = 0;
    d->tries_under_way = 1; /* until all are started */
}

static void tries_started(struct cv_diagnose *d)
{
    if (--d->tries_under_way == 0)
        tries_over(d);
}

/* ---- tcp ---- */

void diagnose_tcp(struct cv_diagnose *d)
{
    char text[CV_ADDR_TEXT_LEN];
    tries_begin(d);
    for (size_t i = 0; i < d->addr_count; i++) {
        d->tries_under_way++;
        try_start(d, cv_addr_format_ip(&d->addrs[i], text), path_port(d), limit_ms(d));
    }
    tries_started(d);
}

static const char *tcp_suggestion(enum cv_status_id id)
{
    switch (id) {
    case CV_CONN_REFUSED:
        return "Nothing listens there: check the port in the URL, and that the relay runs.";
    case CV_CONN_TIMEOUT:
        return "A firewall may swallow it: try another network, or a proxy (HTTPS_PROXY).";
    case CV_NETWORK_UNREACHABLE:
        return "Check this machine's network connection.";
    default:
        return NULL;
    }
}

static void tcp_over(struct cv_diagnose *d, size_t good, const struct diagnose_try *best)
{
    struct cv_error error = {0};
    const struct diagnose_try *first = &d->tries[0];
    if (good) {
        diagnose_pass(d, "%s%.100s answers in %.1f ms (%zu of %zu addresses do)",
                      d->proxy.host[0] ? "the proxy " : "", best->name,
                      (double)best->duration_us / 1000, good, d->try_count);
        return;
    }
    diagnose_fail(d, cv_fail(&error, first->status.id, "%.230s", first->error.detail), &error,
                  tcp_suggestion(first->status.id));
}

/* ---- local services ---- */

void diagnose_service(struct cv_diagnose *d)
{
    if (d->options.target_count == 0) {
        diagnose_skip(d, "no local service was named; `culvert diagnose PORT` looks at one");
        return;
    }
    tries_begin(d);
    for (size_t i = 0; i < d->options.target_count; i++) {
        d->tries_under_way++;
        try_start(d, d->targets[i].host, d->targets[i].port,
                  d->options.access->config->connect_service_timeout_ms);
    }
    tries_started(d);
}

static enum cv_status_id service_status(enum cv_status_id id)
{
    if (id == CV_CONN_REFUSED)
        return CV_SERVICE_REFUSED;
    return id == CV_CONN_TIMEOUT ? CV_SERVICE_TIMEOUT : CV_SERVICE_UNREACHABLE;
}

static void service_over(struct cv_diagnose *d, size_t good)
{
    struct cv_error error = {0};
    const struct diagnose_try *bad = NULL;
    for (size_t i = d->try_count; i-- > 0;)
        if (!cv_is_ok(d->tries[i].status))
            bad = &d->tries[i];
    if (bad)
        diagnose_fail(d,
                      cv_fail(&error, service_status(bad->status.id),
                              "%.100s does not answer: %.120s", bad->name, bad->error.detail),
                      &error, NULL);
    else
        diagnose_pass(d, "%.120s accepts connections%s", d->tries[0].name,
                      good > 1 ? ", and so do the others" : "");
}

static void tries_over(struct cv_diagnose *d)
{
    json_t *list = json_array();
    const struct diagnose_try *best = NULL;
    size_t good = 0;
    for (size_t i = 0; i < d->try_count; i++) {
        const struct diagnose_try *try = &d->tries[i];
        (void)json_array_append_new(list, try_value(try));
        good += cv_is_ok(try->status);
        if (cv_is_ok(try->status) && (!best || try->duration_us < best->duration_us))
            best = try;
    }
    diagnose_note(d, "connections", list);
    if (d->stage == DIAGNOSE_SERVICE)
        service_over(d, good);
    else
        tcp_over(d, good, best);
}

/* ---- proxy ---- */

static void on_proxied(void *arg, const struct cv_dial_result *result)
{
    struct cv_diagnose *d = arg;
    d->dial = NULL;
    if (result->conn)
        cv_dialer_discard(result->conn);
    if (cv_is_ok(result->status))
        diagnose_pass(d, "the proxy %.100s:%u leads to %.100s", d->proxy.host, d->proxy.port,
                      d->options.access->relay);
    else
        diagnose_fail(d, result->status, result->error, NULL);
}

static void dial(struct cv_diagnose *d, bool has_tls, cv_dial_on_done *on_done)
{
    const struct cv_access *access = d->options.access;
    struct cv_error error = {0};
    struct cv_dial_options options = {.host = access->host,
                                      .port = access->port,
                                      .proxy = &d->proxy,
                                      .timeout_ms = limit_ms(d),
                                      .tls = has_tls ? access->tls : NULL,
                                      .tls_facts = has_tls ? &d->tls : NULL};
    struct cv_status status = cv_dial_start(d->worker, &options, on_done, d, &d->dial, &error);
    if (!cv_is_ok(status))
        diagnose_fail(d, status, &error, NULL);
}

void diagnose_proxy(struct cv_diagnose *d)
{
    if (!d->proxy.host[0]) {
        diagnose_pass(d, "none is used");
        return;
    }
    diagnose_note(d, "host", json_string(d->proxy.host));
    diagnose_note(d, "port", json_integer(d->proxy.port));
    diagnose_note(d, "has_user", json_boolean(d->proxy.userinfo[0] != '\0'));
    dial(d, false, on_proxied);
}

/* ---- tls ---- */

static int64_t now_s(const struct cv_diagnose *d)
{
    return (int64_t)cv_worker_wall_seconds(d->worker);
}

static void note_tls(struct cv_diagnose *d)
{
    const struct cv_tls_facts *facts = &d->tls;
    diagnose_note(d, "server_name", json_string(d->options.access->host));
    diagnose_note(d, "version", facts->version ? json_string(facts->version) : NULL);
    diagnose_note(d, "cipher", facts->cipher ? json_string(facts->cipher) : NULL);
    if (!facts->has_certificate)
        return;
    diagnose_note(d, "certificate",
                  json_pack("{s:o, s:o, s:o, s:o, s:o}", "subject", diagnose_text(facts->subject),
                            "issuer", diagnose_text(facts->issuer), "names",
                            diagnose_text(facts->names), "not_before",
                            diagnose_moment(facts->not_before), "not_after",
                            diagnose_moment(facts->not_after)));
    if (facts->not_after)
        diagnose_note(d, "days_left", json_integer((facts->not_after - now_s(d)) / 86400));
}

static void fail_tls(struct cv_diagnose *d, const struct cv_dial_result *result)
{
    const struct cv_tls_facts *facts = &d->tls;
    struct cv_error error = *result->error;
    const char *suggestion = NULL, *detail = result->error->detail;
    char when[40] = "";
    time_t at = (time_t)now_s(d);
    struct tm tm;
    if (gmtime_r(&at, &tm))
        (void)strftime(when, sizeof when, "%Y-%m-%d %H:%M UTC", &tm);
    if (result->status.id != CV_TLS_CERTIFICATE || !facts->has_certificate) {
        if (strstr(detail, "does not speak TLS"))
            suggestion =
                "The port may be the wrong one, or a box on the way answers in the relay's "
                "place; ws:// is for relays on this machine.";
    } else if (facts->not_after && facts->not_after < now_s(d)) {
        (void)cv_fail(&error, result->status.id, "%.150s; it is %s here", detail, when);
        suggestion = "The relay's operator has to renew the certificate, unless the clock of this "
                     "machine is wrong.";
    } else if (facts->not_before > now_s(d)) {
        (void)cv_fail(&error, result->status.id, "%.150s; it is %s here", detail, when);
        suggestion = "Set the clock of this machine, unless the certificate is for later.";
    } else if (strstr(detail, "mismatch")) {
        (void)cv_fail(&error, result->status.id, "%.80s: it is for %.140s", detail, facts->names);
        suggestion = "Use a name that the certificate has in the URL; a network that wants a login "
                     "first answers in this way too.";
    } else {
        (void)cv_fail(&error, result->status.id, "%.100s, issued by %.120s", detail, facts->issuer);
        suggestion = "Give the authority's certificate with --ca-file if it is one of your own; "
                     "otherwise a box on the way opens TLS.";
    }
    diagnose_fail(d, result->status, &error, suggestion);
}

static void on_secured(void *arg, const struct cv_dial_result *result)
{
    struct cv_diagnose *d = arg;
    d->dial = NULL;
    if (result->conn)
        cv_dialer_discard(result->conn);
    note_tls(d);
    if (!cv_is_ok(result->status)) {
        fail_tls(d, result);
        return;
    }
    long long days = (long long)((d->tls.not_after - now_s(d)) / 86400);
    diagnose_pass(d, "%s, certificate of %.120s good for %lld day%s", d->tls.version, d->tls.issuer,
                  days, days == 1 ? "" : "s");
}

void diagnose_tls(struct cv_diagnose *d)
{
    if (d->options.access->tls)
        dial(d, true, on_secured);
    else
        diagnose_pass(d, "none: the relay is on this machine and the URL says ws://");
}
