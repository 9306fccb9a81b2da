/* SPDX-License-Identifier: MIT
 *
 * Happy path: start (easy handle into the worker's multi handle) → libcurl asks for sockets and a
 * timer → we tell it what happened → its message DONE → finish → on_done.
 * Fails: setting up (start); anything else comes as a CURLcode in DONE; the worker's end. All end
 * in finish().
 */
#include "net/fetch.h"

#include "base/buf.h"
#include "net/proxy.h"
#include "net/worker_priv.h"

#include <curl/curl.h>
#include <stdlib.h>
#include <uv.h>

enum { TIMEOUT_MS = 10 * 1000, MAX_BYTES = 1024 * 1024, CONNECTIONS_MAX = 8 };

struct cv_fetcher {
    struct cv_worker *worker;
    CURLM *multi;
    struct cv_timer timer;
};

struct fetch_socket {
    uv_poll_t poll;
    struct cv_fetcher *fetcher;
    curl_socket_t fd;
};

struct cv_fetch {
    struct cv_fetcher *fetcher;
    CURL *easy;
    struct curl_slist *headers;
    struct cv_buf body;
    bool is_too_large;
    uint64_t *retry_after_s;
    char detail[CURL_ERROR_SIZE];
    cv_fetch_on_done *on_done;
    void *arg;
    struct cv_worker_item item;
};

/* --- ending --- */

static void release(struct cv_fetch *fetch)
{
    if (fetch->easy) {
        curl_multi_remove_handle(fetch->fetcher->multi, fetch->easy);
        curl_easy_cleanup(fetch->easy);
    }
    curl_slist_free_all(fetch->headers);
    cv_worker_item_remove(fetch->fetcher->worker, &fetch->item);
    cv_buf_done(&fetch->body);
    free(fetch);
}

static void finish(struct cv_fetch *fetch, struct cv_status status, int http_status)
{
    cv_fetch_on_done *on_done = fetch->on_done;
    void *arg = fetch->arg;
    struct cv_error error = {.id = status.id};
    (void)snprintf(error.detail, sizeof error.detail, "%.250s",
                   cv_is_ok(status) ? "" : fetch->detail);
    struct cv_buf body = fetch->body;
    cv_buf_init(&fetch->body, 0);
    release(fetch);
    bool is_ok = cv_is_ok(status);
    on_done(arg, status, &error, is_ok ? http_status : 0,
            is_ok ? cv_buf_slice(&body) : cv_slice(NULL, 0));
    cv_buf_done(&body);
}

static enum cv_status_id status_of(struct cv_fetch *fetch, CURLcode code)
{
    long value = 0;
    switch (code) {
    case CURLE_OK:
        return CV_OK;
    case CURLE_COULDNT_RESOLVE_HOST:
        return CV_RESOLVE;
    case CURLE_COULDNT_RESOLVE_PROXY:
    case CURLE_PROXY:
        return CV_PROXY;
    case CURLE_COULDNT_CONNECT:
        curl_easy_getinfo(fetch->easy, CURLINFO_OS_ERRNO, &value);
        return value ? cv_status_from_errno((int)value) : CV_CONN_REFUSED;
    case CURLE_OPERATION_TIMEDOUT:
        return CV_CONN_TIMEOUT;
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_GOT_NOTHING:
    case CURLE_PARTIAL_FILE:
        curl_easy_getinfo(fetch->easy, CURLINFO_HTTP_CONNECTCODE, &value);
        return value >= 300 ? CV_PROXY : CV_CONN_RESET;
    case CURLE_WRITE_ERROR:
        return fetch->is_too_large ? CV_BODY_TOO_LARGE : CV_NO_MEMORY;
    case CURLE_FILESIZE_EXCEEDED:
        return CV_BODY_TOO_LARGE;
    case CURLE_PEER_FAILED_VERIFICATION:
        return CV_TLS_CERTIFICATE;
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_SSL_CACERT_BADFILE:
        return CV_TLS;
    case CURLE_OUT_OF_MEMORY:
        return CV_NO_MEMORY;
    default:
        return CV_BAD_RESPONSE;
    }
}

static void take_messages(struct cv_fetcher *fetcher)
{
    for (;;) {
        int left;
        CURLMsg *message = curl_multi_info_read(fetcher->multi, &left);
        if (!message)
            return;
        if (message->msg != CURLMSG_DONE)
            continue;
        struct cv_fetch *fetch = NULL;
        long http_status = 0;
        CURLcode code = message->data.result;
        curl_easy_getinfo(message->easy_handle, CURLINFO_PRIVATE, (char **)&fetch);
        curl_easy_getinfo(message->easy_handle, CURLINFO_RESPONSE_CODE, &http_status);
        if (fetch->retry_after_s) {
            curl_off_t seconds = 0;
            curl_easy_getinfo(message->easy_handle, CURLINFO_RETRY_AFTER, &seconds);
            *fetch->retry_after_s = seconds > 0 ? (uint64_t)seconds : 0;
        }
        if (!*fetch->detail)
            (void)snprintf(fetch->detail, sizeof fetch->detail, "%s", curl_easy_strerror(code));
        finish(fetch, cv_status(status_of(fetch, code)), (int)http_status);
    }
}

/* --- libcurl's events --- */

static void on_timer(void *arg)
{
    struct cv_fetcher *fetcher = arg;
    int running;
    curl_multi_socket_action(fetcher->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    take_messages(fetcher);
}

static int on_want_timer(CURLM *multi, long timeout_ms, void *arg)
{
    (void)multi;
    struct cv_fetcher *fetcher = arg;
    if (timeout_ms < 0) {
        cv_worker_timer_stop(fetcher->worker, &fetcher->timer);
        return 0;
    }
    struct cv_status status =
        cv_worker_timer_start(fetcher->worker, &fetcher->timer, (uint64_t)timeout_ms);
    return cv_is_ok(status) ? 0 : -1;
}

static void on_poll(uv_poll_t *handle, int status, int events)
{
    struct fetch_socket *sock = handle->data;
    if (!sock)
        return;
    struct cv_fetcher *fetcher = sock->fetcher;
    int flags = status < 0 ? CURL_CSELECT_ERR : 0;
    flags |= events & UV_READABLE ? CURL_CSELECT_IN : 0;
    flags |= events & UV_WRITABLE ? CURL_CSELECT_OUT : 0;
    int running;
    curl_multi_socket_action(fetcher->multi, sock->fd, flags, &running);
    take_messages(fetcher);
}

static void on_socket_freed(uv_handle_t *handle)
{
    free(handle);
}

static int on_want_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *socket_arg)
{
    (void)easy;
    struct cv_fetcher *fetcher = arg;
    struct fetch_socket *sock = socket_arg;
    if (what == CURL_POLL_REMOVE) {
        if (!sock)
            return 0;
        sock->poll.data = NULL;
        uv_poll_stop(&sock->poll);
        /* poll is the first field: freeing it frees the whole. */
        uv_close((uv_handle_t *)&sock->poll, on_socket_freed);
        curl_multi_assign(fetcher->multi, fd, NULL);
        return 0;
    }
    if (!sock) {
        sock = calloc(1, sizeof *sock);
        if (!sock || uv_poll_init(cv_worker_loop(fetcher->worker), &sock->poll, fd) != 0) {
            free(sock);
            return -1;
        }
        sock->fetcher = fetcher;
        sock->fd = fd;
        sock->poll.data = sock;
        curl_multi_assign(fetcher->multi, fd, sock);
    }
    int events = (what & CURL_POLL_IN ? UV_READABLE : 0) | (what & CURL_POLL_OUT ? UV_WRITABLE : 0);
    return uv_poll_start(&sock->poll, events, on_poll);
}

static size_t on_body(char *data, size_t size, size_t count, void *arg)
{
    struct cv_fetch *fetch = arg;
    struct cv_status status = cv_buf_append(&fetch->body, data, size * count);
    if (status.id == CV_NO_RESOURCES) {
        fetch->is_too_large = true;
        (void)snprintf(fetch->detail, sizeof fetch->detail, "the answer is larger than %zu bytes",
                       fetch->body.cap);
    }
    return cv_is_ok(status) ? size * count : 0;
}

/* --- the worker's handle --- */

static struct cv_fetcher *fetcher_of(struct cv_worker *worker)
{
    struct cv_fetcher **slot = cv_worker_fetcher(worker);
    if (*slot)
        return *slot;
    struct cv_fetcher *fetcher = calloc(1, sizeof *fetcher);
    if (!fetcher)
        return NULL;
    fetcher->worker = worker;
    cv_timer_init(&fetcher->timer, on_timer, fetcher);
    fetcher->multi = curl_multi_init();
    if (!fetcher->multi) {
        free(fetcher);
        return NULL;
    }
    curl_multi_setopt(fetcher->multi, CURLMOPT_SOCKETFUNCTION, on_want_socket);
    curl_multi_setopt(fetcher->multi, CURLMOPT_SOCKETDATA, fetcher);
    curl_multi_setopt(fetcher->multi, CURLMOPT_TIMERFUNCTION, on_want_timer);
    curl_multi_setopt(fetcher->multi, CURLMOPT_TIMERDATA, fetcher);
    curl_multi_setopt(fetcher->multi, CURLMOPT_MAXCONNECTS, (long)CONNECTIONS_MAX);
    *slot = fetcher;
    return fetcher;
}

void cv_fetcher_close(struct cv_fetcher **pointer)
{
    struct cv_fetcher *fetcher = *pointer;
    if (!fetcher)
        return;
    *pointer = NULL;
    curl_multi_cleanup(fetcher->multi); /* may still ask for sockets and the timer */
    cv_worker_timer_stop(fetcher->worker, &fetcher->timer);
    free(fetcher);
}

/* --- starting --- */

/* Asks net/proxy.h, so that the whole program follows one rule. */
static struct cv_status set_proxy(struct cv_fetch *fetch, CURLU *url, bool is_https,
                                  struct cv_error *error)
{
    char *host = NULL, *port = NULL;
    struct cv_status status = cv_fail(error, CV_INVALID, "not a URL with a host");
    uint64_t number;
    if (curl_url_get(url, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
        curl_url_get(url, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK &&
        cv_slice_to_u64(cv_slice_str(port), 65535, &number)) {
        struct cv_slice name = cv_slice_str(host);
        if (name.len > 2 && host[0] == '[') {
            host[name.len - 1] = '\0';
            name = cv_slice(host + 1, name.len - 2);
        }
        struct cv_proxy proxy;
        const struct cv_proxy_settings settings = {0};
        status = cv_proxy_choose(&settings, is_https, (const char *)name.data, (uint16_t)number,
                                 &proxy, error);
        if (cv_is_ok(status)) {
            /* "" also keeps libcurl from looking at the environment itself. */
            curl_easy_setopt(fetch->easy, CURLOPT_PROXY, proxy.host);
            curl_easy_setopt(fetch->easy, CURLOPT_NOPROXY, "");
            curl_easy_setopt(fetch->easy, CURLOPT_PROXYPORT, (long)proxy.port);
            curl_easy_setopt(fetch->easy, CURLOPT_HTTPPROXYTUNNEL, is_https ? 1L : 0L);
            if (*proxy.userinfo)
                curl_easy_setopt(fetch->easy, CURLOPT_PROXYUSERPWD, proxy.userinfo);
        }
    }
    curl_free(host);
    curl_free(port);
    return status;
}

static struct cv_status set_url(struct cv_fetch *fetch, const struct cv_fetch_request *request,
                                struct cv_error *error)
{
    CURLU *url = curl_url();
    if (!url)
        return cv_fail(error, CV_NO_MEMORY, "no memory for a URL");
    char *scheme = NULL;
    struct cv_status status = cv_fail(error, CV_INVALID, "not an absolute URL");
    if (curl_url_set(url, CURLUPART_URL, request->url, 0) == CURLUE_OK &&
        curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK) {
        bool is_https = strcmp(scheme, "https") == 0;
        if (is_https || (request->allow_http && strcmp(scheme, "http") == 0))
            status = set_proxy(fetch, url, is_https, error);
        else
            status = cv_fail(error, CV_INVALID, "not an https:// URL");
    }
    curl_free(scheme);
    curl_url_cleanup(url);
    return status;
}

static bool set_headers(struct cv_fetch *fetch, const char *const *headers)
{
    /* No waiting for 100 (Continue): our bodies are small. */
    fetch->headers = curl_slist_append(NULL, "Expect:");
    for (size_t i = 0; fetch->headers && headers && headers[i]; i++) {
        struct curl_slist *longer = curl_slist_append(fetch->headers, headers[i]);
        if (!longer)
            return false;
        fetch->headers = longer;
    }
    return fetch->headers != NULL;
}

static struct cv_status set_up(struct cv_fetch *fetch, const struct cv_fetch_request *request,
                               struct cv_error *error)
{
    CURL *easy = fetch->easy;
    CV_RETURN_IF_ERROR(set_url(fetch, request, error));
    uint64_t timeout_ms = request->timeout_ms ? request->timeout_ms : TIMEOUT_MS;
    CURLcode code = curl_easy_setopt(easy, CURLOPT_URL, request->url);
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, request->allow_http ? "http,https" : "https");
    curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)timeout_ms);
    curl_easy_setopt(easy, CURLOPT_PRIVATE, fetch);
    curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, fetch->detail);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, fetch);
    if (code == CURLE_OK)
        code = curl_easy_setopt(easy, CURLOPT_USERAGENT, "culvert/" CV_VERSION);
    if (code == CURLE_OK && request->ca_file)
        code = curl_easy_setopt(easy, CURLOPT_CAINFO, request->ca_file);
    if (code == CURLE_OK && request->body.len) {
        curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)request->body.len);
        code = curl_easy_setopt(easy, CURLOPT_COPYPOSTFIELDS, (const char *)request->body.data);
    }
    if (code == CURLE_OK && request->method) {
        if (strcmp(request->method, "HEAD") == 0)
            code = curl_easy_setopt(easy, CURLOPT_NOBODY, 1L);
        else
            code = curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request->method);
    }
    if (code != CURLE_OK || !set_headers(fetch, request->headers))
        return cv_fail(error, CV_NO_MEMORY, "no memory for a request");
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, fetch->headers);
    if (curl_multi_add_handle(fetch->fetcher->multi, easy) != CURLM_OK)
        return cv_fail(error, CV_NO_MEMORY, "no memory for a request");
    return cv_ok();
}

static void on_worker_stop(void *arg)
{
    finish(arg, cv_status(CV_SHUTTING_DOWN), 0);
}

struct cv_status cv_fetch_start(struct cv_worker *worker, const struct cv_fetch_request *request,
                                cv_fetch_on_done *on_done, void *arg, struct cv_fetch **out,
                                struct cv_error *error)
{
    *out = NULL;
    struct cv_fetcher *fetcher = fetcher_of(worker);
    struct cv_fetch *fetch = fetcher ? calloc(1, sizeof *fetch) : NULL;
    if (!fetch)
        return cv_fail(error, CV_NO_MEMORY, "no memory for a request");
    fetch->fetcher = fetcher;
    fetch->on_done = on_done;
    fetch->arg = arg;
    fetch->retry_after_s = request->retry_after_s;
    cv_buf_init(&fetch->body, request->max_bytes ? request->max_bytes : MAX_BYTES);
    cv_worker_item_add(worker, &fetch->item, on_worker_stop, fetch);
    fetch->easy = curl_easy_init();
    struct cv_status status = fetch->easy ? set_up(fetch, request, error)
                                          : cv_fail(error, CV_NO_MEMORY, "no memory for a request");
    if (!cv_is_ok(status)) {
        release(fetch);
        return status;
    }
    *out = fetch;
    return cv_ok();
}

void cv_fetch_cancel(struct cv_fetch **pointer)
{
    struct cv_fetch *fetch = *pointer;
    if (!fetch)
        return;
    *pointer = NULL;
    release(fetch);
}
