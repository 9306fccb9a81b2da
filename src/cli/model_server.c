/* SPDX-License-Identifier: MIT
 *
 * Happy path: on_accept → on_data → parser → on_request: a whole answer is written at once, a job
 * starts the timer → on_tick: one piece a token, each flushed on its own → the last one → next
 * request. While a job runs, what the client sends ahead waits in `ahead` with reading paused.
 * Ways it fails: malformed request or too large a body (answer, lingering close); no request in
 * time; the client goes away (on_closed drops the job); the worker ends (likewise).
 */
#include "cli/model_server.h"

#include "cli/model_api.h"
#include "net/conn.h"
#include "net/listener.h"
#include "proto/http/http_parser.h"
#include "proto/http/http_writer.h"

#include <stdlib.h>
#include <unistd.h>

enum {
    CLIENTS_MAX = 64,
    BACKLOG = 64,
    BODY_MAX_BYTES = 1024 * 1024,
    AHEAD_MAX_BYTES = 512 * 1024, /* more than conn reads before it sees that it is paused */
    REQUEST_TIMEOUT_MS = 120 * 1000,
    LINGER_MS = 2000,
    PIECE_MAX_BYTES = 4096,
};

struct cv_model_server {
    struct cv_worker *worker;
    struct cv_listener *listener;
    unsigned port;
    unsigned token_interval_ms;
    unsigned client_count;
};

struct client {
    struct cv_model_server *server;
    struct cv_conn *conn;
    struct cv_http_parser *parser;
    const struct cv_http_head *head; /* of the request being read; the parser's */
    struct cv_buf body;
    struct cv_buf ahead;   /* bytes behind the request that is being answered */
    struct cv_timer timer; /* next token while a job runs, else the end of patience */
    struct cv_model_job *job;
    bool is_chunked;  /* the job's answer; else it ends with the connection (HTTP/1.0) */
    bool is_stream;   /* the head of the job's answer has gone out */
    bool keeps_alive; /* of the request being answered */
    bool is_eof;      /* the client has half-closed: end after the answer */
};

static struct cv_model_now now_of(const struct client *client)
{
    struct timespec wall;
    (void)clock_gettime(CLOCK_REALTIME, &wall);
    return (struct cv_model_now){.wall_s = (uint64_t)wall.tv_sec,
                                 .wall_ns = (uint32_t)wall.tv_nsec,
                                 .mono_ns = cv_worker_now_ns(client->server->worker)};
}

/* ---- writing answers ---- */

static struct cv_status write_head(struct client *client, int status, const char *content_type,
                                   const char *allow, enum cv_http_framing framing, size_t len)
{
    struct cv_buf *out = cv_conn_out(client->conn);
    char date[CV_HTTP_DATE_LEN + 1];
    CV_RETURN_IF_ERROR(
        cv_http_write_status_line(out, status, cv_slice_str(cv_http_reason(status))));
    CV_RETURN_IF_ERROR(cv_http_write_field_str(out, "Content-Type", content_type));
    if (cv_http_date(cv_worker_wall_seconds(client->server->worker), date))
        CV_RETURN_IF_ERROR(cv_http_write_field_str(out, "Date", date));
    if (allow)
        CV_RETURN_IF_ERROR(cv_http_write_field_str(out, "Allow", allow));
    if (!client->keeps_alive)
        CV_RETURN_IF_ERROR(cv_http_write_field_str(out, "Connection", "close"));
    CV_RETURN_IF_ERROR(cv_http_write_framing(out, framing, len));
    return cv_http_write_head_end(out);
}

static struct cv_status write_whole(struct client *client, const struct cv_model_reply *reply,
                                    struct cv_slice body, bool is_head)
{
    CV_RETURN_IF_ERROR(write_head(client, reply->status, reply->content_type, reply->allow,
                                  CV_HTTP_LENGTH, body.len));
    if (!is_head)
        CV_RETURN_IF_ERROR(cv_buf_append_slice(cv_conn_out(client->conn), body));
    cv_conn_flush(client->conn);
    return cv_ok();
}

/* An error of HTTP itself: the connection cannot be used any further. */
static void refuse(struct client *client, struct cv_status why, const char *message)
{
    struct cv_model_reply reply = {.status = cv_status_http(why.id)};
    struct cv_buf body;
    cv_buf_init(&body, CV_MODEL_BODY_MAX);
    client->keeps_alive = false;
    struct cv_slice path = client->head ? client->head->path : cv_slice(NULL, 0);
    struct cv_status status =
        cv_model_error(path, reply.status, message, &body, &reply.content_type);
    if (cv_is_ok(status))
        status = write_whole(client, &reply, cv_buf_slice(&body), false);
    cv_buf_done(&body);
    if (cv_is_ok(status))
        cv_conn_close_lingering(client->conn, LINGER_MS);
    else
        cv_conn_close(client->conn, status);
}

/* ---- requests ---- */

/* How long until the timer says something: a token, or that the client is too slow. */
static void arm(struct client *client)
{
    uint64_t ms = client->job ? client->server->token_interval_ms : REQUEST_TIMEOUT_MS;
    struct cv_status status = cv_worker_timer_start(client->server->worker, &client->timer, ms);
    if (!cv_is_ok(status))
        cv_conn_close(client->conn, status);
}

static struct cv_status start_job(struct client *client, const struct cv_model_reply *reply)
{
    client->job = reply->job;
    client->is_stream = reply->is_stream;
    client->is_chunked = client->head->version_minor > 0;
    client->keeps_alive &= !reply->is_stream || client->is_chunked;
    if (!reply->is_stream)
        return cv_ok();
    CV_RETURN_IF_ERROR(write_head(client, reply->status, reply->content_type, NULL,
                                  client->is_chunked ? CV_HTTP_CHUNKED : CV_HTTP_UNTIL_CLOSE, 0));
    cv_conn_flush(client->conn);
    return cv_ok();
}

/* A request is complete. CV_OK: answered, or a job answers it. */
static struct cv_status on_request(struct client *client)
{
    struct cv_model_reply reply = {0};
    struct cv_model_now now = now_of(client);
    struct cv_buf body;
    cv_buf_init(&body, CV_MODEL_BODY_MAX);
    client->keeps_alive = client->head->keep_alive && !client->head->is_upgrade;
    struct cv_status status = cv_model_answer(client->head->method, client->head->path,
                                              cv_buf_slice(&client->body), &now, &body, &reply);
    cv_buf_consume(&client->body, cv_buf_len(&client->body));
    cv_buf_shrink(&client->body, 0);
    if (cv_is_ok(status))
        status = reply.job
                     ? start_job(client, &reply)
                     : write_whole(client, &reply, cv_buf_slice(&body), client->head->is_head);
    cv_buf_done(&body);
    return status;
}

static struct cv_status on_head(struct client *client, const struct cv_http_head *head)
{
    client->head = head;
    if (head->framing == CV_HTTP_LENGTH && head->content_length > BODY_MAX_BYTES)
        return cv_status(CV_BODY_TOO_LARGE);
    if (!head->expects_continue)
        return cv_ok();
    struct cv_buf *out = cv_conn_out(client->conn);
    CV_RETURN_IF_ERROR(cv_http_write_status_line(out, 100, cv_slice_str("Continue")));
    CV_RETURN_IF_ERROR(cv_http_write_head_end(out));
    cv_conn_flush(client->conn);
    return cv_ok();
}

static struct cv_status on_event(struct client *client, const struct cv_http_event *event)
{
    switch (event->type) {
    case CV_HTTP_HEAD:
        return on_head(client, event->head);
    case CV_HTTP_BODY:
        if (event->body.len > cv_buf_room(&client->body))
            return cv_status(CV_BODY_TOO_LARGE);
        return cv_buf_append_slice(&client->body, event->body);
    case CV_HTTP_TRAILERS:
        return cv_ok();
    case CV_HTTP_END:
        CV_RETURN_IF_ERROR(on_request(client));
        if (!client->job && !client->keeps_alive)
            cv_conn_close_lingering(client->conn, LINGER_MS);
        arm(client);
        return cv_ok();
    }
    return cv_status(CV_INTERNAL);
}

/* Takes requests until a job begins or all bytes are used. */
static void read_on(struct client *client)
{
    struct cv_http_event event;
    struct cv_status status = cv_ok();
    while (cv_is_ok(status) && !client->job && !cv_conn_is_closing(client->conn)) {
        status = cv_http_parser_next(client->parser, &event);
        if (cv_is_ok(status))
            status = on_event(client, &event);
    }
    struct cv_slice rest = cv_http_parser_take_rest(client->parser);
    if (cv_is_ok(status) && client->job && rest.len)
        status = cv_buf_append_slice(&client->ahead, rest);
    if (client->job && cv_buf_len(&client->ahead))
        cv_conn_pause(client->conn);
    if (cv_is_ok(status) || status.id == CV_AGAIN || cv_conn_is_closing(client->conn))
        return;
    if (status.id == CV_EOF) /* the request before was the last */
        cv_conn_close_lingering(client->conn, LINGER_MS);
    else if (client->is_stream && client->job)
        cv_conn_reset(client->conn);
    else
        refuse(client, status,
               *cv_http_parser_fault(client->parser) ? cv_http_parser_fault(client->parser)
                                                     : cv_status_text(status.id));
}

static void feed(struct client *client, const uint8_t *data, size_t len)
{
    struct cv_status status = cv_http_parser_feed(client->parser, data, len);
    if (cv_is_ok(status))
        read_on(client);
    else
        cv_conn_close(client->conn, status);
}

/* ---- jobs ---- */

static struct cv_status write_piece(struct client *client, struct cv_slice piece, bool is_last)
{
    struct cv_buf *out = cv_conn_out(client->conn);
    if (!client->is_stream) {
        if (!is_last)
            return cv_ok();
        struct cv_model_reply reply = {.status = 200,
                                       .content_type = "application/json; charset=utf-8"};
        return write_whole(client, &reply, piece, false);
    }
    if (client->is_chunked)
        CV_RETURN_IF_ERROR(cv_http_write_chunk(out, piece));
    else
        CV_RETURN_IF_ERROR(cv_buf_append_slice(out, piece));
    if (is_last && client->is_chunked)
        CV_RETURN_IF_ERROR(cv_http_write_last_chunk(out, NULL, 0));
    cv_conn_flush(client->conn);
    return cv_ok();
}

static void end_job(struct client *client)
{
    cv_model_job_free(&client->job);
    client->is_stream = false;
    client->head = NULL;
    if (!client->keeps_alive || (client->is_eof && cv_buf_len(&client->ahead) == 0)) {
        cv_conn_close_lingering(client->conn, LINGER_MS);
        return;
    }
    arm(client);
    struct cv_buf ahead = client->ahead;
    cv_buf_init(&client->ahead, AHEAD_MAX_BYTES);
    if (cv_buf_len(&ahead))
        feed(client, cv_buf_head(&ahead), cv_buf_len(&ahead));
    cv_buf_done(&ahead);
    if (!client->job)
        cv_conn_resume(client->conn);
}

static void on_tick(void *arg)
{
    struct client *client = arg;
    if (cv_conn_is_closing(client->conn))
        return;
    if (!client->job) {
        cv_conn_close(client->conn, cv_status(CV_TIMEOUT_REQUEST));
        return;
    }
    if (cv_conn_is_congested(client->conn)) {
        arm(client);
        return;
    }
    struct cv_model_now now = now_of(client);
    struct cv_buf piece;
    cv_buf_init(&piece, PIECE_MAX_BYTES);
    struct cv_status status = cv_model_job_next(client->job, &now, &piece);
    bool is_last = status.id == CV_EOF;
    if (is_last || cv_is_ok(status))
        status = write_piece(client, cv_buf_slice(&piece), is_last);
    cv_buf_done(&piece);
    if (!cv_is_ok(status))
        cv_conn_reset(client->conn); /* an orderly end could pass for a whole answer */
    else if (is_last)
        end_job(client);
    else
        arm(client);
}

/* ---- the connection ---- */

static void on_data(void *arg, uint8_t *data, size_t len)
{
    struct client *client = arg;
    if (!client->job) {
        feed(client, data, len);
        return;
    }
    cv_conn_pause(client->conn);
    struct cv_status status = cv_buf_append(&client->ahead, data, len);
    if (!cv_is_ok(status))
        cv_conn_close(client->conn, status);
}

/* A client may half-close behind its request; one that is gone resets at the next token. */
static void on_eof(void *arg)
{
    struct client *client = arg;
    client->is_eof = true;
    if (!client->job)
        cv_conn_close_after_flush(client->conn, LINGER_MS);
}

static void on_closed(void *arg, struct cv_status why, const struct cv_error *error)
{
    struct client *client = arg;
    (void)why;
    (void)error;
    client->server->client_count--;
    cv_worker_timer_stop(client->server->worker, &client->timer);
    cv_model_job_free(&client->job);
    cv_http_parser_free(&client->parser);
    cv_buf_done(&client->body);
    cv_buf_done(&client->ahead);
    free(client);
}

static const struct cv_conn_ops conn_ops = {
    .on_data = on_data, .on_eof = on_eof, .on_closed = on_closed};

static void on_accept(void *arg, int fd, const struct cv_addr *peer)
{
    struct cv_model_server *server = arg;
    (void)peer;
    struct client *client = server->client_count < CLIENTS_MAX ? calloc(1, sizeof *client) : NULL;
    if (client)
        client->parser = cv_http_parser_new(CV_HTTP_REQUESTS, &cv_http_request_limits);
    if (!client || !client->parser) {
        free(client);
        (void)close(fd);
        return;
    }
    client->server = server;
    cv_buf_init(&client->body, BODY_MAX_BYTES);
    cv_buf_init(&client->ahead, AHEAD_MAX_BYTES);
    cv_timer_init(&client->timer, on_tick, client);
    if (!cv_is_ok(cv_conn_new(server->worker, fd, NULL, &conn_ops, client, &client->conn, NULL))) {
        cv_http_parser_free(&client->parser);
        free(client);
        return;
    }
    server->client_count++;
    arm(client);
}

static const struct cv_listener_ops listener_ops = {.on_accept = on_accept};

struct cv_status cv_model_server_new(struct cv_worker *worker,
                                     const struct cv_model_server_options *options,
                                     struct cv_model_server **out, struct cv_error *error)
{
    struct cv_listen_spec spec;
    *out = NULL;
    CV_RETURN_IF_ERROR(cv_listen_spec_parse(options->listen, &spec, error));
    struct cv_model_server *server = calloc(1, sizeof *server);
    if (!server)
        return cv_status(CV_NO_MEMORY);
    server->worker = worker;
    server->token_interval_ms = options->token_interval_ms;
    struct cv_status status =
        cv_listener_new(worker, &spec, BACKLOG, &listener_ops, server, &server->listener, error);
    if (!cv_is_ok(status)) {
        free(server);
        return status;
    }
    server->port = cv_addr_port(&cv_listener_spec(server->listener)->addr);
    *out = server;
    return cv_ok();
}

unsigned cv_model_server_port(const struct cv_model_server *server)
{
    return server->port;
}

void cv_model_server_free(struct cv_model_server **server)
{
    free(*server);
    *server = NULL;
}
