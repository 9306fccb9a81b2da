/* SPDX-License-Identifier: MIT
 *
 * Happy path: on_timer → take → send → on_done → at once again while there is more, else on_timer.
 * Ways it fails: the collector asks to come back later, or is not there (send again); it is slow,
 * says something else or nonsense (the batch is dropped); memory; the end (on_finish).
 */
#include "net/span_sender.h"

#include "net/fetch.h"
#include "net/worker.h"
#include "telemetry/log.h"

#include <stdlib.h>

enum {
    FIRST_RETRY_MS = 1000, /* doubles */
    RETRY_AFTER_MAX_S = 60,
    ANSWER_MAX = 64 * 1024,
    WORKER_INDEX = 1000, /* behind those that serve */
};

struct cv_span_sender {
    const struct cv_trace_options *options;
    struct cv_tracer *tracer;
    struct cv_log *log;
    struct cv_worker *worker;
    struct cv_timer timer;
    struct cv_mail wake_mail, finish_mail;
    atomic_bool is_waking; /* wake_mail is under way */

    /* Below: the sender's own thread. */
    struct cv_fetch *fetch;
    struct cv_trace_record *records; /* CV_SPAN_SENDER_BATCH */
    struct cv_buf body;              /* what is being sent, until it was taken or given up */
    uint64_t spans;                  /* in it */
    uint64_t retry_after_s;
    uint64_t finish_due_ms, limit_ms;
    unsigned tries;
    bool is_full; /* there may be more than is in the batch */
    bool is_finishing;
    bool is_failing; /* and it was told */
};

static void send_batch(struct cv_span_sender *s);

static bool is_there_batch(const struct cv_span_sender *s)
{
    return s->spans > 0;
}

static void forget_batch(struct cv_span_sender *s)
{
    cv_buf_done(&s->body);
    cv_buf_init(&s->body, CV_SPAN_SENDER_BYTES);
    s->spans = 0;
    s->tries = 0;
}

static void drop_batch(struct cv_span_sender *s, enum cv_trace_drop reason)
{
    cv_tracer_count_dropped(s->tracer, reason, s->spans);
    forget_batch(s);
}

/* True: there is a batch. */
static bool take(struct cv_span_sender *s)
{
    size_t count = cv_tracer_take(s->tracer, s->records, CV_SPAN_SENDER_BATCH);
    s->is_full = count == CV_SPAN_SENDER_BATCH;
    for (size_t i = 0; i < count; i++)
        s->spans += cv_trace_record_spans(&s->records[i]);
    if (count && !cv_is_ok(cv_otlp_encode(&s->options->resource, s->records, count,
                                          s->options->is_json, &s->body)))
        drop_batch(s, CV_TRACE_DROP_NO_MEMORY);
    return is_there_batch(s);
}

/* ---- the end ---- */

static void finish(struct cv_span_sender *s)
{
    cv_fetch_cancel(&s->fetch);
    do {
        if (is_there_batch(s))
            drop_batch(s, CV_TRACE_DROP_SHUTDOWN);
    } while (take(s) || s->is_full);
    cv_worker_stop(s->worker);
}

/* ---- what became of a batch ---- */

static void tell_failing(struct cv_span_sender *s, struct cv_status status,
                         const struct cv_error *error, int http_status)
{
    if (s->is_failing)
        return;
    s->is_failing = true;
    cv_log(s->log, CV_LOG_WARN, "tracing", "spans_not_taken",
           "the collector does not take spans; those that do not fit are dropped",
           CV_F_STATUS(status), CV_F_STR("detail", error ? error->detail : NULL),
           CV_F_INT("httpStatus", http_status));
}

static void tell_well(struct cv_span_sender *s)
{
    if (!s->is_failing)
        return;
    s->is_failing = false;
    uint64_t dropped = 0;
    for (unsigned i = 0; i < CV_TRACE_DROP_COUNT; i++)
        dropped += cv_tracer_dropped(s->tracer, (enum cv_trace_drop)i);
    cv_log(s->log, CV_LOG_INFO, "tracing", "spans_taken", "the collector takes spans again",
           CV_F_UINT("dropped", dropped));
}

static void go_on(struct cv_span_sender *s)
{
    if ((s->is_full || s->is_finishing) && take(s)) {
        send_batch(s);
    } else if (s->is_finishing) {
        finish(s);
    } else {
        (void)cv_worker_timer_start(s->worker, &s->timer, s->options->interval_ms);
    }
}

static void try_later(struct cv_span_sender *s)
{
    uint64_t asked_s = s->retry_after_s;
    uint64_t wait_ms = (uint64_t)FIRST_RETRY_MS << (s->tries - 1);
    if (asked_s * 1000 > wait_ms)
        wait_ms = asked_s * 1000;
    if (s->is_finishing) {
        finish(s);
    } else if (s->tries >= CV_SPAN_SENDER_TRIES || asked_s > RETRY_AFTER_MAX_S) {
        drop_batch(s, CV_TRACE_DROP_UNREACHABLE);
        (void)cv_worker_timer_start(s->worker, &s->timer, FIRST_RETRY_MS);
    } else {
        (void)cv_worker_timer_start(s->worker, &s->timer, wait_ms);
    }
}

/* Where it cannot have been read, it may be sent again without being there twice. */
static bool is_unsent(struct cv_status status)
{
    return status.id == CV_CONN_REFUSED || status.id == CV_RESOLVE;
}

static void on_done(void *arg, struct cv_status status, const struct cv_error *error,
                    int http_status, struct cv_slice body)
{
    struct cv_span_sender *s = arg;
    s->fetch = NULL;
    if (cv_worker_is_stopping(s->worker)) {
        drop_batch(s, CV_TRACE_DROP_SHUTDOWN);
        return;
    }
    bool is_later =
        http_status == 429 || http_status == 502 || http_status == 503 || http_status == 504;
    if (cv_is_ok(status) && http_status >= 200 && http_status < 300) {
        uint64_t rejected = cv_otlp_rejected(body, s->options->is_json);
        if (rejected > s->spans)
            rejected = s->spans;
        cv_tracer_count_sent(s->tracer, s->spans - rejected);
        cv_tracer_count_dropped(s->tracer, CV_TRACE_DROP_REJECTED, rejected);
        forget_batch(s);
        tell_well(s);
        go_on(s);
        return;
    }
    tell_failing(s, status, error, http_status);
    if (is_later || is_unsent(status)) {
        try_later(s);
        return;
    }
    bool is_answer = cv_is_ok(status) || status.id == CV_BAD_RESPONSE;
    drop_batch(s, is_answer ? CV_TRACE_DROP_REJECTED : CV_TRACE_DROP_UNREACHABLE);
    if (s->is_finishing)
        finish(s);
    else
        (void)cv_worker_timer_start(s->worker, &s->timer, s->options->interval_ms);
}

/* ---- sending ---- */

static void send_batch(struct cv_span_sender *s)
{
    const struct cv_trace_options *o = s->options;
    uint64_t now_ms = cv_worker_now_ms(s->worker), timeout_ms = o->timeout_ms;
    struct cv_error error = {0};
    if (s->is_finishing) {
        if (now_ms >= s->finish_due_ms) {
            finish(s);
            return;
        }
        if (timeout_ms > s->finish_due_ms - now_ms)
            timeout_ms = s->finish_due_ms - now_ms;
    }
    const struct cv_fetch_request request = {
        .url = o->url,
        .method = "POST",
        .headers = (const char *const *)o->headers,
        .body = cv_buf_slice(&s->body),
        .timeout_ms = timeout_ms,
        .max_bytes = ANSWER_MAX,
        .ca_file = o->ca_file,
        .allow_http = o->allow_http,
        .retry_after_s = &s->retry_after_s,
    };
    s->tries++;
    s->retry_after_s = 0;
    struct cv_status status = cv_fetch_start(s->worker, &request, on_done, s, &s->fetch, &error);
    if (cv_is_ok(status))
        return;
    tell_failing(s, status, &error, 0);
    drop_batch(s, CV_TRACE_DROP_UNREACHABLE);
    if (s->is_finishing)
        finish(s);
    else
        (void)cv_worker_timer_start(s->worker, &s->timer, o->interval_ms);
}

static void on_timer(void *arg)
{
    struct cv_span_sender *s = arg;
    if (s->fetch || cv_worker_is_stopping(s->worker))
        return;
    if (is_there_batch(s) || take(s))
        send_batch(s);
    else
        (void)cv_worker_timer_start(s->worker, &s->timer, s->options->interval_ms);
}

/* ---- mails ---- */

static void on_wake(void *arg)
{
    struct cv_span_sender *s = arg;
    atomic_store(&s->is_waking, false);
    if (is_there_batch(s))
        s->is_full = true; /* more follows it at once */
    else if (!s->is_finishing)
        on_timer(s);
}

void cv_span_sender_wake(void *arg)
{
    struct cv_span_sender *s = *(struct cv_span_sender **)arg;
    if (!s || atomic_exchange(&s->is_waking, true))
        return;
    cv_mail_init(&s->wake_mail, on_wake, s);
    if (!cv_worker_post(s->worker, &s->wake_mail))
        atomic_store(&s->is_waking, false);
}

static void on_limit(void *arg)
{
    finish(arg);
}

static void on_finish(void *arg)
{
    struct cv_span_sender *s = arg;
    s->is_finishing = true;
    s->finish_due_ms = cv_worker_now_ms(s->worker) + s->limit_ms;
    cv_worker_timer_stop(s->worker, &s->timer);
    cv_timer_init(&s->timer, on_limit, s);
    (void)cv_worker_timer_start(s->worker, &s->timer, s->limit_ms);
    if (s->fetch)
        return;
    if (is_there_batch(s) || take(s))
        send_batch(s);
    else
        finish(s);
}

/* ---- life ---- */

static void release(struct cv_span_sender *s)
{
    cv_worker_free(&s->worker);
    cv_buf_done(&s->body);
    free(s->records);
    free(s);
}

struct cv_status cv_span_sender_new(const struct cv_trace_options *options,
                                    struct cv_tracer *tracer, struct cv_log *log,
                                    struct cv_span_sender **out, struct cv_error *error)
{
    struct cv_span_sender *s = calloc(1, sizeof *s);
    *out = NULL;
    if (!s)
        return cv_status(CV_NO_MEMORY);
    s->options = options;
    s->tracer = tracer;
    s->log = log;
    cv_buf_init(&s->body, CV_SPAN_SENDER_BYTES);
    cv_timer_init(&s->timer, on_timer, s);
    s->records = calloc(CV_SPAN_SENDER_BATCH, sizeof *s->records);
    struct cv_status status =
        s->records ? cv_worker_new(WORKER_INDEX, &s->worker, error) : cv_status(CV_NO_MEMORY);
    if (cv_is_ok(status))
        status = cv_worker_timer_start(s->worker, &s->timer, options->interval_ms);
    if (cv_is_ok(status))
        status = cv_worker_start_thread(s->worker);
    if (cv_is_ok(status))
        *out = s;
    else
        release(s);
    return status;
}

void cv_span_sender_free(struct cv_span_sender **out, uint64_t limit_ms)
{
    struct cv_span_sender *s = *out;
    *out = NULL;
    if (!s)
        return;
    s->limit_ms = limit_ms ? limit_ms : 1;
    cv_mail_init(&s->finish_mail, on_finish, s);
    if (!cv_worker_post(s->worker, &s->finish_mail))
        cv_worker_stop(s->worker);
    cv_worker_join(s->worker);
    release(s);
}
