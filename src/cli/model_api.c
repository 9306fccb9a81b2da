/* SPDX-License-Identifier: MIT
 *
 * Field names and their order are Ollama's (docs/api.md of that project) and OpenAI's (its API
 * reference), so that the client libraries of both read them.
 */
#include "cli/model_api.h"

#include "base/digest.h"
#include "cli/model_server.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

enum {
    NAME_MAX_BYTES = 200,
    TEXT_MAX_BYTES = 768,
    TOKENS_MAX = 160,
    QUOTE_WORDS = 6,
    QUOTE_MAX_BYTES = 120,
};

#define JSON_TYPE "application/json; charset=utf-8"
#define MODEL_SIZE 4194304
#define MODEL_DIGEST "c0171e57c0171e57c0171e57c0171e57c0171e57c0171e57c0171e57c0171e57"
#define MODEL_MADE_S 1735689600 /* 2025-01-01T00:00:00Z */
#define MODEL_MADE "2025-01-01T00:00:00Z"

enum api { OLLAMA_CHAT, OLLAMA_GENERATE, OPENAI_CHAT, OPENAI_TEXT };

struct cv_model_job {
    enum api api;
    bool is_stream;
    bool shows_usage; /* OpenAI: stream_options.include_usage */
    bool is_cut;      /* by the client's limit on tokens */
    unsigned prompt_tokens;
    unsigned token_count;
    unsigned sent;
    struct cv_model_now begin;
    uint64_t first_token_ns;
    char id[17];
    char model[NAME_MAX_BYTES + 1];
    char text[TEXT_MAX_BYTES];
    uint16_t ends[TOKENS_MAX]; /* token i is text[ends[i - 1]] … text[ends[i]] */
};

/* ---- small pieces of JSON ---- */

/* Appends `prefix`, the object (whose reference is taken; NULL means no memory) and `suffix`. */
static struct cv_status append_json(struct cv_buf *out, json_t *object, const char *prefix,
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
static const char *rfc3339(const struct cv_model_now *now, char out[40])
{
    time_t seconds = (time_t)now->wall_s;
    struct tm tm;
    char day[24];
    if (!gmtime_r(&seconds, &tm) || !strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &tm))
        return MODEL_MADE;
    (void)snprintf(out, 40, "%s.%09" PRIu32 "Z", day, now->wall_ns);
    return out;
}

static bool is_openai(struct cv_slice path)
{
    return cv_slice_starts_with(path, "/v1/") || cv_slice_is(path, "/v1");
}

struct cv_status cv_model_error(struct cv_slice path, int status, const char *message,
                                struct cv_buf *body, const char **content_type)
{
    *content_type = JSON_TYPE;
    if (!is_openai(path))
        return append_json(body, json_pack("{s:s}", "error", message), "", "");
    const char *type = status == 404   ? "not_found_error"
                       : status >= 500 ? "server_error"
                                       : "invalid_request_error";
    return append_json(body,
                       json_pack("{s:{s:s,s:s,s:n,s:n}}", "error", "message", message, "type", type,
                                 "param", "code"),
                       "", "");
}

/* ---- what a client asks for ---- */

/* One request on its way to an answer. */
struct call {
    struct cv_slice path;
    struct cv_slice text;
    const struct cv_model_now *now;
    struct cv_buf *body;
    struct cv_model_reply *reply;
};

static struct cv_status refuse(struct call *call, int status, const char *message)
{
    call->reply->status = status;
    return cv_model_error(call->path, status, message, call->body, &call->reply->content_type);
}

/* Reads the body as one JSON object; on a mistake *object is NULL and the refusal is written. */
static struct cv_status read_object(struct call *call, json_t **object)
{
    json_error_t why;
    *object = json_loadb((const char *)call->text.data, call->text.len, 0, &why);
    if (json_is_object(*object))
        return cv_ok();
    char message[256];
    if (*object)
        (void)snprintf(message, sizeof message, "the body must be a JSON object");
    else
        (void)snprintf(message, sizeof message, "the body is not valid JSON: line %d: %.160s",
                       why.line, why.text);
    json_decref(*object);
    *object = NULL;
    return refuse(call, 400, message);
}

/* The model's name: a required string. NULL when it is none; the refusal is the caller's. */
static const char *model_of(const json_t *object)
{
    const char *name = json_string_value(json_object_get(object, "model"));
    if (!name) /* Ollama's older clients of /api/show */
        name = json_string_value(json_object_get(object, "name"));
    return name && *name && strlen(name) <= NAME_MAX_BYTES ? name : NULL;
}

/* Text of a message: a string, or OpenAI's list of parts, of which the last text counts. */
static const char *text_of(const json_t *content)
{
    if (!json_is_array(content))
        return json_string_value(content);
    const char *text = "";
    size_t i;
    json_t *part;
    json_array_foreach(content, i, part)
    {
        const char *more = json_string_value(json_object_get(part, "text"));
        text = more ? more : text;
    }
    return text;
}

static bool is_space(char c)
{
    return (unsigned char)c <= ' ' || c == 0x7f;
}

static unsigned count_words(const char *text)
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

/* Where each API keeps its limit on tokens; 0 or less: none. */
static int64_t max_tokens_of(enum api api, const json_t *object)
{
    if (api == OLLAMA_CHAT || api == OLLAMA_GENERATE)
        return json_integer_value(
            json_object_get(json_object_get(object, "options"), "num_predict"));
    const json_t *limit = json_object_get(object, "max_completion_tokens");
    return json_integer_value(json_is_integer(limit) ? limit
                                                     : json_object_get(object, "max_tokens"));
}

/* ---- whole answers ---- */

static json_t *details(void)
{
    return json_pack("{s:s,s:s,s:s,s:[s],s:s,s:s}", "parent_model", "", "format", "gguf", "family",
                     "culvert", "families", "culvert", "parameter_size", "1K", "quantization_level",
                     "F16");
}

static struct cv_status answer_root(struct call *call)
{
    call->reply->content_type = "text/plain; charset=utf-8";
    /* What Ollama says, since people and programs look for exactly this. */
    return cv_buf_append_str(call->body, "Ollama is running");
}

static struct cv_status answer_version(struct call *call)
{
    return append_json(call->body, json_pack("{s:s}", "version", CV_VERSION), "", "");
}

static struct cv_status answer_tags(struct call *call)
{
    return append_json(call->body,
                       json_pack("{s:[{s:s,s:s,s:s,s:i,s:s,s:o}]}", "models", "name", CV_MODEL_NAME,
                                 "model", CV_MODEL_NAME, "modified_at", MODEL_MADE, "size",
                                 MODEL_SIZE, "digest", MODEL_DIGEST, "details", details()),
                       "", "");
}

static struct cv_status answer_ps(struct call *call)
{
    char expires[40];
    struct cv_model_now later = *call->now;
    later.wall_s += 300;
    return append_json(call->body,
                       json_pack("{s:[{s:s,s:s,s:i,s:s,s:o,s:s,s:i}]}", "models", "name",
                                 CV_MODEL_NAME, "model", CV_MODEL_NAME, "size", MODEL_SIZE,
                                 "digest", MODEL_DIGEST, "details", details(), "expires_at",
                                 rfc3339(&later, expires), "size_vram", 0),
                       "", "");
}

static struct cv_status answer_show(struct call *call)
{
    json_t *object;
    struct cv_status status = read_object(call, &object);
    if (!object)
        return status;
    const char *model = model_of(object);
    if (!model)
        status = refuse(call, 400, "model is required");
    else
        status = append_json(
            call->body,
            json_pack("{s:s,s:s,s:s,s:s,s:o,s:{s:s,s:i,s:i},s:[s],s:s}", "license", "MIT",
                      "modelfile", "FROM " CV_MODEL_NAME, "parameters", "", "template",
                      "{{ .Prompt }}", "details", details(), "model_info", "general.architecture",
                      "culvert", "general.parameter_count", 1000, "culvert.context_length", 4096,
                      "capabilities", "completion", "modified_at", MODEL_MADE),
            "", "");
    json_decref(object);
    return status;
}

static json_t *model_entry(const char *id)
{
    return json_pack("{s:s,s:s,s:i,s:s}", "id", id, "object", "model", "created", MODEL_MADE_S,
                     "owned_by", "culvert");
}

static struct cv_status answer_models(struct call *call)
{
    return append_json(
        call->body, json_pack("{s:s,s:[o]}", "object", "list", "data", model_entry(CV_MODEL_NAME)),
        "", "");
}

static struct cv_status answer_model(struct call *call)
{
    if (cv_slice_is(call->path, "/v1/models/" CV_MODEL_NAME))
        return append_json(call->body, model_entry(CV_MODEL_NAME), "", "");
    return refuse(call, 404, "there is no such model");
}

/* ---- generated answers ---- */

/* Ollama loads the model when asked without a prompt. */
static struct cv_status answer_load(struct call *call, enum api api, const char *model,
                                    bool is_stream)
{
    char at[40];
    json_t *object = json_pack("{s:s,s:s}", "model", model, "created_at", rfc3339(call->now, at));
    json_t *content = api == OLLAMA_CHAT
                          ? json_pack("{s:s,s:s}", "role", "assistant", "content", "")
                          : json_string("");
    bool failed =
        !object ||
        json_object_set_new(object, api == OLLAMA_CHAT ? "message" : "response", content) != 0 ||
        json_object_set_new(object, "done_reason", json_string("load")) != 0 ||
        json_object_set_new(object, "done", json_true()) != 0;
    if (!object)
        json_decref(content);
    if (failed) {
        json_decref(object);
        return cv_status(CV_NO_MEMORY);
    }
    if (is_stream)
        call->reply->content_type = "application/x-ndjson";
    return append_json(call->body, object, "", is_stream ? "\n" : "");
}

/* The prompt, and how many words there are in all; NULL when the request has none. */
static const char *prompt_of(enum api api, const json_t *object, unsigned *words)
{
    if (api == OLLAMA_GENERATE || api == OPENAI_TEXT) {
        const json_t *prompt = json_object_get(object, "prompt");
        if (json_is_array(prompt))
            prompt = json_array_get(prompt, 0);
        const char *text = json_string_value(prompt);
        *words = text ? count_words(text) : 0;
        return text && *text ? text : NULL;
    }
    const char *last = NULL;
    size_t i;
    json_t *message;
    json_array_foreach(json_object_get(object, "messages"), i, message)
    {
        const char *text = text_of(json_object_get(message, "content"));
        *words += text ? count_words(text) : 0;
        last = text ? text : last;
    }
    return last;
}

static struct cv_status start_job(struct call *call, enum api api, const json_t *object,
                                  const char *model, bool is_stream)
{
    unsigned words = 0;
    const char *prompt = prompt_of(api, object, &words);
    bool is_ollama = api == OLLAMA_CHAT || api == OLLAMA_GENERATE;
    if (!prompt && is_ollama)
        return answer_load(call, api, model, is_stream);
    if (!prompt)
        return refuse(call, 400,
                      api == OPENAI_CHAT ? "messages is required, with text in it"
                                         : "prompt is required, a string");
    struct cv_model_job *job = calloc(1, sizeof *job);
    if (!job)
        return cv_status(CV_NO_MEMORY);
    uint8_t id[8];
    cv_random(id, sizeof id);
    cv_hex_encode(cv_slice(id, sizeof id), job->id);
    (void)snprintf(job->model, sizeof job->model, "%s", model);
    job->api = api;
    job->is_stream = is_stream;
    job->shows_usage =
        json_is_true(json_object_get(json_object_get(object, "stream_options"), "include_usage"));
    job->prompt_tokens = words;
    job->begin = *call->now;
    write_text(job, prompt, max_tokens_of(api, object));
    call->reply->job = job;
    call->reply->is_stream = is_stream;
    if (is_stream)
        call->reply->content_type = is_ollama ? "application/x-ndjson" : "text/event-stream";
    return cv_ok();
}

static struct cv_status generate(struct call *call, enum api api)
{
    json_t *object;
    struct cv_status status = read_object(call, &object);
    if (!object)
        return status;
    const char *model = model_of(object);
    const json_t *stream = json_object_get(object, "stream");
    const json_t *messages = json_object_get(object, "messages");
    /* Ollama streams unless told not to, OpenAI the other way round. */
    bool is_ollama = api == OLLAMA_CHAT || api == OLLAMA_GENERATE;
    bool is_stream = json_is_boolean(stream) ? json_is_true(stream) : is_ollama;
    if (!model)
        status = refuse(call, 400, "model is required");
    else if (stream && !json_is_boolean(stream) && !json_is_null(stream))
        status = refuse(call, 400, "stream must be true or false");
    else if (messages && !json_is_array(messages))
        status = refuse(call, 400, "messages must be a list");
    else
        status = start_job(call, api, object, model, is_stream);
    json_decref(object);
    return status;
}

static struct cv_status answer_chat(struct call *call)
{
    return generate(call, OLLAMA_CHAT);
}

static struct cv_status answer_generate(struct call *call)
{
    return generate(call, OLLAMA_GENERATE);
}

static struct cv_status answer_chat_completions(struct call *call)
{
    return generate(call, OPENAI_CHAT);
}

static struct cv_status answer_completions(struct call *call)
{
    return generate(call, OPENAI_TEXT);
}

/* ---- pieces of a job ---- */

static json_t *ollama_piece(const struct cv_model_job *job, const struct cv_model_now *now,
                            const char *text, size_t len, bool is_done)
{
    char at[40];
    json_t *content = job->api == OLLAMA_CHAT
                          ? json_pack("{s:s,s:s%}", "role", "assistant", "content", text, len)
                          : json_stringn(text, len);
    json_t *piece =
        json_pack("{s:s,s:s,s:o,s:b}", "model", job->model, "created_at", rfc3339(now, at),
                  job->api == OLLAMA_CHAT ? "message" : "response", content, "done", is_done);
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
        (job->api == OLLAMA_GENERATE &&
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
    (void)snprintf(id, sizeof id, "%s-%s", job->api == OPENAI_CHAT ? "chatcmpl" : "cmpl", job->id);
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
    if (job->api == OPENAI_TEXT)
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
        job, job->api == OPENAI_CHAT ? "chat.completion.chunk" : "text_completion", choices);
    if (chunk && job->shows_usage && json_object_set_new(chunk, "usage", json_null()) != 0) {
        json_decref(chunk);
        return NULL;
    }
    return chunk;
}

static json_t *openai_whole(const struct cv_model_job *job)
{
    json_t *choices =
        job->api == OPENAI_CHAT
            ? json_pack("[{s:i,s:{s:s,s:s},s:n,s:s}]", "index", 0, "message", "role", "assistant",
                        "content", job->text, "logprobs", "finish_reason", finish_reason(job))
            : json_pack("[{s:s,s:i,s:n,s:s}]", "text", job->text, "index", 0, "logprobs",
                        "finish_reason", finish_reason(job));
    json_t *whole = openai_object(
        job, job->api == OPENAI_CHAT ? "chat.completion" : "text_completion", choices);
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
        append_json(out, openai_chunk(job, "", 0, finish_reason(job)), "data: ", "\n\n"));
    if (job->shows_usage) {
        json_t *last = openai_object(
            job, job->api == OPENAI_CHAT ? "chat.completion.chunk" : "text_completion",
            json_array());
        if (last && json_object_set_new(last, "usage", usage(job)) != 0) {
            json_decref(last);
            last = NULL;
        }
        CV_RETURN_IF_ERROR(append_json(out, last, "data: ", "\n\n"));
    }
    return cv_buf_append_str(out, "data: [DONE]\n\n");
}

static struct cv_status append_token(const struct cv_model_job *job, const struct cv_model_now *now,
                                     struct cv_buf *out)
{
    size_t start = job->sent ? job->ends[job->sent - 1] : 0;
    const char *text = job->text + start;
    size_t len = job->ends[job->sent] - start;
    if (job->api == OLLAMA_CHAT || job->api == OLLAMA_GENERATE)
        return append_json(out, ollama_piece(job, now, text, len, false), "", "\n");
    return append_json(out, openai_chunk(job, text, len, NULL), "data: ", "\n\n");
}

static struct cv_status append_end(const struct cv_model_job *job, const struct cv_model_now *now,
                                   struct cv_buf *out)
{
    bool is_ollama = job->api == OLLAMA_CHAT || job->api == OLLAMA_GENERATE;
    if (!job->is_stream)
        return append_json(out,
                           is_ollama ? ollama_piece(job, now, job->text, strlen(job->text), true)
                                     : openai_whole(job),
                           "", "");
    return is_ollama ? append_json(out, ollama_piece(job, now, "", 0, true), "", "\n")
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

void cv_model_job_free(struct cv_model_job **job)
{
    free(*job);
    *job = NULL;
}

/* ---- routes ---- */

static const struct route {
    const char *method;
    const char *path;
    bool is_prefix;
    struct cv_status (*answer)(struct call *call);
} routes[] = {
    {"GET", "/", false, answer_root},
    {"GET", "/api/version", false, answer_version},
    {"GET", "/api/tags", false, answer_tags},
    {"GET", "/api/ps", false, answer_ps},
    {"POST", "/api/show", false, answer_show},
    {"POST", "/api/chat", false, answer_chat},
    {"POST", "/api/generate", false, answer_generate},
    {"GET", "/v1/models", false, answer_models},
    {"GET", "/v1/models/", true, answer_model},
    {"POST", "/v1/chat/completions", false, answer_chat_completions},
    {"POST", "/v1/completions", false, answer_completions},
};

struct cv_status cv_model_answer(struct cv_slice method, struct cv_slice path, struct cv_slice text,
                                 const struct cv_model_now *now, struct cv_buf *body,
                                 struct cv_model_reply *reply)
{
    *reply = (struct cv_model_reply){.status = 200, .content_type = JSON_TYPE};
    struct call call = {path, text, now, body, reply};
    for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++) {
        const struct route *route = &routes[i];
        if (route->is_prefix ? !cv_slice_starts_with(path, route->path)
                             : !cv_slice_is(path, route->path))
            continue;
        bool is_get = strcmp(route->method, "GET") == 0;
        if (cv_slice_is(method, route->method) || (is_get && cv_slice_is(method, "HEAD")))
            return route->answer(&call);
        reply->allow = is_get ? "GET, HEAD" : "POST";
        return refuse(&call, 405, "method not allowed");
    }
    return refuse(&call, 404, "there is nothing at this path");
}
