/* SPDX-License-Identifier: MIT
 *
 * What happens to requests and links, told to the metrics of the worker on which it happens
 * (telemetry/metrics_list.h). Does nothing where metrics.enabled is false. All calls on the thread
 * of the consumer or the session.
 */
#ifndef CV_RELAY_MEASURE_H
#define CV_RELAY_MEASURE_H

#include "base/slice.h"
#include "base/status.h"
#include "flow/queue.h"

struct cv_bucket_entry;
struct cv_consumer;
struct cv_quota;
struct cv_relay_worker;
struct cv_session;

/* ---- requests ---- */

/* It is with an upstream, or waits for one: under way from now on. */
void measure_begin(struct cv_consumer *c);
/* The relay has done its part: what the service is to have is on its way. */
void measure_opened(struct cv_consumer *c);
/* So many bytes of it have gone to the service. */
void measure_sent(struct cv_consumer *c, size_t len);
/* Bytes have come from the service; they are the first (x.first_byte_ns). */
void measure_answer(struct cv_consumer *c, size_t len);
void measure_first_byte(struct cv_consumer *c);
/* The head of the answer has been handed to the consumer's connection. */
void measure_answered(struct cv_consumer *c);
/* Of the kind of its answer (x.mark) and, where that may be a model's stream, of its body. */
void measure_head(struct cv_consumer *c);
void measure_body(struct cv_consumer *c, struct cv_slice data);
/* An error is told to the consumer, in an answer or in the middle of one. */
void measure_error(struct cv_consumer *c, enum cv_status_id id);
/* It is over; after measure_begin. */
void measure_end(struct cv_consumer *c);

/* A token was looked at. */
void measure_auth(struct cv_relay_worker *worker, struct cv_status status);
/* A limit was over; `quota` says which. */
void measure_limit(const struct cv_consumer *c, const struct cv_quota *quota);
/* A connection from one address too many. */
void measure_turned_away(struct cv_relay_worker *worker);

/* ---- links ---- */

/* What came of an upgrade to a link or of a resume: CV_OK, or why not. */
void measure_link(struct cv_relay_worker *worker, enum cv_status_id id);
/* It has published a name. `is_return`: that was here before, and had gone. Only the first counts.
 */
void measure_published(struct cv_session *session, bool is_return);
void measure_up(struct cv_session *session);
void measure_resumed(struct cv_session *session);
void measure_down(struct cv_session *session, enum cv_status_id why);

/* ---- streams of links (pool.c) ---- */

/* A request waits for a stream from now on; it waits no longer, whatever came of it. */
void measure_queued(struct cv_session *session, enum cv_priority priority);
void measure_queue_left(struct cv_session *session, enum cv_priority priority, uint64_t since_ms);
/* A stream is in use, or idle, from now on (`by` 1), or no longer (-1). */
void measure_stream(struct cv_session *session, bool is_idle, int by);

#endif
