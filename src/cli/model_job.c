/* SPDX-License-Identifier: MIT
 *
 * Text, cut into tokens, and each API's pieces around them.
 */
#include "cli/model_job.h"

#include "base/digest.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    TEXT_MAX_BYTES = 768,
    TOKENS_MAX = 160,
    QUOTE_WORDS = 6,
    QUOTE_MAX_BYTES = 120,
};

struct cv_model_job {
    enum cv_model_api api;
    bool is_stream;
    bool shows_usage; /* OpenAI: stream_options.include_usage */
    bool is_cut;      /* by the client's limit on tokens */
    unsigned prompt_tokens;
    unsigned token_count;
    unsigned sent;
    struct cv_model_now begin;
    uint64_t first_token_ns;
    char id[17];
    char model[CV_MODEL_NAME_MAX_BYTES + 1];
    char text[TEXT_MAX_BYTES];
    uint16_t ends[TOKENS_MAX]; /* token i is text[ends[i - 1]] … text[ends[i]] */
};

/* Appends `prefix`, the object (whose reference is taken; NULL means no memory) and `suffix`. */
struct cv_status cv_model_append_json(struct cv_buf *out, json_t *object, const char *prefix,
                                      const char *suffix)
{
    char *text = object ? json_dumps(object, JSON_COMPACT) : NULL;
    json_decref(object);
    if (!text)
        return cv_status(CV_NO_MEMORY);
    struct cv_status status = cv_buf_printf(out, "%s%s%s", prefix, text, suffix);
    free(text);
    return status;
}

/* RFC 3339 with nanoseconds, as Ollama writes times. */
const char *cv_model_rfc3339(const struct cv_model_now *now, char out[40])
{
    time_t seconds = (time_t)now->wall_s;
    struct tm tm;
    char day[24];
    if (!gmtime_r(&seconds, &tm) || !strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &tm))
        return "1970-01-01T00:00:00Z";
    (void)snprintf(out, 40, "%s.%09" PRIu32 "Z", day, now->wall_ns);
    return out;
}

static bool is_space(char c)
{
    return (unsigned char)c <= ' ' || c == 0x7f;
}

unsigned cv_model_count_words(const char *text)
{
    unsigned count = 0;
    for (bool was_space = true; *text; text++) {
        count += was_space && !is_space(*text);
        was_space = is_space(*text);
    }
    return count;
}

/* Copies the last words, one space between them, cut at a character's border. */
static void quote(const char *text, char out[QUOTE_MAX_BYTES + 1])
{
    const char *from = text + strlen(text);
    unsigned words = 0;
    while (from > text) {
        bool begins_word = !is_space(from[-1]) && (from - 1 == text || is_space(from[-2]));
        from--;
        if (begins_word && ++words == QUOTE_WORDS)
            break;
    }
    size_t len = 0;
    for (; *from; from++) {
        bool wants_space = is_space(*from);
        if (wants_space && (len == 0 || out[len - 1] == ' '))
            continue;
        if (len == QUOTE_MAX_BYTES) {
            /* UTF-8: drop the character that did not fit (RFC 3629 §3). */
            while (len && ((unsigned char)*from & 0xc0) == 0x80)
                from--, len--;
            break;
        }
        out[len++] = wants_space ? ' ' : *from;
    }
    while (len && out[len - 1] == ' ')
        len--;
    out[len] = 0;
}

static void write_text(struct cv_model_job *job, const char *prompt, int64_t max_tokens)
{
    char words[QUOTE_MAX_BYTES + 1];
    quote(prompt, words);
    (void)snprintf(
        job->text, sizeof job->text,
        "Hello from the far side of the tunnel! Nothing listens for strangers here: this "
        "answer was made beside the agent and travelled to you word by word, through an "
        "SSH channel in a WebSocket that the agent itself dialled. You asked: \"%s\". "
        "A real model would have more to say.",
        words);
    size_t i = 0;
    while (job->text[i] && job->token_count < TOKENS_MAX) {
        if (max_tokens > 0 && job->token_count == max_tokens) {
            job->is_cut = true;
            job->text[i] = 0;
            break;
        }
        i += job->text[i] == ' ';
        i += strcspn(job->text + i, " ");
        job->ends[job->token_count++] = (uint16_t)i;
    }
}

/* ---- pieces of a job ---- */

static json_t *ollama_piece(const struct cv_model_job *job, const struct cv_model_now *now,
                            const char *text, size_t len, bool is_done)
{
    char at[40];
    json_t *content = job->api == CV_MODEL_OLLAMA_CHAT
                          ? json_pack("{s:s,s:s%}", "role", "assistant", "content", text, len)
                          : json_stringn(text, len);
    json_t *piece = json_pack(
        "{s:s,s:s,s:o,s:b}", "model", job->model, "created_at", cv_model_rfc3339(now, at),
        job->api == CV_MODEL_OLLAMA_CHAT ? "message" : "response", content, "done", is_done);
    if (!is_done || !piece)
        return piece;
    uint64_t total_ns = now->mono_ns - job->begin.mono_ns;
    uint64_t prompt_ns = job->first_token_ns - job->begin.mono_ns;
    json_t *end = json_pack(
        "{s:s,s:I,s:I,s:i,s:I,s:i,s:I}", "done_reason", job->is_cut ? "length" : "stop",
        "total_duration", (json_int_t)total_ns, "load_duration", (json_int_t)0, "prompt_eval_count",
        (int)job->prompt_tokens, "prompt_eval_duration", (json_int_t)prompt_ns, "eval_count",
        (int)job->token_count, "eval_duration", (json_int_t)(total_ns - prompt_ns));
    if (!end || json_object_update(piece, end) != 0 ||
        (job->api == CV_MODEL_OLLAMA_GENERATE &&
         json_object_set_new(piece, "context", json_pack("[i,i,i]", 1, 2, 3)) != 0)) {
        json_decref(piece);
        piece = NULL;
    }
    json_decref(end);
    return piece;
}

static json_t *usage(const struct cv_model_job *job)
{
    return json_pack("{s:i,s:i,s:i}", "prompt_tokens", (int)job->prompt_tokens, "completion_tokens",
                     (int)job->token_count, "total_tokens",
                     (int)(job->prompt_tokens + job->token_count));
}

/* An OpenAI object around its choices, whose reference is taken. */
static json_t *openai_object(const struct cv_model_job *job, const char *kind, json_t *choices)
{
    char id[40];
    (void)snprintf(id, sizeof id, "%s-%s", job->api == CV_MODEL_OPENAI_CHAT ? "chatcmpl" : "cmpl",
                   job->id);
    return json_pack("{s:s,s:s,s:I,s:s,s:s,s:o}", "id", id, "object", kind, "created",
                     (json_int_t)job->begin.wall_s, "model", job->model, "system_fingerprint",
                     "fp_culvert", "choices", choices);
}

static const char *finish_reason(const struct cv_model_job *job)
{
    return job->is_cut ? "length" : "stop";
}

/* `reason` NULL: not the last chunk with a choice. */
static json_t *openai_chunk(const struct cv_model_job *job, const char *text, size_t len,
                            const char *reason)
{
    json_t *choices;
    if (job->api == CV_MODEL_OPENAI_TEXT)
        choices = json_pack("[{s:s%,s:i,s:n,s:s?}]", "text", text, len, "index", 0, "logprobs",
                            "finish_reason", reason);
    else {
        json_t *delta = reason ? json_object()
                        : job->sent == 0
                            ? json_pack("{s:s,s:s%}", "role", "assistant", "content", text, len)
                            : json_pack("{s:s%}", "content", text, len);
        choices = json_pack("[{s:i,s:o,s:n,s:s?}]", "index", 0, "delta", delta, "logprobs",
                            "finish_reason", reason);
    }
    json_t *chunk = openai_object(
        job, job->api == CV_MODEL_OPENAI_CHAT ? "chat.completion.chunk" : "text_completion",
        choices);
    if (chunk && job->shows_usage && json_object_set_new(chunk, "usage", json_null()) != 0) {
        json_decref(chunk);
        return NULL;
    }
    return chunk;
}

static json_t *openai_whole(const struct cv_model_job *job)
{
    json_t *choices =
        job->api == CV_MODEL_OPENAI_CHAT
            ? json_pack("[{s:i,s:{s:s,s:s},s:n,s:s}]", "index", 0, "message", "role", "assistant",
                        "content", job->text, "logprobs", "finish_reason", finish_reason(job))
            : json_pack("[{s:s,s:i,s:n,s:s}]", "text", job->text, "index", 0, "logprobs",
                        "finish_reason", finish_reason(job));
    json_t *whole = openai_object(
        job, job->api == CV_MODEL_OPENAI_CHAT ? "chat.completion" : "text_completion", choices);
    if (whole && json_object_set_new(whole, "usage", usage(job)) != 0) {
        json_decref(whole);
        return NULL;
    }
    return whole;
}

/* The last chunk with a choice, the usage where it was asked for, the end mark. */
static struct cv_status openai_end(const struct cv_model_job *job, struct cv_buf *out)
{
    CV_RETURN_IF_ERROR(
        cv_model_append_json(out, openai_chunk(job, "", 0, finish_reason(job)), "data: ", "\n\n"));
    if (job->shows_usage) {
        json_t *last = openai_object(
            job, job->api == CV_MODEL_OPENAI_CHAT ? "chat.completion.chunk" : "text_completion",
            json_array());
        if (last && json_object_set_new(last, "usage", usage(job)) != 0) {
            json_decref(last);
            last = NULL;
        }
        CV_RETURN_IF_ERROR(cv_model_append_json(out, last, "data: ", "\n\n"));
    }
    return cv_buf_append_str(out, "data: [DONE]\n\n");
}

static struct cv_status append_token(const struct cv_model_job *job, const struct cv_model_now *now,
                                     struct cv_buf *out)
{
    size_t start = job->sent ? job->ends[job->sent - 1] : 0;
    const char *text = job->text + start;
    size_t len = job->ends[job->sent] - start;
    if (job->api == CV_MODEL_OLLAMA_CHAT || job->api == CV_MODEL_OLLAMA_GENERATE)
        return cv_model_append_json(out, ollama_piece(job, now, text, len, false), "", "\n");
    return cv_model_append_json(out, openai_chunk(job, text, len, NULL), "data: ", "\n\n");
}

static struct cv_status append_end(const struct cv_model_job *job, const struct cv_model_now *now,
                                   struct cv_buf *out)
{
    bool is_ollama = job->api == CV_MODEL_OLLAMA_CHAT || job->api == CV_MODEL_OLLAMA_GENERATE;
    if (!job->is_stream)
        return cv_model_append_json(out,
                                    is_ollama
                                        ? ollama_piece(job, now, job->text, strlen(job->text), true)
                                        : openai_whole(job),
                                    "", "");
    return is_ollama ? cv_model_append_json(out, ollama_piece(job, now, "", 0, true), "", "\n")
                     : openai_end(job, out);
}

struct cv_status cv_model_job_next(struct cv_model_job *job, const struct cv_model_now *now,
                                   struct cv_buf *out)
{
    if (job->sent == job->token_count) {
        CV_RETURN_IF_ERROR(append_end(job, now, out));
        return cv_status(CV_EOF);
    }
    if (job->is_stream)
        CV_RETURN_IF_ERROR(append_token(job, now, out));
    if (job->sent++ == 0)
        job->first_token_ns = now->mono_ns;
    return cv_ok();
}

/* ---- life ---- */

struct cv_model_job *cv_model_job_new(const struct cv_model_question *question,
                                      const struct cv_model_now *now)
{
    struct cv_model_job *job = calloc(1, sizeof *job);
    if (!job)
        return NULL;
    uint8_t id[8];
    cv_random(id, sizeof id);
    cv_hex_encode(cv_slice(id, sizeof id), job->id);
    (void)snprintf(job->model, sizeof job->model, "%s", question->model);
    job->api = question->api;
    job->is_stream = question->is_stream;
    job->shows_usage = question->shows_usage;
    job->prompt_tokens = question->prompt_tokens;
    job->begin = *now;
    write_text(job, question->prompt, question->max_tokens);
    return job;
}

void cv_model_job_free(struct cv_model_job **job)
{
    free(*job);
    *job = NULL;
}
