/* SPDX-License-Identifier: MIT
 *
 * One HTTP request from the program itself (key sets, telemetry, webhooks), by libcurl on the
 * worker's loop. TLS 1.2 or later, certificates verified, no redirects, https only unless allowed.
 * Proxies as in net/proxy.h. Owns everything under way; copies what the request points to. Limits:
 * the answer has at most max_bytes, the whole takes at most timeout_ms. Its worker's thread.
 */
#ifndef CV_NET_FETCH_H
#define CV_NET_FETCH_H

#include "base/slice.h"
#include "base/status.h"
#include "net/worker.h"

struct cv_fetch;

struct cv_fetch_request {
    const char *url;
    const char *method;         /* NULL: GET, or POST with a body */
    const char *const *headers; /* "Name: value" each, NULL-terminated; or NULL */
    struct cv_slice body;       /* empty: none */
    uint64_t timeout_ms;        /* 0: 10 s */
    size_t max_bytes;           /* of the answer's body; 0: 1 MiB */
    const char *ca_file;        /* PEM; NULL: the system's */
    bool allow_http;
    /* Set before on_done to the seconds of the answer's Retry-After (RFC 9110 §10.2.3), 0 without;
     * must live as long as the fetch. NULL: not wanted. */
    uint64_t *retry_after_s;
};

/* CV_OK whenever an answer came whole, whatever its http_status; `body` is valid for the call.
 * Otherwise http_status is 0: CV_RESOLVE, CV_CONN_REFUSED, CV_CONN_TIMEOUT, CV_CONN_RESET,
 * CV_BODY_TOO_LARGE, CV_PROXY, CV_TLS, CV_TLS_CERTIFICATE, CV_BAD_RESPONSE, CV_SHUTTING_DOWN,
 * CV_NO_MEMORY. Called once, never from inside cv_fetch_start; the fetch is gone when it is
 * entered. */
typedef void cv_fetch_on_done(void *arg, struct cv_status status, const struct cv_error *error,
                              int http_status, struct cv_slice body);

/* CV_INVALID (URL not absolute, or http:// without allow_http), CV_NO_MEMORY; no on_done then. */
struct cv_status cv_fetch_start(struct cv_worker *worker, const struct cv_fetch_request *request,
                                cv_fetch_on_done *on_done, void *arg, struct cv_fetch **out,
                                struct cv_error *error);

/* Stops it; on_done is not called. *fetch is NULL afterwards; NULL is fine. */
void cv_fetch_cancel(struct cv_fetch **fetch);

#endif
