/* SPDX-License-Identifier: MIT
 *
 * The way to the relay, kept up: dial, upgrade, SSH session, and again after a loss, for as long as
 * it makes sense. Knows nothing of tunnels.
 *
 *      idle ──▶ dialing ──▶ handshake ──▶ up ──┐
 *                  ▲  │          │             │
 *                  │  ▼          ▼             ▼
 *                  waiting ◀──────────────── lost          any ──▶ closing ──▶ ended
 *
 * Owns the link; borrows the access. Delays: flow/backoff.h; a refused token is not tried again for
 * 10 s, Retry-After is honoured. After reconnect.max_attempts failures in a row it rests until the
 * network changes or cv_uplink_reconnect. Each try is logged with its number, delay and reason. Its
 * worker's thread; callbacks come from the loop, never from inside a call.
 */
#ifndef CV_AGENT_UPLINK_H
#define CV_AGENT_UPLINK_H

#include "base/slice.h"
#include "base/status.h"
#include "net/watch.h"

#include <stdint.h>

struct cv_fsm_def;

/* The lifecycle as a table, for docs/STATES.md. */
extern const struct cv_fsm_def cv_uplink_states;

struct cv_access;
struct cv_link;
struct cv_link_control;
struct cv_log;
struct cv_quality;
struct cv_stream;
struct cv_uplink;
struct cv_worker;

/* What follows a try that failed. */
enum cv_uplink_next {
    CV_UPLINK_AGAIN,     /* another one, after a delay */
    CV_UPLINK_ELSEWHERE, /* another one at once, since on_choose has another relay */
    CV_UPLINK_GIVE_UP,   /* none: on_ended */
};

struct cv_uplink_ops {
    /* The SSH session stands. `link` is valid until on_down. */
    void (*on_up)(void *arg, struct cv_link *link);
    /* The link is gone, all its streams have ended; the next try is under way. */
    void (*on_down)(void *arg);
    void (*on_reply)(void *arg, uintptr_t cookie, bool is_success);
    void (*on_control)(void *arg, const struct cv_link_control *control);
    /* Where the next try for a fresh link goes; NULL: always to the options' `access`. */
    const struct cv_access *(*on_choose)(void *arg);
    /* A try for a fresh link failed; the relay may have asked to be left alone for a time, else 0.
     * NULL: always again. */
    enum cv_uplink_next (*on_failed)(void *arg, struct cv_status why, uint64_t retry_after_ms);
    /* The link has been without a connection for so long, and one more try to resume it failed. It
     * goes on trying. May be NULL. */
    void (*on_away)(void *arg, uint64_t away_ms);
    void (*on_resumed)(void *arg); /* may be NULL */
    /* The relay opens a stream; NULL refuses. */
    void (*on_stream)(void *arg, struct cv_stream *stream, struct cv_slice host, uint32_t port);
    /* The last callback: closed as asked (CV_OK), or given up, and why. */
    void (*on_ended)(void *arg, struct cv_status why, const struct cv_error *error);
};

struct cv_uplink_options {
    const struct cv_access *access;
    struct cv_log *log;
    /* Somebody waits for it: a token or certificate that is refused at the first try, and a wrong
     * host key at any, end it instead of being tried again, as do used-up tries. */
    bool is_interactive;
    struct cv_metrics_block *metrics; /* borrowed; NULL: nothing is counted */
    bool was_up; /* another uplink was up with these settings: a refusal is not the first try's */
};

/* Begins to dial. CV_NO_MEMORY. */
struct cv_status cv_uplink_new(struct cv_worker *worker, const struct cv_uplink_options *options,
                               const struct cv_uplink_ops *ops, void *arg,
                               struct cv_uplink **uplink);

/* The relay stops: the link is kept and resumed for as long as it lasts, and when it ends on_ended
 * comes instead of another try. */
void cv_uplink_retire(struct cv_uplink *uplink);

/* As cv_uplink_retire, and nobody has long to wait: a link without a connection gets a try at once,
 * and the first try to resume it that fails is the last one. */
void cv_uplink_wind_up(struct cv_uplink *uplink);

/* What its owner has to pass on from a cv_watch: a link whose address has gone is given up, others
 * are asked for a sign of life, and the next try is now, unless a server asked for patience. */
void cv_uplink_on_surroundings(struct cv_uplink *uplink, enum cv_watch_change change);

/* A person wants a new connection now: a link is resumed over one (streams go on; where it cannot
 * be resumed they are cut), a try that was planned for later is made, a rest ends. False: the
 * uplink is about to end. */
bool cv_uplink_reconnect(struct cv_uplink *uplink);

/* How it is. Pointers are valid until the next callback. */
struct cv_uplink_facts {
    const char *relay; /* "host:port" */
    const char *state; /* as in the diagram, or "detached", "resuming", "resting" */
    uint64_t state_ms; /* for so long */
    uint64_t attempts; /* for a fresh link, since the start */
    uint64_t failures; /* of the present state's tries, in a row */
    uint64_t resumes;
    uint64_t next_try_ms; /* from now; when has_next_try */
    uint64_t replayed_bytes, bytes_in, bytes_out;
    size_t streams;
    uint32_t rtt_ms;                  /* 0: unknown */
    const struct cv_quality *quality; /* flow/quality.h */
    double loss;                      /* percent, as quality has it now */
    bool has_next_try;
    bool is_retiring;
    const struct cv_error *trouble; /* why there is no connection, as the last try found; or NULL */
};
/* Its access' configuration has changed. */
void cv_uplink_on_settings(struct cv_uplink *uplink);

/* Somebody looks: asks for a sign of life unless there was one of late, so that the facts of the
 * next call are fresh; rates are between two calls of this. */
void cv_uplink_look(struct cv_uplink *uplink);
void cv_uplink_describe(const struct cv_uplink *uplink, struct cv_uplink_facts *facts);

/* Says goodbye on every layer; on_ended follows. Idempotent. */
void cv_uplink_close(struct cv_uplink *uplink, const char *message);

/* Frees what on_ended was called for, or what has not been closed (then without any goodbye, at
 * teardown). Not from inside its callbacks. Takes NULL, nulls. */
void cv_uplink_free(struct cv_uplink **uplink);

struct cv_link *cv_uplink_link(const struct cv_uplink *uplink); /* NULL unless up */

/* It is up, and has a connection at this moment. */
bool cv_uplink_is_connected(const struct cv_uplink *uplink);

/* The relay of the link, or of the last try. */
const struct cv_access *cv_uplink_access(const struct cv_uplink *uplink);

#endif
