/* SPDX-License-Identifier: MIT */
#include "proto/http/url.h"

#include <arpa/inet.h>

#include "proto/http/http.h"
#include "proto/http/http_chars.h"

static const struct {
    const char *name;
    bool is_tls;
    unsigned port;
} schemes[] = {
    [CV_URL_HTTP] = {"http", false, 80},
    [CV_URL_HTTPS] = {"https", true, 443},
    [CV_URL_WS] = {"ws", false, 80},
    [CV_URL_WSS] = {"wss", true, 443},
};

const char *cv_url_scheme_name(enum cv_url_scheme scheme)
{
    return schemes[scheme].name;
}

static bool is_ipv6(struct cv_slice text)
{
    char address[INET6_ADDRSTRLEN];
    struct in6_addr parsed;
    return cv_slice_to_str(text, address, sizeof(address)) &&
           inet_pton(AF_INET6, address, &parsed) == 1;
}

static bool is_reg_name(struct cv_slice text)
{
    for (size_t i = 0; i < text.len; i++)
        if (!(cv_http_chars[text.data[i]] & CV_HTTP_HOSTC))
            return false;
    return text.len > 0;
}

bool cv_url_split_authority(struct cv_slice text, struct cv_slice *host, unsigned *port,
                            bool *has_port)
{
    struct cv_slice name = text, port_text = {0};
    if (text.len && text.data[0] == '[') {
        const uint8_t *end = memchr(text.data, ']', text.len);
        if (!end)
            return false;
        name.len = (size_t)(end - text.data) + 1;
        if (!is_ipv6(cv_slice(name.data + 1, name.len - 2)))
            return false;
    } else {
        const uint8_t *colon = text.len ? memchr(text.data, ':', text.len) : NULL;
        if (colon)
            name.len = (size_t)(colon - text.data);
        if (!is_reg_name(name))
            return false;
    }
    if (name.len > CV_HTTP_HOST_MAX)
        return false;

    uint64_t number = 0;
    *has_port = name.len < text.len;
    if (*has_port) {
        port_text = cv_slice(text.data + name.len + 1, text.len - name.len - 1);
        if (text.data[name.len] != ':' || port_text.len > 5 ||
            !cv_slice_to_u64(port_text, 65535, &number))
            return false;
    }
    *host = name;
    *port = (unsigned)number;
    return true;
}

bool cv_url_decode(struct cv_slice text, uint8_t *out, size_t *out_len)
{
    size_t len = 0;
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.data[i];
        if (c == '%') {
            if (text.len - i < 3 || !(cv_http_chars[text.data[i + 1]] & CV_HTTP_HEXDIG) ||
                !(cv_http_chars[text.data[i + 2]] & CV_HTTP_HEXDIG))
                return false;
            c = (uint8_t)(cv_http_hex_value(text.data[i + 1]) << 4 |
                          cv_http_hex_value(text.data[i + 2]));
            i += 2;
        }
        out[len++] = c;
    }
    *out_len = len;
    return true;
}

static bool take_scheme(struct cv_slice *text, enum cv_url_scheme *scheme)
{
    for (size_t i = 0; i < sizeof(schemes) / sizeof(schemes[0]); i++) {
        size_t len = strlen(schemes[i].name);
        if (text->len >= len + 3 &&
            cv_slice_is_nocase(cv_slice(text->data, len), schemes[i].name) &&
            memcmp(text->data + len, "://", 3) == 0) {
            *scheme = (enum cv_url_scheme)i;
            text->data += len + 3;
            text->len -= len + 3;
            return true;
        }
    }
    return false;
}

/* The last '@' ends userinfo; the rest must then be a plain authority. */
static void take_userinfo(struct cv_slice *authority, struct cv_url *url)
{
    for (size_t i = authority->len; i > 0; i--) {
        if (authority->data[i - 1] == '@') {
            url->userinfo = cv_slice(authority->data, i - 1);
            url->has_userinfo = true;
            authority->data += i;
            authority->len -= i;
            return;
        }
    }
}

struct cv_status cv_url_parse(struct cv_slice text, bool is_userinfo_allowed, struct cv_url *url,
                              struct cv_error *error)
{
    *url = (struct cv_url){0};
    for (size_t i = 0; i < text.len; i++)
        if (text.data[i] <= ' ' || text.data[i] >= 0x7f)
            return cv_fail(error, CV_INVALID, "the URL has a space, control or non-ASCII byte");
    if (!take_scheme(&text, &url->scheme))
        return cv_fail(error, CV_INVALID,
                       "the URL must begin with ws://, wss://, http:// or https://");
    url->is_tls = schemes[url->scheme].is_tls;
    if (text.len && memchr(text.data, '#', text.len))
        return cv_fail(error, CV_INVALID, "the URL must not have a fragment (#)");

    size_t end = 0;
    while (end < text.len && text.data[end] != '/' && text.data[end] != '?')
        end++;
    struct cv_slice authority = cv_slice(text.data, end);
    struct cv_slice rest = cv_slice(text.data + end, text.len - end);
    take_userinfo(&authority, url);
    if (url->has_userinfo && !is_userinfo_allowed) {
        *url = (struct cv_url){0};
        return cv_fail(error, CV_INVALID, "the URL must not hold a user or password");
    }
    bool has_port;
    if (!cv_url_split_authority(authority, &url->host, &url->port, &has_port))
        return cv_fail(error, CV_INVALID, "the URL's host or port is not valid");
    if (!has_port)
        url->port = schemes[url->scheme].port;
    url->is_ipv6 = url->host.data[0] == '[';
    if (url->is_ipv6)
        url->host = cv_slice(url->host.data + 1, url->host.len - 2);

    const uint8_t *mark = rest.len ? memchr(rest.data, '?', rest.len) : NULL;
    url->path = rest;
    if (mark) {
        url->path.len = (size_t)(mark - rest.data);
        url->query = cv_slice(mark + 1, rest.len - url->path.len - 1);
    }
    return cv_ok();
}
