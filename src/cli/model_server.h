/* SPDX-License-Identifier: MIT
 *
 * A small language model's stand-in: it speaks Ollama's and OpenAI's HTTP APIs, streaming and not,
 * and answers every prompt with the same friendly text that ends with the prompt's last words, a
 * token at a time. `culvert demo` publishes it where no Ollama runs; tests use it as a service
 * whose timing is known.
 *
 *     GET  /  /api/tags  /api/version  /api/ps  /v1/models  /v1/models/<id>
 *     POST /api/show  /api/chat  /api/generate  /v1/chat/completions  /v1/completions
 *
 * Owns its listener and connections; borrows the worker. Limits: 64 connections at once, a request
 * body of 1 MiB (413), heads as in http_parser.h, 120 s for a request to come.
 * Its worker's thread; before that worker runs, the thread that made it.
 */
#ifndef CV_CLI_MODEL_SERVER_H
#define CV_CLI_MODEL_SERVER_H

#include "base/status.h"
#include "net/worker.h"

#define CV_MODEL_NAME "culvert-demo:latest" /* any other name in a request is fine as well */

struct cv_model_server;

struct cv_model_server_options {
    const char *listen;         /* as cv_listen_spec_parse: "127.0.0.1:0" */
    unsigned token_interval_ms; /* between two tokens; 0 sends each in a loop turn of its own */
};

/* Listens at once, answers once the worker runs. CV_CONFIG for a bad address, else as
 * cv_listener_new; *out is NULL then. */
struct cv_status cv_model_server_new(struct cv_worker *worker,
                                     const struct cv_model_server_options *options,
                                     struct cv_model_server **out, struct cv_error *error);

/* The port it listens on, from any thread. */
unsigned cv_model_server_port(const struct cv_model_server *server);

/* After cv_worker_free of its worker, whose end closes the connections. NULL is fine; *server is
 * NULL afterwards. */
void cv_model_server_free(struct cv_model_server **server);

#endif
