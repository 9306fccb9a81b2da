/* SPDX-License-Identifier: MIT
 *
 * The HTTP/1 message parser, both directions, without I/O. Stricter than RFC 9112 demands wherever
 * two recipients could read the same bytes differently: such a message is a fault, never a guess.
 * Heads are checked here and then read a second time by llhttp; when the two disagree on version,
 * fields or framing the head is refused. Chunked bodies are decoded here alone, since llhttp takes
 * what RFC 9112 §7.1 does not allow.
 *
 *     cv_http_parser_feed(p, bytes, len);
 *     while ((status = cv_http_parser_next(p, &event)).id == CV_OK)
 *         use(event);
 *     CV_AGAIN: all bytes are used, feed more. CV_EOF: nothing more will be parsed. Else: a fault.
 *
 * Owns its buffers for head and trailers (capped by the limits; given back between messages when
 * large). Borrows the fed bytes until they are used up. No thread affinity: may move to another
 * thread between two calls, together with the bytes cv_http_parser_rest tells of.
 */
#ifndef CV_PROTO_HTTP_HTTP_PARSER_H
#define CV_PROTO_HTTP_HTTP_PARSER_H

#include "proto/http/http.h"

enum cv_http_role { CV_HTTP_REQUESTS, CV_HTTP_RESPONSES };

/* All but `field_count` and `interim_count` in bytes. */
struct cv_http_limits {
    size_t start_line;      /* request or status line without CRLF; over it CV_URI_TOO_LONG */
    size_t head;            /* start line and fields, CRLFs included; over it CV_HEAD_TOO_LARGE */
    size_t field_count;     /* over it CV_HEAD_TOO_LARGE; trailers have the same cap of their own */
    size_t chunk_extension; /* of one chunk; over it CV_BAD_REQUEST or CV_BAD_RESPONSE */
    size_t trailers;        /* over it CV_HEAD_TOO_LARGE or CV_BAD_RESPONSE */
    unsigned interim_count; /* 1xx answers before a final one; over it CV_BAD_RESPONSE */
};

/* 8 KiB, 16 KiB, 100 fields, 1 KiB, 8 KiB. */
extern const struct cv_http_limits cv_http_request_limits;
/* 8 KiB, 64 KiB, 200 fields, 1 KiB, 16 KiB, 10 interim answers. */
extern const struct cv_http_limits cv_http_response_limits;

enum cv_http_event_type {
    CV_HTTP_HEAD,     /* .head. An interim answer (1xx but 101) is a head alone, no CV_HTTP_END */
    CV_HTTP_BODY,     /* .body, not empty: points into the fed bytes, chunk framing taken out */
    CV_HTTP_TRAILERS, /* .trailers, .trailer_count; only when there are some */
    CV_HTTP_END,      /* the message is complete */
};

struct cv_http_event {
    enum cv_http_event_type type;
    const struct cv_http_head *head;
    struct cv_slice body;
    const struct cv_http_field *trailers;
    size_t trailer_count;
};

/* What the next response answers; decides whether it has a body (RFC 9112 §6.3) and whether a 101
 * is in order. */
enum cv_http_expect {
    CV_HTTP_EXPECT_PLAIN,
    CV_HTTP_EXPECT_HEAD,    /* answer to HEAD: no body whatever its fields say */
    CV_HTTP_EXPECT_UPGRADE, /* 101 allowed */
};

struct cv_http_parser;

/* NULL without memory. `limits` is copied. */
struct cv_http_parser *cv_http_parser_new(enum cv_http_role role,
                                          const struct cv_http_limits *limits);
/* Takes NULL; sets *parser to NULL. */
void cv_http_parser_free(struct cv_http_parser **parser);

/* Responses: announces the request that the next final response answers; once before each. A byte
 * that comes from a service unasked is CV_BAD_RESPONSE. CV_INVALID while one is outstanding. */
struct cv_status cv_http_parser_expect(struct cv_http_parser *parser, enum cv_http_expect expect);

/* Hands over the next bytes. They stay where they are, unchanged, until next() has returned
 * CV_AGAIN or the caller has taken the rest. CV_INVALID, and nothing taken, while earlier bytes are
 * unused. */
struct cv_status cv_http_parser_feed(struct cv_http_parser *parser, const uint8_t *data,
                                     size_t len);

/* The peer has closed: after the bytes fed before, next() gives CV_HTTP_END to a body that ends
 * with the connection, CV_EOF between messages, CV_TRUNCATED inside one. */
void cv_http_parser_eof(struct cv_http_parser *parser);

/* The next event. What it points to is valid until the next call; the head of a message (not of an
 * interim answer) until the call after its CV_HTTP_END.
 * CV_AGAIN: feed more. CV_EOF: parsing has ended in good order — the message before was the last
 * (no keep-alive, upgrade request, CONNECT, 101) or the peer closed between messages; bytes left
 * over are in cv_http_parser_rest. Every other status is a fault; it is final and repeated by every
 * later call, and nothing after it is ever handed out. Requests: CV_BAD_REQUEST, CV_URI_TOO_LONG,
 * CV_HEAD_TOO_LARGE, CV_HTTP_VERSION, CV_NOT_IMPLEMENTED, CV_EXPECTATION, CV_TRUNCATED. Responses:
 * CV_BAD_RESPONSE, CV_TRUNCATED. Both: CV_NO_MEMORY. */
struct cv_status cv_http_parser_next(struct cv_http_parser *parser, struct cv_http_event *event);

/* After a CV_HTTP_BODY event, before the next call: gives its last `len` bytes back (backpressure);
 * they come again in the next CV_HTTP_BODY. At most the event's length. */
void cv_http_parser_unread(struct cv_http_parser *parser, size_t len);

/* Fed bytes not used yet: behind an upgrade or CONNECT, or when the connection moves. */
struct cv_slice cv_http_parser_rest(const struct cv_http_parser *parser);
/* Takes them all: the parser forgets them, so that they can be fed to something else. */
struct cv_slice cv_http_parser_take_rest(struct cv_http_parser *parser);

/* The head of the current message as it came, from its start line to the empty line. Valid as the
 * head's slices are; before the head is complete, what has come of it. */
struct cv_slice cv_http_parser_head_bytes(const struct cv_http_parser *parser);

/* True when no message is begun: not one byte of a head has come, nothing is outstanding. */
bool cv_http_parser_is_idle(const struct cv_http_parser *parser);

/* The rule that was broken, a static sentence with its RFC section; "" without a fault. */
const char *cv_http_parser_fault(const struct cv_http_parser *parser);

#endif
