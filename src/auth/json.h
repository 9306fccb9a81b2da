/* SPDX-License-Identifier: MIT
 *
 * Strict JSON for this folder, on top of jansson: tokens and key sets come from strangers. Internal
 * to auth/, as jansson's types are. Owns nothing. Any thread.
 */
#ifndef CV_AUTH_JSON_H
#define CV_AUTH_JSON_H

#include "base/slice.h"
#include "base/status.h"

#include <jansson.h>

/* Parses `text` as exactly one JSON object with nothing behind it. Refused before jansson sees it:
 * more than `max_bytes`, brackets nested deeper than `max_depth` (jansson recurses), a NUL. Refused
 * by jansson: doubled members, bad UTF-8, numbers out of range. False: *out is NULL. The caller
 * ends it with json_decref. */
bool cv_json_object(struct cv_slice text, size_t max_bytes, unsigned max_depth, json_t **out);

/* A string member as a slice into `object`. False when it is absent or no string; use cv_json_has
 * to tell. A NULL data means absent. */
bool cv_json_string(const json_t *object, const char *name, struct cv_slice *value);
bool cv_json_has(const json_t *object, const char *name);

/* A member in strict base64url, decoded into `out`. False when absent, no string, not strict,
 * empty, or when `cap` is less than three quarters of the text and CV_BASE64_SLACK, which the
 * decoder may touch. */
bool cv_json_base64url(const json_t *object, const char *name, uint8_t *out, size_t cap,
                       size_t *len);

/* What cv_base64url_decode wants beyond the bytes it gives. */
#define CV_BASE64_SLACK 2

#endif
