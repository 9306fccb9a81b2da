/* SPDX-License-Identifier: MIT
 *
 * The opening handshake of RFC 6455 §4 as checks on header values that somebody else parsed. A
 * field that is missing is an empty slice; one that came several times is joined with commas. Owns
 * nothing; pure functions over slices (making a key draws random bytes); any thread.
 */
#ifndef CV_PROTO_WS_WS_HANDSHAKE_H
#define CV_PROTO_WS_WS_HANDSHAKE_H

#include "base/slice.h"
#include "base/status.h"

enum {
    CV_WS_KEY_SIZE = 25,    /* base64 of 16 bytes, with NUL */
    CV_WS_ACCEPT_SIZE = 29, /* base64 of a SHA-1, with NUL */
};

/* A fresh Sec-WebSocket-Key (§4.1). */
void cv_ws_make_key(char key[CV_WS_KEY_SIZE]);

/* Sec-WebSocket-Accept for a key (§4.2.2). The key is taken as it is; cv_ws_check_request says
 * whether it is valid. */
void cv_ws_accept_key(struct cv_slice key, char accept[CV_WS_ACCEPT_SIZE]);

struct cv_ws_request {
    struct cv_slice method;
    unsigned http_major, http_minor;
    struct cv_slice upgrade;    /* Upgrade */
    struct cv_slice connection; /* Connection */
    struct cv_slice key;        /* Sec-WebSocket-Key */
    struct cv_slice version;    /* Sec-WebSocket-Version */
};

/* Whether an Upgrade field asks for a WebSocket: has the token `websocket`, in any case. */
bool cv_ws_is_upgrade(struct cv_slice upgrade);

/* Server: checks a request (§4.2.1). CV_WS_UPGRADE (400): not GET, below HTTP/1.1, Upgrade without
 * `websocket`, Connection without `upgrade`, key not base64 of 16 bytes. CV_WS_VERSION (426, answer
 * with `Sec-WebSocket-Version: 13`): all right but the version. *error (may be NULL) says which. */
struct cv_status cv_ws_check_request(const struct cv_ws_request *request, struct cv_error *error);

struct cv_ws_response {
    unsigned http_status;
    struct cv_slice upgrade;
    struct cv_slice connection;
    struct cv_slice accept;   /* Sec-WebSocket-Accept */
    struct cv_slice protocol; /* Sec-WebSocket-Protocol */
};

/* Client: checks the answer to a request that carried `key` and offered `protocols` (the field
 * value as sent, may be empty) (§4.1). CV_WS_REFUSED: not a 101. CV_WS_UPGRADE: a 101 that is not
 * an answer to this request: Upgrade, Connection, a wrong accept, a subprotocol not offered.
 * Extensions are cv_ws_deflate_accept's. */
struct cv_status cv_ws_check_response(const struct cv_ws_response *response, struct cv_slice key,
                                      struct cv_slice protocols, struct cv_error *error);

/* Walks a comma-separated list of tokens (RFC 9110 §5.6.1; empty elements are skipped): takes the
 * next one off *rest. False at the end, or at something that is not a token: then rest->len is not
 * 0. For Sec-WebSocket-Protocol, Connection, Upgrade. */
bool cv_ws_token_next(struct cv_slice *rest, struct cv_slice *token);

/* Whether such a list holds `token`, compared without case. False for a malformed list. */
bool cv_ws_list_has(struct cv_slice list, const char *token);

/* Server: the first subprotocol in the client's order that is among `supported`. *chosen points
 * into `offered`, empty when there is none (or nothing was offered). CV_WS_UPGRADE when the list is
 * malformed, names one twice (§4.1 no. 10) or more than 32. */
struct cv_status cv_ws_choose_protocol(struct cv_slice offered, const char *const *supported,
                                       size_t count, struct cv_slice *chosen);

#endif
