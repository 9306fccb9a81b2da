/* SPDX-License-Identifier: MIT
 *
 * For tests and fuzzing: runs bytes through a parser in pieces and writes down what came out as one
 * line of text, so that two runs can be compared.
 */
#ifndef CV_PROTO_HTTP_HTTP_TEST_VIEW_H
#define CV_PROTO_HTTP_HTTP_TEST_VIEW_H

#include "proto/http/http_parser.h"

enum view_kind {
    VIEW_ALL,     /* as a consumer sees it */
    VIEW_MEANING, /* what must survive a proxy: no version, persistence or hop-by-hop field, but all
                   * end-to-end fields; a missing Host is "localhost" */
    VIEW_WIRE,    /* as it stands in the message, for view_llhttp to agree with */
};

struct view {
    struct cv_status status; /* what ended it */
    char text[16384];        /* "POST /x a:0 1 length=3 ka [abc] end;", cut when it does not fit */
    char fault[128];
};

/* Feeds the first `first` bytes, then pieces of `step`, each from memory of its own. `expect` has a
 * letter per request that a response answers (p, h, u) or is NULL. */
void view_run(struct view *view, enum cv_http_role role, const char *expect, const uint8_t *bytes,
              size_t len, size_t first, size_t step, bool closes, enum view_kind kind);

/* The same bytes read by llhttp (strict), as VIEW_WIRE. `status` is CV_AGAIN or CV_EOF when it took
 * them all, CV_NOT_IMPLEMENTED when it does not know the method, else CV_BAD_REQUEST with llhttp's
 * reason as `fault`. What llhttp leaves to its user is added as RFC 9112 6.3 has it: no body in
 * answers to HEAD, 1xx, 204 and 304; interim answers say nothing about the connection's end. */
void view_llhttp(struct view *view, enum cv_http_role role, const char *expect,
                 const uint8_t *bytes, size_t len, bool closes);

#endif
