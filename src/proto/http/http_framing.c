/* SPDX-License-Identifier: MIT
 *
 * What the fields of a head mean: where the body ends, whether the connection goes on, whom the
 * request is for. One walk gathers the few fields that matter, then the rules are read off. */
#include "proto/http/http_head.h"
#include "proto/http/url.h"

struct gathered {
    size_t host_count;
    size_t length_count;
    size_t coding_count;
    struct cv_slice host;
    struct cv_slice length;
    struct cv_slice coding;
    bool has_close;
    bool has_keep_alive;
    bool has_upgrade; /* in Connection */
    bool has_websocket;
    bool has_other_protocol;
    bool has_expect;
    bool has_other_expect;
    bool has_bad_connection;
};

static void gather_connection(struct gathered *g, struct cv_slice rest)
{
    struct cv_slice option;
    while (cv_http_list_next(&rest, &option)) {
        g->has_bad_connection |= !cv_http_is_token(option);
        g->has_close |= cv_slice_is_nocase(option, "close");
        g->has_keep_alive |= cv_slice_is_nocase(option, "keep-alive");
        g->has_upgrade |= cv_slice_is_nocase(option, "upgrade");
    }
}

static void gather_field(struct gathered *g, const struct cv_http_field *field)
{
    struct cv_slice rest = field->value, element;
    switch (field->name.len) {
    case 4:
        if (cv_slice_is_nocase(field->name, "host")) {
            g->host_count++;
            g->host = field->value;
        }
        break;
    case 6:
        if (cv_slice_is_nocase(field->name, "expect")) {
            g->has_expect = true;
            g->has_other_expect |= !cv_slice_is_nocase(field->value, "100-continue");
        }
        break;
    case 7:
        if (cv_slice_is_nocase(field->name, "upgrade")) {
            while (cv_http_list_next(&rest, &element)) {
                bool is_websocket = cv_slice_is_nocase(element, "websocket");
                g->has_websocket |= is_websocket;
                g->has_other_protocol |= !is_websocket;
            }
        }
        break;
    case 10:
        if (cv_slice_is_nocase(field->name, "connection"))
            gather_connection(g, field->value);
        break;
    case 14:
        if (cv_slice_is_nocase(field->name, "content-length")) {
            g->length_count++;
            g->length = field->value;
        }
        break;
    case 17:
        if (cv_slice_is_nocase(field->name, "transfer-encoding")) {
            g->coding_count++;
            g->coding = field->value;
        }
        break;
    default:
        break;
    }
}

static struct gathered gather(const struct cv_http_head *head)
{
    struct gathered g = {0};
    for (size_t i = 0; i < head->field_count; i++)
        gather_field(&g, &head->fields[i]);
    return g;
}

static struct cv_status bad(const char **fault, const char *text)
{
    *fault = text;
    return cv_status(CV_BAD_REQUEST);
}

/* Codings we know by name but do not undo, with `chunked` last as RFC 9112 §6.1 wants it. */
static bool is_unsupported_coding(struct cv_slice value)
{
    static const char *const known[] = {"gzip", "x-gzip", "deflate", "compress", "x-compress"};
    struct cv_slice element;
    bool is_last_chunked = false, has_known = false;
    while (cv_http_list_next(&value, &element)) {
        bool is_known = false;
        if (is_last_chunked)
            return false;
        is_last_chunked = cv_slice_is_nocase(element, "chunked");
        for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
            is_known |= cv_slice_is_nocase(element, known[i]);
        if (!is_known && !is_last_chunked)
            return false;
        has_known |= is_known;
    }
    return is_last_chunked && has_known;
}

/* RFC 9112 §6.1–6.3, with every choice between two readings taken as a fault. Sets framing to
 * CV_HTTP_NO_BODY when neither field is there. */
static struct cv_status judge_framing(struct cv_http_head *head, const struct gathered *g,
                                      const char **fault)
{
    head->framing = CV_HTTP_NO_BODY;
    if (g->coding_count && g->length_count)
        return bad(fault, "Content-Length and Transfer-Encoding together (RFC 9112 6.1)");
    if (g->coding_count) {
        if (head->version_minor == 0)
            return bad(fault, "Transfer-Encoding on HTTP/1.0 (RFC 9112 6.1)");
        if (g->coding_count == 1 && is_unsupported_coding(g->coding)) {
            *fault = "only the transfer coding chunked is known (RFC 9112 6.1)";
            return cv_status(CV_NOT_IMPLEMENTED);
        }
        if (g->coding_count != 1 || !cv_slice_is_nocase(g->coding, "chunked"))
            return bad(fault, "Transfer-Encoding is not exactly chunked (RFC 9112 6.1)");
        head->framing = CV_HTTP_CHUNKED;
    }
    if (g->length_count) {
        if (g->length_count != 1 || !cv_slice_to_u64(g->length, INT64_MAX, &head->content_length))
            return bad(fault, "Content-Length is not exactly one number (RFC 9110 8.6)");
        /* Some read a leading zero as octal; no sender writes one. */
        if (g->length.len > 1 && g->length.data[0] == '0' && head->status == 0)
            return bad(fault, "Content-Length with a leading zero (RFC 9110 8.6)");
        head->framing = CV_HTTP_LENGTH;
        head->has_content_length = true;
    }
    return cv_ok();
}

static void judge_persistence(struct cv_http_head *head, const struct gathered *g)
{
    head->keep_alive = !g->has_close && (head->version_minor == 1 || g->has_keep_alive);
}

/* RFC 9110 §7.2 and RFC 9112 §3.2: whom the request is for is said once. */
static struct cv_status judge_host(struct cv_http_head *head, const struct gathered *g,
                                   const char **fault)
{
    struct cv_slice host;
    unsigned port;
    bool has_port;
    if (g->host_count > 1)
        return bad(fault, "more than one Host (RFC 9112 3.2)");
    if (g->host_count == 0) {
        if (head->version_minor == 1)
            return bad(fault, "no Host (RFC 9112 3.2)");
        return cv_ok();
    }
    if (!cv_url_split_authority(g->host, &host, &port, &has_port))
        return bad(fault, "Host is not a valid host and port (RFC 9110 7.2)");
    /* CONNECT goes nowhere, whatever Host says, and is told so with 405 or 501. */
    if (head->form == CV_HTTP_AUTHORITY_FORM)
        return cv_ok();
    if (head->form == CV_HTTP_ABSOLUTE_FORM) {
        unsigned default_port = (head->target.data[4] | 0x20) == 's' ? 443 : 80;
        if (!cv_slice_equal_nocase(host, head->host) ||
            (has_port ? port : default_port) != (head->port ? head->port : default_port))
            return bad(fault, "Host and request target name different hosts (RFC 9112 3.2.2)");
        return cv_ok();
    }
    head->host = host;
    head->port = port;
    return cv_ok();
}

struct cv_status cv_http_judge_request(struct cv_http_head *head, const char **fault)
{
    struct gathered g = gather(head);
    CV_RETURN_IF_ERROR(judge_framing(head, &g, fault));
    CV_RETURN_IF_ERROR(judge_host(head, &g, fault));
    if (g.has_bad_connection)
        return bad(fault, "Connection is not a list of tokens (RFC 9110 7.6.1)");
    if (head->is_connect && head->framing != CV_HTTP_NO_BODY)
        return bad(fault, "CONNECT with a body (RFC 9110 9.3.6)");
    judge_persistence(head, &g);
    if (head->version_minor == 1 && g.has_expect) {
        if (g.has_other_expect) {
            *fault = "an expectation other than 100-continue (RFC 9110 10.1.1)";
            return cv_status(CV_EXPECTATION);
        }
        head->expects_continue = head->framing == CV_HTTP_CHUNKED ||
                                 (head->framing == CV_HTTP_LENGTH && head->content_length > 0);
    }
    bool has_body = head->framing != CV_HTTP_NO_BODY &&
                    !(head->framing == CV_HTTP_LENGTH && head->content_length == 0);
    head->is_upgrade = head->version_minor == 1 && g.has_upgrade && g.has_websocket &&
                       !g.has_other_protocol && !has_body && cv_slice_is(head->method, "GET");
    /* Who takes this for an upgrade all the same sees no request behind it: nor do we. */
    if (g.has_upgrade && g.has_websocket && !head->is_upgrade)
        head->keep_alive = false;
    return cv_ok();
}

struct cv_status cv_http_judge_response(struct cv_http_head *head, enum cv_http_expect expect,
                                        const char **fault)
{
    struct gathered g = gather(head);
    if (!cv_is_ok(judge_framing(head, &g, fault)))
        return cv_status(CV_BAD_RESPONSE);
    judge_persistence(head, &g);
    if (head->status == 101) {
        if (expect != CV_HTTP_EXPECT_UPGRADE || head->version_minor == 0) {
            *fault = "a 101 that nobody asked for (RFC 9110 15.2.2)";
            return cv_status(CV_BAD_RESPONSE);
        }
        head->is_upgrade = true;
    }
    /* RFC 9112 §6.3 rule 1. A length in 1xx or 204 has no meaning and is not passed on (RFC 9110
     * §8.6); in 304 and answers to HEAD it tells of the body that GET would have. */
    if (head->status < 200 || head->status == 204) {
        head->framing = CV_HTTP_NO_BODY;
        head->has_content_length = false;
        head->content_length = 0;
    } else if (head->status == 304 || expect == CV_HTTP_EXPECT_HEAD) {
        head->framing = CV_HTTP_NO_BODY;
    } else if (head->framing == CV_HTTP_NO_BODY) {
        head->framing = CV_HTTP_UNTIL_CLOSE;
        head->keep_alive = false;
    }
    return cv_ok();
}
