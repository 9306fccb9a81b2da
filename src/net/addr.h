/* SPDX-License-Identifier: MIT
 *
 * IP addresses with ports: text to bytes and back, address blocks (CIDR), loopback. IPv4 addresses
 * mapped into IPv6 (RFC 4291 §2.5.5.2) are always turned into plain IPv4, so that one host has one
 * form. Owns nothing; any thread.
 */
#ifndef CV_NET_ADDR_H
#define CV_NET_ADDR_H

#include "base/slice.h"
#include "base/status.h"

#include <netinet/in.h>
#include <sys/socket.h>

#define CV_ADDR_TEXT_LEN 80 /* "[v6%scope]:65535" with NUL fits */
#define CV_HOST_LEN 256     /* a DNS name (RFC 1035 §2.3.4) with NUL fits */

struct cv_addr {
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
        struct sockaddr_storage storage;
    };
    socklen_t len; /* 0: no address */
};

/* An IP literal, without port and without brackets. False when it is none. */
bool cv_addr_from_ip(struct cv_addr *addr, struct cv_slice ip, uint16_t port);

/* Copies and unmaps. False for families other than IPv4 and IPv6 (addr is then empty). */
bool cv_addr_from_sockaddr(struct cv_addr *addr, const struct sockaddr *from, socklen_t len);

uint16_t cv_addr_port(const struct cv_addr *addr);
void cv_addr_set_port(struct cv_addr *addr, uint16_t port);

/* "127.0.0.1:8080", "[::1]:8080"; "-" for no address. Returns out. */
const char *cv_addr_format(const struct cv_addr *addr, char out[CV_ADDR_TEXT_LEN]);
/* Without port and brackets. */
const char *cv_addr_format_ip(const struct cv_addr *addr, char out[CV_ADDR_TEXT_LEN]);

bool cv_addr_is_loopback(const struct cv_addr *addr); /* 127.0.0.0/8, ::1 */
/* The network that one subscriber has: of IPv4 all four bytes, of IPv6 the first eight. Returns how
 * many of `out` were written, with the family in front; 0 for no address. */
size_t cv_addr_network(const struct cv_addr *addr, uint8_t out[9]);
bool cv_addr_is_any(const struct cv_addr *addr); /* 0.0.0.0, :: */
bool cv_addr_equal_ip(const struct cv_addr *a,
                      const struct cv_addr *b); /* ports are not compared */

/* An address block, "10.0.0.0/8", "fd00::/8", or one address. */
struct cv_cidr {
    uint8_t bytes[16];
    int family;    /* AF_INET or AF_INET6 */
    unsigned bits; /* prefix length */
};

/* False for anything but an IP literal with an optional prefix length in range; bits behind the
 * prefix are ignored. */
bool cv_cidr_parse(struct cv_cidr *cidr, struct cv_slice text);
bool cv_cidr_has(const struct cv_cidr *cidr, const struct cv_addr *addr);

/* "host:port", "1.2.3.4:80", "[::1]:80", "host", "::1"; a missing port gives `default_port` (0: it
 * must be there). The host comes without brackets and is a name or an IP literal; a name has only
 * letters, digits, '-', '_' and '.'. CV_INVALID with detail; the outputs are then untouched. */
struct cv_status cv_hostport_parse(struct cv_slice text, uint16_t default_port,
                                   char host[CV_HOST_LEN], uint16_t *port, struct cv_error *error);

/* "localhost", "*.localhost" (RFC 6761 §6.3) or a loopback IP literal. */
bool cv_host_is_loopback(const char *host);

#endif
