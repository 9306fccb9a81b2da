/* SPDX-License-Identifier: MIT
 *
 * Fuzzing of the parser and the writer together. For any bytes:
 * 1. the result does not depend on how they are cut into pieces;
 * 2. what is accepted, llhttp (strict) reads from the same bytes in the same way, bodies included;
 * 3. what is accepted, written anew as a proxy writes it and parsed again, means the same, and is
 *    accepted the second time, by llhttp too.
 * The first byte chooses: bit 0 the direction, bits 1–2 what responses answer, the rest the pieces.
 * http_mutator_fuzz.c knows the structure of the rest.
 */
#include "proto/http/http_test_view.h"
#include "proto/http/http_writer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
    OUT_MAX = 1 << 20,
    EXPECT_MAX = 64,
    MIXED = 3,
    STEP_MAX = 32,
    EVERY_CUT_MAX = 512,
};

static void must(struct cv_status status)
{
    if (!cv_is_ok(status)) {
        (void)fprintf(stderr, "the writer refuses what the parser accepted: %s\n",
                      cv_status_name(status.id));
        abort();
    }
}

static void write_target(struct cv_buf *out, const struct cv_http_head *head)
{
    struct cv_buf target;
    cv_buf_init(&target, OUT_MAX);
    must(cv_buf_append_slice(&target, head->path));
    if (head->has_query) {
        must(cv_buf_append_str(&target, "?"));
        must(cv_buf_append_slice(&target, head->query));
    }
    must(cv_http_write_request_line(out, head->method, cv_buf_slice(&target)));
    cv_buf_consume(&target, cv_buf_len(&target));
    if (head->host.len == 0)
        must(cv_buf_append_str(&target, "localhost"));
    must(cv_buf_append_slice(&target, head->host));
    if (head->port)
        must(cv_buf_printf(&target, ":%u", head->port));
    must(cv_http_write_field(out, cv_slice_str("Host"), cv_buf_slice(&target)));
    cv_buf_done(&target);
}

static void write_head(struct cv_buf *out, const struct cv_http_head *head)
{
    if (head->status)
        must(cv_http_write_status_line(out, head->status, head->reason));
    else
        write_target(out, head);
    must(cv_http_write_fields(out, head, NULL));
    must(cv_http_write_framing(out, head->has_content_length ? CV_HTTP_LENGTH : head->framing,
                               head->content_length));
    if (head->expects_continue)
        must(cv_http_write_field_str(out, "Expect", "100-continue"));
    if (head->is_upgrade) {
        must(cv_http_write_field_str(out, "Connection", "upgrade"));
        must(cv_http_write_field_str(out, "Upgrade", "websocket"));
    } else if (!head->keep_alive && head->status != 100) {
        must(cv_http_write_field_str(out, "Connection", "close"));
    }
    must(cv_http_write_head_end(out));
}

/* Parses `bytes` and writes every event. */
static void rewrite(struct cv_buf *out, enum cv_http_role role, enum cv_http_expect expect,
                    const uint8_t *bytes, size_t len)
{
    struct cv_http_event event;
    bool is_chunked = false;
    struct cv_http_parser *parser = cv_http_parser_new(
        role, role == CV_HTTP_REQUESTS ? &cv_http_request_limits : &cv_http_response_limits);
    if (!parser)
        return;
    if (role == CV_HTTP_RESPONSES)
        must(cv_http_parser_expect(parser, expect));
    must(cv_http_parser_feed(parser, bytes, len));
    cv_http_parser_eof(parser);
    const struct cv_http_field *trailers = NULL;
    size_t trailer_count = 0;
    while (cv_is_ok(cv_http_parser_next(parser, &event))) {
        switch (event.type) {
        case CV_HTTP_HEAD:
            is_chunked = event.head->framing == CV_HTTP_CHUNKED;
            trailers = NULL;
            trailer_count = 0;
            write_head(out, event.head);
            break;
        case CV_HTTP_BODY:
            must(is_chunked ? cv_http_write_chunk(out, event.body)
                            : cv_buf_append_slice(out, event.body));
            break;
        case CV_HTTP_TRAILERS: /* they live as long as their head */
            trailers = event.trailers;
            trailer_count = event.trailer_count;
            break;
        case CV_HTTP_END:
            if (is_chunked)
                must(cv_http_write_last_chunk(out, trailers, trailer_count));
            if (role == CV_HTTP_RESPONSES)
                must(cv_http_parser_expect(parser, expect));
            break;
        }
    }
    cv_http_parser_free(&parser);
}

/* What view_run writes for the messages that came out whole. */
static void cut_incomplete(struct view *view, bool is_ended)
{
    char *end = NULL;
    for (char *at = view->text; (at = strstr(at, "end;")); at += 4)
        end = at + 4;
    if (!is_ended)
        *(end ? end : view->text) = '\0';
}

static void show_and_abort(const char *rule, const struct view *one, const struct view *other)
{
    (void)fprintf(stderr, "does not hold: %s\none:   %s %s %s\nother: %s %s %s\n", rule,
                  cv_status_name(one->status.id), one->fault, one->text,
                  cv_status_name(other->status.id), other->fault, other->text);
    abort();
}

/* Static: too large for the stack of a sanitized build, and never more than one input at a time. */
static struct view whole, other;

static void check_split(enum cv_http_role role, const char *expect, const uint8_t *bytes,
                        size_t len, size_t first, size_t step)
{
    view_run(&other, role, expect, bytes, len, first, step, true, VIEW_ALL);
    if (whole.status.id != other.status.id || strcmp(whole.text, other.text) != 0)
        show_and_abort("the result does not depend on where input is split", &whole, &other);
}

/* 1. One piece, pieces of `step`, single bytes; for some inputs a cut at every byte. */
static void check_splits(enum cv_http_role role, const char *expect, const uint8_t *bytes,
                         size_t len, size_t step)
{
    view_run(&whole, role, expect, bytes, len, 0, len ? len : 1, true, VIEW_ALL);
    check_split(role, expect, bytes, len, 0, step);
    check_split(role, expect, bytes, len, 0, 1);
    for (size_t first = 1; step == STEP_MAX && len <= EVERY_CUT_MAX && first < len; first++)
        check_split(role, expect, bytes, len, first, len);
}

/* 2. What came out so far, llhttp reads from the same bytes. It may read further, since we are the
 * stricter one. It may stop before only where it is known to be wrong: at a method that is not on
 * its list, and (8.1) at a quoted pair in a chunk extension or at an extension behind one that has
 * a token for its value; or where we bear with services that pad their chunk sizes. */
static void check_llhttp(enum cv_http_role role, const char *expect, const uint8_t *bytes,
                         size_t len)
{
    view_run(&whole, role, expect, bytes, len, 0, len ? len : 1, true, VIEW_WIRE);
    view_llhttp(&other, role, expect, bytes, len, true);
    size_t ours = strlen(whole.text), theirs = strlen(other.text);
    bool is_limited = other.status.id == CV_NOT_IMPLEMENTED ||
                      (other.status.id == CV_BAD_REQUEST && len && memchr(bytes, '\\', len)) ||
                      (strstr(other.fault, "in chunk size") &&
                       (role == CV_HTTP_RESPONSES || (len && memchr(bytes, '=', len))));
    if (is_limited && theirs < ours) {
        cut_incomplete(&other, false);
        ours = strlen(other.text);
    }
    if (strncmp(whole.text, other.text, ours) != 0)
        show_and_abort("llhttp reads the same", &whole, &other);
}

/* 3. Written anew it means the same, and is accepted the second time: by us, and by llhttp. */
static void check_rewritten(enum cv_http_role role, const char *expect, enum cv_http_expect kind,
                            const uint8_t *bytes, size_t len)
{
    struct cv_buf out;
    view_run(&whole, role, expect, bytes, len, 0, len ? len : 1, true, VIEW_MEANING);
    /* CONNECT is for the caller to refuse; a view's worth of text is enough. */
    if (strstr(whole.text, "CONNECT") || strlen(whole.text) > sizeof(whole.text) - 64)
        return;
    cv_buf_init(&out, OUT_MAX);
    rewrite(&out, role, kind, bytes, len);
    struct cv_slice anew = cv_buf_slice(&out);
    view_run(&other, role, expect, anew.data, anew.len, 0, 4096, true, VIEW_MEANING);
    bool is_ended = whole.status.id == CV_EOF;
    cut_incomplete(&whole, is_ended);
    cut_incomplete(&other, is_ended);
    if (strcmp(whole.text, other.text) != 0 || (is_ended && other.status.id != CV_EOF)) {
        (void)fprintf(stderr, "%.*s\n", (int)anew.len, (const char *)anew.data);
        show_and_abort("written anew it means the same", &whole, &other);
    }
    view_run(&whole, role, expect, anew.data, anew.len, 0, anew.len + 1, true, VIEW_WIRE);
    view_llhttp(&other, role, expect, anew.data, anew.len, true);
    if (is_ended && other.status.id != CV_NOT_IMPLEMENTED &&
        (strcmp(whole.text, other.text) != 0 || other.status.id != CV_EOF)) {
        (void)fprintf(stderr, "%.*s\n", (int)anew.len, (const char *)anew.data);
        show_and_abort("llhttp takes what is written anew", &whole, &other);
    }
    cv_buf_done(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const enum cv_http_expect kinds[] = {CV_HTTP_EXPECT_PLAIN, CV_HTTP_EXPECT_HEAD,
                                                CV_HTTP_EXPECT_UPGRADE};
    char expect[EXPECT_MAX + 1];
    if (size < 1 || size > 65536)
        return 0;
    enum cv_http_role role = data[0] & 1 ? CV_HTTP_RESPONSES : CV_HTTP_REQUESTS;
    unsigned which = data[0] >> 1 & 3;
    size_t step = (data[0] >> 3) + 1u;
    for (size_t i = 0; i < EXPECT_MAX; i++)
        expect[i] = which == MIXED ? "phupphup"[i % 8] : "phu"[which];
    expect[EXPECT_MAX] = '\0';
    check_splits(role, expect, data + 1, size - 1, step);
    check_llhttp(role, expect, data + 1, size - 1);
    if (which != MIXED)
        check_rewritten(role, expect, kinds[which], data + 1, size - 1);
    return 0;
}
