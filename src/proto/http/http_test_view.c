/* SPDX-License-Identifier: MIT */
#include "proto/http/http_test_view.h"

#include <stdarg.h>

struct run {
    struct view *view;
    size_t len;
    const char *expect;
    bool is_in_body;
    enum view_kind kind;
};

__attribute__((format(printf, 2, 3))) static void put(struct run *run, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(run->view->text + run->len, sizeof(run->view->text) - run->len, format, args);
    va_end(args);
    if (n > 0)
        run->len += (size_t)n;
    if (run->len >= sizeof(run->view->text))
        run->len = sizeof(run->view->text) - 1;
}

/* With NUL shown as '0', so that the text stays one string. */
static void put_slice(struct run *run, struct cv_slice slice)
{
    for (size_t i = 0; i < slice.len && run->len + 1 < sizeof(run->view->text); i++)
        run->view->text[run->len++] = (char)(slice.data[i] ? slice.data[i] : '0');
    run->view->text[run->len] = '\0';
}

static void put_meaning(struct run *run, const struct cv_http_head *head)
{
    put(run, "%s%s ", head->is_upgrade ? " upgrade" : "",
        head->expects_continue ? " continue" : "");
    for (size_t i = 0; i < head->field_count; i++) {
        struct cv_slice name = head->fields[i].name;
        if (cv_http_is_hop_by_hop(head, name) || cv_http_name_is(name, "host") ||
            cv_http_name_is(name, "content-length") || cv_http_name_is(name, "expect"))
            continue;
        put(run, "<");
        put_slice(run, name);
        put(run, "=");
        put_slice(run, head->fields[i].value);
        put(run, ">");
    }
}

static void put_wire(struct run *run, const struct cv_http_head *head)
{
    if (head->status) {
        put(run, "%d", head->status);
    } else {
        put_slice(run, head->method);
        put(run, " ");
        put_slice(run, head->target);
    }
    put(run, " %d ", head->version_minor);
    for (size_t i = 0; i < head->field_count; i++) {
        put(run, "<");
        put_slice(run, head->fields[i].name);
        put(run, "=");
        put_slice(run, head->fields[i].value);
        put(run, ">");
    }
}

static void put_head(struct run *run, const struct cv_http_head *head)
{
    if (run->kind == VIEW_WIRE) {
        put_wire(run, head);
        return;
    }
    int minor = run->kind == VIEW_ALL ? head->version_minor : 1;
    if (head->status) {
        put(run, "%d %d", head->status, minor);
    } else {
        put_slice(run, head->method);
        put(run, " ");
        put_slice(run, head->path);
        if (head->has_query) {
            put(run, "?");
            put_slice(run, head->query);
        }
        put(run, " ");
        bool has_no_host = run->kind == VIEW_MEANING && head->host.len == 0;
        put_slice(run, has_no_host ? cv_slice_str("localhost") : head->host);
        put(run, ":%u %d", head->port, minor);
    }
    static const char *const framings[] = {" no-body", " length", " chunked", " until-close"};
    put(run, "%s", framings[head->framing]);
    if (head->has_content_length)
        put(run, head->framing == CV_HTTP_LENGTH ? "=%llu" : "(%llu)",
            (unsigned long long)head->content_length);
    if (run->kind == VIEW_MEANING) {
        put_meaning(run, head);
        return;
    }
    put(run, "%s%s%s ", head->keep_alive ? " ka" : " close", head->is_upgrade ? " upgrade" : "",
        head->expects_continue ? " continue" : "");
}

static void put_event(struct run *run, const struct cv_http_event *event)
{
    if (run->is_in_body && event->type != CV_HTTP_BODY) {
        put(run, "] ");
        run->is_in_body = false;
    }
    switch (event->type) {
    case CV_HTTP_HEAD:
        put_head(run, event->head);
        break;
    case CV_HTTP_BODY:
        put(run, "%s", run->is_in_body ? "" : "[");
        run->is_in_body = true;
        put_slice(run, event->body);
        break;
    case CV_HTTP_TRAILERS:
        for (size_t i = 0; i < event->trailer_count; i++) {
            put(run, "{");
            put_slice(run, event->trailers[i].name);
            put(run, "=");
            put_slice(run, event->trailers[i].value);
            put(run, "} ");
        }
        break;
    case CV_HTTP_END:
        put(run, "end;");
        break;
    }
}

static void expect_next(struct run *run, struct cv_http_parser *parser)
{
    if (!run->expect || !*run->expect)
        return;
    enum cv_http_expect expect = *run->expect == 'h'   ? CV_HTTP_EXPECT_HEAD
                                 : *run->expect == 'u' ? CV_HTTP_EXPECT_UPGRADE
                                                       : CV_HTTP_EXPECT_PLAIN;
    if (cv_is_ok(cv_http_parser_expect(parser, expect)))
        run->expect++;
}

static struct cv_status drain(struct run *run, struct cv_http_parser *parser)
{
    struct cv_http_event event;
    struct cv_status status;
    while (cv_is_ok(status = cv_http_parser_next(parser, &event))) {
        put_event(run, &event);
        if (event.type == CV_HTTP_END)
            expect_next(run, parser);
    }
    return status;
}

void view_run(struct view *view, enum cv_http_role role, const char *expect, const uint8_t *bytes,
              size_t len, size_t first, size_t step, bool closes, enum view_kind kind)
{
    view->status = cv_status(CV_AGAIN);
    view->text[0] = view->fault[0] = '\0';
    struct run run = {.view = view, .expect = expect, .kind = kind};
    struct cv_http_parser *parser = cv_http_parser_new(
        role, role == CV_HTTP_REQUESTS ? &cv_http_request_limits : &cv_http_response_limits);
    if (!parser) {
        view->status = cv_status(CV_NO_MEMORY);
        return;
    }
    if (role == CV_HTTP_RESPONSES)
        expect_next(&run, parser);
    for (size_t at = 0; at < len && view->status.id == CV_AGAIN;) {
        size_t piece = at == 0 && first ? first : step;
        if (piece > len - at)
            piece = len - at;
        uint8_t *copy = malloc(piece); /* so that a slice kept too long is found */
        if (!copy)
            break;
        memcpy(copy, bytes + at, piece);
        at += piece;
        if (cv_is_ok(cv_http_parser_feed(parser, copy, piece)))
            view->status = drain(&run, parser);
        (void)cv_http_parser_take_rest(parser);
        free(copy);
    }
    if (closes && view->status.id == CV_AGAIN) {
        cv_http_parser_eof(parser);
        view->status = drain(&run, parser);
    }
    (void)snprintf(view->fault, sizeof(view->fault), "%s", cv_http_parser_fault(parser));
    cv_http_parser_free(&parser);
}
