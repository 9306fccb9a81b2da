/* SPDX-License-Identifier: MIT
 *
 * What the files of the connection protocol share: ssh.c (session, events, time), channel.c and
 * channel_in.c (RFC 4254 §5 and §7.2), global.c (RFC 4254 §4 and §7.1). Nobody else includes this.
 *
 * How something of ours gets out. During a key exchange only its own messages may be sent (RFC 4253
 * §7.1), and `out` may be full, so there are three ways:
 *   data      is taken while there is room, else not; the caller keeps it (cv_ssh_channel_write)
 *   messages  are sent at once or wait, in order, in `held` (cv_ssh_session_send)
 *   window adjust, eof, close
 *             become flags of the channel when they cannot go out at once: so they are bounded and
 *             never fail. They follow `held`.
 * What a peer can cause to be held is bounded: the transport takes no packet while `out` is full,
 * and more than CV_SSH_HELD_MAX during a key exchange ends the session.
 */
#ifndef CV_PROTO_SSH_SESSION_H
#define CV_PROTO_SSH_SESSION_H

#include "base/fsm.h"
#include "proto/ssh/ssh.h"
#include "proto/ssh/wire.h"

/* Messages held back, in bytes. */
#define CV_SSH_HELD_MAX 65536
/* RFC 4254 lets a peer ask for packets of one byte; below this we do not serve it. */
#define CV_SSH_PEER_PACKET_MIN 1024
/* The most data in one packet, sent or accepted. */
#define CV_SSH_DATA_MAX 32768
/* Room that is worth a packet of data, and the event that announces it. */
#define CV_SSH_ROOM_MIN 4096
/* Refusals of global requests that wait for their turn behind the caller's answers. */
#define CV_SSH_OWED_REFUSALS_MAX 1024
/* The largest message that is built on the stack: an open with two names. */
#define CV_SSH_MESSAGE_MAX 1024

enum cv_ssh_message_id {
    CV_SSH_MSG_GLOBAL_REQUEST = 80,
    CV_SSH_MSG_REQUEST_SUCCESS = 81,
    CV_SSH_MSG_REQUEST_FAILURE = 82,
    CV_SSH_MSG_CHANNEL_OPEN = 90,
    CV_SSH_MSG_CHANNEL_OPEN_CONFIRMATION = 91,
    CV_SSH_MSG_CHANNEL_OPEN_FAILURE = 92,
    CV_SSH_MSG_CHANNEL_WINDOW_ADJUST = 93,
    CV_SSH_MSG_CHANNEL_DATA = 94,
    CV_SSH_MSG_CHANNEL_EXTENDED_DATA = 95,
    CV_SSH_MSG_CHANNEL_EOF = 96,
    CV_SSH_MSG_CHANNEL_CLOSE = 97,
    CV_SSH_MSG_CHANNEL_REQUEST = 98,
    CV_SSH_MSG_CHANNEL_SUCCESS = 99,
    CV_SSH_MSG_CHANNEL_FAILURE = 100,
};

/*   the peer opens: REQUESTED ──confirm──▶ OPEN ──close──▶ CLOSING ──peer's close──▶ CLOSED
 *                       └────────refuse──────┼───────peer's close───────────────────────▲ ▲
 *        we open:    OPENING ──confirmed──▶ OPEN                                        │ │
 *                       ├────────refused────────────────────────────────────────────────┘ │
 *                       └─close─▶ CANCELLED ──confirmed──▶ CLOSING, or ──refused──────────┘ */
enum cv_ssh_channel_state {
    CV_SSH_CHANNEL_IS_REQUESTED, /* the peer waits for our answer */
    CV_SSH_CHANNEL_IS_OPENING,   /* we wait for the peer's */
    CV_SSH_CHANNEL_IS_CANCELLED, /* closed by the caller before that came */
    CV_SSH_CHANNEL_IS_OPEN,
    CV_SSH_CHANNEL_IS_CLOSING, /* our close is sent or due, the peer's is missing */
    CV_SSH_CHANNEL_IS_CLOSED,
    CV_SSH_CHANNEL_STATE_COUNT
};

struct cv_ssh_channel {
    struct cv_ssh *ssh;
    void *arg;
    struct cv_fsm fsm;                                  /* enum cv_ssh_channel_state */
    struct cv_ssh_channel *due_prev, *due_next;         /* in ssh->due */
    struct cv_ssh_channel *waiting_prev, *waiting_next; /* in ssh->waiting */
    struct cv_ssh_channel *dead_next;                   /* in ssh->dead */
    uint32_t id;                                        /* ours: index in ssh->channels */
    uint32_t peer_id;                                   /* set once it is known */
    uint32_t send_window;                               /* bytes that the peer still lets us send */
    uint32_t send_packet;                               /* bytes per packet to it */
    uint32_t window;                                    /* what recv_window is to come back to */
    uint32_t recv_window;                               /* bytes that we still let the peer send */
    uint32_t unconsumed; /* delivered, and not yet passed on by the caller */
    uint32_t give_back;  /* consumed, and not yet given back by a window adjust */
    bool is_eof_received;
    bool is_eof_sent;  /* or due: the caller has said that no more comes */
    bool is_orphan;    /* the caller has seen its last event, only the peer's close is missing */
    bool wants_window; /* a write was short for lack of window */
    bool is_waiting;   /* in ssh->waiting */
    bool is_due;       /* in ssh->due, with at least one of: */
    bool is_adjust_due, is_eof_due, is_close_due;
};

/* A global request of ours that waits for its answer. */
struct cv_ssh_asked {
    void *cookie;
    uint64_t sent_ms;
    bool is_keepalive;
};

struct cv_ssh {
    struct cv_ssh_transport *transport;
    struct cv_buf *out;      /* borrowed */
    struct cv_status status; /* once it is not CV_OK the session is over */
    const char *error;       /* static text beside it; NULL: the transport's */
    uint64_t now_ms;         /* of the latest call that told the time */
    bool is_server;
    bool is_established;
    bool has_heard; /* bytes came in since the last look at the clock */
    bool is_paused;
    struct cv_ssh_packet packet; /* what the latest event points into */

    uint32_t max_channels, channel_count;
    uint32_t window_bytes, max_packet_bytes;
    struct cv_ssh_channel **channels; /* max_channels places, by our number */
    uint32_t next_id;                 /* where to look for a free place first */
    uint32_t used_ids;                /* numbers below it have been a channel's at some time */
    struct cv_ssh_channel *due;       /* with flags to send */
    struct cv_ssh_channel *waiting;   /* a write was short: in the order in which that happened */
    struct cv_ssh_channel *dead;      /* freed by the next cv_ssh_next */
    struct cv_buf held;               /* messages: uint32 length and payload, again and again */

    uint32_t keepalive_ms, keepalive_max;
    uint32_t probes; /* keepalives sent since the peer was heard */
    uint64_t keepalive_due_ms;
    uint64_t paused_ms;

    struct cv_ssh_asked asked[CV_SSH_REQUESTS_MAX]; /* ring */
    unsigned asked_first, asked_count;
    /* Replies that we owe, in order: a ring of requests that the caller answers, each with the
     * number of refusals that go out behind its answer. */
    uint16_t owed[CV_SSH_OWED_MAX];
    unsigned owed_first, owed_count, owed_refusals;
};

/* Ends the session: the reason goes to the peer, `id` to the caller from now on. `text` is static.
 * Returns the status. */
struct cv_status cv_ssh_session_fail(struct cv_ssh *ssh, enum cv_status_id id, const char *text);

/* True when data and messages may go out at once: established, no key exchange under way, nothing
 * held back, session not over. */
bool cv_ssh_session_can_send(const struct cv_ssh *ssh);

/* Sends a message, `header` and `body` behind each other, or holds it back. CV_SSH_LIMIT when even
 * that is full, CV_NO_MEMORY: the session has failed. */
struct cv_status cv_ssh_session_send(struct cv_ssh *ssh, struct cv_slice header,
                                     struct cv_slice body);

/* The same, but true only if it went out at once; false: nothing happened, or the session failed.
 */
bool cv_ssh_session_try_send(struct cv_ssh *ssh, struct cv_slice header, struct cv_slice body);

/* Names on the wire, by enum cv_ssh_channel_kind. */
extern const char *const cv_ssh_channel_kinds[2];

static inline bool cv_ssh_channel_is(const struct cv_ssh_channel *channel,
                                     enum cv_ssh_channel_state state)
{
    return channel->fsm.state == (unsigned)state;
}

/* A name that may be handed on: not too long, no NUL in it. */
static inline bool cv_ssh_is_text(struct cv_slice name)
{
    return name.len <= CV_SSH_NAME_MAX && (name.len == 0 || !memchr(name.data, 0, name.len));
}

/* A new channel in its place; NULL at the limit or without memory. */
struct cv_ssh_channel *cv_ssh_channel_make(struct cv_ssh *ssh, enum cv_ssh_channel_state state);

/* Gives its place up; the memory lives on until the next cv_ssh_next, for the event that tells. */
void cv_ssh_channel_retire(struct cv_ssh_channel *channel);

/* Queues it for CHANNEL_WRITABLE. */
void cv_ssh_channel_wait(struct cv_ssh_channel *channel);

/* To OPEN, with the eof that the caller has asked for meanwhile; to CLOSING, with our close. */
void cv_ssh_channel_become_open(struct cv_ssh_channel *channel);
void cv_ssh_channel_start_closing(struct cv_ssh_channel *channel);

/* Writes a message that is a number and the recipient into `space`. */
struct cv_slice cv_ssh_channel_message(uint8_t space[9], uint8_t message,
                                       const struct cv_ssh_channel *channel);

/* Refuses an open of the peer, who calls the channel `peer_id`. */
struct cv_status cv_ssh_channel_send_failure(struct cv_ssh *ssh, uint32_t peer_id, uint32_t reason,
                                             const char *text);

/* Channel messages 90 to 100, `payload` from the message number on. *has_event is set when *event
 * was filled. Not CV_OK: the session has failed. */
struct cv_status cv_ssh_channel_handle(struct cv_ssh *ssh, struct cv_slice payload,
                                       struct cv_ssh_event *event, bool *has_event);

/* Sends the flags of the channels in ssh->due while there is room. */
void cv_ssh_channels_flush(struct cv_ssh *ssh);

/* The next CHANNEL_WRITABLE, if there is one to give. */
bool cv_ssh_channels_pop_writable(struct cv_ssh *ssh, struct cv_ssh_event *event);

/* Frees the channels whose last event was given; all of them. */
void cv_ssh_channels_reap(struct cv_ssh *ssh);
void cv_ssh_channels_free(struct cv_ssh *ssh);

/* Global messages 80 to 82, likewise. */
struct cv_status cv_ssh_global_handle(struct cv_ssh *ssh, struct cv_slice payload,
                                      struct cv_ssh_event *event, bool *has_event);

/* Sends keepalive@openssh.com with want_reply. CV_NO_RESOURCES when too many answers are missing.
 */
struct cv_status cv_ssh_global_keepalive(struct cv_ssh *ssh);

#endif
