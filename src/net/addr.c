/* SPDX-License-Identifier: MIT */
#include "net/addr.h"

#include "base/digits.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <stdio.h>

static void set_v4(struct cv_addr *addr, const void *ip, uint16_t port)
{
    *addr = (struct cv_addr){.len = sizeof addr->v4};
    addr->v4.sin_family = AF_INET;
    memcpy(&addr->v4.sin_addr, ip, 4);
    addr->v4.sin_port = htons(port);
}

static bool is_name(struct cv_slice host)
{
    for (size_t i = 0; i < host.len; i++) {
        uint8_t c = host.data[i];
        bool is_alnum = (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z');
        if (!is_alnum && c != '-' && c != '_' && c != '.')
            return false;
    }
    return host.len > 0 && host.data[0] != '-' && host.data[0] != '.';
}

bool cv_addr_from_ip(struct cv_addr *addr, struct cv_slice ip, uint16_t port)
{
    char text[INET6_ADDRSTRLEN + IF_NAMESIZE + 1];
    if (ip.len == 0 || !cv_slice_to_str(ip, text, sizeof text))
        return false;
    struct in_addr v4;
    if (inet_pton(AF_INET, text, &v4) == 1) {
        set_v4(addr, &v4, port);
        return true;
    }
    char *scope = strchr(text, '%');
    if (scope)
        *scope++ = '\0';
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    if (inet_pton(AF_INET6, text, &v6.sin6_addr) != 1)
        return false;
    if (scope) {
        /* By name or by number (RFC 4007 §11.2), as cv_addr_format_ip writes it. Only characters of
         * names: the kernel takes "lo:anything" for lo. */
        if (!is_name(cv_slice_str(scope)))
            return false;
        uint64_t number = if_nametoindex(scope);
        if (number == 0 && !cv_slice_to_u64(cv_slice_str(scope), UINT32_MAX, &number))
            return false;
        v6.sin6_scope_id = (uint32_t)number;
        if (v6.sin6_scope_id == 0)
            return false;
    }
    return cv_addr_from_sockaddr(addr, (const struct sockaddr *)&v6, sizeof v6);
}

bool cv_addr_from_sockaddr(struct cv_addr *addr, const struct sockaddr *from, socklen_t len)
{
    *addr = (struct cv_addr){0};
    if (len >= sizeof(struct sockaddr_in) && from->sa_family == AF_INET) {
        struct sockaddr_in v4;
        memcpy(&v4, from, sizeof v4);
        set_v4(addr, &v4.sin_addr, ntohs(v4.sin_port));
        return true;
    }
    if (len < sizeof(struct sockaddr_in6) || from->sa_family != AF_INET6)
        return false;
    struct sockaddr_in6 v6;
    memcpy(&v6, from, sizeof v6);
    if (IN6_IS_ADDR_V4MAPPED(&v6.sin6_addr)) {
        set_v4(addr, v6.sin6_addr.s6_addr + 12, ntohs(v6.sin6_port));
        return true;
    }
    addr->v6 = v6;
    addr->len = sizeof v6;
    return true;
}

uint16_t cv_addr_port(const struct cv_addr *addr)
{
    if (addr->len == 0)
        return 0;
    return ntohs(addr->any.sa_family == AF_INET ? addr->v4.sin_port : addr->v6.sin6_port);
}

void cv_addr_set_port(struct cv_addr *addr, uint16_t port)
{
    if (addr->any.sa_family == AF_INET)
        addr->v4.sin_port = htons(port);
    else
        addr->v6.sin6_port = htons(port);
}

static struct cv_slice ip_bytes(const struct cv_addr *addr)
{
    if (addr->len == 0)
        return cv_slice(NULL, 0);
    if (addr->any.sa_family == AF_INET)
        return cv_slice(&addr->v4.sin_addr, 4);
    return cv_slice(&addr->v6.sin6_addr, 16);
}

const char *cv_addr_format_ip(const struct cv_addr *addr, char out[CV_ADDR_TEXT_LEN])
{
    memcpy(out, "-", 2);
    if (addr->len == 0)
        return out;
    if (addr->any.sa_family == AF_INET) {
        /* Every request asks for it, and inet_ntop uses sprintf. */
        const uint8_t *bytes = ip_bytes(addr).data;
        char *at = out;
        for (size_t i = 0; i < 4; i++) {
            at += cv_digits_decimal(at, bytes[i]);
            *at++ = i < 3 ? '.' : '\0';
        }
        return out;
    }
    (void)inet_ntop(AF_INET6, &addr->v6.sin6_addr, out, CV_ADDR_TEXT_LEN);
    if (addr->v6.sin6_scope_id) {
        size_t len = strlen(out);
        (void)snprintf(out + len, CV_ADDR_TEXT_LEN - len, "%%%u", addr->v6.sin6_scope_id);
    }
    return out;
}

const char *cv_addr_format(const struct cv_addr *addr, char out[CV_ADDR_TEXT_LEN])
{
    char ip[CV_ADDR_TEXT_LEN];
    cv_addr_format_ip(addr, ip);
    if (addr->len == 0)
        (void)snprintf(out, CV_ADDR_TEXT_LEN, "-");
    else if (addr->any.sa_family == AF_INET)
        (void)snprintf(out, CV_ADDR_TEXT_LEN, "%.*s:%u", 64, ip, cv_addr_port(addr));
    else
        (void)snprintf(out, CV_ADDR_TEXT_LEN, "[%.*s]:%u", 64, ip, cv_addr_port(addr));
    return out;
}

bool cv_addr_is_loopback(const struct cv_addr *addr)
{
    if (addr->len == 0)
        return false;
    if (addr->any.sa_family == AF_INET)
        return ntohl(addr->v4.sin_addr.s_addr) >> 24 == 127;
    return IN6_IS_ADDR_LOOPBACK(&addr->v6.sin6_addr);
}

size_t cv_addr_network(const struct cv_addr *addr, uint8_t out[9])
{
    if (addr->len == 0)
        return 0;
    bool is_v4 = addr->any.sa_family == AF_INET;
    size_t len = is_v4 ? 4 : 8;
    out[0] = is_v4 ? 4 : 6;
    memcpy(out + 1, is_v4 ? (const void *)&addr->v4.sin_addr : (const void *)&addr->v6.sin6_addr,
           len);
    return len + 1;
}

bool cv_addr_is_any(const struct cv_addr *addr)
{
    if (addr->len == 0)
        return false;
    if (addr->any.sa_family == AF_INET)
        return addr->v4.sin_addr.s_addr == htonl(INADDR_ANY);
    return IN6_IS_ADDR_UNSPECIFIED(&addr->v6.sin6_addr);
}

bool cv_addr_equal_ip(const struct cv_addr *a, const struct cv_addr *b)
{
    return cv_slice_equal(ip_bytes(a), ip_bytes(b));
}

bool cv_cidr_parse(struct cv_cidr *cidr, struct cv_slice text)
{
    struct cv_slice rest = text;
    struct cv_slice ip = cv_slice_split(&rest, '/');
    struct cv_addr addr;
    if (!cv_addr_from_ip(&addr, ip, 0))
        return false;
    struct cv_slice bytes = ip_bytes(&addr);
    uint64_t bits = bytes.len * 8;
    if (rest.data && !cv_slice_to_u64(rest, bits, &bits))
        return false;
    *cidr = (struct cv_cidr){.family = addr.any.sa_family, .bits = (unsigned)bits};
    memcpy(cidr->bytes, bytes.data, bytes.len);
    return true;
}

bool cv_cidr_has(const struct cv_cidr *cidr, const struct cv_addr *addr)
{
    if (addr->len == 0 || addr->any.sa_family != cidr->family)
        return false;
    const uint8_t *bytes = ip_bytes(addr).data;
    unsigned whole = cidr->bits / 8;
    if (memcmp(bytes, cidr->bytes, whole) != 0)
        return false;
    unsigned rest = cidr->bits % 8;
    return rest == 0 || (bytes[whole] ^ cidr->bytes[whole]) >> (8 - rest) == 0;
}

struct cv_status cv_hostport_parse(struct cv_slice text, uint16_t default_port,
                                   char host[CV_HOST_LEN], uint16_t *port, struct cv_error *error)
{
    int shown = text.len < 100 ? (int)text.len : 100;
    const char *what = (const char *)text.data;
    struct cv_addr addr;
    struct cv_slice name = text;
    struct cv_slice number = cv_slice(NULL, 0);
    if (cv_slice_starts_with(text, "[")) {
        struct cv_slice rest = cv_slice(text.data + 1, text.len - 1);
        name = cv_slice_split(&rest, ']');
        if (!rest.data || !memchr(name.data, ':', name.len) || !cv_addr_from_ip(&addr, name, 0))
            return cv_fail(error, CV_INVALID, "not an IPv6 address in brackets: %.*s", shown, what);
        if (rest.len && rest.data[0] != ':')
            return cv_fail(error, CV_INVALID, "no port behind the brackets: %.*s", shown, what);
        if (rest.len)
            number = cv_slice(rest.data + 1, rest.len - 1);
    } else if (!cv_addr_from_ip(&addr, text, 0)) {
        number = text;
        name = cv_slice_split(&number, ':');
        if (!is_name(name) || name.len >= CV_HOST_LEN)
            return cv_fail(error, CV_INVALID, "not a host name: %.*s", shown, what);
    }
    uint64_t value = default_port;
    if (number.data && (!cv_slice_to_u64(number, 65535, &value) || value == 0))
        return cv_fail(error, CV_INVALID, "not a port (1 to 65535): %.*s", shown, what);
    if (value == 0)
        return cv_fail(error, CV_INVALID, "the port is missing: %.*s", shown, what);
    if (!cv_slice_to_str(name, host, CV_HOST_LEN))
        return cv_fail(error, CV_INVALID, "host name too long");
    *port = (uint16_t)value;
    return cv_ok();
}

bool cv_host_is_loopback(const char *host)
{
    struct cv_slice name = cv_slice_str(host);
    struct cv_addr addr;
    if (cv_addr_from_ip(&addr, name, 0))
        return cv_addr_is_loopback(&addr);
    if (name.len && name.data[name.len - 1] == '.')
        name.len--;
    const size_t suffix = sizeof ".localhost" - 1;
    if (name.len > suffix &&
        cv_slice_is_nocase(cv_slice(name.data + name.len - suffix, suffix), ".localhost"))
        return true;
    return cv_slice_is_nocase(name, "localhost");
}
