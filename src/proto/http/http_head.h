/* SPDX-License-Identifier: MIT
 *
 * From a complete head section to a checked view of it. Grammar is in http_head.c, what the fields
 * mean for framing and connection in http_framing.c, the second reading by llhttp in http_llhttp.c.
 * Private to proto/http. Slices of the view point into the section; nothing is owned.
 */
#ifndef CV_PROTO_HTTP_HTTP_HEAD_H
#define CV_PROTO_HTTP_HTTP_HEAD_H

#include "proto/http/http_parser.h"

/* The request line or status line alone, without CRLF. Fills the head's method, target and what is
 * in it, or status and reason, and the version. Requests: CV_BAD_REQUEST, CV_HTTP_VERSION;
 * responses: CV_BAD_RESPONSE. */
struct cv_status cv_http_parse_request_line(struct cv_slice line, struct cv_http_head *head,
                                            const char **fault);
struct cv_status cv_http_parse_status_line(struct cv_slice line, struct cv_http_head *head,
                                           const char **fault);

/* Field lines up to the empty line; `section` holds only complete CRLF lines. `fields` has room for
 * `cap`, which is at least the number of lines. CV_BAD_REQUEST. */
struct cv_status cv_http_parse_fields(struct cv_slice section, struct cv_http_field *fields,
                                      size_t cap, size_t *count, const char **fault);

/* Framing, persistence, Host, Upgrade and Expect from the fields of a head whose start line is
 * parsed. Requests: CV_BAD_REQUEST, CV_NOT_IMPLEMENTED, CV_EXPECTATION; responses: CV_BAD_RESPONSE.
 */
struct cv_status cv_http_judge_request(struct cv_http_head *head, const char **fault);
struct cv_status cv_http_judge_response(struct cv_http_head *head, enum cv_http_expect expect,
                                        const char **fault);

/* Whether llhttp reads the section as `head` does: version, status, lengths of target and names,
 * and the framing fields. `section` is the whole head. */
bool cv_http_llhttp_agrees(enum cv_http_role role, struct cv_slice section,
                           const struct cv_http_head *head);

#endif
