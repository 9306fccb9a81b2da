/* SPDX-License-Identifier: MIT
 *
 * Which HTTP proxy, if any, leads to a host: from settings, or from HTTPS_PROXY, HTTP_PROXY,
 * ALL_PROXY and NO_PROXY in the environment, lower case first. Loopback never goes through a proxy.
 * Owns nothing; any thread (the environment is only read).
 */
#ifndef CV_NET_PROXY_H
#define CV_NET_PROXY_H

#include "base/status.h"
#include "net/addr.h"

struct cv_proxy {
    char host[CV_HOST_LEN]; /* "": go directly */
    uint16_t port;
    char userinfo[256]; /* "user:password", percent-decoded; "" for none. Secret. */
};

struct cv_proxy_settings {
    const char *url; /* NULL: from the environment; "": none; else "http://[user:pw@]host[:port]" */
    const char *no_proxy;                     /* NULL: from the environment */
    const char *(*get_env)(const char *name); /* NULL: getenv */
};

/* For a connection to host:port; `is_tls` chooses HTTPS_PROXY over HTTP_PROXY. As in CGI anyone can
 * set HTTP_PROXY by a header `Proxy`, the upper-case form counts only without REQUEST_METHOD.
 * NO_PROXY: comma-separated; `*`, names (also matching their subdomains; a leading dot matches
 * subdomains only), IP addresses, CIDR blocks, each with an optional `:port`.
 * CV_OK with proxy->host "" when there is none. CV_CONFIG: not an http:// URL. */
struct cv_status cv_proxy_choose(const struct cv_proxy_settings *settings, bool is_tls,
                                 const char *host, uint16_t port, struct cv_proxy *proxy,
                                 struct cv_error *error);

/* Reads one proxy URL; the scheme may be left out. CV_CONFIG with detail (never the password). */
struct cv_status cv_proxy_parse(const char *url, struct cv_proxy *proxy, struct cv_error *error);

/* True when the NO_PROXY list names host:port. */
bool cv_proxy_is_excluded(const char *no_proxy, const char *host, uint16_t port);

#endif
