/* SPDX-License-Identifier: MIT
 *
 * Any bytes as a model's stream: what comes out does not depend on how they are cut, and says
 * nothing that cannot be.
 */
#include "base/fuzz.h"
#include "telemetry/model_stream.h"

static void feed(struct cv_model_stream *stream, const uint8_t *data, size_t len)
{
    uint8_t *copy = cv_fuzz_copy(data, len);
    cv_model_stream_feed(stream, cv_slice(copy, len), 1);
    free(copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    enum cv_model_framing framing = data[0] & 1 ? CV_MODEL_NDJSON : CV_MODEL_SSE;
    size_t step = data[1] % 32 + 1u;
    struct cv_model_stream whole, cut;
    data += 2;
    size -= 2;
    cv_model_stream_init(&whole, framing);
    cv_model_stream_init(&cut, framing);
    feed(&whole, data, size);
    for (size_t at = 0; at < size; at += step)
        feed(&cut, data + at, size - at < step ? size - at : step);
    /* Of a name that is too long a part may have been kept. */
    memset(whole.name, 0, sizeof whole.name);
    memset(cut.name, 0, sizeof cut.name);
    cv_fuzz_must(memcmp(&whole, &cut, sizeof whole) == 0);
    struct cv_model_numbers n = cv_model_stream_numbers(&whole);
    cv_fuzz_must(n.prompt_tokens <= CV_MODEL_TOKENS_MAX &&
                 n.completion_tokens <= CV_MODEL_TOKENS_MAX);
    cv_fuzz_must(n.tokens_per_second >= 0 && whole.depth <= CV_MODEL_DEPTH_MAX);
    cv_fuzz_must(framing == CV_MODEL_SSE ? n.api != CV_MODEL_OLLAMA : n.api != CV_MODEL_OPENAI);
    return 0;
}
