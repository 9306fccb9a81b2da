/* SPDX-License-Identifier: MIT */
#include "net/proxy.h"

#include "base/digest.h"

enum { HTTP_PROXY_DEFAULT_PORT = 80 };

static int hex_value(uint8_t c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if ((c | 32) >= 'a' && (c | 32) <= 'f')
        return (c | 32) - 'a' + 10;
    return -1;
}

/* RFC 3986 §2.1. False for a broken escape, a control character, or no room. */
static bool percent_decode(struct cv_slice from, char *out, size_t cap)
{
    size_t len = 0;
    for (size_t i = 0; i < from.len; i++) {
        int c = from.data[i];
        if (c == '%') {
            if (i + 2 >= from.len)
                return false;
            int high = hex_value(from.data[i + 1]);
            int low = hex_value(from.data[i + 2]);
            if (high < 0 || low < 0)
                return false;
            c = high * 16 + low;
            i += 2;
        }
        if (c < 32 || c == 127 || len + 1 >= cap)
            return false;
        out[len++] = (char)c;
    }
    out[len] = '\0';
    return true;
}

struct cv_status cv_proxy_parse(const char *url, struct cv_proxy *proxy, struct cv_error *error)
{
    *proxy = (struct cv_proxy){0};
    struct cv_slice rest = cv_slice_str(url);
    const char *scheme_end = strstr(url, "://");
    if (scheme_end) {
        size_t len = (size_t)(scheme_end - url);
        if (!cv_slice_is_nocase(cv_slice(url, len), "http"))
            return cv_fail(error, CV_CONFIG, "proxies must be http:// URLs");
        rest = cv_slice_str(scheme_end + 3);
    }
    struct cv_slice path = rest;
    struct cv_slice authority = cv_slice_split(&path, '/');
    if (path.len)
        return cv_fail(error, CV_CONFIG, "a proxy URL has no path");
    const uint8_t *at = memrchr(authority.data, '@', authority.len);
    if (at) {
        struct cv_slice userinfo = cv_slice(authority.data, (size_t)(at - authority.data));
        if (!percent_decode(userinfo, proxy->userinfo, sizeof proxy->userinfo))
            return cv_fail(error, CV_CONFIG,
                           "the user and password of the proxy URL are malformed");
        authority = cv_slice(at + 1, authority.len - userinfo.len - 1);
    }
    struct cv_error inner;
    struct cv_status status =
        cv_hostport_parse(authority, HTTP_PROXY_DEFAULT_PORT, proxy->host, &proxy->port, &inner);
    if (!cv_is_ok(status)) {
        cv_wipe(proxy, sizeof *proxy);
        return cv_fail(error, CV_CONFIG, "proxy: %.200s", inner.detail);
    }
    return cv_ok();
}

/* `pattern` "example.com" covers itself and its subdomains, ".example.com" only the latter. */
static bool matches_name(struct cv_slice pattern, struct cv_slice host)
{
    bool is_suffix_only = false;
    if (cv_slice_starts_with(pattern, "*."))
        pattern = cv_slice(pattern.data + 1, pattern.len - 1);
    if (cv_slice_starts_with(pattern, ".")) {
        pattern = cv_slice(pattern.data + 1, pattern.len - 1);
        is_suffix_only = true;
    }
    if (pattern.len == 0 || host.len < pattern.len)
        return false;
    if (host.len == pattern.len)
        return !is_suffix_only && cv_slice_equal_nocase(pattern, host);
    size_t skip = host.len - pattern.len;
    return host.data[skip - 1] == '.' &&
           cv_slice_equal_nocase(pattern, cv_slice(host.data + skip, pattern.len));
}

static bool matches_entry(struct cv_slice entry, struct cv_slice host, const struct cv_addr *ip,
                          uint16_t port)
{
    if (entry.len == 0)
        return false;
    if (cv_slice_is(entry, "*"))
        return true;
    struct cv_cidr cidr;
    if (cv_cidr_parse(&cidr, entry))
        return ip->len && cv_cidr_has(&cidr, ip);

    struct cv_slice name = entry;
    struct cv_slice number = cv_slice(NULL, 0);
    if (entry.data[0] == '[') {
        struct cv_slice rest = cv_slice(entry.data + 1, entry.len - 1);
        name = cv_slice_split(&rest, ']');
        if (rest.len && rest.data[0] == ':')
            number = cv_slice(rest.data + 1, rest.len - 1);
    } else {
        number = entry;
        name = cv_slice_split(&number, ':');
    }
    uint64_t wanted = 0;
    if (number.data && (!cv_slice_to_u64(number, 65535, &wanted) || wanted != port))
        return false;
    if (cv_cidr_parse(&cidr, name))
        return ip->len && cv_cidr_has(&cidr, ip);
    return !ip->len && matches_name(name, host);
}

bool cv_proxy_is_excluded(const char *no_proxy, const char *host_text, uint16_t port)
{
    struct cv_slice host = cv_slice_str(host_text);
    if (host.len && host.data[host.len - 1] == '.')
        host.len--;
    struct cv_addr ip;
    if (!cv_addr_from_ip(&ip, host, 0))
        ip = (struct cv_addr){0};
    struct cv_slice rest = cv_slice_str(no_proxy);
    while (rest.data) {
        struct cv_slice entry = cv_slice_trim(cv_slice_split(&rest, ','));
        if (matches_entry(entry, host, &ip, port))
            return true;
    }
    return false;
}

static const char *system_env(const char *name)
{
    return getenv(name);
}

static const char *env_url(const struct cv_proxy_settings *settings, bool is_tls)
{
    const char *(*get)(const char *) = settings->get_env ? settings->get_env : system_env;
    const char *url = get(is_tls ? "https_proxy" : "http_proxy");
    if (!url && is_tls)
        url = get("HTTPS_PROXY");
    else if (!url && !get("REQUEST_METHOD"))
        url = get("HTTP_PROXY");
    if (!url)
        url = get("all_proxy");
    if (!url)
        url = get("ALL_PROXY");
    return url;
}

struct cv_status cv_proxy_choose(const struct cv_proxy_settings *settings, bool is_tls,
                                 const char *host, uint16_t port, struct cv_proxy *proxy,
                                 struct cv_error *error)
{
    *proxy = (struct cv_proxy){0};
    if (cv_host_is_loopback(host))
        return cv_ok();
    const char *url = settings->url ? settings->url : env_url(settings, is_tls);
    if (!url || !*url)
        return cv_ok();
    const char *(*get)(const char *) = settings->get_env ? settings->get_env : system_env;
    const char *no_proxy = settings->no_proxy ? settings->no_proxy : get("no_proxy");
    if (!no_proxy)
        no_proxy = get("NO_PROXY");
    if (no_proxy && cv_proxy_is_excluded(no_proxy, host, port))
        return cv_ok();
    return cv_proxy_parse(url, proxy, error);
}
