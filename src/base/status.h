/* SPDX-License-Identifier: MIT
 *
 * One table of everything that can go wrong. `struct cv_status` is the return type of every
 * function that can fail; the compiler insists that it is looked at. The category drives policy
 * (retry or not), the TUNNEL_ code drives diagnosis, and docs/errors has a page per code. Owns
 * nothing; any thread.
 */
#ifndef CV_BASE_STATUS_H
#define CV_BASE_STATUS_H

#include <stdbool.h>
#include <stddef.h>

/* X(NAME, category, code, http, ws_close, ssh_disconnect, retryable, text, suggestion)
 * code 0: internal condition that never leaves the process under a code of its own. */
/* clang-format off */
#define CV_STATUS_TABLE(X)                                                                          \
    X(OK, UNKNOWN, 0, 200, 1000, 11, false, "ok", "")                                               \
    X(AGAIN, UNKNOWN, 0, 503, 1013, 11, true, "would block", "Try again.")                          \
    X(EOF, NETWORK, 0, 502, 1006, 11, true, "end of stream", "Try again.")                          \
    X(CONN_REFUSED, NETWORK, 1, 502, 1006, 11, true, "connection refused",                          \
      "Check that the address and port are right and that the program there is running.")           \
    X(CONN_RESET, NETWORK, 1, 502, 1006, 11, true, "connection reset",                              \
      "The other side or a box in between cut the connection; it will be tried again.")             \
    X(CONN_TIMEOUT, NETWORK, 1, 504, 1006, 11, true, "connection timed out",                        \
      "Check the network, a firewall may drop the packets.")                                        \
    X(NETWORK_UNREACHABLE, NETWORK, 1, 502, 1006, 11, true, "network unreachable",                  \
      "Check that this machine is online.")                                                         \
    X(AUTH_FAILED, AUTHENTICATION, 2, 401, 4401, 14, false, "authentication failed",                \
      "Check the token: who issued it, for which audience, and whether it is complete.")            \
    X(AUTH_MISSING, AUTHENTICATION, 2, 401, 4401, 14, false, "no token given",                      \
      "Send the header Authorization: Bearer <token>.")                                             \
    X(AUTH_MALFORMED, AUTHENTICATION, 2, 401, 4401, 14, false, "malformed token",                   \
      "Copy the token again, whole and without spaces.")                                            \
    X(AUTH_BAD_SIGNATURE, AUTHENTICATION, 2, 401, 4401, 14, false, "bad token signature",           \
      "The token was not signed by a key this relay trusts; get a new one from the right issuer.")  \
    X(AUTH_UNKNOWN_KEY, AUTHENTICATION, 2, 401, 4401, 14, false, "token signed by an unknown key",  \
      "Get a new token; the issuer may have changed its keys.")                                     \
    X(AUTH_WRONG_ISSUER, AUTHENTICATION, 2, 401, 4401, 14, false, "token from the wrong issuer",    \
      "Get a token from the issuer that this relay is configured for.")                             \
    X(AUTH_WRONG_AUDIENCE, AUTHENTICATION, 2, 401, 4401, 14, false, "token for another audience",   \
      "Get a token whose audience is this relay.")                                                  \
    X(AUTH_NOT_YET_VALID, AUTHENTICATION, 2, 401, 4401, 14, true, "token is not valid yet",         \
      "Check the clocks of both machines.")                                                         \
    X(AUTH_EXPIRED, AUTHENTICATION, 3, 401, 4401, 14, false, "token expired",                       \
      "Get a fresh token.")                                                                         \
    X(AUTH_REVOKED, AUTHENTICATION, 36, 401, 4402, 14, false, "token revoked",                      \
      "Get a fresh token, if you are still permitted to.")                                          \
    X(UNAVAILABLE, SERVER, 4, 503, 1013, 2, true, "server unavailable", "Try again in a moment.")   \
    X(BREAKER_IS_OPEN, SERVER, 4, 503, 1013, 2, true, "the service of this tunnel fails, requests rest for a while", \
      "Look at the service; Retry-After says when it is tried again.")                              \
    X(SHUTTING_DOWN, SERVER, 4, 503, 1001, 11, true, "the server is shutting down",                 \
      "Try again in a moment; another instance will answer.")                                       \
    X(RATE_LIMITED, SERVER, 5, 429, 4429, 12, true, "rate limit exceeded",                          \
      "Wait as long as Retry-After says.")                                                          \
    X(QUEUE_FULL, SERVER, 6, 503, 1013, 4, true, "queue full", "Send fewer requests at once.")      \
    X(TIMEOUT_FIRST_BYTE, SERVER, 7, 504, 1001, 11, true, "no answer in time",                      \
      "The service did not begin to answer; a larger timers.first_byte helps with slow models.")    \
    X(TIMEOUT_IDLE, SERVER, 7, 504, 1001, 11, true, "the answer stopped coming",                    \
      "The service stopped in the middle of its answer; look at its log.")                          \
    X(TIMEOUT_TOTAL, SERVER, 7, 504, 1001, 11, true, "the request took too long",                   \
      "Raise timers.total or ask for less at once.")                                                \
    X(TIMEOUT_REQUEST, PROTOCOL, 7, 408, 1001, 11, true, "the request did not arrive in time",      \
      "Send the whole request without long pauses.")                                                \
    X(SSH_PROTOCOL, PROTOCOL, 8, 502, 1002, 2, false, "SSH protocol error",                         \
      "The other side broke the SSH protocol; check that both programs are current.")               \
    X(SSH_KEX_FAILED, PROTOCOL, 8, 502, 1002, 3, false, "SSH key exchange failed",                  \
      "The two sides have no algorithm in common or the exchange was disturbed.")                   \
    X(SSH_MAC, PROTOCOL, 8, 502, 1002, 5, false, "SSH packet failed its integrity check",           \
      "Bytes were changed on the way; look for a box that rewrites traffic.")                       \
    X(SSH_LIMIT, PROTOCOL, 8, 502, 1008, 2, false, "SSH limit exceeded",                            \
      "The peer asked for more than it may; lower the number of requests at once.")                 \
    X(WS_PROTOCOL, PROTOCOL, 9, 400, 1002, 2, false, "WebSocket protocol error",                    \
      "The other side broke RFC 6455; check for a proxy that changes WebSocket traffic.")           \
    X(WS_TOO_BIG, PROTOCOL, 9, 413, 1009, 2, false, "WebSocket message too big",                    \
      "Send smaller messages.")                                                                     \
    X(WS_BAD_UTF8, PROTOCOL, 9, 400, 1007, 2, false, "WebSocket text is not UTF-8",                 \
      "Send binary data in binary messages.")                                                       \
    X(WS_UNSUPPORTED, PROTOCOL, 9, 400, 1003, 2, false, "WebSocket data of the wrong kind",         \
      "This route takes binary messages.")                                                          \
    X(WS_POLICY, PROTOCOL, 9, 400, 1008, 2, false, "WebSocket policy violation",                    \
      "Read what you are sent and send fewer control frames.")                                      \
    X(WS_UPGRADE, PROTOCOL, 9, 400, 1002, 2, false, "bad WebSocket upgrade",                        \
      "Open the connection with a WebSocket client (RFC 6455, version 13).")                        \
    X(WS_VERSION, PROTOCOL, 9, 426, 1002, 2, false, "a WebSocket of version 13 is needed here",     \
      "Open the connection with a WebSocket client (RFC 6455, version 13).")                        \
    X(WS_REFUSED, NETWORK, 9, 502, 1002, 2, true, "the WebSocket upgrade was refused",              \
      "A proxy or another server answered; check the URL and the proxy settings.")                  \
    X(CONFIG, CONFIGURATION, 10, 500, 1011, 11, false, "configuration error",                       \
      "Run `culvert config check`.")                                                                \
    X(NO_TUNNEL, SERVER, 11, 404, 4404, 10, false, "no such tunnel",                                \
      "Check the tunnel's name, and that its agent uses a token of the same user.")                 \
    X(AGENT_OFFLINE, SERVER, 12, 503, 1013, 10, true, "the agent of this tunnel is offline",        \
      "Start the agent beside the service, or look at its log.")                                    \
    X(SERVICE_REFUSED, SERVER, 13, 502, 1013, 10, true, "the local service refused the connection", \
      "Start the service, or check the port that was given to the agent.")                          \
    X(SERVICE_TIMEOUT, SERVER, 14, 504, 1013, 10, true, "the local service could not be reached in time", \
      "Check that the service is alive.")                                                           \
    X(SERVICE_UNREACHABLE, SERVER, 13, 502, 1013, 10, true, "the local service cannot be reached",  \
      "Check the address that was given to the agent.")                                             \
    X(CHANNEL_LIMIT, SERVER, 15, 503, 1013, 12, true, "too many streams at once on this link",      \
      "Send fewer requests at once or raise ssh.max_channels on both sides.")                       \
    X(BAD_REQUEST, PROTOCOL, 16, 400, 1002, 2, false, "malformed HTTP request",                     \
      "Send a request that follows RFC 9112.")                                                      \
    X(HTTP_VERSION, PROTOCOL, 16, 505, 1002, 2, false, "HTTP version not supported",                \
      "Use HTTP/1.1.")                                                                              \
    X(METHOD_NOT_ALLOWED, PROTOCOL, 16, 405, 1002, 2, false, "method not allowed here",             \
      "Use the method that the documentation names.")                                               \
    X(NOT_FOUND, PROTOCOL, 16, 404, 4404, 2, false, "nothing here",                                 \
      "Tunnels are at /t/<tunnel>/.")                                                               \
    X(UNPROCESSABLE, PROTOCOL, 16, 422, 1002, 2, false, "the request cannot be carried out",        \
      "Look at `detail`, and at docs/openapi.yaml.")                                                \
    X(EXPECTATION, PROTOCOL, 16, 417, 1002, 2, false, "expectation cannot be met",                  \
      "Only `Expect: 100-continue` is known.")                                                      \
    X(NOT_IMPLEMENTED, PROTOCOL, 16, 501, 1002, 2, false, "transfer coding not supported",          \
      "Use chunked or Content-Length.")                                                             \
    X(URI_TOO_LONG, PROTOCOL, 17, 414, 1009, 2, false, "request line too long",                     \
      "Use a shorter URL.")                                                                         \
    X(HEAD_TOO_LARGE, PROTOCOL, 17, 431, 1009, 2, false, "request head too large",                  \
      "Send fewer or smaller header fields.")                                                       \
    X(BODY_TOO_LARGE, PROTOCOL, 17, 413, 1009, 2, false, "request body too large",                  \
      "Send a smaller body.")                                                                       \
    X(NOT_ALLOWED, CONFIGURATION, 18, 403, 1008, 1, false, "the tunnel's rules refuse this request",\
      "The owner of the tunnel can allow it with another --preset or rule.")                        \
    X(TRUNCATED, SERVER, 19, 502, 1011, 11, true, "the answer broke off",                           \
      "Ask again; `hop` says where it was cut.")                                                    \
    X(TLS, NETWORK, 20, 502, 1015, 11, false, "TLS error",                                          \
      "Check the certificate, its name, and that both sides speak TLS 1.3.")                        \
    X(TLS_CERTIFICATE, AUTHENTICATION, 20, 502, 1015, 11, false, "the server's certificate is not trusted", \
      "Check the server's name and certificate, or give its authority with --ca-file.")             \
    X(HOST_KEY, AUTHENTICATION, 21, 502, 1008, 9, false, "the relay's host key has changed",        \
      "If the operator confirms the new key, remove the old line from the known_hosts file named here.") \
    X(RESOLVE, NETWORK, 22, 502, 1006, 11, true, "the name cannot be resolved",                     \
      "Check the host name and the DNS settings.")                                                  \
    X(PROXY, NETWORK, 23, 502, 1006, 11, true, "the proxy refused the connection",                  \
      "Check the proxy's address, its user and password.")                                          \
    X(REPLACED, SERVER, 24, 409, 4409, 11, false, "another agent has taken over this tunnel",       \
      "Stop the other agent, or publish under another name.")                                       \
    X(FORBIDDEN, AUTHENTICATION, 25, 403, 4403, 1, false, "not permitted",                          \
      "The token does not carry this right.")                                                       \
    X(ORIGIN, AUTHENTICATION, 25, 403, 4403, 1, false, "this origin is not permitted",              \
      "Add the origin to cors.origins on the relay.")                                               \
    X(INTERNAL, UNKNOWN, 26, 500, 1011, 11, false, "internal error",                                \
      "Please report it with the request id.")                                                      \
    X(BAD_RESPONSE, SERVER, 27, 502, 1011, 11, false, "the service's answer is not valid HTTP",     \
      "Check that the tunnel leads to an HTTP service.")                                            \
    X(LINK_LOST, NETWORK, 28, 502, 1006, 10, true, "the link to the agent was lost",                \
      "Ask again; the agent comes back by itself.")                                                 \
    X(LINK_CLOSED, NETWORK, 28, 502, 1000, 11, true, "the link was closed by an operator",          \
      "Ask again; the agent comes back by itself.")                                                 \
    X(RESUME_UNKNOWN, NETWORK, 32, 410, 1006, 10, true, "the link is not known any more",           \
      "The agent connects anew by itself; requests that were on the link have ended.")              \
    X(RESUME_CONFLICT, NETWORK, 32, 409, 1006, 10, true, "the link was taken up already",           \
      "The agent tries again by itself.")                                                           \
    X(RESUME_PROOF, NETWORK, 32, 403, 1006, 10, false, "the proof for the link is wrong",           \
      "The agent connects anew by itself; if this repeats, look for a box that changes its requests.") \
    X(NO_MEMORY, SERVER, 29, 503, 1011, 11, true, "out of memory", "Try again later.")              \
    X(NO_RESOURCES, SERVER, 29, 503, 1013, 4, true, "out of resources", "Try again later.")         \
    X(CANCELLED, UNKNOWN, 30, 499, 1000, 11, false, "cancelled by the caller", "")                  \
    X(INVALID, UNKNOWN, 26, 500, 1011, 11, false, "invalid argument", "Please report it.")          \
    X(IO, SERVER, 31, 500, 1011, 11, false, "file or device error",                                 \
      "Check the path, its permissions and the free space.")                                        \
    X(USAGE, CONFIGURATION, 10, 500, 1011, 11, false, "wrong usage", "See --help.")
/* clang-format on */

enum cv_status_id {
#define CV_STATUS_ENUM(name, ...) CV_##name,
    CV_STATUS_TABLE(CV_STATUS_ENUM)
#undef CV_STATUS_ENUM
        CV_STATUS_COUNT
};

enum cv_category {
    CV_CATEGORY_NETWORK,
    CV_CATEGORY_AUTHENTICATION,
    CV_CATEGORY_CONFIGURATION,
    CV_CATEGORY_SERVER,
    CV_CATEGORY_PROTOCOL,
    CV_CATEGORY_UNKNOWN,
    CV_CATEGORY_COUNT
};

/* Which part of the path cut a request. */
enum cv_hop { CV_HOP_CONSUMER, CV_HOP_RELAY, CV_HOP_LINK, CV_HOP_AGENT, CV_HOP_SERVICE };

struct [[nodiscard]] cv_status {
    enum cv_status_id id;
};

/* Optional detail beside a status; filled by the function that failed, owned by the caller. */
struct cv_error {
    enum cv_status_id id;
    int sys_errno;    /* errno of the failed call, 0 if none */
    char detail[256]; /* one sentence, NUL-terminated, no secrets, no control characters */
};

#define CV_RETURN_IF_ERROR(expr)                                                                   \
    do {                                                                                           \
        struct cv_status cv_status_ = (expr);                                                      \
        if (cv_status_.id != CV_OK)                                                                \
            return cv_status_;                                                                     \
    } while (0)

static inline struct cv_status cv_status(enum cv_status_id id)
{
    return (struct cv_status){id};
}

static inline struct cv_status cv_ok(void)
{
    return (struct cv_status){CV_OK};
}

static inline bool cv_is_ok(struct cv_status status)
{
    return status.id == CV_OK;
}

/* Fills *error (may be NULL) with printf-style detail and returns the status, so that a failing
 * function can `return cv_fail(error, CV_CONFIG, "line %d: …", line);`. Detail is cut at 255 bytes.
 */
__attribute__((format(printf, 3, 4))) struct cv_status
cv_fail(struct cv_error *error, enum cv_status_id id, const char *format, ...);

/* Same, for a failed system call: keeps sys_errno and appends its text to detail. */
__attribute__((format(printf, 4, 5))) struct cv_status
cv_fail_errno(struct cv_error *error, enum cv_status_id id, int sys_errno, const char *format, ...);

/* The table's columns. All return static strings or plain numbers; an id out of range counts as
 * CV_INTERNAL. */
const char *cv_status_name(enum cv_status_id id);       /* "CONN_REFUSED" */
const char *cv_status_text(enum cv_status_id id);       /* "connection refused" */
const char *cv_status_suggestion(enum cv_status_id id); /* a sentence, may be empty */
const char *cv_status_code(enum cv_status_id id);       /* "TUNNEL_001", "" where there is none */
enum cv_category cv_status_category(enum cv_status_id id);
int cv_status_http(enum cv_status_id id);
int cv_status_ws_close(enum cv_status_id id);
int cv_status_ssh_disconnect(enum cv_status_id id);
bool cv_status_is_retryable(enum cv_status_id id);
const char *cv_category_name(enum cv_category category); /* "network" */
const char *cv_hop_name(enum cv_hop hop);                /* "consumer" */

/* Maps an errno of connect/read/write to a status (ECONNREFUSED → CV_CONN_REFUSED …). */
enum cv_status_id cv_status_from_errno(int sys_errno);

#endif
