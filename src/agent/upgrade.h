/* SPDX-License-Identifier: MIT
 *
 * The HTTP exchange that turns a connection into a WebSocket, from the client's side (RFC 6455
 * §4.1): writes the request, reads the answer, and puts a refusal into one sentence that says what
 * to do. No I/O. Owns its parser. Limits: the head as in cv_http_response_limits, of a refusal's
 * body 16 KiB are looked at.
 */
#ifndef CV_AGENT_UPGRADE_H
#define CV_AGENT_UPGRADE_H

#include "base/buf.h"
#include "base/slice.h"
#include "base/status.h"
#include "proto/link/resume.h"
#include "proto/ws/ws_handshake.h"

struct cv_http_parser;

enum { CV_UPGRADE_BODY_MAX = 16 * 1024 };

struct cv_upgrade_request {
    const char *relay;       /* Host: "host:port" */
    const char *path;        /* "/tunnel" */
    const char *subprotocol; /* "culvert.v1" or "ssh" */
    const char *agent_id;    /* 32 hex digits; NULL for none */
    const char *traceparent; /* NULL for none */
    struct cv_slice token;
    const struct cv_link_claim *claim; /* to a link that has lost its connection; NULL: a new one */
};

/* What a relay says in its 101 about the link. */
struct cv_upgrade_answer {
    bool has_id, has_proof;
    uint8_t link_id[CV_LINK_ID_LEN];
    uint64_t received; /* of our bytes; with has_proof */
    uint8_t proof[CV_LINK_PROOF_LEN];
};

struct cv_upgrade {
    struct cv_http_parser *parser;
    char key[CV_WS_KEY_SIZE];
    const char *subprotocol; /* borrowed, a literal */
    int http_status;         /* 0 until the head has come */
    uint64_t retry_after_ms; /* from Retry-After; 0 without */
    struct cv_buf body;      /* of a refusal */
    bool is_problem;         /* the body is application/problem+json */
    char server[64];         /* the Server field of a refusal */
    char location[128];      /* where a redirect leads, cut */
    char via[64];            /* a proxy's name in a refusal */
    bool is_page;            /* the refusal is a page for a browser (text/html) */
    int64_t date_s;          /* the peer's clock, Unix seconds; 0: it does not say */
    struct cv_upgrade_answer answer;
};

/* Appends the request to `out`, which holds the token afterwards. CV_INVALID for a part that may
 * not be written, CV_NO_MEMORY; call cv_upgrade_done in any case. */
struct cv_status cv_upgrade_begin(struct cv_upgrade *upgrade,
                                  const struct cv_upgrade_request *request, struct cv_buf *out);

/* Takes bytes of the answer.
 *   CV_OK          upgraded; *early are the bytes behind the head, inside `data`.
 *   CV_AGAIN       more is needed.
 *   CV_AUTH_FAILED or another CV_AUTH_ that the relay names (401),
 *   CV_FORBIDDEN (403), CV_RATE_LIMITED (429),
 *   CV_RESUME_UNKNOWN (410), CV_RESUME_CONFLICT (409), CV_RESUME_PROOF (403) of a claim,
 *   CV_UNAVAILABLE (503), CV_WS_VERSION (426), CV_WS_REFUSED (everything else),
 *   CV_WS_UPGRADE (a 101 that does not answer our request), CV_BAD_RESPONSE: *error says it for
 *                  people.
 */
struct cv_status cv_upgrade_feed(struct cv_upgrade *upgrade, const uint8_t *data, size_t len,
                                 struct cv_slice *early, struct cv_error *error);

/* The peer has closed: the verdict on what came. Never CV_OK or CV_AGAIN. */
struct cv_status cv_upgrade_eof(struct cv_upgrade *upgrade, struct cv_error *error);

void cv_upgrade_done(struct cv_upgrade *upgrade);

#endif
