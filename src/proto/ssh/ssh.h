/* SPDX-License-Identifier: MIT
 *
 * One SSH-2 session as a tunnel needs it: the connection protocol (RFC 4254) on top of our
 * transport layer (RFC 4253), client or server. Channels forwarded-tcpip and direct-tcpip, global
 * requests, keepalive; every other channel type and request is refused as the RFCs say. No I/O:
 * bytes and the time in; bytes, events and the next deadline out.
 *
 *     cv_ssh_feed(ssh, bytes, len);                        when cv_ssh_wants_input says so
 *     while (cv_is_ok(cv_ssh_next(ssh, now_ms, &event)))   also after `out` was drained
 *         …
 *     send what is in `out`; arm a timer for cv_ssh_deadline and call cv_ssh_tick
 *
 * Owns the session, its transport and its channels; borrows `out`, to which everything that is to
 * be sent is appended. Nothing is called back, so nothing is re-entered: any function here may be
 * called between two calls of cv_ssh_next.
 *
 * Limits: channels, unanswered global requests, names (255 bytes), packets, windows, control
 * messages held back during a key exchange (64 KiB). Channel data is never buffered here: what is
 * received is in the event, what is sent goes encrypted into `out` or is not taken. One thread.
 */
#ifndef CV_PROTO_SSH_SSH_H
#define CV_PROTO_SSH_SSH_H

#include "base/buf.h"
#include "base/slice.h"
#include "base/status.h"
#include "proto/ssh/transport.h"

/* Longest host name, request name or payload text accepted from a peer; longer ones are refused. */
#define CV_SSH_NAME_MAX 255
/* Our global requests that may wait for an answer. */
#define CV_SSH_REQUESTS_MAX 16
/* Global requests of the peer that may wait for the caller's answer; more of them are refused. */
#define CV_SSH_OWED_MAX 64
/* The largest window of a channel. */
#define CV_SSH_WINDOW_MAX (1 << 30)
/* The largest payload of a global request or reply that we send. */
#define CV_SSH_REQUEST_PAYLOAD_MAX 16384

struct cv_fsm_def;
struct cv_ssh;
struct cv_ssh_channel;

/* The lifecycles as tables, for docs/STATES.md: of a session, of a key exchange, of a
 * channel. */
extern const struct cv_fsm_def cv_ssh_phases, cv_ssh_stages, cv_ssh_channel_states;

enum cv_ssh_channel_kind {
    CV_SSH_FORWARDED_TCPIP, /* the server opens it towards the client (RFC 4254 §7.2) */
    CV_SSH_DIRECT_TCPIP,    /* the client opens it towards the server (RFC 4254 §7.2) */
};

/* Why a channel open is refused (RFC 4254 §5.1). */
enum cv_ssh_open_failure {
    CV_SSH_OPEN_PROHIBITED = 1,
    CV_SSH_OPEN_CONNECT_FAILED = 2,
    CV_SSH_OPEN_UNKNOWN_TYPE = 3,
    CV_SSH_OPEN_RESOURCE_SHORTAGE = 4,
};

/* Zero in a number means its default. */
struct cv_ssh_options {
    struct cv_ssh_transport_options
        transport;             /* role, host key, ciphers, rekeying, handshake time */
    uint32_t max_channels;     /* both directions together, those being closed included; 10 */
    uint32_t window_bytes;     /* what a peer may send on a channel before we pass it on; 2 MiB */
    uint32_t max_packet_bytes; /* data in one packet to us; 32,768, which is also the most */
    uint32_t keepalive_ms; /* a probe after this much silence; 60,000; UINT32_MAX switches it off */
    uint32_t keepalive_max; /* probes without any sign of life before the session fails; 3 */
};

enum cv_ssh_event_kind {
    /* Client: the server's key, before anything is trusted to it. Nothing goes on until
     * cv_ssh_accept_host_key. */
    CV_SSH_HOST_KEY,
    /* Keys are exchanged and the user authentication is done: channels and requests may start. */
    CV_SSH_ESTABLISHED,
    /* A later key exchange is complete. For counters: what waited for it goes out by itself. */
    CV_SSH_REKEYED,
    /* The peer asks: tcpip-forward and cancel-tcpip-forward (server only), hostkeys-00@openssh.com
     * (client only), and names ending in @culvert. All others are answered here. Where `want_reply`
     * is set the caller owes one cv_ssh_global_reply, now or later, in the order of the requests.
     */
    CV_SSH_GLOBAL_REQUEST,
    /* The answer to cv_ssh_global_request. */
    CV_SSH_GLOBAL_REPLY,
    /* The peer opens a channel: answer cv_ssh_channel_confirm or cv_ssh_channel_refuse, now or
       later. */
    CV_SSH_CHANNEL_REQUESTED,
    /* The peer has confirmed cv_ssh_channel_open. */
    CV_SSH_CHANNEL_OPENED,
    /* The peer has refused cv_ssh_channel_open; last event of the channel. */
    CV_SSH_CHANNEL_REFUSED,
    /* Bytes. They count against the window until cv_ssh_channel_consumed. */
    CV_SSH_CHANNEL_DATA,
    /* The peer sends no more; we still may. */
    CV_SSH_CHANNEL_EOF,
    /* The peer has closed the channel; last event of the channel. */
    CV_SSH_CHANNEL_CLOSED,
    /* After a short write: bytes can be written again. In turn, so that each channel gets its share
     * when `out` has room again. */
    CV_SSH_CHANNEL_WRITABLE,
    /* A keepalive was answered after `rtt_ms`. */
    CV_SSH_KEEPALIVE_ANSWERED,
    /* The peer has ended the session (RFC 4253 §11.1); the next call gives CV_EOF. */
    CV_SSH_DISCONNECTED,
};

/* Slices are valid until the next call of cv_ssh_next or cv_ssh_feed. `channel` stays valid after
 * its last event (REFUSED, CLOSED) until the next call of cv_ssh_next. */
struct cv_ssh_event {
    enum cv_ssh_event_kind kind;
    struct cv_ssh_channel *channel; /* CHANNEL_*, else NULL */
    union {
        struct {
            struct cv_slice blob;    /* the public key as sent (RFC 8709 §4) */
            const char *fingerprint; /* "SHA256:…" */
        } host_key;
        struct {
            struct cv_slice name;
            bool want_reply;
            struct cv_slice payload; /* what follows want_reply, unparsed */
            struct cv_slice host; /* tcpip-forward, cancel-tcpip-forward: ≤ 255 bytes, no NUL */
            uint32_t port;        /* likewise; ≤ 65,535 */
        } request;
        struct {
            void *cookie; /* as given to cv_ssh_global_request */
            bool is_success;
            struct cv_slice payload;
        } reply;
        struct {
            enum cv_ssh_channel_kind kind;
            struct cv_slice host; /* direct: where to; forwarded: the address that was asked for */
            uint32_t port;
            struct cv_slice origin_host;
            uint32_t origin_port;
        } open;
        struct cv_slice data; /* CHANNEL_DATA, never empty */
        struct {
            uint32_t reason;      /* enum cv_ssh_open_failure, or a disconnect reason; any number */
            struct cv_slice text; /* from the peer: any bytes, do not log unescaped */
        } end;                    /* CHANNEL_REFUSED, DISCONNECTED */
        uint32_t rtt_ms;
    };
};

/* A session in the role of options->transport; appends our identification to `out`. Options are
 * copied; what they point to (host key) is borrowed for the session's life. CV_INVALID for numbers
 * out of range, an unknown cipher, no host key in a server, or an `out` with a cap under
 * CV_SSH_OUT_MIN; CV_NO_MEMORY. *ssh is NULL then. */
struct cv_status cv_ssh_new(const struct cv_ssh_options *options, struct cv_buf *out,
                            uint64_t now_ms, struct cv_ssh **ssh);

/* Frees the session and every channel without a word to the peer (see cv_ssh_disconnect); nulls the
 * pointer, takes NULL. `out` is left as it is. */
void cv_ssh_free(struct cv_ssh **ssh);

/* Hands `len` received bytes over, at most CV_SSH_FEED_MAX. They are borrowed and modified in place
 * until cv_ssh_next says CV_AGAIN; call it until then, before the memory goes and before feeding
 * again. CV_SSH_LIMIT when more is fed, or while cv_ssh_wants_input is false: the session has
 * failed. */
struct cv_status cv_ssh_feed(struct cv_ssh *ssh, uint8_t *data, size_t len);

/* The next event. CV_AGAIN: none for now; either all input is used up, or the session waits for
 * room in `out` or for cv_ssh_accept_host_key and has kept the rest: call again after either.
 * CV_EOF: the session has ended in good order (DISCONNECTED was given, or cv_ssh_disconnect
 * called). Any other status is final: the reason to disconnect is already in `out`, if it could be
 * sent; send that, then free. It is returned again by later calls, and cv_ssh_error has the detail.
 */
struct cv_status cv_ssh_next(struct cv_ssh *ssh, uint64_t now_ms, struct cv_ssh_event *event);

/* False while the answers to more input would not fit into `out`. Do not read from the peer then.
 */
bool cv_ssh_wants_input(const struct cv_ssh *ssh);

/* When cv_ssh_tick wants to be called; UINT64_MAX for never. */
uint64_t cv_ssh_deadline(const struct cv_ssh *ssh);

/* Does what is due: handshake limit, keepalive, rekeying by time. Call cv_ssh_next afterwards: it
 * tells CV_CONN_TIMEOUT when the peer gave no sign of life. */
void cv_ssh_tick(struct cv_ssh *ssh, uint64_t now_ms);

/* Stops the clock while there is no network under the session, and lets it go on: deadlines move,
 * and the silence between says nothing about the peer. Without effect when called twice. */
void cv_ssh_pause(struct cv_ssh *ssh, uint64_t now_ms);
void cv_ssh_resume(struct cv_ssh *ssh, uint64_t now_ms);

/* Sends a keepalive now, to find loss early; CV_NO_RESOURCES when CV_SSH_REQUESTS_MAX requests
 * wait. */
struct cv_status cv_ssh_probe(struct cv_ssh *ssh, uint64_t now_ms);

/* Answer to CV_SSH_HOST_KEY. False: the session fails with CV_HOST_KEY. */
void cv_ssh_accept_host_key(struct cv_ssh *ssh, bool is_accepted);

/* Starts a new key exchange; without effect while one is under way. */
void cv_ssh_rekey(struct cv_ssh *ssh);

/* Appends SSH_MSG_DISCONNECT (RFC 4253 §11.1) and ends the session: cv_ssh_next gives CV_EOF from
 * now on. `text` ≤ 255 bytes. Once only, later calls do nothing. */
void cv_ssh_disconnect(struct cv_ssh *ssh, uint32_t reason, const char *text);

/* 32 bytes that both sides derive from the first key exchange as RFC 4253 §7.2 derives keys, under
 * a label of its own. Rekeying does not change them. False before ESTABLISHED. */
bool cv_ssh_derive(const struct cv_ssh *ssh, const char *label, uint8_t out[32]);

bool cv_ssh_is_established(const struct cv_ssh *ssh);

/* For logs: why the session failed, one sentence, "" if it did not; valid until free. The transport
 * tells the peer's version, the cipher and how many key exchanges there were. */
const char *cv_ssh_error(const struct cv_ssh *ssh);
const struct cv_ssh_transport *cv_ssh_transport_of(const struct cv_ssh *ssh);

/* Channels that are in use, those being closed and those not yet confirmed included. */
uint32_t cv_ssh_channel_count(const struct cv_ssh *ssh);

/* Walks the channels that the caller has not seen the last event of: NULL gives the first, a
 * channel the one behind it, NULL comes at the end. */
struct cv_ssh_channel *cv_ssh_channel_after(struct cv_ssh *ssh,
                                            const struct cv_ssh_channel *channel);

/* Asks the peer for a channel (RFC 4254 §7.2): FORWARDED_TCPIP as server, DIRECT_TCPIP as client.
 * `host` and `port` as the kind means them, names ≤ 255 bytes. Ends in CHANNEL_OPENED or
 * CHANNEL_REFUSED. NULL at the channel limit, before ESTABLISHED, for the wrong role or a long
 * name, or without memory. */
struct cv_ssh_channel *cv_ssh_channel_open(struct cv_ssh *ssh, enum cv_ssh_channel_kind kind,
                                           struct cv_slice host, uint32_t port,
                                           struct cv_slice origin_host, uint32_t origin_port);

/* Answers CHANNEL_REQUESTED. After refuse the channel is gone for the caller: no event follows, and
 * it stays valid only until the next call of cv_ssh_next. `text` ≤ 255 bytes, for people. */
void cv_ssh_channel_confirm(struct cv_ssh_channel *channel);
void cv_ssh_channel_refuse(struct cv_ssh_channel *channel, enum cv_ssh_open_failure reason,
                           const char *text);

/* Sends what the peer's window and the room in `out` allow, in packets of the size that the peer
 * wants; returns how many bytes were taken: 0 before CHANNEL_OPENED, during a key exchange (RFC
 * 4253 §7.1), and after eof or close. Whenever it is less than `data.len` a CHANNEL_WRITABLE
 * follows. */
size_t cv_ssh_channel_write(struct cv_ssh_channel *channel, struct cv_slice data);

/* How many bytes cv_ssh_channel_write would take now, as far as window and room say; a key exchange
 * that starts in between makes it fewer. */
size_t cv_ssh_channel_writable(const struct cv_ssh_channel *channel);

/* The caller has passed on `len` bytes of CHANNEL_DATA: the window is given back, in steps of an
 * eighth of its size (RFC 4254 §5.2). More than was delivered is a bug of the caller's, and aborts.
 */
void cv_ssh_channel_consumed(struct cv_ssh_channel *channel, size_t len);

/* Makes the window of a channel `bytes` (up to CV_SSH_WINDOW_MAX) instead of the session's
 * window_bytes. A larger one is told to the peer at once; a smaller one comes about by consumed
 * bytes not being given back, since what was granted cannot be revoked (RFC 4254 §5.2). Without
 * effect on a channel that is not open, or on which the peer has sent EOF. */
void cv_ssh_channel_set_window(struct cv_ssh_channel *channel, size_t bytes);

/* The bytes that a peer may make us hold for this channel: granted, or delivered and not consumed.
 */
size_t cv_ssh_channel_credit(const struct cv_ssh_channel *channel);

/* The bytes that the peer may still send on all channels, those that are being closed included. */
size_t cv_ssh_credit(const struct cv_ssh *ssh);

/* Bytes delivered in CHANNEL_DATA and not consumed yet. */
size_t cv_ssh_channel_unconsumed(const struct cv_ssh_channel *channel);

/* We send no more on this channel (RFC 4254 §5.3); the peer still may. Idempotent. */
void cv_ssh_channel_eof(struct cv_ssh_channel *channel);

/* Ends both directions. What the peer still sends is dropped; DATA, EOF and WRITABLE come no more.
 * CHANNEL_CLOSED comes when the peer has closed too, and only then is its place free. A channel
 * that the peer has not confirmed yet ends in CHANNEL_REFUSED or CHANNEL_CLOSED; one that waits for
 * our own answer is refused, see there. Idempotent. */
void cv_ssh_channel_close(struct cv_ssh_channel *channel);

/* A pointer of the caller's. */
void cv_ssh_channel_set_arg(struct cv_ssh_channel *channel, void *arg);
void *cv_ssh_channel_arg(const struct cv_ssh_channel *channel);

/* Our number of the channel, for logs; used again after the channel is closed. */
uint32_t cv_ssh_channel_id(const struct cv_ssh_channel *channel);
struct cv_ssh *cv_ssh_channel_session(const struct cv_ssh_channel *channel);

/* Sends a global request (RFC 4254 §4); waits by itself for a key exchange to end. With want_reply
 * a GLOBAL_REPLY with `cookie` follows, in the order of the requests. CV_NO_RESOURCES when
 * CV_SSH_REQUESTS_MAX wait or too much is held back, CV_INVALID before ESTABLISHED or for a long
 * name or payload; nothing is sent then. */
struct cv_status cv_ssh_global_request(struct cv_ssh *ssh, const char *name, bool want_reply,
                                       struct cv_slice payload, void *cookie);

/* Answers the oldest GLOBAL_REQUEST that wants a reply. `payload` is sent with success only: for
 * tcpip-forward nothing, except the port as uint32 where port 0 was asked for. CV_INVALID when none
 * waits. */
struct cv_status cv_ssh_global_reply(struct cv_ssh *ssh, bool is_success, struct cv_slice payload);

/* tcpip-forward and cancel-tcpip-forward (RFC 4254 §7.1), with reply; otherwise as
 * cv_ssh_global_request. Client only. */
struct cv_status cv_ssh_forward(struct cv_ssh *ssh, struct cv_slice host, uint32_t port,
                                void *cookie);
struct cv_status cv_ssh_forward_cancel(struct cv_ssh *ssh, struct cv_slice host, uint32_t port,
                                       void *cookie);

#endif
