/* SPDX-License-Identifier: MIT */
#include "proto/link/resume.h"

#include "base/bytes.h"
#include "base/digest.h"

#include <string.h>

#define NUMBER_MAX ((uint64_t)1 << 53)

/* role, link id, counter, nonce, the agent's offset, and the relay's in its own proof */
enum { CLAIM_LEN = 1 + CV_LINK_ID_LEN + 8 + CV_LINK_NONCE_LEN + 8, ANSWER_LEN = CLAIM_LEN + 8 };

struct cv_status cv_link_claim_parse(const struct cv_link_claim_text *text,
                                     struct cv_link_claim *claim)
{
    *claim = (struct cv_link_claim){0};
    bool is_good = cv_hex_decode(text->link_id, claim->link_id, sizeof claim->link_id) &&
                   cv_hex_decode(text->nonce, claim->nonce, sizeof claim->nonce) &&
                   cv_hex_decode(text->proof, claim->proof, sizeof claim->proof) &&
                   cv_slice_to_u64(text->counter, NUMBER_MAX, &claim->counter) &&
                   cv_slice_to_u64(text->received, NUMBER_MAX, &claim->received) &&
                   claim->counter > 0;
    return cv_status(is_good ? CV_OK : CV_INVALID);
}

static void write_claim(const struct cv_link_claim *claim, char role, uint8_t *to)
{
    *to++ = (uint8_t)role;
    memcpy(to, claim->link_id, CV_LINK_ID_LEN);
    to += CV_LINK_ID_LEN;
    cv_put_u64(to, claim->counter);
    memcpy(to + 8, claim->nonce, CV_LINK_NONCE_LEN);
    cv_put_u64(to + 8 + CV_LINK_NONCE_LEN, claim->received);
}

void cv_link_claim_prove(const struct cv_link_claim *claim,
                         const uint8_t secret[CV_LINK_SECRET_LEN], uint8_t proof[CV_LINK_PROOF_LEN])
{
    uint8_t bytes[CLAIM_LEN];
    write_claim(claim, 'A', bytes);
    cv_hmac_sha256(cv_slice(secret, CV_LINK_SECRET_LEN), cv_slice(bytes, sizeof bytes), proof);
}

void cv_link_answer_prove(const struct cv_link_claim *claim, uint64_t received,
                          const uint8_t secret[CV_LINK_SECRET_LEN],
                          uint8_t proof[CV_LINK_PROOF_LEN])
{
    uint8_t bytes[ANSWER_LEN];
    write_claim(claim, 'R', bytes);
    cv_put_u64(bytes + CLAIM_LEN, received);
    cv_hmac_sha256(cv_slice(secret, CV_LINK_SECRET_LEN), cv_slice(bytes, sizeof bytes), proof);
}

struct cv_status cv_link_claim_check(const struct cv_link_claim *claim,
                                     const struct cv_link_standing *standing)
{
    uint8_t want[CV_LINK_PROOF_LEN];
    if (!standing->secret)
        return cv_status(CV_RESUME_UNKNOWN);
    cv_link_claim_prove(claim, standing->secret, want);
    bool is_proven =
        cv_equal_ct(cv_slice(want, sizeof want), cv_slice(claim->proof, sizeof claim->proof));
    cv_wipe(want, sizeof want);
    if (!is_proven)
        return cv_status(CV_RESUME_PROOF);
    if (claim->counter <= standing->counter)
        return cv_status(CV_RESUME_CONFLICT);
    if (claim->received < standing->acked || claim->received > standing->framed)
        return cv_status(CV_RESUME_UNKNOWN);
    return cv_ok();
}
