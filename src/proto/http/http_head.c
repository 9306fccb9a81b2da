/* SPDX-License-Identifier: MIT */
#include "proto/http/http_head.h"

#include "proto/http/http_chars.h"
#include "proto/http/url.h"

static struct cv_status bad(const char **fault, const char *text)
{
    *fault = text;
    return cv_status(CV_BAD_REQUEST);
}

static bool has_only(struct cv_slice text, uint8_t char_class)
{
    for (size_t i = 0; i < text.len; i++)
        if (!(cv_http_chars[text.data[i]] & char_class))
            return false;
    return true;
}

static bool is_digit(uint8_t c)
{
    return c >= '0' && c <= '9';
}

/* RFC 9112 §2.3: "HTTP/" DIGIT "." DIGIT, case-sensitive. */
static bool is_version(struct cv_slice text)
{
    return text.len == 8 && memcmp(text.data, "HTTP/", 5) == 0 && is_digit(text.data[5]) &&
           text.data[6] == '.' && is_digit(text.data[7]);
}

static bool is_version_known(struct cv_slice text)
{
    return text.data[5] == '1' && (text.data[7] == '0' || text.data[7] == '1');
}

/* path and query from "/path?query"; `text` may be "?query" behind an absolute form's authority. */
static bool take_path(struct cv_slice text, struct cv_http_head *head)
{
    const uint8_t *mark = text.len ? memchr(text.data, '?', text.len) : NULL;
    head->path = text;
    if (mark) {
        head->path.len = (size_t)(mark - text.data);
        head->query = cv_slice(mark + 1, text.len - head->path.len - 1);
        head->has_query = true;
    }
    if (!has_only(head->path, CV_HTTP_PATHC) || !has_only(head->query, CV_HTTP_QUERYC))
        return false;
    if (head->path.len == 0)
        head->path = cv_slice_str("/");
    return true;
}

/* RFC 9112 §3.2.2. Schemes other than http and https have no meaning here. */
static bool take_absolute(struct cv_slice target, struct cv_http_head *head)
{
    size_t skip = 0, end;
    bool has_port;
    if (target.len > 7 && cv_slice_is_nocase(cv_slice(target.data, 7), "http://"))
        skip = 7;
    else if (target.len > 8 && cv_slice_is_nocase(cv_slice(target.data, 8), "https://"))
        skip = 8;
    else
        return false;
    for (end = skip; end < target.len && target.data[end] != '/' && target.data[end] != '?';)
        end++;
    head->form = CV_HTTP_ABSOLUTE_FORM;
    return cv_url_split_authority(cv_slice(target.data + skip, end - skip), &head->host,
                                  &head->port, &has_port) &&
           take_path(cv_slice(target.data + end, target.len - end), head);
}

static bool take_target(struct cv_slice target, struct cv_http_head *head)
{
    bool has_port;
    head->target = target;
    if (target.len == 0)
        return false;
    if (head->is_connect) {
        head->form = CV_HTTP_AUTHORITY_FORM;
        return cv_url_split_authority(target, &head->host, &head->port, &has_port) && has_port;
    }
    if (target.data[0] == '/') {
        head->form = CV_HTTP_ORIGIN_FORM;
        return take_path(target, head);
    }
    if (cv_slice_is(target, "*")) {
        head->form = CV_HTTP_ASTERISK_FORM;
        head->path = target;
        return cv_slice_is(head->method, "OPTIONS");
    }
    return take_absolute(target, head);
}

struct cv_status cv_http_parse_request_line(struct cv_slice line, struct cv_http_head *head,
                                            const char **fault)
{
    struct cv_slice rest = line;
    struct cv_slice method = cv_slice_split(&rest, ' ');
    if (!rest.data)
        return bad(fault, "no request target (RFC 9112 3)");
    if (method.len > CV_HTTP_METHOD_MAX || !cv_http_is_token(method))
        return bad(fault, "the method is not a token (RFC 9110 9.1)");
    struct cv_slice target = cv_slice_split(&rest, ' ');
    if (!rest.data || !is_version(rest))
        return bad(fault, "no HTTP version, or more than one space (RFC 9112 3)");
    /* The preface of HTTP/2 (RFC 9113 §3.4) is not a request of ours. */
    if (cv_slice_is(method, "PRI"))
        return bad(fault, "HTTP/2 without negotiation (RFC 9113 3.4)");
    if (!is_version_known(rest)) {
        *fault = "only HTTP/1.0 and HTTP/1.1 are spoken (RFC 9110 15.6.6)";
        return cv_status(CV_HTTP_VERSION);
    }
    head->method = method;
    head->version_minor = rest.data[7] - '0';
    head->is_head = cv_slice_is(method, "HEAD");
    head->is_connect = cv_slice_is(method, "CONNECT");
    if (!take_target(target, head))
        return bad(fault, "the request target is malformed (RFC 9112 3.2)");
    return cv_ok();
}

/* RFC 9112 §4. The space before an empty reason is often left out; that is harmless. */
struct cv_status cv_http_parse_status_line(struct cv_slice line, struct cv_http_head *head,
                                           const char **fault)
{
    const uint8_t *at = line.data;
    *fault = "the status line is malformed (RFC 9112 4)";
    if (line.len < 12 || !is_version(cv_slice(at, 8)) || !is_version_known(cv_slice(at, 8)) ||
        at[8] != ' ' || at[9] < '1' || at[9] > '9' || !is_digit(at[10]) || !is_digit(at[11]) ||
        (line.len > 12 && at[12] != ' '))
        return cv_status(CV_BAD_RESPONSE);
    *fault = "";
    head->version_minor = at[7] - '0';
    head->status = (at[9] - '0') * 100 + (at[10] - '0') * 10 + (at[11] - '0');
    if (line.len > 13)
        head->reason = cv_slice(at + 13, line.len - 13);
    return cv_ok();
}

struct cv_status cv_http_parse_fields(struct cv_slice section, struct cv_http_field *fields,
                                      size_t cap, size_t *count, const char **fault)
{
    size_t n = 0;
    while (section.len > 2) {
        struct cv_slice line = cv_slice_split(&section, '\n');
        if (line.len < 1)
            return bad(fault, "an empty field line (RFC 9112 5)");
        line.len--; /* its CR */
        if (line.len == 0 || line.data[0] == ' ' || line.data[0] == '\t')
            return bad(fault, "a folded line or white space before a field (RFC 9112 5.2)");
        const uint8_t *colon = memchr(line.data, ':', line.len);
        if (!colon)
            return bad(fault, "a field line without colon (RFC 9112 5)");
        struct cv_slice name = cv_slice(line.data, (size_t)(colon - line.data));
        if (!cv_http_is_token(name))
            return bad(fault, "a field name is not a token (RFC 9112 5.1)");
        struct cv_slice value = cv_slice_trim(cv_slice(colon + 1, line.len - name.len - 1));
        if (!cv_http_is_field_value(value))
            return bad(fault, "a control character in a field value (RFC 9110 5.5)");
        if (n == cap)
            return bad(fault, "too many field lines");
        fields[n++] = (struct cv_http_field){name, value};
    }
    *count = n;
    return cv_ok();
}
