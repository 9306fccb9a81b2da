/* SPDX-License-Identifier: MIT
 *
 * Happy path: cv_resolve_start → the system's resolver, on a thread of libuv → on_resolved →
 * on_done. Ways it fails: the name has no address, or nobody answers (on_done says so); it is
 * called off (the request stays until the system is done with it).
 */
#include "net/resolve.h"

#include "net/worker_priv.h"

#include <netdb.h>
#include <stdlib.h>
#include <uv.h>

/* The request outlives a resolve that was called off. */
struct cv_resolve {
    uv_getaddrinfo_t request;
    cv_resolve_on_done *on_done; /* NULL: called off */
    void *arg;
};

size_t cv_resolve_known(const char *host, uint16_t port, struct cv_addr addrs[CV_RESOLVE_MAX])
{
    if (cv_addr_from_ip(&addrs[0], cv_slice_str(host), port))
        return 1;
    if (!cv_host_is_loopback(host))
        return 0;
    (void)cv_addr_from_ip(&addrs[0], cv_slice_str("127.0.0.1"), port);
    (void)cv_addr_from_ip(&addrs[1], cv_slice_str("::1"), port);
    return 2;
}

static void on_resolved(uv_getaddrinfo_t *request, int failure, struct addrinfo *found)
{
    struct cv_resolve *resolve = request->data;
    cv_resolve_on_done *on_done = resolve->on_done;
    void *arg = resolve->arg;
    struct cv_addr addrs[CV_RESOLVE_MAX];
    struct cv_resolve_result result = {.status = cv_ok(), .reason = "", .addrs = addrs};
    free(resolve);
    for (struct addrinfo *info = found; info && result.count < CV_RESOLVE_MAX; info = info->ai_next)
        result.count +=
            cv_addr_from_sockaddr(&addrs[result.count], info->ai_addr, info->ai_addrlen);
    uv_freeaddrinfo(found);
    if (!on_done)
        return;
    if (failure != 0 || result.count == 0) {
        result.status = cv_status(CV_RESOLVE);
        result.reason = failure ? uv_strerror(failure) : "no address";
        result.count = 0;
    }
    on_done(arg, &result);
}

struct cv_status cv_resolve_start(struct cv_worker *worker, const char *host, uint16_t port,
                                  cv_resolve_on_done *on_done, void *arg, struct cv_resolve **out,
                                  const char **reason)
{
    char service[8];
    (void)snprintf(service, sizeof service, "%u", port);
    const struct addrinfo hints = {.ai_family = AF_UNSPEC,
                                   .ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_NUMERICSERV | AI_ADDRCONFIG};
    struct cv_resolve *resolve = calloc(1, sizeof *resolve);
    *out = NULL;
    *reason = "";
    if (!resolve)
        return cv_status(CV_NO_MEMORY);
    resolve->on_done = on_done;
    resolve->arg = arg;
    resolve->request.data = resolve;
    int result = uv_getaddrinfo(cv_worker_loop(worker), &resolve->request, on_resolved, host,
                                service, &hints);
    if (result != 0) {
        free(resolve);
        *reason = uv_strerror(result);
        return cv_status(CV_RESOLVE);
    }
    *out = resolve;
    return cv_ok();
}

void cv_resolve_cancel(struct cv_resolve **pointer)
{
    struct cv_resolve *resolve = *pointer;
    if (!resolve)
        return;
    *pointer = NULL;
    resolve->on_done = NULL;
    /* A name that the system is busy with cannot be called off. */
    (void)uv_cancel((uv_req_t *)&resolve->request);
}
