/* SPDX-License-Identifier: MIT
 *
 * Field names and their order are Ollama's (docs/api.md of that project) and OpenAI's (its API
 * reference), so that the client libraries of both read them.
 */
#include "cli/model_api.h"

#include "cli/model_job.h"
#include "cli/model_server.h"

#include <jansson.h>
#include <string.h>

#define JSON_TYPE "application/json; charset=utf-8"
#define MODEL_SIZE 4194304
#define MODEL_DIGEST "c0171e57c0171e57c0171e57c0171e57c0171e57c0171e57c0171e57c0171e57"
#define MODEL_MADE_S 1735689600 /* 2025-01-01T00:00:00Z */
#define MODEL_MADE "2025-01-01T00:00:00Z"

/* ---- mistakes ---- */

static bool is_openai(struct cv_slice path)
{
    return cv_slice_starts_with(path, "/v1/") || cv_slice_is(path, "/v1");
}

struct cv_status cv_model_error(struct cv_slice path, int status, const char *message,
                                struct cv_buf *body, const char **content_type)
{
    *content_type = JSON_TYPE;
    if (!is_openai(path))
        return cv_model_append_json(body, json_pack("{s:s}", "error", message), "", "");
    const char *type = status == 404   ? "not_found_error"
                       : status >= 500 ? "server_error"
                                       : "invalid_request_error";
    return cv_model_append_json(body,
                                json_pack("{s:{s:s,s:s,s:n,s:n}}", "error", "message", message,
                                          "type", type, "param", "code"),
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
    return name && *name && strlen(name) <= CV_MODEL_NAME_MAX_BYTES ? name : NULL;
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

/* Where each API keeps its limit on tokens; 0 or less: none. */
static int64_t max_tokens_of(enum cv_model_api api, const json_t *object)
{
    if (api == CV_MODEL_OLLAMA_CHAT || api == CV_MODEL_OLLAMA_GENERATE)
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
    return cv_model_append_json(call->body, json_pack("{s:s}", "version", CV_VERSION), "", "");
}

static struct cv_status answer_tags(struct call *call)
{
    return cv_model_append_json(call->body,
                                json_pack("{s:[{s:s,s:s,s:s,s:i,s:s,s:o}]}", "models", "name",
                                          CV_MODEL_NAME, "model", CV_MODEL_NAME, "modified_at",
                                          MODEL_MADE, "size", MODEL_SIZE, "digest", MODEL_DIGEST,
                                          "details", details()),
                                "", "");
}

static struct cv_status answer_ps(struct call *call)
{
    char expires[40];
    struct cv_model_now later = *call->now;
    later.wall_s += 300;
    return cv_model_append_json(
        call->body,
        json_pack("{s:[{s:s,s:s,s:i,s:s,s:o,s:s,s:i}]}", "models", "name", CV_MODEL_NAME, "model",
                  CV_MODEL_NAME, "size", MODEL_SIZE, "digest", MODEL_DIGEST, "details", details(),
                  "expires_at", cv_model_rfc3339(&later, expires), "size_vram", 0),
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
        status = cv_model_append_json(
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
    return cv_model_append_json(
        call->body, json_pack("{s:s,s:[o]}", "object", "list", "data", model_entry(CV_MODEL_NAME)),
        "", "");
}

static struct cv_status answer_model(struct call *call)
{
    if (cv_slice_is(call->path, "/v1/models/" CV_MODEL_NAME))
        return cv_model_append_json(call->body, model_entry(CV_MODEL_NAME), "", "");
    return refuse(call, 404, "there is no such model");
}

/* ---- generated answers ---- */

/* Ollama loads the model when asked without a prompt. */
static struct cv_status answer_load(struct call *call, enum cv_model_api api, const char *model,
                                    bool is_stream)
{
    char at[40];
    json_t *object =
        json_pack("{s:s,s:s}", "model", model, "created_at", cv_model_rfc3339(call->now, at));
    json_t *content = api == CV_MODEL_OLLAMA_CHAT
                          ? json_pack("{s:s,s:s}", "role", "assistant", "content", "")
                          : json_string("");
    bool failed = !object ||
                  json_object_set_new(object, api == CV_MODEL_OLLAMA_CHAT ? "message" : "response",
                                      content) != 0 ||
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
    return cv_model_append_json(call->body, object, "", is_stream ? "\n" : "");
}

/* The prompt, and how many words there are in all; NULL when the request has none. */
static const char *prompt_of(enum cv_model_api api, const json_t *object, unsigned *words)
{
    if (api == CV_MODEL_OLLAMA_GENERATE || api == CV_MODEL_OPENAI_TEXT) {
        const json_t *prompt = json_object_get(object, "prompt");
        if (json_is_array(prompt))
            prompt = json_array_get(prompt, 0);
        const char *text = json_string_value(prompt);
        *words = text ? cv_model_count_words(text) : 0;
        return text && *text ? text : NULL;
    }
    const char *last = NULL;
    size_t i;
    json_t *message;
    json_array_foreach(json_object_get(object, "messages"), i, message)
    {
        const char *text = text_of(json_object_get(message, "content"));
        *words += text ? cv_model_count_words(text) : 0;
        last = text ? text : last;
    }
    return last;
}

static struct cv_status start_job(struct call *call, enum cv_model_api api, const json_t *object,
                                  const char *model, bool is_stream)
{
    unsigned words = 0;
    const char *prompt = prompt_of(api, object, &words);
    bool is_ollama = api == CV_MODEL_OLLAMA_CHAT || api == CV_MODEL_OLLAMA_GENERATE;
    if (!prompt && is_ollama)
        return answer_load(call, api, model, is_stream);
    if (!prompt)
        return refuse(call, 400,
                      api == CV_MODEL_OPENAI_CHAT ? "messages is required, with text in it"
                                                  : "prompt is required, a string");
    struct cv_model_question question = {
        .api = api,
        .model = model,
        .prompt = prompt,
        .prompt_tokens = words,
        .max_tokens = max_tokens_of(api, object),
        .is_stream = is_stream,
        .shows_usage = json_is_true(
            json_object_get(json_object_get(object, "stream_options"), "include_usage")),
    };
    struct cv_model_job *job = cv_model_job_new(&question, call->now);
    if (!job)
        return cv_status(CV_NO_MEMORY);
    call->reply->job = job;
    call->reply->is_stream = is_stream;
    if (is_stream)
        call->reply->content_type = is_ollama ? "application/x-ndjson" : "text/event-stream";
    return cv_ok();
}

static struct cv_status generate(struct call *call, enum cv_model_api api)
{
    json_t *object;
    struct cv_status status = read_object(call, &object);
    if (!object)
        return status;
    const char *model = model_of(object);
    const json_t *stream = json_object_get(object, "stream");
    const json_t *messages = json_object_get(object, "messages");
    /* Ollama streams unless told not to, OpenAI the other way round. */
    bool is_ollama = api == CV_MODEL_OLLAMA_CHAT || api == CV_MODEL_OLLAMA_GENERATE;
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
    return generate(call, CV_MODEL_OLLAMA_CHAT);
}

static struct cv_status answer_generate(struct call *call)
{
    return generate(call, CV_MODEL_OLLAMA_GENERATE);
}

static struct cv_status answer_chat_completions(struct call *call)
{
    return generate(call, CV_MODEL_OPENAI_CHAT);
}

static struct cv_status answer_completions(struct call *call)
{
    return generate(call, CV_MODEL_OPENAI_TEXT);
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
