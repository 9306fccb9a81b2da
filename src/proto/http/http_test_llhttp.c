/* SPDX-License-Identifier: MIT
 *
 * Messages as llhttp reads them, whole: what the parser's own second reading (http_llhttp.c) does
 * for heads alone.
 */
#include "proto/http/http_test_view.h"

#include <llhttp/llhttp.h>

struct reading {
    struct view *view;
    size_t len;
    size_t value_start; /* of the field value being read */
    enum cv_http_role role;
    const char *expect;
    bool is_in_body;
    bool is_in_trailers;
    bool is_in_field;
};

static void put(struct reading *r, const char *at, size_t len)
{
    char *text = r->view->text;
    for (size_t i = 0; i < len && r->len + 1 < sizeof r->view->text; i++)
        text[r->len++] = (char)(at[i] ? at[i] : '0');
    text[r->len] = '\0';
}

static void put_str(struct reading *r, const char *text)
{
    put(r, text, strlen(text));
}

static void leave_body(struct reading *r)
{
    if (r->is_in_body)
        put_str(r, "] ");
    r->is_in_body = false;
}

static int on_start_text(llhttp_t *parser, const char *at, size_t len)
{
    put(parser->data, at, len);
    return 0;
}

static int on_method_complete(llhttp_t *parser)
{
    put_str(parser->data, " ");
    return 0;
}

/* The request's version, or all of an answer's start line: its code is known behind the version. */
static void put_version(llhttp_t *parser)
{
    char text[32];
    if (parser->type == HTTP_REQUEST)
        (void)snprintf(text, sizeof text, " %d ", parser->http_minor);
    else
        (void)snprintf(text, sizeof text, "%d %d ", parser->status_code, parser->http_minor);
    put_str(parser->data, text);
}

static int on_name(llhttp_t *parser, const char *at, size_t len)
{
    struct reading *r = parser->data;
    leave_body(r);
    if (!r->is_in_field)
        put_str(r, r->is_in_trailers ? "{" : "<");
    r->is_in_field = true;
    put(r, at, len);
    return 0;
}

static int on_name_complete(llhttp_t *parser)
{
    struct reading *r = parser->data;
    put_str(r, "=");
    r->value_start = r->len;
    return 0;
}

static int on_value(llhttp_t *parser, const char *at, size_t len)
{
    put(parser->data, at, len);
    return 0;
}

static int on_value_complete(llhttp_t *parser)
{
    struct reading *r = parser->data;
    char *text = r->view->text;
    while (r->len > r->value_start && (text[r->len - 1] == ' ' || text[r->len - 1] == '\t'))
        r->len--;
    text[r->len] = '\0';
    put_str(r, r->is_in_trailers ? "} " : ">");
    r->is_in_field = false;
    return 0;
}

static bool is_interim(const llhttp_t *parser)
{
    return parser->type == HTTP_RESPONSE && parser->status_code < 200 && parser->status_code != 101;
}

/* 1: there is no body. */
static int on_head_complete(llhttp_t *parser)
{
    struct reading *r = parser->data;
    r->is_in_trailers = true;
    if (parser->method != HTTP_CONNECT || parser->type == HTTP_RESPONSE)
        parser->upgrade = 0;
    if (parser->type == HTTP_REQUEST)
        return 0;
    if (is_interim(parser)) {
        parser->flags &= (uint16_t)~F_CONNECTION_CLOSE;
        parser->http_minor = 1;
        return 1;
    }
    return parser->status_code < 200 || parser->status_code == 204 || parser->status_code == 304 ||
           (r->expect && *r->expect == 'h');
}

static int on_body(llhttp_t *parser, const char *at, size_t len)
{
    struct reading *r = parser->data;
    if (!r->is_in_body && len)
        put_str(r, "[");
    r->is_in_body |= len > 0;
    put(r, at, len);
    return 0;
}

static int on_complete(llhttp_t *parser)
{
    struct reading *r = parser->data;
    leave_body(r);
    r->is_in_trailers = false;
    if (is_interim(parser))
        return 0;
    put_str(r, "end;");
    if (r->expect && *r->expect)
        r->expect++;
    return 0;
}

/* The callbacks of one message come in the order of its bytes; the version's only with the last of
 * the start line's. */
static int on_version_complete(llhttp_t *parser)
{
    if (parser->type == HTTP_REQUEST)
        put_version(parser);
    return 0;
}

static int on_status_complete(llhttp_t *parser)
{
    put_version(parser);
    return 0;
}

static const llhttp_settings_t settings = {
    .on_method = on_start_text,
    .on_method_complete = on_method_complete,
    .on_url = on_start_text,
    .on_version_complete = on_version_complete,
    .on_status_complete = on_status_complete,
    .on_header_field = on_name,
    .on_header_field_complete = on_name_complete,
    .on_header_value = on_value,
    .on_header_value_complete = on_value_complete,
    .on_headers_complete = on_head_complete,
    .on_body = on_body,
    .on_message_complete = on_complete,
};

void view_llhttp(struct view *view, enum cv_http_role role, const char *expect,
                 const uint8_t *bytes, size_t len, bool closes)
{
    struct reading reading = {.view = view, .role = role, .expect = expect};
    llhttp_t parser;
    view->text[0] = view->fault[0] = '\0';
    llhttp_init(&parser, role == CV_HTTP_REQUESTS ? HTTP_REQUEST : HTTP_RESPONSE, &settings);
    parser.data = &reading;
    llhttp_errno_t result = llhttp_execute(&parser, (const char *)bytes, len);
    if (result == HPE_OK && closes)
        result = llhttp_finish(&parser);
    view->status = cv_status(result == HPE_OK ? (closes ? CV_EOF : CV_AGAIN) : CV_BAD_REQUEST);
    if (result == HPE_PAUSED_UPGRADE) /* CONNECT */
        view->status = cv_status(CV_EOF);
    const char *reason = result == HPE_OK ? "" : llhttp_get_error_reason(&parser);
    if (result == HPE_INVALID_METHOD || (reason && strstr(reason, "ethod")))
        view->status = cv_status(CV_NOT_IMPLEMENTED);
    (void)snprintf(view->fault, sizeof view->fault, "%s", reason ? reason : "");
}
