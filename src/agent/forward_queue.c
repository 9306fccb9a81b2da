/* SPDX-License-Identifier: MIT
 *
 * Happy path: queue_enter → forward_http_serve → cv_stream_open → queue_on_open.
 * Ways it fails: the queue is full (the one that matters least is told); nothing in time (told);
 * the link has no stream to give (an idle one of another connection is given up, or later); the
 * link is lost before the stream is open (queue_return).
 */
#include "agent/agent.h"
#include "agent/forward_private.h"
#include "base/json.h"
#include "net/conn.h"
#include "net/worker.h"
#include "proto/http/http_writer.h"
#include "telemetry/log.h"
#include "transport/link.h"

#include <stdio.h>
#include <utlist.h>

enum {
    AGEING_MS = 10000, /* as at the relay, see queue.ageing */
    RETRY_MS = 20,     /* until a stream that was given up is free */
    PRESSING_PERCENT = 80,
};

static uint64_t now_of(const struct forward_http *http)
{
    return cv_worker_now_ms(http->worker);
}

/* ---- answers of our own ---- */

static char *problem_json(enum cv_status_id id, const char *detail)
{
    char type[96];
    (void)snprintf(type, sizeof type, "urn:culvert:error:%s", cv_status_code(id));
    json_t *object = json_pack("{s:s, s:s, s:i, s:s, s:s, s:s, s:s, s:s}", "type", type, "title",
                               cv_status_text(id), "status", cv_status_http(id), "detail",
                               detail ? detail : cv_status_text(id), "code", cv_status_code(id),
                               "category", cv_category_name(cv_status_category(id)), "suggestion",
                               cv_status_suggestion(id), "hop", "forward");
    char *text = object ? cv_json_text(object) : NULL;
    json_decref(object);
    return text;
}

static struct cv_status write_problem(const struct http_caller *c, enum cv_status_id id,
                                      const char *body, struct cv_buf *out)
{
    int status = cv_status_http(id);
    char line[80];
    size_t pressure = queue_pressure(c->http, line, sizeof line);
    CV_RETURN_IF_ERROR(
        cv_http_write_status_line(out, status, cv_slice_str(cv_http_reason(status))));
    CV_RETURN_IF_ERROR(cv_http_write_field_str(out, "Content-Type", "application/problem+json"));
    CV_RETURN_IF_ERROR(cv_http_write_field_str(out, "Cache-Control", "no-store"));
    if (status == 503)
        CV_RETURN_IF_ERROR(cv_http_write_field_str(out, "Retry-After", "1"));
    CV_RETURN_IF_ERROR(cv_buf_append(out, line, pressure));
    CV_RETURN_IF_ERROR(cv_http_write_field_str(out, "Connection", "close"));
    CV_RETURN_IF_ERROR(cv_http_write_framing(out, CV_HTTP_LENGTH, strlen(body)));
    CV_RETURN_IF_ERROR(cv_http_write_head_end(out));
    return c->is_head ? cv_ok() : cv_buf_append_str(out, body);
}

void caller_refuse(struct http_caller *c, enum cv_status_id id, const char *detail)
{
    char *body = problem_json(id, detail);
    struct cv_buf *out = cv_conn_out(c->conn);
    size_t before = cv_buf_len(out);
    if (body && !c->is_answered && !cv_is_ok(write_problem(c, id, body, out)))
        cv_buf_truncate(out, before);
    free(body);
    cv_conn_flush(c->conn);
    caller_end(c);
}

/* ---- who waits ---- */

static bool is_pressing(const struct forward_http *http)
{
    return http->queue.count * 100 >= http->options.queue_size * PRESSING_PERCENT;
}

size_t queue_pressure(const struct forward_http *http, char *line, size_t cap)
{
    if (!is_pressing(http))
        return 0;
    return (size_t)snprintf(line, cap, "Culvert-Backpressure: queued=%zu, size=%zu\r\n",
                            http->queue.count, http->options.queue_size);
}

static void tell_pressure(struct forward_http *http)
{
    bool is_now = is_pressing(http);
    if (is_now && !http->is_pressing)
        cv_log_limited(http->options.log, CV_LOG_WARN, "forward", "queue_pressing",
                       "the queue of requests is nearly full",
                       CV_F_UINT("queued", http->queue.count),
                       CV_F_UINT("size", http->options.queue_size));
    http->is_pressing = is_now;
}

static void on_late(void *arg)
{
    struct http_caller *c = arg;
    if (c->http->is_stopping)
        caller_refuse(c, CV_SHUTTING_DOWN, NULL);
    else
        caller_refuse(c, CV_TIMEOUT_FIRST_BYTE,
                      "there was no stream to the relay in time; nothing of it was sent");
}

static void on_retry(void *arg)
{
    forward_http_serve(arg);
}

void caller_init_queue(struct http_caller *c)
{
    cv_timer_init(&c->wait, on_late, c);
}

void queue_leave(struct http_caller *c)
{
    cv_worker_timer_stop(c->http->worker, &c->wait);
    if (c->state != HTTP_QUEUED)
        return;
    cv_queue_remove(&c->http->queue, &c->entry);
    caller_set_state(c, HTTP_READING);
    tell_pressure(c->http);
}

static struct http_caller *caller_of(struct cv_queue_entry *entry)
{
    return (struct http_caller *)(void *)((char *)entry - offsetof(struct http_caller, entry));
}

/* False: all that wait matter as much as this one. */
static bool make_room(struct forward_http *http, enum cv_priority priority)
{
    for (unsigned p = CV_PRIORITY_COUNT - 1; p > (unsigned)priority; p--) {
        if (!http->queue.last[p])
            continue;
        caller_refuse(caller_of(http->queue.last[p]), CV_QUEUE_FULL,
                      "a request of a higher priority has taken the place");
        return true;
    }
    return false;
}

void queue_enter(struct http_caller *c)
{
    struct forward_http *http = c->http;
    if (http->is_stopping) {
        caller_refuse(c, CV_SHUTTING_DOWN, NULL);
        return;
    }
    if (http->queue.count >= http->options.queue_size && !make_room(http, c->priority)) {
        cv_log_limited(http->options.log, CV_LOG_WARN, "forward", "queue_full",
                       "the queue of requests is full, more are refused",
                       CV_F_UINT("size", http->options.queue_size));
        caller_refuse(c, CV_QUEUE_FULL, NULL);
        return;
    }
    cv_queue_put(&http->queue, &c->entry, c->priority, now_of(http));
    caller_set_state(c, HTTP_QUEUED);
    if (!cv_is_ok(cv_worker_timer_start(http->worker, &c->wait, http->options.wait_ms))) {
        caller_refuse(c, CV_NO_MEMORY, NULL);
        return;
    }
    forward_http_serve(http);
    tell_pressure(http);
}

/* The queue only grows at its ends: the others of the priority go behind it again. */
static void put_first(struct cv_queue *queue, struct cv_queue_entry *entry,
                      enum cv_priority priority, uint64_t since_ms)
{
    struct cv_queue_entry *others = NULL, *last = NULL, *at;
    while ((at = queue->first[priority])) {
        cv_queue_remove(queue, at);
        at->next = NULL;
        if (last)
            last->next = at;
        else
            others = at;
        last = at;
    }
    cv_queue_put(queue, entry, priority, since_ms);
    while ((at = others)) {
        others = at->next;
        cv_queue_put(queue, at, priority, at->since_ms);
    }
}

void queue_return(struct http_caller *c)
{
    struct forward_http *http = c->http;
    if (http->is_stopping) {
        caller_refuse(c, CV_SHUTTING_DOWN, NULL);
        return;
    }
    put_first(&http->queue, &c->entry, c->priority, c->entry.since_ms);
    caller_set_state(c, HTTP_QUEUED);
    if (!cv_timer_is_running(&c->wait))
        (void)cv_worker_timer_start(http->worker, &c->wait, http->options.wait_ms);
    if (!cv_timer_is_running(&http->retry))
        (void)cv_worker_timer_start(http->worker, &http->retry, RETRY_MS);
}

void queue_on_open(struct http_caller *c)
{
    cv_worker_timer_stop(c->http->worker, &c->wait);
}

/* ---- out of the queue ---- */

/* A connection without a request keeps its stream only while nobody else wants one. */
static void give_up_idle(struct forward_http *http)
{
    struct http_caller *oldest = NULL;
    for (struct http_caller *c = http->callers; c; c = c->next)
        if (c->state == HTTP_READING && c->stream && (!oldest || c->idle_ms < oldest->idle_ms))
            oldest = c;
    if (oldest)
        caller_drop_stream(oldest);
}

/* Its link lost its connection before the relay could confirm the stream, and there is another. */
static void return_stuck(struct forward_http *http)
{
    for (struct http_caller *c = http->callers; c; c = c->next) {
        if (c->state != HTTP_OPENING || !cv_link_is_detached(c->link))
            continue;
        caller_drop_stream(c);
        queue_return(c);
    }
}

void forward_http_serve(struct forward_http *http)
{
    struct cv_queue_entry *entry;
    struct cv_link *link = cv_agent_link(http->options.agent);
    if (link)
        return_stuck(http);
    while (link && (entry = cv_queue_first(&http->queue, now_of(http), AGEING_MS))) {
        struct http_caller *c = caller_of(entry);
        struct cv_status status =
            cv_stream_open(link, CV_STREAM_DIRECT, http->options.tunnel, FORWARD_HTTP_PORT, NULL,
                           &http_stream_ops, c, &c->stream);
        if (!cv_is_ok(status)) {
            give_up_idle(http);
            (void)cv_worker_timer_start(http->worker, &http->retry, RETRY_MS);
            break;
        }
        cv_queue_remove(&http->queue, entry);
        c->link = link;
        caller_set_state(c, HTTP_OPENING);
        link = cv_agent_link(http->options.agent);
    }
    tell_pressure(http);
}

/* ---- life ---- */

struct cv_status forward_http_new(struct cv_worker *worker,
                                  const struct forward_http_options *options,
                                  struct forward_http **out)
{
    struct forward_http *http = calloc(1, sizeof *http);
    *out = http;
    if (!http)
        return cv_status(CV_NO_MEMORY);
    *http = (struct forward_http){.worker = worker, .options = *options};
    cv_timer_init(&http->retry, on_retry, http);
    return cv_ok();
}

void forward_http_stop(struct forward_http *http)
{
    http->is_stopping = true;
    for (struct http_caller *c = http->callers; c; c = c->next) {
        if (c->state == HTTP_QUEUED)
            caller_refuse(c, CV_SHUTTING_DOWN, NULL);
        else if (c->state == HTTP_READING)
            caller_end(c);
        else if (c->state == HTTP_OPENING) /* told, when it does not open soon */
            (void)cv_worker_timer_start(http->worker, &c->wait, 1000);
    }
}

void forward_http_count(const struct forward_http *http, size_t *busy, size_t *queued)
{
    *queued = http->queue.count;
    *busy = 0;
    for (const struct http_caller *c = http->callers; c; c = c->next)
        *busy += c->state == HTTP_OPENING || c->state == HTTP_UNDER_WAY;
}

void forward_http_free(struct forward_http **http)
{
    if (*http)
        cv_worker_timer_stop((*http)->worker, &(*http)->retry);
    free(*http);
    *http = NULL;
}
