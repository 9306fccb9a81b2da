/* SPDX-License-Identifier: MIT
 *
 * Numbers of a model's answer, read from its bytes as they pass: when the first token came, how
 * many tokens there were and how fast. Knows the streams of
 *   - OpenAI's chat and text completions (Server-Sent Events with `choices`, `usage` where the
 *     client asked for it, `[DONE]`): platform.openai.com/docs/api-reference/chat-streaming,
 *   - Ollama (NDJSON with `done`, `prompt_eval_count`, `eval_count`, `eval_duration`):
 *     github.com/ollama/ollama/blob/main/docs/api.md.
 * Which of them a stream is, if any, its content type and its first events tell; of another stream
 * no more than MODEL_STREAM_TRIES events are looked at.
 *
 * Pure: bytes and the time in, numbers out. Holds no bytes of the answer but the name of the
 * current member; the state has a fixed size whatever comes. It never fails: what is no JSON, or
 * deeper than CV_MODEL_DEPTH_MAX, is passed over up to the end of its line. Texts are never kept,
 * compared or logged. One thread.
 */
#ifndef CV_TELEMETRY_MODEL_STREAM_H
#define CV_TELEMETRY_MODEL_STREAM_H

#include "base/slice.h"

#include <stdbool.h>
#include <stdint.h>

enum { CV_MODEL_DEPTH_MAX = 32, CV_MODEL_NAME_MAX = 17 };

#define CV_MODEL_TOKENS_MAX 1000000000ull /* a larger count is none */

enum cv_model_framing { CV_MODEL_NO_STREAM, CV_MODEL_SSE, CV_MODEL_NDJSON };

/* As the label `api` of the metrics counts them, when it is known. */
enum cv_model_api { CV_MODEL_OPENAI, CV_MODEL_OLLAMA, CV_MODEL_UNKNOWN };

/* Members are private but for `is_on`. */
struct cv_model_stream {
    bool is_on; /* it still wants to see bytes */
    bool is_done;
    uint8_t framing;
    uint8_t api;
    uint8_t state;
    uint8_t tries; /* events that were not recognised */
    uint8_t depth;
    uint8_t member;   /* whose value comes next */
    uint8_t name_len; /* of `name`; over its size: too long to be one of ours */
    bool is_string_empty, is_escaped, is_in_usage, is_negative;
    bool has_prompt, has_completion;
    char name[CV_MODEL_NAME_MAX];
    uint64_t number;
    uint64_t first_ns, last_ns; /* events with text; 0: none */
    uint64_t prompt_tokens, completion_tokens, generation_ns;
};

/* What is known of a stream so far. Counts are 0 where it did not say. */
struct cv_model_numbers {
    enum cv_model_api api;
    bool is_done;      /* it said that it was over */
    uint64_t first_ns; /* when the first event with text came, on the caller's clock; 0: none did */
    bool has_prompt, has_completion;
    uint64_t prompt_tokens, completion_tokens;
    double tokens_per_second; /* 0: it cannot be told */
};

/* A new answer. CV_MODEL_NO_STREAM: there is nothing to look at. */
void cv_model_stream_init(struct cv_model_stream *stream, enum cv_model_framing framing);

/* The next bytes of the body, without transfer coding, not compressed; `now_ns` must not be 0. */
void cv_model_stream_feed(struct cv_model_stream *stream, struct cv_slice data, uint64_t now_ns);

struct cv_model_numbers cv_model_stream_numbers(const struct cv_model_stream *stream);

#endif
