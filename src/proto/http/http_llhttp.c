/* SPDX-License-Identifier: MIT
 *
 * The second reading. Our own grammar is the stricter one, but a mistake in it would be ours alone;
 * llhttp is what Node and much else reads HTTP with. A head passes only when both read it alike, so
 * that an attack has to fool two unrelated parsers in the same way. The only file that knows
 * llhttp.
 */
#include "proto/http/http_head.h"

#include <llhttp/llhttp.h>

struct reading {
    size_t target_len;
    size_t names_len;
    size_t field_count;
};

static int on_target(llhttp_t *parser, const char *at, size_t len)
{
    (void)at;
    ((struct reading *)parser->data)->target_len += len;
    return 0;
}

static int on_name(llhttp_t *parser, const char *at, size_t len)
{
    (void)at;
    ((struct reading *)parser->data)->names_len += len;
    return 0;
}

static int on_name_complete(llhttp_t *parser)
{
    ((struct reading *)parser->data)->field_count++;
    return 0;
}

/* Stops behind the head: bodies are not llhttp's. */
static int on_head(llhttp_t *parser)
{
    (void)parser;
    return HPE_PAUSED;
}

static const llhttp_settings_t settings = {
    .on_url = on_target,
    .on_header_field = on_name,
    .on_header_field_complete = on_name_complete,
    .on_headers_complete = on_head,
};

bool cv_http_llhttp_agrees(enum cv_http_role role, struct cv_slice section,
                           const struct cv_http_head *head)
{
    struct reading reading = {0};
    llhttp_t parser;
    llhttp_errno_t result;
    llhttp_init(&parser, role == CV_HTTP_REQUESTS ? HTTP_REQUEST : HTTP_RESPONSE, &settings);
    parser.data = &reading;

    if (role == CV_HTTP_REQUESTS) {
        /* llhttp knows a list of methods; any token is one. CONNECT alone changes the grammar. */
        const char *method = head->is_connect ? "CONNECT" : "POST";
        result = llhttp_execute(&parser, method, strlen(method));
        if (result != HPE_OK)
            return false;
        section.data += head->method.len;
        section.len -= head->method.len;
    }
    result = llhttp_execute(&parser, (const char *)section.data, section.len);
    if (result != HPE_PAUSED)
        return false;

    size_t names_len = 0;
    for (size_t i = 0; i < head->field_count; i++)
        names_len += head->fields[i].name.len;
    bool has_length = cv_http_find(head, "content-length") != NULL;
    bool has_coding = cv_http_find(head, "transfer-encoding") != NULL;
    return parser.http_major == 1 && parser.http_minor == head->version_minor &&
           reading.target_len == head->target.len && reading.names_len == names_len &&
           reading.field_count == head->field_count &&
           (role == CV_HTTP_REQUESTS || parser.status_code == head->status) &&
           ((parser.flags & F_CONTENT_LENGTH) != 0) == has_length &&
           (!head->has_content_length || parser.content_length == head->content_length) &&
           ((parser.flags & F_CHUNKED) != 0) == has_coding;
}
