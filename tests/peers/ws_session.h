/* SPDX-License-Identifier: MIT
 *
 * One WebSocket connection over a blocking-style socket, for the conformance peers: the production
 * handshake and engine under a plain poll loop. A session belongs to one thread, owns its socket
 * and holds at most a few times max_message bytes, whatever the peer does.
 */
#ifndef CV_TESTS_PEERS_WS_SESSION_H
#define CV_TESTS_PEERS_WS_SESSION_H

#include "base/buf.h"
#include "proto/http/http_parser.h"
#include "proto/ws/ws.h"

struct ws_session_options {
    size_t max_message_bytes; /* of a frame as well */
    bool has_deflate;         /* offer or accept permessage-deflate, compress what is sent */
};

struct ws_session {
    struct ws_session_options options;
    int fd;
    enum cv_ws_role role;
    struct cv_ws *ws;
    struct cv_buf in; /* fed to the engine, as long as is_fed */
    bool is_fed;
    struct cv_buf out;
    struct cv_buf message; /* being received; the last one when is_collecting */
    bool is_collecting;    /* keeps messages instead of echoing them */
};

/* Takes over `fd`. */
void ws_session_init(struct ws_session *session, int fd, enum cv_ws_role role,
                     const struct ws_session_options *options);
void ws_session_done(struct ws_session *session);

/* The opening handshake. Server: answers the request, with an error where it is none. Client: asks
 * `authority` for `target`. Anything but CV_OK: the connection is of no use. */
struct cv_status ws_session_accept(struct ws_session *session);
struct cv_status ws_session_connect(struct ws_session *session, const char *authority,
                                    const char *target);

/* Echoes (or collects) until the connection is closed either way. */
void ws_session_run(struct ws_session *session);

#endif
