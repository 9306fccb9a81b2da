/* SPDX-License-Identifier: MIT
 *
 * Picks the kind of upstream by where the session lives, and passes calls on.
 */
#include "relay/upstream.h"

#include "relay/remote.h"
#include "relay/session_private.h"

struct cv_status cv_upstream_open(struct cv_relay_worker *worker, const struct cv_route *route,
                                  const struct cv_upstream_wish *wish,
                                  const struct cv_upstream_ops *ops, void *arg,
                                  struct cv_upstream **out)
{
    *out = NULL;
    if (route->session->worker_index != worker->index) {
        struct cv_remote *remote;
        CV_RETURN_IF_ERROR(cv_remote_open(worker, route, wish, ops, arg, &remote));
        *out = (struct cv_upstream *)remote;
        return cv_ok();
    }
    struct cv_pipe *pipe;
    CV_RETURN_IF_ERROR(cv_pool_open(&route->session->pool, route->spec, route->gate, route->port,
                                    wish, ops, arg, &pipe));
    *out = (struct cv_upstream *)pipe;
    return cv_ok();
}

/* Both kinds begin with a struct cv_upstream. */
static struct cv_pipe *pipe_of(const struct cv_upstream *upstream)
{
    return (struct cv_pipe *)(uintptr_t)upstream;
}

static struct cv_remote *remote_of(const struct cv_upstream *upstream)
{
    return (struct cv_remote *)(uintptr_t)upstream;
}

bool cv_upstream_is_open(const struct cv_upstream *upstream)
{
    return upstream->is_local ? cv_pipe_is_open(pipe_of(upstream))
                              : cv_remote_is_open(remote_of(upstream));
}

bool cv_upstream_is_reused(const struct cv_upstream *upstream)
{
    return upstream->is_local ? cv_pipe_is_reused(pipe_of(upstream))
                              : cv_remote_is_reused(remote_of(upstream));
}

bool cv_upstream_is_queued(const struct cv_upstream *upstream)
{
    return upstream->is_local ? cv_pipe_is_waiting(pipe_of(upstream))
                              : !cv_remote_is_open(remote_of(upstream));
}

size_t cv_upstream_position(const struct cv_upstream *upstream)
{
    return upstream->is_local ? cv_pipe_position(pipe_of(upstream)) : 0;
}

size_t cv_upstream_write(struct cv_upstream *upstream, struct cv_slice data)
{
    return upstream->is_local ? cv_pipe_write(pipe_of(upstream), data)
                              : cv_remote_write(remote_of(upstream), data);
}

void cv_upstream_consumed(struct cv_upstream *upstream, size_t len)
{
    if (upstream->is_local)
        cv_pipe_consumed(pipe_of(upstream), len);
    else
        cv_remote_consumed(remote_of(upstream), len);
}

void cv_upstream_eof(struct cv_upstream *upstream)
{
    if (upstream->is_local)
        cv_pipe_eof(pipe_of(upstream));
    else
        cv_remote_eof(remote_of(upstream));
}

void cv_upstream_close(struct cv_upstream *upstream, bool is_reusable)
{
    if (upstream->is_local)
        cv_pipe_close(pipe_of(upstream), is_reusable);
    else
        cv_remote_close(remote_of(upstream), is_reusable);
}

enum cv_status_id cv_upstream_refusal(uint32_t reason, struct cv_slice text)
{
    struct cv_slice rest = text, word = cv_slice_split(&rest, ':');
    if (cv_slice_is(word, "service-refused"))
        return CV_SERVICE_REFUSED;
    if (cv_slice_is(word, "service-timeout"))
        return CV_SERVICE_TIMEOUT;
    if (cv_slice_is(word, "service-unreachable"))
        return CV_SERVICE_UNREACHABLE;
    if (cv_slice_is(word, "agent-busy"))
        return CV_CHANNEL_LIMIT;
    if (cv_slice_is(word, "agent-stopping"))
        return CV_AGENT_OFFLINE;
    /* Foreign clients: OpenSSH answers with 2 and its own words. */
    return reason == 4 ? CV_CHANNEL_LIMIT : CV_SERVICE_REFUSED;
}
