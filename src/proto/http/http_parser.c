/* SPDX-License-Identifier: MIT
 *
 *   IDLE ─ byte / expect ─▶ HEAD ─▶ LENGTH ─────────────▶ END ─▶ IDLE, or LAST when no message may
 * follow │ ├──▶ CHUNKED ─▶ TRAILERS ──▶ ▲ │ ├──▶ UNTIL_CLOSE ─ eof ────▶ │ │ └──▶ (no body)
 * ────────────▶ ┘ └ 1xx: HEAD again, for the same request Any fault leads to FAULT, which is final.
 */
#include "proto/http/http_parser.h"

#include <assert.h>
#include <stdlib.h>

#include "proto/http/http_chunk.h"
#include "proto/http/http_head.h"
#include "proto/http/http_lines.h"

const struct cv_http_limits cv_http_request_limits = {
    .start_line = 8192,
    .head = 16384,
    .field_count = CV_HTTP_FIELDS_MAX,
    .chunk_extension = 1024,
    .trailers = 8192,
};

const struct cv_http_limits cv_http_response_limits = {
    .start_line = 8192,
    .head = 65536,
    .field_count = 200,
    .chunk_extension = 1024,
    .trailers = 16384,
    .interim_count = 10,
};

enum state { IDLE, HEAD, LENGTH, CHUNKED, TRAILERS, UNTIL_CLOSE, END, LAST, FAULT };

struct cv_http_parser {
    enum cv_http_role role;
    enum state state;
    struct cv_http_limits limits;

    struct cv_slice input; /* fed, unused */
    bool is_eof;

    struct cv_http_lines head_lines;
    struct cv_http_lines trailer_lines;
    bool is_start_checked;        /* the start line was judged early */
    struct cv_http_field *fields; /* of the head, then of the trailers; NULL between messages */
    struct cv_http_field *trailers;
    struct cv_http_head head;
    struct cv_http_chunk chunk;
    uint64_t left;    /* of a body with a length */
    size_t last_body; /* length of the body event given last, what may be unread */

    bool is_expected; /* responses: one is outstanding */
    enum cv_http_expect expect;
    unsigned interim_count;

    struct cv_status fault_status;
    const char *fault;
};

struct cv_http_parser *cv_http_parser_new(enum cv_http_role role,
                                          const struct cv_http_limits *limits)
{
    struct cv_http_parser *parser = calloc(1, sizeof(*parser));
    if (!parser)
        return NULL;
    parser->role = role;
    parser->limits = *limits;
    parser->fault = "";
    cv_http_lines_init(&parser->head_lines,
                       &(struct cv_http_lines_limits){
                           .first_line = limits->start_line,
                           .first_word = role == CV_HTTP_REQUESTS ? CV_HTTP_METHOD_MAX : 0,
                           .section = limits->head,
                           .line_count = limits->field_count + 1,
                           .allows_blank = role == CV_HTTP_REQUESTS});
    cv_http_lines_init(&parser->trailer_lines,
                       &(struct cv_http_lines_limits){.section = limits->trailers,
                                                      .line_count = limits->field_count});
    return parser;
}

static void forget_message(struct cv_http_parser *parser)
{
    cv_http_lines_reset(&parser->head_lines);
    cv_http_lines_reset(&parser->trailer_lines);
    free(parser->fields);
    free(parser->trailers);
    parser->fields = parser->trailers = NULL;
    parser->head = (struct cv_http_head){0};
    parser->is_start_checked = false;
}

void cv_http_parser_free(struct cv_http_parser **parser)
{
    if (!*parser)
        return;
    forget_message(*parser);
    cv_http_lines_done(&(*parser)->head_lines);
    cv_http_lines_done(&(*parser)->trailer_lines);
    free(*parser);
    *parser = NULL;
}

struct cv_status cv_http_parser_expect(struct cv_http_parser *parser, enum cv_http_expect expect)
{
    if (parser->role != CV_HTTP_RESPONSES || parser->is_expected)
        return cv_status(CV_INVALID);
    parser->is_expected = true;
    parser->expect = expect;
    parser->interim_count = 0;
    return cv_ok();
}

struct cv_status cv_http_parser_feed(struct cv_http_parser *parser, const uint8_t *data, size_t len)
{
    if (parser->input.len)
        return cv_status(CV_INVALID);
    parser->input = cv_slice(data, len);
    return cv_ok();
}

void cv_http_parser_eof(struct cv_http_parser *parser)
{
    parser->is_eof = true;
}

struct cv_slice cv_http_parser_head_bytes(const struct cv_http_parser *parser)
{
    return cv_buf_slice(&parser->head_lines.buf);
}

struct cv_slice cv_http_parser_rest(const struct cv_http_parser *parser)
{
    return parser->input;
}

struct cv_slice cv_http_parser_take_rest(struct cv_http_parser *parser)
{
    struct cv_slice rest = parser->input;
    parser->input = (struct cv_slice){0};
    return rest;
}

const char *cv_http_parser_fault(const struct cv_http_parser *parser)
{
    return parser->fault;
}

bool cv_http_parser_is_idle(const struct cv_http_parser *parser)
{
    return parser->state == IDLE && !parser->is_expected;
}

/* A fault in a response is one status whatever the rule; in a request the status says what to
 * answer. */
static struct cv_status fail(struct cv_http_parser *parser, struct cv_status status,
                             const char *fault)
{
    if (parser->role == CV_HTTP_RESPONSES && status.id != CV_NO_MEMORY && status.id != CV_TRUNCATED)
        status.id = CV_BAD_RESPONSE;
    parser->state = FAULT;
    parser->fault_status = status;
    parser->fault = fault;
    return status;
}

static void use_input(struct cv_http_parser *parser, size_t len)
{
    parser->input.data += len;
    parser->input.len -= len;
}

static struct cv_status parse_start(struct cv_http_parser *parser, struct cv_slice section,
                                    struct cv_slice *fields, const char **fault)
{
    struct cv_slice line = cv_slice_split(&section, '\n');
    line.len--; /* its CR */
    *fields = section;
    return parser->role == CV_HTTP_REQUESTS ? cv_http_parse_request_line(line, &parser->head, fault)
                                            : cv_http_parse_status_line(line, &parser->head, fault);
}

/* The section is complete: makes the view. */
static struct cv_status read_head(struct cv_http_parser *parser, const char **fault)
{
    struct cv_slice section = cv_buf_slice(&parser->head_lines.buf), field_lines;
    struct cv_http_head *head = &parser->head;
    size_t line_count = parser->head_lines.line_count, cap = line_count ? line_count : 1;
    *head = (struct cv_http_head){0};
    CV_RETURN_IF_ERROR(parse_start(parser, section, &field_lines, fault));
    free(parser->fields);
    parser->fields = calloc(cap, sizeof(*parser->fields)); /* one spare: never NULL */
    if (!parser->fields)
        return cv_status(CV_NO_MEMORY);
    CV_RETURN_IF_ERROR(
        cv_http_parse_fields(field_lines, parser->fields, cap, &head->field_count, fault));
    head->fields = parser->fields;
    if (parser->role == CV_HTTP_REQUESTS)
        CV_RETURN_IF_ERROR(cv_http_judge_request(head, fault));
    else
        CV_RETURN_IF_ERROR(cv_http_judge_response(head, parser->expect, fault));
    if (!cv_http_llhttp_agrees(parser->role, section, head)) {
        *fault = "the head can be read in more than one way";
        return cv_status(CV_BAD_REQUEST);
    }
    return cv_ok();
}

static enum state body_state(struct cv_http_parser *parser)
{
    switch (parser->head.framing) {
    case CV_HTTP_LENGTH:
        parser->left = parser->head.content_length;
        return parser->left ? LENGTH : END;
    case CV_HTTP_CHUNKED:
        cv_http_chunk_init(&parser->chunk, parser->limits.chunk_extension,
                           parser->role == CV_HTTP_RESPONSES);
        return CHUNKED;
    case CV_HTTP_UNTIL_CLOSE:
        return UNTIL_CLOSE;
    case CV_HTTP_NO_BODY:
        break;
    }
    return END;
}

static struct cv_status next_head(struct cv_http_parser *parser, struct cv_http_event *event)
{
    const char *fault = "";
    struct cv_slice unused;
    size_t used = 0;
    struct cv_status status = {CV_AGAIN};
    while (parser->input.len && status.id == CV_AGAIN) {
        status = cv_http_lines_take(&parser->head_lines, parser->input.data, parser->input.len,
                                    &used, &fault);
        if (!cv_is_ok(status) && status.id != CV_AGAIN)
            return fail(parser, status, fault);
        use_input(parser, used);
        /* A start line that cannot be right is answered without waiting for the rest. */
        if (parser->head_lines.line_count && !parser->is_start_checked) {
            struct cv_status start =
                parse_start(parser, cv_buf_slice(&parser->head_lines.buf), &unused, &fault);
            if (!cv_is_ok(start))
                return fail(parser, start, fault);
            parser->is_start_checked = true;
        }
    }
    if (!cv_is_ok(status))
        return status;
    status = read_head(parser, &fault);
    if (!cv_is_ok(status))
        return fail(parser, status, fault);

    bool is_interim = parser->role == CV_HTTP_RESPONSES && parser->head.status < 200 &&
                      parser->head.status != 101;
    if (is_interim && ++parser->interim_count > parser->limits.interim_count)
        return fail(parser, cv_status(CV_BAD_RESPONSE), "too many interim answers");
    parser->state = is_interim ? IDLE : body_state(parser);
    *event = (struct cv_http_event){.type = CV_HTTP_HEAD, .head = &parser->head};
    return cv_ok();
}

static struct cv_status next_length(struct cv_http_parser *parser, struct cv_http_event *event)
{
    if (parser->left == 0) {
        parser->state = END;
        return cv_status(CV_AGAIN);
    }
    size_t run = parser->input.len < parser->left ? parser->input.len : (size_t)parser->left;
    *event =
        (struct cv_http_event){.type = CV_HTTP_BODY, .body = cv_slice(parser->input.data, run)};
    use_input(parser, run);
    parser->left -= run;
    return cv_ok();
}

static struct cv_status next_until_close(struct cv_http_parser *parser, struct cv_http_event *event)
{
    *event = (struct cv_http_event){.type = CV_HTTP_BODY, .body = parser->input};
    use_input(parser, parser->input.len);
    return cv_ok();
}

static struct cv_status next_chunked(struct cv_http_parser *parser, struct cv_http_event *event)
{
    const char *fault = "";
    size_t used;
    struct cv_slice body;
    struct cv_status status = cv_http_chunk_take(&parser->chunk, parser->input.data,
                                                 parser->input.len, &used, &body, &fault);
    if (!cv_is_ok(status) && status.id != CV_AGAIN)
        return fail(parser, status, fault);
    use_input(parser, used);
    if (cv_is_ok(status) && body.len == 0) {
        parser->state = TRAILERS;
        return cv_status(CV_AGAIN);
    }
    *event = (struct cv_http_event){.type = CV_HTTP_BODY, .body = body};
    return status;
}

static struct cv_status next_trailers(struct cv_http_parser *parser, struct cv_http_event *event)
{
    const char *fault = "";
    size_t used = 0, count = 0, cap;
    struct cv_http_lines *lines = &parser->trailer_lines;
    struct cv_status status = {CV_AGAIN};
    while (parser->input.len && status.id == CV_AGAIN) {
        status = cv_http_lines_take(lines, parser->input.data, parser->input.len, &used, &fault);
        if (!cv_is_ok(status) && status.id != CV_AGAIN)
            return fail(parser, status, fault);
        use_input(parser, used);
    }
    if (!cv_is_ok(status))
        return status;
    parser->state = END;
    cap = lines->line_count;
    if (cap == 0)
        return cv_status(CV_AGAIN);
    parser->trailers = calloc(cap, sizeof(*parser->trailers));
    if (!parser->trailers)
        return fail(parser, cv_status(CV_NO_MEMORY), "out of memory");
    status = cv_http_parse_fields(cv_buf_slice(&lines->buf), parser->trailers, cap, &count, &fault);
    if (!cv_is_ok(status))
        return fail(parser, status, fault);
    for (size_t i = 0; i < count; i++)
        if (!cv_http_is_trailer_allowed(parser->trailers[i].name))
            return fail(parser, cv_status(CV_BAD_REQUEST),
                        "a field that is not allowed in trailers (RFC 9110 6.5.1)");
    *event = (struct cv_http_event){
        .type = CV_HTTP_TRAILERS, .trailers = parser->trailers, .trailer_count = count};
    return cv_ok();
}

static struct cv_status next_end(struct cv_http_parser *parser, struct cv_http_event *event)
{
    bool is_last = !parser->head.keep_alive || parser->head.is_upgrade || parser->head.is_connect;
    parser->is_expected = false;
    parser->state = is_last ? LAST : IDLE;
    *event = (struct cv_http_event){.type = CV_HTTP_END, .head = &parser->head};
    return cv_ok();
}

/* Between messages: the next byte begins a head. */
static struct cv_status next_idle(struct cv_http_parser *parser)
{
    if (parser->role == CV_HTTP_RESPONSES && !parser->is_expected)
        return fail(parser, cv_status(CV_BAD_RESPONSE), "bytes that answer no request");
    parser->state = HEAD;
    return cv_status(CV_AGAIN);
}

/* No input is left and the peer has closed. */
static struct cv_status at_eof(struct cv_http_parser *parser)
{
    switch (parser->state) {
    case UNTIL_CLOSE:
        parser->state = END;
        return cv_status(CV_AGAIN);
    case IDLE:
        if (!parser->is_expected)
            return cv_status(CV_EOF);
        break;
    case HEAD: /* an empty line alone is no message begun */
        if (parser->role == CV_HTTP_REQUESTS && cv_buf_len(&parser->head_lines.buf) == 0)
            return cv_status(CV_EOF);
        break;
    default:
        break;
    }
    return fail(parser, cv_status(CV_TRUNCATED), "the connection closed inside a message");
}

/* One step with or without input; CV_AGAIN also when only the state has changed. */
static struct cv_status step(struct cv_http_parser *parser, struct cv_http_event *event)
{
    switch (parser->state) {
    case IDLE:
        return next_idle(parser);
    case HEAD:
        return next_head(parser, event);
    case LENGTH:
        return next_length(parser, event);
    case CHUNKED:
        return next_chunked(parser, event);
    case TRAILERS:
        return next_trailers(parser, event);
    case UNTIL_CLOSE:
        return next_until_close(parser, event);
    case END:
        return next_end(parser, event);
    case LAST:
        return cv_status(CV_EOF);
    case FAULT:
        break;
    }
    return parser->fault_status;
}

struct cv_status cv_http_parser_next(struct cv_http_parser *parser, struct cv_http_event *event)
{
    *event = (struct cv_http_event){0};
    parser->last_body = 0;
    /* The message that has ended is no longer looked at: an idle connection holds little. */
    if ((parser->state == IDLE || parser->state == LAST) && parser->fields)
        forget_message(parser);
    for (;;) {
        bool is_ready = parser->state == END || parser->state == LAST || parser->state == FAULT ||
                        (parser->state == LENGTH && parser->left == 0);
        struct cv_status status = {CV_AGAIN};
        if (parser->input.len || is_ready)
            status = step(parser, event);
        else if (parser->is_eof)
            status = at_eof(parser);
        else
            return status;
        if (status.id != CV_AGAIN) {
            parser->last_body = event->body.len;
            return status;
        }
    }
}

void cv_http_parser_unread(struct cv_http_parser *parser, size_t len)
{
    assert(len <= parser->last_body);
    parser->last_body -= len;
    parser->input.data -= len;
    parser->input.len += len;
    if (parser->state == LENGTH)
        parser->left += len;
    else if (parser->state == CHUNKED)
        parser->chunk.left += len;
}
