/* SPDX-License-Identifier: MIT
 *
 * Fuzzing of the parser and the writer together. For any bytes:
 * 1. the result does not depend on how they are cut into pieces;
 * 2. what is accepted, written anew as a proxy writes it and parsed again, means the same, and is
 *    accepted the second time.
 * The first byte chooses: bit 0 the direction, bits 1–2 what responses answer, the rest the pieces.
 * Seeds: tests/fuzz/corpus/http_fuzz, the rows of http_test_cases.h.
 */
#include "proto/http/http_test_view.h"
#include "proto/http/http_writer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { OUT_MAX = 1 << 20 };

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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const expects[] = {"pppppppp", "hhhhhhhh", "uuuuuuuu", "phupphup"};
    static const enum cv_http_expect kinds[] = {CV_HTTP_EXPECT_PLAIN, CV_HTTP_EXPECT_HEAD,
                                                CV_HTTP_EXPECT_UPGRADE, CV_HTTP_EXPECT_PLAIN};
    if (size < 1 || size > 65536)
        return 0;
    enum cv_http_role role = data[0] & 1 ? CV_HTTP_RESPONSES : CV_HTTP_REQUESTS;
    unsigned which = data[0] >> 1 & 3;
    size_t step = (data[0] >> 3) + 1u;
    const uint8_t *bytes = data + 1;
    size_t len = size - 1;

    static struct view whole, pieces, again;
    view_run(&whole, role, expects[which], bytes, len, 0, len ? len : 1, true, VIEW_ALL);
    view_run(&pieces, role, expects[which], bytes, len, 0, step, true, VIEW_ALL);
    if (whole.status.id != pieces.status.id || strcmp(whole.text, pieces.text) != 0) {
        (void)fprintf(stderr, "whole:  %s %s\npieces: %s %s\n", cv_status_name(whole.status.id),
                      whole.text, cv_status_name(pieces.status.id), pieces.text);
        abort();
    }
    if (which == 3)
        return 0;

    char letters[64];
    memset(letters, "phu"[which], sizeof(letters) - 1);
    letters[sizeof(letters) - 1] = '\0';
    view_run(&whole, role, letters, bytes, len, 0, len ? len : 1, true, VIEW_MEANING);
    /* CONNECT is for the caller to refuse; 64 messages and a view's worth of text are enough. */
    if (strstr(whole.text, "CONNECT") || strlen(whole.text) > sizeof(whole.text) - 64)
        return 0;
    struct cv_buf out;
    cv_buf_init(&out, OUT_MAX);
    rewrite(&out, role, kinds[which], bytes, len);
    view_run(&again, role, letters, cv_buf_slice(&out).data, cv_buf_len(&out), 0, 4096, true,
             VIEW_MEANING);
    bool is_ended = whole.status.id == CV_EOF;
    cut_incomplete(&whole, is_ended);
    cut_incomplete(&again, is_ended);
    if (strcmp(whole.text, again.text) != 0 || (is_ended && again.status.id != CV_EOF)) {
        (void)fprintf(stderr, "first:  %s\nagain:  %s %s %s\n%.*s\n", whole.text,
                      cv_status_name(again.status.id), again.text, again.fault,
                      (int)cv_buf_len(&out), (const char *)cv_buf_head(&out));
        abort();
    }
    cv_buf_done(&out);
    return 0;
}
