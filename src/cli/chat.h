/* SPDX-License-Identifier: MIT
 *
 * One chat with a model over Ollama's /api/chat, as any consumer would hold it: an HTTP request to
 * the relay, the answer handed on as it arrives.
 * Owns its connection; copies the request. Limits: 64 KiB in a line of the answer. Its worker's
 * thread.
 */
#ifndef CV_CLI_CHAT_H
#define CV_CLI_CHAT_H

#include "base/slice.h"
#include "base/status.h"
#include "net/worker.h"

struct cv_chat;

struct cv_chat_request {
    const char *host; /* name or IP literal without brackets */
    uint16_t port;
    const char *path;  /* "/t/demo/api/chat" */
    const char *token; /* for Authorization */
    const char *model;
    const char *prompt;
    unsigned max_tokens;
};

struct cv_chat_ops {
    /* The next piece of the answer, UTF-8, valid for the call. */
    void (*on_text)(void *arg, struct cv_slice text);
    /* The end; the chat is gone when it is entered. CV_OK: the answer is whole. CV_BAD_RESPONSE
     * (what was answered instead is in the detail), CV_TRUNCATED, or why there is no connection. */
    void (*on_done)(void *arg, struct cv_status status, const struct cv_error *error);
};

/* CV_INVALID for parts that HTTP or JSON cannot hold, CV_NO_MEMORY; no callback then. */
struct cv_status cv_chat_start(struct cv_worker *worker, const struct cv_chat_request *request,
                               const struct cv_chat_ops *ops, void *arg, struct cv_chat **out,
                               struct cv_error *error);

/* Stops it; no callback any more. *chat is NULL afterwards; NULL is fine. */
void cv_chat_cancel(struct cv_chat **chat);

#endif
