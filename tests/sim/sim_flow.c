/* SPDX-License-Identifier: MIT
 *
 * The streams of a simulated conversation: a pattern both ways, checked byte by byte.
 */
#include "sim_private.h"

enum { CHUNK = 16384, PORT = 80 };

static uint8_t byte_at(const struct sim_flow *flow, enum sim_side from, uint64_t offset)
{
    return (uint8_t)((offset * 2654435761U >> 13) + flow->number * 2 + from);
}

static void end_if_done(struct sim_flow *flow)
{
    if (!flow->stream || !flow->is_eof_sent || !flow->is_eof || flow->unconsumed)
        return;
    cv_stream_close(flow->stream);
    flow->stream = NULL;
    flow->is_over = true;
}

static void send_more(struct sim_flow *flow)
{
    uint64_t total = flow->sim->schedule->bytes[flow->at];
    uint8_t bytes[CHUNK];
    while (flow->sent < total) {
        size_t len = total - flow->sent < CHUNK ? (size_t)(total - flow->sent) : CHUNK;
        for (size_t i = 0; i < len; i++)
            bytes[i] = byte_at(flow, flow->at, flow->sent + i);
        size_t taken = cv_stream_write(flow->stream, cv_slice(bytes, len));
        flow->sent += taken;
        if (taken < len)
            return;
    }
    if (!flow->is_eof_sent)
        cv_stream_eof(flow->stream);
    flow->is_eof_sent = true;
    end_if_done(flow);
}

static void on_open(void *arg)
{
    send_more(arg);
}

static void on_refused(void *arg, uint32_t reason, struct cv_slice text)
{
    (void)arg;
    (void)reason;
    (void)text;
    cv_fuzz_must(false); /* nobody refuses a stream */
}

static void on_consume(void *arg)
{
    struct sim_flow *flow = arg;
    size_t len = (size_t)flow->unconsumed;
    flow->unconsumed = 0;
    if (!flow->stream)
        return;
    cv_stream_consumed(flow->stream, len);
    end_if_done(flow);
}

static void on_data(void *arg, struct cv_slice data)
{
    struct sim_flow *flow = arg;
    struct sim *sim = flow->sim;
    cv_fuzz_must(!flow->is_eof);
    cv_fuzz_must(flow->received + data.len <= sim->schedule->bytes[!flow->at]);
    for (size_t i = 0; i < data.len; i++)
        cv_fuzz_must(data.data[i] == byte_at(flow, !flow->at, flow->received + i));
    flow->received += data.len;
    flow->unconsumed += data.len;
    cv_fuzz_must(flow->unconsumed <= cv_stream_window_max(flow->stream));
    cv_fuzz_must(flow->unconsumed <= sim->schedule->window_bytes + sim->schedule->growth_bytes);
    if (!sim->schedule->consume_ms)
        on_consume(flow);
    else if (!cv_timer_is_running(&flow->consume))
        (void)cv_worker_timer_start(sim->worker, &flow->consume, sim->schedule->consume_ms);
}

static void on_eof(void *arg)
{
    struct sim_flow *flow = arg;
    cv_fuzz_must(flow->received == flow->sim->schedule->bytes[!flow->at]);
    flow->is_eof = true;
    end_if_done(flow);
}

static void on_writable(void *arg)
{
    send_more(arg);
}

static void on_closed(void *arg, struct cv_status why)
{
    struct sim_flow *flow = arg;
    flow->stream = NULL;
    if (cv_is_ok(why) && !flow->sim->is_closing) {
        cv_fuzz_must(flow->is_eof && flow->is_eof_sent);
        flow->is_over = true;
    }
}

static const struct cv_stream_ops ops = {on_open, on_refused,  on_data,
                                         on_eof,  on_writable, on_closed};

void sim_flows_init(struct sim *sim)
{
    for (unsigned i = 0; i < sim->schedule->streams; i++) {
        for (int at = 0; at < SIM_SIDES; at++) {
            struct sim_flow *flow = &sim->flows[i][at];
            *flow = (struct sim_flow){.sim = sim, .at = (enum sim_side)at, .number = i};
            cv_timer_init(&flow->consume, on_consume, flow);
        }
    }
}

void sim_flows_open(struct sim *sim)
{
    for (unsigned i = 0; i < sim->schedule->streams; i++) {
        struct sim_flow *flow = &sim->flows[i][SIM_RELAY];
        cv_fuzz_must(cv_is_ok(cv_stream_open(sim->sides[SIM_RELAY].link, CV_STREAM_FORWARDED,
                                             "home", PORT + i, NULL, &ops, flow, &flow->stream)));
    }
}

void sim_flow_accept(void *arg, struct cv_stream *stream, enum cv_stream_kind kind,
                     struct cv_slice host, uint32_t port)
{
    struct sim_end *end = arg;
    cv_fuzz_must(kind == CV_STREAM_FORWARDED && cv_slice_is(host, "home"));
    cv_fuzz_must(port >= PORT && port < PORT + end->sim->schedule->streams);
    struct sim_flow *flow = &end->sim->flows[port - PORT][end->at];
    cv_fuzz_must(!flow->stream && !flow->is_over);
    flow->stream = stream;
    cv_stream_accept(stream, &ops, flow);
    send_more(flow);
}

bool sim_flows_are_over(const struct sim *sim)
{
    for (unsigned i = 0; i < sim->schedule->streams; i++)
        for (int at = 0; at < SIM_SIDES; at++)
            if (!sim->flows[i][at].is_over)
                return false;
    return true;
}

void sim_flows_stop(struct sim *sim)
{
    for (unsigned i = 0; i < sim->schedule->streams; i++)
        for (int at = 0; at < SIM_SIDES; at++)
            cv_worker_timer_stop(sim->worker, &sim->flows[i][at].consume);
}
