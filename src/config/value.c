/* SPDX-License-Identifier: MIT */
#include "config/value.h"

#include <arpa/inet.h>
#include <inttypes.h>

struct unit {
    const char *name;
    uint64_t factor;
};

/* Largest last, so that the printers find the largest that divides. */
static const struct unit duration_units[] = {
    {"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000},
};
static const struct unit size_units[] = {
    {"B", 1},
    {"K", 1ull << 10},
    {"KiB", 1ull << 10},
    {"M", 1ull << 20},
    {"MiB", 1ull << 20},
    {"G", 1ull << 30},
    {"GiB", 1ull << 30},
    {"T", 1ull << 40},
    {"TiB", 1ull << 40},
};

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

static bool is_lower_alnum(uint8_t c)
{
    return is_digit(c) || (c >= 'a' && c <= 'z');
}

static bool is_alnum(uint8_t c)
{
    return is_digit(c) || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z');
}

/* Number and unit, apart; false for anything but digits followed by something else or nothing. */
static bool split_number(struct cv_slice text, uint64_t *number, struct cv_slice *unit)
{
    size_t digits = 0;
    while (digits < text.len && is_digit(text.data[digits]))
        digits++;
    *unit = cv_slice(text.data + digits, text.len - digits);
    return digits > 0 && cv_slice_to_u64(cv_slice(text.data, digits), UINT64_MAX, number);
}

static bool scale(const struct unit *units, size_t count, struct cv_slice name, uint64_t number,
                  uint64_t *out)
{
    for (size_t i = 0; i < count; i++)
        if (cv_slice_is(name, units[i].name))
            return !__builtin_mul_overflow(number, units[i].factor, out);
    return false;
}

bool cv_value_duration(struct cv_slice text, bool is_bare_ms, uint64_t *ms)
{
    uint64_t number = 0;
    uint64_t value = 0;
    struct cv_slice unit;
    if (!split_number(text, &number, &unit))
        return false;
    if (unit.len == 0) {
        if (number != 0 && !is_bare_ms)
            return false;
        value = number;
    } else if (!scale(duration_units, sizeof duration_units / sizeof *duration_units, unit, number,
                      &value)) {
        return false;
    }
    if (value == UINT64_MAX) /* means "unset" */
        return false;
    *ms = value;
    return true;
}

void cv_value_duration_print(uint64_t ms, char out[24])
{
    size_t i = sizeof duration_units / sizeof *duration_units - 1;
    while (i > 0 && ms % duration_units[i].factor != 0)
        i--;
    if (ms == 0)
        (void)snprintf(out, 24, "0");
    else
        (void)snprintf(out, 24, "%" PRIu64 "%s", ms / duration_units[i].factor,
                       duration_units[i].name);
}

bool cv_value_size(struct cv_slice text, uint64_t *bytes)
{
    uint64_t number = 0;
    struct cv_slice unit;
    if (!split_number(text, &number, &unit))
        return false;
    if (unit.len == 0) {
        *bytes = number;
        return true;
    }
    uint64_t value = 0;
    if (!scale(size_units, sizeof size_units / sizeof *size_units, unit, number, &value))
        return false;
    *bytes = value;
    return true;
}

void cv_value_size_print(uint64_t bytes, char out[24])
{
    static const char *const names[] = {"", "KiB", "MiB", "GiB", "TiB"};
    size_t i = 0;
    while (i < 4 && bytes != 0 && bytes % 1024 == 0) {
        bytes /= 1024;
        i++;
    }
    (void)snprintf(out, 24, "%" PRIu64 "%s", bytes, names[i]);
}

bool cv_value_bool(struct cv_slice text, bool *value)
{
    static const char *const words[] = {"false", "true", "no", "yes", "off", "on", "0", "1"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (cv_slice_is_nocase(text, words[i])) {
            *value = i % 2 == 1;
            return true;
        }
    }
    return false;
}

bool cv_value_is_hostname(struct cv_slice text)
{
    if (text.len > 0 && text.data[text.len - 1] == '.') /* the root, written out */
        text.len--;
    if (text.len == 0 || text.len > 253)
        return false;
    size_t label = 0;
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.data[i];
        bool is_edge = label == 0 || i + 1 == text.len || text.data[i + 1] == '.';
        if (c == '.' && label == 0)
            return false;
        /* An underscore is no host name, but containers are called so. */
        if (c != '.' && !is_alnum(c) && c != '_' && (c != '-' || is_edge))
            return false;
        label = c == '.' ? 0 : label + 1;
        if (label > 63)
            return false;
    }
    return true;
}

static bool is_ipv6(struct cv_slice text)
{
    char host[CV_HOST_MAX];
    uint8_t addr[16];
    return cv_slice_to_str(text, host, sizeof host) && inet_pton(AF_INET6, host, addr) == 1;
}

/* Where only digits and dots stand, it must be an address: 1.2.3 or 256.1.1.1 are no names. */
static bool is_host(struct cv_slice text)
{
    bool is_numeric = text.len > 0;
    for (size_t i = 0; i < text.len; i++)
        is_numeric = is_numeric && (is_digit(text.data[i]) || text.data[i] == '.');
    if (!is_numeric)
        return cv_value_is_hostname(text);
    char host[CV_HOST_MAX];
    uint8_t addr[4];
    return cv_slice_to_str(text, host, sizeof host) && inet_pton(AF_INET, host, addr) == 1;
}

bool cv_value_hostport(struct cv_slice text, struct cv_hostport *out)
{
    const uint8_t *colon = text.len ? memrchr(text.data, ':', text.len) : NULL;
    if (!colon)
        return false;
    struct cv_slice host = cv_slice(text.data, (size_t)(colon - text.data));
    struct cv_slice port = cv_slice(colon + 1, text.len - host.len - 1);
    struct cv_hostport value = {0};
    uint64_t number = 0;
    if (port.len > 5 || !cv_slice_to_u64(port, 65535, &number))
        return false;
    if (host.len >= 2 && host.data[0] == '[' && host.data[host.len - 1] == ']') {
        host = cv_slice(host.data + 1, host.len - 2);
        value.is_ipv6 = is_ipv6(host);
        if (!value.is_ipv6)
            return false;
    } else if (host.len > 0 && !is_host(host)) {
        return false;
    }
    if (!cv_slice_to_str(host, value.host, sizeof value.host))
        return false;
    value.port = (uint16_t)number;
    *out = value;
    return true;
}

static bool has_zero_tail(const uint8_t *addr, unsigned bits, unsigned total)
{
    for (unsigned bit = bits; bit < total; bit++)
        if (addr[bit / 8] & (0x80u >> (bit % 8)))
            return false;
    return true;
}

bool cv_value_cidr(struct cv_slice text, struct cv_value_net *out)
{
    struct cv_slice rest = text;
    char host[CV_HOST_MAX];
    struct cv_value_net cidr = {0};
    if (!cv_slice_to_str(cv_slice_split(&rest, '/'), host, sizeof host))
        return false;
    cidr.is_ipv6 = strchr(host, ':') != NULL;
    if (inet_pton(cidr.is_ipv6 ? AF_INET6 : AF_INET, host, cidr.addr) != 1)
        return false;
    unsigned total = cidr.is_ipv6 ? 128 : 32;
    uint64_t bits = total;
    if (rest.data && !cv_slice_to_u64(rest, total, &bits))
        return false;
    cidr.bits = (uint8_t)bits;
    if (!has_zero_tail(cidr.addr, cidr.bits, total))
        return false;
    *out = cidr;
    return true;
}

bool cv_value_net_has(const struct cv_value_net *cidr, const char *addr)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    uint8_t bytes[16] = {0};
    bool is_v6 = strchr(addr, ':') != NULL;
    if (inet_pton(is_v6 ? AF_INET6 : AF_INET, addr, bytes) != 1)
        return false;
    if (is_v6 && memcmp(bytes, mapped, sizeof mapped) == 0 && !cidr->is_ipv6) {
        memmove(bytes, bytes + sizeof mapped, 4); /* RFC 4291 §2.5.5.2 */
        is_v6 = false;
    }
    if (is_v6 != cidr->is_ipv6)
        return false;
    for (unsigned bit = 0; bit < cidr->bits; bit++)
        if ((bytes[bit / 8] ^ cidr->addr[bit / 8]) & (0x80u >> (bit % 8)))
            return false;
    return true;
}

/* host[:port] of a URL (RFC 3986 §3.2). */
static bool is_authority(struct cv_slice text)
{
    struct cv_hostport ignored;
    if (cv_value_hostport(text, &ignored))
        return ignored.host[0] != '\0' && ignored.port != 0;
    if (text.len >= 2 && text.data[0] == '[' && text.data[text.len - 1] == ']')
        return is_ipv6(cv_slice(text.data + 1, text.len - 2));
    return is_host(text);
}

/* What is behind "scheme://" when the scheme is one of "a|b", else data NULL. */
static struct cv_slice after_scheme(struct cv_slice text, const char *schemes)
{
    struct cv_slice list = cv_slice_str(schemes);
    while (list.data) {
        struct cv_slice scheme = cv_slice_split(&list, '|');
        if (text.len > scheme.len + 3 &&
            cv_slice_equal_nocase(cv_slice(text.data, scheme.len), scheme) &&
            memcmp(text.data + scheme.len, "://", 3) == 0)
            return cv_slice(text.data + scheme.len + 3, text.len - scheme.len - 3);
    }
    return cv_slice(NULL, 0);
}

bool cv_value_is_url(struct cv_slice text, const char *schemes, bool has_userinfo)
{
    struct cv_slice rest = after_scheme(text, schemes);
    if (!rest.data)
        return false;
    for (size_t i = 0; i < rest.len; i++)
        if (rest.data[i] <= ' ' || rest.data[i] >= 0x7f || strchr("#\"<>\\^`{|}", rest.data[i]))
            return false;
    size_t end = 0;
    while (end < rest.len && rest.data[end] != '/' && rest.data[end] != '?')
        end++;
    struct cv_slice authority = cv_slice(rest.data, end);
    const uint8_t *at = end ? memrchr(authority.data, '@', end) : NULL;
    if (at && !has_userinfo)
        return false;
    if (at)
        authority = cv_slice(at + 1, (size_t)(authority.data + end - at - 1));
    return is_authority(authority);
}

bool cv_value_is_origin(struct cv_slice text)
{
    if (cv_slice_is(text, "*"))
        return true;
    const uint8_t *scheme = text.len > 3 ? memmem(text.data, text.len, "://", 3) : NULL;
    if (!scheme || scheme == text.data)
        return false;
    size_t len = (size_t)(scheme - text.data);
    for (size_t i = 0; i < len; i++)
        if (!is_lower_alnum(text.data[i]) && !strchr("+-.", text.data[i]))
            return false;
    return is_authority(cv_slice(scheme + 3, text.len - len - 3));
}
