/* SPDX-License-Identifier: MIT
 *
 * JSON through jansson, with one gap closed: when memory runs out in the middle of a text jansson
 * goes on without the characters that did not fit, both ways, and what comes out is not what was
 * meant. Here that is a failure. Any thread.
 */
#ifndef CV_BASE_JSON_H
#define CV_BASE_JSON_H

#include "base/slice.h"
#include "base/status.h"

#include <jansson.h>

/* Before any thread is started, once: jansson's memory is watched from here on. */
void cv_json_init(void);

/* Parses `text` as one JSON value, doubled members refused. CV_INVALID: it is none, CV_NO_MEMORY;
 * *value is NULL then. The caller gives it back with json_decref. */
struct cv_status cv_json_parse(struct cv_slice text, json_t **value);

/* `value` as compact text, members in the order in which they were set; given back with free().
 * NULL without memory. */
char *cv_json_text(const json_t *value);

/* For tests that refuse memory: what jansson is to allocate with instead of malloc. */
void cv_json_init_with(json_malloc_t allocate, json_free_t release);

#endif
