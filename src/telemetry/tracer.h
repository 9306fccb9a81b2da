/* SPDX-License-Identifier: MIT
 *
 * Spans on their way from the threads that make them to the one that sends them. What is recorded
 * of one request, or one connection of a link, is one record of fixed size; spans are made of it
 * when it is sent (otlp.h).
 *
 * Each thread that records has a ring of its own: one writer, one reader, no lock, never waits. A
 * record that finds its ring full is dropped and counted. A process that traces nothing has no
 * tracer (NULL), and none of this costs it anything.
 *
 * Owns its rings. A queue belongs to one thread; cv_tracer_take to the one that sends.
 */
#ifndef CV_TELEMETRY_TRACER_H
#define CV_TELEMETRY_TRACER_H

#include "telemetry/trace_context.h"

#include <stdatomic.h>

/* Records in a ring; a power of two. */
#define CV_TRACE_QUEUE_RECORDS 1024

/* Spans that one record becomes at most. */
#define CV_TRACE_RECORD_SPANS 4

enum cv_trace_kind {
    CV_TRACE_REQUEST, /* relay: a consumer's request; further spans for its way to the service */
    CV_TRACE_LINK,    /* relay: the upgrade of a link, or of one that is resumed */
    CV_TRACE_CONNECT, /* agent: from the first try to the link that stands */
    CV_TRACE_RESUME,  /* agent: from the loss of a link's connection to the next one */
};

/* Times are nanoseconds; 0: it has not come to that. Texts are cut, and lose credentials when they
 * are sent. */
struct cv_trace_record {
    enum cv_trace_kind kind;
    struct cv_trace_ids ids; /* of its first span */
    uint8_t parent_id[CV_SPAN_ID_LEN];
    bool has_parent, has_link, is_tls, is_reused, is_whole;
    struct cv_trace_ids link; /* a span that this one has to do with */
    uint8_t forward_id[CV_SPAN_ID_LEN], connect_id[CV_SPAN_ID_LEN], stream_id[CV_SPAN_ID_LEN];
    uint64_t wall_ns;  /* of the begin, since 1970 */
    uint64_t begin_ns; /* this and the next: monotonic */
    uint64_t forward_ns, open_ns, first_ns, end_ns;
    uint64_t bytes_in, bytes_out;
    unsigned tries;
    int status;              /* of HTTP; 0: none was sent */
    enum cv_status_id error; /* CV_OK: none of ours */
    char method[16];
    char route[64]; /* a pattern, never the path itself; "" where there is none */
    char path[256];
    char tunnel[64];
    char user[64];
    char client[48];
    char request_id[48];
};

enum cv_trace_drop {
    CV_TRACE_DROP_QUEUE_FULL,  /* more spans than are sent */
    CV_TRACE_DROP_UNREACHABLE, /* the collector is away, slow, or asks to come back too often */
    CV_TRACE_DROP_REJECTED,    /* it does not want them */
    CV_TRACE_DROP_SHUTDOWN,    /* not sent in time at the end */
    CV_TRACE_DROP_NO_MEMORY,
    CV_TRACE_DROP_COUNT
};

/* "queue_full", … */
const char *cv_trace_drop_name(enum cv_trace_drop reason);

struct cv_tracer;
struct cv_trace_queue;

/* Makes `queues` rings. `on_waiting` (may be NULL) is called on a recording thread when a ring has
 * become half full, once until cv_tracer_take: it must not wait. CV_NO_MEMORY; *out is NULL. */
struct cv_status cv_tracer_new(const struct cv_sampler *sampler, unsigned queues,
                               void (*on_waiting)(void *arg), void *arg, struct cv_tracer **out);
/* Nobody may record any more. Takes NULL. */
void cv_tracer_free(struct cv_tracer **tracer);

const struct cv_sampler *cv_tracer_sampler(const struct cv_tracer *tracer);

/* The queue of one thread; NULL for a NULL tracer. */
struct cv_trace_queue *cv_tracer_queue(struct cv_tracer *tracer, unsigned index);

/* Copies the record. The queue's own thread. */
void cv_trace_put(struct cv_trace_queue *queue, const struct cv_trace_record *record);

/* Takes at most `max` records out, from all queues in turn. The sending thread. */
size_t cv_tracer_take(struct cv_tracer *tracer, struct cv_trace_record *records, size_t max);

/* Any thread. */
void cv_tracer_count_sent(struct cv_tracer *tracer, uint64_t spans);
void cv_tracer_count_dropped(struct cv_tracer *tracer, enum cv_trace_drop reason, uint64_t spans);
/* Since the start; 0 for a NULL tracer. For tunnel_otlp_spans_dropped_total. */
uint64_t cv_tracer_sent(const struct cv_tracer *tracer);
uint64_t cv_tracer_dropped(const struct cv_tracer *tracer, enum cv_trace_drop reason);

/* How many spans a record becomes. */
unsigned cv_trace_record_spans(const struct cv_trace_record *record);

#endif
