/* SPDX-License-Identifier: MIT
 *
 * Takes credentials out of text before it is logged or shown: `Bearer …` and `Basic …` values, JWTs
 * (anything of the form eyJ….….…) and the password of a URL's userinfo. A net under the rule that
 * secrets are not handed to the log at all. Owns nothing; any thread.
 */
#ifndef CV_TELEMETRY_REDACT_H
#define CV_TELEMETRY_REDACT_H

#include "base/slice.h"

#define CV_REDACTED "[hidden]"

/* Copies `text` with credentials replaced by CV_REDACTED into `out`, NUL-terminated and cut at
 * `cap` bytes (at least 1). Returns the length written. Bytes are otherwise passed as they are. */
size_t cv_redact(struct cv_slice text, char *out, size_t cap);

/* Whether a header, field or parameter of this name holds a credential (any case): authorization,
 * culvert-authorization, proxy-authorization, cookie, set-cookie, token, password, secret,
 * api-key, … */
bool cv_redact_is_secret_name(struct cv_slice name);

#endif
