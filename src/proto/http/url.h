/* SPDX-License-Identifier: MIT
 *
 * URLs as people give them on the command line and as services send them in Location, and the
 * authority of a Host field. Slices point into the input. No state; any thread.
 */
#ifndef CV_PROTO_HTTP_URL_H
#define CV_PROTO_HTTP_URL_H

#include "base/slice.h"
#include "base/status.h"

enum cv_url_scheme { CV_URL_HTTP, CV_URL_HTTPS, CV_URL_WS, CV_URL_WSS };

struct cv_url {
    enum cv_url_scheme scheme;
    bool is_tls;              /* https, wss */
    struct cv_slice userinfo; /* still percent-encoded; empty unless allowed */
    bool has_userinfo;
    struct cv_slice host; /* validated; IPv6 literals without brackets */
    bool is_ipv6;
    unsigned port;         /* given, or the scheme's: 80 or 443 */
    struct cv_slice path;  /* from '/'; empty when the URL has none */
    struct cv_slice query; /* without '?', empty when there is none */
};

/* Parses an absolute URL of one of the four schemes (case-insensitive), RFC 3986 §3. A fragment,
 * userinfo unless `is_userinfo_allowed` (proxy settings), a bad host or port, spaces, controls and
 * 8-bit bytes are CV_INVALID with the reason in *error (may be NULL; it never holds the userinfo).
 */
struct cv_status cv_url_parse(struct cv_slice text, bool is_userinfo_allowed, struct cv_url *url,
                              struct cv_error *error);

/* "https" of CV_URL_HTTPS. */
const char *cv_url_scheme_name(enum cv_url_scheme scheme);

/* Splits "host", "host:port", "[v6]:port" and validates both (RFC 9110 §7.2): letters, digits, '-',
 * '.', '_', '~', or an IPv6 address in brackets, at most 255 bytes; port 0–65535 digits only, not
 * empty. *host keeps the brackets, *port is 0 and *has_port false without one. False for everything
 * else: userinfo, paths, commas, the empty host. */
bool cv_url_split_authority(struct cv_slice text, struct cv_slice *host, unsigned *port,
                            bool *has_port);

/* Decodes %XX. `out` has room for text.len bytes; *out_len is what was written. False on a bad
 * escape. */
bool cv_url_decode(struct cv_slice text, uint8_t *out, size_t *out_len);

#endif
