/* SPDX-License-Identifier: MIT
 *
 * Time on a link: signs of life, and everything that is due.
 *
 * Any byte received is life. Silence is asked about with a ping: after ws.ping_interval on a link
 * at rest, and soon (LINK_PROBE_MS) where bytes have gone either way, since somebody waits then. An
 * answer may take ws.pong_timeout at rest, and max(3 s, 4 round trips) under traffic. Bytes that
 * the peer's kernel goes on acknowledging are life of the path: a slow uplink with much in front of
 * the ping is not a dead one.
 *
 * SSH's own deadlines judge the peer, not the path: one that passes in silence waits until a ping
 * has told which of the two it is.
 */
#include "transport/link_private.h"

enum {
    LINK_PROBE_MS = 5000,
    LINK_PROBE_ANSWER_MS = 3000,
    LINK_SILENT_MS = 250, /* so long ago no peer that answers has said its last word */
};

bool link_has_unsent(const struct cv_link *link)
{
    return cv_buf_len(cv_conn_out(link->conn)) || cv_link_seq_unframed(&link->seq).len;
}

/* How long bytes may wait for a peer that takes none, whatever it says meanwhile. */
static uint64_t stall_ms(const struct cv_link *link)
{
    return (uint64_t)link->options.ping_interval_ms + link->options.pong_timeout_ms;
}

/* Since when it has taken nothing. What it acknowledges tells: pings and acknowledgements pass the
 * bytes that wait for it, and its kernel takes those from us whether or not it reads. */
static uint64_t stalled_ms(const struct cv_link *link)
{
    bool has_acks = link->seq.is_resumable && cv_link_seq_in_flight(&link->seq);
    return has_acks ? link->seq.last_ack_ms : link->taken_ms;
}

/* How long an answer may take where somebody waits for it. */
static uint64_t answer_ms(const struct cv_link *link)
{
    uint64_t rtt_ms = link->ping_rtt_ms > link->seq.rtt_ms ? link->ping_rtt_ms : link->seq.rtt_ms;
    uint64_t limit_ms = rtt_ms * 4 > LINK_PROBE_ANSWER_MS ? rtt_ms * 4 : LINK_PROBE_ANSWER_MS;
    return limit_ms < link->options.pong_timeout_ms ? limit_ms : link->options.pong_timeout_ms;
}

/* What the peer has not acknowledged is traffic too: a probe that was answered by bytes that were
 * under way says nothing of the path after them. */
static bool is_busy(const struct cv_link *link)
{
    return link->is_active || cv_link_seq_in_flight(&link->seq);
}

static uint64_t quiet_ms(const struct cv_link *link)
{
    return is_busy(link) && LINK_PROBE_MS < link->options.ping_interval_ms
               ? LINK_PROBE_MS
               : link->options.ping_interval_ms;
}

/* When the next ping is due while none is unanswered. Bytes that come are life, but where ours are
 * not acknowledged for as long, the path may be dead one way. */
static uint64_t ping_due_ms(const struct cv_link *link)
{
    uint64_t since_ms = link->last_rx_ms;
    if (cv_link_seq_in_flight(&link->seq) && link->seq.last_ack_ms < since_ms)
        since_ms = link->seq.last_ack_ms > link->asked_ms ? link->seq.last_ack_ms : link->asked_ms;
    return since_ms + quiet_ms(link);
}

/* Silence since then counts against a ping that is unanswered. Bytes that are not its answer put
 * the end off, but do not stand for it: where only one direction is dead, a few still come. */
static uint64_t heard_ms(const struct cv_link *link)
{
    return link->last_rx_ms > link->ping_sent_ms ? link->last_rx_ms : link->ping_sent_ms;
}

static uint64_t next_deadline(const struct cv_link *link)
{
    if (link->state.state == LINK_DETACHED)
        return link->detached_ms + link->options.resume_ms;
    uint64_t due = link->is_in_doubt ? UINT64_MAX : cv_ssh_deadline(link->ssh);
    uint64_t ping = link->ping_sent_ms ? heard_ms(link) + link->ping_limit_ms : ping_due_ms(link);
    if (ping < due)
        due = ping;
    if (link->conn && link_has_unsent(link) && stalled_ms(link) + stall_ms(link) < due)
        due = stalled_ms(link) + stall_ms(link);
    return link->seq.ack_due_ms < due ? link->seq.ack_due_ms : due;
}

/* The timer is moved only to an earlier time; when it fires early it is simply started again. */
void link_arm_timer(struct cv_link *link)
{
    uint64_t due = next_deadline(link), now_ms = cv_worker_now_ms(link->worker);
    if (cv_timer_is_running(&link->timer) && link->timer.due_ms <= due)
        return;
    if (!cv_is_ok(
            cv_worker_timer_start(link->worker, &link->timer, due > now_ms ? due - now_ms : 0)))
        link_fail(link, cv_status(CV_NO_MEMORY), "no memory for a timer");
}

/* A peer that sends but never reads would hold what waits for it for ever. */
static void check_reading(struct cv_link *link, uint64_t now_ms)
{
    uint64_t taken = cv_conn_progress(link->conn);
    if (taken != link->taken || !link_has_unsent(link)) {
        link->taken = taken;
        link->taken_ms = now_ms;
    }
    if (link_has_unsent(link) && now_ms >= stalled_ms(link) + stall_ms(link))
        link_fail(link, cv_status(CV_WS_POLICY), "the peer does not read");
}

static void send_ping(struct cv_link *link, uint64_t now_ms, uint64_t limit_ms)
{
    if (!cv_is_ok(cv_ws_send_ping(link->ws, cv_conn_out(link->conn), cv_slice(NULL, 0))))
        return;
    link->ping_sent_ms = now_ms;
    link->ping_sent_ns = link->options.metrics ? cv_worker_now_ns(link->worker) : 0;
    link->asked_ms = now_ms;
    link->ping_limit_ms = limit_ms;
    link->is_active = false;
    cv_conn_flush(link->conn);
}

/* The ping may stand behind what the peer takes slowly, but not for ever. What has been written
 * just now says nothing: something must have waited ever since the ping was sent. */
static bool is_path_moving(struct cv_link *link, uint64_t now_ms)
{
    return link->taken_ms > link->ping_sent_ms && link->clear_ms < link->ping_sent_ms &&
           link_has_unsent(link) && now_ms - link->last_rx_ms < stall_ms(link);
}

static void check_life(struct cv_link *link, uint64_t now_ms)
{
    if (!link->ping_sent_ms) {
        if (now_ms < ping_due_ms(link))
            return;
        link_size_on_rest(link);
        send_ping(link, now_ms, is_busy(link) ? answer_ms(link) : link->options.pong_timeout_ms);
        return;
    }
    if (now_ms - heard_ms(link) < link->ping_limit_ms)
        return;
    if (is_path_moving(link, now_ms)) {
        link->ping_sent_ms = now_ms;
    } else {
        link_count_dead(link);
        link_lose(link, cv_status(CV_CONN_TIMEOUT), "no sign of life from the peer");
    }
}

/* The outcome comes from the next pump. */
static void check_ssh(struct cv_link *link, uint64_t now_ms)
{
    if (now_ms < cv_ssh_deadline(link->ssh))
        return;
    bool is_silent = now_ms - link->last_rx_ms >= LINK_SILENT_MS;
    bool is_asked = link->ping_sent_ms != 0;
    if (link->state.state == LINK_UP && is_silent && (is_asked || is_busy(link))) {
        if (!is_asked)
            send_ping(link, now_ms, answer_ms(link));
        link->is_in_doubt = link->ping_sent_ms != 0;
        if (link->is_in_doubt)
            return;
    }
    cv_ssh_tick(link->ssh, now_ms);
}

void link_on_timer(void *arg)
{
    struct cv_link *link = arg;
    uint64_t now_ms = cv_worker_now_ms(link->worker);
    if (link_is_ending(link))
        return;
    link_touch(link);
    if (!link->conn) {
        if (now_ms - link->detached_ms >= link->options.resume_ms)
            link_end(link, cv_status(CV_LINK_LOST), "the link was not taken up again in time");
        return;
    }
    link_set_room(link);
    check_ssh(link, now_ms);
    check_reading(link, now_ms);
    if (!link_is_ending(link))
        check_life(link, now_ms);
}

void link_on_life(struct cv_link *link)
{
    link->is_in_doubt = false;
}

void link_on_pong(struct cv_link *link)
{
    if (!link->ping_sent_ms)
        return;
    uint64_t sample = cv_worker_now_ms(link->worker) - link->ping_sent_ms;
    uint32_t rtt_ms = sample > 600000 ? 600000 : (uint32_t)sample;
    /* RFC 6298 §2: smoothing by an eighth. */
    /* On a moving path ping_sent_ms was put off. */
    link_size_on_pong(link, cv_worker_now_ms(link->worker) - link->asked_ms);
    link->ping_rtt_ms =
        link->ping_rtt_ms ? (link->ping_rtt_ms * 7 + rtt_ms + 4) / 8 : rtt_ms + !rtt_ms;
    link->ping_sent_ms = 0;
    link_count_pong(link);
    if (link->ops->on_pong)
        link->ops->on_pong(link->arg, rtt_ms);
}

void link_ask(struct cv_link *link)
{
    if (link->conn && !link->ping_sent_ms)
        send_ping(link, cv_worker_now_ms(link->worker), link->options.pong_timeout_ms);
}

void link_on_sent(struct cv_link *link)
{
    uint64_t now_ms = cv_worker_now_ms(link->worker);
    link->is_active = true;
    if (now_ms - link->last_rx_ms >= LINK_PROBE_MS)
        cv_link_probe(link);
}

void cv_link_probe(struct cv_link *link)
{
    uint64_t now_ms = cv_worker_now_ms(link->worker);
    if (link->state.state != LINK_UP)
        return;
    uint64_t limit_ms = answer_ms(link);
    if (!link->ping_sent_ms) {
        send_ping(link, now_ms, limit_ms);
    } else if (heard_ms(link) + link->ping_limit_ms > now_ms + limit_ms) {
        link->ping_limit_ms = now_ms + limit_ms - heard_ms(link);
    }
    link_touch(link);
}
