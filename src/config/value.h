/* SPDX-License-Identifier: MIT
 *
 * Values as people write them: durations, sizes, addresses, networks. Strict, without locale, and
 * each with a printer that the parser reads back. Owns nothing; any thread.
 */
#ifndef CV_CONFIG_VALUE_H
#define CV_CONFIG_VALUE_H

#include "base/slice.h"
#include "base/status.h"

#define CV_HOST_MAX 256 /* a DNS name has at most 253 bytes (RFC 1035 §2.3.4), and the NUL */

/* "1500ms", "30s", "5m", "2h", "1d", "0"; "1.5s" and sums like "1h30m" are refused. A bare number
 * other than 0 is milliseconds where `is_bare_ms` and refused elsewhere. False leaves *ms
 * untouched. */
bool cv_value_duration(struct cv_slice text, bool is_bare_ms, uint64_t *ms);
/* The largest unit that is exact: 90000 → "90s". Needs 24 bytes. */
void cv_value_duration_print(uint64_t ms, char out[24]);

/* "4096", "64KiB", "1MiB", "2GiB", "1TiB"; also K, M, G, T for the same powers of 1024. */
bool cv_value_size(struct cv_slice text, uint64_t *bytes);
void cv_value_size_print(uint64_t bytes, char out[24]);

/* true/false, yes/no, on/off, 1/0, in any case. */
bool cv_value_bool(struct cv_slice text, bool *value);

/* "127.0.0.1:8080", "[::1]:8080", "localhost:8080", ":8080" (host is then ""). Host is an IPv4 or
 * IPv6 address or a host name (RFC 1123 §2.1); port 0–65535 in decimal. */
struct cv_hostport {
    char host[CV_HOST_MAX]; /* without brackets */
    uint16_t port;
    bool is_ipv6;
};
bool cv_value_hostport(struct cv_slice text, struct cv_hostport *out);

/* A host name (RFC 1123 §2.1) or an IPv4 address, without port, in any case. */
bool cv_value_is_hostname(struct cv_slice text);

/* "10.0.0.0/8", "::1/128", or a bare address, which is the network of that one address. Host bits
 * beyond the prefix must be zero. */
struct cv_value_net {
    uint8_t addr[16]; /* IPv4 in the first 4 bytes */
    uint8_t bits;
    bool is_ipv6;
};
bool cv_value_cidr(struct cv_slice text, struct cv_value_net *out);
/* Whether an address (in text, as inet_ntop writes it; v4-mapped IPv6 counts as IPv4) lies in it.
 */
bool cv_value_net_has(const struct cv_value_net *cidr, const char *addr);

/* scheme://host[:port][/path…]: a URL whose scheme is one of `schemes` ("http|https"), with a
 * host; no spaces, controls or fragment. userinfo only where `has_userinfo`. */
bool cv_value_is_url(struct cv_slice text, const char *schemes, bool has_userinfo);

/* An origin as browsers send it (RFC 6454 §7): scheme://host[:port], nothing behind; or "*". */
bool cv_value_is_origin(struct cv_slice text);

#endif
