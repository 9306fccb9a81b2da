/* SPDX-License-Identifier: MIT
 *
 * Streams that a user opens through its own link (`ssh -L`, `culvert forward`): to one of the
 * user's own tunnels and nowhere else. TCP tunnels get the bytes as they are; HTTP tunnels go
 * through the same HTTP engine as every consumer. Own worker of the session.
 */
#ifndef CV_RELAY_BRIDGE_H
#define CV_RELAY_BRIDGE_H

#include "base/slice.h"

#include <stdint.h>

struct cv_session;
struct cv_stream;

/* Accepts or refuses `stream`, which asks for the tunnel `name` at `port`; takes it over. */
void cv_bridge_direct(struct cv_session *session, struct cv_stream *stream, struct cv_slice name,
                      uint32_t port);

#endif
