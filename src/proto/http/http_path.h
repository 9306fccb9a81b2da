/* SPDX-License-Identifier: MIT
 *
 * Paths of the relay: whose tunnel `/t/<name>/<rest>` means, and a normal form that rules are
 * matched on. What is forwarded is always the raw rest; the normal form only decides.
 * No state, slices point into the input; any thread.
 */
#ifndef CV_PROTO_HTTP_HTTP_PATH_H
#define CV_PROTO_HTTP_HTTP_PATH_H

#include "base/buf.h"
#include "base/slice.h"
#include "base/status.h"
#include "base/tunnel_name.h"

/* Splits "/t/<name>/<rest>". *rest begins with '/' and stays percent-encoded; "/t/<name>" alone
 * gives an empty rest (the caller answers with a redirect to add the slash, or treats it as "/").
 * False when it is no tunnel path, or the name is not valid as it stands (no decoding: an escaped
 * name is no name). */
bool cv_http_split_tunnel_path(struct cv_slice path, struct cv_slice *name, struct cv_slice *rest);

/* Appends to *out what a service may take the path for, for matching rules: escapes decoded once,
 * "//" collapsed, dot segments resolved. CV_INVALID, nothing appended, when no single reading
 * exists: a bad escape, an escaped '/', '\' or '%' (double decoding), a control or NUL, a
 * backslash, ".." above the root, or ';' beside a dot segment ("/..;/"). Also CV_NO_RESOURCES and
 * CV_NO_MEMORY from the buffer. */
struct cv_status cv_http_normal_path(struct cv_slice path, struct cv_buf *out);

#endif
