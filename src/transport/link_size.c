/* SPDX-License-Identifier: MIT
 *
 * Sizes that follow the path: receive windows of streams, what is kept for replay, how much is put
 * on the way before it is acknowledged.
 *
 * Windows and replay begin with what the settings give everybody, double while they hold bytes back
 * (flow/credit.h) as far as the link's ration goes, and give back what they took when they fall:
 * streams as they are used and when they end, the replay buffer when nothing is under way.
 */
#include "flow/ration.h"
#include "transport/link_private.h"

enum {
    FRAME_LEAST = 4096, /* crumbs would cost a frame each */
    RTT_MAX_MS = 600000,
    REPLAY_KEEP = 4096, /* a link at rest holds no more than this */
};

void link_size_init(struct cv_link *link)
{
    link->ration = cv_ration_ref(link->options.ration);
    cv_credit_init(&link->replay, link->options.replay_bytes, link->options.replay_max_bytes);
    cv_pace_init(&link->pace);
}

static void shrink_replay(struct cv_link *link)
{
    cv_ration_give(link->ration, link->replay.bytes - link->replay.least);
    cv_credit_set(&link->replay, link->replay.least);
}

void link_size_done(struct cv_link *link)
{
    shrink_replay(link);
    cv_ration_unref(&link->ration);
}

/* Who found no room goes on when the connection's output has fallen to its low mark: half of what
 * may wait must count as much, or nobody were told. */
static void set_marks(struct cv_link *link)
{
    size_t backlog = link_size_backlog(link);
    if (link->conn)
        cv_conn_set_marks(link->conn, backlog / 4, backlog / 2, LINK_OUT_CAP);
}

void link_size_restart(struct cv_link *link)
{
    cv_pace_init(&link->pace);
    link->was_paced = false;
    set_marks(link);
}

void link_size_on_pong(struct cv_link *link, uint64_t rtt_ms)
{
    cv_pace_saw_rtt(&link->pace, rtt_ms < RTT_MAX_MS ? (uint32_t)rtt_ms : RTT_MAX_MS,
                    cv_worker_now_ms(link->worker));
}

/* Only where it has held something back since the last time. */
static void grow_replay(struct cv_link *link, size_t len, uint64_t now_ms)
{
    struct cv_credit *window = &link->replay;
    size_t want = cv_credit_use(window, len, now_ms, link->pace.rtt_ms);
    if (want <= window->bytes || !link->was_full)
        return;
    link->was_full = false;
    if (cv_ration_take(link->ration, want - window->bytes))
        cv_credit_set(window, want);
}

void link_size_on_ack(struct cv_link *link, size_t len)
{
    uint64_t now_ms = cv_worker_now_ms(link->worker);
    size_t bytes;
    uint32_t ms;
    if (cv_link_seq_take_sample(&link->seq, &bytes, &ms)) {
        cv_pace_saw_ack(&link->pace, bytes, ms, link->was_paced, now_ms);
        link->was_paced = false;
        set_marks(link);
    }
    grow_replay(link, len, now_ms);
}

void link_size_on_rest(struct cv_link *link)
{
    if (cv_buf_len(&link->seq.replay))
        return;
    shrink_replay(link);
    cv_buf_shrink(&link->seq.replay, REPLAY_KEEP);
}

size_t link_size_may_frame(struct cv_link *link)
{
    size_t under_way = (size_t)cv_link_seq_in_flight(&link->seq);
    if (!link->seq.is_resumable)
        return SIZE_MAX;
    size_t may = under_way < link->pace.limit ? link->pace.limit - under_way : 0;
    size_t waiting = cv_link_seq_unframed(&link->seq).len;
    if (may < waiting)
        link->was_paced = true;
    return may < waiting && may < FRAME_LEAST ? 0 : may;
}

size_t link_size_backlog(const struct cv_link *link)
{
    size_t backlog = cv_pace_worth(&link->pace, LINK_BACKLOG_MS, LINK_BACKLOG);
    return backlog > LINK_BACKLOG_LEAST ? backlog : LINK_BACKLOG_LEAST;
}

/* What has been granted to the peer, and beyond that only control messages. Channels that are not
 * open count as if they were: an open and its data may wait here. */
size_t link_size_held(const struct cv_link *link)
{
    size_t least = (size_t)link->options.max_channels * link->options.window_bytes;
    size_t credit = link->ssh ? cv_ssh_credit(link->ssh) : 0;
    size_t most = (credit > least ? credit : least) + CV_SSH_FEED_MAX;
    return most > cv_buf_len(&link->held) ? most : cv_buf_len(&link->held);
}

/* ---- streams ---- */

void link_size_stream_init(struct cv_stream *stream)
{
    const struct cv_link_options *options = &stream->link->options;
    cv_credit_init(&stream->window, options->window_bytes, options->window_max_bytes);
}

/* What a window has more than everybody's is paid for as long as the peer may use it. */
static void settle(struct cv_stream *stream)
{
    size_t credit = cv_ssh_channel_credit(stream->channel), least = stream->window.least;
    size_t extra = credit > least ? credit - least : 0;
    if (extra >= stream->taken)
        return;
    cv_ration_give(stream->link->ration, stream->taken - extra);
    stream->taken = extra;
}

void link_size_stream_used(struct cv_stream *stream, size_t len)
{
    struct cv_link *link = stream->link;
    struct cv_credit *window = &stream->window;
    if (window->least == window->most)
        return;
    size_t want = cv_credit_use(window, len, cv_worker_now_ms(link->worker), link->pace.rtt_ms);
    if (stream->taken)
        settle(stream);
    if (want == window->bytes)
        return;
    size_t extra = want - window->least;
    if (extra > stream->taken) {
        if (!cv_ration_take(link->ration, extra - stream->taken))
            return;
        stream->taken = extra;
    }
    cv_credit_set(window, want);
    cv_ssh_channel_set_window(stream->channel, want);
}

void link_size_stream_done(struct cv_stream *stream)
{
    cv_ration_give(stream->link->ration, stream->taken);
    stream->taken = 0;
}
