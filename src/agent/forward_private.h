/* SPDX-License-Identifier: MIT
 *
 * What forward_http.c (requests and answers of local connections) and forward_queue.c (who waits
 * for a stream, and what is told to whom gets none) share. Nobody else includes this.
 */
#ifndef CV_AGENT_FORWARD_PRIVATE_H
#define CV_AGENT_FORWARD_PRIVATE_H

#include "agent/forward_http.h"
#include "base/buf.h"
#include "base/timers.h"
#include "flow/queue.h"

struct cv_conn;
struct cv_http_parser;
struct cv_link;
struct cv_stream;
struct cv_stream_ops;

enum { HTTP_CALLERS_MAX = 1500 };

enum http_state {
    HTTP_READING,   /* no request, or not the whole of its head */
    HTTP_QUEUED,    /* it waits for a stream */
    HTTP_OPENING,   /* the relay was asked for one */
    HTTP_UNDER_WAY, /* it goes out, its answer comes */
    HTTP_ENDING,    /* nothing counts any more; on_closed follows */
};

/* A local connection, and its request at hand. */
struct http_caller {
    struct forward_http *http;
    struct cv_conn *conn;
    enum http_state state;
    struct cv_stream *stream; /* stays for the next request */
    struct cv_link *link;     /* of the stream */
    size_t owed;              /* taken from the stream, not yet reported as consumed */
    uint64_t idle_ms;         /* reading: since when the stream is idle */
    struct cv_http_parser *requests, *answers;
    struct cv_buf out;  /* the request as it came; from its start while is_kept */
    size_t sent;        /* of it, to the stream */
    struct cv_buf rest; /* what came behind it */
    struct cv_queue_entry entry;
    struct cv_timer wait;
    enum cv_priority priority;
    unsigned tries;
    bool is_whole;    /* the request has come to its end */
    bool is_kept;     /* it could be sent again */
    bool is_answered; /* a byte of an answer has come */
    bool is_head, is_upgrade, is_idempotent;
    bool is_last;        /* the connection ends with it */
    bool is_until_close; /* the answer ends with the stream */
    bool is_raw;         /* bytes are not looked at any more */
    struct http_caller *prev, *next;
};

struct forward_http {
    struct cv_worker *worker;
    struct forward_http_options options;
    struct http_caller *callers; /* utlist DL */
    size_t caller_count;
    struct cv_queue queue;
    struct cv_timer retry; /* the link is full */
    bool is_pressing;      /* it was told */
    bool is_stopping;
};

/* ---- forward_http.c ---- */

extern const struct cv_stream_ops http_stream_ops;

/* Holds the agent while a stream is asked for or in use. */
void caller_set_state(struct http_caller *c, enum http_state state);
void caller_drop_stream(struct http_caller *c);
/* Closes when what was written is out. */
void caller_end(struct http_caller *c);
/* c->stream is open: the request goes out. */
void caller_go(struct http_caller *c);

/* ---- forward_queue.c ---- */

void caller_init_queue(struct http_caller *c);
/* Behind those of its priority; a full queue makes room or refuses. */
void queue_enter(struct http_caller *c);
/* Before those of its priority: it had been let out before. */
void queue_return(struct http_caller *c);
void queue_leave(struct http_caller *c);
void queue_on_open(struct http_caller *c);
/* The line Culvert-Backpressure, with its end; 0 while there is none. */
size_t queue_pressure(const struct forward_http *http, char *line, size_t cap);
/* Answers with a problem (RFC 9457) and closes. `detail` may be NULL. */
void caller_refuse(struct http_caller *c, enum cv_status_id id, const char *detail);

#endif
