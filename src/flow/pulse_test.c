/* SPDX-License-Identifier: MIT */
#include "base/test.h"
#include "flow/pulse.h"

enum { FRESH_MS = 60000 };

static enum cv_tunnel_health health(const struct cv_pulse *pulse, uint64_t now_ms)
{
    struct cv_pulse_view view = cv_pulse_look(pulse, now_ms);
    return cv_tunnel_health(&view, true, FRESH_MS);
}

static void what_was_never_seen_is_not_called_active(void **state)
{
    struct cv_pulse pulse = {0};
    (void)state;
    assert_int_equal(health(&pulse, 0), CV_TUNNEL_UNKNOWN);
    assert_int_equal(health(&pulse, 1000000), CV_TUNNEL_UNKNOWN);
}

static void each_verdict_holds_while_it_is_fresh(void **state)
{
    static const struct {
        enum cv_pulse_verdict verdict;
        enum cv_status_id status;
        enum cv_tunnel_health health;
    } rows[] = {
        {CV_PULSE_ANSWERS, CV_OK, CV_TUNNEL_ACTIVE},
        {CV_PULSE_SLOW, CV_TIMEOUT_FIRST_BYTE, CV_TUNNEL_SLOW},
        {CV_PULSE_SLOW, CV_OK, CV_TUNNEL_SLOW},
        {CV_PULSE_DOWN, CV_SERVICE_REFUSED, CV_TUNNEL_SERVICE_DOWN},
        {CV_PULSE_DOWN, CV_USAGE, CV_TUNNEL_SERVICE_DOWN},
    };
    const uint64_t at_ms = UINT64_C(40) * 365 * 86400 * 1000;
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct cv_pulse pulse = {0};
        cv_pulse_tell(&pulse,
                      &(struct cv_pulse_view){.verdict = rows[i].verdict,
                                              .status = rows[i].status,
                                              .is_canary = true,
                                              .latency_ms = 77},
                      at_ms);
        struct cv_pulse_view view = cv_pulse_look(&pulse, at_ms + 5);
        assert_int_equal(view.verdict, rows[i].verdict);
        assert_int_equal(view.status, rows[i].status);
        assert_int_equal(view.age_ms, 5);
        assert_int_equal(view.latency_ms, 77);
        assert_true(view.is_canary);
        assert_int_equal(health(&pulse, at_ms + FRESH_MS), rows[i].health);
        assert_int_equal(health(&pulse, at_ms + FRESH_MS + 1), CV_TUNNEL_UNKNOWN);
        assert_int_equal(cv_tunnel_health(&view, false, FRESH_MS), CV_TUNNEL_AGENT_OFFLINE);
    }
}

static void requests_do_not_write_the_same_again_at_once(void **state)
{
    const struct cv_pulse_view good = {.verdict = CV_PULSE_ANSWERS};
    const struct cv_pulse_view bad = {.verdict = CV_PULSE_DOWN, .status = CV_SERVICE_REFUSED};
    struct cv_pulse pulse = {0};
    (void)state;
    cv_pulse_tell(&pulse, &good, 5000);
    cv_pulse_tell(&pulse, &good, 5999);
    assert_int_equal(cv_pulse_look(&pulse, 6000).age_ms, 1000);
    cv_pulse_tell(&pulse, &good, 6000);
    assert_int_equal(cv_pulse_look(&pulse, 6000).age_ms, 0);
    cv_pulse_tell(&pulse, &bad, 6001); /* a change is told at once */
    assert_int_equal(cv_pulse_look(&pulse, 6001).verdict, CV_PULSE_DOWN);
    cv_pulse_tell(&pulse, &good, 6002);
    assert_int_equal(health(&pulse, 6002), CV_TUNNEL_ACTIVE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_never_seen_is_not_called_active),
        cmocka_unit_test(each_verdict_holds_while_it_is_fresh),
        cmocka_unit_test(requests_do_not_write_the_same_again_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
