/* SPDX-License-Identifier: MIT */
#include "base/test.h"
#include "telemetry/model_stream.h"

#include <stdlib.h>
#include <string.h>

#define SECOND 1000000000ull

static const char openai[] =
    ": a comment\r\n"
    "data: {\"id\":\"x\",\"object\":\"chat.completion.chunk\",\"choices\":[{\"index\":0,"
    "\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}],\"usage\":null}\r\n\r\n"
    "data: {\"choices\":[{\"delta\":{\"content\":\"say "
    "\\\"usage\\\":{\\\"prompt_tokens\\\":9}\"}}],"
    "\"usage\":null}\n\n"
    "event: ping\n"
    "data:{\"choices\":[{\"delta\":{\"content\":\"\\n\"}}]}\n\n"
    "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":17,\"completion_tokens\":42,"
    "\"total_tokens\":59,\"prompt_tokens_details\":{\"prompt_tokens\":5}}}\n\n"
    "data: [DONE]\n\n";

static const char ollama[] =
    "{\"model\":\"m\",\"created_at\":\"2026\",\"message\":{\"role\":\"assistant\",\"content\":\"\"}"
    ","
    "\"done\":false}\n"
    "{\"model\":\"m\",\"message\":{\"content\":\"a\",\"tool_calls\":[{\"function\":{\"arguments\":"
    "{\"eval_count\":7,\"done\":true}}}]},\"done\":false}\n"
    "{\"model\":\"m\",\"response\":\"b\",\"done\":false}\n"
    "{\"model\":\"m\",\"done\":true,\"total_duration\":5,\"prompt_eval_count\":26,"
    "\"eval_count\":290,\"eval_duration\":2900000000}\n";

/* Each byte comes a millisecond after the one before it; pieces are cut at `first`, and at each
 * `step` bytes behind it. */
static struct cv_model_numbers read_in(const char *text, enum cv_model_framing framing,
                                       size_t first, size_t step)
{
    struct cv_model_stream stream;
    size_t len = strlen(text);
    cv_model_stream_init(&stream, framing);
    for (size_t at = 0, piece = first; at < len; at += piece, piece = step) {
        if (piece > len - at)
            piece = len - at;
        if (!piece)
            piece = 1;
        uint8_t *exact = malloc(piece);
        assert_non_null(exact);
        memcpy(exact, text + at, piece);
        cv_model_stream_feed(&stream, cv_slice(exact, piece), (at + piece) * 1000000);
        free(exact);
    }
    return cv_model_stream_numbers(&stream);
}

static void check_openai(struct cv_model_numbers n)
{
    assert_int_equal(n.api, CV_MODEL_OPENAI);
    assert_true(n.is_done && n.has_prompt && n.has_completion && n.first_ns > 0);
    assert_int_equal(n.prompt_tokens, 17);
    assert_int_equal(n.completion_tokens, 42);
}

static void check_ollama(struct cv_model_numbers n)
{
    assert_int_equal(n.api, CV_MODEL_OLLAMA);
    assert_true(n.is_done && n.has_prompt && n.has_completion && n.first_ns > 0);
    assert_int_equal(n.prompt_tokens, 26);
    assert_int_equal(n.completion_tokens, 290);
    assert_true(n.tokens_per_second > 99.9 && n.tokens_per_second < 100.1);
}

static void streams_are_known_however_they_are_cut(void **state)
{
    (void)state;
    for (size_t cut = 1; cut < sizeof openai; cut++)
        check_openai(read_in(openai, CV_MODEL_SSE, cut, sizeof openai));
    for (size_t cut = 1; cut < sizeof ollama; cut++)
        check_ollama(read_in(ollama, CV_MODEL_NDJSON, cut, sizeof ollama));
    for (size_t step = 1; step < 20; step++) {
        check_openai(read_in(openai, CV_MODEL_SSE, step, step));
        check_ollama(read_in(ollama, CV_MODEL_NDJSON, step, step));
    }
}

static void the_first_token_is_the_first_text_not_the_first_event(void **state)
{
    (void)state;
    /* A byte a millisecond: the time tells which byte ended the text. */
    size_t end = (size_t)(strstr(openai, "9}\"}") - openai) + 3;
    assert_int_equal(read_in(openai, CV_MODEL_SSE, 1, 1).first_ns, end * 1000000);
    end = (size_t)(strstr(ollama, "\"a\"") - ollama) + 3;
    assert_int_equal(read_in(ollama, CV_MODEL_NDJSON, 1, 1).first_ns, end * 1000000);
}

static void speed_is_told_by_the_clock_where_the_service_does_not(void **state)
{
    static const char first[] = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}]}\n\n";
    static const char last[] = "data: {\"choices\":[{\"text\":\"b\"}],\"usage\":{"
                               "\"prompt_tokens\":3,\"completion_tokens\":21}}\n\n";
    struct cv_model_stream stream;
    (void)state;
    cv_model_stream_init(&stream, CV_MODEL_SSE);
    cv_model_stream_feed(&stream, cv_slice_str(first), 1 * SECOND);
    assert_true(cv_model_stream_numbers(&stream).tokens_per_second == 0);
    cv_model_stream_feed(&stream, cv_slice_str(last), 3 * SECOND);
    assert_true(cv_model_stream_numbers(&stream).tokens_per_second == 10);
    assert_false(cv_model_stream_numbers(&stream).is_done);
}

static void other_streams_are_left_alone_soon(void **state)
{
    static const char *const others[] = {
        "data: {\"price\":1}\n\n",
        "data: hello\n\n",
        "data: [1,2]\n\n",
        "data: {\"usage\":{}}\n\n",
    };
    (void)state;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        struct cv_model_stream stream;
        cv_model_stream_init(&stream, CV_MODEL_SSE);
        for (unsigned k = 0; k < 4; k++) {
            assert_true(stream.is_on);
            cv_model_stream_feed(&stream, cv_slice_str(others[i]), 1);
        }
        assert_false(stream.is_on);
        assert_int_equal(cv_model_stream_numbers(&stream).api, CV_MODEL_UNKNOWN);
    }
    struct cv_model_stream stream;
    cv_model_stream_init(&stream, CV_MODEL_NO_STREAM);
    assert_false(stream.is_on);
}

static void nonsense_is_passed_over(void **state)
{
    static const char *const lines[] = {
        "{\"done\":true,\"eval_count\":-5,\"prompt_eval_count\":99999999999999999999999}\n",
        "{\"done\":false,\"eval_count\":\"12\",\"prompt_eval_count\":null}\n",
        "]]]}}}:::,,,\"\\\n",
        "{\"eval_count\":{\"eval_count\":3}}\n",
        "{\"e\\u0076al_count\":3}\n",
        "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[{\"eval_count\":3}\n",
        "{\"prompt_eval_count_\":3,\"xeval_count\":4,\"x\":{\"eval_count\":5}}\n",
        "\n\r\n\0\n",
    };
    struct cv_model_stream stream;
    (void)state;
    cv_model_stream_init(&stream, CV_MODEL_NDJSON);
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        cv_model_stream_feed(&stream, cv_slice_str(lines[i]), 1);
    struct cv_model_numbers n = cv_model_stream_numbers(&stream);
    assert_int_equal(n.api, CV_MODEL_OLLAMA);
    assert_false(n.has_prompt || n.has_completion);
    cv_model_stream_feed(&stream, cv_slice_str("{\"done\":true,\"eval_count\":3}\n"), 1);
    assert_int_equal(cv_model_stream_numbers(&stream).completion_tokens, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streams_are_known_however_they_are_cut),
        cmocka_unit_test(the_first_token_is_the_first_text_not_the_first_event),
        cmocka_unit_test(speed_is_told_by_the_clock_where_the_service_does_not),
        cmocka_unit_test(other_streams_are_left_alone_soon),
        cmocka_unit_test(nonsense_is_passed_over),
    };
    return cmocka_run_group_tests_name("model_stream", tests, NULL, NULL);
}
