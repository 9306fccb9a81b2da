/* SPDX-License-Identifier: MIT
 *
 * A claim to resume a link, as five lines: link id, counter, nonce, received, proof. The first
 * three bytes are what the relay knows: counter, acked, how much was framed beyond. A proof of "="
 * is replaced by the right one, so that mutations get past it. A claim holds only as resume.h says;
 * a changed claim never does; and no proof is also the answer's.
 */
#include "base/fuzz.h"
#include "proto/link/resume.h"

#include "base/digest.h"

static const uint8_t secret[CV_LINK_SECRET_LEN] = "a secret of thirty-two bytes...";

static void check_verdict(struct cv_link_claim claim, const struct cv_link_standing *standing)
{
    uint8_t proof[CV_LINK_PROOF_LEN], answer[CV_LINK_PROOF_LEN];
    cv_link_claim_prove(&claim, secret, proof);
    bool is_proven = memcmp(proof, claim.proof, sizeof proof) == 0;
    enum cv_status_id want = CV_OK;
    if (!is_proven)
        want = CV_RESUME_PROOF;
    else if (claim.counter <= standing->counter)
        want = CV_RESUME_CONFLICT;
    else if (claim.received < standing->acked || claim.received > standing->framed)
        want = CV_RESUME_UNKNOWN;
    cv_fuzz_must(cv_link_claim_check(&claim, standing).id == want);
    cv_link_answer_prove(&claim, claim.received, secret, answer);
    cv_fuzz_must(memcmp(answer, proof, sizeof answer) != 0);
    if (!is_proven)
        return;
    struct cv_link_claim changed[] = {claim, claim, claim, claim};
    changed[0].link_id[claim.received % CV_LINK_ID_LEN] ^= 1;
    changed[1].nonce[claim.received % CV_LINK_NONCE_LEN] ^= 0x80;
    changed[2].counter++;
    changed[3].received++;
    for (size_t i = 0; i < 4; i++)
        cv_fuzz_must(cv_link_claim_check(&changed[i], standing).id == CV_RESUME_PROOF);
    struct cv_link_standing stranger = *standing;
    stranger.secret = answer;
    cv_fuzz_must(cv_link_claim_check(&claim, &stranger).id == CV_RESUME_PROOF);
    stranger.secret = NULL;
    cv_fuzz_must(cv_link_claim_check(&claim, &stranger).id == CV_RESUME_UNKNOWN);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 3)
        return 0;
    struct cv_link_standing standing = {
        .secret = secret, .counter = data[0], .acked = data[1], .framed = data[1] + data[2]};
    struct cv_slice rest = cv_slice(data + 3, size - 3);
    struct cv_link_claim_text text = {.link_id = cv_slice_split(&rest, '\n'),
                                      .counter = cv_slice_split(&rest, '\n'),
                                      .nonce = cv_slice_split(&rest, '\n'),
                                      .received = cv_slice_split(&rest, '\n'),
                                      .proof = rest};
    bool is_right = cv_slice_is(text.proof, "=");
    char hex[2 * CV_LINK_PROOF_LEN + 1];
    struct cv_link_claim claim;
    memset(hex, '0', sizeof hex);
    if (is_right)
        text.proof = cv_slice(hex, sizeof hex - 1);
    if (!cv_is_ok(cv_link_claim_parse(&text, &claim)))
        return 0;
    cv_fuzz_must(text.link_id.len == 2 * CV_LINK_ID_LEN && claim.counter > 0);
    cv_fuzz_must(claim.counter <= 1ULL << 53 && claim.received <= 1ULL << 53);
    if (is_right)
        cv_link_claim_prove(&claim, secret, claim.proof);
    check_verdict(claim, &standing);
    return 0;
}
