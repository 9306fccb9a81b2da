/* SPDX-License-Identifier: MIT
 *
 * What link.c (carrier: socket, frames, byte count), link_life.c (time: signs of life, deadlines),
 * link_resume.c (losing a socket and getting another) and stream.c (SSH events, streams) share.
 * Nobody else includes this.
 */
#ifndef CV_TRANSPORT_LINK_PRIVATE_H
#define CV_TRANSPORT_LINK_PRIVATE_H

#include "base/fsm.h"
#include "flow/credit.h"
#include "flow/pace.h"
#include "net/conn.h"
#include "net/worker.h"
#include "proto/link/resume.h"
#include "proto/link/seq.h"
#include "proto/ssh/ssh.h"
#include "proto/ws/ws.h"
#include "transport/link.h"

enum {
    /* What may wait in front of a new stream's bytes, on its way to the kernel: what the path takes
     * in so long, within these bounds. */
    LINK_BACKLOG_MS = 100,
    LINK_BACKLOG_LEAST = 16 * 1024,
    LINK_BACKLOG = 256 * 1024,
    LINK_OUT_HIGH = 128 * 1024, /* nothing more is framed */
    LINK_OUT_CAP = 1024 * 1024,
    /* One frame: its length fits the two-byte form, and a stream's bytes wait for at most this. */
    LINK_FRAME_BYTES = 65535,
    LINK_TEXT_CAP = 64 * 1024,
    LINK_CLOSE_MS = 5000,
    /* What SSH keeps for control messages in its output. */
    LINK_SSH_RESERVE = 16384 + 4096,
};

/* detached: no socket, the session waits for another one. */
enum link_state {
    LINK_HANDSHAKE,
    LINK_UP,
    LINK_DETACHED,
    LINK_CLOSING,
    LINK_CLOSED,
    LINK_STATE_COUNT
};

/* What of the link's own counts is in the metrics already (link_count.c). */
struct link_told {
    uint64_t sent[6], received[6]; /* frames of this socket, by opcode */
    size_t channels;
    unsigned quality;
};

struct cv_stream {
    struct cv_link *link;
    struct cv_ssh_channel *channel;
    struct cv_credit window; /* its receive window */
    size_t taken;            /* from the link's ration, for it */
    const struct cv_stream_ops *ops;
    void *arg;
    char correlation[CV_STREAM_CORRELATION_MAX + 1];
};

struct cv_link {
    struct cv_worker *worker;
    struct cv_conn *conn; /* NULL while detached, and once it was let go */
    struct cv_ws *ws;     /* of the last socket */
    struct cv_ssh *ssh;
    struct cv_link_seq seq;
    struct cv_credit replay; /* the size of seq.replay */
    struct cv_pace pace;     /* how much may be framed and not acknowledged */
    bool was_paced;          /* it has held bytes back since the last round trip was measured */
    bool was_full;           /* the replay buffer has, since it was grown last */
    struct cv_ration *ration;
    struct cv_buf held; /* bytes for SSH that it could not take yet */
    struct cv_buf text; /* a control message that came in pieces */
    struct cv_fsm state;
    struct cv_link_options options;
    const struct cv_link_ops *ops;
    void *arg;
    struct cv_log *log;
    struct cv_timer timer;   /* the next of: SSH deadline, acknowledgement, ping */
    struct cv_defer service; /* end of the turn: frame, acknowledge, report */
    uint64_t last_rx_ms;
    uint64_t ping_sent_ms;  /* 0: none is unanswered */
    uint64_t asked_ms;      /* when the last one was sent */
    uint64_t ping_limit_ms; /* so long its answer may take */
    uint32_t ping_rtt_ms;   /* smoothed; 0: unknown */
    bool is_active;         /* bytes have gone either way since the last ping */
    bool is_in_doubt;       /* an SSH deadline waits for the outcome of a ping */
    uint64_t taken;         /* cv_conn_progress when it was last looked at … */
    uint64_t taken_ms;      /* … and when it last changed, or there was nothing to send */
    uint64_t clear_ms;      /* when nothing waited to be sent, the last time it was looked at */
    struct cv_status why;   /* set when closing */
    struct cv_error error;
    bool is_bound; /* the first keys are there: secret is valid */
    uint8_t secret[CV_LINK_SECRET_LEN];
    uint64_t counter;      /* of the last claim that was made (agent) or accepted (relay) */
    uint64_t detached_ms;  /* since when there is no socket */
    uint64_t replayed;     /* bytes sent again, in all */
    bool is_loss_untold;   /* on_detached is due */
    uint64_t ping_sent_ns; /* for the metrics; 0: not measured */
    struct link_told told;
};

/* link_size.c: windows and buffers that follow the path. */
void link_size_init(struct cv_link *link);
void link_size_done(struct cv_link *link);
void link_size_restart(struct cv_link *link); /* another path */
void link_size_on_pong(struct cv_link *link, uint64_t rtt_ms);
void link_size_on_ack(struct cv_link *link, size_t len);
void link_size_on_rest(struct cv_link *link); /* nothing is under way: gives memory back */
/* Bytes that may be framed now: 0, or worth a frame. */
size_t link_size_may_frame(struct cv_link *link);
/* The most that may wait for the kernel. */
size_t link_size_backlog(const struct cv_link *link);
/* The most that may wait for SSH. */
size_t link_size_held(const struct cv_link *link);
void link_size_stream_init(struct cv_stream *stream);
void link_size_stream_used(struct cv_stream *stream, size_t len); /* `len` bytes were consumed */
void link_size_stream_done(struct cv_stream *stream);

/* stream.c: hands SSH what came, and its events to whom they concern. */
void link_feed_ssh(struct cv_link *link, uint8_t *data, size_t len);
void link_pump_ssh(struct cv_link *link);
void link_end_streams(struct cv_link *link);

/* link.c */
void link_adopt(struct cv_link *link, struct cv_conn *conn, struct cv_slice early);
struct cv_status link_make_ws(const struct cv_link_options *options, struct cv_ws **ws);
void link_send_text(struct cv_link *link, struct cv_slice text);
void link_end(struct cv_link *link, struct cv_status why, const char *detail);

/* link_count.c: what has happened, for the metrics. */
void link_count_begin(struct cv_link *link);
void link_count_turn(struct cv_link *link);
void link_count_end(struct cv_link *link);
void link_count_frames(struct cv_link *link);
void link_count_new_socket(struct cv_link *link); /* before the old engine goes */
void link_count_pong(struct cv_link *link);
void link_count_dead(struct cv_link *link); /* nothing came back any more */
void link_count_replayed(struct cv_link *link, uint64_t bytes);
void link_count_refused(struct cv_link *link, uint32_t ssh_reason);

/* link_life.c */
bool link_has_unsent(const struct cv_link *link);
void link_arm_timer(struct cv_link *link);
void link_on_timer(void *arg);
void link_ask(struct cv_link *link);     /* a ping on a path that is new: how long it is */
void link_on_life(struct cv_link *link); /* bytes have come */
void link_on_pong(struct cv_link *link);
/* Bytes have been sent: on a link that has been silent they are followed by a probe. */
void link_on_sent(struct cv_link *link);

/* link_resume.c: the socket is lost. The link waits for another one if it can, else it ends. */
void link_lose(struct cv_link *link, struct cv_status why, const char *detail);
/* The peer's close code says that it gives up this socket, not the link. */
bool link_is_socket_close(unsigned code);
void link_bind(struct cv_link *link);
void link_tell_loss(struct cv_link *link);

void link_touch(
    struct cv_link *link); /* something was appended or became due: serve it this turn */
void link_set_room(struct cv_link *link);
void link_fail(struct cv_link *link, struct cv_status why, const char *detail);

static inline bool link_is_ending(const struct cv_link *link)
{
    return link->state.state >= LINK_CLOSING;
}

#endif
