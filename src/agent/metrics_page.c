/* SPDX-License-Identifier: MIT
 *
 * Happy path: on_accept → on_data: the head → answer → the connection closes. Ways it fails: too
 * many connections (closed at once), no HTTP (400), slow (on_timeout), another host, path or
 * method.
 */
#include "agent/metrics_page.h"

#include "agent/agent_private.h"
#include "config/agent_config.h"
#include "net/conn.h"
#include "net/listener.h"
#include "proto/http/http_parser.h"
#include "proto/http/http_writer.h"
#include "telemetry/log.h"
#include "telemetry/metrics.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <utlist.h>

enum { METRICS_PAGE_MAX = 8, METRICS_PAGE_MS = 10000, METRICS_PAGE_BACKLOG = 16 };

struct visitor {
    struct metrics_page *page;
    struct cv_conn *conn;
    struct cv_http_parser *parser;
    struct cv_timer timer;
    bool is_answered;
    struct visitor *prev, *next;
};

struct metrics_page {
    struct cv_agent *agent;
    struct cv_metrics *metrics;
    struct cv_listener *listener;
    struct visitor *visitors; /* utlist DL */
    unsigned visitor_count;
};

/* ---- numbers that are only looked at ---- */

static struct cv_metrics_snapshot *take_snapshot(const struct metrics_page *page)
{
    const struct cv_agent *agent = page->agent;
    struct cv_metrics_snapshot *snapshot =
        cv_metrics_snapshot(page->metrics, cv_worker_now_ms(agent->worker));
    double links = 0, published = 0;
    if (!snapshot)
        return NULL;
    for (const struct berth *b = agent->berths; b; b = b->next)
        links += !b->is_over && cv_uplink_link(b->uplink);
    for (size_t i = 0; i < agent->tunnel_count; i++) {
        bool is_published = false;
        for (const struct berth *b = agent->berths; b; b = b->next)
            is_published |= b->tunnels[i].state == TUNNEL_PUBLISHED;
        published += is_published;
    }
    cv_snapshot_set(snapshot, CV_CELL(ACTIVE_CONNECTIONS, 0, 0), links);
    cv_snapshot_set(snapshot, CV_CELL(PUBLISHED, 0, 0), published);
    for (unsigned i = 0; i < CV_LOG_LEVEL_COUNT; i++)
        cv_snapshot_set(snapshot, CV_CELL(LOG_MESSAGES, i, 0),
                        (double)cv_log_count(agent->options.log, (enum cv_log_level)i));
    cv_snapshot_process(snapshot);
    return snapshot;
}

/* ---- answers ---- */

static bool is_loopback_name(struct cv_slice host)
{
    struct cv_listen_spec spec;
    char text[CV_HOST_LEN + 8];
    if (!host.len || host.len > CV_HOST_LEN)
        return false;
    bool has_port = memchr(host.data, ':', host.len) && host.data[host.len - 1] != ']';
    (void)snprintf(text, sizeof text, "%.*s%s", (int)host.len, (const char *)host.data,
                   has_port ? "" : ":1");
    return cv_is_ok(cv_listen_spec_parse(text, &spec, NULL)) && cv_addr_is_loopback(&spec.addr);
}

static struct cv_status write_answer(struct cv_buf *out, int status, const char *type,
                                     struct cv_slice body, bool is_head)
{
    CV_RETURN_IF_ERROR(
        cv_http_write_status_line(out, status, cv_slice_str(cv_http_reason(status))));
    CV_RETURN_IF_ERROR(cv_http_write_field_str(out, "Content-Type", type));
    CV_RETURN_IF_ERROR(cv_http_write_field_str(out, "Cache-Control", "no-store"));
    CV_RETURN_IF_ERROR(cv_http_write_field_str(out, "X-Content-Type-Options", "nosniff"));
    if (status == 405)
        CV_RETURN_IF_ERROR(cv_http_write_field_str(out, "Allow", "GET, HEAD"));
    CV_RETURN_IF_ERROR(cv_http_write_field_str(out, "Connection", "close"));
    CV_RETURN_IF_ERROR(cv_http_write_framing(out, CV_HTTP_LENGTH, body.len));
    CV_RETURN_IF_ERROR(cv_http_write_head_end(out));
    return is_head ? cv_ok() : cv_buf_append_slice(out, body);
}

static void answer(struct visitor *v, int status, const char *type, struct cv_slice body,
                   bool is_head)
{
    v->is_answered = true;
    if (cv_is_ok(write_answer(cv_conn_out(v->conn), status, type, body, is_head))) {
        cv_conn_flush(v->conn);
        cv_conn_close_lingering(v->conn, METRICS_PAGE_MS);
    } else {
        cv_conn_close(v->conn, cv_status(CV_NO_MEMORY));
    }
}

static void refuse(struct visitor *v, int status, bool is_head)
{
    answer(v, status, "text/plain", cv_slice_str(cv_http_reason(status)), is_head);
}

static void answer_page(struct visitor *v, const struct cv_http_head *head)
{
    const struct cv_slice *accept = cv_http_find(head, "Accept");
    enum cv_metrics_format format = cv_metrics_negotiate(accept ? *accept : cv_slice(NULL, 0));
    struct cv_metrics_snapshot *snapshot = take_snapshot(v->page);
    struct cv_buf text;
    cv_buf_init(&text, CV_METRICS_PAGE_MAX);
    if (snapshot && cv_is_ok(cv_metrics_write(snapshot, format, &text)))
        answer(v, 200, cv_metrics_content_type(format), cv_buf_slice(&text), head->is_head);
    else
        refuse(v, 503, head->is_head);
    cv_buf_done(&text);
    free(snapshot);
}

static void take_head(struct visitor *v, const struct cv_http_head *head)
{
    bool is_get = head->is_head || cv_slice_is(head->method, "GET");
    if (!is_loopback_name(head->host))
        refuse(v, 403, head->is_head);
    else if (!cv_slice_is(head->path, "/metrics"))
        refuse(v, 404, head->is_head);
    else if (!is_get)
        refuse(v, 405, false);
    else
        answer_page(v, head);
}

/* ---- connections ---- */

static void on_data(void *arg, uint8_t *data, size_t len)
{
    struct visitor *v = arg;
    struct cv_http_event event;
    if (v->is_answered)
        return;
    struct cv_status status = cv_http_parser_feed(v->parser, data, len);
    if (cv_is_ok(status))
        status = cv_http_parser_next(v->parser, &event);
    if (cv_is_ok(status) && event.type == CV_HTTP_HEAD)
        take_head(v, event.head);
    else if (status.id != CV_AGAIN)
        refuse(v, 400, false);
}

static void on_closed(void *arg, struct cv_status why, const struct cv_error *error)
{
    struct visitor *v = arg;
    (void)why;
    (void)error;
    cv_worker_timer_stop(v->page->agent->worker, &v->timer);
    cv_http_parser_free(&v->parser);
    DL_DELETE(v->page->visitors, v);
    v->page->visitor_count--;
    free(v);
}

static void on_timeout(void *arg)
{
    struct visitor *v = arg;
    cv_conn_close(v->conn, cv_status(CV_TIMEOUT_REQUEST));
}

static void on_eof(void *arg)
{
    struct visitor *v = arg;
    if (!v->is_answered)
        cv_conn_close(v->conn, cv_ok());
}

static const struct cv_conn_ops conn_ops = {
    .on_data = on_data, .on_eof = on_eof, .on_closed = on_closed};

static void on_accept(void *arg, int fd, const struct cv_addr *peer)
{
    struct metrics_page *page = arg;
    struct cv_worker *worker = page->agent->worker;
    struct visitor *v = page->visitor_count < METRICS_PAGE_MAX ? calloc(1, sizeof *v) : NULL;
    struct cv_conn *conn;
    (void)peer;
    if (!cv_is_ok(cv_conn_new(worker, fd, NULL, &conn_ops, v, &conn, NULL))) {
        free(v);
        return;
    }
    if (!v) {
        cv_conn_disown(conn);
        cv_conn_close(conn, cv_status(CV_NO_RESOURCES));
        return;
    }
    *v = (struct visitor){.page = page,
                          .conn = conn,
                          .parser = cv_http_parser_new(CV_HTTP_REQUESTS, &cv_http_request_limits)};
    DL_APPEND(page->visitors, v);
    page->visitor_count++;
    cv_timer_init(&v->timer, on_timeout, v);
    if (!v->parser || !cv_is_ok(cv_worker_timer_start(worker, &v->timer, METRICS_PAGE_MS)))
        cv_conn_close(conn, cv_status(CV_NO_MEMORY));
}

static const struct cv_listener_ops listener_ops = {.on_accept = on_accept};

/* ---- life ---- */

static struct cv_status open_listener(struct metrics_page *page, struct cv_error *error)
{
    const char *address = page->agent->config->metrics_listen;
    struct cv_listen_spec spec;
    char text[CV_ADDR_TEXT_LEN];
    CV_RETURN_IF_ERROR(cv_listen_spec_parse(address, &spec, error));
    if (!cv_addr_is_loopback(&spec.addr))
        return cv_fail(error, CV_CONFIG, "metrics.listen: %s is no loopback address", address);
    CV_RETURN_IF_ERROR(cv_listener_new(page->agent->worker, &spec, METRICS_PAGE_BACKLOG,
                                       &listener_ops, page, &page->listener, error));
    cv_log(page->agent->options.log, CV_LOG_INFO, "agent", "metrics_listening",
           "metrics are told on this address",
           CV_F_STR("address", cv_addr_format(&cv_listener_spec(page->listener)->addr, text)));
    return cv_ok();
}

struct cv_status metrics_page_new(struct cv_agent *agent, struct metrics_page **out,
                                  struct cv_error *error)
{
    struct metrics_page *page = calloc(1, sizeof *page);
    *out = NULL;
    if (!page)
        return cv_status(CV_NO_MEMORY);
    page->agent = agent;
    struct cv_status status = cv_metrics_new(
        &(struct cv_metrics_options){
            .owner = CV_METRICS_OF_AGENT, .blocks = 1, .tls = "", .start_s = (uint64_t)time(NULL)},
        &page->metrics);
    if (cv_is_ok(status))
        status = open_listener(page, error);
    if (!cv_is_ok(status))
        metrics_page_free(&page);
    *out = page;
    return status;
}

void metrics_page_free(struct metrics_page **out)
{
    struct metrics_page *page = *out;
    struct visitor *v, *next;
    *out = NULL;
    if (!page)
        return;
    /* A worker that has ended took its listeners and connections with it. */
    if (!cv_worker_is_stopping(page->agent->worker))
        cv_listener_close(&page->listener);
    DL_FOREACH_SAFE(page->visitors, v, next)
    {
        cv_conn_disown(v->conn);
        cv_conn_close(v->conn, cv_status(CV_SHUTTING_DOWN));
        on_closed(v, cv_status(CV_SHUTTING_DOWN), NULL);
    }
    cv_metrics_free(&page->metrics);
    free(page);
}

struct cv_metrics_block *metrics_page_block(struct metrics_page *page)
{
    return page ? cv_metrics_block(page->metrics, 0) : NULL;
}
