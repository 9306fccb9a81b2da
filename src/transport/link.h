/* SPDX-License-Identifier: MIT
 *
 * A link: one SSH session over a WebSocket, on either side, and the streams in it. Ties the engines
 * (proto/ws, proto/link, proto/ssh) to a connection; knows nothing of tunnels, users or HTTP.
 *
 * Owns the connection from the moment it is handed over, and its streams. All calls and callbacks
 * on the worker that made it. Callbacks never run inside a call from above: what a call causes is
 * reported later in the same loop turn.
 *
 * Backpressure: cv_stream_write takes what the peer's window and a backlog of some 100 ms allow;
 * on_writable comes when there is room again, streams taking turns. What arrives must be taken
 * whole in on_data and reported with cv_stream_consumed once it has left, which opens the SSH
 * window again. A window is what a stream can hold at most: window_bytes, or up to window_max_bytes
 * where it is read as fast as a long path asks for (flow/credit.h).
 *
 * A link of culvert.v1 whose socket is lost waits `resume_ms` for another one: streams stay and may
 * be written as far as the replay buffer goes. The agent dials, makes a claim (cv_link_claim), and
 * puts the new socket in (cv_link_attach); the relay checks the claim (cv_link_accept_claim) first.
 */
#ifndef CV_TRANSPORT_LINK_H
#define CV_TRANSPORT_LINK_H

#include "base/slice.h"
#include "base/status.h"
#include "proto/link/control.h"

struct cv_fsm_def;

/* The lifecycle as a table, for docs/STATES.md. */
extern const struct cv_fsm_def cv_link_states;

struct cv_addr;
struct cv_conn;
struct cv_link;
struct cv_link_claim;
struct cv_log;
struct cv_metrics_block;
struct cv_ration;
struct cv_ssh_host_key;
struct cv_stream;
struct cv_worker;

enum { CV_STREAM_CORRELATION_MAX = 47 };

enum cv_link_role { CV_LINK_AGENT, CV_LINK_RELAY };

enum cv_stream_kind { CV_STREAM_FORWARDED, CV_STREAM_DIRECT };

struct cv_link_options {
    enum cv_link_role role;
    bool is_culvert;                        /* subprotocol culvert.v1; false: ssh */
    const struct cv_ssh_host_key *host_key; /* relay; borrowed for the link's life */
    const char *ciphers;                    /* comma-separated SSH names; NULL: all, best first */
    uint32_t max_channels;
    uint32_t window_bytes;     /* receive window of a stream at first … */
    uint32_t window_max_bytes; /* … and as far as it may grow; less: not at all */
    bool has_compression;      /* offer zlib@openssh.com */
    uint64_t rekey_bytes;
    uint32_t rekey_ms;
    uint32_t handshake_ms;
    uint32_t keepalive_ms;     /* SSH keep-alive */
    uint32_t ping_interval_ms; /* WebSocket ping after so much silence */
    uint32_t pong_timeout_ms;  /* dead after so much silence behind the ping */
    size_t replay_bytes;       /* kept until acknowledged; likewise */
    size_t replay_max_bytes;
    struct cv_ration *ration; /* what grows takes it from here; NULL: nothing grows. Referenced */
    uint64_t max_frame_bytes;
    uint64_t resume_ms;               /* how long a link waits for a new socket; 0: not at all */
    uint8_t id[16];                   /* the link's name, in claims */
    struct cv_metrics_block *metrics; /* of the worker; borrowed; NULL: nothing is counted */
};

struct cv_link_ops {
    /* The SSH session stands: global requests and streams may be sent. */
    void (*on_up)(void *arg);
    /* Agent: the relay's host key. False ends the link with CV_HOST_KEY. */
    bool (*on_host_key)(void *arg, struct cv_slice blob, const char *fingerprint);
    /* A global request other than keep-alives. For tcpip-forward and its cancel, host and port are
     * set; for names ending in @culvert `payload` is the one SSH string in it. Returns whether it
     * succeeds. */
    bool (*on_request)(void *arg, struct cv_slice name, struct cv_slice host, uint32_t port,
                       struct cv_slice payload);
    /* The answer to cv_link_request, in order. */
    void (*on_reply)(void *arg, uintptr_t cookie, bool is_success);
    /* A stream has ended on both sides, so that there is room for another. May be NULL. */
    void (*on_capacity)(void *arg);
    /* The peer asks for a stream: cv_stream_accept or cv_stream_refuse, now or later. */
    void (*on_stream)(void *arg, struct cv_stream *stream, enum cv_stream_kind kind,
                      struct cv_slice host, uint32_t port);
    /* A control message other than ack. */
    void (*on_control)(void *arg, const struct cv_link_control *control);
    /* A ping was answered, after so long. May be NULL. */
    void (*on_pong)(void *arg, uint32_t rtt_ms);
    /* The socket is lost; the link waits for another one. NULL: such a link ends instead. */
    void (*on_detached)(void *arg, struct cv_status why, const struct cv_error *error);
    /* The link is gone; all its streams have had on_closed. Exactly once, the last callback; the
     * struct dies after it. `error` may be NULL. */
    void (*on_closed)(void *arg, struct cv_status why, const struct cv_error *error);
};

/* Takes over `conn`, whose upgrade is done; `early` are bytes that came behind the upgrade, copied.
 * Installs itself as the connection's owner. CV_NO_MEMORY leaves the connection with the caller.
 * `log` is borrowed. */
struct cv_status cv_link_new(struct cv_worker *worker, struct cv_conn *conn,
                             const struct cv_link_options *options, struct cv_slice early,
                             const struct cv_link_ops *ops, void *arg, struct cv_log *log,
                             struct cv_link **link);

/* Ends the link: SSH disconnect, WebSocket close with the codes of `why`, then the socket, 5 s at
 * the latest; on_closed follows. Idempotent. */
void cv_link_close(struct cv_link *link, struct cv_status why, const char *message);

/* ---- a new socket for the same link ---- */

bool cv_link_is_detached(const struct cv_link *link);

/* Asks for a sign of life at once: the clock has jumped, the network has changed. */
void cv_link_probe(struct cv_link *link);

/* Gives up the socket, of which no good is expected any more, without waiting for its end. False:
 * the link is not up, or has no socket that could be given up. on_detached is not called. */
bool cv_link_detach(struct cv_link *link);

/* Agent: a claim to this link, for the next try; each has a higher counter. CV_INVALID unless
 * detached. */
struct cv_status cv_link_claim(struct cv_link *link, struct cv_link_claim *claim);

/* Agent: whether an answer comes from the relay that has this link, and has `received` bytes. */
bool cv_link_is_answer_to(const struct cv_link *link, const struct cv_link_claim *claim,
                          uint64_t received, struct cv_slice proof);

/* Relay: whether the claim holds, see cv_link_claim_check; the link is as before when it does not.
 * When it does, the claim is used up, the old socket is displaced (4001) if there is one, and
 * *received and `proof` are the answer. cv_link_attach has to follow. */
struct cv_status cv_link_accept_claim(struct cv_link *link, const struct cv_link_claim *claim,
                                      uint64_t *received, uint8_t proof[32]);

/* Puts in a socket whose upgrade is done, as cv_link_new does; the peer has `peer_received` bytes,
 * what is behind them is sent again. CV_INVALID: not detached, or an offset that cannot be;
 * CV_NO_MEMORY. The connection stays with the caller then and the link detached. */
struct cv_status cv_link_attach(struct cv_link *link, struct cv_conn *conn, uint64_t peer_received,
                                struct cv_slice early);

/* Sends a global request with `payload` as one SSH string; its answer comes as on_reply with
 * `cookie`. CV_NO_RESOURCES when too many are unanswered, CV_INVALID before on_up. */
struct cv_status cv_link_request(struct cv_link *link, const char *name, struct cv_slice payload,
                                 uintptr_t cookie);

/* Asks for (or cancels) a forwarding of `host`:`port` (RFC 4254 §7.1); answered as above. */
struct cv_status cv_link_forward(struct cv_link *link, const char *host, uint32_t port,
                                 bool is_cancel, uintptr_t cookie);

/* Sends a control message; nothing on links that are not culvert.v1. */
struct cv_status cv_link_control_send(struct cv_link *link, const struct cv_link_control *control);

size_t cv_link_streams(const struct cv_link *link); /* open or opening */
/* This machine's end of the socket; NULL while there is none. */
const struct cv_addr *cv_link_local_addr(const struct cv_link *link);
size_t cv_link_max_streams(const struct cv_link *link);
uint32_t cv_link_rtt_ms(const struct cv_link *link);   /* 0: unknown */
uint64_t cv_link_bytes_in(const struct cv_link *link); /* SSH bytes */
uint64_t cv_link_bytes_out(const struct cv_link *link);
size_t cv_link_replay_held(const struct cv_link *link); /* bytes kept until they are acknowledged */
uint64_t cv_link_replayed_bytes(const struct cv_link *link); /* sent again after a resume */

struct cv_stream_ops {
    void (*on_open)(void *arg); /* a stream of ours was confirmed */
    /* A stream of ours was refused: SSH reason code and text. The stream is dead afterwards. */
    void (*on_refused)(void *arg, uint32_t reason, struct cv_slice text);
    void (*on_data)(void *arg, struct cv_slice data);
    void (*on_eof)(void *arg);      /* the peer sends no more */
    void (*on_writable)(void *arg); /* after a short write */
    void (*on_closed)(
        void *arg,
        struct cv_status why); /* by the peer (CV_OK) or with the link; dead afterwards */
};

/* Opens a stream. `correlation` (at most CV_STREAM_CORRELATION_MAX characters, or NULL) names the
 * request it is opened for and goes to a peer of ours in place of the originator's address, which
 * neither side could check. CV_CHANNEL_LIMIT at the limit; CV_LINK_LOST while the link is not up.
 */
struct cv_status cv_stream_open(struct cv_link *link, enum cv_stream_kind kind, const char *host,
                                uint32_t port, const char *correlation,
                                const struct cv_stream_ops *ops, void *arg,
                                struct cv_stream **stream);

/* The request that the peer opened this stream for, for logs; "" when it did not say. */
const char *cv_stream_correlation(const struct cv_stream *stream);

/* Answers on_stream. */
void cv_stream_accept(struct cv_stream *stream, const struct cv_stream_ops *ops, void *arg);
void cv_stream_refuse(struct cv_stream *stream, uint32_t ssh_reason, const char *text);

/* Changes who is told; for streams that are pooled. */
void cv_stream_set_ops(struct cv_stream *stream, const struct cv_stream_ops *ops, void *arg);

/* Takes as much of `data` as can be sent now; returns how much. Less than all: on_writable follows.
 */
size_t cv_stream_write(struct cv_stream *stream, struct cv_slice data);

/* The most that can come before anything is consumed. */
size_t cv_stream_window_max(const struct cv_stream *stream);

/* `len` bytes of on_data have left on the other side. */
void cv_stream_consumed(struct cv_stream *stream, size_t len);

void cv_stream_eof(struct cv_stream *stream); /* nothing more will be written */

/* Closes; no callback comes after this call, and the pointer is dead. */
void cv_stream_close(struct cv_stream *stream);

#endif
