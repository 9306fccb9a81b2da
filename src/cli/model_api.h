/* SPDX-License-Identifier: MIT
 *
 * What the model server says, without I/O: a request (method, path, body) becomes a whole answer or
 * a job that gives one token after the other in the form of its API — Ollama's NDJSON, OpenAI's
 * server-sent events, or one object at the end.
 * A job owns its text; nothing else is kept. Limits: requests are the caller's to cap, jansson
 * stops at 2,048 levels; model names have at most 200 bytes. One thread per job.
 */
#ifndef CV_CLI_MODEL_API_H
#define CV_CLI_MODEL_API_H

#include "base/buf.h"
#include "base/slice.h"
#include "base/status.h"

struct cv_model_job;

/* Both clocks, from the caller. */
struct cv_model_now {
    uint64_t wall_s;
    uint32_t wall_ns; /* below one second */
    uint64_t mono_ns;
};

struct cv_model_reply {
    int status;
    const char *content_type; /* static */
    const char *allow;        /* with 405: for the Allow field; else NULL */
    bool is_stream;           /* the job's pieces go out one by one; else its body is one object */
    struct cv_model_job *job; /* the caller's to free; NULL: the body is complete */
};

/* The whole cap an answer's buffer needs. */
#define CV_MODEL_BODY_MAX ((size_t)16 * 1024)

/* Fills `reply` and appends the body, unless it comes from a job, to `body`. Mistakes of the client
 * are answers too: 400, 404, 405 in the shape of the API asked. CV_NO_MEMORY or CV_NO_RESOURCES
 * (the cap of `body`): there is no answer and no job. */
struct cv_status cv_model_answer(struct cv_slice method, struct cv_slice path, struct cv_slice text,
                                 const struct cv_model_now *now, struct cv_buf *body,
                                 struct cv_model_reply *reply);

/* Appends an error body in the shape that the API of `path` has, and tells its content type. Same
 * failures. */
struct cv_status cv_model_error(struct cv_slice path, int status, const char *message,
                                struct cv_buf *body, const char **content_type);

/* The next token is due: appends its piece (nothing when the answer is one object at the end).
 * CV_OK: there is more. CV_EOF: that was the last piece. CV_NO_MEMORY, CV_NO_RESOURCES: the answer
 * cannot go on and must be cut. */
struct cv_status cv_model_job_next(struct cv_model_job *job, const struct cv_model_now *now,
                                   struct cv_buf *out);

/* Takes NULL; sets *job to NULL. */
void cv_model_job_free(struct cv_model_job **job);

#endif
