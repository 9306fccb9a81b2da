/* SPDX-License-Identifier: MIT */
#include "proto/http/http.h"

#include "proto/http/http_chars.h"

bool cv_http_is_token(struct cv_slice text)
{
    for (size_t i = 0; i < text.len; i++)
        if (!(cv_http_chars[text.data[i]] & CV_HTTP_TCHAR))
            return false;
    return text.len > 0;
}

bool cv_http_is_field_value(struct cv_slice text)
{
    return cv_http_text_len(text.data, text.len) == text.len;
}

const struct cv_slice *cv_http_find(const struct cv_http_head *head, const char *name)
{
    struct cv_slice wanted = cv_slice_str(name);
    for (size_t i = 0; i < head->field_count; i++)
        if (cv_slice_equal_nocase(head->fields[i].name, wanted))
            return &head->fields[i].value;
    return NULL;
}

struct cv_slice cv_http_value(const struct cv_http_head *head, const char *name)
{
    const struct cv_slice *value = cv_http_find(head, name);
    return value ? *value : cv_slice(NULL, 0);
}

struct cv_slice cv_http_single_value(const struct cv_http_head *head, const char *name)
{
    return cv_http_count(head, name) == 1 ? cv_http_value(head, name) : cv_slice(NULL, 0);
}

size_t cv_http_count(const struct cv_http_head *head, const char *name)
{
    struct cv_slice wanted = cv_slice_str(name);
    size_t count = 0;
    for (size_t i = 0; i < head->field_count; i++)
        count += cv_slice_equal_nocase(head->fields[i].name, wanted);
    return count;
}

struct cv_slice cv_http_join(const struct cv_http_head *head, const char *name,
                             struct cv_buf *joined)
{
    const struct cv_slice *first = cv_http_find(head, name);
    if (cv_http_count(head, name) < 2)
        return first ? *first : cv_slice(NULL, 0);
    /* All of it at once, since what was joined before must stay where it is. */
    if (!cv_buf_reserve(joined, cv_buf_room(joined)))
        return cv_slice(NULL, 0);
    size_t at = cv_buf_len(joined);
    for (size_t i = 0; i < head->field_count; i++) {
        if (!cv_slice_is_nocase(head->fields[i].name, name))
            continue;
        if ((cv_buf_len(joined) > at && !cv_is_ok(cv_buf_append_str(joined, ", "))) ||
            !cv_is_ok(cv_buf_append_slice(joined, head->fields[i].value)))
            return cv_slice(NULL, 0);
    }
    return cv_slice(cv_buf_head(joined) + at, cv_buf_len(joined) - at);
}

bool cv_http_list_next(struct cv_slice *rest, struct cv_slice *element)
{
    while (rest->len) {
        size_t end = 0;
        bool is_quoted = false;
        for (; end < rest->len; end++) {
            uint8_t c = rest->data[end];
            if (is_quoted && c == '\\')
                end++;
            else if (c == '"')
                is_quoted = !is_quoted;
            else if (c == ',' && !is_quoted)
                break;
        }
        if (end > rest->len) /* a backslash was the last byte */
            end = rest->len;
        *element = cv_slice_trim(cv_slice(rest->data, end));
        size_t used = end < rest->len ? end + 1 : end;
        rest->data += used;
        rest->len -= used;
        if (element->len)
            return true;
    }
    return false;
}

bool cv_http_list_has(const struct cv_http_head *head, const char *name, const char *element)
{
    struct cv_slice wanted = cv_slice_str(name), it = {0};
    for (size_t i = 0; i < head->field_count; i++) {
        if (!cv_slice_equal_nocase(head->fields[i].name, wanted))
            continue;
        struct cv_slice rest = head->fields[i].value;
        while (cv_http_list_next(&rest, &it))
            if (cv_slice_is_nocase(it, element))
                return true;
    }
    return false;
}

static uint8_t fold(uint8_t c)
{
    if (c == '_')
        return '-';
    return c >= 'A' && c <= 'Z' ? c | 0x20 : c;
}

/* Whether `name`, folded, is or begins with `other` (lower-case, with '-'). */
static bool begins_with(struct cv_slice name, const char *other, size_t len)
{
    if (name.len < len)
        return false;
    for (size_t i = 0; i < len; i++)
        if (fold(name.data[i]) != fold((uint8_t)other[i]))
            return false;
    return true;
}

bool cv_http_name_is(struct cv_slice name, const char *other)
{
    size_t len = strlen(other);
    if (len && other[len - 1] == '*')
        return begins_with(name, other, len - 1);
    return name.len == len && begins_with(name, other, len);
}

bool cv_http_name_is_in(struct cv_slice name, const char *const *names)
{
    /* Lists are long, and most of their names differ in the first letter already. */
    uint8_t first = name.len ? fold(name.data[0]) : 0;
    for (; *names; names++)
        if (((*names)[0] | 0x20) == first && cv_http_name_is(name, *names))
            return true;
    return false;
}

/* RFC 9110 §7.6.1, and HTTP2-Settings (RFC 7540 §3.2.1), which must not reach a service that speaks
 * h2c. */
static const char *const hop_by_hop_names[] = {
    "connection", "keep-alive",     "proxy-connection",    "proxy-authenticate",
    "te",         "trailer",        "proxy-authorization", "proxy-authentication-info",
    "upgrade",    "http2-settings", "transfer-encoding",   NULL,
};

/* What a Connection field may not take away (RFC 9110 §7.6.1 forbids naming end-to-end fields;
 * attackers do, to strip what the service decides by). */
static const char *const kept_names[] = {
    "host",
    "content-*",
    "authorization",
    "cookie",
    "set-cookie",
    "cache-control",
    "forwarded",
    "x-forwarded-*",
    "culvert-*",
    "origin",
    "sec-*",
    "expect",
    "x-real-ip",
    "x-request-id",
    "x-api-key",
    "x-http-method*",
    "location",
    "date",
    "traceparent",
    "tracestate",
    "referer",
    "user-agent",
    "accept*",
    "range",
    "if-*",
    "access-control-*",
    "etag",
    "vary",
    "expires",
    "pragma",
    "age",
    "www-authenticate",
    "retry-after",
    "max-forwards",
    "via",
    "allow",
    "server",
    "strict-*",
    "idempotency-key",
    "last-event-id",
    NULL,
};

/* Whether a Connection field takes away the field `name`. */
static bool is_taken_away(const struct cv_http_head *head, struct cv_slice name)
{
    for (size_t i = 0; i < head->field_count; i++) {
        struct cv_slice rest = head->fields[i].value, element;
        if (!cv_slice_is_nocase(head->fields[i].name, "connection"))
            continue;
        while (cv_http_list_next(&rest, &element))
            if (cv_slice_equal_nocase(element, name) && !cv_http_name_is_in(name, kept_names))
                return true;
    }
    return false;
}

bool cv_http_is_hop_by_hop(const struct cv_http_head *head, struct cv_slice name)
{
    return cv_http_name_is_in(name, hop_by_hop_names) || (head && is_taken_away(head, name));
}

bool cv_http_takes_away(const struct cv_http_head *head)
{
    for (size_t i = 0; i < head->field_count; i++) {
        struct cv_slice rest = head->fields[i].value, element;
        if (!cv_slice_is_nocase(head->fields[i].name, "connection"))
            continue;
        while (cv_http_list_next(&rest, &element)) {
            bool is_option = cv_slice_is_nocase(element, "close") && !cv_http_find(head, "close");
            if (!is_option && !cv_http_name_is_in(element, hop_by_hop_names))
                return true;
        }
    }
    return false;
}

/* RFC 9110 §6.5.1 and the list RFC 7230 §4.1.2 gave. */
static const char *const forbidden_trailers[] = {
    "content-length",
    "content-encoding",
    "content-type",
    "content-range",
    "content-language",
    "content-location",
    "host",
    "authorization",
    "cookie",
    "set-cookie",
    "cache-control",
    "expect",
    "max-forwards",
    "pragma",
    "range",
    "if-*",
    "www-authenticate",
    "age",
    "date",
    "expires",
    "location",
    "retry-after",
    "vary",
    "warning",
    "forwarded",
    "x-forwarded-*",
    "x-request-id",
    "x-real-ip",
    "culvert-*",
    "traceparent",
    "tracestate",
    "origin",
    "referer",
    "sec-*",
    "access-control-*",
    "x-http-method*",
    "strict-*",
    NULL,
};

bool cv_http_is_trailer_allowed(struct cv_slice name)
{
    return !cv_http_name_is_in(name, hop_by_hop_names) &&
           !cv_http_name_is_in(name, forbidden_trailers);
}

bool cv_http_is_idempotent(struct cv_slice method)
{
    return cv_slice_is(method, "GET") || cv_slice_is(method, "HEAD") ||
           cv_slice_is(method, "OPTIONS") || cv_slice_is(method, "TRACE") ||
           cv_slice_is(method, "PUT") || cv_slice_is(method, "DELETE");
}

/* The registry of status codes (RFC 9110 §15, and 103, 425, 428, 429, 431, 451, 507, 508, 511). */
static const struct {
    int status;
    const char *reason;
} reasons[] = {
    {100, "Continue"},
    {101, "Switching Protocols"},
    {102, "Processing"},
    {103, "Early Hints"},
    {200, "OK"},
    {201, "Created"},
    {202, "Accepted"},
    {203, "Non-Authoritative Information"},
    {204, "No Content"},
    {205, "Reset Content"},
    {206, "Partial Content"},
    {207, "Multi-Status"},
    {208, "Already Reported"},
    {226, "IM Used"},
    {300, "Multiple Choices"},
    {301, "Moved Permanently"},
    {302, "Found"},
    {303, "See Other"},
    {304, "Not Modified"},
    {305, "Use Proxy"},
    {307, "Temporary Redirect"},
    {308, "Permanent Redirect"},
    {400, "Bad Request"},
    {401, "Unauthorized"},
    {402, "Payment Required"},
    {403, "Forbidden"},
    {404, "Not Found"},
    {405, "Method Not Allowed"},
    {406, "Not Acceptable"},
    {407, "Proxy Authentication Required"},
    {408, "Request Timeout"},
    {409, "Conflict"},
    {410, "Gone"},
    {411, "Length Required"},
    {412, "Precondition Failed"},
    {413, "Content Too Large"},
    {414, "URI Too Long"},
    {415, "Unsupported Media Type"},
    {416, "Range Not Satisfiable"},
    {417, "Expectation Failed"},
    {421, "Misdirected Request"},
    {422, "Unprocessable Content"},
    {423, "Locked"},
    {424, "Failed Dependency"},
    {425, "Too Early"},
    {426, "Upgrade Required"},
    {428, "Precondition Required"},
    {429, "Too Many Requests"},
    {431, "Request Header Fields Too Large"},
    {451, "Unavailable For Legal Reasons"},
    {499, "Client Closed Request"},
    {500, "Internal Server Error"},
    {501, "Not Implemented"},
    {502, "Bad Gateway"},
    {503, "Service Unavailable"},
    {504, "Gateway Timeout"},
    {505, "HTTP Version Not Supported"},
    {507, "Insufficient Storage"},
    {508, "Loop Detected"},
    {511, "Network Authentication Required"},
};

const char *cv_http_reason(int status)
{
    for (size_t i = 0; i < sizeof(reasons) / sizeof(reasons[0]); i++)
        if (reasons[i].status == status)
            return reasons[i].reason;
    return "";
}
