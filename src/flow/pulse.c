/* SPDX-License-Identifier: MIT */
#include "flow/pulse.h"

/* The word: when (48 bits, 8,900 years of milliseconds) | status (12) | is canary (1) | verdict
 * (3).
 */
enum { VERDICT_BITS = 3, STATUS_AT = 4, STATUS_BITS = 12, TIME_AT = 16, AGAIN_MS = 1000 };

#define LOW(value, bits) ((value) & ((UINT64_C(1) << (bits)) - 1))

static uint64_t pack(const struct cv_pulse_view *seen, uint64_t now_ms)
{
    return (uint64_t)seen->verdict | (uint64_t)seen->is_canary << VERDICT_BITS |
           LOW((uint64_t)seen->status, STATUS_BITS) << STATUS_AT | now_ms << TIME_AT;
}

void cv_pulse_tell(struct cv_pulse *pulse, const struct cv_pulse_view *seen, uint64_t now_ms)
{
    uint64_t before = atomic_load_explicit(&pulse->word, memory_order_relaxed);
    uint64_t after = pack(seen, now_ms);
    bool is_same = LOW(before, TIME_AT) == LOW(after, TIME_AT);
    if (is_same && !seen->is_canary && now_ms - (before >> TIME_AT) < AGAIN_MS)
        return;
    atomic_store_explicit(&pulse->latency_ms, seen->latency_ms, memory_order_relaxed);
    atomic_store_explicit(&pulse->word, after, memory_order_relaxed);
}

struct cv_pulse_view cv_pulse_look(const struct cv_pulse *pulse, uint64_t now_ms)
{
    uint64_t word = atomic_load_explicit(&pulse->word, memory_order_relaxed);
    uint64_t at_ms = word >> TIME_AT;
    return (struct cv_pulse_view){
        .verdict = (enum cv_pulse_verdict)LOW(word, VERDICT_BITS),
        .is_canary = (word >> VERDICT_BITS & 1) != 0,
        .status = (enum cv_status_id)LOW(word >> STATUS_AT, STATUS_BITS),
        .age_ms = now_ms > at_ms ? now_ms - at_ms : 0,
        .latency_ms = atomic_load_explicit(&pulse->latency_ms, memory_order_relaxed),
    };
}

enum cv_tunnel_health cv_tunnel_health(const struct cv_pulse_view *seen, bool is_reachable,
                                       uint64_t fresh_ms)
{
    if (!is_reachable)
        return CV_TUNNEL_AGENT_OFFLINE;
    if (seen->age_ms > fresh_ms)
        return CV_TUNNEL_UNKNOWN;
    switch (seen->verdict) {
    case CV_PULSE_ANSWERS:
        return CV_TUNNEL_ACTIVE;
    case CV_PULSE_SLOW:
        return CV_TUNNEL_SLOW;
    case CV_PULSE_DOWN:
        return CV_TUNNEL_SERVICE_DOWN;
    case CV_PULSE_NONE:
        break;
    }
    return CV_TUNNEL_UNKNOWN;
}

const char *cv_tunnel_health_name(enum cv_tunnel_health health)
{
    static const char *const names[CV_TUNNEL_HEALTH_COUNT] = {"unknown", "active", "service_slow",
                                                              "service_down", "agent_offline"};
    return names[health];
}
