/* SPDX-License-Identifier: MIT
 *
 * Losing a socket and getting another one.
 *
 * Happy path: link_lose → put_aside, SSH's clock stops → on_detached … cv_link_claim (agent) →
 *   cv_link_accept_claim (relay) → cv_link_attach on both: the byte count goes back to what the
 *   peer has, SSH's clock goes on. Ways it fails: the link is not up yet or has no right to wait
 *   (it ends); the claim does not hold (nothing changes); nobody comes (link_life.c ends it).
 *
 * The old socket is never waited for: it is let go with a close frame that may or may not arrive.
 */
#include "transport/link_private.h"

#include "base/digest.h"
#include "telemetry/log.h"

#include <string.h>

enum { CLOSE_SET_ASIDE = 4000, CLOSE_DISPLACED = 4001 };

void link_bind(struct cv_link *link)
{
    link->is_bound =
        link->options.is_culvert && cv_ssh_derive(link->ssh, CV_LINK_SECRET_LABEL, link->secret);
}

/* 1001 and 1011 to 1014 (RFC 6455 §7.4, IANA) are what boxes in between say of themselves. */
bool link_is_socket_close(unsigned code)
{
    return code == CLOSE_SET_ASIDE || code == 1001 || code == 1005 ||
           (code >= 1011 && code <= 1014);
}

static bool can_wait(const struct cv_link *link)
{
    return link->state.state == LINK_UP && link->is_bound && link->options.resume_ms &&
           link->ops->on_detached;
}

static void put_aside(struct cv_link *link, uint16_t code, const char *text)
{
    struct cv_conn *conn = link->conn;
    uint64_t now_ms = cv_worker_now_ms(link->worker);
    link->conn = NULL;
    if (conn) {
        cv_conn_disown(conn);
        (void)cv_ws_send_close(link->ws, cv_conn_out(conn), code, cv_slice_str(text));
        cv_conn_flush(conn);
        cv_conn_close_lingering(conn, LINK_CLOSE_MS);
    }
    cv_buf_done(&link->text); /* half a control message */
    cv_fsm_set(&link->state, LINK_DETACHED);
    cv_ssh_pause(link->ssh, now_ms);
    link->detached_ms = now_ms;
    link->ping_sent_ms = 0;
    link->is_in_doubt = false;
    link_touch(link);
}

void link_lose(struct cv_link *link, struct cv_status why, const char *detail)
{
    if (!can_wait(link)) {
        link_end(link, why, detail);
        return;
    }
    link->why = why;
    if (!link->error.detail[0] && detail)
        (void)cv_fail(&link->error, why.id, "%s", detail);
    link->error.id = why.id;
    put_aside(link, CLOSE_SET_ASIDE, "this connection is given up, the link goes on");
    link->is_loss_untold = true;
}

void link_tell_loss(struct cv_link *link)
{
    link->is_loss_untold = false;
    struct cv_error error = link->error;
    link->error = (struct cv_error){0};
    if (link->state.state == LINK_DETACHED)
        link->ops->on_detached(link->arg, link->why, &error);
}

bool cv_link_is_detached(const struct cv_link *link)
{
    return link->state.state == LINK_DETACHED;
}

bool cv_link_detach(struct cv_link *link)
{
    if (!can_wait(link))
        return false;
    put_aside(link, CLOSE_SET_ASIDE, "this connection is given up, the link goes on");
    return true;
}

struct cv_status cv_link_claim(struct cv_link *link, struct cv_link_claim *claim)
{
    if (link->state.state != LINK_DETACHED)
        return cv_status(CV_INVALID);
    *claim = (struct cv_link_claim){.counter = ++link->counter, .received = link->seq.received};
    memcpy(claim->link_id, link->options.id, sizeof claim->link_id);
    cv_random(claim->nonce, sizeof claim->nonce);
    cv_link_claim_prove(claim, link->secret, claim->proof);
    return cv_ok();
}

bool cv_link_is_answer_to(const struct cv_link *link, const struct cv_link_claim *claim,
                          uint64_t received, struct cv_slice proof)
{
    uint8_t want[CV_LINK_PROOF_LEN];
    cv_link_answer_prove(claim, received, link->secret, want);
    bool is_proven = cv_equal_ct(cv_slice(want, sizeof want), proof);
    cv_wipe(want, sizeof want);
    return is_proven;
}

struct cv_status cv_link_accept_claim(struct cv_link *link, const struct cv_link_claim *claim,
                                      uint64_t *received, uint8_t proof[32])
{
    bool is_open = link->state.state == LINK_UP || link->state.state == LINK_DETACHED;
    struct cv_link_standing standing = {
        .secret = link->is_bound && is_open ? link->secret : NULL,
        .counter = link->counter,
        .acked = link->seq.acked,
        .framed = link->seq.framed,
    };
    CV_RETURN_IF_ERROR(cv_link_claim_check(claim, &standing));
    link->counter = claim->counter;
    if (link->state.state == LINK_UP)
        put_aside(link, CLOSE_DISPLACED, "another connection has taken over this link");
    link->is_loss_untold = false;
    *received = link->seq.received;
    cv_link_answer_prove(claim, *received, link->secret, proof);
    return cv_ok();
}

struct cv_status cv_link_attach(struct cv_link *link, struct cv_conn *conn, uint64_t peer_received,
                                struct cv_slice early)
{
    uint64_t now_ms = cv_worker_now_ms(link->worker), framed = link->seq.framed;
    struct cv_ws *ws;
    if (link->state.state != LINK_DETACHED)
        return cv_status(CV_INVALID);
    CV_RETURN_IF_ERROR(link_make_ws(&link->options, &ws));
    if (!cv_is_ok(cv_link_seq_rewind(&link->seq, peer_received, now_ms))) {
        cv_ws_free(&ws);
        return cv_status(CV_INVALID);
    }
    link->replayed += framed - link->seq.framed;
    link_count_replayed(link, framed - link->seq.framed);
    link_count_new_socket(link);
    /* What we have was told in the upgrade. */
    (void)cv_link_seq_take_ack(&link->seq);
    cv_ws_free(&link->ws);
    link->ws = ws;
    link->is_loss_untold = false;
    link->error = (struct cv_error){0};
    cv_fsm_set(&link->state, LINK_UP);
    cv_ssh_resume(link->ssh, now_ms);
    link->is_active = true;
    cv_log(link->log, CV_LOG_DEBUG, "link", "resumed", "the link has a new connection",
           CV_F_UINT("detachedMs", now_ms - link->detached_ms),
           CV_F_UINT("replayBytes", framed - link->seq.framed));
    link_adopt(link, conn, early);
    link_ask(link);
    return cv_ok();
}
