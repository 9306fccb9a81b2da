/* SPDX-License-Identifier: MIT
 *
 * Field values that a reverse proxy makes or changes: Location and Set-Cookie under a path prefix,
 * Forwarded and X-Forwarded-For, basic credentials. All append to a caller's cv_buf and return
 * CV_INVALID when the input is not usable, CV_NO_RESOURCES over the buffer's cap, CV_NO_MEMORY;
 * nothing of that call is in the buffer then. No state; any thread.
 */
#ifndef CV_PROTO_HTTP_HTTP_REWRITE_H
#define CV_PROTO_HTTP_HTTP_REWRITE_H

#include "base/buf.h"
#include "base/slice.h"
#include "base/status.h"

/* Location and Content-Location of a service behind a prefix ("/t/home", no '/' at its end):
 * "/x" becomes "<prefix>/x"; "http://<service authority>/x" becomes "<prefix>/x", where
 * `service_hosts` (count) are the authorities ("127.0.0.1:11434", "localhost") under which the
 * service knows itself, compared without case; everything else, relative references and other
 * hosts, is kept as it is. */
struct cv_status cv_http_rewrite_location(struct cv_buf *out, struct cv_slice value,
                                          struct cv_slice prefix,
                                          const struct cv_slice *service_hosts, size_t count);

/* One Set-Cookie value (RFC 6265 §4.1): Path=/x becomes Path=<prefix>/x, a missing or unusable Path
 * becomes Path=<prefix>/ — so that tunnels do not share cookies; Domain is taken out, since the
 * service does not know under which host it appears. A name with the prefix __Host- cannot keep its
 * promise (it demands Path=/): such a cookie is CV_INVALID, and the caller leaves it out. */
struct cv_status cv_http_rewrite_set_cookie(struct cv_buf *out, struct cv_slice value,
                                            struct cv_slice prefix);

/* One element of Forwarded (RFC 7239): for=..;by is left out;host=..;proto=... IPv6 addresses get
 * brackets and quotes, a host that is no token is quoted. `previous` (may be empty) is what a
 * trusted proxy sent and is put in front. `client` is an address without port; empty host is left
 * out. */
struct cv_status cv_http_write_forwarded(struct cv_buf *out, struct cv_slice previous,
                                         struct cv_slice client, struct cv_slice host, bool is_tls);

/* X-Forwarded-For: previous elements (from a trusted proxy, may be empty) and the client, IPv6
 * without brackets as is the custom. */
struct cv_status cv_http_write_forwarded_for(struct cv_buf *out, struct cv_slice previous,
                                             struct cv_slice client);

/* "Basic <base64(user:password)>" (RFC 7617). A ':' in the user, or a control in either, is
 * CV_INVALID. */
struct cv_status cv_http_write_basic(struct cv_buf *out, struct cv_slice user,
                                     struct cv_slice password);

/* Cuts credentials "Scheme value" (RFC 9110 §11.4): true when the scheme is that one
 * (case-insensitive) and a non-empty value without spaces follows. */
bool cv_http_credentials(struct cv_slice field_value, const char *scheme, struct cv_slice *value);

#endif
