/* SPDX-License-Identifier: MIT
 *
 * An agent for tests: the upgrade by hand, then a link, on a worker in a thread of its own.
 */
#include "relay/relay_bench.h"

#include "net/conn.h"
#include "net/dial.h"
#include "transport/link.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static void note(struct fake_agent *agent, void (*change)(struct fake_agent *agent))
{
    (void)pthread_mutex_lock(&agent->lock);
    change(agent);
    (void)pthread_cond_broadcast(&agent->changed);
    (void)pthread_mutex_unlock(&agent->lock);
}

/* ---- link ---- */

static void set_ready(struct fake_agent *agent)
{
    agent->is_ready = true;
}

static size_t expected_replies(const struct fake_agent *agent)
{
    size_t count = 0;
    for (const struct fake_tunnel *t = agent->tunnels; t->name; t++)
        count += t->json ? 2 : 1;
    return count;
}

static void on_up(void *arg)
{
    struct fake_agent *agent = arg;
    for (const struct fake_tunnel *t = agent->tunnels; t->name; t++) {
        if (t->json)
            assert_ok(cv_link_request(agent->link, "tunnel@culvert", cv_slice_str(t->json), 1));
        assert_ok(cv_link_forward(agent->link, t->name, t->port ? t->port : 80, false, 2));
    }
    if (expected_replies(agent) == 0)
        note(agent, set_ready);
}

static bool on_host_key(void *arg, struct cv_slice blob, const char *fingerprint)
{
    (void)arg;
    (void)blob;
    (void)fingerprint;
    return true;
}

static void count_refused(struct fake_agent *agent)
{
    agent->refused_requests++;
}

static void on_reply(void *arg, uintptr_t cookie, bool is_success)
{
    struct fake_agent *agent = arg;
    (void)cookie;
    if (!is_success)
        note(agent, count_refused);
    if (++agent->replies == expected_replies(agent))
        note(agent, set_ready);
}

static void on_stream(void *arg, struct cv_stream *stream, enum cv_stream_kind kind,
                      struct cv_slice host, uint32_t port)
{
    assert_int_equal(kind, CV_STREAM_FORWARDED);
    (void)port;
    service_accept(arg, stream, host);
}

static void on_control(void *arg, const struct cv_link_control *control)
{
    struct fake_agent *agent = arg;
    if (control->type != CV_LINK_NOTICE)
        return;
    (void)pthread_mutex_lock(&agent->lock);
    (void)snprintf(agent->notice, sizeof agent->notice, "%s", control->code);
    (void)snprintf(agent->notice_tunnel, sizeof agent->notice_tunnel, "%s", control->tunnel);
    (void)pthread_cond_broadcast(&agent->changed);
    (void)pthread_mutex_unlock(&agent->lock);
}

static void on_closed(void *arg, struct cv_status why, const struct cv_error *error)
{
    struct fake_agent *agent = arg;
    (void)error;
    agent->link = NULL;
    (void)pthread_mutex_lock(&agent->lock);
    agent->is_closed = true;
    agent->is_ready = true;
    agent->why = why;
    (void)pthread_cond_broadcast(&agent->changed);
    (void)pthread_mutex_unlock(&agent->lock);
}

static const struct cv_link_ops link_ops = {
    .on_up = on_up,
    .on_host_key = on_host_key,
    .on_reply = on_reply,
    .on_stream = on_stream,
    .on_control = on_control,
    .on_closed = on_closed,
};

/* ---- upgrade ---- */

static void on_upgrade_data(void *arg, uint8_t *data, size_t len)
{
    struct fake_agent *agent = arg;
    assert_ok(cv_buf_append(&agent->head, data, len));
    const char *text = (const char *)cv_buf_head(&agent->head);
    const char *end = memmem(text, cv_buf_len(&agent->head), "\r\n\r\n", 4);
    if (!end)
        return;
    if (strncmp(text, "HTTP/1.1 101 ", 13) != 0)
        fail_msg("upgrade: %.*s", (int)cv_buf_len(&agent->head), text);
    cv_buf_consume(&agent->head, (size_t)(end + 4 - text));
    struct cv_link_options options = {
        .role = CV_LINK_AGENT,
        .is_culvert = !agent->protocol,
        .max_channels = 100,
        .window_bytes = 1 << 20,
        .rekey_bytes = 1 << 30,
        .rekey_ms = 3600000,
        .handshake_ms = 20000,
        .keepalive_ms = 60000,
        .ping_interval_ms = 30000,
        .pong_timeout_ms = 15000,
        .replay_bytes = 4 << 20,
        .max_frame_bytes = 1 << 20,
    };
    assert_ok(cv_link_new(agent->worker, agent->conn, &options, cv_buf_slice(&agent->head),
                          &link_ops, agent, NULL, &agent->link));
}

static void on_upgrade_closed(void *arg, struct cv_status why, const struct cv_error *error)
{
    on_closed(arg, why, error);
}

static const struct cv_conn_ops upgrade_ops = {.on_data = on_upgrade_data,
                                               .on_closed = on_upgrade_closed};

static void on_dialed(void *arg, const struct cv_dial_result *result)
{
    struct fake_agent *agent = arg;
    char text[8192];
    assert_ok(result->status);
    agent->conn = result->conn;
    cv_conn_set_ops(agent->conn, &upgrade_ops, agent);
    (void)snprintf(
        text, sizeof text,
        "GET /tunnel HTTP/1.1\r\nHost: relay.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        "Sec-WebSocket-Protocol: %s\r\nAuthorization: Bearer %s\r\n%s%s%s\r\n",
        agent->protocol ? agent->protocol : "culvert.v1",
        agent->token ? agent->token : (const char *)cv_buf_head(&agent->bench->token),
        agent->agent_id ? "Culvert-Agent: " : "", agent->agent_id ? agent->agent_id : "",
        agent->agent_id ? "\r\n" : "");
    assert_ok(cv_conn_write(agent->conn, text, strlen(text)));
}

/* ---- for the test's thread ---- */

static bool is_ready(const struct fake_agent *agent)
{
    return agent->is_ready;
}

void fake_agent_start(struct fake_agent *agent, struct bench *bench)
{
    struct cv_dial_options options = {.host = "127.0.0.1", .port = (uint16_t)bench->port};
    struct cv_dial *dial;
    agent->bench = bench;
    cv_buf_init(&agent->head, 65536);
    cv_buf_init(&agent->seen, BENCH_SEEN_MAX);
    (void)pthread_mutex_init(&agent->lock, NULL);
    (void)pthread_cond_init(&agent->changed, NULL);
    assert_ok(cv_worker_new(90, &agent->worker, NULL));
    assert_ok(cv_dial_start(agent->worker, &options, on_dialed, agent, &dial, NULL));
    assert_ok(cv_worker_start_thread(agent->worker));
    fake_agent_wait(agent, is_ready, "the agent to be ready");
}

void fake_agent_stop(struct fake_agent *agent)
{
    cv_worker_stop(agent->worker);
    cv_worker_join(agent->worker);
    service_end_all(agent);
    cv_worker_free(&agent->worker);
    cv_buf_done(&agent->head);
    cv_buf_done(&agent->seen);
    (void)pthread_mutex_destroy(&agent->lock);
    (void)pthread_cond_destroy(&agent->changed);
}

void fake_agent_wait(struct fake_agent *agent, bool (*is_true)(const struct fake_agent *agent),
                     const char *what)
{
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += BENCH_WAIT_S;
    int rc = 0;
    (void)pthread_mutex_lock(&agent->lock);
    while (rc == 0 && !is_true(agent))
        rc = pthread_cond_timedwait(&agent->changed, &agent->lock, &until);
    bool is_good = is_true(agent);
    (void)pthread_mutex_unlock(&agent->lock);
    if (!is_good)
        fail_msg("waited %d s for %s", BENCH_WAIT_S, what);
}

char *fake_agent_seen(struct fake_agent *agent)
{
    (void)pthread_mutex_lock(&agent->lock);
    size_t len = cv_buf_len(&agent->seen);
    char *text = malloc(len + 1);
    assert_non_null(text);
    if (len)
        memcpy(text, cv_buf_head(&agent->seen), len);
    text[len] = 0;
    (void)pthread_mutex_unlock(&agent->lock);
    return text;
}

unsigned fake_agent_count(struct fake_agent *agent, const unsigned *counter)
{
    (void)pthread_mutex_lock(&agent->lock);
    unsigned value = *counter;
    (void)pthread_mutex_unlock(&agent->lock);
    return value;
}

/* ---- direct streams ---- */

struct direct_call {
    struct cv_mail mail;
    struct fake_agent *agent;
    const char *name;
    unsigned port;
    struct cv_slice text;
    size_t sent;
    bool is_half_closed, is_abandoned;
    const char *needle;
    struct direct *direct;
    struct cv_stream *stream;
    bool is_done;
};

static void direct_end(struct direct_call *call)
{
    struct fake_agent *agent = call->agent;
    if (call->stream)
        cv_stream_close(call->stream);
    call->stream = NULL;
    (void)pthread_mutex_lock(&agent->lock);
    call->is_done = true;
    (void)pthread_cond_broadcast(&agent->changed);
    (void)pthread_mutex_unlock(&agent->lock);
}

static void direct_send(void *arg)
{
    struct direct_call *call = arg;
    call->sent += cv_stream_write(
        call->stream, cv_slice(call->text.data + call->sent, call->text.len - call->sent));
    if (call->sent == call->text.len && call->is_half_closed)
        cv_stream_eof(call->stream);
}

static void direct_refused(void *arg, uint32_t reason, struct cv_slice text)
{
    struct direct_call *call = arg;
    (void)reason;
    call->stream = NULL;
    call->direct->is_refused = true;
    (void)cv_slice_to_str(text, call->direct->refusal, sizeof call->direct->refusal);
    direct_end(call);
}

static void direct_data(void *arg, struct cv_slice data)
{
    struct direct_call *call = arg;
    assert_ok(cv_buf_append_slice(&call->direct->in, data));
    cv_stream_consumed(call->stream, data.len);
    if (call->needle && memmem(cv_buf_head(&call->direct->in), cv_buf_len(&call->direct->in),
                               call->needle, strlen(call->needle)))
        direct_end(call);
}

static void direct_closed(void *arg, struct cv_status why)
{
    struct direct_call *call = arg;
    (void)why;
    call->stream = NULL;
    call->direct->is_over = true;
    direct_end(call);
}

static const struct cv_stream_ops direct_ops = {
    .on_open = direct_send,
    .on_refused = direct_refused,
    .on_data = direct_data,
    .on_writable = direct_send,
    .on_closed = direct_closed,
};

static void direct_start(void *arg)
{
    struct direct_call *call = arg;
    assert_ok(cv_stream_open(call->agent->link, CV_STREAM_DIRECT, call->name, call->port, NULL,
                             &direct_ops, call, &call->stream));
}

void fake_agent_direct(struct fake_agent *agent, const char *name, unsigned port,
                       struct cv_slice text, bool is_half_closed, const char *needle,
                       struct direct *direct)
{
    struct direct_call call = {.agent = agent,
                               .name = name,
                               .port = port,
                               .text = text,
                               .is_half_closed = is_half_closed,
                               .needle = needle,
                               .direct = direct};
    struct timespec until;
    (void)clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += BENCH_WAIT_S;
    memset(direct, 0, sizeof *direct);
    cv_buf_init(&direct->in, 64u << 20);
    cv_mail_init(&call.mail, direct_start, &call);
    assert_true(cv_worker_post(agent->worker, &call.mail));
    int rc = 0;
    (void)pthread_mutex_lock(&agent->lock);
    while (rc == 0 && !call.is_done)
        rc = pthread_cond_timedwait(&agent->changed, &agent->lock, &until);
    bool is_done = call.is_done;
    (void)pthread_mutex_unlock(&agent->lock);
    if (!is_done) {
        /* `call` is on the stack and its stream still open: nothing after this could be trusted. */
        (void)fprintf(stderr, "direct %s:%u did not end, %zu bytes so far\n", name, port,
                      cv_buf_len(&direct->in));
        abort();
    }
}
