/* SPDX-License-Identifier: MIT
 *
 * Happy path: start → begin (end of turn) → resolve → race → connection → CONNECT and its answer →
 * TLS → finish(CV_OK).
 * Fails: every stage through fail(), which names the stage; the timer; the worker's end. All of
 * them end in finish(), which frees the dial and then calls on_done.
 */
#include "net/dial.h"

#include "base/digest.h"
#include "net/race.h"
#include "net/resolve.h"
#include "net/worker_priv.h"

#include <stdlib.h>
#include <unistd.h>

enum {
    TIMEOUT_MS = 30 * 1000,
    STAGGER_MS = 250,
    PROXY_ANSWER_MAX = 8 * 1024,
    HINT_MS = 400, /* so long a name may take where an address is known */
};

struct cv_dial {
    struct cv_worker *worker;
    cv_dial_on_done *on_done;
    void *arg;
    char host[CV_HOST_LEN];
    uint16_t port;
    struct cv_proxy proxy;
    struct cv_tls_client *tls;
    struct cv_tls_facts *facts; /* the caller's, or NULL */
    uint64_t timeout_ms;
    enum cv_dial_stage stage;
    struct cv_timer timer;
    struct cv_defer begin;
    struct cv_worker_item item;
    struct cv_resolve *resolve;
    struct cv_timer hint_timer;
    struct cv_addr hint;
    bool has_hint;
    unsigned rounds;
    struct cv_race race;
    struct cv_conn *conn;
    struct cv_buf answer; /* of the proxy */
};

const char *cv_dial_stage_name(enum cv_dial_stage stage)
{
    static const char *const names[] = {"dns", "tcp", "proxy", "tls"};
    return names[(unsigned)stage < sizeof names / sizeof names[0] ? stage : CV_DIAL_DNS];
}

/* --- ending --- */

static void ignore_data(void *arg, uint8_t *data, size_t len)
{
    (void)arg;
    (void)data;
    (void)len;
}

/* Frees everything but the connection, which it returns. */
static struct cv_conn *release(struct cv_dial *dial)
{
    struct cv_conn *conn = dial->conn;
    if (conn)
        cv_conn_disown(conn);
    cv_resolve_cancel(&dial->resolve);
    cv_race_stop(&dial->race);
    cv_worker_timer_stop(dial->worker, &dial->timer);
    cv_worker_timer_stop(dial->worker, &dial->hint_timer);
    cv_defer_cancel(&dial->begin);
    cv_worker_item_remove(dial->worker, &dial->item);
    cv_buf_done(&dial->answer);
    cv_wipe(&dial->proxy, sizeof dial->proxy);
    free(dial);
    return conn;
}

static void finish(struct cv_dial *dial, struct cv_status status, const struct cv_error *error)
{
    static const struct cv_error no_error;
    cv_dial_on_done *on_done = dial->on_done;
    void *arg = dial->arg;
    struct cv_dial_result result = {
        .status = status, .error = error ? error : &no_error, .stage = dial->stage};
    struct cv_conn *conn = release(dial);
    if (cv_is_ok(status))
        result.conn = conn;
    else if (conn)
        cv_conn_close(conn, status);
    on_done(arg, &result);
}

static void fail(struct cv_dial *dial, struct cv_status status, const char *detail)
{
    struct cv_error error;
    (void)!cv_is_ok(cv_fail(&error, status.id, "%s: %.240s", cv_dial_stage_name(dial->stage),
                            *detail ? detail : cv_status_text(status.id)));
    finish(dial, status, &error);
}

static void on_timeout(void *arg)
{
    struct cv_dial *dial = arg;
    char detail[CV_HOST_LEN + 64];
    (void)snprintf(detail, sizeof detail, "no answer from %s within %llu ms", dial->host,
                   (unsigned long long)dial->timeout_ms);
    fail(dial, cv_status(CV_CONN_TIMEOUT), detail);
}

static void on_worker_stop(void *arg)
{
    fail(arg, cv_status(CV_SHUTTING_DOWN), "");
}

/* --- TLS --- */

static void tls_open(void *arg)
{
    finish(arg, cv_ok(), NULL);
}

static void conn_closed(void *arg, struct cv_status why, const struct cv_error *error)
{
    struct cv_dial *dial = arg;
    dial->conn = NULL;
    fail(dial, cv_is_ok(why) ? cv_status(CV_CONN_RESET) : why, error->detail);
}

static const struct cv_conn_ops tls_ops = {
    .on_open = tls_open,
    .on_data = ignore_data, /* none comes before on_open */
    .on_closed = conn_closed,
};

/* --- proxy --- */

static void begin_tls(struct cv_dial *dial, int fd)
{
    dial->stage = CV_DIAL_TLS;
    struct cv_tls_session *session;
    struct cv_error error = {0};
    struct cv_status status = cv_tls_client_session(dial->tls, dial->host, fd, &session, &error);
    if (!cv_is_ok(status)) {
        if (!dial->conn)
            (void)close(fd);
        fail(dial, status, error.detail);
        return;
    }
    if (dial->facts)
        cv_tls_session_observe(session, dial->facts);
    if (dial->conn) {
        cv_conn_set_ops(dial->conn, &tls_ops, dial);
        status = cv_conn_start_tls(dial->conn, session);
    } else {
        status = cv_conn_new(dial->worker, fd, session, &tls_ops, dial, &dial->conn, &error);
    }
    if (!cv_is_ok(status))
        fail(dial, status, error.detail);
}

/* "HTTP/1.1 407 Proxy Authentication Required": the code, and the text behind the version for a
 * person, in printable characters. False when it is no status line (RFC 9112 §4). */
static bool parse_status_line(struct cv_slice line, uint64_t *code, char text[100])
{
    if (!cv_slice_starts_with(line, "HTTP/1.") || line.len < 12 || line.data[8] != ' ' ||
        !cv_slice_to_u64(cv_slice(line.data + 9, 3), 999, code) ||
        (line.len > 12 && line.data[12] != ' '))
        return false;
    size_t len = 0;
    for (size_t i = 9; i < line.len && len < 99; i++)
        text[len++] = line.data[i] >= 32 && line.data[i] < 127 ? (char)line.data[i] : '?';
    text[len] = '\0';
    return true;
}

static void proxy_data(void *arg, uint8_t *data, size_t len)
{
    struct cv_dial *dial = arg;
    if (!cv_is_ok(cv_buf_append(&dial->answer, data, len))) {
        fail(dial, cv_status(CV_PROXY), "the proxy's answer is too long");
        return;
    }
    struct cv_slice answer = cv_buf_slice(&dial->answer);
    const uint8_t *end = memmem(answer.data, answer.len, "\r\n\r\n", 4);
    if (!end)
        return;
    struct cv_slice rest = answer;
    uint64_t code = 0;
    char text[100];
    if (!parse_status_line(cv_slice_trim(cv_slice_split(&rest, '\r')), &code, text)) {
        fail(dial, cv_status(CV_PROXY), "the proxy did not answer in HTTP/1.1");
        return;
    }
    if (code < 200 || code > 299) {
        fail(dial, cv_status(CV_PROXY), text);
        return;
    }
    /* A 2xx to CONNECT has no body (RFC 9110 §9.3.6), and nobody we dial speaks first. */
    if (end + 4 != answer.data + answer.len) {
        fail(dial, cv_status(CV_PROXY), "the proxy sent bytes behind its answer");
        return;
    }
    if (dial->tls)
        begin_tls(dial, cv_conn_fd(dial->conn));
    else
        finish(dial, cv_ok(), NULL);
}

static void proxy_eof(void *arg)
{
    fail(arg, cv_status(CV_PROXY), "the proxy closed the connection");
}

static void proxy_closed(void *arg, struct cv_status why, const struct cv_error *error)
{
    (void)why;
    struct cv_dial *dial = arg;
    dial->conn = NULL;
    fail(dial, cv_status(CV_PROXY), *error->detail ? error->detail : "the proxy hung up");
}

static const struct cv_conn_ops proxy_ops = {
    .on_data = proxy_data,
    .on_eof = proxy_eof,
    .on_closed = proxy_closed,
};

static struct cv_status write_connect(struct cv_dial *dial)
{
    struct cv_buf *out = cv_conn_out(dial->conn);
    const char *open = strchr(dial->host, ':') ? "[" : "";
    const char *close = *open ? "]" : "";
    CV_RETURN_IF_ERROR(cv_buf_printf(out,
                                     "CONNECT %s%s%s:%u HTTP/1.1\r\nHost: %s%s%s:%u\r\n"
                                     "User-Agent: culvert/%s\r\n",
                                     open, dial->host, close, dial->port, open, dial->host, close,
                                     dial->port, CV_VERSION));
    if (*dial->proxy.userinfo) {
        char coded[4 * (sizeof dial->proxy.userinfo + 2) / 3 + 1];
        cv_base64_encode(cv_slice_str(dial->proxy.userinfo), coded);
        struct cv_status status =
            cv_buf_printf(out, "Proxy-Authorization: Basic %s\r\n", coded); /* RFC 7617 */
        cv_wipe(coded, sizeof coded);
        CV_RETURN_IF_ERROR(status);
    }
    CV_RETURN_IF_ERROR(cv_buf_append_str(out, "\r\n"));
    cv_conn_flush(dial->conn);
    return cv_ok();
}

/* --- connecting --- */

static void on_connected(void *arg, int fd)
{
    struct cv_dial *dial = arg;
    bool has_proxy = *dial->proxy.host;
    if (fd < 0) {
        char addr[CV_ADDR_TEXT_LEN], detail[200];
        int failure = dial->race.sys_errno;
        const char *text = strerrordesc_np(failure);
        (void)snprintf(detail, sizeof detail, "connect to %s: %s",
                       cv_addr_format(&dial->race.failed, addr), text ? text : "failed");
        if (has_proxy)
            dial->stage = CV_DIAL_PROXY;
        fail(dial, cv_status(has_proxy ? CV_PROXY : cv_status_from_errno(failure)), detail);
        return;
    }
    if (dial->tls && !has_proxy) {
        begin_tls(dial, fd);
        return;
    }
    struct cv_error error = {0};
    struct cv_status status = cv_conn_new(dial->worker, fd, NULL, has_proxy ? &proxy_ops : &tls_ops,
                                          dial, &dial->conn, &error);
    if (cv_is_ok(status) && has_proxy) {
        dial->stage = CV_DIAL_PROXY;
        status = write_connect(dial);
    }
    if (!cv_is_ok(status))
        fail(dial, status, error.detail);
    else if (!has_proxy)
        finish(dial, cv_ok(), NULL);
}

static void race(struct cv_dial *dial)
{
    dial->stage = CV_DIAL_TCP;
    cv_race_interleave(&dial->race);
    if (dial->rounds > 1)
        cv_race_repeat(&dial->race, dial->rounds);
    cv_race_start(&dial->race);
}

/* The name is not resolved, or not soon: the address of the last time may still be right. */
static void race_hint(void *arg)
{
    struct cv_dial *dial = arg;
    cv_resolve_cancel(&dial->resolve);
    cv_race_add(&dial->race, &dial->hint);
    race(dial);
}

static void not_resolved(struct cv_dial *dial, const char *reason)
{
    char detail[CV_HOST_LEN + 100];
    (void)snprintf(detail, sizeof detail, "%s: %s",
                   *dial->proxy.host ? dial->proxy.host : dial->host, reason);
    fail(dial, cv_status(CV_RESOLVE), detail);
}

static void on_resolved(void *arg, const struct cv_resolve_result *result)
{
    struct cv_dial *dial = arg;
    dial->resolve = NULL;
    cv_worker_timer_stop(dial->worker, &dial->hint_timer);
    for (size_t i = 0; i < result->count; i++)
        cv_race_add(&dial->race, &result->addrs[i]);
    if (cv_is_ok(result->status))
        race(dial);
    else if (dial->has_hint)
        race_hint(dial);
    else
        not_resolved(dial, result->reason);
}

static void resolve(struct cv_dial *dial, const char *host, uint16_t port)
{
    const char *reason;
    struct cv_status status =
        cv_resolve_start(dial->worker, host, port, on_resolved, dial, &dial->resolve, &reason);
    if (!cv_is_ok(status))
        fail(dial, status, reason);
    else if (dial->has_hint)
        (void)cv_worker_timer_start(dial->worker, &dial->hint_timer, HINT_MS);
}

static void begin(void *arg)
{
    struct cv_dial *dial = arg;
    const char *host = *dial->proxy.host ? dial->proxy.host : dial->host;
    uint16_t port = *dial->proxy.host ? dial->proxy.port : dial->port;
    struct cv_addr known[CV_RESOLVE_MAX];
    size_t count = cv_resolve_known(host, port, known);
    for (size_t i = 0; i < count; i++)
        cv_race_add(&dial->race, &known[i]);
    if (count)
        race(dial);
    else
        resolve(dial, host, port);
}

struct cv_status cv_dial_start(struct cv_worker *worker, const struct cv_dial_options *options,
                               cv_dial_on_done *on_done, void *arg, struct cv_dial **out,
                               struct cv_error *error)
{
    *out = NULL;
    size_t len = strlen(options->host);
    if (len == 0 || len >= CV_HOST_LEN || options->port == 0)
        return cv_fail(error, CV_INVALID, "no host and port to connect to");
    struct cv_dial *dial = calloc(1, sizeof *dial);
    if (!dial)
        return cv_fail(error, CV_NO_MEMORY, "no memory to connect");
    dial->worker = worker;
    dial->on_done = on_done;
    dial->arg = arg;
    memcpy(dial->host, options->host, len + 1);
    dial->port = options->port;
    if (options->proxy)
        dial->proxy = *options->proxy;
    dial->tls = options->tls;
    dial->facts = options->tls_facts;
    dial->timeout_ms = options->timeout_ms ? options->timeout_ms : TIMEOUT_MS;
    dial->rounds = options->rounds;
    dial->has_hint = options->hint != NULL;
    if (options->hint)
        dial->hint = *options->hint;
    cv_timer_init(&dial->hint_timer, race_hint, dial);
    cv_buf_init(&dial->answer, PROXY_ANSWER_MAX);
    cv_timer_init(&dial->timer, on_timeout, dial);
    cv_defer_init(&dial->begin, begin, dial);
    dial->race.worker = worker;
    dial->race.stagger_ms = options->stagger_ms ? options->stagger_ms : STAGGER_MS;
    dial->race.on_done = on_connected;
    dial->race.arg = dial;
    if (!cv_is_ok(cv_worker_timer_start(worker, &dial->timer, dial->timeout_ms))) {
        free(dial);
        return cv_fail(error, CV_NO_MEMORY, "no memory to connect");
    }
    cv_worker_item_add(worker, &dial->item, on_worker_stop, dial);
    cv_worker_defer(worker, &dial->begin);
    *out = dial;
    return cv_ok();
}

void cv_dial_cancel(struct cv_dial **pointer)
{
    struct cv_dial *dial = *pointer;
    if (!dial)
        return;
    *pointer = NULL;
    struct cv_conn *conn = release(dial);
    if (conn)
        cv_conn_close(conn, cv_status(CV_CANCELLED));
}
