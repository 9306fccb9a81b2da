/* SPDX-License-Identifier: MIT
 *
 * Writes HTTP/1.1 messages in one canonical form: CRLF, one space, one framing, chunk sizes in
 * lower-case hex without extension. Every part is checked again on its way out, so that no value,
 * wherever it came from, can add a line: what is not a token, a target or a field value is refused.
 * All functions append to a caller's cv_buf and return CV_INVALID for a part that may not be
 * written, CV_NO_RESOURCES over the buffer's cap, CV_NO_MEMORY; nothing of that call is in the
 * buffer then. No state; one thread per buffer.
 */
#ifndef CV_PROTO_HTTP_HTTP_WRITER_H
#define CV_PROTO_HTTP_HTTP_WRITER_H

#include "base/buf.h"
#include "proto/http/http.h"

/* "METHOD target HTTP/1.1\r\n". The target as it goes out: what is allowed in a parsed one. */
struct cv_status cv_http_write_request_line(struct cv_buf *out, struct cv_slice method,
                                            struct cv_slice target);
/* "HTTP/1.1 404 Not Found\r\n". Status 100–999; an empty reason is allowed (RFC 9112 §4). */
struct cv_status cv_http_write_status_line(struct cv_buf *out, int status, struct cv_slice reason);

/* "Name: value\r\n"; the value is trimmed. */
struct cv_status cv_http_write_field(struct cv_buf *out, struct cv_slice name,
                                     struct cv_slice value);
struct cv_status cv_http_write_field_str(struct cv_buf *out, const char *name, const char *value);

/* All end-to-end fields of `head` in their order: without hop-by-hop ones (cv_http_is_hop_by_hop),
 * without Host, Content-Length and Expect, which the caller writes, and without those in `drop`
 * (NULL, or a list of names that ends with NULL; a name that ends in '*' is a prefix; compared with
 * cv_http_name_is). */
struct cv_status cv_http_write_fields(struct cv_buf *out, const struct cv_http_head *head,
                                      const char *const *drop);

/* The framing field: Content-Length, or Transfer-Encoding: chunked, or nothing for the other two.
 */
struct cv_status cv_http_write_framing(struct cv_buf *out, enum cv_http_framing framing,
                                       uint64_t content_length);

/* The empty line. */
struct cv_status cv_http_write_head_end(struct cv_buf *out);

/* One whole chunk: size line, data, CRLF. Nothing for empty data (that would be the last chunk). */
struct cv_status cv_http_write_chunk(struct cv_buf *out, struct cv_slice data);

/* The same in parts, where the data goes out by itself: writes the size line for `len` > 0 bytes
 * into `line` and returns its length; behind the data come two bytes, CRLF. */
enum { CV_HTTP_CHUNK_LINE_MAX = 18 };
size_t cv_http_chunk_line(uint64_t len, char line[CV_HTTP_CHUNK_LINE_MAX]);

/* "0\r\n", the trailer fields that are allowed (others are left out), "\r\n". */
struct cv_status cv_http_write_last_chunk(struct cv_buf *out, const struct cv_http_field *trailers,
                                          size_t count);

/* IMF-fixdate, "Sun, 06 Nov 1994 08:49:37 GMT" (RFC 9110 §5.6.7), of seconds since 1970; 29 bytes
 * and NUL. False for a year past 9999. */
enum { CV_HTTP_DATE_LEN = 29 };
bool cv_http_date(uint64_t unix_s, char out[CV_HTTP_DATE_LEN + 1]);

#endif
