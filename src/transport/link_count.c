/* SPDX-License-Identifier: MIT
 *
 * What a link tells of itself to the metrics of its worker. Frames and channels are counted by the
 * engines; at the end of each turn the block gets what has been added since.
 */
#include "transport/link_private.h"

#include "telemetry/metrics.h"

/* Below so many milliseconds of a round trip, as the agent judges (flow/quality.h). */
enum { QUALITY_EXCELLENT_MS = 50, QUALITY_GOOD_MS = 100, QUALITY_FAIR_MS = 200 };

static unsigned quality_of(const struct cv_link *link)
{
    uint32_t rtt_ms = link->ping_rtt_ms; /* acknowledgements are put off: they make any link fair */
    if (link->state.state == LINK_DETACHED)
        return CV_L_QUALITY_DETACHED;
    if (!rtt_ms)
        return CV_L_QUALITY_UNKNOWN;
    if (rtt_ms < QUALITY_EXCELLENT_MS)
        return CV_L_QUALITY_EXCELLENT;
    if (rtt_ms < QUALITY_GOOD_MS)
        return CV_L_QUALITY_GOOD;
    return rtt_ms < QUALITY_FAIR_MS ? CV_L_QUALITY_FAIR : CV_L_QUALITY_POOR;
}

static void count_quality(struct cv_link *link, unsigned quality)
{
    struct cv_metrics_block *block = link->options.metrics;
    if (link->told.quality == quality)
        return;
    if (link->told.quality < CV_L_QUALITY_COUNT)
        cv_metrics_sub(block, CV_CELL(QUALITY, link->told.quality, 0), 1);
    if (quality < CV_L_QUALITY_COUNT)
        cv_metrics_add(block, CV_CELL(QUALITY, quality, 0), 1);
    link->told.quality = quality;
}

static void count_channels(struct cv_link *link, size_t count)
{
    if (link->told.channels == count)
        return;
    cv_metrics_add(link->options.metrics, CV_CELL(CHANNELS, 0, 0),
                   (uint64_t)count - link->told.channels);
    link->told.channels = count;
}

void link_count_frames(struct cv_link *link)
{
    static const uint8_t codes[CV_L_OPCODE_COUNT] = {
        [CV_L_OPCODE_CONTINUATION] = CV_WS_CONTINUATION,
        [CV_L_OPCODE_TEXT] = CV_WS_TEXT,
        [CV_L_OPCODE_BINARY] = CV_WS_BINARY,
        [CV_L_OPCODE_CLOSE] = CV_WS_CLOSE,
        [CV_L_OPCODE_PING] = CV_WS_PING,
        [CV_L_OPCODE_PONG] = CV_WS_PONG,
    };
    const struct cv_ws_counters *now = link->ws ? cv_ws_counters(link->ws) : NULL;
    struct cv_metrics_block *block = link->options.metrics;
    if (!block || !now)
        return;
    for (unsigned i = 0; i < CV_L_OPCODE_COUNT; i++) {
        uint64_t sent = now->sent[codes[i]], received = now->received[codes[i]];
        if (sent != link->told.sent[i])
            cv_metrics_add(block, CV_CELL(FRAMES, CV_L_DIRECTION_SENT, i),
                           sent - link->told.sent[i]);
        if (received != link->told.received[i])
            cv_metrics_add(block, CV_CELL(FRAMES, CV_L_DIRECTION_RECEIVED, i),
                           received - link->told.received[i]);
        link->told.sent[i] = sent;
        link->told.received[i] = received;
    }
}

void link_count_new_socket(struct cv_link *link)
{
    link_count_frames(link);
    for (unsigned i = 0; i < CV_L_OPCODE_COUNT; i++)
        link->told.sent[i] = link->told.received[i] = 0;
}

void link_count_turn(struct cv_link *link)
{
    if (!link->options.metrics)
        return;
    link_count_frames(link);
    count_channels(link, cv_ssh_channel_count(link->ssh));
    count_quality(link, quality_of(link));
}

void link_count_begin(struct cv_link *link)
{
    link->told.quality = CV_L_QUALITY_COUNT; /* not counted yet */
}

void link_count_end(struct cv_link *link)
{
    link_count_frames(link);
    count_channels(link, 0);
    count_quality(link, CV_L_QUALITY_COUNT);
}

void link_count_pong(struct cv_link *link)
{
    uint64_t now_ns = link->options.metrics ? cv_worker_now_ns(link->worker) : 0;
    if (link->ping_sent_ns && now_ns > link->ping_sent_ns)
        CV_OBSERVE(link->options.metrics, PING_RTT, 0, 0, now_ns - link->ping_sent_ns);
    link->ping_sent_ns = 0;
}

void link_count_dead(struct cv_link *link)
{
    cv_metrics_add(link->options.metrics, CV_CELL(KEEPALIVE_FAILURES, 0, 0), 1);
}

void link_count_replayed(struct cv_link *link, uint64_t bytes)
{
    cv_metrics_add(link->options.metrics, CV_CELL(REPLAYED_BYTES, CV_L_REPLAY_SENT, 0), bytes);
}

/* RFC 4254 §5.1 */
void link_count_refused(struct cv_link *link, uint32_t ssh_reason)
{
    static const uint8_t labels[] = {CV_L_OPEN_OTHER, CV_L_OPEN_PROHIBITED,
                                     CV_L_OPEN_CONNECT_FAILED, CV_L_OPEN_UNKNOWN_TYPE,
                                     CV_L_OPEN_RESOURCE_SHORTAGE};
    unsigned label = ssh_reason < sizeof labels ? labels[ssh_reason] : CV_L_OPEN_OTHER;
    cv_metrics_add(link->options.metrics, CV_CELL(CHANNEL_FAILURES, label, 0), 1);
}
