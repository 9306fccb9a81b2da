/* SPDX-License-Identifier: MIT
 *
 * What a request tells the service of its way here: who asked (X-Forwarded-*, Forwarded), through
 * whom (Via, Max-Forwards), as part of what (traceparent). Of what the consumer says of it, only
 * that which a trusted proxy vouches for goes on.
 */
#include "config/relay_config.h"
#include "proto/http/http_rewrite.h"
#include "proto/http/http_writer.h"
#include "relay/consumer_private.h"

#include <stdio.h>
#include <string.h>

#define TRY CV_RETURN_IF_ERROR

/* The client as an element of Forwarded or X-Forwarded-For. */
static struct cv_status write_hop(struct cv_buf *out, bool is_forwarded, struct cv_slice before,
                                  const struct cv_addr *from, struct cv_slice host, bool is_tls)
{
    char text[CV_ADDR_TEXT_LEN];
    struct cv_slice client = cv_slice_str(from->len ? cv_addr_format_ip(from, text) : "");
    return is_forwarded ? cv_http_write_forwarded(out, before, client, host, is_tls)
                        : cv_http_write_forwarded_for(out, before, client);
}

/* A quoted string that does not end would swallow what is written behind it. */
static bool has_open_quote(struct cv_slice text)
{
    bool is_open = false;
    for (size_t i = 0; i < text.len; i++) {
        if (text.data[i] == '"')
            is_open = !is_open;
        else if (is_open && text.data[i] == '\\')
            i++;
    }
    return is_open;
}

/* Who asked before the peer did: what a trusted proxy wrote in the header that is its own, all
 * lines of it. In the other header is the client's own word: there stands whom the proxy has named.
 */
static struct cv_status write_before(const struct cv_consumer *c, const char *name, bool is_tls,
                                     struct cv_buf *out)
{
    const struct cv_relay_config *config = c->worker->relay->config;
    bool is_forwarded = strcmp(name, "Forwarded") == 0;
    if (!c->is_peer_trusted)
        return cv_ok();
    if (cv_slice_is_nocase(cv_slice_str(name), config->trusted_header)) {
        struct cv_buf joined;
        cv_buf_init(&joined, 2 * config->limits_head_bytes);
        struct cv_slice before = cv_http_join(&c->head, name, &joined);
        bool is_whole = !has_open_quote(before);
        struct cv_status status = is_whole ? cv_buf_append_slice(out, before) : cv_ok();
        cv_buf_done(&joined);
        if (is_whole)
            return status;
    }
    if (cv_addr_equal_ip(&c->client, &c->peer))
        return cv_ok();
    return write_hop(out, is_forwarded, cv_slice(NULL, 0), &c->client, cv_slice(NULL, 0), is_tls);
}

/* `text` is room for the value. */
static struct cv_status write_forwarded_field(const struct cv_consumer *c, const char *name,
                                              bool is_tls, struct cv_buf *text, struct cv_buf *out)
{
    struct cv_buf before;
    cv_buf_init(&before, 2 * c->worker->relay->config->limits_head_bytes);
    cv_buf_truncate(text, 0);
    struct cv_status status = write_before(c, name, is_tls, &before);
    if (cv_is_ok(status))
        status = write_hop(text, strcmp(name, "Forwarded") == 0, cv_buf_slice(&before), &c->peer,
                           c->head.host, is_tls);
    cv_buf_done(&before);
    TRY(status);
    return cv_http_write_field(out, cv_slice_str(name), cv_buf_slice(text));
}

static struct cv_status write_forwarding(const struct cv_consumer *c, struct cv_buf *out)
{
    const struct cv_slice *scheme =
        c->is_peer_trusted ? cv_http_find(&c->head, "X-Forwarded-Proto") : NULL;
    bool is_tls = cv_port_is_tls(&c->port) || (scheme && cv_slice_is_nocase(*scheme, "https"));
    struct cv_buf text;
    cv_buf_init(&text, 2 * c->worker->relay->config->limits_head_bytes + 1024);
    struct cv_status status = write_forwarded_field(c, "X-Forwarded-For", is_tls, &text, out);
    if (cv_is_ok(status))
        status = write_forwarded_field(c, "Forwarded", is_tls, &text, out);
    cv_buf_done(&text);
    TRY(status);
    if (c->head.host.len) {
        const struct cv_slice *host = cv_http_find(&c->head, "Host");
        TRY(cv_http_write_field(out, cv_slice_str("X-Forwarded-Host"),
                                host ? *host : c->head.host));
    }
    return cv_http_write_field_str(out, "X-Forwarded-Proto", is_tls ? "https" : "http");
}

/* RFC 9110 §7.6.3: a gateway says that it was there, behind those before it. */
static struct cv_status write_via(const struct cv_consumer *c, struct cv_buf *out)
{
    /* Seldom is there another one before. */
    if (!cv_http_find(&c->head, "Via"))
        return cv_http_write_field_str(out, "Via",
                                       c->head.version_minor ? "1.1 culvert" : "1.0 culvert");
    struct cv_buf joined, via;
    cv_buf_init(&joined, 2 * c->worker->relay->config->limits_head_bytes);
    cv_buf_init(&via, 2 * c->worker->relay->config->limits_head_bytes);
    struct cv_slice before = cv_http_join(&c->head, "Via", &joined);
    struct cv_status status =
        cv_buf_printf(&via, "%.*s%s1.%d culvert", (int)before.len, (const char *)before.data,
                      before.len ? ", " : "", c->head.version_minor);
    if (cv_is_ok(status))
        status = cv_http_write_field(out, cv_slice_str("Via"), cv_buf_slice(&via));
    cv_buf_done(&via);
    cv_buf_done(&joined);
    return status;
}

/* RFC 9110 §7.6.2: one less for OPTIONS, which route.c has answered if it was 0; other methods may
 * carry it as they like. */
static struct cv_status write_max_forwards(const struct cv_consumer *c, struct cv_buf *out)
{
    char number[24];
    uint64_t hops;
    const struct cv_slice *value = cv_http_find(&c->head, "Max-Forwards");
    if (!value)
        return cv_ok();
    if (!cv_slice_is(c->head.method, "OPTIONS") || !cv_slice_to_u64(*value, UINT32_MAX, &hops))
        return cv_http_write_field(out, cv_slice_str("Max-Forwards"), *value);
    (void)snprintf(number, sizeof number, "%u", (unsigned)hops - 1);
    return cv_http_write_field_str(out, "Max-Forwards", number);
}

struct cv_status head_write_hops(const struct cv_consumer *c, struct cv_buf *out)
{
    TRY(write_forwarding(c, out));
    TRY(write_via(c, out));
    TRY(write_max_forwards(c, out));
    return tracing_write_request(c, out);
}
