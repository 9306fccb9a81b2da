/* SPDX-License-Identifier: MIT
 *
 * Paths of the relay: which tunnel `/t/<name>/<rest>` and `/t/<owner>~<name>/<rest>` mean, and a
 * normal form that rules are matched on. What is forwarded is always the raw rest; the normal form
 * only decides. No state, slices point into the input; any thread.
 */
#ifndef CV_PROTO_HTTP_HTTP_PATH_H
#define CV_PROTO_HTTP_HTTP_PATH_H

#include "base/buf.h"
#include "base/slice.h"
#include "base/status.h"
#include "base/tunnel_name.h"

/* What a path below /t/ names; slices of it. */
struct cv_http_tunnel_path {
    struct cv_slice prefix; /* "/t/home", "/t/alice~home": what stands before the service's path */
    struct cv_slice owner;  /* percent-encoded; empty where none is named: one's own tunnel */
    struct cv_slice name;
    struct cv_slice rest; /* begins with '/', stays percent-encoded; empty where the path ends */
};

/* Splits "/t/<name>/<rest>" and "/t/<owner>~<name>/<rest>". Without a rest the caller answers with
 * a redirect to add the slash, or treats it as "/". False when it is no tunnel path, or the name is
 * not valid as it stands (no decoding: an escaped name is no name), or the owner has bytes that are
 * neither unreserved (RFC 3986 §2.3), one of "@:+", nor an escape. The last '~' is the one that
 * parts owner and name: names have none, so an owner may have its own. */
bool cv_http_split_tunnel_path(struct cv_slice path, struct cv_http_tunnel_path *out);

/* The owner as its tokens have it, in `out` with a NUL behind it. False when it has a NUL, or does
 * not fit. */
bool cv_http_decode_owner(struct cv_slice owner, char *out, size_t cap);

/* Appends `subject` as it stands in a path: everything but letters, digits and "-._@:+" escaped.
 * Errors of the buffer. */
struct cv_status cv_http_write_owner(struct cv_buf *out, const char *subject);

/* Appends to *out what a service may take the path for, for matching rules: escapes decoded once,
 * "//" collapsed, dot segments resolved. CV_INVALID, nothing appended, when no single reading
 * exists: a bad escape, an escaped '/', '\' or '%' (double decoding), a control or NUL, a
 * backslash, ".." above the root, or ';' beside a dot segment ("/..;/"). Also CV_NO_RESOURCES and
 * CV_NO_MEMORY from the buffer. */
struct cv_status cv_http_normal_path(struct cv_slice path, struct cv_buf *out);

#endif
