/* SPDX-License-Identifier: MIT
 *
 * What the tier of who asks grants in bytes a second: beyond it less is read, from the service and
 * from the consumer, and nothing is refused. Both directions are charged to one bucket.
 */
#include "relay/consumer_private.h"

/* What has gone into the consumer's output counts as consumed as soon as that is not congested, and
 * the user's tier grants the bandwidth. */
void exchange_give_back(struct cv_consumer *c)
{
    struct exchange *x = &c->x;
    uint64_t now_ms = consumer_now_ms(c);
    if (!x->upstream || cv_port_is_congested(&c->port) || now_ms < x->throttled_until_ms)
        return;
    size_t len = x->unconsumed;
    x->unconsumed = 0;
    cv_upstream_consumed(x->upstream, len);
    if (x->has_bandwidth) {
        x->throttled_until_ms =
            now_ms + cv_limits_charge_bytes(c->worker->relay->limits, x->identity, len, now_ms);
        consumer_arm(c);
    }
}

/* `len` bytes have come for the service: beyond the tier's bandwidth no more are read for a while.
 */
void exchange_charge_upload(struct cv_consumer *c, size_t len)
{
    struct exchange *x = &c->x;
    uint64_t now_ms = consumer_now_ms(c);
    if (!x->has_bandwidth)
        return;
    uint64_t wait_ms = cv_limits_charge_bytes(c->worker->relay->limits, x->identity, len, now_ms);
    x->upload_until_ms = wait_ms ? now_ms + wait_ms : 0;
    if (wait_ms)
        consumer_arm(c);
}
