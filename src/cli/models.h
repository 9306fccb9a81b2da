/* SPDX-License-Identifier: MIT
 *
 * Which model servers run on this machine: their usual ports are asked, all at once, and a server
 * is known by what it answers, never by its port. Private to cli/.
 *
 * Owns the requests under way. Only 127.0.0.1 is asked. Limits: CV_MODELS_MAX ports, 256 KiB of an
 * answer, 1 s for each. Its worker's thread.
 */
#ifndef CV_CLI_MODELS_H
#define CV_CLI_MODELS_H

#include "base/status.h"
#include "net/worker.h"

enum { CV_MODELS_MAX = 16, CV_MODEL_NAME_MAX = 96 };

struct cv_models;

struct cv_model_found {
    uint16_t port;
    const char *kind;   /* "ollama", "lmstudio", "llamacpp", "vllm", "sglang", "localai",
                           "koboldcpp", "openai": fit for a tunnel's name */
    const char *title;  /* "LM Studio" */
    const char *preset; /* of a tunnel to it */
    unsigned models;    /* that it offers */
    /* One that can chat; "" when there is none that can stand in a shell's quotes as it is. */
    char model[CV_MODEL_NAME_MAX];
};

struct cv_models_result {
    const struct cv_model_found *found; /* in the order in which the ports were given */
    size_t count;
    size_t strangers; /* ports where something else speaks HTTP */
};

/* Called once, never from inside cv_models_start; everything is valid for the call. */
typedef void cv_models_on_done(void *arg, const struct cv_models_result *result);

/* The ports that model servers are usually on. */
const uint16_t *cv_models_ports(size_t *count);

/* CV_USAGE: too many ports. CV_NO_MEMORY. */
struct cv_status cv_models_start(struct cv_worker *worker, const uint16_t *ports, size_t count,
                                 cv_models_on_done *on_done, void *arg, struct cv_models **models);

/* Ends what is under way; on_done is not called. Takes NULL, nulls. Needed after on_done too. */
void cv_models_free(struct cv_models **models);

#endif
