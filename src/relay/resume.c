/* SPDX-License-Identifier: MIT
 *
 * An agent comes back to a link that has lost its socket (docs/PROTOCOL.md, "Resume").
 *
 * Happy path: resume_serve (a link of the relay before this one: pass.c) → the connection moves to
 * the link's worker → resume_go_on → the claim holds → 101 with the relay's own proof → the socket
 * goes into the link. Ways it fails: the claim cannot be read (400); there is no such link of this
 * user (410); it was said before (409); it is not proven (403); the link came back too often of
 * late (429). The link stays as it was in all of them.
 */
#include "proto/link/resume.h"
#include "base/digest.h"
#include "net/conn.h"
#include "relay/consumer_private.h"
#include "relay/measure.h"
#include "relay/session.h"
#include "relay/takeover.h"
#include "telemetry/log.h"

#include <inttypes.h>
#include <stdio.h>

static struct cv_status read_claim(const struct cv_consumer *c, struct cv_link_claim *claim)
{
    struct cv_link_claim_text text = {
        .link_id = cv_http_single_value(&c->head, "Culvert-Link"),
        .counter = cv_http_single_value(&c->head, "Culvert-Resume"),
        .nonce = cv_http_single_value(&c->head, "Culvert-Nonce"),
        .received = cv_http_single_value(&c->head, "Culvert-Received"),
        .proof = cv_http_single_value(&c->head, "Culvert-Proof"),
    };
    return cv_link_claim_parse(&text, claim);
}

bool resume_is_of_a_link(const struct cv_consumer *c)
{
    const struct cv_relay *relay = c->worker->relay;
    struct cv_link_claim claim;
    return cv_http_value(&c->head, "Culvert-Resume").len && cv_is_ok(read_claim(c, &claim)) &&
           (cv_registry_has_link(relay->registry, claim.link_id) ||
            cv_takeover_has_predecessor(relay->takeover));
}

static void refuse(struct cv_consumer *c, struct cv_status why)
{
    /* Proven resumes are exempt, however many a network that comes back brings at once. */
    if (!source_admit(c, CV_LIMIT_UPGRADES))
        return;
    cv_log_limited(c->worker->relay->log, CV_LOG_WARN, "session", "resume_refused",
                   cv_status_text(why.id), CV_F_STR("userId", c->x.identity->subject),
                   CV_F_STATUS(why), CV_F_STR("correlationId", c->x.id), CV_F_TRACE(&c->x.trace));
    problem_answer(c, why.id, CV_HOP_RELAY, NULL, false);
}

static void hand_over(struct cv_consumer *c, const struct cv_link_claim *claim, uint64_t received,
                      const uint8_t proof[CV_LINK_PROOF_LEN])
{
    char hex[2 * CV_LINK_PROOF_LEN + 1], extra[192];
    cv_hex_encode(cv_slice(proof, CV_LINK_PROOF_LEN), hex);
    (void)snprintf(extra, sizeof extra, "Culvert-Received: %" PRIu64 "\r\nCulvert-Proof: %s\r\n",
                   received, hex);
    route_write_101(c, cv_slice_str("culvert.v1"), claim->link_id, extra);
    (void)tracing_link(c, c->x.route.session);
    struct cv_slice early = cv_http_parser_take_rest(c->parser);
    struct cv_conn *conn = cv_port_take_conn(&c->port);
    struct cv_status status =
        cv_session_resume(c->x.route.session, claim, conn, c->x.identity, early);
    if (!cv_is_ok(status)) {
        cv_log_limited(c->worker->relay->log, CV_LOG_ERROR, "session", "resume_failed",
                       "a link could not take its new connection", CV_F_STATUS(status));
        cv_conn_close(conn, status);
        measure_link(c->worker, status.id);
    }
    consumer_gone(c);
}

void resume_go_on(struct cv_consumer *c)
{
    struct cv_link_claim claim;
    uint64_t received;
    uint8_t proof[CV_LINK_PROOF_LEN];
    /* A link that comes back all the time costs what new links cost, so it counts like them. */
    if (cv_session_is_restless(c->x.route.session) &&
        (!source_admit(c, CV_LIMIT_UPGRADES) || !source_admit_user(c, CV_LIMIT_UPGRADES)))
        return;
    struct cv_status status = read_claim(c, &claim);
    if (cv_is_ok(status))
        status = cv_session_accept_claim(c->x.route.session, &claim, &received, proof);
    if (cv_is_ok(status))
        hand_over(c, &claim, received, proof);
    else
        refuse(c, status);
}

void resume_serve(struct cv_consumer *c)
{
    struct cv_link_claim claim;
    if (!cv_is_ok(read_claim(c, &claim))) {
        if (source_admit(c, CV_LIMIT_UPGRADES))
            problem_answer(c, CV_WS_UPGRADE, CV_HOP_CONSUMER, "the claim to a link cannot be read",
                           false);
        return;
    }
    c->x.route.session =
        cv_registry_find_link(c->worker->relay->registry,
                              (const struct cv_user_key *)c->x.identity->user_key, claim.link_id);
    if (!c->x.route.session) {
        if (!pass_to_predecessor(c))
            refuse(c, cv_status(CV_RESUME_UNKNOWN));
        return;
    }
    pass_take(c);
    c->x.is_resume = true;
    unsigned index = cv_session_worker_index(c->x.route.session);
    if (index == c->worker->index)
        resume_go_on(c);
    else if (!consumer_move(c, index, true))
        refuse(c, cv_status(CV_RESUME_CONFLICT));
}
