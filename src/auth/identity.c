/* SPDX-License-Identifier: MIT */
#include "auth/identity.h"

bool cv_tier_is_valid(struct cv_slice name)
{
    for (size_t i = 0; i < name.len; i++) {
        uint8_t c = name.data[i];
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '-'))
            return false;
    }
    return name.len > 0 && name.len <= CV_TIER_MAX;
}

bool cv_identity_text_is_valid(struct cv_slice text)
{
    if (text.len == 0 || text.len > CV_IDENTITY_MAX_TEXT)
        return false;
    for (size_t i = 0; i < text.len; i++) {
        uint8_t c = text.data[i];
        bool is_c1 = c == 0xc2 && i + 1 < text.len && text.data[i + 1] < 0xa0;
        if (c < 0x20 || c == 0x7f || is_c1)
            return false;
    }
    return true;
}

struct cv_identity *cv_identity_ref(struct cv_identity *identity)
{
    atomic_fetch_add_explicit(&identity->refs, 1, memory_order_relaxed);
    return identity;
}

void cv_identity_unref(struct cv_identity **identity)
{
    struct cv_identity *old = *identity;
    *identity = NULL;
    if (!old || atomic_fetch_sub_explicit(&old->refs, 1, memory_order_acq_rel) != 1)
        return;
    free(old->tunnels);
    free(old->groups);
    free(old);
}

/* SHA-256(issuer ‖ NUL ‖ subject): neither part can hold a NUL, so no two users share an input. */
void cv_identity_user_key(const char *issuer, const char *subject, uint8_t key[CV_SHA256_LEN])
{
    uint8_t input[2 * (CV_IDENTITY_MAX_TEXT + 1)];
    size_t issuer_len = strnlen(issuer, CV_IDENTITY_MAX_TEXT);
    size_t subject_len = strnlen(subject, CV_IDENTITY_MAX_TEXT);
    memcpy(input, issuer, issuer_len);
    input[issuer_len] = '\0';
    memcpy(input + issuer_len + 1, subject, subject_len);
    cv_sha256(cv_slice(input, issuer_len + 1 + subject_len), key);
}

struct cv_identity *cv_identity_new_anonymous(struct cv_slice network)
{
    uint8_t input[1 + 64] = {0};
    struct cv_identity *identity = calloc(1, sizeof *identity);
    if (!identity)
        return NULL;
    atomic_init(&identity->refs, 1);
    identity->is_anonymous = true;
    identity->expires_s = identity->valid_until_s = INT64_MAX;
    (void)cv_slice_to_str(cv_slice_str("anonymous"), identity->tier, sizeof identity->tier);
    (void)cv_slice_to_str(cv_slice_str("(anonymous)"), identity->subject, sizeof identity->subject);
    /* No issuer is empty: this is nobody's key. */
    size_t len = network.len < sizeof input - 1 ? network.len : sizeof input - 1;
    if (len)
        memcpy(input + 1, network.data, len);
    cv_sha256(cv_slice(input, 1 + len), identity->user_key);
    return identity;
}

bool cv_identity_is_in_group(const struct cv_identity *identity, const char *group)
{
    for (size_t at = 0; at < identity->groups_len; at += strlen(identity->groups + at) + 1)
        if (strcmp(identity->groups + at, group) == 0)
            return true;
    return false;
}

bool cv_identity_is_same_user(const struct cv_identity *a, const struct cv_identity *b)
{
    return memcmp(a->user_key, b->user_key, sizeof a->user_key) == 0;
}

bool cv_identity_may_use_tunnel(const struct cv_identity *identity, struct cv_slice name)
{
    if (!identity->has_tunnel_list)
        return true;
    for (unsigned i = 0; i < identity->tunnel_count; i++) {
        if (cv_slice_is(name, identity->tunnels[i]))
            return true;
    }
    return false;
}
