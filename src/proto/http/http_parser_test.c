/* SPDX-License-Identifier: MIT
 *
 * One named case per rule. Every case is fed whole, byte by byte, and split at every offset, and
 * must come out the same each time.
 */
#include "base/test.h"

#include "proto/http/http_test_view.h"

/* Rows that are refused end where they have nothing to say. */
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"

#define HOST "Host: a\r\n"
#define GET "GET / HTTP/1.1\r\n" HOST
#define POST "POST / HTTP/1.1\r\n" HOST
#define CHUNKED "POST / HTTP/1.1\r\n" HOST "Transfer-Encoding: chunked\r\n\r\n"

struct request_case {
    const char *name; /* the rule and its section */
    const char *bytes;
    enum cv_status_id want; /* how parsing ends: CV_AGAIN between messages, CV_EOF after the last */
    const char *view;       /* when the requests are accepted */
    size_t len;             /* of bytes with a NUL in them */
};

static const struct request_case request_cases[] = {
    /* RFC 9112 §2.2, line endings */
    {"bare LF after the request line (2.2)", "GET / HTTP/1.1\nHost: a\r\n\r\n", CV_BAD_REQUEST},
    {"bare LF after a field (2.2)", "GET / HTTP/1.1\r\nHost: a\n\r\n", CV_BAD_REQUEST},
    {"bare LF as the empty line (2.2)", GET "\n", CV_BAD_REQUEST},
    {"bare CR in the request line (2.2)", "GET /\r HTTP/1.1\r\nHost: a\r\n\r\n", CV_BAD_REQUEST},
    {"bare CR in a value (2.2)", GET "X: a\rb\r\n\r\n", CV_BAD_REQUEST},
    {"CR CR LF (2.2)", GET "X: a\r\r\n\r\n", CV_BAD_REQUEST},
    {"CR alone ends lines (2.2)", "GET / HTTP/1.1\rHost: a\r\r", CV_BAD_REQUEST},
    {"one empty line in front (2.2)", "\r\n" GET "\r\n", CV_AGAIN, "GET / a:0 1 no-body ka end;"},
    {"two empty lines in front (2.2)", "\r\n\r\n" GET "\r\n", CV_BAD_REQUEST},
    {"LF alone in front (2.2)", "\n" GET "\r\n", CV_BAD_REQUEST},
    {"white space before the first field (2.2)", "GET / HTTP/1.1\r\n " HOST "\r\n", CV_BAD_REQUEST},
    {"white space before the request line (2.2)", " " GET "\r\n", CV_BAD_REQUEST},

    /* RFC 9112 §2.3, version */
    {"HTTP/1.0 without Host (3.2)", "GET / HTTP/1.0\r\n\r\n", CV_EOF,
     "GET / :0 0 no-body close end;"},
    {"HTTP/1.0 keep-alive (9.3)", "GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", CV_AGAIN,
     "GET / :0 0 no-body ka end;"},
    {"HTTP/1.2 (2.3)", "GET / HTTP/1.2\r\n" HOST "\r\n", CV_HTTP_VERSION},
    {"HTTP/2.0 (2.3)", "GET / HTTP/2.0\r\n" HOST "\r\n", CV_HTTP_VERSION},
    {"HTTP/0.9 (2.3)", "GET / HTTP/0.9\r\n" HOST "\r\n", CV_HTTP_VERSION},
    {"no version (3)", "GET /\r\n\r\n", CV_BAD_REQUEST},
    {"lower-case http (2.3)", "GET / http/1.1\r\n" HOST "\r\n", CV_BAD_REQUEST},
    {"two digits of minor version (2.3)", "GET / HTTP/1.10\r\n" HOST "\r\n", CV_BAD_REQUEST},
    {"version without minor (2.3)", "GET / HTTP/1\r\n" HOST "\r\n", CV_BAD_REQUEST},
    {"space in version (2.3)", "GET / HTTP/ 1.1\r\n" HOST "\r\n", CV_BAD_REQUEST},
    {"space behind version (3)", "GET / HTTP/1.1 \r\n" HOST "\r\n", CV_BAD_REQUEST},
    {"preface of HTTP/2 (RFC 9113 3.4)", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", CV_BAD_REQUEST},

    /* RFC 9112 §3, request line */
    {"two spaces before the target (3)", "GET  / HTTP/1.1\r\n" HOST "\r\n", CV_BAD_REQUEST},
    {"two spaces behind the target (3)", "GET /  HTTP/1.1\r\n" HOST "\r\n", CV_BAD_REQUEST},
    {"tab as separator (3)", "GET\t/\tHTTP/1.1\r\n" HOST "\r\n", CV_BAD_REQUEST},
    {"space in the target (3.2)", "GET /a b HTTP/1.1\r\n" HOST "\r\n", CV_BAD_REQUEST},
    {"no method (3.1)", " / HTTP/1.1\r\n" HOST "\r\n", CV_BAD_REQUEST},
    {"no token as method (3.1)", "G(T / HTTP/1.1\r\n" HOST "\r\n", CV_BAD_REQUEST},
    {"8-bit method (3.1)", "G\xc4T / HTTP/1.1\r\n" HOST "\r\n", CV_BAD_REQUEST},
    {"unknown method (9110 9.1)", "FROBNICATE / HTTP/1.1\r\n" HOST "\r\n", CV_AGAIN,
     "FROBNICATE / a:0 1 no-body ka end;"},
    {"lower-case method is another method (9110 9.1)", "get / HTTP/1.1\r\n" HOST "\r\n", CV_AGAIN,
     "get / a:0 1 no-body ka end;"},
    {"method of 33 bytes", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA / HTTP/1.1\r\n" HOST "\r\n",
     CV_BAD_REQUEST},
    {"TLS hello", "\x16\x03\x01\x02", CV_BAD_REQUEST},

    /* RFC 9112 §3.2, target */
    {"query (3.2.1)", "GET /a/b?c=d?e HTTP/1.1\r\n" HOST "\r\n", CV_AGAIN,
     "GET /a/b?c=d?e a:0 1 no-body ka end;"},
    {"fragment (3.2.1)", "GET /a#b HTTP/1.1\r\n" HOST "\r\n", CV_BAD_REQUEST},
    {"8-bit target (3.2)", "GET /\xc3\xa4 HTTP/1.1\r\n" HOST "\r\n", CV_BAD_REQUEST},
    {"control in target (3.2)", "GET /\x01 HTTP/1.1\r\n" HOST "\r\n", CV_BAD_REQUEST},
    {"DEL in target (3.2)", "GET /\x7f HTTP/1.1\r\n" HOST "\r\n", CV_BAD_REQUEST},
    {"backslash in path (3986 3.3)", "GET /a\\b HTTP/1.1\r\n" HOST "\r\n", CV_BAD_REQUEST},
    {"relative target (3.2)", "GET a HTTP/1.1\r\n" HOST "\r\n", CV_BAD_REQUEST},
    {"asterisk with OPTIONS (3.2.4)", "OPTIONS * HTTP/1.1\r\n" HOST "\r\n", CV_AGAIN,
     "OPTIONS * a:0 1 no-body ka end;"},
    {"asterisk with GET (3.2.4)", "GET * HTTP/1.1\r\n" HOST "\r\n", CV_BAD_REQUEST},
    {"absolute form (3.2.2)", "GET http://A:80/x HTTP/1.1\r\n" HOST "\r\n", CV_AGAIN,
     "GET /x A:80 1 no-body ka end;"},
    {"absolute form without path (3.2.2)", "GET http://a?q HTTP/1.1\r\n" HOST "\r\n", CV_AGAIN,
     "GET /?q a:0 1 no-body ka end;"},
    {"absolute form, another host (3.2.2)", "GET http://b/ HTTP/1.1\r\n" HOST "\r\n",
     CV_BAD_REQUEST},
    {"absolute form, another port (3.2.2)", "GET http://a:81/ HTTP/1.1\r\n" HOST "\r\n",
     CV_BAD_REQUEST},
    {"absolute form with userinfo (9110 4.2.4)", "GET http://u@a/ HTTP/1.1\r\n" HOST "\r\n",
     CV_BAD_REQUEST},
    {"absolute form of another scheme", "GET ftp://a/ HTTP/1.1\r\n" HOST "\r\n", CV_BAD_REQUEST},
    {"CONNECT (3.2.3)", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", CV_EOF,
     "CONNECT  a:443 1 no-body ka end;"},
    {"CONNECT without port (3.2.3)", "CONNECT a HTTP/1.1\r\n" HOST "\r\n", CV_BAD_REQUEST},
    {"CONNECT with origin form (3.2.3)", "CONNECT / HTTP/1.1\r\n" HOST "\r\n", CV_BAD_REQUEST},
    {"authority form with GET (3.2.3)", "GET a:80 HTTP/1.1\r\n" HOST "\r\n", CV_BAD_REQUEST},

    /* RFC 9112 §3.2 and RFC 9110 §7.2, Host */
    {"no Host on 1.1 (3.2)", "GET / HTTP/1.1\r\n\r\n", CV_BAD_REQUEST},
    {"two Host (3.2)", GET HOST "\r\n", CV_BAD_REQUEST},
    {"two Host on 1.0 (3.2)", "GET / HTTP/1.0\r\n" HOST HOST "\r\n", CV_BAD_REQUEST},
    {"empty Host (3.2)", "GET / HTTP/1.1\r\nHost:\r\n\r\n", CV_BAD_REQUEST},
    {"Host with userinfo (7.2)", "GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", CV_BAD_REQUEST},
    {"Host with path (7.2)", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", CV_BAD_REQUEST},
    {"Host list (7.2)", "GET / HTTP/1.1\r\nHost: a,b\r\n\r\n", CV_BAD_REQUEST},
    {"Host with space (7.2)", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", CV_BAD_REQUEST},
    {"Host with a word as port (7.2)", "GET / HTTP/1.1\r\nHost: a:b\r\n\r\n", CV_BAD_REQUEST},
    {"Host with empty port (7.2)", "GET / HTTP/1.1\r\nHost: a:\r\n\r\n", CV_BAD_REQUEST},
    {"Host with port 65536 (7.2)", "GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", CV_BAD_REQUEST},
    {"8-bit Host (7.2)", "GET / HTTP/1.1\r\nHost: \xc3\xa4\r\n\r\n", CV_BAD_REQUEST},
    {"Host with port (7.2)", "GET / HTTP/1.1\r\nHost: a.b-c:8080\r\n\r\n", CV_AGAIN,
     "GET / a.b-c:8080 1 no-body ka end;"},
    {"IPv6 Host (7.2)", "GET / HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", CV_AGAIN,
     "GET / [::1]:8080 1 no-body ka end;"},
    {"broken IPv6 Host (7.2)", "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", CV_BAD_REQUEST},
    {"no IPv6 in brackets (7.2)", "GET / HTTP/1.1\r\nHost: [a]\r\n\r\n", CV_BAD_REQUEST},
    {"IPv6 without brackets (7.2)", "GET / HTTP/1.1\r\nHost: ::1\r\n\r\n", CV_BAD_REQUEST},

    /* RFC 9112 §5, fields */
    {"space before colon (5.1)", "GET / HTTP/1.1\r\nHost : a\r\n\r\n", CV_BAD_REQUEST},
    {"tab before colon (5.1)", GET "X\t: a\r\n\r\n", CV_BAD_REQUEST},
    {"empty name (5.1)", GET ": a\r\n\r\n", CV_BAD_REQUEST},
    {"no colon (5)", GET "abc\r\n\r\n", CV_BAD_REQUEST},
    {"obs-fold with space (5.2)", GET "X: a\r\n b\r\n\r\n", CV_BAD_REQUEST},
    {"obs-fold with tab (5.2)", GET "X: a\r\n\tb\r\n\r\n", CV_BAD_REQUEST},
    {"8-bit name (5.1)", GET "X\xe4: a\r\n\r\n", CV_BAD_REQUEST},
    {"control in name (5.1)", GET "X\x01: a\r\n\r\n", CV_BAD_REQUEST},
    {"NUL in name", "GET / HTTP/1.1\r\nHost: a\r\nX\0: a\r\n\r\n", CV_BAD_REQUEST, NULL, 35},
    {"NUL in value (9110 5.5)", "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", CV_BAD_REQUEST,
     NULL, 36},
    {"control in value (9110 5.5)", GET "X: a\x0b\r\n\r\n", CV_BAD_REQUEST},
    {"DEL in value (9110 5.5)", GET "X: a\x7f\r\n\r\n", CV_BAD_REQUEST},
    {"tab and 8-bit in value (9110 5.5)", GET "X: a\tb\xe4\r\nY:\r\nZ: \t c \t\r\n\r\n", CV_AGAIN,
     "GET / a:0 1 no-body ka end;"},

    /* RFC 9112 §6, framing */
    {"Content-Length (6.2)", POST "Content-Length: 3\r\n\r\nabc", CV_AGAIN,
     "POST / a:0 1 length=3 ka [abc] end;"},
    {"Content-Length 0 (6.2)", POST "Content-Length: 0\r\n\r\n", CV_AGAIN,
     "POST / a:0 1 length=0 ka end;"},
    {"Content-Length on GET (6.3)", GET "Content-Length: 1\r\n\r\nx", CV_AGAIN,
     "GET / a:0 1 length=1 ka [x] end;"},
    {"Content-Length empty (9110 8.6)", POST "Content-Length:\r\n\r\n", CV_BAD_REQUEST},
    {"Content-Length negative (9110 8.6)", POST "Content-Length: -1\r\n\r\n", CV_BAD_REQUEST},
    {"Content-Length with plus (9110 8.6)", POST "Content-Length: +1\r\n\r\n", CV_BAD_REQUEST},
    {"Content-Length hex (9110 8.6)", POST "Content-Length: 0x1\r\n\r\n", CV_BAD_REQUEST},
    {"Content-Length octal (9110 8.6)", POST "Content-Length: 01\r\n\r\n", CV_BAD_REQUEST},
    {"Content-Length underscore (9110 8.6)", POST "Content-Length: 1_0\r\n\r\n", CV_BAD_REQUEST},
    {"Content-Length with space (9110 8.6)", POST "Content-Length: 1 2\r\n\r\n", CV_BAD_REQUEST},
    {"Content-Length 2^63 (9110 8.6)", POST "Content-Length: 9223372036854775808\r\n\r\n",
     CV_BAD_REQUEST},
    {"Content-Length 2^64 + 3", POST "Content-Length: 18446744073709551619\r\n\r\n",
     CV_BAD_REQUEST},
    {"Content-Length twice (9110 8.6)", POST "Content-Length: 1\r\nContent-Length: 1\r\n\r\n",
     CV_BAD_REQUEST},
    {"two Content-Length (6.3)", POST "Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
     CV_BAD_REQUEST},
    {"Content-Length list (9110 8.6)", POST "Content-Length: 1, 1\r\n\r\n", CV_BAD_REQUEST},
    {"CL and TE (6.1)", POST "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
     CV_BAD_REQUEST},
    {"TE and CL (6.1)", POST "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n",
     CV_BAD_REQUEST},
    {"TE on 1.0 (6.1)", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", CV_BAD_REQUEST},
    {"TE xchunked (6.1)", POST "Transfer-Encoding: xchunked\r\n\r\n", CV_BAD_REQUEST},
    {"TE chunked, identity (6.1)", POST "Transfer-Encoding: chunked, identity\r\n\r\n",
     CV_BAD_REQUEST},
    {"TE identity (6.1)", POST "Transfer-Encoding: identity\r\n\r\n", CV_BAD_REQUEST},
    {"TE gzip alone (6.3)", POST "Transfer-Encoding: gzip\r\n\r\n", CV_BAD_REQUEST},
    {"TE gzip, chunked (6.1)", POST "Transfer-Encoding: gzip, chunked\r\n\r\n", CV_NOT_IMPLEMENTED},
    {"TE chunked twice in one (6.1)", POST "Transfer-Encoding: chunked, chunked\r\n\r\n",
     CV_BAD_REQUEST},
    {"TE twice (6.1)", POST "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
     CV_BAD_REQUEST},
    {"TE empty (6.1)", POST "Transfer-Encoding:\r\n\r\n", CV_BAD_REQUEST},
    {"TE with comma in front (6.1)", POST "Transfer-Encoding: ,chunked\r\n\r\n", CV_BAD_REQUEST},
    {"TE with comma behind (6.1)", POST "Transfer-Encoding: chunked,\r\n\r\n", CV_BAD_REQUEST},
    {"TE quoted (6.1)", POST "Transfer-Encoding: \"chunked\"\r\n\r\n", CV_BAD_REQUEST},
    {"TE with parameter (6.1)", POST "Transfer-Encoding: chunked;a=b\r\n\r\n", CV_BAD_REQUEST},
    {"TE with vertical tab (6.1)",
     POST "Transfer-Encoding: \x0b"
          "chunked\r\n\r\n",
     CV_BAD_REQUEST},
    {"TE in capitals (9110 5.6.2)", POST "Transfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n", CV_AGAIN,
     "POST / a:0 1 chunked ka end;"},

    /* RFC 9112 §7.1, chunks */
    {"chunks (7.1)", CHUNKED "3\r\nabc\r\n00A\r\n0123456789\r\n0\r\n\r\n", CV_AGAIN,
     "POST / a:0 1 chunked ka [abc0123456789] end;"},
    {"extensions dropped (7.1.1)", CHUNKED "1;a;b=c;d=\"e\\\"\"\r\nx\r\n0;z\r\n\r\n", CV_AGAIN,
     "POST / a:0 1 chunked ka [x] end;"},
    {"size with LF alone (7.1)", CHUNKED "1\nx\r\n0\r\n\r\n", CV_BAD_REQUEST},
    {"extension with LF alone (7.1.1)", CHUNKED "1;\nx\r\n0\r\n\r\n", CV_BAD_REQUEST},
    {"extension with bare CR (7.1.1)", CHUNKED "1;a\rb\r\nx\r\n0\r\n\r\n", CV_BAD_REQUEST},
    {"empty extension (7.1.1)", CHUNKED "1;\r\nx\r\n0\r\n\r\n", CV_BAD_REQUEST},
    {"extension without name (7.1.1)", CHUNKED "1;=a\r\nx\r\n0\r\n\r\n", CV_BAD_REQUEST},
    {"extension without value (7.1.1)", CHUNKED "1;a=\r\nx\r\n0\r\n\r\n", CV_BAD_REQUEST},
    {"LF in quoted extension (7.1.1)", CHUNKED "1;a=\"\n\"\r\nx\r\n0\r\n\r\n", CV_BAD_REQUEST},
    {"size with 0x (7.1)", CHUNKED "0x1\r\nx\r\n0\r\n\r\n", CV_BAD_REQUEST},
    {"size with plus (7.1)", CHUNKED "+1\r\nx\r\n0\r\n\r\n", CV_BAD_REQUEST},
    {"size with minus (7.1)", CHUNKED "-1\r\nx\r\n0\r\n\r\n", CV_BAD_REQUEST},
    {"size with underscore (7.1)", CHUNKED "1_0\r\nx\r\n0\r\n\r\n", CV_BAD_REQUEST},
    {"space before size (7.1)", CHUNKED " 1\r\nx\r\n0\r\n\r\n", CV_BAD_REQUEST},
    {"space behind size (7.1)", CHUNKED "1 \r\nx\r\n0\r\n\r\n", CV_BAD_REQUEST},
    {"no size (7.1)", CHUNKED "\r\nx\r\n0\r\n\r\n", CV_BAD_REQUEST},
    {"size of 17 digits (7.1)", CHUNKED "00000000000000001\r\nx\r\n0\r\n\r\n", CV_BAD_REQUEST},
    {"size 2^63 (7.1)", CHUNKED "8000000000000000\r\n", CV_BAD_REQUEST},
    {"size 2^64 - 1 (7.1)", CHUNKED "ffffffffffffffff\r\n", CV_BAD_REQUEST},
    {"LF alone behind data (7.1)", CHUNKED "1\r\nx\n0\r\n\r\n", CV_BAD_REQUEST},
    {"nothing behind data (7.1)", CHUNKED "1\r\nx0\r\n\r\n", CV_BAD_REQUEST},
    {"data longer than its size (7.1)", CHUNKED "1\r\nxy\r\n0\r\n\r\n", CV_BAD_REQUEST},
    {"CR x behind data (7.1)", CHUNKED "1\r\nx\rx0\r\n\r\n", CV_BAD_REQUEST},
    {"LF alone as the end (7.1)", CHUNKED "0\r\n\n", CV_BAD_REQUEST},
    {"LF alone behind the last chunk (7.1)", CHUNKED "0\n\r\n", CV_BAD_REQUEST},

    /* RFC 9112 §7.1.2, trailers */
    {"trailer (7.1.2)", CHUNKED "0\r\nX-Sum: 1\r\n\r\n", CV_AGAIN,
     "POST / a:0 1 chunked ka {X-Sum=1} end;"},
    {"Content-Length in trailers (9110 6.5.1)", CHUNKED "0\r\nContent-Length: 1\r\n\r\n",
     CV_BAD_REQUEST},
    {"Transfer-Encoding in trailers (9110 6.5.1)", CHUNKED "0\r\nTransfer-Encoding: a\r\n\r\n",
     CV_BAD_REQUEST},
    {"Host in trailers (9110 6.5.1)", CHUNKED "0\r\nHost: a\r\n\r\n", CV_BAD_REQUEST},
    {"Authorization in trailers (9110 6.5.1)", CHUNKED "0\r\nAuthorization: a\r\n\r\n",
     CV_BAD_REQUEST},
    {"Content_Length in trailers", CHUNKED "0\r\nContent_Length: 1\r\n\r\n", CV_BAD_REQUEST},
    {"LF alone in trailers (2.2)", CHUNKED "0\r\nX: 1\n\r\n", CV_BAD_REQUEST},
    {"fold in trailers (5.2)", CHUNKED "0\r\nX: 1\r\n 2\r\n\r\n", CV_BAD_REQUEST},
    {"trailer without name (5.1)", CHUNKED "0\r\n: 1\r\n\r\n", CV_BAD_REQUEST},
    {"trailer without colon (5)", CHUNKED "0\r\nX\r\n\r\n", CV_BAD_REQUEST},

    /* RFC 9112 §9.3 and RFC 9110 §7.6.1, §7.8, §10.1.1 */
    {"pipelining (9.3.2)", GET "\r\n" POST "Content-Length: 1\r\n\r\nx" GET "\r\n", CV_AGAIN,
     "GET / a:0 1 no-body ka end;POST / a:0 1 length=1 ka [x] end;GET / a:0 1 no-body ka end;"},
    {"nothing after close (9.6)", GET "Connection: close\r\n\r\n" GET "\r\n", CV_EOF,
     "GET / a:0 1 no-body close end;"},
    {"close among others (9.6)", GET "Connection: x, CLOSE\r\n\r\n", CV_EOF,
     "GET / a:0 1 no-body close end;"},
    {"Connection is no list of tokens (7.6.1)", GET "Connection: a b\r\n\r\n", CV_BAD_REQUEST},
    {"upgrade (7.8)", GET "Connection: upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x01x", CV_EOF,
     "GET / a:0 1 no-body ka upgrade end;"},
    {"upgrade by POST is none", POST "Connection: upgrade\r\nUpgrade: websocket\r\n\r\n", CV_AGAIN,
     "POST / a:0 1 no-body ka end;"},
    {"upgrade on 1.0 is none (7.8)",
     "GET / HTTP/1.0\r\n" HOST "Connection: upgrade\r\nUpgrade: websocket\r\n\r\n", CV_EOF,
     "GET / a:0 0 no-body close end;"},
    {"Upgrade without Connection is none (7.8)", GET "Upgrade: websocket\r\n\r\n", CV_AGAIN,
     "GET / a:0 1 no-body ka end;"},
    {"h2c is none",
     GET "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: \r\n\r\n",
     CV_AGAIN, "GET / a:0 1 no-body ka end;"},
    {"upgrade with body is none",
     GET "Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\nx", CV_AGAIN,
     "GET / a:0 1 length=1 ka [x] end;"},
    {"Expect (10.1.1)", POST "Expect: 100-Continue\r\nContent-Length: 1\r\n\r\nx", CV_AGAIN,
     "POST / a:0 1 length=1 ka continue [x] end;"},
    {"Expect without body (10.1.1)", GET "Expect: 100-continue\r\n\r\n", CV_AGAIN,
     "GET / a:0 1 no-body ka end;"},
    {"another expectation (10.1.1)", POST "Expect: tea\r\nContent-Length: 1\r\n\r\nx",
     CV_EXPECTATION},
};

static void check_request(const struct request_case *c, size_t first, size_t step)
{
    struct view view;
    size_t len = c->len ? c->len : strlen(c->bytes);
    view_run(&view, CV_HTTP_REQUESTS, NULL, (const uint8_t *)c->bytes, len, first, step, false);
    if (view.status.id != c->want || (c->view && strcmp(view.text, c->view) != 0))
        fail_msg("%s (first %zu, step %zu): %s \"%s\", wanted %s \"%s\"; %s", c->name, first, step,
                 cv_status_name(view.status.id), view.text, cv_status_name(c->want),
                 c->view ? c->view : "", view.fault);
    if (c->want != CV_AGAIN && c->want != CV_EOF && !view.fault[0])
        fail_msg("%s: the fault has no text", c->name);
}

static void requests_by_rule(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(request_cases) / sizeof(request_cases[0]); i++) {
        const struct request_case *c = &request_cases[i];
        size_t len = c->len ? c->len : strlen(c->bytes);
        check_request(c, 0, len);
        check_request(c, 0, 1);
        for (size_t split = 1; split < len; split++)
            check_request(c, split, len);
    }
}

#define OK200 "HTTP/1.1 200 OK\r\n"

struct response_case {
    const char *name;
    const char *expect; /* one letter per request: p plain, h HEAD, u upgrade */
    const char *bytes;
    bool closes; /* the service closes behind the bytes */
    enum cv_status_id want;
    const char *view;
};

static const struct response_case response_cases[] = {
    {"length", "p", OK200 "Content-Length: 2\r\n\r\nok", false, CV_AGAIN,
     "200 1 length=2 ka [ok] end;"},
    {"chunked", "p", OK200 "Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", false,
     CV_AGAIN, "200 1 chunked ka [ok] end;"},
    {"padded chunk size of old services", "p",
     OK200 "Transfer-Encoding: chunked\r\n\r\n2  \r\nok\r\n0\r\n\r\n", false, CV_AGAIN,
     "200 1 chunked ka [ok] end;"},
    {"until close (6.3)", "p", OK200 "\r\nok", true, CV_EOF, "200 1 until-close close [ok] end;"},
    {"until close on 1.0 (6.3)", "p", "HTTP/1.0 200 OK\r\n\r\n", true, CV_EOF,
     "200 0 until-close close end;"},
    {"HEAD with length (6.3)", "h", OK200 "Content-Length: 2\r\n\r\n", false, CV_AGAIN,
     "200 1 no-body(2) ka end;"},
    {"HEAD without framing (6.3)", "h", OK200 "\r\n", false, CV_AGAIN, "200 1 no-body ka end;"},
    {"204 (6.3)", "p", "HTTP/1.1 204 No Content\r\n\r\n", false, CV_AGAIN, "204 1 no-body ka end;"},
    {"304 with length (6.3)", "p", "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", false,
     CV_AGAIN, "304 1 no-body(9) ka end;"},
    {"interim answers (9110 15.2)", "p",
     "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" OK200
     "Content-Length: 0\r\n\r\n",
     false, CV_AGAIN, "100 1 no-body ka 103 1 no-body ka 200 1 length=0 ka end;"},
    {"101 asked for (9110 15.2.2)", "u",
     "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nxyz",
     false, CV_EOF, "101 1 no-body ka upgrade end;"},
    {"101 not asked for (9110 15.2.2)", "p", "HTTP/1.1 101 Switching Protocols\r\n\r\n", false,
     CV_BAD_RESPONSE, NULL},
    {"no upgrade after all", "u", OK200 "Content-Length: 0\r\n\r\n", false, CV_AGAIN,
     "200 1 length=0 ka end;"},
    {"no reason and no space (4)", "p", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", false,
     CV_AGAIN, "200 1 length=0 ka end;"},
    {"8-bit reason (4)", "p", "HTTP/1.1 200 gr\xc3\xbcn\r\nContent-Length: 0\r\n\r\n", false,
     CV_AGAIN, "200 1 length=0 ka end;"},
    {"strange status", "p", "HTTP/1.1 999 X\r\nContent-Length: 0\r\n\r\n", false, CV_AGAIN,
     "999 1 length=0 ka end;"},
    {"two answers", "pp", OK200 "Content-Length: 1\r\n\r\naHTTP/1.1 204 \r\n\r\n", false, CV_AGAIN,
     "200 1 length=1 ka [a] end;204 1 no-body ka end;"},
    {"unasked answer", "p", OK200 "Content-Length: 1\r\n\r\na" OK200 "Content-Length: 0\r\n\r\n",
     false, CV_BAD_RESPONSE, NULL},
    {"body longer than its length", "p", OK200 "Content-Length: 1\r\n\r\nab", false,
     CV_BAD_RESPONSE, NULL},
    {"body shorter than its length", "p", OK200 "Content-Length: 3\r\n\r\nab", true, CV_TRUNCATED,
     NULL},
    {"closed in a chunk", "p", OK200 "Transfer-Encoding: chunked\r\n\r\n3\r\nab", true,
     CV_TRUNCATED, NULL},
    {"closed before the last chunk", "p", OK200 "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
     true, CV_TRUNCATED, NULL},
    {"closed before the end of the trailers", "p", OK200 "Transfer-Encoding: chunked\r\n\r\n0\r\n",
     true, CV_TRUNCATED, NULL},
    {"closed in the head", "p", OK200, true, CV_TRUNCATED, NULL},
    {"closed without an answer", "p", "", true, CV_TRUNCATED, NULL},
    {"closed between answers", "", "", true, CV_EOF, ""},
    {"CL and TE (6.1)", "p", OK200 "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", false,
     CV_BAD_RESPONSE, NULL},
    {"TE on 1.0 (6.1)", "p", "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", false,
     CV_BAD_RESPONSE, NULL},
    {"two Content-Length (6.3)", "p", OK200 "Content-Length: 1\r\nContent-Length: 2\r\n\r\n", false,
     CV_BAD_RESPONSE, NULL},
    {"bare LF (2.2)", "p", "HTTP/1.1 200 OK\nContent-Length: 0\n\n", false, CV_BAD_RESPONSE, NULL},
    {"fold (5.2)", "p", OK200 "X: a\r\n b\r\nContent-Length: 0\r\n\r\n", false, CV_BAD_RESPONSE,
     NULL},
    {"no HTTP", "p", "SSH-2.0-OpenSSH\r\n", false, CV_BAD_RESPONSE, NULL},
    {"two-digit status (4)", "p", "HTTP/1.1 20 OK\r\n\r\n", false, CV_BAD_RESPONSE, NULL},
    {"status 099 (4)", "p", "HTTP/1.1 099 OK\r\n\r\n", false, CV_BAD_RESPONSE, NULL},
    {"empty line in front", "p", "\r\n" OK200 "Content-Length: 0\r\n\r\n", false, CV_BAD_RESPONSE,
     NULL},
    {"HTTP/2 (2.3)", "p", "HTTP/2.0 200 OK\r\n\r\n", false, CV_BAD_RESPONSE, NULL},
    {"malformed chunk (7.1)", "p", OK200 "Transfer-Encoding: chunked\r\n\r\nxyz\r\n", false,
     CV_BAD_RESPONSE, NULL},
    {"forbidden trailer (9110 6.5.1)", "p",
     OK200 "Transfer-Encoding: chunked\r\n\r\n0\r\nSet-Cookie: a=b\r\n\r\n", false, CV_BAD_RESPONSE,
     NULL},
};

static void responses_by_rule(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(response_cases) / sizeof(response_cases[0]); i++) {
        const struct response_case *c = &response_cases[i];
        size_t len = strlen(c->bytes);
        for (size_t split = 0; split <= len; split++) {
            struct view view;
            view_run(&view, CV_HTTP_RESPONSES, c->expect, (const uint8_t *)c->bytes, len, split,
                     split == 0 ? 1 : len, c->closes);
            if (view.status.id != c->want || (c->view && strcmp(view.text, c->view) != 0))
                fail_msg("%s (split %zu): %s \"%s\", wanted %s; %s", c->name, split,
                         cv_status_name(view.status.id), view.text, cv_status_name(c->want),
                         view.fault);
        }
    }
}

/* Feeds `len` bytes of `fill` between head and tail and returns how it ends. */
static enum cv_status_id feed_filled(enum cv_http_role role, const char *head, char fill,
                                     size_t len, const char *tail)
{
    struct view view;
    size_t head_len = strlen(head), tail_len = strlen(tail);
    uint8_t *bytes = malloc(head_len + len + tail_len);
    assert_non_null(bytes);
    memcpy(bytes, head, head_len);
    memset(bytes + head_len, fill, len);
    memcpy(bytes + head_len + len, tail, tail_len);
    view_run(&view, role, "p", bytes, head_len + len + tail_len, 0, 4096, false);
    free(bytes);
    return view.status.id;
}

static void limits_hold_to_the_byte(void **state)
{
    (void)state;
    size_t line = cv_http_request_limits.start_line;
    size_t fixed = strlen("GET / HTTP/1.1");
    const char *rest = " HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_int_equal(feed_filled(CV_HTTP_REQUESTS, "GET /", 'a', line - fixed, rest), CV_AGAIN);
    assert_int_equal(feed_filled(CV_HTTP_REQUESTS, "GET /", 'a', line - fixed + 1, rest),
                     CV_URI_TOO_LONG);
    assert_int_equal(feed_filled(CV_HTTP_REQUESTS, "GET /", 'a', 65536, rest), CV_URI_TOO_LONG);

    size_t head = cv_http_request_limits.head;
    fixed = strlen(GET "X: \r\n\r\n");
    assert_int_equal(feed_filled(CV_HTTP_REQUESTS, GET "X: ", 'a', head - fixed, "\r\n\r\n"),
                     CV_AGAIN);
    assert_int_equal(feed_filled(CV_HTTP_REQUESTS, GET "X: ", 'a', head - fixed + 1, "\r\n\r\n"),
                     CV_HEAD_TOO_LARGE);
    assert_int_equal(feed_filled(CV_HTTP_REQUESTS, GET "X: ", 'a', 1 << 20, "\r\n\r\n"),
                     CV_HEAD_TOO_LARGE);
    assert_int_equal(feed_filled(CV_HTTP_RESPONSES, OK200 "X: ", 'a', 1 << 20, "\r\n\r\n"),
                     CV_BAD_RESPONSE);
    assert_int_equal(feed_filled(CV_HTTP_REQUESTS, CHUNKED "1;", 'a', 1023, "\r\nx"), CV_AGAIN);
    assert_int_equal(feed_filled(CV_HTTP_REQUESTS, CHUNKED "1;", 'a', 65536, "\r\nx"),
                     CV_BAD_REQUEST);
    assert_int_equal(feed_filled(CV_HTTP_REQUESTS, CHUNKED "0\r\nX: ", 'a', 65536, "\r\n\r\n"),
                     CV_HEAD_TOO_LARGE);
    assert_int_equal(feed_filled(CV_HTTP_REQUESTS, "", '\n', 1000, ""), CV_BAD_REQUEST);
}

static void repeat(char *out, size_t cap, const char *head, const char *text, size_t times,
                   const char *tail)
{
    size_t len = (size_t)snprintf(out, cap, "%s", head);
    for (size_t i = 0; i < times; i++)
        len += (size_t)snprintf(out + len, cap - len, "%s", text);
    (void)snprintf(out + len, cap - len, "%s", tail);
}

static void counts_are_capped(void **state)
{
    (void)state;
    static char text[70000];
    struct view view;
    repeat(text, sizeof(text), GET, "X: 1\r\n", 99, "\r\n");
    view_run(&view, CV_HTTP_REQUESTS, NULL, (uint8_t *)text, strlen(text), 0, 100000, false);
    assert_status(view.status, CV_AGAIN);
    repeat(text, sizeof(text), GET, "X: 1\r\n", 100, "\r\n");
    view_run(&view, CV_HTTP_REQUESTS, NULL, (uint8_t *)text, strlen(text), 0, 100000, false);
    assert_status(view.status, CV_HEAD_TOO_LARGE);
    repeat(text, sizeof(text), GET, "X: 1\r\n", 10000, "\r\n");
    view_run(&view, CV_HTTP_REQUESTS, NULL, (uint8_t *)text, strlen(text), 0, 100000, false);
    assert_status(view.status, CV_HEAD_TOO_LARGE);
    repeat(text, sizeof(text), "", "HTTP/1.1 102 \r\n\r\n", 10, OK200 "Content-Length: 0\r\n\r\n");
    view_run(&view, CV_HTTP_RESPONSES, "p", (uint8_t *)text, strlen(text), 0, 100000, false);
    assert_status(view.status, CV_AGAIN);
    repeat(text, sizeof(text), "", "HTTP/1.1 102 \r\n\r\n", 11, OK200 "Content-Length: 0\r\n\r\n");
    view_run(&view, CV_HTTP_RESPONSES, "p", (uint8_t *)text, strlen(text), 0, 100000, false);
    assert_status(view.status, CV_BAD_RESPONSE);
}

static void bytes_behind_an_upgrade_are_handed_out(void **state)
{
    (void)state;
    const char *bytes = GET "Connection: upgrade\r\nUpgrade: websocket\r\n\r\nxyz";
    struct cv_http_event event;
    struct cv_http_parser *parser = cv_http_parser_new(CV_HTTP_REQUESTS, &cv_http_request_limits);
    assert_true(cv_http_parser_is_idle(parser));
    assert_ok(cv_http_parser_feed(parser, (const uint8_t *)bytes, strlen(bytes)));
    assert_ok(cv_http_parser_next(parser, &event));
    assert_false(cv_http_parser_is_idle(parser));
    assert_true(event.head->is_upgrade);
    assert_ok(cv_http_parser_next(parser, &event));
    assert_int_equal(event.type, CV_HTTP_END);
    assert_status(cv_http_parser_next(parser, &event), CV_EOF);
    assert_true(cv_slice_is(cv_http_parser_rest(parser), "xyz"));
    assert_true(cv_slice_is(cv_http_parser_take_rest(parser), "xyz"));
    assert_int_equal(cv_http_parser_rest(parser).len, 0);
    cv_http_parser_free(&parser);
    assert_null(parser);
    cv_http_parser_free(&parser);
}

static void unread_body_comes_again(void **state)
{
    (void)state;
    static const char *const messages[] = {
        POST "Content-Length: 5\r\n\r\nabcde",
        CHUNKED "5\r\nabcde\r\n0\r\n\r\n",
    };
    for (size_t i = 0; i < 2; i++) {
        struct cv_http_event event;
        struct cv_http_parser *parser =
            cv_http_parser_new(CV_HTTP_REQUESTS, &cv_http_request_limits);
        assert_ok(cv_http_parser_feed(parser, (const uint8_t *)messages[i], strlen(messages[i])));
        assert_status(cv_http_parser_feed(parser, (const uint8_t *)"x", 1), CV_INVALID);
        assert_ok(cv_http_parser_next(parser, &event));
        assert_ok(cv_http_parser_next(parser, &event));
        assert_true(cv_slice_is(event.body, "abcde"));
        cv_http_parser_unread(parser, 3);
        assert_ok(cv_http_parser_next(parser, &event));
        assert_true(cv_slice_is(event.body, "cde"));
        assert_ok(cv_http_parser_next(parser, &event));
        assert_int_equal(event.type, CV_HTTP_END);
        assert_status(cv_http_parser_next(parser, &event), CV_AGAIN);
        cv_http_parser_free(&parser);
    }
}

static void a_fault_is_final(void **state)
{
    (void)state;
    struct cv_http_event event;
    struct cv_http_parser *parser = cv_http_parser_new(CV_HTTP_REQUESTS, &cv_http_request_limits);
    assert_ok(cv_http_parser_feed(parser, (const uint8_t *)"GET /\r\n" GET "\r\n", 30));
    assert_status(cv_http_parser_next(parser, &event), CV_BAD_REQUEST);
    assert_status(cv_http_parser_next(parser, &event), CV_BAD_REQUEST);
    cv_http_parser_eof(parser);
    assert_status(cv_http_parser_next(parser, &event), CV_BAD_REQUEST);
    cv_http_parser_free(&parser);
}

static void expectations_are_one_at_a_time(void **state)
{
    (void)state;
    struct cv_http_parser *parser = cv_http_parser_new(CV_HTTP_RESPONSES, &cv_http_response_limits);
    assert_ok(cv_http_parser_expect(parser, CV_HTTP_EXPECT_PLAIN));
    assert_status(cv_http_parser_expect(parser, CV_HTTP_EXPECT_PLAIN), CV_INVALID);
    cv_http_parser_free(&parser);
    parser = cv_http_parser_new(CV_HTTP_REQUESTS, &cv_http_request_limits);
    assert_status(cv_http_parser_expect(parser, CV_HTTP_EXPECT_PLAIN), CV_INVALID);
    cv_http_parser_free(&parser);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(requests_by_rule),
        cmocka_unit_test(responses_by_rule),
        cmocka_unit_test(limits_hold_to_the_byte),
        cmocka_unit_test(counts_are_capped),
        cmocka_unit_test(bytes_behind_an_upgrade_are_handed_out),
        cmocka_unit_test(unread_body_comes_again),
        cmocka_unit_test(a_fault_is_final),
        cmocka_unit_test(expectations_are_one_at_a_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
