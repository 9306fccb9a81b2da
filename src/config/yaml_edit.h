/* SPDX-License-Identifier: MIT
 *
 * Changing one key of a YAML settings file and nothing else of it: comments, order, blank lines and
 * the way that values are written stay. Works on the text, between places that libyaml's parser
 * names. What comes out has to be read again and compared by the caller, who then knows that it
 * says what was meant: YAML has more ways to write things than are handled here.
 * Owns nothing; any thread.
 */
#ifndef CV_CONFIG_YAML_EDIT_H
#define CV_CONFIG_YAML_EDIT_H

#include "base/buf.h"
#include "base/slice.h"
#include "base/status.h"

/* Appends `text` to `out`, with `key` ("ws.ping_interval"; sections are made as needed) set to
 * `value`, which is YAML in flow style. CV_CONFIG with a reason: the text cannot be read, or what
 * is there is no place for the key. CV_NO_MEMORY, CV_NO_RESOURCES (`out` is full). `out` may hold a
 * part then. */
struct cv_status cv_yaml_edit_set(struct cv_slice text, const char *key, struct cv_slice value,
                                  struct cv_buf *out, struct cv_error *error);

/* The same without the key, and without the sections that have nothing left in them; `text` as it
 * is where there is no such key. */
struct cv_status cv_yaml_edit_remove(struct cv_slice text, const char *key, struct cv_buf *out,
                                     struct cv_error *error);

#endif
