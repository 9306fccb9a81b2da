/* SPDX-License-Identifier: MIT
 *
 * Bytes around through the relay: tunnel (it is opened, and leads back), data (1 MiB and its hash),
 * latency, throughput. See diagnose.h.
 *
 *      agent ──out──▶ relay ──in──▶ agent          `in` sends back what it gets,
 *            ◀──out──       ◀──in──                so that each byte passes the link four times
 */
#include "agent/access.h"
#include "agent/diagnose_private.h"
#include "base/digest.h"
#include "base/tunnel_name.h"
#include "config/agent_config.h"

#include <stdio.h>

enum {
    REFUSE_PROHIBITED = 1, /* RFC 4254 §5.1 */
    PING_BYTES = 16,
    FLOW_MS = 2000,                /* the throughput is measured for so long … */
    FLOW_BYTES = 64 * 1024 * 1024, /* … or until so much came back */
    FLOW_CHUNK = 64 * 1024,
};

/* ---- the other end: sends everything back ---- */

static void send_back(struct cv_diagnose *d)
{
    struct cv_slice waiting = cv_buf_slice(&d->echo);
    size_t sent = waiting.len ? cv_stream_write(d->in, waiting) : 0;
    cv_buf_consume(&d->echo, sent);
    cv_stream_consumed(d->in, sent);
    if (d->is_in_eof && cv_buf_len(&d->echo) == 0)
        cv_stream_eof(d->in);
}

static void on_in_data(void *arg, struct cv_slice data)
{
    struct cv_diagnose *d = arg;
    if (cv_is_ok(cv_buf_append_slice(&d->echo, data)))
        send_back(d);
}

static void on_in_eof(void *arg)
{
    struct cv_diagnose *d = arg;
    d->is_in_eof = true;
    send_back(d);
}

static void on_in_writable(void *arg)
{
    send_back(arg);
}

static void on_in_closed(void *arg, struct cv_status why)
{
    struct cv_diagnose *d = arg;
    (void)why;
    d->in = NULL;
}

static const struct cv_stream_ops in_ops = {.on_data = on_in_data,
                                            .on_eof = on_in_eof,
                                            .on_writable = on_in_writable,
                                            .on_closed = on_in_closed};

void diagnose_on_stream(struct cv_diagnose *d, struct cv_stream *stream, struct cv_slice host)
{
    if (d->in || !cv_slice_is(host, CV_DIAGNOSE_NAME)) {
        cv_stream_refuse(stream, REFUSE_PROHIBITED, "tunnel-unknown: not published here");
        return;
    }
    d->in = stream;
    cv_stream_accept(stream, &in_ops, d);
}

/* ---- our end ---- */

static bool is_under_way(const struct cv_diagnose *d, enum diagnose_stage stage)
{
    return d->stage == stage && !d->is_stage_over;
}

static void fail_flow(struct cv_diagnose *d, enum cv_status_id id, const char *finding)
{
    struct cv_error error = {0};
    diagnose_fail(d, cv_fail(&error, id, "%s", finding), &error, NULL);
}

static void on_out_open(void *arg)
{
    struct cv_diagnose *d = arg;
    if (is_under_way(d, DIAGNOSE_TUNNEL))
        diagnose_pass(d, "the relay opens it and leads back to this machine");
}

static void on_out_refused(void *arg, uint32_t reason, struct cv_slice text)
{
    struct cv_diagnose *d = arg;
    char finding[200];
    d->out = NULL;
    (void)snprintf(finding, sizeof finding, "the relay does not lead back (reason %u): %.*s",
                   (unsigned)reason, text.len < 120 ? (int)text.len : 120, (const char *)text.data);
    if (is_under_way(d, DIAGNOSE_TUNNEL))
        fail_flow(d, CV_SSH_LIMIT, finding);
}

static void on_out_closed(void *arg, struct cv_status why)
{
    struct cv_diagnose *d = arg;
    d->out = NULL;
    /* With the link: its own end follows, and says why. */
    if (cv_is_ok(why) && !d->is_stage_over && d->stage > DIAGNOSE_SERVICE)
        fail_flow(d, CV_LINK_LOST, "the relay ended the stream in the middle");
}

/* ---- data ---- */

static void send_data(struct cv_diagnose *d)
{
    struct cv_slice rest = cv_slice(d->sent + d->sent_len, DIAGNOSE_DATA_BYTES - d->sent_len);
    if (rest.len)
        d->sent_len += cv_stream_write(d->out, rest);
}

static void judge_data(struct cv_diagnose *d)
{
    uint8_t sent[CV_SHA256_LEN], received[CV_SHA256_LEN];
    char hex[2 * CV_SHA256_LEN + 1];
    cv_sha256(cv_slice(d->sent, DIAGNOSE_DATA_BYTES), sent);
    cv_sha256(cv_slice(d->received, DIAGNOSE_DATA_BYTES), received);
    bool is_same = cv_slice_equal(cv_slice(sent, sizeof sent), cv_slice(received, sizeof received));
    diagnose_note(d, "bytes", json_integer(DIAGNOSE_DATA_BYTES));
    cv_hex_encode(cv_slice(sent, sizeof sent), hex);
    diagnose_note(d, "sha256_sent", json_string(hex));
    cv_hex_encode(cv_slice(received, sizeof received), hex);
    diagnose_note(d, "sha256_received", json_string(hex));
    if (is_same)
        diagnose_pass(d, "1 MiB there and back, SHA-256 is the same");
    else
        fail_flow(d, CV_SSH_MAC, "what came back is not what was sent");
}

static void take_data(struct cv_diagnose *d, struct cv_slice data)
{
    size_t room = DIAGNOSE_DATA_BYTES - d->received_len;
    size_t len = data.len < room ? data.len : room;
    memcpy(d->received + d->received_len, data.data, len);
    d->received_len += len;
    if (d->received_len == DIAGNOSE_DATA_BYTES)
        judge_data(d);
}

/* False: the stage has failed. */
static bool begin_flow(struct cv_diagnose *d)
{
    if (!d->out)
        fail_flow(d, CV_LINK_LOST, "the relay ended the stream");
    return d->out;
}

void diagnose_data(struct cv_diagnose *d)
{
    if (!begin_flow(d))
        return;
    diagnose_limit(d, DIAGNOSE_LINK_STAGE_MS);
    cv_random(d->sent, DIAGNOSE_DATA_BYTES);
    send_data(d);
}

/* ---- latency ---- */

static void send_ping(struct cv_diagnose *d)
{
    d->received_len = 0;
    d->ping_ns = cv_worker_now_ns(d->worker);
    (void)cv_stream_write(d->out, cv_slice(d->sent, PING_BYTES)); /* the window is open */
}

static void judge_latency(struct cv_diagnose *d)
{
    uint64_t sum_us = 0, changes_us = 0, min_us = UINT64_MAX, max_us = 0;
    for (size_t i = 0; i < DIAGNOSE_PINGS; i++) {
        uint64_t us = d->pings_us[i], last = d->pings_us[i ? i - 1 : 0];
        sum_us += us;
        changes_us += us > last ? us - last : last - us;
        min_us = us < min_us ? us : min_us;
        max_us = us > max_us ? us : max_us;
    }
    double mean_ms = (double)sum_us / DIAGNOSE_PINGS / 1000;
    double jitter_ms = (double)changes_us / (DIAGNOSE_PINGS - 1) / 1000;
    diagnose_note(d, "samples", json_integer(DIAGNOSE_PINGS));
    diagnose_note(d, "mean_ms", json_real(mean_ms));
    diagnose_note(d, "min_ms", json_real((double)min_us / 1000));
    diagnose_note(d, "max_ms", json_real((double)max_us / 1000));
    diagnose_note(d, "jitter_ms", json_real(jitter_ms));
    diagnose_pass(d, "round trip to the relay %.2f ms (%.2f to %.2f), jitter %.2f ms", mean_ms,
                  (double)min_us / 1000, (double)max_us / 1000, jitter_ms);
}

/* The bytes have made two round trips: to the relay, to the other end, and the same way back. */
static void take_pong(struct cv_diagnose *d, size_t len)
{
    d->received_len += len;
    if (d->received_len < PING_BYTES)
        return;
    d->pings_us[d->ping_count++] = diagnose_us_since(d, d->ping_ns) / 2;
    if (d->ping_count == DIAGNOSE_PINGS)
        judge_latency(d);
    else
        send_ping(d);
}

void diagnose_latency(struct cv_diagnose *d)
{
    if (!begin_flow(d))
        return;
    diagnose_limit(d, DIAGNOSE_LINK_STAGE_MS);
    send_ping(d);
}

/* ---- throughput ---- */

static void send_flow(struct cv_diagnose *d)
{
    while (cv_stream_write(d->out, cv_slice(d->sent, FLOW_CHUNK)) == FLOW_CHUNK)
        ;
}

static void judge_flow(struct cv_diagnose *d)
{
    uint64_t us = diagnose_us_since(d, d->began_ns);
    double mbit = us ? (double)d->flow_bytes * 8 / (double)us : 0;
    diagnose_note(d, "bytes", json_integer((json_int_t)d->flow_bytes));
    diagnose_note(d, "mbit_per_second", json_real(mbit));
    struct cv_stream *out = d->out;
    d->out = NULL;
    cv_stream_close(out);
    diagnose_pass(d, "%.1f Mbit/s each way, each byte passing the link twice in both directions",
                  mbit);
}

static void on_flow_over(void *arg)
{
    struct cv_diagnose *d = arg;
    if (!is_under_way(d, DIAGNOSE_THROUGHPUT))
        return;
    if (d->flow_bytes)
        judge_flow(d);
    else
        fail_flow(d, CV_CONN_TIMEOUT, "nothing came back in time");
}

void diagnose_throughput(struct cv_diagnose *d)
{
    if (!begin_flow(d))
        return;
    cv_timer_init(&d->timer, on_flow_over, d);
    diagnose_limit(d, FLOW_MS);
    send_flow(d);
}

/* ---- our end's events ---- */

static void on_out_data(void *arg, struct cv_slice data)
{
    struct cv_diagnose *d = arg;
    size_t len = data.len;
    cv_stream_consumed(d->out, len);
    if (is_under_way(d, DIAGNOSE_DATA)) {
        take_data(d, data);
    } else if (is_under_way(d, DIAGNOSE_LATENCY)) {
        take_pong(d, len);
    } else if (is_under_way(d, DIAGNOSE_THROUGHPUT)) {
        d->flow_bytes += len;
        if (d->flow_bytes >= FLOW_BYTES)
            judge_flow(d);
    }
}

static void on_out_writable(void *arg)
{
    struct cv_diagnose *d = arg;
    if (is_under_way(d, DIAGNOSE_DATA))
        send_data(d);
    else if (is_under_way(d, DIAGNOSE_THROUGHPUT))
        send_flow(d);
}

static void on_out_eof(void *arg)
{
    (void)arg; /* on_closed follows */
}

static const struct cv_stream_ops out_ops = {.on_open = on_out_open,
                                             .on_refused = on_out_refused,
                                             .on_data = on_out_data,
                                             .on_eof = on_out_eof,
                                             .on_writable = on_out_writable,
                                             .on_closed = on_out_closed};

/* ---- tunnel ---- */

void diagnose_on_reply(struct cv_diagnose *d, bool is_success)
{
    struct cv_error error = {0};
    if (!is_under_way(d, DIAGNOSE_TUNNEL))
        return;
    if (!is_success) {
        diagnose_fail(d,
                      cv_fail(&error, CV_FORBIDDEN, "the relay does not open one: %s",
                              d->refused[0] ? d->refused : "it gives no reason"),
                      &error, "The relay may be older than this program: update it.");
        return;
    }
    struct cv_status status = cv_stream_open(d->link, CV_STREAM_DIRECT, CV_DIAGNOSE_NAME,
                                             CV_DIAGNOSE_PORT, NULL, &out_ops, d, &d->out);
    if (!cv_is_ok(status))
        diagnose_fail(d, status, NULL, NULL);
}

void diagnose_tunnel(struct cv_diagnose *d)
{
    diagnose_limit(d, d->options.access->config->connect_relay_timeout_ms);
    struct cv_status status =
        cv_link_forward(d->link, CV_DIAGNOSE_NAME, CV_DIAGNOSE_PORT, false, 0);
    if (!cv_is_ok(status))
        diagnose_fail(d, status, NULL, NULL);
}
