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
    free(old);
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
