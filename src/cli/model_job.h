/* SPDX-License-Identifier: MIT
 *
 * An answer of the model on its way: the text, and its pieces as one of four APIs writes them.
 * Private to model_api.c and model_job.c; the rest of the face is in model_api.h. A job owns all it
 * has; one thread.
 */
#ifndef CV_CLI_MODEL_JOB_H
#define CV_CLI_MODEL_JOB_H

#include "cli/model_api.h"

#include <jansson.h>

enum { CV_MODEL_NAME_MAX_BYTES = 200 };

enum cv_model_api {
    CV_MODEL_OLLAMA_CHAT,
    CV_MODEL_OLLAMA_GENERATE,
    CV_MODEL_OPENAI_CHAT,
    CV_MODEL_OPENAI_TEXT,
};

struct cv_model_question {
    enum cv_model_api api;
    const char *model; /* at most CV_MODEL_NAME_MAX_BYTES */
    const char *prompt;
    unsigned prompt_tokens;
    int64_t max_tokens; /* 0 or less: no limit */
    bool is_stream;
    bool shows_usage; /* OpenAI: stream_options.include_usage */
};

/* Copies what it needs; `now` is when the question came. NULL without memory. */
struct cv_model_job *cv_model_job_new(const struct cv_model_question *question,
                                      const struct cv_model_now *now);

/* Appends `prefix`, the object (whose reference is taken; NULL means no memory) and `suffix`.
 * CV_NO_MEMORY, CV_NO_RESOURCES: nothing was appended. */
struct cv_status cv_model_append_json(struct cv_buf *out, json_t *object, const char *prefix,
                                      const char *suffix);

/* RFC 3339 with nanoseconds, as Ollama writes times; returns `out`, or a static string for a time
 * that has no date. */
const char *cv_model_rfc3339(const struct cv_model_now *now, char out[40]);

/* What counts as a prompt's tokens. */
unsigned cv_model_count_words(const char *text);

#endif
