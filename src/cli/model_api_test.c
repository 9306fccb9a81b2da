/* SPDX-License-Identifier: MIT */
#include "cli/model_api.h"

#include "base/test.h"
#include "cli/model_server.h"

#include <jansson.h>

static const struct cv_model_now start = {.wall_s = 1700000000, .wall_ns = 5, .mono_ns = 1000};

struct answer {
    struct cv_model_reply reply;
    struct cv_buf body;
};

static void ask(struct answer *answer, const char *method, const char *path, const char *text)
{
    cv_buf_init(&answer->body, CV_MODEL_BODY_MAX);
    assert_ok(cv_model_answer(cv_slice_str(method), cv_slice_str(path), cv_slice_str(text), &start,
                              &answer->body, &answer->reply));
}

static void done(struct answer *answer)
{
    cv_model_job_free(&answer->reply.job);
    cv_buf_done(&answer->body);
}

static json_t *json_of(struct cv_slice text)
{
    json_t *value = json_loadb((const char *)text.data, text.len, 0, NULL);
    assert_non_null(value);
    return value;
}

/* Runs the job to its end, a millisecond a token, all pieces into the body. Returns their count. */
static unsigned run(struct answer *answer)
{
    struct cv_model_now now = start;
    assert_non_null(answer->reply.job);
    cv_buf_done(&answer->body);
    cv_buf_init(&answer->body, (size_t)128 * 1024);
    for (unsigned count = 1;; count++) {
        now.mono_ns += 1000000;
        struct cv_status status = cv_model_job_next(answer->reply.job, &now, &answer->body);
        if (status.id == CV_EOF)
            return count;
        assert_ok(status);
    }
}

static const char *string_at(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    assert_non_null(text);
    return text;
}

static void mistakes_are_answered_in_the_shape_of_their_api(void **state)
{
    (void)state;
    static const struct {
        const char *method, *path, *text;
        int status;
    } cases[] = {
        {"GET", "/nothing", "", 404},
        {"POST", "/api/pull", "{}", 404},
        {"GET", "/v1/nothing", "", 404},
        {"GET", "/v1/models/other", "", 404},
        {"GET", "/api/chat", "", 405},
        {"DELETE", "/v1/models", "", 405},
        {"POST", "/api/chat", "", 400},
        {"POST", "/api/chat", "[]", 400},
        {"POST", "/api/chat", "{\"model\":", 400},
        {"POST", "/api/chat", "{}", 400},
        {"POST", "/api/show", "{\"model\":7}", 400},
        {"POST", "/api/chat", "{\"model\":\"m\",\"messages\":7}", 400},
        {"POST", "/api/generate", "{\"model\":\"m\",\"prompt\":\"x\",\"stream\":\"yes\"}", 400},
        {"POST", "/v1/chat/completions", "{\"model\":\"m\"}", 400},
        {"POST", "/v1/chat/completions", "{\"model\":\"m\",\"messages\":[]}", 400},
        {"POST", "/v1/chat/completions", "nonsense", 400},
        {"POST", "/v1/completions", "{\"model\":\"m\",\"prompt\":3}", 400},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct answer answer;
        ask(&answer, cases[i].method, cases[i].path, cases[i].text);
        assert_int_equal(answer.reply.status, cases[i].status);
        assert_int_equal(answer.reply.allow != NULL, cases[i].status == 405);
        assert_null(answer.reply.job);
        json_t *object = json_of(cv_buf_slice(&answer.body));
        const json_t *error = json_object_get(object, "error");
        if (strncmp(cases[i].path, "/v1/", 4) == 0) {
            assert_true(*string_at(error, "message"));
            assert_true(*string_at(error, "type"));
            assert_true(json_is_null(json_object_get(error, "code")));
        } else {
            assert_true(json_is_string(error));
        }
        json_decref(object);
        done(&answer);
    }
}

static void deep_json_is_refused(void **state)
{
    (void)state;
    static char text[200001];
    memset(text, '[', sizeof text - 1);
    struct answer answer;
    ask(&answer, "POST", "/api/chat", text);
    assert_int_equal(answer.reply.status, 400);
    done(&answer);
}

static void lists_name_the_model(void **state)
{
    (void)state;
    static const struct {
        const char *path, *list, *key;
    } cases[] = {{"/api/tags", "models", "name"},
                 {"/api/ps", "models", "model"},
                 {"/v1/models", "data", "id"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct answer answer;
        ask(&answer, "GET", cases[i].path, "");
        assert_int_equal(answer.reply.status, 200);
        json_t *object = json_of(cv_buf_slice(&answer.body));
        const json_t *first = json_array_get(json_object_get(object, cases[i].list), 0);
        assert_string_equal(string_at(first, cases[i].key), CV_MODEL_NAME);
        json_decref(object);
        done(&answer);
    }
}

static void ollama_streams_lines_that_end_with_counts(void **state)
{
    (void)state;
    struct answer answer;
    ask(&answer, "POST", "/api/chat",
        "{\"model\":\"m\",\"messages\":[{\"role\":\"system\",\"content\":\"be kind\"},"
        "{\"role\":\"user\",\"content\":\"one two three four\\nfive  six seven\"}]}");
    assert_true(answer.reply.is_stream);
    assert_string_equal(answer.reply.content_type, "application/x-ndjson");
    unsigned pieces = run(&answer), lines = 0;
    char whole[1024] = "";
    struct cv_slice rest = cv_buf_slice(&answer.body);
    while (rest.len) {
        struct cv_slice line = cv_slice_split(&rest, '\n');
        json_t *object = json_of(line);
        lines++;
        assert_string_equal(string_at(object, "model"), "m");
        assert_string_equal(string_at(object, "created_at"), "2023-11-14T22:13:20.000000005Z");
        const json_t *message = json_object_get(object, "message");
        assert_string_equal(string_at(message, "role"), "assistant");
        size_t len = strlen(whole);
        (void)snprintf(whole + len, sizeof whole - len, "%s", string_at(message, "content"));
        assert_int_equal(json_is_true(json_object_get(object, "done")), lines == pieces);
        if (lines == pieces) {
            assert_string_equal(string_at(object, "done_reason"), "stop");
            assert_int_equal(json_integer_value(json_object_get(object, "eval_count")), pieces - 1);
            assert_int_equal(json_integer_value(json_object_get(object, "prompt_eval_count")), 9);
            assert_int_equal(json_integer_value(json_object_get(object, "total_duration")),
                             pieces * 1000000);
        }
        json_decref(object);
    }
    assert_int_equal(lines, pieces);
    assert_non_null(strstr(whole, "\"two three four five six seven\""));
    done(&answer);
}

static void without_streaming_one_object_comes_at_the_end(void **state)
{
    (void)state;
    struct answer answer;
    ask(&answer, "POST", "/api/generate",
        "{\"model\":\"m\",\"prompt\":\"why\",\"stream\":false,\"options\":{\"num_predict\":3}}");
    assert_false(answer.reply.is_stream);
    assert_int_equal(run(&answer), 4);
    json_t *object = json_of(cv_buf_slice(&answer.body));
    assert_string_equal(string_at(object, "response"), "Hello from the");
    assert_string_equal(string_at(object, "done_reason"), "length");
    assert_int_equal(json_array_size(json_object_get(object, "context")), 3);
    json_decref(object);
    done(&answer);
}

static void ollama_without_a_prompt_loads(void **state)
{
    (void)state;
    struct answer answer;
    ask(&answer, "POST", "/api/generate", "{\"model\":\"m\"}");
    assert_null(answer.reply.job);
    json_t *object = json_of(cv_buf_slice(&answer.body));
    assert_string_equal(string_at(object, "done_reason"), "load");
    json_decref(object);
    done(&answer);
}

static void openai_streams_events_and_the_usage_when_asked(void **state)
{
    (void)state;
    struct answer answer;
    ask(&answer, "POST", "/v1/chat/completions",
        "{\"model\":\"m\",\"stream\":true,\"stream_options\":{\"include_usage\":true},"
        "\"max_tokens\":2,\"messages\":[{\"role\":\"user\",\"content\":"
        "[{\"type\":\"text\",\"text\":\"hi there\"}]}]}");
    assert_string_equal(answer.reply.content_type, "text/event-stream");
    assert_int_equal(run(&answer), 3);
    struct cv_slice rest = cv_buf_slice(&answer.body);
    static const char *const wants[] = {"{\"role\":\"assistant\",\"content\":\"Hello\"}",
                                        "{\"content\":\" from\"}", "{}", NULL};
    for (size_t i = 0; i < 4; i++) {
        struct cv_slice line = cv_slice_split(&rest, '\n');
        assert_int_equal(cv_slice_split(&rest, '\n').len, 0);
        assert_true(cv_slice_starts_with(line, "data: "));
        json_t *object = json_of(cv_slice(line.data + 6, line.len - 6));
        assert_string_equal(string_at(object, "object"), "chat.completion.chunk");
        assert_true(strncmp(string_at(object, "id"), "chatcmpl-", 9) == 0);
        const json_t *choices = json_object_get(object, "choices");
        const json_t *usage = json_object_get(object, "usage");
        assert_int_equal(json_array_size(choices), wants[i] ? 1 : 0);
        if (wants[i]) {
            char *delta =
                json_dumps(json_object_get(json_array_get(choices, 0), "delta"), JSON_COMPACT);
            assert_string_equal(delta, wants[i]);
            free(delta);
            assert_true(json_is_null(usage));
        } else {
            assert_int_equal(json_integer_value(json_object_get(usage, "total_tokens")), 4);
        }
        if (i == 2)
            assert_string_equal(string_at(json_array_get(choices, 0), "finish_reason"), "length");
        json_decref(object);
    }
    assert_true(cv_slice_is(rest, "data: [DONE]\n\n"));
    done(&answer);
}

static void openai_answers_whole(void **state)
{
    (void)state;
    struct answer answer;
    ask(&answer, "POST", "/v1/chat/completions",
        "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}");
    (void)run(&answer);
    json_t *object = json_of(cv_buf_slice(&answer.body));
    assert_string_equal(string_at(object, "object"), "chat.completion");
    const json_t *choice = json_array_get(json_object_get(object, "choices"), 0);
    assert_non_null(strstr(string_at(json_object_get(choice, "message"), "content"), "\"hi\""));
    assert_string_equal(string_at(choice, "finish_reason"), "stop");
    assert_non_null(json_object_get(json_object_get(object, "usage"), "prompt_tokens"));
    json_decref(object);
    done(&answer);
}

/* Words are cut where a character begins, else the answer would be no valid JSON. */
static void long_words_are_cut_between_characters(void **state)
{
    (void)state;
    for (unsigned shift = 0; shift < 4; shift++) {
        char text[1024];
        size_t len = (size_t)snprintf(text, sizeof text, "{\"model\":\"m\",\"prompt\":\"%.*s",
                                      (int)shift, "abc");
        for (unsigned i = 0; i < 100; i++)
            len += (size_t)snprintf(text + len, sizeof text - len, "\xf0\x9f\xa6\x99");
        (void)snprintf(text + len, sizeof text - len, "\",\"stream\":false}");
        struct answer answer;
        ask(&answer, "POST", "/api/generate", text);
        (void)run(&answer);
        json_decref(json_of(cv_buf_slice(&answer.body)));
        done(&answer);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mistakes_are_answered_in_the_shape_of_their_api),
        cmocka_unit_test(deep_json_is_refused),
        cmocka_unit_test(lists_name_the_model),
        cmocka_unit_test(ollama_streams_lines_that_end_with_counts),
        cmocka_unit_test(without_streaming_one_object_comes_at_the_end),
        cmocka_unit_test(ollama_without_a_prompt_loads),
        cmocka_unit_test(openai_streams_events_and_the_usage_when_asked),
        cmocka_unit_test(openai_answers_whole),
        cmocka_unit_test(long_words_are_cut_between_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
