/* SPDX-License-Identifier: MIT
 *
 * The carrier of a link: socket, frames, byte count, time.
 *
 * Happy path: cv_link_new → on_conn_data → take_frame → link_feed_ssh (stream.c) … on_up …
 *   streams write → link_touch → on_service: frame_output, acknowledge → the connection writes
 * once. Ways it fails: the socket closes or resets (on_conn_closed), silence (link_life.c): the
 * link waits for another socket (link_resume.c); no other socket came in time; the peer breaks
 * WebSocket, SSH or control rules (link_fail); SSH disconnect; the owner closes. The latter end in
 * finish(), once, at the end of a turn: streams first, then on_closed.
 */
#include "transport/link_private.h"

#include "base/digest.h"
#include "telemetry/log.h"

#include <stdlib.h>
#include <string.h>

static const char *const state_names[LINK_STATE_COUNT] = {"handshake", "up", "detached", "closing",
                                                          "closed"};
static const struct cv_fsm_step state_steps[] = {
    {LINK_HANDSHAKE, LINK_UP, "the SSH session stands"},
    {LINK_HANDSHAKE, LINK_CLOSING, "socket lost, key exchange failed, or closed"},
    {LINK_UP, LINK_DETACHED, "socket lost, given up, or displaced by a resume"},
    {LINK_UP, LINK_CLOSING, "closed by either side, rules broken, or lost and not to be resumed"},
    {LINK_DETACHED, LINK_UP, "another socket, its claim proven"},
    {LINK_DETACHED, LINK_CLOSING, "link.resume_window over, or closed"},
    {LINK_CLOSING, LINK_CLOSED, "streams ended, goodbye said"},
};
const struct cv_fsm_def cv_link_states = {
    .name = "link", .states = state_names, .count = LINK_STATE_COUNT, CV_FSM_STEPS(state_steps)};

static void on_state(void *arg, const char *machine, const char *from, const char *to)
{
    struct cv_link *link = arg;
    cv_log(link->log, CV_LOG_DEBUG, "link", "link_state", "link changes state",
           CV_F_STR("machine", machine), CV_F_STR("from", from), CV_F_STR("to", to));
}

/* ---- output ---- */

/* SSH may encrypt as much as keeps a backlog in front of the socket, within the replay cap. */
void link_set_room(struct cv_link *link)
{
    size_t unframed = cv_link_seq_unframed(&link->seq).len;
    size_t backlog = unframed + (link->conn ? cv_buf_len(cv_conn_out(link->conn)) : 0);
    size_t most = link_size_backlog(link);
    size_t room = LINK_SSH_RESERVE + (backlog < most ? most - backlog : 0);
    size_t cap = cv_buf_len(&link->seq.replay) + room;
    link->seq.replay.cap = cap;
    if (cap > link->replay.bytes) {
        link->seq.replay.cap = link->replay.bytes;
        link->was_full = true;
    }
    if (link->seq.replay.cap < cv_buf_len(&link->seq.replay))
        link->seq.replay.cap = cv_buf_len(&link->seq.replay);
}

/* `is_last`: closing, take everything that fits whatever the marks say. */
static void frame_output(struct cv_link *link, bool is_last)
{
    uint64_t now_ms = cv_worker_now_ms(link->worker);
    struct cv_buf *out = cv_conn_out(link->conn);
    bool is_written = false;
    for (;;) {
        struct cv_slice rest = cv_link_seq_unframed(&link->seq);
        if (rest.len == 0 || (!is_last && cv_buf_len(out) > LINK_OUT_HIGH))
            break;
        if (rest.len > LINK_FRAME_BYTES)
            rest.len = LINK_FRAME_BYTES;
        size_t may = is_last ? rest.len : link_size_may_frame(link);
        if (rest.len > may)
            rest.len = may;
        if (rest.len == 0)
            break;
        if (!cv_is_ok(cv_ws_send(link->ws, out, CV_WS_BINARY, CV_WS_FIN, rest)))
            break;
        cv_link_seq_framed(&link->seq, rest.len, now_ms);
        is_written = true;
    }
    if (!is_written)
        return;
    cv_conn_flush(link->conn);
    link_on_sent(link);
}

void link_send_text(struct cv_link *link, struct cv_slice text)
{
    if (!link->conn)
        return;
    struct cv_status status =
        cv_ws_send(link->ws, cv_conn_out(link->conn), CV_WS_TEXT, CV_WS_FIN, text);
    if (cv_is_ok(status))
        cv_conn_flush(link->conn);
    else if (status.id != CV_EOF)
        link_fail(link, status, "a control message could not be sent");
}

static void acknowledge(struct cv_link *link)
{
    if (!cv_link_seq_ack_is_due(&link->seq, cv_worker_now_ms(link->worker)))
        return;
    char text[CV_LINK_ACK_TEXT_MAX];
    link_send_text(link, cv_link_ack_encode(cv_link_seq_take_ack(&link->seq), text));
}

struct cv_status cv_link_control_send(struct cv_link *link, const struct cv_link_control *control)
{
    if (!link->options.is_culvert || link_is_ending(link) || !link->conn)
        return cv_ok();
    struct cv_buf text;
    cv_buf_init(&text, CV_LINK_CONTROL_MAX);
    struct cv_status status = cv_link_control_encode(control, &text);
    if (cv_is_ok(status))
        link_send_text(link, cv_buf_slice(&text));
    cv_buf_wipe(&text);
    return status;
}

/* ---- end of a turn ---- */

static uint16_t close_code(struct cv_status why)
{
    int code = cv_status_ws_close(why.id);
    return cv_ws_close_code_is_valid((unsigned)code) ? (uint16_t)code : 1011;
}

/* Says why on every layer, as far as the socket takes it, and lets it go. */
static void say_goodbye(struct cv_link *link)
{
    struct cv_conn *conn = link->conn;
    if (!conn)
        return;
    link->conn = NULL;
    cv_conn_disown(conn);
    const char *text = link->error.detail[0] ? link->error.detail : cv_status_text(link->why.id);
    if (link->ssh) {
        link->seq.replay.cap = link->replay.bytes + 65536;
        cv_ssh_disconnect(link->ssh, (uint32_t)cv_status_ssh_disconnect(link->why.id), text);
        link->conn = conn;
        frame_output(link, true);
        link->conn = NULL;
    }
    if (link->ws)
        (void)cv_ws_send_close(link->ws, cv_conn_out(conn), close_code(link->why),
                               cv_slice_str(text));
    cv_conn_flush(conn);
    cv_conn_close_lingering(conn, LINK_CLOSE_MS);
}

static void link_free(struct cv_link *link)
{
    cv_worker_timer_stop(link->worker, &link->timer);
    cv_defer_cancel(&link->service);
    cv_ssh_free(&link->ssh);
    cv_ws_free(&link->ws);
    cv_link_seq_done(&link->seq);
    link_size_done(link);
    cv_buf_done(&link->held);
    cv_buf_wipe(&link->text);
    cv_wipe(link->secret, sizeof link->secret);
    free(link);
}

static void finish(struct cv_link *link)
{
    link_end_streams(link);
    say_goodbye(link);
    cv_fsm_set(&link->state, LINK_CLOSED);
    link_count_end(link);
    if (link->ops->on_closed)
        link->ops->on_closed(link->arg, link->why, &link->error);
    link_free(link);
}

static void on_service(void *arg)
{
    struct cv_link *link = arg;
    if (!link_is_ending(link)) {
        link_set_room(link);
        link_pump_ssh(link);
    }
    if (!link_is_ending(link) && link->conn) {
        acknowledge(link);
        frame_output(link, false);
        if (!link_has_unsent(link))
            link->taken_ms = link->clear_ms = cv_worker_now_ms(link->worker);
    }
    if (!link_is_ending(link) && link->is_loss_untold)
        link_tell_loss(link);
    link_count_turn(link);
    if (!link_is_ending(link))
        link_arm_timer(link);
    if (link_is_ending(link))
        finish(link);
}

void link_touch(struct cv_link *link)
{
    cv_worker_defer(link->worker, &link->service);
}

void link_end(struct cv_link *link, struct cv_status why, const char *detail)
{
    if (link_is_ending(link))
        return;
    link->why = why;
    if (!link->error.detail[0] && detail)
        (void)cv_fail(&link->error, why.id, "%s", detail);
    link->error.id = why.id;
    cv_fsm_set(&link->state, LINK_CLOSING);
    link_touch(link);
}

void link_fail(struct cv_link *link, struct cv_status why, const char *detail)
{
    link_end(link, why, detail);
}

void cv_link_close(struct cv_link *link, struct cv_status why, const char *message)
{
    if (!link_is_ending(link) && link->options.is_culvert) {
        struct cv_link_control bye = {.type = CV_LINK_BYE};
        (void)cv_slice_to_str(cv_slice_str(cv_status_name(why.id)), bye.code, sizeof bye.code);
        (void)cv_slice_to_str(cv_slice_str(message ? message : ""), bye.message,
                              sizeof bye.message);
        (void)cv_link_control_send(link, &bye);
    }
    link_end(link, why, message);
}

/* ---- input ---- */

static struct cv_status take_ack(struct cv_link *link, uint64_t received)
{
    uint64_t before = link->seq.acked;
    CV_RETURN_IF_ERROR(cv_link_seq_acked(&link->seq, received, cv_worker_now_ms(link->worker)));
    link_size_on_ack(link, (size_t)(link->seq.acked - before));
    return cv_ok();
}

static void take_control(struct cv_link *link, struct cv_slice text)
{
    struct cv_link_control control;
    struct cv_status status = cv_link_control_decode(text, &control);
    if (status.id == CV_AGAIN)
        return;
    if (cv_is_ok(status) && control.type == CV_LINK_ACK)
        status = take_ack(link, control.received);
    else if (cv_is_ok(status) && link->ops->on_control)
        link->ops->on_control(link->arg, &control);
    cv_wipe(control.token, sizeof control.token);
    if (!cv_is_ok(status))
        link_fail(link, status, status.id == CV_NO_MEMORY ? NULL : "a malformed control message");
}

static void take_text(struct cv_link *link, const struct cv_ws_event *event)
{
    if (event->is_first && event->is_final) {
        take_control(link, event->data);
        return;
    }
    if (!cv_is_ok(cv_buf_append_slice(&link->text, event->data))) {
        link_fail(link, cv_status(CV_WS_POLICY), "a control message is too long");
        return;
    }
    if (event->is_final) {
        take_control(link, cv_buf_slice(&link->text));
        cv_buf_done(&link->text);
    }
}

static void take_frame(struct cv_link *link, const struct cv_ws_event *event)
{
    switch (event->type) {
    case CV_WS_EVENT_DATA:
        if (event->opcode == CV_WS_TEXT) {
            take_text(link, event);
        } else if (event->data.len) {
            link->is_active = true;
            cv_link_seq_received(&link->seq, event->data.len, cv_worker_now_ms(link->worker));
            /* The engine hands out what was fed to it, which is ours to change. */
            link_feed_ssh(link, (uint8_t *)(uintptr_t)event->data.data, event->data.len);
        }
        break;
    case CV_WS_EVENT_PING:
        (void)cv_ws_answer_ping(link->ws, cv_conn_out(link->conn));
        cv_conn_flush(link->conn);
        break;
    case CV_WS_EVENT_PONG:
        link_on_pong(link);
        break;
    case CV_WS_EVENT_CLOSE:
        (void)cv_fail(&link->error, CV_LINK_LOST, "the peer closed with code %u", event->code);
        if (link_is_socket_close(event->code))
            link_lose(link, cv_status(CV_LINK_LOST), NULL);
        else
            link_end(link, cv_status(event->code == 1000 ? CV_OK : CV_LINK_LOST), NULL);
        break;
    }
}

static void on_conn_data(void *arg, uint8_t *data, size_t len)
{
    struct cv_link *link = arg;
    link->last_rx_ms = cv_worker_now_ms(link->worker);
    if (link_is_ending(link))
        return;
    cv_ws_feed(link->ws, data, len);
    struct cv_ws_event event;
    struct cv_status status = cv_ok();
    while (!link_is_ending(link) && link->conn) {
        status = cv_ws_next(link->ws, &event);
        if (!cv_is_ok(status))
            break;
        take_frame(link, &event);
    }
    if (!cv_is_ok(status) && status.id != CV_AGAIN)
        link_fail(link, status, cv_ws_failure_text(link->ws));
    link_on_life(link);
    link_touch(link);
}

static void on_conn_eof(void *arg)
{
    struct cv_link *link = arg;
    if (!link_is_ending(link))
        link_lose(link, cv_status(CV_LINK_LOST), "the peer closed the connection");
}

static void on_conn_writable(void *arg)
{
    struct cv_link *link = arg;
    if (link_is_ending(link))
        return;
    (void)cv_ws_answer_ping(link->ws, cv_conn_out(link->conn));
    link_touch(link);
}

static void on_conn_closed(void *arg, struct cv_status why, const struct cv_error *error)
{
    struct cv_link *link = arg;
    link->conn = NULL;
    if (link_is_ending(link))
        return;
    if (error)
        link->error = *error;
    link_lose(link, cv_is_ok(why) ? cv_status(CV_LINK_LOST) : why, "the connection was lost");
}

static const struct cv_conn_ops conn_ops = {
    .on_data = on_conn_data,
    .on_eof = on_conn_eof,
    .on_writable = on_conn_writable,
    .on_closed = on_conn_closed,
};

/* ---- life ---- */

struct cv_status link_make_ws(const struct cv_link_options *o, struct cv_ws **out)
{
    struct cv_ws_options ws;
    cv_ws_options_init(&ws, o->role == CV_LINK_RELAY ? CV_WS_SERVER : CV_WS_CLIENT);
    ws.max_frame_bytes = o->max_frame_bytes;
    ws.accepts_text = o->is_culvert;
    *out = cv_ws_new(&ws);
    return cv_status(*out ? CV_OK : CV_NO_MEMORY);
}

static struct cv_status make_engines(struct cv_link *link)
{
    const struct cv_link_options *o = &link->options;
    CV_RETURN_IF_ERROR(link_make_ws(o, &link->ws));
    struct cv_ssh_options ssh = {
        .transport = {.role = o->role == CV_LINK_RELAY ? CV_SSH_SERVER : CV_SSH_CLIENT,
                      .host_key = o->host_key,
                      .ciphers = o->ciphers,
                      .has_compression = o->has_compression,
                      .has_guess = o->role == CV_LINK_AGENT,
                      .rekey_bytes = o->rekey_bytes,
                      .rekey_ms = o->rekey_ms,
                      .handshake_ms = o->handshake_ms},
        .max_channels = o->max_channels,
        .window_bytes = o->window_bytes,
        .keepalive_ms = o->keepalive_ms,
    };
    return cv_ssh_new(&ssh, &link->seq.replay, cv_worker_now_ms(link->worker), &link->ssh);
}

void link_adopt(struct cv_link *link, struct cv_conn *conn, struct cv_slice early)
{
    uint64_t now_ms = cv_worker_now_ms(link->worker);
    cv_conn_set_notsent_lowat(conn, 128 * 1024);
    cv_conn_set_user_timeout(conn, link->options.ping_interval_ms + link->options.pong_timeout_ms);
    cv_conn_set_ops(conn, &conn_ops, link);
    link->conn = conn;
    link->last_rx_ms = now_ms;
    link->taken = 0;
    link->taken_ms = now_ms;
    link->ping_sent_ms = 0;
    link_size_restart(link);
    link_touch(link);
    if (!early.len)
        return;
    uint8_t *copy = malloc(early.len);
    if (copy) {
        memcpy(copy, early.data, early.len);
        on_conn_data(link, copy, early.len);
        free(copy);
    } else {
        link_fail(link, cv_status(CV_NO_MEMORY), "no memory for early bytes");
    }
}

struct cv_status cv_link_new(struct cv_worker *worker, struct cv_conn *conn,
                             const struct cv_link_options *options, struct cv_slice early,
                             const struct cv_link_ops *ops, void *arg, struct cv_log *log,
                             struct cv_link **out)
{
    struct cv_link *link = calloc(1, sizeof *link);
    *out = NULL;
    if (!link)
        return cv_status(CV_NO_MEMORY);
    *link = (struct cv_link){.worker = worker,
                             .options = *options,
                             .ops = ops,
                             .arg = arg,
                             .log = log,
                             .state = {.def = &cv_link_states, .on_change = on_state}};
    link->state.arg = link;
    cv_link_seq_init(&link->seq, options->is_culvert, options->replay_bytes);
    link_size_init(link);
    cv_buf_init(&link->held, link_size_held(link));
    cv_buf_init(&link->text, CV_LINK_CONTROL_MAX);
    cv_timer_init(&link->timer, link_on_timer, link);
    cv_defer_init(&link->service, on_service, link);
    struct cv_status status = make_engines(link);
    if (!cv_is_ok(status)) {
        link_free(link);
        return status;
    }
    *out = link;
    link_count_begin(link);
    link_adopt(link, conn, early);
    return cv_ok();
}

/* ---- facts ---- */

size_t cv_link_streams(const struct cv_link *link)
{
    return cv_ssh_channel_count(link->ssh);
}

const struct cv_addr *cv_link_local_addr(const struct cv_link *link)
{
    return link->conn ? cv_conn_local_addr(link->conn) : NULL;
}

size_t cv_link_max_streams(const struct cv_link *link)
{
    return link->options.max_channels;
}

uint32_t cv_link_rtt_ms(const struct cv_link *link)
{
    return link->ping_rtt_ms ? link->ping_rtt_ms : link->seq.rtt_ms;
}

uint64_t cv_link_bytes_in(const struct cv_link *link)
{
    return link->seq.received;
}

uint64_t cv_link_bytes_out(const struct cv_link *link)
{
    return link->seq.framed;
}

size_t cv_link_replay_held(const struct cv_link *link)
{
    return cv_buf_len(&link->seq.replay);
}

uint64_t cv_link_replayed_bytes(const struct cv_link *link)
{
    return link->replayed;
}
