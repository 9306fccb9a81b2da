/* SPDX-License-Identifier: MIT
 *
 * What the files of a consumer's connection share: consumer.c (the connection: bytes in, requests
 * one by one), consumer_entry.c (where connections come from), consumer_move.c (to another worker),
 * pass.c (to another process), route.c (what a request is for), route_auth.c (who asks), visit.c
 * (whose tunnel), pages.c (the relay's own pages), exchange.c (a request and its answer through an
 * upstream), bandwidth.c (how fast), head.c and head_hops.c (heads written anew), problem.c
 * (errors), source.c (who asks, by address), tracing.c (its spans). Nobody else includes this.
 */
#ifndef CV_RELAY_CONSUMER_PRIVATE_H
#define CV_RELAY_CONSUMER_PRIVATE_H

#include "auth/identity.h"
#include "base/fsm.h"
#include "net/addr.h"
#include "proto/http/http.h"
#include "proto/http/http_parser.h"
#include "proto/http/http_path.h"
#include "relay/consumer.h"
#include "relay/limits.h"
#include "relay/port.h"
#include "relay/relay.h"
#include "relay/upstream.h"
#include "telemetry/model_stream.h"
#include "telemetry/tracer.h"

enum {
    CONSUMER_PIPELINE_MAX = 128 * 1024, /* bytes behind the current request that are kept */
    CONSUMER_IN_MAX = 1024 * 1024,      /* with what one loop turn may read */
    CONSUMER_REPLAY_MAX = 64 * 1024,    /* of a request, kept for a second try */
    CONSUMER_BODY_MAX = 256 * 1024,     /* of a request's body, waiting for the upstream */
    CONSUMER_REQUEST_ID_LEN = 40,
    CONSUMER_RETRY_IDLE_MS = 1000, /* a pooled stream for methods that cannot be repeated */
    /* Who keeps a request alive by moving a byte now and then must move this much in so many times
     * limits.body_idle_timeout. */
    CONSUMER_SLOW_TIMES = 10,
    CONSUMER_SLOW_BODY_BYTES = 1024,
    CONSUMER_SLOW_READ_BYTES = 16 * 1024,
};

enum consumer_state {
    CONSUMER_READING,  /* between requests, or in a request's head */
    CONSUMER_WAITING,  /* the head is here; waits for keys to verify its token with, or for the
                          agent that is to come back */
    CONSUMER_HELD,     /* its token was refused, which it is told later */
    CONSUMER_MOVING,   /* on its way to another worker */
    CONSUMER_EXCHANGE, /* a request is with an upstream */
    CONSUMER_TUNNEL,   /* upgraded: bytes both ways */
    CONSUMER_ENDING,   /* the last answer is going out */
    CONSUMER_STATE_COUNT
};

/* Of a request, for the metrics (measure.h). */
struct exchange_measure {
    enum cv_status_id failure; /* the first error that was told; CV_OK: none */
    uint8_t tier;              /* the label's value */
    bool is_tunnel;            /* it is for a tunnel */
    bool is_link;              /* it is an attempt to make a link */
};

/* One request and its answer. */
struct exchange {
    char id[CONSUMER_REQUEST_ID_LEN];
    struct cv_route route;
    struct cv_identity *identity;
    struct cv_upstream *upstream;
    struct cv_http_parser *response;
    struct cv_buf request; /* canonical bytes for the service, from replay_start on */
    size_t request_sent;   /* of them, already taken by the upstream */
    size_t unconsumed;     /* of the answer, waiting in the consumer's output */
    uint64_t started_ms;
    uint64_t started_ns, opened_ns, first_byte_ns; /* for measuring: the head was here, the stream,
                                                      the answer's first byte; 0: not yet */
    struct exchange_measure measured;
    uint64_t service_due_ms; /* first byte or idle; UINT64_MAX: off */
    uint64_t total_due_ms;
    uint64_t service_paused_ms; /* of the link, when service_due_ms was set … */
    uint64_t total_paused_ms;   /* … and total_due_ms */
    const struct api_call *api; /* of the management API; NULL: none */
    struct gather *gather;      /* of api_state.c, under way; NULL: none */
    struct saving *saving;      /* of api_revocations.c */
    char api_arg[136];          /* the last segment of its path, where that varies */
    bool is_api;                /* its body is the API's */
    bool is_wrong_method;
    uint64_t body_received;
    uint64_t answered;            /* bytes from the service, its head included */
    const char *method;           /* for the audit log: a literal */
    int status;                   /* of the final answer, 0 before */
    enum cv_status_id error;      /* it has failed so; CV_OK: it has not, or not by our doing */
    struct cv_trace_ids trace;    /* its own span, or, where none are sent, the sender's */
    struct cv_trace_record *span; /* NULL: it is not sampled, or has been put */
    uint8_t trace_parent_id[CV_SPAN_ID_LEN];
    unsigned tries;
    enum cv_http_framing request_framing, response_framing;
    cv_source *source;      /* for the moment; NULL: not counted */
    struct cv_quota quota;  /* told with the answer */
    unsigned retry_after_s; /* of a refusal; 0: as the error has it */
    struct cv_breaker_ticket ticket;
    uint64_t throttled_until_ms; /* by the bandwidth of its tier; 0: it is not */
    uint64_t upload_until_ms;    /* the same for what the consumer sends */
    bool has_bandwidth;          /* the tier has such a limit */
    enum cv_priority priority;
    uint64_t asked_ms;      /* Culvert-Timeout, within timers.asked_max; 0: not asked */
    size_t queue_position;  /* told with a 503: where it waited, or would have; 0: it did not … */
    uint64_t queue_wait_ms; /* … and for how much longer, about */
    bool has_prefix;        /* the tunnel's name is in the path */
    bool is_admitted;       /* counted for the source */
    bool is_charged;        /* the relay that passed it on has counted it */
    bool is_replayable;     /* `request` still begins with the first byte */
    bool is_idempotent;
    bool is_head_request;
    bool is_upgrade;
    bool is_resume;         /* of a link: route.session is its session */
    bool is_request_whole;  /* the consumer has sent all of it */
    bool is_response_begun; /* a byte of the answer has come */
    bool is_head_out;       /* the final head is on its way to the consumer */
    bool is_continue_due;   /* the consumer waits for 100 */
    bool is_response_whole;
    bool is_cut;     /* it was broken off behind its head, and not by the consumer */
    bool is_end_due; /* the exchange ends when the consumer has taken its answer */
    bool is_counted;
    bool is_service_reusable;
    /* For the mark of a truncated stream: what kind, and whether a line is open. */
    enum { MARK_NONE, MARK_SSE, MARK_NDJSON } mark;
    bool is_line_open;
    bool has_trace_parent;        /* the consumer has begun the trace */
    struct cv_model_stream model; /* of an answer that may be a model's stream */
};

struct cv_consumer {
    struct cv_relay_worker *worker;
    struct cv_port port;
    struct cv_http_parser *parser;
    struct cv_buf in; /* came while it could not be used */
    struct cv_fsm state;
    struct exchange x;
    struct cv_http_head head;            /* of the current request; slices live in the parser */
    struct cv_identity *owner;           /* streams: whose; every request is for `tunnel` */
    char tunnel[CV_TUNNEL_NAME_MAX + 1]; /* sockets: from the Host of the current request */
    struct cv_addr peer;
    struct cv_addr client; /* who asks: the peer, or whom a trusted proxy names */
    cv_source *connection; /* counts this connection; NULL: it is not counted */
    struct cv_status held_status;
    uint64_t held_due_ms;
    struct cv_timer timer; /* the next of all deadlines, looked at when it fires */
    struct cv_mail mail;
    uint64_t progress;      /* of the output, when client_due_ms was looked at last */
    uint64_t client_due_ms; /* head, keep-alive or body must move until then */
    uint64_t slow_due_ms;   /* the body must have brought CONSUMER_SLOW_BODY_BYTES until then */
    uint64_t slow_received; /* of them */
    uint64_t slow_progress; /* as `progress`, when it last had moved enough */
    unsigned slow_times;    /* looked since then */
    uint64_t keys_due_ms;   /* waiting for keys: give up then */
    uint64_t keys_attempts;
    uint64_t agent_due_ms; /* waiting for the agent: give up then; 0: not waiting for it */
    bool is_peer_trusted;
    bool is_announced; /* a trusted proxy said whose connection this is (PROXY protocol) */
    bool is_half_open; /* `connection` counts it so */
    bool is_charged;   /* the next request was counted by the relay that passed it on */
    bool is_private;   /* came to metrics.listen: liveness only */
    bool has_moved;
    bool is_last;       /* no further request on this connection */
    bool has_asked;     /* a request has come on this connection */
    bool is_passed;     /* a relay that has taken over from this one passed it on (takeover.h) */
    bool is_taken;      /* … and was told that it is answered here */
    bool is_unpassable; /* the relay before this one would not have it */
    bool is_eof;
    bool is_blocked; /* reading pauses until the upstream takes more */
    bool is_processing;
    bool is_between; /* no byte of the next request has come */
    bool is_listed;
    struct cv_defer next_request; /* process(), or the end, at the end of the turn */
    struct cv_defer departure;
    struct cv_relay_worker *destination;
    struct cv_consumer *prev, *next;
};

/* ---- consumer.c ---- */

/* In the worker's list, its port not open yet; NULL without memory. */
struct cv_consumer *consumer_new(struct cv_relay_worker *worker);
extern const struct cv_port_ops consumer_port_ops;

/* Goes on with what is in `in`; after whatever has unblocked the connection. */
void consumer_process(struct cv_consumer *c);
/* The current request is over. `is_reusable`: the connection may carry another one. */
void consumer_request_done(struct cv_consumer *c, bool is_reusable);
/* The answer cannot be finished in a way that would show: cuts the connection. */
void consumer_abort(struct cv_consumer *c);
/* The connection was given away: frees the rest at the end of the turn. */
void consumer_gone(struct cv_consumer *c);
/* Looks at all deadlines again. */
void consumer_arm(struct cv_consumer *c);
uint64_t consumer_now_ms(const struct cv_consumer *c);
/* The consumer's own deadline: head, keep-alive or body must move within `ms`. */
void consumer_set_timer(struct cv_consumer *c, uint64_t ms);
/* Keeps bytes that cannot be used yet, behind those kept before; without room the connection ends.
 */
void consumer_keep(struct cv_consumer *c, struct cv_slice rest);
/* Goes on with a request that has moved or waited for keys: what came of its body meanwhile is
 * looked at before its head goes out. */
void consumer_go_on(struct cv_consumer *c);
/* In and out of the worker's list of connections. */
void consumer_list(struct cv_consumer *c, struct cv_relay_worker *worker);
void consumer_unlist(struct cv_consumer *c);
/* Frees it now: nobody up the stack may look at it again. */
void consumer_free(struct cv_consumer *c);
/* GET or HEAD. */
bool consumer_is_get(const struct cv_consumer *c);

/* ---- consumer_move.c ---- */

/* Moves to worker `index` and calls route_go_on there. `is_for_good`: as the socket of a link, to
 * which neither once-in-a-life nor a trusted proxy is an obstacle. False: it has to stay. */
bool consumer_move(struct cv_consumer *c, unsigned index, bool is_for_good);

/* ---- route.c ---- */

/* Gives the current request its id. */
void route_make_id(struct cv_consumer *c);
/* A request's head is here. */
void route_request(struct cv_consumer *c);
/* The same after a move or after waiting. */
void route_go_on(struct cv_consumer *c);
/* It is waiting, and need not any longer. */
bool route_is_due(struct cv_consumer *c);

/* ---- route_auth.c ---- */

/* True: the identity is known. False: the request was answered, or waits for keys. */
bool route_authenticate(struct cv_consumer *c);
/* A request for a tunnel is in the audit log once, with its end (exchange.c) or as refused: this is
 * for links and the API. `what` is borrowed. */
void route_audit_auth_ok(const struct cv_consumer *c, const char *what);

/* The request shows no token, of ours or not. */
bool route_has_no_token(const struct cv_consumer *c);

/* ---- visit.c ---- */

/* Whoever asks is somebody from now on: the user of the token, or, where the path names an owner
 * and the relay has public tunnels, somebody anonymous. False: as route_authenticate. */
bool visit_enter(struct cv_consumer *c, const struct cv_http_tunnel_path *at);
/* A token for some tunnels is for those of its own user. */
bool visit_is_within_token(const struct cv_consumer *c, const struct cv_http_tunnel_path *at);
/* As cv_registry_find, for who asks; the tunnel that `at` names, and the one of x.route again. */
struct cv_status visit_find(const struct cv_consumer *c, const struct cv_http_tunnel_path *at,
                            struct cv_route *route);
struct cv_status visit_find_again(const struct cv_consumer *c, struct cv_route *route);
/* There is no such tunnel for anybody anonymous: answers that a token is missing. */
void visit_want_token(struct cv_consumer *c);
/* For logs: whose tunnel it is, at most 63 bytes; NULL: that of who asks. As long as x.route. */
const char *visit_owner(const struct cv_consumer *c);

/* ---- wish.c ---- */

/* Priority and time limit that the current request asks for. False: they make no sense, and it has
 * been answered. */
bool wish_read(struct cv_consumer *c);

/* ---- source.c ---- */

bool source_is_trusted(const struct cv_relay *relay, const struct cv_addr *peer);
/* Finds out who asks: c->client, c->x.source. */
void source_find(struct cv_consumer *c);
/* Counts the current request for its source (once), and for its user and the relay. False: it was
 * over, and has been answered. */
bool source_admit(struct cv_consumer *c, enum cv_limit_kind kind);
bool source_admit_user(struct cv_consumer *c, enum cv_limit_kind kind);
/* After authentication has failed with `status`: true when the answer is to wait; it goes out by
 * itself. */
bool source_hold_back(struct cv_consumer *c, struct cv_status status);

/* ---- pages.c ---- */

/* /livez, /readyz and /health, for anybody. False: it is none of these, nothing was done. */
bool pages_health(struct cv_consumer *c);
/* /metrics, on a listener of its own. False: it is not that, nothing was done. */
bool pages_metrics(struct cv_consumer *c);

/* What an upgrade to a link answers; `extra` is further field lines with CRLF, or NULL. Without
 * memory nothing is written, and the peer, which sees no answer, dials again. */
void route_write_101(struct cv_consumer *c, struct cv_slice protocol, const uint8_t link_id[16],
                     const char *extra);

/* ---- api.c ---- */

/* Whether the request is for the management API, and which call it is. */
bool api_find(struct cv_consumer *c);
/* The pattern of its path, a literal. */
const char *api_route(const struct cv_consumer *c);
/* After authentication: checks the right, then runs the call, or waits for its body. */
void api_serve(struct cv_consumer *c);
void api_body(struct cv_consumer *c, struct cv_slice data);
void api_end(struct cv_consumer *c);
/* The request has ended, with or without an answer. */
void api_forget(struct cv_consumer *c);
/* The Allow field of a 405. */
void api_allow(const struct cv_consumer *c, char *out, size_t cap);

/* ---- pass.c ---- */

/* What the request asks for is not here. True: the relay before this one may have it, which is
 * asked now, and the connection is gone; it comes back when that relay will not have it. */
bool pass_to_predecessor(struct cv_consumer *c);
/* What the request asks for is here: who passed it on, if anybody did, is told. */
void pass_take(struct cv_consumer *c);

/* ---- resume.c ---- */

/* An upgrade with Culvert-Resume, authenticated: on the link's worker, or on its way there. */
/* Whether the request asks for a link that is there, here or at the relay before this one. Nothing
 * is proven by that, but who makes links up cannot say it. */
bool resume_is_of_a_link(const struct cv_consumer *c);
void resume_serve(struct cv_consumer *c);
/* It has arrived. */
void resume_go_on(struct cv_consumer *c);

/* ---- exchange.c ---- */

void exchange_begin(struct cv_consumer *c);
/* A literal for a method that is well known, "other" for the rest. */
const char *exchange_method_name(struct cv_slice method);
void exchange_body(struct cv_consumer *c, struct cv_slice data);
void exchange_request_end(struct cv_consumer *c, const struct cv_http_field *trailers,
                          size_t count);
/* Sends what has gathered while the consumer's bytes were being looked at. The exchange may be over
 * afterwards. */
void exchange_flush(struct cv_consumer *c);
/* Bytes of an upgraded connection. */
void exchange_tunnel_data(struct cv_consumer *c, struct cv_slice data);
void exchange_tunnel_eof(struct cv_consumer *c);
void exchange_on_writable(struct cv_consumer *c);
/* The service may send more, as far as the consumer has read and the tier grants. */
void exchange_give_back(struct cv_consumer *c);
/* `len` bytes have come for the service. */
void exchange_charge_upload(struct cv_consumer *c, size_t len);
/* The tier's bandwidth allows more of the request. */
void exchange_go_on_upload(struct cv_consumer *c);
/* Lets go of everything; the upstream's stream is closed. */
void exchange_cancel(struct cv_consumer *c);
/* The exchange cannot go on: an error answer, or the mark of a truncated one. */
void exchange_fail(struct cv_consumer *c, enum cv_status_id id, enum cv_hop hop,
                   const char *detail);

/* Both messages are whole: exchange_finish, as soon as the consumer has taken its answer. */
void exchange_end(struct cv_consumer *c);
/* The exchange went well: the stream may be pooled, the connection goes on. */
void exchange_finish(struct cv_consumer *c);

/* ---- timing.c ---- */

/* At the beginning: all of them. */
void exchange_set_timers(struct cv_consumer *c);
/* The time that the request's link had no socket does not count; then it goes over to another link,
 * and the pauses of that one do. */
void exchange_leave_session(struct cv_consumer *c);
void exchange_enter_session(struct cv_consumer *c);
/* First byte or idle, whichever the answer waits for now. */
void exchange_set_service_timer(struct cv_consumer *c);
/* The first byte of the answer is here; a slow one is logged. */
void exchange_note_first_byte(struct cv_consumer *c);
void exchange_on_timer(struct cv_consumer *c, uint64_t now_ms);
/* For the answer: where the request waits, or would have to, before it gives that up. */
void exchange_note_place(struct cv_consumer *c);

/* ---- tracing.c ---- */

/* Of which trace the current request is a part; once its head and its source are known. */
void tracing_begin(struct cv_consumer *c);
/* What it is for: from here on it has spans, if its trace is sampled. `route` is a pattern, ""
 * where nothing is there; copied. */
void tracing_record(struct cv_consumer *c, const char *route);
/* It is an upgrade to a link, or of `session` that is taken up again (else NULL). Its span for the
 * session to keep; NULL: it has none. */
const struct cv_trace_ids *tracing_link(struct cv_consumer *c, const struct cv_session *session);
/* Steps on the way; nothing without spans. */
void tracing_forward(struct cv_consumer *c);
void tracing_opened(struct cv_consumer *c, bool is_reused);
void tracing_first_byte(struct cv_consumer *c);
/* The request has ended, however: its spans are sent. Idempotent. */
void tracing_end(struct cv_consumer *c);
/* It goes on elsewhere: no spans of it from here. */
void tracing_forget(struct cv_consumer *c);
/* The trace's id, where its spans are sent; else NULL. */
const uint8_t *tracing_kept(const struct cv_consumer *c);
/* traceparent and tracestate for the service. */
struct cv_status tracing_write_request(const struct cv_consumer *c, struct cv_buf *out);
/* What tracing.answer asks for, in an answer to the consumer; whether that is anything. */
struct cv_status tracing_write_answer(const struct cv_consumer *c, struct cv_buf *out);
bool tracing_is_answered(const struct cv_consumer *c);

/* ---- guard.c ---- */

/* May the current request go to its tunnel's service? False: the breaker is open, and it has been
 * answered. */
bool guard_admit(struct cv_consumer *c);
/* How that went; counts once for each request. */
void guard_tell(struct cv_consumer *c, enum cv_breaker_outcome outcome);
/* It ends with this error before a byte of the answer has gone out. */
void guard_tell_failure(struct cv_consumer *c, enum cv_status_id id);

/* ---- answer.c ---- */

/* All events of the bytes fed to the answer's parser. The exchange may be over afterwards. */
void answer_parse(struct cv_consumer *c);

/* ---- head.c ---- */

struct cv_status head_write_request(struct cv_consumer *c, struct cv_buf *out);
struct cv_status head_write_response(struct cv_consumer *c, const struct cv_http_head *head,
                                     struct cv_buf *out);
struct cv_status head_write_interim(const struct cv_http_head *head, struct cv_buf *out);
/* Access-Control-* of the relay for the origin of the current request, if it is allowed. */
struct cv_status head_write_cors(const struct cv_consumer *c, struct cv_buf *out);
/* Culvert-Backpressure, when the queue of the current request's user is nearly full. */
struct cv_status head_write_pressure(const struct cv_consumer *c, struct cv_buf *out);
/* Whether cors.origins has the Origin of the current request. */
bool head_origin_is_allowed(const struct cv_consumer *c);
/* Whether it is where the request went: a page that came through this relay. Port and host are
 * compared, not the scheme, which a proxy in front may have changed. */
bool head_origin_is_own(const struct cv_consumer *c);
/* Whether the service's 101 names no subprotocol, or one that the request offered (RFC 6455 §4.1).
 */
bool head_protocol_was_offered(const struct cv_consumer *c, const struct cv_http_head *head);

/* ---- head_hops.c ---- */

/* What tells the service of the request's way here: X-Forwarded-*, Forwarded, Via, Max-Forwards,
 * traceparent. As the writer's functions, but on failure a part may stand in `out`. */
struct cv_status head_write_hops(const struct cv_consumer *c, struct cv_buf *out);

/* ---- problem.c ---- */

/* What a tunnel's service may be asked with, and the relay itself. */
#define PROBLEM_ALLOW "Allow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS\r\n"

/* Answers the current request with RFC 9457; the connection closes unless `is_reusable`. */
void problem_answer(struct cv_consumer *c, enum cv_status_id id, enum cv_hop hop,
                    const char *detail, bool is_reusable);
/* A small answer of the relay's own. `type` NULL: no body. `extra`: further field lines with CRLF,
 * or NULL. */
void problem_simple(struct cv_consumer *c, int status, const char *type, const char *body,
                    const char *extra);
/* Completes the open line of a stream that breaks and appends an error event or object. */
void problem_mark(struct cv_consumer *c, enum cv_status_id id, enum cv_hop hop);

#endif
