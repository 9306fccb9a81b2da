/* SPDX-License-Identifier: MIT
 *
 * Happy path: cv_models_start → a request for each page of each port → on_answer … → judge each
 * port → on_done. A request that fails is an answer that says nothing.
 */
#include "cli/models.h"

#include "base/json.h"
#include "net/fetch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ANSWER_MS = 1000, ANSWER_MAX = 256 * 1024 };

/* What tells them apart. Several speak each other's APIs: the order in `judges` decides. */
enum page {
    PAGE_OPENAI,
    PAGE_KOBOLD,
    PAGE_OLLAMA,
    PAGE_LMSTUDIO,
    PAGE_LLAMACPP,
    PAGE_LOCALAI,
    PAGES
};

static const char *const paths[PAGES] = {
    [PAGE_OPENAI] = "/v1/models", [PAGE_KOBOLD] = "/api/extra/version",
    [PAGE_OLLAMA] = "/api/tags",  [PAGE_LMSTUDIO] = "/api/v0/models",
    [PAGE_LLAMACPP] = "/props",   [PAGE_LOCALAI] = "/system",
};

struct port;

struct question {
    struct port *port;
    struct cv_fetch *fetch; /* NULL: over */
    json_t *answer;         /* NULL: no 200 with a JSON object */
};

struct port {
    struct cv_models *models;
    uint16_t number;
    struct question questions[PAGES];
    bool speaks_http;
};

struct cv_models {
    struct cv_worker *worker;
    cv_models_on_done *on_done;
    void *arg;
    struct port ports[CV_MODELS_MAX];
    size_t count;
    size_t under_way;
    struct cv_defer done;
};

const uint16_t *cv_models_ports(size_t *count)
{
    /* Ollama, LM Studio, llama.cpp and LocalAI, vLLM, Jan, text-generation-webui, KoboldCpp,
     * SGLang, GPT4All. */
    static const uint16_t ports[] = {11434, 1234, 8080, 8000, 1337, 5000, 5001, 30000, 4891};
    *count = sizeof ports / sizeof ports[0];
    return ports;
}

/* ---- who it is ---- */

static const json_t *page(const struct port *port, enum page which)
{
    return port->questions[which].answer;
}

static const json_t *list_of(const struct port *port, enum page which, const char *name)
{
    const json_t *list = json_object_get(page(port, which), name);
    return json_is_array(list) ? list : NULL;
}

static bool says(const json_t *object, const char *name, const char *text)
{
    const char *value = json_string_value(json_object_get(object, name));
    return value && strcmp(value, text) == 0;
}

static bool is_owned_by(const struct port *port, const char *owner)
{
    return says(json_array_get(list_of(port, PAGE_OPENAI, "data"), 0), "owned_by", owner);
}

static bool is_kobold(const struct port *port)
{
    return says(page(port, PAGE_KOBOLD), "result", "KoboldCpp");
}

static bool is_lmstudio(const struct port *port)
{
    return list_of(port, PAGE_LMSTUDIO, "data");
}

static bool is_llamacpp(const struct port *port)
{
    return is_owned_by(port, "llamacpp") ||
           json_is_object(
               json_object_get(page(port, PAGE_LLAMACPP), "default_generation_settings"));
}

static bool is_vllm(const struct port *port)
{
    return is_owned_by(port, "vllm");
}

static bool is_sglang(const struct port *port)
{
    return is_owned_by(port, "sglang");
}

static bool is_localai(const struct port *port)
{
    return list_of(port, PAGE_LOCALAI, "backends");
}

static bool is_ollama(const struct port *port)
{
    return list_of(port, PAGE_OLLAMA, "models");
}

static bool is_openai(const struct port *port)
{
    return says(page(port, PAGE_OPENAI), "object", "list") && list_of(port, PAGE_OPENAI, "data");
}

static const struct judge {
    const char *kind, *title, *preset;
    bool (*is_it)(const struct port *port);
} judges[] = {
    {"koboldcpp", "KoboldCpp", "openai", is_kobold},
    {"lmstudio", "LM Studio", "openai", is_lmstudio},
    {"llamacpp", "llama.cpp", "openai", is_llamacpp},
    {"vllm", "vLLM", "openai", is_vllm},
    {"sglang", "SGLang", "openai", is_sglang},
    {"localai", "LocalAI", "openai", is_localai},
    {"ollama", "Ollama", "ollama", is_ollama},
    {"openai", "a server with OpenAI's API", "openai", is_openai},
};

/* A name that can stand in a shell's quotes and in JSON as it is. */
static bool is_plain(const char *name)
{
    return name && *name && strlen(name) < CV_MODEL_NAME_MAX &&
           !name[strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                              "0123456789._:/@-")];
}

static void choose_model(const struct port *port, struct cv_model_found *found)
{
    bool is_ollama = strcmp(found->kind, "ollama") == 0;
    const json_t *list =
        is_ollama ? list_of(port, PAGE_OLLAMA, "models") : list_of(port, PAGE_OPENAI, "data");
    found->models = (unsigned)json_array_size(list);
    for (size_t i = 0; i < json_array_size(list) && !found->model[0]; i++) {
        const json_t *entry = json_array_get(list, i);
        const char *name = json_string_value(json_object_get(entry, is_ollama ? "name" : "id"));
        if (is_plain(name) && !strstr(name, "embed"))
            (void)snprintf(found->model, sizeof found->model, "%s", name);
    }
}

static bool judge(const struct port *port, struct cv_model_found *found)
{
    for (size_t i = 0; i < sizeof judges / sizeof judges[0]; i++) {
        if (!judges[i].is_it(port))
            continue;
        *found = (struct cv_model_found){.port = port->number,
                                         .kind = judges[i].kind,
                                         .title = judges[i].title,
                                         .preset = judges[i].preset};
        choose_model(port, found);
        return true;
    }
    return false;
}

/* ---- asking ---- */

static void on_all(void *arg)
{
    struct cv_models *models = arg;
    struct cv_model_found found[CV_MODELS_MAX];
    struct cv_models_result result = {.found = found};
    for (size_t i = 0; i < models->count; i++) {
        if (judge(&models->ports[i], &found[result.count]))
            result.count++;
        else
            result.strangers += models->ports[i].speaks_http;
    }
    models->on_done(models->arg, &result);
}

static void answered(struct cv_models *models)
{
    if (--models->under_way == 0)
        cv_worker_defer(models->worker, &models->done);
}

static void on_answer(void *arg, struct cv_status status, const struct cv_error *error,
                      int http_status, struct cv_slice body)
{
    struct question *question = arg;
    (void)error;
    question->fetch = NULL;
    question->port->speaks_http |= cv_is_ok(status);
    if (cv_is_ok(status) && http_status == 200 &&
        cv_is_ok(cv_json_parse(body, &question->answer)) && !json_is_object(question->answer)) {
        json_decref(question->answer);
        question->answer = NULL;
    }
    answered(question->port->models);
}

static void ask(struct port *port, enum page which)
{
    struct question *question = &port->questions[which];
    char url[64];
    struct cv_fetch_request request = {
        .url = url, .timeout_ms = ANSWER_MS, .max_bytes = ANSWER_MAX, .allow_http = true};
    (void)snprintf(url, sizeof url, "http://127.0.0.1:%u%s", (unsigned)port->number, paths[which]);
    question->port = port;
    port->models->under_way++;
    if (!cv_is_ok(cv_fetch_start(port->models->worker, &request, on_answer, question,
                                 &question->fetch, NULL)))
        answered(port->models);
}

struct cv_status cv_models_start(struct cv_worker *worker, const uint16_t *ports, size_t count,
                                 cv_models_on_done *on_done, void *arg, struct cv_models **out)
{
    *out = NULL;
    if (count > CV_MODELS_MAX)
        return cv_status(CV_USAGE);
    struct cv_models *models = calloc(1, sizeof *models);
    if (!models)
        return cv_status(CV_NO_MEMORY);
    models->worker = worker;
    models->on_done = on_done;
    models->arg = arg;
    models->count = count;
    models->under_way = 1; /* until all are asked */
    cv_defer_init(&models->done, on_all, models);
    for (size_t i = 0; i < count; i++) {
        models->ports[i].models = models;
        models->ports[i].number = ports[i];
        for (enum page which = 0; which < PAGES; which++)
            ask(&models->ports[i], which);
    }
    *out = models;
    answered(models);
    return cv_ok();
}

void cv_models_free(struct cv_models **pointer)
{
    struct cv_models *models = *pointer;
    *pointer = NULL;
    if (!models)
        return;
    for (size_t i = 0; i < models->count; i++)
        for (enum page which = 0; which < PAGES; which++) {
            cv_fetch_cancel(&models->ports[i].questions[which].fetch);
            json_decref(models->ports[i].questions[which].answer);
        }
    cv_defer_cancel(&models->done);
    free(models);
}
