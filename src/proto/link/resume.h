/* SPDX-License-Identifier: MIT
 *
 * Taking up a link again on a new socket (docs/PROTOCOL.md, "Resume"): what the agent claims, what
 * both sides prove, and what the relay makes of it. No I/O; owns nothing; any thread.
 *
 * Both proofs are HMAC-SHA-256 under a secret that comes from the first SSH key exchange, over
 * fields of fixed width, so that no two different claims give the same bytes. A claim is worth
 * something once: its counter must be greater than every one before.
 */
#ifndef CV_PROTO_LINK_RESUME_H
#define CV_PROTO_LINK_RESUME_H

#include "base/slice.h"
#include "base/status.h"

enum {
    CV_LINK_ID_LEN = 16,
    CV_LINK_NONCE_LEN = 32,
    CV_LINK_SECRET_LEN = 32,
    CV_LINK_PROOF_LEN = 32,
};

/* The label of the secret, for cv_ssh_derive. */
#define CV_LINK_SECRET_LABEL "culvert-resume"

/* What an agent says when it takes up a link; numbers are below 2^53. */
struct cv_link_claim {
    uint8_t link_id[CV_LINK_ID_LEN];
    uint64_t counter; /* grows with each try, from 1 */
    uint8_t nonce[CV_LINK_NONCE_LEN];
    uint64_t received; /* how much of the relay's bytes the agent has */
    uint8_t proof[CV_LINK_PROOF_LEN];
};

/* The values of the upgrade's fields: Culvert-Link, Culvert-Resume, Culvert-Nonce,
 * Culvert-Received, Culvert-Proof. */
struct cv_link_claim_text {
    struct cv_slice link_id, counter, nonce, received, proof;
};

/* CV_INVALID unless all five are there, hex digits of the right length and decimal numbers. */
struct cv_status cv_link_claim_parse(const struct cv_link_claim_text *text,
                                     struct cv_link_claim *claim);

/* The agent's proof of `claim` (whose own proof is not looked at). */
void cv_link_claim_prove(const struct cv_link_claim *claim,
                         const uint8_t secret[CV_LINK_SECRET_LEN],
                         uint8_t proof[CV_LINK_PROOF_LEN]);

/* The relay's proof: it knows the secret, has read this very claim, and has `received` bytes. */
void cv_link_answer_prove(const struct cv_link_claim *claim, uint64_t received,
                          const uint8_t secret[CV_LINK_SECRET_LEN],
                          uint8_t proof[CV_LINK_PROOF_LEN]);

/* What the relay knows when a claim comes. */
struct cv_link_standing {
    const uint8_t *secret; /* CV_LINK_SECRET_LEN bytes; NULL: no key exchange was complete */
    uint64_t counter;      /* the highest that was accepted */
    uint64_t acked;        /* the claim's offset must lie between these two */
    uint64_t framed;
};

/* Whether the claim holds. CV_RESUME_PROOF: whoever says it does not have the secret (nothing else
 * is told then); CV_RESUME_CONFLICT: the counter is not new, so it was said before, or another one
 * was faster; CV_RESUME_UNKNOWN: there is nothing to resume, or not from that offset. */
struct cv_status cv_link_claim_check(const struct cv_link_claim *claim,
                                     const struct cv_link_standing *standing);

#endif
