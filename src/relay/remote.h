/* SPDX-License-Identifier: MIT
 *
 * An upstream on another worker: a front half where the request is, a back half where the link is,
 * and messages between them. Credit bounds what is under way towards the link (256 KiB); the other
 * direction is bounded by the stream's SSH window, which opens again only when the front has passed
 * bytes on.
 *
 * The functions are those of upstream.h; front half's worker only.
 */
#ifndef CV_RELAY_REMOTE_H
#define CV_RELAY_REMOTE_H

#include "relay/upstream.h"

struct cv_remote;

struct cv_status cv_remote_open(struct cv_relay_worker *worker, const struct cv_route *route,
                                const struct cv_upstream_wish *wish,
                                const struct cv_upstream_ops *ops, void *arg,
                                struct cv_remote **remote);
bool cv_remote_is_open(const struct cv_remote *remote);
bool cv_remote_is_reused(const struct cv_remote *remote);
size_t cv_remote_write(struct cv_remote *remote, struct cv_slice data);
void cv_remote_consumed(struct cv_remote *remote, size_t len);
void cv_remote_eof(struct cv_remote *remote);
void cv_remote_close(struct cv_remote *remote, bool is_reusable);

#endif
