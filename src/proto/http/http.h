/* SPDX-License-Identifier: MIT
 *
 * The words of HTTP/1 (RFC 9110, RFC 9112) that parser, writer and their users share: a message
 * head as a view, character classes, look-up of fields, walking list values, names that are
 * hop-by-hop. Nothing here owns memory or does I/O: all slices are borrowed. Any thread.
 */
#ifndef CV_PROTO_HTTP_HTTP_H
#define CV_PROTO_HTTP_HTTP_H

#include "base/buf.h"
#include "base/slice.h"
#include "base/status.h"

enum {
    CV_HTTP_FIELDS_MAX = 100, /* default cap on field lines of one section */
    CV_HTTP_METHOD_MAX = 32,  /* bytes of a method; longer ones are malformed */
    CV_HTTP_HOST_MAX = 255,   /* bytes of a host, brackets of an IPv6 literal included */
};

/* One field line. `value` is without the white space around it. */
struct cv_http_field {
    struct cv_slice name;
    struct cv_slice value;
};

/* How the end of a message body is found (RFC 9112 §6.3). */
enum cv_http_framing {
    CV_HTTP_NO_BODY,
    CV_HTTP_LENGTH,
    CV_HTTP_CHUNKED,
    CV_HTTP_UNTIL_CLOSE, /* responses only */
};

/* The form of a request target (RFC 9112 §3.2). */
enum cv_http_form {
    CV_HTTP_ORIGIN_FORM,    /* /path?query */
    CV_HTTP_ABSOLUTE_FORM,  /* http://host/path?query; path and query are set as in origin form */
    CV_HTTP_AUTHORITY_FORM, /* host:port, CONNECT only; path is empty */
    CV_HTTP_ASTERISK_FORM,  /* *, OPTIONS only; path is "*" */
};

/* A message head that passed every check. What can be relied on:
 * - version is 1.0 or 1.1, method is a token, target has no space, control, 8-bit byte or '#';
 * - every field name is a token, every value is free of controls except HTAB;
 * - a 1.1 request has exactly one Host, `host` and `port` are validated, and an absolute target
 *   names the same authority;
 * - exactly one framing, and Content-Length and Transfer-Encoding never together.
 * The slices live in the parser: see http_parser.h for how long. */
struct cv_http_head {
    /* Requests; empty in responses. */
    struct cv_slice method; /* case-sensitive (RFC 9110 §9.1) */
    struct cv_slice target; /* as sent */
    enum cv_http_form form;
    struct cv_slice
        path; /* from '/', still percent-encoded; never empty except in authority form */
    struct cv_slice query; /* without '?' */
    bool has_query;        /* tells "/x?" from "/x" */
    struct cv_slice host;  /* without port; IPv6 literals with brackets; empty only on HTTP/1.0 */
    unsigned port;         /* 0 when not given */
    bool is_head;          /* HEAD */
    bool is_connect;       /* CONNECT: the caller answers 405 or 501 */
    bool expects_continue; /* Expect: 100-continue, on 1.1 with a body to come */

    /* Responses; 0 and empty in requests. */
    int status;
    struct cv_slice reason;

    /* Both. */
    int version_minor; /* HTTP/1.<minor>: 0 or 1 */
    enum cv_http_framing framing;
    bool has_content_length; /* the field is there; in answers to HEAD and in 304 without a body */
    uint64_t content_length;
    bool keep_alive; /* the connection may carry another message after this one (RFC 9112 §9.3) */
    bool
        is_upgrade; /* request: GET on 1.1 without body, Connection: upgrade and Upgrade: websocket,
                     * everything else an Upgrade asks for (h2c) is ignored; response: 101 */
    const struct cv_http_field *fields; /* in order, Host and framing included */
    size_t field_count;
};

/* RFC 9110 §5.6.2: at least one byte, all of them tchar. */
bool cv_http_is_token(struct cv_slice text);
/* RFC 9110 §5.5: HTAB, SP, visible ASCII and obs-text only. Empty is valid. */
bool cv_http_is_field_value(struct cv_slice text);

/* Value of the first field of that name (case-insensitive); NULL when there is none. */
const struct cv_slice *cv_http_find(const struct cv_http_head *head, const char *name);
/* The same, empty (data NULL) when there is none; and one that counts only when it is the only one
 * of its name. */
struct cv_slice cv_http_value(const struct cv_http_head *head, const char *name);
struct cv_slice cv_http_single_value(const struct cv_http_head *head, const char *name);
/* How many field lines have that name. */
size_t cv_http_count(const struct cv_http_head *head, const char *name);
/* The value of a list field over all its lines, joined with ", " (RFC 9110 §5.3); empty without
 * one. A single line is a slice into the head; several are put into `joined`, which keeps them
 * where they are until it is done: with a cap of twice the head's there is room for every field.
 * Empty as well without memory for it. */
struct cv_slice cv_http_join(const struct cv_http_head *head, const char *name,
                             struct cv_buf *joined);
/* Whether a field's comma-separated value, over all its lines, has this element (case-insensitive;
 * parameters are part of the element). */
bool cv_http_list_has(const struct cv_http_head *head, const char *name, const char *element);

/* Walks a comma-separated list (RFC 9110 §5.6.1): *rest begins as the whole value; each call takes
 * one element, trimmed, skipping empty ones; commas inside quoted strings do not separate. False at
 * the end. An unterminated quoted string runs to the end of the value. */
bool cv_http_list_next(struct cv_slice *rest, struct cv_slice *element);

/* Names compared as a CGI-like service would see them: case-insensitive, and '_' equals '-', so
 * that "X_Forwarded_For" cannot pass where X-Forwarded-For is taken out. */
bool cv_http_name_is(struct cv_slice name, const char *other);
/* Whether it is one of `names`, a list that ends with NULL. One that ends in '*' is a prefix; all
 * begin with a letter. */
bool cv_http_name_is_in(struct cv_slice name, const char *const *names);

/* Whether the field concerns one connection only and never travels on (RFC 9110 §7.6.1):
 * Connection, Keep-Alive, Proxy-Connection, Proxy-Authenticate, Proxy-Authorization,
 * Proxy-Authentication-Info, TE, Trailer, Transfer-Encoding, Upgrade, HTTP2-Settings; and what the
 * message's own Connection fields name, except names that a Connection field must not take away:
 * Host, Content-*, Authorization, Cookie, Set-Cookie, Cache-Control, Forwarded, X-Forwarded-*,
 * Culvert-*, Origin, Sec-*, Expect, Location, Date, traceparent and their like. */
bool cv_http_is_hop_by_hop(const struct cv_http_head *head, struct cv_slice name);
/* Whether Connection names anything besides options and what is hop-by-hop anyway. When it does
 * not, as nearly always, cv_http_is_hop_by_hop says the same with NULL for the head. */
bool cv_http_takes_away(const struct cv_http_head *head);

/* Whether a field may stand in a trailer section (RFC 9110 §6.5.1): nothing that frames, routes,
 * authenticates, controls caches or describes content. */
bool cv_http_is_trailer_allowed(struct cv_slice name);

/* "Not Found" for 404; "" for an unknown code. */
const char *cv_http_reason(int status);

/* GET, HEAD, OPTIONS, TRACE, PUT, DELETE (RFC 9110 §9.2.2). */
bool cv_http_is_idempotent(struct cv_slice method);

#endif
